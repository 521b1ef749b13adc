//! The real `provost`, as a person or a script uses it.

mod offline;
mod quickstart;
mod reloading;
mod support;
mod verbs;
mod watching;
