//! Descriptors that the service manager hands to the daemon (sd_listen_fds_with_names(3)).

use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// All of them, with their names. The first call has them; later ones have none.
#[must_use]
pub fn inherited() -> Vec<(String, OwnedFd)> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Vec::new();
    }
    let Ok(all) = sd_notify::listen_fds_with_names() else { return Vec::new() };
    all.map(|(fd, name)| {
        // SAFETY: the service manager opened it for this process alone (LISTEN_PID says so), and
        // nobody has it but this, once.
        (name, unsafe { OwnedFd::from_raw_fd(fd) })
    })
    .collect()
}
