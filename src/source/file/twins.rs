//! Files that hold the same as another one, of which nothing was read yet.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use super::content::{self, CommonPrefix};
use super::follow::Follow;
use super::form::Text;
use super::identity::FileId;
use super::state::{State, Unknown, Waits};
use super::tailer::{FileTailer, blocking};

/// Twins of twins that are looked through.
const MAX_TWINS: usize = 8;

impl Follow {
    /// The file lost what was read of it: that goes on as a file of its own, until a copy of it is
    /// found or it is read to its end.
    pub(super) async fn lose(&mut self, tail: &mut FileTailer) {
        self.search_now = true;
        if tail.stream().is_some_and(|stream| stream.fed() == 0) {
            // Nothing was read of what it held: that is found in its copy like any other file.
            tail.forget();
            return;
        }
        tracing::info!(path = ?tail.path(), "the file was cut off or written anew; it is read from its beginning");
        let Some(mut gone) = tail.split_off() else {
            return;
        };
        self.desk.losses += 1;
        // What held a copy of it may hold all of it.
        let mut copies = Vec::new();
        for (id, copy) in &mut self.tails {
            if matches!(&copy.state, State::Copy(_)) && copy.generation() == gone.generation() {
                copy.give_away(State::Unknown(Unknown::new(None)));
                copies.push(*id);
            }
        }
        for id in copies {
            self.order.put_back(id, &self.tails);
        }
        let rows = vec![(tail.id(), None), (gone.id(), gone.row())];
        self.desk.save_surely(rows).await;
        self.tails.insert(gone.id(), gone);
    }

    /// A file that was not read and has no name any more has its place where another one is found
    /// that holds the same.
    pub(super) async fn join_missing(&mut self) {
        let missing = self
            .tails
            .iter()
            .filter(|(_, tail)| matches!(tail.state, State::Unknown(_)) && tail.missing.is_some());
        let missing: Vec<FileId> = missing.map(|(id, _)| *id).collect();
        for id in missing {
            let Some(tail) = self.tails.get(&id) else {
                continue;
            };
            let found = match self.found_twin(tail) {
                Some(twin) => Some(twin),
                None => {
                    let log = Arc::clone(&tail.family.key);
                    let is_twin =
                        |other: &FileTailer| other.family.key == log && other.missing.is_none();
                    self.twin(tail, is_twin).await
                }
            };
            if let Some(twin) = found {
                self.order.move_before(id, twin);
            }
            if let Some(tail) = self.tails.get_mut(&id) {
                tail.twin = found;
            }
        }
    }

    /// The twin that was found of a file before, or the twin of that where it has no name any more.
    fn found_twin(&self, tail: &FileTailer) -> Option<FileId> {
        let mut twin = tail.twin?;
        // Twins have no circle, but for a name that comes back.
        for _ in 0..MAX_TWINS {
            let next = self.tails.get(&twin).filter(|tail| tail.unknown_head().is_some())?;
            match next.missing {
                None => return Some(twin),
                Some(_) => twin = next.twin?,
            }
        }
        None
    }

    /// Whether the file waits for one of another log that holds the same, as its generations have an
    /// order. `sizes` are the numbers of files of all logs.
    pub(super) async fn waits_for_twin(
        &mut self,
        tail: &mut FileTailer,
        sizes: &HashMap<Arc<str>, usize>,
    ) -> bool {
        let rank = |tail: &FileTailer| (sizes.get(&tail.family.key), Arc::clone(&tail.family.key));
        let own = rank(tail);
        let comes_first = |other: &FileTailer| other.family.key != own.1 && rank(other) > own;
        let twin = self.twin(tail, comes_first).await;
        if let (Some(id), State::Unknown(unknown)) = (twin, &mut tail.state) {
            unknown.waits = Some(Waits::For(id));
        }
        twin.is_some()
    }

    /// An unknown file that holds the same as another one does, or one of the two holds more.
    async fn twin(
        &self,
        tail: &FileTailer,
        may_be: impl Fn(&FileTailer) -> bool,
    ) -> Option<FileId> {
        let (text, head) = (tail.text()?, tail.unknown_head()?);
        for (id, other) in &self.tails {
            let alike = other.unknown_head().is_some_and(|other| {
                !other.is_empty() && (head.continues(other) || other.continues(head))
            });
            if *id == tail.id() || head.is_empty() || !alike || !may_be(other) {
                continue;
            }
            let Some(other) = other.text() else {
                continue;
            };
            if let Ok(true) = is_same(text.clone(), other).await {
                return Some(*id);
            }
        }
        None
    }
}

/// Whether one of two texts begins with all of the other.
async fn is_same(one: Text, other: Text) -> io::Result<bool> {
    let common = blocking(move || content::common(&mut one.reader(), &mut other.reader())).await?;
    let CommonPrefix { length, first_ends, second_ends } = common;
    Ok(length > 0 && (first_ends || second_ends))
}
