//! What the first process of a container has to do.

use crate::common::waiting::DEADLINE;
use crate::container::{BOTH, Image, Which, children, field};
use crate::support::wait_for;
use nix::sys::signal::Signal;
use std::fs;
use std::time::Instant;

/// A parent, its child that ends at once, and a grandchild that becomes an orphan: ten thousand.
async fn reaps_ten_thousand_orphans(which: Which) {
    let yaml = "processes:
  orphans:
    shell: |
      while ! test -e @DIR@/go; do sleep 0.05; done
      i=0; while [ $i -lt 10000 ]; do ( : & ); i=$((i + 1)); done
      echo >@DIR@/done
      exec sleep 1000
";
    let Some(mut container) = Image::of(which, yaml).started() else { return };
    let before = container.until_running(&["orphans@0"]).await;
    let first = container.first();
    assert_eq!(field(first, "NSpid").unwrap().split_whitespace().last(), Some("1"));
    let (memory, descriptors) = (container.memory(), container.descriptors());
    fs::write(container.path().join("go"), "").unwrap();
    wait_for(&container.path().join("done"));
    let deadline = Instant::now() + DEADLINE;
    // Its one child is left: no zombie, and no orphan.
    while children(first).len() > 1 {
        assert!(Instant::now() < deadline, "{} children are left", children(first).len());
        std::thread::yield_now();
    }
    let after = container.until_running(&["orphans@0"]).await;
    assert_eq!(after["orphans@0"].pid, before["orphans@0"].pid);
    let grown = container.memory().saturating_sub(memory);
    assert!(grown < 2048, "{grown} KiB more");
    assert!(container.descriptors() <= descriptors + 2, "{}", container.descriptors());
}

#[tokio::test]
async fn provostd_reaps_ten_thousand_orphans() {
    reaps_ten_thousand_orphans(Which::Provostd).await;
}

#[tokio::test]
async fn up_reaps_ten_thousand_orphans() {
    reaps_ten_thousand_orphans(Which::Up).await;
}

/// SIGTERM and SIGINT are about the container, SIGHUP is about the files, and the rest is nobody's.
#[tokio::test]
async fn no_signal_is_passed_on() {
    let yaml = "processes:
  ears:
    shell: |
      for name in HUP INT QUIT USR1 USR2 PIPE ALRM WINCH CONT; do
        trap \"echo $name >>@DIR@/got\" $name
      done
      echo >@DIR@/up
      while :; do sleep 0.05; done
";
    for which in BOTH {
        let Some(mut container) = Image::of(which, yaml).started() else { return };
        let before = container.until_running(&["ears@0"]).await;
        wait_for(&container.path().join("up"));
        use Signal::*;
        for signal in [SIGUSR1, SIGUSR2, SIGPIPE, SIGALRM, SIGWINCH, SIGCONT, SIGQUIT, SIGHUP] {
            container.signal(signal);
        }
        let client = container.client().await;
        for _ in 0..20 {
            client.status(&[]).await.unwrap();
        }
        // What is told to it comes, and nothing came before.
        client.signal("ears", "main", SIGWINCH as i32).await.unwrap();
        wait_for(&container.path().join("got"));
        container.until_running(&["ears@0"]).await;
        assert_eq!(fs::read_to_string(container.path().join("got")).unwrap(), "WINCH\n");
        let after = container.until_running(&["ears@0"]).await;
        assert_eq!(after["ears@0"].pid, before["ears@0"].pid, "{which:?}");
    }
}

#[tokio::test]
async fn the_end_of_an_essential_process_is_the_containers() {
    for which in BOTH {
        for (end, code) in [("exit 0", 0), ("exit 42", 42), ("kill -KILL $$", 137)] {
            let yaml = format!(
                "processes:
  other: {{ shell: exec sleep 1000 }}
  main:
    shell: 'test -e @DIR@/go || exec sleep 0.01; {end}'
    essential: true
    dependsOn: [other]
    restartPolicy: {{ condition: no }}
"
            );
            let yaml = yaml.replace("test -e @DIR@/go || exec sleep 0.01; ", "");
            let Some(mut container) = Image::of(which, &yaml).started() else { return };
            let status = container.ended();
            assert_eq!(status.code(), Some(code), "{which:?} {end}\n{}", container.log());
        }
    }
}

#[tokio::test]
async fn it_is_stopped_in_the_order_of_the_graph_whatever_does_not_listen() {
    let server = |name: &str| {
        format!(
            "trap \"echo {name} >>@DIR@/order; exit 0\" TERM; echo >@DIR@/{name}.up; while :; do sleep 0.01; done"
        )
    };
    let yaml = format!(
        "processes:
  db: {{ shell: '{}' }}
  api: {{ shell: '{}', dependsOn: [db] }}
  deaf:
    shell: 'trap \"\" TERM; echo >@DIR@/deaf.up; while :; do sleep 1000; done'
    dependsOn: [db]
    stop: {{ timeout: 200ms }}
  loner: {{ shell: 'setsid sh -c \"trap \\\"\\\" TERM HUP; sleep 1000\" & exec sleep 1000', stop: {{ timeout: 200ms }} }}
",
        server("db"),
        server("api")
    );
    for which in BOTH {
        let Some(mut container) = Image::of(which, &yaml).started() else { return };
        container.until_running(&["db@0", "api@0", "deaf@0", "loner@0"]).await;
        for name in ["db", "api", "deaf"] {
            wait_for(&container.path().join(format!("{name}.up")));
        }
        container.signal(Signal::SIGTERM);
        assert_eq!(container.ended().code(), Some(0), "{which:?}\n{}", container.log());
        // Its log is whole when it has ended; who follows its events may miss the last of them.
        let log = container.log();
        let order = fs::read_to_string(container.path().join("order")).unwrap();
        assert_eq!(order, "api\ndb\n", "{which:?}\n{log}");
        let at = |said: &str| {
            log.find(said).unwrap_or_else(|| panic!("{which:?}: no {said:?} in\n{log}"))
        };
        assert!(at("deaf@0: still there 200ms after") < at("deaf@0: stopped;"), "{log}");
        assert!(at("deaf@0: stopped;") < at("db@0: stopping:"), "{log}");
        assert!(at("loner@0: was ended by SIGTERM") < at("loner@0: stopped;"), "{log}");
    }
}
