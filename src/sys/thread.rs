//! What a thread is interrupted by, and whom it interrupts.

/// From now on this thread does not take the processor from one that has it when it is woken up
/// (sched(7), `SCHED_BATCH`): for what only writes down or tells what others have done, while
/// a process may just be on its way to its first instruction.
pub fn never_preempts() {
    let usual = libc::sched_param { sched_priority: 0 };
    // SAFETY: the structure is read and nothing is kept. 0 is the calling thread.
    let _ = unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const usual) };
    // Where that is not allowed it takes a little from others, and works as well.
}

/// From now on this thread is not interrupted by the end of a child (SIGCHLD). The kernel gives such a
/// signal to any thread that takes it; one that rests would be woken for nothing but to say so to the
/// one that sees to it, on a processor that others need while many end.
pub fn leaves_ends_to_others() {
    let ends: nix::sys::signal::SigSet = [nix::sys::signal::Signal::SIGCHLD].into_iter().collect();
    // It has no errors but for arguments that this cannot have.
    let _ = ends.thread_block();
}

#[cfg(test)]
mod tests {
    #[test]
    fn who_leaves_ends_to_others_has_that_signal_blocked_and_no_other() {
        let blocked = || nix::sys::signal::SigSet::thread_get_mask().unwrap();
        let before = blocked();
        let changed = std::thread::spawn(move || {
            super::leaves_ends_to_others();
            blocked()
        });
        let mut wanted = before;
        wanted.add(nix::sys::signal::Signal::SIGCHLD);
        assert_eq!(changed.join().unwrap(), wanted);
        assert_eq!(blocked(), before);
    }

    #[test]
    fn only_the_thread_that_says_so_is_changed() {
        let policy = || {
            // SAFETY: it only asks.
            unsafe { libc::sched_getscheduler(0) }
        };
        let before = policy();
        let changed = std::thread::spawn(move || {
            super::never_preempts();
            policy()
        });
        assert_eq!(changed.join().unwrap(), libc::SCHED_BATCH);
        assert_eq!(policy(), before);
    }
}
