//! Joins lines that belong together, by patterns. The modes are Vector's.
//!
//! # Invariants
//!
//! A group longer than the limit becomes decode errors to its end, and never a record.

use std::time::Duration;

use bytes::Bytes;
use regex::bytes::Regex;

use super::unit::{DecodeResult, Flush, Joined, Unit, Unreadable};
use crate::config::source::{MultilineConfig as Settings, MultilineMode as Mode};

#[derive(Debug, Clone)]
pub(super) struct LineJoiner {
    start: Regex,
    condition: Regex,
    mode: Mode,
    timeout: Duration,
    limit: usize,
    group: Group,
}

#[derive(Debug, Clone)]
enum Group {
    None,
    Open(Joined),
    /// Its first lines are decode errors already.
    Lost {
        from: u64,
        rest: Option<Joined>,
    },
}

/// What a line is to the present group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LineRole {
    /// A part of it.
    Inside,
    /// Its last.
    Last,
    /// After it.
    Behind,
}

impl LineJoiner {
    pub(super) fn new(settings: &Settings, limit: usize) -> Result<Self, String> {
        let regex = |key: &str, pattern: &str| {
            Regex::new(pattern).map_err(|error| format!("`multiline.{key}`: {error}"))
        };
        Ok(Self {
            start: regex("start_pattern", &settings.start_pattern)?,
            condition: regex("condition_pattern", &settings.condition_pattern)?,
            mode: settings.mode,
            timeout: Duration::from_millis(settings.timeout_ms),
            limit,
            group: Group::None,
        })
    }

    pub(super) fn feed(&mut self, unit: Unit, out: &mut Vec<DecodeResult>) {
        let line = match self.group {
            Group::None => LineRole::Behind,
            _ => self.place(&unit.text),
        };
        match line {
            LineRole::Behind => {
                self.end(out);
                match self.start.is_match(bare(&unit.text)) {
                    true => self.group = Group::Open(Joined::of(unit)),
                    false => out.push(Ok(unit)),
                }
            }
            LineRole::Inside => self.add(unit, out),
            LineRole::Last => {
                self.add(unit, out);
                self.end(out);
            }
        }
    }

    /// Takes a line that could not be read: it belongs to no group and ends the present one.
    pub(super) fn pass(&mut self, broken: Unreadable, out: &mut Vec<DecodeResult>) {
        match std::mem::replace(&mut self.group, Group::None) {
            Group::None => {}
            Group::Open(lines) => {
                out.push(Err(lines.finish().unreadable("a line of the group could not be read")));
            }
            Group::Lost { rest, .. } => out.extend(rest.map(|lines| Err(lost(lines)))),
        }
        out.push(Err(broken));
    }

    pub(super) fn flush(&mut self, _why: Flush, out: &mut Vec<DecodeResult>) {
        // A group has no end of its own, so the end of the stream ends it like the time limit.
        self.end(out);
    }

    pub(super) fn waiting_from(&self) -> Option<u64> {
        match &self.group {
            Group::None => None,
            Group::Open(lines) => Some(lines.span().start),
            Group::Lost { from, .. } => Some(*from),
        }
    }

    /// How long a group may wait for another line.
    pub(super) fn flush_after(&self) -> Option<Duration> {
        (!matches!(self.group, Group::None)).then_some(self.timeout)
    }

    fn place(&self, line: &Bytes) -> LineRole {
        match (self.mode, self.condition.is_match(bare(line))) {
            (Mode::ContinueThrough | Mode::ContinuePast, true)
            | (Mode::HaltBefore | Mode::HaltWith, false) => LineRole::Inside,
            (Mode::ContinuePast, false) | (Mode::HaltWith, true) => LineRole::Last,
            (Mode::ContinueThrough, false) | (Mode::HaltBefore, true) => LineRole::Behind,
        }
    }

    fn add(&mut self, unit: Unit, out: &mut Vec<DecodeResult>) {
        self.group = match std::mem::replace(&mut self.group, Group::None) {
            Group::Open(mut lines) if lines.fits(&unit, self.limit) => {
                lines.push(&unit, b"\n");
                Group::Open(lines)
            }
            Group::Open(lines) => {
                let from = lines.span().start;
                let why =
                    format!("the joined lines are longer than `max_line_bytes`, {}", self.limit);
                out.push(Err(lines.finish().unreadable(why)));
                Group::Lost { from, rest: Some(Joined::of(unit)) }
            }
            Group::Lost { from, rest: Some(mut lines) } if lines.fits(&unit, self.limit) => {
                lines.push(&unit, b"\n");
                Group::Lost { from, rest: Some(lines) }
            }
            Group::Lost { from, rest } => {
                out.extend(rest.map(|lines| Err(lost(lines))));
                Group::Lost { from, rest: Some(Joined::of(unit)) }
            }
            Group::None => Group::Open(Joined::of(unit)),
        };
    }

    fn end(&mut self, out: &mut Vec<DecodeResult>) {
        match std::mem::replace(&mut self.group, Group::None) {
            Group::None => {}
            Group::Open(lines) => out.push(Ok(lines.finish())),
            Group::Lost { rest, .. } => out.extend(rest.map(|lines| Err(lost(lines)))),
        }
    }
}

fn lost(lines: Joined) -> Unreadable {
    lines.finish().unreadable("these lines belong to a group that is longer than `max_line_bytes`")
}

/// Without a carriage return at its end.
fn bare(line: &Bytes) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::super::unit::Span;
    use super::*;

    fn multiline(mode: Mode, start: &str, condition: &str, limit: usize) -> LineJoiner {
        let settings = Settings {
            start_pattern: start.to_owned(),
            condition_pattern: condition.to_owned(),
            mode,
            timeout_ms: 5,
        };
        LineJoiner::new(&settings, limit).unwrap()
    }

    fn joined(multiline: &mut LineJoiner, lines: &str) -> Vec<Result<String, String>> {
        let mut out = Vec::new();
        for (n, line) in (0..).zip(lines.split(' ')) {
            let span = Span { start: n * 10, end: n * 10 + 10, line: n, lines: 1 };
            multiline.feed(Unit::of(line.to_owned().into(), span), &mut out);
        }
        multiline.flush(Flush::Timeout, &mut out);
        assert_eq!((multiline.waiting_from(), multiline.flush_after()), (None, None));
        let text = |unit: Unit| String::from_utf8(unit.text.to_vec()).unwrap().replace('\n', "+");
        out.into_iter().map(|outcome| outcome.map(text).map_err(|broken| broken.why)).collect()
    }

    #[test]
    fn each_multiline_mode_ends_groups_as_documented() {
        // A line that starts no group is a record of its own; the four modes are Vector's.
        for (mode, condition, expected) in [
            (Mode::HaltBefore, "^s", &["x", "s1+c1+c2", "s2+y"][..]),
            (Mode::HaltWith, "^c2", &["x", "s1+c1+c2", "s2+y"]),
            (Mode::ContinueThrough, "^c", &["x", "s1+c1+c2", "s2", "y"]),
            (Mode::ContinuePast, "^c1", &["x", "s1+c1+c2", "s2+y"]),
        ] {
            let got = joined(&mut multiline(mode, "^s", condition, 100), "x s1 c1 c2 s2 y");
            let got: Vec<String> = got.into_iter().map(Result::unwrap).collect();
            assert_eq!(got, expected, "{mode:?}");
        }
    }

    #[test]
    fn group_over_the_limit_is_faults_until_it_ends() {
        // A too long group is decode errors only; the next group is a record.
        let mut multiline = multiline(Mode::HaltBefore, "^s", "^s", 8);
        let got = joined(&mut multiline, "s1 aaaa bbbb cccc s2 d");
        assert_eq!(got.last().unwrap().as_ref().unwrap(), "s2+d");
        assert!(got[..got.len() - 1].iter().all(Result::is_err) && got.len() > 2, "{got:?}");
    }
}
