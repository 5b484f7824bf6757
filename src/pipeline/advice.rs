//! What to do about each kind of error, in one sentence for people.

use crate::buffer::DeadLetter;
use crate::usercom;

/// About a status that is not an answer.
pub(super) fn for_status(status: u16) -> &'static str {
    match status {
        401..=403 => usercom::remediation(status),
        429 => {
            "nothing need be done: the sink learns the quota and keeps below it; \
             `request.rate_limit_num` sets it from the start"
        }
        408 | 504 => "nothing need be done unless it lasts: the requests are repeated",
        _ => {
            "nothing need be done unless it lasts: the requests are repeated; see User.com's status page"
        }
    }
}

/// About an attempt without an answer.
pub(super) fn for_no_answer(kind: &str) -> &'static str {
    match kind {
        "connect" => {
            "check the network, DNS and `endpoint` or `app`; the requests are repeated, nothing is lost"
        }
        "timeout" => {
            "nothing need be done unless it lasts: the requests are repeated; `request.timeout_secs` \
             sets how long an answer may take"
        }
        _ => "nothing need be done unless it lasts: the requests are repeated",
    }
}

/// About a dead letter.
pub(super) fn for_dead_letter(reason: &str) -> &'static str {
    match reason {
        "undecodable" => "check `decoding` of the source against the record in the dead letter",
        "no_identity" => "map `user_id` or `anonymous_id`; then replay the dead letters",
        "unmatched" => "add a rule for these records, or set `unmatched = \"drop\"`",
        "poison" | "route_closed" => {
            "read the last response in the dead letter; replay it once User.com takes it"
        }
        reason if reason.starts_with("status_") => {
            "read User.com's response in the dead letter, mend the mapping, then replay it"
        }
        _ => "try the record in the playground, mend the mapping, then replay the dead letters",
    }
}

/// Where a dead letter comes from, without any value of its record.
pub(super) fn dead_letter_detail(letter: &DeadLetter) -> String {
    match (&letter.rule, &letter.field, letter.status) {
        (Some(rule), Some(field), _) => format!("in rule `{rule}`, field `{field}`"),
        (Some(rule), None, _) => format!("in rule `{rule}`"),
        (None, _, Some(status)) => format!("User.com refused it with status {status}"),
        (None, _, None) => "the record is in the dead letters".to_owned(),
    }
}
