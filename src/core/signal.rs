//! Signals by name and number (signal(7); the numbers of x86 and arm).

use crate::spec::Signal;
use std::fmt;

impl fmt::Display for Signal {
    /// The name with `SIG`, for those that have one on every architecture.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match signal_name(*self) {
            Some(name) => write!(f, "SIG{name}"),
            None => write!(f, "signal {}", self.0),
        }
    }
}

const SIGNALS: [(u8, &str); 31] = [
    (1, "HUP"),
    (2, "INT"),
    (3, "QUIT"),
    (4, "ILL"),
    (5, "TRAP"),
    (6, "ABRT"),
    (7, "BUS"),
    (8, "FPE"),
    (9, "KILL"),
    (10, "USR1"),
    (11, "SEGV"),
    (12, "USR2"),
    (13, "PIPE"),
    (14, "ALRM"),
    (15, "TERM"),
    (16, "STKFLT"),
    (17, "CHLD"),
    (18, "CONT"),
    (19, "STOP"),
    (20, "TSTP"),
    (21, "TTIN"),
    (22, "TTOU"),
    (23, "URG"),
    (24, "XCPU"),
    (25, "XFSZ"),
    (26, "VTALRM"),
    (27, "PROF"),
    (28, "WINCH"),
    (29, "IO"),
    (30, "PWR"),
    (31, "SYS"),
];

fn signal_name(signal: Signal) -> Option<&'static str> {
    SIGNALS.iter().find(|(number, _)| *number == signal.0).map(|(_, name)| *name)
}

impl Signal {
    /// Reads `SIGTERM`, `TERM`, `term` or `15` (signal(7), numbers of x86 and arm).
    #[must_use]
    pub fn parse(text: &str) -> Option<Signal> {
        if let Ok(number) = text.parse::<u8>() {
            return (1..=64).contains(&number).then_some(Signal(number));
        }
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        if let Some(offset) = name.strip_prefix("RTMIN+").and_then(|n| n.parse::<u8>().ok()) {
            return (offset <= 30).then(|| Signal(34 + offset));
        }
        SIGNALS.iter().find(|(_, known)| *known == name).map(|(number, _)| Signal(*number))
    }

    /// All names that [`Signal::parse`] knows, without `SIG`.
    pub fn names() -> impl Iterator<Item = &'static str> {
        SIGNALS.iter().map(|(_, name)| *name)
    }
}
