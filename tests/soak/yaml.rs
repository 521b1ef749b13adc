//! Writes the files down. What they mean is given; how they look is drawn anew each time: block or
//! flow, the order of keys, quotes, comments, defaults.

use crate::common::rng::Rng;
use crate::file::{Entry, Files, Ground, Place, Settings, Style};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A value.
#[derive(Clone, Debug)]
pub enum Node {
    /// As it stands.
    Bare(String),
    /// A text.
    Text(String),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

fn bare(value: impl ToString) -> Node {
    Node::Bare(value.to_string())
}

fn text(value: &str) -> Node {
    Node::Text(value.to_owned())
}

fn texts<'a>(values: impl IntoIterator<Item = &'a str>) -> Node {
    Node::List(values.into_iter().map(text).collect())
}

/// Milliseconds, one way or the other.
fn span(ms: u64, rng: &mut Rng) -> Node {
    match rng.below(3) {
        0 => text(&format!("{ms}ms")),
        1 if ms > 0 && ms.is_multiple_of(1000) => text(&format!("{}s", ms / 1000)),
        _ => bare(ms),
    }
}

/// The keys that are written.
#[derive(Default)]
struct Keys(Vec<(String, Node)>);

impl Keys {
    fn put(&mut self, key: &str, value: Option<Node>) {
        if let Some(value) = value {
            self.0.push((key.to_owned(), value));
        }
    }

    fn node(self) -> Option<Node> {
        (!self.0.is_empty()).then_some(Node::Map(self.0))
    }
}

fn shuffle<T>(items: &mut [T], rng: &mut Rng) {
    for at in (1..items.len()).rev() {
        items.swap(at, rng.below(at + 1));
    }
}

/// Everything that is on disk, by path. Drop-ins that say nothing are not there.
pub fn render(files: &Files, ground: &Ground, rng: &mut Rng) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut places: Vec<Place> = files.entries.values().map(|entry| entry.place).collect();
    places.push(Place::Main);
    places.sort();
    places.dedup();
    for place in places {
        let mut entries: Vec<(String, Node)> = files
            .entries
            .iter()
            .filter(|(_, entry)| entry.place == place)
            .map(|(id, entry)| (id.clone(), process(id, entry, ground, rng)))
            .collect();
        shuffle(&mut entries, rng);
        let mut top = vec![("processes".to_owned(), Node::Map(entries))];
        if place == Place::Main && !ground.split {
            let settings = management(&files.settings, rng).node();
            top.extend(settings.map(|node| ("processManagement".to_owned(), node)));
        }
        // Relative paths are none of ours, but those of cwd where it is not given.
        let home = ground.place(place).parent().unwrap().to_owned();
        if rng.percent(20) {
            top.push(("baseDir".to_owned(), text(home.to_str().unwrap())));
        }
        shuffle(&mut top, rng);
        let mut written = format!("# {:x}\n", rng.next());
        if rng.percent(30) {
            flow(&Node::Map(top), rng, &mut written);
            written.push('\n');
        } else {
            block(&top, 0, rng, &mut written);
        }
        found.insert(ground.place(place), written);
    }
    if ground.split {
        let mut settings = management(&files.settings, rng);
        let said = settings.0.is_empty() || rng.percent(30);
        settings.put("processConfigFile", said.then(|| text("processes.yaml")));
        let top: Vec<_> = settings
            .node()
            .map(|node| ("processManagement".to_owned(), node))
            .into_iter()
            .collect();
        let mut written = format!("# {:x}\n", rng.next());
        block(&top, 0, rng, &mut written);
        found.insert(ground.main_file(), written);
    }
    for (number, variables) in &files.env_files {
        let mut written = format!("# {:x}\n", rng.next());
        for (key, value) in variables {
            let quote = *rng.pick(&["", "\"", "'"]);
            written += &format!("{key}={quote}{value}{quote}\n");
        }
        found.insert(ground.env_file(*number), written);
    }
    found
}

fn management(settings: &Settings, rng: &mut Rng) -> Keys {
    let mut keys = Keys::default();
    keys.put("enabled", settings.enabled.map(bare));
    keys.put("autoStart", settings.auto_start.map(bare));
    keys.put("rollback", settings.rollback.or(Some("off")).map(text));
    keys.put("settle", settings.settle.map(bare));
    keys.put("verdictTimeout", settings.verdict.map(bare));
    keys.put("history", settings.history.map(bare));
    keys.put("watchConfig", settings.watch.map(bare));
    keys.put("validateOnReload", settings.validate.map(bare));
    keys.put("reloadDebounceMs", settings.debounce.map(bare));
    keys.put("healthCheckInterval", settings.interval.map(|ms| span(ms, rng)));
    keys.put("restartAttempts", settings.attempts.map(bare));
    keys.put("backend", settings.backend.map(text));
    keys.put("defaultUser", settings.default_user.map(text));
    keys
}

fn process(id: &str, entry: &Entry, ground: &Ground, rng: &mut Rng) -> Node {
    let mut keys = Keys::default();
    let argv = entry.argv(id, ground);
    match entry.style {
        Style::List => keys.put("command", Some(texts(argv.iter().map(String::as_str)))),
        Style::Args => {
            keys.put("command", Some(text(&argv[0])));
            keys.put("args", Some(texts(argv[1..].iter().map(String::as_str))));
        }
        Style::Shell => keys.put("shell", Some(text(&format!("exec {}", argv.join(" "))))),
    }
    keys.put("enabled", entry.enabled.map(bare));
    keys.put("name", entry.label.as_deref().map(text));
    keys.put("description", entry.description.as_deref().map(text));
    keys.put("cwd", entry.cwd.map(|n| text(ground.dir.join(format!("d{n}")).to_str().unwrap())));
    keys.put("user", entry.user.map(text));
    keys.put("group", entry.group.map(text));
    keys.put("umask", entry.umask.map(|mask| bare(format!("{mask:04o}"))));
    keys.put("nice", entry.nice.map(bare));
    let env = entry.env.iter().map(|(key, value)| (key.clone(), text(value))).collect();
    keys.put("env", (!entry.env.is_empty()).then_some(Node::Map(env)));
    let paths: Vec<String> =
        entry.env_files.iter().map(|n| ground.env_file(*n).to_str().unwrap().to_owned()).collect();
    keys.put(
        "envFile",
        match &paths[..] {
            [] => None,
            [one] if rng.percent(50) => Some(text(one)),
            many => Some(texts(many.iter().map(String::as_str))),
        },
    );
    keys.put("instances", entry.instances.map(bare));
    keys.put("maxUnavailable", entry.max_unavailable.map(bare));
    keys.put("overlap", entry.overlaps(id).then(|| bare(true)));
    keys.put("dependsOn", depends(entry, rng));
    keys.put("readiness", entry.readiness.map(text));
    keys.put("startTimeout", entry.start_timeout.map(|ms| span(ms, rng)));
    keys.put("restartPolicy", policy(entry, rng));
    keys.put("healthCheck", health(id, entry, ground, rng));
    let mut stop = Keys::default();
    stop.put("signal", entry.stop_signal.map(text));
    stop.put("timeout", entry.stop_timeout.map(|ms| span(ms, rng)));
    keys.put("stop", stop.node());
    if let Some(timeout) = entry.reload {
        let mut reload = Keys::default();
        reload.put("signal", timeout.is_none().then(|| text("USR1")));
        reload.put("command", timeout.map(|_| texts(["true"])));
        reload.put("timeout", timeout.map(|ms| span(ms, rng)));
        keys.put("reload", reload.node());
    }
    if let Some(action) = entry.watch {
        let mut watch = Keys::default();
        watch.put("paths", Some(texts([ground.dir.join("never").to_str().unwrap()])));
        watch.put("action", action.map(text));
        watch.put("ignore", rng.percent(30).then(|| texts(["node_modules", "__pycache__"])));
        watch.put("debounce", rng.percent(30).then(|| span(200, rng)));
        keys.put("watch", watch.node());
    }
    let mut limits = Keys::default();
    limits.put("files", entry.files.map(bare));
    let [memory, high, cpu, tasks, restart] = entry.limits;
    limits.put("memory", memory.map(text));
    limits.put("memoryHigh", high.map(text));
    limits.put("cpu", cpu.map(bare));
    limits.put("tasks", tasks.map(bare));
    keys.put("maxMemoryRestart", restart.map(text));
    keys.put("limits", limits.node());
    keys.put("logFile", entry.log_path(id, ground).map(|path| text(&path)));
    let mut log = Keys::default();
    log.put("target", entry.log_target.map(text));
    log.put("maxSize", entry.rotation.map(|(size, _)| text(size)));
    log.put("maxFiles", entry.rotation.and_then(|(_, files)| files).map(bare));
    keys.put("log", log.node());
    keys.put("pidFile", entry.pid_path(id, ground).map(|path| text(&path)));
    keys.put("essential", entry.essential.map(bare));
    keys.put("tags", (!entry.tags.is_empty()).then(|| texts(entry.tags.iter().copied())));
    shuffle(&mut keys.0, rng);
    Node::Map(keys.0)
}

fn depends(entry: &Entry, rng: &mut Rng) -> Option<Node> {
    if entry.depends.is_empty() {
        return None;
    }
    let plain = |edge: &crate::file::Edge| edge.condition.is_none() && edge.restart.is_none();
    if entry.depends.values().all(plain) && rng.percent(60) {
        return Some(texts(entry.depends.keys().map(String::as_str)));
    }
    let edges = entry.depends.iter().map(|(on, edge)| {
        let condition = text(edge.condition());
        if edge.restart.is_none() && rng.percent(60) {
            return (on.clone(), condition);
        }
        let mut keys = vec![("condition".to_owned(), condition)];
        keys.extend(edge.restart.map(|restart| ("restart".to_owned(), bare(restart))));
        (on.clone(), Node::Map(keys))
    });
    Some(Node::Map(edges.collect()))
}

fn policy(entry: &Entry, rng: &mut Rng) -> Option<Node> {
    let policy = &entry.policy;
    let mut keys = Keys::default();
    keys.put("condition", policy.condition.map(bare));
    keys.put("delay", policy.delay.map(|ms| span(ms, rng)));
    keys.put("maxDelay", policy.max_delay.map(|ms| span(ms, rng)));
    keys.put("factor", policy.factor.map(bare));
    keys.put("jitter", policy.jitter.map(bare));
    keys.put("minUptime", policy.min_uptime.map(|ms| span(ms, rng)));
    keys.put("maxAttempts", policy.max_attempts.map(bare));
    let codes = policy.success.as_ref();
    keys.put("successExitCodes", codes.map(|all| Node::List(all.iter().map(bare).collect())));
    shuffle(&mut keys.0, rng);
    keys.node()
}

fn health(id: &str, entry: &Entry, ground: &Ground, rng: &mut Rng) -> Option<Node> {
    let health = entry.health.as_ref()?;
    let mut keys = Keys::default();
    let port = match entry.mode {
        crate::file::Mode::Serve(port) => format!("{port}${{INSTANCE}}"),
        _ => String::new(),
    };
    keys.put(
        health.kind,
        Some(match health.kind {
            "url" => text(&format!("http://{}:{port}/health", ground.address)),
            "tcp" => text(&format!("{}:{port}", ground.address)),
            _ => {
                let flag = format!("{}/locks/{id}@${{INSTANCE}}.sick", ground.dir.display());
                texts(["test", "!", "-e", &flag])
            }
        }),
    );
    keys.put("enabled", health.enabled.map(bare));
    keys.put("interval", health.interval.map(|ms| span(ms, rng)));
    keys.put("timeout", health.timeout.map(|ms| span(ms, rng)));
    keys.put("startPeriod", health.start_period.map(|ms| span(ms, rng)));
    keys.put("failureThreshold", health.failures.map(bare));
    keys.put("successThreshold", health.successes.map(bare));
    keys.put("onFailure", health.on_failure.map(bare));
    shuffle(&mut keys.0, rng);
    keys.node()
}

fn quoted(value: &str, rng: &mut Rng) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    let safe = value.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && value.chars().all(plain)
        && !["true", "false", "null", "yes", "no", "on", "off"].contains(&value);
    match rng.below(3) {
        0 if safe => value.to_owned(),
        1 => format!("'{}'", value.replace('\'', "''")),
        _ => format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"")),
    }
}

fn flow(node: &Node, rng: &mut Rng, out: &mut String) {
    match node {
        Node::Bare(value) => out.push_str(value),
        Node::Text(value) => out.push_str(&quoted(value, rng)),
        Node::List(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                out.push_str(if at == 0 { "" } else { ", " });
                flow(item, rng, out);
            }
            out.push(']');
        }
        Node::Map(items) => {
            out.push('{');
            for (at, (key, item)) in items.iter().enumerate() {
                out.push_str(if at == 0 { " " } else { ", " });
                out.push_str(key);
                out.push_str(": ");
                flow(item, rng, out);
            }
            out.push_str(" }");
        }
    }
}

fn block(items: &[(String, Node)], depth: usize, rng: &mut Rng, out: &mut String) {
    for (key, node) in items {
        if rng.percent(5) {
            out.push_str(&format!("{}# {:x}: [\n", "  ".repeat(depth), rng.next()));
        }
        out.push_str(&format!("{}{key}:", "  ".repeat(depth)));
        match node {
            Node::Map(inner) if !inner.is_empty() && (depth < 2 || rng.percent(50)) => {
                out.push('\n');
                block(inner, depth + 1, rng, out);
            }
            Node::List(inner) if !inner.is_empty() && rng.percent(40) => {
                out.push('\n');
                for item in inner {
                    out.push_str(&format!("{}- ", "  ".repeat(depth + 1)));
                    flow(item, rng, out);
                    out.push('\n');
                }
            }
            _ => {
                out.push(' ');
                flow(node, rng, out);
                out.push('\n');
            }
        }
    }
}
