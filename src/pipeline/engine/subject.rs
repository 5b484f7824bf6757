//! The name of an op in logs: what it does, for which user, and the position of its record in the
//! source.
//!
//! # Invariants
//!
//! No personal data: an id that looks like an e-mail address or a telephone number is shown as a
//! prefix of its SHA-256.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::deliver::Subject;
use crate::record::Record;
use crate::schedule::Op;

/// Characters of an id that are shown at most.
const MAX_ID: usize = 64;

/// Names an op and the record it was made from.
pub(super) fn subject(op: &Op, record: Option<&Record>) -> Arc<Subject> {
    let (op, user, company) = match op {
        Op::Identify { user, .. } => ("identify", Some(user), None),
        Op::Track { user, .. } => ("track", Some(user), None),
        Op::Page { user, .. } => ("page", Some(user), None),
        Op::Join { user, company, .. } => ("group", Some(user), Some(company)),
        Op::Merge { into, .. } => ("alias", Some(into), None),
        Op::Company { company, .. } => ("group", None, Some(company)),
    };
    let origin = record.and_then(|record| record.origin.as_ref());
    Arc::new(Subject {
        op,
        user: user.map(|id| shown(id.as_str())),
        company: company.map(|id| shown(id.as_str())),
        record: origin.map(|origin| origin.location.escape_debug().to_string()),
    })
}

/// An id, made safe for logs.
pub(in crate::pipeline) fn shown(id: &str) -> String {
    let digits = id.chars().filter(char::is_ascii_digit).count();
    let is_phone = digits >= 7
        && id.starts_with('+')
        && id.chars().all(|c| c.is_ascii_digit() || "+-() .".contains(c));
    if !id.contains('@') && !is_phone {
        return id.chars().take(MAX_ID).flat_map(char::escape_debug).collect();
    }
    format!("sha256:{}", hex::encode(&Sha256::digest(id.as_bytes())[..6]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn personal_ids_are_hashed_and_others_are_escaped() {
        // Guarantees that no e-mail address, telephone number or control character gets into a log.
        assert_eq!(shown("u1"), "u1");
        assert_eq!(shown("a\nb"), "a\\nb");
        assert_eq!(shown("1234567890"), "1234567890");
        for personal in ["ann@example.com", "+48 123-456-789"] {
            let shown = shown(personal);
            assert!(shown.starts_with("sha256:") && shown.len() == 19, "{shown}");
        }
        assert_eq!(shown(&"x".repeat(500)).len(), MAX_ID);
    }
}
