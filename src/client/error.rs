//! What can go wrong between a front end and the daemon.

use zbus::DBusError;

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

impl From<zbus::Error> for ClientError {
    fn from(error: zbus::Error) -> ClientError {
        use zbus::fdo;
        match error {
            zbus::Error::MethodError(name, text, _) => named(&name, text.unwrap_or_default()),
            zbus::Error::FDO(error) => match *error {
                fdo::Error::AccessDenied(text)
                | fdo::Error::InteractiveAuthorizationRequired(text) => ClientError::Denied(text),
                fdo::Error::ServiceUnknown(_)
                | fdo::Error::NameHasNoOwner(_)
                | fdo::Error::NoReply(_)
                | fdo::Error::Disconnected(_) => ClientError::Gone,
                other => {
                    let (name, text) = (other.name(), other.description());
                    named(&name, text.unwrap_or_default().to_owned())
                }
            },
            zbus::Error::InputOutput(_) => ClientError::Gone,
            other => ClientError::Protocol(other.to_string()),
        }
    }
}

/// An error by its name on the bus.
fn named(name: &str, text: String) -> ClientError {
    let short = name.rsplit('.').next().unwrap_or(name);
    match name.strip_prefix("org.provost.Provost1.Error.") {
        Some("NoSuchProcess") => ClientError::NoSuchProcess(text),
        Some("ConfigInvalid") => ClientError::ConfigInvalid(text),
        _ => ClientError::Refused { name: short.to_owned(), text },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_apart_by_name() {
        let refused = named("org.provost.Provost1.Error.ProcessDisabled", "api is disabled".into());
        assert!(matches!(refused, ClientError::Refused { name, .. } if name == "ProcessDisabled"));
        let missing = named("org.provost.Provost1.Error.NoSuchProcess", "x".into());
        assert!(matches!(missing, ClientError::NoSuchProcess(_)));
        let denied = zbus::Error::from(zbus::fdo::Error::AccessDenied("no".into()));
        assert!(matches!(ClientError::from(denied), ClientError::Denied(_)));
    }
}
