//! Where reading of a partition begins: at the offset the cluster keeps, or else where the settings
//! say, which is then written down.
//!
//! Written down, because until a first offset is kept the cluster knows nothing: a consumer that
//! begins at the end, takes a record and is killed would begin behind that record the next time.
//!
//! An end in peace is written down too: then nobody wonders the next time whether somebody sent the
//! first records before.
//!
//! One invariant: with a kept offset the settings of the start mean nothing, unless the topic was
//! made anew since.

use super::cluster::{ClusterError, Extent, Kept};
use super::lane::Lane;
use crate::config::source::{FluvioStart, FluvioStartWord};
use crate::source::{SharedCheckpoints, SourceError};

/// Where a reader begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Beginning {
    /// The offset that is read next.
    pub(super) position: i64,
    /// Whether a predecessor may have sent the records that come first.
    pub(super) doubt: Doubt,
    /// What the cluster keeps.
    pub(super) kept: Option<Kept>,
}

/// Whether an end is believed that lies before what was kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    /// It may be a mistake of a moment.
    Doubted,
    /// It was told several times.
    Sure,
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

    /// Reading begins at `offset`, and no offset is kept yet.
    pub(super) async fn began(&self, offset: i64) -> Result<(), SourceError> {
        self.write(Some(Note::Began(offset))).await
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
    /// It says that the partition ends before what was kept.
    Behind(ClusterError),
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
    lane: &Lane,
    extent: Extent,
    trust: Trust,
) -> Result<Beginning, NoBeginning> {
    if lane.keeping == Keeping::Forgotten {
        let position = lane.first(extent);
        tracing::info!(
            topic = &*lane.address.topic,
            partition = lane.address.partition,
            offset = position,
            "no offset is kept (`offset.strategy`): every run reads from here, and records that the \
             deduplication still knows are not sent again"
        );
        return Ok(Beginning { position, doubt: Doubt::New, kept: None });
    }
    let note = lane.notes.read().await?;
    let kept = lane.cluster.kept().await?.get(&lane.address.partition).copied();
    let noted = match (kept, note) {
        (Some(kept), _) => Some(kept.offset + 1),
        (None, Some(Note::Began(noted))) => Some(noted),
        (None, _) => None,
    };
    let Some(noted) = noted else {
        let position = lane.first(extent);
        lane.notes.began(position).await?;
        return Ok(Beginning { position, doubt: Doubt::New, kept });
    };
    if noted > extent.end {
        return lane.find_anew(noted, extent, trust).await;
    }
    if noted < extent.start {
        lane.removed(noted, extent.start);
    }
    let in_peace = note == Some(Note::Ended(noted));
    // From here on it is only true that reading went on.
    if kept.is_some() && note.is_some() {
        lane.notes.forget().await?;
    }
    let doubt = if in_peace { Doubt::New } else { Doubt::MaybeSent };
    Ok(Beginning { position: noted.max(extent.start), doubt, kept })
}

impl Lane {
    /// The partition ends before what was read of it: its topic was made anew meanwhile.
    async fn find_anew(
        &self,
        noted: i64,
        extent: Extent,
        trust: Trust,
    ) -> Result<Beginning, NoBeginning> {
        let partition = self.address.partition;
        if trust == Trust::Doubted {
            let end = extent.end;
            let why = format!("the partition ends at {end}, and {noted} was read before");
            return Err(NoBeginning::Behind(ClusterError::Passing(why)));
        }
        tracing::warn!(
            topic = &*self.address.topic,
            partition,
            before = noted,
            end = extent.end,
            offset = extent.start,
            "the topic was made anew: it is read from its beginning"
        );
        self.cluster.forget(partition).await?;
        self.notes.began(extent.start).await?;
        Ok(Beginning { position: extent.start, doubt: Doubt::New, kept: None })
    }

    /// The offset the settings mean, within what there is; told where that is another one.
    fn first(&self, extent: Extent) -> i64 {
        let wanted = wanted(&self.start, extent);
        let offset = wanted.clamp(extent.start, extent.end.max(extent.start));
        if wanted != offset {
            tracing::warn!(
                topic = &*self.address.topic,
                partition = self.address.partition,
                wanted,
                oldest = extent.start,
                end = extent.end,
                offset,
                "`offset.start` lies outside of what there is: reading begins at the nearest place"
            );
        }
        offset
    }
}

/// The offset the settings mean, whether it is there or not.
fn wanted(start: &FluvioStart, Extent { start: oldest, end }: Extent) -> i64 {
    match start {
        FluvioStart::Word(FluvioStartWord::Beginning) => oldest,
        FluvioStart::Word(FluvioStartWord::End) => end,
        FluvioStart::Place(place) => match (place.absolute, place.from_beginning, place.from_end) {
            (Some(offset), ..) => i64::try_from(offset).unwrap_or(i64::MAX),
            (_, Some(behind), _) => oldest.saturating_add(i64::from(behind)),
            (_, _, before) => end - i64::from(before.unwrap_or(0)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::source::FluvioStartPlace;

    #[test]
    fn a_start_is_an_offset() {
        // Every word and number means an offset, counted from the oldest record or from the end.
        let extent = Extent { start: 10, end: 30 };
        let place = |place: FluvioStartPlace| wanted(&FluvioStart::Place(place), extent);
        assert_eq!(wanted(&FluvioStart::Word(FluvioStartWord::Beginning), extent), 10);
        assert_eq!(wanted(&FluvioStart::Word(FluvioStartWord::End), extent), 30);
        let none = FluvioStartPlace::default();
        for (absolute, expected) in [(3, 3), (20, 20), (99, 99), (u64::MAX, i64::MAX)] {
            let start = FluvioStartPlace { absolute: Some(absolute), ..none.clone() };
            assert_eq!(place(start), expected);
        }
        let from = FluvioStartPlace { from_beginning: Some(5), ..none.clone() };
        assert_eq!(place(from), 15);
        let from = FluvioStartPlace { from_end: Some(5), ..none };
        assert_eq!(place(from), 25);
    }
}
