//! What the kernel tells of a process in `/proc/PID/stat` (proc_pid_stat(5)).

use std::fs::File;
use std::io::Read;
use std::sync::atomic::{AtomicU8, Ordering};

/// One line of it, as far as it is used. Everybody may read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// A letter: `Z` is a process that has ended and that nobody has reaped.
    pub state: u8,
    /// Its parent; 0 where that is in another pid namespace.
    pub parent: u32,
    /// Its session; 0 for threads of the kernel, and where that is of another pid namespace.
    pub session: u32,
    /// Whether it has executed no program since it was made (ps(1), flag 1).
    pub has_not_executed: bool,
    /// Whether it is ending: it does nothing more, and what it had open is closed before its end is told.
    pub is_ending: bool,
    /// Processor time, in ticks.
    pub ticks: u64,
    /// Its threads.
    pub threads: u64,
    /// When it was started, in ticks since boot: tells it from a later one with the same number.
    pub start: u64,
    /// Resident memory, in pages.
    pub pages: u64,
    /// Its wait status (wait(2)) once it has ended; 0 is shown to who may not look into the process.
    pub status: i32,
}

impl Stat {
    /// That of a process; None when there is no such process.
    #[must_use]
    pub fn of(pid: u32) -> Option<Stat> {
        let mut line = Vec::with_capacity(1024);
        // What has no size is not asked for it: that takes as long as to read it.
        let file = File::open(format!("/proc/{pid}/stat")).ok()?;
        file.take(u64::MAX).read_to_end(&mut line).ok()?;
        Stat::parse(&line)
    }

    /// Understands a line.
    #[must_use]
    pub fn parse(line: &[u8]) -> Option<Stat> {
        // The name of the program may have anything in it, and ends with the last parenthesis.
        let name_ends = line.iter().rposition(|byte| *byte == b')')?;
        let mut fields = std::str::from_utf8(&line[name_ends + 1..]).ok()?.split_ascii_whitespace();
        // In the manual the first of these is the third field; `skip` fields lie in between.
        let mut field = |skip: usize| fields.nth(skip);
        let state = *field(0)?.as_bytes().first()?;
        let parent = field(0)?.parse().ok()?;
        let session = field(1)?.parse().unwrap_or(0);
        let flags: u32 = field(2)?.parse().ok()?;
        let (user, system): (u64, u64) = (field(4)?.parse().ok()?, field(0)?.parse().ok()?);
        let threads = field(4)?.parse().ok()?;
        let start = field(1)?.parse().ok()?;
        let pages = field(1)?.parse().ok()?;
        let status = field(27)?.parse().ok()?;
        let ticks = user + system;
        /// `PF_FORKNOEXEC` (linux/sched.h).
        const HAS_NOT_EXECUTED: u32 = 0x40;
        let has_not_executed = flags & HAS_NOT_EXECUTED != 0;
        /// `PF_EXITING`, `PF_POSTCOREDUMP`, `PF_DUMPCORE` (linux/sched.h).
        const IS_ENDING: u32 = 0x4 | 0x8 | 0x200;
        let is_ending = flags & IS_ENDING != 0;
        Some(Stat {
            state,
            parent,
            session,
            has_not_executed,
            is_ending,
            ticks,
            threads,
            start,
            pages,
            status,
        })
    }

    /// Whether nothing of it runs any more. A process whose first thread has ended lives on in the
    /// others.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x') && self.threads <= 1
    }
}

/// A moment, in ticks since boot, as the start of a process is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticks(u64);

impl Ticks {
    /// The present one.
    #[must_use]
    pub fn now() -> Ticks {
        const SECOND: u64 = 1_000_000_000;
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let nanoseconds = now.tv_sec.unsigned_abs() * SECOND + now.tv_nsec.unsigned_abs();
        Ticks(nanoseconds / (SECOND / rustix::param::clock_ticks_per_second().max(1)))
    }
}

/// When a process was started that was made between two moments, in ticks since boot; 0 where that
/// cannot be known. Where both are the same tick that is it, and `/proc`, which takes as long as half
/// the making of a process, is not asked. Whether this kernel counts like that is found out with the
/// first process.
#[must_use]
pub fn start_between(pid: u32, before: Ticks, after: Ticks) -> u64 {
    static COUNTS: AtomicU8 = AtomicU8::new(UNKNOWN);
    const UNKNOWN: u8 = 0;
    const SO: u8 = 1;
    const OTHERWISE: u8 = 2;
    let counts = COUNTS.load(Ordering::Relaxed);
    let is_one = before == after;
    if is_one && counts == SO {
        return after.0;
    }
    let told = Stat::of(pid).map_or(0, |stat| stat.start);
    if is_one && counts == UNKNOWN {
        COUNTS.store(if told == after.0 { SO } else { OTHERWISE }, Ordering::Relaxed);
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However often, and whether or not a tick passes meanwhile.
    #[test]
    fn when_a_process_was_started_is_known_without_asking() {
        for _ in 0..50 {
            let before = Ticks::now();
            let mut child = std::process::Command::new("true").spawn().unwrap();
            let start = start_between(child.id(), before, Ticks::now());
            assert_eq!(start, Stat::of(child.id()).unwrap().start);
            child.wait().unwrap();
        }
        assert_eq!(start_between(u32::MAX, Ticks(1), Ticks(2)), 0);
    }

    /// Each field has the number of its field in the manual, but for the state and the threads.
    fn line(state: &str, threads: &str) -> Vec<u8> {
        let mut fields: Vec<String> = (1..=52).map(|number| number.to_string()).collect();
        fields[1] = "((a) R 1 (b) S 7)".into();
        fields[2] = state.into();
        fields[19] = threads.into();
        fields.join(" ").into_bytes()
    }

    #[test]
    fn a_line_is_read_whatever_the_name_is() {
        let expected = Stat {
            state: b'S',
            parent: 4,
            session: 6,
            has_not_executed: false,
            is_ending: true,
            ticks: 14 + 15,
            threads: 3,
            start: 22,
            pages: 24,
            status: 52,
        };
        assert_eq!(Stat::parse(&line("S", "3")), Some(expected));
        assert_eq!(Stat::parse(b""), None);
        assert_eq!(Stat::parse(b"1 (sh) S 1 1"), None);
    }

    #[test]
    fn who_has_not_executed_anything_is_flagged() {
        let line = |flags: &str| {
            let mut line = String::from_utf8(line("S", "1")).unwrap();
            line = line.replacen(" 8 9 10 ", &format!(" 8 {flags} 10 "), 1);
            Stat::parse(line.as_bytes()).unwrap().has_not_executed
        };
        assert!(line("4194368") && line("64") && !line("4194304"));
        assert!(!Stat::of(std::process::id()).unwrap().has_not_executed);
    }

    #[test]
    fn who_ends_is_flagged() {
        assert!(!Stat::of(std::process::id()).unwrap().is_ending);
        let mut child = std::process::Command::new("true").spawn().unwrap();
        while Stat::of(child.id()).unwrap().state != b'Z' {
            std::thread::yield_now();
        }
        assert!(Stat::of(child.id()).unwrap().is_ending);
        child.wait().unwrap();
    }

    #[test]
    fn a_zombie_with_live_threads_has_not_ended() {
        let ended = |state, threads| Stat::parse(&line(state, threads)).unwrap().has_ended();
        assert!(!ended("Z", "2"));
        assert!(ended("Z", "1"));
        assert!(!ended("R", "1"));
    }

    #[test]
    fn a_process_is_its_parents() {
        let own = Stat::of(std::process::id()).unwrap();
        assert_eq!(own.parent, std::os::unix::process::parent_id());
        assert!(!own.has_ended());
        assert_eq!(own.start, Stat::of(std::process::id()).unwrap().start);
    }
}
