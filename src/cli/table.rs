//! Aligned columns.

use super::screen::{Screen, Style, Tone, visible};
use std::io;

/// One cell.
#[derive(Clone, Debug)]
pub struct Cell {
    text: String,
    tone: Tone,
    right: bool,
}

impl Cell {
    /// Text, aligned to the left.
    pub fn text(text: impl AsRef<str>) -> Cell {
        Cell { text: visible(text.as_ref()), tone: Tone::Plain, right: false }
    }

    /// A number, aligned to the right; a dash where there is none.
    pub fn number(number: Option<impl ToString>) -> Cell {
        let text = number.map_or_else(|| "-".to_owned(), |number| number.to_string());
        Cell { text, tone: Tone::Plain, right: true }
    }

    /// The same in a tone.
    #[must_use]
    pub fn tone(self, tone: Tone) -> Cell {
        Cell { tone, ..self }
    }
}

/// Rows under headings. On a terminal that is too narrow some columns are left out, and the last one is
/// cut.
#[derive(Debug)]
pub struct Table {
    heads: Vec<&'static str>,
    /// Columns that are left out where the last one would have no room, the first of them first.
    spare: &'static [&'static str],
    rows: Vec<Vec<Cell>>,
}

/// What is between two columns.
const GAP: &str = "  ";

/// So much of the last column is worth more than those that can be spared.
const ROOM: usize = 36;

impl Table {
    /// Headings without rows.
    #[must_use]
    pub fn new(heads: &[&'static str]) -> Table {
        Table { heads: heads.to_vec(), spare: &[], rows: Vec::new() }
    }

    /// These columns are left out, one after the other, as long as the last one has no room.
    #[must_use]
    pub fn sparing(self, spare: &'static [&'static str]) -> Table {
        Table { spare, ..self }
    }

    /// One more row, with as many cells as there are headings.
    pub fn row(&mut self, cells: Vec<Cell>) {
        debug_assert_eq!(cells.len(), self.heads.len());
        self.rows.push(cells);
    }

    /// Prints it.
    ///
    /// # Errors
    /// When standard output is closed.
    pub fn print(&self, screen: &mut Screen) -> io::Result<()> {
        let (style, width) = (screen.style, screen.width());
        for line in self.lines(style, width) {
            screen.line(line)?;
        }
        Ok(())
    }

    fn lines(&self, style: Style, width: Option<usize>) -> Vec<String> {
        let widths: Vec<usize> = (0..self.heads.len())
            .map(|column| {
                let cells = self.rows.iter().map(|row| length(&row[column].text));
                cells.chain([length(self.heads[column])]).max().unwrap_or(0)
            })
            .collect();
        let heads = self.heads.iter().enumerate().map(|(column, head)| Cell {
            text: (*head).to_owned(),
            tone: Tone::Strong,
            right: self.rows.iter().any(|row| row[column].right),
        });
        let kept = self.kept(&widths, width);
        std::iter::once(heads.collect())
            .chain(self.rows.iter().cloned())
            .map(|cells: Vec<Cell>| {
                let cells: Vec<(&Cell, usize)> =
                    kept.iter().map(|column| (&cells[*column], widths[*column])).collect();
                line(&cells, style, width)
            })
            .collect()
    }

    /// The columns that there is room for.
    fn kept(&self, widths: &[usize], width: Option<usize>) -> Vec<usize> {
        let mut kept: Vec<usize> = (0..self.heads.len()).collect();
        let Some((width, last)) = width.zip(self.heads.len().checked_sub(1)) else { return kept };
        let wanted = widths[last].min(ROOM);
        for spare in self.spare {
            let others = kept.iter().filter(|column| **column != last);
            let used: usize = others.map(|column| widths[*column] + GAP.len()).sum();
            if used + wanted <= width {
                break;
            }
            kept.retain(|column| self.heads[*column] != *spare);
        }
        kept
    }
}

fn line(cells: &[(&Cell, usize)], style: Style, width: Option<usize>) -> String {
    let mut out = String::new();
    let mut used = 0;
    for (column, (cell, wide)) in cells.iter().enumerate() {
        let last = column + 1 == cells.len();
        let pad = wide - length(&cell.text);
        let text = match width {
            Some(width) if last => cut(&cell.text, width.saturating_sub(used), style.unicode),
            _ => cell.text.clone(),
        };
        let painted = style.paint(cell.tone, text).to_string();
        match (cell.right, last) {
            (true, _) => out.extend([" ".repeat(pad), painted]),
            (false, true) => out.push_str(&painted),
            (false, false) => out.extend([painted, " ".repeat(pad)]),
        }
        if !last {
            out.push_str(GAP);
        }
        used += wide + GAP.len();
    }
    out.truncate(out.trim_end_matches(' ').len());
    out
}

/// How many columns a text takes. What stands in all columns but the last is ASCII and a few symbols
/// of one column each.
fn length(text: &str) -> usize {
    text.chars().count()
}

/// A text that takes at most so many columns, with a sign where something was left out. In no room
/// worth speaking of it stays whole: the terminal wraps it.
#[must_use]
pub fn cut(text: &str, width: usize, unicode: bool) -> String {
    let sign = if unicode { "…" } else { "..." };
    if length(text) <= width || width < 12 {
        return text.to_owned();
    }
    let kept: String = text.chars().take(width - length(sign)).collect();
    format!("{}{sign}", kept.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_the_last_is_cut() {
        let mut table = Table::new(&["NAME", "PID", "WHY"]);
        table.row(vec![Cell::text("api"), Cell::number(Some(4711)), Cell::text("")]);
        table.row(vec![
            Cell::text("worker@12"),
            Cell::number(None::<u32>),
            Cell::text("a long story about a process").tone(Tone::Bad),
        ]);
        let plain = Style::default();
        assert_eq!(
            table.lines(plain, None),
            [
                "NAME        PID  WHY",
                "api        4711",
                "worker@12     -  a long story about a process",
            ]
        );
        assert_eq!(table.lines(plain, Some(38))[2], "worker@12     -  a long story about...");
        let unicode = Style { unicode: true, ..plain };
        assert_eq!(table.lines(unicode, Some(37))[2], "worker@12     -  a long story about…");
    }

    #[test]
    fn where_there_is_no_room_some_columns_are_left_out() {
        let mut table = Table::new(&["NAME", "CPU", "MEMORY", "WHY"]).sparing(&["CPU", "MEMORY"]);
        let cells = ["api", "0.10 s", "1.2 MiB", "waits for db to be healthy"];
        table.row(cells.iter().map(Cell::text).collect());
        let at = |width| table.lines(Style::default(), width)[1].clone();
        assert_eq!(at(None), "api   0.10 s  1.2 MiB  waits for db to be healthy");
        assert_eq!(at(Some(49)), at(None));
        assert_eq!(at(Some(48)), "api   1.2 MiB  waits for db to be healthy");
        assert_eq!(at(Some(40)), "api   waits for db to be healthy");
        assert_eq!(at(Some(30)), "api   waits for db to be he...");
    }

    #[test]
    fn colours_do_not_change_the_alignment() {
        let mut table = Table::new(&["A", "B"]);
        table.row(vec![Cell::text("x").tone(Tone::Good), Cell::text("y")]);
        table.row(vec![Cell::text("long"), Cell::text("z")]);
        let style = Style { colour: true, ..Style::default() };
        assert_eq!(table.lines(style, None)[1], "\x1b[32mx\x1b[0m     y");
    }
}
