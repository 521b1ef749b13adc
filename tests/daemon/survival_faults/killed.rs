//! The daemon is killed at a system call that was drawn: in its start, and in a reload.

use super::{Draw, can, entry, exactly, marker, pidfd, readable_within, was_doubled};
use crate::support::{Daemon, identities};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::Duration;

/// What is between the deciding, the keeping and the doing, and about how often it comes.
const CALLS: [(&str, u64); 6] = [
    ("rename,renameat2", 30),
    ("write,sendto,sendmsg", 60),
    ("openat", 150),
    ("clone3", 8),
    ("pidfd_send_signal", 4),
    ("close", 150),
];

/// How often, for each of start and reload.
const TIMES: u64 = 16;

pub fn can_trace() -> bool {
    let traced = Command::new("strace").args(["-o", "/dev/null", "true"]).output();
    can("strace", traced.is_ok_and(|output| output.status.success()))
}

fn injection(draw: &mut Draw) -> String {
    let (call, often) = CALLS[draw.below(CALLS.len() as u64) as usize];
    format!("inject={call}:signal=SIGKILL:when={}", 1 + draw.below(often))
}

/// Six processes, by name: which command each has.
type Wanted = BTreeMap<String, u64>;

fn changed(wanted: &Wanted, draw: &mut Draw) -> Wanted {
    let mut next = wanted.clone();
    for _ in 0..1 + draw.below(3) {
        let name = format!("p{}", draw.below(8));
        match draw.below(3) {
            0 if next.len() > 3 => drop(next.remove(&name)),
            _ => drop(next.insert(name, draw.below(1000))),
        }
    }
    next
}

fn file(wanted: &Wanted) -> String {
    let marker = marker();
    let entries = wanted.iter().map(|(name, command)| entry(name, &format!("{marker}{command}")));
    format!("processes:\n{}", entries.collect::<String>())
}

async fn arrived(daemon: &Daemon, wanted: &Wanted) -> BTreeMap<String, (u32, u64)> {
    let status = daemon
        .until("what the file says", |all| {
            let is_up = |name: &String| {
                let process = all.get(&format!("{name}@0"));
                process.is_some_and(|p| p.state == "running" && !p.needs_restart)
            };
            all.len() == wanted.len() && wanted.keys().all(is_up)
        })
        .await;
    exactly(&status);
    assert_eq!(was_doubled(daemon), None);
    identities(&status)
}

/// Those whose command is the same in both are the same processes.
fn compare(
    (old, before): (&Wanted, &BTreeMap<String, (u32, u64)>),
    (new, after): (&Wanted, &BTreeMap<String, (u32, u64)>),
    how: &str,
) {
    for (name, command) in old {
        if new.get(name) == Some(command) {
            let instance = format!("{name}@0");
            assert_eq!(before[&instance], after[&instance], "{name} was moved: {how}");
        }
    }
}

fn first() -> Wanted {
    (0..6).map(|n| (format!("p{n}"), 0)).collect()
}

/// Over and over: the file becomes another one, the daemon is killed on the way there, as `die` does
/// it, and the next one has to arrive.
async fn over_and_over(die: impl Fn(Daemon, &str, &str, &mut Draw) -> Daemon) {
    if !can_trace() {
        return;
    }
    let mut draw = Draw::new();
    let mut wanted = first();
    let mut daemon = Daemon::start(&file(&wanted));
    let mut before = arrived(&daemon, &wanted).await;
    for _ in 0..TIMES {
        let next = changed(&wanted, &mut draw);
        let how = injection(&mut draw);
        daemon = die(daemon, &file(&next), &how, &mut draw).again();
        let after = arrived(&daemon, &next).await;
        compare((&wanted, &before), (&next, &after), &how);
        (wanted, before) = (next, after);
    }
    assert!(daemon.stop().success());
}

#[tokio::test]
async fn in_its_start() {
    over_and_over(|mut daemon, file, how, draw| {
        daemon = daemon.killed();
        daemon.save(file);
        // Once or twice in a row.
        for _ in 0..1 + draw.below(2) {
            let strace = ["strace", "-D", "-qq", "-o", "/dev/null", "-e", how];
            daemon = daemon.again_under(&strace, &[]);
            // What is not reached is killed in the middle of something else.
            readable_within(&pidfd(daemon.pid()), Duration::from_millis(1500));
            daemon = daemon.killed();
        }
        daemon
    })
    .await;
}

#[tokio::test]
async fn in_a_reload() {
    over_and_over(|daemon, file, how, _| {
        let _tracer = Tracer::of(daemon.pid(), how);
        daemon.save(file);
        daemon.signal(nix::sys::signal::Signal::SIGHUP);
        readable_within(&pidfd(daemon.pid()), Duration::from_millis(1500));
        daemon.killed()
    })
    .await;
}

/// Has something done to the system calls of a running daemon.
pub struct Tracer {
    child: Child,
    /// It tells of each process that comes, and would end if nobody listened.
    _told: Lines<BufReader<ChildStderr>>,
}

impl Tracer {
    /// To those of its first thread.
    pub fn of(pid: u32, how: &str) -> Tracer {
        Tracer::with(&[pid], &["-o", "/dev/null", "-e", how])
    }

    /// To those of all that it starts from now on as well.
    pub fn following(pid: u32, how: &str) -> Tracer {
        Tracer::with(&[pid], &["-o", "/dev/null", "-f", "-e", how])
    }

    /// To those of some of its threads, and nothing that they start.
    pub fn with(threads: &[u32], options: &[&str]) -> Tracer {
        let mut child = Command::new("strace")
            .args(options)
            .args(threads.iter().flat_map(|thread| ["-p".to_owned(), thread.to_string()]))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        for _ in threads {
            assert!(lines.any(|line| line.unwrap().contains("attached")), "it is not traced");
        }
        Tracer { child, _told: lines }
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
