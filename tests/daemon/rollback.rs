//! A change that does not come up goes by itself, whatever dies on the way.

use crate::common::processes::processes_with;
use crate::support::{Daemon, identities, pids};
use provost::client::{ClientError, ManagerStatus, ReloadOptions};
use std::fs;

/// `a` runs on; `b` is what the change is about.
fn with(b: &str) -> String {
    format!(
        "processManagement: {{ settle: 300ms }}
processes:
  a: {{ shell: exec sleep 88801 }}
  b: {{ shell: '{b}', restartPolicy: {{ delay: 0, jitter: 0 }} }}
"
    )
}

const BAD: &str = "exit 3";

/// What works, of this test alone.
fn good() -> String {
    format!("exec {}", marker())
}

fn marker() -> String {
    format!("sleep 9{:07}", std::process::id())
}

fn running() -> usize {
    processes_with(&marker()).len()
}

async fn state(daemon: &Daemon, state: &str, generation: u64) -> ManagerStatus {
    let is_so =
        |manager: &ManagerStatus| manager.config_state == state && manager.generation == generation;
    daemon.until_manager(&format!("{state} at {generation}"), is_so).await
}

#[tokio::test]
async fn what_does_not_come_up_is_undone_by_itself() {
    let daemon = Daemon::start(&with(&good()));
    let before = identities(&daemon.until_running(&["a@0", "b@0"]).await);
    // Long enough to be seen.
    daemon.save(&with("sleep 0.2; exit 3"));
    let tried = daemon.until_manager("tried", |manager| manager.generation == 2).await;
    let manager = state(&daemon, "rolled-back", 1).await;
    assert!(manager.last_reloaded > tried.last_reloaded, "when it was gone back to");
    assert_eq!(
        manager.config_detail,
        "running 1; the file on disk was tried as 2 and did not come up: \
         b@0 exited with code 3 (3 times)"
    );
    let after = identities(&daemon.until_running(&["a@0", "b@0"]).await);
    assert_eq!(before["a@0"], after["a@0"], "what was not touched is as it was");
    assert_ne!(before["b@0"], after["b@0"]);
    assert_eq!(running(), 1);
    daemon.logged("generation 1 runs again; 2 did not come up: b@0 exited with code 3 (3 times)");
    daemon.notified("STATUS=2 of 2 running; running 1; the file on disk was tried as 2");

    // It is not tried again, unless somebody insists.
    let client = daemon.client().await;
    let again = client.reload(&ReloadOptions::default()).await;
    assert!(
        matches!(&again, Err(ClientError::Refused { name, .. }) if name == "ConfigHeldOff"),
        "{again:?}"
    );
    let force = ReloadOptions { force: true, ..ReloadOptions::default() };
    let summary = client.reload(&force).await.unwrap();
    assert_eq!((&*summary.result, summary.generation, summary.tried), ("rolled-back", 1, Some(3)));
    assert_eq!(summary.why, ["b@0 exited with code 3 (3 times)"]);

    // A mended one is.
    daemon.save(&with("exec sleep 88803"));
    let manager = state(&daemon, "applied", 4).await;
    assert_eq!(manager.config_detail, "");
}

#[tokio::test]
async fn the_file_of_before_ends_the_matter() {
    let daemon = Daemon::start(&with(&good()));
    daemon.until_running(&["a@0", "b@0"]).await;
    daemon.save(&with(BAD));
    state(&daemon, "rolled-back", 1).await;
    let before = identities(&daemon.until_running(&["a@0", "b@0"]).await);
    daemon.save(&with(&good()));
    let manager = state(&daemon, "applied", 1).await;
    assert_eq!(manager.config_detail, "");
    assert_eq!(before, identities(&daemon.status().await));
}

#[tokio::test]
async fn a_newer_file_takes_over_and_the_way_back_leads_past_it() {
    let daemon = Daemon::start(&with(&good()));
    daemon.until_running(&["a@0", "b@0"]).await;
    let slow = "processManagement: { settle: 1h, verdictTimeout: 2h }\n";
    let tried = with("exec sleep 88804").replace("processManagement: { settle: 300ms }\n", slow);
    daemon.save(&tried);
    daemon.until_manager("on trial", |manager| manager.generation == 2).await;
    daemon.save(&with(BAD));
    let manager = state(&daemon, "rolled-back", 1).await;
    assert!(manager.config_detail.contains("tried as 3"), "{}", manager.config_detail);
    daemon.until_running(&["a@0", "b@0"]).await;
    assert_eq!(running(), 1);
}

#[tokio::test]
async fn killed_on_trial_it_goes_on_with_the_trial() {
    let long = |b: &str| with(b).replace("settle: 300ms", "settle: 1h, verdictTimeout: 2h");
    let daemon = Daemon::start(&with(&good()));
    let before = identities(&daemon.until_running(&["a@0", "b@0"]).await);
    daemon.save(&long("echo >@DIR@/tried; exec sleep 88805"));
    daemon.until_manager("on trial", |manager| manager.config_detail.contains("stay so")).await;
    let tried = daemon.until_running(&["b@0"]).await;
    let daemon = daemon.killed_and_again();
    let manager = state(&daemon, "applying", 2).await;
    assert!(manager.config_detail.contains("stay so"), "{}", manager.config_detail);
    assert_eq!(pids(&tried)["b@0"], pids(&daemon.status().await)["b@0"]);
    // What it goes back to outlived the daemon.
    daemon.client().await.signal("b", "main", 9).await.unwrap();
    daemon.save(&with(BAD));
    let manager = state(&daemon, "rolled-back", 1).await;
    assert!(manager.config_detail.contains("tried as 3"), "{}", manager.config_detail);
    let after = identities(&daemon.until_running(&["a@0", "b@0"]).await);
    assert_eq!(before["a@0"], after["a@0"]);
    assert_eq!(running(), 1);
}

/// A daemon that was killed with generation 2 on trial, and of what was before nothing is kept.
async fn with_no_way_back() -> Daemon {
    let daemon = Daemon::start(&with(&good()));
    daemon.until_running(&["a@0", "b@0"]).await;
    let long = "settle: 1h, verdictTimeout: 2h";
    daemon.save(&with("exec sleep 88804").replace("settle: 300ms", long));
    daemon.until_manager("on trial", |manager| manager.config_detail.contains("stay so")).await;
    let daemon = daemon.killed();
    fs::remove_dir_all(daemon.path().join(".local/state/provost")).unwrap();
    daemon
}

/// That is said, and it is not called good.
#[tokio::test]
async fn killed_on_trial_with_no_way_back_it_says_so() {
    let daemon = with_no_way_back().await.again();
    state(&daemon, "applied", 2).await;
    daemon.logged("generation 2 was on trial, and generation 1 is not kept: there is no way back");
    assert!(!daemon.log().contains("is good"), "{}", daemon.log());
}

/// The same, and the files say something else by the time they can be used: what runs is what they are
/// judged by.
#[tokio::test]
async fn killed_on_trial_with_no_way_back_what_is_new_is_judged() {
    let daemon = with_no_way_back().await;
    daemon.save("nonsense: [");
    let daemon = daemon.again();
    daemon.save(&with(BAD));
    // What comes back has to last for an hour before that is over.
    daemon
        .logged("3 did not come up: b@0 exited with code 3 (3 times); going back to generation 2");
}

#[tokio::test]
async fn killed_on_the_way_back_it_goes_on_with_that() {
    // The old one takes its time to come back.
    let slow = |line: &str| {
        format!(
            "processManagement: {{ settle: 0 }}
processes:
  b:
    shell: '{line}'
    startTimeout: 1h
    restartPolicy: {{ delay: 0, jitter: 0 }}
    healthCheck: {{ exec: [test, -e, '@DIR@/go'], interval: 100ms }}
"
        )
    };
    let daemon = Daemon::prepare(|dir| fs::write(dir.join("go"), "").unwrap()).with(&slow(&good()));
    daemon.until_running(&["b@0"]).await;
    fs::remove_file(daemon.path().join("go")).unwrap();
    daemon.save(&slow(BAD));
    daemon
        .until_manager("going back", |manager| manager.config_detail.contains("going back"))
        .await;
    let daemon = daemon.killed_and_again();
    let manager = state(&daemon, "applying", 1).await;
    assert!(manager.config_detail.contains("going back to 1"), "{}", manager.config_detail);
    fs::write(daemon.path().join("go"), "").unwrap();
    let manager = state(&daemon, "rolled-back", 1).await;
    assert!(manager.config_detail.contains("tried as 2"), "{}", manager.config_detail);
    assert_eq!(running(), 1);
}

#[tokio::test]
async fn what_was_tried_is_not_tried_again_by_the_next_daemon_nor_after_a_reboot() {
    let daemon = Daemon::start(&with(&good()));
    daemon.until_running(&["a@0", "b@0"]).await;
    daemon.save(&with(&format!("echo >>@DIR@/tried; {BAD}")));
    state(&daemon, "rolled-back", 1).await;
    let before = identities(&daemon.until_running(&["a@0", "b@0"]).await);
    let tried = fs::read(daemon.path().join("tried")).unwrap();
    let daemon = daemon.killed_and_again();
    let manager = state(&daemon, "rolled-back", 1).await;
    assert!(manager.config_detail.contains("tried as 2"), "{}", manager.config_detail);
    assert_eq!(before, identities(&daemon.until_running(&["a@0", "b@0"]).await));

    let mut daemon = daemon;
    assert!(daemon.stop().success());
    // What ends with the boot.
    fs::remove_dir_all(daemon.path().join("state")).unwrap();
    let daemon = daemon.again();
    let manager = state(&daemon, "rolled-back", 1).await;
    assert!(manager.config_detail.contains("tried as 2"), "{}", manager.config_detail);
    daemon.until_running(&["a@0", "b@0"]).await;
    assert_eq!(running(), 1);
    assert_eq!(fs::read(daemon.path().join("tried")).unwrap(), tried);
}

/// A comment that changed while there was no daemon is no other generation, to the machine and to the
/// history alike: a daemon that is killed on trial after that knows what it goes back to.
#[tokio::test]
async fn a_comment_that_changed_meanwhile_loses_nothing() {
    let idle = "  idle: { shell: exec sleep 88807 }\n";
    let daemon = Daemon::start(&(with(&good()) + idle));
    daemon.until_running(&["a@0", "b@0", "idle@0"]).await;
    assert_eq!(daemon.provost(&["stop", "idle"]).0, 0);
    let daemon = daemon.killed();
    daemon.save(&(with(&good()) + idle + "# another word\n"));
    let daemon = daemon.again();
    state(&daemon, "applied", 1).await;
    let history = daemon.client().await.history(None).await.unwrap();
    assert_eq!(history.iter().map(|one| one.number).collect::<Vec<_>>(), [1]);
    assert!(!daemon.log().contains("is good"), "{}", daemon.log());
    let long = |b: &str| with(b).replace("settle: 300ms", "settle: 1h, verdictTimeout: 2h");
    daemon.save(&long("while ! test -e @DIR@/go; do sleep 0.05; done; exit 3"));
    daemon.until_manager("on trial", |manager| manager.config_detail.contains("stay so")).await;
    let daemon = daemon.killed_and_again();
    fs::write(daemon.path().join("go"), "").unwrap();
    let manager = state(&daemon, "rolled-back", 1).await;
    assert!(manager.config_detail.contains("tried as 2"), "{}", manager.config_detail);
    let all = daemon.until_running(&["a@0", "b@0"]).await;
    assert_eq!((&*all["idle@0"].state, &*all["idle@0"].desired), ("down", "down"));
}

/// The file changed while there was no daemon: what was stopped, and what had completed, is so again
/// after the way back.
#[tokio::test]
async fn what_changed_while_there_was_no_daemon_is_gone_back_from_as_well() {
    let more = "  idle: { shell: exec sleep 88806 }
  once: { shell: 'echo run >>@DIR@/once', restartPolicy: { condition: no } }
";
    let daemon = Daemon::start(&(with(&good()) + more));
    daemon.until_running(&["a@0", "b@0", "idle@0"]).await;
    daemon.until("it completed", |all| all["once@0"].state == "completed").await;
    assert_eq!(daemon.provost(&["stop", "idle"]).0, 0);
    let daemon = daemon.killed();
    daemon.save(&with(BAD));
    let daemon = daemon.again();
    state(&daemon, "rolled-back", 1).await;
    let all = daemon.until_running(&["a@0", "b@0"]).await;
    assert_eq!((&*all["idle@0"].state, &*all["idle@0"].desired), ("down", "down"));
    assert_eq!(all["once@0"].state, "completed");
    assert_eq!(fs::read_to_string(daemon.path().join("once")).unwrap(), "run\n");
}

#[tokio::test]
async fn a_boot_with_a_broken_file_starts_what_was_last_good() {
    for broken in ["processes: [", ""] {
        let mut daemon = Daemon::start(&with(&good()));
        daemon.until_running(&["a@0", "b@0"]).await;
        assert!(daemon.stop().success());
        fs::remove_dir_all(daemon.path().join("state")).unwrap();
        match broken {
            "" => fs::remove_file(daemon.file()).unwrap(),
            text => daemon.save(text),
        }
        let daemon = daemon.again();
        daemon.until_running(&["a@0", "b@0"]).await;
        let manager = state(&daemon, "rejected", 1).await;
        assert!(!manager.valid);
        daemon.logged("going on with generation 1, the last good one");
        // A mended one is what runs.
        daemon.save(&with("exec sleep 88806"));
        state(&daemon, "applied", 2).await;
        daemon.until_running(&["a@0", "b@0"]).await;
    }
}

#[tokio::test]
async fn a_restart_with_a_broken_file_starts_what_ran_and_says_so() {
    let mut daemon = Daemon::start(&with(&good()));
    daemon.until_running(&["a@0", "b@0"]).await;
    assert!(daemon.stop().success());
    daemon.save("processes: [");
    let daemon = daemon.again();
    daemon.until_running(&["a@0", "b@0"]).await;
    daemon.logged("error: going on with");
}

#[tokio::test]
async fn a_boot_with_a_new_file_goes_back_to_what_was_last_good() {
    let mut daemon = Daemon::start(&with(&good()));
    daemon.until_running(&["a@0", "b@0"]).await;
    assert!(daemon.stop().success());
    fs::remove_dir_all(daemon.path().join("state")).unwrap();
    daemon.save(&with(BAD));
    let daemon = daemon.again();
    let manager = state(&daemon, "rolled-back", 1).await;
    assert!(manager.config_detail.contains("tried as 2"), "{}", manager.config_detail);
    daemon.until_running(&["a@0", "b@0"]).await;
    assert_eq!(running(), 1);
}

#[tokio::test]
async fn what_is_bad_as_soon_as_it_is_judged_is_held_off_too() {
    let daemon = Daemon::start(&with(&good()));
    daemon.until_running(&["a@0", "b@0"]).await;
    // It has failed for good, and stays: nobody goes back while `a` has to stay up.
    let failed = |settings: &str, check: &str| {
        let yaml = with(BAD).replace("settle: 300ms", settings);
        let yaml = yaml
            .replace("sleep 88801", "sleep 88811")
            .replace("delay: 0,", "delay: 0, maxAttempts: 0,");
        yaml.replace("jitter: 0 } }", &format!("jitter: 0 }}{check} }}"))
    };
    daemon.save(&failed("rollback: manual, settle: 1h, verdictTimeout: 2h", ""));
    daemon.until("b has failed", |all| all["b@0"].state == "failed").await;
    // The same again, but for a check, and judged in earnest.
    daemon.save(&failed("settle: 300ms", ", healthCheck: { exec: ['true'] }"));
    let manager = state(&daemon, "rolled-back", 1).await;
    assert!(manager.config_detail.contains("tried as 3"), "{manager:?}");
    daemon.until_running(&["a@0", "b@0"]).await;
    let again = daemon.client().await.reload(&ReloadOptions::default()).await;
    assert!(
        matches!(&again, Err(ClientError::Refused { name, .. }) if name == "ConfigHeldOff"),
        "{again:?}"
    );
}

#[tokio::test]
async fn a_rollback_that_fails_forgets_nothing_that_was_tried() {
    let daemon = Daemon::start(&with(&format!("test ! -e @DIR@/worse || exit 4; {}", good())));
    daemon.until_running(&["a@0", "b@0"]).await;
    daemon.save(&with(&good()));
    state(&daemon, "applied", 2).await;
    daemon.save(&with(BAD));
    state(&daemon, "rolled-back", 2).await;
    fs::write(daemon.path().join("worse"), "").unwrap();
    let client = daemon.client().await;
    let summary = client.roll_back(Some(1), false).await.unwrap();
    assert_eq!((&*summary.result, summary.generation, summary.tried), ("rolled-back", 2, Some(4)));
    // What is on disk is still what was tried before.
    let again = client.reload(&ReloadOptions::default()).await;
    assert!(
        matches!(&again, Err(ClientError::Refused { name, .. }) if name == "ConfigHeldOff"),
        "{again:?}"
    );
    assert_eq!(client.manager().await.unwrap().generation, 2);
}

#[tokio::test]
async fn who_wants_no_rollback_gets_none() {
    for (word, why) in [("manual", "b@0 exited with code 3 (3 times)"), ("off", "")] {
        let daemon = Daemon::start(&with(&good()));
        daemon.until_running(&["a@0", "b@0"]).await;
        let yaml = with(BAD).replace("settle: 300ms", &format!("settle: 300ms, rollback: {word}"));
        daemon.save(&yaml);
        let (end, generation) = if why.is_empty() { ("applied", 2) } else { ("failed-kept", 2) };
        state(&daemon, end, generation).await;
        if !why.is_empty() {
            daemon.logged(&format!("generation 2 did not come up and stays: {why}"));
        }
    }
}
