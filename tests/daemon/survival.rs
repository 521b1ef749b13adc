//! The daemon is killed, and another one begins in its place.

use crate::common::ledger;
use crate::common::processes::{end_by, processes_with};
use crate::common::waiting::DEADLINE;
use crate::support::{Daemon, Prepared, Store, identities, pids, wait_for};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::time::{Duration, Instant};

const FILE: &str = r#"
processes:
  web:
    command: sleep
    args: ["8801${INSTANCE}"]
    instances: 3
  tree: { shell: 'sleep 88021 & setsid sleep 88022 & echo up >@DIR@/tree; wait' }
  job: { shell: 'echo once >>@DIR@/job', restartPolicy: { condition: "no" } }
  crash: { shell: 'exit 3', restartPolicy: { delay: 1h, maxDelay: 1h, jitter: 0 } }
  off: { shell: exec sleep 88030 }
  checked:
    shell: exec sleep 88040
    healthCheck: { exec: ["true"], interval: 1h }
"#;

async fn running(daemon: &Daemon) -> BTreeMap<String, (u32, u64)> {
    wait_for(&daemon.path().join("tree"));
    let status = daemon
        .until("at rest", |all| {
            let up = ["web@0", "web@1", "web@2", "tree@0", "checked@0"];
            up.iter().all(|name| all.get(*name).is_some_and(|p| p.state == "running"))
                && all["job@0"].state == "completed"
                && all["crash@0"].state == "backoff"
        })
        .await;
    identities(&status)
}

#[tokio::test]
async fn everything_goes_on_as_it_was() {
    let daemon = Daemon::start(FILE);
    daemon.client().await.stop(&["off".into()], |_| {}).await.unwrap();
    daemon.until("off is down", |all| all["off@0"].state == "down").await;
    let before = running(&daemon).await;
    let crash = daemon.status().await["crash@0"].clone();

    let daemon = daemon.killed_and_again();
    let after = running(&daemon).await;
    assert_eq!(before, after);
    let status = daemon.status().await;
    // An operator's word, a delay and a one-shot outlive it.
    assert_eq!((&*status["off@0"].state, &*status["off@0"].desired), ("down", "down"));
    assert_eq!(status["crash@0"].restarts, crash.restarts);
    assert!(status["crash@0"].next_restart.unwrap() <= crash.next_restart.unwrap());
    assert_eq!(fs::read_to_string(daemon.path().join("job")).unwrap(), "once\n");
    assert_eq!(status["checked@0"].health, "healthy");
    // It is the generation that it was, and nothing was changed.
    let manager = daemon.client().await.manager().await.unwrap();
    assert_eq!((manager.generation, &*manager.config_state), (1, "applied"));
    assert_eq!(processes_with("sleep 8801").len(), 3);

    // They are its own now: a stop takes all of each.
    let mut daemon = daemon;
    assert!(daemon.stop().success());
    for marker in ["sleep 8801", "sleep 8802", "sleep 8804"] {
        assert_eq!(processes_with(marker), [0_u32; 0], "{marker}");
    }
}

/// Half of it is valid, and says that `b` is to be stopped.
#[tokio::test]
async fn half_a_file_is_not_what_the_next_one_begins_with() {
    let first = "processes:\n  a: { command: [sleep, \"88901\"] }\n";
    let second = "  b: { command: [sleep, \"88902\"] }\n";
    let daemon = Daemon::start(&format!("{first}{second}"));
    let before = identities(&daemon.until_running(&["a@0", "b@0"]).await);
    let daemon = daemon.killed();
    let mut file = fs::File::create(daemon.file()).unwrap();
    file.write_all(first.as_bytes()).unwrap();
    let daemon = daemon.again_without_waiting();
    let begun = noticed(&daemon, &mut file);
    file.write_all(second.as_bytes()).unwrap();
    drop(file);
    let took = begun.elapsed();
    daemon.notified("READY=1");
    let status = daemon.until_running(&["a@0", "b@0"]).await;
    // Else the machine is so busy that the writer was not waited for any more, and rightly.
    if took < Duration::from_millis(1900) {
        assert_eq!(identities(&status), before);
        assert_eq!(daemon.client().await.manager().await.unwrap().generation, 1);
    }
}

/// Goes on writing until the daemon has said that it waits for that; when it was last written to before.
pub fn noticed(daemon: &Daemon, file: &mut fs::File) -> Instant {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let begun = Instant::now();
        file.write_all(b"# more\n").unwrap();
        if daemon.log().contains("is just being written") {
            return begun;
        }
        assert!(begun < deadline, "not noticed:\n{}", daemon.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// It may be held open for ever.
#[tokio::test]
async fn who_never_closes_a_file_does_not_hold_up_the_next_one() {
    let daemon = Daemon::start("processes:\n  a: { command: [sleep, \"88911\"] }\n");
    daemon.until_running(&["a@0"]).await;
    let daemon = daemon.killed();
    let mut file = fs::File::create(daemon.file()).unwrap();
    file.write_all(b"processes:\n  b: { command: [sleep, \"88912\"] }\n").unwrap();
    let daemon = daemon.again_without_waiting();
    noticed(&daemon, &mut file);
    daemon.notified("READY=1");
    daemon.until_running(&["b@0"]).await;
    let history = daemon.client().await.history(None).await.unwrap();
    assert_eq!(
        history[0].cause_text, "the daemon started",
        "and not that it was watched meanwhile"
    );
    drop(file);
}

/// Asked to end while it waits for a file, it ends, and does not wait first.
#[tokio::test]
async fn the_next_one_ends_also_while_a_file_is_written() {
    let daemon = Daemon::start("processes: {}\n").killed();
    let mut file = fs::File::create(daemon.file()).unwrap();
    file.write_all(b"processes: [\n").unwrap();
    let mut daemon = daemon.again_without_waiting();
    noticed(&daemon, &mut file);
    assert!(daemon.stop().success());
    assert!(!daemon.log().contains("not valid"), "{}", daemon.log());
    drop(file);
}

#[tokio::test]
async fn what_ends_meanwhile_is_found_and_not_doubled() {
    let daemon = Daemon::start(
        "processes: { a: { shell: exec sleep 88101 }, b: { shell: exec sleep 88102 }, \
         once: { shell: 'sleep 88103; exit 0', restartPolicy: { condition: on-failure } }, \
         last: { shell: exec sleep 88104, restartPolicy: { condition: \"no\" }, \
         pidFile: '@DIR@/last.pid' } }",
    );
    let before = pids(&daemon.until_running(&["a@0", "b@0", "once@0", "last@0"]).await);
    let daemon = daemon.killed();
    end_by(before["a@0"], Signal::KILL);
    end_by(before["last@0"], Signal::KILL);
    end_by(processes_with("sleep 88103")[0], Signal::TERM);
    let once = before["once@0"];
    let deadline = Instant::now() + DEADLINE;
    while std::path::Path::new(&format!("/proc/{once}")).exists() {
        assert!(Instant::now() < deadline, "it never ends");
        std::thread::yield_now();
    }
    let daemon = daemon.again();
    let after = daemon
        .until("all run", |all| {
            ["a@0", "b@0", "once@0"].iter().all(|name| all[*name].state == "running")
        })
        .await;
    assert_eq!(after["b@0"].pid, Some(before["b@0"]));
    assert_ne!(after["a@0"].pid, Some(before["a@0"]));
    // How they ended nobody saw: it is not invented, and it is no success.
    assert_eq!(after["a@0"].restarts, 1);
    assert_eq!(after["once@0"].restarts, 1);
    daemon.logged("a@0: ended, how is unknown");
    assert_eq!(after["last@0"].state, "failed");
    // It has no process, and no file that says otherwise.
    let deadline = Instant::now() + DEADLINE;
    while daemon.path().join("last.pid").exists() {
        assert!(Instant::now() < deadline, "its pid file stays");
        std::thread::yield_now();
    }
    assert_eq!(processes_with("sleep 88101").len(), 1);
}

/// The daemon is killed after a process has become its command, and before that is written down.
#[tokio::test]
async fn what_may_have_been_executed_is_not_executed_again() {
    let daemon = Daemon::start(
        "processes: { once: { shell: 'echo once >>@DIR@/once; exec sleep 88131', \
         restartPolicy: { condition: \"no\" } } }",
    );
    let before = pids(&daemon.until_running(&["once@0"]).await);
    let daemon = daemon.killed();
    end_by(before["once@0"], Signal::KILL);
    ledger::change(&daemon.path().join("state/ledger"), "state", "once@0", |kept| {
        let run = kept.pointer_mut("/state/phase/up").unwrap();
        for known in ["pid", "started", "ready", "stable_since"] {
            assert!(!std::mem::take(&mut run[known]).is_null(), "{known}");
        }
    });
    let daemon = daemon.again();
    let is_told = |state: &str| !matches!(state, "starting" | "stopping");
    let after = daemon.until("it is told", |all| is_told(&all["once@0"].state)).await;
    assert_eq!(after["once@0"].state, "failed");
    daemon.logged("once@0: ended, how is unknown");
    assert_eq!(fs::read_to_string(daemon.path().join("once")).unwrap(), "once\n");
}

#[tokio::test]
async fn the_end_of_an_adopted_process_is_seen_with_its_status() {
    let daemon = Daemon::start(
        "processes: { a: { shell: 'trap \"exit 7\" USR1; while :; do sleep 0.05; done', \
         restartPolicy: { delay: 1h } } }",
    );
    let before = pids(&daemon.until_running(&["a@0"]).await);
    let daemon = daemon.killed_and_again();
    daemon.until_running(&["a@0"]).await;
    end_by(before["a@0"], Signal::USR1);
    let status = daemon.until("it ended", |all| all["a@0"].state == "backoff").await;
    let told = format!("{:?}", status["a@0"].exit);
    match kernel_tells() {
        true => assert_eq!(told, "Some(Code(7))"),
        false => assert_eq!(told, "Some(Unknown)"),
    }
}

#[tokio::test]
async fn an_end_that_nobody_saw_is_told_by_what_the_service_manager_stored() {
    let prepared = Daemon::prepare(|_| {});
    let manager = Store::new(prepared.dir.path().join("notify"));
    let file = "processes: { a: { shell: 'trap \"exit 7\" USR1; while :; do sleep 0.05; done', \
                restartPolicy: { delay: 1h } }, b: { shell: exec sleep 88501 } }";
    let daemon = prepared.told(&manager.socket, file);
    let before = pids(&daemon.until_running(&["a@0", "b@0"]).await);
    manager.holds(&["run-a@0-1", "run-b@0-2"]);
    let mut daemon = daemon.killed();
    end_by(before["a@0"], Signal::USR1);
    let deadline = Instant::now() + DEADLINE;
    // Its parent has taken the status: /proc does not have it any more.
    while std::path::Path::new(&format!("/proc/{}", before["a@0"])).exists() {
        assert!(Instant::now() < deadline, "it is never reaped");
        std::thread::yield_now();
    }
    let dir = std::mem::replace(&mut daemon.dir, tempfile::tempdir().unwrap());
    let daemon = Prepared { dir }.handed(&manager);
    let status = daemon.until("a has ended", |all| {
        all.get("a@0").is_some_and(|a| a.state == "backoff") && all["b@0"].state == "running"
    });
    let status = status.await;
    let told = format!("{:?}", status["a@0"].exit);
    match kernel_tells() {
        true => assert_eq!(told, "Some(Code(7))"),
        false => assert_eq!(told, "Some(Unknown)"),
    }
    assert_eq!(status["b@0"].pid, Some(before["b@0"]));
    manager.holds(&["run-b@0-2"]);
    assert_eq!(manager.removed(), ["run-a@0-1"]);
}

#[tokio::test]
async fn what_is_stored_and_of_no_run_is_taken_back_and_the_rest_when_it_ends() {
    let prepared = Daemon::prepare(|_| {});
    let manager = Store::new(prepared.dir.path().join("notify"));
    let file = "processes: { a: { shell: exec sleep 88601 }, b: { shell: exec sleep 88602 } }";
    let daemon = prepared.told(&manager.socket, file);
    daemon.until_running(&["a@0", "b@0"]).await;
    let names = ["run-a@0-1", "run-b@0-2"];
    manager.holds(&names);
    let mut daemon = daemon.killed();
    // Of a run that was over, of an instance that nobody knows, of no run at all.
    let others = ["other", "run-a@0-99", "run-ghost@0-1", "run-nonsense"];
    for name in others {
        manager.put(name, fs::File::open("/dev/null").unwrap().into());
    }
    // Nothing is known of this one any more.
    ledger::unsay(&daemon.path().join("state/ledger"), "state", "a@0");
    let dir = std::mem::replace(&mut daemon.dir, tempfile::tempdir().unwrap());
    let mut daemon = Prepared { dir }.handed(&manager);
    daemon.until_running(&["a@0", "b@0"]).await;
    manager.holds(&["run-a@0-3", "run-b@0-2"]);
    let mut gone: Vec<&str> = others.into_iter().chain(["run-a@0-1"]).collect();
    gone.sort();
    assert_eq!(manager.removed(), gone);
    assert!(daemon.stop().success());
    gone.extend(["run-a@0-3", "run-b@0-2"]);
    gone.sort();
    manager.holds(&[]);
    assert_eq!(manager.removed(), gone);
}

#[tokio::test]
async fn a_name_that_comes_again_stands_for_the_new_run() {
    let prepared = Daemon::prepare(|_| {});
    let manager = Store::new(prepared.dir.path().join("notify"));
    let daemon = prepared.told(&manager.socket, "processes: { a: { shell: exec sleep 88701 } }");
    daemon.until_running(&["a@0"]).await;
    manager.holds(&["run-a@0-1"]);
    let mut daemon = daemon.killed();
    // The next one counts its runs from the beginning.
    ledger::unsay(&daemon.path().join("state/ledger"), "state", "a@0");
    let dir = std::mem::replace(&mut daemon.dir, tempfile::tempdir().unwrap());
    let daemon = Prepared { dir }.handed(&manager);
    let new = pids(&daemon.until_running(&["a@0"]).await)["a@0"];
    let deadline = Instant::now() + DEADLINE;
    while manager.pids() != [("run-a@0-1".to_owned(), Some(new))] {
        assert!(Instant::now() < deadline, "never {new}: {:?}", manager.pids());
        std::thread::yield_now();
    }
    assert_eq!(manager.removed(), ["run-a@0-1"]);
}

/// Linux 6.15 and newer tell how a process ended that is no child.
fn kernel_tells() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    (numbers.next().unwrap(), numbers.next().unwrap()) >= (6, 15)
}

#[tokio::test]
async fn a_file_that_changed_meanwhile_is_a_reload() {
    let daemon = Daemon::start(
        "processes: { same: { shell: exec sleep 88201 }, other: { shell: exec sleep 88202 }, \
         gone: { shell: exec sleep 88203 } }",
    );
    let before = pids(&daemon.until_running(&["same@0", "other@0", "gone@0"]).await);
    let daemon = daemon.killed();
    daemon.save(
        "processes: { same: { shell: exec sleep 88201, restartPolicy: { delay: 9s } }, \
         other: { shell: exec sleep 88212 }, new: { shell: exec sleep 88204 } }",
    );
    let daemon = daemon.again();
    daemon.until_generation(2).await;
    let status = daemon.until_running(&["same@0", "other@0", "new@0"]).await;
    let after = pids(&status);
    assert_eq!(before["same@0"], after["same@0"]);
    assert_ne!(before["other@0"], after["other@0"]);
    assert!(!status.contains_key("gone@0"));
    for marker in ["sleep 88202", "sleep 88203"] {
        assert_eq!(processes_with(marker), [0_u32; 0], "{marker}");
    }
}

#[tokio::test]
async fn a_file_that_is_broken_or_gone_meanwhile_keeps_what_runs() {
    let file = "processes: { a: { shell: exec sleep 88301 }, b: { shell: exec sleep 88302 } }";
    let mut daemon = Daemon::start(file);
    let before = pids(&daemon.until_running(&["a@0", "b@0"]).await);
    for broken in [Some("processes: ["), Some(""), None] {
        daemon = daemon.killed();
        match broken {
            Some(text) => daemon.save(text),
            None => fs::remove_file(daemon.file()).unwrap(),
        }
        daemon = daemon.again();
        let manager = daemon.client().await.manager().await.unwrap();
        assert_eq!(manager.config_state, "rejected", "{broken:?}");
        assert_eq!(pids(&daemon.until_running(&["a@0", "b@0"]).await), before, "{broken:?}");
        daemon.save(file);
    }
    // What it keeps it also keeps up.
    end_by(before["a@0"], Signal::KILL);
    daemon.until("a is back", |all| all["a@0"].pid.is_some_and(|pid| pid != before["a@0"])).await;
}

#[tokio::test]
async fn drop_ins_that_are_gone_meanwhile_keep_what_runs() {
    let daemon = Daemon::prepare(|dir| {
        fs::create_dir(dir.join("processes.d")).unwrap();
        let b = "processes: { b: { shell: exec sleep 88802 } }";
        fs::write(dir.join("processes.d/b.yaml"), b).unwrap();
    });
    let mut daemon = daemon.with("processes: { a: { shell: exec sleep 88801 } }");
    let before = pids(&daemon.until_running(&["a@0", "b@0"]).await);
    let (here, away) = (daemon.path().join("processes.d"), daemon.path().join("away"));
    daemon = daemon.killed();
    fs::rename(&here, &away).unwrap();
    // It is judged by what is active, also by the one after the next.
    for _ in 0..2 {
        daemon = daemon.killed().again();
        assert_eq!(daemon.client().await.manager().await.unwrap().config_state, "rejected");
        daemon.logged("processes.d is gone; what its files say stays");
        assert_eq!(pids(&daemon.until_running(&["a@0", "b@0"]).await), before);
    }
    daemon = daemon.killed();
    fs::rename(&away, &here).unwrap();
    daemon = daemon.again();
    assert_eq!(daemon.client().await.manager().await.unwrap().config_state, "applied");
    assert_eq!(pids(&daemon.until_running(&["a@0", "b@0"]).await), before);
    // An empty one says that there is no file.
    daemon = daemon.killed();
    fs::remove_file(here.join("b.yaml")).unwrap();
    daemon = daemon.again();
    let status = daemon.until("b is gone", |all| !all.contains_key("b@0")).await;
    assert_eq!(status["a@0"].pid, Some(before["a@0"]));
    daemon = daemon.killed();
    fs::remove_dir(&here).unwrap();
    daemon = daemon.again();
    assert_eq!(daemon.client().await.manager().await.unwrap().config_state, "applied");
}

#[tokio::test]
async fn a_file_that_was_never_there_is_not_gone() {
    let mut daemon = Daemon::prepare(|_| {}).run();
    for _ in 0..2 {
        assert_eq!(daemon.client().await.manager().await.unwrap().config_state, "applied");
        daemon = daemon.killed_and_again();
    }
    daemon.save("processes: { a: { shell: exec sleep 88901 } }");
    daemon.until_running(&["a@0"]).await;
}

#[tokio::test]
async fn killed_again_and_again_while_it_starts() {
    let file: String = (0..20).fold("processes:\n".into(), |text, n| {
        text + &format!("  p{n:02}: {{ shell: 'exec sleep 8840{n:02}' }}\n")
    });
    let mut daemon = Daemon::start(&file);
    for round in 0..8_u32 {
        // It is killed a different way into its start each time.
        daemon = daemon.killed();
        daemon.save(&file.replace("8840", &format!("8840{}", round % 2)));
        daemon = daemon.again_without_waiting();
        let deadline = Instant::now() + std::time::Duration::from_millis(u64::from(round) * 7);
        while Instant::now() < deadline {
            std::thread::yield_now();
        }
    }
    daemon = daemon.killed();
    daemon.save(&file);
    daemon = daemon.again();
    let status = daemon
        .until("all run", |all| {
            all.len() == 20 && all.values().all(|p| p.state == "running" && !p.needs_restart)
        })
        .await;
    let mut known: Vec<u32> = pids(&status).into_values().collect();
    let mut there = processes_with("sleep 8840");
    known.sort_unstable();
    there.sort_unstable();
    assert_eq!(known, there);
}
