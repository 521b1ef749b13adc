//! What a daemon does with its processes.

use crate::supervisor::*;
use crate::world::until;
use provost::client::{JobOutcome, ProcessStatus, Verb};
use std::collections::BTreeMap;
use std::fs;

fn quiet(_: &JobOutcome) {}

fn pids(status: &Status) -> BTreeMap<&str, Option<u32>> {
    status.iter().map(|(id, one)| (&**id, one.pid)).collect()
}

/// A process that says when it begins and when it is asked to end, and takes a moment for that.
fn talker(name: &str, rest: &str) -> String {
    act(name, "slowly, begins, stay", rest)
}

/// A process that takes these steps.
fn act(name: &str, steps: &str, rest: &str) -> String {
    format!(
        "  {name}:\n    command: [\"@ACT@\", {name}, {steps}]\n    log: {{ target: none }}\n{rest}"
    )
}

pub async fn order_is_that_of_the_graph(mut it: Supervisor) {
    let file = talker("db", "")
        + &talker("api", "    instances: 2\n    dependsOn: [db]\n")
        + &talker("web", "    dependsOn: [api]\n");
    let client = it.run(&file).await;
    let all = ["db@0", "api@0", "api@1", "web@0"];
    let all = it.until_all("running", &all).await;
    assert_eq!(client.manager().await.unwrap().backend, it.backend);
    assert!(all.values().all(|one| one.pid.is_some()));
    let path = it.path("said");
    let said = |from: usize| -> Vec<String> {
        fs::read_to_string(&path).unwrap().lines().skip(from).map(str::to_owned).collect()
    };
    // Each says so once it runs, which is after it was started.
    until("said by all", || said(0).len() == 4).await;
    assert_eq!(said(0)[0], "db begins");
    client.stop(&["db".into()], quiet).await.unwrap();
    it.until_all("down", &["db@0"]).await;
    let end = ["web ends", "web ended", "api ends", "api ends", "api ended", "api ended"];
    assert_eq!(said(4)[..2], end[..2]);
    let mut middle = said(4)[2..6].to_vec();
    middle.sort();
    assert_eq!(middle, ["api ended", "api ended", "api ends", "api ends"]);
    assert_eq!(said(4)[6..], ["db ends", "db ended"]);
    client.start(&["db".into()], false, quiet).await.unwrap();
    it.until_all("running", &["db@0", "api@0", "api@1", "web@0"]).await;
    it.stop();
    assert_eq!(said(0).last().unwrap(), "db ended");
}

pub async fn a_crashing_process_is_delayed_and_given_up(mut it: Supervisor) {
    let file = "  bad:\n    shell: exit 3\n    log: { target: none }\n    \
                restartPolicy: { delay: 50ms, jitter: 0, maxAttempts: 3 }\n  \
                missing:\n    command: no-such-program\n    \
                restartPolicy: { delay: 50ms, maxAttempts: 1 }\n";
    it.run(file).await;
    let all = it.until_all("failed", &["bad@0", "missing@0"]).await;
    assert_eq!((all["bad@0"].restarts, all["bad@0"].result.as_str()), (3, "exit-code"));
    assert_eq!((all["missing@0"].restarts, all["missing@0"].result.as_str()), (1, "spawn-failed"));
    assert!(all["missing@0"].reason.contains("executing no-such-program"), "{all:#?}");
    let told = it.told("bad@0").await.join("\n");
    let delays = ["in 50 ms (restart 1)", "in 0.1 s (restart 2)", "in 0.2 s (restart 3)"];
    assert!(delays.iter().all(|delay| told.contains(delay)), "{told}");
}

/// Also what has left its process, and takes no notice of being asked.
pub async fn a_stop_is_over_when_nothing_is_left(mut it: Supervisor) {
    let client = it.run(&act("tree", "leaving, begins, stay, \"@MARK@\"", STUBBORN)).await;
    let before = it.until_all("running", &["tree@0"]).await;
    until("both are there", || !said(&it).is_empty()).await;
    for verb in [Verb::Restart, Verb::Stop] {
        client.run(verb, &["tree".into()], quiet).await.unwrap();
        assert!(!it.is_there(before["tree@0"].pid.unwrap()));
    }
    assert!(it.marked().is_empty(), "{:?}", it.status().await);
    assert_eq!(it.status().await["tree@0"].state, "down");
}

const STUBBORN: &str = "    stop: { timeout: 300ms }\n";

fn said(it: &Supervisor) -> Vec<String> {
    let text = fs::read_to_string(it.path("said")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

pub async fn one_shots_run_once(mut it: Supervisor) {
    let once = |name: &str, end: &str, rest: &str| {
        let rest = format!("    restartPolicy: {{ condition: \"no\" }}\n{rest}");
        act(name, &format!("runs, {end}"), &rest)
    };
    let file = once("good", "exit-0", "")
        + &once("after", "exit-0", "    dependsOn: { good: completed }\n")
        + &once("bad", "exit-2", "")
        + &once("never", "exit-0", "    dependsOn: { bad: completed }\n");
    it.run(&file).await;
    it.until_all("completed", &["good@0", "after@0"]).await;
    it.until_all("failed", &["bad@0"]).await;
    it.until_all("waiting", &["never@0"]).await;
    it.kill();
    it.start().await;
    it.until_all("completed", &["good@0", "after@0"]).await;
    let mut said = said(&it);
    said.sort();
    assert_eq!(said, ["after runs", "bad runs", "good runs"]);
}

pub async fn a_reload_touches_what_changed(mut it: Supervisor) {
    let one = |name: &str, rest: &str| {
        format!("  {name}:\n    command: [sleep, \"1000\"]\n    log: {{ target: none }}\n{rest}")
    };
    it.run(&(one("same", "") + &one("live", "") + &one("new", "") + &one("gone", ""))).await;
    let before = it.until_all("running", &["same@0", "live@0", "new@0", "gone@0"]).await;
    let file = one("same", "")
        + &one("live", "    description: other\n    stop: { timeout: 3s }\n")
        + &one("new", "    env: { A: b }\n")
        + &one("more", "    instances: 2\n");
    let summary = it.reload(&file).await;
    assert_eq!(summary.result, "applied", "{summary:?}");
    let after = it.until_all("running", &["same@0", "live@0", "new@0", "more@0", "more@1"]).await;
    let (before, after) = (pids(&before), pids(&after));
    assert_eq!((before["same@0"], before["live@0"]), (after["same@0"], after["live@0"]));
    assert_ne!(before["new@0"], after["new@0"]);
    assert!(!after.contains_key("gone@0"));
    assert!(!it.is_there(before["gone@0"].unwrap()));
    it.save("  same: { command: 7, nonsense: 1 }\n");
    let client = it.client().await;
    assert!(client.reload(&Default::default()).await.is_err());
    assert_eq!(pids(&it.status().await), after);
}

pub async fn nobody_is_taken_down_for_a_run_that_could_not_begin(mut it: Supervisor) {
    let file = |version: &str| {
        format!(
            "  db:\n    command: [sleep, \"1000\"]\n    log: {{ target: none }}\n    restartPolicy: {{ maxAttempts: 0 }}\n\
             \x20 api:\n    command: [sleep, \"1000\"]\n    log: {{ target: none }}\n    dependsOn: [db]\n    env: {{ V: {version} }}\n"
        )
    };
    it.run(&file("one")).await;
    let before = it.until_all("running", &["db@0", "api@0"]).await;
    it.kill_process(before["db@0"].pid.unwrap());
    it.until_all("failed", &["db@0"]).await;
    // The file is watched as well, and there is next to nothing to do: whoever asks may find it done.
    let summary = it.reload(&file("two")).await;
    assert!(["applied", "unchanged"].contains(&&*summary.result), "{summary:?}");
    let kept = |status: &Status| {
        let api = &status["api@0"];
        (&*api.state, api.pid, &*api.reason) == ("running", before["api@0"].pid, KEPT)
    };
    it.until("it goes on", kept).await;
    let restart = [("api".to_owned())];
    let jobs = it.client().await.run(Verb::Restart, &restart, |_| {}).await.unwrap();
    assert_eq!((&*jobs[0].result, &*jobs[0].detail), ("dependency", KEPT_BY_A_RESTART));
    // Also for the daemon that comes after this one.
    it.kill();
    it.start().await;
    it.until("it goes on", kept).await;
    it.client().await.run(Verb::Start { once: false }, &["db".to_owned()], |_| {}).await.unwrap();
    let renewed = |status: &Status| {
        let api = &status["api@0"];
        api.state == "running" && api.pid != before["api@0"].pid && !api.needs_restart
    };
    it.until("it follows", renewed).await;
    it.stop();
}

const KEPT: &str = "it goes on: a new run would wait for db to be ready: it is failed";
const KEPT_BY_A_RESTART: &str =
    "it would wait for db to be ready: it is failed; its run goes on until then";

pub async fn health_is_asked_for_and_acted_on(mut it: Supervisor) {
    let file = "  sick:\n    command: [sleep, \"1000\"]\n    log: { target: none }\n    \
                restartPolicy: { delay: 50ms }\n    \
                healthCheck: { exec: [test, -e, \"@DIR@/well\"], interval: 100ms, startPeriod: 0s, failureThreshold: 2 }\n";
    fs::write(it.path("well"), "").unwrap();
    it.run(file).await;
    let before = it
        .until("healthy", |all| all.get("sick@0").is_some_and(|one| one.health == "healthy"))
        .await;
    fs::remove_file(it.path("well")).unwrap();
    it.until("restarted", |all| all["sick@0"].restarts == 1).await;
    fs::write(it.path("well"), "").unwrap();
    let after = it.until("healthy again", |all| all["sick@0"].health == "healthy").await;
    assert_ne!(pids(&before), pids(&after));
    assert_eq!(after["sick@0"].result, "unhealthy");
}

/// Says WATCHDOG=1 while the file `well` is there, and says that something is wrong when `trouble`
/// is: with what every Debian has.
const ALIVE: &str = r#"
use Socket;
socket(my $socket, PF_UNIX, SOCK_DGRAM, 0) or die $!;
my $to = pack_sockaddr_un($ENV{NOTIFY_SOCKET});
my $dir = shift;
while (-e "$dir/well") {
    send($socket, "WATCHDOG=1", 0, $to);
    select(undef, undef, undef, 0.2);
    last if -e "$dir/trouble";
}
send($socket, "WATCHDOG=trigger", 0, $to) if -e "$dir/trouble";
sleep 1000;
"#;

pub async fn who_says_so_is_ready(mut it: Supervisor) {
    let waits = |name: &str| format!("while ! test -e @DIR@/{name}; do sleep 0.05; done");
    let file = format!(
        "  slow:\n    shell: \"systemd-notify --status='getting up'; {}; systemd-notify --ready \
         --status=up; exec sleep 1000\"\n    readiness: notify\n    log: {{ target: none }}\n  \
         above:\n    command: [sleep, \"1000\"]\n    dependsOn: [slow]\n    \
         log: {{ target: none }}\n  mute:\n    command: [sleep, \"1000\"]\n    readiness: notify\n    \
         startTimeout: 300ms\n    restartPolicy: {{ condition: \"no\" }}\n    log: {{ target: none }}\n",
        waits("go")
    );
    it.run(&file).await;
    it.until_all("failed", &["mute@0"]).await;
    let all = it.until("heard", |all| all["slow@0"].status_text == "getting up").await;
    assert_eq!(
        (all["slow@0"].state.as_str(), all["above@0"].state.as_str()),
        ("starting", "waiting")
    );
    assert_eq!(all["slow@0"].reason, "not ready yet; it says: getting up");
    assert_eq!(all["mute@0"].result, "timeout");
    // It is the same run for the next daemon, which still has to hear that it is ready.
    it.kill();
    it.start().await;
    let again = it.status().await;
    assert_eq!(again["slow@0"].pid, all["slow@0"].pid);
    assert_eq!(again["slow@0"].status_text, "getting up");
    fs::write(it.path("go"), "").unwrap();
    it.until_all("running", &["slow@0", "above@0"]).await;
    it.kill();
    it.start().await;
    let last = it.until_all("running", &["slow@0", "above@0"]).await;
    assert_eq!(pids(&last)["slow@0"], pids(&all)["slow@0"]);
    it.until("heard", |all| all["slow@0"].status_text == "up").await;
}

pub async fn who_speaks_is_healthy_while_it_does(mut it: Supervisor) {
    let one = |name: &str, rest: &str| {
        format!(
            "  {name}:\n    command: [perl, \"@DIR@/alive.pl\", \"@DIR@/{name}\"]\n    \
             log: {{ target: none }}\n    restartPolicy: {{ delay: 50ms }}\n    \
             healthCheck: {{ notify: true, startPeriod: 0s, {rest} }}\n"
        )
    };
    fs::write(it.path("alive.pl"), ALIVE).unwrap();
    for name in ["alive", "ill"] {
        fs::create_dir(it.path(name)).unwrap();
        fs::write(it.path(name).join("well"), "").unwrap();
    }
    it.run(&(one("alive", "interval: 5s") + &one("ill", "interval: 1d, onFailure: none"))).await;
    // Whoever speaks at once is heard before systemd says that it was started.
    let is_well = |one: &ProcessStatus| one.health == "healthy" && one.pid.is_some();
    let healthy = |all: &Status| ["alive@0", "ill@0"].iter().all(|one| is_well(&all[*one]));
    let before = it.until("healthy", healthy).await;
    // The next daemon gives it time to speak.
    it.kill();
    it.start().await;
    let after = it.until("healthy", healthy).await;
    assert_eq!(pids(&before), pids(&after));
    fs::remove_file(it.path("alive/well")).unwrap();
    it.until("restarted", |all| all["alive@0"].restarts >= 1).await;
    assert!(it.log().contains("no WATCHDOG=1 within 5s"), "{}", it.log());
    fs::write(it.path("ill/trouble"), "").unwrap();
    let told = it.until("ill", |all| all["ill@0"].health == "unhealthy").await;
    assert!(told["ill@0"].health_detail.contains("WATCHDOG=trigger"), "{told:#?}");
    assert_eq!(pids(&told)["ill@0"], pids(&before)["ill@0"]);
}

const MARKED: &str = "  one:\n    command: [sleep, \"@MARK@\"]\n    \
                      log: { target: none }\n    instances: 5\n  \
                      crash:\n    shell: exit 1\n    log: { target: none }\n    \
                      restartPolicy: { delay: 20ms, maxDelay: 20ms }\n";
const FIVE: [&str; 5] = ["one@0", "one@1", "one@2", "one@3", "one@4"];

pub async fn a_killed_daemon_is_followed(mut it: Supervisor) {
    let client = it.run(MARKED).await;
    it.until_all("running", &FIVE).await;
    client.run(Verb::Stop, &["one@4".into()], quiet).await.unwrap();
    let before = it.until_all("down", &["one@4"]).await;
    for _ in 0..5 {
        it.kill();
        assert_eq!(it.marked().len(), 4);
        it.start().await;
        let after = it.until_all("running", &FIVE[..4]).await;
        for name in FIVE {
            assert_eq!(before[name].pid, after[name].pid, "{name}\n{}", it.log());
        }
        assert_eq!(after["one@4"].state, "down");
        let restarts = after["crash@0"].restarts;
        // It still crashes, and is still started again.
        it.until("crashing on", |all| all["crash@0"].restarts > restarts).await;
    }
    assert_eq!(it.marked().len(), 4);
    it.stop();
    assert!(it.marked().is_empty());
}

const BRIEF: &str = "  brief:\n    command: [sleep, \"0.1\"]\n    log: { target: none }\n    \
                     instances: 8\n    restartPolicy: { delay: 0, minUptime: 0, maxDelay: 20ms }\n";

pub async fn what_ends_while_a_daemon_comes_back_is_seen(mut it: Supervisor) {
    it.run(BRIEF).await;
    let all = || (0..8).map(|n| format!("brief@{n}"));
    for _ in 0..5 {
        it.kill();
        it.start().await;
        let before = it.until("there", |now| all().all(|id| now.contains_key(&id))).await;
        // Each ends twice at least, and one of these is of a run that this daemon has started.
        let goes_on = |now: &Status, id: String| now[&id].restarts >= before[&id].restarts + 2;
        it.until("all go on", |now| all().all(|id| goes_on(now, id))).await;
    }
}

pub async fn what_ends_while_there_is_no_daemon_is_started_again(mut it: Supervisor) {
    it.run(MARKED).await;
    let before = it.until_all("running", &FIVE).await;
    it.kill();
    it.kill_process(before["one@2"].pid.unwrap());
    it.start().await;
    let changed = |all: &Status| {
        let now = &all["one@2"];
        now.state == "running" && now.pid != before["one@2"].pid
    };
    let after = it.until("another run", changed).await;
    for name in ["one@0", "one@1", "one@3", "one@4"] {
        assert_eq!(before[name].pid, after[name].pid);
    }
    assert_eq!(after["one@2"].restarts, 1);
    if it.backend == "systemd" {
        // Only it remembers.
        assert!(it.log().contains("one@2: was ended by SIGKILL"), "{}", it.log());
    }
    assert_eq!(it.marked().len(), 5);
}

pub async fn what_nobody_knows_of_is_ended_before_anything_starts(mut it: Supervisor) {
    it.run(MARKED).await;
    let before = it.until_all("running", &FIVE).await;
    it.kill();
    // All that was kept, but for the token that says whose a process is.
    for entry in fs::read_dir(it.path("run/state")).unwrap().flatten() {
        if entry.file_name() != "boot" && entry.path().is_file() {
            fs::remove_file(entry.path()).unwrap();
        }
    }
    it.start().await;
    let after = it.until_all("running", &FIVE).await;
    for name in FIVE {
        assert_ne!(before[name].pid, after[name].pid);
        assert!(!it.marked().contains(&before[name].pid.unwrap()));
    }
    assert_eq!(it.marked().len(), 5);
}

/// Whichever of them it was before.
pub async fn the_other_backend_leaves_nothing_behind(mut it: Supervisor) {
    if it.backend == "native" {
        // Here there is only this one.
        it.run(MARKED).await;
        it.until_all("running", &FIVE).await;
        return;
    }
    for backend in ["systemd", "native", "systemd"] {
        it.backend = backend;
        let client = it.run(MARKED).await;
        let all = it.until_all("running", &FIVE).await;
        assert_eq!(client.manager().await.unwrap().backend, backend);
        assert!(all.values().filter_map(|one| one.pid).count() >= 5);
        assert_eq!(it.marked().len(), 5, "{}", it.log());
        // A change of the file is told, and waits for the next daemon.
        it.backend = if backend == "native" { "systemd" } else { "native" };
        it.reload(MARKED).await;
        let told = client.manager().await.unwrap().diagnostics;
        assert!(told.iter().any(|one| one.code == "other-backend"), "{told:?}");
        assert_eq!(client.manager().await.unwrap().backend, backend);
        it.kill();
    }
    it.run(MARKED).await;
    it.until_all("running", &FIVE).await;
    it.stop();
    assert!(it.marked().is_empty());
}

fn systemctl(words: &[&str]) {
    let scope = if crate::world::is_root() { "--system" } else { "--user" };
    let done = std::process::Command::new("systemctl").arg(scope).args(words).status().unwrap();
    assert!(done.success(), "systemctl {words:?}: {done}");
}

/// Nor does one that reads its units again. Where there is none there is nothing to see.
pub async fn a_manager_that_executes_itself_again_changes_nothing(mut it: Supervisor) {
    if it.backend == "native" {
        return;
    }
    it.run(MARKED).await;
    let before = it.until_all("running", &FIVE).await;
    for round in 0..4 {
        let restarts = it.status().await["crash@0"].restarts;
        systemctl(&[if round % 2 == 0 { "daemon-reexec" } else { "daemon-reload" }]);
        let what = format!("crashing on in round {round}");
        let after = it.until(&what, |all| all["crash@0"].restarts > restarts + 5).await;
        for name in FIVE {
            assert_eq!(before[name].pid, after[name].pid, "{name}\n{}", it.log());
        }
    }
    // One that ends while there is nobody to tell us of it.
    systemctl(&["daemon-reexec"]);
    it.kill_process(before["one@3"].pid.unwrap());
    it.until("its end seen", |all| all["one@3"].restarts == 1 && all["one@3"].state == "running")
        .await;
    assert_eq!(it.marked().len(), 5);
    it.stop();
    assert!(it.marked().is_empty());
}

pub async fn a_bus_that_goes_away_changes_nothing(mut it: Supervisor) {
    if it.backend == "native" || !crate::world::is_root() {
        return;
    }
    it.run(MARKED).await;
    let before = it.until_all("running", &FIVE).await;
    let restarts = before["crash@0"].restarts;
    systemctl(&["kill", "--signal=KILL", "dbus.service"]);
    let after = it.until("crashing on", |all| all["crash@0"].restarts > restarts + 5).await;
    for name in FIVE {
        assert_eq!(before[name].pid, after[name].pid, "{name}\n{}", it.log());
    }
}
