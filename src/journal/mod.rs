//! The own log.
