//! The own log.

pub mod stream;
