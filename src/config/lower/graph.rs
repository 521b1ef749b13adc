//! What must be right between processes, once all files are read.

use super::{Lowered, Whole};
use crate::config::diagnostic::Diagnostic;
use crate::config::suggest::did_you_mean;
use crate::core::ids::ProcessId;
use crate::core::spec::{Condition, RestartCondition};
use std::collections::{BTreeMap, BTreeSet};

impl Whole {
    /// Checks the edges and the graph as a whole.
    pub(crate) fn check_graph(&mut self) {
        let mut found = Vec::new();
        // Each search looks at every id; after so many of them, nobody reads the suggestions.
        let mut searches = 100;
        for lowered in self.processes.values() {
            for (edge, place) in &lowered.edges {
                let Some(on) = self.processes.get(&edge.on) else {
                    let message = format!("there is no process `{}`", edge.on);
                    let mut problem =
                        Diagnostic::error("unknown-dependency", place.clone(), message);
                    if searches > 0 {
                        searches -= 1;
                        let ids = self.processes.keys().filter(|id| **id != lowered.spec.id);
                        problem.help = did_you_mean(edge.on.as_str(), ids.map(ProcessId::as_str));
                    }
                    found.push(problem);
                    continue;
                };
                if let Some(problem) = never_met(edge.condition, on) {
                    let problem = Diagnostic { place: place.clone(), ..problem };
                    found.push(problem.related(on.place.clone(), "defined here"));
                }
            }
        }
        found.extend(cycles(&self.processes));
        for problem in found {
            self.report.add(problem);
        }
    }
}

/// A condition that the process can never meet.
fn never_met(condition: Condition, on: &Lowered) -> Option<Diagnostic> {
    let id = &on.spec.id;
    let error = |code, message: String, help: &str| {
        Some(Diagnostic::error(code, on.place.clone(), message).help(help))
    };
    let ends =
        matches!(on.spec.restart.condition, RestartCondition::No | RestartCondition::OnFailure);
    match condition {
        Condition::Completed if !ends && on.restart_is_sure => error(
            "completed-restarts",
            format!("`{id}` is restarted whenever it ends, so it is never `completed`"),
            "give it `restartPolicy: { condition: no }` or `on-failure`",
        ),
        Condition::Healthy if on.spec.health.is_none() && on.health_is_sure => error(
            "healthy-without-check",
            format!("`{id}` has no health check, so it is never `healthy`"),
            "give it a `healthCheck`, or wait for `ready` or `started`",
        ),
        _ => None,
    }
}

/// Every cycle once, as its path, up to a number that is enough to see what is wrong. Without
/// recursion: a chain may be ten thousand long.
fn cycles(processes: &BTreeMap<ProcessId, Lowered>) -> Vec<Diagnostic> {
    const ENOUGH: usize = 50;
    let mut found = Vec::new();
    let mut done: BTreeSet<&ProcessId> = BTreeSet::new();
    for (start, lowered) in processes {
        // What depends on nothing is on no cycle.
        if lowered.edges.is_empty() || done.contains(start) {
            continue;
        }
        // The path from the start, with the edge to look at next of each.
        let mut path: Vec<(&ProcessId, usize)> = vec![(start, 0)];
        let mut on_path: BTreeMap<&ProcessId, usize> = BTreeMap::from([(start, 0)]);
        while let Some((id, next)) = path.last_mut() {
            let id = *id;
            let edge = processes[id].edges.get(*next);
            *next += 1;
            let Some((edge, _)) = edge else {
                path.pop();
                on_path.remove(id);
                done.insert(id);
                continue;
            };
            let Some((on, _)) = processes.get_key_value(&edge.on) else { continue };
            if let Some(begin) = on_path.get(on) {
                found.push(cycle(processes, &path[*begin..]));
                if found.len() == ENOUGH {
                    return found;
                }
            } else if !done.contains(on) {
                on_path.insert(on, path.len());
                path.push((on, 0));
            }
        }
    }
    found
}

fn cycle(processes: &BTreeMap<ProcessId, Lowered>, path: &[(&ProcessId, usize)]) -> Diagnostic {
    // The edge that was taken is the one before the next.
    let places: Vec<_> = path.iter().map(|(id, next)| &processes[*id].edges[next - 1].1).collect();
    let names: Vec<&str> = path.iter().map(|(id, _)| id.as_str()).collect();
    const SHOWN: usize = 12;
    let middle = match names.len() > SHOWN {
        true => format!("{} → … → {}", names[..SHOWN - 2].join(" → "), names[names.len() - 1]),
        false => names.join(" → "),
    };
    let message = format!("these processes wait for each other: {middle} → {}", names[0]);
    let mut problem = Diagnostic::error("dependency-cycle", places[0].clone(), message)
        .help("remove one of these dependencies");
    for (place, (id, next)) in places.iter().zip(path).skip(1).take(SHOWN) {
        let on = &processes[*id].edges[next - 1].0.on;
        problem = problem.related((*place).clone(), format!("`{id}` depends on `{on}`"));
    }
    problem
}
