//! The daemon's own log: to the journal under a service manager, to the terminal in the foreground.
//!
//! | part | owns |
//! |---|---|
//! | `entry` | one entry: its message and its fields |
//! | `messages` | the number of each kind of event |
//! | `outbox` | the queue and the thread that writes, so that a log nobody reads holds nothing up |
//! | [`stream`] | the journal as the output of a process |

mod entry;
mod messages;
mod outbox;
pub mod stream;

use entry::Entry;
use outbox::Outbox;
use std::fmt::{self, Write as _};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::Context;
use tracing_subscriber::prelude::*;
use tracing_subscriber::{Layer, reload};

/// What the daemon calls itself in the log.
pub const IDENTIFIER: &str = "provostd";

/// The field with the kind of an event.
const KIND: &str = "PROVOST_EVENT";

/// The field with the number of an entry that is kept until it is written; it is not written itself.
const NUMBER: &str = "number";

/// A panic waits no longer for what was said before.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// The log of this process.
#[derive(Clone)]
pub struct Log {
    level: reload::Handle<LevelFilter, tracing_subscriber::Registry>,
    outbox: Arc<Outbox>,
}

impl Log {
    /// The level as syslog names it (syslog(3)), as far as ours go: `err`, `warning`, `info`,
    /// `debug`.
    #[must_use]
    pub fn level(&self) -> &'static str {
        match self.level.clone_current() {
            Some(LevelFilter::ERROR) => "err",
            Some(LevelFilter::WARN) => "warning",
            Some(LevelFilter::DEBUG | LevelFilter::TRACE) => "debug",
            _ => "info",
        }
    }

    /// Sets the level by its name in syslog; those that we do not tell apart count as the next one
    /// that we do. False when there is no such name.
    #[must_use]
    pub fn set_level(&self, level: &str) -> bool {
        let filter = match level {
            "emerg" | "alert" | "crit" | "err" => LevelFilter::ERROR,
            "warning" => LevelFilter::WARN,
            "notice" | "info" => LevelFilter::INFO,
            "debug" => LevelFilter::DEBUG,
            _ => return false,
        };
        self.level.modify(|current| *current = filter).is_ok()
    }

    /// Calls this, in the thread that writes, with the number of the last entry that was written and had
    /// one: an event has it by the field `number`, and those that follow each other have larger ones.
    pub fn on_written(&self, keeper: impl Fn(u64) + Send + Sync + 'static) {
        self.outbox.set_keeper(Box::new(keeper));
    }

    /// Waits until all that was logged is written, but not longer than this.
    pub fn flush(&self, limit: Duration) {
        self.outbox.flush(limit);
    }
}

/// Sets up the log of this process: to the journal when standard error is connected to it, else to
/// standard error, a line each, with `color` where that is wanted.
pub fn set_up(color: bool) -> Log {
    let outbox = match is_in_journal() {
        true => Outbox::new(|entries| {
            let refused = entries.iter().filter(|entry| !send_to_journal(entry));
            refused.count() == 0
        }),
        false => Outbox::new(move |entries| print(entries, color, &mut std::io::stderr())),
    };
    let (filter, level) = reload::Layer::new(LevelFilter::INFO);
    let registry = tracing_subscriber::registry().with(filter);
    // Somebody else may have set up a log in this process (a test): theirs serves as well.
    let _ = registry.with(Capture(outbox.clone())).try_init();
    let last = outbox.clone();
    let told = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        // What led to it is still on its way, and may not be there without this.
        last.flush_in_panic(LAST_WORDS);
        told(panic);
    }));
    Log { level, outbox }
}

/// Whether the log goes to the journal.
#[must_use]
pub fn is_in_journal() -> bool {
    use libsystemd::logging::{SD_JOURNAL_SOCK_PATH, connected_to_journal};
    connected_to_journal() && std::path::Path::new(SD_JOURNAL_SOCK_PATH).exists()
}

/// Whether the journal took it.
fn send_to_journal(entry: &Entry) -> bool {
    use libsystemd::logging::{Priority, journal_send};
    let priority = match entry.level {
        Level::ERROR => Priority::Error,
        Level::WARN => Priority::Warning,
        Level::INFO => Priority::Info,
        _ => Priority::Debug,
    };
    let fields = entry.fields();
    let kind = fields.clone().find(|(name, _)| *name == KIND);
    let id = kind.and_then(|(_, kind)| messages::id(kind)).map(|id| ("MESSAGE_ID", id));
    let own = [("SYSLOG_IDENTIFIER", IDENTIFIER)].into_iter().chain(id);
    // The journal may be gone for a moment; what it misses is in `provost events`.
    journal_send(priority, entry.message(), fields.chain(own)).is_ok()
}

/// So much is written to a pipe in one piece, whoever else writes to it (pipe(7), `PIPE_BUF`).
const PIECE: usize = 4096;

/// Writes entries for people, as many with one write as stay in one piece. Whether that could be done.
fn print(entries: &[Entry], color: bool, out: &mut impl io::Write) -> bool {
    let (mut text, mut all) = (String::new(), true);
    let mut write = |text: &str| {
        // Where it cannot be written there is nowhere to say so.
        all &= out.write_all(text.as_bytes()).is_ok();
    };
    for entry in entries {
        let before = text.len();
        put_lines(entry, color, &mut text);
        if text.len() > PIECE && before > 0 {
            write(&text[..before]);
            text.drain(..before);
        }
    }
    write(&text);
    all
}

/// An entry for people: who speaks, and the message. The fields are for programs and stay out.
fn put_lines(entry: &Entry, color: bool, out: &mut String) {
    let (mut word, paint) = match entry.level {
        Level::ERROR => ("error: ", "\x1b[31m"),
        Level::WARN => ("", "\x1b[33m"),
        _ => ("", ""),
    };
    for line in entry.message().lines() {
        // Writing to a String cannot fail.
        let _ = match color {
            true => write!(out, "\x1b[1mprovost |\x1b[0m {paint}{word}"),
            false => write!(out, "provost | {word}"),
        };
        // What a check or a file says must not act on the terminal.
        for c in line.chars() {
            match c.is_control() && c != '\t' {
                true => out.extend(c.escape_default()),
                false => out.push(c),
            }
        }
        out.push_str(if color { "\x1b[0m\n" } else { "\n" });
        word = "";
    }
}

/// Takes events in and hands them to the queue.
struct Capture(Arc<Outbox>);

impl<S: Subscriber> Layer<S> for Capture {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let mut seen = Seen(self.0.blank(*metadata.level()));
        event.record(&mut seen);
        let Seen(mut entry) = seen;
        if let Some(file) = metadata.file() {
            entry.add("CODE_FILE", format_args!("{file}"));
        }
        if let Some(line) = metadata.line() {
            entry.add("CODE_LINE", format_args!("{line}"));
        }
        self.0.put(entry);
    }
}

struct Seen(Entry);

impl Seen {
    fn take(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        match field.name() {
            "message" => self.0.set_message(value),
            name => self.0.add(name, value),
        }
    }
}

impl Visit for Seen {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.take(field, format_args!("{value:?}"));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        match field.name() {
            NUMBER => self.0.number = Some(value),
            _ => self.take(field, format_args!("{value}")),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.take(field, format_args!("{value}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(level: Level, message: &str, color: bool) -> String {
        let mut out = String::new();
        put_lines(&Entry::of(level, message), color, &mut out);
        out
    }

    /// Keeps what is written apart.
    struct Pieces(Vec<String>);

    impl io::Write for Pieces {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.push(String::from_utf8(bytes.to_vec()).unwrap());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn entries_are_printed_in_pieces_that_nobody_comes_between() {
        let long = "x".repeat(PIECE);
        let messages: Vec<String> = (0..500).map(|n| format!("line {n}")).collect();
        let messages = messages.iter().map(String::as_str);
        let all: Vec<Entry> = messages
            .chain([long.as_str(), "last"])
            .map(|message| Entry::of(Level::INFO, message))
            .collect();
        let mut pieces = Pieces(Vec::new());
        print(&all, false, &mut pieces);
        let mut whole = String::new();
        all.iter().for_each(|entry| put_lines(entry, false, &mut whole));
        assert_eq!(pieces.0.concat(), whole);
        assert!(pieces.0.len() < 10, "{}", pieces.0.len());
        assert!(pieces.0.iter().all(|piece| piece.ends_with('\n')));
        assert_eq!(pieces.0.iter().filter(|piece| piece.len() > PIECE).count(), 1);
    }

    #[test]
    fn an_error_of_several_lines_is_one_error() {
        let text = shown(Level::ERROR, "not valid\n  --> a:1:2\n", false);
        assert_eq!(text, "provost | error: not valid\nprovost |   --> a:1:2\n");
        assert_eq!(shown(Level::WARN, "exited", false), "provost | exited\n");
    }

    #[test]
    fn nothing_in_a_message_acts_on_the_terminal() {
        let text = shown(Level::INFO, "a\x1b[2J\r\u{9b}\tb", false);
        assert_eq!(text, "provost | a\\u{1b}[2J\\r\\u{9b}\tb\n");
        let text = shown(Level::INFO, "\x1b]0;x\x07", true);
        assert_eq!(text.matches('\x1b').count(), 3);
    }
}
