//! The journal's native protocol (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>): an entry is a datagram.

use super::entry::Entry;
use super::{IDENTIFIER, KIND, messages};
use rustix::io::Errno;
use rustix::net::{SendFlags, SocketAddrUnix, sendto};
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use tracing::Level;

/// The socket of the journal.
#[derive(Debug)]
pub(super) struct Journal {
    socket: UnixDatagram,
    /// Each datagram says where it goes: one who listens there anew is heard again.
    address: SocketAddrUnix,
}

impl Journal {
    /// For whoever listens at a path.
    pub(super) fn at(path: &Path) -> io::Result<Journal> {
        Ok(Journal { socket: UnixDatagram::unbound()?, address: SocketAddrUnix::new(path)? })
    }

    /// Sends an entry if that takes no waiting. False: it was not sent.
    pub(super) fn try_send(&self, entry: &Entry) -> bool {
        self.send_with(entry, SendFlags::DONTWAIT).is_ok()
    }

    /// Sends an entry, and waits until there is room for it.
    pub(super) fn send(&self, entry: &Entry) {
        if self.send_with(entry, SendFlags::empty()) == Err(Errno::MSGSIZE) {
            send_in_a_file(entry);
        }
        // The journal may be gone for a moment; what it misses is in `provost events`.
    }

    fn send_with(&self, entry: &Entry, flags: SendFlags) -> rustix::io::Result<()> {
        let (datagram, flags) = (datagram(entry), flags | SendFlags::NOSIGNAL);
        loop {
            match sendto(&self.socket, &datagram, flags, &self.address) {
                Err(Errno::INTR) => {}
                sent => return sent.map(drop),
            }
        }
    }
}

/// The fields of an entry, beside its message and its priority.
fn fields(entry: &Entry) -> impl Iterator<Item = (&str, &str)> {
    let kind = entry.fields().find(|(name, _)| *name == KIND);
    let id = kind.and_then(|(_, kind)| messages::id(kind)).map(|id| ("MESSAGE_ID", id));
    entry.fields().chain([("SYSLOG_IDENTIFIER", IDENTIFIER)]).chain(id)
}

/// The priority as syslog(3) has it.
fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "6",
        _ => "7",
    }
}

fn datagram(entry: &Entry) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(512);
    put(&mut bytes, "PRIORITY", priority(entry.level));
    put(&mut bytes, "MESSAGE", entry.message());
    for (name, value) in fields(entry) {
        put(&mut bytes, name, value);
    }
    bytes
}

/// A value of several lines is told with its length.
fn put(bytes: &mut Vec<u8>, name: &str, value: &str) {
    bytes.extend_from_slice(name.as_bytes());
    if value.contains('\n') {
        bytes.push(b'\n');
        bytes.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        bytes.push(b'=');
    }
    bytes.extend_from_slice(value.as_bytes());
    bytes.push(b'\n');
}

/// One that is too large for a datagram goes as a file without a name, which the library knows to make.
fn send_in_a_file(entry: &Entry) {
    use libsystemd::logging::{Priority, journal_send};
    let priority = match entry.level {
        Level::ERROR => Priority::Error,
        Level::WARN => Priority::Warning,
        Level::INFO => Priority::Info,
        _ => Priority::Debug,
    };
    let _ = journal_send(priority, entry.message(), fields(entry));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listening() -> (tempfile::TempDir, UnixDatagram, Journal) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let listener = UnixDatagram::bind(&path).unwrap();
        let journal = Journal::at(&path).unwrap();
        (directory, listener, journal)
    }

    fn received(listener: &UnixDatagram) -> Vec<u8> {
        let mut bytes = vec![0; 1 << 16];
        let length = listener.recv(&mut bytes).unwrap();
        bytes.truncate(length);
        bytes
    }

    #[test]
    fn an_entry_is_a_datagram_of_fields() {
        let (_directory, listener, journal) = listening();
        let mut entry = Entry::of(Level::WARN, "one\ntwo");
        entry.add("PROVOST_PROCESS", format_args!("api"));
        journal.send(&entry);
        let mut wanted = b"PRIORITY=4\nMESSAGE\n".to_vec();
        wanted.extend(7u64.to_le_bytes());
        wanted.extend(b"one\ntwo\nPROVOST_PROCESS=api\nSYSLOG_IDENTIFIER=provostd\n");
        assert_eq!(received(&listener), wanted);
    }

    #[test]
    fn who_does_not_want_to_wait_does_not() {
        let (directory, listener, journal) = listening();
        let mut sent = 0;
        while journal.try_send(&Entry::of(Level::INFO, &sent.to_string())) {
            sent += 1;
            assert!(sent < 100_000, "a socket that nobody reads has room without end");
        }
        assert!(received(&listener).starts_with(b"PRIORITY=6\nMESSAGE=0\n"));
        assert!(journal.try_send(&Entry::of(Level::INFO, "room again")));
        // Whoever listens there next is heard.
        drop(listener);
        let path = directory.path().join("socket");
        std::fs::remove_file(&path).unwrap();
        assert!(!journal.try_send(&Entry::of(Level::INFO, "nobody")));
        let listener = UnixDatagram::bind(&path).unwrap();
        assert!(journal.try_send(&Entry::of(Level::INFO, "next")));
        assert!(received(&listener).starts_with(b"PRIORITY=6\nMESSAGE=next\n"));
    }
}
