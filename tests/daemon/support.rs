//! A daemon of one's own in a directory of one's own.

use crate::common::processes::start_of;
use crate::common::waiting::{DEADLINE, ended, until};
use provost::client::{Client, ManagerStatus, ProcessStatus, ReloadOptions, ReloadSummary, Target};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Instant;
use tempfile::TempDir;

/// A running daemon. Ends, with all it runs, when it is dropped.
pub struct Daemon {
    pub dir: TempDir,
    pub child: Child,
    notified: Receiver<String>,
}

pub type Status = BTreeMap<String, ProcessStatus>;

impl Daemon {
    /// A daemon for this `processes.yaml`, in which `@DIR@` stands for its directory.
    pub fn start(yaml: &str) -> Daemon {
        Daemon::prepare(|_| {}).with(yaml)
    }

    /// A daemon whose directory is filled by `fill` first.
    pub fn prepare(fill: impl FnOnce(&Path)) -> Prepared {
        let dir = tempfile::tempdir().unwrap();
        fill(dir.path());
        Prepared { dir }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn file(&self) -> PathBuf {
        self.path().join("processes.yaml")
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Runs the command line for this daemon: exit code, standard output, standard error.
    pub fn provost(&self, words: &[&str]) -> (i32, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_provost"));
        command.arg("--socket").arg(self.path().join("private")).args(words);
        let output = command.stdin(Stdio::null()).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
    }

    /// Saves the file as editors do: written beside, renamed over.
    pub fn save(&self, yaml: &str) {
        save(self.path(), yaml);
    }

    pub async fn client(&self) -> Client {
        Client::connect(&Target::Socket(self.path().join("private"))).await.unwrap()
    }

    pub async fn reload(&self) -> ReloadSummary {
        self.client().await.reload(&ReloadOptions::default()).await.unwrap()
    }

    pub async fn status(&self) -> Status {
        status(&self.client().await).await
    }

    /// Waits until the status is as `wanted` says, and returns it.
    pub async fn until(&self, what: &str, wanted: impl Fn(&Status) -> bool) -> Status {
        let client = self.client().await;
        let mut watch = client.watch().await.unwrap();
        let deadline = Instant::now() + DEADLINE;
        loop {
            let now = status(&client).await;
            if wanted(&now) {
                return now;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if tokio::time::timeout(left, watch.changed()).await.is_err() {
                panic!("never {what}: {now:#?}\n{}", self.log());
            }
        }
    }

    /// Waits until all of these are running.
    pub async fn until_running(&self, names: &[&str]) -> Status {
        self.until(&format!("running: {names:?}"), |status| {
            names.iter().all(|name| status.get(*name).is_some_and(|p| p.state == "running"))
        })
        .await
    }

    /// Waits until the whole is as `wanted` says, and returns it.
    pub async fn until_manager(
        &self,
        what: &str,
        wanted: impl Fn(&ManagerStatus) -> bool,
    ) -> ManagerStatus {
        let client = self.client().await;
        let mut watch = client.watch().await.unwrap();
        let deadline = Instant::now() + DEADLINE;
        loop {
            let manager = client.manager().await.unwrap();
            if wanted(&manager) {
                return manager;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let changed = tokio::time::timeout(left, watch.changed()).await;
            assert!(changed.is_ok(), "never {what}: {manager:#?}\n{}", self.log());
        }
    }

    /// Waits until the generation is this one and it is applied or failed.
    pub async fn until_generation(&self, generation: u64) {
        let is_there = |manager: &ManagerStatus| {
            manager.generation >= generation && manager.config_state != "applying"
        };
        self.until_manager(&format!("generation {generation}"), is_there).await;
    }

    /// Waits until its socket answers.
    pub fn listening(self) -> Daemon {
        let socket = self.path().join("private");
        let deadline = Instant::now() + DEADLINE;
        while UnixStream::connect(&socket).is_err() {
            assert!(Instant::now() < deadline, "it never listens\n{}", self.log());
            std::thread::yield_now();
        }
        self
    }

    /// Sends a signal to what [`Prepared::up`] started, whoever its parent is.
    pub fn signal_up(&self, signal: nix::sys::signal::Signal) {
        self.try_signal_up(signal).unwrap();
    }

    fn try_signal_up(&self, signal: nix::sys::signal::Signal) -> nix::Result<()> {
        let pid = fs::read_to_string(self.path().join("up.pid")).unwrap();
        let pid = nix::unistd::Pid::from_raw(pid.trim().parse().unwrap());
        nix::sys::signal::kill(pid, signal)
    }

    /// What the daemon wrote.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.path().join("daemon.log")).unwrap_or_default())
            .into_owned()
    }

    /// Waits until the daemon wrote this: its log is written by a thread of its own.
    pub fn logged(&self, text: &str) {
        let deadline = Instant::now() + DEADLINE;
        while !self.log().contains(text) {
            assert!(Instant::now() < deadline, "never logged {text:?}:\n{}", self.log());
            std::thread::yield_now();
        }
    }

    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        nix::sys::signal::kill(pid, signal).unwrap();
    }

    /// Waits for a message to the service manager that has this line.
    pub fn notified(&self, line: &str) -> String {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let message = self
                .notified
                .recv_timeout(left)
                .unwrap_or_else(|error| panic!("never told {line:?} ({error})\n{}", self.log()));
            if message.lines().any(|l| l.starts_with(line)) {
                return message;
            }
        }
    }

    /// Killed, and nothing else: what it ran goes on.
    pub fn killed(mut self) -> Daemon {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self
    }

    /// Another one in the same directory, which is ready.
    pub fn again(self) -> Daemon {
        let daemon = self.again_without_waiting();
        daemon.notified("READY=1");
        daemon
    }

    pub fn again_without_waiting(self) -> Daemon {
        self.again_under(&[], &[])
    }

    /// The same, started by these words before its own and with these variables.
    pub fn again_under(mut self, words: &[&str], env: &[(&str, &str)]) -> Daemon {
        let dir = std::mem::replace(&mut self.dir, tempfile::tempdir().unwrap());
        let socket = dir.path().join("notify");
        let _ = fs::remove_file(&socket);
        let notified = service_manager(&socket);
        Prepared { dir }.spawn_under(&socket, notified, words, env)
    }

    /// Killed, and another one in its place.
    pub fn killed_and_again(self) -> Daemon {
        self.killed().again()
    }

    /// Asks it to end, and waits.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(nix::sys::signal::Signal::SIGTERM);
        self.ended()
    }

    /// Waits for its end.
    pub fn ended(&mut self) -> ExitStatus {
        ended(&mut self.child, "the daemon's end")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal(nix::sys::signal::Signal::SIGTERM);
            // A second one kills what does not end by itself; a test that failed must not hang.
            self.signal(nix::sys::signal::Signal::SIGTERM);
            if self.path().join("up.pid").exists() {
                // It may have just ended.
                let _ = self.try_signal_up(nix::sys::signal::Signal::SIGTERM);
                let _ = self.try_signal_up(nix::sys::signal::Signal::SIGTERM);
            }
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- daemon.log\n{}", self.log());
        }
    }
}

/// A directory for a daemon.
pub struct Prepared {
    pub dir: TempDir,
}

impl Prepared {
    pub fn with(self, yaml: &str) -> Daemon {
        save(self.dir.path(), yaml);
        self.run()
    }

    /// Starts the daemon and waits until it says that it is ready.
    pub fn run(self) -> Daemon {
        let socket = self.dir.path().join("notify");
        let notified = service_manager(&socket);
        let daemon = self.spawn(&socket, notified);
        daemon.notified("READY=1");
        daemon
    }

    /// Starts the daemon with somebody else for a service manager, and waits for its socket.
    pub fn told(self, socket: &Path, yaml: &str) -> Daemon {
        save(self.dir.path(), yaml);
        self.spawn(socket, channel().1).listening()
    }

    /// Starts the daemon with a service manager that hands it what it had stored.
    pub fn handed(self, manager: &Store) -> Daemon {
        let (mut names, mut line) = (Vec::new(), String::new());
        let mut handed = Vec::new();
        for (n, (name, fd)) in manager.stored().into_iter().enumerate() {
            rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::empty()).unwrap();
            use std::os::fd::AsRawFd;
            line += &format!("exec {}<&{}; ", n + 3, fd.as_raw_fd());
            names.push(name);
            handed.push(fd);
        }
        let direct = self.provostd();
        // The standard shell of Debian knows no descriptors of two digits.
        let mut command = Command::new("bash");
        line += "LISTEN_PID=$$ exec \"$@\"";
        command.args(["-c", &line, "sh"]).arg(direct.get_program()).args(direct.get_args());
        let log = || File::options().append(true).open(self.dir.path().join("daemon.log")).unwrap();
        let child = command
            .env_clear()
            .envs(direct.get_envs().filter_map(|(name, value)| Some((name, value?))))
            .env("NOTIFY_SOCKET", &manager.socket)
            .env("LISTEN_FDS", names.len().to_string())
            .env("LISTEN_FDNAMES", names.join(":"))
            .stdin(Stdio::null())
            .stdout(log())
            .stderr(log())
            .spawn()
            .unwrap();
        Daemon { dir: self.dir, child, notified: channel().1 }.listening()
    }

    /// Starts the daemon with another standard error, and waits for its socket.
    pub fn logging_to(self, stderr: impl Into<Stdio>, yaml: &str) -> Daemon {
        save(self.dir.path(), yaml);
        let mut command = self.provostd();
        let child = command.stderr(stderr).spawn().unwrap();
        Daemon { dir: self.dir, child, notified: channel().1 }.listening()
    }

    /// Starts `provost up`. `line` wraps the shell line that becomes it; its number is in `up.pid`.
    pub fn up(self, yaml: &str, line: impl FnOnce(&str) -> Command) -> Daemon {
        save(self.dir.path(), yaml);
        let dir = self.dir;
        let runtime = dir.path().join("run");
        fs::create_dir(&runtime).unwrap();
        fs::set_permissions(&runtime, fs::Permissions::from_mode(0o700)).unwrap();
        let shell =
            "echo $$ >up.pid.new; mv up.pid.new up.pid; exec \"$PROVOST\" --socket private up";
        let child = line(shell)
            .current_dir(dir.path())
            .env("PROVOST", env!("CARGO_BIN_EXE_provost"))
            .env("XDG_RUNTIME_DIR", runtime)
            .env("SHELL", "/bin/sh")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Daemon { dir, child, notified: channel().1 }
    }

    /// Starts the daemon by these words before its own and with these variables, and waits until it
    /// says that it is ready.
    pub fn run_under(self, words: &[&str], env: &[(&str, &str)]) -> Daemon {
        let socket = self.dir.path().join("notify");
        let notified = service_manager(&socket);
        let daemon = self.spawn_under(&socket, notified, words, env);
        daemon.notified("READY=1");
        daemon
    }

    fn spawn(self, socket: &Path, notified: Receiver<String>) -> Daemon {
        self.spawn_under(socket, notified, &[], &[])
    }

    fn spawn_under(
        self,
        socket: &Path,
        notified: Receiver<String>,
        words: &[&str],
        env: &[(&str, &str)],
    ) -> Daemon {
        let mut command = self.provostd_under(words);
        command.env("NOTIFY_SOCKET", socket).envs(env.iter().copied());
        Daemon { dir: self.dir, child: command.spawn().unwrap(), notified }
    }

    fn provostd(&self) -> Command {
        self.provostd_under(&[])
    }

    fn provostd_under(&self, words: &[&str]) -> Command {
        let dir = self.dir.path();
        let log = File::options().append(true).create(true).open(dir.join("daemon.log")).unwrap();
        let words: Vec<&str> =
            words.iter().copied().chain([env!("CARGO_BIN_EXE_provostd")]).collect();
        let mut command = Command::new(words[0]);
        command
            .args(&words[1..])
            .args(["--user", "--bus", "none", "--config"])
            .arg(dir.join("processes.yaml"))
            .arg("--socket")
            .arg(dir.join("private"))
            .arg("--state")
            .arg(dir.join(".local/state/provost"))
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", dir)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        command
    }
}

/// A pipe with no room left, that nobody reads: the end that is written to, and the other.
pub fn full_pipe() -> (OwnedFd, OwnedFd) {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    rustix::io::ioctl_fionbio(&write, true).unwrap();
    while rustix::io::write(&write, &[b'.'; 4096]).is_ok() {}
    rustix::io::ioctl_fionbio(&write, false).unwrap();
    (write, read)
}

/// Takes what a service manager is told, as one does.
fn service_manager(socket: &Path) -> Receiver<String> {
    let (sender, receiver) = channel();
    let socket = UnixDatagram::bind(socket).unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length) = socket.recv(&mut buffer) {
            let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if sender.send(message).is_err() {
                return;
            }
        }
    });
    receiver
}

/// A service manager that stores descriptors.
pub struct Store {
    pub socket: PathBuf,
    stored: Arc<Mutex<BTreeMap<String, OwnedFd>>>,
    removed: Arc<Mutex<Vec<String>>>,
}

impl Store {
    pub fn new(socket: PathBuf) -> Store {
        let stored = Arc::<Mutex<BTreeMap<String, OwnedFd>>>::default();
        let removed = Arc::<Mutex<Vec<String>>>::default();
        let (socket_fd, all) = (UnixDatagram::bind(&socket).unwrap(), stored.clone());
        let all_removed = removed.clone();
        std::thread::spawn(move || {
            use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
            let mut space = [std::mem::MaybeUninit::uninit(); 256];
            let mut bytes = [0; 4096];
            loop {
                let mut fds = RecvAncillaryBuffer::new(&mut space);
                let mut parts = [std::io::IoSliceMut::new(&mut bytes)];
                let received =
                    recvmsg(&socket_fd, &mut parts, &mut fds, RecvFlags::CMSG_CLOEXEC).unwrap();
                let text = String::from_utf8_lossy(&bytes[..received.bytes]).into_owned();
                let lines: Vec<&str> = text.lines().collect();
                let name = lines.iter().find_map(|line| line.strip_prefix("FDNAME="));
                let Some(name) = name else { continue };
                let mut all = all.lock().unwrap();
                if lines.contains(&"FDSTOREREMOVE=1") {
                    all.remove(name);
                    all_removed.lock().unwrap().push(name.to_owned());
                    continue;
                }
                assert!(lines.contains(&"FDSTORE=1") && lines.contains(&"FDPOLL=0"), "{text}");
                for message in fds.drain() {
                    if let RecvAncillaryMessage::ScmRights(fds) = message {
                        all.extend(fds.map(|fd| (name.to_owned(), fd)));
                    }
                }
            }
        });
        Store { socket, stored, removed }
    }

    /// Has something stored that no daemon sent.
    pub fn put(&self, name: &str, fd: OwnedFd) {
        self.stored.lock().unwrap().insert(name.to_owned(), fd);
    }

    /// For which process each stands that it holds; None where that has ended. Not of the socket that
    /// processes speak to.
    pub fn pids(&self) -> Vec<(String, Option<u32>)> {
        use std::os::fd::AsRawFd;
        let pid = |fd: &OwnedFd| {
            let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).unwrap();
            info.lines().find_map(|line| line.strip_prefix("Pid:"))?.trim().parse().ok()
        };
        let stored = self.stored();
        let runs = stored.iter().filter(|(name, _)| !name.starts_with("notify-"));
        runs.map(|(name, fd)| (name.clone(), pid(fd))).collect()
    }

    /// What it was told to remove, and how often.
    pub fn removed(&self) -> Vec<String> {
        let mut removed = self.removed.lock().unwrap().clone();
        removed.sort();
        removed
    }

    pub fn stored(&self) -> Vec<(String, OwnedFd)> {
        let all = self.stored.lock().unwrap();
        all.iter().map(|(name, fd)| (name.clone(), fd.try_clone().unwrap())).collect()
    }

    /// Waits until it holds these, besides the socket that processes speak to.
    pub fn holds(&self, names: &[&str]) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let stored = self.stored();
            let names_held = stored.iter().map(|(name, _)| name.as_str());
            let held: Vec<&str> = names_held.filter(|name| !name.starts_with("notify-")).collect();
            if held == names {
                return;
            }
            assert!(Instant::now() < deadline, "never {names:?}: {held:?}");
            std::thread::yield_now();
        }
    }
}

pub async fn status(client: &Client) -> Status {
    let all = client.status(&[]).await.unwrap();
    all.into_iter().map(|process| (process.id.clone(), process)).collect()
}

fn save(dir: &Path, yaml: &str) {
    let temporary = dir.join(".processes.yaml.new");
    fs::write(&temporary, yaml.replace("@DIR@", dir.to_str().unwrap())).unwrap();
    fs::rename(temporary, dir.join("processes.yaml")).unwrap();
}

/// Waits until a file is there.
pub fn wait_for(path: &Path) {
    until(&path.display().to_string(), || path.exists());
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// How a process ended, for messages.
pub fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "unknown".to_owned(),
    }
}

/// PIDs by instance, of those that run.
pub fn pids(status: &Status) -> BTreeMap<String, u32> {
    status.iter().filter_map(|(name, process)| Some((name.clone(), process.pid?))).collect()
}

/// Which processes they are, by instance: a pid alone comes again.
pub fn identities(status: &Status) -> BTreeMap<String, (u32, u64)> {
    pids(status).into_iter().map(|(name, pid)| (name, (pid, start_of(pid)))).collect()
}

/// A file that is handed over.
pub fn content(yaml: &str) -> OwnedFd {
    let mut file = tempfile::tempfile().unwrap();
    std::io::Write::write_all(&mut file, yaml.as_bytes()).unwrap();
    file.into()
}
