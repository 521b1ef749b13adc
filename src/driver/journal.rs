//! The event log: each note of the machine becomes a line for people, an entry of the own log with
//! fields for programs, and a place in the bounded memory that `provost events` reads.

use super::Driver;
use super::handle::{EventLine, wall};
use crate::core::event::{Note, What};
use crate::core::ids::{Generation, InstanceId, JobId, Run};
use std::time::SystemTime;
use tracing::Level;

impl Driver {
    pub(super) fn record(&mut self, note: &Note) {
        let message = note.what.to_string();
        self.keep(EventLine {
            seq: 0,
            at: wall(note.at),
            kind: note.what.kind(),
            instance: note.instance.clone(),
            run: note.run,
            job: note.job,
            message: message.clone(),
        });
        tell(
            level(&note.what),
            note.what.kind(),
            note.instance.as_ref(),
            note.job,
            note.run,
            self.machine.generation(),
            &message,
        );
    }

    /// Something about the whole that is no note of the machine.
    pub(super) fn remark(&mut self, level: Level, kind: &'static str, message: String) {
        tell(level, kind, None, None, None, self.machine.generation(), &message);
        self.keep(EventLine {
            seq: 0,
            at: SystemTime::now(),
            kind,
            instance: None,
            run: None,
            job: None,
            message,
        });
    }

    fn keep(&mut self, mut line: EventLine) {
        self.last_event += 1;
        line.seq = self.last_event;
        self.published.add_event(line);
        // A line may come without any other change; those who follow the log want it too.
        self.turn.manager = true;
    }
}

fn level(what: &What) -> Level {
    match what {
        What::GaveUp { .. } | What::SpawnFailed(_) | What::StillThere => Level::ERROR,
        What::StartTimedOut { .. }
        | What::Exited { expected: false, .. }
        | What::Killing { .. }
        | What::BackingOff { .. }
        | What::CheckFailed { .. }
        | What::Unhealthy { .. } => Level::WARN,
        What::Starting { .. } | What::Kept { .. } => Level::DEBUG,
        _ => Level::INFO,
    }
}

/// The fields are in capitals because they become fields of the journal by these names.
fn tell(
    level: Level,
    kind: &'static str,
    instance: Option<&InstanceId>,
    job: Option<JobId>,
    run: Option<Run>,
    generation: Generation,
    message: &str,
) {
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
