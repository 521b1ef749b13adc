//! What a reload touches, and what it does not.

use crate::common::processes::processes_with;
use crate::support::{Daemon, pids};
use provost::client::ClientError;
use std::fmt::Write;

fn thirty(marker: &str) -> Vec<(String, String)> {
    (0..30)
        .map(|i| (format!("p{i:02}"), format!("    shell: exec sleep 100000.{marker}{i:02}\n")))
        .collect()
}

fn file(entries: &[(String, String)]) -> String {
    entries.iter().fold("processes:\n".to_owned(), |mut text, (id, body)| {
        write!(text, "  {id}:\n{body}").unwrap();
        text
    })
}

#[tokio::test]
async fn exactly_what_changed_moves() {
    let mut entries = thirty("1");
    let daemon = Daemon::start(&file(&entries));
    let names: Vec<String> = entries.iter().map(|(id, _)| format!("{id}@0")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let before = pids(&daemon.until_running(&names).await);
    assert_eq!(before.len(), 30);

    // One is changed, one is removed, one is added; one only gets another policy. Saving is all.
    entries[7].1 = entries[7].1.replace("100000", "200000");
    let removed = entries.remove(12).0;
    entries.push(("extra".into(), "    shell: exec sleep 300000\n".into()));
    entries[3].1 += "    restartPolicy: { delay: 7s }\n    description: changed\n";
    daemon.save(&file(&entries));
    daemon.until_generation(2).await;
    let after = pids(&daemon.until_running(&["p07@0", "extra@0"]).await);

    assert_eq!(after.len(), 30);
    let moved: Vec<&String> =
        before.iter().filter(|(name, pid)| after.get(*name) != Some(pid)).map(|(n, _)| n).collect();
    assert_eq!(moved, ["p07@0", &format!("{removed}@0")]);
    let new: Vec<&String> = after.keys().filter(|name| !before.contains_key(*name)).collect();
    assert_eq!(new, ["extra@0"]);
    let gone = before[&format!("{removed}@0")];
    assert!(!std::path::Path::new(&format!("/proc/{gone}")).exists());
    assert_eq!(daemon.status().await["p03@0"].description, "changed");
}

#[tokio::test]
async fn the_result_of_a_reload_names_what_it_did() {
    let daemon = Daemon::start(
        "processes: { a: { shell: exec sleep 1000 }, b: { shell: exec sleep 1000 }, c: { shell: exec sleep 1000 } }",
    );
    daemon.until_running(&["a@0", "b@0", "c@0"]).await;
    daemon.save("processes: { a: { shell: exec sleep 1000 }, b: { shell: exec sleep 2000 }, d: { shell: exec sleep 1000 } }");
    let result = daemon.reload().await;
    // The watch may have been first; then there was nothing left to do, and the log has it.
    if result.result == "unchanged" {
        daemon.logged("added d, removed c, modified b, 1 unchanged");
    } else {
        assert_eq!(result.result, "applied");
        assert_eq!((result.added, result.removed), (vec!["d".into()], vec!["c".into()]));
        assert_eq!((result.modified, result.unchanged), (vec!["b".to_owned()], 1));
        assert!(result.timings.iter().any(|(stage, _)| stage == "apply"), "{:?}", result.timings);
    }
}

#[tokio::test]
async fn a_bad_file_moves_nothing() {
    let good = file(&thirty("2"));
    let daemon = Daemon::start(&good);
    let before = pids(&daemon.until("30 running", |s| pids(s).len() == 30).await);
    let client = daemon.client().await;
    for bad in [
        "processes: [",
        "processes:\n",
        "",
        "processes:\n  a:\n    comand: x\n",
        "processes:\n  a: { command: sleep, dependsOn: [b] }\n  b: { command: sleep, dependsOn: [a] }\n",
        "processes:\n  a: { command: this-program-does-not-exist }\n",
        "processes:\n  a: { command: sleep, cwd: /this/does/not/exist }\n",
    ] {
        daemon.save(bad);
        match client.reload(&provost::client::ReloadOptions::default()).await {
            Err(ClientError::ConfigInvalid(text)) => {
                assert!(text.contains("processes.yaml"), "{bad}: {text}");
            }
            other => panic!("{bad}: {other:?}"),
        }
        let manager = client.manager().await.unwrap();
        assert_eq!((manager.generation, manager.valid), (1, false), "{bad}");
        assert_eq!(manager.config_state, "rejected");
        assert!(!manager.diagnostics.is_empty());
        assert_eq!(pids(&daemon.status().await), before, "{bad}");
    }
    std::fs::remove_file(daemon.file()).unwrap();
    assert!(client.reload(&provost::client::ReloadOptions::default()).await.is_err());
    assert_eq!(pids(&daemon.status().await), before);
    daemon.save(&good);
    let back = client.reload(&provost::client::ReloadOptions::default()).await.unwrap();
    assert_eq!(back.result, "unchanged");
    assert_eq!(client.manager().await.unwrap().config_state, "applied");
    assert_eq!(pids(&daemon.status().await), before);
}

#[tokio::test]
async fn a_file_that_is_missing_at_first_is_picked_up_when_it_appears() {
    let daemon = Daemon::prepare(|_| {}).run();
    assert!(daemon.status().await.is_empty());
    daemon.logged("processes.yaml");
    daemon.save("processes: { late: { shell: exec sleep 1000 } }");
    daemon.until_running(&["late@0"]).await;
}

#[tokio::test]
async fn a_file_that_is_not_valid_at_first_is_picked_up_when_it_is_mended() {
    let daemon = Daemon::prepare(|_| {}).with("processes: { a: { comand: sleep } }");
    daemon.logged("comand");
    daemon.save("processes: { a: { shell: exec sleep 1000 } }");
    daemon.until_running(&["a@0"]).await;
}

#[tokio::test]
async fn a_stop_leaves_nothing_behind() {
    let marker = format!("77{}", std::process::id());
    let mut daemon = Daemon::start(&file(&thirty(&marker)));
    daemon.until("30 running", |s| pids(s).len() == 30).await;
    assert_eq!(processes_with(&format!("sleep 100000.{marker}")).len(), 30);
    let status = daemon.stop();
    assert_eq!(status.code(), Some(0), "{}", crate::support::describe(status));
    assert_eq!(processes_with(&format!("sleep 100000.{marker}")), [0u32; 0]);
    assert!(!daemon.path().join("private").exists());
}

#[tokio::test]
async fn what_an_operator_stopped_stays_down_over_a_reload() {
    let daemon = Daemon::start(
        "processes: { a: { shell: exec sleep 1000 }, b: { shell: exec sleep 1000 } }",
    );
    daemon.until_running(&["a@0", "b@0"]).await;
    let client = daemon.client().await;
    client.stop(&["a".into()], |_| {}).await.unwrap();
    daemon.save("processes: { a: { shell: exec sleep 1001 }, b: { shell: exec sleep 1001 } }");
    daemon.until_generation(2).await;
    let status = daemon.until_running(&["b@0"]).await;
    assert_eq!(status["a@0"].state, "down");
    client.start(&["a".into()], false, |_| {}).await.unwrap();
    daemon.until_running(&["a@0"]).await;
    assert!(!processes_with("sleep 1001").is_empty());
}
