//! What the file asks for and what runs the processes cannot do: limits that nobody enforces, a
//! sandbox without systemd. Warnings, since the processes run all the same.

use super::diagnostic::{Diagnostic, Place};
use super::load::BackendChoice;
use crate::core::ids::ProcessId;
use crate::core::limits::Limit;
use crate::core::spec::{Config, ProcessSpec};
use crate::core::unit::Sandbox;
use crate::sys::controllers;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

/// What runs the processes, and what it can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Able {
    /// Whether each process has a unit of systemd.
    pub has_units: bool,
    /// The limits that are enforced.
    pub limits: BTreeSet<Limit>,
}

impl Able {
    /// What can be said of this machine where no daemon is asked: what is not here at all is nobody's.
    #[must_use]
    pub fn at_most(choice: BackendChoice) -> Able {
        // sd_booted(3).
        let is_systemd = || Path::new("/run/systemd/system").is_dir();
        let has_units = match choice {
            BackendChoice::Native => false,
            BackendChoice::Systemd => true,
            BackendChoice::Auto => is_systemd(),
        };
        Able { has_units, limits: controllers::of_the_machine() }
    }

    /// What of a configuration has no effect. Disabled processes are passed over.
    #[must_use]
    pub fn check(&self, config: &Config, places: &BTreeMap<ProcessId, Place>) -> Vec<Diagnostic> {
        let mut found = Vec::new();
        let asks = |spec: &ProcessSpec| {
            let exec = &spec.exec;
            let limits = spec.limits.given().next().is_some();
            limits || exec.sandbox != Sandbox::None || !exec.unit.is_empty()
        };
        // Most ask for nothing, and where they stand need not be looked up.
        for spec in config.processes.values().filter(|spec| spec.enabled && asks(spec)) {
            let whole = || Place::whole(Arc::default());
            let place = places.get(&spec.id).cloned().unwrap_or_else(whole);
            found.extend(self.limits_of(spec, &place));
            found.extend(self.unit_of(spec, &place));
        }
        found
    }

    fn limits_of(&self, spec: &ProcessSpec, place: &Place) -> Option<Diagnostic> {
        let lacking: Vec<Limit> =
            spec.limits.given().filter(|limit| !self.limits.contains(limit)).collect();
        if lacking.is_empty() {
            return None;
        }
        let keys = lacking.iter().map(|limit| format!("`{}`", limit.full_key()));
        let keys = keys.collect::<Vec<_>>().join(", ");
        let controllers: BTreeSet<&str> = lacking.iter().map(|limit| limit.controller()).collect();
        let controllers = controllers.into_iter().collect::<Vec<_>>().join(", ");
        let message = format!("{}: nothing enforces {keys} here", spec.id);
        let problem = Diagnostic::warning("limit-not-enforced", place.clone(), message);
        Some(problem.help(format!(
            "it takes a control group of version 2 for the process, with the controller {controllers}"
        )))
    }

    fn unit_of(&self, spec: &ProcessSpec, place: &Place) -> Option<Diagnostic> {
        let exec = &spec.exec;
        let asks = exec.sandbox != Sandbox::None || !exec.unit.is_empty();
        if self.has_units || !asks {
            return None;
        }
        let keys = match (exec.sandbox, exec.unit.is_empty()) {
            (Sandbox::None, _) => "`systemd` has",
            (_, true) => "`sandbox` has",
            (_, false) => "`sandbox` and `systemd` have",
        };
        let message = format!("{}: {keys} no effect here", spec.id);
        let problem = Diagnostic::warning("without-systemd", place.clone(), message);
        Some(problem.help("only processes that are units of systemd get them: `backend: systemd`"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::spec::Command;

    fn config(change: impl FnOnce(&mut ProcessSpec)) -> Config {
        let id = ProcessId::new("api").unwrap();
        let mut spec = ProcessSpec::new(id.clone(), Command::Shell("true".into()));
        change(&mut spec);
        Config { processes: [(id, Arc::new(spec))].into(), ..Config::default() }
    }

    fn said(able: &Able, config: &Config) -> Vec<String> {
        let found = able.check(config, &BTreeMap::new());
        found.into_iter().map(|one| format!("{}: {}", one.code, one.message)).collect()
    }

    #[test]
    fn what_is_not_enforced_is_named() {
        let config = config(|spec| {
            spec.limits.memory = Some(1 << 20);
            spec.limits.cpu = Some(500);
        });
        let able =
            |limits: &[Limit]| Able { has_units: true, limits: limits.iter().copied().collect() };
        let none = "limit-not-enforced: api: nothing enforces `limits.memory`, `limits.cpu` here";
        assert_eq!(said(&able(&[]), &config), [none]);
        let one = "limit-not-enforced: api: nothing enforces `limits.cpu` here";
        assert_eq!(said(&able(&[Limit::Memory]), &config), [one]);
        assert!(said(&able(&Limit::ALL), &config).is_empty());
    }

    #[test]
    fn a_sandbox_needs_a_unit() {
        let able = |has_units| Able { has_units, limits: BTreeSet::new() };
        let strict = config(|spec| spec.exec.sandbox = Sandbox::Strict);
        assert_eq!(
            said(&able(false), &strict),
            ["without-systemd: api: `sandbox` has no effect here"]
        );
        assert!(said(&able(true), &strict).is_empty());
        let disabled = config(|spec| {
            spec.exec.sandbox = Sandbox::Strict;
            spec.enabled = false;
        });
        assert!(said(&able(false), &disabled).is_empty());
        assert!(said(&able(false), &config(|_| {})).is_empty());
    }
}
