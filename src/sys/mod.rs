//! The kernel: every unsafe block of the daemon, behind functions that are safe to call, and what
//! several parts read of `/proc`.
//!
//! What `rustix` and `nix` offer is used from there; here is what they do not have.

pub mod arrival;
pub mod children;
pub mod clone;
pub mod controllers;
pub mod datagram;
pub mod exec;
pub mod lease;
pub mod listen;
pub mod memory;
pub mod mounts;
pub mod pidfd;
pub mod reap;
pub mod setup;
pub mod sigchld;
pub mod signal;
pub mod stat;
pub mod thread;
pub mod user;

mod child;
mod kernel;

/// A number that hardly comes twice. Nothing secret may depend on it.
#[must_use]
pub fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish()
}
