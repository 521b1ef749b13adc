//! A new configuration, step by step.
//!
//! What is wanted changes at once and as a whole; what runs follows in steps: first those that go
//! are stopped, then those that change get a new run, one instance of a process after the other,
//! then those that are new are started. Within each, the graph orders. A step that only waits for
//! what comes later does not hold it up.
//!
//! What an instance needs is worked out from what it runs, not from what the file said before: so a
//! configuration that takes over from one that was never finished needs no history, and going back
//! to the spec that still runs needs no restart.

use super::Machine;
use super::gate::UP;
use crate::event::{Effect, Refusal, RunEnd, StopReason, What};
use crate::fields;
use crate::graph::Dependents;
use crate::ids::{Generation, InstanceId, JobId, ProcessId, Request};
use crate::job::{JobKind, JobResult};
use crate::process::{Instance, Phase};
use crate::reload::{Plan, ReloadReport, ReloadResult, Step, StepKind, StepState};
use crate::spec::{Config, ProcessSpec};
use crate::time::Mono;
use crate::trial::{Before, Rest};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Where a reload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Stopping,
    Changing,
    Starting,
}

/// What the instances are given a new configuration with.
struct Aim<'a> {
    /// Those that were to be up before.
    wished_before: BTreeSet<InstanceId>,
    /// How they were before the configuration that is withdrawn; empty where none is.
    before: &'a BTreeMap<InstanceId, Before>,
    /// What is to be done.
    steps: Vec<Step>,
}

/// A reload under way.
#[derive(Debug)]
pub(super) struct Reload {
    job: JobId,
    from: Generation,
    generation: Generation,
    plan: Arc<Plan>,
    since: Mono,
    stage: Stage,
    steps: Vec<Step>,
    /// Where the step of an instance is.
    at: BTreeMap<InstanceId, usize>,
    /// Steps of each stage that have not ended.
    left: [usize; 3],
    /// Steps under way that wait for something that a later stage may bring.
    parked: BTreeSet<InstanceId>,
    /// Restarts under way.
    rolling: usize,
    /// Whether something ended since the stages were last looked at.
    stirred: bool,
}

impl Reload {
    pub(super) fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Whether a restart of an instance is one of the steps.
    pub(super) fn restarts(&self, id: &InstanceId) -> bool {
        self.at.get(id).is_some_and(|at| self.steps[*at].kind == StepKind::Restart)
    }

    /// Whether it will come to an instance, and has not come to any like it yet.
    pub(super) fn is_before(&self, id: &InstanceId) -> bool {
        self.stage == Stage::Stopping && self.restarts(id)
    }

    /// Whether the step of an instance has not ended.
    pub(super) fn is_open(&self, id: &InstanceId) -> bool {
        self.at.get(id).is_some_and(|at| !self.steps[*at].state.is_final())
    }

    /// The step of an instance, while it has not ended.
    fn open_step(&mut self, id: &InstanceId) -> Option<&mut Step> {
        let at = *self.at.get(id)?;
        self.steps.get_mut(at).filter(|step| !step.state.is_final())
    }

    /// Whether every restart under way waits for something that starting others may bring. Those
    /// that queue behind one wait with it.
    fn only_waits(&self) -> bool {
        self.rolling == self.parked.len()
    }
}

fn stage_of(kind: StepKind) -> Option<Stage> {
    match kind {
        StepKind::Stop => Some(Stage::Stopping),
        StepKind::Restart => Some(Stage::Changing),
        StepKind::Start => Some(Stage::Starting),
        StepKind::Live => None,
    }
}

impl Machine {
    pub(super) fn accept(
        &mut self,
        request: Request,
        config: Arc<Config>,
        generation: Generation,
        withdrawn: Option<&BTreeMap<InstanceId, Before>>,
        now: Mono,
        out: &mut Vec<Effect>,
    ) {
        let (none, withdraws) = (BTreeMap::new(), withdrawn.is_some());
        let before = withdrawn.unwrap_or(&none);
        if self.ending {
            out.push(Effect::Answer { request, answer: Err(Refusal::ShuttingDown) });
            return;
        }
        let plan = Arc::new(Plan::between(&self.config, &config));
        // Before the exceptions end: what only ran as one is stopped by this reload.
        let wished_before = self.wished_among(&plan);
        // A supervisor that begins again with the same file is no reload.
        let exceptions = match self.restored && plan.is_empty() {
            true => BTreeSet::new(),
            false => self.end_exceptions(),
        };
        let result = match withdraws {
            true => ReloadResult::Withdrawn,
            false => ReloadResult::Superseded,
        };
        let unfinished = self.abandon_reload(result, now, out);
        let restored = std::mem::take(&mut self.restored);
        self.holds_back = false;
        if plan.is_empty() && unfinished.is_empty() && !restored {
            self.adopt_unchanged(request, config, generation, out);
            return;
        }
        let job = self.new_job();
        out.push(Effect::Answer { request, answer: Ok(vec![job]) });
        out.push(Effect::JobNew { job, kind: JobKind::Reload, instance: None });
        // What another supervisor had active, and is as it was, is the generation that it was. What is
        // gone back to has its number: of what was tried, which is going, nothing is to be known.
        let is_same = restored && plan.is_empty() && !withdraws;
        let generation = if is_same { self.generation } else { generation };
        let what = What::ReloadStarted { generation, plan: plan.clone() };
        self.note_all(Some(job), what, now, out);

        let from = std::mem::replace(&mut self.generation, generation);
        self.replace_config(config);
        let changed: BTreeSet<ProcessId> =
            plan.changes.iter().map(|change| change.process.clone()).collect();
        let mut concerned = changed.clone();
        concerned.extend(unfinished);
        concerned.extend(exceptions);
        if restored {
            concerned.extend(self.instances.keys().map(|id| id.process.clone()));
        }
        let mut aim = Aim { wished_before, before, steps: Vec::new() };
        for process in &concerned {
            self.retarget(process, &mut aim, now, out);
        }
        let mut steps = aim.steps;
        self.rest_again(before, now);
        if restored {
            // That nothing has to be done about the others is no news.
            steps.retain(|step| {
                step.kind != StepKind::Live || changed.contains(&step.instance.process)
            });
        }
        self.turn_edges(&concerned);
        self.review_queues();
        for step in steps.iter().filter(|step| step.kind == StepKind::Restart) {
            self.enqueue(&step.instance);
        }
        self.reload = Some(begin(job, from, generation, plan, steps, now));
    }

    /// Who is to be up, of those that a change may concern.
    fn wished_among(&self, plan: &Plan) -> BTreeSet<InstanceId> {
        let changed = plan.changes.iter().map(|change| &change.process);
        let once = self.instances.iter().filter(|(_, inst)| inst.once);
        let some: BTreeSet<&ProcessId> = changed.chain(once.map(|(id, _)| &id.process)).collect();
        let all = self.restored || self.reload.is_some();
        let concerned = self.instances.iter().filter(|(id, _)| all || some.contains(&id.process));
        concerned.filter(|(_, inst)| self.is_wished(inst)).map(|(id, _)| id.clone()).collect()
    }

    /// What is there anew since a configuration that is in force again rests as it did then, whether
    /// anybody wants it or not: others may wait for what it had done. What the configurations say of it
    /// may be the same.
    fn rest_again(&mut self, before: &BTreeMap<InstanceId, Before>, now: Mono) {
        for (id, before) in before {
            // It may wait for its first run already, where what is in force now has it too.
            let fresh = |inst: &Instance| {
                let has_no_run = matches!(inst.phase, Phase::Down | Phase::Waiting(_));
                // Whoever asked for a run gets one.
                let asked = inst.job.as_ref().is_some_and(|job| UP.contains(&job.kind));
                has_no_run && inst.last_end.is_none() && !inst.removed && !asked
            };
            if let Some(rest) = before.rest().filter(|_| self.instance(id).is_some_and(fresh)) {
                self.put_to_rest(id, rest, now);
            }
        }
    }

    /// `start --once` holds until the next reload. Returns the processes it was said of.
    fn end_exceptions(&mut self) -> BTreeSet<ProcessId> {
        let once = self.instances.iter().filter(|(_, inst)| inst.once);
        let ids: Vec<InstanceId> = once.map(|(id, _)| id.clone()).collect();
        for id in &ids {
            if let Some(inst) = self.instances.get_mut(id) {
                inst.once = false;
            }
            self.touch(id);
            self.intents.insert(id.clone());
        }
        ids.into_iter().map(|id| id.process).collect()
    }

    /// Nothing differs: the configuration is taken over, and is no new generation, unless it is the
    /// first.
    fn adopt_unchanged(
        &mut self,
        request: Request,
        config: Arc<Config>,
        generation: Generation,
        out: &mut Vec<Effect>,
    ) {
        let from = self.generation;
        self.config = config;
        if self.generation == Generation(0) {
            self.generation = generation;
        }
        out.push(Effect::Answer { request, answer: Ok(Vec::new()) });
        out.push(Effect::ReloadFinished(Arc::new(ReloadReport {
            from,
            generation: self.generation,
            result: ReloadResult::Unchanged,
            plan: Plan::between(&self.config, &self.config),
            steps: Vec::new(),
            took: std::time::Duration::ZERO,
        })));
    }

    /// All edges that order stops: those of the file, and those that it last had for what it has no
    /// more and that is not down yet. The latter cannot close a cycle: what the file has does not
    /// depend on them, nor does what the file lost later than them.
    pub(super) fn all_dependents(&self) -> Dependents {
        if self.gone.is_empty() {
            return Dependents::of(&self.config);
        }
        let mut all = Config::clone(&self.config);
        all.processes.extend(self.gone.clone());
        Dependents::of(&all)
    }

    /// Takes over the edges of the configuration, of which some processes are others now.
    fn turn_edges(&mut self, concerned: &BTreeSet<ProcessId>) {
        let edges = self.all_dependents();
        if edges != self.dependents {
            return self.replace_edges(edges);
        }
        // Where the edges are the same, only what there is to be said of their ends may be different.
        for process in concerned {
            self.ripple_from(process);
        }
    }

    /// Takes over a configuration, and remembers what it has no more for as long as that is there.
    fn replace_config(&mut self, config: Arc<Config>) {
        let old = std::mem::replace(&mut self.config, config);
        let removed = old.beside(&self.config).filter(|(_, _, new)| new.is_none());
        let removed = removed.filter_map(|(id, was, _)| Some((id.clone(), Arc::clone(was?))));
        let mut gone: BTreeMap<ProcessId, Arc<ProcessSpec>> = removed.collect();
        gone.append(&mut self.gone);
        gone.retain(|id, _| {
            !self.config.processes.contains_key(id) && self.instances_of(id).next().is_some()
        });
        self.gone = gone;
    }

    /// Gives the instances of a process what the configuration now says of it, and lists the steps
    /// that this takes.
    fn retarget(
        &mut self,
        process: &ProcessId,
        aim: &mut Aim<'_>,
        now: Mono,
        out: &mut Vec<Effect>,
    ) {
        let spec = self.config.processes.get(process).cloned();
        let count = spec.as_ref().map_or(0, |spec| spec.instances);
        for id in self.ids_of(process) {
            match &spec {
                Some(spec) if id.index < count => self.retarget_one(&id, spec, aim, now, out),
                _ => self.remove(&id, aim),
            }
        }
        let Some(spec) = spec else { return };
        for index in 0..count {
            let id = process.instance(index);
            if !self.instances.contains_key(&id) {
                self.add(&id, &spec, aim, now);
            }
        }
    }

    /// An instance that is new, or is back.
    fn add(&mut self, id: &InstanceId, spec: &Arc<ProcessSpec>, aim: &mut Aim<'_>, now: Mono) {
        let before = aim.before.get(id);
        let was_stopped = self.was_stopped(id, spec);
        let usual = self.config.settings.auto_start && !was_stopped;
        let wanted = before.map_or(usual, |before| before.wanted);
        let mut inst = Instance::new(spec.clone(), self.generation, wanted, now);
        let rests = before.is_some_and(|before| before.rest.is_some());
        let start = wanted && self.config.settings.enabled && spec.enabled && !rests;
        inst.gated = start;
        self.instances.insert(id.clone(), Box::new(inst));
        self.intents.insert(id.clone());
        self.touch(id);
        if start {
            let (instance, state) = (id.clone(), StepState::Pending);
            aim.steps.push(Step { instance, kind: StepKind::Start, state });
        }
    }

    /// It rests as it did before a configuration that is withdrawn.
    pub(super) fn put_to_rest(
        &mut self,
        id: &InstanceId,
        (rest, end): (Rest, Option<RunEnd>),
        now: Mono,
    ) {
        if let Some(inst) = self.instances.get_mut(id) {
            inst.last_end = end;
        }
        self.set_phase(id, rest.into(), now);
    }

    fn remove(&mut self, id: &InstanceId, aim: &mut Aim<'_>) {
        let Some(inst) = self.instances.get_mut(id) else { return };
        inst.removed = true;
        self.intents.insert(id.clone());
        self.touch(id);
        let state = StepState::Pending;
        aim.steps.push(Step { instance: id.clone(), kind: StepKind::Stop, state });
    }

    fn retarget_one(
        &mut self,
        id: &InstanceId,
        spec: &Arc<ProcessSpec>,
        aim: &mut Aim<'_>,
        now: Mono,
        out: &mut Vec<Effect>,
    ) {
        let managed = self.config.settings.enabled;
        let generation = self.generation;
        let was_wished = aim.wished_before.contains(id);
        let before = aim.before.get(id);
        let Some(inst) = self.instances.get_mut(id) else { return };
        let old = inst.spec.clone();
        let was_enabled = inst.file_spec().enabled || inst.once;
        let back = std::mem::take(&mut inst.removed);
        if back {
            // Before it was gone: a new life as far as the operator is concerned.
            let usual = self.config.settings.auto_start;
            inst.wanted = before.map_or(usual, |before| before.wanted);
        }
        let wished = inst.wanted && managed && (spec.enabled || inst.once);
        let changed = fields::needs_restart(&old, spec);
        let live = inst.live().is_some();
        let serves = inst.stand_in().is_some();
        let any = live || inst.former.is_some();
        // What a withdrawn configuration has run again rests again when that run is over, unless
        // somebody asked for a run.
        let asked = inst.job.as_ref().is_some_and(|job| UP.contains(&job.kind));
        let rest = before.and_then(Before::rest).filter(|_| !asked);
        inst.rest = rest.clone().filter(|_| changed && !serves);
        // Whatever is another now may be what it failed by.
        let is_same = inst.next.as_ref().is_some_and(|(tried, _)| tried == spec);
        inst.refused = inst.refused.take().filter(|_| is_same);
        if changed && live {
            inst.next = Some((spec.clone(), generation));
        } else {
            inst.next = None;
            if !matches!(
                inst.restart_due,
                Some(
                    StopReason::Restart
                        | StopReason::DependencyRestarted(_)
                        | StopReason::WatchedChanged(_)
                )
            ) {
                inst.restart_due = None;
            }
            inst.spec = spec.clone();
            inst.generation = generation;
        }
        let mut reset = false;
        let mut kind = match (wished, live) {
            (true, true) if changed || matches!(inst.phase, Phase::Stopping(..)) => {
                StepKind::Restart
            }
            // What it is to run, it does not yet.
            (true, _) if serves => StepKind::Restart,
            (true, true) => StepKind::Live,
            (true, false) if changed || !was_wished || !was_enabled => {
                inst.gated = true;
                reset = true;
                StepKind::Start
            }
            // What the reload before held back, or what waits for something that this one brings.
            (true, false) if matches!(inst.phase, Phase::Waiting(_) | Phase::Down) => {
                inst.gated = true;
                StepKind::Start
            }
            (true, false) => {
                // A policy that would now go on need not wait for a hand.
                reset = matches!(inst.phase, Phase::Failed) && old.restart != spec.restart;
                StepKind::Live
            }
            (false, _) if any && was_wished => StepKind::Stop,
            (false, _) => StepKind::Live,
        };
        if let Some(rest) = rest.filter(|_| kind == StepKind::Start) {
            inst.rest = None;
            kind = StepKind::Live;
            reset = false;
            self.put_to_rest(id, rest, now);
        }
        if kind != StepKind::Start
            && let Some(inst) = self.instances.get_mut(id)
        {
            inst.gated = false;
        }
        if reset {
            self.reset(id, now);
        }
        if back {
            let why = Some("it is back in the file".to_owned());
            self.end_job(id, &[JobKind::Stop], JobResult::Canceled, why, out);
        }
        self.intents.insert(id.clone());
        self.touch(id);
        self.adopt_live(id, &old, now, out);
        let state = match kind {
            StepKind::Live => StepState::Done { took: std::time::Duration::ZERO },
            _ => StepState::Pending,
        };
        aim.steps.push(Step { instance: id.clone(), kind, state });
    }

    /// Looks whether the step of an instance has ended.
    pub(super) fn check_step(&mut self, id: &InstanceId, now: Mono) {
        let Some(reload) = &mut self.reload else { return };
        let Some(at) = reload.at.get(id).copied() else { return };
        let Some(step) = reload.steps.get_mut(at) else { return };
        let since = match &step.state {
            StepState::Running { since } => *since,
            StepState::Pending if step.kind == StepKind::Stop => reload.since,
            _ => return,
        };
        let took = now.since(since);
        let inst = self.instances.get(id);
        let queue = self.queues.get(&id.process).filter(|_| step.kind == StepKind::Restart);
        let awaited = queue.is_some();
        let queues = queue.is_some_and(|queue| queue.has(id))
            && inst.is_some_and(|inst| !inst.is_going_down());
        let state = match step.kind {
            StepKind::Stop => match inst {
                Some(inst) if inst.is_leaving() => return,
                _ => StepState::Done { took },
            },
            _ => match inst.map(|inst| outcome(inst, awaited, took)) {
                None => StepState::Superseded,
                Some(Outcome::Over(state)) => state,
                Some(Outcome::Busy) if !queues => {
                    reload.parked.remove(id);
                    return;
                }
                // It waits with those that queue, whose steps have not begun.
                Some(Outcome::Waits | Outcome::Busy) => {
                    reload.stirred |= reload.parked.insert(id.clone());
                    return;
                }
            },
        };
        step.state = state;
        reload.parked.remove(id);
        if step.kind == StepKind::Restart {
            reload.rolling -= 1;
        }
        if let Some(stage) = stage_of(step.kind) {
            reload.left[stage as usize] -= 1;
        }
        reload.stirred = true;
    }

    /// Takes the next step of the reload under way; false when there is none to take now.
    pub(super) fn advance_reload(&mut self, now: Mono, out: &mut Vec<Effect>) -> bool {
        let Some(reload) = &mut self.reload else { return false };
        if !std::mem::take(&mut reload.stirred) {
            return false;
        }
        let [stops, _, _] = reload.left;
        match reload.stage {
            Stage::Stopping if stops > 0 => return false,
            Stage::Stopping => {
                reload.stage = Stage::Changing;
                reload.stirred = true;
                self.stir_queues();
            }
            Stage::Changing if reload.only_waits() => self.start_starting(now),
            Stage::Starting if reload.left == [0; 3] => self.finish_reload(now, out),
            Stage::Changing | Stage::Starting => {}
        }
        true
    }

    /// The step of an instance begins.
    pub(super) fn begin_step(&mut self, id: &InstanceId, now: Mono) {
        let Some(reload) = &mut self.reload else { return };
        if let Some(step) = reload.open_step(id)
            && (step.kind, &step.state) == (StepKind::Restart, &StepState::Pending)
        {
            step.state = StepState::Running { since: now };
            reload.rolling += 1;
            reload.stirred = true;
        }
    }

    /// The step of an instance, which waits for its turn, ends without one.
    pub(super) fn hold_step(&mut self, id: &InstanceId, why: &str, now: Mono) {
        let Some(reload) = &mut self.reload else { return };
        if let Some(step) = reload.open_step(id) {
            let took = match step.state {
                // It had a turn, and gave it back.
                StepState::Running { since } => Some(now.since(since)),
                _ => None,
            };
            let why = why.to_owned();
            step.state = StepState::Held { took: took.unwrap_or_default(), why };
            reload.rolling -= usize::from(took.is_some());
            reload.parked.remove(id);
            reload.left[Stage::Changing as usize] -= 1;
            reload.stirred = true;
            self.touch(id);
        }
    }

    /// Whether an instance still has its old run, and no reload sees to it.
    pub(crate) fn is_left_behind(&self, id: &InstanceId) -> bool {
        let is_open = self.reload.as_ref().is_some_and(|reload| reload.is_open(id));
        let old = |inst: &Instance| inst.next.is_some() && inst.restart_due.is_none();
        !is_open && self.instance(id).is_some_and(old)
    }

    /// All that was to go or to change has done so, or waits for what is to start.
    fn start_starting(&mut self, now: Mono) {
        let Some(reload) = &mut self.reload else { return };
        reload.stage = Stage::Starting;
        reload.stirred = true;
        let mut opened = Vec::new();
        for step in &mut reload.steps {
            if step.kind == StepKind::Start && step.state == StepState::Pending {
                step.state = StepState::Running { since: now };
                opened.push(step.instance.clone());
            }
        }
        for id in opened {
            if let Some(inst) = self.instances.get_mut(&id) {
                inst.gated = false;
            }
            self.touch(&id);
        }
    }

    fn finish_reload(&mut self, now: Mono, out: &mut Vec<Effect>) {
        let Some(reload) = self.reload.take() else { return };
        let failed = reload.steps.iter().any(|s| matches!(s.state, StepState::Failed { .. }));
        let result = if failed { ReloadResult::FailedKept } else { ReloadResult::Applied };
        self.report(reload, result, now, out);
    }

    /// Ends the reload under way because something newer takes over. Returns the processes whose
    /// steps had not ended.
    pub(super) fn abandon_reload(
        &mut self,
        result: ReloadResult,
        now: Mono,
        out: &mut Vec<Effect>,
    ) -> BTreeSet<ProcessId> {
        let Some(mut reload) = self.reload.take() else { return BTreeSet::new() };
        let mut unfinished = BTreeSet::new();
        for step in reload.steps.iter_mut().filter(|step| !step.state.is_final()) {
            step.state = StepState::Superseded;
            unfinished.insert(step.instance.process.clone());
        }
        self.report(reload, result, now, out);
        unfinished
    }

    fn report(&mut self, reload: Reload, result: ReloadResult, now: Mono, out: &mut Vec<Effect>) {
        let job = reload.job;
        let report = Arc::new(ReloadReport {
            from: reload.from,
            generation: reload.generation,
            result,
            plan: Plan::clone(&reload.plan),
            steps: reload.steps,
            took: now.since(reload.since),
        });
        self.note_all(Some(job), What::ReloadFinished(report.clone()), now, out);
        self.summary.jobs -= 1;
        out.push(Effect::ReloadFinished(report.clone()));
        out.push(Effect::JobRemoved {
            job,
            kind: JobKind::Reload,
            instance: None,
            result: match result {
                ReloadResult::Applied | ReloadResult::Unchanged => JobResult::Done,
                ReloadResult::FailedKept | ReloadResult::Withdrawn => JobResult::Failed,
                ReloadResult::Superseded => JobResult::Canceled,
            },
            detail: Some(report.to_string()),
        });
    }
}

fn begin(
    job: JobId,
    from: Generation,
    generation: Generation,
    plan: Arc<Plan>,
    steps: Vec<Step>,
    now: Mono,
) -> Reload {
    let mut left = [0; 3];
    for stage in steps.iter().filter_map(|step| stage_of(step.kind)) {
        left[stage as usize] += 1;
    }
    let at = steps.iter().enumerate().map(|(at, step)| (step.instance.clone(), at)).collect();
    Reload {
        job,
        from,
        generation,
        plan,
        since: now,
        stage: Stage::Stopping,
        steps,
        at,
        left,
        parked: BTreeSet::new(),
        rolling: 0,
        stirred: true,
    }
}

enum Outcome {
    /// Still under way.
    Busy,
    /// Waits for something that may come with a later stage.
    Waits,
    /// Ended.
    Over(StepState),
}

/// How far the start or restart of an instance is. `awaited`: others wait for it to have their turn.
fn outcome(inst: &Instance, awaited: bool, took: std::time::Duration) -> Outcome {
    let held = |why: String| Outcome::Over(StepState::Held { took, why });
    let failed = || {
        let why = inst.last_end.as_ref().map_or_else(String::new, |end| format!("it {end}"));
        Outcome::Over(StepState::Failed { took, why })
    };
    match &inst.phase {
        Phase::Up(_) if inst.is_ready() && inst.next.is_none() => {
            Outcome::Over(StepState::Done { took })
        }
        Phase::Up(_) if inst.refused.is_some() && inst.next.is_some() => failed(),
        Phase::Up(_) | Phase::Stopping(..) => Outcome::Busy,
        Phase::Down if inst.former.is_some() => Outcome::Busy,
        Phase::Completed => Outcome::Over(StepState::Done { took }),
        Phase::Backoff { .. } if awaited && inst.may_come_back() => Outcome::Waits,
        Phase::Failed | Phase::Backoff { .. } => failed(),
        // One that should be up has started or waits by the time this is asked.
        Phase::Down => held("it is not wanted any more".to_owned()),
        Phase::Waiting(blockers) => match blockers.iter().find(|blocker| blocker.is_hopeless()) {
            Some(blocker) => held(format!("waits for {blocker}")),
            None => Outcome::Waits,
        },
    }
}
