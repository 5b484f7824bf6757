//! The whole program between a Vector and User.com, killed on the way.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tonic::codec::CompressionEncoding;
use usercom_sink::emulator::Faults;

use super::*;
use crate::support::tally::{Tally, records};
use crate::support::{EmulatorAccount, KEY, TestDir, binary};

/// Users of the pushed records.
const USERS: usize = 50;

struct Program(Child);

impl Program {
    fn start(config: &Path) -> Self {
        let mut run = binary();
        run.args(["run", "-c", config.to_str().unwrap()]);
        Self(run.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn pipeline(place: &TestDir, endpoint: &str, port: u16, acknowledge: &str) -> PathBuf {
    let dir = place.path().display();
    place.write(
        "pipeline.toml",
        &format!(
            r#"
data_dir = "{dir}/data"

[sources.vector]
type = "vector"
address = "127.0.0.1:{port}"
acknowledge = "{acknowledge}"

[sinks.crm]
type = "usercom"
inputs = ["vector"]
endpoint = "{endpoint}"
api_key = "{KEY}"
preset = "segment"

[sinks.crm.buffer]
type = "disk"

[sinks.crm.delivery]
fold = false
"#
        ),
    )
}

/// Sends a batch until it is taken, as Vector does, over a connection of its own each time.
async fn push_until_taken(port: u16, batch: &[EventWrapper]) {
    loop {
        let mut client = connect(port).await.send_compressed(CompressionEncoding::Gzip);
        let push = client.push_events(request(batch.to_vec()));
        if let Ok(Ok(_)) = tokio::time::timeout(Duration::from_secs(30), push).await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Pushes numbered records in batches, with kills between and during pushes.
async fn kills(count: usize, batch: usize, kills: usize, acknowledge: &str) {
    let account = EmulatorAccount::open(Faults::default()).await;
    let place = TestDir::new();
    let port = free_port().await;
    let config = pipeline(&place, &account.endpoint(), port, acknowledge);
    let sent = records(count, USERS);
    // Only Vector's own ids tell an event that comes again.
    let nameless = |json: &Json| {
        let mut json = json.clone();
        json.as_object_mut().unwrap().remove("messageId").unwrap();
        json
    };
    let events: Vec<EventWrapper> =
        sent.iter().enumerate().map(|(n, json)| log(&nameless(json), n as u128 + 1)).collect();
    let mut look_ups = vec![0];
    let mut dice = StdRng::seed_from_u64(3);
    let mut program = Program::start(&config);
    let batches: Vec<&[EventWrapper]> = events.chunks(batch).collect();
    let mut left = kills;
    for (n, batch) in batches.iter().enumerate() {
        let strike = left > 0 && dice.random_bool(left as f64 / (batches.len() - n) as f64);
        if !strike {
            push_until_taken(port, batch).await;
            continue;
        }
        left -= 1;
        let moment = Duration::from_millis(dice.random_range(0..120));
        let pushed = async { push_until_taken(port, batch).await };
        let killed = async {
            tokio::time::sleep(moment).await;
            program.kill();
            look_ups.push(account.look_ups().await);
            Program::start(&config)
        };
        ((), program) = tokio::join!(pushed, killed);
    }
    // What was answered is the program's own business now.
    let end = tokio::time::Instant::now() + Duration::from_secs(120);
    let mut read_by_tallies = 0;
    let tally = loop {
        let looked = account.look_ups().await;
        let tally = Tally::take(&account, &sent, &std::collections::BTreeSet::new()).await;
        if tally.lost.is_empty() && tally.views_lost == 0 && tally.stale.is_empty() {
            look_ups.push(looked - read_by_tallies);
            break tally;
        }
        read_by_tallies += account.look_ups().await - looked;
        assert!(tokio::time::Instant::now() < end, "{tally}");
        tokio::time::sleep(Duration::from_millis(300)).await;
    };
    let look_ups: Vec<u64> = look_ups.windows(2).skip(1).map(|pair| pair[1] - pair[0]).collect();
    println!(
        "vector, acknowledge = {acknowledge}: {count} events, {kills} kills, {look_ups:?} look-ups \
         after them; {tally}"
    );
    // The sink may have 200 requests in flight, each of another user.
    assert!(look_ups.iter().all(|n| *n <= 2 * USERS as u64), "{look_ups:?}");
    tally.assert_exact();
    drop(program);
    account.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_lose_and_duplicate_nothing() {
    // Killed between and during pushes, with a sender that repeats what was not taken: every event
    // arrives, once, in each user's order.
    kills(2_000, 250, 3, "buffer").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledge_setting_decides_when_requests_are_answered() {
    // With `acknowledge = "delivery"` an answer means that User.com has it.
    let account = EmulatorAccount::open(Faults::default()).await;
    let place = TestDir::new();
    let port = free_port().await;
    let config = pipeline(&place, &account.endpoint(), port, "delivery");
    let _program = Program::start(&config);
    let sent = records(100, 10);
    let events = sent.iter().enumerate().map(|(n, json)| log(json, n as u128 + 1)).collect();
    connect(port).await.push_events(request(events)).await.unwrap();
    Tally::take(&account, &sent, &std::collections::BTreeSet::new()).await.assert_exact();
    account.close().await;
}

/// How many events User.com has, once that number has not changed for a while.
async fn events_at_rest(account: &EmulatorAccount, at_least: u64) -> u64 {
    let end = tokio::time::Instant::now() + Duration::from_secs(90);
    let (mut last, mut since) = (0, tokio::time::Instant::now());
    loop {
        let now = account.admin("stats").await["events"].as_u64().unwrap();
        if now != last {
            (last, since) = (now, tokio::time::Instant::now());
        }
        let rests = since.elapsed() > Duration::from_secs(2);
        if (last >= at_least && rests) || tokio::time::Instant::now() > end {
            return last;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_that_share_an_id_all_arrive_once() {
    // Guarantees that events which share Vector's id are distinguished by their content and, where
    // they are equal, by their place in the request; and that requests sent again add nothing, also
    // after a kill.
    let account = EmulatorAccount::open(Faults::default()).await;
    let place = TestDir::new();
    let port = free_port().await;
    let config = pipeline(&place, &account.endpoint(), port, "buffer");
    let program = Program::start(&config);
    let event = |user: usize, n: usize| json!({ "type": "track", "userId": format!("u{user}"), "event": "Step", "properties": { "n": n } });
    let batches: Vec<Vec<EventWrapper>> = (0..20_usize)
        .map(|batch| (0..5).map(|n| log(&event(batch % 4, n), batch as u128 + 1)).collect())
        .collect();
    for batch in &batches {
        push_until_taken(port, batch).await;
    }
    assert_eq!(events_at_rest(&account, 100).await, 100);
    for batch in &batches {
        push_until_taken(port, batch).await;
    }
    assert_eq!(events_at_rest(&account, 100).await, 100);
    // Three of one id that are equal in every byte, next to the same content under another id.
    let equal = vec![
        log(&event(9, 0), 77),
        log(&event(9, 0), 77),
        log(&event(9, 0), 78),
        log(&event(9, 0), 77),
    ];
    push_until_taken(port, &equal).await;
    assert_eq!(events_at_rest(&account, 104).await, 104);
    program.kill();
    let _program = Program::start(&config);
    push_until_taken(port, &equal).await;
    for batch in &batches {
        push_until_taken(port, batch).await;
    }
    assert_eq!(events_at_rest(&account, 104).await, 104);
    account.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute"]
async fn soak_vector_kills() {
    // As above over 10,000 events in batches of 1,000, for both ways to acknowledge.
    for acknowledge in ["buffer", "delivery"] {
        kills(10_000, 1_000, 6, acknowledge).await;
    }
}
