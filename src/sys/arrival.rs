//! Where signals arrive: in one thread that can be told to let them wait.
//!
//! What is blocked in all threads waits in the kernel, also over execve(2); a handler that has run is
//! forgotten there. So the signals that ask for something are blocked in every thread but one, and
//! that one blocks them as well while another program is about to take this one's place.

use nix::sys::signal::{SigSet, Signal};
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};

/// The signals that ask for something.
const ASKING: [Signal; 4] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGUSR1];

fn asking() -> SigSet {
    ASKING.into_iter().collect()
}

/// Lets them wait in this thread, and in those that it starts from now on.
pub fn defer() {
    // It has no errors but for arguments that this cannot have.
    let _ = asking().thread_block();
}

/// The thread in which they arrive, if they do.
#[derive(Debug)]
pub struct Arrival {
    orders: Sender<bool>,
    done: Mutex<Receiver<()>>,
}

impl Arrival {
    /// Lets them arrive from now on; [`defer`] was called before any other thread was started.
    ///
    /// # Errors
    /// When there can be no thread: then they arrive in this one, and cannot be told to wait.
    pub fn begin() -> io::Result<Arrival> {
        let (orders, given) = channel();
        let (finished, done) = channel();
        let thread = std::thread::Builder::new().name("signals".into());
        let started = thread.spawn(move || {
            while let Ok(may_arrive) = given.recv() {
                // As in `defer`.
                let _ = match may_arrive {
                    true => asking().thread_unblock(),
                    false => asking().thread_block(),
                };
                if finished.send(()).is_err() {
                    return;
                }
            }
        });
        if let Err(error) = started {
            let _ = asking().thread_unblock();
            return Err(error);
        }
        let arrival = Arrival { orders, done: Mutex::new(done) };
        arrival.set(true);
        Ok(arrival)
    }

    /// Lets them arrive, or wait. What has arrived before this returns was handled by its handler.
    pub fn set(&self, may_arrive: bool) {
        // The thread lives as long as this.
        if self.orders.send(may_arrive).is_ok() {
            let _ = self.done.lock().unwrap_or_else(PoisonError::into_inner).recv();
        }
    }
}
