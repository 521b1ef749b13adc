//! What comes of reading was in all files at one moment, or it is refused.

use crate::{Files, good, refused};
use provost::config::load::Loaded;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};

/// Loads while something happens, until `enough` of what was loaded was good.
fn while_it_happens(
    files: &Files,
    happens: impl Fn(usize) + Sync,
    enough: usize,
    look: impl Fn(&Loaded),
) {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0.. {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                happens(n);
            }
        });
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut left = enough;
            while left > 0 {
                let loaded = files.load("p.yaml");
                if refused(&loaded) {
                    let known = |code| ["changing", "unreadable", "env-file"].contains(&code);
                    let codes: Vec<_> = loaded.diagnostics.iter().map(|d| d.code).collect();
                    assert!(codes.iter().all(|code| known(code)), "{codes:?}");
                    assert!(codes.contains(&"changing"), "{codes:?}");
                } else {
                    look(&loaded);
                    left -= 1;
                }
            }
        }));
        over.store(true, Ordering::Relaxed);
        result.unwrap();
    });
}

/// A file, its environment file and its drop-in, all swapped at once, as often as can be.
#[test]
fn files_that_are_swapped_are_of_one_version() {
    let text = |version: &str| {
        format!("processes:\n  a: {{command: [x, {version}, '${{V}}'], envFile: e.env}}\n")
    };
    let mut files = Files::new();
    for version in ["v0", "v1"] {
        files = files
            .with(&format!("{version}/p.yaml"), text(version))
            .with(&format!("{version}/e.env"), format!("V={version}\n"))
            .with(
                &format!("{version}/processes.d/b.yaml"),
                format!("processes: {{b: {{command: [x, {version}]}}}}\n"),
            );
    }
    symlink("v0", files.path("data")).unwrap();
    for name in ["p.yaml", "e.env", "processes.d"] {
        symlink(format!("data/{name}"), files.path(name)).unwrap();
    }
    let swap = |n: usize| {
        symlink(format!("v{}", n % 2), files.path("new")).unwrap();
        fs::rename(files.path("new"), files.path("data")).unwrap();
        // Some of it is read between two swaps.
        for _ in 0..n % 50 {
            std::thread::yield_now();
        }
    };
    let versions = [0, 1].map(|n| {
        swap(n);
        good(&files.load("p.yaml"))
    });
    assert_ne!(versions[0], versions[1]);
    while_it_happens(&files, swap, 300, |loaded| {
        let config = good(loaded);
        assert!(versions.contains(&config), "a mixture: {:?}", config.processes);
    });
}

#[test]
fn a_file_that_grows_while_it_is_read() {
    let files = Files::new().with("p.yaml", "processes:\n  p0: {command: x}\n");
    let file = OpenOptions::new().append(true).open(files.path("p.yaml")).unwrap();
    // Each write is a whole line: what is read at any moment is valid.
    let grow = |n: usize| {
        if n < 1_000 {
            let line = format!("  p{}: {{command: x}}\n", n + 1);
            (&file).write_all(line.as_bytes()).unwrap();
        }
    };
    while_it_happens(&files, grow, 20, |loaded| {
        let config = good(loaded);
        for n in 0..config.processes.len() {
            let id = provost::core::ids::ProcessId::new(&format!("p{n}")).unwrap();
            assert!(config.processes.contains_key(&id), "p{n} of {}", config.processes.len());
        }
    });
}

/// Half of a file can be valid. Who has it open and wrote to it just now may not be done.
#[test]
fn what_somebody_is_writing_is_said_to_be_unfinished() {
    let files = Files::new()
        .with("p.yaml", "processes: {a: {command: x, envFile: e.env}}\n")
        .with("e.env", "A=1\n");
    let unfinished = || files.load("p.yaml").unfinished;
    assert_eq!(unfinished(), None);
    for name in ["p.yaml", "e.env"] {
        let mut writer = OpenOptions::new().append(true).open(files.path(name)).unwrap();
        writer.write_all(b"# more\n").unwrap();
        assert_eq!(unfinished(), Some(files.path(name)));
        drop(writer);
        assert_eq!(unfinished(), None);
    }
    // By whichever way it is reached.
    symlink(files.path("p.yaml"), files.path("link.yaml")).unwrap();
    let mut writer = OpenOptions::new().append(true).open(files.path("p.yaml")).unwrap();
    writer.write_all(b"# more\n").unwrap();
    assert_eq!(files.load("link.yaml").unfinished, Some(files.path("link.yaml")));
}

/// Somebody holds it open and has rested: he may do so for ever.
#[test]
fn what_was_not_written_to_for_long_is_not_unfinished() {
    let files = Files::new().with("p.yaml", "processes: {a: {command: x}}\n");
    let _idle = OpenOptions::new().append(true).open(files.path("p.yaml")).unwrap();
    let deadline = std::time::Instant::now() + crate::common::waiting::DEADLINE;
    while files.load("p.yaml").unfinished.is_some() {
        assert!(std::time::Instant::now() < deadline);
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert!(good(&files.load("p.yaml")).processes.len() == 1);
}
