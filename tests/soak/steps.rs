//! What is done in one step, and what must come of it.

use crate::daemon::{Daemon, Told, wait_readable};
use crate::disk::{Change, Save};
use crate::file::{Files, Instance, Mode, name};
use crate::model::{Moves, Push, State, Step};
use crate::outside;
use crate::soak::{Judged, Noticed, Soak};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use provost::client::{ClientError, ReloadOptions, Verb};
use std::collections::BTreeSet;

/// How the daemon comes to know of a change.
#[derive(Clone, Copy, Debug, PartialEq)]
enum By {
    Watch,
    Client,
    CommandLine,
    Hangup,
}

impl Soak {
    /// One step, drawn.
    pub async fn step(&mut self) -> Judged {
        match self.draw.rng.below(100) {
            0..=37 => self.edit().await,
            38..=42 => self.mistake().await,
            43..=46 => self.burst().await,
            47..=60 => self.command().await,
            61..=63 => self.once().await,
            64..=66 => self.signal().await,
            67..=74 => self.kill().await,
            75..=77 => self.kill_child().await,
            78..=81 => self.sick().await,
            82..=85 => self.enable().await,
            86..=88 => self.nothing().await,
            89..=92 => self.storm().await,
            93 => {
                self.judge_cost()?;
                self.search_all()
            }
            94..=95 => self.restart_daemon().await,
            _ => self.kill_daemon().await,
        }
    }

    fn a_save(&mut self) -> Save {
        *self.draw.rng.pick(&[Save::Rename, Save::Rename, Save::InPlace, Save::Pieces, Save::Anew])
    }

    /// Carries out a change of several files as one, as far as the daemon can see.
    fn change(&self, change: &Change, how: Save) {
        let several = change.len() > 1;
        if several {
            self.daemon.signal(Signal::SIGSTOP);
        }
        change.carry_out(how);
        if several {
            self.daemon.signal(Signal::SIGCONT);
        }
    }

    fn a_way(&mut self) -> By {
        let watched = self.files.is_watched();
        let ways: &[By] = if watched {
            &[By::Watch, By::Watch, By::Watch, By::Client, By::CommandLine, By::Hangup]
        } else {
            &[By::Client, By::CommandLine, By::Hangup]
        };
        *self.draw.rng.pick(ways)
    }

    /// Waits until the daemon has seen to every event of the files: one that is still to come could
    /// have it read several files while they are written.
    async fn calm(&mut self) -> Judged {
        if !self.files.is_watched() {
            return Ok(());
        }
        let before = self.daemon.told().await.manager;
        let change = self.disk.comment(&self.ground, &mut self.draw.rng);
        change.carry_out(Save::Rename);
        let step = Step { files: Some(self.files.clone()), ..Step::default() };
        let expected = self.expect(&step);
        let noticed = move |told: &Told| told.manager.valid && told.manager.digest != before.digest;
        self.judge(expected, Box::new(noticed)).await
    }

    /// Whether a change is none: an environment file that nobody names is no part of the files.
    fn is_idle(&self, files: &Files, change: &Change) -> bool {
        let named: BTreeSet<u32> =
            files.entries.values().flat_map(|entry| entry.env_files.clone()).collect();
        let idle: BTreeSet<_> = (0..3)
            .filter(|number| !named.contains(number))
            .map(|number| self.ground.env_file(number))
            .collect();
        change.write.iter().all(|(path, _)| idle.contains(path)) && change.remove.is_empty()
    }

    /// The files say something else.
    async fn edit(&mut self) -> Judged {
        let mut files = self.files.clone();
        let mut what = Vec::new();
        for _ in 0..*self.draw.rng.pick(&[1, 1, 1, 1, 2, 3]) {
            what.push(self.draw.change(&mut files));
        }
        outside::make_locks(&files, &self.ground);
        let anew = self.draw.rng.percent(15);
        let mut preview = (self.disk.clone(), self.draw.rng.clone());
        if preview.0.write(&files, &self.ground, &mut preview.1, anew).len() > 1 {
            self.calm().await?;
        }
        let change = self.disk.write(&files, &self.ground, &mut self.draw.rng, anew);
        let (how, by) = (self.a_save(), self.a_way());
        self.note(format!("edit: {what:?}, {} files, {how:?}, {by:?}", change.len()));
        let before = self.daemon.told().await.manager;
        self.change(&change, how);
        if self.is_idle(&files, &change) {
            self.files = files;
            let expected = self.expect(&Step::default());
            return self.judge(expected, Box::new(|_| true)).await;
        }
        let step = Step { files: Some(files), ..Step::default() };
        let expected = self.expect(&step);
        let noticed: Noticed = match by {
            By::Watch => Box::new(move |told| {
                told.manager.valid && (told.manager.digest != before.digest || !before.valid)
            }),
            By::Hangup => {
                self.daemon.signal(Signal::SIGHUP);
                Box::new(move |told| {
                    told.manager.valid && (told.manager.digest != before.digest || !before.valid)
                })
            }
            By::Client => {
                let done = self.daemon.client.reload(&ReloadOptions::default()).await;
                let done = done.map_err(|error| format!("a valid file is refused: {error}"))?;
                let good = |state| matches!(state, State::Up | State::Completed | State::Down);
                if done.result == "failed-kept" && expected.values().all(|e| good(e.known.state)) {
                    return Err(format!("all is well, and the reload says {done:?}"));
                }
                Box::new(|_| true)
            }
            By::CommandLine => {
                let output = self.daemon.provost(&["reload".to_owned()]);
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                if !self.daemon.told().await.manager.valid {
                    return Err(format!("a valid file is refused: {said}"));
                }
                Box::new(|_| true)
            }
        };
        self.judge(expected, noticed).await
    }

    /// The files say nothing that can be used; then again what they said before.
    async fn mistake(&mut self) -> Judged {
        let mistake = self.draw.mistake();
        let secret = self.draw.secret();
        let mistake = mistake.replace("@SECRET@", &secret);
        let change = self.disk.spoil(&self.ground, &mut self.draw.rng, &mistake);
        let by = self.a_way();
        let how = self.a_save();
        self.note(format!("mistake: {}, {how:?}, {by:?}", mistake.replace(&secret, "...")));
        self.change(&change, how);
        let noticed: Noticed = match by {
            By::Watch => Box::new(|told| !told.manager.valid),
            By::Hangup => {
                self.daemon.signal(Signal::SIGHUP);
                Box::new(|told| !told.manager.valid)
            }
            By::Client => match self.daemon.client.reload(&ReloadOptions::default()).await {
                Err(ClientError::ConfigInvalid(text)) => match self.search(&text) {
                    Some(found) => return Err(found),
                    None => Box::new(|told| !told.manager.valid),
                },
                other => return Err(format!("a mistake is not refused: {other:?}")),
            },
            By::CommandLine => {
                let output = self.daemon.provost(&["reload".to_owned()]);
                let text = String::from_utf8_lossy(&output.stderr).into_owned();
                if output.status.code() != Some(1) {
                    return Err(format!("a mistake is not refused: {output:?}"));
                }
                if let Some(found) = self.search(&text) {
                    return Err(found);
                }
                Box::new(|told| !told.manager.valid)
            }
        };
        let expected = self.expect(&Step::default());
        self.judge(expected, noticed).await?;
        if self.draw.rng.percent(30) {
            // What runs is cared for, whatever the files say.
            self.kill().await?;
        }
        if self.draw.rng.percent(50) {
            return self.edit().await;
        }
        let change = self.disk.restore();
        let how = self.a_save();
        self.note(format!("the mistake is taken back, {how:?}"));
        self.change(&change, how);
        if !self.files.is_watched() {
            self.daemon.signal(Signal::SIGHUP);
        }
        let expected = self.expect(&Step::default());
        self.judge(expected, Box::new(|told| told.manager.valid)).await
    }

    /// Several changes, one before the other is through.
    async fn burst(&mut self) -> Judged {
        let mut all = vec![self.files.clone()];
        for _ in 0..self.draw.rng.between(2, 4) {
            let mut files = all.last().unwrap().clone();
            self.draw.change(&mut files);
            // Seen half way, one that moves is not there, and what was said of it is forgotten.
            for (id, entry) in &mut files.entries {
                if let Some(before) = all.iter().rev().find_map(|files| files.entries.get(id)) {
                    entry.place = before.place;
                }
            }
            if !is_forgotten(&all, &files, &self.world) {
                all.push(files);
            }
        }
        let last = all.last().unwrap().clone();
        let how = self.a_save();
        self.note(format!("burst: {} changes, {how:?}", all.len() - 1));
        for files in &all[1..] {
            outside::make_locks(files, &self.ground);
            let change = self.disk.write(files, &self.ground, &mut self.draw.rng, true);
            self.change(&change, how);
            match self.draw.rng.below(3) {
                0 => self.daemon.signal(Signal::SIGHUP),
                1 => drop(self.daemon.told().await),
                _ => {}
            }
        }
        let (touched, mut ill) = concerned(&all, &self.world);
        let before = self.world.clone();
        let step = Step { files: Some(last), ..Step::default() };
        let mut expected = self.expect(&step);
        for id in self.files.in_order() {
            let on_ill = self.files.below(&id, |_| true).iter().any(|on| ill.contains(on));
            if on_ill {
                ill.insert(id);
            }
        }
        for (instance, expected) in &mut expected {
            if touched.contains(&instance.0) {
                expected.moves = Moves::Any(0);
            }
            let known = before.get(instance).map(|known| known.state);
            expected.either |= ill.contains(&instance.0)
                || touched.contains(&instance.0)
                    && matches!(known, Some(State::Failed | State::Completed));
        }
        let done = self.daemon.client.reload(&ReloadOptions::default()).await;
        done.map_err(|error| format!("a valid file is refused: {error}"))?;
        self.judge(expected, Box::new(|_| true)).await
    }

    /// Names of instances for a command, and which they are.
    fn names(&mut self) -> (Vec<String>, Vec<Instance>) {
        let all: Vec<Instance> = self.world.keys().cloned().collect();
        let (mut names, mut found) = (Vec::new(), BTreeSet::new());
        if all.is_empty() {
            return (names, Vec::new());
        }
        for _ in 0..*self.draw.rng.pick(&[1, 1, 1, 2, 3]) {
            let instance = self.draw.rng.pick(&all).clone();
            let kind = self.draw.rng.below(6);
            let entry = &self.files.entries[&instance.0];
            let whole = |id: &String| -> Vec<Instance> {
                (0..self.files.entries[id].count()).map(|n| (id.clone(), n)).collect()
            };
            match kind {
                0 => {
                    names.push(format!("{}@*", instance.0));
                    found.extend(whole(&instance.0));
                }
                1 if !entry.tags.is_empty() => {
                    let tag = *entry.tags.first().unwrap();
                    names.push(format!("tag:{tag}"));
                    let tagged = self.files.entries.iter().filter(|(_, e)| e.tags.contains(tag));
                    found.extend(tagged.flat_map(|(id, _)| whole(id)));
                }
                2 => {
                    names.push(instance.0.clone());
                    found.insert((instance.0.clone(), 0));
                }
                _ => {
                    names.push(name(&instance));
                    found.insert(instance);
                }
            }
        }
        (names, found.into_iter().collect())
    }

    /// Whether somebody may start these.
    fn may_start(&self, instances: &[Instance]) -> bool {
        self.files.is_managed()
            && instances.iter().all(|instance| {
                self.files.entries[&instance.0].is_enabled() || self.world[instance].once
            })
    }

    async fn command(&mut self) -> Judged {
        let (names, instances) = self.names();
        if names.is_empty() {
            return Ok(());
        }
        let verb =
            *self.draw.rng.pick(&["start", "stop", "restart", "stop", "start", "reset-failed"]);
        let typed = self.draw.rng.percent(50);
        self.note(format!("{verb} {names:?}{}", if typed { ", typed" } else { "" }));
        let refused = matches!(verb, "start" | "restart") && !self.may_start(&instances);
        let mut said = String::new();
        let ok = if typed {
            let mut args = vec![verb.to_owned()];
            args.extend(names.clone());
            let output = self.daemon.provost(&args);
            said = format!("{output:?}");
            output.status.success()
        } else {
            let client = &self.daemon.client;
            match verb {
                "reset-failed" => client.reset_failed(&names).await.is_ok(),
                _ => {
                    let verb = match verb {
                        "start" => Verb::Start { once: false },
                        "stop" => Verb::Stop,
                        _ => Verb::Restart,
                    };
                    client
                        .run(verb, &names, |_| {})
                        .await
                        .is_ok_and(|jobs| jobs.iter().all(provost::client::JobOutcome::is_success))
                }
            }
        };
        let mut step = Step::default();
        if !refused {
            match verb {
                "start" => step.pushed.extend(instances.iter().map(|i| (i.clone(), Push::Start))),
                "restart" => {
                    step.pushed.extend(instances.iter().map(|i| (i.clone(), Push::Restart)))
                }
                "stop" => step.stopped.extend(instances.iter().cloned()),
                _ => step.pushed.extend(instances.iter().map(|i| (i.clone(), Push::Reset))),
            }
        }
        let expected = self.expect(&step);
        let all_up = instances
            .iter()
            .all(|instance| matches!(expected[instance].known.state, State::Up | State::Completed));
        match (verb, ok) {
            (_, true) if refused => return Err(format!("{verb} {names:?} was not refused")),
            ("start" | "restart", false) if !refused && all_up => {
                return Err(format!("{verb} {names:?} did not succeed: {said}"));
            }
            ("stop" | "reset-failed", false) => {
                return Err(format!("{verb} {names:?} failed: {said}"));
            }
            _ => {}
        }
        self.judge(expected, Box::new(|_| true)).await
    }

    /// Something disabled is started all the same.
    async fn once(&mut self) -> Judged {
        let disabled: Vec<Instance> = self
            .world
            .keys()
            .filter(|(id, _)| !self.files.entries[id].is_enabled())
            .cloned()
            .collect();
        if disabled.is_empty() || !self.files.is_managed() {
            return self.command().await;
        }
        let instance = self.draw.rng.pick(&disabled).clone();
        self.note(format!("start --once {}", name(&instance)));
        let verb = Verb::Start { once: true };
        let done = self.daemon.client.run(verb, &[name(&instance)], |_| {}).await;
        done.map_err(|error| format!("start --once: {error}"))?;
        let step = Step {
            pushed: [(instance.clone(), Push::Start)].into(),
            once: [instance].into(),
            ..Step::default()
        };
        let expected = self.expect(&step);
        self.judge(expected, Box::new(|_| true)).await
    }

    fn some_up(&mut self, keep: impl Fn(&Files, &Instance) -> bool) -> Option<Instance> {
        let ups: Vec<Instance> = self
            .world
            .iter()
            .filter(|(instance, known)| known.state == State::Up && keep(&self.files, instance))
            .map(|(instance, _)| instance.clone())
            .collect();
        if ups.is_empty() { None } else { Some(self.draw.rng.pick(&ups).clone()) }
    }

    /// A signal that changes nothing, or one that ends a run.
    async fn signal(&mut self) -> Judged {
        let Some(instance) = self.some_up(|_, _| true) else { return Ok(()) };
        let deadly = self.draw.rng.percent(50);
        let word = if deadly { "KILL" } else { "USR1" };
        let whom = *self.draw.rng.pick(&["main", "all"]);
        self.note(format!("signal {word} to {whom} of {}", name(&instance)));
        let words = ["signal", "--whom", whom, word];
        let mut args: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        args.push(name(&instance));
        let output = self.daemon.provost(&args);
        if !output.status.success() {
            return Err(format!("signal: {output:?}"));
        }
        if deadly {
            return self.killed(instance).await;
        }
        let expected = self.expect(&Step::default());
        self.judge(expected, Box::new(|_| true)).await
    }

    /// Somebody kills a main process.
    async fn kill(&mut self) -> Judged {
        let Some(instance) = self.some_up(|_, _| true) else { return Ok(()) };
        self.note(format!("kill -9 {} ({})", name(&instance), self.runs[&instance].pid));
        kill_one(self.runs[&instance].pid);
        self.killed(instance).await
    }

    async fn killed(&mut self, instance: Instance) -> Judged {
        let (id, pid) = (name(&instance), self.runs[&instance].pid as u32);
        let step = Step { pushed: [(instance, Push::Killed)].into(), ..Step::default() };
        let expected = self.expect(&step);
        self.judge(expected, Box::new(move |told| is_over(told, &id, pid))).await
    }

    /// Somebody kills what a main process left beside it: no affair of the daemon's.
    async fn kill_child(&mut self) -> Judged {
        let forks =
            |files: &Files, instance: &Instance| files.entries[&instance.0].mode == Mode::Fork;
        let Some(instance) = self.some_up(forks) else { return Ok(()) };
        let found = outside::look(&self.ground.token);
        let Some(children) = found.children.get(&name(&instance)) else { return Ok(()) };
        self.note(format!("kill -9 what {} left beside it", name(&instance)));
        kill_one(children[0].pid);
        self.childless.insert(instance);
        let expected = self.expect(&Step::default());
        self.judge(expected, Box::new(|_| true)).await
    }

    /// Something runs and is not well.
    async fn sick(&mut self) -> Judged {
        let can = |files: &Files, instance: &Instance| {
            files.entries[&instance.0].check().is_some_and(|check| check.kind != "tcp")
        };
        let Some(instance) = self.some_up(can) else { return Ok(()) };
        self.note(format!("{} falls ill", name(&instance)));
        let flag = self.ground.sick_flag(&instance);
        std::fs::write(&flag, "").unwrap();
        let (id, pid) = (name(&instance), self.runs[&instance].pid as u32);
        let check = self.files.entries[&instance.0].check().cloned();
        if check.and_then(|check| check.on_failure) == Some("none") {
            let seen = self
                .daemon
                .until(|told| told.processes.iter().any(|p| p.id == id && p.health == "unhealthy"));
            seen.await.map_err(|_| format!("{id} is ill, and nobody sees it"))?;
            // It gets well by itself.
            std::fs::remove_file(&flag).unwrap();
            let expected = self.expect(&Step::default());
            return self.judge(expected, Box::new(|_| true)).await;
        }
        let step = Step { pushed: [(instance, Push::Sick)].into(), ..Step::default() };
        let expected = self.expect(&step);
        let judged = self.judge(expected, Box::new(move |told| is_over(told, &id, pid))).await;
        // One that is not tried again leaves it.
        let _ = std::fs::remove_file(flag);
        judged
    }

    /// The file is edited by the daemon.
    async fn enable(&mut self) -> Judged {
        let (_, instances) = self.names();
        let ids: BTreeSet<String> = instances.into_iter().map(|(id, _)| id).collect();
        if ids.is_empty() {
            return Ok(());
        }
        let enabled = self.draw.rng.percent(60);
        self.note(format!("{} {ids:?}", if enabled { "enable" } else { "disable" }));
        let names: Vec<String> = ids.iter().cloned().collect();
        let done = self.daemon.client.set_enabled(&names, enabled).await;
        if let Err(error) = done {
            return Err(format!("the file cannot be edited: {error}"));
        }
        let mut files = self.files.clone();
        for id in &ids {
            let entry = files.entries.get_mut(id).unwrap();
            if entry.is_enabled() != enabled {
                entry.enabled = Some(enabled);
            }
        }
        let changed = files != self.files;
        self.disk.reread(&files, &self.ground);
        let step = Step { files: changed.then_some(files), ..Step::default() };
        let expected = self.expect(&step);
        self.judge(expected, Box::new(|_| true)).await
    }

    /// What only asks.
    async fn nothing(&mut self) -> Judged {
        let words = *self.draw.rng.pick(&["reload", "plan", "status", "events"]);
        self.note(format!("nothing: {words}"));
        let output = self.daemon.provost(&[words.to_owned()]);
        if matches!(words, "reload" | "plan") && !output.status.success() {
            return Err(format!("{words}: {output:?}"));
        }
        let expected = self.expect(&Step::default());
        self.judge(expected, Box::new(|_| true)).await
    }

    /// Many want different things of the same few at once; the last word is said after them all.
    async fn storm(&mut self) -> Judged {
        let can = |files: &Files, instance: &Instance| {
            let entry = &files.entries[&instance.0];
            entry.stays() && entry.is_enabled() && files.is_managed()
        };
        let mut few: BTreeSet<Instance> = BTreeSet::new();
        for _ in 0..3 {
            few.extend(self.some_up(can));
        }
        if few.is_empty() {
            return Ok(());
        }
        let few: Vec<Instance> = few.into_iter().collect();
        self.note(format!("storm on {:?}", few.iter().map(name).collect::<Vec<_>>()));
        let mut asked = Vec::new();
        for _ in 0..self.draw.rng.between(4, 20) {
            let verbs = [Verb::Stop, Verb::Start { once: false }, Verb::Restart];
            let (verb, name) = (*self.draw.rng.pick(&verbs), name(self.draw.rng.pick(&few)));
            let client = self.daemon.client.clone();
            asked.push(tokio::spawn(async move { client.submit(verb, &[name]).await }));
        }
        for one in asked {
            one.await.unwrap().map_err(|error| format!("in a storm: {error}"))?;
        }
        let mut step = Step::default();
        for instance in &few {
            let up = self.draw.rng.percent(70);
            let verb = if up { Verb::Start { once: false } } else { Verb::Stop };
            let done = self.daemon.client.run(verb, &[name(instance)], |_| {}).await;
            done.map_err(|error| format!("after a storm: {error}"))?;
            if up {
                step.pushed.insert(instance.clone(), Push::Start);
            } else {
                step.stopped.insert(instance.clone());
            }
        }
        let ids: BTreeSet<&String> = few.iter().map(|(id, _)| id).collect();
        let touched: BTreeSet<Instance> = self
            .world
            .keys()
            .filter(|instance| {
                let below = self.files.below(&instance.0, |edge| edge.condition() != "completed");
                few.contains(instance) || below.iter().any(|on| ids.contains(on))
            })
            .cloned()
            .collect();
        // What had to start anew may not find what it needs.
        let mut worse = step.clone();
        for instance in touched.iter().filter(|instance| !step.stopped.contains(*instance)) {
            if self.world[instance].state == State::Up {
                worse.pushed.insert(instance.clone(), Push::Restart);
            }
        }
        let worst = self.expect(&worse);
        let mut expected = self.expect(&step);
        for instance in &touched {
            let expected = expected.get_mut(instance).unwrap();
            expected.moves = Moves::Any(0);
            expected.either |= expected.known.state != worst[instance].known.state;
        }
        self.judge(expected, Box::new(|_| true)).await
    }

    /// The daemon is ended in order, and started again.
    async fn restart_daemon(&mut self) -> Judged {
        self.note("the daemon ends and is started again".to_owned());
        self.end().await?;
        self.births.catch_up();
        self.births.forget();
        self.runs.clear();
        self.daemon = Daemon::start(&self.ground).await;
        let expected = if self.survives() {
            let step = Step { files: Some(self.files.clone()), ..Step::default() };
            let mut world = self.world.clone();
            for known in world.values_mut() {
                if !matches!(known.state, State::Completed) {
                    known.state = State::Down;
                }
            }
            crate::model::expect(&world, &self.files, &step, &self.ground)
        } else {
            crate::model::from_nothing(&self.files, &self.ground)
        };
        self.judge(expected, Box::new(|_| true)).await
    }

    /// Whether the daemon is killed, and has to find its processes and what was wanted again.
    fn survives(&self) -> bool {
        std::env::var_os("PROVOST_SOAK_SURVIVAL").is_none_or(|said| said != "0")
    }

    /// The daemon dies, and is started again.
    async fn kill_daemon(&mut self) -> Judged {
        if !self.survives() {
            return Ok(());
        }
        if self.draw.rng.percent(40) {
            return self.kill_daemon_at_work().await;
        }
        let meanwhile = self.some_up(|_, _| true).filter(|_| self.draw.rng.percent(30));
        let what = meanwhile.as_ref().map_or(String::new(), |one| format!(", and {}", name(one)));
        self.note(format!("kill -9 the daemon{what}"));
        self.daemon.signal(Signal::SIGKILL);
        self.daemon.ended();
        if let Some(instance) = &meanwhile {
            kill_one(self.runs[instance].pid);
        }
        self.daemon = Daemon::start(&self.ground).await;
        let pushed = meanwhile.map(|instance| (instance, Push::Killed)).into_iter().collect();
        let expected = self.expect(&Step { pushed, ..Step::default() });
        self.judge(expected, Box::new(|_| true)).await
    }

    /// The same somewhere on the way from one version of the files to the next: what has moved, and
    /// what has not, must come out as if nobody had died.
    async fn kill_daemon_at_work(&mut self) -> Judged {
        self.calm().await?;
        let mut files = self.files.clone();
        let what = [self.draw.change(&mut files), self.draw.change(&mut files)];
        outside::make_locks(&files, &self.ground);
        let change = self.disk.write(&files, &self.ground, &mut self.draw.rng, false);
        let moment = self.draw.rng.between(0, 250);
        self.note(format!("edit: {what:?}, and kill -9 the daemon {moment} ms later"));
        self.change(&change, Save::Rename);
        if !self.files.is_watched() {
            self.daemon.signal(Signal::SIGHUP);
        }
        // Any moment will do: there is nothing to wait for.
        std::thread::sleep(std::time::Duration::from_millis(moment));
        self.daemon.signal(Signal::SIGKILL);
        self.daemon.ended();
        self.daemon = Daemon::start(&self.ground).await;
        let expected = if self.is_idle(&files, &change) {
            self.files = files;
            self.expect(&Step::default())
        } else {
            self.expect(&Step { files: Some(files), ..Step::default() })
        };
        self.judge(expected, Box::new(|_| true)).await
    }

    /// Ends the daemon; nothing may be left.
    pub async fn end(&mut self) -> Judged {
        self.daemon.signal(Signal::SIGTERM);
        let status = self.daemon.ended();
        if !status.success() {
            return Err(format!("the daemon ended with {status}"));
        }
        let left = outside::look(&self.ground.token);
        if left != outside::Found::default() {
            return Err(format!("the daemon ended and left {left:?}"));
        }
        let mut pids = std::fs::read_dir(self.ground.dir.join("pids")).unwrap();
        if let Some(left) = pids.next() {
            return Err(format!("the daemon ended and left {left:?}"));
        }
        Ok(())
    }
}

/// Whether a run is over as far as the daemon is concerned.
fn is_over(told: &Told, id: &str, pid: u32) -> bool {
    told.processes.iter().any(|process| process.id == id && process.pid != Some(pid))
}

/// Kills a process that the harness has looked at, and waits until it is dead.
fn kill_one(pid: i32) {
    let number = rustix::process::Pid::from_raw(pid).unwrap();
    let fd = rustix::process::pidfd_open(number, rustix::process::PidfdFlags::empty()).unwrap();
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    wait_readable(&fd, "the end of a killed process");
}

/// Whether what an operator said of an instance is lost on the way, so that nobody can tell what is
/// wanted of it in the end.
fn is_forgotten(all: &[Files], next: &Files, world: &crate::model::World) -> bool {
    world.iter().any(|(instance, known)| {
        let gone = all.iter().any(|files| !files.has(instance));
        (gone || !next.has(instance))
            && (!known.wanted || known.once || all.iter().any(|files| !files.auto_start()))
    }) || !next.auto_start()
}

/// Processes that any of the changes touches, with all that depend on them; and those of them of
/// which nobody can tell what they come to, because they may have run in between.
fn concerned(all: &[Files], world: &crate::model::World) -> (BTreeSet<String>, BTreeSet<String>) {
    let mut touched: BTreeSet<String> = BTreeSet::new();
    for pair in all.windows(2) {
        let [old, new] = pair else { continue };
        let ids: BTreeSet<&String> = old.entries.keys().chain(new.entries.keys()).collect();
        for id in ids {
            let uses = |files: &Files| {
                let entry = files.entries.get(id)?;
                Some(
                    entry
                        .env_files
                        .iter()
                        .map(|n| files.env_files.get(n).cloned())
                        .collect::<Vec<_>>(),
                )
            };
            if old.entries.get(id) != new.entries.get(id)
                || old.settings != new.settings
                || uses(old) != uses(new)
            {
                touched.insert(id.clone());
            }
        }
    }
    for files in all {
        for id in files.entries.keys() {
            if files.below(id, |_| true).iter().any(|on| touched.contains(on)) {
                touched.insert(id.clone());
            }
        }
    }
    let mut ill: BTreeSet<String> = BTreeSet::new();
    for id in &touched {
        let ends = all.iter().filter_map(|files| files.entries.get(id)).any(|entry| !entry.stays());
        let failed = world.iter().any(|((of, _), known)| {
            of == id && matches!(known.state, State::Failed | State::Completed)
        });
        if ends || failed {
            ill.insert(id.clone());
        }
    }
    (touched, ill)
}
