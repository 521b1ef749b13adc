//! Which instances operators stopped. It outlives a reboot, and is written durably by a thread of
//! its own: nobody waits for a disk. Until it is written, the states in the runtime directory have
//! it too.

use super::boot::Boot;
use super::file::{self, Kind, ReadError};
use crate::core::ids::InstanceId;
use crate::core::snapshot::{InstanceSnapshot, Stopped};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    boot: String,
    stopped: BTreeSet<InstanceId>,
}

/// See the module documentation.
pub struct Stops {
    boot: String,
    stopped: BTreeSet<InstanceId>,
    found: Stopped,
    changed: bool,
    writer: Option<Sender<Kept>>,
}

impl Stops {
    pub(super) fn open(state: Option<&Path>, boot: &Boot, remarks: &mut Vec<String>) -> Stops {
        let mut stops = Stops {
            boot: boot.id.clone(),
            stopped: BTreeSet::new(),
            found: Stopped::default(),
            changed: false,
            writer: None,
        };
        let Some(state) = state else { return stops };
        if let Err(error) = super::private_directory(state) {
            let path = state.display();
            remarks.push(format!("what operators stop is not kept over a reboot: {path}: {error}"));
            return stops;
        }
        let path = state.join("stopped");
        match file::read::<Kept>(&path, Kind::Stops) {
            Ok(kept) => {
                let before_reboot = kept.boot != boot.id;
                // Some of it may not hold any more.
                stops.changed = true;
                stops.found = Stopped { instances: kept.stopped, before_reboot };
            }
            Err(ReadError::Missing) => {}
            Err(error) => remarks.push(super::put_aside(&path, &error)),
        }
        let (sender, receiver) = channel();
        // Without the thread it is not written, which is all there is to lose.
        let thread = std::thread::Builder::new().name("store".into());
        stops.writer = thread.spawn(move || write_all(&path, &receiver)).ok().map(|_| sender);
        stops
    }

    /// What was found.
    pub(super) fn found(&self) -> Stopped {
        self.found.clone()
    }

    /// Takes in what is wanted of an instance.
    ///
    /// Where nothing starts by itself, not to be wanted is nobody's word.
    pub(super) fn note(
        &mut self,
        id: &InstanceId,
        snapshot: Option<&InstanceSnapshot>,
        auto_start: bool,
    ) {
        let stopped =
            auto_start && snapshot.is_some_and(|snapshot| !snapshot.wanted && !snapshot.removed);
        self.changed |= match stopped {
            true => self.stopped.insert(id.clone()),
            false => self.stopped.remove(id),
        };
    }

    /// Has what changed written.
    pub(super) fn flush(&mut self) {
        if std::mem::take(&mut self.changed)
            && let Some(writer) = &self.writer
        {
            let kept = Kept { boot: self.boot.clone(), stopped: self.stopped.clone() };
            // A thread that is gone has said why.
            let _ = writer.send(kept);
        }
    }
}

/// Writes the newest of what comes, and again what could not be written, until nobody sends any
/// more.
fn write_all(path: &Path, receiver: &Receiver<Kept>) {
    crate::sys::thread::never_preempts();
    let mut unwritten = None;
    loop {
        let received = match unwritten {
            None => receiver.recv().map_err(RecvTimeoutError::from),
            Some(_) => receiver.recv_timeout(super::AGAIN),
        };
        let mut kept = match (received, &unwritten) {
            (Ok(kept), _) => kept,
            (Err(RecvTimeoutError::Timeout), Some(old)) => Kept::clone(old),
            (Err(_), _) => return,
        };
        while let Ok(newer) = receiver.try_recv() {
            kept = newer;
        }
        let name = path.display();
        match file::write_durably(path, &file::encode(Kind::Stops, &kept)) {
            Ok(()) => {
                if unwritten.take().is_some() {
                    tracing::info!("what operators stop is kept again: {name}");
                }
            }
            Err(error) => {
                if unwritten.replace(kept).is_none() {
                    tracing::warn!("what operators stop is not kept: {name}: {error}");
                }
            }
        }
    }
}
