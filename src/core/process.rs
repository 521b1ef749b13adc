//! The states of one instance, and what each means.
//!
//! Three facts decide about an instance:
//!
//! - *enabled*: the file's word;
//! - *wanted*: the operator's word, up unless somebody said otherwise;
//! - *actual*: its [`Phase`].
//!
//! From the first two, from the supervisor (running or ending) and from the processes it depends
//! on, the machine makes one: whether the instance should be **up**. It should when the file enables
//! it (or it was started once), the operator wants it, the file still has it, the supervisor is not
//! ending, and no process it depends on is kept down by the same rules. The last part is called
//! *held*: an operator who stops a database stops what needs it, without changing what is wanted.
//!
//! What the pairs mean:
//!
//! | up? | actual | meaning |
//! |---|---|---|
//! | yes | `Down` | only within a turn: the instance is about to wait or to start |
//! | yes | `Waiting` | at rest: a dependency does not meet its condition, or a reload stops others first; each is named |
//! | yes | `Up`, not ready | a run was asked for, or exists and has not shown that it is ready |
//! | yes | `Up`, ready | at rest: what it should be |
//! | yes | `Up`, restart due | as above; it is ended as soon as those that go down before it are down, and started again |
//! | yes | `Stopping` | it is being ended and will be started again once nothing of it is left: a restart, a failed check, a crash that left others behind, or somebody changed their mind |
//! | yes | `Backoff` | its run failed; the time of the next start is armed |
//! | yes | `Completed` | at rest: a one-shot that did its work; started again only by hand or by a change of its spec |
//! | yes | `Failed` | at rest: it failed and the policy says no more; started again by hand or by a change of its spec |
//! | no | `Down` | at rest |
//! | no | `Waiting` | at rest, only when held: it is wanted, and comes back with what it depends on |
//! | no | `Up` | it is ended as soon as those that depend on it are down |
//! | no | `Stopping` | it is being ended |
//! | no | `Backoff` | only within a turn: the next start is called off |
//! | no | `Completed` | at rest: it did its work, whoever wants what now |
//! | no | `Failed` | at rest, only when held; else it is down like any other |
//!
//! A run begins with the request to spawn it and ends when its process tree is empty. There is at
//! most one run of an instance: the next is asked for only when the last is over. That is the whole
//! of "never two copies". Where the file says `overlap` there are at most two, in slots of their own,
//! and the phase is that of the newer one: see [`crate::machine::overlap`].
//!
//! An instance whose dependency crashes or falls ill is left alone; dependencies gate starts. Where
//! an edge says `restart: true`, the dependent gets a new run when its dependency does.

use crate::event::{Blocker, ExitStatus, FailReason, Note, RunEnd, StopReason};
use crate::health::Health;
use crate::ids::{Generation, InstanceId, ProbeId, ProcessId, ReloadId, Run, Slot};
use crate::job::Job;
use crate::machine::overlap::Former;
use crate::restart::{self, Next};
use crate::spec::{ProcessSpec, Readiness};
use crate::time::Mono;
use crate::trial::Rest;
use crate::view::{HealthState, State};
use std::sync::Arc;
use std::time::Duration;

/// What an instance is doing.
#[derive(Clone, Debug)]
pub(crate) enum Phase {
    /// No run, none due.
    Down,
    /// No run; these keep it from starting.
    Waiting(Vec<Blocker>),
    /// A run that is to go on.
    Up(Live),
    /// A run that is being ended.
    Stopping(Live, Box<Ending>),
    /// No run; the next start is armed.
    Backoff {
        /// When.
        until: Mono,
    },
    /// No run: it ended with success and the policy says no more.
    Completed,
    /// No run: it failed and the policy says no more.
    Failed,
}

/// A run.
#[derive(Clone, Debug)]
pub(crate) struct Live {
    pub run: Run,
    /// The generation of the spec it was started with.
    pub generation: Generation,
    /// Known once the command was executed.
    pub pid: Option<u32>,
    /// When it was asked for.
    pub asked: Mono,
    /// When the command was executed.
    pub started: Option<Mono>,
    /// When it was ready.
    pub ready: Option<Mono>,
    /// Since when it has been ready, and healthy where it has a check.
    pub stable_since: Option<Mono>,
    pub health: Health,
    /// It has said that it is ready.
    pub told_ready: bool,
    /// What it last said of itself, for people.
    pub status: Option<Arc<str>>,
    /// The check that is out.
    pub probe: Option<ProbeId>,
    /// What it does about new settings.
    pub taking: Taking,
    /// How its main process ended, once it has.
    pub exit: Option<ExitStatus>,
}

impl Live {
    /// Whether it has shown what makes it ready, once it was executed.
    pub fn has_shown(&self, readiness: Readiness) -> bool {
        match readiness {
            Readiness::Started => true,
            Readiness::Health => self.health.state() == HealthState::Healthy,
            Readiness::Notify => self.told_ready,
        }
    }

    /// Notes whether it is stable as it is now.
    pub fn restamp(&mut self, checked: bool, now: Mono) {
        let healthy = !checked || self.health.state() == HealthState::Healthy;
        let stable = self.ready.is_some() && healthy;
        self.stable_since = if stable { self.stable_since.or(Some(now)) } else { None };
    }
}

/// What a run does about new settings that it is to take.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Taking {
    /// It is to take them once more: as soon as it is ready, and nothing is out.
    pub due: bool,
    /// The command that is out.
    pub out: Option<ReloadId>,
}

/// How and why a run is being ended.
#[derive(Clone, Debug)]
pub(crate) struct Ending {
    /// What the restart policy will be told.
    pub end: RunEnd,
    /// Not to be tried again, whatever the policy says.
    pub give_up: Option<FailReason>,
    /// How long it may take to end by itself, the spec being what it was then.
    pub patience: Duration,
    /// Whether the time to end by itself is over.
    pub killed: bool,
}

/// One instance.
#[derive(Clone, Debug)]
pub(crate) struct Instance {
    /// The spec of the current run, or of the next when there is none.
    pub spec: Arc<ProcessSpec>,
    /// The generation that `spec` is from.
    pub generation: Generation,
    /// What the file says, where the current run cannot take it in.
    pub next: Option<(Arc<ProcessSpec>, Generation)>,
    /// The operator's word.
    pub wanted: bool,
    /// Up although disabled, until the next stop or reload.
    pub once: bool,
    /// The file has it no more; it is forgotten as soon as it is down.
    pub removed: bool,
    /// It may not start before the reload has come to starting.
    pub gated: bool,
    /// Whether it should be up; kept in step by the machine.
    pub up: bool,
    /// Counted among those that are to go down before what they depend on.
    pub leaving: bool,
    /// The dependency that keeps it down although it is wanted.
    pub held: Option<ProcessId>,
    /// What it was last said to wait for; empty when it does not wait.
    pub told: Vec<Blocker>,
    pub phase: Phase,
    /// Where its run is, or the next when there is none.
    pub slot: Slot,
    /// The run that goes on beside its successor. Boxed, as few have one.
    pub former: Option<Box<Former>>,
    /// How the run ended that was to be the successor and did not come up: `next`, where there is one,
    /// is not tried again by itself, and those that take turns stand still.
    pub refused: Option<String>,
    /// The number of its last run; 0 before the first.
    pub last_run: Run,
    /// Since when it is in the state others see.
    pub since: Mono,
    /// Where it rests when its run is over, instead of what its policy says.
    pub rest: Option<(Rest, Option<RunEnd>)>,
    /// End the current run, then start another.
    pub restart_due: Option<StopReason>,
    /// Somebody asked for a new run, which is due when it has the turn.
    pub anew: bool,
    /// It was ready and is getting a new run because it had the turn: restarts by policy as they were
    /// then, or when they were last forgotten.
    pub taken_down: Option<u64>,
    pub job: Option<Job>,
    /// Restarts by policy since the last stable run.
    pub attempt: u32,
    /// Restarts by policy in all.
    pub restarts: u64,
    pub last_exit: Option<ExitStatus>,
    pub last_end: Option<RunEnd>,
    /// Oldest first, at most [`HISTORY`]. Views have the same: there are few notes, and many read. So
    /// does the event log.
    pub history: Arc<[Arc<Note>]>,
    /// What of it is counted in the summary.
    pub tally: Tally,
}

/// How many notes are kept for each instance: enough for the causes of what one sees.
pub(crate) const HISTORY: usize = 10;

/// What one instance adds to the counts of the whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub total: bool,
    pub enabled: bool,
    pub running: bool,
    pub failed: bool,
    pub unhealthy: bool,
    pub missing: bool,
}

impl Instance {
    pub fn new(spec: Arc<ProcessSpec>, generation: Generation, wanted: bool, now: Mono) -> Self {
        Instance {
            spec,
            generation,
            next: None,
            wanted,
            once: false,
            removed: false,
            gated: false,
            up: false,
            leaving: false,
            held: None,
            told: Vec::new(),
            phase: Phase::Down,
            slot: Slot::A,
            former: None,
            refused: None,
            last_run: Run(0),
            since: now,
            rest: None,
            restart_due: None,
            anew: false,
            taken_down: None,
            job: None,
            attempt: 0,
            restarts: 0,
            last_exit: None,
            last_end: None,
            history: Arc::default(),
            tally: Tally::default(),
        }
    }

    /// The run, whether it is to go on or not.
    pub fn live(&self) -> Option<&Live> {
        match &self.phase {
            Phase::Up(live) | Phase::Stopping(live, _) => Some(live),
            _ => None,
        }
    }

    pub fn live_mut(&mut self) -> Option<&mut Live> {
        match &mut self.phase {
            Phase::Up(live) | Phase::Stopping(live, _) => Some(live),
            _ => None,
        }
    }

    /// The run, when `run` is its number.
    pub fn current(&mut self, run: Run) -> Option<&mut Live> {
        self.live_mut().filter(|live| live.run == run)
    }

    /// What the file says it should be.
    pub fn file_spec(&self) -> &Arc<ProcessSpec> {
        self.next.as_ref().map_or(&self.spec, |(spec, _)| spec)
    }

    /// Whether it is ready, and is to stay so.
    pub fn is_ready(&self) -> bool {
        self.restart_due.is_none() && matches!(&self.phase, Phase::Up(live) if live.ready.is_some())
    }

    /// Whether its run is about to end, or is ending.
    pub fn is_going_down(&self) -> bool {
        match &self.phase {
            Phase::Up(_) => !self.up || self.restart_due.is_some(),
            Phase::Stopping(..) => true,
            _ => self.former_leaves(),
        }
    }

    /// Whether what serves is about to end, or is ending.
    pub fn is_leaving(&self) -> bool {
        match self.stand_in() {
            Some(_) => self.former_leaves(),
            None => self.is_going_down(),
        }
    }

    /// What its policy says follows a run that ended, or is ending, like this. None where the
    /// policy has no say: the run was to end, or another is due in any case.
    pub fn follow_up(&self, end: &RunEnd, give_up: Option<&FailReason>) -> Option<Next> {
        let settled = !self.up
            || matches!(end, RunEnd::Asked(_))
            || self.next.is_some()
            || self.anew
            || self.restart_due.is_some();
        let next = || match give_up {
            Some(why) => Next::Fail(why.clone()),
            None => restart::next(&self.spec.restart, end, self.attempt),
        };
        (!settled).then(next)
    }

    pub fn state(&self) -> State {
        if self.stand_in().is_some() {
            return State::Running;
        }
        // Nothing but the end of the run before is left.
        if matches!(self.phase, Phase::Down) && self.former.is_some() {
            return State::Stopping;
        }
        match &self.phase {
            Phase::Down => State::Down,
            Phase::Waiting(_) => State::Waiting,
            Phase::Up(live) if live.ready.is_some() => State::Running,
            Phase::Up(_) => State::Starting,
            Phase::Stopping(..) => State::Stopping,
            Phase::Backoff { .. } => State::Backoff,
            Phase::Completed => State::Completed,
            Phase::Failed => State::Failed,
        }
    }

    /// See [`crate::view::InstanceView::sub_state`].
    pub fn sub_state(&self) -> &'static str {
        match &self.phase {
            _ if self.stand_in().is_some() && self.former_leaves() => "held",
            _ if self.stand_in().is_some() => "overlapping",
            Phase::Up(_) if self.is_going_down() => "held",
            Phase::Down => self.former.as_deref().map_or("", Former::sub_state),
            _ if self.former.is_some() => "overlapping",
            Phase::Up(live) if live.started.is_none() => "spawning",
            Phase::Up(live) if live.ready.is_none() => "checking",
            Phase::Stopping(_, ending) if ending.killed => "killing",
            Phase::Stopping(live, _) if live.exit.is_some() => "reaping",
            Phase::Stopping(..) => "terminating",
            _ => "",
        }
    }
}

/// What can be armed for an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// The next start.
    Backoff,
    /// The run must be ready.
    Start,
    /// The run is killed.
    Stop,
    /// The kill is repeated.
    Kill,
    /// The next check.
    Probe,
    /// The check that is out counts as failed.
    ProbeDeadline,
    /// The former run is killed.
    FormerStop,
    /// The kill of the former run is repeated.
    FormerKill,
    /// The command that is out, by which it takes new settings, counts as failed.
    ReloadDeadline,
}

impl From<Rest> for Phase {
    fn from(rest: Rest) -> Phase {
        match rest {
            Rest::Completed => Phase::Completed,
            Rest::Failed => Phase::Failed,
        }
    }
}

impl Phase {
    /// What may be armed in this phase, and in no other.
    pub fn timers(&self) -> &'static [Timer] {
        match self {
            Phase::Up(_) => {
                &[Timer::Start, Timer::Probe, Timer::ProbeDeadline, Timer::ReloadDeadline]
            }
            Phase::Stopping(..) => &[Timer::Stop, Timer::Kill],
            Phase::Backoff { .. } => &[Timer::Backoff],
            Phase::Down | Phase::Waiting(_) | Phase::Completed | Phase::Failed => &[],
        }
    }
}

/// Deadlines are armed for an instance and a purpose.
pub(crate) type TimerKey = (InstanceId, Timer);
