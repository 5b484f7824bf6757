//! Decides what an unidentified file is: new, a copy, or a known content in another place.
//!
//! A file is compared byte by byte with files that exist, and by digest with content that no file
//! holds any more.
//!
//! # Invariants
//!
//! Where this cannot be decided, the file is new: a duplicate record is better than a lost one.

use std::collections::BTreeSet;
use std::io;

use super::checkpoints::FileCheckpoint;
use super::compression::{FileCompression, TextSource};
use super::content::{
    self, CommonPrefix, ContentMark, PrefixDigests, PrefixRelation, RunningDigest,
};
use super::family::Family;
use super::identity::FileId;
use super::read;

/// Up to this many equal first bytes may be a coincidence: a header, or a first line that is always
/// the same.
const MAX_COINCIDENCE_BYTES: u64 = 256;

/// A known content.
pub(super) struct Candidate {
    pub(super) id: FileId,
    /// Its checkpoint.
    pub(super) row: FileCheckpoint,
    pub(super) location: ContentLocation,
}

/// Where a known content is.
pub(super) enum ContentLocation {
    /// In an open file; whether that was read to its end.
    Open { text: TextSource, at_end: bool },
    /// In no file any more, except for copies; with the digest of what was read.
    Gone(Box<RunningDigest>),
    /// In the file that its checkpoint names, or nowhere.
    AtPath,
}

/// What a file is.
#[derive(Debug)]
pub(super) enum Decision {
    New,
    /// Content that its former file no longer holds: reading continues at its checkpoint.
    Adopt {
        id: FileId,
    },
    /// All of its content is read from another file.
    Copy {
        id: FileId,
        content: ContentMark,
        whole: bool,
    },
    /// The same as another file up to here, and more.
    Fork {
        id: FileId,
        at: u64,
    },
    /// As `Fork`, but the other file was not read to its end.
    Wait {
        id: FileId,
    },
    /// A live log whose content so far equals the beginning of its last generation.
    Beginning,
}

/// Compares a file with known contents. `None` where it is empty. Blocks.
pub(super) fn decide(
    text: &TextSource,
    family: &Family,
    candidates: &[Candidate],
) -> io::Result<Option<Decision>> {
    let lengths: BTreeSet<u64> =
        candidates.iter().flat_map(|known| known.row.lengths()).map(|(length, _)| length).collect();
    let survey = content::digest_prefixes(&mut text.reader(), &lengths)?;
    if survey.whole.length == 0 {
        return Ok(None);
    }
    let mut choice = BestDecision { length: 0, decision: Decision::New };
    for known in candidates {
        let (length, decision) = one(text, family, &survey, known)?;
        let covered = matches!(decision, Decision::Copy { .. });
        if covered || length > choice.length {
            choice = BestDecision { length, decision };
        }
        if covered {
            break;
        }
    }
    Ok(Some(choice.decision))
}

/// The decision with the most equal bytes so far.
struct BestDecision {
    length: u64,
    decision: Decision,
}

fn read_to(row: &FileCheckpoint) -> u64 {
    row.content.as_ref().map_or(0, |content| content.length)
}

/// What the file is compared to one candidate, and how many equal bytes prove it.
fn one(
    text: &TextSource,
    family: &Family,
    survey: &PrefixDigests,
    known: &Candidate,
) -> io::Result<(u64, Decision)> {
    let id = known.id;
    if let ContentLocation::Gone(content) = &known.location {
        return of_gone(text, id, content, survey);
    }
    let has = |(length, sha256): (u64, &str)| {
        length > 0 && survey.digests.get(&length).is_some_and(|found| found == sha256)
    };
    let read = known.row.content.as_ref().map(|mark| (mark.length, mark.sha256.as_str()));
    let contains = read.filter(|read| has(*read)).map(|(length, _)| length);
    let (location, at_end) = match &known.location {
        ContentLocation::Open { text, at_end } => (Some(text.clone()), *at_end),
        ContentLocation::Gone(_) | ContentLocation::AtPath => {
            (read::at_path(id, &known.row).map(|(text, _)| text), true)
        }
    };
    let copy = |whole| Decision::Copy { id, content: survey.whole.clone(), whole };
    let Some(location) = location else {
        let version =
            || known.row.lengths().any(|known| known.0 == survey.whole.length && has(known));
        return Ok(match contains {
            Some(length) => (length, Decision::Adopt { id }),
            None if version() => (survey.whole.length, copy(false)),
            None => (0, Decision::New),
        });
    };
    let common = content::common_prefix(&mut text.reader(), &mut location.reader())?;
    // The other file was truncated, and its reader has not noticed yet.
    let is_lost = contains.is_some_and(|read| common.length < read)
        || (location.compression == FileCompression::Plain
            && location.file.metadata()?.len() < read_to(&known.row));
    if is_lost && matches!(known.location, ContentLocation::Open { .. }) {
        return Ok((contains.unwrap_or(1), Decision::Wait { id }));
    }
    Ok(match common {
        CommonPrefix { length: 0, .. } => (0, Decision::New),
        CommonPrefix { length, first_ends: true, second_ends } => {
            let older = Family::of(known.row.path.as_ref());
            let begins_anew = family.is_live && older.key == family.key && !older.is_live;
            match begins_anew && !second_ends {
                true => (length, Decision::Beginning),
                false => (length, copy(second_ends)),
            }
        }
        CommonPrefix { length, second_ends: true, .. } if at_end => {
            (length, Decision::Fork { id, at: length })
        }
        CommonPrefix { length, second_ends: true, .. } => (length, Decision::Wait { id }),
        // They differ after a common part: a copy that was written to, if the common part is longer
        // than a coincidence.
        CommonPrefix { .. } => match contains.filter(|length| *length > MAX_COINCIDENCE_BYTES) {
            Some(at) => (at, Decision::Fork { id, at }),
            None => (0, Decision::New),
        },
    })
}

/// What the file is compared to a content that no file holds any more.
fn of_gone(
    text: &TextSource,
    id: FileId,
    content: &RunningDigest,
    survey: &PrefixDigests,
) -> io::Result<(u64, Decision)> {
    Ok(match content.compare(&mut text.reader())? {
        PrefixRelation::Contains => (content.length(), Decision::Adopt { id }),
        PrefixRelation::Part(part) if part.length > 0 => {
            let whole = survey.whole.clone();
            (part.length, Decision::Copy { id, content: whole, whole: false })
        }
        PrefixRelation::Part(_) | PrefixRelation::Other => (0, Decision::New),
    })
}
