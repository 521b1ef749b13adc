//! What the daemon and `provost-net` say to each other: messages of JSON on a pair of sockets that
//! keep them apart (`SOCK_SEQPACKET`, unix(7)). Nobody else has an end of it, so nobody is asked who
//! he is. Whoever is closed upon ends.

use super::bind::Use;
use super::check::Check;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg,
    sendmsg, socketpair,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::UnixStream;

/// The longest message, in bytes. A URL is hardly ever a hundredth of it.
const LONGEST: usize = 64 * 1024;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Question {
    /// A check, and how long it may take.
    Check(Check, Duration),
    /// A socket at an address; it comes with the answer.
    Bind(SocketAddr, Use),
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// How a check ended.
    Checked(Result<(), String>),
    /// Whether there is a socket, or the number of the error (errno(3)).
    Bound(Result<(), i32>),
}

/// A question or an answer. Answers come in any order, and have the number of the question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numbered<T> {
    /// Of the question.
    pub number: u64,
    /// What is said.
    pub what: T,
}

/// One end.
#[derive(Debug)]
pub struct Channel {
    /// tokio has no type for such a socket; of what it can do with this one, only waiting is used.
    socket: UnixStream,
}

/// Both ends. Neither waits; both are closed on exec.
///
/// # Errors
/// When there are no descriptors left.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

impl Channel {
    /// One end of a [`pair`]. Needs a tokio runtime.
    ///
    /// # Errors
    /// What the system says.
    pub fn new(end: OwnedFd) -> io::Result<Channel> {
        Ok(Channel { socket: UnixStream::from_std(end.into())? })
    }

    /// Sends a message, with a descriptor or without.
    ///
    /// # Errors
    /// When the other end is closed, and for a message that is too long.
    pub async fn send<T: Serialize>(
        &self,
        message: &T,
        descriptor: Option<BorrowedFd<'_>>,
    ) -> io::Result<()> {
        let bytes = serde_json::to_vec(message)?;
        if bytes.len() > LONGEST {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is too long"));
        }
        let send = || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            let descriptors = descriptor.as_slice();
            if !descriptors.is_empty() {
                ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
            }
            let data = [IoSlice::new(&bytes)];
            Ok(sendmsg(&self.socket, &data, &mut ancillary, SendFlags::NOSIGNAL)?)
        };
        self.socket.async_io(Interest::WRITABLE, send).await.map(drop)
    }

    /// The next message, and the descriptor that came with it. None: the other end is closed.
    ///
    /// Can be given up at any moment without losing anything.
    ///
    /// # Errors
    /// What the system says; a message that cannot be read.
    pub async fn receive<T: DeserializeOwned>(&self) -> io::Result<Option<(T, Option<OwnedFd>)>> {
        let receive = || receive(&self.socket);
        let (bytes, descriptor) = self.socket.async_io(Interest::READABLE, receive).await?;
        if bytes.is_empty() {
            return Ok(None);
        }
        // What is wrong with it could quote it.
        let message = serde_json::from_slice(&bytes).map_err(|_| unfit("cannot be read"))?;
        Ok(Some((message, descriptor)))
    }
}

fn receive(socket: &UnixStream) -> io::Result<(Vec<u8>, Option<OwnedFd>)> {
    let mut bytes = vec![0; LONGEST];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let data = &mut [IoSliceMut::new(&mut bytes)];
    let read = recvmsg(socket.as_fd(), data, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let mut descriptor = None;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            descriptor = descriptors.last();
        }
    }
    if read.flags.contains(ReturnFlags::TRUNC) {
        return Err(unfit("is too long"));
    }
    bytes.truncate(read.bytes);
    Ok((bytes, descriptor))
}

fn unfit(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("a message that {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::spec::{Rendered, Text};

    fn both() -> (Channel, Channel) {
        let (one, other) = pair().unwrap();
        (Channel::new(one).unwrap(), Channel::new(other).unwrap())
    }

    #[tokio::test]
    async fn a_question_comes_as_it_was_asked() {
        let (one, other) = both();
        let url = Text::hiding("http://hunter2/", "http://${HOST}/").rendered(0);
        let check = Question::Check(Check::Http(url), Duration::from_millis(1500));
        let bind = Question::Bind("[::1]:80".parse().unwrap(), Use::Try);
        for (number, what) in [(1, check), (u64::MAX, bind)] {
            let sent = Numbered { number, what };
            assert!(!format!("{sent:?}").contains("hunter2"));
            one.send(&sent, None).await.unwrap();
            let (got, descriptor) = other.receive::<Numbered<Question>>().await.unwrap().unwrap();
            assert_eq!(got, sent);
            assert!(descriptor.is_none());
        }
    }

    #[tokio::test]
    async fn a_descriptor_comes_with_its_answer() {
        let (one, other) = both();
        let (kept, given) = pair().unwrap();
        one.send(&Answer::Bound(Ok(())), Some(given.as_fd())).await.unwrap();
        one.send(&Answer::Bound(Err(98)), None).await.unwrap();
        drop((given, one));
        let (answer, descriptor) = other.receive::<Answer>().await.unwrap().unwrap();
        assert_eq!(answer, Answer::Bound(Ok(())));
        rustix::io::write(&kept, b"x").unwrap();
        assert_eq!(rustix::io::read(descriptor.unwrap(), &mut [0; 4]), Ok(1));
        let (answer, descriptor) = other.receive::<Answer>().await.unwrap().unwrap();
        assert_eq!((answer, descriptor.is_none()), (Answer::Bound(Err(98)), true));
        assert!(other.receive::<Answer>().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn what_is_too_long_is_not_sent() {
        let (one, _other) = both();
        let url = Rendered::from(&*"x".repeat(LONGEST));
        assert!(one.send(&Check::Http(url), None).await.is_err());
    }
}
