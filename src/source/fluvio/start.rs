//! Finds where reading of a partition starts: at the committed offset, or else where the settings
//! say. The start is then stored locally.
//!
//! It is stored because the cluster knows nothing before the first commit: a consumer that starts
//! at the end, takes a record and is killed would start after that record the next time.
//!
//! A clean shutdown is recorded too, so that the next start need not check for duplicates.
//!
//! # Invariants
//!
//! With a committed offset the start settings are ignored, unless the topic was created again
//! since.

use super::cluster::{ClusterError, OffsetRange};
use super::local_start::{
    EndTrust, OffsetCommits, Redelivery, StartError, StartNote, StartPosition,
};
use super::partition_reader::PartitionReader;
use crate::config::source::{FluvioStart, FluvioStartWord};

impl PartitionReader {
    /// Finds the start position.
    pub(super) async fn find_start(
        &self,
        offset_range: OffsetRange,
        trust: EndTrust,
    ) -> Result<StartPosition, StartError> {
        if self.offset_commits == OffsetCommits::Disabled {
            let position = self.first(offset_range);
            tracing::info!(
                topic = &*self.address.topic,
                partition = self.address.partition,
                offset = position,
                "`offset.strategy` is `none`, so no offset is committed: every run reads from here, \
                 and records whose ids are still stored for deduplication are not sent again"
            );
            return Ok(StartPosition { position, redelivery: Redelivery::None, kept: None });
        }
        let note = self.local_start.read().await?;
        let kept = self.cluster.committed().await?.get(&self.address.partition).copied();
        let start_offset = match (kept, note) {
            (Some(kept), _) => Some(kept.offset + 1),
            (None, Some(StartNote::Began(start_offset))) => Some(start_offset),
            (None, _) => None,
        };
        let Some(start_offset) = start_offset else {
            let position = self.first(offset_range);
            self.local_start.reading_began(position).await?;
            return Ok(StartPosition { position, redelivery: Redelivery::None, kept });
        };
        if start_offset > offset_range.end {
            return self.restart_position(start_offset, offset_range, trust).await;
        }
        if start_offset < offset_range.start {
            self.report_removed(start_offset, offset_range.start);
        }
        let in_peace = note == Some(StartNote::Ended(start_offset));
        // From here on the note must only say that reading continued.
        if kept.is_some() && note.is_some() {
            self.local_start.clear().await?;
        }
        let redelivery = if in_peace { Redelivery::None } else { Redelivery::Possible };
        Ok(StartPosition { position: start_offset.max(offset_range.start), redelivery, kept })
    }

    /// The partition ends before what was read of it: its topic was created again in the meantime.
    async fn restart_position(
        &self,
        start_offset: i64,
        offset_range: OffsetRange,
        trust: EndTrust,
    ) -> Result<StartPosition, StartError> {
        let partition = self.address.partition;
        if trust == EndTrust::Unconfirmed {
            let end = offset_range.end;
            let why = format!(
                "the partition ends at offset {end}, but offset {start_offset} was already read"
            );
            return Err(StartError::EndsEarlier(ClusterError::Transient(why)));
        }
        tracing::warn!(
            topic = &*self.address.topic,
            partition,
            before = start_offset,
            end = offset_range.end,
            offset = offset_range.start,
            "the topic was created again: it is read from its beginning"
        );
        self.cluster.delete_committed(partition).await?;
        self.local_start.reading_began(offset_range.start).await?;
        Ok(StartPosition { position: offset_range.start, redelivery: Redelivery::None, kept: None })
    }

    /// The offset that the settings select, limited to what exists; a warning is logged where it
    /// differs.
    fn first(&self, offset_range: OffsetRange) -> i64 {
        let wanted = wanted(&self.start, offset_range);
        let offset = wanted.clamp(offset_range.start, offset_range.end.max(offset_range.start));
        if wanted != offset {
            tracing::warn!(
                topic = &*self.address.topic,
                partition = self.address.partition,
                wanted,
                oldest = offset_range.start,
                end = offset_range.end,
                offset,
                "`offset.start` is outside of the offsets that the partition holds: reading begins \
                 at the nearest one"
            );
        }
        offset
    }
}

/// The offset that the settings select, whether it exists or not.
fn wanted(start: &FluvioStart, OffsetRange { start: oldest, end }: OffsetRange) -> i64 {
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
    fn start_setting_resolves_to_an_offset() {
        // Every word and number selects an offset, counted from the oldest record or from the end.
        let offset_range = OffsetRange { start: 10, end: 30 };
        let place = |place: FluvioStartPlace| wanted(&FluvioStart::Place(place), offset_range);
        assert_eq!(wanted(&FluvioStart::Word(FluvioStartWord::Beginning), offset_range), 10);
        assert_eq!(wanted(&FluvioStart::Word(FluvioStartWord::End), offset_range), 30);
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
