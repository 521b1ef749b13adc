//! The program that stands between a process and its log file, where the file is rotated or the
//! output goes to the journal as well. It holds the reading end of the pipe that is the standard
//! output and standard error of one run, and depends on nobody: it outlives the daemon, and ends at
//! the end of file, which is when nothing of the run is left.
//!
//! It runs as the user of the process, so that it opens, renames and removes what that user may.
//! One buffer is all the memory it needs.
//!
//! | module | owns |
//! |---|---|
//! | [`arguments`] | the command line, shared with the daemon |
//! | [`files`] | the log file and those it was rotated to |
//! | [`log`] | writing: locks, rotation |
//! | [`sink`] | from the pipe to the log; what is lost on a full disk is counted |
//! | [`show`] | reading: the last lines, and what is added, through rotations |
//!
//! Its descriptors: 0 is what it writes (showing: closes when the daemon ends), 1 is the copy or
//! what it shows, 2 tells the daemon: the line [`READY`] once the log is open, before that why it
//! cannot be opened, and after that what a person should know.

pub mod arguments;
pub mod files;
pub mod log;
pub mod show;
pub mod sink;

use arguments::Job;
use std::io::{self, Write};
use std::process::ExitCode;

/// The line that says that the log is open.
pub const READY: &str = "ready";

/// Usage errors, as sysexits(3) has it.
const USAGE: u8 = 64;

/// All of the program.
#[must_use]
pub fn main() -> ExitCode {
    // It ends when there is nothing left to write: whoever ends the processes of a machine or of a
    // terminal does not want to lose what they write at their end.
    if let Err(error) = nix::sys::signal::SigSet::all().thread_block() {
        tell(&format!("signals cannot be blocked: {error}"));
    }
    let Some(job) = Job::parse(std::env::args_os().skip(1)) else {
        tell("provost-log is started by provostd");
        return ExitCode::from(USAGE);
    };
    let result = match job {
        Job::Write { path, rotation, copy } => sink::run(path, rotation, copy),
        Job::Show { path, lines, follow } => show::run(&path, lines, follow),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(&reason(&error));
            ExitCode::FAILURE
        }
    }
}

/// What the system says, without the number.
fn reason(error: &io::Error) -> String {
    if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) {
        return "it is a symbolic link, which is not followed".to_owned();
    }
    let text = error.to_string();
    match text.rfind(" (os error ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

/// Tells the daemon, if it still listens.
fn tell(text: &str) {
    let _ = io::stderr().write_all(format!("{text}\n").as_bytes());
}
