//! A new run beside the one that it replaces.

use crate::common::processes::{kill, processes_with, start_of};
use crate::common::waiting::{DEADLINE, until};
use crate::support::{Daemon, Status, identities};
use provost::client::{ProcessStatus, ReloadOptions, ReloadSummary, Verb};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Says that it is ready when it may, and then answers a line with its number. When it is asked to
/// end, it serves whom it has accepted.
const SERVER: &str = r#"
use Socket;
use IO::Handle;
my ($over, $dir) = (0, "@DIR@");
$SIG{TERM} = sub { $over = 1 };
# Where nobody reads what it writes any more.
$SIG{PIPE} = "IGNORE";
until (-e "$dir/go$ENV{VERSION}") {
    exit 3 if -e "$dir/bad$ENV{VERSION}";
    exit if $over;
    select(undef, undef, undef, 0.01);
}
socket(my $manager, PF_UNIX, SOCK_DGRAM, 0) or die $!;
$| = 1;
print "$ENV{VERSION} begins\n";
send($manager, "READY=1", 0, sockaddr_un($ENV{NOTIFY_SOCKET})) or die $!;
open(my $listener, "+<&=", 3) or die $!;
$listener->blocking(0);
until ($over && !-e "$dir/stay$ENV{VERSION}") {
    vec(my $ready = "", fileno($listener), 1) = 1;
    select($ready, undef, undef, 0.05);
    # Another may have been quicker.
    accept(my $client, $listener) or next;
    $client->blocking(1);
    my $line = readline($client);
    syswrite($client, "$$ $line");
    close $client;
}
print "$ENV{VERSION} ends\n";
"#;

const API: [&str; 1] = ["api@0"];

fn file(version: u32, more: &str) -> String {
    format!(
        "processManagement: {{ settle: 0ms, watchConfig: false }}
processes:
  api:
    command: [perl, '@DIR@/server.pl', '@DIR@']
    overlap: true
    readiness: notify
    env: {{ VERSION: '{version}' }}
    sockets: {{ http: '@DIR@/http' }}
    restartPolicy: {{ delay: 0ms, jitter: 0 }}
{more}"
    )
}

/// The first version serves; others serve when they may.
async fn serving(more: &str) -> Daemon {
    let daemon = Daemon::prepare(|dir| {
        let server = SERVER.replace("@DIR@", dir.to_str().unwrap());
        fs::write(dir.join("server.pl"), server).unwrap();
        fs::write(dir.join("go1"), "").unwrap();
    })
    .with(&file(1, more));
    daemon.until_running(&API).await;
    daemon
}

fn put(daemon: &Daemon, name: &str) {
    fs::write(daemon.path().join(name), "").unwrap();
}

/// Connects, asks, and is answered by somebody, who is returned.
fn ask(daemon: &Daemon) -> u32 {
    let mut stream = UnixStream::connect(daemon.path().join("http")).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(b"hello\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.strip_suffix(" hello\n").unwrap_or_else(|| panic!("{answer:?}")).parse().unwrap()
}

fn api(status: &Status) -> &ProcessStatus {
    &status["api@0"]
}

fn changing(daemon: &Daemon, yaml: &str) -> tokio::task::JoinHandle<ReloadSummary> {
    daemon.save(yaml);
    let socket = daemon.path().join("private");
    tokio::spawn(async move {
        let target = provost::client::Target::Socket(socket);
        let client = provost::client::Client::connect(&target).await.unwrap();
        client.reload(&ReloadOptions::default()).await.unwrap()
    })
}

/// Waits until there are two, and returns the number of the one that is to serve.
async fn two(daemon: &Daemon) -> u32 {
    let status = daemon.until("two", |all| api(all).overlap_pid.is_some()).await;
    assert_eq!(api(&status).state, "running");
    api(&status).overlap_pid.unwrap()
}

async fn one(daemon: &Daemon, pid: u32) -> Status {
    let is_one = |all: &Status| {
        let api = api(all);
        api.state == "running" && api.pid == Some(pid) && api.overlap_pid.is_none()
    };
    daemon.until(&format!("only {pid}"), is_one).await
}

/// All of its processes that there are.
fn servers(daemon: &Daemon) -> Vec<u32> {
    processes_with(daemon.path().to_str().unwrap())
        .into_iter()
        .filter(|pid| {
            fs::read_link(format!("/proc/{pid}/exe"))
                .is_ok_and(|exe| exe.to_string_lossy().contains("perl"))
        })
        .collect()
}

#[tokio::test]
async fn the_old_one_serves_until_the_new_one_is_ready() {
    let daemon = serving("").await;
    let old = ask(&daemon);
    let summary = changing(&daemon, &file(2, ""));
    let new = two(&daemon).await;
    let during = daemon.status().await;
    let during = api(&during);
    assert_eq!((during.pid, &*during.phase), (Some(old), "overlapping"));
    assert_eq!(during.reason, "its new run is not ready yet");
    for _ in 0..20 {
        assert_eq!(ask(&daemon), old);
    }
    put(&daemon, "go2");
    let summary = summary.await.unwrap();
    assert_eq!(summary.result, "applied", "{summary:?}");
    let status = one(&daemon, new).await;
    assert_eq!((api(&status).generation, api(&status).needs_restart), (2, false));
    assert_eq!(ask(&daemon), new);
    assert_eq!(servers(&daemon), [new]);
    // And back into the place where the first one was.
    put(&daemon, "go3");
    assert_eq!(changing(&daemon, &file(3, "")).await.unwrap().result, "applied");
    let third = daemon.until("three", |all| api(all).pid != Some(new)).await;
    one(&daemon, api(&third).pid.unwrap()).await;
}

#[tokio::test]
async fn one_that_does_not_come_up_leaves_the_old_one_as_it_was() {
    let daemon = serving("").await;
    let before = identities(&daemon.status().await);
    put(&daemon, "bad2");
    let summary = changing(&daemon, &file(2, "")).await.unwrap();
    assert_eq!(summary.result, "rolled-back", "{summary:?}");
    let status = one(&daemon, before["api@0"].0).await;
    assert_eq!(identities(&status), before);
    assert_eq!((api(&status).generation, api(&status).needs_restart), (1, false));
    assert_eq!((ask(&daemon), servers(&daemon).len()), (before["api@0"].0, 1));
}

#[tokio::test]
async fn so_does_one_that_is_never_ready_and_nobody_goes_back() {
    let late = "    startTimeout: 300ms\n";
    let daemon = serving(late).await;
    let before = identities(&daemon.status().await);
    let off = |version| file(version, late).replace("settle: 0ms", "settle: 0ms, rollback: off");
    let summary = changing(&daemon, &off(2)).await.unwrap();
    assert_eq!((&*summary.result, &*summary.failed), ("failed-kept", &["api@0".to_owned()][..]));
    let status = one(&daemon, before["api@0"].0).await;
    assert_eq!(identities(&status), before);
    assert!(api(&status).needs_restart);
    assert!(api(&status).reason.contains("the one before goes on"), "{}", api(&status).reason);
    // It is tried again when somebody says so.
    put(&daemon, "go2");
    let client = daemon.client().await;
    client.run(Verb::Restart, &["api".to_owned()], |_| {}).await.unwrap();
    let status = daemon.until("anew", |all| api(all).generation == 2).await;
    one(&daemon, api(&status).pid.unwrap()).await;
    assert_eq!(servers(&daemon).len(), 1);
}

#[tokio::test]
async fn a_restart_overlaps() {
    let daemon = serving("").await;
    let old = ask(&daemon);
    fs::remove_file(daemon.path().join("go1")).unwrap();
    let client = daemon.client().await;
    let restart = tokio::spawn(async move {
        client.run(Verb::Restart, &["api".to_owned()], |_| {}).await.map(|_| ())
    });
    let new = two(&daemon).await;
    assert_eq!(ask(&daemon), old);
    put(&daemon, "go1");
    restart.await.unwrap().unwrap();
    one(&daemon, new).await;
    assert_eq!(ask(&daemon), new);
}

#[tokio::test]
async fn a_stop_ends_both() {
    let daemon = serving("").await;
    let old = ask(&daemon);
    let summary = changing(&daemon, &file(2, ""));
    let new = two(&daemon).await;
    let client = daemon.client().await;
    client.run(Verb::Stop, &["api".to_owned()], |_| {}).await.unwrap();
    let status = daemon.status().await;
    assert_eq!((&*api(&status).state, api(&status).overlap_pid), ("down", None));
    assert_eq!((start_of(old), start_of(new), servers(&daemon)), (0, 0, vec![]));
    assert!(UnixStream::connect(daemon.path().join("http")).is_err());
    summary.await.unwrap();
}

#[tokio::test]
async fn who_takes_long_to_end_is_killed_and_the_new_one_serves_meanwhile() {
    let daemon = serving("    stop: { timeout: 300ms }\n").await;
    let old = ask(&daemon);
    put(&daemon, "stay1");
    put(&daemon, "go2");
    let slow = "    stop: { timeout: 1m }\n";
    assert_eq!(changing(&daemon, &file(2, slow)).await.unwrap().result, "applied");
    let status = daemon.until("the new one", |all| api(all).pid != Some(old)).await;
    let new = api(&status).pid.unwrap();
    one(&daemon, new).await;
    until("the old one is gone", || start_of(old) == 0);
    daemon.logged("SIGKILL");
    assert_eq!(ask(&daemon), new);
}

/// In the middle of a change the daemon is killed, and another takes its place.
#[tokio::test]
async fn both_go_on_when_the_daemon_is_killed() {
    let daemon = serving("").await;
    let old = ask(&daemon);
    let summary = changing(&daemon, &file(2, ""));
    let new = two(&daemon).await;
    let before = [start_of(old), start_of(new)];
    let daemon = daemon.killed_and_again();
    summary.abort();
    assert_eq!(two(&daemon).await, new);
    assert_eq!(api(&daemon.status().await).pid, Some(old));
    assert_eq!([start_of(old), start_of(new)], before);
    put(&daemon, "go2");
    let status = one(&daemon, new).await;
    assert_eq!(api(&status).generation, 2);
    until("the old one is gone", || servers(&daemon) == [new]);
}

#[tokio::test]
async fn what_did_not_come_up_is_undone_by_the_daemon_that_comes() {
    let daemon = serving("").await;
    let old = ask(&daemon);
    let summary = changing(&daemon, &file(2, ""));
    let new = two(&daemon).await;
    let daemon = daemon.killed();
    summary.abort();
    put(&daemon, "bad2");
    until("the new one has failed", || start_of(new) == 0);
    let daemon = daemon.again();
    let is_back = |manager: &provost::client::ManagerStatus| manager.config_state == "rolled-back";
    daemon.until_manager("rolled back", is_back).await;
    let status = one(&daemon, old).await;
    assert_eq!(api(&status).generation, 1);
    assert_eq!(servers(&daemon), [old]);
}

/// What was asked to end before the daemon was killed ends, and is not taken for the one that serves.
#[tokio::test]
async fn who_was_ending_ends_under_the_next_daemon() {
    let daemon = serving("").await;
    let old = ask(&daemon);
    put(&daemon, "stay1");
    put(&daemon, "go2");
    changing(&daemon, &file(2, "")).await.unwrap();
    let is_ending = |all: &Status| api(all).overlap_pid == Some(old);
    let status = daemon.until("the old one is ending", is_ending).await;
    let new = api(&status).pid.unwrap();
    assert_eq!(api(&status).reason, "the run before it is ending");
    let daemon = daemon.killed_and_again();
    assert_eq!(api(&daemon.status().await).pid, Some(new));
    kill(old);
    one(&daemon, new).await;
    assert_eq!(servers(&daemon), [new]);
}

/// Another program in the place of the daemon, in the middle of a change. Each of the two has a log that
/// is written by a program of its own, to the same file.
#[tokio::test]
async fn another_program_goes_on_with_both() {
    let logged = "    logFile: '@DIR@/api.log'\n    log: { maxSize: 1M }\n";
    let daemon = serving(logged).await;
    let old = ask(&daemon);
    let summary = changing(&daemon, &file(2, logged));
    let new = two(&daemon).await;
    daemon.client().await.reexec().await.unwrap();
    daemon.notified("RELOADING=1");
    daemon.notified("READY=1");
    summary.abort();
    assert_eq!(two(&daemon).await, new);
    assert_eq!(ask(&daemon), old);
    put(&daemon, "go2");
    one(&daemon, new).await;
    assert_eq!(servers(&daemon), [new]);
    let has_all = || {
        let log = fs::read_to_string(daemon.path().join("api.log")).unwrap();
        let mut lines: Vec<&str> = log.lines().collect();
        lines.sort_unstable();
        lines == ["1 begins", "1 ends", "2 begins"]
    };
    until("both have written", has_all);
}

/// A socket in another place does not take the old one from who still serves there.
#[tokio::test]
async fn a_socket_that_moves_is_where_it_was_until_the_new_one_is_ready() {
    let daemon = serving("").await;
    let old = ask(&daemon);
    let moved = |version| file(version, "").replace("@DIR@/http", "@DIR@/other");
    put(&daemon, "bad2");
    let summary = changing(&daemon, &moved(2)).await.unwrap();
    assert_eq!(summary.result, "rolled-back", "{summary:?}");
    one(&daemon, old).await;
    assert_eq!(ask(&daemon), old);
    assert!(UnixStream::connect(daemon.path().join("other")).is_err());
    // It is still held: another run gets it.
    let client = daemon.client().await;
    client.run(Verb::Restart, &["api".to_owned()], |_| {}).await.unwrap();
    let status = daemon.until("anew", |all| api(all).pid != Some(old)).await;
    one(&daemon, api(&status).pid.unwrap()).await;
    assert_ne!(ask(&daemon), old);
    put(&daemon, "go3");
    assert_eq!(changing(&daemon, &moved(3)).await.unwrap().result, "applied");
    until("the old place is closed", || UnixStream::connect(daemon.path().join("http")).is_err());
    assert!(UnixStream::connect(daemon.path().join("other")).is_ok());
}

/// Nobody who connects waits until a new run is up: each is answered by whoever serves.
#[tokio::test]
async fn nobody_waits_for_the_new_one() {
    let daemon = serving("").await;
    let old = ask(&daemon);
    let summary = changing(&daemon, &file(2, ""));
    two(&daemon).await;
    // The new one does not begin to serve before this says so; who had to wait for it would wait for ever.
    for _ in 0..500 {
        assert_eq!(ask(&daemon), old);
    }
    put(&daemon, "go2");
    assert_eq!(summary.await.unwrap().result, "applied");
    tokio::time::timeout(Duration::from_secs(60), async { ask(&daemon) }).await.unwrap();
}
