//! How processes are called on the screen, and what a person means by a name.

use crate::client::{Client, ClientError};
use std::collections::BTreeMap;

/// Knows which processes have several instances.
#[derive(Clone, Debug, Default)]
pub struct Names {
    instances: BTreeMap<String, usize>,
}

impl Names {
    /// From all instances, `api@0`.
    #[must_use]
    pub fn new<'a>(all: impl IntoIterator<Item = &'a str>) -> Names {
        let mut instances = BTreeMap::new();
        for id in all {
            let process = id.rsplit_once('@').map_or(id, |(process, _)| process);
            *instances.entry(process.to_owned()).or_default() += 1;
        }
        Names { instances }
    }

    /// Asks the supervisor.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub async fn ask(client: &Client) -> Result<Names, ClientError> {
        let all = client.list().await?;
        Ok(Names::new(all.iter().map(String::as_str)))
    }

    /// The name to show for `api@0`: `api` when it is the only instance, so that the name is the one
    /// in the file.
    #[must_use]
    pub fn show<'a>(&self, id: &'a str) -> &'a str {
        match id.rsplit_once('@') {
            Some((process, "0")) if self.count(process) <= 1 => process,
            _ => id,
        }
    }

    /// What a person should know who wrote these names: a bare name of several instances is the
    /// first one only.
    #[must_use]
    pub fn remarks(&self, written: &[String]) -> Vec<String> {
        written
            .iter()
            .filter(|name| !name.contains(['@', '*', '?', ':']) && self.count(name) > 1)
            .map(|name| {
                let count = self.count(name);
                format!("note: `{name}` is {name}@0; `{name}@*` means all {count} instances")
            })
            .collect()
    }

    fn count(&self, process: &str) -> usize {
        self.instances.get(process).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        Names::new(["api@0", "worker@0", "worker@1", "worker@2"])
    }

    #[test]
    fn the_only_instance_has_the_name_of_its_process() {
        assert_eq!(names().show("api@0"), "api");
        assert_eq!(names().show("api@1"), "api@1", "left over from more instances");
        assert_eq!(names().show("worker@0"), "worker@0");
        assert_eq!(names().show("worker@2"), "worker@2");
        assert_eq!(names().show("gone@0"), "gone");
    }

    #[test]
    fn a_bare_name_of_several_is_remarked() {
        let of = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        let remarks = names().remarks(&of(&["api", "worker", "worker@1", "work*", "tag:worker"]));
        assert_eq!(remarks, ["note: `worker` is worker@0; `worker@*` means all 3 instances"]);
    }
}
