//! The thread that reads: it polls the client, hands records on while there is room, and lets
//! partitions rest while there is none.
//!
//! Not here: how far a partition is settled and claimed (`ledger`), commits (`clerk`), and what comes
//! of partitions that go (`context`). One invariant: the client is polled all the time, so that the group never takes a
//! member that waits for its sink for a dead one.

use std::collections::{BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use rdkafka::Offset;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::clerk;
use super::context::{Context, named};
use super::desk::{Desk, Original};
use super::ends::{Ends, Extent};
use super::flow::Flow;
use super::ledger::{Partition, Passage, Place};
use super::meta::{Envelope, Header};
use crate::ack::{Ack, Verdict};
use crate::config::source::KafkaSource as Settings;
use crate::record::Record;
use crate::source::decode::{self, Decoder};
use crate::source::flight::Flight;
use crate::source::{ReadMode, SourceError, metadata};

/// How long one poll waits for a message: how late a stop, or a commit, may be.
const POLL: Duration = Duration::from_millis(50);
/// How long the sink may have no room before partitions rest. To pause drops what was fetched.
const PATIENCE: Duration = Duration::from_millis(100);
/// How long an errored partition rests before it is read again.
const REST: Duration = Duration::from_secs(1);
/// How long the brokers may take to answer a question.
const ANSWER: Duration = Duration::from_secs(30);

/// Everything the thread needs beside the client.
pub(super) struct Reader {
    pub(super) settings: Settings,
    pub(super) mode: ReadMode,
    pub(super) decoder: Decoder,
    pub(super) desk: Arc<Desk>,
    pub(super) flight: Arc<Flight>,
    pub(super) stop: CancellationToken,
    pub(super) runtime: Handle,
}

/// The records of a message that wait for room: mostly one.
struct Held {
    place: Place,
    records: VecDeque<Record>,
    original: Option<Original>,
    /// Once some of them are on their way: the acknowledgement they share.
    ack: Option<Ack>,
}

/// What reading has come to.
struct Reading {
    out: mpsc::Sender<Record>,
    held: VecDeque<Held>,
    /// There was no room for longer than patience lasts.
    congested: bool,
    flow: Flow,
    /// The state `flow` was last made for.
    flow_of: Option<(u64, bool)>,
    /// When errored partitions may be read again; `None` while there are none.
    rewind_at: Option<Instant>,
    ends: Ends,
    ends_of: u64,
    /// When a run that waits for nothing gives up waiting for partitions.
    alone_at: Instant,
    /// Whose message was the last. Most of the time the next is of the same.
    last: Option<Partition>,
}

/// The next record of the first message that is held, which has an acknowledgement; the message
/// goes with its last.
fn next_of(waiting: &mut VecDeque<Held>) -> Record {
    let held = waiting.front_mut().expect("a message is held");
    let record = held.records.pop_front().expect("a held message has records");
    let ack = held.ack.as_ref().expect("it is on its way").clone();
    if held.records.is_empty() {
        // Its own share goes last, and is settled: the records' shares say what became of it.
        let held = waiting.pop_front().and_then(|held| held.ack);
        held.into_iter().for_each(|share| share.settle(Verdict::Delivered));
    }
    record.with_ack(ack)
}

impl Reading {
    fn partition_of(&mut self, message: &BorrowedMessage<'_>) -> Partition {
        let (topic, number) = (message.topic(), message.partition());
        match &self.last {
            Some(last) if last.number == number && &*last.topic == topic => last.clone(),
            _ => self.last.insert(Partition { topic: topic.into(), number }).clone(),
        }
    }
}

impl Reader {
    /// Reads until `stop` is cancelled, the receiver is gone, or everything is read; then tells
    /// `landed` once every record has its verdict, commits, and leaves the group.
    pub(super) fn run(
        mut self,
        consumer: BaseConsumer<Context>,
        out: mpsc::Sender<Record>,
        landed: oneshot::Sender<()>,
    ) -> Result<(), SourceError> {
        let mut reading = self.reading(out);
        let every = Duration::from_millis(self.settings.commit_interval_ms);
        let desk = Arc::clone(&self.desk);
        let read = std::thread::scope(|scope| {
            let context = Arc::clone(consumer.context());
            let client = &consumer;
            scope.spawn(move || clerk::work(client, &context, every));
            let _dismissal = clerk::Dismissal(&desk);
            let read = self.begin(&consumer).and_then(|()| self.read(&consumer, &mut reading));
            self.drain(&consumer, reading);
            self.post_letters(&consumer);
            // Nobody waits any longer if nobody listens.
            landed.send(()).unwrap_or(());
            read
        });
        let owned: Vec<_> = self.desk.ledger().owned().cloned().collect();
        consumer.context().commit_last(&consumer, &owned);
        self.desk.close();
        consumer.unsubscribe();
        drop(consumer);
        read
    }

    fn reading(&self, out: mpsc::Sender<Record>) -> Reading {
        let now = Instant::now();
        let session = Duration::from_millis(self.settings.session_timeout_ms);
        Reading {
            out,
            held: VecDeque::new(),
            congested: false,
            flow: Flow::default(),
            flow_of: None,
            rewind_at: None,
            ends: Ends::default(),
            ends_of: 0,
            alone_at: now + ANSWER.max(session * 2),
            last: None,
        }
    }

    fn begin(&self, consumer: &BaseConsumer<Context>) -> Result<(), SourceError> {
        let topics: Vec<&str> = self.settings.topics.iter().map(String::as_str).collect();
        if self.mode == ReadMode::Once {
            for topic in topics.iter().filter(|topic| !topic.starts_with('^')) {
                let context = format!("asking the brokers for topic `{topic}`");
                let failed = |why: String| SourceError::Remote { context: context.clone(), why };
                let metadata = consumer
                    .fetch_metadata(Some(topic), ANSWER)
                    .map_err(|error| failed(error.to_string()))?;
                if let Some(error) = metadata.topics().iter().find_map(|topic| topic.error()) {
                    return Err(failed(RDKafkaErrorCode::from(error).to_string()));
                }
            }
        }
        consumer.subscribe(&topics).map_err(|error| remote("subscribing to topics", &error))
    }

    fn read(
        &mut self,
        consumer: &BaseConsumer<Context>,
        reading: &mut Reading,
    ) -> Result<(), SourceError> {
        while !self.stop.is_cancelled() {
            self.tend(consumer, reading);
            if !self.hand_on(reading) {
                break;
            }
            if self.mode == ReadMode::Once && self.has_ended(consumer, reading)? {
                break;
            }
            let wait = if reading.held.is_empty() { POLL } else { Duration::ZERO };
            match consumer.poll(wait) {
                None => {}
                Some(Ok(message)) => self.take(&message, reading),
                Some(Err(KafkaError::PartitionEOF(number))) => reading.ends.exhausted(number),
                Some(Err(error)) => self.mishap(consumer, &error)?,
            }
        }
        Ok(())
    }

    /// What is due beside reading.
    fn tend(&self, consumer: &BaseConsumer<Context>, reading: &mut Reading) {
        let context = consumer.context();
        context.serve_letters();
        let now = Instant::now();
        let state = (self.desk.revision(), reading.congested);
        if reading.flow_of == Some(state) && reading.rewind_at.is_none_or(|at| now < at) {
            return;
        }
        self.rewind(consumer, reading, now);
        self.rest(consumer, reading);
        // What the rewinding itself changed is looked at the next time.
        reading.flow_of = Some(state);
    }

    /// Reads errored partitions again from their first unsettled record, after a rest.
    fn rewind(&self, consumer: &BaseConsumer<Context>, reading: &mut Reading, now: Instant) {
        let errored = self.desk.ledger().errored();
        if errored.is_empty() {
            reading.rewind_at = None;
            return;
        }
        let at = *reading.rewind_at.get_or_insert(now + REST);
        if now < at {
            return;
        }
        reading.rewind_at = Some(now + REST);
        for partition in errored {
            let Some(position) = self.desk.ledger().rewind(&partition) else {
                continue;
            };
            self.desk.revise();
            // Resumed before it is sent back: to resume moves a partition to where it was paused.
            reading.flow.reset(&partition);
            let offset = i64::try_from(position).unwrap_or(i64::MAX);
            let moved = consumer.resume(&named([&partition])).and_then(|()| {
                consumer.seek(&partition.topic, partition.number, Offset::Offset(offset), ANSWER)
            });
            match moved {
                Ok(()) => tracing::warn!(
                    topic = &*partition.topic,
                    partition = partition.number,
                    offset,
                    "a record came back unsettled; reading it again"
                ),
                Err(error) => {
                    consumer.context().logs.error(&error, "a partition could not be read again");
                    // Still errored: it is tried again after another rest.
                    self.desk.ledger().fail(&partition);
                }
            }
        }
    }

    /// Lets partitions rest: all while there is no room, and errored ones.
    fn rest(&self, consumer: &BaseConsumer<Context>, reading: &mut Reading) {
        let (owned, errored): (BTreeSet<_>, BTreeSet<_>) = {
            let ledger = self.desk.ledger();
            (ledger.owned().cloned().collect(), ledger.errored().into_iter().collect())
        };
        let wanted = if reading.congested { owned.clone() } else { errored };
        let change = reading.flow.change(&owned, wanted);
        let mut changed = Ok(());
        if !change.pause.is_empty() {
            changed = consumer.pause(&named(&change.pause));
        }
        if !change.resume.is_empty() {
            changed = changed.and(consumer.resume(&named(&change.resume)));
        }
        if let Err(error) = changed {
            consumer.context().logs.error(&error, "partitions could not be paused or resumed");
        }
    }

    /// Hands on what is held, as long as there is room and it is claimed. `false` where the receiver
    /// is gone.
    fn hand_on(&self, reading: &mut Reading) -> bool {
        let most = self.settings.max_in_flight;
        while let Some(held) = reading.held.front() {
            let permit = match reading.out.try_reserve() {
                Ok(permit) => permit,
                Err(mpsc::error::TrySendError::Closed(())) => return false,
                Err(mpsc::error::TrySendError::Full(())) => {
                    let room = async { timeout(PATIENCE, reading.out.reserve()).await };
                    match self.runtime.block_on(room) {
                        Ok(Ok(permit)) => permit,
                        Ok(Err(_)) => return false,
                        Err(_) => {
                            reading.congested = true;
                            return true;
                        }
                    }
                }
            };
            if held.ack.is_some() {
                permit.send(next_of(&mut reading.held));
                continue;
            }
            let mut passage = self.desk.hand_on(&held.place, most);
            if matches!(passage, Passage::Full | Passage::Unclaimed) {
                passage = self.wait_for(&held.place, most);
            }
            let maybe_sent = match passage {
                Passage::Full | Passage::Unclaimed => {
                    reading.congested = true;
                    return true;
                }
                Passage::Gone => {
                    reading.held.pop_front();
                    continue;
                }
                Passage::First => false,
                Passage::Again => true,
            };
            let Some(held) = reading.held.front_mut() else {
                break;
            };
            let (place, original) = (held.place.clone(), held.original.take());
            let desk = Arc::clone(&self.desk);
            held.ack = Some(self.flight.ack_with_reason(move |verdict, reason| {
                desk.verdict(place, verdict, reason, original);
            }));
            for record in &mut held.records {
                record.maybe_sent = maybe_sent;
            }
            permit.send(next_of(&mut reading.held));
        }
        reading.congested = false;
        true
    }

    /// Waits a little for a record's passage.
    fn wait_for(&self, place: &Place, most: usize) -> Passage {
        let late = Instant::now() + PATIENCE;
        loop {
            let left = late.saturating_duration_since(Instant::now());
            self.desk.wait(left);
            let passage = self.desk.hand_on(place, most);
            if left.is_zero() || !matches!(passage, Passage::Full | Passage::Unclaimed) {
                return passage;
            }
        }
    }

    /// Holds a message that is wanted.
    fn take(&mut self, message: &BorrowedMessage<'_>, reading: &mut Reading) {
        let partition = reading.partition_of(message);
        let Ok(offset) = u64::try_from(message.offset()) else {
            return;
        };
        let Some(tenure) = self.desk.ledger().read(&partition, offset) else {
            return;
        };
        reading.ends.read(&partition, offset);
        let headers = headers(message);
        let records = self.records(message, headers.as_deref());
        let original = self.settings.dead_letter_topic.is_some().then(|| Original {
            key: message.key().map(<[u8]>::to_vec),
            payload: message.payload().map(Bytes::copy_from_slice),
            headers: headers.unwrap_or_default(),
        });
        let place = Place { partition, tenure, offset };
        reading.held.push_back(Held { place, records, original, ack: None });
    }

    /// The records of a message, at least one.
    fn records(
        &self,
        message: &BorrowedMessage<'_>,
        headers: Option<&[Header]>,
    ) -> VecDeque<Record> {
        let envelope = Envelope {
            topic: message.topic(),
            partition: message.partition(),
            offset: message.offset(),
            timestamp: message.timestamp().to_millis(),
            key: message.key(),
            headers: headers.unwrap_or_default(),
        };
        let payload = Bytes::copy_from_slice(message.payload().unwrap_or_default());
        let decoded = match (message.payload(), headers) {
            (_, None) => Err("a header's name is not UTF-8".to_owned()),
            (None, _) => Err("the message has no payload (a tombstone)".to_owned()),
            (Some([]), _) => Err("the message is empty".to_owned()),
            _ => Ok(self.decoder.message(&payload)),
        };
        let (topic, partition, offset) = (envelope.topic, envelope.partition, envelope.offset);
        let place = format_args!("{topic}/{partition}:{offset}");
        let mut records = decode::records_of(decoded, &payload, &place);
        for (part, record) in (0..).zip(&mut records) {
            record.meta = Some(metadata::merge(envelope.meta(), record.meta.take()));
            record.event_time =
                envelope.timestamp.and_then(|at| Timestamp::from_millisecond(at).ok());
            record.transport_id = envelope.id().map(|id| decode::id_of_part(id, part));
        }
        records.into()
    }

    /// Whether everything that was there at the start has been sent.
    fn has_ended(
        &self,
        consumer: &BaseConsumer<Context>,
        reading: &mut Reading,
    ) -> Result<bool, SourceError> {
        let revision = self.desk.revision();
        if revision == 0 {
            if Instant::now() < reading.alone_at {
                return Ok(false);
            }
            tracing::warn!("no partition came: other members of the group have them all");
            return Ok(true);
        }
        if reading.ends_of != revision {
            let owned: BTreeSet<_> = self.desk.ledger().owned().cloned().collect();
            reading.ends.retain(|partition| owned.contains(partition));
            for partition in owned {
                if !reading.ends.knows(&partition) {
                    let extent = extent(consumer, &partition)
                        .map_err(|error| remote("asking for a partition's end", &error))?;
                    let earliest = self.settings.auto_offset_reset.is_earliest();
                    reading.ends.add(partition, extent, earliest);
                }
            }
            reading.ends_of = revision;
        }
        let nothing_yet = self.desk.ledger().owned().next().is_none();
        if nothing_yet && Instant::now() < reading.alone_at {
            return Ok(false);
        }
        Ok(reading.held.is_empty() && reading.ends.reached())
    }

    /// What went wrong beside the messages. Most of it passes; what does not ends the source.
    fn mishap(
        &self,
        consumer: &BaseConsumer<Context>,
        error: &KafkaError,
    ) -> Result<(), SourceError> {
        let code = error.rdkafka_error_code();
        let for_good = matches!(error, KafkaError::MessageConsumptionFatal(_))
            || matches!(code, Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::Fatal));
        if for_good {
            return Err(remote("reading", error));
        }
        let told = matches!(
            code,
            Some(RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::AllBrokersDown)
        );
        // Lost connections are told by the client itself, with their addresses.
        if !told {
            consumer.context().logs.error(error, "reading goes on");
        }
        Ok(())
    }

    /// Waits until every record has its verdict. The client is polled on, so that the group waits
    /// for us only where it must; what it still yields is not ours to settle any more.
    fn drain(&self, consumer: &BaseConsumer<Context>, mut reading: Reading) {
        reading.held.clear();
        reading.congested = true;
        let Reading { out, held, .. } = reading;
        // The receiver must see the end, or it would wait for more while we wait for it.
        drop((out, held));
        let mut revision = None;
        loop {
            let step = async { timeout(POLL, self.flight.landed()).await };
            if self.runtime.block_on(step).is_ok() {
                return;
            }
            consumer.context().serve_letters();
            if revision != Some(self.desk.revision()) {
                revision = Some(self.desk.revision());
                self.rest_all(consumer);
            }
            drop(consumer.poll(Duration::ZERO));
        }
    }

    fn rest_all(&self, consumer: &BaseConsumer<Context>) {
        let owned: Vec<_> = self.desk.ledger().owned().cloned().collect();
        if let Err(error) = consumer.pause(&named(&owned)) {
            consumer.context().logs.error(&error, "partitions could not be paused");
        }
    }

    /// Waits until the letters are written, within a limit: without it a topic that refuses them
    /// would hold up the stop for ever. What is left is read again by the next run.
    fn post_letters(&self, consumer: &BaseConsumer<Context>) {
        if self.settings.dead_letter_topic.is_none() {
            return;
        }
        let deadline = Instant::now() + Duration::from_millis(self.settings.drain_timeout_ms);
        while self.desk.ledger().in_flight() > 0 && Instant::now() < deadline {
            consumer.context().serve_letters();
            drop(consumer.poll(Duration::ZERO));
            self.desk.wait(POLL);
        }
    }
}

/// The headers of a message; `None` where the client cannot read them.
fn headers(message: &BorrowedMessage<'_>) -> Option<Vec<Header>> {
    let Some(headers) = message.headers() else {
        return Some(Vec::new());
    };
    // The client panics at a name that is not UTF-8: one bad message must not end the source.
    let read = || {
        let owned = headers.iter().map(|h| (h.key.to_owned(), h.value.map(<[u8]>::to_vec)));
        owned.collect()
    };
    catch_unwind(AssertUnwindSafe(read)).ok()
}

fn extent(consumer: &BaseConsumer<Context>, partition: &Partition) -> Result<Extent, KafkaError> {
    let (low, high) = consumer.fetch_watermarks(&partition.topic, partition.number, ANSWER)?;
    let committed = consumer.committed_offsets(named([partition]), ANSWER)?;
    let committed = committed.elements().first().and_then(|element| match element.offset() {
        Offset::Offset(offset) => u64::try_from(offset).ok(),
        _ => None,
    });
    let number = |offset: i64| u64::try_from(offset).unwrap_or(0);
    Ok(Extent { low: number(low), high: number(high), committed })
}

fn remote(context: &str, error: &KafkaError) -> SourceError {
    SourceError::Remote { context: context.to_owned(), why: error.to_string() }
}
