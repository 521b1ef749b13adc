//! The run that is replaced goes on until its successor is ready.
//!
//! An instance has one run, and while it gets a new one in its turn, where its file says
//! `overlap: true`, a second: the *former*. The phase of the instance is that of the new run, in the
//! other slot; the former is beside it and passive: it is asked nothing and takes in nothing. All
//! there is to know of it is whether it still *serves* or is to end.
//!
//! | former | the new run | what happens |
//! |---|---|---|
//! | none | ready, its turn has come | it becomes the former, which serves; the phase is down, and what starts from there is the new one, in the other slot |
//! | serves | waits, starts, is checked | dependents see the former: it is as ready and as healthy as it was; so do those who take turns, nobody is out |
//! | serves | is ready | the former is asked to end, with the stop settings of its own spec and a limit of its own |
//! | serves | fails in any way | the former is the run again; what the file says is kept as what it does not run, and is not tried again before that changes or somebody asks: so the roll stands still |
//! | serves | is to give way to another (a newer file, `restart`) | it ends and the next one is tried; the former serves on. Where the newer file says what the former runs, nothing is tried: the former is the run again |
//! | serves | anything; the instance is not to be up | both are asked to end, once those that go down before it are down |
//! | serves | anything; what it follows restarts | both are asked to end: it would serve without what it follows |
//! | ends by itself | not ready | nobody can go back to it; the new run is judged like any other |
//! | ends | anything | an end that others wait for (stop, removal, shutdown) is over when both are |
//!
//! There are never more than two: while a former is there, no turn comes. They are never in the same
//! slot: a new run is in the slot where the former is not, and who starts again while a former ends
//! starts in its own.
//!
//! What is watched for changes, and too much memory, end a run that is at fault or out of date: these
//! overlap only as a `restart` does, and a run that is not ready has nothing to overlap with.

use super::Machine;
use crate::event::{Effect, ExitStatus, RunEnd, StopReason, What};
use crate::fields;
use crate::ids::{Generation, InstanceId, Run, Slot};
use crate::job::JobResult;
use crate::process::{Instance, Live, Phase, Taking, Timer};
use crate::spec::ProcessSpec;
use crate::time::Mono;
use crate::view::Beside;
use std::sync::Arc;

/// A run beside its successor.
#[derive(Clone, Debug)]
pub(crate) struct Former {
    pub live: Live,
    /// What it was started with, and has taken in since.
    pub spec: Arc<ProcessSpec>,
    pub generation: Generation,
    pub slot: Slot,
    /// Why it is replaced.
    pub why: StopReason,
    pub until: Until,
}

/// How long a former run goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    /// Until its successor is ready.
    Replaced,
    /// It is to end; killed: the time to do so by itself is over.
    Over { killed: bool },
}

impl Instance {
    /// The former run, while it serves in the place of one that is not ready.
    pub fn stand_in(&self) -> Option<&Former> {
        self.former.as_ref().filter(|former| former.until == Until::Replaced)
    }

    /// The run that others see.
    pub fn serving(&self) -> Option<&Live> {
        self.stand_in().map(|former| &former.live).or_else(|| self.live())
    }

    /// The run that others do not see, where there are two.
    pub fn beside(&self) -> Option<Beside> {
        let pid = |live: &Live| live.pid.filter(|_| live.exit.is_none());
        let former = self.former.as_ref()?;
        Some(match former.until {
            Until::Replaced => Beside::New(self.live().and_then(pid)),
            Until::Over { .. } => Beside::Former(pid(&former.live)),
        })
    }

    /// Whether one of its runs is ready, and is to stay so.
    pub fn serves(&self) -> bool {
        self.stand_in().is_some() || self.is_ready()
    }

    /// Whether a new run may begin beside the one there is.
    fn may_overlap(&self) -> bool {
        self.file_spec().overlap && self.up && self.is_ready() && self.former.is_none()
    }

    /// Whether the former run cannot go on serving, whatever becomes of its successor.
    fn stand_in_must_go(&self) -> bool {
        self.stand_in().is_some() && (!self.up || self.former_leaves())
    }

    /// Whether a former run goes down as what it follows does.
    pub fn former_leaves(&self) -> bool {
        let follows = |former: &Former| matches!(former.why, StopReason::DependencyRestarted(_));
        self.former.as_ref().is_some_and(follows)
    }

    /// Whether the former run is again what the file says.
    fn is_as_before(&self) -> bool {
        self.stand_in().is_some_and(|former| {
            former.why == StopReason::Changed
                && !fields::needs_restart(&former.spec, self.file_spec())
        })
    }
}

impl Machine {
    /// The run of an instance becomes the former one, and another is to start. False: it has to end
    /// first.
    pub(super) fn begin_overlap(&mut self, id: &InstanceId, why: &StopReason, now: Mono) -> bool {
        let Some(inst) = self.instances.get_mut(id) else { return false };
        let Phase::Up(live) = &inst.phase else { return false };
        if !inst.may_overlap() {
            return false;
        }
        let mut live = live.clone();
        (live.probe, live.taking) = (None, Taking::default());
        let (spec, generation, slot) = (inst.spec.clone(), inst.generation, inst.slot);
        let (why, until) = (why.clone(), Until::Replaced);
        inst.former = Some(Former { live, spec, generation, slot, why, until });
        inst.slot = slot.other();
        inst.refused = None;
        inst.anew = false;
        if let Some((spec, generation)) = inst.next.take() {
            (inst.spec, inst.generation) = (spec, generation);
        }
        inst.attempt = 0;
        self.live += 1;
        self.set_phase(id, Phase::Down, now);
        true
    }

    /// The former run is asked to end, if it serves.
    pub(super) fn retire(
        &mut self,
        id: &InstanceId,
        why: Option<StopReason>,
        now: Mono,
        out: &mut Vec<Effect>,
    ) {
        let Some(inst) = self.instances.get_mut(id) else { return };
        let Some(former) = inst.former.as_mut().filter(|f| f.until == Until::Replaced) else {
            return;
        };
        former.until = Until::Over { killed: false };
        let (run, stop) = (former.live.run, former.spec.stop.clone());
        let why = why.unwrap_or_else(|| former.why.clone());
        self.timers.arm((id.clone(), Timer::FormerStop), now.after(stop.timeout));
        self.note_of(id, Some(run), What::Stopping { why }, now, out);
        out.push(Effect::Terminate { instance: id.clone(), run, stop });
        self.touch(id);
        self.ripple(id);
    }

    /// What the state of the former run calls for. True: the former is the run again.
    pub(super) fn advance_former(
        &mut self,
        id: &InstanceId,
        now: Mono,
        out: &mut Vec<Effect>,
    ) -> bool {
        let Some(inst) = self.instances.get(id) else { return false };
        if inst.stand_in_must_go() {
            if self.may_stop(id) {
                let why = (!inst.up).then(|| self.why_down(inst));
                self.retire(id, why, now, out);
            }
            return false;
        }
        if inst.live().is_none()
            && inst.stand_in().is_some()
            && (inst.is_as_before() || !inst.file_spec().overlap)
        {
            self.take_back(id, now, out);
            return true;
        }
        false
    }

    /// The former run is what the file says, or may have none beside it any more; and nothing else is
    /// there.
    fn take_back(&mut self, id: &InstanceId, now: Mono, out: &mut Vec<Effect>) {
        let Some(inst) = self.instances.get(id) else { return };
        let wanted = inst.file_spec().clone();
        let generation = inst.next.as_ref().map_or(inst.generation, |(_, generation)| *generation);
        let is_as_before = inst.is_as_before();
        let Some(old) = self.reinstate(id, now) else { return };
        let Some(inst) = self.instances.get_mut(id) else { return };
        if fields::needs_restart(&old, &wanted) {
            inst.next = Some((wanted, generation));
            self.enqueue(id);
        } else {
            inst.next = None;
            (inst.spec, inst.generation) = (wanted, generation);
            if !is_as_before {
                inst.taken_down = Some(inst.restarts);
                inst.restart_due = Some(StopReason::Restart);
            }
        }
        self.touch(id);
        self.note(id, What::TakenBack, now, out);
        self.adopt_live(id, &old, now, out);
        self.begin_checks(id, now, out);
    }

    /// The new run failed: the former is the run again.
    pub(super) fn fall_back(
        &mut self,
        id: &InstanceId,
        end: &RunEnd,
        now: Mono,
        out: &mut Vec<Effect>,
    ) {
        let Some(inst) = self.instances.get_mut(id) else { return };
        let tried = (inst.spec.clone(), inst.generation);
        let Some(old) = self.reinstate(id, now) else { return };
        let Some(inst) = self.instances.get_mut(id) else { return };
        inst.last_end = Some(end.clone());
        inst.restart_due = None;
        inst.anew = false;
        if fields::needs_restart(&old, &tried.0) {
            inst.next = Some(tried);
        } else {
            (inst.spec, inst.generation) = tried;
        }
        let others_wait = self.queues.contains_key(&id.process);
        inst.refused = (inst.next.is_some() || others_wait).then(|| end.to_string());
        self.note(id, What::FellBack { end: end.clone() }, now, out);
        let detail = Some(format!("it {end}; the run before it goes on"));
        self.end_job(id, super::gate::UP, JobResult::Failed, detail, out);
        self.begin_checks(id, now, out);
    }

    /// Makes the former run the run. Returns what it was started with.
    fn reinstate(&mut self, id: &InstanceId, now: Mono) -> Option<Arc<ProcessSpec>> {
        let inst = self.instances.get_mut(id)?;
        let former = inst.former.take()?;
        inst.slot = former.slot;
        inst.generation = former.generation;
        inst.spec = former.spec.clone();
        self.live -= 1;
        self.set_phase(id, Phase::Up(former.live), now);
        Some(former.spec)
    }

    /// The main process of a former run ended. False: it is of no former run.
    pub(super) fn former_exited(
        &mut self,
        id: &InstanceId,
        run: Run,
        status: ExitStatus,
        now: Mono,
        out: &mut Vec<Effect>,
    ) -> bool {
        let Some(inst) = self.instances.get_mut(id) else { return false };
        let Some(former) = inst.former.as_mut().filter(|former| former.live.run == run) else {
            return false;
        };
        if former.live.exit.is_some() {
            return true;
        }
        former.live.exit = Some(status);
        let expected = former.until != Until::Replaced;
        let (generation, pid) = (former.live.generation, former.live.pid.unwrap_or(0));
        let (stop, killed) =
            (former.spec.stop.clone(), former.until == Until::Over { killed: true });
        if !expected {
            // Nobody can go back to it.
            former.until = Until::Over { killed: false };
            self.timers.arm((id.clone(), Timer::FormerStop), now.after(stop.timeout));
        }
        self.note_of(id, Some(run), What::Exited { status, expected }, now, out);
        out.push(Effect::RunExited { instance: id.clone(), run, generation, pid, status });
        if !killed {
            // Whatever it left behind is asked to end as well; mostly that is nothing.
            out.push(Effect::Terminate { instance: id.clone(), run, stop });
        }
        self.touch(id);
        self.ripple(id);
        true
    }

    /// Nothing is left of a former run. False: it is of no former run.
    pub(super) fn former_emptied(
        &mut self,
        id: &InstanceId,
        run: Run,
        now: Mono,
        out: &mut Vec<Effect>,
    ) -> bool {
        // How it ended may have gone past us.
        if !self.former_exited(id, run, ExitStatus::Unknown, now, out) {
            return false;
        }
        if let Some(inst) = self.instances.get_mut(id) {
            inst.former = None;
            self.live -= 1;
        }
        for timer in [Timer::FormerStop, Timer::FormerKill] {
            self.timers.disarm(&(id.clone(), timer));
        }
        self.note_of(id, Some(run), What::Stopped, now, out);
        self.touch(id);
        self.ripple(id);
        true
    }

    pub(super) fn former_timed_out(&mut self, id: &InstanceId, now: Mono, out: &mut Vec<Effect>) {
        let Some(former) = self.instances.get(id).and_then(|inst| inst.former.as_ref()) else {
            return;
        };
        let (run, limit) = (former.live.run, former.spec.stop.timeout);
        self.note_of(id, Some(run), What::Killing { limit }, now, out);
        self.kill_former(id, now, out);
    }

    pub(super) fn former_still_there(&mut self, id: &InstanceId, now: Mono, out: &mut Vec<Effect>) {
        let run = self.instances.get(id).and_then(|inst| Some(inst.former.as_ref()?.live.run));
        self.note_of(id, run, What::StillThere, now, out);
        self.kill_former(id, now, out);
    }

    /// Kills a former run that is to end.
    pub(super) fn kill_former(&mut self, id: &InstanceId, now: Mono, out: &mut Vec<Effect>) {
        let Some(inst) = self.instances.get_mut(id) else { return };
        let Some(former) = inst.former.as_mut().filter(|f| f.until != Until::Replaced) else {
            return;
        };
        former.until = Until::Over { killed: true };
        let run = former.live.run;
        self.timers.disarm(&(id.clone(), Timer::FormerStop));
        self.timers.arm((id.clone(), Timer::FormerKill), now.after(super::run::KILL_AGAIN));
        self.changed.insert(id.clone());
        out.push(Effect::Kill { instance: id.clone(), run });
    }
}
