//! Texts in which `${INSTANCE}` may stand, and values that must not be shown.

use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// A text in which the number of the instance may stand, and values that must not be shown.
///
/// Every `${NAME}` was filled in when the file was read. Two are still told apart: `${INSTANCE}` is
/// kept as one NUL byte, which no argument, path or value may contain; and a text with any other
/// `${NAME}` keeps the form it has in the file, which is the only one that is ever shown, because
/// what came from an environment may be a secret wherever it was put.
///
/// Two texts are equal when what they say is equal, however they came to say it.
#[derive(Clone, Serialize, Deserialize)]
#[serde(from = "Stored", into = "Stored")]
pub struct Text {
    value: Arc<str>,
    /// As it is shown, where that is not the value.
    shown: Option<Arc<str>>,
}

/// How a [`Text`] is stored: most are their value alone.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Stored {
    Plain(Arc<str>),
    Hiding { value: Arc<str>, shown: Arc<str> },
}

impl From<Stored> for Text {
    fn from(stored: Stored) -> Text {
        match stored {
            Stored::Plain(value) => Text { value, shown: None },
            Stored::Hiding { value, shown } => Text { value, shown: Some(shown) },
        }
    }
}

impl From<Text> for Stored {
    fn from(text: Text) -> Stored {
        match text.shown {
            None => Stored::Plain(text.value),
            Some(shown) => Stored::Hiding { value: text.value, shown },
        }
    }
}

impl Text {
    /// The byte that stands for `${INSTANCE}`.
    pub const INSTANCE: char = '\0';

    /// A text, with [`Text::INSTANCE`] where the number of the instance goes.
    #[must_use]
    pub fn new(template: &str) -> Text {
        Text { value: Arc::from(template), shown: None }
    }

    /// A text with values in it that must not be shown, and the form in which it is shown. Both
    /// have [`Text::INSTANCE`] where the number of the instance goes.
    #[must_use]
    pub fn hiding(template: &str, shown: &str) -> Text {
        Text { value: Arc::from(template), shown: Some(Arc::from(shown)) }
    }

    /// The text for one instance. Not to be shown to anybody: see [`Text::rendered`].
    #[must_use]
    pub fn render(&self, index: u32) -> Cow<'_, str> {
        with_index(&self.value, index)
    }

    /// The text for one instance, and the form of it that may be shown.
    #[must_use]
    pub fn rendered(&self, index: u32) -> Rendered {
        Rendered {
            value: self.render(index).into_owned(),
            shown: self.shown.as_deref().map(|shown| with_index(shown, index).into_owned()),
        }
    }

    /// Whether there are values in it that must not be shown.
    #[must_use]
    pub fn hides(&self) -> bool {
        self.shown.is_some()
    }

    pub(crate) fn is_shown_as(&self, other: &Text) -> bool {
        self.shown == other.shown
    }

    /// Whether the instances have different texts.
    #[must_use]
    pub fn depends_on_instance(&self) -> bool {
        self.value.contains(Self::INSTANCE)
    }
}

fn with_index(template: &str, index: u32) -> Cow<'_, str> {
    if template.contains(Text::INSTANCE) {
        Cow::Owned(template.replace(Text::INSTANCE, &index.to_string()))
    } else {
        Cow::Borrowed(template)
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Text) -> bool {
        self.value == other.value
    }
}

impl Eq for Text {}

impl fmt::Display for Text {
    /// As a person wrote it, with `${INSTANCE}` and the other names.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.shown.as_ref().unwrap_or(&self.value);
        f.write_str(&shown.replace(Self::INSTANCE, "${INSTANCE}"))
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Text {
        Text::new(text)
    }
}

/// A text for one instance. Its `Display` and `Debug` are the form that may be shown; serialized it has
/// the value too, which is for a program of ours that needs it (`net::message`), and for no file.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rendered {
    value: String,
    shown: Option<String>,
}

impl Rendered {
    /// What it says.
    #[must_use]
    pub fn value(&self) -> &str {
        &self.value
    }

    /// The form that may be shown.
    #[must_use]
    pub fn shown(&self) -> &str {
        self.shown.as_ref().unwrap_or(&self.value)
    }

    /// Whether there are values in it that must not be shown.
    #[must_use]
    pub fn hides(&self) -> bool {
        self.shown.is_some()
    }

    /// Something taken from its value, which is shown as the whole where that hides values.
    #[must_use]
    pub fn part(&self, value: String) -> Rendered {
        Rendered { value, shown: self.shown.clone() }
    }
}

impl From<&str> for Rendered {
    fn from(value: &str) -> Rendered {
        Rendered { value: value.to_owned(), shown: None }
    }
}

impl fmt::Display for Rendered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.shown())
    }
}

impl fmt::Debug for Rendered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.shown())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_instance_number_is_filled_in() {
        let text = Text::new("http://localhost:300\0/health");
        assert_eq!(text.render(2), "http://localhost:3002/health");
        assert_eq!(text.to_string(), "http://localhost:300${INSTANCE}/health");
        assert!(matches!(Text::new("plain").render(7), Cow::Borrowed("plain")));
    }

    #[test]
    fn a_value_in_a_text_is_never_shown() {
        let text = Text::hiding("/srv/hunter2/\0", "/srv/${PASS}/\0");
        assert_eq!(
            format!("{text} {text:?}"),
            "/srv/${PASS}/${INSTANCE} \"/srv/${PASS}/${INSTANCE}\""
        );
        assert_eq!(text.render(1), "/srv/hunter2/1");
        let rendered = text.rendered(1);
        assert_eq!(format!("{rendered} {rendered:?}"), "/srv/${PASS}/1 \"/srv/${PASS}/1\"");
        assert_eq!((rendered.value(), rendered.hides()), ("/srv/hunter2/1", true));
        assert_eq!(text, Text::new("/srv/hunter2/\0"));
        for text in [text, Text::new("plain\0")] {
            let stored = serde_json::to_string(&text).unwrap();
            let back: Text = serde_json::from_str(&stored).unwrap();
            assert_eq!((&back, back.to_string()), (&text, text.to_string()), "{stored}");
        }
    }
}
