//! Clients that do not behave, and many that do.

use crate::common::waiting::DEADLINE;
use crate::outside::{clients, connection, descriptors, memory};
use crate::support::{Daemon, pids};
use futures_util::future::join_all;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Instant;
use zbus::message::Message;

const MANAGER: &str = "org.provost.Provost1.Manager";
const ROOT: &str = "/org/provost/Provost1";
const CALLS: usize = 10_000;

/// Fifty of them, so that an answer about all is worth something.
const FIFTY: &str = "processes:
  many: { shell: exec sleep 1000, instances: 50 }
  one: { shell: exec sleep 1000, restartPolicy: { delay: 0 } }
";

/// A peer that has said hello (D-Bus specification, "Authentication Protocol") and reads nothing
/// more.
fn greeted(daemon: &Daemon) -> UnixStream {
    let mut stream = UnixStream::connect(daemon.path().join("private")).unwrap();
    let uid = rustix::process::geteuid().as_raw().to_string();
    let hex: String = uid.bytes().map(|byte| format!("{byte:02x}")).collect();
    write!(stream, "\0AUTH EXTERNAL {hex}\r\n").unwrap();
    line(&mut stream);
    stream.write_all(b"NEGOTIATE_UNIX_FD\r\n").unwrap();
    line(&mut stream);
    stream.write_all(b"BEGIN\r\n").unwrap();
    stream
}

fn line(stream: &mut UnixStream) {
    let mut byte = [0];
    while byte != *b"\n" {
        stream.read_exact(&mut byte).unwrap();
    }
}

fn status_of_all() -> Message {
    let names: [&str; 0] = [];
    let call = Message::method_call(ROOT, "Status").interface(MANAGER);
    call.build(&(names.as_slice(),)).unwrap()
}

/// Writes as many calls as the daemon takes, up to `limit`: no more when nothing has gone out while
/// others were answered many times.
async fn flood(daemon: &Daemon, stream: &mut UnixStream, limit: usize) -> usize {
    const PATIENCE: usize = 20;
    stream.set_nonblocking(true).unwrap();
    let call = status_of_all();
    let bytes: &[u8] = call.data();
    let (mut sent, mut offset, mut stuck) = (0, 0, 0);
    let client = daemon.client().await;
    while sent < limit && stuck < PATIENCE {
        match stream.write(&bytes[offset..]) {
            Ok(written) => {
                (offset, stuck) = (offset + written, 0);
                if offset == bytes.len() {
                    (sent, offset) = (sent + 1, 0);
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                // Others are served meanwhile.
                assert_eq!(client.status(&["one".to_owned()]).await.unwrap()[0].id, "one@0");
                stuck += 1;
            }
            Err(error) => panic!("it was disconnected after {sent}: {error}"),
        }
    }
    sent
}

async fn until_closed(daemon: &Daemon, before: usize) {
    let deadline = Instant::now() + DEADLINE;
    while descriptors(daemon) > before {
        assert!(Instant::now() < deadline, "{} descriptors, {before} before", descriptors(daemon));
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_client_that_asks_and_never_reads_costs_little() {
    let daemon = Daemon::start(FIFTY);
    let names: Vec<String> = (0..50).map(|n| format!("many@{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let before = pids(&daemon.until_running(&names).await);
    // What an answer costs once stays with the allocator.
    for _ in 0..20 {
        daemon.status().await;
    }
    let (used, open) = (memory(&daemon), descriptors(&daemon));
    let mut peers = Vec::new();
    for _ in 0..2 {
        let mut peer = greeted(&daemon);
        let sent = flood(&daemon, &mut peer, CALLS).await;
        println!("{sent} calls were taken; {} KiB more", memory(&daemon).saturating_sub(used));
        peers.push(peer);
    }
    let grown = memory(&daemon).saturating_sub(used);
    assert!(grown < 16 * 1024, "{grown} KiB more");
    let client = daemon.client().await;
    let outcome = client.restart(&["one".to_owned()], |_| {}).await.unwrap();
    assert!(outcome[0].is_success(), "{outcome:?}");
    drop((peers, client));
    until_closed(&daemon, open).await;
    let after = pids(&daemon.status().await);
    assert!(before.iter().all(|(name, pid)| name == "one@0" || after.get(name) == Some(pid)));
}

#[tokio::test]
async fn ten_thousand_calls_that_do_not_wait_for_each_other_are_all_answered() {
    let daemon = Daemon::start(FIFTY);
    daemon.until_running(&["one@0", "many@49"]).await;
    let connection = connection(&daemon).await;
    let call = || connection.call_method(None::<&str>, ROOT, Some(MANAGER), "ListJobs", &());
    let round = async |count: usize| {
        let calls = join_all((0..count).map(|_| call()));
        let answers = tokio::time::timeout(DEADLINE * 3, calls).await.expect("all are answered");
        assert!(answers.iter().all(Result::is_ok));
    };
    round(CALLS).await;
    let used = memory(&daemon);
    let other = daemon.client().await;
    let asked = async {
        let mut asked = 0;
        while asked < 20 {
            other.status(&["one".to_owned()]).await.unwrap();
            asked += 1;
        }
    };
    futures_util::join!(round(CALLS), asked);
    let grown = memory(&daemon).saturating_sub(used);
    assert!(grown < 4096, "{grown} KiB more");
}

#[tokio::test]
async fn clients_that_leave_with_their_calls_unanswered_leave_nothing() {
    let daemon = Daemon::start(FIFTY);
    daemon.until_running(&["one@0", "many@49"]).await;
    daemon.status().await;
    let open = descriptors(&daemon);
    let call = status_of_all();
    let mut used = 0;
    for round in 0..200 {
        let mut peer = greeted(&daemon);
        for _ in 0..10 {
            peer.write_all(call.data()).unwrap();
        }
        // And half of one more.
        peer.write_all(&call.data()[..20]).unwrap();
        drop(peer);
        if round == 100 {
            until_closed(&daemon, open).await;
            used = memory(&daemon);
        }
    }
    until_closed(&daemon, open).await;
    let grown = memory(&daemon).saturating_sub(used);
    assert!(grown < 4096, "{grown} KiB more");
    assert_eq!(daemon.status().await["one@0"].state, "running");
}

#[tokio::test]
async fn a_hundred_followers_all_see_the_last_event() {
    let daemon = Daemon::start(FIFTY);
    daemon.until_running(&["one@0", "many@49"]).await;
    let (used, open) = (memory(&daemon), descriptors(&daemon));
    let followers = clients(&daemon, 100).await;
    let tail = followers[0].events_tail().await.unwrap();
    let mut streams = Vec::new();
    for follower in &followers {
        streams.push(follower.follow_events(Some(&tail)).await.unwrap());
    }
    let client = daemon.client().await;
    let storm = async {
        for _ in 0..20 {
            client.restart(&["one".to_owned()], |_| {}).await.unwrap();
        }
        // The word that all wait for.
        client.stop(&["many@0".to_owned()], |_| {}).await.unwrap();
    };
    let seen = join_all(streams.iter_mut().map(async |stream| {
        let mut seen = Vec::new();
        loop {
            let line = stream.next().await.unwrap();
            let is_last = line.kind == "stopped" && line.instance.as_deref() == Some("many@0");
            seen.push(line.message);
            if is_last {
                return seen;
            }
        }
    }));
    let both = async { futures_util::join!(storm, seen).1 };
    let seen = tokio::time::timeout(DEADLINE * 3, both).await.expect("all see it");
    assert!(seen[0].len() > 40 && seen.iter().all(|lines| *lines == seen[0]), "{seen:?}");
    let grown = memory(&daemon).saturating_sub(used);
    println!("{grown} KiB for 100 followers");
    assert!(grown < 64 * 1024, "{grown} KiB more");
    drop((streams, followers, client));
    until_closed(&daemon, open).await;
}
