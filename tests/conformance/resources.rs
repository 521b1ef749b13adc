//! What a run may use and see.
//!
//! Machines in a container have only those controllers of control groups that its host does not keep
//! for itself. What needs one that is not there cannot be seen there; what is said of it can.

use crate::supervisor::*;
use crate::world::*;
use provost::backend::{Beside, CommandEnd};
use provost::client::ReloadOptions;
use provost::core::event::{Event, ExitStatus, Whom};
use provost::core::ids::Slot;
use provost::core::limits::{Limit, Limits};
use provost::core::spec::{ProcessSpec, Rendered, Signal};
use provost::core::unit::{PROPERTIES, Sandbox};
use provost::sys::controllers;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

fn limited(mut spec: ProcessSpec, limits: &Limits) -> ProcessSpec {
    spec.limits = limits.clone().into();
    spec
}

/// A property of a unit, or of the manager where none is named, as systemctl shows it.
pub fn show(unit: &str, property: &str) -> String {
    let scope = if is_root() { "--system" } else { "--user" };
    let mut command = Command::new("systemctl");
    let unit = Some(unit).filter(|unit| !unit.is_empty());
    let output =
        command.args([scope, "show", "--value", "--property", property]).args(unit).output();
    String::from_utf8(output.unwrap().stdout).unwrap().trim().to_owned()
}

fn shown(unit: &str) -> [String; 4] {
    ["MemoryMax", "MemoryHigh", "CPUQuotaPerSecUSec", "TasksMax"].map(|name| show(unit, name))
}

/// Whether there is a controller here for every limit.
fn all_hold() -> bool {
    std::env::var_os("CONFORMANCE_ALL").is_some()
}

/// Those that are given and nobody enforces here. Where all can be, there is none.
fn loose(world: &World, limits: &Limits) -> Vec<Limit> {
    let can = world.backend.enforceable();
    let loose: Vec<Limit> = limits.given().filter(|limit| !can.contains(limit)).collect();
    assert!(!all_hold() || loose.is_empty(), "not enforced: {loose:?}");
    loose
}

pub async fn limits_hold_and_change_under_a_run(mut world: World) {
    let first = Limits {
        memory: Some(512 << 20),
        memory_high: Some(400 << 20),
        cpu: Some(1_500),
        tasks: Some(77),
        max_memory_restart: None,
    };
    let run = world.start(limited(program("sleep", &["1000"]), &first));
    let pid = world.spawned().await;
    until_is(loose(&world, &first), || world.backend.unenforced(&instance(), run, &first)).await;
    let unit = world.backend.unit(&instance(), Slot::A);
    if let Some(unit) = &unit {
        assert_eq!(shown(unit), ["536870912", "419430400", "1.500000s", "77"].map(str::to_owned));
    }
    // What restarts it is told by the kernel as what slows it down.
    let second =
        Limits { max_memory_restart: Some(100 << 20), cpu: Some(250), ..Limits::default() };
    let spec = Arc::new(limited(program("sleep", &["1000"]), &second));
    world.backend.limit(&instance(), run, &spec);
    until_is(loose(&world, &second), || world.backend.unenforced(&instance(), run, &second)).await;
    if let Some(unit) = &unit {
        let usual = show("", "DefaultTasksMax");
        let wanted = ["infinity", "104857600", "250ms", &usual].map(str::to_owned);
        until_is(wanted, || shown(unit)).await;
        assert_eq!(show(unit, "MainPID"), pid.to_string());
    }
    assert!(world.is_there(pid) && world.is_quiet());
    world.end(run).await;
    // What was changed was changed for that run.
    let run = world.start(program("sleep", &["1000"]));
    world.spawned().await;
    if let Some(unit) = &unit {
        let usual = show("", "DefaultTasksMax");
        let wanted = ["infinity", "infinity", "infinity", &usual].map(str::to_owned);
        assert_eq!(shown(unit), wanted);
    }
    assert_eq!(world.backend.unenforced(&instance(), run, &Limits::default()), []);
    world.end(run).await;
}

/// Whenever it comes: before there is a process, too.
pub async fn a_change_of_limits_while_it_begins_is_not_lost(mut world: World) {
    for tasks in 50..70 {
        let limits = Limits { tasks: Some(tasks), ..Limits::default() };
        let spec = Arc::new(limited(program("sleep", &["1000"]), &limits));
        let run = world.start(program("sleep", &["1000"]));
        tokio::time::sleep(Duration::from_micros((tasks - 50) * 500)).await;
        world.backend.limit(&instance(), run, &spec);
        world.spawned().await;
        if let Some(unit) = world.backend.unit(&instance(), Slot::A) {
            until_is(tasks.to_string(), || show(&unit, "TasksMax")).await;
        }
        until_is(loose(&world, &limits), || world.backend.unenforced(&instance(), run, &limits))
            .await;
        world.end(run).await;
    }
}

/// Where nothing limits it, it stops by itself at some number.
pub async fn what_forks_without_end_is_limited_and_can_be_stopped(mut world: World) {
    const MOST: u64 = 40;
    const MANY: u64 = 100;
    let up = world.pipe("up");
    let limits = Limits { tasks: Some(MOST), ..Limits::default() };
    let is_limited = loose(&world, &limits).is_empty();
    let end = if is_limited { "fork while 1" } else { "sleep 1000" };
    let line = format!(
        "$SIG{{TERM}} = q(IGNORE); for (1..{MANY}) {{ my $pid = fork; last unless defined $pid; \
         if ($pid == 0) {{ {end}; exit }} }} \
         open F, q(>), q({up}); print F qq(up\\n); close F; {end}"
    );
    let run = world.start(limited(program("perl", &["-e", &line]), &limits));
    world.spawned().await;
    world.line("up").await;
    let tasks = world.backend.usage(&instance(), run).unwrap().tasks.unwrap();
    if is_limited {
        assert!(tasks > MOST / 2 && tasks <= MOST, "{tasks}");
    } else {
        assert_eq!(world.backend.unenforced(&instance(), run, &limits), [Limit::Tasks]);
        assert_eq!(tasks, MANY + 1);
    }
    world.end(run).await;
}

pub async fn what_needs_too_much_memory_is_told_as_such(mut world: World) {
    let limits = Limits { memory: Some(64 << 20), ..Limits::default() };
    if !loose(&world, &limits).is_empty() {
        eprintln!("not seen here: nothing limits memory");
        return;
    }
    for _ in 0..5 {
        // All of what it reads is one line, which it keeps.
        let greedy = program("tail", &["-n", "1", "/dev/zero"]);
        assert_eq!(world.run(limited(greedy, &limits)).await, ExitStatus::OutOfMemory);
    }
    // Not every end by that signal is one.
    let run = world.start(limited(program("sleep", &["1000"]), &limits));
    world.spawned().await;
    world.end(run).await;
}

/// The kernel ends all who share their memory with one that its group has none for.
pub async fn who_has_too_little_memory_to_begin_takes_nobody_with_it(mut world: World) {
    let limits = Limits { memory: Some(64 << 10), ..Limits::default() };
    if !loose(&world, &limits).is_empty() {
        eprintln!("not seen here: nothing limits memory");
        return;
    }
    // What it is given alone is more.
    let much = "x".repeat(100_000);
    for _ in 0..2 {
        let greedy = program("sleep", &["1000", &much, &much, &much, &much, &much]);
        world.start(limited(greedy, &limits));
        let is_over =
            |event: &Event| matches!(event, Event::SpawnFailed { .. } | Event::Emptied { .. });
        while !is_over(&world.event().await) {}
    }
    assert_eq!(world.run(program("true", &[])).await, ExitStatus::Code(0));
}

/// Without anybody asking how much it is.
pub async fn what_outgrows_its_memory_is_told(mut world: World) {
    let limits = Limits { max_memory_restart: Some(48 << 20), ..Limits::default() };
    if !loose(&world, &limits).is_empty() {
        eprintln!("not seen here: nothing tells of memory");
        return;
    }
    let up = world.pipe("up");
    let line = format!(
        "open F, q(>), q({up}); print F qq(up\\n); close F; \
         $SIG{{USR1}} = sub {{ $all .= q(x) x (1 << 20) for 1..64; }}; \
         $SIG{{TERM}} = sub {{ exit 7 }}; sleep 1 while 1"
    );
    let run = world.start(limited(program("perl", &["-e", &line]), &limits));
    world.spawned().await;
    world.line("up").await;
    world.backend.signal(&instance(), run, Signal(10), Whom::Main);
    match world.event().await {
        Event::Outgrown { run: of, used, .. } => {
            assert_eq!(of, run);
            assert!(used >= 47 << 20, "{used}");
        }
        other => panic!("{other:?}"),
    }
    world.terminate(run);
    assert_eq!(world.exited().await, ExitStatus::Code(7));
    world.emptied().await;
}

fn has_units(world: &World) -> bool {
    world.backend.unit(&instance(), Slot::A).is_some()
}

/// On the one backend that has them.
pub async fn a_sandbox_is_carried_out(mut world: World) {
    if !has_units(&world) {
        return;
    }
    let up = world.pipe("up");
    let outside = if is_root() { "/var/tmp/provost" } else { "/home/alice/provost" };
    let tell = format!(
        "writes() {{ (: >$1) 2>/dev/null && echo yes || echo no; }}; \
         echo $(grep -c 'NoNewPrivs:.1' /proc/self/status) $(writes /etc/provost) \
         $(writes {outside}) $(writes own) >{up}"
    );
    // Root could write to /etc without one; nobody else can anyway.
    for (sandbox, wanted) in [
        (Sandbox::None, "0 no yes yes"),
        (Sandbox::Default, "1 no yes yes"),
        (Sandbox::Strict, "1 no no yes"),
    ] {
        let mut spec = shell(&tell);
        spec.exec.sandbox = sandbox;
        spec.exec.cwd = world.text("");
        assert_eq!(world.run(spec.clone()).await, ExitStatus::Code(0), "{sandbox:?}");
        assert_eq!(world.line("up").await, wanted, "{sandbox:?}");
        let argv = ["/bin/sh", "-c", &tell].map(Rendered::from).to_vec();
        let beside = world.backend.run_in_context(
            &instance(),
            &Arc::new(spec),
            Beside::Check,
            argv,
            DEADLINE,
        );
        assert_eq!(in_time(beside, "a check").await, CommandEnd::Success, "{sandbox:?}");
        assert_eq!(world.line("up").await, wanted, "beside {sandbox:?}");
    }
}

/// What the file says of a property comes before what the sandbox says.
pub async fn a_property_of_the_file_is_that_of_the_unit(mut world: World) {
    if !has_units(&world) {
        return;
    }
    let mut spec = program("sleep", &["1000"]);
    spec.exec.sandbox = Sandbox::Default;
    let words = [("ProtectSystem", "yes"), ("OOMScoreAdjust", "321"), ("LimitCORE", "7:9")];
    let words = words.map(|(name, word)| (name.to_owned(), vec![word.to_owned()]));
    spec.exec.unit = Arc::new(BTreeMap::from(words));
    let run = world.start(spec);
    let pid = world.spawned().await;
    let unit = world.backend.unit(&instance(), Slot::A).unwrap();
    let wanted = [
        ("ProtectSystem", "yes"),
        ("OOMScoreAdjust", "321"),
        ("LimitCORE", "9"),
        ("LimitCORESoft", "7"),
        ("NoNewPrivileges", "yes"),
    ];
    for (name, value) in wanted {
        assert_eq!(show(&unit, name), value, "{name}");
    }
    let score = std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
    assert_eq!(score.trim(), "321");
    world.end(run).await;
}

/// Whether it can be carried out here is another matter: systemd is told what it understands.
pub async fn every_property_of_the_table_can_be_set(mut world: World) {
    if !has_units(&world) {
        return;
    }
    let mut refused = Vec::new();
    for property in PROPERTIES {
        let mut spec = program("true", &[]);
        let words = property.example.iter().map(ToString::to_string).collect();
        spec.exec.unit = Arc::new([(property.name.to_owned(), words)].into());
        world.start(spec);
        match world.event().await {
            Event::Spawned { .. } => {
                world.exited().await;
                world.emptied().await;
            }
            Event::SpawnFailed { error, .. } if error.reason.starts_with("systemd says") => {
                refused.push(format!("{}: {error}", property.name));
            }
            Event::SpawnFailed { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(refused.is_empty(), "{refused:#?}");
}

fn file(limits: &str) -> String {
    format!(
        "  web:\n    command: [sleep, \"1000\"]\n    log: {{ target: none }}\n    limits: {limits}\n"
    )
}

/// The file, the status and the kernel say the same, and what cannot be is said.
pub async fn a_change_of_limits_restarts_nothing(mut it: Supervisor) {
    let client = it.run(&file("{ memory: 300M, cpu: 0.5, tasks: 99 }")).await;
    let before = it.until_all("running", &["web@0"]).await;
    let web = &before["web@0"];
    let limits = (web.limits.memory, web.limits.cpu, web.limits.tasks);
    assert_eq!(limits, (Some(300 << 20), Some(0.5), Some(99)));
    let given = BTreeSet::from([Limit::Memory, Limit::Cpu, Limit::Tasks]);
    let keys =
        |limits: &BTreeSet<Limit>| limits.iter().map(|limit| limit.key().to_owned()).collect();
    let lacking: Vec<String> = keys(&(&given - &controllers::of_the_machine()));
    let unenforced = &web.limits.unenforced;
    assert!(lacking.iter().all(|key| unenforced.contains(key)), "{lacking:?} {unenforced:?}");
    assert!(!all_hold() || unenforced.is_empty(), "{unenforced:?}");
    // Files that are read again and are the same end nothing of that.
    client.reload(&ReloadOptions::default()).await.unwrap();
    let told = client.manager().await.unwrap().diagnostics;
    let is_told = told.iter().any(|one| one.code == "limit-not-enforced");
    assert_eq!(is_told, !unenforced.is_empty(), "{told:?}");
    let is_logged = it.log().contains("web@0: not enforced here: limits.");
    assert_eq!(is_logged, !unenforced.is_empty(), "{}", it.log());

    // The daemon may have seen the file before it is asked.
    it.reload(&file("{ memory: 200M, tasks: 98 }")).await;
    let has_new = |all: &Status| all["web@0"].limits.memory == Some(200 << 20);
    let after = &it.until("other limits", has_new).await["web@0"];
    assert_eq!((after.pid, after.restarts), (web.pid, 0));
    assert_eq!((after.limits.memory, after.limits.cpu), (Some(200 << 20), None));
    if it.backend == "systemd" {
        let unit = web.control_group.rsplit('/').next().unwrap();
        let has = || [show(unit, "MemoryMax"), show(unit, "TasksMax")];
        until_is(["209715200", "98"].map(str::to_owned), has).await;
    }
    // It goes on with what it has.
    it.kill();
    it.start().await;
    let adopted = it.until_all("running", &["web@0"]).await;
    assert_eq!((adopted["web@0"].pid, &adopted["web@0"].limits), (web.pid, &after.limits));
    it.reload(&file("{ files: 77 }")).await;
    let is_new = |all: &Status| all["web@0"].state == "running" && all["web@0"].pid != web.pid;
    let anew = it.until("another run", is_new).await;
    assert!(anew["web@0"].limits.unenforced.is_empty());
}
