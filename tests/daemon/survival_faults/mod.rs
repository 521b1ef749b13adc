//! What can go wrong with a daemon, with what it keeps and with what it runs, and what must hold all
//! the same: nothing is doubled, nothing is lost, nobody else gets a signal.

mod damaged;
mod exhausted;

mod full;
mod killed;
mod others;
mod storm;
mod together;

pub use killed::{Tracer, can_trace};

pub use crate::common::processes::pidfd;
use crate::common::processes::{kill, raw};
use crate::common::rng::Rng;
use crate::common::waiting::{readable_within, until};
use crate::support::{Daemon, Status, pids};
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A number for `sleep` that no other test has, by which its processes are found.
fn marker() -> String {
    format!("9{:07}", std::process::id())
}

/// The shell line of a process that tells in the file `doubled` when another one of its name runs,
/// which has its lock until nothing is left of it.
fn only_one(name: &str, seconds: &str) -> String {
    format!(
        "exec 9>>@DIR@/lock.{name}; flock -n 9 || echo {name} >>@DIR@/doubled; exec sleep {seconds}"
    )
}

/// One process that is [`only_one`], as a line of the file. It is started again at once.
fn entry(name: &str, seconds: &str) -> String {
    let policy = "restartPolicy: { delay: 1ms, maxDelay: 10ms }";
    format!("  {name}: {{ shell: '{}', {policy} }}\n", only_one(name, seconds))
}

fn was_doubled(daemon: &Daemon) -> Option<String> {
    fs::read_to_string(daemon.path().join("doubled")).ok()
}

/// Exactly these run: one process for each, and no other with this test's marker.
fn exactly(status: &Status) {
    let mut known: Vec<u32> = pids(status).into_values().collect();
    known.sort_unstable();
    let there = || {
        let mut there = crate::common::processes::processes_with(&format!("sleep {}", marker()));
        there.sort_unstable();
        there
    };
    until(&format!("{known:?} and nothing else, but {:?}", there()), || there() == known);
}

/// What a test needs that only root can have; says so where it is not there. Under CI it is.
fn can(what: &str, is_there: bool) -> bool {
    if !is_there {
        assert!(std::env::var_os("CI").is_none(), "CI has it: {what}");
        eprintln!("skipped: {what} is needed");
    }
    is_there
}

fn is_root() -> bool {
    can("root", nix::unistd::Uid::effective().is_root())
}

/// The seed of a test that draws: PROVOST_SEED, or a new one; printed, for the next time.
pub struct Draw(Rng);

impl Draw {
    pub fn new() -> Draw {
        let given = std::env::var("PROVOST_SEED").ok().and_then(|seed| seed.parse().ok());
        let time = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH);
        let seed = given.unwrap_or_else(|| time.unwrap().as_nanos() as u64 >> 10);
        println!("PROVOST_SEED={seed}");
        eprintln!("PROVOST_SEED={seed}");
        Draw(Rng::new(seed))
    }

    /// Below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0.next() % limit
    }
}

/// A control group for one test; what is in it ends with it.
struct Group(PathBuf);

impl Group {
    fn new() -> Option<Group> {
        if !is_root() {
            return None;
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mount = mounts.lines().find(|line| line.contains(" - cgroup2 "));
        let mount = mount.and_then(|line| line.split(' ').nth(4)).map(PathBuf::from)?;
        let path = mount.join(format!("provost-test-{}", marker()));
        fs::create_dir(&path).inspect_err(|error| eprintln!("{}: {error}", path.display())).ok()?;
        Some(Group(path))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::write(self.0.join("cgroup.kill"), "1");
        let below = |path: &PathBuf| -> Vec<PathBuf> {
            let entries = fs::read_dir(path).into_iter().flatten().flatten();
            entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
        };
        let deadline = Instant::now() + Duration::from_secs(5);
        while self.0.exists() && Instant::now() < deadline {
            for runs in below(&self.0) {
                below(&runs).iter().for_each(|run| drop(fs::remove_dir(run)));
                let _ = fs::remove_dir(runs);
            }
            let _ = fs::remove_dir(&self.0);
        }
    }
}
