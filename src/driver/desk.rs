//! Reading, checking and handing over configurations; who waits for which.
//!
//! At most one read is under way, in a thread of its own, and at most one more is due after it:
//! whoever asks during a read is answered by the next. What becomes of what was read is in `accept`.
//!
//! What somebody is writing just then is not used: it is read again when he is done, or took too long.
//! In between whoever asks joins those who wait, and edits may begin. What was edited while it was read
//! is read again too.
//!
//! Edits of the files wait their turn: each begins when what the one before it changed is active.

use super::Driver;
use super::checkpoint::{PutBack, Undo};
use super::edit::Edit;
use super::handle::{
    DriverError, ManagerView, PlanOutcome, ReloadOptions, ReloadOutcome, ReloadTicket, Reply,
    Trigger,
};
use super::read::{Examined, Standing, missing};
use super::rollback::Back;
use super::watch::Watch;
use crate::backend::CommandEnd;
use crate::config::diagnostic::Diagnostic;
use crate::config::known::Known;
use crate::config::load::{DaemonSettings, Loaded, Location, Sources, is_being_written, load_kept};
use crate::config::render;
use crate::config::watch::settle::longest;
use crate::config::watch::trees::Told;
use crate::core::ids::{Generation, JobId, ProcessId};
use crate::core::reload::ReloadReport;
use crate::store::Missing;
use crate::store::checkpoint::Tentative;
use crate::store::generations::Record;
use std::collections::{BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::{mpsc, oneshot};
use tracing::Level;

/// What other threads and tasks come back with.
pub(super) enum Work {
    /// A configuration was read.
    Read(Box<ReadResult>),
    /// A file that was being written is, or took too long to be waited for.
    Written,
    /// Files may have changed. Whether somebody who writes one was waited for in vain.
    FilesChanged { in_vain: bool },
    /// Files that processes have watched have changed.
    Watched(Told),
    /// What is gone back to was read.
    Back(Box<Back>),
    /// A file was edited, or why not. What is to be confirmed is noted.
    Edited {
        result: Result<Option<Box<Tentative>>, DriverError>,
        trigger: Trigger,
        reply: Reply<ReloadTicket>,
    },
    /// What is undone to was read.
    Undo(Box<Undo>),
    /// A file is what it was before.
    PutBack(PutBack),
    /// A hook was told of a reload.
    Told { name: &'static str, end: CommandEnd },
}

/// A configuration that was read and judged.
pub(super) struct ReadResult {
    pub(super) examined: Examined,
    /// What was last good, where nothing is active yet.
    pub(super) kept: Option<LastGood>,
    /// Why not every file is watched, where it should be.
    pub(super) unwatched: Option<String>,
    pub(super) watching: bool,
}

pub(super) struct Waiter {
    pub(super) trigger: Trigger,
    pub(super) options: ReloadOptions,
    pub(super) reply: Option<Reply<ReloadTicket>>,
}

/// A read under way.
struct Reading {
    /// Whoever it is for.
    waiters: Vec<Waiter>,
    /// Another one follows it where somebody is writing.
    is_patient: bool,
    /// A file was edited, or is, since it began: another one follows it.
    is_outdated: bool,
}

/// A configuration on its way through the machine, and through its trial.
pub(super) struct Applying {
    pub(super) job: Option<JobId>,
    /// Which it is.
    pub(super) generation: Generation,
    pub(super) trigger: Trigger,
    pub(super) timings: Vec<(&'static str, u64)>,
    pub(super) diagnostics: Arc<[Diagnostic]>,
    pub(super) waiters: Vec<oneshot::Sender<Arc<ReloadOutcome>>>,
    /// It is tried instead of what is on disk.
    pub(super) is_instead: bool,
    /// What the machine did, once it has.
    pub(super) report: Option<Arc<ReloadReport>>,
    /// Since when.
    pub(super) begun: Instant,
}

impl Applying {
    /// Before anything is known of it.
    pub(super) fn new(generation: Generation, trigger: Trigger) -> Applying {
        Applying {
            job: None,
            generation,
            trigger,
            timings: Vec::new(),
            diagnostics: Arc::from([]),
            waiters: Vec::new(),
            is_instead: false,
            report: None,
            begun: Instant::now(),
        }
    }
}

/// A configuration being handed over: the machine has not answered yet.
pub(super) struct Handover {
    pub(super) waiters: Vec<Waiter>,
    pub(super) applying: Applying,
    pub(super) active: Active,
    /// It is handed over instead of what the files say.
    pub(super) is_instead: bool,
}

/// A configuration that is active, as it was read.
#[derive(Clone)]
pub(super) struct Active {
    pub(super) digest: String,
    /// What was not there of it.
    pub(super) missing: Missing,
    /// What it says about the daemon.
    pub(super) daemon: DaemonSettings,
    /// The files it was read from.
    pub(super) known: Arc<Known>,
}

impl Active {
    pub(super) fn of(loaded: &Loaded) -> Active {
        Active {
            digest: loaded.sources.digest.clone(),
            missing: missing(loaded),
            daemon: loaded.daemon.clone(),
            known: Arc::new(Known::of(loaded)),
        }
    }
}

/// The last good generation, read from what is kept of it.
pub(super) struct LastGood {
    pub(super) record: Arc<Record>,
    pub(super) loaded: Loaded,
}

/// An edit whose turn has not come.
struct Wish {
    ids: BTreeSet<ProcessId>,
    enabled: bool,
    trigger: Trigger,
    reply: Reply<ReloadTicket>,
}

/// See the module documentation.
pub(super) struct Desk {
    location: Location,
    sender: mpsc::UnboundedSender<Work>,
    receiver: mpsc::UnboundedReceiver<Work>,
    watch: Option<Watch>,
    /// The read under way.
    reading: Option<Reading>,
    /// Whoever the next read is for.
    queue: Vec<Waiter>,
    wishes: VecDeque<Wish>,
    pub(super) editing: bool,
    pub(super) handover: Option<Handover>,
    pub(super) applying: Option<Applying>,
    /// What is active; None before there is any.
    pub(super) active: Option<Active>,
    /// What was not there of what is active, which a daemon before may have told.
    pub(super) missing: Missing,
    /// How the last one that was handed over ended; None before that.
    pub(super) outcome: Option<&'static str>,
    /// The digest of what was read last, when it was refused.
    pub(super) refused: Option<String>,
    pub(super) diagnostics: Arc<[Diagnostic]>,
    pub(super) modified: Option<SystemTime>,
    /// Which generation the files are, as last read.
    pub(super) disk: Option<Generation>,
    pub(super) reloaded: Option<SystemTime>,
    pub(super) watching: bool,
    /// Why not every file is watched, as it was told last.
    pub(super) unwatched: Option<String>,
    /// The next read takes files as they are: who writes one was waited for in vain.
    in_vain: bool,
    /// Until when those who write are waited for, since the first read that found one.
    patience: Option<Instant>,
    /// Somebody is being waited for; nothing is read meanwhile.
    is_waiting: bool,
}

impl Desk {
    pub(super) fn new(location: Location, missing: Missing) -> Desk {
        let (sender, receiver) = mpsc::unbounded_channel();
        Desk {
            location,
            sender,
            receiver,
            watch: None,
            reading: None,
            queue: Vec::new(),
            wishes: VecDeque::new(),
            editing: false,
            handover: None,
            applying: None,
            active: None,
            missing,
            outcome: None,
            refused: None,
            diagnostics: Arc::from([]),
            modified: None,
            disk: None,
            reloaded: None,
            watching: false,
            unwatched: None,
            in_vain: false,
            patience: None,
            is_waiting: false,
        }
    }

    /// Where other threads send what they come back with.
    pub(super) fn work_sender(&self) -> mpsc::UnboundedSender<Work> {
        self.sender.clone()
    }

    /// The next piece of work that came back.
    pub(super) async fn done(&mut self) -> Option<Work> {
        self.receiver.recv().await
    }

    /// Fills in what the desk knows.
    pub(super) fn describe(&self, view: ManagerView) -> ManagerView {
        ManagerView {
            config_file: self.location.main.clone(),
            config_state: self.state(),
            config_digest: self.digest().to_owned(),
            last_modified: self.modified,
            last_reloaded: self.reloaded,
            watching: self.watching,
            valid: self.refused.is_none(),
            disk_generation: self.disk,
            diagnostics: self.diagnostics.clone(),
            ..view
        }
    }

    /// Of what is active; empty before there is any.
    pub(super) fn digest(&self) -> &str {
        self.active.as_ref().map_or("", |active| &active.digest)
    }

    /// The job of the configuration that is on its way.
    pub(super) fn job(&self) -> Option<JobId> {
        self.applying.as_ref()?.job
    }

    /// Which configuration is on its way.
    pub(super) fn tried(&self) -> Option<Generation> {
        Some(self.applying.as_ref()?.generation)
    }

    /// Whether what is on its way is not what is on disk.
    pub(super) fn tries_something_else(&self) -> bool {
        self.applying.as_ref().is_some_and(|applying| applying.is_instead)
    }

    /// Something is active from now on.
    pub(super) fn set_active(&mut self, active: Active) {
        self.missing.clone_from(&active.missing);
        self.active = Some(active);
    }

    /// What is active is nothing that can be read.
    pub(super) fn forget_digest(&mut self) {
        if let Some(active) = &mut self.active {
            active.digest.clear();
        }
    }

    fn state(&self) -> &'static str {
        match (&self.applying, &self.refused) {
            (Some(_), _) => "applying",
            (None, Some(_)) => "rejected",
            (None, None) => self.outcome.unwrap_or("applying"),
        }
    }

    /// Whether nothing is being read, nor handed over, nor applied.
    pub(super) fn is_at_rest(&self) -> bool {
        !self.is_busy() && self.handover.is_none()
    }

    /// A file is edited from now on.
    pub(super) fn begin_edit(&mut self) {
        self.editing = true;
        if let Some(reading) = &mut self.reading {
            reading.is_outdated = true;
        }
    }

    fn is_busy(&self) -> bool {
        self.reading.is_some() || !self.queue.is_empty() || self.applying.is_some()
    }
}

impl Driver {
    /// Reads the files, now or after the read under way, and applies what differs.
    pub(super) fn begin_reload(
        &mut self,
        trigger: Trigger,
        reply: Option<Reply<ReloadTicket>>,
        options: ReloadOptions,
    ) {
        self.desk.queue.push(Waiter { trigger, options, reply });
        self.read_next();
    }

    pub(super) fn standing(&self) -> Standing {
        let active = self.desk.active.as_ref();
        let daemon = active.map(|active| active.daemon.clone());
        // What was forgotten is not what runs.
        let known = active.filter(|active| !active.digest.is_empty());
        let known = known.map(|active| Arc::clone(&active.known));
        Standing {
            location: self.desk.location.clone(),
            config: (self.machine.generation() > Generation(0))
                .then(|| self.machine.config().clone()),
            missing: self.desk.missing.clone(),
            known,
            daemon,
            backend: self.backend.clone(),
            enforceable: self.backend.enforceable(),
        }
    }

    /// What to go on with, where nothing is active yet, if the files cannot be.
    fn last_good(&mut self) -> Option<(Arc<Record>, Sources)> {
        if self.desk.active.is_some() {
            return None;
        }
        let record = self.history.running()?;
        match self.history.files(record.number) {
            Ok(files) => Some((record, files)),
            Err(error) => {
                self.remark(Level::ERROR, "not-kept", error.to_string());
                None
            }
        }
    }

    pub(super) fn read_next(&mut self) {
        // Who reads what is being edited would answer in the place of who edits it.
        let is_held = self.desk.editing || self.desk.is_waiting;
        if is_held || self.desk.reading.is_some() || self.desk.queue.is_empty() {
            return;
        }
        self.desk.reading = Some(Reading {
            waiters: std::mem::take(&mut self.desk.queue),
            is_patient: !std::mem::take(&mut self.desk.in_vain),
            is_outdated: false,
        });
        let standing = self.standing();
        let watch = self.desk.watch.get_or_insert_with(|| Watch::new(&self.desk.sender)).clone();
        let sender = self.desk.sender.clone();
        let last_good = self.last_good();
        tokio::spawn(async move {
            // The driver may have ended meanwhile.
            let read = read(standing, last_good, watch).await;
            let _ = sender.send(Work::Read(Box::new(read)));
        });
    }

    pub(super) fn take_work(&mut self, work: Work) {
        match work {
            Work::Read(result) => {
                let Some(reading) = self.desk.reading.take() else { return };
                let Reading { waiters, is_patient, is_outdated } = reading;
                if is_outdated {
                    // It may be what was before, or what was edited, which is for who edits to answer.
                    self.desk.queue.splice(..0, waiters);
                    return self.read_next();
                }
                if let Some(path) = self.unfinished(&result, is_patient) {
                    self.desk.queue.splice(..0, waiters);
                    return self.wait_for(path);
                }
                let digest = result.examined.loaded.sources.digest.clone();
                self.take_read(*result, waiters);
                self.checkpoint_read(&digest);
                self.desk.disk = self.generation_of(&digest);
                self.has_looked = true;
                self.turn.has_looked = self.desk.is_at_rest();
                self.read_next();
                // It is enough that the machine has taken a configuration in; all its processes need
                // not be up before others may go on.
                if !self.notifier.is_started() && self.finished.is_none() {
                    self.notifier.ready();
                }
            }
            Work::Watched(told) => self.take_watched(told),
            Work::Back(back) => self.take_back(*back),
            Work::Undo(undo) => self.take_undo(*undo),
            Work::PutBack(result) => self.take_put_back(result),
            Work::Told { name, end } => self.hook_ended(name, &end),
            Work::Written => {
                self.desk.is_waiting = false;
                self.read_next();
            }
            Work::FilesChanged { in_vain } => {
                if in_vain {
                    self.desk.in_vain = true;
                    self.desk.is_waiting = false;
                }
                self.begin_reload(Trigger::File, None, ReloadOptions::default());
            }
            Work::Edited { result, trigger, reply } => {
                self.desk.editing = false;
                match result {
                    Ok(tentative) => {
                        if let Some(tentative) = tentative {
                            self.checkpoint_installed(*tentative);
                        }
                        self.begin_reload(trigger, Some(reply), ReloadOptions::default());
                    }
                    Err(error) => {
                        super::refuse(reply, error);
                        self.read_next();
                    }
                }
            }
        }
        self.edit_next();
    }

    /// The file that somebody is writing, where what was read is not to be used for that: half a file can
    /// be valid, and say that processes are to be stopped. What is watched was waited for by the watcher.
    fn unfinished(&mut self, result: &ReadResult, is_patient: bool) -> Option<PathBuf> {
        let unfinished = result.examined.loaded.unfinished.as_ref();
        let is_patient = is_patient && !self.desk.in_vain;
        let wait = unfinished.filter(|_| is_patient).cloned().filter(|path| {
            let debounce = self.desk.active.as_ref().map(|active| active.daemon.debounce);
            let until = self.desk.patience.unwrap_or_else(|| {
                let text =
                    format!("{} is just being written; waiting until it is closed", path.display());
                self.remark(Level::INFO, "being-written", text);
                Instant::now()
                    + longest(debounce.unwrap_or_else(|| DaemonSettings::default().debounce))
            });
            self.desk.patience = Some(until);
            Instant::now() < until
        });
        if wait.is_none() {
            self.desk.patience = None;
            // Who asked meanwhile has waited as long.
            self.desk.in_vain |= unfinished.is_some() && !self.desk.queue.is_empty();
        }
        wait
    }

    /// Reads again when a file is written. By then something else may be active.
    fn wait_for(&mut self, path: PathBuf) {
        let Some(until) = self.desk.patience else { return };
        self.desk.is_waiting = true;
        let sender = self.desk.sender.clone();
        tokio::spawn(async move {
            written(path, until).await;
            // The driver may have ended meanwhile.
            let _ = sender.send(Work::Written);
        });
    }

    /// Which generation has these files.
    fn generation_of(&self, digest: &str) -> Option<Generation> {
        if self.desk.digest() == digest {
            // What differs in a comment alone is no generation of its own.
            return Some(self.machine.generation());
        }
        let listed = self.history.lock().list();
        let found = listed.iter().find(|record| record.digest == digest);
        found.map(|record| record.number)
    }

    /// Works out what a reload would do; nothing is changed.
    pub(super) fn begin_plan(&self, content: Option<Vec<u8>>, reply: Reply<PlanOutcome>) {
        let standing = self.standing();
        let against = self.machine.generation();
        tokio::task::spawn_blocking(move || {
            let Examined { loaded, plan, diagnostics, is_refused, .. } = standing.examine(content);
            let rendered = render::render(&diagnostics, &loaded.sources, false);
            let plan = plan.filter(|_| !is_refused);
            let diagnostics = Arc::from(diagnostics);
            let _ = reply.send(Ok(PlanOutcome { against, plan, diagnostics, rendered }));
        });
    }

    /// Edits `enabled` in the files that define the named processes; a reload follows.
    pub(super) fn set_enabled(
        &mut self,
        names: &[String],
        enabled: bool,
        trigger: Trigger,
        reply: Reply<ReloadTicket>,
    ) {
        if let Some(pending) = self.pending_checkpoint() {
            return super::refuse(reply, pending);
        }
        let instances = match self.published.resolve(names) {
            Ok(instances) => instances,
            Err(refusal) => return super::refuse(reply, DriverError::Refused(refusal)),
        };
        let ids = instances.into_iter().map(|id| id.process).collect();
        self.desk.wishes.push_back(Wish { ids, enabled, trigger, reply });
        self.edit_next();
    }

    /// Begins the next edit, when what is active is what the one before it made.
    fn edit_next(&mut self) {
        if self.desk.editing || self.desk.reading.is_some() || !self.desk.queue.is_empty() {
            return;
        }
        let Some(Wish { ids, enabled, trigger, reply }) = self.desk.wishes.pop_front() else {
            return;
        };
        // What is to be confirmed may have come since it was asked for.
        if let Some(pending) = self.pending_checkpoint() {
            super::refuse(reply, pending);
            return self.edit_next();
        }
        self.desk.begin_edit();
        let location = self.desk.location.clone();
        let edit = Edit { location, active: self.desk.digest().to_owned(), ids, enabled };
        let sender = self.desk.sender.clone();
        tokio::task::spawn_blocking(move || {
            let result = edit.run().map(|()| None);
            let _ = sender.send(Work::Edited { result, trigger, reply });
        });
    }
}

/// How often it is looked whether a file is still being written. Where inotify tells of the close there
/// may be no watch to be had, and that somebody rests is no event; it is for some seconds at most.
const AGAIN: Duration = Duration::from_millis(50);

/// Reads and judges, and has watched what was read.
async fn read(
    standing: Standing,
    last_good: Option<(Arc<Record>, Sources)>,
    watch: Watch,
) -> ReadResult {
    let asked = standing.clone();
    let (examined, kept) = apart(move || {
        let kept = last_good.map(|(record, files)| {
            let loaded = load_kept(&asked.location, &files);
            LastGood { record, loaded }
        });
        (asked.look(), kept)
    })
    .await;
    let daemon = standing.settings_after(&examined);
    let sources = daemon.watch.then_some(&examined.loaded.sources);
    let told = watch.set(sources, daemon.debounce).await;
    let watching = daemon.watch && told.is_ok();
    let unwatched = told.unwrap_or_else(Some);
    ReadResult { examined, kept, unwatched, watching }
}

/// Waits until somebody has written a file, or until then.
async fn written(path: PathBuf, until: Instant) {
    let path = Arc::new(path);
    loop {
        tokio::time::sleep(AGAIN).await;
        let path = Arc::clone(&path);
        if Instant::now() >= until || !apart(move || is_being_written(&path)).await {
            return;
        }
    }
}

/// Does what blocks in a thread of its own.
async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
