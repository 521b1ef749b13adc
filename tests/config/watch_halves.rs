//! A file that is saved in two halves, cut at every byte of it.

use crate::{Files, refused};
use provost::config::load::load_with;
use provost::config::watch::Watcher;
use provost::config::watch::settle::Settle;
use std::fs::File;
use std::io::Write;
use std::time::{Duration, Instant};

const TEXT: &str = "processes:\n  a: {command: x}\n  b:\n    command: y\n    env: {N: '1'}\n    nice: 12\n  keep: {command: z}\n";

/// What is in a file from when on, and what the kernel says of it.
struct Step<'t> {
    at: Duration,
    content: &'t str,
    closed: bool,
}

/// What is read, each time it is decided that it has settled.
fn reads<'t>(steps: &[Step<'t>]) -> Vec<&'t str> {
    let start = Instant::now();
    let mut settle = Settle::new(Duration::from_millis(100));
    let mut reads = Vec::new();
    let mut content = "";
    for step in steps {
        if settle.deadline().is_some_and(|deadline| deadline <= start + step.at) {
            settle.clear();
            reads.push(content);
        }
        content = step.content;
        match step.closed {
            true => settle.finished("p.yaml", start + step.at),
            false => settle.began("p.yaml", start + step.at),
        }
    }
    if settle.deadline().is_some() {
        reads.push(content);
    }
    reads
}

/// At every pace at which the whole is written within the five seconds that a busy file is waited for,
/// and nothing is waited for longer than two.
#[test]
fn only_the_whole_is_read_whatever_the_pace() {
    for cut in 0..=TEXT.len() {
        for pace in [0, 1, 50, 99, 100, 101, 500, 1_000, 1_600] {
            let at = |n: u64| Duration::from_millis(n * pace);
            let step = |n, content, closed| Step { at: at(n), content, closed };
            let read = reads(&[
                step(0, "", false),
                step(1, &TEXT[..cut], false),
                step(2, TEXT, false),
                step(3, TEXT, true),
            ]);
            assert_eq!(read, [TEXT], "cut at {cut}, a step each {pace} ms");
        }
    }
}

/// Why that matters: many halves are valid, and say that a process is to be stopped.
#[test]
fn halves_are_valid_and_say_something_else() {
    let files = Files::new();
    let location = files.location("processes.yaml");
    let keeps = |text: &str| {
        let loaded = load_with(&location, Some(text.into()));
        let refused = refused(&loaded);
        loaded.config.map(|config| config.processes.len() == 3).filter(|_| !refused)
    };
    assert_eq!(keeps(TEXT), Some(true));
    let harmful = (0..TEXT.len()).filter(|cut| keeps(&TEXT[..*cut]) == Some(false)).count();
    assert!(harmful > 20, "{harmful}");
    // The worst of them: one that says nothing at all.
    assert_eq!(keeps(""), None);
    assert_eq!(keeps("processes:\n"), None);
}

/// With real files and a real watch, as fast as they come.
#[tokio::test]
async fn only_the_whole_is_read_of_real_files() {
    let files = Files::new().with("p.yaml", TEXT);
    let path = files.path("p.yaml");
    let mut watcher = Watcher::new(Duration::from_millis(20));
    let deadline = Duration::from_secs(30);
    watcher.rewatch(std::slice::from_ref(&path), &files.path("processes.d")).await;
    tokio::time::timeout(deadline, watcher.changed()).await.unwrap();
    for cut in 0..=TEXT.len() {
        let mut file = File::create(&path).unwrap();
        let (mut before, mut rest) = (false, &TEXT.as_bytes()[..cut]);
        loop {
            tokio::select! {
                biased;
                _ = watcher.changed() => break,
                () = tokio::task::yield_now() => {
                    file.write_all(rest).unwrap();
                    if before {
                        break;
                    }
                    (before, rest) = (true, &TEXT.as_bytes()[cut..]);
                }
            }
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), TEXT, "read when cut at {cut}");
        drop(file);
        tokio::time::timeout(deadline, watcher.changed()).await.unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), TEXT, "read when cut at {cut}");
    }
}
