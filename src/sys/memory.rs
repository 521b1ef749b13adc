//! Memory that is not needed any more.

/// Gives memory that was freed back to the system (malloc_trim(3)): reading a large configuration
/// needs many times of what is kept of it, and the allocator would keep all of it for good.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: touches only what nobody uses.
    unsafe {
        libc::malloc_trim(0);
    }
}
