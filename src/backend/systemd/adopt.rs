//! The units of a daemon that is gone.
//!
//! A unit says itself which run it is the place of, and keeps how its main process ended; so nothing
//! has to be written down about it. What is ours and no known run's is stopped before anything is
//! started: it could be doubled.

use super::manager::{CallError, MainChange, Manager, Observed, UnitEvent, Watch};
use super::pid_file::{PidFile, remove_stale};
use super::placed::Placed;
use super::resources;
use super::run::{self, Handle, follow};
use super::status::{OF_SYSTEMD, exit_status, failed_step};
use super::unit::Names;
use super::{Inner, lock};
use crate::backend::Kept;
use crate::backend::native;
use crate::backend::native::identity::Need;
use crate::backend::native::launch::{failure, reason};
use crate::backend::sockets::Passed;
use crate::core::event::{Event, ExitStatus, SpawnStage};
use crate::core::ids::{InstanceId, Run};
use crate::core::limits::Limits;
use crate::core::spec::ProcessSpec;
use futures_util::future::join_all;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// What fails is tried again after so long.
const AGAIN: Duration = Duration::from_secs(1);

/// Finds what is there of these runs, and goes on with it; ends what is ours and of none of them.
pub(super) async fn recover(inner: &Arc<Inner>, known: Vec<Kept>) -> BTreeSet<(InstanceId, Run)> {
    // What another daemon was just handing over: it is gone, and so is who wanted it.
    for entry in std::fs::read_dir(&inner.handovers).into_iter().flatten().flatten() {
        let _ = std::fs::remove_file(entry.path());
    }
    let mut units = find(&inner.manager, &inner.names).await;
    let mut there = BTreeSet::new();
    let mut adopted = Vec::new();
    for Kept { instance, run, slot, spec, started: _ } in known {
        let unit = inner.names.of(&instance, slot);
        let found = units.get(&unit).and_then(Option::as_ref);
        if found.is_some_and(|found| found.run == Some(run) && found.state != "inactive") {
            // It was just looked at.
            if let Some(Some(found)) = units.remove(&unit) {
                there.insert((instance.clone(), run));
                adopted.push((instance, (run, slot), spec, unit, found));
            }
        } else {
            tidy(inner, &instance, &spec).await;
        }
    }
    let manager = &inner.manager;
    let strays = units.iter().map(|(unit, found)| end_stray(manager, unit, found.as_ref()));
    let native = native::end_all(&inner.environment, &inner.name, inner.token);
    tokio::join!(join_all(strays), native);
    for (instance, (run, slot), spec, unit, found) in adopted {
        let (handle, orders) = Handle::new(instance.clone(), run, slot, &spec.limits);
        let handle = Arc::new(handle);
        handle.take_unit();
        let held = inner.sockets.goes_on(&handle.instance, slot, &spec.exec);
        lock(&inner.runs).insert((instance, run), handle.clone());
        // It may have ended since it was found.
        let watch = manager.watch_on(&unit);
        let inner = inner.clone();
        tokio::spawn(async move {
            live_on(&inner, &handle, &spec, (unit, watch, found, held), orders).await;
        });
    }
    there
}

/// Ends all that a daemon with the systemd backend has left, for one with another backend.
pub async fn end_all(manager: &Arc<Manager>, names: &Names) {
    let units = find(manager, names).await;
    join_all(units.iter().map(|(unit, found)| end_stray(manager, unit, found.as_ref()))).await;
}

/// The units of ours that are there. What runs beside runs is not looked at: it is ours by its name.
async fn find(manager: &Manager, names: &Names) -> BTreeMap<String, Option<Observed>> {
    let mut units = BTreeMap::new();
    let patterns = names.patterns();
    let listed = insist("listing units", || manager.list(&patterns)).await;
    for unit in listed {
        if names.instance(&unit).is_none() {
            if names.is_command(&unit) {
                units.insert(unit, None);
            }
            continue;
        }
        let found = insist(&unit, || manager.observe(&unit)).await;
        // Somebody else's unit may have such a name, and no number of a run.
        if let Some(found) = found.filter(|found| found.run.is_some()) {
            units.insert(unit, Some(found));
        }
    }
    units
}

async fn insist<T, F: Future<Output = Result<T, CallError>>>(
    what: &str,
    attempt: impl Fn() -> F,
) -> T {
    loop {
        match attempt().await {
            Ok(done) => return done,
            Err(CallError::Lost) => {}
            Err(error) => {
                tracing::error!("{what}: {error}; trying again");
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

/// How the run of a unit ended that has nothing in it any more.
fn over(found: &Observed) -> Option<ExitStatus> {
    let MainChange { code, status, .. } = found.main;
    exit_status(code.unwrap_or_default(), status.unwrap_or_default())
        .filter(|_| found.control_group.is_empty())
}

async fn end_stray(manager: &Arc<Manager>, unit: &str, found: Option<&Observed>) {
    match found.and_then(over) {
        // The daemon before was killed between writing that down and letting the unit go, or nothing that
        // was written down is left.
        Some(status) => tracing::info!("{unit} is let go: its run had ended ({status})"),
        None => tracing::warn!(
            "{unit} was started by a daemon before and nothing is known of it: stopped"
        ),
    }
    let mut watch = manager.watch(unit);
    // What failed has nothing to stop.
    let mut job = insist(unit, || manager.stop(unit)).await;
    while let Some(of) = &job {
        match watch.next().await {
            UnitEvent::JobRemoved { job, .. } if job == *of => break,
            UnitEvent::Removed | UnitEvent::Look => {
                let found = insist(unit, || manager.observe(unit)).await;
                if found.is_none_or(|found| !found.has_job) {
                    job = None;
                }
            }
            _ => {}
        }
    }
    insist(unit, || manager.reset_failed(unit)).await;
}

/// Goes on with one run of another daemon.
async fn live_on(
    inner: &Arc<Inner>,
    handle: &Arc<Handle>,
    spec: &ProcessSpec,
    (unit, watch, found, held): (String, Watch, Observed, Passed),
    mut orders: run::Orders,
) {
    let (instance, run) = (handle.instance.clone(), handle.run);
    let gate = inner.gate(handle).lock_owned().await;
    let report = |event| {
        let _ = inner.facts.send(event);
    };
    let failed = found.state == "failed" && !found.has_job;
    let limits = Limits::clone(&spec.limits);
    let missing = resources::missing(&found.limits, &limits);
    let (pid_file, logged) = (None, None);
    let mut placed = Placed { unit, watch, main: found.main, pid_file, logged, held, gate, limits };
    // It may have been killed between asking for the start and hearing of it.
    let executed = match found.has_job {
        true => placed.wait_until_started(inner, run, &mut orders).await,
        false => true,
    };
    let step = placed.main.status.filter(|status| failed && OF_SYSTEMD.contains(status));
    if let Some((stage, word)) = step.and_then(failed_step) {
        // Where it is known that it was executed this changes nothing, and the end is told below.
        let error = failure(stage, "", format!("systemd: {word}"));
        report(Event::SpawnFailed { instance: instance.clone(), run, error });
    } else if let Some(pid) = placed.main.pid.filter(|_| executed) {
        report(Event::Spawned { instance: instance.clone(), run, pid });
    } else {
        let text = "systemd could not start it".to_owned();
        let error = failure(SpawnStage::Fork, "", text);
        report(Event::SpawnFailed { instance: instance.clone(), run, error });
    }
    if let Some(pid) = placed.main.pid {
        placed.look_into(inner, handle, pid).await;
        if let Some(path) = run::pid_file_of(&spec.exec, instance.index)
            && let Ok(identity) = inner.identities.find(&spec.exec, Need::User).await
        {
            placed.pid_file = Some(PidFile { path, pid, identity });
        }
    }
    // The daemon before may have been killed between writing a change down and carrying it out.
    placed.set(&inner.manager, &missing).await;
    follow(inner, handle, placed, orders).await;
}

/// Removes what a run has left that ended while there was no daemon.
async fn tidy(inner: &Inner, instance: &InstanceId, spec: &ProcessSpec) {
    let Some(path) = run::pid_file_of(&spec.exec, instance.index) else { return };
    let Ok(identity) = inner.identities.find(&spec.exec, Need::User).await else { return };
    let removed = tokio::task::spawn_blocking(move || {
        let removed = remove_stale(&path, &identity);
        (path, removed)
    });
    if let Ok((path, Err(error))) = removed.await
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!("removing the pid file {path}: {}", reason(&error));
    }
}
