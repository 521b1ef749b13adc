//! The interfaces as `dbus/*.xml` has them, for who wants to use them without the typed client.

use std::collections::HashMap;
use zbus::{OwnedFd, OwnedObjectPath, OwnedVariant, Variant, proxy};

/// A dictionary as it is received.
pub type Dict = HashMap<String, OwnedVariant>;

/// Options as they are sent.
pub type Options<'a> = HashMap<&'a str, Variant<'a>>;

/// Severity (0 error, 1 warning), code, line, column, text.
pub type DiagnosticRow = (u32, String, u32, u32, String);

/// The root object.
#[proxy(
    interface = "org.provost.Provost1.Manager",
    default_service = "org.provost.Provost1",
    default_path = "/org/provost/Provost1"
)]
pub trait Manager {
    /// Wants instances up.
    fn start(&self, names: &[&str], options: Options<'_>) -> zbus::Result<Vec<OwnedObjectPath>>;

    /// Wants instances down.
    fn stop(&self, names: &[&str], options: Options<'_>) -> zbus::Result<Vec<OwnedObjectPath>>;

    /// Wants a new run of instances.
    fn restart(&self, names: &[&str], options: Options<'_>) -> zbus::Result<Vec<OwnedObjectPath>>;

    /// Has runs take their settings anew.
    fn reload_process(
        &self,
        names: &[&str],
        options: Options<'_>,
    ) -> zbus::Result<Vec<OwnedObjectPath>>;

    /// Reads the files and applies what differs.
    fn reload(&self, options: Options<'_>) -> zbus::Result<OwnedObjectPath>;

    /// Puts a content in the place of the file with the processes, and applies it.
    fn apply(&self, content: zbus::Fd<'_>, options: Options<'_>) -> zbus::Result<OwnedObjectPath>;

    /// Applies an older generation again.
    fn rollback(&self, generation: u64, options: Options<'_>) -> zbus::Result<OwnedObjectPath>;

    /// Has the program on disk go on in the place of the one that runs.
    fn reexec(&self, options: Options<'_>) -> zbus::Result<String>;

    /// Changes `enabled` in the file and reloads.
    fn set_enabled(
        &self,
        names: &[&str],
        enabled: bool,
        options: Options<'_>,
    ) -> zbus::Result<OwnedObjectPath>;

    /// All about instances.
    fn status(&self, names: &[&str]) -> zbus::Result<HashMap<String, Dict>>;

    /// Id, state, health, pid, object of all instances.
    fn list_processes(&self) -> zbus::Result<Vec<(String, String, String, u32, OwnedObjectPath)>>;

    /// The object of an instance.
    fn get_process(&self, name: &str) -> zbus::Result<OwnedObjectPath>;

    /// Number, kind, instance, object of all jobs.
    fn list_jobs(&self) -> zbus::Result<Vec<(u32, String, String, OwnedObjectPath)>>;

    /// Waits for the end of a job and tells its result and more in words.
    fn wait_job(&self, id: u32) -> zbus::Result<(String, String)>;

    /// Sends a signal.
    fn signal(&self, name: &str, whom: &str, signal: i32) -> zbus::Result<()>;

    /// Has failed and waiting instances tried again at once.
    fn reset_failed(&self, names: &[&str]) -> zbus::Result<()>;

    /// What is wrong with a file.
    fn validate_config(
        &self,
        config: zbus::Fd<'_>,
        options: Options<'_>,
    ) -> zbus::Result<(bool, Vec<DiagnosticRow>)>;

    /// What a reload would do.
    #[allow(clippy::type_complexity)] // The signature of the interface.
    fn plan_reload(
        &self,
        options: Options<'_>,
    ) -> zbus::Result<(Vec<(String, Dict)>, Vec<DiagnosticRow>, u64)>;

    /// The configurations that were accepted.
    fn get_history(&self, options: Options<'_>) -> zbus::Result<Vec<Dict>>;

    /// One of them.
    fn show_generation(&self, number: u64) -> zbus::Result<Dict>;

    /// What differs between two of them; 0 is what is on disk.
    fn diff_generations(&self, old: u64, new: u64) -> zbus::Result<Dict>;

    /// What an instance wrote.
    fn open_log(&self, names: &[&str], options: Options<'_>) -> zbus::Result<OwnedFd>;

    /// What the last exec check that failed wrote at its end.
    fn get_check_output(&self, name: &str) -> zbus::Result<String>;

    /// What the last command of `reload` that failed wrote at its end.
    fn get_reload_output(&self, name: &str) -> zbus::Result<String>;

    /// Lines of the event log after a cursor.
    #[allow(clippy::type_complexity)] // The signature of the interface.
    fn get_events(
        &self,
        cursor: &str,
        limit: u32,
    ) -> zbus::Result<(Vec<(String, u64, Dict)>, String)>;

    /// A job began.
    #[zbus(signal)]
    fn job_new(&self, id: u32, job: OwnedObjectPath, instance: String) -> zbus::Result<()>;

    /// A job ended.
    #[zbus(signal)]
    fn job_removed(
        &self,
        id: u32,
        job: OwnedObjectPath,
        instance: String,
        result: String,
    ) -> zbus::Result<()>;

    /// A reload ended.
    #[zbus(signal)]
    fn reload_finished(&self, generation: u64, result: String, info: Dict) -> zbus::Result<()>;

    /// There are new lines in the event log.
    #[zbus(signal)]
    fn events_added(&self, cursor: String) -> zbus::Result<()>;

    /// The version of the daemon.
    #[zbus(property(emits_changed_signal = "const"))]
    fn version(&self) -> zbus::Result<String>;

    /// `native` or `systemd`.
    #[zbus(property(emits_changed_signal = "const"))]
    fn backend(&self) -> zbus::Result<String>;

    /// The main file.
    #[zbus(property(emits_changed_signal = "const"))]
    fn config_file(&self) -> zbus::Result<String>;

    /// The state of the whole.
    #[zbus(property)]
    fn system_state(&self) -> zbus::Result<String>;

    /// The state of the configuration.
    #[zbus(property)]
    fn config_state(&self) -> zbus::Result<String>;

    /// What there is to be said where the files are not what runs.
    #[zbus(property)]
    fn config_detail(&self) -> zbus::Result<String>;

    /// The active generation.
    #[zbus(property)]
    fn config_generation(&self) -> zbus::Result<u64>;

    /// SHA-256 of the active configuration.
    #[zbus(property)]
    fn config_digest(&self) -> zbus::Result<String>;

    /// When the main file was modified, in microseconds of the wall clock.
    #[zbus(property)]
    fn last_modified(&self) -> zbus::Result<u64>;

    /// When a configuration was last applied, in microseconds of the wall clock.
    #[zbus(property)]
    fn last_reloaded(&self) -> zbus::Result<u64>;

    /// Whether the files are watched.
    #[zbus(property)]
    fn watching(&self) -> zbus::Result<bool>;

    /// Whether the files, as last read, are valid.
    #[zbus(property)]
    fn valid(&self) -> zbus::Result<bool>;

    /// What is wrong with the files as last read.
    #[zbus(property(emits_changed_signal = "invalidates"))]
    fn diagnostics(&self) -> zbus::Result<Vec<DiagnosticRow>>;

    /// Which generation the files are, as last read; 0 where they are none that is kept.
    #[zbus(property)]
    fn disk_generation(&self) -> zbus::Result<u64>;

    /// How many reloads ended in which way.
    #[zbus(property)]
    fn reloads(&self) -> zbus::Result<HashMap<String, u64>>;

    /// How long all of them took, in microseconds.
    #[zbus(property, name = "ReloadsTookUSec")]
    fn reloads_took_usec(&self) -> zbus::Result<u64>;

    /// How long the last one took, in microseconds.
    #[zbus(property, name = "LastReloadTookUSec")]
    fn last_reload_took_usec(&self) -> zbus::Result<u64>;

    /// When one last came up, or found that nothing differed, in microseconds of the wall clock.
    #[zbus(property)]
    fn last_succeeded(&self) -> zbus::Result<u64>;

    /// What waits to be confirmed.
    #[zbus(property)]
    fn pending_checkpoint(&self) -> zbus::Result<OwnedObjectPath>;

    /// Instances.
    #[zbus(property, name = "NProcesses")]
    fn n_processes(&self) -> zbus::Result<u32>;

    /// Instances the file enables.
    #[zbus(property, name = "NEnabled")]
    fn n_enabled(&self) -> zbus::Result<u32>;

    /// Instances that are running.
    #[zbus(property, name = "NRunning")]
    fn n_running(&self) -> zbus::Result<u32>;

    /// Instances that failed or wait for another try.
    #[zbus(property, name = "NFailed")]
    fn n_failed(&self) -> zbus::Result<u32>;

    /// Instances whose check says unhealthy.
    #[zbus(property, name = "NUnhealthy")]
    fn n_unhealthy(&self) -> zbus::Result<u32>;

    /// Jobs that have not ended.
    #[zbus(property, name = "NJobs")]
    fn n_jobs(&self) -> zbus::Result<u32>;
}

/// One instance.
#[proxy(
    interface = "org.provost.Provost1.Process",
    default_service = "org.provost.Provost1",
    assume_defaults = false
)]
pub trait Process {
    /// Wants it up.
    fn start(&self, options: Options<'_>) -> zbus::Result<OwnedObjectPath>;

    /// Wants it down.
    fn stop(&self, options: Options<'_>) -> zbus::Result<OwnedObjectPath>;

    /// Wants a new run.
    fn restart(&self, options: Options<'_>) -> zbus::Result<OwnedObjectPath>;

    /// Has it take its settings anew.
    fn reload(&self, options: Options<'_>) -> zbus::Result<OwnedObjectPath>;

    /// Sends a signal.
    fn signal(&self, whom: &str, signal: i32) -> zbus::Result<()>;

    /// Has it tried again at once.
    fn reset_failed(&self) -> zbus::Result<()>;

    /// A descriptor for its main process.
    #[zbus(name = "GetPIDFD")]
    fn get_pidfd(&self) -> zbus::Result<OwnedFd>;

    /// Its main process ended.
    #[zbus(signal)]
    fn exited(&self, generation: u32, pid: u32, code: i32, status: i32) -> zbus::Result<()>;

    /// The id of the process.
    #[zbus(property(emits_changed_signal = "const"))]
    fn name(&self) -> zbus::Result<String>;

    /// Which instance of it, counted from 0.
    #[zbus(property(emits_changed_signal = "const"))]
    fn instance(&self) -> zbus::Result<u32>;

    /// For people.
    #[zbus(property)]
    fn description(&self) -> zbus::Result<String>;

    /// What the file says.
    #[zbus(property)]
    fn enabled(&self) -> zbus::Result<bool>;

    /// The operator's word.
    #[zbus(property)]
    fn desired_state(&self) -> zbus::Result<String>;

    /// systemd's word for its state.
    #[zbus(property)]
    fn active_state(&self) -> zbus::Result<String>;

    /// Its state.
    #[zbus(property)]
    fn sub_state(&self) -> zbus::Result<String>;

    /// A finer word within its state.
    #[zbus(property)]
    fn phase(&self) -> zbus::Result<String>;

    /// Since when, in microseconds of the wall clock.
    #[zbus(property, name = "StateChangeUSec")]
    fn state_change_usec(&self) -> zbus::Result<u64>;

    /// Since when, in microseconds of the monotonic clock.
    #[zbus(property, name = "StateChangeUSecMonotonic")]
    fn state_change_monotonic(&self) -> zbus::Result<u64>;

    /// How its last run ended.
    #[zbus(property, name = "Result")]
    fn last_result(&self) -> zbus::Result<String>;

    /// What its check says.
    #[zbus(property)]
    fn health(&self) -> zbus::Result<String>;

    /// What its last failed check said.
    #[zbus(property(emits_changed_signal = "false"))]
    fn health_detail(&self) -> zbus::Result<String>;

    /// What it last said of itself.
    #[zbus(property)]
    fn status_text(&self) -> zbus::Result<String>;

    /// When its last check was answered, in microseconds of the wall clock.
    #[zbus(property(emits_changed_signal = "false"))]
    fn last_check(&self) -> zbus::Result<u64>;

    /// Its main process.
    #[zbus(property, name = "MainPID")]
    fn main_pid(&self) -> zbus::Result<u32>;

    /// The main process of its other run, while there are two.
    #[zbus(property, name = "OverlapPID")]
    fn overlap_pid(&self) -> zbus::Result<u32>;

    /// How its last main process ended, as waitid(2) has it.
    #[zbus(property)]
    fn exit_code(&self) -> zbus::Result<i32>;

    /// The exit code or signal of its last main process.
    #[zbus(property)]
    fn exit_status(&self) -> zbus::Result<i32>;

    /// Restarts by policy.
    #[zbus(property, name = "NRestarts")]
    fn n_restarts(&self) -> zbus::Result<u32>;

    /// When it is started again, in microseconds of the monotonic clock.
    #[zbus(property, name = "NextRestartUSec")]
    fn next_restart_usec(&self) -> zbus::Result<u64>;

    /// When its run was started, in microseconds of the wall clock.
    #[zbus(property)]
    fn started_at(&self) -> zbus::Result<u64>;

    /// Bytes of memory.
    #[zbus(property(emits_changed_signal = "false"))]
    fn memory_current(&self) -> zbus::Result<u64>;

    /// Nanoseconds of processor time.
    #[zbus(property(emits_changed_signal = "false"), name = "CPUUsageNSec")]
    fn cpu_usage_nsec(&self) -> zbus::Result<u64>;

    /// Processes and threads.
    #[zbus(property(emits_changed_signal = "false"))]
    fn tasks_current(&self) -> zbus::Result<u64>;

    /// Its control group.
    #[zbus(property(emits_changed_signal = "false"))]
    fn control_group(&self) -> zbus::Result<String>;

    /// Its limit of memory, in bytes.
    #[zbus(property)]
    fn memory_max(&self) -> zbus::Result<u64>;

    /// Bytes of memory above which it is slowed down.
    #[zbus(property)]
    fn memory_high(&self) -> zbus::Result<u64>;

    /// Its limit of processor time, in microseconds a second.
    #[zbus(property, name = "CPUQuotaPerSecUSec")]
    fn cpu_quota(&self) -> zbus::Result<u64>;

    /// Bytes of memory above which it gets a new run.
    #[zbus(property)]
    fn max_memory_restart(&self) -> zbus::Result<u64>;

    /// Its limit of processes and threads.
    #[zbus(property)]
    fn tasks_max(&self) -> zbus::Result<u64>;

    /// Whether all its limits hold.
    #[zbus(property(emits_changed_signal = "false"))]
    fn limits_enforced(&self) -> zbus::Result<bool>;

    /// The limits that do not hold.
    #[zbus(property(emits_changed_signal = "false"))]
    fn unenforced_limits(&self) -> zbus::Result<Vec<String>>;

    /// Whether the file of its program is another than when the run began.
    #[zbus(property(emits_changed_signal = "false"))]
    fn program_changed(&self) -> zbus::Result<bool>;

    /// Its unit.
    #[zbus(property(emits_changed_signal = "invalidates"))]
    fn unit(&self) -> zbus::Result<String>;

    /// What keeps it from starting.
    #[zbus(property)]
    fn waiting_for(&self) -> zbus::Result<Vec<String>>;

    /// Whether a restart is due.
    #[zbus(property)]
    fn needs_restart(&self) -> zbus::Result<bool>;

    /// The generation of its spec.
    #[zbus(property)]
    fn config_generation(&self) -> zbus::Result<u64>;

    /// The names of its environment variables.
    #[zbus(property(emits_changed_signal = "invalidates"))]
    fn environment_names(&self) -> zbus::Result<Vec<String>>;
}

/// A job that has not ended.
#[proxy(
    interface = "org.provost.Provost1.Job",
    default_service = "org.provost.Provost1",
    assume_defaults = false
)]
pub trait Job {
    /// Its number.
    #[zbus(property(emits_changed_signal = "const"))]
    fn id(&self) -> zbus::Result<u32>;

    /// `start`, `stop`, `restart` or `reload`.
    #[zbus(property(emits_changed_signal = "const"))]
    fn kind(&self) -> zbus::Result<String>;

    /// The instance it is on; empty for a reload.
    #[zbus(property(emits_changed_signal = "const"))]
    fn instance(&self) -> zbus::Result<String>;

    /// The object of the instance; `/` for a reload.
    #[zbus(property(emits_changed_signal = "const"))]
    fn process(&self) -> zbus::Result<OwnedObjectPath>;

    /// Since when, in microseconds of the wall clock.
    #[zbus(property(emits_changed_signal = "const"), name = "CreatedUSec")]
    fn created_usec(&self) -> zbus::Result<u64>;
}

/// A generation that is undone unless somebody confirms it.
#[proxy(interface = "org.provost.Provost1.Checkpoint", default_service = "org.provost.Provost1")]
pub trait Checkpoint {
    /// Keeps it.
    fn commit(&self) -> zbus::Result<()>;

    /// Undoes it now.
    fn rollback(&self, options: Options<'_>) -> zbus::Result<OwnedObjectPath>;

    /// Gives it so many microseconds from now.
    fn set_timeout(&self, usec: u64) -> zbus::Result<()>;

    /// Which it is.
    #[zbus(property(emits_changed_signal = "const"))]
    fn generation(&self) -> zbus::Result<u64>;

    /// What comes back.
    #[zbus(property(emits_changed_signal = "const"))]
    fn base(&self) -> zbus::Result<u64>;

    /// Who handed it over.
    #[zbus(property(emits_changed_signal = "const"))]
    fn user(&self) -> zbus::Result<u32>;

    /// `trying`, `waiting` or `undoing`.
    #[zbus(property)]
    fn state(&self) -> zbus::Result<String>;

    /// When it is undone, in microseconds of the wall clock.
    #[zbus(property, name = "DeadlineUSec")]
    fn deadline_usec(&self) -> zbus::Result<u64>;
}
