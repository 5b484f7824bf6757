//! Time zones by their IANA names. The database is part of the program, so that it works on
//! machines that have none.

use jiff::tz::TimeZone;

use crate::suggest;

/// The zone of a name: `Europe/Warsaw`, `UTC`, or a fixed offset such as `+02:00`.
pub fn find(name: &str) -> Option<TimeZone> {
    let name = name.trim();
    if name.is_empty() {
        return None;
    }
    if name.starts_with(['+', '-']) {
        return super::offset::offset(name).map(TimeZone::fixed);
    }
    TimeZone::get(name).ok()
}

/// Suggested names at most.
const MAX_SUGGESTIONS: usize = 3;

/// The known names nearest to one that is not known, the best first. A city alone leads to its zone:
/// `Warsaw` to `Europe/Warsaw`.
pub fn nearest(name: &str) -> Vec<String> {
    fn city(name: &str) -> &str {
        name.rsplit('/').next().unwrap_or_default()
    }
    let edits = |known: &str| {
        let of_names = suggest::distance(name, known);
        let of_cities = suggest::distance(city(name), city(known));
        of_names.into_iter().chain(of_cities).min()
    };
    let names = jiff::tz::db().available().map(|name| name.as_str().to_owned());
    let mut near: Vec<(usize, String)> =
        names.filter_map(|name| Some((edits(&name)?, name))).collect();
    near.sort();
    near.into_iter().take(MAX_SUGGESTIONS).map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_zone_name_gets_a_suggestion() {
        // Names and fixed offsets are found; a misspelt name or a bare city leads to the right one.
        assert!(find("Europe/Warsaw").is_some());
        assert!(find("UTC").is_some());
        assert!(find("+02:00").is_some());
        for unknown in ["", "Europe/Warszawa", "Warsaw", "+99:00"] {
            assert!(find(unknown).is_none(), "{unknown}");
        }
        for typed in ["Warsaw", "Europe/Warszaw", "europe/warsav"] {
            assert_eq!(nearest(typed)[0], "Europe/Warsaw", "{typed}");
        }
    }
}
