//! `${NAME}` in texts. `$NAME` belongs to the shell and is left alone; `$${` stands for `${`.

use crate::core::spec::Text;
use std::borrow::Cow;

/// The kernel takes no longer argument or `NAME=value` (`MAX_ARG_STRLEN`, with its NUL).
pub(crate) const LONGEST: usize = 128 * 1024 - 1;

/// What is wrong with a text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// `${` without its `}`, or something else than a name between them. With the text from `${`.
    Malformed(String),
    /// Nobody knows that name.
    Unset(String),
    /// Longer than the kernel takes.
    TooLong,
}

/// A text with its names filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Filled {
    /// With the values. [`Text::INSTANCE`] stands for `${INSTANCE}`.
    pub(crate) value: String,
    /// With the names, as it may be shown; None where no value came into it.
    pub(crate) shown: Option<String>,
}

impl Filled {
    /// The form that may be shown.
    pub(crate) fn shown(&self) -> &str {
        self.shown.as_ref().unwrap_or(&self.value)
    }

    pub(crate) fn into_text(self) -> Text {
        match self.shown {
            None => Text::new(&self.value),
            Some(shown) => Text::hiding(&self.value, &shown),
        }
    }
}

/// Fills in the names. `lookup` gives the value of a name; `INSTANCE` is not asked for.
///
/// Returns every fault, so that all of them are shown at once.
pub(crate) fn fill<'v>(
    text: &str,
    lookup: impl Fn(&str) -> Option<Cow<'v, str>>,
) -> Result<Filled, Vec<Fault>> {
    let mut out = Both { value: String::with_capacity(text.len()), shown: None };
    let mut faults = Vec::new();
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        out.push(&rest[..dollar]);
        rest = &rest[dollar..];
        if let Some(after) = rest.strip_prefix("$${") {
            out.push("${");
            rest = after;
        } else if let Some(after) = rest.strip_prefix("${") {
            match after.find('}') {
                Some(end) if is_name(&after[..end]) => {
                    let name = &after[..end];
                    match name {
                        "INSTANCE" => out.push("\0"),
                        _ => match lookup(name) {
                            Some(value) => out.push_hidden(&value, &rest[..end + 3]),
                            None => faults.push(Fault::Unset(name.to_owned())),
                        },
                    }
                    rest = &after[end + 1..];
                }
                end => {
                    let length = end.map_or(after.len(), |end| end + 1);
                    faults.push(Fault::Malformed(format!("${{{}", &after[..length])));
                    rest = &after[length..];
                }
            }
        } else {
            out.push("$");
            rest = &rest[1..];
        }
        if out.value.len() > LONGEST {
            faults.push(Fault::TooLong);
            return Err(faults);
        }
    }
    out.push(rest);
    if out.value.len() > LONGEST {
        faults.push(Fault::TooLong);
    }
    if faults.is_empty() { Ok(Filled { value: out.value, shown: out.shown }) } else { Err(faults) }
}

/// The two forms while they grow; the second only from the first value on.
struct Both {
    value: String,
    shown: Option<String>,
}

impl Both {
    fn push(&mut self, text: &str) {
        self.value.push_str(text);
        if let Some(shown) = &mut self.shown {
            shown.push_str(text);
        }
    }

    fn push_hidden(&mut self, value: &str, name: &str) {
        self.shown.get_or_insert_with(|| self.value.clone()).push_str(name);
        self.value.push_str(value);
    }
}

/// Whether it is the name of a variable, by the rule of the shell.
pub(crate) fn is_name(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both(text: &str) -> Result<Filled, Vec<Fault>> {
        fill(text, |name| (name == "PORT").then_some(Cow::Borrowed("80")))
    }

    fn filled(text: &str) -> Result<String, Vec<Fault>> {
        both(text).map(|filled| filled.value)
    }

    #[test]
    fn values_are_not_shown() {
        for (text, wanted) in [
            ("a${PORT}b${INSTANCE}${PORT}", Some("a${PORT}b\0${PORT}")),
            ("${PORT}$${PORT}$", Some("${PORT}${PORT}$")),
            ("300${INSTANCE}", None),
            ("plain", None),
        ] {
            assert_eq!(both(text).unwrap().shown.as_deref(), wanted, "{text}");
        }
    }

    #[test]
    fn names_are_filled_in() {
        for (text, wanted) in [
            ("plain", "plain"),
            ("a${PORT}b${PORT}", "a80b80"),
            ("300${INSTANCE}", "300\0"),
            ("$PORT $1 $$ $", "$PORT $1 $$ $"),
            ("$${PORT} $$${PORT}", "${PORT} $${PORT}"),
            ("é${PORT}é", "é80é"),
        ] {
            assert_eq!(filled(text).as_deref(), Ok(wanted), "{text}");
        }
    }

    #[test]
    fn faults_are_all_named() {
        let unset = |name: &str| Fault::Unset(name.into());
        let malformed = |text: &str| Fault::Malformed(text.into());
        assert_eq!(filled("${A}${B}"), Err(vec![unset("A"), unset("B")]));
        assert_eq!(filled("${A:-x}"), Err(vec![malformed("${A:-x}")]));
        assert_eq!(filled("${}${PORT"), Err(vec![malformed("${}"), malformed("${PORT")]));
        assert_eq!(filled("${é}"), Err(vec![malformed("${é}")]));
        let long = "${PORT}".repeat(80_000);
        assert_eq!(filled(&long), Err(vec![Fault::TooLong]));
    }
}
