//! There is no room where the daemon keeps what it knows, or the disk fails.

use super::{exactly, is_root, kill, marker, until, was_doubled};
use crate::namespace::entered;
use crate::support::{Daemon, Prepared, Status, identities};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

const OPTIONS: &[&str] = &["--mount", "--propagation", "private"];

/// A small file system, which goes with the namespace, and the file that fills it.
struct Small(PathBuf);

impl Small {
    fn at(path: &Path) -> Small {
        fs::create_dir_all(path).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=256k,mode=0700", "tmpfs"])
            .arg(path)
            .status()
            .unwrap();
        assert!(mounted.success());
        Small(path.join("filler"))
    }

    fn fill(&self) {
        let mut file = File::create(&self.0).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
        while file.write_all(&[0]).is_ok() {}
    }

    fn make_room(&self) {
        fs::remove_file(&self.0).unwrap();
    }
}

fn three(marker: &str) -> String {
    let all = ["a", "b", "c"].map(|name| super::entry(name, &format!("{marker}1")));
    // What fails in here is to stay.
    format!("processManagement: {{ rollback: off }}\nprocesses:\n{}", all.concat())
}

const UP: [&str; 3] = ["a@0", "b@0", "c@0"];

fn count(daemon: &Daemon, text: &str) -> usize {
    daemon.log().matches(text).count()
}

#[tokio::test]
async fn with_no_room_it_goes_on_and_keeps_again_what_it_can() {
    let name = "survival_faults::full::with_no_room_it_goes_on_and_keeps_again_what_it_can";
    if !is_root() || !entered(name, OPTIONS, "") {
        return;
    }
    let marker = marker();
    let mut place = None;
    let prepared = Daemon::prepare(|dir| place = Some(Small::at(&dir.join("state"))));
    let place = place.unwrap();
    let crash = "  crash: { shell: 'echo >>@DIR@/crashes; exit 3', restartPolicy: \
                 { delay: 1ms, jitter: 0, maxAttempts: 5 } }\n";
    let file = three(&marker);
    let mut daemon = prepared.with(&file);
    daemon.until_running(&UP).await;

    place.fill();
    // What runs, what ends and what is new is looked after all the same.
    daemon.save(&(file.clone() + crash));
    kill(daemon.status().await["a@0"].pid.unwrap());
    daemon.logged("the state cannot be kept");
    let status = daemon
        .until("all went on", |all| {
            all.get("crash@0").is_some_and(|crash| crash.state == "failed")
                && all["a@0"].restarts == 1
                && UP.iter().all(|name| all[*name].state == "running")
        })
        .await;
    let crashes = fs::read_to_string(daemon.path().join("crashes")).unwrap();
    assert_eq!(crashes.lines().count(), 6, "five attempts more, and no spinning");
    exactly(&status);
    assert_eq!(count(&daemon, "the state cannot be kept"), 1);
    assert_eq!(count(&daemon, "its run cannot be written down"), 1);

    // Killed now, what is known is old: nothing is doubled.
    daemon = daemon.killed_and_again();
    let status = daemon.until_running(&UP).await;
    exactly(&without_the_crashing(&status));
    assert_eq!(was_doubled(&daemon), None);
    daemon.until("a start that could not be kept", |all| all.contains_key("crash@0")).await;

    let before = count(&daemon, "the state is kept again");
    kill(status["b@0"].pid.unwrap());
    let old = status["b@0"].pid;
    daemon.until("b is back", |all| all["b@0"].state == "running" && all["b@0"].pid != old).await;
    place.make_room();
    until("it is kept again", || count(&daemon, "the state is kept again") > before);
    let before = identities(&without_the_crashing(&daemon.until_running(&UP).await));
    let mut daemon = daemon.killed_and_again();
    let status = without_the_crashing(&daemon.until_running(&UP).await);
    assert_eq!(before, identities(&status));
    exactly(&status);
    assert_eq!(was_doubled(&daemon), None);
    assert!(daemon.stop().success());
}

/// It begins again with each daemon that does not know of it, and may run for a moment.
fn without_the_crashing(status: &Status) -> Status {
    let mut status = status.clone();
    status.remove("crash@0");
    status
}

/// Not even of which boot it is could be written.
#[tokio::test]
async fn with_no_room_from_the_beginning() {
    let name = "survival_faults::full::with_no_room_from_the_beginning";
    if !is_root() || !entered(name, OPTIONS, "") {
        return;
    }
    let marker = marker();
    let mut place = None;
    let prepared: Prepared = Daemon::prepare(|dir| place = Some(Small::at(&dir.join("state"))));
    let place = place.unwrap();
    place.fill();
    let mut daemon = prepared.with(&three(&marker));
    daemon.logged("the state cannot be kept");
    daemon.until_running(&UP).await;
    for _ in 0..2 {
        daemon = daemon.killed_and_again();
        let status = daemon.until_running(&UP).await;
        exactly(&status);
        assert_eq!(was_doubled(&daemon), None);
    }
    place.make_room();
    daemon.logged("the state is kept again");
    let before = identities(&daemon.until_running(&UP).await);
    let mut daemon = daemon.killed_and_again();
    assert_eq!(before, identities(&daemon.until_running(&UP).await));
    assert!(daemon.stop().success());
}

#[tokio::test]
async fn what_operators_stop_is_written_when_there_is_room() {
    let name = "survival_faults::full::what_operators_stop_is_written_when_there_is_room";
    if !is_root() || !entered(name, OPTIONS, "") {
        return;
    }
    let marker = marker();
    let mut place = None;
    let state = ".local/state/provost";
    let prepared = Daemon::prepare(|dir| place = Some(Small::at(&dir.join(state))));
    let place = place.unwrap();
    let mut daemon = prepared.with(&three(&marker));
    daemon.until_running(&UP).await;
    place.fill();
    daemon.client().await.stop(&["a".into()], |_| {}).await.unwrap();
    daemon.logged("what operators stop is not kept");
    // Meanwhile the next daemon has it from the other directory.
    daemon = daemon.killed_and_again();
    let status = daemon.until_running(&["b@0", "c@0"]).await;
    assert_eq!(status["a@0"].desired, "down");
    daemon.client().await.stop(&["b".into()], |_| {}).await.unwrap();
    place.make_room();
    daemon.logged("what operators stop is kept again");
    let kept = fs::read_to_string(daemon.path().join(state).join("stopped")).unwrap();
    assert!(kept.contains("\"a\"") && kept.contains("\"b\"") && !kept.contains("\"c\""), "{kept}");
    assert!(daemon.stop().success());
}

#[tokio::test]
async fn a_disk_that_fails_holds_nothing_up() {
    if !super::killed::can_trace() {
        return;
    }
    let marker = marker();
    let daemon = Daemon::start(&three(&marker));
    daemon.until_running(&UP).await;
    let trace = ["strace", "-D", "-f", "-qq", "-o", "/dev/null", "-e", "inject=fsync:error=EIO"];
    let daemon = daemon.killed().again_under(&trace, &[]);
    daemon.notified("READY=1");
    daemon.client().await.stop(&["a".into()], |_| {}).await.unwrap();
    daemon.logged("what operators stop is not kept");
    let before = identities(&daemon.until_running(&["b@0", "c@0"]).await);
    let mut daemon = daemon.killed_and_again();
    let status = daemon.until_running(&["b@0", "c@0"]).await;
    assert_eq!((identities(&status), &*status["a@0"].desired), (before, "down"));
    assert!(daemon.stop().success());
}

/// Where nothing starts by itself, nobody stopped what is not running.
#[tokio::test]
async fn what_nobody_stopped_is_not_kept_as_stopped() {
    let mut daemon = Daemon::start(
        "processManagement: { autoStart: false }\nprocesses: { a: { shell: exec sleep 1 } }",
    );
    assert!(daemon.stop().success());
    let stopped = daemon.path().join(".local/state/provost/stopped");
    let kept = fs::read_to_string(stopped).unwrap_or_default();
    assert!(!kept.contains("\"process\":\"a\""), "{kept}");
}
