//! What must not bring the daemon down, nor make its answers wrong.

use crate::support::{Daemon, pids};
use provost::client::{Client, ClientError, Target};
use std::fs;
use std::net::TcpListener;

#[tokio::test]
async fn a_failure_to_start_names_its_stage() {
    let daemon = Daemon::start(
        "processes:
  noexec: { command: this-does-not-exist-anywhere, restartPolicy: { delay: 1h } }
  nocwd: { shell: 'exec sleep 1000', cwd: /does/not/exist, restartPolicy: { delay: 1h } }
  nolog: { shell: 'exec sleep 1000', logFile: /proc/nothing/here.log, restartPolicy: { delay: 1h } }
  good: { shell: exec sleep 1000 }
",
    );
    let status = daemon
        .until("all settled", |s| {
            s["good@0"].state == "running"
                && ["noexec@0", "nocwd@0", "nolog@0"].iter().all(|name| s[*name].state == "backoff")
        })
        .await;
    for (name, words) in [
        ("noexec@0", &["executing this-does-not-exist-anywhere", "next start in"][..]),
        ("nocwd@0", &["changing directory to /does/not/exist", "No such file or directory"]),
        ("nolog@0", &["opening the log file", "here.log"]),
    ] {
        for word in words {
            assert!(status[name].reason.contains(word), "{name}: {}", status[name].reason);
        }
        assert_eq!(status[name].result, "spawn-failed");
    }
    assert_eq!(status["good@0"].state, "running");
    let outcome = daemon.client().await.start(&["noexec".into()], false, |_| {}).await.unwrap();
    assert_eq!(outcome[0].result, "failed");
    assert!(outcome[0].detail.contains("No such file"), "{outcome:?}");
}

#[tokio::test]
async fn a_check_that_never_answers_ends_in_a_timeout() {
    // Accepts, and says nothing.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let daemon = Daemon::start(&format!(
        "processes:
  mute:
    shell: exec sleep 1000
    startTimeout: 700ms
    restartPolicy: {{ delay: 1h }}
    healthCheck: {{ url: 'http://127.0.0.1:{port}/', timeout: 200ms }}
  fine: {{ shell: exec sleep 1000 }}
"
    ));
    let status = daemon
        .until("timed out", |s| s["mute@0"].state == "backoff" && s["fine@0"].state == "running")
        .await;
    assert_eq!(status["mute@0"].result, "timeout");
    let told = &status["mute@0"].history;
    assert!(told.iter().any(|line| line.message.contains("no answer within")), "{told:?}");
}

#[tokio::test]
async fn a_hundred_megabytes_without_a_newline_need_no_memory() {
    let daemon = Daemon::start(
        "processes:
  calm: { shell: exec sleep 1000 }
  loud:
    shell: 'while ! test -e @DIR@/go; do sleep 0.05; done; head -c 100000000 /dev/zero; echo; exec sleep 1000'
",
    );
    daemon.until_running(&["calm@0", "loud@0"]).await;
    let resident = || {
        let text = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
        let line = text.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let before = resident();
    fs::write(daemon.path().join("go"), "").unwrap();
    // While it writes, others are answered; and all of it arrives.
    let log = daemon.path().join("daemon.log");
    let deadline = std::time::Instant::now() + crate::common::waiting::DEADLINE;
    while fs::metadata(&log).unwrap().len() < 100_000_000 {
        assert!(std::time::Instant::now() < deadline, "{}", fs::metadata(&log).unwrap().len());
        assert_eq!(daemon.status().await["calm@0"].state, "running");
    }
    let after = resident();
    assert!(after < before + 32 * 1024, "from {before} to {after} KiB");
    fs::write(&log, "").unwrap();
}

#[tokio::test]
async fn invalid_utf8_in_the_output_harms_nothing() {
    let daemon = Daemon::start(
        r#"processes: { raw: { shell: 'printf "a\377\376b\033[31mc\000d\n"; exec sleep 1000' } }"#,
    );
    daemon.until_running(&["raw@0"]).await;
    let client = daemon.client().await;
    let provost::client::Log::Stream(stream) =
        client.open_log(&["raw".into()], 50, true).await.unwrap()
    else {
        panic!("not in memory")
    };
    crate::common::waiting::wait_readable(&stream, "the line");
    let mut buffer = [0; 256];
    let length = rustix::io::read(&stream, &mut buffer).unwrap();
    assert!(buffer[..length].starts_with(b"a\xff\xfeb"), "{:?}", &buffer[..length]);
    assert_eq!(daemon.status().await["raw@0"].state, "running");
}

#[tokio::test]
async fn clients_that_leave_in_the_middle_disturb_nobody() {
    let daemon = Daemon::start(
        "processes:
  slow: { shell: 'trap \"\" TERM; while :; do sleep 1000; done', stop: { timeout: 1s } }
  fine: { shell: exec sleep 1000 }
",
    );
    let before = pids(&daemon.until_running(&["slow@0", "fine@0"]).await);
    for _ in 0..20 {
        let client = daemon.client().await;
        // Dropped with its connection while the reply is held.
        let names = ["slow".to_owned()];
        let call = client.restart(&names, |_| {});
        tokio::select! {
            biased;
            _ = call => {}
            () = tokio::task::yield_now() => {}
        }
    }
    // Half a greeting, and gone.
    for _ in 0..20 {
        use std::io::Write;
        let mut stream =
            std::os::unix::net::UnixStream::connect(daemon.path().join("private")).unwrap();
        stream.write_all(b"\0AUTH EXT").unwrap();
    }
    let status = daemon.until_running(&["slow@0", "fine@0"]).await;
    assert_eq!(status["fine@0"].pid, Some(before["fine@0"]));
}

#[tokio::test]
async fn a_child_that_keeps_its_output_open_after_its_end_delays_nothing() {
    let daemon = Daemon::start(
        "processes:
  leaver:
    shell: 'sleep 1000 & echo bye; exit 0'
    stop: { timeout: 500ms }
    restartPolicy: { condition: no }
",
    );
    daemon.until("completed", |s| s["leaver@0"].state == "completed").await;
}

#[tokio::test]
async fn many_reload_requests_at_once_all_get_an_answer() {
    let daemon = Daemon::start("processes: { a: { shell: exec sleep 1000 } }");
    let before = pids(&daemon.until_running(&["a@0"]).await);
    let client = daemon.client().await;
    let options = provost::client::ReloadOptions::default();
    let calls = (0..100).map(|_| client.reload(&options));
    for result in futures_util::future::join_all(calls).await {
        assert_eq!(result.unwrap().result, "unchanged");
    }
    assert_eq!(pids(&daemon.status().await), before);
}

#[tokio::test]
async fn a_supervisor_that_hangs_up_is_gone_and_not_closed_to_its_own_user() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("private");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    std::thread::spawn(move || drop(listener.accept()));
    let error = Client::connect(&Target::Socket(socket)).await.unwrap_err();
    assert!(matches!(error, ClientError::Gone), "{error:?}");
}
