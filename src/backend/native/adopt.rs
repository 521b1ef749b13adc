//! Runs of a daemon that was killed.
//!
//! They are not our children, unless it was another program in this very process, and nothing is believed of them that cannot be seen: a pid is that of
//! a run only when whoever has it was started when the record says, and has the mark of the run or
//! is in its control group. Then a pidfd stands for it, and from there on it is a run like any
//! other, but for two things where it is no child: how it ended is told by the kernel (Linux 6.15) or
//! not at all, and what it leaves behind does not become ours.
//!
//! What is ours and no known run's is ended before anything is started: it could be doubled.

use super::census::{self, Census, TreeId};
use super::cgroup::{self, Cgroups};
use super::mark::Marks;
use super::reaper::{self, Exit};
use super::run::{self, Handle};
use super::tree::Tree;
use super::{Inner, hold, lock};
use crate::backend::Kept;
use crate::core::ids::{InstanceId, Run};
use crate::core::spec::{ProcessSpec, Signal};
use crate::store::runs::RunRecord;
use crate::sys::random;
use crate::sys::signal::open;
use crate::sys::stat::Stat;
use futures_util::future::join_all;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

/// What nobody knows of has so long to end by itself.
const STRAYS: Duration = Duration::from_secs(5);
/// That it cannot be ended may be for want of something that comes back.
const ATTEMPTS: u32 = 10;

/// A run of which something is there.
pub(super) struct Adopted {
    /// The main process, while there is one.
    pub main: Option<Arc<OwnedFd>>,
    /// All of it.
    pub tree: Arc<Tree>,
    /// Its record.
    pub record: RunRecord,
    /// Where it is a child of ours, which another program in this process has started.
    pub exit: Option<Exit>,
}

/// Finds what is there of these runs, and goes on with it; ends what is ours and of none of them.
pub(super) async fn recover(
    inner: &Arc<Inner>,
    known: Vec<Kept>,
    mut stored: HashMap<(InstanceId, Run), OwnedFd>,
) -> BTreeSet<(InstanceId, Run)> {
    let mut records = inner.runs_kept.take_found();
    let handed = std::mem::take(&mut *lock(&inner.handed));
    let specs: BTreeMap<hold::Place, Arc<ProcessSpec>> =
        known.iter().map(|k| ((k.instance.clone(), k.slot), k.spec.clone())).collect();
    let mut written = hold::take_over(inner, handed, |place| specs.get(place).cloned());
    let mut held = Vec::new();
    for Kept { instance, run, spec, started, .. } in known {
        let key = (instance, run);
        let Some(record) = records.remove(&key) else { continue };
        // Nothing has waited since the reaper was made, so none of them was reaped.
        let exit = reaper::take_over(record.pid, record.start);
        let pidfd = stored.remove(&key).map(Arc::new);
        let pidfd = pidfd.or_else(|| {
            let child = exit.as_ref().and_then(|_| open(record.pid).ok()?);
            child.map(Arc::new)
        });
        // It was let go, and whether it was executed nobody knows: it is not executed a second time
        // as if it had not been.
        let is_told = pidfd.is_some() || !started;
        match candidate(inner, record.clone()) {
            // One that was stored stood for the process all the time.
            Some(found) => {
                let main = pidfd.or(found.main);
                held.push((key, spec, is_told, Adopted { main, exit, ..found }));
            }
            // Nothing is left of it but word of how it ended.
            None if is_told => {
                let nothing = Adopted { main: pidfd, tree: nothing(inner), record, exit };
                held.push((key, spec, is_told, nothing));
            }
            None => run::tidy(inner, &record, &spec),
        }
    }
    // All at once, so that one census serves all.
    let found = held.into_iter().map(|(key, spec, is_told, candidate)| async move {
        match is_told || is_there(&candidate).await {
            true => Some((key, spec, candidate)),
            false => {
                run::tidy(inner, &candidate.record, &spec);
                None
            }
        }
    });
    let adopted: Vec<_> = join_all(found).await.into_iter().flatten().collect();
    let there = adopted.iter().map(|(key, _, _)| key.clone()).collect();
    let trees: Vec<Arc<Tree>> = adopted.iter().map(|(_, _, found)| found.tree.clone()).collect();
    end_strays(inner, &trees).await;
    for ((instance, run), spec, found) in adopted {
        let handle = Arc::new(Handle::new(instance.clone(), run, found.record.slot));
        lock(&inner.runs).insert((instance, run), handle.clone());
        handle.adopt(&found);
        inner.hear(found.record.pid, &handle, &spec);
        inner.sockets.goes_on(&handle.key().0, found.record.slot, &spec.exec);
        let logged = written.remove(&(handle.key().0, found.record.slot)).unwrap_or_default();
        tokio::spawn(run::live_on(inner.clone(), handle, spec, found, logged));
    }
    there
}

/// What belonged to a run, if there can be anything of it. Of its main process nothing is believed
/// that is not proved.
fn candidate(inner: &Inner, record: RunRecord) -> Option<Adopted> {
    let (tree, main) = match (&record.group, &inner.cgroups) {
        (Some(group), Some(cgroups)) => match cgroups.open(group) {
            Ok(found) => {
                let group = found?;
                let main = open_if(&record, || group.pids().contains(&record.pid));
                (Tree::Cgroup(Box::new(group)), main)
            }
            Err(error) => {
                let name = &record.instance;
                tracing::error!("{name}: its control group cannot be opened: {error}");
                return None;
            }
        },
        // Without the group it cannot be told what is in it.
        (Some(_), None) => return None,
        (None, _) => {
            let (tree, main) = match (record.mark, inner.marks) {
                // It sets its own mark just before it becomes the command.
                (Some(mark), _) if Marks::is_mark(mark) => {
                    let is_marked = || census::mark_of(record.pid) == Some(mark);
                    let main = open_if(&record, || is_marked() || is_waiting(&record));
                    (TreeId(mark), main)
                }
                // There are no marks here; all that tells it is that it leads its session.
                (None, None) => {
                    let leads = || census::read(record.pid).is_some_and(|p| p.session == p.pid);
                    (TreeId(random()), open_if(&record, leads))
                }
                // That is no record of ours.
                _ => return None,
            };
            inner.census.adopt(tree, main.as_ref().map(|_| record.pid), record.start);
            (Tree::Marked(tree, inner.census.clone()), main)
        }
    };
    Some(Adopted { main: main.map(Arc::new), tree: Arc::new(tree), record, exit: None })
}

/// A tree that has nothing in it.
fn nothing(inner: &Inner) -> Arc<Tree> {
    let tree = TreeId(random());
    inner.census.adopt(tree, None, u64::MAX);
    Arc::new(Tree::Marked(tree, inner.census.clone()))
}

/// The process of a record, where it is the one that was started then and there is a proof.
fn open_if(record: &RunRecord, is_proved: impl Fn() -> bool) -> Option<OwnedFd> {
    let seen = census::read(record.pid).filter(|seen| seen.start == record.start && !seen.ended)?;
    // Looks again after the opening.
    let pidfd = census::open(&seen).ok()??;
    is_proved().then_some(pidfd)
}

async fn is_there(Adopted { main, tree, record, .. }: &Adopted) -> bool {
    match (main, &**tree) {
        (Some(_), _) => true,
        (None, Tree::Cgroup(group)) => !group.pids().is_empty(),
        (None, Tree::Marked(id, census)) => match census.find(*id).await {
            Ok(found) => !found.members.is_empty(),
            Err(error) => {
                tracing::error!("{}: cannot tell whether it runs: {error}", record.instance);
                true
            }
        },
    }
}

/// Whether the process of a run has not become its command yet: it has executed nothing since it was
/// made.
pub(super) fn is_waiting(record: &RunRecord) -> bool {
    Stat::of(record.pid).is_some_and(|stat| stat.has_not_executed && stat.start == record.start)
}

/// Ends what is ours by mark or control group and is of none of these trees.
async fn end_strays(inner: &Inner, trees: &[Arc<Tree>]) {
    // All at once: nothing is started before.
    join_all(strays(inner, trees).iter().map(end_stray)).await;
}

async fn end_stray(stray: &Tree) {
    let name = stray.label();
    tracing::warn!("{name} was started by a daemon before and nothing is known of it: ended");
    let ended = || async {
        stray.signal(Signal::TERM).await?;
        match tokio::time::timeout(STRAYS, stray.emptied()).await {
            Ok(emptied) => return emptied,
            Err(_) => stray.kill().await?,
        }
        stray.emptied().await
    };
    for _ in 0..ATTEMPTS {
        let Err(error) = ended().await else { return };
        tracing::error!("{name}: ending it: {error}");
        tokio::time::sleep(STRAYS / ATTEMPTS).await;
    }
}

fn strays(inner: &Inner, trees: &[Arc<Tree>]) -> Vec<Tree> {
    if let Some(cgroups) = &inner.cgroups {
        let known: BTreeSet<&str> = trees.iter().filter_map(|tree| tree.group_name()).collect();
        return in_groups(cgroups, &known);
    }
    let Some(marks) = inner.marks else { return Vec::new() };
    let known: BTreeSet<u64> = trees.iter().filter_map(|tree| tree.mark()).collect();
    marked(&inner.census, marks, &known)
}

fn in_groups(cgroups: &Cgroups, known: &BTreeSet<&str>) -> Vec<Tree> {
    let names = cgroups.names().into_iter().filter(|name| !known.contains(name.as_str()));
    // One that cannot be opened is gone or empty.
    let groups = names.filter_map(|name| cgroups.open(&name).ok()?);
    groups.map(|group| Tree::Cgroup(Box::new(group))).collect()
}

fn marked(census: &Arc<Census>, marks: Marks, known: &BTreeSet<u64>) -> Vec<Tree> {
    let found = census::marked(|mark| marks.has(mark) && !known.contains(&mark));
    found
        .into_iter()
        .map(|(mark, first)| {
            census.adopt(TreeId(mark), Some(first.pid), first.start);
            Tree::Marked(TreeId(mark), census.clone())
        })
        .collect()
}

/// Ends all that a daemon with the native backend has left, for one with another backend: `name` is
/// that of its control groups, `token` is in its marks.
pub async fn end_all(environment: &BTreeMap<String, String>, name: &str, token: u32) {
    let census = Arc::default();
    let given = environment.get(cgroup::VARIABLE).map(String::as_str);
    let groups = Cgroups::find_left(given, name);
    let mut left = groups.map(|groups| in_groups(&groups, &BTreeSet::new())).unwrap_or_default();
    left.extend(
        Marks::new(token)
            .map(|marks| marked(&census, marks, &BTreeSet::new()))
            .into_iter()
            .flatten(),
    );
    join_all(left.iter().map(end_stray)).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::ids::Slot;
    use crate::sys::clone::{Program, start};
    use crate::sys::setup::Setup;
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    use std::io::Write;
    use std::os::fd::AsFd;

    /// What a daemon is killed over: it has recorded a process that has not executed anything yet.
    #[test]
    fn who_has_executed_nothing_waits() {
        let null = std::fs::File::open("/dev/null").unwrap();
        let setup = Setup { candidates: vec![c"/bin/true".to_owned()], ..Setup::default() };
        let (argv, stdio) = (vec![c"true".to_owned()], [null.as_fd(); 3]);
        let program = Program { argv, env: vec![], setup, stdio, cgroup: None };
        let mut started = start(program).unwrap();
        let instance = InstanceId::parse("a@0").unwrap();
        let (pid, start) = (started.pid, started.start);
        let record =
            RunRecord { instance, run: Run(1), slot: Slot::A, pid, start, mark: None, group: None };
        assert!(is_waiting(&record));
        // Another one with its number.
        assert!(!is_waiting(&RunRecord { start: start + 1, ..record.clone() }));
        let own = Stat::of(std::process::id()).unwrap().start;
        assert!(!is_waiting(&RunRecord { pid: std::process::id(), start: own, ..record.clone() }));
        started.socket.write_all(&[0]).unwrap();
        waitid(WaitId::PidFd(started.pidfd.as_fd()), WaitIdOptions::EXITED).unwrap();
        assert!(!is_waiting(&record));
    }
}
