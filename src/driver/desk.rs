//! Reading, checking and handing over configurations; who waits for which.
//!
//! At most one read is under way, in a thread of its own, and at most one more is due after it:
//! whoever asks during a read is answered by the next. What was read and found valid goes to the
//! machine at once; a newer one takes over from one that is still being applied.

use super::handle::{
    DriverError, ManagerView, PlanOutcome, ReloadOptions, ReloadOutcome, ReloadTicket, Reply,
    Trigger,
};
use super::{Asked, Driver};
use crate::config::check::check_machine;
use crate::config::diagnostic::{Diagnostic, Severity};
use crate::config::load::{Loaded, Location, load, load_with};
use crate::config::{edit, render, watch::Watcher};
use crate::core::event::{Event, Refusal};
use crate::core::ids::{Generation, JobId, ProcessId};
use crate::core::reload::{ChangeKind, Plan, ReloadReport, ReloadResult};
use crate::core::spec::Config;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
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

/// A configuration that was read and checked.
pub(super) struct ReadResult {
    loaded: Loaded,
    /// Errors found on this machine, of what is new or changed.
    found: Vec<Diagnostic>,
    timings: Vec<(&'static str, u64)>,
    /// Why files are not watched, where they should be.
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
    handover: Option<Handover>,
    applying: Option<Applying>,
    /// As last read, when it was valid.
    loaded: Option<Loaded>,
    digest: String,
    state: &'static str,
    valid: bool,
    diagnostics: Arc<[Diagnostic]>,
    modified: Option<SystemTime>,
    reloaded: Option<SystemTime>,
    watching: bool,
}

impl Desk {
    pub(super) fn new(location: Location) -> Desk {
        let (sender, receiver) = mpsc::unbounded_channel();
        Desk {
            location,
            sender,
            receiver,
            watch: None,
            reading: None,
            queue: Vec::new(),
            handover: None,
            applying: None,
            loaded: None,
            digest: String::new(),
            state: "applying",
            valid: true,
            diagnostics: Arc::from([]),
            modified: None,
            reloaded: None,
            watching: false,
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
            config_state: self.state,
            config_digest: self.digest.clone(),
            last_modified: self.modified,
            last_reloaded: self.reloaded,
            watching: self.watching,
            valid: self.valid,
            diagnostics: self.diagnostics.clone(),
            ..view
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

    fn read_next(&mut self) {
        if self.desk.reading.is_some() || self.desk.queue.is_empty() {
            return;
        }
        self.desk.reading = Some(std::mem::take(&mut self.desk.queue));
        let read = Read {
            location: self.desk.location.clone(),
            active: (self.machine.generation() > Generation(0))
                .then(|| self.machine.config().clone()),
            watch: self.desk.watch.get_or_insert_with(|| Watch::new(&self.desk.sender)).clone(),
        };
        let sender = self.desk.sender.clone();
        tokio::spawn(async move {
            // The driver may have ended meanwhile.
            let _ = sender.send(Work::Read(Box::new(read.run().await)));
        });
    }

    pub(super) fn take_work(&mut self, work: Work) {
        match work {
            Work::Read(result) => {
                let waiters = self.desk.reading.take().unwrap_or_default();
                self.take_read(*result, waiters);
                self.read_next();
                // The first time it is enough that the machine has taken a configuration in; all its
                // processes need not be up before others may go on.
                if !self.desk.is_busy() || !self.notifier.is_started() {
                    self.notifier.ready();
                }
            }
            Work::FilesChanged => {
                self.begin_reload(Trigger::File, None, ReloadOptions::default());
            }
            Work::Edited { result: Ok(()), trigger, reply } => {
                self.begin_reload(trigger, Some(reply), ReloadOptions::default());
            }
            Work::Edited { result: Err(error), reply, .. } => super::refuse(reply, error),
        }
    }

    fn take_read(&mut self, result: ReadResult, waiters: Vec<Waiter>) {
        let ReadResult { loaded, found, timings, unwatched, watching } = result;
        let first = self.machine.generation() == Generation(0);
        self.desk.watching = watching;
        if let Some(why) = unwatched {
            self.remark(Level::WARN, "not-watching", why);
        }
        let main = loaded.sources.files.iter().find_map(|source| source.modified);
        self.desk.modified = main.or(self.desk.modified);
        let is_error = |d: &Diagnostic| d.severity == Severity::Error;
        // What is wrong with this machine is, at the start, a failure of the one process and not of
        // the file.
        let broken = loaded.diagnostics.iter().any(is_error)
            || (!first && (loaded.missing || found.iter().any(is_error)));
        let mut diagnostics = loaded.diagnostics.clone();
        diagnostics.extend(found);
        let config = loaded.config.clone().filter(|_| !broken);
        let rendered = render::render(&diagnostics, &loaded.sources, false);
        self.desk.diagnostics = Arc::from(diagnostics);
        self.desk.valid = config.is_some();
        let Some(config) = config else { return self.reject(rendered, timings, waiters) };
        for text in rendered {
            self.remark(Level::WARN, "config-warning", text);
        }
        let trigger = waiters.last().map_or(Trigger::File, |waiter| waiter.trigger.clone());
        let waiters = self.dismiss_mismatched(waiters);
        if waiters.is_empty() {
            return;
        }
        let digest = loaded.sources.digest.clone();
        let force = waiters.iter().any(|waiter| waiter.options.force);
        self.desk.loaded = Some(loaded);
        let applying = Applying {
            job: None,
            trigger,
            timings,
            diagnostics: self.desk.diagnostics.clone(),
            waiters: Vec::new(),
        };
        if digest == self.desk.digest && !force {
            self.same_again(applying, waiters);
            return;
        }
        self.notifier.reloading();
        let generation = Generation(self.machine.generation().0 + 1);
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
        self.desk.state = "rejected";
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
        if self.desk.applying.is_some() {
            // It is being applied: whoever asks now waits for that.
            let job = self.desk.applying.as_ref().and_then(|applying| applying.job);
            for waiter in waiters {
                self.give_ticket(job, waiter);
            }
            return;
        }
        if self.desk.state == "rejected" {
            self.desk.state = "applied";
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
                        self.desk.state = "applied";
                        self.unchanged(applying, waiters);
                    }
                    Some(job) => {
                        applying.job = Some(*job);
                        self.desk.state = "applying";
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
            ReloadResult::Applied => self.desk.state = "applied",
            ReloadResult::FailedKept => self.desk.state = "failed-kept",
            ReloadResult::Superseded | ReloadResult::Unchanged => {}
        }
        self.conclude(applying, report.result.as_str(), Some(report));
        if !self.desk.is_busy() && self.desk.handover.is_none() {
            self.notifier.ready();
        }
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
        let outcome = Arc::new(ReloadOutcome {
            job,
            trigger,
            result,
            generation: self.machine.generation(),
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
        let location = self.desk.location.clone();
        let active = self.machine.config().clone();
        let against = self.machine.generation();
        tokio::task::spawn_blocking(move || {
            let loaded = load_with(&location, content);
            let plan = loaded.config.as_ref().map(|config| Plan::between(&active, config));
            let mut diagnostics = loaded.diagnostics.clone();
            if let (Some(config), Some(plan)) = (&loaded.config, &plan) {
                diagnostics.extend(checked(&location, &loaded, config, plan));
            }
            let rendered = render::render(&diagnostics, &loaded.sources, false);
            let broken = diagnostics.iter().any(|d| d.severity == Severity::Error);
            let _ = reply.send(Ok(PlanOutcome {
                against,
                plan: plan.filter(|_| !broken),
                diagnostics: Arc::from(diagnostics),
                rendered,
            }));
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
        let ids: BTreeSet<ProcessId> = instances.into_iter().map(|id| id.process).collect();
        let edit = Edit {
            location: self.desk.location.clone(),
            active: self.desk.digest.clone(),
            ids,
            enabled,
        };
        let sender = self.desk.sender.clone();
        tokio::task::spawn_blocking(move || {
            let result = edit.run();
            let _ = sender.send(Work::Edited { result, trigger, reply });
        });
    }
}

fn checked(location: &Location, loaded: &Loaded, config: &Config, plan: &Plan) -> Vec<Diagnostic> {
    if !loaded.daemon.validate {
        return Vec::new();
    }
    let changes = plan.changes.iter().filter(|change| change.kind != ChangeKind::Removed);
    let which: BTreeSet<ProcessId> = changes.map(|change| change.process.clone()).collect();
    check_machine(config, &which, location.mode, &loaded.daemon.default_user, &loaded.places)
}

fn millis(took: Duration) -> u64 {
    u64::try_from(took.as_millis()).unwrap_or(u64::MAX)
}

/// One read.
struct Read {
    location: Location,
    /// What to compare with; None before there is a configuration.
    active: Option<Arc<Config>>,
    watch: Watch,
}

impl Read {
    async fn run(self) -> ReadResult {
        let mut result = self.read().await;
        // What is not watched yet counts as changed once it is: nothing between the read and the
        // watch is lost.
        let wanted = result.loaded.config.is_none() || result.loaded.daemon.watch;
        let files = if wanted { watched(&result.loaded) } else { Watched::default() };
        let told = self.watch.set(files, result.loaded.daemon.debounce).await;
        result.watching = wanted && told.is_ok();
        result.unwatched = told.err();
        result
    }

    async fn read(&self) -> ReadResult {
        let (location, active) = (self.location.clone(), self.active.clone());
        let work = tokio::task::spawn_blocking(move || {
            let start = Instant::now();
            let loaded = load(&location);
            let read = millis(start.elapsed());
            let start = Instant::now();
            let plan = loaded.config.as_ref().map(|config| match &active {
                Some(active) => Plan::between(active, config),
                None => Plan::between(&Config::default(), config),
            });
            let planned = millis(start.elapsed());
            let start = Instant::now();
            let found = match (&loaded.config, &plan) {
                (Some(config), Some(plan)) => checked(&location, &loaded, config, plan),
                _ => Vec::new(),
            };
            let timings =
                vec![("read", read), ("plan", planned), ("check", millis(start.elapsed()))];
            ReadResult { loaded, found, timings, unwatched: None, watching: false }
        });
        match work.await {
            Ok(result) => result,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
}

/// What is to be watched for a configuration.
fn watched(loaded: &Loaded) -> Watched {
    let files = loaded.sources.files.iter().map(|source| PathBuf::clone(&source.path));
    (files.collect(), loaded.sources.drop_ins.clone())
}

/// One edit of files.
struct Edit {
    location: Location,
    active: String,
    ids: BTreeSet<ProcessId>,
    enabled: bool,
}

impl Edit {
    fn run(self) -> Result<(), DriverError> {
        let loaded = load(&self.location);
        if loaded.sources.digest != self.active {
            return Err(DriverError::EditRefused(
                "the file on disk differs from what runs; `provost plan` shows how, \
                 `provost reload` applies it"
                    .to_owned(),
            ));
        }
        let refused = |error: String| DriverError::EditRefused(error);
        let mut files: Vec<(PathBuf, Vec<ProcessId>)> = Vec::new();
        for id in &self.ids {
            let Some(place) = loaded.places.get(id) else {
                return Err(refused(format!("{id} is in no file")));
            };
            match files.iter_mut().find(|(file, _)| *file == *place.file) {
                Some((_, ids)) => ids.push(id.clone()),
                None => files.push((PathBuf::clone(&place.file), vec![id.clone()])),
            }
        }
        let mut edited = Vec::new();
        for (file, ids) in files {
            let text = std::fs::read_to_string(&file)
                .map_err(|error| refused(format!("{}: {error}", file.display())))?;
            let new = edit::set_enabled(&text, &ids, self.enabled)
                .map_err(|error| refused(format!("{}: {error}", file.display())))?;
            if new != text {
                edited.push((file, new));
            }
        }
        for (file, text) in edited {
            super::replace::replace(&file, text.as_bytes())
                .map_err(|error| refused(format!("{}: {error}", file.display())))?;
        }
        Ok(())
    }
}

/// What is watched: the files read, and the directory of drop-ins.
type Watched = (Vec<PathBuf>, PathBuf);

struct Order {
    files: Watched,
    debounce: Duration,
    reply: oneshot::Sender<Result<(), String>>,
}

/// The task that watches files, seen from outside.
#[derive(Clone)]
struct Watch(mpsc::UnboundedSender<Order>);

impl Watch {
    fn new(work: &mpsc::UnboundedSender<Work>) -> Watch {
        let (orders, receiver) = mpsc::unbounded_channel();
        tokio::spawn(watch(receiver, work.clone()));
        Watch(orders)
    }

    /// Watches these from now on, and nothing else.
    async fn set(&self, files: Watched, debounce: Duration) -> Result<(), String> {
        let (reply, answer) = oneshot::channel();
        let gone = || "the watcher has ended".to_owned();
        self.0.send(Order { files, debounce, reply }).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

async fn watch(mut orders: mpsc::UnboundedReceiver<Order>, work: mpsc::UnboundedSender<Work>) {
    let mut watcher: Option<Watcher> = None;
    loop {
        let order = match &mut watcher {
            None => orders.recv().await,
            Some(watcher) => tokio::select! {
                biased;
                order = orders.recv() => order,
                () = watcher.changed() => {
                    if work.send(Work::FilesChanged).is_err() {
                        return;
                    }
                    continue;
                }
            },
        };
        let Some(Order { files: (files, drop_ins), debounce, reply }) = order else { return };
        let told = if files.is_empty() {
            watcher = None;
            Ok(())
        } else {
            follow(&mut watcher, &files, &drop_ins, debounce)
        };
        // Whoever asked may have given up.
        let _ = reply.send(told);
    }
}

fn follow(
    watcher: &mut Option<Watcher>,
    files: &[PathBuf],
    drop_ins: &std::path::Path,
    debounce: Duration,
) -> Result<(), String> {
    let advice = "changes of the files are not noticed by themselves";
    let watcher = match watcher {
        Some(watcher) => {
            watcher.set_debounce(debounce);
            watcher.rewatch(files, drop_ins);
            watcher
        }
        None => match Watcher::new(files, drop_ins, debounce) {
            Ok(new) => watcher.insert(new),
            Err(error) => return Err(format!("{advice} ({error}); use `provost reload`")),
        },
    };
    match watcher.unwatched() {
        [] => Ok(()),
        some => Err(format!("{advice} everywhere: {}", some.join("; "))),
    }
}
