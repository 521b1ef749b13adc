//! One loop takes the statuses of all children, also of those that were never ours to start: as
//! subreaper, or as the first process of a container, this process inherits every orphan below it.
//!
//! The table is one for the whole process because the kernel's is: `waitid(P_ALL)` takes whatever
//! child has ended. For the same reason nothing else here may wait for a child.

use crate::core::event::ExitStatus;
use crate::sys::children::Children;
use crate::sys::clone::{Program, StartError, Started, start};
use crate::sys::reap::reap;
use crate::sys::sigchld::Sigchld;
use crate::sys::signal::gone;
use crate::sys::stat::Stat;
use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use tokio::sync::{oneshot, watch};

/// Who waits for which child, and how many children were reaped that nobody had registered:
/// orphans that became ours.
#[derive(Default)]
struct Table {
    waiting: HashMap<u32, oneshot::Sender<ExitStatus>>,
    orphans: u64,
    /// How many were reaped in all.
    reaped: u64,
    /// None where the kernel does not list them.
    children: Option<Children>,
    /// The orphans there were, when so many had been reaped.
    listed: Option<(u64, Arc<[u32]>)>,
}

static TABLE: LazyLock<Mutex<Table>> = LazyLock::new(|| {
    // Where there is no list, others find out what is left in another way.
    let children = Children::open().ok();
    Mutex::new(Table { children, ..Table::default() })
});

/// Comes once, when the process has ended and was reaped.
pub type Exit = oneshot::Receiver<ExitStatus>;

/// The loop; it ends when this is dropped.
pub struct Reaper {
    task: tokio::task::JoinHandle<()>,
    /// Whether statuses are taken.
    reaping: watch::Sender<bool>,
}

impl Drop for Reaper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Reaper {
    /// Makes this process the subreaper of all below it and begins to reap. SIGCHLD is blocked in all
    /// threads ([`crate::sys::sigchld::block`]).
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn new() -> io::Result<Reaper> {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        let sigchld = Sigchld::new()?;
        let (reaping, mut may_reap) = watch::channel(true);
        let task = tokio::spawn(async move {
            // An error means that this is dropped.
            while may_reap.wait_for(|may| *may).await.is_ok() {
                // Signals coalesce: one may stand for many ends.
                while reap_one() {}
                tokio::select! {
                    ended = sigchld.recv() => if ended.is_err() { return },
                    _ = may_reap.changed() => {}
                }
            }
        });
        Ok(Reaper { task, reaping })
    }

    /// Takes no statuses for now, or again: what ends meanwhile waits for the next program in this
    /// process, whose child it is as well.
    pub fn set(&self, reaping: bool) {
        self.reaping.send_replace(reaping);
    }
}

/// Registers a child that the program before this one has started, alive or dead; None when this is
/// no child of ours. To be called before the loop of [`Reaper`] got its first turn: as long as nobody
/// takes its status, nobody else has its number.
#[must_use]
pub fn take_over(pid: u32, start: u64) -> Option<Exit> {
    let mut table = table();
    let stat = Stat::of(pid)?;
    if stat.parent != std::process::id() || stat.start != start {
        return None;
    }
    let (sender, exit) = oneshot::channel();
    table.waiting.insert(pid, sender);
    Some(exit)
}

/// Waits for the end of a process that was started with [`start_registered`], also where there is no
/// [`Reaper`].
///
/// # Errors
/// When it cannot be waited for.
pub async fn ended(pidfd: OwnedFd, exit: Exit) -> io::Result<ExitStatus> {
    gone(pidfd).await?;
    while reap_one() {}
    Ok(exit.await.unwrap_or(ExitStatus::Unknown))
}

/// Starts a process and registers it, with no moment in between in which it could be reaped.
///
/// # Errors
/// As [`start`].
pub fn start_registered(program: Program<'_>) -> Result<(Started, Exit), StartError> {
    let mut table = table();
    let started = start(program)?;
    let (sender, exit) = oneshot::channel();
    table.waiting.insert(started.pid, sender);
    Ok((started, exit))
}

/// What was reaped up to a moment. Two of them tell whether a process below this one can have
/// disappeared without a trace in between.
#[derive(Debug, Default)]
pub struct Moment {
    /// The children that were registered and not reaped.
    pub registered: HashSet<u32>,
    /// How many orphans were reaped.
    pub orphans: u64,
}

/// The present moment. What disappears later is counted later.
#[must_use]
pub fn moment() -> Moment {
    let table = table();
    Moment { registered: table.waiting.keys().copied().collect(), orphans: table.orphans }
}

/// The orphans that are children of this process, dead or alive, at a moment after `main` was
/// reaped; None while it is not, or where they are not known.
///
/// Whatever is left of the tree of `main` descends from one of them: when a process ends, its
/// children get their new parent before anybody can reap it. That is also why a list serves for as
/// long as nothing else is reaped.
#[must_use]
pub fn orphans_after(main: u32) -> Option<Arc<[u32]>> {
    let mut table = table();
    if table.waiting.contains_key(&main) {
        return None;
    }
    if let Some((reaped, orphans)) = &table.listed
        && *reaped == table.reaped
    {
        return Some(orphans.clone());
    }
    // Nothing is reaped meanwhile, which is what makes the list whole: the table is held.
    let mut orphans = table.children.as_ref()?.list().ok()?;
    orphans.retain(|pid| !table.waiting.contains_key(pid));
    let orphans: Arc<[u32]> = orphans.into();
    table.listed = Some((table.reaped, orphans.clone()));
    Some(orphans)
}

/// Whether there was one. The table is held from the reaping to the counting, so that nobody sees
/// the one without the other.
fn reap_one() -> bool {
    let mut table = table();
    let Some(reaped) = reap() else { return false };
    table.reaped += 1;
    match table.waiting.remove(&reaped.pid) {
        // Whoever started it may have lost interest.
        Some(sender) => drop(sender.send(reaped.status)),
        None => table.orphans += 1,
    }
    true
}

/// No code panics while it holds the table, and half a change of it is not possible.
fn table() -> MutexGuard<'static, Table> {
    TABLE.lock().unwrap_or_else(PoisonError::into_inner)
}
