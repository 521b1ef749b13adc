//! What is known of the whole, of each instance and of each run, and what came of runs until that is
//! told: one file, to which every change is added at its end. Of what it says of the same subject the
//! last counts.
//!
//! **An entry** is two lines. The first says what it is, `provost KIND VERSION SHA256 LENGTH SUBJECT`,
//! the digest being that of all the rest of it; the second is LENGTH bytes of JSON. A `gone` takes back all
//! that was said of an instance and its runs.
//!
//! **Adding** is one write for all that changes in a turn (a few where that is a thousand instances), to
//! a file that stays open. Who is killed in the middle leaves an entry without an end. It is as if it
//! had never been begun: what it would have told of is only done after it. What could not be written
//! whole is cut off again.
//!
//! **Damage** is anything else that is not as it was written. What was said before it may have been
//! taken back by what cannot be read, so only what was said after it is believed. The file is set aside
//! then, and another one begun with what is believed.
//!
//! **Room.** What does not count any more is left out when the file is written anew, beside its place,
//! which it takes in one step: when more than half of it does not count, and 64 KiB more. So it is
//! where it does not end where it should, and where somebody has taken it away: it can be read for as long
//! as it is open. The first entries of a file are there all at once or not at all.

mod entry;

use self::entry::{Bad, Entry, Print, entry, next};
pub(super) use self::entry::{Batch, Subject};
use super::file::{self, ReadError};
use crate::core::ids::{InstanceId, Slot};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Its name in the runtime directory.
pub(super) const NAME: &str = "ledger";

/// So much does not count before it is written anew, however little does.
const SLACK: u64 = 64 * 1024;

/// A larger one is not ours: it would be of some hundred thousand processes.
const LARGEST: u64 = 1024 * 1024 * 1024;

/// Where an entry is that counts.
#[derive(Clone, Copy, Debug)]
struct Place {
    at: u64,
    len: u32,
    print: Print,
}

/// Where what is known of an instance is.
#[derive(Default)]
struct Places {
    state: Option<Place>,
    runs: [Option<Place>; 2],
}

/// The file, and by what it is known again.
struct Opened {
    file: File,
    device: u64,
    inode: u64,
    is_writable: bool,
}

impl Opened {
    fn new(file: File, is_writable: bool) -> io::Result<Opened> {
        let found = file.metadata()?;
        Ok(Opened { file, device: found.dev(), inode: found.ino(), is_writable })
    }
}

/// See the module documentation.
pub(super) struct Ledger {
    path: PathBuf,
    /// None until the first entry.
    file: Option<Opened>,
    /// How long it is.
    end: u64,
    /// How much of it counts.
    live: u64,
    /// Not before it is so long is it written anew to be shorter: there was no room for that.
    patience: u64,
    /// What is to be the beginning of the file and could not be written yet.
    first: Option<Batch>,
    whole: Option<Place>,
    instances: BTreeMap<InstanceId, Places>,
    outcomes: BTreeMap<u64, Option<Place>>,
}

impl Ledger {
    /// One that has nothing in it and no file yet.
    pub fn new(path: PathBuf) -> Ledger {
        Ledger {
            path,
            file: None,
            end: 0,
            live: 0,
            patience: 0,
            first: None,
            whole: None,
            instances: BTreeMap::new(),
            outcomes: BTreeMap::new(),
        }
    }

    fn place(&self, of: &Subject) -> Option<Place> {
        match of {
            Subject::Whole => self.whole,
            Subject::State(id) => self.instances.get(id)?.state,
            Subject::Run(id, slot) => self.instances.get(id)?.runs[index(*slot)],
            Subject::Gone(_) => None,
            Subject::Outcome(number) => *self.outcomes.get(number)?,
        }
    }

    /// Whether that is its last word already.
    fn says(&self, entry: &Entry) -> bool {
        match &entry.of {
            Subject::Gone(id) => !self.instances.contains_key(id),
            other => self.place(other).is_some_and(|place| place.print == entry.print),
        }
    }

    /// From here on what is said there counts; None: nothing that was said of it.
    fn turn(&mut self, of: &Subject, place: Option<Place>) {
        let mut live = self.live;
        let mut change = |old: &mut Option<Place>| {
            let new = place.map_or(0, |place| u64::from(place.len));
            live = live + new - old.map_or(0, |old| u64::from(old.len));
            *old = place;
        };
        match of {
            Subject::Whole => change(&mut self.whole),
            Subject::State(id) => change(&mut places(&mut self.instances, id).state),
            Subject::Run(id, slot) => {
                change(&mut places(&mut self.instances, id).runs[index(*slot)]);
            }
            Subject::Gone(id) => {
                let gone = self.instances.remove(id).unwrap_or_default();
                let gone = [gone.state, gone.runs[0], gone.runs[1]];
                live -= gone.iter().flatten().map(|place| u64::from(place.len)).sum::<u64>();
            }
            Subject::Outcome(number) => change(self.outcomes.entry(*number).or_default()),
        }
        self.live = live;
    }

    /// What has such a number or a smaller one does not count any more.
    pub fn forget_outcomes(&mut self, number: u64) {
        let later = self.outcomes.split_off(&number.saturating_add(1));
        let gone = std::mem::replace(&mut self.outcomes, later);
        self.live -= gone.values().flatten().map(|place| u64::from(place.len)).sum::<u64>();
    }

    /// Begins with these. Where that cannot be written nothing else is, until it is.
    ///
    /// # Errors
    /// What the system says.
    pub fn begin_with(&mut self, first: Batch) -> io::Result<()> {
        self.first = (!first.entries.is_empty()).then_some(first);
        self.append(&Batch::default())
    }

    /// Adds all of it or nothing.
    ///
    /// # Errors
    /// What the system says; what was there counts then.
    pub fn append(&mut self, batch: &Batch) -> io::Result<()> {
        if batch.entries.is_empty() && self.first.is_none() {
            return Ok(());
        }
        match &self.file {
            Some(opened) if self.first.is_none() && self.is_in_place(opened) => {
                if let Err(error) = opened.file.write_all_at(&batch.bytes, self.end) {
                    // Else it is written anew the next time.
                    let _ = opened.file.set_len(self.end);
                    return Err(error);
                }
                self.take_in(batch);
            }
            _ => return self.rewrite(batch),
        }
        let is_wasteful = self.end > (self.live * 2 + SLACK).max(self.patience);
        if is_wasteful && self.rewrite(&Batch::default()).is_err() {
            // There is no room for two. It goes on as it is, for as long as there is room for it.
            self.patience = self.end + self.live + SLACK;
        }
        Ok(())
    }

    /// From here on these entries count, which are at the end of the file.
    fn take_in(&mut self, batch: &Batch) {
        for entry in &batch.entries {
            let place = Place { at: self.end, len: entry.len, print: entry.print };
            let counts = !matches!(entry.of, Subject::Gone(_));
            self.turn(&entry.of, counts.then_some(place));
            self.end += u64::from(entry.len);
        }
    }

    /// Whether who comes next finds under its name what is written here, and nothing else.
    fn is_in_place(&self, opened: &Opened) -> bool {
        let own = (opened.device, opened.inode, self.end);
        let found = fs::symlink_metadata(&self.path);
        let is_it = found.is_ok_and(|found| (found.dev(), found.ino(), found.len()) == own);
        is_it && opened.is_writable
    }

    /// Writes what counts and these into another file, which takes its place: all of it or nothing, also
    /// for who is killed.
    fn rewrite(&mut self, batch: &Batch) -> io::Result<()> {
        self.drop_lost();
        let path = file::beside(&self.path, "new");
        let written = self.write_anew(&path, batch).and_then(|new| {
            fs::rename(&path, &self.path)?;
            Ok(new)
        });
        let new = written.inspect_err(|_| {
            let _ = fs::remove_file(&path);
        })?;
        let mut at = 0;
        for place in self.in_order() {
            place.at = at;
            at += u64::from(place.len);
        }
        self.file = Some(new);
        (self.end, self.live, self.patience) = (at, at, 0);
        if let Some(first) = self.first.take() {
            self.take_in(&first);
        }
        self.take_in(batch);
        Ok(())
    }

    /// What somebody has cut off does not count any more.
    fn drop_lost(&mut self) {
        let held = self.file.as_ref().and_then(|opened| opened.file.metadata().ok());
        let held = held.map_or(0, |found| found.len());
        let Ledger { whole, instances, outcomes, live, .. } = self;
        let of_instances = instances.values_mut().flat_map(|places| {
            let [first, second] = &mut places.runs;
            [&mut places.state, first, second]
        });
        for place in std::iter::once(whole).chain(of_instances).chain(outcomes.values_mut()) {
            if let Some(lost) = place.take_if(|place| place.at + u64::from(place.len) > held) {
                *live -= u64::from(lost.len);
            }
        }
    }

    fn write_anew(&mut self, path: &Path, batch: &Batch) -> io::Result<Opened> {
        let mut new = file::create(path)?;
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for place in self.in_order() {
            let len = u64::from(place.len);
            match ranges.last_mut() {
                Some((at, before)) if *at + *before == place.at => *before += len,
                _ => ranges.push((place.at, len)),
            }
        }
        let mut room = Vec::new();
        for (at, len) in ranges {
            // Where there is none nothing counts.
            let Some(Opened { file: old, .. }) = &self.file else { break };
            let mut done = 0;
            while done < len {
                const PART: u64 = 256 * 1024;
                // It is no more than that.
                room.resize(usize::try_from((len - done).min(PART)).unwrap_or_default(), 0);
                old.read_exact_at(&mut room, at + done)?;
                new.write_all(&room)?;
                done += room.len() as u64;
            }
        }
        for added in self.first.iter().chain([batch]) {
            new.write_all(&added.bytes)?;
        }
        Opened::new(new, true)
    }

    /// All that counts, as it is in the file.
    fn in_order(&mut self) -> Vec<&mut Place> {
        let of_instances = self.instances.values_mut().flat_map(|places| {
            let [first, second] = &mut places.runs;
            [&mut places.state, first, second].into_iter().flatten()
        });
        let outcomes = self.outcomes.values_mut().flatten();
        let mut all: Vec<&mut Place> =
            self.whole.iter_mut().chain(of_instances).chain(outcomes).collect();
        all.sort_unstable_by_key(|place| place.at);
        all
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        let _ = file::remove(&self.path);
        *self = Ledger::new(std::mem::take(&mut self.path));
    }
}

fn places<'a>(all: &'a mut BTreeMap<InstanceId, Places>, id: &InstanceId) -> &'a mut Places {
    all.entry(id.clone()).or_default()
}

fn index(slot: Slot) -> usize {
    match slot {
        Slot::A => 0,
        Slot::B => 1,
    }
}

/// What is not used of a file, and why.
#[derive(Debug)]
pub(super) struct Unused {
    /// Which part of it; empty for all of it.
    pub part: String,
    pub why: ReadError,
}

impl Ledger {
    /// Reads what is there: the ledger, all that is in the file, and what of it is not used. Where that
    /// is something, [`Ledger::set_aside`] is to be called.
    pub fn open(path: PathBuf) -> (Ledger, Vec<u8>, Option<Unused>) {
        // Of one who was killed while writing it anew.
        file::remove_beside(&path);
        let mut ledger = Ledger::new(path);
        let all = |why| Some(Unused { part: String::new(), why });
        let (file, bytes) = match ledger.bytes() {
            Ok(found) => found,
            Err(ReadError::Missing) => return (ledger, Vec::new(), None),
            Err(error) => return (ledger, Vec::new(), all(error)),
        };
        ledger.file = Some(file);
        let unused = match ledger.scan(&bytes) {
            Ok(damage) => damage.map(|(at, why)| Unused { part: format!(" up to byte {at}"), why }),
            Err(error) => {
                ledger.believe_nothing();
                all(error)
            }
        };
        (ledger, bytes, unused)
    }

    fn bytes(&self) -> Result<(Opened, Vec<u8>), ReadError> {
        let open = |is_writable: bool| {
            file::open(&self.path, OpenOptions::new().read(true).write(is_writable))
        };
        let (opened, is_writable) = match open(true) {
            Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => (open(false), false),
            opened => (opened, true),
        };
        let (file, bytes) = file::all(opened, LARGEST)?;
        Ok((Opened::new(file, is_writable).map_err(ReadError::Io)?, bytes))
    }

    /// Takes in all entries. Where one is damaged, that and where it ends.
    fn scan(&mut self, bytes: &[u8]) -> Result<Option<(usize, ReadError)>, ReadError> {
        let mut damage = None;
        let mut at = 0;
        while at < bytes.len() {
            match entry(&bytes[at..]) {
                Ok(Entry { of, print, len }) => {
                    let place = Place { at: at as u64, len, print };
                    self.turn(&of, (!matches!(of, Subject::Gone(_))).then_some(place));
                    at += len as usize;
                }
                Err(Bad::Unfinished) => break,
                Err(Bad::Other(error @ ReadError::Newer(_))) => return Err(error),
                Err(Bad::Other(error)) => {
                    self.believe_nothing();
                    at = next(bytes, at);
                    damage = Some((at, error));
                }
            }
        }
        // What is behind that is not added to: the file is written anew then.
        self.end = at as u64;
        Ok(damage)
    }

    fn believe_nothing(&mut self) {
        self.whole = None;
        self.instances.clear();
        self.outcomes.clear();
        self.live = 0;
    }

    /// All that counts of what is in the file: its JSON.
    pub fn said<'a>(&self, bytes: &'a [u8]) -> Vec<(Subject, &'a [u8])> {
        let body = |place: &Place| {
            let entry = bytes.get(usize::try_from(place.at).ok()?..)?.get(..place.len as usize)?;
            let start = entry.iter().position(|byte| *byte == b'\n')? + 1;
            entry.get(start..entry.len() - 1)
        };
        let mut all = Vec::new();
        let mut add = |of: Subject, place: &Option<Place>| {
            all.extend(place.as_ref().and_then(body).map(|body| (of, body)));
        };
        add(Subject::Whole, &self.whole);
        for (id, Places { state, runs }) in &self.instances {
            add(Subject::State(id.clone()), state);
            add(Subject::Run(id.clone(), Slot::A), &runs[0]);
            add(Subject::Run(id.clone(), Slot::B), &runs[1]);
        }
        for (number, place) in &self.outcomes {
            add(Subject::Outcome(*number), place);
        }
        all
    }

    /// What is said of this does not count.
    pub fn disbelieve(&mut self, of: &Subject) {
        self.turn(of, None);
    }

    /// Gives the file another name, under which somebody can look into it, and begins another with what
    /// counts.
    ///
    /// # Errors
    /// What the system says.
    pub fn set_aside(&mut self) -> io::Result<PathBuf> {
        if self.live == 0 {
            let aside = file::set_aside(&self.path)?;
            *self = Ledger::new(std::mem::take(&mut self.path));
            return Ok(aside);
        }
        // Under its old name there is one or the other at any time.
        let aside = file::aside(&self.path);
        if fs::hard_link(&self.path, &aside).is_err() {
            fs::rename(&self.path, &aside)?;
        }
        self.rewrite(&Batch::default())?;
        Ok(aside)
    }
}
