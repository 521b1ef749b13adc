//! What is kept of one of several processes, or of all, is damaged while no daemon runs.

use super::{Group, can, entry, exactly, is_root, kill, marker, was_doubled};
use crate::common::ledger::{self, Entry};
use crate::common::processes::start_of;
use crate::common::waiting::wait_readable;
use crate::support::{Daemon, identities};
use provost::store::runs::RunRecord;
use std::fs;
use std::path::Path;
use std::process::{Child, Command};

fn three() -> String {
    let marker = marker();
    let all = ["a", "b", "c"].map(|name| entry(name, &format!("{marker}{}", name.len())));
    format!("processes:\n{}", all.concat())
}

const UP: [&str; 3] = ["a@0", "b@0", "c@0"];

fn newer(path: &Path) {
    let text = fs::read_to_string(path).unwrap();
    fs::write(path, text.replacen(" 1 ", " 2 ", 1)).unwrap();
}

fn flipped(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    fs::write(path, bytes).unwrap();
}

/// What is said of b comes first, and of the last of it a bit is another.
fn flipped_in_b(path: &Path, kind: &str) {
    let (of_b, others): (Vec<Entry>, _) =
        ledger::read(path).into_iter().partition(|entry| entry.subject == "b@0");
    let (said, rest): (Vec<Entry>, _) = of_b.into_iter().partition(|entry| entry.kind == kind);
    let text = |entries: &[Entry]| {
        entries.iter().map(|entry| ledger::text("1", entry)).collect::<String>()
    };
    let mut bytes = text(&said).into_bytes();
    let at = bytes.len() - 20;
    bytes[at] ^= 4;
    fs::write(path, [bytes, text(&rest).into_bytes(), text(&others).into_bytes()].concat())
        .unwrap();
}

fn without_sense(path: &Path, kind: &str) {
    ledger::change(path, kind, "b@0", |said| *said = serde_json::json!({ "instance": "b" }));
}

/// How it is damaged, and what is said of that.
type Damage = (fn(&Path), &'static str);

const OF_B: [Damage; 6] = [
    (|path| flipped_in_b(path, "state"), "is not used up to byte"),
    (|path| flipped_in_b(path, "run"), "is not used up to byte"),
    (|path| without_sense(path, "state"), "is not used for the state of b@0"),
    (|path| without_sense(path, "run"), "is not used for the run of b@0"),
    (|path| ledger::unsay(path, "state", "b@0"), ""),
    (|path| ledger::unsay(path, "run", "b@0"), ""),
];

async fn others_go_on(env: &[(&str, &str)]) {
    let mut daemon = Daemon::prepare(|dir| {
        let file = three().replace("@DIR@", dir.to_str().unwrap());
        fs::write(dir.join("processes.yaml"), file).unwrap();
    })
    .run_under(&[], env);
    for (number, (damage, words)) in OF_B.into_iter().enumerate() {
        let before = identities(&daemon.until_running(&UP).await);
        let old = super::pidfd(before["b@0"].0);
        daemon = daemon.killed();
        damage(&daemon.path().join("state/ledger"));
        let said = daemon.log().matches("is not used").count();
        daemon = daemon.again_under(&[], env);
        daemon.notified("READY=1");
        let status = daemon.until_running(&UP).await;
        wait_readable(&old, "the end of the process that nobody knew");
        let after = identities(&status);
        assert_eq!((before["a@0"], before["c@0"]), (after["a@0"], after["c@0"]), "{number}");
        assert_ne!(before["b@0"], after["b@0"], "{number}");
        exactly(&status);
        assert_eq!(was_doubled(&daemon), None);
        if !words.is_empty() {
            super::until("it is said", || daemon.log().matches("is not used").count() > said);
            let log = daemon.log();
            let line = log.lines().rfind(|line| line.contains("is not used")).unwrap();
            assert!(line.contains(words) && line.contains("set aside as"), "{line}");
        }
        daemon.logged("was started by a daemon before and nothing is known of it: ended");
    }
    assert!(daemon.stop().success());
}

#[tokio::test]
async fn the_others_are_adopted_by_their_marks() {
    others_go_on(&[]).await;
}

#[tokio::test]
async fn the_others_are_adopted_in_their_control_groups() {
    let group = Group::new();
    if can("a cgroup2 file system", group.is_some()) {
        others_go_on(&[("PROVOST_CGROUP", group.as_ref().unwrap().0.to_str().unwrap())]).await;
    }
}

/// By the lost file the others cannot be told to be of this boot, but all are known to be ours.
#[tokio::test]
async fn without_the_boot_or_the_ledger_everything_is_begun_anew_and_nothing_is_doubled() {
    let mut daemon = Daemon::start(&three());
    let gone = |path: &Path| fs::remove_file(path).unwrap();
    let cut = |path: &Path| fs::write(path, &fs::read(path).unwrap()[..100]).unwrap();
    let newer_entry = |path: &Path| {
        let mut said = fs::read_to_string(path).unwrap();
        said.push_str(&ledger::text("2", ledger::read(path).last().unwrap()));
        fs::write(path, said).unwrap();
    };
    let last = |path: &Path| {
        let mut bytes = fs::read(path).unwrap();
        let at = bytes.len() - 20;
        bytes[at] ^= 4;
        fs::write(path, bytes).unwrap();
    };
    type DamageTo<'a> = (&'a str, fn(&Path));
    let damages: [DamageTo<'_>; 7] = [
        ("boot", gone),
        ("boot", newer),
        ("boot", flipped),
        ("ledger", gone),
        ("ledger", newer_entry),
        ("ledger", cut),
        ("ledger", last),
    ];
    for (number, (name, damage)) in damages.into_iter().enumerate() {
        let before = identities(&daemon.until_running(&UP).await);
        daemon = daemon.killed();
        damage(&daemon.path().join("state").join(name));
        daemon = daemon.again();
        let status = daemon.until_running(&UP).await;
        exactly(&status);
        assert_eq!(was_doubled(&daemon), None);
        let after = identities(&status);
        assert!(before.iter().all(|(name, old)| after[name] != *old), "{number}");
    }
    // It is as good as the first.
    let before = identities(&daemon.until_running(&UP).await);
    daemon = daemon.killed_and_again();
    assert_eq!(before, identities(&daemon.until_running(&UP).await));
}

/// Somebody's process, which must never get a signal.
struct Foreign(Child);

impl Foreign {
    fn new() -> Foreign {
        Foreign(Command::new("sleep").arg("87654321").spawn().unwrap())
    }

    fn check(&mut self, when: &str) {
        assert_eq!(self.0.try_wait().unwrap(), None, "a signal went to somebody else: {when}");
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn change_record(path: &Path, change: impl FnOnce(&mut RunRecord)) {
    ledger::change(path, "run", "b@0", |said| {
        let mut record: RunRecord = serde_json::from_value(said.take()).unwrap();
        change(&mut record);
        *said = serde_json::to_value(record).unwrap();
    });
}

/// A record that names somebody else's process is not believed, however right the rest is.
#[tokio::test]
async fn a_record_that_names_somebody_else_is_not_believed() {
    let mut foreign = Foreign::new();
    let (pid, start) = (foreign.0.id(), start_of(foreign.0.id()));
    type Change<'a> = (&'a str, &'a dyn Fn(&mut RunRecord));
    let changes: [Change<'_>; 6] = [
        ("a pid", &|record| record.pid = pid),
        ("a pid and its start", &|record| (record.pid, record.start) = (pid, start)),
        ("and no mark", &|record| (record.pid, record.start, record.mark) = (pid, start, None)),
        ("and a limit for a mark", &|record| {
            (record.pid, record.start, record.mark) = (pid, start, Some(1 << 33));
        }),
        ("and a group", &|record| {
            (record.pid, record.start, record.mark) = (pid, start, None);
            record.group = Some("..".into());
        }),
        ("a run that never was", &|record| record.run.0 += 1000),
    ];
    let mut daemon = Daemon::start(&three());
    for (what, change) in changes {
        let before = identities(&daemon.until_running(&UP).await);
        daemon = daemon.killed();
        let path = daemon.path().join("state/ledger");
        let mut named = 0;
        change_record(&path, |record| {
            change(record);
            named = record.pid;
        });
        // The state says so as well.
        ledger::change(&path, "state", "b@0", |state| {
            state["state"]["phase"]["up"]["pid"] = named.into();
        });

        daemon = daemon.again();
        let status = daemon
            .until("b runs anew", |all| {
                let new = |p: u32| ![pid, before["b@0"].0].contains(&p);
                all["b@0"].state == "running" && all["b@0"].pid.is_some_and(new)
            })
            .await;
        foreign.check(what);
        exactly(&status);
        let after = identities(&status);
        assert_eq!((before["a@0"], before["c@0"]), (after["a@0"], after["c@0"]), "{what}");
        assert_eq!(was_doubled(&daemon), None, "{what}");
    }
    assert!(daemon.stop().success());
    foreign.check("the end");
}

#[tokio::test]
async fn a_group_of_somebody_else_is_not_believed() {
    let Some(group) = is_root().then(Group::new).flatten() else {
        can("a cgroup2 file system", false);
        return;
    };
    let env = [("PROVOST_CGROUP", group.0.to_str().unwrap())];
    let mut foreign = Foreign::new();
    fs::write(group.0.join("cgroup.procs"), foreign.0.id().to_string()).unwrap();
    let daemon = Daemon::prepare(|dir| {
        let file = three().replace("@DIR@", dir.to_str().unwrap());
        fs::write(dir.join("processes.yaml"), file).unwrap();
    })
    .run_under(&[], &env);
    let before = identities(&daemon.until_running(&UP).await);
    let mut daemon = daemon.killed();
    change_record(&daemon.path().join("state/ledger"), |record| {
        record.group = Some("..".into());
        (record.pid, record.start) = (foreign.0.id(), start_of(foreign.0.id()));
    });
    daemon = daemon.again_under(&[], &env);
    daemon.notified("READY=1");
    let status = daemon.until_running(&UP).await;
    foreign.check("the start");
    exactly(&status);
    assert_eq!(identities(&status)["a@0"], before["a@0"]);
    // It ends by itself, once nothing of it is left.
    kill(pids_of(&status, "a@0"));
    assert!(daemon.stop().success());
    foreign.check("the end");
    drop(foreign);
}

fn pids_of(status: &crate::support::Status, name: &str) -> u32 {
    status[name].pid.unwrap()
}
