//! One scenario for each rule, in simulated time. The invariants of `world` are checked after every
//! turn of each.
#![allow(missing_docs, clippy::unwrap_used, clippy::disallowed_methods)]

#[path = "../world/mod.rs"]
mod world;

mod answers;
mod behind;
mod dependencies;
mod intent;
mod jobs;
mod overlap;
mod plan;
mod readiness;
mod reload;
mod restart;
mod roll;
mod settings;
mod shutdown;
mod size;
mod trial;
mod words;

pub use provost_core::event::{
    Blocker, DependencyState, Event, ExitStatus, Refusal, RunEnd, StopReason, Told, What, Whom,
};
pub use provost_core::ids::Run;
pub use provost_core::job::JobResult;
pub use provost_core::spec::{Condition, OnFailure, Readiness, RestartCondition, Settings};
pub use provost_core::view::{HealthState, State};
pub use world::backend::{Behaviour, Finding, Leftovers, Spawning};
pub use world::dsl::{Process, Scene, id, millis, process, secs};
