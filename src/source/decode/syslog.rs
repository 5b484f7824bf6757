//! The `syslog` codec: RFC 5424, RFC 3164, and what syslog daemons write into files (without a
//! priority, with either time format). Field names are Vector's.
//!
//! # Invariants
//!
//! A line that begins with neither a priority nor a time is a decode error; of every other line all
//! content is kept.

use std::borrow::Cow;

use bytes::Bytes;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

const SEVERITIES: [&str; 8] =
    ["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"];

const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv",
    "ftp", "ntp", "audit", "alert", "clockd", "local0", "local1", "local2", "local3", "local4",
    "local5", "local6", "local7",
];

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];

/// Field names that structured data must not use.
const OWN: [&str; 9] = [
    "facility",
    "severity",
    "version",
    "timestamp",
    "hostname",
    "appname",
    "procid",
    "msgid",
    "message",
];

/// A parsed line.
#[derive(Debug, Default)]
struct SyslogMessage<'a> {
    priority: Option<u8>,
    version: Option<u16>,
    timestamp: Option<Timestamp>,
    hostname: Option<&'a str>,
    appname: Option<&'a str>,
    procid: Option<&'a str>,
    msgid: Option<&'a str>,
    elements: Vec<Element<'a>>,
    message: &'a str,
}

/// An element of structured data: its name, and the names and values in it.
type Element<'a> = (&'a str, Vec<(&'a str, Cow<'a, str>)>);

/// The fields of a line; `None` for a blank line. Times without a zone are in `zone`. A time
/// without a year is in the latest year in which it is at most one day after `now`.
pub(super) fn decode(line: &str, zone: &TimeZone, now: Timestamp) -> Result<Option<Bytes>, String> {
    if line.trim().is_empty() {
        return Ok(None);
    }
    read(line, zone, now).map(|message| Some(message.object()))
}

fn read<'a>(line: &'a str, zone: &TimeZone, now: Timestamp) -> Result<SyslogMessage<'a>, String> {
    let line = line.trim_start();
    let (priority, rest) = priority(line)?;
    if priority.is_some()
        && let Some((version, rest)) = version(rest)
    {
        return rfc5424(rest).map(|message| SyslogMessage {
            priority,
            version: Some(version),
            ..message
        });
    }
    let rest = rest.trim_start();
    let (timestamp, rest) = match time(rest, zone, now)? {
        Some((timestamp, rest)) => (Some(timestamp), rest),
        // RFC 3164, 4.3.2: whatever follows a priority is the message.
        None if priority.is_some() => {
            return Ok(SyslogMessage { priority, message: rest, ..SyslogMessage::default() });
        }
        None => {
            return Err(
                "not syslog: the line begins with neither a priority such as `<34>` nor a time"
                    .into(),
            );
        }
    };
    Ok(SyslogMessage { priority, timestamp, ..host_and_tag(rest) })
}

fn priority(line: &str) -> Result<(Option<u8>, &str), String> {
    let Some((digits, rest)) = line.strip_prefix('<').and_then(|rest| rest.split_once('>')) else {
        return Ok((None, line));
    };
    match digits.parse::<u8>() {
        Ok(priority) if priority < 192 && digits.bytes().all(|b| b.is_ascii_digit()) => {
            Ok((Some(priority), rest))
        }
        _ => Err("the priority is not a number from 0 to 191".to_owned()),
    }
}

/// The version, which identifies RFC 5424.
fn version(text: &str) -> Option<(u16, &str)> {
    let (digits, rest) = text.split_once(' ')?;
    let plain = (1..=3).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten().map(|version| (version, rest))
}

fn rfc5424(text: &str) -> Result<SyslogMessage<'_>, String> {
    let mut rest = text;
    let mut word = |what: &str| {
        let (word, behind) = rest.split_once(' ').unwrap_or((rest, ""));
        rest = behind;
        match word {
            "" => Err(format!("the syslog header has no {what}; `-` stands for none")),
            "-" => Ok(None),
            word => Ok(Some(word)),
        }
    };
    let timestamp = word("time")?
        .map(|word| word.parse().map_err(|_| "the syslog header's time is not RFC 3339".to_owned()))
        .transpose()?;
    let hostname = word("host name")?;
    let appname = word("application name")?;
    let procid = word("process id")?;
    let msgid = word("message id")?;
    let (elements, rest) = structured_data(rest)?;
    let message = rest.strip_prefix(' ').unwrap_or(rest);
    let message = message.strip_prefix('\u{feff}').unwrap_or(message);
    Ok(SyslogMessage {
        timestamp,
        hostname,
        appname,
        procid,
        msgid,
        elements,
        message,
        ..SyslogMessage::default()
    })
}

/// `-`, or adjacent elements such as `[id name="value"]`.
fn structured_data(text: &str) -> Result<(Vec<Element<'_>>, &str), String> {
    if let Some(rest) = text.strip_prefix('-') {
        return Ok((Vec::new(), rest));
    }
    let mut elements = Vec::new();
    let mut rest = text;
    while let Some(inner) = rest.strip_prefix('[') {
        let (element, behind) = element(inner)
            .ok_or_else(|| "the structured data is broken: `[ID NAME=\"VALUE\"]`".to_owned())?;
        elements.push(element);
        rest = behind;
    }
    match elements.is_empty() && !rest.is_empty() {
        true => Err("the syslog header has no structured data; `-` stands for none".to_owned()),
        false => Ok((elements, rest)),
    }
}

fn element(text: &str) -> Option<(Element<'_>, &str)> {
    let end = text.find([' ', ']'])?;
    let (id, mut rest) = text.split_at(end);
    let mut params = Vec::new();
    loop {
        rest = rest.trim_start_matches(' ');
        if let Some(behind) = rest.strip_prefix(']') {
            return (!id.is_empty()).then_some(((id, params), behind));
        }
        let (name, behind) = rest.split_once("=\"")?;
        let (value, behind) = value(behind)?;
        params.push((name, value));
        rest = behind;
    }
}

/// A value up to its quote; `\"`, `\\` and `\]` are escapes.
fn value(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let mut value = String::new();
    let mut from = 0;
    let mut bytes = text.bytes().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'"' => {
                let (last, rest) = (&text[from..at], &text[at + 1..]);
                return Some(match value.is_empty() && from == 0 {
                    true => (Cow::Borrowed(last), rest),
                    false => (Cow::Owned(value + last), rest),
                });
            }
            b'\\' if matches!(text.as_bytes().get(at + 1), Some(b'"' | b'\\' | b']')) => {
                value += &text[from..at];
                from = at + 1;
                bytes.next();
            }
            _ => {}
        }
    }
    None
}

/// The time at the start, and the rest after it.
fn time<'a>(
    text: &'a str,
    zone: &TimeZone,
    now: Timestamp,
) -> Result<Option<(Timestamp, &'a str)>, String> {
    let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
    if let Ok(timestamp) = word.strip_suffix(':').unwrap_or(word).parse() {
        return Ok(Some((timestamp, rest)));
    }
    if let Ok(local) = word.parse::<DateTime>()
        && word.contains('T')
    {
        return at(local, zone).map(|timestamp| Some((timestamp, rest)));
    }
    let Some((month, rest)) = month(text) else {
        return Ok(None);
    };
    let Some((day, rest)) = number(rest.trim_start(), 2) else {
        return Ok(None);
    };
    let rest = rest.trim_start();
    let (year, rest) = match number(rest, 4) {
        Some((year, behind)) if year > 999 => (Some(year), behind.trim_start()),
        _ => (None, rest),
    };
    let (clock, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    let Ok(clock) = clock.strip_suffix(':').unwrap_or(clock).parse::<jiff::civil::Time>() else {
        return Ok(None);
    };
    let in_year = |year: i16| {
        let date = Date::new(year, i8::try_from(month).ok()?, i8::try_from(day).ok()?).ok()?;
        at(date.to_datetime(clock), zone).ok()
    };
    let found = match year {
        Some(year) => i16::try_from(year).ok().and_then(in_year),
        None => {
            let this = zone.to_datetime(now).year();
            let latest = now.saturating_add(24.hours()).unwrap_or(now);
            // Nine years always contain a 29th of February, also around 1900 and 2100.
            (-8..=1).rev().filter_map(|n| in_year(this + n)).find(|moment| *moment <= latest)
        }
    };
    match found {
        Some(timestamp) => Ok(Some((timestamp, rest))),
        None => Err("the time of the line is not in any calendar".to_owned()),
    }
}

fn at(local: DateTime, zone: &TimeZone) -> Result<Timestamp, String> {
    zone.to_timestamp(local).map_err(|error| error.to_string())
}

fn month(text: &str) -> Option<(usize, &str)> {
    let word = text.get(..3)?;
    let at = MONTHS.iter().position(|month| word.eq_ignore_ascii_case(month))?;
    text[3..].starts_with(' ').then(|| (at + 1, &text[3..]))
}

/// A number of at most `most` digits that is followed by a space.
fn number(text: &str, most: usize) -> Option<(u16, &str)> {
    let end = text.find(' ')?;
    let (digits, rest) = text.split_at(end);
    let plain = (1..=most).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten().map(|number| (number, rest))
}

/// `HOST TAG[PID]: TEXT`, `TAG[PID]: TEXT` or `HOST TEXT`.
fn host_and_tag(text: &str) -> SyslogMessage<'_> {
    if let Some((appname, procid, message)) = tag(text) {
        return SyslogMessage {
            appname: Some(appname),
            procid,
            message,
            ..SyslogMessage::default()
        };
    }
    let text = text.trim_start();
    let (host, rest) = text.split_once(' ').unwrap_or((text, ""));
    let hostname = (!host.is_empty() && host != "-").then_some(host);
    match tag(rest) {
        Some((appname, procid, message)) => SyslogMessage {
            hostname,
            appname: Some(appname),
            procid,
            message,
            ..SyslogMessage::default()
        },
        None => SyslogMessage { hostname, message: rest, ..SyslogMessage::default() },
    }
}

/// A tag, its process, and the rest after it: `sshd[42]: text`.
fn tag(text: &str) -> Option<(&str, Option<&str>, &str)> {
    let text = text.trim_start();
    let end = text.find([' ', ':', '['])?;
    let (name, rest) = text.split_at(end);
    if name.is_empty() {
        return None;
    }
    let (procid, rest) = match rest.strip_prefix('[') {
        None => (None, rest),
        Some(inner) => {
            let (procid, rest) = inner.split_once(']')?;
            (Some(procid).filter(|procid| !procid.is_empty()), rest)
        }
    };
    let message = match rest.strip_prefix(':') {
        Some(message) => message,
        // Some daemons omit the colon after the process.
        None if procid.is_some() => rest,
        None => return None,
    };
    // `::1` and `10:11` are not tags.
    let ends = message.is_empty() || message.starts_with(' ');
    ends.then(|| (name, procid, message.strip_prefix(' ').unwrap_or(message)))
}

impl SyslogMessage<'_> {
    fn object(&self) -> Bytes {
        let mut object = SyslogJson::default();
        if let Some(priority) = self.priority {
            object.text("facility", FACILITIES[usize::from(priority >> 3)]);
            object.text("severity", SEVERITIES[usize::from(priority & 7)]);
        }
        if let Some(version) = self.version {
            object.raw("version", &version.to_string());
        }
        if let Some(timestamp) = self.timestamp {
            object.text("timestamp", &timestamp.to_string());
        }
        for (key, value) in [("hostname", self.hostname), ("appname", self.appname)] {
            if let Some(value) = value {
                object.text(key, value);
            }
        }
        match self.procid.map(|procid| (procid, procid.parse::<u32>())) {
            Some((_, Ok(number))) => object.raw("procid", &number.to_string()),
            Some((text, Err(_))) => object.text("procid", text),
            None => {}
        }
        if let Some(msgid) = self.msgid {
            object.text("msgid", msgid);
        }
        let (clashing, free): (Vec<_>, Vec<_>) =
            self.elements.iter().partition(|(id, _)| OWN.contains(id) || *id == "structured_data");
        for element in free {
            object.element(element);
        }
        if !clashing.is_empty() {
            let mut inner = SyslogJson::default();
            clashing.into_iter().for_each(|element| inner.element(element));
            object.raw("structured_data", &inner.finish());
        }
        object.text("message", self.message);
        object.finish().into()
    }
}

/// A JSON object under construction.
#[derive(Default)]
struct SyslogJson {
    entries: String,
}

impl SyslogJson {
    fn raw(&mut self, key: &str, json: &str) {
        if !self.entries.is_empty() {
            self.entries.push(',');
        }
        self.entries += &quoted(key);
        self.entries.push(':');
        self.entries += json;
    }

    fn text(&mut self, key: &str, text: &str) {
        self.raw(key, &quoted(text));
    }

    fn element(&mut self, (id, params): &Element<'_>) {
        let mut inner = Self::default();
        for (name, value) in params {
            inner.text(name, value);
        }
        self.raw(id, &inner.finish());
    }

    fn finish(self) -> String {
        format!("{{{}}}", self.entries)
    }
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a text is always JSON")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn decoded(line: &str) -> Result<Value, String> {
        in_zone(line, "UTC")
    }

    fn in_zone(line: &str, zone: &str) -> Result<Value, String> {
        let now = "2024-05-21T10:00:00Z".parse().unwrap();
        let body = decode(line, &TimeZone::get(zone).unwrap(), now)?.unwrap();
        Ok(serde_json::from_slice(&body).unwrap())
    }

    #[test]
    fn rfc5424_message_with_structured_data_is_parsed() {
        // Every field of the RFC's own examples is present; escapes in values are decoded.
        let got = decoded(
            "<165>1 2003-10-11T22:14:15.003Z mymachine.example.com evntslog - ID47 \
             [exampleSDID@32473 iut=\"3\" eventSource=\"App \\\"x\\\" \\] \\\\ \\n\"][origin \
             ip=\"1.2.3.4\"] \u{feff}An application event",
        );
        assert_eq!(
            got.unwrap(),
            json!({
                "facility": "local4", "severity": "notice", "version": 1,
                "timestamp": "2003-10-11T22:14:15.003Z", "hostname": "mymachine.example.com",
                "appname": "evntslog", "msgid": "ID47",
                "exampleSDID@32473": {"iut": "3", "eventSource": "App \"x\" ] \\ \\n"},
                "origin": {"ip": "1.2.3.4"}, "message": "An application event"
            })
        );
        let got = decoded("<34>1 - - su 77 - - {\"a\":[1]}").unwrap();
        let expected = json!({"facility": "auth", "severity": "crit", "version": 1, "appname": "su", "procid": 77, "message": "{\"a\":[1]}"});
        assert_eq!(got, expected);
        let got = decoded("<34>1 - - su 77 - [message a=\"b\"]").unwrap();
        assert_eq!(got["message"], "");
        assert_eq!(got["structured_data"], json!({"message": {"a": "b"}}));
    }

    #[test]
    fn rfc3164_message_with_missing_parts_is_parsed() {
        // Priority, host, tag and process may each be missing; the message is unchanged.
        let message = |line: &str| {
            let got = decoded(line).unwrap();
            let field = |key: &str| got.get(key).map_or("-".to_owned(), Value::to_string);
            ["timestamp", "hostname", "appname", "procid", "message"]
                .map(field)
                .join(" ")
                .replace('"', "")
        };
        for (line, expected) in [
            (
                "<34>Oct 11 22:14:15 mymachine su: 'su root' failed",
                "2023-10-11T22:14:15Z mymachine su - 'su root' failed",
            ),
            (
                "May  1 02:03:04 web sshd[42]: [error] no",
                "2024-05-01T02:03:04Z web sshd 42 [error] no",
            ),
            ("<13>May  1 02:03:04 app[x-1]: m", "2024-05-01T02:03:04Z - app x-1 m"),
            ("<13>May  1 02:03:04 app: m", "2024-05-01T02:03:04Z - app - m"),
            (
                "May 1 02:03:04 host last message repeated 2 times",
                "2024-05-01T02:03:04Z host - - last message repeated 2 times",
            ),
            ("May 1 2019 02:03:04.5 host app: m", "2019-05-01T02:03:04.5Z host app - m"),
            ("2024-05-21T10:11:12.5+02:00 host app[7]: m", "2024-05-21T08:11:12.5Z host app 7 m"),
            ("<13>May  1 02:03:04 ::1 app: m", "2024-05-01T02:03:04Z ::1 app - m"),
            ("<13>no time at all", "- - - - no time at all"),
        ] {
            assert_eq!(message(line), expected, "{line}");
        }
    }

    #[test]
    fn time_without_year_or_zone_is_completed() {
        // The zone is the given one; the year is the latest that is not in the future.
        let time = |line: &str, zone: &str| {
            in_zone(line, zone).unwrap()["timestamp"].as_str().unwrap().to_owned()
        };
        assert_eq!(time("May 21 10:11:12 h a: m", "Europe/Warsaw"), "2024-05-21T08:11:12Z");
        assert_eq!(time("Dec 31 23:59:59 h a: m", "UTC"), "2023-12-31T23:59:59Z");
        assert_eq!(time("May 22 09:00:00 h a: m", "UTC"), "2024-05-22T09:00:00Z");
        assert_eq!(time("May 23 10:00:00 h a: m", "UTC"), "2023-05-23T10:00:00Z");
        assert_eq!(time("Feb 29 10:00:00 h a: m", "UTC"), "2024-02-29T10:00:00Z");
        let new_year = "2025-12-31T23:59:59Z".parse().unwrap();
        let body = decode("Jan  1 00:00:01 h a: m", &TimeZone::UTC, new_year).unwrap().unwrap();
        assert!(body.starts_with(b"{\"timestamp\":\"2026-01-01T00:00:01Z\""), "{body:?}");
        let body = decode("Feb 29 00:00:01 h a: m", &TimeZone::UTC, new_year).unwrap().unwrap();
        assert!(body.starts_with(b"{\"timestamp\":\"2024-02-29T00:00:01Z\""), "{body:?}");
    }

    #[test]
    fn line_that_is_not_syslog_is_a_fault() {
        // Each error says what is missing or broken.
        for (line, why) in [
            ("plain text", "neither a priority"),
            ("<192>x", "0 to 191"),
            ("<+3>x", "0 to 191"),
            ("Feb 30 10:00:00 h a: m", "calendar"),
            ("<1>1 yesterday h a - - - m", "RFC 3339"),
            ("<1>1 - h a", "process id"),
            ("<1>1 - h a - - m", "structured data"),
            ("<1>1 - h a - - [x y=\"z m", "structured data"),
        ] {
            assert!(decoded(line).unwrap_err().contains(why), "{line}: {:?}", decoded(line));
        }
        assert_eq!(decode(" ", &TimeZone::UTC, Timestamp::UNIX_EPOCH), Ok(None));
    }
}
