//! What is said of the configuration after each thing that can happen to its files, and that a
//! refused one changes nothing.

use crate::support::{Daemon, pids};
use provost::client::{Client, ClientError, ManagerStatus, ReloadOptions, ReloadSummary};
use std::fs;

const ONE: &str = "processes: { a: { shell: exec sleep 1000 } }";
const BAD: &str = "processes: [";

async fn reload(client: &Client) -> Result<ReloadSummary, ClientError> {
    client.reload(&ReloadOptions::default()).await
}

/// Of how many rejections the log tells.
fn rejections(daemon: &Daemon) -> usize {
    daemon.log().matches("the configuration is not valid; nothing was changed").count()
}

#[test]
fn a_daemon_with_no_file_that_can_be_used_says_so() {
    let daemon = Daemon::start("processes: {a: {comand: x}}");
    let (code, table, told) = daemon.provost(&["status"]);
    assert_eq!((code, &*table), (3, ""));
    assert!(told.contains("no configuration yet"), "{told}");
    assert!(told.contains("is not valid; nothing runs"), "{told}");
    assert_eq!(daemon.provost(&["--quiet", "status"]).0, 3);
    daemon.save("processes: {a: {command: [sleep, '9']}}");
    daemon.logged("a@0: ready");
    assert_eq!(daemon.provost(&["status"]).0, 0);
}

#[tokio::test]
async fn a_file_that_was_never_there_is_no_error() {
    let daemon = Daemon::prepare(|_| {}).run();
    let client = daemon.client().await;
    assert_eq!(reload(&client).await.unwrap().result, "unchanged");
    let manager = client.manager().await.unwrap();
    assert_eq!((manager.config_state.as_str(), manager.valid), ("applied", true));
    daemon.save(ONE);
    daemon.until_running(&["a@0"]).await;
    assert_eq!(rejections(&daemon), 0, "{}", daemon.log());
}

#[tokio::test]
async fn a_plan_refuses_what_a_reload_refuses() {
    let daemon = Daemon::start(ONE);
    let before = pids(&daemon.until_running(&["a@0"]).await);
    fs::remove_file(daemon.file()).unwrap();
    let client = daemon.client().await;
    let plan = client.plan(None).await.unwrap();
    assert!(!plan.valid() && plan.changes.is_empty(), "{plan:?}");
    assert!(matches!(reload(&client).await, Err(ClientError::ConfigInvalid(_))));
    assert_eq!(pids(&daemon.status().await), before);
}

#[tokio::test]
async fn settings_whose_file_is_gone_stay_in_force() {
    let daemon = Daemon::prepare(|dir| {
        fs::create_dir(dir.join("conf")).unwrap();
        fs::write(dir.join("conf/p.yaml"), ONE).unwrap();
    })
    .with("processManagement: { processConfigFile: conf/p.yaml }");
    let before = pids(&daemon.until_running(&["a@0"]).await);
    fs::remove_file(daemon.file()).unwrap();
    let client = daemon.client().await;
    assert!(matches!(reload(&client).await, Err(ClientError::ConfigInvalid(_))));
    assert_eq!(pids(&daemon.status().await), before);
}

#[tokio::test]
async fn a_refused_file_decides_nothing_about_watching() {
    let daemon = Daemon::start(&format!("processManagement: {{ watchConfig: false }}\n{ONE}"));
    let client = daemon.client().await;
    assert!(!client.manager().await.unwrap().watching);
    daemon.save(BAD);
    assert!(reload(&client).await.is_err());
    assert!(!client.manager().await.unwrap().watching, "it was told not to");

    let daemon = Daemon::start(ONE);
    let client = daemon.client().await;
    daemon
        .save("processManagement: { watchConfig: false }\nprocesses: { a: { command: /nowhere } }");
    assert!(reload(&client).await.is_err());
    assert!(client.manager().await.unwrap().watching, "nobody said that it should not");
}

#[tokio::test]
async fn the_state_tells_what_is_active_and_what_is_on_disk() {
    let yaml = "processManagement: { validateOnReload: false }
processes: { a: { shell: exec sleep 1000 }, b: { command: /nowhere, restartPolicy: { condition: no } } }
";
    let daemon = Daemon::start(yaml);
    daemon.until_manager("failed-kept", |m| m.config_state == "failed-kept").await;
    let client = daemon.client().await;
    daemon.save(BAD);
    assert!(reload(&client).await.is_err());
    let state = |manager: ManagerStatus| (manager.config_state, manager.valid);
    assert_eq!(state(client.manager().await.unwrap()), ("rejected".into(), false));
    daemon.save(yaml);
    assert_eq!(reload(&client).await.unwrap().result, "unchanged");
    assert_eq!(state(client.manager().await.unwrap()), ("failed-kept".into(), true));
    daemon.logged("the configuration is valid again");
    daemon.save(&format!("{yaml}# a remark\n"));
    assert_eq!(reload(&client).await.unwrap().result, "unchanged");
    assert_eq!(state(client.manager().await.unwrap()), ("failed-kept".into(), true));
}

#[tokio::test]
async fn a_reload_that_ends_while_the_file_is_invalid_leaves_it_rejected() {
    let daemon = Daemon::start(ONE);
    daemon.until_running(&["a@0"]).await;
    daemon.save(
        "processes: { a: { shell: exec sleep 1001, healthCheck: { exec: [test, -e, @DIR@/go], interval: 100ms } } }",
    );
    daemon.until_manager("applying", |m| m.generation == 2 && m.config_state == "applying").await;
    daemon.save(BAD);
    assert!(reload(&daemon.client().await).await.is_err());
    let manager = daemon.client().await.manager().await.unwrap();
    assert_eq!((manager.config_state.as_str(), manager.valid), ("applying", false));
    fs::write(daemon.path().join("go"), "").unwrap();
    daemon.until_running(&["a@0"]).await;
    let manager = daemon.until_manager("at rest", |m| m.config_state != "applying").await;
    assert_eq!((manager.config_state.as_str(), manager.valid), ("rejected", false));
    assert_eq!(manager.generation, 2);
}

#[tokio::test]
async fn a_superseded_reload_has_its_own_number() {
    let quiet = "processManagement: { watchConfig: false }";
    let daemon = Daemon::start(&format!("{quiet}\n{ONE}"));
    daemon.until_running(&["a@0"]).await;
    daemon.save(&format!(
        "{quiet}
processes: {{ a: {{ shell: exec sleep 1001, healthCheck: {{ exec: ['false'], interval: 100ms }} }} }}"
    ));
    let client = daemon.client().await;
    let first = tokio::spawn(async move { reload(&client).await });
    daemon.until_manager("the second generation", |m| m.generation == 2).await;
    daemon.save(&format!("{quiet}\n{ONE}"));
    let second = daemon.reload().await;
    let first = first.await.unwrap().unwrap();
    assert_eq!((first.result.as_str(), first.generation), ("superseded", 2));
    assert_eq!((second.result.as_str(), second.generation), ("applied", 3));
}

#[tokio::test]
async fn the_same_mistake_is_told_once() {
    let daemon = Daemon::prepare(|_| {}).with(BAD);
    // The watch makes sure of what was read before it was there.
    for _ in 0..3 {
        daemon.save(BAD);
    }
    daemon.save(ONE);
    daemon.until_running(&["a@0"]).await;
    assert_eq!(rejections(&daemon), 1, "{}", daemon.log());
}

#[tokio::test]
async fn edits_of_several_clients_at_once_all_happen() {
    let names: Vec<String> = (0..8).map(|n| format!("p{n}")).collect();
    let body = "{ shell: exec sleep 1000 }";
    let yaml: String = names.iter().map(|name| format!("  {name}: {body}\n")).collect();
    let daemon = Daemon::start(&format!("processes:\n{yaml}"));
    let mut edits = tokio::task::JoinSet::new();
    for name in names.clone() {
        let client = daemon.client().await;
        edits.spawn(async move { client.set_enabled(&[name], false).await });
    }
    for result in edits.join_all().await {
        result.unwrap();
    }
    let text = fs::read_to_string(daemon.file()).unwrap();
    assert_eq!(text.matches("enabled: false").count(), 8, "{text}");
    let status = daemon.until("all down", |s| pids(s).is_empty()).await;
    assert!(status.values().all(|process| !process.enabled));
}
