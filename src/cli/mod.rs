//! The command line: a front end like any other. It talks to the daemon through [`crate::client`]
//! alone; `check` and `schema` use the configuration as a library and need no daemon, `up` is the
//! daemon itself in the foreground.
//!
//! Data goes to standard output, everything else to standard error. Exit codes are in [`exit`].

pub mod args;
mod check;
mod confirm;
mod diff;
mod events;
pub mod exit;
mod history;
mod human;
mod json;
mod log_source;
mod logs;
mod names;
mod plan;
mod progress;
mod reexec;
mod reload;
mod screen;
mod signal;
mod state;
mod status;
mod table;
pub mod target;
mod up;
mod verb;
mod wait;
mod why;
mod words;

use crate::client::ClientError;
use args::{Cli, Command, Format, Global};
use clap::{CommandFactory, Parser, error::ErrorKind};
use exit::Exit;
use screen::Screen;
use std::io::{self, Write};
use std::process::ExitCode;
use target::Found;

/// Why a command could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The daemon could not be asked, or refused.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Nobody reads the output any more, or it cannot be written.
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
    /// The command line makes no sense, which only showed after it was parsed.
    #[error("{0}")]
    Usage(String),
    /// Anything else; says what and what to do.
    #[error("{0}")]
    Failed(String),
}

impl CliError {
    fn exit(&self) -> Exit {
        match self {
            CliError::Client(ClientError::NoSuchProcess(_)) => Exit::NoSuchProcess,
            CliError::Usage(_) => Exit::Usage,
            // Whoever closed the output, such as `head`, has all that was wanted.
            CliError::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Ok,
            CliError::Client(_) | CliError::Output(_) | CliError::Failed(_) => Exit::Failed,
        }
    }
}

/// What a command comes to.
type Outcome = Result<Exit, CliError>;

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match words::translate(std::env::args_os().collect()) {
        words::Words::Answer(answer) => return usage(&answer),
        words::Words::Ours(args) => match Cli::try_parse_from(args) {
            Ok(cli) => cli,
            Err(error) => return parse_error(&error),
        },
    };
    let mut screen = Screen::new(&cli.global);
    match cli.command {
        Some(Command::Up(up)) => up::run(&up, &cli.global),
        command => {
            let outcome = run(command.unwrap_or_default(), &cli.global, &mut screen);
            finish(outcome, &mut screen)
        }
    }
}

/// clap's text with our exit code: its own 2 would look like an answer of `plan`.
fn parse_error(error: &clap::Error) -> ExitCode {
    // When nobody can see it, there is nobody to tell.
    let _ = error.print();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Exit::Ok.into(),
        _ => Exit::Usage.into(),
    }
}

fn usage(text: &str) -> ExitCode {
    let _ = writeln!(io::stderr(), "{text}");
    Exit::Usage.into()
}

fn finish(outcome: Outcome, screen: &mut Screen) -> ExitCode {
    let outcome = outcome.and_then(|exit| {
        screen.flush()?;
        Ok(exit)
    });
    match outcome {
        Ok(exit) => exit.into(),
        Err(error) => {
            let exit = error.exit();
            if exit != Exit::Ok {
                let label = screen.err_style.paint(screen::Tone::Bad, "error:");
                screen.error(format_args!("{label} {error}"));
            }
            exit.into()
        }
    }
}

/// Commands that need no daemon, and the way to those that do.
fn run(command: Command, global: &Global, screen: &mut Screen) -> Outcome {
    match command {
        Command::Check(args) => check::run(&args, global, screen),
        Command::Schema => {
            screen.value(&crate::config::schema::json_schema())?;
            Ok(Exit::Ok)
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "provost", &mut script);
            screen.raw(&script)?;
            Ok(Exit::Ok)
        }
        command => {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|error| CliError::Failed(format!("cannot begin: {error}")))?;
            runtime.block_on(ask(command, global, screen))
        }
    }
}

/// Commands that ask the daemon.
async fn ask(command: Command, global: &Global, screen: &mut Screen) -> Outcome {
    let found = target::connect(global).await?;
    tell_which(&command, &found, screen);
    let all = command.names().iter().any(|name| name == "all");
    let outcome = carry_out(command, &found, screen).await;
    if all && let Err(CliError::Client(ClientError::NoSuchProcess(_))) = &outcome {
        screen.note("note: all processes are '*', in quotes because of the shell");
    }
    outcome
}

async fn carry_out(command: Command, found: &Found, screen: &mut Screen) -> Outcome {
    let client = &found.client;
    match command {
        Command::Status(args) => status::run(&args, found, screen).await,
        Command::Start(args) => {
            let verb = crate::client::Verb::Start { once: args.once };
            verb::run(client, verb, &args.on.names, args.waiting, screen).await
        }
        Command::Stop(args) => {
            let verb = crate::client::Verb::Stop;
            verb::run(client, verb, &args.on.names, args.waiting, screen).await
        }
        Command::Restart(args) => {
            let verb = crate::client::Verb::Restart;
            verb::run(client, verb, &args.on.names, args.waiting, screen).await
        }
        Command::Signal(args) => signal::run(client, &args, screen).await,
        Command::ResetFailed(args) => verb::reset_failed(client, &args.names, screen).await,
        Command::Enable(args) => reload::set_enabled(client, &args.names, true, screen).await,
        Command::Disable(args) => reload::set_enabled(client, &args.names, false, screen).await,
        Command::Reload(args) if args.names.is_empty() => reload::run(client, &args, screen).await,
        Command::Reload(args) => {
            let waiting = args::Waiting { no_wait: args.no_wait, timeout: args.timeout };
            verb::run(client, crate::client::Verb::Reload, &args.names, waiting, screen).await
        }
        Command::Plan(args) => plan::run(client, &args, screen).await,
        Command::Apply(args) => reload::apply(client, &args, screen).await,
        Command::Confirm(args) => confirm::run(client, &args, screen).await,
        Command::Rollback(args) => reload::roll_back(client, &args, screen).await,
        Command::History(args) => history::run(client, &args, screen).await,
        Command::Diff(args) => diff::run(client, &args, screen).await,
        Command::Show(args) => history::show(client, &args, screen).await,
        Command::Logs(args) => logs::run(client, &args, screen).await,
        Command::Events(args) => events::run(client, &args, screen).await,
        Command::Wait(args) => wait::run(client, &args, screen).await,
        Command::Why(args) => why::run(client, &args.names, screen).await,
        Command::DaemonReexec => reexec::run(found, screen).await,
        Command::IsActive(args) => state::is_active(client, &args.names, screen).await,
        Command::IsFailed(args) => state::is_failed(client, &args.names, screen).await,
        Command::IsEnabled(args) => state::is_enabled(client, &args.names, screen).await,
        Command::Up(_) | Command::Check(_) | Command::Schema | Command::Completions { .. } => {
            unreachable!("needs no daemon and was done before")
        }
    }
}

/// Says which daemon it is where nobody said it: a command meant for one must not silently go to
/// another. `status` says it in its own heading, and questions of scripts need no answer but theirs.
fn tell_which(command: &Command, found: &Found, screen: &mut Screen) {
    let silent = matches!(
        command,
        Command::Status(_) | Command::IsActive(_) | Command::IsFailed(_) | Command::IsEnabled(_)
    );
    if found.guessed && !silent && screen.format != Format::Json && screen.err_style.terminal {
        let line = format!("{}:", found.whose);
        let line = screen.err_style.paint(screen::Tone::Quiet, line);
        screen.note(line);
    }
}
