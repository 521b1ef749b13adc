//! The file that holds the pid of a run. It is written when the process exists, and so a moment
//! after its first instruction; as its user, following no symlink.

use crate::backend::native::identity::Identity;
use crate::backend::native::launch::{failure, reason};
use crate::core::event::{SpawnError, SpawnStage};
use crate::core::spec::Rendered;
use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// One that is to be removed when the run is over.
#[derive(Clone)]
pub(super) struct PidFile {
    pub path: Rendered,
    pub pid: u32,
    pub identity: Identity,
}

impl PidFile {
    /// Writes it.
    ///
    /// # Errors
    /// At stage `PidFile`.
    pub(super) async fn write(&self) -> Result<(), SpawnError> {
        let own = self.clone();
        let written = tokio::task::spawn_blocking(move || own.identity.run(|| own.write_now()));
        let written = written.await.unwrap_or_else(|error| Err(io::Error::other(error)));
        written.map_err(|error| {
            let text = match error.raw_os_error() {
                Some(libc::ELOOP) => "it is a symbolic link, which is not followed".to_owned(),
                _ => reason(&error),
            };
            failure(SpawnStage::PidFile, self.path.shown(), text)
        })
    }

    fn write_now(&self) -> io::Result<()> {
        let path = self.path.value();
        let open = || {
            let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(false).mode(0o644).custom_flags(flags);
            options.open(path)
        };
        let mut file = match open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let parent = Path::new(path).parent().unwrap_or(Path::new("/"));
                DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
                open()?
            }
            opened => opened?,
        };
        // A pid in a device or a fifo would be read by somebody else.
        if !file.metadata()?.is_file() {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        file.set_len(0)?;
        file.write_all(format!("{}\n", self.pid).as_bytes())
    }

    /// Removes it, if it is still the one that was written.
    pub(super) async fn remove(self) {
        let path = self.path.clone();
        let removed = tokio::task::spawn_blocking(move || {
            self.identity.run(|| match read(self.path.value())? == self.pid.to_string() {
                true => std::fs::remove_file(self.path.value()),
                false => Ok(()),
            })
        });
        match removed.await {
            Ok(Err(error)) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!("removing the pid file {path}: {}", reason(&error));
            }
            _ => {}
        }
    }
}

/// Removes a pid file whose process is gone. Blocks.
pub(super) fn remove_stale(path: &Rendered, identity: &Identity) -> io::Result<()> {
    identity.run(|| {
        let pid: Option<u32> = read(path.value())?.parse().ok();
        match pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            true => std::fs::remove_file(path.value()),
            false => Ok(()),
        }
    })
}

fn read(path: &str) -> io::Result<String> {
    const LONGEST_PID: u64 = 12;
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let mut text = String::new();
    file.take(LONGEST_PID).read_to_string(&mut text)?;
    Ok(text.trim_end().to_owned())
}
