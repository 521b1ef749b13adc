//! Draws processes, and changes of what the files say.

use crate::common::rng::Rng;
use crate::file::{Edge, Entry, Files, Health, Mode, Place, Settings, Style, TWICE};

/// No more instances than this.
const MOST: u32 = 22;

/// Where what is drawn comes from, and what must not come twice.
pub struct Draw {
    pub rng: Rng,
    /// Whether processes can be run as somebody else.
    pub root: bool,
    /// The value of each secret begins like this.
    pub canary: String,
    named: u32,
    port: u32,
    label: u32,
}

impl Draw {
    pub fn new(seed: u64, root: bool, canary: String) -> Draw {
        Draw { rng: Rng::new(seed), root, canary, named: 0, port: 1000, label: 0 }
    }

    /// What is in the beginning.
    pub fn files(&mut self) -> Files {
        let mut files = Files::default();
        for number in 0..3 {
            files.env_files.insert(number, [(format!("FILE{number}"), self.secret())].into());
        }
        for _ in 0..8 {
            self.add(&mut files);
        }
        files.settings = self.settings();
        files
    }

    pub fn secret(&mut self) -> String {
        format!("{}{:016x}", self.canary, self.rng.next())
    }

    fn count(files: &Files) -> u32 {
        files.entries.values().map(Entry::count).sum()
    }

    fn settings(&mut self) -> Settings {
        let rng = &mut self.rng;
        Settings {
            enabled: rng.maybe(30, &[true]),
            auto_start: rng.maybe(30, &[true, true, false]),
            watch: rng.maybe(30, &[true, true, false]),
            validate: rng.maybe(30, &[true, true, false]),
            debounce: rng.maybe(80, &[0, 1, 20, 50, 50, 200]),
            interval: rng.maybe(30, &[300, 1000, 30_000]),
            attempts: rng.maybe(20, &[0, 100_000]),
            backend: rng.maybe(30, &["auto", "native"]),
            default_user: rng.maybe(30, &["nobody", "provost"]),
            rollback: rng.maybe(50, &["off"]),
            settle: rng.maybe(50, &[0, 100, 300]),
            verdict: rng.maybe(50, &[10_000, 20_000]),
            history: rng.maybe(30, &[1, 5, 50]),
        }
    }

    fn mode(&mut self) -> Mode {
        let rng = &mut self.rng;
        match rng.below(20) {
            0..=6 => Mode::Stay,
            7..=8 => Mode::Deaf,
            9..=10 => Mode::Slow(rng.between(0, 150)),
            11..=13 => Mode::Fork,
            14..=17 => {
                self.port += 1;
                Mode::Serve(self.port)
            }
            _ => Mode::End(rng.between(0, 40), *rng.pick(&[0, 0, 0, 1, 3])),
        }
    }

    /// A process that is ready to be put into the files.
    fn entry(&mut self, files: &Files) -> Entry {
        let place = match self.rng.below(3) {
            0 => Place::DropIn(self.rng.below(3) as u32),
            _ => Place::Main,
        };
        let mode = self.mode();
        let mut entry = Entry::new(place, mode);
        entry.stop_timeout = Some(self.rng.between(100, 300));
        entry.policy.delay = Some(self.rng.between(0, 50));
        entry.policy.max_delay = Some(self.rng.between(50, 200));
        for _ in 0..self.rng.below(8) {
            self.touch_exec(&mut entry);
            self.touch_live(&mut entry);
        }
        entry.instances = self.rng.maybe(40, &[1, 1, 2, 3]);
        if Self::count(files) + entry.count() > MOST {
            entry.instances = None;
        }
        entry
    }

    fn id(&mut self) -> String {
        self.named += 1;
        let word = self.rng.word(&["web", "db", "queue", "api.v2", "cache_a", "a-b", "7up", TWICE]);
        format!("{word}{}", self.named)
    }

    pub fn add(&mut self, files: &mut Files) {
        if Self::count(files) >= MOST {
            return self.remove(files);
        }
        let (id, entry) = (self.id(), self.entry(files));
        files.entries.insert(id.clone(), entry);
        for _ in 0..self.rng.below(3) {
            self.depend(files, &id);
        }
    }

    fn any(&mut self, files: &Files) -> Option<String> {
        let ids: Vec<&String> = files.entries.keys().collect();
        if ids.is_empty() { None } else { Some((*self.rng.pick(&ids)).clone()) }
    }

    pub fn remove(&mut self, files: &mut Files) {
        let Some(id) = self.any(files) else { return };
        files.entries.remove(&id);
        for entry in files.entries.values_mut() {
            entry.depends.remove(&id);
        }
    }

    fn rename(&mut self, files: &mut Files) {
        let Some(old) = self.any(files) else { return };
        let new = self.id();
        let entry = files.entries.remove(&old).unwrap();
        files.entries.insert(new.clone(), entry);
        for entry in files.entries.values_mut() {
            if let Some(edge) = entry.depends.remove(&old) {
                entry.depends.insert(new.clone(), edge);
            }
        }
    }

    fn scale(&mut self, files: &mut Files) {
        let Some(id) = self.any(files) else { return };
        let instances = self.rng.between(1, 4) as u32;
        let count = Self::count(files);
        let entry = files.entries.get_mut(&id).unwrap();
        if count - entry.count() + instances <= MOST {
            entry.instances = Some(instances);
        }
    }

    /// An edge that closes no cycle and can be met.
    fn depend(&mut self, files: &mut Files, id: &str) {
        let free: Vec<String> = files
            .entries
            .keys()
            .filter(|on| *on != id && !files.below(on, |_| true).contains(id))
            .cloned()
            .collect();
        if free.is_empty() {
            return;
        }
        let on = self.rng.pick(&free).clone();
        let entry = &files.entries[&on];
        let edge = if !entry.stays() {
            if !matches!(entry.condition(), "no" | "on-failure") {
                return;
            }
            Edge { condition: Some("completed"), restart: None }
        } else {
            let words: &[&str] = match entry.check() {
                Some(_) => &["started", "ready", "healthy"],
                None => &["started", "ready"],
            };
            Edge {
                condition: self.rng.maybe(60, words),
                restart: self.rng.maybe(40, &[true, true, false]),
            }
        };
        files.entries.get_mut(id).unwrap().depends.insert(on, edge);
    }

    /// A key whose change needs a new run.
    fn touch_exec(&mut self, entry: &mut Entry) {
        let secret = self.secret();
        let rng = &mut self.rng;
        match rng.below(14) {
            0 => entry.style = *rng.pick(&[Style::List, Style::Args, Style::Shell]),
            1 => entry.cwd = rng.maybe(70, &[0, 1]),
            2 if self.root => entry.user = rng.maybe(50, &["nobody", "root", "65534"]),
            3 if self.root && entry.user.is_some() => {
                entry.group = rng.maybe(50, &["nogroup", "0"])
            }
            4 => entry.umask = rng.maybe(70, &[0o022, 0o077, 0o002]),
            5 => entry.nice = rng.maybe(70, &[0, 1, 5, 19]),
            6 | 7 => {
                entry.env.insert(format!("V{}", rng.below(3)), secret);
            }
            8 => entry.env = [("N".to_owned(), "x${INSTANCE}".to_owned())].into(),
            9 => entry.env.clear(),
            10 => {
                entry.env_files = match rng.below(4) {
                    0 => vec![],
                    1 => vec![0],
                    2 => vec![2, 1],
                    _ => vec![1],
                }
            }
            11 => entry.files = rng.maybe(70, &[64, 256, 1000]),
            12 => {
                entry.log_file = rng.maybe(70, &[1, 2]);
                entry.log_target = rng.maybe(60, &["auto", "none"]);
                let files = rng.maybe(50, &[1, 5]);
                entry.rotation = rng.maybe(50, &["4K", "1M"]).map(|size| (size, files));
                entry.rotation = entry.rotation.filter(|_| entry.log_file.is_some());
            }
            _ => entry.pid_file = !entry.pid_file,
        }
        if entry.user.is_none() {
            entry.group = None;
        }
    }

    /// A key whose change needs none.
    fn touch_live(&mut self, entry: &mut Entry) {
        self.label += 1;
        let label = format!("text {} ü: [", self.label);
        let rng = &mut self.rng;
        let stays = entry.stays();
        match rng.below(19) {
            0 => entry.label = rng.maybe(70, &[label]),
            1 => entry.description = rng.maybe(70, &[label]),
            2 => {
                let words: &[&str] =
                    if entry.check().is_some() { &["health", "started"] } else { &["started"] };
                entry.readiness = rng.maybe(70, words);
            }
            3 if rng.percent(50) => entry.max_unavailable = rng.maybe(70, &[1, 2, 3]),
            3 => entry.start_timeout = rng.maybe(70, &[30_000, 60_000]),
            4 if rng.percent(50) => {
                entry.limits = [
                    rng.maybe(50, &["4G", "5G"]),
                    rng.maybe(50, &["3G", "3500M"]),
                    rng.maybe(50, &["2", "3.5"]),
                    rng.maybe(50, &["1000", "2000"]),
                    rng.maybe(50, &["2G", "2500M"]),
                ];
            }
            4 => entry.stop_timeout = Some(rng.between(100, 300)),
            5 => {
                let words = ["SIGTERM", "TERM", "INT", "SIGHUP", "USR2", "KILL", "15"];
                entry.stop_signal = rng.maybe(70, &words);
            }
            6 => entry.tags = rng.maybe(70, &["red", "green"]).into_iter().collect(),
            7 => {
                entry.policy.delay = Some(rng.between(0, 50));
                entry.policy.max_delay = Some(rng.between(50, 200));
            }
            8 => entry.policy.factor = rng.maybe(70, &["1", "1.5", "3", "2"]),
            9 => entry.policy.jitter = rng.maybe(70, &["0", "0.5", "1.0"]),
            // Longer than what ends by itself runs, so that its attempts count.
            10 => entry.policy.min_uptime = rng.maybe(70, &[5_000, 60_000]),
            11 => {
                let limits: &[u32] = if stays { &[0, 100_000] } else { &[0, 1, 2] };
                entry.policy.max_attempts = rng.maybe(60, limits);
            }
            12 => entry.policy.success = rng.maybe(70, &[vec![0], vec![0, 3], vec![1, 3]]),
            13 => {
                let words = ["always", "on-failure", "unless-stopped", "no"];
                entry.policy.condition = rng.maybe(80, &words);
            }
            17 => {
                entry.reload = rng.maybe(70, &[None, Some(1_000), Some(20_000)]);
                entry.watch = rng.maybe(70, &[None, Some("restart"), Some("reload")]);
            }
            14 | 15 if stays => entry.health = health(&entry.mode, rng),
            16 => {
                // Its end would end the daemon: only where there is none.
                let policy = &entry.policy;
                let endless = stays && !matches!(policy.condition, Some("no" | "on-failure"));
                let never = endless && policy.max_attempts == Some(100_000);
                entry.essential = rng.maybe(70, if never { &[true, false] } else { &[false] });
            }
            _ => {}
        }
        repair(entry);
    }

    /// Changes what the files say, and tells what it did.
    pub fn change(&mut self, files: &mut Files) -> String {
        let what = match self.rng.below(24) {
            0..=2 => {
                self.add(files);
                "add"
            }
            3..=4 => {
                self.remove(files);
                "remove"
            }
            5 => {
                self.rename(files);
                "rename"
            }
            6..=7 => {
                self.scale(files);
                "scale"
            }
            8 => {
                let Some(id) = self.any(files) else { return "nothing".into() };
                let enabled = self.rng.maybe(80, &[true, false]);
                files.entries.get_mut(&id).unwrap().enabled = enabled;
                "enabled"
            }
            9..=10 => {
                let Some(id) = self.any(files) else { return "nothing".into() };
                self.depend(files, &id);
                "depend"
            }
            11 => {
                let Some(id) = self.any(files) else { return "nothing".into() };
                files.entries.get_mut(&id).unwrap().depends.clear();
                "depend on nothing"
            }
            12..=13 => {
                let number = self.rng.below(3) as u32;
                let (secret, key) = (self.secret(), format!("FILE{}", self.rng.below(4)));
                let file = files.env_files.get_mut(&number).unwrap();
                if file.len() > 3 {
                    file.clear();
                }
                file.insert(key, secret);
                "environment file"
            }
            14 => {
                let Some(id) = self.any(files) else { return "nothing".into() };
                let place = *self.rng.pick(&[Place::Main, Place::DropIn(0), Place::DropIn(7)]);
                files.entries.get_mut(&id).unwrap().place = place;
                "move to another file"
            }
            15 => {
                let before = files.settings.clone();
                files.settings = self.settings();
                // All down for once, and back the next time.
                if self.rng.percent(20) && before.enabled != Some(false) {
                    files.settings.enabled = Some(false);
                }
                "settings"
            }
            16..=18 => {
                let Some(id) = self.any(files) else { return "nothing".into() };
                self.touch_exec(files.entries.get_mut(&id).unwrap());
                "what a run takes in"
            }
            19..=22 => {
                let Some(id) = self.any(files) else { return "nothing".into() };
                self.touch_live(files.entries.get_mut(&id).unwrap());
                "what needs no run"
            }
            _ => "nothing",
        };
        mend(files);
        what.to_owned()
    }

    /// A process with something in it that is no good, by its text.
    pub fn mistake(&mut self) -> &'static str {
        const MISTAKES: &[&str] = &[
            "{ comand: sleep }",
            "{ command: [sleep, '1'], dependson: [x] }",
            "{ command: [sleep, '1'], dependsOn: [nobody-there] }",
            "{ command: [sleep, '1'], dependsOn: [zz-mistake] }",
            "{ command: [sleep, '1'], startTimeout: 1.5s }",
            "{ command: [sleep, '1'], instances: 0 }",
            "{ command: [sleep, '1'], instances: two }",
            "{ command: [sleep, '1'], maxUnavailable: 0 }",
            "{ command: [sleep, '1'], maxUnavailable: 50% }",
            "{ command: [sleep, '1'], overlap: true, pidFile: /x }",
            "{ command: [sleep, '1'], overlap: true, restartPolicy: { condition: 'no' } }",
            "{ command: sleep 1 }",
            "{ command: [sleep, '1'], command: [sleep, '2'] }",
            "{ command: [sleep, '1'], env: { A: @SECRET@, A: b } }",
            "{ command: [sleep, '1'], env: { A: [@SECRET@] } }",
            "{ command: [sleep, '1'], env: @SECRET@ }",
            "{ command: [sleep, '${NOT_SET}'] }",
            "{ command: [sleep, '1'], shell: 'x' }",
            "{ enabled: true }",
            "{ command: [sleep, '1'], enabled: 'true' }",
            "{ command: [sleep, '1'], healthCheck: { url: 'nonsense' } }",
            "{ command: [sleep, '1'], healthCheck: { interval: 5s } }",
            "{ command: [sleep, '1'], restartPolicy: { condition: sometimes } }",
            "{ command: [sleep, '1'], restartPolicy: { factor: 0.5 } }",
            "{ command: [sleep, '1'], stop: { signal: SIGNOTHING } }",
            "{ command: [sleep, '1'], reload: SIGHUP }",
            "{ command: [sleep, '1'], reload: { signal: KILL } }",
            "{ command: [sleep, '1'], watch: { paths: [] } }",
            "{ command: [sleep, '1'], watch: { paths: [d], action: reload } }",
            "{ command: [sleep, '1'], umask: 99 }",
            "{ command: [sleep, '1'], nice: 20 }",
            "{ command: [sleep, '1'], limits: { files: 1 } }",
            "{ command: [sleep, '1'], envFile: /does/not/exist }",
            "{ command: [sleep, '1'], sandbox: lax }",
            "{ command: [sleep, '1']",
            "[",
            "",
        ];
        self.rng.word(MISTAKES)
    }
}

fn health(mode: &Mode, rng: &mut Rng) -> Option<Health> {
    let kinds: &[&str] =
        if matches!(mode, Mode::Serve(_)) { &["url", "url", "tcp", "exec"] } else { &["exec"] };
    let health = Health {
        kind: rng.word(kinds),
        enabled: rng.maybe(30, &[true, true, false]),
        interval: Some(rng.between(100, 300)),
        timeout: rng.maybe(50, &[20_000]),
        start_period: rng.maybe(50, &[0, 100, 20_000]),
        failures: rng.maybe(70, &[1, 2]),
        successes: rng.maybe(50, &[1, 2]),
        on_failure: rng.maybe(70, &["restart", "none", "stop"]),
    };
    rng.percent(75).then_some(health)
}

/// Takes back what does not go together.
fn repair(entry: &mut Entry) {
    if entry.check().is_none() && entry.readiness == Some("health") {
        entry.readiness = None;
    }
    if entry.reload.is_none() && entry.watch == Some(Some("reload")) {
        entry.watch = None;
    }
    let endless = entry.stays()
        && !matches!(entry.policy.condition, Some("no" | "on-failure"))
        && entry.policy.max_attempts == Some(100_000)
        && entry.check().is_none_or(|check| check.on_failure != Some("stop"));
    if !endless && entry.essential == Some(true) {
        entry.essential = None;
    }
}

/// Takes back edges that cannot be met any more.
fn mend(files: &mut Files) {
    for entry in files.entries.values_mut() {
        repair(entry);
    }
    let known = files.entries.clone();
    for entry in files.entries.values_mut() {
        entry.depends.retain(|on, edge| match edge.condition() {
            "completed" => matches!(known[on].condition(), "no" | "on-failure"),
            "healthy" => known[on].check().is_some(),
            _ => known[on].stays(),
        });
    }
}
