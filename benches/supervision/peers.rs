//! Other supervisors, from their Debian packages: the same child, the same clock. They are
//! installed when PROVOST_BENCH_PEERS=1 asks for it, as root.

use crate::ground::{Ear, Ground, now};
use crate::table::{Spread, Table};
use crate::{after, memory_of};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Services that are only there to be counted.
const MANY: usize = 100;

/// How one of them is used.
struct Peer {
    name: &'static str,
    package: &'static str,
    /// Fills a directory with this many services; returns what runs it.
    prepare: fn(&Ground, &Path, usize) -> Command,
    /// What starts and stops a service.
    command: fn(&Path, &str, bool) -> Command,
}

const PEERS: &[Peer] = &[
    Peer {
        name: "s6",
        package: "s6",
        prepare: |ground, dir, count| {
            service_directories(ground, dir, count);
            command("s6-svscan", &[dir.to_str().unwrap()])
        },
        command: |dir, service, up| {
            command("s6-svc", &[if up { "-u" } else { "-d" }, path(dir, service).as_str()])
        },
    },
    Peer {
        name: "runit",
        package: "runit",
        prepare: |ground, dir, count| {
            service_directories(ground, dir, count);
            command("runsvdir", &[dir.to_str().unwrap()])
        },
        command: |dir, service, up| {
            command("sv", &[if up { "up" } else { "down" }, path(dir, service).as_str()])
        },
    },
    Peer {
        name: "supervisor",
        package: "supervisor",
        prepare: |ground, dir, count| {
            let mut text = format!(
                "[supervisord]\nnodaemon=true\nlogfile=/dev/null\nlogfile_maxbytes=0\npidfile={0}/pid\n\
                 [unix_http_server]\nfile={0}/socket\n[supervisorctl]\nserverurl=unix://{0}/socket\n\
                 [rpcinterface:supervisor]\n\
                 supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n",
                dir.display()
            );
            for number in 0..count {
                text += &format!(
                    "[program:p{number}]\ncommand={} {} 1\nautorestart=true\nstartsecs=0\n\
                     stdout_logfile=NONE\nstderr_logfile=NONE\n",
                    ground.child.display(),
                    ground.fifo.display()
                );
            }
            fs::write(dir.join("conf"), text).unwrap();
            command("supervisord", &["-c", path(dir, "conf").as_str()])
        },
        command: |dir, service, up| {
            let verb = if up { "start" } else { "stop" };
            command("supervisorctl", &["-c", path(dir, "conf").as_str(), verb, service])
        },
    },
];

fn path(dir: &Path, name: &str) -> String {
    dir.join(name).display().to_string()
}

fn command(program: &str, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// As daemontools began it: a directory for each, and in it a program `run`.
fn service_directories(ground: &Ground, dir: &Path, count: usize) {
    for number in 0..count {
        let service = dir.join(format!("p{number}"));
        fs::create_dir(&service).unwrap();
        let run = service.join("run");
        // The kernel makes it the child's arguments; no shell is in between.
        fs::write(&run, format!("#!{} {}\n", ground.child.display(), ground.fifo.display()))
            .unwrap();
        fs::set_permissions(run, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

/// Everything below a process that is not one of the measured children.
fn supervisors(root: u32, child: &Path) -> Vec<u32> {
    let mut found = vec![root];
    let mut at = 0;
    while let Some(pid) = found.get(at).copied() {
        let list = format!("/proc/{pid}/task/{pid}/children");
        let children = fs::read_to_string(list).unwrap_or_default();
        for child_pid in children.split_whitespace().filter_map(|pid| pid.parse().ok()) {
            if fs::read_link(format!("/proc/{child_pid}/exe")).is_ok_and(|exe| exe != child) {
                found.push(child_pid);
            }
        }
        at += 1;
    }
    found
}

/// Measures all that can be had.
pub fn measure(ground: &Ground, table: &Table, spawn: u64, wake: u64) {
    let packages: Vec<&str> = PEERS.iter().map(|peer| peer.package).collect();
    let _ = command("apt-get", &["update", "-q"]).status();
    let mut install = command("apt-get", &["install", "-q", "-y", "--no-install-recommends"]);
    let installed = install.args(&packages).env("DEBIAN_FRONTEND", "noninteractive").status();
    if !installed.is_ok_and(|status| status.success()) {
        println!("\n(peers are not installed: {packages:?})");
        return;
    }
    for peer in PEERS {
        one(peer, ground, table, spawn, wake);
    }
}

fn begin(peer: &Peer, ground: &Ground, count: usize) -> (PathBuf, Child, Ear) {
    let dir = ground.dir.path().join(format!("{}-{count}", peer.name));
    fs::create_dir(&dir).unwrap();
    let ear = ground.listen();
    let child = (peer.prepare)(ground, &dir, count).spawn().unwrap();
    ear.last(count);
    (dir, child, ear)
}

fn end(peer: &Peer, ground: &Ground, dir: &Path, mut root: Child, ear: Ear, count: usize) {
    for number in 0..count {
        (peer.command)(dir, &format!("p{number}"), false).status().unwrap();
    }
    let all = supervisors(root.id(), &ground.child);
    for pid in all.iter().rev() {
        let _ = kill(Pid::from_raw(*pid as i32), Signal::SIGTERM);
    }
    root.wait().unwrap();
    // Each goes on writing to its directory until it is gone.
    let is_there = |pid: &u32| Path::new(&format!("/proc/{pid}")).exists();
    while all.iter().any(is_there) {
        std::thread::sleep(Duration::from_millis(10));
    }
    ground.deafen(ear);
}

fn one(peer: &Peer, ground: &Ground, table: &Table, spawn: u64, wake: u64) {
    let (dir, root, ear) = begin(peer, ground, 1);
    // They wait a second before a service that ended early is started again.
    let settle = || std::thread::sleep(Duration::from_millis(1_200));
    let mut times = Vec::new();
    for _ in 0..10 {
        settle();
        (peer.command)(&dir, "p0", false).status().unwrap();
        settle();
        let began = now();
        (peer.command)(&dir, "p0", true).status().unwrap();
        times.push(after(&ear, began));
    }
    let what = format!("{}: start, by command line", peer.name);
    table.time(&what, Spread::of(times), Some(("vfork+exec", spawn)), "");
    let mut times = Vec::new();
    (peer.command)(&dir, "p0", false).status().unwrap();
    settle();
    (peer.command)(&dir, "p0", true).status().unwrap();
    let mut pid = ear.next().pid;
    for _ in 0..10 {
        settle();
        let began = now();
        kill(Pid::from_raw(pid as i32), Signal::SIGKILL).unwrap();
        let next = ear.next();
        times.push(next.at - began);
        pid = next.pid;
    }
    let what = format!("{}: crash to replacement", peer.name);
    table.time(&what, Spread::of(times), Some(("kill+wake+spawn", wake)), "");
    end(peer, ground, &dir, root, ear, 1);
    fs::remove_dir_all(dir).unwrap();

    let mut kib = Vec::new();
    for count in [1, MANY] {
        let (dir, root, ear) = begin(peer, ground, count);
        settle();
        kib.push(memory_of(&supervisors(root.id(), &ground.child)));
        end(peer, ground, &dir, root, ear, count);
        fs::remove_dir_all(dir).unwrap();
    }
    let each = (kib[1].saturating_sub(kib[0])) as f64 / (MANY - 1) as f64;
    let total = format!("{:.1} MiB", kib[1] as f64 / 1024.0);
    let what = format!("{}: memory (PSS) with {MANY}", peer.name);
    table.row(&what, &total, &format!("{each:.1} KiB each"), "", "", "");
}
