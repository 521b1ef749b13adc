//! What was asked for and what came of it.
//!
//! A job is one verb on one instance (or one reload of all). There is at most one job on an
//! instance: the same verb again merges with the running job and its caller gets the same number;
//! another verb supersedes it, and it ends as [`JobResult::Canceled`]. Every job ends, and ends
//! once: its end is reported by [`crate::event::Effect::JobRemoved`], and then nothing knows it any
//! more.

use crate::ids::{InstanceId, JobId};
use crate::time::Mono;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What a job is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JobKind {
    /// Ends when the instance is ready, or its first run failed.
    Start,
    /// Ends when nothing is left of the instance.
    Stop,
    /// Ends when a new run is ready, or failed.
    Restart,
    /// Of all: ends when all that the plan named has settled. Of an instance: when its run has taken
    /// new settings, or could not.
    Reload,
}

impl JobKind {
    /// The verb.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            JobKind::Start => "start",
            JobKind::Stop => "stop",
            JobKind::Restart => "restart",
            JobKind::Reload => "reload",
        }
    }
}

impl fmt::Display for JobKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What came of a job; systemd's words (org.freedesktop.systemd1(5), JobRemoved).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JobResult {
    /// What was asked for is so.
    Done,
    /// A newer verb, or the end of the instance, superseded it.
    Canceled,
    /// The instance was not ready in time.
    Timeout,
    /// The run failed.
    Failed,
    /// A dependency is disabled, stopped or failed.
    Dependency,
    /// There was nothing to do.
    Skipped,
}

impl JobResult {
    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            JobResult::Done => "done",
            JobResult::Canceled => "canceled",
            JobResult::Timeout => "timeout",
            JobResult::Failed => "failed",
            JobResult::Dependency => "dependency",
            JobResult::Skipped => "skipped",
        }
    }

    /// Whether the caller got what was asked for.
    #[must_use]
    pub fn is_success(self) -> bool {
        matches!(self, JobResult::Done | JobResult::Skipped)
    }
}

impl fmt::Display for JobResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A job that has not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Its number.
    pub id: JobId,
    /// What it is for.
    pub kind: JobKind,
    /// On what; None for a reload.
    pub instance: Option<InstanceId>,
    /// Since when.
    pub created: Mono,
}
