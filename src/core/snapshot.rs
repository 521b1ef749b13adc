//! What is kept of the machine, so that a supervisor that was killed goes on where it was.
//!
//! One [`InstanceSnapshot`] for each instance is enough: what runs and with which spec, what an
//! operator wanted, where a delay is. The rest follows. What cannot be true any more in a new life is
//! left out: jobs (whoever waited is gone), checks that are out, and the time that a stop may take,
//! which begins again. Points in time are on the clock of this boot; a snapshot of another boot is
//! worth nothing but for what operators stopped.
//!
//! Whoever keeps snapshots writes each before it carries out what the machine decided in the same
//! turn: then there is no run that no snapshot knows.

use crate::event::{ExitStatus, FailReason, RunEnd, StopReason};
use crate::health::Health;
use crate::ids::{Generation, InstanceId, Run, Slot};
use crate::machine::overlap::{Former, Until};
use crate::process::{Ending, Instance, Live, Phase, Taking};
use crate::spec::{ProcessSpec, Settings};
use crate::time::Mono;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// One instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InstanceSnapshot {
    /// The spec of the current run, or of the next when there is none.
    pub spec: Arc<ProcessSpec>,
    /// The generation that `spec` is from.
    pub generation: Generation,
    /// What the file says, where the current run cannot take it in.
    pub next: Option<(Arc<ProcessSpec>, Generation)>,
    /// The operator's word.
    pub wanted: bool,
    /// Up although disabled.
    pub once: bool,
    /// The file has it no more.
    pub removed: bool,
    /// Restarts by policy since the last stable run.
    pub attempt: u32,
    /// Restarts by policy in all.
    pub restarts: u64,
    /// How its last run ended, as a status.
    pub last_exit: Option<ExitStatus>,
    /// How its last run ended.
    pub last_end: Option<RunEnd>,
    /// A new run is due for this reason.
    pub restart_due: Option<StopReason>,
    /// Somebody asked for a new run, and it had not had its turn.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub anew: bool,
    /// It was ready before its turn came, restarts by policy then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken_down: Option<u64>,
    /// Since when it is in its state.
    pub since: Mono,
    /// What it is doing.
    pub phase: PhaseSnapshot,
    /// Where its run is, or the next when there is none.
    #[serde(default, skip_serializing_if = "Slot::is_first")]
    pub slot: Slot,
    /// The run that goes on beside its successor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub former: Option<FormerSnapshot>,
    /// How the run ended that was to be the successor and did not come up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// The number of its last run, where it has none now: what is kept of that one must not be taken
    /// for the next one's.
    #[serde(default, skip_serializing_if = "is_none")]
    pub last_run: Run,
}

/// Whether it is the number of no run.
fn is_none(run: &Run) -> bool {
    *run == Run(0)
}

/// A run beside its successor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FormerSnapshot {
    /// The run.
    pub run: RunSnapshot,
    /// What it was started with, and has taken in since.
    pub spec: Arc<ProcessSpec>,
    /// The generation that `spec` is from.
    pub generation: Generation,
    /// Where it is.
    pub slot: Slot,
    /// Why it is replaced.
    pub why: StopReason,
    /// None: it serves until its successor is ready. Else it is to end, and whether the time to do so
    /// by itself is over.
    pub killed: Option<bool>,
}

/// What an instance is doing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PhaseSnapshot {
    /// No run, none due, or one that waits for something.
    Down,
    /// A run that is to go on.
    Up(RunSnapshot),
    /// A run that is being ended.
    Stopping {
        /// The run.
        run: RunSnapshot,
        /// What the restart policy will be told.
        end: RunEnd,
        /// Not to be tried again.
        give_up: Option<FailReason>,
        /// Whether the time to end by itself is over.
        killed: bool,
    },
    /// No run; the next start is due at this time.
    Backoff(Mono),
    /// No run: it did its work.
    Completed,
    /// No run: it failed for good.
    Failed,
}

/// A run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunSnapshot {
    /// Its number.
    pub run: Run,
    /// The generation of the spec it was started with.
    pub generation: Generation,
    /// The main process, once the command was executed.
    pub pid: Option<u32>,
    /// When it was asked for.
    pub asked: Mono,
    /// When the command was executed.
    pub started: Option<Mono>,
    /// When it was ready.
    pub ready: Option<Mono>,
    /// Since when it has been stable.
    pub stable_since: Option<Mono>,
    /// What its checks add up to.
    pub health: Health,
    /// It has said that it is ready.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub told_ready: bool,
    /// What it last said of itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Arc<str>>,
    /// How its main process ended, once it has.
    pub exit: Option<ExitStatus>,
}

/// All that is known when a supervisor begins.
#[derive(Clone, Debug, Default)]
pub struct Restored {
    /// The number of the last generation.
    pub generation: Generation,
    /// The settings it had.
    pub settings: Settings,
    /// Every instance there was.
    pub instances: BTreeMap<InstanceId, InstanceSnapshot>,
    /// The runs of which anything is there. Their ends are reported as those of any run.
    pub there: BTreeSet<(InstanceId, Run)>,
    /// Operators' stops that no instance above tells of.
    pub stopped: Stopped,
}

/// Instances that an operator stopped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopped {
    /// Which.
    pub instances: BTreeSet<InstanceId>,
    /// Whether that was before a reboot: then it holds only where the policy is `unless-stopped`.
    pub before_reboot: bool,
}

impl InstanceSnapshot {
    pub(crate) fn of(inst: &Instance) -> InstanceSnapshot {
        InstanceSnapshot {
            spec: inst.spec.clone(),
            generation: inst.generation,
            next: inst.next.clone(),
            wanted: inst.wanted,
            once: inst.once,
            removed: inst.removed,
            attempt: inst.attempt,
            restarts: inst.restarts,
            last_exit: inst.last_exit,
            last_end: inst.last_end.clone(),
            restart_due: inst.restart_due.clone(),
            anew: inst.anew,
            taken_down: inst.taken_down,
            since: inst.since,
            last_run: if inst.live().is_some() { Run(0) } else { inst.last_run },
            phase: match &inst.phase {
                Phase::Down | Phase::Waiting(_) => PhaseSnapshot::Down,
                Phase::Up(live) => PhaseSnapshot::Up(RunSnapshot::of(live)),
                Phase::Stopping(live, ending) => PhaseSnapshot::Stopping {
                    run: RunSnapshot::of(live),
                    end: ending.end.clone(),
                    give_up: ending.give_up.clone(),
                    killed: ending.killed,
                },
                Phase::Backoff { until } => PhaseSnapshot::Backoff(*until),
                Phase::Completed => PhaseSnapshot::Completed,
                Phase::Failed => PhaseSnapshot::Failed,
            },
            slot: inst.slot,
            former: inst.former.as_deref().map(FormerSnapshot::of),
            refused: inst.refused.clone(),
        }
    }

    /// What the file said it should be.
    #[must_use]
    pub fn file_spec(&self) -> &Arc<ProcessSpec> {
        self.next.as_ref().map_or(&self.spec, |(spec, _)| spec)
    }

    /// The generation that [`InstanceSnapshot::file_spec`] is from.
    #[must_use]
    pub fn file_generation(&self) -> Generation {
        self.next.as_ref().map_or(self.generation, |(_, generation)| *generation)
    }

    /// Leaves out what it depends on.
    pub(crate) fn forget_edges(&mut self) {
        let next = self.next.as_mut().map(|(spec, _)| spec);
        for spec in next.into_iter().chain([&mut self.spec]) {
            Arc::make_mut(spec).depends_on.clear();
        }
    }

    /// Its run, where it has one.
    #[must_use]
    pub fn run(&self) -> Option<&RunSnapshot> {
        match &self.phase {
            PhaseSnapshot::Up(run) | PhaseSnapshot::Stopping { run, .. } => Some(run),
            _ => None,
        }
    }

    /// All its runs: that one, and the one beside it.
    pub fn runs(&self) -> impl Iterator<Item = &RunSnapshot> {
        self.run().into_iter().chain(self.former.as_ref().map(|former| &former.run))
    }

    /// The instance, with no run, and what it was doing.
    pub(crate) fn revive(mut self, now: Mono) -> (Instance, PhaseSnapshot) {
        self.former = None;
        let last_run = self.run().map_or(self.last_run, |live| live.run);
        let mut inst = Instance::new(self.spec, self.generation, self.wanted, now);
        inst.next = self.next;
        inst.once = self.once;
        inst.removed = self.removed;
        inst.attempt = self.attempt;
        inst.restarts = self.restarts;
        inst.last_exit = self.last_exit;
        inst.last_end = self.last_end;
        inst.anew = self.anew;
        inst.taken_down = self.taken_down;
        inst.last_run = last_run;
        inst.slot = self.slot;
        inst.refused = self.refused;
        // A change of the file is worked out again.
        inst.restart_due = self.restart_due.filter(|why| *why != StopReason::Changed);
        (inst, self.phase)
    }
}

impl FormerSnapshot {
    fn of(former: &Former) -> FormerSnapshot {
        FormerSnapshot {
            run: RunSnapshot::of(&former.live),
            spec: former.spec.clone(),
            generation: former.generation,
            slot: former.slot,
            why: former.why.clone(),
            killed: match former.until {
                Until::Replaced => None,
                Until::Over { killed } => Some(killed),
            },
        }
    }

    pub(crate) fn revive(self) -> Former {
        let until = self.killed.map_or(Until::Replaced, |killed| Until::Over { killed });
        Former {
            live: self.run.revive(),
            spec: self.spec,
            generation: self.generation,
            slot: self.slot,
            why: self.why,
            until,
        }
    }
}

impl RunSnapshot {
    fn of(live: &Live) -> RunSnapshot {
        RunSnapshot {
            run: live.run,
            generation: live.generation,
            pid: live.pid,
            asked: live.asked,
            started: live.started,
            ready: live.ready,
            stable_since: live.stable_since,
            health: live.health.kept(),
            told_ready: live.told_ready,
            status: live.status.clone(),
            exit: live.exit,
        }
    }

    pub(crate) fn revive(self) -> Live {
        Live {
            run: self.run,
            generation: self.generation,
            pid: self.pid,
            asked: self.asked,
            started: self.started,
            ready: self.ready,
            stable_since: self.stable_since,
            health: self.health,
            told_ready: self.told_ready,
            status: self.status,
            probe: None,
            taking: Taking::default(),
            exit: self.exit,
        }
    }
}

impl PhaseSnapshot {
    /// How a run was being ended, with all the time it may take.
    pub(crate) fn ending(&self, inst: &Instance) -> Option<Ending> {
        match self {
            PhaseSnapshot::Stopping { end, give_up, .. } => Some(Ending {
                end: end.clone(),
                give_up: give_up.clone(),
                patience: inst.spec.stop.timeout,
                killed: false,
            }),
            _ => None,
        }
    }
}
