//! The errors of the parser, said so that a person knows what to mend.

use super::{Problem, Span};
use granit_parser::{ErrorKind, ScanError};

/// Makes a problem of the parser's error. `reached` is the end of what was read before it.
pub(super) fn problem(error: &ScanError, text: &str, reached: usize) -> Problem {
    let at = error.marker().byte_offset().unwrap_or(reached).min(text.len());
    let span = one_character(text, at);
    let (code, message, help) = words(error.kind());
    let mut problem = Problem { code, span, message, help: help.map(str::to_owned), related: None };
    match error.kind() {
        kind if concerns_quotes(kind) => {
            if let Some(open) = opening_quote(text, reached, at) {
                problem.related = Some((Span::new(open, open + 1), "the quote opens here"));
            }
        }
        ErrorKind::MappingValueNotAllowed => value_not_allowed(&mut problem, text, at),
        _ => {}
    }
    problem
}

fn one_character(text: &str, at: usize) -> Span {
    let width = text.get(at..).and_then(|rest| rest.chars().next()).map_or(0, char::len_utf8);
    Span::new(at, at + width)
}

fn concerns_quotes(kind: &ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::UnclosedQuotedScalar
            | ErrorKind::InvalidQuotedScalarIndent
            | ErrorKind::DocumentIndicatorInQuotedScalar
            | ErrorKind::InvalidTrailingSingleQuotedScalar
            | ErrorKind::InvalidTrailingDoubleQuotedScalar
    )
}

/// The parser reports where the text in quotes went wrong. It began with the first quote after
/// the last thing that was read whole.
fn opening_quote(text: &str, reached: usize, at: usize) -> Option<usize> {
    let gap = text.get(reached.min(at)..at)?;
    let mut comment = false;
    let mut before = ' ';
    for (n, c) in gap.char_indices() {
        match c {
            '\n' => comment = false,
            '#' if before.is_whitespace() => comment = true,
            '"' | '\'' if !comment => return Some(reached + n),
            _ => {}
        }
        before = c;
    }
    None
}

/// `a: b: c`, and a key whose line before lacks the space after its colon.
fn value_not_allowed(problem: &mut Problem, text: &str, at: usize) {
    let begin = text[..at].rfind('\n').map_or(0, |n| n + 1);
    let line = text[begin..at].trim_start();
    if line.contains(": ") {
        problem.message = "a second `: ` in one line".into();
        problem.help = Some("put the text after the first `:` into quotes".into());
        return;
    }
    let above = text[..begin].trim_end().rsplit('\n').next().unwrap_or_default().trim_start();
    let word = above.split_whitespace().next().unwrap_or_default();
    if let Some((key, value)) = word.split_once(':')
        && !key.is_empty()
        && !value.is_empty()
    {
        let key = super::super::diagnostic::shown(key);
        problem.message = "this line is read as part of the text above it".into();
        problem.help = Some(format!("the line above lacks a space: `{key}: …`"));
    }
}

fn words(kind: &ErrorKind) -> (&'static str, String, Option<&'static str>) {
    let say = |code, message: &str, help| (code, message.to_owned(), help);
    const SYNTAX: &str = "yaml-syntax";
    match kind {
        ErrorKind::UnclosedQuotedScalar
        | ErrorKind::InvalidQuotedScalarIndent
        | ErrorKind::DocumentIndicatorInQuotedScalar => say(
            "unclosed-quote",
            "a quote was not closed before here",
            Some("close the quote, or indent the lines that belong to it"),
        ),
        ErrorKind::InvalidTrailingSingleQuotedScalar
        | ErrorKind::InvalidTrailingDoubleQuotedScalar => say(
            "unclosed-quote",
            "there is text after the closing quote",
            Some("within '…' write '' for a quote, within \"…\" write \\\""),
        ),
        ErrorKind::UnexpectedCharacter { character: '\0' } => {
            say("nul-byte", "a NUL byte", Some("remove it; is this a text file?"))
        }
        ErrorKind::UnexpectedCharacter { character } => {
            let message =
                format!("the character `{}` cannot stand here", character.escape_default());
            let help = match character {
                '@' | '`' => Some("put the text into quotes"),
                c if c.is_control() => Some("remove it, or write it as an escape within \"…\""),
                _ => None,
            };
            (SYNTAX, message, help)
        }
        ErrorKind::TabNotAllowed
        | ErrorKind::TabInBlockIndentation
        | ErrorKind::TabInIndentation
        | ErrorKind::TabInPlainScalar
        | ErrorKind::TabAtBlockScalarStart => {
            say(SYNTAX, "a tab in the indentation", Some("indent with spaces"))
        }
        ErrorKind::RecursionLimitExceeded => {
            let message = format!("nested more than {} levels deep", super::MAX_DEPTH);
            ("too-deep", message, None)
        }
        ErrorKind::InvalidIndentation
        | ErrorKind::ExpectedBlockMappingKey
        | ErrorKind::ExpectedBlockSequenceEntry => say(
            SYNTAX,
            "this line does not fit to the lines above it",
            Some("give it the indentation of the entries it belongs to"),
        ),
        ErrorKind::MappingValueNotAllowed => say(
            SYNTAX,
            "a `:` cannot stand here",
            Some("check the indentation; put text that has `: ` into quotes"),
        ),
        ErrorKind::SimpleKeyExpected | ErrorKind::InvalidSimpleKey => {
            say(SYNTAX, "a `:` is missing after this key", None)
        }
        ErrorKind::UnclosedFlowCollection { open } => {
            let message = format!("a `{open}` is not closed");
            (SYNTAX, message, None)
        }
        ErrorKind::MismatchedFlowCollectionEnd { open, close } => {
            (SYNTAX, format!("`{close}` closes what `{open}` opened"), None)
        }
        ErrorKind::ExpectedFlowMappingSeparator => {
            say(SYNTAX, "a `,` or `}` is missing before this", None)
        }
        ErrorKind::ExpectedFlowSequenceSeparator => {
            say(SYNTAX, "a `,` or `]` is missing before this", None)
        }
        other => (SYNTAX, other.to_string(), None),
    }
}
