//! The configuration: from files to a validated [`crate::core::spec::Config`] or to all that is
//! wrong with them.
//!
//! | module | owns |
//! |---|---|
//! | [`load`] | which files there are; each read once; the whole from them |
//! | [`known`] | what is remembered, so that the next one is read only where it differs |
//! | `read` | one file: its limits, and what is no file |
//! | `yaml` | text to a tree whose nodes know their bytes |
//! | [`keys`] | the one table of keys |
//! | `lower` | tree to spec, or everything that is wrong with it |
//! | `env_file`, `interpolate` | environment files; `${NAME}` |
//! | [`check`] | what can be told of the machine before a process is started |
//! | [`able`] | what of it has no effect, whatever runs the processes |
//! | [`environment`] | what every process has in its environment |
//! | [`diagnostic`], [`render`], `mask` | what is wrong, and how it is shown without secrets |
//! | [`difference`] | what differs between the files of two configurations |
//! | [`edit`] | edits in place |
//! | [`watch`] | when to read again |
//! | [`schema`] | the JSON schema |

pub mod able;
pub mod check;
pub mod diagnostic;
pub mod difference;
pub mod edit;
mod env_file;
pub mod environment;
mod interpolate;
pub mod keys;
pub mod known;
pub mod load;
mod lower;
mod mask;
mod read;
pub mod render;
pub mod schema;
mod suggest;
mod text;
pub mod watch;
mod yaml;

pub(crate) use read::LARGEST;
