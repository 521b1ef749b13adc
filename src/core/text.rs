//! The words for people. They are made here, once, so that every interface says the same.

use crate::event::{Blocker, DependencyState, FailReason, RunEnd, StopReason, What};
use crate::reload::{ChangeKind, Plan, ReloadReport, ReloadResult, StepState};
use crate::spec::{Check, Condition, Readiness};
use crate::time::Mono;
use crate::view::{Beside, HealthState, InstanceView, State};
use std::fmt::{self, Display, Write};
use std::time::Duration;

/// A duration exactly, as the file would have it: `1m30s`, `500ms`, `0s`.
#[must_use]
pub fn span(value: Duration) -> String {
    let mut text = String::new();
    let mut seconds = value.as_secs();
    for (unit, length) in [("d", 86_400), ("h", 3_600), ("m", 60)] {
        if seconds >= length {
            let _ = write!(text, "{}{unit}", seconds / length);
            seconds %= length;
        }
    }
    let nanos = value.subsec_nanos();
    if seconds > 0 || (text.is_empty() && nanos == 0) {
        let _ = write!(text, "{seconds}s");
    }
    if nanos.is_multiple_of(1_000_000) {
        if nanos > 0 {
            let _ = write!(text, "{}ms", nanos / 1_000_000);
        }
    } else {
        let _ = write!(text, "{nanos}ns");
    }
    text
}

/// A size as the file has it: `50M`, `1536`.
#[must_use]
pub fn size(bytes: u64) -> String {
    for (unit, factor) in [("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10)] {
        if bytes >= factor && bytes.is_multiple_of(factor) {
            return format!("{}{unit}", bytes / factor);
        }
    }
    bytes.to_string()
}

/// A duration roughly, for a person who reads a sentence: `0.3 s`, `12 s`, `3 min`, `2.5 h`.
#[must_use]
pub fn about(value: Duration) -> String {
    let seconds = value.as_secs_f64();
    if seconds < 0.095 {
        format!("{} ms", value.as_millis())
    } else if seconds < 9.95 {
        format!("{seconds:.1} s")
    } else if seconds < 119.5 {
        format!("{seconds:.0} s")
    } else if seconds < 5_400.0 {
        format!("{:.0} min", seconds / 60.0)
    } else if seconds < 172_800.0 {
        format!("{:.1} h", seconds / 3_600.0)
    } else {
        format!("{:.0} days", seconds / 86_400.0)
    }
}

/// Whether a text matches a pattern, in which `*` stands for any run of characters and `?` for one.
#[must_use]
pub fn fits(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                retry = Some((p, t));
                p += 1;
            }
            Some(c) if *c == b'?' || *c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match retry {
                Some((star, from)) => {
                    p = star + 1;
                    t = from + 1;
                    retry = Some((star, t));
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

impl Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Condition::Started => "started",
            Condition::Ready => "ready",
            Condition::Healthy => "healthy",
            Condition::Completed => "completed",
        })
    }
}

impl Display for DependencyState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DependencyState::Disabled => "disabled",
            DependencyState::Stopped => "stopped",
            DependencyState::Failed => "failed",
            DependencyState::Waiting => "waiting itself",
            DependencyState::Stuck => "waiting itself for something that is down",
            DependencyState::Delayed => "waiting itself for something that fails",
            DependencyState::Starting => "starting",
            DependencyState::Stopping => "stopping",
            DependencyState::Restarting => "failing and tried again",
            DependencyState::NotHealthy => "not healthy",
            DependencyState::NotCompleted => "not completed",
            DependencyState::Over => "completed, and so not healthy any more",
        })
    }
}

impl Display for Blocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Blocker::Dependency { on, condition, because } => {
                write!(f, "{on} to be {condition}: it is {because}")
            }
            Blocker::Reload => write!(f, "the reload to stop and change other processes first"),
        }
    }
}

impl Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StopReason::Requested => write!(f, "stopped by an operator"),
            StopReason::Restart => write!(f, "restarted by an operator"),
            StopReason::Disabled => write!(f, "disabled in the file"),
            StopReason::Removed => write!(f, "removed from the file"),
            StopReason::Changed => write!(f, "changed in the file"),
            StopReason::DependencyStopped(on) => write!(f, "its dependency {on} is down"),
            StopReason::DependencyRestarted(on) => write!(f, "its dependency {on} restarts"),
            StopReason::WatchedChanged(path) => write!(f, "{path}, which it watches, changed"),
            StopReason::Unhealthy(detail) => write!(f, "unhealthy: {detail}"),
            StopReason::Outgrown(used) => write!(f, "{}", outgrown(*used)),
            StopReason::StartTimedOut => write!(f, "not ready in time"),
            StopReason::Leftovers => write!(f, "its main process left others behind"),
            StopReason::Shutdown => write!(f, "the supervisor is shutting down"),
        }
    }
}

fn outgrown(used: u64) -> String {
    format!("it uses {} MiB of memory, which is above its maxMemoryRestart", used >> 20)
}

impl Display for RunEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RunEnd::NotSpawned(error) => write!(f, "could not be started: {error}"),
            RunEnd::Exited(status) => write!(f, "{status}"),
            RunEnd::StartTimedOut => write!(f, "was not ready in time"),
            RunEnd::Unhealthy(detail) => write!(f, "was unhealthy: {detail}"),
            RunEnd::Outgrown(used) => write!(f, "was ended: {}", outgrown(*used)),
            RunEnd::Asked(reason) => write!(f, "was ended: {reason}"),
        }
    }
}

impl Display for FailReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FailReason::Policy(end) => write!(f, "it {end}, and its policy is not to restart it"),
            FailReason::Attempts(0, end) => write!(f, "it {end}, and maxAttempts is 0"),
            FailReason::Attempts(1, end) => {
                write!(f, "gave up after 1 restart (maxAttempts); it {end}")
            }
            FailReason::Attempts(limit, end) => {
                write!(f, "gave up after {limit} restarts (maxAttempts); it {end}")
            }
            FailReason::Unhealthy(detail) => {
                write!(f, "its check failed ({detail}), and onFailure is stop")
            }
        }
    }
}

pub(crate) fn joined<T: Display>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl Display for Plan {
    /// One line: what is added, removed, changed, and how many are not touched.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for kind in [ChangeKind::Added, ChangeKind::Removed, ChangeKind::Modified] {
            let names: Vec<&str> = self.of(kind).map(crate::ids::ProcessId::as_str).collect();
            match names.len() {
                0 => {}
                1..=8 => write!(f, "{} {}, ", kind.as_str(), names.join(" "))?,
                n => write!(f, "{} {n} processes, ", kind.as_str())?,
            }
        }
        write!(f, "{} unchanged", self.unchanged.len())
    }
}

impl Display for ReloadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let result = match self.result {
            // Whether it stays is judged later.
            ReloadResult::FailedKept => "did not all come up",
            result => result.as_str(),
        };
        write!(
            f,
            "generation {} {result} in {}: {}",
            self.generation,
            about(self.took),
            self.plan
        )?;
        for step in &self.steps {
            if let StepState::Failed { why, .. } | StepState::Held { why, .. } = &step.state {
                write!(f, "; {}: {why}", step.instance)?;
            }
        }
        Ok(())
    }
}

impl Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            What::Starting { attempt: 0 } => write!(f, "starting"),
            What::Starting { attempt } => write!(f, "starting, restart {attempt}"),
            What::Started { pid } => write!(f, "started as pid {pid}"),
            What::Ready { after } => write!(f, "ready after {}", about(*after)),
            What::SpawnFailed { error, expected: false } => write!(f, "cannot start: {error}"),
            What::SpawnFailed { error, expected: true } => write!(f, "did not start: {error}"),
            What::StartTimedOut { limit, last_check } => {
                write!(f, "not ready within {}", span(*limit))?;
                match last_check {
                    Some(detail) => write!(f, "; its last check said: {detail}"),
                    None => Ok(()),
                }
            }
            What::Exited { status, expected: true } => write!(f, "{status}, as asked"),
            What::Exited { status, expected: false } => write!(f, "{status}"),
            What::Stopping { why } => write!(f, "stopping: {why}"),
            What::Killing { limit } => {
                write!(f, "still there {} after it was asked to end; killing it", span(*limit))
            }
            What::Stopped => write!(f, "stopped; nothing of it is left"),
            What::BackingOff { delay, attempt } => {
                write!(f, "will be started again in {} (restart {attempt})", about(*delay))
            }
            What::GaveUp { why } => write!(f, "failed: {why}"),
            What::Completed => write!(f, "completed"),
            What::CheckFailed { detail, failures, threshold } => {
                write!(f, "check failed ({failures} of {threshold}): {detail}")
            }
            What::Reloading { signal: Some(signal) } => {
                write!(f, "told to take its settings anew ({signal})")
            }
            What::Reloading { signal: None } => write!(f, "taking its settings anew"),
            What::Reloaded => write!(f, "has taken its settings anew"),
            What::ReloadFailed { detail } => {
                write!(f, "could not take its settings anew: the command of `reload` {detail}")
            }
            What::WatchedChanged { path } => write!(f, "{path}, which it watches, changed"),
            What::Healthy => write!(f, "healthy"),
            What::Unhealthy { detail } => write!(f, "unhealthy: {detail}"),
            What::Waiting { on } => write!(f, "waiting for {}", joined(on)),
            What::KeepsRun { why } => write!(f, "keeps its run for now: {why}"),
            What::Overlaps { why } => write!(f, "{why}; it goes on until its new run is ready"),
            What::FellBack { end } => {
                write!(f, "the run before goes on: the new one {end}")
            }
            What::TakenBack => write!(f, "the run before goes on: no new one is wanted any more"),
            What::ReloadStarted { generation, plan } => {
                write!(f, "applying generation {generation}: {plan}")
            }
            What::ReloadFinished(report) => write!(f, "{report}"),
            What::TookOver { kept, lost: 0 } => {
                write!(f, "took over from another supervisor: {kept} kept running")
            }
            What::TookOver { kept, lost } => write!(
                f,
                "took over from another supervisor: {kept} kept running, {lost} ended meanwhile"
            ),
            What::Kept { pid } => write!(f, "kept running as pid {pid} by a new supervisor"),
            What::ShuttingDown => write!(f, "shutting down"),
            What::StillThere => write!(
                f,
                "still there after SIGKILL; the kernel may hold it in an uninterruptible wait"
            ),
        }
    }
}

impl InstanceView {
    fn speaks_of_its_health(&self) -> bool {
        self.spec.health.as_ref().is_some_and(|health| health.check == Check::Notify)
    }

    /// What there is to say of one that runs: of its other run, or of the one it should have.
    fn reason_for_two(&self) -> String {
        match (&self.beside, &self.refused) {
            (Some(Beside::New(_)), _) if self.blockers.is_empty() => {
                "its new run is not ready yet".into()
            }
            (Some(Beside::New(_)), _) => {
                format!("its new run waits for {}", joined(&self.blockers))
            }
            (Some(Beside::Former(_)), _) => "the run before it is ending".into(),
            (None, Some(end)) => format!("its new run {end}; the one before goes on"),
            (None, None) if !self.blockers.is_empty() => {
                format!("it goes on: a new run would wait for {}", joined(&self.blockers))
            }
            (None, None) if self.needs_restart => "its spec changed; its restart is due".into(),
            (None, None) => String::new(),
        }
    }

    /// Why it is not up and healthy, as one sentence; empty when it is, and when it is down because
    /// nobody wants it otherwise and there is nothing to say.
    #[must_use]
    pub fn reason(&self, now: Mono) -> String {
        match self.state {
            State::Running => match (self.health, &self.health_detail) {
                (HealthState::Unhealthy, Some(detail)) => format!("its check fails: {detail}"),
                _ => self.reason_for_two(),
            },
            State::Starting => match &self.health_detail {
                Some(detail) => format!("not ready yet; its check says: {detail}"),
                None => match self.sub_state {
                    "checking" if self.spec.readiness == Readiness::Notify => match &self.status {
                        Some(status) => format!("not ready yet; it says: {status}"),
                        None => "it has not said that it is ready (READY=1)".to_owned(),
                    },
                    "checking" if self.speaks_of_its_health() => {
                        "it has not said that it is alive (WATCHDOG=1)".to_owned()
                    }
                    "checking" => "its check has not answered yet".to_owned(),
                    "held" => "it is to be ended once what depends on it is down".to_owned(),
                    _ => "its command is being executed".to_owned(),
                },
            },
            State::Waiting => format!("waits for {}", joined(&self.blockers)),
            State::Stopping => {
                let why = self.history.iter().rev().find_map(|note| match &note.what {
                    // That of an earlier run is no reason.
                    What::Stopping { why } if note.run == self.run => Some(why),
                    _ => None,
                });
                let why = why.unwrap_or(&StopReason::Leftovers);
                format!("{why}; {}", self.sub_state)
            }
            State::Backoff => {
                let wait = self.next_start.map_or(Duration::ZERO, |at| at.since(now));
                let end = self.end_text();
                format!("{end}; next start in {} (restart {})", about(wait), self.attempt)
            }
            State::Completed => String::new(),
            State::Failed => match self.history.iter().rev().find_map(|note| match &note.what {
                What::GaveUp { why } => Some(why),
                _ => None,
            }) {
                Some(why) => why.to_string(),
                None => self.end_text(),
            },
            State::Down if !self.enabled && self.spec.enabled => {
                "processManagement.enabled is false: no process may run".to_owned()
            }
            State::Down if !self.enabled => "disabled in the file".to_owned(),
            State::Down if !self.wanted && self.last_end.is_none() => {
                "not started: it waits for `provost start`".to_owned()
            }
            State::Down => match &self.last_end {
                // For these it was to come back: that it did not is somebody's word.
                Some(RunEnd::Asked(
                    StopReason::Restart
                    | StopReason::Changed
                    | StopReason::DependencyRestarted(_)
                    | StopReason::WatchedChanged(_),
                )) if !self.wanted => StopReason::Requested.to_string(),
                Some(RunEnd::Asked(reason)) => reason.to_string(),
                _ if !self.wanted => StopReason::Requested.to_string(),
                // Wanted and enabled, and still down: nothing else is left.
                _ => StopReason::Shutdown.to_string(),
            },
        }
    }

    fn end_text(&self) -> String {
        match &self.last_end {
            Some(end @ RunEnd::StartTimedOut) => {
                let last_check = self.history.iter().rev().find_map(|note| match &note.what {
                    What::StartTimedOut { last_check, .. } => Some(last_check),
                    _ => None,
                });
                match last_check.and_then(Option::as_ref) {
                    Some(detail) => format!("it {end}; its last check said: {detail}"),
                    None if self.spec.readiness == Readiness::Notify => {
                        format!("it {end}: it did not say READY=1")
                    }
                    None => format!("it {end}"),
                }
            }
            Some(end) => format!("it {end}"),
            None => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_exact() {
        for (millis, text) in [
            (0, "0s"),
            (1, "1ms"),
            (1_500, "1s500ms"),
            (90_000, "1m30s"),
            (3_600_000, "1h"),
            (90_061_007, "1d1h1m1s7ms"),
            (60_250, "1m250ms"),
        ] {
            assert_eq!(span(Duration::from_millis(millis)), text);
        }
        assert_eq!(span(Duration::from_nanos(7)), "7ns");
    }

    #[test]
    fn globs() {
        for (pattern, text, expected) in [
            ("web*", "web-1", true),
            ("*", "", true),
            ("w?b", "web", true),
            ("w?b", "wb", false),
            ("*b*1", "web-11", true),
            ("a*b*c", "abbc", true),
            ("a*b*c", "abbd", false),
            ("web", "web", true),
            ("web", "webs", false),
        ] {
            assert_eq!(fits(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn rough_durations_read_well() {
        for (millis, text) in [
            (3, "3 ms"),
            (94, "94 ms"),
            (95, "0.1 s"),
            (300, "0.3 s"),
            (9_949, "9.9 s"),
            (9_950, "10 s"),
            (12_000, "12 s"),
            (119_499, "119 s"),
            (119_500, "2 min"),
            (180_000, "3 min"),
            (5_399_000, "90 min"),
            (5_400_000, "1.5 h"),
            (9_000_000, "2.5 h"),
            (172_799_000, "48.0 h"),
            (172_800_000, "2 days"),
            (86_400_000 * 3, "3 days"),
        ] {
            assert_eq!(about(Duration::from_millis(millis)), text);
        }
    }
}
