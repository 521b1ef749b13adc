//! Who of several instances gets a new run, and when.

use super::Verdict;
use super::facts::Facts;
use super::model::{Cause, Model};
use crate::hold;
use provost_core::ids::InstanceId;
use provost_core::view::State;

impl Model {
    /// Whether an instance was ready, got a new run in its turn, and is not ready yet.
    fn is_out(facts: &Facts) -> bool {
        let ready = facts.run.as_ref().is_some_and(|run| run.ready && run.goes_on());
        facts.stand_in().is_some() || facts.out && facts.up && !ready && !facts.completed
    }

    /// Who served and was taken down for another run in this turn: that could begin, or waits only for
    /// what goes down itself, and for that it goes down first.
    pub(super) fn all_could_begin(&self) -> Verdict {
        // What was due at the same time comes one after the other.
        let one = !matches!(self.cause, Cause::Timeout);
        for id in self.taken.iter().filter(|_| one) {
            let Some(spec) = self.config.processes.get(&id.process) else { continue };
            for edge in &spec.depends_on {
                let leaves = |facts: &Facts| {
                    facts.view.state == State::Stopping || facts.view.sub_state == "held"
                };
                let leaves = self.instances_of(&edge.on).any(|(_, facts)| leaves(facts));
                let could = self.is_met(edge) || leaves;
                hold!(could, "{id} is taken down for a run that would wait for {}", edge.on);
            }
        }
        Ok(())
    }

    /// One that was ready is ended for its turn: not more of its process are out than may be.
    pub(super) fn take_turn(&mut self, id: &InstanceId) -> Verdict {
        let spec = self.config.processes.get(&id.process);
        let limit = spec.map_or(0, |spec| spec.max_unavailable.get());
        let limit = limit.max(self.slack.get(&id.process).copied().unwrap_or(0));
        let others = self.instances_of(&id.process).filter(|(other, _)| *other != id);
        let out = others.filter(|(_, facts)| Model::is_out(facts)).count();
        hold!(out < limit as usize, "{id} is taken down, and {out} of {limit} are out");
        if let Some(facts) = self.instances.get_mut(id) {
            facts.out = true;
        }
        Ok(())
    }

    /// Nobody owes anything to a limit that was higher before, once all that had their turns are back.
    pub(super) fn forget_slack(&mut self) {
        let instances = &self.instances;
        self.slack.retain(|process, _| {
            let mut all = instances.range(process.instance(0)..=process.instance(u32::MAX));
            all.any(|(_, facts)| facts.out || facts.view.sub_state == "held")
        });
    }
}
