//! What the daemon says, as data. Words of closed sets (states, results, kinds) stay strings: a newer
//! daemon may know more of them, and an unknown one is shown as it is.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

/// All about one instance.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProcessStatus {
    /// `api@0`.
    pub id: String,
    /// `api`.
    pub process: String,
    /// 0.
    pub instance: u32,
    /// The name for people; empty when the file gives none.
    pub display_name: String,
    /// The description for people; empty when the file gives none.
    pub description: String,
    /// In alphabetical order.
    pub tags: Vec<String>,
    /// What the file says.
    pub enabled: bool,
    /// The operator's word: `up` or `down`.
    pub desired: String,
    /// `active`, `inactive`, `activating`, `deactivating` or `failed`.
    pub active_state: String,
    /// `down`, `waiting`, `starting`, `running`, `stopping`, `backoff`, `completed` or `failed`.
    pub state: String,
    /// A finer word within the state, such as `checking` or `killing`; mostly empty.
    pub phase: String,
    /// Since when it is in that state.
    pub since: Option<SystemTime>,
    /// How the last run ended: `success`, `exit-code`, `signal`, `core-dump`, `oom-kill`, `spawn-failed`, `timeout`,
    /// `unhealthy`, `stopped`; empty before there was one.
    pub result: String,
    /// `none`, `starting`, `healthy` or `unhealthy`.
    pub health: String,
    /// What the last failed check said.
    pub health_detail: String,
    /// What the run last said of itself.
    pub status_text: String,
    /// When the last check was answered.
    pub last_check: Option<SystemTime>,
    /// The main process.
    pub pid: Option<u32>,
    /// The main process of its other run, while there are two.
    pub overlap_pid: Option<u32>,
    /// How the last main process ended.
    pub exit: Option<Exit>,
    /// Restarts by policy since the supervisor knows it.
    pub restarts: u32,
    /// How long until it is started again.
    pub next_restart: Option<Duration>,
    /// When the current run was started.
    pub started: Option<SystemTime>,
    /// Bytes; None when unknown.
    pub memory: Option<u64>,
    /// Processor time of the current run; None when unknown.
    pub cpu: Option<Duration>,
    /// Processes and threads; None when unknown.
    pub tasks: Option<u64>,
    /// What the file limits it to.
    pub limits: Limits,
    /// The control group; empty when it has none of its own.
    pub control_group: String,
    /// What keeps it from starting, in words.
    pub waiting_for: Vec<String>,
    /// Whether a restart is due because the file differs from the run.
    pub needs_restart: bool,
    /// The file of its program is another than when its run began.
    pub program_changed: bool,
    /// The generation of its spec.
    pub generation: u64,
    /// The names of its environment variables.
    pub environment_names: Vec<String>,
    /// One sentence why it is not up; empty when it is.
    pub reason: String,
    /// What happened last, oldest first.
    pub history: Vec<HistoryLine>,
    /// Where its output goes: `journal`, `file`, `memory` or `none`.
    pub log_kind: String,
}

/// What the file limits a process to; None where it does not.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Limits {
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Bytes of memory above which it is slowed down.
    pub memory_high: Option<u64>,
    /// Processors.
    pub cpu: Option<f64>,
    /// Processes and threads.
    pub tasks: Option<u64>,
    /// Bytes of memory above which it gets a new run.
    pub max_memory_restart: Option<u64>,
    /// Those that do not hold for its run, by their keys in the file.
    pub unenforced: Vec<String>,
}

/// How a main process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// With this code.
    Code(i32),
    /// By this signal.
    Signal {
        /// Its number.
        signal: i32,
        /// Whether it left a core dump.
        core: bool,
    },
}

/// One line of the history of an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryLine {
    /// When.
    pub at: SystemTime,
    /// The stable name of the kind, such as `exited`.
    pub kind: String,
    /// One line for people.
    pub message: String,
}

/// The daemon and its configuration as a whole.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ManagerStatus {
    /// The version of the daemon.
    pub version: String,
    /// `native` or `systemd`.
    pub backend: String,
    /// The main file.
    pub config_file: String,
    /// `starting`, `running`, `degraded`, `reloading` or `stopping`.
    pub system_state: String,
    /// `applied`, `applying`, `rejected`, `failed-kept`, `rolled-back` or `rollback-incomplete`.
    pub config_state: String,
    /// What there is to be said where the files are not what runs; else empty.
    pub config_detail: String,
    /// The active generation; 0 before there is one.
    pub generation: u64,
    /// SHA-256 of the active configuration, in hex.
    pub digest: String,
    /// Which generation the files are, as last read; 0 where they are none that is kept.
    pub disk_generation: u64,
    /// How many reloads ended in which way, since the daemon was started.
    pub reloads: BTreeMap<String, u64>,
    /// When the main file was last modified.
    pub last_modified: Option<SystemTime>,
    /// When a configuration was last applied.
    pub last_reloaded: Option<SystemTime>,
    /// Whether the files are watched.
    pub watching: bool,
    /// Whether the files, as last read, are valid.
    pub valid: bool,
    /// What was wrong with the files as last read. The texts have no excerpts.
    pub diagnostics: Vec<DiagnosticLine>,
    /// Instances.
    pub processes: u32,
    /// Instances the file enables.
    pub enabled: u32,
    /// Instances that are running.
    pub running: u32,
    /// Instances that failed or wait for another try.
    pub failed: u32,
    /// Instances whose check says unhealthy.
    pub unhealthy: u32,
    /// Jobs that have not ended.
    pub jobs: u32,
}

/// A generation that is undone unless somebody confirms it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointStatus {
    /// Which.
    pub generation: u64,
    /// `trying`, `waiting` or `undoing`.
    pub state: String,
    /// When it is undone; None while it is not up yet, and once it is being undone.
    pub deadline: Option<SystemTime>,
}

/// How bad a diagnostic is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The configuration cannot be used.
    Error,
    /// The configuration can be used.
    Warning,
}

/// One thing that is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiagnosticLine {
    /// How bad it is.
    pub severity: Severity,
    /// The stable name of the rule, such as `unknown-key`.
    pub code: String,
    /// Counted from 1; 0 when it is about the file as a whole.
    pub line: u32,
    /// In characters, counted from 1; 0 when it is about the file as a whole.
    pub column: u32,
    /// For people; several lines, with an excerpt of the file, where the caller may see it.
    pub text: String,
}

/// What a reload would do to one process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// `api`.
    pub process: String,
    /// `added`, `removed` or `modified`.
    pub kind: String,
    /// `live`, `start`, `stop` or `restart`.
    pub consequence: String,
    /// The keys that differ.
    pub fields: Vec<FieldChange>,
    /// Other processes that are restarted or held because of this.
    pub touches: Vec<String>,
    /// `started`, `health` or `notify`: when a run that begins because of this is ready; empty where
    /// none does.
    pub awaits: String,
    /// How long that may take.
    pub awaits_within: Duration,
    /// The run before goes on until that one is ready.
    pub overlaps: bool,
}

/// One key that differs. Secrets are masked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldChange {
    /// As in the file, `restartPolicy.delay`.
    pub key: String,
    /// Empty where there was none.
    pub old: String,
    /// Empty where there is none.
    pub new: String,
    /// `live`, `start`, `stop` or `restart`.
    pub consequence: String,
}

/// What a reload would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlanSummary {
    /// What would change; empty when the files are not valid.
    pub changes: Vec<Change>,
    /// Errors and warnings, each with an excerpt.
    pub diagnostics: Vec<DiagnosticLine>,
    /// What it was compared with.
    pub generation: u64,
}

impl PlanSummary {
    /// Whether the files can be used.
    #[must_use]
    pub fn valid(&self) -> bool {
        self.diagnostics.iter().all(|line| line.severity != Severity::Error)
    }
}

/// What is asked of instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Up.
    Start {
        /// Also what the file disables, until the next stop or reload.
        once: bool,
    },
    /// Down.
    Stop,
    /// A new run.
    Restart,
    /// The same run, with its settings taken anew.
    Reload,
}

/// A job that has begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobRef {
    /// Its number.
    pub id: u32,
    /// `api@0`; empty for a reload.
    pub name: String,
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobOutcome {
    /// Its number.
    pub id: u32,
    /// `api@0`.
    pub name: String,
    /// `done`, `canceled`, `timeout`, `failed`, `dependency` or `skipped`.
    pub result: String,
    /// In words where there is more to say; may be empty.
    pub detail: String,
}

impl JobOutcome {
    /// Whether the caller got what was asked for.
    #[must_use]
    pub fn is_success(&self) -> bool {
        matches!(self.result.as_str(), "done" | "skipped")
    }
}

/// Options of a reload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReloadOptions {
    /// Only apply on top of this generation.
    pub expect_generation: Option<u64>,
    /// Apply again although nothing differs.
    pub force: bool,
}

/// Options of handing a file over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApplyOptions {
    /// Only apply on top of this generation.
    pub expect_generation: Option<u64>,
    /// It is undone unless it is confirmed within so much time from when it is up.
    pub confirm: Option<Duration>,
}

/// What a reload came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReloadSummary {
    /// The generation that is active now.
    pub generation: u64,
    /// `applied`, `unchanged`, `failed-kept`, `rolled-back`, `rollback-incomplete` or `superseded`.
    pub result: String,
    /// What caused it: `start`, `file`, `signal`, `uid 1000`.
    pub trigger: String,
    /// Processes that are new.
    pub added: Vec<String>,
    /// Processes that are gone.
    pub removed: Vec<String>,
    /// Processes that changed.
    pub modified: Vec<String>,
    /// How many did not change.
    pub unchanged: u32,
    /// Instances that did not come up.
    pub failed: Vec<String>,
    /// The generation that was tried, where another one is active.
    pub tried: Option<u64>,
    /// What did not come up or back, and why; one sentence each.
    pub why: Vec<String>,
    /// How long each stage took, in order.
    pub timings: Vec<(String, Duration)>,
    /// From the acceptance to the end.
    pub took: Duration,
    /// What was done.
    pub steps: Vec<Step>,
}

/// One step of a reload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// `api@0`.
    pub name: String,
    /// `stop`, `live`, `restart` or `start`.
    pub kind: String,
    /// `done`, `held`, `failed` or `superseded`.
    pub state: String,
    /// How long it took.
    pub took: Duration,
    /// Why it failed or is held; else empty.
    pub why: String,
}

/// A configuration that was accepted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Generation {
    /// Counted from 1.
    pub number: u64,
    /// When it was accepted.
    pub time: Option<SystemTime>,
    /// `start`, `file`, `signal`, `caller`, `apply`, `checkpoint` or `rollback`.
    pub cause: String,
    /// The same for people.
    pub cause_text: String,
    /// The user of whoever asked.
    pub uid: Option<u32>,
    /// For a rollback: of which generation its content is.
    pub rollback_to: Option<u64>,
    /// What ran before it.
    pub base: Option<u64>,
    /// `applying`, `applied`, `rolling-back`, `rolled-back`, `rollback-incomplete`, `failed-kept` or
    /// `superseded`.
    pub state: String,
    /// Whether it is what runs.
    pub running: bool,
    /// What did not come up or back, and why.
    pub why: Vec<String>,
    /// SHA-256 of its files, in hex.
    pub digest: String,
    /// How many processes it added.
    pub added: u32,
    /// How many it removed.
    pub removed: u32,
    /// How many it changed.
    pub modified: u32,
    /// How many it left as they were.
    pub unchanged: u32,
}

/// All about one generation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GenerationPage {
    /// In short.
    pub generation: Generation,
    /// What it changed.
    pub changes: Vec<Change>,
    /// What was done.
    pub steps: Vec<Step>,
    /// How long each stage took, in order.
    pub timings: Vec<(String, Duration)>,
    /// What was remarked on its files.
    pub diagnostics: Vec<String>,
    /// When its newest file was last modified.
    pub last_modified: Option<SystemTime>,
    /// In the order they were read.
    pub files: Vec<FileText>,
}

/// One file of a generation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileText {
    /// `main`, `processes`, `drop-in` or `env`.
    pub kind: String,
    /// Absolute.
    pub path: String,
    /// Its text, in which values of variables are masked; None where there was no such file.
    pub text: Option<String>,
}

/// What differs between two configurations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// False: one of the two is not valid, and there are no changes.
    pub comparable: bool,
    /// By process and key.
    pub changes: Vec<Change>,
    /// By file.
    pub files: Vec<FileDifference>,
}

/// What differs in one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileDifference {
    /// Absolute.
    pub path: String,
    /// `added`, `removed` or `modified`.
    pub kind: String,
    /// Whether values of variables differ, which are not shown.
    pub hidden: bool,
    /// The hunks of a unified diff; empty where nothing that is shown differs.
    pub hunks: String,
}

/// One line of the event log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventLine {
    /// When.
    pub at: SystemTime,
    /// The stable name of the kind, such as `exited`.
    pub kind: String,
    /// `api@0`; None when it is about all.
    pub instance: Option<String>,
    /// The run.
    pub run: Option<u64>,
    /// The job.
    pub job: Option<u32>,
    /// One line for people.
    pub message: String,
}

/// Where the output of an instance can be read.
#[derive(Debug)]
pub enum Log {
    /// From here, until end of file.
    Stream(std::os::fd::OwnedFd),
    /// In the journal, by this command.
    Journal(String),
}
