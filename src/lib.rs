//! Provost keeps an application's processes running, on systemd, from one file.
//!
//! ARCHITECTURE.md has the table of modules and who may use whom; a test enforces it.

pub mod backend;
pub mod bus;
pub mod cli;
pub mod client;
pub mod config;
pub mod daemon;
pub mod driver;
pub mod journal;
pub mod net;
pub mod notify;
pub mod probe;
pub mod store;
pub mod sys;

pub use provost_core as core;
