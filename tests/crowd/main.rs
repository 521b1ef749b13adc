//! Many at once: requests, commands, crashes and clients, against the real daemon.
#![allow(missing_docs, clippy::unwrap_used)]

mod clients;
mod commands;
#[path = "../common/mod.rs"]
mod common;
mod outside;
mod reloads;
mod storms;
#[allow(dead_code)]
#[path = "../daemon/support.rs"]
mod support;
