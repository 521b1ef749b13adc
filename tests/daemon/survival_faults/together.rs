//! Two daemons in one place; and what processes leave behind.

use super::killed::{Tracer, can_trace};
use super::{exactly, marker, pidfd, readable_within, until, was_doubled};
use crate::common::processes;
use crate::common::processes::{processes_with, start_of};
use crate::support::{Daemon, identities};
use provost::sys::stat::Stat;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

fn two(marker: &str) -> String {
    let all = ["a", "b"].map(|name| super::entry(name, &format!("{marker}1")));
    format!("processes:\n{}", all.concat())
}

const UP: [&str; 2] = ["a@0", "b@0"];

/// Another one in the place of a daemon.
fn another(daemon: &Daemon) -> Child {
    let dir = daemon.path();
    Command::new(env!("CARGO_BIN_EXE_provostd"))
        .args(["--user", "--bus", "none", "--config"])
        .arg(daemon.file())
        .arg("--socket")
        .arg(dir.join("private"))
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("HOME", dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn is_refused(other: Child, holder: u32) {
    let output = other.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("another daemon (pid {holder}) runs with")), "{said}");
}

#[tokio::test]
async fn the_second_one_refuses() {
    let marker = marker();
    let mut daemon = Daemon::start(&two(&marker));
    let before = identities(&daemon.until_running(&UP).await);
    is_refused(another(&daemon), daemon.pid());
    // Also where nobody can be asked at the socket.
    fs::rename(daemon.path().join("private"), daemon.path().join("elsewhere")).unwrap();
    is_refused(another(&daemon), daemon.pid());
    fs::rename(daemon.path().join("elsewhere"), daemon.path().join("private")).unwrap();
    let status = daemon.until_running(&UP).await;
    assert_eq!(before, identities(&status));
    exactly(&status);
    assert!(daemon.stop().success());
}

#[tokio::test]
async fn of_two_that_begin_at_once_one_refuses() {
    let marker = marker();
    let mut daemon = Daemon::start(&two(&marker));
    let before = identities(&daemon.until_running(&UP).await);
    for round in 0..12 {
        daemon = daemon.killed();
        // Which is the first is anybody's guess.
        let mut others = vec![another(&daemon)];
        daemon = daemon.again_without_waiting();
        others.push(another(&daemon));
        let all = [others[0].id(), daemon.pid(), others[1].id()].map(pidfd);
        let ended = || all.iter().filter(|fd| readable_within(fd, Duration::ZERO)).count();
        until("two refuse", || ended() >= 2);
        let mut refused = 0;
        for mut other in others {
            match other.try_wait().unwrap() {
                Some(status) => {
                    assert_eq!(status.code(), Some(1), "{round}");
                    refused += 1;
                }
                None => {
                    other.kill().unwrap();
                    other.wait().unwrap();
                }
            }
        }
        let own = daemon.child.try_wait().unwrap();
        assert_eq!(refused + i32::from(own.is_some()), 2, "{round}");
        daemon = daemon.killed_and_again();
        let status = daemon.until_running(&UP).await;
        assert_eq!(before, identities(&status), "{round}");
        exactly(&status);
    }
    assert_eq!(was_doubled(&daemon), None);
    assert!(daemon.stop().success());
}

/// What it was just starting has its lock until it has descriptors of its own, and its socket until
/// it executes: both are made to take long.
#[tokio::test]
async fn what_a_killed_daemon_was_starting_does_not_keep_the_next_one_out() {
    if !can_trace() {
        return;
    }
    let marker = marker();
    for call in ["close_range", "execveat"] {
        let mut daemon = Daemon::start("processes: {}");
        let how = format!("inject={call}:delay_enter=2000000");
        let tracer = Tracer::following(daemon.pid(), &how);
        daemon.save(&two(&marker));
        let of_daemon = daemon.pid();
        let is_child = |pid: u32| Stat::of(pid).is_some_and(|stat| stat.parent == of_daemon);
        until("one is being started", || processes::all().any(is_child));
        let child = processes::all().find(|pid| is_child(*pid)).unwrap();
        daemon = daemon.killed();
        let start = start_of(child);
        daemon = daemon.again();
        if call == "execveat" {
            // It was not waited for.
            assert!(start != 0 && start_of(child) == start, "{call}: it is gone");
        }
        drop(tracer);
        exactly(&daemon.until_running(&UP).await);
        assert_eq!(was_doubled(&daemon), None);
        assert!(daemon.stop().success());
    }
}

/// The main process ends and leaves one that has a session of its own, another parent and the
/// output of the run.
#[tokio::test]
async fn what_holds_the_output_of_an_adopted_run_hides_no_end() {
    let marker = marker();
    let mut daemon = Daemon::start(&format!(
        "processes: {{ a: {{ shell: '(setsid sleep {marker}1 &) ; exec sleep {marker}2', \
         restartPolicy: {{ delay: 1h }}, stop: {{ timeout: 1h }} }} }}"
    ));
    for round in ["own", "adopted"] {
        daemon.until_running(&["a@0"]).await;
        until("both are there", || processes_with(&format!("sleep {marker}")).len() == 2);
        if round == "adopted" {
            daemon = daemon.killed_and_again();
            daemon.until_running(&["a@0"]).await;
        }
        super::kill(processes_with(&format!("sleep {marker}2"))[0]);
        // What it left is ended with it.
        daemon.until("its end is seen", |all| all["a@0"].state == "backoff").await;
        assert_eq!(processes_with(&format!("sleep {marker}")), [0_u32; 0], "{round}");
        daemon.client().await.restart(&["a".into()], |_| {}).await.unwrap();
    }
    daemon.until_running(&["a@0"]).await;
    until("both are there", || processes_with(&format!("sleep {marker}")).len() == 2);
    // A stop of what was adopted takes all of it.
    daemon = daemon.killed_and_again();
    daemon.client().await.stop(&["a".into()], |_| {}).await.unwrap();
    assert_eq!(processes_with(&format!("sleep {marker}")), [0_u32; 0]);
    assert!(daemon.stop().success());
}
