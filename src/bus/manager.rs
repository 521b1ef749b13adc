//! `org.provost.Provost1.Manager`: the root object.

use super::auth::Action;
use super::checkpoint::confirm_within;
use super::content::read_config;
use super::emit::expose_jobs;
use super::errors::{Error, Named, Result};
use super::options::Options;
use super::process::{UNKNOWN, signal_arguments};
use super::replies::{self, ChangeRow, DiagnosticRow, EventRow};
use super::values::{self, Clock, Dict};
use super::{Context, ReplyDue, generations, holding, job_number, paths, plain, text};
use crate::core::ids::{Generation, InstanceId, JobId};
use crate::core::view::InstanceView;
use crate::driver::handle::{
    Accepted, LogRequest, ManagerView, PlanOutcome, ReloadOptions, ReloadTicket, Trigger, Usage,
    Which, now,
};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use zbus::message::Header;
use zbus::object_server::{ResponseDispatchNotifier, SignalEmitter};
use zbus::{Connection, OwnedFd, OwnedObjectPath, OwnedVariant, interface};

type Jobs = ResponseDispatchNotifier<Vec<OwnedObjectPath>>;
type Job = ResponseDispatchNotifier<OwnedObjectPath>;
type Statuses = ResponseDispatchNotifier<BTreeMap<String, Dict>>;
type Large = ResponseDispatchNotifier<Dict>;
type Given = HashMap<String, OwnedVariant>;

/// The root object.
pub struct ManagerObject(Arc<Context>);

impl ManagerObject {
    pub(super) fn new(context: Arc<Context>) -> ManagerObject {
        ManagerObject(context)
    }

    fn view(&self) -> Arc<ManagerView> {
        self.0.handle().published().manager()
    }

    async fn authorise(
        &self,
        action: Action,
        header: &Header<'_>,
        connection: &Connection,
    ) -> Result<u32> {
        self.0.access.authorise(action, header, connection).await
    }

    /// The jobs of a verb, now or when all have ended.
    async fn jobs(
        &self,
        due: ReplyDue,
        accepted: Vec<Accepted>,
        wait: bool,
        connection: &Connection,
    ) -> Result<Jobs> {
        let jobs: Vec<JobId> = accepted.iter().map(|accepted| accepted.job).collect();
        let found = jobs.iter().map(|job| paths::job(*job)).collect();
        if wait {
            drop(due);
            for job in jobs {
                self.0.handle().job_end(job).await;
            }
            return Ok(plain(found));
        }
        expose_jobs(&self.0, connection, &jobs).await;
        Ok(due.with(found))
    }

    fn status_of(&self, view: &InstanceView, usage: Usage, clock: &Clock) -> (String, Dict) {
        let mut dict = values::all(values::PROCESS, view, clock);
        dict.insert("Unit", self.0.handle().unit(&view.id).unwrap_or_default().into());
        dict.insert("MemoryCurrent", usage.memory.unwrap_or(UNKNOWN).into());
        dict.insert("CPUUsageNSec", usage.cpu.unwrap_or(UNKNOWN).into());
        dict.insert("TasksCurrent", usage.tasks.unwrap_or(UNKNOWN).into());
        dict.insert("ControlGroup", usage.control_group.unwrap_or_default().into());
        dict.insert("LimitsEnforced", usage.unenforced.is_empty().into());
        dict.insert("UnenforcedLimits", values::limit_keys(&usage.unenforced).into());
        dict.insert("ProgramChanged", usage.program_changed.into());
        dict.insert("Reason", view.reason(now()).into());
        dict.insert("History", replies::history(view, clock).into());
        let tags: Vec<String> = view.spec.tags.iter().map(ToString::to_string).collect();
        dict.insert("Tags", tags.into());
        let name = view.spec.name.as_deref().unwrap_or_default().to_owned();
        dict.insert("DisplayName", name.into());
        dict.insert("LogKind", values::log_kind(view).into());
        (view.id.to_string(), dict)
    }

    async fn planned(&self, content: Option<OwnedFd>) -> Result<PlanOutcome> {
        let content = match content {
            Some(descriptor) => Some(read_config(descriptor).await?),
            None => None,
        };
        Ok(self.0.handle().plan(content).await?)
    }

    async fn resolve(&self, names: &[String]) -> Result<Vec<InstanceId>> {
        self.0.handle().first_look().await;
        Ok(self.0.handle().published().resolve(names)?)
    }
}

/// The job of a reload, now or when it has ended.
pub(super) async fn reload_reply(
    context: &Context,
    due: ReplyDue,
    ticket: ReloadTicket,
    wait: bool,
    connection: &Connection,
) -> Result<Job> {
    let path = ticket.job.map_or_else(paths::none, paths::job);
    if wait {
        drop(due);
        // A driver that is gone tells nothing; the caller learns that from the next call.
        let _ = ticket.outcome.await;
        return Ok(plain(path));
    }
    expose_jobs(context, connection, ticket.job.as_slice()).await;
    Ok(due.with(path))
}

/// An empty list of names must not mean all, nor nothing without a word.
fn named(names: Vec<String>) -> Result<Vec<String>> {
    if names.is_empty() {
        return Err(Error::invalid("name at least one process"));
    }
    Ok(names)
}

#[interface(name = "org.provost.Provost1.Manager", introspection_docs = false)]
impl ManagerObject {
    #[zbus(out_args("jobs"))]
    async fn start(
        &self,
        names: Vec<String>,
        options: Given,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<Jobs> {
        self.authorise(Action::Start, &header, connection).await?;
        let mut options = Options::new(options);
        let (once, wait) = (options.switch("once")?, options.switch("wait")?);
        options.done()?;
        let due = self.0.replies.verb().await;
        let accepted = self.0.handle().start(named(names)?, once).await?;
        self.jobs(due, accepted, wait, connection).await
    }

    #[zbus(out_args("jobs"))]
    async fn stop(
        &self,
        names: Vec<String>,
        options: Given,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<Jobs> {
        self.authorise(Action::Stop, &header, connection).await?;
        let wait = Options::only_wait(options)?;
        let due = self.0.replies.verb().await;
        let accepted = self.0.handle().stop(named(names)?).await?;
        self.jobs(due, accepted, wait, connection).await
    }

    #[zbus(out_args("jobs"))]
    async fn restart(
        &self,
        names: Vec<String>,
        options: Given,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<Jobs> {
        self.authorise(Action::Restart, &header, connection).await?;
        let wait = Options::only_wait(options)?;
        let due = self.0.replies.verb().await;
        let accepted = self.0.handle().restart(named(names)?).await?;
        self.jobs(due, accepted, wait, connection).await
    }

    #[zbus(out_args("jobs"))]
    async fn reload_process(
        &self,
        names: Vec<String>,
        options: Given,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<Jobs> {
        self.authorise(Action::Reload, &header, connection).await?;
        let wait = Options::only_wait(options)?;
        let due = self.0.replies.verb().await;
        let accepted = self.0.handle().reload_process(named(names)?).await?;
        self.jobs(due, accepted, wait, connection).await
    }

    #[zbus(out_args("job"))]
    async fn reload(
        &self,
        options: Given,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<Job> {
        let uid = self.authorise(Action::Reload, &header, connection).await?;
        let mut given = Options::new(options);
        let wait = given.switch("wait")?;
        let options = ReloadOptions {
            expect_generation: given.number("expect-generation")?,
            force: given.switch("force")?,
        };
        given.done()?;
        let due = self.0.replies.reload().await;
        let ticket = self.0.handle().reload(Trigger::Caller { uid }, options).await?;
        reload_reply(&self.0, due, ticket, wait, connection).await
    }

    #[zbus(out_args("job"))]
    async fn apply(
        &self,
        content: zbus::OwnedFd,
        options: Given,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<Job> {
        let uid = self.authorise(Action::Configure, &header, connection).await?;
        let mut options = Options::new(options);
        let wait = options.switch("wait")?;
        let expected = options.number("expect-generation")?;
        let confirm = options.number("confirm-usec")?.map(confirm_within).transpose()?;
        options.done()?;
        let content = read_config(content).await?;
        let due = self.0.replies.reload().await;
        let ticket = self.0.handle().apply(content, expected, confirm, uid).await?;
        reload_reply(&self.0, due, ticket, wait, connection).await
    }

    #[zbus(out_args("job"))]
    async fn rollback(
        &self,
        generation: u64,
        options: Given,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<Job> {
        let uid = self.authorise(Action::Configure, &header, connection).await?;
        let mut options = Options::new(options);
        let (wait, write) = (options.switch("wait")?, options.switch("write")?);
        options.done()?;
        let to = (generation != 0).then_some(Generation(generation));
        let due = self.0.replies.reload().await;
        let ticket = self.0.handle().roll_back(to, write, uid).await?;
        reload_reply(&self.0, due, ticket, wait, connection).await
    }

    #[zbus(out_args("version"))]
    async fn reexec(
        &self,
        options: Given,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<ResponseDispatchNotifier<String>> {
        let uid = self.authorise(Action::Configure, &header, connection).await?;
        Options::new(options).done()?;
        let missing = || Named::NotSupportedByBackend("nothing can follow this program".into());
        let upgrades = self.0.service.upgrades.as_ref().ok_or_else(missing)?;
        tracing::info!("user {uid} wants the program on disk to go on");
        let prepared = upgrades.ask().await?;
        let (reply, sent) = ResponseDispatchNotifier::new(prepared.version);
        tokio::spawn(async move {
            sent.await;
            // Whoever waits for it waits no longer than a moment.
            let _ = prepared.answered.send(());
        });
        Ok(reply)
    }

    #[zbus(out_args("job"))]
    async fn set_enabled(
        &self,
        names: Vec<String>,
        enabled: bool,
        options: Given,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<Job> {
        let uid = self.authorise(Action::Configure, &header, connection).await?;
        let wait = Options::only_wait(options)?;
        let due = self.0.replies.reload().await;
        let trigger = Trigger::Caller { uid };
        let ticket = self.0.handle().set_enabled(named(names)?, enabled, trigger).await?;
        reload_reply(&self.0, due, ticket, wait, connection).await
    }

    #[zbus(out_args("processes"))]
    async fn status(&self, names: Vec<String>) -> Result<Statuses> {
        self.0.handle().first_look().await;
        let turn = self.0.replies.large().await;
        let published = self.0.handle().published();
        let views = if names.is_empty() {
            published.instances()
        } else {
            let ids = published.resolve(&names)?;
            ids.iter().filter_map(|id| published.instance(id)).collect()
        };
        let clock = Clock::now();
        let ids = views.iter().map(|view| view.id.clone()).collect();
        let usages = self.0.handle().usages(ids).await;
        let both = views.iter().zip(usages);
        let found = both.map(|(view, usage)| self.status_of(view, usage, &clock)).collect();
        Ok(holding(turn, found))
    }

    #[zbus(out_args("processes"))]
    async fn list_processes(&self) -> Vec<(String, String, String, u32, OwnedObjectPath)> {
        self.0.handle().first_look().await;
        let views = self.0.handle().published().instances();
        let row = |view: Arc<InstanceView>| {
            (
                view.id.to_string(),
                view.state.as_str().to_owned(),
                view.health.as_str().to_owned(),
                view.pid.unwrap_or(0),
                paths::process(&view.id),
            )
        };
        views.into_iter().map(row).collect()
    }

    #[zbus(out_args("process"))]
    async fn get_process(&self, name: String) -> Result<OwnedObjectPath> {
        let id = InstanceId::parse(&name).map_err(|_| Error::no_process(&name))?;
        self.0.handle().first_look().await;
        match self.0.handle().published().instance(&id) {
            Some(_) => Ok(paths::process(&id)),
            None => Err(Error::no_process(&name)),
        }
    }

    #[zbus(out_args("jobs"))]
    async fn list_jobs(&self) -> Vec<(u32, String, String, OwnedObjectPath)> {
        let jobs = self.0.handle().published().jobs();
        jobs.into_iter()
            .map(|job| {
                let instance = job.instance.map(|id| id.to_string()).unwrap_or_default();
                (job_number(job.id), job.kind.as_str().to_owned(), instance, paths::job(job.id))
            })
            .collect()
    }

    #[zbus(out_args("result", "detail"))]
    async fn wait_job(
        &self,
        id: u32,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(String, String)> {
        self.authorise(Action::Inspect, &header, connection).await?;
        match self.0.handle().job_end(JobId(id.into())).await {
            Some(end) => Ok((end.result.as_str().to_owned(), end.detail.unwrap_or_default())),
            None => Err(Named::NoSuchJob(format!("there is no job {id}")).into()),
        }
    }

    async fn signal(
        &self,
        name: String,
        whom: &str,
        signal: i32,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<()> {
        self.authorise(Action::Signal, &header, connection).await?;
        let (signal, whom) = signal_arguments(whom, signal)?;
        Ok(self.0.handle().signal(name, signal, whom).await?)
    }

    async fn reset_failed(
        &self,
        names: Vec<String>,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<()> {
        self.authorise(Action::Start, &header, connection).await?;
        Ok(self.0.handle().reset_failed(named(names)?).await?)
    }

    #[zbus(out_args("ok", "diagnostics"))]
    async fn validate_config(
        &self,
        config: OwnedFd,
        options: Given,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(bool, Vec<DiagnosticRow>)> {
        self.authorise(Action::Inspect, &header, connection).await?;
        Options::new(options).done()?;
        let outcome = self.planned(Some(config)).await?;
        let diagnostics = replies::full_diagnostics(&outcome.diagnostics, &outcome.rendered);
        Ok((outcome.plan.is_some(), diagnostics))
    }

    #[zbus(out_args("changes", "diagnostics", "generation"))]
    async fn plan_reload(
        &self,
        options: Given,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(Vec<ChangeRow>, Vec<DiagnosticRow>, u64)> {
        self.authorise(Action::Inspect, &header, connection).await?;
        let mut options = Options::new(options);
        let config = options.descriptor("config")?;
        options.done()?;
        let outcome = self.planned(config).await?;
        let diagnostics = replies::full_diagnostics(&outcome.diagnostics, &outcome.rendered);
        let changes = outcome.plan.map(|plan| replies::changes(&plan.changes));
        Ok((changes.unwrap_or_default(), diagnostics, outcome.against.0))
    }

    #[zbus(out_args("generations"))]
    async fn get_history(
        &self,
        options: Given,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<Vec<Dict>> {
        self.authorise(Action::Inspect, &header, connection).await?;
        let mut options = Options::new(options);
        let limit = options.number("limit")?;
        options.done()?;
        Ok(generations::list(&self.0.handle().history().await?, limit))
    }

    #[zbus(out_args("generation"))]
    async fn show_generation(
        &self,
        number: u64,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<Large> {
        self.authorise(Action::Inspect, &header, connection).await?;
        let turn = self.0.replies.large().await;
        let shown = self.0.handle().show_generation(Generation(number)).await?;
        Ok(holding(turn, generations::one(&shown)))
    }

    #[zbus(out_args("difference"))]
    async fn diff_generations(
        &self,
        old: u64,
        new: u64,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<Large> {
        self.authorise(Action::Inspect, &header, connection).await?;
        let turn = self.0.replies.large().await;
        let which = |number| match number {
            0 => Which::Disk,
            number => Which::Kept(Generation(number)),
        };
        let found = self.0.handle().diff_generations(which(old), which(new)).await?;
        Ok(holding(turn, generations::difference(&found)))
    }

    #[zbus(out_args("stream"))]
    async fn open_log(
        &self,
        names: Vec<String>,
        options: Given,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<OwnedFd> {
        self.authorise(Action::ReadLogs, &header, connection).await?;
        let mut options = Options::new(options);
        let (follow, lines) = (options.switch("follow")?, options.number("lines")?);
        options.done()?;
        let found = self.resolve(&names).await?;
        let [instance] = found.as_slice() else {
            return Err(Error::invalid("a stream is of one process; open one for each"));
        };
        match self.0.handle().open_log(instance.to_string(), LogRequest { lines, follow }).await? {
            Some(stream) => Ok(stream.into()),
            None => Err(Named::LogInJournal(text::journal_command(instance, follow)).into()),
        }
    }

    #[zbus(out_args("output"))]
    async fn get_check_output(
        &self,
        name: String,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<String> {
        self.authorise(Action::ReadLogs, &header, connection).await?;
        let found = self.resolve(std::slice::from_ref(&name)).await?;
        let [instance] = found.as_slice() else {
            return Err(Error::invalid("the output of a check is of one process"));
        };
        let output = self.0.handle().check_output(instance);
        Ok(output.map(|text| text.to_string()).unwrap_or_default())
    }

    #[zbus(out_args("output"))]
    async fn get_reload_output(
        &self,
        name: String,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<String> {
        self.authorise(Action::ReadLogs, &header, connection).await?;
        let found = self.resolve(std::slice::from_ref(&name)).await?;
        let [instance] = found.as_slice() else {
            return Err(Error::invalid("the output of a reload is of one process"));
        };
        let output = self.0.handle().reload_output(instance);
        Ok(output.map(|text| text.to_string()).unwrap_or_default())
    }

    #[zbus(out_args("events", "cursor"))]
    async fn get_events(
        &self,
        cursor: String,
        limit: u32,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(Vec<EventRow>, String)> {
        self.authorise(Action::Inspect, &header, connection).await?;
        let published = self.0.handle().published();
        let epoch = &self.0.service.epoch;
        if cursor == "tail" {
            return Ok((Vec::new(), write_cursor(epoch, published.last_event())));
        }
        let after = read_cursor(epoch, &cursor)?;
        let limit = if limit == 0 { usize::MAX } else { limit as usize };
        let lines = published.events_after(after, limit);
        let last = lines.last().map_or(after, |line| line.seq);
        Ok((lines.iter().map(replies::event).collect(), write_cursor(epoch, last)))
    }

    #[zbus(property(emits_changed_signal = "const"))]
    async fn version(&self) -> String {
        env!("CARGO_PKG_VERSION").to_owned()
    }

    #[zbus(property(emits_changed_signal = "const"))]
    async fn backend(&self) -> String {
        self.view().backend.to_owned()
    }

    #[zbus(property(emits_changed_signal = "const"))]
    async fn config_file(&self) -> String {
        self.view().config_file.display().to_string()
    }

    #[zbus(property)]
    async fn system_state(&self) -> String {
        self.view().summary.system_state().to_owned()
    }

    #[zbus(property)]
    async fn config_state(&self) -> String {
        self.view().config_state.to_owned()
    }

    #[zbus(property)]
    async fn config_detail(&self) -> String {
        self.view().config_detail.clone()
    }

    #[zbus(property)]
    async fn config_generation(&self) -> u64 {
        self.view().summary.generation.0
    }

    #[zbus(property)]
    async fn config_digest(&self) -> String {
        self.view().config_digest.clone()
    }

    #[zbus(property)]
    async fn last_modified(&self) -> u64 {
        values::real_or_none(self.view().last_modified)
    }

    #[zbus(property)]
    async fn last_reloaded(&self) -> u64 {
        values::real_or_none(self.view().last_reloaded)
    }

    #[zbus(property)]
    async fn watching(&self) -> bool {
        self.view().watching
    }

    #[zbus(property)]
    async fn valid(&self) -> bool {
        self.view().valid
    }

    #[zbus(property(emits_changed_signal = "invalidates"))]
    async fn diagnostics(&self) -> Vec<DiagnosticRow> {
        replies::public_diagnostics(&self.view().diagnostics)
    }

    #[zbus(property)]
    async fn disk_generation(&self) -> u64 {
        values::disk_generation(&self.view())
    }

    #[zbus(property)]
    async fn reloads(&self) -> BTreeMap<String, u64> {
        values::reloads(&self.view())
    }

    #[zbus(property, name = "ReloadsTookUSec")]
    async fn reloads_took_usec(&self) -> u64 {
        values::usec(self.view().reloads.took)
    }

    #[zbus(property, name = "LastReloadTookUSec")]
    async fn last_reload_took_usec(&self) -> u64 {
        values::usec(self.view().reloads.last_took)
    }

    #[zbus(property)]
    async fn last_succeeded(&self) -> u64 {
        values::real_or_none(self.view().reloads.last_success)
    }

    #[zbus(property)]
    async fn pending_checkpoint(&self) -> OwnedObjectPath {
        values::pending_checkpoint(&self.view())
    }

    #[zbus(property, name = "NProcesses")]
    async fn n_processes(&self) -> u32 {
        self.view().summary.total
    }

    #[zbus(property, name = "NEnabled")]
    async fn n_enabled(&self) -> u32 {
        self.view().summary.enabled
    }

    #[zbus(property, name = "NRunning")]
    async fn n_running(&self) -> u32 {
        self.view().summary.running
    }

    #[zbus(property, name = "NFailed")]
    async fn n_failed(&self) -> u32 {
        self.view().summary.failed
    }

    #[zbus(property, name = "NUnhealthy")]
    async fn n_unhealthy(&self) -> u32 {
        self.view().summary.unhealthy
    }

    #[zbus(property, name = "NJobs")]
    async fn n_jobs(&self) -> u32 {
        self.view().summary.jobs
    }

    #[zbus(signal)]
    async fn job_new(
        emitter: &SignalEmitter<'_>,
        id: u32,
        job: OwnedObjectPath,
        instance: &str,
    ) -> zbus::Result<()>;

    #[zbus(signal)]
    async fn job_removed(
        emitter: &SignalEmitter<'_>,
        id: u32,
        job: OwnedObjectPath,
        instance: &str,
        result: &str,
    ) -> zbus::Result<()>;

    #[zbus(signal)]
    async fn reload_finished(
        emitter: &SignalEmitter<'_>,
        generation: u64,
        result: &str,
        info: Dict,
    ) -> zbus::Result<()>;

    #[zbus(signal)]
    async fn events_added(emitter: &SignalEmitter<'_>, cursor: &str) -> zbus::Result<()>;
}

/// A cursor names the line after which to go on, and the daemon that counted it.
pub(super) fn write_cursor(epoch: &str, seq: u64) -> String {
    format!("{epoch}:{seq}")
}

/// The number of a cursor; 0 when it is empty or of a daemon that ran before.
fn read_cursor(epoch: &str, cursor: &str) -> Result<u64> {
    if cursor.is_empty() {
        return Ok(0);
    }
    let bad = || Error::invalid(format!("{cursor:?} is no cursor"));
    let (of, seq) = cursor.split_once(':').ok_or_else(bad)?;
    let seq = seq.parse().map_err(|_| bad())?;
    Ok(if of == epoch { seq } else { 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_are_of_one_daemon() {
        assert_eq!(read_cursor("5f", &write_cursor("5f", 17)).unwrap(), 17);
        assert_eq!(read_cursor("5f", &write_cursor("60", 17)).unwrap(), 0);
        assert_eq!(read_cursor("5f", "").unwrap(), 0);
        for bad in ["17", "5f:", "5f:x", ":"] {
            assert!(read_cursor("5f", bad).is_err(), "{bad}");
        }
    }
}
