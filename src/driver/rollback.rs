//! Going back on somebody's word, and files that are handed over.
//!
//! The files of an older generation, as they are kept, become a new generation like any other: on
//! trial, and undone when they do not come up. What is on disk is held off until it changes, or is
//! replaced as well. What somebody hands over is judged first and then put in the place of the file
//! with the processes: from there on it is a change of that file.

use super::Driver;
use super::accept::Candidate;
use super::checkpoint::begin;
use super::desk::{Active, Applying, Waiter, Work};
use super::edit::refused;
use super::handle::{DriverError, Handed, ReloadOptions, ReloadTicket, Reply, Trigger};
use super::read::{Examined, Standing};
use super::replace::{put, remove};
use crate::config::load::{Loaded, Location, SourceKind, Sources, load, load_kept};
use crate::config::render;
use crate::core::ids::Generation;
use crate::core::reload::Plan;
use crate::store::checkpoint::Tentative;
use crate::store::generations::{Because, HeldOff};
use std::path::PathBuf;
use std::sync::Arc;
use tracing::Level;

/// What is gone back to, read from the store.
pub(super) struct Back {
    to: Generation,
    loaded: Loaded,
    trigger: Trigger,
    reply: Reply<ReloadTicket>,
    /// The digest of what is on disk instead.
    on_disk: Option<String>,
}

impl Driver {
    /// Goes back to an older generation; None: to the one before what runs. `write`: the files on
    /// disk become those of then.
    pub(super) fn roll_back(
        &mut self,
        to: Option<Generation>,
        write: bool,
        uid: u32,
        reply: Reply<ReloadTicket>,
    ) {
        if let Some(pending) = self.pending_checkpoint() {
            return super::refuse(reply, pending);
        }
        let found = to.or_else(|| self.before_running());
        let Some(to) = found else {
            let text = "there is no generation before the one that runs".to_owned();
            return super::refuse(reply, DriverError::NoSuchGeneration(text));
        };
        let sources = match self.history.files(to) {
            Ok(sources) => sources,
            Err(error) => return super::refuse(reply, error.into()),
        };
        let (location, sender) = (self.options.location.clone(), self.desk.work_sender());
        let trigger = Trigger::Rollback { to, uid: Some(uid) };
        tokio::task::spawn_blocking(move || {
            let work = match read_back(&location, &sources, write) {
                Err(error) => return super::refuse(reply, error),
                Ok((loaded, on_disk)) => Back { to, loaded, trigger, reply, on_disk },
            };
            // The driver may have ended meanwhile.
            let _ = sender.send(Work::Back(Box::new(work)));
        });
    }

    /// The newest that was good before what runs.
    fn before_running(&self) -> Option<Generation> {
        let running = self.machine.generation();
        let listed = self.history.lock().list();
        let mut older = listed.iter().filter(|record| record.number < running);
        older.find(|record| record.state.is_kept()).map(|record| record.number)
    }

    pub(super) fn take_back(&mut self, back: Back) {
        let Back { to, loaded, trigger, reply, on_disk } = back;
        let Some(config) = loaded.config.clone() else { return };
        let options = ReloadOptions::default();
        let waiters = vec![Waiter { trigger, options, reply: Some(reply) }];
        let applying = Applying::new(self.machine.generation(), trigger);
        let is_instead = on_disk.is_some();
        let active = Active::of(&loaded);
        let plan = Plan::between(self.machine.config(), &config);
        // Before it runs: whoever is killed here must not apply what is on disk again.
        let held = on_disk.map(|digest| HeldOff { digest, because: Because::RolledBack { to } });
        self.note_generation(|all| all.hold_off(held));
        self.remark(Level::INFO, "rollback", format!("going back to what generation {to} was"));
        let next = Candidate { config, active, plan, waiters, applying, is_instead };
        self.take_candidate(next, None, &loaded.sources);
    }

    /// Puts a content in the place of the file with the processes, and has it read.
    pub(super) fn apply(&mut self, handed: Handed, reply: Reply<ReloadTicket>) {
        let Handed { content, expected, confirm, uid } = handed;
        let actual = self.machine.generation().0;
        if let Some(expected) = expected.filter(|expected| *expected != actual) {
            return super::refuse(reply, DriverError::GenerationMismatch { expected, actual });
        }
        let may = match (self.pending_checkpoint(), confirm) {
            (Some(pending), _) => Err(pending),
            (None, Some(_)) => self.can_be_confirmed(),
            (None, None) => Ok(()),
        };
        if let Err(error) = may {
            return super::refuse(reply, error);
        }
        let standing = self.standing();
        let sender = self.desk.work_sender();
        let checkpoints = self.keeping.checkpoints.clone();
        let held_off = self.history.held_off();
        self.desk.begin_edit();
        tokio::task::spawn_blocking(move || {
            let file = judge(&standing, &content);
            let result = file.and_then(|path| match confirm {
                None => put(&path, &content)
                    .map(|()| None)
                    .map_err(|error| refused(&path, super::edit::reason(&error))),
                Some(within) => {
                    let tentative = Tentative::new(uid, within, path.clone(), &content, held_off);
                    let begun = begin(&checkpoints, &tentative, || put(&path, &content));
                    begun.map(|begun| Some(Box::new(begun)))
                }
            });
            let trigger = match confirm {
                None => Trigger::Apply { uid },
                Some(_) => Trigger::Checkpoint { uid },
            };
            let _ = sender.send(Work::Edited { result, trigger, reply });
        });
    }
}

/// Reads what is kept; puts it on the disk, or tells what is there instead.
fn read_back(
    location: &Location,
    sources: &Sources,
    write: bool,
) -> Result<(Loaded, Option<String>), DriverError> {
    let loaded = load_kept(location, sources);
    if loaded.config.is_none() {
        let rendered = render::render(&loaded.diagnostics, &loaded.sources, false).join("\n");
        let diagnostics = Arc::from(loaded.diagnostics);
        return Err(DriverError::Invalid { diagnostics, rendered });
    }
    let now = load(location).sources;
    if write {
        write_back(&now, sources)?;
        return Ok((loaded, None));
    }
    Ok((loaded, Some(now.digest).filter(|digest| *digest != sources.digest)))
}

/// Makes the files what they were. All of them, or none.
fn write_back(now: &Sources, then: &Sources) -> Result<(), DriverError> {
    let is_known = |path: &PathBuf| then.files.iter().any(|file| *file.path == *path);
    let mut new = now.files.iter().filter(|file| file.content.is_some());
    if let Some(new) = new.find(|file| file.kind == SourceKind::DropIn && !is_known(&file.path)) {
        return Err(refused(
            &new.path,
            "it was not there then, and is not removed; remove it first",
        ));
    }
    let mut done: Vec<(&PathBuf, Option<Arc<[u8]>>)> = Vec::new();
    for file in &then.files {
        let before = now.files.iter().find(|now| now.path == file.path);
        let before = before.and_then(|before| before.content.clone());
        let Some(content) = &file.content else { continue };
        if before.as_deref() == Some(content) {
            continue;
        }
        if let Err(error) = put(&file.path, content) {
            for (path, before) in done {
                // What worked a moment ago; the first error is the one to tell.
                let _ = match before {
                    Some(before) => put(path, &before),
                    None => remove(path),
                };
            }
            return Err(refused(&file.path, super::edit::reason(&error)));
        }
        done.push((&file.path, before));
    }
    Ok(())
}

/// Judges a content as that of the file with the processes, and finds that file.
fn judge(standing: &Standing, content: &[u8]) -> Result<PathBuf, DriverError> {
    let Examined { loaded, diagnostics, is_refused, .. } = standing.examine(Some(content.to_vec()));
    if is_refused {
        let rendered = render::render(&diagnostics, &loaded.sources, false).join("\n");
        return Err(DriverError::Invalid { diagnostics: Arc::from(diagnostics), rendered });
    }
    // It stands for the one file that has just this content.
    let of = |kind| loaded.sources.files.iter().find(|file| file.kind == kind);
    let file = of(SourceKind::Processes).or_else(|| of(SourceKind::Main));
    let Some(file) = file.filter(|file| file.content.as_deref() == Some(content)) else {
        let text = "there is no file that this could be the content of".to_owned();
        return Err(DriverError::EditRefused(text));
    };
    Ok(file.path.to_path_buf())
}
