//! The real `provostd`, with real processes, from the outside.
#![allow(missing_docs, clippy::unwrap_used)]

mod checkpoint;
#[path = "../common/mod.rs"]
mod common;
mod foreground;
mod generations;
mod graph;
mod hostile;
mod idle;
mod killed;
mod logs;
mod manager;
mod measure;
mod namespace;
mod notices;
mod overlapping;
mod plan;
mod promises;
mod reexec;
mod reloading;
mod renewal;
mod rollback;
mod rolling;
mod secrets;
mod seed;
mod stopping;
mod support;
mod survival;
mod survival_faults;
mod telling;
mod watched;
mod watching;
mod watching_files;
mod watching_unseen;
