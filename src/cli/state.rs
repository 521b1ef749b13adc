//! What a state means to a person, and to the words of systemctl.

use super::screen::{Screen, Style, Tone};
use super::{Outcome, exit::Exit, human};
use crate::client::{Client, Exit as Ended, ProcessStatus};
use std::time::SystemTime;

/// Whether it is as somebody who wants it up would have it: running, healthy where there is a
/// check, or completed.
#[must_use]
pub fn is_up(status: &ProcessStatus) -> bool {
    match status.state.as_str() {
        "completed" => true,
        "running" => !matches!(status.health.as_str(), "unhealthy" | "starting"),
        _ => false,
    }
}

/// Whether it should be up, by the file and by the operator.
#[must_use]
pub fn is_wanted(status: &ProcessStatus) -> bool {
    status.enabled && status.desired == "up"
}

/// The tone of a state, and a symbol for it, so that colour is never the only sign.
fn look(status: &ProcessStatus, unicode: bool) -> (Tone, &'static str) {
    let (tone, symbol, ascii) = match (status.state.as_str(), status.health.as_str()) {
        ("running", "unhealthy") => (Tone::Uneasy, "▲", "!"),
        ("running", "starting") => (Tone::Uneasy, "◐", "~"),
        ("running", _) => (Tone::Good, "●", "+"),
        ("completed", _) => (Tone::Good, "✓", "+"),
        ("starting" | "stopping" | "waiting", _) => (Tone::Uneasy, "◐", "~"),
        ("backoff", _) => (Tone::Uneasy, "↻", "!"),
        ("failed", _) => (Tone::Bad, "✗", "x"),
        ("down", _) => (Tone::Quiet, "○", "-"),
        _ => (Tone::Plain, "?", "?"),
    };
    (tone, if unicode { symbol } else { ascii })
}

/// The state as one word, with a symbol where people look at it, and its tone.
#[must_use]
pub fn word(status: &ProcessStatus, style: Style) -> (String, Tone) {
    let (tone, symbol) = look(status, style.unicode);
    let word =
        if style.terminal { format!("{symbol} {}", status.state) } else { status.state.clone() };
    (word, tone)
}

/// The tone of a health word.
#[must_use]
pub fn health_tone(health: &str) -> Tone {
    match health {
        "healthy" => Tone::Good,
        "unhealthy" => Tone::Bad,
        "starting" => Tone::Uneasy,
        _ => Tone::Quiet,
    }
}

/// How a main process ended, in words: `code 1`, `SIGKILL (core dumped)`.
#[must_use]
pub fn ended(exit: Ended) -> String {
    match exit {
        Ended::Code(code) => format!("code {code}"),
        Ended::Signal { signal, core } => {
            let name = nix::sys::signal::Signal::try_from(signal)
                .map_or_else(|_| format!("signal {signal}"), |signal| signal.as_str().to_owned());
            if core { format!("{name} (core dumped)") } else { name }
        }
    }
}

/// Why it is not as it should be, on one line; empty when it is. The daemon's own sentence where it
/// has one, else what can be told from the rest.
#[must_use]
pub fn why(status: &ProcessStatus) -> String {
    if !status.reason.is_empty() {
        return status.reason.clone();
    }
    let mut parts = Vec::new();
    if !status.waiting_for.is_empty() {
        parts.push(format!("waits for {}", status.waiting_for.join(", ")));
    } else if status.health == "unhealthy" && !status.health_detail.is_empty() {
        parts.push(status.health_detail.clone());
    }
    if let Some(next) = status.next_restart {
        parts.push(format!("next try in {}", human::seconds(next)));
    }
    if status.needs_restart {
        parts.push("its restart is due: the file differs from what runs".to_owned());
    }
    parts.join("; ")
}

/// What it is doing, for somebody who waits for it, without how long.
#[must_use]
pub fn doing(status: &ProcessStatus) -> String {
    match (status.state.as_str(), status.phase.as_str()) {
        ("starting", _) if !status.health_detail.is_empty() => {
            format!("is starting (last check: {})", status.health_detail)
        }
        ("starting", "checking") if status.health != "none" => {
            "is starting (waits for its first good check)".to_owned()
        }
        ("starting", _) if !status.reason.is_empty() => format!("is starting ({})", status.reason),
        ("starting", _) => "is starting".to_owned(),
        ("stopping", "held") => "waits for what depends on it to stop".to_owned(),
        ("stopping", "killing") => "did not stop in time and is being killed".to_owned(),
        ("stopping", _) => "is stopping".to_owned(),
        ("waiting", _) if !status.waiting_for.is_empty() => {
            format!("waits for {}", status.waiting_for.join(", "))
        }
        ("waiting", _) => "waits".to_owned(),
        ("backoff", _) => match why(status) {
            why if why.is_empty() => "waits for its next try".to_owned(),
            why => format!("waits for its next try: {why}"),
        },
        ("running", _) if status.health == "unhealthy" => "is unhealthy".to_owned(),
        (state, _) => format!("is {state}"),
    }
}

/// What a person can do about it, each a command and what it is for. `name` is how it is called.
#[must_use]
pub fn advice(status: &ProcessStatus, name: &str) -> Vec<(String, &'static str)> {
    let mut advice = Vec::new();
    let logs = || (format!("provost logs {name}"), "what it wrote");
    match status.state.as_str() {
        "down" if !status.enabled => {
            advice.push((
                format!("provost enable {}", status.process),
                "have it run from now on (changes the file)",
            ));
            advice.push((format!("provost start --once {name}"), "run it until the next stop"));
        }
        "down" if status.desired != "up" => {
            advice.push((format!("provost start {name}"), "have it run again"));
        }
        "failed" if was_not_executed(status) => {
            advice.push((format!("provost restart {name}"), "try it again, once mended"));
        }
        "backoff" if was_not_executed(status) => {
            let command = format!("provost reset-failed {name}");
            advice.push((command, "try it again at once, once mended"));
        }
        "failed" => {
            advice.push(logs());
            advice.push((format!("provost restart {name}"), "try it again, once mended"));
        }
        "backoff" => {
            advice.push(logs());
            advice.push((format!("provost reset-failed {name}"), "try it again at once"));
        }
        "starting" => advice.push(logs()),
        "waiting" => {
            // `db to be healthy: ...`
            let first = status.waiting_for.first().and_then(|text| text.split_once(" to be "));
            if let Some((on, _)) = first {
                advice.push((format!("provost why {on}"), "what it waits for"));
            }
        }
        "running" if status.health == "unhealthy" => {
            advice.push(logs());
            advice.push((format!("provost restart {name}"), "have a new run at once"));
        }
        "running" if status.needs_restart && status.waiting_for.is_empty() => {
            advice.push((format!("provost restart {name}"), "have it run as the file says"));
        }
        _ => {}
    }
    advice
}

/// Whether its last run never became its command: it wrote nothing.
fn was_not_executed(status: &ProcessStatus) -> bool {
    status.result == "spawn-failed"
}

/// `is-active`: systemctl's words and codes; 0 when one of them is.
pub async fn is_active(client: &Client, names: &[String], screen: &mut Screen) -> Outcome {
    let answer = |status: &ProcessStatus| (status.active_state.clone(), status.state == "running");
    tell(client, names, screen, answer, Exit::NotUp).await
}

/// `is-failed`: 0 when one of them has.
pub async fn is_failed(client: &Client, names: &[String], screen: &mut Screen) -> Outcome {
    let answer = |status: &ProcessStatus| (status.active_state.clone(), status.state == "failed");
    tell(client, names, screen, answer, Exit::Failed).await
}

/// `is-enabled`: 0 when one of them is.
pub async fn is_enabled(client: &Client, names: &[String], screen: &mut Screen) -> Outcome {
    let answer = |status: &ProcessStatus| {
        let word = if status.enabled { "enabled" } else { "disabled" };
        (word.to_owned(), status.enabled)
    };
    tell(client, names, screen, answer, Exit::Failed).await
}

async fn tell(
    client: &Client,
    names: &[String],
    screen: &mut Screen,
    answer: impl Fn(&ProcessStatus) -> (String, bool),
    no: Exit,
) -> Outcome {
    let all = client.status(names).await?;
    let answers: Vec<(String, bool)> = all.iter().map(answer).collect();
    if screen.json() {
        let rows = all.iter().zip(&answers).map(|(status, (word, yes))| {
            serde_json::json!({ "name": status.id, "answer": word, "yes": yes })
        });
        screen.value(&rows.collect())?;
    } else if !screen.quiet {
        for (word, _) in &answers {
            screen.line(word)?;
        }
    }
    Ok(if answers.iter().any(|(_, yes)| *yes) { Exit::Ok } else { no })
}

/// How long its current run is up.
#[must_use]
pub fn uptime(status: &ProcessStatus, now: SystemTime) -> Option<std::time::Duration> {
    status.pid?;
    now.duration_since(status.started?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn of(state: &str, health: &str) -> ProcessStatus {
        ProcessStatus {
            id: "api@0".into(),
            process: "api".into(),
            enabled: true,
            desired: "up".into(),
            state: state.into(),
            health: health.into(),
            ..Default::default()
        }
    }

    #[test]
    fn up_is_running_and_not_ill_or_completed() {
        for (state, health, up) in [
            ("running", "none", true),
            ("running", "healthy", true),
            ("running", "unhealthy", false),
            ("running", "starting", false),
            ("completed", "none", true),
            ("starting", "none", false),
            ("backoff", "none", false),
            ("down", "none", false),
            ("word-of-a-newer-daemon", "none", false),
        ] {
            assert_eq!(is_up(&of(state, health)), up, "{state} {health}");
        }
    }

    #[test]
    fn states_have_a_symbol_on_a_terminal_and_unknown_ones_are_shown() {
        let pipe = Style::default();
        let terminal = Style { terminal: true, unicode: true, ..pipe };
        let ascii = Style { unicode: false, ..terminal };
        assert_eq!(word(&of("running", "healthy"), pipe), ("running".into(), Tone::Good));
        assert_eq!(word(&of("running", "healthy"), terminal).0, "● running");
        assert_eq!(word(&of("failed", "none"), ascii), ("x failed".into(), Tone::Bad));
        assert_eq!(word(&of("hibernating", "none"), ascii), ("? hibernating".into(), Tone::Plain));
    }

    #[test]
    fn why_says_what_and_when_next() {
        let mut status = of("backoff", "none");
        status.next_restart = Some(Duration::from_millis(4200));
        assert_eq!(why(&status), "next try in 4s");
        status.reason = "it exited with code 3; next start in 4 s".into();
        assert_eq!(why(&status), status.reason, "the daemon's sentence is the whole of it");
        assert_eq!(why(&of("running", "healthy")), "");
    }

    #[test]
    fn advice_names_commands_that_fit_the_state() {
        let advised = |status: &ProcessStatus| {
            advice(status, "api").into_iter().map(|(command, _)| command).collect::<Vec<_>>()
        };
        let mut disabled = of("down", "none");
        disabled.enabled = false;
        assert_eq!(advised(&disabled), ["provost enable api", "provost start --once api"]);
        let mut stopped = of("down", "none");
        stopped.desired = "down".into();
        assert_eq!(advised(&stopped), ["provost start api"]);
        assert_eq!(advised(&of("failed", "none")), ["provost logs api", "provost restart api"]);
        assert!(advised(&of("running", "healthy")).is_empty());
        let mut waiting = of("waiting", "none");
        assert!(advised(&waiting).is_empty());
        waiting.waiting_for = vec!["db to be healthy: it is starting".into()];
        assert_eq!(advised(&waiting), ["provost why db"]);
        let mut absent = of("failed", "none");
        absent.result = "spawn-failed".into();
        assert_eq!(advised(&absent), ["provost restart api"]);
        absent.state = "backoff".into();
        assert_eq!(advised(&absent), ["provost reset-failed api"]);
    }

    #[test]
    fn exits_are_named() {
        assert_eq!(ended(Ended::Code(1)), "code 1");
        assert_eq!(ended(Ended::Signal { signal: 9, core: false }), "SIGKILL");
        assert_eq!(ended(Ended::Signal { signal: 11, core: true }), "SIGSEGV (core dumped)");
        assert_eq!(ended(Ended::Signal { signal: 36, core: false }), "signal 36");
    }
}
