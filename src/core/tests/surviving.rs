//! A supervisor that is killed at any moment, and the next one, which goes on with what was kept.
//!
//! The simulated processes live on. A supervisor is killed between two turns; within one before its
//! snapshots are written, when only some of them are, or when they are and only some of what it
//! decided was carried out. `PROVOST_SEED` plays one life alone.
#![allow(missing_docs, clippy::unwrap_used, clippy::disallowed_methods)]

mod world;

use provost_core::Machine;
use provost_core::event::{Effect, Event, Note, StopReason, What};
use provost_core::ids::{Generation, InstanceId, Request, Run, Slot};
use provost_core::snapshot::{InstanceSnapshot, Restored, Stopped};
use provost_core::spec::{Config, ProcessSpec, RestartCondition};
use provost_core::time::Mono;
use provost_core::view::State;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use world::backend::{Backend, Behaviour, Finding};
use world::chance::{self, Dice, millis};

/// Where a supervisor is killed within a turn.
#[derive(Clone, Copy, Debug)]
enum Killed {
    /// When it has written so many of its snapshots.
    Writing(usize),
    /// When it has carried out so much of what it decided.
    Acting(usize),
}

struct Life {
    machine: Machine,
    backend: Backend,
    /// What is on disk.
    kept: BTreeMap<InstanceId, String>,
    now: Mono,
    config: Arc<Config>,
    generation: u64,
    requests: u64,
    seed: u64,
    traced: bool,
    lives: u64,
    /// The next turn is the last.
    kill: Option<Killed>,
    /// Ends of one-shots with success that were written down: instance and spec.
    completed: BTreeMap<InstanceId, Arc<provost_core::spec::ProcessSpec>>,
    /// What operators said last, as far as it was written down.
    stopped: BTreeSet<InstanceId>,
    chance: Rc<Cell<u64>>,
    /// Where each run was started.
    slots: BTreeMap<Run, Slot>,
    /// Runs that were ready at some time.
    ready: BTreeSet<Run>,
    /// Runs that were asked to end, or did.
    asked: BTreeSet<Run>,
    /// Why.
    why: BTreeMap<Run, StopReason>,
    /// How often a run began beside one that served.
    overlaps: u64,
}

impl Life {
    fn new(seed: u64) -> Life {
        let chance = Rc::new(Cell::new(seed));
        let source = chance.clone();
        let mut backend = Backend::default();
        backend.nature = Some(Box::new(move |_: &ProcessSpec, run: Run| {
            let mut dice = Dice::new(source.get() ^ run.0.wrapping_mul(0x9E37_79B9));
            let one_shot = dice.chance(200);
            chance::behaviour(&mut dice, one_shot)
        }));
        Life {
            machine: Machine::new(seed),
            backend,
            kept: BTreeMap::new(),
            now: Mono(1_000_000_000),
            config: Arc::default(),
            generation: 0,
            requests: 0,
            seed,
            traced: std::env::var_os("PROVOST_SEED").is_some(),
            lives: 0,
            kill: None,
            completed: BTreeMap::new(),
            stopped: BTreeSet::new(),
            chance,
            slots: BTreeMap::new(),
            ready: BTreeSet::new(),
            asked: BTreeSet::new(),
            why: BTreeMap::new(),
            overlaps: 0,
        }
    }

    fn request(&mut self) -> Request {
        self.requests += 1;
        Request(self.requests)
    }

    /// One turn. False: it was the last of this life.
    fn turn(&mut self, event: Option<Event>) -> bool {
        let mut out = Vec::new();
        self.trace(|| format!("{event:?}"));
        match event {
            Some(event) => self.machine.handle(event, self.now, &mut out),
            None => self.machine.handle_timeout(self.now, &mut out),
        }
        self.finish(out)
    }

    /// Snapshots first, then what was decided.
    fn finish(&mut self, out: Vec<Effect>) -> bool {
        let kill = self.kill.take();
        for (n, id) in self.machine.take_unsaved().into_iter().enumerate() {
            if matches!(kill, Some(Killed::Writing(at)) if n == at) {
                return false;
            }
            self.write(&id);
        }
        // Whoever is killed in between has written it down, and not said it.
        for effect in &out {
            self.listen(effect);
        }
        for (n, effect) in out.iter().enumerate() {
            if matches!(kill, Some(Killed::Acting(at)) if n == at) {
                return false;
            }
            self.carry_out(effect);
        }
        kill.is_none()
    }

    fn write(&mut self, id: &InstanceId) {
        match self.machine.snapshot(id) {
            None => {
                self.kept.remove(id);
                self.completed.remove(id);
                self.stopped.remove(id);
            }
            Some(snapshot) => {
                if snapshot.wanted || snapshot.removed {
                    self.stopped.remove(id);
                } else {
                    self.stopped.insert(id.clone());
                }
                let view = self.machine.view(id).unwrap();
                if view.state == State::Completed {
                    self.completed.insert(id.clone(), view.spec);
                } else {
                    self.completed.remove(id);
                }
                self.kept.insert(id.clone(), serde_json::to_string(&snapshot).unwrap());
            }
        }
    }

    /// Says what happens, where one life is played alone.
    fn trace(&self, what: impl FnOnce() -> String) {
        if self.traced {
            println!("{:>14}  {:.300}", self.now.0, what());
        }
    }

    /// Takes in what is said of runs.
    fn listen(&mut self, effect: &Effect) {
        if let Effect::Note(note) = effect
            && let Note { run: Some(run), what, .. } = &**note
        {
            match what {
                What::Ready { .. } => drop(self.ready.insert(*run)),
                What::Stopping { why } => drop(self.why.insert(*run, why.clone())),
                What::Exited { .. } => drop(self.asked.insert(*run)),
                _ => {}
            }
        }
    }

    fn carry_out(&mut self, effect: &Effect) {
        self.trace(|| format!("  -> {effect:?}"));
        if let Effect::Spawn { instance, run, slot, spec, .. } = effect {
            let others: Vec<Run> = self
                .backend
                .instances()
                .filter(|(id, _)| *id == instance)
                .map(|(_, r)| r)
                .collect();
            for other in others {
                let (is_ready, is_asked) =
                    (self.ready.contains(&other), self.asked.contains(&other));
                let right = spec.overlap && self.slots[&other] != *slot && (is_ready || is_asked);
                assert!(right, "{instance}: run {run} beside {other}");
                self.overlaps += u64::from(!is_asked);
            }
            self.slots.insert(*run, *slot);
            let count = self.backend.instances().filter(|(id, _)| *id == instance).count();
            assert!(count < 2, "{instance}: {run} is the third");
            let kept: InstanceSnapshot = serde_json::from_str(&self.kept[instance]).unwrap();
            assert_eq!(kept.run().map(|run| run.run), Some(*run), "{instance} is not written down");
        }
        if let Effect::Terminate { instance, run, .. } = effect
            && self.asked.insert(*run)
        {
            let newer = self.backend.instances().filter(|(id, r)| *id == instance && r > run);
            for (_, newer) in newer {
                let in_turn =
                    matches!(self.why.get(run), Some(StopReason::Changed | StopReason::Restart));
                let early = in_turn && !self.ready.contains(&newer);
                assert!(!early, "{instance}: run {run} is ended before {newer} is ready");
            }
        }
        self.backend.carry_out(effect, self.now);
    }

    /// The next supervisor, some time later.
    fn again(&mut self, dice: &mut Dice) {
        self.lives += 1;
        self.trace(|| "killed".to_owned());
        let away = millis(dice.pick(&[0, 1, 50, 2_000, 30_000]));
        let again = self.now.after(away);
        let there = self.backend.killed(self.now, again, || dice.chance(500));
        self.now = again;
        let instances: BTreeMap<InstanceId, InstanceSnapshot> = self
            .kept
            .iter()
            .map(|(id, text)| (id.clone(), serde_json::from_str(text).unwrap()))
            .collect();
        let known: BTreeSet<(InstanceId, Run)> = instances
            .iter()
            .flat_map(|(id, kept)| kept.runs().map(|run| (id.clone(), run.run)))
            .collect();
        // That it is ready may be written down and not said.
        let runs = instances.values().flat_map(InstanceSnapshot::runs);
        self.ready.extend(runs.filter(|run| run.ready.is_some()).map(|run| run.run));
        assert!(there.is_subset(&known), "{there:?} are there, and known are {known:?}");
        self.machine = Machine::new(self.seed ^ self.lives);
        let generation = instances.values().map(InstanceSnapshot::file_generation).max();
        let restored = Restored {
            generation: generation.unwrap_or_default(),
            settings: self.config.settings.clone(),
            instances,
            there,
            stopped: Stopped::default(),
        };
        let mut out = Vec::new();
        self.machine.restore(restored, self.now, &mut out);
        assert!(self.finish(out));
    }

    fn accept(&mut self, config: Arc<Config>) -> bool {
        self.generation = self.machine.generation().0 + 1;
        self.config = config.clone();
        let request = self.request();
        let generation = Generation(self.generation);
        self.turn(Some(Event::ConfigAccepted { request, config, generation }))
    }

    fn next(&mut self) -> bool {
        let due = match (self.backend.next_due(), self.machine.poll_timeout()) {
            (Some(a), Some(b)) => a.min(b),
            (Some(a), None) | (None, Some(a)) => a,
            (None, None) => return true,
        };
        self.now = self.now.max(due);
        if self.machine.poll_timeout().is_some_and(|at| at <= self.now) {
            return self.turn(None);
        }
        let event = self.backend.take(0).unwrap();
        self.turn(Some(event))
    }

    fn command(&mut self, dice: &mut Dice) -> bool {
        let all: Vec<InstanceId> = self.machine.instances().cloned().collect();
        if all.is_empty() {
            return true;
        }
        let (request, mut instances) = (self.request(), vec![all[dice.below(all.len())].clone()]);
        if dice.chance(300) {
            let process = instances[0].process.clone();
            instances = all.into_iter().filter(|id| id.process == process).collect();
        }
        self.turn(Some(match dice.below(4) {
            0 => Event::StartRequested { request, instances, once: dice.chance(200) },
            1 => Event::StopRequested { request, instances },
            2 => Event::RestartRequested { request, instances },
            _ => Event::ResetFailedRequested { request, instances },
        }))
    }

    /// What runs and is as it should be.
    fn settled(&self) -> BTreeMap<InstanceId, Run> {
        let ids = self.machine.instances();
        let views = ids.filter_map(|id| self.machine.view(id));
        views
            .filter(|view| view.state == State::Running && view.sub_state.is_empty())
            .filter(|view| !view.needs_restart && view.job.is_none())
            .filter_map(|view| Some((view.id.clone(), view.run?)))
            .collect()
    }

    fn describe(&self) -> String {
        let views = self.machine.instances().filter_map(|id| self.machine.view(id));
        let brief =
            views.map(|v| format!("{} {:?} {} {:?}", v.id, v.state, v.sub_state, v.blockers));
        format!("{:?}; {:?}", brief.collect::<Vec<_>>(), self.machine.reload_steps())
    }

    /// Nothing moves: what runs is what the machine knows of, and what should run does.
    fn check_rest(&mut self) {
        self.backend.nature = Some(Box::new(|_: &ProcessSpec, _| Behaviour::default()));
        let alive: Vec<Run> = self.backend.instances().map(|(_, run)| run).collect();
        for run in alive {
            self.backend.change(run, |behaviour| {
                *behaviour = Behaviour { leftovers: behaviour.leftovers, ..Behaviour::default() };
                behaviour.finding = Finding::Healthy;
            });
        }
        for _ in 0..3_000 {
            assert!(self.next());
            let busy = self.machine.instances().any(|id| {
                let view = self.machine.view(id).unwrap();
                let state = view.state;
                matches!(state, State::Starting | State::Stopping | State::Backoff)
                    || !view.sub_state.is_empty()
            });
            if !busy && self.machine.reload_steps().is_none() {
                break;
            }
        }
        let runs: BTreeSet<(InstanceId, Run)> =
            self.backend.instances().map(|(id, run)| (id.clone(), run)).collect();
        let known: BTreeSet<(InstanceId, Run)> = self
            .machine
            .instances()
            .filter_map(|id| Some((id.clone(), self.machine.run_of(id)?)))
            .collect();
        assert_eq!(runs, known, "what runs and what is known");
        for (id, run) in &known {
            let view = self.machine.view(id).unwrap();
            assert!(view.wanted && (view.enabled || view.once), "{id} run {run} should not run");
            let file = self.config.processes.get(&id.process).expect("it is in the file");
            assert!(id.index < file.instances && view.spec == *file, "{id}: {view:?}");
            // Its turn comes after another instance that waits for a one-shot.
            let turn_comes = self.machine.reload_steps().is_some();
            // Or after one that had its turn and failed for good.
            let mut all = self.machine.instances().filter(|other| other.process == id.process);
            let behind = all.any(|other| {
                let view = self.machine.view(other).unwrap();
                let waits = !view.blockers.is_empty();
                let refused = self.machine.snapshot(other).is_some_and(|s| s.refused.is_some());
                matches!(view.state, State::Failed) || waits || refused
            });
            let old = view.needs_restart && !turn_comes && !behind;
            assert!(!old, "{id} runs what the file had before: {}", self.describe());
        }
        let wished = self.config.processes.values().filter(|spec| spec.enabled);
        for spec in wished.filter(|_| self.config.settings.enabled) {
            for index in 0..spec.instances {
                let id = spec.id.instance(index);
                let view = self.machine.view(&id).expect("what the file has is there");
                let down = view.state == State::Down;
                assert!(!(down && view.wanted), "{id} is down: {view:?}");
            }
        }
    }
}

/// Returns how often a run began beside one that served.
fn play(seed: u64) -> u64 {
    let mut dice = Dice::new(seed);
    let mut life = Life::new(seed);
    let count = 1 + dice.below(6);
    let mut config = chance::config(&mut dice, count);
    for spec in config.processes.values_mut() {
        Arc::make_mut(spec).essential = false;
    }
    chance::mend(&mut config);
    assert!(life.accept(Arc::new(config)));
    for _ in 0..6 {
        for _ in 0..dice.below(40) {
            life.chance.set(dice.roll());
            let goes_on = match dice.below(20) {
                0 => {
                    let mut config = Config::clone(&life.config);
                    chance::edit(&mut dice, &mut config);
                    for spec in config.processes.values_mut() {
                        Arc::make_mut(spec).essential = false;
                    }
                    life.accept(Arc::new(config))
                }
                1 | 2 => life.command(&mut dice),
                _ => life.next(),
            };
            assert!(goes_on);
        }
        let before = life.settled();
        let (stopped, completed) = (life.stopped.clone(), life.completed.clone());
        let between = dice.chance(400);
        if !between {
            life.kill = Some(match dice.below(2) {
                0 => Killed::Writing(dice.below(3)),
                _ => Killed::Acting(dice.below(4)),
            });
            let _ = match dice.below(4) {
                0 => life.command(&mut dice),
                1 => {
                    let mut config = Config::clone(&life.config);
                    chance::edit(&mut dice, &mut config);
                    for spec in config.processes.values_mut() {
                        Arc::make_mut(spec).essential = false;
                    }
                    life.accept(Arc::new(config))
                }
                _ => life.next(),
            };
            life.kill = None;
        }
        life.again(&mut dice);
        if dice.chance(100) {
            // The file is broken when the supervisor comes back, and mended later.
            assert!(life.turn(Some(Event::ConfigUnusable)));
            for _ in 0..dice.below(10) {
                assert!(life.next());
            }
        }
        if between {
            kept_as_they_were(&life, &before);
        }
        let config = life.config.clone();
        assert!(life.accept(config));
        if between {
            kept_as_they_were(&life, &before);
            for id in &stopped {
                let view = life.machine.view(id).expect("what was stopped is still there");
                assert!(!view.wanted, "{id} was stopped and is wanted again");
            }
            for (id, spec) in &completed {
                let view = life.machine.view(id).expect("what was completed is still there");
                assert!(
                    view.state == State::Completed || view.spec != *spec,
                    "{id} did its work and is {:?}",
                    view.state
                );
            }
        }
    }
    life.check_rest();
    life.overlaps
}

/// What was as it should be, and has not ended by itself, goes on in the same run.
fn kept_as_they_were(life: &Life, before: &BTreeMap<InstanceId, Run>) {
    let there: BTreeMap<&InstanceId, Run> = life.backend.instances().collect();
    for (id, run) in before {
        if there.get(id) != Some(run) {
            continue;
        }
        let view = life.machine.view(id).expect("what ran is still known");
        assert_eq!(view.run, Some(*run), "{id}");
    }
}

#[test]
fn whatever_it_was_doing_when_it_was_killed() {
    if let Ok(seed) = std::env::var("PROVOST_SEED") {
        play(seed.parse().unwrap());
        return;
    }
    let lives = std::env::var("PROVOST_SCHEDULES").map_or(150, |n| n.parse().unwrap());
    let mut overlaps = 0;
    for seed in 0..lives {
        let played = std::panic::catch_unwind(|| play(seed));
        overlaps += played.unwrap_or_else(|_| panic!("PROVOST_SEED={seed}"));
    }
    assert!(overlaps > lives / 10, "only {overlaps} overlaps in {lives} lives");
}

#[test]
fn only_unless_stopped_is_remembered_over_a_reboot() {
    let mut dice = Dice::new(1);
    let mut config = chance::config(&mut dice, 2);
    config.settings = provost_core::spec::Settings::default();
    for (n, spec) in config.processes.values_mut().enumerate() {
        let spec = Arc::make_mut(spec);
        (spec.enabled, spec.instances, spec.depends_on) = (true, 1, Vec::new());
        let policies = [RestartCondition::Always, RestartCondition::UnlessStopped];
        spec.restart.condition = policies[n];
    }
    let ids: Vec<InstanceId> = config.processes.keys().map(|id| id.instance(0)).collect();
    for before_reboot in [true, false] {
        let instances = ids.iter().cloned().collect();
        let stopped = Stopped { instances, before_reboot };
        let mut machine = Machine::new(1);
        let mut out = Vec::new();
        machine.restore(Restored { stopped, ..Restored::default() }, Mono(1), &mut out);
        let (config, request) = (Arc::new(config.clone()), Request(1));
        let event = Event::ConfigAccepted { request, config, generation: Generation(1) };
        machine.handle(event, Mono(1), &mut out);
        let wanted: Vec<bool> = ids.iter().map(|id| machine.view(id).unwrap().wanted).collect();
        assert_eq!(wanted, [before_reboot, false]);
    }
}

/// What was remembered of an instance is forgotten when the file has it no more: also what the daemon
/// before had kept of it.
#[test]
fn a_stop_of_before_holds_until_the_instance_is_gone() {
    let mut config = chance::config(&mut Dice::new(1), 1);
    config.settings = provost_core::spec::Settings::default();
    let spec = Arc::make_mut(config.processes.values_mut().next().unwrap());
    (spec.enabled, spec.instances, spec.depends_on) = (true, 1, Vec::new());
    let id = config.processes.keys().next().unwrap().instance(0);
    let without = Config { processes: BTreeMap::new(), ..config.clone() };
    for is_known in [false, true] {
        let (mut machine, mut out) = (Machine::new(1), Vec::new());
        let mut generation = 0;
        let mut apply = |machine: &mut Machine, config: &Config| {
            generation += 1;
            let (config, request) = (Arc::new(config.clone()), Request(1));
            let event =
                Event::ConfigAccepted { request, config, generation: Generation(generation) };
            machine.handle(event, Mono(1), &mut Vec::new());
            machine.view(&id).map(|view| view.wanted)
        };
        let stopped = Stopped { instances: [id.clone()].into(), before_reboot: false };
        let mut restored = Restored { stopped, ..Restored::default() };
        if is_known {
            let mut other = Machine::new(1);
            apply(&mut other, &config);
            other.handle(
                Event::StopRequested { request: Request(2), instances: vec![id.clone()] },
                Mono(1),
                &mut out,
            );
            restored.instances.insert(id.clone(), other.snapshot(&id).unwrap());
        }
        machine.restore(restored, Mono(1), &mut out);
        assert_eq!(apply(&mut machine, &config), Some(false), "{is_known}");
        assert_eq!(apply(&mut machine, &without), None, "{is_known}");
        assert_eq!(apply(&mut machine, &config), Some(true), "{is_known}");
    }
}
