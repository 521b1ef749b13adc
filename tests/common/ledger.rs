//! The file of states and runs, taken apart and put together by its description alone.

use serde_json::Value;
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::fs;
use std::path::Path;

/// One thing that is said.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// `whole`, `state`, `run`, `gone` or `outcome`.
    pub kind: String,
    /// `all`, `web@0`, `web@0-b`.
    pub subject: String,
    pub body: Value,
}

/// As it is written, in this version of the format.
pub fn text(version: &str, entry: &Entry) -> String {
    let body = entry.body.to_string();
    let rest = format!(" {:010} {}\n{body}\n", body.len(), entry.subject);
    let head = format!("provost {} {version} ", entry.kind);
    let digest = Sha256::new().chain_update(&head).chain_update(&rest).finalize();
    let digest = digest.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    });
    format!("{head}{digest}{rest}")
}

/// All that is said, one after the other.
pub fn read(path: &Path) -> Vec<Entry> {
    let content = fs::read_to_string(path).unwrap();
    let lines: Vec<&str> = content.lines().collect();
    let entry = |lines: &[&str]| {
        let words: Vec<&str> = lines[0].split(' ').collect();
        let body = serde_json::from_str(lines[1]).unwrap();
        Entry { kind: words[1].to_owned(), subject: words[5].to_owned(), body }
    };
    lines.chunks(2).map(entry).collect()
}

/// Says this and nothing else.
pub fn write(path: &Path, entries: &[Entry]) {
    fs::write(path, entries.iter().map(|entry| text("1", entry)).collect::<String>()).unwrap();
}

/// Changes the last word of a kind on a subject.
pub fn change(path: &Path, kind: &str, subject: &str, change: impl FnOnce(&mut Value)) {
    let mut entries = read(path);
    let is_meant = |entry: &&mut Entry| entry.kind == kind && entry.subject == subject;
    let last = entries.iter_mut().rev().find(is_meant).expect("it is said");
    change(&mut last.body);
    write(path, &entries);
}

/// Nothing of a kind was ever said on a subject.
pub fn unsay(path: &Path, kind: &str, subject: &str) {
    let mut entries = read(path);
    let before = entries.len();
    entries.retain(|entry| entry.kind != kind || entry.subject != subject);
    assert_ne!(entries.len(), before, "it is said");
    write(path, &entries);
}
