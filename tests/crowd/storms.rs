//! Five hundred processes that crash as fast as they may, and somebody who wants to know.

use crate::common::waiting::DEADLINE;
use crate::outside::median;
use crate::support::Daemon;
use provost::client::{Client, ProcessStatus, Verb};
use std::time::{Duration, Instant};

/// The rate at which they crash is the machine's own; without optimisation fewer do.
const STORM: usize = if cfg!(debug_assertions) { 150 } else { 500 };

fn file() -> String {
    let half = STORM / 2;
    format!(
        "processes:
  calm: {{ shell: exec sleep 1000 }}
  fast: {{ command: /bin/false, instances: {half}, restartPolicy: {{ delay: 0, maxDelay: 100ms }} }}
  slow: {{ command: /bin/false, instances: {half}, restartPolicy: {{ delay: 100ms, maxDelay: 100ms }} }}
"
    )
}

fn restarts(all: &[ProcessStatus]) -> u64 {
    all.iter().map(|process| u64::from(process.restarts)).sum()
}

async fn all(client: &Client) -> Vec<ProcessStatus> {
    let all = tokio::time::timeout(DEADLINE, client.status(&[])).await.expect("it is answered");
    all.unwrap()
}

async fn calm(client: &Client) -> Duration {
    let begun = Instant::now();
    let names = ["calm".to_owned()];
    let one = tokio::time::timeout(DEADLINE, client.status(&names)).await.expect("it is answered");
    assert_eq!(one.unwrap()[0].state, "running");
    begun.elapsed()
}

/// Starts, stops and restarts of all that crash, until it is dropped.
async fn contradict(client: Client) {
    let names = ["fast@*".to_owned(), "slow@*".to_owned()];
    loop {
        for verb in [Verb::Restart, Verb::Stop, Verb::Start { once: false }] {
            client.submit(verb, &names).await.unwrap();
        }
    }
}

async fn stormy() -> Daemon {
    let daemon = Daemon::start(&file());
    daemon.until("crashing", |all| restarts_of(all) >= STORM as u64).await;
    daemon
}

fn restarts_of(all: &crate::support::Status) -> u64 {
    all.values().map(|process| u64::from(process.restarts)).sum()
}

/// While one question is answered, each of them crashes about once and no more: however fast the
/// machine is, nobody waits for more than a turn of each.
#[tokio::test]
async fn a_question_is_answered_within_a_turn_of_each_that_crashes() {
    let daemon = stormy().await;
    let client = daemon.client().await;
    let mut between = Vec::new();
    let mut last = restarts(&all(&client).await);
    for _ in 0..9 {
        calm(&client).await;
        let now = restarts(&all(&client).await);
        between.push(now - last);
        last = now;
    }
    let middle = median(between.clone());
    assert!(middle <= 2 * STORM as u64, "{between:?}");
    println!("restarts from one answer to the next: {between:?}");
}

#[tokio::test]
async fn questions_are_answered_while_all_is_started_and_stopped() {
    let daemon = stormy().await;
    let client = daemon.client().await;
    let storm = tokio::spawn(contradict(daemon.client().await));
    for _ in 0..5 {
        calm(&client).await;
        assert_eq!(all(&client).await.len(), STORM + 1);
    }
    assert!(!storm.is_finished());
    storm.abort();
    // At rest the last word holds.
    let names = ["fast@*".to_owned(), "slow@*".to_owned()];
    let ended = client.stop(&names, |_| {}).await.unwrap();
    assert!(ended.iter().all(provost::client::JobOutcome::is_success));
    daemon
        .until("all are down", |all| {
            all.iter().all(|(name, process)| name == "calm@0" || process.state == "down")
        })
        .await;
}

fn shown(mut took: Vec<Duration>) -> String {
    took.sort_unstable();
    format!("median {:?}, worst {:?}", took[took.len() / 2], took[took.len() - 1])
}

async fn measure(what: &str, client: &Client) {
    let (mut one, mut every) = (Vec::new(), Vec::new());
    for _ in 0..50 {
        one.push(calm(client).await);
        let begun = Instant::now();
        all(client).await;
        every.push(begun.elapsed());
    }
    println!("{what}: Status of one {}; of all {}", shown(one), shown(every));
}

/// The numbers: `make measure`.
#[tokio::test]
#[ignore = "measures; `make measure` runs it in release mode"]
async fn measure_the_answers_in_a_storm() {
    let daemon = stormy().await;
    let client = daemon.client().await;
    measure("500 crash", &client).await;
    let storm = tokio::spawn(contradict(daemon.client().await));
    measure("500 are started and stopped", &client).await;
    storm.abort();
    let names = ["fast@*".to_owned(), "slow@*".to_owned()];
    client.stop(&names, |_| {}).await.unwrap();
    measure("500 are down", &client).await;
}
