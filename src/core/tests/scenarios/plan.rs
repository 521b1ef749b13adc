//! The plan: every key by itself, secrets, and what else is touched.

use crate::*;
use provost_core::fields::{self, Causes, Consequence, FIELDS};
use provost_core::ids::ProcessId;
use provost_core::limits::Limits;
use provost_core::reload::{ChangeKind, Plan};
use provost_core::spec::{
    Check, Command, Config, Dependency, ExecSpec, HealthCheck, Listen, LogRotation, LogTarget,
    ProcessSpec, ReloadSpec, RestartPolicy, Secret, Signal, StopSpec, Text, WatchAction, WatchSpec,
};
use provost_core::unit::Sandbox;
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::sync::Arc;

fn base() -> ProcessSpec {
    let mut spec = process("api").checked().0;
    spec.exec.env = env(&[("TOKEN", "s3cret"), ("KEPT", "x")]);
    spec.exec.log_rotation = Some(LogRotation { max_size: 50 << 20, max_files: 5 });
    let command = Arc::from([Text::new("reread")]);
    spec.reload = Some(ReloadSpec::Command { command, timeout: secs(30) });
    spec.watch = Some(Box::new(WatchSpec {
        paths: Arc::from([Text::new("/dist")]),
        ignore: Arc::default(),
        action: WatchAction::Restart,
        debounce: millis(200),
    }));
    spec
}

fn env(list: &[(&str, &str)]) -> Arc<BTreeMap<String, Secret>> {
    let pairs = list.iter().map(|(name, value)| ((*name).to_owned(), Secret(Text::new(value))));
    Arc::new(pairs.collect())
}

type Edit = fn(&mut ProcessSpec);

/// One change for each key of the table: the key, what the change causes, its values as told.
const EDITS: &[(&str, Consequence, &str, &str, Edit)] = &[
    ("enabled", Consequence::Stop, "true", "false", |s| s.enabled = false),
    ("name", Consequence::Live, "-", "API", |s| s.name = Some("API".into())),
    ("description", Consequence::Live, "-", "text", |s| s.description = Some("text".into())),
    ("tags", Consequence::Live, "-", "[a, b]", |s| s.tags = ["a".into(), "b".into()].into()),
    ("command", Consequence::Restart, "shell: v1", r#"["v2", "a b"]"#, |s| {
        s.exec.command =
            Command::Program { program: Text::new("v2"), args: Arc::new([Text::new("a b")]) };
    }),
    ("cwd", Consequence::Restart, "/", "/srv/${INSTANCE}", |s| s.exec.cwd = Text::new("/srv/\0")),
    ("user", Consequence::Restart, "-", "www", |s| s.exec.user = Some("www".into())),
    ("group", Consequence::Restart, "-", "www", |s| s.exec.group = Some("www".into())),
    ("umask", Consequence::Restart, "-", "0027", |s| s.exec.umask = Some(0o27)),
    ("nice", Consequence::Restart, "-", "-5", |s| s.exec.nice = Some(-5)),
    ("instances", Consequence::Start, "1", "3", |s| s.instances = 3),
    ("maxUnavailable", Consequence::Live, "1", "2", |s| {
        s.max_unavailable = NonZeroU32::new(2).unwrap();
    }),
    ("overlap", Consequence::Live, "false", "true", |s| s.overlap = true),
    ("dependsOn", Consequence::Live, "-", "[db: healthy (restart)]", |s| {
        let on = ProcessId::new("db").unwrap();
        s.depends_on = vec![Dependency { on, condition: Condition::Healthy, restart: true }];
    }),
    ("readiness", Consequence::Live, "health", "started", |s| s.readiness = Readiness::Started),
    ("startTimeout", Consequence::Live, "1m", "5s", |s| s.start_timeout = secs(5)),
    ("restartPolicy.condition", Consequence::Live, "always", "on-failure", |s| {
        s.restart.condition = RestartCondition::OnFailure;
    }),
    ("restartPolicy.delay", Consequence::Live, "1s", "2s", |s| s.restart.delay = secs(2)),
    ("restartPolicy.maxDelay", Consequence::Live, "5m", "1m", |s| s.restart.max_delay = secs(60)),
    ("restartPolicy.factor", Consequence::Live, "2", "1.5", |s| s.restart.factor = 1.5),
    ("restartPolicy.jitter", Consequence::Live, "0", "0.5", |s| s.restart.jitter = 0.5),
    ("restartPolicy.minUptime", Consequence::Live, "10s", "0s", |s| s.restart.min_uptime = secs(0)),
    ("restartPolicy.maxAttempts", Consequence::Live, "-", "0", |s| {
        s.restart.max_attempts = Some(0)
    }),
    ("restartPolicy.successExitCodes", Consequence::Live, "[0]", "[0, 3]", |s| {
        s.restart.success_exit_codes = [0, 3].into();
    }),
    ("healthCheck", Consequence::Live, "tcp: localhost:1", "url: http://x", |s| {
        s.health.as_mut().unwrap().check = Check::Http(Text::new("http://x"));
    }),
    ("healthCheck.interval", Consequence::Live, "10s", "1s", |s| {
        s.health.as_mut().unwrap().interval = secs(1);
    }),
    ("healthCheck.timeout", Consequence::Live, "3s", "1s", |s| {
        s.health.as_mut().unwrap().timeout = secs(1);
    }),
    ("healthCheck.startPeriod", Consequence::Live, "5s", "1s", |s| {
        s.health.as_mut().unwrap().start_period = secs(1);
    }),
    ("healthCheck.failureThreshold", Consequence::Live, "2", "9", |s| {
        s.health.as_mut().unwrap().failure_threshold = 9;
    }),
    ("healthCheck.successThreshold", Consequence::Live, "1", "9", |s| {
        s.health.as_mut().unwrap().success_threshold = 9;
    }),
    ("healthCheck.onFailure", Consequence::Live, "restart", "none", |s| {
        s.health.as_mut().unwrap().on_failure = OnFailure::None;
    }),
    ("stop.signal", Consequence::Live, "SIGTERM", "SIGINT", |s| s.stop.signal = Signal(2)),
    ("stop.timeout", Consequence::Live, "30s", "1s", |s| s.stop.timeout = secs(1)),
    ("reload", Consequence::Live, r#"command: ["reread"]"#, r#"command: ["x"]"#, |s| {
        let command = Arc::from([Text::new("x")]);
        s.reload = Some(ReloadSpec::Command { command, timeout: secs(30) });
    }),
    ("reload.timeout", Consequence::Live, "30s", "1s", |s| {
        let command = Arc::from([Text::new("reread")]);
        s.reload = Some(ReloadSpec::Command { command, timeout: secs(1) });
    }),
    ("watch.paths", Consequence::Live, "[/dist]", "[/a, /b]", |s| {
        s.watch.as_mut().unwrap().paths = Arc::from([Text::new("/a"), Text::new("/b")]);
    }),
    ("watch.action", Consequence::Live, "restart", "reload", |s| {
        s.watch.as_mut().unwrap().action = WatchAction::Reload;
    }),
    ("watch.ignore", Consequence::Live, "-", "[*.log]", |s| {
        s.watch.as_mut().unwrap().ignore = Arc::from([Arc::from("*.log")]);
    }),
    ("watch.debounce", Consequence::Live, "200ms", "1s", |s| {
        s.watch.as_mut().unwrap().debounce = secs(1);
    }),
    ("limits.memory", Consequence::Live, "-", "512M", |s| s.limits.memory = Some(512 << 20)),
    ("limits.memoryHigh", Consequence::Live, "-", "400M", |s| {
        s.limits.memory_high = Some(400 << 20);
    }),
    ("limits.cpu", Consequence::Live, "-", "1.5", |s| s.limits.cpu = Some(1_500)),
    ("limits.tasks", Consequence::Live, "-", "200", |s| s.limits.tasks = Some(200)),
    ("limits.files", Consequence::Restart, "-", "4096", |s| s.exec.max_files = Some(4096)),
    ("logFile", Consequence::Restart, "-", "/x.log", |s| s.exec.log_file = Some("/x.log".into())),
    ("log.target", Consequence::Restart, "auto", "none", |s| s.exec.log_target = LogTarget::None),
    ("log.maxSize", Consequence::Restart, "50M", "1536", |s| {
        s.exec.log_rotation = Some(LogRotation { max_size: 1536, max_files: 5 });
    }),
    ("log.maxFiles", Consequence::Restart, "5", "9", |s| {
        s.exec.log_rotation = Some(LogRotation { max_size: 50 << 20, max_files: 9 });
    }),
    ("pidFile", Consequence::Restart, "-", "/x.pid", |s| s.exec.pid_file = Some("/x.pid".into())),
    ("sockets", Consequence::Restart, "-", "[http: 127.0.0.1:80, web: /run/x (0660)]", |s| {
        let tcp = Listen::Tcp("127.0.0.1:80".parse().unwrap());
        let unix = Listen::Unix { path: "/run/x".into(), mode: 0o660 };
        s.exec.sockets = Arc::new([("http".into(), tcp), ("web".into(), unix)].into());
    }),
    ("essential", Consequence::Live, "false", "true", |s| s.essential = true),
    ("maxMemoryRestart", Consequence::Live, "-", "1G", |s| {
        s.limits.max_memory_restart = Some(1 << 30);
    }),
    ("sandbox", Consequence::Restart, "none", "strict", |s| s.exec.sandbox = Sandbox::Strict),
    ("systemd", Consequence::Restart, "-", "{ IOWeight: 50, PrivateTmp: yes }", |s| {
        let entries = [("PrivateTmp", "yes"), ("IOWeight", "50")];
        let entries = entries.map(|(name, word)| (name.to_owned(), vec![word.to_owned()]));
        s.exec.unit = Arc::new(entries.into());
    }),
    ("env.TOKEN", Consequence::Restart, "***", "***", |s| {
        s.exec.env = env(&[("TOKEN", "other"), ("KEPT", "x")]);
    }),
    ("env.NEW", Consequence::Restart, "-", "***", |s| {
        s.exec.env = env(&[("TOKEN", "s3cret"), ("KEPT", "x"), ("NEW", "y")]);
    }),
    ("env.KEPT", Consequence::Restart, "***", "-", |s| s.exec.env = env(&[("TOKEN", "s3cret")])),
];

#[test]
fn each_key_is_told_by_itself_with_its_consequence() {
    for (key, consequence, old, new, edit) in EDITS {
        let (was, mut is) = (base(), base());
        edit(&mut is);
        let told = fields::differences(&was, &is);
        assert_eq!(told.len(), 1, "{key}: {told:?}");
        let told = &told[0];
        let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
        assert_eq!((told.key.as_str(), told.consequence), (*key, *consequence));
        assert_eq!((text(&told.old).as_str(), text(&told.new).as_str()), (*old, *new), "{key}");
        let restart = *consequence == Consequence::Restart;
        assert_eq!(fields::needs_restart(&was, &is), restart, "{key}");
    }
}

#[test]
fn each_key_does_what_the_table_says() {
    for (key, consequence, _, _, edit) in EDITS {
        let db = || process("db").checked();
        let mut s = Scene::of([Process(base()), db()]);
        let run = s.run("api");
        let mut is = base();
        edit(&mut is);
        s.forget();
        s.config([Process(is), db()]);
        let expected = match consequence {
            Consequence::Live => "",
            Consequence::Restart => "-api@0 +api@0",
            Consequence::Stop => "-api@0",
            Consequence::Start => "+api@1 +api@2",
        };
        assert_eq!(s.done(), expected, "{key}");
        let kept = matches!(consequence, Consequence::Live | Consequence::Start);
        assert_eq!(s.run("api") == run, kept, "{key}");
    }
}

#[test]
fn each_key_of_the_table_has_an_edit() {
    let told: BTreeSet<&str> = EDITS.iter().map(|edit| edit.0).collect();
    for field in FIELDS {
        assert!(told.contains(field.key), "{} has no edit here", field.key);
    }
    let keys: BTreeSet<&str> = FIELDS.iter().map(|field| field.key).collect();
    assert_eq!(keys.len(), FIELDS.len(), "a key stands twice in the table");
    assert_eq!(EDITS.len(), FIELDS.len() + 3, "three are about variables");
}

#[test]
fn no_field_of_a_spec_is_forgotten() {
    // When this does not compile any more, a field is new: it needs a row in the table of keys and
    // an edit above, and then a place here.
    let ProcessSpec {
        id: _,
        name: _,
        description: _,
        tags: _,
        enabled: _,
        instances: _,
        max_unavailable: _,
        overlap: _,
        exec:
            ExecSpec {
                command: _,
                cwd: _,
                user: _,
                group: _,
                umask: _,
                nice: _,
                env: _,
                max_files: _,
                log_file: _,
                log_target: _,
                log_rotation: _,
                pid_file: _,
                sockets: _,
                sandbox: _,
                unit: _,
            },
        depends_on: _,
        readiness: _,
        start_timeout: _,
        restart,
        health,
        stop: StopSpec { signal: _, timeout: _ },
        reload: _,
        watch,
        essential: _,
        limits,
    } = base();
    let RestartPolicy {
        condition: _,
        delay: _,
        max_delay: _,
        factor: _,
        jitter: _,
        min_uptime: _,
        max_attempts: _,
        success_exit_codes: _,
    } = &*restart;
    let Limits { memory: _, memory_high: _, cpu: _, tasks: _, max_memory_restart: _ } = &*limits;
    let HealthCheck {
        check: _,
        interval: _,
        timeout: _,
        start_period: _,
        failure_threshold: _,
        success_threshold: _,
        on_failure: _,
    } = &*health.unwrap();
    let WatchSpec { paths: _, ignore: _, action: _, debounce: _ } = &*watch.unwrap();
    let Settings { enabled: _, auto_start: _, rollback: _, settle: _, verdict_timeout: _ } =
        Settings::default();
}

#[test]
fn what_only_looks_the_same_is_told_as_different() {
    let with = |text: &str| {
        let mut spec = base();
        spec.exec.cwd = Text::new(text);
        spec
    };
    let told = fields::differences(&with("/\0"), &with("/${INSTANCE}"));
    assert_eq!(told.len(), 1);
    let tags = |tags: &[&str]| {
        let mut spec = base();
        spec.tags = tags.iter().map(|tag| Arc::from(*tag)).collect();
        spec
    };
    assert_eq!(fields::differences(&tags(&["a", "b"]), &tags(&["a, b"])).len(), 1);
}

#[test]
fn enabled_and_instances_have_each_their_own_consequence() {
    let (was, mut is) = (base(), base());
    (is.enabled, is.instances) = (false, 5);
    let told = fields::differences(&was, &is);
    let told: Vec<_> = told.iter().map(|f| (f.key.as_str(), f.consequence)).collect();
    assert_eq!(told, [("enabled", Consequence::Stop), ("instances", Consequence::Start)]);
    let told = fields::differences(&is, &was);
    let told: Vec<_> = told.iter().map(|f| (f.key.as_str(), f.consequence)).collect();
    assert_eq!(told, [("enabled", Consequence::Start), ("instances", Consequence::Stop)]);
}

#[test]
fn causes_are_those_of_the_edits() {
    for (key, consequence, ..) in EDITS {
        let Some(field) = FIELDS.iter().find(|field| field.key == *key) else { continue };
        let causes = match consequence {
            // What these cause depends on the values: see the next test.
            Consequence::Live if field.causes == Causes::Told => Causes::Told,
            Consequence::Live => Causes::Live,
            Consequence::Restart => Causes::Restart,
            Consequence::Start | Consequence::Stop => Causes::Count,
        };
        assert_eq!(field.causes, causes, "{key}");
    }
}

#[test]
fn what_a_run_is_told_when_it_starts_needs_a_new_one() {
    let speaking = || process("api").speaking();
    let alive = || process("api").alive();
    let slower = || alive().with(|spec| spec.health.as_mut().unwrap().interval = secs(60));
    let asked = || process("api").checked();
    use Consequence::{Live, Restart};
    let told = |(was, is): (Process, Process)| {
        let told = fields::differences(&was.0, &is.0);
        assert_eq!(
            fields::needs_restart(&was.0, &is.0),
            told.iter().any(|t| t.consequence == Restart)
        );
        told.into_iter().map(|one| (one.key, one.consequence)).collect::<Vec<_>>()
    };
    let one = |key: &str, consequence| vec![(key.to_owned(), consequence)];
    assert_eq!(told((process("api"), speaking())), one("readiness", Restart));
    assert_eq!(told((speaking(), process("api"))), one("readiness", Restart));
    assert_eq!(told((alive(), slower())), one("healthCheck.interval", Restart));
    let both = alive().with(|spec| spec.readiness = Readiness::Notify);
    assert_eq!(told((alive(), both)), one("readiness", Live));
    let same = asked().with(|spec| spec.health.as_mut().unwrap().failure_threshold = 1);
    assert_eq!(told((same, alive())), one("healthCheck", Restart));
}

#[test]
fn no_secret_is_shown_anywhere() {
    let (was, mut is) = (base(), base());
    is.exec.env = env(&[("TOKEN", "0ther-s3cret")]);
    let plan = Plan::between(&config([was.clone()]), &config([is.clone()]));
    let told = format!("{plan:?} {plan} {was:?} {is:?} {}", serde_json::to_string(&plan).unwrap());
    assert!(!told.contains("s3cret"), "{told}");
}

fn config<const N: usize>(specs: [ProcessSpec; N]) -> Config {
    let processes = specs.into_iter().map(|spec| (spec.id.clone(), Arc::new(spec))).collect();
    Config { processes, ..Config::default() }
}

/// The plan in words: `modified api restart [command] touches web`.
fn told(old: &Config, new: &Config) -> Vec<String> {
    let plan = Plan::between(old, new);
    let names =
        |ids: &[ProcessId]| ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    plan.changes
        .iter()
        .map(|change| {
            let keys: Vec<&str> = change.fields.iter().map(|field| field.key.as_str()).collect();
            let (kind, consequence) = (change.kind.as_str(), change.consequence.as_str());
            let touches = names(&change.touches);
            let text = format!("{kind} {} {consequence} {keys:?} {touches}", change.process);
            text.trim_end().to_owned()
        })
        .collect()
}

#[test]
fn added_removed_modified_unchanged() {
    let old = config([process("a").0, process("b").0, process("c").0, process("x").disabled().0]);
    let new = config([
        process("b").line("v2").0,
        process("c").0,
        process("d").0,
        process("e").disabled().0,
    ]);
    assert_eq!(
        told(&old, &new),
        [
            "removed a stop []",
            "modified b restart [\"command\"]",
            "added d start []",
            "added e live []",
            "removed x live []",
        ]
    );
    let plan = Plan::between(&old, &new);
    assert_eq!(plan.unchanged, [ProcessId::new("c").unwrap()]);
    assert_eq!(plan.to_string(), "added d e, removed a x, modified b, 1 unchanged");
    assert_eq!(plan.of(ChangeKind::Added).count(), 2);
    assert!(!plan.is_empty() && Plan::between(&old, &old).is_empty());
}

#[test]
fn the_strongest_consequence_is_that_of_the_process() {
    let a = || process("a");
    let pair = |was: Process, is: Process| told(&config([was.0]), &config([is.0]));
    let words = |p: Process| p.with(|spec| spec.description = Some("x".into()));
    assert_eq!(pair(a(), words(a())), ["modified a live [\"description\"]"]);
    assert_eq!(
        pair(a(), words(a()).line("v2").instances(2)),
        ["modified a restart [\"description\", \"command\", \"instances\"]"]
    );
    assert_eq!(pair(a(), a().instances(2)), ["modified a start [\"instances\"]"]);
    assert_eq!(pair(a().instances(2), a()), ["modified a stop [\"instances\"]"]);
    assert_eq!(
        pair(a().disabled(), a().disabled().line("v2")),
        ["modified a live [\"command\"]"],
        "what is disabled is not restarted"
    );
    assert_eq!(
        pair(a().disabled(), a().line("v2")),
        ["modified a start [\"enabled\", \"command\"]"]
    );
    assert_eq!(
        pair(a(), a().disabled().line("v2")),
        ["modified a stop [\"enabled\", \"command\"]"]
    );
}

#[test]
fn management_is_a_change_of_every_process() {
    let on = config([process("a").0, process("b").disabled().0]);
    let mut off = on.clone();
    off.settings.enabled = false;
    let key = "[\"processManagement.enabled\"]";
    assert_eq!(
        told(&on, &off),
        [format!("modified a stop {key}"), format!("modified b live {key}")]
    );
    assert_eq!(
        told(&off, &on),
        [format!("modified a start {key}"), format!("modified b live {key}")]
    );
    let value = |plan: &Plan| {
        let field = &plan.changes[0].fields[0];
        (field.old.clone().unwrap(), field.new.clone().unwrap(), field.consequence)
    };
    let told = value(&Plan::between(&on, &off));
    assert_eq!(told, ("true".into(), "false".into(), Consequence::Stop));
    off.processes.insert(ProcessId::new("c").unwrap(), Arc::new(process("c").0));
    let added = &Plan::between(&on, &off).changes[2];
    assert_eq!((added.kind, added.consequence), (ChangeKind::Added, Consequence::Live));
}

#[test]
fn what_else_is_touched_is_named() {
    let rest = || {
        [
            process("follows").follows("db").0,
            process("far").follows("follows").0,
            process("plain").after("db").0,
            process("once").on("db", Condition::Completed).0,
        ]
    };
    let with = |db: Process| {
        let [a, b, c, d] = rest();
        config([a, b, c, d, db.0])
    };
    let line = |told: Vec<String>| told.join("|");
    assert_eq!(
        line(told(&with(process("db")), &with(process("db").line("v2")))),
        "modified db restart [\"command\"] far follows"
    );
    assert_eq!(
        line(told(&with(process("db")), &with(process("db").disabled()))),
        "modified db stop [\"enabled\"] far follows plain"
    );
    assert_eq!(
        line(told(&with(process("db").disabled()), &with(process("db")))),
        "modified db start [\"enabled\"] far follows plain",
        "what waited comes with it"
    );
    let off = || process("off").disabled();
    let depends = |on: &str| config([process("web").after(on).0, process("on").0, off().0]);
    assert_eq!(
        line(told(&depends("on"), &depends("off"))),
        "modified web stop [\"dependsOn\"]",
        "what it needs from now on is not wanted"
    );
    assert_eq!(line(told(&depends("off"), &depends("on"))), "modified web start [\"dependsOn\"]");
    assert_eq!(
        line(told(&with(process("db").instances(2)), &with(process("db")))),
        "modified db stop [\"instances\"]",
        "one is left"
    );
    assert_eq!(
        line(told(&with(process("db")), &with(process("db").attempts(1)))),
        "modified db live [\"restartPolicy.maxAttempts\"]"
    );
}
