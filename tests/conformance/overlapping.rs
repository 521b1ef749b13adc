//! Two runs of one instance.

use crate::supervisor::*;
use crate::world::{World, instance, program};
use provost::client::{ReloadOptions, ReloadSummary, Verb};
use provost::core::event::{Event, ExitStatus};
use provost::core::ids::{Run, Slot};
use provost::core::spec::{Readiness, Signal};
use std::fs;

/// The next event, of which run it has to be.
async fn ends(world: &mut World, wanted: Run, by: Signal) {
    match world.event().await {
        Event::Exited { run, status: ExitStatus::Signal { signal, .. }, .. } => {
            assert_eq!((run, signal), (wanted, by));
        }
        other => panic!("{other:?}"),
    }
    match world.event().await {
        Event::Emptied { run, .. } => assert_eq!(run, wanted),
        other => panic!("{other:?}"),
    }
}

pub async fn a_run_beside_another_is_told_from_it(mut world: World) {
    let mut spec = program("sleep", &["1000"]);
    spec.readiness = Readiness::Notify;
    let mut before = world.start_in(Slot::A, spec.clone());
    let mut pid_before = world.spawned().await;
    for (slot, is_next) in [(Slot::B, true), (Slot::A, false), (Slot::A, true)] {
        let run = world.start_in(slot, spec.clone());
        let pid = world.spawned().await;
        assert_ne!(pid, pid_before);
        assert!(world.is_there(pid) && world.is_there(pid_before));
        if world.nature.is_none() {
            for (pid, run) in [(pid, run), (pid_before, before)] {
                assert_eq!(world.backend.run_of(pid), Some((instance(), run)));
                assert!(world.backend.usage(&instance(), run).is_some());
            }
            let groups = [run, before].map(|run| world.backend.control_group(&instance(), run));
            assert!(groups[0].is_none() || groups[0] != groups[1], "{groups:?}");
        }
        // Whichever ends, the other is as it was.
        if is_next {
            world.terminate(before);
            ends(&mut world, before, Signal::TERM).await;
            (before, pid_before) = (run, pid);
        } else {
            world.kill(run);
            ends(&mut world, run, Signal::KILL).await;
        }
        assert!(world.is_there(pid_before));
        assert!(world.is_quiet());
    }
    world.kill(before);
    ends(&mut world, before, Signal::KILL).await;
}

/// A version is ready when its file is there.
fn file(version: u32, more: &str) -> String {
    format!(
        "  one:\n    command: [sleep, \"@MARK@\"]\n    log: {{ target: none }}\n    \
         overlap: true\n    env: {{ VERSION: {version} }}\n    \
         healthCheck: {{ exec: [test, -e, \"@DIR@/well{version}\"], interval: 100ms }}\n    \
         restartPolicy: {{ delay: 20ms, maxDelay: 20ms }}\n{more}"
    )
}

async fn changing(it: &Supervisor, processes: &str) -> tokio::task::JoinHandle<ReloadSummary> {
    it.save(processes);
    let client = it.client().await;
    tokio::spawn(async move { client.reload(&ReloadOptions::default()).await.unwrap() })
}

/// Waits until there are two: the one that serves, and the one that is to replace it.
async fn two(it: &Supervisor) -> [u32; 2] {
    let all = it.until("two", |all| all["one@0"].overlap_pid.is_some()).await;
    let one = &all["one@0"];
    assert_eq!((&*one.state, &*one.phase), ("running", "overlapping"));
    [one.pid.unwrap(), one.overlap_pid.unwrap()]
}

async fn only(it: &Supervisor, pid: u32) {
    let is_it = |all: &Status| {
        let one = &all["one@0"];
        let is_settled = one.overlap_pid.is_none() && !one.needs_restart;
        one.state == "running" && one.pid == Some(pid) && is_settled
    };
    it.until(&format!("only {pid}"), is_it).await;
    assert_eq!(it.marked(), [pid]);
}

pub async fn a_new_run_begins_beside_the_old_one(mut it: Supervisor) {
    it.settings = ", settle: 0ms, watchConfig: false";
    fs::write(it.path("well1"), "").unwrap();
    it.run(&file(1, "")).await;
    let first = it.until_all("running", &["one@0"]).await["one@0"].pid.unwrap();

    // Ready under another daemon than that which started it.
    let summary = changing(&it, &file(2, "")).await;
    let [old, second] = two(&it).await;
    assert_eq!(old, first);
    it.kill();
    summary.abort();
    assert_eq!(it.marked().len(), 2);
    it.start().await;
    assert_eq!(two(&it).await, [first, second]);
    fs::write(it.path("well2"), "").unwrap();
    only(&it, second).await;

    // One that does not come up changes nothing.
    let summary = it.reload(&file(3, "    startTimeout: 300ms\n")).await;
    assert_eq!(summary.result, "rolled-back", "{summary:?}\n{}", it.log());
    only(&it, second).await;

    // It ends while there is no daemon: so it did not come up.
    let summary = changing(&it, &file(4, "")).await;
    let [_, fourth] = two(&it).await;
    it.kill();
    summary.abort();
    it.kill_process(fourth);
    it.start().await;
    only(&it, second).await;

    // A restart, and back into the place where the first was.
    let client = it.client().await;
    client.run(Verb::Restart, &["one".into()], |_| {}).await.unwrap();
    let all = it.until("anew", |all| all["one@0"].pid != Some(second)).await;
    only(&it, all["one@0"].pid.unwrap()).await;

    // Both end when it is stopped.
    let summary = changing(&it, &file(5, "")).await;
    two(&it).await;
    client.run(Verb::Stop, &["one".into()], |_| {}).await.unwrap();
    assert_eq!(it.marked(), Vec::<u32>::new());
    assert_eq!(it.status().await["one@0"].state, "down");
    summary.await.unwrap();
    it.stop();
}
