//! The random hour: the real daemon, real processes, random edits of the files, random commands,
//! random deaths; and after every step, a look from outside at whether what runs is what the files
//! and the operator say, whether anything was doubled, and whether anything else moved.
//!
//! `PROVOST_SOAK_SECONDS` says how long (a minute), `PROVOST_SOAK_SEED` how it begins,
//! `PROVOST_SOAK_VERBOSE` shows each step. `PROVOST_SOAK_SURVIVAL=0` spares the daemon.
//!
//! - `model` is what is expected, written from the manual; read that first;
//! - `file` is what the files say, `draw` changes it by chance, `yaml` writes it down, `disk` saves
//!   it in the ways that editors have;
//! - `steps` is what can be done, `soak` does and judges it;
//! - `outside` sees without asking the daemon: /proc, ports, and what `fixture.c` tells of itself:
//!   every run tells of its birth, and of a twin that still holds the lock of its instance.

#![allow(missing_docs, clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;
mod daemon;
mod disk;
mod draw;
mod file;
mod model;
mod outside;
mod soak;
mod steps;
mod yaml;

use draw::Draw;
use file::{Ground, open_dir};
use soak::Soak;
use std::collections::BTreeSet;
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
    Ground { dir: dir.to_owned(), fixture, token, address, split: seed.is_multiple_of(3) }
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
    for judged in [soak.judge_cost(), soak.search_all()] {
        if let Err(error) = judged {
            panic!("seed {seed}: {error}\n{}", soak.report());
        }
    }
    if let Err(error) = soak.end().await {
        panic!("seed {seed}: {error}\n{}", soak.report());
    }
}

/// Keys that no file of a soak has: what is told by the process itself, what is held for it, and what
/// there is on systemd alone. Fixtures that speak and listen on sockets that they are given are in
/// `tests/native` and `tests/conformance`.
const NOT_DRAWN: &[&str] = &[
    "hooks",
    "onApplied",
    "onRejected",
    "onRolledBack",
    "notify",
    "sockets",
    "listen",
    "mode",
    "sandbox",
    "systemd",
];

/// All keys that a schema knows, but for those of features that are not there yet.
fn keys(schema: &serde_json::Value, found: &mut BTreeSet<String>) {
    let serde_json::Value::Object(object) = schema else { return };
    for (key, value) in
        object.get("properties").and_then(|all| all.as_object()).into_iter().flatten()
    {
        if key != "<<" && value.get("type").is_none_or(|kind| kind != "null") {
            found.insert(key.clone());
        }
    }
    // What is in that are properties of units.
    for (_, value) in object.iter().filter(|(name, _)| *name != "systemd") {
        keys(value, found);
    }
}

#[test]
fn every_key_is_drawn() {
    let output = Command::new(env!("CARGO_BIN_EXE_provost")).arg("schema").output().unwrap();
    let mut wanted = BTreeSet::new();
    keys(&serde_json::from_slice(&output.stdout).unwrap(), &mut wanted);
    assert!(wanted.len() > 50, "{wanted:?}");
    let mut written = String::new();
    for split in [false, true] {
        let mut draw = Draw::new(1, true, "secret".to_owned());
        let mut files = draw.files();
        let text = String::from("/x");
        let (dir, fixture) = (text.clone().into(), text.clone().into());
        let ground = Ground { dir, fixture, token: text.clone(), address: text, split };
        for _ in 0..1_000 {
            draw.change(&mut files);
            written.extend(yaml::render(&files, &ground, &mut draw.rng).into_values());
        }
    }
    wanted
        .retain(|key| !written.contains(&format!("{key}:")) && !NOT_DRAWN.contains(&key.as_str()));
    assert!(
        wanted.is_empty(),
        "the schema has {wanted:?}: teach `draw` and `yaml`, or say in NOT_DRAWN why not"
    );
}
