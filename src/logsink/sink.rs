//! From the pipe to the log.
//!
//! Where the log cannot be written (the disk is full), the process does not wait: a service that
//! stands still because of its log is worse than a gap in it. What is lost is counted, and the log
//! says so as soon as it can be written again. Whole lines are lost: it goes on with the beginning
//! of one.

use super::arguments::Rotation;
use super::log::{Incomplete, Log};
use super::{READY, reason, tell};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// As much as a pipe holds.
const BUFFER: usize = 64 * 1024;

/// The rest of a line has so much time to come before its begin is written.
const LULL: Duration = Duration::from_millis(20);

/// After a failure the log is tried again so much later.
const RETRY: Duration = Duration::from_secs(1);

/// Writes standard input to the log until its end.
///
/// # Errors
/// When the log cannot be opened, or there is nothing to read.
pub fn run(path: PathBuf, rotation: Option<Rotation>, copy: bool) -> io::Result<()> {
    let mut sink =
        Sink { log: Log::open(path, rotation)?, loss: None, copying: copy, stuck: false };
    tell(READY);
    let input = rustix::stdio::stdin();
    let mut pending = Pending { buffer: vec![0; BUFFER], len: 0, taken: 0 };
    loop {
        if let Some(limit) = sink.patience(&pending) {
            let limit = Timespec::try_from(limit).unwrap_or_default();
            if poll(&mut [PollFd::new(&input, PollFlags::IN)], Some(&limit)) == Ok(0) {
                // Nothing came: what there is may be all for long, and a loss is told before there
                // is more of it.
                sink.take(pending.take_all());
                if sink.loss.as_ref().is_some_and(|loss| !loss.in_line) {
                    sink.tell_loss();
                }
                continue;
            }
        }
        match rustix::io::read(input, pending.room()) {
            Ok(0) => break,
            Ok(count) => {
                sink.copy(pending.news(count));
                sink.take(pending.take_lines());
                pending.forget_taken();
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    sink.take(pending.take_all());
    sink.end();
    Ok(())
}

/// What was read and not written: the begin of a line. It waits a moment for the rest of it, so that
/// two who write to one file do not divide each other's lines.
struct Pending {
    buffer: Vec<u8>,
    len: usize,
    taken: usize,
}

impl Pending {
    fn room(&mut self) -> &mut [u8] {
        &mut self.buffer[self.len..]
    }

    /// So much was read.
    fn news(&mut self, count: usize) -> &[u8] {
        self.len += count;
        &self.buffer[self.len - count..self.len]
    }

    /// Whole lines, or all when there is no room for the end of the line.
    fn take_lines(&mut self) -> &[u8] {
        let end = self.buffer[..self.len].iter().rposition(|byte| *byte == b'\n');
        self.taken = match end {
            Some(end) => end + 1,
            None if self.len == self.buffer.len() => self.len,
            None => 0,
        };
        &self.buffer[..self.taken]
    }

    fn take_all(&mut self) -> &[u8] {
        let len = std::mem::take(&mut self.len);
        &self.buffer[..len]
    }

    fn forget_taken(&mut self) {
        self.buffer.copy_within(self.taken..self.len, 0);
        self.len -= std::mem::take(&mut self.taken);
    }
}

struct Sink {
    log: Log,
    loss: Option<Loss>,
    copying: bool,
    /// Whether it was told that the log cannot be rotated.
    stuck: bool,
}

/// What was not written since the last writing that succeeded.
struct Loss {
    error: io::Error,
    bytes: u64,
    lines: u64,
    /// The last line that was written has no end.
    torn: bool,
    /// The last line that was lost has no end yet.
    in_line: bool,
    next_try: Instant,
}

impl Loss {
    fn count(&mut self, bytes: &[u8]) {
        let Some(last) = bytes.last() else { return };
        self.in_line = *last != b'\n';
        self.bytes += bytes.len() as u64;
        self.lines += bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
    }

    fn text(&self) -> String {
        let begin = if self.torn { "\n" } else { "" };
        format!(
            "{begin}[provost: here {} bytes ({} lines) could not be written and are lost: {}]\n",
            self.bytes,
            self.lines,
            reason(&self.error)
        )
    }
}

impl Sink {
    /// How long to wait for more before something is to be done; None: for ever.
    fn patience(&self, pending: &Pending) -> Option<Duration> {
        let begun = (pending.len > 0).then_some(LULL);
        let told = self.loss.as_ref().filter(|loss| !loss.in_line);
        let told = told.map(|loss| loss.next_try.saturating_duration_since(Instant::now()));
        begun.into_iter().chain(told).min()
    }

    fn take(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let mut rest = bytes;
        if let Some(loss) = &mut self.loss {
            let early = Instant::now() < loss.next_try;
            // It goes on with a whole line.
            let end = match loss.in_line {
                true => bytes.iter().position(|byte| *byte == b'\n').map(|end| end + 1),
                false => Some(0),
            };
            let (lost, kept) = match end {
                Some(end) if !early => bytes.split_at(end),
                _ => (bytes, &bytes[..0]),
            };
            loss.count(lost);
            if early || end.is_none() {
                return;
            }
            if !self.tell_loss() {
                self.lose(kept);
                return;
            }
            rest = kept;
        }
        if let Err(Incomplete { written, error }) = self.log.append(rest) {
            let (torn, text) = (self.log.is_in_line(), reason(&error));
            tell(&format!(
                "the log cannot be written, and what comes is lost until it can: {text}"
            ));
            let next_try = Instant::now() + RETRY;
            self.loss = Some(Loss { error, bytes: 0, lines: 0, torn, in_line: torn, next_try });
            self.lose(&rest[written..]);
        }
        if let Some(error) = self.log.take_stuck()
            && !std::mem::replace(&mut self.stuck, true)
        {
            let text = reason(&error);
            tell(&format!("the log cannot be rotated, and grows beyond log.maxSize: {text}"));
        }
    }

    fn lose(&mut self, bytes: &[u8]) {
        if let Some(loss) = &mut self.loss {
            loss.count(bytes);
        }
    }

    /// Writes into the log what was lost; whether that was possible.
    fn tell_loss(&mut self) -> bool {
        let Some(loss) = &mut self.loss else { return true };
        let text = loss.text();
        match self.log.append(text.as_bytes()) {
            Ok(()) => {
                tell(&format!("the log is written again; {} bytes were lost", loss.bytes));
                self.loss = None;
                true
            }
            Err(Incomplete { written, error }) => {
                // Half a message is followed by a whole one.
                loss.torn |= written > 0 || self.log.is_in_line();
                loss.error = error;
                loss.next_try = Instant::now() + RETRY;
                false
            }
        }
    }

    /// It waits for whoever takes the copy: that the process waits then is what the journal does.
    fn copy(&mut self, bytes: &[u8]) {
        let mut at = 0;
        while self.copying && at < bytes.len() {
            match rustix::io::write(rustix::stdio::stdout(), &bytes[at..]) {
                Ok(count) => at += count,
                Err(Errno::INTR) => {}
                Err(error) => {
                    self.copying = false;
                    let text = reason(&error.into());
                    tell(&format!("the journal takes nothing any more: {text}"));
                }
            }
        }
    }

    fn end(&mut self) {
        if !self.tell_loss()
            && let Some(loss) = &self.loss
        {
            tell(&format!("{} bytes were lost: {}", loss.bytes, reason(&loss.error)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pending: &mut Pending, bytes: &[u8]) -> String {
        pending.room()[..bytes.len()].copy_from_slice(bytes);
        assert_eq!(pending.news(bytes.len()), bytes);
        let lines = String::from_utf8(pending.take_lines().to_vec()).unwrap();
        pending.forget_taken();
        lines
    }

    #[test]
    fn the_begin_of_a_line_waits_for_its_end_while_there_is_room() {
        let mut pending = Pending { buffer: vec![0; 8], len: 0, taken: 0 };
        assert_eq!(read(&mut pending, b"a\nb"), "a\n");
        assert_eq!(read(&mut pending, b"c"), "");
        assert_eq!(read(&mut pending, b"\nd"), "bc\n");
        assert_eq!(pending.take_all(), b"d");
        assert_eq!(pending.take_all(), b"");
        assert_eq!(read(&mut pending, b"1234567"), "");
        assert_eq!(read(&mut pending, b"8"), "12345678");
        assert_eq!(pending.len, 0);
    }
}
