//! How diagnostics are shown: with the lines they are about, and never with a value of a variable.

use super::diagnostic::{Diagnostic, Place, Severity, escaped};
use super::load::Sources;
use super::mask;
use super::text::SourceText;
use annotate_snippets::{Annotation, AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

/// A longer line is shown in part.
const LONGEST_LINE: usize = 160;

/// Each diagnostic as one text of several lines: `file:line:column`, the lines, other places, help.
#[must_use]
pub fn render(diagnostics: &[Diagnostic], sources: &Sources, color: bool) -> Vec<String> {
    let renderer = if color { Renderer::styled() } else { Renderer::plain() };
    let files = Files::new(sources, diagnostics);
    diagnostics.iter().map(|diagnostic| report(diagnostic, &files, &renderer)).collect()
}

/// A diagnostic in one line: `FILE:LINE:COL: error: MESSAGE (help)`.
#[must_use]
pub fn one_line(diagnostic: &Diagnostic) -> String {
    let Diagnostic { severity, message, place, help, .. } = diagnostic;
    let help = help.as_ref().map(|help| format!(" ({help})")).unwrap_or_default();
    escaped(&format!("{}: {}: {message}{help}", place_of(place), severity.word()))
}

fn place_of(place: &Place) -> String {
    let file = place.file.to_string_lossy().into_owned();
    match (place.line, file.is_empty()) {
        (0, true) => "configuration".into(),
        (0, false) => file,
        (line, _) => format!("{file}:{line}:{}", place.column),
    }
}

/// The texts that are needed, each with what must not be shown of it.
struct Files<'a> {
    texts: HashMap<&'a Path, (SourceText<'a>, Vec<Range<usize>>)>,
}

impl<'a> Files<'a> {
    fn new(sources: &'a Sources, diagnostics: &[Diagnostic]) -> Files<'a> {
        let places = diagnostics.iter().flat_map(|diagnostic| {
            let related = diagnostic.related.iter().map(|(place, _)| place);
            std::iter::once(&diagnostic.place).chain(related)
        });
        let needed: std::collections::HashSet<&Path> =
            places.filter(|place| place.line > 0).map(|place| place.file.as_path()).collect();
        let mut texts = HashMap::new();
        for source in &sources.files {
            let path = source.path.as_path();
            let Some(content) = source.content.as_ref().filter(|_| needed.contains(path)) else {
                continue;
            };
            // An invalid file shows its lines up to where it is invalid.
            let text = match std::str::from_utf8(content) {
                Ok(text) => text,
                Err(error) => {
                    let valid = &content[..error.valid_up_to()];
                    std::str::from_utf8(valid).unwrap_or_default()
                }
            };
            let text = SourceText::new(source.path.clone(), text);
            let secrets = mask::secrets(text.text, source.kind);
            texts.insert(path, (text, secrets));
        }
        Files { texts }
    }

    /// The line of a place, masked and not too long, with what is to be marked in it.
    fn excerpt(&self, place: &Place) -> Option<Excerpt> {
        let (text, secrets) = self.texts.get(place.file.as_path())?;
        let line = text.line(usize::try_from(place.line).ok()?.checked_sub(1)?)?;
        let mut mark = place.bytes.start.clamp(line.start, line.end)
            ..place.bytes.end.clamp(line.start, line.end);
        for edge in [&mut mark.start, &mut mark.end] {
            while !text.text.is_char_boundary(*edge) {
                *edge -= 1;
            }
        }
        Some(Excerpt::new(text.text, line, mark, secrets))
    }
}

/// One line as it is shown.
struct Excerpt {
    shown: String,
    mark: Range<usize>,
}

impl Excerpt {
    fn new(
        text: &str,
        line: Range<usize>,
        mark: Range<usize>,
        secrets: &[Range<usize>],
    ) -> Excerpt {
        // Around the mark, when the line is long.
        let mut window = line.clone();
        if line.len() > LONGEST_LINE {
            window.start = mark.start.saturating_sub(LONGEST_LINE / 2).max(line.start);
            window.end = (window.start + LONGEST_LINE).min(line.end);
            while !text.is_char_boundary(window.start) {
                window.start -= 1;
            }
            while !text.is_char_boundary(window.end) {
                window.end += 1;
            }
        }
        let mark = mark.start..mark.end.min(window.end).max(mark.start);
        let mut excerpt = Excerpt { shown: String::new(), mark: 0..0 };
        let mut marked: (Option<usize>, usize) = (None, 0);
        let mut at = window.start;
        if window.start > line.start {
            excerpt.shown.push('…');
        }
        let first = secrets.partition_point(|secret| secret.end <= at);
        let mut secrets = secrets[first..].iter().peekable();
        while at < window.end {
            if let Some(secret) = secrets.next_if(|secret| secret.start <= at) {
                let blank = text[at..].starts_with(' ');
                let begin = excerpt.shown.len() + usize::from(blank);
                excerpt.shown.push_str(if blank { " ***" } else { "***" });
                if mark.start < secret.end.min(window.end) && mark.end >= at {
                    marked = (marked.0.or(Some(begin)), excerpt.shown.len());
                }
                at = secret.end.min(window.end);
                continue;
            }
            let Some(c) = text[at..].chars().next() else { break };
            if mark.start == at {
                marked.0 = marked.0.or(Some(excerpt.shown.len()));
            }
            if c != '\u{feff}' {
                excerpt.shown.push(c);
            }
            at += c.len_utf8();
            if mark.contains(&(at - 1)) {
                marked.1 = excerpt.shown.len();
            }
        }
        let end = excerpt.shown.len();
        if window.end < line.end {
            excerpt.shown.push('…');
        }
        let start = marked.0.unwrap_or(end);
        excerpt.mark = start..marked.1.max(start);
        excerpt
    }
}

/// A snippet, and the column it will show where the line is masked or cut.
struct Shown<'a> {
    snippet: Option<Snippet<'a, Annotation<'a>>>,
    origin: Option<Origin<'a>>,
    /// What the renderer will say, and what is true.
    columns: Option<(String, String)>,
}

impl<'a> Shown<'a> {
    fn new(place: &Place, word: Option<&'a str>, kind: AnnotationKind, files: &Files<'_>) -> Self {
        let path = place.file.to_string_lossy().into_owned();
        let nothing = Shown { snippet: None, origin: None, columns: None };
        if path.is_empty() {
            return nothing;
        }
        let Some(Excerpt { shown, mark }) = files.excerpt(place) else {
            let mut origin = Origin::path(path);
            if place.line > 0 {
                origin = origin.line(place.line as usize).char_column(place.column as usize);
            }
            return Shown { origin: Some(origin), ..nothing };
        };
        let column = shown[..mark.start].chars().count() + 1;
        let said = |column: usize| format!("{path}:{}:{column}", place.line);
        let columns = (said(column), said(place.column as usize));
        let snippet = Snippet::source(shown)
            .path(path)
            .line_start(place.line as usize)
            .annotation(kind.span(mark).label(word));
        let columns = (columns.0 != columns.1).then_some(columns);
        Shown { snippet: Some(snippet), columns, ..nothing }
    }
}

fn report(diagnostic: &Diagnostic, files: &Files<'_>, renderer: &Renderer) -> String {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let first = Shown::new(&diagnostic.place, None, AnnotationKind::Primary, files);
    let others = diagnostic
        .related
        .iter()
        .map(|(place, word)| Shown::new(place, Some(word), AnnotationKind::Context, files));
    let title = level.primary_title(&diagnostic.message).id(diagnostic.code);
    let mut group = Group::with_title(title);
    let mut columns = Vec::new();
    for shown in std::iter::once(first).chain(others) {
        if let Some(snippet) = shown.snippet {
            group = group.element(snippet);
        }
        if let Some(origin) = shown.origin {
            group = group.element(origin);
        }
        columns.extend(shown.columns);
    }
    if let Some(help) = &diagnostic.help {
        group = group.element(Level::HELP.message(escaped(help)));
    }
    let mut text = renderer.render(&[group]);
    for (said, meant) in columns {
        // The renderer counts columns in the line as it is shown.
        text = text.replacen(&said, &meant, 1);
    }
    text
}
