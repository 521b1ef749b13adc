//! One look at all paths: what is put under watch on the way, and what cannot be.

use super::remote;
use crate::config::load::is_drop_in;
use crate::config::read::peek;
use inotify::{WatchDescriptor, WatchMask, Watches};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::ffi::OsString;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

/// As many symlinks as the kernel follows (path_resolution(7)).
pub(super) const MOST_SYMLINKS: u32 = 40;
/// How often what this machine cannot watch is compared.
const UNWATCHED: Duration = Duration::from_secs(2);
/// How often what others can change is compared. Each is a question to a server; NFS asks its server
/// no more often than every 3 s by itself (acregmin, nfs(5)).
const REMOTE: Duration = Duration::from_secs(5);

/// What is to be watched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Paths {
    pub(super) files: Vec<PathBuf>,
    pub(super) drop_ins: PathBuf,
}

impl Paths {
    /// Whether it is not more than `other`.
    pub(super) fn is_within(&self, other: &Paths) -> bool {
        let known: HashSet<&PathBuf> = other.files.iter().collect();
        self.drop_ins == other.drop_ins && self.files.iter().all(|file| known.contains(file))
    }
}

/// What matters of one directory or file.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) descriptor: WatchDescriptor,
    /// One way to it.
    path: PathBuf,
    /// What the kernel was asked to tell of it.
    mask: WatchMask,
    /// These names in it.
    names: HashSet<OsString>,
    /// Every name a drop-in can have.
    drop_ins: bool,
}

impl Watch {
    /// Whether a name in it matters.
    pub(super) fn concerns(&self, name: &std::ffi::OsStr) -> bool {
        self.names.contains(name) || (self.drop_ins && is_drop_in(Path::new(name)))
    }
}

/// What a look found.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// By the number the kernel gave: one for each inode.
    pub(super) watches: HashMap<i32, Watch>,
    /// Names, each in a watched directory, that no writer will close: symlinks and the like, and files
    /// that have another name.
    pub(super) whole: HashSet<(i32, OsString)>,
    /// Why not everything is watched, and how often it is compared instead.
    pub(super) slow: BTreeMap<String, Duration>,
    /// Of the content of what is not watched; None when everything is.
    pub(super) content: Option<[u8; 32]>,
}

/// Walks all paths and puts under watch what is not yet. Blocks. `watches` may be why there are none
/// to be had; `masks` is what the kernel was asked for before.
pub(super) fn look(
    paths: &Paths,
    watches: Result<Watches, String>,
    masks: &HashMap<i32, WatchMask>,
) -> Seen {
    let mut walk =
        Walk { watches: None, masks, seen: Seen::default(), ways: HashSet::new(), blind: false };
    match watches {
        Ok(watches) => walk.watches = Some(watches),
        Err(why) => drop(walk.seen.slow.insert(why, UNWATCHED)),
    }
    let mut compared: Vec<PathBuf> = Vec::new();
    // A directory on the way to a file that is there cannot go without that file going first, which
    // is told. So those that are there come first, and what leads to the others is watched closer.
    let (there, missing): (Vec<_>, Vec<_>) = paths.files.iter().partition(|path| path.exists());
    for path in there.into_iter().chain(missing) {
        if walk.file(path) {
            compared.push(path.clone());
        }
    }
    let unseen = walk.drop_ins(&paths.drop_ins);
    let known: HashSet<&PathBuf> = paths.files.iter().collect();
    for path in drop_ins_of(&paths.drop_ins) {
        if !known.contains(&path) && walk.file(&path) || unseen {
            compared.push(path);
        }
    }
    walk.narrow();
    let mut seen = walk.seen;
    // After all watches are in place, so that no change falls between.
    seen.content = (!seen.slow.is_empty()).then(|| digest(&compared));
    seen
}

impl Seen {
    /// What the kernel is asked for.
    pub(super) fn masks(&self) -> HashMap<i32, WatchMask> {
        self.watches.iter().map(|(id, watch)| (*id, watch.mask)).collect()
    }

    /// Whether the same directories and files are watched, and what is compared is the same.
    pub(super) fn same(&self, other: &Seen) -> bool {
        self.content == other.content
            && self.watches.len() == other.watches.len()
            && self.watches.keys().all(|id| other.watches.contains_key(id))
    }

    /// Whether nothing is watched that was not, and nothing compared.
    pub(super) fn is_within(&self, other: &Seen) -> bool {
        self.content.is_none() && self.watches.keys().all(|id| other.watches.contains_key(id))
    }
}

struct Walk<'w> {
    /// None: none to be had.
    watches: Option<Watches>,
    masks: &'w HashMap<i32, WatchMask>,
    seen: Seen,
    /// Directories on the way that are known by now: most paths have theirs in common.
    ways: HashSet<PathBuf>,
    /// Whether something on the way to the present path cannot be watched.
    blind: bool,
}

impl Walk<'_> {
    /// Whether its content has to be compared.
    fn file(&mut self, path: &Path) -> bool {
        self.blind = self.watches.is_none();
        if let Some(end) = self.follow(path) {
            let mask = WatchMask::MODIFY
                | WatchMask::CLOSE_WRITE
                | WatchMask::ATTRIB
                | WatchMask::DELETE_SELF
                | WatchMask::MOVE_SELF
                | WatchMask::DONT_FOLLOW;
            self.add(&end, mask);
        }
        self.blind
    }

    fn drop_ins(&mut self, path: &Path) -> bool {
        self.blind = self.watches.is_none();
        if let Some(end) = self.follow(path)
            && let Some(watch) = self.directory(&end, true)
        {
            watch.drop_ins = true;
        }
        self.blind
    }

    /// Watches each directory on the way before what is in it is looked at. Returns the place at the
    /// end of all symlinks; None when there is none.
    fn follow(&mut self, path: &Path) -> Option<PathBuf> {
        let is_there = path.exists();
        let mut here = PathBuf::from("/");
        let mut rest: VecDeque<OsString> = names(path).collect();
        let mut symlinks = 0;
        while let Some(name) = rest.pop_front() {
            if name == ".." {
                here.pop();
                continue;
            }
            let is_last = rest.is_empty();
            let next = here.join(&name);
            if !is_last && self.on_the_way(&next, is_there) {
                here = next;
                continue;
            }
            let id = self.directory(&here, is_last).map(|watch| {
                watch.names.insert(name.clone());
                watch.descriptor.get_watch_descriptor_id()
            });
            let found = std::fs::symlink_metadata(&next);
            if let (Some(id), Ok(found)) = (id, &found)
                && (!found.is_file() || found.nlink() > 1)
            {
                self.seen.whole.insert((id, name));
            }
            if !found.as_ref().is_ok_and(std::fs::Metadata::is_symlink) {
                if found.is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
                    return None;
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
        Some(here)
    }

    /// A directory that is on the way tells itself that it is moved or removed. What else happens in
    /// the one above, which may be busy (/tmp, a home), need not wake anybody.
    ///
    /// One that somebody works in (its current directory) tells of its end only when it is left. So
    /// where no file in it tells instead, the one above has to. False when it has to, or when this
    /// is no directory or cannot be watched.
    fn on_the_way(&mut self, path: &Path, is_there: bool) -> bool {
        if self.ways.contains(path) {
            return true;
        }
        let is_directory = std::fs::symlink_metadata(path).is_ok_and(|found| found.is_dir());
        if !is_directory || self.watches.is_none() {
            return false;
        }
        let mask = WatchMask::DELETE_SELF
            | WatchMask::MOVE_SELF
            | WatchMask::ONLYDIR
            | WatchMask::DONT_FOLLOW;
        let known = self.seen.watches.len();
        let added = self.try_add(path, mask).is_ok();
        // Known from the way to a file that is there.
        let is_held = self.seen.watches.len() == known;
        let is_way = added && (is_there || is_held);
        if is_way {
            self.ways.insert(path.to_owned());
        }
        is_way
    }

    /// Where a name may come, go or be another one. Writes matter only where the file itself stands,
    /// and there only their end: a log may stand beside it. What is written to the file itself, that
    /// tells.
    fn directory(&mut self, path: &Path, ends: bool) -> Option<&mut Watch> {
        let mut mask = WatchMask::CREATE
            | WatchMask::DELETE
            | WatchMask::MOVE
            | WatchMask::DELETE_SELF
            | WatchMask::MOVE_SELF
            | WatchMask::ONLYDIR;
        if ends {
            mask |= WatchMask::CLOSE_WRITE;
        }
        self.add(path, mask)
    }

    fn add(&mut self, path: &Path, mask: WatchMask) -> Option<&mut Watch> {
        self.watches.as_ref()?;
        if let Some(name) = remote::file_system(path) {
            self.blind = true;
            let why = format!("{} is on {name}, which others can change", path.display());
            self.seen.slow.insert(why, REMOTE);
        }
        match self.try_add(path, mask) {
            Ok(id) => self.seen.watches.get_mut(&id),
            Err(error) => {
                let gone = [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory];
                if !gone.contains(&error.kind()) {
                    self.blind = true;
                    let why = match error.raw_os_error() {
                        Some(libc::ENOSPC) => "no inotify watches are left \
                             (sysctl fs.inotify.max_user_watches)"
                            .to_owned(),
                        _ => format!("{}: {error}", path.display()),
                    };
                    self.seen.slow.insert(why, UNWATCHED);
                }
                None
            }
        }
    }

    /// Two paths can lead to one directory, so what is asked for adds up.
    fn try_add(&mut self, path: &Path, mask: WatchMask) -> io::Result<i32> {
        let none = || io::Error::from(io::ErrorKind::Unsupported);
        let watches = self.watches.as_mut().ok_or_else(none)?;
        let descriptor = watches.add(path, mask | WatchMask::MASK_ADD)?;
        let id = descriptor.get_watch_descriptor_id();
        let new = || Watch {
            descriptor,
            path: path.to_owned(),
            mask: WatchMask::empty(),
            names: HashSet::new(),
            drop_ins: false,
        };
        self.seen.watches.entry(id).or_insert_with(new).mask |= mask;
        Ok(id)
    }

    /// Takes back what an earlier look asked for and this one does not.
    fn narrow(&mut self) {
        let Some(watches) = &mut self.watches else { return };
        for (id, watch) in &self.seen.watches {
            let before = self.masks.get(id).copied().unwrap_or(watch.mask);
            if watch.mask.contains(before) {
                continue;
            }
            // It may be gone, or another one stand there by now. That one is told of where it came.
            if let Ok(descriptor) = watches.add(&watch.path, watch.mask)
                && !self.seen.watches.contains_key(&descriptor.get_watch_descriptor_id())
            {
                let _ = watches.remove(descriptor);
            }
        }
    }
}

/// The drop-ins that are there.
fn drop_ins_of(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.retain(|path| is_drop_in(path));
    paths.sort();
    paths
}

/// SHA-256 over paths and contents.
fn digest(paths: &[PathBuf]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for path in paths {
        hash.update(path.as_os_str().as_encoded_bytes());
        match peek(path) {
            Ok(content) => {
                hash.update([0]);
                hash.update((content.len() as u64).to_le_bytes());
                hash.update(content);
            }
            Err(error) => hash.update(format!("\x01{error}\0")),
        }
    }
    hash.finalize().into()
}

/// The names of a path, `..` among them.
pub(super) fn names(path: &Path) -> impl Iterator<Item = OsString> + use<'_> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    })
}
