//! The dependency graph: cycles, and the edges the other way round.

use crate::ids::ProcessId;
use crate::spec::{Condition, Config};
use std::collections::{BTreeMap, BTreeSet};

/// A cycle among `edges`, as its path: the first is also the last. None when there is none.
///
/// The smallest process on a cycle comes first, so that the same cycle is always told the same way.
#[must_use]
pub fn find_cycle(edges: &BTreeMap<ProcessId, Vec<ProcessId>>) -> Option<Vec<ProcessId>> {
    let mut done = BTreeSet::new();
    for start in edges.keys() {
        // An own stack: a chain of ten thousand processes must not end in a stack overflow.
        let mut path: Vec<(&ProcessId, usize)> = vec![(start, 0)];
        let mut on_path = BTreeSet::from([start]);
        while let Some((node, at)) = path.last_mut() {
            let node = *node;
            if done.contains(node) {
                path.pop();
                continue;
            }
            let next = edges.get(node).and_then(|list| list.get(*at));
            *at += 1;
            match next {
                None => {
                    done.insert(node);
                    on_path.remove(node);
                    path.pop();
                }
                Some(next) if on_path.contains(next) => {
                    let from = path.iter().position(|(id, _)| *id == next).unwrap_or(0);
                    let cycle: Vec<_> = path[from..].iter().map(|(id, _)| (*id).clone()).collect();
                    return Some(rotated(cycle));
                }
                Some(next) if !done.contains(next) => {
                    on_path.insert(next);
                    path.push((next, 0));
                }
                Some(_) => {}
            }
        }
    }
    None
}

fn rotated(mut cycle: Vec<ProcessId>) -> Vec<ProcessId> {
    let smallest = (0..cycle.len()).min_by_key(|i| &cycle[*i]).unwrap_or(0);
    cycle.rotate_left(smallest);
    cycle.extend(cycle.first().cloned());
    cycle
}

/// One edge seen from the process that is depended on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dependent {
    /// Who depends.
    pub process: ProcessId,
    /// On what condition.
    pub condition: Condition,
    /// Whether it is restarted with what it depends on.
    pub restart: bool,
}

/// The edges of a configuration the other way round.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dependents {
    above: BTreeMap<ProcessId, Vec<Dependent>>,
    below: BTreeMap<ProcessId, Vec<ProcessId>>,
}

impl Dependents {
    /// Turns all edges of `config` round.
    #[must_use]
    pub fn of(config: &Config) -> Dependents {
        let mut all = Dependents::default();
        for spec in config.processes.values() {
            for edge in &spec.depends_on {
                if edge.condition != Condition::Completed {
                    all.below.entry(spec.id.clone()).or_default().push(edge.on.clone());
                }
                all.above.entry(edge.on.clone()).or_default().push(Dependent {
                    process: spec.id.clone(),
                    condition: edge.condition,
                    restart: edge.restart,
                });
            }
        }
        all
    }

    /// Who depends on `process` directly, in order.
    #[must_use]
    pub fn on(&self, process: &ProcessId) -> &[Dependent] {
        self.above.get(process).map_or(&[], Vec::as_slice)
    }

    /// What `process` depends on directly for as long as it runs, in order: what it waits for to
    /// complete is not among it.
    #[must_use]
    pub fn below(&self, process: &ProcessId) -> &[ProcessId] {
        self.below.get(process).map_or(&[], Vec::as_slice)
    }

    /// Who depends on `process` through edges that `follow` accepts, near or far, in order.
    #[must_use]
    pub fn all_on(
        &self,
        process: &ProcessId,
        follow: impl Fn(&Dependent) -> bool,
    ) -> BTreeSet<ProcessId> {
        let mut found = BTreeSet::new();
        let mut open = vec![process.clone()];
        while let Some(next) = open.pop() {
            for edge in self.on(&next).iter().filter(|edge| follow(edge)) {
                if found.insert(edge.process.clone()) {
                    open.push(edge.process.clone());
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edges(list: &[(&str, &[&str])]) -> BTreeMap<ProcessId, Vec<ProcessId>> {
        let id = |name: &str| ProcessId::new(name).unwrap();
        list.iter().map(|(from, to)| (id(from), to.iter().map(|name| id(name)).collect())).collect()
    }

    fn cycle(list: &[(&str, &[&str])]) -> Option<String> {
        find_cycle(&edges(list))
            .map(|path| path.iter().map(ProcessId::as_str).collect::<Vec<_>>().join(" → "))
    }

    #[test]
    fn cycles_are_told_as_their_path() {
        assert_eq!(cycle(&[("a", &["b"]), ("b", &["c"]), ("c", &[])]), None);
        assert_eq!(cycle(&[("a", &["a"])]), Some("a → a".into()));
        assert_eq!(
            cycle(&[("a", &["c"]), ("b", &["d"]), ("c", &["b"]), ("d", &["c"])]),
            Some("b → d → c → b".into())
        );
    }

    #[test]
    fn what_many_depend_on_is_no_cycle() {
        let many: &[(&str, &[&str])] =
            &[("a", &["b", "c", "d"]), ("b", &["e"]), ("c", &["e"]), ("d", &["e"]), ("e", &[])];
        assert_eq!(cycle(many), None);
    }

    #[test]
    fn edges_are_turned_round() {
        use crate::spec::{Command, Dependency, ProcessSpec, Text};
        let id = |name: &str| ProcessId::new(name).unwrap();
        let spec = |name: &str, on: &[(&str, Condition, bool)]| {
            let mut spec = ProcessSpec::new(id(name), Command::Shell(Text::new("x")));
            let edge = |&(on, condition, restart): &(&str, _, _)| Dependency {
                on: id(on),
                condition,
                restart,
            };
            spec.depends_on = on.iter().map(edge).collect();
            (spec.id.clone(), std::sync::Arc::new(spec))
        };
        let config = Config {
            processes: [
                spec("a", &[("b", Condition::Ready, true), ("m", Condition::Completed, false)]),
                spec("b", &[("c", Condition::Healthy, true)]),
                spec("c", &[]),
                spec("m", &[("c", Condition::Started, false)]),
            ]
            .into(),
            ..Config::default()
        };
        let all = Dependents::of(&config);
        let names =
            |list: &[Dependent]| list.iter().map(|e| e.process.to_string()).collect::<Vec<_>>();
        assert_eq!(names(all.on(&id("c"))), ["b", "m"]);
        assert_eq!(names(all.on(&id("a"))), Vec::<String>::new());
        assert_eq!(
            all.on(&id("b"))[0],
            Dependent { process: id("a"), condition: Condition::Ready, restart: true }
        );
        assert_eq!(all.below(&id("a")), [id("b")], "what completes is not needed any longer");
        assert_eq!(all.below(&id("m")), [id("c")]);
        assert_eq!(all.all_on(&id("c"), |edge| edge.restart), [id("a"), id("b")].into());
        assert_eq!(all.all_on(&id("c"), |_| true), [id("a"), id("b"), id("m")].into());
        assert_eq!(all.all_on(&id("a"), |_| true), [].into());
    }

    #[test]
    fn a_diamond_is_no_cycle() {
        assert_eq!(cycle(&[("a", &["b", "c"]), ("b", &["d"]), ("c", &["d"]), ("d", &[])]), None);
    }

    #[test]
    fn a_long_chain_is_no_trouble() {
        let n = 20_000;
        let id = |i: usize| ProcessId::new(&format!("p{i:05}")).unwrap();
        let mut chain: BTreeMap<_, _> = (0..n).map(|i| (id(i), vec![id(i + 1)])).collect();
        assert_eq!(find_cycle(&chain), None);
        chain.insert(id(n), vec![id(0)]);
        assert_eq!(find_cycle(&chain).map(|path| path.len()), Some(n + 2));
    }
}
