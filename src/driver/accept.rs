//! What becomes of a configuration that was read.
//!
//! | what was read | what follows |
//! |---|---|
//! | is not valid | nothing changes; it is said |
//! | is what is active | nothing, or it is said that there is nothing to do |
//! | was tried and did not come up | it is not tried again, until it changes or somebody insists |
//! | is anything else | it is written down as a generation and handed to the machine, on trial |
//!
//! A configuration that is valid goes to the machine at once; a newer one takes over from one that is
//! still being applied or judged.
//!
//! The first look is another matter: nothing is active yet. Where the files are what was last good,
//! they are that generation again; where they are what a daemon before was killed over, its trial
//! goes on; where they cannot be used, the last good generation is what runs, and that is said loudly.

use super::desk::{Active, Applying, Handover, LastGood, ReadResult, Waiter};
use super::handle::{DriverError, ReloadOutcome, ReloadTicket, Trigger, now};
use super::history::{lines, timings};
use super::read::{Examined, millis};
use super::verdict::Measure;
use super::{Asked, Driver};
use crate::config::load::{Loaded, SourceKind, Sources};
use crate::config::render;
use crate::core::event::{Event, Refusal};
use crate::core::ids::{Generation, JobId};
use crate::core::reload::{Plan, ReloadReport, ReloadResult};
use crate::core::spec::{Config, Numbered, Rollback};
use crate::core::trial::{Trial, TrialSnapshot, is_worth_going_back_to};
use crate::store::generations::{Accepted, Because, Record, State};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::oneshot;
use tracing::Level;

/// A valid configuration, before it is decided what it is.
pub(super) struct Candidate {
    pub(super) config: Arc<Config>,
    pub(super) active: Active,
    pub(super) plan: Plan,
    pub(super) waiters: Vec<Waiter>,
    pub(super) applying: Applying,
    /// It is what runs instead of what the files say.
    pub(super) is_instead: bool,
}

impl Driver {
    pub(super) fn take_read(&mut self, result: ReadResult, waiters: Vec<Waiter>) {
        let ReadResult { examined, kept, unwatched, watching } = result;
        let Examined { loaded, plan, diagnostics, is_refused, timings } = examined;
        // Something else may have been gone back to while files were waited for.
        let kept = kept.filter(|_| self.desk.active.is_none());
        self.desk.watching = watching;
        if self.desk.unwatched != unwatched {
            if let Some(why) = &unwatched {
                self.remark(Level::WARN, "not-watching", why.clone());
            }
            self.desk.unwatched = unwatched;
        }
        let main = loaded.sources.files.iter().find_map(|source| source.modified);
        self.desk.modified = main.or(self.desk.modified);
        let known = *self.desk.diagnostics == *diagnostics;
        let rendered = render::render(&diagnostics, &loaded.sources, false);
        self.desk.diagnostics = Arc::from(diagnostics);
        let digest = loaded.sources.digest.clone();
        let is_gone = kept.as_ref().is_some_and(|kept| is_gone(&loaded, &kept.record));
        let is_refused = is_refused || is_gone;
        let before = match is_refused {
            true => self.desk.refused.replace(digest.clone()),
            false => self.desk.refused.take(),
        };
        let Some(config) = loaded.config.clone().filter(|_| !is_refused) else {
            // Of what nobody asked for, and what was told before, nobody has to hear again.
            let asked = waiters.iter().any(|waiter| waiter.reply.is_some());
            if asked || !known || before != Some(digest) {
                self.reject(rendered, timings, waiters);
            }
            if !self.notifier.is_started() {
                self.go_on_without(kept);
            }
            return;
        };
        let waiters = self.dismiss_mismatched(waiters);
        if waiters.is_empty() {
            return;
        }
        let trigger = cause(&waiters);
        let diagnostics = self.desk.diagnostics.clone();
        let applying = Applying::new(self.machine.generation(), trigger);
        let applying = Applying { timings, diagnostics, ..applying };
        let force = waiters.iter().any(|waiter| waiter.options.force);
        let is_active = self.desk.active.is_some() && digest == self.desk.digest();
        if is_active && !force {
            if before.is_some() && self.desk.applying.is_none() {
                let message = "the configuration is valid again, and what runs is what it says";
                self.remark(Level::INFO, "config-valid", message.to_owned());
            }
            self.same_again(applying, waiters);
            return;
        }
        if self.is_held_off(&digest) && !force {
            match kept {
                Some(kept) => self.begin_with(kept, applying, waiters),
                None => self.held_off(waiters),
            }
            return;
        }
        for text in rendered {
            self.remark(Level::WARN, "config-warning", text);
        }
        let active = Active::of(&loaded);
        let plan = plan.unwrap_or_default();
        let next = Candidate { config, active, plan, waiters, applying, is_instead: false };
        self.take_candidate(next, kept, &loaded.sources);
    }

    /// Decides which generation a valid configuration is, and hands it over.
    pub(super) fn take_candidate(
        &mut self,
        next: Candidate,
        kept: Option<LastGood>,
        sources: &Sources,
    ) {
        let is_first = self.desk.active.is_none();
        let is_forced = next.waiters.iter().any(|waiter| waiter.options.force);
        let same = kept.as_ref().filter(|kept| kept.record.digest == next.active.digest);
        if let Some(same) = same.filter(|_| !is_forced) {
            // It is what was last good, and that again.
            let number = same.record.number;
            self.keeping.found.trial = None;
            self.end_pending(number);
            return self.hand_over(number, next, Measure::None);
        }
        let pending = self.history.pending().filter(|_| is_first);
        let pending = pending.filter(|record| record.digest == next.active.digest);
        let running = self.machine.generation();
        let is_known = self.history.lock().get(running).is_some();
        let is_good = kept.as_ref().is_some_and(|kept| kept.record.number == running);
        let may_be_left = is_first && !is_forced && pending.is_none() && (is_good || !is_known);
        let is_left = may_be_left && self.is_left(&next);
        let number = match &pending {
            Some(record) => record.number,
            None if is_left => running,
            None => self.history.next_number(running),
        };
        let known = self.keeping.found.trial.take();
        self.end_pending(number);
        let base =
            kept.and_then(|kept| Some((kept.record.number, kept.loaded.config.clone()?, kept)));
        let last_good = base.as_ref().map(|(number, config, _)| (*number, config));
        let measure = self.measure(number, &next, known, last_good);
        let is_worth = base.as_ref().is_none_or(|(_, config, _)| is_worth_going_back_to(config));
        let measure = match next.config.settings.rollback {
            Rollback::Off => Measure::None,
            _ if is_left => Measure::None,
            Rollback::Auto | Rollback::Manual if !is_worth => Measure::None,
            Rollback::Auto | Rollback::Manual => measure,
        };
        if let Some((_, _, kept)) = &base {
            self.trying.base = Some(kept.active());
        } else if self.trying.trial.is_none() {
            self.trying.base.clone_from(&self.desk.active);
        }
        // What differs in a comment alone is no new generation.
        let changes = is_first && !(is_left && is_known)
            || !next.plan.is_empty()
            || self.machine.is_reloading()
            || self.machine.generation() == Generation(0);
        if pending.is_none() && changes {
            let base = match (&base, &self.trying.trial) {
                (Some((base, ..)), _) => Some(*base),
                (None, Some(trial)) => Some(trial.base().generation),
                (None, None) => {
                    Some(self.machine.generation()).filter(|number| *number > Generation(0))
                }
            };
            self.write_down(number, base, &next, sources);
        }
        self.hand_over(number, next, measure);
    }

    /// Whether a configuration is what a daemon before has left, but for a comment: then it is the
    /// generation that it was, as it is without a daemon in between. What was on trial is judged on.
    fn is_left(&self, next: &Candidate) -> bool {
        let was_on_trial = self.keeping.found.trial.is_some();
        !was_on_trial && next.plan.is_empty() && self.machine.generation() > Generation(0)
    }

    /// By what a configuration is judged, where it is: by what was last good, with what is known of a
    /// trial that a daemon before had begun, or by what runs.
    fn measure(
        &mut self,
        number: Generation,
        next: &Candidate,
        known: Option<TrialSnapshot>,
        last_good: Option<(Generation, &Arc<Config>)>,
    ) -> Measure {
        let Some((base, config)) = last_good else {
            // Where the files say something else, what runs is what that is judged by.
            let Some(known) = known.filter(|_| next.plan.is_empty()) else { return Measure::Trial };
            let TrialSnapshot { tried, base, .. } = known;
            let text = format!(
                "generation {tried} was on trial, and generation {base} is not kept: there is no way \
                 back, and nothing to judge it by"
            );
            self.remark(Level::WARN, "not-kept", text);
            return Measure::None;
        };
        let known = known.filter(|known| known.base == base);
        let before = known.map(|known| known.before).unwrap_or_default();
        let kept = TrialSnapshot { tried: number, base, before, faults: Vec::new() };
        let trial = Trial::resume_with(&self.machine, kept, config.clone(), &next.config, now());
        Measure::Resumed(Box::new(trial))
    }

    /// Keeps a configuration with all it was read from, before anything is done for it.
    fn write_down(
        &mut self,
        number: Generation,
        base: Option<Generation>,
        next: &Candidate,
        sources: &Sources,
    ) {
        let accepted = Accepted {
            number,
            cause: next.applying.trigger,
            base,
            state: State::Applying,
            plan: next.plan.clone(),
            timings: timings(&next.applying.timings),
            diagnostics: lines(&self.desk.diagnostics),
        };
        // First: whoever finds the generation must know that it is to be confirmed.
        self.checkpoint_accepted(number, base, sources);
        self.note_generation(|all| all.add(accepted, sources).map(|_| ()));
    }

    /// Gives a configuration to the machine.
    fn hand_over(&mut self, generation: Generation, next: Candidate, measure: Measure) {
        let Candidate { config, active, waiters, mut applying, is_instead, .. } = next;
        self.notifier.reloading();
        applying.generation = generation;
        // It is written down with what the machine makes of this.
        self.desk.missing.clone_from(&active.missing);
        self.desk.handover = Some(Handover { waiters, applying, active, is_instead });
        let request = self.request(Asked::Config);
        self.try_config(request, Numbered { generation, config }, measure);
    }

    /// The files cannot be used, at the first look: the last good generation is what runs, or what a
    /// daemon before has left.
    fn go_on_without(&mut self, kept: Option<LastGood>) {
        let Some(kept) = kept.filter(|kept| kept.loaded.config.is_some()) else {
            return self.go_on_as_found();
        };
        let message = format!(
            "going on with generation {}, the last good one, as long as the files cannot be used",
            kept.record.number
        );
        self.remark(Level::ERROR, "last-good", message);
        let applying = Applying::new(kept.record.number, Trigger::Start);
        let applying = Applying { diagnostics: self.desk.diagnostics.clone(), ..applying };
        self.begin_with(kept, applying, Vec::new());
    }

    /// The same where no generation was kept that could be gone on with.
    fn go_on_as_found(&mut self) {
        if self.desk.active.is_some() {
            // Somebody has gone back to something meanwhile.
        } else if self.machine.instances().next().is_some() {
            let message = "going on with what the daemon before this one ran, as long as the files \
                           cannot be used";
            self.remark(Level::ERROR, "last-good", message.to_owned());
        } else if self.options.ends_by_itself && self.machine.generation() == Generation(0) {
            // Who waits for it is told at once.
            self.finished = Some(1);
        }
        self.feed(Event::ConfigUnusable);
    }

    /// Begins with the last good generation and not with what the files say; ends a rollback that a
    /// daemon before had begun.
    fn begin_with(&mut self, kept: LastGood, mut applying: Applying, waiters: Vec<Waiter>) {
        let Some(config) = kept.loaded.config.clone() else {
            return self.feed(Event::ConfigUnusable);
        };
        let generation = kept.record.number;
        if let Some(held) = self.history.held_off() {
            let message = format!("running {generation}; the file on disk {held}");
            self.remark(Level::WARN, "held-off", message);
        }
        let active = kept.active();
        let unfinished = self.keeping.found.trial.take().filter(|known| known.base == generation);
        let pending = self.history.pending();
        let Some(pending) = pending.filter(|record| record.number > generation) else {
            applying.generation = generation;
            let plan = Plan::default();
            let next = Candidate { config, active, plan, waiters, applying, is_instead: true };
            return self.hand_over(generation, next, Measure::None);
        };
        applying.generation = pending.number;
        let kept = unfinished.unwrap_or_else(|| TrialSnapshot {
            tried: pending.number,
            base: generation,
            before: Arc::default(),
            faults: Vec::new(),
        });
        self.trying.withdrawn = match self.history.held_off().map(|held| held.because) {
            Some(Because::Unconfirmed { why, .. }) => Some(why),
            _ => None,
        };
        let plan = Plan::default();
        let next = Candidate { config, active, plan, waiters, applying, is_instead: true };
        self.begin_to_go_back(next, kept);
    }

    /// Gives the machine what was last good instead of what was tried, where no trial is open that
    /// could say so.
    pub(super) fn begin_to_go_back(&mut self, next: Candidate, kept: TrialSnapshot) {
        let Candidate { config, active, waiters, applying, is_instead, .. } = next;
        self.desk.handover = Some(Handover { waiters, applying, active, is_instead });
        let (generation, before) = (kept.base, kept.before.clone());
        let mut trial = Trial::resume(kept, config.clone(), &config, now());
        let request = self.request(Asked::Config);
        self.take_in(Event::ConfigWithdrawn { request, config, generation, before });
        trial.began_to_go_back(&self.machine, now());
        self.trying.trial = Some(trial);
        self.hand_on();
    }

    /// What a daemon before was killed over is not what the files say any more.
    fn end_pending(&mut self, number: Generation) {
        let pending = self.history.pending().filter(|_| self.desk.active.is_none());
        if let Some(pending) = pending.filter(|record| record.number != number) {
            self.note_generation(|all| all.set_state(pending.number, State::Superseded));
        }
    }

    fn is_held_off(&self, digest: &str) -> bool {
        let was_going_back = |record: &Record| {
            self.desk.active.is_none()
                && record.state == State::RollingBack
                && record.digest == digest
        };
        self.history.held_off().is_some_and(|held| held.digest == digest)
            || self.history.pending().is_some_and(|record| was_going_back(&record))
    }

    /// What was read was tried before, or is held off since a rollback.
    fn held_off(&self, waiters: Vec<Waiter>) {
        let Some(held) = self.history.held_off() else { return };
        let text = format!(
            "the file on disk {held}; generation {} runs, and it is not tried again until it changes, \
             or somebody insists",
            self.machine.generation()
        );
        for reply in waiters.into_iter().filter_map(|waiter| waiter.reply) {
            super::refuse(reply, DriverError::HeldOff(text.clone()));
        }
    }

    /// Turns away whoever expected another generation.
    fn dismiss_mismatched(&self, waiters: Vec<Waiter>) -> Vec<Waiter> {
        let actual = self.machine.generation().0;
        let mut staying = Vec::new();
        for waiter in waiters {
            match (waiter.options.expect_generation, waiter.reply) {
                (Some(expected), Some(reply)) if expected != actual => {
                    super::refuse(reply, DriverError::GenerationMismatch { expected, actual });
                }
                (_, reply) => staying.push(Waiter { reply, ..waiter }),
            }
        }
        staying
    }

    fn reject(
        &mut self,
        rendered: Vec<String>,
        timings: Vec<(&'static str, u64)>,
        waiters: Vec<Waiter>,
    ) {
        self.notifier.reloading();
        let text = rendered.join("\n");
        self.remark(
            Level::ERROR,
            "config-rejected",
            format!("the configuration is not valid; nothing was changed\n{text}"),
        );
        let trigger = cause(&waiters);
        for reply in waiters.into_iter().filter_map(|waiter| waiter.reply) {
            let diagnostics = self.desk.diagnostics.clone();
            let error = DriverError::Invalid { diagnostics, rendered: text.clone() };
            super::refuse(reply, error);
        }
        let took = spent(&timings);
        let outcome = Arc::new(ReloadOutcome {
            job: None,
            trigger,
            result: "rejected",
            generation: self.machine.generation(),
            tried: None,
            why: Vec::new(),
            report: None,
            diagnostics: self.desk.diagnostics.clone(),
            timings,
        });
        self.tell_outcome(outcome, took);
    }

    /// What was read is what is active.
    fn same_again(&mut self, applying: Applying, waiters: Vec<Waiter>) {
        if self.history.held_off().is_some() && !self.is_going_back() {
            // The files are what runs again.
            self.note_generation(|all| all.hold_off(None));
            self.desk.outcome = Some("applied");
        }
        if let Some(under_way) = &self.desk.applying {
            // It is being applied: whoever asks now waits for that.
            let job = under_way.job;
            for waiter in waiters {
                self.give_ticket(job, waiter);
            }
            return;
        }
        // A file that was only touched is not worth a word.
        if waiters.iter().any(|waiter| waiter.reply.is_some()) {
            self.unchanged(applying, waiters);
        }
    }

    fn is_going_back(&self) -> bool {
        self.trying.trial.as_ref().is_some_and(Trial::is_going_back)
    }

    fn unchanged(&mut self, mut applying: Applying, waiters: Vec<Waiter>) {
        for waiter in waiters {
            if let Some(reply) = waiter.reply {
                let (sender, outcome) = oneshot::channel();
                applying.waiters.push(sender);
                let _ = reply.send(Ok(ReloadTicket { job: None, outcome }));
            }
        }
        self.conclude(applying, "unchanged", Vec::new());
    }

    /// The machine took the configuration in, or not.
    pub(super) fn config_answered(&mut self, answer: Result<Vec<JobId>, Refusal>) {
        let Some(Handover { waiters, mut applying, active, is_instead }) =
            self.desk.handover.take()
        else {
            return;
        };
        self.trying.replaces = false;
        match answer {
            Err(refusal) => {
                for reply in waiters.into_iter().filter_map(|waiter| waiter.reply) {
                    super::refuse(reply, DriverError::Refused(refusal.clone()));
                }
            }
            Ok(jobs) => {
                if !is_instead {
                    self.note_generation(|all| all.hold_off(None));
                }
                self.history.lock().set_history(active.daemon.history);
                self.desk.set_active(active);
                self.desk.reloaded = Some(SystemTime::now());
                match jobs.first() {
                    None => {
                        // How the one before it ended stays true, but for one that is not there any
                        // more.
                        if self.desk.outcome != Some("failed-kept") {
                            self.desk.outcome = Some(self.word_for_applied());
                        }
                        self.unchanged(applying, waiters);
                    }
                    Some(job) => {
                        applying.job = Some(*job);
                        applying.is_instead = is_instead;
                        self.desk.applying = Some(applying);
                        for waiter in waiters {
                            self.give_ticket(Some(*job), waiter);
                        }
                    }
                }
            }
        }
    }

    pub(super) fn give_ticket(&mut self, job: Option<JobId>, waiter: Waiter) {
        let (Some(reply), Some(applying)) = (waiter.reply, &mut self.desk.applying) else { return };
        let (sender, outcome) = oneshot::channel();
        applying.waiters.push(sender);
        let _ = reply.send(Ok(ReloadTicket { job, outcome }));
    }

    /// The machine has carried a configuration out, or something newer took over.
    pub(super) fn reload_finished(&mut self, report: Arc<ReloadReport>) {
        if self.trying.is_hidden() {
            return;
        }
        let holds = self.trying.holds_job();
        let Some(applying) = &mut self.desk.applying else { return };
        let result = report.result;
        applying.report = Some(report);
        if holds {
            // Until the verdict.
            return;
        }
        let state = match result {
            ReloadResult::Applied | ReloadResult::Unchanged => State::Applied,
            ReloadResult::FailedKept => State::FailedKept,
            ReloadResult::Superseded | ReloadResult::Withdrawn => State::Superseded,
        };
        let number = applying.generation;
        let Some(applying) = self.desk.applying.take() else { return };
        self.note_generation(|all| all.set_state(number, state));
        match state {
            State::Applied => self.desk.outcome = Some(self.word_for_applied()),
            State::FailedKept => self.desk.outcome = Some("failed-kept"),
            _ => {}
        }
        self.conclude(applying, result.as_str(), Vec::new());
    }

    /// What runs is what should; the files may be something that was tried and did not come up.
    fn word_for_applied(&self) -> &'static str {
        match self.history.held_off().map(|held| held.because) {
            Some(Because::Tried { .. } | Because::Unconfirmed { .. }) => "rolled-back",
            Some(Because::RolledBack { .. }) | None => "applied",
        }
    }

    /// What is on its way is over because something newer took its place.
    pub(super) fn desk_superseded(&mut self) {
        let Some(applying) = self.desk.applying.take() else { return };
        let number = applying.generation;
        self.note_generation(|all| all.set_state(number, State::Superseded));
        self.conclude(applying, "superseded", Vec::new());
    }

    /// The verdict was spoken.
    pub(super) fn desk_concluded(&mut self, state: State, why: Vec<String>) {
        let Some(applying) = self.desk.applying.take() else { return };
        self.desk.outcome = Some(state.as_str());
        self.conclude(applying, state.as_str(), why);
    }

    fn conclude(&mut self, applying: Applying, result: &'static str, why: Vec<String>) {
        let Applying {
            job,
            generation,
            trigger,
            mut timings,
            diagnostics,
            waiters,
            report,
            begun,
            ..
        } = applying;
        let took = spent(&timings) + begun.elapsed();
        if let Some(report) = &report {
            timings.push(("apply", millis(report.took)));
        }
        // What was superseded is told by its own number.
        let active = match result {
            "superseded" => generation,
            _ => self.machine.generation(),
        };
        let outcome = Arc::new(ReloadOutcome {
            job,
            trigger,
            result,
            generation: active,
            tried: Some(generation).filter(|tried| *tried != active),
            why,
            report,
            diagnostics,
            timings,
        });
        for waiter in waiters {
            let _ = waiter.send(outcome.clone());
        }
        self.tell_outcome(outcome, took);
        self.checkpoint_concluded(generation, result);
    }
}

impl LastGood {
    /// What is active when it is.
    pub(super) fn active(&self) -> Active {
        Active { digest: self.record.digest.clone(), ..Active::of(&self.loaded) }
    }
}

/// How long the stages took.
fn spent(timings: &[(&'static str, u64)]) -> Duration {
    Duration::from_millis(timings.iter().map(|(_, ms)| ms).sum())
}

/// Whether the file with the processes is gone from which the last good generation was read. Before
/// there was any, a file that is missing is no error.
fn is_gone(loaded: &Loaded, record: &Record) -> bool {
    let of = |kind: SourceKind| record.files.iter().find(|file| file.kind == kind);
    let file = of(SourceKind::Processes).or_else(|| of(SourceKind::Main));
    loaded.missing && file.is_some_and(|file| file.content.is_some())
}

/// Why it was read: somebody asked, or it is the start, before what happened by itself, such as the event
/// of an edit.
fn cause(waiters: &[Waiter]) -> Trigger {
    let asked = waiters.iter().rev().find(|waiter| waiter.reply.is_some());
    let other = || waiters.iter().rev().find(|waiter| waiter.trigger != Trigger::File);
    asked.or_else(other).map_or(Trigger::File, |waiter| waiter.trigger)
}
