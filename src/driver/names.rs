//! What a person may write where a process is meant.

use super::published::{Published, read};
use crate::core::event::Refusal;
use crate::core::ids::{InstanceId, ProcessId};
use crate::core::text::fits;
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
                    all.filter(|(id, view)| means(name, id, view)).for_each(|(id, _)| add(id));
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
fn means(name: &str, id: &InstanceId, view: &InstanceView) -> bool {
    if let Some(tag) = name.strip_prefix("tag:") {
        return view.spec.tags.iter().any(|t| &**t == tag);
    }
    match name.split_once('@') {
        Some((process, index)) => {
            fits(process, id.process.as_str()) && fits(index, &id.index.to_string())
        }
        None => name.contains(['*', '?']) && fits(name, id.process.as_str()),
    }
}
