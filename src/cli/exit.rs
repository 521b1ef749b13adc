//! Exit codes. A script must be able to tell an answer from a mistake, so usage errors have a code
//! that no command uses for an answer.

use std::process::ExitCode;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// What was asked for is so.
    Ok,
    /// It failed; the reason is on standard error.
    Failed,
    /// `plan`: there are changes.
    Changes,
    /// `reload`: it did not come up, and what was there before runs again.
    RolledBack,
    /// `status`: something that is wanted is not up, or nobody knows what is. `is-active`: it is not.
    NotUp,
    /// No process has that name.
    NoSuchProcess,
    /// The command line was not understood (EX_USAGE of sysexits.h).
    Usage,
}

impl Exit {
    /// The number.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Exit::Ok => 0,
            Exit::Failed => 1,
            Exit::Changes | Exit::RolledBack => 2,
            Exit::NotUp => 3,
            Exit::NoSuchProcess => 4,
            Exit::Usage => 64,
        }
    }

    /// The one to end with when a command did several things.
    #[must_use]
    pub fn worse(self, other: Exit) -> Exit {
        if self.code() >= other.code() { self } else { other }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}

/// The table for `--help` of the whole.
pub const TOP: &str = "\
Without --system, --user or --socket the daemon is: that of `provost up` in this directory, else the
user's, else the system's.

Exit codes: 0 done, 1 failed, 64 the command line was not understood; others are in the help of each
command. Without a command: `provost status`.";

/// The table for `--help` of `confirm`.
pub const CONFIRM: &str = "\
Exit codes:
  0   it stays
  1   nothing waits to be confirmed, or it cannot be noted that it is
  64  the command line was not understood";

/// The table for `--help` of `up`.
pub const UP: &str = "\
Exit codes:
  0   ended by Ctrl-C, SIGTERM, or because nothing can run again
  1   it could not start
  64  the command line was not understood
  N   the exit code of the essential process that ended";

/// The table for `--help` of `status`.
pub const STATUS: &str = "\
Exit codes:
  0   all that is wanted is up
  1   no daemon, or it did not answer
  3   something that is wanted is not up, or no file could be used yet
  4   no such process
  64  the command line was not understood";

/// The table for `--help` of the verbs on processes.
pub const VERB: &str = "\
A NAME is a process (`api`, short for `api@0`), an instance (`api@2`), all instances (`api@*`), a
glob (`web-*`), or a tag (`tag:web`).

Exit codes:
  0   done, also when there was nothing to do
  1   failed for at least one; the reason is said
  4   no such process; nothing was done
  64  the command line was not understood";

/// The table for `--help` of `apply` and `rollback`.
pub const RELOAD: &str = "\
Exit codes:
  0   applied, or nothing differs
  1   rejected: the files are not valid and nothing was changed; or applied, and not all came up
  2   rolled back: it did not come up, and what was there before runs again
  64  the command line was not understood";

/// The table for `--help` of `reload`, which may be about the files or about processes.
pub const RELOAD_OR_PROCESS: &str = "\
Exit codes:
  0   applied, or nothing differs; of processes: each was told, and its command succeeded
  1   rejected, and nothing was changed; or applied, and not all came up; of processes: one failed
  2   rolled back: it did not come up, and what was there before runs again
  4   no such process; nothing was done
  64  the command line was not understood";

/// The table for `--help` of `enable` and `disable`.
pub const EDIT: &str = "\
Exit codes:
  0   the file says so, and that is in force
  1   failed; the reason is said
  4   no such process; nothing was changed
  64  the command line was not understood";

/// The table for `--help` of `check`.
pub const CHECK: &str = "\
Exit codes:
  0   valid; there may be warnings
  1   not valid; with --strict also: there are warnings
  64  the command line was not understood";

/// The table for `--help` of `plan`.
pub const PLAN: &str = "\
Exit codes:
  0   nothing would change
  1   the files are not valid, or there is no daemon
  2   something would change
  64  the command line was not understood";

/// The table for `--help` of `history` and `show`.
pub const HISTORY: &str = "\
Values of variables are never shown.

Exit codes:
  0   done
  1   failed, such as that there is no such generation; the reason is said
  64  the command line was not understood";

/// The table for `--help` of `diff`.
pub const DIFF: &str = "\
With one name it goes from that to what runs; `disk` alone goes from what runs to what is on disk.
Values of variables are never shown.

Exit codes:
  0   done, whether or not anything differs
  1   failed, such as that there is no such generation; the reason is said
  64  the command line was not understood";

/// The table for `--help` of commands that answer or fail.
pub const QUERY: &str = "\
Exit codes:
  0   done
  1   failed; the reason is said
  4   no such process
  64  the command line was not understood";

/// The table for `--help` of `daemon-reexec`.
pub const REEXEC: &str = "\
The program is the one under the path by which the daemon was started. Processes are left as they are.

Exit codes:
  0   the program on disk goes on, and answers
  1   it cannot, and nothing has changed; or it has not come back; the reason is said
  64  the command line was not understood";

/// The table for `--help` of `wait`.
pub const WAIT: &str = "\
Exit codes:
  0   all are as asked
  1   one of them will not be without somebody's doing, or the time is over
  4   no such process
  64  the command line was not understood";

/// The table for `--help` of commands that need no daemon and cannot fail.
pub const PRINT: &str = "\
Exit codes:
  0   done
  64  the command line was not understood";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codes_are_those_of_the_manual() {
        let codes = [
            (Exit::Ok, 0),
            (Exit::Failed, 1),
            (Exit::Changes, 2),
            (Exit::NotUp, 3),
            (Exit::NoSuchProcess, 4),
            (Exit::Usage, 64),
        ];
        for (exit, code) in codes {
            assert_eq!(exit.code(), code, "{exit:?}");
        }
    }

    #[test]
    fn the_worse_of_two_wins() {
        assert_eq!(Exit::Ok.worse(Exit::Failed), Exit::Failed);
        assert_eq!(Exit::NoSuchProcess.worse(Exit::Failed), Exit::NoSuchProcess);
    }
}
