//! One walk over `/proc`: what descends from the daemon at one moment, and what of each process tells
//! whose it is.

use super::reaper::{self, Moment};
use crate::sys::stat::Stat;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io::{self, Read};
use std::os::fd::OwnedFd;

/// One process, as it was seen in `/proc`; what is of [`Stat`] has the same name there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its process id.
    pub pid: u32,
    /// Its parent.
    pub parent: u32,
    /// Its session.
    pub session: u32,
    /// When it was started, in ticks since boot: tells it from a later one with the same number.
    pub start: u64,
    /// Nothing of it runs any more.
    pub ended: bool,
    /// Its threads.
    pub threads: u64,
    /// Processor time, in ticks.
    pub ticks: u64,
    /// Resident memory, in pages.
    pub pages: u64,
    /// Its mark, where it has one that could be ours.
    pub mark: Option<u64>,
}

/// All descendants of this process at one moment, and what may belong to adopted trees; parents
/// before their children.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    pub processes: Vec<Process>,
    pub before: Moment,
    /// Whether an orphan was reaped during it.
    pub orphan_reaped: bool,
}

/// A descriptor for a process of a census; None when it is gone. The check comes after the opening:
/// a process that is alive and was opened had its number all the time in between.
///
/// # Errors
/// When it cannot be opened for another reason.
pub fn open(process: &Process) -> io::Result<Option<OwnedFd>> {
    let Some(pidfd) = crate::sys::signal::open(process.pid)? else { return Ok(None) };
    let same = read_process(process.pid, &mut Vec::new())
        .is_some_and(|now| now.start == process.start && !now.ended);
    Ok(same.then_some(pidfd))
}

/// What has a mark that `is_ours`, by mark, with the oldest process that has it.
#[must_use]
pub fn marked(is_ours: impl Fn(u64) -> bool) -> BTreeMap<u64, Process> {
    let mut buffer = Vec::new();
    let mut found: BTreeMap<u64, Process> = BTreeMap::new();
    for pid in list().unwrap_or_default() {
        let Some(mark) = read_mark(pid, &mut buffer).filter(|mark| is_ours(*mark)) else {
            continue;
        };
        let Some(process) = read_process(pid, &mut buffer).filter(|p| !p.ended) else { continue };
        let oldest = found.entry(mark).or_insert_with(|| process.clone());
        if process.start < oldest.start {
            *oldest = process;
        }
    }
    found
}

/// The mark of a process, where it has one.
#[must_use]
pub fn mark_of(pid: u32) -> Option<u64> {
    read_mark(pid, &mut Vec::new())
}

/// Walks `/proc`. What was started before `adopted` is of no adopted tree; None: there is none.
pub(super) fn take(adopted: Option<u64>) -> io::Result<Snapshot> {
    let before = reaper::moment();
    let mut buffer = Vec::new();
    let mut all = BTreeMap::new();
    for pid in list()? {
        all.extend(read_process(pid, &mut buffer).map(|process| (pid, process)));
    }
    mend_broken_links(&mut all, &mut buffer);
    let mut processes = descendants(std::process::id(), &all);
    if let Some(since) = adopted {
        let own: HashSet<u32> = processes.iter().map(|process| process.pid).collect();
        // Threads of the kernel descend from its second process.
        let is_kernel = |p: &Process| p.pid == 2 || p.parent == 2;
        let others = descendants(0, &all).into_iter();
        let others = others.filter(|p| p.start >= since && !own.contains(&p.pid) && !is_kernel(p));
        processes.extend(others.map(|process| with_proved_session(process, &all)));
    }
    for process in &mut processes {
        process.mark = read_mark(process.pid, &mut buffer);
    }
    let orphan_reaped = reaper::moment().orphans != before.orphans;
    Ok(Snapshot { processes, before, orphan_reaped })
}

pub(super) fn list() -> io::Result<Vec<u32>> {
    let mut pids = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        pids.extend(name.to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    Ok(pids)
}

/// A process whose parent ended between the reading of the one and of the other has a new parent.
fn mend_broken_links(all: &mut BTreeMap<u32, Process>, buffer: &mut Vec<u8>) {
    const ENOUGH: usize = 10;
    for _ in 0..ENOUGH {
        let broken = |p: &&Process| p.parent != 0 && !all.contains_key(&p.parent);
        let lost: Vec<u32> = all.values().filter(broken).map(|p| p.pid).collect();
        if lost.is_empty() {
            return;
        }
        for pid in lost {
            match read_process(pid, buffer) {
                Some(process) => all.insert(pid, process),
                None => all.remove(&pid),
            };
        }
    }
}

/// All that descends from `root`, without it, parents first.
fn descendants(root: u32, all: &BTreeMap<u32, Process>) -> Vec<Process> {
    let mut children: HashMap<u32, Vec<&Process>> = HashMap::new();
    for process in all.values() {
        children.entry(process.parent).or_default().push(process);
    }
    let mut found = Vec::new();
    let mut parents = vec![root];
    while let Some(parent) = parents.pop() {
        for process in children.remove(&parent).unwrap_or_default() {
            found.push(process.clone());
            parents.push(process.pid);
        }
    }
    found
}

/// A process that does not descend from the daemon. Without its leader the session says nothing: the
/// number may have been that of a run, and then that of somebody else who is gone as well.
pub(super) fn with_proved_session(process: Process, all: &BTreeMap<u32, Process>) -> Process {
    let session = if all.contains_key(&process.session) { process.session } else { 0 };
    Process { session, ..process }
}

/// One process; None when there is no such process.
#[must_use]
pub fn read(pid: u32) -> Option<Process> {
    read_process(pid, &mut Vec::new())
}

fn read_process(pid: u32, buffer: &mut Vec<u8>) -> Option<Process> {
    read_into(&format!("/proc/{pid}/stat"), buffer)?;
    let stat = Stat::parse(buffer)?;
    let Stat { parent, session, start, threads, ticks, pages, .. } = stat;
    let ended = stat.has_ended();
    Some(Process { pid, parent, session, start, ended, threads, ticks, pages, mark: None })
}

/// The hard limit of resident memory, which is the mark where it is ours: the soft one is the
/// process's to change. A dead process has it until it is reaped.
pub(super) fn read_mark(pid: u32, buffer: &mut Vec<u8>) -> Option<u64> {
    read_into(&format!("/proc/{pid}/limits"), buffer)?;
    let text = std::str::from_utf8(buffer).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Max resident set"))?;
    line.split_ascii_whitespace().nth(1)?.parse().ok()
}

fn read_into(path: &str, buffer: &mut Vec<u8>) -> Option<()> {
    buffer.clear();
    // Most are smaller than this. What has no size is not asked for it: that takes as long as to
    // read it.
    buffer.reserve(2048);
    fs::File::open(path).ok()?.take(u64::MAX).read_to_end(buffer).ok()?;
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descendants_come_after_their_parents() {
        let process = |pid: u32, parent: u32| {
            let own = read(std::process::id()).unwrap();
            Process { pid, parent, ..own }
        };
        let all = [process(9, 5), process(5, 8), process(7, 2)];
        let found = descendants(8, &all.into_iter().map(|p| (p.pid, p)).collect());
        assert_eq!(found.iter().map(|p| p.pid).collect::<Vec<_>>(), [5, 9]);
    }
}
