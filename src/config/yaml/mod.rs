//! YAML to a tree of nodes that know their bytes. Nothing outside of this module knows which parser
//! is used.
//!
//! An anchored node is shared by its aliases and never copied. What an alias brings in is charged
//! to a budget, so whoever walks the whole tree, aliases followed, has bounded work; and depth is
//! counted through aliases, so whoever recurses has a bounded stack.

mod build;
mod syntax;
mod tree;

pub(crate) use build::{BUDGET, MAX_DEPTH, Parsed, parse};
pub(crate) use tree::{Kind, Node, Span, Style, Value};

/// Something wrong with the text as YAML.
#[derive(Debug)]
pub(crate) struct Problem {
    /// The rule.
    pub(crate) code: &'static str,
    /// Where.
    pub(crate) span: Span,
    /// What is wrong.
    pub(crate) message: String,
    /// What to do.
    pub(crate) help: Option<String>,
    /// Another place that belongs to it.
    pub(crate) related: Option<(Span, &'static str)>,
}
