//! What is done to the files.

use crate::daemon::Told;
use crate::disk::{Change, Save};
use crate::file::Files;
use crate::model::{Moves, State, Step};
use crate::outside;
use crate::soak::{Judged, Noticed, Soak};
use nix::sys::signal::Signal;
use provost::client::{ClientError, ReloadOptions};
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
    fn a_save(&mut self) -> Save {
        *self.draw.rng.pick(&[Save::Rename, Save::Rename, Save::InPlace, Save::Pieces, Save::Anew])
    }

    /// Carries out a change of several files as one, as far as the daemon can see. So is one that
    /// removes a file first: on a machine that is busy the file may be gone for so long that what is
    /// in it is stopped.
    pub(super) fn change(&self, change: &Change, how: Save) {
        let in_parts = change.len() > 1 || how == Save::Anew;
        if in_parts {
            self.daemon.stop_still();
        }
        change.carry_out(how);
        if in_parts {
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
    pub(super) async fn calm(&mut self) -> Judged {
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
    pub(super) fn is_idle(&self, files: &Files, change: &Change) -> bool {
        let named: BTreeSet<u32> =
            files.entries.values().flat_map(|entry| entry.env_files.clone()).collect();
        let idle: BTreeSet<_> = (0..3)
            .filter(|number| !named.contains(number))
            .map(|number| self.ground.env_file(number))
            .collect();
        change.write.iter().all(|(path, _)| idle.contains(path)) && change.remove.is_empty()
    }

    /// The files say something else.
    pub(super) async fn edit(&mut self) -> Judged {
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
        let in_force = self.disk.clone();
        let change = self.disk.write(&files, &self.ground, &mut self.draw.rng, anew);
        // After a mistake it may be only taken back: then nothing is read anew.
        let is_same = self.disk.says_the_same(&in_force);
        let (how, by) = (self.a_save(), self.a_way());
        self.note(format!("edit: {what:?}, {} files, {how:?}, {by:?}", change.len()));
        let before = self.daemon.told().await.manager;
        self.change(&change, how);
        if is_same || self.is_idle(&files, &change) {
            self.files = files;
            if !self.files.is_watched() {
                self.daemon.signal(Signal::SIGHUP);
            }
            let expected = self.expect(&Step::default());
            return self.judge(expected, Box::new(|told| told.manager.valid)).await;
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
    pub(super) async fn mistake(&mut self) -> Judged {
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
    pub(super) async fn burst(&mut self) -> Judged {
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
        if all.len() == 1 {
            // Everything that was drawn would be forgotten: nothing is written.
            return self.edit().await;
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
            // Its turn may have come with one of the changes, and not with another.
            let turns = known == Some(State::Up)
                && (expected.known.held || expected.known.state == State::Waiting);
            expected.either |= ill.contains(&instance.0)
                || touched.contains(&instance.0)
                    && (turns || matches!(known, Some(State::Failed | State::Completed)));
        }
        let done = self.daemon.client.reload(&ReloadOptions::default()).await;
        done.map_err(|error| format!("a valid file is refused: {error}"))?;
        self.judge(expected, Box::new(|_| true)).await
    }

    /// The file is edited by the daemon.
    pub(super) async fn enable(&mut self) -> Judged {
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
    let touched = touched(all);
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

/// Processes that any of the changes touches, with all that depend on them.
pub(super) fn touched(all: &[Files]) -> BTreeSet<String> {
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
    touched
}
