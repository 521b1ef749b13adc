//! What holds between turns.

use super::Verdict;
use super::facts::{Facts, Over, RunFacts, waited};
use super::model::Model;
use super::watch::pause;
use crate::hold;
use provost_core::Machine;
use provost_core::event::{Blocker, DependencyState, RunEnd, StopReason};
use provost_core::ids::{InstanceId, ProcessId};
use provost_core::job::JobKind;
use provost_core::spec::Condition;
use provost_core::time::Mono;
use provost_core::view::{HealthState, State, Summary};
use std::time::Duration;

/// How long an answer to a check may be late.
const GRACE: Duration = Duration::from_secs(2);
const KILL_AGAIN: Duration = Duration::from_secs(10);

impl Model {
    /// After a turn; `timeout`: it was one in which all that is due was done.
    pub(super) fn end(
        &mut self,
        machine: &Machine,
        now: Mono,
        timeout: bool,
        deep: bool,
    ) -> Verdict {
        if timeout {
            self.probe_overdue(None, now);
        }
        for run in self.instances.values_mut().filter_map(|facts| facts.run.as_mut()) {
            // The file does not say any more how.
            run.takes &= run.spec.reload.is_some() || !run.ready || run.taking.is_some();
        }
        hold!(self.promised.is_empty(), "jobs that were never announced: {:?}", self.promised);
        let asked = !matches!(
            self.cause,
            super::model::Cause::Timeout
                | super::model::Cause::Fact(_)
                | super::model::Cause::Watched(_)
                | super::model::Cause::Shutdown
                | super::model::Cause::Kill
        );
        hold!(!asked || self.answered, "a request without an answer");
        let granted = matches!(self.last_answer, Some(Ok(_)));
        let signal = matches!(self.cause, super::model::Cause::Signal(..)) && granted;
        hold!(signal == self.signaled, "a signal was granted and is not sent");
        let same = std::sync::Arc::ptr_eq(machine.config(), &self.config);
        hold!(same, "another configuration is in force");
        self.same_instances(machine)?;
        if deep {
            self.views_are_current(machine)?;
        }
        for (id, facts) in &self.instances {
            self.check_one(machine, id, facts, (now, timeout))?;
        }
        self.check_summary(&machine.summary())?;
        self.check_timers(machine, now, timeout)?;
        self.check_record(machine, now)?;
        self.check_notes()?;
        self.all_could_begin()?;
        self.forget_slack();
        let over = self.ending && !self.instances.values().any(Facts::is_there);
        hold!(!over || self.finished == 1, "all is down and nobody was told");
        hold!(machine.generation() == self.generation, "generation {}", machine.generation());
        Ok(())
    }

    fn same_instances(&self, machine: &Machine) -> Verdict {
        hold!(
            machine.instances().eq(self.instances.keys()),
            "other instances than there should be"
        );
        for (id, spec) in &self.config.processes {
            for index in 0..spec.instances {
                let there = self.instances.contains_key(&id.instance(index));
                hold!(there, "{id}@{index} is in the file and not there");
            }
        }
        Ok(())
    }

    /// What was not said to have changed has not.
    fn views_are_current(&self, machine: &Machine) -> Verdict {
        for (id, facts) in &self.instances {
            let view = machine.view(id);
            let same = view.as_ref() == Some(&facts.view);
            hold!(same, "{id} changed without a word:\n{view:#?}\n{:#?}", facts.view);
        }
        Ok(())
    }

    fn check_one(
        &self,
        machine: &Machine,
        id: &InstanceId,
        facts: &Facts,
        (now, timeout): (Mono, bool),
    ) -> Verdict {
        let view = &facts.view;
        let file = self.config.processes.get(&id.process).filter(|spec| id.index < spec.instances);
        hold!(view.wanted == facts.wanted || file.is_none(), "{id}: wanted {}", view.wanted);
        hold!(view.once == facts.once || file.is_none(), "{id}: once {}", view.once);
        let enabled = self.config.settings.enabled && file.is_some_and(|spec| spec.enabled);
        hold!(view.enabled == enabled, "{id}: enabled {}", view.enabled);
        if let Some(file) = file {
            hold!(view.spec == *file, "{id} shows another spec than the file's");
        }
        hold!(view.job.map(|job| job.0) == facts.job.as_ref().map(|job| job.id), "{id}: job");
        hold!(view.run == facts.seen().map(|run| run.run), "{id}: run {:?}", view.run);
        hold!(view.last_exit == facts.last_exit, "{id}: last exit {:?}", view.last_exit);
        if let Some(attempt) = facts.attempt {
            hold!(view.attempt == attempt, "{id}: attempt {}, not {attempt}", view.attempt);
        }
        let since = if view.state == facts.before { facts.since_before } else { now };
        hold!([since, now].contains(&view.since), "{id}: {:?} since {}", view.state, view.since.0);
        let generation = view.generation == facts.generation || view.needs_restart;
        hold!(generation || file.is_none(), "{id}: of {}", view.generation);
        self.check_state(machine, id, facts)?;
        if let Some(former) = &facts.former {
            self.check_former(id, facts, former, now, timeout)?;
        }
        match &facts.run {
            _ if facts.stand_in().is_some() => {}
            Some(run) => self.check_run(id, facts, run, now, timeout)?,
            None if facts.former.is_some() => self.check_over(id, facts)?,
            None => {
                hold!(file.is_some(), "{id} is down and not in the file, and still there");
                self.check_over(id, facts)?;
                hold!(view.health == HealthState::None, "{id}: health of nothing");
            }
        }
        if facts.wanted && view.state != State::Running && view.state != State::Completed {
            hold!(!view.reason(now).is_empty(), "{id} is {:?} and nobody knows why", view.state);
        }
        Ok(())
    }

    /// What an instance does is what it should be doing.
    fn check_state(&self, machine: &Machine, id: &InstanceId, facts: &Facts) -> Verdict {
        let view = &facts.view;
        let state = view.state;
        let live = matches!(state, State::Starting | State::Running | State::Stopping);
        hold!(live == facts.seen().is_some(), "{id} is {state:?}, its run: {:?}", facts.run);
        hold!((state == State::Backoff) == view.next_start.is_some(), "{id}: next start");
        if facts.stand_in().is_some() && !view.blockers.is_empty() {
            return self.check_waiting(machine, id, facts);
        }
        if state == State::Running && facts.stand_in().is_none() {
            let is_to_come = facts.renew || facts.rolled || view.needs_restart;
            let is_known = is_to_come || view.blockers.is_empty();
            hold!(is_known, "{id} waits for a new run, and has the one it should");
            self.check_blockers(machine, id, facts)?;
        }
        if live {
            return Ok(());
        }
        let allowed: &[State] = match (facts.up, facts.wished) {
            (true, _) => &[State::Waiting, State::Backoff, State::Completed, State::Failed],
            (false, true) => &[State::Waiting, State::Completed, State::Failed],
            (false, false) => &[State::Down, State::Completed],
        };
        hold!(
            allowed.contains(&state),
            "{id} is {state:?}, up {}, wished {}",
            facts.up,
            facts.wished
        );
        if state == State::Waiting {
            self.check_waiting(machine, id, facts)?;
        }
        Ok(())
    }

    /// It waits for something, and that is so.
    fn check_waiting(&self, machine: &Machine, id: &InstanceId, facts: &Facts) -> Verdict {
        hold!(!facts.view.blockers.is_empty(), "{id} waits for nothing");
        let Some(spec) = self.config.processes.get(&id.process) else { return Ok(()) };
        let named = self.check_blockers(machine, id, facts)?;
        if !facts.view.blockers.contains(&Blocker::Reload) {
            let waited = waited(&facts.view.blockers);
            hold!(facts.told == waited, "{id} waits for {waited:?}, told {:?}", facts.told);
        }
        for edge in &spec.depends_on {
            let mut on = self.instances_of(&edge.on).filter(|(_, facts)| facts.up);
            let held = on.any(|(_, facts)| facts.view.sub_state == "held");
            let told = named.contains(&edge.on) || (self.is_met(edge) && !held);
            hold!(told, "{id} does not say that it waits for {}", edge.on);
        }
        Ok(())
    }

    /// What is said to keep an instance from having a run, or another one, does so. Returns what that is.
    fn check_blockers(
        &self,
        machine: &Machine,
        id: &InstanceId,
        facts: &Facts,
    ) -> Result<Vec<ProcessId>, String> {
        let mut named = Vec::new();
        let Some(spec) = self.config.processes.get(&id.process) else { return Ok(named) };
        for blocker in &facts.view.blockers {
            match blocker {
                Blocker::Reload => hold!(self.reload.is_some(), "{id} waits for no reload"),
                Blocker::Dependency { on, condition, because } => {
                    let edge = spec.depends_on.iter().find(|edge| edge.on == *on);
                    let Some(edge) = edge.filter(|edge| edge.condition == *condition) else {
                        return Err(format!("{id} does not depend on {on}"));
                    };
                    named.push(edge.on.clone());
                    self.check_because(machine, id, edge, *because)?;
                }
            }
        }
        Ok(named)
    }

    /// Why a dependency does not meet its condition is so.
    fn check_because(
        &self,
        machine: &Machine,
        id: &InstanceId,
        edge: &provost_core::spec::Dependency,
        because: DependencyState,
    ) -> Verdict {
        let on = &edge.on;
        let up = || self.instances_of(on).filter(|(_, facts)| facts.up);
        let enabled = self.config.settings.enabled && self.config.processes[on].enabled;
        let any = |wanted: &dyn Fn(&Facts) -> bool| up().any(|(_, facts)| wanted(facts));
        let waits_for = |wanted: &dyn Fn(DependencyState) -> bool| {
            any(&|facts| {
                facts.view.state == State::Waiting
                    && facts.view.blockers.iter().any(|blocker| {
                        matches!(blocker, Blocker::Dependency { because, .. } if wanted(*because))
                    })
            })
        };
        let state = |state: State| any(&|facts| facts.view.state == state);
        let held = any(&|facts| facts.view.sub_state == "held");
        // Who follows it waits for the last that is to have a new run.
        let is_to_come = |id: &InstanceId| {
            machine.snapshot(id).is_some_and(|kept| kept.anew || kept.next.is_some())
        };
        let rolls = edge.restart && self.instances_of(on).any(|(id, _)| is_to_come(id));
        let overlaps = edge.restart && any(&|facts| facts.stand_in().is_some());
        // Who serves waits for its turn, and who uses it goes down before it.
        let serves = self.instances.get(id).is_some_and(|facts| facts.view.state == State::Running);
        let queues = serves
            && any(&|facts| facts.view.state == State::Running && !facts.view.blockers.is_empty());
        let ok = match because {
            DependencyState::Disabled => up().next().is_none() && !enabled,
            DependencyState::Stopped => up().next().is_none() && enabled,
            DependencyState::Failed => any(&|facts| {
                facts.view.state == State::Failed || self.will_be(facts) == Some(State::Failed)
            }),
            DependencyState::Waiting => state(State::Waiting) || queues,
            DependencyState::Stuck => waits_for(&DependencyState::is_final),
            DependencyState::Delayed => waits_for(&DependencyState::is_lasting),
            DependencyState::Starting => state(State::Starting) || state(State::Running),
            DependencyState::Stopping => state(State::Stopping) || held || rolls,
            DependencyState::Restarting => state(State::Backoff) || state(State::Stopping),
            DependencyState::NotHealthy => {
                any(&|facts| facts.seen().is_some_and(|run| run.health.ill))
            }
            DependencyState::Over => {
                edge.condition == Condition::Healthy
                    && any(&|facts| {
                        facts.completed || self.will_be(facts) == Some(State::Completed)
                    })
            }
            DependencyState::NotCompleted => {
                edge.condition == Condition::Completed
                    || any(&|facts| self.will_be(facts) == Some(State::Completed))
            }
        };
        hold!(ok, "{id} waits for {on}, which is said to be {because:?}");
        let hopeless = edge.condition != Condition::Completed && state(State::Failed);
        hold!(!hopeless || because.is_final(), "{id} waits for {on}, of which one has failed");
        let unmet = !self.is_met(edge) || held || rolls || overlaps || queues;
        hold!(unmet, "{id} waits for {on}, which is {}", edge.condition);
        Ok(())
    }

    /// What follows the end of a run that is ending by itself.
    fn will_be(&self, facts: &Facts) -> Option<State> {
        let run = facts.run.as_ref().filter(|_| facts.stand_in().is_none())?;
        let end = match (&run.why, run.exit) {
            (None, Some(status)) => RunEnd::Exited(status),
            (Some(StopReason::Unhealthy(detail)), _) => RunEnd::Unhealthy(detail.clone()),
            (Some(StopReason::Outgrown(used)), _) => RunEnd::Outgrown(*used),
            (Some(StopReason::StartTimedOut), _) => RunEnd::StartTimedOut,
            _ => return None,
        };
        Some(Model::verdict(&run.spec, &end, facts.view.attempt, run.ill))
    }

    fn check_run(
        &self,
        id: &InstanceId,
        facts: &Facts,
        run: &RunFacts,
        now: Mono,
        timeout: bool,
    ) -> Verdict {
        let view = &facts.view;
        let expected = match (run.goes_on(), run.ready) {
            (false, _) => State::Stopping,
            (true, true) => State::Running,
            (true, false) => State::Starting,
        };
        hold!(view.state == expected, "{id} is {:?}, not {expected:?}", view.state);
        let health = match (&run.spec.health, run.health) {
            (None, _) => HealthState::None,
            (_, health) if health.healthy => HealthState::Healthy,
            (_, health) if health.ill => HealthState::Unhealthy,
            _ => HealthState::Starting,
        };
        // Of a run that is ending nothing is learned any more.
        hold!(view.health == health || !run.goes_on(), "{id}: {:?}, not {health:?}", view.health);
        let limited = !run.goes_on() || run.limited == *run.spec.limits;
        hold!(limited, "{id} is held to other limits than those of its spec");
        hold!(view.pid.is_some() == (run.spawned.is_some() && run.exit.is_none()), "{id}: pid");
        if run.goes_on() && !facts.up {
            let waits = self.dependents_down(id);
            hold!(!waits, "{id} should be down, nothing keeps it, and it is not asked to end");
        }
        self.check_follows(id, run, view.sub_state)?;
        let can = run.goes_on() && run.ready && facts.up && view.sub_state != "held";
        let waits = run.takes && run.taking.is_none() && run.spec.reload.is_some();
        hold!(!(can && waits), "{id} has settings to take, and does not");
        let job = facts.job.as_ref().is_some_and(|job| job.kind == JobKind::Reload);
        let under_way = run.goes_on() && (run.takes || run.taking.is_some());
        hold!(!job || under_way, "{id} has nothing to take, and its job goes on");
        if timeout { self.check_deadlines(id, run, now) } else { Ok(()) }
    }

    pub(super) fn check_deadlines(&self, id: &InstanceId, run: &RunFacts, now: Mono) -> Verdict {
        match (run.ending, run.killed) {
            (Some(at), None) => {
                hold!(now < at.after(run.patience), "{id} should have been killed");
            }
            (_, Some(at)) => hold!(now < at.after(KILL_AGAIN), "{id} should be killed again"),
            (None, None) => {
                let late = now >= run.asked.after(run.spec.start_timeout);
                hold!(run.ready || run.overdue || !late, "{id} should have been ready");
            }
        }
        Ok(())
    }

    /// What follows a process by an edge with `restart: true` gets a new run when that does.
    pub(super) fn check_follows(
        &self,
        id: &InstanceId,
        run: &RunFacts,
        sub_state: &str,
    ) -> Verdict {
        if !run.goes_on() || sub_state == "held" {
            return Ok(());
        }
        let Some(spec) = self.spec_of(&id.process) else { return Ok(()) };
        for edge in spec.depends_on.iter().filter(|edge| edge.restart) {
            let mut renewed = self.renewed.iter().filter(|(on, _)| *on == edge.on);
            let follows = !renewed.any(|(_, at)| run.edges_since < *at && run.asked < *at);
            hold!(follows, "{id} does not follow {}", edge.on);
        }
        Ok(())
    }

    /// Whether all above an instance that are going down are down.
    pub(super) fn dependents_down(&self, id: &InstanceId) -> bool {
        self.config.processes.values().chain(self.gone.values()).all(|spec| {
            let depends = spec
                .depends_on
                .iter()
                .any(|edge| edge.on == id.process && edge.condition != Condition::Completed);
            !depends
                || self.instances_of(&spec.id).all(|(other, facts)| {
                    let ends = facts.former.as_ref().filter(|former| !former.goes_on());
                    let follows = |former| self.follows_another(other, former);
                    let leaves = ends.is_some() && !facts.up
                        || facts.run.is_none() && ends.is_some_and(follows);
                    let held = facts.view.sub_state == "held";
                    let ends = leaves || held || facts.view.state == State::Stopping;
                    !facts.is_there() || !ends
                })
        })
    }

    /// What followed the last run is what its policy says.
    fn check_over(&self, id: &InstanceId, facts: &Facts) -> Verdict {
        if self.over_now.as_ref() != Some(id) {
            return Ok(());
        }
        let Over::ByPolicy(end, ill) = &facts.over else { return Ok(()) };
        if self.ending {
            return Ok(());
        }
        let Some(spec) = self.config.processes.get(&id.process) else { return Ok(()) };
        let state = facts.view.state;
        // A restart counts itself.
        let attempt = facts.view.attempt - u32::from(state == State::Backoff);
        let expected = Model::verdict(spec, end, attempt, *ill);
        hold!(state == expected, "{id} {end}, and is {state:?}, not {expected:?}");
        Ok(())
    }

    fn check_summary(&self, told: &Summary) -> Verdict {
        let count = |wanted: &dyn Fn(&Facts) -> bool| {
            u32::try_from(self.instances.values().filter(|facts| wanted(facts)).count()).unwrap()
        };
        let state = |facts: &Facts| facts.view.state;
        let is = Summary {
            total: count(&|_| true),
            enabled: count(&|facts| facts.view.enabled),
            running: count(&|facts| state(facts) == State::Running),
            failed: count(&|facts| matches!(state(facts), State::Failed | State::Backoff)),
            unhealthy: count(&|facts| facts.view.health == HealthState::Unhealthy),
            jobs: count(&|facts| facts.job.is_some()) + u32::from(self.reload.is_some()),
            missing: count(&|facts| {
                facts.wanted
                    && (facts.view.enabled || facts.once)
                    && !facts.view.blockers.iter().any(Blocker::is_final)
                    && !matches!(state(facts), State::Running | State::Completed)
            }),
            shutting_down: self.ending,
            reloading: self.reload.is_some(),
            generation: self.generation,
        };
        hold!(*told == is, "the summary says {told:?}, it is {is:?}");
        Ok(())
    }

    /// The machine wants to be woken for the next of what is due, and for nothing else.
    fn check_timers(&self, machine: &Machine, now: Mono, timeout: bool) -> Verdict {
        let armed = machine.poll_timeout();
        let all = self.instances.values();
        let former = all.clone().filter_map(|facts| ending_due(facts.former.as_ref()?));
        let due = all.filter_map(|facts| next_due(facts, now)).chain(former).min();
        hold!(armed == due, "the next deadline is {armed:?}, not {due:?}");
        if timeout {
            hold!(armed.is_none_or(|at| at > now), "a deadline is over and nothing was done");
        }
        Ok(())
    }
}

/// When a run that is ending is killed, or once more.
fn ending_due(run: &RunFacts) -> Option<Mono> {
    match (run.ending, run.killed) {
        (_, Some(at)) => Some(at.after(KILL_AGAIN)),
        (at, None) => Some(at?.after(run.patience)),
    }
}

/// When something is to be done about an instance.
fn next_due(facts: &Facts, now: Mono) -> Option<Mono> {
    if let Some(at) = facts.view.next_start {
        return Some(at);
    }
    let run = facts.run.as_ref()?;
    if !run.goes_on() {
        return ending_due(run);
    }
    let start = (!run.ready && !run.overdue).then(|| run.asked.after(run.spec.start_timeout));
    let check = run.spec.health.as_ref().filter(|_| run.spawned.is_some()).map(|check| {
        match (run.probe, run.answered) {
            (Some((_, at)), _) => at.after(check.timeout).after(GRACE),
            (None, Some(at)) => at.after(pause(run)),
            (None, None) => now,
        }
    });
    [start, check, run.taking_limit()].into_iter().flatten().min()
}
