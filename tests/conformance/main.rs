//! What every backend has to do, in one table, for each of them: the native one here, the systemd
//! one on machines of its own with each version that is supported, as the system's and as a user's;
//! and both where nothing is kept from them. What is a matter of decisions is also seen where processes
//! are simulated.
#![allow(missing_docs, clippy::unwrap_used)]

mod changes;
mod clock;
#[path = "../common/mod.rs"]
mod common;
mod daemons;
mod held;
mod knocking;
mod machines;
mod overlapping;
mod renewal;
mod resources;
mod scenarios;
#[path = "../common/sigchld.rs"]
mod sigchld;
mod sim;
mod speaking;
mod stages;
mod supervisor;
mod vm;
mod world;

#[path = "../machine/image.rs"]
#[allow(dead_code, reason = "shared with the tests of the package")]
mod image;
#[path = "../machine/machine.rs"]
#[allow(dead_code, reason = "shared with the tests of the package")]
mod machine;

/// What machines are given: the programs, as they are.
mod package {
    use std::path::{Path, PathBuf};

    #[allow(clippy::unnecessary_wraps, reason = "as the tests of the package have it")]
    pub fn package() -> Option<PathBuf> {
        Path::new(env!("CARGO_BIN_EXE_provost-log")).parent().map(Path::to_owned)
    }
}

/// A test that could not run says why; under CI that is a failure.
fn cannot<T>(why: &str) -> Option<T> {
    assert!(std::env::var_os("CI").is_none(), "{why}");
    eprintln!("skipped: {why}");
    None
}

/// Scenarios as tests of this machine, with one backend.
macro_rules! here {
    ($world:ident, $backend:literal;
     $($module:ident::$scenario:ident),+; $($of:ident::$daemon:ident),+ $(,)?) => {
        $(#[tokio::test]
        async fn $scenario() {
            crate::$module::$scenario(crate::world::World::$world()).await;
        })+
        $(#[tokio::test]
        async fn $daemon() {
            crate::$of::$daemon(crate::supervisor::Supervisor::with($backend)).await;
        })+
    };
}

/// The table.
macro_rules! scenarios {
    ($($module:ident::$scenario:ident),+; $($of:ident::$daemon:ident),+ $(,)?) => {
        /// On this machine, with the native backend.
        mod native {
            here! { native, "native"; $($module::$scenario),+; $($of::$daemon),+ }
        }

        /// In a machine, with systemd. Run by the tests in `machines`.
        mod inside {
            $(#[tokio::test]
            #[ignore = "run in a machine, by another test"]
            async fn $scenario() {
                crate::$module::$scenario(crate::world::World::systemd().await).await;
            })+
            $(#[tokio::test]
            #[ignore = "run in a machine, by another test"]
            async fn $daemon() {
                crate::$of::$daemon(crate::supervisor::Supervisor::with("systemd")).await;
            })+
        }

        const SCENARIOS: &[&str] = &[$(stringify!($scenario)),+, $(stringify!($daemon)),+];
    };
}

scenarios! {
    scenarios::a_run_that_ends_at_once_is_reported_in_order,
    scenarios::how_it_ended_is_told,
    scenarios::any_code_of_a_command_is_its_own,
    scenarios::many_at_once_are_all_seen,
    scenarios::an_end_is_remembered_until_it_is_kept,
    scenarios::one_run_follows_the_other,
    scenarios::what_is_stopped_before_it_began_is_never_executed,
    scenarios::what_is_stopped_while_it_begins_ends,
    scenarios::a_run_that_is_over_can_be_stopped_again,
    scenarios::terminating_asks_the_main_process,
    scenarios::what_is_left_over_stays_until_it_is_asked,
    scenarios::what_is_left_over_by_a_failure_stays_as_well,
    scenarios::a_stopped_process_is_woken_up_to_end,
    scenarios::one_that_ignores_the_signal_is_killed,
    scenarios::killing_leaves_nothing,
    scenarios::signals_reach_whom_they_are_for,
    scenarios::usage_is_that_of_the_tree,
    overlapping::a_run_beside_another_is_told_from_it,
    scenarios::a_command_beside_a_run_has_its_context,
    scenarios::a_command_beside_a_run_ends_at_its_deadline,
    stages::arguments_and_environment_arrive_as_they_are,
    stages::a_process_is_what_it_shall_be,
    stages::a_user_is_taken_on,
    stages::a_program_is_found_from_its_directory,
    stages::each_stage_that_fails_is_named,
    stages::a_log_file_is_its_users,
    stages::a_log_file_is_rotated,
    stages::a_pid_file_is_there_as_long_as_the_run,
    speaking::a_run_is_heard_whoever_of_it_speaks,
    speaking::a_run_that_is_quick_is_heard,
    speaking::what_others_say_is_not_heard,
    speaking::who_shall_not_speak_is_told_nothing,
    resources::limits_hold_and_change_under_a_run,
    resources::a_change_of_limits_while_it_begins_is_not_lost,
    resources::what_forks_without_end_is_limited_and_can_be_stopped,
    resources::what_needs_too_much_memory_is_told_as_such,
    resources::who_has_too_little_memory_to_begin_takes_nobody_with_it,
    resources::what_outgrows_its_memory_is_told,
    resources::a_sandbox_is_carried_out,
    resources::a_property_of_the_file_is_that_of_the_unit,
    resources::every_property_of_the_table_can_be_set;
    daemons::order_is_that_of_the_graph,
    daemons::a_crashing_process_is_delayed_and_given_up,
    daemons::a_stop_is_over_when_nothing_is_left,
    daemons::one_shots_run_once,
    daemons::a_reload_touches_what_changed,
    daemons::nobody_is_taken_down_for_a_run_that_could_not_begin,
    daemons::health_is_asked_for_and_acted_on,
    overlapping::a_new_run_begins_beside_the_old_one,
    daemons::who_says_so_is_ready,
    daemons::who_speaks_is_healthy_while_it_does,
    daemons::a_killed_daemon_is_followed,
    daemons::what_ends_while_a_daemon_comes_back_is_seen,
    daemons::what_ends_while_there_is_no_daemon_is_started_again,
    daemons::what_nobody_knows_of_is_ended_before_anything_starts,
    daemons::the_other_backend_leaves_nothing_behind,
    daemons::a_manager_that_executes_itself_again_changes_nothing,
    daemons::a_bus_that_goes_away_changes_nothing,
    changes::whatever_dies_on_the_way_it_is_wholly_the_one_or_wholly_the_other,
    clock::a_clock_that_is_set_changes_nothing,
    held::sockets_are_held_for_a_process,
    held::sockets_are_those_of_all_instances,
    held::a_socket_that_cannot_be_had_is_told,
    knocking::nobody_is_refused_while_one_that_serves_is_replaced,
    knocking::nobody_is_refused_while_several_that_serve_are_replaced,
    knocking::nobody_is_refused_while_the_old_one_and_the_new_one_serve,
    renewal::settings_are_taken_on_a_signal_to_the_main_process,
    renewal::settings_are_taken_by_a_command_in_the_context_of_the_process,
    renewal::what_it_has_watched_renews_a_process,
    resources::a_change_of_limits_restarts_nothing,
}

/// Where processes are simulated: those of the table that this can show, which are about what is
/// decided and the order of what is told. What the others show is the work of a kernel, of systemd, or
/// of files.
mod simulated {
    here! {
        sim, "sim";
        scenarios::a_run_that_ends_at_once_is_reported_in_order,
        scenarios::many_at_once_are_all_seen,
        scenarios::one_run_follows_the_other,
        scenarios::what_is_stopped_before_it_began_is_never_executed,
        scenarios::what_is_stopped_while_it_begins_ends,
        scenarios::a_run_that_is_over_can_be_stopped_again,
        overlapping::a_run_beside_another_is_told_from_it;
        daemons::order_is_that_of_the_graph,
        daemons::a_crashing_process_is_delayed_and_given_up,
        daemons::a_stop_is_over_when_nothing_is_left,
        daemons::one_shots_run_once,
        daemons::a_reload_touches_what_changed,
        daemons::nobody_is_taken_down_for_a_run_that_could_not_begin,
        daemons::health_is_asked_for_and_acted_on,
        overlapping::a_new_run_begins_beside_the_old_one,
        daemons::a_killed_daemon_is_followed,
        daemons::what_ends_while_there_is_no_daemon_is_started_again,
        daemons::what_nobody_knows_of_is_ended_before_anything_starts,
    }
}
