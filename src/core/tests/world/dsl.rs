//! The words scenarios are written in.
//!
//! Answers of the simulated processes come by themselves, in order, at the moment they are due; a
//! scenario says how the processes behave, what is asked for, and how time passes. The invariants
//! are checked after every turn here too.

use super::World;
use super::backend::{Behaviour, Finding, Leftovers, Spawning};
use provost_core::event::{Effect, Event, ExitStatus, Refusal, Told, What};
use provost_core::ids::{Generation, InstanceId, JobId, ProcessId, Request, Run, Slot};
use provost_core::job::JobResult;
use provost_core::reload::{ReloadReport, StepState};
use provost_core::spec::{
    Check, Command, Condition, Config, Dependency, HealthCheck, OnFailure, ProcessSpec, Readiness,
    RestartCondition, Settings, Text,
};
use provost_core::time::Mono;
use provost_core::trial::{Fault, Verdict};
use provost_core::view::{InstanceView, State};
use std::sync::Arc;
use std::time::Duration;

pub fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

pub fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

pub fn id(name: &str) -> InstanceId {
    InstanceId::parse(name).unwrap()
}

/// A process of a scenario: a spec in the making.
#[derive(Clone)]
pub struct Process(pub ProcessSpec);

pub fn process(name: &str) -> Process {
    let mut spec = ProcessSpec::new(ProcessId::new(name).unwrap(), Command::Shell(Text::new("v1")));
    // Scenarios count seconds.
    spec.restart.jitter = 0.0;
    Process(spec)
}

impl Process {
    pub fn with(mut self, change: impl FnOnce(&mut ProcessSpec)) -> Process {
        change(&mut self.0);
        self
    }

    pub fn edge(self, on: &str, condition: Condition, restart: bool) -> Process {
        self.with(|spec| {
            spec.depends_on.push(Dependency {
                on: ProcessId::new(on).unwrap(),
                condition,
                restart,
            });
            spec.depends_on.sort();
        })
    }

    pub fn on(self, on: &str, condition: Condition) -> Process {
        self.edge(on, condition, false)
    }

    pub fn after(self, on: &str) -> Process {
        self.edge(on, Condition::Ready, false)
    }

    pub fn follows(self, on: &str) -> Process {
        self.edge(on, Condition::Ready, true)
    }

    pub fn line(self, line: &str) -> Process {
        self.with(|spec| spec.exec.command = Command::Shell(Text::new(line)))
    }

    pub fn instances(self, n: u32) -> Process {
        self.with(|spec| spec.instances = n)
    }

    pub fn disabled(self) -> Process {
        self.with(|spec| spec.enabled = false)
    }

    pub fn essential(self) -> Process {
        self.with(|spec| spec.essential = true)
    }

    pub fn policy(self, condition: RestartCondition) -> Process {
        self.with(|spec| spec.restart.condition = condition)
    }

    pub fn one_shot(self) -> Process {
        self.policy(RestartCondition::No)
    }

    pub fn attempts(self, n: u32) -> Process {
        self.with(|spec| spec.restart.max_attempts = Some(n))
    }

    /// A check every 10 s, with a start period of 5 s; two failures make it ill.
    /// It says by itself when it is ready.
    pub fn speaking(self) -> Process {
        self.with(|spec| spec.readiness = Readiness::Notify)
    }

    /// It says by itself that it is alive, every ten seconds.
    pub fn alive(self) -> Process {
        self.checked().with(|spec| {
            let health = spec.health.as_mut().unwrap();
            (health.check, health.failure_threshold) = (Check::Notify, 1);
        })
    }

    pub fn checked(self) -> Process {
        self.with(|spec| {
            spec.readiness = Readiness::Health;
            spec.health = Some(Box::new(HealthCheck {
                interval: secs(10),
                timeout: secs(3),
                start_period: secs(5),
                failure_threshold: 2,
                ..HealthCheck::new(Check::Tcp(Text::new("localhost:1")))
            }));
        })
    }

    pub fn overlaps(self) -> Process {
        self.with(|spec| spec.overlap = true)
    }

    pub fn when_ill(self, action: OnFailure) -> Process {
        self.with(|spec| spec.health.as_mut().unwrap().on_failure = action)
    }
}

pub struct Scene {
    pub world: World,
    requests: u64,
    generation: u64,
    /// All effects since they were last looked at.
    log: Vec<Effect>,
    /// Runs that ended, or that it was told of that they are to end.
    asked: std::collections::BTreeSet<Run>,
    /// Runs in the second slot.
    second: std::collections::BTreeSet<Run>,
}

impl Default for Scene {
    fn default() -> Self {
        Scene::new()
    }
}

impl Scene {
    pub fn new() -> Scene {
        let mut world = World::new(1);
        world.trace = Some(String::new());
        Scene {
            world,
            requests: 0,
            generation: 0,
            log: Vec::new(),
            asked: std::collections::BTreeSet::new(),
            second: std::collections::BTreeSet::new(),
        }
    }

    /// A scene in which these run.
    pub fn of<const N: usize>(processes: [Process; N]) -> Scene {
        let mut scene = Scene::new();
        scene.config(processes);
        scene
    }

    /// The same, and from now on what is new is judged.
    pub fn judging<const N: usize>(processes: [Process; N]) -> Scene {
        let mut scene = Scene::of(processes);
        scene.world.judges = true;
        scene.advance(secs(60));
        scene.forget();
        scene
    }

    /// How the last trial ended, in words.
    pub fn verdict(&self) -> String {
        let Some((generation, verdict)) = self.world.verdicts.last() else {
            return "none".to_owned();
        };
        let names = |faults: &[Fault]| {
            let named = faults.iter().map(|fault| format!("{} {}", fault.instance, fault.why));
            named.collect::<Vec<_>>().join(", ")
        };
        match verdict {
            Verdict::Good { still_failing } if still_failing.is_empty() => {
                format!("{generation} good")
            }
            Verdict::Good { still_failing } => {
                format!("{generation} good, still failing: {}", names(still_failing))
            }
            Verdict::Kept { faults } => format!("{generation} kept: {}", names(faults)),
            Verdict::RolledBack { faults, lost } if lost.is_empty() => {
                format!("{generation} rolled back: {}", names(faults))
            }
            Verdict::RolledBack { faults, lost } => {
                format!("{generation} rolled back: {}; lost: {}", names(faults), names(lost))
            }
        }
    }

    fn check(&mut self, verdict: Result<(), String>) {
        for effect in &self.world.effects {
            if let Effect::Spawn { run, slot: Slot::B, .. } = effect {
                self.second.insert(*run);
            }
            let told = match effect {
                Effect::RunExited { run, .. } => {
                    self.asked.insert(*run);
                    true
                }
                // That what is left of a run is asked too is not worth telling.
                Effect::Terminate { run, .. } => self.asked.insert(*run),
                _ => true,
            };
            if told {
                self.log.push(effect.clone());
            }
        }
        if let Err(error) = verdict {
            panic!("{error}\n\n{}", self.world.trace.take().unwrap_or_default());
        }
    }

    /// Tells the machine something, and lets all that happens at this moment happen.
    pub fn tell(&mut self, event: Event) {
        let verdict = self.world.feed(event);
        self.check(verdict);
        self.until(self.world.now);
    }

    fn until(&mut self, end: Mono) {
        let mut turns = 0;
        while self.world.next_due().is_some_and(|due| due <= end) {
            turns += 1;
            if turns > 20_000 {
                self.check(Err("it does not come to rest".to_owned()));
            }
            match self.world.next(false) {
                Ok(_) => self.check(Ok(())),
                Err(error) => self.check(Err(error)),
            }
        }
        self.world.now = self.world.now.max(end);
    }

    pub fn advance(&mut self, span: Duration) {
        self.until(self.world.now.after(span));
    }

    fn request(&mut self) -> Request {
        self.requests += 1;
        Request(self.requests)
    }

    pub fn config<const N: usize>(&mut self, processes: [Process; N]) {
        self.settings(Settings::default(), processes);
    }

    pub fn settings<const N: usize>(&mut self, settings: Settings, processes: [Process; N]) {
        let answer = self.try_config(settings, processes);
        assert!(answer.is_ok(), "{answer:?}");
    }

    pub fn try_config<const N: usize>(
        &mut self,
        settings: Settings,
        processes: [Process; N],
    ) -> Result<Vec<JobId>, Refusal> {
        let processes = processes.into_iter().map(|p| (p.0.id.clone(), Arc::new(p.0))).collect();
        let config = Arc::new(Config { settings, processes });
        self.generation += 1;
        let (request, generation) = (self.request(), Generation(self.generation));
        self.tell(Event::ConfigAccepted { request, config, generation });
        self.world.model.last_answer.clone().unwrap()
    }

    fn ask(&mut self, event: Event) -> Result<JobId, Refusal> {
        self.tell(event);
        let answer = self.world.model.last_answer.clone().unwrap();
        answer.map(|jobs| jobs.first().copied().unwrap_or_default())
    }

    pub fn start(&mut self, name: &str) -> Result<JobId, Refusal> {
        let request = self.request();
        self.ask(Event::StartRequested { request, instances: vec![id(name)], once: false })
    }

    /// Starts several with one request.
    pub fn start_all<const N: usize>(&mut self, names: [&str; N]) -> [JobId; N] {
        let (request, instances) = (self.request(), names.map(id).to_vec());
        self.tell(Event::StartRequested { request, instances, once: false });
        self.world.model.last_answer.clone().unwrap().unwrap().try_into().unwrap()
    }

    pub fn start_once(&mut self, name: &str) -> Result<JobId, Refusal> {
        let request = self.request();
        self.ask(Event::StartRequested { request, instances: vec![id(name)], once: true })
    }

    pub fn stop(&mut self, name: &str) -> Result<JobId, Refusal> {
        let request = self.request();
        self.ask(Event::StopRequested { request, instances: vec![id(name)] })
    }

    pub fn restart(&mut self, name: &str) -> Result<JobId, Refusal> {
        let request = self.request();
        self.ask(Event::RestartRequested { request, instances: vec![id(name)] })
    }

    /// Has several restarted with one request.
    pub fn restart_all<const N: usize>(&mut self, names: [&str; N]) -> [JobId; N] {
        let (request, instances) = (self.request(), names.map(id).to_vec());
        self.tell(Event::RestartRequested { request, instances });
        self.world.model.last_answer.clone().unwrap().unwrap().try_into().unwrap()
    }

    pub fn reset(&mut self, name: &str) -> Result<JobId, Refusal> {
        let request = self.request();
        self.ask(Event::ResetFailedRequested { request, instances: vec![id(name)] })
    }

    pub fn shut_down(&mut self) {
        self.tell(Event::ShutdownRequested);
    }

    pub fn kill(&mut self) {
        self.tell(Event::KillRequested);
    }

    /// How a process, or one instance of it, behaves from now on.
    pub fn behave(&mut self, name: &str, change: impl FnOnce(&mut Behaviour)) {
        let mut behaviour = self.world.backend.scripted_for(name);
        change(&mut behaviour);
        self.world.backend.script(name, behaviour);
    }

    /// The current run says something of itself.
    pub fn says(&mut self, name: &str, told: Told) {
        let instance = id(name);
        let run = self.world.machine.run_of(&instance).unwrap();
        self.tell(Event::Notified { instance, run, told });
    }

    pub fn finds(&mut self, name: &str, finding: Finding) {
        self.behave(name, |behaviour| behaviour.finding = finding);
    }

    pub fn ignores_term(&mut self, name: &str) {
        self.behave(name, |behaviour| behaviour.term = None);
    }

    /// Takes so long to end when it is asked to.
    pub fn ends_slowly(&mut self, name: &str, span: Duration) {
        self.behave(name, |b| b.term = Some((span, super::backend::TERMINATED)));
    }

    pub fn spawns(&mut self, name: &str, spawn: Spawning) {
        self.behave(name, |behaviour| behaviour.spawn = spawn);
    }

    pub fn leaves(&mut self, name: &str, leftovers: Leftovers) {
        self.behave(name, |behaviour| behaviour.leftovers = leftovers);
    }

    /// The main process of the newest run of an instance ends now.
    pub fn exit_new(&mut self, name: &str, code: u8) {
        let run = self.world.model.instances[&id(name)].run.as_ref().expect("it runs").run;
        self.world.backend.exit(run, self.world.now, ExitStatus::Code(code));
        self.until(self.world.now);
    }

    /// The main process of an instance ends now: of the run that others see.
    pub fn exit(&mut self, name: &str, code: u8) {
        self.exit_with(name, ExitStatus::Code(code));
    }

    pub fn exit_with(&mut self, name: &str, status: ExitStatus) {
        let run = self.run(name).expect("it runs");
        self.world.backend.exit(run, self.world.now, status);
        self.until(self.world.now);
    }

    pub fn view(&self, name: &str) -> InstanceView {
        self.world.machine.view(&id(name)).unwrap_or_else(|| panic!("{name} is not there"))
    }

    pub fn is_there(&self, name: &str) -> bool {
        self.world.machine.view(&id(name)).is_some()
    }

    pub fn state(&self, name: &str) -> State {
        self.view(name).state
    }

    pub fn reason(&self, name: &str) -> String {
        self.view(name).reason(self.world.now)
    }

    pub fn run(&self, name: &str) -> Option<Run> {
        self.world.machine.run_of(&id(name))
    }

    /// What came of a job; None while it is open.
    pub fn result(&self, job: JobId) -> Option<JobResult> {
        self.world.model.results.get(&job).copied()
    }

    /// The last reload that ended.
    pub fn report(&self) -> Arc<ReloadReport> {
        self.world.model.reports.last().expect("a reload ended").clone()
    }

    /// The steps of the last reload that ended, in words.
    pub fn steps(&self) -> Vec<String> {
        let steps = &self.report().steps;
        steps
            .iter()
            .map(|step| {
                let state = match &step.state {
                    StepState::Done { .. } => "done".to_owned(),
                    StepState::Held { why, .. } => format!("held: {why}"),
                    StepState::Failed { why, .. } => format!("failed: {why}"),
                    other => format!("{other:?}").to_lowercase(),
                };
                format!("{} {} {state}", step.kind.as_str(), step.instance)
            })
            .collect()
    }

    /// Forgets what was done so far.
    pub fn forget(&mut self) {
        self.done();
    }

    /// What was done since this was last asked, in order: `+api@0` started, `-api@0` asked to end,
    /// `!api@0` killed; of a run in the second slot `+api@0-b`.
    pub fn done(&mut self) -> String {
        let mut words: Vec<String> = Vec::new();
        for effect in self.log.drain(..) {
            let (sign, instance, run) = match effect {
                Effect::Spawn { instance, run, .. } => ('+', instance, run),
                Effect::Terminate { instance, run, .. } => ('-', instance, run),
                Effect::Kill { instance, run } => ('!', instance, run),
                _ => continue,
            };
            let slot = if self.second.contains(&run) { "-b" } else { "" };
            words.push(format!("{sign}{instance}{slot}"));
        }
        words.join(" ")
    }

    /// The notes since effects were last looked at, as `api@0 ready`.
    pub fn notes(&mut self) -> Vec<String> {
        let notes = self.log.drain(..).filter_map(|effect| match effect {
            Effect::Note(note) => Some(match &note.instance {
                Some(id) => format!("{id} {}", note.what.kind()),
                None => note.what.kind().to_owned(),
            }),
            _ => None,
        });
        notes.collect()
    }

    /// The last note of a kind about an instance.
    pub fn last_note(&self, name: &str, kind: &str) -> Option<What> {
        let view = self.view(name);
        view.history.iter().rev().map(|note| &note.what).find(|what| what.kind() == kind).cloned()
    }

    pub fn code(&self) -> Option<u8> {
        self.world.model.finish_code
    }
}
