//! The states of one instance.
