//! By what the processes of a run are found again.
//!
//! A record is written when the process exists and before it may become the command, so there is no
//! command without one. A pid alone proves nothing: whoever has it must have been started when the
//! record says, and have the mark or be in the control group of the run.

use super::guard as lock;
use super::ledger::{Batch, Ledger, Subject};
use crate::core::ids::{InstanceId, Run, Slot};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Instant;

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

impl RunRecord {
    /// Whether it is of that place.
    pub(super) fn is_of(&self, instance: &InstanceId, slot: Slot) -> bool {
        self.instance == *instance && self.slot == slot
    }
}

/// Where records are. Clones are of the same place.
#[derive(Clone)]
pub struct Runs {
    /// None: they are not kept.
    ledger: Option<Arc<Mutex<Ledger>>>,
    token: u32,
    kept: Arc<Mutex<Kept>>,
}

#[derive(Default)]
struct Kept {
    /// What was found of the daemon before.
    found: BTreeMap<(InstanceId, Run), RunRecord>,
    /// Records that could not be written, and why and when the last one could not.
    unwritten: BTreeMap<(InstanceId, Slot), RunRecord>,
    last: Option<(String, Instant)>,
    /// Where records are put together.
    batch: Batch,
}

impl Runs {
    /// Records that are not kept.
    #[must_use]
    pub fn unkept(token: u32) -> Runs {
        Runs::new(None, token, Vec::new())
    }

    pub(super) fn new(
        ledger: Option<Arc<Mutex<Ledger>>>,
        token: u32,
        found: Vec<RunRecord>,
    ) -> Runs {
        let found = found.into_iter().map(|record| ((record.instance.clone(), record.run), record));
        let kept = Kept { found: found.collect(), ..Kept::default() };
        Runs { ledger, token, kept: Arc::new(Mutex::new(kept)) }
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
        let Some(ledger) = &self.ledger else { return Ok(()) };
        let mut kept = lock(&self.kept);
        kept.batch.add(Subject::Run(record.instance.clone(), record.slot), record);
        let written = lock(ledger).append(&kept.batch);
        kept.batch.clear();
        let key = (record.instance.clone(), record.slot);
        match &written {
            Ok(()) => {
                kept.unwritten.remove(&key);
            }
            Err(error) => {
                kept.unwritten.insert(key, record.clone());
                kept.last = Some((error.to_string(), Instant::now()));
            }
        }
        written
    }

    /// Why, and when last, a record could not be written; None when all are.
    pub(super) fn unwritten(&self) -> Option<(String, Instant)> {
        let kept = lock(&self.kept);
        kept.last.clone().filter(|_| !kept.unwritten.is_empty())
    }

    /// Writes what could not be written before.
    pub(super) fn retry(&self) {
        let records = std::mem::take(&mut lock(&self.kept).unwritten);
        for record in records.into_values() {
            // It is kept for the next time.
            let _ = self.record(&record);
        }
    }

    /// There is no such instance any more: what is not written of it needs not be.
    pub(super) fn forget(&self, instance: &InstanceId) {
        lock(&self.kept).unwritten.retain(|(of, _), _| of != instance);
    }

    /// What was found of the daemon before; nothing when it is asked again.
    #[must_use]
    pub fn take_found(&self) -> BTreeMap<(InstanceId, Run), RunRecord> {
        std::mem::take(&mut lock(&self.kept).found)
    }
}
