//! Where output goes: data to standard output, all else to standard error.

use super::args::{Format, Global, When};
use std::fmt::{self, Display};
use std::io::{self, BufWriter, IsTerminal, Stdout, Write};

/// A colour, by what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// As it should be.
    Good,
    /// On its way, or not quite as it should be.
    Uneasy,
    /// Not as it should be.
    Bad,
    /// Of no concern at the moment.
    Quiet,
    /// A heading.
    Strong,
    /// Nothing special.
    Plain,
}

impl Tone {
    /// The parameters of the terminal's "select graphic rendition" (ECMA-48, 8.3.117).
    fn code(self) -> &'static str {
        match self {
            Tone::Good => "32",
            Tone::Uneasy => "33",
            Tone::Bad => "31",
            Tone::Quiet => "2",
            Tone::Strong => "1",
            Tone::Plain => "",
        }
    }
}

/// What one of the two outputs can show.
#[derive(Clone, Copy, Debug, Default)]
pub struct Style {
    /// Colours.
    pub colour: bool,
    /// Symbols beside words, and text cut to the width.
    pub terminal: bool,
    /// Symbols beyond ASCII.
    pub unicode: bool,
}

impl Style {
    /// The text in this tone.
    pub fn paint<T: Display>(self, tone: Tone, text: T) -> Painted<T> {
        Painted { text, tone: if self.colour { tone } else { Tone::Plain } }
    }
}

/// A text with its tone.
#[derive(Clone, Debug)]
pub struct Painted<T> {
    text: T,
    tone: Tone,
}

impl<T: Display> Display for Painted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.tone == Tone::Plain {
            return self.text.fmt(f);
        }
        write!(f, "\x1b[{}m{}\x1b[0m", self.tone.code(), self.text)
    }
}

/// Standard output and standard error of one command.
#[derive(Debug)]
pub struct Screen {
    /// How to print data.
    pub format: Format,
    /// Nothing but data and errors.
    pub quiet: bool,
    /// What standard output can show.
    pub style: Style,
    /// What standard error can show.
    pub err_style: Style,
    out: BufWriter<Stdout>,
}

impl Screen {
    /// The outputs of this process, as the options and the environment say.
    #[must_use]
    pub fn new(global: &Global) -> Screen {
        let unicode = speaks_utf8(|name| std::env::var(name).ok());
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let style = |terminal: bool| Style {
            colour: match global.color {
                When::Always => true,
                When::Never => false,
                When::Auto => terminal && !no_color && !dumb,
            },
            terminal,
            unicode,
        };
        Screen {
            format: global.output,
            quiet: global.quiet,
            style: style(io::stdout().is_terminal()),
            err_style: style(io::stderr().is_terminal()),
            out: BufWriter::new(io::stdout()),
        }
    }

    /// Whether data is for a program.
    #[must_use]
    pub fn json(&self) -> bool {
        self.format == Format::Json
    }

    /// One line of data.
    ///
    /// # Errors
    /// When standard output is closed.
    pub fn line(&mut self, text: impl Display) -> io::Result<()> {
        writeln!(self.out, "{text}")
    }

    /// Data as it is.
    ///
    /// # Errors
    /// When standard output is closed.
    pub fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)
    }

    /// One whole value for a program.
    ///
    /// # Errors
    /// When standard output is closed.
    pub fn value(&mut self, value: &serde_json::Value) -> io::Result<()> {
        self.line(format_args!("{value:#}"))
    }

    /// One value of many, on a line of its own.
    ///
    /// # Errors
    /// When standard output is closed.
    pub fn value_line(&mut self, value: &serde_json::Value) -> io::Result<()> {
        self.line(value)
    }

    /// Shows what was printed so far.
    ///
    /// # Errors
    /// When standard output is closed.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// Something beside the data that a person may want to know.
    pub fn note(&mut self, text: impl Display) {
        if !self.quiet {
            self.error(text);
        }
    }

    /// Something that a person must know.
    pub fn error(&mut self, text: impl Display) {
        // What was said before must be seen before. When nobody can see it any more, there is
        // nobody to tell either.
        let _ = self.out.flush();
        let _ = writeln!(io::stderr(), "{text}");
    }

    /// The width of the terminal data goes to; None when it goes elsewhere.
    #[must_use]
    pub fn width(&self) -> Option<usize> {
        if self.style.terminal { width_of(io::stdout()) } else { None }
    }

    /// The width of the terminal all else goes to; None when it goes elsewhere.
    #[must_use]
    pub fn err_width(&self) -> Option<usize> {
        if self.err_style.terminal { width_of(io::stderr()) } else { None }
    }
}

fn width_of(terminal: impl std::os::fd::AsFd) -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(terminal).ok()?;
    (size.ws_col > 0).then(|| usize::from(size.ws_col))
}

/// Whether the locale says that UTF-8 can be shown (locale(7): the first of these that is set).
fn speaks_utf8(get: impl Fn(&str) -> Option<String>) -> bool {
    ["LC_ALL", "LC_CTYPE", "LANG"]
        .iter()
        .filter_map(|name| get(name))
        .find(|value| !value.is_empty())
        .is_some_and(|value| {
            let value = value.to_ascii_lowercase();
            value.contains("utf-8") || value.contains("utf8")
        })
}

/// Text of others with everything that a terminal would obey made visible.
#[must_use]
pub fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\t' => out.push(c),
            c if c.is_control() => out.extend(c.escape_default()),
            // Changes of direction can make a line read as another (CVE-2021-42574).
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                out.extend(c.escape_default());
            }
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_made_visible() {
        assert_eq!(visible("plain\ttext é"), "plain\ttext é");
        assert_eq!(visible("\x1b[2Jgone\r"), "\\u{1b}[2Jgone\\r");
        assert_eq!(visible("a\u{9b}31mb\u{202e}c"), "a\\u{9b}31mb\\u{202e}c");
    }

    #[test]
    fn the_first_locale_that_is_set_decides() {
        let locale = |pairs: &'static [(&str, &str)]| {
            speaks_utf8(|name| {
                pairs.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned())
            })
        };
        assert!(locale(&[("LANG", "de_DE.UTF-8")]));
        assert!(locale(&[("LC_ALL", ""), ("LC_CTYPE", "C.utf8")]));
        assert!(!locale(&[("LC_ALL", "C"), ("LANG", "de_DE.UTF-8")]));
        assert!(!locale(&[]));
    }

    #[test]
    fn without_colour_text_stays_as_it_is() {
        let plain = Style::default();
        assert_eq!(plain.paint(Tone::Bad, "failed").to_string(), "failed");
        let colour = Style { colour: true, ..plain };
        assert_eq!(colour.paint(Tone::Bad, "failed").to_string(), "\x1b[31mfailed\x1b[0m");
    }
}
