//! SIGKILL: a child process works on a store and reports what the store acknowledged. It is killed
//! at a random time, and the reports are checked against the file.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use usercom_sink::buffer::{Access, NewRecord, Settlement, Store};
use usercom_sink::record::Record;

const SINK: &str = "crm";
const DIR: &str = "USERCOM_SINK_TEST_CRASH_DIR";
const ROUNDS: usize = 12;
/// Appends that run concurrently in the child.
const HANDS: u64 = 4;

/// Reports one line to the parent, in one write: a killed process leaves complete lines, or a last
/// incomplete one.
fn say(word: char, seqs: impl IntoIterator<Item = i64>) {
    let mut line = word.to_string();
    for seq in seqs {
        line.push_str(&format!(" {seq}"));
    }
    line.push('\n');
    std::io::stdout().write_all(line.as_bytes()).unwrap();
}

fn body(round_and_count: u64) -> NewRecord {
    // Some records have several pages, so that a transaction is more than one write.
    let filler = "x".repeat(usize::try_from(round_and_count % 7 * 1500).unwrap());
    NewRecord::from(&Record::new(format!("{{\"x\":\"{filler}\"}}")))
}

/// Appends, marks and settles until it is killed, and reports every acknowledged command.
async fn work(store: &Store, hand: u64) {
    let mut held = BTreeSet::new();
    for n in 0.. {
        let batch = (0..1 + n % 5).map(|k| body(hand + n * 5 + k)).collect();
        let seqs = store.append(SINK, batch).await.unwrap().seqs;
        say('a', seqs.clone());
        held.extend(seqs.clone());
        if n % 3 == hand % 3 {
            say('m', [seqs.start]);
            store.mark_dispatched(SINK, vec![seqs.start]).await.unwrap();
            say('h', [seqs.start]);
        }
        if n % 2 == 0 {
            let some: Vec<i64> = held.iter().copied().step_by(3).collect();
            say('t', some.iter().copied());
            let batch = some.iter().map(|seq| Settlement {
                seq: Some(*seq),
                seen: vec![format!("m{seq}")],
                ..Settlement::default()
            });
            store.settle(SINK, batch.collect()).await.unwrap();
            say('s', some.iter().copied());
            some.iter().for_each(|seq| {
                held.remove(seq);
            });
        }
    }
}

#[test]
#[ignore = "the child of `kill_loses_nothing`, which starts it"]
fn crash_child() {
    // Every command of the child works, until it is killed.
    let Some(dir) = std::env::var_os(DIR) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = Store::open(Path::new(&dir), Access::Owner).unwrap();
        let hands = futures::future::join_all((0..HANDS).map(|hand| work(&store, hand)));
        // The child ends by itself if its parent is gone.
        let end = tokio::time::timeout(Duration::from_secs(20), hands).await;
        assert!(end.is_err(), "the work never ends");
    });
}

fn start_child(dir: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::crash_child", "--ignored", "--nocapture"])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// What the store acknowledged to the child.
#[derive(Default)]
struct Promises {
    appended: BTreeSet<i64>,
    tried_to_settle: BTreeSet<i64>,
    settled: BTreeSet<i64>,
    /// Records marked as possibly sent.
    marked: BTreeSet<i64>,
    /// Records that the child asked to mark.
    tried_to_mark: BTreeSet<i64>,
}

impl Promises {
    fn hear(&mut self, line: &str) {
        // The test harness writes to the same pipe; the last line may be incomplete.
        let Some(line) = line.strip_suffix('\n') else {
            return;
        };
        let (word, seqs) = line.split_at(line.len().min(1));
        let Ok(seqs) = seqs.split_whitespace().map(str::parse).collect::<Result<Vec<i64>, _>>()
        else {
            return;
        };
        match word {
            "a" => self.appended.extend(seqs),
            "t" => self.tried_to_settle.extend(seqs),
            "s" => self.settled.extend(seqs),
            "m" => self.tried_to_mark.extend(seqs),
            "h" => self.marked.extend(seqs),
            _ => {}
        }
    }
}

/// Lets a child work until some time after its first report, kills it, and reads all its reports.
fn one_life(dir: &Path, promises: &mut Promises) {
    let mut child = start_child(dir);
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let before = promises.appended.len();
    let mut line = String::new();
    while promises.appended.len() == before {
        line.clear();
        assert_ne!(output.read_line(&mut line).unwrap(), 0, "the child ended");
        promises.hear(&line);
    }
    // The parent must read while the child works, or a full pipe would block it.
    std::thread::scope(|scope| {
        let killer = scope.spawn(|| {
            std::thread::sleep(Duration::from_micros(rand::random_range(0..150_000)));
            child.kill().unwrap();
            child.wait().unwrap()
        });
        loop {
            line.clear();
            if output.read_line(&mut line).unwrap() == 0 {
                break;
            }
            promises.hear(&line);
        }
        assert!(!killer.join().unwrap().success());
    });
}

async fn stored(store: &Store) -> BTreeMap<i64, bool> {
    let mut rows = BTreeMap::new();
    loop {
        let after = rows.last_key_value().map_or(0, |(seq, _)| *seq);
        let page = store.read(SINK, after, 1000).await.unwrap();
        if page.is_empty() {
            return rows;
        }
        for row in page {
            assert!(row.record.body.ends_with(b"\"}"), "a record is torn");
            rows.insert(row.seq, row.maybe_sent);
        }
    }
}

async fn check(dir: &Path, promises: &Promises) {
    // Opening it as owner checks the whole file, and that the lock of the dead owner is released.
    let store = Store::open(dir, Access::Owner).unwrap();
    let rows = stored(&store).await;
    for seq in promises.appended.difference(&promises.tried_to_settle) {
        assert!(rows.contains_key(seq), "{seq} was acknowledged and is lost");
    }
    for seq in &promises.settled {
        assert!(!rows.contains_key(seq), "{seq} was settled and is back");
    }
    for (seq, maybe_sent) in &rows {
        if promises.marked.contains(seq) {
            assert!(maybe_sent, "{seq} was marked as sent and is not possibly sent");
        }
        if !promises.tried_to_mark.contains(seq) {
            assert!(!maybe_sent, "{seq} was never marked and is in doubt");
        }
    }
    // A settlement is atomic: removed from the buffer and seen, or neither.
    let tried: Vec<i64> = promises.tried_to_settle.iter().copied().collect();
    let keys = tried.iter().map(|seq| format!("m{seq}")).collect();
    let seen = store.is_seen(SINK, keys).await.unwrap();
    for (seq, seen) in tried.iter().zip(seen) {
        assert_eq!(seen, !rows.contains_key(seq), "{seq} is half settled");
    }
    let size = store.buffer_size(SINK);
    assert_eq!(size.events, rows.len() as u64);
    store.close().await;
}

#[test]
fn kill_loses_nothing() {
    // Whenever the process is killed: acknowledged records are stored or settled, settled records
    // stay settled, and exactly the marked records are possibly sent.
    let dir = TempDir::new().unwrap();
    let mut promises = Promises::default();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for _ in 0..ROUNDS {
        one_life(dir.path(), &mut promises);
        runtime.block_on(check(dir.path(), &promises));
    }
    assert!(!promises.settled.is_empty(), "nothing was settled in any life");
}
