//! A daemon whose file is changed, with one process that follows the changes and one that must not be
//! touched by any of them.

use crate::common::waiting::DEADLINE;
use crate::support::{Daemon, Status, pids};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// A configuration whose process `a` is `sleep NUMBER`. `keep` is in all of them, and stands last:
/// half a file has it not.
pub fn version(number: u32) -> String {
    // No shell: once it is said to run, it is what it shall be.
    format!(
        "processes:\n  a: {{ command: [sleep, \"{number}\"] }}\n  keep: {{ command: [sleep, \"7777\"] }}\n"
    )
}

/// What a process runs, as the kernel tells.
pub fn command_line(pid: u32) -> Option<String> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words: Vec<_> = line.split(|byte| *byte == 0).filter(|word| !word.is_empty()).collect();
    Some(words.iter().map(|word| String::from_utf8_lossy(word)).collect::<Vec<_>>().join(" "))
}

/// Whether this one runs, and runs this.
pub fn runs(status: &Status, name: &str, line: &str) -> bool {
    status.get(name).and_then(|process| process.pid).and_then(command_line).as_deref() == Some(line)
}

pub struct Watched {
    pub daemon: Daemon,
    keep: u32,
    a: u32,
}

impl Watched {
    /// The daemon's own file is `version(1001)`.
    pub async fn plain() -> Watched {
        Watched::of(Daemon::start(&version(1001))).await
    }

    /// Files that `fill` lays out, which say `version(1001)`.
    pub async fn filled(fill: impl FnOnce(&Path)) -> Watched {
        Watched::of(Daemon::prepare(fill).run()).await
    }

    pub async fn of(daemon: Daemon) -> Watched {
        let status = daemon
            .until("up", |status| {
                runs(status, "a@0", "sleep 1001") && runs(status, "keep@0", "sleep 7777")
            })
            .await;
        let pids = pids(&status);
        let (keep, a) = (pids["keep@0"], pids["a@0"]);
        Watched { daemon, keep, a }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.daemon.path().join(name)
    }

    pub fn write(&self, name: &str, content: &str) {
        fs::write(self.path(name), content).unwrap();
    }

    /// Runs a shell line in the daemon's directory.
    pub fn shell(&self, line: &str) {
        shell(self.daemon.path(), line);
    }

    /// Waits until `a` runs `sleep NUMBER`, in a process of its own, and nothing else has moved.
    pub async fn becomes(&mut self, number: u32) {
        let line = format!("sleep {number}");
        let what = format!("a runs `{line}`");
        let status = self.daemon.until(&what, |status| runs(status, "a@0", &line)).await;
        let pids = pids(&status);
        assert_eq!(pids["keep@0"], self.keep, "it was moved");
        assert_ne!(pids["a@0"], self.a, "a new command needs a new process");
        self.a = pids["a@0"];
    }

    /// That all is as it was, by PIDs.
    pub async fn is_untouched(&self) {
        let pids = pids(&self.daemon.status().await);
        let now = (pids.get("keep@0"), pids.get("a@0"));
        assert_eq!(now, (Some(&self.keep), Some(&self.a)), "{}", self.daemon.log());
        assert_eq!(command_line(self.keep).as_deref(), Some("sleep 7777"));
    }

    /// Waits until the daemon wrote this more than `count` times.
    pub fn logged_more(&self, text: &str, count: usize) {
        let deadline = Instant::now() + DEADLINE;
        while self.daemon.log().matches(text).count() <= count {
            assert!(Instant::now() < deadline, "not {text:?} again:\n{}", self.daemon.log());
            std::thread::yield_now();
        }
    }

    pub async fn generation(&self) -> u64 {
        self.daemon.client().await.manager().await.unwrap().generation
    }
}

/// Runs a shell line in a directory.
pub fn shell(directory: &Path, line: &str) {
    let output = Command::new("sh")
        .args(["-ec", line])
        .current_dir(directory)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{line}: {output:?}");
}
