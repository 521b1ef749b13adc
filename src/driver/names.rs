//! What a person may write where a process is meant.

use super::handle::{Published, read};
use crate::core::event::Refusal;
use crate::core::ids::{InstanceId, ProcessId};
use crate::core::view::InstanceView;
use std::collections::BTreeSet;

impl Published {
    /// Resolves what a person wrote: `api` (short for `api@0`), `api@2`, `api@*`, `tag:web`, and
    /// globs with `*` and `?` over ids. The result has no duplicates and is in the order asked.
    ///
    /// # Errors
    /// The first name that means no instance.
    pub fn resolve(&self, names: &[String]) -> Result<Vec<InstanceId>, Refusal> {
        let instances = read(&self.instances);
        let mut seen = BTreeSet::new();
        let mut found = Vec::new();
        for name in names {
            let mut any = false;
            let mut add = |id: &InstanceId| {
                any = true;
                if seen.insert(id.clone()) {
                    found.push(id.clone());
                }
            };
            match exactly(name) {
                Some(id) => {
                    if instances.contains_key(&id) {
                        add(&id);
                    }
                }
                None => {
                    let all = instances.iter();
                    all.filter(|(id, view)| fits(name, id, view)).for_each(|(id, _)| add(id));
                }
            }
            if !any {
                return Err(Refusal::NoSuchProcess(name.clone()));
            }
        }
        Ok(found)
    }
}

/// The one instance that a name means whatever others there are.
fn exactly(name: &str) -> Option<InstanceId> {
    let (process, index) = name.split_once('@').unwrap_or((name, "0"));
    let number: u32 = index.parse().ok()?;
    // `api@+1` and `api@01` are names of nothing.
    let plain = number.to_string() == index;
    Some(InstanceId { process: ProcessId::new(process).ok()?, index: number }).filter(|_| plain)
}

/// Whether a name that means more than one instance means this one.
fn fits(name: &str, id: &InstanceId, view: &InstanceView) -> bool {
    if let Some(tag) = name.strip_prefix("tag:") {
        return view.spec.tags.iter().any(|t| &**t == tag);
    }
    match name.split_once('@') {
        Some((process, index)) => {
            glob(process, id.process.as_str()) && glob(index, &id.index.to_string())
        }
        None => name.contains(['*', '?']) && glob(name, id.process.as_str()),
    }
}

/// Whether `text` matches `pattern`, where `*` stands for any run of characters and `?` for one.
fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                retry = Some((p, t));
                p += 1;
            }
            Some(c) if *c == b'?' || *c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match retry {
                Some((star, from)) => {
                    p = star + 1;
                    t = from + 1;
                    retry = Some((star, t));
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use super::glob;

    #[test]
    fn globs() {
        for (pattern, text, expected) in [
            ("web*", "web-1", true),
            ("*", "", true),
            ("w?b", "web", true),
            ("w?b", "wb", false),
            ("*b*1", "web-11", true),
            ("a*b*c", "abbc", true),
            ("a*b*c", "abbd", false),
            ("web", "web", true),
            ("web", "webs", false),
        ] {
            assert_eq!(glob(pattern, text), expected, "{pattern} {text}");
        }
    }
}
