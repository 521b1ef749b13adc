//! What the outside knows: who wants what, which runs exist, who is ready and healthy, which jobs
//! are open. Worked out from what was asked and answered and from the files alone; the machine's own
//! word (its views) is kept beside it and compared.

use super::Verdict;
use provost_core::Machine;
use provost_core::event::{Effect, Event, ExitStatus, RunEnd, StopReason};
use provost_core::fields::needs_restart;
use provost_core::ids::{Generation, InstanceId, JobId, ProbeId, ProcessId, Request, Run};
use provost_core::job::JobKind;
use provost_core::spec::{
    Condition, Config, Dependency, HealthCheck, ProcessSpec, Readiness, RestartCondition,
};
use provost_core::time::Mono;
use provost_core::view::{InstanceView, State};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// A run as the outside sees it.
#[derive(Clone, Debug)]
pub struct RunFacts {
    pub run: Run,
    /// What it was started with, with what it took in since.
    pub spec: Arc<ProcessSpec>,
    pub asked: Mono,
    pub spawned: Option<Mono>,
    pub exit: Option<ExitStatus>,
    pub ready: bool,
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
    fn take(&mut self, ok: bool, check: &HealthCheck, age: Duration) {
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
    pub fn goes_on(&self) -> bool {
        self.ending.is_none()
    }

    fn restamp(&mut self, now: Mono) {
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
    pub over: Over,
    /// It completed, and was not asked to run again.
    pub completed: bool,
    /// Restarts since the last stable run; None when a change makes that hard to tell.
    pub attempt: Option<u32>,
    /// Somebody asked for a new run since the current one began.
    pub renew: bool,
    pub job: Option<OpenJob>,
    pub view: InstanceView,
    /// Its state before this turn.
    pub before: State,
    /// What the machine says in its views, of a turn ago.
    pub next_before: Option<Mono>,
    pub last_exit: Option<ExitStatus>,
}

/// What kind of turn this is.
#[derive(Clone, Debug, Default)]
pub enum Cause {
    #[default]
    Timeout,
    Fact(InstanceId),
    Start(Request, Vec<InstanceId>, bool),
    Stop(Request, Vec<InstanceId>),
    Restart(Request, Vec<InstanceId>),
    Reset(Request, Vec<InstanceId>),
    Signal(Request, InstanceId),
    Config(Request, Arc<Config>, Generation),
    Shutdown,
    Kill,
}

/// A reload under way.
#[derive(Clone, Debug)]
pub struct OpenReload {
    pub job: JobId,
    pub generation: Generation,
    pub since: Mono,
    /// Runs up to this one were there before it.
    pub after: Run,
}

/// All that the outside knows.
#[derive(Debug, Default)]
pub struct Model {
    pub config: Arc<Config>,
    pub generation: Generation,
    pub instances: BTreeMap<InstanceId, Facts>,
    /// The specs of what the file has no more and that may still be there.
    pub gone: BTreeMap<ProcessId, Arc<ProcessSpec>>,
    /// When something last happened to a process that those with `restart: true` follow.
    pub disturbed: BTreeMap<ProcessId, Mono>,
    pub ending: bool,
    pub finished: u32,
    pub cause: Cause,
    pub answered: bool,
    /// Jobs that were promised in this turn and not announced yet.
    pub promised: BTreeSet<JobId>,
    pub last_job: JobId,
    pub last_run: Run,
    pub reload: Option<OpenReload>,
    /// Instances whose view changed in this turn.
    pub dirty: BTreeSet<InstanceId>,
    /// An end that calls for an exit code.
    pub essential: Option<u8>,
    /// What came of jobs, for scenarios.
    pub results: BTreeMap<JobId, provost_core::job::JobResult>,
    pub reports: Vec<Arc<provost_core::reload::ReloadReport>>,
    pub last_answer: Option<Result<Vec<JobId>, provost_core::event::Refusal>>,
    pub finish_code: Option<u8>,
    pub exits: Vec<(InstanceId, Run, ExitStatus)>,
    /// Instances with a run, before this turn.
    pub(super) over_now: Option<InstanceId>,
    /// A reload was under way before this turn.
    pub(super) reloading: bool,
    /// Processes that the plan of this turn names, and what was wished before it.
    pub(super) changed: BTreeSet<ProcessId>,
    pub(super) wished_before: BTreeSet<InstanceId>,
}

impl Model {
    /// Takes in what the machine is about to be told.
    pub fn begin(&mut self, event: Option<&Event>, now: Mono) {
        self.answered = false;
        self.over_now = None;
        self.changed.clear();
        self.reloading = self.reload.is_some();
        for facts in self.instances.values_mut() {
            facts.before = facts.view.state;
            facts.next_before = facts.view.next_start;
            if let Some(run) = &mut facts.run {
                run.eager = false;
            }
        }
        self.cause = match event {
            None => Cause::Timeout,
            Some(event) => self.take(event, now),
        };
    }

    fn take(&mut self, event: &Event, now: Mono) -> Cause {
        match event {
            Event::Spawned { instance, run, .. } => {
                if let Some(facts) = self.current(instance, *run)
                    && facts.spawned.is_none()
                {
                    facts.spawned = Some(now);
                    if facts.goes_on() && facts.spec.readiness == Readiness::Started {
                        facts.ready = true;
                    }
                    facts.restamp(now);
                }
                Cause::Fact(instance.clone())
            }
            Event::SpawnFailed { instance, run, error } => {
                if self.current(instance, *run).is_some_and(|run| run.spawned.is_none()) {
                    self.over(instance, RunEnd::NotSpawned(error.clone()), now);
                }
                Cause::Fact(instance.clone())
            }
            Event::Exited { instance, run, status } => {
                self.exited(instance, *run, *status, now);
                Cause::Fact(instance.clone())
            }
            Event::Emptied { instance, run } => {
                if self.current(instance, *run).is_some() {
                    self.exited(instance, *run, ExitStatus::Unknown, now);
                    self.over(instance, RunEnd::Exited(ExitStatus::Unknown), now);
                }
                Cause::Fact(instance.clone())
            }
            Event::Probed { instance, run, probe, outcome } => {
                self.probed(instance, *run, *probe, outcome.is_ok(), now);
                Cause::Fact(instance.clone())
            }
            Event::ConfigAccepted { request, config, generation } => {
                Cause::Config(*request, config.clone(), *generation)
            }
            Event::StartRequested { request, instances, once } => {
                Cause::Start(*request, instances.clone(), *once)
            }
            Event::StopRequested { request, instances } => Cause::Stop(*request, instances.clone()),
            Event::RestartRequested { request, instances } => {
                Cause::Restart(*request, instances.clone())
            }
            Event::ResetFailedRequested { request, instances } => {
                Cause::Reset(*request, instances.clone())
            }
            Event::SignalRequested { request, instance, .. } => {
                Cause::Signal(*request, instance.clone())
            }
            Event::ShutdownRequested => {
                self.end_all();
                Cause::Shutdown
            }
            Event::KillRequested => {
                self.end_all();
                Cause::Kill
            }
        }
    }

    pub fn end_all(&mut self) {
        self.ending = true;
        self.refresh();
    }

    pub fn current(&mut self, instance: &InstanceId, run: Run) -> Option<&mut RunFacts> {
        self.instances.get_mut(instance)?.run.as_mut().filter(|facts| facts.run == run)
    }

    fn exited(&mut self, instance: &InstanceId, run: Run, status: ExitStatus, now: Mono) {
        let Some(facts) = self.instances.get_mut(instance) else { return };
        let Some(live) = facts.run.as_mut().filter(|live| live.run == run) else { return };
        if live.exit.is_some() {
            return;
        }
        live.exit = Some(status);
        facts.last_exit = Some(status);
        if live.goes_on() {
            if live.was_stable(now) {
                facts.attempt = Some(0);
            }
            live.ending = Some(now);
            live.patience = live.spec.stop.timeout;
            live.probe = None;
        }
    }

    /// What was asked for of a run that ended counts; else its policy does.
    fn over(&mut self, instance: &InstanceId, end: RunEnd, now: Mono) {
        self.disturbed.insert(instance.process.clone(), now);
        let wanted_spec = self.config.processes.get(&instance.process).cloned();
        let disturbed = self.disturbed_since(instance);
        let Some(facts) = self.instances.get_mut(instance) else { return };
        let Some(live) = facts.run.take() else { return };
        let changed = wanted_spec.is_some_and(|spec| needs_restart(&live.spec, &spec));
        if changed {
            facts.attempt = Some(0);
        }
        let end = match (&live.why, live.exit) {
            (None, Some(status)) => RunEnd::Exited(status),
            (None, None) => end,
            (Some(StopReason::Unhealthy(detail)), _) => RunEnd::Unhealthy(detail.clone()),
            (Some(StopReason::StartTimedOut), _) => RunEnd::StartTimedOut,
            (Some(why), _) => RunEnd::Asked(why.clone()),
        };
        let settled = matches!(end, RunEnd::Asked(_)) || changed || facts.renew || !facts.up;
        // One of these may have been told to follow another, which nobody outside can see.
        facts.over =
            if settled || disturbed { Over::Settled(end) } else { Over::ByPolicy(end, live.ill) };
        facts.renew = false;
        self.over_now = Some(instance.clone());
    }

    /// Whether a process that an instance follows had a change since its run began.
    pub fn disturbed_since(&self, instance: &InstanceId) -> bool {
        let Some(run) = self.instances.get(instance).and_then(|facts| facts.run.as_ref()) else {
            return false;
        };
        self.follows(&instance.process)
            .iter()
            .chain(&run.followed)
            .any(|on| self.disturbed.get(on).is_some_and(|at| *at >= run.asked))
    }

    /// All that a process follows by edges with `restart: true`, near or far.
    pub fn follows(&self, process: &ProcessId) -> BTreeSet<ProcessId> {
        let mut found = BTreeSet::new();
        let mut open = vec![process.clone()];
        while let Some(next) = open.pop() {
            let Some(spec) = self.spec_of(&next) else { continue };
            for edge in spec.depends_on.iter().filter(|edge| edge.restart) {
                if found.insert(edge.on.clone()) {
                    open.push(edge.on.clone());
                }
            }
        }
        found
    }

    /// What the file says, or said last.
    pub fn spec_of(&self, process: &ProcessId) -> Option<&Arc<ProcessSpec>> {
        self.config.processes.get(process).or_else(|| self.gone.get(process))
    }

    fn probed(&mut self, instance: &InstanceId, run: Run, probe: ProbeId, ok: bool, now: Mono) {
        let Some(live) = self.current(instance, run) else { return };
        if !live.goes_on() || live.probe.is_none_or(|(id, _)| id != probe) {
            return;
        }
        live.probe = None;
        live.answered = Some(now);
        let Some(check) = live.spec.health.clone() else { return };
        let age = live.spawned.map_or(Duration::ZERO, |at| now.since(at));
        live.health.take(ok, &check, age);
        if live.health.healthy {
            live.ready = true;
        }
        live.restamp(now);
    }

    /// Answers to checks that did not come in time: of one instance, or of all.
    pub(super) fn probe_overdue(&mut self, only: Option<&InstanceId>, now: Mono) {
        let late: Vec<(InstanceId, Run, ProbeId)> = self
            .instances
            .iter()
            .filter(|(id, _)| only.is_none_or(|only| *id == only))
            .filter_map(|(id, facts)| {
                let run = facts.run.as_ref()?;
                let (probe, at) = run.probe?;
                let limit = run.spec.health.as_ref()?.timeout;
                (run.goes_on() && at.after(limit).after(Duration::from_secs(2)) <= now)
                    .then(|| (id.clone(), run.run, probe))
            })
            .collect();
        for (id, run, probe) in late {
            self.probed(&id, run, probe, false, now);
        }
    }

    /// Works out who should be up.
    pub fn refresh(&mut self) {
        let mut memo: BTreeMap<ProcessId, bool> = BTreeMap::new();
        let managed = self.config.settings.enabled && !self.ending;
        for (id, facts) in &mut self.instances {
            let spec = self.config.processes.get(&id.process).filter(|s| id.index < s.instances);
            facts.wished =
                managed && facts.wanted && spec.is_some_and(|spec| spec.enabled || facts.once);
        }
        let ids: Vec<InstanceId> = self.instances.keys().cloned().collect();
        for id in ids {
            let up = self.instances[&id].wished && self.is_carried(&id.process, &mut memo);
            if let Some(facts) = self.instances.get_mut(&id) {
                facts.up = up;
            }
        }
    }

    /// Whether all that a process depends on for as long as it runs should be up.
    fn is_carried(&self, process: &ProcessId, memo: &mut BTreeMap<ProcessId, bool>) -> bool {
        let Some(spec) = self.config.processes.get(process) else { return true };
        spec.depends_on
            .iter()
            .filter(|edge| edge.condition != Condition::Completed)
            .all(|edge| self.process_up(&edge.on, memo))
    }

    fn process_up(&self, process: &ProcessId, memo: &mut BTreeMap<ProcessId, bool>) -> bool {
        if let Some(up) = memo.get(process) {
            return *up;
        }
        let up = self.instances_of(process).any(|(_, facts)| facts.wished)
            && self.is_carried(process, memo);
        memo.insert(process.clone(), up);
        up
    }

    pub fn instances_of(&self, process: &ProcessId) -> impl Iterator<Item = (&InstanceId, &Facts)> {
        self.instances.range(process.instance(0)..=process.instance(u32::MAX))
    }

    /// Whether a condition holds at this moment.
    pub fn is_met(&self, edge: &Dependency) -> bool {
        let mut any = false;
        for (_, facts) in self.instances_of(&edge.on) {
            let completed = facts.run.is_none() && facts.completed;
            if edge.condition == Condition::Completed && completed {
                any = true;
                continue;
            }
            if !facts.up {
                continue;
            }
            any = true;
            let live = facts.run.as_ref().filter(|run| run.goes_on());
            let met = match edge.condition {
                Condition::Completed => false,
                Condition::Started => completed || live.is_some_and(|run| run.spawned.is_some()),
                Condition::Ready => completed || live.is_some_and(|run| run.ready),
                Condition::Healthy => live.is_some_and(|run| run.health.healthy),
            };
            if !met {
                return false;
            }
        }
        any
    }

    /// A configuration is in force.
    pub(super) fn adopt(&mut self, config: &Arc<Config>, now: Mono) {
        for id in self.instances.keys().cloned().collect::<Vec<_>>() {
            let follows = self.follows(&id.process);
            if let Some(run) = self.instances.get_mut(&id).and_then(|facts| facts.run.as_mut()) {
                run.followed.extend(follows);
            }
        }
        self.wished_before =
            self.instances.iter().filter(|(_, f)| f.wished).map(|(id, _)| id.clone()).collect();
        let old = std::mem::replace(&mut self.config, config.clone());
        for (id, spec) in &old.processes {
            if !config.processes.contains_key(id) {
                self.gone.insert(id.clone(), spec.clone());
            }
        }
        for id in old.processes.keys().chain(config.processes.keys()) {
            let managed = old.settings.enabled == config.settings.enabled;
            if old.processes.get(id) != config.processes.get(id) || !managed {
                self.changed.insert(id.clone());
                self.disturbed.insert(id.clone(), now);
            }
        }
        for (id, spec) in &config.processes {
            self.gone.remove(id);
            let before = old.processes.get(id).map_or(0, |spec| spec.instances);
            for index in 0..spec.instances {
                let instance = id.instance(index);
                match self.instances.get_mut(&instance) {
                    Some(facts) if index >= before => facts.wanted = config.settings.auto_start,
                    Some(_) => {}
                    None => {
                        let wanted = config.settings.auto_start;
                        self.instances.insert(instance.clone(), new_facts(instance, spec, wanted));
                    }
                }
            }
        }
        for (id, facts) in &mut self.instances {
            facts.once = false;
            let Some(spec) = config.processes.get(&id.process) else { continue };
            let changed = self.changed.contains(&id.process);
            if changed || self.reloading {
                // Whether it is tried anew depends on how far the reload before was.
                facts.attempt = None;
            }
            if id.index >= spec.instances || !changed {
                continue;
            }
            if let Some(run) = &mut facts.run
                && !needs_restart(&run.spec, spec)
            {
                run.adopt(spec, now);
            }
        }
        self.refresh();
    }

    /// Reads the views of what changed.
    pub(super) fn refresh_views(&mut self, machine: &mut Machine) {
        self.dirty = machine.take_dirty();
        for id in &self.dirty {
            match (machine.view(id), self.instances.get_mut(id)) {
                (Some(view), Some(facts)) => {
                    facts.completed = view.state == State::Completed;
                    facts.view = view;
                }
                (None, Some(_)) => {
                    self.instances.remove(id);
                }
                // Told by `check`: the machine knows more than there is.
                (_, None) => {}
            }
        }
    }

    /// What the policy says of an end, told again in the plainest way.
    pub fn verdict(spec: &ProcessSpec, end: &RunEnd, attempt: u32, ill: bool) -> State {
        let policy = &spec.restart;
        let success = matches!(end, RunEnd::Exited(ExitStatus::Code(code))
            if policy.success_exit_codes.contains(code));
        let again = match policy.condition {
            RestartCondition::Always | RestartCondition::UnlessStopped => true,
            RestartCondition::OnFailure => !success,
            RestartCondition::No => false,
        };
        if ill {
            State::Failed
        } else if !again {
            if success { State::Completed } else { State::Failed }
        } else if policy.max_attempts.is_some_and(|max| attempt >= max) {
            State::Failed
        } else {
            State::Backoff
        }
    }
}

impl RunFacts {
    /// Takes in what needs no new run.
    fn adopt(&mut self, spec: &Arc<ProcessSpec>, now: Mono) {
        let old = std::mem::replace(&mut self.spec, spec.clone());
        if !self.goes_on() {
            return;
        }
        if old.health != spec.health {
            self.probe = None;
            self.answered = None;
            self.eager = true;
            if old.health.is_none() || spec.health.is_none() {
                self.health = HealthFacts::default();
            }
        }
        if self.spawned.is_some() && spec.readiness == Readiness::Started {
            self.ready = true;
        }
        if old.start_timeout != spec.start_timeout {
            self.overdue = false;
        }
        self.restamp(now);
    }
}

fn new_facts(id: InstanceId, spec: &Arc<ProcessSpec>, wanted: bool) -> Facts {
    Facts {
        wanted,
        once: false,
        wished: false,
        up: false,
        run: None,
        over: Over::Never,
        completed: false,
        attempt: Some(0),
        renew: false,
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
            pid: None,
            started: None,
            health: provost_core::view::HealthState::None,
            health_detail: None,
            last_check: None,
            last_exit: None,
            last_end: None,
            restarts: 0,
            attempt: 0,
            next_start: None,
            blockers: Vec::new(),
            needs_restart: false,
            generation: Generation(0),
            job: None,
            history: Arc::default(),
        },
        before: State::Down,
        next_before: None,
        last_exit: None,
    }
}

/// A run as it is when it was asked for.
pub(super) fn new_run(effect: &Effect, now: Mono) -> Option<RunFacts> {
    let Effect::Spawn { run, spec, .. } = effect else { return None };
    Some(RunFacts {
        run: *run,
        spec: spec.clone(),
        asked: now,
        spawned: None,
        exit: None,
        ready: false,
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
    })
}

/// For the checks of a turn.
pub(super) fn fine() -> Verdict {
    Ok(())
}
