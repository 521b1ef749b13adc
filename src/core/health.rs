//! The schedule of checks of one run, and what their results add up to.
//!
//! The first check comes as soon as the command was executed, and until one succeeds they come
//! every second (or every `interval`, if that is shorter): readiness should be noticed when it
//! comes. After that they come every `interval`, counted from the end of one to the start of the
//! next. Of a run that speaks by itself ([`Check::Notify`]) each word is a success, and each
//! `interval` without one a failure.
//!
//! A first success makes a run healthy at once. From then on it takes `failureThreshold` failures
//! in a row to make it unhealthy and `successThreshold` successes in a row to make it healthy
//! again. Before the first success, failures within `startPeriod` do not count.

use crate::spec::{Check, HealthCheck};
use crate::time::Mono;
use crate::view::HealthState;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// How often a run is checked that has never been healthy.
const EAGER: Duration = Duration::from_secs(1);

/// What a result changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turned {
    /// Nothing.
    Nothing,
    /// It is healthy now, and was not.
    Healthy,
    /// It is unhealthy now, and was not.
    Unhealthy,
}

/// The health of one run. Of it, what the checks add up to is kept; counting begins again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Health {
    state: HealthState,
    /// Whether any check of this run has succeeded.
    proven: bool,
    #[serde(skip)]
    successes: u32,
    #[serde(skip)]
    failures: u32,
    #[serde(skip)]
    detail: Option<Arc<str>>,
    #[serde(skip)]
    last: Option<Mono>,
}

impl Health {
    /// Before the first check.
    #[must_use]
    pub fn new(checked: bool) -> Health {
        Health {
            state: if checked { HealthState::Starting } else { HealthState::None },
            proven: false,
            successes: 0,
            failures: 0,
            detail: None,
            last: None,
        }
    }

    /// What the checks add up to.
    #[must_use]
    pub fn state(&self) -> HealthState {
        self.state
    }

    /// As it is kept: see [`crate::snapshot`].
    #[must_use]
    pub fn kept(&self) -> Health {
        let Health { state, proven, .. } = *self;
        Health { state, proven, successes: 0, failures: 0, detail: None, last: None }
    }

    /// What the last failure said.
    #[must_use]
    pub fn detail(&self) -> Option<&Arc<str>> {
        self.detail.as_ref()
    }

    /// When the last result came.
    #[must_use]
    pub fn last_check(&self) -> Option<Mono> {
        self.last
    }

    /// Failures in a row that counted.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Whether another success would change nothing.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.state == HealthState::Healthy && self.failures == 0
    }

    /// How long to wait from a result to the next check.
    #[must_use]
    pub fn pause(&self, check: &HealthCheck) -> Duration {
        // Who speaks by itself was told the interval.
        let is_asked = check.check != Check::Notify;
        if self.proven || !is_asked { check.interval } else { check.interval.min(EAGER) }
    }

    /// Takes in a result that came `age` after the command was executed.
    pub fn take(
        &mut self,
        outcome: Result<(), String>,
        check: &HealthCheck,
        age: Duration,
        now: Mono,
    ) -> Turned {
        self.last = Some(now);
        match outcome {
            Ok(()) => {
                self.failures = 0;
                self.successes = self.successes.saturating_add(1);
                let enough = !self.proven || self.successes >= check.success_threshold;
                self.proven = true;
                if self.state != HealthState::Healthy && enough {
                    self.state = HealthState::Healthy;
                    self.detail = None;
                    return Turned::Healthy;
                }
            }
            Err(detail) => {
                self.detail = Some(Arc::from(detail));
                self.successes = 0;
                if !self.proven && age < check.start_period {
                    return Turned::Nothing;
                }
                self.failures = self.failures.saturating_add(1);
                if self.state != HealthState::Unhealthy && self.failures >= check.failure_threshold
                {
                    self.state = HealthState::Unhealthy;
                    return Turned::Unhealthy;
                }
            }
        }
        Turned::Nothing
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Text;

    fn check() -> HealthCheck {
        HealthCheck {
            success_threshold: 2,
            ..HealthCheck::new(Check::Tcp(Text::new("localhost:1")))
        }
    }

    fn fail(health: &mut Health, age: u64) -> Turned {
        health.take(Err("refused".into()), &check(), Duration::from_secs(age), Mono(age))
    }

    fn ok(health: &mut Health, age: u64) -> Turned {
        health.take(Ok(()), &check(), Duration::from_secs(age), Mono(age))
    }

    #[test]
    fn the_first_success_is_enough() {
        let mut health = Health::new(true);
        assert_eq!(health.state(), HealthState::Starting);
        assert_eq!(ok(&mut health, 0), Turned::Healthy);
        assert_eq!(ok(&mut health, 1), Turned::Nothing);
    }

    #[test]
    fn failures_of_the_start_period_do_not_count() {
        let mut health = Health::new(true);
        for age in 0..10 {
            assert_eq!(fail(&mut health, age), Turned::Nothing);
            assert_eq!(health.failures(), 0);
        }
        assert_eq!(fail(&mut health, 10), Turned::Nothing);
        assert_eq!(fail(&mut health, 11), Turned::Nothing);
        assert_eq!(fail(&mut health, 12), Turned::Unhealthy);
        assert_eq!(fail(&mut health, 13), Turned::Nothing);
        assert_eq!(health.detail().map(|d| &**d), Some("refused"));
    }

    #[test]
    fn the_start_period_ends_with_the_first_success() {
        let mut health = Health::new(true);
        assert_eq!(ok(&mut health, 0), Turned::Healthy);
        assert_eq!(fail(&mut health, 1), Turned::Nothing);
        assert_eq!(fail(&mut health, 2), Turned::Nothing);
        assert_eq!(fail(&mut health, 3), Turned::Unhealthy);
    }

    #[test]
    fn thresholds_count_results_in_a_row() {
        let mut health = Health::new(true);
        ok(&mut health, 0);
        fail(&mut health, 1);
        fail(&mut health, 2);
        ok(&mut health, 3);
        fail(&mut health, 4);
        fail(&mut health, 5);
        assert_eq!(health.state(), HealthState::Healthy);
        assert_eq!(fail(&mut health, 6), Turned::Unhealthy);
        assert_eq!(ok(&mut health, 7), Turned::Nothing);
        fail(&mut health, 8);
        assert_eq!(ok(&mut health, 9), Turned::Nothing);
        assert_eq!(ok(&mut health, 10), Turned::Healthy);
        assert_eq!(health.detail(), None);
    }

    #[test]
    fn it_is_asked_every_second_until_the_first_success() {
        let mut health = Health::new(true);
        assert_eq!(health.pause(&check()), Duration::from_secs(1));
        let quick = HealthCheck { interval: Duration::from_millis(200), ..check() };
        assert_eq!(health.pause(&quick), Duration::from_millis(200));
        ok(&mut health, 0);
        assert_eq!(health.pause(&check()), Duration::from_secs(30));
        fail(&mut health, 1);
        assert_eq!(health.pause(&check()), Duration::from_secs(30));
    }
}
