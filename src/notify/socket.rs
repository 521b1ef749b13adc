//! The socket of the service manager (sd_notify(3)).

use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType, sendmsg_addr, socket_with,
};
use std::ffi::OsStr;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

/// Sends to one address. It is not connected: who listens there may be another one by then.
#[derive(Debug)]
pub(super) struct Socket {
    own: OwnedFd,
    there: SocketAddrUnix,
}

impl Socket {
    /// To what `NOTIFY_SOCKET` names: a path, or a name in the abstract namespace after an `@`.
    ///
    /// # Errors
    /// When it cannot be an address, or the system has no socket.
    pub(super) fn to(named: &OsStr) -> io::Result<Socket> {
        let there = match named.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddrUnix::new_abstract_name(name)?,
            None => SocketAddrUnix::new(named)?,
        };
        let flags = SocketFlags::CLOEXEC;
        let own = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
        Ok(Socket { own, there })
    }

    /// Sends one datagram. Blocks while there is no room for it.
    ///
    /// # Errors
    /// When nobody listens, and what the system says.
    pub(super) fn send(&self, text: &str, descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if let Some(descriptor) = &descriptor {
            let one = std::slice::from_ref(descriptor);
            if !ancillary.push(SendAncillaryMessage::ScmRights(one)) {
                return Err(io::ErrorKind::InvalidInput.into());
            }
        }
        let text = &[IoSlice::new(text.as_bytes())];
        loop {
            let flags = SendFlags::NOSIGNAL;
            match sendmsg_addr(&self.own, &self.there, text, &mut ancillary, flags) {
                Err(rustix::io::Errno::INTR) => {}
                sent => return sent.map(|_| ()).map_err(io::Error::from),
            }
        }
    }
}
