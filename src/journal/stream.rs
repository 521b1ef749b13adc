//! The journal's stream: a socket that a process has as its standard output and standard error, so
//! that nothing of ours is between it and the journal.

use std::io::{self, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// The priority of a line that begins with no other, `<3>` for instance: informational (syslog(3)).
const INFO: u8 = 6;

/// Where the journal listens, if there is one.
#[must_use]
pub fn socket() -> Option<PathBuf> {
    let path = PathBuf::from("/run/systemd/journal/stdout");
    path.exists().then_some(path)
}

/// The system's unit that we are in, if it is a service. By it the journal files a line whose writer
/// is gone before it could look at its control group.
#[must_use]
pub fn own_unit() -> Option<String> {
    unit_in(&std::fs::read_to_string("/proc/self/cgroup").ok()?)
}

/// The first service in the path of a control group (cgroups(7), `/proc/[pid]/cgroup`).
fn unit_in(groups: &str) -> Option<String> {
    let path = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    path.split('/').find(|group| group.ends_with(".service")).map(str::to_owned)
}

/// Opens a stream. Blocks when the journal is busy.
///
/// The header is what systemd writes for its own services (`connect_logger_as` in its
/// `exec-invoke.c`): identifier, unit, priority, whether lines may begin with a priority, and
/// whether to forward them to syslog, the kernel's log and the console. Only root may name a unit.
///
/// # Errors
/// When nobody listens at `socket`, or the header is not taken.
pub fn open(socket: &Path, identifier: &str, unit: Option<&str>) -> io::Result<OwnedFd> {
    /// What systemd asks for its own: lines wait in the socket while the journal restarts.
    const SEND_BUFFER: usize = 8 * 1024 * 1024;
    let mut stream = UnixStream::connect(socket)?;
    stream.shutdown(Shutdown::Read)?;
    // Only root gets it beyond the usual limit; less is no reason not to log.
    let _ = rustix::net::sockopt::set_socket_send_buffer_size_force(&stream, SEND_BUFFER)
        .or_else(|_| rustix::net::sockopt::set_socket_send_buffer_size(&stream, SEND_BUFFER));
    let unit = unit.unwrap_or("");
    stream.write_all(format!("{identifier}\n{unit}\n{INFO}\n1\n0\n0\n0\n").as_bytes())?;
    Ok(stream.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::net::UnixListener;

    #[test]
    fn the_unit_is_the_one_that_systemd_made_the_group_for() {
        let of = |path: &str| unit_in(&format!("4:memory:/x.service\n0::{path}\n"));
        assert_eq!(of("/system.slice/provostd.service/daemon"), Some("provostd.service".into()));
        assert_eq!(of("/user.slice/session-1.scope"), None);
        assert_eq!(unit_in(""), None);
    }

    #[test]
    fn the_header_comes_before_what_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("stdout");
        let listener = UnixListener::bind(&path).unwrap();
        let stream = open(&path, "api", Some("provost-api@0.service")).unwrap();
        let mut stream = std::fs::File::from(stream);
        stream.write_all(b"hello\n").unwrap();
        drop(stream);
        let mut text = String::new();
        listener.accept().unwrap().0.read_to_string(&mut text).unwrap();
        assert_eq!(text, "api\nprovost-api@0.service\n6\n1\n0\n0\n0\nhello\n");
    }
}
