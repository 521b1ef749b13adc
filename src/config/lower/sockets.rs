//! The sockets that are held for processes.

use super::at::At;
use super::fields::{Field, Fields};
use super::{File, Whole};
use crate::config::diagnostic::{Diagnostic, Place, shown};
use crate::config::keys::SOCKET;
use crate::config::yaml::Kind;
use crate::core::ids::ProcessId;
use crate::core::spec::Listen;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

/// The sockets of a process by name, and where each place stands.
pub(crate) type Sockets = (BTreeMap<Arc<str>, Listen>, Vec<(Listen, Place)>);

/// As many as one process is ever given.
const MOST: usize = 64;

/// What the kernel takes for the path of a unix socket, in bytes (unix(7)).
const LONGEST_PATH: usize = 107;

/// The permissions of a unix socket that names none.
const USUAL_MODE: u32 = 0o660;

impl<'s> File<'_, 's> {
    pub(super) fn sockets(&mut self, fields: &Fields<'_, 's>) -> Sockets {
        let mut sockets = Sockets::default();
        let Some(field) = fields.get("sockets") else { return sockets };
        for entry in self.entries(&field.value, "`sockets`").unwrap_or_default() {
            let full = format!("sockets.{}", shown(entry.name));
            if !is_name(entry.name) {
                let message = format!("`{}` is no name for a socket", shown(entry.name));
                let problem = self.problem("bad-socket-name", &entry.key, message);
                self.add(problem.help("letters, digits, `_`, `-` and `.`, at most 64 of them"));
                continue;
            }
            let Some(listen) = self.socket(&full, &entry.key, &entry.value) else { continue };
            sockets.1.push((listen.clone(), self.place(entry.value.span())));
            sockets.0.insert(entry.name.into(), listen);
        }
        if sockets.0.len() > MOST {
            let message = format!("more than {MOST} sockets");
            self.add(self.problem("out-of-range", &field.value, message));
        }
        sockets
    }

    fn socket(&mut self, full: &str, key: &At<'_, 's>, value: &At<'_, 's>) -> Option<Listen> {
        let Kind::Mapping { .. } = value.value().kind else {
            return self.listen(full, value, None);
        };
        let fields = self.fields(value, &SOCKET, &format!("`{full}`"))?;
        let mode = fields.get("mode");
        let Some(listen) = fields.get("listen") else {
            let problem = self.problem("missing-address", key, format!("`{full}` has no `listen`"));
            self.add(problem.help(EXAMPLES));
            return None;
        };
        self.listen(full, &listen.value, mode)
    }

    fn listen(
        &mut self,
        full: &str,
        at: &At<'_, 's>,
        mode: Option<&Field<'_, 's>>,
    ) -> Option<Listen> {
        let (text, _) = self.scalar(at, &format!("`{full}`"), "an address")?;
        let mode_of_file = mode.and_then(|mode| self.octal(mode));
        if text.starts_with('/') {
            let is_long = text.len() > LONGEST_PATH;
            if is_long || text.ends_with('/') {
                let message = match is_long {
                    true => format!("`{full}` is longer than {LONGEST_PATH} bytes"),
                    false => format!("`{full}` must be the path of a file"),
                };
                self.add(self.problem("bad-address", at, message));
                return None;
            }
            return Some(Listen::Unix {
                path: text.into(),
                mode: mode_of_file.unwrap_or(USUAL_MODE),
            });
        }
        match text.parse::<SocketAddr>() {
            Ok(address) if address.port() != 0 => {
                if let Some(mode) = mode {
                    let message = format!("`{full}`: `mode` is about the file of a unix socket");
                    self.add(self.problem("misplaced-key", &mode.key, message));
                }
                Some(Listen::Tcp(address))
            }
            _ => {
                let message = format!(
                    "`{full}` must be an address with a port or an absolute path, not `{}`",
                    shown(text)
                );
                self.add(self.problem("bad-address", at, message).help(EXAMPLES));
                None
            }
        }
    }
}

const EXAMPLES: &str =
    "for example `127.0.0.1:3000`, `0.0.0.0:80`, `[::1]:3000` or `/run/app/http.sock`";

fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
}

impl Whole {
    /// One place is of one socket.
    pub(crate) fn check_sockets(&mut self) {
        let mut found = Vec::new();
        let mut first: BTreeMap<Listen, (&Place, &ProcessId)> = BTreeMap::new();
        for lowered in self.processes.values() {
            for (listen, place) in &lowered.sockets {
                let other = first.entry(listen.place()).or_insert((place, &lowered.spec.id));
                if !std::ptr::eq(other.0, place) {
                    let message = format!("{listen} is a socket of `{}` already", other.1);
                    let problem = Diagnostic::error("duplicate-socket", place.clone(), message);
                    found.push(problem.related(other.0.clone(), "the other one"));
                }
            }
        }
        for problem in found {
            self.report.add(problem);
        }
    }
}
