//! What a process is told that is to become a command, and what it reports when it cannot.

use std::ffi::CString;

/// The most sockets that one command is given.
pub const MAX_SOCKETS: usize = 64;

/// The size of a report, in bytes.
pub const REPORT_LEN: usize = 12;

/// The index of a report that has none.
pub const NO_INDEX: u32 = u32::MAX;

/// The step that failed, in the order of the steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Stage {
    /// Its descriptors.
    Descriptors = 1,
    /// Starting a session of its own.
    Session = 2,
    /// Taking the sockets.
    Sockets = 3,
    /// Resource limits; the index is the number of the limit.
    Limits = 4,
    /// Scheduling priority.
    Nice = 5,
    /// Becoming user and group.
    Credentials = 6,
    /// The working directory.
    Cwd = 7,
    /// The log file; the index is the length of the directory that could not be made.
    LogFile = 8,
    /// The pid file; the index is the length of the directory that could not be made.
    PidFile = 9,
    /// Executing; the index is that of a candidate that exists and could not be executed.
    Exec = 10,
}

impl Stage {
    fn from_byte(byte: u8) -> Option<Stage> {
        use Stage::{
            Credentials, Cwd, Descriptors, Exec, Limits, LogFile, Nice, PidFile, Session, Sockets,
        };
        let all =
            [Descriptors, Session, Sockets, Limits, Nice, Credentials, Cwd, LogFile, PidFile, Exec];
        all.into_iter().find(|stage| *stage as u8 == byte)
    }
}

/// Why the command was not executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// The step.
    pub stage: Stage,
    /// What the kernel said.
    pub errno: i32,
    /// See [`Stage`]; [`NO_INDEX`] where there is none.
    pub index: u32,
}

impl Report {
    /// The bytes on the socket.
    pub(super) fn encode(&self) -> [u8; REPORT_LEN] {
        let [a, b, c, d] = self.errno.to_le_bytes();
        let [e, f, g, h] = self.index.to_le_bytes();
        [self.stage as u8, 0, 0, 0, a, b, c, d, e, f, g, h]
    }

    /// Reads what a process has said; None when it has said nothing.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Report> {
        let [stage, _, _, _, a, b, c, d, e, f, g, h] = *bytes else { return None };
        Some(Report {
            stage: Stage::from_byte(stage)?,
            errno: i32::from_le_bytes([a, b, c, d]),
            index: u32::from_le_bytes([e, f, g, h]),
        })
    }
}

/// Whom a process becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ids {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary group ids.
    pub groups: Vec<u32>,
}

/// One resource limit, see setrlimit(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// `RLIMIT_...`.
    pub resource: u32,
    /// The soft limit.
    pub soft: u64,
    /// The hard limit.
    pub hard: u64,
}

/// What a process shall set up before it becomes its command. Without a wish all stays as it is with
/// the daemon, but for the session, the signals and the descriptors. Paths may have values of an
/// environment in them, so it cannot be printed.
#[derive(Clone, Default)]
pub struct Setup {
    /// It has inherited a wish how likely it is to be killed for want of memory, and shall not have
    /// it.
    pub oom_adjusted: bool,
    /// Its control group is limited, and may have too little memory for it to begin.
    pub is_short_of_memory: bool,
    /// Resource limits.
    pub limits: Vec<Limit>,
    /// Scheduling priority.
    pub nice: Option<i32>,
    /// File mode creation mask.
    pub umask: Option<u32>,
    /// Whom to become.
    pub ids: Option<Ids>,
    /// The working directory.
    pub cwd: Option<CString>,
    /// The file for standard output and standard error, opened as the user.
    pub log_file: Option<CString>,
    /// The file to write the pid to, as the user.
    pub pid_file: Option<CString>,
    /// What to execute: the first that can be.
    pub candidates: Vec<CString>,
    /// A text file without `#!` is executed by the shell, as with execvp(3).
    pub shell_scripts: bool,
    /// So many sockets come through the socket after the gate was opened, with one byte.
    pub sockets: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read_as_it_was_written() {
        let report = Report { stage: Stage::LogFile, errno: 13, index: 5 };
        assert_eq!(Report::decode(&report.encode()), Some(report));
        assert_eq!(Report::decode(&[0; REPORT_LEN]), None);
        assert_eq!(Report::decode(&report.encode()[1..]), None);
        for byte in 1..=Stage::Exec as u8 {
            assert_eq!(Stage::from_byte(byte).map(|stage| stage as u8), Some(byte));
        }
    }
}
