//! A stop is finished when all of it is gone.

use crate::common::processes::processes_with;
use crate::common::waiting::DEADLINE;
use crate::support::Daemon;
use nix::sys::signal::Signal;
use std::time::Instant;

#[tokio::test]
async fn a_double_forked_grandchild_in_its_own_session_is_stopped_too() {
    let marker = format!("55{}", std::process::id());
    let daemon = Daemon::start(&format!(
        "processes:
  tree:
    shell: '(setsid sh -c \"sleep 1000.{marker} & sleep 1000.{marker}\" &) ; echo ready >@DIR@/up; exec sleep 1000.{marker}'
    stop: {{ timeout: 2s }}
"
    ));
    daemon.until_running(&["tree@0"]).await;
    let deadline = Instant::now() + DEADLINE;
    while processes_with(&format!("sleep 1000.{marker}")).len() < 3 {
        assert!(Instant::now() < deadline);
        tokio::task::yield_now().await;
    }
    let client = daemon.client().await;
    let outcome = client.stop(&["tree".into()], |_| {}).await.unwrap();
    assert!(outcome[0].is_success(), "{outcome:?}");
    assert_eq!(processes_with(&format!("sleep 1000.{marker}")), [0u32; 0]);
}

#[tokio::test]
async fn what_a_crash_leaves_behind_is_gone_before_the_next_run() {
    let marker = format!("66{}", std::process::id());
    let daemon = Daemon::start(&format!(
        "processes:
  messy:
    shell: 'setsid sleep 1000.{marker} & exit 1'
    restartPolicy: {{ delay: 10ms, maxDelay: 20ms }}
    stop: {{ timeout: 1s }}
"
    ));
    daemon.until("five restarts", |s| s["messy@0"].restarts >= 5).await;
    let left = processes_with(&format!("sleep 1000.{marker}"));
    assert!(left.len() <= 2, "{left:?}");
    daemon.client().await.stop(&["messy".into()], |_| {}).await.unwrap();
    assert_eq!(processes_with(&format!("sleep 1000.{marker}")), [0u32; 0]);
}

#[tokio::test]
async fn a_child_that_ignores_term_is_killed_after_its_timeout() {
    let daemon = Daemon::start(
        "processes:
  deaf:
    shell: 'trap \"\" TERM; echo deaf >@DIR@/up; while :; do sleep 1000; done'
    stop: { timeout: 300ms }
",
    );
    let pid = daemon.until_running(&["deaf@0"]).await["deaf@0"].pid.unwrap();
    let deadline = Instant::now() + DEADLINE;
    while !daemon.path().join("up").exists() {
        assert!(Instant::now() < deadline);
        tokio::task::yield_now().await;
    }
    let outcome = daemon.client().await.stop(&["deaf".into()], |_| {}).await.unwrap();
    assert!(outcome[0].is_success(), "{outcome:?}");
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    let history = &daemon.status().await["deaf@0"].history;
    assert!(history.iter().any(|line| line.kind == "killing"), "{history:?}");
}

#[tokio::test]
async fn everything_stops_in_order_and_a_second_signal_kills() {
    let mut daemon = Daemon::start(
        "processes:
  deaf:
    shell: 'trap \"\" TERM; echo deaf >@DIR@/up; while :; do sleep 1000; done'
    stop: { timeout: 1h }
",
    );
    daemon.until_running(&["deaf@0"]).await;
    let deadline = Instant::now() + DEADLINE;
    while !daemon.path().join("up").exists() {
        assert!(Instant::now() < deadline);
        tokio::task::yield_now().await;
    }
    daemon.signal(Signal::SIGTERM);
    daemon.notified("STOPPING=1");
    daemon.until("stopping", |s| s["deaf@0"].state == "stopping").await;
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.ended().code(), Some(0));
}

#[tokio::test]
async fn the_end_of_an_essential_process_is_the_supervisors() {
    let mut daemon = Daemon::start(
        "processes:
  main: { shell: 'while ! test -e @DIR@/go; do sleep 0.05; done; exit 17', essential: true, restartPolicy: { condition: no } }
  other: { shell: exec sleep 1000 }
",
    );
    daemon.until_running(&["main@0", "other@0"]).await;
    std::fs::write(daemon.path().join("go"), "").unwrap();
    assert_eq!(daemon.ended().code(), Some(17));
}
