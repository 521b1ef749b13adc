use super::*;
use crate::sys::setup::{NO_INDEX, Report, Stage};
use rustix::process::{WaitId, WaitIdOptions, WaitIdStatus, waitid};
use std::fs::File;
use std::io::{Read, Write};

fn null() -> File {
    File::options().read(true).write(true).open("/dev/null").unwrap()
}

fn texts(words: &[&str]) -> Vec<CString> {
    words.iter().map(|word| CString::new(*word).unwrap()).collect()
}

/// A command that `sh` is given, with what its standard streams are.
fn script<'a>(text: &str, stdio: [BorrowedFd<'a>; 3]) -> Program<'a> {
    let setup = Setup { candidates: texts(&["/bin/sh"]), ..Setup::default() };
    Program { argv: texts(&["sh", "-c", text]), env: vec![], setup, stdio, cgroup: None }
}

fn pipe() -> (File, OwnedFd) {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    (File::from(read), write)
}

/// What it says until it is the command or has ended, and how it ends.
fn end(started: Started) -> (Option<Report>, WaitIdStatus) {
    let Started { mut socket, reserve, lent, pidfd, .. } = started;
    drop(reserve);
    lent.take_back();
    socket.set_nonblocking(false).unwrap();
    let mut said = Vec::new();
    socket.read_to_end(&mut said).unwrap();
    let status = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
    (Report::decode(&said), status.unwrap().unwrap())
}

fn code(started: Started) -> Option<i32> {
    let (report, status) = end(started);
    assert_eq!(report, None);
    status.exit_status()
}

#[test]
fn it_waits_at_the_gate_and_becomes_its_command() {
    let null = null();
    let (mut read, write) = pipe();
    let stdio = [null.as_fd(), write.as_fd(), null.as_fd()];
    let mut started = start(script("echo $$; exit 7", stdio)).unwrap();
    drop(write);
    started.lent.take_back();
    let stat = crate::sys::stat::Stat::of(started.pid).unwrap();
    assert!(stat.has_not_executed && stat.start == started.start, "{stat:?}");
    started.socket.write_all(&[0]).unwrap();
    let mut text = String::new();
    read.read_to_string(&mut text).unwrap();
    assert_eq!(text.trim(), started.pid.to_string());
    assert_eq!(code(started), Some(7));
}

/// Also when nobody can tell it.
#[test]
fn it_ends_when_nobody_can_open_the_gate_any_more() {
    let null = null();
    let started = start(script("exit 7", [null.as_fd(); 3])).unwrap();
    let Started { pidfd, socket, lent, reserve, .. } = started;
    drop((socket, reserve, lent));
    let status = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
    assert_eq!(status.unwrap().unwrap().exit_status(), Some(127));
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

/// What it has open, whatever of ours it begins with; and nothing of it stays open here.
#[test]
fn it_has_what_it_was_given_and_ours_is_as_it_was() {
    let mut slots = Slots::new().unwrap();
    // One that anybody would inherit, and many others, which are none of its business.
    let (_, left_open) = pipe();
    rustix::io::fcntl_setfd(&left_open, rustix::io::FdFlags::empty()).unwrap();
    let others: Vec<_> = (0..300).map(|_| null()).collect();
    let ways = [(true, Memory::Shared), (false, Memory::Shared), (true, Memory::Copied)];
    for (shared, memory) in ways {
        let before = open_files();
        let null = null();
        let (mut read, write) = pipe();
        slots.are_shared = shared;
        let stdio = [null.as_fd(), write.as_fd(), write.as_fd()];
        // A glob is read through a descriptor that is closed by then.
        let program = script("echo /proc/$$/fd/*", stdio);
        let mut started = slots.start(program, memory).unwrap();
        slots.take_back();
        drop((write, null));
        started.socket.write_all(&[0]).unwrap();
        let mut text = String::new();
        // It ends only when nobody holds the other end, nor a copy of it.
        read.read_to_string(&mut text).unwrap();
        let mut numbers: Vec<&str> =
            text.split_whitespace().filter_map(|path| path.rsplit('/').next()).collect();
        // The directory that the shell looks into.
        numbers.retain(|number| *number != "3");
        assert_eq!(numbers, ["0", "1", "2"], "{shared} {memory:?}");
        assert_eq!(code(started), Some(0));
        drop(read);
        assert_eq!(open_files(), before, "{shared} {memory:?}");
    }
    drop((others, left_open));
}

#[test]
fn what_cannot_be_executed_is_told() {
    for memory in [Memory::Shared, Memory::Copied] {
        let null = null();
        let mut program = script("", [null.as_fd(); 3]);
        program.setup.candidates = texts(&["/no/such/program", "/dev/null"]);
        let mut slots = Slots::new().unwrap();
        let mut started = slots.start(program, memory).unwrap();
        slots.take_back();
        started.socket.write_all(&[0]).unwrap();
        let denied = Report { stage: Stage::Exec, errno: libc::EACCES, index: 1 };
        let (report, status) = end(started);
        assert_eq!((report, status.exit_status()), (Some(denied), Some(127)), "{memory:?}");
    }
}

/// Whoever starts something lets go of its descriptors at once, and their numbers become those of
/// others, while the process has not begun.
#[test]
fn a_source_may_be_closed_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (given, other) = (dir.path().join("given"), dir.path().join("other"));
    std::fs::write(&given, "given").unwrap();
    std::fs::write(&other, "other").unwrap();
    for _ in 0..100 {
        let (mut read, write) = pipe();
        let (source, null) = (File::open(&given).unwrap(), null());
        let stdio = [source.as_fd(), write.as_fd(), null.as_fd()];
        let mut started = start(script("cat", stdio)).unwrap();
        drop((source, write, null));
        let others = [(); 4].map(|()| File::open(&other).unwrap());
        started.lent.take_back();
        started.socket.write_all(&[0]).unwrap();
        let mut text = String::new();
        read.read_to_string(&mut text).unwrap();
        assert_eq!(text, "given");
        drop(others);
        assert_eq!(code(started), Some(0));
    }
}

/// What it inherits is neither a mask nor a disposition of ours, though handlers of ours are in the
/// memory that it shares.
#[test]
fn no_signal_is_blocked_or_ignored_in_the_command() {
    extern "C" fn handler(_: i32) {}
    // SAFETY: the handler does nothing.
    unsafe {
        libc::signal(libc::SIGUSR2, handler as *const () as usize);
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
    }
    let null = null();
    let (mut read, write) = pipe();
    let show = "while read -r line; do case $line in Sig[BI]*) echo $line;; esac; done \
                < /proc/$$/status";
    let mut started = start(script(show, [null.as_fd(), write.as_fd(), null.as_fd()])).unwrap();
    drop(write);
    started.lent.take_back();
    started.socket.write_all(&[0]).unwrap();
    let mut text = String::new();
    read.read_to_string(&mut text).unwrap();
    let masks: Vec<&str> = text.split_whitespace().skip(1).step_by(2).collect();
    assert_eq!(masks, ["0000000000000000"; 2], "{text}");
    assert_eq!(code(started), Some(0));
}

/// A signal that comes while it waits is its own, and no handler of ours has it. One that leaves a core,
/// which would be of our memory, kills it without.
#[test]
fn a_signal_that_comes_early_is_its_own_and_leaves_no_core() {
    static HANDLED: AtomicU32 = AtomicU32::new(0);
    extern "C" fn handler(_: i32) {
        HANDLED.store(std::process::id(), Ordering::Relaxed);
    }
    let null = null();
    for (sent, ends_by) in [
        (libc::SIGUSR1, libc::SIGUSR1),
        (libc::SIGTERM, libc::SIGTERM),
        (libc::SIGQUIT, libc::SIGKILL),
        (libc::SIGSEGV, libc::SIGKILL),
    ] {
        // SAFETY: the handler only stores a number.
        unsafe { libc::signal(sent, handler as *const () as usize) };
        let mut started = start(script("exec sleep 1000", [null.as_fd(); 3])).unwrap();
        let signal = crate::core::spec::Signal(u8::try_from(sent).unwrap());
        crate::sys::signal::send(&started.pidfd, signal).unwrap();
        started.socket.write_all(&[0]).unwrap();
        let (report, status) = end(started);
        assert_eq!((report, status.terminating_signal()), (None, Some(ends_by)));
        assert_eq!(HANDLED.load(Ordering::Relaxed), 0);
    }
}

/// By then it is the command's.
#[test]
fn the_command_may_leave_a_core() {
    let null = null();
    let mut started = start(script("ulimit -c 0; kill -QUIT $$", [null.as_fd(); 3])).unwrap();
    started.socket.write_all(&[0]).unwrap();
    let (report, status) = end(started);
    assert_eq!((report, status.terminating_signal()), (None, Some(libc::SIGQUIT)));
}

#[test]
fn at_which_step_something_goes_wrong_is_told() {
    let null = null();
    let mut program = script("", [null.as_fd(); 3]);
    program.setup.cwd = Some(c"/no/such/directory".to_owned());
    let mut started = start(program).unwrap();
    started.socket.write_all(&[0]).unwrap();
    let (report, _) = end(started);
    assert_eq!(report, Some(Report { stage: Stage::Cwd, errno: libc::ENOENT, index: NO_INDEX }));
}

#[test]
fn what_it_reads_is_kept_until_it_has_executed() {
    let (read, write) = pipe();
    let null = null();
    let stdio = [read.as_fd(), null.as_fd(), null.as_fd()];
    let mut started = start(script("read line", stdio)).unwrap();
    let plan = Arc::clone(&started.lent.0);
    // Nobody waits for it, and it goes on all the same.
    drop(std::mem::replace(&mut started.lent, Lent(Arc::clone(&plan))));
    assert!(lock(&STILL_USED).iter().any(|kept| Arc::ptr_eq(kept, &plan)));
    started.socket.write_all(&[0]).unwrap();
    drop((read, write));
    // It has read nothing.
    assert_eq!(code(started), Some(1));
    assert_eq!(plan.uses.load(Ordering::Acquire), NOTHING);
    // The next one has it let go.
    let next = start(script("", [null.as_fd(); 3])).unwrap();
    assert!(!lock(&STILL_USED).iter().any(|kept| Arc::ptr_eq(kept, &plan)));
    drop((next.socket, next.reserve));
}

#[test]
fn memory_is_copied_where_others_could_look_into_it_or_would_change_with_it() {
    let ids = Some(crate::sys::setup::Ids { uid: 1, gid: 1, groups: vec![] });
    let user = Setup { ids, ..Setup::default() };
    let adjusted = Setup { oom_adjusted: true, ..Setup::default() };
    let limited = Setup { is_short_of_memory: true, ..Setup::default() };
    let usual = Setup::default();
    let all =
        [(&user, false), (&user, true), (&adjusted, false), (&limited, false), (&usual, true)];
    let chosen = all.map(|(setup, is_open)| Memory::choose(setup, is_open));
    use Memory::{Copied, Shared};
    assert_eq!(chosen, [Shared, Copied, Copied, Copied, Shared]);
}

/// It may become another user while it shares our memory; nobody gets a look into it by that.
#[test]
fn nobody_can_look_into_us_when_it_becomes_another_user() {
    if !rustix::process::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "only root can become another user");
        return;
    }
    let null = null();
    let mut program = script("exit 7", [null.as_fd(); 3]);
    program.setup.ids = Some(crate::sys::setup::Ids { uid: 65534, gid: 65534, groups: vec![] });
    let mut started = start(program).unwrap();
    started.socket.write_all(&[0]).unwrap();
    assert_eq!(code(started), Some(7));
    use rustix::process::DumpableBehavior;
    let own = rustix::process::dumpable_behavior().unwrap();
    // Where the system would let others look, it had a copy, and nothing of ours has changed.
    assert_eq!(own == DumpableBehavior::Dumpable, *IS_OPEN_TO_TRACING, "{own:?}");
}
