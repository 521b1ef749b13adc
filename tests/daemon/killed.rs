//! The daemon is killed at each system call by which it writes something down, does something or says
//! something, from the moment it is asked for another configuration until what came of it is told. The
//! next one finds, and ends up with, wholly the one or wholly the other.
//!
//! `make killed` goes through all of them; otherwise some are drawn. Steps that make no system call
//! need no failpoint: whoever dies between two of them leaves what the one before has left.
//!
//! Environment: `PROVOST_SEED`, which is printed.

use crate::common::processes::processes_with;
use crate::common::waiting::{DEADLINE, ended, readable_within, until};
use crate::support::{Daemon, identities};
use crate::survival_faults::{Draw, Tracer, can_trace, pidfd};
use provost::client::{Client, Target};
use std::collections::BTreeMap;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

/// What is written down, done and said.
const CALLS: [&str; 18] = [
    "write",
    "writev",
    "pwrite64",
    "ftruncate",
    "fsync",
    "fdatasync",
    "rename",
    "renameat",
    "renameat2",
    "link",
    "linkat",
    "unlink",
    "unlinkat",
    "mkdir",
    "sendmsg",
    "sendto",
    "clone3",
    "pidfd_send_signal",
];

/// How many are drawn for each way.
const DRAWN: usize = 9;

/// On which way it dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// What the file says comes up.
    Good,
    /// It does not, and is undone.
    Bad,
    /// Somebody wants the one before.
    Back,
    /// Somebody hands a file over.
    Apply,
    /// Somebody hands a file over that is to be confirmed, and takes it back.
    Undo,
}

/// Whose calls: the driver, and all that is done in its turn, is in the first thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Thread {
    First,
    Others,
}

fn marker() -> String {
    format!("sleep 7{:07}", std::process::id())
}

/// `a` is never touched, `b` changes, and `c` is another one each time.
fn yaml(version: u32, is_bad: bool) -> String {
    let only_one = |name: &str, seconds: &str| {
        format!(
            "exec 9>>@DIR@/lock.{name}; flock -n 9 || echo {name} >>@DIR@/doubled; \
             exec {}{seconds}",
            marker()
        )
    };
    let (a, b) = (only_one("a", "1"), only_one("b", &format!("2{version:04}")));
    // It is never good, however slowly it gets on.
    let (b, more) = match is_bad {
        true => (format!(": {version}; exit 3"), ", readiness: notify"),
        false => (b, ""),
    };
    let c = only_one(&format!("c{version}"), &format!("3{version:04}"));
    format!(
        "# {version}\nprocessManagement: {{ settle: 20ms, watchConfig: false, history: 5 }}\n\
         processes:\n  a: {{ shell: '{a}' }}\n  \
         b: {{ shell: '{b}', restartPolicy: {{ delay: 0, jitter: 0 }}{more} }}\n  \
         c{version}: {{ shell: '{c}', dependsOn: [b] }}\n"
    )
}

/// Whether exactly what this version says is there.
fn is_there(version: u32) -> bool {
    let marker = marker();
    let parts = ["1".to_owned(), format!("2{version:04}"), format!("3{version:04}")];
    let each = parts.iter().all(|part| processes_with(&format!("{marker}{part}")).len() == 1);
    each && processes_with(&marker).len() == parts.len()
}

struct World {
    daemon: Option<Daemon>,
    /// What runs, and is in the file.
    version: u32,
    untouched: (u32, u64),
}

impl World {
    async fn new() -> World {
        let daemon = Daemon::start(&yaml(1, false));
        let status = daemon.until_running(&["a@0", "b@0", "c1@0"]).await;
        let untouched = identities(&status)["a@0"];
        let mut world = World { daemon: Some(daemon), version: 1, untouched };
        world.go_on("the beginning").await;
        world
    }

    fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().unwrap()
    }

    fn cli(&self, words: &[&str]) -> Child {
        Command::new(env!("CARGO_BIN_EXE_provost"))
            .arg("--socket")
            .arg(self.daemon().path().join("private"))
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    /// Asks for it.
    fn ask(&self, way: Way) -> Child {
        let next = self.version + 1;
        match way {
            Way::Good | Way::Bad => {
                self.daemon().save(&yaml(next, way == Way::Bad));
                self.cli(&["reload"])
            }
            Way::Back => self.cli(&["rollback"]),
            Way::Apply | Way::Undo => {
                let file = self.daemon().path().join("handed.yaml");
                let text = yaml(next, false);
                fs::write(&file, text.replace("@DIR@", self.daemon().path().to_str().unwrap()))
                    .unwrap();
                let file = file.to_str().unwrap();
                if way == Way::Apply {
                    return self.cli(&["apply", file]);
                }
                let provost = format!(
                    "{} --socket '{}'",
                    env!("CARGO_BIN_EXE_provost"),
                    self.daemon().path().join("private").display()
                );
                let line = format!(
                    "{provost} apply '{file}' --confirm 1h && {provost} rollback || exit 1"
                );
                let mut shell = Command::new("sh");
                shell.args(["-c", &line]).stdin(Stdio::null());
                shell.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
            }
        }
    }

    fn threads(&self, thread: Thread) -> Vec<u32> {
        let first = self.daemon().pid();
        let all = fs::read_dir(format!("/proc/{first}/task")).unwrap().flatten();
        let all = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        all.filter(|id| (*id == first) == (thread == Thread::First)).collect()
    }

    /// How often each call is made on a way.
    async fn count(&mut self, way: Way) -> BTreeMap<(Thread, &'static str), usize> {
        let mut counts = BTreeMap::new();
        for thread in [Thread::First, Thread::Others] {
            let log = self.daemon().path().join("trace");
            let calls = format!("trace={}", CALLS.map(|call| format!("?{call}")).join(","));
            let options = ["-e", &calls, "-o", log.to_str().unwrap()];
            let tracer = Tracer::with(&self.threads(thread), &options);
            let mut asked = self.ask(way);
            ended(&mut asked, "what was asked for");
            drop(tracer);
            let text = fs::read_to_string(&log).unwrap();
            for call in CALLS {
                let made = text.lines().filter(|line| {
                    let line = line.trim_start_matches(|c: char| c.is_ascii_digit() || c == ' ');
                    line.strip_prefix(call).is_some_and(|rest| rest.starts_with('('))
                });
                counts.insert((thread, call), made.count());
            }
            self.found(way, "nothing").await;
            self.go_on("counting").await;
        }
        counts
    }

    /// Dies at one call, and looks what the next one makes of it. False: the way was over before.
    async fn die(&mut self, way: Way, thread: Thread, call: &str, number: usize) -> bool {
        let what = format!("{way:?}, {thread:?}: {call} {number}");
        let how = format!("inject=?{call}:signal=SIGKILL:when={number}");
        let tracer = Tracer::with(&self.threads(thread), &["-o", "/dev/null", "-e", &how]);
        let end = pidfd(self.daemon().pid());
        let mut asked = self.ask(way);
        let answer = ended(&mut asked, "what was asked for");
        drop(tracer);
        // Whoever was told of an error was told so by the end of the daemon; and it may have been killed
        // after an answer. One that answers now was not.
        let is_dead = answer.code() == Some(1) || !self.answers().await;
        if is_dead {
            assert!(readable_within(&end, DEADLINE), "{what}: it does not answer");
        }
        if is_dead {
            let daemon = self.daemon.take().unwrap();
            self.daemon = Some(daemon.killed_and_again());
        }
        self.found(way, &what).await;
        self.go_on(&what).await;
        is_dead
    }

    async fn answers(&self) -> bool {
        let socket = Target::Socket(self.daemon().path().join("private"));
        let Ok(client) = Client::connect(&socket).await else { return false };
        client.manager().await.is_ok()
    }

    /// Wholly the one or wholly the other, and what is told agrees with what is there.
    async fn found(&mut self, way: Way, what: &str) {
        let (old, new) = match way {
            Way::Back => (self.version, self.version - 1),
            _ => (self.version, self.version + 1),
        };
        let client = self.daemon().client().await;
        let deadline = Instant::now() + DEADLINE;
        let version = loop {
            let manager = client.manager().await.unwrap();
            if way == Way::Undo
                && let Some(pending) = client.checkpoint().await.unwrap()
                && pending.state == "waiting"
            {
                // What is there and was not taken back can still be.
                client.take_back(pending.generation).await.unwrap();
                continue;
            }
            let over = match way {
                Way::Bad => manager.config_state == "rolled-back",
                Way::Good => manager.config_state == "applied",
                Way::Back | Way::Apply => manager.config_state != "applying",
                // With the file of before.
                Way::Undo => manager.config_state == "applied" && self.is_as_before(),
            };
            let page = client.generation(manager.generation).await.unwrap();
            let mut texts = page.files.iter().filter_map(|file| file.text.as_deref());
            let says = |version: u32| format!("# {version}\n");
            let main = texts.find(|text| text.starts_with("# ")).unwrap_or_default();
            let allowed: &[u32] = match way {
                Way::Good => &[new],
                Way::Bad | Way::Undo => &[old],
                Way::Back | Way::Apply => &[old, new],
            };
            let told = allowed.iter().find(|version| main.starts_with(&says(**version)));
            if let Some(version) = told.filter(|version| over && is_there(**version)) {
                break *version;
            }
            let lines = processes_with(&marker());
            assert!(
                Instant::now() < deadline,
                "{what}: neither {old} nor {new}: {main:.9} {manager:#?}\n{lines:?}\n{}",
                self.daemon().log()
            );
        };
        let status = self.daemon().status().await;
        assert_eq!(identities(&status)["a@0"], self.untouched, "{what}: a was moved");
        let doubled = fs::read_to_string(self.daemon().path().join("doubled")).ok();
        assert_eq!(doubled, None, "{what}\n{}", self.daemon().log());
        // What there is to be, and nothing else.
        let names: Vec<&String> = status.keys().collect();
        assert_eq!(names, ["a@0", "b@0", &format!("c{version}@0")], "{what}");
    }

    /// Whether the file is that of what runs, and nothing waits to be confirmed.
    fn is_as_before(&self) -> bool {
        let text = fs::read_to_string(self.daemon().file()).unwrap();
        let checkpoint = self.daemon().path().join(".local/state/provost/checkpoint");
        text.starts_with(&format!("# {}\n", self.version)) && !checkpoint.exists()
    }

    /// The next change works as if nothing had been.
    async fn go_on(&mut self, what: &str) {
        self.version += 2;
        self.daemon().save(&yaml(self.version, false));
        let status = ended(&mut self.cli(&["reload"]), "a further reload");
        assert_eq!(status.code(), Some(0), "{what}: then\n{}", self.daemon().log());
        until(&format!("{what}: then {}", self.version), || is_there(self.version));
        let status = self.daemon().status().await;
        assert_eq!(identities(&status)["a@0"], self.untouched, "{what}: then a was moved");
        // There is one before it, next to it in number.
        self.version += 1;
        self.daemon().save(&yaml(self.version, false));
        let status = ended(&mut self.cli(&["reload"]), "a further reload");
        assert_eq!(status.code(), Some(0), "{what}: then\n{}", self.daemon().log());
    }
}

async fn some(way: Way) {
    if !can_trace() {
        return;
    }
    let mut draw = Draw::new();
    let mut world = World::new().await;
    let counts = world.count(way).await;
    let all: Vec<(Thread, &str, usize)> = counts
        .iter()
        .flat_map(|((thread, call), count)| (1..=*count).map(|n| (*thread, *call, n)))
        .collect();
    let mut deaths = 0;
    for _ in 0..DRAWN {
        let (thread, call, number) = all[draw.below(all.len() as u64) as usize];
        deaths += u32::from(world.die(way, thread, call, number).await);
    }
    assert!(deaths > 0, "of {} calls none was met", all.len());
    assert!(world.daemon.take().unwrap().stop().success());
}

#[tokio::test]
async fn some_on_the_way_to_what_comes_up() {
    some(Way::Good).await;
}

#[tokio::test]
async fn some_on_the_way_there_and_back() {
    some(Way::Bad).await;
}

#[tokio::test]
async fn some_on_the_way_to_the_one_before() {
    some(Way::Back).await;
}

#[tokio::test]
async fn some_on_the_way_to_what_is_handed_over() {
    some(Way::Apply).await;
}

#[tokio::test]
async fn some_on_the_way_to_what_is_to_be_confirmed_and_back() {
    some(Way::Undo).await;
}

async fn every(way: Way) {
    assert!(can_trace());
    let mut world = World::new().await;
    let counts = world.count(way).await;
    println!("{way:?}: {counts:?}");
    for ((thread, call), count) in counts {
        let (mut number, mut missed) = (1, 0);
        // It is not the same number each time: the way is over when it was so three times.
        while number <= count || missed < 3 {
            if count == 0 {
                break;
            }
            match world.die(way, thread, call, number).await {
                true => missed = 0,
                false => missed += 1,
            }
            number += 1;
        }
        println!("{way:?}, {thread:?}: {call}: {} deaths or more", number - 1 - missed);
    }
    assert!(world.daemon.take().unwrap().stop().success());
}

#[tokio::test]
#[ignore = "minutes: make killed"]
async fn at_every_call_on_the_way_to_what_comes_up() {
    every(Way::Good).await;
}

#[tokio::test]
#[ignore = "minutes: make killed"]
async fn at_every_call_on_the_way_there_and_back() {
    every(Way::Bad).await;
}

#[tokio::test]
#[ignore = "minutes: make killed"]
async fn at_every_call_on_the_way_to_the_one_before() {
    every(Way::Back).await;
}

#[tokio::test]
#[ignore = "minutes: make killed"]
async fn at_every_call_on_the_way_to_what_is_handed_over() {
    every(Way::Apply).await;
}

#[tokio::test]
#[ignore = "minutes: make killed"]
async fn at_every_call_on_the_way_to_what_is_to_be_confirmed_and_back() {
    every(Way::Undo).await;
}
