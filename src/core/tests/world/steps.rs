//! The record of a reload, step by step: what is planned, when each step begins and ends, and
//! whether what it says of an instance is so.

use super::Verdict;
use super::facts::Facts;
use super::model::{Cause, Model, wanted_again};
use crate::hold;
use provost_core::Machine;
use provost_core::event::Blocker;
use provost_core::fields::needs_restart;
use provost_core::ids::{InstanceId, ProcessId};
use provost_core::job::JobKind;
use provost_core::reload::{ReloadReport, ReloadResult, Step, StepKind, StepState};
use provost_core::spec::{Config, ProcessSpec};
use provost_core::time::Mono;
use provost_core::view::State;
use std::collections::{BTreeMap, BTreeSet};

/// What the steps of a reload were, and are to be.
#[derive(Debug, Default)]
pub struct Record {
    /// The steps as they were after the last turn; None: no reload was under way.
    steps: Option<Vec<Step>>,
    /// What a reload that begins in this turn has to do.
    planned: BTreeMap<InstanceId, StepKind>,
    /// When the last reload began.
    since: Mono,
    /// How many reloads had ended before this turn.
    ended: usize,
    /// Whether the reload under way had come to starting.
    starting: bool,
}

impl Record {
    pub(super) fn begin(&mut self, reports: usize) {
        self.ended = reports;
    }

    /// Whether the reload that begins has to look at an instance and to do nothing.
    pub(super) fn leaves(&self, id: &InstanceId) -> bool {
        self.planned.get(id) == Some(&StepKind::Live)
    }

    /// Whether the reload that begins has to do something about an instance.
    pub(super) fn concerns(&self, id: &InstanceId) -> bool {
        self.planned.contains_key(id)
    }
}

fn is_over(step: &Step) -> bool {
    step.state.is_final()
}

impl Model {
    /// Works out what a reload to `config` has to do; called before anything is changed for it.
    pub(super) fn plan_steps(&mut self, config: &Config, now: Mono) {
        self.record.since = now;
        self.record.planned.clear();
        let managed = config.settings.enabled;
        let mut concerned: BTreeSet<ProcessId> = BTreeSet::new();
        let old = &self.config;
        for id in old.processes.keys().chain(config.processes.keys()) {
            if old.processes.get(id) != config.processes.get(id) {
                concerned.insert(id.clone());
            }
        }
        if old.settings.enabled != managed {
            concerned.extend(old.processes.keys().chain(config.processes.keys()).cloned());
        }
        let once = self.instances.iter().filter(|(_, facts)| facts.once);
        concerned.extend(once.map(|(id, _)| id.process.clone()));
        for report in &self.reports[self.record.ended..] {
            let open = report.steps.iter().filter(|step| step.state == StepState::Superseded);
            concerned.extend(open.map(|step| step.instance.process.clone()));
        }
        let mut planned = BTreeMap::new();
        for process in &concerned {
            let spec = config.processes.get(process);
            let count = spec.map_or(0, |spec| spec.instances);
            for (id, _) in self.instances_of(process).filter(|(id, _)| id.index >= count) {
                planned.insert(id.clone(), StepKind::Stop);
            }
            let Some(spec) = spec else { continue };
            let was = self.config.processes.get(process).map_or(0, |spec| spec.instances);
            for index in 0..count {
                let id = process.instance(index);
                // What the file had no more is new, wherever its last run is.
                let new = index >= was;
                let facts = self.instances.get(&id);
                let wanted = match facts {
                    Some(facts) if !new => facts.wanted,
                    _ => wanted_again(&self.before, &id, config),
                };
                let wished = wanted && managed && spec.enabled;
                // What rested before a configuration that is withdrawn is not run again.
                let asked = facts.and_then(|facts| facts.job.as_ref());
                let asked =
                    asked.is_some_and(|job| matches!(job.kind, JobKind::Start | JobKind::Restart));
                let rests = self.before.get(&id).is_some_and(|before| before.rest.is_some());
                let rests = rests && !asked;
                let step = match facts {
                    Some(facts) => match step_of(facts, spec, wished) {
                        StepKind::Start if rests => Some(StepKind::Live),
                        step => Some(step),
                    },
                    None => (wished && !rests).then_some(StepKind::Start),
                };
                if let Some(kind) = step {
                    planned.insert(id, kind);
                }
            }
        }
        self.record.planned = planned;
    }

    /// After a turn: the record tells what was done and what is under way.
    pub(super) fn check_record(&mut self, machine: &Machine, now: Mono) -> Verdict {
        let mut before = self.record.steps.take();
        let since = self.record.since;
        for report in &self.reports[self.record.ended..] {
            match report.result {
                ReloadResult::Unchanged => {}
                ReloadResult::Superseded | ReloadResult::Withdrawn => {
                    let before = before.take().ok_or("what was superseded was not there")?;
                    superseded(&before, report)?;
                    self.record.starting = false;
                }
                ReloadResult::Applied | ReloadResult::FailedKept => {
                    let before = before.take();
                    self.check_steps(before.as_deref(), &report.steps, since, now)?;
                    self.record.starting = false;
                }
            }
        }
        let Some(steps) = machine.reload_steps() else {
            hold!(before.is_none(), "a reload is not there any more, without a report");
            return Ok(());
        };
        self.check_steps(before.as_deref(), steps, since, now)?;
        hold!(!steps.iter().all(is_over), "nothing is left of the reload and it goes on");
        self.check_order(steps)?;
        self.record.steps = Some(steps.to_vec());
        Ok(())
    }

    fn check_steps(
        &self,
        before: Option<&[Step]>,
        steps: &[Step],
        since: Mono,
        now: Mono,
    ) -> Verdict {
        match before {
            None => {
                let told: BTreeMap<InstanceId, StepKind> =
                    steps.iter().map(|step| (step.instance.clone(), step.kind)).collect();
                let planned = &self.record.planned;
                hold!(told == *planned, "the steps are {told:?}, not {planned:?}");
                hold!(told.len() == steps.len(), "two steps for one instance");
            }
            Some(before) => hold!(before.len() == steps.len(), "other steps than before"),
        }
        for (at, step) in steps.iter().enumerate() {
            let old = before.map(|before| &before[at]);
            if let Some(old) = old {
                let same = (&old.instance, old.kind) == (&step.instance, step.kind);
                hold!(same, "other steps than before");
                if is_over(old) {
                    hold!(
                        old == step,
                        "{} was {:?}, is {:?}",
                        step.instance,
                        old.state,
                        step.state
                    );
                    continue;
                }
            }
            self.check_step(old, step, since, now)?;
        }
        Ok(())
    }

    /// One step that had not ended before this turn.
    fn check_step(&self, old: Option<&Step>, step: &Step, since: Mono, now: Mono) -> Verdict {
        let (id, kind, state) = (&step.instance, step.kind, &step.state);
        let began = match old.map(|old| &old.state) {
            Some(StepState::Running { since }) => *since,
            _ if kind == StepKind::Stop => since,
            _ => now,
        };
        match state {
            StepState::Running { since } => hold!(*since == began, "{id}: began at {since:?}"),
            StepState::Done { took }
            | StepState::Held { took, .. }
            | StepState::Failed { took, .. } => {
                hold!(*took == now.since(began), "{id}: its step took {took:?}");
            }
            StepState::Pending => {
                let was = old.is_none_or(|old| old.state == StepState::Pending);
                hold!(was, "{id}: its step had begun");
            }
            StepState::Superseded => {}
        }
        let Some(facts) = self.instances.get(id) else {
            hold!(is_over(step), "{id} is not there, its step goes on");
            return Ok(());
        };
        let view = &facts.view;
        let leaving = view.state == State::Stopping
            || view.sub_state == "held"
            || (facts.former.is_some() && !facts.up);
        let ready = view.state == State::Running && !view.needs_restart;
        let told = match (kind, state) {
            (StepKind::Live, state) => matches!(state, StepState::Done { .. }),
            (StepKind::Stop, StepState::Pending) => leaving,
            (StepKind::Stop, StepState::Done { .. }) => !leaving,
            (StepKind::Stop, _) => false,
            (_, StepState::Done { .. }) => ready || view.state == State::Completed,
            (_, StepState::Failed { why, .. }) => {
                let end = view.last_end.as_ref().map(|end| format!("it {end}"));
                let refused = view.state == State::Running && view.needs_restart;
                let failed = matches!(view.state, State::Failed | State::Backoff);
                (failed || refused && kind == StepKind::Restart) && end.as_ref() == Some(why)
            }
            (StepKind::Restart, StepState::Held { why, .. })
                if why.contains("had its turn") || why.contains("was tried") =>
            {
                // It may follow another in the same turn.
                let is_old = view.needs_restart || facts.renew;
                matches!(view.state, State::Running | State::Stopping) && is_old
            }
            (StepKind::Restart, StepState::Held { why, .. }) if why.starts_with("it would") => {
                let is_old = view.needs_restart || facts.renew;
                // What else was due at the same time may have changed what it waits for.
                let is_so = matches!(self.cause, Cause::Timeout)
                    || first_lasting(facts)
                        .is_some_and(|blocker| *why == format!("it would wait for {blocker}"));
                // It may follow another in the same turn.
                let follows = view.state == State::Stopping;
                follows || view.state == State::Running && is_old && is_so
            }
            (_, StepState::Held { why, .. }) => match first_lasting(facts) {
                // What else was due at the same time may have changed it, or taken it away.
                _ if matches!(self.cause, Cause::Timeout) && !view.blockers.is_empty() => {
                    why.starts_with("waits for ")
                }
                Some(blocker) => *why == format!("waits for {blocker}"),
                None => view.state == State::Down && !facts.wished && why.contains("not wanted"),
            },
            (_, StepState::Superseded) => false,
            (StepKind::Restart, StepState::Pending) => true,
            (_, StepState::Pending) => {
                view.blockers.contains(&Blocker::Reload) || !facts.up || facts.is_there()
            }
            (_, StepState::Running { .. }) => match view.state {
                State::Starting | State::Stopping => true,
                State::Running => leaving || view.needs_restart,
                State::Waiting => first_lasting(facts).is_none(),
                // Others wait for it.
                State::Backoff => kind == StepKind::Restart && facts.view.spec.instances > 1,
                State::Down | State::Completed | State::Failed => false,
            },
        };
        hold!(told, "{id} is {:?}, its {} is {state:?}", view.state, kind.as_str());
        Ok(())
    }

    /// What goes, goes before what changes, and that before what starts; nobody waits for a turn for
    /// nothing.
    fn check_order(&mut self, steps: &[Step]) -> Verdict {
        let running = |step: &&Step| matches!(step.state, StepState::Running { .. });
        let of = |kind| steps.iter().filter(move |step| step.kind == kind);
        let stopping = of(StepKind::Stop).any(|step| !is_over(step));
        let began = of(StepKind::Start).any(|step| step.state != StepState::Pending);
        if stopping {
            let rolling = of(StepKind::Restart).any(|step| running(&step));
            hold!(!began && !rolling, "something is changed or started before the stops");
            return Ok(());
        }
        for step in of(StepKind::Restart).filter(|step| step.state == StepState::Pending) {
            let process = &step.instance.process;
            let busy = |facts: &Facts| {
                let waits = !facts.view.blockers.is_empty();
                facts.view.state != State::Running || !facts.view.sub_state.is_empty() || waits
            };
            let waits = self.instances_of(process).any(|(_, facts)| busy(facts));
            hold!(waits, "nothing of {process} is changed, and one is to be");
        }
        let all_wait = of(StepKind::Restart)
            .filter(running)
            .filter_map(|step| self.instances.get(&step.instance))
            .all(|facts| match facts.view.state {
                State::Waiting | State::Backoff => true,
                // It became ready before it was taken down, and waits for its turn once more.
                State::Running if facts.stand_in().is_none() => facts.view.sub_state != "held",
                State::Running => !facts.view.blockers.is_empty(),
                _ => false,
            });
        if began && !self.record.starting {
            hold!(all_wait, "something is started before all is changed");
        }
        let starting = of(StepKind::Start).any(|step| !is_over(step));
        self.record.starting |= began;
        hold!(began || !starting || !all_wait, "all is changed, and nothing is started: {steps:?}");
        Ok(())
    }
}

/// What is to be done about an instance that is there.
fn step_of(facts: &Facts, spec: &ProcessSpec, wished: bool) -> StepKind {
    let was_wished = facts.wished;
    match (&facts.run, wished) {
        (Some(run), true) if !run.goes_on() || needs_restart(&run.spec, spec) => StepKind::Restart,
        (_, true) if facts.stand_in().is_some() => StepKind::Restart,
        (Some(_), true) => StepKind::Live,
        (_, false) if was_wished && facts.is_there() => StepKind::Stop,
        (_, false) => StepKind::Live,
        (None, true) => {
            let other = needs_restart(&facts.view.spec, spec) || !facts.view.spec.enabled;
            // Its last run is over where nothing but a former one ends.
            let rests = matches!(facts.view.state, State::Down | State::Waiting | State::Stopping);
            if other || !was_wished || rests { StepKind::Start } else { StepKind::Live }
        }
    }
}

/// The first that an instance waits for and that will not come soon by itself.
fn first_lasting(facts: &Facts) -> Option<&Blocker> {
    facts.view.blockers.iter().find(|blocker| blocker.is_hopeless())
}

/// What had ended stays as it was, and what had not is said to have been superseded.
fn superseded(before: &[Step], report: &ReloadReport) -> Verdict {
    hold!(before.len() == report.steps.len(), "other steps than before");
    for (old, new) in before.iter().zip(&report.steps) {
        hold!(is_over(new), "{} goes on after its reload", new.instance);
        hold!(!is_over(old) || old == new, "{} was {:?}", new.instance, old.state);
    }
    Ok(())
}
