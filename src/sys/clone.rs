//! Starting a process without copying anything of this one, and without waiting for it.
//!
//! `fork` copies the page tables of the daemon, 32 µs for each MiB of it. Here the child shares the
//! memory until it has executed a program (`CLONE_VM`), as with posix_spawn(3). In between it runs on
//! a stack of its own and does nothing but place descriptors: it calls no library, because it shares
//! the library's state with us. Nobody is held meanwhile (there is no `CLONE_VFORK`): whoever
//! started it writes down its pid while it executes. So what it reads has to stay where it is until
//! the kernel says that it needs no memory of ours any more (`CLONE_CHILD_CLEARTID`).
//!
//! The table of descriptors is not copied either: with ten thousand processes it has tens of
//! thousands of entries. The child begins with ours (`CLONE_FILES`) and takes a copy of its lowest
//! entries only, which is what `CLOSE_RANGE_UNSHARE` of close_range(2) does. So all that it needs is
//! put into a few low slots before, which are kept for that, and are its own until it has its copy.

use super::kernel::{self, Errno, nr};
use std::cell::UnsafeCell;
use std::ffi::{CStr, CString, c_char};
use std::fmt;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What to start.
pub struct Program<'a> {
    /// An open executable that is no script. Its descriptor need not be out of the way of `fds`.
    pub file: BorrowedFd<'a>,
    /// The argument vector.
    pub argv: Vec<CString>,
    /// The environment, `NAME=value`.
    pub env: Vec<CString>,
    /// Which descriptor becomes which. The targets are below [`FIRST_FREE_FD`].
    pub fds: &'a [(BorrowedFd<'a>, RawFd)],
    /// The directory of the control group to start in.
    pub cgroup: Option<BorrowedFd<'a>>,
}

/// No target of [`Program::fds`] is this high, so a source up here is never overwritten.
pub const FIRST_FREE_FD: RawFd = 10;

/// A process that was started. It executes its program by and by.
#[derive(Debug)]
pub struct Started {
    /// Its process id.
    pub pid: u32,
    /// Stands for it for good, whoever gets the number next.
    pub pidfd: OwnedFd,
    /// Whether it is in the control group that was asked for. False where the kernel, or the
    /// runtime of a container, has no `clone3`: then it has to be moved there.
    pub in_cgroup: bool,
    /// What becomes of the program.
    pub execution: Execution,
}

/// Why nothing was started.
#[derive(Debug, thiserror::Error)]
#[error("making the process: {0}")]
pub struct StartError(#[source] pub io::Error);

/// What the child needs to know. It reads this in our memory.
struct Plan {
    /// The table of descriptors is ours until all from here on is left behind. None: it is a copy.
    copy_below: Option<RawFd>,
    /// Set by the child when it has a table of its own.
    has_copy: AtomicBool,
    fds: Vec<(RawFd, RawFd)>,
    file: RawFd,
    argv: Vec<*const c_char>,
    env: Vec<*const c_char>,
    /// What those two point into.
    _texts: [Vec<CString>; 2],
    /// Set by the child when it failed.
    error: AtomicI32,
    /// Not zero while the child uses this and its stack; the kernel clears it.
    in_use: AtomicU32,
    stack: UnsafeCell<Vec<u128>>,
}

// SAFETY: the pointers are into texts that it owns and never changes; the stack is the child's.
unsafe impl Send for Plan {}
// SAFETY: as above, and what changes is atomic.
unsafe impl Sync for Plan {}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // There are values of an environment in it.
        f.debug_struct("Plan").field("in_use", &self.in_use).finish_non_exhaustive()
    }
}

/// A program that is being executed, or was. It keeps what the child reads.
#[derive(Debug)]
pub struct Execution(ManuallyDrop<Arc<Plan>>);

impl Drop for Execution {
    fn drop(&mut self) {
        if self.0.in_use.load(Ordering::Acquire) == 0 {
            // SAFETY: it is not used again. A child that may still read it has it for ever.
            unsafe { ManuallyDrop::drop(&mut self.0) };
        }
    }
}

impl Execution {
    /// Takes back what was lent to the child for it to find its descriptors. Until then they are
    /// open here too, so that the end of one of them is not seen. Waits, though hardly ever, until
    /// the child has come as far as that.
    pub fn take_back(&self) {
        let mut kept = SLOTS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slots) = kept.as_mut().filter(|slots| slots.are_lent_to(&self.0)) {
            slots.take_back();
        }
    }

    /// Why the program could not be executed. To be asked when the process is known to have executed
    /// it or to have ended.
    #[must_use]
    pub fn failure(&self) -> Option<io::Error> {
        match self.0.error.load(Ordering::Acquire) {
            0 => None,
            errno => Some(io::Error::from_raw_os_error(errno)),
        }
    }
}

impl Plan {
    /// The lowest address of the child's stack. Nobody else touches it.
    fn stack(&self) -> *mut u8 {
        // SAFETY: no reference to what is in the vector is ever made.
        unsafe { (*self.stack.get()).as_mut_ptr().cast() }
    }

    /// Waits until the child needs no descriptor of ours: it has a table of its own, or is gone.
    fn wait_for_copy(&self) {
        while !self.has_copy.load(Ordering::Acquire) {
            let in_use = self.in_use.load(Ordering::Acquire);
            if in_use == 0 {
                return;
            }
            // The kernel wakes as pthread_join(3) has it, which is not as a futex of one process.
            let flags = rustix::thread::futex::Flags::empty();
            // Whatever it says, it is looked at again.
            let _ = rustix::thread::futex::wait(&self.in_use, flags, in_use, None);
        }
    }
}

const STACK: usize = 64 * 1024;

static SLOTS: Mutex<Option<Slots>> = Mutex::new(None);

/// Starts `program`, and does not wait until it is executed.
///
/// # Errors
/// When no process can be made.
pub fn start(program: Program<'_>) -> Result<Started, StartError> {
    let mut kept = SLOTS.lock().unwrap_or_else(PoisonError::into_inner);
    let slots = match kept.take() {
        Some(slots) => slots,
        None => Slots::new().map_err(StartError)?,
    };
    kept.insert(slots).start(program)
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
    /// Whose they are, until it has a table of its own.
    lent: Option<Arc<Plan>>,
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
        Ok(Slots { numbers, filler, end, used: 0, lent: None, are_shared: may_unshare() })
    }

    fn start(&mut self, program: Program<'_>) -> Result<Started, StartError> {
        self.take_back();
        let sources =
            std::iter::once(program.file).chain(program.fds.iter().map(|(from, _)| *from));
        let numbers = self.fill(sources);
        let started = numbers.and_then(|numbers| {
            let targets = program.fds.iter().map(|(_, to)| *to);
            let plan = Arc::new(Plan {
                copy_below: self.are_shared.then_some(self.end),
                has_copy: AtomicBool::new(!self.are_shared),
                fds: numbers.iter().skip(1).copied().zip(targets).collect(),
                file: numbers.first().copied().unwrap_or(-1),
                argv: pointers(&program.argv),
                env: pointers(&program.env),
                _texts: [program.argv, program.env],
                error: AtomicI32::new(0),
                in_use: AtomicU32::new(1),
                stack: UnsafeCell::new(Vec::with_capacity(STACK / size_of::<u128>())),
            });
            let _blocked = BlockedSignals::new();
            clone(plan, program.cgroup)
        });
        match &started {
            Ok(started) if self.are_shared => self.lent = Some(Arc::clone(&started.execution.0)),
            _ => self.clear(),
        }
        started.map_err(StartError)
    }

    fn are_lent_to(&self, plan: &Arc<Plan>) -> bool {
        self.lent.as_ref().is_some_and(|lent| Arc::ptr_eq(lent, plan))
    }

    /// Waits until nobody needs them, and lets go of what was in them.
    fn take_back(&mut self) {
        if let Some(plan) = self.lent.take() {
            plan.wait_for_copy();
            self.clear();
        }
    }

    /// Puts copies of descriptors into the slots, and says where each is. All of them, also those
    /// that the child would find: whoever has them may close them before it does.
    fn fill<'a>(
        &mut self,
        sources: impl Iterator<Item = BorrowedFd<'a>>,
    ) -> io::Result<Vec<RawFd>> {
        let mut numbers = Vec::with_capacity(Slots::COUNT);
        for source in sources {
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

/// Whether a process may give itself a table of its own. Asked in a thread, which has one then and
/// ends; a container's runtime may not allow it.
fn may_unshare() -> bool {
    let asked = std::thread::Builder::new().spawn(|| unshare_from(u32::MAX).is_ok());
    asked.is_ok_and(|asked| asked.join().unwrap_or(false))
}

/// Gives whoever calls it a table of descriptors of its own, without those from `first` on.
fn unshare_from(first: u32) -> Result<usize, Errno> {
    /// `CLOSE_RANGE_UNSHARE` (linux/close_range.h).
    const UNSHARE: usize = 2;
    let args = [first as usize, u32::MAX as usize, UNSHARE, 0, 0];
    // SAFETY: closes nothing of others: it gives the caller a table of its own first.
    unsafe { kernel::call(nr::CLOSE_RANGE, args) }
}

/// A copy of a descriptor that no target can overwrite.
fn lift(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    Ok(rustix::io::fcntl_dupfd_cloexec(fd.as_fd(), FIRST_FREE_FD)?)
}

fn pointers(texts: &[CString]) -> Vec<*const c_char> {
    texts.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect()
}

fn clone(plan: Arc<Plan>, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Started> {
    let files = plan.copy_below.map_or(0, |_| libc::CLONE_FILES);
    let flags = libc::CLONE_VM | libc::CLONE_PIDFD | libc::CLONE_CHILD_CLEARTID | files;
    // CLONE_INTO_CGROUP is beyond the 32 bits of libc's constants (linux/sched.h).
    const INTO_CGROUP: u64 = 0x2_0000_0000;
    let mut pidfd: RawFd = -1;
    let pidfd_at = &raw mut pidfd as usize;
    let cleared = plan.in_use.as_ptr() as usize;
    let stack = plan.stack();

    // SAFETY: all-zero is a valid clone_args.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags as u64 | cgroup.map_or(0, |_| INTO_CGROUP);
    args.pidfd = pidfd_at as u64;
    args.child_tid = cleared as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    args.stack = stack as u64;
    args.stack_size = STACK as u64;
    args.cgroup = cgroup.map_or(0, |fd| fd.as_raw_fd() as u64);
    let clone3 = [&raw const args as usize, size_of::<libc::clone_args>(), 0, 0, 0];
    // SAFETY: the kernel reads `args` and writes `pidfd` before it comes back here. What the child
    // reads and its stack are in `plan`, which is kept until the kernel says that it is not used any
    // more; signals are blocked.
    let call = |number, args| unsafe { clone_call(number, args, &plan) };
    let (result, in_cgroup) = match call(libc::SYS_clone3 as usize, clone3) {
        // Container runtimes forbid clone3, because they cannot look into its arguments.
        Err(Errno(libc::ENOSYS | libc::EPERM)) => {
            let top = stack as usize + STACK;
            let flags = (flags | libc::SIGCHLD) as usize;
            // The order of these two is the architecture's (clone(2)).
            let [fourth, fifth] =
                if cfg!(target_arch = "x86_64") { [cleared, 0] } else { [0, cleared] };
            (call(libc::SYS_clone as usize, [flags, top, pidfd_at, fourth, fifth]), false)
        }
        other => (other, cgroup.is_some()),
    };
    let pid = result.map_err(|errno| {
        plan.in_use.store(0, Ordering::Release);
        io::Error::from_raw_os_error(errno.0)
    })?;
    // SAFETY: the kernel put a new descriptor there, which nobody else knows of.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    let execution = Execution(ManuallyDrop::new(plan));
    Ok(Started { pid: pid as u32, pidfd, in_cgroup, execution })
}

/// `clone` or `clone3`; the child goes to [`child`] on its own stack and never comes back here.
///
/// # Safety
/// The arguments must contain `CLONE_VM` and a stack of their own, and `plan` must stay where it is
/// for as long as it is in use.
unsafe fn clone_call(number: usize, args: [usize; 5], plan: &Plan) -> Result<usize, Errno> {
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
            in("r10") args[3],
            in("r8") args[4],
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
            in("x3") args[3],
            in("x4") args[4],
            in("x20") child as *const () as usize,
            in("x21") std::ptr::from_ref(plan) as usize,
        );
    }
    if (-4095..0).contains(&result) { Err(Errno(-result as i32)) } else { Ok(result as usize) }
}

/// The child between clone and exec. Raw system calls only.
extern "C" fn child(plan: &Plan) -> ! {
    let errno = place_and_execute(plan);
    plan.error.store(errno.0, Ordering::Release);
    loop {
        // SAFETY: ends this process, which has only this thread.
        let _ = unsafe { kernel::call(nr::EXIT_GROUP, [127, 0, 0, 0, 0]) };
    }
}

fn place_and_execute(plan: &Plan) -> Errno {
    if let Some(end) = plan.copy_below {
        if let Err(errno) = unshare_from(end.cast_unsigned()) {
            return errno;
        }
        plan.has_copy.store(true, Ordering::Release);
    }
    for (from, to) in &plan.fds {
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
        plan.argv.as_ptr() as usize,
        plan.env.as_ptr() as usize,
        libc::AT_EMPTY_PATH as usize,
    ];
    // SAFETY: both vectors end with a null and are kept while they are in use.
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
        let argv = vec![c"cat".to_owned()];
        let program = Program { file: file.as_fd(), argv, env: vec![], fds: &fds, cgroup: None };
        let started = start(program).unwrap();
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
        let argv = vec![c"sh".to_owned(), c"-c".to_owned(), c"echo /proc/$$/fd/*".to_owned()];
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
            let (argv, env) = (argv.clone(), vec![]);
            let program = Program { file: sh.as_fd(), argv, env, fds: &fds, cgroup: None };
            slots.are_shared = shared;
            let started = slots.start(program).unwrap();
            slots.take_back();
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
    fn what_cannot_be_executed_is_told_once_the_process_has_ended() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let (argv, env) = (vec![], vec![]);
        let program = Program { file: file.as_fd(), argv, env, fds: &[], cgroup: None };
        let started = start(program).unwrap();
        waitid(WaitId::PidFd(started.pidfd.as_fd()), WaitIdOptions::EXITED).unwrap();
        let error = started.execution.failure().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    }

    /// Whoever starts something lets go of its descriptors at once, and their numbers become those of
    /// others, while the child has not begun.
    #[test]
    fn a_source_may_be_closed_at_once() {
        let (cat, dir) = (std::fs::File::open("/bin/cat").unwrap(), tempfile::tempdir().unwrap());
        let (given, other) = (dir.path().join("given"), dir.path().join("other"));
        std::fs::write(&given, "given").unwrap();
        std::fs::write(&other, "other").unwrap();
        for _ in 0..100 {
            let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
            let source = std::fs::File::open(&given).unwrap();
            let fds = [(source.as_fd(), 0), (write.as_fd(), 1)];
            let (argv, env) = (vec![c"cat".to_owned()], vec![]);
            let program = Program { file: cat.as_fd(), argv, env, fds: &fds, cgroup: None };
            let started = start(program).unwrap();
            drop((source, write));
            let others = [(); 4].map(|()| std::fs::File::open(&other).unwrap());
            started.execution.take_back();
            let mut text = String::new();
            std::io::Read::read_to_string(&mut std::fs::File::from(read), &mut text).unwrap();
            assert_eq!(text, "given");
            drop(others);
            waitid(WaitId::PidFd(started.pidfd.as_fd()), WaitIdOptions::EXITED).unwrap();
        }
    }

    #[test]
    fn what_the_child_reads_is_kept_until_it_has_executed() {
        let cat = std::fs::File::open("/bin/cat").unwrap();
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let fds = [(read.as_fd(), 0)];
        let (argv, env) = (vec![c"cat".to_owned()], vec![c"A=b".to_owned()]);
        let program = Program { file: cat.as_fd(), argv, env, fds: &fds, cgroup: None };
        let started = start(program).unwrap();
        started.execution.take_back();
        let plan = Arc::clone(&started.execution.0);
        while plan.in_use.load(Ordering::Acquire) != 0 {
            let flags = rustix::thread::futex::Flags::empty();
            let _ = rustix::thread::futex::wait(&plan.in_use, flags, 1, None);
        }
        // It runs, and has nothing of ours.
        drop(started.execution);
        assert_eq!(Arc::strong_count(&plan), 1);
        drop(write);
        let status = waitid(WaitId::PidFd(started.pidfd.as_fd()), WaitIdOptions::EXITED);
        assert_eq!(status.unwrap().unwrap().exit_status(), Some(0));
    }
}
