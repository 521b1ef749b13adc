//! The shim: the first program of every child. It is started with the arguments and the environment
//! of the command, waits on its socket until the daemon has recorded its pid, sets up what a process
//! can only set up for itself, and becomes the command.
//!
//! It has no library and no allocator: a few kilobytes that start in microseconds, in which every
//! step is a system call. Where one fails it says so on the socket and ends; that the command was
//! executed is seen by the socket closing.
//!
//! End of file before an instruction means that the daemon died between starting this process and
//! recording it: it ends, so that nothing runs that nobody knows of.

#![no_std]
#![no_main]

mod kernel;
mod message;
mod sockets;

use core::ffi::CStr;
use core::sync::atomic::{AtomicUsize, Ordering};
use kernel::*;
use message::{
    Credentials, FIRST_SOCKET, Instruction, MAX_INSTRUCTION, NO_INDEX, Report, SOCKET_FD, Stage,
};

type Failure = (Stage, Errno, u32);

#[cfg(target_arch = "x86_64")]
core::arch::global_asm!(
    ".globl _start",
    "_start:",
    "xor ebp, ebp",
    "mov rdi, rsp",
    "and rsp, -16",
    "call {main}",
    "ud2",
    main = sym main,
);

#[cfg(target_arch = "aarch64")]
core::arch::global_asm!(
    ".globl _start",
    "_start:",
    "mov x29, xzr",
    "mov x30, xzr",
    "mov x0, sp",
    "bl {main}",
    "brk #1",
    main = sym main,
);

/// Where the socket is now.
static SOCKET: AtomicUsize = AtomicUsize::new(SOCKET_FD as usize);

fn socket() -> usize {
    SOCKET.load(Ordering::Relaxed)
}

#[repr(align(8))]
struct Buffer([u8; MAX_INSTRUCTION]);

static mut BUFFER: Buffer = Buffer([0; MAX_INSTRUCTION]);

/// The initial stack, as the kernel leaves it (x86-64 psABI 3.4.1; the same on aarch64): the number
/// of arguments, the arguments, a null, the environment, a null.
#[derive(Clone, Copy)]
struct Stack(*mut usize);

impl Stack {
    fn argv(self) -> *mut usize {
        self.0.wrapping_add(1)
    }

    fn envp(self) -> *mut usize {
        // SAFETY: the kernel put the number of arguments there.
        let argc = unsafe { *self.0 };
        self.argv().wrapping_add(argc + 1)
    }
}

extern "C" fn main(stack: *mut usize) -> ! {
    let failure = match read_instruction() {
        Ok(instruction) => match become_command(&instruction, Stack(stack)) {
            Ok(never) => never,
            Err(failure) => failure,
        },
        Err(failure) => failure,
    };
    report(failure);
    exit(127)
}

fn become_command(instruction: &Instruction, stack: Stack) -> Result<Failure, Failure> {
    let at = |stage| move |errno| (stage, errno, NO_INDEX);
    // First: later there may be a limit in the way.
    let count = instruction.sockets as usize;
    if count > 0 {
        sockets::take(count, stack).map_err(at(Stage::Sockets))?;
    }
    // The socket must close when the command is executed: that is how the daemon sees it.
    fcntl(socket(), F_SETFD, FD_CLOEXEC).map_err(at(Stage::Session))?;
    sys(nr::SETSID, [0; 5]).map_err(at(Stage::Session))?;
    reset_signals(instruction.ignored);
    if instruction.oom_adjusted {
        reset_oom_score();
    }
    for limit in instruction.limits.iter() {
        let pair = [limit.soft, limit.hard];
        sys(nr::SETRLIMIT, [limit.resource as usize, pair.as_ptr() as usize, 0, 0, 0])
            .map_err(|errno| (Stage::Limits, errno, limit.resource))?;
    }
    if let Some(nice) = instruction.nice {
        sys(nr::SETPRIORITY, [0, 0, nice as usize, 0, 0]).map_err(at(Stage::Nice))?;
    }
    // umask cannot fail.
    let _ = sys(nr::UMASK, [instruction.umask as usize, 0, 0, 0, 0]);
    if let Some(credentials) = &instruction.credentials {
        change_user(credentials).map_err(at(Stage::Credentials))?;
    }
    sys(nr::CHDIR, [address(instruction.cwd), 0, 0, 0, 0]).map_err(at(Stage::Cwd))?;
    if let Some(path) = instruction.log_file {
        connect_log(path).map_err(|(errno, index)| (Stage::LogFile, errno, index))?;
    }
    if let Some(path) = instruction.pid_file {
        write_pid(path).map_err(|(errno, index)| (Stage::PidFile, errno, index))?;
    }
    close_the_rest(count);
    Err(execute(instruction, stack))
}

fn read_instruction() -> Result<Instruction<'static>, Failure> {
    let malformed = (Stage::Instruction, EPROTO, NO_INDEX);
    // SAFETY: there is one thread, and this is the only reference that is ever made.
    let buffer = unsafe { &mut (*(&raw mut BUFFER)).0 };
    let (head, body) = buffer.split_at_mut(4);
    read_all(head)?;
    let len = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
    let Some(body) = body.get_mut(..len) else { return Err(malformed) };
    read_all(body)?;
    Instruction::decode(body).ok_or(malformed)
}

/// Fills `buffer` from the socket. At end of file the daemon is gone: nobody would hear a report.
fn read_all(mut buffer: &mut [u8]) -> Result<(), Failure> {
    while !buffer.is_empty() {
        let to = [socket(), buffer.as_mut_ptr() as usize, buffer.len(), 0, 0];
        match sys(nr::READ, to) {
            Ok(0) => exit(127),
            Ok(n) => buffer = &mut buffer[n..],
            Err(EINTR) => {}
            Err(errno) => return Err((Stage::Instruction, errno, NO_INDEX)),
        }
    }
    Ok(())
}

/// All dispositions to their default and nothing blocked: an ignored signal would stay ignored in
/// the command, what was handled is not any more since this program was executed, and the daemon had
/// all blocked when it made this process.
fn reset_signals(ignored: u64) {
    // The kernel's own struct sigaction: handler SIG_DFL, flags, restorer, mask, all zero.
    let default = [0_usize; 4];
    for signal in (1..=64).filter(|signal| ignored >> (signal - 1) & 1 == 1) {
        // It can only fail for signals that cannot be ignored.
        let _ = sys(nr::RT_SIGACTION, [signal, default.as_ptr() as usize, 0, 8, 0]);
    }
    const SIG_SETMASK: usize = 2;
    let nothing = 0_u64;
    let _ = sys(nr::RT_SIGPROCMASK, [SIG_SETMASK, &raw const nothing as usize, 0, 8, 0]);
}

/// Only raising is always allowed, and a wish that is refused is no reason not to run.
fn reset_oom_score() {
    let path = address(c"/proc/self/oom_score_adj");
    if let Ok(fd) = sys(nr::OPENAT, [AT_FDCWD, path, O_WRONLY | O_CLOEXEC, 0, 0]) {
        let _ = sys(nr::WRITE, [fd, c"0".as_ptr() as usize, 1, 0, 0]);
        close(fd);
    }
}

/// Groups first: without the old user id they could not be changed any more. What came of it is
/// read back, because a process that keeps what it should have given up must not run.
fn change_user(to: &Credentials) -> Result<(), Errno> {
    let (uid, gid) = (to.uid as usize, to.gid as usize);
    sys(nr::SETGROUPS, [to.groups.len() / 4, to.groups.as_ptr() as usize, 0, 0, 0])?;
    sys(nr::SETRESGID, [gid, gid, gid, 0, 0])?;
    sys(nr::SETRESUID, [uid, uid, uid, 0, 0])?;
    // Capabilities that the daemon was given to pass on are not for its children.
    const PR_CAP_AMBIENT: usize = 47;
    const PR_CAP_AMBIENT_CLEAR_ALL: usize = 4;
    match sys(nr::PRCTL, [PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0]) {
        Ok(_) | Err(EINVAL) => {}
        Err(errno) => return Err(errno),
    }
    let is = |number, id: u32| {
        let mut ids = [u32::MAX; 3];
        let [real, effective, saved] = &mut ids;
        let to =
            [real as *mut u32 as usize, effective as *mut u32 as usize, saved as *mut u32 as usize];
        sys(number, [to[0], to[1], to[2], 0, 0]).is_ok() && ids == [id; 3]
    };
    if is(nr::GETRESUID, to.uid) && is(nr::GETRESGID, to.gid) { Ok(()) } else { Err(EPERM) }
}

/// Opens the log file as the user and makes it standard output and standard error.
fn connect_log(path: &CStr) -> Result<(), (Errno, u32)> {
    let fd = open_as_user(path, O_APPEND, 0o640)?;
    let connect = || {
        // Opened without waiting, so that a fifo cannot hold us up; the command gets a plain file.
        let flags = fcntl(fd, F_GETFL, 0)?;
        fcntl(fd, F_SETFL, flags & !O_NONBLOCK)?;
        sys(nr::DUP3, [fd, 1, 0, 0, 0])?;
        sys(nr::DUP3, [fd, 2, 0, 0, 0])
    };
    connect().map_err(|errno| (errno, 0))?;
    close(fd);
    Ok(())
}

fn write_pid(path: &CStr) -> Result<(), (Errno, u32)> {
    let fd = open_as_user(path, 0, 0o644)?;
    let result = require_regular_file(fd).and_then(|()| {
        sys(nr::FTRUNCATE, [fd, 0, 0, 0, 0])?;
        let mut text = [b'\n'; 11];
        let mut start = text.len() - 1;
        let mut pid = sys(nr::GETPID, [0; 5])?;
        while pid > 0 {
            start -= 1;
            text[start] = b'0' + (pid % 10) as u8;
            pid /= 10;
        }
        let text = &text[start..];
        sys(nr::WRITE, [fd, text.as_ptr() as usize, text.len(), 0, 0])
    });
    close(fd);
    result.map(|_| ()).map_err(|errno| (errno, 0))
}

/// A pid in a device or a fifo would be read by somebody else.
fn require_regular_file(fd: usize) -> Result<(), Errno> {
    const AT_EMPTY_PATH: usize = 0x1000;
    const STATX_TYPE: usize = 1;
    const S_IFMT: u16 = 0o170_000;
    const S_IFREG: u16 = 0o100_000;
    /// `stx_mode` of struct statx (statx(2)): byte 28.
    const MODE_AT: usize = 28;
    let mut statx = [0_u64; 32];
    let to = statx.as_mut_ptr() as usize;
    sys(nr::STATX, [fd, c"".as_ptr() as usize, AT_EMPTY_PATH, STATX_TYPE, to])?;
    let word = statx[MODE_AT / 8].to_ne_bytes();
    let mode = u16::from_ne_bytes([word[MODE_AT % 8], word[MODE_AT % 8 + 1]]);
    if mode & S_IFMT == S_IFREG { Ok(()) } else { Err(EINVAL) }
}

/// Opens a file for writing, makes it and its directory where they are missing, and follows no
/// symlink at its end. The number in the error is the length of the directory that was in the way.
fn open_as_user(path: &CStr, extra: usize, mode: usize) -> Result<usize, (Errno, u32)> {
    let flags = O_WRONLY | O_CREAT | nr::O_NOFOLLOW | O_CLOEXEC | O_NOCTTY | O_NONBLOCK | extra;
    let open = || sys(nr::OPENAT, [AT_FDCWD, address(path), flags, mode, 0]);
    match open() {
        Err(ENOENT) => {
            make_parents(path)?;
            open().map_err(|errno| (errno, 0))
        }
        other => other.map_err(|errno| (errno, 0)),
    }
}

fn make_parents(path: &CStr) -> Result<(), (Errno, u32)> {
    const PATH_MAX: usize = 4096;
    let bytes = path.to_bytes();
    let mut copy = [0_u8; PATH_MAX];
    let Some(room) = copy.get_mut(..bytes.len()) else { return Ok(()) };
    room.copy_from_slice(bytes);
    for at in 1..bytes.len() {
        if copy[at] != b'/' || copy[at - 1] == b'/' {
            continue;
        }
        copy[at] = 0;
        let directory = copy.as_ptr() as usize;
        let made = sys(nr::MKDIRAT, [AT_FDCWD, directory, 0o755, 0, 0]);
        // What exists may be in a place where we may make nothing.
        let there = sys(nr::FACCESSAT, [AT_FDCWD, directory, 0, 0, 0]);
        copy[at] = b'/';
        if let (Err(errno), Err(_)) = (made, there) {
            return Err((errno, at as u32));
        }
    }
    Ok(())
}

/// Everything is opened close-on-exec; this is for what is not, such as what the daemon itself
/// inherited. What stays are the sockets of the command, and ours.
fn close_the_rest(sockets: usize) {
    let first = FIRST_SOCKET as usize + sockets;
    close_range(first, socket().saturating_sub(1));
    close_range(socket() + 1, u32::MAX as usize);
}

fn close_range(first: usize, last: usize) {
    if first <= last && sys(nr::CLOSE_RANGE, [first, last, 0, 0, 0]).is_err() {
        // Some container runtimes forbid the call.
        const ENOUGH: usize = 4095;
        (first..=last.min(ENOUGH)).for_each(close);
    }
}

/// Tries the candidates by the rules of execvp(3). Returns only when none could be executed.
fn execute(instruction: &Instruction, stack: Stack) -> Failure {
    let (argv, envp) = (stack.argv() as usize, stack.envp() as usize);
    let mut worst = (Stage::Exec, ENOENT, NO_INDEX);
    for (index, path) in (0..).zip(instruction.candidates.iter()) {
        let Err(errno) = sys(nr::EXECVE, [address(path), argv, envp, 0, 0]) else { continue };
        match errno {
            ENOEXEC => return (Stage::Exec, execute_as_script(path, stack), index),
            EACCES => worst = (Stage::Exec, EACCES, index),
            ENOENT => {
                // The file is there and the program that shall interpret it is not.
                if worst.2 == NO_INDEX
                    && sys(nr::FACCESSAT, [AT_FDCWD, address(path), 0, 0, 0]).is_ok()
                {
                    worst.2 = index;
                }
            }
            ENOTDIR | ENODEV | ESTALE | ETIMEDOUT => {}
            errno => return (Stage::Exec, errno, index),
        }
    }
    worst
}

/// A text file without `#!` is a script for the shell, since before there was `#!`.
fn execute_as_script(path: &CStr, stack: Stack) -> Errno {
    // The vector needs one place more in front; the count before it is not needed any more.
    // SAFETY: both words lie in the initial stack, which is ours; the environment was found already.
    let envp = stack.envp() as usize;
    unsafe {
        *stack.0 = c"/bin/sh".as_ptr() as usize;
        *stack.argv() = address(path);
    }
    match sys(nr::EXECVE, [c"/bin/sh".as_ptr() as usize, stack.0 as usize, envp, 0, 0]) {
        Ok(_) => ENOEXEC,
        Err(errno) => errno,
    }
}

fn report((stage, errno, index): Failure) {
    let bytes = Report { stage, errno: errno.0, index }.encode();
    // If nobody listens any more there is nobody to tell.
    let _ = sys(nr::WRITE, [socket(), bytes.as_ptr() as usize, bytes.len(), 0, 0]);
}

const F_SETFD: usize = 2;
/// `F_DUPFD_CLOEXEC`.
const F_DUPFD: usize = 1030;
const F_GETFL: usize = 3;
const F_SETFL: usize = 4;
const FD_CLOEXEC: usize = 1;

fn fcntl(fd: usize, command: usize, arg: usize) -> Result<usize, Errno> {
    sys(nr::FCNTL, [fd, command, arg, 0, 0])
}

fn close(fd: usize) {
    let _ = sys(nr::CLOSE, [fd, 0, 0, 0, 0]);
}

fn exit(code: usize) -> ! {
    loop {
        let _ = sys(nr::EXIT_GROUP, [code, 0, 0, 0, 0]);
    }
}

fn address(text: &CStr) -> usize {
    text.as_ptr() as usize
}

fn sys(number: usize, args: [usize; 5]) -> Result<usize, Errno> {
    // SAFETY: all callers are in this file, and pass addresses of what outlives the call and is as
    // large as the kernel takes it to be.
    unsafe { call(number, args) }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    exit(126)
}

/// The precompiled core library names it; nothing unwinds here.
#[unsafe(no_mangle)]
pub extern "C" fn rust_eh_personality() {}

// What the compiler calls for copies and comparisons. Volatile, or the compiler would see the loop
// for what it is and call it from within itself.

/// As in C.
///
/// # Safety
/// As in C.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, n: usize) -> *mut u8 {
    for i in 0..n {
        // SAFETY: the caller promises n bytes on both sides.
        unsafe { to.add(i).write_volatile(from.add(i).read_volatile()) };
    }
    to
}

/// As in C.
///
/// # Safety
/// As in C.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memset(to: *mut u8, byte: i32, n: usize) -> *mut u8 {
    for i in 0..n {
        // SAFETY: the caller promises n bytes.
        unsafe { to.add(i).write_volatile(byte as u8) };
    }
    to
}

/// As in C.
///
/// # Safety
/// As in C.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, n: usize) -> i32 {
    for i in 0..n {
        // SAFETY: the caller promises n bytes on both sides.
        let (a, b) = unsafe { (a.add(i).read_volatile(), b.add(i).read_volatile()) };
        if a != b {
            return i32::from(a) - i32::from(b);
        }
    }
    0
}

/// As in C.
///
/// # Safety
/// As in C.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, n: usize) -> i32 {
    // SAFETY: the same promise.
    unsafe { memcmp(a, b, n) }
}

/// As in C.
///
/// # Safety
/// As in C.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn strlen(text: *const u8) -> usize {
    let mut n = 0;
    // SAFETY: the caller promises a NUL.
    while unsafe { text.add(n).read_volatile() } != 0 {
        n += 1;
    }
    n
}
