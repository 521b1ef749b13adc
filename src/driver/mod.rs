//! The only owner of the machine.

pub mod handle;
