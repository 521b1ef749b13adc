//! Starting a process without copying anything of this one.
//!
//! `fork` copies the page tables of the daemon, 32 µs for each MiB of it. Here the child shares the
//! memory and the parent is held until the child has executed a program (`CLONE_VM | CLONE_VFORK`),
//! as posix_spawn(3) does it. In between the child runs on a stack of its own and does nothing but
//! place descriptors: it calls no library, because it shares the library's state with us.
//!
//! The table of descriptors is not copied either: with ten thousand processes it has tens of
//! thousands of entries. The child begins with ours (`CLONE_FILES`) and takes a copy of its lowest
//! entries only, which is what `CLOSE_RANGE_UNSHARE` of close_range(2) does. So all that it needs is
//! put into a few low slots before, which are kept for that.

use super::kernel::{self, Errno, nr};
use std::ffi::{CStr, CString, c_char};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Mutex, PoisonError};

/// What to start.
pub struct Program<'a> {
    /// An open executable that is no script. Its descriptor need not be out of the way of `fds`.
    pub file: BorrowedFd<'a>,
    /// The argument vector.
    pub argv: &'a [CString],
    /// The environment, `NAME=value`.
    pub env: &'a [CString],
    /// Which descriptor becomes which. The targets are below [`FIRST_FREE_FD`].
    pub fds: &'a [(BorrowedFd<'a>, RawFd)],
    /// The directory of the control group to start in.
    pub cgroup: Option<BorrowedFd<'a>>,
}

/// No target of [`Program::fds`] is this high, so a source up here is never overwritten.
pub const FIRST_FREE_FD: RawFd = 10;

/// A process that was started. The program in it runs already.
#[derive(Debug)]
pub struct Started {
    /// Its process id.
    pub pid: u32,
    /// Stands for it for good, whoever gets the number next.
    pub pidfd: OwnedFd,
    /// Whether it is in the control group that was asked for. False where the kernel, or the
    /// runtime of a container, has no `clone3`: then it has to be moved there.
    pub in_cgroup: bool,
}

/// Why nothing was started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No process could be made.
    #[error("making the process: {0}")]
    Clone(#[source] io::Error),
    /// The process was made, and its program could not be executed in it.
    #[error("executing: {0}")]
    Exec(#[source] io::Error),
}

/// What the child needs to know. It reads this in our memory while we are held.
struct Plan<'a> {
    /// The table of descriptors is ours until all from here on is left behind. None: it is a copy.
    copy_below: Option<RawFd>,
    /// Set by the child when it has a table of its own.
    has_copy: AtomicBool,
    fds: &'a [(RawFd, RawFd)],
    file: RawFd,
    argv: *const *const c_char,
    env: *const *const c_char,
    /// Set by the child when it failed.
    error: AtomicI32,
}

const STACK: usize = 64 * 1024;

/// Starts `program` and returns once it is executed.
///
/// # Errors
/// As [`StartError`] says. The zombie of a process that could not execute is left for the reaper.
pub fn start(program: &Program<'_>) -> Result<Started, StartError> {
    static SLOTS: Mutex<Option<Slots>> = Mutex::new(None);
    let mut kept = SLOTS.lock().unwrap_or_else(PoisonError::into_inner);
    let slots = match kept.take() {
        Some(slots) => slots,
        None => Slots::new().map_err(StartError::Clone)?,
    };
    let slots = kept.insert(slots);
    let sources = std::iter::once(program.file).chain(program.fds.iter().map(|(from, _)| *from));
    let numbers = slots.fill(sources).map_err(|error| {
        slots.clear();
        StartError::Clone(error)
    })?;
    let started = start_with(program, &numbers, slots.are_shared.then_some(slots.end));
    slots.clear();
    match started {
        Err(Failure { has_copy: false, .. }) if slots.are_shared => {
            // It may not be allowed: then the table is copied.
            slots.are_shared = false;
            drop(kept);
            start(program)
        }
        other => other.map_err(|failure| failure.error),
    }
}

struct Failure {
    error: StartError,
    /// Whether the child had descriptors of its own by then.
    has_copy: bool,
}

/// Low descriptors that are kept for the child to find what it needs.
struct Slots {
    numbers: Vec<OwnedFd>,
    /// What is in those that are not used: nothing that anybody could wait for.
    filler: OwnedFd,
    /// All of them are below this.
    end: RawFd,
    /// So many of them are in use.
    used: usize,
    /// Whether the child may begin with our table.
    are_shared: bool,
}

impl Slots {
    /// A program and what it has for its descriptors; no program of ours has more.
    const COUNT: usize = 8;

    fn new() -> io::Result<Slots> {
        let filler = OwnedFd::from(std::fs::File::open("/dev/null")?);
        let slot = |_| lift(filler.as_fd());
        let numbers: Vec<OwnedFd> = (0..Slots::COUNT).map(slot).collect::<io::Result<_>>()?;
        let end = numbers.iter().map(AsRawFd::as_raw_fd).max().unwrap_or(FIRST_FREE_FD) + 1;
        Ok(Slots { numbers, filler, end, used: 0, are_shared: true })
    }

    /// Puts copies of descriptors into the slots, but for those that the child finds where they
    /// are, and says where each is.
    fn fill<'a>(
        &mut self,
        sources: impl Iterator<Item = BorrowedFd<'a>>,
    ) -> io::Result<Vec<RawFd>> {
        let mut numbers = Vec::with_capacity(Slots::COUNT);
        for source in sources {
            if (FIRST_FREE_FD..self.end).contains(&source.as_raw_fd()) {
                numbers.push(source.as_raw_fd());
                continue;
            }
            let too_many = || io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors");
            let slot = self.numbers.get_mut(self.used).ok_or_else(too_many)?;
            self.used += 1;
            rustix::io::dup3(source, slot, rustix::io::DupFlags::CLOEXEC)?;
            numbers.push(slot.as_raw_fd());
        }
        Ok(numbers)
    }

    /// Lets go of what was in them: the end of a pipe must not stay open here.
    fn clear(&mut self) {
        for slot in &mut self.numbers[..self.used] {
            // It was open a moment ago, and so was the filler.
            let _ = rustix::io::dup3(&self.filler, slot, rustix::io::DupFlags::CLOEXEC);
        }
        self.used = 0;
    }
}

/// Starts it with the descriptors `numbers`, that of the program first.
fn start_with(
    program: &Program<'_>,
    numbers: &[RawFd],
    copy_below: Option<RawFd>,
) -> Result<Started, Failure> {
    let targets = program.fds.iter().map(|(_, to)| *to);
    let fds: Vec<_> = numbers.iter().skip(1).copied().zip(targets).collect();
    let (argv, env) = (pointers(program.argv), pointers(program.env));
    let plan = Plan {
        copy_below,
        has_copy: AtomicBool::new(copy_below.is_none()),
        fds: &fds,
        file: numbers.first().copied().unwrap_or(-1),
        argv: argv.as_ptr(),
        env: env.as_ptr(),
        error: AtomicI32::new(0),
    };
    let mut stack = Vec::<u128>::with_capacity(STACK / size_of::<u128>());
    let stack = stack.as_mut_ptr().cast::<u8>();

    let blocked = BlockedSignals::new();
    let started = clone(&plan, stack, program.cgroup);
    drop(blocked);

    // That no process could be made is no matter of descriptors.
    let failed = |error, has_copy| Failure { error, has_copy };
    let started = started.map_err(|error| failed(StartError::Clone(error), true))?;
    let has_copy = plan.has_copy.load(Ordering::Acquire);
    match plan.error.load(Ordering::Acquire) {
        0 => Ok(started),
        errno => {
            let error = StartError::Exec(io::Error::from_raw_os_error(errno));
            Err(failed(error, has_copy))
        }
    }
}

/// A copy of a descriptor that no target can overwrite.
fn lift(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    Ok(rustix::io::fcntl_dupfd_cloexec(fd.as_fd(), FIRST_FREE_FD)?)
}

fn pointers(texts: &[CString]) -> Vec<*const c_char> {
    texts.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect()
}

fn clone(plan: &Plan<'_>, stack: *mut u8, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Started> {
    let files = plan.copy_below.map_or(0, |_| libc::CLONE_FILES);
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | files;
    // CLONE_INTO_CGROUP is beyond the 32 bits of libc's constants (linux/sched.h).
    const INTO_CGROUP: u64 = 0x2_0000_0000;
    let mut pidfd: RawFd = -1;
    let pidfd_at = &raw mut pidfd as usize;

    // SAFETY: all-zero is a valid clone_args.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags as u64 | cgroup.map_or(0, |_| INTO_CGROUP);
    args.pidfd = pidfd_at as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    args.stack = stack as u64;
    args.stack_size = STACK as u64;
    args.cgroup = cgroup.map_or(0, |fd| fd.as_raw_fd() as u64);
    let clone3 = [&raw const args as usize, size_of::<libc::clone_args>(), 0];
    // SAFETY: the flags make the kernel hold this thread until the child has executed or ended, so
    // `plan`, `args`, `pidfd` and the stack outlive the child's use of them; signals are blocked.
    let (result, in_cgroup) = match unsafe { clone_call(libc::SYS_clone3 as usize, clone3, plan) } {
        // Container runtimes forbid clone3, because they cannot look into its arguments.
        Err(Errno(libc::ENOSYS | libc::EPERM)) => {
            let top = stack.wrapping_add(STACK) as usize;
            let clone = [(flags | libc::SIGCHLD) as usize, top, pidfd_at];
            // SAFETY: as above.
            (unsafe { clone_call(libc::SYS_clone as usize, clone, plan) }, false)
        }
        other => (other, cgroup.is_some()),
    };
    let pid = result.map_err(|errno| io::Error::from_raw_os_error(errno.0))?;
    // SAFETY: the kernel put a new descriptor there, which nobody else knows of.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Started { pid: pid as u32, pidfd, in_cgroup })
}

/// `clone` or `clone3`; the child goes to [`child`] on its own stack and never comes back here.
///
/// # Safety
/// The arguments must contain `CLONE_VM | CLONE_VFORK` and a stack of their own.
unsafe fn clone_call(number: usize, args: [usize; 3], plan: &Plan<'_>) -> Result<usize, Errno> {
    let result: isize;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: in the parent this is a plain system call. In the child, rax is 0 and rsp the top of
    // its stack, aligned to 16: it calls a function that does not return.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r13",
            "call r12",
            "ud2",
            "2:",
            inlateout("rax") number as isize => result,
            in("rdi") args[0],
            in("rsi") args[1],
            in("rdx") args[2],
            in("r10") 0,
            in("r8") 0,
            in("r12") child as *const () as usize,
            in("r13") std::ptr::from_ref(plan) as usize,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: in the parent this is a plain system call. In the child, x0 is 0 and sp the top of its
    // stack, aligned to 16: it calls a function that does not return.
    unsafe {
        std::arch::asm!(
            "svc 0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x0, x21",
            "blr x20",
            "brk #1",
            "2:",
            in("x8") number,
            inlateout("x0") args[0] as isize => result,
            in("x1") args[1],
            in("x2") args[2],
            in("x3") 0_usize,
            in("x4") 0_usize,
            in("x20") child as *const () as usize,
            in("x21") std::ptr::from_ref(plan) as usize,
        );
    }
    if (-4095..0).contains(&result) { Err(Errno(-result as i32)) } else { Ok(result as usize) }
}

/// The child between clone and exec. Raw system calls only.
extern "C" fn child(plan: &Plan<'_>) -> ! {
    let errno = place_and_execute(plan);
    plan.error.store(errno.0, Ordering::Release);
    loop {
        // SAFETY: ends this process, which has only this thread.
        let _ = unsafe { kernel::call(nr::EXIT_GROUP, [127, 0, 0, 0, 0]) };
    }
}

fn place_and_execute(plan: &Plan<'_>) -> Errno {
    if let Some(end) = plan.copy_below {
        /// `CLOSE_RANGE_UNSHARE` (linux/close_range.h).
        const UNSHARE: usize = 2;
        let args = [end as usize, u32::MAX as usize, UNSHARE, 0, 0];
        // SAFETY: closes nothing of ours: it gives this process a table of its own first.
        if let Err(errno) = unsafe { kernel::call(nr::CLOSE_RANGE, args) } {
            return errno;
        }
        plan.has_copy.store(true, Ordering::Release);
    }
    for (from, to) in plan.fds {
        let args = [*from as usize, *to as usize, 0, 0, 0];
        // SAFETY: changes the descriptor table of this process only, which is a copy.
        let placed = unsafe { kernel::call(nr::DUP3, args) };
        if let Err(errno) = placed {
            return errno;
        }
    }
    const NOTHING: &CStr = c"";
    let args = [
        plan.file as usize,
        NOTHING.as_ptr() as usize,
        plan.argv as usize,
        plan.env as usize,
        libc::AT_EMPTY_PATH as usize,
    ];
    // SAFETY: both vectors end with a null and live in the parent, which is held.
    match unsafe { kernel::call(nr::EXECVEAT, args) } {
        Ok(_) => Errno(libc::ENOEXEC),
        Err(errno) => errno,
    }
}

/// Every signal is blocked in this thread while it exists: a handler that ran in the child would
/// run in our memory. By the system call itself, because the library leaves two of them out.
struct BlockedSignals(u64);

impl BlockedSignals {
    fn new() -> BlockedSignals {
        BlockedSignals(set_mask(u64::MAX))
    }
}

impl Drop for BlockedSignals {
    fn drop(&mut self) {
        set_mask(self.0);
    }
}

fn set_mask(mask: u64) -> u64 {
    let mut old = 0_u64;
    let args = [
        libc::SIG_SETMASK as usize,
        &raw const mask as usize,
        &raw mut old as usize,
        size_of::<u64>(),
        0,
    ];
    // SAFETY: both masks are as large as the call is told. It cannot fail with these arguments.
    let _ = unsafe { kernel::call(nr::RT_SIGPROCMASK, args) };
    old
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{WaitId, WaitIdOptions, waitid};

    #[test]
    fn a_target_may_be_the_number_of_the_program_or_of_a_source() {
        let open = |path| std::fs::File::open(path).unwrap();
        let (file, null) = (open("/bin/cat"), open("/dev/null"));
        let numbers = [file.as_raw_fd(), null.as_raw_fd()];
        let fds = [(null.as_fd(), numbers[0]), (file.as_fd(), numbers[1]), (null.as_fd(), 0)];
        let argv = [c"cat".to_owned()];
        let program =
            Program { file: file.as_fd(), argv: &argv, env: &[], fds: &fds, cgroup: None };
        let started = start(&program).unwrap();
        assert!(started.pid > 1);
        let status = waitid(WaitId::PidFd(started.pidfd.as_fd()), WaitIdOptions::EXITED);
        assert_eq!(status.unwrap().unwrap().exit_status(), Some(0));
    }

    fn open_files() -> Vec<String> {
        let entries = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        let named = entries.map(|entry| {
            let target = std::fs::read_link(entry.path()).unwrap_or_default();
            format!("{:?} {}", entry.file_name(), target.display())
        });
        // The directory that is being read has a number of its own each time.
        let mut all: Vec<String> = named.filter(|name| !name.contains("/fd")).collect();
        all.sort();
        all
    }

    /// What the child has open, with a table shared at first and with a copied one; and nothing of
    /// it stays open here.
    #[test]
    fn the_child_has_what_it_was_given_and_ours_is_as_it_was() {
        let sh = std::fs::File::open("/bin/sh").unwrap();
        let argv = [c"sh".to_owned(), c"-c".to_owned(), c"echo /proc/$$/fd/*".to_owned()];
        let mut slots = Slots::new().unwrap();
        let inherited: Vec<String> = (3..1024)
            .filter(|fd| {
                // SAFETY: only asks, and a number that is not open is an error.
                let flags = unsafe { libc::fcntl(*fd, libc::F_GETFD) };
                flags >= 0 && flags & libc::FD_CLOEXEC == 0
            })
            .map(|fd| fd.to_string())
            .collect();
        // Many others, which are none of its business.
        let others: Vec<_> = (0..300).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
        for shared in [true, false] {
            let before = open_files();
            let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
            let fds = [(sh.as_fd(), 0), (write.as_fd(), 1), (write.as_fd(), 2)];
            let program =
                Program { file: sh.as_fd(), argv: &argv, env: &[], fds: &fds, cgroup: None };
            let sources = std::iter::once(program.file).chain(fds.iter().map(|(from, _)| *from));
            let numbers = slots.fill(sources).unwrap();
            let copy_below = shared.then_some(slots.end);
            let started = start_with(&program, &numbers, copy_below).map_err(|f| f.error).unwrap();
            slots.clear();
            drop(write);
            let mut text = String::new();
            // It ends only when nobody holds the other end, nor a copy of it.
            std::io::Read::read_to_string(&mut std::fs::File::from(read), &mut text).unwrap();
            let numbers: Vec<&str> =
                text.split_whitespace().filter_map(|path| path.rsplit('/').next()).collect();
            for number in ["0", "1", "2"] {
                assert!(numbers.contains(&number), "shared {shared}: {text}");
            }
            // Besides: the directory that the shell looks into, and what whoever runs this test
            // lets everybody inherit.
            let is_known = |number: &&str| {
                matches!(*number, "0" | "1" | "2" | "3") || inherited.iter().any(|fd| fd == number)
            };
            assert!(numbers.iter().all(is_known), "shared {shared}: {text}");
            waitid(WaitId::PidFd(started.pidfd.as_fd()), WaitIdOptions::EXITED).unwrap();
            drop(started);
            assert_eq!(open_files(), before, "shared {shared}");
        }
        drop(others);
    }

    #[test]
    fn what_cannot_be_executed_is_told_at_once() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let program = Program { file: file.as_fd(), argv: &[], env: &[], fds: &[], cgroup: None };
        match start(&program) {
            Err(StartError::Exec(error)) => {
                assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
            }
            other => panic!("{other:?}"),
        }
    }
}
