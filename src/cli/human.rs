//! Times and amounts, as people write and read them.

use jiff::{Timestamp, Zoned, civil, tz::TimeZone};
use std::time::{Duration, SystemTime};

/// A span in at most two units: `3d4h`, `2m05s`, `12s`, `1.5s`, `350ms`.
#[must_use]
pub fn duration(span: Duration) -> String {
    let (secs, millis) = (span.as_secs(), span.subsec_millis());
    match secs {
        0 => format!("{millis}ms"),
        1..=9 if millis >= 50 => format!("{:.1}s", span.as_secs_f64()),
        1..=59 => format!("{secs}s"),
        60..=3599 => format!("{}m{:02}s", secs / 60, secs % 60),
        3600..=86_399 => format!("{}h{:02}m", secs / 3600, secs % 3600 / 60),
        _ => format!("{}d{:02}h", secs / 86_400, secs % 86_400 / 3600),
    }
}

/// A span in whole seconds, for what goes on while somebody looks at it.
#[must_use]
pub fn seconds(span: Duration) -> String {
    duration(Duration::from_secs(span.as_secs())).replace("0ms", "0s")
}

/// How long ago; `now` for less than a second and for what a clock put in the future.
#[must_use]
pub fn ago(at: SystemTime, now: SystemTime) -> String {
    match now.duration_since(at) {
        Ok(span) if span.as_secs() > 0 => format!("{} ago", seconds(span)),
        _ => "now".to_owned(),
    }
}

/// An amount of memory in powers of 1024: `512K`, `12.3M`.
#[must_use]
pub fn bytes(amount: u64) -> String {
    const UNITS: [&str; 5] = ["K", "M", "G", "T", "P"];
    if amount < 1024 {
        return format!("{amount}B");
    }
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut value = amount as f64 / 1024.0;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if value < 9.95 && unit > 0 {
        format!("{value:.1}{}", UNITS[unit])
    } else {
        format!("{value:.0}{}", UNITS[unit])
    }
}

/// A point in time on this machine's clock: the time of day, with the date unless it is today.
#[must_use]
pub fn clock(at: SystemTime) -> String {
    clock_in(at, SystemTime::now(), &TimeZone::system())
}

fn clock_in(at: SystemTime, now: SystemTime, zone: &TimeZone) -> String {
    let (Ok(at), Ok(now)) = (Timestamp::try_from(at), Timestamp::try_from(now)) else {
        return "?".to_owned();
    };
    let (at, now) = (at.to_zoned(zone.clone()), now.to_zoned(zone.clone()));
    let format = if at.date() == now.date() { "%H:%M:%S" } else { "%Y-%m-%d %H:%M:%S" };
    at.strftime(format).to_string()
}

/// A point in time for programs: RFC 3339, in UTC, to the millisecond.
#[must_use]
pub fn rfc3339(at: SystemTime) -> Option<String> {
    let at = Timestamp::try_from(at).ok()?;
    Some(at.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string())
}

/// Reads a span: `500ms`, `5s`, `2m30s`, `1h`. A bare number is refused: it is seconds to some tools
/// and milliseconds to the file.
///
/// # Errors
/// Says what would be understood.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    const HOW: &str = "write a time with its unit, such as 500ms, 30s, 2m30s or 1h";
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(HOW.to_owned());
    }
    if rest.bytes().all(|b| b.is_ascii_digit()) {
        return Err(if rest == "0" {
            return Ok(Duration::ZERO);
        } else {
            format!("{HOW}; did you mean {rest}s?")
        });
    }
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or(HOW)?;
        let number: f64 = rest[..digits].parse().map_err(|_| HOW)?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let factor = match &rest[..letters] {
            "ms" => 0.001,
            "s" | "sec" => 1.0,
            "m" | "min" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            _ => return Err(HOW.to_owned()),
        };
        rest = &rest[letters..];
        let span = Duration::try_from_secs_f64(number * factor).map_err(|_| HOW)?;
        total = total.checked_add(span).ok_or(HOW)?;
    }
    Ok(total)
}

/// Reads a point in the past: a span (`10m` is ten minutes ago), a time of today, a date, or both.
///
/// # Errors
/// Says what would be understood.
pub fn parse_since(text: &str, now: SystemTime) -> Result<SystemTime, String> {
    since_in(text.trim(), now, &TimeZone::system())
}

fn since_in(text: &str, now: SystemTime, zone: &TimeZone) -> Result<SystemTime, String> {
    const HOW: &str = "write a time such as 10m (ten minutes ago), 14:05, 2026-08-21, \
                       \"2026-08-21 14:05\" or today";
    if let Ok(span) = parse_duration(text) {
        return now.checked_sub(span).ok_or_else(|| HOW.to_owned());
    }
    let today = Timestamp::try_from(now).map_err(|_| HOW)?.to_zoned(zone.clone()).date();
    let midnight = civil::Time::midnight();
    let at = if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at.into());
    } else if text == "today" {
        today.to_datetime(midnight)
    } else if text == "yesterday" {
        today.yesterday().map_err(|_| HOW)?.to_datetime(midnight)
    } else if let Some(time) = time_of_day(text) {
        today.to_datetime(time)
    } else if let Some((date, time)) = text.split_once([' ', 'T']) {
        let date = date.parse::<civil::Date>().map_err(|_| HOW)?;
        date.to_datetime(time_of_day(time.trim()).ok_or(HOW)?)
    } else {
        text.parse::<civil::Date>().map_err(|_| HOW)?.to_datetime(midnight)
    };
    let at: Zoned = at.to_zoned(zone.clone()).map_err(|_| HOW)?;
    Ok(at.timestamp().into())
}

/// `14:05` or `14:05:30`.
fn time_of_day(text: &str) -> Option<civil::Time> {
    let mut parts = text.split(':').map(|part| part.parse::<i8>().ok());
    let (hour, minute) = (parts.next()??, parts.next()??);
    let second = match parts.next() {
        None => 0,
        Some(second) => second?,
    };
    if parts.next().is_some() {
        return None;
    }
    civil::Time::new(hour, minute, second, 0).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_two_units_at_most() {
        for (millis, text) in [
            (0, "0ms"),
            (350, "350ms"),
            (1000, "1s"),
            (1500, "1.5s"),
            (12_345, "12s"),
            (59_999, "59s"),
            (60_000, "1m00s"),
            (150_000, "2m30s"),
            (3_600_000, "1h00m"),
            (90_000_000, "1d01h"),
        ] {
            assert_eq!(duration(Duration::from_millis(millis)), text, "{millis}");
        }
        assert_eq!(seconds(Duration::from_millis(900)), "0s");
        assert_eq!(seconds(Duration::from_millis(1900)), "1s");
        assert_eq!(seconds(Duration::from_secs(70)), "1m10s");
    }

    #[test]
    fn amounts_have_three_digits_at_most() {
        for (amount, text) in [
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1K"),
            (1024 * 1024, "1.0M"),
            (12_900_000, "12M"),
            (1024 * 1024 * 1000, "1.0G"),
            (5 * 1024 * 1024 * 1024, "5.0G"),
        ] {
            assert_eq!(bytes(amount), text, "{amount}");
        }
    }

    #[test]
    fn durations_are_read_with_their_unit() {
        for (text, millis) in
            [("500ms", 500), ("5s", 5000), ("2m30s", 150_000), ("1.5h", 5_400_000), ("0", 0)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for bad in ["", "5", "s", "5x", "-5s", "5s3", "1e400s", "..s", "99999999999999999999d"] {
            assert!(parse_duration(bad).is_err(), "{bad:?}");
        }
        assert!(parse_duration("30").unwrap_err().contains("did you mean 30s"));
    }

    #[test]
    fn points_in_time_are_read() {
        let zone = TimeZone::UTC;
        let now: SystemTime = "2026-08-21T12:00:00Z".parse::<Timestamp>().unwrap().into();
        for (text, expected) in [
            ("10m", "2026-08-21T11:50:00Z"),
            ("08:30", "2026-08-21T08:30:00Z"),
            ("08:30:15", "2026-08-21T08:30:15Z"),
            ("today", "2026-08-21T00:00:00Z"),
            ("yesterday", "2026-08-20T00:00:00Z"),
            ("2026-08-20", "2026-08-20T00:00:00Z"),
            ("2026-08-20 09:05", "2026-08-20T09:05:00Z"),
            ("2026-08-20T09:05:00Z", "2026-08-20T09:05:00Z"),
        ] {
            let expected: SystemTime = expected.parse::<Timestamp>().unwrap().into();
            assert_eq!(since_in(text, now, &zone), Ok(expected), "{text}");
        }
        for bad in ["", "noon", "25:00", "2026-13-01", "1:2:3:4", "2026-08-20 x"] {
            assert!(since_in(bad, now, &zone).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_date_is_left_out_today() {
        let now: SystemTime = "2026-08-21T12:00:00Z".parse::<Timestamp>().unwrap().into();
        let before = now - Duration::from_secs(3600);
        let long_before = now - Duration::from_secs(86_400);
        assert_eq!(clock_in(before, now, &TimeZone::UTC), "11:00:00");
        assert_eq!(clock_in(long_before, now, &TimeZone::UTC), "2026-08-20 12:00:00");
        assert_eq!(rfc3339(now).as_deref(), Some("2026-08-21T12:00:00.000Z"));
    }
}
