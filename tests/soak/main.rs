//! The random hour: the real daemon, real processes, random edits of the files, random commands,
//! random deaths; and after every step, a look from outside at whether what runs is what the files
//! and the operator say, whether anything was doubled, and whether anything else moved.
//!
//! `PROVOST_SOAK_SECONDS` says how long (a minute), `PROVOST_SOAK_SEED` how it begins,
//! `PROVOST_SOAK_VERBOSE` shows each step. `PROVOST_SOAK_SURVIVAL` also kills the daemon.
//!
//! - `model` is what is expected, written from the manual; read that first;
//! - `file` is what the files say, `draw` changes it by chance, `yaml` writes it down, `disk` saves
//!   it in the ways that editors have;
//! - `steps` is what can be done, `soak` does and judges it;
//! - `outside` sees without asking the daemon: /proc, ports, and what `fixture.c` tells of itself:
//!   every run tells of its birth, and of a twin that still holds the lock of its instance.

mod daemon;
mod disk;
mod draw;
mod file;
mod model;
mod outside;
mod rng;
mod soak;
mod steps;
mod yaml;

use draw::Draw;
use file::{Ground, open_dir};
use soak::Soak;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// A place for one soak.
fn ground(dir: &Path, seed: u64) -> Ground {
    for name in ["", "processes.d", "env", "d0", "d1", "locks", "logs", "pids"] {
        open_dir(&dir.join(name));
    }
    let address =
        format!("127.{}.{}.{}", 1 + seed % 250, 1 + (seed >> 8) % 250, 1 + (seed >> 16) % 250);
    let fixture = dir.join("fixture");
    let text = |name: &str, value: &str| format!("-D{name}=\"{value}\"");
    let built = Command::new("cc")
        .args(["-O1", "-o"])
        .arg(&fixture)
        .arg(text("LOCKS", dir.join("locks").to_str().unwrap()))
        .arg(text("SOCKET", dir.join("births").to_str().unwrap()))
        .arg(text("ADDRESS", &address))
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/soak/fixture.c"))
        .status()
        .unwrap();
    assert!(built.success(), "the fixture is not built");
    let token = format!("soak-{}-{seed:x}", std::process::id());
    Ground { dir: dir.to_owned(), fixture, token, address, split: seed % 3 == 0 }
}

#[tokio::test]
#[ignore = "takes as long as it is given: make soak"]
async fn the_random_hour() {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64;
    let seed = number("PROVOST_SOAK_SEED").unwrap_or(now);
    let end = Instant::now() + Duration::from_secs(number("PROVOST_SOAK_SECONDS").unwrap_or(60));
    println!("PROVOST_SOAK_SEED={seed}");
    let dir = tempfile::tempdir().unwrap();
    let root = nix::unistd::Uid::effective().is_root();
    let canary = format!("canary{:08x}", seed as u32);
    let draw = Draw::new(seed, root, canary);
    let mut soak = match Soak::begin(ground(dir.path(), seed), draw).await {
        Ok(soak) => soak,
        Err(error) => panic!("seed {seed}, at the start: {error}"),
    };
    let at_first = outside::cost(soak.daemon.child.id());
    while Instant::now() < end {
        if let Err(error) = soak.step().await {
            panic!("seed {seed}: {error}\n{}", soak.report());
        }
    }
    let cost = outside::cost(soak.daemon.child.id());
    println!("{} steps; {at_first:?} at first, {cost:?} in the end", soak.steps);
    if let Err(error) = soak.search_all() {
        panic!("seed {seed}: {error}\n{}", soak.report());
    }
    if let Err(error) = soak.end().await {
        panic!("seed {seed}: {error}\n{}", soak.report());
    }
}
