//! Sentences for people that go over the bus.

use crate::config::diagnostic::Diagnostic;
use crate::core::ids::InstanceId;
use crate::driver::handle::Trigger;

/// How to see a log that is in the journal, where the identifier of a line is the process.
pub fn journal_command(instance: &InstanceId, follow: bool) -> String {
    let follow = if follow { " --follow" } else { "" };
    format!("journalctl --identifier={}{follow}", instance.process)
}

/// A diagnostic without anything of the file but what its message says: everybody may read it.
pub fn diagnostic(diagnostic: &Diagnostic) -> String {
    let place = &diagnostic.place;
    let file = place.file.display();
    let message = &diagnostic.message;
    match place.line {
        0 => format!("{file}: {message}"),
        line => format!("{file}:{line}:{}: {message}", place.column),
    }
}

/// Who caused a reload.
pub fn trigger(trigger: &Trigger) -> String {
    match trigger {
        Trigger::Start => "start".to_owned(),
        Trigger::File => "file".to_owned(),
        Trigger::Signal => "signal".to_owned(),
        Trigger::Caller { uid } => format!("uid {uid}"),
        Trigger::Apply { uid } => format!("apply by uid {uid}"),
        Trigger::Checkpoint { uid } => format!("apply by uid {uid}, to be confirmed"),
        Trigger::Rollback { to, uid: Some(uid) } => format!("rollback to {to} by uid {uid}"),
        Trigger::Rollback { to, uid: None } => format!("rollback to {to}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::diagnostic::{Place, Severity};
    use std::path::PathBuf;
    use std::sync::Arc;

    #[test]
    fn a_diagnostic_has_a_place_that_editors_understand() {
        let place = |line, column| Place {
            file: Arc::new(PathBuf::from("/etc/provost/processes.yaml")),
            line,
            column,
            bytes: 0..0,
        };
        let make = |place| Diagnostic {
            severity: Severity::Error,
            code: "unknown-key",
            message: "unknown key `comand`".into(),
            place,
            help: None,
            related: Vec::new(),
        };
        assert_eq!(
            diagnostic(&make(place(3, 5))),
            "/etc/provost/processes.yaml:3:5: unknown key `comand`"
        );
        assert_eq!(
            diagnostic(&make(place(0, 0))),
            "/etc/provost/processes.yaml: unknown key `comand`"
        );
    }
}
