//! Roots of Debian systems: built once for each recipe, and kept.

use crate::cannot;
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Which system a machine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Debian {
    /// Debian 12, systemd 252.
    Bookworm,
    /// Debian 13, systemd 257.
    Trixie,
    /// Debian 13 with the other implementation of the bus.
    TrixieBroker,
    /// Debian 13 with a kernel, for a machine that is none of its host's.
    TrixieKernel,
}

impl Debian {
    fn codename(self) -> &'static str {
        match self {
            Debian::Bookworm => "bookworm",
            Debian::Trixie | Debian::TrixieBroker | Debian::TrixieKernel => "trixie",
        }
    }

    fn packages(self) -> &'static str {
        match self {
            Debian::Bookworm | Debian::Trixie => {
                "systemd,systemd-sysv,dbus,dbus-user-session,libpam-systemd,procps"
            }
            Debian::TrixieBroker => {
                "systemd,systemd-sysv,dbus,dbus-broker,dbus-user-session,libpam-systemd,procps"
            }
            Debian::TrixieKernel => {
                "systemd,systemd-sysv,dbus,dbus-user-session,libpam-systemd,procps,\
                 linux-image-cloud-amd64,initramfs-tools"
            }
        }
    }

    /// What is run in the new root besides.
    fn finish(self) -> Option<String> {
        (self == Debian::TrixieKernel).then(|| format!("--customize-hook={RUN}"))
    }
}

/// Run in the new root: nothing goes out to look for upgrades, packages are installed without
/// waiting for a disk, and there is somebody to log in.
const FINISH: &str = r#"
rm -rf "$1"/etc/systemd/system/timers.target.wants
echo force-unsafe-io >"$1"/etc/dpkg/dpkg.cfg.d/machine
chroot "$1" useradd --create-home --shell /bin/bash alice
rm -f "$1"/etc/machine-id "$1"/etc/hostname
"#;

/// Run in the root of an emulated machine: once up, it runs `run` of its second disk.
const RUN: &str = r#"
echo machine >"$1"/etc/hostname
systemd-machine-id-setup --root="$1"
printf '/dev/%s %s ext4 %s 0 0\n' vda / rw vdb /package ro >"$1"/etc/fstab
mkdir "$1"/package
cd "$1"/etc/systemd/system
printf '[Unit]\nAfter=dbus.service\n[Service]\nExecStart=/bin/bash /package/run\n' >run.service
mkdir -p multi-user.target.wants
ln -s ../run.service multi-user.target.wants/
"#;

/// Where everything is kept that takes long to make.
pub fn cache() -> PathBuf {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("machine");
    fs::create_dir_all(&cache).unwrap();
    cache
}

/// Makes a directory of the cache unless it is there for this key: `make` is given another name for
/// it, and whoever else wants it meanwhile waits. Those of other keys go.
pub fn kept(kind: &str, key: &str, make: impl FnOnce(&Path) -> Option<()>) -> Option<PathBuf> {
    let cache = cache();
    let path = cache.join(format!("{kind}-{key}"));
    let lock = File::create(cache.join(format!("{kind}.lock"))).unwrap();
    lock.lock().unwrap();
    if !path.exists() {
        for entry in fs::read_dir(&cache).unwrap().flatten() {
            // Half of one, too, that was being made by who was killed.
            if entry.file_name().to_string_lossy().starts_with(&format!("{kind}-")) {
                fs::remove_dir_all(entry.path()).unwrap();
            }
        }
        let half = cache.join(format!("{kind}-half"));
        make(&half)?;
        fs::rename(&half, &path).unwrap();
    }
    Some(path)
}

/// The name of something made by this recipe.
pub fn digest<T: AsRef<[u8]>>(recipe: impl IntoIterator<Item = T>) -> String {
    let mut digest = Sha256::new();
    for part in recipe {
        digest.update((part.as_ref().len() as u64).to_le_bytes());
        digest.update(part.as_ref());
    }
    digest.finalize()[..6].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The root of such a system; nothing may be changed in it. None where it cannot be had.
pub fn root(debian: Debian) -> Option<PathBuf> {
    let mut arguments: Vec<String> = [
        "--variant=minbase",
        &format!("--include={}", debian.packages()),
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*",
        "--dpkgopt=path-exclude=/usr/share/man/*",
        &format!("--customize-hook={FINISH}"),
    ]
    .map(str::to_owned)
    .into();
    arguments.extend(debian.finish());
    let key = digest(arguments.iter().chain([&debian.codename().to_owned()]));
    arguments.extend(proxies().into_iter().map(|line| format!("--aptopt={line}")));
    kept(&format!("{debian:?}"), &key, |half| {
        let mut build = Command::new("mmdebstrap");
        build.args(&arguments).arg(debian.codename()).arg(half).args(mirror());
        let built = match build.output() {
            Ok(built) => built,
            Err(error) => return cannot(&format!("no mmdebstrap: {error}")),
        };
        if !built.status.success() {
            let said = String::from_utf8_lossy(&built.stderr);
            return cannot(&format!("{debian:?} cannot be fetched:\n{said}"));
        }
        Some(())
    })
}

/// The archive that this machine's packages come from, if they come from Debian.
fn mirror() -> Option<String> {
    let listed = Command::new("apt-get")
        .args(["indextargets", "--format", "$(LABEL)|$(CODENAME)|$(REPO_URI)"])
        .arg("Created-By: Packages")
        .output()
        .ok()?;
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let main = listed.lines().filter_map(|line| line.strip_prefix("Debian|"));
    // Not one of updates or backports alone.
    main.filter_map(|line| line.split_once('|'))
        .find(|(codename, _)| !codename.contains('-'))
        .map(|(_, uri)| uri.to_owned())
}

/// How this machine's apt goes out.
fn proxies() -> Vec<String> {
    let dumped = Command::new("apt-config").args(["dump", "Acquire"]).output();
    let dumped = dumped.map(|dumped| dumped.stdout).unwrap_or_default();
    let dumped = String::from_utf8_lossy(&dumped).into_owned();
    let lines = dumped.lines().filter(|line| line.to_lowercase().contains("proxy"));
    lines.map(str::to_owned).collect()
}
