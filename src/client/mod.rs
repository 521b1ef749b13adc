//! The client library: what every front end knows of the daemon.
//!
//! It uses none of the daemon's modules. All calls go over D-Bus, on a bus or peer to peer on the
//! private socket; the front end sees no difference. Needs a tokio runtime.

mod checkpoint;
mod connect;
mod content;
mod decode;
mod error;
mod generations;
mod matches;
pub mod proxies;
mod signals;
mod types;

pub use error::ClientError;
pub use types::*;

use connect::Link;
use proxies::{Dict, ManagerProxy, Options};
use signals::{Bell, Select, Signals};
use std::collections::{BTreeMap, VecDeque};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use zbus::OwnedObjectPath;
use zbus::proxy::CacheProperties;

/// Which daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The system's.
    System,
    /// The caller's own.
    User,
    /// The one that listens here.
    Socket(PathBuf),
}

/// A connection to a daemon. Cheap to clone.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    link: Link,
    manager: ManagerProxy<'static>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Client").field(&self.0.link.endpoint).finish()
    }
}

impl Client {
    /// Connects, and makes sure that a daemon is there. Never has one started.
    ///
    /// # Errors
    /// [`ClientError::NotRunning`] when there is none.
    pub async fn connect(target: &Target) -> Result<Client, ClientError> {
        connect::connect(target).await
    }

    /// Over a connection that is there: a bus at another address, or a peer. A peer hears every signal
    /// until somebody says what is wanted, which a client does: whoever listens on the same connection
    /// has to say it as well (`AddMatch`).
    ///
    /// # Errors
    /// [`ClientError::NotRunning`] when no daemon is on that bus.
    pub async fn over(connection: zbus::Connection) -> Result<Client, ClientError> {
        let link = if connection.is_bus() {
            connect::daemon_on(connection, "the message bus").await?
        } else {
            Link::new(connection, None, "a peer".to_owned())
        };
        Client::new(link).await
    }

    /// Where it is connected to, for people: `/run/provost/private` or `the system bus`.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.0.link.endpoint
    }

    /// The whole.
    ///
    /// # Errors
    /// When the daemon cannot be asked.
    pub async fn manager(&self) -> Result<ManagerStatus, ClientError> {
        let body = "org.provost.Provost1.Manager";
        let dict: Dict = self.properties_call("GetAll", body).await?;
        Ok(decode::manager(dict))
    }

    /// What the names stand for, in the order of the ids; all, when there are none. A name is `api`
    /// (short for `api@0`), `api@2`, `api@*`, `tag:web` or a glob.
    ///
    /// # Errors
    /// [`ClientError::NoSuchProcess`] when a name means nothing.
    pub async fn status(&self, names: &[String]) -> Result<Vec<ProcessStatus>, ClientError> {
        let found = self.0.manager.status(&strs(names)).await?;
        let now = monotonic();
        let mut all: Vec<ProcessStatus> =
            found.into_iter().map(|(id, dict)| decode::process(id, dict, now)).collect();
        all.sort_by(|a, b| (&a.process, a.instance, &a.id).cmp(&(&b.process, b.instance, &b.id)));
        Ok(all)
    }

    /// Asks and returns as soon as the jobs exist.
    ///
    /// # Errors
    /// When a name means nothing or an instance may not run; then nothing is done at all.
    pub async fn submit(&self, verb: Verb, names: &[String]) -> Result<Vec<JobRef>, ClientError> {
        let jobs = self.ask(verb, names).await?;
        let known = self.jobs().await?;
        let name_of = |id: u32| {
            let job = known.iter().find(|known| known.id == id);
            job.map(|job| job.name.clone()).unwrap_or_default()
        };
        Ok(jobs.into_iter().map(|id| JobRef { id, name: name_of(id) }).collect())
    }

    /// All that was asked for and has not ended.
    ///
    /// # Errors
    /// When the daemon cannot be asked.
    pub async fn jobs(&self) -> Result<Vec<JobRef>, ClientError> {
        let known = self.0.manager.list_jobs().await?;
        Ok(known.into_iter().map(|(id, _, name, _)| JobRef { id, name }).collect())
    }

    /// Asks and returns when all jobs have ended, in the order the jobs were given. `progress` gets
    /// each as it ends.
    ///
    /// # Errors
    /// As [`Client::submit`]. That a job failed is no error but its outcome.
    pub async fn run(
        &self,
        verb: Verb,
        names: &[String],
        mut progress: impl FnMut(&JobOutcome),
    ) -> Result<Vec<JobOutcome>, ClientError> {
        // Listens first: a job can end before the reply that names it is read.
        let mut signals = Signals::of(&self.0.link, Select::Member("JobRemoved")).await?;
        let jobs = self.ask(verb, names).await?;
        let mut ended: BTreeMap<u32, JobOutcome> = BTreeMap::new();
        while ended.len() < jobs.len() {
            let message = signals.next().await?;
            let (id, _, name, result): (u32, OwnedObjectPath, String, String) =
                message.body().deserialize()?;
            if !jobs.contains(&id) {
                continue;
            }
            let mut outcome = JobOutcome { id, name, result, detail: String::new() };
            if !outcome.is_success() {
                // A daemon that does not say more is no reason to fail.
                outcome.detail = self.0.manager.wait_job(id).await.unwrap_or_default().1;
            }
            progress(&outcome);
            ended.insert(id, outcome);
        }
        signals.end().await;
        Ok(jobs.iter().filter_map(|id| ended.remove(id)).collect())
    }

    /// [`Client::run`] with [`Verb::Start`].
    ///
    /// # Errors
    /// As [`Client::run`].
    pub async fn start(
        &self,
        names: &[String],
        once: bool,
        progress: impl FnMut(&JobOutcome),
    ) -> Result<Vec<JobOutcome>, ClientError> {
        self.run(Verb::Start { once }, names, progress).await
    }

    /// [`Client::run`] with [`Verb::Stop`].
    ///
    /// # Errors
    /// As [`Client::run`].
    pub async fn stop(
        &self,
        names: &[String],
        progress: impl FnMut(&JobOutcome),
    ) -> Result<Vec<JobOutcome>, ClientError> {
        self.run(Verb::Stop, names, progress).await
    }

    /// [`Client::run`] with [`Verb::Restart`].
    ///
    /// # Errors
    /// As [`Client::run`].
    pub async fn restart(
        &self,
        names: &[String],
        progress: impl FnMut(&JobOutcome),
    ) -> Result<Vec<JobOutcome>, ClientError> {
        self.run(Verb::Restart, names, progress).await
    }

    /// Sends a signal. `whom` is `main` or `all`.
    ///
    /// # Errors
    /// When the name means nothing, or it does not run.
    pub async fn signal(&self, name: &str, whom: &str, signal: i32) -> Result<(), ClientError> {
        Ok(self.0.manager.signal(name, whom, signal).await?)
    }

    /// Has failed and waiting instances tried again at once.
    ///
    /// # Errors
    /// When a name means nothing.
    pub async fn reset_failed(&self, names: &[String]) -> Result<(), ClientError> {
        Ok(self.0.manager.reset_failed(&strs(names)).await?)
    }

    /// Has the files read and applied, and returns when that has ended.
    ///
    /// # Errors
    /// [`ClientError::ConfigInvalid`] when the files are not valid; then nothing was changed. A
    /// process that did not come up is no error but in the summary.
    pub async fn reload(&self, options: &ReloadOptions) -> Result<ReloadSummary, ClientError> {
        let mut given = Options::from([("force", options.force.into())]);
        if let Some(generation) = options.expect_generation {
            given.insert("expect-generation", generation.into());
        }
        let signals = Signals::of(&self.0.link, Select::Manager).await?;
        let job = self.0.manager.reload(given).await?;
        self.reloaded(signals, job).await
    }

    /// Puts a content in the place of the file with the processes, and returns when it is applied.
    ///
    /// # Errors
    /// [`ClientError::ConfigInvalid`] when it is not valid; then the file is as it was.
    pub async fn apply(
        &self,
        content: OwnedFd,
        options: &ApplyOptions,
    ) -> Result<ReloadSummary, ClientError> {
        let content = content::regular(content).await?;
        let signals = Signals::of(&self.0.link, Select::Manager).await?;
        let mut given = Options::new();
        if let Some(within) = options.confirm {
            let usec = u64::try_from(within.as_micros()).unwrap_or(u64::MAX);
            given.insert("confirm-usec", usec.into());
        }
        if let Some(generation) = options.expect_generation {
            given.insert("expect-generation", generation.into());
        }
        let job = self.0.manager.apply(zbus::Fd::from(&content), given).await?;
        self.reloaded(signals, job).await
    }

    /// Applies an older generation again, and returns when that has ended; None: the one before
    /// what runs. `write`: the files on disk become what they were then.
    ///
    /// # Errors
    /// When it is not kept, or the files cannot be replaced; then nothing is changed.
    pub async fn roll_back(
        &self,
        to: Option<u64>,
        write: bool,
    ) -> Result<ReloadSummary, ClientError> {
        let signals = Signals::of(&self.0.link, Select::Manager).await?;
        let options = Options::from([("write", write.into())]);
        let job = self.0.manager.rollback(to.unwrap_or(0), options).await?;
        self.reloaded(signals, job).await
    }

    /// Has `enabled` of processes changed in the file, and returns when that is applied.
    ///
    /// # Errors
    /// When a name means nothing, or the file cannot be changed in place; then it is as it was.
    pub async fn set_enabled(
        &self,
        names: &[String],
        enabled: bool,
    ) -> Result<ReloadSummary, ClientError> {
        let signals = Signals::of(&self.0.link, Select::Manager).await?;
        let job = self.0.manager.set_enabled(&strs(names), enabled, Options::new()).await?;
        self.reloaded(signals, job).await
    }

    /// Has the program on disk go on in the place of the one that runs, and returns the version of it
    /// when that one is gone. This client is of no use any more then.
    ///
    /// # Errors
    /// What is in the way; then nothing has changed.
    pub async fn reexec(&self) -> Result<String, ClientError> {
        let mut signals = Signals::of(&self.0.link, Select::Member("ReloadFinished")).await?;
        let version = self.0.manager.reexec(Options::new()).await?;
        while signals.next().await.is_ok() {}
        Ok(version)
    }

    /// What a reload would do. `content` stands in for the file with the processes; None: what is
    /// on the daemon's disk.
    ///
    /// # Errors
    /// When the daemon cannot be asked. That the files are not valid is in the summary.
    pub async fn plan(&self, content: Option<OwnedFd>) -> Result<PlanSummary, ClientError> {
        let content = match content {
            Some(content) => Some(content::regular(content).await?),
            None => None,
        };
        let options = match &content {
            Some(content) => Options::from([("config", zbus::Fd::from(content).into())]),
            None => Options::new(),
        };
        let (changes, diagnostics, generation) = self.0.manager.plan_reload(options).await?;
        Ok(PlanSummary {
            changes: changes.into_iter().map(decode::change).collect(),
            diagnostics: diagnostics.into_iter().map(decode::diagnostic).collect(),
            generation,
        })
    }

    /// All that is wrong with `content` in the place of the file with the processes.
    ///
    /// # Errors
    /// When the daemon cannot be asked.
    pub async fn validate(&self, content: OwnedFd) -> Result<Vec<DiagnosticLine>, ClientError> {
        let content = content::regular(content).await?;
        let asked = self.0.manager.validate_config(zbus::Fd::from(&content), Options::new());
        let (_, diagnostics) = asked.await?;
        Ok(diagnostics.into_iter().map(decode::diagnostic).collect())
    }

    /// Lines of the event log after the cursor, oldest first, and the cursor after them. None: from
    /// the oldest line that is kept.
    ///
    /// # Errors
    /// When the daemon cannot be asked.
    pub async fn events(
        &self,
        cursor: Option<&str>,
        limit: u32,
    ) -> Result<(Vec<EventLine>, String), ClientError> {
        let (events, cursor) = self.0.manager.get_events(cursor.unwrap_or(""), limit).await?;
        Ok((events.into_iter().map(decode::event).collect(), cursor))
    }

    /// The cursor after the newest line of the event log.
    ///
    /// # Errors
    /// When the daemon cannot be asked.
    pub async fn events_tail(&self) -> Result<String, ClientError> {
        Ok(self.0.manager.get_events("tail", 0).await?.1)
    }

    /// Lines of the event log after the cursor as they come.
    ///
    /// # Errors
    /// When the daemon cannot be asked.
    pub async fn follow_events(&self, cursor: Option<&str>) -> Result<EventStream, ClientError> {
        let bell = Bell::of(&self.0.link, Select::Member("EventsAdded")).await?;
        let cursor = cursor.unwrap_or("").to_owned();
        Ok(EventStream { client: self.clone(), bell, cursor, read: VecDeque::new() })
    }

    /// The ids of all instances. Costs the supervisor nothing, other than [`Client::status`].
    ///
    /// # Errors
    /// When the daemon cannot be asked.
    pub async fn list(&self) -> Result<Vec<String>, ClientError> {
        let rows = self.0.manager.list_processes().await?;
        Ok(rows.into_iter().map(|(id, ..)| id).collect())
    }

    /// The last lines that instances wrote, and with `follow` what they write.
    ///
    /// # Errors
    /// When a name means nothing or the log cannot be read.
    pub async fn open_log(
        &self,
        names: &[String],
        lines: u64,
        follow: bool,
    ) -> Result<Log, ClientError> {
        let options = Options::from([("follow", follow.into()), ("lines", lines.into())]);
        match self.0.manager.open_log(&strs(names), options).await.map_err(ClientError::from) {
            Ok(stream) => Ok(Log::Stream(stream.into())),
            Err(ClientError::Refused { name, text }) if name == "LogInJournal" => {
                Ok(Log::Journal(text))
            }
            Err(error) => Err(error),
        }
    }

    /// What the last exec check of an instance that failed wrote at its end; empty where there is
    /// nothing.
    ///
    /// # Errors
    /// When the name means nothing, or the caller may not read its log.
    pub async fn check_output(&self, name: &str) -> Result<String, ClientError> {
        Ok(self.0.manager.get_check_output(name).await?)
    }

    /// What the last command of the `reload` of an instance that failed wrote at its end; empty where
    /// there is none.
    ///
    /// # Errors
    /// When the daemon cannot be asked, or the caller may not read the log.
    pub async fn reload_output(&self, name: &str) -> Result<String, ClientError> {
        Ok(self.0.manager.get_reload_output(name).await?)
    }

    /// Tells when something has changed.
    ///
    /// # Errors
    /// When the daemon cannot be asked.
    pub async fn watch(&self) -> Result<Watch, ClientError> {
        Ok(Watch { bell: Bell::of(&self.0.link, Select::All).await? })
    }

    async fn new(link: Link) -> Result<Client, ClientError> {
        let mut manager =
            ManagerProxy::builder(&link.connection).cache_properties(CacheProperties::No);
        if let Some(daemon) = &link.daemon {
            manager = manager.destination(daemon.clone());
        }
        let manager = manager.build().await?;
        Ok(Client(Arc::new(Inner { link, manager })))
    }

    /// The numbers of the jobs, each once, in the order given.
    async fn ask(&self, verb: Verb, names: &[String]) -> Result<Vec<u32>, ClientError> {
        let (manager, names) = (&self.0.manager, strs(names));
        let paths = match verb {
            Verb::Start { once } => {
                manager.start(&names, Options::from([("once", once.into())])).await?
            }
            Verb::Stop => manager.stop(&names, Options::new()).await?,
            Verb::Restart => manager.restart(&names, Options::new()).await?,
            Verb::Reload => manager.reload_process(&names, Options::new()).await?,
        };
        let mut jobs = Vec::with_capacity(paths.len());
        for path in &paths {
            let id = job_number(path)?;
            if !jobs.contains(&id) {
                jobs.push(id);
            }
        }
        Ok(jobs)
    }

    async fn properties_call<T>(&self, method: &str, interface: &str) -> Result<T, ClientError>
    where
        T: for<'d> serde::Deserialize<'d> + zbus::Type,
    {
        let proxy = self.0.manager.inner();
        let reply = proxy
            .connection()
            .call_method(
                Some(proxy.destination()),
                proxy.path(),
                Some("org.freedesktop.DBus.Properties"),
                method,
                &(interface,),
            )
            .await?;
        Ok(reply.body().deserialize()?)
    }

    /// Waits for the end of a reload.
    async fn reloaded(
        &self,
        mut signals: Signals,
        job: OwnedObjectPath,
    ) -> Result<ReloadSummary, ClientError> {
        if job.as_str() == "/" {
            let generation = self.0.manager.config_generation().await?;
            let result = "unchanged".to_owned();
            return Ok(ReloadSummary { generation, result, ..ReloadSummary::default() });
        }
        let mut ended = None;
        loop {
            let message = match ended {
                None => signals.next().await?,
                Some(_) => match tokio::time::timeout(AFTERMATH, signals.next()).await {
                    Ok(message) => message?,
                    Err(_) => break,
                },
            };
            let (header, body) = (message.header(), message.body());
            match header.member().map(|member| member.as_str()) {
                Some("ReloadFinished") => {
                    let (generation, result, info) = body.deserialize()?;
                    let (of, summary) = decode::reload(generation, result, info);
                    if of == job.as_str() {
                        return Ok(summary);
                    }
                }
                Some("JobRemoved") => {
                    let (_, of, _, result): (u32, OwnedObjectPath, String, String) =
                        body.deserialize()?;
                    if of == job {
                        ended = Some(result);
                    }
                }
                _ => {}
            }
        }
        let result = match ended.as_deref() {
            Some("done") => "applied",
            Some("canceled") => "superseded",
            _ => "failed-kept",
        };
        let generation = self.0.manager.config_generation().await?;
        Ok(ReloadSummary { generation, result: result.to_owned(), ..ReloadSummary::default() })
    }
}

/// How long after the end of a reload's job its summary may still come. It is lost when the daemon
/// had too much to tell.
const AFTERMATH: Duration = Duration::from_secs(2);

fn strs(names: &[String]) -> Vec<&str> {
    names.iter().map(String::as_str).collect()
}

fn job_number(path: &OwnedObjectPath) -> Result<u32, ClientError> {
    let number = path.rsplit('/').next().and_then(|last| last.parse().ok());
    number.ok_or_else(|| ClientError::Protocol(format!("{path} is no job")))
}

/// The clock on which the daemon gives the time of the next restart.
fn monotonic() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Duration::from_secs(time.tv_sec.unsigned_abs())
        + Duration::from_nanos(time.tv_nsec.unsigned_abs())
}

/// Lines of the event log as they come.
#[derive(Debug)]
pub struct EventStream {
    client: Client,
    bell: Bell,
    cursor: String,
    read: VecDeque<EventLine>,
}

impl EventStream {
    /// The next line; waits for it. May be dropped while it waits; nothing is lost.
    ///
    /// # Errors
    /// [`ClientError::Gone`] when the daemon went away.
    pub async fn next(&mut self) -> Result<EventLine, ClientError> {
        loop {
            if let Some(line) = self.read.pop_front() {
                return Ok(line);
            }
            let (lines, cursor) = self.client.events(Some(&self.cursor), 256).await?;
            self.cursor = cursor;
            if lines.is_empty() {
                self.bell.rung().await?;
            } else {
                self.read = lines.into();
            }
        }
    }
}

/// Tells when something has changed.
#[derive(Debug)]
pub struct Watch {
    bell: Bell,
}

impl Watch {
    /// Waits until anything about the daemon, a process or a job has changed. Changes that came
    /// together count as one. May be dropped while it waits; nothing is lost.
    ///
    /// # Errors
    /// [`ClientError::Gone`] when the daemon went away; then [`Client::connect`] again.
    pub async fn changed(&mut self) -> Result<(), ClientError> {
        self.bell.rung().await
    }
}
