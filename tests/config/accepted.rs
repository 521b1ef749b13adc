//! What is accepted, and what becomes of it.

use crate::{Files, good, load_text, places, process, refused};
use provost::config::load::Mode;
use provost::core::ids::ProcessId;
use provost::core::limits::Limits;
use provost::core::spec::{
    Check, Command, Condition, LogRotation, LogTarget, Notify, OnFailure, ProcessSpec, Readiness,
    RestartCondition, Signal, Text,
};
use provost::core::unit::Sandbox;
use std::sync::Arc;
use std::time::Duration;

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn argv_of(spec: &ProcessSpec, index: u32) -> Vec<String> {
    spec.exec.command.argv(index).iter().map(|word| word.value().to_owned()).collect()
}

fn argv(spec: &ProcessSpec) -> Vec<String> {
    argv_of(spec, 0)
}

/// The main file of people who come from a proxy server with process management.
const MANAGEMENT: &str = r#"
# Process management configuration
processManagement:
  enabled: true
  processConfigFile: "config/processes.yaml"
  autoStart: true
  healthCheckInterval: 30000
  restartAttempts: 3
  # Dynamic reloading settings
  watchConfig: true           # Enable file watching (default: true)
  reloadDebounceMs: 2000      # Debounce time in milliseconds (default: 2000)
  validateOnReload: true      # Validate configuration before applying (default: true)
"#;

#[test]
fn a_default_that_is_spelled_out_changes_nothing() {
    let plain = Files::new().with("processes.yaml", "processes: { a: { command: x } }");
    let spelled =
        Files::new().with("processes.yaml", "processes: { a: { command: x, umask: 0022 } }");
    let umask = |files: &Files| process(&files.load("processes.yaml"), "a").exec.umask;
    assert_eq!(umask(&plain), umask(&spelled));
}

fn three_servers() -> String {
    let server = |n: u32| {
        format!(
            r#"
  # Example Server {n}
  example-server-{n}:
    enabled: true
    name: "Example Server {n}"
    description: "An example application server"
    command: "node"
    args: ["index.ts","--config","/path/to/example-config-{n}"]
    cwd: "/path/to/example-app-{n}"
    env:
      NODE_ENV: "production"
      PORT: "300{n}"
    pidFile: "./pids/example-server-{n}.pid"
    logFile: "./logs/example-server-{n}.log"
    restartPolicy:
      maxAttempts: 3
      delay: 5000
    healthCheck:
      enabled: true
      url: "http://localhost:300{n}/health"
      interval: 30000
      timeout: 5000
"#
        )
    };
    format!("# Process Management Configuration\nprocesses:{}{}{}", server(1), server(2), server(3))
}

#[test]
fn three_servers_of_a_proxy() {
    let files =
        Files::new().with("proxy.yaml", MANAGEMENT).with("config/processes.yaml", three_servers());
    let loaded = files.load("proxy.yaml");
    let spec = process(&loaded, "example-server-2");
    assert_eq!(good(&loaded).processes.len(), 3);
    assert_eq!(argv(&spec), ["node", "index.ts", "--config", "/path/to/example-config-2"]);
    assert_eq!(spec.exec.cwd, Text::new("/path/to/example-app-2"));
    assert_eq!(spec.exec.env["PORT"].0, Text::new("3002"));
    let beside = |name: &str| Some(Text::new(files.path(name).to_str().unwrap()));
    assert_eq!(spec.exec.pid_file, beside("config/pids/example-server-2.pid"));
    assert_eq!(spec.exec.log_file, beside("config/logs/example-server-2.log"));
    assert_eq!(spec.restart.max_attempts, Some(3));
    assert_eq!(spec.restart.delay, seconds(5));
    let health = spec.health.as_ref().unwrap();
    assert_eq!(health.check, Check::Http(Text::new("http://localhost:3002/health")));
    assert_eq!((health.interval, health.timeout), (seconds(30), seconds(5)));
    assert_eq!(spec.readiness, Readiness::Health);
    assert_eq!(loaded.daemon.debounce, seconds(2));
    assert!(loaded.daemon.watch && loaded.daemon.validate);
}

#[test]
fn fragments_of_examples_below_processes() {
    for fragment in [
        "
  example-server:
    enabled: true
    name: \"Example Server\"
    command: \"node\"
    args: [\"index.js\"]
    cwd: \"./app\"
    env:
      NODE_ENV: \"production\"
    healthCheck:
      enabled: true
      url: \"http://localhost:3000/health\"
",
        "
  example-server-4:
    enabled: false  # Start disabled
    name: \"Example Server 4\"
    command: \"node\"
    args: [\"index.js\"]
",
        "
  example-server-4:
    enabled: true   # Enable after validation
    name: \"Example Server 4\"
    command: \"node\"
    args: [\"index.js\"]
    cwd: \"./app4\"
",
    ] {
        good(&load_text(format!("processes:{fragment}")));
    }
    let bad = "processes:
  example-server:
    enabled: true
    # Missing 'command' field
    args: [\"index.js\"]
";
    let loaded = load_text(bad);
    assert_eq!(places(&loaded.diagnostics), ["2:3 missing-command"]);
    assert_eq!(loaded.diagnostics[0].message, "process `example-server` has no `command`");
}

#[test]
fn every_key_arrives() {
    let text = r#"
processes:
  db: { command: x, healthCheck: { tcp: "localhost:5432" } }
  migrate: { command: x, restartPolicy: { condition: false } }
  api:
    enabled: false
    name: API
    description: "Public HTTP API"
    command: [node, --inspect]
    args: [server.js, "${INSTANCE}"]
    cwd: /srv/api
    user: api
    group: 1000
    umask: 0027
    nice: -5
    env: { NODE_ENV: production, PORT: "300${INSTANCE}", EMPTY: "" }
    instances: 2
    maxUnavailable: 3
    dependsOn: { migrate: completed, db: { condition: healthy, restart: true } }
    readiness: started
    startTimeout: 1m
    restartPolicy:
      condition: on-failure
      delay: 250ms
      maxDelay: 2m30s
      factor: 1.5
      jitter: 0
      minUptime: 1h
      maxAttempts: 7
      successExitCodes: [0, 143]
    healthCheck:
      url: http://localhost:300${INSTANCE}/health
      interval: 10s
      timeout: 900
      startPeriod: 0
      failureThreshold: 5
      successThreshold: 2
      onFailure: stop
    stop: { signal: INT, timeout: 3s, command: null }
    limits: { files: 4096 }
    logFile: ./logs/api.log
    log: { target: none, maxSize: 50M, maxFiles: 3 }
    pidFile: /run/api-${INSTANCE}.pid
    essential: true
    tags: [web, 1.10]
"#;
    let files = Files::new().with("processes.yaml", text);
    let spec = process(&files.load("processes.yaml"), "api");
    assert!(!spec.enabled && spec.essential);
    assert_eq!(spec.name.as_deref(), Some("API"));
    assert_eq!(spec.description.as_deref(), Some("Public HTTP API"));
    assert_eq!(argv_of(&spec, 1), ["node", "--inspect", "server.js", "1"]);
    assert_eq!(spec.exec.cwd, Text::new("/srv/api"));
    assert_eq!(spec.exec.user.as_deref(), Some("api"));
    assert_eq!(spec.exec.group.as_deref(), Some("1000"));
    assert_eq!((spec.exec.umask, spec.exec.nice), (Some(0o027), Some(-5)));
    assert_eq!(spec.exec.env["PORT"].0.render(1), "3001");
    assert_eq!(spec.exec.env["EMPTY"].0, Text::new(""));
    assert!(!spec.overlap);
    assert_eq!((spec.instances, spec.max_unavailable.get()), (2, 3));
    let edges: Vec<_> =
        spec.depends_on.iter().map(|d| (d.on.as_str(), d.condition, d.restart)).collect();
    assert_eq!(edges, [("db", Condition::Healthy, true), ("migrate", Condition::Completed, false)]);
    assert_eq!(spec.readiness, Readiness::Started);
    assert_eq!(spec.start_timeout, seconds(60));
    assert_eq!(spec.restart.condition, RestartCondition::OnFailure);
    assert_eq!(spec.restart.delay, Duration::from_millis(250));
    assert_eq!(spec.restart.max_delay, seconds(150));
    assert_eq!((spec.restart.factor, spec.restart.jitter), (1.5, 0.0));
    assert_eq!(spec.restart.min_uptime, seconds(3600));
    assert_eq!(spec.restart.max_attempts, Some(7));
    assert_eq!(spec.restart.success_exit_codes, [0, 143].into());
    let health = spec.health.as_ref().unwrap();
    assert_eq!(health.check, Check::Http(Text::new("http://localhost:300\0/health")));
    assert_eq!(health.interval, seconds(10));
    assert_eq!(health.timeout, Duration::from_millis(900));
    assert_eq!(health.start_period, Duration::ZERO);
    assert_eq!((health.failure_threshold, health.success_threshold), (5, 2));
    assert_eq!(health.on_failure, OnFailure::Stop);
    assert_eq!((spec.stop.signal, spec.stop.timeout), (Signal(2), seconds(3)));
    assert_eq!(spec.exec.max_files, Some(4096));
    let log = files.path("logs/api.log");
    assert_eq!(spec.exec.log_file, Some(Text::new(log.to_str().unwrap())));
    assert_eq!(spec.exec.log_target, LogTarget::None);
    let rotation = LogRotation { max_size: 50 << 20, max_files: 3 };
    assert_eq!(spec.exec.log_rotation, Some(rotation));
    assert_eq!(spec.exec.pid_file, Some(Text::new("/run/api-\0.pid")));
    assert!(spec.tags.iter().map(|tag| &**tag).eq(["1.10", "web"]));
}

#[test]
fn defaults_are_those_of_the_core() {
    let files = Files::new().with("processes.yaml", "processes:\n  a: { command: x }\n");
    let spec = process(&files.load("processes.yaml"), "a");
    let id = ProcessId::new("a").unwrap();
    let command = Command::Program { program: Text::new("x"), args: Arc::default() };
    let mut wanted = ProcessSpec::new(id, command);
    wanted.exec.cwd = Text::new(files.root().to_str().unwrap());
    assert_eq!(*spec, wanted);
}

#[test]
fn settings_give_defaults() {
    let text = "
processManagement:
  enabled: false
  autoStart: false
  healthCheckInterval: 7s
  restartAttempts: 4
  backend: native
  defaultUser: nobody
  history: 7
processes:
  a: { command: x, healthCheck: { tcp: 'a:1' } }
  b:
    command: x
    restartPolicy: { maxAttempts: null }
    healthCheck: { tcp: 'a:1', interval: 1s }
";
    let loaded = load_text(text);
    let config = good(&loaded);
    assert!(!config.settings.enabled && !config.settings.auto_start);
    assert_eq!((&*loaded.daemon.default_user, loaded.daemon.history), ("nobody", 7));
    let (a, b) = (process(&loaded, "a"), process(&loaded, "b"));
    assert_eq!((a.restart.max_attempts, b.restart.max_attempts), (Some(4), None));
    assert_eq!(a.health.as_ref().unwrap().interval, seconds(7));
    assert_eq!(b.health.as_ref().unwrap().interval, seconds(1));
}

#[test]
fn scalars_keep_their_text() {
    let text = "processes:\n  a:\n    command: x\n    args: [1.10, no, 0022, 1e3, ~x, true]\n    env: {PORT: 8080, V: 1.10, D: true, N: no}\n";
    let spec = process(&load_text(text), "a");
    assert_eq!(argv(&spec), ["x", "1.10", "no", "0022", "1e3", "~x", "true"]);
    let values: Vec<_> = spec.exec.env.values().map(|v| v.0.to_string()).collect();
    assert_eq!(values, ["true", "no", "8080", "1.10"]);
}

#[test]
fn ids_are_words() {
    let config = good(&load_text(
        "processes:\n  1: {command: x}\n  true: {command: x}\n  null: {command: x}\n  1.10: {command: x}\n",
    ));
    let ids: Vec<_> = config.processes.keys().map(ProcessId::as_str).collect();
    assert_eq!(ids, ["1", "1.10", "null", "true"]);
}

#[test]
fn anchors_and_merges() {
    let text = "
x-defaults: &defaults
  cwd: /srv
  env: &env { A: 1, B: 2 }
  restartPolicy: { condition: no }
x-more: &more { nice: 3, cwd: /more }
processes:
  a: { <<: *defaults, command: x }
  b: { command: x, <<: [*defaults, *more], cwd: /own }
  c: { <<: [*more, *defaults], command: x, env: { <<: *env, B: 3 } }
  d: &d { shell: 'echo $HOME', <<: { nice: 4 } }
  e: *d
  f: { <<: *d, nice: null }
";
    let loaded = load_text(text);
    let get = |id| process(&loaded, id);
    assert_eq!(get("a").exec.cwd, Text::new("/srv"));
    assert_eq!(get("a").restart.condition, RestartCondition::No);
    assert_eq!((get("b").exec.cwd.clone(), get("b").exec.nice), (Text::new("/own"), Some(3)));
    assert_eq!(get("c").exec.cwd, Text::new("/more"));
    assert_eq!(get("c").exec.env["B"].0, Text::new("3"));
    assert_eq!(get("c").exec.env["A"].0, Text::new("1"));
    assert_eq!(
        (get("d").exec.nice, get("e").exec.nice, get("f").exec.nice),
        (Some(4), Some(4), None)
    );
    assert_eq!(argv(&get("e")), ["/bin/sh", "-c", "echo $HOME"]);
    assert!(Arc::ptr_eq(&get("a").exec.env, &get("b").exec.env), "one anchor, one environment");
}

#[test]
fn a_merge_in_quotes_is_a_key() {
    let loaded = load_text("x-a: &a {nice: 1}\nprocesses:\n  a: {command: x, '<<': *a}\n");
    assert_eq!(places(&loaded.diagnostics), ["3:19 unknown-key"]);
}

#[test]
fn byte_order_mark_and_crlf() {
    let text = "\u{feff}processes:\r\n  été-free:\r\n".replace("été-free", "a")
        + "    command: x\r\n    description: |\r\n      one\r\n      two\r\n";
    let spec = process(&load_text(text), "a");
    assert_eq!(spec.description.as_deref(), Some("one\ntwo\n"));
}

#[test]
fn names_are_filled_in_from_files_and_then_the_daemon() {
    let files = Files::new()
        .with("a.env", "X=file-a\nY=$X ${X}\nexport Q='a b'\n")
        .with("sub/b.env", "X=file-b\n")
        .with(
            "processes.yaml",
            "processes:\n  a:\n    command: x\n    envFile: [a.env, ./sub/b.env]\n    env: {Y: own, Z: '${X} ${D} $${X} $X'}\n    \
             args: ['${X}', '${INSTANCE}', '${HOME_OF}']\n    cwd: '${HOME_OF}/app'\n  b: {command: x, envFile: '${WHICH}.env'}\n",
        )
        .variable("D", "daemon")
        .variable("X", "daemon")
        .variable("WHICH", "a")
        .variable("HOME_OF", "/home/me");
    let loaded = files.load("processes.yaml");
    let spec = process(&loaded, "a");
    assert_eq!(argv_of(&spec, 3), ["x", "file-b", "3", "/home/me"]);
    assert_eq!(spec.exec.cwd, Text::new("/home/me/app"));
    assert_eq!(spec.exec.cwd.to_string(), "${HOME_OF}/app");
    let value = |name: &str| spec.exec.env[name].0.render(0).into_owned();
    assert_eq!(value("X"), "file-b");
    assert_eq!(value("Y"), "own");
    assert_eq!(value("Z"), "file-b daemon ${X} $X");
    assert_eq!(value("Q"), "a b");
    assert_eq!(process(&loaded, "b").exec.env["Y"].0.to_string(), "$X ${X}");
}

#[test]
fn limits_sandbox_and_properties() {
    let text = "processes:
  a:
    command: x
    maxMemoryRestart: 450M
    limits: {memory: 512M, memoryHigh: 400M, cpu: 1.5, tasks: 200, files: 64}
    sandbox: strict
    systemd:
      ProtectHome: tmpfs
      PrivateTmp: true
      SystemCallFilter: '@system-service @mount'
      ReadOnlyPaths: [/srv/a b, -/srv/c]
      IOWeight: null
  b: {command: x, sandbox: none, systemd: {}, limits: {}}
  c: {command: x}
";
    let loaded = load_text(text);
    let a = process(&loaded, "a");
    let limits = Limits {
        memory: Some(512 << 20),
        memory_high: Some(400 << 20),
        cpu: Some(1_500),
        tasks: Some(200),
        max_memory_restart: Some(450 << 20),
    };
    assert_eq!((&*a.limits, a.exec.max_files), (&limits, Some(64)));
    assert_eq!(a.exec.sandbox, Sandbox::Strict);
    let words = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
    let unit = [
        ("PrivateTmp", words(&["true"])),
        ("ProtectHome", words(&["tmpfs"])),
        ("ReadOnlyPaths", words(&["/srv/a b", "-/srv/c"])),
        ("SystemCallFilter", words(&["@system-service", "@mount"])),
    ];
    let unit = unit.map(|(name, words)| (name.to_owned(), words));
    assert_eq!(*a.exec.unit, unit.into());
    let (b, c) = (process(&loaded, "b"), process(&loaded, "c"));
    // What is spelled out is what is there without a word.
    assert_eq!((&b.exec, &b.limits), (&c.exec, &c.limits));
    assert_eq!(c.exec.sandbox, Sandbox::None);
}

#[test]
fn a_check_that_is_off_needs_nothing() {
    let loaded = load_text("processes:\n  a: {command: x, healthCheck: {enabled: false}}\n");
    let spec = process(&loaded, "a");
    assert_eq!((spec.health.clone(), spec.readiness), (None, Readiness::Started));
}

#[test]
fn a_long_first_delay_is_its_own_ceiling() {
    let loaded = load_text("processes:\n  a: {command: x, restartPolicy: {delay: 10m}}\n");
    assert_eq!(process(&loaded, "a").restart.max_delay, seconds(600));
}

#[test]
fn a_system_daemon_accepts_the_same() {
    let files = Files::new().with("processes.yaml", three_servers()).mode(Mode::System);
    assert!(!refused(&files.load("processes.yaml")));
}

#[test]
fn a_process_may_speak_for_itself() {
    let text = "processes:\n  a: {command: x, readiness: notify}\n  \
                b: {command: x, healthCheck: {notify: true, interval: 10s}}\n  \
                c: {command: x, readiness: notify, healthCheck: {tcp: 'h:1', notify: false}}\n  \
                d: {command: x, healthCheck: {notify: true, failureThreshold: 2}}\n";
    let loaded = load_text(text);
    let spec = |id: &str| process(&loaded, id);
    let (a, b, c, d) = (spec("a"), spec("b"), spec("c"), spec("d"));
    assert_eq!((a.readiness, a.health.clone()), (Readiness::Notify, None));
    assert_eq!(a.notify(), Some(Notify { watchdog: None }));
    let health = b.health.clone().unwrap();
    assert_eq!((b.readiness, &health.check), (Readiness::Health, &Check::Notify));
    // One missed interval is enough, unless the file says otherwise.
    assert_eq!((health.interval, health.failure_threshold), (seconds(10), 1));
    assert_eq!(b.notify(), Some(Notify { watchdog: Some(seconds(10)) }));
    assert_eq!(c.health.clone().unwrap().check, Check::Tcp(Text::new("h:1")));
    assert_eq!(c.notify(), Some(Notify { watchdog: None }));
    assert_eq!(d.health.clone().unwrap().failure_threshold, 2);
    assert_eq!(d.notify(), Some(Notify { watchdog: Some(seconds(30)) }));
}

#[test]
fn two_runs_at_once_are_had_where_they_are_wanted() {
    let overlap = |line: &str| {
        let text = format!("processes:\n  api: {{ command: x, readiness: notify, {line} }}\n");
        let files = Files::new().with("processes.yaml", &text);
        process(&files.load("processes.yaml"), "api").overlap
    };
    assert!(overlap("overlap: true"));
    assert!(!overlap("overlap: false"));
    assert!(!overlap("overlap: null"));
}
