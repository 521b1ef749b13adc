//! The last of what an instance wrote, kept in memory so that it can be read where there is neither
//! journal nor file.

use crate::backend::LogRequest;
use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::sync::watch;

/// How much is kept, in bytes.
pub const CAPACITY: usize = 64 * 1024;

/// The last bytes of one instance, over all its runs.
pub struct Ring {
    bytes: Mutex<VecDeque<u8>>,
    /// How much was ever written: the position after the last byte.
    written: watch::Sender<u64>,
}

impl Default for Ring {
    fn default() -> Ring {
        Ring { bytes: Mutex::default(), written: watch::Sender::new(0) }
    }
}

impl Ring {
    /// Takes in what was written.
    pub fn push(&self, bytes: &[u8]) {
        let mut kept = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let news = &bytes[bytes.len().saturating_sub(CAPACITY)..];
        let excess = (kept.len() + news.len()).saturating_sub(CAPACITY);
        kept.drain(..excess);
        kept.extend(news);
        self.written.send_modify(|written| *written += bytes.len() as u64);
    }

    /// All that is kept.
    #[must_use]
    pub fn kept(&self) -> Vec<u8> {
        self.since(0).1
    }

    /// What there is from a position on: how much of it was lost already, and the bytes.
    fn since(&self, position: u64) -> (u64, Vec<u8>) {
        let kept = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let first = *self.written.borrow() - kept.len() as u64;
        let lost = first.saturating_sub(position);
        let skip = usize::try_from(position.saturating_sub(first)).unwrap_or(usize::MAX);
        (lost, kept.iter().skip(skip).copied().collect())
    }

    /// A descriptor to read from: what is kept and, if asked, what follows. Whoever reads it slowly
    /// holds up nobody, and is told what was lost.
    ///
    /// # Errors
    /// When no descriptor can be made.
    pub fn open(self: &Arc<Ring>, request: LogRequest) -> io::Result<OwnedFd> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let ours = UnixStream::from_std(ours)?;
        let ring = self.clone();
        tokio::spawn(async move {
            // A reader that goes away is no error.
            let _ = ring.feed(ours, request).await;
        });
        Ok(theirs.into())
    }

    async fn feed(&self, mut reader: UnixStream, request: LogRequest) -> io::Result<()> {
        let mut written = self.written.subscribe();
        let (mut position, bytes) = self.beginning();
        reader.write_all(last_lines(&bytes, request.lines)).await?;
        if !request.follow {
            return Ok(());
        }
        loop {
            tokio::select! {
                // The other end is ours.
                changed = written.changed() => if changed.is_err() { return Ok(()) },
                // Nobody writes to us: it becomes readable when the other side is closed.
                closed = reader.readable() => return closed,
            }
            let (lost, bytes) = self.since(position);
            position += lost + bytes.len() as u64;
            if lost > 0 {
                let marker = format!("\n[{lost} bytes were not read in time and are lost]\n");
                reader.write_all(marker.as_bytes()).await?;
            }
            reader.write_all(&bytes).await?;
        }
    }

    /// What is kept, from the first whole line on, and the position after it.
    fn beginning(&self) -> (u64, Vec<u8>) {
        let (lost, mut bytes) = self.since(0);
        let position = lost + bytes.len() as u64;
        if lost > 0
            && let Some(end) = bytes.iter().position(|byte| *byte == b'\n')
        {
            bytes.drain(..=end);
        }
        (position, bytes)
    }
}

fn last_lines(bytes: &[u8], lines: Option<u64>) -> &[u8] {
    let Some(wanted) = lines else { return bytes };
    let Some(wanted) = wanted.checked_sub(1) else { return &[] };
    let text = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let ends = text.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n');
    let end = ends.map(|(at, _)| at).nth(usize::try_from(wanted).unwrap_or(usize::MAX));
    &bytes[end.map_or(0, |end| end + 1)..]
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    fn reader(ring: &Arc<Ring>, follow: bool) -> UnixStream {
        let request = LogRequest { follow, lines: None };
        let stream = std::os::unix::net::UnixStream::from(ring.open(request).unwrap());
        stream.set_nonblocking(true).unwrap();
        UnixStream::from_std(stream).unwrap()
    }

    #[tokio::test]
    async fn what_is_kept_can_be_read() {
        let ring = Arc::new(Ring::default());
        ring.push(b"one\ntwo\n");
        let mut text = String::new();
        reader(&ring, false).read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "one\ntwo\n");
    }

    #[test]
    fn the_last_lines_are_so_many() {
        for (lines, expected) in
            [(0, ""), (1, "3\n"), (2, "2\n3\n"), (3, "1\n2\n3\n"), (4, "1\n2\n3\n")]
        {
            assert_eq!(last_lines(b"1\n2\n3\n", Some(lines)), expected.as_bytes(), "{lines}");
        }
        assert_eq!(last_lines(b"1\n2", Some(1)), b"2");
        assert_eq!(last_lines(b"1\n2", None), b"1\n2");
    }

    #[tokio::test]
    async fn it_begins_with_a_whole_line_and_keeps_so_much() {
        let ring = Arc::new(Ring::default());
        for n in 0..20_000 {
            ring.push(format!("line {n}\n").as_bytes());
        }
        let mut text = String::new();
        reader(&ring, false).read_to_string(&mut text).await.unwrap();
        assert!(text.starts_with("line 1"), "{}", &text[..20]);
        assert!(text.ends_with("line 19999\n"));
        assert!(text.len() <= CAPACITY && text.len() > CAPACITY - 20);
    }

    #[tokio::test]
    async fn a_slow_reader_is_told_what_it_lost_and_nobody_waits_for_it() {
        let ring = Arc::new(Ring::default());
        let mut slow = reader(&ring, true);
        ring.push(b"first\n");
        let mut first = [0; 6];
        slow.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"first\n");
        // More than the socket and the ring hold together.
        for _ in 0..200 {
            ring.push(&[b'x'; CAPACITY]);
            tokio::task::yield_now().await;
        }
        ring.push(b"\nlast\n");
        let mut seen = Vec::new();
        while !seen.ends_with(b"\nlast\n") {
            assert_ne!(slow.read_buf(&mut seen).await.unwrap(), 0);
        }
        assert!(String::from_utf8_lossy(&seen).contains("bytes were not read in time"));
    }

    #[tokio::test]
    async fn a_follower_that_leaves_is_noticed() {
        let ring = Arc::new(Ring::default());
        drop(reader(&ring, true));
        while ring.written.receiver_count() == 0 {
            tokio::task::yield_now().await;
        }
        while ring.written.receiver_count() > 0 {
            tokio::task::yield_now().await;
        }
    }
}
