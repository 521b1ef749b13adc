//! The daemon as it is delivered: started, asked, killed.

use crate::common::processes::pidfd;
use crate::common::waiting::{DEADLINE, ended, readable_within, until};
use crate::file::Ground;
use provost::client::{
    Client, ClientError, JobOutcome, ManagerStatus, ProcessStatus, Target, Verb, Watch,
};
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

/// A running daemon.
pub struct Daemon {
    pub child: Child,
    pub client: Client,
    watch: Watch,
    socket: PathBuf,
    log: PathBuf,
}

/// What it says of itself.
pub struct Told {
    pub manager: ManagerStatus,
    pub processes: Vec<ProcessStatus>,
    /// The instances that have a job; an empty name is a reload's.
    pub jobs: Vec<String>,
}

impl Daemon {
    /// Starts it, and waits until it says that it is ready.
    pub async fn start(ground: &Ground) -> Daemon {
        let (socket, log) = (ground.dir.join("private"), ground.dir.join("daemon.log"));
        let notify = ground.dir.join("notify");
        let _ = fs::remove_file(&notify);
        let manager = UnixDatagram::bind(&notify).unwrap();
        manager.set_read_timeout(Some(DEADLINE)).unwrap();
        let out = File::options().create(true).append(true).open(&log).unwrap();
        let own = |name: &str| {
            let dir = ground.dir.join(name);
            fs::create_dir_all(&dir).unwrap();
            fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
            dir
        };
        let child = Command::new(env!("CARGO_BIN_EXE_provostd"))
            .args(["--user", "--bus", "none", "--config"])
            .arg(ground.main_file())
            .arg("--socket")
            .arg(&socket)
            .arg("--state")
            .arg(own("kept"))
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", &ground.dir)
            .env("XDG_RUNTIME_DIR", own("run"))
            .env("NOTIFY_SOCKET", &notify)
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .spawn()
            .unwrap();
        let mut buffer = [0; 4096];
        loop {
            let length = manager.recv(&mut buffer).expect("the daemon says that it is ready");
            if String::from_utf8_lossy(&buffer[..length]).contains("READY=1") {
                break;
            }
        }
        // It goes on telling; nobody may wait for who does not listen.
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            let _ = manager.set_read_timeout(None);
            while manager.recv(&mut buffer).is_ok() {}
        });
        let client = Client::connect(&Target::Socket(socket.clone())).await.unwrap();
        let watch = client.watch().await.unwrap();
        Daemon { child, client, watch, socket, log }
    }

    /// All it says.
    pub async fn told(&self) -> Told {
        let manager = self.client.manager().await.unwrap();
        let processes = self.client.status(&[]).await.unwrap();
        let jobs = self.client.jobs().await.unwrap().into_iter().map(|job| job.name).collect();
        Told { manager, processes, jobs }
    }

    /// Waits until what it says is `enough`, asking again whenever it says that something changed.
    /// The last word where that never came.
    pub async fn until(&mut self, enough: impl Fn(&Told) -> bool) -> Result<Told, Told> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let told = self.told().await;
            if enough(&told) {
                return Ok(told);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if !matches!(tokio::time::timeout(left, self.watch.changed()).await, Ok(Ok(()))) {
                return Err(told);
            }
        }
    }

    /// The command line. Whatever is asked has to end.
    pub fn provost(&self, args: &[String]) -> Output {
        let child = Command::new(env!("CARGO_BIN_EXE_provost"))
            .arg("--socket")
            .arg(&self.socket)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let process = pidfd(child.id());
        let output = std::thread::spawn(move || child.wait_with_output());
        if !readable_within(&process, DEADLINE) {
            let _ = rustix::process::pidfd_send_signal(&process, rustix::process::Signal::KILL);
            panic!("never: the end of provost {args:?}");
        }
        output.join().unwrap().unwrap()
    }

    /// Asks and waits as long as `patience` lasts: what needs something that never comes waits for
    /// ever. None: it goes on.
    pub async fn ask(
        &self,
        verb: Verb,
        names: &[String],
        patience: Duration,
    ) -> Result<Option<Vec<JobOutcome>>, ClientError> {
        let asked = tokio::time::timeout(patience, self.client.run(verb, names, |_| {})).await;
        asked.ok().transpose()
    }

    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(self.child.id().try_into().unwrap());
        nix::sys::signal::kill(pid, signal).unwrap();
    }

    /// Has it stand still, until SIGCONT. It does so a moment after it was told: until then it may
    /// still read something.
    pub fn stop_still(&self) {
        self.signal(nix::sys::signal::Signal::SIGSTOP);
        let threads = format!("/proc/{}/task", self.child.id());
        let is_still = |thread: PathBuf| {
            // A thread that is gone is as still. The state comes after the name (proc_pid_stat(5)).
            let stat = fs::read_to_string(thread.join("stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('T'))
        };
        until("the daemon stands still", || {
            fs::read_dir(&threads).unwrap().flatten().all(|thread| is_still(thread.path()))
        });
    }

    /// Waits for its end.
    pub fn ended(&mut self) -> ExitStatus {
        ended(&mut self.child, "the daemon's end")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // The second one kills what does not end by itself.
            self.signal(nix::sys::signal::Signal::SIGTERM);
            self.signal(nix::sys::signal::Signal::SIGTERM);
            let _ = self.child.wait();
        }
    }
}
