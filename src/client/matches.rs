//! Telling a daemon on a private socket what is listened to: else it tells everything.
//!
//! It is told by calls that nobody waits for: what is asked after them is answered after them, and an older
//! daemon, which does not know them, goes on to tell everything (and makes all its objects for the first).

use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::Mutex;
use zbus::message::{Flags, Message};
use zbus::{Connection, MatchRule};

/// The rules that a daemon was told, and how many listen by each.
#[derive(Clone, Debug, Default)]
pub struct Matches(Arc<Mutex<BTreeMap<String, usize>>>);

/// That somebody listens by a rule, until it is dropped.
#[derive(Debug)]
pub struct Asked {
    matches: Matches,
    connection: Connection,
    /// None when that is over.
    rule: Option<String>,
}

impl Matches {
    /// Has the daemon tell what a rule says.
    pub async fn ask_for(
        &self,
        connection: &Connection,
        rule: &MatchRule<'_>,
    ) -> zbus::Result<Asked> {
        let rule = rule.to_string();
        // Held until it is sent: whoever listens to the same must not ask for anything before that.
        let mut known = self.0.lock().await;
        let listeners = known.entry(rule.clone()).or_default();
        if *listeners == 0 {
            tell(connection, "AddMatch", &rule).await?;
        }
        *listeners += 1;
        drop(known);
        Ok(Asked { matches: self.clone(), connection: connection.clone(), rule: Some(rule) })
    }

    async fn give_up(&self, connection: &Connection, rule: &str) -> zbus::Result<()> {
        let mut known = self.0.lock().await;
        if let Some(listeners) = known.get_mut(rule) {
            *listeners -= 1;
            if *listeners == 0 {
                known.remove(rule);
                tell(connection, "RemoveMatch", rule).await?;
            }
        }
        Ok(())
    }
}

impl Asked {
    /// Nobody listens any more. When it is only dropped, that is told a moment later.
    pub async fn end(mut self) {
        self.take().await;
    }

    /// What is to be done when nobody listens any more, once.
    fn take(&mut self) -> impl Future<Output = ()> + use<> {
        let (matches, connection) = (self.matches.clone(), self.connection.clone());
        let rule = self.rule.take();
        async move {
            if let Some(rule) = rule {
                // It fails where the connection is gone, and with it what was told.
                let _ = matches.give_up(&connection, &rule).await;
            }
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        // Without a runtime there is no connection any more.
        if let (Some(_), Ok(runtime)) = (&self.rule, tokio::runtime::Handle::try_current()) {
            runtime.spawn(self.take());
        }
    }
}

async fn tell(connection: &Connection, method: &str, rule: &str) -> zbus::Result<()> {
    let call = Message::method_call("/org/freedesktop/DBus", method)
        .interface("org.freedesktop.DBus")
        .with_flags(Flags::NO_REPLY_EXPECTED)
        .build(&(rule))?;
    connection.send(&call).await
}
