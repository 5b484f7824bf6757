//! The poll thread: it polls the client, forwards records while there is room, and pauses
//! partitions while there is none.
//!
//! # Invariants
//!
//! The client is polled all the time, so that the group does not remove a member that waits for its
//! sink.

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

use super::callbacks::{ConsumerCallbacks, partition_list};
use super::committer;
use super::consumer_state::{ConsumerState, SourceMessage};
use super::end_offsets::{EndOffsets, OffsetBounds};
use super::headers::{Header, header_values};
use super::partitions::{Admission, Partition, RecordHandle};
use super::pause::PauseController;
use crate::ack::{Ack, Verdict};
use crate::config::source::KafkaSourceConfig as Settings;
use crate::record::Record;
use crate::source::broker_message::BrokerMessage;
use crate::source::decode::{self, Decoder};
use crate::source::in_flight::InFlightTracker;
use crate::source::{ReadMode, SourceError, metadata};

/// How long one poll waits for a message; a stop or a commit is delayed at most this long.
const POLL_TIMEOUT: Duration = Duration::from_millis(50);
/// How long the sink may have no room before partitions are paused. Pausing discards fetched
/// messages.
const CONGESTION_TIMEOUT: Duration = Duration::from_millis(100);
/// How long an errored partition is paused before it is read again.
const REWIND_INTERVAL: Duration = Duration::from_secs(1);
/// How long the brokers may take to answer.
const BROKER_TIMEOUT: Duration = Duration::from_secs(30);

/// What the poll thread needs besides the client.
pub(super) struct Reader {
    pub(super) settings: Settings,
    pub(super) mode: ReadMode,
    pub(super) decoder: Decoder,
    pub(super) state: Arc<ConsumerState>,
    pub(super) in_flight: Arc<InFlightTracker>,
    pub(super) stop: CancellationToken,
    pub(super) runtime: Handle,
}

/// The records of a message that wait for room; usually one.
struct BufferedMessage {
    handle: RecordHandle,
    records: VecDeque<Record>,
    source_message: Option<SourceMessage>,
    /// The acknowledgement that they share, once the first of them was sent.
    ack: Option<Ack>,
}

/// The state of reading.
struct ReadState {
    out: mpsc::Sender<Record>,
    buffered: VecDeque<BufferedMessage>,
    /// There was no room for longer than [`CONGESTION_TIMEOUT`].
    congested: bool,
    pauses: PauseController,
    /// The revision and congestion for which `pauses` was last computed.
    pauses_for: Option<(u64, bool)>,
    /// When errored partitions are read again; `None` while there are none.
    rewind_at: Option<Instant>,
    ends: EndOffsets,
    ends_for: u64,
    /// When a run with `--once` stops waiting for an assignment.
    assignment_deadline: Instant,
    /// The partition of the last message. Usually the next message is of the same one.
    last: Option<Partition>,
}

/// The next record of the first buffered message, with its acknowledgement; the message is removed
/// with its last record.
fn next_record(waiting: &mut VecDeque<BufferedMessage>) -> Record {
    let buffered = waiting.front_mut().expect("a message is buffered");
    let record = buffered.records.pop_front().expect("a buffered message has records");
    let ack = buffered.ack.as_ref().expect("it is on its way").clone();
    if buffered.records.is_empty() {
        // The message's own clone of the acknowledgement is dropped last, as settled: the clones of
        // the records decide the verdict.
        let buffered = waiting.pop_front().and_then(|buffered| buffered.ack);
        buffered.into_iter().for_each(|share| share.settle(Verdict::Delivered));
    }
    record.with_ack(ack)
}

impl ReadState {
    fn partition_of(&mut self, message: &BorrowedMessage<'_>) -> Partition {
        let (topic, number) = (message.topic(), message.partition());
        match &self.last {
            Some(last) if last.number == number && &*last.topic == topic => last.clone(),
            _ => self.last.insert(Partition { topic: topic.into(), number }).clone(),
        }
    }
}

impl Reader {
    /// Reads until `stop` is cancelled, the receiver is dropped, or everything is read; then
    /// signals `settled` once every record has its verdict, commits, and leaves the group.
    pub(super) fn run(
        mut self,
        consumer: BaseConsumer<ConsumerCallbacks>,
        out: mpsc::Sender<Record>,
        settled: oneshot::Sender<()>,
    ) -> Result<(), SourceError> {
        let mut reading = self.reading(out);
        let every = Duration::from_millis(self.settings.commit_interval_ms);
        let state = Arc::clone(&self.state);
        let read = std::thread::scope(|scope| {
            let context = Arc::clone(consumer.context());
            let client = &consumer;
            scope.spawn(move || committer::work(client, &context, every));
            let _dismissal = committer::StopOnDrop(&state);
            let read = self.begin(&consumer).and_then(|()| self.read(&consumer, &mut reading));
            self.drain(&consumer, reading);
            self.flush_dead_letters(&consumer);
            // The receiver may be dropped: then no task waits for it.
            settled.send(()).unwrap_or(());
            read
        });
        let owned: Vec<_> = self.state.tracker().owned().cloned().collect();
        consumer.context().commit_final(&consumer, &owned);
        self.state.close();
        consumer.unsubscribe();
        drop(consumer);
        read
    }

    fn reading(&self, out: mpsc::Sender<Record>) -> ReadState {
        let now = Instant::now();
        let session = Duration::from_millis(self.settings.session_timeout_ms);
        ReadState {
            out,
            buffered: VecDeque::new(),
            congested: false,
            pauses: PauseController::default(),
            pauses_for: None,
            rewind_at: None,
            ends: EndOffsets::default(),
            ends_for: 0,
            assignment_deadline: now + BROKER_TIMEOUT.max(session * 2),
            last: None,
        }
    }

    fn begin(&self, consumer: &BaseConsumer<ConsumerCallbacks>) -> Result<(), SourceError> {
        let topics: Vec<&str> = self.settings.topics.iter().map(String::as_str).collect();
        if self.mode == ReadMode::Once {
            for topic in topics.iter().filter(|topic| !topic.starts_with('^')) {
                let context = format!("asking the brokers for topic `{topic}`");
                let failed = |why: String| SourceError::Remote { context: context.clone(), why };
                let metadata = consumer
                    .fetch_metadata(Some(topic), BROKER_TIMEOUT)
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
        consumer: &BaseConsumer<ConsumerCallbacks>,
        reading: &mut ReadState,
    ) -> Result<(), SourceError> {
        while !self.stop.is_cancelled() {
            self.do_housekeeping(consumer, reading);
            if !self.admit(reading) {
                break;
            }
            if self.mode == ReadMode::Once && self.has_ended(consumer, reading)? {
                break;
            }
            let wait = if reading.buffered.is_empty() { POLL_TIMEOUT } else { Duration::ZERO };
            match consumer.poll(wait) {
                None => {}
                Some(Ok(message)) => self.take(&message, reading),
                Some(Err(KafkaError::PartitionEOF(number))) => reading.ends.exhausted(number),
                Some(Err(error)) => self.handle_error(consumer, &error)?,
            }
        }
        Ok(())
    }

    /// What is due besides reading.
    fn do_housekeeping(&self, consumer: &BaseConsumer<ConsumerCallbacks>, reading: &mut ReadState) {
        let context = consumer.context();
        context.poll_dead_letters();
        let now = Instant::now();
        let state = (self.state.revision(), reading.congested);
        if reading.pauses_for == Some(state) && reading.rewind_at.is_none_or(|at| now < at) {
            return;
        }
        self.rewind(consumer, reading, now);
        self.pause_partitions(consumer, reading);
        // A change that the rewind itself made is handled the next time.
        reading.pauses_for = Some(state);
    }

    /// Reads errored partitions again from their first unsettled record, after a pause.
    fn rewind(
        &self,
        consumer: &BaseConsumer<ConsumerCallbacks>,
        reading: &mut ReadState,
        now: Instant,
    ) {
        let errored = self.state.tracker().errored();
        if errored.is_empty() {
            reading.rewind_at = None;
            return;
        }
        let at = *reading.rewind_at.get_or_insert(now + REWIND_INTERVAL);
        if now < at {
            return;
        }
        reading.rewind_at = Some(now + REWIND_INTERVAL);
        for partition in errored {
            let Some(position) = self.state.tracker().rewind(&partition) else {
                continue;
            };
            self.state.bump_revision();
            // Resumed before the seek: resuming moves a partition back to where it was paused.
            reading.pauses.reset(&partition);
            let offset = i64::try_from(position).unwrap_or(i64::MAX);
            let moved = consumer.resume(&partition_list([&partition])).and_then(|()| {
                consumer.seek(
                    &partition.topic,
                    partition.number,
                    Offset::Offset(offset),
                    BROKER_TIMEOUT,
                )
            });
            match moved {
                Ok(()) => tracing::warn!(
                    topic = &*partition.topic,
                    partition = partition.number,
                    offset,
                    "a record was not settled; the partition is read again from it"
                ),
                Err(error) => {
                    consumer.context().logger.error(&error, "an errored partition could not be read again; it is tried again after a pause");
                    // Still errored: tried again after another pause.
                    self.state.tracker().mark_errored(&partition);
                }
            }
        }
    }

    /// Pauses partitions: all while there is no room, and errored ones.
    fn pause_partitions(
        &self,
        consumer: &BaseConsumer<ConsumerCallbacks>,
        reading: &mut ReadState,
    ) {
        let (owned, errored): (BTreeSet<_>, BTreeSet<_>) = {
            let tracker = self.state.tracker();
            (tracker.owned().cloned().collect(), tracker.errored().into_iter().collect())
        };
        let wanted = if reading.congested { owned.clone() } else { errored };
        let change = reading.pauses.plan(&owned, wanted);
        let mut changed = Ok(());
        if !change.pause.is_empty() {
            changed = consumer.pause(&partition_list(&change.pause));
        }
        if !change.resume.is_empty() {
            changed = changed.and(consumer.resume(&partition_list(&change.resume)));
        }
        if let Err(error) = changed {
            consumer.context().logger.error(
                &error,
                "partitions could not be paused or resumed in the client; it is tried again",
            );
        }
    }

    /// Forwards buffered records, as long as there is room and they are claimed. `false` where the
    /// receiver is dropped.
    fn admit(&self, reading: &mut ReadState) -> bool {
        let most = self.settings.max_in_flight;
        while let Some(buffered) = reading.buffered.front() {
            let permit = match reading.out.try_reserve() {
                Ok(permit) => permit,
                Err(mpsc::error::TrySendError::Closed(())) => return false,
                Err(mpsc::error::TrySendError::Full(())) => {
                    let room = async { timeout(CONGESTION_TIMEOUT, reading.out.reserve()).await };
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
            if buffered.ack.is_some() {
                permit.send(next_record(&mut reading.buffered));
                continue;
            }
            let mut admission = self.state.admit(&buffered.handle, most);
            if matches!(admission, Admission::AtCapacity | Admission::AwaitingClaim) {
                admission = self.wait_for_admission(&buffered.handle, most);
            }
            let maybe_sent = match admission {
                Admission::AtCapacity | Admission::AwaitingClaim => {
                    reading.congested = true;
                    return true;
                }
                Admission::Revoked => {
                    reading.buffered.pop_front();
                    continue;
                }
                Admission::Fresh => false,
                Admission::MaybeRedelivered => true,
            };
            let Some(buffered) = reading.buffered.front_mut() else {
                break;
            };
            let (handle, source_message) =
                (buffered.handle.clone(), buffered.source_message.take());
            let state = Arc::clone(&self.state);
            buffered.ack = Some(self.in_flight.ack_with_reason(move |verdict, reason| {
                state.verdict(handle, verdict, reason, source_message);
            }));
            for record in &mut buffered.records {
                record.maybe_sent = maybe_sent;
            }
            permit.send(next_record(&mut reading.buffered));
        }
        reading.congested = false;
        true
    }

    /// Waits a short time until a record may be forwarded.
    fn wait_for_admission(&self, handle: &RecordHandle, most: usize) -> Admission {
        let late = Instant::now() + CONGESTION_TIMEOUT;
        loop {
            let left = late.saturating_duration_since(Instant::now());
            self.state.wait(left);
            let admission = self.state.admit(handle, most);
            if left.is_zero()
                || !matches!(admission, Admission::AtCapacity | Admission::AwaitingClaim)
            {
                return admission;
            }
        }
    }

    /// Buffers a message, if its partition is ours.
    fn take(&mut self, message: &BorrowedMessage<'_>, reading: &mut ReadState) {
        let partition = reading.partition_of(message);
        let Ok(offset) = u64::try_from(message.offset()) else {
            return;
        };
        let Some(epoch) = self.state.tracker().read(&partition, offset) else {
            return;
        };
        reading.ends.read(&partition, offset);
        let headers = headers(message);
        let records = self.records(message, headers.as_deref());
        let source_message = self.settings.dead_letter_topic.is_some().then(|| SourceMessage {
            key: message.key().map(<[u8]>::to_vec),
            payload: message.payload().map(Bytes::copy_from_slice),
            headers: headers.unwrap_or_default(),
        });
        let handle = RecordHandle { partition, epoch, offset };
        reading.buffered.push_back(BufferedMessage { handle, records, source_message, ack: None });
    }

    /// The records of a message, at least one.
    fn records(
        &self,
        message: &BorrowedMessage<'_>,
        headers: Option<&[Header]>,
    ) -> VecDeque<Record> {
        let transport = BrokerMessage {
            broker: "kafka",
            topic: message.topic(),
            partition: message.partition().into(),
            offset: message.offset(),
            timestamp: message.timestamp().to_millis(),
            key: message.key(),
        };
        let payload = Bytes::copy_from_slice(message.payload().unwrap_or_default());
        let decoded = match (message.payload(), headers) {
            (_, None) => Err("a header's name is not UTF-8".to_owned()),
            (None, _) => Err("the message has no payload (a tombstone)".to_owned()),
            (Some([]), _) => Err("the message is empty".to_owned()),
            _ => Ok(self.decoder.message(&payload)),
        };
        let mut records = decode::records_of(decoded, &payload, &transport.location());
        let headers = header_values(headers.unwrap_or_default());
        for (part, record) in (0..).zip(&mut records) {
            let meta = transport.meta().with("headers", &headers);
            record.meta = Some(metadata::merge(meta.finish(), record.meta.take()));
            record.event_time =
                transport.timestamp.and_then(|at| Timestamp::from_millisecond(at).ok());
            record.transport_id = transport.id().map(|id| decode::id_of_part(id, part));
        }
        records.into()
    }

    /// Whether everything that was there at the start has been sent.
    fn has_ended(
        &self,
        consumer: &BaseConsumer<ConsumerCallbacks>,
        reading: &mut ReadState,
    ) -> Result<bool, SourceError> {
        let revision = self.state.revision();
        if revision == 0 {
            if Instant::now() < reading.assignment_deadline {
                return Ok(false);
            }
            tracing::warn!(
                "no partition was assigned, because other members of the group own all of them; \
                 this run reads nothing"
            );
            return Ok(true);
        }
        if reading.ends_for != revision {
            let owned: BTreeSet<_> = self.state.tracker().owned().cloned().collect();
            reading.ends.retain(|partition| owned.contains(partition));
            for partition in owned {
                if !reading.ends.knows(&partition) {
                    let extent = extent(consumer, &partition)
                        .map_err(|error| remote("asking for a partition's end", &error))?;
                    let earliest = self.settings.auto_offset_reset.is_earliest();
                    reading.ends.add(partition, extent, earliest);
                }
            }
            reading.ends_for = revision;
        }
        let nothing_yet = self.state.tracker().owned().next().is_none();
        if nothing_yet && Instant::now() < reading.assignment_deadline {
            return Ok(false);
        }
        Ok(reading.buffered.is_empty() && reading.ends.reached())
    }

    /// Handles an error of the client. Most errors pass; a permanent one ends the source.
    fn handle_error(
        &self,
        consumer: &BaseConsumer<ConsumerCallbacks>,
        error: &KafkaError,
    ) -> Result<(), SourceError> {
        let code = error.rdkafka_error_code();
        let is_permanent = matches!(error, KafkaError::MessageConsumptionFatal(_))
            || matches!(code, Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::Fatal));
        if is_permanent {
            return Err(remote("reading", error));
        }
        let is_lost_connection = matches!(
            code,
            Some(RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::AllBrokersDown)
        );
        // The client's own log already reports lost connections, with their addresses.
        if !is_lost_connection {
            consumer
                .context()
                .logger
                .error(error, "the client reported an error; reading continues");
        }
        Ok(())
    }

    /// Waits until every record has its verdict. The client is polled meanwhile, so that a
    /// rebalance is not delayed; messages that it still returns are discarded.
    fn drain(&self, consumer: &BaseConsumer<ConsumerCallbacks>, mut reading: ReadState) {
        reading.buffered.clear();
        reading.congested = true;
        let ReadState { out, buffered, .. } = reading;
        // The receiver must see the end of the channel; otherwise both sides would wait for each
        // other.
        drop((out, buffered));
        let mut revision = None;
        loop {
            let step = async { timeout(POLL_TIMEOUT, self.in_flight.wait_until_idle()).await };
            if self.runtime.block_on(step).is_ok() {
                return;
            }
            consumer.context().poll_dead_letters();
            if revision != Some(self.state.revision()) {
                revision = Some(self.state.revision());
                self.pause_all(consumer);
            }
            drop(consumer.poll(Duration::ZERO));
        }
    }

    fn pause_all(&self, consumer: &BaseConsumer<ConsumerCallbacks>) {
        let owned: Vec<_> = self.state.tracker().owned().cloned().collect();
        if let Err(error) = consumer.pause(&partition_list(&owned)) {
            consumer.context().logger.error(&error, "partitions could not be paused during the stop; messages that arrive are discarded");
        }
    }

    /// Waits until dead letters are produced, within a limit: a topic that refuses them must not
    /// delay the stop for ever. The next run reads the rest again.
    fn flush_dead_letters(&self, consumer: &BaseConsumer<ConsumerCallbacks>) {
        if self.settings.dead_letter_topic.is_none() {
            return;
        }
        let deadline = Instant::now() + Duration::from_millis(self.settings.drain_timeout_ms);
        while self.state.tracker().in_flight() > 0 && Instant::now() < deadline {
            consumer.context().poll_dead_letters();
            drop(consumer.poll(Duration::ZERO));
            self.state.wait(POLL_TIMEOUT);
        }
    }
}

/// The headers of a message; `None` where the client cannot read them.
fn headers(message: &BorrowedMessage<'_>) -> Option<Vec<Header>> {
    let Some(headers) = message.headers() else {
        return Some(Vec::new());
    };
    // The client panics at a header name that is not UTF-8: one bad message must not end the
    // source.
    let read = || {
        let owned = headers.iter().map(|h| (h.key.to_owned(), h.value.map(<[u8]>::to_vec)));
        owned.collect()
    };
    catch_unwind(AssertUnwindSafe(read)).ok()
}

fn extent(
    consumer: &BaseConsumer<ConsumerCallbacks>,
    partition: &Partition,
) -> Result<OffsetBounds, KafkaError> {
    let (low, high) =
        consumer.fetch_watermarks(&partition.topic, partition.number, BROKER_TIMEOUT)?;
    let committed = consumer.committed_offsets(partition_list([partition]), BROKER_TIMEOUT)?;
    let committed = committed.elements().first().and_then(|element| match element.offset() {
        Offset::Offset(offset) => u64::try_from(offset).ok(),
        _ => None,
    });
    let number = |offset: i64| u64::try_from(offset).unwrap_or(0);
    Ok(OffsetBounds { low: number(low), high: number(high), committed })
}

fn remote(context: &str, error: &KafkaError) -> SourceError {
    SourceError::Remote { context: context.to_owned(), why: error.to_string() }
}
