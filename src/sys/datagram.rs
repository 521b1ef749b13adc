//! A datagram with the process that sent it (unix(7), `SCM_CREDENTIALS`).

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// What was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// How much of the buffer it fills; None: it was longer.
    pub length: Option<usize>,
    /// Who sent it, by the word of the kernel. None for who has no number here, because it is in a
    /// pid namespace that is not below ours.
    pub sender: Option<u32>,
}

/// Has the kernel say who sends, from now on.
///
/// # Errors
/// What it says.
pub fn tell_senders(socket: impl AsFd) -> io::Result<()> {
    Ok(rustix::net::sockopt::set_socket_passcred(socket, true)?)
}

/// Takes the next datagram; does not wait for one. Descriptors that come with it are closed.
///
/// # Errors
/// What the kernel says; `WouldBlock` when there is none.
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<Received> {
    // There is room for the credentials, which come first, and for nothing else: the kernel closes
    // descriptors for which there is none.
    #[repr(C)]
    union Control {
        header: libc::cmsghdr,
        room: [u8; 64],
    }
    let mut control = Control { room: [0; 64] };
    let mut vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: all zero is an empty message header.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut vector;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    // SAFETY: it only computes.
    message.msg_controllen = unsafe { libc::CMSG_SPACE(CREDENTIALS) } as _;
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC | libc::MSG_TRUNC;
    // SAFETY: the header leads to one buffer and one place for control messages, both as long as it
    // says, and both outlive the call.
    let length = unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut message, flags) };
    if length < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut sender = None;
    // SAFETY: the kernel has filled the place for control messages, and says in the header how far.
    let header = unsafe { libc::CMSG_FIRSTHDR(&raw const message).as_ref() };
    if let Some(header) = header
        && (header.cmsg_level, header.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_CREDENTIALS)
    {
        // SAFETY: a message of this type has a `struct ucred`, which needs no alignment to be read.
        let credentials: libc::ucred =
            unsafe { libc::CMSG_DATA(header).cast::<libc::ucred>().read_unaligned() };
        sender = u32::try_from(credentials.pid).ok().filter(|pid| *pid > 0);
    }
    let length = usize::try_from(length).ok().filter(|length| *length <= buffer.len());
    Ok(Received { length, sender })
}

const CREDENTIALS: u32 = size_of::<libc::ucred>() as u32;

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixDatagram;

    #[test]
    fn who_sent_it_comes_with_it() {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        tell_senders(&ours).unwrap();
        let mut buffer = [0; 8];
        let nothing = receive(&ours, &mut buffer).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        theirs.send(b"hello").unwrap();
        let own = Some(std::process::id());
        assert_eq!(receive(&ours, &mut buffer).unwrap(), Received { length: Some(5), sender: own });
        assert_eq!(&buffer[..5], b"hello");
        theirs.send(b"longer than there is room").unwrap();
        assert_eq!(receive(&ours, &mut buffer).unwrap(), Received { length: None, sender: own });
    }

    /// As the barrier of sd_notify(3) needs it.
    #[test]
    fn descriptors_are_closed() {
        use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        tell_senders(&ours).unwrap();
        let (read, write) = rustix::pipe::pipe().unwrap();
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds = [write.as_fd()];
        assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
        let text = [io::IoSlice::new(b"BARRIER=1")];
        sendmsg(&theirs, &text, &mut control, SendFlags::empty()).unwrap();
        drop(write);
        let received = receive(&ours, &mut [0; 16]).unwrap();
        assert_eq!(received, Received { length: Some(9), sender: Some(std::process::id()) });
        assert_eq!(rustix::io::read(&read, &mut [0; 1]).unwrap(), 0, "its last writer is gone");
    }
}
