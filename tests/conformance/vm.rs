//! What a container cannot show: control groups with all their controllers, the kernel's own
//! judgement of who has too much memory, and a clock that is set.
//!
//! A machine with a kernel of its own, emulated: it needs nothing of its host, and is ten to twenty
//! times slower. Its disk is made once and never written to; the programs are on another one. It
//! tells of each scenario on its second serial line; the first one is its console.

use crate::image::{self, Debian};
use crate::{SCENARIOS, cannot, package};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// How long all of it may take, where the host is slow and busy as well.
const DEADLINE: Duration = Duration::from_secs(45 * 60);

/// How long one scenario may take in one way, and the boot: the guest gives up before.
const SILENCE: Duration = Duration::from_secs(8 * 60);

/// The ways that the guest runs each scenario in.
const WAYS: [&str; 4] = ["systemd", "systemd-user", "native-service", "native-scope"];

/// Those that are about what a run may use, and about the clock. `PROVOST_SCENARIOS` says others, by a part of the name.
const USUAL: [&str; 9] = [
    "limits_hold_and_change_under_a_run",
    "a_change_of_limits_while_it_begins_is_not_lost",
    "what_forks_without_end_is_limited_and_can_be_stopped",
    "what_needs_too_much_memory_is_told_as_such",
    "who_has_too_little_memory_to_begin_takes_nobody_with_it",
    "what_outgrows_its_memory_is_told",
    "usage_is_that_of_the_tree",
    "a_change_of_limits_restarts_nothing",
    "a_clock_that_is_set_changes_nothing",
];

const GUEST: &str = include_str!("vm.sh");

#[test]
#[ignore = "emulated, takes minutes: make test-vm"]
fn debian_13() {
    let only = std::env::var("PROVOST_SCENARIOS");
    let is_meant = |scenario: &str| match &only {
        Ok(only) => scenario.contains(only),
        Err(_) => USUAL.contains(&scenario),
    };
    let scenarios: Vec<&str> = SCENARIOS.iter().copied().filter(|one| is_meant(one)).collect();
    assert!(!scenarios.is_empty(), "no scenario has {only:?} in its name");
    assert!(only.is_ok() || scenarios.len() == USUAL.len(), "one is not in the table");
    if !nix::unistd::geteuid().is_root() {
        cannot::<()>("machines need root");
        return;
    }
    let Some(disk) = disk() else { return };
    // One at a time: what another has left was left by one that was killed.
    let lock = fs::File::create(image::cache().join("Programs.lock")).unwrap();
    lock.lock().unwrap();
    let programs = programs(&scenarios);
    let mut vm = Vm::boot(&disk, programs.path());

    let (mut good, mut bad) = (0, Vec::new());
    let mut is_over = false;
    while let Some(line) = vm.line() {
        eprintln!("{line}");
        match line.split_once(' ') {
            Some(("ok", _)) => good += 1,
            Some(("failed", which)) => bad.push(which.to_owned()),
            _ => is_over |= line == "end",
        }
    }
    assert!(is_over, "it never came to its end\n{}", vm.console());
    assert!(bad.is_empty(), "failed: {bad:#?}");
    assert_eq!(good, scenarios.len() * WAYS.len(), "not all were run");
}

/// A directory with the disk of such a machine, its kernel and what that boots from.
fn disk() -> Option<PathBuf> {
    let root = image::root(Debian::TrixieKernel)?;
    let key = image::digest([root.to_str().unwrap(), "3G"]);
    image::kept("Disk", &key, |half| {
        fs::create_dir(half).unwrap();
        for (begin, name) in [("vmlinuz-", "kernel"), ("initrd.img-", "initrd")] {
            let entries = fs::read_dir(root.join("boot")).unwrap().flatten();
            let mut those =
                entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(begin));
            fs::copy(those.next().unwrap().path(), half.join(name)).unwrap();
        }
        format(&root, &half.join("disk"), "3G")
    })
}

/// Makes a file that is a disk with all that is in a directory.
fn format(directory: &Path, disk: &Path, size: &str) -> Option<()> {
    let mut format = Command::new("mke2fs");
    format.args(["-q", "-t", "ext4", "-d"]).arg(directory).arg(disk).arg(size);
    match format.output() {
        Ok(done) if done.status.success() => Some(()),
        Ok(done) => panic!("{}", String::from_utf8_lossy(&done.stderr)),
        Err(error) => cannot(&format!("no mke2fs: {error}")),
    }
}

/// The disk that is seen as `/package`: the file `disk` in a directory that is removed afterwards.
fn programs(scenarios: &[&str]) -> tempfile::TempDir {
    const PREFIX: &str = "Programs-";
    for entry in fs::read_dir(image::cache()).unwrap().flatten() {
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            fs::remove_dir_all(entry.path()).unwrap();
        }
    }
    let made = tempfile::Builder::new().prefix(PREFIX).tempdir_in(image::cache()).unwrap();
    let package = made.path().join("package");
    fs::create_dir(&package).unwrap();
    let built = package::package().unwrap();
    for name in ["provost", "provostd", "provost-log", "provost-net"] {
        fs::copy(built.join(name), package.join(name)).unwrap();
    }
    fs::copy(std::env::current_exe().unwrap(), package.join("conformance")).unwrap();
    fs::write(package.join("built"), built.to_str().unwrap()).unwrap();
    fs::write(package.join("scenarios"), scenarios.join("\n") + "\n").unwrap();
    fs::write(package.join("run"), GUEST).unwrap();
    format(&package, &made.path().join("disk"), "2G").unwrap();
    made
}

/// A machine that runs; it ends when this is dropped, or when the test dies.
struct Vm {
    qemu: Child,
    lines: Receiver<String>,
    console: PathBuf,
    deadline: Instant,
}

impl Vm {
    fn boot(disk: &Path, programs: &Path) -> Vm {
        let console = programs.join("console");
        let drive = |path: &Path, more: &str| {
            format!("file={},format=raw,if=virtio,{more}", path.join("disk").display())
        };
        let mut qemu = Command::new("setpriv");
        qemu.args(["--pdeathsig", "KILL", "qemu-system-x86_64"]);
        qemu.args(["-machine", "q35", "-accel", "tcg,thread=single", "-smp", "1"]);
        qemu.args(["-cpu", "qemu64,-cx16", "-m", "1500", "-nic", "none"]);
        qemu.args(["-display", "none", "-monitor", "none", "-no-reboot"]);
        qemu.arg("-drive").arg(drive(disk, "snapshot=on"));
        qemu.arg("-drive").arg(drive(programs, "readonly=on"));
        qemu.arg("-serial").arg(format!("file:{}", console.display()));
        qemu.args(["-serial", "stdio"]);
        qemu.arg("-kernel").arg(disk.join("kernel")).arg("-initrd").arg(disk.join("initrd"));
        qemu.arg("-append").arg(
            "root=/dev/vda rw panic=-1 console=ttyS0 loglevel=4 systemd.firstboot=no \
             systemd.journald.forward_to_console=1 systemd.journald.max_level_console=warning",
        );
        qemu.env("TMPDIR", programs).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut qemu = qemu.spawn().unwrap();
        let (send, lines) = channel();
        let said = BufReader::new(qemu.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in said.split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).trim_end().to_owned();
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        Vm { qemu, lines, console, deadline: Instant::now() + DEADLINE }
    }

    /// The next line that it says; None when it is off.
    fn line(&mut self) -> Option<String> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        match self.lines.recv_timeout(left.min(SILENCE)) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => {
                panic!("it says nothing any more\n{}", self.console())
            }
        }
    }

    /// What it had to say for itself.
    fn console(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.console).unwrap_or_default()).into_owned()
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}
