//! Sources: what is read, in which order, and what a restart reads again.

#![expect(clippy::unwrap_used, reason = "a failure here is a failed test")]

mod directory;
mod identity;
mod reading;
mod restart;
mod stdin;

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use usercom_sink::ack::Verdict;
use usercom_sink::config::source::{
    Codec, DecodingStep, FileSourceConfig as FileSettings, ReadFrom,
};
use usercom_sink::record::Record;
use usercom_sink::source::file::FileSource;
use usercom_sink::source::{Checkpoints, ReadMode, SharedCheckpoints, Source, SourceError};

/// Long enough for a machine that does much else; nothing waits for it in vain.
const PATIENCE: Duration = Duration::from_secs(60);

/// Checkpoints that live as long as the test.
#[derive(Default)]
struct Memory {
    rows: Mutex<BTreeMap<String, String>>,
}

#[async_trait]
impl Checkpoints for Memory {
    async fn load(&self, _: &str) -> Result<Vec<(String, String)>, SourceError> {
        let rows = self.rows.lock().unwrap();
        Ok(rows.iter().map(|(k, v)| (k.clone(), v.clone())).collect())
    }

    async fn save(&self, _: &str, rows: Vec<(String, Option<String>)>) -> Result<(), SourceError> {
        let mut saved = self.rows.lock().unwrap();
        for (key, value) in rows {
            match value {
                Some(value) => saved.insert(key, value),
                None => saved.remove(&key),
            };
        }
        Ok(())
    }
}

impl Memory {
    /// The saved rows of files; the row without a colon is the generation's.
    fn files(&self) -> Vec<String> {
        let rows = self.rows.lock().unwrap();
        rows.keys().filter(|k| k.contains(':')).cloned().collect()
    }

    fn position(&self, key: &str) -> u64 {
        let rows = self.rows.lock().unwrap();
        let row: serde_json::Value = serde_json::from_str(&rows[key]).unwrap();
        row["position"].as_u64().unwrap()
    }
}

/// A folder with files, and what is remembered of them from one run to the next.
struct Bench {
    dir: TempDir,
    memory: Arc<Memory>,
    settings: FileSettings,
    capacity: usize,
}

impl Bench {
    fn new(include: &str) -> Self {
        let dir = TempDir::new().unwrap();
        let settings = FileSettings {
            include: vec![dir.path().join(include).to_str().unwrap().to_owned()],
            exclude: Vec::new(),
            read_from: ReadFrom::Beginning,
            fingerprint: Default::default(),
            decoding: DecodingStep { codec: Codec::Text, ..DecodingStep::default() }.into(),
            multiline: None,
            timezone: None,
            max_line_bytes: 1 << 20,
        };
        Self { dir, memory: Arc::default(), settings, capacity: 16 }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn append(&self, name: &str, text: impl AsRef<[u8]>) {
        let path = self.path(name);
        let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
        file.write_all(text.as_ref()).unwrap();
    }

    fn checkpoints(&self) -> SharedCheckpoints {
        Arc::clone(&self.memory) as SharedCheckpoints
    }

    fn start(&self, mode: ReadMode) -> Run {
        let checkpoints = self.checkpoints();
        let source = FileSource::new("app", self.settings.clone(), mode, checkpoints).unwrap();
        Run::start(Box::new(source), self.capacity)
    }

    /// Reads once, settles everything, and returns what was read.
    async fn once(&self) -> Vec<String> {
        self.start(ReadMode::Once).all().await
    }
}

/// A source that runs.
struct Run {
    records: mpsc::Receiver<Record>,
    stop: CancellationToken,
    task: JoinSet<Result<(), SourceError>>,
}

impl Run {
    fn start(source: Box<dyn Source>, capacity: usize) -> Self {
        let (out, records) = mpsc::channel(capacity);
        let stop = CancellationToken::new();
        let mut task = JoinSet::new();
        task.spawn(source.run(out, stop.clone()));
        Self { records, stop, task }
    }

    async fn next(&mut self) -> Option<Record> {
        let next = tokio::time::timeout(PATIENCE, self.records.recv());
        next.await.expect("a record, or the end")
    }

    async fn record(&mut self) -> Record {
        self.next().await.expect("a record before the end")
    }

    /// The next records, settled.
    async fn take(&mut self, count: usize) -> Vec<String> {
        let mut got = Vec::new();
        for _ in 0..count {
            let record = self.record().await;
            got.push(shown(&record));
            record.ack.settle(Verdict::Delivered);
        }
        got
    }

    /// Takes and settles what comes until the source is done.
    async fn all(mut self) -> Vec<String> {
        let mut got = Vec::new();
        while let Some(record) = self.next().await {
            got.push(shown(&record));
            record.ack.settle(Verdict::Delivered);
        }
        self.end().await.unwrap();
        got
    }

    /// Waits for the source; whatever it still sent is dropped.
    async fn end(mut self) -> Result<(), SourceError> {
        drop(self.records);
        let ended = tokio::time::timeout(PATIENCE, self.task.join_next());
        ended.await.expect("the source ends").unwrap().unwrap()
    }

    async fn stop(self) {
        self.stop.cancel();
        self.end().await.unwrap();
    }
}

/// The text of a message, or the fault.
fn shown(record: &Record) -> String {
    if let Some(fault) = &record.decode_error {
        return format!("fault: {fault}");
    }
    let value: serde_json::Value = serde_json::from_slice(&record.body).unwrap();
    match value.get("message").and_then(|m| m.as_str()) {
        Some(message) => message.to_owned(),
        None => value.to_string(),
    }
}

fn place(record: &Record) -> String {
    let origin = record.origin.as_ref().unwrap();
    let name = Path::new(&*origin.location).file_name().unwrap();
    name.to_str().unwrap().to_owned()
}

/// Polls until a condition holds.
async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let start = tokio::time::Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
