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
    diagnostics.iter().map(|diagnostic| renderer.render(&report(diagnostic, &files))).collect()
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

fn report<'a>(diagnostic: &'a Diagnostic, files: &Files<'_>) -> Vec<Group<'a>> {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let title = level.primary_title(&diagnostic.message).id(diagnostic.code);
    let mut group = Group::with_title(title);
    for element in shown_place(&diagnostic.place, None, AnnotationKind::Primary, files) {
        group = element.add_to(group);
    }
    for (place, word) in &diagnostic.related {
        let kind = AnnotationKind::Context;
        for element in shown_place(place, Some(word), kind, files) {
            group = element.add_to(group);
        }
    }
    if let Some(help) = &diagnostic.help {
        group = group.element(Level::HELP.message(escaped(help)));
    }
    vec![group]
}

enum Shown<'a> {
    Place(Origin<'a>),
    Lines(Snippet<'a, Annotation<'a>>),
}

impl<'a> Shown<'a> {
    fn add_to(self, group: Group<'a>) -> Group<'a> {
        match self {
            Shown::Place(origin) => group.element(origin),
            Shown::Lines(snippet) => group.element(snippet),
        }
    }
}

/// The place in words, since a masked line has other columns; then the line.
fn shown_place<'a>(
    place: &Place,
    word: Option<&'a str>,
    kind: AnnotationKind,
    files: &Files<'_>,
) -> Vec<Shown<'a>> {
    let path = place.file.to_string_lossy().into_owned();
    if path.is_empty() {
        return Vec::new();
    }
    let mut origin = Origin::path(path);
    if place.line > 0 {
        origin = origin.line(place.line as usize).char_column(place.column as usize);
    }
    let mut shown = vec![Shown::Place(origin)];
    if let Some(excerpt) = files.excerpt(place) {
        let annotation = kind.span(excerpt.mark).label(word);
        let snippet =
            Snippet::source(excerpt.shown).line_start(place.line as usize).annotation(annotation);
        shown.push(Shown::Lines(snippet));
    }
    shown
}
