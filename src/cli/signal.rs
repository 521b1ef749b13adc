//! Sending signals.

use super::args::{Signal as Args, Whom};
use super::screen::Screen;
use super::{CliError, Outcome, exit::Exit, names::Names};
use crate::client::Client;
use nix::sys::signal::Signal;
use std::str::FromStr;

/// Sends a signal to what the names stand for.
pub async fn run(client: &Client, args: &Args, screen: &mut Screen) -> Outcome {
    let (signal, written) = split(args)?;
    let number = number(signal)?;
    let names = Names::ask(client).await?;
    for remark in names.remarks(written) {
        screen.note(remark);
    }
    let whom = match args.whom {
        Whom::Main => "main",
        Whom::All => "all",
    };
    let targets = client.status(written).await?;
    let mut exit = Exit::Ok;
    let mut rows = Vec::new();
    for status in &targets {
        let shown = names.show(&status.id);
        let sent = client.signal(&status.id, whom, number).await;
        let failure = sent.as_ref().err().map(ToString::to_string);
        if screen.json() {
            rows.push(serde_json::json!({
                "id": status.id, "name": shown, "success": failure.is_none(), "detail": failure,
            }));
        }
        match failure {
            Some(why) => {
                screen.error(format_args!("{shown}: the signal was not sent: {why}"));
                exit = Exit::Failed;
            }
            None if screen.json() || screen.quiet => {}
            None => screen.line(format_args!("{shown}: {} sent", name(number)))?,
        }
    }
    if screen.json() {
        screen.value(&rows.into())?;
    }
    Ok(exit)
}

/// The signal and the names: the signal is an option or the first word.
fn split(args: &Args) -> Result<(&str, &[String]), CliError> {
    match (&args.signal, args.words.as_slice()) {
        (Some(signal), names) => Ok((signal, names)),
        (None, [signal, names @ ..]) if !names.is_empty() => Ok((signal, names)),
        _ => Err(CliError::Usage(
            "say which signal and to which process, such as: provost signal HUP api".to_owned(),
        )),
    }
}

/// Reads `HUP`, `SIGHUP`, `hup` or a number.
fn number(text: &str) -> Result<i32, CliError> {
    let upper = text.to_ascii_uppercase();
    let full = if upper.starts_with("SIG") { upper.clone() } else { format!("SIG{upper}") };
    if let Ok(signal) = Signal::from_str(&full) {
        return Ok(signal as i32);
    }
    match upper.parse::<i32>() {
        Ok(number @ 1..=64) => Ok(number),
        _ => Err(CliError::Usage(format!(
            "`{text}` is no signal: write HUP, SIGHUP, or a number from 1 to 64"
        ))),
    }
}

fn name(number: i32) -> String {
    Signal::try_from(number)
        .map_or_else(|_| format!("signal {number}"), |signal| signal.as_str().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(signal: Option<&str>, words: &[&str]) -> Args {
        Args {
            signal: signal.map(str::to_owned),
            whom: Whom::Main,
            words: words.iter().map(|w| (*w).to_owned()).collect(),
        }
    }

    #[test]
    fn the_signal_is_an_option_or_the_first_word() {
        assert_eq!(split(&args(None, &["HUP", "api"])).unwrap(), ("HUP", &["api".to_owned()][..]));
        assert_eq!(split(&args(Some("HUP"), &["api"])).unwrap(), ("HUP", &["api".to_owned()][..]));
        assert!(matches!(split(&args(None, &["HUP"])), Err(CliError::Usage(_))));
    }

    #[test]
    fn signals_have_names_and_numbers() {
        for (text, expected) in [("HUP", 1), ("SIGHUP", 1), ("hup", 1), ("15", 15), ("64", 64)] {
            assert_eq!(number(text).unwrap(), expected, "{text}");
        }
        for bad in ["", "api", "0", "65", "-1", "SIG", "1.5"] {
            assert!(matches!(number(bad), Err(CliError::Usage(_))), "{bad}");
        }
        assert_eq!(name(15), "SIGTERM");
        assert_eq!(name(40), "signal 40");
    }
}
