//! Sandboxes, and the properties of units that the file may set: which there are, and what their
//! words mean to systemd (systemd.exec(5), systemd.resource-control(5),
//! org.freedesktop.systemd1(5)).
//!
//! A property is kept as the words of the file. [`read`] makes of them what systemd is told, and is
//! how they are validated as well: what it takes can be set on a transient unit by every version that
//! is supported, 252 and later.

mod table;
mod values;

pub use self::table::{OWNED, PROPERTIES};
pub use self::values::Value;

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Properties of a unit: their words, by name.
pub type UnitProperties = BTreeMap<String, Vec<String>>;

/// What of the machine a process may see and do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sandbox {
    /// Whatever its user may.
    #[default]
    None,
    /// Without what hardly any service needs: new rights, and the ways to change the kernel, the
    /// clock and the system's own files.
    Default,
    /// Files of its directory alone, no devices, no other way to the kernel than services take.
    Strict,
}

/// A property that the file may set.
#[derive(Debug)]
pub struct Property {
    /// As in the file of a unit.
    pub name: &'static str,
    /// What its words are.
    pub form: Form,
    /// What it is about.
    pub part: Part,
    /// Words for the manual, and for a test that systemd takes them.
    pub example: &'static [&'static str],
}

/// What a property is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// What a process may see and do: that holds for commands beside it, such as checks, as well.
    Sandbox,
    /// What its unit has or uses: that is not for anybody else.
    Own,
}

/// What the words of a property are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Yes or no.
    Bool,
    /// One of these.
    Words(&'static [&'static str]),
    /// One of these, which stand for numbers.
    Numbers(&'static [(&'static str, i32)]),
    /// A whole number.
    Integer {
        /// At least.
        min: i32,
        /// At most.
        max: i32,
    },
    /// A share, 1 to 10000.
    Weight,
    /// Bytes, or `infinity`.
    Size,
    /// A limit of resources, `infinity`, or a soft and a hard one with a colon. With the name of
    /// the property for the soft one.
    ResourceLimit(&'static str),
    /// Octal permissions.
    Mode,
    /// Users' groups, or architectures: names as they are.
    Names,
    /// Absolute paths; one with `-` before it may be missing.
    Paths,
    /// One absolute path.
    Path,
    /// Paths below a directory of the system, such as `/run`.
    Below,
    /// Names that are allowed, or with `~` before the first, all others.
    Filter,
    /// Names of capabilities; with `~` before the first, all others.
    Capabilities,
    /// Yes, no, or names of kinds of namespaces that are allowed; with `~`, all others.
    Namespaces,
    /// Numbers of processors, and ranges.
    Processors,
    /// A name of an error, or its number.
    ErrorNumber,
    /// `SOURCE[:DESTINATION[:OPTIONS]]`.
    Binds,
    /// `PATH[:OPTIONS]`.
    Mounts,
    /// `ID:PATH`.
    Credentials,
    /// A device, and letters of `r`, `w` and `m`: `/dev/null rw`.
    Devices,
    /// `any`, `localhost`, `link-local`, `multicast`, addresses and networks.
    Addresses,
}

impl Form {
    /// Whether it is a list, which may stand as one text with spaces between its words.
    #[must_use]
    pub fn is_list(self) -> bool {
        matches!(
            self,
            Form::Names
                | Form::Paths
                | Form::Below
                | Form::Filter
                | Form::Capabilities
                | Form::Namespaces
                | Form::Processors
                | Form::Binds
                | Form::Mounts
                | Form::Credentials
                | Form::Addresses
        )
    }

    /// What its words are, for people.
    #[must_use]
    pub fn about(self) -> String {
        let text = match self {
            Form::Bool => "`yes` or `no`",
            Form::Words(words) => return any_of(words.iter().copied()),
            Form::Numbers(words) => return any_of(words.iter().map(|(word, _)| *word)),
            Form::Integer { min, max } => return format!("a whole number, {min} to {max}"),
            Form::Weight => "a share, 1 to 10000",
            Form::Size => "a size, or `infinity`",
            Form::ResourceLimit(_) => "a number or size, `infinity`, or two such as `64:128`",
            Form::Mode => "octal permissions",
            Form::Names => "names",
            Form::Paths => "absolute paths",
            Form::Path => "an absolute path",
            Form::Below => "relative paths",
            Form::Filter => "names; with `~` first, all others",
            Form::Capabilities => "capabilities such as `CAP_NET_RAW`; with `~` first, all others",
            Form::Namespaces => {
                "`yes`, `no`, or kinds: `cgroup`, `ipc`, `mnt`, `net`, `pid`, `user`, `uts`"
            }
            Form::Processors => "numbers of processors such as `0-3 5`",
            Form::ErrorNumber => "an error such as `EPERM`",
            Form::Binds => "`SOURCE`, `SOURCE:DESTINATION`, or with `:norbind` after it",
            Form::Mounts => "`PATH` or `PATH:OPTIONS`",
            Form::Credentials => "`ID:PATH`",
            Form::Devices => "a list with a device and its rights in each entry: `/dev/fuse rw`",
            Form::Addresses => "`any`, `localhost`, `link-local`, `multicast`, addresses, networks",
        };
        text.to_owned()
    }
}

fn any_of<'a>(words: impl Iterator<Item = &'a str>) -> String {
    words.map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

/// Why a property cannot be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// There is none of that name, or not in every version of systemd that is supported.
    Unknown,
    /// Another key is for this, or nobody but the supervisor: what to do instead.
    Owned(&'static str),
    /// That is no value of it: what one is.
    Bad(String),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Unknown => f.write_str("there is no such property here"),
            Problem::Owned(instead) => f.write_str(instead),
            Problem::Bad(wanted) => write!(f, "it is {wanted}"),
        }
    }
}

/// The property of that name.
///
/// # Errors
/// When there is none, or it is not for the file.
pub fn property(name: &str) -> Result<&'static Property, Problem> {
    if let Ok(at) = PROPERTIES.binary_search_by_key(&name, |property| property.name) {
        return Ok(&PROPERTIES[at]);
    }
    match OWNED.iter().find(|(names, _)| names.contains(&name)) {
        Some((_, instead)) => Err(Problem::Owned(instead)),
        None => Err(Problem::Unknown),
    }
}

/// What systemd is told: properties with their values, mostly one.
///
/// # Errors
/// When it cannot be set, or the words are no value of it.
pub fn read(name: &str, words: &[String]) -> Result<Vec<(&'static str, Value)>, Problem> {
    let property = property(name)?;
    let bad = || Problem::Bad(property.form.about());
    let listed = property.form.is_list() || property.form == Form::Devices;
    if !listed && words.len() != 1 {
        return Err(bad());
    }
    let nul = words.iter().any(|word| word.contains(char::is_control));
    let value = values::value(property.form, words).filter(|_| !nul).ok_or_else(bad)?;
    Ok(match (property.form, value) {
        // The hard one first: a soft one is never above it.
        (Form::ResourceLimit(soft_name), Value::Two(soft, hard)) => {
            vec![(property.name, Value::Large(hard)), (soft_name, Value::Large(soft))]
        }
        (_, value) => vec![(property.name, value)],
    })
}

impl Sandbox {
    /// What it is made of for units of a user's manager: properties with their words, by name. `cwd`
    /// is the directory of the process.
    #[must_use]
    pub fn properties_of_user(self, cwd: &str) -> UnitProperties {
        let mut all = self.properties(cwd);
        all.retain(|name, _| !table::OF_ROOT.contains(&name.as_str()));
        match self {
            Sandbox::None => {}
            // Nothing but files that he cannot write anyway would need a view of files of its own.
            Sandbox::Default => {
                all.remove("ProtectSystem");
            }
            // He may have another view of files only where he seems to be root.
            Sandbox::Strict => {
                all.insert("PrivateUsers".to_owned(), vec!["yes".to_owned()]);
            }
        }
        all
    }

    /// The same for units of the system's manager.
    #[must_use]
    pub fn properties(self, cwd: &str) -> UnitProperties {
        let words = |list: &[(&str, &str)]| -> UnitProperties {
            let split = |words: &str| words.split(' ').map(str::to_owned).collect();
            list.iter().map(|(name, value)| ((*name).to_owned(), split(value))).collect()
        };
        match self {
            Sandbox::None => UnitProperties::new(),
            Sandbox::Default => words(table::DEFAULT),
            Sandbox::Strict => {
                let mut all = words(table::DEFAULT);
                all.extend(words(table::STRICT));
                // The whole of it can be no exception of itself.
                if cwd != "/" {
                    all.insert("ReadWritePaths".to_owned(), vec![cwd.to_owned()]);
                }
                // It would not find its directory in a new and empty one.
                if ["/tmp/", "/var/tmp/"].iter().any(|tmp| format!("{cwd}/").starts_with(tmp)) {
                    all.remove("PrivateTmp");
                }
                all
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_and_stand_for_one_thing() {
        assert!(PROPERTIES.is_sorted_by(|a, b| a.name < b.name));
        for (names, _) in OWNED {
            for name in *names {
                assert!(matches!(property(name), Err(Problem::Owned(_))), "{name}");
            }
        }
        assert_eq!(property("ProtectHoem").err(), Some(Problem::Unknown));
    }

    #[test]
    fn what_the_manual_shows_is_a_value() {
        for property in PROPERTIES {
            let words: Vec<String> = property.example.iter().map(ToString::to_string).collect();
            let read = read(property.name, &words);
            assert!(read.is_ok(), "{}: {read:?}", property.name);
        }
    }

    #[test]
    fn sandboxes_are_made_of_properties_that_there_are() {
        assert!(Sandbox::None.properties("/srv").is_empty());
        for sandbox in [Sandbox::Default, Sandbox::Strict] {
            for (name, words) in sandbox.properties("/srv") {
                assert!(read(&name, &words).is_ok(), "{name}: {words:?}");
                assert_eq!(property(&name).unwrap().part, Part::Sandbox, "{name}");
            }
        }
        let strict = Sandbox::Strict.properties("/srv");
        assert_eq!(strict["ProtectSystem"], ["strict"]);
        assert_eq!(strict["ReadWritePaths"], ["/srv"]);
        assert!(strict.contains_key("PrivateTmp"));
        assert!(!Sandbox::Strict.properties("/").contains_key("ReadWritePaths"));
        assert!(!Sandbox::Strict.properties("/tmp/x").contains_key("PrivateTmp"));
        assert!(!Sandbox::Strict.properties("/var/tmp").contains_key("PrivateTmp"));
    }
}
