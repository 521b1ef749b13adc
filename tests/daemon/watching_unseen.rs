//! Changes of which the kernel tells nothing, or not enough: mounts, files known by another name, too
//! many events, too few watches, file systems that others change.

use crate::common::waiting::DEADLINE;
use crate::namespace::entered;
use crate::watched::{Watched, shell, version};
use nix::sys::signal::Signal;
use provost::client::ReloadOptions;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

const MOUNTS: &[&str] = &["--mount", "--propagation", "private"];
const USER: &[&str] = &["--user", "--map-root-user"];

fn directories(dir: &Path) {
    for (name, number) in [("conf", 1001), ("other", 1002)] {
        fs::create_dir(dir.join(name)).unwrap();
        fs::write(dir.join(name).join("p.yaml"), version(number)).unwrap();
    }
    let main = "processManagement: { processConfigFile: conf/p.yaml }";
    fs::write(dir.join("processes.yaml"), main).unwrap();
}

#[tokio::test]
async fn a_mount_over_the_directory() {
    if !entered("watching_unseen::a_mount_over_the_directory", MOUNTS, "") {
        return;
    }
    let mut watched = Watched::filled(directories).await;
    watched.shell("mount --bind other conf");
    watched.becomes(1002).await;
    watched.shell("sed -i s/1002/1003/ other/p.yaml");
    watched.becomes(1003).await;
    watched.shell("umount -l conf");
    watched.becomes(1001).await;
    watched.shell("mount -t tmpfs none conf");
    watched.logged_more("conf/p.yaml does not exist", 0);
    watched.is_untouched().await;
    watched.write("conf/p.yaml", &version(1004));
    watched.becomes(1004).await;
    watched.shell("umount -l conf");
    watched.becomes(1001).await;
}

#[tokio::test]
async fn a_mount_elsewhere_is_no_change() {
    if !entered("watching_unseen::a_mount_elsewhere_is_no_change", MOUNTS, "") {
        return;
    }
    let mut watched = Watched::filled(directories).await;
    let before = watched.generation().await;
    watched.shell("mkdir m; for n in 1 2 3 4 5; do mount -t tmpfs none m; umount m; done");
    watched.shell("sed -i s/1001/1004/ conf/p.yaml");
    watched.becomes(1004).await;
    assert_eq!(watched.generation().await, before + 1);
}

/// As containers get it: the directory shows nothing when the file is written under its other name.
#[tokio::test]
async fn a_single_file_mounted() {
    if !entered("watching_unseen::a_single_file_mounted", MOUNTS, "") {
        return;
    }
    let mut watched = Watched::filled(|dir| {
        directories(dir);
        fs::write(dir.join("other/p.yaml"), version(1001)).unwrap();
        fs::write(dir.join("conf/p.yaml"), version(1009)).unwrap();
        shell(dir, "mount --bind other/p.yaml conf/p.yaml");
    })
    .await;
    watched.shell("cp other/p.yaml new; sed -i s/1001/1002/ new; cat new >other/p.yaml");
    watched.becomes(1002).await;
    watched.shell("sed -i s/1002/1003/ new; cp new other/p.yaml");
    watched.becomes(1003).await;
    watched.shell("umount -l conf/p.yaml");
    watched.becomes(1009).await;
    watched.shell("mount --bind other/p.yaml conf/p.yaml");
    watched.becomes(1003).await;
}

/// While the daemon stands still, more happens than its queue holds; the change that counts is among
/// what is lost.
#[tokio::test]
async fn a_queue_that_overflows() {
    let mut watched = Watched::plain().await;
    // The first look after the start is over then.
    watched.shell("sed -i s/1001/1002/ processes.yaml");
    watched.becomes(1002).await;
    let most = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let most: u32 = most.trim().parse().unwrap();
    watched.daemon.signal(Signal::SIGSTOP);
    for n in 0..most / 2 + 100 {
        let path = watched.path(&format!("noise{n}"));
        fs::write(&path, "").unwrap();
        fs::remove_file(path).unwrap();
    }
    watched.write("new", &version(1003));
    fs::rename(watched.path("new"), watched.daemon.file()).unwrap();
    watched.daemon.signal(Signal::SIGCONT);
    watched.becomes(1003).await;
    watched.shell("sed -i s/1003/1004/ processes.yaml");
    watched.becomes(1004).await;
}

async fn without_watches(mut watched: Watched, said: &str) {
    watched.daemon.logged(said);
    watched.shell("sed -i s/1001/1002/ processes.yaml");
    watched.becomes(1002).await;
    watched.write("processes.yaml", &version(1003));
    watched.becomes(1003).await;
    watched.shell("mkdir processes.d; echo 'processes: { b: { command: [sleep, \"1\"] } }' >processes.d/b.yaml");
    watched.daemon.until("the drop-in", |status| status.contains_key("b@0")).await;
    fs::remove_file(watched.path("processes.d/b.yaml")).unwrap();
    watched.daemon.until("it is gone", |status| !status.contains_key("b@0")).await;
    watched.daemon.reload().await;
    let log = watched.daemon.log();
    assert_eq!(log.matches("not every file can be watched").count(), 1, "told once: {log}");
    assert_eq!(log.matches(said).count(), 1, "{log}");
    assert!(watched.daemon.client().await.manager().await.unwrap().watching);
    watched.is_untouched().await;
}

#[tokio::test]
async fn no_watches_left() {
    let limit = "echo 1 >/proc/sys/user/max_inotify_watches";
    if entered("watching_unseen::no_watches_left", USER, limit) {
        without_watches(Watched::plain().await, "no inotify watches are left").await;
    }
}

#[tokio::test]
async fn no_instances_left() {
    let limit = "echo 0 >/proc/sys/user/max_inotify_instances";
    if entered("watching_unseen::no_instances_left", USER, limit) {
        without_watches(Watched::plain().await, "no inotify instances are left").await;
    }
}

/// The root of most containers. What is changed through it is told of, also where a file is copied up
/// by its first change.
#[tokio::test]
async fn an_overlay_tells_of_its_changes() {
    if !entered("watching_unseen::an_overlay_tells_of_its_changes", MOUNTS, "") {
        return;
    }
    let mut watched = Watched::filled(|dir| {
        directories(dir);
        shell(dir, "mkdir upper work; mv conf lower; mkdir conf");
        shell(dir, "mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work none conf");
    })
    .await;
    watched.shell("sed s/1001/1002/ conf/p.yaml >new; cat new >conf/p.yaml");
    watched.becomes(1002).await;
    watched.shell("sed -i s/1002/1003/ conf/p.yaml");
    watched.becomes(1003).await;
    let log = watched.daemon.log();
    assert!(!log.contains("not every file can be watched"), "{log}");
}

struct Fuse(Child);

impl Fuse {
    /// Shows `from` at `to`, through a program.
    fn mount(from: &Path, to: &Path) -> Fuse {
        let child =
            Command::new("bindfs").arg("-f").args([from, to]).stdin(Stdio::null()).spawn().unwrap();
        let deadline = Instant::now() + DEADLINE;
        while !to.join("p.yaml").exists() {
            assert!(Instant::now() < deadline, "bindfs never shows it");
            std::thread::yield_now();
        }
        Fuse(child)
    }
}

impl Fuse {
    fn signal(&self, signal: Signal) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.0.id()).unwrap());
        nix::sys::signal::kill(pid, signal).unwrap();
    }
}

impl Drop for Fuse {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// FUSE stands for all file systems that others change: the kernel is not told of what changes
/// behind it.
#[tokio::test]
async fn a_file_system_that_others_change() {
    if !entered("watching_unseen::a_file_system_that_others_change", MOUNTS, "") {
        return;
    }
    let mut fuse = None;
    let mut watched = Watched::filled(|dir| {
        directories(dir);
        fs::create_dir(dir.join("behind")).unwrap();
        fs::rename(dir.join("conf/p.yaml"), dir.join("behind/p.yaml")).unwrap();
        fuse = Some(Fuse::mount(&dir.join("behind"), &dir.join("conf")));
    })
    .await;
    watched.daemon.logged("is on FUSE");
    watched.write("behind/p.yaml", &version(1002));
    watched.becomes(1002).await;
    watched.shell("sed -i s/1002/1003/ behind/p.yaml");
    watched.becomes(1003).await;
    // Here the kernel does see it.
    watched.shell("sed -i s/1003/1004/ conf/p.yaml");
    watched.becomes(1004).await;
    drop(fuse);
}

/// As a server that is down: whoever reads waits. The daemon does not.
#[tokio::test]
async fn a_file_system_that_does_not_answer() {
    if !entered("watching_unseen::a_file_system_that_does_not_answer", MOUNTS, "") {
        return;
    }
    let mut fuse = None;
    let mut watched = Watched::filled(|dir| {
        directories(dir);
        fs::rename(dir.join("conf"), dir.join("behind")).unwrap();
        fs::create_dir(dir.join("conf")).unwrap();
        fuse = Some(Fuse::mount(&dir.join("behind"), &dir.join("conf")));
    })
    .await;
    let fuse = fuse.unwrap();
    fuse.signal(Signal::SIGSTOP);
    let client = watched.daemon.client().await;
    let reload = tokio::spawn(async move { client.reload(&ReloadOptions::default()).await });
    let other = watched.daemon.client().await;
    other.restart(&["a".to_owned()], |_| {}).await.unwrap();
    assert!(!reload.is_finished(), "it was read all the same");
    watched.write("behind/p.yaml", &version(1002));
    fuse.signal(Signal::SIGCONT);
    reload.await.unwrap().unwrap();
    watched.becomes(1002).await;
}
