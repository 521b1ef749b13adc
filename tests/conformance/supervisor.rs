//! A daemon of one's own, with one backend or the other.

use crate::sim::{self, Nature};
use crate::world::{DEADLINE, is_root, is_there};
use provost::client::{Client, ProcessStatus, ReloadOptions, ReloadSummary, Target};
use provost::sys::random;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

pub type Status = BTreeMap<String, ProcessStatus>;

/// Ends, with all it runs, when it is dropped.
pub struct Supervisor {
    pub backend: &'static str,
    pub directory: tempfile::TempDir,
    /// A number that `sleep` takes, and that nobody else has: so it is counted by its arguments.
    pub mark: String,
    /// More settings, each with a comma before it.
    pub settings: &'static str,
    daemon: Option<Daemon>,
    /// Where processes are, if they are simulated.
    nature: Option<Nature>,
}

enum Daemon {
    Real(Child),
    Simulated(sim::daemon::Daemon),
}

impl Supervisor {
    /// In a directory of its own; not started.
    pub fn with(backend: &'static str) -> Supervisor {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o777)).unwrap();
        let mark = (1_000_000_000 + random() % 1_000_000_000).to_string();
        fs::write(directory.path().join("act"), sim::ACT).unwrap();
        fs::set_permissions(directory.path().join("act"), PermissionsExt::from_mode(0o755))
            .unwrap();
        let nature = (backend == "sim").then(Nature::new);
        Supervisor { backend, directory, mark, settings: "", daemon: None, nature }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Saves a file: `@DIR@` and `@MARK@` stand for what they say, `@ACT@` for a program whose arguments
    /// say what it does ([`sim`]).
    pub fn save(&self, processes: &str) {
        let dir = self.directory.path().to_str().unwrap();
        let text = processes.replace("@ACT@", "@DIR@/act");
        let text = text.replace("@DIR@", dir).replace("@MARK@", &self.mark);
        let backend = if self.nature.is_some() { "auto" } else { self.backend };
        let text = format!(
            "processManagement: {{ backend: {backend}, defaultUser: nobody{} }}\nprocesses:\n{text}",
            self.settings
        );
        fs::write(self.path(".new"), text).unwrap();
        fs::rename(self.path(".new"), self.path("processes.yaml")).unwrap();
    }

    /// Starts the daemon and waits until it answers.
    pub async fn start(&mut self) -> Client {
        if let Some(nature) = &self.nature {
            let daemon = sim::daemon::Daemon::start(self.directory.path(), nature);
            self.daemon = Some(Daemon::Simulated(daemon));
        } else {
            self.daemon = Some(Daemon::Real(self.spawn()));
        }
        self.client().await
    }

    fn spawn(&self) -> Child {
        let provostd = Path::new(env!("CARGO_BIN_EXE_provostd"));
        let inside = Path::new("/package/provostd");
        let program = if inside.exists() { inside } else { provostd };
        let log = fs::File::options().append(true).create(true).open(self.path("log")).unwrap();
        let mut command = Command::new(program);
        command.arg(if is_root() { "--system" } else { "--user" }).args(["--bus", "none"]);
        command.arg("--config").arg(self.path("processes.yaml"));
        command.arg("--socket").arg(self.path("run/private"));
        command.arg("--state").arg(self.path("state"));
        command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", self.directory.path());
        if let Some(runtime) = std::env::var_os("XDG_RUNTIME_DIR") {
            command.env("XDG_RUNTIME_DIR", runtime);
        }
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        fs::create_dir_all(self.path("run")).unwrap();
        command.spawn().unwrap()
    }

    /// Saves a file and starts the daemon.
    pub async fn run(&mut self, processes: &str) -> Client {
        self.save(processes);
        self.start().await
    }

    pub async fn client(&self) -> Client {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let connected = Client::connect(&Target::Socket(self.path("run/private"))).await;
            match connected {
                Ok(client) => return client,
                Err(error) => assert!(Instant::now() < deadline, "{error}\n{}", self.log()),
            }
            tokio::task::yield_now().await;
        }
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
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
            let changed = tokio::time::timeout(left, watch.changed()).await;
            assert!(changed.is_ok(), "never {what}: {now:#?}\n{}", self.log());
        }
    }

    /// Waits until all of these are in a state.
    pub async fn until_all(&self, state: &str, names: &[&str]) -> Status {
        self.until(&format!("{state}: {names:?}"), |status| {
            names.iter().all(|name| status.get(*name).is_some_and(|one| one.state == state))
        })
        .await
    }

    pub async fn reload(&self, processes: &str) -> ReloadSummary {
        self.save(processes);
        self.client().await.reload(&ReloadOptions::default()).await.unwrap()
    }

    /// Kills the daemon, and nothing else.
    pub fn kill(&mut self) {
        match self.daemon.take().unwrap() {
            Daemon::Real(mut child) => {
                child.kill().unwrap();
                child.wait().unwrap();
            }
            Daemon::Simulated(daemon) => daemon.kill(),
        }
    }

    /// Asks it to end, and waits.
    pub fn stop(&mut self) {
        match self.daemon.take().unwrap() {
            Daemon::Real(mut child) => {
                terminate(&child);
                assert!(child.wait().unwrap().success(), "{}", self.log());
            }
            Daemon::Simulated(daemon) => assert_eq!(daemon.stop(), 0),
        }
    }

    /// Kills a process, as anybody may.
    pub fn kill_process(&self, pid: u32) {
        match &self.nature {
            Some(nature) => nature.kill(pid),
            None => {
                let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
                nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
            }
        }
    }

    /// Whether there is a process with this number.
    pub fn is_there(&self, pid: u32) -> bool {
        self.nature.as_ref().map_or_else(|| is_there(pid), |nature| nature.is_there(pid))
    }

    /// The processes that have the mark as an argument of their own.
    pub fn marked(&self) -> Vec<u32> {
        if let Some(nature) = &self.nature {
            return nature.with(&self.mark);
        }
        let numbers = fs::read_dir("/proc").unwrap().flatten();
        let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let has_mark = |pid: &u32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.split(|byte| *byte == 0).any(|word| word == self.mark.as_bytes())
        };
        numbers.filter(has_mark).collect()
    }

    /// All lines of the event log about an instance, of which there are not many.
    pub async fn told(&self, instance: &str) -> Vec<String> {
        let (lines, _) = self.client().await.events(None, 1000).await.unwrap();
        let of = lines.into_iter().filter(|line| line.instance.as_deref() == Some(instance));
        of.map(|line| line.message).collect()
    }
}

fn terminate(child: &Child) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
}

pub async fn status(client: &Client) -> Status {
    let all = client.status(&[]).await.unwrap();
    all.into_iter().map(|process| (process.id.clone(), process)).collect()
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        match self.daemon.take() {
            Some(Daemon::Real(mut child)) => {
                // The second one kills what does not end by itself.
                terminate(&child);
                terminate(&child);
                let _ = child.wait();
            }
            Some(Daemon::Simulated(daemon)) => daemon.kill(),
            None => return,
        }
        if std::thread::panicking() {
            eprintln!("--- log\n{}", self.log());
        }
    }
}
