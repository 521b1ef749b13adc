//! Where states and runs were before there was the [`ledger`](super::ledger): a file for each. They are
//! read where there is no ledger, and removed when one has all of it.

use super::file::{self, Kind, ReadError};
use super::runs::RunRecord;
use super::{Content, State, Whole, of_another, put_aside};
use crate::core::ids::{InstanceId, Slot};
use crate::core::snapshot::InstanceSnapshot;
use std::fs;
use std::path::{Path, PathBuf};

const WHOLE: &str = "whole";
const STATE: &str = ".state";
const RUN: &str = ".run";
const SECOND_RUN: &str = "-b.run";

/// What is there. What is damaged is set aside, and said.
pub(super) fn read(directory: &Path, remarks: &mut Vec<String>) -> Content {
    let mut set_aside = |path: &Path, error: &ReadError| remarks.push(put_aside(path, error));
    let mut content = Content::default();
    let path = directory.join(WHOLE);
    match file::read::<Whole>(&path, Kind::Whole) {
        Ok(read) => content.whole = Some(read),
        Err(ReadError::Missing) => {}
        Err(error) => set_aside(&path, &error),
    }
    for (id, path) in named(directory, STATE) {
        match file::read::<State<InstanceId, InstanceSnapshot>>(&path, Kind::State) {
            Ok(read) if read.is_of(&id) => drop(content.states.insert(id, read.state)),
            Ok(_) => set_aside(&path, &of_another()),
            Err(ReadError::Missing) => {}
            Err(error) => set_aside(&path, &error),
        }
    }
    for (slot, ending) in [(Slot::A, RUN), (Slot::B, SECOND_RUN)] {
        for (id, path) in named(directory, ending) {
            match file::read::<RunRecord>(&path, Kind::Run) {
                Ok(read) if read.is_of(&id, slot) => content.runs.push(read),
                Ok(_) => set_aside(&path, &of_another()),
                Err(ReadError::Missing) => {}
                Err(error) => set_aside(&path, &error),
            }
        }
    }
    content
}

/// The files of instances that end like this.
fn named(directory: &Path, ending: &str) -> Vec<(InstanceId, PathBuf)> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut all: Vec<(InstanceId, PathBuf)> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name();
            let id = InstanceId::parse(name.to_str()?.strip_suffix(ending)?).ok()?;
            // `api` would be short for `api@0` and is not a name of ours.
            (format!("{id}{ending}") == name.to_str()?).then(|| (id, entry.path()))
        })
        .collect();
    all.sort();
    all
}

/// Removes all such files.
pub(super) fn remove(directory: &Path) {
    let is_such = |name: &str| {
        // What is beside a file has its name between a dot and this.
        let name = name.strip_suffix(".new").unwrap_or(name);
        let name = name.strip_prefix('.').unwrap_or(name);
        name == WHOLE || [STATE, RUN].iter().any(|ending| name.ends_with(ending))
    };
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(is_such) {
            let _ = fs::remove_file(entry.path());
        }
    }
}
