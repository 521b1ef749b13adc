//! Two runs of one instance: when the second may begin, which serves, and who goes back to whom.

use super::Verdict;
use super::facts::{Facts, Over, RunFacts};
use super::model::Model;
use crate::hold;
use provost_core::event::{RunEnd, StopReason};
use provost_core::fields::needs_restart;
use provost_core::ids::InstanceId;
use provost_core::time::Mono;
use provost_core::view::{HealthState, State};

impl Model {
    /// A run serves on, and another is to begin beside it.
    pub(super) fn begins_overlap(&mut self, id: &InstanceId, why: &StopReason) -> Verdict {
        let Some(spec) = self.config.processes.get(&id.process).cloned() else {
            return Err(format!("{id} is not in the file, and is to be another"));
        };
        let facts = &self.instances[id];
        hold!(spec.overlap && facts.up, "{id} is not to overlap");
        hold!(facts.former.is_none(), "{id} has two runs, and is to have a third");
        let Some(run) = &facts.run else { return Err(format!("{id} has no run to overlap with")) };
        hold!(run.ready && run.goes_on(), "{id} is to overlap and does not serve");
        let right = match why {
            StopReason::Changed => needs_restart(&run.spec, &spec),
            StopReason::Restart | StopReason::WatchedChanged(_) => facts.renew,
            _ => false,
        };
        hold!(right, "{id} is to overlap for a reason that is not so: {why}");
        if *why == StopReason::Changed || (facts.rolled && *why == StopReason::Restart) {
            self.take_turn(id)?;
        }
        let Some(facts) = self.instances.get_mut(id) else { return Ok(()) };
        (facts.renew, facts.rolled, facts.attempt) = (false, false, Some(0));
        facts.by_file = *why == StopReason::Changed;
        facts.former = facts.run.take();
        if let Some(former) = &mut facts.former {
            former.turns_passive();
        }
        Ok(())
    }

    /// The former run of an instance is the run again.
    fn goes_back(&mut self, id: &InstanceId, now: Mono) -> Verdict {
        let spec = self.config.processes.get(&id.process).cloned();
        let Some(facts) = self.instances.get_mut(id) else { return Ok(()) };
        hold!(facts.run.is_none(), "{id} goes back and has another run");
        hold!(facts.stand_in().is_some(), "{id} goes back to what is ending");
        facts.run = facts.former.take();
        if let (Some(run), Some(spec)) = (&mut facts.run, spec) {
            if !needs_restart(&run.spec, &spec) {
                run.adopt(&spec, now);
            }
            run.turns_active(now);
        }
        Ok(())
    }

    /// Whether the former run, which serves, is what the file says, and nobody has asked for another.
    pub(super) fn is_as_before(&self, facts: &Facts) -> bool {
        let spec = self.config.processes.get(&facts.view.id.process);
        let is = |former: &RunFacts| spec.is_some_and(|spec| !needs_restart(&former.spec, spec));
        facts.up && facts.by_file && facts.stand_in().is_some_and(is)
    }

    /// A former run is asked to end.
    pub(super) fn former_ends(&mut self, id: &InstanceId, why: &StopReason, now: Mono) -> Verdict {
        let facts = &self.instances[id];
        let is_replaced = facts.run.as_ref().is_some_and(|run| run.ready && run.goes_on());
        match why {
            StopReason::Changed | StopReason::Restart | StopReason::WatchedChanged(_) => {
                hold!(is_replaced, "{id}: its former run ends before the new one is ready");
                hold!(!self.is_as_before(facts), "{id} is ended, and is what the file says");
            }
            // Whether that is so is looked at as of any.
            _ => {
                let Some(facts) = self.instances.get_mut(id) else { return Ok(()) };
                std::mem::swap(&mut facts.run, &mut facts.former);
                let justified = self.justified(id, why, now);
                let Some(facts) = self.instances.get_mut(id) else { return Ok(()) };
                std::mem::swap(&mut facts.run, &mut facts.former);
                justified?;
            }
        }
        if is_replaced {
            self.replaced(&id.process, now);
        }
        if let Some(former) = self.instances.get_mut(id).and_then(|f| f.former.as_mut()) {
            former.why = Some(why.clone());
        }
        Ok(())
    }

    /// It is said that the new run failed and that the former one is the run again.
    pub(super) fn fell_back(&mut self, id: &InstanceId, end: &RunEnd, now: Mono) -> Verdict {
        let facts = &self.instances[id];
        let told = matches!(&facts.over, Over::ByPolicy(is, _) | Over::Settled(is)
            if is == end && !matches!(is, RunEnd::Asked(_)));
        let now_over = self.over_now.as_ref() == Some(id);
        hold!(told && now_over && facts.up, "{id}: its new run has not failed");
        hold!(!facts.settled, "{id} goes back, and is to be another in any case");
        self.goes_back(id, now)
    }

    /// It is said that the former run is the run again since no other is wanted.
    pub(super) fn taken_back(&mut self, id: &InstanceId, now: Mono) -> Verdict {
        let file = self.config.processes.get(&id.process);
        let Some(facts) = self.instances.get_mut(id) else { return Ok(()) };
        let Some(former) = &mut facts.former else {
            return Err(format!("{id}: nobody could go on"));
        };
        let as_before = file.is_some_and(|spec| !needs_restart(&former.spec, spec));
        let alone = file.is_some_and(|spec| !spec.overlap);
        hold!(as_before || alone, "{id} goes back to what the file does not say");
        // What somebody asked for is still to be done.
        facts.renew |= alone;
        self.goes_back(id, now)
    }

    /// What there is to know of a former run, and of the new one while it is not ready.
    pub(super) fn check_former(
        &self,
        id: &InstanceId,
        facts: &Facts,
        former: &RunFacts,
        now: Mono,
        timeout: bool,
    ) -> Verdict {
        let view = &facts.view;
        if timeout && !former.goes_on() {
            self.check_deadlines(id, former, now)?;
        }
        if let Some(run) = &facts.run {
            hold!(run.slot != former.slot, "{id} has two runs in one place");
        }
        if !former.goes_on() {
            let alone = !self.config.processes.get(&id.process).is_some_and(|spec| spec.overlap);
            let follows = self.follows_another(id, former);
            let stays = facts.run.is_some() || view.state != State::Stopping || !facts.up;
            hold!(stays || alone || follows, "{id} waits for the end of its former run");
            return Ok(());
        }
        hold!(view.state == State::Running, "{id} serves, and is {:?}", view.state);
        let held = view.sub_state == "held";
        hold!(held || view.sub_state == "overlapping", "{id} overlaps, and is {}", view.sub_state);
        hold!(view.needs_restart, "{id} has its new run, and the former serves");
        hold!(former.ready, "{id}: what serves is not ready");
        let health = match (&former.spec.health, former.health) {
            (None, _) => HealthState::None,
            (_, health) if health.healthy => HealthState::Healthy,
            (_, health) if health.ill => HealthState::Unhealthy,
            _ => HealthState::Starting,
        };
        hold!(view.health == health, "{id}: {:?}, not {health:?}", view.health);
        hold!(view.pid.is_some() == former.spawned.is_some(), "{id}: pid");
        if held || !facts.up {
            hold!(held, "{id} should be down, and is not to end");
            let waits = self.dependents_down(id);
            hold!(!waits, "{id} should be down, nothing keeps it, and it is not asked to end");
        }
        self.check_follows(id, former, view.sub_state)?;
        if self.is_as_before(facts) && !held {
            let gives_way = facts.run.as_ref().is_some_and(|run| !run.goes_on());
            hold!(gives_way, "{id} is what the file says, and is to be replaced");
        }
        let Some(run) = &facts.run else { return Ok(()) };
        hold!(!run.ready, "{id}: its new run is ready, and the former serves");
        hold!(!held || !run.goes_on(), "{id} is to go down, and its new run goes on");
        let limited = !run.goes_on() || run.limited == *run.spec.limits;
        hold!(limited, "{id} is held to other limits than those of its spec");
        self.check_follows(id, run, view.sub_state)?;
        if timeout { self.check_deadlines(id, run, now) } else { Ok(()) }
    }
}
