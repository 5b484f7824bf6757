//! A reader under test: what it sends is taken here, and settled when the test says so.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use usercom_sink::ack::Verdict;
use usercom_sink::config::source::FluvioSourceConfig as Settings;
use usercom_sink::record::Record;
use usercom_sink::source::fluvio::FluvioSource;
use usercom_sink::source::fluvio::cluster::NewTopic;
use usercom_sink::source::{Checkpoints, ReadMode, SharedCheckpoints, Source, SourceError};

use super::cluster::Fake;

/// Checkpoints that survive a reader.
#[derive(Default)]
pub(crate) struct Notes {
    rows: Mutex<BTreeMap<(String, String), String>>,
}

impl Notes {
    pub(crate) fn rows(&self) -> BTreeMap<(String, String), String> {
        self.rows.lock().unwrap().clone()
    }
}

#[async_trait]
impl Checkpoints for Notes {
    async fn load(&self, source: &str) -> Result<Vec<(String, String)>, SourceError> {
        let rows = self.rows.lock().unwrap();
        let ours = rows.iter().filter(|((name, _), _)| name == source);
        Ok(ours.map(|((_, key), value)| (key.clone(), value.clone())).collect())
    }

    async fn save(
        &self,
        source: &str,
        rows: Vec<(String, Option<String>)>,
    ) -> Result<(), SourceError> {
        let mut kept = self.rows.lock().unwrap();
        for (key, value) in rows {
            match value {
                Some(value) => kept.insert((source.to_owned(), key), value),
                None => kept.remove(&(source.to_owned(), key)),
            };
        }
        Ok(())
    }
}

/// A record that was taken, and where it comes from.
pub(crate) struct Taken {
    pub(crate) partition: u32,
    pub(crate) offset: i64,
    pub(crate) record: Record,
}

/// A reader that runs.
pub(crate) struct Reader {
    fake: Fake,
    task: JoinSet<Result<(), SourceError>>,
    from: mpsc::Receiver<Record>,
    pub(crate) stop: CancellationToken,
}

/// How a reader is started.
pub(crate) struct How {
    pub(crate) settings: Settings,
    pub(crate) mode: ReadMode,
    pub(crate) wish: Option<NewTopic>,
    pub(crate) room: usize,
}

impl Default for How {
    fn default() -> Self {
        Self { settings: Settings::new("events"), mode: ReadMode::Follow, wish: None, room: 1024 }
    }
}

impl Reader {
    pub(crate) fn start(fake: &Fake, notes: &Arc<Notes>, how: How) -> Self {
        let checkpoints: SharedCheckpoints = Arc::clone(notes) as SharedCheckpoints;
        let cluster = Arc::new(fake.clone());
        let source =
            FluvioSource::with_cluster("app", how.settings, how.mode, checkpoints, cluster);
        let mut source = source.expect("settings that work");
        if let Some(wish) = how.wish {
            source = source.creating_topic(wish);
        }
        let (out, from) = mpsc::channel(how.room);
        let stop = CancellationToken::new();
        let mut task = JoinSet::new();
        task.spawn(Box::new(source).run(out, stop.clone()));
        Self { fake: fake.clone(), task, from, stop }
    }

    /// The next record, if one comes within a virtual minute.
    pub(crate) async fn take(&mut self) -> Option<Taken> {
        self.take_within(Duration::from_secs(60)).await
    }

    pub(crate) async fn take_within(&mut self, limit: Duration) -> Option<Taken> {
        let record = timeout(limit, self.from.recv()).await.ok()??;
        let meta: Value = serde_json::from_slice(record.meta.as_ref()?).unwrap();
        let partition = u32::try_from(meta["partition"].as_u64().unwrap()).unwrap();
        // After SmartModules an offset says little; there the fake writes into the key what it was.
        let told = meta["key"].as_str().and_then(|key| key.parse().ok());
        let offset = told.or(meta["offset"].as_i64()).unwrap();
        Some(Taken { partition, offset, record })
    }

    /// Settles a record, and lets the cluster know that it may be committed.
    pub(crate) fn settle(&self, taken: Taken, verdict: Verdict) {
        if verdict != Verdict::Errored {
            self.fake.state().settled.insert((taken.partition, taken.offset));
        }
        taken.record.ack.settle(verdict);
    }

    /// Takes and delivers until so long nothing more comes.
    pub(crate) async fn deliver_all(&mut self, quiet: Duration) -> Vec<(u32, i64)> {
        let mut seen = Vec::new();
        while let Some(taken) = self.take_within(quiet).await {
            seen.push((taken.partition, taken.offset));
            self.settle(taken, Verdict::Delivered);
        }
        seen
    }

    /// Waits for the end.
    pub(crate) async fn end(mut self) -> Result<(), SourceError> {
        let ended = timeout(Duration::from_secs(3600), self.task.join_next()).await;
        ended.expect("it ends within a virtual hour").expect("it runs").expect("it does not panic")
    }

    /// Stops gracefully and waits for the end; records that are still yielded are delivered.
    pub(crate) async fn stop(mut self) -> Result<(), SourceError> {
        self.stop.cancel();
        self.deliver_all(Duration::from_secs(30)).await;
        self.end().await
    }

    /// Is gone from one moment to the next.
    pub(crate) async fn crash(mut self) {
        self.task.shutdown().await;
    }
}
