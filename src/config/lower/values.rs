//! Single values: what a field must be, and what is said when it is not.

use super::File;
use super::at::At;
use super::fields::Field;
use crate::config::diagnostic::shown;
use crate::config::keys::Kind as Wanted;
use crate::config::suggest::{did_you_mean, nearest};
use crate::config::yaml::{Kind, Style};
use crate::core::spec::Signal;
use std::time::Duration;

impl<'s> File<'_, 's> {
    /// Says that something else is needed here.
    pub(crate) fn wrong_type(&mut self, at: &At<'_, 's>, what: &str, wanted: &str) {
        if matches!(at.value().kind, Kind::Broken) {
            return;
        }
        let message = format!("{what} must be {wanted}, not {}", at.value().kind.word());
        self.add(self.problem("wrong-type", at, message));
    }

    /// The text of a single value, without NUL.
    pub(crate) fn scalar<'n>(
        &mut self,
        at: &At<'n, 's>,
        what: &str,
        wanted: &str,
    ) -> Option<(&'n str, Style)> {
        let Kind::Scalar { text, style } = &at.value().kind else {
            self.wrong_type(at, what, wanted);
            return None;
        };
        if text.contains('\0') {
            self.add(self.problem("nul-byte", at, format!("{what} has a NUL byte")));
            return None;
        }
        Some((text, *style))
    }

    /// A text as it stands, with something in it.
    pub(crate) fn text<'n>(&mut self, field: &Field<'n, 's>) -> Option<&'n str> {
        let name = format!("`{}`", field.name);
        let (text, _) = self.scalar(&field.value, &name, "a text")?;
        if text.is_empty() {
            self.add(self.problem("empty-value", &field.value, format!("{name} is empty")));
            return None;
        }
        Some(text)
    }

    /// The items of a list.
    pub(crate) fn list<'n>(&mut self, at: &At<'n, 's>, what: &str) -> Option<Vec<At<'n, 's>>> {
        match &at.value().kind {
            Kind::Sequence(items) => Some(items.iter().map(|item| at.child(item)).collect()),
            Kind::Scalar { .. } => {
                let message = format!("{what} must be a list, not a single value");
                let problem = self.problem("wrong-type", at, message);
                self.add(problem.help("put it into brackets: `[…]`"));
                None
            }
            _ => {
                self.wrong_type(at, what, "a list");
                None
            }
        }
    }

    /// A value that must stand without quotes: numbers and booleans.
    fn unquoted<'n>(&mut self, field: &Field<'n, 's>, wanted: &str) -> Option<&'n str> {
        let name = format!("`{}`", field.name);
        let (text, style) = self.scalar(&field.value, &name, wanted)?;
        if style != Style::Plain {
            let message = format!("{name} must be {wanted}, not a text");
            let problem = self.problem("quoted-value", &field.value, message);
            self.add(problem.help("remove the quotes"));
            return None;
        }
        Some(text)
    }

    pub(crate) fn boolean(&mut self, field: &Field<'_, 's>) -> Option<bool> {
        match self.unquoted(field, "`true` or `false`")? {
            "true" => Some(true),
            "false" => Some(false),
            text => {
                let help = match text.to_lowercase().as_str() {
                    "true" | "yes" | "on" | "y" | "1" => Some("write `true`"),
                    "false" | "no" | "off" | "n" | "0" => Some("write `false`"),
                    _ => None,
                };
                let message =
                    format!("`{}` must be `true` or `false`, not `{}`", field.name, shown(text));
                let mut problem = self.problem("bad-boolean", &field.value, message);
                problem.help =
                    help.map(str::to_owned).or_else(|| did_you_mean(text, ["true", "false"]));
                self.add(problem);
                None
            }
        }
    }

    pub(crate) fn integer(&mut self, field: &Field<'_, 's>) -> Option<i64> {
        let Wanted::Integer { min, max } = field.known.kind else { return None };
        let text = self.unquoted(field, "a whole number")?;
        self.whole_number(text, &field.value, &field.name, min, max)
    }

    /// A list of whole numbers.
    pub(crate) fn integers(&mut self, field: &Field<'_, 's>) -> Option<Vec<i64>> {
        let Wanted::Integers { min, max } = field.known.kind else { return None };
        let name = format!("`{}`", field.name);
        let mut numbers = Vec::new();
        for item in self.list(&field.value, &name)? {
            let item = Field { value: item, ..field.clone() };
            let text = self.unquoted(&item, "a list of whole numbers")?;
            numbers.push(self.whole_number(text, &item.value, &field.name, min, max)?);
        }
        Some(numbers)
    }

    fn whole_number(
        &mut self,
        text: &str,
        at: &At<'_, 's>,
        name: &str,
        min: i64,
        max: i64,
    ) -> Option<i64> {
        let digits = text.strip_prefix('-').unwrap_or(text);
        let plain = digits.bytes().all(|b| b.is_ascii_digit())
            && !digits.is_empty()
            && (digits.len() == 1 || !digits.starts_with('0'));
        if !plain {
            let message = format!("`{name}` must be a whole number, not `{}`", shown(text));
            self.add(self.problem("bad-number", at, message));
            return None;
        }
        let number = text.parse::<i64>().ok().filter(|number| (min..=max).contains(number));
        if number.is_none() {
            self.out_of_range(at, name, text, &min.to_string(), &max.to_string());
        }
        number
    }

    fn out_of_range(&mut self, at: &At<'_, 's>, name: &str, text: &str, min: &str, max: &str) {
        let message = format!("`{name}` must be between {min} and {max}, not {}", shown(text));
        self.add(self.problem("out-of-range", at, message));
    }

    pub(crate) fn number(&mut self, field: &Field<'_, 's>) -> Option<f64> {
        let Wanted::Number { min, max } = field.known.kind else { return None };
        let text = self.unquoted(field, "a number")?;
        let plain = text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'-'));
        let Some(number) = text.parse::<f64>().ok().filter(|_| plain) else {
            let message = format!("`{}` must be a number, not `{}`", field.name, shown(text));
            self.add(self.problem("bad-number", &field.value, message));
            return None;
        };
        if !(min..=max).contains(&number) {
            self.out_of_range(&field.value, &field.name, text, &min.to_string(), &max.to_string());
            return None;
        }
        Some(number)
    }

    pub(crate) fn octal(&mut self, field: &Field<'_, 's>) -> Option<u32> {
        let name = format!("`{}`", field.name);
        let (text, _) = self.scalar(&field.value, &name, "octal digits")?;
        let number = u32::from_str_radix(text, 8).ok().filter(|n| *n <= 0o777);
        if number.is_none() || text.starts_with('+') {
            let message = format!("{name} must be octal digits, not `{}`", shown(text));
            let problem = self.problem("bad-number", &field.value, message);
            self.add(problem.help("for example `0022` or `0077`"));
            return None;
        }
        number
    }

    pub(crate) fn duration(&mut self, field: &Field<'_, 's>) -> Option<Duration> {
        let Wanted::Duration { min, max } = field.known.kind else { return None };
        let name = format!("`{}`", field.name);
        let (text, style) = self.scalar(&field.value, &name, "a duration")?;
        let number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if number && style != Style::Plain {
            let message = format!("{name} must be a duration, not a text");
            let problem = self.problem("quoted-value", &field.value, message);
            self.add(problem.help(format!("remove the quotes, or write the unit: `{text}ms`")));
            return None;
        }
        let Some(milliseconds) = milliseconds(text) else {
            let message = format!("{name} must be a duration, not `{}`", shown(text));
            let problem = self.problem("bad-duration", &field.value, message);
            self.add(
                problem.help(
                    "a number is milliseconds; with units: `500ms`, `5s`, `2m30s`, `1h`, `1d`",
                ),
            );
            return None;
        };
        if !(min..=max).contains(&milliseconds) {
            self.out_of_range(&field.value, &field.name, text, &human(min), &human(max));
            return None;
        }
        Some(Duration::from_millis(milliseconds))
    }

    pub(crate) fn size(&mut self, field: &Field<'_, 's>) -> Option<u64> {
        let Wanted::Size { min, max } = field.known.kind else { return None };
        let name = format!("`{}`", field.name);
        let (text, _) = self.scalar(&field.value, &name, "a size")?;
        let Some(size) = bytes(text) else {
            let message = format!("{name} must be a size, not `{}`", shown(text));
            let problem = self.problem("bad-size", &field.value, message);
            let help = "a number is bytes; with units of 1024: `512K`, `50M`, `1G`";
            self.add(problem.help(help));
            return None;
        };
        if !(min..=max).contains(&size) {
            let (min, max) = (crate::core::text::size(min), crate::core::text::size(max));
            self.out_of_range(&field.value, &field.name, text, &min, &max);
            return None;
        }
        Some(size)
    }

    /// One of the words of the table.
    pub(crate) fn word(&mut self, field: &Field<'_, 's>) -> Option<&'static str> {
        let Wanted::Words { words, later } = field.known.kind else { return None };
        let wanted = format!("one of {}", quoted(words));
        let name = format!("`{}`", field.name);
        let (text, style) = self.scalar(&field.value, &name, &wanted)?;
        if let Some(word) = words.iter().find(|word| **word == text) {
            return Some(word);
        }
        // `no` reads as a boolean to some tools, which then write `false`.
        if words.contains(&"no") && text == "false" && style == Style::Plain {
            return Some("no");
        }
        if later.contains(&text) {
            self.unavailable(&field.value, &format!("`{}: {text}`", field.name));
            return None;
        }
        self.unknown_word(&field.value, &field.name, text, words);
        None
    }

    pub(crate) fn unknown_word(
        &mut self,
        at: &At<'_, 's>,
        name: &str,
        text: &str,
        words: &'static [&'static str],
    ) {
        let message = format!("`{name}` cannot be `{}`", shown(text));
        let mut problem = self.problem("unknown-word", at, message);
        problem.help = Some(match nearest(text, words.iter().copied()) {
            Some(word) => format!("did you mean `{word}`?"),
            None => format!("it is one of {}", quoted(words)),
        });
        self.add(problem);
    }

    pub(crate) fn signal(&mut self, field: &Field<'_, 's>) -> Option<Signal> {
        let name = format!("`{}`", field.name);
        let (text, _) = self.scalar(&field.value, &name, "the name of a signal")?;
        let signal = signal(text);
        if signal.is_none() {
            let message = format!("{name}: there is no signal `{}`", shown(text));
            let mut problem = self.problem("bad-signal", &field.value, message);
            let upper = text.to_uppercase();
            let full = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
            let names = nix::sys::signal::Signal::iterator().map(nix::sys::signal::Signal::as_str);
            let known = names.clone().any(|name| name == full).then_some(full.as_str());
            problem.help = known
                .or_else(|| nearest(&full, names))
                .map(|word| format!("did you mean `{word}`?"));
            self.add(problem);
        }
        signal
    }
}

/// `SIGTERM`, `TERM`, `15`, `SIGRTMIN+3`.
fn signal(text: &str) -> Option<Signal> {
    if let Ok(number) = text.parse::<u8>() {
        return (1..=64).contains(&number).then_some(Signal(number));
    }
    let name = text.strip_prefix("SIG").unwrap_or(text);
    // The kernel's numbers are 32 to 64; the C library keeps the first two for itself.
    const RTMIN: u8 = 34;
    const RTMAX: u8 = 64;
    let realtime = |rest: &str, sign: char| match rest {
        "" => Some(0),
        _ => rest.strip_prefix(sign)?.parse::<u8>().ok().filter(|n| *n <= RTMAX - RTMIN),
    };
    if let Some(rest) = name.strip_prefix("RTMIN") {
        return realtime(rest, '+').map(|n| Signal(RTMIN + n));
    }
    if let Some(rest) = name.strip_prefix("RTMAX") {
        return realtime(rest, '-').map(|n| Signal(RTMAX - n));
    }
    let signal: nix::sys::signal::Signal = format!("SIG{name}").parse().ok()?;
    u8::try_from(signal as i32).ok().map(Signal)
}

/// A bare number is milliseconds; else numbers with units, larger units first.
fn milliseconds(text: &str) -> Option<u64> {
    const UNITS: [(&str, u64); 5] =
        [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        // Too large a number is a duration, only not one within the bounds.
        return Some(text.parse().unwrap_or(u64::MAX));
    }
    let mut rest = text;
    let mut total: u64 = 0;
    let mut next = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).filter(|n| *n > 0)?;
        let number: u64 = rest[..digits].parse().unwrap_or(u64::MAX);
        rest = &rest[digits..];
        let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let unit = UNITS.iter().position(|(unit, _)| *unit == &rest[..letters])?;
        if unit < next {
            return None;
        }
        next = unit + 1;
        total = total.saturating_add(number.saturating_mul(UNITS[unit].1));
        rest = &rest[letters..];
    }
    (!text.is_empty()).then_some(total)
}

/// A bare number is bytes; units are powers of 1024, as in systemd.
fn bytes(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let shift = match &text[digits..] {
        "" => 0,
        "K" | "k" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return None,
    };
    if digits == 0 {
        return None;
    }
    // Too large a number is a size, only not one within the bounds.
    let number: u64 = text[..digits].parse().unwrap_or(u64::MAX);
    Some(number.saturating_mul(1 << shift))
}

/// A bound as a person writes it.
fn human(milliseconds: u64) -> String {
    for (unit, size) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)] {
        if milliseconds >= size && milliseconds.is_multiple_of(size) {
            return format!("{}{unit}", milliseconds / size);
        }
    }
    format!("{milliseconds}ms")
}

fn quoted(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, wanted) in [
            ("0", Some(0)),
            ("5000", Some(5_000)),
            ("500ms", Some(500)),
            ("5s", Some(5_000)),
            ("2m30s", Some(150_000)),
            ("1h", Some(3_600_000)),
            ("1d2h3m4s5ms", Some(93_784_005)),
            ("", None),
            ("s", None),
            ("5", Some(5)),
            ("5 s", None),
            ("5sec", None),
            ("5S", None),
            ("1.5s", None),
            ("-5s", None),
            ("30s2m", None),
            ("5s5s", None),
            ("5s5", None),
            ("99999999999999999999", Some(u64::MAX)),
        ] {
            assert_eq!(milliseconds(text), wanted, "{text:?}");
        }
        assert_eq!(human(150_000), "150s");
        assert_eq!(human(100), "100ms");
    }

    #[test]
    fn sizes() {
        for (text, expected) in [
            ("0", Some(0)),
            ("1536", Some(1536)),
            ("512K", Some(512 << 10)),
            ("50M", Some(50 << 20)),
            ("1G", Some(1 << 30)),
            ("99999999999999999999T", Some(u64::MAX)),
            ("", None),
            ("M", None),
            ("5m", None),
            ("5MB", None),
            ("1.5G", None),
            ("-1", None),
            ("5 M", None),
        ] {
            assert_eq!(bytes(text), expected, "{text}");
        }
    }

    #[test]
    fn signals() {
        for (text, wanted) in [
            ("SIGTERM", Some(15)),
            ("TERM", Some(15)),
            ("15", Some(15)),
            ("HUP", Some(1)),
            ("SIGRTMIN+3", Some(37)),
            ("RTMIN", Some(34)),
            ("SIGRTMAX-1", Some(63)),
            ("SIGRTMIN+31", None),
            ("64", Some(64)),
            ("65", None),
            ("0", None),
            ("sigterm", None),
            ("SIGSIGTERM", None),
            ("", None),
        ] {
            assert_eq!(signal(text).map(|signal| signal.0), wanted, "{text:?}");
        }
    }
}
