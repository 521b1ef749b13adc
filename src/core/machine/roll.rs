//! Instances that get new runs take turns.
//!
//! A new run because of a changed configuration, or because somebody asked for one, is *due* when
//! the instance has the turn. Until then its old run goes on and is as ready as ever. Of each process
//! at most `maxUnavailable` that were ready are down for their turn at the same time; the next one
//! has its turn when one of those is ready again.
//!
//! | an instance in the queue | its turn |
//! |---|---|
//! | is not ready: down, starting, ending, or to end anyway | at once, nobody loses anything by it; it has to ask again if it becomes ready before it is taken down |
//! | is ready, and nothing is to be done any more | at once |
//! | is ready | when fewer than `maxUnavailable` are *out*: were ready, had their turn, should be up or are not down yet, and are not ready now |
//! | is ready, and is not to be up any more | not before it is down, or is to be up again |
//! | is ready, and a former run beside it ends (see `overlap`) | not before nothing of that is left |
//!
//! **Who serves is not taken down for a run that could not begin.** Where something that the process
//! depends on does not meet its condition, or waits for its own turn in this way, those that are ready have
//! no turns until that is over. For one that serves and is to go down nobody waits: who uses it goes down
//! before it. When it will not come by itself, or not soon, their steps of a reload are held, and the jobs
//! of those that somebody wanted restarted end with `dependency`. They have their turns when it has come
//! after all.
//!
//! Who fails by itself, without having had a turn, is not out and holds up nobody: it may be the very
//! reason for the change. But one that had its turn and then falls down again is out again, for as
//! long as the roll lasts: a version that becomes ready and then crashes does not get any further.
//!
//! **When there is no hope for one that is out,** the queue of its process stands still: it failed for
//! good, it ended [`STRIKES`] times, or it waits for what will not come soon. The steps of a reload
//! that wait in the queue are held then, and the jobs of those that somebody wanted restarted have
//! failed; so the reload ends. Those in the queue are what they were, with a new run still to come;
//! when the one that is out is ready after all, they go on taking turns. So whether somebody goes back
//! to the configuration before or not, one broken version costs `maxUnavailable` instances and no more.
//!
//! Where the file says `overlap` nobody is down for a turn; who overlaps is out all the same until the new
//! run is ready, and where that fails there is no hope either.
//!
//! Who follows another by an edge with `restart: true` takes no turns: it follows, down with the first and
//! up again after the last, so that it is restarted once. Nor does one whose
//! watched files have changed: it is out like one that somebody restarted alone.

use super::{Machine, instances_of};
use crate::event::{Blocker, Effect, StopReason, What};
use crate::ids::{InstanceId, ProcessId};
use crate::job::{JobKind, JobResult};
use crate::process::{Instance, Phase};
use crate::time::Mono;
use crate::trial::STRIKES;
use std::collections::{BTreeMap, BTreeSet};

/// What may be done about one in the queue.
enum Turn {
    /// It has its turn, and takes none of those that are ready away.
    Free,
    /// It has its turn when one that is ready may be spared.
    Costs,
    /// Its turn does not come before something about it changes.
    NotNow,
}

/// Those of a process that take turns.
///
/// What is known of each is worked out again when something about it changes, so that thousands that
/// go one after the other are not gone through for each of them.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// They have not had their turns.
    waiting: BTreeSet<InstanceId>,
    /// Those of them that are ready, and have their turns when one may be spared and nothing blocks.
    ready: BTreeSet<InstanceId>,
    /// They have had their turns and are out.
    out: BTreeSet<InstanceId>,
    /// Those of them for which there is no hope, and why.
    hopeless: BTreeMap<InstanceId, String>,
    /// Something about these may have changed.
    stirred: BTreeSet<InstanceId>,
    /// Those that wait behind one for which there is no hope, or for what does not come, and were told
    /// so.
    passed: BTreeSet<InstanceId>,
    /// What keeps those that are ready from having turns, beside those that are out.
    blockers: Vec<Blocker>,
}

impl Queue {
    /// Whether others than an instance have not had their turns.
    pub(super) fn has_others(&self, id: &InstanceId) -> bool {
        self.waiting.iter().any(|other| other != id)
    }

    /// What an instance that is ready waits for before its turn may come, beside others of its process.
    fn blockers_of(&self, id: &InstanceId) -> &[Blocker] {
        let waits = self.ready.contains(id) || self.passed.contains(id);
        if waits { &self.blockers } else { &[] }
    }

    /// Whether an instance has not had its turn.
    pub(super) fn has(&self, id: &InstanceId) -> bool {
        self.waiting.contains(id)
    }
}

impl Instance {
    /// Whether it was ready, has had its turn, and is not ready since or again; or its former run
    /// serves until it is: nobody misses it, but the next does not follow before this one is seen to
    /// work.
    fn is_out(&self) -> bool {
        self.stand_in().is_some()
            || self.taken_down.is_some()
            // One that nobody wants any more may be wanted again until it is down.
            && (self.up || self.live().is_some())
            && !self.serves()
            && !matches!(self.phase, Phase::Completed)
    }

    /// Why nobody should wait for one that is out; None: it may come back soon.
    fn hopeless(&self) -> Option<String> {
        let end =
            || self.last_end.as_ref().map_or_else(|| "failed".to_owned(), ToString::to_string);
        match &self.phase {
            Phase::Failed => Some(end()),
            Phase::Backoff { .. } => {
                let ends = self.restarts.saturating_sub(self.taken_down.unwrap_or(0));
                (ends >= STRIKES).then(end)
            }
            Phase::Waiting(blockers) => {
                let lasting = blockers.iter().find(|blocker| blocker.is_hopeless())?;
                Some(format!("waits for {lasting}"))
            }
            _ => None,
        }
    }

    /// Whether it is worth waiting for one that had its turn and is not ready.
    pub(super) fn may_come_back(&self) -> bool {
        self.is_out() && self.hopeless().is_none()
    }

    fn has_job(&self, kind: JobKind) -> bool {
        self.job.as_ref().is_some_and(|job| job.kind == kind)
    }

    /// Whether it was asked for in turns, and has its turn since it was not ready, or is taken down
    /// for something else anyway: it is remembered that it was asked for until it is.
    fn has_turn_on_loan(&self) -> bool {
        self.anew && self.restart_due.is_some()
    }

    /// Whether it has its turn since it is not ready.
    pub(super) fn may_give_back_turn(&self) -> bool {
        let is_ready = matches!(&self.phase, Phase::Up(live) if live.ready.is_some());
        let is_changed = self.restart_due == Some(StopReason::Changed);
        !is_ready && (is_changed || self.has_turn_on_loan())
    }

    fn turn(&self) -> Turn {
        let Phase::Up(live) = &self.phase else { return Turn::Free };
        if live.ready.is_none() || self.restart_due.is_some() {
            Turn::Free
        } else if !self.up || self.lacks_room() {
            Turn::NotNow
        } else if self.next.is_some() || self.anew {
            Turn::Costs
        } else {
            Turn::Free
        }
    }
}

impl Machine {
    /// An instance waits for its turn from now on.
    pub(super) fn enqueue(&mut self, id: &InstanceId) {
        let queue = self.queues.entry(id.process.clone()).or_default();
        let is_new = queue.waiting.is_empty();
        queue.waiting.insert(id.clone());
        if is_new {
            // Some may be out from another time.
            let all = self.instances.range(instances_of(&id.process));
            queue.stirred.extend(all.map(|(id, _)| id.clone()));
        }
        self.stir_queue(id);
    }

    /// What is known of an instance in a queue, or of one that a queue waits for, is to be worked out
    /// again.
    pub(super) fn stir_queue(&mut self, id: &InstanceId) {
        if let Some(queue) = self.queues.get_mut(&id.process) {
            queue.stirred.insert(id.clone());
            self.turns.insert(id.process.clone());
        }
    }

    /// The same for all that wait.
    pub(super) fn stir_queues(&mut self) {
        for (process, queue) in &mut self.queues {
            queue.stirred.extend(queue.waiting.iter().cloned());
            self.turns.insert(process.clone());
        }
    }

    /// Whether others of a process are to be taken down one after the other.
    pub(super) fn rolls(&self, process: &ProcessId) -> bool {
        let queue = self.queues.get(process);
        queue.is_some_and(|queue| {
            queue.hopeless.is_empty() && queue.blockers.is_empty() && !queue.ready.is_empty()
        })
    }

    /// Whether those of a process that serve are to have turns as soon as what they wait for has come.
    pub(super) fn waits_for_turns(&self, process: &ProcessId) -> bool {
        let queue = self.queues.get(process);
        queue.is_some_and(|queue| !queue.ready.is_empty() && !queue.blockers.is_empty())
    }

    fn leave_queue(&mut self, id: &InstanceId) {
        let Some(queue) = self.queues.get_mut(&id.process) else { return };
        let may_be_last = queue.ready.remove(id);
        queue.passed.remove(id);
        if queue.waiting.remove(id) && queue.waiting.is_empty() {
            self.queues.remove(&id.process);
            self.end_roll(&id.process);
        }
        if may_be_last {
            self.ripple(id);
        }
    }

    /// Nobody of a process waits any more: who is ready has come through.
    fn end_roll(&mut self, process: &ProcessId) {
        for id in self.ids_of(process) {
            if let Some(inst) = self.instances.get_mut(&id)
                && inst.next.is_none()
                && inst.refused.take().is_some()
            {
                self.changed.insert(id.clone());
            }
            if let Some(inst) = self.instances.get_mut(&id)
                && inst.is_ready()
                && inst.taken_down.take().is_some()
            {
                self.changed.insert(id.clone());
            }
            self.unjudged.insert(id);
        }
    }

    /// Of those that wait only those stay that have something to wait for, since a configuration has
    /// changed what that is.
    pub(super) fn review_queues(&mut self) {
        let all = self.queues.values().flat_map(|queue| &queue.waiting);
        let all: Vec<InstanceId> = all.cloned().collect();
        for id in all {
            let inst = self.instances.get(&id);
            if inst.is_none_or(|inst| !inst.anew && inst.next.is_none()) {
                self.leave_queue(&id);
            }
        }
        self.stir_queues();
    }

    /// Gives those of a process their turns that may have them. Who follows it waits for the last.
    pub(super) fn take_turns(&mut self, process: &ProcessId, now: Mono, out: &mut Vec<Effect>) {
        if self.holds_back {
            return;
        }
        let rolled = self.rolls(process);
        self.take_turns_now(process, now, out);
        if rolled && !self.rolls(process) {
            self.ripple_from(process);
        }
    }

    fn take_turns_now(&mut self, process: &ProcessId, now: Mono, out: &mut Vec<Effect>) {
        self.look_at_queue(process, now, out);
        let spare = self.config.processes.get(process).map_or(1, |spec| spec.max_unavailable.get());
        let spare = usize::try_from(spare).unwrap_or(usize::MAX);
        while let Some(queue) = self.queues.get_mut(process) {
            if let Some((first, why)) = queue.hopeless.first_key_value() {
                let why = format!("{first} had its turn before it, and {why}");
                return self.give_up_turns(process, &why, JobResult::Failed, now, out);
            }
            if let Some(bar) = queue.blockers.iter().find(|blocker| blocker.is_hopeless()) {
                let why = format!("it would wait for {bar}");
                return self.give_up_turns(process, &why, JobResult::Dependency, now, out);
            }
            if !queue.blockers.is_empty() {
                return;
            }
            queue.ready.append(&mut queue.passed);
            if queue.out.len() >= spare {
                return;
            }
            let Some(id) = queue.ready.pop_first() else { return };
            queue.out.insert(id.clone());
            self.take_turn(&id, now, out);
        }
    }

    /// Works out what has changed about those of a process that wait. Of all processes before any turn is
    /// given: whoever waits with its turn has those wait that use it.
    pub(super) fn look_at_queue(&mut self, process: &ProcessId, now: Mono, out: &mut Vec<Effect>) {
        if self.holds_back {
            return;
        }
        let rolled = self.rolls(process);
        let Some(queue) = self.queues.get_mut(process) else { return };
        for id in std::mem::take(&mut queue.stirred) {
            self.look_at_turn(&id, now, out);
        }
        self.look_at_blockers(process);
        if rolled && !self.rolls(process) {
            self.ripple_from(process);
        }
    }

    /// What would keep a new run of a process from beginning if an old one were taken down for it.
    fn in_the_way(&self, process: &ProcessId) -> Vec<Blocker> {
        let spec = self.config.processes.get(process);
        spec.map_or_else(Vec::new, |spec| self.in_the_way_of(spec))
    }

    /// Works out what those that are ready wait for.
    fn look_at_blockers(&mut self, process: &ProcessId) {
        let any = |queue: &Queue| !(queue.ready.is_empty() && queue.passed.is_empty());
        let blockers = match self.queues.get(process).is_some_and(any) {
            true => self.in_the_way(process),
            false => Vec::new(),
        };
        let Some(queue) = self.queues.get_mut(process) else { return };
        if queue.blockers != blockers {
            self.changed.extend(queue.ready.union(&queue.passed).cloned());
            queue.blockers = blockers;
            self.ripple_from(process);
        }
    }

    /// What an instance that serves waits for before it may be taken down for a new run.
    pub(crate) fn turn_blockers(&self, id: &InstanceId) -> &[Blocker] {
        self.queues.get(&id.process).map_or(&[], |queue| queue.blockers_of(id))
    }

    /// Whether another run of a process could not begin now if one that serves were taken down.
    pub(super) fn is_barred(&self, process: &ProcessId) -> bool {
        !self.in_the_way(process).is_empty()
    }

    /// Works out what there is to know of one that waits, or is waited for; whoever need not wait has
    /// its turn.
    fn look_at_turn(&mut self, id: &InstanceId, now: Mono, out: &mut Vec<Effect>) {
        // What a reload stops goes before what it changes.
        let early = self.is_before_its_step(id);
        let has_step = !early && self.reload.as_ref().is_some_and(|reload| reload.is_open(id));
        let Some(queue) = self.queues.get_mut(&id.process) else { return };
        let Some(inst) = self.instances.get(id) else {
            queue.out.remove(id);
            queue.hopeless.remove(id);
            return self.leave_queue(id);
        };
        if inst.is_out() {
            queue.out.insert(id.clone());
        } else {
            queue.out.remove(id);
        }
        let refused = inst.refused.clone().filter(|_| !inst.anew);
        match refused.clone().or_else(|| inst.hopeless().filter(|_| inst.is_out())) {
            Some(why) => queue.hopeless.insert(id.clone(), why),
            None => queue.hopeless.remove(id),
        };
        let waits = inst.next.is_some() && queue.waiting.contains(id);
        if let Some(why) = refused.filter(|_| waits) {
            self.hold_step(id, &format!("it was tried, and {why}"), now);
            return self.leave_queue(id);
        }
        if !queue.waiting.contains(id) {
            return;
        }
        queue.ready.remove(id);
        let was_passed = queue.passed.remove(id);
        match inst.turn() {
            _ if early && (!inst.anew || inst.has_turn_on_loan()) => {}
            Turn::Free => self.take_turn(id, now, out),
            // It was told, and nobody asks again.
            Turn::Costs
                if was_passed && !has_step && !(inst.anew && inst.has_job(JobKind::Restart)) =>
            {
                queue.passed.insert(id.clone());
            }
            Turn::Costs => {
                queue.ready.insert(id.clone());
                if !queue.blockers.is_empty() {
                    self.changed.insert(id.clone());
                }
            }
            Turn::NotNow => {}
        }
    }

    /// Whether a reload will see to an instance, and has not come to that.
    fn is_before_its_step(&self, id: &InstanceId) -> bool {
        self.reload.as_ref().is_some_and(|reload| reload.is_before(id))
    }

    /// It is the turn of an instance.
    fn take_turn(&mut self, id: &InstanceId, now: Mono, out: &mut Vec<Effect>) {
        if !self.is_before_its_step(id) {
            self.begin_step(id, now);
            self.leave_queue(id);
        }
        let Some(inst) = self.instances.get_mut(id) else { return };
        let anew = inst.anew;
        let lent = matches!(&inst.phase, Phase::Up(live) if live.ready.is_none());
        inst.anew &= lent;
        if matches!(inst.phase, Phase::Up(_)) && (anew || inst.next.is_some()) {
            let why = if anew { StopReason::Restart } else { StopReason::Changed };
            if self.begin_overlap(id, &why, now, out) {
                return;
            }
            let Some(inst) = self.instances.get_mut(id) else { return };
            if inst.is_ready() {
                inst.taken_down = Some(inst.restarts);
            }
            // What is due without a turn, to follow another for one, stays due for that.
            match &inst.restart_due {
                None | Some(StopReason::Changed) if anew => {
                    inst.restart_due = Some(StopReason::Restart);
                }
                None => inst.restart_due = Some(StopReason::Changed),
                Some(_) => {}
            }
            // Who follows it does so when its former run goes.
            if inst.stand_in().is_none() {
                self.ripple(id);
                self.restart_dependents(&id.process);
            }
        }
        self.touch(id);
    }

    /// It became ready before it was taken down for what is due.
    ///
    /// A turn that it has since it was not ready goes back, for now somebody loses something by it.
    /// What somebody asked for alone does not wait, but others wait for it.
    pub(super) fn ready_when_due(&mut self, id: &InstanceId) {
        let Some(inst) = self.instances.get_mut(id) else { return };
        let in_turn = match &inst.restart_due {
            Some(StopReason::Changed) => true,
            Some(StopReason::Restart) => inst.has_turn_on_loan(),
            Some(StopReason::WatchedChanged(_)) => false,
            _ => return,
        };
        if in_turn {
            inst.restart_due = None;
            self.enqueue(id);
        } else {
            inst.taken_down.get_or_insert(inst.restarts);
        }
        self.touch(id);
    }

    /// Whoever waits for what does not come is told so.
    fn give_up_turns(
        &mut self,
        process: &ProcessId,
        why: &str,
        result: JobResult,
        now: Mono,
        out: &mut Vec<Effect>,
    ) {
        let Some(queue) = self.queues.get_mut(process) else { return };
        let told = std::mem::take(&mut queue.ready);
        if told.is_empty() {
            return;
        }
        queue.passed.extend(told.iter().cloned());
        for id in told {
            self.note(&id, What::KeepsRun { why: why.to_owned() }, now, out);
            let Some(inst) = self.instances.get_mut(&id) else { continue };
            if inst.anew && inst.has_job(JobKind::Restart) {
                // Who waits for what it depends on has its turn when that has come, as who is started does.
                let stays = result == JobResult::Dependency;
                inst.anew &= stays;
                let detail = match stays {
                    true => format!("{why}; its run goes on until then"),
                    false => why.to_owned(),
                };
                self.end_job(&id, &[JobKind::Restart], result, Some(detail), out);
                self.changed.insert(id.clone());
            }
            if self.is_before_its_step(&id) {
                continue;
            }
            let waits = |inst: &Instance| inst.anew || inst.next.is_some();
            if self.instance(&id).is_some_and(waits) {
                self.hold_step(&id, why, now);
            } else {
                // Nothing is left to be done about it.
                self.begin_step(&id, now);
                self.touch(&id);
                self.leave_queue(&id);
            }
        }
        // Who uses them need not wait for their turns.
        self.ripple_from(process);
    }
}
