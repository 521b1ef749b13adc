//! The files on disk: what is written how, and what was written last.

use crate::common::rng::Rng;
use crate::file::{Files, Ground};
use crate::yaml;
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// How a file is saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Save {
    /// Beside it, and renamed over it.
    Rename,
    /// Over what is there.
    InPlace,
    /// In pieces, closed at the end.
    Pieces,
    /// Deleted, and made again.
    Anew,
}

/// The files as they were last written.
#[derive(Clone, Default)]
pub struct Disk {
    /// What each says, in a form that can be compared, and its text.
    good: BTreeMap<PathBuf, (String, String)>,
    /// What is there, where that is something else.
    there: BTreeMap<PathBuf, String>,
}

impl Disk {
    /// Writes what the files say; what says the same as before keeps its text, but for `anew`.
    /// Returns how many files changed.
    pub fn write(&mut self, files: &Files, ground: &Ground, rng: &mut Rng, anew: bool) -> Change {
        let mut target = BTreeMap::new();
        let meanings = meanings(files, ground);
        for (path, text) in yaml::render(files, ground, rng) {
            let meaning = meanings[&path].clone();
            let kept = self.good.get(&path).filter(|(old, _)| *old == meaning && !anew);
            let text = kept.map_or(text, |(_, old)| old.clone());
            target.insert(path, (meaning, text));
        }
        self.good = target;
        self.restore()
    }

    /// Whether what is valid is the same, byte for byte.
    pub fn says_the_same(&self, other: &Disk) -> bool {
        let texts = |disk: &Disk| -> Vec<(PathBuf, String)> {
            disk.good.iter().map(|(path, (_, text))| (path.clone(), text.clone())).collect()
        };
        texts(self) == texts(other)
    }

    /// What has to be done so that what is valid is there.
    pub fn restore(&mut self) -> Change {
        let mut change = Change::default();
        for (path, (_, text)) in &self.good {
            if self.there.get(path) != Some(text) {
                change.write.push((path.clone(), text.clone()));
            }
        }
        change.remove =
            self.there.keys().filter(|p| !self.good.contains_key(*p)).cloned().collect();
        self.there =
            self.good.iter().map(|(path, (_, text))| (path.clone(), text.clone())).collect();
        change
    }

    /// What has to be done so that is there what was valid then.
    pub fn go_back(&mut self, before: Disk) -> Change {
        self.good = before.good;
        self.restore()
    }

    /// The file with the processes as it should be, with another comment.
    pub fn comment(&mut self, ground: &Ground, rng: &mut Rng) -> Change {
        let path = ground.place(crate::file::Place::Main);
        let (_, text) = self.good.get_mut(&path).unwrap();
        let rest = text.split_once('\n').map(|(_, rest)| rest).unwrap();
        *text = format!("# {:x}\n{rest}", rng.next());
        self.restore()
    }

    /// The file with the processes, with something that is not valid in it.
    pub fn spoil(&mut self, ground: &Ground, rng: &mut Rng, mistake: &str) -> Change {
        let path = ground.place(crate::file::Place::Main);
        let text = &self.good[&path].1;
        let spoilt = if text.contains("\nprocesses:\n") {
            text.replacen("\nprocesses:\n", &format!("\nprocesses:\n  zz-mistake: {mistake}\n"), 1)
        } else if rng.percent(50) {
            // Cut off within the outermost braces.
            let brace = text.find('{').unwrap();
            let mut end = brace + 1 + rng.below(text.trim_end().len() - brace - 1);
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            text[..end].to_owned()
        } else {
            String::new()
        };
        self.there.insert(path.clone(), spoilt.clone());
        Change { write: vec![(path, spoilt)], remove: Vec::new() }
    }

    /// Takes in what somebody else wrote that says what `files` say.
    pub fn reread(&mut self, files: &Files, ground: &Ground) {
        let meanings = meanings(files, ground);
        for (path, (meaning, text)) in &mut self.good {
            *text = fs::read_to_string(path).unwrap();
            meaning.clone_from(&meanings[path]);
            self.there.insert(path.clone(), text.clone());
        }
    }

    /// All of it, for a person.
    pub fn show(&self) -> String {
        self.there.iter().map(|(path, text)| format!("--- {}\n{text}\n", path.display())).collect()
    }
}

/// What each file says.
fn meanings(files: &Files, ground: &Ground) -> BTreeMap<PathBuf, String> {
    let mut found: BTreeMap<PathBuf, String> = BTreeMap::new();
    found.insert(ground.place(crate::file::Place::Main), String::new());
    for (id, entry) in &files.entries {
        *found.entry(ground.place(entry.place)).or_default() += &format!("{id} {entry:?}\n");
    }
    *found.entry(ground.main_file()).or_default() += &format!("{:?}", files.settings);
    for (number, variables) in &files.env_files {
        found.insert(ground.env_file(*number), format!("{variables:?}"));
    }
    found
}

/// What has to be done on disk.
#[derive(Clone, Debug, Default)]
pub struct Change {
    pub write: Vec<(PathBuf, String)>,
    pub remove: Vec<PathBuf>,
}

impl Change {
    pub fn len(&self) -> usize {
        self.write.len() + self.remove.len()
    }

    pub fn carry_out(&self, how: Save) {
        for (path, text) in &self.write {
            save(path, text, how);
        }
        for path in &self.remove {
            fs::remove_file(path).unwrap();
        }
    }
}

fn save(path: &Path, text: &str, how: Save) {
    let name = path.file_name().unwrap().to_str().unwrap();
    match how {
        Save::Rename => {
            let beside = path.with_file_name(format!(".{name}.new"));
            fs::write(&beside, text).unwrap();
            fs::rename(beside, path).unwrap();
        }
        Save::InPlace => fs::write(path, text).unwrap(),
        Save::Pieces => {
            let mut file = fs::File::create(path).unwrap();
            for piece in text.as_bytes().chunks(text.len() / 3 + 1) {
                file.write_all(piece).unwrap();
            }
        }
        Save::Anew => {
            let _ = fs::remove_file(path);
            fs::write(path, text).unwrap();
        }
    }
}
