//! The stream of systemd's private socket.
//!
//! There systemd puts its well-known name into the header of every message as the sender, where the
//! specification has a unique name (D-Bus Specification, "Header Fields"). zbus, which is right,
//! takes no such message. So what comes is made into whole messages here, and in each the first
//! letter of that name becomes the colon of a unique one. It is of the same length, and nobody asks
//! for the sender on a connection that has only one.

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use tokio::io::Interest;
use tokio::net::UnixStream;
use zbus::connection::socket::{BoxedSplit, ReadHalf, Split, WriteHalf};
use zbus::export::async_trait::async_trait;
use zbus::fdo::ConnectionCredentials;

/// What is read at once.
const CHUNK: usize = 64 * 1024;

/// The longest message of the specification.
const LONGEST: usize = 128 * 1024 * 1024;

/// The parts of a header that are of the same length in every message.
const FIXED: usize = 16;

/// `SENDER` of the header fields.
const SENDER: u8 = 7;

/// Connects to a private socket of systemd.
///
/// # Errors
/// What the system says.
pub(super) async fn connect(path: &Path) -> io::Result<BoxedSplit> {
    let stream = Arc::new(UnixStream::connect(path).await?);
    let reader = Reader { stream: stream.clone(), raw: Vec::new(), ready: Vec::new(), taken: 0 };
    Ok(Split::new(Box::new(reader), Box::new(Writer { stream })))
}

#[derive(Debug)]
struct Reader {
    stream: Arc<UnixStream>,
    /// As it came.
    raw: Vec<u8>,
    /// For zbus, of which so much is taken.
    ready: Vec<u8>,
    taken: usize,
}

#[async_trait]
impl ReadHalf for Reader {
    async fn recvmsg(&mut self, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
        loop {
            if self.taken < self.ready.len() {
                let rest = &self.ready[self.taken..];
                let len = rest.len().min(buffer.len());
                buffer[..len].copy_from_slice(&rest[..len]);
                self.taken += len;
                return Ok((len, Vec::new()));
            }
            self.ready.clear();
            self.taken = 0;
            while let Some(len) = whole(&self.raw)? {
                let mut message: Vec<u8> = self.raw.drain(..len).collect();
                mend_sender(&mut message);
                self.ready.extend_from_slice(&message);
            }
            if self.ready.is_empty() && self.read_more().await? == 0 {
                return Ok((0, Vec::new()));
            }
        }
    }

    fn can_pass_unix_fd(&self) -> bool {
        true
    }

    async fn peer_credentials(&mut self) -> io::Result<ConnectionCredentials> {
        Ok(ConnectionCredentials::default())
    }
}

impl Reader {
    async fn read_more(&mut self) -> io::Result<usize> {
        loop {
            self.stream.readable().await?;
            let start = self.raw.len();
            self.raw.resize(start + CHUNK, 0);
            let read = self.stream.try_read(&mut self.raw[start..]);
            self.raw.truncate(start + read.as_ref().map_or(0, |len| *len));
            match read {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read,
            }
        }
    }
}

/// How long the first message is; None where it is not all there. What is no message is a line of
/// the handshake before the first one.
fn whole(bytes: &[u8]) -> io::Result<Option<usize>> {
    let Some(first) = bytes.first() else { return Ok(None) };
    if !matches!(first, b'l' | b'B') {
        return Ok(bytes.iter().position(|byte| *byte == b'\n').map(|end| end + 1));
    }
    let Some(number) = Numbers::of(bytes) else { return Ok(None) };
    let (Some(body), Some(fields)) = (number.at(4), number.at(12)) else { return Ok(None) };
    let len = FIXED.saturating_add(aligned(fields, 8)).saturating_add(body);
    if len > LONGEST {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a message that is too long"));
    }
    Ok((len <= bytes.len()).then_some(len))
}

/// Makes the sender of a message a unique name. A message that cannot be read stays as it is: zbus
/// says what is wrong with it.
fn mend_sender(message: &mut [u8]) {
    let sender = Numbers::of(message).and_then(|number| {
        let end = FIXED + number.at(12)?;
        let mut at = FIXED;
        while at < end {
            // A structure of a byte and a variant, which begins with its signature.
            at = aligned(at, 8);
            let (code, signature) = (*message.get(at)?, *message.get(at + 2)?);
            if message.get(at + 1) != Some(&1) {
                return None;
            }
            let value = at + 4;
            match signature {
                b's' | b'o' => {
                    let (len, text) = (number.at(aligned(value, 4))?, aligned(value, 4) + 4);
                    if code == SENDER {
                        return Some(text);
                    }
                    at = text + len + 1;
                }
                b'g' => at = value + usize::from(*message.get(value)?) + 2,
                b'u' => at = aligned(value, 4) + 4,
                _ => return None,
            }
        }
        None
    });
    if let Some(first) = sender.and_then(|at| message.get_mut(at)) {
        *first = b':';
    }
}

fn aligned(at: usize, to: usize) -> usize {
    at.div_ceil(to) * to
}

/// Reads numbers in the byte order that the first byte tells.
struct Numbers<'a> {
    bytes: &'a [u8],
    is_little: bool,
}

impl Numbers<'_> {
    fn of(bytes: &[u8]) -> Option<Numbers<'_>> {
        Some(Numbers { bytes, is_little: *bytes.first()? == b'l' })
    }

    fn at(&self, at: usize) -> Option<usize> {
        let four: [u8; 4] = self.bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
        let number =
            if self.is_little { u32::from_le_bytes(four) } else { u32::from_be_bytes(four) };
        usize::try_from(number).ok()
    }
}

#[derive(Debug)]
struct Writer {
    stream: Arc<UnixStream>,
}

#[async_trait]
impl WriteHalf for Writer {
    async fn sendmsg(&mut self, buffer: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
        self.stream.async_io(Interest::WRITABLE, || send(&self.stream, buffer, fds)).await
    }

    async fn close(&mut self) -> io::Result<()> {
        Ok(rustix::net::shutdown(&*self.stream, rustix::net::Shutdown::Both)?)
    }

    fn can_pass_unix_fd(&self) -> bool {
        true
    }

    async fn peer_credentials(&mut self) -> io::Result<ConnectionCredentials> {
        Ok(ConnectionCredentials::default())
    }
}

fn send(stream: &UnixStream, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(fds.len()))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok(sendmsg(stream, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use zbus::Message;

    fn from(sender: &str) -> Vec<u8> {
        // Of the same length, so that the other name can be put in its place.
        let unique = format!(":{}", &sender[1..]);
        let message = Message::signal("/a/b", "c.d", "E");
        let message = message.sender(unique.as_str()).build(&("x", 5_u32)).unwrap();
        let mut bytes = message.data().to_vec();
        let at = bytes.windows(unique.len()).position(|part| part == unique.as_bytes()).unwrap();
        bytes[at..at + sender.len()].copy_from_slice(sender.as_bytes());
        bytes
    }

    #[test]
    fn a_well_known_sender_becomes_a_unique_one() {
        let mut bytes = from("org.freedesktop.systemd1");
        assert_eq!(whole(&bytes).unwrap(), Some(bytes.len()));
        mend_sender(&mut bytes);
        assert!(bytes.windows(24).any(|part| part == b":rg.freedesktop.systemd1"));
        let len = bytes.len();
        bytes.extend_from_slice(b"l\x04");
        assert_eq!(whole(&bytes).unwrap(), Some(len));
    }

    #[test]
    fn part_of_a_message_is_none() {
        let bytes = from("org.freedesktop.systemd1");
        for len in 0..bytes.len() {
            assert_eq!(whole(&bytes[..len]).unwrap(), None);
            mend_sender(&mut bytes[..len].to_vec());
        }
        assert!(
            whole(&[b'l', 4, 0, 1, 255, 255, 255, 255, 0, 0, 0, 0, 255, 255, 255, 255]).is_err()
        );
    }

    #[test]
    fn a_line_of_the_handshake_stays_as_it_is() {
        assert_eq!(whole(b"OK 0123\r\nAGREE_UNIX_FD\r\n").unwrap(), Some(9));
        assert_eq!(whole(b"OK 0123").unwrap(), None);
    }
}
