//! What is applied to be confirmed is undone unless somebody does, whatever dies on the way.

use crate::common::processes::processes_with;
use crate::common::waiting::until;
use crate::support::{Daemon, content, identities};
use crate::survival::noticed;
use provost::client::{
    ApplyOptions, Client, ClientError, ManagerStatus, ReloadOptions, ReloadSummary,
};
use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

const HOUR: Duration = Duration::from_secs(3600);
/// The shortest there is.
const SOON: Duration = Duration::from_secs(1);

/// `a` runs on; `b` is what is tried.
fn with(b: &str) -> String {
    format!(
        "processManagement: {{ settle: 100ms }}
processes:
  a: {{ shell: exec sleep 88811 }}
  b: {{ shell: '{b}', restartPolicy: {{ delay: 0, jitter: 0 }} }}
"
    )
}

/// What runs before, of this test alone.
fn old() -> String {
    format!("exec sleep 8{:07}", std::process::id())
}

/// What is tried.
fn new() -> String {
    format!("exec sleep 9{:07}", std::process::id())
}

/// How many of the old and of the new run.
fn running() -> (usize, usize) {
    let count = |shell: String| processes_with(shell.strip_prefix("exec ").unwrap()).len();
    (count(old()), count(new()))
}

async fn apply(
    client: &Client,
    yaml: &str,
    within: Duration,
) -> Result<ReloadSummary, ClientError> {
    let options = ApplyOptions { confirm: Some(within), ..ApplyOptions::default() };
    client.apply(content(yaml), &options).await
}

/// A daemon with the new one up, to be confirmed.
async fn tried(within: Duration) -> (Daemon, Client) {
    let daemon = Daemon::start(&with(&old()));
    daemon.until_running(&["a@0", "b@0"]).await;
    let client = daemon.client().await;
    let summary = apply(&client, &with(&new()), within).await.unwrap();
    assert_eq!((&*summary.result, summary.generation), ("applied", 2));
    (daemon, client)
}

fn on_disk(daemon: &Daemon) -> String {
    fs::read_to_string(daemon.file()).unwrap()
}

/// Everything is as before it was tried, and nothing is left of that.
async fn undone(daemon: &Daemon) -> ManagerStatus {
    let is_so = |manager: &ManagerStatus| {
        manager.config_state == "applied"
            && manager.generation == 1
            && manager.config_detail.is_empty()
    };
    let manager = daemon.until_manager("undone", is_so).await;
    daemon.until_running(&["a@0", "b@0"]).await;
    assert_eq!(running(), (1, 0));
    assert_eq!(on_disk(daemon), with(&old()));
    assert_eq!(daemon.client().await.checkpoint().await.unwrap(), None);
    nothing_left(daemon);
    manager
}

fn nothing_left(daemon: &Daemon) {
    for name in ["checkpoint", "checkpoint.former"] {
        assert!(!state(daemon).join(name).exists(), "{name} is left");
    }
}

fn state(daemon: &Daemon) -> std::path::PathBuf {
    daemon.path().join(".local/state/provost")
}

fn refused(result: Result<ReloadSummary, ClientError>) -> String {
    match result {
        Err(ClientError::Refused { name, .. }) => name,
        other => panic!("{other:?}"),
    }
}

/// A reload that waits for somebody who writes does not take for its own what is tried meanwhile.
#[tokio::test]
async fn what_is_tried_while_a_reload_waits_is_undone_all_the_same() {
    let daemon = Daemon::start(&with(&old()));
    daemon.until_running(&["a@0", "b@0"]).await;
    let client = daemon.client().await;
    let mut file = fs::OpenOptions::new().append(true).open(daemon.file()).unwrap();
    let provost = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_provost"));
        command.arg("--socket").arg(daemon.path().join("private")).args(words);
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    };
    file.write_all(b"# more\n").unwrap();
    let mut reload = provost(&["reload"]);
    noticed(&daemon, &mut file);
    // He goes on, and what he writes is no file of ours any more once that has taken its place.
    let is_over = Arc::new(AtomicBool::new(false));
    let over = Arc::clone(&is_over);
    let writer = std::thread::spawn(move || {
        while !over.load(Ordering::Relaxed) {
            file.write_all(b"# more\n").unwrap();
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    // Whether it comes before or after what is tried: it is not for the file that this is.
    let disable = provost(&["disable", "a"]);
    let summary = apply(&client, &with(&new()), SOON).await.unwrap();
    assert_eq!((&*summary.result, running()), ("applied", (0, 1)));
    assert!(client.checkpoint().await.unwrap().is_some(), "it is to be confirmed");
    let refused = disable.wait_with_output().unwrap();
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    is_over.store(true, Ordering::Relaxed);
    writer.join().unwrap();
    reload.wait().unwrap();
    until("it is undone", || running() == (1, 0));
    until("nothing is left", || !state(&daemon).join("checkpoint").exists());
    assert_eq!(client.checkpoint().await.unwrap(), None);
    assert!(on_disk(&daemon).starts_with(&with(&old())));
}

#[tokio::test]
async fn what_nobody_confirms_is_undone() {
    let daemon = Daemon::start(&with(&old()));
    let before = identities(&daemon.until_running(&["a@0", "b@0"]).await);
    let client = daemon.client().await;
    let summary = apply(&client, &with(&new()), SOON).await.unwrap();
    assert_eq!((&*summary.result, summary.generation), ("applied", 2));
    undone(&daemon).await;
    let after = identities(&daemon.status().await);
    assert_eq!(before["a@0"], after["a@0"], "what was not touched is as it was");
    let history = client.history(None).await.unwrap();
    assert_eq!((history[0].number, &*history[0].state), (2, "rolled-back"));
    assert_eq!(
        (&*history[0].cause, &*history[0].why),
        ("checkpoint", &["nobody confirmed it in 1s".to_owned()][..])
    );
    assert_eq!(history.len(), 2);
    daemon.logged("generation 2: nobody confirmed it in 1s; going back to generation 1");
    daemon.logged("generation 1 runs again; 2: nobody confirmed it in 1s");
}

#[tokio::test]
async fn what_is_confirmed_stays() {
    let (daemon, client) = tried(HOUR).await;
    let pending = client.checkpoint().await.unwrap().unwrap();
    assert_eq!((pending.generation, &*pending.state), (2, "waiting"));
    let manager = client.manager().await.unwrap();
    assert!(manager.config_detail.contains("unless it is confirmed"), "{}", manager.config_detail);
    daemon.notified("STATUS=2 of 2 running; generation 2 is undone at");
    client.confirm(2).await.unwrap();
    assert_eq!(client.checkpoint().await.unwrap(), None);
    nothing_left(&daemon);
    let daemon = daemon.killed_and_again();
    let manager = daemon.client().await.manager().await.unwrap();
    assert_eq!((manager.generation, &*manager.config_detail), (2, ""));
    assert_eq!((running(), on_disk(&daemon)), ((0, 1), with(&new())));
}

#[tokio::test]
async fn it_can_be_taken_back_at_once_when_it_is_up_and_before() {
    let (daemon, client) = tried(HOUR).await;
    let summary = client.take_back(2).await.unwrap();
    assert_eq!((&*summary.result, summary.generation, summary.tried), ("rolled-back", 1, Some(2)));
    undone(&daemon).await;

    // One that would be on trial for an hour.
    let slow = with(&new()).replace("settle: 100ms", "settle: 1h, verdictTimeout: 2h");
    let asked = client.clone();
    let applied = tokio::spawn(async move { apply(&asked, &slow, HOUR).await });
    daemon.until_manager("on trial", |manager| manager.config_detail.contains("stay so")).await;
    let pending = client.checkpoint().await.unwrap().unwrap();
    assert_eq!((&*pending.state, pending.deadline), ("trying", None));
    let summary = client.take_back(3).await.unwrap();
    assert_eq!((&*summary.result, summary.generation), ("rolled-back", 1));
    assert_eq!(applied.await.unwrap().unwrap().result, "rolled-back");
    undone(&daemon).await;
}

#[tokio::test]
async fn what_does_not_come_up_is_undone_with_its_file() {
    let daemon = Daemon::start(&with(&old()));
    daemon.until_running(&["a@0", "b@0"]).await;
    let client = daemon.client().await;
    let summary = apply(&client, &with("exit 3"), HOUR).await.unwrap();
    assert_eq!((&*summary.result, summary.generation), ("rolled-back", 1));
    undone(&daemon).await;
}

#[tokio::test]
async fn a_daemon_that_follows_undoes_it_in_time() {
    let (daemon, _) = tried(HOUR).await;
    let daemon = daemon.killed_and_again();
    let client = daemon.client().await;
    let pending = client.checkpoint().await.unwrap().unwrap();
    assert_eq!((pending.generation, &*pending.state), (2, "waiting"));
    assert!(pending.deadline.is_some());
    assert_eq!(running(), (0, 1));
    set_timeout(&daemon, 2, SOON).await;
    let deadline = client.checkpoint().await.unwrap().unwrap().deadline.unwrap();
    let daemon = daemon.killed();
    // Nobody is there when it is over.
    until("its time is over", || SystemTime::now() > deadline);
    let daemon = daemon.again();
    undone(&daemon).await;
}

async fn set_timeout(daemon: &Daemon, generation: u64, within: Duration) {
    let address = format!("unix:path={}", daemon.path().join("private").display());
    let connection = zbus::connection::Builder::address(&*address).p2p().build().await.unwrap();
    let path = format!("/org/provost/Provost1/checkpoint/{generation}");
    let interface = Some("org.provost.Provost1.Checkpoint");
    let usec = u64::try_from(within.as_micros()).unwrap();
    for (usec, is_good) in [(999_999, false), (usec, true)] {
        let body = (usec,);
        let answer = connection.call_method(None::<&str>, &*path, interface, "SetTimeout", &body);
        assert_eq!(answer.await.is_ok(), is_good, "{usec}");
    }
}

#[tokio::test]
async fn more_time_can_be_given_and_less() {
    let (daemon, client) = tried(SOON * 3).await;
    set_timeout(&daemon, 2, HOUR).await;
    let deadline = client.checkpoint().await.unwrap().unwrap().deadline.unwrap();
    let left = deadline.duration_since(SystemTime::now()).unwrap();
    assert!(left > HOUR / 2 && left <= HOUR, "{left:?}");
    set_timeout(&daemon, 2, SOON).await;
    undone(&daemon).await;
}

#[tokio::test]
async fn after_a_reboot_it_is_undone_before_anything_is_started() {
    let mut daemon = Daemon::start(&with(&old()));
    daemon.until_running(&["a@0", "b@0"]).await;
    let marks = daemon.path().join("marks");
    let tried = with(&format!("echo >>{}; {}", marks.display(), new()));
    apply(&daemon.client().await, &tried, HOUR).await.unwrap();
    let before = fs::read(&marks).unwrap();
    assert!(daemon.stop().success());
    // What ends with the boot.
    fs::remove_dir_all(daemon.path().join("state")).unwrap();
    let daemon = daemon.again();
    undone(&daemon).await;
    assert_eq!(fs::read(&marks).unwrap(), before, "it was started");
    let history = daemon.client().await.history(None).await.unwrap();
    let tried = history.iter().find(|generation| generation.number == 2).unwrap();
    assert_eq!(tried.state, "rolled-back");
    assert!(tried.why[0].contains("started again before anybody confirmed it"), "{tried:?}");
    daemon.logged("generation 2: the machine was started again before anybody confirmed it");
}

#[tokio::test]
async fn nothing_else_is_written_to_the_files_meanwhile() {
    let (daemon, client) = tried(HOUR).await;
    let other = || content(&with("exec sleep 1"));
    for result in [
        client.apply(other(), &ApplyOptions::default()).await,
        apply(&client, &with("exec sleep 1"), HOUR).await,
        client.roll_back(Some(1), false).await,
        client.set_enabled(&["a".to_owned()], false).await,
    ] {
        assert_eq!(refused(result), "CheckpointPending");
    }
    // Asking for what is there already is no harm.
    let summary = client.reload(&ReloadOptions::default()).await.unwrap();
    assert_eq!((&*summary.result, summary.generation), ("unchanged", 2));
    assert!(client.confirm(1).await.is_err(), "it does not wait");
    client.take_back(2).await.unwrap();
    undone(&daemon).await;
}

#[tokio::test]
async fn a_file_that_somebody_else_wrote_stays() {
    let (daemon, client) = tried(HOUR).await;
    let newer = with(&new()).replace("88811", "88812");
    daemon.save(&newer);
    daemon.until_generation(3).await;
    assert!(client.checkpoint().await.unwrap().is_some());
    let summary = client.take_back(2).await.unwrap();
    assert_eq!((&*summary.result, summary.generation), ("unchanged", 3));
    assert_eq!(on_disk(&daemon), newer);
    assert_eq!(client.checkpoint().await.unwrap(), None);
    nothing_left(&daemon);
    daemon.logged("the file was changed meanwhile and stays as it is");
}

/// Who takes it back while something newer is being tried has to wait for the end of that, and gets what
/// he asked for.
#[tokio::test]
async fn it_is_taken_back_after_what_is_on_its_way() {
    let (daemon, client) = tried(HOUR).await;
    // It stays up for less than it has to.
    let bad = with("sleep 0.3; exit 3").replace("settle: 100ms", "settle: 5s");
    daemon.save(&bad);
    daemon.until_manager("newer", |manager| manager.generation == 3).await;
    let summary = client.take_back(2).await.unwrap();
    assert_eq!((&*summary.result, summary.generation, summary.tried), ("rolled-back", 1, Some(2)));
    // What somebody else wrote stays, and is not tried again.
    let manager = daemon
        .until_manager("held off", |manager| manager.config_detail.contains("tried as 3"))
        .await;
    assert_eq!((&*manager.config_state, manager.generation), ("rolled-back", 1));
    daemon.until_running(&["a@0", "b@0"]).await;
    assert_eq!((running(), on_disk(&daemon)), ((1, 0), bad));
    assert_eq!(client.checkpoint().await.unwrap(), None);
    nothing_left(&daemon);
}

#[tokio::test]
async fn what_else_was_changed_stays_and_the_file_goes_back() {
    let daemon = Daemon::start(&with(&old()));
    daemon.until_running(&["a@0", "b@0"]).await;
    let client = daemon.client().await;
    apply(&client, &with(&new()), HOUR).await.unwrap();
    let drop_ins = daemon.path().join("processes.d");
    fs::create_dir(&drop_ins).unwrap();
    fs::write(drop_ins.join("c.yaml"), "processes:\n  c: { shell: exec sleep 88813 }\n").unwrap();
    daemon.until_running(&["c@0"]).await;
    daemon.until_generation(3).await;
    let summary = client.take_back(2).await.unwrap();
    assert_eq!((&*summary.result, summary.generation), ("applied", 4));
    daemon.until_running(&["a@0", "b@0", "c@0"]).await;
    assert_eq!((running(), on_disk(&daemon)), ((1, 0), with(&old())));
    nothing_left(&daemon);
}

#[tokio::test]
async fn what_was_held_off_before_is_so_again() {
    let daemon = Daemon::start(&with(&old()));
    daemon.until_running(&["a@0", "b@0"]).await;
    let bad = with("echo >>@DIR@/tried; exit 3");
    daemon.save(&bad);
    let is_back = |manager: &ManagerStatus| manager.config_state == "rolled-back";
    daemon.until_manager("rolled back", is_back).await;
    let tried = fs::read(daemon.path().join("tried")).unwrap();
    let bad = on_disk(&daemon);
    let client = daemon.client().await;
    let summary = apply(&client, &with(&new()), HOUR).await.unwrap();
    assert_eq!((&*summary.result, summary.generation), ("applied", 3));
    client.take_back(3).await.unwrap();
    let manager = daemon
        .until_manager("held off", |manager| manager.config_detail.contains("tried as 2"))
        .await;
    assert_eq!((&*manager.config_state, manager.generation), ("rolled-back", 1));
    daemon.until_running(&["a@0", "b@0"]).await;
    assert_eq!((running(), on_disk(&daemon)), ((1, 0), bad));
    let again = client.reload(&ReloadOptions::default()).await;
    assert_eq!(refused(again), "ConfigHeldOff");
    assert_eq!(fs::read(daemon.path().join("tried")).unwrap(), tried, "it was tried again");
    nothing_left(&daemon);
}

#[tokio::test]
async fn without_a_verdict_it_is_undone_as_well() {
    let off = |b: &str| with(b).replace("settle: 100ms", "rollback: off");
    let daemon = Daemon::start(&off(&old()));
    daemon.until_running(&["a@0", "b@0"]).await;
    let client = daemon.client().await;
    let summary = apply(&client, &off(&new()), SOON).await.unwrap();
    assert_eq!(summary.result, "applied");
    let is_so =
        |manager: &ManagerStatus| manager.generation == 1 && manager.config_detail.is_empty();
    daemon.until_manager("undone", is_so).await;
    daemon.until_running(&["a@0", "b@0"]).await;
    assert_eq!((running(), on_disk(&daemon)), ((1, 0), off(&old())));
}

#[tokio::test]
async fn what_says_the_same_is_not_to_be_confirmed() {
    let daemon = Daemon::start(&with(&old()));
    daemon.until_running(&["a@0", "b@0"]).await;
    let client = daemon.client().await;
    let same = format!("# only a comment\n{}", with(&old()));
    let summary = apply(&client, &same, HOUR).await.unwrap();
    assert_eq!((&*summary.result, summary.generation), ("unchanged", 1));
    assert_eq!(client.checkpoint().await.unwrap(), None);
    assert_eq!(on_disk(&daemon), same);
    nothing_left(&daemon);
    // Nor what was made for another generation.
    let options = ApplyOptions { expect_generation: Some(7), confirm: Some(HOUR) };
    let other = client.apply(content(&with(&new())), &options).await;
    assert_eq!(refused(other), "GenerationMismatch");
    assert_eq!(on_disk(&daemon), same);
    // What is not valid is not even there for a moment.
    let invalid = apply(&client, "processes: { b: { comand: x } }", HOUR).await;
    assert!(matches!(invalid, Err(ClientError::ConfigInvalid(_))), "{invalid:?}");
    nothing_left(&daemon);
}

#[tokio::test]
async fn the_command_line_says_how_and_does_it() {
    let daemon = Daemon::start(&with(&old()));
    daemon.until_running(&["a@0", "b@0"]).await;
    let file = daemon.path().join("tried.yaml");
    fs::write(&file, with(&new())).unwrap();
    let run = |words: &[&str]| daemon.provost(words);
    let (code, _, err) = run(&["confirm"]);
    assert_eq!((code, err.trim()), (1, "error: nothing waits to be confirmed"));
    let apply = ["apply", file.to_str().unwrap(), "--confirm", "1h"];
    let (code, out, err) = run(&apply);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.starts_with("applied generation 2"), "{out}");
    assert!(err.contains("it is undone in") && err.contains("provost confirm"), "{err}");
    let (code, _, err) = run(&apply);
    assert_eq!(code, 1);
    assert!(err.contains("generation 2 is to be confirmed"), "{err}");
    let (code, out, err) = run(&["rollback"]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("generation 1 runs again instead of 2"), "{out}");
    assert!(!err.contains("--force"), "the file was put back: {err}");
    undone(&daemon).await;
    assert_eq!(run(&apply).0, 0);
    let (code, out, _) = run(&["confirm"]);
    assert_eq!((code, out.trim()), (0, "confirmed: generation 3 stays"));
    assert_eq!(running(), (0, 1));
}

/// On a terminal somebody is there to be asked.
#[tokio::test]
async fn on_a_terminal_it_asks() {
    let daemon = Daemon::start(&with(&old()));
    daemon.until_running(&["a@0", "b@0"]).await;
    fs::write(daemon.path().join("tried.yaml"), with(&new())).unwrap();
    let client = daemon.client().await;
    for (answer, generation, kept) in [("n", 2, false), ("y", 3, true)] {
        let line = format!(
            "{} --socket private apply tried.yaml --confirm 1h",
            env!("CARGO_BIN_EXE_provost")
        );
        // A terminal of its own for the command; what is written to script is typed there.
        let mut script = Command::new("script")
            .args(["-qec", &line, "/dev/null"])
            .current_dir(daemon.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let typed = script.stdin.as_mut().unwrap();
        std::io::Write::write_all(typed, format!("{answer}\n").as_bytes()).unwrap();
        let exit = crate::common::waiting::ended(&mut script, "the answer");
        let mut said = String::new();
        std::io::Read::read_to_string(script.stdout.as_mut().unwrap(), &mut said).unwrap();
        assert!(
            said.contains(&format!("Keep generation {generation}? In 1h00m it is undone")),
            "{said}"
        );
        assert_eq!(exit.code(), Some(if kept { 0 } else { 2 }), "{said}");
        assert_eq!(client.checkpoint().await.unwrap(), None);
        if !kept {
            undone(&daemon).await;
        }
    }
    assert_eq!((running(), on_disk(&daemon)), ((0, 1), with(&new())));
}
