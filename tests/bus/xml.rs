//! Reads as much of XML as introspection has: elements and attributes.

use std::collections::BTreeMap;

/// One element.
#[derive(Debug, Default, PartialEq)]
pub struct Element {
    pub name: String,
    pub attributes: BTreeMap<String, String>,
    pub children: Vec<Element>,
}

impl Element {
    pub fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map(String::as_str).unwrap_or_default()
    }

    pub fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Element> {
        self.children.iter().filter(move |child| child.name == name)
    }

    /// The interface of that name anywhere in the first level of a node.
    pub fn interface(&self, name: &str) -> &Element {
        self.named("interface")
            .find(|interface| interface.attribute("name") == name)
            .unwrap_or_else(|| panic!("there is no interface {name}"))
    }
}

/// The root element.
pub fn parse(text: &str) -> Element {
    let mut open = vec![Element::default()];
    let mut rest = text;
    while let Some(start) = rest.find('<') {
        rest = &rest[start..];
        let (skip, end) = if rest.starts_with("<!--") {
            (true, rest.find("-->").expect("an open comment") + 3)
        } else {
            let end = rest.find('>').expect("an open tag") + 1;
            (rest.starts_with("<!") || rest.starts_with("<?"), end)
        };
        let tag = &rest[..end];
        rest = &rest[end..];
        if skip {
            continue;
        }
        if tag.starts_with("</") {
            let done = open.pop().expect("a tag is closed that was not opened");
            open.last_mut().expect("more is closed than was opened").children.push(done);
            continue;
        }
        let element = element(tag.trim_start_matches('<').trim_end_matches('>'));
        if tag.ends_with("/>") {
            open.last_mut().expect("an element outside of all").children.push(element);
        } else {
            open.push(element);
        }
    }
    assert_eq!(open.len(), 1, "an element is not closed");
    open.remove(0).children.into_iter().next().expect("no element")
}

fn element(tag: &str) -> Element {
    let tag = tag.trim_end_matches('/').trim();
    let (name, mut rest) = tag.split_once(char::is_whitespace).unwrap_or((tag, ""));
    let mut attributes = BTreeMap::new();
    while let Some((key, tail)) = rest.split_once('=') {
        let tail = tail.trim_start();
        let quote = tail.chars().next().expect("an attribute without a value");
        let (value, tail) = tail[1..].split_once(quote).expect("an open value");
        attributes.insert(key.trim().to_owned(), value.to_owned());
        rest = tail;
    }
    Element { name: name.to_owned(), attributes, children: Vec::new() }
}

/// All that makes up an interface, as lines that can be compared.
pub fn contract(interface: &Element) -> Vec<String> {
    let mut lines = Vec::new();
    for member in &interface.children {
        let name = member.attribute("name");
        let mut line = format!("{} {name}", member.name);
        if member.name == "property" {
            let emits = member.named("annotation").next().map_or("true", |a| a.attribute("value"));
            let access = member.attribute("access");
            line += &format!(" {} {access} {emits}", member.attribute("type"));
        }
        for arg in member.named("arg") {
            let direction = match (member.name.as_str(), arg.attribute("direction")) {
                ("signal", _) => "out",
                (_, "") => "in",
                (_, direction) => direction,
            };
            line += &format!(" {direction}:{}:{}", arg.attribute("name"), arg.attribute("type"));
        }
        lines.push(line);
    }
    lines.sort();
    lines
}
