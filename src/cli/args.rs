//! What may be typed.

use super::{exit, human};
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use std::path::PathBuf;
use std::time::Duration;

/// Keeps an application's processes running, from one file.
#[derive(Debug, Parser)]
#[command(name = "provost", version, max_term_width = 100, after_help = exit::TOP)]
#[command(disable_help_subcommand = true)]
pub struct Cli {
    /// What is the same for every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do; `status` where there is none.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Options of every command.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "For every command")]
pub struct Global {
    /// Talk to the system's daemon
    #[arg(long, global = true)]
    pub system: bool,
    /// Talk to the user's daemon
    #[arg(long, global = true)]
    pub user: bool,
    /// Talk to the daemon that listens on this socket
    #[arg(long, global = true, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Print data as table, wide (more columns) or json
    #[arg(short, long, global = true, value_name = "FORMAT", default_value = "table")]
    #[arg(hide_possible_values = true)]
    pub output: Format,
    /// Use colour auto (on a terminal, without NO_COLOR), always or never
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    #[arg(hide_possible_values = true)]
    pub color: When,
    /// Print nothing but errors and asked-for data
    #[arg(short, long, global = true)]
    pub quiet: bool,
}

/// How to print data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    Table,
    /// For people, with more columns
    Wide,
    /// For programs
    Json,
}

/// When to use colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum When {
    /// On a terminal
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the processes of a file in the foreground, until Ctrl-C
    #[command(after_help = exit::UP)]
    Up(Up),
    /// Show what runs, and why what does not run does not
    #[command(after_help = exit::STATUS)]
    Status(Status),
    /// Start processes and wait until they are ready
    #[command(after_help = exit::VERB)]
    Start(Start),
    /// Stop processes (dependents first) and wait until nothing is left of them
    #[command(after_help = exit::VERB)]
    Stop(Verb),
    /// Restart processes and wait until they are ready
    #[command(after_help = exit::VERB)]
    Restart(Verb),
    /// Send a signal
    #[command(after_help = exit::VERB)]
    Signal(Signal),
    /// Try failed processes again, and waiting ones at once
    #[command(after_help = exit::VERB)]
    ResetFailed(Names),
    /// Set `enabled: true` in the file, comments kept, and apply it
    #[command(after_help = exit::EDIT)]
    Enable(Names),
    /// Set `enabled: false` in the file, comments kept, and apply it
    #[command(after_help = exit::EDIT)]
    Disable(Names),
    /// Apply what changed in the files; with names, have processes take their settings anew
    #[command(after_help = exit::RELOAD_OR_PROCESS)]
    Reload(Reload),
    /// Show all that is wrong with a file; needs no daemon
    #[command(after_help = exit::CHECK)]
    Check(Check),
    /// Show what a reload would do, and do nothing
    #[command(after_help = exit::PLAN)]
    Plan(Plan),
    /// Put a file in the place of the one with the processes, and apply it
    #[command(after_help = exit::RELOAD)]
    Apply(Apply),
    /// Keep what was applied with --confirm
    #[command(after_help = exit::CONFIRM)]
    Confirm(Confirm),
    /// Apply a configuration of before again, as a new one; take back what waits to be confirmed
    #[command(after_help = exit::RELOAD)]
    Rollback(Rollback),
    /// List the configurations that were accepted, and what came of each
    #[command(after_help = exit::HISTORY)]
    History(History),
    /// Show what differs between two configurations; without names: what runs, and the one before it
    #[command(after_help = exit::DIFF)]
    Diff(Diff),
    /// Show a configuration that was accepted, with its files as they were
    #[command(after_help = exit::HISTORY)]
    Show(Show),
    /// Show what processes write
    #[command(after_help = exit::QUERY)]
    Logs(Logs),
    /// Show what happened
    #[command(after_help = exit::QUERY)]
    Events(Events),
    /// Wait until processes are in a state
    #[command(after_help = exit::WAIT)]
    Wait(Wait),
    /// Explain the state of a process: what happened, what is awaited, what to do
    #[command(after_help = exit::QUERY)]
    Why(Names),
    /// Have the daemon go on as the program that is on disk by now; processes stay as they are
    #[command(after_help = exit::REEXEC)]
    DaemonReexec,
    /// Print the JSON schema of the file, for editors
    #[command(after_help = exit::PRINT)]
    Schema,
    /// Print completions for a shell
    #[command(after_help = exit::PRINT)]
    Completions {
        /// Which shell
        shell: Shell,
    },
    /// Whether processes are up (systemctl's word)
    #[command(hide = true)]
    IsActive(Names),
    /// Whether processes have failed (systemctl's word)
    #[command(hide = true)]
    IsFailed(Names),
    /// Whether the file enables processes (systemctl's word)
    #[command(hide = true)]
    IsEnabled(Names),
}

impl Default for Command {
    fn default() -> Self {
        Command::Status(Status::default())
    }
}

impl Command {
    /// The names of processes in it.
    #[must_use]
    pub fn names(&self) -> &[String] {
        match self {
            Command::Status(args) => &args.names,
            Command::Start(args) => &args.on.names,
            Command::Stop(args) | Command::Restart(args) => &args.on.names,
            Command::Signal(args) => &args.words,
            Command::Wait(args) => &args.on.names,
            Command::Logs(args) => &args.names,
            Command::Events(args) => &args.names,
            Command::Reload(args) => &args.names,
            Command::ResetFailed(args)
            | Command::Enable(args)
            | Command::Disable(args)
            | Command::Why(args)
            | Command::IsActive(args)
            | Command::IsFailed(args)
            | Command::IsEnabled(args) => &args.names,
            Command::Up(_)
            | Command::Check(_)
            | Command::Plan(_)
            | Command::Apply(_)
            | Command::Confirm(_)
            | Command::Rollback(_)
            | Command::History(_)
            | Command::Diff(_)
            | Command::Show(_)
            | Command::DaemonReexec
            | Command::Schema
            | Command::Completions { .. } => &[],
        }
    }
}

/// One or more names.
#[derive(Debug, Args)]
pub struct Names {
    /// Processes, instances, globs, or `tag:TAG`
    #[arg(required = true, value_name = "NAME")]
    pub names: Vec<String>,
}

/// Arguments of `up`.
#[derive(Debug, Args)]
pub struct Up {
    /// The file; without it ./provost.yaml, else ./processes.yaml
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What compose calls it.
    #[arg(short, long, hide = true)]
    pub detach: bool,
    /// Only say whether this program can take the place of one that writes these formats
    #[arg(long, value_name = "FORMATS", hide = true)]
    pub can_take_over: Option<String>,
}

/// Arguments of `status`.
#[derive(Debug, Default, Args)]
pub struct Status {
    /// Only these; exactly one name shows a page about it
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    /// Only what is not as it should be
    #[arg(long)]
    pub failed: bool,
}

/// How long to wait for a result.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct Waiting {
    /// Return as soon as the daemon has accepted it
    #[arg(long)]
    pub no_wait: bool,
    /// Wait at most so long; what was asked for goes on
    #[arg(long, value_name = "TIME", value_parser = human::parse_duration, conflicts_with = "no_wait")]
    pub timeout: Option<Duration>,
}

/// Arguments of `stop` and `restart`.
#[derive(Debug, Args)]
pub struct Verb {
    /// On what
    #[command(flatten)]
    pub on: Names,
    /// How long to wait
    #[command(flatten)]
    pub waiting: Waiting,
}

/// Arguments of `start`.
#[derive(Debug, Args)]
pub struct Start {
    /// On what
    #[command(flatten)]
    pub on: Names,
    /// Also what the file disables, until the next stop or reload
    #[arg(long)]
    pub once: bool,
    /// How long to wait
    #[command(flatten)]
    pub waiting: Waiting,
}

/// Arguments of `signal`.
#[derive(Debug, Args)]
#[command(override_usage = "provost signal [OPTIONS] SIGNAL NAME...")]
pub struct Signal {
    /// The signal, where it is not the first argument
    #[arg(short, long, value_name = "SIGNAL", hide = true)]
    pub signal: Option<String>,
    /// Send it to the main process only, or to all of its descendants too (all)
    #[arg(long, value_name = "WHOM", default_value = "main", hide_possible_values = true)]
    pub whom: Whom,
    /// HUP, SIGHUP or a number; and then processes, instances, globs, or `tag:TAG`
    #[arg(required = true, value_names = ["SIGNAL", "NAME"], num_args = 1..)]
    pub words: Vec<String>,
}

/// Whom a signal is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Whom {
    /// The main process
    Main,
    /// The main process and all its descendants
    All,
}

/// Arguments of `reload`.
#[derive(Debug, Args)]
pub struct Reload {
    /// Processes that take their settings anew, as their `reload` in the file says; none: the files
    #[arg(value_name = "NAME", conflicts_with_all = ["force", "expect_generation"])]
    pub names: Vec<String>,
    /// Apply again although nothing differs
    #[arg(long)]
    pub force: bool,
    /// Only on top of this generation
    #[arg(long, value_name = "N")]
    pub expect_generation: Option<u64>,
    /// Then also restart what runs a program whose file was replaced, as by an upgrade
    #[arg(long)]
    pub restart_changed_binaries: bool,
    /// Wait at most so long; the reload goes on
    #[arg(long, value_name = "TIME", value_parser = human::parse_duration)]
    pub timeout: Option<Duration>,
    /// With names: return as soon as the daemon has accepted it
    #[arg(long, requires = "names", conflicts_with = "timeout")]
    pub no_wait: bool,
}

/// Arguments of `check`.
#[derive(Debug, Args)]
pub struct Check {
    /// The file, `-` is standard input; without it ./provost.yaml, ./processes.yaml, else the user's,
    /// else the system's
    pub file: Option<PathBuf>,
    /// Warnings are errors
    #[arg(long)]
    pub strict: bool,
}

/// Arguments of `plan`.
#[derive(Debug, Args)]
pub struct Plan {
    /// Instead of the daemon's own file with the processes; `-` is standard input
    pub file: Option<PathBuf>,
}

/// Arguments of `apply`.
#[derive(Debug, Args)]
pub struct Apply {
    /// The file; `-` is standard input
    pub file: PathBuf,
    /// Only show what it would do
    #[arg(long, conflicts_with = "confirm")]
    pub dry_run: bool,
    /// Only on top of this generation
    #[arg(long, value_name = "N")]
    pub expect_generation: Option<u64>,
    /// Undo it unless it is confirmed within this time from when it is up
    #[arg(long, value_name = "TIME", value_parser = human::parse_duration)]
    pub confirm: Option<Duration>,
}

/// Arguments of `confirm`.
#[derive(Debug, Args)]
pub struct Confirm {
    /// Only this generation
    #[arg(value_name = "GENERATION", value_parser = parse_generation)]
    pub generation: Option<u64>,
}

/// Arguments of `rollback`.
#[derive(Debug, Args)]
pub struct Rollback {
    /// The number of a generation; without it, the one before what waits to be confirmed, or else
    /// before what runs
    #[arg(value_name = "GENERATION", value_parser = parse_generation)]
    pub number: Option<u64>,
    /// Also put the files back as they were then; else they wait until they change
    #[arg(long)]
    pub write: bool,
}

/// Arguments of `history`.
#[derive(Debug, Args)]
pub struct History {
    /// Only so many of the newest
    #[arg(short = 'n', long, value_name = "N")]
    pub lines: Option<u64>,
}

/// Arguments of `diff`.
#[derive(Debug, Args)]
pub struct Diff {
    /// From this one: the number of a generation, `running`, or `disk`
    #[arg(value_name = "OLD", value_parser = parse_which)]
    pub old: Option<Which>,
    /// To this one; without it, what runs
    #[arg(value_name = "NEW", value_parser = parse_which)]
    pub new: Option<Which>,
    /// By the lines of the files instead of by process and key
    #[arg(long)]
    pub text: bool,
}

/// Arguments of `show`.
#[derive(Debug, Args)]
pub struct Show {
    /// The number of a generation
    #[arg(value_name = "GENERATION", value_parser = parse_generation)]
    pub number: u64,
}

/// A configuration that can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// A generation.
    Number(u64),
    /// The generation that runs.
    Running,
    /// What is on disk.
    Disk,
}

fn parse_which(text: &str) -> Result<Which, String> {
    match text {
        "running" => Ok(Which::Running),
        "disk" => Ok(Which::Disk),
        text => positive(text).map(Which::Number).ok_or_else(|| {
            "write the number of a generation, `running` or `disk`; what a file would change is \
             shown by `provost plan FILE`"
                .to_owned()
        }),
    }
}

fn parse_generation(text: &str) -> Result<u64, String> {
    positive(text).ok_or_else(|| {
        "write the number of a generation; a process is shown by `provost status NAME` and \
         `provost why NAME`"
            .to_owned()
    })
}

fn positive(text: &str) -> Option<u64> {
    text.parse().ok().filter(|number| *number > 0)
}

/// Arguments of `logs`.
#[derive(Debug, Args)]
pub struct Logs {
    /// Processes, instances, globs, or `tag:TAG`
    #[arg(required = true, value_name = "NAME")]
    pub names: Vec<String>,
    /// Go on with what is written from now on
    #[arg(short, long)]
    pub follow: bool,
    /// So many of the last lines
    #[arg(short = 'n', long, value_name = "N", alias = "tail", default_value_t = 50)]
    pub lines: u64,
    /// Only what was written since: `10m` (ago), `14:05`, `2026-08-21`, `2026-08-21 14:05`
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
}

/// Arguments of `events`.
#[derive(Debug, Args)]
pub struct Events {
    /// Only about these
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    /// Go on with what happens from now on
    #[arg(short, long)]
    pub follow: bool,
    /// So many of the last ones
    #[arg(short = 'n', long, value_name = "N", default_value_t = 50)]
    pub lines: usize,
}

/// Arguments of `wait`.
#[derive(Debug, Args)]
pub struct Wait {
    /// For what
    #[command(flatten)]
    pub on: Names,
    /// Until they are running, healthy, down, completed, failed, or up: completed, or running and
    /// healthy where there is a check
    #[arg(long = "for", value_name = "STATE", default_value = "up", hide_possible_values = true)]
    pub state: Goal,
    /// At most so long
    #[arg(long, value_name = "TIME", value_parser = human::parse_duration)]
    pub timeout: Option<Duration>,
}

/// What `wait` can wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Goal {
    /// Running, healthy where there is a check, or completed
    Up,
    /// Running
    Running,
    /// Running and healthy
    Healthy,
    /// Down, with nothing left
    Down,
    /// Ended with success
    Completed,
    /// Ended, and not tried again
    Failed,
}
