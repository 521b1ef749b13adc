//! A file's text with its lines, so that a byte offset becomes a line and a column.

use super::diagnostic::Place;
use super::yaml::Span;
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
    /// How many characters there are before each block of [`BLOCK`] bytes. A line may be the whole
    /// of a large file, with a problem at every other byte.
    characters: Vec<usize>,
}

const BLOCK: usize = 256;

impl<'a> SourceText<'a> {
    pub(crate) fn new(path: Arc<PathBuf>, text: &'a str) -> SourceText<'a> {
        let starts = text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(n, _)| n + 1);
        let lines = std::iter::once(0).chain(starts).collect();
        let mut before = 0;
        let blocks = text.as_bytes().chunks(BLOCK).map(|block| {
            let start = before;
            before += characters(block);
            start
        });
        let characters = blocks.collect();
        SourceText { path, text, lines, characters }
    }

    /// How many characters there are before an offset.
    fn characters_before(&self, offset: usize) -> usize {
        let block = offset / BLOCK;
        let known = self.characters.get(block).copied();
        let (known, start) = match known {
            Some(known) => (known, block * BLOCK),
            // The end of a text of whole blocks.
            None => (0, 0),
        };
        known + characters(&self.text.as_bytes()[start..offset])
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
        let offset = offset.min(self.text.len());
        let (index, start) = self.line_of(offset);
        let mark = index == 0 && self.text.starts_with(BOM) && offset > 0;
        let column = self.characters_before(offset) - self.characters_before(start);
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        (number(index + 1), number(column + 1 - usize::from(mark)))
    }
}

/// Every character has one byte that does not continue another.
fn characters(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte & 0b1100_0000 != 0b1000_0000).count()
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
    fn columns_of_a_long_line() {
        for length in [BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK] {
            let line = format!("a\n{}", "é".repeat(length));
            let text = SourceText::new(Arc::default(), &line);
            for offset in [2, 2 + length, 2 * length, 2 + 2 * length] {
                let place = text.place(offset..offset);
                let column = line[2..offset.next_multiple_of(2)].chars().count() + 1;
                assert_eq!((place.line, place.column as usize), (2, column), "{length} {offset}");
            }
        }
    }

    #[test]
    fn the_place_of_an_invalid_byte() {
        assert_eq!(invalid_utf8_at(b"a: 1\nb: \xc3\xa9\xff", 10), (2, 5));
    }
}
