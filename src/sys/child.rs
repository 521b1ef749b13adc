//! What a process does between clone and its command: all that only it can set up for itself.
//!
//! It runs on a stack of its own and, as a rule, in the daemon's memory beside the daemon's threads
//! ([`super::clone`]). So it calls no library, allocates nothing and never panics: every step is a
//! system call, and it reads only what was put together for it before.
//!
//! It takes its descriptors, lets go of all others, becomes the leader of a session, and waits at a
//! gate until the daemon has recorded its pid. Only then it does what can be seen from outside, and
//! executes the command. Where a step fails it says so on its socket and ends; that the command was
//! executed is seen by the socket closing.
//!
//! End of file at the gate means that the daemon died between making this process and recording it:
//! it ends, so that nothing runs that nobody knows of.

use super::kernel::{self, Errno};
use super::setup::{Ids, Limit, MAX_SOCKETS, NO_INDEX, Report, Setup, Stage};
use std::ffi::{CStr, CString, c_char};
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicPtr, AtomicU8, Ordering};

/// Where a command finds the sockets that are held for it (sd_listen_fds(3)).
const FIRST_SOCKET: RawFd = 3;

/// What a process has at first, and where it finds its descriptors.
#[derive(Clone, Copy)]
pub(super) struct Sources {
    /// Its standard input, output and error. None is below 3.
    pub(super) stdio: [RawFd; 3],
    /// Its socket.
    pub(super) socket: RawFd,
    /// The daemon's end of that, which it must not have: its own copy would keep it waiting for ever.
    pub(super) other_end: RawFd,
    /// The table of descriptors is the daemon's until it has taken a copy of all below this. None: it
    /// has a copy.
    pub(super) copy_below: Option<RawFd>,
    /// Its memory is a copy of the daemon's.
    pub(super) is_memory_copied: bool,
}

/// All that a process needs to know.
pub(super) struct Job {
    sources: Sources,
    setup: Setup,
    /// The argument vector with its null, after one place that is free.
    argv: Vec<AtomicPtr<c_char>>,
    /// The environment, with its null.
    env: Vec<*const c_char>,
    /// The variable that names the process, with room for the number, which nobody knows before there
    /// is a process.
    listen_pid: Vec<AtomicU8>,
    /// What the vectors point into.
    _texts: [Vec<CString>; 2],
}

const LISTEN_PID: &str = "LISTEN_PID=";
const PID_DIGITS: usize = 10;

impl Job {
    pub(super) fn new(
        sources: Sources,
        setup: Setup,
        argv: Vec<CString>,
        env: Vec<CString>,
    ) -> Job {
        let room = std::iter::repeat_n(0, PID_DIGITS + 1);
        let listen_pid: Vec<AtomicU8> = LISTEN_PID.bytes().chain(room).map(AtomicU8::new).collect();
        let named = (setup.sockets > 0).then(|| listen_pid.as_ptr().cast());
        let null = std::ptr::null;
        Job {
            argv: std::iter::once(null())
                .chain(argv.iter().map(|text| text.as_ptr()))
                .chain([null()])
                .map(|text| AtomicPtr::new(text.cast_mut()))
                .collect(),
            env: env.iter().map(|text| text.as_ptr()).chain(named).chain([null()]).collect(),
            listen_pid,
            sources,
            setup,
            _texts: [argv, env],
        }
    }

    /// Where its socket is, when it has its own table: above the places of the sockets it is given.
    fn socket(&self) -> usize {
        FIRST_SOCKET as usize + self.setup.sockets.min(MAX_SOCKETS)
    }
}

type Failure = (Stage, Errno, u32);

/// Becomes the command, or ends. The signals in `kept` (bit 0 is signal 1) may be ignored or handled as
/// they are in the daemon. `has_table` is called when the daemon's descriptors are not needed any more.
pub(super) fn run(job: &Job, kept: u64, has_table: impl FnOnce()) -> ! {
    let failed = match take_descriptors(job) {
        // It is found where the daemon has put it.
        Err(errno) => ((Stage::Descriptors, errno, NO_INDEX), job.sources.socket as usize),
        Ok(()) => {
            has_table();
            (become_command(job, kept), job.socket())
        }
    };
    let ((stage, errno, index), socket) = failed;
    let bytes = Report { stage, errno: errno.0, index }.encode();
    // If nobody listens any more there is nobody to tell.
    let _ = sys(libc::SYS_write, [socket, bytes.as_ptr() as usize, bytes.len(), 0, 0]);
    exit(127)
}

/// A table of its own with nothing in it but what is for this process.
fn take_descriptors(job: &Job) -> Result<(), Errno> {
    let Sources { stdio, socket, other_end, copy_below, .. } = job.sources;
    if let Some(end) = copy_below {
        unshare_from(end.cast_unsigned())?;
    }
    // By name: without close_range(2) not all others are closed.
    close(other_end as usize);
    for (to, from) in stdio.into_iter().enumerate() {
        sys(libc::SYS_dup3, [from as usize, to, 0, 0, 0])?;
    }
    // Last: it may take the place of one of the others, or be in its own.
    let own = job.socket();
    if socket as usize != own {
        sys(libc::SYS_dup3, [socket as usize, own, libc::O_CLOEXEC as usize, 0, 0])?;
    }
    close_range(FIRST_SOCKET as usize, own - 1);
    close_range(own + 1, u32::MAX as usize);
    Ok(())
}

/// Gives whoever calls it a table of descriptors of its own, without those from `first` on.
pub(super) fn unshare_from(first: u32) -> Result<usize, Errno> {
    let unshare = libc::CLOSE_RANGE_UNSHARE as usize;
    // Closes nothing of others: it gives the caller a table of its own first.
    sys(libc::SYS_close_range, [first as usize, u32::MAX as usize, unshare, 0, 0])
}

/// Returns only when the command could not be executed.
fn become_command(job: &Job, kept: u64) -> Failure {
    let at = |stage| move |errno| (stage, errno, NO_INDEX);
    let prepared = sys(libc::SYS_setsid, [0; 5]).map_err(at(Stage::Session)).and_then(|_| {
        reset_dispositions(kept);
        wait_at_gate(job.socket()).map_err(at(Stage::Session))?;
        set_up(job)
    });
    match prepared {
        Err(failure) => failure,
        Ok(()) => {
            unblock_signals();
            execute(job)
        }
    }
}

/// Waits for one byte. At end of file the daemon is gone.
fn wait_at_gate(socket: usize) -> Result<(), Errno> {
    let mut byte = 0_u8;
    match retried(libc::SYS_read, [socket, &raw mut byte as usize, 1, 0, 0])? {
        0 => exit(127),
        _ => Ok(()),
    }
}

fn set_up(job: &Job) -> Result<(), Failure> {
    let at = |stage| move |errno| (stage, errno, NO_INDEX);
    let setup = &job.setup;
    // First: later there may be a limit in the way.
    if setup.sockets > 0 {
        take_sockets(job).map_err(at(Stage::Sockets))?;
    }
    if setup.oom_adjusted {
        reset_oom_score();
    }
    for Limit { resource, soft, hard } in &setup.limits {
        let pair = [*soft, *hard];
        let limit = [0, *resource as usize, pair.as_ptr() as usize, 0, 0];
        sys(libc::SYS_prlimit64, limit).map_err(|errno| (Stage::Limits, errno, *resource))?;
    }
    if let Some(nice) = setup.nice {
        sys(libc::SYS_setpriority, [0, 0, nice as usize, 0, 0]).map_err(at(Stage::Nice))?;
    }
    if let Some(umask) = setup.umask {
        // It cannot fail.
        let _ = sys(libc::SYS_umask, [umask as usize, 0, 0, 0, 0]);
    }
    if let Some(ids) = &setup.ids {
        change_user(ids).map_err(at(Stage::Credentials))?;
        if job.sources.is_memory_copied {
            // An administrator may let others look into what has changed its user; there is more in this
            // than what is the user's. Between the two calls it can be seen.
            let _ = sys(libc::SYS_prctl, [libc::PR_SET_DUMPABLE as usize, 0, 0, 0, 0]);
        }
    }
    if let Some(cwd) = &setup.cwd {
        sys(libc::SYS_chdir, [address(cwd), 0, 0, 0, 0]).map_err(at(Stage::Cwd))?;
    }
    if let Some(path) = &setup.log_file {
        connect_log(path).map_err(|(errno, index)| (Stage::LogFile, errno, index))?;
    }
    if let Some(path) = &setup.pid_file {
        write_pid(path).map_err(|(errno, index)| (Stage::PidFile, errno, index))?;
    }
    Ok(())
}

/// What is ignored would stay ignored in the command; and what is handled would be handled in the
/// daemon's memory, once nothing is blocked any more. Only those of `kept` can be either.
///
/// A signal that has a process leave a core is one that kills it until it has executed its command, by
/// when it is the command's: the core would be that of the daemon's memory, and before Linux 5.16 all
/// who share the memory are killed for it (core(5)).
fn reset_dispositions(kept: u64) {
    const LEAVES_CORE: u64 = mask_of(libc::SIGQUIT)
        | mask_of(libc::SIGILL)
        | mask_of(libc::SIGTRAP)
        | mask_of(libc::SIGABRT)
        | mask_of(libc::SIGBUS)
        | mask_of(libc::SIGFPE)
        | mask_of(libc::SIGSEGV)
        | mask_of(libc::SIGXCPU)
        | mask_of(libc::SIGXFSZ)
        | mask_of(libc::SIGSYS);
    /// x86-64 enters no handler without it; where it would return to is of no use to one that does not.
    const SA_RESTORER: usize = 0x0400_0000;
    let flags = if cfg!(target_arch = "x86_64") { SA_RESTORER } else { 0 };
    let dies = die as *const () as usize;
    // The kernel's own struct sigaction: handler, flags, restorer or mask, mask.
    let (default, deadly) = ([0_usize; 4], [dies, flags, dies * usize::from(flags != 0), 0]);
    let mut left = kept | LEAVES_CORE;
    while left != 0 {
        let signal = left.trailing_zeros() as usize + 1;
        left &= left - 1;
        let action = if LEAVES_CORE >> (signal - 1) & 1 == 1 { &deadly } else { &default };
        // It can only fail for signals that cannot be ignored or handled.
        let _ = sys(libc::SYS_rt_sigaction, [signal, action.as_ptr() as usize, 0, 8, 0]);
    }
}

const fn mask_of(signal: i32) -> u64 {
    1 << (signal - 1)
}

/// Ends this process, and leaves nothing.
extern "C" fn die(_: i32) {
    let own = sys(libc::SYS_getpid, [0; 5]).unwrap_or(0);
    if own > 0 {
        let _ = sys(libc::SYS_kill, [own, libc::SIGKILL as usize, 0, 0, 0]);
    }
    exit(127)
}

/// All were blocked when this process was made, or a handler would have run in the daemon's memory.
fn unblock_signals() {
    let nothing = 0_u64;
    let to = [libc::SIG_SETMASK as usize, &raw const nothing as usize, 0, 8, 0];
    let _ = sys(libc::SYS_rt_sigprocmask, to);
}

/// Only raising is always allowed, and a wish that is refused is no reason not to run.
fn reset_oom_score() {
    let path = address(c"/proc/self/oom_score_adj");
    let flags = (libc::O_WRONLY | libc::O_CLOEXEC) as usize;
    if let Ok(fd) = sys(libc::SYS_openat, [AT_FDCWD, path, flags, 0, 0]) {
        let _ = sys(libc::SYS_write, [fd, c"0".as_ptr() as usize, 1, 0, 0]);
        close(fd);
    }
}

/// Groups first: without the old user id they could not be changed any more. What came of it is
/// read back, because a process that keeps what it should have given up must not run.
fn change_user(to: &Ids) -> Result<(), Errno> {
    let (uid, gid) = (to.uid as usize, to.gid as usize);
    sys(libc::SYS_setgroups, [to.groups.len(), to.groups.as_ptr() as usize, 0, 0, 0])?;
    sys(libc::SYS_setresgid, [gid, gid, gid, 0, 0])?;
    sys(libc::SYS_setresuid, [uid, uid, uid, 0, 0])?;
    // Capabilities that the daemon was given to pass on are not for its children.
    let clear = [libc::PR_CAP_AMBIENT as usize, libc::PR_CAP_AMBIENT_CLEAR_ALL as usize, 0, 0, 0];
    match sys(libc::SYS_prctl, clear) {
        Ok(_) | Err(Errno(libc::EINVAL)) => {}
        Err(errno) => return Err(errno),
    }
    let is = |number, id: u32| {
        let mut ids = [u32::MAX; 3];
        let to = ids.each_mut().map(|id| std::ptr::from_mut(id) as usize);
        sys(number, [to[0], to[1], to[2], 0, 0]).is_ok() && ids == [id; 3]
    };
    let has_become = is(libc::SYS_getresuid, to.uid) && is(libc::SYS_getresgid, to.gid);
    if has_become { Ok(()) } else { Err(Errno(libc::EPERM)) }
}

/// Opens the log file as the user and makes it standard output and standard error.
fn connect_log(path: &CStr) -> Result<(), (Errno, u32)> {
    let fd = open_as_user(path, libc::O_APPEND, 0o640)?;
    let connect = || {
        // Opened without waiting, so that a fifo cannot hold us up; the command gets a plain file.
        let flags = sys(libc::SYS_fcntl, [fd, libc::F_GETFL as usize, 0, 0, 0])?;
        let flags = flags & !(libc::O_NONBLOCK as usize);
        sys(libc::SYS_fcntl, [fd, libc::F_SETFL as usize, flags, 0, 0])?;
        sys(libc::SYS_dup3, [fd, 1, 0, 0, 0])?;
        sys(libc::SYS_dup3, [fd, 2, 0, 0, 0])
    };
    connect().map_err(|errno| (errno, 0))?;
    close(fd);
    Ok(())
}

fn write_pid(path: &CStr) -> Result<(), (Errno, u32)> {
    let fd = open_as_user(path, 0, 0o644)?;
    let result = require_regular_file(fd).and_then(|()| {
        sys(libc::SYS_ftruncate, [fd, 0, 0, 0, 0])?;
        let (mut text, start) = own_pid();
        // It ends with a NUL, for which a line has its end.
        text[PID_DIGITS] = b'\n';
        let text = text.get(start..).unwrap_or_default();
        sys(libc::SYS_write, [fd, text.as_ptr() as usize, text.len(), 0, 0])
    });
    close(fd);
    result.map(|_| ()).map_err(|errno| (errno, 0))
}

/// The number of this process in digits, from where they begin to the NUL at the end.
fn own_pid() -> ([u8; PID_DIGITS + 1], usize) {
    let mut text = [0; PID_DIGITS + 1];
    let mut rest = sys(libc::SYS_getpid, [0; 5]).unwrap_or(0);
    let mut start = PID_DIGITS;
    for place in text.iter_mut().rev().skip(1) {
        if rest == 0 {
            break;
        }
        *place = b'0' + (rest % 10) as u8;
        rest /= 10;
        start = start.saturating_sub(1);
    }
    (text, start)
}

/// A pid in a device or a fifo would be read by somebody else.
fn require_regular_file(fd: usize) -> Result<(), Errno> {
    let mut found = std::mem::MaybeUninit::<libc::statx>::zeroed();
    let flags = libc::AT_EMPTY_PATH as usize;
    let mask = libc::STATX_TYPE as usize;
    sys(libc::SYS_statx, [fd, address(c""), flags, mask, found.as_mut_ptr() as usize])?;
    // SAFETY: all-zero is a valid one, and the kernel has written it.
    let mode = u32::from(unsafe { found.assume_init() }.stx_mode);
    if mode & libc::S_IFMT == libc::S_IFREG { Ok(()) } else { Err(Errno(libc::EINVAL)) }
}

/// Opens a file for writing, makes it and its directory where they are missing, and follows no
/// symlink at its end. The number in the error is the length of the directory that was in the way.
fn open_as_user(path: &CStr, extra: i32, mode: usize) -> Result<usize, (Errno, u32)> {
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    let flags = (flags | libc::O_NOCTTY | libc::O_NONBLOCK | extra) as usize;
    let open = || sys(libc::SYS_openat, [AT_FDCWD, address(path), flags, mode, 0]);
    match open() {
        Err(Errno(libc::ENOENT)) => {
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
    // The kernel takes no longer one.
    let Some(room) = copy.get_mut(..bytes.len()) else { return Ok(()) };
    room.copy_from_slice(bytes);
    for (at, pair) in (1_u32..).zip(bytes.windows(2)) {
        let [before, b'/'] = pair else { continue };
        if *before == b'/' {
            continue;
        }
        let Some(slash) = copy.get_mut(at as usize) else { continue };
        *slash = 0;
        let directory = copy.as_ptr() as usize;
        let made = sys(libc::SYS_mkdirat, [AT_FDCWD, directory, 0o755, 0, 0]);
        // What exists may be in a place where we may make nothing.
        let there = sys(libc::SYS_faccessat, [AT_FDCWD, directory, 0, 0, 0]);
        if let Some(slash) = copy.get_mut(at as usize) {
            *slash = b'/';
        }
        if let (Err(errno), Err(_)) = (made, there) {
            return Err((errno, at));
        }
    }
    Ok(())
}

/// The head of a control message, and room for the descriptors (cmsg(3)).
#[repr(C)]
struct Control {
    length: usize,
    level: i32,
    kind: i32,
    descriptors: [i32; MAX_SOCKETS],
}

/// Takes the sockets that are held for the command (sd_listen_fds(3)): they come with one byte
/// (unix(7), `SCM_RIGHTS`). The kernel puts them into the first places that are free, which are those
/// where the command looks for them.
fn take_sockets(job: &Job) -> Result<(), Errno> {
    const HEAD: usize = 16;
    let count = job.setup.sockets;
    let mut byte = 0_u8;
    let vector = [&raw mut byte as usize, 1];
    let mut control = Control { length: 0, level: 0, kind: 0, descriptors: [-1; MAX_SOCKETS] };
    // `struct msghdr` (recvmsg(2)), one word for each place.
    let mut header =
        [0, 0, vector.as_ptr() as usize, 1, &raw mut control as usize, size_of::<Control>(), 0];
    let to = [job.socket(), header.as_mut_ptr() as usize, 0, 0, 0];
    if retried(libc::SYS_recvmsg, to)? == 0 {
        // The daemon is gone, and with it who would hear of it.
        exit(127);
    }
    let is_all = (control.level, control.kind) == (libc::SOL_SOCKET, libc::SCM_RIGHTS)
        && control.length == HEAD + 4 * count;
    let are_in_place = (FIRST_SOCKET..).zip(control.descriptors).take(count).all(|(a, b)| a == b);
    if !is_all || !are_in_place {
        return Err(Errno(libc::EPROTO));
    }
    let (digits, start) = own_pid();
    let number = digits.iter().skip(start);
    for (place, digit) in job.listen_pid.iter().skip(LISTEN_PID.len()).zip(number) {
        place.store(*digit, Ordering::Relaxed);
    }
    Ok(())
}

fn close_range(first: usize, last: usize) {
    if first <= last && sys(libc::SYS_close_range, [first, last, 0, 0, 0]).is_err() {
        // Some container runtimes forbid the call.
        const ENOUGH: usize = 4095;
        (first..=last.min(ENOUGH)).for_each(close);
    }
}

/// Tries the candidates by the rules of execvp(3). Returns only when none could be executed.
fn execute(job: &Job) -> Failure {
    let argv = job.argv.as_ptr().wrapping_add(1) as usize;
    let env = job.env.as_ptr() as usize;
    let mut worst = (Stage::Exec, Errno(libc::ENOENT), NO_INDEX);
    for (index, path) in (0..).zip(&job.setup.candidates) {
        let Err(errno) = sys(libc::SYS_execve, [address(path), argv, env, 0, 0]) else { continue };
        match errno.0 {
            libc::ENOEXEC if job.setup.shell_scripts => {
                return (Stage::Exec, execute_as_script(job, path), index);
            }
            libc::EACCES => worst = (Stage::Exec, errno, index),
            libc::ENOENT => {
                // The file is there and the program that shall interpret it is not.
                let there = sys(libc::SYS_faccessat, [AT_FDCWD, address(path), 0, 0, 0]);
                if worst.2 == NO_INDEX && there.is_ok() {
                    worst.2 = index;
                }
            }
            libc::ENOTDIR | libc::ENODEV | libc::ESTALE | libc::ETIMEDOUT => {}
            _ => return (Stage::Exec, errno, index),
        }
    }
    worst
}

/// A text file without `#!` is a script for the shell, since before there was `#!`.
fn execute_as_script(job: &Job, path: &CStr) -> Errno {
    const SHELL: &CStr = c"/bin/sh";
    // The free place is the first one, and the name of the program comes after it.
    for (place, text) in job.argv.iter().zip([SHELL, path]) {
        place.store(text.as_ptr().cast_mut(), Ordering::Relaxed);
    }
    let (argv, env) = (job.argv.as_ptr() as usize, job.env.as_ptr() as usize);
    match sys(libc::SYS_execve, [address(SHELL), argv, env, 0, 0]) {
        Ok(_) => Errno(libc::ENOEXEC),
        Err(errno) => errno,
    }
}

const AT_FDCWD: usize = libc::AT_FDCWD as usize;

fn close(fd: usize) {
    let _ = sys(libc::SYS_close, [fd, 0, 0, 0, 0]);
}

fn exit(code: usize) -> ! {
    loop {
        // Ends this process, which has only this thread.
        let _ = sys(libc::SYS_exit_group, [code, 0, 0, 0, 0]);
    }
}

fn address(text: &CStr) -> usize {
    text.as_ptr() as usize
}

/// Again where a signal came in between.
fn retried(number: i64, args: [usize; 5]) -> Result<usize, Errno> {
    loop {
        match sys(number, args) {
            Err(Errno(libc::EINTR)) => {}
            other => return other,
        }
    }
}

fn sys(number: i64, args: [usize; 5]) -> Result<usize, Errno> {
    // SAFETY: all callers are in this file, and pass addresses of what outlives the call and is as
    // large as the kernel takes it to be.
    unsafe { kernel::call(number, args) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_number_is_in_digits() {
        let (text, start) = own_pid();
        let shown = std::str::from_utf8(&text[start..PID_DIGITS]).unwrap();
        assert_eq!((shown, text[PID_DIGITS]), (&*std::process::id().to_string(), 0));
    }
}
