//! System calls without a library: numbers from the kernel's tables, one instruction each.
//!
//! Compiled twice: into the shim, and into the daemon for the few steps between clone and exec,
//! where a library must not be called.

#![allow(missing_docs, dead_code, reason = "the names are the kernel's; each side uses its part")]

use core::arch::asm;

/// An error number of the kernel.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub i32);

pub const ENOENT: Errno = Errno(2);
pub const EINTR: Errno = Errno(4);
pub const ENOEXEC: Errno = Errno(8);
pub const EACCES: Errno = Errno(13);
pub const ENODEV: Errno = Errno(19);
pub const ENOTDIR: Errno = Errno(20);
pub const EINVAL: Errno = Errno(22);
pub const EPERM: Errno = Errno(1);
pub const EPROTO: Errno = Errno(71);
pub const ETIMEDOUT: Errno = Errno(110);
pub const ESTALE: Errno = Errno(116);

pub const AT_FDCWD: usize = -100_isize as usize;

#[cfg(target_arch = "x86_64")]
pub mod nr {
    pub const READ: usize = 0;
    pub const WRITE: usize = 1;
    pub const CLOSE: usize = 3;
    pub const RT_SIGACTION: usize = 13;
    pub const RT_SIGPROCMASK: usize = 14;
    pub const GETPID: usize = 39;
    pub const RECVMSG: usize = 47;
    pub const EXECVE: usize = 59;
    pub const FCNTL: usize = 72;
    pub const FTRUNCATE: usize = 77;
    pub const CHDIR: usize = 80;
    pub const UMASK: usize = 95;
    pub const SETSID: usize = 112;
    pub const SETGROUPS: usize = 116;
    pub const SETRESUID: usize = 117;
    pub const GETRESUID: usize = 118;
    pub const SETRESGID: usize = 119;
    pub const GETRESGID: usize = 120;
    pub const SETPRIORITY: usize = 141;
    pub const PRCTL: usize = 157;
    pub const SETRLIMIT: usize = 160;
    pub const EXIT_GROUP: usize = 231;
    pub const OPENAT: usize = 257;
    pub const MKDIRAT: usize = 258;
    pub const FACCESSAT: usize = 269;
    pub const DUP3: usize = 292;
    pub const EXECVEAT: usize = 322;
    pub const STATX: usize = 332;
    pub const CLOSE_RANGE: usize = 436;
    pub const O_NOFOLLOW: usize = 0o400_000;
}

#[cfg(target_arch = "aarch64")]
pub mod nr {
    pub const DUP3: usize = 24;
    pub const FCNTL: usize = 25;
    pub const MKDIRAT: usize = 34;
    pub const FTRUNCATE: usize = 46;
    pub const FACCESSAT: usize = 48;
    pub const CHDIR: usize = 49;
    pub const OPENAT: usize = 56;
    pub const CLOSE: usize = 57;
    pub const READ: usize = 63;
    pub const WRITE: usize = 64;
    pub const EXIT_GROUP: usize = 94;
    pub const RT_SIGACTION: usize = 134;
    pub const RT_SIGPROCMASK: usize = 135;
    pub const SETPRIORITY: usize = 140;
    pub const SETRESUID: usize = 147;
    pub const GETRESUID: usize = 148;
    pub const SETRESGID: usize = 149;
    pub const GETRESGID: usize = 150;
    pub const SETSID: usize = 157;
    pub const SETGROUPS: usize = 159;
    pub const SETRLIMIT: usize = 164;
    pub const UMASK: usize = 166;
    pub const PRCTL: usize = 167;
    pub const GETPID: usize = 172;
    pub const RECVMSG: usize = 212;
    pub const EXECVE: usize = 221;
    pub const EXECVEAT: usize = 281;
    pub const STATX: usize = 291;
    pub const CLOSE_RANGE: usize = 436;
    pub const O_NOFOLLOW: usize = 0o100_000;
}

pub const O_WRONLY: usize = 1;
pub const O_CREAT: usize = 0o100;
pub const O_NOCTTY: usize = 0o400;
pub const O_APPEND: usize = 0o2000;
pub const O_NONBLOCK: usize = 0o4000;
pub const O_CLOEXEC: usize = 0o2_000_000;

/// One system call.
///
/// # Safety
/// As the call itself: every address must be good for what the kernel does with it.
pub unsafe fn call(number: usize, args: [usize; 5]) -> Result<usize, Errno> {
    let result: isize;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the calling convention of the kernel on x86_64; rcx and r11 are what it destroys.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") args[0],
            in("rsi") args[1],
            in("rdx") args[2],
            in("r10") args[3],
            in("r8") args[4],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: the calling convention of the kernel on aarch64; only x0 is changed.
    unsafe {
        asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") args[0] as isize => result,
            in("x1") args[1],
            in("x2") args[2],
            in("x3") args[3],
            in("x4") args[4],
            options(nostack),
        );
    }
    if (-4095..0).contains(&result) { Err(Errno(-result as i32)) } else { Ok(result as usize) }
}
