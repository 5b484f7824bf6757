//! Pairs unread files that have the same content.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use super::compression::TextSource;
use super::content::{self, CommonPrefix};
use super::follow::Follow;
use super::identity::FileId;
use super::state::{TailState, Unknown, WaitReason};
use super::tailer::{FileTailer, blocking};

/// The most steps from a file to the twin of its twin.
const MAX_TWINS: usize = 8;

impl Follow {
    /// The file lost its content: that continues as a separate entry, until a copy of it is found
    /// or it is read to its end.
    pub(super) async fn content_lost(&mut self, tailer: &mut FileTailer) {
        self.search_now = true;
        if tailer.stream().is_some_and(|stream| stream.fed() == 0) {
            // Nothing was read of its content, so its copy is found like any other file.
            tailer.forget();
            return;
        }
        tracing::info!(source = %self.files.context.source, path = ?tailer.path(), "the file was truncated or rewritten; it is read from its beginning");
        let Some(mut gone) = tailer.split_off() else {
            return;
        };
        self.files.losses += 1;
        // Files that held a copy of it may now hold all of it.
        let mut copies = Vec::new();
        for (id, copy) in &mut self.tailers {
            if matches!(&copy.state, TailState::Copy(_)) && copy.generation() == gone.generation() {
                copy.replace_state(TailState::Unknown(Unknown::new(None)));
                copies.push(*id);
            }
        }
        for id in copies {
            self.order.requeue(id, &self.tailers);
        }
        let rows = vec![(tailer.id(), None), (gone.id(), gone.row())];
        self.files.save_with_retry(rows).await;
        self.tailers.insert(gone.id(), gone);
    }

    /// Gives an unread file without a name the place of another file with the same content.
    pub(super) async fn pair_missing(&mut self) {
        let missing = self.tailers.iter().filter(|(_, tailer)| {
            matches!(tailer.state, TailState::Unknown(_)) && tailer.missing.is_some()
        });
        let missing: Vec<FileId> = missing.map(|(id, _)| *id).collect();
        for id in missing {
            let Some(tailer) = self.tailers.get(&id) else {
                continue;
            };
            let found = match self.found_twin(tailer) {
                Some(twin) => Some(twin),
                None => {
                    let log = Arc::clone(&tailer.family.key);
                    let is_twin =
                        |other: &FileTailer| other.family.key == log && other.missing.is_none();
                    self.twin(tailer, is_twin).await
                }
            };
            if let Some(twin) = found {
                self.order.move_before(id, twin);
            }
            if let Some(tailer) = self.tailers.get_mut(&id) {
                tailer.twin = found;
            }
        }
    }

    /// The twin that was found before, or the twin of that one where it has no name any more.
    fn found_twin(&self, tailer: &FileTailer) -> Option<FileId> {
        let mut twin = tailer.twin?;
        // Twins form no cycle, except where a name comes back.
        for _ in 0..MAX_TWINS {
            let next = self.tailers.get(&twin).filter(|tailer| tailer.unknown_head().is_some())?;
            match next.missing {
                None => return Some(twin),
                Some(_) => twin = next.twin?,
            }
        }
        None
    }

    /// Whether the file waits for one of another log with the same content, because that log's
    /// generations have an order. `sizes` are the numbers of files of all logs.
    pub(super) async fn waits_for_twin(
        &mut self,
        tailer: &mut FileTailer,
        sizes: &HashMap<Arc<str>, usize>,
    ) -> bool {
        let rank =
            |tailer: &FileTailer| (sizes.get(&tailer.family.key), Arc::clone(&tailer.family.key));
        let own = rank(tailer);
        let comes_first = |other: &FileTailer| other.family.key != own.1 && rank(other) > own;
        let twin = self.twin(tailer, comes_first).await;
        if let (Some(id), TailState::Unknown(unknown)) = (twin, &mut tailer.state) {
            unknown.waits = Some(WaitReason::OtherFile(id));
        }
        twin.is_some()
    }

    /// An unidentified file with the same content, or where one of the two is a prefix of the
    /// other.
    async fn twin(
        &self,
        tailer: &FileTailer,
        may_be: impl Fn(&FileTailer) -> bool,
    ) -> Option<FileId> {
        let (text, head) = (tailer.text()?, tailer.unknown_head()?);
        for (id, other) in &self.tailers {
            let alike = other.unknown_head().is_some_and(|other| {
                !other.is_empty() && (head.continues(other) || other.continues(head))
            });
            if *id == tailer.id() || head.is_empty() || !alike || !may_be(other) {
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
async fn is_same(one: TextSource, other: TextSource) -> io::Result<bool> {
    let common =
        blocking(move || content::common_prefix(&mut one.reader(), &mut other.reader())).await?;
    let CommonPrefix { length, first_ends, second_ends } = common;
    Ok(length > 0 && (first_ends || second_ends))
}
