//! A control group (version 2, cgroups(7)) that is watched: whether anything is in it, and what that
//! uses. Whose group it is, and who may change it, is the business of each backend.

use super::held::{memory_in_use, was_out_of_memory};
use futures_util::StreamExt;
use inotify::{EventMask, Inotify, WatchDescriptor, WatchMask, Watches};
use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

type Listeners = Arc<Mutex<Known>>;

/// Who wants to know what.
#[derive(Default)]
struct Known {
    /// By the watch on `cgroup.events`.
    changes: HashMap<WatchDescriptor, Arc<Notify>>,
    /// By the watch on `memory.events`, where there is one.
    memory: HashMap<WatchDescriptor, Arc<Memory>>,
    /// By the directory of the group.
    removals: HashMap<PathBuf, Arc<Notify>>,
    /// What the watches on directories above groups are on.
    above: HashMap<WatchDescriptor, PathBuf>,
}

/// What is known of the memory of a group: it may be gone before anybody asks.
struct Memory {
    path: PathBuf,
    was_out: AtomicBool,
    /// Of how much use somebody wants to hear; 0: of none.
    most: AtomicU64,
    /// It may be more.
    changed: Notify,
}

impl Memory {
    fn look(&self) {
        if was_out_of_memory(&self.path) {
            self.was_out.store(true, Ordering::Relaxed);
        }
        if self.most.load(Ordering::Relaxed) > 0 {
            self.changed.notify_one();
        }
    }

    /// How much is used, where that is as much as somebody wants to hear of.
    fn excess(&self) -> Option<u64> {
        /// The kernel slows it down before it is quite there.
        const NEARLY: u64 = 64;
        let most = self.most.load(Ordering::Relaxed);
        let enough = most - most / NEARLY;
        memory_in_use(&self.path).filter(|used| most > 0 && *used >= enough)
    }
}

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
    memory: Option<(WatchDescriptor, Arc<Memory>)>,
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
        // Without that controller there is no such file.
        let events = watches.add(path.join("memory.events"), WatchMask::MODIFY).ok();
        let memory = events.map(|watch| {
            let memory = Memory {
                path: path.clone(),
                was_out: AtomicBool::new(false),
                most: AtomicU64::new(0),
                changed: Notify::new(),
            };
            (watch, Arc::new(memory))
        });
        let mut known = lock(&self.listeners);
        known.changes.insert(watch.clone(), changed.clone());
        known.memory.extend(memory.clone());
        drop(known);
        let listeners = self.listeners.clone();
        Ok(Watched { path, changed, watch, memory, watches, listeners })
    }

    /// The same for a group that somebody else may remove at any moment. Word that it became empty
    /// is lost when it is gone before the kernel comes to tell; that it is gone is told by the
    /// directory above.
    ///
    /// # Errors
    /// As [`GroupEvents::watch`].
    pub fn watch_foreign(&self, path: PathBuf) -> io::Result<Watched> {
        if let Some(parent) = path.parent() {
            let above = self.watches.clone().add(parent, WatchMask::DELETE)?;
            lock(&self.listeners).above.insert(above, parent.to_owned());
        }
        let watched = self.watch(path)?;
        let removed = watched.changed.clone();
        lock(&self.listeners).removals.insert(watched.path.clone(), removed);
        Ok(watched)
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

    /// Whether the kernel has killed something in it for want of memory.
    #[must_use]
    pub fn was_out_of_memory(&self) -> bool {
        self.memory.as_ref().is_some_and(|(_, memory)| {
            memory.look();
            memory.was_out.load(Ordering::Relaxed)
        })
    }

    /// Has [`Watched::outgrown`] return when so many bytes of memory are used; None: never. The kernel
    /// must have been told to tell of that (`memory.high`).
    pub fn alert_above(&self, most: Option<u64>) {
        if let Some((_, memory)) = &self.memory {
            memory.most.store(most.unwrap_or(0), Ordering::Relaxed);
            memory.changed.notify_one();
        }
    }

    /// Returns how much memory is used, once, when that is as much as was asked for. One waiter at a
    /// time.
    pub async fn outgrown(&self) -> u64 {
        /// What the kernel holds at its limit it tells of all the time.
        const PAUSE: Duration = Duration::from_secs(1);
        let Some((_, memory)) = &self.memory else { return std::future::pending().await };
        loop {
            memory.changed.notified().await;
            if let Some(used) = memory.excess() {
                memory.most.store(0, Ordering::Relaxed);
                return used;
            }
            if memory.most.load(Ordering::Relaxed) > 0 {
                tokio::time::sleep(PAUSE).await;
            }
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
        let mut known = lock(&self.listeners);
        known.changes.remove(&self.watch);
        if let Some((watch, _)) = &self.memory {
            known.memory.remove(watch);
        }
        // The next one in the same place may be watched already.
        if known.removals.get(&self.path).is_some_and(|own| Arc::ptr_eq(own, &self.changed)) {
            known.removals.remove(&self.path);
        }
        drop(known);
        // Gone already when the group is.
        let _ = self.watches.remove(self.watch.clone());
        if let Some((watch, _)) = self.memory.take() {
            let _ = self.watches.remove(watch);
        }
    }
}

async fn listen(inotify: Inotify, listeners: Listeners) {
    let Ok(mut events) = inotify.into_event_stream(vec![0; 4096]) else { return };
    while let Some(event) = events.next().await {
        let Ok(event) = event else { continue };
        let mut known = lock(&listeners);
        if event.mask.contains(EventMask::Q_OVERFLOW) {
            // Any of them may have changed.
            known.changes.values().for_each(|listener| listener.notify_one());
        } else if let Some(listener) = known.changes.get(&event.wd) {
            listener.notify_one();
        } else if let Some(memory) = known.memory.get(&event.wd) {
            memory.look();
        } else if event.mask.contains(EventMask::IGNORED) {
            known.above.remove(&event.wd);
        } else if let (Some(above), Some(name)) = (known.above.get(&event.wd), &event.name)
            && let Some(listener) = known.removals.get(&above.join(name))
        {
            listener.notify_one();
        }
    }
}

/// Nothing panics while it holds this.
fn lock(listeners: &Listeners) -> MutexGuard<'_, Known> {
    listeners.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The groups below a group.
#[must_use]
pub fn subdirectories(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let directories = entries.flatten().filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir()));
    directories.map(|entry| entry.path()).collect()
}
