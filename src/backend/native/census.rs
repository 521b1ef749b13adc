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
//! A census is one walk over `/proc` and is shared by all who asked before it began. A walk takes
//! time, and a process that forks and ends meanwhile has a child that was not listed. But while a
//! tree is not empty one of its processes is a child of the daemon, and that one stays visible until
//! the daemon reaps it. So when nothing of a tree was found, it is certain that nothing is there if
//! no orphan was reaped during the walk, nor the main process, and no child of the daemon was found
//! dead that belongs to the tree. Else another census decides.

use super::reaper::{self, Moment};
use super::walk::{Snapshot, list, read_mark, take};
use crate::core::spec::Signal;
use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub use super::walk::{Process, mark_of, marked, open, read};

/// A run, as far as the census is concerned. It is also the mark of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TreeId(pub u64);

/// What a tree can be known by besides its mark.
#[derive(Clone, Copy, Debug)]
struct Claim {
    /// The process that was started: it began the session, which has its number. None where it is
    /// not proved who that is, if it is still there.
    main: Option<u32>,
    /// When that was, as in [`Process::start`].
    start: u64,
    /// Another daemon started it: it does not descend from this one.
    adopted: bool,
}

/// A snapshot, told apart by trees once and for all who ask about it.
#[derive(Debug, Default)]
struct Shares {
    of: HashMap<TreeId, Share>,
    before: Moment,
    orphan_reaped: bool,
}

/// What of a snapshot belongs to one tree.
#[derive(Debug, Default)]
struct Share {
    alive: Vec<Process>,
    /// A child of the daemon was dead: it may have had a child that was not listed.
    dead_child: bool,
}

/// What was found of a tree.
#[derive(Debug, Default)]
pub struct Found {
    /// What of it is alive.
    pub members: Vec<Process>,
    /// Whether it is certain that there is nothing else, where there are no members.
    pub certain: bool,
    /// It was started by another daemon.
    pub adopted: bool,
}

impl Found {
    /// Nothing is left of the tree, for certain.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.members.is_empty() && self.certain
    }
}

/// Knows the trees and finds what belongs to them.
#[derive(Default)]
pub struct Census {
    trees: Mutex<HashMap<TreeId, Claim>>,
    remembered: Mutex<HashMap<(u32, u64), TreeId>>,
    begun: Mutex<u64>,
    last: tokio::sync::Mutex<(u64, Arc<Shares>)>,
    recent: Mutex<Option<(Instant, Arc<Shares>)>>,
    #[cfg(test)]
    attributions: std::sync::atomic::AtomicUsize,
}

impl Census {
    /// Registers a tree by the process that was started for it, and by when that was, before it can
    /// have been reaped.
    pub fn claim(&self, tree: TreeId, main: u32, start: u64) {
        lock(&self.trees).insert(tree, Claim { main: Some(main), start, adopted: false });
    }

    /// Registers a tree that another daemon started: by its main process, where that is proved to be
    /// it, and by when it was started, before which there was nothing of it.
    pub fn adopt(&self, tree: TreeId, main: Option<u32>, start: u64) {
        lock(&self.trees).insert(tree, Claim { main, start, adopted: true });
    }

    /// Since when there can be something of trees that do not descend from this process.
    fn adopted_since(&self) -> Option<u64> {
        let trees = lock(&self.trees);
        trees.values().filter(|claim| claim.adopted).map(|claim| claim.start).min()
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
    pub async fn find(&self, tree: TreeId) -> io::Result<Found> {
        if self.is_surely_gone(tree) {
            return Ok(Found { certain: true, ..Found::default() });
        }
        let shares = self.shares().await?;
        Ok(self.of(tree, &shares))
    }

    /// Whether no census is needed: all orphans are known to be of other trees, and whatever is left
    /// of a tree whose main process is gone is an orphan or descends from one.
    fn is_surely_gone(&self, tree: TreeId) -> bool {
        let claim = lock(&self.trees).get(&tree).copied().filter(|claim| !claim.adopted);
        let Some(main) = claim.and_then(|claim| claim.main) else { return false };
        let Some(orphans) = reaper::orphans_after(main) else { return false };
        let trees = lock(&self.trees);
        let is_of_another = |pid: &u32| {
            mark_of(*pid).is_some_and(|mark| mark != tree.0 && trees.contains_key(&TreeId(mark)))
        };
        orphans.iter().all(is_of_another)
    }

    /// The same by a census that may be a second old; walks `/proc` here and now if there is none.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn find_recent(&self, tree: TreeId) -> io::Result<Found> {
        const RECENT: Duration = Duration::from_secs(1);
        let recent = lock(&self.recent).clone().filter(|(at, _)| at.elapsed() < RECENT);
        let shares = match recent {
            Some((_, shares)) => shares,
            None => self.divide(take(self.adopted_since())?),
        };
        Ok(self.of(tree, &shares))
    }

    async fn shares(&self) -> io::Result<Arc<Shares>> {
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
        let adopted = self.adopted_since();
        let taken = tokio::task::spawn_blocking(move || take(adopted)).await;
        let snapshot = taken.map_err(io::Error::other)??;
        // Whoever waits for this census claimed its tree before it began.
        *last = (number, self.divide(snapshot));
        Ok(last.1.clone())
    }

    fn of(&self, tree: TreeId, shares: &Shares) -> Found {
        let claim = lock(&self.trees).get(&tree).copied();
        let (main, adopted) = (claim.and_then(|c| c.main), claim.is_some_and(|c| c.adopted));
        let share = shares.of.get(&tree);
        let certain = !shares.orphan_reaped
            && !adopted
            && main.is_none_or(|main| !shares.before.registered.contains(&main))
            && share.is_none_or(|share| !share.dead_child);
        let members = share.map(|share| share.alive.clone()).unwrap_or_default();
        Found { members, certain, adopted }
    }

    /// Gives each tree what is its own, and keeps that for those who ask next.
    fn divide(&self, snapshot: Snapshot) -> Arc<Shares> {
        let owners = self.attribute(&snapshot);
        let daemon = std::process::id();
        let Snapshot { processes, before, orphan_reaped } = snapshot;
        let mut shares = Shares { of: HashMap::new(), before, orphan_reaped };
        for process in processes {
            let Some(tree) = owners.get(&process.pid) else { continue };
            let share = shares.of.entry(*tree).or_default();
            match process.ended {
                true => share.dead_child |= process.parent == daemon,
                false => share.alive.push(process),
            }
        }
        let shares = Arc::new(shares);
        *lock(&self.recent) = Some((Instant::now(), shares.clone()));
        shares
    }

    fn attribute(&self, snapshot: &Snapshot) -> HashMap<u32, TreeId> {
        #[cfg(test)]
        self.attributions.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
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
    let by_main: HashMap<u32, (TreeId, Claim)> =
        trees.iter().filter_map(|(tree, claim)| Some((claim.main?, (*tree, *claim)))).collect();
    let starts: HashMap<u32, u64> = processes.iter().map(|p| (p.pid, p.start)).collect();
    let mut owners: HashMap<u32, TreeId> = HashMap::new();
    for process in processes {
        let main = by_main.get(&process.pid).filter(|(_, claim)| claim.start == process.start);
        let by_descent =
            || main.map(|(tree, _)| *tree).or_else(|| owners.get(&process.parent).copied());
        let by_mark = || process.mark.map(TreeId).filter(|tree| trees.contains_key(tree));
        let by_session = || {
            let (tree, claim) = by_main.get(&process.session)?;
            // The number may have come to another process, which began a session of its own.
            let start = claim.start;
            let reused = starts.get(&process.session).is_some_and(|leader| *leader != start);
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

/// Kills what has the mark of a tree, each as soon as it is seen, and then again what is new, until
/// nothing is. It looks at nothing but the mark, so it is quick enough for a process that forks and
/// ends over and over. Blocks.
///
/// # Errors
/// When `/proc` cannot be read, or a signal is refused.
pub fn hunt(tree: TreeId) -> io::Result<()> {
    /// Numbers that were seen may be given out again: whoever asked for this looks again anyway.
    const ENOUGH: usize = 1000;
    /// So many lists without anything new of ours.
    const QUIET: usize = 10;
    let mut buffer = Vec::new();
    let mut seen = HashSet::new();
    let mut quiet = 0;
    for _ in 0..ENOUGH {
        quiet += 1;
        for pid in list()? {
            if !seen.insert(pid) || read_mark(pid, &mut buffer) != Some(tree.0) {
                continue;
            }
            quiet = 0;
            // The mark is read again after the opening, as in `open`.
            if let Some(pidfd) = crate::sys::signal::open(pid)?
                && read_mark(pid, &mut buffer) == Some(tree.0)
            {
                crate::sys::signal::send(&pidfd, Signal::KILL)?;
            }
        }
        if quiet == QUIET {
            break;
        }
    }
    Ok(())
}

/// Nothing panics while it holds one of these, and each change is one insertion or removal.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::native::walk::with_proved_session;

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
        let claim =
            |&(id, main, start)| (TreeId(id), Claim { main: Some(main), start, adopted: false });
        claims.iter().map(claim).collect()
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
    fn elsewhere_a_session_without_its_leader_says_nothing() {
        let known = |main| {
            let claim = Claim { main, start: 10, adopted: true };
            HashMap::from([(TreeId(5), claim)])
        };
        let owners = |processes: &[Process], main| {
            let all = processes.iter().map(|p| (p.pid, p.clone())).collect();
            let seen = processes.iter().map(|p| with_proved_session(p.clone(), &all));
            attribute(&seen.collect::<Vec<_>>(), &known(main), &HashMap::new()).len()
        };
        let processes = [process(10, 1, 10, None), process(11, 1, 10, None)];
        assert_eq!(owners(&processes, Some(10)), 2);
        // The leader is gone: the number may have been given out again, and that one be gone too.
        assert_eq!(owners(&processes[1..], Some(10)), 0);
        // Who has the number was not proved to be the main process.
        assert_eq!(owners(&processes, None), 0);
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
    fn a_snapshot_is_told_apart_once_however_many_ask() {
        let census = Census::default();
        // They are no children of the test, so each is asked about and nothing is found.
        for n in 1..=50 {
            census.claim(TreeId(n), u32::MAX, 0);
        }
        for n in 1..=50 {
            assert!(census.find_recent(TreeId(n)).unwrap().members.is_empty());
        }
        assert_eq!(census.attributions.load(std::sync::atomic::Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn those_who_wait_for_one_census_share_it() {
        let census = Arc::new(Census::default());
        let asking: Vec<_> = (0..50)
            .map(|n| {
                let census = census.clone();
                tokio::spawn(async move { census.find(TreeId(n)).await.map(drop) })
            })
            .collect();
        for asked in asking {
            asked.await.unwrap().unwrap();
        }
        // The first begins one at once; all others come before the second has begun.
        assert_eq!(census.attributions.load(std::sync::atomic::Ordering::Relaxed), 2);
    }

    #[test]
    fn each_tree_gets_its_share_and_no_more() {
        let census = Census::default();
        let daemon = std::process::id();
        *lock(&census.trees) = trees(&[(5, 10, 10), (6, 20, 20), (7, 30, 30)]);
        let dead = |process: Process| Process { ended: true, ..process };
        let processes = vec![
            process(10, daemon, 10, None),
            process(11, 10, 10, None),
            dead(process(20, daemon, 20, None)),
            process(40, daemon, 40, None),
        ];
        let shares = census.divide(Snapshot { processes, ..Snapshot::default() });
        let found = |tree| {
            let found = census.of(TreeId(tree), &shares);
            (found.members.iter().map(|p| p.pid).collect::<Vec<_>>(), found.certain)
        };
        assert_eq!(found(5), (vec![10, 11], true));
        assert_eq!(found(6), (vec![], false));
        assert_eq!(found(7), (vec![], true));
    }
}
