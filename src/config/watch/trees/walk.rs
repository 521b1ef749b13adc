//! One look at all that a group has watched.
//!
//! Every directory is put under watch before what is in it is looked at, so that no change falls
//! between.

use super::{Wanted, is_skipped, text};
use crate::config::watch::look::{MOST_SYMLINKS, names};
use crate::config::watch::remote;
use inotify::{WatchDescriptor, WatchMask, Watches};
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// So many files and directories are watched for one process. Each directory is one of the watches of
/// the kernel, of which a user has some thousands.
pub const MOST_ENTRIES: usize = 20_000;

/// How each file is, for each of the paths; None where nothing is there.
pub(super) type Entries = Vec<Option<BTreeMap<PathBuf, Stamp>>>;

/// What tells that a file is another one, or was written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    written: (i64, i64),
}

impl Stamp {
    fn of(found: &Metadata) -> Stamp {
        Stamp {
            device: found.dev(),
            inode: found.ino(),
            size: found.size(),
            written: (found.mtime(), found.mtime_nsec()),
        }
    }
}

/// What matters of a directory or file.
#[derive(Debug, Default)]
pub(super) struct Interest {
    /// These names in it are on the way to what is watched, or are that.
    names: HashSet<OsString>,
    /// Every name in it, but those that are skipped.
    all: bool,
}

impl Interest {
    pub(super) fn concerns(&self, name: &OsStr, ignore: &[Arc<str>]) -> bool {
        self.names.contains(name) || self.all && !is_skipped(&text(name), ignore)
    }

    pub(super) fn is_way(&self, name: &OsStr) -> bool {
        self.names.contains(name)
    }

    pub(super) fn add(&mut self, other: Interest) {
        self.names.extend(other.names);
        self.all |= other.all;
    }
}

/// What a look found.
#[derive(Default)]
pub(super) struct Seen {
    /// Files and symlinks.
    pub(super) entries: Entries,
    pub(super) watches: Vec<(WatchDescriptor, Interest)>,
    /// Why not everything is watched.
    pub(super) problem: Option<String>,
}

/// The first file that is not as it was, and how all are to be compared next: what is not there
/// stays as it was.
pub(super) fn compare(old: &Entries, new: &Entries) -> (Option<PathBuf>, Entries) {
    let pairs = || old.iter().zip(new);
    let first = pairs().find_map(|(old, new)| difference(old.as_ref(), new.as_ref()?));
    (first, pairs().map(|(old, new)| new.as_ref().or(old.as_ref()).cloned()).collect())
}

fn difference(
    old: Option<&BTreeMap<PathBuf, Stamp>>,
    new: &BTreeMap<PathBuf, Stamp>,
) -> Option<PathBuf> {
    let was = |path: &PathBuf| old.and_then(|old| old.get(path));
    let other = new.iter().find(|(path, stamp)| was(path) != Some(stamp)).map(|(path, _)| path);
    let gone = || old?.keys().find(|path| !new.contains_key(*path));
    other.or_else(gone).cloned()
}

/// Walks all paths and puts under watch what is on the way and in them. Blocks.
pub(super) fn look(wanted: &Wanted, watches: Result<Watches, String>) -> Seen {
    let mut walk = Walk { wanted, watches: None, seen: Seen::default(), count: 0 };
    match watches {
        Ok(watches) => walk.watches = Some(watches),
        Err(why) => walk.problem(why),
    }
    for path in &wanted.paths {
        let entries = walk.follow(path).map(|(end, found)| match found.is_dir() {
            true => walk.tree(end),
            false => walk.file(&end, path, &found),
        });
        walk.seen.entries.push(entries);
    }
    walk.seen
}

struct Walk<'w> {
    wanted: &'w Wanted,
    /// None: none to be had.
    watches: Option<Watches>,
    seen: Seen,
    /// How many files and directories were met.
    count: usize,
}

impl Walk<'_> {
    fn problem(&mut self, why: String) {
        self.seen.problem.get_or_insert(why);
    }

    /// The place at the end of all symlinks; None when there is none.
    fn follow(&mut self, path: &Path) -> Option<(PathBuf, Metadata)> {
        // A directory in which somebody works tells of its end only when it is left. So as long as
        // nothing is there, each name on the way is watched where it stands.
        let is_there = path.exists();
        let mut here = PathBuf::from("/");
        let mut rest: VecDeque<OsString> = names(path).collect();
        let mut symlinks = 0;
        while let Some(name) = rest.pop_front() {
            if name == ".." {
                here.pop();
                continue;
            }
            let next = here.join(&name);
            let is_last = rest.is_empty();
            if !is_last && is_there && self.way(&next) {
                here = next;
                continue;
            }
            self.name(&here, &name);
            let found = std::fs::symlink_metadata(&next).ok()?;
            if !found.is_symlink() {
                if is_last {
                    return Some((next, found));
                }
                here = next;
                continue;
            }
            symlinks += 1;
            let target = std::fs::read_link(&next).ok().filter(|_| symlinks <= MOST_SYMLINKS)?;
            if target.is_absolute() {
                here = PathBuf::from("/");
            }
            for name in names(&target).collect::<Vec<_>>().into_iter().rev() {
                rest.push_front(name);
            }
        }
        let found = std::fs::symlink_metadata(&here).ok()?;
        Some((here, found))
    }

    /// A directory on the way tells itself that it is moved or removed. False where it is none, or
    /// cannot be watched.
    fn way(&mut self, path: &Path) -> bool {
        if !std::fs::symlink_metadata(path).is_ok_and(|found| found.is_dir()) {
            return false;
        }
        self.add(path, SELF | WatchMask::ONLYDIR, Interest::default())
    }

    /// A name in a directory, which may come, go or be another one.
    fn name(&mut self, directory: &Path, name: &OsStr) {
        let names = HashSet::from([name.to_owned()]);
        let mask = SELF | NAMES | WatchMask::ONLYDIR;
        self.add(directory, mask, Interest { names, all: false });
    }

    /// A file that is watched by itself: its directory tells that it is another one, and it tells
    /// itself of writes.
    fn file(&mut self, end: &Path, path: &Path, found: &Metadata) -> BTreeMap<PathBuf, Stamp> {
        self.remote(end);
        self.add(end, SELF | WRITES, Interest::default());
        BTreeMap::from([(path.to_owned(), Stamp::of(found))])
    }

    fn tree(&mut self, root: PathBuf) -> BTreeMap<PathBuf, Stamp> {
        self.remote(&root);
        let mut seen = BTreeMap::new();
        let mut open = vec![root];
        while let Some(directory) = open.pop() {
            let mask = SELF | NAMES | WRITES | WatchMask::ONLYDIR;
            self.add(&directory, mask, Interest { names: HashSet::new(), all: true });
            let entries = match std::fs::read_dir(&directory) {
                Ok(entries) => entries,
                Err(error) if is_gone(&error) => continue,
                Err(error) => {
                    self.problem(format!("{}: {error}", directory.display()));
                    continue;
                }
            };
            for entry in entries.flatten() {
                if is_skipped(&text(&entry.file_name()), &self.wanted.ignore) {
                    continue;
                }
                self.count += 1;
                if self.count > MOST_ENTRIES {
                    self.problem(format!(
                        "there are more than {MOST_ENTRIES} files in what is watched, and the rest \
                         is not: name less, or use `ignore`"
                    ));
                    return seen;
                }
                // Of a symlink, as of a file, what it is itself.
                let Ok(found) = entry.metadata() else { continue };
                if found.is_dir() {
                    open.push(entry.path());
                } else if found.is_file() || found.is_symlink() {
                    seen.insert(entry.path(), Stamp::of(&found));
                }
            }
        }
        seen
    }

    fn remote(&mut self, path: &Path) {
        if let Some(name) = remote::file_system(path) {
            self.problem(format!(
                "{} is on {name}: what others change there is not seen",
                path.display()
            ));
        }
    }

    fn add(&mut self, path: &Path, mask: WatchMask, interest: Interest) -> bool {
        let Some(watches) = &mut self.watches else { return false };
        // Two paths can lead to one directory, so what is asked for adds up.
        match watches.add(path, mask | WatchMask::MASK_ADD | WatchMask::DONT_FOLLOW) {
            Ok(descriptor) => {
                self.seen.watches.push((descriptor, interest));
                true
            }
            Err(error) if is_gone(&error) => false,
            Err(error) => {
                self.problem(match error.raw_os_error() {
                    Some(libc::ENOSPC) => {
                        "no inotify watches are left (sysctl fs.inotify.max_user_watches)"
                            .to_owned()
                    }
                    _ => format!("{}: {error}", path.display()),
                });
                false
            }
        }
    }
}

/// It goes, or goes elsewhere.
const SELF: WatchMask = WatchMask::DELETE_SELF.union(WatchMask::MOVE_SELF);
/// Names in it come and go.
const NAMES: WatchMask = WatchMask::CREATE.union(WatchMask::DELETE).union(WatchMask::MOVE);
/// It, or what is in it, is written to.
const WRITES: WatchMask = WatchMask::MODIFY.union(WatchMask::CLOSE_WRITE);

fn is_gone(error: &io::Error) -> bool {
    [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory].contains(&error.kind())
}
