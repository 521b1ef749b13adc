//! What is measured in the machine.

use crate::ground::{Daemon, Ear, Ground, memory, now, setting};
use crate::table::{Spread, Table, span};
use futures_util::future::join_all;
use provost::backend::systemd::link::Way;
use provost::backend::systemd::manager::{Manager, UnitEvent};
use provost::backend::systemd::unit::Properties;
use provost::client::Verb;
use provost::sys::stat::Stat;
use std::fs;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// The program that is started.
pub const CHILD: &str = "/usr/local/bin/child";

/// How long idling is watched: the setting and the usual number of seconds.
pub const IDLE: (&str, usize) = ("PROVOST_BENCH_IDLE", 60);

/// So many units at once.
const MANY: usize = 500;

/// So many bare calls are under way at once, each until its job is over.
const IN_FLIGHT: usize = 64;

/// Processor time of the whole machine but for this program, in nanoseconds: of systemd, of what it
/// executes on the way to a command, and of a daemon. It tells the same however busy the host is.
fn effort() -> u64 {
    let stat = fs::read_to_string("/sys/fs/cgroup/cpu.stat").unwrap();
    let micros = stat.lines().find_map(|line| line.strip_prefix("usage_usec ")).unwrap();
    let own = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let own = own.tv_sec.unsigned_abs() * 1_000_000_000 + own.tv_nsec.unsigned_abs();
    micros.parse::<u64>().unwrap() * 1_000 - own
}

/// systemd without anybody in between.
struct Bare {
    manager: Arc<Manager>,
    fifo: String,
}

impl Bare {
    async fn new(ground: &Ground) -> Bare {
        let manager = Manager::start(Way::Socket("/run/systemd/private".into())).await.unwrap();
        Bare { manager, fifo: ground.fifo.to_str().unwrap().to_owned() }
    }

    /// What a process needs to run.
    fn properties(&self, number: usize) -> Properties {
        let words = vec![CHILD.to_owned(), self.fifo.clone(), number.to_string()];
        vec![
            ("ExecStart", vec![(CHILD.to_owned(), words, false)].into()),
            ("Type", "exec".into()),
            ("StandardOutput", "null".into()),
            ("StandardError", "null".into()),
        ]
    }

    fn unit(number: usize) -> String {
        format!("bare-{number}.service")
    }

    async fn start(&self, number: usize) {
        let unit = Bare::unit(number);
        let mut watch = self.manager.watch(&unit);
        let job = self.manager.start_transient(&unit, &self.properties(number)).await.unwrap();
        loop {
            if let UnitEvent::JobRemoved { job: of, result } = watch.next().await
                && of == job
            {
                assert_eq!(result, "done");
                return;
            }
        }
    }

    async fn stop(&self, number: usize) {
        let unit = Bare::unit(number);
        let mut watch = self.manager.watch(&unit);
        self.manager.stop(&unit).await.unwrap().unwrap();
        while watch.next().await != UnitEvent::Removed {}
    }

    async fn start_all(&self) {
        let window = Semaphore::new(IN_FLIGHT);
        let one = async |number| {
            let _slot = window.acquire().await.unwrap();
            self.start(number).await;
        };
        join_all((0..MANY).map(one)).await;
    }

    async fn stop_all(&self) {
        let window = Semaphore::new(IN_FLIGHT);
        let one = async |number| {
            let _slot = window.acquire().await.unwrap();
            self.stop(number).await;
        };
        join_all((0..MANY).map(one)).await;
    }
}

pub async fn measure(parts: &[String]) {
    let mut ground = Ground::at(CHILD.into());
    ground.words = vec!["--system".to_owned()];
    let table = Table::begin();
    let (bare, ear) = (Bare::new(&ground).await, ground.listen());
    let wants = |part: &str| parts.is_empty() || parts.iter().any(|name| name == part);
    if wants("one") {
        one(&ground, &table, &bare, &ear).await;
    }
    if wants("many") {
        many(&ground, &table, &bare, &ear).await;
    }
    ground.deafen(ear);
}

fn yaml(ground: &Ground, count: usize) -> String {
    ground.yaml(count, None, "processManagement: { backend: systemd, defaultUser: root }\n")
}

/// One process, alone.
async fn one(ground: &Ground, table: &Table, bare: &Bare, ear: &Ear) {
    let daemon = Daemon::start(ground, &yaml(ground, 1), Stdio::null()).await;
    ear.next();
    let name = vec!["p00000".to_owned()];
    let (mut raw, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..100 {
        // Its unit is gone when it is started again.
        daemon.client.stop(&name, |_| {}).await.unwrap();
        let begin = now();
        bare.start(0).await;
        raw.push(ear.next().at - begin);
        bare.stop(0).await;
        let begin = now();
        daemon.client.submit(Verb::Start { once: false }, &name).await.unwrap();
        ours.push(ear.next().at - begin);
        daemon.settled().await;
    }
    let raw = Spread::of(raw).median;
    let limit = Some(("bare StartTransientUnit", raw));
    table.time("start, over the private socket", Spread::of(ours), limit, "1.3");
    daemon.end();
}

/// Many of them: up, down, at rest, and what each costs.
async fn many(ground: &Ground, table: &Table, bare: &Bare, ear: &Ear) {
    let none = Daemon::start(ground, &yaml(ground, 0), Stdio::null()).await;
    let empty = none.memory();
    none.end();
    let first = memory(1);
    let daemon = Daemon::start(ground, &yaml(ground, MANY), Stdio::null()).await;
    ear.last(MANY);
    daemon.settled().await;
    let (own, of_manager) = (daemon.memory(), memory(1));
    let (mut raw, mut ours) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    let (mut raw_effort, mut effort_of_ours) = (Vec::new(), Vec::new());
    let count = MANY as u64;
    let all = vec!["p*".to_owned()];
    for _ in 0..5 {
        let begin = now();
        daemon.client.stop(&all, |_| {}).await.unwrap();
        ours[1].push(now() - begin);
        let (begin, before) = (now(), effort());
        bare.start_all().await;
        raw[0].push(ear.last(MANY) - begin);
        raw_effort.push((effort() - before) / count);
        let begin = now();
        bare.stop_all().await;
        raw[1].push(now() - begin);
        let (begin, before) = (now(), effort());
        daemon.client.submit(Verb::Start { once: false }, &all).await.unwrap();
        ours[0].push(ear.last(MANY) - begin);
        daemon.settled().await;
        effort_of_ours.push((effort() - before) / count);
    }
    let [[up, down], [bare_up, bare_down]] = [ours, raw].map(|both| both.map(Spread::of));
    let limit = |name, spread: Spread| Some((name, spread.median));
    let what = format!("{MANY} up");
    table.time(&what, up, limit("bare calls, 64 in flight", bare_up), "1.3");
    let beside = limit("bare calls", Spread::of(raw_effort));
    table.time("processor time for one of them", Spread::of(effort_of_ours), beside, "");
    let what = format!("{MANY} down");
    table.time(&what, down, limit("bare calls, 64 in flight", bare_down), "");
    let each = |with: u64, without: u64| {
        format!("{:.1} KiB each", with.saturating_sub(without) as f64 / MANY as f64)
    };
    let mib = |kib: u64| format!("{:.1} MiB", kib as f64 / 1024.0);
    let what = format!("memory (PSS) of the daemon with {MANY}");
    table.row(&what, &mib(own), &each(own, empty), &format!("with 0: {}", mib(empty)), "", "");
    let what = format!("memory (PSS) of systemd with {MANY}");
    let beside = format!("before: {}", mib(first));
    table.row(&what, &mib(of_manager), &each(of_manager, first), &beside, "", "");
    idle(table, &daemon).await;
    println!("down with the daemon in {}", span(daemon.end()));
}

/// What idling costs.
async fn idle(table: &Table, daemon: &Daemon) {
    // Threads that were needed for a moment end by themselves after ten seconds.
    tokio::time::sleep(Duration::from_secs(15)).await;
    let seconds = setting(IDLE.0, IDLE.1);
    let ticks_of_manager = || Stat::of(1).unwrap().ticks;
    let (before, manager) = (daemon.effort(), ticks_of_manager());
    tokio::time::sleep(Duration::from_secs(seconds as u64)).await;
    let after = daemon.effort();
    let woken = format!("{} wake-ups", after.0 - before.0);
    let ticks = format!("{} clock ticks", after.1 - before.1);
    let beside = format!("systemd: {} clock ticks", ticks_of_manager() - manager);
    let units = fs::read_dir("/run/systemd/transient").unwrap().count();
    assert!(units >= MANY, "{units} units");
    table.row(&format!("idle for {seconds} s with {MANY}"), &woken, &ticks, &beside, "", "0 and 0");
}
