//! Finding out what unknown files are, and acting on it.
//!
//! # Invariants
//!
//! What was decided is saved before the file's first record is sent.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::checkpoints::FileCheckpoint;
use super::content::{ContentMark, Running};
use super::decide::{Candidate, Decision, Host, decide};
use super::file_set::{FileSet, Tails};
use super::form::{Form, Text};
use super::identity::{FileHead, FileId};
use super::moved::{Original, may_begin, wait_for};
use super::read::{Beginning, FileStat};
use super::state::{Compared, Copy, State, Unknown, Waits};
use super::stream::Stream;
use super::tailer::{FileTailer, blocking};

/// How long a log that begins as its last generation did may be a copy that is being made.
const YOUNG_COPY_TIMEOUT: Duration = Duration::from_secs(2);

/// What is to be saved.
pub(super) type Rows = Vec<(FileId, Option<FileCheckpoint>)>;

/// Whether there is more to come of a file before it can be told what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// It is not its turn: it is only told whether its content is known.
    OnlyKnown,
    Wait,
    /// There is nothing to wait for: it is decided now.
    DecideNow,
}

/// What was found out.
pub(super) enum Identified {
    /// It is known now; with what is to be saved.
    Yes(Rows),
    NotYet,
}

impl FileSet {
    /// Finds out what a file is. `others` are the other open files.
    pub(super) async fn identify(
        &mut self,
        tail: &mut FileTailer,
        others: &mut Tails,
        patience: Patience,
    ) -> io::Result<Identified> {
        let file = Arc::clone(tail.file());
        let path = tail.path().to_owned();
        let form = blocking(move || Form::of(&file, &path)).await?;
        let stamp = FileStat::of(tail.file())?;
        let State::Unknown(unknown) = &mut tail.state else {
            return Ok(Identified::NotYet);
        };
        unknown.note_stamp(stamp);
        unknown.waits = None;
        let (age, same_to) = (unknown.since.elapsed(), unknown.same_to.clone());
        let form = match (form, patience) {
            (Some(form), _) => form,
            (None, Patience::DecideNow) => Form::Plain,
            (None, _) => {
                unknown.waits = Some(Waits::ForBytes);
                return Ok(Identified::NotYet);
            }
        };
        tail.set_form(form);
        let text = Text { file: Arc::clone(tail.file()), form };
        let for_head = text.clone();
        let head = blocking(move || FileHead::read(&mut for_head.reader())).await?;
        if let State::Unknown(unknown) = &mut tail.state {
            unknown.note_head(&head);
        }
        let candidates = self.candidates(tail, &head, others);
        let decision = if head.is_empty() {
            None
        } else if candidates.is_empty() {
            Some(Decision::New)
        } else {
            // What has no name any more is not written to.
            let family = match tail.missing {
                Some(_) => tail.family.put_aside(),
                None => tail.family.clone(),
            };
            let text = text.clone();
            blocking(move || decide(&text, &family, &candidates)).await?
        };
        let losses = self.losses;
        if let State::Unknown(unknown) = &mut tail.state {
            unknown.compared = Some(Compared { stamp, losses });
        }
        let now = patience == Patience::DecideNow;
        match decision {
            None if !now => Ok(wait_for(tail, Waits::ForBytes)),
            Some(Decision::Beginning) if !now && age < YOUNG_COPY_TIMEOUT => Ok(Identified::NotYet),
            Some(Decision::Wait { id }) => Ok(wait_for(tail, Waits::For(id))),
            Some(Decision::Copy { id, content, whole }) => {
                Ok(self.copy(tail, others, id, &head, (content, whole), stamp))
            }
            Some(Decision::Adopt { id }) => self.adopt(tail, others, id, text).await,
            Some(Decision::Fork { id, at }) => {
                let original = Original { id, at };
                if let Some(rows) = self.take_over(tail, others, original).await? {
                    return Ok(Identified::Yes(rows));
                }
                if !now && others.get(&id).is_some_and(|original| !may_begin(original, at)) {
                    tail.note_same(content_to(at, &text).await?);
                    return Ok(wait_for(tail, Waits::For(id)));
                }
                match patience {
                    Patience::OnlyKnown => Ok(Identified::NotYet),
                    _ => self.begin(tail, Some(at), text).await,
                }
            }
            None | Some(Decision::New | Decision::Beginning) => {
                // Another content may have taken the place of the one that was seen.
                if patience == Patience::OnlyKnown || !(now || tail.has_company()) {
                    return Ok(Identified::NotYet);
                }
                let behind = still_there(same_to, &text).await?;
                self.begin(tail, behind, text).await
            }
        }
    }

    /// What is known that the file may hold.
    fn candidates(
        &mut self,
        tail: &FileTailer,
        head: &FileHead,
        others: &mut Tails,
    ) -> Vec<Candidate> {
        let mut ids: BTreeSet<FileId> = self.book.alike(head).into_iter().collect();
        if head.is_short() {
            ids.extend(self.book.longer_than(head, &tail.family));
        }
        ids.remove(&tail.id());
        let mut candidates = Vec::new();
        for id in ids {
            let Some(saved) = self.book.row(id).cloned() else {
                continue;
            };
            let candidate = match others.get_mut(&id) {
                Some(other) if other.stream().is_some() => open_candidate(id, other),
                // What it holds is held by another one too.
                Some(other) if other.generation().is_some() => None,
                // It may not hold any more what it held.
                Some(_) | None => Some(self.closed_candidate(id, saved)),
            };
            candidates.extend(candidate.filter(|known| {
                let read = known.row.content.as_ref().map_or(0, |content| content.length);
                let begun = known.row.head.length() > 0;
                let alike = head.has(&known.row.head)
                    || (head.is_short() && known.row.head.length() > head.length());
                alike && (read > 0 || (begun && !matches!(known.host, Host::AtPath)))
            }));
        }
        // Of rows that know the same of a content, the one that was read furthest says how far.
        candidates.sort_by_key(|known| std::cmp::Reverse(known.row.reach()));
        candidates
    }

    fn closed_candidate(&mut self, id: FileId, saved: FileCheckpoint) -> Candidate {
        let closed = self
            .closed
            .iter_mut()
            .find(|closed| closed.id == id && closed.stream.generation == saved.generation);
        let row = closed.map_or(saved, |closed| closed.row());
        Candidate { id, row, host: Host::AtPath }
    }

    /// The row of a candidate as it stands.
    fn row_now(&mut self, id: FileId, others: &mut Tails) -> Option<FileCheckpoint> {
        if let Some(row) =
            others.get_mut(&id).filter(|t| t.stream().is_some()).and_then(FileTailer::row)
        {
            return Some(row);
        }
        let saved = self.book.row(id).cloned()?;
        Some(self.closed_candidate(id, saved).row)
    }

    /// All that the file holds is read from another one.
    fn copy(
        &mut self,
        tail: &mut FileTailer,
        others: &mut Tails,
        id: FileId,
        head: &FileHead,
        (content, whole): (ContentMark, bool),
        stamp: FileStat,
    ) -> Identified {
        let Some(known) = self.row_now(id, others) else {
            return Identified::NotYet;
        };
        tracing::info!(path = ?tail.path(), of = ?known.path, "the file is a copy of what is read already; it is not read again");
        let mut copy = Copy {
            generation: known.generation,
            stamp,
            whole,
            row: FileCheckpoint {
                head: head.fingerprint(),
                path: tail.path().to_string_lossy().into_owned(),
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
        let mut rows = self.keep_old_row(tail);
        rows.push((tail.id(), Some(copy.row.clone())));
        tail.state = State::Copy(Box::new(copy));
        Identified::Yes(rows)
    }

    /// The file goes on where another one is left that is not there any more.
    async fn adopt(
        &mut self,
        tail: &mut FileTailer,
        others: &mut Tails,
        id: FileId,
        text: Text,
    ) -> io::Result<Identified> {
        let Some(row) = self.row_now(id, others) else {
            return Ok(Identified::NotYet);
        };
        let length = row.content.as_ref().map_or(0, |content| content.length);
        tracing::info!(path = ?tail.path(), known_as = ?row.path, position = row.position, "the file holds what was read before under another identity; it goes on at its checkpoint");
        let known_as = row.path.clone();
        let is_gone = others.get(&id).is_some_and(FileTailer::is_gone);
        let closed = self
            .closed
            .iter()
            .position(|closed| closed.id == id && closed.stream.generation == row.generation);
        let stream = if is_gone {
            if let Some(stream) = others.get_mut(&id).and_then(FileTailer::stream_mut) {
                tail.prepare(stream).await?;
            }
            others.remove(&id).and_then(|gone| gone.into_parts().2.into_stream())
        } else if let Some(index) = closed {
            tail.prepare(&mut self.closed[index].stream).await?;
            Some(self.closed.swap_remove(index).stream)
        } else {
            let content = blocking(move || Running::of(&mut text.reader(), length)).await?;
            let row = FileCheckpoint { left: None, ..row };
            let mut stream = Stream::resume(&self.common, id, row, Some(content));
            tail.prepare(&mut stream).await?;
            Some(Box::new(stream))
        };
        let Some(stream) = stream else {
            return Ok(Identified::NotYet);
        };
        let mut logs: Vec<_> = others.values().map(|t| Arc::clone(&t.family.key)).collect();
        logs.push(Arc::clone(&tail.family.key));
        self.join_log(tail, stream.generation, &known_as, &logs);
        let mut rows = self.keep_old_row(tail);
        tail.go_on_with(stream);
        rows.push((id, None));
        rows.push((tail.id(), tail.row()));
        Ok(Identified::Yes(rows))
    }

    /// The file is read as a new one, behind what it has in common with another.
    async fn begin(
        &mut self,
        tail: &mut FileTailer,
        same_to: Option<u64>,
        text: Text,
    ) -> io::Result<Identified> {
        let (from, limit) = (tail.from(), self.common.limit);
        let separator = self.common.decoder.separator();
        let beginning = blocking(move || match same_to {
            Some(length) => Beginning::behind(&text, length, separator),
            None => Beginning::new(&text, from, limit, separator),
        })
        .await?;
        let mut rows = self.keep_old_row(tail);
        let generation = self.book.new_generation();
        let stream = Stream::new(&self.common, tail.id(), generation, beginning);
        tail.read_as(stream).await?;
        rows.push((tail.id(), tail.row()));
        Ok(Identified::Yes(rows))
    }

    /// The row that stood for the file so far, under a key of its own, if no other row is about the
    /// same: a copy of what it held may turn up.
    pub(super) fn keep_old_row(&mut self, tail: &FileTailer) -> Rows {
        let mut rows = self.free_id(tail.id());
        let Some(old) = self.book.row(tail.id()) else {
            return rows;
        };
        let generation = old.generation;
        let others = self.book.of_generation(generation).any(|(id, _)| id != tail.id());
        let empty = old.content.as_ref().is_none_or(|content| content.length == 0);
        if others || empty || self.closed.iter().any(|c| c.stream.generation == generation) {
            return rows;
        }
        let left = old.left.or_else(|| Some(crate::clock::now().as_second()));
        let origin = Some(old.origin.unwrap_or(tail.id()));
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
    let host = match (other.is_gone(), content) {
        (true, Some(content)) => Host::Gone(Box::new(content)),
        (true, None) => return None,
        (false, _) => Host::Open { text: other.text()?, at_end },
    };
    Some(Candidate { id, row: other.row()?, host })
}

/// The digest of the first bytes of a file.
async fn content_to(length: u64, text: &Text) -> io::Result<ContentMark> {
    let text = text.clone();
    blocking(move || Ok(Running::of(&mut text.reader(), length)?.mark())).await
}

/// How far a file is the same as a known content, if it still holds what it held then.
async fn still_there(same_to: Option<ContentMark>, text: &Text) -> io::Result<Option<u64>> {
    let Some(then) = same_to else {
        return Ok(None);
    };
    let now = content_to(then.length, text).await?;
    Ok((now.length == then.length && now.sha256 == then.sha256).then_some(then.length))
}

/// A copy that changed is unknown. Whether it is one.
pub(super) fn recheck(tail: &mut FileTailer) -> io::Result<bool> {
    let State::Copy(copy) = &tail.state else {
        return Ok(false);
    };
    if FileStat::of(tail.file())? == copy.stamp {
        return Ok(false);
    }
    let same_to = copy.whole.then(|| copy.content.clone());
    tail.give_away(State::Unknown(Unknown::new(same_to)));
    Ok(true)
}
