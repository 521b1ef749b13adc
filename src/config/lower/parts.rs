//! The parts of a process that are mappings of their own.

use super::File;
use super::at::At;
use super::environment::Variables;
use super::fields::{Field, Fields};
use crate::config::diagnostic::{Place, shown};
use crate::config::keys::{DEPENDENCY, HEALTH, RESTART, STOP};
use crate::config::yaml::Kind;
use crate::core::ids::ProcessId;
use crate::core::spec::{
    Check, Condition, Dependency, HealthCheck, OnFailure, RestartCondition, RestartPolicy, StopSpec,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

impl<'s> File<'_, 's> {
    fn set_duration(&mut self, fields: &Fields<'_, 's>, name: &str, target: &mut Duration) {
        if let Some(value) = fields.get(name).and_then(|field| self.duration(field)) {
            *target = value;
        }
    }

    fn set_count(&mut self, fields: &Fields<'_, 's>, name: &str, target: &mut u32) {
        let value = fields.get(name).and_then(|field| self.integer(field));
        if let Some(value) = value.and_then(|value| u32::try_from(value).ok()) {
            *target = value;
        }
    }

    /// The restart policy, and whether its condition was readable.
    pub(super) fn restart_policy(&mut self, fields: &Fields<'_, 's>) -> (RestartPolicy, bool) {
        let mut policy = RestartPolicy {
            max_attempts: self.whole.settings.max_attempts,
            ..RestartPolicy::default()
        };
        let Some(field) = fields.get("restartPolicy") else { return (policy, true) };
        let Some(fields) = self.fields(&field.value, &RESTART, "`restartPolicy`") else {
            return (policy, false);
        };
        let mut sure = true;
        if let Some(field) = fields.get("condition") {
            match self.word(field) {
                Some("on-failure") => policy.condition = RestartCondition::OnFailure,
                Some("unless-stopped") => policy.condition = RestartCondition::UnlessStopped,
                Some("no") => policy.condition = RestartCondition::No,
                Some(_) => policy.condition = RestartCondition::Always,
                None => sure = false,
            }
        }
        self.set_duration(&fields, "delay", &mut policy.delay);
        match fields.get("maxDelay") {
            Some(_) => self.set_duration(&fields, "maxDelay", &mut policy.max_delay),
            // A first delay above the default ceiling is the ceiling.
            None => policy.max_delay = policy.max_delay.max(policy.delay),
        }
        if let Some(field) = fields.get("maxDelay").filter(|_| policy.max_delay < policy.delay) {
            let message = "`restartPolicy.maxDelay` is less than `restartPolicy.delay`";
            self.add(self.problem("out-of-range", &field.value, message));
        }
        if let Some(number) = fields.get("factor").and_then(|field| self.number(field)) {
            policy.factor = number;
        }
        if let Some(number) = fields.get("jitter").and_then(|field| self.number(field)) {
            policy.jitter = number;
        }
        self.set_duration(&fields, "minUptime", &mut policy.min_uptime);
        if fields.is_null("maxAttempts") {
            policy.max_attempts = None;
        } else if let Some(field) = fields.get("maxAttempts") {
            policy.max_attempts = self.integer(field).and_then(|n| u32::try_from(n).ok());
        }
        if let Some(codes) = fields.get("successExitCodes").and_then(|field| self.integers(field)) {
            policy.success_exit_codes =
                codes.into_iter().filter_map(|code| u8::try_from(code).ok()).collect();
        }
        (policy, sure)
    }

    /// The check, unless there is none, and whether that could be told.
    pub(super) fn health_check(
        &mut self,
        fields: &Fields<'_, 's>,
        variables: &Variables,
        instances: u32,
    ) -> (Option<HealthCheck>, bool) {
        let Some(whole) = fields.get("healthCheck") else { return (None, true) };
        let Some(fields) = self.fields(&whole.value, &HEALTH, "`healthCheck`") else {
            return (None, false);
        };
        let enabled = match fields.get("enabled") {
            Some(field) => self.boolean(field),
            None => Some(true),
        };
        let check = self.check(whole, &fields, variables, instances, enabled);
        // Without a check the schedule is read all the same: it may be wrong too.
        let readable = check.is_some();
        let mut health = HealthCheck::new(check.unwrap_or(Check::Exec(Arc::default())));
        health.interval = self.whole.settings.interval.unwrap_or(health.interval);
        self.set_duration(&fields, "interval", &mut health.interval);
        if health.check == Check::Notify {
            // The interval is all the patience there is, unless the file says otherwise.
            health.failure_threshold = 1;
            if let Some(field) = fields.get("timeout") {
                let message = "`healthCheck.timeout` is about a check that asks, and none does";
                let problem = self.problem("timeout-with-notify", &field.key, message);
                self.add(problem.help("remove it; `interval` is the longest silence"));
            }
        }
        self.set_duration(&fields, "timeout", &mut health.timeout);
        self.set_duration(&fields, "startPeriod", &mut health.start_period);
        self.set_count(&fields, "failureThreshold", &mut health.failure_threshold);
        self.set_count(&fields, "successThreshold", &mut health.success_threshold);
        health.on_failure = match fields.get("onFailure").and_then(|field| self.word(field)) {
            Some("none") => OnFailure::None,
            Some("stop") => OnFailure::Stop,
            _ => OnFailure::Restart,
        };
        match enabled {
            Some(true) if readable => (Some(health), true),
            Some(false) => (None, true),
            _ => (None, false),
        }
    }

    /// The one of `url`, `tcp`, `exec` and `notify` that is there.
    fn check(
        &mut self,
        whole: &Field<'_, 's>,
        fields: &Fields<'_, 's>,
        variables: &Variables,
        instances: u32,
        enabled: Option<bool>,
    ) -> Option<Check> {
        let said = fields.get("notify");
        let speaks = said.map(|field| self.boolean(field));
        let notify = said.filter(|_| speaks == Some(Some(true)));
        let asked = ["url", "tcp", "exec"].iter().filter_map(|name| fields.get(name));
        let mut ways: Vec<_> = asked.chain(notify).collect();
        ways.sort_by_key(|way| way.key.span());
        match ways[..] {
            [] => {
                // What cannot be read is said already.
                if enabled != Some(false) && speaks != Some(None) {
                    let message = "`healthCheck` does not say what is checked";
                    let problem = self.problem("no-check", &whole.key, message);
                    self.add(problem.help(
                        "add `url`, `tcp`, `exec` or `notify: true`, or write `enabled: false`",
                    ));
                }
                None
            }
            [field] => match field.known.name {
                "url" => self.url(field, variables, instances),
                "tcp" => self.tcp(field, variables, instances),
                "notify" => Some(Check::Notify),
                _ => self.argv(field, variables).map(Check::Exec),
            },
            [first, second, ..] => {
                let message =
                    format!("`{}` and `{}` cannot stand together", first.name, second.name);
                let other = self.place(first.key.span());
                let problem = self.problem("two-checks", &second.key, message);
                self.add(problem.related(other, "the other one").help("remove one of them"));
                None
            }
        }
    }

    fn url(
        &mut self,
        field: &Field<'_, 's>,
        variables: &Variables,
        instances: u32,
    ) -> Option<Check> {
        self.text(field)?;
        let text = self.filled(&field.value, &field.name, variables)?;
        for index in [0, instances - 1] {
            let url = text.render(index);
            if url.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://")) {
                self.unavailable(&field.value, "an `https:` URL in `healthCheck.url`");
                return None;
            }
            if let Err((code, message)) = good_url(&url) {
                let problem = self.problem(code, &field.value, message);
                self.add(problem.help("for example `http://localhost:3000/health`"));
                return None;
            }
        }
        Some(Check::Http(text))
    }

    fn tcp(
        &mut self,
        field: &Field<'_, 's>,
        variables: &Variables,
        instances: u32,
    ) -> Option<Check> {
        self.text(field)?;
        let text = self.filled(&field.value, &field.name, variables)?;
        for index in [0, instances - 1] {
            if let Err((code, message)) = good_address(&text.render(index)) {
                let problem = self.problem(code, &field.value, message);
                self.add(problem.help("for example `localhost:5432` or `[::1]:5432`"));
                return None;
            }
        }
        Some(Check::Tcp(text))
    }

    pub(super) fn stop(&mut self, fields: &Fields<'_, 's>) -> StopSpec {
        let mut stop = StopSpec::default();
        let Some(field) = fields.get("stop") else { return stop };
        let Some(fields) = self.fields(&field.value, &STOP, "`stop`") else { return stop };
        if let Some(signal) = fields.get("signal").and_then(|field| self.signal(field)) {
            stop.signal = signal;
        }
        self.set_duration(&fields, "timeout", &mut stop.timeout);
        stop
    }

    /// What it depends on, sorted, with the place of each.
    pub(super) fn dependencies(
        &mut self,
        id: &ProcessId,
        fields: &Fields<'_, 's>,
    ) -> Vec<(Dependency, Place)> {
        let Some(field) = fields.get("dependsOn") else { return Vec::new() };
        let mut edges: BTreeMap<ProcessId, (Dependency, Place)> = BTreeMap::new();
        match &field.value.value().kind {
            Kind::Sequence(items) => {
                for item in items {
                    let item = field.value.child(item);
                    let Some((name, _)) = self.scalar(&item, "an entry of `dependsOn`", "an id")
                    else {
                        continue;
                    };
                    self.edge(id, name, &item, Condition::Ready, false, &mut edges);
                }
            }
            Kind::Mapping { .. } => {
                for entry in self.entries(&field.value, "`dependsOn`").unwrap_or_default() {
                    let (condition, restart) = self.condition(entry.name, &entry.value);
                    self.edge(id, entry.name, &entry.key, condition, restart, &mut edges);
                }
            }
            Kind::Scalar { text, .. } => {
                let message = "`dependsOn` must be a list or a mapping, not a single value";
                let problem = self.problem("wrong-type", &field.value, message);
                self.add(problem.help(format!("write `[{}]`", shown(text))));
            }
            _ => self.wrong_type(&field.value, "`dependsOn`", "a list or a mapping"),
        }
        edges.into_values().collect()
    }

    fn edge(
        &mut self,
        id: &ProcessId,
        name: &str,
        at: &At<'_, 's>,
        condition: Condition,
        restart: bool,
        edges: &mut BTreeMap<ProcessId, (Dependency, Place)>,
    ) {
        let Ok(on) = ProcessId::new(name) else {
            let message = format!("there is no process `{}`", shown(name));
            self.add(self.problem("unknown-dependency", at, message));
            return;
        };
        if on == *id {
            let message = format!("process `{id}` depends on itself");
            self.add(self.problem("self-dependency", at, message));
            return;
        }
        let place = self.place(at.span());
        if let Some((_, first)) = edges.get(&on) {
            let problem = self.problem("duplicate-key", at, format!("`{on}` is given twice"));
            let problem = problem.related(first.clone(), "first given here");
            self.add(problem);
            return;
        }
        edges.insert(on.clone(), (Dependency { on, condition, restart }, place));
    }

    fn condition(&mut self, name: &str, at: &At<'_, 's>) -> (Condition, bool) {
        let name = format!("dependsOn.{}", shown(name));
        match &at.value().kind {
            Kind::Mapping { .. } => {
                let Some(fields) = self.fields(at, &DEPENDENCY, &format!("`{name}`")) else {
                    return (Condition::Ready, false);
                };
                let restart =
                    fields.get("restart").and_then(|field| self.boolean(field)).unwrap_or(false);
                let word = fields.get("condition").and_then(|field| self.word(field));
                (word.map_or(Condition::Ready, condition), restart)
            }
            Kind::Null { .. } => {
                let problem = self.problem("empty-value", at, format!("`{name}` has no condition"));
                self.add(problem.help("it is `started`, `ready`, `healthy` or `completed`"));
                (Condition::Ready, false)
            }
            _ => {
                let Some(known) = DEPENDENCY.key("condition") else {
                    return (Condition::Ready, false);
                };
                let field = Field { known, name, key: at.clone(), value: at.clone() };
                (self.word(&field).map_or(Condition::Ready, condition), false)
            }
        }
    }
}

fn condition(word: &'static str) -> Condition {
    match word {
        "started" => Condition::Started,
        "healthy" => Condition::Healthy,
        "completed" => Condition::Completed,
        _ => Condition::Ready,
    }
}

type Bad = (&'static str, String);

/// What the check can use: `http://host[:port][/path]`.
fn good_url(text: &str) -> Result<(), Bad> {
    let bad = |message: String| Err(("bad-url", message));
    let Some(rest) = text.get(7..).filter(|_| text[..7].eq_ignore_ascii_case("http://")) else {
        return bad("`healthCheck.url` must begin with `http://`".into());
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        return bad("`healthCheck.url` cannot have a user or password".into());
    }
    let port = match authority.rsplit_once(']') {
        Some((_, after)) => after.strip_prefix(':'),
        None => authority.split_once(':').map(|(_, port)| port),
    };
    if let Some(port) = port {
        good_port("healthCheck.url", port)?;
    }
    match text.parse::<hyper::Uri>() {
        Ok(uri) if uri.host().is_some_and(|host| !host.is_empty()) => Ok(()),
        Ok(_) => bad("`healthCheck.url` has no host".into()),
        Err(_) => bad("`healthCheck.url` is no URL".into()),
    }
}

/// `host:port`, an IPv6 address in brackets.
fn good_address(text: &str) -> Result<(), Bad> {
    let bad = || Err(("bad-address", "`healthCheck.tcp` must be `host:port`".to_owned()));
    let Some((host, port)) = text.rsplit_once(':') else { return bad() };
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let good = match inner {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || ":/[]@".contains(c))
        }
    };
    if good { good_port("healthCheck.tcp", port) } else { bad() }
}

fn good_port(name: &str, text: &str) -> Result<(), Bad> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match text.parse::<u16>() {
        Ok(1..) if digits => Ok(()),
        _ => {
            // The value may have come from an environment; the place shows what was written.
            Err(("bad-port", format!("the port in `{name}` must be between 1 and 65535")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let code = |text| good_url(text).map_err(|(code, _)| code);
        for good in [
            "http://localhost:3001/health",
            "http://localhost",
            "HTTP://127.0.0.1:1?x=1",
            "http://[::1]:65535/",
            "http://[::1]/",
        ] {
            assert_eq!(code(good), Ok(()), "{good}");
        }
        for (text, wanted) in [
            ("localhost:3000", "bad-url"),
            ("ftp://x", "bad-url"),
            ("http://", "bad-url"),
            ("http:///x", "bad-url"),
            ("http://a b/", "bad-url"),
            ("http://u:p@h/", "bad-url"),
            ("http://h:0/", "bad-port"),
            ("http://h:65536/", "bad-port"),
            ("http://h:port/", "bad-port"),
            ("http://h:/", "bad-port"),
            ("é://", "bad-url"),
            ("éééééééé", "bad-url"),
        ] {
            assert_eq!(code(text), Err(wanted), "{text}");
        }
    }

    #[test]
    fn addresses() {
        let code = |text| good_address(text).map_err(|(code, _)| code);
        assert_eq!(code("localhost:5432"), Ok(()));
        assert_eq!(code("[::1]:5432"), Ok(()));
        for (text, wanted) in [
            ("5432", "bad-address"),
            (":5432", "bad-address"),
            ("::1:5432", "bad-address"),
            ("http://x:1", "bad-address"),
            ("[x]:1", "bad-address"),
            ("x:99999", "bad-port"),
            ("x:+1", "bad-port"),
            ("x:", "bad-port"),
        ] {
            assert_eq!(code(text), Err(wanted), "{text}");
        }
    }
}
