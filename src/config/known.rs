//! What is remembered of a configuration that was read, so that the next one need not be read as a whole.
//!
//! Where all files are as they were, nothing is read but their bytes. Where a file differs in a few of
//! its processes, and all of them stand below each other in lines of their own, only these lines are read
//! as YAML, and what was made of the others is taken over.
//!
//! **Why that comes to the same.** A file is cut where lines of processes begin that were there before and
//! are the same: one before what differs, one after it. Up to the first, all bytes are as they were, so
//! whoever reads them all stands there as then: within `processes`, where an id comes. What comes before
//! the processes together with these lines is a file of its own, which is read like any other. When the
//! line that was cut at the end is found in it as that id again, at that place, then whoever reads all
//! bytes stands there as then, too; and from there on all bytes are as they were. There is nothing else
//! that one process could have from another: no anchors in the whole file. What they have from elsewhere
//! (settings, the directory of the file, environment files) is compared.
//!
//! Whenever any of this is not so, or anything at all is to be said of the configuration, everything is
//! read again as a whole: so whatever is shown has its true place.

use super::diagnostic::{Diagnostic, Place};
use super::load::{
    DaemonSettings, Loaded, Location, Mode, Source, SourceKind, Sources, digest, is_drop_in,
};
use super::lower::{Block, Blocks, File, Found, Lowered, Role, Settings, Whole};
use super::read::{FileSet, ReadError};
use super::text::SourceText;
use super::yaml::BUDGET;
use crate::core::ids::ProcessId;
use crate::core::spec::{Config, ProcessSpec};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// What there is to know of a configuration that was read.
#[derive(Debug)]
pub struct Known {
    files: Vec<(Arc<PathBuf>, SourceKind)>,
    drop_ins: PathBuf,
    digest: String,
    daemon: DaemonSettings,
    missing: bool,
    diagnostics: Vec<Diagnostic>,
    config: Option<Arc<Config>>,
    basis: Option<Arc<Basis>>,
}

impl Known {
    /// What to remember of a configuration.
    #[must_use]
    pub fn of(loaded: &Loaded) -> Known {
        let files = loaded.sources.files.iter();
        Known {
            files: files.map(|file| (Arc::clone(&file.path), file.kind)).collect(),
            drop_ins: loaded.sources.drop_ins.clone(),
            digest: loaded.sources.digest.clone(),
            daemon: loaded.daemon.clone(),
            missing: loaded.missing,
            diagnostics: loaded.diagnostics.clone(),
            config: loaded.config.clone(),
            basis: loaded.basis.clone(),
        }
    }

    /// Whether it is this configuration that is known, the very same.
    #[must_use]
    pub fn is_of(&self, config: &Arc<Config>) -> bool {
        self.config.as_ref().is_some_and(|known| Arc::ptr_eq(known, config))
    }

    /// The same as [`load`](super::load::load) would find, where all files are as they were. Where each
    /// process is defined is left out. None: something differs, or cannot be read.
    #[must_use]
    pub fn load_unchanged(&self) -> Option<Loaded> {
        let config = self.config.as_ref()?;
        let mut files = FileSet::default();
        for (path, kind) in &self.files {
            match files.read(path, *kind).1 {
                // Sooner told than by the digest of all.
                Ok(content) if self.is_another(path, &content) => return None,
                Ok(_) | Err(ReadError::Missing) => {}
                Err(_) => return None,
            }
        }
        let listed = files.list(&self.drop_ins).ok()?.unwrap_or_default();
        let listed = listed.iter().filter(|path| is_drop_in(path));
        let known = self.files.iter().filter(|(_, kind)| *kind == SourceKind::DropIn);
        let is_same = listed.eq(known.map(|(path, _)| &**path))
            && digest(&files.sources) == self.digest
            && files.is_current();
        let has_drop_ins = !files.lacks_directory();
        is_same.then(|| Loaded {
            sources: Sources {
                files: files.sources,
                drop_ins: self.drop_ins.clone(),
                has_drop_ins,
                digest: self.digest.clone(),
            },
            config: Some(Arc::clone(config)),
            daemon: self.daemon.clone(),
            missing: self.missing,
            diagnostics: self.diagnostics.clone(),
            places: BTreeMap::new(),
            taken_over: config.processes.len(),
            unfinished: None,
            basis: self.basis.clone(),
        })
    }

    /// Whether a content is known to be another one than that of a file.
    fn is_another(&self, path: &Path, content: &[u8]) -> bool {
        let mut parts = self.basis.iter().flat_map(|basis| &basis.parts);
        parts.any(|part| **part.path == *path && *part.content != *content)
    }

    /// What another configuration can be read upon.
    pub(crate) fn basis(&self, location: &Location) -> Option<Former<'_>> {
        let (basis, config) = (self.basis.as_deref()?, self.config.as_deref()?);
        let same = basis.mode == location.mode
            && (Arc::ptr_eq(&basis.environment, &location.environment)
                || basis.environment == location.environment);
        same.then_some(Former { basis, config })
    }
}

/// What a process takes from the settings.
#[derive(Debug, PartialEq, Eq)]
struct Inherited {
    interval: Option<Duration>,
    max_attempts: Option<u32>,
    default_user: Arc<str>,
}

impl Inherited {
    fn of(settings: &Settings) -> Inherited {
        Inherited {
            interval: settings.interval,
            max_attempts: settings.max_attempts,
            default_user: Arc::clone(&settings.daemon.default_user),
        }
    }
}

/// Of a configuration of which there was nothing to be said: what its processes were made of.
pub(crate) struct Basis {
    mode: Mode,
    environment: Arc<BTreeMap<String, String>>,
    inherited: Inherited,
    parts: Vec<Part>,
    /// The content of each environment file.
    env_files: BTreeMap<Arc<PathBuf>, Arc<[u8]>>,
    /// The environment files of each process that names any.
    uses: BTreeMap<ProcessId, Vec<PathBuf>>,
}

impl fmt::Debug for Basis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Nearly all of it has values of environments in it.
        f.debug_struct("Basis").field("mode", &self.mode).finish_non_exhaustive()
    }
}

impl Basis {
    /// What to keep of files that were read. None where more goes into a process than is kept here.
    pub(crate) fn of(whole: &Whole, parts: Vec<Part>) -> Option<Basis> {
        if whole.depends_on_links || parts.is_empty() {
            return None;
        }
        let content = |file: &Source| Some((Arc::clone(&file.path), file.content.clone()?));
        let env_files = whole.files.sources.iter().filter(|file| file.kind == SourceKind::Env);
        let uses = whole.processes.iter().filter(|(_, lowered)| !lowered.env_files.is_empty());
        Some(Basis {
            mode: whole.mode,
            environment: Arc::clone(&whole.environment),
            inherited: Inherited::of(&whole.settings),
            parts,
            env_files: env_files.filter_map(content).collect(),
            uses: uses.map(|(id, lowered)| (id.clone(), lowered.env_files.clone())).collect(),
        })
    }
}

/// A file whose processes can be taken over.
pub(crate) struct Part {
    path: Arc<PathBuf>,
    kind: SourceKind,
    content: Arc<[u8]>,
    blocks: Blocks,
    /// How much text came out of it, or less than that.
    text: u64,
}

impl Part {
    pub(crate) fn new(
        (path, kind): (Arc<PathBuf>, SourceKind),
        content: Arc<[u8]>,
        blocks: Blocks,
        text: u64,
    ) -> Part {
        Part { path, kind, content, blocks, text }
    }
}

/// A configuration that another is read upon.
#[derive(Clone, Copy)]
pub(crate) struct Former<'k> {
    basis: &'k Basis,
    config: &'k Config,
}

impl<'k> Former<'k> {
    /// What is known of a file, where the settings are as they were.
    fn part(self, path: &Path, kind: SourceKind, settings: &Settings) -> Option<&'k Part> {
        // The settings of the main file are in the part of it that is read each time.
        let same = kind == SourceKind::Main || self.basis.inherited == Inherited::of(settings);
        let mut parts = self.basis.parts.iter().filter(|_| same);
        parts.find(|part| part.kind == kind && **part.path == *path)
    }

    /// Whether a file with this content has processes.
    pub(crate) fn has_processes(self, path: &Path, content: &[u8]) -> bool {
        let mut parts = self.basis.parts.iter();
        parts.any(|part| **part.path == *path && *part.content == *content)
    }

    fn spec(self, id: &ProcessId) -> Option<&'k Arc<ProcessSpec>> {
        self.config.processes.get(id)
    }

    /// Divides a file into what differs and what does not. None: it is read as a whole.
    pub(crate) fn divide(
        self,
        path: &Path,
        kind: SourceKind,
        settings: &Settings,
        text: &str,
    ) -> Option<Divided<'k>> {
        let part = self.part(path, kind, settings)?;
        let (old, new) = (&*part.content, text.as_bytes());
        let same_start = same_at_start(old, new);
        let same_end = same_at_end(&old[same_start..], &new[same_start..]);
        let blocks = &part.blocks.all;
        let differs = blocks.partition_point(|block| block.start as usize <= same_start);
        let differs = differs.checked_sub(1)?;
        let first = differs.saturating_sub(1);
        let same_from = old.len() - same_end;
        let last = blocks.partition_point(|block| (block.start as usize) < same_from);
        let last = Some(last).filter(|last| *last < blocks.len());
        let header = blocks[0].start as usize;
        let next = last.and_then(|last| blocks.get(last + 1));
        let end = next.map_or(old.len(), |block| block.start as usize);
        let end = end + new.len() - old.len();
        let lines = text.get(blocks[first].start as usize..end)?;
        let text = [text.get(..header)?, lines].concat();
        Some(Divided { former: self, part, text, first, is_first_same: differs > 0, last })
    }
}

/// A file of which most is as it was.
pub(crate) struct Divided<'k> {
    former: Former<'k>,
    part: &'k Part,
    /// What is to be read: what comes before the processes, and the lines of some of them.
    text: String,
    /// The first block that is read.
    first: usize,
    /// Whether that is as it was.
    is_first_same: bool,
    /// The last block that is read, which is as it was. None: all up to the end of the file is read.
    last: Option<usize>,
}

impl Divided<'_> {
    /// Reads what differs and takes over the rest. None where that does not come to the same as reading
    /// all of it, or may not.
    pub(crate) fn lower(
        &self,
        whole: &mut Whole,
        (path, content, text): (Arc<PathBuf>, Arc<[u8]>, &str),
        role: Role,
    ) -> Option<(Found, Part)> {
        let old = &self.part.blocks.all;
        let (before, after) = (&old[..self.first], &old[self.last.map_or(old.len(), |n| n + 1)..]);
        // In the order of the file: so they are remembered in the order in which they are always read.
        self.read_env_files(whole, before)?;
        let charged = whole.text;
        let source = SourceText::new(Arc::clone(&path), &self.text);
        let (found, read) = File::new(whole, &source).lower(role);
        let own = whole.text - charged;
        self.read_env_files(whole, after)?;
        let blocks = self.joined(&read?, text.len())?;
        if !whole.charge_all(self.part.text) || !whole.report.is_empty() {
            return None;
        }
        let guards = [Some(self.first).filter(|_| self.is_first_same), self.last];
        for guard in guards.into_iter().flatten() {
            let spec = self.former.spec(&old[guard].id)?;
            let read = whole.processes.get_mut(&old[guard].id)?;
            if read.spec != *spec {
                return None;
            }
        }
        let mut lines = Lines { text, line: 1, at: 0 };
        let others = blocks.all.len() - after.len();
        for (at, block) in blocks.all.iter().enumerate() {
            let place = lines.place(&path, block, blocks.indent);
            if (before.len()..others).contains(&at) {
                whole.processes.get_mut(&block.id)?.place = place;
            } else {
                let lowered = self.taken_over(&block.id, place)?;
                if whole.processes.insert(block.id.clone(), lowered).is_some() {
                    return None;
                }
                whole.taken_over += 1;
            }
        }
        let text = self.part.text.saturating_add(own);
        Some((found, Part::new((path, self.part.kind), content, blocks, text)))
    }

    fn read_env_files(&self, whole: &mut Whole, blocks: &[Block]) -> Option<()> {
        let basis = self.former.basis;
        if basis.uses.is_empty() {
            return Some(());
        }
        let used = blocks.iter().filter_map(|block| basis.uses.get(&block.id));
        for path in used.flatten() {
            whole.read_env_file_again(path, basis.env_files.get(path)?)?;
        }
        Some(())
    }

    /// Where all blocks are, those that were read and those that were not. None where what was cut is not
    /// found where it was cut.
    fn joined(&self, read: &Blocks, length: usize) -> Option<Blocks> {
        let old = &self.part.blocks;
        let header = old.all[0].start;
        let start = old.all[self.first].start;
        let moved = |block: &Block| {
            let at = (block.start - header).checked_add(start)?;
            Some(Block { start: at, ..block.clone() })
        };
        let grown = i64::try_from(length).ok()? - i64::try_from(self.part.content.len()).ok()?;
        let shifted = |block: &Block| {
            let at = u32::try_from(i64::from(block.start) + grown).ok()?;
            Some(Block { start: at, ..block.clone() })
        };
        let middle: Vec<Block> = read.all.iter().map(moved).collect::<Option<_>>()?;
        let is_first_there = match self.is_first_same {
            true => middle.first() == Some(&old.all[self.first]),
            false => true,
        };
        let is_last_there = match self.last {
            Some(last) => middle.last() == shifted(&old.all[last]).as_ref(),
            None => true,
        };
        let spent = old.spent.saturating_add(read.spent);
        if !is_first_there || !is_last_there || read.indent != old.indent || spent > BUDGET {
            return None;
        }
        let mut all = Vec::with_capacity(old.all.len() + middle.len());
        all.extend_from_slice(&old.all[..self.first]);
        all.extend(middle);
        if let Some(last) = self.last {
            for block in &old.all[last + 1..] {
                all.push(shifted(block)?);
            }
        }
        Some(Blocks { all, indent: old.indent, spent })
    }

    /// What was made of a process before. Where its parts stand is not known exactly: whoever has
    /// something to say of them reads all of it.
    fn taken_over(&self, id: &ProcessId, place: Place) -> Option<Lowered> {
        let spec = Arc::clone(self.former.spec(id)?);
        let edges = spec.depends_on.iter().map(|edge| (edge.clone(), place.clone())).collect();
        let sockets = spec.exec.sockets.values();
        let sockets = sockets.map(|listen| (listen.clone(), place.clone())).collect();
        let env_files = self.former.basis.uses.get(id).cloned().unwrap_or_default();
        // Where either could not be read, that was said.
        let (restart_is_sure, health_is_sure) = (true, true);
        Some(Lowered { spec, env_files, place, edges, sockets, restart_is_sure, health_is_sure })
    }
}

/// Counts lines.
struct Lines<'a> {
    text: &'a str,
    line: u32,
    at: usize,
}

impl Lines<'_> {
    /// Where the id of a block stands, which is after those that were asked for before.
    fn place(&mut self, file: &Arc<PathBuf>, block: &Block, indent: u32) -> Place {
        let start = block.start as usize;
        let passed = &self.text.as_bytes()[self.at..start];
        let lines = passed.iter().filter(|byte| **byte == b'\n').count();
        self.line += u32::try_from(lines).unwrap_or(u32::MAX);
        self.at = start;
        let id = start + indent as usize;
        let bytes = id..id + block.key as usize;
        Place { file: Arc::clone(file), line: self.line, column: indent + 1, bytes }
    }
}

/// So many bytes are compared at once.
const STRIDE: usize = 4096;

/// How many bytes two texts begin with alike.
fn same_at_start(one: &[u8], two: &[u8]) -> usize {
    let strides = one.chunks(STRIDE).zip(two.chunks(STRIDE));
    let same = strides.take_while(|(one, two)| one == two).map(|(one, _)| one.len());
    let same: usize = same.sum();
    let rest = one[same..].iter().zip(&two[same..]);
    same + rest.take_while(|(one, two)| one == two).count()
}

/// How many bytes two texts end with alike.
fn same_at_end(one: &[u8], two: &[u8]) -> usize {
    let strides = one.rchunks(STRIDE).zip(two.rchunks(STRIDE));
    let same = strides.take_while(|(one, two)| one == two).map(|(one, _)| one.len());
    let same: usize = same.sum();
    let (one, two) = (&one[..one.len() - same], &two[..two.len() - same]);
    same + one.iter().rev().zip(two.iter().rev()).take_while(|(one, two)| one == two).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_the_same_at_both_ends() {
        let long = vec![b'x'; 3 * STRIDE];
        for at in [0, 1, STRIDE - 1, STRIDE, STRIDE + 1, 3 * STRIDE - 1] {
            let mut other = long.clone();
            other[at] = b'y';
            assert_eq!(same_at_start(&long, &other), at);
            assert_eq!(same_at_end(&long, &other), long.len() - at - 1);
        }
        assert_eq!(same_at_start(b"abc", b"abcd"), 3);
        assert_eq!(same_at_end(b"bcd", b"abcd"), 3);
        assert_eq!(same_at_start(&long, &long), long.len());
        assert_eq!(same_at_end(&long, &long[1..]), long.len() - 1);
        assert_eq!(same_at_end(b"", b"abcd"), 0);
    }
}
