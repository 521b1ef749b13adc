//! One soak: where it stands, and how each step is judged.

use crate::common::waiting::DEADLINE;
use crate::daemon::{Daemon, Told};
use crate::disk::Disk;
use crate::draw::Draw;
use crate::file::{Files, Ground, Instance, name};
use crate::model::{self, Expected, Moves, State, Step, World};
use crate::outside::{self, Births, Process};
use provost::client::ProcessStatus;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write;
use std::time::Instant;

/// What a step must wait for before anything else counts.
pub type Noticed = Box<dyn Fn(&Told) -> bool>;

pub struct Soak {
    pub ground: Ground,
    pub draw: Draw,
    pub daemon: Daemon,
    pub births: Births,
    pub disk: Disk,
    /// What is in force.
    pub files: Files,
    pub world: World,
    /// The runs that are there.
    pub runs: BTreeMap<Instance, Process>,
    /// Runs whose child was killed.
    pub childless: BTreeSet<Instance>,
    pub history: VecDeque<String>,
    pub steps: u64,
    /// How much of the daemon's log was searched for secrets.
    searched: usize,
}

/// What a step came to.
pub type Judged = Result<(), String>;

impl Soak {
    pub async fn begin(ground: Ground, mut draw: Draw) -> Result<Soak, String> {
        let births = Births::listen(&ground.dir.join("births"));
        let files = draw.files();
        let mut disk = Disk::default();
        outside::make_locks(&files, &ground);
        disk.write(&files, &ground, &mut draw.rng, false).carry_out(crate::disk::Save::InPlace);
        let daemon = Daemon::start(&ground).await;
        let mut soak = Soak {
            ground,
            draw,
            daemon,
            births,
            disk,
            files: Files::default(),
            world: World::new(),
            runs: BTreeMap::new(),
            childless: BTreeSet::new(),
            history: VecDeque::new(),
            steps: 0,
            searched: 0,
        };
        let expected = model::from_nothing(&files, &soak.ground);
        soak.files = files;
        soak.note("the daemon is started".to_owned());
        soak.judge(expected, Box::new(|_| true)).await?;
        Ok(soak)
    }

    pub fn note(&mut self, what: String) {
        self.steps += 1;
        if std::env::var_os("PROVOST_SOAK_VERBOSE").is_some() {
            eprintln!("{} {what}", self.steps);
        }
        self.history.push_back(format!("{} {what}", self.steps));
        if self.history.len() > 30 {
            self.history.pop_front();
        }
    }

    /// What must be there after a step; its files are in force from now on.
    pub fn expect(&mut self, step: &Step) -> BTreeMap<Instance, Expected> {
        let expected = model::expect(&self.world, &self.files, step, &self.ground);
        if let Some(files) = &step.files {
            self.files = files.clone();
        }
        expected
    }

    /// Waits until the daemon says that it is done, and looks whether all is as expected.
    pub async fn judge(
        &mut self,
        expected: BTreeMap<Instance, Expected>,
        noticed: Noticed,
    ) -> Judged {
        let checked: BTreeSet<String> = expected
            .iter()
            .filter(|((id, _), expected)| {
                expected.known.state == State::Up && self.files.entries[id].check().is_some()
            })
            .map(|(instance, _)| name(instance))
            .collect();
        let restless: BTreeSet<String> = expected
            .iter()
            .filter(|(instance, expected)| {
                let loops = || model::runs_into(&self.files, &instance.0) == State::Restless;
                expected.known.state == State::Restless || expected.either && loops()
            })
            .map(|(instance, _)| name(instance))
            .collect();
        let ending: BTreeSet<String> = expected
            .keys()
            .filter(|(id, _)| !self.files.entries[id].stays())
            .map(name)
            .filter(|id| !restless.contains(id))
            .collect();
        let held: BTreeSet<String> = expected
            .iter()
            .filter(|(_, expected)| expected.known.held)
            .map(|(i, _)| name(i))
            .collect();
        let rest = Rest { restless, checked, ending, held };
        let told = self.daemon.until(|told| noticed(told) && rest.stirring(told).is_empty()).await;
        let told = told.map_err(|told| {
            let noticed = noticed(&told);
            let stirring = rest.stirring(&told);
            format!("it never rests (noticed: {noticed}, {stirring:?}):\n{}", short(&told))
        })?;
        let mut wrong = self.judge_words(&expected, &told);
        self.hear(&expected, &told);
        wrong.extend(self.judge_runs(&expected, &told));
        wrong.append(&mut self.births.wrong);
        wrong.extend(self.search(&format!("{:?} {:?}", told.manager, told.processes)));
        if !wrong.is_empty() {
            return Err(format!("{}\n{}", wrong.join("\n"), short(&told)));
        }
        self.take_in(&expected, &told);
        Ok(())
    }

    /// What the daemon says.
    fn judge_words(&self, expected: &BTreeMap<Instance, Expected>, told: &Told) -> Vec<String> {
        let mut wrong = Vec::new();
        let names: BTreeSet<String> = expected.keys().map(name).collect();
        let said: BTreeSet<String> = told.processes.iter().map(|p| p.id.clone()).collect();
        if names != said {
            wrong.push(format!("it knows {said:?}, the files say {names:?}"));
        }
        for process in &told.processes {
            let instance = (process.process.clone(), process.instance);
            let Some(expected) = expected.get(&instance) else { continue };
            let id = &process.id;
            let wanted = if expected.known.wanted { "up" } else { "down" };
            if process.desired != wanted {
                wrong.push(format!("{id} is wanted {}, and should be {wanted}", process.desired));
            }
            let enabled = self.files.is_managed() && self.files.entries[&instance.0].is_enabled();
            if process.enabled != enabled {
                wrong.push(format!("{id}: enabled is {}, not {enabled}", process.enabled));
            }
            let word = match expected.known.state {
                State::Down => "down",
                State::Waiting => "waiting",
                State::Up => "running",
                State::Completed => "completed",
                State::Failed => "failed",
                State::Restless => continue,
            };
            if process.state != word && !expected.either {
                wrong.push(format!("{id} is {}, and should be {word}", process.state));
            }
            if process.needs_restart && !expected.known.held {
                wrong.push(format!("{id} needs a restart"));
            }
        }
        wrong
    }

    /// Waits for what runs that began must tell.
    fn hear(&mut self, expected: &BTreeMap<Instance, Expected>, told: &Told) {
        let deadline = Instant::now() + DEADLINE;
        // So many births of an instance, and that of the run that is there.
        let mut wanted: Vec<(String, usize, Option<i32>, bool)> = Vec::new();
        for (instance, expected) in expected {
            let id = name(instance);
            let least = match expected.moves {
                Moves::New => 1,
                Moves::Any(least) if !expected.either => least,
                Moves::Same | Moves::Any(_) => 0,
            };
            let entry = &self.files.entries[&instance.0];
            let said = told.processes.iter().find(|process| process.id == id);
            let pid = said.filter(|_| entry.stays()).and_then(|process| process.pid);
            let pid = pid.map(|pid| pid as i32);
            let known = self.runs.get(instance).map(|process| process.pid);
            let new = pid.filter(|pid| Some(*pid) != known);
            wanted.push((id, least, new, outside::children(entry) > 0));
        }
        let has = |of: &BTreeMap<String, Vec<i32>>, id: &String, pid: i32| {
            of.get(id).is_some_and(|pids| pids.contains(&pid))
        };
        self.births.until(deadline, |births| {
            wanted.iter().all(|(id, least, new, forks)| {
                births.mains.get(id).map_or(0, Vec::len) >= *least
                    && new.is_none_or(|pid| {
                        has(&births.mains, id, pid) && (!forks || has(&births.children, id, pid))
                    })
            })
        });
    }

    /// What can be seen.
    fn judge_runs(&mut self, expected: &BTreeMap<Instance, Expected>, told: &Told) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut found = outside::look(&self.ground.token);
        for (instance, expected) in expected {
            let id = name(instance);
            let entry = &self.files.entries[&instance.0];
            let mains = found.mains.remove(&id).unwrap_or_default();
            let children = found.children.remove(&id).unwrap_or_default();
            let began = self.births.mains.get(&id).map_or(0, Vec::len);
            let said = told.processes.iter().find(|process| process.id == id);
            let is_up = said.is_some_and(|process| process.state == "running");
            let ends = expected.either && !entry.stays();
            if expected.known.state == State::Restless || ends {
                if mains.len() > 1 {
                    wrong.push(format!("{id} runs {} times", mains.len()));
                }
                continue;
            }
            let up = if expected.either { is_up } else { expected.known.state == State::Up };
            if !up {
                if !(mains.is_empty() && children.is_empty()) {
                    wrong.push(format!("{id} is no more, and there are {mains:?} {children:?}"));
                }
                let pid_file =
                    self.files.exec(instance, &self.ground).and_then(|exec| exec.pid_file);
                if pid_file.is_some_and(|path| path.exists()) {
                    wrong.push(format!("{id} is no more, and its pid file is there"));
                }
                if entry.stays() && expected.moves == Moves::Same && began > 0 {
                    wrong.push(format!("{id} had {began} runs"));
                }
                continue;
            }
            let [main] = mains[..] else {
                wrong.push(format!("{id} should run once: {mains:?}"));
                continue;
            };
            let pid = said.and_then(|process| process.pid).map(|pid| pid as i32);
            if pid != Some(main.pid) {
                wrong.push(format!("{id} is {}, and the daemon says {pid:?}", main.pid));
            }
            let known = self.runs.get(instance);
            match expected.moves {
                Moves::Same if known != Some(&main) => {
                    wrong.push(format!("{id} was to be left alone: it was {known:?}, is {main:?}"));
                }
                Moves::Same if began != 0 => {
                    wrong.push(format!("{id} was to be left alone, and {began} runs began"));
                }
                Moves::New if known == Some(&main) || began != 1 => {
                    wrong.push(format!("{id} was to get one new run: {began} began, {main:?}"));
                }
                _ => {}
            }
            let bereft = known == Some(&main) && self.childless.contains(instance);
            let heirs = if bereft { 0 } else { outside::children(entry) };
            if children.len() != heirs && !matches!(expected.moves, Moves::Any(_)) {
                wrong.push(format!("{id} should have {heirs} beside it: {children:?}"));
            }
            // It is told later of what changed.
            if expected.known.held && said.is_some_and(|process| process.needs_restart) {
                continue;
            }
            let exec = self.files.exec(instance, &self.ground).unwrap();
            for what in outside::differences(main.pid, &exec, instance, self.draw.root) {
                wrong.push(format!("{id}: {what}"));
            }
            if let Some(answer) = outside::answer(entry, instance, &self.ground)
                && answer != format!("{id} {}", main.pid)
            {
                wrong.push(format!("{id}: at its port is {answer:?}"));
            }
        }
        for (id, of) in found.mains.iter().chain(&found.children) {
            wrong.push(format!("{id} is in no file, and there are {of:?}"));
        }
        wrong
    }

    /// What is now so is what the next step begins with.
    fn take_in(&mut self, expected: &BTreeMap<Instance, Expected>, told: &Told) {
        self.world.clear();
        let mut runs = BTreeMap::new();
        for (instance, expected) in expected {
            let mut known = expected.known;
            let id = name(instance);
            let Some(said) = told.processes.iter().find(|process| process.id == id) else {
                continue;
            };
            known.held &= said.needs_restart;
            if expected.either {
                known.state = match said.state.as_str() {
                    "running" if self.files.entries[&instance.0].stays() => State::Up,
                    "waiting" => State::Waiting,
                    "completed" => State::Completed,
                    "failed" => State::Failed,
                    "down" => State::Down,
                    _ => State::Restless,
                };
            }
            if known.state == State::Up
                && let Some(process) = said.pid.and_then(|pid| outside::process(pid as i32))
            {
                if self.runs.get(instance) != Some(&process) {
                    self.childless.remove(instance);
                }
                runs.insert(instance.clone(), process);
            }
            self.world.insert(instance.clone(), known);
        }
        self.childless.retain(|instance| runs.contains_key(instance));
        self.runs = runs;
        self.births.forget();
    }

    /// Whether a secret is in a text.
    pub fn search(&self, text: &str) -> Option<String> {
        let at = text.find(&self.draw.canary)?;
        let mut begin = at.saturating_sub(200);
        while !text.is_char_boundary(begin) {
            begin -= 1;
        }
        Some(format!("a secret is shown: ...{}", &text[begin..at + self.draw.canary.len()]))
    }

    /// What the daemon costs may depend on how much there is to look after, not on how long it has
    /// done so.
    pub fn judge_cost(&self) -> Judged {
        let pid = self.daemon.child.id();
        let cost = outside::cost(pid);
        let (count, unfetched) = (self.world.len(), outside::unfetched_by(pid));
        let too_much = cost.kib > 6 * 1024 + 64 * count as u64
            || cost.files > 40 + 4 * count
            || cost.threads > 32
            || !unfetched.is_empty();
        if too_much {
            return Err(format!("with {count} instances: {cost:?}; not reaped: {unfetched:?}"));
        }
        Ok(())
    }

    /// Everything that is shown to anybody, searched for secrets.
    pub fn search_all(&mut self) -> Judged {
        let log = self.daemon.log();
        let mut texts = vec![log[self.searched.min(log.len())..].to_owned()];
        self.searched = log.len();
        let any = self.files.entries.keys().next().cloned().unwrap_or_default();
        let commands: [&[&str]; 6] = [
            &["status", "--output", "json"],
            &["status", "--output", "wide"],
            &["plan"],
            &["plan", "--output", "json"],
            &["events", "-n", "300"],
            &["why", &any],
        ];
        for command in commands {
            let args: Vec<String> = command.iter().map(|word| (*word).to_owned()).collect();
            let output = self.daemon.provost(&args);
            texts.push(String::from_utf8_lossy(&output.stdout).into_owned());
            texts.push(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        match texts.iter().find_map(|text| self.search(text)) {
            Some(found) => Err(found),
            None => Ok(()),
        }
    }

    /// What somebody needs who has to find out.
    pub fn report(&self) -> String {
        let mut text = String::new();
        for line in &self.history {
            let _ = writeln!(text, "  {line}");
        }
        let args = ["status".to_owned(), "--output".to_owned(), "json".to_owned()];
        let status = self.daemon.provost(&args);
        let log = self.daemon.log();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(400)..].join("\n");
        let status = String::from_utf8_lossy(&status.stdout).into_owned();
        format!("{text}{}--- status\n{status}\n--- log\n{tail}", self.disk.show())
    }
}

/// What is to be waited for.
struct Rest {
    /// They come and go for ever.
    restless: BTreeSet<String>,
    /// They have a check.
    checked: BTreeSet<String>,
    /// They end by themselves.
    ending: BTreeSet<String>,
    /// They may have a run of before a change.
    held: BTreeSet<String>,
}

impl Rest {
    /// What is under way, in the words of the daemon itself.
    fn stirring(&self, told: &Told) -> Vec<String> {
        let mut found = Vec::new();
        let manager = &told.manager;
        // Who is started and needs what never comes has a job for as long as that.
        let held = |process: &ProcessStatus| {
            process.state == "waiting" || self.restless.contains(&process.id)
        };
        for job in &told.jobs {
            if !told.processes.iter().any(|process| process.id == *job && held(process)) {
                found.push(format!("a job of {job:?}"));
            }
        }
        for word in [&manager.config_state, &manager.system_state] {
            if ["applying", "reloading", "stopping"].contains(&word.as_str()) {
                found.push(word.clone());
            }
        }
        for process in told.processes.iter().filter(|p| !self.restless.contains(&p.id)) {
            let rests = match process.state.as_str() {
                // Its new run may have no process yet.
                "running" if process.overlap_pid.is_some() => false,
                // Its main process is no more, and something of it is.
                "running" if process.reason == "the run before it is ending" => false,
                "running" if process.needs_restart => self.held.contains(&process.id),
                "running" if self.ending.contains(&process.id) => false,
                "running" => !self.checked.contains(&process.id) || process.health == "healthy",
                state => ["down", "waiting", "completed", "failed"].contains(&state),
            };
            if !rests {
                found.push(process.id.clone());
            }
        }
        found
    }
}

fn short(told: &Told) -> String {
    let mut text = format!("{:?}\n", told.manager);
    for process in &told.processes {
        let _ = writeln!(
            text,
            "  {} {} {} wanted {} pid {:?} {}",
            process.id, process.state, process.health, process.desired, process.pid, process.reason
        );
    }
    text
}
