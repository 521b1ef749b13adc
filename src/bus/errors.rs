//! What a caller is told when something was not done. Always a D-Bus error, never a code in a reply.

use crate::core::event::Refusal;
use crate::driver::handle::DriverError;
use zbus::message::{Header, Message};
use zbus::names::ErrorName;
use zbus::{DBusError, fdo};

/// Errors of our own; the text is for the person who asked.
#[derive(Debug, zbus::DBusError)]
#[zbus(prefix = "org.provost.Provost1.Error")]
pub enum Named {
    /// A name means no process.
    NoSuchProcess(String),
    /// There is no such job.
    NoSuchJob(String),
    /// The configuration is not valid; the text shows all that is wrong.
    ConfigInvalid(String),
    /// Another generation is active than the caller expected.
    GenerationMismatch(String),
    /// What the files say was tried and did not come up, or is held off since a rollback.
    ConfigHeldOff(String),
    /// The file does not allow it to run.
    ProcessDisabled(String),
    /// It has no run.
    NotRunning(String),
    /// Its run is not ready yet.
    NotReady(String),
    /// The file does not say how it takes new settings.
    NoReload(String),
    /// The backend cannot do this.
    NotSupportedByBackend(String),
    /// The supervisor is ending.
    ShuttingDown(String),
    /// The file cannot be changed in place.
    ConfigEditRefused(String),
    /// Something waits to be confirmed first.
    CheckpointPending(String),
    /// What somebody means does not wait to be confirmed.
    NoSuchCheckpoint(String),
    /// A generation is not kept, or never was.
    NoSuchGeneration(String),
    /// What is kept of a generation is not as it was written.
    GenerationUnusable(String),
    /// The log is in the journal; the text is the command that shows it.
    LogInJournal(String),
}

/// An error of our own or one of the standard ones.
#[derive(Debug)]
pub enum Error {
    /// `org.provost.Provost1.Error.*`
    Named(Named),
    /// `org.freedesktop.DBus.Error.*`
    Standard(fdo::Error),
}

/// What a method comes to.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An argument that makes no sense; says which and why.
    pub fn invalid(text: impl Into<String>) -> Error {
        Error::Standard(fdo::Error::InvalidArgs(text.into()))
    }

    /// The caller may not do this.
    pub fn denied(text: impl Into<String>) -> Error {
        Error::Standard(fdo::Error::AccessDenied(text.into()))
    }

    /// Something failed on the way.
    pub fn failed(text: impl Into<String>) -> Error {
        Error::Standard(fdo::Error::Failed(text.into()))
    }

    /// The subject of an object is gone.
    pub fn no_process(name: &str) -> Error {
        Named::NoSuchProcess(format!("there is no process {name:?}")).into()
    }
}

impl From<Named> for Error {
    fn from(error: Named) -> Error {
        Error::Named(error)
    }
}

impl From<fdo::Error> for Error {
    fn from(error: fdo::Error) -> Error {
        Error::Standard(error)
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Error {
        let text = refusal.to_string();
        Error::Named(match refusal {
            Refusal::NoSuchProcess(_) => Named::NoSuchProcess(text),
            Refusal::Disabled(_) | Refusal::ManagementDisabled => Named::ProcessDisabled(text),
            Refusal::NotRunning(_) => Named::NotRunning(text),
            Refusal::NotReady(_) => Named::NotReady(text),
            Refusal::NoReload(_) => Named::NoReload(text),
            Refusal::ShuttingDown => Named::ShuttingDown(text),
        })
    }
}

impl From<DriverError> for Error {
    fn from(error: DriverError) -> Error {
        let text = error.to_string();
        match error {
            DriverError::Refused(refusal) => refusal.into(),
            DriverError::Invalid { rendered, .. } => Named::ConfigInvalid(rendered).into(),
            DriverError::GenerationMismatch { .. } => Named::GenerationMismatch(text).into(),
            DriverError::HeldOff(_) => Named::ConfigHeldOff(text).into(),
            DriverError::EditRefused(_) => Named::ConfigEditRefused(text).into(),
            DriverError::CheckpointPending(_) => Named::CheckpointPending(text).into(),
            DriverError::NoSuchCheckpoint(_) => Named::NoSuchCheckpoint(text).into(),
            DriverError::NoSuchGeneration(_) => Named::NoSuchGeneration(text).into(),
            DriverError::GenerationUnusable(_) => Named::GenerationUnusable(text).into(),
            DriverError::NotAvailable(_) => Named::NotSupportedByBackend(text).into(),
            DriverError::Gone => Named::ShuttingDown(text).into(),
        }
    }
}

impl DBusError for Error {
    fn create_reply(&self, call: &Header<'_>) -> zbus::Result<Message> {
        match self {
            Error::Named(error) => error.create_reply(call),
            Error::Standard(error) => error.create_reply(call),
        }
    }

    fn name(&self) -> ErrorName<'_> {
        match self {
            Error::Named(error) => error.name(),
            Error::Standard(error) => error.name(),
        }
    }

    fn description(&self) -> Option<&str> {
        match self {
            Error::Named(error) => error.description(),
            Error::Standard(error) => error.description(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::ids::InstanceId;
    use std::sync::Arc;

    #[test]
    fn errors_have_the_names_of_the_interface() {
        let api = InstanceId::parse("api").unwrap();
        let refused = DriverError::Refused;
        for (error, name) in [
            (refused(Refusal::NoSuchProcess("x".into())), "NoSuchProcess"),
            (refused(Refusal::Disabled(api.clone())), "ProcessDisabled"),
            (refused(Refusal::ManagementDisabled), "ProcessDisabled"),
            (refused(Refusal::NotRunning(api.clone())), "NotRunning"),
            (refused(Refusal::NotReady(api.clone())), "NotReady"),
            (refused(Refusal::NoReload(api)), "NoReload"),
            (refused(Refusal::ShuttingDown), "ShuttingDown"),
            (DriverError::Gone, "ShuttingDown"),
            (DriverError::GenerationMismatch { expected: 1, actual: 2 }, "GenerationMismatch"),
            (DriverError::HeldOff("x".into()), "ConfigHeldOff"),
            (DriverError::EditRefused("x".into()), "ConfigEditRefused"),
            (DriverError::NotAvailable("x".into()), "NotSupportedByBackend"),
            (DriverError::CheckpointPending("x".into()), "CheckpointPending"),
            (DriverError::NoSuchCheckpoint("x".into()), "NoSuchCheckpoint"),
            (DriverError::NoSuchGeneration("x".into()), "NoSuchGeneration"),
            (DriverError::GenerationUnusable("x".into()), "GenerationUnusable"),
        ] {
            let error = Error::from(error);
            assert_eq!(error.name().as_str(), format!("org.provost.Provost1.Error.{name}"));
            assert!(error.description().is_some_and(|text| !text.is_empty()));
        }
        assert_eq!(Error::denied("no").name().as_str(), "org.freedesktop.DBus.Error.AccessDenied");
        assert_eq!(Error::invalid("no").name().as_str(), "org.freedesktop.DBus.Error.InvalidArgs");
    }

    #[test]
    fn an_invalid_configuration_is_shown_as_rendered() {
        let error = Error::from(DriverError::Invalid {
            diagnostics: Arc::from([]),
            rendered: "error: unknown key".into(),
        });
        assert_eq!(error.description(), Some("error: unknown key"));
    }
}
