//! One loop takes the statuses of all children, also of those that were never ours to start: as
//! subreaper, or as the first process of a container, this process inherits every orphan below it.
//!
//! The table is one for the whole process because the kernel's is: `waitid(P_ALL)` takes whatever
//! child has ended. For the same reason nothing else here may wait for a child.

use crate::core::event::ExitStatus;
use crate::sys::clone::{Program, StartError, Started, start};
use crate::sys::reap::reap;
use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// Who waits for which child, and how many children were reaped that nobody had registered:
/// orphans that became ours.
#[derive(Default)]
struct Table {
    waiting: HashMap<u32, oneshot::Sender<ExitStatus>>,
    orphans: u64,
}

static TABLE: LazyLock<Mutex<Table>> = LazyLock::new(Mutex::default);

/// Comes once, when the process has ended and was reaped.
pub type Exit = oneshot::Receiver<ExitStatus>;

/// The loop; it ends when this is dropped.
pub struct Reaper(tokio::task::JoinHandle<()>);

impl Drop for Reaper {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Reaper {
    /// Makes this process the subreaper of all below it and begins to reap.
    ///
    /// # Errors
    /// When the kernel refuses, or the handler of SIGCHLD cannot be installed.
    pub fn new() -> io::Result<Reaper> {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        let mut ended = signal(SignalKind::child())?;
        Ok(Reaper(tokio::spawn(async move {
            loop {
                // Signals coalesce: one may stand for many ends.
                while reap_one() {}
                if ended.recv().await.is_none() {
                    return;
                }
            }
        })))
    }
}

/// Starts a process and registers it, with no moment in between in which it could be reaped.
///
/// # Errors
/// As [`start`].
pub fn start_registered(program: &Program<'_>) -> Result<(Started, Exit), StartError> {
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

/// Whether there was one. The table is held from the reaping to the counting, so that nobody sees
/// the one without the other.
fn reap_one() -> bool {
    let mut table = table();
    let Some(reaped) = reap() else { return false };
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
