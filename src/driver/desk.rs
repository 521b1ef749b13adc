//! Reading, checking and handing over configurations; who waits for which.
//!
//! At most one read is under way, in a thread of its own, and at most one more is due after it:
//! whoever asks during a read is answered by the next. What was read and found valid goes to the
//! machine at once; a newer one takes over from one that is still being applied.
//!
//! Edits of the files wait their turn: each begins when what the one before it changed is active.

use super::edit::Edit;
use super::handle::{
    DriverError, ManagerView, PlanOutcome, ReloadOptions, ReloadOutcome, ReloadTicket, Reply,
    Trigger,
};
use super::read::{Examined, Standing, millis, missing};
use super::watch::Watch;
use super::{Asked, Driver};
use crate::config::diagnostic::Diagnostic;
use crate::config::load::{Loaded, Location};
use crate::config::render;
use crate::core::event::{Event, Refusal};
use crate::core::ids::{Generation, JobId, ProcessId};
use crate::core::reload::{ReloadReport, ReloadResult};
use crate::store::Missing;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::SystemTime;
use tokio::sync::{mpsc, oneshot};
use tracing::Level;

/// What other threads and tasks come back with.
pub(super) enum Work {
    /// A configuration was read.
    Read(Box<ReadResult>),
    /// Files may have changed.
    FilesChanged,
    /// A file was edited, or why not.
    Edited { result: Result<(), DriverError>, trigger: Trigger, reply: Reply<ReloadTicket> },
}

/// A configuration that was read and judged.
pub(super) struct ReadResult {
    examined: Examined,
    /// Why not every file is watched, where it should be.
    unwatched: Option<String>,
    watching: bool,
}

struct Waiter {
    trigger: Trigger,
    options: ReloadOptions,
    reply: Option<Reply<ReloadTicket>>,
}

/// A configuration on its way through the machine.
struct Applying {
    job: Option<JobId>,
    trigger: Trigger,
    timings: Vec<(&'static str, u64)>,
    diagnostics: Arc<[Diagnostic]>,
    waiters: Vec<oneshot::Sender<Arc<ReloadOutcome>>>,
}

/// A configuration being handed over: the machine has not answered yet.
struct Handover {
    waiters: Vec<Waiter>,
    applying: Applying,
    digest: String,
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
    /// Whoever the read under way is for.
    reading: Option<Vec<Waiter>>,
    /// Whoever the next read is for.
    queue: Vec<Waiter>,
    wishes: VecDeque<Wish>,
    editing: bool,
    handover: Option<Handover>,
    applying: Option<Applying>,
    /// What is active, as it was read.
    loaded: Option<Loaded>,
    /// What was not there of it.
    pub(super) missing: Missing,
    /// Of what is active.
    digest: String,
    /// How the last one that was handed over ended; None before that.
    outcome: Option<&'static str>,
    /// The digest of what was read last, when it was refused.
    refused: Option<String>,
    diagnostics: Arc<[Diagnostic]>,
    modified: Option<SystemTime>,
    reloaded: Option<SystemTime>,
    watching: bool,
    /// Why not every file is watched, as it was told last.
    unwatched: Option<String>,
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
            loaded: None,
            missing,
            digest: String::new(),
            outcome: None,
            refused: None,
            diagnostics: Arc::from([]),
            modified: None,
            reloaded: None,
            watching: false,
            unwatched: None,
        }
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
            config_digest: self.digest.clone(),
            last_modified: self.modified,
            last_reloaded: self.reloaded,
            watching: self.watching,
            valid: self.refused.is_none(),
            diagnostics: self.diagnostics.clone(),
            ..view
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

    fn standing(&self) -> Standing {
        let loaded = self.desk.loaded.as_ref();
        Standing {
            location: self.desk.location.clone(),
            config: (self.machine.generation() > Generation(0))
                .then(|| self.machine.config().clone()),
            missing: self.desk.missing.clone(),
            daemon: loaded.map(|loaded| loaded.daemon.clone()),
            backend: self.backend.clone(),
        }
    }

    fn read_next(&mut self) {
        // Who reads what is being edited would answer in the place of who edits it.
        if self.desk.editing || self.desk.reading.is_some() || self.desk.queue.is_empty() {
            return;
        }
        self.desk.reading = Some(std::mem::take(&mut self.desk.queue));
        let standing = self.standing();
        let watch = self.desk.watch.get_or_insert_with(|| Watch::new(&self.desk.sender)).clone();
        let sender = self.desk.sender.clone();
        tokio::spawn(async move {
            // The driver may have ended meanwhile.
            let _ = sender.send(Work::Read(Box::new(read(standing, watch).await)));
        });
    }

    pub(super) fn take_work(&mut self, work: Work) {
        match work {
            Work::Read(result) => {
                let waiters = self.desk.reading.take().unwrap_or_default();
                self.take_read(*result, waiters);
                self.has_looked = true;
                self.read_next();
                // It is enough that the machine has taken a configuration in; all its processes need
                // not be up before others may go on.
                if !self.notifier.is_started() {
                    self.notifier.ready();
                }
            }
            Work::FilesChanged => {
                self.begin_reload(Trigger::File, None, ReloadOptions::default());
            }
            Work::Edited { result, trigger, reply } => {
                self.desk.editing = false;
                match result {
                    Ok(()) => self.begin_reload(trigger, Some(reply), ReloadOptions::default()),
                    Err(error) => {
                        super::refuse(reply, error);
                        self.read_next();
                    }
                }
            }
        }
        self.edit_next();
    }

    fn take_read(&mut self, result: ReadResult, waiters: Vec<Waiter>) {
        let ReadResult { examined, unwatched, watching } = result;
        let Examined { loaded, diagnostics, is_refused, timings, .. } = examined;
        self.desk.watching = watching;
        if self.desk.unwatched != unwatched {
            if let Some(why) = &unwatched {
                self.remark(Level::WARN, "not-watching", why.clone());
            }
            self.desk.unwatched = unwatched;
        }
        let main = loaded.sources.files.iter().find_map(|source| source.modified);
        self.desk.modified = main.or(self.desk.modified);
        let known = *self.desk.diagnostics == *diagnostics;
        let rendered = render::render(&diagnostics, &loaded.sources, false);
        self.desk.diagnostics = Arc::from(diagnostics);
        let digest = loaded.sources.digest.clone();
        let before = match is_refused {
            true => self.desk.refused.replace(digest.clone()),
            false => self.desk.refused.take(),
        };
        let config = match loaded.config.clone().filter(|_| !is_refused) {
            Some(config) => config,
            None => {
                if !self.notifier.is_started() {
                    // What a daemon before has left goes on.
                    self.feed(Event::ConfigUnusable);
                }
                // Of what nobody asked for, and what was told before, nobody has to hear again.
                let asked = waiters.iter().any(|waiter| waiter.reply.is_some());
                if asked || !known || before != Some(digest) {
                    self.reject(rendered, timings, waiters);
                }
                return;
            }
        };
        let trigger = waiters.last().map_or(Trigger::File, |waiter| waiter.trigger.clone());
        let waiters = self.dismiss_mismatched(waiters);
        if waiters.is_empty() {
            return;
        }
        let applying = Applying {
            job: None,
            trigger,
            timings,
            diagnostics: self.desk.diagnostics.clone(),
            waiters: Vec::new(),
        };
        let force = waiters.iter().any(|waiter| waiter.options.force);
        if digest == self.desk.digest && !force {
            if before.is_some() && self.desk.applying.is_none() {
                let message = "the configuration is valid again, and what runs is what it says";
                self.remark(Level::INFO, "config-valid", message.to_owned());
            }
            self.same_again(applying, waiters);
            return;
        }
        for text in rendered {
            self.remark(Level::WARN, "config-warning", text);
        }
        self.notifier.reloading();
        let generation = Generation(self.machine.generation().0 + 1);
        self.desk.missing = missing(&loaded);
        self.desk.loaded = Some(loaded);
        self.desk.handover = Some(Handover { waiters, applying, digest });
        let request = self.request(Asked::Config);
        self.feed(Event::ConfigAccepted { request, config, generation });
    }

    /// Turns away whoever expected another generation.
    fn dismiss_mismatched(&self, waiters: Vec<Waiter>) -> Vec<Waiter> {
        let actual = self.machine.generation().0;
        let mut staying = Vec::new();
        for waiter in waiters {
            match (waiter.options.expect_generation, waiter.reply) {
                (Some(expected), Some(reply)) if expected != actual => {
                    super::refuse(reply, DriverError::GenerationMismatch { expected, actual });
                }
                (_, reply) => staying.push(Waiter { reply, ..waiter }),
            }
        }
        staying
    }

    fn reject(
        &mut self,
        rendered: Vec<String>,
        timings: Vec<(&'static str, u64)>,
        waiters: Vec<Waiter>,
    ) {
        self.notifier.reloading();
        let text = rendered.join("\n");
        self.remark(
            Level::ERROR,
            "config-rejected",
            format!("the configuration is not valid; nothing was changed\n{text}"),
        );
        let trigger = waiters.last().map_or(Trigger::File, |waiter| waiter.trigger.clone());
        for reply in waiters.into_iter().filter_map(|waiter| waiter.reply) {
            let diagnostics = self.desk.diagnostics.clone();
            let error = DriverError::Invalid { diagnostics, rendered: text.clone() };
            super::refuse(reply, error);
        }
        self.turn.reloads.push(Arc::new(ReloadOutcome {
            job: None,
            trigger,
            result: "rejected",
            generation: self.machine.generation(),
            report: None,
            diagnostics: self.desk.diagnostics.clone(),
            timings,
        }));
    }

    /// What was read is what is active.
    fn same_again(&mut self, applying: Applying, waiters: Vec<Waiter>) {
        if let Some(under_way) = &self.desk.applying {
            // It is being applied: whoever asks now waits for that.
            let job = under_way.job;
            for waiter in waiters {
                self.give_ticket(job, waiter);
            }
            return;
        }
        // A file that was only touched is not worth a word.
        if waiters.iter().any(|waiter| waiter.reply.is_some()) {
            self.unchanged(applying, waiters);
        }
    }

    fn unchanged(&mut self, mut applying: Applying, waiters: Vec<Waiter>) {
        for waiter in waiters {
            if let Some(reply) = waiter.reply {
                let (sender, outcome) = oneshot::channel();
                applying.waiters.push(sender);
                let _ = reply.send(Ok(ReloadTicket { job: None, outcome }));
            }
        }
        self.conclude(applying, "unchanged", None);
    }

    /// The machine took the configuration in, or not.
    pub(super) fn config_answered(&mut self, answer: Result<Vec<JobId>, Refusal>) {
        let Some(Handover { waiters, mut applying, digest }) = self.desk.handover.take() else {
            return;
        };
        match answer {
            Err(refusal) => {
                for reply in waiters.into_iter().filter_map(|waiter| waiter.reply) {
                    super::refuse(reply, DriverError::Refused(refusal.clone()));
                }
            }
            Ok(jobs) => {
                self.desk.digest = digest;
                self.desk.reloaded = Some(SystemTime::now());
                match jobs.first() {
                    None => {
                        // How the one before it ended stays true.
                        self.desk.outcome.get_or_insert("applied");
                        self.unchanged(applying, waiters);
                    }
                    Some(job) => {
                        applying.job = Some(*job);
                        self.desk.applying = Some(applying);
                        for waiter in waiters {
                            self.give_ticket(Some(*job), waiter);
                        }
                    }
                }
            }
        }
    }

    fn give_ticket(&mut self, job: Option<JobId>, waiter: Waiter) {
        let (Some(reply), Some(applying)) = (waiter.reply, &mut self.desk.applying) else { return };
        let (sender, outcome) = oneshot::channel();
        applying.waiters.push(sender);
        let _ = reply.send(Ok(ReloadTicket { job, outcome }));
    }

    /// The machine has carried a configuration out, or something newer took over.
    pub(super) fn reload_finished(&mut self, report: Arc<ReloadReport>) {
        let Some(applying) = self.desk.applying.take() else { return };
        match report.result {
            ReloadResult::Applied => self.desk.outcome = Some("applied"),
            ReloadResult::FailedKept => self.desk.outcome = Some("failed-kept"),
            ReloadResult::Superseded | ReloadResult::Unchanged => {}
        }
        self.conclude(applying, report.result.as_str(), Some(report));
    }

    fn conclude(
        &mut self,
        applying: Applying,
        result: &'static str,
        report: Option<Arc<ReloadReport>>,
    ) {
        let Applying { job, trigger, mut timings, diagnostics, waiters } = applying;
        if let Some(report) = &report {
            timings.push(("apply", millis(report.took)));
        }
        let active = self.machine.generation();
        let outcome = Arc::new(ReloadOutcome {
            job,
            trigger,
            result,
            generation: report.as_ref().map_or(active, |report| report.generation),
            report,
            diagnostics,
            timings,
        });
        for waiter in waiters {
            let _ = waiter.send(outcome.clone());
        }
        self.turn.reloads.push(outcome);
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
        self.desk.editing = true;
        let location = self.desk.location.clone();
        let edit = Edit { location, active: self.desk.digest.clone(), ids, enabled };
        let sender = self.desk.sender.clone();
        tokio::task::spawn_blocking(move || {
            let result = edit.run();
            let _ = sender.send(Work::Edited { result, trigger, reply });
        });
    }
}

/// Reads and judges, and has watched what was read.
async fn read(standing: Standing, watch: Watch) -> ReadResult {
    let asked = standing.clone();
    let work = tokio::task::spawn_blocking(move || asked.examine(None)).await;
    let examined = match work {
        Ok(examined) => examined,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    };
    let daemon = standing.settings_after(&examined);
    let sources = daemon.watch.then_some(&examined.loaded.sources);
    let told = watch.set(sources, daemon.debounce).await;
    let watching = daemon.watch && told.is_ok();
    let unwatched = told.unwrap_or_else(Some);
    ReadResult { examined, unwatched, watching }
}
