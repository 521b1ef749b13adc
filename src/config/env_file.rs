//! Environment files: `NAME=VALUE` lines as other tools read them.
//!
//! Comments, blank lines and a leading `export` are allowed. A value in single quotes is taken as
//! it is, one in double quotes knows `\n \r \t \\ \" \$`; both may go over several lines. Without
//! quotes the value ends before a ` #`. No `$` is ever expanded. No message contains a value.

use super::interpolate::is_name;
use std::collections::BTreeMap;
use std::ops::Range;

/// What is wrong with a line, and where.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The bytes of the name or of the quote, never of the value.
    pub(crate) bytes: Range<usize>,
    /// What is wrong.
    pub(crate) message: String,
}

/// Reads all variables; a later one of the same name wins, as everywhere.
pub(crate) fn parse(text: &str) -> (BTreeMap<String, String>, Vec<Fault>) {
    let mut reader = Reader { text, at: 0, values: BTreeMap::new(), faults: Vec::new() };
    if text.starts_with('\u{feff}') {
        reader.at = '\u{feff}'.len_utf8();
    }
    while reader.at < text.len() {
        reader.line();
    }
    (reader.values, reader.faults)
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    values: BTreeMap<String, String>,
    faults: Vec<Fault>,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn skip_blanks(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches([' ', '\t']).len();
    }

    /// The rest of the line, without its break; and goes to the next.
    fn take_line(&mut self) -> &'a str {
        let rest = self.rest();
        let end = rest.find('\n').unwrap_or(rest.len());
        self.at = (self.at + end + 1).min(self.text.len());
        rest[..end].trim_end_matches('\r')
    }

    fn fault(&mut self, bytes: Range<usize>, message: String) {
        self.faults.push(Fault { bytes, message });
    }

    fn line(&mut self) {
        self.skip_blanks();
        let start = self.at;
        let line = self.rest().lines().next().unwrap_or_default();
        if line.trim_end().is_empty() || line.starts_with('#') {
            self.take_line();
            return;
        }
        if let Some(after) = line.strip_prefix("export")
            && after.starts_with([' ', '\t'])
        {
            self.at += "export".len();
            self.skip_blanks();
            return self.variable();
        }
        self.at = start;
        self.variable();
    }

    fn variable(&mut self) {
        let start = self.at;
        let line = self.rest().lines().next().unwrap_or_default();
        let Some((before, _)) = line.split_once('=') else {
            // The line may be the rest of a value somebody forgot to quote: not shown.
            self.take_line();
            return self.fault(start..start, "a line without `=`".into());
        };
        let name = before.trim_end();
        let bytes = start..start + name.len();
        if !is_name(name) {
            self.take_line();
            let message = "not a name of a variable: letters, digits and `_`, no digit first";
            return self.fault(bytes, message.into());
        }
        self.at += before.len() + 1;
        self.skip_blanks();
        let value = match self.rest().chars().next() {
            Some(quote @ ('\'' | '"')) => self.quoted(quote, name),
            _ => Some(unquoted(self.take_line()).to_owned()),
        };
        match value {
            Some(value) if value.contains('\0') => {
                self.fault(bytes, format!("the value of `{name}` has a NUL byte"));
            }
            Some(value) => {
                self.values.insert(name.to_owned(), value);
            }
            None => {}
        }
    }

    fn quoted(&mut self, quote: char, name: &str) -> Option<String> {
        let open = self.at;
        self.at += 1;
        let mut value = String::new();
        let mut chars = self.rest().char_indices();
        while let Some((n, c)) = chars.next() {
            match c {
                c if c == quote => {
                    self.at += n + 1;
                    return self.after_quote(name).then_some(value);
                }
                '\\' if quote == '"' => match chars.next() {
                    Some((_, 'n')) => value.push('\n'),
                    Some((_, 'r')) => value.push('\r'),
                    Some((_, 't')) => value.push('\t'),
                    Some((_, c @ ('"' | '\\' | '$'))) => value.push(c),
                    Some((_, c)) => value.extend(['\\', c]),
                    None => {}
                },
                c => value.push(c),
            }
        }
        self.at = self.text.len();
        self.fault(open..open + 1, format!("the quote of `{name}` is not closed"));
        None
    }

    /// Only a comment may follow a closing quote.
    fn after_quote(&mut self, name: &str) -> bool {
        let start = self.at;
        let rest = self.take_line().trim();
        let good = rest.is_empty() || rest.starts_with('#');
        if !good {
            let message = format!("there is text after the closing quote of `{name}`");
            self.fault(start - 1..start, message);
        }
        good
    }
}

fn unquoted(line: &str) -> &str {
    let comment = line
        .char_indices()
        .find(|(n, c)| *c == '#' && (*n == 0 || line[..*n].ends_with([' ', '\t'])));
    line[..comment.map_or(line.len(), |(n, _)| n)].trim_end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_forms_are_read() {
        let text = "\u{feff}# c\nA=1\r\nexport B = two words # c\nC='$x # \"y\"'\nD=\"a\\nb\\\"\\$\" # c\n\
                    E=\n  F=x#y\nG='l1\nl2'\nA=2\nexportX=1\n\nH=#c\nI=\"\\d\"";
        let (values, faults) = parse(text);
        assert_eq!(faults, []);
        let wanted = [
            ("A", "2"),
            ("B", "two words"),
            ("C", "$x # \"y\""),
            ("D", "a\nb\"$"),
            ("E", ""),
            ("F", "x#y"),
            ("G", "l1\nl2"),
            ("H", ""),
            ("I", "\\d"),
            ("exportX", "1"),
        ];
        let wanted = wanted.map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(values, BTreeMap::from(wanted));
    }

    #[test]
    fn faults_name_no_value() {
        let text = "hunter2\n1A=hunter2\nB='hunter2' x\nC=\"hunter2\nD=1\n";
        let (values, faults) = parse(text);
        assert_eq!(values.len(), 0);
        let places: Vec<usize> = faults.iter().map(|fault| fault.bytes.start).collect();
        assert_eq!(places, [0, 8, 29, 35]);
        assert!(faults.iter().all(|fault| !fault.message.contains("hunter")));
    }

    #[test]
    fn nothing_makes_it_panic() {
        let text = "export A=\"é\\\n'\"#\nB='é";
        for end in 0..=text.len() {
            if text.is_char_boundary(end) {
                parse(&text[..end]);
            }
        }
    }
}
