//! What needs no daemon.

use crate::common::waiting::ends_within;
use crate::support::Place;
use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

#[test]
fn what_is_not_understood_ends_with_64() {
    let place = Place::new();
    for args in [
        &["--nonsense"][..],
        &["nonsense"],
        &["start"],
        &["status", "--output", "xml"],
        &["wait", "api", "--for", "nonsense"],
        &["wait", "api", "--timeout", "30"],
        &["start", "api", "--no-wait", "--timeout", "3s"],
        &["signal"],
        &["--system", "--user", "status"],
        &["reload", "api", "--force"],
        &["reload", "--no-wait"],
        &["up", "--detach"],
        &["up", "--system"],
    ] {
        let ran = place.run(args).code(64);
        assert!(!ran.stderr.is_empty() && ran.stdout.is_empty(), "{args:?}");
    }
}

#[test]
fn words_of_other_tools_are_answered() {
    let place = Place::new();
    place.run(&["scale", "api=3"]).code(64).warns("set `instances` in the file");
    place.run(&["show", "api"]).code(64).warns("provost why NAME");
    place.run(&["version"]).code(0).says(env!("CARGO_PKG_VERSION"));
}

#[test]
fn every_help_has_its_exit_codes() {
    let place = Place::new();
    place.run(&["--help"]).code(0).says("Exit codes");
    for command in [
        "up",
        "status",
        "start",
        "stop",
        "restart",
        "signal",
        "reset-failed",
        "enable",
        "disable",
        "reload",
        "check",
        "plan",
        "history",
        "diff",
        "show",
        "rollback",
        "apply",
        "logs",
        "events",
        "wait",
        "why",
        "schema",
        "completions",
    ] {
        place.run(&[command, "--help"]).code(0).says("Exit codes").says("64");
    }
    let help = place.run(&["--help"]).code(0).stdout;
    for absent in ["is-active", "top"] {
        assert!(!help.contains(&format!("  {absent}")), "{absent} is in the help");
    }
}

#[test]
fn without_a_daemon_it_says_how_to_start_one() {
    let place = Place::new();
    for args in [&["--user"][..], &["--user", "status"], &["--user", "stop", "api"]] {
        let ran = place.run(args).code(1);
        assert!(ran.stdout.is_empty() && !ran.stderr.is_empty(), "{args:?}");
    }
    let socket = place.project().join("none");
    place.run(&["--socket", socket.to_str().unwrap(), "status"]).code(1);
}

#[test]
fn up_without_a_file_says_which() {
    Place::new().run(&["up"]).code(1).warns("no provost.yaml and no processes.yaml");
}

#[test]
fn a_good_file_is_valid() {
    let place = Place::new();
    let file = "processes:\n  api:\n    command: sleep\n    args: [\"9\"]\n";
    let path = place.write("processes.yaml", file);
    place.run(&["check"]).code(0).says("valid, 1 process");
    place.run(&["check", path.to_str().unwrap()]).code(0);
    place.run(&["validate"]).code(0);
    assert_eq!(place.run(&["check", "-o", "json"]).code(0).json(), serde_json::json!([]));
}

#[test]
fn all_that_is_wrong_is_shown_with_its_place() {
    let place = Place::new();
    place.write(
        "bad.yaml",
        "processes:\n  api:\n    comand: sleep\n  web:\n    command: sleep\n    instances: many\n",
    );
    let ran = place.run(&["check", "bad.yaml"]).code(1);
    let ran = ran.says("bad.yaml").says("comand").says("command").says("instances");
    let ran = ran.says("not valid");
    assert!(!ran.stdout.contains('\x1b'), "no colours without a terminal");
    let json = place.run(&["check", "bad.yaml", "-o", "json"]).code(1).json();
    let rows = json.as_array().unwrap();
    assert!(rows.len() >= 2, "{json}");
    for row in rows {
        assert_eq!(row["severity"], "error", "{row}");
        assert!(row["line"].as_u64().unwrap() > 0 && row["column"].as_u64().unwrap() > 0, "{row}");
        assert!(row["code"].is_string() && row["message"].is_string(), "{row}");
    }
}

#[test]
fn what_the_machine_lacks_is_shown() {
    let place = Place::new();
    place.write("p.yaml", "processes:\n  api:\n    command: no-such-program-anywhere\n");
    place.run(&["check", "p.yaml"]).code(1).says("no-such-program-anywhere");
}

#[test]
fn a_missing_file_is_not_valid() {
    let place = Place::new();
    place.run(&["check", "none.yaml"]).code(1).warns("none.yaml does not exist");
    place.run(&["check"]).code(1).warns("name the file");
    // Nor is another one meant.
    place.write("processes.yaml", "processes: {a: {command: [sleep, '9']}}");
    for words in [["check", "none.yaml"].as_slice(), &["up", "-c", "none.yaml"]] {
        place.run(words).code(1).warns("none.yaml does not exist");
    }
}

#[test]
fn what_is_piped_in_is_checked_too() {
    let place = Place::new();
    let check = |content: &str| {
        let mut check = place.command(&["check", "-"]);
        check.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut check = check.spawn().unwrap();
        check.stdin.take().unwrap().write_all(content.as_bytes()).unwrap();
        let output = check.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, said) = check("processes: {a: {command: [sleep, '9']}}");
    assert!(code == Some(0) && said.contains("valid, 1 process"), "{said}");
    let (code, said) = check("processes: {a: {comand: x}}");
    assert!(code == Some(1) && said.contains("not valid"), "{said}");
}

#[test]
fn warnings_are_too_much_where_that_is_asked_for() {
    let place = Place::new();
    place.write("p.yaml", "processes: {a: {command: [sleep, '9'], instances: 2, pidFile: a.pid}}");
    let warned = place.run(&["check", "p.yaml"]).code(0).says("1 warning");
    assert!(!warned.stdout.contains("--strict"), "{}", warned.stdout);
    place.run(&["check", "--strict", "p.yaml"]).code(1).says("with --strict that is not enough");
}

#[test]
fn up_runs_once_for_a_directory() {
    let place = Place::new();
    let _up = place.up("processes: {a: {command: [sleep, '9']}}");
    place.run(&["up"]).code(1).warns("`provost up` runs already for this directory (pid ");
}

/// Who waits for it is told at once.
#[test]
fn up_with_a_file_that_is_not_valid_ends() {
    let place = Place::new();
    for broken in ["processes: {a: {comand: x}}", ""] {
        place.write("processes.yaml", broken);
        place.run(&["up"]).code(1).warns("not valid");
    }
}

#[test]
fn the_schema_is_json_and_knows_the_keys() {
    let schema = Place::new().run(&["schema"]).code(0).json();
    assert!(schema["$schema"].as_str().unwrap().contains("json-schema.org"), "{schema}");
    let text = schema.to_string();
    for key in ["processes", "healthCheck", "restartPolicy", "dependsOn", "processManagement"] {
        assert!(text.contains(key), "{key}");
    }
}

#[test]
fn there_are_completions_for_the_usual_shells() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish"] {
        place.run(&["completions", shell]).code(0).says("reset-failed");
    }
    place.run(&["completions", "csh"]).code(64);
}

#[test]
fn a_closed_pipe_is_no_failure() {
    let place = Place::new();
    let (ours, theirs) = std::io::pipe().unwrap();
    drop(ours);
    let mut child = place
        .command(&["completions", "bash"])
        .stdout(theirs)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    assert!(ends_within(&child, Duration::from_secs(10)));
    let mut said = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut said).unwrap();
    assert_eq!((child.wait().unwrap().code(), said.as_str()), (Some(0), ""));
}
