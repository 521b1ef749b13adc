//! The whole: events in, effects out.

use crate::event::{Effect, Event};
use crate::ids::InstanceId;
use crate::reload::Step;
use crate::spec::Config;
use crate::time::Mono;
use crate::view::{InstanceView, Summary};
use std::sync::Arc;

/// The state of everything, see the module documentation.
#[derive(Debug)]
pub struct Machine {}

impl Machine {
    /// An empty machine: no process, generation 0. `seed` is all the chance it has.
    #[must_use]
    pub fn new(seed: u64) -> Machine {
        let _ = seed;
        Machine {}
    }

    /// Takes in one event and appends what is to be done about it.
    pub fn handle(&mut self, event: Event, now: Mono, out: &mut Vec<Effect>) {
        let _ = (event, now, out);
    }

    /// Does what is due. A call when nothing is due does nothing.
    pub fn handle_timeout(&mut self, now: Mono, out: &mut Vec<Effect>) {
        let _ = (now, out);
    }

    /// When [`Machine::handle_timeout`] wants to be called next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Mono> {
        None
    }

    /// The configuration that is wanted.
    #[must_use]
    pub fn config(&self) -> Arc<Config> {
        Arc::default()
    }

    /// All instances, in order.
    pub fn instances(&self) -> impl Iterator<Item = &InstanceId> {
        std::iter::empty()
    }

    /// What there is to know about one instance; None when there is no such instance (any more).
    #[must_use]
    pub fn view(&self, id: &InstanceId) -> Option<InstanceView> {
        let _ = id;
        None
    }

    /// Counts over all.
    #[must_use]
    pub fn summary(&self) -> Summary {
        Summary::default()
    }

    /// The steps of the reload under way.
    #[must_use]
    pub fn reload_steps(&self) -> Option<&[Step]> {
        None
    }

    /// Takes the set of instances whose view may have changed since the last call (those that are
    /// gone included).
    pub fn take_dirty(&mut self) -> std::collections::BTreeSet<InstanceId> {
        std::collections::BTreeSet::new()
    }
}
