//! What somebody tries and has to confirm: it is undone unless they do so in time.
//!
//! A file that is handed over with a time limit is applied like any other, and judged like any other.
//! When it is up, the time begins. Undoing takes the last good configuration back, as after a bad
//! verdict, and then puts the file back; both only where nobody was faster: who wrote another file, or
//! has another generation running, is not undone with it.
//!
//! | phase | goes on to |
//! |---|---|
//! | installed: the file was replaced | trying, when it was accepted; over, with the file put back |
//! | trying: it is carried out and judged | waiting; undoing, when it did not come up or is taken back |
//! | waiting: it is up | over, confirmed; undoing |
//! | undoing | over, with the file put back |
//!
//! What there is to be undone is on the disk before the file is replaced, until all is done. A daemon
//! that follows in the same boot goes on with it. After a reboot nobody is there who could confirm:
//! the file is put back before it is read.

use super::Driver;
use super::accept::Candidate;
use super::desk::{Applying, LastGood, Waiter, Work};
use super::edit::{reason, refused};
use super::handle::{
    CheckpointView, DriverError, ReloadOptions, ReloadTicket, Reply, Trigger, now, wall,
};
use super::replace::{put, remove};
use crate::config::load::{Location, Sources, load_kept};
use crate::core::ids::Generation;
use crate::core::reload::Plan;
use crate::core::time::Mono;
use crate::core::trial::{Trial, TrialSnapshot};
use crate::store::checkpoint::{Checkpoints, Tentative};
use crate::store::file::ReadError;
use crate::store::generations::{Because, HeldOff, State};
use std::fs;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tracing::Level;

/// One of them. There is at most one.
pub(super) struct Checkpoint {
    kept: Tentative,
    phase: Phase,
    /// Somebody wants it undone as soon as nothing else is on its way.
    wish: Option<Wish>,
}

/// Who takes it back, and waits for an answer.
struct Wish {
    uid: u32,
    reply: Reply<ReloadTicket>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Installed,
    Trying,
    Waiting { until: Mono },
    Undoing,
}

/// What is taken back, read from the store.
pub(super) struct Undo {
    /// Why it cannot be, where it cannot.
    last_good: Result<LastGood, String>,
    why: String,
    uid: Option<u32>,
    reply: Option<Reply<ReloadTicket>>,
}

/// The file was put back, or not.
pub(super) struct PutBack {
    /// Whether it had to be.
    done: Result<bool, String>,
    trigger: Trigger,
    reply: Option<Reply<ReloadTicket>>,
}

impl Checkpoint {
    /// When it is undone: at once, where somebody wants that.
    fn due(&self) -> Option<Mono> {
        self.wish.as_ref().map(|_| Mono(0)).or(self.until())
    }

    /// When it is undone if nobody says anything.
    fn until(&self) -> Option<Mono> {
        match self.phase {
            Phase::Waiting { until } => Some(until),
            Phase::Installed | Phase::Trying | Phase::Undoing => None,
        }
    }

    fn is_of(&self, generation: Generation) -> bool {
        self.kept.generation == Some(generation)
    }

    /// What others see of it; nothing before it was accepted.
    pub(super) fn view(&self) -> Option<CheckpointView> {
        let state = match self.phase {
            Phase::Installed => return None,
            Phase::Trying => "trying",
            Phase::Waiting { .. } => "waiting",
            Phase::Undoing => "undoing",
        };
        let (generation, base) = (self.kept.generation?, self.kept.base);
        let until = self.until();
        Some(CheckpointView { generation, base, uid: self.kept.uid, state, until })
    }
}

/// Notes what there is to be undone, and then does `put_there`. Blocks.
///
/// # Errors
/// Then nothing was done, and there is nothing to be undone.
pub(super) fn begin(
    checkpoints: &Checkpoints,
    tentative: &Tentative,
    put_there: impl FnOnce() -> io::Result<()>,
) -> Result<Tentative, DriverError> {
    let path = &tentative.path;
    let former = match fs::read(path) {
        Ok(content) => Some(content),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(refused(path, reason(&error))),
    };
    let digest = former.as_deref().map(Tentative::digest);
    let tentative = Tentative { former: digest, ..tentative.clone() };
    checkpoints.begin(&tentative, former.as_deref()).map_err(|error| {
        let why = reason(&error);
        DriverError::EditRefused(format!("what is there now cannot be kept ({why})"))
    })?;
    put_there().map_err(|error| {
        // Nothing was replaced; the first error is the one to tell.
        let _ = checkpoints.end();
        refused(path, reason(&error))
    })?;
    Ok(tentative)
}

/// Puts the file back, where it is what was put there. Blocks.
///
/// # Errors
/// Why it is not what it was.
fn put_back(checkpoints: &Checkpoints, tentative: &Tentative) -> Result<bool, String> {
    let path = &tentative.path;
    match fs::read(path) {
        Ok(content) if Tentative::digest(&content) == tentative.applied => {}
        Ok(_) => return Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(format!("{}: {}", path.display(), reason(&error))),
    }
    let former = checkpoints.former(tentative).map_err(|error| match error {
        ReadError::Missing => "what was there before was not kept".to_owned(),
        error => format!("what was there before cannot be read: {error}"),
    })?;
    let done = match &former {
        Some(former) => put(path, former),
        None => remove(path),
    };
    done.map(|()| true).map_err(|error| format!("{}: {}", path.display(), reason(&error)))
}

impl Driver {
    /// Whoever wants to write to the files while something waits to be confirmed is turned away.
    pub(super) fn pending_checkpoint(&self) -> Option<DriverError> {
        let kept = &self.checkpoint.as_ref()?.kept;
        let what = match kept.generation {
            Some(generation) => format!("generation {generation} is to be confirmed"),
            None => "a configuration is being tried".to_owned(),
        };
        Some(DriverError::CheckpointPending(format!(
            "{what}; `provost confirm` keeps it, `provost rollback` takes it back"
        )))
    }

    /// Whether something could be taken back at all.
    pub(super) fn can_be_confirmed(&self) -> Result<(), DriverError> {
        let why = if !self.keeping.checkpoints.is_kept() {
            "there is no state directory, in which it is noted what is to be undone"
        } else if self.history.running().is_none() {
            "there is no generation before it to go back to"
        } else {
            return Ok(());
        };
        Err(DriverError::NotAvailable(why.to_owned()))
    }

    /// The file was replaced: what is read next is what is tried.
    pub(super) fn checkpoint_installed(&mut self, kept: Tentative) {
        self.checkpoint = Some(Checkpoint { kept, phase: Phase::Installed, wish: None });
    }

    /// What was read is accepted as a generation.
    pub(super) fn checkpoint_accepted(
        &mut self,
        number: Generation,
        base: Option<Generation>,
        sources: &Sources,
    ) {
        let Some(checkpoint) = &mut self.checkpoint else { return };
        let kept = &mut checkpoint.kept;
        let is_it = sources.files.iter().any(|file| {
            let content = file.content.as_deref().filter(|_| *file.path == kept.path);
            content.is_some_and(|content| Tentative::digest(content) == kept.applied)
        });
        if checkpoint.phase != Phase::Installed || !is_it {
            return;
        }
        (kept.generation, kept.base) = (Some(number), base);
        checkpoint.phase = Phase::Trying;
        self.save_checkpoint();
    }

    /// The files were read. What was not accepted is not tried.
    pub(super) fn checkpoint_read(&mut self, digest: &str) {
        let installed = |checkpoint: &Checkpoint| checkpoint.phase == Phase::Installed;
        if !self.checkpoint.as_ref().is_some_and(installed) {
            return;
        }
        if self.desk.digest() == digest {
            // It says what runs already.
            return self.end_checkpoint();
        }
        self.put_file_back(Trigger::File, None);
    }

    /// A trial is over, or was replaced: by what is remembered in it, it can be taken back later.
    pub(super) fn checkpoint_remembers(&mut self, trial: &Trial) {
        let Some(checkpoint) = &mut self.checkpoint else { return };
        if checkpoint.is_of(trial.tried()) && checkpoint.phase == Phase::Trying {
            checkpoint.kept.trial = Some(TrialSnapshot::clone(trial.snapshot()));
        }
    }

    /// What became of a generation.
    pub(super) fn checkpoint_concluded(&mut self, generation: Generation, result: &str) {
        let Some(checkpoint) = &mut self.checkpoint else { return };
        if !checkpoint.is_of(generation) {
            return;
        }
        let is_back = matches!(result, "rolled-back" | "rollback-incomplete");
        if is_back || checkpoint.phase == Phase::Undoing {
            return self.put_file_back(Trigger::File, None);
        }
        if checkpoint.phase == Phase::Trying {
            let within = checkpoint.kept.within;
            let until = now().after(within);
            checkpoint.kept.until = Some(until);
            checkpoint.phase = Phase::Waiting { until };
            self.save_checkpoint();
            let within = crate::core::text::span(within);
            let text = format!("generation {generation} is undone unless confirmed in {within}");
            self.remark(Level::INFO, "to-confirm", text);
        }
    }

    /// When something is undone, as far as it can be by then.
    pub(super) fn checkpoint_due(&self) -> Option<Mono> {
        self.checkpoint.as_ref()?.due().filter(|_| self.can_undo())
    }

    /// Undoing waits for the end of what is on its way.
    fn can_undo(&self) -> bool {
        self.desk.is_at_rest() && !self.desk.editing && !self.machine.is_ending()
    }

    /// Undoes what nobody confirmed.
    pub(super) fn look_at_checkpoint(&mut self) {
        if self.checkpoint_due().is_some_and(|due| due <= now()) {
            let wish = self.checkpoint.as_mut().and_then(|checkpoint| checkpoint.wish.take());
            match wish {
                Some(Wish { uid, reply }) => self.undo(Some(uid), Some(reply)),
                None => self.undo(None, None),
            }
        }
    }

    /// It stays.
    pub(super) fn commit(&mut self, generation: Generation, uid: u32) -> Result<(), DriverError> {
        self.checkpoint_of(generation)?;
        // First: what a daemon finds that begins after a reboot is undone.
        self.keeping.checkpoints.end().map_err(|error| unkept(&error))?;
        self.checkpoint = None;
        let text = format!("generation {generation} was confirmed by uid {uid}");
        self.remark(Level::INFO, "confirmed", text);
        Ok(())
    }

    /// It has so much time from now, or from when it is up.
    pub(super) fn set_confirm_timeout(
        &mut self,
        generation: Generation,
        within: Duration,
    ) -> Result<(), DriverError> {
        let checkpoint = self.checkpoint_of(generation)?;
        let mut kept = Tentative { within, ..checkpoint.kept.clone() };
        let is_up = matches!(checkpoint.phase, Phase::Waiting { .. });
        kept.until = is_up.then(|| now().after(within));
        self.keeping.checkpoints.save(&kept).map_err(|error| unkept(&error))?;
        if let Some(checkpoint) = &mut self.checkpoint {
            checkpoint.phase =
                kept.until.map_or(checkpoint.phase, |until| Phase::Waiting { until });
            checkpoint.kept = kept;
        }
        Ok(())
    }

    /// Somebody takes it back.
    pub(super) fn take_back_tentative(
        &mut self,
        generation: Generation,
        uid: u32,
        reply: Reply<ReloadTicket>,
    ) {
        if let Err(error) = self.checkpoint_of(generation) {
            return super::refuse(reply, error);
        }
        let on_trial = self.trying.trial.as_ref().filter(|trial| trial.tried() == generation);
        if on_trial.is_some_and(|trial| !trial.is_going_back()) {
            return self.withdraw_at_once(generation, uid, reply);
        }
        if let Some(checkpoint) = &mut self.checkpoint {
            checkpoint.wish = Some(Wish { uid, reply });
        }
    }

    fn checkpoint_of(&self, generation: Generation) -> Result<&Checkpoint, DriverError> {
        let found = self.checkpoint.as_ref().filter(|checkpoint| checkpoint.is_of(generation));
        let missing = || {
            DriverError::NoSuchCheckpoint(format!("generation {generation} is not to be confirmed"))
        };
        let found = found.ok_or_else(missing)?;
        if found.phase == Phase::Undoing || found.wish.is_some() {
            let text = format!("generation {generation} is being undone");
            return Err(DriverError::NoSuchCheckpoint(text));
        }
        Ok(found)
    }

    fn undo(&mut self, uid: Option<u32>, reply: Option<Reply<ReloadTicket>>) {
        let Some(checkpoint) = &mut self.checkpoint else { return };
        let kept = &checkpoint.kept;
        let (Some(generation), base) = (kept.generation, kept.base) else { return };
        let why = match uid {
            Some(uid) => taken_back(uid),
            None => {
                let within = crate::core::text::span(kept.within);
                format!("nobody confirmed it in {within}")
            }
        };
        let trigger = Trigger::Rollback { to: base.unwrap_or_default(), uid };
        checkpoint.phase = Phase::Undoing;
        let is_running = self.machine.generation() == generation;
        let Some(base) = base.filter(|_| is_running) else {
            // Something newer runs: of it, only the file is changed.
            return self.put_file_back(trigger, reply);
        };
        self.desk.begin_edit();
        let (history, location) = (self.history.clone(), self.options.location.clone());
        let sender = self.desk.work_sender();
        tokio::task::spawn_blocking(move || {
            let last_good = history.last_good(base, &location);
            let undo = Undo { last_good, why, uid, reply };
            // The driver may have ended meanwhile.
            let _ = sender.send(Work::Undo(Box::new(undo)));
        });
    }

    /// What is on trial goes now.
    fn withdraw_at_once(&mut self, generation: Generation, uid: u32, reply: Reply<ReloadTicket>) {
        let Some(trial) = &self.trying.trial else { return };
        let (base, before) = (trial.base().clone(), trial.snapshot().before.clone());
        let trigger = Trigger::Rollback { to: base.generation, uid: Some(uid) };
        if let Some(checkpoint) = self.checkpoint.as_mut().filter(|one| one.is_of(generation)) {
            checkpoint.phase = Phase::Undoing;
        }
        self.trying.withdrawn = Some(taken_back(uid));
        self.go_back(base, before);
        self.hand_on();
        let job = self.desk.job();
        let (options, reply) = (ReloadOptions::default(), Some(reply));
        self.give_ticket(job, Waiter { trigger, options, reply });
    }

    /// What comes back was read.
    pub(super) fn take_undo(&mut self, undo: Undo) {
        self.desk.editing = false;
        self.go_back_to_read(undo);
        self.read_next();
    }

    fn go_back_to_read(&mut self, undo: Undo) {
        let Undo { last_good, why, uid, reply } = undo;
        let Some(kept) = self.checkpoint.as_ref().map(|checkpoint| checkpoint.kept.clone()) else {
            return;
        };
        let (Some(generation), Some(base)) = (kept.generation, kept.base) else { return };
        let trigger = Trigger::Rollback { to: base, uid };
        let last_good = match last_good {
            Ok(last_good) => last_good,
            Err(error) => {
                let text = format!("generation {base} is not there to go back to: {error}");
                self.remark(Level::ERROR, "not-kept", text);
                return self.put_file_back(trigger, reply);
            }
        };
        let Some(config) = last_good.loaded.config.clone() else { return };
        self.remark(
            Level::WARN,
            "rolling-back",
            format!("generation {generation}: {why}; going back to generation {base}"),
        );
        // As after a bad verdict: first what keeps it from being applied again, then what it is.
        // What is held off already is on disk instead of it.
        if self.history.held_off().is_none() {
            let digest = self.desk.digest().to_owned();
            let because = Because::Unconfirmed { generation, why: why.clone() };
            self.note_generation(|all| all.hold_off(Some(HeldOff { digest, because })));
        }
        let noted = vec![why.clone()];
        self.note_generation(|all| {
            all.change(generation, |record| {
                (record.state, record.why) = (State::RollingBack, noted);
            })
        });
        self.trying.withdrawn = Some(why);
        self.notifier.reloading();
        let empty =
            TrialSnapshot { tried: generation, base, before: Arc::default(), faults: vec![] };
        let snapshot = kept.trial.unwrap_or(empty);
        let applying = Applying::new(generation, trigger);
        let waiters = vec![Waiter { trigger, options: ReloadOptions::default(), reply }];
        let active = last_good.active();
        let plan = Plan::default();
        let next = Candidate { config, active, plan, waiters, applying, is_instead: true };
        self.begin_to_go_back(next, snapshot);
    }

    /// Puts the file back, has the files read, and is done.
    fn put_file_back(&mut self, trigger: Trigger, reply: Option<Reply<ReloadTicket>>) {
        let Some(checkpoint) = &mut self.checkpoint else { return };
        checkpoint.phase = Phase::Undoing;
        // Whoever wanted that is answered, whatever it came by.
        let reply = reply.or_else(|| checkpoint.wish.take().map(|wish| wish.reply));
        let kept = checkpoint.kept.clone();
        let (checkpoints, sender) = (self.keeping.checkpoints.clone(), self.desk.work_sender());
        self.desk.begin_edit();
        tokio::task::spawn_blocking(move || {
            let done = put_back(&checkpoints, &kept);
            // The driver may have ended meanwhile.
            let _ = sender.send(Work::PutBack(PutBack { done, trigger, reply }));
        });
    }

    pub(super) fn take_put_back(&mut self, result: PutBack) {
        self.desk.editing = false;
        let PutBack { done, trigger, reply } = result;
        self.was_put_back(done);
        self.end_checkpoint();
        self.begin_reload(trigger, reply, ReloadOptions::default());
    }

    fn was_put_back(&mut self, done: Result<bool, String>) {
        let held = self.checkpoint.as_ref().and_then(|checkpoint| checkpoint.kept.held_off.clone());
        match done {
            Ok(true) => {
                if held.is_some() {
                    self.note_generation(|all| all.hold_off(held));
                }
            }
            Ok(false) => {
                let text = "the file was changed meanwhile and stays as it is".to_owned();
                self.remark(Level::WARN, "not-put-back", text);
            }
            Err(why) => {
                let text = format!("the file cannot be put back: {why}");
                self.remark(Level::ERROR, "not-put-back", text);
            }
        }
    }

    fn end_checkpoint(&mut self) {
        self.checkpoint = None;
        if let Err(error) = self.keeping.checkpoints.end() {
            self.remark(Level::ERROR, "not-kept", unkept(&error).to_string());
        }
    }

    fn save_checkpoint(&mut self) {
        let Some(checkpoint) = &self.checkpoint else { return };
        if let Err(error) = self.keeping.checkpoints.save(&checkpoint.kept) {
            self.remark(Level::ERROR, "not-kept", unkept(&error).to_string());
        }
    }

    /// Goes on with what a daemon before has begun. Before anything is read.
    pub(super) fn resume_checkpoint(&mut self) {
        let Some(kept) = self.keeping.tentative.take() else { return };
        if !self.keeping.found.is_same_boot {
            return self.undo_unread(kept);
        }
        let record = kept.generation.and_then(|number| self.history.lock().get(number));
        let phase = match record.map(|record| record.state) {
            None => Phase::Installed,
            Some(State::Applying) => Phase::Trying,
            Some(State::Applied | State::FailedKept | State::Superseded) => {
                let until = kept.until.unwrap_or_else(|| now().after(kept.within));
                Phase::Waiting { until }
            }
            Some(State::RollingBack | State::RolledBack | State::RollbackIncomplete) => {
                Phase::Undoing
            }
        };
        let is_back = phase == Phase::Undoing && self.history.pending().is_none();
        self.checkpoint = Some(Checkpoint { kept, phase, wish: None });
        if is_back {
            self.put_file_back(Trigger::Start, None);
        }
    }

    /// After a reboot: nobody is there any more who could confirm it. Blocks, as nothing runs yet.
    fn undo_unread(&mut self, kept: Tentative) {
        const WHY: &str = "the machine was started again before anybody confirmed it";
        if let Some(generation) = kept.generation {
            let digest = self.history.lock().get(generation).map(|record| record.digest.clone());
            let because = Because::Unconfirmed { generation, why: WHY.to_owned() };
            // In case that the file cannot be put back.
            if let Some(digest) = digest {
                self.note_generation(|all| all.hold_off(Some(HeldOff { digest, because })));
            }
            self.note_generation(|all| {
                all.change(generation, |record| {
                    (record.state, record.why) = (State::RolledBack, vec![WHY.to_owned()]);
                })
            });
            self.remark(Level::WARN, "undone", format!("generation {generation}: {WHY}"));
        }
        let done = put_back(&self.keeping.checkpoints, &kept);
        self.checkpoint = Some(Checkpoint { kept, phase: Phase::Undoing, wish: None });
        self.was_put_back(done);
        self.end_checkpoint();
    }

    /// What there is to be said of one that waits.
    pub(super) fn confirm_detail(&self) -> Option<String> {
        let checkpoint = self.checkpoint.as_ref()?;
        let (generation, until) = (checkpoint.kept.generation?, checkpoint.until()?);
        let until = jiff::Timestamp::try_from(wall(until)).ok()?;
        let until = until.to_zoned(jiff::tz::TimeZone::system()).strftime("%H:%M:%S").to_string();
        Some(format!("generation {generation} is undone at {until} unless it is confirmed"))
    }
}

impl super::history::History {
    /// A generation, ready to be gone back to. Waits for the disk.
    fn last_good(&self, number: Generation, location: &Location) -> Result<LastGood, String> {
        let record = self.lock().get(number);
        let sources = self.files(number).map_err(|error| error.to_string())?;
        let loaded = load_kept(location, &sources);
        match record.filter(|_| loaded.config.is_some()) {
            Some(record) => Ok(LastGood { record, loaded }),
            None => Err("its files cannot be used".to_owned()),
        }
    }
}

fn taken_back(uid: u32) -> String {
    format!("uid {uid} took it back")
}

fn unkept(error: &io::Error) -> DriverError {
    let why = reason(error);
    DriverError::EditRefused(format!("what there is to be undone cannot be kept ({why})"))
}
