//! The package, built from this tree as the README says, but not optimised.

use crate::cannot;
use crate::image::{digest, kept};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const TREE: &str = env!("CARGO_MANIFEST_DIR");

/// Builds in a view of the tree that takes all writes, so that nothing is left in it or beside it.
/// `target` is the real one: what cargo has built is not built again.
const BUILD: &str = r#"
tree=$1 out=$2 parent=${1%/*}
# Not below what is covered by the view.
for scratch in /mnt /media /srv; do
    case $tree/ in "$scratch"/*) ;; *) test -d "$scratch" && break ;; esac
done
mount -t tmpfs tmpfs "$scratch"
cd "$scratch"
mkdir -p view tree/upper tree/work parent/upper parent/work target out
mount --bind "$tree/target" target
mount --bind "$out" out
# The tree may be a mount of its own, which a view of its parent would not have.
mount -t overlay overlay -o "lowerdir=$tree,upperdir=$PWD/tree/upper,workdir=$PWD/tree/work" view
if test -n "$parent"; then
    mount -t overlay overlay \
        -o "lowerdir=$parent,upperdir=$PWD/parent/upper,workdir=$PWD/parent/work" "$parent"
fi
mount --bind view "$tree"
mount --bind target "$tree/target"
(
    cd "$tree"
    export DEB_BUILD_OPTIONS=noopt DPKG_DEB_COMPRESSOR_TYPE=gzip DPKG_DEB_COMPRESSOR_LEVEL=1
    dpkg-buildpackage -us -uc -b -d
)
mv "$parent"/provost_*.deb out/provost.deb
rm -f "$parent"/provost_*.buildinfo "$parent"/provost_*.changes
"#;

/// What the package is made of, beside the programs.
const PARTS: [&str; 8] =
    ["debian", "systemd", "dbus", "packaging", "docs", "README.md", "Cargo.toml", "Cargo.lock"];

/// A directory with the package as `provost.deb`: the one that is given, such as a release, or one of
/// this tree.
pub fn package() -> Option<PathBuf> {
    if let Some(given) = std::env::var_os("PROVOST_TEST_PACKAGE") {
        return Some(given.into());
    }
    let mut parts = vec![BUILD.to_owned()];
    for program in [
        env!("CARGO_BIN_EXE_provost"),
        env!("CARGO_BIN_EXE_provostd"),
        env!("CARGO_BIN_EXE_provost-log"),
        env!("CARGO_BIN_EXE_provost-net"),
    ] {
        let metadata = fs::metadata(program).unwrap();
        parts.push(format!("{} {}.{}", metadata.len(), metadata.mtime(), metadata.mtime_nsec()));
    }
    PARTS.iter().for_each(|part| add(&Path::new(TREE).join(part), &mut parts));
    kept("package", &digest(&parts), |half| {
        fs::create_dir(half).unwrap();
        let log = half.join("build.log");
        let output = fs::File::create(&log).unwrap();
        let built = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "bash", "-euo", "pipefail", "-c", BUILD])
            .args(["build", TREE])
            .arg(half)
            // Cargo gives them to its children, and they are part of what it compares.
            .env_remove("CARGO_MANIFEST_DIR")
            .env_remove("CARGO_TARGET_DIR")
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .status()
            .unwrap();
        assert!(built.success(), "{built}\n{}", fs::read_to_string(log).unwrap());
        Some(())
    })
}

#[test]
fn lintian_finds_no_error() {
    let Some(package) = package() else { return };
    let mut lintian = Command::new("lintian");
    lintian.args(["--fail-on", "error", "--allow-root"]).arg(package.join("provost.deb"));
    let found = match lintian.output() {
        Ok(found) => found,
        Err(error) => return cannot(&format!("no lintian: {error}")).unwrap_or_default(),
    };
    let said = String::from_utf8_lossy(&found.stdout);
    assert!(found.status.success(), "{said}\n{}", String::from_utf8_lossy(&found.stderr));
}

/// The contents of a file, or of all files below a directory.
fn add(path: &Path, parts: &mut Vec<String>) {
    if path.is_dir() {
        let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
        let mut entries: Vec<PathBuf> = entries.collect();
        entries.sort();
        entries.iter().for_each(|entry| add(entry, parts));
    } else {
        parts.push(path.display().to_string());
        parts.push(String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned());
    }
}
