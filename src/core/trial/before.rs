//! How things were while the last good generation was in force.

use crate::event::RunEnd;
use crate::ids::InstanceId;
use crate::process::{Instance, Phase};
use crate::time::Mono;
use crate::view::HealthState;
use serde::{Deserialize, Serialize};

/// How an instance was while the last good generation was in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before {
    /// The operator's word.
    pub wanted: bool,
    /// Up although disabled.
    pub once: bool,
    /// Where it rested.
    pub rest: Option<Rest>,
    /// How its last run had ended.
    pub last_end: Option<RunEnd>,
    /// Whether it was failing.
    pub failing: bool,
    /// Whether a run of it was ready.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub serving: bool,
}

/// A rest that a new run would end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rest {
    /// It did its work.
    Completed,
    /// It failed for good.
    Failed,
}

impl Before {
    /// Where it rested, and how the run before had ended.
    pub(crate) fn rest(&self) -> Option<(Rest, Option<RunEnd>)> {
        Some((self.rest?, self.last_end.clone()))
    }

    pub(super) fn of(inst: &Instance, now: Mono) -> Before {
        Before {
            wanted: inst.wanted,
            once: inst.once,
            rest: match inst.phase {
                Phase::Completed => Some(Rest::Completed),
                Phase::Failed => Some(Rest::Failed),
                _ => None,
            },
            last_end: inst.last_end.clone(),
            failing: is_failing(inst, now),
            serving: inst.serves(),
        }
    }
}

/// Whether an instance does not work, in any way that a new generation could be blamed for later.
fn is_failing(inst: &Instance, now: Mono) -> bool {
    if let Some(former) = inst.stand_in() {
        // Whatever becomes of the new run, somebody serves.
        return former.live.health.state() == HealthState::Unhealthy;
    }
    match &inst.phase {
        Phase::Backoff { .. } | Phase::Failed => true,
        Phase::Up(live) => {
            let ill = live.health.state() == HealthState::Unhealthy;
            let enough = inst.spec.restart.min_uptime;
            let proven = live.stable_since.is_some_and(|since| now.since(since) >= enough);
            ill || (inst.attempt > 0 && !proven)
        }
        Phase::Stopping(_, ending) => {
            !matches!(ending.end, RunEnd::Asked(_)) && inst.restart_due.is_none()
        }
        Phase::Down | Phase::Waiting(_) | Phase::Completed => false,
    }
}

/// As a list: an instance is no text, which a key of JSON has to be.
pub(super) mod pairs {
    use super::{Before, InstanceId};
    use serde::{Deserialize, Deserializer, Serializer};
    use std::collections::BTreeMap;
    use std::sync::Arc;

    type All = Arc<BTreeMap<InstanceId, Before>>;

    pub(in super::super) fn serialize<S: Serializer>(all: &All, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(all.iter())
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<All, D::Error> {
        let all: Vec<(InstanceId, Before)> = Deserialize::deserialize(from)?;
        Ok(Arc::new(all.into_iter().collect()))
    }
}
