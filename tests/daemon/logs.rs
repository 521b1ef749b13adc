//! Logs in files, from the outside: killed daemons, and whoever follows.

use crate::common::log_files::{numbers, whole};
use crate::common::waiting::until;
use crate::support::{Daemon, wait_for};
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// `provost logs` against this daemon.
fn logs(daemon: &Daemon, arguments: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_provost"))
        .arg("--socket")
        .arg(daemon.path().join("private"))
        .arg("logs")
        .args(arguments)
        .env_remove("XDG_RUNTIME_DIR")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

#[tokio::test]
async fn no_line_is_lost_when_the_daemon_is_killed() {
    const LINES: usize = 300_000;
    // One write for each line; the other end is told by a file, for the daemon is gone.
    let yaml = format!(
        "processes:
  a:
    shell: 'i=0; while [ $i -lt {LINES} ]; do i=$((i + 1)); echo $i; done; echo >@DIR@/done'
    logFile: log
    log: {{ maxSize: 32K, maxFiles: 1000 }}
    restartPolicy: {{ condition: no }}
"
    );
    let mut daemon = Daemon::start(&yaml);
    let log = daemon.path().join("log");
    until("a rotation", || whole(&log).1 > 3);
    daemon.child.kill().unwrap();
    daemon.child.wait().unwrap();
    assert!(!daemon.path().join("done").exists(), "it was over before the daemon was killed");
    wait_for(&daemon.path().join("done"));
    // What writes the log ends by itself, and then all is there.
    let expected = numbers(LINES);
    until("the last line", || whole(&log).0.len() >= expected.len());
    let (text, files) = whole(&log);
    assert!(text == expected, "{} lines", text.lines().count());
    assert!(files > 20, "{files}");
    let path = log.display().to_string();
    until("the end of the writer", || crate::common::processes::processes_with(&path).is_empty());
}

#[tokio::test]
async fn instances_share_a_file_and_mix_no_lines() {
    const LINES: usize = 20_000;
    let yaml = format!(
        "processes:
  a:
    shell: 'i=0; while [ $i -lt {LINES} ]; do i=$((i + 1)); echo ${{INSTANCE}} $i; done'
    instances: 3
    logFile: log
    log: {{ maxSize: 32K, maxFiles: 1000 }}
    restartPolicy: {{ condition: no }}
"
    );
    let daemon = Daemon::start(&yaml);
    let completed = |name: &'static str| {
        move |status: &crate::support::Status| {
            status.get(name).is_some_and(|a| a.state == "completed")
        }
    };
    for name in ["a@0", "a@1", "a@2"] {
        daemon.until("completed", completed(name)).await;
    }
    // A run is over when its lines are written.
    let (text, _) = whole(&daemon.path().join("log"));
    for instance in 0..3 {
        let prefix = format!("{instance} ");
        let found = text.lines().filter_map(|line| line.strip_prefix(&prefix));
        assert!(found.eq((1..=LINES).map(|n| n.to_string())), "{instance}");
    }
    assert_eq!(text.lines().count(), 3 * LINES);
}

#[tokio::test]
async fn a_log_in_files_is_followed_on_the_command_line_each_line_once() {
    const LINES: usize = 100_000;
    let yaml = format!(
        "processes:
  a:
    shell: 'seq -f \"old %.0f\" 1 3000; until test -e @DIR@/go; do sleep 0.02; done; seq 1 {LINES}; exec sleep 1000'
    logFile: log
    log: {{ maxSize: 16K, maxFiles: 1000 }}
"
    );
    let daemon = Daemon::start(&yaml);
    let log = daemon.path().join("log");
    until("the past", || whole(&log).0.ends_with("old 3000\n"));
    // They are in two files.
    assert!(fs::read_to_string(&log).unwrap().lines().count() < 2_000);
    let mut follow = logs(&daemon, &["a", "-f", "-n", "2000"]);
    let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines();
    let mut line = || lines.next().unwrap().unwrap();
    for n in 1001..=3000 {
        assert_eq!(line(), format!("old {n}"));
    }
    fs::write(daemon.path().join("go"), "").unwrap();
    for n in 1..=LINES {
        assert_eq!(line(), n.to_string());
    }
    assert!(whole(&log).1 > 20);
    let few = logs(&daemon, &["a", "-n", "2"]).wait_with_output().unwrap();
    assert_eq!(few.stdout, format!("{}\n{LINES}\n", LINES - 1).into_bytes());
    follow.kill().unwrap();
    follow.wait().unwrap();
    let path = log.display().to_string();
    until("the end of the follower", || {
        crate::common::processes::processes_with(&format!("--follow {path}")).is_empty()
    });
}

#[tokio::test]
async fn who_never_stops_writing_can_be_followed() {
    let yaml = "processes:
  file: { shell: 'exec yes', logFile: log, log: { maxSize: 64K, maxFiles: 3 } }
  screen: { shell: 'exec yes' }
";
    let daemon = Daemon::start(yaml);
    daemon.until_running(&["file@0", "screen@0"]).await;
    for name in ["file", "screen"] {
        let mut follow = logs(&daemon, &[name, "-f", "-n", "5"]);
        let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines();
        let mut seen = 0;
        while seen < 1000 {
            seen += usize::from(lines.next().unwrap().unwrap() == "y");
        }
        follow.kill().unwrap();
        follow.wait().unwrap();
    }
}
