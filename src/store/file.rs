//! One small file: written whole, and known to be whole when it is read.
//!
//! The first line says what it is: `provost KIND VERSION SHA256`, the digest being that of the rest,
//! which is JSON. A file is written beside its place and takes it in one step, so a reader sees the
//! old one or the new one.

use super::VERSION;
use rustix::fs::{CWD, RenameFlags};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use std::fmt::{self, Write as _};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Larger ones are not ours.
const LARGEST: u64 = 16 * 1024 * 1024;

/// What a file has in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The boot that the others are of.
    Boot,
    /// What is known of the whole.
    Whole,
    /// The state of an instance.
    State,
    /// By what the processes of a run are found.
    Run,
    /// What operators stopped.
    Stops,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Kind::Boot => "boot",
            Kind::Whole => "whole",
            Kind::State => "state",
            Kind::Run => "run",
            Kind::Stops => "stops",
        }
    }
}

/// Why a file is not used.
#[derive(Debug)]
pub enum ReadError {
    /// There is none.
    Missing,
    /// Of a version that is not known yet.
    Newer(u32),
    /// Cut off, changed, or something else altogether.
    Damaged(String),
    /// It cannot be read.
    Io(io::Error),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::Missing => write!(f, "there is none"),
            ReadError::Newer(version) => {
                write!(f, "it is of version {version}, and this is version {VERSION}")
            }
            ReadError::Damaged(why) => write!(f, "it is damaged ({why})"),
            ReadError::Io(error) => write!(f, "{error}"),
        }
    }
}

/// A file as it is written.
pub struct Text {
    bytes: Vec<u8>,
    /// Of what is in it.
    pub digest: [u8; 32],
}

/// Puts a file together.
pub fn encode<T: Serialize>(kind: Kind, value: &T) -> Text {
    // What is kept has text keys and no value that JSON cannot hold.
    let body = serde_json::to_vec(value).unwrap_or_default();
    let digest: [u8; 32] = Sha256::digest(&body).into();
    let mut head = format!("provost {} {VERSION} ", kind.as_str());
    for byte in digest {
        // Writing to a String cannot fail.
        let _ = write!(head, "{byte:02x}");
    }
    head.push('\n');
    let mut bytes = head.into_bytes();
    bytes.extend(body);
    Text { bytes, digest }
}

/// Takes a file apart.
///
/// # Errors
/// When anything about it is not as it was written.
pub fn decode<T: DeserializeOwned>(bytes: &[u8], kind: Kind) -> Result<T, ReadError> {
    let damaged = |why: &str| ReadError::Damaged(why.to_owned());
    let end = bytes.iter().position(|b| *b == b'\n').ok_or_else(|| damaged("it has no end"))?;
    let head = std::str::from_utf8(&bytes[..end]).map_err(|_| damaged("its head is no text"))?;
    let mut words = head.split(' ');
    let (what, named) = (words.next(), words.next());
    let (version, digest, more) = (words.next(), words.next(), words.next());
    if what != Some("provost") || named != Some(kind.as_str()) || more.is_some() {
        return Err(damaged("its head is not ours"));
    }
    let version: u32 =
        version.and_then(|v| v.parse().ok()).ok_or_else(|| damaged("it has no version"))?;
    match version {
        // There was none before the first.
        0 => return Err(damaged("it has no version")),
        1..=VERSION => {}
        newer => return Err(ReadError::Newer(newer)),
    }
    let body = &bytes[end + 1..];
    let actual = Sha256::digest(body).iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    });
    if digest != Some(actual.as_str()) {
        return Err(damaged("it is not as it was written"));
    }
    serde_json::from_slice(body).map_err(|error| ReadError::Damaged(error.to_string()))
}

/// Reads a file.
///
/// # Errors
/// When there is none, or it is not as it was written.
pub fn read<T: DeserializeOwned>(path: &Path, kind: Kind) -> Result<T, ReadError> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let file = match options.open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(ReadError::Missing),
        Err(error) => return Err(ReadError::Io(error)),
    };
    if !file.metadata().map_err(ReadError::Io)?.is_file() {
        return Err(ReadError::Damaged("it is no file".into()));
    }
    let mut bytes = Vec::new();
    file.take(LARGEST).read_to_end(&mut bytes).map_err(ReadError::Io)?;
    decode(&bytes, kind)
}

/// Writes a file whole, or not at all.
///
/// The old one stays beside it and is written over the next time: to make and to remove a file for
/// each change takes many times as long as to write it, and on ext4 a rename that replaces a file
/// waits for the disk (ext4(5), `auto_da_alloc`).
///
/// # Errors
/// What the system says; the file is as it was then.
pub fn write(path: &Path, text: &Text) -> io::Result<()> {
    let new = beside(path, "new");
    let written = open(&new, Old::Overwritten).and_then(|mut file| {
        file.write_all(&text.bytes)?;
        file.set_len(text.bytes.len() as u64)
    });
    written.and_then(|()| exchange(&new, path)).inspect_err(|_| {
        // It may not be there; and it is replaced the next time.
        let _ = fs::remove_file(&new);
    })
}

fn exchange(new: &Path, path: &Path) -> io::Result<()> {
    let flags = RenameFlags::EXCHANGE;
    match rustix::fs::renameat_with(CWD, new, CWD, path, flags) {
        Ok(()) => Ok(()),
        // There is no old one, or the file system cannot exchange.
        Err(_) => fs::rename(new, path),
    }
}

/// Removes a file, and what is beside it.
///
/// # Errors
/// What the system says. That there is none is as good.
pub fn remove(path: &Path) -> io::Result<()> {
    let gone = |path: &Path| match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    let beside = gone(&beside(path, "new"));
    gone(path).and(beside)
}

/// The same, and returns when it is on the disk.
///
/// # Errors
/// As [`write`].
pub fn write_durably(path: &Path, text: &Text) -> io::Result<()> {
    let new = beside(path, "new");
    let written = open(&new, Old::Truncated).and_then(|mut file| {
        file.write_all(&text.bytes)?;
        file.sync_all()
    });
    written.and_then(|()| fs::rename(&new, path)).inspect_err(|_| {
        let _ = fs::remove_file(&new);
    })?;
    let parent = path.parent().unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}

/// What becomes of what is in a file that is there.
#[derive(PartialEq, Eq)]
enum Old {
    Truncated,
    Overwritten,
}

fn open(path: &Path, old: Old) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(old == Old::Truncated).mode(0o600);
    // Nobody shall wait for the reader of a pipe that somebody put there.
    options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    options.open(path)
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".");
    name.push(ending);
    path.with_file_name(name)
}

/// Gives a file that is not used another name, under which somebody can look into it.
///
/// # Errors
/// What the system says.
pub fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let new = beside(path, &format!("bad-{}", now.as_secs()));
    fs::rename(path, &new)?;
    Ok(new)
}
