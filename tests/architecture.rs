//! Who may use whom: the table of ARCHITECTURE.md, enforced.
#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Each module, and the modules of this crate it may name. `core` is the crate below.
const ALLOWED: &[(&str, &[&str])] = &[
    ("config", &["core", "sys"]),
    ("driver", &["core", "config", "backend", "probe", "notify", "store"]),
    ("backend", &["core", "config", "driver", "journal", "net", "store", "sys"]),
    ("net", &["core"]),
    ("store", &["config", "core", "sys"]),
    ("probe", &["core", "driver", "backend", "net"]),
    ("notify", &["core", "driver", "sys"]),
    ("journal", &["core", "driver", "sys"]),
    ("bus", &["core", "config", "driver", "sys"]),
    ("client", &[]),
    ("cli", &["client", "config", "daemon"]),
    ("sys", &["core"]),
    ("logsink", &[]),
    (
        "daemon",
        &[
            "core", "config", "driver", "backend", "probe", "notify", "journal", "bus", "store",
            "sys",
        ],
    ),
];

/// Inside an allowed module, only these parts: what a module may see of the one it uses.
const ONLY: &[(&str, &str, &[&str])] = &[
    ("bus", "driver", &["handle"]),
    ("bus", "config", &["diagnostic", "load", "render"]),
    ("notify", "driver", &["handle"]),
    ("notify", "sys", &["thread"]),
    ("journal", "driver", &["handle"]),
    ("probe", "driver", &["handle"]),
    ("probe", "net", &["check"]),
    ("backend", "driver", &["handle"]),
    ("backend", "config", &["load", "environment"]),
    ("store", "config", &["load"]),
];

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            found.push(path);
        }
    }
}

/// The paths below `crate::` that a source names outside comments and of its tests.
fn named(text: &str) -> BTreeSet<Vec<String>> {
    let code: String = text
        .lines()
        .take_while(|line| line.trim() != "#[cfg(test)]")
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n");
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let end = group.find('}').unwrap_or(group.len());
            for item in group[..end].split(',') {
                found.insert(item.trim().split("::").map(str::to_owned).collect());
            }
            continue;
        }
        let end = rest
            .find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'))
            .unwrap_or(rest.len());
        let path: Vec<String> =
            rest[..end].split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect();
        let group = rest[end..].strip_prefix('{').filter(|_| path.len() == 1);
        match group {
            Some(group) => {
                let close = group.find('}').unwrap_or(group.len());
                for item in group[..close].split(',') {
                    let mut path = path.clone();
                    path.extend(item.trim().split("::").map(str::to_owned));
                    found.insert(path);
                }
            }
            None => {
                found.insert(path);
            }
        }
    }
    found
}

#[test]
fn modules_use_only_what_they_may() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut broken = Vec::new();
    for (module, allowed) in ALLOWED {
        let mut files = Vec::new();
        if src.join(module).is_dir() {
            sources(&src.join(module), &mut files);
        } else {
            files.push(src.join(format!("{module}.rs")));
        }
        assert!(!files.is_empty(), "{module}");
        for file in files {
            let text = fs::read_to_string(&file).unwrap();
            for path in named(&text) {
                let Some(used) = path.first() else { continue };
                if used == module {
                    continue;
                }
                let file = file.strip_prefix(&src).unwrap().display();
                if !allowed.contains(&used.as_str()) {
                    broken.push(format!("{file} names crate::{}", path.join("::")));
                }
                let part = path.get(1).map(String::as_str).unwrap_or_default();
                for (who, whom, parts) in ONLY {
                    if who == module && whom == used && !parts.contains(&part) {
                        broken.push(format!("{file} names crate::{}", path.join("::")));
                    }
                }
            }
        }
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn every_module_is_in_the_table() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let known: BTreeSet<&str> = ALLOWED.iter().map(|(module, _)| *module).collect();
    let others = BTreeSet::from(["core", "bin", "lib"]);
    for entry in fs::read_dir(src).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        assert!(known.contains(name.as_str()) || others.contains(name.as_str()), "{name}");
    }
}

#[test]
fn the_core_uses_nothing_of_ours_and_only_serde() {
    let manifest = include_str!("../src/core/Cargo.toml");
    let dependencies = manifest.split("[dependencies]").nth(1).unwrap();
    let dependencies = dependencies.split("\n[").next().unwrap();
    let names: Vec<&str> =
        dependencies.lines().filter_map(|line| line.split(['.', ' ', '=']).next()).collect();
    let names: Vec<&str> = names.into_iter().filter(|name| !name.is_empty()).collect();
    assert_eq!(names, ["serde"]);
}

#[test]
fn unsafe_code_is_in_one_place() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    let outside: Vec<String> = files
        .iter()
        .map(|file| file.strip_prefix(&src).unwrap())
        .filter(|file| !file.starts_with("sys"))
        .filter(|file| {
            let text = fs::read_to_string(src.join(file)).unwrap();
            text.lines().any(|line| {
                let code = line.split("//").next().unwrap_or_default();
                code.contains("unsafe {")
                    || code.contains("unsafe fn")
                    || code.contains("unsafe impl")
            })
        })
        .map(|file| file.display().to_string())
        .collect();
    assert!(outside.is_empty(), "{outside:?}");
}

#[test]
fn the_scan_sees_what_it_should() {
    let text = "use crate::driver::handle::{Handle, now};\nuse crate::{sys, client::Client};\n\
                // crate::comment\nlet x = crate::bus::paths::label();\n\
                use crate::config::{edit, render};\n#[cfg(test)]\nuse crate::tests;";
    let found: Vec<String> = named(text).into_iter().map(|path| path.join("::")).collect();
    assert_eq!(
        found,
        [
            "bus::paths::label",
            "client::Client",
            "config::edit",
            "config::render",
            "driver::handle::",
            "sys"
        ]
        .map(|s| s.trim_end_matches("::").to_owned())
    );
}
