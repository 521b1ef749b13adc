//! Every configuration that was accepted: when, by whom, the content of all its files, what it
//! changed and what came of it.
//!
//! | part | owns |
//! |---|---|
//! | [`record`](self::record) | what is known of one |
//! | `disk` | one, as a directory |
//! | [`held`](self::held) | what is on disk and is not to be applied |
//!
//! They are below `generations` of the state directory, and outlive a reboot. What is returned from
//! here is on the disk; what could not be written is kept in memory and written later, so a full disk
//! keeps nobody from going back. Where there is no directory, the last few are in memory alone.

mod disk;
pub mod held;
pub mod record;

pub use held::{Because, HeldOff};
pub use record::{Accepted, Cause, Record, State, Timing};

use super::file::{self, Kind, ReadError};
use crate::config::load::Sources;
use crate::core::ids::Generation;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// How many are kept before a file says it.
const HISTORY: usize = 50;

/// How many are kept whose contents are in memory.
const IN_MEMORY: usize = 5;

/// Why the files of a generation cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// It is not kept, or never was.
    #[error("there is no generation {0}{kept}", kept = kept(.1))]
    NoSuch(Generation, Vec<Generation>),
    /// Not all of it is as it was written.
    #[error("generation {number} cannot be used: {}: {why}", path.display())]
    Unusable {
        /// Which.
        number: Generation,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

fn kept(numbers: &[Generation]) -> String {
    match (numbers.first(), numbers.last()) {
        (Some(first), Some(last)) if first == last => format!("; kept is {first}"),
        (Some(first), Some(last)) => format!("; kept are {first} to {last}"),
        _ => "; none is kept".to_owned(),
    }
}

/// Where the contents of a generation are.
enum Place {
    Disk,
    Memory(Sources),
}

/// One generation by itself.
pub struct Kept {
    record: Arc<Record>,
    files: Files,
}

enum Files {
    /// Below this directory.
    Disk(PathBuf),
    Memory(Sources),
}

impl Kept {
    /// What is known of it.
    #[must_use]
    pub fn record(&self) -> &Arc<Record> {
        &self.record
    }

    /// Its files as they were. Waits for the disk.
    ///
    /// # Errors
    /// When one of them is not as it was written.
    pub fn read(&self) -> Result<Sources, FilesError> {
        match &self.files {
            Files::Memory(sources) => Ok(sources.clone()),
            Files::Disk(root) => disk::contents(root, &self.record).map_err(|(path, why)| {
                let (number, why) = (self.record.number, why.to_string());
                FilesError::Unusable { number, path, why }
            }),
        }
    }
}

struct Entry {
    record: Arc<Record>,
    place: Place,
    /// On disk it is known otherwise.
    is_unsaved: bool,
}

/// See the module documentation. All that writes waits for the disk.
pub struct Generations {
    /// None: nothing is kept on disk.
    root: Option<PathBuf>,
    held_at: Option<PathBuf>,
    entries: BTreeMap<Generation, Entry>,
    history: usize,
    highest: Generation,
    aside: Vec<(Generation, PathBuf)>,
    held_off: Option<HeldOff>,
    is_held_unsaved: bool,
    trouble: Option<String>,
    again: Option<Instant>,
}

impl fmt::Debug for Generations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.entries.keys()).finish()
    }
}

impl Default for Generations {
    /// Nothing is kept on disk.
    fn default() -> Generations {
        Generations::open(None, &mut Vec::new())
    }
}

impl Generations {
    /// Reads what is kept in a state directory. What is damaged, or of a newer version, is set aside
    /// and named in the remarks.
    #[must_use]
    pub fn open(state: Option<&Path>, remarks: &mut Vec<String>) -> Generations {
        let mut all = Generations {
            root: state.map(|state| state.join("generations")),
            held_at: state.map(|state| state.join("held-off")),
            entries: BTreeMap::new(),
            history: HISTORY,
            highest: Generation(0),
            aside: Vec::new(),
            held_off: None,
            is_held_unsaved: false,
            trouble: None,
            again: None,
        };
        all.read(remarks);
        all
    }

    fn read(&mut self, remarks: &mut Vec<String>) {
        let (Some(root), Some(held_at)) = (self.root.clone(), self.held_at.clone()) else { return };
        match disk::open(&root, remarks) {
            Ok(found) => {
                self.highest = found.highest;
                self.aside = found.aside;
                let mut records = found.records;
                records.sort_by_key(|record| record.number);
                for record in records {
                    self.insert(record, Place::Disk);
                }
            }
            Err(error) => {
                remarks.push(format!("generations are not kept: {}: {error}", root.display()));
            }
        }
        match file::read::<HeldOff>(&held_at, Kind::HeldOff) {
            Ok(held_off) => self.held_off = Some(held_off),
            Err(ReadError::Missing) => {}
            // Without the directory there is no file.
            Err(ReadError::Io(_)) if self.entries.is_empty() => {}
            Err(error) => remarks.push(super::put_aside(&held_at, &error)),
        }
        // A newer one was accepted, and the daemon died before it could say so of the older.
        let newest = self.highest;
        for entry in self.entries.values_mut() {
            if entry.record.state.is_pending() && entry.record.number < newest {
                Arc::make_mut(&mut entry.record).state = State::Superseded;
                entry.is_unsaved = true;
            }
        }
    }

    /// Keeps so many from the next one on; those that are needed are kept besides.
    pub fn set_history(&mut self, history: usize) {
        self.history = history;
    }

    /// The number of the next one: none that was ever used here, and none up to that of what runs.
    #[must_use]
    pub fn next_number(&self, running: Generation) -> Generation {
        Generation(self.highest.max(running).0 + 1)
    }

    /// Keeps a configuration, and drops the oldest where there are too many.
    ///
    /// # Errors
    /// When it is not on the disk. It is kept in memory then, as far as there is room for the last
    /// few, and written by [`Generations::retry`].
    pub fn add(&mut self, accepted: Accepted, sources: &Sources) -> io::Result<Arc<Record>> {
        let record = Record::new(accepted, sources);
        self.highest = self.highest.max(record.number);
        let place = Place::Memory(self.shared(sources));
        let record = self.insert(record, place);
        let written = self.write(record.number);
        self.drop_old();
        self.note(written)?;
        Ok(record)
    }

    fn insert(&mut self, mut record: Record, place: Place) -> Arc<Record> {
        if let Some(newest) = self.entries.values().next_back() {
            record.share_with(&newest.record);
        }
        let record = Arc::new(record);
        let entry = Entry { record: Arc::clone(&record), place, is_unsaved: false };
        self.entries.insert(record.number, entry);
        record
    }

    /// The same contents, where the one before it is in memory with some of them too.
    fn shared(&self, sources: &Sources) -> Sources {
        let mut sources = sources.clone();
        let before = self.entries.values().next_back().map(|entry| &entry.place);
        if let Some(Place::Memory(before)) = before {
            for file in &mut sources.files {
                let same = |old: &&crate::config::load::Source| {
                    old.path == file.path && old.content == file.content
                };
                if let Some(old) = before.files.iter().find(same) {
                    file.content.clone_from(&old.content);
                }
            }
        }
        sources
    }

    /// Notes what became of one.
    ///
    /// # Errors
    /// When that is not on the disk; it is written by [`Generations::retry`]. There is no error where
    /// there is no such generation: it was dropped, or never kept.
    pub fn change(
        &mut self,
        number: Generation,
        change: impl FnOnce(&mut Record),
    ) -> io::Result<()> {
        let Some(entry) = self.entries.get_mut(&number) else { return Ok(()) };
        let record = Arc::make_mut(&mut entry.record);
        change(record);
        // By this it is found.
        record.number = number;
        let written = match entry.place {
            Place::Disk => {
                entry.is_unsaved = true;
                self.save(number)
            }
            // Perhaps there is room by now.
            Place::Memory(_) => self.write(number),
        };
        // What was needed until then may not be any more.
        self.drop_old();
        self.note(written)
    }

    /// Notes how far one came.
    ///
    /// # Errors
    /// As [`Generations::change`].
    pub fn set_state(&mut self, number: Generation, state: State) -> io::Result<()> {
        self.change(number, |record| record.state = state)
    }

    /// All that are kept, the newest first.
    #[must_use]
    pub fn list(&self) -> Vec<Arc<Record>> {
        self.entries.values().rev().map(|entry| Arc::clone(&entry.record)).collect()
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, number: Generation) -> Option<Arc<Record>> {
        self.entries.get(&number).map(|entry| Arc::clone(&entry.record))
    }

    /// One of them, for whoever reads its files apart from all this.
    ///
    /// # Errors
    /// When it is not kept.
    pub fn find(&self, number: Generation) -> Result<Kept, FilesError> {
        let entry = self
            .entries
            .get(&number)
            .ok_or_else(|| FilesError::NoSuch(number, self.entries.keys().copied().collect()))?;
        let files = match (&entry.place, &self.root) {
            (Place::Memory(sources), _) => Files::Memory(sources.clone()),
            (Place::Disk, Some(root)) => Files::Disk(root.clone()),
            // Without a directory nothing is on disk.
            (Place::Disk, None) => return Err(FilesError::NoSuch(number, Vec::new())),
        };
        Ok(Kept { record: Arc::clone(&entry.record), files })
    }

    /// The files of one as they were.
    ///
    /// # Errors
    /// When it is not kept, or not as it was written.
    pub fn files(&self, number: Generation) -> Result<Sources, FilesError> {
        self.find(number)?.read()
    }

    /// What runs when nothing is pending: the newest that came up, or stayed all the same.
    #[must_use]
    pub fn running(&self) -> Option<Arc<Record>> {
        let mut records = self.entries.values().rev().map(|entry| &entry.record);
        records.find(|record| record.state.is_kept()).cloned()
    }

    /// What has no end yet: the newest, if at all. An older one was superseded.
    #[must_use]
    pub fn pending(&self) -> Option<Arc<Record>> {
        let newest = self.entries.values().next_back().map(|entry| &entry.record);
        newest.filter(|record| record.state.is_pending()).cloned()
    }

    /// What on disk is not to be applied.
    #[must_use]
    pub fn held_off(&self) -> Option<&HeldOff> {
        self.held_off.as_ref()
    }

    /// Holds a content off, or none any more.
    ///
    /// # Errors
    /// When that is not on the disk; it is written by [`Generations::retry`].
    pub fn hold_off(&mut self, held_off: Option<HeldOff>) -> io::Result<()> {
        if self.held_off == held_off {
            return Ok(());
        }
        self.held_off = held_off;
        self.is_held_unsaved = self.held_at.is_some();
        let written = self.save_held();
        self.note(written)
    }

    /// Why something is not on the disk; None when all is, or there is no place for it.
    #[must_use]
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// When what could not be written is to be tried again.
    #[must_use]
    pub fn again(&self) -> Option<Instant> {
        self.again
    }

    /// Writes what could not be written before.
    ///
    /// # Errors
    /// What the system says of the first that it could not be.
    pub fn retry(&mut self) -> io::Result<()> {
        let written = self.write_all();
        self.drop_old();
        self.note(written)
    }

    fn note(&mut self, written: io::Result<()>) -> io::Result<()> {
        match &written {
            Err(error) => {
                self.trouble = Some(error.to_string());
                self.again = Some(Instant::now() + super::AGAIN);
            }
            Ok(()) if self.is_all_written() => (self.trouble, self.again) = (None, None),
            Ok(()) => {}
        }
        written
    }

    fn is_all_written(&self) -> bool {
        let is_written = |entry: &Entry| matches!(entry.place, Place::Disk) && !entry.is_unsaved;
        self.root.is_none() || (!self.is_held_unsaved && self.entries.values().all(is_written))
    }

    fn write_all(&mut self) -> io::Result<()> {
        for number in self.entries.keys().copied().collect::<Vec<_>>() {
            self.write(number)?;
            self.save(number)?;
        }
        self.save_held()
    }

    fn on_disk(&self, number: Generation) -> Option<&Record> {
        let entry = self.entries.get(&number)?;
        matches!(entry.place, Place::Disk).then_some(&*entry.record)
    }

    /// Writes one that is in memory.
    fn write(&mut self, number: Generation) -> io::Result<()> {
        let Some(root) = &self.root else { return Ok(()) };
        let on_disk = self.entries.values().filter(|entry| matches!(entry.place, Place::Disk));
        let newest = on_disk.map(|entry| &*entry.record).next_back();
        let Some(Entry { record, place: Place::Memory(sources), .. }) = self.entries.get(&number)
        else {
            return Ok(());
        };
        // Where its contents may be already.
        let copied = match record.cause {
            Cause::Rollback { to, .. } => self.on_disk(to),
            _ => None,
        };
        let base = record.base.and_then(|base| self.on_disk(base));
        let like = [newest, base, copied].into_iter().flatten();
        disk::write(root, record, sources, &disk::Contents::of(root, like))?;
        if let Some(entry) = self.entries.get_mut(&number) {
            (entry.place, entry.is_unsaved) = (Place::Disk, false);
        }
        Ok(())
    }

    /// Writes what became of one that is on disk.
    fn save(&mut self, number: Generation) -> io::Result<()> {
        let (Some(root), Some(entry)) = (&self.root, self.entries.get_mut(&number)) else {
            return Ok(());
        };
        if entry.is_unsaved {
            disk::save(root, &entry.record)?;
            entry.is_unsaved = false;
        }
        Ok(())
    }

    fn save_held(&mut self) -> io::Result<()> {
        let (Some(path), true) = (&self.held_at, self.is_held_unsaved) else { return Ok(()) };
        match &self.held_off {
            Some(held_off) => file::write_durably(path, &file::encode(Kind::HeldOff, held_off))?,
            None => file::remove_durably(path)?,
        }
        self.is_held_unsaved = false;
        Ok(())
    }

    /// What is kept however old it is: what runs, what is pending, and what each of them would be
    /// taken back to.
    fn needed(&self) -> BTreeSet<Generation> {
        let records = [self.running(), self.pending()].into_iter().flatten();
        records.flat_map(|record| [Some(record.number), record.base]).flatten().collect()
    }

    fn drop_old(&mut self) {
        let needed = self.needed();
        let (mut on_disk, mut in_memory) = (0, 0);
        let mut dropped = Vec::new();
        for (number, entry) in self.entries.iter().rev() {
            let (count, most) = match entry.place {
                Place::Disk => (&mut on_disk, self.history),
                Place::Memory(_) => (&mut in_memory, self.history.min(IN_MEMORY)),
            };
            *count += 1;
            if *count > most && !needed.contains(number) {
                dropped.push(*number);
            }
        }
        for number in dropped {
            // What is not removed now is found by the next daemon, and dropped by that.
            self.entries.remove(&number);
            if let Some(root) = &self.root {
                let _ = disk::discard(root, number);
            }
        }
        let oldest = self.entries.keys().next().copied().unwrap_or_default();
        for (_, aside) in self.aside.extract_if(.., |(number, _)| *number < oldest) {
            disk::forget(&aside);
        }
    }
}
