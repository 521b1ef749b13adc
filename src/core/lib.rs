//! The core of Provost: what should run, what runs, and what to do about the difference.
//!
//! Everything here is a pure function of what it is told. There is no clock, no randomness of its
//! own, no input and no output: time arrives as [`time::Mono`], chance as a seed, the world as
//! [`event::Event`]s, and the answers leave as [`event::Effect`]s. The same calls give the same
//! answers, which is what makes the random schedules of the tests and the replay of a recorded
//! run possible.
//!
//! | module | owns |
//! |---|---|
//! | [`ids`] | names and numbers: process, instance, run, job, generation |
//! | [`time`] | points in time and the table of armed timers |
//! | [`spec`] | what one process is to be, validated; the whole configuration |
//! | [`shared`] | what processes have in common, and have once |
//! | [`limits`] | what a run may use |
//! | [`unit`] | sandboxes, and properties of units: which there are, and what their values mean |
//! | [`template`] | texts with `${INSTANCE}` and with values that are not shown |
//! | [`fields`] | the one table of keys: what a change of each causes |
//! | [`graph`] | the dependency graph: cycles, orders, reverse edges |
//! | [`process`] | the states of one instance and what each pair (wanted, actual) means |
//! | [`restart`] | whether and when a run is followed by another |
//! | [`health`] | the schedule of checks and what their results add up to |
//! | [`job`] | what was asked for and what came of it |
//! | [`reload`] | the plan of a change, its steps, their record |
//! | [`trial`] | what a new generation has to show before it is good, and what follows when it does not |
//! | [`machine`] | the whole: events in, effects out |
//! | [`event`], [`note`] | what the machine is told and answers; what is worth telling people |
//! | [`snapshot`] | what is kept for a supervisor that was killed |
//! | [`view`] | what others may read |
//! | [`text`] | the words for people, the same in every interface |

#![forbid(unsafe_code)]

pub mod event;
pub mod fields;
pub mod graph;
pub mod health;
pub mod ids;
pub mod job;
pub mod limits;
pub mod machine;
pub mod note;
pub mod process;
pub mod reload;
pub mod restart;
pub mod shared;
mod signal;
pub mod snapshot;
pub mod spec;
pub mod template;
pub mod text;
pub mod time;
pub mod trial;
pub mod unit;
pub mod view;

pub use machine::Machine;
