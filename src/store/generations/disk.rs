//! One generation, one directory: `000007` with `meta.json` and the contents below `files`.
//!
//! A directory is made under another name and takes its own in one step, and loses it in one step
//! before it is removed, so whatever has the name of a generation is whole. A content that an older
//! generation has too is the same file under another name.

use super::record::Record;
use crate::config::load::{Source, Sources};
use crate::core::ids::Generation;
use crate::store::file::{self, Kind, ReadError, hex};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const META: &str = "meta.json";
const FILES: &str = "files";

/// Of more new files, the whole file system is synced: that takes the time of a few of them.
const SYNCED_ONE_BY_ONE: usize = 16;

/// What is found in the directory of all generations.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// What can be read.
    pub(super) records: Vec<Record>,
    /// What was set aside, now or before.
    pub(super) aside: Vec<(Generation, PathBuf)>,
    /// The highest number of any, whatever is in it.
    pub(super) highest: Generation,
}

/// Where the generation with a number is.
pub(super) fn directory(root: &Path, number: Generation) -> PathBuf {
    root.join(format!("{:06}", number.0))
}

fn beside(root: &Path, word: &str, number: Generation) -> PathBuf {
    root.join(format!(".{word}-{:06}", number.0))
}

/// What the name of an entry says of it.
enum Named {
    Generation(Generation),
    Aside(Generation),
    /// Somebody died while it was made or removed.
    Unfinished,
    NotOurs,
}

fn named(name: &str) -> Named {
    let number = |text: &str| {
        let number = Generation(text.parse().ok()?);
        (format!("{:06}", number.0) == text).then_some(number)
    };
    if let Some(number) = number(name) {
        return Named::Generation(number);
    }
    let Some(hidden) = name.strip_prefix('.') else { return Named::NotOurs };
    if let Some((of, _)) = hidden.split_once(".bad-") {
        return number(of).map_or(Named::NotOurs, Named::Aside);
    }
    match hidden.strip_prefix("new-").or_else(|| hidden.strip_prefix("old-")).and_then(number) {
        Some(_) => Named::Unfinished,
        None => Named::NotOurs,
    }
}

/// Reads what there is, and removes what somebody who died has left.
///
/// # Errors
/// When the directory cannot be made, or not be read.
pub(super) fn open(root: &Path, remarks: &mut Vec<String>) -> io::Result<Found> {
    crate::store::private_directory(root)?;
    let mut found = Found::default();
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        let name = entry.file_name();
        let path = entry.path();
        match named(name.to_str().unwrap_or_default()) {
            Named::NotOurs => {}
            Named::Unfinished => drop(fs::remove_dir_all(path)),
            Named::Aside(number) => found.aside.push((number, path)),
            Named::Generation(number) => {
                found.highest = found.highest.max(number);
                match read(&path, number) {
                    Ok(record) => found.records.push(record),
                    Err(ReadError::Io(error)) => {
                        remarks.push(format!("{} is not used: {error}", path.display()));
                    }
                    Err(error) => remarks.push(crate::store::put_aside(&path, &error)),
                }
            }
        }
    }
    let aside = found.aside.iter().map(|(number, _)| *number);
    found.highest = aside.fold(found.highest, Generation::max);
    Ok(found)
}

fn read(directory: &Path, number: Generation) -> Result<Record, ReadError> {
    let damaged = |why: &str| Err(ReadError::Damaged(why.to_owned()));
    if !fs::symlink_metadata(directory).map_err(ReadError::Io)?.is_dir() {
        return damaged("it is no directory");
    }
    let meta = directory.join(META);
    // Somebody died while it was written.
    file::remove_beside(&meta);
    let bytes = match file::bytes(&meta) {
        Err(ReadError::Missing) => return damaged("it has no meta.json"),
        other => other?,
    };
    let record: Record = file::decode_readable(&bytes, Kind::Generation)?;
    if record.number != number {
        return damaged("it is of another generation");
    }
    for content in record.files.iter().filter_map(|file| file.content.as_ref()) {
        let path = directory.join(FILES).join(&content.name);
        let is_plain = !content.name.contains('/');
        if !is_plain || !fs::symlink_metadata(&path).is_ok_and(|found| found.is_file()) {
            return damaged(&format!("{FILES}/{} is missing", content.name));
        }
    }
    Ok(record)
}

/// Contents that are on disk already, by their digests.
pub(super) struct Contents(HashMap<String, PathBuf>);

impl Contents {
    /// Of some generations.
    pub(super) fn of<'a>(root: &Path, records: impl Iterator<Item = &'a Record>) -> Contents {
        let mut all = HashMap::new();
        for record in records {
            let files = directory(root, record.number).join(FILES);
            for content in record.files.iter().filter_map(|file| file.content.as_ref()) {
                all.insert(content.sha256.clone(), files.join(&content.name));
            }
        }
        Contents(all)
    }
}

/// Writes a generation, and returns when it is on the disk.
///
/// # Errors
/// What the system says; there is nothing of it then.
pub(super) fn write(
    root: &Path,
    record: &Record,
    sources: &Sources,
    known: &Contents,
) -> io::Result<()> {
    crate::store::private_directory(root)?;
    let new = beside(root, "new", record.number);
    let own = directory(root, record.number);
    // Of an attempt that did not reach the disk.
    discard(root, record.number)?;
    let written = fill(&new, record, sources, known)
        .and_then(|()| fs::rename(&new, &own))
        .and_then(|()| file::sync_directory(root));
    written.inspect_err(|_| {
        // What cannot be removed now is removed before the next attempt.
        let _ = discard(root, record.number);
    })
}

/// Removes a generation, and what was made of it.
///
/// # Errors
/// What the system says; that there is none is as good.
pub(super) fn discard(root: &Path, number: Generation) -> io::Result<()> {
    let own = directory(root, number);
    let old = beside(root, "old", number);
    remove_all(&beside(root, "new", number))?;
    remove_all(&old)?;
    match fs::rename(own, &old) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    }
    // It must not come back in part.
    file::sync_directory(root)?;
    remove_all(&old)
}

fn remove_all(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn fill(new: &Path, record: &Record, sources: &Sources, known: &Contents) -> io::Result<()> {
    let files = new.join(FILES);
    DirBuilder::new().mode(0o700).create(new)?;
    DirBuilder::new().mode(0o700).create(&files)?;
    let mut written = Vec::new();
    for (file, source) in record.files.iter().zip(&sources.files) {
        if let (Some(of), Some(content)) = (&file.content, source.content.as_deref()) {
            let path = files.join(&of.name);
            let old = known.0.get(&of.sha256);
            // Somebody may have written to it since.
            let is_same = old.is_some_and(|old| file::bytes(old).is_ok_and(|old| *old == *content));
            let linked = old.filter(|_| is_same).map(|old| fs::hard_link(old, &path));
            // A file has only so many names, and some file systems know of one only.
            if !matches!(linked, Some(Ok(()))) {
                write_new(&path, content)?;
                written.push(path);
            }
        }
    }
    if written.len() > SYNCED_ONE_BY_ONE {
        rustix::fs::syncfs(File::open(&files)?)?;
    } else {
        written.iter().try_for_each(|path| File::open(path)?.sync_all())?;
        file::sync_directory(&files)?;
    }
    // With it goes the directory that it is in.
    write_record(new, record)
}

fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)
}

/// Writes what is known of a generation that is there.
///
/// # Errors
/// What the system says; what was known before is there then.
pub(super) fn save(root: &Path, record: &Record) -> io::Result<()> {
    write_record(&directory(root, record.number), record)
}

fn write_record(directory: &Path, record: &Record) -> io::Result<()> {
    let text = file::encode_readable(Kind::Generation, record);
    file::write_durably(&directory.join(META), &text)
}

/// The files of a generation as they were.
///
/// # Errors
/// When one of them cannot be read, or is not as it was written.
pub(super) fn contents(root: &Path, record: &Record) -> Result<Sources, (PathBuf, ReadError)> {
    let directory = directory(root, record.number).join(FILES);
    let files = record.files.iter().map(|of| {
        let content = of.content.as_ref().map(|content| {
            let path = directory.join(&content.name);
            let bytes = file::bytes(&path).and_then(|bytes| {
                match hex(&Sha256::digest(&bytes)) == content.sha256 {
                    true => Ok(Arc::from(bytes)),
                    false => Err(ReadError::Damaged("it is not as it was written".into())),
                }
            });
            bytes.map_err(|error| (path, error))
        });
        Ok(Source {
            path: Arc::new(of.path.clone()),
            content: content.transpose()?,
            modified: of.modified,
            kind: of.kind,
        })
    });
    let files = files.collect::<Result<Vec<Source>, _>>()?;
    Ok(Sources::new(files, record.drop_ins.clone(), record.has_drop_ins))
}

/// Removes what was set aside.
pub(super) fn forget(aside: &Path) {
    let removed = fs::remove_dir_all(aside);
    // It may have been a file in the place of a directory.
    let _ = removed.or_else(|_| fs::remove_file(aside));
}
