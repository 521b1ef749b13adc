//! While no daemon runs, the number of a process is given to somebody else's: forced by
//! `ns_last_pid`, in a pid namespace of the test, in which it is the first process.

use super::{exactly, kill, marker, raw, was_doubled};
use crate::common::processes::processes_with;
use crate::common::waiting::DEADLINE;
use crate::namespace::entered;
use crate::support::{Daemon, identities};
use provost::sys::stat::Stat;
use rustix::process::{WaitOptions, waitpid};
use std::fs;
use std::process::{Child, Command};
use std::time::Instant;

const OPTIONS: &[&str] = &["--pid", "--fork", "--mount-proc"];

/// Lets the next process have this number.
fn take_number(pid: u32, command: &mut Command) -> Child {
    const ENOUGH: usize = 1000;
    for _ in 0..ENOUGH {
        fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()).unwrap();
        let mut child = command.spawn().unwrap();
        if child.id() == pid {
            return child;
        }
        // A thread was quicker.
        child.kill().unwrap();
        child.wait().unwrap();
    }
    panic!("the number {pid} is not to be had");
}

/// As the first process of the namespace the test inherits it.
fn kill_and_reap(pid: u32) {
    kill(pid);
    waitpid(Some(raw(pid)), WaitOptions::empty()).unwrap();
}

#[tokio::test]
async fn a_number_that_another_process_got_is_nobodys() {
    let name = "survival_faults::others::a_number_that_another_process_got_is_nobodys";
    if !entered(name, OPTIONS, "") {
        return;
    }
    let marker = marker();
    let file = format!(
        "processes: {{ a: {{ shell: exec sleep {marker}1 }}, b: {{ shell: exec sleep {marker}2 }} }}"
    );
    let mut daemon = Daemon::start(&file);
    let mut foreign = Vec::new();
    for round in ["first", "second"] {
        let before = identities(&daemon.until_running(&["a@0", "b@0"]).await);
        daemon = daemon.killed();
        let pid = before["a@0"].0;
        kill_and_reap(pid);
        foreign.push(take_number(pid, Command::new("sleep").arg("7777777")));
        daemon = daemon.again();
        let status = daemon.until_running(&["a@0", "b@0"]).await;
        let after = identities(&status);
        assert_eq!(before["b@0"], after["b@0"], "{round}");
        assert_ne!(after["a@0"].0, pid, "{round}");
        assert_eq!(status["a@0"].restarts, u32::try_from(foreign.len()).unwrap(), "{round}");
        exactly(&status);
    }
    assert!(daemon.stop().success());
    for child in &mut foreign {
        assert_eq!(child.try_wait().unwrap(), None, "a signal went to somebody else");
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert_eq!(was_doubled(&daemon), None);
}

/// Somebody's session has the number of a run, and its leader is gone.
#[tokio::test]
async fn a_session_that_another_process_began_is_not_ours() {
    let name = "survival_faults::others::a_session_that_another_process_began_is_not_ours";
    if !entered(name, OPTIONS, "") {
        return;
    }
    let marker = marker();
    let daemon = Daemon::start(&format!(
        "processes: {{ a: {{ shell: exec sleep {marker}1 }}, b: {{ shell: exec sleep {marker}2 }} }}"
    ));
    let before = identities(&daemon.until_running(&["a@0", "b@0"]).await);
    let daemon = daemon.killed();
    let pid = before["a@0"].0;
    kill_and_reap(pid);
    let mut command = Command::new("setsid");
    let mut leader = take_number(pid, command.args(["sh", "-c", "sleep 77777778 & exit"]));
    leader.wait().unwrap();
    // While it is being executed it has no command line.
    let deadline = Instant::now() + DEADLINE;
    let foreign = loop {
        let found = processes_with("sleep 77777778");
        if !found.is_empty() {
            break found;
        }
        assert!(Instant::now() < deadline, "it is not there");
        std::thread::yield_now();
    };
    assert_eq!(Stat::of(foreign[0]).unwrap().session, pid);

    let mut daemon = daemon.again();
    let status = daemon.until_running(&["a@0", "b@0"]).await;
    assert_eq!(identities(&status)["b@0"], before["b@0"]);
    assert_eq!(processes_with("sleep 77777778"), foreign, "a signal went to somebody else");
    exactly(&status);
    assert!(daemon.stop().success());
    assert_eq!(processes_with("sleep 77777778"), foreign, "a signal went to somebody else");
    kill_and_reap(foreign[0]);
}
