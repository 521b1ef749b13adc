//! The daemon's own log: to the journal under a service manager, to the terminal in the foreground.

pub mod stream;

use std::fmt;
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::{FmtContext, MakeWriter};
use tracing_subscriber::prelude::*;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::reload;

/// What the daemon calls itself in the log.
pub const IDENTIFIER: &str = "provostd";

/// Changes how much is logged, while the daemon runs.
#[derive(Clone)]
pub struct Verbosity(reload::Handle<LevelFilter, tracing_subscriber::Registry>);

impl Verbosity {
    /// The level as syslog names it (syslog(3)), as far as ours go: `err`, `warning`, `info`,
    /// `debug`.
    #[must_use]
    pub fn get(&self) -> &'static str {
        match self.0.clone_current() {
            Some(LevelFilter::ERROR) => "err",
            Some(LevelFilter::WARN) => "warning",
            Some(LevelFilter::DEBUG | LevelFilter::TRACE) => "debug",
            _ => "info",
        }
    }

    /// Sets the level by its name in syslog; those that we do not tell apart count as the next one
    /// that we do. False when there is no such name.
    #[must_use]
    pub fn set(&self, level: &str) -> bool {
        let filter = match level {
            "emerg" | "alert" | "crit" | "err" => LevelFilter::ERROR,
            "warning" => LevelFilter::WARN,
            "notice" | "info" => LevelFilter::INFO,
            "debug" => LevelFilter::DEBUG,
            _ => return false,
        };
        self.0.modify(|current| *current = filter).is_ok()
    }
}

/// Sets up the log of this process: to the journal when standard error is connected to it, else to
/// standard error, a line each, with `color` where that is wanted.
pub fn set_up(color: bool) -> Verbosity {
    let (filter, handle) = reload::Layer::new(LevelFilter::INFO);
    let registry = tracing_subscriber::registry().with(filter);
    let journal = libsystemd::logging::connected_to_journal().then(tracing_journald::layer);
    // Somebody else may have set up a log in this process (a test): theirs serves as well.
    let _ = match journal {
        Some(Ok(layer)) => registry
            .with(
                layer
                    .with_field_prefix(None)
                    .with_priority_mappings(priorities())
                    .with_syslog_identifier(IDENTIFIER.to_owned()),
            )
            .try_init(),
        _ => {
            let layer = tracing_subscriber::fmt::layer()
                .with_writer(StandardError.make_writer())
                .event_format(Line { color });
            registry.with(layer).try_init()
        }
    };
    Verbosity(handle)
}

/// Syslog's meaning of the levels; tracing-journald's own is one step lower.
fn priorities() -> tracing_journald::PriorityMappings {
    use tracing_journald::{Priority, PriorityMappings};
    PriorityMappings {
        error: Priority::Error,
        warn: Priority::Warning,
        info: Priority::Informational,
        debug: Priority::Debug,
        trace: Priority::Debug,
    }
}

struct StandardError;

impl StandardError {
    fn make_writer(&self) -> impl for<'a> MakeWriter<'a> + use<> {
        std::io::stderr
    }
}

/// One line for people: who speaks, and the message. The fields are for programs and stay out.
struct Line {
    color: bool,
}

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut message = Message(String::new());
        event.record(&mut message);
        let level = *event.metadata().level();
        let (word, paint) = match level {
            tracing::Level::ERROR => ("error: ", "\x1b[31m"),
            tracing::Level::WARN => ("", "\x1b[33m"),
            _ => ("", ""),
        };
        for line in message.0.lines() {
            if self.color {
                writeln!(writer, "\x1b[1mprovost |\x1b[0m {paint}{word}{line}\x1b[0m")?;
            } else {
                writeln!(writer, "provost | {word}{line}")?;
            }
        }
        Ok(())
    }
}

/// The message of an event, without its fields.
struct Message(String);

impl tracing::field::Visit for Message {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}
