//! What the files say, as the harness means it. `yaml` writes it down, `model` draws conclusions.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// `web` and its number.
pub type Instance = (String, u32);

/// As the daemon names it.
pub fn name(instance: &Instance) -> String {
    format!("{}@{}", instance.0, instance.1)
}

/// All the files.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Files {
    pub entries: BTreeMap<String, Entry>,
    pub settings: Settings,
    /// Environment files by their number.
    pub env_files: BTreeMap<u32, BTreeMap<String, String>>,
}

/// `processManagement`. None: not written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    pub enabled: Option<bool>,
    pub auto_start: Option<bool>,
    pub watch: Option<bool>,
    pub validate: Option<bool>,
    pub debounce: Option<u64>,
    pub interval: Option<u64>,
    pub attempts: Option<u32>,
    pub backend: Option<&'static str>,
    pub default_user: Option<&'static str>,
    /// What crashes here is meant to, and stays.
    pub rollback: Option<&'static str>,
    pub settle: Option<u64>,
    pub verdict: Option<u64>,
    pub history: Option<u64>,
}

/// What a fixture does.
#[derive(Clone, Debug, PartialEq)]
pub enum Mode {
    Stay,
    Deaf,
    Slow(u64),
    Fork,
    /// On this port and the number of the instance.
    Serve(u32),
    /// Ends after so many milliseconds with this code.
    End(u64, u8),
}

/// How the command is written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Style {
    List,
    Args,
    Shell,
}

/// Which file an entry stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    Main,
    DropIn(u32),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Edge {
    pub condition: Option<&'static str>,
    pub restart: Option<bool>,
}

impl Edge {
    pub fn condition(&self) -> &'static str {
        self.condition.unwrap_or("ready")
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policy {
    pub condition: Option<&'static str>,
    pub delay: Option<u64>,
    pub max_delay: Option<u64>,
    pub factor: Option<&'static str>,
    pub jitter: Option<&'static str>,
    pub min_uptime: Option<u64>,
    pub max_attempts: Option<u32>,
    pub success: Option<Vec<u8>>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Health {
    /// `url`, `tcp` or `exec`.
    pub kind: &'static str,
    pub enabled: Option<bool>,
    pub interval: Option<u64>,
    pub timeout: Option<u64>,
    pub start_period: Option<u64>,
    pub failures: Option<u32>,
    pub successes: Option<u32>,
    pub on_failure: Option<&'static str>,
}

/// One process. None: not written.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub place: Place,
    pub mode: Mode,
    pub style: Style,
    pub enabled: Option<bool>,
    pub label: Option<String>,
    pub description: Option<String>,
    pub cwd: Option<u32>,
    pub user: Option<&'static str>,
    pub group: Option<&'static str>,
    pub umask: Option<u32>,
    pub nice: Option<i32>,
    pub env: BTreeMap<String, String>,
    pub env_files: Vec<u32>,
    pub instances: Option<u32>,
    pub max_unavailable: Option<u32>,
    pub depends: BTreeMap<String, Edge>,
    pub readiness: Option<&'static str>,
    pub start_timeout: Option<u64>,
    pub policy: Policy,
    pub health: Option<Health>,
    pub stop_signal: Option<&'static str>,
    pub stop_timeout: Option<u64>,
    /// How it takes new settings, which nobody asks it to: by a command with this time, or by a signal.
    pub reload: Option<Option<u64>>,
    /// What it has watched is never there.
    pub watch: Option<Option<&'static str>>,
    pub files: Option<u64>,
    /// So wide that nothing here comes near: `memory`, `memoryHigh`, `cpu`, `tasks`, and
    /// `maxMemoryRestart`. They change without a new run.
    pub limits: [Option<&'static str>; 5],
    pub log_file: Option<u32>,
    pub log_target: Option<&'static str>,
    /// `maxSize` and `maxFiles` of its log file.
    pub rotation: Option<(&'static str, Option<u32>)>,
    pub pid_file: bool,
    pub essential: Option<bool>,
    pub tags: BTreeSet<&'static str>,
}

/// What a run takes in, with defaults filled in: where this differs, a new run is needed.
#[derive(Clone, Debug, PartialEq)]
pub struct Exec {
    pub argv: Vec<String>,
    pub shell: bool,
    pub cwd: PathBuf,
    pub user: Option<&'static str>,
    pub group: Option<&'static str>,
    pub umask: u32,
    /// None: that of the daemon.
    pub nice: Option<i32>,
    pub env: BTreeMap<String, String>,
    pub files: Option<u64>,
    pub log_file: Option<PathBuf>,
    pub log_target: &'static str,
    pub rotation: Option<(&'static str, u32)>,
    pub pid_file: Option<PathBuf>,
}

/// Where everything is.
#[derive(Clone, Debug)]
pub struct Ground {
    pub dir: PathBuf,
    pub fixture: PathBuf,
    pub token: String,
    pub address: String,
    /// Whether the settings are in a file of their own.
    pub split: bool,
}

impl Ground {
    /// The file the daemon is given.
    pub fn main_file(&self) -> PathBuf {
        self.dir.join(if self.split { "provost.yaml" } else { "processes.yaml" })
    }

    pub fn drop_in(&self, number: u32) -> PathBuf {
        self.dir.join(format!("processes.d/{number:02}.yaml"))
    }

    pub fn env_file(&self, number: u32) -> PathBuf {
        self.dir.join(format!("env/{number}.env"))
    }

    pub fn place(&self, place: Place) -> PathBuf {
        match place {
            Place::Main => self.dir.join("processes.yaml"),
            Place::DropIn(number) => self.drop_in(number),
        }
    }

    pub fn sick_flag(&self, instance: &Instance) -> PathBuf {
        self.dir.join("locks").join(format!("{}.sick", name(instance)))
    }
}

impl Files {
    pub fn is_managed(&self) -> bool {
        self.settings.enabled.unwrap_or(true)
    }

    pub fn is_watched(&self) -> bool {
        self.settings.watch.unwrap_or(true)
    }

    pub fn auto_start(&self) -> bool {
        self.settings.auto_start.unwrap_or(true)
    }

    pub fn instances(&self) -> impl Iterator<Item = Instance> {
        self.entries.iter().flat_map(|(id, entry)| (0..entry.count()).map(move |n| (id.clone(), n)))
    }

    pub fn has(&self, instance: &Instance) -> bool {
        self.entries.get(&instance.0).is_some_and(|entry| instance.1 < entry.count())
    }

    /// The restart policy, defaults filled in.
    pub fn policy(&self, entry: &Entry) -> Policy {
        let own = &entry.policy;
        let number = |text: &str| text.parse::<f64>().unwrap().to_bits();
        let same = |text: &'static str, default: &'static str| {
            if number(text) == number(default) { default } else { text }
        };
        Policy {
            condition: Some(entry.condition()),
            delay: own.delay.or(Some(1_000)),
            max_delay: own.max_delay.or(Some(300_000)),
            factor: Some(same(own.factor.unwrap_or("2"), "2")),
            jitter: Some(same(own.jitter.unwrap_or("0.2"), "0.2")),
            min_uptime: own.min_uptime.or(Some(10_000)),
            max_attempts: own.max_attempts.or(self.settings.attempts),
            success: own.success.clone().or_else(|| Some(vec![0])),
        }
    }

    pub fn is_success(&self, entry: &Entry, code: u8) -> bool {
        self.policy(entry).success.is_some_and(|codes| codes.contains(&code))
    }

    /// What a run of an instance takes in; None where there is no such instance.
    pub fn exec(&self, instance: &Instance, ground: &Ground) -> Option<Exec> {
        let (id, number) = instance;
        let entry = self.entries.get(id).filter(|entry| *number < entry.count())?;
        let fill = |text: String| text.replace("${INSTANCE}", &number.to_string());
        let mut env = BTreeMap::new();
        for file in &entry.env_files {
            env.extend(self.env_files.get(file).cloned().unwrap_or_default());
        }
        env.extend(entry.env.clone());
        let env = env.into_iter().map(|(key, value)| (key, fill(value))).collect();
        let home = ground.place(entry.place).parent().unwrap().to_owned();
        Some(Exec {
            argv: entry.argv(id, ground).into_iter().map(fill).collect(),
            shell: entry.style == Style::Shell,
            cwd: entry.cwd.map_or(home, |number| ground.dir.join(format!("d{number}"))),
            user: entry.user,
            group: entry.group,
            umask: entry.umask.unwrap_or(0o022),
            nice: entry.nice,
            env,
            files: entry.files,
            log_file: entry.log_path(id, ground).map(|path| fill(path).into()),
            log_target: entry.log_target.unwrap_or("auto"),
            rotation: entry.rotation.map(|(size, files)| (size, files.unwrap_or(5))),
            pid_file: entry.pid_path(id, ground).map(|path| fill(path).into()),
        })
    }

    /// Those that an entry depends on, near or far, by edges that `keep` keeps.
    pub fn below(&self, id: &str, keep: impl Fn(&Edge) -> bool) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let mut open = vec![id.to_owned()];
        while let Some(next) = open.pop() {
            let Some(entry) = self.entries.get(&next) else { continue };
            for (on, edge) in &entry.depends {
                if keep(edge) && found.insert(on.clone()) {
                    open.push(on.clone());
                }
            }
        }
        found
    }

    /// The ids, dependencies first.
    pub fn in_order(&self) -> Vec<String> {
        let mut order: Vec<String> = Vec::new();
        while order.len() < self.entries.len() {
            let before = order.len();
            for (id, entry) in &self.entries {
                let done = |on: &String| order.contains(on);
                if !order.contains(id) && entry.depends.keys().all(done) {
                    order.push(id.clone());
                }
            }
            assert!(order.len() > before, "the harness drew a cycle");
        }
        order
    }
}

/// How the ids begin of those of which two runs may be there.
pub const TWICE: &str = "twice";

impl Entry {
    pub fn new(place: Place, mode: Mode) -> Entry {
        Entry {
            place,
            mode,
            style: Style::List,
            enabled: None,
            label: None,
            description: None,
            cwd: None,
            user: None,
            group: None,
            umask: None,
            nice: None,
            env: BTreeMap::new(),
            env_files: Vec::new(),
            instances: None,
            max_unavailable: None,
            depends: BTreeMap::new(),
            readiness: None,
            start_timeout: None,
            policy: Policy::default(),
            health: None,
            stop_signal: None,
            stop_timeout: None,
            reload: None,
            watch: None,
            limits: [None; 5],
            files: None,
            log_file: None,
            log_target: None,
            rotation: None,
            pid_file: false,
            essential: None,
            tags: BTreeSet::new(),
        }
    }

    pub fn count(&self) -> u32 {
        self.instances.unwrap_or(1)
    }

    pub fn is_enabled(&self) -> bool {
        self.enabled.unwrap_or(true)
    }

    /// Whether a run goes on until it is ended.
    pub fn stays(&self) -> bool {
        !matches!(self.mode, Mode::End(..))
    }

    /// Whether it has a check that is made.
    pub fn check(&self) -> Option<&Health> {
        self.health.as_ref().filter(|health| health.enabled.unwrap_or(true))
    }

    pub fn condition(&self) -> &'static str {
        self.policy.condition.unwrap_or("always")
    }

    /// Whether two runs of it may be there at the same time, which is told by its name as well. What is
    /// ready when it was executed comes up, so the run that is replaced always ends. It depends on
    /// nothing: one whose new run waits for what has failed goes on with its old one, which the model
    /// here knows nothing of; that is in the strict schedules of the core.
    pub fn overlaps(&self, id: &str) -> bool {
        let twice = matches!(self.mode, Mode::Stay | Mode::Deaf | Mode::Fork | Mode::Slow(_));
        let is_ready_at_once = self.health.is_none() && self.condition() != "no";
        let depends = !self.depends.is_empty();
        id.starts_with(TWICE) && twice && is_ready_at_once && !self.pid_file && !depends
    }

    /// The argument vector, with `${INSTANCE}` in it.
    pub fn argv(&self, id: &str, ground: &Ground) -> Vec<String> {
        let mut argv = vec![
            ground.fixture.to_str().unwrap().to_owned(),
            ground.token.clone(),
            format!("{id}@${{INSTANCE}}"),
        ];
        match &self.mode {
            Mode::Stay => argv.push("stay".into()),
            Mode::Deaf => argv.push("deaf".into()),
            Mode::Fork => argv.push("fork".into()),
            Mode::Slow(ms) => argv.extend(["slow".into(), ms.to_string()]),
            Mode::Serve(port) => argv.extend(["serve".into(), format!("{port}${{INSTANCE}}")]),
            Mode::End(ms, code) => argv.extend(["end".into(), ms.to_string(), code.to_string()]),
        }
        argv
    }

    pub fn log_path(&self, id: &str, ground: &Ground) -> Option<String> {
        let number = self.log_file?;
        // Whose it is, it stays.
        let whose = self.user.unwrap_or("own");
        Some(format!("{}/logs/{id}-${{INSTANCE}}.{number}.{whose}", ground.dir.display()))
    }

    pub fn pid_path(&self, id: &str, ground: &Ground) -> Option<String> {
        self.pid_file.then(|| format!("{}/pids/{id}-${{INSTANCE}}.pid", ground.dir.display()))
    }

    /// Where an instance of it can be reached.
    pub fn port(&self, number: u32) -> Option<u16> {
        match self.mode {
            Mode::Serve(port) => format!("{port}{number}").parse().ok(),
            _ => None,
        }
    }
}

/// A directory that every user may use.
pub fn open_dir(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::create_dir_all(path).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
}
