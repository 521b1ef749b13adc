//! The event log: each note of the machine becomes a line for people, an entry of the own log with
//! fields for programs, and a place in the bounded memory that `provost events` reads.

use super::Driver;
use super::handle::{EventLine, Remark, Says, wall};
use crate::config::load::Mode;
use crate::core::event::{Effect, Note, What};
use crate::core::ids::{Generation, InstanceId, JobId, Run, Slot};
use crate::store::told::Untold;
use std::sync::Arc;
use std::time::SystemTime;
use tracing::Level;

impl Driver {
    /// Has what came of runs kept until it is told, with the states that are saved next.
    pub(super) fn keep_outcomes(&mut self, effects: &[Effect]) {
        self.numbers.clear();
        for effect in effects {
            let Effect::Note(note) = effect else { continue };
            let of = note.instance.as_ref().zip(note.what.outcome());
            let Some((instance, outcome)) = of else { continue };
            let untold = Untold {
                instance: instance.clone(),
                run: note.run,
                slot: self.machine.slot_of(instance, note.run),
                generation: self.machine.generation(),
                at: note.at,
                outcome,
            };
            self.numbers.push_back(self.keeping.store.keep_outcome(untold));
        }
    }

    /// Tells what the daemon before has kept and not told.
    pub(super) fn tell_late(&mut self, untold: Vec<(u64, Untold)>) {
        for (number, Untold { instance, run, slot, generation, at, outcome }) in untold {
            let (instance, what) = (Some(instance), outcome.into());
            let note = Arc::new(Note { at, instance, run, job: None, what });
            let then = Then { slot, generation, late: true };
            self.tell_note(&note, &then, Some(number));
        }
    }

    pub(super) fn record(&mut self, note: &Arc<Note>) {
        // All that are kept are told in the same order.
        let is_kept = note.instance.is_some() && note.what.outcome().is_some();
        let number = if is_kept { self.numbers.pop_front() } else { None };
        let of = note.instance.as_ref();
        let slot = of.map_or(Slot::A, |id| self.machine.slot_of(id, note.run));
        let then = Then { slot, generation: self.machine.generation(), late: false };
        self.tell_note(note, &then, number);
    }

    fn tell_note(&mut self, note: &Arc<Note>, then: &Then, number: Option<u64>) {
        let message = note.what.to_string();
        let says = match &note.instance {
            Some(_) => Says::Note(Arc::clone(note)),
            None => {
                let (kind, job, message) = (note.what.kind(), note.job, message.clone());
                Says::Remark(Arc::new(Remark { kind, job, message }))
            }
        };
        let at = wall(note.at);
        self.keep(at, says);
        let unit = |id: &InstanceId| self.backend.unit(id, then.slot);
        let about = About {
            instance: note.instance.as_ref(),
            unit: note.instance.as_ref().and_then(unit),
            mode: self.options.location.mode,
            job: note.job,
            run: note.run,
            generation: then.generation,
            at: then.late.then(|| jiff::Timestamp::try_from(at).ok()).flatten(),
        };
        let level = level(&note.what);
        tell(level, note.what.kind(), &about, &message, number);
        if let Some(number) = number.filter(|_| !is_logged(level)) {
            // Nobody wants to hear of it, later neither.
            self.keeping.store.told().pass(number);
        }
    }

    /// Something about the whole that is no note of the machine.
    pub(super) fn remark(&mut self, level: Level, kind: &'static str, message: String) {
        let about = About {
            instance: None,
            unit: None,
            mode: self.options.location.mode,
            job: None,
            run: None,
            generation: self.machine.generation(),
            at: None,
        };
        tell(level, kind, &about, &message, None);
        let remark = Remark { kind, job: None, message };
        self.keep(SystemTime::now(), Says::Remark(Arc::new(remark)));
    }

    fn keep(&mut self, at: SystemTime, says: Says) {
        self.last_event += 1;
        self.published.add_event(EventLine { seq: self.last_event, at, says });
        // A line may come without any other change; those who follow the log want it too.
        self.turn.manager = true;
    }
}

/// How things were when something happened.
struct Then {
    slot: Slot,
    generation: Generation,
    /// Another daemon saw it.
    late: bool,
}

/// Whether entries of this level are written.
fn is_logged(level: Level) -> bool {
    match level {
        Level::ERROR => tracing::enabled!(Level::ERROR),
        Level::WARN => tracing::enabled!(Level::WARN),
        Level::INFO => tracing::enabled!(Level::INFO),
        _ => tracing::enabled!(Level::DEBUG),
    }
}

fn level(what: &What) -> Level {
    match what {
        What::GaveUp { .. } | What::SpawnFailed { expected: false, .. } | What::StillThere => {
            Level::ERROR
        }
        What::StartTimedOut { .. }
        | What::Exited { expected: false, .. }
        | What::Killing { .. }
        | What::BackingOff { .. }
        | What::CheckFailed { .. }
        | What::ReloadFailed { .. }
        | What::FellBack { .. }
        | What::Unhealthy { .. } => Level::WARN,
        // Of each that a reload leaves its report tells as well.
        What::Starting { .. } | What::Kept { .. } | What::KeepsRun { .. } => Level::DEBUG,
        _ => Level::INFO,
    }
}

/// What an entry is about.
struct About<'a> {
    instance: Option<&'a InstanceId>,
    /// Its unit, where it has one of its own.
    unit: Option<String>,
    /// Whose unit that is.
    mode: Mode,
    job: Option<JobId>,
    run: Option<Run>,
    generation: Generation,
    /// When that was, where it is told late.
    at: Option<jiff::Timestamp>,
}

/// The fields are in capitals because they become fields of the journal by these names. That of the
/// unit has `journalctl --unit` find the entry (systemd.journal-fields(7)). The number is for who keeps
/// it until it is written, and no field.
fn tell(level: Level, kind: &'static str, about: &About<'_>, message: &str, number: Option<u64>) {
    let About { instance, unit, mode, job, run, generation, at } = about;
    let at = at.map(|at| at.to_string());
    let of_system = unit.as_deref().filter(|_| *mode == Mode::System);
    let of_user = unit.as_deref().filter(|_| *mode == Mode::User);
    macro_rules! event {
        ($level:expr) => {
            match instance {
                Some(id) => tracing::event!(
                    $level,
                    PROVOST_EVENT = kind,
                    PROVOST_PROCESS = id.process.as_str(),
                    PROVOST_INSTANCE = id.index,
                    PROVOST_RUN = run.map(|run| run.0),
                    PROVOST_JOB = job.map(|job| job.0),
                    PROVOST_GENERATION = generation.0,
                    OBJECT_SYSTEMD_UNIT = of_system,
                    OBJECT_SYSTEMD_USER_UNIT = of_user,
                    PROVOST_AT = at.as_deref(),
                    number = number,
                    "{id}: {message}"
                ),
                None => tracing::event!(
                    $level,
                    PROVOST_EVENT = kind,
                    PROVOST_JOB = job.map(|job| job.0),
                    PROVOST_GENERATION = generation.0,
                    "{message}"
                ),
            }
        };
    }
    match level {
        Level::ERROR => event!(Level::ERROR),
        Level::WARN => event!(Level::WARN),
        Level::INFO => event!(Level::INFO),
        _ => event!(Level::DEBUG),
    }
}
