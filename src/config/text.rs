//! A file's text with its lines, so that a byte offset becomes a line and a column.

use super::diagnostic::Place;
use super::yaml::Span;
use std::cell::Cell;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

const BOM: char = '\u{feff}';

/// The text of one file.
#[derive(Debug)]
pub(crate) struct SourceText<'a> {
    /// Absolute.
    pub(crate) path: Arc<PathBuf>,
    /// Its text, with the byte order mark if there is one.
    pub(crate) text: &'a str,
    /// Where each line begins, in bytes.
    lines: Vec<usize>,
    /// The last offset asked for and the characters before it in its line: problems come mostly in
    /// order, and a line may be the whole of a large file.
    last: Cell<(usize, usize)>,
}

impl<'a> SourceText<'a> {
    pub(crate) fn new(path: Arc<PathBuf>, text: &'a str) -> SourceText<'a> {
        let starts = text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(n, _)| n + 1);
        let lines = std::iter::once(0).chain(starts).collect();
        SourceText { path, text, lines, last: Cell::default() }
    }

    /// The place of some bytes.
    pub(crate) fn place(&self, bytes: Range<usize>) -> Place {
        let (line, column) = self.line_and_column(bytes.start);
        Place { file: Arc::clone(&self.path), line, column, bytes }
    }

    /// The place of a node.
    pub(crate) fn at(&self, span: Span) -> Place {
        self.place(span.start as usize..span.end as usize)
    }

    /// The number of a line, counted from 0, and where it begins.
    pub(crate) fn line_of(&self, offset: usize) -> (usize, usize) {
        let index = self.lines.partition_point(|start| *start <= offset).saturating_sub(1);
        (index, self.lines[index])
    }

    /// The bytes of a line counted from 0, without its line break.
    pub(crate) fn line(&self, index: usize) -> Option<Range<usize>> {
        let start = *self.lines.get(index)?;
        let end = self.lines.get(index + 1).map_or(self.text.len(), |next| next - 1);
        let end = if self.text[start..end].ends_with('\r') { end - 1 } else { end };
        Some(start..end)
    }

    /// Columns count characters, and the byte order mark is none.
    fn line_and_column(&self, offset: usize) -> (u32, u32) {
        let (index, start) = self.line_of(offset);
        let mut offset = offset.clamp(start, self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        let (from, known) = match self.last.get() {
            (from, known) if (start..=offset).contains(&from) => (from, known),
            _ => (start, 0),
        };
        let before = known + self.text[from..offset].chars().filter(|c| *c != BOM).count();
        self.last.set((offset, before));
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        (number(index + 1), number(before + 1))
    }
}

/// Where the first invalid byte is, as line and column counted from 1.
pub(crate) fn invalid_utf8_at(bytes: &[u8], valid_up_to: usize) -> (u32, u32) {
    let valid = String::from_utf8_lossy(&bytes[..valid_up_to]);
    let text = SourceText::new(Arc::default(), &valid);
    text.line_and_column(valid_up_to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters() {
        let text = SourceText::new(Arc::default(), "\u{feff}été: 1\r\nb: ü x\n");
        let find = |what: &str| {
            let at = text.text.find(what).unwrap();
            let place = text.place(at..at + 1);
            (place.line, place.column)
        };
        assert_eq!(find("é"), (1, 1));
        assert_eq!(find("1"), (1, 6));
        assert_eq!(find("b"), (2, 1));
        assert_eq!(find("x"), (2, 6));
        assert_eq!(&text.text[text.line(0).unwrap()], "\u{feff}été: 1");
        assert_eq!(text.place(text.text.len()..text.text.len()).line, 3);
    }

    #[test]
    fn the_place_of_an_invalid_byte() {
        assert_eq!(invalid_utf8_at(b"a: 1\nb: \xc3\xa9\xff", 10), (2, 5));
    }
}
