//! Tells when the files of a configuration may have changed and have settled.
//!
//! Events decide only that something may have changed; whether it has, the digest of what is then
//! read decides. What is watched: for each file the directory of every component of its path and of
//! every symlink on the way, and the file itself, since a single file that is bind-mounted shows
//! nothing in its directory.
//!
//! A watch is put on a directory before what is in it is looked at, and watches are renewed before
//! [`Watcher::changed`] answers. So whoever reads after the answer misses nothing: a change before
//! the read is in what is read, a later one is the next answer.

use super::load::is_drop_in;
use futures_util::StreamExt;
use inotify::{EventMask, EventOwned, EventStream, Inotify, WatchDescriptor, WatchMask};
use std::collections::{HashMap, HashSet, VecDeque};
use std::ffi::OsString;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;
use tokio::time::Instant;

/// A bare modification waits this long for the close that usually follows: half a file can be valid.
const UNCLOSED: Duration = Duration::from_secs(2);
/// However busy a file is, a decision falls within this or ten times the debounce time.
const CEILING: Duration = Duration::from_secs(5);
/// As many symlinks as the kernel follows (path_resolution(7)).
const MOST_SYMLINKS: u32 = 40;

/// Watches the files of a configuration.
pub struct Watcher {
    events: EventStream<Vec<u8>>,
    debounce: Duration,
    files: Vec<PathBuf>,
    drop_ins: PathBuf,
    watches: HashMap<i32, Watch>,
    unwatched: Vec<String>,
    failed: bool,
    pending: Option<Pending>,
}

/// What matters of one directory or file.
struct Watch {
    descriptor: WatchDescriptor,
    /// These names in it.
    names: HashSet<OsString>,
    /// Every name a drop-in can have.
    drop_ins: bool,
}

/// Something happened, and settles.
struct Pending {
    since: Instant,
    /// When each thing that happened is over, by watch and name.
    due: HashMap<(i32, Option<OsString>), Instant>,
}

impl Watcher {
    /// Watches files and the drop-in directory, whether or not they exist.
    ///
    /// The first [`changed`](Watcher::changed) answers soon, for whatever happened between the
    /// caller's last read and now.
    ///
    /// # Errors
    /// When the system gives no inotify instance. Call it within a tokio runtime.
    pub fn new(files: &[PathBuf], drop_ins: &Path, debounce: Duration) -> io::Result<Watcher> {
        let events = Inotify::init()?.into_event_stream(vec![0; 16 * 1024])?;
        let mut watcher = Watcher {
            events,
            debounce,
            files: Vec::new(),
            drop_ins: PathBuf::new(),
            watches: HashMap::new(),
            unwatched: Vec::new(),
            failed: false,
            pending: None,
        };
        watcher.rewatch(files, drop_ins);
        Ok(watcher)
    }

    /// How long a finished write settles from now on.
    pub fn set_debounce(&mut self, debounce: Duration) {
        self.debounce = debounce;
    }

    /// Watches these from now on. To be called after each load, whose files may be others.
    ///
    /// A file that was not watched before may have changed since it was read, so it counts as
    /// changed.
    pub fn rewatch(&mut self, files: &[PathBuf], drop_ins: &Path) {
        let known: HashSet<&PathBuf> = self.files.iter().collect();
        let new = files.iter().any(|file| !known.contains(file)) || self.drop_ins != drop_ins;
        self.files = files.to_vec();
        self.drop_ins = drop_ins.to_owned();
        self.rebuild();
        if new {
            self.note((0, None), self.debounce);
        }
    }

    /// What cannot be watched, in words: a directory that may not be read, no more watches left.
    #[must_use]
    pub fn unwatched(&self) -> &[String] {
        &self.unwatched
    }

    /// Waits until something may have changed and has settled. Nothing is lost when the future is
    /// dropped and asked for again.
    pub async fn changed(&mut self) {
        loop {
            let Some(deadline) = self.deadline() else {
                let event = self.event().await;
                self.take(event);
                continue;
            };
            tokio::select! {
                // Events first: the one that is there may say that it is not over.
                biased;
                event = self.event() => self.take(event),
                () = tokio::time::sleep_until(deadline) => {
                    self.pending = None;
                    self.rebuild();
                    return;
                }
            }
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let pending = self.pending.as_ref()?;
        let settled = pending.due.values().max()?;
        Some(*settled.min(&(pending.since + CEILING.max(self.debounce * 10))))
    }

    fn note(&mut self, what: (i32, Option<OsString>), wait: Duration) {
        let now = Instant::now();
        let pending =
            self.pending.get_or_insert_with(|| Pending { since: now, due: HashMap::new() });
        pending.due.insert(what, now + wait);
    }

    /// The next event; None, once, when there will be no more.
    async fn event(&mut self) -> Option<EventOwned> {
        if self.failed {
            return std::future::pending().await;
        }
        match self.events.next().await {
            Some(Ok(event)) => Some(event),
            Some(Err(_)) | None => {
                self.failed = true;
                None
            }
        }
    }

    fn take(&mut self, event: Option<EventOwned>) {
        let lost = |event: &EventOwned| event.mask.contains(EventMask::Q_OVERFLOW);
        let Some(event) = event.filter(|event| !lost(event)) else {
            // What was lost is unknown.
            return self.note((0, None), self.debounce);
        };
        let id = event.wd.get_watch_descriptor_id();
        let Some(watch) = self.watches.get(&id) else { return };
        let relevant = match &event.name {
            None => true,
            Some(name) => {
                watch.names.contains(name) || (watch.drop_ins && is_drop_in(Path::new(name)))
            }
        };
        if relevant {
            let wait = match event.mask.contains(EventMask::MODIFY) {
                true => UNCLOSED.max(self.debounce),
                false => self.debounce,
            };
            self.note((id, event.name), wait);
        }
    }

    /// Walks all paths anew, adds what is missing, removes what is no longer on the way.
    fn rebuild(&mut self) {
        let mut walk =
            Walk { events: &self.events, watches: HashMap::new(), unwatched: Vec::new() };
        for file in &self.files {
            walk.path(file, false);
        }
        walk.path(&self.drop_ins, true);
        let Walk { watches, mut unwatched, .. } = walk;
        if self.failed {
            unwatched.push("inotify gives no more events".to_owned());
        }
        unwatched.sort();
        unwatched.dedup();
        self.unwatched = unwatched;
        let old = std::mem::replace(&mut self.watches, watches);
        for (id, watch) in old {
            if !self.watches.contains_key(&id) {
                // It may be gone with its directory, which is the wish.
                let _ = self.events.watches().remove(watch.descriptor);
            }
        }
    }
}

/// One way through all paths.
struct Walk<'w> {
    events: &'w EventStream<Vec<u8>>,
    watches: HashMap<i32, Watch>,
    unwatched: Vec<String>,
}

impl Walk<'_> {
    /// Watches each directory on the way before what is in it is looked at.
    fn path(&mut self, path: &Path, drop_ins: bool) {
        let mut here = PathBuf::from("/");
        let mut rest: VecDeque<OsString> = names(path).collect();
        let mut symlinks = 0;
        while let Some(name) = rest.pop_front() {
            if name == ".." {
                here.pop();
                continue;
            }
            let is_last = rest.is_empty();
            if let Some(watch) = self.directory(&here, is_last) {
                watch.names.insert(name.clone());
            }
            let next = here.join(&name);
            match std::fs::read_link(&next) {
                Ok(target) if symlinks < MOST_SYMLINKS => {
                    symlinks += 1;
                    if target.is_absolute() {
                        here = PathBuf::from("/");
                    }
                    for name in names(&target).collect::<Vec<_>>().into_iter().rev() {
                        rest.push_front(name);
                    }
                }
                // No symlink: EINVAL; and what does not exist has nothing below it.
                Err(error) if error.kind() != io::ErrorKind::NotFound => here = next,
                _ => return,
            }
        }
        if drop_ins {
            if let Some(watch) = self.directory(&here, true) {
                watch.drop_ins = true;
            }
        } else {
            let mask = WatchMask::MODIFY
                | WatchMask::CLOSE_WRITE
                | WatchMask::DELETE_SELF
                | WatchMask::MOVE_SELF;
            self.add(&here, mask | WatchMask::DONT_FOLLOW);
        }
    }

    /// Writes matter only where the file itself stands: above, other programs may be busy.
    fn directory(&mut self, path: &Path, writes: bool) -> Option<&mut Watch> {
        let mut mask = WatchMask::CREATE
            | WatchMask::DELETE
            | WatchMask::MOVE
            | WatchMask::DELETE_SELF
            | WatchMask::MOVE_SELF
            | WatchMask::ONLYDIR;
        if writes {
            mask |= WatchMask::MODIFY | WatchMask::CLOSE_WRITE;
        }
        self.add(path, mask)
    }

    /// Two paths can lead to one directory, so what is asked for adds up.
    fn add(&mut self, path: &Path, mask: WatchMask) -> Option<&mut Watch> {
        match self.events.watches().add(path, mask | WatchMask::MASK_ADD) {
            Ok(descriptor) => {
                let new = || Watch {
                    descriptor: descriptor.clone(),
                    names: HashSet::new(),
                    drop_ins: false,
                };
                let id = descriptor.get_watch_descriptor_id();
                Some(self.watches.entry(id).or_insert_with(new))
            }
            Err(error) => {
                let gone = [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory];
                if !gone.contains(&error.kind()) {
                    let reason = match error.raw_os_error() {
                        Some(libc::ENOSPC) => "no inotify watches left \
                             (fs.inotify.max_user_watches)"
                            .to_owned(),
                        _ => error.to_string(),
                    };
                    self.unwatched.push(format!("{}: {reason}", path.display()));
                }
                None
            }
        }
    }
}

/// The names of a path, `..` among them.
fn names(path: &Path) -> impl Iterator<Item = OsString> + use<'_> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    })
}
