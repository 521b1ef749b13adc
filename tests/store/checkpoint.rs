//! What is to be confirmed is known again, or said to be damaged.

use super::golden;
use provost::core::ids::Generation;
use provost::core::time::Mono;
use provost::store::checkpoint::{Checkpoints, Tentative};
use std::fs;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

fn place() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for name in ["checkpoint", "checkpoint.former"] {
        fs::copy(golden(1).join(name), dir.path().join(name)).unwrap();
    }
    dir
}

fn open(dir: &Path) -> (Checkpoints, Option<Tentative>, Vec<String>) {
    let mut remarks = Vec::new();
    let (checkpoints, found) = Checkpoints::open(Some(dir), &mut remarks);
    (checkpoints, found, remarks)
}

#[test]
fn a_golden_one_means_what_it_meant() {
    let dir = place();
    let (checkpoints, found, remarks) = open(dir.path());
    let found = found.unwrap();
    assert_eq!(remarks, [""; 0]);
    assert_eq!((found.generation, found.base), (Some(Generation(2)), Some(Generation(1))));
    assert_eq!((found.uid, found.within), (0, Duration::from_secs(7200)));
    assert_eq!(found.until, Some(Mono(53_849_498_054_509)));
    assert_eq!(found.path, Path::new("/tmp/goldenchk/processes.yaml"));
    assert_eq!(found.held_off, None);
    let trial = found.trial.clone().unwrap();
    assert_eq!((trial.tried, trial.base, trial.before.len()), (Generation(2), Generation(1), 1));
    let former = checkpoints.former(&found).unwrap().unwrap();
    assert_eq!(former, fs::read(golden(1).join("checkpoint.former")).unwrap());
    // Written again it is the same.
    checkpoints.save(&found).unwrap();
    let file = |dir: &Path| fs::read(dir.join("checkpoint")).unwrap();
    assert_eq!(file(dir.path()), file(&golden(1)));
}

#[test]
fn one_that_was_cut_or_changed_is_set_aside_and_said() {
    let whole = fs::read(golden(1).join("checkpoint")).unwrap();
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        for damaged in [&whole[..at], &flipped] {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join("checkpoint"), damaged).unwrap();
            let (_, found, remarks) = open(dir.path());
            assert_eq!((found, remarks.len()), (None, 1), "at {at}: {remarks:?}");
            assert!(!dir.path().join("checkpoint").exists());
        }
    }
}

#[test]
fn a_former_content_that_was_changed_is_not_put_back() {
    let dir = place();
    let (checkpoints, found, _) = open(dir.path());
    let found = found.unwrap();
    fs::write(dir.path().join("checkpoint.former"), "processes: {}").unwrap();
    assert!(checkpoints.former(&found).is_err());
    fs::remove_file(dir.path().join("checkpoint.former")).unwrap();
    assert!(checkpoints.former(&found).is_err());
    assert_eq!(checkpoints.former(&Tentative { former: None, ..found }).unwrap(), None);
}

#[test]
fn what_has_ended_is_gone_and_what_cannot_be_kept_was_never_begun() {
    let dir = place();
    let (checkpoints, found, _) = open(dir.path());
    let found = found.unwrap();
    checkpoints.end().unwrap();
    checkpoints.end().unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    // Where a directory is in the way of the record.
    fs::create_dir(dir.path().join(".checkpoint.new")).unwrap();
    assert!(checkpoints.begin(&found, Some(b"x")).is_err());
    assert_eq!(open(dir.path()).1, None);
    let nowhere = Checkpoints::open(None, &mut Vec::new()).0;
    assert!(!nowhere.is_kept());
    assert!(nowhere.begin(&found, None).is_err());
}
