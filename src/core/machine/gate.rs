//! Whether an instance should be up, may start, may stop; and the step that its state calls for.

use super::Machine;
use crate::event::{Blocker, DependencyState, Effect, RunEnd, StopReason, What};
use crate::ids::{InstanceId, ProcessId};
use crate::job::{JobKind, JobResult};
use crate::process::{Instance, Live, Phase};
use crate::restart::Next;
use crate::spec::{Condition, Dependency, ProcessSpec};
use crate::time::Mono;
use crate::view::HealthState;

/// The jobs that want an instance up.
pub(super) const UP: &[JobKind] = &[JobKind::Start, JobKind::Restart];

impl Machine {
    /// Whether file, operator and supervisor want it up, dependencies aside.
    pub(crate) fn is_wished(&self, inst: &Instance) -> bool {
        !self.ending
            && !inst.removed
            && inst.wanted
            && self.config.settings.enabled
            && (inst.file_spec().enabled || inst.once)
    }

    /// Whether any instance of a process should be up.
    fn process_is_up(&self, process: &ProcessId) -> bool {
        self.instances_of(process).any(|(_, inst)| inst.up)
    }

    /// Works out again whether an instance should be up.
    pub(super) fn refresh_intent(&mut self, id: &InstanceId) {
        let Some(inst) = self.instances.get(id) else { return };
        // A condition that was met once and for all does not keep anybody up.
        let lasting = |edge: &&Dependency| edge.condition != Condition::Completed;
        let mut edges = inst.file_spec().depends_on.iter().filter(lasting);
        let held = edges.find(|edge| !self.process_is_up(&edge.on)).map(|edge| edge.on.clone());
        let up = self.is_wished(inst) && held.is_none();
        let Some(inst) = self.instances.get_mut(id) else { return };
        let turned = inst.up != up;
        if turned || inst.held != held {
            inst.up = up;
            inst.held = held;
            self.touch(id);
        }
        if turned {
            let concerned: Vec<ProcessId> =
                self.dependents.on(&id.process).iter().map(|edge| edge.process.clone()).collect();
            for process in concerned {
                self.intents.extend(self.ids_of(&process));
            }
            self.ripple(id);
        }
    }

    /// Takes the step that the state of an instance calls for.
    pub(super) fn advance(&mut self, id: &InstanceId, now: Mono, out: &mut Vec<Effect>) {
        if self.advance_former(id, now, out) {
            self.unjudged.insert(id.clone());
            return;
        }
        let Some(inst) = self.instances.get(id) else { return };
        match &inst.phase {
            Phase::Up(_) if inst.is_going_down() => {
                // Nobody uses a run that is not the one which serves.
                if inst.stand_in().is_some() || self.may_stop(id) {
                    let why = self.why_down(inst);
                    self.begin_stop(id, RunEnd::Asked(why.clone()), None, why, now, out);
                }
            }
            Phase::Up(_) => self.take_settings(id, now, out),
            Phase::Stopping(..) => {}
            _ if inst.removed && inst.former.is_none() => self.forget(id, now, out),
            Phase::Backoff { .. } if inst.up => {}
            Phase::Completed => {}
            Phase::Failed if self.is_wished(inst) => {}
            _ => self.rest(id, now, out),
        }
        self.unjudged.insert(id.clone());
    }

    /// Says what has come of an instance: what it waits for, its job, its step of a reload.
    ///
    /// Only once nobody has a step to take any more: what it waits for may look hopeless until that
    /// has taken its own.
    pub(super) fn judge(&mut self, id: &InstanceId, now: Mono, out: &mut Vec<Effect>) {
        self.check_waiting(id, now, out);
        self.check_job(id, out);
        self.check_step(id, now);
    }

    /// No run, and none due: one begins, or what keeps it from that is noted.
    fn rest(&mut self, id: &InstanceId, now: Mono, out: &mut Vec<Effect>) {
        let Some(inst) = self.instances.get(id) else { return };
        if self.is_wished(inst) {
            self.start_or_wait(id, now, out);
        } else if !matches!(inst.phase, Phase::Down) {
            self.set_phase(id, Phase::Down, now);
        }
    }

    fn start_or_wait(&mut self, id: &InstanceId, now: Mono, out: &mut Vec<Effect>) {
        let Some(inst) = self.instances.get(id) else { return };
        if inst.must_be_alone() {
            if !matches!(inst.phase, Phase::Down) {
                self.set_phase(id, Phase::Down, now);
            }
            return;
        }
        let blockers = self.blockers(id);
        if blockers.is_empty() {
            return self.spawn(id, now, out);
        }
        let Some(inst) = self.instances.get(id) else { return };
        if !matches!(&inst.phase, Phase::Waiting(old) if *old == blockers) {
            self.set_phase(id, Phase::Waiting(blockers), now);
        }
    }

    /// Tells what an instance waits for, where that is worth another line.
    fn check_waiting(&mut self, id: &InstanceId, now: Mono, out: &mut Vec<Effect>) {
        let Some(inst) = self.instances.get_mut(id) else { return };
        let Phase::Waiting(blockers) = &inst.phase else {
            inst.told.clear();
            return;
        };
        let blockers = blockers.clone();
        if !blockers.contains(&Blocker::Reload) && gist(&inst.told) != gist(&blockers) {
            inst.told.clone_from(&blockers);
            self.note(id, What::Waiting { on: blockers.clone() }, now, out);
        }
        if let Some(blocker) = blockers.iter().find(|blocker| blocker.is_final()) {
            let detail = Some(format!("waits for {blocker}"));
            self.end_job(id, UP, JobResult::Dependency, detail, out);
        }
    }

    /// What keeps an instance from starting, in the order of the dependencies.
    fn blockers(&self, id: &InstanceId) -> Vec<Blocker> {
        let Some(inst) = self.instances.get(id) else { return Vec::new() };
        let mut blockers = self.unmet_of(inst.file_spec(), inst.is_patient());
        if inst.gated || self.holds_back {
            blockers.push(Blocker::Reload);
        }
        blockers
    }

    /// The dependencies of a spec that do not meet their conditions; for one that is patient also those
    /// that it follows and that are renewed ([`Instance::is_patient`]).
    pub(super) fn unmet_of(&self, spec: &ProcessSpec, is_patient: bool) -> Vec<Blocker> {
        let renewed = |edge: &Dependency| self.is_renewed(edge).filter(|_| is_patient);
        blockers_by(spec, |edge| self.unmet(edge).or_else(|| renewed(edge)))
    }

    /// The same for a new run, if the one that serves were taken down for it.
    pub(super) fn in_the_way_of(&self, spec: &ProcessSpec) -> Vec<Blocker> {
        blockers_by(spec, |edge| self.unmet_for_turn(edge))
    }

    /// Why a dependency does not meet its condition; None when it does.
    ///
    /// All instances of it that should be up must meet it: one that an operator stopped beside
    /// others does not count.
    fn unmet(&self, edge: &Dependency) -> Option<DependencyState> {
        let mut any = false;
        let mut worst = None;
        for (_, inst) in self.instances_of(&edge.on) {
            if edge.condition == Condition::Completed && matches!(inst.phase, Phase::Completed) {
                any = true;
                continue;
            }
            if !inst.up {
                continue;
            }
            any = true;
            if let Some(state) = unmet_by(inst, edge.condition) {
                if state.is_final() {
                    return Some(state);
                }
                worst = worst.or(Some(state));
            }
        }
        if !any {
            return Some(self.why_nothing_is_up(&edge.on));
        }
        // Who follows each that restarts would be ended again with the next one.
        worst
            .or_else(|| (edge.restart && self.rolls(&edge.on)).then_some(DependencyState::Stopping))
    }

    /// Whether a new run of a dependency is on its way beside one that serves, and who follows it by this
    /// edge would be ended again when it has come.
    fn is_renewed(&self, edge: &Dependency) -> Option<DependencyState> {
        let any = || self.instances_of(&edge.on).any(|(_, inst)| inst.is_renewed());
        (edge.restart && any()).then_some(DependencyState::Starting)
    }

    /// Why a dependency would keep a new run from beginning if the one that serves were taken down for it.
    fn unmet_for_turn(&self, edge: &Dependency) -> Option<DependencyState> {
        match self.unmet(edge) {
            // It is to go down for a new run of its own, and then its users go first.
            None if edge.condition != Condition::Completed && self.waits_for_turns(&edge.on) => {
                return Some(DependencyState::Waiting);
            }
            None => return self.is_renewed(edge),
            Some(why) if why.is_final() => return Some(why),
            Some(_) => {}
        }
        // Who serves and is to go down does so after those that use it.
        let goes_later = |inst: &Instance| {
            let serves = matches!(&inst.phase, Phase::Up(live) if live.ready.is_some());
            serves && inst.restart_due.is_some()
        };
        let others = self.instances_of(&edge.on).filter(|(_, inst)| inst.up && !goes_later(inst));
        let states = others.filter_map(|(_, inst)| unmet_by(inst, edge.condition));
        // Of several the one that will be there last.
        let last = states.reduce(|one, other| if one.is_lasting() { one } else { other });
        last.or_else(|| self.is_renewed(edge))
    }

    fn why_nothing_is_up(&self, process: &ProcessId) -> DependencyState {
        let enabled = self.config.settings.enabled
            && self.config.processes.get(process).is_some_and(|spec| spec.enabled);
        if enabled { DependencyState::Stopped } else { DependencyState::Disabled }
    }

    /// Whether all that must go down before an instance are down.
    ///
    /// Only those count that are going down themselves: a database that is restarted by hand does
    /// not stop what uses it, unless the edge says so.
    pub(super) fn may_stop(&self, id: &InstanceId) -> bool {
        self.leaving.get(&id.process).is_none_or(|count| *count == 0)
    }

    /// Why an instance goes down, when several reasons may hold: the most lasting first.
    pub(super) fn why_down(&self, inst: &Instance) -> StopReason {
        if self.ending {
            StopReason::Shutdown
        } else if inst.removed {
            StopReason::Removed
        } else if !inst.wanted {
            StopReason::Requested
        } else if !(self.config.settings.enabled && (inst.file_spec().enabled || inst.once)) {
            StopReason::Disabled
        } else if let Some(held) = &inst.held {
            StopReason::DependencyStopped(held.clone())
        } else {
            inst.restart_due.clone().unwrap_or(StopReason::Restart)
        }
    }

    /// Ends the job of an instance when what it is for is so.
    fn check_job(&mut self, id: &InstanceId, out: &mut Vec<Effect>) {
        self.check_reload(id, out);
        let Some(inst) = self.instances.get(id) else { return };
        if inst.serves() && inst.up {
            // One that waits for its turn has not had what it was asked for, nor has one whose new
            // run is not ready.
            let waits = inst.anew || inst.stand_in().is_some();
            let had: &[JobKind] = if waits { &[JobKind::Start] } else { UP };
            self.end_job(id, had, JobResult::Done, None, out);
        } else if !self.is_wished(inst) {
            let down = inst.live().is_none() && inst.former.is_none();
            let why = self.why_down(inst).to_string();
            self.end_job(id, UP, JobResult::Canceled, Some(why), out);
            if down {
                self.end_job(id, &[JobKind::Stop], JobResult::Done, None, out);
            }
        }
    }

    /// Drops an instance that is down and that the file has no more.
    fn forget(&mut self, id: &InstanceId, now: Mono, out: &mut Vec<Effect>) {
        self.end_job(id, &[JobKind::Stop], JobResult::Done, None, out);
        let gone = Some(StopReason::Removed.to_string());
        let others = [UP, &[JobKind::Reload]].concat();
        self.end_job(id, &others, JobResult::Canceled, gone, out);
        self.set_phase(id, Phase::Down, now);
        if let Some(inst) = self.instances.remove(id) {
            self.recount(inst.tally, crate::process::Tally::default());
        }
    }
}

/// The dependencies of a spec of which there is something to say, and that.
fn blockers_by(
    spec: &ProcessSpec,
    unmet: impl Fn(&Dependency) -> Option<DependencyState>,
) -> Vec<Blocker> {
    let blocker = |edge: &Dependency| {
        let (on, condition, because) = (edge.on.clone(), edge.condition, unmet(edge)?);
        Some(Blocker::Dependency { on, condition, because })
    };
    spec.depends_on.iter().filter_map(blocker).collect()
}

/// Why an instance that should be up does not meet a condition.
fn unmet_by(inst: &Instance, condition: Condition) -> Option<DependencyState> {
    if let Some(former) = inst.stand_in() {
        if inst.former_leaves() {
            return Some(DependencyState::Stopping);
        }
        return unmet_by_run(&former.live, condition);
    }
    match &inst.phase {
        Phase::Failed => Some(DependencyState::Failed),
        Phase::Backoff { .. } => Some(DependencyState::Restarting),
        Phase::Waiting(blockers) => Some(behind(blockers)),
        Phase::Stopping(_, ending) => {
            Some(match inst.follow_up(&ending.end, ending.give_up.as_ref()) {
                None => DependencyState::Stopping,
                Some(Next::Restart) => DependencyState::Restarting,
                Some(Next::Fail(_)) => DependencyState::Failed,
                // Its work is done, but something of it is left.
                Some(Next::Complete) if condition == Condition::Healthy => DependencyState::Over,
                Some(Next::Complete) => DependencyState::NotCompleted,
            })
        }
        Phase::Down if inst.former.is_some() => Some(DependencyState::Stopping),
        Phase::Down => Some(DependencyState::Starting),
        Phase::Up(_) if inst.restart_due.is_some() => Some(DependencyState::Stopping),
        // A one-shot that did its work was started and ready, but is not healthy any more.
        Phase::Completed => match condition {
            Condition::Healthy => Some(DependencyState::Over),
            Condition::Started | Condition::Ready | Condition::Completed => None,
        },
        Phase::Up(live) => unmet_by_run(live, condition),
    }
}

fn unmet_by_run(live: &Live, condition: Condition) -> Option<DependencyState> {
    match condition {
        Condition::Started => live.started.is_none().then_some(DependencyState::Starting),
        Condition::Ready => live.ready.is_none().then_some(DependencyState::Starting),
        Condition::Healthy => match live.health.state() {
            HealthState::Healthy => None,
            HealthState::Unhealthy if live.ready.is_some() => Some(DependencyState::NotHealthy),
            _ => Some(DependencyState::Starting),
        },
        Condition::Completed => Some(DependencyState::NotCompleted),
    }
}

/// What of blockers is worth another line: who they are and whether they pass by themselves, not each
/// step they take on their way. That a reload has an order is worth none.
fn gist(blockers: &[Blocker]) -> Vec<(&ProcessId, bool, bool)> {
    blockers
        .iter()
        .filter_map(|blocker| match blocker {
            Blocker::Dependency { on, because, .. } => {
                Some((on, because.is_final(), because.is_lasting()))
            }
            Blocker::Reload => None,
        })
        .collect()
}

/// What to think of a dependency that waits for these.
fn behind(blockers: &[Blocker]) -> DependencyState {
    let states = || {
        blockers.iter().filter_map(|blocker| match blocker {
            Blocker::Dependency { because, .. } => Some(*because),
            Blocker::Reload => None,
        })
    };
    if states().any(DependencyState::is_final) {
        DependencyState::Stuck
    } else if states().any(DependencyState::is_lasting) {
        DependencyState::Delayed
    } else {
        DependencyState::Waiting
    }
}
