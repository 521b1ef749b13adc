//! From words to values.

use super::Form;
use std::net::IpAddr;

/// A value as systemd takes it; the signature of D-Bus is beside each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// `b`
    Bool(bool),
    /// `s`
    Text(String),
    /// `as`
    Texts(Vec<String>),
    /// `t`
    Large(u64),
    /// `i`
    Integer(i32),
    /// `u`
    Mode(u32),
    /// `(bas)`: whether the names are those that are allowed, and the names.
    Filter(bool, Vec<String>),
    /// `a(ss)`
    Pairs(Vec<(String, String)>),
    /// `a(ssbt)`: source, destination, whether it may be missing, flags of mount(2).
    Binds(Vec<(String, String, bool, u64)>),
    /// `ay`: a set, one bit each, the lowest first.
    Bits(Vec<u8>),
    /// `a(iayu)`: family, address, length of the prefix.
    Addresses(Vec<(i32, Vec<u8>, u32)>),
    /// Two of `t`: a soft limit and a hard one.
    Two(u64, u64),
}

/// What the words of a property mean; None when they mean nothing.
pub(super) fn value(form: Form, words: &[String]) -> Option<Value> {
    let one = || words.first().map(String::as_str);
    Some(match form {
        Form::Bool => Value::Bool(boolean(one()?)?),
        Form::Words(known) => {
            let word = one()?;
            // As with systemd, what is a boolean can be said in any way that one is.
            let plain = match boolean(word) {
                Some(true) if known.contains(&"yes") => "yes",
                Some(false) if known.contains(&"no") => "no",
                _ => word,
            };
            Value::Text(known.contains(&plain).then(|| plain.to_owned())?)
        }
        Form::Numbers(known) => {
            let word = one()?;
            Value::Integer(known.iter().find(|(name, _)| *name == word)?.1)
        }
        Form::Integer { min, max } => {
            let number: i32 = one()?.parse().ok()?;
            Value::Integer((min..=max).contains(&number).then_some(number)?)
        }
        Form::Weight => {
            let number: u64 = one()?.parse().ok()?;
            Value::Large((1..=10_000).contains(&number).then_some(number)?)
        }
        Form::Size => Value::Large(size(one()?)?),
        Form::ResourceLimit(_) => resource_limit(one()?)?,
        Form::Mode => {
            let mode = u32::from_str_radix(one()?, 8).ok()?;
            Value::Mode((mode <= 0o7777).then_some(mode)?)
        }
        Form::Names => {
            let good = words.iter().all(|word| !word.is_empty() && !word.contains(' '));
            Value::Texts(good.then(|| words.to_vec())?)
        }
        Form::Paths => Value::Texts(all(words, |word| {
            is_path(word.trim_start_matches(['-', '+'])).then(|| word.to_owned())
        })?),
        Form::Path => Value::Text(is_path(one()?).then(|| words[0].clone())?),
        Form::Below => Value::Texts(all(words, |word| is_below(word).then(|| word.to_owned()))?),
        Form::Filter => {
            let (others, names) = inverted(words);
            let is_name = |word: &str| {
                !word.is_empty()
                    && word.chars().all(|c| c.is_ascii_alphanumeric() || "_@:-".contains(c))
            };
            let none = words.len() == 1 && words[0] == "none";
            let names = if none { Vec::new() } else { names };
            Value::Filter(!others, all(&names, |word| is_name(word).then(|| word.to_owned()))?)
        }
        Form::Capabilities => {
            let (others, names) = inverted(words);
            let mask = names.iter().try_fold(0_u64, |mask, name| Some(mask | capability(name)?))?;
            Value::Large(if others { !mask } else { mask })
        }
        Form::Namespaces => Value::Large(namespaces(words)?),
        Form::Processors => Value::Bits(processors(words)?),
        Form::ErrorNumber => Value::Integer(error_number(one()?)?),
        Form::Binds => Value::Binds(all(words, bind)?),
        Form::Mounts => Value::Pairs(all(words, |word| {
            let (path, options) = word.split_once(':').unwrap_or((word, ""));
            is_path(path).then(|| (path.to_owned(), options.to_owned()))
        })?),
        Form::Credentials => Value::Pairs(all(words, |word| {
            let (id, path) = word.split_once(':')?;
            (is_below(id) && !id.contains('/') && is_path(path))
                .then(|| (id.to_owned(), path.to_owned()))
        })?),
        Form::Devices => Value::Pairs(all(words, |word| {
            let (device, rights) = word.trim().split_once(' ').unwrap_or((word, "rwm"));
            let is_device = device.starts_with("/dev/")
                || ["char-", "block-"].iter().any(|kind| device.starts_with(kind));
            let good = !rights.is_empty() && rights.chars().all(|c| "rwm".contains(c));
            (is_device && good).then(|| (device.to_owned(), rights.to_owned()))
        })?),
        Form::Addresses => Value::Addresses(all(words, addresses)?.into_iter().flatten().collect()),
    })
}

fn all<T>(words: &[String], each: impl Fn(&str) -> Option<T>) -> Option<Vec<T>> {
    words.iter().map(|word| each(word)).collect()
}

/// As systemd reads them.
fn boolean(word: &str) -> Option<bool> {
    match word.to_ascii_lowercase().as_str() {
        "1" | "yes" | "y" | "true" | "t" | "on" => Some(true),
        "0" | "no" | "n" | "false" | "f" | "off" => Some(false),
        _ => None,
    }
}

fn is_path(text: &str) -> bool {
    text.starts_with('/') && !text.split('/').any(|part| part == "..")
}

fn is_below(text: &str) -> bool {
    !text.is_empty() && text.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// Whether a `~` says that all others are meant, and the names.
fn inverted(words: &[String]) -> (bool, Vec<String>) {
    match words.split_first() {
        Some((first, rest)) if first.starts_with('~') => {
            let first = first.trim_start_matches('~').to_owned();
            let first = (!first.is_empty()).then_some(first);
            (true, first.into_iter().chain(rest.iter().cloned()).collect())
        }
        _ => (false, words.to_vec()),
    }
}

const INFINITY: u64 = u64::MAX;

/// A number, with a unit that is a power of 1024 perhaps.
fn size(word: &str) -> Option<u64> {
    if word == "infinity" {
        return Some(INFINITY);
    }
    let digits = word.find(|c: char| !c.is_ascii_digit()).unwrap_or(word.len());
    let shift = match &word[digits..] {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return None,
    };
    word[..digits].parse::<u64>().ok()?.checked_mul(1 << shift)
}

fn resource_limit(word: &str) -> Option<Value> {
    let (soft, hard) = word.split_once(':').unwrap_or((word, word));
    let (soft, hard) = (size(soft)?, size(hard)?);
    (soft <= hard).then_some(Value::Two(soft, hard))
}

fn capability(name: &str) -> Option<u64> {
    // In the order of linux/capability.h.
    const NAMES: &[&str] = &[
        "CHOWN",
        "DAC_OVERRIDE",
        "DAC_READ_SEARCH",
        "FOWNER",
        "FSETID",
        "KILL",
        "SETGID",
        "SETUID",
        "SETPCAP",
        "LINUX_IMMUTABLE",
        "NET_BIND_SERVICE",
        "NET_BROADCAST",
        "NET_ADMIN",
        "NET_RAW",
        "IPC_LOCK",
        "IPC_OWNER",
        "SYS_MODULE",
        "SYS_RAWIO",
        "SYS_CHROOT",
        "SYS_PTRACE",
        "SYS_PACCT",
        "SYS_ADMIN",
        "SYS_BOOT",
        "SYS_NICE",
        "SYS_RESOURCE",
        "SYS_TIME",
        "SYS_TTY_CONFIG",
        "MKNOD",
        "LEASE",
        "AUDIT_WRITE",
        "AUDIT_CONTROL",
        "SETFCAP",
        "MAC_OVERRIDE",
        "MAC_ADMIN",
        "SYSLOG",
        "WAKE_ALARM",
        "BLOCK_SUSPEND",
        "AUDIT_READ",
        "PERFMON",
        "BPF",
        "CHECKPOINT_RESTORE",
    ];
    if name == "none" {
        return Some(0);
    }
    let name = name.to_ascii_uppercase();
    let name = name.strip_prefix("CAP_")?;
    NAMES.iter().position(|known| *known == name).map(|bit| 1 << bit)
}

/// The kinds that are allowed, as flags of clone(2).
fn namespaces(words: &[String]) -> Option<u64> {
    const KINDS: &[(&str, u64)] = &[
        ("cgroup", 0x0200_0000),
        ("ipc", 0x0800_0000),
        ("mnt", 0x0002_0000),
        ("net", 0x4000_0000),
        ("pid", 0x2000_0000),
        ("user", 0x1000_0000),
        ("uts", 0x0400_0000),
    ];
    let every = KINDS.iter().fold(0, |all, (_, flag)| all | flag);
    if let [word] = words
        && let Some(restricted) = boolean(word)
    {
        return Some(if restricted { 0 } else { every });
    }
    let (others, names) = inverted(words);
    let flags = names
        .iter()
        .try_fold(0, |flags, name| Some(flags | KINDS.iter().find(|(kind, _)| kind == name)?.1))?;
    (!names.is_empty()).then_some(if others { every & !flags } else { flags })
}

fn processors(words: &[String]) -> Option<Vec<u8>> {
    /// Of the sets that the kernel's own tools use.
    const MOST: usize = 8192;
    let mut bits = Vec::new();
    for range in words.iter().flat_map(|word| word.split(',')) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if last < first || last >= MOST {
            return None;
        }
        for number in first..=last {
            if bits.len() <= number / 8 {
                bits.resize(number / 8 + 1, 0);
            }
            bits[number / 8] |= 1 << (number % 8);
        }
    }
    (!bits.is_empty()).then_some(bits)
}

fn error_number(word: &str) -> Option<i32> {
    // What a program that is refused something expects to hear.
    const NAMES: &[(&str, i32)] = &[
        ("EPERM", 1),
        ("ENOENT", 2),
        ("EIO", 5),
        ("EAGAIN", 11),
        ("EACCES", 13),
        ("EINVAL", 22),
        ("ENOSYS", 38),
        ("EOPNOTSUPP", 95),
    ];
    let number = || word.parse::<i32>().ok().filter(|number| (1..4096).contains(number));
    NAMES.iter().find(|(name, _)| *name == word).map(|(_, number)| *number).or_else(number)
}

fn bind(word: &str) -> Option<(String, String, bool, u64)> {
    /// Of mount(2): with all that is mounted below.
    const MS_REC: u64 = 16384;
    let mut parts = word.split(':');
    let source = parts.next()?;
    let may_be_missing = source.starts_with('-');
    let source = source.strip_prefix('-').unwrap_or(source);
    let destination = parts.next().unwrap_or(source);
    let flags = match parts.next() {
        None | Some("rbind" | "") => MS_REC,
        Some("norbind") => 0,
        Some(_) => return None,
    };
    let good = is_path(source) && is_path(destination) && parts.next().is_none();
    good.then(|| (source.to_owned(), destination.to_owned(), may_be_missing, flags))
}

fn addresses(word: &str) -> Option<Vec<(i32, Vec<u8>, u32)>> {
    let networks: &[&str] = match word {
        "any" => &["0.0.0.0/0", "::/0"],
        "localhost" => &["127.0.0.0/8", "::1/128"],
        "link-local" => &["169.254.0.0/16", "fe80::/64"],
        "multicast" => &["224.0.0.0/4", "ff00::/8"],
        word => return network(word).map(|one| vec![one]),
    };
    networks.iter().map(|word| network(word)).collect()
}

fn network(word: &str) -> Option<(i32, Vec<u8>, u32)> {
    // Of socket(2) on Linux.
    const AF_INET: i32 = 2;
    const AF_INET6: i32 = 10;
    let (address, prefix) = word.split_once('/').map_or((word, None), |(a, p)| (a, Some(p)));
    let (family, bytes) = match address.parse().ok()? {
        IpAddr::V4(address) => (AF_INET, address.octets().to_vec()),
        IpAddr::V6(address) => (AF_INET6, address.octets().to_vec()),
    };
    let longest = u32::try_from(bytes.len() * 8).ok()?;
    let prefix = prefix.map_or(Some(longest), |prefix| prefix.parse().ok())?;
    (prefix <= longest).then_some((family, bytes, prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(form: Form, text: &str) -> Option<Value> {
        let words: Vec<String> = text.split(' ').map(str::to_owned).collect();
        value(form, &words)
    }

    #[test]
    fn words_mean_what_they_mean_to_systemd() {
        let home = Form::Words(&["no", "yes", "read-only", "tmpfs"]);
        assert_eq!(of(home, "true"), Some(Value::Text("yes".into())));
        assert_eq!(of(home, "tmpfs"), Some(Value::Text("tmpfs".into())));
        assert_eq!(of(home, "tmfs"), None);
        assert_eq!(of(Form::Bool, "off"), Some(Value::Bool(false)));
        assert_eq!(of(Form::Bool, "maybe"), None);
        assert_eq!(of(Form::Size, "64M"), Some(Value::Large(64 << 20)));
        assert_eq!(of(Form::Size, "infinity"), Some(Value::Large(u64::MAX)));
        assert_eq!(of(Form::Size, "1.5G"), None);
        assert_eq!(of(Form::ResourceLimit(""), "64:128"), Some(Value::Two(64, 128)));
        assert_eq!(of(Form::ResourceLimit(""), "128:64"), None);
        assert_eq!(of(Form::Mode, "0750"), Some(Value::Mode(0o750)));
        assert_eq!(of(Form::Processors, "0-3 9"), Some(Value::Bits(vec![0b1111, 0b10])));
        assert_eq!(of(Form::Processors, "3-0"), None);
        assert_eq!(of(Form::ErrorNumber, "EPERM"), Some(Value::Integer(1)));
    }

    #[test]
    fn what_is_allowed_and_what_is_not_are_told_apart() {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let filter = |text| of(Form::Filter, text);
        assert_eq!(filter("@a b"), Some(Value::Filter(true, names(&["@a", "b"]))));
        assert_eq!(filter("~@a b"), Some(Value::Filter(false, names(&["@a", "b"]))));
        assert_eq!(filter("none"), Some(Value::Filter(true, vec![])));
        assert_eq!(filter("a,b"), None);
        let capabilities = |text| of(Form::Capabilities, text);
        assert_eq!(capabilities("CAP_CHOWN CAP_KILL"), Some(Value::Large(0b10_0001)));
        assert_eq!(capabilities("~CAP_CHOWN"), Some(Value::Large(!1)));
        assert_eq!(capabilities("none"), Some(Value::Large(0)));
        assert_eq!(capabilities("CAP_CHECKPOINT_RESTORE"), Some(Value::Large(1 << 40)));
        assert_eq!(capabilities("CHOWN"), None);
        assert_eq!(of(Form::Namespaces, "yes"), Some(Value::Large(0)));
        assert_eq!(of(Form::Namespaces, "net"), Some(Value::Large(0x4000_0000)));
        assert_eq!(of(Form::Namespaces, "~net"), Some(Value::Large(0x3e02_0000)));
        assert_eq!(of(Form::Namespaces, "no"), Some(Value::Large(0x7e02_0000)));
    }

    #[test]
    fn places_are_absolute() {
        let paths = |text| of(Form::Paths, text);
        assert_eq!(paths("-/a /b"), Some(Value::Texts(vec!["-/a".into(), "/b".into()])));
        assert_eq!((paths("a"), paths("/a/../b")), (None, None));
        assert_eq!(of(Form::Below, "app/x"), Some(Value::Texts(vec!["app/x".into()])));
        assert_eq!((of(Form::Below, "/app"), of(Form::Below, "../app")), (None, None));
        let bind = |source: &str, destination: &str, missing, flags| {
            Some(Value::Binds(vec![(source.into(), destination.into(), missing, flags)]))
        };
        assert_eq!(of(Form::Binds, "/a"), bind("/a", "/a", false, 16384));
        assert_eq!(of(Form::Binds, "-/a:/b:norbind"), bind("/a", "/b", true, 0));
        assert_eq!(of(Form::Binds, "/a:b"), None);
        let pair = |a: &str, b: &str| Some(Value::Pairs(vec![(a.into(), b.into())]));
        assert_eq!(of(Form::Mounts, "/a:ro"), pair("/a", "ro"));
        assert_eq!(of(Form::Credentials, "key:/etc/key"), pair("key", "/etc/key"));
        assert_eq!(of(Form::Credentials, "key"), None);
        assert_eq!(value(Form::Devices, &["/dev/null rw".into()]), pair("/dev/null", "rw"));
        let localhost = vec![(2, vec![127, 0, 0, 0], 8), {
            let mut one = vec![0; 16];
            one[15] = 1;
            (10, one, 128)
        }];
        assert_eq!(of(Form::Addresses, "localhost"), Some(Value::Addresses(localhost)));
        let one = vec![(2, vec![10, 0, 0, 1], 32)];
        assert_eq!(of(Form::Addresses, "10.0.0.1"), Some(Value::Addresses(one)));
        assert_eq!(of(Form::Addresses, "10.0.0.0/33"), None);
    }
}
