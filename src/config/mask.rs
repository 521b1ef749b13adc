//! Which bytes of a file must not be shown: the values of variables.
//!
//! The tree knows exactly, behind anchors and merges too. A text that is not good YAML has no tree,
//! or one to be doubted; then the lines tell as well: what stands to the right of an `env:` and what
//! is indented below it. That masks too much rather than too little.

use super::load::SourceKind;
use super::yaml::{self, Kind, Node, Span};
use std::ops::Range;

/// The bytes to be masked, sorted, without overlap.
pub(crate) fn secrets(text: &str, kind: SourceKind) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    if kind == SourceKind::Env {
        found = env_file(text);
    } else {
        let parsed = yaml::parse(text);
        if !parsed.problems.is_empty() {
            found = by_lines(text);
        }
        let mut seen = Vec::new();
        if let Some(root) = &parsed.root {
            by_tree(root, &mut seen);
        }
        found.extend(seen.into_iter().map(|span| {
            // The text of a block ends with its line break.
            let value = text[span.range()].trim_end();
            span.range().start..span.range().start + value.len()
        }));
    }
    found.sort_by_key(|range| (range.start, range.end));
    let mut merged: Vec<Range<usize>> = Vec::new();
    for range in found.into_iter().filter(|range| !range.is_empty()) {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

/// All but the names before the `=`. A line without one, or within quotes that an earlier line
/// opened, is part of a value.
fn env_file(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut open: Option<char> = None;
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let end = start + line.trim_end_matches(['\n', '\r']).len();
        let begin = match (open, line.split_once('=')) {
            (Some(quote), _) => {
                open = open.filter(|_| !line.contains(quote));
                start
            }
            (None, Some((name, value))) => {
                let quote = value.trim_start().chars().next().filter(|c| ['"', '\''].contains(c));
                open = quote.filter(|quote| value.matches(*quote).count() < 2);
                start + name.len() + 1
            }
            (None, None) => start,
        };
        found.push(begin..end.max(begin));
        start += line.len();
    }
    found
}

fn by_lines(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    // Within an `env:` of that indentation; with so many brackets open.
    let mut within: Option<(usize, usize)> = None;
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let content = line.trim_end_matches(['\n', '\r']);
        let end = start + content.len();
        let trimmed = content.trim_start();
        let indent = content.len() - trimmed.len();
        if let Some((outer, brackets)) = &mut within {
            if trimmed.is_empty() || indent > *outer || *brackets > 0 {
                let begin = match trimmed.split_once(':') {
                    Some((name, _)) if *brackets == 0 && !name.contains(['"', '\'', ' ']) => {
                        start + indent + name.len() + 1
                    }
                    _ => start + indent,
                };
                found.push(begin..end.max(begin));
                *brackets = still_open(*brackets, content);
                start += line.len();
                continue;
            }
            within = None;
        }
        if let Some(after) = after_env(content) {
            found.push(start + after..end);
            within = Some((indent, still_open(0, &content[after..])));
        }
        start += line.len();
    }
    found
}

fn still_open(open: usize, line: &str) -> usize {
    line.bytes().fold(open, |open, b| match b {
        b'{' => open + 1,
        b'}' => open.saturating_sub(1),
        _ => open,
    })
}

/// Where the value of a key `env` begins in a line.
fn after_env(line: &str) -> Option<usize> {
    line.match_indices("env").find_map(|(n, _)| {
        let before = line[..n].chars().next_back();
        let word = before.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != '-');
        let rest = &line[n + 3..];
        let colon = rest.trim_start_matches(['"', '\'']).trim_start_matches([' ', '\t']);
        (word && colon.starts_with(':')).then(|| n + 3 + rest.len() - colon.len() + 1)
    })
}

fn by_tree(node: &Node<'_>, found: &mut Vec<Span>) {
    match &node.value.kind {
        Kind::Mapping { entries, .. } => {
            for (key, value) in entries {
                if key.text() == Some("env") {
                    values(value, found);
                } else if !value.alias {
                    by_tree(value, found);
                }
            }
        }
        Kind::Sequence(items) => {
            for item in items.iter().filter(|item| !item.alias) {
                by_tree(item, found);
            }
        }
        _ => {}
    }
}

/// Every value of an environment as a whole, wherever an alias or a merge led.
fn values(node: &Node<'_>, found: &mut Vec<Span>) {
    let Some(entries) = node.entries() else { return found.push(node.value.span) };
    for (key, value) in entries {
        match &value.value.kind {
            Kind::Sequence(items) if key.is_merge() => {
                items.iter().for_each(|item| values(item, found));
            }
            Kind::Mapping { .. } if key.is_merge() => values(value, found),
            _ => found.push(value.value.span),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(text: &str, kind: SourceKind) -> String {
        let mut out = String::new();
        let mut at = 0;
        for range in secrets(text, kind) {
            out += &text[at..range.start];
            out += "*";
            at = range.end;
        }
        out + &text[at..]
    }

    #[test]
    fn values_are_masked_and_names_are_not() {
        for (text, wanted) in [
            (
                "p:\n  env:\n    A: s1\n    B: \"s2\"\n  cwd: x\n",
                "p:\n  env:\n    A: *\n    B: *\n  cwd: x\n",
            ),
            ("p: {command: x, env: {A: s1, B: s2}}\n", "p: {command: x, env: {A: *, B: *}}\n"),
            ("env: {A: s1,\n  B: s2}\ncwd: x", "env: {A: *,\n  B: *}\ncwd: x"),
            ("a: &e {A: s1}\nb: {env: *e}\nc: 1", "a: &e {A: *}\nb: {env: *e}\nc: 1"),
            ("a: &e {A: s1}\nenv:\n  <<: *e\n", "a: &e {A: *}\nenv:\n  <<: *e\n"),
            ("env: |\n  s1\n\"env\" : s2\nenvFile: x\n", "env: |\n  *\n\"env\" : *\nenvFile: x\n"),
            ("env: [A=s1, {B: [s2]}]\n", "env: *\n"),
            // From here on it is no YAML.
            (
                "  env:\n    A: \"s1\n      s2\n  cwd: \"x\n",
                "  env:\n    A:*\n      *\n  cwd: \"x\n",
            ),
            ("p: {command: [x, env: {A: s1}\n", "p: {command: [x, env:*\n"),
            ("env: {A: s1,\nB: s2}\ncwd: [", "env:*\n*\ncwd: ["),
            ("env: |\n  s1\n\"env\" : s2\nmyenv: [", "env:*\n  *\n\"env\" :*\nmyenv: ["),
            ("env: !t {A: s1}\ncwd: x\n", "env:*\ncwd: x\n"),
        ] {
            assert_eq!(masked(text, SourceKind::Main), wanted, "{text}");
        }
        let env = "# c\nA=s1\nexport B='s2\ns3=4'\n";
        assert_eq!(masked(env, SourceKind::Env), "*\nA=*\nexport B=*\n*\n");
    }
}
