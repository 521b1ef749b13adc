//! What outlives the daemon.
//!
//! | part | owns |
//! |---|---|
//! | [`file`](self::file) | one small file: written whole, and known to be whole when it is read |
//! | [`ledger`] | one file of what changes all the time: states and records of runs |
//! | [`former`] | where those were before |
//! | [`lock`](self::lock) | there is one daemon in one place |
//! | [`boot`] | which boot, and which container, what was kept is of |
//! | [`told`] | what came of runs, until that is told |
//! | [`runs`] | by what the processes of a run are found again; the backend writes it |
//! | [`stops`] | which instances operators stopped, over a reboot |
//! | [`generations`] | every configuration that was accepted, over a reboot |
//! | [`checkpoint`] | what is undone unless somebody confirms it, over a reboot |
//!
//! There are two places. The *runtime directory* has what ends with the boot: the ledger, to which the
//! driver adds the state of each instance that changed, before it carries out what the machine decided,
//! and the backend the record of each run, before the process may become the command. It is not
//! fsynced: who is killed leaves the page cache, and a crash of the machine ends the runs as well.
//! The *state directory* has what operators wanted and every configuration, fsynced.
//!
//! A file that is damaged, or of a newer version, is set aside and named; nothing in it is believed,
//! but for what the ledger says after the damage. Whatever runs without a state that tells what it is,
//! is ended before anything is started: it is known to be ours by its mark or control group, and would
//! be doubled otherwise.
//!
//! Where there is no room, supervising goes on from memory: what could not be written is written
//! later, and the token in the marks, which is that of the directory, still finds what runs. Where
//! there is no directory either, nothing is found again.

pub mod boot;
pub mod checkpoint;
pub mod file;
mod former;
pub mod generations;
mod ledger;
pub mod lock;
pub mod runs;
pub mod stops;
pub mod told;

use self::boot::Boot;
use self::file::ReadError;
use self::ledger::{Batch, Ledger, Subject, Unused};
use self::runs::{RunRecord, Runs};
use self::stops::Stops;
use self::told::{Told, Untold};
use crate::core::ids::{Generation, InstanceId};
use crate::core::snapshot::{InstanceSnapshot, Restored};
use crate::core::spec::Settings;
use crate::core::trial::TrialSnapshot;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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

impl State<InstanceId, InstanceSnapshot> {
    fn is_of(&self, id: &InstanceId) -> bool {
        self.instance == *id && self.state.spec.id == id.process
    }
}

/// All that was kept.
#[derive(Default)]
struct Content {
    whole: Option<Whole>,
    states: BTreeMap<InstanceId, InstanceSnapshot>,
    runs: Vec<RunRecord>,
    outcomes: BTreeMap<u64, Untold>,
}

impl Content {
    /// Takes in what an entry says.
    fn take(&mut self, of: &Subject, body: &[u8]) -> Result<(), ReadError> {
        match of {
            Subject::Whole => self.whole = Some(file::json(body)?),
            Subject::State(id) => {
                let read: State<InstanceId, InstanceSnapshot> = file::json(body)?;
                if !read.is_of(id) {
                    return Err(of_another());
                }
                self.states.insert(id.clone(), read.state);
            }
            Subject::Run(id, slot) => {
                let read: RunRecord = file::json(body)?;
                if !read.is_of(id, *slot) {
                    return Err(of_another());
                }
                self.runs.push(read);
            }
            Subject::Outcome(number) => {
                self.outcomes.insert(*number, file::json(body)?);
            }
            Subject::Gone(_) => {}
        }
        Ok(())
    }

    /// The same, to be added to a ledger.
    fn put(&self, batch: &mut Batch) {
        if let Some(whole) = &self.whole {
            batch.add(Subject::Whole, whole);
        }
        for (id, state) in &self.states {
            batch.add(Subject::State(id.clone()), &State { instance: id, state });
        }
        for record in &self.runs {
            batch.add(Subject::Run(record.instance.clone(), record.slot), record);
        }
    }
}

fn of_another() -> ReadError {
    file::damaged("it is of another instance")
}

/// Writes states, and knows which could not be written.
pub struct Store {
    /// None: there is no place, and nothing is kept.
    place: Option<Kept>,
    /// Where states are put together.
    batch: Batch,
    whole: Option<Whole>,
    unwritten: BTreeSet<InstanceId>,
    trouble: Option<String>,
    again: Option<Instant>,
    /// Of which what is there is to be known, where that is not written yet.
    boot: Option<Boot>,
    runs: Runs,
    stops: Stops,
    told: Arc<Told>,
    last_outcome: u64,
    /// Outcomes that are not written yet, with their numbers.
    outcomes: VecDeque<(u64, Untold)>,
}

/// Where states are.
struct Kept {
    directory: PathBuf,
    ledger: Arc<Mutex<Ledger>>,
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
    /// What it has not told, by its numbers.
    pub untold: Vec<(u64, Untold)>,
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
        found.is_same_boot = same;
        if let Some(directory) = directory.as_deref().filter(|_| !same) {
            // First: what is there would be believed to be of this boot.
            clear(directory);
        }
        let mut content = Content::default();
        let mut unkept = None;
        let ledger = directory.as_deref().map(|directory| match same {
            true => read(directory, &mut content, &mut found.remarks, &mut unkept),
            // What could not be removed is replaced.
            false => Ledger::new(directory.join(ledger::NAME)),
        });
        let Content { whole, states, runs, outcomes } = content;
        let told = Arc::new(Told::open(directory.as_deref()));
        let last_outcome = outcomes.keys().last().copied().unwrap_or_default().max(told.number());
        found.untold = untold(outcomes, &told, &states);
        let ledger = ledger.map(|ledger| Arc::new(Mutex::new(ledger)));
        let runs = Runs::new(ledger.clone(), boot.token, runs);
        let stops = Stops::open(state, &boot, &mut found.remarks);
        found.restored.stopped = stops.found();
        if let Some(whole) = &whole {
            found.restored.generation = whole.generation;
            found.restored.settings = whole.settings.clone();
            found.missing = whole.missing.clone();
            found.trial = whole.trial.as_deref().cloned();
        } else {
            // After a rollback what is still going is of a later one than what is active.
            let known = states.values().map(InstanceSnapshot::file_generation);
            found.restored.generation = known.max().unwrap_or_default();
        }
        found.restored.instances = states;
        let place = directory.zip(ledger).map(|(directory, ledger)| Kept { directory, ledger });
        let mut store = Store {
            place,
            batch: Batch::default(),
            whole,
            unwritten: BTreeSet::new(),
            trouble: None,
            again: None,
            runs: runs.clone(),
            stops,
            told,
            last_outcome,
            outcomes: VecDeque::new(),
            boot: (!same).then_some(boot),
        };
        store.save_boot();
        if let Some(error) = unkept {
            store.fail(&error);
        }
        (store, runs, found)
    }

    /// Keeps the states of instances, all that is known of them; None: there is no such instance any
    /// more.
    pub fn save<'a>(
        &mut self,
        states: impl IntoIterator<Item = (&'a InstanceId, Option<InstanceSnapshot>)>,
    ) {
        /// It is written when there is so much of it.
        const ENOUGH: usize = 64 * 1024;
        let auto_start = self.whole.as_ref().is_none_or(|whole| whole.settings.auto_start);
        // First: whoever finds the state must find what it came from.
        let told = self.told.number();
        for (number, untold) in self.outcomes.iter().filter(|(number, _)| *number > told) {
            self.batch.add(Subject::Outcome(*number), untold);
        }
        // What comes after what cannot be written is not tried.
        let mut is_full = false;
        for (id, state) in states {
            self.stops.note(id, state.as_ref(), auto_start);
            let Some(Kept { ledger, .. }) = &self.place else { continue };
            if state.is_none() {
                self.runs.forget(id);
            }
            if is_full {
                self.unwritten.insert(id.clone());
                continue;
            }
            self.unwritten.remove(id);
            match &state {
                None => self.batch.add(Subject::Gone(id.clone()), &()),
                Some(state) => {
                    let state = State { instance: id, state };
                    self.batch.add(Subject::State(id.clone()), &state);
                }
            }
            self.batch.drop_known(&guard(ledger));
            if self.batch.len() >= ENOUGH {
                is_full = !self.write();
            }
        }
        self.write();
    }

    /// Keeps what came of a run until it is told, and gives its number. It is written together with the
    /// states that are saved next.
    pub fn keep_outcome(&mut self, untold: Untold) -> u64 {
        self.last_outcome += 1;
        if self.place.is_some() {
            self.outcomes.push_back((self.last_outcome, untold));
        }
        while self.outcomes.len() as u64 > told::MOST {
            self.outcomes.pop_front();
        }
        self.last_outcome
    }

    /// Where is kept what was told.
    #[must_use]
    pub fn told(&self) -> &Arc<Told> {
        &self.told
    }

    /// Writes what was put together; whether that could be written.
    fn write(&mut self) -> bool {
        let Some(Kept { ledger, .. }) = &self.place else { return true };
        let mut ledger = guard(ledger);
        let forgotten = self.last_outcome.saturating_sub(told::MOST);
        ledger.forget_outcomes(self.told.number().max(forgotten));
        let mut written = ledger.append(&self.batch);
        let mut unwritten = None;
        if written.is_err() && self.batch.drop_outcomes() {
            // States are less and matter more; the outcomes are written later.
            unwritten = std::mem::replace(&mut written, ledger.append(&self.batch)).err();
        } else if written.is_ok() && self.batch.has_outcomes() {
            self.outcomes.clear();
        }
        drop(ledger);
        if let Err(error) = &written {
            self.unwritten.extend(self.batch.instances().cloned());
            self.fail(error);
        } else if let Some(error) = unwritten {
            self.fail(&error);
        }
        self.batch.clear();
        written.is_ok()
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
        let Some(Kept { ledger, .. }) = self.place.as_ref().filter(|_| is_new) else { return };
        let (settings, missing, trial) = (settings.clone(), missing.clone(), trial.cloned());
        let whole = Whole { generation, settings, missing, trial };
        self.batch.add(Subject::Whole, &whole);
        let written = guard(ledger).append(&self.batch);
        self.batch.clear();
        match written {
            Ok(()) => self.whole = Some(whole),
            Err(error) => self.fail(&error),
        }
    }

    fn save_boot(&mut self) {
        let (Some(Kept { directory, .. }), Some(boot)) = (&self.place, &self.boot) else { return };
        match boot.write(directory) {
            Ok(()) => self.boot = None,
            Err(error) => self.fail(&error),
        }
    }

    /// Forgets everything but what operators stopped: the next daemon begins anew.
    pub fn clear(&mut self) {
        if let Some(Kept { directory, ledger }) = &self.place {
            self.told.end();
            guard(ledger).clear();
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
        self.place.is_some()
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
        // What the file is to begin with, where that could not be written.
        self.write();
        self.runs.retry();
        std::mem::take(&mut self.unwritten)
    }
}

/// Reads all that is known of the daemon before. What cannot be kept in the ledger yet says why.
fn read(
    directory: &Path,
    content: &mut Content,
    remarks: &mut Vec<String>,
    unkept: &mut Option<io::Error>,
) -> Ledger {
    let path = directory.join(ledger::NAME);
    let (mut ledger, bytes, unused) = Ledger::open(path.clone());
    let mut unused: Vec<Unused> = unused.into_iter().collect();
    for (of, body) in ledger.said(&bytes) {
        if let Err(why) = content.take(&of, body) {
            ledger.disbelieve(&of);
            unused.push(Unused { part: format!(" for the {} of {of}", of.kind().as_str()), why });
        }
    }
    if !unused.is_empty() {
        let what = told(ledger.set_aside());
        let name = path.display();
        for Unused { part, why } in unused {
            remarks.push(format!("{name} is not used{part}: {why}; {what}"));
        }
    } else if bytes.is_empty() {
        *content = former::read(directory, remarks);
        let mut batch = Batch::default();
        content.put(&mut batch);
        *unkept = ledger.begin_with(batch).err();
    }
    if unkept.is_none() {
        former::remove(directory);
    }
    ledger
}

/// What is to be told of all outcomes that are kept. Of one that was found a second time the first
/// counts: somebody saw it.
fn untold(
    mut outcomes: BTreeMap<u64, Untold>,
    told: &Told,
    states: &BTreeMap<InstanceId, InstanceSnapshot>,
) -> Vec<(u64, Untold)> {
    let last = outcomes.keys().last().copied().unwrap_or_default();
    let first = told.number().max(last.saturating_sub(told::MOST)) + 1;
    let mut outcomes = outcomes.split_off(&first);
    let mut known = HashSet::new();
    outcomes.retain(|number, Untold { instance, run, outcome, .. }| {
        let kind = std::mem::discriminant(outcome);
        let is_first = run.is_none() || known.insert((instance.clone(), *run, kind));
        if !is_first {
            told.pass(*number);
        }
        is_first
    });
    outcomes.retain(|_, untold| {
        let mut runs = states.get(&untold.instance).into_iter().flat_map(InstanceSnapshot::runs);
        !runs.any(|run| untold.is_to_come(run))
    });
    outcomes.into_iter().collect()
}

/// What became of a file that is not used.
fn told(aside: io::Result<PathBuf>) -> String {
    match aside {
        Ok(new) => format!("set aside as {}", new.display()),
        Err(error) => format!("it cannot be set aside: {error}"),
    }
}

/// Sets a file aside, and says so.
fn put_aside(path: &Path, error: &ReadError) -> String {
    let what = told(file::set_aside(path));
    format!("{} is not used: {error}; {what}", path.display())
}

/// Removes what is of another boot.
fn clear(directory: &Path) {
    let _ = file::remove(&directory.join(ledger::NAME));
    told::remove(directory);
    former::remove(directory);
}

/// What is done under it is done whole, or panics nowhere.
fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
