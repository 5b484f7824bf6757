//! Moments that are written in words: month names, zones behind the time, dates with slashes.
//!
//! The text is taken apart at blanks; every word must be a date, a time, a zone or a part of one,
//! and nothing may be said twice. So no order of words has to be known, and what is not understood
//! to the last word is not read.

use jiff::civil::{Date, ISOWeekDate, Time, Weekday};
use jiff::tz::TimeZone;

use super::{ParsedTimestamp, digits};
use crate::coerce::offset::offset;
use crate::coerce::zone;

/// The parts that were found.
#[derive(Default)]
struct DateTimeParts {
    year: Option<i16>,
    month: Option<i8>,
    day: Option<i8>,
    date: Option<Date>,
    /// Two digits, which need a weekday to be told from other things.
    short_year: Option<i16>,
    weekday: Option<Weekday>,
    time: Option<Time>,
    noon: Option<DayHalf>,
    zone: Option<TimeZone>,
    /// A zone's short name, for where there is no offset.
    short_zone: Option<TimeZone>,
    unknown_zone: bool,
}

#[derive(Clone, Copy)]
enum DayHalf {
    Am,
    Pm,
}

/// Reads a moment.
pub(super) fn parse(text: &str, default: &TimeZone) -> Option<ParsedTimestamp> {
    let text = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    let mut parts = DateTimeParts::default();
    for word in without_comments(text).split_whitespace() {
        let word = word.trim_end_matches(',');
        if !word.is_empty() {
            parts.take(word)?;
        }
    }
    parts.finish(default)
}

/// Without what stands in parentheses.
fn without_comments(text: &str) -> String {
    let mut depth = 0_u32;
    text.chars()
        .filter(|c| match c {
            '(' => {
                depth += 1;
                false
            }
            ')' => {
                depth = depth.saturating_sub(1);
                false
            }
            _ => depth == 0,
        })
        .collect()
}

/// Sets what is not set yet; what is said twice is not understood.
fn set<T>(place: &mut Option<T>, value: T) -> Option<()> {
    match place {
        Some(_) => None,
        None => {
            *place = Some(value);
            Some(())
        }
    }
}

impl DateTimeParts {
    /// Takes a word; `None` where it is not understood.
    fn take(&mut self, word: &str) -> Option<()> {
        if let Some(day) = weekday(word) {
            return set(&mut self.weekday, day);
        }
        if let Some(month) = month(word) {
            return set(&mut self.month, month);
        }
        if let Some(half) = half(word) {
            return set(&mut self.noon, half);
        }
        // Go's monotonic clock says nothing about the calendar.
        if word.starts_with("m=+") || word.starts_with("m=-") {
            return Some(());
        }
        if word.starts_with(['+', '-']) {
            let zone = TimeZone::fixed(offset(word)?);
            // Go writes the offset twice where the zone has no name: `-0300 -03`.
            if self.zone.as_ref() == Some(&zone) {
                return Some(());
            }
            return set(&mut self.zone, zone);
        }
        if word.as_bytes()[0].is_ascii_digit() {
            return self.take_digits(word);
        }
        self.take_zone(word)
    }

    fn take_digits(&mut self, word: &str) -> Option<()> {
        if word.bytes().all(|b| b.is_ascii_digit()) {
            return match word.len() {
                1 | 2 => set(&mut self.day, word.parse().ok()?),
                4 => set(&mut self.year, word.parse().ok()?),
                6 if self.date.is_some() => {
                    let part = |from: usize| word.get(from..from + 2)?.parse().ok();
                    set(&mut self.time, Time::new(part(0)?, part(2)?, part(4)?, 0).ok()?)
                }
                8 => set(&mut self.date, digits::date(word)?),
                _ => None,
            };
        }
        if let Some(day) = ordinal(word) {
            return set(&mut self.day, day);
        }
        if let Some((date, time)) = split_date_and_time(word) {
            self.take_date(date)?;
            return self.take_time(time);
        }
        if word.contains(':') && word.find(':').is_some_and(|at| at <= 2) {
            return self.take_time(word);
        }
        self.take_date(word)
    }

    /// `2024-05-21`, `2024/05/21`, `2024.05.21`, `2024:05:21`, `2024-W21-2`, `2024-142`,
    /// `21-May-2024`, `21/May/2024`, and with a weekday `21-May-24`.
    fn take_date(&mut self, word: &str) -> Option<()> {
        // Only a date that says where it is may have a zone at its end.
        let word = match word.strip_suffix(['Z', 'z']) {
            Some(date) => {
                set(&mut self.zone, TimeZone::UTC)?;
                date
            }
            None => word,
        };
        let parts: Vec<&str> = word.split(['-', '/', '.', ':']).collect();
        let number = |text: &str| -> Option<i16> {
            let plain = text.len() <= 4 && text.bytes().all(|b| b.is_ascii_digit());
            plain.then(|| text.parse().ok()).flatten()
        };
        match *parts.as_slice() {
            [year, week, day] if year.len() == 4 && week.starts_with(['W', 'w']) => {
                let week = i8::try_from(number(&week[1..])?).ok()?;
                let day = i8::try_from(number(day)?).ok()?;
                let day = Weekday::from_monday_one_offset(day).ok()?;
                let date = ISOWeekDate::new(number(year)?, week, day).ok()?.date();
                set(&mut self.date, date)
            }
            [year, day] if year.len() == 4 && day.len() == 3 => {
                let day = number(day)?;
                let date = Date::new(number(year)?, 1, 1).ok()?;
                let date = date.with().day_of_year(day).build().ok()?;
                set(&mut self.date, date)
            }
            [year, month, day] if year.len() == 4 => {
                let small = |text: &str| i8::try_from(number(text)?).ok();
                let date = Date::new(number(year)?, small(month)?, small(day)?).ok()?;
                set(&mut self.date, date)
            }
            [day, name, year] => {
                set(&mut self.month, month(name)?)?;
                set(&mut self.day, i8::try_from(number(day)?).ok()?)?;
                match year.len() {
                    4 => set(&mut self.year, number(year)?),
                    2 => set(&mut self.short_year, number(year)?),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// `10:11`, `10:11:12`, `10:11:12.5`, `10:11AM`, each with a zone behind it or not.
    fn take_time(&mut self, word: &str) -> Option<()> {
        let end = word.find(|c: char| !c.is_ascii_digit() && !":.,".contains(c));
        let (clock, behind) = word.split_at(end.unwrap_or(word.len()));
        if !behind.is_empty() {
            self.take(behind)?;
        }
        let (clock, fraction) = match clock.split_once(['.', ',']) {
            Some((clock, fraction)) => (clock, fraction),
            None => (clock, ""),
        };
        if fraction.len() > 12 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let fields: Vec<&str> = clock.split(':').collect();
        let (hour, minute, second) = match *fields.as_slice() {
            [hour, minute] if fraction.is_empty() => (hour, minute, "0"),
            [hour, minute, second] => (hour, minute, second),
            _ => return None,
        };
        let number = |text: &str| -> Option<i8> {
            ((1..=2).contains(&text.len())).then(|| text.parse().ok()).flatten()
        };
        // A leap second is read as the second before it.
        let second = number(second)?;
        let second = if second == 60 { 59 } else { second };
        let nanos = (0..9).fold(0_i32, |nanos, place| {
            let digit = fraction.as_bytes().get(place).map_or(0, |digit| digit - b'0');
            nanos * 10 + i32::from(digit)
        });
        set(&mut self.time, Time::new(number(hour)?, number(minute)?, second, nanos).ok()?)
    }

    /// `UTC`, `GMT+0200`, `CEST`, `Europe/Warsaw`, in brackets or not.
    fn take_zone(&mut self, word: &str) -> Option<()> {
        let word = word.strip_prefix('[').and_then(|w| w.strip_suffix(']')).unwrap_or(word);
        if word.contains('/') {
            return set(&mut self.zone, zone::find(word)?);
        }
        let upper = word.to_ascii_uppercase();
        for utc in ["UTC", "GMT", "UT", "Z"] {
            match upper.strip_prefix(utc) {
                Some("") => return set(&mut self.short_zone, TimeZone::UTC),
                Some(behind) if behind.starts_with(['+', '-']) => {
                    return set(&mut self.zone, TimeZone::fixed(offset(behind)?));
                }
                _ => {}
            }
        }
        let is_name =
            (2..=5).contains(&upper.len()) && upper.bytes().all(|b| b.is_ascii_uppercase());
        if !is_name {
            return None;
        }
        match known_short_name(&upper) {
            Some(known) => set(&mut self.short_zone, TimeZone::fixed(offset(known)?)),
            // Beside an offset it is only a name.
            None if self.unknown_zone => None,
            None => {
                self.unknown_zone = true;
                Some(())
            }
        }
    }

    fn finish(self, default: &TimeZone) -> Option<ParsedTimestamp> {
        let date = match (self.date, self.year, self.short_year, self.month, self.day) {
            (Some(date), None, None, None, None) => date,
            (None, Some(year), None, Some(month), Some(day)) => Date::new(year, month, day).ok()?,
            (None, None, Some(year), Some(month), Some(day)) if self.weekday.is_some() => {
                let century = if year < 70 { 2000 } else { 1900 };
                Date::new(century + year, month, day).ok()?
            }
            _ => return None,
        };
        if self.weekday.is_some_and(|weekday| weekday != date.weekday()) {
            return None;
        }
        let time = match (self.time, self.noon) {
            (Some(time), Some(half)) => twelve_hours(time, half)?,
            (Some(time), None) => time,
            (None, Some(_)) => return None,
            (None, None) => Time::midnight(),
        };
        let zone = match (self.zone, self.short_zone) {
            (Some(zone), _) => zone,
            (None, _) if self.unknown_zone => return None,
            (None, Some(zone)) => zone,
            (None, None) => default.clone(),
        };
        ParsedTimestamp::in_zone(date.to_datetime(time), &zone)
    }
}

/// A date and a time in one word: at a `T`, or at the colon of Apache's logs.
fn split_date_and_time(word: &str) -> Option<(&str, &str)> {
    let at = word.find(['T', 't']).filter(|at| {
        let bytes = word.as_bytes();
        let is_digit = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_digit);
        *at > 0 && is_digit(bytes.get(at - 1)) && is_digit(bytes.get(at + 1))
    });
    if let Some(at) = at {
        return Some((&word[..at], &word[at + 1..]));
    }
    let colon = word.find(':')?;
    let (date, time) = (&word[..colon], &word[colon + 1..]);
    (date.contains('/') && time.contains(':')).then_some((date, time))
}

/// `1st`, `22nd`, `3rd`, `21th`.
fn ordinal(word: &str) -> Option<i8> {
    let digits = ["st", "nd", "rd", "th"].iter().find_map(|ending| word.strip_suffix(ending))?;
    let plain = (1..=2).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

fn twelve_hours(time: Time, half: DayHalf) -> Option<Time> {
    let hour = match (time.hour(), half) {
        (12, DayHalf::Am) => 0,
        (12, DayHalf::Pm) => 12,
        (hour @ 1..=11, DayHalf::Am) => hour,
        (hour @ 1..=11, DayHalf::Pm) => hour + 12,
        _ => return None,
    };
    time.with().hour(hour).build().ok()
}

fn half(word: &str) -> Option<DayHalf> {
    match word.to_ascii_lowercase().as_str() {
        "am" | "a.m." => Some(DayHalf::Am),
        "pm" | "p.m." => Some(DayHalf::Pm),
        _ => None,
    }
}

/// Whether a word is a name, or its first three letters.
fn is_name(word: &str, name: &str) -> bool {
    let word = word.trim_end_matches('.');
    word.eq_ignore_ascii_case(name) || word.eq_ignore_ascii_case(&name[..3])
}

fn month(word: &str) -> Option<i8> {
    const MONTHS: [&str; 12] = [
        "january",
        "february",
        "march",
        "april",
        "may",
        "june",
        "july",
        "august",
        "september",
        "october",
        "november",
        "december",
    ];
    let place = MONTHS.iter().position(|name| is_name(word, name)).or_else(|| {
        // The one month that people cut at four letters.
        word.trim_end_matches('.').eq_ignore_ascii_case("sept").then_some(8)
    })?;
    i8::try_from(place + 1).ok()
}

fn weekday(word: &str) -> Option<Weekday> {
    const DAYS: [(&str, Weekday); 7] = [
        ("monday", Weekday::Monday),
        ("tuesday", Weekday::Tuesday),
        ("wednesday", Weekday::Wednesday),
        ("thursday", Weekday::Thursday),
        ("friday", Weekday::Friday),
        ("saturday", Weekday::Saturday),
        ("sunday", Weekday::Sunday),
    ];
    DAYS.iter().find(|(name, _)| is_name(word, name)).map(|(_, day)| *day)
}

/// Short names of zones that mean one thing wherever they are written. `IST`, `BST`, `CST` and their
/// like mean several.
fn known_short_name(name: &str) -> Option<&'static str> {
    Some(match name {
        "WET" => "+0",
        "WEST" | "CET" | "MET" => "+1",
        "CEST" | "MEST" | "EET" => "+2",
        "EEST" | "MSK" => "+3",
        "JST" => "+9",
        "EDT" => "-4",
        "EST" => "-5",
        "MDT" => "-6",
        "MST" | "PDT" => "-7",
        "PST" => "-8",
        _ => return None,
    })
}
