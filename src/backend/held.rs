//! Whether the kernel holds a run to its limits: what the files of its control group say
//! (cgroups(7), version 2).

use crate::core::event::ExitStatus;
use crate::core::ids::InstanceId;
use crate::core::limits::{Limit, Limits};
use crate::core::spec::Signal;
use std::fs;
use std::path::Path;

/// Which of these limits do not hold in the group in this directory; None: there is no group.
#[must_use]
pub fn unenforced(directory: Option<&Path>, limits: &Limits) -> Vec<Limit> {
    let holds = |limit| directory.is_some_and(|directory| holds(directory, limits, limit));
    limits.given().filter(|limit| !holds(*limit)).collect()
}

fn holds(directory: &Path, limits: &Limits, limit: Limit) -> bool {
    let Ok(text) = fs::read_to_string(directory.join(file(limit))) else { return false };
    // Where there is no limit it says `max`.
    let mut numbers = text.split_whitespace().map(|word| word.parse::<u64>().ok());
    let first = numbers.next().flatten();
    match limit {
        Limit::Memory => at_most(first, limits.memory),
        Limit::MemoryHigh => at_most(first, limits.memory_high),
        Limit::MaxMemoryRestart => at_most(first, limits.max_memory_restart),
        Limit::Tasks => at_most(first, limits.tasks),
        Limit::Cpu => {
            let period = numbers.next().flatten().filter(|period| *period > 0);
            let thousandths = first.zip(period).map(|(quota, period)| quota * 1_000 / period);
            at_most(thousandths, limits.cpu.map(u64::from))
        }
    }
}

/// The kernel makes memory a whole number of pages.
fn at_most(is: Option<u64>, limit: Option<u64>) -> bool {
    is.zip(limit).is_some_and(|(is, limit)| is <= limit)
}

/// The file in which a limit is.
#[must_use]
pub fn file(limit: Limit) -> &'static str {
    match limit {
        Limit::Memory => "memory.max",
        // The kernel tells when it is more.
        Limit::MemoryHigh | Limit::MaxMemoryRestart => "memory.high",
        Limit::Cpu => "cpu.max",
        Limit::Tasks => "pids.max",
    }
}

/// What that file says of a limit.
#[must_use]
pub fn content(limits: &Limits, limit: Limit) -> String {
    /// Of each so many microseconds, a group gets a part.
    const PERIOD: u64 = 100_000;
    let number = match limit {
        Limit::Memory => limits.memory,
        Limit::MemoryHigh | Limit::MaxMemoryRestart => limits.high(),
        Limit::Tasks => limits.tasks,
        Limit::Cpu => limits.cpu.map(|thousandths| u64::from(thousandths) * PERIOD / 1_000),
    };
    let number = number.map_or_else(|| "max".to_owned(), |number| number.to_string());
    if limit == Limit::Cpu { format!("{number} {PERIOD}") } else { number }
}

/// Says of a run that began which of its limits do not hold.
pub fn complain(instance: &InstanceId, directory: Option<&Path>, limits: &Limits) {
    let loose = unenforced(directory, limits);
    if !loose.is_empty() {
        let names = loose.iter().map(|limit| limit.full_key());
        let names = names.collect::<Vec<_>>().join(", ");
        tracing::warn!("{instance}: not enforced here: {names}");
    }
}

/// An end as it is to be told: what the kernel killed for want of memory was killed by a signal.
#[must_use]
pub fn told(status: ExitStatus, was_out_of_memory: impl FnOnce() -> bool) -> ExitStatus {
    let is_killed = matches!(status, ExitStatus::Signal { signal: Signal::KILL, .. });
    if is_killed && was_out_of_memory() { ExitStatus::OutOfMemory } else { status }
}

/// How much memory a group holds that cannot be taken back from it: without what it has of files,
/// but with what is in memory alone, and with what was put into swap.
#[must_use]
pub fn memory_in_use(directory: &Path) -> Option<u64> {
    let number = |name: &str| -> Option<u64> {
        fs::read_to_string(directory.join(name)).ok()?.trim().parse().ok()
    };
    let stat = fs::read_to_string(directory.join("memory.stat")).ok()?;
    let line = |key: &str| -> u64 {
        let line = stat.lines().find_map(|line| line.strip_prefix(key));
        line.and_then(|rest| rest.trim().parse().ok()).unwrap_or(0)
    };
    let files = line("file ").saturating_sub(line("shmem "));
    let swap = number("memory.swap.current").unwrap_or(0);
    Some(number("memory.current")?.saturating_sub(files) + swap)
}

/// Whether the kernel has killed something in this group for want of memory.
#[must_use]
pub fn was_out_of_memory(directory: &Path) -> bool {
    let events = fs::read_to_string(directory.join("memory.events")).unwrap_or_default();
    let kills = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
    kills.and_then(|count| count.trim().parse::<u64>().ok()).is_some_and(|count| count > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel's files, as they read where there are controllers: here there may be none.
    fn group(files: &[(&str, &str)]) -> tempfile::TempDir {
        let group = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(group.path().join(name), text).unwrap();
        }
        group
    }

    #[test]
    fn a_limit_holds_where_the_kernel_has_it() {
        let (memory, cpu, tasks) = (Some(10_000), Some(1_500), Some(9));
        let limits = Limits { memory, cpu, tasks, ..Limits::default() };
        assert_eq!(content(&limits, Limit::Cpu), "150000 100000");
        let files = [Limit::Memory, Limit::Cpu, Limit::Tasks];
        let files = files.map(|limit| (file(limit), content(&limits, limit)));
        let held = group(&files.each_ref().map(|(name, text)| (*name, text.as_str())));
        assert_eq!(unenforced(Some(held.path()), &limits), []);
        let loose = group(&[("memory.max", "max\n"), ("cpu.max", "max 100000\n")]);
        let all = [Limit::Memory, Limit::Cpu, Limit::Tasks];
        assert_eq!(unenforced(Some(loose.path()), &limits), all);
        let more = group(&[("cpu.max", "200000 100000\n"), ("pids.max", "10\n")]);
        assert_eq!(unenforced(Some(more.path()), &limits), all);
        assert_eq!(unenforced(None, &limits), all);
        assert_eq!(unenforced(None, &Limits::default()), []);
    }

    #[test]
    fn what_can_be_read_again_is_not_in_use() {
        let stat = "anon 50\nfile 40\nkernel 10\nshmem 5\n";
        let files = [("memory.current", "100\n"), ("memory.stat", stat)];
        assert_eq!(memory_in_use(group(&files).path()), Some(65));
        let more = [files[0], files[1], ("memory.swap.current", "7\n")];
        assert_eq!(memory_in_use(group(&more).path()), Some(72));
        assert_eq!(memory_in_use(group(&[]).path()), None);
    }

    #[test]
    fn what_was_killed_for_want_of_memory_is_counted() {
        let events = |kills| format!("low 0\nhigh 3\nmax 7\noom 1\noom_kill {kills}\n");
        assert!(was_out_of_memory(group(&[("memory.events", &events(1))]).path()));
        assert!(!was_out_of_memory(group(&[("memory.events", &events(0))]).path()));
        assert!(!was_out_of_memory(group(&[]).path()));
    }
}
