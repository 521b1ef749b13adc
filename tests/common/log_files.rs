//! Log files that are rotated.

use std::path::{Path, PathBuf};

/// All that is in a log, the oldest file first, and how many files there are.
pub fn whole(path: &Path) -> (String, usize) {
    let numbered = |number: usize| match number {
        0 => path.to_owned(),
        number => PathBuf::from(format!("{}.{number}", path.display())),
    };
    let count = (0..).take_while(|number| numbered(*number).exists()).count();
    // One may be renamed meanwhile.
    let files = (0..count).rev().map(|number| std::fs::read(numbered(number)).unwrap_or_default());
    let bytes: Vec<u8> = files.flatten().collect();
    (String::from_utf8_lossy(&bytes).into_owned(), count)
}

/// The numbers from 1 to `last`, a line each.
pub fn numbers(last: usize) -> String {
    (1..=last).map(|n| format!("{n}\n")).collect()
}
