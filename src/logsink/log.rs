//! The log file that is written: appended to, rotated, shared with other writers.
//!
//! A run that was left over and its successor may write to the same file, each through a writer of
//! its own. So each writing holds the lock of the file (flock(2)), and begins by comparing what is
//! open with what has the name now: a file that was rotated away by another is not written any more.
//! Whoever holds the lock of the file that has the name is the one that may rotate.

use super::arguments::Rotation;
use super::files::{self, Identity};
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// How a writing came out that was not complete.
#[derive(Debug)]
pub struct Incomplete {
    /// So many bytes were written.
    pub written: usize,
    /// Why not more.
    pub error: io::Error,
}

/// See the module documentation.
pub struct Log {
    path: PathBuf,
    rotation: Option<Rotation>,
    file: File,
    /// Where the file ended after our last writing.
    end: u64,
    /// How many bytes there, of ours, are a line that has not ended.
    open: u64,
    /// Why it cannot be rotated, where it cannot.
    stuck: Option<io::Error>,
}

/// The next thing to do with bytes.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Write(usize),
    /// Begin a new file, and take the so many last bytes of this one along.
    Rotate {
        carry: u64,
    },
}

/// A file is rotated between two lines. A line that would not fit is begun again in the next file;
/// only one that is longer than a whole file is divided.
fn next_step(bytes: &[u8], size: u64, open: u64, max_size: u64) -> Step {
    let room = usize::try_from(max_size.saturating_sub(size)).unwrap_or(usize::MAX);
    if bytes.len() <= room {
        return Step::Write(bytes.len());
    }
    if let Some(end) = bytes[..room].iter().rposition(|byte| *byte == b'\n') {
        return Step::Write(end + 1);
    }
    match (open == size, room) {
        (true, 1..) => Step::Write(room),
        (true, 0) => Step::Rotate { carry: 0 },
        (false, _) => Step::Rotate { carry: open },
    }
}

impl Log {
    /// Opens the file.
    ///
    /// # Errors
    /// When it cannot be opened, or is to be rotated and is no regular file.
    pub fn open(path: PathBuf, rotation: Option<Rotation>) -> io::Result<Log> {
        let file = files::open_to_append(&path)?;
        if rotation.is_some() && !file.metadata()?.is_file() {
            return Err(io::Error::other("it is no regular file, and only such are rotated"));
        }
        // A device or a fifo, opened without waiting, shall be waited for from here on.
        rustix::fs::fcntl_setfl(&file, rustix::fs::OFlags::APPEND)?;
        Ok(Log { path, rotation, file, end: 0, open: 0, stuck: None })
    }

    /// Writes bytes, and rotates where it has to be.
    ///
    /// # Errors
    /// When not all of it could be written.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), Incomplete> {
        let mut written = 0;
        let mut write_all = || {
            self.lock()?;
            while written < bytes.len() {
                written += self.append_some(&bytes[written..])?;
            }
            Ok(())
        };
        let result = write_all().map_err(|error| Incomplete { written, error });
        // Nobody waits for the lock of a file that is not there any more.
        let _ = rustix::fs::flock(&self.file, FlockOperation::Unlock);
        result
    }

    /// Whether the last line that was written has not ended.
    #[must_use]
    pub fn is_in_line(&self) -> bool {
        self.open > 0
    }

    /// Why it could not be rotated, if that is news.
    pub fn take_stuck(&mut self) -> Option<io::Error> {
        self.stuck.take()
    }

    fn append_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let size = self.file.metadata()?.len();
        if self.end != size {
            self.open = 0;
        }
        let Some(rotation) = self.rotation else { return self.write(bytes, size) };
        match next_step(bytes, size, self.open, rotation.max_size) {
            Step::Write(count) => self.write(&bytes[..count], size),
            Step::Rotate { carry } => match self.rotate(rotation, size, carry) {
                Ok(()) => Ok(0),
                // Too large a file is better than none.
                Err(error) if self.is_current()? => {
                    self.stuck = Some(error);
                    let size = self.file.metadata()?.len();
                    self.write(bytes, size)
                }
                Err(error) => Err(error),
            },
        }
    }

    fn write(&mut self, bytes: &[u8], size: u64) -> io::Result<usize> {
        let count = match rustix::io::write(&self.file, bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Err(Errno::INTR) => 0,
            written => written?,
        };
        self.end = size + count as u64;
        match bytes[..count].iter().rposition(|byte| *byte == b'\n') {
            Some(end) => self.open = (count - end - 1) as u64,
            None => self.open += count as u64,
        }
        Ok(count)
    }

    /// Locks the file that has the name now.
    fn lock(&mut self) -> io::Result<()> {
        loop {
            match rustix::fs::flock(&self.file, FlockOperation::LockExclusive) {
                Err(Errno::INTR) => continue,
                // A device, or a file system without locks: there is only hope then.
                Err(Errno::OPNOTSUPP | Errno::NOLCK | Errno::INVAL | Errno::NOSYS) | Ok(()) => {}
                Err(error) => return Err(error.into()),
            }
            if self.is_current()? {
                return Ok(());
            }
            self.file = files::open_to_append(&self.path)?;
            (self.end, self.open) = (0, 0);
        }
    }

    fn is_current(&self) -> io::Result<bool> {
        Ok(Identity::at(&self.path)? == Some(Identity::of(&self.file)?))
    }

    /// Goes on in a new file. The old one stays locked until all that moves has moved, so that
    /// whoever waits for its lock sees it as it will stay.
    fn rotate(&mut self, rotation: Rotation, size: u64, carry: u64) -> io::Result<()> {
        // Without the right to read, a line is divided.
        let old = if carry > 0 { files::open_to_read(&self.path).ok() } else { None };
        files::shift(&self.path, rotation)?;
        let file = files::open_to_append(&self.path)?;
        let old_lock = std::mem::replace(&mut self.file, file);
        (self.end, self.open) = (0, 0);
        self.lock()?;
        if let Some(old) = old {
            let mut start = size - carry;
            let mut buffer = vec![0; 16 * 1024];
            while start < size {
                let count = old.read_at(&mut buffer, start)?;
                if count == 0 {
                    break;
                }
                let mut at = 0;
                while at < count {
                    let end = self.file.metadata()?.len();
                    at += self.write(&buffer[at..count], end)?;
                }
                start += count as u64;
            }
            // Only now: what ends in between has it twice and not never.
            old_lock.set_len(size - carry)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn a_file_ends_between_two_lines_where_it_can() {
        use Step::{Rotate, Write};
        for (bytes, size, open, step) in [
            (&b"abc\n"[..], 0, 0, Write(4)),
            (b"abc\n", 6, 0, Write(4)),
            (b"abc\nde\n", 5, 0, Write(4)),
            // Not one line fits.
            (b"abc\n", 8, 0, Rotate { carry: 0 }),
            (b"abc\n", 10, 0, Rotate { carry: 0 }),
            (b"abc\n", 12, 0, Rotate { carry: 0 }),
            // The line began earlier in the file, and goes along.
            (b"abc\n", 8, 3, Rotate { carry: 3 }),
            (b"abc", 10, 9, Rotate { carry: 9 }),
            // It is longer than a whole file.
            (b"0123456789ab", 0, 0, Write(10)),
            (b"789ab", 7, 7, Write(3)),
            (b"ab", 10, 10, Rotate { carry: 0 }),
        ] {
            assert_eq!(next_step(bytes, size, open, 10), step, "{bytes:?} {size} {open}");
        }
    }

    fn log(directory: &Path, max_size: u64) -> Log {
        let rotation = Some(Rotation { max_size, max_files: 9 });
        Log::open(directory.join("a"), rotation).unwrap()
    }

    fn content(directory: &Path, name: &str) -> String {
        std::fs::read_to_string(directory.join(name)).unwrap_or_default()
    }

    #[test]
    fn a_line_in_pieces_stays_whole() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = log(directory.path(), 10);
        for piece in ["12345\n", "ab", "cd", "efg", "\nx\n"] {
            log.append(piece.as_bytes()).unwrap();
        }
        assert_eq!(content(directory.path(), "a.1"), "12345\n");
        assert_eq!(content(directory.path(), "a"), "abcdefg\nx\n");
    }

    #[test]
    fn a_line_longer_than_a_file_is_divided_and_all_there() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = log(directory.path(), 10);
        log.append(b"begin\n").unwrap();
        for _ in 0..25 {
            log.append(b"x").unwrap();
        }
        log.append(b"\nend\n").unwrap();
        let files: Vec<_> =
            ["a.3", "a.2", "a.1", "a"].iter().map(|n| content(directory.path(), n)).collect();
        assert_eq!(files, ["begin\n", "xxxxxxxxxx", "xxxxxxxxxx", "xxxxx\nend\n"]);
    }

    #[test]
    fn a_file_that_is_too_large_already_is_rotated_first() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("a"), "older and longer\n").unwrap();
        log(directory.path(), 10).append(b"new\n").unwrap();
        assert_eq!(content(directory.path(), "a.1"), "older and longer\n");
        assert_eq!(content(directory.path(), "a"), "new\n");
    }

    #[test]
    fn two_writers_share_a_file_and_lose_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let (mut one, mut two) = (log(directory.path(), 20), log(directory.path(), 20));
        for n in 0..9 {
            one.append(format!("one {n}\n").as_bytes()).unwrap();
            two.append(format!("two {n}\n").as_bytes()).unwrap();
        }
        let mut all = String::new();
        for number in (0..10).rev() {
            let path = files::numbered(Path::new("a"), number);
            all += &content(directory.path(), path.to_str().unwrap());
        }
        let expected: String = (0..9).map(|n| format!("one {n}\ntwo {n}\n")).collect();
        assert_eq!(all, expected);
    }

    #[test]
    fn a_file_that_is_taken_away_is_made_again() {
        let directory = tempfile::tempdir().unwrap();
        let deep = directory.path().join("deep");
        let mut log = Log::open(deep.join("a"), None).unwrap();
        log.append(b"one\n").unwrap();
        std::fs::remove_dir_all(&deep).unwrap();
        log.append(b"two\n").unwrap();
        assert_eq!(content(&deep, "a"), "two\n");
    }

    #[test]
    fn a_file_that_cannot_be_rotated_grows_and_that_is_said() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = log(directory.path(), 10);
        log.append(b"12345678\n").unwrap();
        // A directory cannot be replaced by a file.
        for number in 1..=9 {
            std::fs::create_dir_all(files::numbered(&directory.path().join("a"), number)).unwrap();
        }
        std::fs::write(directory.path().join("a.9/full"), "").unwrap();
        log.append(b"abc\n").unwrap();
        assert!(log.take_stuck().is_some());
        assert!(log.take_stuck().is_none());
        assert_eq!(content(directory.path(), "a"), "12345678\nabc\n");
    }
}
