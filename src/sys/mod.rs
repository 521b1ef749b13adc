//! Every unsafe block of the daemon, behind functions that are safe to call.
//!
//! What `rustix` and `nix` offer is used from there; here is what they do not have.

pub mod children;
pub mod clone;
pub mod listen;
pub mod memory;
pub mod mounts;
pub mod pidfd;
pub mod reap;
pub mod signal;
pub mod user;

#[path = "../shim/kernel.rs"]
mod kernel;
