//! The client library: what every front end knows of the daemon.
//!
//! It uses none of the daemon's modules. All calls go over D-Bus, on a bus or peer to peer on the
//! private socket; the front end sees no difference. Needs a tokio runtime.

mod error;
mod types;

pub use error::ClientError;
pub use types::*;

use std::os::fd::OwnedFd;
use std::path::PathBuf;

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
#[derive(Clone, Debug)]
pub struct Client {
    endpoint: String,
}

impl Client {
    /// Connects, and makes sure that a daemon is there. Never has one started.
    ///
    /// # Errors
    /// [`ClientError::NotRunning`] when there is none.
    pub async fn connect(target: &Target) -> Result<Client, ClientError> {
        let _ = target;
        unimplemented!()
    }

    /// Where it is connected to, for people: `/run/provost/private` or `the system bus`.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The whole.
    ///
    /// # Errors
    /// When the daemon cannot be asked.
    pub async fn manager(&self) -> Result<ManagerStatus, ClientError> {
        unimplemented!()
    }

    /// What the names stand for, in the order of the ids; all, when there are none. A name is `api`
    /// (short for `api@0`), `api@2`, `api@*`, `tag:web` or a glob.
    ///
    /// # Errors
    /// [`ClientError::NoSuchProcess`] when a name means nothing.
    pub async fn status(&self, names: &[String]) -> Result<Vec<ProcessStatus>, ClientError> {
        let _ = names;
        unimplemented!()
    }

    /// Asks and returns as soon as the jobs exist.
    ///
    /// # Errors
    /// When a name means nothing or an instance may not run; then nothing is done at all.
    pub async fn submit(&self, verb: Verb, names: &[String]) -> Result<Vec<JobRef>, ClientError> {
        let _ = (verb, names);
        unimplemented!()
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
        progress: impl FnMut(&JobOutcome),
    ) -> Result<Vec<JobOutcome>, ClientError> {
        let _ = (verb, names, progress);
        unimplemented!()
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
        let _ = (name, whom, signal);
        unimplemented!()
    }

    /// Has failed and waiting instances tried again at once.
    ///
    /// # Errors
    /// When a name means nothing.
    pub async fn reset_failed(&self, names: &[String]) -> Result<(), ClientError> {
        let _ = names;
        unimplemented!()
    }

    /// Has the files read and applied, and returns when that has ended.
    ///
    /// # Errors
    /// [`ClientError::ConfigInvalid`] when the files are not valid; then nothing was changed. A
    /// process that did not come up is no error but in the summary.
    pub async fn reload(&self, options: &ReloadOptions) -> Result<ReloadSummary, ClientError> {
        let _ = options;
        unimplemented!()
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
        let _ = (names, enabled);
        unimplemented!()
    }

    /// What a reload would do. `content` stands in for the file with the processes; None: what is
    /// on the daemon's disk.
    ///
    /// # Errors
    /// When the daemon cannot be asked. That the files are not valid is in the summary.
    pub async fn plan(&self, content: Option<OwnedFd>) -> Result<PlanSummary, ClientError> {
        let _ = content;
        unimplemented!()
    }

    /// All that is wrong with `content` in the place of the file with the processes.
    ///
    /// # Errors
    /// When the daemon cannot be asked.
    pub async fn validate(&self, content: OwnedFd) -> Result<Vec<DiagnosticLine>, ClientError> {
        let _ = content;
        unimplemented!()
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
        let _ = (cursor, limit);
        unimplemented!()
    }

    /// The cursor after the newest line of the event log.
    ///
    /// # Errors
    /// When the daemon cannot be asked.
    pub async fn events_tail(&self) -> Result<String, ClientError> {
        unimplemented!()
    }

    /// Lines of the event log after the cursor as they come.
    ///
    /// # Errors
    /// When the daemon cannot be asked.
    pub async fn follow_events(&self, cursor: Option<&str>) -> Result<EventStream, ClientError> {
        let _ = cursor;
        unimplemented!()
    }

    /// What instances wrote lately, and with `follow` what they write.
    ///
    /// # Errors
    /// When a name means nothing or the log cannot be read.
    pub async fn open_log(&self, names: &[String], follow: bool) -> Result<Log, ClientError> {
        let _ = (names, follow);
        unimplemented!()
    }

    /// Tells when something has changed.
    ///
    /// # Errors
    /// When the daemon cannot be asked.
    pub async fn watch(&self) -> Result<Watch, ClientError> {
        unimplemented!()
    }
}

/// Lines of the event log as they come.
#[derive(Debug)]
pub struct EventStream {
    _private: (),
}

impl EventStream {
    /// The next line; waits for it. May be dropped while it waits; nothing is lost.
    ///
    /// # Errors
    /// [`ClientError::Gone`] when the daemon went away.
    pub async fn next(&mut self) -> Result<EventLine, ClientError> {
        unimplemented!()
    }
}

/// Tells when something has changed.
#[derive(Debug)]
pub struct Watch {
    _private: (),
}

impl Watch {
    /// Waits until anything about the daemon, a process or a job has changed. Changes that came
    /// together count as one. May be dropped while it waits; nothing is lost.
    ///
    /// # Errors
    /// [`ClientError::Gone`] when the daemon went away; then [`Client::connect`] again.
    pub async fn changed(&mut self) -> Result<(), ClientError> {
        unimplemented!()
    }
}
