//! What a daemon keeps of configurations, as its command line and its bus tell it.

use crate::support::Daemon;
use provost::config::difference::between;
use provost::config::load::{Loaded, Location, Mode, load};
use provost::core::ids::Generation;
use provost::core::reload::Plan;
use provost::core::spec::Config;
use provost::store::generations::{Accepted, Cause, Generations, State, Timing};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

const STATE: &str = ".local/state/provost";

fn read(dir: &Path) -> Loaded {
    let main = dir.join("processes.yaml");
    let loaded = load(&Location { main, mode: Mode::User, environment: Arc::default() });
    assert!(loaded.config.is_some(), "{:?}", loaded.diagnostics);
    loaded
}

fn write(dir: &Path, version: u64) {
    let yaml = match version {
        1 => "processes:\n  a: { command: [sleep, '1000'], envFile: a.env }\n",
        2 => {
            "processes:\n  a: { command: [sleep, '1000'], envFile: a.env }\n  b: { command: gone }\n"
        }
        _ => "processes:\n  a: { command: [sleep, '1001'], envFile: a.env }\n",
    };
    fs::write(dir.join("processes.yaml"), yaml).unwrap();
    fs::write(dir.join("a.env"), format!("TOKEN=hunter{version}\n")).unwrap();
}

/// Three of them, of which the second did not come up, and the third is what is on disk.
fn fill(dir: &Path) {
    let mut remarks = Vec::new();
    let mut generations = Generations::open(Some(&dir.join(STATE)), &mut remarks);
    let mut before = Arc::new(Config::default());
    for version in 1..=3 {
        write(dir, version);
        let loaded = read(dir);
        let config = loaded.config.clone().unwrap();
        let accepted = Accepted {
            number: generations.next_number(Generation(0)),
            cause: if version == 1 { Cause::Start } else { Cause::Caller { uid: 1000 } },
            base: (version > 1).then_some(Generation(1)),
            state: State::Applying,
            plan: Plan::between(&before, &config),
            timings: vec![Timing { stage: "read".into(), ms: 3 }],
            diagnostics: Vec::new(),
        };
        generations.add(accepted, &loaded.sources).unwrap();
        let change = |record: &mut provost::store::generations::Record| match version {
            2 => {
                record.state = State::RolledBack;
                record.why = vec!["b@0: cannot start: gone: no such command".into()];
            }
            _ => record.state = State::Applied,
        };
        generations.change(Generation(version), change).unwrap();
        if version != 2 {
            before = config;
        }
    }
    assert_eq!(remarks, [""; 0]);
}

struct Cli {
    dir: PathBuf,
    socket: PathBuf,
}

impl Cli {
    fn of(daemon: &Daemon) -> Cli {
        Cli { dir: daemon.path().to_owned(), socket: daemon.path().join("private") }
    }

    /// The exit code, and what was said on both outputs.
    fn run(&self, line: &str) -> (i32, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_provost"));
        command.current_dir(&self.dir).env("TZ", "UTC").arg("--socket").arg(&self.socket);
        let output = command.args(line.split(' ')).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(!out.contains("hunter") && !err.contains("hunter"), "{line}\n{out}\n{err}");
        (output.status.code().unwrap(), out, err)
    }

    fn good(&self, line: &str) -> String {
        let (code, out, err) = self.run(line);
        assert_eq!(code, 0, "{line}\n{out}\n{err}");
        out
    }

    fn json(&self, line: &str) -> serde_json::Value {
        serde_json::from_str(&self.good(&format!("--output json {line}"))).unwrap()
    }
}

#[test]
fn generations_are_listed() {
    let daemon = Daemon::prepare(fill).run();
    let cli = Cli::of(&daemon);
    let out = cli.good("history");
    let row = |number: &str| {
        let rows = out.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        rows.into_iter().find(|words| words.first() == Some(&number)).unwrap()
    };
    // After the number and the time.
    assert_eq!(row("3")[2..], ["running", "~1", "reload", "by", "uid", "1000"]);
    let why = "rolled-back +1 ~1 reload by uid 1000 b@0: cannot start: gone: no such command";
    assert_eq!(row("2")[2..].join(" "), why);
    assert_eq!(row("1")[2..], ["applied", "+1", "the", "daemon", "started"]);
    let all = cli.json("history");
    let second = all.as_array().unwrap().iter().find(|one| one["generation"] == 2).unwrap();
    assert_eq!(second["state"], "rolled-back");
    assert_eq!((&second["cause"], &second["uid"]), (&"caller".into(), &1000.into()));
    assert_eq!((&second["base"], &second["running"]), (&1.into(), &false.into()));
    assert_eq!((&second["added"], &second["modified"]), (&1.into(), &1.into()));
    assert_eq!(cli.json("history -n 1").as_array().unwrap().len(), 1);
}

#[test]
fn one_is_shown_with_its_files() {
    let daemon = Daemon::prepare(fill).run();
    let cli = Cli::of(&daemon);
    let out = cli.good("show 2");
    for part in [
        "generation 2  rolled-back\n",
        "cause  reload by uid 1000\n",
        "why  b@0: cannot start: gone: no such command\n",
        "after  generation 1\n",
        "took  read 3ms\n",
        "~ a  restarts\n",
        "    env.TOKEN: *** -> *** (restart)\n",
        "+ b  is new and starts\n",
        "processes.yaml (main)\nprocesses:\n  a: { command: [sleep, '1000'], envFile: a.env }\n",
        "a.env (env)\nTOKEN=***\n",
    ] {
        assert!(out.contains(part), "no {part:?} in\n{out}");
    }
    let page = cli.json("show 2");
    assert_eq!(page["files"][0]["kind"], "main");
    assert_eq!(page["files"][1]["text"], "TOKEN=***\n");
    assert_eq!(page["changes"][1]["process"], "b");
    assert_eq!(page["timings_ms"]["read"], 3);
    let (code, _, err) = cli.run("show 77");
    assert_eq!(code, 1);
    assert!(err.contains("there is no generation 77; kept are 1 to 3"), "{err}");
}

#[test]
fn two_are_compared() {
    let daemon = Daemon::prepare(fill).run();
    let cli = Cli::of(&daemon);
    // The directory may be another name of the same.
    let root = daemon.path().to_str().unwrap().to_owned();
    let out = cli.good("diff");
    let wanted = "~ a  restarts\n    command: [\"sleep\", \"1000\"] -> [\"sleep\", \"1001\"] (restart)\n    \
                  env.TOKEN: *** -> *** (restart)\n0 to add, 0 to remove, 1 to modify; all else \
                  stays as it is\n@/a.env: modified, with other values of variables\n\
                  @/processes.yaml: modified\n";
    assert_eq!(out.replace(&root, "@"), wanted);
    assert_eq!(cli.good("diff 1 3"), out);
    assert_eq!(cli.good("diff 1"), out);
    assert_eq!(cli.good("diff 3 disk"), "nothing differs\n");
    let out = cli.good("diff 2 1 --text").replace(&root, "@");
    let wanted = "--- @/a.env (generation 2)\n+++ @/a.env (generation 1)\n\
                  (values of variables differ, which are not shown)\n\
                  --- @/processes.yaml (generation 2)\n+++ @/processes.yaml (generation 1)\n\
                  @@ -1,3 +1,2 @@\n processes:\n   a: { command: [sleep, '1000'], envFile: a.env }\n\
                  -  b: { command: gone }\n";
    assert_eq!(out, wanted);
    let found = cli.json("diff 2 1");
    assert_eq!((&found["old"], &found["comparable"]), (&2.into(), &true.into()));
    assert_eq!(found["changes"][1]["kind"], "removed");
    assert_eq!(found["files"][0]["hidden_values_differ"], true);
    // It is as if they had been read now.
    let location = Location { main: daemon.file(), mode: Mode::User, environment: Arc::default() };
    let generations = Generations::open(Some(&daemon.path().join(STATE)), &mut Vec::new());
    let sources = |number| generations.files(Generation(number)).unwrap();
    let plan = between(&location, &sources(2), &sources(1)).plan.unwrap();
    assert_eq!(found["changes"].as_array().unwrap().len(), plan.changes.len());
}

#[test]
fn what_is_on_disk_can_be_compared_while_it_is_not_valid() {
    let daemon = Daemon::prepare(fill).run();
    let cli = Cli::of(&daemon);
    daemon.save("processes:\n  a: { command: [sleep, '1000'], enabld: true }\n");
    let (code, out, err) = cli.run("diff disk");
    assert_eq!(code, 0, "{out}\n{err}");
    assert!(out.contains("\n+  a: { command: [sleep, '1000'], enabld: true }\n"), "{out}");
    assert!(err.contains("one of the two is not valid") && err.contains("provost check"), "{err}");
    assert_eq!(cli.json("diff 3 disk")["comparable"], false);
}

#[test]
fn what_makes_no_sense_is_answered() {
    let daemon = Daemon::prepare(fill).run();
    let cli = Cli::of(&daemon);
    for (line, said) in [
        ("show a", "provost why NAME"),
        ("show 0", "the number of a generation"),
        ("diff processes.yaml", "provost plan FILE"),
        ("diff 1 2 3", "unexpected argument"),
        ("history x", "unexpected argument"),
    ] {
        let (code, _, err) = cli.run(line);
        assert!(code == 64 && err.contains(said), "{line}: {code}\n{err}");
    }
}

#[test]
fn what_is_damaged_is_told_and_nothing_else_is_kept_from_anybody() {
    let damage = |dir: &Path| {
        fill(dir);
        let root = dir.join(STATE).join("generations");
        fs::write(root.join("000001/files/02-a.env"), "TOKEN=hunter9\n").unwrap();
        fs::write(root.join("000002/meta.json"), "{").unwrap();
    };
    let daemon = Daemon::prepare(damage).run();
    daemon.logged("000002 is not used: it is damaged");
    let cli = Cli::of(&daemon);
    let (code, _, err) = cli.run("show 1");
    assert!(code == 1 && err.contains("generation 1 cannot be used"), "{code} {err}");
    let (code, _, err) = cli.run("show 2");
    assert!(code == 1 && err.contains("there is no generation 2"), "{code} {err}");
    cli.good("show 3");
}

#[tokio::test]
async fn without_any_it_says_so_or_lists_what_it_has() {
    let daemon = Daemon::start("processes: {}\n");
    let (code, out, err) = Cli::of(&daemon).run("history");
    assert!(code == 0 && (out.contains("GENERATION") || err.contains("no configuration")));
    let client = daemon.client().await;
    let all = client.history(Some(0)).await.unwrap();
    assert_eq!(all, []);
}

/// Waits for the end of whatever is on trial.
async fn settled(daemon: &Daemon, number: u64) -> Vec<provost::client::Generation> {
    daemon.until_generation(number).await;
    let client = daemon.client().await;
    let mut watch = client.watch().await.unwrap();
    let deadline = std::time::Instant::now() + crate::common::waiting::DEADLINE;
    loop {
        let all = client.history(None).await.unwrap();
        if all.first().is_some_and(|one| one.number == number && one.state == "applied") {
            return all;
        }
        let left = deadline.saturating_duration_since(std::time::Instant::now());
        let changed = tokio::time::timeout(left, watch.changed()).await;
        assert!(changed.is_ok(), "never generation {number}: {all:#?}\n{}", daemon.log());
    }
}

#[tokio::test]
async fn what_a_daemon_accepts_is_kept_as_far_as_its_file_says() {
    let file = |n: u64| {
        format!(
            "processManagement: {{ history: 2, settle: 0 }}\n\
             processes: {{ a: {{ shell: 'exec sleep 100{n}', envFile: a.env }} }}\n"
        )
    };
    let secret = |dir: &Path| fs::write(dir.join("a.env"), "TOKEN=hunter2\n").unwrap();
    let daemon = Daemon::prepare(secret).with(&file(1));
    let all = settled(&daemon, 1).await;
    assert_eq!((all[0].cause.as_str(), all[0].base, all[0].added), ("start", None, 1));
    for number in 2..=4 {
        daemon.save(&file(number));
        let all = settled(&daemon, number).await;
        let newest = &all[0];
        assert_eq!((newest.cause.as_str(), newest.base), ("file", Some(number - 1)));
        assert!(newest.running && newest.modified == 1, "{newest:?}");
    }
    let all = daemon.client().await.history(None).await.unwrap();
    assert_eq!(all.iter().map(|one| one.number).collect::<Vec<_>>(), [4, 3]);
    let cli = Cli::of(&daemon);
    assert!(cli.good("diff").contains("sleep 1003 -> shell: exec sleep 1004 (restart)"));
    assert!(cli.good("show 3").contains("history: 2, settle: 0"));
    let state = daemon.path().join(STATE).join("generations/000004");
    assert_eq!(fs::read_to_string(state.join("files/02-a.env")).unwrap(), "TOKEN=hunter2\n");
    let daemon = daemon.killed_and_again();
    let all = settled(&daemon, 4).await;
    assert_eq!(all.iter().map(|one| one.number).collect::<Vec<_>>(), [4, 3]);
}
