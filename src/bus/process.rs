//! `org.provost.Provost1.Process`: one instance.

use super::auth::Action;
use super::emit::expose_jobs;
use super::errors::{Error, Named, Result};
use super::options::Options;
use super::{Context, ReplyDue, paths, plain, values};
use crate::core::event::Whom;
use crate::core::ids::InstanceId;
use crate::core::spec::Signal;
use crate::core::view::{InstanceView, active_state};
use crate::driver::handle::{Accepted, DriverError, Usage};
use std::collections::HashMap;
use std::sync::Arc;
use values::Clock;
use zbus::message::Header;
use zbus::object_server::{ResponseDispatchNotifier, SignalEmitter};
use zbus::{Connection, OwnedFd, OwnedObjectPath, OwnedVariant, interface};

/// What a property says that is not known.
pub const UNKNOWN: u64 = u64::MAX;

type JobReply = ResponseDispatchNotifier<OwnedObjectPath>;

/// The object of one instance.
pub struct ProcessObject {
    context: Arc<Context>,
    id: InstanceId,
}

impl ProcessObject {
    pub(super) fn new(context: Arc<Context>, id: InstanceId) -> ProcessObject {
        ProcessObject { context, id }
    }

    fn view(&self) -> Result<Arc<InstanceView>> {
        let name = self.id.to_string();
        self.context.handle().published().instance(&self.id).ok_or_else(|| Error::no_process(&name))
    }

    fn name(&self) -> Vec<String> {
        vec![self.id.to_string()]
    }

    /// The job on this instance, now or when it has ended.
    async fn job(
        &self,
        due: ReplyDue,
        accepted: Vec<Accepted>,
        wait: bool,
        connection: &Connection,
    ) -> Result<JobReply> {
        let own = accepted.iter().find(|accepted| accepted.instance == self.id);
        let job = own.ok_or_else(|| Error::failed("no job came of it"))?.job;
        let path = paths::job(job);
        if wait {
            drop(due);
            self.context.handle().job_end(job).await;
            return Ok(plain(path));
        }
        expose_jobs(&self.context, connection, &[job]).await;
        Ok(due.with(path))
    }

    /// What it uses. Nothing is asked when there is no caller, as when all objects are listed: that
    /// would be thousands of questions.
    async fn usage(&self, header: Option<&Header<'_>>) -> Usage {
        match header {
            Some(_) => {
                let mut used = self.context.handle().usages(vec![self.id.clone()]).await;
                used.pop().unwrap_or_default()
            }
            None => Usage::default(),
        }
    }
}

/// Reads the two arguments of `Signal`.
pub(super) fn signal_arguments(whom: &str, signal: i32) -> Result<(Signal, Whom)> {
    let whom = match whom {
        "main" => Whom::Main,
        "all" => Whom::All,
        other => return Err(Error::invalid(format!("whom is `main` or `all`, not {other:?}"))),
    };
    match u8::try_from(signal) {
        Ok(number @ 1..=64) => Ok((Signal(number), whom)),
        _ => Err(Error::invalid(format!("a signal has a number from 1 to 64, not {signal}"))),
    }
}

#[interface(name = "org.provost.Provost1.Process", introspection_docs = false)]
impl ProcessObject {
    #[zbus(out_args("job"))]
    async fn start(
        &self,
        options: HashMap<String, OwnedVariant>,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<JobReply> {
        self.context.access.authorise(Action::Start, &header, connection).await?;
        let mut options = Options::new(options);
        let (once, wait) = (options.switch("once")?, options.switch("wait")?);
        options.done()?;
        let due = self.context.replies.verb().await;
        let accepted = self.context.handle().start(self.name(), once).await?;
        self.job(due, accepted, wait, connection).await
    }

    #[zbus(out_args("job"))]
    async fn stop(
        &self,
        options: HashMap<String, OwnedVariant>,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<JobReply> {
        self.context.access.authorise(Action::Stop, &header, connection).await?;
        let wait = Options::only_wait(options)?;
        let due = self.context.replies.verb().await;
        let accepted = self.context.handle().stop(self.name()).await?;
        self.job(due, accepted, wait, connection).await
    }

    #[zbus(out_args("job"))]
    async fn restart(
        &self,
        options: HashMap<String, OwnedVariant>,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<JobReply> {
        self.context.access.authorise(Action::Restart, &header, connection).await?;
        let wait = Options::only_wait(options)?;
        let due = self.context.replies.verb().await;
        let accepted = self.context.handle().restart(self.name()).await?;
        self.job(due, accepted, wait, connection).await
    }

    #[zbus(out_args("job"))]
    async fn reload(
        &self,
        options: HashMap<String, OwnedVariant>,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<JobReply> {
        self.context.access.authorise(Action::Reload, &header, connection).await?;
        let wait = Options::only_wait(options)?;
        let due = self.context.replies.verb().await;
        let accepted = self.context.handle().reload_process(self.name()).await?;
        self.job(due, accepted, wait, connection).await
    }

    async fn signal(
        &self,
        whom: &str,
        signal: i32,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<()> {
        self.context.access.authorise(Action::Signal, &header, connection).await?;
        let (signal, whom) = signal_arguments(whom, signal)?;
        Ok(self.context.handle().signal(self.id.to_string(), signal, whom).await?)
    }

    async fn reset_failed(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<()> {
        self.context.access.authorise(Action::Start, &header, connection).await?;
        Ok(self.context.handle().reset_failed(self.name()).await?)
    }

    #[zbus(name = "GetPIDFD", out_args("pidfd"))]
    async fn get_pidfd(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<OwnedFd> {
        self.context.access.authorise(Action::Inspect, &header, connection).await?;
        match self.context.handle().pidfd(self.id.clone()).await {
            Ok(pidfd) => Ok(pidfd.into()),
            Err(DriverError::NotAvailable(text)) => Err(Named::NotRunning(text).into()),
            Err(error) => Err(error.into()),
        }
    }

    #[zbus(property(emits_changed_signal = "const"), name = "Name")]
    async fn process_name(&self) -> String {
        self.id.process.to_string()
    }

    #[zbus(property(emits_changed_signal = "const"))]
    async fn instance(&self) -> u32 {
        self.id.index
    }

    #[zbus(property)]
    async fn description(&self) -> Result<String> {
        Ok(values::description(&*self.view()?))
    }

    #[zbus(property)]
    async fn enabled(&self) -> Result<bool> {
        Ok(self.view()?.enabled)
    }

    #[zbus(property)]
    async fn desired_state(&self) -> Result<String> {
        Ok(values::desired_state(&*self.view()?).to_owned())
    }

    #[zbus(property)]
    async fn active_state(&self) -> Result<String> {
        Ok(active_state(self.view()?.state).to_owned())
    }

    #[zbus(property)]
    async fn sub_state(&self) -> Result<String> {
        Ok(self.view()?.state.as_str().to_owned())
    }

    #[zbus(property)]
    async fn phase(&self) -> Result<String> {
        Ok(self.view()?.sub_state.to_owned())
    }

    #[zbus(property, name = "StateChangeUSec")]
    async fn state_change_usec(&self) -> Result<u64> {
        Ok(Clock::now().usec(Some(self.view()?.since)))
    }

    #[zbus(property, name = "StateChangeUSecMonotonic")]
    async fn state_change_monotonic(&self) -> Result<u64> {
        Ok(values::monotonic(Some(self.view()?.since)))
    }

    #[zbus(property, name = "Result")]
    async fn last_result(&self) -> Result<String> {
        Ok(values::result(&*self.view()?).to_owned())
    }

    #[zbus(property)]
    async fn health(&self) -> Result<String> {
        Ok(self.view()?.health.as_str().to_owned())
    }

    #[zbus(property(emits_changed_signal = "false"))]
    async fn health_detail(&self) -> Result<String> {
        Ok(values::health_detail(&*self.view()?))
    }

    #[zbus(property)]
    async fn status_text(&self) -> Result<String> {
        Ok(values::status_text(&*self.view()?))
    }

    #[zbus(property(emits_changed_signal = "false"))]
    async fn last_check(&self) -> Result<u64> {
        Ok(Clock::now().usec(self.view()?.last_check))
    }

    #[zbus(property, name = "MainPID")]
    async fn main_pid(&self) -> Result<u32> {
        Ok(self.view()?.pid.unwrap_or(0))
    }

    #[zbus(property, name = "OverlapPID")]
    async fn overlap_pid(&self) -> Result<u32> {
        Ok(values::overlap_pid(&*self.view()?))
    }

    #[zbus(property)]
    async fn exit_code(&self) -> Result<i32> {
        Ok(values::exit(self.view()?.last_exit).0)
    }

    #[zbus(property)]
    async fn exit_status(&self) -> Result<i32> {
        Ok(values::exit(self.view()?.last_exit).1)
    }

    #[zbus(property, name = "NRestarts")]
    async fn n_restarts(&self) -> Result<u32> {
        Ok(values::restarts(&*self.view()?))
    }

    #[zbus(property, name = "NextRestartUSec")]
    async fn next_restart_usec(&self) -> Result<u64> {
        Ok(values::monotonic(self.view()?.next_start))
    }

    #[zbus(property)]
    async fn started_at(&self) -> Result<u64> {
        Ok(Clock::now().usec(self.view()?.started))
    }

    #[zbus(property(emits_changed_signal = "false"))]
    async fn memory_current(&self, #[zbus(header)] header: Option<Header<'_>>) -> u64 {
        self.usage(header.as_ref()).await.memory.unwrap_or(UNKNOWN)
    }

    #[zbus(property(emits_changed_signal = "false"), name = "CPUUsageNSec")]
    async fn cpu_usage_nsec(&self, #[zbus(header)] header: Option<Header<'_>>) -> u64 {
        self.usage(header.as_ref()).await.cpu.unwrap_or(UNKNOWN)
    }

    #[zbus(property(emits_changed_signal = "false"))]
    async fn tasks_current(&self, #[zbus(header)] header: Option<Header<'_>>) -> u64 {
        self.usage(header.as_ref()).await.tasks.unwrap_or(UNKNOWN)
    }

    #[zbus(property(emits_changed_signal = "false"))]
    async fn control_group(&self, #[zbus(header)] header: Option<Header<'_>>) -> String {
        self.usage(header.as_ref()).await.control_group.unwrap_or_default()
    }

    #[zbus(property)]
    async fn memory_max(&self) -> Result<u64> {
        Ok(self.view()?.spec.limits.memory.unwrap_or(UNKNOWN))
    }

    #[zbus(property)]
    async fn memory_high(&self) -> Result<u64> {
        Ok(self.view()?.spec.limits.memory_high.unwrap_or(UNKNOWN))
    }

    #[zbus(property, name = "CPUQuotaPerSecUSec")]
    async fn cpu_quota(&self) -> Result<u64> {
        Ok(values::quota(&*self.view()?))
    }

    #[zbus(property)]
    async fn max_memory_restart(&self) -> Result<u64> {
        Ok(self.view()?.spec.limits.max_memory_restart.unwrap_or(UNKNOWN))
    }

    #[zbus(property)]
    async fn tasks_max(&self) -> Result<u64> {
        Ok(self.view()?.spec.limits.tasks.unwrap_or(UNKNOWN))
    }

    #[zbus(property(emits_changed_signal = "false"))]
    async fn limits_enforced(&self, #[zbus(header)] header: Option<Header<'_>>) -> bool {
        self.usage(header.as_ref()).await.unenforced.is_empty()
    }

    #[zbus(property(emits_changed_signal = "false"))]
    async fn unenforced_limits(&self, #[zbus(header)] header: Option<Header<'_>>) -> Vec<String> {
        values::limit_keys(&self.usage(header.as_ref()).await.unenforced)
    }

    #[zbus(property(emits_changed_signal = "false"))]
    async fn program_changed(&self, #[zbus(header)] header: Option<Header<'_>>) -> bool {
        self.usage(header.as_ref()).await.program_changed
    }

    #[zbus(property(emits_changed_signal = "invalidates"))]
    async fn unit(&self) -> String {
        self.context.handle().unit(&self.id).unwrap_or_default()
    }

    #[zbus(property)]
    async fn waiting_for(&self) -> Result<Vec<String>> {
        Ok(values::waiting_for(&*self.view()?))
    }

    #[zbus(property)]
    async fn needs_restart(&self) -> Result<bool> {
        Ok(self.view()?.needs_restart)
    }

    #[zbus(property)]
    async fn config_generation(&self) -> Result<u64> {
        Ok(self.view()?.generation.0)
    }

    #[zbus(property(emits_changed_signal = "invalidates"))]
    async fn environment_names(&self) -> Result<Vec<String>> {
        Ok(values::environment_names(&*self.view()?))
    }

    #[zbus(signal)]
    async fn exited(
        emitter: &SignalEmitter<'_>,
        generation: u32,
        pid: u32,
        code: i32,
        status: i32,
    ) -> zbus::Result<()>;
}
