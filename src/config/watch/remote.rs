//! Which file systems are changed by others than this kernel.

use std::path::Path;

/// File systems whose changes can be made elsewhere: on a server, in a host or in another program.
/// The kernel tells of a change only where it makes it. Numbers: statfs(2), linux/magic.h, and the
/// sources of the file systems.
///
/// overlayfs is not among them: what is changed through it is told of, and its layers may not be
/// changed behind its back (Documentation/filesystems/overlayfs.rst).
const REMOTE: &[(u32, &str)] = &[
    (0x0000_6969, "NFS"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB"),
    (0x0000_517b, "SMB"),
    // Also virtiofs, sshfs, GlusterFS and the shared folders of desktop container tools.
    (0x6573_5546, "FUSE"),
    (0x0102_1997, "9p"),
    (0x00c3_6400, "Ceph"),
    (0x5346_414f, "AFS"),
    (0x6b41_4653, "AFS"),
    (0x7375_7245, "Coda"),
    (0x0bd0_0bd0, "Lustre"),
    (0x4750_4653, "GPFS"),
    (0x0116_1970, "GFS2"),
    (0x7461_636f, "OCFS2"),
    (0x2003_0528, "OrangeFS"),
    (0x786f_4256, "VirtualBox shared folders"),
];

/// The name of the file system a path is on, where others can change it. None also where nothing is
/// there.
pub(in crate::config) fn file_system(path: &Path) -> Option<&'static str> {
    let kind = rustix::fs::statfs(path).ok()?.f_type;
    // The field is signed and wider on some machines; the number has 32 bits.
    let magic = u32::try_from(kind & 0xffff_ffff).ok()?;
    REMOTE.iter().find(|(known, _)| *known == magic).map(|(_, name)| *name)
}
