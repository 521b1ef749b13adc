//! What several test binaries need. Each uses a part of it.
#![allow(dead_code)]

pub mod ledger;
pub mod log_files;
pub mod processes;
pub mod rng;
pub mod waiting;
