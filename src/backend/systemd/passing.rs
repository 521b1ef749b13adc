//! Units of programs of ours, such as checks: nothing is kept of them.

use super::manager::{CallError, MainChange, Manager, UnitEvent, Watch};
use super::status::{OF_SYSTEMD, exit_status, failed_step};
use super::unit::Properties;
use crate::backend::native::launch::failure;
use crate::core::event::{ExitStatus, SpawnError, SpawnStage};
use std::sync::Arc;

/// A program that was started.
pub(super) struct Passing {
    manager: Arc<Manager>,
    unit: String,
    watch: Watch,
    main: MainChange,
}

impl Passing {
    /// Starts it, and returns when it was executed.
    ///
    /// # Errors
    /// At the stage that systemd names.
    pub(super) async fn start(
        manager: &Arc<Manager>,
        unit: String,
        properties: &Properties,
    ) -> Result<Passing, SpawnError> {
        let watch = manager.watch(&unit);
        let mut passing =
            Passing { manager: manager.clone(), unit, watch, main: MainChange::default() };
        let _slot = manager.job_slot().await;
        let mut job = None;
        loop {
            match manager.start_transient(&passing.unit, properties).await {
                Ok(started) => job = Some(started),
                // It may have been carried out: then the unit is there.
                Err(CallError::Lost) => continue,
                Err(error) if error.is_unit_exists() => {}
                Err(error) => return Err(failure(SpawnStage::Fork, "", error.to_string())),
            }
            break;
        }
        passing.executed(job).await?;
        Ok(passing)
    }

    async fn executed(&mut self, job: Option<String>) -> Result<(), SpawnError> {
        let done = loop {
            match self.watch.next().await {
                UnitEvent::Main(change) => self.main.absorb(change),
                UnitEvent::JobRemoved { job: of, result } => {
                    if job.as_ref().is_none_or(|job| *job == of) {
                        break result == "done";
                    }
                }
                UnitEvent::Removed | UnitEvent::Look => match self.look().await {
                    Some(true) => {}
                    Some(false) => break true,
                    None => break false,
                },
            }
        };
        // One that has ended before systemd saw it executed was executed all the same.
        match (done, self.main.code, self.main.status) {
            (true, ..) => Ok(()),
            (false, Some(code), Some(status)) if code != 0 && !OF_SYSTEMD.contains(&status) => {
                Ok(())
            }
            (false, _, status) => {
                let step = status.and_then(failed_step);
                let (stage, word) = step.unwrap_or((SpawnStage::Fork, "it was not started"));
                Err(failure(stage, "", format!("systemd: {word}")))
            }
        }
    }

    /// Whether a job is under way; None where it is gone.
    async fn look(&mut self) -> Option<bool> {
        loop {
            match self.manager.observe(&self.unit).await {
                Ok(Some(found)) => {
                    self.main.absorb(found.main);
                    return Some(found.has_job);
                }
                Ok(None) => return None,
                Err(CallError::Lost) => {}
                Err(error) => {
                    tracing::warn!("{}: {error}", self.unit);
                    return Some(true);
                }
            }
        }
    }

    /// Returns when it has ended.
    pub(super) async fn ended(&mut self) -> ExitStatus {
        loop {
            let (code, status) = (self.main.code.unwrap_or(0), self.main.status.unwrap_or(0));
            if let Some(status) = exit_status(code, status) {
                return status;
            }
            match self.watch.next().await {
                UnitEvent::Main(change) => self.main.absorb(change),
                UnitEvent::Removed | UnitEvent::Look => {
                    if self.look().await.is_none() {
                        return ExitStatus::Unknown;
                    }
                }
                UnitEvent::JobRemoved { .. } => {}
            }
        }
    }

    /// Ends all that is there of it, and returns when nothing is.
    pub(super) async fn stop(mut self) {
        loop {
            match self.manager.stop(&self.unit).await {
                Ok(None) => return,
                Ok(Some(_)) => break,
                Err(CallError::Lost) => {}
                Err(error) => {
                    tracing::warn!("{}: ending it: {error}", self.unit);
                    return;
                }
            }
        }
        loop {
            match self.watch.next().await {
                UnitEvent::Removed => return,
                UnitEvent::Look if self.look().await.is_none() => return,
                _ => {}
            }
        }
    }
}
