//! What came of runs is told, whenever the daemon is killed: the log is written by a thread of its own,
//! and here it is held up while that happens.

use crate::common::waiting::until;
use crate::support::{Daemon, full_pipe};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

const ENDING: &str = "processManagement: { watchConfig: false }
processes:
  fails: { shell: exit 7, restartPolicy: { condition: no } }
  works: { shell: 'true', restartPolicy: { condition: no } }
  lacks: { command: '@DIR@/nothing', restartPolicy: { condition: no } }
  stays: { shell: exec sleep 1000 }
";

/// How often each of these was told.
fn told<'a>(daemon: &Daemon, lines: &[&'a str]) -> BTreeMap<&'a str, usize> {
    let log = daemon.log();
    lines.iter().map(|line| (*line, log.matches(line).count())).collect()
}

fn each<'a>(lines: &[&'a str], times: usize) -> BTreeMap<&'a str, usize> {
    lines.iter().map(|line| (*line, times)).collect()
}

const ENDS: [&str; 6] = [
    "fails@0: exited with code 7\n",
    "fails@0: failed: it exited with code 7",
    "works@0: exited with code 0\n",
    "works@0: completed\n",
    "lacks@0: failed: ",
    "stays@0: was ended by SIGTERM, as asked\n",
];

/// Where the number of the last that was told is kept.
fn kept(daemon: &Daemon) -> PathBuf {
    daemon.path().join("state/told")
}

fn number(daemon: &Daemon) -> Option<u64> {
    std::fs::read_to_string(kept(daemon)).ok()?.trim().parse().ok()
}

/// A daemon whose log nobody reads, in which all of that has happened, and which is killed.
async fn silenced() -> Daemon {
    let (stderr, _unread) = full_pipe();
    let daemon = Daemon::prepare(|_| {}).logging_to(stderr, ENDING);
    let state = |status: &crate::support::Status, name: &str, state: &str| {
        status.get(name).is_some_and(|found| found.state == state)
    };
    daemon
        .until("all have ended", |status| {
            state(status, "fails@0", "failed")
                && state(status, "works@0", "completed")
                && state(status, "lacks@0", "failed")
                && state(status, "stays@0", "running")
        })
        .await;
    // What is no more is told of as well.
    daemon.save(&ENDING.replace("  stays: { shell: exec sleep 1000 }\n", ""));
    assert_eq!(daemon.provost(&["reload"]).0, 0);
    daemon.killed()
}

#[tokio::test]
async fn what_one_that_was_killed_has_not_told_the_next_one_tells_once() {
    let daemon = silenced().await.again();
    ENDS.iter().for_each(|line| daemon.logged(line));
    let events = daemon.provost(&["events"]).1;
    assert!(events.contains("exited with code 7"), "{events}");
    // Two of each of three, and one of the last.
    until("it is kept that they were told", || number(&daemon) == Some(7));
    let daemon = daemon.killed_and_again();
    // What the third one says, it says after that.
    let lines = ["took over from another supervisor"];
    until("the third took over", || told(&daemon, &lines) == each(&lines, 2));
    assert_eq!(told(&daemon, &ENDS), each(&ENDS, 1), "{}", daemon.log());
}

#[tokio::test]
async fn where_it_was_not_kept_that_it_was_told_it_is_told_once_more() {
    let daemon = silenced().await.again();
    ENDS.iter().for_each(|line| daemon.logged(line));
    let daemon = daemon.killed();
    std::fs::write(kept(&daemon), "nonsense").unwrap();
    let daemon = daemon.again();
    until("all are told twice", || told(&daemon, &ENDS) == each(&ENDS, 2));
    until("that is kept", || number(&daemon) == Some(7));
}

/// Has nothing logged that is not as bad as that.
async fn set_level(daemon: &Daemon, level: &str) {
    let private = format!("unix:path={}", daemon.path().join("private").display());
    let link = zbus::connection::Builder::address(private.as_str()).p2p().build().await.unwrap();
    let (path, name) = ("/org/freedesktop/LogControl1", "org.freedesktop.LogControl1");
    let log = zbus::Proxy::new(&link, "org.provost.Provost1", path, name).await.unwrap();
    log.set_property("LogLevel", level).await.unwrap();
}

fn on_request() -> String {
    ENDING.replace("watchConfig: false", "autoStart: false")
}

#[tokio::test]
async fn what_the_log_leaves_out_is_not_told_later() {
    let daemon = Daemon::start(&on_request());
    set_level(&daemon, "err").await;
    assert_eq!(daemon.provost(&["start", "works"]).0, 0);
    until("as good as told", || number(&daemon) == Some(2));
    let daemon = daemon.killed_and_again();
    daemon.logged("took over");
    assert_eq!(told(&daemon, &ENDS), each(&ENDS, 0));
}

/// That it exited is a warning and waits to be written, that it completed is left out.
#[tokio::test]
async fn what_the_log_leaves_out_says_nothing_of_what_waits() {
    let (stderr, _unread) = full_pipe();
    let daemon = Daemon::prepare(|_| {}).logging_to(stderr, &on_request());
    set_level(&daemon, "warning").await;
    assert_eq!(daemon.provost(&["start", "works"]).0, 0);
    let daemon = daemon.killed().again();
    daemon.logged("works@0: exited with code 0\n");
}

/// Nobody can read what was written to nobody.
#[tokio::test]
async fn what_could_not_be_written_is_told_by_the_next() {
    let (stderr, reader) = full_pipe();
    drop(reader);
    let daemon = Daemon::prepare(|_| {}).logging_to(stderr, &on_request());
    let before = rests_of_the_log(&daemon);
    assert_eq!(daemon.provost(&["start", "works"]).0, 0);
    until("it was tried", || rests_of_the_log(&daemon) >= before + 3);
    let daemon = daemon.killed().again();
    ENDS[2..4].iter().for_each(|line| daemon.logged(line));
}

/// How often the thread that writes the log has waited for something.
fn rests_of_the_log(daemon: &Daemon) -> u64 {
    let threads = std::fs::read_dir(format!("/proc/{}/task", daemon.pid())).unwrap();
    let read = |path: PathBuf| std::fs::read_to_string(path).unwrap_or_default();
    let mut threads = threads.map(|thread| thread.unwrap().path());
    let log = threads.find(|thread| read(thread.join("comm")) == "log\n").unwrap();
    let status = read(log.join("status"));
    let rests = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    rests.unwrap().trim().parse().unwrap()
}

/// The reader stops in the middle of many lines: those that it has read are not told again, but for the
/// few of which it was not kept yet that they were written.
#[tokio::test]
async fn what_was_read_is_not_told_again_with_the_rest() {
    // No room for more than some lines: what is told was read, but for those.
    let (reader, stderr) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    rustix::pipe::fcntl_setpipe_size(&stderr, 4096).unwrap();
    let yaml = ENDING.replace("works: {", "works: { instances: 100,");
    let daemon = Daemon::prepare(|_| {}).logging_to(stderr, &yaml);
    let is_over = |state: &str| ["completed", "failed", "running"].contains(&state);
    daemon
        .until("all", |all| all.len() == 103 && all.values().all(|one| is_over(&one.state)))
        .await;
    let ends = |text: &str| -> BTreeSet<String> {
        let ends = text.lines().filter(|line| line.ends_with(": completed"));
        ends.map(str::to_owned).collect()
    };
    let (mut read, mut buffer) = (Vec::new(), [0; 1024]);
    while ends(&String::from_utf8_lossy(&read)).len() < 50 {
        let length = rustix::io::read(&reader, &mut buffer).unwrap();
        read.extend_from_slice(&buffer[..length]);
    }
    let read = ends(&String::from_utf8_lossy(&read));
    let daemon = daemon.killed();
    drop(reader);
    let daemon = daemon.again();
    until("the rest is told", || number(&daemon) == Some(204));
    let told = ends(&daemon.log());
    let twice = read.intersection(&told).count();
    // A pipe has room for many lines that nobody has read: those are missing, and not told twice.
    assert!(twice <= 16, "{twice} of {}", read.len());
}
