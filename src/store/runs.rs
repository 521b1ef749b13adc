//! By what the processes of a run are found again.
//!
//! A record is written when the process exists and before it may become the command, so there is no
//! command without one. A pid alone proves nothing: whoever has it must have been started when the
//! record says, and have the mark or be in the control group of the run.

use super::file::{self, Kind, ReadError};
use crate::core::ids::{InstanceId, Run};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

pub(super) const RUN: &str = ".run";

/// One run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Of which instance.
    pub instance: InstanceId,
    /// Its number.
    pub run: Run,
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

/// Where records are.
#[derive(Clone, Debug)]
pub struct Runs {
    directory: Option<PathBuf>,
    token: u32,
}

impl Runs {
    /// Records in a directory; None: they are not kept.
    #[must_use]
    pub fn new(directory: Option<PathBuf>, token: u32) -> Runs {
        Runs { directory, token }
    }

    /// In the mark of everything that is started.
    #[must_use]
    pub fn token(&self) -> u32 {
        self.token
    }

    /// Writes a record, in the place of that of the run before.
    ///
    /// # Errors
    /// What the system says.
    pub fn record(&self, record: &RunRecord) -> io::Result<()> {
        let Some(directory) = &self.directory else { return Ok(()) };
        let path = directory.join(format!("{}{RUN}", record.instance));
        file::write(&path, &file::encode(Kind::Run, record))
    }

    /// All records; what is not one is set aside, and said.
    #[must_use]
    pub fn all(&self, remarks: &mut Vec<String>) -> BTreeMap<(InstanceId, Run), RunRecord> {
        let Some(directory) = &self.directory else { return BTreeMap::new() };
        let mut all = BTreeMap::new();
        for (id, path) in super::named(directory, RUN) {
            match file::read::<RunRecord>(&path, Kind::Run) {
                Ok(record) if record.instance == id => {
                    all.insert((id, record.run), record);
                }
                Err(ReadError::Missing) => {}
                other => {
                    let error = match other {
                        Err(error) => error,
                        Ok(_) => ReadError::Damaged("it is of another instance".into()),
                    };
                    remarks.push(format!("the record of the run of {id} is not used: {error}"));
                    let _ = file::set_aside(&path);
                }
            }
        }
        all
    }
}
