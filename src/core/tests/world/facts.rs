//! What the outside knows of one instance and of its runs.

use provost_core::event::{Blocker, Effect, ExitStatus, RunEnd, StopReason};
use provost_core::ids::{Generation, InstanceId, JobId, ProbeId, ProcessId, ReloadId, Run, Slot};
use provost_core::job::JobKind;
use provost_core::limits::Limits;
use provost_core::spec::{Check, HealthCheck, ProcessSpec, Readiness, ReloadSpec};
use provost_core::time::Mono;
use provost_core::view::{InstanceView, State};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// A run as the outside sees it.
#[derive(Clone, Debug)]
pub struct RunFacts {
    pub run: Run,
    pub slot: Slot,
    /// What the spec it was started with is from.
    pub generation: Generation,
    /// What it was started with, with what it took in since.
    pub spec: Arc<ProcessSpec>,
    pub asked: Mono,
    /// Since when it is to end and to be followed by another, where others go down before it.
    pub due_since: Option<Mono>,
    /// Since when its edges are what they are.
    pub edges_since: Mono,
    pub spawned: Option<Mono>,
    pub exit: Option<ExitStatus>,
    pub ready: bool,
    /// It has said that it is ready.
    pub told_ready: bool,
    /// Since when it has been ready and healthy.
    pub stable: Option<Mono>,
    pub health: HealthFacts,
    /// Asked to end, when and why; the time also when its main process ended by itself.
    pub ending: Option<Mono>,
    pub why: Option<StopReason>,
    /// Since when it is overdue, and its next kill.
    pub killed: Option<Mono>,
    /// The limit that holds once it is ending.
    pub patience: Duration,
    pub probe: Option<(ProbeId, Mono)>,
    pub answered: Option<Mono>,
    /// Its check was changed in this turn: the next is at once.
    pub eager: bool,
    /// Its time to get ready is over, and nothing was done about it since it is to end anyway.
    pub overdue: bool,
    /// Its check ended it, and for good.
    pub ill: bool,
    /// What it followed by edges with `restart: true` that the file may have no more.
    pub followed: BTreeSet<ProcessId>,
    /// It was said to use too much memory.
    pub outgrown: bool,
    /// What it was last told to be held to.
    pub limited: Limits,
    /// It is to take new settings, and was not told yet.
    pub takes: bool,
    /// The command by which it takes them that is out, and since when.
    pub taking: Option<(ReloadId, Mono)>,
    /// What the spec said then.
    pub taken_by: Option<ReloadSpec>,
}

/// Health, worked out again in the plainest way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HealthFacts {
    pub proven: bool,
    pub healthy: bool,
    pub ill: bool,
    pub good: u32,
    pub bad: u32,
}

impl HealthFacts {
    pub(super) fn take(&mut self, ok: bool, check: &HealthCheck, age: Duration) {
        if ok {
            (self.good, self.bad) = (self.good + 1, 0);
            if !self.proven || self.good >= check.success_threshold {
                (self.healthy, self.ill) = (true, false);
            }
            self.proven = true;
        } else {
            self.good = 0;
            if self.proven || age >= check.start_period {
                self.bad += 1;
                if self.bad >= check.failure_threshold {
                    (self.healthy, self.ill) = (false, true);
                }
            }
        }
    }
}

impl RunFacts {
    /// Whether it speaks by itself instead of being asked.
    pub fn speaks(&self) -> bool {
        self.spec.health.as_ref().is_some_and(|health| health.check == Check::Notify)
    }

    /// From now on it is listened to, where it speaks by itself.
    pub(super) fn listen(&mut self, now: Mono) {
        if self.speaks() && self.spawned.is_some() {
            self.answered = Some(now);
        }
    }

    /// It is ready as soon as it was executed and has shown what its readiness is about.
    pub(super) fn look_ready(&mut self) {
        let shown = match self.spec.readiness {
            Readiness::Started => true,
            Readiness::Health => self.health.healthy,
            Readiness::Notify => self.told_ready,
        };
        self.ready |= shown && self.goes_on() && self.spawned.is_some();
    }

    /// It is ending, and not because somebody or the file says so.
    pub fn ends_by_itself(&self) -> bool {
        !self.goes_on()
            && matches!(
                self.why,
                None | Some(
                    StopReason::Unhealthy(_) | StopReason::Outgrown(_) | StopReason::StartTimedOut
                )
            )
    }

    /// How long after it began the command that is out counts as failed.
    pub fn taking_limit(&self) -> Option<Mono> {
        let (_, at) = self.taking?;
        match &self.taken_by {
            Some(ReloadSpec::Command { timeout, .. }) => {
                Some(at.after(*timeout).after(Duration::from_secs(5)))
            }
            _ => None,
        }
    }

    pub fn goes_on(&self) -> bool {
        self.ending.is_none()
    }

    /// It serves on beside another, and is asked nothing.
    pub(super) fn turns_passive(&mut self) {
        (self.probe, self.answered) = (None, None);
        (self.takes, self.taking) = (false, None);
        self.due_since = None;
    }

    /// It is the run again.
    pub(super) fn turns_active(&mut self, now: Mono) {
        self.eager = true;
        self.listen(now);
    }

    pub(super) fn restamp(&mut self, now: Mono) {
        let stable = self.ready && (self.spec.health.is_none() || self.health.healthy);
        self.stable = if stable { self.stable.or(Some(now)) } else { None };
    }

    pub fn was_stable(&self, now: Mono) -> bool {
        self.stable.is_some_and(|since| now.since(since) >= self.spec.restart.min_uptime)
    }
}

/// How the last run of an instance was over.
#[derive(Clone, Debug, PartialEq)]
pub enum Over {
    Never,
    /// It was asked to end, or something else than its policy decides.
    Settled(RunEnd),
    /// Its policy decides.
    ByPolicy(RunEnd, bool),
}

/// An open job on an instance.
#[derive(Clone, Debug)]
pub struct OpenJob {
    pub id: JobId,
    pub kind: JobKind,
    /// Runs up to this one were there before it.
    pub after: Run,
}

/// An instance as the outside sees it.
#[derive(Clone, Debug)]
pub struct Facts {
    pub wanted: bool,
    pub once: bool,
    pub wished: bool,
    pub up: bool,
    pub run: Option<RunFacts>,
    /// The run that goes on until that one is ready, or ends since it is.
    pub former: Option<RunFacts>,
    /// The last generation that changed something about it.
    pub generation: Generation,
    pub over: Over,
    /// Its last run was to end, or to be followed by another whatever became of it.
    pub settled: bool,
    /// It completed, and was not asked to run again.
    pub completed: bool,
    /// Restarts since the last stable run; None when a change makes that hard to tell.
    pub attempt: Option<u32>,
    /// Somebody asked for a new run since the current one began.
    pub renew: bool,
    /// Its former run is to be replaced because the file changed, and nobody has asked for more.
    pub by_file: bool,
    /// The same, and for others of its process as well.
    pub rolled: bool,
    /// It was ready, got a new run in its turn, and has not been ready since.
    pub out: bool,
    pub job: Option<OpenJob>,
    pub view: InstanceView,
    /// Its state before this turn.
    pub before: State,
    /// Since when it was in it.
    pub since_before: Mono,
    /// What the machine says in its views, of a turn ago.
    pub next_before: Option<Mono>,
    pub last_exit: Option<ExitStatus>,
    /// What a note last said that it waits for, while it waits.
    pub told: Vec<Waited>,
}

impl Facts {
    /// The former run, while it serves.
    pub fn stand_in(&self) -> Option<&RunFacts> {
        self.former.as_ref().filter(|former| former.goes_on())
    }

    /// The run that others see.
    pub fn seen(&self) -> Option<&RunFacts> {
        let only = || self.former.as_ref().filter(|_| self.view.state == State::Stopping);
        self.stand_in().or(self.run.as_ref()).or_else(only)
    }

    /// Whether anything of it is there.
    pub fn is_there(&self) -> bool {
        self.run.is_some() || self.former.is_some()
    }
}

/// Who is waited for, whether that will not come by itself, and whether it will not come soon.
pub type Waited = (ProcessId, bool, bool);

pub(super) fn waited(blockers: &[Blocker]) -> Vec<Waited> {
    let waited = blockers.iter().filter_map(|blocker| match blocker {
        Blocker::Dependency { on, because, .. } => {
            Some((on.clone(), because.is_final(), because.is_lasting()))
        }
        Blocker::Reload => None,
    });
    waited.collect()
}

impl RunFacts {
    /// Takes in what needs no new run.
    pub(super) fn adopt(&mut self, spec: &Arc<ProcessSpec>, now: Mono) {
        let old = std::mem::replace(&mut self.spec, spec.clone());
        if old.depends_on != spec.depends_on {
            self.edges_since = now;
        }
        if !self.goes_on() {
            return;
        }
        if old.health != spec.health {
            self.probe = None;
            self.answered = None;
            self.eager = true;
            self.listen(now);
            if old.health.is_none() || spec.health.is_none() {
                self.health = HealthFacts::default();
            }
        }
        self.look_ready();
        if old.start_timeout != spec.start_timeout {
            self.overdue = false;
        }
        self.restamp(now);
    }
}

pub(super) fn new_facts(id: InstanceId, spec: &Arc<ProcessSpec>, wanted: bool) -> Facts {
    Facts {
        wanted,
        once: false,
        wished: false,
        up: false,
        run: None,
        former: None,
        generation: Generation(0),
        over: Over::Never,
        settled: false,
        completed: false,
        attempt: Some(0),
        renew: false,
        by_file: false,
        rolled: false,
        out: false,
        job: None,
        view: InstanceView {
            id,
            spec: spec.clone(),
            enabled: false,
            wanted,
            once: false,
            state: State::Down,
            sub_state: "",
            since: Mono(0),
            run: None,
            slot: provost_core::ids::Slot::A,
            beside: None,
            pid: None,
            started: None,
            health: provost_core::view::HealthState::None,
            health_detail: None,
            last_check: None,
            status: None,
            last_exit: None,
            last_end: None,
            restarts: 0,
            attempt: 0,
            next_start: None,
            blockers: Vec::new(),
            needs_restart: false,
            refused: None,
            generation: Generation(0),
            job: None,
            history: Arc::default(),
        },
        before: State::Down,
        since_before: Mono(0),
        next_before: None,
        last_exit: None,
        told: Vec::new(),
    }
}

/// A run as it is when it was asked for.
pub(super) fn new_run(effect: &Effect, generation: Generation, now: Mono) -> Option<RunFacts> {
    let Effect::Spawn { run, slot, spec, .. } = effect else { return None };
    Some(RunFacts {
        run: *run,
        slot: *slot,
        generation,
        spec: spec.clone(),
        asked: now,
        due_since: None,
        edges_since: now,
        spawned: None,
        exit: None,
        ready: false,
        told_ready: false,
        stable: None,
        health: HealthFacts::default(),
        ending: None,
        why: None,
        killed: None,
        patience: Duration::ZERO,
        probe: None,
        answered: None,
        eager: true,
        overdue: false,
        ill: false,
        followed: BTreeSet::new(),
        outgrown: false,
        limited: Limits::clone(&spec.limits),
        takes: false,
        taking: None,
        taken_by: None,
    })
}
