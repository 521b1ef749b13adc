//! All of a tree is found and killed, with and without control groups.

use crate::world::*;
use provost::backend::{Backend, Beside, CommandEnd};
use provost::core::event::{ExitStatus, Whom};
use provost::core::spec::Signal;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

/// A grandchild that has left in every way: its parents are gone, its session and its environment
/// are its own.
const RUNAWAY: &str = "(setsid sh -c 'env -i sleep 1000 & echo runaway=$!' &)";

async fn a_runaway_is_killed(mut world: World) {
    let run = world.start(shell(&format!("{RUNAWAY}; sleep 1000")));
    let main = world.spawned().await;
    let pid = world.screen.pid("runaway").await;
    let process = provost::backend::native::census::read(pid).unwrap();
    assert_ne!(process.session, main);
    world.end(run).await;
    assert!(
        provost::backend::native::census::read(pid)
            .is_none_or(|p| p.start != process.start || p.ended)
    );
}

#[tokio::test]
async fn a_runaway_is_killed_by_its_mark() {
    a_runaway_is_killed(World::new()).await;
}

#[tokio::test]
async fn a_runaway_is_killed_in_its_group() {
    if let Some(world) = World::with_cgroup() {
        a_runaway_is_killed(world).await;
    }
}

async fn what_is_left_gets_the_signal(mut world: World) {
    let run = world.start(shell(&format!("{RUNAWAY}; exit 4")));
    world.spawned().await;
    // The end of the main process is told at once, although something holds its output open.
    assert_eq!(world.exited().await, ExitStatus::Code(4));
    let pid = world.screen.pid("runaway").await;
    world.terminate(run);
    world.emptied().await;
    gone(pid).await;
}

#[tokio::test]
async fn what_is_left_gets_the_signal_by_its_mark() {
    what_is_left_gets_the_signal(World::new()).await;
}

#[tokio::test]
async fn what_is_left_gets_the_signal_in_its_group() {
    if let Some(world) = World::with_cgroup() {
        what_is_left_gets_the_signal(world).await;
    }
}

/// Each generation is an orphan in a session of its own, and lives for a moment.
async fn a_chain_is_killed(mut world: World) {
    let script = world.path("chain");
    let line = "echo generation=$1\nsleep 0.01\nsetsid \"$0\" $(($1 + 1)) &\n";
    std::fs::write(&script, format!("#!/bin/sh\n{line}")).unwrap();
    std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
    let run = world.start(program(script.to_str().unwrap(), &["1"]));
    world.spawned().await;
    assert_eq!(world.exited().await, ExitStatus::Code(0));
    world.screen.value("generation").await;
    world.kill(run);
    world.emptied().await;
    // Every one of them held the output: its end is the end of all.
    in_time(world.backend.drained()).await;
}

#[tokio::test]
async fn a_chain_is_killed_by_its_mark() {
    a_chain_is_killed(World::new()).await;
}

#[tokio::test]
async fn a_chain_is_killed_in_its_group() {
    if let Some(world) = World::with_cgroup() {
        a_chain_is_killed(world).await;
    }
}

/// The moment at which the main process ends is the one at which its descendants change parents.
#[tokio::test]
async fn none_is_overlooked_while_others_come_and_go() {
    let mut world = World::new();
    let noise = world.start(shell("while :; do /bin/true; done"));
    world.spawned().await;
    for _ in 0..20 {
        let run = world.start(shell(&format!("{RUNAWAY}; exit 0")));
        world.spawned().await;
        assert_eq!(world.exited().await, ExitStatus::Code(0));
        let pid = world.screen.pid("runaway").await;
        world.screen.take();
        // Had the run been found empty before, nothing would be killed.
        world.kill(run);
        world.emptied().await;
        gone(pid).await;
    }
    world.end(noise).await;
}

async fn two_runs_are_kept_apart(mut world: World) {
    let first = world.start(shell(&format!("{RUNAWAY}; exit 0")));
    world.spawned().await;
    world.exited().await;
    let first_pid = world.screen.pid("runaway").await;
    world.screen.take();
    let second = world.start(shell(&format!("{RUNAWAY}; exit 0")));
    world.spawned().await;
    world.exited().await;
    let second_pid = world.screen.pid("runaway").await;

    world.kill(second);
    world.emptied().await;
    gone(second_pid).await;
    let alive = provost::backend::native::census::read(first_pid).unwrap();
    assert!(!alive.ended);
    world.kill(first);
    world.emptied().await;
}

#[tokio::test]
async fn two_runs_are_kept_apart_by_their_marks() {
    two_runs_are_kept_apart(World::new()).await;
}

#[tokio::test]
async fn two_runs_are_kept_apart_in_their_groups() {
    if let Some(world) = World::with_cgroup() {
        two_runs_are_kept_apart(world).await;
    }
}

async fn a_signal_to_all_reaches_all(mut world: World) {
    let line = "trap 'exit 5' USR1; (trap 'echo child=got; exit' USR1; echo up=1; \
                while :; do sleep 0.1; done) & wait";
    let run = world.start(shell(line));
    world.spawned().await;
    world.screen.value("up").await;
    world.backend.signal(&instance(), run, Signal(10), Whom::All);
    assert_eq!(world.screen.value("child").await, "got");
    assert_eq!(world.exited().await, ExitStatus::Code(5));
    world.kill(run);
    world.emptied().await;
}

#[tokio::test]
async fn a_signal_to_all_reaches_all_marked() {
    a_signal_to_all_reaches_all(World::new()).await;
}

#[tokio::test]
async fn a_signal_to_all_reaches_all_in_a_group() {
    if let Some(world) = World::with_cgroup() {
        a_signal_to_all_reaches_all(world).await;
    }
}

#[tokio::test]
async fn the_group_is_told_and_removed_after_the_run() {
    let Some(mut world) = World::with_cgroup() else { return };
    let run = world.start(shell("sleep 1000 & echo up=1; wait"));
    let pid = world.spawned().await;
    world.screen.value("up").await;
    let told = world.backend.control_group(&instance(), run).unwrap();
    let own = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert!(own.contains(&format!("0::{told}\n")), "{told} {own}");
    let usage = world.backend.usage(&instance(), run).unwrap();
    assert_eq!(usage.tasks, Some(2));
    assert!(usage.memory.unwrap() > 0 && usage.cpu.is_some());
    world.end(run).await;
    // The world checks that nothing is left when it removes its own group.
}

async fn a_check_that_never_ends_is_killed_with_its_children(world: World) {
    let pids = world.path("pids");
    let wait = "while [ ! -s $0 ]; do sleep 0.01; done";
    let line = format!("{RUNAWAY} > $0; {wait}; echo $$ >> $0; exec sleep 1000");
    let argv = vec!["/bin/sh".into(), "-c".into(), (&*line).into(), pids.to_str().unwrap().into()];
    let spec = Arc::new(shell("true"));
    let run = world.backend.run_in_context(
        &instance(),
        &spec,
        Beside::Check,
        argv,
        Duration::from_secs(1),
    );
    assert_eq!(in_time(run).await, CommandEnd::TimedOut);
    // The next one waits for the end of this one.
    let argv = vec!["true".into()];
    let next = world.backend.run_in_context(&instance(), &spec, Beside::Check, argv, DEADLINE);
    assert_eq!(in_time(next).await, CommandEnd::Success);
    let text = std::fs::read_to_string(pids).unwrap();
    let pids: Vec<u32> =
        text.lines().map(|line| line.trim_start_matches("runaway=").parse().unwrap()).collect();
    assert_eq!(pids.len(), 2, "{text}");
    for pid in pids {
        assert!(provost::backend::native::census::read(pid).is_none_or(|p| p.ended), "{pid}");
    }
}

#[tokio::test]
async fn a_check_that_never_ends_is_killed_by_its_mark() {
    a_check_that_never_ends_is_killed_with_its_children(World::new()).await;
}

#[tokio::test]
async fn a_check_that_never_ends_is_killed_in_its_group() {
    if let Some(world) = World::with_cgroup() {
        a_check_that_never_ends_is_killed_with_its_children(world).await;
    }
}

#[tokio::test]
async fn a_check_is_no_part_of_the_run() {
    let mut world = World::new();
    let run = world.start(program("sleep", &["1000"]));
    world.spawned().await;
    let spec = Arc::new(shell("true"));
    let argv = vec!["sh".into(), "-c".into(), (&*format!("{RUNAWAY}; exit 0")).into()];
    let check = world.backend.run_in_context(&instance(), &spec, Beside::Check, argv, DEADLINE);
    assert_eq!(in_time(check).await, CommandEnd::Success);
    assert_eq!(world.backend.usage(&instance(), run).unwrap().tasks, Some(1));
    world.end(run).await;
}
