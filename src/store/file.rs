//! One small file: written whole, and known to be whole when it is read.
//!
//! The first line says what it is: `provost KIND VERSION SHA256`, the digest being that of the rest,
//! which is JSON. A file is written beside its place and takes it in one step, so a reader sees the
//! old one or the new one.

use super::VERSION;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Larger ones are not ours. A plan may name a hundred thousand processes.
const LARGEST: u64 = 64 * 1024 * 1024;

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
    /// That an instance is no more.
    Gone,
    /// What came of a run, until that is told.
    Outcome,
    /// What operators stopped.
    Stops,
    /// A configuration that was accepted.
    Generation,
    /// What on disk is not to be applied.
    HeldOff,
    /// A configuration that waits to be confirmed.
    Checkpoint,
}

impl Kind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Kind::Boot => "boot",
            Kind::Whole => "whole",
            Kind::State => "state",
            Kind::Run => "run",
            Kind::Gone => "gone",
            Kind::Outcome => "outcome",
            Kind::Stops => "stops",
            Kind::Generation => "generation",
            Kind::HeldOff => "held-off",
            Kind::Checkpoint => "checkpoint",
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
    let body = serde_json::to_vec(value).unwrap_or_default();
    // What is kept has text keys and no value that JSON cannot hold.
    debug_assert!(!body.is_empty(), "a {} that JSON cannot hold", kind.as_str());
    let (head, digest) = head(kind, &body);
    let mut bytes = head.into_bytes();
    bytes.push(b'\n');
    bytes.extend(body);
    Text { bytes, digest }
}

/// A content as it is, with nothing that tells what it is.
pub(super) fn raw(content: &[u8]) -> Text {
    Text { bytes: content.to_vec(), digest: Sha256::digest(content).into() }
}

/// Puts a file together that people and their programs read too: it is JSON as a whole, with the
/// head as the first member and the value as the second, which is named as the kind.
pub fn encode_readable<T: Serialize>(kind: Kind, value: &T) -> Text {
    // As above.
    let body = serde_json::to_vec_pretty(value).unwrap_or_default();
    debug_assert!(!body.is_empty(), "a {} that JSON cannot hold", kind.as_str());
    let (head, digest) = head(kind, &body);
    let mut bytes = format!("{READABLE}{head}{}", between(kind)).into_bytes();
    bytes.extend(body);
    bytes.extend(READABLE_END);
    Text { bytes, digest }
}

const READABLE: &str = "{\"file\": \"";
const READABLE_END: &[u8] = b"}\n";

fn between(kind: Kind) -> String {
    format!("\",\n\"{}\": ", kind.as_str())
}

fn head(kind: Kind, body: &[u8]) -> (String, [u8; 32]) {
    let digest: [u8; 32] = Sha256::digest(body).into();
    (format!("provost {} {VERSION} {}", kind.as_str(), hex(&digest)), digest)
}

pub(super) fn hex(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] =
        ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(DIGITS[usize::from(byte >> 4)]);
        text.push(DIGITS[usize::from(byte & 0xf)]);
    }
    text
}

/// Takes a file apart.
///
/// # Errors
/// When anything about it is not as it was written.
pub fn decode<T: DeserializeOwned>(bytes: &[u8], kind: Kind) -> Result<T, ReadError> {
    let end = bytes.iter().position(|b| *b == b'\n').ok_or_else(|| damaged("it has no end"))?;
    value(digest(&bytes[..end], kind)?, &bytes[end + 1..])
}

/// Takes a file of [`encode_readable`] apart.
///
/// # Errors
/// As [`decode`].
pub fn decode_readable<T: DeserializeOwned>(bytes: &[u8], kind: Kind) -> Result<T, ReadError> {
    let inner = bytes.strip_prefix(READABLE.as_bytes());
    let inner = inner.ok_or_else(|| damaged("its head is not ours"))?;
    let end = inner.iter().position(|b| *b == b'"').ok_or_else(|| damaged("it has no end"))?;
    let (head, rest) = inner.split_at(end);
    // First: what follows may be another in a newer version.
    let digest = digest(head, kind)?;
    let body = rest.strip_prefix(between(kind).as_bytes());
    let body = body.and_then(|body| body.strip_suffix(READABLE_END));
    value(digest, body.ok_or_else(|| damaged("it has no end"))?)
}

pub(super) fn damaged(why: &str) -> ReadError {
    ReadError::Damaged(why.to_owned())
}

/// The digest that a head names, when it is one of this kind and of a version that is known.
fn digest(head: &[u8], kind: Kind) -> Result<&str, ReadError> {
    let head = std::str::from_utf8(head).map_err(|_| damaged("its head is no text"))?;
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
        0 => Err(damaged("it has no version")),
        1..=VERSION => Ok(digest.unwrap_or_default()),
        newer => Err(ReadError::Newer(newer)),
    }
}

fn value<T: DeserializeOwned>(digest: &str, body: &[u8]) -> Result<T, ReadError> {
    if digest != hex(&Sha256::digest(body)) {
        return Err(damaged("it is not as it was written"));
    }
    json(body)
}

/// What is in a text that is as it was written.
pub(super) fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, ReadError> {
    serde_json::from_slice(body).map_err(|error| ReadError::Damaged(error.to_string()))
}

/// Reads a file.
///
/// # Errors
/// When there is none, or it is not as it was written.
pub fn read<T: DeserializeOwned>(path: &Path, kind: Kind) -> Result<T, ReadError> {
    decode(&bytes(path)?, kind)
}

/// All that is in a file.
///
/// # Errors
/// When there is none, it is no file, or it cannot be read.
pub fn bytes(path: &Path) -> Result<Vec<u8>, ReadError> {
    all(open(path, OpenOptions::new().read(true)), LARGEST).map(|(_, bytes)| bytes)
}

/// Opens what is there, but nothing by way of a link, and without waiting for anybody.
pub(super) fn open(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)
}

/// What was opened, and all that is in it, if that is not too much.
pub(super) fn all(opened: io::Result<File>, largest: u64) -> Result<(File, Vec<u8>), ReadError> {
    let mut file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(ReadError::Missing),
        Err(error) => return Err(ReadError::Io(error)),
    };
    let found = file.metadata().map_err(ReadError::Io)?;
    if !found.is_file() {
        return Err(damaged("it is no file"));
    }
    if found.len() > largest {
        return Err(damaged("it is too large"));
    }
    let mut bytes = Vec::new();
    (&mut file).take(largest).read_to_end(&mut bytes).map_err(ReadError::Io)?;
    Ok((file, bytes))
}

/// Writes a file whole, or not at all.
///
/// # Errors
/// What the system says; the file is as it was then.
pub fn write(path: &Path, text: &Text) -> io::Result<()> {
    write_with(path, text, |_| Ok(()))
}

fn write_with(
    path: &Path,
    text: &Text,
    finish: impl FnOnce(&File) -> io::Result<()>,
) -> io::Result<()> {
    let new = beside(path, "new");
    let written = create(&new).and_then(|mut file| {
        file.write_all(&text.bytes)?;
        finish(&file)
    });
    written.and_then(|()| fs::rename(&new, path)).inspect_err(|_| {
        // It may not be there; and it is replaced the next time.
        let _ = fs::remove_file(&new);
    })
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

/// Removes what somebody left beside a file who died while writing it.
pub(super) fn remove_beside(path: &Path) {
    let _ = fs::remove_file(beside(path, "new"));
}

/// The same as [`remove`], and returns when it is on the disk.
///
/// # Errors
/// As [`remove`].
pub(super) fn remove_durably(path: &Path) -> io::Result<()> {
    remove(path)?;
    sync_directory(path.parent().unwrap_or(Path::new(".")))
}

/// The same as [`write`], and returns when it is on the disk.
///
/// # Errors
/// As [`write`].
pub fn write_durably(path: &Path, text: &Text) -> io::Result<()> {
    write_with(path, text, File::sync_all)?;
    sync_directory(path.parent().unwrap_or(Path::new(".")))
}

/// Returns when the names in a directory are on the disk.
///
/// # Errors
/// What the system says.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Makes a file, or empties the one that is there.
pub(super) fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(true).mode(0o600);
    let file = open(path, &mut options)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other(format!("{} is no file", path.display())));
    }
    Ok(file)
}

pub(super) fn beside(path: &Path, ending: &str) -> PathBuf {
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
    let new = aside(path);
    fs::rename(path, &new)?;
    Ok(new)
}

/// The name that a file gets which is not used: one that nothing has.
pub(super) fn aside(path: &Path) -> PathBuf {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let mut names = (now.as_secs()..).map(|second| beside(path, &format!("bad-{second}")));
    names.find(|name| fs::symlink_metadata(name).is_err()).unwrap_or_default()
}
