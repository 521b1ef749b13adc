//! Lines out of streams: each stream has a thread of its own, because it may be a file, a pipe or a
//! socket, and only a plain read works for all of them.

use rustix::event::{PollFd, PollFlags, Timespec};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// What a stream says.
#[derive(Debug)]
pub enum Line {
    /// A line of before.
    Old {
        /// Which stream.
        source: usize,
        /// The line without its end; not always UTF-8.
        text: Vec<u8>,
    },
    /// There are no more lines of before.
    CaughtUp {
        /// Which stream.
        source: usize,
    },
    /// A line that came since.
    New {
        /// Which stream.
        source: usize,
        /// The line without its end; not always UTF-8.
        text: Vec<u8>,
    },
    /// It cannot be read.
    Failed {
        /// Which stream.
        source: usize,
        /// Why.
        error: io::Error,
    },
}

/// A line that is longer is cut into several: a process that never ends a line must not fill memory.
const LONGEST: usize = 64 * 1024;

/// When nothing has come for so long, what came before counts as what was written before: a stream
/// begins with the lines that were asked for, or with fewer, and does not say where the past ends.
const LULL: Timespec = Timespec { tv_sec: 0, tv_nsec: 150_000_000 };

/// Lines on their way. Who reads too fast waits for whoever shows them.
const QUEUE: usize = 256;

/// Reads all streams until their ends. Each begins with at most so many lines of before.
#[must_use]
pub fn read(streams: Vec<OwnedFd>, old: u64) -> Receiver<Line> {
    let (lines, receiver) = channel(QUEUE);
    for (source, stream) in streams.into_iter().enumerate() {
        let lines = lines.clone();
        std::thread::spawn(move || {
            let mut reader = Reader { source, lines, partial: Vec::new(), old: Some(old) };
            // Nobody listens any more only when the command ends.
            let _ = reader.all(&stream);
        });
    }
    receiver
}

/// Nobody listens any more.
struct Unheard;

struct Reader {
    source: usize,
    lines: Sender<Line>,
    partial: Vec<u8>,
    /// How many lines of before there may still be; None when they are over.
    old: Option<u64>,
}

impl Reader {
    fn all(&mut self, stream: &OwnedFd) -> Result<(), Unheard> {
        let source = self.source;
        let mut buffer = vec![0; LONGEST];
        loop {
            if self.old.is_some_and(|left| left == 0 || lull(stream)) {
                self.catch_up()?;
            }
            match rustix::io::read(stream, &mut buffer) {
                Ok(0) => break,
                Ok(count) => self.take(&buffer[..count])?,
                Err(rustix::io::Errno::INTR) => {}
                // The other end of a socket may have been made so that it does not wait.
                Err(rustix::io::Errno::AGAIN) => {
                    let _ = wait(stream, None);
                }
                Err(error) => return self.send(Line::Failed { source, error: error.into() }),
            }
        }
        if !self.partial.is_empty() {
            let text = std::mem::take(&mut self.partial);
            self.line(text)?;
        }
        self.catch_up()
    }

    fn take(&mut self, mut bytes: &[u8]) -> Result<(), Unheard> {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let mut text = std::mem::take(&mut self.partial);
            text.extend_from_slice(&bytes[..end]);
            self.line(text)?;
            bytes = &bytes[end + 1..];
        }
        self.partial.extend_from_slice(bytes);
        if self.partial.len() >= LONGEST {
            let text = std::mem::take(&mut self.partial);
            self.line(text)?;
        }
        Ok(())
    }

    fn line(&mut self, text: Vec<u8>) -> Result<(), Unheard> {
        let source = self.source;
        match &mut self.old {
            Some(left @ 1..) => {
                *left -= 1;
                self.send(Line::Old { source, text })
            }
            _ => {
                self.catch_up()?;
                self.send(Line::New { source, text })
            }
        }
    }

    fn catch_up(&mut self) -> Result<(), Unheard> {
        if self.old.take().is_none() {
            return Ok(());
        }
        self.send(Line::CaughtUp { source: self.source })
    }

    fn send(&self, line: Line) -> Result<(), Unheard> {
        self.lines.blocking_send(line).map_err(|_| Unheard)
    }
}

/// Whether nothing comes for a while.
fn lull(stream: &OwnedFd) -> bool {
    matches!(wait(stream, Some(&LULL)), Ok(0))
}

fn wait(stream: &OwnedFd, limit: Option<&Timespec>) -> rustix::io::Result<usize> {
    rustix::event::poll(&mut [PollFd::new(&stream.as_fd(), PollFlags::IN)], limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(mut lines: Receiver<Line>) -> Vec<String> {
        let mut all = Vec::new();
        while let Some(line) = lines.blocking_recv() {
            all.push(match line {
                Line::Old { source, text } => {
                    format!("old {source} {}", String::from_utf8_lossy(&text))
                }
                Line::New { source, text } => {
                    format!("new {source} {}", String::from_utf8_lossy(&text))
                }
                Line::CaughtUp { source } => format!("caught up {source}"),
                Line::Failed { source, error } => format!("failed {source} {error}"),
            });
        }
        all
    }

    #[test]
    fn a_file_is_all_past() {
        let mut file = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut file, b"one\ntwo \xff\nlast without end").unwrap();
        io::Seek::rewind(&mut file).unwrap();
        assert_eq!(
            drain(read(vec![file.into()], 50)),
            ["old 0 one", "old 0 two \u{fffd}", "old 0 last without end", "caught up 0"]
        );
    }

    #[test]
    fn what_comes_after_a_lull_is_new() {
        let (ours, theirs) = io::pipe().unwrap();
        io::Write::write_all(&mut &theirs, b"before\n").unwrap();
        let mut lines = read(vec![ours.into()], 50);
        assert!(matches!(lines.blocking_recv(), Some(Line::Old { .. })));
        assert!(matches!(lines.blocking_recv(), Some(Line::CaughtUp { source: 0 })));
        io::Write::write_all(&mut &theirs, b"after\n").unwrap();
        drop(theirs);
        assert_eq!(drain(lines), ["new 0 after"]);
    }

    #[test]
    fn an_endless_line_is_cut() {
        let mut file = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut file, &vec![b'x'; 3 * LONGEST + 1]).unwrap();
        io::Seek::rewind(&mut file).unwrap();
        let lines = drain(read(vec![file.into()], 50));
        assert_eq!(lines.len(), 5, "four pieces and the end");
    }
}
