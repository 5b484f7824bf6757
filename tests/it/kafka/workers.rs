//! Whole processes of one group: the built binary several times over, one of them killed and
//! another added amid the work.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::Value;
use usercom_sink::emulator::Faults;

use super::cluster::{Cluster, LONG};
use crate::support::{EmulatorAccount, KEY, TestDir, binary};

const PARTITIONS: i32 = 12;
const USERS: u32 = 500;
/// Records one process may have in flight.
const IN_FLIGHT: usize = 100;

/// Whether processes look into histories before they send what a dead one may have sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verify {
    On,
    Off,
}

/// A process of the group with a folder of its own. It dies with the test.
struct Worker {
    child: Child,
    _place: TestDir,
}

impl Worker {
    fn start(cluster: &Cluster, endpoint: &str, verify: Verify) -> Self {
        let place = TestDir::new();
        let dir = place.write("records", "").parent().unwrap().display().to_string();
        let (servers, group, topic) = (cluster.servers(), &cluster.group, &cluster.topic);
        let verify = verify == Verify::On;
        let text = format!(
            r#"
data_dir = "{dir}/data"

[sources.events]
type = "kafka"
bootstrap_servers = "{servers}"
group_id = "{group}"
topics = ["{topic}"]
commit_interval_ms = 200
session_timeout_ms = 6000
max_in_flight = {IN_FLIGHT}

[sinks.crm]
type = "usercom"
inputs = ["events"]
endpoint = "{endpoint}"
api_key = "{KEY}"
buffer.type = "memory"
delivery.verify_ambiguous = {verify}

[[sinks.crm.mapping]]
call = "track"
[sinks.crm.mapping.fields]
user_id = "%key"
event = {{ value = "Step" }}
"properties.n" = ".n"
"#
        );
        let config = place.write("pipeline.toml", &text);
        let child = binary()
            .args(["run", "-c", config.to_str().unwrap()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, _place: place }
    }

    /// As `kill -9`.
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// As SIGTERM; the exit code must be that of a process with nothing left.
    fn stop(mut self) {
        let pid = self.child.id().to_string();
        let sent = std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap();
        assert!(sent.success());
        let status = self.child.wait().unwrap();
        assert_eq!(status.code(), Some(0));
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Of one that has ended already there is nothing to kill.
        self.child.kill().unwrap_or(());
        drop(self.child.wait());
    }
}

/// The events of each user as they arrived: the numbers of the records.
async fn arrived(account: &EmulatorAccount) -> BTreeMap<String, Vec<u64>> {
    let requests = account.admin("requests").await;
    let mut arrived: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for request in requests.as_array().unwrap() {
        let path = request["path"].as_str().unwrap();
        let created = request["status"].as_u64().is_some_and(|status| status < 300);
        if request["method"] != "POST" || !path.ends_with("events/") || !created {
            continue;
        }
        let body = match &request["body"] {
            Value::String(text) => serde_json::from_str(text).unwrap(),
            other => other.clone(),
        };
        let n = body["data"]["n"].as_u64().unwrap_or_else(|| panic!("{request}"));
        arrived.entry(format!("u{}", n % u64::from(USERS))).or_default().push(n);
    }
    arrived
}

/// The first arrival of each record, in order; what came again is left out.
fn first_arrivals(numbers: &[u64]) -> Vec<u64> {
    let mut seen = BTreeSet::new();
    numbers.iter().copied().filter(|n| seen.insert(*n)).collect()
}

/// Three processes, one killed and another added amid the work. How many events arrived twice.
async fn work_through(records: u32, verify: Verify) -> usize {
    let cluster = Cluster::start(PARTITIONS).await;
    let account = EmulatorAccount::open(Faults::default()).await;
    let endpoint = account.endpoint();
    let key = |n: u32| format!("u{}", n % USERS);
    cluster.produce(0..records / 2, key).await;
    let mut workers: Vec<_> = (0..3).map(|_| Worker::start(&cluster, &endpoint, verify)).collect();
    let sum = i64::from(records);
    let deadline = tokio::time::Instant::now() + LONG * 4;
    let mut killed = false;
    loop {
        // Asked before: what was committed then had arrived by now.
        let committed = cluster.committed();
        let done: i64 = committed.values().sum();
        let arrived: usize =
            arrived(&account).await.values().map(|n| first_arrivals(n).len()).sum();
        assert!(usize::try_from(done).unwrap() <= arrived, "{done} committed, {arrived} arrived");
        if !killed && arrived > usize::try_from(records / 10).unwrap() {
            workers[0].kill();
            killed = true;
            workers.push(Worker::start(&cluster, &endpoint, verify));
            cluster.produce(records / 2..records, key).await;
        }
        if done == sum {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "{done} of {sum} committed");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let arrived = arrived(&account).await;
    for (user, numbers) in &arrived {
        let first = first_arrivals(numbers);
        assert!(first.is_sorted(), "{user} out of order: {numbers:?}");
    }
    let all: BTreeSet<u64> = arrived.values().flatten().copied().collect();
    assert!(all.iter().copied().eq(0..u64::from(records)), "{} arrived", all.len());
    let requests: usize = arrived.values().map(Vec::len).sum();
    let twice = requests - all.len();
    let looks = account.look_ups().await;
    eprintln!(
        "{records} records, one of 3 processes killed, verify_ambiguous {verify:?}: lost 0, out of \
         order 0, {twice} arrived twice, {looks} looks into histories"
    );
    let most = if verify == Verify::On { IN_FLIGHT as u64 + u64::from(USERS) } else { 0 };
    assert!(looks <= most, "{looks} look-ups: at most those in flight, and one a user");
    for worker in workers.drain(..).skip(1) {
        worker.stop();
    }
    account.close().await;
    twice
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_process_loses_nothing() {
    // Of 3,000 records of 500 users, shared by three processes of which one is killed with -9 while
    // another joins: none is lost, each user's arrive in order, none arrives twice, and no offset is
    // committed before its record arrived.
    assert_eq!(work_through(3_000, Verify::On).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: the same with 20,000 records"]
async fn soak_of_a_killed_process() {
    // As above with 20,000 records; and what arrives twice where histories are not looked into, no
    // more than the dead process may have had in flight and settled since its last commit.
    assert_eq!(work_through(20_000, Verify::On).await, 0);
    let twice = work_through(20_000, Verify::Off).await;
    assert!(twice < 1_000, "{twice} arrived twice");
}
