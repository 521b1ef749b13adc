//! What people are told: each thing that happens has its note, in the turn in which it happens.

use super::Verdict;
use super::facts::{Facts, HealthFacts};
use super::model::Model;
use crate::hold;
use provost_core::ids::InstanceId;
use provost_core::trial::Rest;
use provost_core::view::State;

/// The notes of a turn: about whom, and of which kind.
#[derive(Debug, Default)]
pub struct Notes {
    told: Vec<(Option<InstanceId>, &'static str)>,
    /// What the turn must tell.
    due: Vec<(Option<InstanceId>, &'static str)>,
}

impl Notes {
    pub(super) fn begin(&mut self) {
        self.told.clear();
        self.due.clear();
    }

    pub(super) fn take(&mut self, about: Option<&InstanceId>, kind: &'static str) {
        self.told.push((about.cloned(), kind));
    }

    /// This turn has to tell of something.
    pub(super) fn expect(&mut self, about: Option<&InstanceId>, kind: &'static str) {
        self.due.push((about.cloned(), kind));
    }

    /// The same, of what a check has changed.
    pub(super) fn expect_health(&mut self, id: &InstanceId, old: HealthFacts, new: HealthFacts) {
        let kind = if new.healthy && !old.healthy {
            "healthy"
        } else if new.ill && !old.ill {
            "unhealthy"
        } else if new.bad > old.bad && !new.ill {
            "check-failed"
        } else {
            return;
        };
        self.expect(Some(id), kind);
    }

    fn has(&self, about: Option<&InstanceId>, kind: &str) -> bool {
        self.told.iter().any(|(id, told)| id.as_ref() == about && *told == kind)
    }
}

impl Model {
    /// What an effect is about was told before it.
    pub(super) fn is_told(&self, id: &InstanceId, kinds: &[&str]) -> Verdict {
        let told = kinds.iter().any(|kind| self.notes.has(Some(id), kind));
        hold!(told, "{id}: no note of {kinds:?}");
        Ok(())
    }

    /// After a turn.
    pub(super) fn check_notes(&self) -> Verdict {
        for (id, kind) in &self.notes.due {
            hold!(self.notes.has(id.as_ref(), kind), "no note of {kind} about {id:?}");
        }
        for (id, facts) in &self.instances {
            self.check_told(id, facts)?;
        }
        Ok(())
    }

    /// A new state of an instance was told.
    fn check_told(&self, id: &InstanceId, facts: &Facts) -> Verdict {
        if facts.before == facts.view.state {
            return Ok(());
        }
        let rest = self.rest_of(id);
        match facts.view.state {
            // As it was before what is withdrawn: that was told then.
            State::Completed if rest == Some(Rest::Completed) => Ok(()),
            State::Failed if rest == Some(Rest::Failed) => Ok(()),
            // What served beside it ended by itself.
            State::Starting if facts.former.is_some() => self.is_told(id, &["starting", "exited"]),
            State::Starting => self.is_told(id, &["starting"]),
            State::Running => self.is_told(id, &["ready"]),
            // That its former run ends was told.
            State::Stopping if facts.former.is_some() && facts.before != State::Running => Ok(()),
            State::Stopping => self.is_told(id, &["stopping", "exited"]),
            State::Backoff => self.is_told(id, &["backing-off"]),
            State::Completed => self.is_told(id, &["completed"]),
            State::Failed => self.is_told(id, &["gave-up"]),
            // Of waiting, what is waited for is told; that it is down, only where it ran.
            State::Waiting | State::Down => Ok(()),
        }
    }
}
