//! Events of the parser to the tree, with a stack of its own.

use super::Problem;
use super::syntax;
use super::tree::{Kind, Node, Span, Style, Value};
use granit_parser::{Event, Options, Parser, ScalarStyle, StructureStyle};
use std::borrow::Cow;
use std::collections::HashMap;
use std::rc::Rc;

/// So many levels are allowed.
pub(crate) const MAX_DEPTH: usize = 256;

/// So much may be in a file, aliases followed. Ten thousand processes of forty nodes each need a
/// fifth of it.
pub(crate) const BUDGET: u64 = 4_000_000;

/// So many bytes of a text count as much as a node: a long text behind many aliases is copied by
/// whoever reads it.
const BYTES_PER_NODE: u64 = 64;

/// What became of a text.
#[derive(Debug)]
pub(crate) struct Parsed<'a> {
    /// The tree. None when the text is empty or no YAML.
    pub(crate) root: Option<Node<'a>>,
    /// What is wrong with it.
    pub(crate) problems: Vec<Problem>,
    /// How much of [`BUDGET`] it took.
    pub(crate) spent: u64,
    /// Whether there is anything in it that another place could refer to.
    pub(crate) has_anchors: bool,
}

/// Reads the first document of `text`.
pub(crate) fn parse(text: &str) -> Parsed<'_> {
    let mut builder = Builder::default();
    let mut options = Options::default();
    options.set_emit_comments(false);
    options.emit_unresolved_aliases = true;
    options.flow_nesting_limit = MAX_DEPTH;
    options.block_nesting_limit = MAX_DEPTH;
    let mut reached = 0;
    for event in Parser::new_from_str_with_options(text, options) {
        match event {
            Ok((event, span)) => {
                let range = span.byte_range().unwrap_or(reached..reached);
                reached = reached.max(range.end);
                let tag = span.tag_span().and_then(|tag| tag.byte_range());
                let at = Span::new(range.start, range.end);
                builder.tag = tag.map(|tag| Span::new(tag.start, tag.end));
                if builder.event(event, at, text).is_break() {
                    break;
                }
            }
            Err(error) => {
                builder.problems.push(syntax::problem(&error, text, reached));
                builder.root = None;
                break;
            }
        }
    }
    let has_anchors = !builder.anchors.is_empty();
    let Builder { root, problems, spent, .. } = builder;
    Parsed { root, problems, spent, has_anchors }
}

/// A collection that is not closed yet.
struct Open<'a> {
    start: Span,
    anchor: usize,
    flow: bool,
    content: Content<'a>,
    size: u64,
    depth: usize,
    end: u32,
}

enum Content<'a> {
    Sequence(Vec<Node<'a>>),
    Mapping { entries: Vec<(Node<'a>, Node<'a>)>, key: Option<Node<'a>> },
}

#[derive(Default)]
struct Builder<'a> {
    stack: Vec<Open<'a>>,
    anchors: HashMap<usize, Rc<Value<'a>>>,
    root: Option<Node<'a>>,
    documents: usize,
    spent: u64,
    tag: Option<Span>,
    problems: Vec<Problem>,
}

type Flow = std::ops::ControlFlow<()>;

impl<'a> Builder<'a> {
    fn event(&mut self, event: Event<'a>, at: Span, source: &str) -> Flow {
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    return self.second_document(at);
                }
                Flow::Continue(())
            }
            Event::Scalar(text, style, anchor, tag) => {
                if tag.is_some() {
                    self.refuse_tag(at, source);
                }
                let kind = scalar(text, style, at);
                let size = match &kind {
                    Kind::Scalar { text, .. } => 1 + text.len() as u64 / BYTES_PER_NODE,
                    _ => 1,
                };
                self.finish(kind, at, anchor, size, 1)
            }
            Event::SequenceStart(style, anchor, tag) => {
                self.open(style, anchor, tag.is_some(), at, source, Content::Sequence(Vec::new()))
            }
            Event::MappingStart(style, anchor, tag) => {
                let content = Content::Mapping { entries: Vec::new(), key: None };
                self.open(style, anchor, tag.is_some(), at, source, content)
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(at),
            Event::Alias(id) => self.alias(id, at, source),
            Event::UnresolvedAlias(name) => {
                let message =
                    format!("there is no anchor `&{}`", super::super::diagnostic::shown(&name));
                self.problem(
                    "unknown-anchor",
                    at,
                    message,
                    Some("an anchor stands before its use"),
                );
                self.finish(Kind::Broken, at, 0, 1, 1)
            }
            _ => Flow::Continue(()),
        }
    }

    fn problem(&mut self, code: &'static str, span: Span, message: String, help: Option<&str>) {
        let help = help.map(str::to_owned);
        self.problems.push(Problem { code, span, message, help, related: None });
    }

    fn second_document(&mut self, at: Span) -> Flow {
        let help = "put everything into one document, or into files of the drop-in directory";
        self.problem("second-document", at, "a second document begins here".into(), Some(help));
        Flow::Break(())
    }

    fn refuse_tag(&mut self, at: Span, source: &str) {
        let span = self.tag.unwrap_or(at);
        let tag = source.get(span.range()).unwrap_or("!");
        let message =
            format!("tags such as `{}` are not supported", super::super::diagnostic::shown(tag));
        self.problem(
            "tag",
            span,
            message,
            Some("remove the tag; text that begins with `!` needs quotes"),
        );
    }

    fn alias(&mut self, id: usize, at: Span, source: &str) -> Flow {
        let Some(value) = self.anchors.get(&id).map(Rc::clone) else {
            let name = source.get(at.range()).unwrap_or("*");
            let message = format!(
                "`{}` stands inside of what it refers to",
                super::super::diagnostic::shown(name)
            );
            self.problem("self-reference", at, message, None);
            return self.finish(Kind::Broken, at, 0, 1, 1);
        };
        self.add(Node { at, alias: true, value })
    }

    fn open(
        &mut self,
        style: StructureStyle,
        anchor: usize,
        tagged: bool,
        start: Span,
        source: &str,
        content: Content<'a>,
    ) -> Flow {
        if tagged {
            self.refuse_tag(start, source);
        }
        if self.stack.len() >= MAX_DEPTH {
            return self.too_deep(start);
        }
        let flow = matches!(style, StructureStyle::Flow);
        self.stack.push(Open { start, anchor, flow, content, size: 1, depth: 0, end: start.end });
        Flow::Continue(())
    }

    fn close(&mut self, at: Span) -> Flow {
        let Some(open) = self.stack.pop() else { return Flow::Continue(()) };
        // The end of a block collection is where the next thing begins, after comments and blank
        // lines; what belongs to it ends with its last child.
        let end = if open.flow { at.end } else { open.end };
        let span = Span { start: open.start.start, end };
        let kind = match open.content {
            Content::Sequence(items) => Kind::Sequence(items),
            Content::Mapping { entries, .. } => Kind::Mapping { entries, flow: open.flow },
        };
        self.finish(kind, span, open.anchor, open.size, open.depth + 1)
    }

    fn finish(
        &mut self,
        kind: Kind<'a>,
        span: Span,
        anchor: usize,
        size: u64,
        depth: usize,
    ) -> Flow {
        let value = Rc::new(Value { span, anchored: anchor != 0, size, depth, kind });
        if anchor != 0 {
            self.anchors.insert(anchor, Rc::clone(&value));
        }
        self.add(Node { at: span, alias: false, value })
    }

    /// Puts a node where it belongs, and charges it.
    fn add(&mut self, node: Node<'a>) -> Flow {
        // A collection's children were charged when they were added.
        let own = match (&node.value.kind, node.alias) {
            (Kind::Sequence(_) | Kind::Mapping { .. }, false) => 1,
            _ => node.value.size,
        };
        self.spent = self.spent.saturating_add(own);
        if self.spent > BUDGET {
            return self.too_much(&node);
        }
        if self.stack.len() + node.value.depth > MAX_DEPTH {
            return self.too_deep(node.at);
        }
        let Some(parent) = self.stack.last_mut() else {
            self.root = Some(node);
            return Flow::Continue(());
        };
        parent.size = parent.size.saturating_add(node.value.size);
        parent.depth = parent.depth.max(node.value.depth);
        parent.end = parent.end.max(node.at.end);
        match &mut parent.content {
            Content::Sequence(items) => items.push(node),
            Content::Mapping { entries, key } => match key.take() {
                None => *key = Some(node),
                Some(key) => entries.push((key, node)),
            },
        }
        Flow::Continue(())
    }

    fn too_deep(&mut self, at: Span) -> Flow {
        let message = format!("nested more than {MAX_DEPTH} levels deep");
        self.problem("too-deep", at, message, None);
        self.root = None;
        Flow::Break(())
    }

    fn too_much(&mut self, node: &Node<'a>) -> Flow {
        let (what, help) = if node.alias {
            ("what the aliases up to here bring in is", "aliases count with all they refer to")
        } else {
            ("the file has", "divide it over files of the drop-in directory")
        };
        let message = format!("{what} more than {BUDGET} values");
        self.problem("too-large", node.at, message, Some(help));
        self.root = None;
        Flow::Break(())
    }
}

fn scalar(text: Cow<'_, str>, style: ScalarStyle, at: Span) -> Kind<'_> {
    let style = match style {
        ScalarStyle::Plain => Style::Plain,
        ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => Style::Quoted,
        ScalarStyle::Literal | ScalarStyle::Folded => Style::Block,
    };
    match (&*text, style) {
        // The parser gives a missing value as `~` of no bytes.
        ("~" | "", Style::Plain) if at.start == at.end => Kind::Null { written: false },
        ("~" | "null" | "Null" | "NULL", Style::Plain) => Kind::Null { written: true },
        _ => Kind::Scalar { text, style },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> &'static str {
        let parsed = parse(text);
        parsed.problems.first().map_or("none", |problem| problem.code)
    }

    #[test]
    fn spans_are_those_of_the_content() {
        let text = "a:\n  b: 1\n  c:\n  - x\n  - y z\n\n# comment\nd: {e: [f]}\n";
        let root = parse(text).root.unwrap();
        let slice = |key: &str| &text[root.get(key).unwrap().value.span.range()];
        assert_eq!(slice("a"), "b: 1\n  c:\n  - x\n  - y z");
        assert_eq!(slice("d"), "{e: [f]}");
    }

    #[test]
    fn nulls_are_told_from_nothing() {
        let root = parse("a:\nb: ~\nc: null\nd: \"\"\ne: '~'\n").root.unwrap();
        let kind = |key: &str| &root.get(key).unwrap().value;
        assert!(matches!(kind("a").kind, Kind::Null { written: false }));
        assert!(matches!(kind("b").kind, Kind::Null { written: true }));
        assert!(matches!(kind("c").kind, Kind::Null { written: true }));
        assert!(matches!(kind("d").kind, Kind::Scalar { style: Style::Quoted, .. }));
        assert!(matches!(kind("e").kind, Kind::Scalar { style: Style::Quoted, .. }));
    }

    #[test]
    fn aliases_share_and_count() {
        let text = "a: &a [1, 2, 3]\nb: [*a, *a]\n";
        let root = parse(text).root.unwrap();
        let a = &root.get("a").unwrap().value;
        let Kind::Sequence(items) = &root.get("b").unwrap().value.kind else { panic!() };
        assert!(items.iter().all(|item| item.alias && Rc::ptr_eq(&item.value, a)));
        assert_eq!(a.size, 4);
        assert_eq!(root.get("b").unwrap().value.size, 9);
        assert_eq!(root.get("b").unwrap().value.depth, 3);
    }

    #[test]
    fn hostile_inputs_are_refused() {
        assert_eq!(code(&"[".repeat(200_000)), "too-deep");
        assert_eq!(code(&"- ".repeat(100_000)), "too-deep");
        let block: String = (0..6_000).map(|n| format!("{}a:\n", " ".repeat(n))).collect();
        assert_eq!(code(&block), "too-deep");
        let mut laughs = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for n in 1..30 {
            let list = vec![format!("*a{}", n - 1); 10].join(", ");
            laughs += &format!("a{n}: &a{n} [{list}]\n");
        }
        assert_eq!(code(&laughs), "too-large");
        let mut chain = String::from("a0: &a0 {x: 1}\n");
        for n in 1..5_000 {
            chain += &format!("a{n}: &a{n} {{<<: *a{}}}\n", n - 1);
        }
        assert_eq!(code(&chain), "too-deep");
        let long = format!("a: &a {}\nb: [{}]\n", "x".repeat(8 << 20), "*a, ".repeat(1_000));
        assert_eq!(code(&long), "too-large");
    }

    #[test]
    fn a_large_honest_file_is_no_problem() {
        let mut text = String::from("base: &base {a: 1, b: 2, c: [x, y, z]}\nprocesses:\n");
        for n in 0..10_000 {
            text += &format!("  p{n}:\n    <<: *base\n");
            text += &"    key: [a, b, c, d, e, f, g]\n".repeat(4);
        }
        let parsed = parse(&text);
        assert!(parsed.problems.is_empty(), "{:?}", parsed.problems);
        assert!(parsed.root.is_some());
    }
}
