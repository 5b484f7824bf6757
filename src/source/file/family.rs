//! Groups files into logs by their names.
//!
//! `app.log`, `app.log.1`, `app.log.2.gz`, `app.log-20260101`, `app-2026-01-01.log`,
//! `app.log.2026-01-01T10-11-12.zst`, `app.log.bak` in one folder are generations of one log.
//!
//! # Invariants
//!
//! Files of different folders never belong to one log.

use std::cmp::Reverse;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use regex::Regex;

/// A date as log rotation writes it, with or without a time of day; or seconds since 1970.
const DATE: &str = r"(?:(?:19|20)\d\d[-_.]?(?:0[1-9]|1[0-2])[-_.]?(?:0[1-9]|[12]\d|3[01])(?:[-_.T ]?\d\d(?:[-_.:]?\d\d(?:[-_.:]?\d\d(?:[.,]\d{1,9})?)?)?)?Z?|1\d{9}(?:\d{3})?)";

static PACKED: LazyLock<Regex> = LazyLock::new(|| regex(r"(?i)^(.+)\.(?:gz|zst|bz2|xz|z)$"));
static DATED: LazyLock<Regex> = LazyLock::new(|| regex(&format!("^(.+)[-_.]({DATE})$")));
static NUMBERED: LazyLock<Regex> = LazyLock::new(|| regex(r"^(.+)\.(\d{1,6})$"));
static PUT_ASIDE: LazyLock<Regex> =
    LazyLock::new(|| regex(r"(?i)^(.+?)(?:[.](?:old|bak|backup|prev|previous|orig|copy)|~)$"));
static DATED_INSIDE: LazyLock<Regex> = LazyLock::new(|| {
    regex(&format!(r"^(?:(.+)[-_.])?({DATE})(?:[-_.](\d{{1,6}}))?([-_.][^.\d].*)$"))
});

fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).expect("the pattern is a constant that the tests compile")
}

/// What a file's name says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Family {
    /// The folder and the name without what rotation adds: the same for all generations.
    pub(super) key: Arc<str>,
    /// Whether this is the name that is written to.
    pub(super) is_live: bool,
    date: String,
    number: Option<u64>,
    packed: bool,
}

/// What the order of a log's generations depends on.
#[derive(Debug, Clone, Copy)]
pub(super) struct GenerationAge<'a> {
    family: &'a Family,
    is_live: bool,
    /// Seconds since 1970, and nanoseconds.
    changed: (i64, i64),
}

impl<'a> GenerationAge<'a> {
    /// By modification time; of equal times by date and number.
    fn by_time(&self) -> impl Ord + use<'a> {
        let family = self.family;
        (self.is_live, self.changed, family.date.as_str(), Reverse(family.number))
    }

    fn is_numbered(&self) -> bool {
        self.is_live || (self.family.number.is_some() && self.family.date.is_empty())
    }

    fn is_dated(&self) -> bool {
        self.is_live || !self.family.date.is_empty()
    }
}

/// Sorts the generations of one log: oldest first, the live file last.
///
/// Compression may give a file a new modification time. So where files are compressed, their names
/// decide, unless the times of the other files contradict them.
pub(super) fn sort<T>(files: &mut [T], age: impl for<'t> Fn(&'t T) -> GenerationAge<'t>) {
    files.sort_by(|a, b| age(a).by_time().cmp(&age(b).by_time()));
    if !files.iter().any(|file| age(file).family.packed) {
        return;
    }
    let plain = || files.iter().map(&age).filter(|age| !age.family.packed && !age.is_live);
    if files.iter().all(|file| age(file).is_numbered())
        && plain().is_sorted_by_key(|age| Reverse(age.family.number))
    {
        files.sort_by_key(|file| (age(file).is_live, Reverse(age(file).family.number)));
    } else if files.iter().all(|file| age(file).is_dated())
        && plain().is_sorted_by(|a, b| a.family.date <= b.family.date)
    {
        files.sort_by(|a, b| {
            let name = |file| (age(file).is_live, age(file).family.date.to_owned());
            name(a).cmp(&name(b))
        });
    }
}

impl Family {
    pub(super) fn of(path: &Path) -> Self {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let mut family = Self {
            key: "".into(),
            is_live: true,
            date: String::new(),
            number: None,
            packed: false,
        };
        let stem = family.strip(&name);
        family.is_live = stem == *name;
        let folder = path.parent().unwrap_or(Path::new("")).to_string_lossy();
        family.key = format!("{folder}/{stem}").into();
        family
    }

    fn strip(&mut self, name: &str) -> String {
        let mut stem = name.to_owned();
        if let Some(found) = PACKED.captures(&stem) {
            stem = found[1].to_owned();
            self.packed = true;
        }
        loop {
            stem = if let Some(found) = DATED.captures(&stem) {
                self.date = found[2].to_owned();
                found[1].to_owned()
            } else if let Some(found) = NUMBERED.captures(&stem) {
                self.number = found[2].parse().ok();
                found[1].to_owned()
            } else if let Some(found) = PUT_ASIDE.captures(&stem) {
                found[1].to_owned()
            } else {
                break;
            };
        }
        if let Some(found) = DATED_INSIDE.captures(&stem) {
            self.date = found[2].to_owned();
            let before = found.get(1).map_or("", |before| before.as_str());
            return format!("{before}{}", &found[4]);
        }
        stem
    }

    /// The family of an older generation of the same log.
    pub(super) fn put_aside(&self) -> Self {
        Self { is_live: false, ..self.clone() }
    }

    /// What the order depends on, for this modification time.
    pub(super) fn age(&self, is_live: bool, changed: (i64, i64)) -> GenerationAge<'_> {
        GenerationAge { family: self, is_live, changed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotated_names_belong_to_one_log() {
        // Rotated names belong to the same log as the live name.
        let live = Family::of(Path::new("logs/app.log"));
        assert!(live.is_live);
        for name in [
            "app.log.1",
            "app.log.12.gz",
            "app.log.2.zst",
            "app.log-20260101",
            "app.log-20260101.gz",
            "app.log-20260101-1767225600.gz",
            "app.log.1767225600",
            "app.log.2026-01-01",
            "app.log.2026-01-01.3",
            "app.log.2026-01-01_10",
            "app.log.20260101-101112",
            "app-2026-01-01.log",
            "app-2026-01-01.2.log",
            "app.2026-01-01.log.gz",
            "app-2026-01-01T10-11-12.123.log",
            "app.log.bak",
            "app.log.old",
            "app.log~",
        ] {
            let family = Family::of(&Path::new("logs").join(name));
            assert_eq!(family.key, live.key, "{name}");
            assert!(!family.is_live, "{name}");
        }
        let daily = ["2026-01-01.ndjson", "20260102.ndjson"].map(|n| Family::of(Path::new(n)).key);
        assert_eq!(daily[0], daily[1]);
    }

    #[test]
    fn unrelated_names_are_different_logs() {
        // Names that differ in more than what rotation adds, or are in another folder, are other
        // logs: files of parallel writers must not wait for each other.
        let keys: Vec<_> = [
            "a/app.log",
            "b/app.log",
            "a/app2.log",
            "a/worker-1.log",
            "a/worker-2.log",
            "a/app.1234.log",
            "a/access.log",
            "a/users-v2.csv",
        ]
        .map(|path| Family::of(Path::new(path)).key)
        .into();
        let different: std::collections::BTreeSet<_> = keys.iter().collect();
        assert_eq!(different.len(), keys.len(), "{keys:?}");
    }

    fn sorted<'a>(files: &[(&'a str, i64)]) -> Vec<&'a str> {
        let mut files: Vec<_> =
            files.iter().map(|(name, at)| (*name, Family::of(Path::new(name)), *at)).collect();
        sort(&mut files, |(_, family, at)| family.age(family.is_live, (*at, 0)));
        files.into_iter().map(|(name, ..)| name).collect()
    }

    #[test]
    fn generations_are_ordered_by_time_then_by_name() {
        // Oldest first by modification time; of equal times the higher number, the earlier date;
        // the live file is last, whatever its time.
        let by_time = sorted(&[("a.log", 0), ("a.log.2", 2), ("a.log.1", 1)]);
        assert_eq!(by_time, ["a.log.1", "a.log.2", "a.log"]);
        let by_number = sorted(&[("a.log.1", 1), ("a.log.2", 1), ("a.log.10", 1)]);
        assert_eq!(by_number, ["a.log.10", "a.log.2", "a.log.1"]);
        let by_date = sorted(&[("a-20260102.log", 1), ("a-20260101.log", 1)]);
        assert_eq!(by_date, ["a-20260101.log", "a-20260102.log"]);
    }

    #[test]
    fn compressed_generations_are_ordered_by_name() {
        // A compressed file may have the time of its compression: its number or date decides,
        // unless the uncompressed files show that numbers mean something else.
        let numbered =
            sorted(&[("a.log", 8), ("a.log.1", 5), ("a.log.2.gz", 7), ("a.log.3.gz", 6)]);
        assert_eq!(numbered, ["a.log.3.gz", "a.log.2.gz", "a.log.1", "a.log"]);
        let dated = sorted(&[("a.log-20260102", 5), ("a.log-20260101.gz", 7), ("a.log", 9)]);
        assert_eq!(dated, ["a.log-20260101.gz", "a.log-20260102", "a.log"]);
        let other = sorted(&[("a.log.2", 5), ("a.log.1", 4), ("a.log.0.gz", 3)]);
        assert_eq!(other, ["a.log.0.gz", "a.log.1", "a.log.2"]);
    }
}
