//! One open file: what is read of it, or why nothing is.
//!
//! Not here: which files there are and when to look. One invariant: only one file at a time yields
//! the records of a content.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::book::Row;
use super::content::ContentMark;
use super::family::{Age, Family};
use super::finder::Found;
use super::form::{Form, Text, Unpacker};
use super::glance::{self, Glance, Next, Opened, Stamp};
use super::identify::Lost;
use super::identity::{FileId, Head};
use super::state::{Company, Copy, State, Unknown, Waits};
use super::stream::{Common, FileName, Outlet, RestOfLine, Sent, Stream};
use crate::config::source::ReadFrom;
use crate::source::decode::Flush;

/// How a turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// At the present end.
    Quiet,
    /// There is more, but it is another's turn, or time to save.
    More,
    /// There is more, once a claim is saved.
    Unclaimed,
    /// What was read is gone: the file must be looked at anew.
    Replaced,
    /// `stop`, or the receiver is gone: nothing more may be sent.
    Stopped,
}

/// How far a turn may go.
#[derive(Debug, Clone, Copy)]
pub(super) enum Until {
    /// About so many bytes.
    Budget(u64),
    /// The first end of a line at or behind this position, or the end of the file.
    Position(u64),
}

/// An open file.
pub(super) struct Tail {
    common: Arc<Common>,
    path: PathBuf,
    /// `path` as text, for places.
    shown: String,
    id: FileId,
    file: Arc<std::fs::File>,
    form: Option<Form>,
    /// The first bytes of the file, as of the last look.
    head: Head,
    /// The first bytes of its text.
    text_head: Head,
    stamp: Option<Stamp>,
    unpacker: Option<Unpacker>,
    /// Its size when it was found, in bytes.
    size: u64,
    /// Where it is begun if it is new.
    from: ReadFrom,
    /// Bytes of it that were counted as found.
    counted: u64,
    pub(super) family: Family,
    changed: (i64, i64),
    pub(super) state: State,
    /// Whether no name leads to it any more, as of the last look.
    pub(super) deleted: bool,
    /// Since when no pattern finds it.
    pub(super) missing: Option<Instant>,
    /// Whether the last turn failed, so that a lasting failure is logged once.
    failing: bool,
    /// Since when it is neither read to its end nor can be read on.
    stuck: Option<Instant>,
    /// Since when it is read to its present end.
    quiet: Option<Instant>,
    /// Whether its packed stream was cut at the last look, so that it is logged once.
    cut: bool,
    company: Company,
}

impl Tail {
    /// An open file, not yet read. Bytes of its size were counted as found already.
    pub(super) fn new(common: &Arc<Common>, opened: Opened, found: &Found, from: ReadFrom) -> Self {
        let Opened { path, id, file, form, known: _ } = opened;
        let counted = found.size;
        Self {
            common: Arc::clone(common),
            shown: path.to_string_lossy().into_owned(),
            family: Family::of(&path),
            path,
            id,
            file,
            form,
            head: Head::default(),
            text_head: Head::default(),
            stamp: None,
            unpacker: None,
            size: found.size,
            from,
            counted,
            changed: found.changed,
            state: State::Unknown(Unknown::new(None)),
            deleted: false,
            missing: None,
            failing: false,
            stuck: None,
            quiet: None,
            cut: false,
            company: Company::Unknown,
        }
    }

    /// From now on this is what is read of it.
    pub(super) async fn read_as(&mut self, mut stream: Stream) -> io::Result<()> {
        self.prepare(&mut stream).await?;
        self.go_on_with(Box::new(stream));
        Ok(())
    }

    /// Learns what is needed to go on with a content: all of it that can fail.
    pub(super) async fn prepare(&mut self, stream: &mut Stream) -> io::Result<()> {
        if let Some(text) = self.text() {
            self.text_head = {
                let text = text.clone();
                blocking(move || Head::read(&mut text.reader())).await?
            };
            self.teach(&text, stream).await?;
        }
        Ok(())
    }

    /// A content for which it was prepared is read of it from now on.
    pub(super) fn go_on_with(&mut self, stream: Box<Stream>) {
        self.count_read(stream.fed());
        self.state = State::Reading(stream);
        self.forget_looks();
        self.company = Company::Unknown;
        if self.form == Some(Form::Plain) {
            // It may be cut off before it is read.
            self.head = self.text_head.clone();
        }
    }

    /// Whether older generations of it may have been overlooked: it is the file that is written to,
    /// nothing was read of it, and the folder was not searched since it was seen to hold what it
    /// holds. What was cut off before then has its copy in the folder.
    pub(super) fn needs_search(&mut self, just_searched: bool) -> bool {
        let is_new = self.stream().is_some_and(|stream| stream.fed() == 0);
        if !is_new || !self.family.is_live || self.missing.is_some() {
            return false;
        }
        self.company = self.company.next(just_searched);
        self.company != Company::Known
    }

    /// It as a copy of what it holds, if it has no name any more and is read up to its end, `at`.
    pub(super) fn as_copy(&mut self, at: u64) -> Option<Box<Copy>> {
        let metadata = self.file.metadata().ok()?;
        let (stamp, row, _) = (self.stamp?, self.row()?, self.quiet_for()?);
        let stream = self.stream()?;
        let content = stream.content()?.mark();
        let is_read = stream.fed() == at && content.length == at;
        (is_read && metadata.nlink() == 0).then(|| {
            Box::new(Copy {
                generation: stream.generation,
                stamp,
                whole: true,
                row: Row {
                    origin: Some(row.origin.unwrap_or(self.id)),
                    copy: true,
                    versions: Vec::new(),
                    packed: None,
                    ..row
                },
                content,
            })
        })
    }

    /// Lets a stream that is begun behind the first bytes learn what they say, such as the names of
    /// columns. They may stand over several lines.
    async fn teach(&self, text: &Text, stream: &mut Stream) -> io::Result<()> {
        let limit = self.common.limit;
        let mut most = glance::FIRST_BYTES;
        while stream.awaits_beginning() {
            let text = text.clone();
            let beginning = blocking(move || glance::beginning(&text, most)).await?;
            if stream.learn_beginning(&beginning) {
                break;
            }
            if beginning.len() < most {
                stream.forgo_beginning("it has no end");
            } else if most > limit {
                stream.forgo_beginning(&format!("it is longer than `max_line_bytes`, {limit}"));
            }
            // One line that is longer than it may be is enough.
            most = most.saturating_mul(4).min(limit.saturating_add(glance::FIRST_BYTES));
        }
        Ok(())
    }

    /// Counts bytes of a plain file as read. Of a packed one the size is counted at its end.
    fn count_read(&self, bytes: u64) {
        if self.form == Some(Form::Plain) {
            self.common.progress.read(bytes);
        }
    }

    /// Nothing more is read of it: all of it counts as read.
    pub(super) fn count_rest(&self) {
        match (&self.state, self.form) {
            (State::Reading(_), Some(Form::Plain)) => {}
            _ => self.common.progress.read(self.size),
        }
    }

    /// Its content is not known any more.
    pub(super) fn forget(&mut self) -> Option<Box<Stream>> {
        self.counted = 0;
        self.give_away(State::Unknown(Unknown::new(None)))
    }

    /// If it is new, it is read from its first byte.
    pub(super) fn want_whole(&mut self) {
        self.from = ReadFrom::Beginning;
    }

    /// Its content is read elsewhere.
    pub(super) fn give_away(&mut self, state: State) -> Option<Box<Stream>> {
        // Whatever it holds later is new.
        self.want_whole();
        self.forget_looks();
        match std::mem::replace(&mut self.state, state) {
            State::Reading(stream) => Some(stream),
            _ => None,
        }
    }

    fn forget_looks(&mut self) {
        self.head = Head::default();
        self.stamp = None;
        self.unpacker = None;
        self.quiet = None;
        self.cut = false;
    }

    /// Reads and sends lines for a turn. After an error it may be tried again.
    pub(super) async fn turn(&mut self, outlet: &Outlet, until: Until) -> io::Result<Turn> {
        let turn = self.read(outlet, until).await;
        let stuck = turn.is_err() || self.cut;
        self.stuck = stuck.then(|| self.stuck.unwrap_or_else(Instant::now));
        self.quiet = match turn {
            Ok(Turn::Quiet) if !self.cut => Some(self.quiet.unwrap_or_else(Instant::now)),
            _ => None,
        };
        turn
    }

    async fn read(&mut self, outlet: &Outlet, until: Until) -> io::Result<Turn> {
        let (end, position) = match (until, self.stream()) {
            (_, None) => return Ok(Turn::Quiet),
            (Until::Budget(bytes), Some(stream)) => (stream.fed() + bytes, None),
            (Until::Position(position), _) => (position, Some(position)),
        };
        loop {
            match self.send_lines(outlet, position).await {
                Sent::Yes => {}
                Sent::NoRoom => return Ok(Turn::More),
                Sent::Unclaimed => return Ok(Turn::Unclaimed),
                Sent::Stopped => return Ok(Turn::Stopped),
            }
            let Some(stream) = self.stream() else {
                return Ok(Turn::Quiet);
            };
            match until {
                Until::Position(_) if stream.read_to() >= end => return Ok(Turn::Quiet),
                Until::Budget(_) if stream.fed() >= end => return Ok(Turn::More),
                _ if outlet.is_due() => return Ok(Turn::More),
                _ => {}
            }
            let next = self.look().await?;
            if !matches!(next, Next::Cut) {
                self.cut = false;
            }
            match next {
                Next::Quiet => return self.end(outlet).await,
                Next::Cut => {
                    self.report_cut();
                    return Ok(Turn::Quiet);
                }
                Next::Replaced => return Ok(Turn::Replaced),
                Next::Block(block) => {
                    self.count_read(block.len() as u64);
                    if let State::Reading(stream) = &mut self.state {
                        stream.feed(block);
                    }
                }
            }
        }
    }

    /// At the present end: completes what the decoder holds for too long.
    async fn end(&mut self, outlet: &Outlet) -> io::Result<Turn> {
        if let State::Reading(stream) = &mut self.state {
            stream.note_end();
            stream.flush_if_due();
        }
        Ok(turn_of(self.send_lines(outlet, None).await))
    }

    async fn send_lines(&mut self, outlet: &Outlet, end: Option<u64>) -> Sent {
        let file = FileName { shown: &self.shown, size: self.plain_size() };
        match &mut self.state {
            State::Reading(stream) => stream.send_lines(outlet, end, &file).await,
            _ => Sent::Yes,
        }
    }

    fn plain_size(&self) -> u64 {
        match self.form {
            Some(Form::Plain) => self.stamp.map_or(0, |stamp| stamp.size()),
            _ => 0,
        }
    }

    /// Sends what stands behind the last newline, if it is a line, and what the decoder holds; of
    /// later lines none that starts at or behind `end`.
    pub(super) async fn send_rest(
        &mut self,
        outlet: &Outlet,
        rest: RestOfLine,
        flush: Flush,
        end: Option<u64>,
    ) -> Turn {
        if let State::Reading(stream) = &mut self.state {
            stream.take_rest(rest);
            // What an earlier run said to be incomplete, and still is, is not said again.
            if flush != Flush::EndOfStream || !stream.has_nothing_new() {
                stream.flush(flush);
            }
        }
        turn_of(self.send_lines(outlet, end).await)
    }

    /// The file is known by this name now, and was changed at this time.
    pub(super) fn found(&mut self, found: &Found) {
        self.missing = None;
        self.changed = found.changed;
        self.size = found.size;
        if self.path != found.path {
            self.shown = found.path.to_string_lossy().into_owned();
            self.path.clone_from(&found.path);
            let family = Family::of(&found.path);
            // A log that was moved away is still what came before the new one.
            if family.key == self.family.key || self.stream().is_none() {
                self.family = family;
            } else {
                self.family.is_live = false;
            }
        }
    }

    /// Logs a failed turn, once until a turn succeeds.
    pub(super) fn report(&mut self, failure: Option<&io::Error>) {
        if let (Some(error), false) = (failure, self.failing) {
            tracing::warn!(path = ?self.path, %error, "the file cannot be read; it is tried again");
        }
        self.failing = failure.is_some();
    }

    fn report_cut(&mut self) {
        if !std::mem::replace(&mut self.cut, true) {
            tracing::info!(path = ?self.path, "the packed file ends amid its stream; the rest is read when it is there");
        }
    }

    pub(super) fn id(&self) -> FileId {
        self.id
    }

    /// Its size when it was found, in bytes of its text.
    pub(super) fn size(&self) -> u64 {
        match self.form {
            Some(Form::Plain) => self.size,
            _ => u64::MAX,
        }
    }

    pub(super) fn from(&self) -> ReadFrom {
        self.from
    }

    /// Whether every line that starts before `position` was read.
    pub(super) fn reaches(&self, position: u64) -> bool {
        self.stream().is_none_or(|stream| stream.read_to() >= position)
    }

    /// Whether nothing was read of it in this run.
    pub(super) fn is_fresh(&self) -> bool {
        match &self.state {
            State::Unknown(_) => true,
            State::Reading(stream) => !stream.has_begun(),
            State::Copy(_) => false,
        }
    }

    /// The beginning of its text, where something is read of it.
    pub(super) fn text_head(&self) -> &Head {
        &self.text_head
    }

    /// Whether it is as it was when it was found.
    pub(super) fn is_as_found(&self) -> bool {
        let now = Stamp::of(&self.file);
        now.is_ok_and(|now| now == Stamp::new(self.size, self.changed))
    }

    /// Whether something is behind its last newline, or in its decoder.
    pub(super) fn has_rest(&self) -> bool {
        self.stream().is_some_and(Stream::has_rest)
    }

    /// It, as the file that loses what it held.
    pub(super) fn as_lost(&self) -> Lost {
        Lost {
            id: self.id,
            family: self.family.put_aside(),
            head: self.text_head.clone(),
            path: self.shown.clone(),
        }
    }

    /// The beginning of its text, its path, and what is known of it.
    pub(super) fn into_parts(self) -> (Head, String, State) {
        (self.text_head, self.shown, self.state)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn age(&self) -> Age<'_> {
        let is_live = self.family.is_live && self.missing.is_none();
        self.family.age(is_live, self.changed)
    }

    /// Seconds of the epoch when it was changed last.
    pub(super) fn changed_at(&self) -> i64 {
        self.changed.0
    }

    /// Its file and form. `None`: it is too short to tell.
    pub(super) fn text(&self) -> Option<Text> {
        Some(Text { file: Arc::clone(&self.file), form: self.form? })
    }

    pub(super) fn file(&self) -> &Arc<std::fs::File> {
        &self.file
    }

    pub(super) fn set_form(&mut self, form: Form) {
        self.form = Some(form);
    }

    pub(super) fn has_form(&self) -> bool {
        self.form.is_some()
    }

    pub(super) fn stream(&self) -> Option<&Stream> {
        match &self.state {
            State::Reading(stream) => Some(stream),
            _ => None,
        }
    }

    pub(super) fn stream_mut(&mut self) -> Option<&mut Stream> {
        match &mut self.state {
            State::Reading(stream) => Some(stream),
            _ => None,
        }
    }

    /// The generation whose records it yields or holds.
    pub(super) fn generation(&self) -> Option<u64> {
        match &self.state {
            State::Unknown(_) => None,
            State::Reading(stream) => Some(stream.generation),
            State::Copy(copy) => Some(copy.generation),
        }
    }

    /// For how long it has been read to its present end.
    pub(super) fn quiet_for(&self) -> Option<Duration> {
        let waiting = self.stream().is_some_and(Stream::has_waiting);
        self.quiet.filter(|_| !waiting).map(|since| since.elapsed())
    }

    /// It is the same as a known content as far as this.
    pub(super) fn note_same(&mut self, content: ContentMark) {
        if let State::Unknown(unknown) = &mut self.state {
            unknown.same_to = Some(content);
        }
    }

    /// The file that is to be read before it.
    pub(super) fn waits_for(&self) -> Option<FileId> {
        match &self.state {
            State::Unknown(Unknown { waits: Some(Waits::For(id)), .. }) => Some(*id),
            _ => None,
        }
    }

    /// For how long it is not read to its end and cannot be read on.
    pub(super) fn stuck_for(&self) -> Option<Duration> {
        self.stuck.map(|since| since.elapsed())
    }

    pub(super) fn is_cut(&self) -> bool {
        self.cut
    }

    /// The size of a packed file that is read to its end.
    pub(super) fn packed(&self) -> Option<u64> {
        match (self.form, self.quiet) {
            (Some(Form::Gzip | Form::Zstd), Some(_)) => self.stamp.map(|stamp| stamp.size()),
            _ => None,
        }
    }

    /// The checkpoint as it stands; `None` where it has none of its own.
    pub(super) fn row(&mut self) -> Option<Row> {
        let packed = self.packed();
        match &mut self.state {
            State::Unknown(_) => None,
            State::Reading(stream) => {
                let row = stream.row(self.id, &self.text_head, &self.shown);
                Some(Row { packed, ..row })
            }
            State::Copy(copy) => Some(Row { path: self.shown.clone(), ..copy.row.clone() }),
        }
    }

    async fn look(&mut self) -> io::Result<Next> {
        let (Some(text), Some(stream)) = (self.text(), self.stream()) else {
            return Ok(Next::Quiet);
        };
        let glance = Glance {
            text,
            at: stream.fed(),
            head: self.head.clone(),
            stamp: self.stamp,
            recent: stream.recent(),
            unpacker: self.unpacker.take(),
        };
        let grown = self.text_head.is_short();
        let text = self.text().filter(|_| grown);
        let (seen, text_head) = blocking(move || {
            let seen = glance.look()?;
            let head = match (text, &seen.next) {
                (Some(text), Next::Block(_)) => Some(Head::read(&mut text.reader())?),
                _ => None,
            };
            Ok((seen, head))
        })
        .await?;
        self.deleted = seen.deleted;
        if matches!(seen.next, Next::Replaced) {
            return Ok(Next::Replaced);
        }
        if seen.size > self.counted && self.form == Some(Form::Plain) {
            self.common.progress.found(seen.size - self.counted);
            self.counted = seen.size;
        }
        self.text_head = text_head.unwrap_or(std::mem::take(&mut self.text_head));
        self.head = seen.head;
        self.stamp = Some(seen.stamp);
        self.unpacker = seen.unpacker;
        Ok(seen.next)
    }
}

fn turn_of(sent: Sent) -> Turn {
    match sent {
        Sent::Yes => Turn::Quiet,
        Sent::NoRoom => Turn::More,
        Sent::Unclaimed => Turn::Unclaimed,
        Sent::Stopped => Turn::Stopped,
    }
}

/// Runs what blocks on the file system where it holds nobody up.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
