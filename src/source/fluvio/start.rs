//! Where reading of a partition begins: at the offset the cluster keeps, or else where the settings
//! say, which is then written down.
//!
//! Written down, because until a first offset is kept the cluster knows nothing: a consumer that
//! begins at the end, takes a record and is killed would begin behind that record the next time.
//!
//! An end in peace is written down too: then nobody wonders the next time whether somebody sent the
//! first records before.
//!
//! One invariant: with a kept offset the settings of the start mean nothing. Fluvio's client would
//! ignore the kept offset for an absolute start, and count relative ones from it.

use super::cluster::{At, Cluster, ClusterError, Extent};
use crate::config::source::{FluvioStart, FluvioStartWord};
use crate::source::{SharedCheckpoints, SourceError};

/// Where a reader begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Beginning {
    pub(super) at: At,
    /// The offset that is read next.
    pub(super) position: i64,
    /// Whether a predecessor may have sent the records that come first.
    pub(super) doubt: Doubt,
    /// Whether the cluster keeps an offset.
    pub(super) kept: bool,
}

/// Whether records may have been sent before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doubt {
    /// By a predecessor that did not come to keep its offset.
    MaybeSent,
    /// By nobody.
    New,
}

/// Whether offsets are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keeping {
    /// They are.
    Kept,
    /// They are not.
    Forgotten,
}

/// What is written down of one partition on this machine.
pub(super) struct Notes {
    checkpoints: SharedCheckpoints,
    source: String,
    key: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Note {
    /// Reading began here, and no offset was kept yet.
    Began(i64),
    /// The last reader ended here, with everything before it settled and kept.
    Ended(i64),
}

impl Notes {
    pub(super) fn new(checkpoints: SharedCheckpoints, source: &str, key: String) -> Self {
        Self { checkpoints, source: source.to_owned(), key }
    }

    async fn read(&self) -> Result<Option<Note>, SourceError> {
        let rows = self.checkpoints.load(&self.source).await?;
        let row = rows.into_iter().find(|(key, _)| *key == self.key);
        Ok(row.and_then(|(_, note)| {
            let (word, offset) = note.split_once(' ')?;
            let offset = offset.parse().ok()?;
            match word {
                "began" => Some(Note::Began(offset)),
                "ended" => Some(Note::Ended(offset)),
                _ => None,
            }
        }))
    }

    async fn write(&self, note: Option<Note>) -> Result<(), SourceError> {
        let text = note.map(|note| match note {
            Note::Began(offset) => format!("began {offset}"),
            Note::Ended(offset) => format!("ended {offset}"),
        });
        self.checkpoints.save(&self.source, vec![(self.key.clone(), text)]).await
    }

    /// An offset is kept: from now on that counts.
    pub(super) async fn forget(&self) -> Result<(), SourceError> {
        self.write(None).await
    }

    /// Everything before `offset` is settled and kept, and nothing behind it was handed on.
    pub(super) async fn ended(&self, offset: i64) -> Result<(), SourceError> {
        self.write(Some(Note::Ended(offset))).await
    }
}

/// Why no beginning was found.
#[derive(Debug)]
pub(super) enum NoBeginning {
    /// The cluster did not say.
    Cluster(ClusterError),
    /// It could not be written down.
    Notes(SourceError),
}

impl From<ClusterError> for NoBeginning {
    fn from(error: ClusterError) -> Self {
        Self::Cluster(error)
    }
}

impl From<SourceError> for NoBeginning {
    fn from(error: SourceError) -> Self {
        Self::Notes(error)
    }
}

/// Finds where to begin.
pub(super) async fn find(
    cluster: &dyn Cluster,
    partition: u32,
    extent: Option<Extent>,
    start: &FluvioStart,
    keeping: Keeping,
    notes: &Notes,
) -> Result<Beginning, NoBeginning> {
    if keeping == Keeping::Forgotten {
        return Ok(Beginning::at(first(start, extent)?, Doubt::New));
    }
    let note = notes.read().await?;
    let oldest = extent.map_or(0, |extent| extent.start);
    if let Some(kept) = cluster.kept().await?.get(&partition) {
        let position = kept + 1;
        if let Some(extent) = extent {
            compare(partition, position, extent);
        }
        let in_peace = note == Some(Note::Ended(position));
        // From here on it is only true that reading went on.
        if note.is_some() {
            notes.forget().await?;
        }
        let position = position.max(oldest);
        let doubt = if in_peace { Doubt::New } else { Doubt::MaybeSent };
        return Ok(Beginning { at: At::Kept, position, doubt, kept: true });
    }
    if let Some(Note::Began(noted)) = note {
        return Ok(Beginning::at(noted.max(oldest), Doubt::MaybeSent));
    }
    let position = first(start, extent)?;
    notes.write(Some(Note::Began(position))).await?;
    Ok(Beginning::at(position, Doubt::New))
}

impl Beginning {
    fn at(position: i64, doubt: Doubt) -> Self {
        Self { at: At::Offset(position), position, doubt, kept: false }
    }
}

/// Tells what is odd about a kept offset.
fn compare(partition: u32, position: i64, extent: Extent) {
    if position < extent.start {
        let lost = extent.start - position;
        tracing::warn!(partition, lost, "records were removed before they were read");
    } else if position > extent.end {
        tracing::warn!(
            partition,
            kept = position - 1,
            end = extent.end,
            "the kept offset lies behind the end: if the topic was made anew, delete the \
             consumer's offsets (`fluvio consumer delete`)"
        );
    }
}

/// The offset the settings mean, within what there is. Where that is not known, only the end has to
/// be waited for.
fn first(start: &FluvioStart, extent: Option<Extent>) -> Result<i64, ClusterError> {
    let (oldest, end) = extent.map_or((0, None), |extent| (extent.start, Some(extent.end)));
    let before_end = |before: i64| {
        let unknown = || ClusterError::Passing("the end of the partition is not known yet".into());
        Ok(end.ok_or_else(unknown)? - before)
    };
    let wanted = match start {
        FluvioStart::Word(FluvioStartWord::Beginning) => oldest,
        FluvioStart::Word(FluvioStartWord::End) => before_end(0)?,
        FluvioStart::Place(place) => match (place.absolute, place.from_beginning, place.from_end) {
            (Some(offset), ..) => i64::try_from(offset).unwrap_or(i64::MAX),
            (_, Some(behind), _) => oldest + i64::from(behind),
            (_, _, before) => before_end(before.unwrap_or(0).into())?,
        },
    };
    Ok(wanted.clamp(oldest, end.unwrap_or(i64::MAX).max(oldest)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::source::FluvioStartPlace;

    #[test]
    fn a_start_lies_within_what_there_is() {
        // Every word and number means an offset between the oldest record and the end.
        let extent = Some(Extent { start: 10, end: 30 });
        let first = |start: &FluvioStart, extent| first(start, extent).unwrap();
        let place = |place: FluvioStartPlace| first(&FluvioStart::Place(place), extent);
        assert_eq!(first(&FluvioStart::Word(FluvioStartWord::Beginning), extent), 10);
        assert_eq!(first(&FluvioStart::Word(FluvioStartWord::End), extent), 30);
        let none = FluvioStartPlace::default();
        for (absolute, expected) in [(3, 10), (20, 20), (99, 30), (u64::MAX, 30)] {
            let start = FluvioStartPlace { absolute: Some(absolute), ..none.clone() };
            assert_eq!(place(start), expected);
        }
        let from = FluvioStartPlace { from_beginning: Some(5), ..none.clone() };
        assert_eq!(place(from), 15);
        let from = FluvioStartPlace { from_end: Some(5), ..none.clone() };
        assert_eq!(place(from), 25);
        let from = FluvioStartPlace { from_end: Some(500), ..none };
        assert_eq!(place(from), 10);
        assert_eq!(first(&FluvioStart::Word(FluvioStartWord::Beginning), None), 0);
        assert!(super::first(&FluvioStart::Word(FluvioStartWord::End), None).is_err());
    }
}
