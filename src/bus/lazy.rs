//! A peer's stream that says when the objects of processes and jobs are needed.
//!
//! Most peers ask the manager something and leave. To make an object for each of a thousand
//! processes before the first answer took half a second and 1.6 MiB for each of them (measured, in
//! debug), because each is announced with all its properties. So they are made before the first
//! message is handed on that could be about them. The library has no place for this but the
//! transport. The signals of ObjectManager begin at the same moment; those of the manager, and
//! changed properties, are told from the beginning.

use super::{logcontrol, matches, paths};
use std::io;
use std::os::fd::OwnedFd;
use tokio::sync::{mpsc, oneshot};
use zbus::connection::socket::{BoxedSplit, ReadHalf, Split};
use zbus::export::async_trait::async_trait;
use zbus::fdo::ConnectionCredentials;
use zbus::message::{Message, Type};

/// Where the objects are asked for. The answer comes when they are there.
pub type Wanted = mpsc::Receiver<oneshot::Sender<()>>;

/// A transport that asks for the objects when they are needed, at most once; and where it asks.
pub fn lazily(transport: BoxedSplit) -> (BoxedSplit, Wanted) {
    let (want, wanted) = mpsc::channel(1);
    let (reader, writer) = transport.take();
    (Split::new(Box::new(LazyReader { reader, want: Some(want) }), writer), wanted)
}

/// Whether a message may be about an object that is not always there.
fn needs_objects(message: &Message) -> bool {
    if message.message_type() != Type::MethodCall {
        return false;
    }
    let header = message.header();
    let path = header.path().map_or("", |path| path.as_str());
    if ![paths::ROOT, logcontrol::PATH, matches::PATH].contains(&path) {
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
struct LazyReader {
    reader: Box<dyn ReadHalf>,
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
            self.reader.receive_message(seq, already_received_bytes, already_received_fds).await?;
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
        self.reader.recvmsg(buffer).await
    }

    fn can_pass_unix_fd(&self) -> bool {
        self.reader.can_pass_unix_fd()
    }

    async fn peer_credentials(&mut self) -> io::Result<ConnectionCredentials> {
        self.reader.peer_credentials().await
    }
}
