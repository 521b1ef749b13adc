//! The configuration: from files to a validated [`crate::core::spec::Config`] or to all that is
//! wrong with them.

pub mod diagnostic;
pub mod edit;
pub mod environment;
pub mod load;
pub mod schema;
pub mod watch;
