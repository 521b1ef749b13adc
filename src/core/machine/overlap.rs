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
//! | serves | waits, starts, is checked | whoever looks sees the former: as ready and as healthy as it was when it had to go on; and it is *out* for those that take turns, so that the next does not follow before this one is seen to work. Who follows the process and is to have a new run too, or is down for another reason than its own failure, waits while the new run is on its way: it is restarted once |
//! | serves | is ready | the former is asked to end, with the stop settings of its own spec and a limit of its own; who follows the process gets a new run |
//! | serves | fails in any way | the former is the run again; what the file says is kept as what it does not run, and is not tried again before the file says something else of it or somebody asks: so the roll stands still |
//! | serves | is to give way to another (a newer file, `restart`, watched files) | it ends at once, since nobody uses it, and the next one is tried; the former serves on. Where the newer file says what the former runs, nothing is tried: the former is the run again |
//! | serves | is not there, and the file says that there is to be no overlap any more | the former is the run again and is replaced as any other |
//! | serves | anything; the instance is not to be up, or what it follows restarts | both are to end: the new one at once, the former once those that go down before it are down. The next begins when nothing of the former is left |
//! | ends by itself | not ready | nobody can go back to it; the new run is judged like any other, and who follows the process gets a new run |
//! | ends | anything | what starts again does so beside it, in its own slot, if the file still says `overlap`; an end that others wait for (stop, removal, shutdown) is over when both are |
//!
//! There are never more than two: while a former is there, no turn comes. They are never in the same
//! slot: a new run is in the slot where the former is not, and who starts again while a former ends
//! starts in its own.
//!
//! A run that is at fault (it fails its check, it uses too much memory) is ended at once and replaced
//! as its policy says; nor does one overlap that follows another by an edge with `restart: true`.

use super::Machine;
use crate::event::{Effect, ExitStatus, RunEnd, StopReason, What};
use crate::fields;
use crate::ids::{Generation, InstanceId, Run, Slot};
use crate::job::{JobKind, JobResult};
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

impl Former {
    /// How far its end is.
    pub fn sub_state(&self) -> &'static str {
        match self.until {
            Until::Over { killed: true } => "killing",
            _ if self.live.exit.is_some() => "reaping",
            _ => "terminating",
        }
    }
}

impl Instance {
    /// The former run, while it serves in the place of one that is not ready.
    pub fn stand_in(&self) -> Option<&Former> {
        self.former.as_deref().filter(|former| former.until == Until::Replaced)
    }

    /// The run that others see: one that ends only where nothing else is left.
    pub fn seen(&self) -> Option<(&Live, &Arc<ProcessSpec>)> {
        let former = || self.former.as_ref().map(|former| (&former.live, &former.spec));
        match &self.phase {
            _ if self.stand_in().is_some() => former(),
            Phase::Down => former(),
            _ => self.live().map(|live| (live, &self.spec)),
        }
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

    /// Whether a new run is on its way beside the one that serves, which is to end when it is ready. One
    /// that waits for something may be long in coming.
    pub fn is_renewed(&self) -> bool {
        let is_on_its_way = matches!(self.phase, Phase::Down | Phase::Up(_));
        self.up && self.stand_in().is_some() && is_on_its_way && !self.is_as_before()
    }

    /// Whether it does not begin before what it follows was renewed. One that its policy brings back is
    /// missed, and begins beside what serves.
    pub fn is_patient(&self) -> bool {
        self.attempt == 0
    }

    /// Whether a new run may begin beside the one there is.
    fn may_overlap(&self) -> bool {
        let is_alone = self.former.is_none();
        // What rests once this run is over has no other.
        self.file_spec().overlap && self.up && self.is_ready() && is_alone && self.rest.is_none()
    }

    /// Whether its run is ready, and has to wait for the end of a former one before another may begin
    /// beside it.
    pub fn lacks_room(&self) -> bool {
        self.file_spec().overlap && self.former.is_some() && self.is_ready()
    }

    /// Whether a new run may not begin before nothing of a former one is left.
    pub fn must_be_alone(&self) -> bool {
        self.former.is_some() && (!self.file_spec().overlap || self.former_follows())
    }

    /// Whether a former run goes down as what it follows does.
    fn former_follows(&self) -> bool {
        let follows = |former: &Former| matches!(former.why, StopReason::DependencyRestarted(_));
        self.former.as_deref().is_some_and(follows)
    }

    /// Whether a former run is to be there no more, whatever becomes of its successor.
    pub fn former_leaves(&self) -> bool {
        self.former.is_some() && (!self.up || self.former_follows())
    }

    /// Whether the former run is again what the file says, and nobody has asked for another.
    fn is_as_before(&self) -> bool {
        self.stand_in().is_some_and(|former| {
            former.why == StopReason::Changed
                && !fields::needs_restart(&former.spec, self.file_spec())
        })
    }

    /// There is a reason for a new run that no newer file takes away.
    pub fn former_is_outdated(&mut self, why: &StopReason) {
        let follows = self.former_follows();
        if let Some(former) = self.former.as_mut().filter(|f| f.until == Until::Replaced)
            && !follows
        {
            former.why = why.clone();
        }
    }
}

impl Machine {
    /// The run of an instance becomes the former one, and another is to start. False: it has to end
    /// first.
    pub(super) fn begin_overlap(
        &mut self,
        id: &InstanceId,
        why: &StopReason,
        now: Mono,
        out: &mut Vec<Effect>,
    ) -> bool {
        let Some(inst) = self.instances.get(id) else { return false };
        let Phase::Up(live) = &inst.phase else { return false };
        if !inst.may_overlap() {
            return false;
        }
        let mut live = live.clone();
        (live.probe, live.taking) = (None, Taking::default());
        self.note(id, What::Overlaps { why: why.clone() }, now, out);
        let gone =
            Some(format!("it {} before it had taken its settings", RunEnd::Asked(why.clone())));
        self.end_job(id, &[JobKind::Reload], JobResult::Canceled, gone, out);
        let Some(inst) = self.instances.get_mut(id) else { return false };
        let (spec, generation, slot) = (inst.spec.clone(), inst.generation, inst.slot);
        let (why, until) = (why.clone(), Until::Replaced);
        inst.former = Some(Box::new(Former { live, spec, generation, slot, why, until }));
        inst.slot = slot.other();
        inst.refused = None;
        inst.anew = false;
        inst.taken_down = Some(inst.restarts);
        inst.attempt = 0;
        if let Some((spec, generation)) = inst.next.take() {
            (inst.spec, inst.generation) = (spec, generation);
        }
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
        let Some(former) = self.instance(id).and_then(Instance::stand_in) else { return };
        let (run, stop) = (former.live.run, former.spec.stop.clone());
        let why = why.unwrap_or_else(|| former.why.clone());
        self.former_is_over(id, now);
        self.note_of(id, Some(run), What::Stopping { why }, now, out);
        out.push(Effect::Terminate { instance: id.clone(), run, stop });
    }

    /// The former run serves no more, and has so much time to end.
    fn former_is_over(&mut self, id: &InstanceId, now: Mono) {
        let Some(inst) = self.instances.get_mut(id) else { return };
        let before = inst.state();
        let Some(former) = &mut inst.former else { return };
        former.until = Until::Over { killed: false };
        let limit = now.after(former.spec.stop.timeout);
        self.timers.arm((id.clone(), Timer::FormerStop), limit);
        if inst.state() != before {
            inst.since = now;
        }
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
        let Some(inst) = self.instances.get_mut(id).filter(|inst| inst.stand_in().is_some()) else {
            return false;
        };
        if inst.former_leaves() {
            if self.may_stop(id) {
                let inst = self.instances.get(id).filter(|inst| !inst.up);
                let why = inst.map(|inst| self.why_down(inst));
                self.retire(id, why, now, out);
            }
            return false;
        }
        let is_as_before = inst.is_as_before();
        let is_asked = inst.stand_in().is_some_and(|former| former.why != StopReason::Changed);
        if is_as_before && matches!(inst.phase, Phase::Up(_)) {
            // Whatever a reload does first: it must not become ready meanwhile.
            inst.restart_due = Some(StopReason::Changed);
        }
        if inst.live().is_some() || (!is_as_before && inst.file_spec().overlap) {
            return false;
        }
        self.note(id, What::TakenBack, now, out);
        self.reinstate(id, now, out);
        if !is_as_before && let Some(inst) = self.instances.get_mut(id) {
            inst.anew = is_asked;
            self.enqueue(id);
        }
        true
    }

    /// The new run failed: the former is the run again.
    pub(super) fn fall_back(
        &mut self,
        id: &InstanceId,
        end: &RunEnd,
        now: Mono,
        out: &mut Vec<Effect>,
    ) {
        self.note(id, What::FellBack { end: end.clone() }, now, out);
        self.reinstate(id, now, out);
        let others_wait = self.queues.get(&id.process).is_some_and(|queue| queue.has_others(id));
        let Some(inst) = self.instances.get_mut(id) else { return };
        inst.last_end = Some(end.clone());
        inst.refused = (inst.next.is_some() || others_wait).then(|| end.to_string());
        let detail = Some(format!("it {end}; the run before it goes on"));
        self.end_job(id, super::gate::UP, JobResult::Failed, detail, out);
    }

    /// Makes the former run the run, where there is no other. What the file says it takes in, or has
    /// it as what it does not run.
    fn reinstate(&mut self, id: &InstanceId, now: Mono, out: &mut Vec<Effect>) {
        let Some(inst) = self.instances.get_mut(id) else { return };
        let Some(former) = inst.former.as_deref().cloned() else { return };
        let wanted = inst.next.take().unwrap_or_else(|| (inst.spec.clone(), inst.generation));
        inst.slot = former.slot;
        inst.taken_down = None;
        let old = former.spec;
        if fields::needs_restart(&old, &wanted.0) {
            (inst.spec, inst.generation) = (old.clone(), former.generation);
            inst.next = Some(wanted);
        } else {
            (inst.spec, inst.generation) = wanted;
        }
        let is_checked_alike = old.health == inst.spec.health;
        // While the former is there it is what it was for others, and it is that since it was.
        self.set_phase(id, Phase::Up(former.live), now);
        if let Some(inst) = self.instances.get_mut(id) {
            inst.former = None;
            self.live -= 1;
        }
        self.touch(id);
        self.adopt_live(id, &old, now, out);
        if is_checked_alike {
            self.begin_checks(id, now, out);
        }
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
        if self.former_ended(id, run, status, now, out) {
            // Whatever it left behind is asked to end as well; mostly that is nothing.
            let former = self.instances.get(id).and_then(|inst| inst.former.as_ref());
            if let Some(former) = former.filter(|f| f.until == Until::Over { killed: false }) {
                let stop = former.spec.stop.clone();
                out.push(Effect::Terminate { instance: id.clone(), run, stop });
            }
            return true;
        }
        self.is_former(id, run)
    }

    /// Takes in how the main process of a former run ended. False: that is known, or of another run.
    fn former_ended(
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
            return false;
        }
        former.live.exit = Some(status);
        let (generation, pid) = (former.live.generation, former.live.pid.unwrap_or(0));
        let expected = former.until != Until::Replaced;
        self.touch(id);
        if !expected {
            // Nobody can go back to it.
            self.former_is_over(id, now);
        }
        self.note_of(id, Some(run), What::Exited { status, expected }, now, out);
        out.push(Effect::RunExited { instance: id.clone(), run, generation, pid, status });
        if !expected {
            self.restart_dependents(&id.process);
        }
        true
    }

    fn is_former(&self, id: &InstanceId, run: Run) -> bool {
        let former = self.instances.get(id).and_then(|inst| inst.former.as_ref());
        former.is_some_and(|former| former.live.run == run)
    }

    /// Nothing is left of a run, which may be a former one.
    pub(super) fn former_emptied(
        &mut self,
        id: &InstanceId,
        run: Run,
        now: Mono,
        out: &mut Vec<Effect>,
    ) {
        if !self.is_former(id, run) {
            return;
        }
        // How it ended may have gone past us.
        self.former_ended(id, run, ExitStatus::Unknown, now, out);
        if let Some(inst) = self.instances.get_mut(id) {
            let before = inst.state();
            inst.former = None;
            self.live -= 1;
            if inst.state() != before {
                inst.since = now;
            }
        }
        for timer in [Timer::FormerStop, Timer::FormerKill] {
            self.timers.disarm(&(id.clone(), timer));
        }
        self.note_of(id, Some(run), What::Stopped, now, out);
        self.touch(id);
        self.ripple(id);
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
