//! What the service manager is told, and signals.

use crate::support::{Daemon, pids};
use nix::sys::signal::Signal;

const ONE: &str = "processes: { a: { shell: exec sleep 1000 } }";

#[tokio::test]
async fn a_reload_is_told_with_its_time_and_followed_by_ready() {
    let daemon = Daemon::start(ONE);
    daemon.until_running(&["a@0"]).await;
    daemon.save(&ONE.replace("1000", "2000"));
    let reloading = daemon.notified("RELOADING=1");
    assert!(reloading.contains("MONOTONIC_USEC="), "{reloading}");
    daemon.notified("READY=1");
    // Also when the file is not valid.
    daemon.until_generation(2).await;
    daemon.save("processes: [");
    daemon.notified("RELOADING=1");
    daemon.notified("READY=1");
}

#[tokio::test]
async fn a_watchdog_is_fed_though_nothing_happens() {
    let env = [("WATCHDOG_USEC", "200000")];
    let file = |dir: &std::path::Path| std::fs::write(dir.join("processes.yaml"), ONE).unwrap();
    let daemon = Daemon::prepare(file).run_under(&[], &env);
    daemon.until_running(&["a@0"]).await;
    let begin = std::time::Instant::now();
    (0..5).for_each(|_| drop(daemon.notified("WATCHDOG=1")));
    // One per half interval, and no more; what waited already counts for two.
    assert!(begin.elapsed() >= std::time::Duration::from_millis(300), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_stop_that_gets_on_asks_for_its_time() {
    let slow = |time: &str| {
        format!(
            "{{ shell: 'trap \"\" TERM; echo up >@DIR@/up; while :; do sleep 0.1; done', stop: {{ timeout: {time} }} }}"
        )
    };
    let yaml = format!(
        "processes: {{ a: {}, b: {{ shell: exec sleep 1000, dependsOn: [a], stop: {{ timeout: 600s }} }} }}",
        slow("1s")
    );
    let mut daemon = Daemon::start(&yaml);
    daemon.until_running(&["a@0", "b@0"]).await;
    crate::support::wait_for(&daemon.path().join("up"));
    daemon.signal(Signal::SIGTERM);
    daemon.notified("STOPPING=1");
    let extended = daemon.notified("EXTEND_TIMEOUT_USEC=");
    let time = extended.split('=').nth(1).unwrap().trim().parse::<u64>().unwrap();
    assert!(time > 600_000_000 && time < 660_000_000, "{extended}");
    assert!(daemon.ended().success());
}

#[tokio::test]
async fn before_a_restart_processes_are_left_and_the_next_daemon_has_them() {
    let daemon = Daemon::start(
        "processes: { a: { shell: exec sleep 1000 }, b: { shell: exec sleep 1000, dependsOn: [a] } }",
    );
    let before = pids(&daemon.until_running(&["a@0", "b@0"]).await);
    daemon.signal(Signal::SIGUSR1);
    let mut daemon = daemon;
    assert!(daemon.ended().success(), "{}", daemon.log());
    let daemon = daemon.again();
    assert_eq!(pids(&daemon.until_running(&["a@0", "b@0"]).await), before);
}

#[tokio::test]
async fn the_status_line_is_for_people() {
    let daemon = Daemon::start(
        "processes: { a: { shell: exec sleep 1000 }, b: { shell: 'exit 3', restartPolicy: { condition: no } } }",
    );
    daemon.notified("STATUS=1 of 2 running, 1 failed; generation 1");
}

#[tokio::test]
async fn hangup_reloads() {
    let daemon = Daemon::start(
        "processes: { a: { shell: exec sleep 1000 }, b: { shell: exec sleep 1000 } }",
    );
    let before = pids(&daemon.until_running(&["a@0", "b@0"]).await);
    std::fs::write(daemon.path().join("processes.yaml.tmp"), ONE).unwrap();
    std::fs::rename(daemon.path().join("processes.yaml.tmp"), daemon.file()).unwrap();
    daemon.signal(Signal::SIGHUP);
    let after = pids(&daemon.until("b gone", |s| s.len() == 1).await);
    assert_eq!(after["a@0"], before["a@0"]);
}

#[tokio::test]
async fn a_signal_reaches_the_process() {
    let daemon = Daemon::start(
        "processes: { a: { shell: 'trap \"echo got >@DIR@/usr1\" USR1; echo up >@DIR@/up; while :; do sleep 0.05; done' } }",
    );
    let before = pids(&daemon.until_running(&["a@0"]).await);
    let client = daemon.client().await;
    let deadline = std::time::Instant::now() + crate::common::waiting::DEADLINE;
    while !daemon.path().join("up").exists() {
        assert!(std::time::Instant::now() < deadline);
        tokio::task::yield_now().await;
    }
    client.signal("a", "main", 10).await.unwrap();
    while !daemon.path().join("usr1").exists() {
        assert!(std::time::Instant::now() < deadline);
        tokio::task::yield_now().await;
    }
    assert_eq!(pids(&daemon.status().await), before);
}

#[tokio::test]
async fn a_service_manager_that_does_not_read_holds_nothing_up() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("deaf");
    let _deaf = std::os::unix::net::UnixDatagram::bind(&socket).unwrap();
    let daemon = Daemon::prepare(|_| {}).told(&socket, ONE);
    // It answers before the file is applied.
    daemon.until_running(&["a@0"]).await;
    // Each changes the line of the status.
    for _ in 0..300 {
        let client = daemon.client().await;
        client.stop(&["a".into()], |_| {}).await.unwrap();
        client.start(&["a".into()], false, |_| {}).await.unwrap();
    }
    daemon.until_running(&["a@0"]).await;
}
