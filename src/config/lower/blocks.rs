//! Where each process stands in a file whose processes stand below each other, a block of lines each.

use crate::config::yaml::{Kind, Node, Parsed};
use crate::core::ids::ProcessId;

/// The lines of one process: from the line of its id to that of the next, or to the end of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    /// The process.
    pub(crate) id: ProcessId,
    /// The byte with which the line of its id begins.
    pub(crate) start: u32,
    /// How many bytes the id takes there, quotes included.
    pub(crate) key: u32,
}

/// All processes of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Blocks {
    /// In the order of the file; there is one at least.
    pub(crate) all: Vec<Block>,
    /// By so many spaces each id is indented.
    pub(crate) indent: u32,
    /// What the file takes of the budget of the tree, or more.
    pub(crate) spent: u64,
}

impl Blocks {
    /// Divides a file. None where what stands in one process may be of concern to another, or where it
    /// is written in another way.
    pub(crate) fn of(parsed: &Parsed<'_>, text: &str) -> Option<Blocks> {
        if parsed.has_anchors || !parsed.problems.is_empty() {
            return None;
        }
        // Nothing comes after the processes: what ends the last of them is the end of the file.
        let (key, processes) = lines(parsed.root.as_ref()?)?.last()?;
        if key.text() != Some("processes") {
            return None;
        }
        let mut indents = None;
        let mut all = Vec::new();
        for (key, _) in lines(processes)? {
            let id = ProcessId::new(key.text()?).ok()?;
            let start = text[..key.at.start as usize].rfind('\n')? + 1;
            let before = &text[start..key.at.start as usize];
            let indent = u32::try_from(before.len()).ok()?;
            let is_known = *indents.get_or_insert(indent) == indent;
            if !is_known || !before.bytes().all(|byte| byte == b' ') {
                return None;
            }
            let start = u32::try_from(start).ok()?;
            all.push(Block { id, start, key: key.at.end - key.at.start });
        }
        Some(Blocks { all, indent: indents?, spent: parsed.spent })
    }
}

/// The entries of a mapping that is not in braces.
fn lines<'n, 'a>(node: &'n Node<'a>) -> Option<&'n [(Node<'a>, Node<'a>)]> {
    match &node.value.kind {
        Kind::Mapping { entries, flow: false } => Some(entries),
        _ => None,
    }
}
