//! The only owner of the machine.
//!
//! The driver is one task. It takes in one thing at a time: facts from the backend first, then what
//! is due, then its own answers from other threads, then what others ask. Each becomes an event of
//! the machine; the effects that come back are handed on, and never waited for: whoever carries one
//! out reports a fact when it is done. After each turn it publishes what changed.
//!
//! | part | owns |
//! |---|---|
//! | [`handle`] | what others hold of the driver |
//! | `desk` | reading and checking configurations; who waits for which |
//! | `accept` | what becomes of a configuration that was read |
//! | `verdict` | a configuration on trial: what is done about what the core finds |
//! | `read` | the judgement of what was read, for a reload and for a plan |
//! | `watch` | the task that watches the files of the configuration |
//! | `watched` | the task that watches what processes have watched |
//! | `checkpoint` | what is undone unless somebody confirms it |
//! | `notice` | how reloads ended: counted, and told to hooks |
//! | `rollback` | going back on somebody's word; files that are handed over |
//! | `edit`, `replace` | changes of the files |
//! | `keep` | what is written down for the next daemon, and taken over from the last |
//! | `history` | what others ask of generations |
//! | `journal` | the event log: lines for people and programs |
//! | `publish`, `published`, `names` | what others read, and what they may write for a name |

mod accept;
mod checkpoint;
mod desk;
mod edit;
pub mod handle;
mod history;
mod journal;
mod keep;
mod names;
mod notice;
mod publish;
mod published;
mod read;
mod replace;
mod rollback;
mod verdict;
mod watch;
mod watched;

use crate::backend::{Backend, Facts, LogRequest};
use crate::config::load::Location;
use crate::core::Machine;
use crate::core::event::{Effect, Event, Part, Refusal};
use crate::core::ids::{InstanceId, JobId, Request, Run};
use crate::core::job::JobKind;
use crate::core::time::Mono;
use crate::core::trial::Trial;
use crate::notify::Notifier;
use crate::probe::{Prober, RunCommand};
use crate::store::generations::Generations;
use handle::{
    Accepted, Command, DriverError, Handle, JobEnd, ManagerView, Published, Reply, Trigger, Turn,
    now,
};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use tokio::sync::{broadcast, mpsc, oneshot};

pub use keep::Keeping;

/// How many commands may queue before callers wait.
const MAILBOX: usize = 256;
/// How many turns a subscriber may lag behind before it has to compare everything.
const TURNS: usize = 1024;
/// How many facts are taken in before others get their turn.
const FACTS_AT_ONCE: usize = 32;
/// For how many effects of a turn the allocation is kept for the next.
const EFFECTS_KEPT: usize = 256;
/// How many ends of jobs are kept for a caller who asks late.
const ENDS_KEPT: usize = 1024;

/// What a driver is made with.
pub struct Options {
    /// Where the configuration is.
    pub location: Location,
    /// Whether it ends by itself when nothing can run again (`provost up`).
    pub ends_by_itself: bool,
    /// The seed of the machine.
    pub seed: u64,
}

/// The only owner of the machine.
pub struct Driver {
    options: Options,
    machine: Machine,
    keeping: Keeping,
    history: history::History,
    backend: Arc<dyn Backend>,
    prober: Prober,
    facts: mpsc::UnboundedReceiver<Event>,
    commands: mpsc::Receiver<Command>,
    desk: desk::Desk,
    trying: verdict::Trying,
    watched: watched::Watched,
    checkpoint: Option<checkpoint::Checkpoint>,
    tally: Arc<notice::Tally>,
    published: Arc<Published>,
    turns: broadcast::Sender<Arc<Turn>>,
    turn: Turn,
    notifier: Notifier,
    asked: BTreeMap<Request, Asked>,
    last_request: Request,
    waiting: BTreeMap<JobId, Vec<oneshot::Sender<JobEnd>>>,
    ended: VecDeque<JobEnd>,
    last_event: u64,
    finished: Option<u8>,
    /// Another program goes on from here.
    is_followed: bool,
    /// The files were looked at.
    has_looked: bool,
    /// It was said that states cannot be kept.
    is_unkept: bool,
    effects: Vec<Effect>,
    /// Runs that have ended, which is not written down yet.
    exited: Vec<(InstanceId, Run)>,
    /// Of what came of runs in this turn, until it is told.
    numbers: VecDeque<u64>,
}

/// Who waits for the machine's answer.
enum Asked {
    Jobs(Vec<InstanceId>, Reply<Vec<Accepted>>),
    Nothing(Reply<()>),
    Config,
    /// The configuration before one that did not come up.
    Withdrawn,
}

/// The mailbox for facts: made before the backend, which reports into it.
#[must_use]
pub fn facts() -> (Facts, mpsc::UnboundedReceiver<Event>) {
    mpsc::unbounded_channel()
}

impl Driver {
    /// A driver that owns an empty machine, and the handle to it. Nothing happens before
    /// [`Driver::run`].
    #[must_use]
    pub fn new(
        options: Options,
        mut keeping: Keeping,
        generations: Generations,
        backend: Arc<dyn Backend>,
        prober: Prober,
        facts: mpsc::UnboundedReceiver<Event>,
        notifier: Notifier,
    ) -> (Driver, Handle) {
        let (sender, commands) = mpsc::channel(MAILBOX);
        let (turns, _) = broadcast::channel(TURNS);
        let published = Arc::new(Published::new(ManagerView {
            summary: crate::core::view::Summary::default(),
            config_file: options.location.main.clone(),
            config_state: "applying",
            config_detail: String::new(),
            config_digest: String::new(),
            last_modified: None,
            last_reloaded: None,
            watching: false,
            valid: true,
            diagnostics: Arc::from([]),
            checkpoint: None,
            disk_generation: None,
            reloads: Arc::default(),
            backend: backend.name(),
        }));
        let handle = Handle::new(
            sender,
            turns.clone(),
            published.clone(),
            backend.clone(),
            options.location.mode,
        );
        let driver = Driver {
            machine: Machine::new(options.seed),
            desk: desk::Desk::new(
                options.location.clone(),
                std::mem::take(&mut keeping.found.missing),
            ),
            trying: verdict::Trying::default(),
            checkpoint: None,
            history: history::History::new(generations),
            keeping,
            options,
            backend,
            prober,
            facts,
            commands,
            watched: watched::Watched::default(),
            tally: Arc::default(),
            published,
            turns,
            turn: Turn::default(),
            notifier,
            asked: BTreeMap::new(),
            last_request: Request(0),
            waiting: BTreeMap::new(),
            ended: VecDeque::new(),
            last_event: 0,
            finished: None,
            is_followed: false,
            has_looked: false,
            is_unkept: false,
            effects: Vec::new(),
            exited: Vec::new(),
            numbers: VecDeque::new(),
        };
        (driver, handle)
    }

    /// Runs until everything has ended; the result is the supervisor's exit code.
    pub async fn run(mut self) -> u8 {
        self.take_over();
        self.begin_reload(Trigger::Start, None, handle::ReloadOptions::default());
        loop {
            let deadline = self.poll_timeout();
            let history = self.history.again();
            let unwritten = [self.keeping.store.again(), history].into_iter().flatten().min();
            tokio::select! {
                biased;
                Some(fact) = self.facts.recv() => self.take_facts(fact),
                () = until(deadline) => self.hand_on(),
                () = sleep_until(unwritten) => self.keep_again(),
                () = sleep_until(self.notifier.turn_due()) => {}
                Some(work) = self.desk.done() => self.take_work(work),
                Some(command) = self.commands.recv() => self.take_command(command),
            }
            self.look_at_checkpoint();
            self.publish();
            self.tell_manager();
            // Whoever only wants to know something needs many turns of the runtime for it, and where
            // hundreds of processes crash there is always one more fact.
            tokio::task::yield_now().await;
            if self.is_followed {
                // What is done from here on nobody would know of.
                std::future::pending::<()>().await;
            }
            if let Some(code) = self.finished {
                if self.options.ends_by_itself {
                    // Who begins a foreground again wants all of it again.
                    self.keeping.store.clear();
                }
                return code;
            }
        }
    }

    /// When the machine, what is on trial, or what is to be confirmed is to be looked at next.
    fn poll_timeout(&self) -> Option<Mono> {
        let trial = self.trying.trial.as_ref().and_then(Trial::poll_timeout);
        let undone = self.checkpoint_due();
        [self.machine.poll_timeout(), trial, undone].into_iter().flatten().min()
    }

    /// What the service manager is told after each turn, whatever was in it.
    fn tell_manager(&mut self) {
        // However a reload ended: its end is told.
        if self.notifier.is_started() && self.desk.is_at_rest() {
            self.notifier.ready();
        }
        if let Some(deadline) = self.machine.poll_timeout() {
            self.notifier.still_stopping(deadline.since(now()));
        }
        self.notifier.turned();
    }

    fn take_facts(&mut self, first: Event) {
        self.take_in(first);
        for _ in 1..FACTS_AT_ONCE {
            match self.facts.try_recv() {
                Ok(fact) => self.take_in(fact),
                Err(_) => break,
            }
        }
        self.hand_on();
    }

    /// Gives the machine one event, and hands its effects on.
    fn feed(&mut self, event: Event) {
        self.take_in(event);
        self.hand_on();
    }

    fn take_in(&mut self, event: Event) {
        self.store_pidfd(&event);
        self.machine.handle(event, now(), &mut self.effects);
    }

    /// Hands on what came of all that was taken in, and of what is due by now: a run that ended and
    /// is to be replaced at once is written down once.
    fn hand_on(&mut self) {
        let now = now();
        if self.machine.poll_timeout().is_some_and(|at| at <= now) {
            self.machine.handle_timeout(now, &mut self.effects);
        }
        let is_handing_over = self.desk.handover.is_some();
        if !is_handing_over {
            self.judge();
        }
        let effects = std::mem::take(&mut self.effects);
        self.keep_and_carry_out(effects);
        if is_handing_over && self.judge_handed_over() {
            let effects = std::mem::take(&mut self.effects);
            self.keep_and_carry_out(effects);
        }
        self.tell_verdict();
    }

    /// First what is to be done, then what is to be told of it: telling takes longer, and
    /// a process is waited for.
    fn carry_out(&mut self, mut effects: Vec<Effect>) {
        let told_from = effects.partition_point(|effect| effect.part() < Part::Tells);
        for effect in effects.drain(..told_from) {
            self.carry_out_one(effect);
        }
        self.backend.begin();
        self.let_ended_go();
        for effect in effects.drain(..) {
            self.carry_out_one(effect);
        }
        // Kept for its allocation, unless that was for a whole configuration.
        if effects.capacity() <= EFFECTS_KEPT {
            self.effects = effects;
        }
    }

    fn carry_out_one(&mut self, effect: Effect) {
        match effect {
            Effect::Spawn { instance, run, slot, generation, spec } => {
                self.backend.spawn(&instance, run, slot, generation, &spec);
            }
            Effect::Terminate { instance, run, stop } => {
                self.backend.terminate(&instance, run, &stop);
            }
            Effect::Kill { instance, run } => self.backend.kill(&instance, run),
            Effect::Signal { instance, run, signal, whom } => {
                self.backend.signal(&instance, run, signal, whom);
            }
            Effect::Limit { instance, run, spec } => self.backend.limit(&instance, run, &spec),
            Effect::Probe { instance, run, probe, check, spec } => {
                self.prober.probe(&instance, run, probe, check, &spec);
            }
            Effect::Reload { instance, run, reload, main, command, timeout, spec } => {
                let command = RunCommand { main, command, timeout };
                self.prober.reload(&instance, run, reload, command, &spec);
            }
            Effect::Answer { request, answer } => self.answer(request, answer),
            Effect::JobNew { job, .. } if self.is_hidden(job) => {}
            Effect::JobNew { job, kind, instance } => self.job_new(job, kind, instance),
            Effect::JobRemoved { job, kind: JobKind::Reload, instance: None, .. }
                if self.keeps_end(job) => {}
            Effect::JobRemoved { job, kind, instance, result, detail } => {
                self.job_removed(JobEnd { id: job, kind, instance, result, detail });
            }
            Effect::RunExited { instance, run: _, generation, pid, status } => {
                self.turn.exits.push(handle::ExitNotice { instance, generation, pid, status });
            }
            Effect::ReloadFinished(report) => self.reload_finished(report),
            Effect::Note(note) => self.record(&note),
            Effect::Finished { code } => self.finished = Some(code),
        }
    }

    fn request(&mut self, asked: Asked) -> Request {
        self.last_request = Request(self.last_request.0 + 1);
        self.asked.insert(self.last_request, asked);
        self.last_request
    }

    fn answer(&mut self, request: Request, answer: Result<Vec<JobId>, Refusal>) {
        // A caller that went away does not want the answer any more.
        match self.asked.remove(&request) {
            Some(Asked::Jobs(instances, reply)) => {
                let accepted = answer.map(|jobs| {
                    let pairs = instances.into_iter().zip(jobs);
                    pairs.map(|(instance, job)| Accepted { instance, job }).collect()
                });
                let _ = reply.send(accepted.map_err(DriverError::Refused));
            }
            Some(Asked::Nothing(reply)) => {
                let _ = reply.send(answer.map(|_| ()).map_err(DriverError::Refused));
            }
            Some(Asked::Config) => self.config_answered(answer),
            Some(Asked::Withdrawn) => self.withdrawn(answer.as_deref().unwrap_or_default()),
            None => {}
        }
    }

    fn job_new(&mut self, id: JobId, kind: JobKind, instance: Option<InstanceId>) {
        let created = std::time::SystemTime::now();
        let job = handle::JobView { id, kind, instance, created };
        self.published.add_job(job.clone());
        self.turn.jobs_new.push(job);
    }

    fn job_removed(&mut self, end: JobEnd) {
        self.published.remove_job(end.id);
        for waiter in self.waiting.remove(&end.id).into_iter().flatten() {
            let _ = waiter.send(end.clone());
        }
        if self.ended.len() == ENDS_KEPT {
            self.ended.pop_front();
        }
        self.ended.push_back(end.clone());
        self.turn.jobs_removed.push(end);
    }

    fn take_command(&mut self, command: Command) {
        match command {
            Command::Start { names, once, reply } => self.on_instances(names, reply, |r, i| {
                Event::StartRequested { request: r, instances: i, once }
            }),
            Command::Stop { names, reply } => self.on_instances(names, reply, |r, i| {
                Event::StopRequested { request: r, instances: i }
            }),
            Command::Restart { names, reply } => self.on_instances(names, reply, |r, i| {
                Event::RestartRequested { request: r, instances: i }
            }),
            Command::ReloadProcess { names, reply } => self.on_instances(names, reply, |r, i| {
                Event::ReloadRequested { request: r, instances: i }
            }),
            Command::Signal { name, signal, whom, reply } => match self.one(&name) {
                Ok(instance) => {
                    let request = self.request(Asked::Nothing(reply));
                    self.feed(Event::SignalRequested { request, instance, signal, whom });
                }
                Err(error) => refuse(reply, error),
            },
            Command::ResetFailed { names, reply } => match self.published.resolve(&names) {
                Ok(instances) => {
                    let request = self.request(Asked::Nothing(reply));
                    self.feed(Event::ResetFailedRequested { request, instances });
                }
                Err(refusal) => refuse(reply, DriverError::Refused(refusal)),
            },
            Command::Reload { trigger, options, reply } => {
                self.begin_reload(trigger, Some(reply), options);
            }
            Command::SetEnabled { names, enabled, trigger, reply } => {
                self.set_enabled(&names, enabled, trigger, reply);
            }
            Command::Apply { handed, reply } => self.apply(handed, reply),
            Command::Commit { generation, uid, reply } => {
                let _ = reply.send(self.commit(generation, uid));
            }
            Command::SetConfirmTimeout { generation, within, reply } => {
                let _ = reply.send(self.set_confirm_timeout(generation, within));
            }
            Command::TakeBack { generation, uid, reply } => {
                self.take_back_tentative(generation, uid, reply);
            }
            Command::Rollback { to, write, uid, reply } => self.roll_back(to, write, uid, reply),
            Command::Plan { content, reply } => self.begin_plan(content, reply),
            Command::History { reply } => self.list_history(reply),
            Command::ShowGeneration { number, reply } => self.show_generation(number, reply),
            Command::DiffGenerations { old, new, reply } => self.diff_generations(old, new, reply),
            Command::WaitJob { job, reply } => self.wait_job(job, reply),
            Command::OpenLog { name, request, reply } => {
                let log = self.one(&name).and_then(|id| self.open_log(&id, request));
                let _ = reply.send(log);
            }
            Command::PidFd { instance, reply } => {
                let run = self.machine.run_of(&instance);
                let fd = run.and_then(|run| self.backend.pidfd(&instance, run));
                let missing = || DriverError::Refused(Refusal::NotRunning(instance));
                let _ = reply.send(fd.ok_or_else(missing));
            }
            Command::MakeWay { reply } => self.make_way(reply),
            Command::Shutdown => {
                self.notifier.stopping();
                self.feed(Event::ShutdownRequested);
            }
            Command::Kill => self.feed(Event::KillRequested),
        }
    }

    fn on_instances(
        &mut self,
        names: Vec<String>,
        reply: Reply<Vec<Accepted>>,
        event: impl FnOnce(Request, Vec<InstanceId>) -> Event,
    ) {
        match self.published.resolve(&names) {
            Ok(instances) => {
                let request = self.request(Asked::Jobs(instances.clone(), reply));
                self.feed(event(request, instances));
            }
            Err(refusal) => refuse(reply, DriverError::Refused(refusal)),
        }
    }

    /// The one instance that a name means.
    fn one(&self, name: &str) -> Result<InstanceId, DriverError> {
        let found = self.published.resolve(&[name.to_owned()]).map_err(DriverError::Refused)?;
        match found.as_slice() {
            [only] => Ok(only.clone()),
            _ => Err(DriverError::NotAvailable(format!(
                "{name:?} means {} instances; name one, such as {}",
                found.len(),
                found[0]
            ))),
        }
    }

    fn wait_job(&mut self, job: JobId, reply: oneshot::Sender<JobEnd>) {
        if self.published.job(job).is_some() {
            self.waiting.entry(job).or_default().push(reply);
        } else if let Some(end) = self.ended.iter().rev().find(|end| end.id == job) {
            let _ = reply.send(end.clone());
        }
    }

    fn open_log(
        &self,
        id: &InstanceId,
        request: LogRequest,
    ) -> Result<Option<std::os::fd::OwnedFd>, DriverError> {
        let missing = || DriverError::Refused(Refusal::NoSuchProcess(id.to_string()));
        let view = self.machine.view(id).ok_or_else(missing)?;
        let log = self.backend.open_log(id, &view.spec, request);
        log.transpose().map_err(|error| {
            DriverError::NotAvailable(format!("the log of {id} cannot be read: {error}"))
        })
    }
}

fn refuse<T>(reply: Reply<T>, error: DriverError) {
    let _ = reply.send(Err(error));
}

async fn sleep_until(at: Option<std::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// Waits for a point of the machine's time; for ever when there is none.
async fn until(deadline: Option<crate::core::time::Mono>) {
    match deadline {
        // The runtime's clock would go on to the next millisecond.
        Some(at) if at <= now() => {}
        Some(at) => tokio::time::sleep(at.since(now())).await,
        None => std::future::pending().await,
    }
}
