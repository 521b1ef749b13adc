//! Whoever is killed while writing a generation leaves the old or the new, and nothing that is in the
//! way: at every system call that touches the state directory.

use crate::generations::{accepted, numbers, open, same_files, sources};
use provost::core::ids::Generation;
use provost::store::generations::{Because, Generations, HeldOff, State};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

const PLACE: &str = "PROVOST_TEST_PLACE";
const CALLS: &str = "trace=mkdir,openat,write,fsync,fdatasync,rename,renameat,renameat2,link,linkat,\
                     unlink,unlinkat,rmdir,fchmod,ftruncate";

fn prepared(state: &Path) -> Generations {
    let (mut generations, remarks) = open(state);
    assert_eq!(remarks, [""; 0]);
    for number in 1..=3 {
        generations.add(accepted(number, number - 1), &sources(number)).unwrap();
        generations.set_state(Generation(number), State::Applied).unwrap();
    }
    generations.hold_off(Some(held(2))).unwrap();
    generations
}

fn held(number: u64) -> HeldOff {
    let because = Because::RolledBack { to: Generation(number) };
    HeldOff { digest: sources(number).digest, because }
}

/// What is done, one thing after the other; the first is dropped on the way.
fn steps() -> [fn(&mut Generations); 4] {
    [
        |all| all.hold_off(Some(held(3))).unwrap(),
        |all| {
            all.set_history(2);
            all.add(accepted(4, 3), &sources(4)).map(drop).unwrap();
        },
        |all| all.set_state(Generation(4), State::Applied).unwrap(),
        |all| all.hold_off(None).unwrap(),
    ]
}

/// What can be told apart from outside.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    states: BTreeMap<u64, State>,
    held_off: Option<HeldOff>,
}

fn seen(generations: &Generations) -> Seen {
    for record in generations.list() {
        same_files(&generations.files(record.number).unwrap(), &sources(record.number.0));
    }
    let states = generations.list().into_iter().map(|record| (record.number.0, record.state));
    Seen { states: states.collect(), held_off: generations.held_off().cloned() }
}

/// The test that is killed: it does nothing but the steps. Run as itself it does nothing.
#[test]
fn writes() {
    let Some(state) = std::env::var_os(PLACE) else { return };
    let (mut generations, _) = open(Path::new(&state));
    for step in steps() {
        step(&mut generations);
    }
}

/// Runs a test of this program under strace, all of it in one thread, as the ordinals of calls are
/// counted by thread. It is told its place by a variable.
pub fn traced(
    test: &str,
    (variable, place): (&str, &Path),
    calls: &str,
    log: &Path,
    how: &[&str],
) -> bool {
    let status = Command::new("strace")
        .args(["-f", "-y", "-qq", "-s", "1", "-e", calls])
        .args(how)
        .arg("-o")
        .arg(log)
        .arg(std::env::current_exe().unwrap())
        .args([test, "--exact", "--test-threads=1"])
        .env(variable, place)
        .output()
        .unwrap();
    status.status.success()
}

/// Whether strace can be used here. It must be where that is a condition.
pub fn can_trace() -> bool {
    let traced_true = Command::new("strace").args(["-o", "/dev/null", "true"]).output();
    let can = traced_true.is_ok_and(|output| output.status.success());
    if !can {
        assert!(std::env::var_os("CI").is_none(), "CI has strace");
        eprintln!("skipped: strace is needed");
    }
    can
}

/// Each call that touches the directory, and which of its name it is.
pub fn touching(log: &Path, state: &Path) -> Vec<(String, usize)> {
    let mut ordinals: BTreeMap<(String, String), usize> = BTreeMap::new();
    let mut found = Vec::new();
    for line in fs::read_to_string(log).unwrap().lines() {
        let Some((thread, call)) = line.split_once(' ') else { continue };
        let Some((name, arguments)) = call.trim_start().split_once('(') else { continue };
        let ordinal = ordinals.entry((thread.to_owned(), name.to_owned())).or_default();
        *ordinal += 1;
        if arguments.contains(state.to_str().unwrap()) {
            found.push((name.to_owned(), *ordinal));
        }
    }
    found
}

#[test]
fn whoever_is_killed_leaves_the_old_or_the_new() {
    if !can_trace() {
        return;
    }
    let traced = |log: &Path, how: &[&str], state: &Path| {
        traced("killed::writes", (PLACE, state), CALLS, log, how)
    };
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let template = dir.path().join("template");
    let mut generations = prepared(&template);
    // What may be seen: before and after each step, and before what is too old is dropped.
    let mut expected = vec![seen(&generations)];
    for step in steps() {
        step(&mut generations);
        let mut after = seen(&generations);
        expected.push(after.clone());
        for dropped in [2, 1] {
            after.states.insert(dropped, State::Applied);
            expected.push(after.clone());
        }
    }
    assert_eq!(numbers(&generations), [4, 3]);
    fs::remove_dir_all(&template).unwrap();
    drop(prepared(&template));
    let fresh = |state: &Path| {
        let _ = fs::remove_dir_all(state);
        let copied = Command::new("cp").arg("-r").arg(&template).arg(state).status();
        assert!(copied.unwrap().success());
    };
    let state = dir.path().join("state");
    fresh(&state);
    assert!(traced(&log, &[], &state));
    let calls = touching(&log, &state);
    for name in ["mkdir", "openat", "write", "fsync", "rename", "linkat", "unlink"] {
        assert!(calls.iter().any(|(call, _)| call.starts_with(name)), "{name} in {calls:?}");
    }
    let mut met = vec![false; expected.len()];
    for (call, ordinal) in calls {
        fresh(&state);
        let how = format!("inject={call}:signal=SIGKILL:when={ordinal}");
        assert!(!traced(&log, &["-e", &how], &state), "{how}: nobody was killed");
        let (mut generations, remarks) = open(&state);
        assert_eq!(remarks, [""; 0], "{how}");
        let found = seen(&generations);
        let place = expected.iter().position(|one| *one == found);
        met[place.unwrap_or_else(|| panic!("{how}: {found:?}"))] = true;
        let left = fs::read_dir(state.join("generations")).unwrap().flatten();
        let left: Vec<_> = left.filter(|entry| entry.file_name().len() != 6).collect();
        assert!(left.is_empty(), "{how}: {left:?}");
        // And it can be gone on with.
        if let Some(pending) = generations.pending() {
            generations.set_state(pending.number, State::RolledBack).unwrap();
        }
        let next = generations.next_number(Generation(0));
        generations.add(accepted(next.0, 3), &sources(next.0)).unwrap();
        assert_eq!(seen(&generations), seen(&open(&state).0), "{how}");
    }
    assert!(met.iter().filter(|met| **met).count() > 4, "{met:?}");
}
