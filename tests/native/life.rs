//! The order of events, and what happens to a run at each moment.

use crate::world::*;
use provost::backend::Backend;
use provost::backend::native::identity::{Identity, caller};
use provost::backend::native::launch::{Launcher, Recipe};
use provost::backend::sockets::Socket;
use provost::core::event::{Event, ExitStatus, SpawnStage, Whom};
use provost::core::ids::{Generation, Run, Slot};
use provost::core::spec::Signal;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd;
use std::sync::Arc;

#[tokio::test]
async fn five_hundred_at_once_are_all_seen() {
    const MANY: u64 = 500;
    let mut world = World::new();
    for _ in 0..MANY {
        world.start(program("true", &[]));
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
        let before = steps.insert(run, step).unwrap_or(0);
        assert_eq!(before + 1, step, "{run:?}");
    }
    assert_eq!(pids.len(), MANY as usize);
}

/// Its process is there, and waits.
#[tokio::test]
async fn what_is_ended_before_it_is_let_go_never_becomes_its_command() {
    let ways: [fn(&World, Run); 2] =
        [World::terminate, |world, run| world.backend.kill(&instance(), run)];
    for end in ways {
        let mut world = World::new();
        let trace = world.path("trace");
        let run = world.start(shell(&format!("echo >{}; exec sleep 1000", trace.display())));
        world.backend.prepare();
        assert!(world.backend.usage(&instance(), run).is_some(), "there is a process");
        end(&world, run);
        world.backend.begin();
        let error = world.spawn_failed().await;
        assert_eq!(error.reason, "it was stopped before it was started");
        assert!(!trace.exists());
    }
}

#[tokio::test]
async fn terminating_asks_with_the_signal() {
    let mut world = World::new();
    // What is left over says itself that it is there: between the fork of a shell and its exec, a
    // handler of the shell would swallow the signal.
    let left = "sh -c 'echo up=1; exec sleep 1000'";
    let run = world.start(shell(&format!("trap 'exit 9' TERM; while :; do {left} & wait; done")));
    world.spawned().await;
    world.screen.value("up").await;
    world.terminate(run);
    assert_eq!(world.exited().await, ExitStatus::Code(9));
    // Its sleep is left over, and gets the signal when asked again.
    world.terminate(run);
    world.emptied().await;
}

#[tokio::test]
async fn one_that_ignores_the_signal_is_killed() {
    let mut world = World::new();
    let run = world.start(shell("trap '' TERM; echo up=1; while :; do sleep 1000; done"));
    let pid = world.spawned().await;
    world.screen.value("up").await;
    world.terminate(run);
    // It is still there: it answers another signal in the only way it has.
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(status.contains("SigIgn:\t0000000000004000"), "{status}");
    world.kill(run);
    assert_eq!(world.exited().await, killed());
    world.emptied().await;
}

/// The helper of the next test: a daemon that has made a process and never lets it go on.
#[tokio::test]
#[ignore = "run by another test, which kills it"]
async fn helper_holds_a_process_before_it_is_recorded() {
    let launcher = Launcher::new().unwrap();
    let recipe = recipe("echo ran=1; sleep 1000");
    let stdout = std::io::stdout();
    let waiting = launcher.begin(&recipe, stdout.as_fd(), None).unwrap();
    println!("\nheld={}", waiting.pid);
    std::future::pending::<()>().await;
    drop(waiting);
}

fn recipe(script: &str) -> Recipe {
    let identity = Identity { record: caller(&BTreeMap::new()), credentials: None };
    Recipe {
        argv: vec!["/bin/sh".into(), "-c".into(), script.into()],
        env: BTreeMap::new(),
        path_is_own: false,
        cwd: "/".into(),
        identity,
        umask: 0o022,
        nice: None,
        max_files: None,
        log_file: None,
        pid_file: None,
        sockets: Vec::new(),
        is_limited: false,
        mark: None,
    }
}

/// Its process is there, and is nothing but this program.
#[tokio::test]
async fn what_is_prepared_waits_until_it_may_begin() {
    let mut world = World::new();
    let (instance, run) = (instance(), Run(1));
    let spec = Arc::new(shell("echo up=1; sleep 1000"));
    let own = std::fs::read_link("/proc/self/exe").unwrap();
    world.backend.spawn(&instance, run, Slot::A, Generation(1), &spec);
    assert!(children().is_empty());
    world.backend.prepare();
    let [pid] = children()[..] else { panic!("{:?}", children()) };
    world.backend.prepare();
    assert_eq!(children(), [pid]);
    assert_eq!(std::fs::read_link(format!("/proc/{pid}/exe")).unwrap(), own);
    world.backend.begin();
    assert_eq!(world.spawned().await, pid);
    world.screen.value("up").await;
    world.kill(run);
    assert_eq!(world.exited().await, killed());
    world.emptied().await;
}

fn children() -> Vec<u32> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let lists = tasks.map(|task| std::fs::read_to_string(task.path().join("children")).unwrap());
    let all: String = lists.collect();
    all.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

/// It is not left waiting for them, nor is who waits for it.
#[tokio::test]
async fn one_whose_sockets_cannot_be_passed_ends() {
    // It is where the ended are noticed.
    let _world = World::new();
    let launcher = Launcher::new().unwrap();
    let mut recipe = recipe("echo ran=1");
    // More than one message carries. The configuration refuses as many.
    let many = (0..100).map(|number| {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        (format!("s{number}").into(), Socket::new(socket.into()))
    });
    recipe.take_sockets(many.collect());
    let mut waiting = launcher.begin(&recipe, launcher.null(), None).unwrap();
    let error = in_time(waiting.go(&recipe)).await.unwrap_err();
    assert_eq!(error.stage, SpawnStage::Sockets, "{error:?}");
    assert_eq!(in_time(waiting.exit).await, Ok(ExitStatus::Code(127)));
}

#[tokio::test]
async fn a_daemon_killed_before_the_record_leaves_nothing() {
    let mut world = World::new();
    let itself = std::env::current_exe().unwrap();
    let helper = "life::helper_holds_a_process_before_it_is_recorded";
    let args = ["--exact", helper, "--ignored", "--nocapture"];
    let run = world.start(program(itself.to_str().unwrap(), &args));
    let pid = world.spawned().await;
    let held = world.screen.pid("held").await;
    let process = provost::backend::native::census::read(held).unwrap();
    assert_eq!((process.parent, process.ended), (pid, false));
    world.backend.signal(&instance(), run, Signal::KILL, Whom::Main);
    assert_eq!(world.exited().await, killed());
    // The run is empty only when the held process, its descendant, is gone too.
    world.emptied().await;
    gone(held).await;
    in_time(world.backend.drained()).await;
    assert!(!String::from_utf8_lossy(&world.screen.take()).contains("ran=1"));
}
