//! What is on disk and is not to be applied: until it changes, or somebody insists.

use crate::core::ids::Generation;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A content that is held off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldOff {
    /// The digest of the files with this content.
    pub digest: String,
    /// Why.
    pub because: Because,
}

/// Why a content is held off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Because {
    /// It was tried and did not come up.
    Tried {
        /// As this generation.
        generation: Generation,
        /// What did not come up, and why; one sentence each.
        why: Vec<String>,
    },
    /// It was to be confirmed and was not, and could not be taken off the disk.
    Unconfirmed {
        /// As this generation.
        generation: Generation,
        /// Who took it back, or that nobody confirmed it; a sentence.
        why: String,
    },
    /// Somebody went back to another one.
    RolledBack {
        /// To the content of this one.
        to: Generation,
    },
}

/// For people: after "the file on disk ".
impl fmt::Display for HeldOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.because {
            Because::Tried { generation, why } => {
                write!(f, "was tried as {generation} and did not come up")?;
                if !why.is_empty() {
                    write!(f, ": {}", why.join("; "))?;
                }
                Ok(())
            }
            Because::Unconfirmed { generation, why } => {
                write!(f, "was tried as {generation}: {why}")
            }
            Because::RolledBack { to } => write!(f, "is held off since the rollback to {to}"),
        }
    }
}
