//! The ledger: cut off, damaged, taken away, killed at every call and failing at every call, and never
//! much larger than what counts.

use super::common_ledger::{self, Entry};
use super::{Place, Seen, id, open};
use crate::killed::{touching, traced};
use nix::sys::signal::{SigHandler, Signal, signal};
use provost::core::ids::{Generation, InstanceId, Run, Slot};
use provost::core::snapshot::{InstanceSnapshot, PhaseSnapshot};
use provost::core::spec::Settings;
use provost::store::runs::{RunRecord, Runs};
use provost::store::{Missing, Store};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// A directory of a daemon with states and runs of two instances, each told more than once.
struct Bench {
    place: Place,
    content: Vec<u8>,
    whole: Seen,
}

impl Bench {
    fn new() -> Bench {
        let place = Place::new(1);
        let (mut store, runs, found) = Store::open(Some(&place.run()), None);
        let records = runs.take_found();
        for restarts in 1..3 {
            for (web, state) in &found.restored.instances {
                let state = InstanceSnapshot { restarts, ..state.clone() };
                store.save([(web, Some(state))]);
                let record = &records[&(web.clone(), Run(5))];
                runs.record(&RunRecord { run: Run(5 + restarts), ..record.clone() }).unwrap();
            }
        }
        let settings = Settings { auto_start: false, ..Settings::default() };
        store.save_whole(Generation(1), &settings, &Missing::default(), None);
        let content = fs::read(place.run().join("ledger")).unwrap();
        let (whole, remarks) = open(Some(&place.run()), None);
        assert_eq!(remarks, [""; 0]);
        assert_eq!((whole.instances.len(), whole.records.len()), (2, 2));
        Bench { place, content, whole }
    }

    fn path(&self) -> PathBuf {
        self.place.run().join("ledger")
    }

    /// What is said in the entries of this part of the file.
    fn said(&self, content: &[u8]) -> Seen {
        let copy = Place::new(1);
        // What there was before there was a ledger is in one now.
        copy.open();
        fs::write(copy.run().join("ledger"), content).unwrap();
        let (seen, remarks) = open(Some(&copy.run()), None);
        assert_eq!(remarks, [""; 0]);
        Seen { token: self.whole.token, ..seen }
    }

    /// Where entries begin, and the end.
    fn bounds(&self) -> Vec<usize> {
        let starts = (0..self.content.len()).filter(|at| {
            let is_first = *at == 0 || self.content[at - 1] == b'\n';
            is_first && self.content[*at..].starts_with(b"provost ")
        });
        starts.chain([self.content.len()]).collect()
    }

    /// With this in its place this is told, with remarks or not, and the next time the same without.
    fn check(&self, what: &str, expected: &Seen, remark: Option<&str>) {
        let run = self.place.run();
        let (seen, remarks) = open(Some(&run), None);
        assert_eq!(seen, *expected, "{what}");
        match remark {
            None => assert_eq!(remarks, [""; 0], "{what}"),
            Some(words) => {
                assert_eq!(remarks.len(), 1, "{what}: {remarks:?}");
                let path = self.path();
                let (about, aside) = remarks[0].rsplit_once("; set aside as ").expect(&remarks[0]);
                assert!(about.starts_with(&format!("{} is not used", path.display())), "{about}");
                assert!(about.contains(words), "{what}: {about}");
                assert!(fs::symlink_metadata(aside).is_ok(), "{what}: {aside}");
                fs::remove_dir_all(aside).or_else(|_| fs::remove_file(aside)).unwrap();
            }
        }
        assert_eq!(open(Some(&run), None), (seen, Vec::new()), "{what}: and again");
        let names = self.place.names();
        assert!(
            names.iter().all(|name| ["boot", "ledger"].contains(&&**name)),
            "{what}: {names:?}"
        );
    }

    fn put(&self, content: &[u8]) {
        let path = self.path();
        let _ = fs::remove_dir_all(&path).or_else(|_| fs::remove_file(&path));
        fs::write(path, content).unwrap();
    }

    /// What is said in no entry.
    fn nothing(&self) -> Seen {
        self.said(b"")
    }
}

/// Whoever is killed while adding something leaves that: what was there before counts.
#[test]
fn cut_off_at_every_byte() {
    let bench = Bench::new();
    let bounds = bench.bounds();
    assert!(bounds.len() > 12, "{bounds:?}");
    for pair in bounds.windows(2) {
        let before = bench.said(&bench.content[..pair[0]]);
        for len in pair[0]..pair[1] {
            bench.put(&bench.content[..len]);
            bench.check(&format!("{len} bytes"), &before, None);
        }
    }
}

/// What comes after it may be added to.
#[test]
fn what_is_added_after_a_cut_counts() {
    let bench = Bench::new();
    bench.put(&bench.content[..bench.content.len() - 1]);
    let (mut store, _, _) = Store::open(Some(&bench.place.run()), None);
    let web = id("web@0");
    let state = InstanceSnapshot { restarts: 77, ..bench.whole.instances[&web].clone() };
    store.save([(&web, Some(state))]);
    assert_eq!(open(Some(&bench.place.run()), None).0.instances[&web].restarts, 77);
}

/// Whichever bit is another, what was said up to there is not believed, and what was said after it is.
#[test]
fn with_a_bit_that_is_another() {
    let bench = Bench::new();
    let bounds = bench.bounds();
    for (number, pair) in bounds.windows(2).enumerate() {
        let after = bench.said(&bench.content[pair[1]..]);
        // Without the end of the line the next one begins nowhere.
        let beyond = bounds.get(number + 2).copied().unwrap_or(pair[1]);
        let after_next = bench.said(&bench.content[beyond..]);
        let head = bench.content[pair[0]..].iter().position(|byte| *byte == b'\n').unwrap();
        for at in pair[0]..pair[1] {
            // Each of the head and of the end, and some of the rest.
            let is_frame = at <= pair[0] + head || at + 2 >= pair[1];
            let bits = if is_frame { 0..8 } else { at % 256..at % 256 + 1 };
            for bit in bits.filter(|bit| *bit < 8) {
                let mut content = bench.content.clone();
                content[at] ^= 1 << bit;
                bench.put(&content);
                let what = format!("bit {bit} of byte {at}");
                let (after, until) = match at + 1 == pair[1] {
                    true => (&after_next, beyond),
                    false => (&after, pair[1]),
                };
                bench.check(&what, after, Some(&format!("up to byte {until}: ")));
            }
        }
    }
}

/// Who comes back to an older version cannot tell what the newer one meant.
#[test]
fn of_a_newer_version() {
    let bench = Bench::new();
    let entries = common_ledger::read(&bench.path());
    for version in ["2", "4294967295"] {
        for newer in 0..entries.len() {
            let text = entries.iter().enumerate().map(|(number, entry)| {
                common_ledger::text(if number == newer { version } else { "1" }, entry)
            });
            bench.put(text.collect::<String>().as_bytes());
            let words = format!("it is of version {version}, and this is version 1");
            bench.check(&format!("entry {newer}"), &bench.nothing(), Some(&words));
        }
    }
}

/// The frame is as it should be, and what is in it is not.
#[test]
fn of_something_else() {
    let bench = Bench::new();
    let entries = common_ledger::read(&bench.path());
    let text = |entries: &[Entry]| {
        entries.iter().map(|entry| common_ledger::text("1", entry)).collect::<String>()
    };
    let entry = |kind: &str, subject: &str, body| Entry {
        kind: kind.to_owned(),
        subject: subject.to_owned(),
        body,
    };
    // What nobody knows makes all before it doubtful.
    for (kind, subject) in [
        ("stat", "web@0"),
        ("state", "web"),
        ("state", "web@00"),
        ("state", "web@0-b"),
        ("state", ""),
        ("run", "web@0-c"),
        ("whole", "web@0"),
        ("boot", "all"),
    ] {
        let other = [&entries[..], &[entry(kind, subject, serde_json::Value::Null)]].concat();
        bench.put(text(&other).as_bytes());
        let expected = bench.nothing();
        bench.check(&format!("{kind} {subject}"), &expected, Some("is not used up to byte"));
    }
    for version in ["0", "-1", "", "4294967296", "1.0"] {
        let last = common_ledger::text(version, entries.last().unwrap());
        bench.put((text(&entries) + &last).as_bytes());
        bench.check(version, &bench.nothing(), Some("it has no version"));
    }
    // Of a subject that is known the last word is worth nothing.
    let of_other = |kind: &str| {
        let is_meant = |entry: &&Entry| entry.kind == kind && entry.subject == "web@1";
        entries.iter().rfind(is_meant).unwrap().body.clone()
    };
    for (kind, subject, body) in [
        ("state", "web@0", of_other("state")),
        ("state", "web@0", "x".into()),
        ("run", "web@0", of_other("run")),
        ("run", "web@0-b", of_other("run")),
        ("whole", "all", 7.into()),
    ] {
        let other = [&entries[..], &[entry(kind, subject, body)]].concat();
        bench.put(text(&other).as_bytes());
        let mut expected = bench.whole.clone();
        match (kind, subject) {
            ("state", _) => drop(expected.instances.remove(&id("web@0"))),
            ("run", "web@0") => expected.records.retain(|(of, _), _| *of != id("web@0")),
            ("whole", _) => expected.settings = Settings::default(),
            _ => {}
        }
        let words = format!("is not used for the {kind} of {subject}: it is damaged");
        bench.check(&words, &expected, Some(&words));
    }
}

#[test]
fn something_else_in_its_place() {
    let bench = Bench::new();
    let path = bench.path();
    let elsewhere = bench.place.dir.path().join("elsewhere");
    let put: [(&str, &dyn Fn()); 7] = [
        ("a directory", &|| {
            fs::create_dir(&path).unwrap();
            fs::write(path.join("file"), "").unwrap();
        }),
        ("a pipe", &|| crate::damage::pipe(&path)),
        ("a socket", &|| drop(std::os::unix::net::UnixListener::bind(&path).unwrap())),
        ("a link to what is whole", &|| {
            fs::write(&elsewhere, &bench.content).unwrap();
            symlink(&elsewhere, &path).unwrap();
        }),
        ("a link to nowhere", &|| symlink("/nowhere/at/all", &path).unwrap()),
        ("larger than any", &|| fs::File::create(&path).unwrap().set_len(1 << 40).unwrap()),
        ("no entry at all", &|| fs::write(&path, "something\nelse\n").unwrap()),
    ];
    for (what, put) in put {
        bench.put(b"");
        fs::remove_file(&path).unwrap();
        put();
        bench.check(what, &bench.nothing(), Some(""));
    }
    assert_eq!(fs::read(elsewhere).unwrap(), bench.content, "a link was followed");
}

/// What somebody takes away is written again, all of it, with the next change.
#[test]
fn taken_away_while_it_is_open() {
    let bench = Bench::new();
    let (run, path) = (bench.place.run(), bench.path());
    let web = id("web@0");
    let ways: [(&str, &dyn Fn()); 3] = [
        ("removed", &|| fs::remove_file(&path).unwrap()),
        ("renamed", &|| fs::rename(&path, bench.place.dir.path().join("elsewhere")).unwrap()),
        ("replaced", &|| {
            fs::remove_file(&path).unwrap();
            fs::write(&path, "something else\n").unwrap();
        }),
    ];
    for (number, (what, take_away)) in ways.into_iter().enumerate() {
        bench.put(&bench.content);
        let (mut store, _, _) = Store::open(Some(&run), None);
        take_away();
        let mut expected = bench.whole.clone();
        let state = expected.instances.get_mut(&web).unwrap();
        state.restarts = 100 + number as u64;
        store.save([(&web, Some(state.clone()))]);
        assert_eq!(store.trouble(), None);
        bench.check(what, &expected, None);
    }
    // Where there is no directory any more it is said, and mended when there is one again.
    bench.put(&bench.content);
    let (mut store, _, _) = Store::open(Some(&run), None);
    let elsewhere = bench.place.dir.path().join("run.elsewhere");
    fs::rename(&run, &elsewhere).unwrap();
    let mut expected = bench.whole.clone();
    let state = expected.instances.get_mut(&web).unwrap();
    state.restarts = 200;
    store.save([(&web, Some(state.clone()))]);
    assert!(store.trouble().is_some());
    fs::rename(&elsewhere, &run).unwrap();
    assert_eq!(store.retry().into_iter().collect::<Vec<_>>(), std::slice::from_ref(&web));
    store.save([(&web, Some(state.clone()))]);
    assert_eq!(store.trouble(), None);
    bench.check("a directory that was away", &expected, None);
}

/// So many changes of so many instances: what counts is all there, and the file is bounded by it.
#[test]
fn it_is_never_much_larger_than_what_counts() {
    let bench = Bench::new();
    let (mut store, runs, found) = Store::open(Some(&bench.place.run()), None);
    let model = found.restored.instances[&id("web@0")].clone();
    let record = bench.whole.records[&(id("web@0"), Run(7))].clone();
    let of = |number: u64| id(&format!("web@{}", number % 40));
    let length = || fs::metadata(bench.path()).unwrap().len();
    let mut expected = bench.whole.instances.clone();
    let mut largest = 0;
    for change in 0..4000 {
        let instance = of(change * 7);
        if change % 5 == 0 {
            store.save([(&instance, None)]);
            expected.remove(&instance);
        } else {
            let mut state = model.clone();
            state.restarts = change;
            store.save([(&instance, Some(state.clone()))]);
            expected.insert(instance.clone(), state);
            let slot = if change % 2 == 0 { Slot::A } else { Slot::B };
            let run = Run(change);
            runs.record(&RunRecord { instance, run, slot, ..record.clone() }).unwrap();
        }
        largest = largest.max(length());
        if change % 400 == 0 {
            let (seen, remarks) = open(Some(&bench.place.run()), None);
            assert_eq!((seen.instances, remarks), (expected.clone(), vec![]), "{change}");
        }
    }
    let (seen, _) = open(Some(&bench.place.run()), None);
    assert_eq!(seen.instances, expected);
    let live: usize = 40 * 2048;
    assert!(largest < 2 * (live as u64) + 64 * 1024 + 4096, "{largest} bytes");
    // As if it had been there at once.
    let latest: BTreeMap<&InstanceId, u64> =
        expected.iter().map(|(instance, state)| (instance, state.restarts)).collect();
    for (instance, restarts) in latest {
        let of_it = seen.records.keys().filter(|(of, _)| of == instance);
        assert!(
            of_it.map(|(_, run)| run.0).max().is_some_and(|run| run == restarts || restarts < 3)
        );
    }
}

const PLACE: &str = "PROVOST_TEST_LEDGER";

/// Three states at once, a record, the end of an instance, and so on until it is written anew.
fn steps(store: &mut Store, runs: &Runs, model: &InstanceSnapshot, record: &RunRecord) {
    let all: Vec<InstanceId> = (0..3).map(|number| id(&format!("web@{number}"))).collect();
    for step in 1..=12 {
        let mut state = model.clone();
        state.restarts = 1000 + step;
        // Some changes are large.
        state.refused = Some("x".repeat(4000));
        store.save(all.iter().map(|instance| (instance, Some(state.clone()))));
        let record = RunRecord { run: Run(1000 + step), ..record.clone() };
        let _ = runs.record(&record);
        store.save([(&all[2], None)]);
    }
}

/// The test that is killed: it does nothing but the steps. Run as itself it does nothing.
#[test]
fn writes() {
    let Some(run) = std::env::var_os(PLACE) else { return };
    let (mut store, runs, found) = Store::open(Some(Path::new(&run)), None);
    let model = found.restored.instances[&id("web@0")].clone();
    let record = runs.take_found()[&(id("web@0"), Run(7))].clone();
    steps(&mut store, &runs, &model, &record);
    // What could not be written is written now.
    let again = store.retry();
    let mut state = model;
    state.restarts = 2000;
    let states = again.iter().map(|of| (of, (*of != id("web@2")).then(|| state.clone())));
    store.save(states);
    assert_eq!(store.trouble(), None);
}

const CALLS: &str = "trace=openat,write,pwrite64,rename,renameat,renameat2,unlink,unlinkat,ftruncate,\
                     link,linkat";

/// What may be there after some of the steps: what each instance is at.
fn is_possible(seen: &Seen) -> bool {
    let at = |name: &str| seen.instances.get(&id(name)).map(|state| state.restarts);
    let run = seen.records.keys().find(|(of, _)| *of == id("web@0")).map(|(_, run)| run.0);
    let (Some(first), Some(second), Some(run)) = (at("web@0"), at("web@1"), run) else {
        return false;
    };
    let step = |restarts: u64| restarts.saturating_sub(1000);
    let third = at("web@2").map(step);
    let run = run.saturating_sub(1000);
    // They are written in this order, and each either is there or not.
    let is_between = |later: u64, earlier: u64| earlier == later || earlier == later + 1;
    let instances = if first < 1000 { 0 } else { step(first) };
    let second = if second < 1000 { 0 } else { step(second) };
    is_between(second, instances)
        && third.is_none_or(|third| third == second || second == 0)
        && is_between(run, second)
        && seen.settings.auto_start == Settings::default().auto_start
        && matches!(seen.instances[&id("web@1")].phase, PhaseSnapshot::Up(_))
}

#[test]
fn whoever_is_killed_leaves_what_was_or_what_is() {
    let mut reached = Vec::new();
    each_call("signal=SIGKILL", |what, run, ended_well| {
        assert!(!ended_well, "{what}: nobody was killed");
        let (seen, remarks) = open(Some(run), None);
        assert_eq!(remarks, [""; 0], "{what}");
        assert!(is_possible(&seen), "{what}: {:?} {:?}", seen.instances, seen.records);
        assert!(!run.join(".ledger.new").exists(), "{what}");
        reached.push(seen.instances[&id("web@0")].restarts);
    });
    // Who was killed later has come further, to the end.
    assert!(reached.is_sorted(), "{reached:?}");
    for step in 1001..=1012 {
        assert!(reached.contains(&step), "{step} in {reached:?}");
    }
}

#[test]
fn what_cannot_be_written_is_written_when_it_can() {
    each_call("error=ENOSPC", |what, run, ended_well| {
        assert!(ended_well, "{what}: it was never written");
        let (seen, remarks) = open(Some(run), None);
        assert_eq!(remarks, [""; 0], "{what}");
        for name in ["web@0", "web@1"] {
            let restarts = seen.instances[&id(name)].restarts;
            assert!([1012, 2000].contains(&restarts), "{what}: {name} {restarts}");
        }
        assert!(!seen.instances.contains_key(&id("web@2")), "{what}");
        assert!(seen.records.contains_key(&(id("web@0"), Run(1012))), "{what}: {:?}", seen.records);
    });
}

/// Does the steps once for each call that touches the directory, with something done to that call.
fn each_call(how: &str, mut check: impl FnMut(&str, &Path, bool)) {
    if !crate::killed::can_trace() {
        return;
    }
    let bench = Bench::new();
    let dir = tempfile::tempdir().unwrap();
    let (log, run) = (dir.path().join("log"), bench.place.run());
    let settings = Settings::default();
    bench.put(&bench.content);
    let (mut store, _, _) = Store::open(Some(&run), None);
    store.save_whole(Generation(1), &settings, &Missing::default(), None);
    let content = fs::read(bench.path()).unwrap();
    let fresh = || {
        bench.put(&content);
        let _ = fs::remove_file(run.join(".ledger.new"));
    };
    fresh();
    let test = "ledger::writes";
    let paths = [run.join("ledger"), run.join(".ledger.new")];
    let [ledger, beside] = paths.each_ref().map(|path| path.to_str().unwrap());
    // What the test program itself writes is no matter.
    let only = ["-P", ledger, "-P", beside];
    assert!(traced(test, (PLACE, &run), CALLS, &log, &only));
    let calls = touching(&log, &run);
    for name in ["openat", "pwrite64", "write", "rename"] {
        assert!(calls.iter().any(|(call, _)| call.starts_with(name)), "{name} in {calls:?}");
    }
    // It was read before, which is another matter.
    let first = calls.iter().position(|(call, _)| call == "pwrite64").unwrap();
    for (call, ordinal) in &calls[first..] {
        fresh();
        let inject = format!("inject={call}:{how}:when={ordinal}");
        let how = [&only[..], &["-e", &inject]].concat();
        let ended_well = traced(test, (PLACE, &run), CALLS, &log, &how);
        check(&inject, &run, ended_well);
    }
}

/// Somebody else writes to it, which nobody may.
#[test]
fn longer_or_shorter_than_it_should_be() {
    let bench = Bench::new();
    let web = id("web@1");
    let bounds = bench.bounds();
    let long = bench.content.len() as u64;
    let lengths = bounds.iter().map(|at| *at as u64).chain([1, long - 1, long + 1, long + 9000]);
    for length in lengths {
        bench.put(&bench.content);
        let (mut store, _, _) = Store::open(Some(&bench.place.run()), None);
        fs::File::options().write(true).open(bench.path()).unwrap().set_len(length).unwrap();
        let mut expected = bench.whole.clone();
        if length < long {
            let below = bounds.iter().rfind(|at| **at as u64 <= length).unwrap();
            expected = bench.said(&bench.content[..*below]);
            // What is taken back by what is cut off does not count again.
            expected.instances.retain(|of, state| bench.whole.instances[of] == *state);
            expected.records.retain(|of, _| bench.whole.records.contains_key(of));
        }
        let mut state = bench.whole.instances[&web].clone();
        state.restarts = 9;
        store.save([(&web, Some(state.clone()))]);
        assert_eq!(store.trouble(), None);
        let (seen, remarks) = open(Some(&bench.place.run()), None);
        expected.instances.insert(web.clone(), state);
        assert_eq!(remarks, [""; 0], "{length}");
        assert_eq!(seen.instances, expected.instances, "{length}");
        assert_eq!(seen.records, expected.records, "{length}");
    }
}

/// What is no beginning of an entry is no end that was not reached.
#[test]
fn with_an_end_that_is_nothing() {
    let bench = Bench::new();
    let start = *bench.bounds().iter().rev().nth(1).unwrap();
    for fill in [0, b' ', b'x', b'\n', 255] {
        // Over the last entry and behind it.
        for from in [start, bench.content.len()] {
            let mut content = bench.content[..from].to_vec();
            content.resize(bench.content.len() + 50, fill);
            bench.put(&content);
            let what = format!("{fill} from {from}");
            bench.check(&what, &bench.nothing(), Some("is not used up to byte"));
        }
    }
}

/// A write that ends in the middle because there is no more room.
#[test]
fn where_there_is_room_for_a_part() {
    const ALONE: &str = "PROVOST_TEST_ALONE";
    if std::env::var_os(ALONE).is_none() {
        // The limit is one of the whole process.
        let own = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["ledger::where_there_is_room_for_a_part", "--exact", "--nocapture"])
            .env(ALONE, "1")
            .status();
        assert!(own.unwrap().success());
        return;
    }
    let bench = Bench::new();
    let (mut store, _, _) = Store::open(Some(&bench.place.run()), None);
    let limit = |bytes: Option<u64>| {
        let maximum = getrlimit(Resource::Fsize).maximum;
        setrlimit(Resource::Fsize, Rlimit { current: bytes, maximum }).unwrap();
    };
    // SAFETY: nothing is done in a handler.
    unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) }.unwrap();
    let mut expected = bench.whole.clone();
    for (number, room) in [0, 1, 70, 159, 160, 900, 1700, 3000].into_iter().enumerate() {
        let before = fs::read(bench.path()).unwrap();
        limit(Some(before.len() as u64 + room));
        let mut states = expected.instances.clone();
        for state in states.values_mut() {
            state.restarts = 500 + number as u64;
        }
        store.save(states.iter().map(|(of, state)| (of, Some(state.clone()))));
        limit(None);
        assert!(store.trouble().is_some(), "{room}");
        assert_eq!(fs::read(bench.path()).unwrap(), before, "{room}");
        let again = store.retry();
        assert_eq!(again.len(), 2, "{room}");
        store.save(again.iter().map(|of| (of, Some(states[of].clone()))));
        expected.instances = states;
        bench.check(&format!("{room} bytes"), &expected, None);
    }
}

/// Where what was in a file for each cannot be put together, nothing takes its place.
#[test]
fn what_was_there_before_the_ledger_waits_for_room() {
    let place = Place::new(1);
    let whole = place.open().0;
    place.mend();
    let beside = place.run().join(".ledger.new");
    fs::create_dir(&beside).unwrap();
    let (mut store, runs, found) = Store::open(Some(&place.run()), None);
    assert_eq!(found.restored.instances, whole.instances);
    assert!(store.trouble().is_some() && store.again().is_some());
    let web = id("web@1");
    let mut state = whole.instances[&web].clone();
    state.restarts = 40;
    store.save([(&web, Some(state.clone()))]);
    let record = RunRecord { run: Run(9), ..whole.records[&(web.clone(), Run(5))].clone() };
    runs.record(&record).unwrap_err();
    assert!(!place.run().join("ledger").exists());
    assert!(place.run().join("web@0.state").exists());
    fs::remove_dir(&beside).unwrap();
    assert_eq!(store.retry().into_iter().collect::<Vec<_>>(), std::slice::from_ref(&web));
    store.save([(&web, Some(state.clone()))]);
    assert_eq!(store.trouble(), None);
    let (seen, remarks) = place.open();
    assert_eq!(remarks, [""; 0]);
    let mut expected = whole;
    expected.instances.insert(web.clone(), state);
    expected.records.remove(&(web.clone(), Run(5)));
    expected.records.insert((web, Run(9)), record);
    assert_eq!(seen, expected);
    assert_eq!(place.names(), ["boot", "ledger"]);
}

/// Whoever is killed while it takes over what was in a file for each has it still there.
#[test]
fn what_was_there_before_the_ledger_is_taken_over_whole_or_not_at_all() {
    if !crate::killed::can_trace() {
        return;
    }
    let place = Place::new(1);
    let whole = place.open().0;
    let dir = tempfile::tempdir().unwrap();
    let (log, run) = (dir.path().join("log"), place.run());
    let test = "ledger::opens";
    place.mend();
    assert!(traced(test, (PLACE, &run), CALLS, &log, &[]));
    let calls = touching(&log, &run);
    let is_of = |name: &str| calls.iter().any(|(call, _)| call.starts_with(name));
    assert!(is_of("rename") && is_of("unlink"), "{calls:?}");
    for (call, ordinal) in calls {
        place.mend();
        let inject = format!("inject={call}:signal=SIGKILL:when={ordinal}");
        assert!(!traced(test, (PLACE, &run), CALLS, &log, &["-e", &inject]), "{inject}");
        assert_eq!(place.open(), (whole.clone(), vec![]), "{inject}");
        assert_eq!(place.names(), ["boot", "ledger"], "{inject}");
    }
}

/// The test that is killed. Run as itself it does nothing.
#[test]
fn opens() {
    let Some(run) = std::env::var_os(PLACE) else { return };
    drop(Store::open(Some(Path::new(&run)), None));
}
