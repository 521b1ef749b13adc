//! Reload requests from all sides at once.

use crate::common::waiting::DEADLINE;
use crate::outside::{clients, connection, memory};
use crate::support::{Daemon, pids};
use futures_util::StreamExt;
use futures_util::future::join_all;
use nix::sys::signal::Signal;
use provost::client::{Client, ClientError, ReloadOptions};
use std::cell::Cell;
use tokio::sync::oneshot;
use zbus::MessageStream;

const CLIENTS: usize = 8;
const EACH: usize = 125;

/// The number is in the description, which is taken in without a restart.
fn file(number: u64) -> String {
    format!("processes: {{ a: {{ description: 'number {number}', shell: exec sleep 1000 }} }}")
}

fn number(description: &str) -> u64 {
    description.strip_prefix("number ").unwrap().parse().unwrap()
}

/// Saves the file and asks for it to be read: the answer is about that file or a newer one.
async fn ask(daemon: &Daemon, client: &Client, next: &Cell<u64>) {
    let saved = next.get() + 1;
    next.set(saved);
    daemon.save(&file(saved));
    if saved.is_multiple_of(20) {
        daemon.signal(Signal::SIGHUP);
    }
    let summary = loop {
        match client.reload(&ReloadOptions::default()).await {
            Ok(summary) => break summary,
            // Somebody else saved while it was read, and again: nothing was taken, and it is said.
            Err(ClientError::ConfigInvalid(text)) if text.contains("error[changing]") => {}
            Err(error) => panic!("{error:?}"),
        }
    };
    let words = ["applied", "unchanged", "superseded"];
    assert!(words.contains(&summary.result.as_str()), "{summary:?}");
    let active = client.status(&["a".to_owned()]).await.unwrap().remove(0);
    assert!(number(&active.description) >= saved, "{} after {saved}", active.description);
    assert!(active.generation >= summary.generation, "{} {summary:?}", active.generation);
}

async fn round(daemon: &Daemon, clients: &[Client], next: &Cell<u64>) {
    let calls = clients.iter().flat_map(|client| (0..EACH).map(move |_| ask(daemon, client, next)));
    tokio::time::timeout(DEADLINE * 3, join_all(calls)).await.expect("all are answered");
}

/// Counts the ends of reads until it is told to stop: each is told once, when somebody asked for it or
/// something changed.
async fn count(mut told: MessageStream, mut until: oneshot::Receiver<()>) -> usize {
    let mut count = 0;
    loop {
        tokio::select! {
            biased;
            message = told.next() => {
                let message = message.unwrap().unwrap();
                let header = message.header();
                count += usize::from(header.member().is_some_and(|m| m.as_str() == "ReloadFinished"));
            }
            _ = &mut until => return count,
        }
    }
}

#[tokio::test]
async fn a_thousand_requests_need_few_reads_and_each_gets_an_answer_that_covers_it() {
    let daemon = Daemon::start(&file(0));
    let before = pids(&daemon.until_running(&["a@0"]).await);
    let clients = clients(&daemon, CLIENTS).await;
    let next = Cell::new(0);
    // The first thousand fills what is kept of the past and has its bounds.
    round(&daemon, &clients, &next).await;
    let generation = clients[0].manager().await.unwrap().generation;
    let used = memory(&daemon);
    let told = MessageStream::from(&connection(&daemon).await);
    let (done, until) = oneshot::channel();
    let asking = async {
        round(&daemon, &clients, &next).await;
        done.send(()).unwrap();
    };
    let ((), reads) = futures_util::join!(asking, count(told, until));
    let last = clients[0].manager().await.unwrap().generation;
    assert!(last > generation, "nothing was applied");
    // One is under way and one is due, and everybody who asks meanwhile is in the one that is due.
    let requests = CLIENTS * EACH;
    assert!(reads < requests / 2, "{reads} reads for {requests} requests");
    // The allocator keeps what the worst moment needed. What grows with the requests grows each time.
    let mut grown = vec![memory(&daemon).saturating_sub(used)];
    while grown.len() < 4 && grown.iter().all(|grown| *grown >= 512) {
        let used = memory(&daemon);
        round(&daemon, &clients, &next).await;
        grown.push(memory(&daemon).saturating_sub(used));
    }
    assert!(grown.iter().any(|grown| *grown < 512), "{grown:?} KiB more after {requests} requests");
    assert_eq!(pids(&daemon.status().await), before);
    println!("{reads} reads, {} generations, {grown:?} KiB more", last - generation);
}
