//! The real `provost`, as a person or a script uses it.
#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

#[path = "../common/mod.rs"]
mod common;
mod offline;
mod quickstart;
mod reloading;
mod support;
mod verbs;
mod watching;
