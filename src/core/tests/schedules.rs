//! Random fault schedules: what may go wrong goes wrong, at any moment, and after every step the
//! invariants of `world` hold.
//!
//! Environment: `PROVOST_SCHEDULES` how many (default 300), `PROVOST_STEPS` how long each is
//! (default 500), `PROVOST_SEED` the first, or the only one where `PROVOST_SCHEDULES` is not given;
//! then its trace is printed. A failing case is shrunk for at most `PROVOST_SHRINK` seconds
//! (default 20), and printed with its seed.
#![allow(missing_docs, clippy::unwrap_used, clippy::disallowed_methods)]

mod world;

use provost_core::event::{Blocker, Event, Told, Whom};
use provost_core::ids::{Generation, InstanceId, Request, Run};
use provost_core::spec::{Config, ProcessSpec, RestartCondition, Signal};
use provost_core::time::Mono;
use provost_core::view::State;
use std::cell::Cell;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use world::backend::{Behaviour, Finding, Leftovers, Spawning, TERMINATED};
use world::chance::{self, Dice, millis};
use world::facts::{Facts, RunFacts};
use world::{Verdict, World};

/// What one step does. Each has its own chance, so that dropping some leaves the others as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The next thing happens by itself.
    Next,
    /// An answer comes before others that should come first.
    Overtaking,
    /// Time passes and nobody is told.
    Jump,
    /// The machine is woken late.
    LateTimeout,
    /// The machine is woken for nothing.
    Spurious,
    /// An answer of the past comes again.
    Again,
    /// An answer about a run that is not there.
    Stray,
    /// A main process ends.
    Crash,
    /// Processes change their mind.
    Mood,
    Start,
    Stop,
    Restart,
    Reset,
    Signal,
    Reload,
    /// Runs are to take new settings.
    Take,
    /// What somebody has watched has changed.
    Watched,
    Shutdown,
    Kill,
}

#[derive(Clone, Copy, Debug)]
struct Step {
    kind: Kind,
    chance: u64,
}

const WEIGHTS: &[(Kind, usize)] = &[
    (Kind::Next, 6000),
    (Kind::Overtaking, 500),
    (Kind::Jump, 150),
    (Kind::LateTimeout, 250),
    (Kind::Spurious, 100),
    (Kind::Again, 250),
    (Kind::Stray, 50),
    (Kind::Crash, 500),
    (Kind::Mood, 250),
    (Kind::Start, 250),
    (Kind::Stop, 250),
    (Kind::Restart, 200),
    (Kind::Reset, 60),
    (Kind::Signal, 60),
    (Kind::Reload, 400),
    (Kind::Take, 250),
    (Kind::Watched, 250),
    (Kind::Shutdown, 4),
    (Kind::Kill, 2),
];

/// A schedule: all of it is a function of the seed, unless something was left out.
#[derive(Clone, Debug)]
struct Schedule {
    seed: u64,
    processes: usize,
    /// Processes of the first configuration that are left out.
    without: BTreeSet<usize>,
    steps: Vec<Step>,
}

impl Schedule {
    fn new(seed: u64, length: usize) -> Schedule {
        let mut dice = Dice::new(seed ^ 0x5eed);
        let processes = 3 + dice.below(6);
        let total: usize = WEIGHTS.iter().map(|(_, weight)| weight).sum();
        let steps = (0..length)
            .map(|_| {
                let mut at = dice.below(total);
                let kind = WEIGHTS.iter().find(|(_, weight)| {
                    let here = at < *weight;
                    at = at.saturating_sub(*weight);
                    here
                });
                Step { kind: kind.unwrap().0, chance: dice.roll() }
            })
            .collect();
        Schedule { seed, processes, without: BTreeSet::new(), steps }
    }

    fn config(&self) -> Config {
        let mut config = chance::config(&mut Dice::new(self.seed), self.processes);
        for n in &self.without {
            config.processes.remove(&chance::name(*n));
        }
        chance::mend(&mut config);
        config
    }
}

struct Player {
    world: World,
    requests: u64,
    generation: u64,
    /// Configurations of the past, to go back to.
    past: Vec<Arc<Config>>,
    config: Arc<Config>,
    /// Answers of the past.
    history: Vec<Event>,
    /// What the behaviour of new runs is drawn from.
    chance: Rc<Cell<u64>>,
}

impl Player {
    fn new(schedule: &Schedule, deep: bool, trace: bool) -> Player {
        let mut world = World::new(schedule.seed);
        world.deep = deep;
        world.trace = trace.then(String::new);
        world.told = deep.then(Vec::new);
        world.judges = schedule.seed.is_multiple_of(2);
        let chance = Rc::new(Cell::new(schedule.seed));
        let source = chance.clone();
        world.backend.nature = Some(Box::new(move |spec: &ProcessSpec, run: Run| {
            let mut dice = Dice::new(source.get() ^ run.0.wrapping_mul(0x9E37_79B9));
            chance::behaviour(&mut dice, ends(spec))
        }));
        let config = Arc::new(schedule.config());
        Player {
            world,
            requests: 0,
            generation: 0,
            past: Vec::new(),
            config,
            history: Vec::new(),
            chance,
        }
    }

    fn request(&mut self) -> Request {
        self.requests += 1;
        Request(self.requests)
    }

    fn reload(&mut self, config: Arc<Config>) -> Verdict {
        self.generation += 1;
        let old = std::mem::replace(&mut self.config, config.clone());
        self.past.push(old);
        let request = self.request();
        let generation = Generation(self.generation);
        self.world.feed(Event::ConfigAccepted { request, config, generation })
    }

    /// Some instances, mostly those that there are.
    fn some(&self, dice: &mut Dice) -> Vec<InstanceId> {
        let all: Vec<InstanceId> = self.world.model.instances.keys().cloned().collect();
        (0..=dice.below(3) / 2)
            .map(|_| match all.len() {
                0 => chance::name(0).instance(0),
                _ if dice.chance(20) => chance::name(dice.below(9)).instance(7),
                n => all[dice.below(n)].clone(),
            })
            .collect()
    }

    fn deliver(&mut self, nth: usize) -> Verdict {
        if let Some(event) = self.world.backend.take(nth) {
            if self.history.len() > 60 {
                self.history.clear();
            }
            self.history.push(event.clone());
            self.world.feed(event)?;
        }
        Ok(())
    }

    fn next(&mut self, timeout_first: bool) -> Verdict {
        let Some(due) = self.world.next_due() else { return Ok(()) };
        self.world.now = self.world.now.max(due);
        let timeout = self.world.poll_timeout().is_some_and(|at| at <= self.world.now);
        let answer = self.world.backend.next_due().is_some_and(|at| at <= self.world.now);
        if timeout && (timeout_first || !answer) { self.world.tick() } else { self.deliver(0) }
    }

    fn step(&mut self, step: Step) -> Verdict {
        self.chance.set(step.chance);
        let mut dice = Dice::new(step.chance);
        match step.kind {
            Kind::Next => self.next(dice.chance(500)),
            Kind::Overtaking => self.deliver(dice.below(4)),
            Kind::Jump => {
                let span = millis(dice.pick(&[1, 100, 2_000, 20_000, 600_000]));
                self.world.now = self.world.now.after(span);
                Ok(())
            }
            Kind::LateTimeout => {
                let late = millis(dice.pick(&[0, 1, 3_000, 100_000]));
                if let Some(at) = self.world.poll_timeout() {
                    self.world.now = self.world.now.max(at.after(late));
                }
                self.world.tick()
            }
            Kind::Spurious => self.world.tick(),
            Kind::Again => match self.history.len() {
                0 => Ok(()),
                n => {
                    let event = self.history[dice.below(n)].clone();
                    self.world.feed(event)
                }
            },
            Kind::Stray => self.stray(&mut dice),
            Kind::Crash => {
                let alive: Vec<Run> = self.world.backend.alive().map(|(run, _)| run).collect();
                if !alive.is_empty() {
                    let status = chance::behaviour(&mut dice, true).life.unwrap().1;
                    let run = alive[dice.below(alive.len())];
                    self.world.backend.exit(run, self.world.now, status);
                }
                Ok(())
            }
            Kind::Mood => {
                let alive: Vec<Run> = self.world.backend.alive().map(|(run, _)| run).collect();
                for run in alive {
                    let finding = chance::finding(&mut dice);
                    self.world.backend.change(run, |behaviour| behaviour.finding = finding);
                }
                Ok(())
            }
            Kind::Start => {
                let (instances, once) = (self.some(&mut dice), dice.chance(300));
                let request = self.request();
                self.world.feed(Event::StartRequested { request, instances, once })
            }
            Kind::Stop => {
                let (request, instances) = (self.request(), self.some(&mut dice));
                self.world.feed(Event::StopRequested { request, instances })
            }
            Kind::Restart => {
                let (request, mut instances) = (self.request(), self.some(&mut dice));
                if dice.chance(500) {
                    let process = instances[0].process.clone();
                    let all = self.world.model.instances_of(&process).map(|(id, _)| id.clone());
                    instances = all.chain([instances[0].clone()]).collect();
                }
                self.world.feed(Event::RestartRequested { request, instances })
            }
            Kind::Reset => {
                let (request, instances) = (self.request(), self.some(&mut dice));
                self.world.feed(Event::ResetFailedRequested { request, instances })
            }
            Kind::Signal => {
                let (request, instance) = (self.request(), self.some(&mut dice)[0].clone());
                let whom = dice.pick(&[Whom::Main, Whom::All]);
                self.world.feed(Event::SignalRequested {
                    request,
                    instance,
                    signal: Signal(1),
                    whom,
                })
            }
            Kind::Reload => {
                let config = match dice.below(10) {
                    0 => self.config.clone(),
                    1 | 2 if !self.past.is_empty() => {
                        self.past[dice.below(self.past.len())].clone()
                    }
                    _ => {
                        let mut config = Config::clone(&self.config);
                        chance::edit(&mut dice, &mut config);
                        Arc::new(config)
                    }
                };
                self.reload(config)
            }
            Kind::Take => {
                let (request, mut instances) = (self.request(), self.some(&mut dice));
                // Mostly what can be, or nearly all would be refused.
                if dice.chance(800) {
                    let takes = |run: &RunFacts| run.spec.reload.is_some() && run.ready;
                    let all = self.world.model.instances.iter();
                    let all = all.filter(|(_, facts)| facts.run.as_ref().is_some_and(takes));
                    let all: Vec<InstanceId> = all.map(|(id, _)| id.clone()).collect();
                    if !all.is_empty() {
                        instances = vec![all[dice.below(all.len())].clone()];
                    }
                }
                self.world.feed(Event::ReloadRequested { request, instances })
            }
            Kind::Watched => {
                let instance = self.some(&mut dice)[0].clone();
                self.world.feed(Event::WatchedChanged { instance, path: "/x/y".into() })
            }
            Kind::Shutdown => self.world.feed(Event::ShutdownRequested),
            Kind::Kill => self.world.feed(Event::KillRequested),
        }
    }

    fn stray(&mut self, dice: &mut Dice) -> Verdict {
        let instance = self.some(dice)[0].clone();
        let run = Run(dice.pick(&[0, 1, 999_999]));
        let current = self.world.machine.run_of(&instance);
        if let Some(run) = current.filter(|_| dice.chance(500)) {
            return self.world.feed(Event::Outgrown { instance, run, used: 5 << 20 });
        }
        let is_former =
            |facts: &Facts| facts.former.as_ref().is_some_and(|former| former.run == run);
        let facts = self.world.model.instances.get(&instance);
        if current == Some(run) || facts.is_some_and(is_former) {
            return Ok(());
        }
        let before = self.world.machine.view(&instance);
        self.world.feed_one(match dice.below(7) {
            5 => Event::Reloaded {
                instance: instance.clone(),
                run,
                reload: provost_core::ids::ReloadId(1),
                outcome: Ok(()),
            },
            4 => Event::Outgrown { instance: instance.clone(), run, used: 5 << 20 },
            0 => Event::Spawned { instance: instance.clone(), run, pid: 1 },
            1 => Event::Exited {
                instance: instance.clone(),
                run,
                status: provost_core::event::ExitStatus::Code(0),
            },
            2 => Event::Emptied { instance: instance.clone(), run },
            3 => Event::Notified {
                instance: instance.clone(),
                run,
                told: [Told::Ready, Told::Alive, Told::Trouble][dice.below(3)].clone(),
            },
            _ => Event::Probed {
                instance: instance.clone(),
                run,
                probe: provost_core::ids::ProbeId(1),
                outcome: Ok(()),
            },
        })?;
        hold!(self.world.effects.is_empty(), "an answer about nothing did something");
        hold!(
            before == self.world.machine.view(&instance),
            "an answer about nothing did something"
        );
        Ok(())
    }

    /// All goes well from now on: everything comes to rest, and is as the file says.
    fn drain(&mut self) -> Verdict {
        let benign = move |one_shot: bool| Behaviour {
            spawn: Spawning::Works(millis(1)),
            life: one_shot.then(|| (millis(3), provost_core::event::ExitStatus::Code(0))),
            term: Some((millis(1), TERMINATED)),
            leftovers: Leftovers::Nothing,
            immune: 0,
            reap: Duration::ZERO,
            finding: Finding::Healthy,
            probe: Duration::ZERO,
        };
        let alive: Vec<Run> = self.world.backend.alive().map(|(run, _)| run).collect();
        for run in alive {
            self.world.backend.change(run, |behaviour| {
                behaviour.finding = Finding::Healthy;
                behaviour.immune = 0;
                behaviour.probe = Duration::ZERO;
            });
        }
        self.end_one_shots();
        self.world.backend.nature = Some(Box::new(move |spec: &ProcessSpec, _| benign(ends(spec))));
        for _ in 0..4_000 {
            if self.at_rest() {
                return self.rest_is_right();
            }
            let generation = self.world.machine.generation();
            self.next(true)?;
            if self.world.machine.generation() != generation {
                // What was to run on may be to end by the configuration that is in force again.
                self.end_one_shots();
            }
        }
        Err(format!("it does not come to rest: {}", self.describe()))
    }

    /// What is there and ends by itself where all goes well does so now.
    fn end_one_shots(&mut self) {
        let spec = |id: &InstanceId| self.world.model.spec_of(&id.process);
        let ends = |id: &InstanceId| spec(id).is_some_and(|spec| ends(spec));
        let alive = self.world.backend.alive().filter(|(_, id)| ends(id));
        let alive: Vec<Run> = alive.map(|(run, _)| run).collect();
        for run in alive {
            let status = provost_core::event::ExitStatus::Code(0);
            self.world.backend.exit(run, self.world.now, status);
        }
    }

    fn describe(&self) -> String {
        let states = self.world.model.instances.iter().map(|(id, facts)| {
            format!("{id} {:?} {} {:?}", facts.view.state, facts.view.sub_state, facts.view.job)
        });
        let steps = self.world.machine.reload_steps();
        format!("{:?}; {steps:?}; {:?}", states.collect::<Vec<_>>(), self.world.trial)
    }

    fn at_rest(&self) -> bool {
        let answers = self.world.backend.pending().any(|(_, e)| !matches!(e, Event::Probed { .. }));
        !answers
            && self.world.trial.is_none()
            && self.world.model.reload.is_none()
            && self.world.model.instances.values().all(|facts| {
                let busy =
                    matches!(facts.view.state, State::Starting | State::Stopping | State::Backoff);
                let settled = facts
                    .run
                    .as_ref()
                    .is_none_or(|run| run.spec.health.is_none() || run.health.healthy);
                // A new run that waits for what will not come is beside one that serves.
                let stuck = facts.view.blockers.iter().any(Blocker::is_final);
                let rests = facts.view.sub_state.is_empty()
                    || (stuck && facts.view.sub_state == "overlapping");
                !busy && facts.job.is_none() && rests && settled
            })
    }

    fn rest_is_right(&self) -> Verdict {
        let model = &self.world.model;
        hold!(model.instances.values().all(|facts| facts.job.is_none()), "jobs are left");
        for (id, facts) in &model.instances {
            let view = &facts.view;
            if view.state == State::Waiting || !view.blockers.is_empty() {
                let lasting = view.blockers.iter().any(Blocker::is_final);
                hold!(lasting, "{id} waits for what does not come: {}", view.reason(Mono(0)));
            }
            if let Some(run) = &facts.run {
                hold!(facts.up, "{id} runs and should not");
                let spec = &model.config.processes[&id.process];
                let mut others = model.instances_of(&id.process);
                let refused = |id: &InstanceId| {
                    self.world.machine.snapshot(id).is_some_and(|kept| kept.refused.is_some())
                };
                let behind = others.any(|(id, other)| {
                    let waits = matches!(other.view.state, State::Failed | State::Waiting);
                    waits || !other.view.blockers.is_empty() || refused(id)
                });
                if behind && view.needs_restart {
                    // One that had its turn has not come back, and will not by itself.
                    continue;
                }
                hold!(run.spec == *spec, "{id} runs something else than the file says");
                hold!(!view.needs_restart, "{id} is to be restarted, and is not");
            }
        }
        Ok(())
    }

    fn end(&mut self) -> Verdict {
        self.world.feed(Event::ShutdownRequested)?;
        for _ in 0..2_000 {
            if self.world.model.finished > 0 {
                hold!(self.world.machine.poll_timeout().is_none(), "a deadline is left");
                hold!(self.world.backend.anything() == 0, "something is left");
                return Ok(());
            }
            self.next(true)?;
        }
        Err(format!("the shutdown does not end: {}", self.describe()))
    }

    fn play(&mut self, schedule: &Schedule) -> Verdict {
        self.reload(self.config.clone())?;
        for step in &schedule.steps {
            self.step(*step)?;
        }
        if !self.world.model.ending {
            self.drain()?;
        }
        self.end()?;
        if let Some(told) = &self.world.told {
            let again = world::replay(schedule.seed, told);
            hold!(again == self.world.fingerprint, "told the same, it did something else");
        }
        Ok(())
    }
}

/// Whether a process of this kind ends by itself where all goes well.
fn ends(spec: &ProcessSpec) -> bool {
    matches!(spec.restart.condition, RestartCondition::No | RestartCondition::OnFailure)
}

/// Plays one schedule; the error and the trace, when there is one.
fn run(schedule: &Schedule, deep: bool, trace: bool) -> Result<(), (String, String)> {
    let mut player = Player::new(schedule, deep, trace);
    let result = catch_unwind(AssertUnwindSafe(|| player.play(schedule)));
    let trace = player.world.trace.take().unwrap_or_default();
    match result {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err((error, trace)),
        Err(panic) => {
            let text = panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string))
                .unwrap_or_default();
            Err((format!("it panicked: {text}"), trace))
        }
    }
}

/// Leaves out what is not needed for the failure.
fn shrink(mut schedule: Schedule) -> Schedule {
    let fails = |schedule: &Schedule| run(schedule, true, false).is_err();
    // What comes after the failure is not needed, nor what comes long before it.
    let mut size = schedule.steps.len() / 2;
    // Shrinking is a help, and should not take longer than reading.
    let started = std::time::Instant::now();
    let limit = Duration::from_secs(number("PROVOST_SHRINK").unwrap_or(20));
    let enough = || started.elapsed() >= limit;
    while size > 0 && !enough() {
        let mut at = 0;
        let mut any = false;
        while at < schedule.steps.len() && !enough() {
            let mut less = schedule.clone();
            less.steps.drain(at..(at + size).min(schedule.steps.len()));
            if fails(&less) {
                schedule = less;
                any = true;
            } else {
                at += size;
            }
        }
        if !any || size > 1 {
            size /= 2;
        }
    }
    for n in (0..schedule.processes).filter(|_| !enough()) {
        let mut less = schedule.clone();
        less.without.insert(n);
        if fails(&less) {
            schedule = less;
        }
    }
    schedule
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn whatever_happens_the_invariants_hold() {
    let first = number("PROVOST_SEED");
    let count = number("PROVOST_SCHEDULES").unwrap_or(if first.is_some() { 1 } else { 300 });
    let length = usize::try_from(number("PROVOST_STEPS").unwrap_or(500)).unwrap();
    let first = first.unwrap_or(1);
    std::panic::set_hook(Box::new(|_| {}));
    let next = AtomicU64::new(first);
    let failed = AtomicU64::new(u64::MAX);
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(4);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count || seed > failed.load(Ordering::Relaxed) {
                        return;
                    }
                    let deep = count < 1_000 || seed.is_multiple_of(20);
                    if run(&Schedule::new(seed, length), deep, false).is_err() {
                        failed.fetch_min(seed, Ordering::Relaxed);
                        return;
                    }
                }
            });
        }
    });
    let failed = failed.into_inner();
    if failed == u64::MAX {
        let _ = std::panic::take_hook();
        return;
    }
    let schedule = shrink(Schedule::new(failed, length));
    let (error, trace) = match run(&schedule, true, true) {
        Err(told) => told,
        Ok(()) => run(&Schedule::new(failed, length), false, true).expect_err("it failed before"),
    };
    let _ = std::panic::take_hook();
    panic!(
        "seed {failed}: {error}\n\nwhat happened:\n{trace}\n\
         replay: PROVOST_SEED={failed} cargo test -p provost-core --test schedules"
    );
}
