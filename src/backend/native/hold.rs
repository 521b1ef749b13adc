//! Standing still so that another program can take this one's place in the same process, and going on
//! after one.
//!
//! Most needs nothing: runs have their records, and children stay children. But nothing may be half
//! done: no run is between its beginning and its command, no status was taken and not told, and what
//! was read of an output is shown. What only this program has is handed on by name: pidfds, the
//! reading ends of outputs and of logs, the lines that were begun, and what is kept of outputs in
//! memory.

use super::output::{Pump, Rest};
use super::{Inner, Shown, lock, sink};
use crate::core::ids::{InstanceId, Slot};
use crate::core::spec::ProcessSpec;
use crate::store::runs::stored_name;
use crate::sys::memory::sealed;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{oneshot, watch};

/// What is under way has so long to come to an end.
const PATIENCE: Duration = Duration::from_secs(5);

/// After so many turns of the runtime whoever waited for a status that was taken has told it: it takes
/// one to wake up and one to be woken by that.
const TURNS: u32 = 8;

const OUTPUT: &str = "output-";
const BEGUN: &str = "begun-";
const SHOWN: &str = "shown-";
const LOG: &str = "log-";
const SAYS: &str = "says-";

/// Behind the name of an instance: what is of its second slot.
const SECOND: &str = "-b";

/// Where a run is.
pub(super) type Place = (InstanceId, Slot);

/// Whether something was handed on under this name that only this backend knows what to do with.
#[must_use]
pub fn is_handed(name: &str) -> bool {
    [OUTPUT, BEGUN, SHOWN, LOG, SAYS].iter().any(|kind| name.starts_with(kind))
}

/// What is handed on, by name.
type Named = Vec<(String, OwnedFd)>;

/// What those who look after logs hand on, or why it cannot be.
type Logs = Arc<Mutex<io::Result<Named>>>;

/// Who has to come to an end before everything stands still.
pub(super) struct Holding {
    hold: watch::Sender<bool>,
    starting: watch::Sender<usize>,
    reading: watch::Sender<usize>,
    /// Outputs that are not read for now.
    parked: Mutex<Vec<(InstanceId, Pump, Rest)>>,
    logs: Logs,
}

/// Of somebody who looks after a log: stands still with all others.
pub(super) struct Part {
    hold: watch::Receiver<bool>,
    reading: watch::Sender<usize>,
    busy: Option<Busy>,
    logs: Logs,
}

impl Part {
    pub(super) async fn is_to_stand_still(&mut self) {
        if self.hold.wait_for(|hold| *hold).await.is_err() {
            // Nobody can say so any more.
            std::future::pending().await
        }
    }

    /// Hands on the log of a run, which is written by `pid` from `read`, and returns when everything
    /// goes on after all.
    pub(super) async fn stand_still(
        &mut self,
        (instance, slot): &Place,
        pid: u32,
        read: &OwnedFd,
        says: Option<BorrowedFd<'_>>,
    ) {
        let says = says.map(|pipe| (SAYS, pipe));
        let second = if slot.is_first() { "" } else { SECOND };
        for (kind, descriptor) in [(LOG, read.as_fd())].into_iter().chain(says) {
            let copy = descriptor.try_clone_to_owned();
            let mut logs = lock(&self.logs);
            match (&mut *logs, copy) {
                (Ok(logs), Ok(copy)) => {
                    logs.push((format!("{kind}{instance}{second}-{pid}"), copy))
                }
                (logs, Err(error)) => *logs = Err(error),
                (Err(_), Ok(_)) => {}
            }
        }
        self.busy = None;
        // An error means that the sender is gone.
        let _ = self.hold.wait_for(|hold| !hold).await;
        self.busy = Some(Busy::new(&self.reading));
    }
}

/// Counts for as long as it is there.
pub(super) struct Busy(watch::Sender<usize>);

impl Busy {
    fn new(count: &watch::Sender<usize>) -> Busy {
        count.send_modify(|count| *count += 1);
        Busy(count.clone())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

impl Holding {
    pub(super) fn new() -> Holding {
        Holding {
            hold: watch::Sender::new(false),
            starting: watch::Sender::new(0),
            reading: watch::Sender::new(0),
            parked: Mutex::default(),
            logs: Arc::new(Mutex::new(Ok(Vec::new()))),
        }
    }

    /// For somebody who looks after a log.
    pub(super) fn take_part(&self) -> Part {
        Part {
            hold: self.hold.subscribe(),
            reading: self.reading.clone(),
            busy: Some(Busy::new(&self.reading)),
            logs: self.logs.clone(),
        }
    }

    /// When a run may be started.
    pub(super) async fn may_start(&self) -> Busy {
        // An error means that the sender is gone, and it is this.
        let _ = self.hold.subscribe().wait_for(|hold| !hold).await;
        Busy::new(&self.starting)
    }
}

/// Reads an output until its end, or until everything shall stand still.
pub(super) fn read(inner: &Arc<Inner>, instance: &InstanceId, shown: Shown, rest: Rest) {
    let pump = Pump { ring: shown.ring, console: inner.console.clone(), prefix: shown.prefix };
    go_on_reading(inner, instance.clone(), pump, rest);
}

fn go_on_reading(inner: &Arc<Inner>, instance: InstanceId, pump: Pump, rest: Rest) {
    let inner = inner.clone();
    let busy = Busy::new(&inner.holding.reading);
    inner.pumps.send_modify(|reading| *reading += 1);
    tokio::spawn(async move {
        match pump.run(rest, inner.holding.hold.subscribe()).await {
            Ok(None) => {}
            Ok(Some(rest)) => lock(&inner.holding.parked).push((instance, pump, rest)),
            Err(error) => tracing::warn!("{instance}: reading its output: {error}"),
        }
        inner.pumps.send_modify(|reading| *reading -= 1);
        drop(busy);
    });
}

/// Stands still. Returns what is to be handed on.
///
/// # Errors
/// What does not come to an end, for people.
pub(super) async fn hold(inner: &Inner) -> Result<Named, String> {
    let holding = &inner.holding;
    holding.hold.send_replace(true);
    let at_rest = |count: &watch::Sender<usize>| {
        let mut count = count.subscribe();
        async move {
            let rest = count.wait_for(|count| *count == 0);
            tokio::time::timeout(PATIENCE, rest).await.is_ok()
        }
    };
    if !at_rest(&holding.starting).await {
        return Err("a process is being started, and that does not get on".into());
    }
    let shown = async { tokio::time::timeout(PATIENCE, inner.console.flush()).await.is_ok() };
    if !at_rest(&holding.reading).await || !shown.await {
        return Err("what processes write is not taken by what shows it".into());
    }
    inner.reaper.set(false);
    for _ in 0..TURNS {
        tokio::task::yield_now().await;
    }
    handed(inner).map_err(|error| format!("descriptors cannot be handed on: {error}"))
}

fn handed(inner: &Inner) -> io::Result<Named> {
    let mut all = Vec::new();
    for ((instance, run), handle) in lock(&inner.runs).iter() {
        if let Some(pidfd) = handle.pidfd() {
            all.push((stored_name(instance, *run), pidfd.try_clone()?));
        }
    }
    for (number, (instance, _, rest)) in lock(&inner.holding.parked).iter().enumerate() {
        all.push((format!("{OUTPUT}{instance}-{number}"), rest.read.as_fd().try_clone_to_owned()?));
        if !rest.begun.is_empty() {
            all.push((format!("{BEGUN}{instance}-{number}"), sealed("begun", &rest.begun)?));
        }
    }
    all.extend(std::mem::replace(&mut *lock(&inner.holding.logs), Ok(Vec::new()))?);
    for (instance, shown) in lock(&inner.shown).iter() {
        let kept = shown.ring.kept();
        if !kept.is_empty() {
            all.push((format!("{SHOWN}{instance}"), sealed("shown", &kept)?));
        }
    }
    Ok(all)
}

/// Goes on after all.
pub(super) fn go_on(inner: &Arc<Inner>) {
    *lock(&inner.holding.logs) = Ok(Vec::new());
    inner.holding.hold.send_replace(false);
    inner.reaper.set(true);
    for (instance, pump, rest) in std::mem::take(&mut *lock(&inner.holding.parked)) {
        go_on_reading(inner, instance, pump, rest);
    }
}

/// Goes on with the outputs that another program has read, and the logs it has looked after. `spec_of`
/// tells what a run has. Returns what comes when a log is written, by whose it is.
pub(super) fn take_over(
    inner: &Arc<Inner>,
    mut handed: Named,
    spec_of: impl Fn(&Place) -> Option<Arc<ProcessSpec>>,
) -> HashMap<Place, Vec<oneshot::Receiver<()>>> {
    let shown_of = |instance: &InstanceId| {
        let spec = Slot::ALL.into_iter().find_map(|slot| spec_of(&(instance.clone(), slot)));
        inner.shown(instance, spec.map_or(1, |spec| spec.instances))
    };
    for (name, text) in handed.extract_if(.., |(name, _)| name.starts_with(SHOWN)) {
        if let Ok(instance) = InstanceId::parse(&name[SHOWN.len()..]) {
            shown_of(&instance).ring.push(&text_of(text));
        }
    }
    let is_beside =
        |(name, _): &mut (String, OwnedFd)| [BEGUN, SAYS].iter().any(|kind| name.starts_with(kind));
    let mut beside: BTreeMap<String, OwnedFd> = handed.extract_if(.., is_beside).collect();
    let mut written: HashMap<Place, Vec<oneshot::Receiver<()>>> = HashMap::new();
    for (name, descriptor) in handed {
        if let Some(((instance, _), _, whose)) = of_name(&name, OUTPUT) {
            let begun = beside.remove(&format!("{BEGUN}{whose}")).map(text_of).unwrap_or_default();
            read(inner, &instance, shown_of(&instance), Rest { read: descriptor, begun });
        } else if let Some((place, pid, whose)) = of_name(&name, LOG)
            && let Some(spec) = spec_of(&place)
        {
            let reports = beside.remove(&format!("{SAYS}{whose}"));
            let handed = sink::Handed { pid, read: descriptor, reports };
            let done = sink::go_on(inner, &place, spec, handed);
            written.entry(place).or_default().push(done);
        }
    }
    written
}

/// Where the run is and the number in the name of what was handed on, and both as text.
fn of_name<'a>(name: &'a str, kind: &str) -> Option<(Place, u32, &'a str)> {
    let whose = name.strip_prefix(kind)?;
    let (place, number) = whose.rsplit_once('-')?;
    let (instance, slot) = match place.strip_suffix(SECOND) {
        // An id may end like this, and then has its number behind it.
        Some(instance) if instance.contains('@') => (instance, Slot::B),
        _ => (place, Slot::A),
    };
    Some(((InstanceId::parse(instance).ok()?, slot), number.parse().ok()?, whose))
}

/// What is in memory that was handed on. What cannot be read of it is not shown a second time.
fn text_of(memory: OwnedFd) -> Vec<u8> {
    let (mut file, mut text) = (File::from(memory), Vec::new());
    let _ = file.rewind().and_then(|()| file.read_to_end(&mut text));
    text
}
