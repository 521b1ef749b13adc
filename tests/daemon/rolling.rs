//! Several instances of one process get new runs, one after the other.

use crate::support::{Daemon, identities};
use provost::client::{ReloadOptions, Verb};
use std::fs;

const ALL: [&str; 3] = ["web@0", "web@1", "web@2"];

/// Each is ready when its file is there.
fn web(line: &str, rollback: &str) -> String {
    // What ends at once must not be found ready before that is seen.
    let check = match line {
        BAD => "'false'",
        _ => "test, -e, '@DIR@/ready${INSTANCE}'",
    };
    format!(
        "processManagement: {{ settle: 0ms, watchConfig: false, rollback: {rollback} }}
processes:
  web:
    shell: '{line}'
    instances: 3
    env: {{ LINE: '{line}' }}
    restartPolicy: {{ delay: 10ms, maxDelay: 10ms }}
    healthCheck: {{ exec: [{check}], interval: 100ms, onFailure: none }}
"
    )
}

const GOOD: &str = "exec sleep 88803";
const BAD: &str = "exit 3";
const BETTER: &str = "exec sleep 88804";

fn ready(daemon: &Daemon, index: u32) {
    fs::write(daemon.path().join(format!("ready{index}")), "").unwrap();
}

fn not_ready(daemon: &Daemon, index: u32) {
    fs::remove_file(daemon.path().join(format!("ready{index}"))).unwrap();
}

async fn running(rollback: &str) -> Daemon {
    let daemon = Daemon::prepare(|dir| {
        for index in 0..3 {
            fs::write(dir.join(format!("ready{index}")), "").unwrap();
        }
    })
    .with(&web(GOOD, rollback));
    daemon.until_running(&ALL).await;
    daemon
}

/// Waits until one has its new run, which is not ready.
async fn starts_anew(daemon: &Daemon, name: &str, before: u32) {
    let anew = |all: &crate::support::Status| {
        let one = &all[name];
        one.state == "starting" && one.pid.is_some_and(|pid| pid != before)
    };
    daemon.until(&format!("anew: {name}"), anew).await;
}

#[tokio::test]
async fn the_next_waits_until_the_one_before_is_ready() {
    let daemon = running("auto").await;
    let before = identities(&daemon.status().await);
    not_ready(&daemon, 0);
    daemon.save(&web(BETTER, "auto"));
    let client = daemon.client().await;
    let reload = tokio::spawn(async move { client.reload(&ReloadOptions::default()).await });
    starts_anew(&daemon, "web@0", before["web@0"].0).await;
    let during = identities(&daemon.status().await);
    assert_eq!((during["web@1"], during["web@2"]), (before["web@1"], before["web@2"]));
    ready(&daemon, 0);
    let summary = reload.await.unwrap().unwrap();
    assert_eq!(summary.result, "applied", "{summary:?}");
    let after = identities(&daemon.until_running(&ALL).await);
    assert!(ALL.iter().all(|name| before[*name] != after[*name]), "{before:?} {after:?}");
}

#[tokio::test]
async fn a_version_that_does_not_start_touches_one() {
    let daemon = running("auto").await;
    let before = identities(&daemon.status().await);
    daemon.save(&web(BAD, "auto"));
    let summary = daemon.reload().await;
    assert_eq!(summary.result, "rolled-back", "{summary:?}");
    assert_eq!(summary.why, ["web@0 exited with code 3 (3 times)"]);
    let after = identities(&daemon.until_running(&ALL).await);
    assert_ne!(after["web@0"], before["web@0"]);
    assert_eq!((after["web@1"], after["web@2"]), (before["web@1"], before["web@2"]));
}

#[tokio::test]
async fn so_it_does_where_nobody_goes_back_and_a_mended_one_reaches_all() {
    let daemon = running("off").await;
    let before = identities(&daemon.status().await);
    daemon.save(&web(BAD, "off"));
    let summary = daemon.reload().await;
    assert_eq!((&*summary.result, &*summary.failed), ("failed-kept", &["web@0".to_owned()][..]));
    let held: Vec<_> = summary.steps.iter().filter(|step| step.state == "held").collect();
    assert_eq!(held.len(), 2, "{summary:?}");
    let why = "web@0 had its turn before it, and exited with code 3";
    assert!(held.iter().all(|step| step.why.contains(why)), "{summary:?}");
    let status = daemon.status().await;
    let after = identities(&status);
    assert_eq!((after["web@1"], after["web@2"]), (before["web@1"], before["web@2"]));
    assert!(status["web@1"].needs_restart && status["web@2"].needs_restart);
    // Also another daemon in its place leaves them alone, while it tries the first.
    let daemon = daemon.killed_and_again();
    let again = identities(&daemon.status().await);
    assert_eq!((again["web@1"], again["web@2"]), (before["web@1"], before["web@2"]));
    daemon.save(&web(BETTER, "off"));
    let summary = daemon.reload().await;
    assert_eq!(summary.result, "applied", "{summary:?}");
    let status = daemon.until_running(&ALL).await;
    assert!(ALL.iter().all(|name| !status[*name].needs_restart));
    let last = identities(&status);
    assert!(ALL.iter().all(|name| last[*name] != before[*name]));
}

#[tokio::test]
async fn a_restart_of_all_goes_one_by_one() {
    let daemon = running("auto").await;
    let before = identities(&daemon.status().await);
    not_ready(&daemon, 0);
    let client = daemon.client().await;
    let restart = tokio::spawn(async move {
        client.run(Verb::Restart, &["web@*".to_owned()], |_| {}).await.map(|_| ())
    });
    starts_anew(&daemon, "web@0", before["web@0"].0).await;
    let during = identities(&daemon.status().await);
    assert_eq!((during["web@1"], during["web@2"]), (before["web@1"], before["web@2"]));
    ready(&daemon, 0);
    restart.await.unwrap().unwrap();
    let after = identities(&daemon.until_running(&ALL).await);
    assert!(ALL.iter().all(|name| before[*name] != after[*name]), "{before:?} {after:?}");
}
