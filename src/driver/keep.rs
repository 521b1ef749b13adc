//! What is written down for the next daemon, and what was taken over from the last.

use super::Driver;
use super::handle::{DriverError, Reply, now};
use crate::core::event::{Effect, Event, Part, Refusal};
use crate::core::trial::Trial;
use crate::store::checkpoint::{Checkpoints, Tentative};
use crate::store::runs::stored_name;
use crate::store::{Found, Store};
use tracing::Level;

/// What a driver begins with: where states are kept, and those that were found there.
pub struct Keeping {
    /// Where they are kept.
    pub store: Store,
    /// Where what waits to be confirmed is kept.
    pub checkpoints: Checkpoints,
    /// What was found there of a daemon before.
    pub found: Found,
    /// What waited to be confirmed.
    pub tentative: Option<Tentative>,
}

impl Driver {
    /// Has the service manager hold what tells how a run ends, for when this daemon cannot see it.
    pub(super) fn store_pidfd(&mut self, event: &Event) {
        match event {
            Event::Spawned { instance, run, .. } if !self.backend.remembers_ends() => {
                if let Some(pidfd) = self.backend.pidfd(instance, *run) {
                    self.notifier.store(stored_name(instance, *run), pidfd);
                }
            }
            Event::Exited { instance, run, .. } => {
                self.exited.push((instance.clone(), *run));
            }
            // Nothing was stored of it, and its unit may be there.
            Event::SpawnFailed { instance, run, .. } if self.backend.remembers_ends() => {
                self.exited.push((instance.clone(), *run));
            }
            _ => {}
        }
    }

    /// How runs have ended is written down: what else tells of that is let go.
    pub(super) fn let_ended_go(&mut self) {
        for (instance, run) in self.exited.drain(..) {
            if self.backend.remembers_ends() {
                self.backend.end_is_kept(&instance, run);
            } else {
                self.notifier.take_back(stored_name(&instance, run));
            }
        }
    }

    /// Goes on with what was found of a daemon before.
    pub(super) fn take_over(&mut self) {
        for remark in std::mem::take(&mut self.keeping.found.remarks) {
            self.remark(Level::WARN, "not-kept", remark);
        }
        let restored = std::mem::take(&mut self.keeping.found.restored);
        let mut effects = std::mem::take(&mut self.effects);
        self.machine.restore(restored, now(), &mut effects);
        let untold = std::mem::take(&mut self.keeping.found.untold);
        self.tell_late(untold);
        self.keep_and_carry_out(effects);
        self.resume_checkpoint();
        self.publish();
    }

    /// Writes down first: who is killed in between has decided something and not done it, and never
    /// done something that nobody knows of. Only the process of a run that begins may be there already:
    /// it sets itself up meanwhile, and ends when nobody lets it become its command.
    pub(super) fn keep_and_carry_out(&mut self, mut effects: Vec<Effect>) {
        effects.sort_by_key(Effect::part);
        let begun = effects.partition_point(|effect| effect.part() == Part::Begins);
        for effect in effects.drain(..begun) {
            self.carry_out_one(effect);
        }
        self.backend.prepare();
        // First: by the settings it is told whether it was an operator who stopped something.
        self.save_whole();
        self.keep_outcomes(&effects);
        let unsaved = self.machine.take_unsaved();
        self.keeping.store.save(unsaved.iter().map(|id| (id, self.machine.snapshot(id))));
        self.tell_trouble();
        self.carry_out(effects);
        // Last: it is in those states already, and to wake who writes it takes as long as to start
        // something.
        self.keeping.store.flush_stops();
    }

    /// Takes in all that has happened, and writes down all that is known, for another program in this
    /// process.
    pub(super) fn make_way(&mut self, reply: Reply<()>) {
        while let Ok(fact) = self.facts.try_recv() {
            self.take_facts(fact);
        }
        let refused = if self.finished.is_some() || self.machine.is_ending() {
            Some(DriverError::Refused(Refusal::ShuttingDown))
        } else {
            self.keep_again();
            let trouble = self.keeping.store.trouble();
            let nowhere = || "it has no directory of its own".to_owned();
            let trouble = trouble.or_else(|| (!self.keeping.store.is_kept()).then(nowhere));
            trouble.map(|why| {
                let text = format!("nobody could go on: the state cannot be kept ({why})");
                DriverError::NotAvailable(text)
            })
        };
        match refused {
            Some(error) => drop(reply.send(Err(error))),
            None => {
                self.is_followed = true;
                self.notifier.followed();
                let _ = reply.send(Ok(()));
            }
        }
    }

    /// Writes what could not be written before.
    pub(super) fn keep_again(&mut self) {
        let unwritten = self.keeping.store.retry();
        self.save_whole();
        self.keeping.store.save(unwritten.iter().map(|id| (id, self.machine.snapshot(id))));
        // What cannot be written is told below.
        let _ = self.history.lock().retry();
        self.tell_trouble();
    }

    fn save_whole(&mut self) {
        let (generation, config) = (self.machine.generation(), self.machine.config());
        let trial = self.trying.trial.as_ref().map(Trial::snapshot);
        self.keeping.store.save_whole(generation, &config.settings, &self.desk.missing, trial);
    }

    /// Says when states cannot be kept, and when they are kept again: each once.
    pub(super) fn tell_trouble(&mut self) {
        let history = self.history.trouble();
        let trouble = self.keeping.store.trouble().or(history);
        if trouble.is_some() == self.is_unkept {
            return;
        }
        self.is_unkept = trouble.is_some();
        match trouble {
            Some(why) => self.remark(
                Level::ERROR,
                "not-kept",
                format!("the state cannot be kept ({why}); supervising goes on from memory"),
            ),
            None => self.remark(Level::INFO, "kept-again", "the state is kept again".to_owned()),
        }
    }
}
