//! How one that is judged stands at a moment, and why it is not good, in words.

use super::{Judged, STRIKES, Trial};
use crate::event::Blocker;
use crate::ids::InstanceId;
use crate::machine::Machine;
use crate::process::{Instance, Phase};
use crate::spec::RestartCondition;
use crate::time::Mono;
use std::time::Duration;

/// How one stands at a moment.
pub(super) enum Standing {
    Good,
    Bad(String),
    /// It waits for others that are judged.
    Behind,
    /// It waits for others.
    Waits,
    Open {
        /// When it is good if nothing happens.
        good_at: Option<Mono>,
    },
}

impl Trial {
    pub(super) fn standing(
        &self,
        judged: &mut Judged,
        machine: &Machine,
        id: &InstanceId,
        now: Mono,
    ) -> Standing {
        // Gone, or not wanted any more: somebody else decided about it.
        let Some(inst) = machine.instance(id).filter(|inst| machine.is_wished(inst)) else {
            return Standing::Good;
        };
        let open = Standing::Open { good_at: None };
        let blockers = blockers(machine, id);
        if !blockers.is_empty() {
            return self.standing_behind(id, inst, blockers);
        }
        match &inst.phase {
            Phase::Completed => Standing::Good,
            Phase::Failed => Standing::Bad(last_end(inst)),
            Phase::Backoff { .. } if inst.restarts.saturating_sub(judged.restarts) >= STRIKES => {
                Standing::Bad(format!("{} ({STRIKES} times)", last_end(inst)))
            }
            Phase::Backoff { .. } | Phase::Down => open,
            Phase::Waiting(_) | Phase::Stopping(..) => open,
            Phase::Up(_) if inst.refused.is_some() && inst.next.is_some() => {
                Standing::Bad(last_end(inst))
            }
            // Its old run, and nobody replaces it: another of its process has shown enough.
            Phase::Up(_) if machine.is_left_behind(id) => Standing::Good,
            // Its old run, or one that is to be replaced.
            Phase::Up(_) if inst.next.is_some() || inst.restart_due.is_some() => open,
            Phase::Up(live) => {
                judged.began.get_or_insert(live.asked.max(self.since));
                let one_shot = inst.spec.restart.condition == RestartCondition::No;
                let stable = live.stable_since.filter(|_| live.health.failures() == 0);
                match stable {
                    Some(since) if !(judged.awaited && one_shot) => {
                        let good_at = since.max(self.since).after(self.settle);
                        match good_at <= now {
                            true => Standing::Good,
                            false => Standing::Open { good_at: Some(good_at) },
                        }
                    }
                    _ => open,
                }
            }
        }
    }

    /// How one stands that waits for these.
    fn standing_behind(&self, id: &InstanceId, inst: &Instance, blockers: &[Blocker]) -> Standing {
        // For one that is to blame.
        if blockers.iter().any(|by| self.is_bad(by)) {
            return Standing::Good;
        }
        // For one that will be when it does not come.
        if blockers.iter().any(|by| self.is_judged(by)) {
            return Standing::Behind;
        }
        if !blockers.iter().any(Blocker::is_hopeless) {
            return Standing::Waits;
        }
        // It went on while what it needs was gone, and a new run cannot begin.
        let served = self.kept.before.get(id).is_some_and(|before| before.serving);
        match self.is_going_back() && served && !inst.serves() {
            true => Standing::Bad(format!("it waits for {}", crate::text::joined(blockers))),
            false => Standing::Good,
        }
    }

    /// Why one was not good in time.
    pub(super) fn too_slow(&self, machine: &Machine, id: &InstanceId) -> String {
        let (limit, settle) = (crate::text::span(self.limit), crate::text::span(self.settle));
        let Some(inst) = machine.instance(id) else {
            return format!("it was not up within {limit}");
        };
        let Phase::Up(live) = &inst.phase else {
            return match &inst.last_end {
                Some(end) => format!("it was not up within {limit}; it {end}"),
                None => format!("it was not up within {limit}"),
            };
        };
        match live.health.detail() {
            Some(detail) if live.ready.is_none() => {
                format!("it was not ready within {limit}: {detail}")
            }
            None if live.ready.is_none() => format!("it was not ready within {limit}"),
            Some(detail) if live.health.failures() > 0 => {
                format!("its check does not succeed: {detail}")
            }
            _ if self.open.get(id).is_some_and(|judged| judged.awaited) => {
                format!("it did not complete within {limit}")
            }
            _ => format!("it was not up for {settle} without a break within {limit}"),
        }
    }

    /// Whether what keeps an instance waiting is the order of the reload, or is judged itself.
    fn is_judged(&self, blocker: &Blocker) -> bool {
        match blocker {
            Blocker::Reload => true,
            Blocker::Dependency { on, .. } => {
                self.open.range(on.instance(0)..=on.instance(u32::MAX)).next().is_some()
            }
        }
    }

    /// Whether what keeps an instance waiting was found bad.
    fn is_bad(&self, blocker: &Blocker) -> bool {
        let Blocker::Dependency { on, .. } = blocker else { return false };
        // What was tried is going: that it was bad says nothing of what comes back.
        let bad = if self.is_going_back() { &self.lost } else { &self.faults };
        bad.iter().any(|fault| fault.instance.process == *on)
    }
}

pub(super) fn last_end(inst: &Instance) -> String {
    inst.last_end.as_ref().map_or_else(|| "it failed".to_owned(), |end| format!("it {end}"))
}

pub(super) fn waited(machine: &Machine, id: &InstanceId, limit: Duration) -> String {
    let limit = crate::text::span(limit);
    match blockers(machine, id) {
        [] => format!("it still waits after {limit}"),
        blockers => format!("it still waits for {} after {limit}", crate::text::joined(blockers)),
    }
}

/// What one waits for: for a run, or with its old one, which is not judged, for its turn.
fn blockers<'a>(machine: &'a Machine, id: &InstanceId) -> &'a [Blocker] {
    match machine.instance(id) {
        Some(Instance { phase: Phase::Waiting(blockers), .. }) => blockers,
        Some(Instance { next: Some(_), .. }) => machine.turn_blockers(id),
        _ => &[],
    }
}
