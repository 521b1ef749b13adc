//! The mark of a run: a value of `RLIMIT_RSS` that says which daemon started it, and as which run.
//! See [`super::census`] for why this limit.
//!
//! The highest bit tells marks from sizes of memory, the next ones are the token of the daemon's
//! runtime directory, the last 32 the number of the run. So whatever a daemon that was killed has
//! left is known to be its own, and of which run, by the mark alone.

use crate::core::ids::Run;
use rustix::process::{Resource, getrlimit};

/// No machine has so much memory: a lower number could mean something.
const BEYOND_MEMORY: u32 = 53;
/// Bits of the number.
const NUMBER: u32 = 32;
/// Numbers from here on are of commands beside runs.
const COMMANDS: u64 = 1 << 31;

/// Makes the marks of one daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks {
    /// All but the number.
    prefix: u64,
}

impl Marks {
    /// The marks of the daemon with this token. None where this process's own limit is so low
    /// already that lowering it further could mean something.
    #[must_use]
    pub fn new(token: u32) -> Option<Marks> {
        Marks::below(getrlimit(Resource::Rss).maximum.unwrap_or(u64::MAX), token)
    }

    /// Marks that are below a limit, which may be the mark of another supervisor: it can only be
    /// lowered.
    fn below(hard: u64, token: u32) -> Option<Marks> {
        let bit = hard.checked_ilog2()?.checked_sub(1).filter(|bit| *bit >= BEYOND_MEMORY)?;
        let token = u64::from(token) & ((1 << (bit - NUMBER)) - 1);
        Some(Marks { prefix: (1 << bit) | (token << NUMBER) })
    }

    /// The mark of a run.
    #[must_use]
    pub fn of_run(self, run: Run) -> u64 {
        self.prefix | (run.0 % COMMANDS)
    }

    /// A mark for a command beside a run.
    #[must_use]
    pub fn of_command(self) -> u64 {
        self.prefix | COMMANDS | (crate::sys::random() % COMMANDS)
    }

    /// Whether a limit can be a mark at all, of whatever daemon.
    #[must_use]
    pub fn is_mark(limit: u64) -> bool {
        limit >> BEYOND_MEMORY > 0
    }

    /// Whether a mark is one of these.
    #[must_use]
    pub fn has(self, mark: u64) -> bool {
        mark >> NUMBER == self.prefix >> NUMBER
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_tells_the_daemon_and_the_run() {
        let (one, two) = (Marks::below(u64::MAX, 7).unwrap(), Marks::below(u64::MAX, 8).unwrap());
        assert_ne!(one.of_run(Run(1)), one.of_run(Run(2)));
        assert!(one.has(one.of_run(Run(5))) && one.has(one.of_command()));
        assert!(!one.has(two.of_run(Run(5))));
        assert_ne!(one.of_run(Run(u64::MAX)), one.of_command());
        assert!(one.of_run(Run(1)) >= 1 << 62 && one.of_command() < 1 << 63);
        // A limit that somebody set.
        assert!(Marks::is_mark(one.of_run(Run(1))) && !Marks::is_mark(1 << 40));
    }

    #[test]
    fn a_supervisor_below_another_has_lower_marks() {
        let mut limit = u64::MAX;
        let mut depth = 0;
        while let Some(marks) = Marks::below(limit, u32::MAX) {
            let mark = marks.of_run(Run(1));
            assert!(mark < limit && marks.of_command() < limit && mark >> BEYOND_MEMORY > 0);
            (limit, depth) = (mark, depth + 1);
        }
        assert_eq!(depth, 10);
        assert_eq!(Marks::below(1 << 40, 1), None);
        assert_eq!(Marks::below(0, 1), None);
    }
}
