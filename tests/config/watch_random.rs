//! Everything that can be done to the files, at random and as fast as it goes: what is read last is
//! what is there at last.

use crate::Files;
use crate::common::rng::Rng;
use crate::common::waiting::DEADLINE;
use provost::config::load::{Location, load};
use provost::config::watch::Watcher;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The files and what is done to them. `p.yaml` leads over `current` into one of two directories, and
/// so does the directory of the drop-ins.
struct World {
    root: PathBuf,
    random: Rng,
    count: u32,
    done: Vec<String>,
}

impl World {
    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn text(&mut self) -> String {
        self.count += 1;
        format!("processes: {{ a: {{ command: [x, '{}'], envFile: e.env }} }}\n", self.count)
    }

    fn set_up(&mut self) {
        for n in 0..2 {
            let text = self.text();
            make(&self.path(&format!("r{n}")), &text).unwrap();
            fs::create_dir(self.path(&format!("d{n}"))).unwrap();
        }
        symlink("r0", self.path("current")).unwrap();
        symlink("current/p.yaml", self.path("p.yaml")).unwrap();
        symlink("d0", self.path("processes.d")).unwrap();
        fs::write(self.path("e.env"), "A=1\n").unwrap();
    }

    /// What cannot be done at the moment is not done.
    fn act(&mut self) {
        let text = self.text();
        let what = self.random.below(14);
        let release = self.random.word(&["r0", "r1", "current"]).to_owned();
        let file = match self.random.below(3) {
            0 => "p.yaml".to_owned(),
            _ => format!("{release}/p.yaml"),
        };
        let drop_in =
            self.random.word(&["d0/a.yaml", "d1/a.yaml", "processes.d/b.yaml"]).to_owned();
        let drop_ins = self.random.word(&["d0", "d1"]).to_owned();
        let of_drop_in = format!("processes: {{ d{}: {{ command: y }} }}\n", self.count);
        let to = |name: &str| self.root.join(name);
        let (file, drop_in, new) = (to(&file), to(&drop_in), to("new"));
        let result = match what {
            0 => fs::write(&file, text),
            1 => in_two(&file, &text),
            2 => fs::write(&new, text).and_then(|()| fs::rename(&new, &file)),
            3 => fs::remove_file(&file),
            4 => fs::remove_file(&file).and_then(|()| fs::write(&file, text)),
            5 => link(&new, &to("current"), self.random.word(&["r0", "r1"])),
            6 => make(&new, &text).and_then(|()| {
                fs::rename(to(&release), to("old"))?;
                fs::rename(&new, to(&release))?;
                fs::remove_dir_all(to("old"))
            }),
            7 => fs::remove_dir_all(to(&release)).and_then(|()| make(&to(&release), &text)),
            8 => link(&new, &to("p.yaml"), self.random.word(&["r0/p.yaml", "current/p.yaml"])),
            9 => fs::write(&drop_in, of_drop_in),
            10 => fs::remove_file(&drop_in),
            11 => link(&new, &to("processes.d"), self.random.word(&["d0", "d1"])),
            12 => fs::remove_dir_all(to(&drop_ins)).and_then(|()| fs::create_dir(to(&drop_ins))),
            _ => fs::write(to("e.env"), format!("A={}\n", self.count)),
        };
        // What it left half done is not in the way of the next.
        let _ = fs::remove_dir_all(self.path("old"));
        let _ = fs::remove_dir_all(&new).or_else(|_| fs::remove_file(&new));
        let words = format!("{what} {} {} {release}", file.display(), drop_in.display());
        self.done.push(format!("{words}: {result:?}"));
    }
}

fn make(directory: &Path, text: &str) -> io::Result<()> {
    fs::create_dir(directory)?;
    fs::write(directory.join("p.yaml"), text)
}

fn in_two(file: &Path, text: &str) -> io::Result<()> {
    let mut open = OpenOptions::new().write(true).truncate(true).open(file)?;
    let (one, other) = text.as_bytes().split_at(text.len() / 2);
    open.write_all(one)?;
    std::thread::yield_now();
    open.write_all(other)
}

fn link(new: &Path, at: &Path, target: &str) -> io::Result<()> {
    symlink(target, new)?;
    fs::rename(new, at)
}

/// What is on disk, and where.
fn digest(location: &Location) -> (String, Vec<PathBuf>, PathBuf) {
    let sources = load(location).sources;
    let files = sources.files.iter().map(|source| source.path.to_path_buf()).collect();
    (sources.digest, files, sources.drop_ins)
}

#[tokio::test]
async fn whatever_is_done_is_noticed() {
    let seed = std::env::var("PROVOST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        now.as_nanos() as u64 | 1
    });
    println!("PROVOST_SEED={seed}");
    let rounds = std::env::var("PROVOST_ROUNDS").map_or(25, |rounds| rounds.parse().unwrap());
    let files = Files::new();
    let location = files.location("p.yaml");
    let root = files.root().to_owned();
    let mut world = World { root, random: Rng::new(seed), count: 0, done: Vec::new() };
    world.set_up();
    let mut watcher = Watcher::new(Duration::from_millis(5));
    let mut known = String::new();
    let (_, paths, drop_ins) = digest(&location);
    watcher.rewatch(&paths, &drop_ins).await;
    for round in 0..rounds {
        let acts = 1 + world.random.below(8);
        world.done.clear();
        let acting = std::thread::spawn(move || {
            for _ in 0..acts {
                world.act();
                for _ in 0..world.random.below(200) {
                    std::thread::yield_now();
                }
            }
            world
        });
        // Reads as the daemon does, while it goes on and after.
        let mut acting = Some(acting);
        loop {
            if acting.as_ref().is_some_and(std::thread::JoinHandle::is_finished) {
                world = acting.take().unwrap().join().unwrap();
                break;
            }
            tokio::select! {
                biased;
                _ = watcher.changed() => {
                    let (now, paths, drop_ins) = digest(&location);
                    known = now;
                    watcher.rewatch(&paths, &drop_ins).await;
                }
                () = tokio::task::yield_now() => {}
            }
        }
        let (wanted, _, _) = digest(&location);
        while known != wanted {
            let noticed = tokio::time::timeout(DEADLINE, watcher.changed()).await;
            assert!(noticed.is_ok(), "seed {seed}, round {round}, missed: {:#?}", world.done);
            let (now, paths, drop_ins) = digest(&location);
            known = now;
            watcher.rewatch(&paths, &drop_ins).await;
        }
    }
}
