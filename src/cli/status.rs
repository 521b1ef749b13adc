//! `status`: a table of all, or a page about one.

use super::args::{Format, Status as Args};
use super::screen::{Screen, Tone, visible};
use super::table::{Cell, Table};
use super::target::Found;
use super::{CliError, Outcome, exit::Exit, human, json, names::Names, state, why};
use crate::client::{Limits, ManagerStatus, ProcessStatus};
use std::io;
use std::time::SystemTime;

/// Shows what runs.
pub async fn run(args: &Args, found: &Found, screen: &mut Screen) -> Outcome {
    let client = &found.client;
    let all = client.status(&[]).await?;
    let names = Names::new(all.iter().map(|status| status.id.as_str()));
    let mut chosen = if args.names.is_empty() { all } else { client.status(&args.names).await? };
    let up = chosen.iter().filter(|s| state::is_wanted(s)).all(state::is_up);
    let manager = client.manager().await?;
    let exit = if up && !has_nothing(&manager) { Exit::Ok } else { Exit::NotUp };
    if args.failed {
        chosen.retain(|status| !state::is_up(status) && state::is_wanted(status));
    }
    if screen.json() {
        let rows = chosen.iter().map(|status| json::process(status, names.show(&status.id)));
        screen.value(&rows.collect())?;
        return Ok(exit);
    }
    if screen.quiet {
        return Ok(exit);
    }
    for remark in names.remarks(&args.names) {
        screen.note(remark);
    }
    let page = args.names.len() == 1 && chosen.len() == 1 && !args.failed;
    if page {
        print_page(&chosen[0], &names, screen)?;
        return Ok(exit);
    }
    heading(&manager, &found.whose, screen);
    if chosen.is_empty() {
        screen.note(nothing(args, &manager));
    } else {
        print_table(&chosen, &names, screen)?;
    }
    Ok(exit)
}

/// Whether no file could be used yet: nothing is wanted, for nobody knows what.
fn has_nothing(manager: &ManagerStatus) -> bool {
    manager.generation == 0
}

/// Which daemon, and what it thinks of its files.
fn heading(manager: &ManagerStatus, whose: &str, screen: &mut Screen) {
    let now = SystemTime::now();
    let mut text = whose.to_owned();
    if manager.generation == 0 {
        text.push_str(": no configuration yet");
    } else {
        text.push_str(&format!(": generation {}", manager.generation));
        if let Some(at) = manager.last_reloaded {
            text.push_str(&format!(", applied {}", human::ago(at, now)));
        }
    }
    if matches!(manager.system_state.as_str(), "reloading" | "stopping") {
        text.push_str(&format!(", {}", manager.system_state));
    }
    let text = screen.err_style.paint(Tone::Quiet, text);
    screen.note(text);
    if !manager.config_detail.is_empty() {
        let tone = match manager.config_state.as_str() {
            "applying" => Tone::Quiet,
            _ => Tone::Bad,
        };
        let text = screen.err_style.paint(tone, visible(&manager.config_detail));
        screen.note(text);
    }
    if !manager.valid {
        let runs = if has_nothing(manager) { "nothing runs" } else { "what runs is of before" };
        let file = &manager.config_file;
        let text = format!("{file} is not valid; {runs}: see `provost check {file}`");
        let text = screen.err_style.paint(Tone::Bad, text);
        screen.note(text);
    }
}

fn nothing(args: &Args, manager: &ManagerStatus) -> String {
    if !manager.valid {
        "no processes: correct the file and save it".to_owned()
    } else if args.failed {
        "all that is wanted is up".to_owned()
    } else {
        format!("no processes: put one into {} and save it", manager.config_file)
    }
}

fn print_table(chosen: &[ProcessStatus], names: &Names, screen: &mut Screen) -> io::Result<()> {
    let wide = screen.format == Format::Wide;
    let mut heads = vec!["NAME", "STATE", "HEALTH", "PID", "UPTIME", "RESTARTS", "CPU", "MEMORY"];
    if wide {
        heads.extend(["TASKS", "LIMITS", "EXIT", "GENERATION", "LOG", "CGROUP"]);
    }
    heads.push("WHY");
    let spare: &[&str] =
        if wide { &[] } else { &["CPU", "MEMORY", "RESTARTS", "UPTIME", "HEALTH"] };
    let mut table = Table::new(&heads).sparing(spare);
    let now = SystemTime::now();
    for status in chosen {
        let (word, tone) = state::word(status, screen.style);
        let health = if status.health == "none" { "-" } else { &status.health };
        let mut cells = vec![
            Cell::text(names.show(&status.id)),
            Cell::text(word).tone(tone),
            Cell::text(health).tone(state::health_tone(health)),
            Cell::number(status.pid),
            Cell::number(state::uptime(status, now).map(human::seconds)),
            Cell::number(Some(status.restarts)),
            Cell::number(status.cpu.map(human::duration)),
            Cell::number(status.memory.map(human::bytes)),
        ];
        if wide {
            cells.extend([
                Cell::number(status.tasks),
                Cell::text(or_dash(&limits(&status.limits, "-"))),
                Cell::text(status.exit.map_or_else(|| "-".to_owned(), state::ended)),
                Cell::number(Some(status.generation)),
                Cell::text(or_dash(&status.log_kind)),
                Cell::text(or_dash(&status.control_group)),
            ]);
        }
        cells.push(Cell::text(if state::is_up(status) && !status.needs_restart {
            String::new()
        } else {
            state::why(status)
        }));
        table.row(cells);
    }
    table.print(screen)
}

/// The limits of the file, with a dash for each that does not hold.
fn limits(limits: &Limits, dash: &str) -> String {
    let values = [
        ("memory", limits.memory.map(human::bytes)),
        ("memoryHigh", limits.memory_high.map(human::bytes)),
        ("cpu", limits.cpu.map(|processors| processors.to_string())),
        ("tasks", limits.tasks.map(|tasks| tasks.to_string())),
        ("maxMemoryRestart", limits.max_memory_restart.map(human::bytes)),
    ];
    let shown = values.into_iter().filter_map(|(key, value)| {
        let is_loose = limits.unenforced.iter().any(|loose| loose == key);
        let value = value?;
        Some(if is_loose { format!("{key} {dash}") } else { format!("{key} {value}") })
    });
    shown.collect::<Vec<_>>().join(", ")
}

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

/// All about one instance.
fn print_page(status: &ProcessStatus, names: &Names, screen: &mut Screen) -> Result<(), CliError> {
    let now = SystemTime::now();
    let style = screen.style;
    let (word, tone) = state::word(status, style);
    let shown = names.show(&status.id);
    let title = style.paint(Tone::Strong, shown).to_string();
    let about = [&status.display_name, &status.description];
    let about: Vec<&str> =
        about.into_iter().map(String::as_str).filter(|text| !text.is_empty()).collect();
    let dash = if style.unicode { " — " } else { " - " };
    screen.line(format_args!(
        "{title}{}{}",
        if about.is_empty() { "" } else { dash },
        visible(&about.join(": "))
    ))?;
    let since =
        status.since.map(|at| format!(" since {} ({})", human::clock(at), human::ago(at, now)));
    let mut rows: Vec<(&str, String)> =
        vec![("state", format!("{}{}", style.paint(tone, word), since.unwrap_or_default()))];
    let mut add = |label, text: String| {
        if !text.is_empty() {
            rows.push((label, visible(&text)));
        }
    };
    add("why", state::why(status));
    add("wanted", wanted(status).to_owned());
    add("health", health(status, now));
    add("pid", status.pid.map(|pid| pid.to_string()).unwrap_or_default());
    add("overlap pid", status.overlap_pid.map(|pid| pid.to_string()).unwrap_or_default());
    add("uptime", state::uptime(status, now).map(human::seconds).unwrap_or_default());
    add("restarts", status.restarts.to_string());
    let ended = status.exit.map(state::ended).unwrap_or_default();
    let oom = if status.result == "oom-kill" { " (out of memory)" } else { "" };
    add("last exit", format!("{ended}{oom}"));
    add("cpu", status.cpu.map(human::duration).unwrap_or_default());
    add("memory", status.memory.map(human::bytes).unwrap_or_default());
    add("tasks", status.tasks.map(|tasks| tasks.to_string()).unwrap_or_default());
    add("limits", limits(&status.limits, if style.unicode { "–" } else { "-" }));
    add("not enforced", status.limits.unenforced.join(", "));
    add("cgroup", status.control_group.clone());
    add("generation", status.generation.to_string());
    add("tags", status.tags.join(", "));
    add("environment", status.environment_names.join(", "));
    add("log", status.log_kind.clone());
    for (label, text) in rows {
        screen.line(format_args!("{label:>13}: {text}"))?;
    }
    if !status.history.is_empty() {
        screen.line("")?;
        why::history(status, screen)?;
    }
    Ok(())
}

fn wanted(status: &ProcessStatus) -> &'static str {
    match (status.enabled, status.desired.as_str()) {
        (true, "up") => "up",
        (false, "up") => "up, once (the file disables it)",
        (true, _) if never_ran(status) => "down (not started yet; autoStart is false)",
        (true, _) => "down (stopped by hand)",
        (false, _) => "down (the file disables it)",
    }
}

/// Nothing was ever asked of it: then nobody has stopped it either.
fn never_ran(status: &ProcessStatus) -> bool {
    status.history.is_empty() && status.exit.is_none() && status.started.is_none()
}

fn health(status: &ProcessStatus, now: SystemTime) -> String {
    if status.health == "none" || status.health.is_empty() {
        return String::new();
    }
    let mut text = status.health.clone();
    if status.health != "healthy" && !status.health_detail.is_empty() {
        text.push_str(&format!(": {}", status.health_detail));
    }
    if let Some(at) = status.last_check {
        text.push_str(&format!(" (checked {})", human::ago(at, now)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_does_not_hold_is_a_dash() {
        assert_eq!(limits(&Limits::default(), "–"), "");
        let all = Limits {
            memory: Some(512 << 20),
            cpu: Some(1.5),
            tasks: Some(200),
            unenforced: vec!["cpu".to_owned()],
            ..Limits::default()
        };
        assert_eq!(limits(&all, "–"), "memory 512M, cpu –, tasks 200");
    }
}
