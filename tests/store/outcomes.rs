//! What came of runs, until that is told.

use super::common_ledger::{self, Entry};
use super::{Place, id};
use provost::core::event::{ExitStatus, FailReason, Outcome, RunEnd};
use provost::core::ids::{Generation, Run, Slot};
use provost::core::snapshot::{InstanceSnapshot, PhaseSnapshot};
use provost::core::time::Mono;
use provost::store::told::Untold;
use provost::store::{Found, Store};
use serde_json::json;
use std::fs;
use std::path::Path;

fn open(run: &Path) -> (Store, Found) {
    let (store, _, found) = Store::open(Some(run), None);
    (store, found)
}

/// The numbers of what is to be told.
fn untold(run: &Path) -> Vec<u64> {
    open(run).1.untold.iter().map(|(number, _)| *number).collect()
}

fn ended(outcome: Outcome) -> Untold {
    let (slot, generation) = (Slot::A, Generation(3));
    Untold { instance: id("web@0"), run: Some(Run(5)), slot, generation, at: LATER, outcome }
}

/// After everything in the files that are given.
const LATER: Mono = Mono(u64::MAX);

fn failed() -> Untold {
    ended(Outcome::Exited(ExitStatus::Code(7), false))
}

/// The same of another run.
fn of_run(run: u64) -> Untold {
    Untold { run: Some(Run(run)), ..failed() }
}

/// The last of what was written is not all there.
fn tear(place: &Place) {
    let path = place.run().join("ledger");
    let content = fs::read(&path).unwrap();
    fs::write(&path, &content[..content.len() - 1]).unwrap();
}

fn down(state: &InstanceSnapshot) -> InstanceSnapshot {
    InstanceSnapshot { phase: PhaseSnapshot::Down, ..state.clone() }
}

/// A directory in which `web@0` has ended and is down, which is to be told as number 1.
fn after_an_end() -> Place {
    let place = Place::new(1);
    let (mut store, found) = open(&place.run());
    assert_eq!(found.untold, []);
    let web = id("web@0");
    let state = &found.restored.instances[&web];
    assert_eq!(state.run().map(|run| (run.run, run.exit)), Some((Run(5), None)));
    assert_eq!(store.keep_outcome(failed()), 1);
    store.save([(&web, Some(down(state)))]);
    place
}

#[test]
fn they_are_there_until_they_are_told() {
    let place = after_an_end();
    let (_, found) = open(&place.run());
    assert_eq!(found.untold, [(1, failed())]);
    let (mut store, _) = open(&place.run());
    assert_eq!(store.keep_outcome(ended(Outcome::Completed)), 2, "the next number");
    store.save([]);
    store.told().advance(1);
    assert_eq!(untold(&place.run()), [2]);
    // An earlier one says nothing of a later one.
    store.told().advance(2);
    store.told().advance(1);
    assert_eq!(untold(&place.run()), [0; 0]);
    let (mut store, _) = open(&place.run());
    assert_eq!(store.keep_outcome(failed()), 3, "no number means two");
}

#[test]
fn an_instance_that_is_no_more_is_told_of() {
    let place = after_an_end();
    let (mut store, _) = open(&place.run());
    store.save([(&id("web@0"), None)]);
    assert_eq!(untold(&place.run()), [1]);
    assert_eq!(open(&place.run()).1.restored.instances.len(), 1);
}

/// Whoever is killed while writing leaves the outcome without the state that follows from it: what is
/// found again ends again, and that is told.
#[test]
fn without_the_state_that_follows_it_is_told_by_what_is_found() {
    for outcome in [failed().outcome, Outcome::Completed] {
        let place = Place::new(1);
        let (mut store, found) = open(&place.run());
        let web = id("web@0");
        let state = &found.restored.instances[&web];
        store.keep_outcome(ended(outcome.clone()));
        // One of a former run of the same number, of which nobody knew any more.
        store.keep_outcome(Untold { at: Mono(0), ..failed() });
        store.save([(&web, Some(down(state)))]);
        tear(&place);
        let (mut store, found) = open(&place.run());
        assert!(found.restored.instances[&web].run().is_some());
        let numbers: Vec<u64> = found.untold.iter().map(|(number, _)| *number).collect();
        let is_another = outcome == Outcome::Completed;
        assert_eq!(numbers, if is_another { vec![2] } else { vec![] }, "{outcome:?}");
        // It is found again, by somebody who is killed before that is told.
        store.keep_outcome(ended(outcome.clone()));
        store.save([(&web, Some(down(state)))]);
        assert_eq!(untold(&place.run()).len(), numbers.len() + 1, "{outcome:?}");
    }
}

/// An outcome is written when there is room again, and what is told by then is not.
#[test]
fn without_room_they_are_written_later() {
    let place = after_an_end();
    let (mut store, found) = open(&place.run());
    let web = id("web@0");
    let state = found.restored.instances[&web].clone();
    let (path, aside) = (place.run().join("ledger"), place.run().join("aside"));
    fs::rename(&path, &aside).unwrap();
    fs::create_dir(&path).unwrap();
    for run in 10..13 {
        store.keep_outcome(of_run(run));
        store.save([(&web, Some(InstanceSnapshot { restarts: run, ..state.clone() }))]);
    }
    assert!(store.trouble().is_some());
    store.told().advance(2);
    fs::remove_dir(&path).unwrap();
    fs::rename(&aside, &path).unwrap();
    assert!(store.retry().contains(&web));
    store.save([(&web, Some(state))]);
    assert_eq!(store.trouble(), None);
    assert_eq!(untold(&place.run()), [3, 4]);
}

#[test]
fn what_nobody_wants_to_hear_is_passed_over_in_its_turn() {
    let place = after_an_end();
    let (mut store, _) = open(&place.run());
    for number in 2..7 {
        assert_eq!(store.keep_outcome(of_run(10 + number)), number);
    }
    store.save([]);
    let told = store.told().clone();
    told.pass(3);
    told.pass(2);
    assert_eq!(untold(&place.run()), [1, 2, 3, 4, 5, 6], "the first is not told yet");
    told.advance(1);
    assert_eq!((told.number(), untold(&place.run())), (3, vec![4, 5, 6]));
    told.pass(4);
    assert_eq!(told.number(), 4);
    told.pass(6);
    told.advance(5);
    assert_eq!((told.number(), untold(&place.run())), (6, vec![]));
    // What they wait for may never come.
    (8..6_000).for_each(|number| told.pass(number));
    assert!(told.number() > 2_000, "{}", told.number());
}

/// Also where nobody ever reads the log, or writes anything else.
#[test]
fn they_do_not_pile_up() {
    let place = after_an_end();
    let length = || fs::metadata(place.run().join("ledger")).unwrap().len();
    let (mut store, _) = open(&place.run());
    for number in 2..20_000 {
        assert_eq!(store.keep_outcome(of_run(number)), number);
        store.save([]);
        store.told().advance(number - 1);
        assert!(length() < 200_000, "{number}");
    }
    assert_eq!(untold(&place.run()), [19_999]);
    for run in 20_000..40_000 {
        store.keep_outcome(of_run(run));
        store.save([]);
    }
    let left: Vec<u64> = (40_000 - 3_072..40_000).collect();
    assert_eq!(untold(&place.run()), left);
    assert!(length() < 4_000_000, "{}", length());
}

#[test]
fn each_means_what_it_meant() {
    let place = after_an_end();
    let path = place.run().join("ledger");
    let instance = json!({ "process": "web", "index": 0 });
    let cases = [
        (json!({ "exited": [{ "Code": 7 }, false] }), failed().outcome),
        (json!("completed"), Outcome::Completed),
        (
            json!({ "gave-up": { "policy": { "exited": { "Code": 7 } } } }),
            Outcome::GaveUp(FailReason::Policy(RunEnd::Exited(ExitStatus::Code(7)))),
        ),
    ];
    for (said, outcome) in cases {
        let mut entries = common_ledger::read(&path);
        entries.retain(|entry| entry.kind != "outcome");
        let body = json!({
            "instance": instance, "run": 5, "generation": 3, "at": u64::MAX, "outcome": said,
        });
        entries.push(Entry { kind: "outcome".to_owned(), subject: "3".to_owned(), body });
        common_ledger::write(&path, &entries);
        assert_eq!(open(&place.run()).1.untold, [(3, ended(outcome))]);
    }
}

#[test]
fn a_number_that_is_lost_has_them_told_again() {
    let place = after_an_end();
    open(&place.run()).0.told().advance(1);
    assert_eq!(untold(&place.run()), [0; 0]);
    let path = place.run().join("told");
    let largest = format!("{}\n", u64::MAX);
    let long = format!("{}\n", "no number at all".repeat(10));
    for content in ["", "no number\n", "99999999999999999999999\n", &largest, &long] {
        fs::write(&path, content).unwrap();
        assert_eq!(untold(&place.run()), [1], "{content:?}");
        let (mut store, _) = open(&place.run());
        store.told().advance(1);
        assert_eq!(untold(&place.run()), [0; 0], "{content:?}: it is known again");
        let next = store.keep_outcome(failed());
        assert_eq!(next, 2);
    }
    // Somebody takes it away.
    let (mut store, _) = open(&place.run());
    let one = store.keep_outcome(failed());
    store.save([]);
    store.told().advance(one);
    fs::remove_file(&path).unwrap();
    let two = store.keep_outcome(failed());
    store.save([]);
    store.told().advance(two);
    assert_eq!(untold(&place.run()), [0; 0]);
}

/// Whoever found an end a second time was killed before it told that, too.
#[test]
fn what_was_found_twice_is_told_once() {
    let place = after_an_end();
    assert_eq!(open(&place.run()).0.keep_outcome(failed()), 2);
    let (mut store, _) = open(&place.run());
    store.keep_outcome(failed());
    store.save([]);
    let (mut store, _) = open(&place.run());
    assert_eq!(untold(&place.run()), [1]);
    store.told().advance(1);
    assert_eq!(untold(&place.run()), [0; 0]);
    // It is in the way of nothing that comes after it.
    for run in 10..13 {
        let number = store.keep_outcome(of_run(run));
        store.save([]);
        store.told().pass(number);
    }
    assert_eq!(untold(&place.run()), [0; 0]);
}

/// States are written where there is room for them and not for what waits to be told.
#[test]
fn states_do_not_wait_for_outcomes() {
    let place = after_an_end();
    let (mut store, found) = open(&place.run());
    let web = id("web@0");
    let state = found.restored.instances[&web].clone();
    let path = place.run().join("ledger");
    let was = fs::metadata(&path).unwrap().len();
    for run in 0..3_000 {
        assert_eq!(store.keep_outcome(of_run(100 + run)), run + 2);
    }
    limited(was + 20_000, || {
        store.save([(&web, Some(InstanceSnapshot { restarts: 77, ..state.clone() }))]);
    });
    assert!(store.trouble().is_some());
    let (_, found) = open(&place.run());
    assert_eq!(found.restored.instances[&web].restarts, 77);
    assert_eq!(found.untold.len(), 1);
    assert!(store.retry().is_empty());
    store.save([]);
    assert_eq!(store.trouble(), None);
    assert_eq!(untold(&place.run()).len(), 3_000 + 1);
}

/// Does something while no file may become longer than that.
fn limited(length: u64, what: impl FnOnce()) {
    use nix::sys::signal::{SigHandler, Signal, signal};
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    // Safety: it is only ignored, and the tests that run beside this one have a process of their own.
    unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) }.unwrap();
    let usual = getrlimit(Resource::Fsize);
    setrlimit(Resource::Fsize, Rlimit { current: Some(length), ..usual }).unwrap();
    what();
    setrlimit(Resource::Fsize, usual).unwrap();
}

/// Who begins anew finds nothing of before.
#[test]
fn nothing_is_kept_after_all_was_forgotten() {
    let place = after_an_end();
    let (mut store, _) = open(&place.run());
    let number = store.keep_outcome(of_run(77));
    store.save([]);
    store.told().advance(1);
    store.clear();
    store.told().advance(number);
    assert!(!place.run().join("told").exists());
}
