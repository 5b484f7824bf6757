//! Identifies unknown files and starts reading them.
//!
//! # Invariants
//!
//! A decision is saved before the file's first record is sent.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::checkpoints::{FileCheckpoint, Rows};
use super::compression::{FileCompression, TextSource};
use super::content::{ContentMark, RunningDigest};
use super::decide::{Candidate, ContentLocation, Decision, decide};
use super::file_set::{FileSet, Tailers};
use super::identity::{FileHead, FileId};
use super::moved::{CopyOrigin, may_begin, wait_for};
use super::read::{FileStat, ReadStart};
use super::state::{Compared, Copy, IdentifyOutcome, TailState, Unknown, WaitReason};
use super::stream::Stream;
use super::tailer::{FileTailer, blocking};

/// How long a live log that begins like its last generation may be a copy in progress.
const YOUNG_COPY_TIMEOUT: Duration = Duration::from_secs(2);

/// When a file must be identified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IdentifyMode {
    /// Its turn has not come: only whether its content is known.
    OnlyKnown,
    Wait,
    /// There is nothing to wait for: decide now.
    DecideNow,
}

impl FileSet {
    /// Identifies a file. `others` are the other open files.
    pub(super) async fn identify(
        &mut self,
        tailer: &mut FileTailer,
        others: &mut Tailers,
        patience: IdentifyMode,
    ) -> io::Result<IdentifyOutcome> {
        let file = Arc::clone(tailer.file());
        let path = tailer.path().to_owned();
        let compression = blocking(move || FileCompression::of(&file, &path)).await?;
        let stamp = FileStat::of(tailer.file())?;
        let TailState::Unknown(unknown) = &mut tailer.state else {
            return Ok(IdentifyOutcome::NotYet);
        };
        unknown.note_stamp(stamp);
        unknown.waits = None;
        let (age, same_to) = (unknown.since.elapsed(), unknown.same_to.clone());
        let compression = match (compression, patience) {
            (Some(compression), _) => compression,
            (None, IdentifyMode::DecideNow) => FileCompression::Plain,
            (None, _) => {
                unknown.waits = Some(WaitReason::MoreBytes);
                return Ok(IdentifyOutcome::NotYet);
            }
        };
        tailer.set_form(compression);
        let text = TextSource { file: Arc::clone(tailer.file()), compression };
        let for_head = text.clone();
        let head = blocking(move || FileHead::read(&mut for_head.reader())).await?;
        if let TailState::Unknown(unknown) = &mut tailer.state {
            unknown.note_head(&head);
        }
        let candidates = self.candidates(tailer, &head, others);
        let decision = if head.is_empty() {
            None
        } else if candidates.is_empty() {
            Some(Decision::New)
        } else {
            // A file without a name is not written to.
            let family = match tailer.missing {
                Some(_) => tailer.family.put_aside(),
                None => tailer.family.clone(),
            };
            let text = text.clone();
            blocking(move || decide(&text, &family, &candidates)).await?
        };
        let losses = self.losses;
        if let TailState::Unknown(unknown) = &mut tailer.state {
            unknown.compared = Some(Compared { stamp, losses });
        }
        let now = patience == IdentifyMode::DecideNow;
        match decision {
            None if !now => Ok(wait_for(tailer, WaitReason::MoreBytes)),
            Some(Decision::Beginning) if !now && age < YOUNG_COPY_TIMEOUT => {
                Ok(IdentifyOutcome::NotYet)
            }
            Some(Decision::Wait { id }) => Ok(wait_for(tailer, WaitReason::OtherFile(id))),
            Some(Decision::Copy { id, content, whole }) => {
                Ok(self.copy(tailer, others, id, &head, (content, whole), stamp))
            }
            Some(Decision::Adopt { id }) => self.adopt(tailer, others, id, text).await,
            Some(Decision::Fork { id, at }) => {
                let original = CopyOrigin { id, at };
                if let Some(rows) = self.take_over(tailer, others, original).await? {
                    return Ok(IdentifyOutcome::Yes(rows));
                }
                if !now && others.get(&id).is_some_and(|original| !may_begin(original, at)) {
                    tailer.note_same(content_to(at, &text).await?);
                    return Ok(wait_for(tailer, WaitReason::OtherFile(id)));
                }
                match patience {
                    IdentifyMode::OnlyKnown => Ok(IdentifyOutcome::NotYet),
                    _ => self.begin(tailer, Some(at), text).await,
                }
            }
            None | Some(Decision::New | Decision::Beginning) => {
                // Other content may have replaced the one that was seen.
                if patience == IdentifyMode::OnlyKnown || !(now || tailer.peers_are_known()) {
                    return Ok(IdentifyOutcome::NotYet);
                }
                let behind = still_there(same_to, &text).await?;
                self.begin(tailer, behind, text).await
            }
        }
    }

    /// Known contents that the file may hold.
    fn candidates(
        &mut self,
        tailer: &FileTailer,
        head: &FileHead,
        others: &mut Tailers,
    ) -> Vec<Candidate> {
        let mut ids: BTreeSet<FileId> = self.store.alike(head).into_iter().collect();
        if head.is_short() {
            ids.extend(self.store.longer_than(head, &tailer.family));
        }
        ids.remove(&tailer.id());
        let mut candidates = Vec::new();
        for id in ids {
            let Some(saved) = self.store.row(id).cloned() else {
                continue;
            };
            let candidate = match others.get_mut(&id) {
                Some(other) if other.stream().is_some() => open_candidate(id, other),
                // Its content is held by another file too.
                Some(other) if other.generation().is_some() => None,
                // It may no longer hold its content.
                Some(_) | None => Some(self.closed_candidate(id, saved)),
            };
            candidates.extend(candidate.filter(|known| {
                let read = known.row.content.as_ref().map_or(0, |content| content.length);
                let begun = known.row.head.length() > 0;
                let alike = head.has(&known.row.head)
                    || (head.is_short() && known.row.head.length() > head.length());
                alike && (read > 0 || (begun && !matches!(known.location, ContentLocation::AtPath)))
            }));
        }
        // Of rows with the same knowledge of a content, the one that was read furthest decides.
        candidates.sort_by_key(|known| std::cmp::Reverse(known.row.reach()));
        candidates
    }

    fn closed_candidate(&mut self, id: FileId, saved: FileCheckpoint) -> Candidate {
        let closed = self
            .closed
            .iter_mut()
            .find(|closed| closed.id == id && closed.stream.generation == saved.generation);
        let row = closed.map_or(saved, |closed| closed.row());
        Candidate { id, row, location: ContentLocation::AtPath }
    }

    /// The present row of a candidate.
    fn current_row(&mut self, id: FileId, others: &mut Tailers) -> Option<FileCheckpoint> {
        if let Some(row) =
            others.get_mut(&id).filter(|t| t.stream().is_some()).and_then(FileTailer::row)
        {
            return Some(row);
        }
        let saved = self.store.row(id).cloned()?;
        Some(self.closed_candidate(id, saved).row)
    }

    /// All content of the file is read from another one.
    fn copy(
        &mut self,
        tailer: &mut FileTailer,
        others: &mut Tailers,
        id: FileId,
        head: &FileHead,
        (content, whole): (ContentMark, bool),
        stamp: FileStat,
    ) -> IdentifyOutcome {
        let Some(known) = self.current_row(id, others) else {
            return IdentifyOutcome::NotYet;
        };
        tracing::info!(source = %self.context.source, path = ?tailer.path(), of = ?known.path, "the file is a copy of a file that is read already; it is not read again");
        let mut copy = Copy {
            generation: known.generation,
            stamp,
            whole,
            row: FileCheckpoint {
                head: head.fingerprint(),
                path: tailer.path().to_string_lossy().into_owned(),
                left: None,
                origin: Some(known.origin.unwrap_or(id)),
                copy: true,
                content: Some(content.clone()),
                versions: Vec::new(),
                packed: None,
                ..known.clone()
            },
            content,
        };
        copy.follow(known.mark(), &known.claims);
        let mut rows = self.preserve_old_row(tailer);
        rows.push((tailer.id(), Some(copy.row.clone())));
        tailer.state = TailState::Copy(Box::new(copy));
        IdentifyOutcome::Yes(rows)
    }

    /// Reading continues where a file that no longer exists was left.
    async fn adopt(
        &mut self,
        tailer: &mut FileTailer,
        others: &mut Tailers,
        id: FileId,
        text: TextSource,
    ) -> io::Result<IdentifyOutcome> {
        let Some(row) = self.current_row(id, others) else {
            return Ok(IdentifyOutcome::NotYet);
        };
        let length = row.content.as_ref().map_or(0, |content| content.length);
        tracing::info!(source = %self.context.source, path = ?tailer.path(), known_as = ?row.path, position = row.position, "the content of the file was read before under another identity; reading continues at its checkpoint");
        let known_as = row.path.clone();
        let is_gone = others.get(&id).is_some_and(FileTailer::is_gone);
        let closed = self
            .closed
            .iter()
            .position(|closed| closed.id == id && closed.stream.generation == row.generation);
        let stream = if is_gone {
            if let Some(stream) = others.get_mut(&id).and_then(FileTailer::stream_mut) {
                tailer.prepare(stream).await?;
            }
            others.remove(&id).and_then(|gone| gone.into_parts().2.into_stream())
        } else if let Some(index) = closed {
            tailer.prepare(&mut self.closed[index].stream).await?;
            Some(self.closed.swap_remove(index).stream)
        } else {
            let content = blocking(move || RunningDigest::of(&mut text.reader(), length)).await?;
            let row = FileCheckpoint { left: None, ..row };
            let mut stream = Stream::resume(&self.context, id, row, Some(content));
            tailer.prepare(&mut stream).await?;
            Some(Box::new(stream))
        };
        let Some(stream) = stream else {
            return Ok(IdentifyOutcome::NotYet);
        };
        let mut logs: Vec<_> = others.values().map(|t| Arc::clone(&t.family.key)).collect();
        logs.push(Arc::clone(&tailer.family.key));
        self.join_log(tailer, stream.generation, &known_as, &logs);
        let mut rows = self.preserve_old_row(tailer);
        tailer.attach(stream);
        rows.push((id, None));
        rows.push((tailer.id(), tailer.row()));
        Ok(IdentifyOutcome::Yes(rows))
    }

    /// The file is read as a new one, after what it has in common with another.
    async fn begin(
        &mut self,
        tailer: &mut FileTailer,
        same_to: Option<u64>,
        text: TextSource,
    ) -> io::Result<IdentifyOutcome> {
        let (from, limit) = (tailer.from(), self.context.limit);
        let separator = self.context.decoder.separator();
        let beginning = blocking(move || match same_to {
            Some(length) => ReadStart::after(&text, length, separator),
            None => ReadStart::new(&text, from, limit, separator),
        })
        .await?;
        let mut rows = self.preserve_old_row(tailer);
        let generation = self.store.new_generation();
        let stream = Stream::new(&self.context, tailer.id(), generation, beginning);
        tailer.attach_new(stream).await?;
        rows.push((tailer.id(), tailer.row()));
        Ok(IdentifyOutcome::Yes(rows))
    }

    /// The file's former row, under a key of its own, if no other row is of the same content: a
    /// copy of that content may appear.
    pub(super) fn preserve_old_row(&mut self, tailer: &FileTailer) -> Rows {
        let mut rows = self.release_id(tailer.id());
        let Some(old) = self.store.row(tailer.id()) else {
            return rows;
        };
        let generation = old.generation;
        let others = self.store.of_generation(generation).any(|(id, _)| id != tailer.id());
        let empty = old.content.as_ref().is_none_or(|content| content.length == 0);
        if others || empty || self.closed.iter().any(|c| c.stream.generation == generation) {
            return rows;
        }
        let left = old.left.or_else(|| Some(crate::clock::now().as_second()));
        let origin = Some(old.origin.unwrap_or(tailer.id()));
        rows.push((
            FileId::of_lost(generation),
            Some(FileCheckpoint { left, origin, ..old.clone() }),
        ));
        rows
    }
}

fn open_candidate(id: FileId, other: &mut FileTailer) -> Option<Candidate> {
    let at_end = other.quiet_for().is_some();
    let content = other.stream()?.content().cloned();
    let location = match (other.is_gone(), content) {
        (true, Some(content)) => ContentLocation::Gone(Box::new(content)),
        (true, None) => return None,
        (false, _) => ContentLocation::Open { text: other.text()?, at_end },
    };
    Some(Candidate { id, row: other.row()?, location })
}

/// The digest of the first bytes of a file.
async fn content_to(length: u64, text: &TextSource) -> io::Result<ContentMark> {
    let text = text.clone();
    blocking(move || Ok(RunningDigest::of(&mut text.reader(), length)?.mark())).await
}

/// How far a file equals a known content, if it still does.
async fn still_there(same_to: Option<ContentMark>, text: &TextSource) -> io::Result<Option<u64>> {
    let Some(then) = same_to else {
        return Ok(None);
    };
    let now = content_to(then.length, text).await?;
    Ok((now.length == then.length && now.sha256 == then.sha256).then_some(then.length))
}

/// Makes a changed copy unidentified again. Returns whether it did.
pub(super) fn recheck(tailer: &mut FileTailer) -> io::Result<bool> {
    let TailState::Copy(copy) = &tailer.state else {
        return Ok(false);
    };
    if FileStat::of(tailer.file())? == copy.stamp {
        return Ok(false);
    }
    let same_to = copy.whole.then(|| copy.content.clone());
    tailer.replace_state(TailState::Unknown(Unknown::new(same_to)));
    Ok(true)
}
