//! Idle costs nothing.

use crate::support::{Daemon, wait_for};

/// How often the daemon was woken up and went to sleep again.
fn waits(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.unwrap().trim().parse().unwrap()
}

#[tokio::test]
async fn what_comes_and_goes_above_the_files_wakes_nobody() {
    let daemon = Daemon::start("processes: { a: { shell: 'echo >@DIR@/up; exec sleep 1000' } }");
    wait_for(&daemon.path().join("up"));
    daemon.until_running(&["a@0"]).await;
    let before = waits(&daemon);
    for _ in 0..2000 {
        // Beside the daemon's directory; each is made and removed.
        drop(tempfile::NamedTempFile::new_in(daemon.path().parent().unwrap()).unwrap());
    }
    // One that is answered has taken in all that came before it.
    daemon.status().await;
    let woken = waits(&daemon) - before;
    assert!(woken < 200, "{woken} times");
}

#[tokio::test]
async fn a_log_beside_the_file_wakes_nobody() {
    let yaml = "processes:
  a:
    logFile: ./a.log
    shell: |
      read x <@DIR@/go
      # A program between the lines, so that each is a write that can be told.
      i=0; while [ $i -lt 400 ]; do echo line $i; i=$((i + 1)); /bin/true; done
      echo >@DIR@/done.new; mv @DIR@/done.new @DIR@/done
      exec sleep 1000
";
    let daemon = Daemon::prepare(|dir| {
        use rustix::fs::{CWD, FileType, Mode, mknodat};
        mknodat(CWD, dir.join("go"), FileType::Fifo, Mode::RWXU, 0).unwrap();
    })
    .with(yaml);
    daemon.until_running(&["a@0"]).await;
    daemon.status().await;
    let before = waits(&daemon);
    std::fs::write(daemon.path().join("go"), "x\n").unwrap();
    wait_for(&daemon.path().join("done"));
    daemon.status().await;
    let woken = waits(&daemon) - before;
    let lines = std::fs::read_to_string(daemon.path().join("a.log")).unwrap();
    assert_eq!(lines.lines().count(), 400, "it was not written there");
    assert!(woken < 100, "{woken} times");
}
