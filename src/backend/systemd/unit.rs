//! From what shall run to the name and the properties of a transient unit
//! (org.freedesktop.systemd1(5), systemd.service(5), systemd.exec(5), systemd.kill(5)).
//!
//! Everything in here is a plain function of what it is given.

use super::status::OF_SYSTEMD;
use crate::backend::native::identity::Identity;
use crate::backend::sockets::Passed;
use crate::core::ids::{Generation, InstanceId, Run, Slot};
use crate::core::spec::{Rendered, Signal};
use crate::sys::user::Credentials;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;
use zbus::{Fd, Variant};

/// Where all units of ours are.
pub const SLICE: &str = "provost.slice";

/// The interface of services.
pub const SERVICE: &str = "org.freedesktop.systemd1.Service";

/// The fields by which a unit tells whose run it is, in its `LogExtraFields`.
const RUN_FIELD: &str = "PROVOST_RUN=";

/// The names of the units of one daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    prefix: String,
}

impl Names {
    /// The names of the daemon with this runtime directory. Those of the standard one are short;
    /// others have the number `id` in them, so that two daemons never meet.
    #[must_use]
    pub fn new(is_standard: bool, id: u32) -> Names {
        // No process id can begin with a dot, so no unit of the one is a unit of the other.
        let prefix = if is_standard { "provost".to_owned() } else { format!("provost.{id:08x}") };
        Names { prefix }
    }

    /// The unit of an instance, for the runs in a slot. Every process id is a valid part of a unit
    /// name.
    #[must_use]
    pub fn of(&self, instance: &InstanceId, slot: Slot) -> String {
        format!("{}-{instance}{}.service", self.prefix, suffix(slot))
    }

    /// The unit of a command beside the runs of an instance.
    #[must_use]
    pub fn of_command(&self, instance: &InstanceId, number: u64) -> String {
        format!("{}.check-{instance}-{number:016x}.service", self.prefix)
    }

    /// The unit of what writes a log.
    #[must_use]
    pub fn of_log(&self, instance: &InstanceId, number: u64) -> String {
        format!("{}.log-{instance}-{number:016x}.service", self.prefix)
    }

    /// The unit of what is on the network for the daemon.
    #[must_use]
    pub fn of_network(&self, number: u64) -> String {
        format!("{}.net-{number:016x}.service", self.prefix)
    }

    /// Patterns that match all units of instances and of commands of this daemon, and perhaps units
    /// of others. What writes logs is not among them, nor what is on the network: they end by
    /// themselves.
    #[must_use]
    pub fn patterns(&self) -> [String; 2] {
        [format!("{}-*.service", self.prefix), format!("{}.check-*.service", self.prefix)]
    }

    /// Whether a unit is one of a command beside the runs of an instance.
    #[must_use]
    pub fn is_command(&self, unit: &str) -> bool {
        unit.strip_prefix(&self.prefix).is_some_and(|rest| rest.starts_with(".check-"))
    }

    /// The instance whose unit has this name, and the slot.
    #[must_use]
    pub fn instance(&self, unit: &str) -> Option<(InstanceId, Slot)> {
        let id = unit.strip_prefix(&self.prefix)?.strip_prefix('-')?.strip_suffix(".service")?;
        // Behind the number of an instance nothing else can be.
        let of_slot = |slot| {
            let id = id.strip_suffix(suffix(slot))?;
            // `api` would be short for `api@0`, and is no name of a unit.
            let instance = InstanceId::parse(id).ok().filter(|found| found.to_string() == id)?;
            Some((instance, slot))
        };
        Slot::ALL.into_iter().find_map(of_slot)
    }
}

/// What is behind the name of an instance.
fn suffix(slot: Slot) -> &'static str {
    match slot {
        Slot::A => "",
        Slot::B => "-b",
    }
}

/// The object of a unit: its name, escaped as systemd's `bus_label_escape` does.
#[must_use]
pub fn object_path(unit: &str) -> String {
    let mut path = String::from("/org/freedesktop/systemd1/unit/");
    for (at, byte) in unit.bytes().enumerate() {
        if byte.is_ascii_alphabetic() || (byte.is_ascii_digit() && at > 0) {
            path.push(byte as char);
        } else {
            path.push_str(&format!("_{byte:02x}"));
        }
    }
    path
}

/// Properties as `StartTransientUnit` takes them.
pub type Properties = Vec<(&'static str, Variant<'static>)>;

/// Where standard input, output and error go.
pub enum Output<F> {
    /// Nowhere.
    Null,
    /// To the journal, by systemd.
    Journal,
    /// Output and error to this. systemd keeps it too, until the unit is unloaded.
    Held(F),
    /// Output and error to this file, which the process alone holds.
    File(PathBuf),
    /// One for each.
    Three([F; 3]),
}

/// What runs in a unit.
pub struct Program<'a> {
    /// The argument vector; not empty.
    pub argv: &'a [Rendered],
    /// The value of PATH in its environment.
    pub path: &'a str,
    /// Working directory, absolute.
    pub cwd: &'a str,
    /// Who it shall be.
    pub identity: &'a Identity,
    /// File mode creation mask.
    pub umask: u32,
    /// Scheduling priority.
    pub nice: Option<i8>,
    /// Limit of open files.
    pub max_files: Option<u64>,
    /// The file with its environment.
    pub environment: Option<&'a Path>,
}

impl Program<'_> {
    /// The properties that say what runs. Nothing of the environment is among them: any user can
    /// read properties.
    pub fn properties<F: AsFd>(&self, output: &Output<F>) -> std::io::Result<Properties> {
        let words: Vec<String> = self.argv.iter().map(|word| unexpanded(word.value())).collect();
        let ignores_failure = false;
        let command = vec![(self.executable(), words, ignores_failure)];
        let mut all: Properties = vec![
            ("ExecStart", command.into()),
            ("WorkingDirectory", self.cwd.to_owned().into()),
            ("UMask", self.umask.into()),
            // systemd ignores it for what it starts, unless told otherwise.
            ("IgnoreSIGPIPE", false.into()),
        ];
        if let Some(file) = self.environment {
            let file = (file.to_string_lossy().into_owned(), false);
            all.push(("EnvironmentFiles", vec![file].into()));
        }
        let directories = self.search();
        if !directories.is_empty() && !self.executable().contains('/') {
            all.push(("ExecSearchPath", directories.into()));
        }
        // Root is what a unit is anyway.
        let is_root = |user: &&Credentials| (user.uid, user.gid) == (0, 0);
        if let Some(user) = self.identity.credentials.as_ref().filter(|user| !is_root(user)) {
            all.push(("User", self.identity.record.name.clone().into()));
            all.push(("Group", user.gid.to_string().into()));
        }
        if let Some(nice) = self.nice {
            all.push(("Nice", i32::from(nice).into()));
        }
        if let Some(files) = self.max_files {
            all.push(("LimitNOFILE", files.into()));
            all.push(("LimitNOFILESoft", files.into()));
        }
        let fd = |fd: &F| fd.as_fd().try_clone_to_owned().map(|fd| Variant::Fd(Fd::from(fd)));
        match output {
            Output::Null => {
                all.push(("StandardOutput", "null".into()));
                all.push(("StandardError", "null".into()));
            }
            Output::Journal => {
                all.push(("StandardOutput", "journal".into()));
                all.push(("StandardError", "journal".into()));
                // Interval 0 does not lift the limit on every version.
                all.push(("LogRateLimitIntervalUSec", micros(Duration::from_secs(1)).into()));
                all.push(("LogRateLimitBurst", 1_000_000_u32.into()));
            }
            Output::File(path) => {
                let path = path.to_string_lossy().into_owned();
                all.push(("StandardOutputFileToAppend", path.clone().into()));
                all.push(("StandardErrorFileToAppend", path.into()));
            }
            Output::Held(one) => {
                all.push(("StandardOutputFileDescriptor", fd(one)?));
                all.push(("StandardErrorFileDescriptor", fd(one)?));
            }
            Output::Three([input, output, error]) => {
                all.push(("StandardInputFileDescriptor", fd(input)?));
                all.push(("StandardOutputFileDescriptor", fd(output)?));
                all.push(("StandardErrorFileDescriptor", fd(error)?));
            }
        }
        Ok(all)
    }

    /// A path with a slash that is not absolute is relative to the working directory; systemd would
    /// refuse it. One without a slash is looked up.
    #[must_use]
    pub fn executable(&self) -> String {
        let program = self.argv.first().map_or("", Rendered::value);
        match program.contains('/') && !program.starts_with('/') {
            true => format!("{}/{program}", self.cwd.trim_end_matches('/')),
            false => program.to_owned(),
        }
    }

    /// Where a program without a slash is looked up: what of PATH systemd takes.
    #[must_use]
    pub fn search(&self) -> Vec<String> {
        let directories = self.path.split(':').filter(|directory| directory.starts_with('/'));
        directories.map(str::to_owned).collect()
    }
}

/// An argument in which systemd expands no variable. `ExecStartEx` has a flag for that, but systemd
/// 252 writes it into the file of the unit under a name that it does not know when it reads the file
/// again, at the next daemon-reload, and then refuses the unit.
fn unexpanded(word: &str) -> String {
    word.replace('$', "$$")
}

/// What a unit of an instance has besides what runs in it.
pub struct Life<'a> {
    /// Of which instance.
    pub instance: &'a InstanceId,
    /// Which run.
    pub run: Run,
    /// Of which generation its spec is.
    pub generation: Generation,
    /// For people.
    pub description: &'a str,
    /// How it is stopped by whoever stops the unit without us.
    pub stop: (Signal, Duration),
    /// The unit of the daemon, where it has one.
    pub daemon: Option<&'a str>,
}

impl Life<'_> {
    /// The properties that make a unit the place of one run, about which we decide everything.
    #[must_use]
    pub fn properties(&self) -> Properties {
        let instance = self.instance;
        let fields = [
            format!("PROVOST_PROCESS={}", instance.process),
            format!("PROVOST_INSTANCE={}", instance.index),
            format!("PROVOST_GENERATION={}", self.generation),
            format!("{RUN_FIELD}{}", self.run),
        ];
        let mut all = common(self.description, self.daemon);
        all.extend([
            // What remains tells a daemon that comes back how the run ended.
            ("RemainAfterExit", true.into()),
            ("CollectMode", "inactive".into()),
            // Whatever way it ends, what it leaves behind is ours to end.
            ("SuccessExitStatus", (every_code(), every_signal()).into()),
            ("KillMode", "control-group".into()),
            ("KillSignal", i32::from(self.stop.0.0).into()),
            // 0 would mean for ever.
            ("TimeoutStopUSec", micros(self.stop.1).max(1).into()),
            ("OOMPolicy", "continue".into()),
            ("SyslogIdentifier", instance.process.to_string().into()),
            ("LogExtraFields", fields.map(String::into_bytes).to_vec().into()),
        ]);
        all
    }
}

/// Why a process with `sockets` cannot run here.
pub const CANNOT_PASS: &str =
    "this systemd cannot pass `sockets` to a unit (257 can); `backend: native` can";

/// What passes sockets to a unit (sd_listen_fds(3)); systemd sets the variables.
///
/// # Errors
/// When there are no descriptors left.
pub fn passing_sockets(sockets: &Passed) -> std::io::Result<Properties> {
    if sockets.is_empty() {
        return Ok(Properties::new());
    }
    let pairs = sockets.iter().map(|(name, socket)| {
        Ok((Fd::from(socket.as_fd().try_clone_to_owned()?), name.to_string()))
    });
    let all: Vec<(Fd<'static>, String)> = pairs.collect::<std::io::Result<_>>()?;
    Ok(vec![("ExtraFileDescriptors", all.into())])
}

/// A level of syslog(3).
const WARNING: i32 = 4;

/// What a unit of a program of ours has: nothing is kept of it.
#[must_use]
pub fn passing(description: &str, daemon: Option<&str>, longest: Option<Duration>) -> Properties {
    let mut all = common(description, daemon);
    all.extend([
        ("CollectMode", Variant::from("inactive-or-failed")),
        // systemd says of each unit when it starts and ends; nobody wants to read it of these.
        ("LogLevelMax", WARNING.into()),
        ("SuccessExitStatus", (every_code(), every_signal()).into()),
        ("KillMode", "control-group".into()),
        // Nothing that is left of it is asked.
        ("KillSignal", i32::from(Signal::KILL.0).into()),
    ]);
    if let Some(longest) = longest {
        all.push(("RuntimeMaxUSec", micros(longest).into()));
    }
    all
}

fn common(description: &str, daemon: Option<&str>) -> Properties {
    let mut all: Properties = vec![
        ("Description", description.replace(char::is_control, " ").into()),
        ("Slice", SLICE.into()),
        // A command that cannot be executed fails the job.
        ("Type", "exec".into()),
        // When to start again, and how often, is decided by us.
        ("Restart", "no".into()),
        ("StartLimitIntervalUSec", 0_u64.into()),
        ("TimeoutStartUSec", u64::MAX.into()),
    ];
    if let Some(daemon) = daemon {
        // The other way round when the machine goes down: the daemon ends them in order.
        all.push(("Before", vec![daemon.to_owned()].into()));
    }
    all
}

/// Every exit code but those that say that a start failed.
fn every_code() -> Vec<i32> {
    (1..=255).filter(|code| !OF_SYSTEMD.contains(code)).collect()
}

fn every_signal() -> Vec<i32> {
    (1..=64).collect()
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// The run that a unit is the place of, by its `LogExtraFields`.
#[must_use]
pub fn run_of(fields: &[Vec<u8>]) -> Option<Run> {
    let number = fields.iter().find_map(|field| field.strip_prefix(RUN_FIELD.as_bytes()))?;
    Some(Run(std::str::from_utf8(number).ok()?.parse().ok()?))
}

/// An environment in the form of systemd.exec(5), `EnvironmentFile=`. In double quotes every
/// character stands for itself but the four that a backslash keeps.
#[must_use]
pub fn environment_file<'a>(
    variables: impl IntoIterator<Item = (&'a String, &'a String)>,
) -> String {
    let mut text = String::new();
    for (name, value) in variables {
        text.push_str(name);
        text.push_str("=\"");
        for character in value.chars() {
            if matches!(character, '"' | '\\' | '$' | '`') {
                text.push('\\');
            }
            text.push(character);
        }
        text.push_str("\"\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::environment::UserRecord;
    use crate::core::ids::ProcessId;
    use std::os::fd::OwnedFd;

    fn instance(id: &str, index: u32) -> InstanceId {
        ProcessId::new(id).unwrap().instance(index)
    }

    #[test]
    fn two_daemons_never_have_the_same_names() {
        let (one, other) = (Names::new(true, 0), Names::new(false, 0xabc));
        assert_eq!(one.of(&instance("web-1", 2), Slot::A), "provost-web-1@2.service");
        assert_eq!(one.of(&instance("web-1", 2), Slot::B), "provost-web-1@2-b.service");
        assert_eq!(other.of(&instance("web", 0), Slot::A), "provost.00000abc-web@0.service");
        for names in [&one, &other] {
            let id = instance("a.b_c-d", 7);
            for slot in Slot::ALL {
                assert_eq!(names.instance(&names.of(&id, slot)), Some((id.clone(), slot)));
            }
            assert_eq!(names.instance(&names.of_command(&id, 5)), None);
            assert_eq!(names.instance(&names.of_log(&id, 5)), None);
        }
        assert_eq!(one.instance(&other.of(&instance("web", 0), Slot::B)), None);
        assert_eq!(other.instance(&one.of(&instance("web", 0), Slot::B)), None);
        assert_eq!(one.instance("provost-web-b.service"), None);
        assert_eq!(one.instance("provost-web@0-c.service"), None);
        assert_eq!(one.instance("provost-web.service"), None);
        assert_eq!(one.instance("provostd.service"), None);
    }

    #[test]
    fn an_object_path_is_escaped_as_systemd_does_it() {
        let path = object_path("provost-web@2.service");
        assert_eq!(path, "/org/freedesktop/systemd1/unit/provost_2dweb_402_2eservice");
    }

    #[test]
    fn an_environment_file_keeps_every_character() {
        let value = "a \"b\" $c `d` \\ 'e' #f\n\tg".to_owned();
        let text = environment_file([(&"A".to_owned(), &value), (&"B".to_owned(), &String::new())]);
        assert_eq!(text, "A=\"a \\\"b\\\" \\$c \\`d\\` \\\\ 'e' #f\n\tg\"\nB=\"\"\n");
    }

    fn program<'a>(argv: &'a [Rendered], identity: &'a Identity) -> Program<'a> {
        Program {
            argv,
            path: "/usr/bin::relative:/bin",
            cwd: "/srv/",
            identity,
            umask: 0o027,
            nice: Some(-5),
            max_files: Some(77),
            environment: Some(Path::new("/run/provost/state/env/web@0")),
        }
    }

    fn nobody() -> Identity {
        let (home, shell) = ("/".into(), "/bin/sh".into());
        let record = UserRecord { name: "nobody".into(), uid: 9, gid: 8, home, shell };
        let credentials = crate::sys::user::Credentials { uid: 9, gid: 8, groups: vec![].into() };
        Identity { record, credentials: Some(credentials) }
    }

    #[test]
    fn a_program_is_where_it_would_be_executed() {
        let identity = nobody();
        let named = |name: &str| {
            let argv = [Rendered::from(name)];
            program(&argv, &identity).executable()
        };
        assert_eq!(named("/bin/sh"), "/bin/sh");
        assert_eq!(named("./run"), "/srv/./run");
        assert_eq!(named("sh"), "sh");
        assert_eq!(program(&[], &identity).search(), ["/usr/bin", "/bin"]);
    }

    #[test]
    fn the_properties_say_all_that_the_spec_says() {
        let (argv, identity) = (["sh".into(), "a $B %n".into()], nobody());
        let properties = program(&argv, &identity).properties(&Output::<OwnedFd>::Journal).unwrap();
        let text = |name: &str| {
            let found = properties.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| format!("{value}")).unwrap_or_default()
        };
        assert_eq!(text("User"), "\"nobody\"");
        assert_eq!(text("Group"), "\"8\"");
        assert_eq!(text("Nice"), "-5");
        assert!(text("UMask").contains("23"), "{}", text("UMask"));
        assert!(text("ExecStart").contains("a $$B %n"));
        assert_eq!(text("Environment"), "");
    }

    #[test]
    fn what_changes_nothing_is_not_asked_for() {
        let (relative, absolute) = (["sh".into()], ["/bin/sh".into()]);
        let root = crate::sys::user::Credentials { uid: 0, gid: 0, groups: vec![].into() };
        let root = Identity { credentials: Some(root), ..nobody() };
        let named = |argv: &[Rendered], identity: &Identity, output| -> Vec<&'static str> {
            let all = program(argv, identity).properties::<OwnedFd>(output).unwrap();
            all.into_iter().map(|(name, _)| name).collect()
        };
        let all = named(&relative, &nobody(), &Output::Journal);
        for name in ["ExecSearchPath", "User", "Group", "LogRateLimitBurst"] {
            assert!(all.contains(&name), "{name}");
        }
        let few = named(&absolute, &root, &Output::Null);
        for name in ["ExecSearchPath", "User", "Group", "LogRateLimitBurst"] {
            assert!(!few.contains(&name), "{name}");
        }
    }

    #[test]
    fn a_unit_tells_its_run() {
        let instance = instance("web", 3);
        let stop = (Signal::TERM, Duration::from_secs(1));
        let daemon = Some("provostd.service");
        let (run, generation) = (Run(12), Generation(3));
        let life = Life { instance: &instance, run, generation, description: "d", stop, daemon };
        let properties = life.properties();
        let fields = properties.into_iter().find(|(key, _)| *key == "LogExtraFields").unwrap().1;
        let fields: Vec<Vec<u8>> = fields.try_into().unwrap();
        assert_eq!(run_of(&fields), Some(Run(12)));
        assert_eq!(run_of(&[b"PROVOST_PROCESS=web".to_vec()]), None);
        assert!(!every_code().contains(&203) && every_code().contains(&1));
    }
}
