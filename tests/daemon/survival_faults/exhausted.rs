//! The daemon may open no more files, or make no more processes.

use super::killed::{Tracer, can_trace};
use super::{exactly, kill, marker, until, was_doubled};
use crate::common::processes::processes_with;
use crate::support::{Daemon, pids};
use provost::sys::stat::Stat;
use std::fs;
use std::process::Command;

fn many(count: usize) -> (String, Vec<String>) {
    let marker = marker();
    let names: Vec<String> = (0..count).map(|n| format!("p{n:02}")).collect();
    // One at a time it comes back quickly, and it never gives up.
    let policy = "restartPolicy: { delay: 50ms, maxDelay: 400ms, maxAttempts: null }";
    let entries = names.iter().map(|name| {
        let shell = super::only_one(name, &format!("{marker}1"));
        format!("  {name}: {{ shell: '{shell}', {policy} }}\n")
    });
    let file = format!("processes:\n{}", entries.collect::<String>());
    (file, names.iter().map(|name| format!("{name}@0")).collect())
}

/// Processor time in ticks: what a busy loop would use all of.
fn ticks(pid: u32) -> u64 {
    Stat::of(pid).unwrap().ticks
}

/// Changes how many files a daemon may open; more than it was given it can never have.
fn may_open(daemon: &Daemon, files: u32) {
    let limit = format!("--nofile={files}:4096");
    let pid = daemon.pid().to_string();
    assert!(Command::new("prlimit").args(["--pid", &pid, &limit]).status().unwrap().success());
}

#[tokio::test]
async fn with_too_many_open_files() {
    let (file, names) = many(30);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let daemon = Daemon::prepare(|dir| fs::write(dir.join("processes.yaml"), "{}").unwrap());
    let mut daemon = daemon.run_under(&["prlimit", "--nofile=4096:4096"], &[]);
    may_open(&daemon, 40);
    daemon.save(&file);
    // It says what failed and at which stage, and tries again, later each time.
    daemon.logged("cannot start: making the process: Too many open files");
    let failures = || daemon.log().matches("Too many open files").count();
    let some = failures();
    until("it tries again", || failures() > some + 20);
    may_open(&daemon, 4096);
    daemon.until_running(&names).await;
    assert_eq!(was_doubled(&daemon), None);
    // One that cannot have as many as it needs to go on with all is followed by one that can.
    let taken_over = daemon.log().matches("took over").count();
    daemon = daemon.killed().again_under(&["prlimit", "--nofile=40:40"], &[]);
    until("it took over", || daemon.log().matches("took over").count() > taken_over);
    let some = daemon.log().matches("Too many open files").count();
    until("it has not enough", || daemon.log().matches("Too many open files").count() > some);
    // With room for some, those that it cannot look after are not started a second time. How many
    // come back is a matter of how many descriptors are left.
    let ended = || daemon.log().matches("was ended by SIGKILL").count();
    let before = ended();
    there().into_iter().step_by(2).for_each(kill);
    until("an end is seen", || ended() > before);
    assert_eq!(was_doubled(&daemon), None);
    daemon = daemon.killed_and_again();
    let status = daemon.until_running(&names).await;
    exactly(&status);
    assert_eq!(was_doubled(&daemon), None);
    assert!(daemon.stop().success());
}

/// The processes of this test.
fn there() -> Vec<u32> {
    processes_with(&format!("sleep {}", marker()))
}

/// `clone3` makes processes and threads.
#[tokio::test]
async fn with_no_process_to_be_had() {
    if !can_trace() {
        return;
    }
    let (file, names) = many(6);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut daemon = Daemon::start(&file);
    for round in 0..3 {
        let before = pids(&daemon.until_running(&names).await);
        let said = || daemon.log().matches("Resource temporarily unavailable").count();
        let (some, used) = (said(), ticks(daemon.pid()));
        let tracer = Tracer::of(daemon.pid(), "inject=clone3:error=EAGAIN:when=1..30");
        before.values().for_each(|pid| kill(*pid));
        let status = daemon
            .until("all run again", |all| {
                let now = pids(all);
                names.iter().all(|name| now.get(*name).is_some_and(|pid| *pid != before[*name]))
            })
            .await;
        drop(tracer);
        exactly(&status);
        assert!(said() > some, "{round}: it says why");
        let used = ticks(daemon.pid()) - used;
        assert!(used < 100 * 20, "it spins: {used} ticks");
        assert_eq!(was_doubled(&daemon), None);
    }
    assert!(daemon.stop().success());
}

/// Where not even a thread can be had there is no daemon, and it says so.
#[tokio::test]
async fn with_no_thread_to_begin_with() {
    if !can_trace() {
        return;
    }
    for when in 1..=2 {
        let daemon = Daemon::start("processes: {}");
        let how = format!("inject=clone3:error=EAGAIN:when={when}+");
        let trace = ["strace", "-D", "-f", "-qq", "-o", "/dev/null", "-e", &how];
        let mut daemon = daemon.killed().again_under(&trace, &[]);
        let ended = daemon.ended();
        assert_eq!(ended.code(), Some(1), "{when}: {}", daemon.log());
        assert!(!daemon.log().contains("panicked"), "{when}: {}", daemon.log());
    }
}
