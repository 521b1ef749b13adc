//! On real systems: the package is installed on a machine of its own for each test, with systemd as
//! its first process, and driven as people drive it.
#![allow(missing_docs, clippy::unwrap_used)]

mod bus;
mod files;
mod image;
mod install;
mod journal;
mod kills;
mod machine;
mod network;
mod package;
mod power;
mod sandbox;
mod survive;
mod systemctl;
mod user;

use image::Debian;

/// A test that could not run says why; under CI that is a failure.
fn cannot<T>(why: &str) -> Option<T> {
    assert!(std::env::var_os("CI").is_none(), "{why}");
    eprintln!("skipped: {why}");
    None
}

/// Each scenario on each of these systems.
macro_rules! on {
    ($($system:ident: $debian:expr, $backend:literal => $($module:ident::$scenario:ident),+;)+) => {$(
        mod $system {
            use super::*;
            $(#[test]
            fn $scenario() {
                $module::$scenario($debian, $backend);
            })+
        }
    )+};
}

on! {
    debian_12: Debian::Bookworm, "native" =>
        install::installs_starts_and_goes_without_a_trace,
        sandbox::a_sandbox_that_holds_for_processes_is_told,
        systemctl::starts_reloads_and_stops,
        systemctl::a_stop_takes_the_time_it_needs_and_no_more,
        survive::every_way_to_end_the_daemon_leaves_its_processes,
        survive::another_program_goes_on_in_the_same_process,
        survive::what_processes_hold_and_say_outlives_the_daemon,
        kills::ten_of_them_lose_nothing_and_double_nothing,
        bus::is_asked_told_and_watched,
        journal::shows_what_happened_and_what_to_do,
        power::off_goes_by_the_graph_and_on_starts_it_again,
        files::files_of_a_user_are_theirs,
        sandbox::the_sandbox_is_the_daemons_alone,
        user::a_user_has_their_own;
    debian_13: Debian::Trixie, "native" =>
        install::installs_starts_and_goes_without_a_trace,
        systemctl::starts_reloads_and_stops,
        systemctl::a_stop_takes_the_time_it_needs_and_no_more,
        survive::every_way_to_end_the_daemon_leaves_its_processes,
        survive::another_program_goes_on_in_the_same_process,
        survive::what_processes_hold_and_say_outlives_the_daemon,
        kills::ten_of_them_lose_nothing_and_double_nothing,
        bus::is_asked_told_and_watched,
        journal::shows_what_happened_and_what_to_do,
        power::off_goes_by_the_graph_and_on_starts_it_again,
        files::files_of_a_user_are_theirs,
        sandbox::the_sandbox_is_the_daemons_alone,
        user::a_user_has_their_own;
    debian_12_systemd: Debian::Bookworm, "systemd" =>
        systemctl::starts_reloads_and_stops,
        systemctl::a_stop_takes_the_time_it_needs_and_no_more,
        survive::every_way_to_end_the_daemon_leaves_its_processes,
        survive::another_program_goes_on_in_the_same_process,
        survive::what_processes_hold_and_say_outlives_the_daemon,
        kills::ten_of_them_lose_nothing_and_double_nothing,
        bus::is_asked_told_and_watched,
        journal::shows_what_happened_and_what_to_do,
        power::off_goes_by_the_graph_and_on_starts_it_again,
        files::files_of_a_user_are_theirs,
        sandbox::the_sandbox_is_the_daemons_alone,
        network::is_not_the_daemons,
        user::a_user_has_their_own;
    debian_13_systemd: Debian::Trixie, "systemd" =>
        systemctl::starts_reloads_and_stops,
        systemctl::a_stop_takes_the_time_it_needs_and_no_more,
        survive::every_way_to_end_the_daemon_leaves_its_processes,
        survive::another_program_goes_on_in_the_same_process,
        survive::what_processes_hold_and_say_outlives_the_daemon,
        kills::ten_of_them_lose_nothing_and_double_nothing,
        bus::is_asked_told_and_watched,
        journal::shows_what_happened_and_what_to_do,
        power::off_goes_by_the_graph_and_on_starts_it_again,
        files::files_of_a_user_are_theirs,
        sandbox::the_sandbox_is_the_daemons_alone,
        network::is_not_the_daemons,
        network::an_address_that_somebody_has_is_found,
        user::a_user_has_their_own;
    debian_13_with_dbus_broker: Debian::TrixieBroker, "native" =>
        install::installs_starts_and_goes_without_a_trace,
        bus::is_asked_told_and_watched;
}
