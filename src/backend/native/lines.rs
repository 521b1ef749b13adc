//! From the bytes a process writes to lines that can be shown.

use std::io::BufRead;

/// A line that is longer is cut: what journald does too (its `LineMax`).
pub const MAX_LINE: usize = 48 * 1024;

/// What a cut line ends with.
const CUT: &str = " [...]";

/// Collects bytes to lines, and never holds more than one line of [`MAX_LINE`].
#[derive(Default)]
pub struct Splitter {
    partial: Vec<u8>,
}

/// One line, without its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// Its bytes, as they were written.
    pub bytes: &'a [u8],
    /// It goes on in the next one.
    pub cut: bool,
}

impl Splitter {
    /// One that has begun a line already.
    #[must_use]
    pub fn with(begun: Vec<u8>) -> Splitter {
        let begun = if begun.len() < MAX_LINE { begun } else { Vec::new() };
        Splitter { partial: begun }
    }

    /// What was begun and not ended.
    #[must_use]
    pub fn into_begun(self) -> Vec<u8> {
        self.partial
    }

    /// Takes in bytes and hands out the lines they complete.
    pub fn push(&mut self, mut bytes: &[u8], mut emit: impl FnMut(Line<'_>)) {
        while !bytes.is_empty() {
            let room = MAX_LINE - self.partial.len();
            let mut window = &bytes[..bytes.len().min(room)];
            // Reading from a slice cannot fail.
            let Ok(taken) = window.read_until(b'\n', &mut self.partial) else { return };
            bytes = &bytes[taken..];
            if self.partial.last() == Some(&b'\n') {
                self.partial.pop();
                emit(Line { bytes: &self.partial, cut: false });
                self.partial.clear();
            } else if self.partial.len() == MAX_LINE {
                let end = whole_characters(&self.partial);
                emit(Line { bytes: &self.partial[..end], cut: true });
                self.partial.drain(..end);
            }
        }
    }

    /// What was begun and not ended.
    pub fn finish(&mut self, emit: impl FnOnce(Line<'_>)) {
        if !self.partial.is_empty() {
            emit(Line { bytes: &self.partial, cut: false });
            self.partial.clear();
        }
    }
}

/// How many bytes there are before a character that is only begun at the end.
fn whole_characters(bytes: &[u8]) -> usize {
    let tail = bytes.len().saturating_sub(3);
    let start = bytes[tail..].iter().rposition(|byte| byte & 0xC0 == 0xC0).map(|at| tail + at);
    match start {
        Some(at) => match std::str::from_utf8(&bytes[at..]) {
            Err(error) if error.error_len().is_none() => at,
            _ => bytes.len(),
        },
        None => bytes.len(),
    }
}

/// Appends a line for people: what a terminal would act on, and what is no text, is shown as
/// `\x1b`. With `colours`, sequences that only set colours are let through.
pub fn append_shown(out: &mut Vec<u8>, line: Line<'_>, colours: bool) {
    let bytes = line.bytes.strip_suffix(b"\r").unwrap_or(line.bytes);
    let mut coloured = false;
    for chunk in bytes.utf8_chunks() {
        let mut rest = chunk.valid();
        while !rest.is_empty() {
            let plain = rest.bytes().position(|b| !matches!(b, b' '..=b'~')).unwrap_or(rest.len());
            out.extend_from_slice(&rest.as_bytes()[..plain]);
            rest = &rest[plain..];
            let Some(c) = rest.chars().next() else { break };
            let colour = if colours { colour_sequence(rest) } else { None };
            let taken = colour.unwrap_or(c.len_utf8());
            match colour {
                Some(_) => {
                    coloured = true;
                    out.extend_from_slice(&rest.as_bytes()[..taken]);
                }
                None => append_character(out, c),
            }
            rest = &rest[taken..];
        }
        for byte in chunk.invalid() {
            out.extend_from_slice(format!("\\x{byte:02x}").as_bytes());
        }
    }
    if coloured {
        out.extend_from_slice(b"\x1b[0m");
    }
    if line.cut {
        out.extend_from_slice(CUT.as_bytes());
    }
}

fn append_character(out: &mut Vec<u8>, c: char) {
    match c {
        '\t' => out.push(b'\t'),
        c if c.is_ascii_control() => {
            out.extend_from_slice(format!("\\x{:02x}", u32::from(c)).as_bytes());
        }
        // Also the second set of control characters, and those that turn the direction of text.
        c if c.is_control() || is_direction(c) => {
            out.extend_from_slice(format!("\\u{{{:x}}}", u32::from(c)).as_bytes());
        }
        c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
    }
}

fn is_direction(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The length of a sequence at the beginning of `text` that sets colours (ECMA-48, SGR).
fn colour_sequence(text: &str) -> Option<usize> {
    let parameters = text.strip_prefix("\x1b[")?;
    let end = parameters.find(|c: char| !c.is_ascii_digit() && c != ';')?;
    (parameters.as_bytes()[end] == b'm').then_some(2 + end + 1)
}

/// The same as a text.
#[must_use]
pub fn shown(bytes: &[u8]) -> String {
    let mut out = Vec::new();
    append_shown(&mut out, Line { bytes, cut: false }, false);
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(pieces: &[&[u8]]) -> Vec<(Vec<u8>, bool)> {
        let mut splitter = Splitter::default();
        let mut lines = Vec::new();
        for piece in pieces {
            splitter.push(piece, |line| lines.push((line.bytes.to_vec(), line.cut)));
        }
        splitter.finish(|line| lines.push((line.bytes.to_vec(), line.cut)));
        lines
    }

    #[test]
    fn lines_are_put_together_from_pieces() {
        let lines = split(&[b"a", b"b\n\nc\nd", b"e"]);
        let texts: Vec<_> = lines.iter().map(|(bytes, _)| bytes.as_slice()).collect();
        assert_eq!(texts, [&b"ab"[..], b"", b"c", b"de"]);
    }

    #[test]
    fn an_endless_line_is_cut_and_nothing_of_it_is_lost() {
        let long = vec![b'x'; 2 * MAX_LINE + 5];
        let lines = split(&[&long[..100], &long[100..]]);
        assert_eq!(
            lines.iter().map(|(b, cut)| (b.len(), *cut)).collect::<Vec<_>>(),
            [(MAX_LINE, true), (MAX_LINE, true), (5, false)]
        );
    }

    #[test]
    fn a_line_of_exactly_the_limit_has_no_empty_rest() {
        let mut line = vec![b'x'; MAX_LINE - 1];
        line.push(b'\n');
        assert_eq!(split(&[&line]).len(), 1);
    }

    #[test]
    fn a_character_is_not_cut_in_two() {
        let mut long = vec![b'x'; MAX_LINE - 1];
        long.extend_from_slice("é!".as_bytes());
        let lines = split(&[&long]);
        assert_eq!(lines[0].0.len(), MAX_LINE - 1);
        assert_eq!(lines[1].0, "é!".as_bytes());
    }

    #[test]
    fn what_is_no_text_cannot_reach_a_terminal() {
        assert_eq!(shown(b"a\tb\x1b[2J\x07\x00"), "a\tb\\x1b[2J\\x07\\x00");
        assert_eq!(shown(b"\xff\xfe ok \xc3"), "\\xff\\xfe ok \\xc3");
        assert_eq!(shown("\u{9b}31m é \u{202e}".as_bytes()), "\\u{9b}31m é \\u{202e}");
        assert_eq!(shown(b"progress\r"), "progress");
    }

    #[test]
    fn colours_are_let_through_and_end_with_the_line() {
        let mut out = Vec::new();
        let line = Line { bytes: b"\x1b[1;31mred\x1b[2Jx", cut: false };
        append_shown(&mut out, line, true);
        assert_eq!(out, b"\x1b[1;31mred\\x1b[2Jx\x1b[0m");
    }
}
