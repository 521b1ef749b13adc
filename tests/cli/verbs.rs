//! start, stop, restart, signal and status against a real daemon.

use crate::support::{Place, alive, row};

const FILE: &str = "\
processes:
  db:
    command: sleep
    args: [\"1000\"]
  api:
    command: sleep
    args: [\"1001\"]
    dependsOn: [db]
  worker:
    command: sleep
    args: [\"1002\"]
    instances: 2
  off:
    enabled: false
    command: sleep
    args: [\"1003\"]
";

#[test]
fn status_tells_names_states_and_codes() {
    let place = Place::new();
    let _up = place.up(FILE);
    place.run(&["wait", "db", "api", "worker@*", "--timeout", "20s"]).code(0);
    let table = place.run(&["status"]).code(0);
    let head = table.stdout.lines().next().unwrap();
    assert!(head.starts_with("NAME") && head.ends_with("WHY"), "{head}");
    for name in ["api ", "db ", "worker@0 ", "worker@1 ", "off "] {
        assert!(table.stdout.lines().any(|line| line.starts_with(name)), "{}", table.stdout);
    }
    assert_eq!(place.run(&[]).code(0).stdout.lines().count(), table.stdout.lines().count());
    place.run(&["status"]).warns("`provost up` in");
    place.run(&["status", "-o", "wide"]).code(0).says("CGROUP");
    let rows = place.run(&["status", "-o", "json"]).code(0).json();
    assert_eq!(rows.as_array().unwrap().len(), 5);
    assert_eq!((&rows[0]["name"], &rows[0]["id"]), (&"api".into(), &"api@0".into()));
    assert_eq!(rows[0]["state"], "running");
    assert!(alive(&rows[0]["pid"]));
    place.run(&["status", "nonsense"]).code(4).warns("nonsense");
    place.run(&["status", "api"]).code(0).says("running").says("wanted: up");
    place.run(&["status", "worker"]).code(0).warns("`worker@*` means all 2 instances");
    assert_eq!(place.run(&["ping"]).code(0).stdout, "");
    place.run(&["is-active", "api"]).code(0).says("active");
    place.run(&["is-active", "off"]).code(3).says("inactive");
    place.run(&["is-enabled", "off"]).code(1).says("disabled");
    place.run(&["is-failed", "api"]).code(1).says("active");
}

#[test]
fn stop_takes_dependents_down_first_and_start_brings_them_back() {
    let place = Place::new();
    let _up = place.up(FILE);
    place.run(&["wait", "api", "--timeout", "20s"]).code(0);
    let (db, api) = (row(&place, "db"), row(&place, "api"));
    let stopped = place.run(&["stop", "db"]).code(0).says("db: stopped in");
    let lines: Vec<&str> = stopped.stdout.lines().collect();
    assert!(lines.iter().any(|line| line.starts_with("api: stopped") && line.contains("depends")));
    assert!(!alive(&db["pid"]) && !alive(&api["pid"]));
    place.run(&["stop", "db"]).code(0).says("db: was down already");
    place.run(&["status", "db"]).code(0).says("stopped by hand");
    place.run(&["why", "db"]).code(0).says("operator").says("provost start db");
    place.run(&["start", "db"]).code(0).says("db: started in");
    place.run(&["wait", "api", "--timeout", "20s"]).code(0);
}

#[test]
fn restart_gives_a_new_run() {
    let place = Place::new();
    let _up = place.up(FILE);
    place.run(&["wait", "worker@*", "--timeout", "20s"]).code(0);
    let before = [row(&place, "worker@0"), row(&place, "worker@1")];
    place.run(&["restart", "worker@1"]).code(0).says("worker@1: restarted in");
    let after = [row(&place, "worker@0"), row(&place, "worker@1")];
    assert_eq!(before[0]["pid"], after[0]["pid"], "the other one is left alone");
    assert_ne!(before[1]["pid"], after[1]["pid"]);
    assert!(!alive(&before[1]["pid"]));
    let json = place.run(&["restart", "worker@*", "-o", "json"]).code(0).json();
    assert_eq!(json.as_array().unwrap().len(), 2);
    assert_eq!(json[0]["result"], "done");
}

#[test]
fn names_that_mean_nothing_do_nothing() {
    let place = Place::new();
    let _up = place.up(FILE);
    place.run(&["wait", "db", "--timeout", "20s"]).code(0);
    let before = row(&place, "db");
    for verb in ["start", "stop", "restart", "reset-failed", "enable", "disable", "why", "logs"] {
        place.run(&[verb, "db", "nonsense"]).code(4).warns("nonsense");
    }
    place.run(&["signal", "TERM", "nonsense"]).code(4);
    place.run(&["wait", "nonsense"]).code(4);
    assert_eq!(before["pid"], row(&place, "db")["pid"]);
}

#[test]
fn what_the_file_disables_is_started_only_once() {
    let place = Place::new();
    let _up = place.up(FILE);
    place.run(&["start", "off"]).code(1).warns("disabled").warns("provost enable off");
    place.run(&["start", "--once", "off"]).code(0).says("off: started");
    assert_eq!(row(&place, "off")["state"], "running");
    place.run(&["stop", "off"]).code(0);
}

#[test]
fn a_start_that_fails_says_why_and_what_to_do() {
    let place = Place::new();
    let _up = place.up(
        "processes:\n  broken:\n    command: /no/such/program\n    restartPolicy: { delay: 60s }\n",
    );
    let ran = place.run(&["start", "broken"]).code(1);
    let all = format!("{}{}", ran.stdout, ran.stderr);
    assert!(all.contains("/no/such/program") && all.contains("provost why broken"), "{all}");
    place.run(&["status"]).code(3).says("/no/such/program");
    place.run(&["why", "broken"]).code(0).says("next start in").says("provost reset-failed");
    place.run(&["wait", "broken", "--timeout", "100ms"]).code(1).warns("broken");
}

/// A file that is gone keeps what runs.
#[test]
fn the_foreground_goes_on_as_another_program_without_its_file() {
    let place = Place::new();
    let _up = place.up("processes:\n  a: { command: [sleep, '9999'] }\n");
    place.run(&["wait", "a", "--timeout", "20s"]).code(0);
    let before = row(&place, "a")["pid"].clone();
    std::fs::remove_file(place.project().join("processes.yaml")).unwrap();
    place.run(&["daemon-reexec"]).code(0);
    assert_eq!(row(&place, "a")["pid"], before);
}

#[test]
fn signals_reach_what_runs() {
    let place = Place::new();
    let _up = place.up(FILE);
    place.run(&["wait", "db", "--timeout", "20s"]).code(0);
    let before = row(&place, "db");
    place.run(&["signal", "KILL", "db"]).code(0).says("SIGKILL sent");
    place.run(&["signal", "HUP", "off"]).code(1).warns("not running");
    place.run(&["signal", "nonsense", "db"]).code(64);
    place.run(&["reset-failed", "db"]).code(0);
    place.run(&["wait", "db", "--timeout", "20s"]).code(0);
    assert!(!alive(&before["pid"]));
}

#[test]
fn a_stop_that_takes_long_says_what_is_awaited_and_may_be_left() {
    let place = Place::new();
    let _up = place.up(
        "processes:\n  deaf:\n    shell: \"trap '' TERM; echo deaf; while :; do sleep 1; done\"\n    \
         stop: { timeout: 3s }\n",
    );
    place.run(&["wait", "deaf", "--timeout", "20s"]).code(0);
    let ran = place.run(&["stop", "deaf", "--timeout", "800ms"]).code(1);
    ran.warns("waiting: deaf is stopping")
        .warns("what was asked for goes on")
        .warns("not done after 800ms");
    place.run(&["wait", "deaf", "--for", "down", "--timeout", "20s"]).code(0);
}

#[test]
fn up_stops_everything_when_it_ends() {
    let place = Place::new();
    let up = place.up(FILE);
    place.run(&["wait", "api", "db", "--timeout", "20s"]).code(0);
    let pids = [row(&place, "db")["pid"].clone(), row(&place, "api")["pid"].clone()];
    assert_eq!(up.terminate(), Some(0));
    assert!(pids.iter().all(|pid| !alive(pid)));
    place.run(&["--user", "status"]).code(1);
}

#[test]
fn reload_of_processes_tells_what_came_of_it() {
    let place = Place::new();
    let file = "processes:\n  bot: { command: [sleep, '1000'], reload: { command: [sh, -c, 'test -e ok || { echo no settings; exit 3; }'] }, tags: [chat] }\n  plain: { command: [sleep, '1001'] }\n  off: { command: [sleep, '1002'], enabled: false, reload: { signal: HUP } }\n";
    let _up = place.up(file);
    place.run(&["wait", "bot", "plain", "--timeout", "20s"]).code(0);
    let pid = row(&place, "bot")["pid"].clone();
    let failed = place.run(&["reload", "bot"]).code(1);
    let failed = failed.says("bot: reload failed: exited with code 3").warns("no settings");
    failed.warns("provost why bot");
    place.write("ok", "");
    place.run(&["reload", "bot"]).code(0).says("bot: told to take its settings anew");
    place.run(&["reload", "tag:chat", "--no-wait"]).code(0).says("bot: reload asked for");
    let rows = place.run(&["reload", "b*", "-o", "json"]).code(0).json();
    assert_eq!((&rows[0]["id"], &rows[0]["result"]), (&"bot@0".into(), &"done".into()));
    place.run(&["reload", "bot", "plain"]).code(1).warns("reload: { signal: SIGHUP }");
    place.run(&["reload", "off"]).code(1).warns("off@0 is not running");
    place.run(&["reload", "none"]).code(4).warns("none");
    place.run(&["why", "bot"]).code(0).says("has taken its settings anew");
    assert_eq!(row(&place, "bot")["pid"], pid);
    place.run(&["reload"]).code(0).says("unchanged");
}
