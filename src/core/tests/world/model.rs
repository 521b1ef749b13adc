//! What the outside knows: who wants what, which runs exist, who is ready and healthy, which jobs
//! are open. Worked out from what was asked and answered and from the files alone; the machine's own
//! word (its views) is kept beside it and compared.

use super::facts::{Facts, Over, RunFacts, new_facts};
use provost_core::Machine;
use provost_core::event::{Event, ExitStatus, RunEnd, StopReason, Told};
use provost_core::fields::needs_restart;
use provost_core::ids::{
    Generation, InstanceId, JobId, ProbeId, ProcessId, ReloadId, Request, Run,
};
use provost_core::reload::Plan;
use provost_core::spec::{
    Condition, Config, Dependency, ProcessSpec, RestartCondition, WatchAction,
};
use provost_core::time::Mono;
use provost_core::trial::{Before, Rest};
use provost_core::view::State;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

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
    Reload(Request, Vec<InstanceId>),
    Watched(InstanceId),
    Config(Request, Arc<Config>, Generation),
    Shutdown,
    Kill,
}

/// A reload under way.
#[derive(Clone, Debug)]
pub struct OpenReload {
    pub job: JobId,
    pub from: Generation,
    pub generation: Generation,
    pub plan: Plan,
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
    /// Processes of which a run ends in this turn to be followed by another, and since when that is
    /// settled.
    pub renewed: Vec<(ProcessId, Mono)>,
    /// Those that served and were asked in this turn to end so that another run takes their place.
    pub taken: Vec<InstanceId>,
    /// What processes may have out, where more were allowed when those that are had their turns.
    pub slack: BTreeMap<ProcessId, u32>,
    pub ending: bool,
    pub finished: u32,
    pub cause: Cause,
    pub answered: bool,
    /// A signal was sent in this turn.
    pub signaled: bool,
    /// Jobs that were promised in this turn and not announced yet.
    pub promised: BTreeSet<JobId>,
    pub last_job: JobId,
    pub last_run: Run,
    pub last_probe: ProbeId,
    pub last_reload: ReloadId,
    pub reload: Option<OpenReload>,
    /// Instances whose view changed in this turn.
    pub dirty: BTreeSet<InstanceId>,
    /// An end that calls for an exit code.
    pub essential: Option<u8>,
    /// What came of jobs, for scenarios.
    pub results: BTreeMap<JobId, provost_core::job::JobResult>,
    pub reports: Vec<Arc<provost_core::reload::ReloadReport>>,
    /// The last report that a note told of.
    pub told_report: Option<Arc<provost_core::reload::ReloadReport>>,
    pub last_answer: Option<Result<Vec<JobId>, provost_core::event::Refusal>>,
    pub finish_code: Option<u8>,
    pub exits: Vec<(InstanceId, Run, ExitStatus)>,
    /// Instances with a run, before this turn.
    pub(super) over_now: Option<InstanceId>,
    /// A reload was under way before this turn.
    pub(super) reloading: bool,
    pub(super) notes: super::notes::Notes,
    pub(super) record: super::steps::Record,
    /// What was on trial goes in this turn.
    pub(super) withdraws: bool,
    /// How those were that a configuration touched which is withdrawn.
    pub(super) before: BTreeMap<InstanceId, Before>,
    /// The same of those that another configuration did not touch since.
    pub(super) resting: BTreeMap<InstanceId, Before>,
    /// Processes that the plan of this turn names, and what was wished before it.
    pub(super) changed: BTreeSet<ProcessId>,
    pub(super) wished_before: BTreeSet<InstanceId>,
}

impl Model {
    /// Takes in what the machine is about to be told.
    pub fn begin(&mut self, event: Option<&Event>, now: Mono) {
        self.answered = false;
        self.withdraws = false;
        self.signaled = false;
        self.over_now = None;
        self.renewed.clear();
        self.taken.clear();
        self.changed.clear();
        self.reloading = self.reload.is_some();
        self.record.begin(self.reports.len());
        self.notes.begin();
        for facts in self.instances.values_mut() {
            facts.before = facts.view.state;
            facts.since_before = facts.view.since;
            facts.next_before = facts.view.next_start;
            for run in facts.run.iter_mut().chain(&mut facts.former) {
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
                    facts.listen(now);
                    facts.look_ready();
                    facts.restamp(now);
                    self.notes.expect(Some(instance), "started");
                }
                Cause::Fact(instance.clone())
            }
            Event::SpawnFailed { instance, run, error } => {
                if self.current(instance, *run).is_some_and(|run| run.spawned.is_none()) {
                    self.notes.expect(Some(instance), "spawn-failed");
                    self.over(instance, RunEnd::NotSpawned(Box::new(error.clone())), now);
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
                } else if self.any(instance, *run).is_some() {
                    self.exited(instance, *run, ExitStatus::Unknown, now);
                    self.notes.expect(Some(instance), "stopped");
                    if let Some(facts) = self.instances.get_mut(instance) {
                        facts.former = None;
                    }
                }
                Cause::Fact(instance.clone())
            }
            Event::Probed { instance, run, probe, outcome } => {
                self.probed(instance, *run, *probe, outcome.is_ok(), now);
                Cause::Fact(instance.clone())
            }
            Event::Notified { instance, run, told } => {
                self.notified(instance, *run, told, now);
                Cause::Fact(instance.clone())
            }
            Event::Reloaded { instance, run, reload, outcome } => {
                self.reloaded(instance, *run, *reload, outcome.is_ok());
                Cause::Fact(instance.clone())
            }
            Event::WatchedChanged { instance, .. } => {
                self.watched(instance, now);
                Cause::Watched(instance.clone())
            }
            // What follows of it shows in why it is stopped.
            Event::Outgrown { instance, run, .. } => {
                if let Some(facts) = self.current(instance, *run) {
                    facts.outgrown = true;
                }
                Cause::Fact(instance.clone())
            }
            Event::ConfigWithdrawn { request, config, generation, before } => {
                self.withdraws = true;
                self.resting.append(&mut self.before);
                self.before = BTreeMap::clone(before);
                Cause::Config(*request, config.clone(), *generation)
            }
            Event::ConfigAccepted { request, config, generation } => {
                // Else it is refused.
                if !self.ending {
                    self.resting.append(&mut self.before);
                }
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
            Event::ReloadRequested { request, instances } => {
                Cause::Reload(*request, instances.clone())
            }
            Event::SignalRequested { request, instance, .. } => {
                Cause::Signal(*request, instance.clone())
            }
            // Without something to go on with it changes nothing.
            Event::ConfigUnusable => Cause::Timeout,
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
        if !self.ending {
            self.notes.expect(None, "shutting-down");
        }
        self.ending = true;
        self.refresh();
    }

    pub fn current(&mut self, instance: &InstanceId, run: Run) -> Option<&mut RunFacts> {
        self.instances.get_mut(instance)?.run.as_mut().filter(|facts| facts.run == run)
    }

    /// The same, also of a former one.
    pub fn any(&mut self, instance: &InstanceId, run: Run) -> Option<&mut RunFacts> {
        let facts = self.instances.get_mut(instance)?;
        facts.run.iter_mut().chain(&mut facts.former).find(|facts| facts.run == run)
    }

    fn exited(&mut self, instance: &InstanceId, run: Run, status: ExitStatus, now: Mono) {
        let Some(facts) = self.instances.get_mut(instance) else { return };
        if let Some(former) = facts.former.as_mut().filter(|former| former.run == run) {
            if former.exit.is_none() {
                former.exit = Some(status);
                self.notes.expect(Some(instance), "exited");
                if former.goes_on() {
                    (former.ending, former.patience) = (Some(now), former.spec.stop.timeout);
                    self.replaced(&instance.process, now);
                }
            }
            return;
        }
        let Some(live) = facts.run.as_mut().filter(|live| live.run == run) else { return };
        if live.exit.is_some() {
            return;
        }
        live.exit = Some(status);
        facts.last_exit = Some(status);
        self.notes.expect(Some(instance), "exited");
        if live.goes_on() {
            if live.was_stable(now) {
                facts.attempt = Some(0);
            }
            live.ending = Some(now);
            live.patience = live.spec.stop.timeout;
            live.probe = None;
            live.taking = None;
        }
    }

    /// What others see of a process is another run from now on: who follows it does so.
    pub(super) fn replaced(&mut self, process: &ProcessId, now: Mono) {
        self.disturbed.insert(process.clone(), now);
        self.renewed.push((process.clone(), now));
    }

    /// What was asked for of a run that ended counts; else its policy does.
    fn over(&mut self, instance: &InstanceId, end: RunEnd, now: Mono) {
        let serves = self.instances.get(instance).is_some_and(|facts| facts.stand_in().is_some());
        if !serves {
            self.disturbed.insert(instance.process.clone(), now);
        }
        let file = self.config.processes.get(&instance.process);
        // One that is gone from the file may still be there, for a former run that ends.
        let wanted_spec = file.filter(|spec| instance.index < spec.instances).cloned();
        let disturbed = self.disturbed_since(instance);
        let rest = self.rest_of(instance);
        let Some(facts) = self.instances.get_mut(instance) else { return };
        let Some(live) = facts.run.take() else { return };
        let changed = wanted_spec.is_some_and(|spec| needs_restart(&live.spec, &spec));
        if changed {
            facts.attempt = Some(0);
            facts.completed |= rest == Some(Rest::Completed);
        }
        let end = match (&live.why, live.exit) {
            (None, Some(status)) => RunEnd::Exited(status),
            (None, None) => end,
            (Some(StopReason::Unhealthy(detail)), _) => RunEnd::Unhealthy(detail.clone()),
            (Some(StopReason::Outgrown(used)), _) => RunEnd::Outgrown(*used),
            (Some(StopReason::StartTimedOut), _) => RunEnd::StartTimedOut,
            (Some(why), _) => RunEnd::Asked(why.clone()),
        };
        if !matches!(end, RunEnd::Asked(_)) {
            if !serves {
                self.renewed.push((instance.process.clone(), now));
            }
        } else {
            self.notes.expect(Some(instance), "stopped");
        }
        let settled = matches!(end, RunEnd::Asked(_)) || changed || facts.renew || !facts.up;
        // One of these may have been told to follow another, which nobody outside can see.
        facts.over =
            if settled || disturbed { Over::Settled(end) } else { Over::ByPolicy(end, live.ill) };
        facts.settled = settled;
        (facts.renew, facts.rolled) = (false, false);
        if serves && !settled && !disturbed {
            // Whatever its policy says.
            self.notes.expect(Some(instance), "fell-back");
        }
        self.over_now = Some(instance.clone());
    }

    /// Where an instance rests once what a withdrawn configuration has run of it is over.
    pub(super) fn rest_of(&self, id: &InstanceId) -> Option<Rest> {
        self.before.get(id).or_else(|| self.resting.get(id)).and_then(|before| before.rest)
    }

    /// Whether a process that an instance follows had a change since its run began.
    pub fn disturbed_since(&self, instance: &InstanceId) -> bool {
        let run = self.instances.get(instance).and_then(|facts| facts.run.as_ref());
        run.is_some_and(|run| self.is_disturbed(instance, run))
    }

    fn is_disturbed(&self, instance: &InstanceId, run: &RunFacts) -> bool {
        let all = self.follows(&instance.process);
        let mut all = all.iter().chain(&run.followed);
        all.any(|on| self.disturbed.get(on).is_some_and(|at| *at >= run.asked))
    }

    /// Whether a former run ends because another process does, or was to when it ended by itself.
    pub(super) fn follows_another(&self, instance: &InstanceId, former: &RunFacts) -> bool {
        match &former.why {
            Some(why) => matches!(why, StopReason::DependencyRestarted(_)),
            None => !former.goes_on() && self.is_disturbed(instance, former),
        }
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
        self.judged(instance, run, ok, now);
    }

    fn notified(&mut self, instance: &InstanceId, run: Run, told: &Told, now: Mono) {
        let Some(live) = self.current(instance, run) else { return };
        match told {
            Told::Ready => {
                live.told_ready = true;
                live.look_ready();
                live.restamp(now);
            }
            Told::Alive | Told::Trouble if live.speaks() && live.goes_on() => {
                self.judged(instance, run, *told == Told::Alive, now);
            }
            Told::Alive | Told::Trouble | Told::Status(_) => {}
        }
    }

    pub(super) fn reloaded(&mut self, instance: &InstanceId, run: Run, reload: ReloadId, ok: bool) {
        let Some(live) = self.current(instance, run) else { return };
        if live.goes_on() && live.taking.is_some_and(|(id, _)| id == reload) {
            live.taking = None;
            self.notes.expect(Some(instance), if ok { "reloaded" } else { "reload-failed" });
        }
    }

    /// What somebody has watched is a reason for what is up to be renewed, and for what failed to be
    /// tried again.
    fn watched(&mut self, instance: &InstanceId, now: Mono) {
        let spec = self.config.processes.get(&instance.process);
        let Some(watch) = spec.and_then(|spec| spec.watch.clone()) else { return };
        let Some(facts) = self.instances.get_mut(instance).filter(|facts| facts.wished) else {
            return;
        };
        let renews = watch.action == WatchAction::Restart;
        let (up, held) = (facts.up, facts.view.sub_state == "held");
        if let Some(former) = &mut facts.former {
            former.takes |= !renews;
            facts.by_file &= !renews;
        }
        match &mut facts.run {
            Some(run) if run.goes_on() && (!up || held) => return,
            Some(run) if run.goes_on() && !renews => {
                run.takes = true;
                return self.notes.expect(Some(instance), "watched-changed");
            }
            Some(run) if run.goes_on() => {
                facts.renew = true;
                self.disturbed.insert(instance.process.clone(), now);
            }
            Some(run) if run.ends_by_itself() => facts.renew = true,
            Some(_) => return,
            None => match facts.view.state {
                State::Backoff | State::Failed => {}
                State::Completed if renews => facts.completed = false,
                _ => return,
            },
        }
        if let Some(facts) = self.instances.get_mut(instance) {
            facts.attempt = Some(0);
        }
    }

    fn judged(&mut self, instance: &InstanceId, run: Run, ok: bool, now: Mono) {
        let Some(live) = self.current(instance, run) else { return };
        live.answered = live.spawned.map(|_| now);
        let Some(check) = live.spec.health.clone() else { return };
        let age = live.spawned.map_or(Duration::ZERO, |at| now.since(at));
        let old = live.health;
        live.health.take(ok, &check, age);
        let new = live.health;
        live.look_ready();
        live.restamp(now);
        self.notes.expect_health(instance, old, new);
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
        let silent = |facts: &Facts| {
            let run = facts.run.as_ref().filter(|run| run.speaks() && run.goes_on())?;
            let interval = run.spec.health.as_ref()?.interval;
            (run.answered?.after(interval) <= now).then_some(run.run)
        };
        let silent: Vec<(InstanceId, Run)> = self
            .instances
            .iter()
            .filter(|(id, _)| only.is_none_or(|only| *id == only))
            .filter_map(|(id, facts)| Some((id.clone(), silent(facts)?)))
            .collect();
        for (id, run) in silent {
            self.judged(&id, run, false, now);
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
            let live = || facts.run.as_ref().filter(|run| run.goes_on());
            let live = facts.stand_in().or_else(live);
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
        self.plan_steps(config, now);
        let record = &self.record;
        self.resting.retain(|id, _| !record.concerns(id));
        for id in self.instances.keys().cloned().collect::<Vec<_>>() {
            let follows = self.follows(&id.process);
            let Some(facts) = self.instances.get_mut(&id) else { continue };
            for run in facts.run.iter_mut().chain(&mut facts.former) {
                run.followed.extend(follows.iter().cloned());
            }
        }
        self.wished_before =
            self.instances.iter().filter(|(_, f)| f.wished).map(|(id, _)| id.clone()).collect();
        let old = std::mem::replace(&mut self.config, config.clone());
        for (id, spec) in &old.processes {
            let slack = self.slack.entry(id.clone()).or_default();
            *slack = (*slack).max(spec.max_unavailable.get());
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
                    Some(facts) if index >= before => {
                        facts.wanted = wanted_again(&self.before, &instance, config);
                    }
                    Some(_) => {}
                    None => {
                        let wanted = wanted_again(&self.before, &instance, config);
                        self.instances.insert(instance.clone(), new_facts(instance, spec, wanted));
                    }
                }
            }
        }
        for (id, facts) in &mut self.instances {
            facts.once = false;
            let rest = self.before.get(id).and_then(|before| before.rest);
            let is_new = matches!(facts.over, Over::Never);
            let put = facts.run.is_none() && (is_new || self.record.leaves(id));
            facts.completed |= rest == Some(Rest::Completed) && put;
            let Some(spec) = config.processes.get(&id.process) else { continue };
            let changed = self.changed.contains(&id.process);
            if changed || self.reloading {
                // Whether it is tried anew depends on how far the reload before was.
                facts.attempt = None;
            }
            if id.index >= spec.instances || !changed {
                continue;
            }
            let edges = old.processes.get(&id.process).map(|spec| &spec.depends_on);
            if edges != Some(&spec.depends_on) {
                let runs = facts.run.iter_mut().chain(&mut facts.former);
                runs.for_each(|run| run.edges_since = now);
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
    pub(super) fn refresh_views(&mut self, machine: &mut Machine, now: Mono) {
        self.dirty = machine.take_dirty();
        for id in &self.dirty {
            match (machine.view(id), self.instances.get_mut(id)) {
                (Some(view), Some(facts)) => {
                    if view.blockers.is_empty() {
                        facts.told.clear();
                    }
                    let serves = facts.stand_in().is_some();
                    let held = facts.up && view.sub_state == "held";
                    if let Some(run) = &mut facts.run {
                        let due = held && !serves;
                        run.due_since = due.then(|| run.due_since.unwrap_or(now));
                        facts.out &= !(run.ready && run.goes_on());
                    }
                    if let Some(former) = &mut facts.former {
                        let due = held && serves;
                        former.due_since = due.then(|| former.due_since.unwrap_or(now));
                    }
                    if held && facts.is_there() {
                        self.disturbed.insert(id.process.clone(), now);
                    }
                    // Who is wanted again after it was down is not out for a turn, but because it is
                    // started; somebody may have been promised a turn by then.
                    facts.out &= facts.up || facts.is_there();
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

/// Whether an instance that is new, or is back, is wanted.
pub(super) fn wanted_again(
    before: &BTreeMap<InstanceId, Before>,
    id: &InstanceId,
    config: &Config,
) -> bool {
    before.get(id).map_or(config.settings.auto_start, |before| before.wanted)
}
