//! With a real journald: what the daemon and its processes write, and how it is read.
#![allow(missing_docs, clippy::unwrap_used)]

use std::process::Command;

/// Runs a script beside a journald of its own, in a mount namespace of its own, and returns what it
/// printed. None where that cannot be had; under CI that is a failure.
fn with_journald(script: &str) -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "CI runs as root");
        eprintln!("skipped: a journald of one's own needs root");
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/journald");
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "--pid", "--fork", "--mount-proc"])
        .args(["--kill-child=KILL", "/bin/bash"])
        .args([&format!("{directory}/private"), "/bin/bash", &format!("{directory}/{script}")])
        .env("PROVOST", env!("CARGO_BIN_EXE_provost"))
        .env("PROVOSTD", env!("CARGO_BIN_EXE_provostd"))
        .env("DIR", dir.path())
        .output()
        .unwrap();
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{out}\n{err}", output.status);
    Some(out.into_owned())
}

/// The lines of a part of what a script printed.
fn section<'a>(out: &'a str, name: &str) -> Vec<&'a str> {
    let start = out.find(&format!("== {name}\n")).unwrap_or_else(|| panic!("{name}: {out}"));
    out[start..].lines().skip(1).take_while(|line| !line.starts_with("== ")).collect()
}

#[test]
fn what_is_written_while_the_journal_is_stopped_arrives_later_each_line_once() {
    let Some(out) = with_journald("stopped") else { return };
    let expected: Vec<String> = (0..=5000).map(|n| n.to_string()).collect();
    for name in ["direct", "both", "files of both", "followed", "followed in the file"] {
        let found = section(&out, name);
        assert!(found == expected, "{name}: {} lines, {:?}", found.len(), found.last());
    }
}

#[test]
fn the_daemon_and_its_processes_write_to_the_journal() {
    let Some(out) = with_journald("scenario") else { return };
    let section = |name: &str| section(&out, name);
    // A process's lines, under its own name, the last one of a short life included.
    assert_eq!(section("lines of web"), ["one", "two"]);
    assert_eq!(section("lines of brief"), ["last words"]);
    // The daemon's entries about it, found by its fields.
    let about = section("entries about web");
    assert!(about.iter().any(|line| line.contains("web@0: started as pid")), "{about:?}");
    assert!(about.iter().all(|line| line.contains("web@0")), "{about:?}");
    // Levels are syslog's: a failure is an error (3), a start is information (6).
    assert_eq!(section("priority of a failure"), ["3"]);
    assert_eq!(section("priority of a start"), ["6"]);
    // The command line reads it, though it is not in the daemon's hands.
    assert_eq!(section("provost logs web"), ["one", "two"]);
}
