//! `provost up`, and whoever reads what it writes.

use crate::support::{Daemon, full_pipe, wait_for};
use nix::sys::signal::Signal::{SIGHUP, SIGTERM};
use std::io::Read;
use std::process::{Command, Stdio};

const CRASHING: &str = "processes:
  a: { shell: exit 1, restartPolicy: { delay: 1ms, maxDelay: 1ms } }
  b: { shell: exec sleep 1000 }
";

/// Ends only when it is told twice: by SIGTERM, and then by a file.
const SLOW_TO_END: &str = "processManagement: { watchConfig: false }
processes:
  slow:
    shell: 'trap \"while ! test -e @DIR@/go; do sleep 0.05; done; echo bye >@DIR@/bye; exit 0\" TERM; echo >@DIR@/up; while :; do sleep 0.05; done'
    stop: { timeout: 10m }
";

fn shell(line: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", line]);
    command
}

/// With a terminal of its own.
fn terminal(line: &str) -> Command {
    let mut command = Command::new("script");
    command.args(["-qec", line, "/dev/null"]).stdout(Stdio::null());
    command
}

#[tokio::test]
async fn a_log_that_nobody_reads_holds_nothing_up() {
    let (stderr, _unread) = full_pipe();
    let mut daemon = Daemon::prepare(|_| {}).logging_to(stderr, CRASHING);
    daemon.until("fifty restarts", |s| s.get("a@0").is_some_and(|a| a.restarts >= 50)).await;
    assert_eq!(daemon.stop().code(), Some(0));
}

#[tokio::test]
async fn a_log_whose_reader_is_gone_holds_nothing_up() {
    let (stderr, reader) = full_pipe();
    drop(reader);
    let mut daemon = Daemon::prepare(|_| {}).logging_to(stderr, CRASHING);
    daemon.until("fifty restarts", |s| s.get("a@0").is_some_and(|a| a.restarts >= 50)).await;
    assert_eq!(daemon.stop().code(), Some(0));
}

#[test]
fn the_output_is_shown_to_its_last_line() {
    let yaml = "processes: { a: { shell: seq 1 100000, restartPolicy: { condition: no } } }";
    let mut daemon = Daemon::prepare(|_| {}).up(yaml, |line| {
        let mut command = shell(line);
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        command
    });
    let mut output = String::new();
    daemon.child.stdout.take().unwrap().read_to_string(&mut output).unwrap();
    assert_eq!(output.lines().count(), 100_000);
    assert!(output.ends_with("a | 100000\n"));
    assert_eq!(daemon.ended().code(), Some(0));
}

#[tokio::test]
async fn output_that_nobody_reads_does_not_hold_up_the_end() {
    let (stdout, _unread) = full_pipe();
    let yaml = "processes: { a: { shell: 'yes $$' } }";
    let daemon = Daemon::prepare(|_| {}).up(yaml, |line| {
        let mut command = shell(line);
        command.stdout(stdout).stderr(Stdio::null());
        command
    });
    let mut daemon = daemon.listening();
    daemon.until_running(&["a@0"]).await;
    daemon.signal(SIGTERM);
    assert_eq!(daemon.ended().code(), Some(0));
}

#[tokio::test]
async fn a_terminal_that_closes_ends_everything_in_order_however_often_that_is_told() {
    let daemon = Daemon::prepare(|_| {}).up(SLOW_TO_END, terminal);
    let mut daemon = daemon.listening();
    wait_for(&daemon.path().join("up"));
    // The shell tells its jobs, and the kernel tells the group in the foreground.
    daemon.signal_up(SIGHUP);
    daemon.until("stopping", |s| s["slow@0"].state == "stopping").await;
    daemon.signal_up(SIGHUP);
    // Logging out sends this as well.
    daemon.signal_up(SIGTERM);
    // Answered by one who has seen the signals: they were there before.
    for _ in 0..20 {
        assert_eq!(daemon.status().await["slow@0"].state, "stopping");
    }
    std::fs::write(daemon.path().join("go"), "").unwrap();
    daemon.ended();
    assert!(daemon.path().join("bye").exists(), "it was killed");
}

#[tokio::test]
async fn nohup_is_respected() {
    let daemon =
        Daemon::prepare(|_| {}).up(SLOW_TO_END, |line| terminal(&format!("trap '' HUP; {line}")));
    let mut daemon = daemon.listening();
    wait_for(&daemon.path().join("up"));
    daemon.save(&format!("{SLOW_TO_END}  b: {{ shell: exec sleep 1000 }}\n"));
    daemon.signal_up(SIGHUP);
    // It reloads, as one does that has no terminal.
    daemon.until_running(&["slow@0", "b@0"]).await;
    std::fs::write(daemon.path().join("go"), "").unwrap();
    daemon.signal_up(SIGTERM);
    daemon.ended();
}

#[test]
fn whoever_ignores_the_ends_of_children_starts_a_daemon_that_does_not() {
    let yaml = "processes:
  main: { shell: exit 17, essential: true, restartPolicy: { condition: no } }
";
    let mut daemon = Daemon::prepare(|_| {})
        .up(yaml, |line| shell(&line.replace("exec ", "exec env --ignore-signal=CHLD ")));
    assert_eq!(daemon.ended().code(), Some(17));
}
