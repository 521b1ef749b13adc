//! What others may read of the driver, as it was after its last turn.
//!
//! Reading never waits for the driver. What one turn changed is published before anybody is told.

use super::handle::ReloadOutcome;
use super::notice::Tally;
use crate::config::diagnostic::Diagnostic;
use crate::core::event::{ExitStatus, Note};
use crate::core::ids::{Generation, InstanceId, JobId, Run};
use crate::core::job::{JobKind, JobResult};
use crate::core::time::Mono;
use crate::core::view::{InstanceView, Summary};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, RwLock};
use std::time::SystemTime;
use tokio::sync::watch;

/// What is known about the configuration and the daemon as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManagerView {
    /// Counts over all instances.
    pub summary: Summary,
    /// The main file.
    pub config_file: PathBuf,
    /// `applied`, `applying`, `rejected`, `failed-kept`, `rolled-back` or `rollback-incomplete`.
    pub config_state: &'static str,
    /// What there is to be said where the files are not what runs; else empty.
    pub config_detail: String,
    /// SHA-256 of the active configuration, in hex; empty before there is one.
    pub config_digest: String,
    /// When the main file was last modified, as of the last read.
    pub last_modified: Option<SystemTime>,
    /// When a configuration was last applied.
    pub last_reloaded: Option<SystemTime>,
    /// Whether files are watched.
    pub watching: bool,
    /// Whether the files, as last read, are valid.
    pub valid: bool,
    /// What was wrong with the files as last read.
    pub diagnostics: Arc<[Diagnostic]>,
    /// What waits to be confirmed.
    pub checkpoint: Option<CheckpointView>,
    /// Which generation the files are, as last read; None: they are none that is kept.
    pub disk_generation: Option<Generation>,
    /// What reloads came to.
    pub reloads: Arc<Tally>,
    /// The backend.
    pub backend: &'static str,
}

/// A generation that is undone unless somebody confirms it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointView {
    /// Which; what names the checkpoint.
    pub generation: Generation,
    /// What comes back.
    pub base: Option<Generation>,
    /// Who tries it.
    pub uid: u32,
    /// `trying`, `waiting` or `undoing`.
    pub state: &'static str,
    /// When it is undone; None while that is not known yet, or being done.
    pub until: Option<Mono>,
}

/// A job that has not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobView {
    /// Its number.
    pub id: JobId,
    /// What it is for.
    pub kind: JobKind,
    /// On what; None for a reload.
    pub instance: Option<InstanceId>,
    /// Since when.
    pub created: SystemTime,
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobEnd {
    /// Its number.
    pub id: JobId,
    /// What it was for.
    pub kind: JobKind,
    /// On what; None for a reload.
    pub instance: Option<InstanceId>,
    /// What came of it.
    pub result: JobResult,
    /// In words.
    pub detail: Option<String>,
}

/// One line of the event log.
#[derive(Clone, Debug)]
pub struct EventLine {
    /// Counted from 1, never twice; what a cursor names.
    pub seq: u64,
    /// When.
    pub at: SystemTime,
    /// What.
    pub says: Says,
}

/// What a line of the event log says.
#[derive(Clone, Debug)]
pub enum Says {
    /// This of an instance, which has it among its last notes: there is one of it.
    Note(Arc<Note>),
    /// This of the whole.
    Remark(Arc<Remark>),
}

/// Something about the whole, in words: the note that it was may have a whole plan in it.
#[derive(Debug)]
pub struct Remark {
    /// The name of the kind.
    pub kind: &'static str,
    /// As part of which job.
    pub job: Option<JobId>,
    /// For people, one line.
    pub message: String,
}

impl EventLine {
    fn note(&self) -> Option<&Note> {
        match &self.says {
            Says::Note(note) => Some(note),
            Says::Remark(_) => None,
        }
    }

    /// The name of the kind, [`crate::core::event::What::kind`].
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match &self.says {
            Says::Note(note) => note.what.kind(),
            Says::Remark(remark) => remark.kind,
        }
    }

    /// About which instance.
    #[must_use]
    pub fn instance(&self) -> Option<&InstanceId> {
        self.note()?.instance.as_ref()
    }

    /// About which run.
    #[must_use]
    pub fn run(&self) -> Option<Run> {
        self.note()?.run
    }

    /// As part of which job.
    #[must_use]
    pub fn job(&self) -> Option<JobId> {
        match &self.says {
            Says::Note(note) => note.job,
            Says::Remark(remark) => remark.job,
        }
    }

    /// For people, one line.
    #[must_use]
    pub fn message(&self) -> String {
        match &self.says {
            Says::Note(note) => note.what.to_string(),
            Says::Remark(remark) => remark.message.clone(),
        }
    }
}

/// The exit of a main process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExitNotice {
    /// Which instance.
    pub instance: InstanceId,
    /// Which generation its spec was of.
    pub generation: Generation,
    /// The main process.
    pub pid: u32,
    /// How it ended.
    pub status: ExitStatus,
}

/// What one turn of the driver changed. Everything it names has been published before it is sent.
#[derive(Clone, Debug, Default)]
pub struct Turn {
    /// Instances that are new, changed or gone; [`Published::instance`] tells which.
    pub instances: BTreeSet<InstanceId>,
    /// Jobs that began.
    pub jobs_new: Vec<JobView>,
    /// Jobs that ended.
    pub jobs_removed: Vec<JobEnd>,
    /// Main processes that ended.
    pub exits: Vec<ExitNotice>,
    /// Reloads that ended.
    pub reloads: Vec<Arc<ReloadOutcome>>,
    /// Whether the files were looked at, and nothing is applied of what was found.
    pub has_looked: bool,
    /// Whether the view of the manager may have changed.
    pub manager: bool,
}

/// The read side. Cheap to read at any time, from any task.
#[derive(Debug)]
pub struct Published {
    pub(super) instances: RwLock<BTreeMap<InstanceId, Arc<InstanceView>>>,
    manager: RwLock<Arc<ManagerView>>,
    jobs: RwLock<BTreeMap<JobId, JobView>>,
    events: RwLock<VecDeque<EventLine>>,
    /// Whether the files were looked at.
    pub(super) looked: watch::Sender<bool>,
}

/// How many lines of the event log are kept in memory.
const EVENTS_KEPT: usize = 4096;

impl Published {
    pub(super) fn new(manager: ManagerView) -> Published {
        Published {
            instances: RwLock::default(),
            manager: RwLock::new(Arc::new(manager)),
            jobs: RwLock::default(),
            events: RwLock::default(),
            looked: watch::Sender::new(false),
        }
    }

    pub(super) fn set_looked(&self) {
        self.looked.send_if_modified(|looked| !std::mem::replace(looked, true));
    }

    /// One instance.
    #[must_use]
    pub fn instance(&self, id: &InstanceId) -> Option<Arc<InstanceView>> {
        read(&self.instances).get(id).cloned()
    }

    /// All instances, in order.
    #[must_use]
    pub fn instances(&self) -> Vec<Arc<InstanceView>> {
        read(&self.instances).values().cloned().collect()
    }

    /// The whole.
    #[must_use]
    pub fn manager(&self) -> Arc<ManagerView> {
        read(&self.manager).clone()
    }

    /// All jobs that have not ended.
    #[must_use]
    pub fn jobs(&self) -> Vec<JobView> {
        read(&self.jobs).values().cloned().collect()
    }

    /// One job that has not ended.
    #[must_use]
    pub fn job(&self, id: JobId) -> Option<JobView> {
        read(&self.jobs).get(&id).cloned()
    }

    /// Lines of the event log after the one numbered `after`, oldest first, at most `limit`.
    #[must_use]
    pub fn events_after(&self, after: u64, limit: usize) -> Vec<EventLine> {
        let events = read(&self.events);
        let start = events.partition_point(|line| line.seq <= after);
        events.iter().skip(start).take(limit).cloned().collect()
    }

    /// The number of the newest line; 0 when there is none.
    #[must_use]
    pub fn last_event(&self) -> u64 {
        read(&self.events).back().map_or(0, |line| line.seq)
    }

    pub(super) fn set_instance(&self, id: &InstanceId, view: Option<InstanceView>) {
        let mut instances = write(&self.instances);
        match view {
            Some(view) => instances.insert(id.clone(), Arc::new(view)),
            None => instances.remove(id),
        };
    }

    pub(super) fn set_manager(&self, view: ManagerView) {
        *write(&self.manager) = Arc::new(view);
    }

    pub(super) fn add_job(&self, job: JobView) {
        write(&self.jobs).insert(job.id, job);
    }

    pub(super) fn remove_job(&self, id: JobId) -> Option<JobView> {
        write(&self.jobs).remove(&id)
    }

    pub(super) fn add_event(&self, line: EventLine) {
        let mut events = write(&self.events);
        if events.len() == EVENTS_KEPT {
            events.pop_front();
        }
        events.push_back(line);
    }
}

pub(super) fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(std::sync::PoisonError::into_inner)
}
