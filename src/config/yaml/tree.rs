//! The tree.

use std::borrow::Cow;
use std::rc::Rc;

/// Some bytes of a file. A file has at most 16 MiB, so 32 bits are enough.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span {
    /// The first byte.
    pub(crate) start: u32,
    /// The first byte that is no longer of it.
    pub(crate) end: u32,
}

impl Span {
    pub(crate) fn new(start: usize, end: usize) -> Span {
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Span { start: number(start), end: number(end.max(start)) }
    }

    pub(crate) fn range(self) -> std::ops::Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// A node where it stands. Several nodes can share one value.
#[derive(Clone, Debug)]
pub(crate) struct Node<'a> {
    /// Where it stands: for an alias the `*name`, else the value itself.
    pub(crate) at: Span,
    /// Whether an alias stands here.
    pub(crate) alias: bool,
    /// What it is.
    pub(crate) value: Rc<Value<'a>>,
}

/// What a node is.
#[derive(Debug)]
pub(crate) struct Value<'a> {
    /// From its first byte to its last; without the anchor.
    pub(crate) span: Span,
    /// Whether an alias may refer to it.
    pub(crate) anchored: bool,
    /// How much it is, itself and all below it, aliases followed.
    pub(crate) size: u64,
    /// How many levels it has, itself included, aliases followed.
    pub(crate) depth: usize,
    /// Its content.
    pub(crate) kind: Kind<'a>,
}

/// The content of a value.
#[derive(Debug)]
pub(crate) enum Kind<'a> {
    /// Nothing at all, or `null`, `~`.
    Null {
        /// Whether it was written.
        written: bool,
    },
    /// A text as it stands in the source, or as its quotes say.
    Scalar {
        /// The text.
        text: Cow<'a, str>,
        /// How it was written.
        style: Style,
    },
    /// A list.
    Sequence(Vec<Node<'a>>),
    /// Keys and values, in the order written, duplicates and merges included.
    Mapping {
        /// The entries.
        entries: Vec<(Node<'a>, Node<'a>)>,
        /// Written in braces.
        flow: bool,
    },
    /// Something that was already reported.
    Broken,
}

/// How a text was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// Without quotes.
    Plain,
    /// In quotes of either kind.
    Quoted,
    /// After `|` or `>`.
    Block,
}

impl<'a> Node<'a> {
    /// The text, when it is one.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.value.kind {
            Kind::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// The entries, when it is a mapping.
    pub(crate) fn entries(&self) -> Option<&[(Node<'a>, Node<'a>)]> {
        match &self.value.kind {
            Kind::Mapping { entries, .. } => Some(entries),
            _ => None,
        }
    }

    /// The value of the first entry of that name, merges not followed.
    pub(crate) fn get(&self, key: &str) -> Option<&Node<'a>> {
        let found = self.entries()?.iter().find(|(k, _)| k.text() == Some(key));
        found.map(|(_, value)| value)
    }

    /// Whether it is the `<<` of a merge. In quotes it is a key like any other.
    pub(crate) fn is_merge(&self) -> bool {
        matches!(&self.value.kind, Kind::Scalar { text, style: Style::Plain } if text == "<<")
    }
}

impl Kind<'_> {
    /// What it is, for a message.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Kind::Null { .. } => "nothing",
            Kind::Scalar { .. } => "a single value",
            Kind::Sequence(_) => "a list",
            Kind::Mapping { .. } => "a mapping",
            Kind::Broken => "something unreadable",
        }
    }
}
