//! Offsets of time zones: `+02:00`, `-0530`, `+2`.

use jiff::tz::Offset;

/// Reads `+02:00`, `+0200`, `+02`, `-5`, with a sign.
pub(super) fn offset(text: &str) -> Option<Offset> {
    let (negative, rest) = match text.as_bytes().first()? {
        b'+' => (false, &text[1..]),
        b'-' => (true, &text[1..]),
        _ => return None,
    };
    let (hours, minutes) = match rest.split_once(':') {
        Some(parts) => parts,
        None if rest.len() <= 2 => (rest, "0"),
        None => rest.split_at_checked(2)?,
    };
    let number = |text: &str| -> Option<i32> {
        let plain = (1..=2).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        plain.then(|| text.parse().ok()).flatten()
    };
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    if hours > 15 || minutes > 59 {
        return None;
    }
    let seconds = hours * 3600 + minutes * 60;
    Offset::from_seconds(if negative { -seconds } else { seconds }).ok()
}
