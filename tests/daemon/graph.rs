//! Order, health and restarts with real processes.

use crate::support::{Daemon, Status, free_port, pids};

#[tokio::test]
async fn a_dependent_waits_for_health_and_stops_first() {
    let port = free_port();
    let daemon = Daemon::start(&format!(
        "processes:
  web:
    command: [python3, -m, http.server, '{port}', --bind, 127.0.0.1]
    healthCheck: {{ url: 'http://127.0.0.1:{port}/', interval: 1s }}
  app:
    shell: echo up >>@DIR@/order; trap 'echo app stopped >>@DIR@/order; exit 0' TERM; sleep 1000 & wait
    dependsOn: {{ web: healthy }}
"
    ));
    let status = daemon.until_running(&["web@0", "app@0"]).await;
    assert_eq!(status["web@0"].health, "healthy");
    assert!(status["web@0"].started.unwrap() < status["app@0"].started.unwrap());

    let client = daemon.client().await;
    let outcome = client.stop(&["web".into()], |_| {}).await.unwrap();
    assert!(outcome[0].is_success(), "{outcome:?}");
    let status = daemon.status().await;
    assert_eq!(status["web@0"].state, "down");
    assert_eq!(status["app@0"].state, "waiting");
    assert!(status["app@0"].reason.contains("stopped"), "{}", status["app@0"].reason);
    assert_eq!(std::fs::read_to_string(daemon.path().join("order")).unwrap(), "up\napp stopped\n");

    // A start of what waits says why not; with what it depends on it comes back.
    let refused = client.start(&["app".into()], false, |_| {}).await.unwrap();
    assert_eq!(refused[0].result, "dependency");
    client.start(&["web".into()], false, |_| {}).await.unwrap();
    daemon.until_running(&["web@0", "app@0"]).await;
}

/// What a process had open is closed some time before its end can be seen, here much memory, and a
/// check that comes meanwhile fails.
#[tokio::test]
async fn a_crash_is_no_illness() {
    const CHECK: &str = "[ \"$(cat large)\" = \"$(cat pid)\" ] || exit 1
rm crash 2>/dev/null || exit 0
kill -KILL $(cat pid)
while ls /proc/$(cat pid)/fd 2>/dev/null | grep -q .; do :; done
exit 1
";
    const LARGE: &str = "import os, signal
os.write(os.memfd_create('memory'), bytes(128 << 20))
open('large', 'w').write(str(os.getpid()))
signal.pause()
";
    let prepared = Daemon::prepare(|dir| {
        std::fs::write(dir.join("check"), CHECK).unwrap();
        std::fs::write(dir.join("large.py"), LARGE).unwrap();
    });
    let daemon = prepared.with(
        "processes:
  large:
    command: [python3, large.py]
    cwd: @DIR@
    pidFile: '@DIR@/pid'
    healthCheck: { exec: [sh, check], interval: 100ms, failureThreshold: 1, onFailure: stop }
    restartPolicy: { delay: 0, maxDelay: 0 }
",
    );
    for crash in 1..=5 {
        daemon.until("healthy", |all| all["large@0"].health == "healthy").await;
        std::fs::write(daemon.path().join("crash"), "").unwrap();
        let ended =
            |all: &Status| all["large@0"].state == "failed" || all["large@0"].restarts == crash;
        let status = daemon.until("the crash", ended).await;
        assert_ne!(status["large@0"].state, "failed", "{}", status["large@0"].reason);
    }
    assert!(!daemon.log().contains("unhealthy"), "{}", daemon.log());
}

#[tokio::test]
async fn a_crash_is_followed_by_another_run_and_told() {
    let daemon = Daemon::start(
        "processes:
  flaky:
    shell: 'test -e @DIR@/go && exec sleep 1000; exit 7'
    restartPolicy: { delay: 50ms, maxDelay: 100ms }
  once:
    shell: 'exit 0'
    restartPolicy: { condition: on-failure }
  never:
    shell: 'exit 4'
    restartPolicy: { condition: no }
  limited:
    shell: 'exit 5'
    restartPolicy: { delay: 10ms, maxAttempts: 2 }
",
    );
    let status = daemon
        .until("three restarts, and the others at their ends", |s| {
            s["flaky@0"].restarts >= 3
                && s["limited@0"].state == "failed"
                && s["once@0"].state == "completed"
                && s["never@0"].state == "failed"
        })
        .await;
    assert!(status["never@0"].reason.contains("code 4"), "{}", status["never@0"].reason);
    assert_eq!(status["limited@0"].restarts, 2);
    assert!(status["limited@0"].reason.contains("maxAttempts"), "{}", status["limited@0"].reason);
    std::fs::write(daemon.path().join("go"), "").unwrap();
    daemon.until_running(&["flaky@0"]).await;
}

#[tokio::test]
async fn a_process_that_falls_ill_is_restarted() {
    let daemon = Daemon::start(
        "processes:
  ill:
    shell: exec sleep 1000
    restartPolicy: { delay: 0 }
    healthCheck:
      exec: [test, '!', -e, @DIR@/ill]
      interval: 100ms
      failureThreshold: 2
",
    );
    let before = pids(&daemon.until_running(&["ill@0"]).await);
    std::fs::write(daemon.path().join("ill"), "").unwrap();
    daemon.until("ended by its check", |s| s["ill@0"].result == "unhealthy").await;
    std::fs::remove_file(daemon.path().join("ill")).unwrap();
    let after = daemon.until_running(&["ill@0"]).await;
    assert_ne!(pids(&after), before);
    assert!(after["ill@0"].history.iter().any(|line| line.kind == "unhealthy"));
}

#[tokio::test]
async fn a_policy_takes_effect_without_a_restart() {
    let yaml = "processes: { a: { shell: exec sleep 1000, restartPolicy: { condition: always } } }";
    let daemon = Daemon::start(yaml);
    let before = pids(&daemon.until_running(&["a@0"]).await);
    daemon.save(&yaml.replace("always", "no"));
    daemon.until_generation(2).await;
    assert_eq!(pids(&daemon.status().await), before);
    daemon.client().await.signal("a", "main", 9).await.unwrap();
    daemon.until("failed by the new policy", |s| s["a@0"].state == "failed").await;
}

#[tokio::test]
async fn instances_are_numbered_scaled_and_rolled() {
    let file = |n: u32, sleep: u32| {
        format!(
            "processes:
  w:
    instances: {n}
    shell: echo $N-${{INSTANCE}} >>@DIR@/log.${{INSTANCE}}; exec sleep {sleep}
    env: {{ N: 'n${{INSTANCE}}' }}
"
        )
    };
    let daemon = Daemon::start(&file(2, 1000));
    let two = pids(&daemon.until_running(&["w@0", "w@1"]).await);
    let log = |n: u32| std::fs::read_to_string(daemon.path().join(format!("log.{n}")));
    daemon.save(&file(3, 1000));
    let three = pids(&daemon.until_running(&["w@0", "w@1", "w@2"]).await);
    assert_eq!(log(1).unwrap(), "n1-1\n");
    assert_eq!((three["w@0"], three["w@1"]), (two["w@0"], two["w@1"]));
    daemon.save(&file(1, 1000));
    let one = pids(&daemon.until("one left", |s| s.len() == 1).await);
    assert_eq!(one["w@0"], two["w@0"]);
    daemon.save(&file(1, 2000));
    daemon.until_generation(4).await;
    let new = pids(&daemon.until_running(&["w@0"]).await);
    assert_ne!(new["w@0"], one["w@0"]);
}

#[tokio::test]
async fn enable_and_disable_edit_the_file_in_place() {
    let yaml = "# mine\nprocesses:\n  a:   # the first\n    shell: exec sleep 1000\n  b:\n    enabled: true   # for now\n    shell: exec sleep 1000\n";
    let daemon = Daemon::start(yaml);
    daemon.until_running(&["a@0", "b@0"]).await;
    let client = daemon.client().await;
    client.set_enabled(&["b".into()], false).await.unwrap();
    let now = std::fs::read_to_string(daemon.file()).unwrap();
    assert_eq!(now, yaml.replace("true ", "false "));
    let status = daemon.until("b down", |s| s["b@0"].state == "down").await;
    assert_eq!(status["a@0"].state, "running");
    assert!(client.start(&["b".into()], false, |_| {}).await.is_err());
    client.start(&["b".into()], true, |_| {}).await.unwrap();
    daemon.until_running(&["b@0"]).await;
    client.set_enabled(&["b".into()], true).await.unwrap();
    assert_eq!(std::fs::read_to_string(daemon.file()).unwrap(), yaml);
}
