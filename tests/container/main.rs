//! The daemon as the first process of a container: of a pid namespace of its own, with what such a
//! place gives it and what it does not.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;
mod container;
mod example;
mod first;
mod places;
mod reexec;
#[allow(dead_code)]
#[path = "../daemon/support.rs"]
mod support;
