//! Fenced blocks of a markdown text.

/// One block.
pub struct Block {
    /// The words after the fence: `yaml refused unknown-key`.
    pub info: Vec<String>,
    /// Its lines.
    pub text: String,
    /// The line of its fence, counted from 1.
    pub line: usize,
}

impl Block {
    /// Its language; empty where it has none.
    pub fn language(&self) -> &str {
        self.info.first().map_or("", String::as_str)
    }
}

/// All blocks of a text. A fence that is not closed is a mistake in the manual.
pub fn blocks(text: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut open: Option<Block> = None;
    for (n, line) in text.lines().enumerate() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(info), None) => {
                let words = info.split([' ', ',']).filter(|word| !word.is_empty());
                let info = words.map(str::to_owned).collect();
                open = Some(Block { info, text: String::new(), line: n + 1 });
            }
            (Some(_), Some(_)) => found.extend(open.take()),
            (None, Some(block)) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a fence is not closed");
    found
}

/// The words of a line as a shell would take it apart, up to a comment.
pub fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    for c in line.chars() {
        match (c, quote) {
            (c, Some(open)) if c == open => quote = None,
            (c, Some(_)) => word.get_or_insert_default().push(c),
            ('\'' | '"', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            ('#', None) if word.is_none() => break,
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, None) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

#[test]
fn blocks_and_words_are_found() {
    let found = blocks("a\n```yaml,refused x\nb: 1\n```\nc\n```\n$ d\n```\n");
    assert_eq!(found.len(), 2);
    assert_eq!(found[0].info, ["yaml", "refused", "x"]);
    assert_eq!((found[0].text.as_str(), found[0].line), ("b: 1\n", 2));
    assert_eq!((found[1].language(), found[1].text.as_str()), ("", "$ d\n"));
    assert_eq!(
        words("provost stop 'w@*' \"a b\" x#y  # all"),
        ["provost", "stop", "w@*", "a b", "x#y"]
    );
}
