//! What is kept for the next daemon, and what becomes of it when it is damaged.
//!
//! `golden/vN` has one of each file as version N wrote them, taken from a daemon that was killed.
//! They are never changed. Whoever raises [`provost::store::VERSION`] adds `golden/v(N+1)`: runs the
//! new daemon with a file like the one in `golden/v1/processes.yaml`, stops `off`, kills the daemon,
//! and copies the three files; then adds a case to `golden_files_mean_what_they_meant`. The older
//! directories stay, and have to pass as they are. In `v1` the ledger says what was in a file for each
//! before there was one, and those are still read. Of generations there are three, each with a state,
//! a cause and steps of its own, written through [`provost::store::generations`].
#![allow(missing_docs, clippy::unwrap_used)]

mod checkpoint;
#[allow(dead_code)]
#[path = "../common/ledger.rs"]
mod common_ledger;
mod damage;
mod generations;
mod killed;
mod ledger;
#[path = "../daemon/namespace.rs"]
mod namespace;
mod outcomes;

use provost::core::event::{ExitStatus, RunEnd};
use provost::core::ids::{Generation, InstanceId, Run};
use provost::core::snapshot::{InstanceSnapshot, PhaseSnapshot};
use provost::core::spec::{Settings, Signal};
use provost::core::time::Mono;
use provost::store::boot::Boot;
use provost::store::file::{Kind, decode, encode, read};
use provost::store::runs::RunRecord;
use provost::store::{Found, Store};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn golden(version: u32) -> PathBuf {
    let path = format!("{}/tests/store/golden/v{version}", env!("CARGO_MANIFEST_DIR"));
    PathBuf::from(path)
}

fn id(text: &str) -> InstanceId {
    InstanceId::parse(text).unwrap()
}

/// The two directories of a daemon, with one of each file in them; of `web` there are two instances.
struct Place {
    dir: TempDir,
    files: BTreeMap<PathBuf, Vec<u8>>,
}

/// All that is told of them.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    token: u32,
    generation: Generation,
    settings: Settings,
    instances: BTreeMap<InstanceId, InstanceSnapshot>,
    records: BTreeMap<(InstanceId, Run), RunRecord>,
    stopped: BTreeSet<InstanceId>,
}

impl Place {
    /// Files of this version of the format, as if they were of this boot.
    fn new(version: u32) -> Place {
        let dir = tempfile::tempdir().unwrap();
        let (run, state) = (dir.path().join("run"), dir.path().join("state"));
        // Writes the present boot.
        drop(Store::open(Some(&run), Some(&state)));
        let golden = golden(version);
        for name in ["whole", "web@0.state", "web@0.run"] {
            fs::copy(golden.join(name), run.join(name)).unwrap();
        }
        fs::copy(golden.join("stopped"), state.join("stopped")).unwrap();
        let mut other: Value = read(&run.join("web@0.state"), Kind::State).unwrap();
        other["instance"]["index"] = 1.into();
        fs::write(run.join("web@1.state"), text(Kind::State, &other)).unwrap();
        let mut other: Value = read(&run.join("web@0.run"), Kind::Run).unwrap();
        other["instance"]["index"] = 1.into();
        fs::write(run.join("web@1.run"), text(Kind::Run, &other)).unwrap();
        let mut files = BTreeMap::new();
        for directory in [run, state] {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                let content = fs::read(&path).unwrap();
                files.insert(path, content);
            }
        }
        Place { dir, files }
    }

    fn run(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// What is in the runtime directory.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.run()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    /// All as it was at first.
    fn mend(&self) {
        for directory in [self.run(), self.state()] {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                match fs::symlink_metadata(&path).unwrap().is_dir() {
                    true => fs::remove_dir_all(path).unwrap(),
                    false => fs::remove_file(path).unwrap(),
                }
            }
        }
        for (path, content) in &self.files {
            fs::write(path, content).unwrap();
        }
    }

    fn open(&self) -> (Seen, Vec<String>) {
        open(Some(&self.run()), Some(&self.state()))
    }

    /// What is told without this file.
    fn without(&self, name: &str, whole: &Seen) -> Seen {
        let mut seen = whole.clone();
        match name {
            "boot" => {
                seen.generation = Generation::default();
                seen.settings = Settings::default();
                seen.instances.clear();
                seen.records.clear();
            }
            "whole" => seen.settings = Settings::default(),
            "stopped" => seen.stopped.clear(),
            name => match name.split_once('.').unwrap() {
                (instance, "state") => drop(seen.instances.remove(&id(instance))),
                (instance, _) => seen.records.retain(|(of, _), _| *of != id(instance)),
            },
        }
        seen
    }
}

fn open(run: Option<&Path>, state: Option<&Path>) -> (Seen, Vec<String>) {
    let (store, runs, found) = Store::open(run, state);
    assert_eq!(store.trouble(), None);
    let (records, remarks) = (runs.take_found(), found.remarks);
    let restored = found.restored;
    let seen = Seen {
        token: runs.token(),
        generation: restored.generation,
        settings: restored.settings,
        instances: restored.instances,
        records,
        stopped: restored.stopped.instances,
    };
    (seen, remarks)
}

/// A file with this content.
fn text<T: serde::Serialize>(kind: Kind, value: &T) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    provost::store::file::write(&path, &encode(kind, value)).unwrap();
    fs::read(path).unwrap()
}

#[test]
fn what_is_whole_is_told() {
    let place = Place::new(1);
    let (seen, remarks) = place.open();
    assert_eq!(remarks, [""; 0]);
    assert_eq!(seen.instances.keys().cloned().collect::<Vec<_>>(), [id("web@0"), id("web@1")]);
    assert_eq!(seen.records.len(), 2);
    assert!(seen.stopped.contains(&id("off@0")));
}

#[test]
fn where_there_is_nothing_nothing_is_told_and_nothing_said() {
    let dir = tempfile::tempdir().unwrap();
    let (run, state) = (dir.path().join("run"), dir.path().join("state"));
    for (run, state) in [(None, None), (Some(&*run), Some(&*state)), (Some(&run), Some(&state))] {
        let (seen, remarks) = open(run, state);
        assert_eq!(remarks, [""; 0]);
        assert!(seen.instances.is_empty() && seen.records.is_empty() && seen.stopped.is_empty());
    }
}

#[test]
fn golden_files_mean_what_they_meant() {
    let boot: Boot = decode(&fs::read(golden(1).join("boot")).unwrap(), Kind::Boot).unwrap();
    assert_eq!(boot.id, "00000000-0000-4000-8000-000000000001");
    assert_eq!((boot.namespace, boot.first, boot.token), (4_026_531_836, 3, 0x5eed_cafe));

    let place = Place::new(1);
    means_what_it_meant(place.open());
    // From now on it is the ledger that tells it.
    assert_eq!(place.names(), ["boot", "ledger"]);
    means_what_it_meant(place.open());
    fs::copy(golden(1).join("ledger"), place.run().join("ledger")).unwrap();
    means_what_it_meant(place.open());
}

fn means_what_it_meant((seen, remarks): (Seen, Vec<String>)) {
    assert_eq!(remarks, [""; 0]);
    assert_eq!(seen.generation, Generation(1));
    assert_eq!(seen.settings, Settings::default());
    assert_eq!(seen.stopped, BTreeSet::from([id("off@0")]));
    let record = &seen.records[&(id("web@0"), Run(5))];
    assert_eq!((record.pid, record.start), (4711, 123_456));
    assert_eq!((record.mark, &record.group), (Some(0x5eed_cafe_0000_0005), &None));

    let web = &seen.instances[&id("web@0")];
    assert_eq!((web.generation, web.restarts, web.attempt), (Generation(1), 1, 1));
    assert!(web.wanted && !web.once && !web.removed && web.restart_due.is_none());
    assert!(web.next.is_none());
    assert_eq!(web.last_exit, Some(ExitStatus::Code(1)));
    assert_eq!(web.last_end, Some(RunEnd::Exited(ExitStatus::Code(1))));
    let spec = &web.spec;
    assert_eq!(spec.stop.signal, Signal(2));
    assert_eq!(spec.stop.timeout, std::time::Duration::from_millis(1500));
    assert_eq!((spec.instances, spec.exec.umask, spec.exec.nice), (2, Some(0o27), Some(3)));
    assert_eq!(spec.exec.max_files, Some(512));
    assert!(spec.health.is_some() && spec.exec.pid_file.is_some() && spec.exec.log_file.is_some());
    assert_eq!(spec.depends_on.len(), 1);
    assert!(spec.exec.env.contains_key("GREETING"));
    let PhaseSnapshot::Up(run) = &web.phase else { panic!("{:?}", web.phase) };
    assert_eq!((run.run, run.generation, run.pid), (Run(5), Generation(1), Some(4711)));
    assert_eq!((run.asked, run.started), (Mono(1_000_000_000), Some(Mono(1_100_000_000))));
    assert_eq!((run.ready, run.exit), (Some(Mono(1_200_000_000)), None));
}

/// A field that is renamed or lost would be the end of everything that runs.
#[test]
fn golden_files_are_written_as_they_were() {
    let place = Place::new(1);
    for path in [place.run().join("web@1.state"), place.run().join("web@1.run")] {
        fs::remove_file(path).unwrap();
    }
    place.open();
    let written = || fs::read_to_string(place.run().join("ledger")).unwrap();
    let kept = fs::read_to_string(golden(1).join("ledger")).unwrap();
    assert_eq!(written(), kept);
    // The same again, in the order in which a daemon does it.
    let (_, runs, found) = Store::open(Some(&place.run()), None);
    let records = runs.take_found();
    fs::remove_file(place.run().join("ledger")).unwrap();
    let (mut store, runs, _) = Store::open(Some(&place.run()), None);
    let Found { restored, missing, .. } = found;
    store.save_whole(restored.generation, &restored.settings, &missing, None);
    let web = &restored.instances[&id("web@0")];
    store.save([(&id("web@0"), Some(web.clone()))]);
    runs.record(&records[&(id("web@0"), Run(5))]).unwrap();
    assert_eq!(written(), kept);
    // What is said already is not said again.
    store.save([(&id("web@0"), Some(web.clone()))]);
    assert_eq!(written(), kept);
}

/// After a rollback what was tried may be going still.
#[test]
fn what_is_going_does_not_tell_which_generation_is_active() {
    let place = Place::new(1);
    let (mut store, _, found) = Store::open(Some(&place.run()), None);
    let mut going = found.restored.instances[&id("web@0")].clone();
    (going.generation, going.removed) = (Generation(9), true);
    store.save([(&id("web@0"), Some(going))]);
    assert_eq!(place.open().0.generation, found.restored.generation);
    // Where nothing else tells it, it is the newest that is known.
    common_ledger::unsay(&place.run().join("ledger"), "whole", "all");
    assert_eq!(place.open().0.generation, Generation(9));
}

#[test]
fn an_instance_that_is_gone_leaves_nothing() {
    let place = Place::new(1);
    let (mut store, runs, found) = Store::open(Some(&place.run()), None);
    let gone = id("web@0");
    let record = runs.take_found()[&(gone.clone(), Run(5))].clone();
    let whole = place.open().0;
    // Nobody can write where a directory is: it waits to be written again.
    let (path, elsewhere) = (place.run().join("ledger"), place.dir.path().join("elsewhere"));
    fs::rename(&path, &elsewhere).unwrap();
    fs::create_dir(&path).unwrap();
    runs.record(&record).unwrap_err();
    store.save([(&gone, None)]);
    assert!(store.trouble().is_some() && store.again().is_some());
    fs::remove_dir(&path).unwrap();
    fs::rename(&elsewhere, &path).unwrap();
    assert_eq!(place.open().0, whole);
    assert_eq!(store.retry(), BTreeSet::from([gone.clone()]));
    assert_eq!(place.open().0, whole, "what is of nobody was written");
    store.save([(&gone, None)]);
    let left = |what: &str| {
        let (left, _) = place.open();
        assert_eq!(left.instances.keys().collect::<Vec<_>>(), [&id("web@1")], "{what}");
        let of_left: Vec<_> = left.records.keys().cloned().collect();
        assert_eq!(of_left, [(id("web@1"), Run(5))], "{what}");
    };
    assert!(store.trouble().is_none());
    left("gone");
    // And when it was there again.
    runs.record(&record).unwrap();
    store.save([(&gone, found.restored.instances.get(&gone).cloned())]);
    assert_eq!(place.open().0, whole);
    store.save([(&gone, None)]);
    left("gone again");
}
