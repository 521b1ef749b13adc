//! Processes, as they are seen from the outside.

use super::waiting::wait_readable;
use provost::sys::stat::Stat;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use std::fs;
use std::os::fd::OwnedFd;

pub fn raw(pid: u32) -> Pid {
    Pid::from_raw(i32::try_from(pid).unwrap()).unwrap()
}

pub fn pidfd(pid: u32) -> OwnedFd {
    pidfd_open(raw(pid), PidfdFlags::empty()).unwrap()
}

/// Sends a signal that ends a process, and waits for its end.
pub fn end_by(pid: u32, signal: Signal) {
    let fd = pidfd(pid);
    kill_process(raw(pid), signal).unwrap();
    wait_readable(&fd, "the end of a process");
}

/// Kills a process and waits for its end.
pub fn kill(pid: u32) {
    end_by(pid, Signal::KILL);
}

/// When a process was started, in ticks; 0 where there is none.
pub fn start_of(pid: u32) -> u64 {
    Stat::of(pid).map_or(0, |stat| stat.start)
}

/// All that there are.
pub fn all() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").unwrap();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// Processes whose command line has this text, the test's own aside.
pub fn processes_with(text: &str) -> Vec<u32> {
    let own = std::process::id();
    all()
        .filter(|pid| *pid != own)
        .filter(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).replace(char::from(0), " ").contains(text)
        })
        .collect()
}

/// Memory in KiB, by a line of `smaps_rollup` (proc_pid_smaps(5)): `Pss:` is its share, `Anonymous:`
/// what is its own, without pages of the program, which come and go with other daemons.
pub fn memory(pid: u32, line: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let rest = text.lines().find_map(|found| found.strip_prefix(line)).unwrap();
    rest.split_whitespace().next().unwrap().parse().unwrap()
}

/// How many descriptors a process has open.
pub fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}
