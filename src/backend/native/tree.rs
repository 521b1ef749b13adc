//! All that a run has started: finding it, signalling it, killing it until nothing is left.

use super::census::{self, Census, Process, TreeId};
use super::cgroup::Cgroup;
use crate::backend::Usage;
use crate::core::spec::Signal;
use crate::sys::signal::{gone, send};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

const STOP: Signal = Signal(19);

/// The tree of one run.
pub enum Tree {
    /// The kernel knows what belongs to it.
    Cgroup(Cgroup),
    /// The census finds what belongs to it.
    Marked(TreeId, Arc<Census>),
}

impl Drop for Tree {
    fn drop(&mut self) {
        if let Tree::Marked(id, census) = self {
            census.forget(*id);
        }
    }
}

impl Tree {
    /// Tells the tree its main process, before that can have been reaped.
    pub fn set_main(&self, pid: u32) {
        if let Tree::Marked(id, census) = self {
            census.claim(*id, pid);
        }
    }

    /// Returns when nothing is left. One waiter at a time.
    ///
    /// # Errors
    /// When that cannot be found out.
    pub async fn emptied(&self) -> io::Result<()> {
        let (id, census) = match self {
            Tree::Cgroup(group) => {
                group.emptied().await;
                return Ok(());
            }
            Tree::Marked(id, census) => (id, census),
        };
        loop {
            let members = census.members(*id).await?;
            if members.is_empty() {
                return Ok(());
            }
            // Nothing is left only when each of these is gone, so there is no reason to look again
            // before.
            all_gone(open_some(&members)?).await?;
        }
    }

    /// Sends a signal to all there is.
    ///
    /// # Errors
    /// When it cannot be found out what there is, or a signal is refused.
    pub async fn signal(&self, signal: Signal) -> io::Result<()> {
        match self {
            // All get it, whatever one of them says.
            Tree::Cgroup(group) => {
                group.members().iter().map(|pidfd| send(pidfd, signal)).fold(Ok(()), Result::and)
            }
            Tree::Marked(id, census) => send_all(&census.members(*id).await?, signal),
        }
    }

    /// Kills until nothing is left.
    ///
    /// # Errors
    /// When it cannot be found out what there is, or a signal is refused.
    pub async fn kill(&self) -> io::Result<()> {
        match self {
            Tree::Cgroup(group) => group.kill(),
            Tree::Marked(id, census) => kill_marked(*id, census).await,
        }
    }

    /// What it uses at the moment.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let group = match self {
            Tree::Marked(id, census) => {
                return sum(&census.recent_members(*id).unwrap_or_default());
            }
            Tree::Cgroup(group) => group,
        };
        Usage {
            memory: group.number("memory.current", None),
            cpu: group.number("cpu.stat", Some("usage_usec ")).map(|micros| micros * 1000),
            tasks: group.number("pids.current", None),
        }
        .or_else(|| sum(&group.pids().into_iter().filter_map(census::read).collect::<Vec<_>>()))
    }
}

impl Usage {
    /// Fills the gaps.
    fn or_else(self, other: impl FnOnce() -> Usage) -> Usage {
        if self.memory.is_some() && self.cpu.is_some() && self.tasks.is_some() {
            return self;
        }
        let other = other();
        Usage {
            memory: self.memory.or(other.memory),
            cpu: self.cpu.or(other.cpu),
            tasks: self.tasks.or(other.tasks),
        }
    }
}

fn sum(processes: &[Process]) -> Usage {
    let page = rustix::param::page_size() as u64;
    let ticks_per_second = rustix::param::clock_ticks_per_second();
    let total = |of: fn(&Process) -> u64| processes.iter().map(of).sum::<u64>();
    Usage {
        memory: Some(total(|p| p.pages) * page),
        cpu: Some(total(|p| p.ticks) * (1_000_000_000 / ticks_per_second.max(1))),
        tasks: Some(total(|p| p.threads)),
    }
}

async fn kill_marked(id: TreeId, census: &Census) -> io::Result<()> {
    /// Something in an uninterruptible wait does not end, and others may fork meanwhile.
    const LOOK_AGAIN: Duration = Duration::from_secs(1);
    for round in 0_u64.. {
        let mut members = census.members(id).await?;
        if round >= 2 {
            // Something forks faster than it is killed. What is stopped first keeps its place in
            // the table of processes and makes no more.
            members = stop_all(id, census, members).await?;
        }
        if members.is_empty() {
            return Ok(());
        }
        send_all(&members, Signal::KILL)?;
        // Not an error: it means to look again.
        let _ = tokio::time::timeout(LOOK_AGAIN, all_gone(open_some(&members)?)).await;
    }
    Ok(())
}

/// Stops processes until a census finds none that is new.
async fn stop_all(id: TreeId, census: &Census, first: Vec<Process>) -> io::Result<Vec<Process>> {
    const ENOUGH: usize = 100;
    let mut stopped = first;
    send_all(&stopped, STOP)?;
    for _ in 0..ENOUGH {
        let now = census.members(id).await?;
        let is_known = |p: &Process| stopped.iter().any(|s| (s.pid, s.start) == (p.pid, p.start));
        let new: Vec<Process> = now.iter().filter(|p| !is_known(p)).cloned().collect();
        stopped = now;
        if new.is_empty() {
            break;
        }
        send_all(&new, STOP)?;
    }
    Ok(stopped)
}

/// Descriptors for those that are still there; not for all where they are very many.
fn open_some(processes: &[Process]) -> io::Result<Vec<OwnedFd>> {
    const SOME: usize = 64;
    let opened = processes.iter().filter_map(|process| census::open(process).transpose());
    opened.take(SOME).collect()
}

/// Sends to one after the other, and to all, whatever one of them says.
fn send_all(processes: &[Process], signal: Signal) -> io::Result<()> {
    let send_to = |process| match census::open(process)? {
        Some(pidfd) => send(&pidfd, signal),
        None => Ok(()),
    };
    processes.iter().map(send_to).fold(Ok(()), Result::and)
}

async fn all_gone(pidfds: Vec<OwnedFd>) -> io::Result<()> {
    for pidfd in pidfds {
        gone(pidfd).await?;
    }
    Ok(())
}
