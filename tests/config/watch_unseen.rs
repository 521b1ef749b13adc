//! What the kernel does not tell of, or not enough.

use crate::common::waiting::DEADLINE;
use crate::namespace::entered;
use provost::config::watch::Watcher;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

const DEBOUNCE: Duration = Duration::from_millis(40);
const QUIET: Duration = Duration::from_millis(400);
const LIMIT: &str = "/proc/sys/user/max_inotify_watches";

async fn watching(directory: &TempDir) -> (Watcher, PathBuf) {
    let file = directory.path().join("p.yaml");
    fs::write(&file, "1").unwrap();
    let mut watcher = Watcher::new(DEBOUNCE);
    watcher.rewatch(std::slice::from_ref(&file), &directory.path().join("processes.d")).await;
    noticed(&mut watcher).await;
    (watcher, file)
}

async fn noticed(watcher: &mut Watcher) {
    tokio::time::timeout(DEADLINE, watcher.changed()).await.expect("not noticed");
}

fn reasons(watcher: &Watcher) -> Vec<String> {
    watcher.compared().map(|(why, every)| format!("{every:?} {why}")).collect()
}

fn limit(watches: u32) {
    fs::write(LIMIT, watches.to_string()).unwrap();
}

#[tokio::test]
async fn watches_that_are_left_again_are_taken() {
    let test = "watch_unseen::watches_that_are_left_again_are_taken";
    if !entered(test, &["--user", "--map-root-user"], "") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    limit(1);
    let (mut watcher, file) = watching(&directory).await;
    assert_eq!(
        reasons(&watcher),
        ["2s no inotify watches are left (sysctl fs.inotify.max_user_watches)"]
    );
    fs::write(&file, "2").unwrap();
    noticed(&mut watcher).await;
    // What was not changed is not told, however often it is looked at.
    let two_looks = Duration::from_secs(5);
    assert!(tokio::time::timeout(two_looks, watcher.changed()).await.is_err());
    limit(100);
    // That something can be seen again is reason to look.
    noticed(&mut watcher).await;
    assert_eq!(reasons(&watcher), [] as [String; 0]);
    fs::write(&file, "3").unwrap();
    noticed(&mut watcher).await;
}

/// Events that are lost are as good as any.
#[tokio::test]
async fn an_overflow_is_a_change() {
    let directory = tempfile::tempdir().unwrap();
    let (mut watcher, file) = watching(&directory).await;
    assert!(tokio::time::timeout(QUIET, watcher.changed()).await.is_err());
    let most = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let most: u32 = most.trim().parse().unwrap();
    let noise = |n: u32| directory.path().join(format!("noise{n}"));
    for n in 0..most / 2 + 100 {
        fs::write(noise(n), "").unwrap();
        fs::remove_file(noise(n)).unwrap();
    }
    fs::write(&file, "2").unwrap();
    noticed(&mut watcher).await;
    assert!(tokio::time::timeout(QUIET, watcher.changed()).await.is_err());
    fs::write(&file, "3").unwrap();
    noticed(&mut watcher).await;
}

/// A directory that may be entered and not read cannot be watched; what is in it can be compared.
#[tokio::test]
async fn a_directory_that_may_not_be_read() {
    use std::os::unix::fs::PermissionsExt;
    if rustix::process::geteuid().is_root() {
        // Whatever root may not watch is a matter of file systems.
        return as_nobody("a_directory_that_may_not_be_read");
    }
    let directory = tempfile::tempdir().unwrap();
    let set = |mode| fs::set_permissions(directory.path(), fs::Permissions::from_mode(mode));
    fs::write(directory.path().join("p.yaml"), "1").unwrap();
    set(0o311).unwrap();
    let (mut watcher, file) = watching(&directory).await;
    let reasons = reasons(&watcher);
    assert!(reasons.len() == 1 && reasons[0].contains("ermission denied"), "{reasons:?}");
    fs::remove_file(&file).unwrap();
    noticed(&mut watcher).await;
    fs::write(&file, "2").unwrap();
    noticed(&mut watcher).await;
    set(0o711).unwrap();
}

fn as_nobody(test: &str) {
    let directory = tempfile::tempdir().unwrap();
    let own = directory.path().join("test");
    fs::copy(std::env::current_exe().unwrap(), &own).unwrap();
    let open = |path: &Path| {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    open(&own);
    open(directory.path());
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(&own)
        .args([&format!("watch_unseen::{test}"), "--exact", "--nocapture"])
        .current_dir("/")
        .output()
        .unwrap();
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("1 passed"), "{out}\n{err}");
}
