//! Tells when the files of a configuration may have changed and have settled.
//!
//! Events decide only that something may have changed; whether it has, the digest of what is then
//! read decides. What is watched: every directory on the way to each file, of its path and of every
//! symlink in it; all that happens in those where a name may come, go or be another one (the last,
//! and where a symlink stands or nothing is); the file itself, since a single file that is
//! bind-mounted shows nothing in its directory; and the table of mounts.
//!
//! Who began to write before it was watched is not seen here, but by whoever reads
//! ([`load`](super::load::load_over)).
//!
//! A watch is put on a directory before what is in it is looked at, and watches are renewed before
//! [`Watcher::changed`] answers. So whoever reads after the answer misses nothing: a change before
//! the read is in what is read, a later one is the next answer.
//!
//! What cannot be watched is compared every few seconds, and only that.
//!
//! | module | owns |
//! |---|---|
//! | [`settle`] | when what happened is over |
//! | `look` | what to watch, and what to compare |
//! | `remote` | which file systems others can change |
//! | [`trees`] | what processes have watched |

mod look;
pub(super) mod remote;
pub mod settle;
pub mod trees;

use crate::sys::mounts::Mounts;
use futures_util::StreamExt;
use inotify::{EventMask, EventOwned, EventStream, Inotify};
use look::{Paths, Seen, look};
use settle::Settle;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// Watches the files of a configuration.
pub struct Watcher {
    inotify: Option<EventStream<Vec<u8>>>,
    /// None where /proc is not what it should be: new mounts go unnoticed there.
    mounts: Option<Mounts>,
    settle: Settle<Key>,
    paths: Paths,
    seen: Seen,
    /// A look under way, in a thread of its own: a file system may not answer for long.
    looking: Option<(JoinHandle<Seen>, Then)>,
    /// When what cannot be watched is compared next.
    next_look: Option<Instant>,
    /// Whether the last answer was given although somebody had not closed what he wrote.
    in_vain: bool,
}

/// What something happened to.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Key {
    /// A name in what is watched, or that itself.
    At(i32, Option<OsString>),
    /// What it was is not known.
    Unknown,
}

/// What follows a look.
#[derive(Clone, Copy)]
enum Then {
    /// If it shows something else than before, that has happened.
    Compare,
    /// The same, where other paths were looked at before, and more.
    Reduce,
    /// Something has happened and settled.
    Answer,
}

/// What there is to wait for.
enum Wake {
    /// None: there will be no more.
    Event(Option<EventOwned>),
    Mounts,
    Settled,
    Look,
}

impl Watcher {
    /// Watches nothing yet. A finished write settles for `debounce`. Call it within a tokio runtime.
    #[must_use]
    pub fn new(debounce: Duration) -> Watcher {
        Watcher {
            inotify: None,
            mounts: Mounts::open().ok(),
            settle: Settle::new(debounce),
            paths: Paths::default(),
            seen: Seen::default(),
            looking: None,
            next_look: None,
            in_vain: false,
        }
    }

    /// How long a finished write settles from now on.
    pub fn set_debounce(&mut self, debounce: Duration) {
        self.settle.set_debounce(debounce);
    }

    /// Watches these files and the drop-in directory from now on, whether or not they exist. To be
    /// called after each load, whose files may be others.
    ///
    /// A file that was not watched before may have changed since it was read, so it counts as
    /// changed.
    pub async fn rewatch(&mut self, files: &[PathBuf], drop_ins: &Path) {
        if self.looked().await {
            // Its answer is still to be given.
            self.settle.finished(Key::Unknown, Instant::now());
        }
        let paths = Paths { files: files.to_vec(), drop_ins: drop_ins.to_owned() };
        let then = match paths.is_within(&self.paths) {
            true if paths == self.paths => Then::Compare,
            true => Then::Reduce,
            false => {
                self.settle.finished(Key::Unknown, Instant::now());
                Then::Reduce
            }
        };
        self.paths = paths;
        self.look(then);
        self.looked().await;
    }

    /// Why not everything is watched, each with how often that is compared instead. Empty when
    /// everything is watched.
    pub fn compared(&self) -> impl Iterator<Item = (&str, Duration)> {
        self.seen.slow.iter().map(|(why, every)| (why.as_str(), *every))
    }

    /// Waits until something may have changed and has settled. Whether somebody was waited for in vain,
    /// who began to write and has not closed. Nothing is lost when the future is dropped and asked for
    /// again.
    pub async fn changed(&mut self) -> bool {
        loop {
            if self.looked().await {
                return self.in_vain;
            }
            if self.settle.ceiling().is_some_and(|ceiling| ceiling <= Instant::now()) {
                // Even where there is always one more event.
                self.look(Then::Answer);
                continue;
            }
            match self.wait().await {
                Wake::Event(event) => {
                    if self.take(event) {
                        self.look(Then::Compare);
                    }
                }
                Wake::Mounts | Wake::Look => self.look(Then::Compare),
                Wake::Settled => self.look(Then::Answer),
            }
        }
    }

    async fn wait(&mut self) -> Wake {
        tokio::select! {
            // Events first: the one that is there may say that it is not over.
            biased;
            event = next(&mut self.inotify) => Wake::Event(event),
            () = remounted(self.mounts.as_ref()) => Wake::Mounts,
            () = until(self.settle.deadline()) => Wake::Settled,
            () = until(self.next_look) => Wake::Look,
        }
    }

    /// Takes an event in. Whether it may be another directory or file now that has to be watched.
    fn take(&mut self, event: Option<EventOwned>) -> bool {
        let now = Instant::now();
        let Some(event) = event else {
            self.inotify = None;
            self.seen.watches.clear();
            self.settle.finished(Key::Unknown, now);
            return true;
        };
        if event.mask.contains(EventMask::Q_OVERFLOW) {
            self.settle.finished(Key::Unknown, now);
            return true;
        }
        let id = event.wd.get_watch_descriptor_id();
        // One that was taken away may have had something to say before.
        let Some(watch) = self.seen.watches.get(&id) else { return false };
        if event.name.as_ref().is_some_and(|name| !watch.concerns(name)) {
            return false;
        }
        let has = |mask: EventMask| event.mask.intersects(mask);
        let is_file = !has(EventMask::ISDIR);
        let moves = !has(EventMask::MODIFY | EventMask::CLOSE_WRITE | EventMask::ATTRIB);
        let key = Key::At(id, event.name);
        if has(EventMask::MODIFY) || (has(EventMask::CREATE) && is_file) {
            self.settle.began(key, now);
        } else if has(EventMask::ATTRIB) {
            self.settle.touched(key, now);
        } else {
            self.settle.finished(key, now);
        }
        moves
    }

    fn look(&mut self, then: Then) {
        let watches = match &self.inotify {
            Some(events) => Ok(events.watches()),
            None => self.open(),
        };
        let (paths, masks) = (self.paths.clone(), self.seen.masks());
        let look = tokio::task::spawn_blocking(move || look(&paths, watches, &masks));
        self.looking = Some((look, then));
    }

    /// What limits the number of instances may have been changed since it was tried last.
    fn open(&mut self) -> Result<inotify::Watches, String> {
        let events = Inotify::init().and_then(|new| new.into_event_stream(vec![0; 16 * 1024]));
        match events {
            Ok(events) => Ok(self.inotify.insert(events).watches()),
            Err(error) => Err(no_instance(&error)),
        }
    }

    /// Waits for the look under way, if there is one. Whether it was the last thing before an answer.
    async fn looked(&mut self) -> bool {
        let Some((look, then)) = &mut self.looking else { return false };
        let (seen, then) = match (look.await, *then) {
            (Ok(seen), then) => (seen, then),
            (Err(error), _) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime ends, and nobody waits for this any more.
                Err(_) => return std::future::pending().await,
            },
        };
        self.looking = None;
        let now = Instant::now();
        self.next_look = seen.slow.values().min().map(|every| now + *every);
        let old = std::mem::replace(&mut self.seen, seen);
        match then {
            Then::Answer => {
                self.in_vain = self.settle.is_open();
                self.settle.clear();
            }
            Then::Compare if self.seen.same(&old) => {}
            Then::Reduce if self.seen.is_within(&old) => {}
            Then::Compare | Then::Reduce => self.settle.finished(Key::Unknown, now),
        }
        let Seen { watches, whole, .. } = &self.seen;
        let never_closes = |key: &Key| match key {
            Key::At(id, Some(name)) if whole.contains(&(*id, name.clone())) => true,
            Key::At(id, _) => !watches.contains_key(id),
            Key::Unknown => false,
        };
        self.settle.give_up(never_closes, now);
        for (id, watch) in old.watches {
            if let (false, Some(events)) = (self.seen.watches.contains_key(&id), &self.inotify) {
                // It may be gone with its directory, which is the wish.
                let _ = events.watches().remove(watch.descriptor);
            }
        }
        matches!(then, Then::Answer)
    }
}

/// Why there is no inotify instance.
fn no_instance(error: &std::io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EMFILE) => {
            "no inotify instances are left (sysctl fs.inotify.max_user_instances)".to_owned()
        }
        _ => format!("inotify: {error}"),
    }
}

/// The next event; None when there will be no more.
async fn next(events: &mut Option<EventStream<Vec<u8>>>) -> Option<EventOwned> {
    match events {
        Some(events) => events.next().await.and_then(Result::ok),
        None => std::future::pending().await,
    }
}

/// Waits for the next change of the table of mounts.
async fn remounted(mounts: Option<&Mounts>) {
    match mounts {
        Some(mounts) if mounts.changed().await.is_ok() => {}
        _ => std::future::pending().await,
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
