//! By what the processes of a run are found again.
//!
//! A record is written when the process exists and before it may become the command, so there is no
//! command without one. A pid alone proves nothing: whoever has it must have been started when the
//! record says, and have the mark or be in the control group of the run.

use super::file::{self, Kind, ReadError};
use crate::core::ids::{InstanceId, Run, Slot};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

pub(super) const RUN: &str = ".run";

/// One run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Of which instance.
    pub instance: InstanceId,
    /// Its number.
    pub run: Run,
    /// Where it is: the record of a run is in the place of that of the one before in the same slot.
    #[serde(default, skip_serializing_if = "Slot::is_first")]
    pub slot: Slot,
    /// The main process.
    pub pid: u32,
    /// When that was started, in ticks since boot.
    pub start: u64,
    /// What is inherited by all that it starts; None where its control group tells.
    pub mark: Option<u64>,
    /// The name of its control group below that of all runs.
    pub group: Option<String>,
}

/// The name under which the service manager stores the pidfd of a run.
#[must_use]
pub fn stored_name(instance: &InstanceId, run: Run) -> String {
    format!("run-{instance}-{run}")
}

/// The run that a stored descriptor stands for.
#[must_use]
pub fn stored_run(name: &str) -> Option<(InstanceId, Run)> {
    let (instance, run) = name.strip_prefix("run-")?.rsplit_once('-')?;
    Some((InstanceId::parse(instance).ok()?, Run(run.parse().ok()?)))
}

/// Where records are. Clones are of the same place.
#[derive(Clone, Debug)]
pub struct Runs {
    directory: Option<PathBuf>,
    token: u32,
    unwritten: Arc<Mutex<Unwritten>>,
}

/// Records that could not be written, and why and when the last one could not.
#[derive(Debug, Default)]
struct Unwritten {
    records: BTreeMap<(InstanceId, Slot), RunRecord>,
    last: Option<(String, Instant)>,
}

impl Runs {
    /// Records in a directory; None: they are not kept.
    #[must_use]
    pub fn new(directory: Option<PathBuf>, token: u32) -> Runs {
        Runs { directory, token, unwritten: Arc::default() }
    }

    /// In the mark of everything that is started.
    #[must_use]
    pub fn token(&self) -> u32 {
        self.token
    }

    /// Writes a record, in the place of that of the run before in its slot. What cannot be written is written
    /// when there is room again.
    ///
    /// # Errors
    /// What the system says.
    pub fn record(&self, record: &RunRecord) -> io::Result<()> {
        let Some(directory) = &self.directory else { return Ok(()) };
        let written = write(directory, record);
        let key = (record.instance.clone(), record.slot);
        let mut unwritten = self.lock();
        match &written {
            Ok(()) => {
                unwritten.records.remove(&key);
            }
            Err(error) => {
                unwritten.records.insert(key, record.clone());
                unwritten.last = Some((error.to_string(), Instant::now()));
            }
        }
        written
    }

    /// Why, and when last, a record could not be written; None when all are.
    pub(super) fn unwritten(&self) -> Option<(String, Instant)> {
        let unwritten = self.lock();
        unwritten.last.clone().filter(|_| !unwritten.records.is_empty())
    }

    /// Writes what could not be written before.
    pub(super) fn retry(&self) {
        let records = std::mem::take(&mut self.lock().records);
        for record in records.into_values() {
            // It is kept for the next time.
            let _ = self.record(&record);
        }
    }

    /// There is no such instance any more.
    pub(super) fn forget(&self, instance: &InstanceId) -> io::Result<()> {
        self.lock().records.retain(|(of, _), _| of != instance);
        let Some(directory) = &self.directory else { return Ok(()) };
        // All are tried, whatever becomes of the first.
        let removed = Slot::ALL.map(|slot| file::remove(&path(directory, instance, slot)));
        removed.into_iter().collect()
    }

    /// Each change is one insertion or removal.
    fn lock(&self) -> MutexGuard<'_, Unwritten> {
        self.unwritten.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All records; what is not one is set aside, and said.
    #[must_use]
    pub fn all(&self, remarks: &mut Vec<String>) -> BTreeMap<(InstanceId, Run), RunRecord> {
        let Some(directory) = &self.directory else { return BTreeMap::new() };
        let mut all = BTreeMap::new();
        let named = Slot::ALL.map(|slot| {
            let of_slot = move |(id, path)| (id, slot, path);
            super::named(directory, ending(slot)).into_iter().map(of_slot)
        });
        for (id, slot, path) in named.into_iter().flatten() {
            match file::read::<RunRecord>(&path, Kind::Run) {
                Ok(record) if record.instance == id && record.slot == slot => {
                    all.insert((id, record.run), record);
                }
                Err(ReadError::Missing) => {}
                other => {
                    let error = match other {
                        Err(error) => error,
                        Ok(_) => ReadError::Damaged("it is of another instance".into()),
                    };
                    remarks.push(super::put_aside(&path, &error));
                }
            }
        }
        all
    }
}

fn write(directory: &Path, record: &RunRecord) -> io::Result<()> {
    let path = path(directory, &record.instance, record.slot);
    file::write(&path, &file::encode(Kind::Run, record))
}

/// How the names of records end.
fn ending(slot: Slot) -> &'static str {
    match slot {
        Slot::A => RUN,
        Slot::B => "-b.run",
    }
}

fn path(directory: &Path, instance: &InstanceId, slot: Slot) -> PathBuf {
    directory.join(format!("{instance}{}", ending(slot)))
}
