//! A reader and a sink that are gone from one moment to the next, again and again: what that costs
//! in look-ups.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use usercom_sink::Sink;
use usercom_sink::ack::{Ack, Verdict};
use usercom_sink::config::source::FluvioSourceConfig as Settings;
use usercom_sink::emulator::Faults;
use usercom_sink::record::Record;
use usercom_sink::source::fluvio::FluvioSource;
use usercom_sink::source::{ReadMode, SharedCheckpoints, Source, SourceError};

use super::cluster::Fake;
use super::support::Notes;
use crate::support::tally::{Tally, records};
use crate::support::{EmulatorAccount, KEY};

const RECORDS: usize = 900;
const USERS: usize = 30;
const PARTITIONS: usize = 2;
/// Records of a partition between the cluster and User.com at most.
const IN_FLIGHT: usize = 16;
const KILLS: usize = 6;

/// What dies with a process.
struct Life {
    reader: JoinSet<Result<(), SourceError>>,
    sink: JoinHandle<()>,
}

impl Life {
    fn start(fake: &Fake, notes: &Arc<Notes>, endpoint: &str, dir: &Path) -> Self {
        let mut settings = Settings::new("events");
        settings.max_in_flight = IN_FLIGHT;
        let checkpoints = Arc::clone(notes) as SharedCheckpoints;
        let cluster = Arc::new(fake.clone());
        let source =
            FluvioSource::with_cluster("app", settings, ReadMode::Follow, checkpoints, cluster)
                .unwrap();
        let (out, mut from) = mpsc::channel(64);
        let mut reader = JoinSet::new();
        reader.spawn(Box::new(source).run(out, CancellationToken::new()));
        let fake = fake.clone();
        let stream = futures::stream::poll_fn(move |cx| from.poll_recv(cx));
        let stream = stream.map(move |record| noted(record, fake.clone()));
        let settings = json!({
            "endpoint": endpoint, "api_key": KEY, "preset": "segment",
            "delivery": { "fold": false },
        });
        let dir = dir.to_owned();
        #[expect(clippy::disallowed_methods, reason = "`kill` ends it and waits for it")]
        let sink = tokio::spawn(async move {
            // What the one before had open is closed a moment after its end.
            let sink = loop {
                match Sink::builder("crm", settings.clone()).data_dir(&dir).build().await {
                    Ok(sink) => break sink,
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            };
            sink.run(stream).await.unwrap();
        });
        Self { reader, sink }
    }

    /// As `kill -9`: no verdict reaches the reader any more, and nothing is saved.
    async fn kill(mut self) {
        self.reader.shutdown().await;
        self.sink.abort();
        assert!(self.sink.await.unwrap_err().is_cancelled());
    }
}

/// Lets the cluster know what is settled before the reader knows.
fn noted(mut record: Record, fake: Fake) -> Record {
    let meta: Value = serde_json::from_slice(record.meta.as_ref().unwrap()).unwrap();
    let partition = u32::try_from(meta["partition"].as_u64().unwrap()).unwrap();
    let offset = meta["offset"].as_i64().unwrap();
    let ack = std::mem::replace(&mut record.ack, Ack::noop());
    record.with_ack(Ack::new(move |verdict| {
        if verdict != Verdict::Errored {
            fake.state().settled.insert((partition, offset));
        }
        ack.settle(verdict);
    }))
}

async fn requests(account: &EmulatorAccount) -> u64 {
    account.admin("stats").await["total"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn look_ups_after_kills_are_those_of_records_in_flight() {
    // Killed again and again, every record arrives once, in each user's order, and after each kill
    // there are at most as many look-ups as records were in flight, and one a user.
    let account = EmulatorAccount::open(Faults { latency_ms: 10, ..Faults::default() }).await;
    let (fake, notes) = (Fake::topic(PARTITIONS), Arc::<Notes>::default());
    let dir = tempfile::tempdir().unwrap();
    let sent = records(RECORDS, USERS);
    for record in &sent {
        let user: usize = record["userId"].as_str().unwrap()[5..].parse().unwrap();
        fake.produce(u32::try_from(user % PARTITIONS).unwrap(), record.to_string());
    }
    let mut look_ups = Vec::new();
    let mut before = 0;
    for n in 0..=KILLS {
        let life = Life::start(&fake, &notes, &account.endpoint(), dir.path());
        let goal = requests(&account).await + 90;
        let end = tokio::time::Instant::now() + Duration::from_secs(60);
        let is_over = || fake.state().settled.len() == RECORDS;
        loop {
            let is_enough = n < KILLS && requests(&account).await >= goal;
            if is_enough || is_over() {
                break;
            }
            assert!(tokio::time::Instant::now() < end, "{} settled", fake.state().settled.len());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(is_over(), n == KILLS, "the kills come amid the work");
        life.kill().await;
        let all = account.look_ups().await;
        look_ups.push(all - before);
        before = all;
    }
    let tally = Tally::take(&account, &sent, &std::collections::BTreeSet::new()).await;
    println!("fluvio: {KILLS} kills, {look_ups:?} look-ups in each life; {tally}");
    let most = (PARTITIONS * IN_FLIGHT + USERS) as u64;
    assert!(look_ups[0] == 0 && look_ups.iter().all(|n| *n <= most), "{look_ups:?}");
    assert!(look_ups.iter().sum::<u64>() > 0, "nothing was in flight at any kill");
    tally.assert_exact();
    account.close().await;
}
