//! The whole: events in, effects out.
//!
//! This file routes; what the parts do is in the files below it:
//!
//! | part | owns |
//! |---|---|
//! | `gate` | whether an instance should be up, may start, may stop |
//! | `run` | the life of a run: spawn, ready, healthy, ending, over |
//! | `command` | what somebody asked for, and its jobs |
//! | `apply` | a new configuration, step by step |
//! | `roll` | whose turn it is to get a new run |
//! | `overlap` | the run that goes on until its successor is ready |
//! | `settings` | new settings without a new run; files that are watched |
//! | `restore` | going on where a supervisor that was killed has been |
//!
//! One turn takes in one event and then *settles*: first who should be up is worked out for all it
//! may have changed for, to a fixed point; then each instance concerned takes the step that its
//! state calls for, which may concern others; when nobody has one to take, what has come of each is
//! said. The order is fixed, and the graph has no cycle, so this ends, and ends the same way each
//! time.

mod apply;
mod command;
mod gate;
pub(crate) mod overlap;
mod restore;
mod roll;
mod run;
mod settings;

use crate::event::{Blocker, Effect, Event, Note, What};
use crate::graph::Dependents;
use crate::ids::{Generation, InstanceId, JobId, ProbeId, ProcessId, ReloadId, Run, Slot};
use crate::job::{JobKind, JobResult};
use crate::process::{HISTORY, Instance, Phase, Tally, Timer, TimerKey};
use crate::reload::Step;
use crate::restart::Chance;
use crate::snapshot::Stopped;
use crate::spec::{Config, ProcessSpec};
use crate::time::{Mono, Timers};
use crate::view::{HealthState, InstanceView, State, Summary};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The state of everything, see the module documentation.
#[derive(Debug)]
pub struct Machine {
    config: Arc<Config>,
    generation: Generation,
    /// Boxed: a tree that is filled in order keeps nearly half of its leaves empty.
    instances: BTreeMap<InstanceId, Box<Instance>>,
    /// What the file last said of processes that it has no more and that may not be down yet.
    gone: BTreeMap<ProcessId, Arc<ProcessSpec>>,
    /// The edges of the configuration and of what it removed that is not down yet, turned round.
    dependents: Dependents,
    /// How many instances that depend on a process are to go down before it, and are not yet.
    leaving: BTreeMap<ProcessId, usize>,
    timers: Timers<TimerKey>,
    chance: Chance,
    last_run: Run,
    last_job: JobId,
    last_probe: ProbeId,
    last_reload: ReloadId,
    /// Runs that are not over.
    live: usize,
    reload: Option<apply::Reload>,
    /// Those that wait for their turn to get a new run.
    queues: BTreeMap<ProcessId, roll::Queue>,
    /// Of these processes somebody may have the turn.
    turns: BTreeSet<ProcessId>,
    ending: bool,
    finished: bool,
    exit_code: u8,
    /// Whether each may be up is to be worked out again.
    intents: BTreeSet<InstanceId>,
    /// Each may have a step to take.
    moves: BTreeSet<InstanceId>,
    /// What depends on these may have a step to take.
    rippled: BTreeSet<ProcessId>,
    /// What has come of each is to be said once nobody has a step to take.
    unjudged: BTreeSet<InstanceId>,
    /// Changed in this turn.
    changed: BTreeSet<InstanceId>,
    /// Changed since they were last taken.
    dirty: BTreeSet<InstanceId>,
    /// Changed since their snapshots were last taken.
    unsaved: BTreeSet<InstanceId>,
    /// It goes on where another has been, and has had no configuration of its own yet.
    restored: bool,
    /// Nothing starts before the files were looked at.
    holds_back: bool,
    /// What operators stopped before, as far as no instance tells of it.
    stopped: Stopped,
    summary: Summary,
}

impl Machine {
    /// An empty machine: no process, generation 0. `seed` is all the chance it has.
    #[must_use]
    pub fn new(seed: u64) -> Machine {
        Machine {
            config: Arc::default(),
            generation: Generation(0),
            instances: BTreeMap::new(),
            gone: BTreeMap::new(),
            dependents: Dependents::default(),
            leaving: BTreeMap::new(),
            timers: Timers::default(),
            chance: Chance::new(seed),
            last_run: Run(0),
            last_job: JobId(0),
            last_probe: ProbeId(0),
            last_reload: ReloadId(0),
            live: 0,
            reload: None,
            queues: BTreeMap::new(),
            turns: BTreeSet::new(),
            ending: false,
            finished: false,
            exit_code: 0,
            intents: BTreeSet::new(),
            moves: BTreeSet::new(),
            rippled: BTreeSet::new(),
            unjudged: BTreeSet::new(),
            changed: BTreeSet::new(),
            dirty: BTreeSet::new(),
            unsaved: BTreeSet::new(),
            restored: false,
            holds_back: false,
            stopped: Stopped::default(),
            summary: Summary::default(),
        }
    }

    /// Takes in one event and appends what is to be done about it.
    pub fn handle(&mut self, event: Event, now: Mono, out: &mut Vec<Effect>) {
        match event {
            Event::Spawned { instance, run, pid } => self.spawned(&instance, run, pid, now, out),
            Event::SpawnFailed { instance, run, error } => {
                self.spawn_failed(&instance, run, error, now, out);
            }
            Event::Exited { instance, run, status } => {
                self.exited(&instance, run, status, now, out);
            }
            Event::Emptied { instance, run } => self.emptied(&instance, run, now, out),
            Event::Outgrown { instance, run, used } => {
                self.outgrown(&instance, run, used, now, out);
            }
            Event::Probed { instance, run, probe, outcome } => {
                self.probed(&instance, run, probe, outcome, now, out);
            }
            Event::Reloaded { instance, run, reload, outcome } => {
                self.reloaded(&instance, run, reload, outcome, now, out);
            }
            Event::WatchedChanged { instance, path } => {
                self.watched_changed(&instance, &path, now, out);
            }
            Event::Notified { instance, run, told } => {
                self.notified(&instance, run, told, now, out);
            }
            Event::ConfigAccepted { request, config, generation } => {
                self.accept(request, config, generation, None, now, out);
            }
            Event::ConfigWithdrawn { request, config, generation, before } => {
                self.accept(request, config, generation, Some(&before), now, out);
            }
            Event::ConfigUnusable => self.go_on(),
            Event::StartRequested { request, instances, once } => {
                self.start_requested(request, &instances, once, now, out);
            }
            Event::StopRequested { request, instances } => {
                self.stop_requested(request, &instances, now, out);
            }
            Event::RestartRequested { request, instances } => {
                self.restart_requested(request, &instances, now, out);
            }
            Event::ReloadRequested { request, instances } => {
                self.reload_requested(request, &instances, now, out);
            }
            Event::SignalRequested { request, instance, signal, whom } => {
                self.signal_requested(request, &instance, signal, whom, out);
            }
            Event::ResetFailedRequested { request, instances } => {
                self.reset_requested(request, &instances, now, out);
            }
            Event::ShutdownRequested => self.shut_down(0, now, out),
            Event::KillRequested => self.kill_all(now, out),
        }
        self.settle(now, out);
    }

    /// Does what is due. A call when nothing is due does nothing.
    pub fn handle_timeout(&mut self, now: Mono, out: &mut Vec<Effect>) {
        while let Some((id, timer)) = self.timers.pop_due(now) {
            match timer {
                Timer::Backoff => self.backoff_over(&id, now),
                Timer::Start => self.start_timed_out(&id, now, out),
                Timer::Stop => self.stop_timed_out(&id, now, out),
                Timer::Kill => self.kill_again(&id, now, out),
                Timer::FormerStop => self.former_timed_out(&id, now, out),
                Timer::FormerKill => self.former_still_there(&id, now, out),
                Timer::Probe => self.check_due(&id, now, out),
                Timer::ProbeDeadline => self.probe_unanswered(&id, now, out),
                Timer::ReloadDeadline => self.reload_unanswered(&id, now, out),
            }
            self.settle(now, out);
        }
    }

    /// When [`Machine::handle_timeout`] wants to be called next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Mono> {
        self.timers.next()
    }

    /// The configuration that is wanted.
    #[must_use]
    pub fn config(&self) -> &Arc<Config> {
        &self.config
    }

    /// Its number; 0 before the first.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// All instances, in order.
    pub fn instances(&self) -> impl Iterator<Item = &InstanceId> {
        self.instances.keys()
    }

    /// All there is to know about one instance.
    pub(crate) fn instance(&self, id: &InstanceId) -> Option<&Instance> {
        self.instances.get(id).map(Box::as_ref)
    }

    /// Whether a configuration is being carried out.
    #[must_use]
    pub fn is_reloading(&self) -> bool {
        self.reload.is_some()
    }

    /// Whether everything is to end.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        self.ending
    }

    /// What changed in the last turns: those whose snapshots were not taken since.
    #[must_use]
    pub fn unsaved(&self) -> &BTreeSet<InstanceId> {
        &self.unsaved
    }

    /// The current run of an instance.
    #[must_use]
    pub fn run_of(&self, id: &InstanceId) -> Option<Run> {
        Some(self.instances.get(id)?.seen()?.0.run)
    }

    /// Counts over all.
    #[must_use]
    pub fn summary(&self) -> Summary {
        Summary {
            shutting_down: self.ending,
            reloading: self.reload.is_some(),
            generation: self.generation,
            ..self.summary
        }
    }

    /// The steps of the reload under way.
    #[must_use]
    pub fn reload_steps(&self) -> Option<&[Step]> {
        self.reload.as_ref().map(apply::Reload::steps)
    }

    /// Whether something has run to its end and nothing can ever run again without somebody doing
    /// something: every instance has completed, failed for good, is disabled, or waits for one of
    /// these.
    #[must_use]
    pub fn nothing_can_run(&self) -> bool {
        let mut ended = false;
        self.live == 0
            && self.instances.values().all(|inst| match &inst.phase {
                Phase::Completed | Phase::Failed => {
                    ended = true;
                    true
                }
                Phase::Down => !inst.up && !inst.file_spec().enabled,
                Phase::Waiting(blockers) => blockers.iter().any(Blocker::is_final),
                _ => false,
            })
            && ended
    }

    /// Takes the set of instances whose view may have changed since the last call (those that are
    /// gone included).
    pub fn take_dirty(&mut self) -> BTreeSet<InstanceId> {
        std::mem::take(&mut self.dirty)
    }

    /// Where a run of an instance is; None: where its run is that others see.
    #[must_use]
    pub fn slot_of(&self, id: &InstanceId, run: Option<Run>) -> Slot {
        let Some(inst) = self.instances.get(id) else { return Slot::A };
        match (&inst.former, inst.stand_in(), run) {
            (Some(former), _, Some(run)) if former.live.run == run => former.slot,
            (_, Some(former), None) => former.slot,
            _ => inst.slot,
        }
    }

    /// What there is to know about one instance; None when there is no such instance (any more).
    #[must_use]
    pub fn view(&self, id: &InstanceId) -> Option<InstanceView> {
        let inst = self.instances.get(id)?;
        let live = inst.seen().map(|(live, _)| live);
        let state = inst.state();
        let checked = inst.seen().is_some_and(|(_, spec)| spec.health.is_some());
        Some(InstanceView {
            id: id.clone(),
            spec: inst.file_spec().clone(),
            enabled: self.config.settings.enabled && inst.file_spec().enabled && !inst.removed,
            wanted: inst.wanted,
            once: inst.once,
            state,
            sub_state: inst.sub_state(),
            since: inst.since,
            run: live.map(|live| live.run),
            slot: inst.stand_in().map_or(inst.slot, |former| former.slot),
            beside: inst.beside(),
            pid: live.filter(|live| live.exit.is_none()).and_then(|live| live.pid),
            started: live.and_then(|live| live.started),
            health: match live {
                Some(live) if checked => live.health.state(),
                _ => HealthState::None,
            },
            health_detail: live.and_then(|live| live.health.detail().cloned()),
            last_check: live.and_then(|live| live.health.last_check()),
            status: live.and_then(|live| live.status.clone()),
            last_exit: inst.last_exit,
            last_end: inst.last_end.clone(),
            restarts: inst.restarts,
            attempt: inst.attempt,
            next_start: match inst.phase {
                Phase::Backoff { until } => Some(until),
                _ => None,
            },
            blockers: match &inst.phase {
                Phase::Waiting(blockers) => blockers.clone(),
                _ => self.turn_blockers(id).to_vec(),
            },
            needs_restart: inst.next.is_some() || inst.stand_in().is_some(),
            refused: inst.refused.as_deref().filter(|_| inst.next.is_some()).map(Arc::from),
            generation: inst.stand_in().map_or(inst.generation, |former| former.generation),
            job: inst.job.as_ref().map(|job| (job.id, job.kind)),
            history: inst.history.clone(),
        })
    }

    // What the parts share.

    fn settle(&mut self, now: Mono, out: &mut Vec<Effect>) {
        let mut turns = 0usize;
        loop {
            turns += 1;
            // Whoever does not come to an end here serves nobody; whoever dies is followed by one
            // that goes on.
            assert!(turns < 100_000 + 1_000 * self.instances.len(), "it does not settle");
            if let Some(id) = self.intents.pop_first() {
                self.refresh_intent(&id);
            } else if let Some(id) = self.moves.pop_first() {
                self.advance(&id, now, out);
            } else if let Some(process) = self.rippled.pop_first() {
                self.look_at_dependents(&process);
            } else if !self.turns.is_empty() {
                self.give_turns(now, out);
            } else if let Some(id) = self.unjudged.pop_first() {
                self.judge(&id, now, out);
            } else if !self.advance_reload(now, out) {
                break;
            }
        }
        for id in std::mem::take(&mut self.changed) {
            self.count(&id);
            self.unsaved.insert(id.clone());
            self.dirty.insert(id);
        }
        if self.ending && self.live == 0 && !self.finished {
            self.finished = true;
            out.push(Effect::Finished { code: self.exit_code });
        }
    }

    /// Brings the summary up to date with one instance.
    fn count(&mut self, id: &InstanceId) {
        let (old, new) = match self.instances.get_mut(id) {
            None => return,
            Some(inst) => {
                let state = inst.state();
                let enabled = self.config.settings.enabled && inst.file_spec().enabled;
                let is_unhealthy = inst.seen().is_some_and(|(live, spec)| {
                    spec.health.is_some() && live.health.state() == HealthState::Unhealthy
                });
                // What waits for somebody to do something is not on its way.
                let stuck = matches!(&inst.phase, Phase::Waiting(blockers)
                    if blockers.iter().any(Blocker::is_final));
                let new = Tally {
                    total: true,
                    enabled: enabled && !inst.removed,
                    running: state == State::Running,
                    failed: matches!(state, State::Failed | State::Backoff),
                    unhealthy: is_unhealthy,
                    missing: (enabled || inst.once)
                        && inst.wanted
                        && !inst.removed
                        && !stuck
                        && !matches!(state, State::Running | State::Completed),
                };
                (std::mem::replace(&mut inst.tally, new), new)
            }
        };
        self.recount(old, new);
    }

    fn recount(&mut self, old: Tally, new: Tally) {
        let adjust = |count: &mut u32, was: bool, is: bool| {
            *count = *count + u32::from(is) - u32::from(was);
        };
        adjust(&mut self.summary.total, old.total, new.total);
        adjust(&mut self.summary.enabled, old.enabled, new.enabled);
        adjust(&mut self.summary.running, old.running, new.running);
        adjust(&mut self.summary.failed, old.failed, new.failed);
        adjust(&mut self.summary.unhealthy, old.unhealthy, new.unhealthy);
        adjust(&mut self.summary.missing, old.missing, new.missing);
    }

    /// Changes the phase of an instance, disarms what was armed for the old one, and has all looked
    /// at that this may concern. The only place where a phase changes.
    fn set_phase(&mut self, id: &InstanceId, phase: Phase, now: Mono) {
        let Some(inst) = self.instances.get_mut(id) else { return };
        let was_live = inst.live().is_some();
        let before = inst.state();
        let old = std::mem::replace(&mut inst.phase, phase);
        for timer in old.timers() {
            self.timers.disarm(&(id.clone(), *timer));
        }
        if inst.state() != before {
            inst.since = now;
        }
        match (was_live, inst.live().is_some()) {
            (false, true) => self.live += 1,
            (true, false) => self.live -= 1,
            _ => {}
        }
        self.touch(id);
        self.ripple(id);
    }

    /// Forgets earlier failures of an instance, which is then ready to start when it should.
    fn reset(&mut self, id: &InstanceId, now: Mono) {
        let Some(inst) = self.instances.get_mut(id) else { return };
        inst.attempt = 0;
        inst.taken_down = inst.taken_down.map(|_| inst.restarts);
        if matches!(inst.phase, Phase::Backoff { .. } | Phase::Completed | Phase::Failed) {
            self.set_phase(id, Phase::Down, now);
        }
        // Also of a run that is ending, what follows may be something else now.
        self.touch(id);
        self.ripple(id);
    }

    /// Has an instance looked at again, and its view published.
    fn touch(&mut self, id: &InstanceId) {
        self.moves.insert(id.clone());
        self.changed.insert(id.clone());
        self.stir_queue(id);
        self.count_departure(id);
    }

    /// Has those looked at that may start because of a change of `id`.
    fn ripple(&mut self, id: &InstanceId) {
        self.ripple_from(&id.process);
    }

    /// The same, because of a change of a process.
    fn ripple_from(&mut self, process: &ProcessId) {
        self.rippled.insert(process.clone());
    }

    /// Once all that is to be done about a process itself is done: whoever waits for it, or has no run,
    /// may begin. What they wait for is worked out for all of a process at once, since thousands may use
    /// thousands, and who waits for the same as before has no step to take.
    fn look_at_dependents(&mut self, process: &ProcessId) {
        for edge in self.dependents.on(process) {
            if self.queues.contains_key(&edge.process) {
                self.turns.insert(edge.process.clone());
            }
            let spec = self.config.processes.get(&edge.process);
            let of = |is_patient: bool| spec.map(|spec| (spec, self.unmet_of(spec, is_patient)));
            let unmet = [of(false), of(true)];
            let is_another = |blockers: &[Blocker], inst: &Instance| {
                unmet[usize::from(inst.is_patient())].as_ref().is_none_or(|(spec, unmet)| {
                    let others = blockers.iter().filter(|by| **by != Blocker::Reload);
                    !Arc::ptr_eq(spec, inst.file_spec()) || !others.eq(unmet)
                })
            };
            let may_begin = |inst: &Instance| match &inst.phase {
                Phase::Waiting(blockers) => is_another(blockers, inst),
                Phase::Down => true,
                _ => false,
            };
            let all = self.instances.range(instances_of(&edge.process));
            let concerned = all.filter(|(_, inst)| may_begin(inst));
            self.moves.extend(concerned.map(|(other, _)| other.clone()));
        }
    }

    /// Gives all their turns that may have them before anybody takes a step: of those that go down in this
    /// turn the ones that use others go first.
    fn give_turns(&mut self, now: Mono, out: &mut Vec<Effect>) {
        let mut processes = BTreeSet::new();
        while let Some(process) = self.turns.pop_first() {
            self.look_at_queue(&process, now, out);
            while let Some(other) = self.rippled.pop_first() {
                self.look_at_dependents(&other);
            }
            processes.insert(process);
        }
        for process in processes {
            self.take_turns(&process, now, out);
        }
    }

    /// Keeps count of how many of those above a process are still to go down, and has it looked at
    /// when there is none any more.
    fn count_departure(&mut self, id: &InstanceId) {
        let Some(inst) = self.instances.get_mut(id) else { return };
        let leaving = inst.is_leaving();
        if std::mem::replace(&mut inst.leaving, leaving) == leaving {
            return;
        }
        for process in self.dependents.below(&id.process) {
            let count = self.leaving.entry(process.clone()).or_default();
            if leaving {
                *count += 1;
            } else {
                *count -= 1;
                if *count == 0 {
                    let all = self.instances.range(instances_of(process));
                    self.moves.extend(all.map(|(other, _)| other.clone()));
                }
            }
        }
    }

    /// Takes over the edges of another configuration.
    fn replace_edges(&mut self, dependents: Dependents) {
        self.dependents = dependents;
        self.leaving.clear();
        for (id, _) in self.instances.iter().filter(|(_, inst)| inst.leaving) {
            for process in self.dependents.below(&id.process) {
                *self.leaving.entry(process.clone()).or_default() += 1;
            }
        }
        // Whoever waited for another along an edge that is no more.
        self.moves.extend(self.instances.keys().cloned());
    }

    /// The instances of a process, in order.
    pub(crate) fn instances_of(
        &self,
        process: &ProcessId,
    ) -> impl Iterator<Item = (&InstanceId, &Instance)> {
        self.instances.range(instances_of(process)).map(|(id, inst)| (id, &**inst))
    }

    fn ids_of(&self, process: &ProcessId) -> Vec<InstanceId> {
        self.instances_of(process).map(|(id, _)| id.clone()).collect()
    }

    fn note(&mut self, id: &InstanceId, what: What, now: Mono, out: &mut Vec<Effect>) {
        let run = self.instances.get(id).and_then(|inst| Some(inst.live()?.run));
        self.note_of(id, run, what, now, out);
    }

    /// The same about one of several runs.
    fn note_of(
        &mut self,
        id: &InstanceId,
        run: Option<Run>,
        what: What,
        now: Mono,
        out: &mut Vec<Effect>,
    ) {
        let Some(inst) = self.instances.get_mut(id) else { return };
        let note = Arc::new(Note {
            at: now,
            instance: Some(id.clone()),
            run,
            job: inst.job.as_ref().map(|job| job.id),
            what,
        });
        let too_many = (inst.history.len() + 1).saturating_sub(HISTORY);
        let kept = inst.history[too_many..].iter().cloned();
        inst.history = kept.chain([note.clone()]).collect();
        self.changed.insert(id.clone());
        out.push(Effect::Note(note));
    }

    fn note_all(&self, job: Option<JobId>, what: What, now: Mono, out: &mut Vec<Effect>) {
        out.push(Effect::Note(Arc::new(Note { at: now, instance: None, run: None, job, what })));
    }

    fn new_job(&mut self) -> JobId {
        self.last_job = JobId(self.last_job.0 + 1);
        self.summary.jobs += 1;
        self.last_job
    }

    /// Ends the job of an instance, when it is one of `kinds`.
    fn end_job(
        &mut self,
        id: &InstanceId,
        kinds: &[JobKind],
        result: JobResult,
        detail: Option<String>,
        out: &mut Vec<Effect>,
    ) {
        let Some(inst) = self.instances.get_mut(id) else { return };
        if let Some(job) = inst.job.take_if(|job| kinds.contains(&job.kind)) {
            self.summary.jobs -= 1;
            self.changed.insert(id.clone());
            out.push(Effect::JobRemoved {
                job: job.id,
                kind: job.kind,
                instance: job.instance,
                result,
                detail,
            });
        }
    }
}

/// All instances that a process can have.
fn instances_of(process: &ProcessId) -> std::ops::RangeInclusive<InstanceId> {
    process.instance(0)..=process.instance(u32::MAX)
}
