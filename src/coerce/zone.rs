//! Time zones by their IANA names. The database is part of the program, so that it works on
//! machines that have none.

use jiff::tz::TimeZone;

/// The zone of a name: `Europe/Warsaw`, `UTC`, or a fixed offset such as `+02:00`.
pub fn find(name: &str) -> Option<TimeZone> {
    let name = name.trim();
    if name.is_empty() {
        return None;
    }
    if name.starts_with(['+', '-']) {
        return super::timestamp::offset(name).map(TimeZone::fixed);
    }
    TimeZone::get(name).ok()
}

/// The known names nearest to one that is not known, the best first; at most three.
pub fn nearest(name: &str) -> Vec<String> {
    let wanted = name.to_lowercase();
    // People who write `Warsaw` mean `Europe/Warsaw`.
    let likeness = |candidate: &str| {
        let candidate = candidate.to_lowercase();
        let city = candidate.rsplit('/').next().unwrap_or_default();
        let city_wanted = wanted.rsplit('/').next().unwrap_or_default();
        let whole = strsim::jaro_winkler(&wanted, &candidate);
        whole.max(strsim::jaro_winkler(city_wanted, city) * 0.99)
    };
    let names = jiff::tz::db().available().map(|name| name.as_str().to_owned());
    let mut scored: Vec<(f64, String)> =
        names.map(|name| (likeness(&name), name)).filter(|(likeness, _)| *likeness > 0.8).collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    scored.into_iter().take(3).map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zone_names_are_found_and_suggested() {
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
