//! The stream of one peer of the private socket.
//!
//! What a peer has asked and not been answered is kept here, and what it was answered and has not
//! read too. So it is not read from while it has too many calls under way, or does not read what it
//! is sent: then its own calls fill its own buffer, and it waits, and nobody else does.
//!
//! Who the peer is was asked when it was let in. It may be in another pid namespace, outside of the
//! container that this is the first process of, and then it has no number here.

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::watch;
use zbus::Message;
use zbus::connection::socket::{BoxedSplit, ReadHalf, Split, WriteHalf};
use zbus::export::async_trait::async_trait;
use zbus::fdo::ConnectionCredentials;
use zbus::message::{Flags, Type};

/// More calls of one peer than this are not under way at once. Each is a task; a program that waits
/// for so many jobs at once can ask for the next when one of them has ended.
const MAX_CALLS: usize = 256;

/// How much of many messages is written at once.
const BATCH: usize = 64 * 1024;

/// How many descriptors come with one read: the limit of the kernel (unix(7), `SCM_RIGHTS`).
const MAX_DESCRIPTORS: usize = 253;

/// The two halves of a connection with a peer of this user.
///
/// # Errors
/// When the runtime cannot watch the stream.
pub(super) fn transport(
    stream: std::os::unix::net::UnixStream,
    uid: u32,
) -> io::Result<BoxedSplit> {
    stream.set_nonblocking(true)?;
    let stream = Arc::new(UnixStream::from_std(stream)?);
    let flow = Arc::new(watch::Sender::new(Flow::default()));
    let reader = Reader { bytes: Bytes { stream: stream.clone(), uid }, flow: flow.clone() };
    Ok(Split::new(Box::new(reader), Box::new(Writer { stream, uid, flow })))
}

/// What is on its way.
#[derive(Debug, Default)]
struct Flow {
    /// Calls that were read and not answered.
    calls: usize,
    /// Whether what is written does not go out.
    is_stuck: bool,
}

/// Reads calls while there is room for them.
#[derive(Debug)]
struct Reader {
    bytes: Bytes,
    flow: Arc<watch::Sender<Flow>>,
}

#[async_trait]
impl ReadHalf for Reader {
    async fn receive_message(
        &mut self,
        seq: u64,
        already_received_bytes: &mut Vec<u8>,
        already_received_fds: &mut Vec<OwnedFd>,
    ) -> zbus::Result<Message> {
        // Whatever the call before it leads to comes first.
        tokio::task::yield_now().await;
        let has_room = |flow: &Flow| flow.calls < MAX_CALLS && !flow.is_stuck;
        // The sender is held here as well: this cannot fail.
        let _ = self.flow.subscribe().wait_for(has_room).await;
        let bytes = &mut self.bytes;
        let message =
            bytes.receive_message(seq, already_received_bytes, already_received_fds).await?;
        let is_call = message.message_type() == Type::MethodCall;
        if is_call && !message.primary_header().flags().contains(Flags::NO_REPLY_EXPECTED) {
            self.flow.send_modify(|flow| flow.calls += 1);
        }
        Ok(message)
    }

    async fn recvmsg(&mut self, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
        self.bytes.recvmsg(buffer).await
    }

    fn can_pass_unix_fd(&self) -> bool {
        true
    }

    async fn peer_credentials(&mut self) -> io::Result<ConnectionCredentials> {
        self.bytes.peer_credentials().await
    }
}

/// Reads bytes; of them zbus makes messages.
#[derive(Debug)]
struct Bytes {
    stream: Arc<UnixStream>,
    uid: u32,
}

#[async_trait]
impl ReadHalf for Bytes {
    async fn recvmsg(&mut self, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
        let receive = || receive(&self.stream, buffer);
        self.stream.async_io(Interest::READABLE, receive).await
    }

    fn can_pass_unix_fd(&self) -> bool {
        true
    }

    async fn peer_credentials(&mut self) -> io::Result<ConnectionCredentials> {
        Ok(ConnectionCredentials::default().set_unix_user_id(self.uid))
    }
}

fn receive(stream: &UnixStream, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let into = &mut [IoSliceMut::new(buffer)];
    let received = recvmsg(stream, into, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    if received.flags.contains(ReturnFlags::CTRUNC) {
        return Err(io::Error::other("descriptors were lost"));
    }
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(passed) = message {
            descriptors.extend(passed);
        }
    }
    Ok((received.bytes, descriptors))
}

/// Writes, and tells when that does not go on.
#[derive(Debug)]
struct Writer {
    stream: Arc<UnixStream>,
    uid: u32,
    flow: Arc<watch::Sender<Flow>>,
}

impl Writer {
    async fn write_message(&self, message: &Message) -> zbus::Result<()> {
        let data = message.data();
        let descriptors = data.fds().iter().map(|descriptor| descriptor.as_fd()).collect();
        Ok(self.write(data, descriptors).await?)
    }

    /// With few writes: there may be one for each of a thousand processes.
    async fn write_messages(&self, messages: &[Message]) -> zbus::Result<()> {
        let all: usize = messages.iter().map(|message| message.data().len()).sum();
        let mut batch = Vec::with_capacity(all.min(BATCH));
        for message in messages {
            let data = message.data();
            if !data.fds().is_empty() || batch.len() + data.len() > BATCH {
                self.write(&batch, Vec::new()).await?;
                batch.clear();
            }
            match data.fds().is_empty() {
                true => batch.extend_from_slice(data),
                false => self.write_message(message).await?,
            }
        }
        Ok(self.write(&batch, Vec::new()).await?)
    }

    async fn write(
        &self,
        mut bytes: &[u8],
        mut descriptors: Vec<BorrowedFd<'_>>,
    ) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = self.write_some(bytes, &descriptors).await?;
            bytes = &bytes[written..];
            descriptors.clear();
        }
        Ok(())
    }

    async fn write_some(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize> {
        let send = || send(&self.stream, bytes, descriptors);
        match self.stream.try_io(Interest::WRITABLE, send) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return result,
        }
        let _stuck = Stuck::new(&self.flow);
        self.stream.async_io(Interest::WRITABLE, send).await
    }

    /// An answer is gone, or can never go.
    fn answered<'m>(&self, messages: impl IntoIterator<Item = &'m Message>) {
        let is_answer =
            |message: &&Message| matches!(message.message_type(), Type::MethodReturn | Type::Error);
        let answers = messages.into_iter().filter(is_answer).count();
        if answers > 0 {
            self.flow.send_modify(|flow| flow.calls = flow.calls.saturating_sub(answers));
        }
    }
}

fn send(stream: &UnixStream, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(descriptors.len()))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok(sendmsg(stream, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)?)
}

#[async_trait]
impl WriteHalf for Writer {
    async fn send_message(&mut self, message: &Message) -> zbus::Result<()> {
        let written = self.write_message(message).await;
        self.answered([message]);
        written
    }

    async fn send_messages(&mut self, messages: &[Message]) -> zbus::Result<()> {
        let written = self.write_messages(messages).await;
        self.answered(messages);
        written
    }

    async fn sendmsg(&mut self, buffer: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
        self.write_some(buffer, fds).await
    }

    async fn close(&mut self) -> io::Result<()> {
        Ok(rustix::net::shutdown(&*self.stream, rustix::net::Shutdown::Both)?)
    }

    fn can_pass_unix_fd(&self) -> bool {
        true
    }

    async fn peer_credentials(&mut self) -> io::Result<ConnectionCredentials> {
        Ok(ConnectionCredentials::default().set_unix_user_id(self.uid))
    }
}

/// While this lives, nothing goes out.
struct Stuck<'a>(&'a watch::Sender<Flow>);

impl Stuck<'_> {
    fn new(flow: &watch::Sender<Flow>) -> Stuck<'_> {
        flow.send_modify(|flow| flow.is_stuck = true);
        Stuck(flow)
    }
}

impl Drop for Stuck<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|flow| flow.is_stuck = false);
    }
}
