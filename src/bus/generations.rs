//! Generations, as they are on the wire.

use super::replies::{self, ChangeRow};
use super::values::{Dict, real, real_or_none};
use crate::core::reload::{Change, ChangeKind};
use crate::driver::handle::{Cause, Difference, FileDifference, Listed, Record, Shown, ShownFile};
use std::collections::BTreeMap;
use zbus::Variant;

/// Kind, path, whether it was there, text.
type FileRow = (String, String, bool, String);

/// Path, kind of change, whether values differ that are not shown, hunks of a unified diff.
type FileDifferenceRow = (String, String, bool, String);

/// All generations, or so many of the newest.
pub fn list(listed: &Listed, limit: Option<u64>) -> Vec<Dict> {
    let limit = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let records = listed.records.iter().take(limit);
    records.map(|record| row(record, listed.running == Some(record.number))).collect()
}

fn row(record: &Record, is_running: bool) -> Dict {
    let count = |kind| {
        let changes = record.changes.iter().filter(|change: &&Change| change.kind == kind);
        small(changes.count())
    };
    let mut dict: Dict = BTreeMap::from([
        ("number", record.number.0.into()),
        ("time", real(record.time).into()),
        ("cause", record.cause.as_str().into()),
        ("cause-text", record.cause.to_string().into()),
        ("state", record.state.as_str().into()),
        ("running", is_running.into()),
        ("why", record.why.clone().into()),
        ("digest", record.digest.clone().into()),
        ("added", count(ChangeKind::Added).into()),
        ("removed", count(ChangeKind::Removed).into()),
        ("modified", count(ChangeKind::Modified).into()),
        ("unchanged", small(record.unchanged).into()),
    ]);
    if let Some(base) = record.base {
        dict.insert("base", base.0.into());
    }
    if let Some(uid) = record.cause.uid() {
        dict.insert("uid", uid.into());
    }
    if let Cause::Rollback { to, .. } = record.cause {
        dict.insert("rollback-to", to.0.into());
    }
    dict
}

fn small(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// One generation with its files.
pub fn one(shown: &Shown) -> Dict {
    let record = &*shown.record;
    let mut dict = row(record, shown.is_running);
    let timings: BTreeMap<String, u64> =
        record.timings.iter().map(|timing| (timing.stage.clone(), timing.ms)).collect();
    let files: Vec<FileRow> = shown.files.iter().map(file).collect();
    let modified = record.files.iter().filter_map(|file| file.modified).max();
    dict.insert("timings", timings.into());
    dict.insert("changes", Variant::from(replies::changes(&record.changes)));
    dict.insert("steps", replies::steps(&record.steps).into());
    dict.insert("diagnostics", record.diagnostics.clone().into());
    dict.insert("last-modified", real_or_none(modified).into());
    dict.insert("files", files.into());
    dict
}

fn file(file: &ShownFile) -> FileRow {
    let path = file.path.to_string_lossy().into_owned();
    let text = file.text.clone();
    (file.kind.as_str().to_owned(), path, text.is_some(), text.unwrap_or_default())
}

/// What differs between two configurations.
pub fn difference(difference: &Difference) -> Dict {
    let changes: Vec<ChangeRow> =
        difference.plan.as_ref().map(|plan| replies::changes(&plan.changes)).unwrap_or_default();
    let row = |file: &FileDifference| -> FileDifferenceRow {
        let path = file.path.to_string_lossy().into_owned();
        (path, file.kind.as_str().to_owned(), file.hidden, file.text.clone())
    };
    let files: Vec<FileDifferenceRow> = difference.files.iter().map(row).collect();
    BTreeMap::from([
        ("comparable", difference.plan.is_some().into()),
        ("changes", Variant::from(changes)),
        ("files", files.into()),
    ])
}
