//! What outlives the daemon.
//!
//! | part | owns |
//! |---|---|
//! | [`file`](self::file) | one small file: written whole, and known to be whole when it is read |
//! | [`lock`](self::lock) | there is one daemon in one place |
//! | [`boot`] | which boot, and which container, what was kept is of |
//! | [`runs`] | by what the processes of a run are found again; the backend writes it |
//! | [`stops`] | which instances operators stopped, over a reboot |
//! | [`generations`] | every configuration that was accepted, over a reboot |
//! | [`checkpoint`] | what is undone unless somebody confirms it, over a reboot |
//!
//! There are two places. The *runtime directory* has what ends with the boot: one file for the state
//! of each instance, written by the driver before it carries out what the machine decided, and one
//! for its run, written by the backend before the process may become the command. They are not
//! fsynced: who is killed leaves the page cache, and a crash of the machine ends the runs as well.
//! The *state directory* has what operators wanted and every configuration, fsynced.
//!
//! A file that is damaged, or of a newer version, is set aside and named; nothing in it is believed.
//! Whatever runs without a state that tells what it is, is ended before anything is started: it is
//! known to be ours by its mark or control group, and would be doubled otherwise.
//!
//! Where there is no room, supervising goes on from memory: what could not be written is written
//! later, and the token in the marks, which is that of the directory, still finds what runs. Where
//! there is no directory either, nothing is found again.

pub mod boot;
pub mod checkpoint;
pub mod file;
pub mod generations;
pub mod lock;
pub mod runs;
pub mod stops;

use self::boot::Boot;
use self::file::{Kind, ReadError};
use self::runs::Runs;
use self::stops::Stops;
use crate::core::ids::{Generation, InstanceId};
use crate::core::snapshot::{InstanceSnapshot, Restored};
use crate::core::spec::Settings;
use crate::core::trial::TrialSnapshot;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The version of what is in the files. A change of a field raises it, and adds a case to the
/// reading of the older ones and a file to `tests/store/golden`. One that is new, and may be absent,
/// need not.
pub const VERSION: u32 = 1;

/// What could not be written is tried again after so long.
const AGAIN: Duration = Duration::from_secs(5);

/// What is known of the whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Whole {
    generation: Generation,
    settings: Settings,
    #[serde(default, skip_serializing_if = "Missing::is_nothing")]
    missing: Missing,
    /// What is on trial.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trial: Option<Arc<TrialSnapshot>>,
}

/// Which files of what is active were missing, and where others were: whether one is gone by now is
/// judged by that.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// The main file.
    pub main: bool,
    /// The file with the processes.
    pub processes: bool,
    /// The drop-in directory, where files were read from it. As text: what is no UTF-8 in it is
    /// replaced.
    pub drop_ins: Option<String>,
}

impl Missing {
    fn is_nothing(&self) -> bool {
        *self == Missing::default()
    }
}

/// The state of an instance, and whose it is.
#[derive(Serialize, Deserialize)]
struct State<I, S> {
    instance: I,
    state: S,
}

/// Writes states, and knows which could not be written.
pub struct Store {
    /// None: there is no place, and nothing is kept.
    directory: Option<PathBuf>,
    written: BTreeMap<InstanceId, [u8; 32]>,
    /// Where states are put together.
    room: Vec<u8>,
    whole: Option<Whole>,
    unwritten: BTreeSet<InstanceId>,
    trouble: Option<String>,
    again: Option<Instant>,
    /// Of which what is there is to be known, where that is not written yet.
    boot: Option<Boot>,
    runs: Runs,
    stops: Stops,
}

/// What was found of a daemon that ran before.
#[derive(Debug, Default)]
pub struct Found {
    /// For the machine, as far as the files tell; what is there is the backend's to say.
    pub restored: Restored,
    /// What was not there of the files that are active.
    pub missing: Missing,
    /// What was on trial.
    pub trial: Option<TrialSnapshot>,
    /// Whether that daemon ran in the same boot.
    pub is_same_boot: bool,
    /// For people: what was set aside, what is not kept.
    pub remarks: Vec<String>,
}

impl Store {
    /// Opens the two places, makes them where they are missing, and reads what is there.
    ///
    /// `runtime` is this daemon's alone, and nobody else is running with it.
    #[must_use]
    pub fn open(runtime: Option<&Path>, state: Option<&Path>) -> (Store, Runs, Found) {
        let mut found = Found::default();
        let directory = runtime.and_then(|path| {
            private_directory(path)
                .inspect_err(|error| {
                    found.remarks.push(format!(
                        "nothing is kept for a daemon that is killed: {}: {error}",
                        path.display()
                    ));
                })
                .ok()?;
            Some(path.to_owned())
        });
        let (boot, same) = Boot::of(directory.as_deref(), &mut found.remarks);
        let runs = Runs::new(directory.clone(), boot.token);
        let mut store = Store {
            directory: directory.clone(),
            written: BTreeMap::new(),
            room: Vec::new(),
            whole: None,
            unwritten: BTreeSet::new(),
            trouble: None,
            again: None,
            runs: runs.clone(),
            stops: Stops::open(state, &boot, &mut found.remarks),
            boot: None,
        };
        found.is_same_boot = same;
        found.restored.stopped = store.stops.found();
        if let Some(directory) = &directory {
            if same {
                store.read(directory, &mut found);
            } else {
                // First: what is there would be believed to be of this boot.
                clear(directory);
                store.boot = Some(boot);
                store.save_boot();
            }
        }
        (store, runs, found)
    }

    fn read(&mut self, directory: &Path, found: &mut Found) {
        let mut set_aside =
            |path: &Path, error: &ReadError| found.remarks.push(put_aside(path, error));
        let whole = directory.join("whole");
        match file::read::<Whole>(&whole, Kind::Whole) {
            Ok(read) => {
                found.restored.generation = read.generation;
                found.restored.settings = read.settings.clone();
                found.missing = read.missing.clone();
                found.trial = read.trial.as_deref().cloned();
                self.whole = Some(read);
            }
            Err(ReadError::Missing) => {}
            Err(error) => set_aside(&whole, &error),
        }
        for (id, path) in named(directory, STATE) {
            match file::read::<State<InstanceId, InstanceSnapshot>>(&path, Kind::State) {
                Ok(read) if read.instance == id && read.state.spec.id == id.process => {
                    found.restored.instances.insert(id, read.state);
                }
                Ok(_) => set_aside(&path, &ReadError::Damaged("it is of another instance".into())),
                Err(ReadError::Missing) => {}
                Err(error) => set_aside(&path, &error),
            }
        }
        // After a rollback what is still going is of a later one than what is active.
        if self.whole.is_none() {
            let known = found.restored.instances.values().map(InstanceSnapshot::file_generation);
            found.restored.generation = known.max().unwrap_or_default();
        }
    }

    /// Keeps the state of one instance; None: there is no such instance any more.
    pub fn save(&mut self, id: &InstanceId, snapshot: Option<&InstanceSnapshot>) {
        let auto_start = self.whole.as_ref().is_none_or(|whole| whole.settings.auto_start);
        self.stops.note(id, snapshot, auto_start);
        let Some(directory) = &self.directory else { return };
        let path = directory.join(format!("{id}{STATE}"));
        let result = match snapshot {
            None => {
                self.written.remove(id);
                // The run went before its instance. Both are tried, whatever becomes of the first.
                let forgotten = self.runs.forget(id);
                file::remove(&path).and(forgotten)
            }
            Some(snapshot) => {
                let state = State { instance: id, state: snapshot };
                let text = file::encode_in(std::mem::take(&mut self.room), Kind::State, &state);
                let old = self.written.get_mut(id);
                if old.as_ref().is_some_and(|old| **old == text.digest) {
                    self.room = text.into_room();
                    return;
                }
                let written = file::write(&path, &text);
                match (&written, old) {
                    (Ok(()), Some(old)) => *old = text.digest,
                    (Ok(()), None) => drop(self.written.insert(id.clone(), text.digest)),
                    (Err(_), _) => {}
                }
                self.room = text.into_room();
                written
            }
        };
        match result {
            Ok(()) => {
                self.unwritten.remove(id);
            }
            Err(error) => {
                self.unwritten.insert(id.clone());
                self.fail(&error);
            }
        }
    }

    /// Keeps what is known of the whole.
    pub fn save_whole(
        &mut self,
        generation: Generation,
        settings: &Settings,
        missing: &Missing,
        trial: Option<&Arc<TrialSnapshot>>,
    ) {
        let is_new = self.whole.as_ref().is_none_or(|whole| {
            let is_same = match (&whole.trial, trial) {
                (Some(old), Some(new)) => Arc::ptr_eq(old, new),
                (old, new) => old.is_none() && new.is_none(),
            };
            whole.generation != generation
                || whole.settings != *settings
                || whole.missing != *missing
                || !is_same
        });
        let Some(directory) = self.directory.as_ref().filter(|_| is_new) else { return };
        let (settings, missing, trial) = (settings.clone(), missing.clone(), trial.cloned());
        let whole = Whole { generation, settings, missing, trial };
        match file::write(&directory.join("whole"), &file::encode(Kind::Whole, &whole)) {
            Ok(()) => self.whole = Some(whole),
            Err(error) => self.fail(&error),
        }
    }

    fn save_boot(&mut self) {
        let (Some(directory), Some(boot)) = (&self.directory, &self.boot) else { return };
        match boot.write(directory) {
            Ok(()) => self.boot = None,
            Err(error) => self.fail(&error),
        }
    }

    /// Forgets everything but what operators stopped: the next daemon begins anew.
    pub fn clear(&mut self) {
        if let Some(directory) = &self.directory {
            clear(directory);
        }
    }

    /// Hands on what operators wanted to whoever writes it to the disk.
    pub fn flush_stops(&mut self) {
        self.stops.flush();
    }

    fn fail(&mut self, error: &io::Error) {
        self.trouble.get_or_insert_with(|| error.to_string());
        self.again = Some(Instant::now() + AGAIN);
    }

    /// Whether there is a place for what the next daemon needs.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.directory.is_some()
    }

    /// Why something could not be kept; None when all is.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.trouble.clone().or_else(|| self.runs.unwritten().map(|(why, _)| why))
    }

    /// When what could not be kept is to be tried again.
    #[must_use]
    pub fn again(&self) -> Option<Instant> {
        self.again.or_else(|| self.runs.unwritten().map(|(_, since)| since + AGAIN))
    }

    /// Writes once more what could not be written, but for the states of the instances that are
    /// returned and for the whole: those have changed since, and are to be saved as they are now.
    #[must_use]
    pub fn retry(&mut self) -> BTreeSet<InstanceId> {
        self.again = None;
        self.trouble = None;
        self.whole = None;
        self.save_boot();
        self.runs.retry();
        std::mem::take(&mut self.unwritten)
    }
}

const STATE: &str = ".state";

/// The files of instances that end like this.
fn named(directory: &Path, ending: &str) -> Vec<(InstanceId, PathBuf)> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut all: Vec<(InstanceId, PathBuf)> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name();
            let id = InstanceId::parse(name.to_str()?.strip_suffix(ending)?).ok()?;
            // `api` would be short for `api@0` and is not a name of ours.
            (format!("{id}{ending}") == name.to_str()?).then(|| (id, entry.path()))
        })
        .collect();
    all.sort();
    all
}

/// Sets a file aside, and says so.
fn put_aside(path: &Path, error: &ReadError) -> String {
    let what = match file::set_aside(path) {
        Ok(new) => format!("set aside as {}", new.display()),
        Err(error) => format!("it cannot be set aside: {error}"),
    };
    format!("{} is not used: {error}; {what}", path.display())
}

/// Removes what is of another boot.
fn clear(directory: &Path) {
    let ours = |name: &str| {
        // What is beside a file has its name between a dot and this.
        let name = name.strip_suffix(".new").unwrap_or(name);
        matches!(name, "whole" | ".whole")
            || [STATE, runs::RUN].iter().any(|ending| name.ends_with(ending))
    };
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(ours) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Makes a directory that only this user can look into: environments are in there.
fn private_directory(path: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().recursive(true).mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let found = fs::symlink_metadata(path)?;
    let own = rustix::process::geteuid().as_raw();
    if !found.is_dir() || std::os::unix::fs::MetadataExt::uid(&found) != own {
        return Err(io::Error::other("it is not a directory of this user"));
    }
    if found.permissions().mode() & 0o077 != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}
