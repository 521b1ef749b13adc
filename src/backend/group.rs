//! A control group (version 2, cgroups(7)) that is watched: whether anything is in it, and what that
//! uses. Whose group it is, and who may change it, is the business of each backend.

use futures_util::StreamExt;
use inotify::{EventMask, Inotify, WatchDescriptor, WatchMask, Watches};
use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Notify;

type Listeners = Arc<Mutex<HashMap<WatchDescriptor, Arc<Notify>>>>;

/// Hears from the kernel when groups become empty.
pub struct GroupEvents {
    watches: Watches,
    listeners: Listeners,
    task: tokio::task::JoinHandle<()>,
}

/// A group that is watched.
pub struct Watched {
    path: PathBuf,
    changed: Arc<Notify>,
    watch: WatchDescriptor,
    watches: Watches,
    listeners: Listeners,
}

impl Drop for GroupEvents {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl GroupEvents {
    /// Begins to listen. Needs a tokio runtime.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn new() -> io::Result<GroupEvents> {
        let inotify = Inotify::init()?;
        let watches = inotify.watches();
        let listeners = Listeners::default();
        let task = tokio::spawn(listen(inotify, listeners.clone()));
        Ok(GroupEvents { watches, listeners, task })
    }

    /// Watches the group in this directory.
    ///
    /// # Errors
    /// What the kernel says, such as that there is no such group.
    pub fn watch(&self, path: PathBuf) -> io::Result<Watched> {
        let mut watches = self.watches.clone();
        let watch = watches.add(path.join("cgroup.events"), WatchMask::MODIFY)?;
        let changed = Arc::new(Notify::new());
        let listener = changed.clone();
        self.listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(watch.clone(), listener);
        Ok(Watched { path, changed, watch, watches, listeners: self.listeners.clone() })
    }
}

impl Watched {
    /// Its directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns when there is no process in it nor below it. One waiter at a time.
    pub async fn emptied(&self) {
        while self.is_populated() {
            self.changed.notified().await;
        }
    }

    /// Whether there is a process in it or below it.
    #[must_use]
    pub fn is_populated(&self) -> bool {
        match fs::read_to_string(self.path.join("cgroup.events")) {
            Ok(events) => events.lines().any(|line| line == "populated 1"),
            // Somebody removed it, which is only possible when it is empty.
            Err(_) => false,
        }
    }

    /// The processes in it and below it.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        let mut pids = Vec::new();
        let mut directories = vec![self.path.clone()];
        while let Some(directory) = directories.pop() {
            let members = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
            pids.extend(members.lines().filter_map(|line| line.parse::<u32>().ok()));
            directories.extend(subdirectories(&directory));
        }
        pids
    }

    /// A number of the file `name`, or of the line `key` in it; None where there is no such
    /// controller.
    #[must_use]
    pub fn number(&self, name: &str, key: Option<&str>) -> Option<u64> {
        let text = fs::read_to_string(self.path.join(name)).ok()?;
        let number = match key {
            None => text.trim(),
            Some(key) => text.lines().find_map(|line| line.strip_prefix(key))?.trim(),
        };
        number.parse().ok()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.watch);
        // Gone already when the group is.
        let _ = self.watches.remove(self.watch.clone());
    }
}

async fn listen(inotify: Inotify, listeners: Listeners) {
    let Ok(mut events) = inotify.into_event_stream(vec![0; 4096]) else { return };
    while let Some(event) = events.next().await {
        let Ok(event) = event else { continue };
        let listeners = listeners.lock().unwrap_or_else(PoisonError::into_inner);
        if event.mask.contains(EventMask::Q_OVERFLOW) {
            // Any of them may have changed.
            listeners.values().for_each(|listener| listener.notify_one());
        } else if let Some(listener) = listeners.get(&event.wd) {
            listener.notify_one();
        }
    }
}

/// The groups below a group.
#[must_use]
pub fn subdirectories(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let directories = entries.flatten().filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir()));
    directories.map(|entry| entry.path()).collect()
}
