//! The life of a run.

use crate::resources::show;
use crate::world::*;
use provost::backend::{Beside, CommandEnd, Purpose};
use provost::core::event::{Event, ExitStatus, SpawnStage, Whom};
use provost::core::ids::{Generation, ProcessId, Run, Slot};
use provost::core::spec::{ProcessSpec, Rendered, Signal};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

pub async fn a_run_that_ends_at_once_is_reported_in_order(mut world: World) {
    for _ in 0..20 {
        assert_eq!(world.run(program("true", &[])).await, ExitStatus::Code(0));
    }
}

pub async fn how_it_ended_is_told(mut world: World) {
    for code in [0, 1, 7, 199, 255] {
        assert_eq!(world.run(shell(&format!("exit {code}"))).await, ExitStatus::Code(code));
    }
    for signal in [1, 9, 13, 15, 34] {
        let ended = ExitStatus::Signal { signal: Signal(signal), core: false };
        assert_eq!(world.run(shell(&format!("kill -{signal} $$"))).await, ended);
    }
}

/// Those from 200 on are systemd's as well, for what it could not execute.
pub async fn any_code_of_a_command_is_its_own(mut world: World) {
    let up = world.pipe("up");
    for code in [200, 203, 217, 243] {
        let run = world.start(shell(&format!(
            "trap 'exit {code}' USR1; echo up >{up}; while :; do sleep 1000 & wait; done"
        )));
        world.spawned().await;
        world.line("up").await;
        world.backend.signal(&instance(), run, Signal(10), Whom::Main);
        assert_eq!(world.exited().await, ExitStatus::Code(code));
        // What systemd takes for its own failure it cleans up itself.
        world.terminate(run);
        world.emptied().await;
    }
}

pub async fn many_at_once_are_all_seen(mut world: World) {
    const MANY: u64 = 100;
    let process = ProcessId::new("test").unwrap();
    for number in 0..MANY {
        let spec: Arc<ProcessSpec> = Arc::new(program("true", &[]));
        let index = u32::try_from(number).unwrap();
        let run = Run(number + 1);
        world.backend.spawn(&process.instance(index), run, Slot::A, Generation(1), &spec);
    }
    // How far each has come: 1 spawned, 2 exited, 3 emptied.
    let mut steps: BTreeMap<Run, u8> = BTreeMap::new();
    let mut pids = BTreeSet::new();
    while steps.len() < MANY as usize || steps.values().any(|step| *step < 3) {
        let (run, step) = match world.event().await {
            Event::Spawned { run, pid, .. } => {
                pids.insert(pid);
                (run, 1)
            }
            Event::Exited { run, status, .. } => {
                assert_eq!(status, ExitStatus::Code(0));
                (run, 2)
            }
            Event::Emptied { run, .. } => (run, 3),
            other => panic!("{other:?}"),
        };
        assert_eq!(steps.insert(run, step).unwrap_or(0) + 1, step, "{run:?}");
    }
    assert_eq!(pids.len(), MANY as usize);
}

/// Whoever remembers how a run ended does so until it is kept: another daemon may ask. Meanwhile, and
/// whatever else ends, it is not over.
pub async fn an_end_is_remembered_until_it_is_kept(mut world: World) {
    let run = world.start(shell("exit 7"));
    world.spawned().await;
    let ended = world.event_unkept().await;
    assert!(matches!(ended, Event::Exited { status: ExitStatus::Code(7), .. }), "{ended:?}");
    if !world.backend.remembers_ends() {
        return world.emptied().await;
    }
    let other = ProcessId::new("other").unwrap().instance(0);
    for number in 10..20 {
        let spec: Arc<ProcessSpec> = Arc::new(program("true", &[]));
        world.backend.spawn(&other, Run(number), Slot::A, Generation(1), &spec);
        loop {
            match world.event().await {
                Event::Emptied { run: of, .. } if of == Run(number) => break,
                event => assert!(!matches!(event, Event::Emptied { .. }), "{event:?}"),
            }
        }
    }
    let unit = world.backend.unit(&instance(), Slot::A);
    if let Some(unit) = &unit {
        assert_eq!(show(unit, "ExecMainStatus"), "7");
    }
    world.backend.end_is_kept(&instance(), run);
    world.emptied().await;
    if let Some(unit) = &unit {
        until("the unit is unloaded", || show(unit, "LoadState") == "not-found").await;
    }
}

/// Of the same instance, as soon as nothing of the one before is left.
pub async fn one_run_follows_the_other(mut world: World) {
    for code in 0..40 {
        assert_eq!(world.run(shell(&format!("exit {code}"))).await, ExitStatus::Code(code));
    }
    let run = world.start(program("sleep", &["1000"]));
    world.spawned().await;
    world.end(run).await;
    let run = world.start(program("sleep", &["1000"]));
    let pid = world.spawned().await;
    assert!(world.is_there(pid));
    world.end(run).await;
}

pub async fn what_is_stopped_before_it_began_is_never_executed(mut world: World) {
    let trace = world.path("trace");
    for stop in [World::terminate, World::kill] {
        let run = world.start(shell(&format!("touch {}", trace.display())));
        stop(&world, run);
        let error = world.spawn_failed().await;
        assert_eq!(error.stage, SpawnStage::Fork);
        assert_eq!(error.reason, "it was stopped before it was started");
    }
    assert!(!trace.exists());
    assert_eq!(world.run(program("true", &[])).await, ExitStatus::Code(0));
}

/// At whatever moment: it is never executed, or it ends.
pub async fn what_is_stopped_while_it_begins_ends(mut world: World) {
    for delay in 0..40 {
        let run = world.start(program("sleep", &["1000"]));
        // Somewhere in the few milliseconds of a start.
        tokio::time::sleep(Duration::from_micros(delay * 400)).await;
        if delay % 2 == 0 {
            world.terminate(run);
        } else {
            world.kill(run);
        }
        match world.event().await {
            Event::SpawnFailed { error, .. } => assert_eq!(error.stage, SpawnStage::Fork),
            Event::Spawned { .. } => {
                let status = world.exited().await;
                assert!([TERMINATED, KILLED].contains(&status), "{status}");
                world.emptied().await;
            }
            other => panic!("{other:?}"),
        }
    }
}

pub async fn a_run_that_is_over_can_be_stopped_again(mut world: World) {
    let run = world.start(program("true", &[]));
    world.spawned().await;
    world.exited().await;
    world.emptied().await;
    world.terminate(run);
    world.kill(run);
    assert!(world.backend.usage(&instance(), run).is_none());
    assert!(world.backend.pidfd(&instance(), run).is_none());
    // Nothing more came of it than what comes of the next one.
    assert_eq!(world.run(shell("exit 3")).await, ExitStatus::Code(3));
}

pub async fn terminating_asks_the_main_process(mut world: World) {
    let up = world.pipe("up");
    let child = format!(
        "sh -c 'trap \"echo child >{up}\" TERM; echo up >{up}; while :; do sleep 0.1; done'"
    );
    let line = format!(
        "{child} & trap 'echo main >{up}; exit 9' TERM; echo up >{up}; while :; do wait; done"
    );
    let run = world.start(shell(&line));
    world.spawned().await;
    // Both are ready for it.
    world.line("up").await;
    world.line("up").await;
    world.terminate(run);
    assert_eq!(world.line("up").await, "main");
    assert_eq!(world.exited().await, ExitStatus::Code(9));
    // Now it is the turn of what is left.
    world.terminate(run);
    assert_eq!(world.line("up").await, "child");
    world.kill(run);
    world.emptied().await;
}

pub async fn what_is_left_over_stays_until_it_is_asked(mut world: World) {
    stays(&mut world, 0).await;
}

pub async fn what_is_left_over_by_a_failure_stays_as_well(mut world: World) {
    stays(&mut world, 4).await;
}

async fn stays(world: &mut World, code: u8) {
    let up = world.pipe("up");
    let left = format!("sh -c 'echo $$ >{up}; exec sleep 1000'");
    let run = world.start(shell(&format!("{left} & read -t 1 x <{up}.none; exit {code}")));
    world.spawned().await;
    let left: u32 = world.line("up").await.parse().unwrap();
    assert_eq!(world.exited().await, ExitStatus::Code(code));
    // A service manager that cleans up has begun when it has told of the end.
    if let Some(unit) = world.backend.unit(&instance(), Slot::A) {
        assert_eq!(show(&unit, "SubState"), "exited");
    }
    assert!(world.is_there(left) && world.is_quiet());
    world.terminate(run);
    world.emptied().await;
    assert!(!world.is_there(left));
}

pub async fn a_stopped_process_is_woken_up_to_end(mut world: World) {
    let run = world.start(program("sleep", &["1000"]));
    world.spawned().await;
    world.backend.signal(&instance(), run, Signal(19), Whom::Main);
    world.terminate(run);
    assert_eq!(world.exited().await, TERMINATED);
    world.emptied().await;
}

pub async fn one_that_ignores_the_signal_is_killed(mut world: World) {
    let up = world.pipe("up");
    let run =
        world.start(shell(&format!("trap '' TERM; echo up >{up}; while :; do sleep 0.1; done")));
    let pid = world.spawned().await;
    world.line("up").await;
    world.terminate(run);
    assert!(world.is_there(pid));
    world.kill(run);
    assert_eq!(world.exited().await, KILLED);
    world.emptied().await;
}

/// Not what has a session of its own, nor what was forked twice, nor what ignores signals.
pub async fn killing_leaves_nothing(mut world: World) {
    let up = world.pipe("up");
    let tail = format!("trap \"\" TERM HUP INT; echo $$ >{up}; while :; do sleep 0.1; done");
    let line = format!(
        "setsid sh -c '{tail}' & (sh -c '{tail}' &) ; setsid -f sh -c '{tail}'; sleep 1000"
    );
    let run = world.start(shell(&line));
    let main = world.spawned().await;
    let mut pids = vec![main];
    for _ in 0..3 {
        pids.push(world.line("up").await.parse().unwrap());
    }
    world.end(run).await;
    assert!(pids.iter().all(|pid| !world.is_there(*pid)), "{pids:?}");
}

pub async fn signals_reach_whom_they_are_for(mut world: World) {
    let up = world.pipe("up");
    let child = format!(
        "sh -c 'trap \"echo child >{up}\" USR1; echo up >{up}; while :; do sleep 0.1; done'"
    );
    let line = format!(
        "{child} & trap 'echo main >{up}' USR1; echo up >{up}; while :; do sleep 0.1; done"
    );
    let run = world.start(shell(&line));
    world.spawned().await;
    // Both are ready for it.
    world.line("up").await;
    world.line("up").await;
    world.backend.signal(&instance(), run, Signal(10), Whom::Main);
    assert_eq!(world.line("up").await, "main");
    world.backend.signal(&instance(), run, Signal(10), Whom::All);
    let both = BTreeSet::from([world.line("up").await, world.line("up").await]);
    assert_eq!(both, BTreeSet::from(["child".to_owned(), "main".to_owned()]));
    world.end(run).await;
}

pub async fn usage_is_that_of_the_tree(mut world: World) {
    let up = world.pipe("up");
    let run = world.start(shell(&format!("sleep 1000 & echo up >{up}; wait")));
    let pid = world.spawned().await;
    world.line("up").await;
    let usage = world.backend.usage(&instance(), run).unwrap();
    assert_eq!(usage.tasks, Some(2));
    assert!(usage.memory.unwrap() > 0);
    assert!(usage.cpu.is_some());
    let pidfd = world.backend.pidfd(&instance(), run).unwrap();
    provost::sys::signal::send(&pidfd, Signal::KILL).unwrap();
    assert_eq!(world.exited().await, KILLED);
    assert!(!world.is_there(pid));
    world.terminate(run);
    world.emptied().await;
}

pub async fn a_command_beside_a_run_has_its_context(world: World) {
    let mut spec = shell("true");
    spec.exec.cwd = world.text("");
    let value = provost::core::spec::Secret("a $b %c \"d\"\ne".into());
    spec.exec.env = Arc::new(BTreeMap::from([("VALUE".to_owned(), value)]));
    let spec = Arc::new(spec);
    let run = async |line: &str| {
        let argv = ["/bin/sh", "-c", line].map(Rendered::from).to_vec();
        in_time(
            world.backend.run_in_context(&instance(), &spec, Beside::Check, argv, DEADLINE),
            line,
        )
        .await
    };
    assert_eq!(run("exit 0").await, CommandEnd::Success);
    let failed = run("pwd; echo \"$VALUE\"; id -un; exit 3").await;
    assert_eq!(failed, CommandEnd::Failure("exited with code 3".into()));
    let said = world.backend.command_output(&instance(), Purpose::Check).unwrap();
    let user = if is_root() { "nobody" } else { "alice" };
    let expected = format!("{}\na $b %c \"d\"\ne\n{user}", world.directory.path().display());
    assert!(!is_root() && world.is_native() || *said == *expected, "{said}");
    let argv = vec![Rendered::from("/no/such")];
    let missing = world.backend.run_in_context(&instance(), &spec, Beside::Check, argv, DEADLINE);
    let CommandEnd::Failure(text) = in_time(missing, "missing").await else { panic!() };
    assert!(text.starts_with("executing /no/such"), "{text}");
}

pub async fn a_command_beside_a_run_ends_at_its_deadline(mut world: World) {
    let up = world.pipe("up");
    let spec = Arc::new(shell("true"));
    let line =
        format!("setsid sh -c 'trap \"\" TERM; echo $$ >{up}; while :; do sleep 0.1; done' & wait");
    let argv = ["/bin/sh", "-c", &line].map(Rendered::from).to_vec();
    let end = world.backend.run_in_context(
        &instance(),
        &spec,
        Beside::Check,
        argv,
        Duration::from_secs(1),
    );
    assert_eq!(in_time(end, "the deadline").await, CommandEnd::TimedOut);
    let pid: u32 = world.line("up").await.parse().unwrap();
    // The next one waits until nothing of this one is left.
    let argv = vec![Rendered::from("true")];
    let next = world.backend.run_in_context(&instance(), &spec, Beside::Check, argv, DEADLINE);
    assert_eq!(in_time(next, "the next one").await, CommandEnd::Success);
    assert!(!world.is_there(pid));
}
