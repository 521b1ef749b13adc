//! What came of runs, until that is told.

use super::common_ledger::{self, Entry};
use super::{Place, id};
use provost::core::event::{ExitStatus, FailReason, Outcome, RunEnd};
use provost::core::ids::Run;
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
    Untold { instance: id("web@0"), run: Some(Run(5)), at: Mono(7), outcome }
}

fn failed() -> Untold {
    ended(Outcome::Exited(ExitStatus::Code(7), false))
}

/// A directory in which `web@0` has ended and is down, which is to be told as number 1.
fn after_an_end() -> Place {
    let place = Place::new(1);
    let (mut store, found) = open(&place.run());
    assert_eq!(found.untold, []);
    let web = id("web@0");
    let state = &found.restored.instances[&web];
    assert_eq!(state.run().map(|run| (run.run, run.exit)), Some((Run(5), None)));
    assert_eq!(store.keep_outcome(&failed()), 1);
    store.save([(&web, Some(InstanceSnapshot { phase: PhaseSnapshot::Down, ..state.clone() }))]);
    place
}

#[test]
fn they_are_there_until_they_are_told() {
    let place = after_an_end();
    let (_, found) = open(&place.run());
    assert_eq!(found.untold, [(1, failed())]);
    let (mut store, _) = open(&place.run());
    assert_eq!(store.keep_outcome(&ended(Outcome::Completed)), 2, "the next number");
    store.save([]);
    store.told().advance(1);
    assert_eq!(untold(&place.run()), [2]);
    // An earlier one says nothing of a later one.
    store.told().advance(2);
    store.told().advance(1);
    assert_eq!(untold(&place.run()), [0; 0]);
    let (mut store, _) = open(&place.run());
    assert_eq!(store.keep_outcome(&failed()), 3, "no number means two");
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
    let place = after_an_end();
    let path = place.run().join("ledger");
    let content = fs::read(&path).unwrap();
    fs::write(&path, &content[..content.len() - 1]).unwrap();
    let (_, found) = open(&place.run());
    assert!(found.restored.instances[&id("web@0")].run().is_some());
    assert_eq!(found.untold, []);
}

/// Also where nobody ever reads the log, or writes anything else.
#[test]
fn they_do_not_pile_up() {
    let place = after_an_end();
    let length = || fs::metadata(place.run().join("ledger")).unwrap().len();
    let (mut store, _) = open(&place.run());
    for number in 2..20_000 {
        assert_eq!(store.keep_outcome(&failed()), number);
        store.save([]);
        store.told().advance(number - 1);
        assert!(length() < 200_000, "{number}");
    }
    assert_eq!(untold(&place.run()), [19_999]);
    for _ in 0..20_000 {
        store.keep_outcome(&failed());
        store.save([]);
    }
    let left = untold(&place.run());
    // Until the file is written anew there are some more in it.
    assert!((4097..10_000).contains(&left.len()), "{}", left.len());
    assert_eq!(left.last(), Some(&39_999));
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
        let body = json!({ "instance": instance, "run": 5, "at": 7, "outcome": said });
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
    for content in ["", "no number\n", "99999999999999999999999\n"] {
        fs::write(place.run().join("told"), content).unwrap();
        assert_eq!(untold(&place.run()), [1], "{content:?}");
    }
}
