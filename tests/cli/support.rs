//! A place of its own for each test, and `provost` in it.

use crate::common::waiting::{DEADLINE, ends_within};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A directory with nothing of this machine's configuration in sight.
pub struct Place {
    root: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Place {
        let root = tempfile::Builder::new().prefix("provost").tempdir().unwrap();
        for dir in ["run", "home", "project"] {
            std::fs::create_dir(root.path().join(dir)).unwrap();
        }
        Place { root }
    }

    /// Where commands run.
    pub fn project(&self) -> PathBuf {
        self.root.path().join("project")
    }

    /// Writes a file of the project.
    pub fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.project().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// Reads a file of the project.
    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.project().join(name)).unwrap()
    }

    /// `provost` with these arguments.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_provost"));
        command
            .args(args)
            .current_dir(self.project())
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
            .env("HOME", self.root.path().join("home"))
            .env("XDG_RUNTIME_DIR", self.root.path().join("run"))
            .env("LANG", "C.UTF-8")
            .stdin(Stdio::null());
        command
    }

    /// Runs it to its end.
    pub fn run(&self, args: &[&str]) -> Ran {
        let output = self.command(args).output().unwrap();
        Ran {
            what: args.join(" "),
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Writes processes.yaml and runs `provost up` until the end of the test.
    pub fn up(&self, processes: &str) -> Up {
        self.write("processes.yaml", processes);
        Up::new(self)
    }
}

/// What a command came to.
pub struct Ran {
    what: String,
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// Fails the test unless it ended with this code.
    #[track_caller]
    pub fn code(self, expected: i32) -> Ran {
        assert_eq!(
            self.code,
            Some(expected),
            "provost {}\n--- stdout\n{}\n--- stderr\n{}",
            self.what,
            self.stdout,
            self.stderr
        );
        self
    }

    /// Fails the test unless standard output has this in it.
    #[track_caller]
    pub fn says(self, text: &str) -> Ran {
        let Ran { what, stdout, stderr, .. } = &self;
        assert!(
            stdout.contains(text),
            "provost {what}: no {text:?} in\n{stdout}\n--- stderr\n{stderr}"
        );
        self
    }

    /// Fails the test unless standard error has this in it.
    #[track_caller]
    pub fn warns(self, text: &str) -> Ran {
        let Ran { what, stdout, stderr, .. } = &self;
        assert!(
            stderr.contains(text),
            "provost {what}: no {text:?} in\n{stderr}\n--- stdout\n{stdout}"
        );
        self
    }

    /// Standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("provost {}: {error} in\n{}", self.what, self.stdout))
    }
}

/// A `provost up`, ended with the test.
pub struct Up {
    child: Child,
    log: PathBuf,
}

impl Up {
    fn new(place: &Place) -> Up {
        let notify = place.root.path().join("notify");
        let socket = UnixDatagram::bind(&notify).unwrap();
        let log = place.root.path().join("up.log");
        let output = std::fs::File::create(&log).unwrap();
        let child = place
            .command(&["up"])
            .env("NOTIFY_SOCKET", &notify)
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap();
        let up = Up { child, log };
        up.wait_until_ready(&socket);
        up
    }

    /// The service manager's protocol tells when it is (sd_notify(3)).
    fn wait_until_ready(&self, socket: &UnixDatagram) {
        let end = Instant::now() + DEADLINE;
        let mut buffer = [0; 4096];
        loop {
            let left = end.saturating_duration_since(Instant::now());
            socket.set_read_timeout(Some(left.max(Duration::from_millis(1)))).unwrap();
            let Ok(count) = socket.recv(&mut buffer) else {
                panic!("`provost up` is not ready; it wrote\n{}", self.output());
            };
            if buffer[..count].split(|byte| *byte == b'\n').any(|line| line == b"READY=1") {
                return;
            }
        }
    }

    /// What it wrote.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Asks it to end, and gives its exit code.
    pub fn terminate(mut self) -> Option<i32> {
        self.signal(nix::sys::signal::Signal::SIGTERM);
        assert!(ends_within(&self.child, DEADLINE), "`up` does not end\n{}", self.output());
        self.child.wait().unwrap().code()
    }

    fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = i32::try_from(self.child.id()).unwrap();
        // Our own child, not waited for yet: the number is still its.
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal);
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        self.signal(nix::sys::signal::Signal::SIGTERM);
        if !ends_within(&self.child, DEADLINE) {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

/// The row of one instance in the JSON of `status`.
#[track_caller]
pub fn row(place: &Place, name: &str) -> serde_json::Value {
    let ran = place.run(&["status", name, "-o", "json"]);
    assert!(matches!(ran.code, Some(0 | 3)), "{}", ran.stderr);
    let rows = ran.json();
    assert_eq!(rows.as_array().unwrap().len(), 1, "{rows}");
    rows[0].clone()
}

/// Whether there is such a process.
pub fn alive(pid: &serde_json::Value) -> bool {
    Path::new("/proc").join(pid.as_u64().unwrap().to_string()).exists()
}
