//! What the systemd backend costs beside systemd itself: `make bench-systemd`, as root. In containers
//! with systemd as the first process (Debian 13 and 12) the same child is started by bare calls of
//! `StartTransientUnit` and by a daemon, in turns, so what is beside each number is of the same run.
//!
//! The bare calls go over systemd's private socket, with no more properties than a process needs to
//! run; at most 64 are in flight, each until its job is over.
//!
//! `PROVOST_BENCH_IDLE` is how many seconds idling is watched (60); `cargo bench --bench systemd --
//! NAME...` measures only on `trixie` or `bookworm`, and only these parts: one, many.

#![allow(clippy::unwrap_used, reason = "a measurement that cannot be made shall say so and end")]

#[path = "../supervision/ground.rs"]
#[allow(dead_code, reason = "shared with the benchmark of the native backend")]
mod ground;
#[path = "../../tests/machine/image.rs"]
#[allow(dead_code, reason = "shared with the tests of the package")]
mod image;
mod inside;
#[path = "../../tests/machine/machine.rs"]
#[allow(dead_code, reason = "shared with the tests of the package")]
mod machine;
#[path = "../supervision/table.rs"]
mod table;

use ground::Ground;
use image::Debian;
use machine::Machine;
use std::fs;
use std::process::Stdio;

/// What machines are given: the programs, as they are.
mod package {
    use std::path::{Path, PathBuf};

    #[allow(clippy::unnecessary_wraps, reason = "as the tests of the package have it")]
    pub fn package() -> Option<PathBuf> {
        Path::new(env!("CARGO_BIN_EXE_provost-log")).parent().map(Path::to_owned)
    }
}

fn cannot<T>(why: &str) -> Option<T> {
    eprintln!("not measured: {why}");
    None
}

/// The word by which the program knows that it is in a machine.
const INSIDE: &str = "inside";

#[tokio::main(flavor = "current_thread")]
async fn main() {
    // cargo test --all-targets comes by here too.
    if !std::env::args().any(|arg| arg == "--bench") {
        return;
    }
    let named: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    if let Some((first, parts)) = named.split_first()
        && first == INSIDE
    {
        inside::measure(parts).await;
        return;
    }
    let all = [("trixie", Debian::Trixie), ("bookworm", Debian::Bookworm)];
    let (systems, parts): (Vec<&String>, Vec<&String>) =
        named.iter().partition(|name| all.iter().any(|(system, _)| system == name));
    for (name, debian) in all {
        if systems.is_empty() || systems.iter().any(|wanted| *wanted == name) {
            on(name, debian, &parts);
        }
    }
}

/// Has these parts measured in a machine of this kind; all of them where none is named.
fn on(name: &str, debian: Debian, parts: &[&String]) {
    let Some(machine) = Machine::booted(debian) else { return };
    // There is no compiler inside.
    let ground = Ground::new();
    let child = fs::File::open(&ground.child).unwrap();
    let mut copy = machine.command(&format!("cat >{0}; chmod 755 {0}", inside::CHILD));
    assert!(copy.stdin(Stdio::from(child)).status().unwrap().success());
    // Programs know each other by where they were built.
    let built = package::package().unwrap();
    let (built, parent) = (built.display(), built.parent().unwrap().display());
    let version = machine.run(&format!(
        "mkdir -p {parent}; ln -s /package {built}; systemctl --version | head -n 1"
    ));
    println!("{name}, {}", version.trim());
    let program = std::env::current_exe().unwrap();
    let program = program.file_name().unwrap().to_str().unwrap();
    let seconds = ground::setting(inside::IDLE.0, inside::IDLE.1);
    let mut line = format!("{}={seconds} /package/deps/{program} --bench {INSIDE}", inside::IDLE.0);
    for part in parts {
        line.push_str(&format!(" {part}"));
    }
    let mut measured = machine.command_within(&line, ground::PATIENCE);
    assert!(measured.status().unwrap().success(), "{name}");
    println!();
}
