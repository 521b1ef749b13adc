//! Killed over and over in a storm of reloads.

use super::{Draw, Group, can, entry, exactly, marker, pidfd, readable_within, was_doubled};
use crate::support::{Daemon, identities};
use std::fs;
use std::time::Duration;

/// As many processes; the first third is never touched.
const PROCESSES: u64 = 30;

/// `PROVOST_KILLS` says how often.
#[tokio::test]
async fn killed_two_hundred_times() {
    let times = std::env::var("PROVOST_KILLS").ok().and_then(|times| times.parse().ok());
    killed(times.unwrap_or(200), &[]).await;
}

#[tokio::test]
async fn killed_forty_times_with_control_groups() {
    let group = Group::new();
    if can("a cgroup2 file system", group.is_some()) {
        killed(40, &[("PROVOST_CGROUP", group.as_ref().unwrap().0.to_str().unwrap())]).await;
    }
}

async fn killed(times: u64, env: &[(&str, &str)]) {
    let mut draw = Draw::new();
    let marker = marker();
    let mut commands = vec![0; PROCESSES as usize];
    let file = |commands: &[u64]| {
        let entries = commands.iter().enumerate().map(|(n, command)| {
            // Some are not wanted.
            let name = format!("p{n:02}");
            match command % 7 {
                6 => String::new(),
                _ => entry(&name, &format!("{marker}{command}")),
            }
        });
        format!("processes:\n{}", entries.collect::<String>())
    };
    let mut daemon = Daemon::prepare(|dir| {
        let file = file(&commands).replace("@DIR@", dir.to_str().unwrap());
        fs::write(dir.join("processes.yaml"), file).unwrap();
    })
    .run_under(&[], env);
    let steady: Vec<String> = (0..PROCESSES / 3).map(|n| format!("p{n:02}@0")).collect();
    let steady: Vec<&str> = steady.iter().map(String::as_str).collect();
    let first = identities(&daemon.until_running(&steady).await);
    for round in 0..times {
        for _ in 0..1 + draw.below(3) {
            let moved = PROCESSES / 3 + draw.below(PROCESSES - PROCESSES / 3);
            commands[moved as usize] = draw.below(100);
            daemon.save(&file(&commands));
        }
        // It may be dead already, and then nobody is told.
        readable_within(&pidfd(daemon.pid()), Duration::from_micros(draw.below(120_000)));
        daemon = daemon.killed().again_under(&[], env);
        if round % 20 != 19 {
            continue;
        }
        let wanted: Vec<u64> = commands.iter().copied().filter(|c| c % 7 != 6).collect();
        daemon.notified("READY=1");
        let status = daemon
            .until("what the file says", |all| {
                let is_up =
                    |p: &provost::client::ProcessStatus| p.state == "running" && !p.needs_restart;
                all.len() == wanted.len() && all.values().all(is_up)
            })
            .await;
        exactly(&status);
        assert_eq!(was_doubled(&daemon), None, "round {round}");
        let now = identities(&status);
        for name in &steady {
            assert_eq!(first[*name], now[*name], "round {round}: {name} was moved");
        }
    }
    assert!(daemon.stop().success());
    assert_eq!(was_doubled(&daemon), None);
}
