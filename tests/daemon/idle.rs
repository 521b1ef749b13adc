//! Idle costs nothing.

use crate::support::{Daemon, wait_for};
use provost::sys::stat::Stat;

/// How often the daemon was woken up and went to sleep again.
fn waits(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.unwrap().trim().parse().unwrap()
}

/// That what others do in the directory above wakes the daemon next to never.
async fn is_left_alone(daemon: &Daemon) {
    daemon.status().await;
    let before = waits(daemon);
    for _ in 0..2000 {
        // Beside the daemon's directory; each is made and removed.
        drop(tempfile::NamedTempFile::new_in(daemon.path().parent().unwrap()).unwrap());
    }
    // One that is answered has taken in all that came before it.
    daemon.status().await;
    let woken = waits(daemon) - before;
    assert!(woken < 200, "{woken} times");
}

#[tokio::test]
async fn who_closes_its_output_goes_on_and_nobody_runs_in_circles() {
    let daemon = Daemon::start(
        "processes:
  screen: { shell: 'exec >&- 2>&-; touch @DIR@/screen; sleep 2', restartPolicy: { condition: no } }
  file:
    shell: 'echo said; exec >&- 2>&-; touch @DIR@/file; sleep 2'
    logFile: log
    log: { maxSize: 1M }
    restartPolicy: { condition: no }
",
    );
    wait_for(&daemon.path().join("screen"));
    wait_for(&daemon.path().join("file"));
    let before = Stat::of(daemon.pid()).unwrap().ticks;
    daemon
        .until("completed", |s| {
            ["screen@0", "file@0"]
                .iter()
                .all(|name| s.get(*name).is_some_and(|p| p.state == "completed"))
        })
        .await;
    // Two seconds of a circle would be two hundred.
    let used = Stat::of(daemon.pid()).unwrap().ticks - before;
    assert!(used < 50, "{used} ticks");
    assert_eq!(std::fs::read_to_string(daemon.path().join("log")).unwrap(), "said\n");
}

#[tokio::test]
async fn what_comes_and_goes_above_the_files_wakes_nobody() {
    let daemon = Daemon::start("processes: { a: { shell: 'echo >@DIR@/up; exec sleep 1000' } }");
    wait_for(&daemon.path().join("up"));
    daemon.until_running(&["a@0"]).await;
    is_left_alone(&daemon).await;
}

/// A file that is missing is watched for more closely, and that is over when it is there.
#[tokio::test]
async fn nor_does_it_where_the_file_was_missing_at_first() {
    let daemon = Daemon::prepare(|_| {}).run();
    daemon.save("processes: { a: { shell: 'echo >@DIR@/up; exec sleep 1000' } }");
    wait_for(&daemon.path().join("up"));
    daemon.until_running(&["a@0"]).await;
    is_left_alone(&daemon).await;
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
