//! When a thread gets a processor.

/// From now on this thread does not take the processor from one that has it when it is woken up
/// (sched(7), `SCHED_BATCH`): for what only writes down or tells what others have done, while
/// a process may just be on its way to its first instruction.
pub fn never_preempts() {
    let usual = libc::sched_param { sched_priority: 0 };
    // SAFETY: the structure is read and nothing is kept. 0 is the calling thread.
    let _ = unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const usual) };
    // Where that is not allowed it takes a little from others, and works as well.
}

#[cfg(test)]
mod tests {
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
