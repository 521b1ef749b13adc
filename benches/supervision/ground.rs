//! A daemon of one's own to measure, and the ear for what its children say.

use provost::client::{Client, ProcessStatus, Target};
use provost::sys::stat::Stat;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;
use tempfile::TempDir;

/// Nothing that is measured takes as long.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// The first instruction of a child.
#[derive(Clone, Copy, Debug)]
pub struct First {
    /// Nanoseconds of the monotonic clock.
    pub at: u64,
    pub pid: u32,
}

/// A number from the environment.
pub fn setting(name: &str, usual: usize) -> usize {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(usual)
}

/// The monotonic clock in nanoseconds.
pub fn now() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

/// Programs and a pipe.
pub struct Ground {
    pub dir: TempDir,
    pub child: PathBuf,
    pub bare: PathBuf,
    pub fifo: PathBuf,
    /// In memory, as /run is, where this machine has such a place: what is renamed over another
    /// file on ext4 is written to the disk at once.
    pub runtime: TempDir,
    /// Where daemons make control groups, when they are to.
    pub group: Option<PathBuf>,
    /// Whose daemons they are, and what else they are told.
    pub words: Vec<String>,
}

/// Hears every child.
pub struct Ear(Receiver<First>);

fn compile(source: &str, to: &Path, flags: &[&str]) {
    let source = format!("{}/benches/supervision/{source}", env!("CARGO_MANIFEST_DIR"));
    let built = Command::new("cc").args(flags).arg("-o").arg(to).arg(source).status().unwrap();
    assert!(built.success(), "cc is needed");
}

impl Ground {
    pub fn new() -> Ground {
        let mut ground = Ground::at(PathBuf::new());
        let free = ["-O2", "-static", "-nostdlib", "-fno-stack-protector", "-fno-builtin"];
        ground.child = ground.dir.path().join("child");
        compile("child.c", &ground.child, &free);
        compile("bare.c", &ground.bare, &["-O2"]);
        ground
    }

    /// Where this is the child, which is there already, and there is no `bare`.
    pub fn at(child: PathBuf) -> Ground {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let (bare, fifo) = (at("bare"), at("fifo"));
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let memory = Path::new("/dev/shm");
        let runtime =
            if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let runtime = runtime.unwrap();
        Ground { runtime, dir, child, bare, fifo, group: None, words: vec!["--user".into()] }
    }

    /// KiB of the file system that daemons keep states in.
    pub fn kept(&self) -> u64 {
        fn blocks(path: &Path) -> u64 {
            let found = fs::symlink_metadata(path).map_or(0, |found| found.blocks());
            let inner = fs::read_dir(path).into_iter().flatten().flatten();
            found + inner.map(|entry| blocks(&entry.path())).sum::<u64>()
        }
        // A block is half a KiB for stat(2), whatever it is for the file system.
        blocks(self.runtime.path()) / 2
    }

    /// A part of the hierarchy of control groups for daemons, where this machine has one.
    pub fn make_group(&mut self) -> bool {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let root = mounts.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(' ').collect();
            (fields[2] == "cgroup2").then(|| PathBuf::from(fields[1]))
        });
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let own = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or("");
        self.group = root.map(|root| root.join(own).join(format!("bench-{}", std::process::id())));
        self.group = self.group.take().filter(|group| fs::create_dir(group).is_ok());
        self.group.is_some()
    }

    /// Removes it, when nothing is in it.
    pub fn drop_group(&mut self) {
        fn remove(group: &Path) {
            for inner in fs::read_dir(group).into_iter().flatten().flatten() {
                if inner.path().is_dir() {
                    remove(&inner.path());
                }
            }
            // What cannot be removed is seen by whoever looks for it.
            let _ = fs::remove_dir(group);
        }
        if let Some(group) = self.group.take() {
            remove(&group);
        }
    }

    /// Listens from now on. Not while `bare` does.
    pub fn listen(&self) -> Ear {
        // Open for writing too, so that it never ends.
        let mut fifo = File::options().read(true).write(true).open(&self.fifo).unwrap();
        let (sender, receiver) = channel();
        std::thread::spawn(move || {
            let mut said = [0; 16];
            while fifo.read_exact(&mut said).is_ok() {
                let number = |at: usize| u32::from_ne_bytes(said[at..at + 4].try_into().unwrap());
                let at = u64::from_ne_bytes(said[..8].try_into().unwrap());
                // The last word of one who stops listening.
                if number(8) == 0 {
                    return;
                }
                if sender.send(First { at, pid: number(8) }).is_err() {
                    return;
                }
            }
        });
        Ear(receiver)
    }

    /// Has an ear stop listening.
    pub fn deafen(&self, ear: Ear) {
        fs::write(&self.fifo, [0; 16]).unwrap();
        // Disconnected: the thread is gone.
        while ear.0.recv().is_ok() {}
    }

    /// What the physical limit is, in nanoseconds.
    pub fn bare(&self, what: &str, count: usize) -> Vec<u64> {
        let mut command = Command::new(&self.bare);
        let command = command.arg(what).arg(&self.child).arg(&self.fifo).arg(count.to_string());
        let output = command.output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(|line| line.parse().unwrap()).collect()
    }

    /// The file with so many processes; `changed` is the one whose argument differs.
    pub fn yaml(&self, count: usize, changed: Option<usize>, top: &str) -> String {
        if count == 0 {
            return format!("{top}processes: {{}}\n");
        }
        let mut text = format!("{top}processes:\n");
        for number in 0..count {
            let more = if changed == Some(number) { "1" } else { "" };
            text += &format!(
                "  p{number:05}:\n    command: [{}, {}, \"{more}{number:05}\"]\n    log: {{ target: none }}\n    \
                 restartPolicy: {{ delay: 0, minUptime: 0 }}\n",
                self.child.display(),
                self.fifo.display(),
            );
        }
        text
    }

    pub fn file(&self) -> PathBuf {
        self.dir.path().join("processes.yaml")
    }

    /// Saves as editors do; when it was renamed.
    pub fn save(&self, text: &str) -> u64 {
        let beside = self.dir.path().join(".new");
        fs::write(&beside, text).unwrap();
        let begin = now();
        fs::rename(beside, self.file()).unwrap();
        begin
    }
}

impl Ear {
    pub fn next(&self) -> First {
        self.0.recv_timeout(PATIENCE).expect("a child says that it runs")
    }

    /// The last of so many.
    pub fn last(&self, count: usize) -> u64 {
        (0..count).map(|_| self.next().at).max().unwrap_or(0)
    }
}

/// A running daemon.
pub struct Daemon {
    pub child: Child,
    pub client: Client,
    pub socket: PathBuf,
}

impl Daemon {
    /// With this file, and its standard output there.
    pub async fn start(ground: &Ground, yaml: &str, stdout: Stdio) -> Daemon {
        ground.save(yaml);
        let dir = ground.dir.path();
        // States are kept beside the socket.
        let socket = ground.runtime.path().join("private");
        let notify = dir.join("notify");
        let _ = fs::remove_file(&notify);
        // What the daemon before kept is none of this one's.
        let kept = fs::read_dir(ground.runtime.path()).unwrap().flatten();
        for old in kept.map(|entry| entry.path()).chain([dir.join("state")]) {
            let _ = fs::remove_dir_all(old);
        }
        let manager = UnixDatagram::bind(&notify).unwrap();
        let own = |name: &str| {
            let path = dir.join(name);
            fs::create_dir_all(&path).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
            path
        };
        let mut command = Command::new(env!("CARGO_BIN_EXE_provostd"));
        command.env_clear().envs(ground.group.iter().map(|group| ("PROVOST_CGROUP", group)));
        let child = command
            .args(&ground.words)
            .args(["--bus", "none", "--config"])
            .arg(ground.file())
            .arg("--socket")
            .arg(&socket)
            // Else what has to outlive a reboot is not written, and costs nothing.
            .arg("--state")
            .arg(own("state"))
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", dir)
            .env("XDG_RUNTIME_DIR", ground.runtime.path())
            .env("NOTIFY_SOCKET", &notify)
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut buffer = [0; 4096];
        loop {
            let length = manager.recv(&mut buffer).unwrap();
            if String::from_utf8_lossy(&buffer[..length]).contains("READY=1") {
                break;
            }
        }
        std::thread::spawn(move || while manager.recv(&mut buffer).is_ok() {});
        let client = Client::connect(&Target::Socket(socket.clone())).await.unwrap();
        Daemon { child, client, socket }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub async fn status(&self, name: &str) -> ProcessStatus {
        self.client.status(&[name.to_owned()]).await.unwrap().remove(0)
    }

    /// Waits until no job is left and no reload is under way.
    pub async fn settled(&self) {
        let mut watch = self.client.watch().await.unwrap();
        loop {
            let manager = self.client.manager().await.unwrap();
            if manager.jobs == 0 && manager.config_state != "applying" {
                return;
            }
            watch.changed().await.unwrap();
        }
    }

    /// PSS in KiB (proc_pid_smaps(5)).
    pub fn memory(&self) -> u64 {
        memory(self.pid())
    }

    /// How often it was woken, and its processor time in clock ticks, all threads together.
    pub fn effort(&self) -> (u64, u64) {
        let mut switches = 0;
        for task in fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap() {
            let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
            let count = |key: &str| -> u64 {
                let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
                line.trim().parse().unwrap()
            };
            switches += count("voluntary_ctxt_switches:") + count("nonvoluntary_ctxt_switches:");
        }
        (switches, Stat::of(self.pid()).unwrap().ticks)
    }

    /// Ends it and all it runs; how long that took.
    pub fn end(mut self) -> u64 {
        let begin = now();
        let pid = nix::unistd::Pid::from_raw(self.child.id().try_into().unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        self.child.wait().unwrap();
        now() - begin
    }
}

/// PSS of a process in KiB.
pub fn memory(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap_or("0 kB");
    line.trim().trim_end_matches("kB").trim().parse().unwrap()
}
