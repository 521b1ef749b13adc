//! What can go wrong between a front end and the daemon.

/// Why the daemon did not do something, or could not be asked.
///
/// The text of each is for the person at the front end and needs no prefix.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No daemon answers; says where it was looked for and what to do.
    #[error("{0}")]
    NotRunning(String),
    /// A name means no process.
    #[error("{0}")]
    NoSuchProcess(String),
    /// The configuration is not valid; the text shows all that is wrong with it.
    #[error("{0}")]
    ConfigInvalid(String),
    /// The caller may not do this.
    #[error("{0}")]
    Denied(String),
    /// The daemon refused for another reason.
    #[error("{text}")]
    Refused {
        /// The last part of the D-Bus error name, such as `ProcessDisabled`.
        name: String,
        /// In words.
        text: String,
    },
    /// The daemon or the bus went away before the answer.
    #[error("the supervisor went away before it answered")]
    Gone,
    /// The daemon answered with something that this version does not understand.
    #[error("the supervisor sent something this version does not understand: {0}")]
    Protocol(String),
    /// The system said no.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
}
