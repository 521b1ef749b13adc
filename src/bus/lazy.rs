//! A peer's stream that says when the objects of processes and jobs are needed.
//!
//! Most peers ask the manager something and leave. To make an object for each of a thousand
//! processes before the first answer took half a second and 1.6 MiB for each of them (measured, in
//! debug), because each is announced with all its properties. So they are made before the first
//! message is handed on that could be about them. The library has no place for this but the
//! transport. The signals of ObjectManager begin at the same moment; those of the manager, and
//! changed properties, are told from the beginning.

use super::{logcontrol, paths};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use zbus::connection::socket::{ReadHalf, Socket, Split, WriteHalf};
use zbus::export::async_trait::async_trait;
use zbus::fdo::ConnectionCredentials;
use zbus::message::{Message, Type};

/// So many descriptors come with one read: no message of ours has more.
const DESCRIPTORS: usize = 16;

/// Where the objects are asked for. The answer comes when they are there.
pub type Wanted = mpsc::Receiver<oneshot::Sender<()>>;

/// The stream of a peer, until it is split.
#[derive(Debug)]
pub struct LazyStream {
    stream: Arc<UnixStream>,
    want: mpsc::Sender<oneshot::Sender<()>>,
}

impl LazyStream {
    /// A stream, and where it will ask for the objects, at most once.
    ///
    /// # Errors
    /// When the runtime does not take the stream.
    pub fn new(stream: std::os::unix::net::UnixStream) -> io::Result<(LazyStream, Wanted)> {
        stream.set_nonblocking(true)?;
        let (want, wanted) = mpsc::channel(1);
        Ok((LazyStream { stream: Arc::new(UnixStream::from_std(stream)?), want }, wanted))
    }
}

impl Socket for LazyStream {
    type ReadHalf = LazyReader;
    type WriteHalf = Stream;

    fn split(self) -> Split<LazyReader, Stream> {
        let reader = LazyReader { stream: Stream(self.stream.clone()), want: Some(self.want) };
        Split::new(reader, Stream(self.stream))
    }
}

/// Whether a message may be about an object that is not always there.
fn needs_objects(message: &Message) -> bool {
    if message.message_type() != Type::MethodCall {
        return false;
    }
    let header = message.header();
    let path = header.path().map_or("", |path| path.as_str());
    if path != paths::ROOT && path != logcontrol::PATH {
        return true;
    }
    // What lists all objects. Without an interface it could be that.
    let interface = header.interface().map_or("", |interface| interface.as_str());
    matches!(
        interface,
        "" | "org.freedesktop.DBus.ObjectManager" | "org.freedesktop.DBus.Introspectable"
    )
}

/// Reads messages, and holds the first one back that needs the objects until they are there.
#[derive(Debug)]
pub struct LazyReader {
    stream: Stream,
    want: Option<mpsc::Sender<oneshot::Sender<()>>>,
}

#[async_trait]
impl ReadHalf for LazyReader {
    async fn receive_message(
        &mut self,
        seq: u64,
        already_received_bytes: &mut Vec<u8>,
        already_received_fds: &mut Vec<OwnedFd>,
    ) -> zbus::Result<Message> {
        let message =
            self.stream.receive_message(seq, already_received_bytes, already_received_fds).await?;
        if self.want.is_some()
            && needs_objects(&message)
            && let Some(want) = self.want.take()
        {
            let (done, made) = oneshot::channel();
            // Whoever makes them is gone only when the connection ends.
            if want.send(done).await.is_ok() {
                let _ = made.await;
            }
        }
        Ok(message)
    }

    async fn recvmsg(&mut self, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
        self.stream.recvmsg(buffer).await
    }

    fn can_pass_unix_fd(&self) -> bool {
        true
    }

    async fn peer_credentials(&mut self) -> io::Result<ConnectionCredentials> {
        ReadHalf::peer_credentials(&mut self.stream).await
    }
}

/// The stream itself, with descriptors.
#[derive(Clone, Debug)]
pub struct Stream(Arc<UnixStream>);

impl Stream {
    fn credentials(&self) -> io::Result<ConnectionCredentials> {
        let peer = self.0.peer_cred()?;
        let credentials = ConnectionCredentials::default().set_unix_user_id(peer.uid());
        Ok(match peer.pid().and_then(|pid| u32::try_from(pid).ok()) {
            Some(pid) => credentials.set_process_id(pid),
            None => credentials,
        })
    }
}

#[async_trait]
impl ReadHalf for Stream {
    async fn recvmsg(&mut self, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
        let receive = || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut buffers = [IoSliceMut::new(buffer)];
            let received = recvmsg(&*self.0, &mut buffers, &mut control, RecvFlags::CMSG_CLOEXEC)?;
            let mut descriptors = Vec::new();
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(rights) = message {
                    descriptors.extend(rights);
                }
            }
            Ok((received.bytes, descriptors))
        };
        self.0.async_io(Interest::READABLE, uninterrupted(receive)).await
    }

    fn can_pass_unix_fd(&self) -> bool {
        true
    }

    async fn peer_credentials(&mut self) -> io::Result<ConnectionCredentials> {
        self.credentials()
    }
}

/// What the runtime may call again while it says that it would have to wait.
fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> impl FnMut() -> io::Result<T> {
    move || {
        loop {
            match call() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }
}

#[async_trait]
impl WriteHalf for Stream {
    async fn sendmsg(&mut self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
        let send = || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            let buffers = [IoSlice::new(bytes)];
            // A peer that is gone is an error and no signal.
            Ok(sendmsg(&*self.0, &buffers, &mut control, SendFlags::NOSIGNAL)?)
        };
        self.0.async_io(Interest::WRITABLE, uninterrupted(send)).await
    }

    async fn close(&mut self) -> io::Result<()> {
        Ok(rustix::net::shutdown(&*self.0, rustix::net::Shutdown::Both)?)
    }

    fn can_pass_unix_fd(&self) -> bool {
        true
    }

    async fn peer_credentials(&mut self) -> io::Result<ConnectionCredentials> {
        self.credentials()
    }
}
