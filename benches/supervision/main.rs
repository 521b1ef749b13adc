//! What supervision costs: `make bench`. Each number stands beside the physical limit measured in
//! the same run: the same child by a bare vfork and exec (`bare.c`), the wake of a pidfd, the bare
//! parse of the same file. `child.c` is freestanding and says when its first instruction ran.
//!
//! `PROVOST_BENCH_IDLE` is how many seconds idling is watched (60), `PROVOST_BENCH_MANY` the largest
//! number of processes (10000); `cargo bench -- NAME...` measures only these parts: one, thousand,
//! groups, edits, sizes, idle, lines, peers. With `PROVOST_BENCH_PEERS=1`, as root on Debian, other supervisors
//! are installed and measured too.

#![allow(clippy::unwrap_used, reason = "a measurement that cannot be made shall say so and end")]

mod ground;
mod peers;
mod table;

use ground::{Daemon, Ear, Ground, memory, now, setting};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use provost::client::{ReloadOptions, Verb};
use std::fs::{self, File};
use std::io::Read;
use std::process::{Command, Stdio};
use std::time::Duration;
use table::{Spread, Table, span};

/// As the file has it.
const DEBOUNCE: u64 = 100_000_000;

fn all() -> Vec<String> {
    vec!["p*".to_owned()]
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    // cargo test --all-targets comes by here too.
    if !std::env::args().any(|arg| arg == "--bench") {
        return;
    }
    facts();
    let mut ground = Ground::new();
    let table = Table::begin();
    let bare = Bare::of(&ground);
    // Without names of parts, all of them.
    let named: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let wants = |part: &str| named.is_empty() || named.iter().any(|name| name == part);
    if wants("one") {
        one(&ground, &table, &bare).await;
    }
    if wants("thousand") {
        thousand(&ground, &table).await;
    }
    if wants("groups") && ground.make_group() {
        table.row("**each in a control group of its own:**", "", "", "", "", "");
        one(&ground, &table, &bare).await;
        thousand(&ground, &table).await;
        ground.drop_group();
        table.row("**without control groups again:**", "", "", "", "", "");
    }
    let most = setting("PROVOST_BENCH_MANY", 10_000);
    for (count, goal) in [(1_000, "15 ms"), (10_000, "60 ms")] {
        if count <= most && wants("edits") {
            edits(&ground, &table, count, goal).await;
        }
    }
    if wants("sizes") {
        sizes(&ground, &table, most).await;
    }
    if wants("idle") {
        idle(&ground, &table).await;
    }
    if wants("lines") {
        lines(&ground, &table).await;
    }
    if wants("peers") && std::env::var_os("PROVOST_BENCH_PEERS").is_some_and(|on| on == "1") {
        peers::measure(&ground, &table, bare.spawn, bare.wake);
    }
}

/// What one process costs without a supervisor, in nanoseconds. Measured while nobody listens.
struct Bare {
    spawn: u64,
    /// Another process is asked for it: a wake, which where nothing else runs is that of a processor.
    asked: u64,
    wake: u64,
}

impl Bare {
    fn of(ground: &Ground) -> Bare {
        let median = |what| Spread::of(ground.bare(what, 1000)).median;
        Bare { spawn: median("spawn"), asked: median("asked"), wake: median("wake") }
    }
}

/// Where and when.
fn facts() {
    let run = |program: &str, args: &[&str]| {
        let output = Command::new(program).args(args).output();
        output.map_or_else(
            |_| String::new(),
            |out| String::from_utf8_lossy(&out.stdout).trim().to_owned(),
        )
    };
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(" unknown");
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("{}, Linux {}", run("date", &["-u", "+%Y-%m-%d %H:%M UTC"]), run("uname", &["-r"]));
    println!("{} processors,{}", run("nproc", &[]), model.replace([':', '\t'], ""));
    println!("load at the start: {}\n", load.trim());
}

/// One process, alone.
async fn one(ground: &Ground, table: &Table, bare: &Bare) {
    let ear = ground.listen();
    let daemon = Daemon::start(ground, &ground.yaml(1, None, ""), Stdio::null()).await;
    ear.next();
    let name = vec!["p00000".to_owned()];
    let mut times = Vec::new();
    for _ in 0..300 {
        daemon.client.stop(&name, |_| {}).await.unwrap();
        // Answered after all that came before.
        daemon.status(&name[0]).await;
        let begin = now();
        let job = daemon.client.submit(Verb::Start { once: false }, &name);
        let (job, first) = (job.await, ear.next());
        job.unwrap();
        times.push(first.at - begin);
        daemon.settled().await;
    }
    let times = Spread::of(times);
    table.time("start, over the private socket", times, Some(("vfork+exec", bare.spawn)), "2.5");
    let limit = Some(("vfork+exec by whom a byte asks", bare.asked));
    table.time("the same, beside a bare one that is asked", times, limit, "");

    let provost = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_provost"));
        command.arg("--socket").arg(&daemon.socket).args(args).stdout(Stdio::null());
        assert!(command.status().unwrap().success());
    };
    let (mut times, mut empty) = (Vec::new(), Vec::new());
    for _ in 0..100 {
        daemon.client.stop(&name, |_| {}).await.unwrap();
        let begin = now();
        provost(&["start", "p00000"]);
        times.push(ear.next().at - begin);
        let begin = now();
        provost(&["--version"]);
        empty.push(now() - begin);
    }
    let limit = Some(("provost --version", Spread::of(empty).median));
    table.time("start, by command line", Spread::of(times), limit, "");

    let mut times = Vec::new();
    let mut pid = daemon.status("p00000").await.pid.unwrap();
    for _ in 0..300 {
        let begin = now();
        kill(Pid::from_raw(pid as i32), Signal::SIGKILL).unwrap();
        let next = ear.next();
        times.push(next.at - begin);
        pid = next.pid;
        // So that the next crash finds a run that was ready.
        while daemon.status("p00000").await.state != "running" {}
    }
    table.time(
        "crash to replacement",
        Spread::of(times),
        Some(("kill+wake+spawn", bare.wake)),
        "1.5",
    );
    let mut times = Vec::new();
    for _ in 0..100 {
        let begin = now();
        daemon.client.status(&[]).await.unwrap();
        times.push(now() - begin);
    }
    table.time("status of one", Spread::of(times), None, "");
    daemon.end();
    ground.deafen(ear);
}

/// A thousand, up and down.
async fn thousand(ground: &Ground, table: &Table) {
    let bare: Vec<Vec<u64>> = (0..5).map(|_| ground.bare("many", 1000)).collect();
    let limit = |at: usize| Spread::of(bare.iter().map(|both| both[at]).collect()).median;
    let ear = ground.listen();
    let daemon = Daemon::start(ground, &ground.yaml(1000, None, ""), Stdio::null()).await;
    ear.last(1000);
    daemon.settled().await;
    let (mut up, mut down) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let begin = now();
        daemon.client.stop(&all(), |_| {}).await.unwrap();
        down.push(now() - begin);
        let begin = now();
        daemon.client.submit(Verb::Start { once: false }, &all()).await.unwrap();
        up.push(ear.last(1000) - begin);
        daemon.settled().await;
    }
    table.time("1,000 up", Spread::of(up), Some(("bare loop", limit(0))), "2.5");
    table.time("1,000 down", Spread::of(down), Some(("bare loop", limit(1))), "2");
    let mut times = Vec::new();
    for _ in 0..11 {
        let begin = now();
        daemon.client.status(&[]).await.unwrap();
        times.push(now() - begin);
    }
    table.time("status of 1,000", Spread::of(times), None, "100 ms");
    daemon.end();
    ground.deafen(ear);
}

/// Only parses.
fn parse(text: &str) -> u64 {
    let begin = now();
    let events = granit_parser::Parser::new_from_str(text).filter(Result::is_ok).count();
    assert!(events > 0);
    now() - begin
}

/// One entry changed, and nothing changed, among many.
async fn edits(ground: &Ground, table: &Table, count: usize, goal: &str) {
    let ear = ground.listen();
    let text = ground.yaml(count, None, "");
    let daemon = Daemon::start(ground, &text, Stdio::null()).await;
    ear.last(count);
    daemon.settled().await;
    let (mut times, mut syncs) = (Vec::new(), Vec::new());
    for round in 0..11 {
        let changed = (round % 2 == 0).then_some(count / 2);
        let begin = ground.save(&ground.yaml(count, changed, ""));
        times.push((ear.next().at - begin).saturating_sub(DEBOUNCE));
        daemon.settled().await;
        let begin = now();
        File::open(ground.file()).unwrap().sync_all().unwrap();
        syncs.push(now() - begin);
    }
    let parsed = Spread::of((0..11).map(|_| parse(&text)).collect()).median;
    let what = format!("one of {count} changed, rename to first instruction, less debounce");
    table.time(&what, Spread::of(times), Some(("bare parse", parsed)), goal);
    let what = format!("fsync of the file of {count}, apart");
    table.time(&what, Spread::of(syncs), None, "");
    // The last round had left one changed.
    let handed = ground.dir.path().join("handed-over.yaml");
    fs::write(&handed, &text).unwrap();
    let mut times = Vec::new();
    for _ in 0..11 {
        let content = File::open(&handed).unwrap();
        let begin = now();
        let plan = daemon.client.plan(Some(content.into())).await.unwrap();
        times.push(now() - begin);
        assert_eq!(plan.changes.len(), 1);
    }
    let what = format!("plan of one of {count} changed");
    table.time(&what, Spread::of(times), Some(("bare parse", parsed)), "1.5");
    let mut times = Vec::new();
    for _ in 0..21 {
        let begin = now();
        let done = daemon.client.reload(&ReloadOptions::default()).await.unwrap();
        assert_eq!(done.result, "unchanged");
        times.push(now() - begin);
    }
    let goal = if count == 1_000 { "5 ms" } else { "" };
    let what = format!("reload of {count}, nothing changed");
    table.time(&what, Spread::of(times), Some(("bare parse", parsed)), goal);
    daemon.end();
    ground.deafen(ear);
}

/// Memory by number of processes, at rest: the files are looked at once more when they are watched, and
/// what that took is given back after it.
async fn sizes(ground: &Ground, table: &Table, most: usize) {
    const AT_REST: Duration = Duration::from_secs(1);
    let ear = ground.listen();
    let mut none = 0;
    for count in [0, 100, 1_000, 10_000].into_iter().filter(|count| *count <= most) {
        let begin = now();
        let daemon = Daemon::start(ground, &ground.yaml(count, None, ""), Stdio::null()).await;
        let up = ear.last(count).saturating_sub(begin);
        daemon.settled().await;
        tokio::time::sleep(AT_REST).await;
        let kib = daemon.memory();
        let each = match count {
            0 => {
                none = kib;
                String::new()
            }
            count => format!("{:.1} KiB each", (kib.saturating_sub(none)) as f64 / count as f64),
        };
        let goal = if count == 0 { "5 MiB" } else { "6 KiB each" };
        let memory = format!("{:.1} MiB", kib as f64 / 1024.0);
        // It is in memory too, where /run is.
        let kept = format!("{} KiB kept", ground.kept());
        let took = if count == 0 { kept } else { format!("{kept}; up in {}", span(up)) };
        let down = daemon.end();
        let took = format!("{took}, down in {}", span(down));
        table.row(&format!("memory (PSS) with {count}"), &memory, &each, &took, "", goal);
    }
    ground.deafen(ear);
}

/// What idling costs.
async fn idle(ground: &Ground, table: &Table) {
    let ear = ground.listen();
    let daemon = Daemon::start(ground, &ground.yaml(100, None, ""), Stdio::null()).await;
    ear.last(100);
    daemon.settled().await;
    // Threads that were needed for a moment end by themselves after ten seconds.
    tokio::time::sleep(Duration::from_secs(15)).await;
    let seconds = setting("PROVOST_BENCH_IDLE", 60);
    let before = daemon.effort();
    tokio::time::sleep(Duration::from_secs(seconds as u64)).await;
    let after = daemon.effort();
    let woken = format!("{} wake-ups", after.0 - before.0);
    let ticks = format!("{} clock ticks", after.1 - before.1);
    table.row(&format!("idle for {seconds} s with 100"), &woken, &ticks, "", "", "0 and 0");
    daemon.end();
    ground.deafen(ear);
}

/// Lines of output.
async fn lines(ground: &Ground, table: &Table) {
    const LINES: usize = 1_000_000;
    let line = "x".repeat(99);
    let write = format!("yes {line} | head -n {LINES}");
    let begin = now();
    let cat = format!("{write} | cat > {}/copy", ground.dir.path().display());
    assert!(Command::new("sh").args(["-c", &cat]).status().unwrap().success());
    let bare = now() - begin;
    let rate = |took: u64| LINES as f64 / (took as f64 / 1e9);
    let number = |rate: f64| format!("{:.0} k lines/s", rate / 1e3);
    let beside = format!("through cat to a file: {}", number(rate(bare)));

    // Through the daemon, as prefixed lines on its standard output.
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    let yaml = format!(
        "processes:\n  w: {{ shell: \"{write}; exec sleep 1000\", restartPolicy: {{ condition: no }} }}\n"
    );
    let begin = now();
    let daemon = Daemon::start(ground, &yaml, Stdio::from(writer)).await;
    let mut out = File::from(reader);
    let took = tokio::task::spawn_blocking(move || {
        let (mut buffer, mut seen) = (vec![0; 1 << 16], 0);
        while seen < LINES {
            let length = out.read(&mut buffer).unwrap();
            assert!(length > 0, "the output ends early");
            seen += buffer[..length].iter().filter(|byte| **byte == b'\n').count();
        }
        (now() - begin, out)
    });
    let (took, out) = took.await.unwrap();
    let ratio = format!("{:.2}", rate(took) / rate(bare));
    table.row("output through the daemon", &number(rate(took)), "", &beside, &ratio, "");
    drop(out);
    daemon.end();

    // To a log file.
    let log = ground.dir.path().join("log");
    let done = ground.dir.path().join("done");
    let yaml = format!(
        "processes:\n  w: {{ shell: \"{write}; echo > {}\", logFile: {}, restartPolicy: {{ condition: no }} }}\n",
        done.display(),
        log.display()
    );
    let begin = now();
    let daemon = Daemon::start(ground, &yaml, Stdio::null()).await;
    let mut watch = daemon.client.watch().await.unwrap();
    while daemon.status("w").await.state != "completed" {
        watch.changed().await.unwrap();
    }
    let took = now() - begin;
    assert_eq!(fs::metadata(&log).unwrap().len(), 100 * LINES as u64);
    let ratio = format!("{:.2}", rate(took) / rate(bare));
    table.row("output to a log file", &number(rate(took)), "", &beside, &ratio, "");
    daemon.end();
}

/// The memory of several processes.
fn memory_of(pids: &[u32]) -> u64 {
    pids.iter().map(|pid| memory(*pid)).sum()
}

/// How long after `begin` the next child says something.
fn after(ear: &Ear, begin: u64) -> u64 {
    ear.next().at.saturating_sub(begin)
}
