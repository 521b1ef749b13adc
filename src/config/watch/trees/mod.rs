//! Tells when files that processes have watched have changed and have settled.
//!
//! What happens is settled as it is for the files of a configuration ([`super::settle`]). But here
//! nobody reads what has changed, so whether anything has is told by comparing files with what they
//! were: device, inode, size and time of the last write of each. So what was only opened, or got
//! other permissions, has not changed, and after an overflow of events nothing is told of those that
//! are as they were.
//!
//! All processes share one inotify instance, and those that watch the same share all. Looks at files
//! run in a thread, one after the other: a file system that does not answer holds up what is watched,
//! and nothing else.
//!
//! A watched path that is gone is not told of as long as it is: a build that begins by removing its
//! directory is not over. What stands in its place later is compared with what it was.
//!
//! | module | owns |
//! |---|---|
//! | this | who watches what; what happened to it |
//! | `walk` | one look at all of it: what to watch, and how each file is |

mod walk;

use super::settle::Settle;
use super::{next, remounted, until};
use crate::core::ids::InstanceId;
use crate::sys::mounts::Mounts;
use inotify::{EventMask, EventOwned, EventStream, Inotify, WatchDescriptor};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use walk::{Entries, Interest, Seen};

/// What somebody has watched.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wanted {
    /// Files, and directories with all that is in them; absolute.
    pub paths: Vec<PathBuf>,
    /// Names below a directory that do not matter, see [`is_skipped`].
    pub ignore: Arc<[Arc<str>]>,
    /// A finished write settles for so long.
    pub debounce: Duration,
}

/// What there is to tell.
#[derive(Debug, PartialEq, Eq)]
pub enum Told {
    /// Files have changed.
    Changed {
        /// Whose.
        who: Vec<InstanceId>,
        /// The first of them.
        path: PathBuf,
    },
    /// Not everything can be watched.
    Unwatched {
        /// Whose.
        who: Vec<InstanceId>,
        /// Why.
        why: String,
    },
}

/// Whether a name below a watched directory does not matter: it is hidden, a copy that an editor
/// makes, or one of `ignore`. `..data`, by which a ConfigMap changes, does matter.
#[must_use]
pub fn is_skipped(name: &str, ignore: &[Arc<str>]) -> bool {
    let hidden = name.starts_with('.') && !name.starts_with("..");
    hidden
        || name.ends_with('~')
        || name.starts_with('#') && name.ends_with('#')
        || ignore.iter().any(|pattern| crate::core::text::fits(pattern, name))
}

/// Watches files for processes.
pub struct Trees {
    inotify: Option<EventStream<Vec<u8>>>,
    /// None where /proc is not what it should be: new mounts go unnoticed there.
    mounts: Option<Mounts>,
    groups: BTreeMap<Number, Group>,
    last: Number,
    numbers: BTreeMap<Arc<Wanted>, Number>,
    members: BTreeMap<InstanceId, Number>,
    /// By the number the kernel gave: one for each inode.
    places: HashMap<i32, Place>,
    /// Groups to which something has happened that is not settled.
    stirred: BTreeSet<Number>,
    /// Groups that have to be looked at at once: there may be something else to be watched.
    looks: BTreeSet<Number>,
    /// A look under way, at which group, and whether all that happened to it has settled.
    looking: Option<(JoinHandle<Seen>, Number, bool)>,
    told: VecDeque<Told>,
}

type Number = u64;

/// Those that have the same watched.
struct Group {
    wanted: Arc<Wanted>,
    who: BTreeSet<InstanceId>,
    settle: Settle<Key>,
    /// How the files were when they were last looked at. None: not yet.
    seen: Option<Entries>,
    /// How they were when that was last told.
    told: Option<Entries>,
    /// Why not all is watched, as it was told.
    problem: Option<String>,
}

/// A directory or file that is watched.
struct Place {
    descriptor: WatchDescriptor,
    groups: BTreeMap<Number, Interest>,
}

/// What something happened to.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Key {
    /// A name in what is watched, or that itself.
    At(i32, Option<OsString>),
    /// What it was is not known.
    Unknown,
}

/// What there is to wait for.
enum Wake {
    /// None: there will be no more.
    Event(Option<EventOwned>),
    Mounts,
    Settled,
}

impl Default for Trees {
    fn default() -> Self {
        Trees::new()
    }
}

impl Trees {
    /// Watches nothing yet. Call it within a tokio runtime.
    #[must_use]
    pub fn new() -> Trees {
        Trees {
            inotify: None,
            mounts: Mounts::open().ok(),
            groups: BTreeMap::new(),
            last: 0,
            numbers: BTreeMap::new(),
            members: BTreeMap::new(),
            places: HashMap::new(),
            stirred: BTreeSet::new(),
            looks: BTreeSet::new(),
            looking: None,
            told: VecDeque::new(),
        }
    }

    /// Has this watched for an instance from now on, and nothing else; None: nothing at all. How
    /// files are when they are first looked at is no change.
    pub fn set(&mut self, who: &InstanceId, wanted: Option<Wanted>) {
        let old = self.members.get(who).copied();
        let same = old.and_then(|number| self.groups.get(&number));
        if same.map(|group| &*group.wanted) == wanted.as_ref() {
            return;
        }
        if let Some(wanted) = wanted {
            let number = self.group(wanted);
            self.members.insert(who.clone(), number);
            if let Some(group) = self.groups.get_mut(&number) {
                group.who.insert(who.clone());
            }
        } else {
            self.members.remove(who);
        }
        if let Some(old) = old {
            self.leave(who, old);
        }
    }

    fn group(&mut self, wanted: Wanted) -> Number {
        if let Some(number) = self.numbers.get(&wanted) {
            return *number;
        }
        self.last += 1;
        let wanted = Arc::new(wanted);
        let group = Group {
            settle: Settle::new(wanted.debounce),
            wanted: wanted.clone(),
            who: BTreeSet::new(),
            seen: None,
            told: None,
            problem: None,
        };
        self.groups.insert(self.last, group);
        self.numbers.insert(wanted, self.last);
        self.looks.insert(self.last);
        self.last
    }

    fn leave(&mut self, who: &InstanceId, number: Number) {
        let Some(group) = self.groups.get_mut(&number) else { return };
        group.who.remove(who);
        if !group.who.is_empty() {
            return;
        }
        self.numbers.remove(&group.wanted);
        self.groups.remove(&number);
        self.stirred.remove(&number);
        self.looks.remove(&number);
        self.replace(number, Vec::new());
    }

    /// Waits until there is something to tell. Nothing is lost when the future is dropped and asked
    /// for again.
    pub async fn changed(&mut self) -> Told {
        loop {
            self.looked().await;
            if let Some(told) = self.told.pop_front() {
                return told;
            }
            let now = Instant::now();
            let due = self.deadlines().find(|(_, at)| *at <= now);
            if let Some((number, _)) = due {
                self.look(number, true);
                continue;
            }
            if let Some(number) = self.looks.pop_first() {
                self.look(number, false);
                continue;
            }
            match self.wait().await {
                Wake::Event(event) => self.take(event),
                Wake::Mounts => self.looks.extend(self.groups.keys()),
                Wake::Settled => {}
            }
        }
    }

    /// When what happened to each is over.
    fn deadlines(&self) -> impl Iterator<Item = (Number, Instant)> {
        self.stirred.iter().filter_map(|number| {
            let deadline = self.groups.get(number)?.settle.deadline()?;
            Some((*number, deadline))
        })
    }

    async fn wait(&mut self) -> Wake {
        let deadline = self.deadlines().map(|(_, at)| at).min();
        tokio::select! {
            // Events first: the one that is there may say that it is not over.
            biased;
            event = next(&mut self.inotify) => Wake::Event(event),
            () = remounted(self.mounts.as_ref()) => Wake::Mounts,
            () = until(deadline) => Wake::Settled,
        }
    }

    fn take(&mut self, event: Option<EventOwned>) {
        let now = Instant::now();
        let overflow = |event: &EventOwned| event.mask.contains(EventMask::Q_OVERFLOW);
        let Some(event) = event.filter(|event| !overflow(event)) else {
            for (number, group) in &mut self.groups {
                group.settle.finished(Key::Unknown, now);
                self.stirred.insert(*number);
                self.looks.insert(*number);
            }
            return;
        };
        let id = event.wd.get_watch_descriptor_id();
        // One that was taken away may have had something to say before.
        let Some(place) = self.places.get(&id) else { return };
        let has = |mask: EventMask| event.mask.intersects(mask);
        if has(EventMask::IGNORED) {
            return;
        }
        let is_directory = has(EventMask::ISDIR);
        for (number, interest) in &place.groups {
            let Some(group) = self.groups.get_mut(number) else { continue };
            let name = event.name.as_deref();
            if name.is_some_and(|name| !interest.concerns(name, &group.wanted.ignore)) {
                continue;
            }
            let key = Key::At(id, event.name.clone());
            if has(EventMask::MODIFY) || has(EventMask::CREATE) && !is_directory {
                group.settle.began(key, now);
            } else {
                group.settle.finished(key, now);
            }
            self.stirred.insert(*number);
            let is_way = name.is_none_or(|name| interest.is_way(name));
            if is_directory || is_way && !has(EventMask::MODIFY | EventMask::CLOSE_WRITE) {
                self.looks.insert(*number);
            }
        }
    }

    fn look(&mut self, number: Number, settled: bool) {
        self.looks.remove(&number);
        let Some(group) = self.groups.get(&number) else { return };
        let wanted = group.wanted.clone();
        let watches = match &self.inotify {
            Some(events) => Ok(events.watches()),
            None => self.open(),
        };
        let look = tokio::task::spawn_blocking(move || walk::look(&wanted, watches));
        self.looking = Some((look, number, settled));
    }

    /// What limits the number of instances may have been changed since it was tried last.
    fn open(&mut self) -> Result<inotify::Watches, String> {
        let events = Inotify::init().and_then(|new| new.into_event_stream(vec![0; 16 * 1024]));
        match events {
            Ok(events) => Ok(self.inotify.insert(events).watches()),
            Err(error) => Err(super::no_instance(&error)),
        }
    }

    /// Waits for the look under way, if there is one, and takes in what it found.
    async fn looked(&mut self) {
        let Some((look, number, settled)) = &mut self.looking else { return };
        let (number, settled) = (*number, *settled);
        let seen = match look.await {
            Ok(seen) => seen,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime ends, and nobody waits for this any more.
                Err(_) => return std::future::pending().await,
            },
        };
        self.looking = None;
        let Seen { entries, watches, problem } = seen;
        self.replace(number, watches);
        let Some(group) = self.groups.get_mut(&number) else { return };
        let who = || group.who.iter().cloned().collect();
        if let (false, Some(why)) = (group.problem == problem, &problem) {
            self.told.push_back(Told::Unwatched { who: who(), why: why.clone() });
        }
        group.problem = problem;
        let Some(told) = &group.told else {
            group.seen = Some(entries.clone());
            group.told = Some(entries);
            return;
        };
        if settled {
            group.settle.clear();
            self.stirred.remove(&number);
            let (changed, told) = walk::compare(told, &entries);
            if let Some(path) = changed {
                self.told.push_back(Told::Changed { who: who(), path });
            }
            group.told = Some(told);
        } else if group.seen.as_ref() != Some(&entries) {
            group.settle.finished(Key::Unknown, Instant::now());
            self.stirred.insert(number);
        }
        group.seen = Some(entries);
    }

    /// These are what a group has to be watched from now on.
    fn replace(&mut self, number: Number, watches: Vec<(WatchDescriptor, Interest)>) {
        for place in self.places.values_mut() {
            place.groups.remove(&number);
        }
        if self.groups.contains_key(&number) {
            for (descriptor, interest) in watches {
                let id = descriptor.get_watch_descriptor_id();
                let new = || Place { descriptor, groups: BTreeMap::new() };
                let place = self.places.entry(id).or_insert_with(new);
                place.groups.entry(number).or_default().add(interest);
            }
        } else {
            for (descriptor, _) in watches {
                let id = descriptor.get_watch_descriptor_id();
                self.places.entry(id).or_insert(Place { descriptor, groups: BTreeMap::new() });
            }
        }
        let unused = self.places.extract_if(|_, place| place.groups.is_empty());
        for (_, place) in unused {
            if let Some(events) = &self.inotify {
                // It may be gone with its directory, which is the wish.
                let _ = events.watches().remove(place.descriptor);
            }
        }
        if self.groups.is_empty() {
            self.inotify = None;
            self.places.clear();
        }
    }
}

/// What of the name of a file can be compared with a pattern.
fn text(name: &OsStr) -> std::borrow::Cow<'_, str> {
    name.to_string_lossy()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tools_leave_beside_files_is_skipped() {
        let ignore: [Arc<str>; 2] = ["node_modules".into(), "*.log".into()];
        for (name, skipped) in [
            (".git", true),
            (".main.js.swp", true),
            ("main.js~", true),
            ("#main.js#", true),
            ("node_modules", true),
            ("a.log", true),
            ("main.js", false),
            ("..data", false),
            ("..2026_11_21", false),
            ("log", false),
        ] {
            assert_eq!(is_skipped(name, &ignore), skipped, "{name}");
        }
        assert!(!is_skipped("node_modules", &[]));
    }
}
