//! plan, reload, enable and disable against a real daemon.

use crate::support::{Place, row};

/// Not watched: a test must say itself when the file is read.
const FILE: &str = "\
processManagement:
  watchConfig: false
processes:
  api:
    command: sleep
    args: [\"1000\"]   # how long
  web:
    enabled: true      # a comment that stays
    command: sleep
    args: [\"1001\"]
";

#[test]
fn a_plan_says_what_a_reload_does() {
    let place = Place::new();
    let _up = place.up(FILE);
    place.run(&["wait", "api", "web", "--timeout", "20s"]).code(0);
    place.run(&["plan"]).code(0).says("nothing would change");
    place.run(&["reload"]).code(0).says("unchanged");

    let (api, web) = (row(&place, "api"), row(&place, "web"));
    let changed =
        FILE.replace("1001", "1002") + "  new:\n    command: sleep\n    args: [\"1003\"]\n";
    place.write("processes.yaml", &changed);
    let plan = place.run(&["plan"]).code(2);
    plan.says("~ web").says("command").says("1001").says("1002").says("restart").says("+ new");
    let json = place.run(&["plan", "-o", "json"]).code(2).json();
    assert_eq!(json["changes"].as_array().unwrap().len(), 2, "{json}");
    assert_eq!(row(&place, "web")["pid"], web["pid"], "a plan does nothing");

    place.run(&["reload"]).code(0).says("1 added, 0 removed, 1 modified, 1 unchanged");
    assert_eq!(row(&place, "api")["pid"], api["pid"]);
    assert_ne!(row(&place, "web")["pid"], web["pid"]);
    place.run(&["plan"]).code(0);

    place.write("other.yaml", FILE);
    place.run(&["plan", "other.yaml"]).code(2).says("- new");
    place.run(&["plan", "none.yaml"]).code(1).warns("none.yaml");
}

#[test]
fn a_bad_file_is_rejected_with_its_places() {
    let place = Place::new();
    let _up = place.up(FILE);
    place.run(&["wait", "api", "web", "--timeout", "20s"]).code(0);
    let before = row(&place, "web");
    place.write("processes.yaml", &FILE.replace("args: [\"1001\"]", "instances: many"));
    let ran = place.run(&["reload"]).code(1).warns("instances").warns("nothing was changed");
    assert!(ran.stderr.contains("processes.yaml"), "{}", ran.stderr);
    place.run(&["plan"]).code(1).warns("instances");
    let json = place.run(&["reload", "-o", "json"]).code(1).json();
    assert_eq!(json["result"], "rejected");
    place.run(&["status"]).code(0).warns("not valid");
    assert_eq!(row(&place, "web")["pid"], before["pid"]);
}

#[test]
fn what_does_not_come_up_fails_the_reload() {
    let place = Place::new();
    let _up = place.up(FILE);
    place.run(&["wait", "api", "web", "--timeout", "20s"]).code(0);
    let sick = "    healthCheck: { exec: [\"false\"], interval: 1s }\n    startTimeout: 1s\n";
    let tried = |settings: &str| {
        let settings = format!("watchConfig: false\n  {settings}");
        format!("{}{sick}", FILE.replace("1001", "1002").replace("watchConfig: false", &settings))
    };
    place.write("processes.yaml", &tried("settle: 0\n  verdictTimeout: 3s"));
    let ran = place.run(&["reload"]).code(2);
    ran.says("rolled back: generation 1 runs again instead of 2").says("web");
    place.run(&["status"]).code(0).warns("the file on disk was tried as 2 and did not come up");
    place.run(&["reload"]).code(2).warns("reload --force");
    let json = place.run(&["reload", "--force", "-o", "json"]).code(2).json();
    assert_eq!((&json["result"], &json["tried"]), (&"rolled-back".into(), &3.into()));
    // Where nobody wants that, it stays.
    place.write("processes.yaml", &tried("rollback: off"));
    let ran = place.run(&["reload"]).code(1);
    ran.says("not all came up").says("web").warns("provost why web");
}

#[test]
fn what_was_before_is_applied_again_by_its_number() {
    let place = Place::new();
    let quick = FILE.replace("watchConfig: false", "watchConfig: false\n  settle: 0");
    let _up = place.up(&quick);
    place.run(&["wait", "api", "web", "--timeout", "20s"]).code(0);
    let api = row(&place, "api")["pid"].clone();
    let other = quick.replace("1001", "1002");
    place.write("processes.yaml", &other);
    place.run(&["reload"]).code(0).says("applied generation 2");
    let two = row(&place, "web")["pid"].clone();

    // What is on disk waits.
    place.run(&["rollback"]).code(0).says("applied generation 3").warns("waits until it changes");
    assert_ne!(row(&place, "web")["pid"], two);
    place.run(&["status"]).code(0).warns("held off since the rollback to 1");
    place.run(&["reload"]).code(2).warns("held off since the rollback to 1");
    assert_eq!(place.read("processes.yaml"), other);
    place.run(&["history"]).code(0).says("rollback to 1");

    // Or is put back as well.
    place.run(&["rollback", "2"]).code(0).says("applied generation 4");
    place.run(&["rollback", "1", "--write"]).code(0).says("applied generation 5");
    assert_eq!(place.read("processes.yaml"), quick);
    place.run(&["reload"]).code(0).says("unchanged");
    place.run(&["rollback", "77"]).code(1).warns("no generation 77");
    assert_eq!(row(&place, "api")["pid"], api);
}

#[test]
fn a_file_is_put_in_the_place_of_the_one_that_is_there() {
    let place = Place::new();
    let quick = FILE.replace("watchConfig: false", "watchConfig: false\n  settle: 0");
    let _up = place.up(&quick);
    place.run(&["wait", "api", "web", "--timeout", "20s"]).code(0);
    let other = quick.replace("1001", "1002");
    place.write("other.yaml", &other);
    place.run(&["apply", "--dry-run", "other.yaml"]).code(2).says("1002");
    assert_eq!(place.read("processes.yaml"), quick);
    place.run(&["apply", "other.yaml"]).code(0).says("applied generation 2");
    assert_eq!(place.read("processes.yaml"), other);
    place.run(&["history"]).code(0).says("apply");
    place.write("other.yaml", &other.replace("sleep", "no-such-program"));
    place.run(&["apply", "other.yaml"]).code(1).warns("no-such-program");
    place.write("other.yaml", "processes: [");
    place.run(&["apply", "other.yaml"]).code(1).warns("nothing was changed");
    assert_eq!(place.read("processes.yaml"), other);
}

#[test]
fn enable_and_disable_edit_the_file_and_apply_it() {
    let place = Place::new();
    let _up = place.up(FILE);
    place.run(&["wait", "api", "web", "--timeout", "20s"]).code(0);
    place.run(&["disable", "web"]).code(0).says("web");
    assert_eq!(place.read("processes.yaml"), FILE.replace("enabled: true", "enabled: false"));
    assert_eq!(row(&place, "web")["state"], "down");
    place.run(&["why", "web"]).code(0).says("isabled in the file").says("provost enable web");
    place.run(&["enable", "web"]).code(0);
    assert_eq!(place.read("processes.yaml"), FILE);
    place.run(&["wait", "web", "--timeout", "20s"]).code(0);
    place.run(&["enable", "web"]).code(0).says("unchanged");
}

#[test]
fn enabling_does_not_start_what_was_stopped_by_hand() {
    let place = Place::new();
    let _up = place.up(FILE);
    place.run(&["stop", "web"]).code(0);
    place.run(&["disable", "web"]).code(0);
    place.run(&["enable", "web"]).code(0).warns("provost start web");
    assert_eq!(row(&place, "web")["state"], "down");
}
