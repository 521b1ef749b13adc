//! The children of this process, as the kernel lists them.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// The list of `/proc/PID/task/TID/children` (proc_pid_task_children(5)), of the first thread.
///
/// Orphans come to the first thread of a subreaper that lives, which is this one for as long as
/// there is the process; so all of them are in here. Children that another thread has made are not.
#[derive(Debug)]
pub struct Children(File);

impl Children {
    /// Opens the list.
    ///
    /// # Errors
    /// `NotFound` where the kernel was built without it (`CONFIG_PROC_CHILDREN`).
    pub fn open() -> io::Result<Children> {
        let pid = std::process::id();
        File::open(format!("/proc/self/task/{pid}/children")).map(Children)
    }

    /// The children, dead ones included. None is missed as long as none is reaped meanwhile: the
    /// kernel goes on by counting, and a child that comes is put at the end.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn list(&self) -> io::Result<Vec<u32>> {
        const STEP: usize = 4096;
        let (mut text, mut length) = (vec![0; STEP], 0);
        loop {
            match self.0.read_at(&mut text[length..], length as u64)? {
                0 => break,
                more => length += more,
            }
            text.resize(length + STEP, 0);
        }
        let words = text[..length].split(|byte| *byte == b' ').filter(|word| !word.is_empty());
        let number = |word| std::str::from_utf8(word).ok()?.parse::<u32>().ok();
        let broken = || io::Error::new(io::ErrorKind::InvalidData, "a child has no number");
        words.map(|word| number(word).ok_or_else(broken)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command};

    #[test]
    fn all_children_are_listed_until_they_are_reaped() {
        // More than fit into one page. Children are those of the thread that made them.
        let mut children: Vec<Child> =
            (0..900).map(|_| Command::new("/bin/true").spawn().unwrap()).collect();
        let tid = rustix::thread::gettid().as_raw_nonzero();
        let list = File::open(format!("/proc/self/task/{tid}/children")).map(Children).unwrap();
        let mut pids: Vec<u32> = children.iter().map(Child::id).collect();
        assert_eq!(list.list().unwrap(), pids);
        children.remove(7).wait().unwrap();
        pids.remove(7);
        assert_eq!(list.list().unwrap(), pids);
        for mut child in children {
            child.wait().unwrap();
        }
        assert!(list.list().unwrap().is_empty());
    }
}
