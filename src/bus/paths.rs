//! Object paths and back.
//!
//! A label is escaped as systemd does it (`bus_label_escape`): everything but ASCII letters and
//! digits, and a digit at the beginning, becomes `_` and two hexadecimal digits; nothing becomes
//! `_`.

use crate::core::ids::{Generation, InstanceId, JobId};
use zbus::{ObjectPath, OwnedObjectPath};

/// The object of the manager, and the root of all others.
pub const ROOT: &str = "/org/provost/Provost1";

/// The path that stands for no object.
pub const NONE: &str = "/";

/// The object of an instance: `api@2` is `…/process/api_402`.
#[must_use]
pub fn process(instance: &InstanceId) -> OwnedObjectPath {
    make(format!("{ROOT}/process/{}", escape(&instance.to_string())))
}

/// The object of a job.
#[must_use]
pub fn job(job: JobId) -> OwnedObjectPath {
    make(format!("{ROOT}/job/{}", job.0))
}

/// The object of a generation that is to be confirmed.
#[must_use]
pub fn checkpoint(generation: Generation) -> OwnedObjectPath {
    make(format!("{ROOT}/checkpoint/{}", generation.0))
}

/// The path that stands for no object.
#[must_use]
pub fn none() -> OwnedObjectPath {
    make(NONE.to_owned())
}

/// The instance of an object; None when the path is no process.
#[must_use]
pub fn instance(path: &str) -> Option<InstanceId> {
    let label = path.strip_prefix(ROOT)?.strip_prefix("/process/")?;
    InstanceId::parse(&unescape(label)?).ok()
}

/// A text as one element of a path.
#[must_use]
pub fn escape(text: &str) -> String {
    if text.is_empty() {
        return "_".to_owned();
    }
    let mut label = String::with_capacity(text.len());
    for (at, byte) in text.bytes().enumerate() {
        if byte.is_ascii_alphabetic() || (at > 0 && byte.is_ascii_digit()) {
            label.push(char::from(byte));
        } else {
            label.push_str(&format!("_{byte:02x}"));
        }
    }
    label
}

/// The text of an element of a path; None when it is not one that [`escape`] makes.
#[must_use]
pub fn unescape(label: &str) -> Option<String> {
    if label == "_" {
        return Some(String::new());
    }
    let mut bytes = Vec::with_capacity(label.len());
    let mut rest = label.as_bytes();
    while let [first, tail @ ..] = rest {
        if *first == b'_' {
            let hex = std::str::from_utf8(tail.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(hex, 16).ok()?);
            rest = &tail[2..];
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    let text = String::from_utf8(bytes).ok()?;
    (escape(&text) == label).then_some(text)
}

/// Only for texts made of escaped labels and numbers, which are always valid.
fn make(path: String) -> OwnedObjectPath {
    ObjectPath::from_string_unchecked(path).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_go_both_ways() {
        for (text, label) in [
            ("", "_"),
            ("api@2", "api_402"),
            ("web-1@0", "web_2d1_400"),
            ("9p@10", "_39p_4010"),
            ("a_b.c@0", "a_5fb_2ec_400"),
            ("é", "_c3_a9"),
        ] {
            assert_eq!(escape(text), label, "{text}");
            assert_eq!(unescape(label).as_deref(), Some(text), "{label}");
        }
    }

    #[test]
    fn labels_that_nobody_makes_are_refused() {
        for bad in ["a_4", "a_zz", "_61", "a_", "9", "_ff", "_4", "a_2D"] {
            assert_eq!(unescape(bad), None, "{bad}");
        }
    }

    #[test]
    fn paths_are_valid_and_lead_back() {
        let id = InstanceId::parse("example-server.1@12").unwrap();
        let path = process(&id);
        assert!(ObjectPath::try_from(path.as_str()).is_ok());
        assert_eq!(instance(path.as_str()), Some(id));
        assert_eq!(instance("/org/provost/Provost1/job/1"), None);
        assert_eq!(instance("/org/provost/Provost1/process/"), None);
        assert_eq!(job(JobId(7)).as_str(), "/org/provost/Provost1/job/7");
    }
}
