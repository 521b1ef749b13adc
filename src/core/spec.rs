//! What a process is to be. Only a value that passed validation is one of these types; what the
//! file may say and how it is said is the business of the configuration module.
//!
//! Large parts are shared by reference, so that ten thousand processes made from one template cost
//! ten thousand small structs and not ten thousand copies.

use crate::ids::{Generation, ProcessId};
use crate::limits::Limits;
use crate::shared::Shared;
use crate::unit::{Sandbox, UnitProperties};
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

pub use crate::template::{Rendered, Text};

/// A value that must not be shown: an environment value. Its `Debug` and `Display` are a mask.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub Text);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// What is executed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// A program and its arguments. A program without a slash is looked up in the PATH of the
    /// process.
    Program {
        /// The program; also `argv[0]`.
        program: Text,
        /// The rest of the argument vector.
        args: Arc<[Text]>,
    },
    /// A line for `/bin/sh -c`.
    Shell(Text),
}

impl Command {
    /// The argument vector for one instance, `argv[0]` first.
    #[must_use]
    pub fn argv(&self, index: u32) -> Vec<Rendered> {
        match self {
            Command::Program { program, args } => {
                std::iter::once(program).chain(args.iter()).map(|t| t.rendered(index)).collect()
            }
            Command::Shell(line) => {
                let shell = ["/bin/sh", "-c"].map(Rendered::from);
                shell.into_iter().chain([line.rendered(index)]).collect()
            }
        }
    }
}

/// Where standard output and standard error go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogTarget {
    /// To the journal where there is one, else as prefixed lines to the supervisor's own output;
    /// where a `logFile` is given, to that file alone.
    Auto,
    /// To the journal, and to the log file too where one is given; an error where there is none.
    Journal,
    /// Nowhere.
    None,
}

/// When a log file is rotated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRotation {
    /// No file is larger, in bytes.
    pub max_size: u64,
    /// So many rotated files are kept, besides the one that is written.
    pub max_files: u32,
}

/// Where a socket that is held for a process takes connections.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Listen {
    /// TCP.
    Tcp(SocketAddr),
    /// A unix socket (stream).
    Unix {
        /// Absolute.
        path: Arc<str>,
        /// The permissions of its file.
        mode: u32,
    },
}

impl Listen {
    /// The place alone, where only one socket can be.
    #[must_use]
    pub fn place(&self) -> Listen {
        match self {
            Listen::Unix { path, .. } => Listen::Unix { path: path.clone(), mode: 0 },
            Listen::Tcp(_) => self.clone(),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Tcp(address) => write!(f, "{address}"),
            Listen::Unix { path, mode } => write!(f, "{path} ({mode:04o})"),
        }
    }
}

/// The part of a spec that a running process has already taken in: a change of any of it needs a
/// new run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecSpec {
    /// What is executed.
    pub command: Command,
    /// Working directory, absolute.
    pub cwd: Text,
    /// User name or number. None: what the daemon's mode says (the unprivileged default user on
    /// the system, the caller elsewhere).
    pub user: Option<Arc<str>>,
    /// Group name or number. None: the user's primary group.
    pub group: Option<Arc<str>>,
    /// File mode creation mask; 0o022 where None.
    pub umask: Option<u32>,
    /// Scheduling priority, -20 to 19.
    pub nice: Option<i8>,
    /// The environment beyond the base set, resolved, by name.
    pub env: Arc<BTreeMap<String, Secret>>,
    /// `RLIMIT_NOFILE`, soft and hard. None: the usual limits of a login.
    pub max_files: Option<u64>,
    /// Absolute path of the log file.
    pub log_file: Option<Text>,
    /// Where output goes besides the file.
    pub log_target: LogTarget,
    /// When the log file is rotated. None: never.
    pub log_rotation: Option<LogRotation>,
    /// Absolute path of the file that holds the pid while the process runs.
    pub pid_file: Option<Text>,
    /// Sockets that are held for it, by the names it knows them by.
    #[serde(default, skip_serializing_if = "is_default")]
    pub sockets: Arc<BTreeMap<Arc<str>, Listen>>,
    /// What of the machine it may see and do, where systemd runs it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub sandbox: Sandbox,
    /// Properties of its unit, where systemd runs it; their words, by name.
    #[serde(default, skip_serializing_if = "is_default")]
    pub unit: Arc<UnitProperties>,
}

/// When a dependency counts as met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Condition {
    /// It was executed.
    Started,
    /// It is ready (what that means is its own `readiness`).
    Ready,
    /// Its check says healthy.
    Healthy,
    /// It has ended with success.
    Completed,
}

/// One edge of the dependency graph.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Dependency {
    /// What is depended on.
    pub on: ProcessId,
    /// When it counts as met.
    pub condition: Condition,
    /// Whether the dependent is restarted when the dependency's run ends.
    pub restart: bool,
}

/// When a run counts as ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Readiness {
    /// As soon as it was executed.
    Started,
    /// With the first success of its check. Only where there is a check.
    Health,
    /// When it says so by itself: READY=1 of sd_notify(3).
    Notify,
}

impl Readiness {
    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Readiness::Started => "started",
            Readiness::Health => "health",
            Readiness::Notify => "notify",
        }
    }
}

/// What a run is told of how it may speak for itself (sd_notify(3)). It takes it in when it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notify {
    /// It is to say WATCHDOG=1 at least once in so long. None: it need not.
    pub watchdog: Option<Duration>,
}

/// Which ends of a run are followed by another run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartCondition {
    /// Every end.
    Always,
    /// Every end that is no success.
    OnFailure,
    /// Every end; an operator's stop also outlives a reboot.
    UnlessStopped,
    /// None: a one-shot.
    No,
}

/// Whether and when a run is followed by another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RestartPolicy {
    /// Which ends are followed by another run.
    pub condition: RestartCondition,
    /// The first delay. Zero: the first retry is immediate, the next wait from 100 ms on.
    pub delay: Duration,
    /// The delay grows up to here.
    pub max_delay: Duration,
    /// What it is multiplied with each time, at least 1.
    pub factor: f64,
    /// The delay is varied by up to this fraction, 0 to 1, either way.
    pub jitter: f64,
    /// This long ready and healthy in one run resets delay and attempts.
    pub min_uptime: Duration,
    /// Give up after so many restarts without such a run. None: never.
    pub max_attempts: Option<u32>,
    /// Exit codes that count as success.
    pub success_exit_codes: BTreeSet<u8>,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        RestartPolicy {
            condition: RestartCondition::Always,
            delay: Duration::from_secs(1),
            max_delay: Duration::from_secs(300),
            factor: 2.0,
            jitter: 0.2,
            min_uptime: Duration::from_secs(10),
            max_attempts: None,
            success_exit_codes: BTreeSet::from([0]),
        }
    }
}

/// How health is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Check {
    /// GET of an `http:` URL; a status of 200 to 299 is healthy. Redirects are not followed.
    Http(Text),
    /// A TCP connection to `host:port` that is accepted.
    Tcp(Text),
    /// A command run as the process's user, in its directory, with its environment; exit 0 is
    /// healthy.
    Exec(Arc<[Text]>),
    /// Nobody asks: it says WATCHDOG=1 of sd_notify(3) at least once in each interval.
    Notify,
}

/// What a failed check leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFailure {
    /// The run is ended; the restart policy decides what follows.
    Restart,
    /// Nothing; the state is shown.
    None,
    /// The run is ended and the instance stays down as failed.
    Stop,
}

/// A health check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// How health is asked for.
    pub check: Check,
    /// From the end of one check to the next; of [`Check::Notify`], the longest silence.
    pub interval: Duration,
    /// One deadline for all of one check.
    pub timeout: Duration,
    /// Failures in the first so much of a run do not count.
    pub start_period: Duration,
    /// So many failures in a row make it unhealthy, at least 1.
    pub failure_threshold: u32,
    /// So many successes in a row make an unhealthy one healthy again, at least 1. The first
    /// success of a run makes it healthy at once.
    pub success_threshold: u32,
    /// What becoming unhealthy leads to.
    pub on_failure: OnFailure,
}

impl HealthCheck {
    /// A check with the default schedule.
    #[must_use]
    pub fn new(check: Check) -> HealthCheck {
        HealthCheck {
            check,
            interval: Duration::from_secs(30),
            timeout: Duration::from_secs(5),
            start_period: Duration::from_secs(10),
            failure_threshold: 3,
            success_threshold: 1,
            on_failure: OnFailure::Restart,
        }
    }
}

/// A signal by its number on Linux, 1 to 64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Signal(pub u8);

impl Signal {
    /// The default way to ask a process to end.
    pub const TERM: Signal = Signal(15);
    /// Cannot be caught.
    pub const KILL: Signal = Signal(9);
}

/// How a run is ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopSpec {
    /// Asks the main process to end; what is left of its tree gets it when the main process is
    /// gone.
    pub signal: Signal,
    /// After this the whole tree is killed.
    pub timeout: Duration,
}

impl Default for StopSpec {
    fn default() -> Self {
        StopSpec { signal: Signal::TERM, timeout: Duration::from_secs(30) }
    }
}

/// How a run takes new settings without a new run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReloadSpec {
    /// A signal to its main process.
    Signal(Signal),
    /// A command run as the process's user, in its directory, with its environment and `MAINPID`;
    /// exit 0 is success.
    Command {
        /// The program and its arguments.
        command: Arc<[Text]>,
        /// It is killed, and has failed, after so long.
        timeout: Duration,
    },
}

/// What follows a change of files that a process watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WatchAction {
    /// A new run.
    Restart,
    /// The run takes its settings anew, as its [`ReloadSpec`] says.
    Reload,
}

/// Files that a process has watched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchSpec {
    /// Files, and directories with all that is in them; absolute.
    pub paths: Arc<[Text]>,
    /// Names below a directory that do not matter, with `*` and `?`.
    pub ignore: Arc<[Arc<str>]>,
    /// What follows a change.
    pub action: WatchAction,
    /// A finished write settles for so long.
    pub debounce: Duration,
}

/// One process of the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProcessSpec {
    /// Its key in the file.
    pub id: ProcessId,
    /// For people.
    pub name: Option<Arc<str>>,
    /// For people.
    pub description: Option<Arc<str>>,
    /// For people and for `tag:web`.
    pub tags: BTreeSet<Arc<str>>,
    /// Whether it may run at all.
    pub enabled: bool,
    /// How many run, at least 1.
    pub instances: u32,
    /// So many at most are down for a new run at the same time.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub max_unavailable: NonZeroU32,
    /// Whether a new run may begin beside the one that it replaces.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub overlap: bool,
    /// What a run takes in when it starts.
    pub exec: ExecSpec,
    /// Sorted by the process depended on, one edge for each.
    pub depends_on: Vec<Dependency>,
    /// When a run counts as ready.
    pub readiness: Readiness,
    /// A run that is not ready by then has failed.
    pub start_timeout: Duration,
    /// What follows the end of a run.
    pub restart: Shared<RestartPolicy>,
    /// The check, where there is one and it is enabled.
    pub health: Option<Box<HealthCheck>>,
    /// How a run is ended.
    pub stop: StopSpec,
    /// How a run takes new settings. None: only a new run does.
    #[serde(default, skip_serializing_if = "is_default")]
    pub reload: Option<ReloadSpec>,
    /// Files whose change concerns it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub watch: Option<Box<WatchSpec>>,
    /// Its final end ends the supervisor, with its exit code.
    pub essential: bool,
    /// What all of a run may use together.
    #[serde(default, skip_serializing_if = "is_default")]
    pub limits: Shared<Limits>,
}

fn one() -> NonZeroU32 {
    NonZeroU32::MIN
}

fn is_one(value: &NonZeroU32) -> bool {
    *value == NonZeroU32::MIN
}

/// What most processes do not have is not written down of each.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl ProcessSpec {
    /// A process that runs `command` in `/`, everything else at its default.
    #[must_use]
    pub fn new(id: ProcessId, command: Command) -> ProcessSpec {
        ProcessSpec {
            id,
            name: None,
            description: None,
            tags: BTreeSet::new(),
            enabled: true,
            instances: 1,
            max_unavailable: NonZeroU32::MIN,
            overlap: false,
            exec: ExecSpec {
                command,
                cwd: Text::new("/"),
                user: None,
                group: None,
                umask: None,
                nice: None,
                env: Arc::default(),
                max_files: None,
                log_file: None,
                log_target: LogTarget::Auto,
                log_rotation: None,
                pid_file: None,
                sockets: Arc::default(),
                sandbox: Sandbox::None,
                unit: Arc::default(),
            },
            depends_on: Vec::new(),
            readiness: Readiness::Started,
            start_timeout: Duration::from_secs(60),
            restart: RestartPolicy::default().into(),
            health: None,
            stop: StopSpec::default(),
            reload: None,
            watch: None,
            essential: false,
            limits: Limits::default().into(),
        }
    }

    /// How its runs may speak for themselves; None where nothing is to be heard of them.
    #[must_use]
    pub fn notify(&self) -> Option<Notify> {
        let check = self.health.as_ref().filter(|health| health.check == Check::Notify);
        let watchdog = check.map(|health| health.interval);
        let is_heard = watchdog.is_some() || self.readiness == Readiness::Notify;
        is_heard.then_some(Notify { watchdog })
    }
}

/// Settings of the daemon that the core acts on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// False: no process is wanted, whatever its own `enabled` says.
    pub enabled: bool,
    /// False: an instance is wanted only once it was started by hand.
    pub auto_start: bool,
    /// What becomes of a change that does not come up.
    #[serde(default, skip_serializing_if = "is_usual")]
    pub rollback: Rollback,
    /// How long what a change touched must stay up for the change to be good.
    #[serde(default = "usual_settle", skip_serializing_if = "is_usual_settle")]
    pub settle: Duration,
    /// How long each that a change touched may take to be good. None: the longest `startTimeout`
    /// among them and `settle`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict_timeout: Option<Duration>,
}

/// What becomes of a change that does not come up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rollback {
    /// What was there before is put back.
    #[default]
    Auto,
    /// It is judged and stays: somebody decides.
    Manual,
    /// It is not judged.
    Off,
}

// What is as usual is not written: then it can be read by versions that do not know it.

fn is_usual(rollback: &Rollback) -> bool {
    *rollback == Rollback::default()
}

fn is_usual_settle(settle: &Duration) -> bool {
    *settle == usual_settle()
}

fn usual_settle() -> Duration {
    Duration::from_secs(5)
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            enabled: true,
            auto_start: true,
            rollback: Rollback::Auto,
            settle: usual_settle(),
            verdict_timeout: None,
        }
    }
}

/// What two configurations say of one process.
pub(crate) type Beside<'a> =
    (&'a ProcessId, Option<&'a Arc<ProcessSpec>>, Option<&'a Arc<ProcessSpec>>);

/// A whole validated configuration: every dependency exists and there is no cycle.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// Settings of the daemon.
    pub settings: Settings,
    /// All processes by id.
    pub processes: BTreeMap<ProcessId, Arc<ProcessSpec>>,
}

impl Config {
    /// Takes what is the same from another configuration: then it is there once, and is known to be
    /// the same at once.
    pub fn share(&mut self, other: &Config) {
        let same: Vec<Arc<ProcessSpec>> = self
            .beside(other)
            .filter_map(|(_, own, other)| own.zip(other))
            .filter(|(own, other)| !Arc::ptr_eq(own, other) && own == other)
            .map(|(_, other)| Arc::clone(other))
            .collect();
        for spec in same {
            self.processes.insert(spec.id.clone(), spec);
        }
    }

    /// The processes of two configurations side by side, in their order: what this one says of each,
    /// and what the other one does.
    pub(crate) fn beside<'a>(&'a self, other: &'a Config) -> impl Iterator<Item = Beside<'a>> {
        let mut own = self.processes.iter().peekable();
        let mut others = other.processes.iter().peekable();
        std::iter::from_fn(move || {
            let order = match (own.peek(), others.peek()) {
                (None, None) => return None,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((one, _)), Some((two, _))) => one.cmp(two),
            };
            let one = if order.is_le() { own.next() } else { None };
            let two = if order.is_ge() { others.next() } else { None };
            let (id, _) = one.or(two)?;
            Some((id, one.map(|(_, spec)| spec), two.map(|(_, spec)| spec)))
        })
    }

    /// Whether it says the same of a process as another configuration.
    #[must_use]
    pub fn says_the_same(&self, other: &Config, id: &ProcessId) -> bool {
        match (self.processes.get(id), other.processes.get(id)) {
            // `Arc` compares what it has even where it is one.
            (Some(one), Some(two)) => Arc::ptr_eq(one, two) || one == two,
            (one, two) => one.is_none() && two.is_none(),
        }
    }
}

/// A configuration with its number.
#[derive(Clone, Debug, PartialEq)]
pub struct Numbered {
    /// Its number.
    pub generation: Generation,
    /// Its content.
    pub config: Arc<Config>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_its_argument_vector() {
        let args = Arc::from([Text::new("-p"), Text::new("300\0")]);
        let program = Command::Program { program: Text::new("node"), args };
        let argv = |command: &Command, index| {
            let words = command.argv(index).into_iter();
            words.map(|word| word.value().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(argv(&program, 1), ["node", "-p", "3001"]);
        let line = Command::Shell(Text::new("echo \0 | cat"));
        assert_eq!(argv(&line, 2), ["/bin/sh", "-c", "echo 2 | cat"]);
        assert!(Text::new("300\0").depends_on_instance());
        assert!(!Text::new("3000").depends_on_instance());
        assert_eq!(format!("{:?}", Text::from("300\0")), r#""300${INSTANCE}""#);
    }

    #[test]
    fn a_secret_is_never_shown() {
        let secret = Secret(Text::new("hunter2"));
        assert_eq!(format!("{secret} {secret:?}"), "*** ***");
    }
}
