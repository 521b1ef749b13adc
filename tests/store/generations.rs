//! Generations: what is kept of them, which are kept, and what becomes of them when what is on disk is
//! damaged, or takes nothing.

use crate::namespace::entered;
use provost::config::load::{Source, SourceKind, Sources};
use provost::core::ids::{Generation, ProcessId};
use provost::core::reload::{Change, ChangeKind, Plan};
use provost::store::generations::record::Timing;
use provost::store::generations::{Accepted, Because, Cause, FilesError, Generations, HeldOff};
use provost::store::generations::{Record, State};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tempfile::TempDir;

pub(crate) fn source(path: &str, kind: SourceKind, content: Option<&str>) -> Source {
    let seconds = Duration::from_secs(1_700_000_000);
    Source {
        path: Arc::new(path.into()),
        content: content.map(|content| content.as_bytes().into()),
        modified: content.map(|_| SystemTime::UNIX_EPOCH + seconds),
        kind,
    }
}

/// Files of which one differs from version to version, and one is missing.
pub(crate) fn sources(version: u64) -> Sources {
    let main = format!("# {version}\nprocesses: {{a: {{command: x, envFile: a.env}}}}\n");
    let files = vec![
        source("/etc/provost/provost.yaml", SourceKind::Main, None),
        source("/etc/provost/processes.yaml", SourceKind::Processes, Some(&main)),
        source("/etc/provost/a.env", SourceKind::Env, Some("A=hunter2\n")),
    ];
    Sources::new(files, "/etc/provost/processes.d".into(), true)
}

pub(crate) fn accepted(number: u64, base: u64) -> Accepted {
    let change = Change {
        process: ProcessId::new("a").unwrap(),
        kind: ChangeKind::Added,
        consequence: provost::core::fields::Consequence::Start,
        fields: Vec::new(),
        touches: Vec::new(),
        awaits: None,
    };
    Accepted {
        number: Generation(number),
        cause: Cause::Caller { uid: 1000 },
        base: (base > 0).then_some(Generation(base)),
        state: State::Applying,
        plan: Plan { changes: vec![change], unchanged: vec![ProcessId::new("b").unwrap()] },
        timings: vec![Timing { stage: "read".into(), ms: 3 }],
        diagnostics: vec!["/etc/provost/processes.yaml:1:1: warning: nothing".into()],
    }
}

pub(crate) fn open(state: &Path) -> (Generations, Vec<String>) {
    let mut remarks = Vec::new();
    (Generations::open(Some(state), &mut remarks), remarks)
}

/// Without a remark.
fn reopen(state: &Path) -> Generations {
    let (generations, remarks) = open(state);
    assert_eq!(remarks, [""; 0]);
    generations
}

fn add(generations: &mut Generations, number: u64) {
    generations.add(accepted(number, number - 1), &sources(number)).unwrap();
    generations.set_state(Generation(number), State::Applied).unwrap();
}

pub(crate) fn numbers(generations: &Generations) -> Vec<u64> {
    generations.list().iter().map(|record| record.number.0).collect()
}

pub(crate) fn same_files(found: &Sources, wanted: &Sources) {
    assert_eq!(found.digest, wanted.digest);
    assert_eq!((&found.drop_ins, found.has_drop_ins), (&wanted.drop_ins, wanted.has_drop_ins));
    let all = |sources: &Sources| {
        let files = sources.files.iter();
        files.map(|f| (f.path.clone(), f.content.clone(), f.modified, f.kind)).collect::<Vec<_>>()
    };
    assert_eq!(all(found), all(wanted));
}

fn state() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    (dir, state)
}

fn held(version: u64) -> HeldOff {
    let generation = Generation(version);
    let why = vec!["api never became healthy (HTTP 500)".to_owned()];
    HeldOff { digest: sources(version).digest, because: Because::Tried { generation, why } }
}

#[test]
fn what_was_accepted_is_there_when_it_is_opened_again() {
    let (_dir, state) = state();
    let mut generations = reopen(&state);
    assert_eq!(generations.next_number(Generation(0)), Generation(1));
    assert!(generations.running().is_none() && generations.pending().is_none());
    let before = SystemTime::now();
    let first = generations.add(accepted(1, 0), &sources(1)).unwrap();
    assert_eq!(generations.pending(), Some(first.clone()));
    assert_eq!(reopen(&state).list(), std::slice::from_ref(&first));
    assert!(first.time >= before && first.time <= SystemTime::now());
    assert_eq!((first.changes.len(), first.unchanged, first.base), (1, 1, None));
    generations
        .change(Generation(1), |record| {
            record.state = State::FailedKept;
            record.why = vec!["a: exited with code 1".into()];
            record.timings.push(Timing { stage: "apply".into(), ms: 12 });
            record.number = Generation(9);
        })
        .unwrap();
    let again = reopen(&state);
    assert_eq!(again.list(), generations.list());
    let first = again.get(Generation(1)).unwrap();
    assert_eq!((first.state, first.timings.len()), (State::FailedKept, 2));
    assert_eq!(again.running(), Some(first));
    assert!(again.pending().is_none());
    same_files(&again.files(Generation(1)).unwrap(), &sources(1));
    assert_eq!(again.next_number(Generation(0)), Generation(2));
    assert_eq!(again.next_number(Generation(41)), Generation(42));
    let error = again.files(Generation(7)).unwrap_err().to_string();
    assert_eq!(error, "there is no generation 7; kept is 1");
}

#[test]
fn what_is_on_disk_is_for_its_owner_and_can_be_read() {
    let (_dir, state) = state();
    let mut generations = reopen(&state);
    add(&mut generations, 1);
    add(&mut generations, 2);
    let mode = |path: &Path| fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777;
    let root = state.join("generations");
    for directory in [&state, &root, &root.join("000002"), &root.join("000002/files")] {
        assert_eq!(mode(directory), 0o700, "{}", directory.display());
    }
    let inode = |path: &str| fs::metadata(root.join(path)).unwrap().ino();
    for name in ["meta.json", "files/02-processes.yaml", "files/03-a.env"] {
        assert_eq!(mode(&root.join("000002").join(name)), 0o600);
    }
    assert_eq!(inode("000001/files/03-a.env"), inode("000002/files/03-a.env"));
    assert_ne!(inode("000001/files/02-processes.yaml"), inode("000002/files/02-processes.yaml"));
    let content = fs::read_to_string(root.join("000002/files/02-processes.yaml")).unwrap();
    assert_eq!(content.as_bytes(), sources(2).files[1].content.as_deref().unwrap());
    // Any program that reads JSON reads it.
    let meta = fs::read_to_string(root.join("000002/meta.json")).unwrap();
    let meta: serde_json::Value = serde_json::from_str(&meta).unwrap();
    assert_eq!(meta["generation"]["state"], "applied");
    assert_eq!(meta["generation"]["cause"], serde_json::json!({"by": "caller", "uid": 1000}));
    assert_eq!(meta["generation"]["files"][2]["path"], "/etc/provost/a.env");
    assert_eq!(meta["generation"]["files"][0]["content"], serde_json::Value::Null);
    let names: BTreeSet<_> =
        fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, BTreeSet::from(["000001".into(), "000002".into()]));
}

#[test]
fn many_files_are_kept_as_few_are() {
    let (_dir, state) = state();
    let many = |version: u64| {
        let name = |n| format!("/etc/provost/{n}.env");
        let content = |n| format!("A={}\n", if n == 7 { version } else { n });
        let files = (0..200).map(|n| source(&name(n), SourceKind::Env, Some(&content(n))));
        Sources::new(files.collect(), "/etc/provost/processes.d".into(), false)
    };
    let mut generations = reopen(&state);
    generations.add(accepted(1, 0), &many(1)).unwrap();
    generations.add(accepted(2, 1), &many(2)).unwrap();
    for generations in [generations, reopen(&state)] {
        for number in [1, 2] {
            same_files(&generations.files(Generation(number)).unwrap(), &many(number));
        }
        let records = generations.list();
        let files = records[0].files.iter().zip(&records[1].files);
        let others: Vec<_> = files.filter(|(a, b)| !Arc::ptr_eq(a, b)).collect();
        assert_eq!(others.len(), 1);
    }
}

#[test]
fn a_content_that_somebody_wrote_to_is_not_shared() {
    let (_dir, state) = state();
    let mut generations = reopen(&state);
    add(&mut generations, 1);
    let env = state.join("generations/000001/files/03-a.env");
    fs::write(&env, "A=hunter3\n").unwrap();
    add(&mut generations, 2);
    same_files(&generations.files(Generation(2)).unwrap(), &sources(2));
    let error = generations.files(Generation(1)).unwrap_err();
    assert!(matches!(&error, FilesError::Unusable { path, .. } if *path == env), "{error}");
    assert!(error.to_string().ends_with("it is damaged (it is not as it was written)"), "{error}");
    fs::remove_file(&env).unwrap();
    generations.files(Generation(1)).unwrap_err();
}

#[test]
fn the_oldest_go_and_what_is_needed_stays() {
    let (_dir, state) = state();
    let mut generations = reopen(&state);
    generations.set_history(3);
    for number in 1..=4 {
        add(&mut generations, number);
    }
    assert_eq!(numbers(&generations), [4, 3, 2]);
    // From here on nothing comes up; what runs and what that would go back to stays.
    for number in 5..=9 {
        generations.add(accepted(number, 4), &sources(number)).unwrap();
        generations.set_state(Generation(number), State::RolledBack).unwrap();
    }
    assert_eq!(numbers(&generations), [9, 8, 7, 4, 3]);
    assert_eq!(generations.running().unwrap().number, Generation(4));
    generations.add(accepted(10, 4), &sources(10)).unwrap();
    assert_eq!(numbers(&generations), [10, 9, 8, 4, 3]);
    assert_eq!(numbers(&reopen(&state)), numbers(&generations));
    for record in generations.list() {
        same_files(&generations.files(record.number).unwrap(), &sources(record.number.0));
    }
    let mut generations = reopen(&state);
    generations.set_history(1);
    add(&mut generations, 11);
    assert_eq!(numbers(&generations), [11, 10]);
    add(&mut generations, 12);
    assert_eq!(numbers(&reopen(&state)), [12, 11]);
}

#[test]
fn one_that_was_superseded_is_not_pending() {
    let (_dir, state) = state();
    let mut generations = reopen(&state);
    add(&mut generations, 1);
    generations.add(accepted(2, 1), &sources(2)).unwrap();
    generations.add(accepted(3, 1), &sources(3)).unwrap();
    assert_eq!(generations.pending().unwrap().number, Generation(3));
    assert_eq!(generations.running().unwrap().number, Generation(1));
    // The daemon died before it could say what became of the older.
    let mut generations = reopen(&state);
    assert_eq!(generations.get(Generation(2)).unwrap().state, State::Superseded);
    assert_eq!(generations.pending().unwrap().number, Generation(3));
    generations.retry().unwrap();
    let meta = fs::read_to_string(state.join("generations/000002/meta.json")).unwrap();
    assert!(meta.contains("superseded"), "{meta}");
}

#[test]
fn what_is_held_off_stays_so() {
    let (_dir, state) = state();
    let mut generations = reopen(&state);
    assert_eq!(generations.held_off(), None);
    generations.hold_off(Some(held(7))).unwrap();
    let mut generations = reopen(&state);
    assert_eq!(generations.held_off(), Some(&held(7)));
    let said = generations.held_off().unwrap().to_string();
    assert_eq!(said, "was tried as 7 and did not come up: api never became healthy (HTTP 500)");
    let back = HeldOff { because: Because::RolledBack { to: Generation(3) }, ..held(7) };
    generations.hold_off(Some(back.clone())).unwrap();
    let mut generations = reopen(&state);
    assert_eq!(generations.held_off(), Some(&back));
    assert_eq!(back.to_string(), "is held off since the rollback to 3");
    generations.hold_off(None).unwrap();
    assert_eq!(reopen(&state).held_off(), None);
}

#[test]
fn without_a_directory_the_last_few_are_in_memory() {
    let mut remarks = Vec::new();
    let mut generations = Generations::open(None, &mut remarks);
    for number in 1..=9 {
        add(&mut generations, number);
    }
    assert_eq!(numbers(&generations), [9, 8, 7, 6, 5]);
    for number in 5..=9 {
        same_files(&generations.files(Generation(number)).unwrap(), &sources(number));
    }
    // A content that they have in common is there once.
    let env = |number| generations.files(Generation(number)).unwrap().files[2].content.clone();
    assert!(Arc::ptr_eq(&env(5).unwrap(), &env(9).unwrap()));
    generations.hold_off(Some(held(9))).unwrap();
    assert_eq!(generations.held_off(), Some(&held(9)));
    assert_eq!((generations.trouble(), generations.again()), (None, None));
    generations.retry().unwrap();
    assert_eq!(remarks, [""; 0]);
}

#[test]
fn without_room_all_is_in_memory_until_there_is() {
    let name = "generations::without_room_all_is_in_memory_until_there_is";
    let setup = "mount -t tmpfs -o size=128k,mode=0700 tmpfs /mnt";
    let options = ["--user", "--map-root-user", "--mount", "--propagation", "private"];
    if !entered(name, &options, setup) {
        return;
    }
    let state = Path::new("/mnt/state");
    let mut generations = reopen(state);
    add(&mut generations, 1);
    let filler = Path::new("/mnt/filler");
    let fill = || {
        use std::io::Write;
        let mut file = fs::File::create(filler).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
        while file.write_all(&[0]).is_ok() {}
    };
    fill();
    let full = |error: std::io::Error| error.kind() == std::io::ErrorKind::StorageFull;
    assert!(full(generations.add(accepted(2, 1), &sources(2)).unwrap_err()));
    assert!(full(generations.set_state(Generation(2), State::Applied).unwrap_err()));
    assert!(full(generations.set_state(Generation(1), State::Superseded).unwrap_err()));
    assert!(full(generations.hold_off(Some(held(3))).unwrap_err()));
    assert!(generations.trouble().is_some() && generations.again().is_some());
    // All is answered as if it were there.
    assert_eq!(generations.running().unwrap().number, Generation(2));
    same_files(&generations.files(Generation(2)).unwrap(), &sources(2));
    assert_eq!(generations.held_off(), Some(&held(3)));
    // On disk is what was there before.
    let then = reopen(state);
    assert_eq!((numbers(&then), then.held_off()), (vec![1], None));
    assert_eq!(then.running().unwrap().state, State::Applied);
    generations.retry().unwrap_err();
    fs::remove_file(filler).unwrap();
    generations.retry().unwrap();
    assert_eq!((generations.trouble(), generations.again()), (None, None));
    let then = reopen(state);
    assert_eq!(then.list(), generations.list());
    assert_eq!(then.held_off(), Some(&held(3)));
    same_files(&then.files(Generation(2)).unwrap(), &sources(2));
    // As many as there is memory for are kept, and what runs.
    fill();
    for number in 3..=20 {
        generations.add(accepted(number, 2), &sources(number)).unwrap_err();
    }
    assert_eq!(numbers(&generations), [20, 19, 18, 17, 16, 2, 1]);
    fs::remove_file(filler).unwrap();
    generations.retry().unwrap();
    assert_eq!(numbers(&reopen(state)), numbers(&generations));
}

#[test]
fn a_place_that_takes_nothing_is_read_all_the_same() {
    let name = "generations::a_place_that_takes_nothing_is_read_all_the_same";
    let options = ["--user", "--map-root-user", "--mount", "--propagation", "private"];
    if !entered(name, &options, "mount -t tmpfs -o mode=0700 tmpfs /mnt") {
        return;
    }
    let state = Path::new("/mnt/state");
    let mut generations = reopen(state);
    add(&mut generations, 1);
    let remount = |how: &str| {
        let mut mount = std::process::Command::new("mount");
        assert!(mount.args(["-o", how, "/mnt"]).status().unwrap().success());
    };
    remount("remount,ro");
    let (mut generations, remarks) = open(state);
    assert_eq!(remarks, [""; 0]);
    same_files(&generations.files(Generation(1)).unwrap(), &sources(1));
    generations.add(accepted(2, 1), &sources(2)).unwrap_err();
    remount("remount,rw");
    generations.retry().unwrap();
    assert_eq!(numbers(&reopen(state)), [2, 1]);
    // Not even the directory could be made.
    fs::remove_dir_all(state).unwrap();
    remount("remount,ro");
    let (mut generations, remarks) = open(state);
    assert_eq!(remarks.len(), 1, "{remarks:?}");
    assert!(remarks[0].starts_with("generations are not kept: /mnt/state/generations: "));
    generations.add(accepted(1, 0), &sources(1)).unwrap_err();
    remount("remount,rw");
    generations.retry().unwrap();
    assert_eq!(numbers(&reopen(state)), [1]);
}

/// One that is kept, and its directory.
fn one() -> (TempDir, PathBuf, PathBuf) {
    let (dir, state) = state();
    let mut generations = reopen(&state);
    add(&mut generations, 1);
    add(&mut generations, 2);
    let own = state.join("generations/000002");
    (dir, state, own)
}

/// It is set aside with one remark, the other is there, and its number does not come again.
fn set_aside(state: &Path, what: &str) -> PathBuf {
    let (generations, remarks) = open(state);
    assert_eq!(numbers(&generations), [1], "{what}");
    assert_eq!(generations.next_number(Generation(0)), Generation(3), "{what}");
    assert_eq!(remarks.len(), 1, "{what}: {remarks:?}");
    let aside = remarks[0].rsplit_once("set aside as ").expect(&remarks[0]).1;
    let (generations, remarks) = open(state);
    assert_eq!(remarks, [""; 0], "{what}");
    assert_eq!(generations.next_number(Generation(0)), Generation(3), "{what}");
    aside.into()
}

#[test]
fn cut_off_at_every_byte() {
    let (_dir, state, own) = one();
    let meta = own.join("meta.json");
    let content = fs::read(&meta).unwrap();
    for len in 0..content.len() {
        fs::write(&meta, &content[..len]).unwrap();
        let aside = set_aside(&state, &format!("{len} bytes"));
        fs::rename(aside, &own).unwrap();
    }
    fs::write(&meta, &content).unwrap();
    assert_eq!(numbers(&reopen(&state)), [2, 1]);
}

#[test]
fn with_a_bit_that_is_another() {
    let (_dir, state, own) = one();
    let meta = own.join("meta.json");
    let content = fs::read(&meta).unwrap();
    for at in 0..content.len() {
        let mut other = content.clone();
        other[at] ^= 1 << (at % 8);
        fs::write(&meta, &other).unwrap();
        let aside = set_aside(&state, &format!("byte {at}"));
        fs::rename(aside, &own).unwrap();
    }
}

#[test]
fn a_newer_one_and_other_things_are_set_aside() {
    type Damage = fn(&Path);
    let damages: [(&str, Damage, &str); 7] = [
        ("newer", |own| edit(own, "generation 1 ", "generation 2 "), "it is of version 2"),
        ("older", |own| edit(own, "generation 1 ", "generation 0 "), "it has no version"),
        ("no meta", |own| fs::remove_file(own.join("meta.json")).unwrap(), "it has no meta.json"),
        (
            "no content",
            |own| fs::remove_file(own.join("files/02-processes.yaml")).unwrap(),
            "files/02-processes.yaml is missing",
        ),
        ("no files", |own| fs::remove_dir_all(own.join("files")).unwrap(), "is missing"),
        (
            "a file",
            |own| {
                fs::remove_dir_all(own).unwrap();
                fs::write(own, "").unwrap();
            },
            "it is no directory",
        ),
        (
            "another",
            |own| {
                fs::remove_dir_all(own).unwrap();
                fs::create_dir(own).unwrap();
                let first = own.with_file_name("000001");
                fs::copy(first.join("meta.json"), own.join("meta.json")).unwrap();
            },
            "it is of another generation",
        ),
    ];
    for (what, damage, said) in damages {
        let (_dir, state, own) = one();
        damage(&own);
        let (_, remarks) = open(&state);
        assert_eq!(remarks.len(), 1, "{what}: {remarks:?}");
        assert!(remarks[0].starts_with(&format!("{} is not used: ", own.display())));
        assert!(remarks[0].contains(said), "{what}: {remarks:?}");
        let mut generations = reopen(&state);
        assert_eq!((numbers(&generations), own.exists()), (vec![1], false), "{what}");
        // What was set aside goes when it would have gone.
        let asides = || {
            let entries = fs::read_dir(state.join("generations")).unwrap().flatten();
            let names = entries.map(|entry| entry.file_name().into_string().unwrap());
            names.filter(|name| name.contains(".bad-")).count()
        };
        generations.set_history(2);
        add(&mut generations, 3);
        assert_eq!(asides(), 1, "{what}");
        add(&mut generations, 4);
        assert_eq!((numbers(&generations), asides()), (vec![4, 3], 0), "{what}");
    }
}

fn edit(own: &Path, from: &str, to: &str) {
    let meta = own.join("meta.json");
    let content = fs::read_to_string(&meta).unwrap();
    assert!(content.contains(from));
    fs::write(meta, content.replace(from, to)).unwrap();
}

#[test]
fn what_is_not_ours_is_left_alone() {
    let (_dir, state, own) = one();
    let root = own.parent().unwrap();
    let others = ["7", "0000007", "notes.txt", ".new-x", ".old-1", ".hidden", ".000001.bak"];
    for name in others {
        fs::create_dir(root.join(name)).unwrap();
    }
    // Of somebody who died.
    for name in [".new-000003/files", ".old-000001/files"] {
        fs::create_dir_all(root.join(name)).unwrap();
        fs::write(root.join(name).join("x"), "").unwrap();
    }
    fs::write(own.join(".meta.json.new"), "half").unwrap();
    let generations = reopen(&state);
    assert_eq!(numbers(&generations), [2, 1]);
    assert!(others.iter().all(|name| root.join(name).exists()));
    assert!(!root.join(".new-000003").exists() && !root.join(".old-000001").exists());
    assert!(!own.join(".meta.json.new").exists());
}

#[test]
fn golden_generations_mean_what_they_meant() {
    let (_dir, state) = state();
    let golden = super::golden(1);
    let copied = std::process::Command::new("cp").arg("-r").arg(&golden).arg(&state).status();
    assert!(copied.unwrap().success());
    let generations = reopen(&state);
    assert_eq!(numbers(&generations), [3, 2, 1]);
    let records = generations.list();
    let [third, second, first]: &[Arc<Record>; 3] = records.as_slice().try_into().unwrap();
    assert_eq!((first.state, first.cause, first.base), (State::Applied, Cause::Start, None));
    assert_eq!(second.state, State::RollbackIncomplete);
    assert_eq!(second.cause, Cause::Rollback { to: Generation(1), uid: Some(1000) });
    assert_eq!(second.why, ["web: exited with code 1"]);
    assert_eq!((third.state, third.base), (State::RollingBack, Some(Generation(1))));
    assert_eq!(third.time, SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_250));
    assert_eq!(third.changes[0].fields[0].key, "restartPolicy.delay");
    assert_eq!((third.unchanged, third.steps.len()), (1, 5));
    let sources = generations.files(Generation(3)).unwrap();
    let kinds: Vec<_> = sources.files.iter().map(|file| file.kind).collect();
    let wanted = [SourceKind::Main, SourceKind::Processes, SourceKind::DropIn, SourceKind::Env];
    assert_eq!(kinds, wanted);
    assert_eq!(third.digest, sources.digest);
    assert_eq!(generations.running().unwrap().number, Generation(1));
    assert_eq!(generations.pending().unwrap().number, Generation(3));
    let Because::Tried { generation, why } = &generations.held_off().unwrap().because else {
        panic!("{:?}", generations.held_off());
    };
    assert_eq!((generation.0, why.len()), (2, 1));
    // They are written as they were.
    let mut generations = generations;
    generations.change(Generation(3), |_| {}).unwrap();
    let meta = "generations/000003/meta.json";
    let written = fs::read_to_string(state.join(meta)).unwrap();
    assert_eq!(written, fs::read_to_string(golden.join(meta)).unwrap());
    let held_off = generations.held_off().cloned();
    generations.hold_off(None).unwrap();
    generations.hold_off(held_off).unwrap();
    let written = fs::read_to_string(state.join("held-off")).unwrap();
    assert_eq!(written, fs::read_to_string(golden.join("held-off")).unwrap());
}
