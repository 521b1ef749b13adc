//! A machine with systemd as its first process, in a container of systemd-nspawn.
//!
//! Its root is a cached one with a layer in memory above it. A holder, the first process of a pid
//! and a mount namespace, keeps the layer, so that what a machine left can be read when it is off;
//! when the test ends, in whatever way, the holder ends, and all of it with it.

use crate::cannot;
use crate::image::{self, Debian};
use crate::package::package;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long anything may take that must happen.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// The name of a machine, and of its control group, begins with this and the pid of its test.
const GROUP: &str = "provost-machine-";

/// Where the holder has the root.
const ROOT: &str = "/run/machine/root";

const HOLD: &str = r#"
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/machine/upper /run/machine/work /run/machine/root
mount -t overlay overlay -o "lowerdir=$1,upperdir=/run/machine/upper,workdir=/run/machine/work" \
    /run/machine/root
echo ready
exec cat
"#;

/// A group of its own for each: nspawn takes the one that it is in.
const BOOT: &str = r#"
echo 0 >"$1/cgroup.procs"
export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1
exec systemd-nspawn --quiet --directory=/run/machine/root --boot --register=no --keep-unit \
    --private-network --console=read-only --link-journal=no --machine="$2" \
    --bind-ro="$3:/package"
"#;

/// A machine; it ends when this is dropped.
pub struct Machine {
    name: String,
    package: PathBuf,
    holder: Child,
    cgroup: PathBuf,
    nspawn: Option<Child>,
    leader: u32,
}

impl Machine {
    /// One that is up, without the package. None where there can be none.
    pub fn booted(debian: Debian) -> Option<Machine> {
        if !nix::unistd::geteuid().is_root() {
            return cannot("machines need root");
        }
        let Some(groups) = hierarchy() else { return cannot("no control groups, version 2") };
        let root = image::root(debian)?;
        let package = package()?;
        let mut holder = Command::new("unshare")
            .args(["--mount", "--pid", "--fork", "--mount-proc", "--kill-child=KILL"])
            .args(["--propagation", "private", "bash", "-euc", HOLD, "hold"])
            .arg(root)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(holder.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "the root could not be mounted");
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        remove_stale(&groups);
        let name = format!("{GROUP}{}-{number}", std::process::id());
        let cgroup = groups.join(&name);
        fs::create_dir(&cgroup).unwrap();
        let mut machine = Machine { name, package, holder, cgroup, nspawn: None, leader: 0 };
        machine.boot();
        Some(machine)
    }

    /// One that is up and has the package, with this `backend:`.
    pub fn installed(debian: Debian, backend: &str) -> Option<Machine> {
        let machine = Machine::booted(debian)?;
        machine.run("mkdir /etc/provost");
        let file = format!("processManagement: {{ backend: {backend} }}\n");
        machine.save("/etc/provost/provost.yaml", &file);
        if backend == "native" {
            let drop_ins = "/etc/systemd/system/provostd.service.d";
            machine
                .run(&format!("mkdir {drop_ins}; ln -s /usr/share/provost/native.conf {drop_ins}"));
        }
        machine.run("dpkg --install /package/provost.deb");
        Some(machine)
    }

    /// Starts it; it must be off.
    pub fn boot(&mut self) {
        assert!(self.nspawn.is_none());
        let mut nspawn = self.inside_holder();
        nspawn.args(["bash", "-euc", BOOT, "boot"]).arg(&self.cgroup).arg(&self.name);
        let console = fs::File::create(self.console()).unwrap();
        nspawn.arg(&self.package).stdin(Stdio::null());
        nspawn.stdout(console.try_clone().unwrap()).stderr(console);
        let mut nspawn = nspawn.spawn().unwrap();
        let deadline = Instant::now() + DEADLINE;
        // Our child is nsenter, which has nspawn as its only child, and that has the system's first
        // process.
        let leader = || {
            let leader = only_child(only_child(nspawn.id())?)?;
            let name = fs::read_to_string(format!("/proc/{leader}/comm")).ok()?;
            (name == "systemd\n").then_some(leader)
        };
        self.leader = loop {
            if let Some(leader) = leader() {
                break leader;
            }
            assert!(Instant::now() < deadline, "it does not boot:\n{}", self.said());
            std::thread::sleep(Duration::from_millis(10));
        };
        loop {
            let state = self.output("systemctl is-system-running --wait");
            match String::from_utf8_lossy(&state.stdout).trim() {
                "running" => break,
                "degraded" => panic!("{}", self.run("systemctl --failed --no-pager")),
                _ => assert!(Instant::now() < deadline, "never up: {state:?}\n{}", self.said()),
            }
            let ended = nspawn.try_wait().unwrap();
            assert!(ended.is_none(), "{ended:?}\n{}", self.said());
            std::thread::sleep(Duration::from_millis(10));
        }
        self.nspawn = Some(nspawn);
    }

    /// Has it power itself off, and waits until it is.
    pub fn power_off(&mut self) {
        let Some(mut nspawn) = self.nspawn.take() else { return };
        // The manager may be gone before it has answered.
        let _ = self.output("systemctl poweroff");
        let deadline = Instant::now() + DEADLINE;
        while nspawn.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "it does not power off:\n{}", self.said());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Runs a line of bash in it as root; whatever comes of it.
    pub fn output(&self, line: &str) -> Output {
        self.command(line).output().unwrap()
    }

    /// Runs a line of bash in it as root, which must succeed, and returns what it printed.
    pub fn run(&self, line: &str) -> String {
        let output = self.output(line);
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}\n{}\n{out}\n{err}", output.status);
        out
    }

    /// The exit code of a line of bash, and all that it printed.
    pub fn code(&self, line: &str) -> (i32, String) {
        self.code_within(line, DEADLINE)
    }

    /// The same, of what may take so long.
    pub fn code_within(&self, line: &str, deadline: Duration) -> (i32, String) {
        let mut command = self.command_within(&format!("exec 2>&1\n{line}"), deadline);
        let output = command.output().unwrap();
        let code = output.status.code().unwrap_or_else(|| panic!("{line}: {}", output.status));
        (code, String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Waits until a line of bash succeeds, and returns what it printed then.
    pub fn until(&self, line: &str) -> String {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let output = self.output(line);
            if output.status.success() {
                return String::from_utf8_lossy(&output.stdout).into_owned();
            }
            assert!(Instant::now() < deadline, "never: {line}\n{output:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// A line of bash that is about to run in it as root. It ends at the deadline.
    pub fn command(&self, line: &str) -> Command {
        self.command_within(line, DEADLINE)
    }

    /// The same, of what may take so long.
    pub fn command_within(&self, line: &str, deadline: Duration) -> Command {
        let mut command = Command::new("timeout");
        command.arg(deadline.as_secs().to_string());
        command.args(["nsenter", "--target", &self.leader.to_string(), "--all"]);
        command.args(["/bin/bash", "-euo", "pipefail", "-c", line]);
        command.env_clear().env("LANG", "C.UTF-8").env("HOME", "/root");
        command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.stdin(Stdio::null());
        command
    }

    /// Saves a file in it, as editors do: written beside, renamed over.
    pub fn save(&self, path: &str, text: &str) {
        let root = PathBuf::from(format!("/proc/{}/root", self.leader));
        let path = root.join(path.trim_start_matches('/'));
        let beside = path.with_extension("beside");
        fs::write(&beside, text).unwrap();
        fs::rename(beside, path).unwrap();
    }

    /// Saves the system's `processes.yaml`.
    pub fn processes(&self, yaml: &str) {
        self.save("/etc/provost/processes.yaml", yaml);
    }

    /// Waits until these run; the file that names them may have been saved just now.
    pub fn up(&self, names: &str) {
        self.until(&format!("provost --system wait {names} --for running --timeout 30s"));
    }

    /// A number that a line prints.
    pub fn number(&self, line: &str) -> u64 {
        let out = self.run(line);
        out.trim().parse().unwrap_or_else(|error| panic!("{line}: {out:?}: {error}"))
    }

    /// The pid of the daemon, in the machine.
    pub fn daemon(&self) -> u64 {
        self.number("systemctl show --value --property=MainPID provostd")
    }

    /// What the daemon says of each instance, by its id.
    pub fn status(&self) -> BTreeMap<String, Value> {
        let out = self.output("provost --system status --output json");
        // 3: not all that is wanted is up.
        let text = String::from_utf8_lossy(&out.stdout);
        assert!(matches!(out.status.code(), Some(0 | 3)), "{out:?}");
        let status: Value = serde_json::from_str(&text).unwrap();
        let all = status.as_array().unwrap_or_else(|| panic!("{text}"));
        all.iter().map(|one| (one["id"].as_str().unwrap().to_owned(), one.clone())).collect()
    }

    /// The main processes of all that runs, and when they were started: who has both is the same.
    pub fn running(&self) -> BTreeMap<String, (u64, String)> {
        let all = self.status().into_iter();
        let pids =
            all.filter_map(|(id, one)| Some((id, one["pid"].as_u64().filter(|pid| *pid > 0)?)));
        let pids: Vec<(String, u64)> = pids.collect();
        let list: Vec<String> = pids.iter().map(|(_, pid)| pid.to_string()).collect();
        // One that has just ended has none.
        let begun = self.run(&format!(
            "for pid in {}; do sed 's/.*) //' /proc/$pid/stat 2>/dev/null | cut -d' ' -f20 || echo; done",
            list.join(" ")
        ));
        let begun = begun.lines().map(str::to_owned);
        pids.into_iter().zip(begun).map(|((id, pid), begun)| (id, (pid, begun))).collect()
    }

    /// The log of a machine, which may be off.
    pub fn journal(&self, arguments: &[&str]) -> String {
        let mut read = self.inside_holder();
        read.arg("journalctl").arg(format!("--directory={ROOT}/var/log/journal"));
        let output = read.args(["--quiet", "--no-pager"]).args(arguments).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// What a file has in a machine that is off.
    pub fn file_when_off(&self, path: &str) -> String {
        let output = self.inside_holder().arg("cat").arg(format!("{ROOT}{path}")).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn inside_holder(&self) -> Command {
        let mut command = Command::new("nsenter");
        let holder = only_child(self.holder.id()).unwrap();
        command.args(["--target", &holder.to_string(), "--mount", "--pid"]);
        command
    }

    fn console(&self) -> PathBuf {
        image::cache().join(format!("{}.console", self.name))
    }

    fn said(&self) -> String {
        fs::read_to_string(self.console()).unwrap_or_default()
    }

    /// Keeps what helps to understand a failure.
    fn keep_journal(&self) {
        let thread = std::thread::current();
        let test = thread.name().unwrap_or("test").replace("::", "-");
        let path = image::cache().join(format!("failed-{test}.journal"));
        // What is still on its way to the files.
        let _ = self.output("journalctl --sync");
        let journal = self.journal(&["--output=short-precise"]);
        let lines: Vec<&str> = journal.lines().collect();
        eprintln!("{}", lines[lines.len().saturating_sub(40)..].join("\n"));
        eprintln!("all of the journal: {}", path.display());
        let _ = fs::write(path, journal);
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.keep_journal();
        }
        let _ = self.holder.kill();
        let _ = self.holder.wait();
        if let Some(mut nspawn) = self.nspawn.take() {
            let _ = nspawn.wait();
        }
        let _ = fs::remove_file(self.console());
        remove_groups(&self.cgroup);
    }
}

/// The child of a process that has only one.
fn only_child(pid: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.trim().parse().ok()
}

/// Our own directory in the hierarchy of control groups, version 2.
fn hierarchy() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let mount = mounts.lines().find(|line| line.contains(" - cgroup2 "))?;
    let mount = mount.split(' ').nth(4)?;
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(Path::new(mount).join(own))
}

/// Removes the groups of tests that were killed.
fn remove_stale(groups: &Path) {
    for entry in fs::read_dir(groups).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let test = name.strip_prefix(GROUP).and_then(|rest| rest.split('-').next());
        if test.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            remove_groups(&entry.path());
        }
    }
}

/// Removes a group and those in it; what dies in them may take a moment.
fn remove_groups(path: &Path) {
    let deadline = Instant::now() + Duration::from_secs(5);
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove_groups(&entry.path());
        }
    }
    while fs::remove_dir(path).is_err() && path.exists() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
}
