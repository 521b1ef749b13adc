//! Whatever is not as it was written is never believed: it is set aside and named, and what is whole
//! is told all the same. This is about files that are written whole, and about those that were before
//! there was the ledger.

use super::{Place, Seen, open, text};
use nix::unistd::Uid;
use provost::core::ids::Generation;
use provost::core::spec::Settings;
use provost::store::file::Kind;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;

const FILES: [&str; 5] = ["boot", "whole", "web@0.state", "web@0.run", "stopped"];

fn kind(name: &str) -> Kind {
    match name {
        "boot" => Kind::Boot,
        "whole" => Kind::Whole,
        "stopped" => Kind::Stops,
        name if name.ends_with(".run") => Kind::Run,
        _ => Kind::State,
    }
}

pub fn pipe(path: &Path) {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    mknodat(CWD, path, FileType::Fifo, Mode::RWXU, 0).unwrap();
}

/// A place whose files are damaged one after the other.
struct Bench {
    place: Place,
    whole: Seen,
}

impl Bench {
    fn new() -> Bench {
        let place = Place::new(1);
        let (whole, _) = place.open();
        place.mend();
        Bench { place, whole }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        let directory = if name == "stopped" { self.place.state() } else { self.place.run() };
        directory.join(name)
    }

    fn content(&self, name: &str) -> &[u8] {
        &self.place.files[&self.path(name)]
    }

    /// The file is as `damage` leaves it. The rest is believed, and the file is not.
    fn check(&self, name: &str, what: &str, damage: impl FnOnce(&Path)) {
        let path = self.path(name);
        damage(&path);
        // Without the other place it is quicker.
        let (run, state) = (self.place.run(), self.place.state());
        let mut expected = self.place.without(name, &self.whole);
        let (seen, remarks) = match name {
            "stopped" => {
                let (mut seen, remarks) = open(None, Some(&state));
                // There is none without the other place.
                (expected.token, seen.token) = (0, 0);
                expected.records.clear();
                expected.instances.clear();
                expected.generation = Generation::default();
                expected.settings = Settings::default();
                (seen, remarks)
            }
            _ => {
                expected.stopped.clear();
                open(Some(&run), None)
            }
        };
        assert_eq!(seen, expected, "{name}: {what}");
        assert_eq!(remarks.len(), 1, "{name}: {what}: {remarks:?}");
        let aside = remarks[0].rsplit_once("set aside as ").expect(&remarks[0]).1;
        assert!(
            remarks[0].starts_with(&format!("{} is not used: ", path.display())),
            "{remarks:?}"
        );
        assert!(fs::symlink_metadata(aside).is_ok(), "{name}: {what}: {aside}");
        assert_eq!(fs::symlink_metadata(&path).is_ok(), name == "boot", "{name}: {what}");
        // It is said once.
        let again = open(Some(&run), Some(&state)).1;
        assert_eq!(again, [""; 0], "{name}: {what}");
        fs::remove_dir_all(aside).or_else(|_| fs::remove_file(aside)).unwrap();
        // With it went all the others: there is a ledger now.
        self.place.mend();
    }
}

#[test]
fn cut_off_at_every_byte() {
    let bench = Bench::new();
    for name in FILES {
        let content = bench.content(name);
        for len in 0..content.len() {
            bench.check(name, &format!("{len} bytes"), |path| {
                fs::write(path, &content[..len]).unwrap();
            });
        }
    }
}

/// Each of the head, and some of the rest.
#[test]
fn with_a_bit_that_is_another() {
    let bench = Bench::new();
    for name in FILES {
        let content = bench.content(name);
        let head = content.iter().position(|byte| *byte == b'\n').unwrap();
        for at in 0..content.len() {
            let bits = if at <= head { 0..8 } else { at % 32..at % 32 + 1 };
            for bit in bits.filter(|bit| *bit < 8) {
                let mut flipped = content.to_vec();
                flipped[at] ^= 1 << bit;
                bench.check(name, &format!("bit {bit} of byte {at}"), |path| {
                    fs::write(path, &flipped).unwrap();
                });
            }
        }
    }
}

/// Each bit of each file by itself, which is all that the reading of the place looks at.
#[test]
fn no_bit_may_be_another() {
    let bench = Bench::new();
    for name in FILES {
        let mut content = bench.content(name).to_vec();
        for at in 0..content.len() * 8 {
            content[at / 8] ^= 1 << (at % 8);
            let read = provost::store::file::decode::<serde_json::Value>(&content, kind(name));
            assert!(read.is_err(), "{name}: bit {at}");
            content[at / 8] ^= 1 << (at % 8);
        }
    }
}

#[test]
fn of_a_newer_version_or_of_none() {
    let bench = Bench::new();
    for name in FILES {
        for version in ["2", "4294967295", "4294967296", "0", "-1", "", "1.0"] {
            let content = String::from_utf8(bench.content(name).to_vec()).unwrap();
            let newer = content.replacen(" 1 ", &format!(" {version} "), 1);
            assert_ne!(newer, content);
            bench.check(name, &format!("version {version:?}"), |path| {
                fs::write(path, &newer).unwrap();
            });
        }
    }
}

#[test]
fn something_else_in_its_place() {
    let bench = Bench::new();
    for name in FILES {
        for other in FILES.iter().filter(|other| **other != name) {
            let content = bench.content(other);
            bench.check(name, other, |path| fs::write(path, content).unwrap());
        }
        bench.check(name, "no JSON of this kind", |path| {
            fs::write(path, text(kind(name), &["something"])).unwrap();
        });
        bench.check(name, "more than it was", |path| {
            let content = [bench.content(name), b"\n"].concat();
            fs::write(path, content).unwrap();
        });
        bench.check(name, "a directory", |path| {
            fs::remove_file(path).unwrap();
            fs::create_dir(path).unwrap();
            fs::write(path.join("file"), "").unwrap();
        });
        bench.check(name, "a pipe", |path| {
            fs::remove_file(path).unwrap();
            pipe(path);
        });
        bench.check(name, "a socket", |path| {
            fs::remove_file(path).unwrap();
            drop(std::os::unix::net::UnixListener::bind(path).unwrap());
        });
        bench.check(name, "a link to what is whole", |path| {
            let elsewhere = bench.place.dir.path().join("elsewhere");
            fs::rename(path, &elsewhere).unwrap();
            symlink(elsewhere, path).unwrap();
        });
        bench.check(name, "a link to nowhere", |path| {
            fs::remove_file(path).unwrap();
            symlink("/nowhere/at/all", path).unwrap();
        });
        bench.check(name, "larger than any", |path| {
            let file = fs::OpenOptions::new().write(true).open(path).unwrap();
            file.set_len(1 << 40).unwrap();
        });
    }
}

#[test]
fn of_another_instance() {
    let bench = Bench::new();
    for name in ["web@0.state", "web@0.run"] {
        let other = bench.content(&name.replace('0', "1"));
        bench.check(name, "of another instance", |path| fs::write(path, other).unwrap());
        let text = String::from_utf8(bench.content(name).to_vec()).unwrap();
        let body =
            text.split_once('\n').unwrap().1.replace("\"process\":\"web\"", "\"process\":\"x\"");
        let value: serde_json::Value = serde_json::from_str(&body).unwrap();
        bench.check(name, "of another process", |path| {
            fs::write(path, super::text(kind(name), &value)).unwrap();
        });
    }
}

#[test]
fn one_that_may_not_be_read() {
    let bench = Bench::new();
    if Uid::effective().is_root() {
        // The place is somebody's to whom modes mean something.
        const SOMEBODY: u32 = 65534;
        let root = bench.place.dir.path();
        let files = bench.place.files.keys().map(std::path::PathBuf::as_path);
        let (run, state) = (bench.place.run(), bench.place.state());
        for path in files.chain([root, &run, &state]) {
            chown(path, Some(SOMEBODY), Some(SOMEBODY)).unwrap();
        }
        nix::unistd::seteuid(Uid::from_raw(SOMEBODY)).unwrap();
    }
    for name in FILES {
        bench.check(name, "not readable", |path| {
            fs::set_permissions(path, fs::Permissions::from_mode(0o000)).unwrap();
        });
    }
    nix::unistd::seteuid(Uid::current()).unwrap();
}

/// What was written half when a daemon was killed is in nobody's way.
#[test]
fn what_was_being_written() {
    let bench = Bench::new();
    for name in FILES {
        let path = bench.path(name);
        let half = path.with_file_name(format!(".{name}.new"));
        fs::write(&half, &bench.content(name)[..20]).unwrap();
    }
    let (seen, remarks) = bench.place.open();
    assert_eq!((seen, remarks), (bench.whole.clone(), Vec::new()));
}

/// With the boot, everything is worth nothing; but what runs is still known to be ours.
#[test]
fn of_another_boot() {
    let bench = Bench::new();
    let text = String::from_utf8(bench.content("boot").to_vec()).unwrap();
    let body: serde_json::Value = serde_json::from_str(text.split_once('\n').unwrap().1).unwrap();
    for field in ["id", "namespace", "first"] {
        let mut other = body.clone();
        other[field] = if field == "id" { "another".into() } else { 1.into() };
        fs::write(bench.path("boot"), super::text(Kind::Boot, &other)).unwrap();
        let (seen, remarks) = bench.place.open();
        assert_eq!(remarks, [""; 0]);
        let expected = bench.place.without("boot", &bench.whole);
        assert_eq!(seen, expected, "{field}");
        assert!(!bench.path("web@0.state").exists() && !bench.path("web@0.run").exists());
        bench.place.mend();
    }
    // The token is kept as it was written: another version may make it in another way.
    let mut other = body;
    other["token"] = 7.into();
    fs::write(bench.path("boot"), super::text(Kind::Boot, &other)).unwrap();
    let (seen, _) = bench.place.open();
    assert_eq!(seen, Seen { token: 7, ..bench.whole.clone() });
}
