//! `org.freedesktop.LogControl1`: `systemctl service-log-level` (org.freedesktop.LogControl1(5)).

use super::Context;
use super::auth::Action;
use super::errors::{Error, Result};
use std::sync::Arc;
use zbus::message::Header;
use zbus::{Connection, interface};

/// Where the object is.
pub const PATH: &str = "/org/freedesktop/LogControl1";

/// The daemon's own log.
pub trait LogControl: Send + Sync {
    /// The level: `emerg`, `alert`, `crit`, `err`, `warning`, `notice`, `info` or `debug`.
    fn level(&self) -> String;

    /// Sets the level.
    ///
    /// # Errors
    /// Says why it is no level.
    fn set_level(&self, level: &str) -> std::result::Result<(), String>;

    /// Where the log goes: `journal`, `console`, or `null`.
    fn target(&self) -> String;
}

/// The object.
pub struct LogObject(Arc<Context>);

impl LogObject {
    pub(super) fn new(context: Arc<Context>) -> LogObject {
        LogObject(context)
    }
}

#[interface(name = "org.freedesktop.LogControl1", introspection_docs = false)]
impl LogObject {
    #[zbus(property(emits_changed_signal = "false"))]
    async fn log_level(&self) -> String {
        self.0.service.log.level()
    }

    #[zbus(property)]
    async fn set_log_level(
        &self,
        level: String,
        #[zbus(header)] header: Option<Header<'_>>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<()> {
        self.authorise(header, connection).await?;
        self.0.service.log.set_level(&level).map_err(Error::invalid)
    }

    #[zbus(property(emits_changed_signal = "false"))]
    async fn log_target(&self) -> String {
        self.0.service.log.target()
    }

    #[zbus(property)]
    async fn set_log_target(
        &self,
        target: String,
        #[zbus(header)] header: Option<Header<'_>>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<()> {
        self.authorise(header, connection).await?;
        if target == self.0.service.log.target() {
            return Ok(());
        }
        Err(Error::invalid("where the log goes is decided when the supervisor starts"))
    }

    #[zbus(property(emits_changed_signal = "const"))]
    async fn syslog_identifier(&self) -> &'static str {
        "provostd"
    }
}

impl LogObject {
    async fn authorise(&self, header: Option<Header<'_>>, connection: &Connection) -> Result<()> {
        let header = header.ok_or_else(|| Error::denied("it cannot be told who is asking"))?;
        self.0.access.authorise(Action::SetLog, &header, connection).await?;
        Ok(())
    }
}
