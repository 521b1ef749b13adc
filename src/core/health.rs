//! The schedule of checks and what their results add up to.
