//! Shows the end of a log and what is added to it, through rotations: each byte once and in order.
//!
//! A writer never writes to a file that does not have the name any more. So when the name means
//! another file, the rest of the old one is read, and then the one that came after it: that with
//! the next smaller number, which may not be the newest.

use super::files::{self, Identity, numbered};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::FlockOperation;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

const BUFFER: usize = 64 * 1024;

/// Shows the log on standard output: to its end, or until nobody reads that or the daemon ends.
///
/// # Errors
/// When the file or its directory cannot be read.
pub fn run(path: &Path, lines: Option<u64>, follow: bool) -> io::Result<()> {
    // Watched first, so that nothing is missed between reading and waiting.
    let mut watch = Watch::new(path)?;
    let file = match lines {
        None => open_current(path)?,
        Some(lines) => last_lines(path, lines)?,
    };
    watch.look_at(&file)?;
    let mut follower = Follower { path, file, older: None, buffer: vec![0; BUFFER] };
    follower.note_older()?;
    loop {
        let shown = follower.show_rest().and_then(|()| follower.is_rotated());
        match shown {
            Ok(true) => {
                // What was written between the reading and the rotation.
                match follower.show_rest().and_then(|()| follower.next()) {
                    Ok(true) => {
                        watch.look_at(&follower.file)?;
                        continue;
                    }
                    Ok(false) => {}
                    Err(error) => return end(error),
                }
            }
            Ok(false) => {}
            Err(error) => return end(error),
        }
        if !follow || !watch.wait()? {
            return Ok(());
        }
    }
}

/// A reader that leaves is how this ends.
fn end(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::BrokenPipe { Ok(()) } else { Err(error) }
}

/// Tells when the file is written to, or another gets its name.
struct Watch {
    events: OwnedFd,
    file: Option<i32>,
}

impl Watch {
    fn new(path: &Path) -> io::Result<Watch> {
        let events = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let directory = path.parent().filter(|path| !path.as_os_str().is_empty());
        let what = WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::ONLYDIR;
        inotify::add_watch(&events, directory.unwrap_or(Path::new(".")), what)?;
        Ok(Watch { events, file: None })
    }

    /// This is the file that is read now.
    fn look_at(&mut self, file: &File) -> io::Result<()> {
        if let Some(old) = self.file.take() {
            // It is gone by itself when its file is.
            let _ = inotify::remove_watch(&self.events, old);
        }
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        self.file = Some(inotify::add_watch(&self.events, path, WatchFlags::MODIFY)?);
        Ok(())
    }

    /// Waits for a change. False: whoever reads is gone, or the daemon is.
    fn wait(&self) -> io::Result<bool> {
        let (input, output) = (rustix::stdio::stdin(), rustix::stdio::stdout());
        let mut polled = [
            PollFd::new(&self.events, PollFlags::IN),
            PollFd::new(&input, PollFlags::IN),
            // Nothing is asked: that the other end is closed is always told.
            PollFd::new(&output, PollFlags::empty()),
        ];
        match poll(&mut polled, None) {
            Err(Errno::INTR) => return Ok(true),
            result => result?,
        };
        if !polled[1].revents().is_empty() || !polled[2].revents().is_empty() {
            return Ok(false);
        }
        // Which change it was does not matter.
        let mut buffer = [0; 4096];
        while matches!(rustix::io::read(&self.events, &mut buffer), Ok(1..)) {}
        Ok(true)
    }
}

struct Follower<'a> {
    path: &'a Path,
    file: File,
    /// The file before it. While it is open nothing else gets its identity, so it tells whether this
    /// one was rotated away, which takes the older one first, or was removed.
    older: Option<File>,
    buffer: Vec<u8>,
}

impl Follower<'_> {
    fn show_rest(&mut self) -> io::Result<()> {
        // A file that was emptied is read from its beginning.
        let position = self.file.stream_position()?;
        if self.file.metadata()?.len() < position && !self.is_rotated()? {
            self.file.rewind()?;
        }
        loop {
            let count = self.file.read(&mut self.buffer)?;
            if count == 0 {
                return Ok(());
            }
            show(&self.buffer[..count])?;
        }
    }

    fn is_rotated(&self) -> io::Result<bool> {
        Ok(Identity::at(self.path)? != Some(Identity::of(&self.file)?))
    }

    /// Goes on to the file that came after this one. False: it is not there yet.
    fn next(&mut self) -> io::Result<bool> {
        // Whoever rotates holds the lock until what belongs to the next file has left this one.
        if rustix::fs::flock(&self.file, FlockOperation::LockShared).is_ok() {
            rustix::fs::flock(&self.file, FlockOperation::Unlock)?;
        }
        let moved = self.file.stream_position()?.saturating_sub(self.file.metadata()?.len());
        let own = Identity::of(&self.file)?;
        loop {
            let before = numbers(self.path)?;
            let newer = match before.iter().position(|(_, identity)| *identity == own) {
                Some(at) => before[..at].last(),
                // It was rotated out of the last number, or removed.
                None => {
                    let older = self.older.as_ref().and_then(|file| Identity::of(file).ok());
                    let at = before.iter().position(|(_, identity)| Some(*identity) == older);
                    before[..at.unwrap_or(before.len())].last()
                }
            };
            let Some(&(number, newer)) = newer else { return Ok(false) };
            let opened = files::open_to_read(&numbered(self.path, number));
            // Nothing moved meanwhile: it is the one that was meant. (The numbers of files that are
            // removed are used again, so a name may lead to another all the same.)
            let meant = |file: &File| Identity::of(file).is_ok_and(|identity| identity == newer);
            let file = match opened {
                Ok(file) if meant(&file) && before == numbers(self.path)? => file,
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => continue,
            };
            if before.iter().all(|(_, identity)| *identity != own) && number > 0 {
                show(
                    b"[provost: the log was rotated faster than it was read; lines are missing]\n",
                )?;
            }
            self.file = file;
            // A line that did not fit into the old file is in the new one from its beginning.
            self.file.seek(SeekFrom::Start(moved))?;
            self.note_older()?;
            return Ok(true);
        }
    }

    fn note_older(&mut self) -> io::Result<()> {
        let own = Identity::of(&self.file)?;
        let there = numbers(self.path)?;
        // Where it is not there any more, all that is left may be newer.
        let mut older = there.iter().skip_while(|(_, identity)| *identity != own).skip(1);
        self.older = older.next().and_then(|(number, identity)| {
            let file = files::open_to_read(&numbered(self.path, *number)).ok()?;
            (Identity::of(&file).ok()? == *identity).then_some(file)
        });
        Ok(())
    }
}

/// The file that is written, which is missing for a moment while it is rotated.
fn open_current(path: &Path) -> io::Result<File> {
    /// A moment is over by then; one that was removed by hand does not come back.
    const MOMENT: Duration = Duration::from_secs(1);
    let begun = Instant::now();
    loop {
        match files::open_to_read(path) {
            Err(error)
                if error.kind() == io::ErrorKind::NotFound
                    && begun.elapsed() < MOMENT
                    && Identity::at(&numbered(path, 1))?.is_some() =>
            {
                std::thread::yield_now();
            }
            opened => return opened,
        }
    }
}

/// The file in which the last lines begin, at their beginning.
fn last_lines(path: &Path, lines: u64) -> io::Result<File> {
    loop {
        let before = numbers(path)?;
        let mut wanted = lines;
        let mut first = None;
        for (number, _) in &before {
            // One that is rotated away meanwhile is told below.
            let Ok(mut file) = files::open_to_read(&numbered(path, *number)) else { break };
            wanted -= seek_back(&mut file, wanted)?;
            first = Some(file);
            if wanted == 0 {
                break;
            }
        }
        if before == numbers(path)? {
            return first.map_or_else(|| open_current(path), Ok);
        }
    }
}

/// Goes to where the so many last lines begin, and tells how many there are.
fn seek_back(file: &mut File, wanted: u64) -> io::Result<u64> {
    let mut buffer = vec![0; BUFFER];
    let end = file.seek(SeekFrom::End(0))?;
    let (mut found, mut position) = (0, end);
    while position > 0 && found < wanted {
        let length = position.min(BUFFER as u64);
        position -= length;
        let bytes = &mut buffer[..usize::try_from(length).unwrap_or(BUFFER)];
        file.read_exact_at(bytes, position)?;
        for (at, byte) in bytes.iter().enumerate().rev() {
            let after = position + at as u64 + 1;
            // What ends the last line begins no other.
            if *byte == b'\n' && after != end {
                found += 1;
                if found == wanted {
                    file.seek(SeekFrom::Start(after))?;
                    return Ok(found);
                }
            }
        }
    }
    if wanted == 0 {
        return Ok(0);
    }
    file.rewind()?;
    Ok(found + u64::from(end > 0))
}

/// The files there are, by their numbers; the one that is written first.
fn numbers(path: &Path) -> io::Result<Vec<(u32, Identity)>> {
    // One gap may be left by a rotation that was interrupted or is under way.
    let mut found = Vec::new();
    let mut missing = 0;
    for number in 0.. {
        match Identity::at(&numbered(path, number))? {
            Some(identity) => {
                found.push((number, identity));
                missing = 0;
            }
            None => missing += 1,
        }
        if missing > 2 {
            break;
        }
    }
    Ok(found)
}

fn show(mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(rustix::stdio::stdout(), bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(files: &[(&str, &str)], lines: u64) -> String {
        let directory = tempfile::tempdir().unwrap();
        for (name, content) in files {
            std::fs::write(directory.path().join(name), content).unwrap();
        }
        let path = directory.path().join("a");
        let mut file = last_lines(&path, lines).unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn the_last_lines_begin_where_so_many_are_left() {
        let one = [("a", "1\n2\n3\n")];
        for (lines, expected) in [(0, ""), (1, "3\n"), (2, "2\n3\n"), (3, "1\n2\n3\n")] {
            assert_eq!(shown(&one, lines), expected, "{lines}");
        }
        assert_eq!(shown(&one, 9), "1\n2\n3\n");
        assert_eq!(shown(&[("a", "1\n2")], 1), "2");
        assert_eq!(shown(&[("a", "")], 5), "");
        let long = "x".repeat(3 * BUFFER);
        assert_eq!(shown(&[("a", &format!("1\n{long}\n"))], 1), format!("{long}\n"));
    }

    #[test]
    fn they_may_begin_in_a_rotated_file() {
        let files = [("a", "5\n"), ("a.1", "3\n4\n"), ("a.2", "1\n2\n")];
        assert_eq!(shown(&files, 1), "5\n");
        assert_eq!(shown(&files, 2), "4\n");
        assert_eq!(shown(&files, 4), "2\n");
        assert_eq!(shown(&files, 9), "1\n2\n");
        // Just rotated: there is none that is written.
        assert_eq!(shown(&files[1..], 1), "4\n");
    }
}
