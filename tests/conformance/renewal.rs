//! Processes that take new settings without a new run, and processes whose files are watched.

use crate::supervisor::*;
use crate::world::{is_root, until};
use provost::client::{Client, JobOutcome, Verb};
use std::fs;

fn quiet(_: &JobOutcome) {}

/// It reads its settings when it begins and on SIGHUP, and so does a child of it.
fn bot(name: &str, reload: &str) -> String {
    let line = "(trap 'echo child >>@DIR@/said' HUP; while :; do sleep 0.05; done) & \
                trap 'cat @DIR@/settings >>@DIR@/said' HUP; echo up >>@DIR@/said; \
                while :; do sleep 0.05; done";
    let quiet = "log: { target: none }\n    env: { WHO: me }\n    cwd: @DIR@";
    format!("  {name}:\n    shell: \"{line}\"\n    {quiet}\n    {reload}\n")
}

fn said(it: &Supervisor) -> Vec<String> {
    let text = fs::read_to_string(it.path("said")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

async fn reload(client: &Client, name: &str) -> JobOutcome {
    client.run(Verb::Reload, &[name.to_owned()], quiet).await.unwrap().remove(0)
}

pub async fn settings_are_taken_on_a_signal_to_the_main_process(mut it: Supervisor) {
    fs::write(it.path("settings"), "one\n").unwrap();
    let client = it.run(&bot("bot", "reload: { signal: SIGHUP }")).await;
    let before = it.until_all("running", &["bot@0"]).await["bot@0"].pid;
    until("it listens", || said(&it) == ["up"]).await;
    for settings in ["two", "three"] {
        fs::write(it.path("settings"), format!("{settings}\n")).unwrap();
        assert_eq!(reload(&client, "bot").await.result, "done");
        until("it has taken them", || said(&it).last().unwrap() == settings).await;
    }
    assert_eq!(said(&it), ["up", "two", "three"], "nobody else was told");
    let status = it.status().await;
    assert_eq!((status["bot@0"].pid, status["bot@0"].restarts), (before, 0));
    it.stop();
}

pub async fn settings_are_taken_by_a_command_in_the_context_of_the_process(mut it: Supervisor) {
    fs::write(it.path("settings"), "one\n").unwrap();
    let command =
        "[sh, -c, 'test -e ok || { echo \"$WHO $(id -un) $PWD\"; exit 4; }; kill -HUP $MAINPID']";
    let slow = "  slow:\n    command: [sleep, '@MARK@']\n    reload: { command: [sleep, '@MARK@'], timeout: 200ms }\n";
    let client = it.run(&(bot("bot", &format!("reload: {{ command: {command} }}")) + slow)).await;
    let before = it.until_all("running", &["bot@0", "slow@0"]).await["bot@0"].pid;
    until("it listens", || said(&it) == ["up"]).await;
    let failed = reload(&client, "bot").await;
    assert_eq!((&*failed.result, &*failed.detail), ("failed", "exited with code 4"));
    let printed = client.reload_output("bot").await.unwrap();
    let dir = it.directory.path().display();
    let user = if is_root() { "nobody".to_owned() } else { user_name() };
    assert_eq!(printed, format!("me {user} {dir}"));
    fs::write(it.path("ok"), "").unwrap();
    assert_eq!(reload(&client, "bot").await.result, "done");
    until("it has taken them", || said(&it).last().unwrap() == "one").await;
    let failed = reload(&client, "slow").await;
    assert_eq!(failed.detail, "was still there after 200ms, and was killed");
    until("nothing of it is left", || it.marked().len() == 1).await;
    assert_eq!(it.status().await["bot@0"].pid, before);
    it.stop();
}

fn user_name() -> String {
    let output = std::process::Command::new("id").arg("-un").output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

pub async fn what_it_has_watched_renews_a_process(mut it: Supervisor) {
    fs::create_dir(it.path("dist")).unwrap();
    let file = "  web:\n    command: [sleep, '@MARK@']\n    watch: { paths: [@DIR@/dist] }\n";
    it.run(file).await;
    let before = it.until_all("running", &["web@0"]).await["web@0"].pid;
    let renewed =
        |status: &Status| status["web@0"].state == "running" && status["web@0"].pid != before;
    // What is written before all is watched is no change.
    for n in 0.. {
        fs::write(it.path(&format!("dist/{n}")), "").unwrap();
        let patience = std::time::Duration::from_secs(3);
        if tokio::time::timeout(patience, it.until("it is renewed", renewed)).await.is_ok() {
            break;
        }
    }
    assert_eq!(it.until_all("running", &["web@0"]).await["web@0"].restarts, 0);
    it.stop();
}
