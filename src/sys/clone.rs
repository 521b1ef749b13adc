//! Making a process without copying anything of this one, and without waiting for it.
//!
//! `fork` copies the page tables of the daemon, 32 µs for each MiB of it. Here the process shares the
//! memory until it has executed its command (`CLONE_VM`), as with posix_spawn(3). In between it runs
//! on a stack of its own and does what [`super::child`] says, without any library: it shares the
//! library's state with us. Nobody is held meanwhile (there is no `CLONE_VFORK`): whoever made it
//! writes down its pid while it sets itself up. So what it reads has to stay where it is until the
//! kernel says that it needs no memory of ours any more (`CLONE_CHILD_CLEARTID`).
//!
//! It may become another user while it shares our memory. The kernel then takes the memory for that of a
//! program that changed its user (prctl(2), `PR_SET_DUMPABLE`): nobody without the right to trace
//! everything can look into it, through whichever process. Where an administrator has that otherwise, and
//! where who shares memory would suffer for each other, it gets a copy of the memory ([`Memory::choose`]).
//!
//! The table of descriptors is not copied either: with ten thousand processes it has tens of
//! thousands of entries. The process begins with ours (`CLONE_FILES`) and takes a copy of its lowest
//! entries only, which is what `CLOSE_RANGE_UNSHARE` of close_range(2) does. So all that it needs is
//! put into a few low slots before, which are kept for that, and are its own until it has its copy.

use super::child::{self, Job, Sources};
use super::kernel::{self, Errno};
use super::setup::Setup;
use super::stat::{Ticks, start_between};
use std::cell::UnsafeCell;
use std::ffi::CString;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

/// What to start.
pub struct Program<'a> {
    /// The argument vector.
    pub argv: Vec<CString>,
    /// The environment, `NAME=value`.
    pub env: Vec<CString>,
    /// What it sets up for itself, and what it executes.
    pub setup: Setup,
    /// Its standard input, output and error.
    pub stdio: [BorrowedFd<'a>; 3],
    /// The directory of the control group to start in.
    pub cgroup: Option<BorrowedFd<'a>>,
}

/// No place of a standard stream is this high, so what is up here is never overwritten by one.
const FIRST_FREE_FD: RawFd = 10;

/// A process that was made. It waits for one byte on its socket, and then becomes its command.
#[derive(Debug)]
pub struct Started {
    /// Its process id.
    pub pid: u32,
    /// Stands for it for good, whoever gets the number next.
    pub pidfd: OwnedFd,
    /// When it was started, in ticks since boot; 0 where that cannot be known.
    pub start: u64,
    /// Whether it is in the control group that was asked for. False where the kernel, or the
    /// runtime of a container, has no `clone3`: then it has to be moved there.
    pub in_cgroup: bool,
    /// To let it go on, and to hear why it could not: a [`super::setup::Report`], or the end when it
    /// has executed its command. When this is closed before, it ends.
    pub socket: UnixStream,
    /// The other end of that, which is here as well. To be closed before the end of what it says is
    /// waited for; until then it keeps a descriptor for whoever writes down the pid.
    pub reserve: OwnedFd,
    /// What it reads of us.
    pub lent: Lent,
}

/// Why nothing was started.
#[derive(Debug, thiserror::Error)]
#[error("making the process: {0}")]
pub struct StartError(#[source] pub io::Error);

/// What the process needs to know. It reads this in our memory, or in its copy.
struct Plan {
    job: Job,
    /// What of ours the process uses: one of the constants below.
    uses: AtomicU32,
    /// The signals whose dispositions it has from us; bit 0 is signal 1.
    kept_signals: AtomicU64,
    stack: UnsafeCell<Vec<u128>>,
}

/// Nothing any more. The kernel writes it when it needs no memory of ours.
const NOTHING: u32 = 0;
/// Our memory, which has this in it and its stack.
const MEMORY: u32 = 1;
/// Our memory and our table of descriptors.
const MEMORY_AND_FILES: u32 = 2;

// SAFETY: the pointers of the job are into texts that it owns and never changes; the stack is the
// process's.
unsafe impl Send for Plan {}
// SAFETY: as above, and what changes is atomic.
unsafe impl Sync for Plan {}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // There are values of an environment in it.
        f.debug_struct("Plan").field("uses", &self.uses).finish_non_exhaustive()
    }
}

impl Plan {
    /// The lowest address of the process's stack. Nobody else touches it.
    fn stack(&self) -> *mut u8 {
        // SAFETY: no reference to what is in the vector is ever made.
        unsafe { (*self.stack.get()).as_mut_ptr().cast() }
    }

    /// Waits until the process needs no descriptor of ours: it has a table of its own, or is gone.
    fn wait_for_table(&self) {
        while self.uses.load(Ordering::Acquire) == MEMORY_AND_FILES {
            // The kernel wakes as pthread_join(3) has it, which is not as a futex of one process.
            let flags = rustix::thread::futex::Flags::empty();
            // Whatever it says, it is looked at again.
            let _ = rustix::thread::futex::wait(&self.uses, flags, MEMORY_AND_FILES, None);
        }
    }

    /// The process has a table of its own. It says so itself.
    fn has_table(&self) {
        self.uses.store(MEMORY, Ordering::Release);
        let wake = [self.uses.as_ptr() as usize, libc::FUTEX_WAKE as usize, 1, 0, 0];
        // SAFETY: wakes whoever waits at an address, and touches nothing.
        let _ = unsafe { kernel::call(libc::SYS_futex, wake) };
    }
}

/// What is lent to a process until it has executed its command.
#[derive(Debug)]
pub struct Lent(Arc<Plan>);

impl Drop for Lent {
    fn drop(&mut self) {
        self.take_back();
        if self.0.uses.load(Ordering::Acquire) != NOTHING {
            lock(&STILL_USED).push(Arc::clone(&self.0));
        }
    }
}

impl Lent {
    /// Whether the process uses nothing of it any more: it has executed its command, or is gone.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.0.uses.load(Ordering::Acquire) == NOTHING
    }

    /// Takes back the descriptors that were lent to the process for it to find them. Until then they
    /// are open here too, so that the end of one of them is not seen. Waits, though hardly ever, until
    /// the process has come as far as that.
    pub fn take_back(&self) {
        let mut kept = lock(&SLOTS);
        if let Some(slots) = kept.as_mut().filter(|slots| slots.are_lent_to(&self.0)) {
            slots.take_back();
        }
    }
}

/// Plans of processes that nobody waits for any more, and that still use our memory.
static STILL_USED: Mutex<Vec<Arc<Plan>>> = Mutex::new(Vec::new());

/// Stacks that are not used.
static STACKS: Mutex<Vec<Vec<u128>>> = Mutex::new(Vec::new());

static SLOTS: Mutex<Option<Slots>> = Mutex::new(None);

const STACK: usize = 64 * 1024;

const ALL_SIGNALS: u64 = u64::MAX;

impl Drop for Plan {
    fn drop(&mut self) {
        /// As many as are usually on their way to their commands at once.
        const KEPT: usize = 4;
        let mut stacks = lock(&STACKS);
        if stacks.len() < KEPT {
            stacks.push(std::mem::take(self.stack.get_mut()));
        }
    }
}

/// Lets go of the stacks that are kept for the next processes.
pub fn give_back() {
    lock(&STACKS).clear();
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whose memory a process has until it has executed its command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Memory {
    /// Ours.
    Shared,
    /// A copy of ours: slower by the copying of the page tables.
    Copied,
}

impl Memory {
    /// Shared, but where another user could look into it; where the process cannot change how likely it
    /// is to be killed for want of memory without changing that of all who share it; and where its group
    /// may have too little memory for it to begin, for which the kernel kills all who share it.
    fn choose(setup: &Setup, may_be_looked_into: bool) -> Memory {
        let changes_user = setup.ids.is_some() && may_be_looked_into;
        match changes_user || setup.oom_adjusted || setup.is_short_of_memory {
            true => Memory::Copied,
            false => Memory::Shared,
        }
    }
}

/// Whether a program that changes its user may be traced by that (proc_sys_fs(5), `suid_dumpable`).
/// Nobody uses it so but for debugging. Where it cannot be known it is taken for so. As it was when the
/// first process was started.
static IS_OPEN_TO_TRACING: LazyLock<bool> = LazyLock::new(|| {
    let setting = std::fs::read_to_string("/proc/sys/fs/suid_dumpable").unwrap_or_default();
    !matches!(setting.trim(), "0" | "2")
});

/// Makes a process for `program`, and does not wait for it.
///
/// # Errors
/// When no process can be made.
pub fn start(program: Program<'_>) -> Result<Started, StartError> {
    lock(&STILL_USED).retain(|plan| plan.uses.load(Ordering::Acquire) != NOTHING);
    let memory = Memory::choose(&program.setup, *IS_OPEN_TO_TRACING);
    let mut kept = lock(&SLOTS);
    let slots = match kept.take() {
        Some(slots) => slots,
        None => Slots::new().map_err(StartError)?,
    };
    kept.insert(slots).start(program, memory).map_err(StartError)
}

/// Low descriptors that are kept for a process to find what it needs.
struct Slots {
    numbers: [OwnedFd; Slots::COUNT],
    /// What is in those that are not used: nothing that anybody could wait for.
    filler: OwnedFd,
    /// All of them are below this.
    end: RawFd,
    /// Whose they are, until it has a table of its own.
    lent: Option<Arc<Plan>>,
    /// Whether a process may begin with our table.
    are_shared: bool,
    /// The signals that we ignore, as [`super::signal::ignored`] has them. The daemon does not begin to
    /// ignore any.
    ignored: u64,
}

impl Slots {
    /// The standard streams and the socket.
    const COUNT: usize = 4;

    fn new() -> io::Result<Slots> {
        let filler = OwnedFd::from(std::fs::File::open("/dev/null")?);
        let numbers = [lift(&filler)?, lift(&filler)?, lift(&filler)?, lift(&filler)?];
        let end = numbers.iter().map(AsRawFd::as_raw_fd).max().unwrap_or(FIRST_FREE_FD) + 1;
        let ignored = super::signal::ignored().unwrap_or(ALL_SIGNALS);
        Ok(Slots { numbers, filler, end, lent: None, are_shared: may_unshare(), ignored })
    }

    fn start(&mut self, program: Program<'_>, memory: Memory) -> io::Result<Started> {
        self.take_back();
        let (socket, theirs) = UnixStream::pair()?;
        socket.set_nonblocking(true)?;
        let Program { argv, env, setup, stdio: [input, output, error], cgroup } = program;
        // All of them, also those that the process would find: whoever has them may close them before
        // it does.
        for (source, slot) in [input, output, error, theirs.as_fd()].iter().zip(&mut self.numbers) {
            if let Err(error) = rustix::io::dup3(source, slot, rustix::io::DupFlags::CLOEXEC) {
                self.clear();
                return Err(error.into());
            }
        }
        let [input, output, error, other] = self.numbers.each_ref().map(AsRawFd::as_raw_fd);
        let is_table_shared = self.are_shared && memory == Memory::Shared;
        let copy_below = is_table_shared.then_some(self.end);
        let sources = Sources {
            stdio: [input, output, error],
            socket: other,
            other_end: socket.as_raw_fd(),
            copy_below,
            is_memory_copied: memory == Memory::Copied,
        };
        let plan = Arc::new(Plan {
            job: Job::new(sources, setup, argv, env),
            uses: AtomicU32::new(if is_table_shared { MEMORY_AND_FILES } else { MEMORY }),
            kept_signals: AtomicU64::new(self.ignored),
            stack: UnsafeCell::new(
                lock(&STACKS)
                    .pop()
                    .unwrap_or_else(|| Vec::with_capacity(STACK / size_of::<u128>())),
            ),
        });
        let before = Ticks::now();
        let made = {
            let _blocked = BlockedSignals::new();
            clone(&plan, cgroup, memory, is_table_shared)
        };
        if made.is_err() || memory == Memory::Copied {
            plan.uses.store(NOTHING, Ordering::Release);
        }
        match &made {
            Ok(_) if is_table_shared => self.lent = Some(Arc::clone(&plan)),
            _ => self.clear(),
        }
        let (pid, pidfd, in_cgroup) = made?;
        let start = start_between(pid, before, Ticks::now());
        let reserve = theirs.into();
        Ok(Started { pid, pidfd, start, in_cgroup, socket, reserve, lent: Lent(plan) })
    }

    fn are_lent_to(&self, plan: &Arc<Plan>) -> bool {
        self.lent.as_ref().is_some_and(|lent| Arc::ptr_eq(lent, plan))
    }

    /// Waits until nobody needs them, and lets go of what was in them.
    fn take_back(&mut self) {
        if let Some(plan) = self.lent.take() {
            plan.wait_for_table();
            self.clear();
        }
    }

    /// Lets go of what was in them: the end of a pipe must not stay open here.
    fn clear(&mut self) {
        for slot in &mut self.numbers {
            // It was open a moment ago, and so was the filler.
            let _ = rustix::io::dup3(&self.filler, slot, rustix::io::DupFlags::CLOEXEC);
        }
    }
}

/// Whether a process may give itself a table of its own. Asked in a thread, which has one then and
/// ends; a container's runtime may not allow it.
fn may_unshare() -> bool {
    let asked = std::thread::Builder::new().spawn(|| child::unshare_from(u32::MAX).is_ok());
    asked.is_ok_and(|asked| asked.join().unwrap_or(false))
}

/// A copy of a descriptor that no standard stream can overwrite.
fn lift(fd: &OwnedFd) -> io::Result<OwnedFd> {
    Ok(rustix::io::fcntl_dupfd_cloexec(fd, FIRST_FREE_FD)?)
}

/// The pid of the new process, its pidfd, and whether it is in its control group.
fn clone(
    plan: &Arc<Plan>,
    cgroup: Option<BorrowedFd<'_>>,
    memory: Memory,
    is_table_shared: bool,
) -> io::Result<(u32, OwnedFd, bool)> {
    let shared = if memory == Memory::Shared { libc::CLONE_VM } else { 0 };
    let files = if is_table_shared { libc::CLONE_FILES } else { 0 };
    let flags = shared | files | libc::CLONE_PIDFD | libc::CLONE_CHILD_CLEARTID;
    // These are beyond the 32 bits of libc's constants (linux/sched.h).
    const CLEAR_SIGHAND: u64 = 0x1_0000_0000;
    const INTO_CGROUP: u64 = 0x2_0000_0000;
    let mut pidfd: RawFd = -1;
    let pidfd_at = &raw mut pidfd as usize;
    let cleared = plan.uses.as_ptr() as usize;
    let stack = plan.stack();

    // SAFETY: all-zero is a valid clone_args.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags as u64 | CLEAR_SIGHAND | cgroup.map_or(0, |_| INTO_CGROUP);
    args.pidfd = pidfd_at as u64;
    args.child_tid = cleared as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    args.stack = stack as u64;
    args.stack_size = STACK as u64;
    args.cgroup = cgroup.map_or(0, |fd| fd.as_raw_fd() as u64);
    let clone3 = [&raw const args as usize, size_of::<libc::clone_args>(), 0, 0, 0];
    // SAFETY: the kernel reads `args` and writes `pidfd` before it comes back here. What the process
    // reads and its stack are in `plan`, which is kept until the kernel says that it is not used any
    // more; signals are blocked.
    let call = |number, args| unsafe { clone_call(number, args, plan) };
    let (result, in_cgroup) = match call(libc::SYS_clone3, clone3) {
        // Container runtimes forbid clone3, because they cannot look into its arguments; and before
        // Linux 5.7 it does not know all of these.
        Err(Errno(libc::ENOSYS | libc::EPERM | libc::EINVAL)) => {
            plan.kept_signals.store(ALL_SIGNALS, Ordering::Relaxed);
            let top = stack as usize + STACK;
            let flags = (flags | libc::SIGCHLD) as usize;
            // The order of these two is the architecture's (clone(2)).
            let [fourth, fifth] =
                if cfg!(target_arch = "x86_64") { [cleared, 0] } else { [0, cleared] };
            (call(libc::SYS_clone, [flags, top, pidfd_at, fourth, fifth]), false)
        }
        other => (other, cgroup.is_some()),
    };
    let pid = result.map_err(|errno| io::Error::from_raw_os_error(errno.0))?;
    // SAFETY: the kernel put a new descriptor there, which nobody else knows of.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok((pid as u32, pidfd, in_cgroup))
}

/// `clone` or `clone3`; the new process goes to [`begin`] on its own stack and never comes back here.
///
/// # Safety
/// The arguments must contain a stack of their own, and `plan` must stay where it is
/// for as long as it is in use.
unsafe fn clone_call(number: i64, args: [usize; 5], plan: &Plan) -> Result<usize, Errno> {
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
            in("r12") begin as *const () as usize,
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
            in("x20") begin as *const () as usize,
            in("x21") std::ptr::from_ref(plan) as usize,
        );
    }
    if (-4095..0).contains(&result) { Err(Errno(-result as i32)) } else { Ok(result as usize) }
}

/// The first thing that the new process does.
extern "C" fn begin(plan: &Plan) -> ! {
    child::run(&plan.job, plan.kept_signals.load(Ordering::Relaxed), || plan.has_table())
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
    let _ = unsafe { kernel::call(libc::SYS_rt_sigprocmask, args) };
    old
}

#[cfg(test)]
mod tests;
