//! Word that children have ended, read from a descriptor.
//!
//! A handler would interrupt whatever runs, once for each child, and could do no more than write to a
//! pipe for somebody to look: of a replacement that was a fifteenth, of a thousand stops a tenth. Here
//! the signal is blocked in every thread, waits in the kernel, and is read (signalfd(2)). What is
//! executed has none blocked: [`super::child`] sees to that, and [`unblock`] for what follows us.

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::io;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

fn only() -> SigSet {
    SigSet::from(Signal::SIGCHLD)
}

/// Blocks it in this thread, and in those that it starts from now on. To be called before any other
/// thread is started: the kernel gives it to whichever does not block it, which then loses it.
pub fn block() {
    // It has no errors but for arguments that this cannot have.
    let _ = only().thread_block();
}

/// Takes that back in this thread, before another program takes the place of this one: what is blocked
/// stays so, and that program may have a handler.
pub fn unblock() {
    // As in `block`.
    let _ = only().thread_unblock();
}

/// Where it is read.
#[derive(Debug)]
pub struct Sigchld(AsyncFd<SignalFd>);

impl Sigchld {
    /// Reads it from now on. [`block`] was called before. Needs a tokio runtime.
    ///
    /// # Errors
    /// When the kernel gives no descriptor.
    pub fn new() -> io::Result<Sigchld> {
        // Whoever started this process may have had it ignored, and then there are no statuses
        // (sigaction(2)). That a child was stopped or goes on is nothing to be woken for.
        let usual = SigAction::new(SigHandler::SigDfl, SaFlags::SA_NOCLDSTOP, SigSet::empty());
        // SAFETY: there is no handler.
        unsafe { sigaction(Signal::SIGCHLD, &usual) }?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let descriptor = SignalFd::with_flags(&only(), flags)?;
        // SAFETY: it is open, and stays the same, for as long as it is owned.
        let ready = unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }?;
        Ok(Sigchld(ready))
    }

    /// Waits until it has come. One may stand for many ends.
    ///
    /// # Errors
    /// When the runtime ends.
    pub async fn recv(&self) -> io::Result<()> {
        let mut ready = self.0.readable().await?;
        // Before it is read: one that comes afterwards makes it ready again. There is at most one.
        ready.clear_ready();
        // Where there was none after all, somebody looks in vain.
        let _ = self.0.get_ref().read_signal();
        Ok(())
    }
}
