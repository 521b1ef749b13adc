//! An example of each key, and what a change to it causes: worked out by the program, as a plan.

use crate::load;
use provost::config::keys::{
    DEPENDENCY, HEALTH, Key, Kind, LIMITS, LOG, PROCESS, RELOAD, RESTART, SOCKET, STOP, Section,
    WATCH,
};
use provost::core::fields::Consequence;
use provost::core::reload::{ChangeKind, Plan};

/// The value that the manual shows for a key, other than its default.
pub fn example(section: &Section, key: &Key) -> Option<&'static str> {
    let all: &[(&str, &str)] = match section.path {
        "" if section.key("processes").is_some() => &[("baseDir", "/srv/app")],
        "" => &[
            ("enabled", "false"),
            ("name", "\"The API\""),
            ("description", "\"Public HTTP API\""),
            ("command", "[node, server.js]"),
            ("shell", "\"exec ./run $MODE\""),
            ("args", "[server.js]"),
            ("cwd", "/srv/api"),
            ("user", "www-data"),
            ("group", "adm"),
            ("umask", "0077"),
            ("nice", "5"),
            ("env", "{ PORT: 8080 }"),
            ("envFile", "[.env]"),
            ("instances", "3"),
            ("maxUnavailable", "2"),
            ("overlap", "true"),
            ("dependsOn", "{ db: healthy }"),
            ("readiness", "started"),
            ("startTimeout", "2m"),
            ("logFile", "logs/api.log"),
            ("pidFile", "run/api.pid"),
            ("essential", "true"),
            ("sockets", "{ http: \"127.0.0.1:3000\" }"),
            ("tags", "[web]"),
            ("maxMemoryRestart", "400M"),
            ("sandbox", "strict"),
            ("systemd", "{ ProtectHome: tmpfs }"),
        ],
        "restartPolicy" => &[
            ("condition", "on-failure"),
            ("delay", "500ms"),
            ("maxDelay", "30s"),
            ("factor", "1.5"),
            ("jitter", "0"),
            ("minUptime", "1m"),
            ("maxAttempts", "5"),
            ("successExitCodes", "[0, 143]"),
        ],
        "healthCheck" => &[
            ("enabled", "false"),
            ("url", "http://localhost:8080/health"),
            ("tcp", "\"localhost:5432\""),
            ("exec", "[pg_isready, -q]"),
            ("notify", "true"),
            ("interval", "10s"),
            ("timeout", "2s"),
            ("startPeriod", "1m"),
            ("failureThreshold", "5"),
            ("successThreshold", "2"),
            ("onFailure", "none"),
        ],
        "stop" => &[("signal", "SIGINT"), ("timeout", "1m")],
        "reload" => &[("signal", "SIGHUP"), ("command", "[nginx, -s, reload]"), ("timeout", "5s")],
        "watch" => &[
            ("paths", "[dist, config.yaml]"),
            ("action", "reload"),
            ("ignore", "[\"*.log\", cache]"),
            ("debounce", "2s"),
        ],
        "limits" => &[
            ("memory", "512M"),
            ("memoryHigh", "400M"),
            ("cpu", "1.5"),
            ("tasks", "200"),
            ("files", "4096"),
        ],
        "log" => &[("target", "none"), ("maxSize", "50M"), ("maxFiles", "10")],
        "dependsOn" => &[("condition", "healthy"), ("restart", "true")],
        "sockets" => &[("listen", "/run/app/http.sock"), ("mode", "0666")],
        "processManagement" => &[
            ("enabled", "false"),
            ("processConfigFile", "services.yaml"),
            ("autoStart", "false"),
            ("healthCheckInterval", "10s"),
            ("restartAttempts", "20"),
            ("watchConfig", "false"),
            ("reloadDebounceMs", "500"),
            ("validateOnReload", "false"),
            ("backend", "native"),
            ("defaultUser", "app"),
            ("rollback", "manual"),
            ("verdictTimeout", "2m"),
            ("settle", "10s"),
            ("history", "20"),
        ],
        "processManagement.hooks" => &[
            ("onApplied", "[/usr/local/bin/told]"),
            ("onRejected", "[/usr/local/bin/told]"),
            ("onRolledBack", "[/usr/local/bin/told]"),
        ],
        other => panic!("no examples for {other}"),
    };
    let found = all.iter().find(|(name, _)| *name == key.name).map(|(_, value)| *value);
    let needed = !matches!(key.kind, Kind::Later | Kind::Section(_) | Kind::Processes);
    assert_eq!(found.is_some(), needed, "an example of {}", section.full_name(key.name));
    found
}

/// The sections whose keys are settings of one process.
pub const OF_A_PROCESS: &[&Section] =
    &[&PROCESS, &RESTART, &HEALTH, &STOP, &RELOAD, &WATCH, &LIMITS, &LOG, &DEPENDENCY, &SOCKET];

/// What giving the key its example causes for a process that has none.
pub fn consequence(section: &Section, key: &Key) -> &'static str {
    let value = example(section, key).expect("a key with a value");
    let (before, after) = entries(section, key.name, value);
    let (old, new) = (file(&before), file(&after));
    let dir = tempfile::tempdir().unwrap();
    let config = |text: &str| {
        let loaded = load(dir.path(), text);
        loaded.config.unwrap_or_else(|| panic!("{text}\n{:#?}", loaded.diagnostics))
    };
    let plan = Plan::between(&config(&old), &config(&new));
    let [change] = &plan.changes[..] else { panic!("not one change:\n{old}\n{new}\n{plan:#?}") };
    assert_eq!((change.process.as_str(), change.kind), ("api", ChangeKind::Modified));
    match change.consequence {
        Consequence::Live => "live",
        Consequence::Restart => "restart",
        Consequence::Start | Consequence::Stop => "start or stop",
    }
}

fn file(api: &str) -> String {
    format!(
        "processes:\n  db: {{ command: db, healthCheck: {{ tcp: \"h:1\" }} }}\n  api: {{ {api} }}\n"
    )
}

/// The entries of the process without and with the key.
fn entries(section: &Section, key: &str, value: &str) -> (String, String) {
    let check = "healthCheck: { tcp: \"h:1\" }";
    match (section.path, key) {
        ("", "command") => ("command: node".into(), format!("command: {value}")),
        ("", "shell") => ("shell: ./run".into(), format!("shell: {value}")),
        ("", "readiness") => {
            (format!("command: x, {check}"), format!("command: x, {check}, {key}: {value}"))
        }
        ("", _) => ("command: x".into(), format!("command: x, {key}: {value}")),
        ("healthCheck", "url" | "tcp" | "exec" | "notify") => (
            format!("command: x, {check}"),
            format!("command: x, healthCheck: {{ {key}: {value} }}"),
        ),
        ("healthCheck", _) => (
            format!("command: x, {check}"),
            format!("command: x, healthCheck: {{ tcp: \"h:1\", {key}: {value} }}"),
        ),
        ("dependsOn", _) => (
            "command: x, dependsOn: [db]".into(),
            format!("command: x, dependsOn: {{ db: {{ {key}: {value} }} }}"),
        ),
        ("sockets", _) => {
            let one = |rest: &str| format!("command: x, sockets: {{ a: {{ {rest} }} }}");
            let listen = if key == "mode" { "listen: /run/a, " } else { "" };
            (one("listen: /run/a"), one(&format!("{listen}{key}: {value}")))
        }
        ("log", "maxSize" | "maxFiles") => {
            let log = "command: x, logFile: a.log";
            let size = if key == "maxSize" { "" } else { "maxSize: 1M, " };
            let old = if size.is_empty() { String::new() } else { ", log: { maxSize: 1M }".into() };
            (format!("{log}{old}"), format!("{log}, log: {{ {size}{key}: {value} }}"))
        }
        ("reload", "timeout") => (
            "command: x, reload: { command: [y] }".into(),
            format!("command: x, reload: {{ command: [y], {key}: {value} }}"),
        ),
        ("watch", "paths") => {
            ("command: x".into(), format!("command: x, watch: {{ {key}: {value} }}"))
        }
        ("watch", _) => {
            let watch = "command: x, reload: { signal: HUP }, watch: { paths: [a]";
            (format!("{watch} }}"), format!("{watch}, {key}: {value} }}"))
        }
        (path, _) => ("command: x".into(), format!("command: x, {path}: {{ {key}: {value} }}")),
    }
}
