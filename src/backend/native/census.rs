//! Which process belongs to which run, where there are no control groups to tell.
//!
//! The daemon is a subreaper, so whatever a run starts stays below the daemon for as long as it
//! lives: a process whose parent ends becomes a child of the daemon and not of the first process.
//! What descends from the daemon is therefore all there can be. Whose it is, is told by, in this
//! order:
//!
//! 1. **Descent.** Below the main process of a run, or below a process that was found to be the
//!    run's: it is the run's.
//! 2. **The mark.** Each run has an unused resource limit, `RLIMIT_RSS`, set to a number of its own,
//!    beyond any size of memory. The kernel has ignored this limit since 2.4.30, but hands it down
//!    to every child and keeps it across exec, a new session, another user and an empty environment,
//!    and `/proc/PID/limits` shows it to everybody. (A variable in the environment would be lost in
//!    every daemon that overwrites its own arguments to show a title.)
//! 3. **The session** of the run, for a process that changed the limit.
//! 4. **Memory**: it was found to be the run's in an earlier census.
//!
//! What this cannot find: a process that has changed its limit and its session, and all of whose
//! ancestors up to the run ended between two censuses. Only a control group holds such a one.
//!
//! A census is one walk over `/proc` and is shared by all who asked before it began.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// One process, as it was seen in `/proc/PID/stat` (proc_pid_stat(5)).
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
    /// Its mark; some number where it has none, None where it was not read.
    pub mark: Option<u64>,
}

/// A run, as far as the census is concerned. It is also the mark of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TreeId(pub u64);

/// What a tree can be known by besides its mark.
#[derive(Clone, Copy, Debug)]
struct Claim {
    /// The process that was started: it began the session, which has its number.
    main: u32,
    /// When that was, as in [`Process::start`].
    start: u64,
}

/// All descendants of this process at one moment, parents before their children.
#[derive(Debug, Default)]
struct Snapshot {
    processes: Vec<Process>,
}

/// Knows the trees and finds what belongs to them.
#[derive(Default)]
pub struct Census {
    trees: Mutex<HashMap<TreeId, Claim>>,
    remembered: Mutex<HashMap<(u32, u64), TreeId>>,
    begun: Mutex<u64>,
    last: tokio::sync::Mutex<(u64, Arc<Snapshot>)>,
    recent: Mutex<Option<(Instant, Arc<Snapshot>)>>,
}

impl Census {
    /// Registers a tree by the process that was started for it, before that can have been reaped.
    pub fn claim(&self, tree: TreeId, main: u32) {
        let start = read(main).map_or(0, |process| process.start);
        lock(&self.trees).insert(tree, Claim { main, start });
    }

    /// Nothing is left of a tree.
    pub fn forget(&self, tree: TreeId) {
        lock(&self.trees).remove(&tree);
        lock(&self.remembered).retain(|_, owner| *owner != tree);
    }

    /// What of a tree is alive now, by a census that begins after this call.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub async fn members(&self, tree: TreeId) -> io::Result<Vec<Process>> {
        let snapshot = self.snapshot().await?;
        Ok(self.of(tree, &snapshot))
    }

    /// The same by a census that may be a second old; walks `/proc` here and now if there is none.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn recent_members(&self, tree: TreeId) -> io::Result<Vec<Process>> {
        const RECENT: Duration = Duration::from_secs(1);
        let recent = lock(&self.recent).clone().filter(|(at, _)| at.elapsed() < RECENT);
        let snapshot = match recent {
            Some((_, snapshot)) => snapshot,
            None => self.remember_recent(take()?),
        };
        Ok(self.of(tree, &snapshot))
    }

    fn remember_recent(&self, snapshot: Snapshot) -> Arc<Snapshot> {
        let snapshot = Arc::new(snapshot);
        *lock(&self.recent) = Some((Instant::now(), snapshot.clone()));
        snapshot
    }

    async fn snapshot(&self) -> io::Result<Arc<Snapshot>> {
        let begun_before = *lock(&self.begun);
        let mut last = self.last.lock().await;
        if last.0 > begun_before {
            return Ok(last.1.clone());
        }
        let number = {
            let mut begun = lock(&self.begun);
            *begun += 1;
            *begun
        };
        let snapshot = tokio::task::spawn_blocking(take).await.map_err(io::Error::other)??;
        *last = (number, self.remember_recent(snapshot));
        Ok(last.1.clone())
    }

    fn of(&self, tree: TreeId, snapshot: &Snapshot) -> Vec<Process> {
        let owners = self.attribute(snapshot);
        let members = snapshot.processes.iter();
        members.filter(|p| !p.ended && owners.get(&p.pid) == Some(&tree)).cloned().collect()
    }

    fn attribute(&self, snapshot: &Snapshot) -> HashMap<u32, TreeId> {
        let trees = lock(&self.trees);
        let mut remembered = lock(&self.remembered);
        let owners = attribute(&snapshot.processes, &trees, &remembered);
        *remembered = snapshot
            .processes
            .iter()
            .filter_map(|p| Some(((p.pid, p.start), *owners.get(&p.pid)?)))
            .collect();
        owners
    }
}

fn attribute(
    processes: &[Process],
    trees: &HashMap<TreeId, Claim>,
    remembered: &HashMap<(u32, u64), TreeId>,
) -> HashMap<u32, TreeId> {
    let by_main: HashMap<u32, (TreeId, u64)> =
        trees.iter().map(|(tree, claim)| (claim.main, (*tree, claim.start))).collect();
    let starts: HashMap<u32, u64> = processes.iter().map(|p| (p.pid, p.start)).collect();
    let mut owners: HashMap<u32, TreeId> = HashMap::new();
    for process in processes {
        let main = by_main.get(&process.pid).filter(|(_, start)| *start == process.start);
        let by_descent =
            || main.map(|(tree, _)| *tree).or_else(|| owners.get(&process.parent).copied());
        let by_mark = || process.mark.map(TreeId).filter(|tree| trees.contains_key(tree));
        let by_session = || {
            let (tree, start) = by_main.get(&process.session)?;
            // The number may have come to another process, which began a session of its own.
            let reused = starts.get(&process.session).is_some_and(|leader| leader != start);
            (!reused).then_some(*tree)
        };
        let by_memory = || {
            remembered.get(&(process.pid, process.start)).filter(|t| trees.contains_key(t)).copied()
        };
        let owner = by_descent().or_else(by_mark).or_else(by_session).or_else(by_memory);
        if let Some(owner) = owner {
            owners.insert(process.pid, owner);
        }
    }
    owners
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

/// Walks `/proc` until nothing can have been missed.
///
/// A process that was listed, forked, and ended before it was read has a child that was not listed.
/// So when anything listed had ended by the time it was read, the list is taken again for what is
/// new in it, which is little and quick. What is read as alive is no such case: the tree it belongs
/// to is not empty then, and whoever asked asks again.
///
/// On a machine where something ends all the time this would never be done. It ends after some
/// rounds: what is missed then has changed its process in each of them.
fn take() -> io::Result<Snapshot> {
    const ENOUGH: usize = 10;
    let mut buffer = Vec::new();
    let mut all = BTreeMap::new();
    let mut seen = HashSet::new();
    let mut processes = Vec::new();
    for _ in 0..ENOUGH {
        let mut all_lived = true;
        for pid in list()? {
            if !seen.insert(pid) {
                continue;
            }
            let process = read_process(pid, &mut buffer);
            all_lived &= process.as_ref().is_some_and(|process| !process.ended);
            all.extend(process.map(|process| (pid, process)));
        }
        all_lived &= mend_broken_links(&mut all, &mut buffer);
        processes = descendants(std::process::id(), &all);
        for process in processes.iter_mut().filter(|process| !process.ended) {
            let mark = read_mark(process.pid, &mut buffer);
            all_lived &= mark.is_some();
            process.mark = mark;
        }
        if all_lived {
            break;
        }
    }
    Ok(Snapshot { processes })
}

/// All processes there are at one moment. Numbers go upwards and so does the list, but they start
/// over at the end: where that has happened, and the kernel gave out numbers during the list, some
/// of them may have been passed already, and the list is taken again.
fn list() -> io::Result<Vec<u32>> {
    const ENOUGH: usize = 10;
    let mut pids = Vec::new();
    let mut last = last_number();
    for _ in 0..ENOUGH {
        pids.clear();
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name();
            pids.extend(name.to_str().and_then(|name| name.parse::<u32>().ok()));
        }
        let now = last_number();
        if now == last || pids.iter().max() <= last.as_ref() {
            break;
        }
        last = now;
    }
    Ok(pids)
}

/// The number given out last (proc_loadavg(5)).
fn last_number() -> Option<u32> {
    let line = fs::read_to_string("/proc/loadavg").ok()?;
    line.split_ascii_whitespace().nth(4)?.parse().ok()
}

/// A process whose parent ended between the reading of the one and of the other has a new parent.
/// Whether all of them still lived.
fn mend_broken_links(all: &mut BTreeMap<u32, Process>, buffer: &mut Vec<u8>) -> bool {
    const ENOUGH: usize = 10;
    let mut all_lived = true;
    for _ in 0..ENOUGH {
        let broken = |p: &&Process| p.parent != 0 && !all.contains_key(&p.parent);
        let lost: Vec<u32> = all.values().filter(broken).map(|p| p.pid).collect();
        if lost.is_empty() {
            break;
        }
        for pid in lost {
            match read_process(pid, buffer) {
                Some(process) => all.insert(pid, process),
                None => {
                    all_lived = false;
                    all.remove(&pid)
                }
            };
        }
    }
    all_lived
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

/// One process; None when there is no such process.
#[must_use]
pub fn read(pid: u32) -> Option<Process> {
    read_process(pid, &mut Vec::new())
}

fn read_process(pid: u32, buffer: &mut Vec<u8>) -> Option<Process> {
    read_into(&format!("/proc/{pid}/stat"), buffer)?;
    parse_stat(pid, std::str::from_utf8(after_name(buffer)?).ok()?)
}

/// What follows the name, which may itself contain anything.
fn after_name(stat: &[u8]) -> Option<&[u8]> {
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    stat.get(end + 1..)
}

fn parse_stat(pid: u32, rest: &str) -> Option<Process> {
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    let small = |index: usize| fields.get(index)?.parse::<u32>().ok();
    let threads = number(17)?;
    // A process whose first thread has ended lives on in the others.
    let ended = matches!(*fields.first()?, "Z" | "X" | "x") && threads <= 1;
    Some(Process {
        pid,
        parent: small(1)?,
        // Kernel threads and processes of other namespaces have -1 or 0.
        session: small(3).unwrap_or(0),
        start: number(19)?,
        ended,
        threads,
        ticks: number(11)? + number(12)?,
        pages: number(21)?,
        mark: None,
    })
}

/// The hard limit of resident memory, which is the mark where it is ours: the soft one is the
/// process's to change. None when the process is gone.
fn read_mark(pid: u32, buffer: &mut Vec<u8>) -> Option<u64> {
    read_into(&format!("/proc/{pid}/limits"), buffer)?;
    let text = std::str::from_utf8(buffer).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Max resident set"))?;
    let hard = line.split_ascii_whitespace().nth(1)?;
    Some(hard.parse().unwrap_or(u64::MAX))
}

fn read_into(path: &str, buffer: &mut Vec<u8>) -> Option<()> {
    buffer.clear();
    fs::File::open(path).ok()?.read_to_end(buffer).ok()?;
    Some(())
}

/// Chooses a mark that no other run has. None where the limit is so low already that lowering it
/// further could mean something: then descent, session and memory have to do.
#[must_use]
pub fn new_mark() -> Option<u64> {
    const BEYOND_MEMORY: u64 = 1 << 62;
    let random = random();
    let hard = rustix::process::getrlimit(rustix::process::Resource::Rss).maximum;
    match hard.unwrap_or(u64::MAX) {
        // Below 2^63, so that nobody reads it as a negative number.
        hard if hard >= 2 * BEYOND_MEMORY => Some(BEYOND_MEMORY + random % BEYOND_MEMORY),
        // Below another supervisor that does the same: only lower is allowed.
        hard if hard > BEYOND_MEMORY / 2 => Some(hard - 1 - random % (1 << 40)),
        _ => None,
    }
}

/// A number that hardly comes twice.
#[must_use]
pub fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish()
}

/// Nothing panics while it holds one of these, and each change is one insertion or removal.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: u32, parent: u32, session: u32, mark: Option<u64>) -> Process {
        Process {
            pid,
            parent,
            session,
            start: u64::from(pid),
            ended: false,
            threads: 1,
            ticks: 0,
            pages: 0,
            mark,
        }
    }

    fn trees(claims: &[(u64, u32, u64)]) -> HashMap<TreeId, Claim> {
        let claim = |&(id, main, start)| (TreeId(id), Claim { main, start });
        claims.iter().map(claim).collect()
    }

    #[test]
    fn a_stat_line_is_read_whatever_the_name_is() {
        let line = b"42 (a) R 1 (b) S 7 42 40 0 -1 4194560 1 0 0 0 3 4 0 0 20 0 2 0 99 1000 17 0";
        let rest = std::str::from_utf8(after_name(line).unwrap()).unwrap();
        let process = parse_stat(42, rest).unwrap();
        assert_eq!((process.parent, process.session, process.start), (7, 40, 99));
        assert_eq!((process.ticks, process.threads, process.pages), (7, 2, 17));
        assert!(!process.ended);
    }

    #[test]
    fn a_zombie_with_live_threads_has_not_ended() {
        let stat = |threads| format!(" Z 7 42 40 0 -1 0 1 0 0 0 3 4 0 0 20 0 {threads} 0 99 0 0 0");
        assert!(!parse_stat(42, &stat(2)).unwrap().ended);
        assert!(parse_stat(42, &stat(1)).unwrap().ended);
    }

    #[test]
    fn an_orphan_in_a_session_of_its_own_is_known_by_its_mark() {
        let processes = [process(11, 1, 11, Some(5)), process(12, 11, 12, None)];
        let owners = attribute(&processes, &trees(&[(5, 10, 10)]), &HashMap::new());
        assert_eq!(owners.get(&11), Some(&TreeId(5)));
        assert_eq!(owners.get(&12), Some(&TreeId(5)));
    }

    #[test]
    fn descent_counts_more_than_a_mark() {
        let processes = [process(10, 1, 10, Some(5)), process(11, 10, 11, Some(6))];
        let owners = attribute(&processes, &trees(&[(5, 10, 10), (6, 20, 20)]), &HashMap::new());
        assert_eq!(owners.get(&11), Some(&TreeId(5)));
    }

    #[test]
    fn a_session_number_given_to_somebody_else_says_nothing() {
        // 10 was the main process and is gone; another process has its number now.
        let processes = [process(10, 1, 10, None), process(11, 1, 10, None)];
        let known = trees(&[(5, 10, 3)]);
        assert_eq!(attribute(&processes, &known, &HashMap::new()), HashMap::new());
        // Without such a process the session is that of the run.
        let owners = attribute(&processes[1..], &known, &HashMap::new());
        assert_eq!(owners.get(&11), Some(&TreeId(5)));
    }

    #[test]
    fn what_was_found_once_is_remembered_but_not_by_its_number_alone() {
        let known = trees(&[(5, 10, 10)]);
        let remembered = HashMap::from([((11, 11), TreeId(5)), ((12, 3), TreeId(5))]);
        let processes = [process(11, 1, 11, None), process(12, 1, 12, None)];
        let owners = attribute(&processes, &known, &remembered);
        assert_eq!(owners, HashMap::from([(11, TreeId(5))]));
    }

    #[test]
    fn descendants_come_after_their_parents() {
        let all = [process(9, 5, 0, None), process(5, 8, 0, None), process(7, 2, 0, None)];
        let found = descendants(8, &all.into_iter().map(|p| (p.pid, p)).collect());
        assert_eq!(found.iter().map(|p| p.pid).collect::<Vec<_>>(), [5, 9]);
    }
}
