//! What is on the network for the daemon: `provost-net`, in a unit with a sandbox of its own. It may
//! do nothing but connect and bind, has no user that anybody else has, and is given one end of a pair
//! of sockets whose other end the daemon keeps; so nobody else can ask it.

use super::manager::Manager;
use super::passing::Passing;
use super::resources;
use super::unit::{self, Names, Properties};
use crate::net::Network;
use crate::net::asking::{Doing, Helper, Launcher, Program};
use crate::sys::random;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use zbus::{Fd, Variant};

/// What it may do, beside what `DynamicUser` takes from it (systemd.exec(5)). Names are looked up in
/// files and by asking others: so it may read `/etc`, and connect to sockets with a path.
const SANDBOX: &[(&str, &str)] = &[
    ("AmbientCapabilities", "CAP_NET_BIND_SERVICE"),
    ("CapabilityBoundingSet", "CAP_NET_BIND_SERVICE"),
    ("DevicePolicy", "closed"),
    ("KeyringMode", "private"),
    ("LockPersonality", "yes"),
    ("MemoryDenyWriteExecute", "yes"),
    ("PrivateDevices", "yes"),
    ("ProcSubset", "pid"),
    ("ProtectClock", "yes"),
    ("ProtectControlGroups", "yes"),
    ("ProtectHome", "yes"),
    ("ProtectHostname", "yes"),
    ("ProtectKernelLogs", "yes"),
    ("ProtectKernelModules", "yes"),
    ("ProtectKernelTunables", "yes"),
    ("ProtectProc", "invisible"),
    ("RestrictAddressFamilies", "AF_UNIX AF_INET AF_INET6 AF_NETLINK"),
    ("RestrictNamespaces", "yes"),
    ("RestrictRealtime", "yes"),
    ("SystemCallArchitectures", "native"),
    ("SystemCallErrorNumber", "EPERM"),
    ("SystemCallFilter", "@system-service"),
];

/// It costs some milliseconds to start it, and some megabytes to keep it.
const IDLE: Duration = Duration::from_secs(60);

/// A descriptor for each check that is under way, and for each socket.
const FILES: u64 = 65_536;

/// The network of the system's daemon.
pub(super) fn helper(
    manager: &Arc<Manager>,
    names: &Names,
    daemon: Option<String>,
    program: PathBuf,
) -> Network {
    let (manager, names) = (manager.clone(), names.clone());
    Network::Helper(Helper::new(Units { manager, names, daemon, program }, IDLE))
}

struct Units {
    manager: Arc<Manager>,
    names: Names,
    /// The unit of the daemon, where it has one.
    daemon: Option<String>,
    program: PathBuf,
}

impl Launcher for Units {
    fn launch(&self, end: OwnedFd) -> Doing<'_, Result<Box<dyn Program>, String>> {
        Box::pin(async move {
            let unit = self.names.of_network(random());
            let properties = self.properties(end);
            let started = Passing::start(&self.manager, unit, &properties).await;
            let passing = started.map_err(|error| error.to_string())?;
            Ok(Box::new(passing) as Box<dyn Program>)
        })
    }
}

impl Units {
    fn properties(&self, end: OwnedFd) -> Properties {
        let description = "The network of the process supervisor";
        let mut all = unit::passing(description, self.daemon.as_deref(), None);
        let program = self.program.to_string_lossy().into_owned();
        let command = vec![(program.clone(), vec![program], false)];
        all.extend([
            ("ExecStart", Variant::from(command)),
            ("StandardInputFileDescriptor", Variant::Fd(Fd::from(end))),
            ("StandardOutput", "null".into()),
            ("StandardError", "journal".into()),
            ("SyslogIdentifier", "provost-net".into()),
            ("DynamicUser", true.into()),
            ("LimitNOFILE", FILES.into()),
            ("LimitNOFILESoft", FILES.into()),
        ]);
        all.extend(resources::of_words(SANDBOX));
        all
    }
}

impl Program for Passing {
    fn ended(&mut self) -> Doing<'_, String> {
        Box::pin(async move { Passing::ended(self).await.to_string() })
    }

    fn stop(self: Box<Self>) -> Doing<'static, ()> {
        Box::pin(Passing::stop(*self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_the_sandbox_is_told() {
        let told = resources::of_words(SANDBOX);
        assert!(SANDBOX.iter().all(|(name, _)| told.iter().any(|(known, _)| known == name)));
    }
}
