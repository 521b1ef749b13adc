//! `org.provost.Provost1.Checkpoint`: a generation that is undone unless somebody confirms it.

use super::auth::Action;
use super::errors::{Error, Named, Result};
use super::manager::reload_reply;
use super::options::Options;
use super::{Context, values};
use crate::core::ids::Generation;
use crate::driver::handle::CheckpointView;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use values::Clock;
use zbus::message::Header;
use zbus::object_server::ResponseDispatchNotifier;
use zbus::{Connection, OwnedObjectPath, OwnedVariant, interface};

/// The shortest and the longest time there may be to confirm something.
const CONFIRM: (Duration, Duration) =
    (Duration::from_secs(1), Duration::from_secs(30 * 24 * 60 * 60));

/// Reads how long something may wait to be confirmed.
///
/// # Errors
/// When nobody could confirm it in that time, or would remember to.
pub(super) fn confirm_within(usec: u64) -> Result<Duration> {
    let within = Duration::from_micros(usec);
    if within < CONFIRM.0 || within > CONFIRM.1 {
        return Err(Error::invalid("the time to confirm is from a second to thirty days"));
    }
    Ok(within)
}

/// The object of one checkpoint.
pub struct CheckpointObject {
    context: Arc<Context>,
    generation: Generation,
}

impl CheckpointObject {
    pub(super) fn new(context: Arc<Context>, generation: Generation) -> CheckpointObject {
        CheckpointObject { context, generation }
    }

    fn view(&self) -> Result<CheckpointView> {
        let view = self.context.handle().published().manager().checkpoint.clone();
        let missing = || {
            let text = format!("generation {} is not to be confirmed", self.generation);
            Error::from(Named::NoSuchCheckpoint(text))
        };
        view.filter(|view| view.generation == self.generation).ok_or_else(missing)
    }

    async fn authorise(&self, header: &Header<'_>, connection: &Connection) -> Result<u32> {
        self.context.access.authorise(Action::Configure, header, connection).await
    }
}

#[interface(name = "org.provost.Provost1.Checkpoint", introspection_docs = false)]
impl CheckpointObject {
    async fn commit(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<()> {
        let uid = self.authorise(&header, connection).await?;
        Ok(self.context.handle().commit(self.generation, uid).await?)
    }

    #[zbus(out_args("job"))]
    async fn rollback(
        &self,
        options: HashMap<String, OwnedVariant>,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<ResponseDispatchNotifier<OwnedObjectPath>> {
        let uid = self.authorise(&header, connection).await?;
        let wait = Options::only_wait(options)?;
        let due = self.context.replies.reload().await;
        let ticket = self.context.handle().take_back(self.generation, uid).await?;
        reload_reply(&self.context, due, ticket, wait, connection).await
    }

    async fn set_timeout(
        &self,
        usec: u64,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<()> {
        self.authorise(&header, connection).await?;
        let within = confirm_within(usec)?;
        Ok(self.context.handle().set_confirm_timeout(self.generation, within).await?)
    }

    #[zbus(property(emits_changed_signal = "const"))]
    async fn generation(&self) -> u64 {
        self.generation.0
    }

    #[zbus(property(emits_changed_signal = "const"))]
    async fn base(&self) -> Result<u64> {
        Ok(values::base(&self.view()?))
    }

    #[zbus(property(emits_changed_signal = "const"))]
    async fn user(&self) -> Result<u32> {
        Ok(self.view()?.uid)
    }

    #[zbus(property)]
    async fn state(&self) -> Result<String> {
        Ok(self.view()?.state.to_owned())
    }

    #[zbus(property, name = "DeadlineUSec")]
    async fn deadline_usec(&self) -> Result<u64> {
        Ok(Clock::now().usec(self.view()?.until))
    }
}
