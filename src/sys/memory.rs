//! Memory that is not needed any more, and memory that another program is to read.

use rustix::fs::{MemfdFlags, SealFlags};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;

/// Memory that has this in it and cannot be changed any more (memfd_create(2)).
///
/// # Errors
/// What the system says.
pub fn sealed(name: &str, content: &[u8]) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = File::from(rustix::fs::memfd_create(name, flags)?);
    file.write_all(content)?;
    let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals)?;
    Ok(file.into())
}

/// Gives memory that was freed back to the system (malloc_trim(3)): reading a large configuration
/// needs many times of what is kept of it, and the allocator would keep all of it for good.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: touches only what nobody uses.
    unsafe {
        libc::malloc_trim(0);
    }
}
