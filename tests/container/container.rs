//! A daemon that is process 1 of its own pid namespace, seen from outside of it.

use crate::common::waiting::DEADLINE;
use crate::support::{self, Status};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use provost::client::{Client, Target};
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Instant;
use tempfile::TempDir;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    Provostd,
    Up,
}

pub const BOTH: [Which; 2] = [Which::Provostd, Which::Up];

/// Ends, with all in it, when it is dropped.
pub struct Container {
    pub dir: TempDir,
    child: Child,
    /// Its first process, by the number that it has out here.
    first: Option<u32>,
}

/// How it is made.
pub struct Image<'a> {
    pub which: Which,
    pub yaml: &'a str,
    /// Namespaces beside that of pids.
    pub options: &'a [&'a str],
    /// A shell line that is run inside before the daemon takes the shell's place.
    pub setup: &'a str,
    /// What makes the daemon, which is the rest of the line, another user's.
    pub through: &'a str,
}

impl<'a> Image<'a> {
    pub fn of(which: Which, yaml: &'a str) -> Image<'a> {
        Image { which, yaml, options: &[], setup: "", through: "" }
    }

    /// None, where no container can be had; under CI that is a failure.
    pub fn started(self) -> Option<Container> {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for private in ["run", "state"] {
            fs::create_dir(dir.path().join(private)).unwrap();
            let mode = fs::Permissions::from_mode(0o700);
            fs::set_permissions(dir.path().join(private), mode).unwrap();
        }
        self.started_in(dir)
    }

    /// In a directory that may have been another's before.
    pub fn started_in(self, dir: TempDir) -> Option<Container> {
        let options = [&["--pid", "--fork", "--mount-proc", "--kill-child"], self.options].concat();
        let can = Command::new("unshare").args(&options).arg("true").output();
        if !can.is_ok_and(|output| output.status.success()) {
            assert!(std::env::var_os("CI").is_none(), "CI can have namespaces");
            eprintln!("skipped: `unshare {}` is not allowed here", options.join(" "));
            return None;
        }
        save(dir.path(), self.yaml);
        let log = File::options().append(true).create(true).open(dir.path().join("daemon.log"));
        let log = log.unwrap();
        let daemon = match self.which {
            Which::Provostd => {
                "\"$PROVOSTD\" --user --bus none --config \"$DIR/processes.yaml\" \
                 --socket \"$DIR/run/private\" --state \"$DIR/kept\""
            }
            Which::Up => "\"$PROVOST\" --socket \"$DIR/run/private\" up",
        };
        let line = format!("cd \"$DIR\"\n{}\nexec {} {daemon}", self.setup, self.through);
        let child = Command::new("unshare")
            .args(&options)
            .args(["sh", "-ec", &line])
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("DIR", dir.path())
            .env("PROVOST", env!("CARGO_BIN_EXE_provost"))
            .env("PROVOSTD", env!("CARGO_BIN_EXE_provostd"))
            .env("XDG_RUNTIME_DIR", dir.path().join("run"))
            .env("XDG_STATE_HOME", dir.path().join("state"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Some(Container { dir, child, first: None })
    }
}

impl Container {
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn save(&self, yaml: &str) {
        save(self.path(), yaml);
    }

    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.path().join("daemon.log")).unwrap_or_default())
            .into_owned()
    }

    /// Waits until the log has it so often.
    pub fn logged(&mut self, text: &str, times: usize) {
        let deadline = Instant::now() + DEADLINE;
        while self.log().matches(text).count() < times {
            self.is_there();
            assert!(Instant::now() < deadline, "never logged {text:?}:\n{}", self.log());
            std::thread::yield_now();
        }
    }

    /// Waits until its socket answers.
    pub async fn client(&mut self) -> Client {
        let target = Target::Socket(self.path().join("run/private"));
        let deadline = Instant::now() + DEADLINE;
        loop {
            match Client::connect(&target).await {
                Ok(client) => return client,
                Err(error) => {
                    self.is_there();
                    assert!(Instant::now() < deadline, "{error}\n{}", self.log());
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    fn is_there(&mut self) {
        let ended = self.child.try_wait().unwrap();
        assert!(ended.is_none(), "it ended: {ended:?}\n{}", self.log());
    }

    /// Waits until the status is as `wanted` says, and returns it.
    pub async fn until(&mut self, what: &str, wanted: impl Fn(&Status) -> bool) -> Status {
        let client = self.client().await;
        let mut watch = client.watch().await.unwrap();
        let deadline = Instant::now() + DEADLINE;
        loop {
            let now = support::status(&client).await;
            if wanted(&now) {
                return now;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if tokio::time::timeout(left, watch.changed()).await.is_err() {
                panic!("never {what}: {now:#?}\n{}", self.log());
            }
        }
    }

    pub async fn until_running(&mut self, names: &[&str]) -> Status {
        self.until(&format!("running: {names:?}"), |status| {
            names.iter().all(|name| status.get(*name).is_some_and(|p| p.state == "running"))
        })
        .await
    }

    /// The daemon, by the number that it has out here.
    pub fn first(&mut self) -> u32 {
        if self.first.is_none() {
            let deadline = Instant::now() + DEADLINE;
            self.first = loop {
                match children(self.child.id()).first() {
                    Some(first) => break Some(*first),
                    None => assert!(Instant::now() < deadline, "{}", self.log()),
                }
                std::thread::yield_now();
            };
        }
        self.first.unwrap()
    }

    pub fn signal(&mut self, signal: Signal) {
        let first = i32::try_from(self.first()).unwrap();
        kill(Pid::from_raw(first), signal).unwrap();
    }

    /// Waits for its end; the status is that of its first process.
    pub fn ended(&mut self) -> ExitStatus {
        crate::common::waiting::ended(&mut self.child, "the container's end")
    }

    /// Its first process is killed, and with it the kernel kills the rest.
    pub fn killed(mut self) -> TempDir {
        self.signal(Signal::SIGKILL);
        self.ended();
        std::mem::replace(&mut self.dir, tempfile::tempdir().unwrap())
    }

    /// The memory that is its own, in KiB.
    pub fn memory(&mut self) -> u64 {
        crate::common::processes::memory(self.first(), "Anonymous:")
    }

    pub fn descriptors(&mut self) -> usize {
        crate::common::processes::descriptors(self.first())
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // Its child is killed with it, and with that all of the namespace.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- daemon.log\n{}", self.log());
        }
    }
}

fn save(dir: &Path, yaml: &str) {
    let temporary = dir.join(".processes.yaml.new");
    fs::write(&temporary, yaml.replace("@DIR@", dir.to_str().unwrap())).unwrap();
    fs::set_permissions(&temporary, fs::Permissions::from_mode(0o644)).unwrap();
    fs::rename(temporary, dir.join("processes.yaml")).unwrap();
}

/// The children of a process, of all its threads.
pub fn children(pid: u32) -> Vec<u32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let of = |thread: std::io::Result<fs::DirEntry>| {
        fs::read_to_string(thread.ok()?.path().join("children")).ok()
    };
    let lists: String = threads.filter_map(of).collect::<Vec<_>>().join(" ");
    lists.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// Field `name` of proc_pid_status(5).
pub fn field(pid: u32, name: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(line.trim().to_owned())
}
