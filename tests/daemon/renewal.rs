//! Processes that take new settings without a new run, and processes whose files are watched.

use crate::common::waiting::{DEADLINE, until};
use crate::support::{Daemon, Status};
use provost::client::{JobOutcome, Verb};
use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;

const BOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/daemon/bot.py");

/// Each run of it leaves a line.
const WEB: &str = "  web:\n    shell: \"echo run >> starts; exec sleep 1000\"\n";
/// It is renewed whenever `dist` or `last` changes, so that what did not happen to others by then
/// does not happen.
const PROBE: &str = "  probe: { shell: exec sleep 1000, watch: { paths: [dist, last] } }\n";

fn file(processes: &[&str]) -> String {
    format!("processes:\n{}", processes.concat())
}

fn web(more: &str) -> String {
    format!("{WEB}    {more}\n")
}

fn starts(daemon: &Daemon) -> usize {
    fs::read_to_string(daemon.path().join("starts")).unwrap_or_default().lines().count()
}

fn pid(status: &Status, name: &str) -> u32 {
    status[&format!("{name}@0")].pid.unwrap_or_else(|| panic!("{name} does not run"))
}

/// Does something, and waits until a process has another run because of it.
async fn renews(daemon: &Daemon, name: &str, what: impl FnOnce(&Path)) {
    let before = pid(&daemon.until_running(&[&format!("{name}@0")]).await, name);
    what(daemon.path());
    let is_new = |status: &Status| {
        let one = &status[&format!("{name}@0")];
        one.state == "running" && one.pid.is_some_and(|pid| pid != before)
    };
    daemon.until(&format!("{name} is renewed"), is_new).await;
}

fn write(name: &str, text: &str) -> impl FnOnce(&Path) {
    move |dir| {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

/// Until all that is watched is watched for sure: what is renewed by `last` was looked at before.
async fn watched(daemon: &Daemon) {
    let before = pid(&daemon.until_running(&["probe@0"]).await, "probe");
    for n in 0.. {
        write("last", &"x".repeat(n))(daemon.path());
        let is_new = |status: &Status| {
            status["probe@0"].state == "running" && pid(status, "probe") != before
        };
        let renewed = daemon.until("the probe is renewed", is_new);
        let patience = std::time::Duration::from_secs(3);
        if tokio::time::timeout(patience, renewed).await.is_ok() {
            return;
        }
    }
}

async fn kinds_of(daemon: &Daemon, name: &str) -> Vec<(String, String)> {
    let (events, _) = daemon.client().await.events(None, 0).await.unwrap();
    let id = format!("{name}@0");
    let own = events.into_iter().filter(|event| event.instance.as_deref() == Some(&*id));
    own.map(|event| (event.kind, event.message)).collect()
}

async fn reload(daemon: &Daemon, name: &str) -> JobOutcome {
    let client = daemon.client().await;
    let jobs = client.run(Verb::Reload, &[name.to_owned()], |_| {}).await.unwrap();
    jobs.into_iter().next().unwrap()
}

struct Chat(BufReader<UnixStream>);

impl Chat {
    fn accept(listener: &UnixListener) -> Chat {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        Chat(BufReader::new(stream))
    }

    /// What the bot says next, but for what it said before: it may be told twice of one change.
    fn says(&mut self, wanted: &str) {
        let mut line = String::new();
        while line.trim() != wanted {
            line.clear();
            assert_ne!(self.0.read_line(&mut line).unwrap(), 0, "it hung up");
        }
    }
}

#[tokio::test]
async fn a_bot_that_reads_its_own_file_stays_connected() {
    let mut listener = None;
    let prepared = Daemon::prepare(|dir| {
        listener = Some(UnixListener::bind(dir.join("chat")).unwrap());
        fs::write(dir.join("settings"), "one").unwrap();
    });
    let bot = format!("  bot: {{ command: [python3, '{BOT}', chat, settings] }}\n");
    let bot = bot.replace(
        " }\n",
        ", reload: { signal: SIGHUP }, watch: { paths: [settings], action: reload } }\n",
    );
    let daemon = prepared.with(&file(&[&bot, PROBE]));
    let mut chat = Chat::accept(&listener.unwrap());
    chat.says("one");
    daemon.until_running(&["bot@0", "probe@0"]).await;
    watched(&daemon).await;
    let first = pid(&daemon.until_running(&["bot@0"]).await, "bot");
    let settings = daemon.path().join("settings");
    let run = |line: &str| {
        let shell = Command::new("sh").args(["-ec", line]).current_dir(daemon.path()).status();
        assert!(shell.unwrap().success(), "{line}");
    };
    fs::write(&settings, "two").unwrap();
    chat.says("two");
    run("printf three > new; mv new settings");
    chat.says("three");
    run("printf four > new; cp new settings");
    chat.says("four");
    run("sed -i s/four/five/ settings");
    chat.says("five");
    run("rm settings; printf six > settings");
    chat.says("six");
    // As vim does, with the old one kept until the new one is there.
    run("mv settings settings~; printf seven > settings; rm settings~");
    chat.says("seven");
    let mut open = OpenOptions::new().append(true).open(&settings).unwrap();
    open.write_all(b"teen").unwrap();
    chat.says("seventeen");
    let status = daemon.status().await;
    assert_eq!((pid(&status, "bot"), status["bot@0"].restarts), (first, 0));
    let told = kinds_of(&daemon, "bot").await;
    let changed = format!("{}, which it watches, changed", settings.display());
    assert!(told.contains(&("watched-changed".to_owned(), changed)), "{told:?}");
    // And by hand, also after another daemon has come.
    let daemon = daemon.killed().again();
    assert_eq!(reload(&daemon, "bot").await.result, "done");
    chat.says("seventeen");
    watched(&daemon).await;
    fs::write(&settings, "eight").unwrap();
    chat.says("eight");
    assert_eq!(pid(&daemon.status().await, "bot"), first);
}

#[tokio::test]
async fn a_reload_by_a_command_succeeds_or_says_why_not() {
    let command = "[sh, -c, 'echo main $MAINPID $NAME in $PWD; test -e ok']";
    let web = web(&format!("env: {{ NAME: web }}\n    reload: {{ command: {command} }}"));
    let slow = "  slow: { shell: exec sleep 1000, reload: { command: [sleep, '1000'], timeout: 100ms } }\n";
    let plain = "  plain: { shell: exec sleep 1000 }\n";
    let daemon = Daemon::start(&file(&[&web, slow, plain]));
    let first = pid(&daemon.until_running(&["web@0", "slow@0", "plain@0"]).await, "web");
    let failed = reload(&daemon, "web").await;
    assert_eq!((failed.result.as_str(), failed.detail.as_str()), ("failed", "exited with code 1"));
    let printed = daemon.client().await.reload_output("web").await.unwrap();
    assert_eq!(printed, format!("main {first} web in {}", daemon.path().display()));
    fs::write(daemon.path().join("ok"), "").unwrap();
    assert_eq!(reload(&daemon, "web").await.result, "done");
    let slow = reload(&daemon, "slow").await;
    assert_eq!(slow.detail, "was still there after 100ms, and was killed");
    let client = daemon.client().await;
    for (name, error) in [("plain", "NoReload"), ("none", "NoSuchProcess")] {
        let refused = client.submit(Verb::Reload, &[name.to_owned()]).await.unwrap_err();
        let text = format!("{refused:?}");
        assert!(text.contains(error), "{name}: {text}");
    }
    client.stop(&["web".to_owned()], |_| {}).await.unwrap();
    let refused = client.submit(Verb::Reload, &["web".to_owned()]).await.unwrap_err();
    assert!(format!("{refused:?}").contains("web@0 is not running"), "{refused:?}");
    assert_eq!(starts(&daemon), 1);
}

#[tokio::test]
async fn a_storm_of_writes_gives_one_new_run_and_no_failure() {
    let web = web(
        "watch: { paths: [dist, conf/app], debounce: 3s }\n    restartPolicy: { maxAttempts: 0 }",
    );
    let daemon = Daemon::start(&file(&[&web, PROBE]));
    daemon.until_running(&["web@0", "probe@0"]).await;
    watched(&daemon).await;
    assert_eq!(starts(&daemon), 1);
    renews(&daemon, "web", |dir| {
        // What is not there yet is watched too.
        for n in 0..300 {
            write(&format!("dist/{}/{n}.js", n % 7), "x")(dir);
        }
        write("conf/app", "x")(dir);
    })
    .await;
    renews(&daemon, "web", write("conf/app", "xx")).await;
    assert_eq!(starts(&daemon), 3);
    let status = daemon.status().await;
    assert_eq!((status["web@0"].restarts, status["web@0"].state.as_str()), (0, "running"));
    let told = kinds_of(&daemon, "web").await;
    let last = told.iter().rev().find(|(kind, _)| kind == "stopping").unwrap();
    let path = daemon.path().join("conf/app").display().to_string();
    assert_eq!(last.1, format!("stopping: {path}, which it watches, changed"));
}

#[tokio::test]
async fn what_is_written_while_it_is_stopped_is_in_the_new_run() {
    // It ends only once it is let go.
    let slow = "  web:\n    shell: \"trap 'read x < gate; exit 0' TERM; echo run >> starts; \
                while :; do sleep 0.05; done\"\n    watch: { paths: [dist], debounce: 50ms }\n";
    let daemon = Daemon::prepare(|dir| {
        let gate = dir.join("gate");
        rustix::fs::mkfifoat(rustix::fs::CWD, &gate, rustix::fs::Mode::RWXU).unwrap();
        write("dist/a", "1")(dir);
    })
    .with(&file(&[slow, PROBE]));
    daemon.until_running(&["web@0", "probe@0"]).await;
    watched(&daemon).await;
    until("it listens", || starts(&daemon) == 1);
    write("dist/a", "22")(daemon.path());
    daemon.until("web is being stopped", |status| status["web@0"].state == "stopping").await;
    // The probe sees the same files, later.
    for n in 3..6 {
        renews(&daemon, "probe", write("dist/a", &"x".repeat(n))).await;
    }
    fs::write(daemon.path().join("gate"), "\n").unwrap();
    until("it listens again", || starts(&daemon) == 2);
    // And from then on, once more.
    write("dist/a", "1")(daemon.path());
    daemon.until("web is being stopped", |status| status["web@0"].state == "stopping").await;
    fs::write(daemon.path().join("gate"), "\n").unwrap();
    until("it listens again", || starts(&daemon) == 3);
    daemon.client().await.submit(Verb::Stop, &["web".to_owned()]).await.unwrap();
    daemon.until("web is being stopped", |status| status["web@0"].state == "stopping").await;
    fs::write(daemon.path().join("gate"), "\n").unwrap();
    daemon.until("it is down", |status| status["web@0"].state == "down").await;
    assert_eq!(starts(&daemon), 3);
}

#[tokio::test]
async fn what_an_operator_stopped_stays_stopped_and_what_failed_is_tried_at_once() {
    let web = web("watch: { paths: [dist] }");
    let broken = "  broken:\n    shell: \"test -e dist/fixed && exec sleep 1000\"\n    \
                  restartPolicy: { delay: 1h, maxDelay: 1h }\n    watch: { paths: [dist] }\n";
    let daemon = Daemon::start(&file(&[&web, broken, PROBE]));
    daemon.until_running(&["web@0", "probe@0"]).await;
    daemon.until("it has failed", |status| status["broken@0"].state == "backoff").await;
    watched(&daemon).await;
    daemon.client().await.stop(&["web".to_owned()], |_| {}).await.unwrap();
    renews(&daemon, "probe", write("dist/fixed", "x")).await;
    daemon.until_running(&["broken@0"]).await;
    renews(&daemon, "probe", write("dist/fixed", "xx")).await;
    assert_eq!((daemon.status().await["web@0"].state.as_str(), starts(&daemon)), ("down", 1));
    let told = kinds_of(&daemon, "broken").await;
    assert!(told.iter().any(|(kind, _)| kind == "watched-changed"), "{told:?}");
}

#[tokio::test]
async fn what_is_watched_follows_the_file_and_the_daemon() {
    let plain = web("description: x");
    let with = |paths: &str| web(&format!("watch: {{ paths: [{paths}] }}"));
    let daemon = Daemon::start(&file(&[&plain, PROBE]));
    let first = pid(&daemon.until_running(&["web@0", "probe@0"]).await, "web");
    watched(&daemon).await;
    renews(&daemon, "probe", write("dist/a", "x")).await;
    daemon.save(&file(&[&with("dist"), PROBE]));
    daemon.until_generation(2).await;
    assert_eq!(pid(&daemon.status().await, "web"), first, "that alone is no reason");
    watched(&daemon).await;
    renews(&daemon, "web", write("dist/a", "xx")).await;
    let second = pid(&daemon.status().await, "web");
    daemon.save(&file(&[&with("other"), PROBE]));
    daemon.until_generation(3).await;
    watched(&daemon).await;
    renews(&daemon, "probe", write("dist/a", "xxx")).await;
    let daemon = daemon.killed().again();
    daemon.until_running(&["web@0", "probe@0"]).await;
    watched(&daemon).await;
    renews(&daemon, "probe", write("dist/a", "xxxx")).await;
    assert_eq!(pid(&daemon.status().await, "web"), second);
    renews(&daemon, "web", write("other/a", "x")).await;
    daemon.save(&file(&[&plain, PROBE]));
    daemon.until_generation(4).await;
    watched(&daemon).await;
    renews(&daemon, "probe", |dir| {
        write("other/a", "xx")(dir);
        write("dist/a", "x")(dir);
    })
    .await;
    assert_eq!(starts(&daemon), 3);
}
