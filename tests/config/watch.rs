//! Real files, changed in the ways that editors and tools change them.

use crate::common::waiting::DEADLINE;
use provost::config::load::{Location, Mode, load};
use provost::config::watch::Watcher;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

const DEBOUNCE: Duration = Duration::from_millis(40);
/// Longer than the debounce time, shorter than the wait for a close.
const QUIET: Duration = Duration::from_millis(400);

struct Scene {
    directory: TempDir,
    watcher: Watcher,
}

impl Scene {
    /// A watcher that has nothing more to say, on what `prepare` made.
    async fn new(file: &str, prepare: impl FnOnce(&Path)) -> Scene {
        let directory = tempfile::tempdir().unwrap();
        prepare(directory.path());
        let files = [directory.path().join(file)];
        let drop_ins = files[0].with_file_name("processes.d");
        let mut watcher = Watcher::new(DEBOUNCE);
        watcher.rewatch(&files, &drop_ins).await;
        assert_eq!(watcher.compared().collect::<Vec<_>>(), []);
        tokio::time::timeout(DEADLINE, watcher.changed()).await.unwrap();
        Scene { directory, watcher }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// Whether a writer was waited for in vain.
    async fn noticed(&mut self) -> bool {
        tokio::time::timeout(DEADLINE, self.watcher.changed()).await.expect("not noticed")
    }

    async fn quiet(&mut self) {
        let changed = tokio::time::timeout(QUIET, self.watcher.changed()).await;
        assert!(changed.is_err(), "nothing had changed");
    }

    async fn noticed_once(&mut self) {
        assert!(!self.noticed().await);
        self.quiet().await;
    }
}

fn plain(directory: &Path) {
    fs::write(directory.join("p.yaml"), "1").unwrap();
}

#[tokio::test]
async fn writes_in_place() {
    let mut scene = Scene::new("p.yaml", plain).await;
    scene.quiet().await;
    scene.write("p.yaml", "2");
    scene.noticed_once().await;
    let mut file = OpenOptions::new().append(true).open(scene.path("p.yaml")).unwrap();
    file.write_all(b"3").unwrap();
    drop(file);
    scene.noticed_once().await;
}

#[tokio::test]
async fn names_that_do_not_matter() {
    let mut scene = Scene::new("p.yaml", plain).await;
    for name in [".p.yaml.swp", "4913", "p.yaml~", "sedAbCdEf", "other.yaml", "p.log"] {
        scene.write(name, "x");
        fs::remove_file(scene.path(name)).unwrap();
    }
    scene.quiet().await;
}

#[tokio::test]
async fn vim() {
    let mut scene = Scene::new("p.yaml", plain).await;
    for text in ["2", "3"] {
        fs::rename(scene.path("p.yaml"), scene.path("p.yaml~")).unwrap();
        let mut file = File::create(scene.path("p.yaml")).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file.sync_all().unwrap();
        drop(file);
        fs::set_permissions(
            scene.path("p.yaml"),
            fs::metadata(scene.path("p.yaml~")).unwrap().permissions(),
        )
        .unwrap();
        fs::remove_file(scene.path("p.yaml~")).unwrap();
        scene.noticed_once().await;
    }
}

#[tokio::test]
async fn a_temporary_file_and_rename() {
    let mut scene = Scene::new("p.yaml", plain).await;
    for text in ["2", "3"] {
        scene.write(".p.yaml.Xa12b", text);
        fs::rename(scene.path(".p.yaml.Xa12b"), scene.path("p.yaml")).unwrap();
        scene.noticed_once().await;
    }
    // And away.
    fs::rename(scene.path("p.yaml"), scene.path("q.yaml")).unwrap();
    scene.noticed_once().await;
}

#[tokio::test]
async fn a_slow_writer_is_one_change() {
    let mut scene = Scene::new("p.yaml", plain).await;
    let mut file = File::create(scene.path("p.yaml")).unwrap();
    for _ in 0..3 {
        file.write_all(b"half ").unwrap();
        scene.quiet().await;
    }
    // Another file that is finished does not hurry it.
    fs::create_dir(scene.path("processes.d")).unwrap();
    scene.quiet().await;
    drop(file);
    scene.noticed_once().await;
    assert_eq!(fs::read_to_string(scene.path("p.yaml")).unwrap(), "half half half ");
}

#[tokio::test]
async fn a_writer_that_never_closes_is_read_all_the_same() {
    let mut scene = Scene::new("p.yaml", plain).await;
    let mut file = File::create(scene.path("p.yaml")).unwrap();
    file.write_all(b"2").unwrap();
    assert!(scene.noticed().await);
    drop(file);
}

#[tokio::test]
async fn a_busy_file_is_read_at_the_ceiling() {
    let mut scene = Scene::new("p.yaml", plain).await;
    let start = std::time::Instant::now();
    let mut tick = tokio::time::interval(Duration::from_millis(10));
    let mut file = File::create(scene.path("p.yaml")).unwrap();
    loop {
        tokio::select! {
            in_vain = scene.watcher.changed() => {
                assert!(in_vain);
                break;
            }
            _ = tick.tick() => {
                file.write_all(b"x").unwrap();
                assert!(start.elapsed() < DEADLINE);
            }
        }
    }
    assert!(start.elapsed() >= Duration::from_secs(4), "it came early: {:?}", start.elapsed());
}

#[tokio::test]
async fn deleted_and_made_again() {
    let mut scene = Scene::new("p.yaml", plain).await;
    fs::remove_file(scene.path("p.yaml")).unwrap();
    scene.noticed_once().await;
    scene.write("p.yaml", "2");
    scene.noticed_once().await;
    scene.write("p.yaml", "3");
    scene.noticed_once().await;
}

#[tokio::test]
async fn missing_with_its_directories_and_then_there() {
    let mut scene = Scene::new("a/b/p.yaml", |_| {}).await;
    fs::create_dir_all(scene.path("a/b")).unwrap();
    scene.noticed().await;
    scene.write("a/b/p.yaml", "1");
    scene.noticed_once().await;
    scene.write("a/b/p.yaml", "2");
    scene.noticed_once().await;
}

#[tokio::test]
async fn the_directory_deleted_and_made_again() {
    let prepare = |directory: &Path| {
        fs::create_dir(directory.join("d")).unwrap();
        fs::write(directory.join("d/p.yaml"), "1").unwrap();
    };
    let mut scene = Scene::new("d/p.yaml", prepare).await;
    fs::remove_dir_all(scene.path("d")).unwrap();
    scene.noticed().await;
    fs::create_dir(scene.path("d")).unwrap();
    scene.write("d/p.yaml", "2");
    scene.noticed().await;
    scene.write("d/p.yaml", "3");
    scene.noticed_once().await;
}

#[tokio::test]
async fn the_directory_replaced() {
    let prepare = |directory: &Path| {
        for (name, text) in [("d", "1"), ("new", "2")] {
            fs::create_dir(directory.join(name)).unwrap();
            fs::write(directory.join(name).join("p.yaml"), text).unwrap();
        }
    };
    let mut scene = Scene::new("d/p.yaml", prepare).await;
    fs::rename(scene.path("d"), scene.path("old")).unwrap();
    fs::rename(scene.path("new"), scene.path("d")).unwrap();
    scene.noticed_once().await;
    scene.write("old/p.yaml", "of no interest");
    scene.quiet().await;
    scene.write("d/p.yaml", "3");
    scene.noticed_once().await;
}

/// What a ConfigMap looks like in a container, and how it is changed.
#[tokio::test]
async fn the_data_of_a_config_map_swapped() {
    fn version(directory: &Path, name: &str) {
        fs::create_dir(directory.join(name)).unwrap();
        fs::write(directory.join(name).join("p.yaml"), name).unwrap();
        symlink(name, directory.join("..data_tmp")).unwrap();
        fs::rename(directory.join("..data_tmp"), directory.join("..data")).unwrap();
    }
    let prepare = |directory: &Path| {
        version(directory, "..v1");
        symlink("..data/p.yaml", directory.join("p.yaml")).unwrap();
    };
    let mut scene = Scene::new("p.yaml", prepare).await;
    for (old, new) in [("..v1", "..v2"), ("..v2", "..v3")] {
        version(scene.directory.path(), new);
        fs::remove_dir_all(scene.path(old)).unwrap();
        scene.noticed_once().await;
        assert_eq!(fs::read_to_string(scene.path("p.yaml")).unwrap(), new);
    }
}

#[tokio::test]
async fn a_symlink_on_a_release_directory() {
    let prepare = |directory: &Path| {
        for release in ["r1", "r2"] {
            fs::create_dir_all(directory.join("releases").join(release)).unwrap();
            fs::write(directory.join("releases").join(release).join("p.yaml"), release).unwrap();
        }
        symlink("releases/r1", directory.join("current")).unwrap();
    };
    let mut scene = Scene::new("current/p.yaml", prepare).await;
    symlink("releases/r2", scene.path("tmp")).unwrap();
    fs::rename(scene.path("tmp"), scene.path("current")).unwrap();
    scene.noticed_once().await;
    scene.write("releases/r2/p.yaml", "x");
    scene.noticed_once().await;
    scene.write("releases/r1/p.yaml", "x");
    scene.quiet().await;
}

#[tokio::test]
async fn drop_ins_come_and_go() {
    let mut scene = Scene::new("p.yaml", plain).await;
    fs::create_dir(scene.path("processes.d")).unwrap();
    scene.noticed_once().await;
    scene.write("processes.d/a.yaml", "1");
    scene.noticed_once().await;
    scene.write("processes.d/.a.yaml.swp", "1");
    scene.write("processes.d/a.yaml~", "1");
    scene.quiet().await;
    fs::remove_file(scene.path("processes.d/a.yaml")).unwrap();
    scene.noticed_once().await;
    fs::remove_dir_all(scene.path("processes.d")).unwrap();
    scene.noticed_once().await;
}

#[tokio::test]
async fn a_loop_of_symlinks_is_no_loop_of_ours() {
    let prepare = |directory: &Path| {
        symlink("q.yaml", directory.join("p.yaml")).unwrap();
        symlink("p.yaml", directory.join("q.yaml")).unwrap();
    };
    let mut scene = Scene::new("p.yaml", prepare).await;
    fs::remove_file(scene.path("p.yaml")).unwrap();
    scene.write("p.yaml", "1");
    scene.noticed_once().await;
}

#[tokio::test]
async fn other_files_after_a_load() {
    let mut scene = Scene::new("p.yaml", plain).await;
    let files = [scene.path("p.yaml"), scene.path("e.env")];
    let drop_ins = scene.path("processes.d");
    scene.watcher.rewatch(&files, &drop_ins).await;
    // It was not watched while it was read.
    scene.noticed_once().await;
    scene.watcher.rewatch(&files, &drop_ins).await;
    scene.quiet().await;
    scene.write("e.env", "A=1");
    scene.noticed_once().await;
    scene.watcher.rewatch(&files[..1], &drop_ins).await;
    scene.write("e.env", "A=2");
    scene.quiet().await;
}

/// A writer that never rests, a reader that reads after each answer: what is read last is what was
/// written last.
#[tokio::test]
async fn no_change_is_lost_between_watch_and_read() {
    let mut scene = Scene::new("p.yaml", plain).await;
    let path = scene.path("p.yaml");
    let writer = std::thread::spawn({
        let path = path.clone();
        move || {
            for n in 0..300 {
                let new = path.with_extension("new");
                fs::write(&new, format!("processes:\n  p{n}: {{command: x}}\n")).unwrap();
                fs::rename(&new, &path).unwrap();
            }
        }
    });
    let location = Location { main: path, mode: Mode::User, environment: Arc::default() };
    let last = "p299";
    loop {
        scene.noticed().await;
        let loaded = load(&location);
        if loaded.places.keys().any(|id| id.as_str() == last) {
            break;
        }
    }
    writer.join().unwrap();
}
