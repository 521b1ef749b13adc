//! What others ask of generations, and what a reload has to say for the record of one.
//!
//! Reading and comparing wait for the disk, so they are done in threads; the driver only says where.

use super::Driver;
use super::handle::{Command, DriverError, Handle, Reply};
use crate::config::diagnostic::Diagnostic;
use crate::config::difference;
pub use crate::config::difference::{Difference, FileDifference};
use crate::config::load::{Location, SourceKind, Sources, load};
use crate::config::render::one_line;
use crate::core::ids::Generation;
pub use crate::store::generations::{Cause, Generations, Record};
use crate::store::generations::{FilesError, HeldOff, Timing};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// The generations, for the driver and for the threads that wait for the disk.
#[derive(Clone, Debug)]
pub(super) struct History(Arc<Mutex<Generations>>);

impl History {
    pub(super) fn new(generations: Generations) -> History {
        History(Arc::new(Mutex::new(generations)))
    }

    /// Waits for whoever reads or writes one. Each change is whole when it is let go.
    pub(super) fn lock(&self) -> MutexGuard<'_, Generations> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // Each of these holds it for its own time: whoever asks twice in one expression would wait for
    // himself.

    /// What on disk is not to be applied.
    pub(super) fn held_off(&self) -> Option<HeldOff> {
        self.lock().held_off().cloned()
    }

    /// What has no end yet.
    pub(super) fn pending(&self) -> Option<Arc<Record>> {
        self.lock().pending()
    }

    /// What runs when nothing is pending.
    pub(super) fn running(&self) -> Option<Arc<Record>> {
        self.lock().running()
    }

    /// The files of one as they were.
    ///
    /// # Errors
    /// When it is not kept, or not as it was written.
    pub(super) fn files(&self, number: Generation) -> Result<Sources, FilesError> {
        let kept = self.lock().find(number)?;
        // The driver must not wait for a disk that somebody else reads from.
        kept.read()
    }

    /// The number of the next one.
    pub(super) fn next_number(&self, running: Generation) -> Generation {
        self.lock().next_number(running)
    }

    /// When what could not be written is to be tried again.
    pub(super) fn again(&self) -> Option<Instant> {
        self.lock().again()
    }

    /// Why something is not on the disk.
    pub(super) fn trouble(&self) -> Option<String> {
        self.lock().trouble().map(ToOwned::to_owned)
    }

    fn listed(&self) -> Listed {
        let generations = self.lock();
        let running = generations.running().map(|record| record.number);
        Listed { running, records: generations.list() }
    }

    fn shown(&self, number: Generation) -> Result<Shown, DriverError> {
        let generations = self.lock();
        let kept = generations.find(number)?;
        let is_running = generations.running().is_some_and(|running| running.number == number);
        drop(generations);
        let sources = kept.read()?;
        let files = sources.files.iter().map(|file| ShownFile {
            kind: file.kind,
            path: file.path.to_path_buf(),
            text: difference::shown(file),
        });
        Ok(Shown { record: Arc::clone(kept.record()), is_running, files: files.collect() })
    }

    fn sources(&self, which: Which, location: &Location) -> Result<Sources, DriverError> {
        match which {
            Which::Disk => Ok(load(location).sources),
            Which::Kept(number) => Ok(self.files(number)?),
        }
    }
}

/// A configuration that can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// What is on disk now.
    Disk,
    /// A generation.
    Kept(Generation),
}

/// All generations that are kept.
#[derive(Clone, Debug)]
pub struct Listed {
    /// What runs, where it is one of them; while another is being applied, the one before it.
    pub running: Option<Generation>,
    /// The newest first.
    pub records: Vec<Arc<Record>>,
}

/// One generation with its files.
#[derive(Clone, Debug)]
pub struct Shown {
    /// What is known of it.
    pub record: Arc<Record>,
    /// Whether it is what runs.
    pub is_running: bool,
    /// In the order they were read.
    pub files: Vec<ShownFile>,
}

/// One file as it was.
#[derive(Clone, Debug)]
pub struct ShownFile {
    /// What it is for.
    pub kind: SourceKind,
    /// Absolute.
    pub path: PathBuf,
    /// Its text, without values of variables; None where there was no such file.
    pub text: Option<String>,
}

impl From<FilesError> for DriverError {
    fn from(error: FilesError) -> DriverError {
        match error {
            FilesError::NoSuch(..) => DriverError::NoSuchGeneration(error.to_string()),
            FilesError::Unusable { .. } => DriverError::GenerationUnusable(error.to_string()),
        }
    }
}

/// How long each stage took, for the record.
pub(super) fn timings(stages: &[(&'static str, u64)]) -> Vec<Timing> {
    let timing = |(stage, ms): &(&str, u64)| Timing { stage: (*stage).to_owned(), ms: *ms };
    stages.iter().map(timing).collect()
}

/// What is remarked on files, for the record.
pub(super) fn lines(diagnostics: &[Diagnostic]) -> Vec<String> {
    diagnostics.iter().map(one_line).collect()
}

impl Driver {
    /// Answers from a thread of its own.
    fn answer_from_history<T: Send + 'static>(
        &self,
        reply: Reply<T>,
        find: impl FnOnce(&History, &Location) -> Result<T, DriverError> + Send + 'static,
    ) {
        let (history, location) = (self.history.clone(), self.options.location.clone());
        tokio::task::spawn_blocking(move || {
            // A caller that went away does not want the answer any more.
            let _ = reply.send(find(&history, &location));
        });
    }

    pub(super) fn list_history(&self, reply: Reply<Listed>) {
        self.answer_from_history(reply, |history, _| Ok(history.listed()));
    }

    pub(super) fn show_generation(&self, number: Generation, reply: Reply<Shown>) {
        self.answer_from_history(reply, move |history, _| history.shown(number));
    }

    pub(super) fn diff_generations(&self, old: Which, new: Which, reply: Reply<Difference>) {
        self.answer_from_history(reply, move |history, location| {
            let (old, new) = (history.sources(old, location)?, history.sources(new, location)?);
            Ok(difference::between(location, &old, &new))
        });
    }
}

impl Handle {
    /// All generations that are kept.
    ///
    /// # Errors
    /// When the driver is gone.
    pub async fn history(&self) -> Result<Listed, DriverError> {
        self.ask(|reply| Command::History { reply }).await
    }

    /// One generation with its files; values of variables are masked.
    ///
    /// # Errors
    /// When it is not kept, or not as it was written.
    pub async fn show_generation(&self, number: Generation) -> Result<Shown, DriverError> {
        self.ask(|reply| Command::ShowGeneration { number, reply }).await
    }

    /// What differs between two configurations; values of variables are masked.
    ///
    /// # Errors
    /// When one of them is not kept, or not as it was written.
    pub async fn diff_generations(
        &self,
        old: Which,
        new: Which,
    ) -> Result<Difference, DriverError> {
        self.ask(|reply| Command::DiffGenerations { old, new, reply }).await
    }
}
