//! What can be seen from outside: /proc, what fixtures tell of themselves, ports.

use crate::common::processes::{self, descriptors, memory};
use crate::common::waiting::DEADLINE;
use crate::file::{Entry, Exec, Files, Ground, Instance, Mode, TWICE, name};
use provost::sys::stat::Stat;
use rustix::process::{Pid, getpriority_process};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// A process for as long as the machine is up: a pid alone comes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process {
    pub pid: i32,
    pub started: u64,
}

/// The fixtures that run, by the name of their instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub mains: BTreeMap<String, Vec<Process>>,
    pub children: BTreeMap<String, Vec<Process>>,
}

/// The words of a file of /proc that has them between NULs.
fn words(pid: i32, file: &str) -> Option<Vec<String>> {
    let text = fs::read(format!("/proc/{pid}/{file}")).ok()?;
    let words =
        text.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned());
    let mut words: Vec<String> = words.collect();
    words.pop();
    Some(words)
}

fn stat(pid: i32) -> Option<Stat> {
    Stat::of(pid.try_into().unwrap())
}

/// None when there is none, or what is left of it is a zombie.
pub fn process(pid: i32) -> Option<Process> {
    let stat = stat(pid)?;
    (stat.state != b'Z').then_some(Process { pid, started: stat.start })
}

fn pids() -> impl Iterator<Item = i32> {
    processes::all().map(|pid| pid as i32)
}

/// Everything with the token of this soak.
pub fn look(token: &str) -> Found {
    let mut found = Found::default();
    for pid in pids() {
        let Some(words) = words(pid, "cmdline") else { continue };
        if words.get(1).map(String::as_str) != Some(token) {
            continue;
        }
        let Some(process) = process(pid) else { continue };
        let is_child = words.get(3).is_some_and(|mode| mode == "child");
        let of = if is_child { &mut found.children } else { &mut found.mains };
        of.entry(words[2].clone()).or_default().push(process);
    }
    found
}

/// The dead that a process has not fetched.
fn zombies_of(parent: u32) -> BTreeSet<Process> {
    let dead = |pid: i32| {
        let stat = stat(pid)?;
        let is_dead = stat.state == b'Z' && stat.parent == parent;
        is_dead.then_some(Process { pid, started: stat.start })
    };
    pids().filter_map(dead).collect()
}

/// The dead that a process does not fetch, however long one waits. Somebody has always just died
/// where checks run and processes crash; nobody tells when it is fetched.
pub fn unfetched_by(parent: u32) -> BTreeSet<Process> {
    const LOOK_AGAIN: Duration = Duration::from_millis(20);
    let end = Instant::now() + DEADLINE;
    let mut left = zombies_of(parent);
    while !left.is_empty() && Instant::now() < end {
        std::thread::sleep(LOOK_AGAIN);
        let now = zombies_of(parent);
        left.retain(|one| now.contains(one));
    }
    left
}

/// What a process costs.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    pub kib: u64,
    pub files: usize,
    pub threads: usize,
}

/// What the daemon costs now.
pub fn cost(pid: u32) -> Cost {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap().count();
    // Its own: how much of the program is in memory depends on how it was built.
    Cost { kib: memory(pid, "Pss_Anon:"), files: descriptors(pid), threads }
}

/// What no fixture tells.
const MARK: &str = "mark";

/// What fixtures tell.
pub struct Births {
    told: Receiver<String>,
    /// Comes after all that was told before it was sent.
    mark: UnixDatagram,
    /// Pids of the runs that began in this step, by instance.
    pub mains: BTreeMap<String, Vec<i32>>,
    /// The same of those whose child is there.
    pub children: BTreeMap<String, Vec<i32>>,
    /// What must never be told.
    pub wrong: Vec<String>,
}

impl Births {
    pub fn listen(socket: &Path) -> Births {
        use std::os::unix::fs::PermissionsExt;
        let listener = UnixDatagram::bind(socket).unwrap();
        fs::set_permissions(socket, fs::Permissions::from_mode(0o777)).unwrap();
        let (sender, told) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok(length) = listener.recv(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                if sender.send(text).is_err() {
                    return;
                }
            }
        });
        let mark = UnixDatagram::unbound().unwrap();
        mark.connect(socket).unwrap();
        let (mains, children) = (BTreeMap::new(), BTreeMap::new());
        Births { told, mark, mains, children, wrong: Vec::new() }
    }

    /// A step begins: what was told so far belongs to the last one.
    pub fn forget(&mut self) {
        self.catch_up();
        self.mains.clear();
        self.children.clear();
    }

    fn take(&mut self, text: &str) {
        let words: Vec<&str> = text.split(' ').collect();
        let pid = words[2].parse().unwrap();
        match words[0] {
            "main" => self.mains.entry(words[1].to_owned()).or_default().push(pid),
            "child" => self.children.entry(words[1].to_owned()).or_default().push(pid),
            "twin" if words[1].starts_with(TWICE) => {}
            _ => self.wrong.push(text.to_owned()),
        }
    }

    /// Takes what has been told: also the last words of those that are gone, which nobody else waits for.
    pub fn catch_up(&mut self) {
        self.mark.send(MARK.as_bytes()).unwrap();
        while let Ok(text) = self.told.recv() {
            if text == MARK {
                return;
            }
            self.take(&text);
        }
    }

    /// Waits until `enough` is satisfied.
    pub fn until(&mut self, deadline: Instant, enough: impl Fn(&Births) -> bool) -> bool {
        self.catch_up();
        while !enough(self) {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.told.recv_timeout(left) {
                Ok(text) => self.take(&text),
                Err(_) => return false,
            }
        }
        true
    }
}

/// What is wrong with a run, compared with what the files say it is to be.
pub fn differences(pid: i32, exec: &Exec, instance: &Instance, root: bool) -> Vec<String> {
    let own = i32::try_from(std::process::id()).unwrap();
    let mut wrong = Vec::new();
    let mut compare = |what: &str, is: String, wanted: String| {
        if is != wanted {
            wrong.push(format!("{what} is {is}, and should be {wanted}"));
        }
    };
    let argv = words(pid, "cmdline").unwrap_or_default();
    compare("argv", format!("{argv:?}"), format!("{:?}", exec.argv));
    let link = |file: &str| fs::read_link(format!("/proc/{pid}/{file}")).unwrap_or_default();
    compare("cwd", link("cwd").display().to_string(), exec.cwd.display().to_string());
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let field = |key: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or("");
        value.split_whitespace().next().unwrap_or("").to_owned()
    };
    compare("umask", field("Umask:"), format!("{:04o}", exec.umask));
    if root {
        let uid = if matches!(exec.user, None | Some("root")) { "0" } else { "65534" };
        let gid = match exec.group {
            None => uid,
            Some("nogroup") => "65534",
            Some(group) => group,
        };
        compare("uid", field("Uid:"), uid.to_owned());
        compare("gid", field("Gid:"), gid.to_owned());
    }
    let nice_of = |pid: i32| {
        let nice = getpriority_process(Pid::from_raw(pid));
        nice.map_or(String::new(), |nice| nice.to_string())
    };
    // That of the daemon is ours.
    let nice = exec.nice.map_or_else(|| nice_of(own), |nice| nice.to_string());
    compare("nice", nice_of(pid), nice);
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap_or_default();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap_or("");
    let files = files.split_whitespace().nth(3).unwrap_or("").to_owned();
    if let Some(limit) = exec.files {
        compare("limits.files", files, limit.to_string());
    }
    // One that is rotated is held by a program of its own.
    if let (Some(path), None) = (&exec.log_file, exec.rotation) {
        compare("logFile", link("fd/1").display().to_string(), path.display().to_string());
    }
    if let Some(path) = &exec.pid_file {
        let text = fs::read_to_string(path).unwrap_or_default();
        compare("pidFile", text.trim().to_owned(), pid.to_string());
    }
    let mut env: BTreeMap<String, String> = words(pid, "environ")
        .unwrap_or_default()
        .iter()
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    compare("INSTANCE", env.remove("INSTANCE").unwrap_or_default(), instance.1.to_string());
    for base in ["PATH", "LANG", "HOME", "USER", "LOGNAME", "SHELL"] {
        if env.remove(base).is_none() {
            compare(base, "missing".to_owned(), "there".to_owned());
        }
    }
    if exec.shell {
        // What a shell adds.
        env.retain(|key, _| !["PWD", "OLDPWD", "SHLVL", "_"].contains(&key.as_str()));
    }
    compare("environment", format!("{env:?}"), format!("{:?}", exec.env));
    wrong
}

/// Who answers at the port of an instance: its name and pid.
pub fn answer(entry: &Entry, instance: &Instance, ground: &Ground) -> Option<String> {
    let port = entry.port(instance.1)?;
    let address: SocketAddr = format!("{}:{port}", ground.address).parse().unwrap();
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(20)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text.lines().last().unwrap_or_default().to_owned())
}

/// How many a run leaves beside its main process.
pub fn children(entry: &Entry) -> usize {
    usize::from(entry.mode == Mode::Fork)
}

/// Gives each instance the file that its runs lock.
pub fn make_locks(files: &Files, ground: &Ground) {
    use std::os::unix::fs::PermissionsExt;
    for instance in files.instances() {
        let path = ground.dir.join("locks").join(name(&instance));
        if !path.exists() {
            fs::write(&path, "").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        }
    }
}
