//! What processes have in common, and have once.

use crate::limits::Limits;
use crate::spec::{Command, ExecSpec, ProcessSpec, RestartPolicy, Text};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// A part of a spec that many processes have alike. Whoever changes it gets one of its own.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Shared<T>(Arc<T>);

impl<T> From<T> for Shared<T> {
    fn from(value: T) -> Shared<T> {
        Shared(Arc::new(value))
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Clone> DerefMut for Shared<T> {
    fn deref_mut(&mut self) -> &mut T {
        Arc::make_mut(&mut self.0)
    }
}

impl<T: PartialEq> PartialEq for Shared<T> {
    fn eq(&self, other: &Shared<T>) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
    }
}

impl<T: fmt::Debug> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Takes what is the same from another one.
fn share<T: Clone + PartialEq>(own: &mut T, other: &T) {
    if own == other {
        *own = other.clone();
    }
}

impl ProcessSpec {
    /// Takes what is the same from another process, but for what few processes have at all: then it is
    /// there once. Processes next to each other in a file are often alike.
    pub fn share(&mut self, other: &ProcessSpec) {
        share::<Shared<RestartPolicy>>(&mut self.restart, &other.restart);
        share::<Shared<Limits>>(&mut self.limits, &other.limits);
        let ExecSpec { command, cwd, user, group, env, sockets, unit, .. } = &mut self.exec;
        let other = &other.exec;
        cwd.share(&other.cwd);
        share(user, &other.user);
        share(group, &other.group);
        if env.values().zip(other.env.values()).all(|(own, other)| own.0.is_shown_as(&other.0)) {
            share(env, &other.env);
        }
        share(sockets, &other.sockets);
        share(unit, &other.unit);
        if let (
            Command::Program { program, args },
            Command::Program { program: other, args: others },
        ) = (command, &other.command)
        {
            program.share(other);
            if args.iter().zip(others.iter()).all(|(own, other)| own.is_shown_as(other)) {
                share(args, others);
            }
            // None: they are the other's already, or an alias of the file.
            for (own, other) in Arc::get_mut(args).into_iter().flatten().zip(others.iter()) {
                own.share(other);
            }
        }
    }
}

impl Text {
    /// Takes the text from another one, where that says the same and is shown the same.
    fn share(&mut self, other: &Text) {
        if self.is_shown_as(other) {
            share(self, other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ProcessId;

    fn spec(id: &str, number: &str) -> ProcessSpec {
        let args = Arc::from([Text::new("-p"), Text::new(number)]);
        let command = Command::Program { program: Text::new("node"), args };
        ProcessSpec::new(ProcessId::new(id).unwrap(), command)
    }

    #[test]
    fn what_is_the_same_is_there_once_and_can_still_be_changed() {
        let one = spec("a", "1");
        let (mut two, before) = (spec("b", "2"), spec("b", "2"));
        two.share(&one);
        assert_eq!(two, before);
        assert!(Arc::ptr_eq(&two.restart.0, &one.restart.0));
        assert!(Arc::ptr_eq(&two.exec.env, &one.exec.env));
        two.restart.factor = 3.0;
        assert_eq!((one.restart.factor, two.restart.factor), (2.0, 3.0));
    }

    #[test]
    fn a_text_that_is_shown_in_another_way_is_not_the_same() {
        let (shown, hidden) = (Text::new("hunter2"), Text::hiding("hunter2", "${PASS}"));
        let mut own = hidden.clone();
        own.share(&shown);
        assert_eq!(own.to_string(), "${PASS}");
        own.share(&hidden);
        assert_eq!(own.to_string(), "${PASS}");
    }

    #[test]
    fn what_is_shared_is_written_as_if_it_were_not() {
        let limits = Limits { tasks: Some(7), ..Limits::default() };
        let text = serde_json::to_string(&limits).unwrap();
        let shared: Shared<Limits> = serde_json::from_str(&text).unwrap();
        assert_eq!(*shared, limits);
        assert_eq!(serde_json::to_string(&shared).unwrap(), text);
    }
}
