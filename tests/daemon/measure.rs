//! What clients cost. Not tests: `cargo nextest run --test daemon --run-ignored only --no-capture
//! measure`.

use crate::support::Daemon;
use std::fmt::Write;
use std::time::{Duration, Instant};

/// The memory of a process, in KiB.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test]
#[ignore = "a measurement"]
async fn measure_a_connection_among_many() {
    for count in [0, 100, 1_000, 10_000] {
        let mut yaml = "processes:\n  one: { command: /bin/true, enabled: false }\n".to_owned();
        for n in 0..count {
            writeln!(yaml, "  p{n}: {{ command: /bin/true, enabled: false }}").unwrap();
        }
        let daemon = Daemon::start(&yaml);
        let mut times = Vec::new();
        for _ in 0..20 {
            let begin = Instant::now();
            let client = daemon.client().await;
            client.status(&["one".to_owned()]).await.unwrap();
            times.push(begin.elapsed());
        }
        times.sort();
        let before = resident(daemon.pid());
        let mut clients = Vec::new();
        for _ in 0..20 {
            clients.push(daemon.client().await);
        }
        for client in &clients {
            client.status(&["one".to_owned()]).await.unwrap();
        }
        let each = resident(daemon.pid()).saturating_sub(before) / 20;
        let median: Duration = times[times.len() / 2];
        println!(
            "{count} processes: {} µs to a first answer, {each} KiB a client",
            median.as_micros()
        );
    }
}

#[tokio::test]
#[ignore = "a measurement"]
async fn measure_the_status_of_all() {
    for count in [100, 500, 1_000] {
        let mut yaml = "processes:\n".to_owned();
        for n in 0..count {
            writeln!(yaml, "  p{n}: {{ command: sleep, args: [\"100000\"] }}").unwrap();
        }
        let daemon = Daemon::start(&yaml);
        daemon.until("all running", |all| all.values().all(|p| p.state == "running")).await;
        let client = daemon.client().await;
        for _ in 0..3 {
            let begin = Instant::now();
            let all = client.status(&[]).await.unwrap();
            assert_eq!(all.len(), count);
            println!("status of {count}: {} ms", begin.elapsed().as_millis());
        }
    }
}
