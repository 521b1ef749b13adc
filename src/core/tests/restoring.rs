//! What was kept is what the next supervisor goes on with: each fact of it, one at a time.
//!
//! `surviving.rs` plays whole lives; here a machine is filled by hand and looked at.
#![allow(missing_docs, clippy::unwrap_used, clippy::disallowed_methods)]

mod world;

use provost_core::Machine;
use provost_core::event::{
    Blocker, Effect, Event, ExitStatus, FailReason, RunEnd, StopReason, What,
};
use provost_core::health::Health;
use provost_core::ids::{Generation, InstanceId, ProcessId, Request, Run};
use provost_core::snapshot::{InstanceSnapshot, PhaseSnapshot, Restored, RunSnapshot};
use provost_core::spec::{Check, Config, HealthCheck, OnFailure, ProcessSpec, Settings, Text};
use provost_core::time::Mono;
use provost_core::view::State;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use world::dsl::{Process, id, process, secs};

const NOW: Mono = Mono(1_000_000_000_000);

fn ago(seconds: u64) -> Mono {
    Mono(NOW.0 - seconds * 1_000_000_000)
}

/// A run that has been ready for a minute.
fn run(number: u64) -> RunSnapshot {
    RunSnapshot {
        run: Run(number),
        generation: Generation(3),
        pid: Some(1000 + u32::try_from(number).unwrap()),
        asked: ago(62),
        started: Some(ago(61)),
        ready: Some(ago(60)),
        stable_since: Some(ago(60)),
        health: Health::new(false),
        told_ready: false,
        status: None,
        exit: None,
    }
}

fn kept(process: &Process, phase: PhaseSnapshot) -> InstanceSnapshot {
    InstanceSnapshot {
        spec: Arc::new(process.0.clone()),
        generation: Generation(3),
        next: None,
        wanted: true,
        once: false,
        removed: false,
        attempt: 0,
        restarts: 0,
        last_exit: None,
        last_end: None,
        restart_due: None,
        anew: false,
        taken_down: None,
        since: ago(60),
        phase,
        last_run: Run(0),
        slot: provost_core::ids::Slot::A,
        former: None,
        refused: None,
    }
}

fn stopping(run: RunSnapshot, end: RunEnd) -> PhaseSnapshot {
    PhaseSnapshot::Stopping { run, end, give_up: None, killed: false }
}

/// A check that comes every ten seconds.
fn checked(process: Process) -> Process {
    process.with(|spec| {
        let check = Check::Http(Text::new("http://localhost/"));
        spec.health = Some(Box::new(HealthCheck { interval: secs(10), ..HealthCheck::new(check) }));
    })
}

/// A machine that goes on, and what it decided in its last turn.
struct Next {
    machine: Machine,
    now: Mono,
    out: Vec<Effect>,
}

impl Next {
    /// The runs of `there` are still there.
    fn of(all: &[(&str, InstanceSnapshot)], there: &[&str]) -> Next {
        Next::with(all, there, Settings::default())
    }

    fn with(all: &[(&str, InstanceSnapshot)], there: &[&str], settings: Settings) -> Next {
        let instances: BTreeMap<InstanceId, InstanceSnapshot> =
            all.iter().map(|(name, kept)| (id(name), kept.clone())).collect();
        let there = there.iter().map(|name| (id(name), instances[&id(name)].run().unwrap().run));
        let (there, generation) = (there.collect(), Generation(4));
        let restored = Restored { generation, settings, instances, there, ..Restored::default() };
        let mut next = Next { machine: Machine::new(7), now: NOW, out: Vec::new() };
        next.machine.restore(restored, NOW, &mut next.out);
        next
    }

    fn handle(&mut self, event: Event) {
        self.out.clear();
        self.machine.handle(event, self.now, &mut self.out);
    }

    fn accept(&mut self, processes: &[&Process]) {
        let processes =
            processes.iter().map(|process| (process.0.id.clone(), Arc::new(process.0.clone())));
        let config = Config { processes: processes.collect(), ..Config::default() };
        let (config, request, generation) = (Arc::new(config), Request(1), Generation(5));
        self.handle(Event::ConfigAccepted { request, config, generation });
    }

    /// What is due so long after it began.
    fn after(&mut self, time: Duration) {
        self.now = NOW.after(time);
        self.out.clear();
        self.machine.handle_timeout(self.now, &mut self.out);
    }

    fn emptied(&mut self, name: &str, run: u64) {
        self.handle(Event::Emptied { instance: id(name), run: Run(run) });
    }

    /// The check that is out is answered.
    fn probed(&mut self, name: &str, run: u64, outcome: Result<(), &str>) {
        let probe = self.out.iter().find_map(|effect| match effect {
            Effect::Probe { probe, .. } => Some(*probe),
            _ => None,
        });
        let (instance, run, probe) = (id(name), Run(run), probe.unwrap());
        let outcome = outcome.map_err(str::to_owned);
        self.handle(Event::Probed { instance, run, probe, outcome });
    }

    /// What it does to instances, in words.
    fn done(&self) -> Vec<String> {
        let words = self.out.iter().filter_map(|effect| match effect {
            Effect::Spawn { instance, run, .. } => Some(format!("spawn {instance} {run}")),
            Effect::Terminate { instance, run, .. } => Some(format!("terminate {instance} {run}")),
            Effect::Kill { instance, run } => Some(format!("kill {instance} {run}")),
            Effect::Probe { instance, run, .. } => Some(format!("probe {instance} {run}")),
            _ => None,
        });
        words.collect()
    }

    /// What it says of the whole.
    fn took_over(&self) -> Vec<(usize, usize)> {
        let notes = self.out.iter().filter_map(|effect| match effect {
            Effect::Note(note) => Some(&note.what),
            _ => None,
        });
        let notes = notes.filter_map(|what| match what {
            What::TookOver { kept, lost } => Some((*kept, *lost)),
            _ => None,
        });
        notes.collect()
    }

    fn state(&self, name: &str) -> State {
        self.machine.view(&id(name)).unwrap().state
    }

    fn due(&self) -> Option<Duration> {
        self.machine.poll_timeout().map(|at| at.since(NOW))
    }

    fn spec_of(&self, name: &str) -> &ProcessSpec {
        &self.machine.config().processes[&ProcessId::new(name).unwrap()]
    }
}

/// The whole of an instance comes through, whatever it is doing.
#[test]
fn what_was_kept_is_kept_again_as_it_was() {
    let a = checked(process("a"));
    let mut healthy = Health::new(true);
    let check = a.0.health.clone().unwrap();
    healthy.take(Ok(()), &check, secs(1), ago(60));
    let changed = process("a").line("v2");
    let up = RunSnapshot { health: healthy.kept(), ..run(9) };
    let busy = InstanceSnapshot {
        next: Some((Arc::new(changed.0.clone()), Generation(4))),
        once: true,
        attempt: 2,
        restarts: 5,
        last_exit: Some(ExitStatus::Code(3)),
        last_end: Some(RunEnd::Exited(ExitStatus::Code(3))),
        restart_due: Some(StopReason::Restart),
        taken_down: Some(3),
        ..kept(&a, PhaseSnapshot::Down)
    };
    let unwanted = InstanceSnapshot { wanted: false, ..busy.clone() };
    let end = RunEnd::Unhealthy("no answer".into());
    let give_up = Some(FailReason::Unhealthy("no answer".into()));
    let run_ended = RunSnapshot { exit: Some(ExitStatus::Code(1)), ..run(9) };
    let shapes = [
        InstanceSnapshot { restart_due: None, ..busy.clone() },
        InstanceSnapshot {
            restart_due: None,
            anew: true,
            phase: PhaseSnapshot::Up(up.clone()),
            ..busy.clone()
        },
        InstanceSnapshot {
            phase: PhaseSnapshot::Stopping { run: run_ended, end, give_up, killed: false },
            ..busy.clone()
        },
        InstanceSnapshot { phase: PhaseSnapshot::Backoff(NOW.after(secs(5))), ..busy.clone() },
        InstanceSnapshot { phase: PhaseSnapshot::Failed, ..busy.clone() },
        InstanceSnapshot { phase: PhaseSnapshot::Completed, ..unwanted.clone() },
        unwanted,
    ];
    for shape in shapes {
        let there: &[&str] = if shape.run().is_some() { &["a@0"] } else { &[] };
        let mut next = Next::of(&[("a@0", shape.clone())], there);
        // One that is down begins to wait, and nothing of that is kept.
        let again = next.machine.snapshot(&id("a@0")).unwrap();
        let since =
            if shape.wanted && shape.phase == PhaseSnapshot::Down { NOW } else { shape.since };
        assert_eq!(again, InstanceSnapshot { since, ..shape.clone() });
        assert_eq!(next.machine.take_unsaved(), [id("a@0")].into());
        assert!(next.machine.take_unsaved().is_empty());
    }
}

#[test]
fn what_runs_goes_on_and_nothing_is_done_to_it() {
    let a = process("a").instances(2);
    let up = |number| kept(&a, PhaseSnapshot::Up(run(number)));
    let mut next = Next::of(&[("a@0", up(9)), ("a@1", up(4))], &["a@0", "a@1"]);
    assert_eq!(next.done(), [""; 0]);
    assert_eq!((next.took_over(), next.due()), (vec![(2, 0)], None));
    let view = next.machine.view(&id("a@0")).unwrap();
    assert_eq!((view.state, view.run, view.pid), (State::Running, Some(Run(9)), Some(1009)));
    assert_eq!((view.started, view.since), (Some(ago(61)), ago(60)));
    let kept = |what: &What| matches!(what, What::Kept { pid: 1009 });
    assert!(view.history.iter().any(|note| kept(&note.what)), "{:?}", view.history);
    assert_eq!(next.machine.generation(), Generation(4));
    next.accept(&[&a]);
    assert_eq!(next.done(), [""; 0]);
    // The next run has a number that none had.
    next.accept(&[&a, &process("b")]);
    assert_eq!(next.done(), ["spawn b@0 10"]);
}

#[test]
fn what_ended_unseen_ended_and_what_never_began_is_as_if_nobody_had_asked() {
    let asked = RunSnapshot { pid: None, started: None, ready: None, stable_since: None, ..run(8) };
    let (a, b, c) = (process("a"), process("b"), process("c"));
    let all = [
        ("a@0", kept(&a, PhaseSnapshot::Up(run(6)))),
        ("b@0", kept(&b, PhaseSnapshot::Up(asked))),
        ("c@0", kept(&c, PhaseSnapshot::Up(run(7)))),
    ];
    let mut next = Next::of(&all, &[]);
    assert_eq!((next.took_over(), next.done()), (vec![(0, 2)], vec![]));
    let view = next.machine.view(&id("a@0")).unwrap();
    assert_eq!((view.state, view.restarts), (State::Backoff, 1));
    assert_eq!(view.last_exit, Some(ExitStatus::Unknown));
    assert_eq!(next.state("c@0"), State::Backoff);
    let view = next.machine.view(&id("b@0")).unwrap();
    assert_eq!((view.state, view.restarts, view.last_exit), (State::Waiting, 0, None));
    assert_eq!(view.run, None);
    // Its number is not given out again all the same.
    next.accept(&[&a, &b, &c]);
    assert_eq!(next.done(), ["spawn b@0 9"]);
}

/// One that nobody wants is not tried again when its end was not seen.
#[test]
fn what_follows_an_end_depends_on_what_is_wanted() {
    let stopped =
        InstanceSnapshot { wanted: false, ..kept(&process("a"), PhaseSnapshot::Up(run(6))) };
    let next = Next::of(&[("a@0", stopped)], &[]);
    assert_eq!((next.state("a@0"), next.due()), (State::Down, None));
}

#[test]
fn what_is_not_ready_has_all_its_time_again() {
    let a = checked(process("a").with(|spec| {
        spec.start_timeout = secs(40);
        spec.readiness = provost_core::spec::Readiness::Health;
    }));
    let starting =
        RunSnapshot { ready: None, stable_since: None, health: Health::new(true), ..run(6) };
    let mut next = Next::of(&[("a@0", kept(&a, PhaseSnapshot::Up(starting.clone())))], &["a@0"]);
    assert_eq!(next.due(), Some(Duration::ZERO));
    next.after(secs(39));
    assert_eq!(next.done(), ["probe a@0 6"]);
    next.after(secs(40));
    assert_eq!(next.done(), ["terminate a@0 6"]);
    // It is not asked how it is before it has become its command.
    let asked = RunSnapshot { pid: None, started: None, ..starting };
    let next = Next::of(&[("a@0", kept(&a, PhaseSnapshot::Up(asked)))], &["a@0"]);
    assert_eq!(next.due(), Some(secs(40)));
}

#[test]
fn what_runs_is_asked_how_it_is_at_once() {
    let a = checked(process("a"));
    let up = RunSnapshot { health: Health::new(true), ..run(6) };
    let mut next = Next::of(&[("a@0", kept(&a, PhaseSnapshot::Up(up)))], &["a@0"]);
    assert_eq!(next.due(), Some(Duration::ZERO));
    next.after(Duration::ZERO);
    assert_eq!(next.done(), ["probe a@0 6"]);
}

#[test]
fn what_is_being_ended_is_asked_again_and_has_all_its_time_again() {
    let a = process("a").with(|spec| spec.stop.timeout = secs(20));
    let end = RunEnd::Asked(StopReason::Restart);
    let mut next = Next::of(&[("a@0", kept(&a, stopping(run(6), end)))], &["a@0"]);
    assert_eq!((next.done(), next.due()), (vec!["terminate a@0 6".into()], Some(secs(20))));
    assert_eq!((next.state("a@0"), next.took_over()), (State::Stopping, vec![(1, 0)]));
    next.after(secs(20));
    assert_eq!(next.done(), ["kill a@0 6"]);
}

#[test]
fn what_is_being_killed_is_killed_at_once() {
    let end = RunEnd::Asked(StopReason::Restart);
    let phase = PhaseSnapshot::Stopping { run: run(6), end, give_up: None, killed: true };
    let mut next = Next::of(&[("a@0", kept(&process("a"), phase))], &["a@0"]);
    assert_eq!((next.done(), next.due()), (vec![], Some(Duration::ZERO)));
    next.after(Duration::ZERO);
    assert_eq!(next.done(), ["kill a@0 6"]);
}

/// What follows a run is settled by how it was being ended, not by how it looks when it is over.
#[test]
fn why_it_was_being_ended_is_not_forgotten() {
    let a = process("a");
    let asked = RunEnd::Asked(StopReason::Requested);
    let sick = RunEnd::Unhealthy("no answer".into());
    let give_up = Some(FailReason::Unhealthy("no answer".into()));
    let phase = |end: &RunEnd, give_up: &Option<FailReason>| PhaseSnapshot::Stopping {
        run: run(6),
        end: end.clone(),
        give_up: give_up.clone(),
        killed: false,
    };
    let unwanted = InstanceSnapshot { wanted: false, ..kept(&a, phase(&asked, &None)) };
    let cases = [
        (unwanted, asked.clone(), State::Down),
        (kept(&a, phase(&sick, &None)), sick.clone(), State::Backoff),
        (kept(&a, phase(&sick, &give_up)), sick, State::Failed),
    ];
    for (snapshot, end, state) in cases {
        let mut next = Next::of(&[("a@0", snapshot)], &["a@0"]);
        next.emptied("a@0", 6);
        let view = next.machine.view(&id("a@0")).unwrap();
        assert_eq!((view.state, view.last_end), (state, Some(end)));
    }
}

#[test]
fn a_delay_ends_when_it_would_have_ended() {
    let a = process("a");
    let phase = PhaseSnapshot::Backoff(NOW.after(secs(5)));
    let mut next = Next::of(&[("a@0", kept(&a, phase))], &[]);
    assert_eq!((next.state("a@0"), next.due()), (State::Backoff, Some(secs(5))));
    next.accept(&[&a]);
    assert_eq!(next.done(), [""; 0]);
    next.after(secs(5));
    assert_eq!(next.done(), ["spawn a@0 1"]);
}

#[test]
fn the_number_of_a_run_never_comes_again() {
    let a = process("a");
    let phase = PhaseSnapshot::Backoff(NOW.after(secs(5)));
    let over = InstanceSnapshot { last_run: Run(7), ..kept(&a, phase) };
    let mut next = Next::of(&[("a@0", over)], &[]);
    next.accept(&[&a]);
    next.after(secs(5));
    assert_eq!(next.done(), ["spawn a@0 8"]);
    // The one after it knows as well, while there is a run and when it has ended.
    let mut third = Next::of(&[("a@0", next.machine.snapshot(&id("a@0")).unwrap())], &["a@0"]);
    third.accept(&[&a]);
    third.emptied("a@0", 8);
    let kept = third.machine.snapshot(&id("a@0")).unwrap();
    assert_eq!(kept.last_run, Run(8));
}

#[test]
fn what_is_over_stays_over() {
    let a = process("a").one_shot();
    for (phase, state) in
        [(PhaseSnapshot::Completed, State::Completed), (PhaseSnapshot::Failed, State::Failed)]
    {
        let mut next = Next::of(&[("a@0", kept(&a, phase))], &[]);
        assert_eq!(next.state("a@0"), state);
        next.accept(&[&a]);
        assert_eq!((next.state("a@0"), next.done()), (state, vec![]));
    }
}

#[test]
fn nothing_starts_before_the_files_were_looked_at() {
    let a = process("a");
    let down = || Next::of(&[("a@0", kept(&a, PhaseSnapshot::Down))], &[]);
    let mut next = down();
    assert_eq!((next.took_over(), next.done()), (vec![(0, 0)], vec![]));
    assert_eq!(next.machine.view(&id("a@0")).unwrap().blockers, [Blocker::Reload]);
    next.handle(Event::ConfigUnusable);
    assert_eq!(next.done(), ["spawn a@0 1"]);
    let mut next = down();
    next.accept(&[&a]);
    assert_eq!(next.done(), ["spawn a@0 1"]);
    let mut next = down();
    next.accept(&[]);
    assert_eq!((next.done(), next.machine.instances().count()), (vec![], 0));
}

#[test]
fn where_nothing_was_kept_nothing_is_said() {
    let mut next = Next::of(&[], &[]);
    assert!(next.out.is_empty(), "{:?}", next.out);
    assert_eq!(next.machine.generation(), Generation(4));
    next.handle(Event::ConfigUnusable);
    assert!(next.out.is_empty() && next.machine.take_unsaved().is_empty());
    next.accept(&[&process("a")]);
    assert_eq!(next.done(), ["spawn a@0 1"]);
}

#[test]
fn what_was_active_is_what_the_newest_instances_say() {
    let (old, new) = (process("a").line("old").instances(2), process("a").line("new").instances(2));
    let newest = InstanceSnapshot {
        next: Some((Arc::new(new.0.clone()), Generation(4))),
        ..kept(&old, PhaseSnapshot::Up(run(5)))
    };
    let behind = kept(&old, PhaseSnapshot::Up(run(6)));
    let settings = Settings { auto_start: false, ..Settings::default() };
    let all = [("a@0", newest.clone()), ("a@1", behind.clone())];
    let next = Next::with(&all, &["a@0", "a@1"], settings.clone());
    assert_eq!(next.machine.config().settings, settings);
    assert_eq!(next.machine.config().processes.len(), 1);
    assert_eq!(*next.spec_of("a"), new.0);
    let next = Next::of(&[("a@0", behind), ("a@1", newest)], &["a@0", "a@1"]);
    assert_eq!(*next.spec_of("a"), new.0);
}

/// With all it waits for: it was removed, and goes after what depends on it.
#[test]
fn what_was_removed_goes_in_its_order() {
    let (a, b) = (process("a").after("b"), process("b"));
    let removed = |process, number| InstanceSnapshot {
        removed: true,
        ..kept(process, PhaseSnapshot::Up(run(number)))
    };
    let mut next = Next::of(&[("a@0", removed(&a, 5)), ("b@0", removed(&b, 6))], &["a@0", "b@0"]);
    assert_eq!(next.done(), ["terminate a@0 5"]);
    assert!(next.machine.config().processes.is_empty());
    next.emptied("a@0", 5);
    assert_eq!(next.done(), ["terminate b@0 6"]);
}

#[test]
fn the_order_is_that_of_what_was_active() {
    let (a, b) = (process("a").after("b"), process("b"));
    let up = |process, number| InstanceSnapshot {
        wanted: false,
        ..kept(process, PhaseSnapshot::Up(run(number)))
    };
    let next = Next::of(&[("a@0", up(&a, 5)), ("b@0", up(&b, 6))], &["a@0", "b@0"]);
    assert_eq!(next.done(), ["terminate a@0 5"]);
    assert_eq!(next.spec_of("a").depends_on, a.0.depends_on);
}

/// The one before was killed in the middle of writing another configuration down. Nothing is ended
/// for want of what was not written.
#[test]
fn edges_that_cannot_be_are_left_out() {
    let up = |process: &Process, number| kept(process, PhaseSnapshot::Up(run(number)));
    let (half, ghost) = (process("a").after("ghost"), process("ghost"));
    let mut next = Next::of(&[("a@0", up(&half, 5))], &["a@0"]);
    assert_eq!(next.spec_of("a").depends_on, []);
    assert_eq!((next.done(), next.state("a@0")), (vec![], State::Running));
    next.accept(&[&half, &ghost]);
    assert_eq!(next.done(), ["spawn ghost@0 6"]);
    assert_eq!(*next.spec_of("a"), half.0);
    let (a, b) = (process("a").after("b"), process("b").after("a"));
    let next = Next::of(&[("a@0", up(&a, 5)), ("b@0", up(&b, 6))], &["a@0", "b@0"]);
    assert_eq!((&next.spec_of("a").depends_on, &next.spec_of("b").depends_on), (&vec![], &vec![]));
    assert_eq!(next.done(), [""; 0]);
    // Also of what waits for the end of a run.
    let later = InstanceSnapshot {
        next: Some((Arc::new(half.0.clone()), Generation(4))),
        ..up(&process("a"), 5)
    };
    let next = Next::of(&[("a@0", later)], &["a@0"]);
    assert_eq!((next.done(), &next.spec_of("a").depends_on), (vec![], &vec![]));
    // What was removed goes in its order all the same.
    let (c, d) = (process("c").after("d"), process("d"));
    let removed = |process, number| InstanceSnapshot { removed: true, ..up(process, number) };
    let all = [("a@0", up(&half, 5)), ("c@0", removed(&c, 6)), ("d@0", removed(&d, 7))];
    let next = Next::of(&all, &["a@0", "c@0", "d@0"]);
    assert_eq!(next.done(), ["terminate c@0 6"]);
}

/// Which change it was for is worked out again, from the file as it is now.
#[test]
fn a_change_that_was_due_is_no_reason_any_more() {
    let a = process("a");
    let on = ProcessId::new("b").unwrap();
    let due =
        |why| InstanceSnapshot { restart_due: Some(why), ..kept(&a, PhaseSnapshot::Up(run(5))) };
    let next = Next::of(&[("a@0", due(StopReason::Changed))], &["a@0"]);
    assert_eq!(next.done(), [""; 0]);
    let next = Next::of(&[("a@0", due(StopReason::DependencyRestarted(on)))], &["a@0"]);
    assert_eq!(next.done(), ["terminate a@0 5"]);
}

/// A start of what is disabled holds until the next stop, and the end of everything is one.
#[test]
fn an_exception_does_not_outlive_the_end_of_everything() {
    let a = process("a").disabled();
    let once = InstanceSnapshot { once: true, ..kept(&a, PhaseSnapshot::Up(run(5))) };
    let mut next = Next::of(&[("a@0", once)], &["a@0"]);
    assert!(next.machine.snapshot(&id("a@0")).unwrap().once);
    assert_eq!(next.done(), [""; 0]);
    next.handle(Event::ShutdownRequested);
    assert!(!next.machine.snapshot(&id("a@0")).unwrap().once);
    let plain = kept(&process("a"), PhaseSnapshot::Up(run(5)));
    assert!(!Next::of(&[("a@0", plain)], &["a@0"]).machine.snapshot(&id("a@0")).unwrap().once);
    assert_eq!(next.machine.snapshot(&id("b@0")), None);
}

/// Counting begins again, so there is nothing in a snapshot that a file would not have.
#[test]
fn a_snapshot_is_what_is_written_of_it() {
    let a = checked(process("a"));
    let up = RunSnapshot { health: Health::new(true), ..run(5) };
    let mut next = Next::of(&[("a@0", kept(&a, PhaseSnapshot::Up(up)))], &["a@0"]);
    next.after(Duration::ZERO);
    next.probed("a@0", 5, Err("no answer"));
    let view = next.machine.view(&id("a@0")).unwrap();
    assert_eq!(view.health_detail.as_deref(), Some("no answer"));
    let snapshot = next.machine.snapshot(&id("a@0")).unwrap();
    let text = serde_json::to_string(&snapshot).unwrap();
    assert_eq!(serde_json::from_str::<InstanceSnapshot>(&text).unwrap(), snapshot);
}

/// What is ended by its check and not to be tried again stays so, also where it is kept by a
/// machine and not written by hand.
#[test]
fn what_gives_up_still_does_after_a_kill() {
    let a = checked(process("a")).with(|spec| {
        spec.health.as_mut().unwrap().failure_threshold = 1;
        spec.health.as_mut().unwrap().on_failure = OnFailure::Stop;
    });
    let mut health = Health::new(true);
    health.take(Ok(()), a.0.health.as_ref().unwrap(), secs(1), ago(60));
    let up = RunSnapshot { health, ..run(5) };
    let mut next = Next::of(&[("a@0", kept(&a, PhaseSnapshot::Up(up)))], &["a@0"]);
    next.accept(&[&a]);
    next.after(Duration::ZERO);
    next.probed("a@0", 5, Err("no answer"));
    assert_eq!(next.done(), ["terminate a@0 5"]);
    let snapshot = next.machine.snapshot(&id("a@0")).unwrap();
    let mut again = Next::of(&[("a@0", snapshot)], &["a@0"]);
    again.emptied("a@0", 5);
    assert_eq!(again.state("a@0"), State::Failed);
}

/// One that had its turn is waited for by the next supervisor too.
#[test]
fn who_waits_for_a_turn_still_does_after_a_kill() {
    let new = process("a").instances(2).line("v2");
    let starts = RunSnapshot { ready: None, stable_since: None, started: None, ..run(9) };
    let out = InstanceSnapshot {
        taken_down: Some(0),
        generation: Generation(4),
        ..kept(&new, PhaseSnapshot::Up(starts))
    };
    let waits = InstanceSnapshot {
        next: Some((Arc::new(new.0.clone()), Generation(4))),
        ..kept(&process("a").instances(2), PhaseSnapshot::Up(run(4)))
    };
    let asked = InstanceSnapshot { anew: true, ..kept(&new, PhaseSnapshot::Up(run(4))) };
    for (waits, is_read) in [(waits.clone(), true), (waits, false), (asked, true)] {
        let all = [("a@0", out.clone()), ("a@1", waits)];
        let mut next = Next::of(&all, &["a@0", "a@1"]);
        assert_eq!(next.done(), [""; 0]);
        match is_read {
            true => next.accept(&[&new]),
            false => next.handle(Event::ConfigUnusable),
        }
        assert_eq!(next.done(), [""; 0], "the first is not ready yet");
        next.handle(Event::Spawned { instance: id("a@0"), run: Run(9), pid: 9 });
        assert_eq!(next.done(), ["terminate a@1 4"]);
    }
}

/// A rollback that was cut short: what was tried is going still, and it is not what runs again.
#[test]
fn what_is_gone_back_to_has_its_own_number() {
    let web = process("web");
    let all = [("web@0", kept(&web, PhaseSnapshot::Up(run(1))))];
    let mut next = Next::of(&all, &["web@0"]);
    let processes = BTreeMap::from([(web.0.id.clone(), Arc::new(web.0.clone()))]);
    let config = Arc::new(Config { processes, ..Config::default() });
    let (request, before) = (Request(1), Arc::default());
    let back = Event::ConfigWithdrawn { request, config, generation: Generation(3), before };
    next.handle(back);
    assert_eq!(next.machine.generation(), Generation(3));
    // What is accepted and is as it was is what it was.
    let mut next = Next::of(&all, &["web@0"]);
    next.accept(&[&web]);
    assert_eq!(next.machine.generation(), Generation(4));
}
