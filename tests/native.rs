//! The native backend and the prober, with real processes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "common/mod.rs"]
mod common;
#[path = "common/sigchld.rs"]
mod sigchld;
#[path = "native/world.rs"]
mod world;

#[path = "native/context.rs"]
mod context;
#[path = "native/helper.rs"]
mod helper;
#[path = "native/life.rs"]
mod life;
#[path = "native/logs.rs"]
mod logs;
#[path = "native/measure.rs"]
mod measure;
#[path = "native/output.rs"]
mod output;
#[path = "native/probes.rs"]
mod probes;
#[path = "native/trees.rs"]
mod trees;
