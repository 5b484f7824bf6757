//! Several members: partitions come and go without loss, and without a second delivery where the
//! records in flight settle in time.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;
use usercom_sink::ack::Verdict;

use super::cluster::{Cluster, Got, LONG, Member};

const SOON: Duration = Duration::from_millis(2);

/// Takes from both members and settles, until so many different records have come. Tells how often
/// each came, and how many came to the second member.
async fn share(one: &mut Member, two: &mut Member, count: usize) -> (BTreeMap<u64, u32>, usize) {
    let mut seen = BTreeMap::new();
    let mut of_two = 0;
    let deadline = tokio::time::Instant::now() + LONG;
    while seen.len() < count {
        assert!(tokio::time::Instant::now() < deadline, "{} of {count}", seen.len());
        let first = one.soon(SOON).await;
        let second = two.soon(SOON).await;
        of_two += usize::from(second.is_some());
        for got in [first, second].into_iter().flatten() {
            *seen.entry(got.settle(Verdict::Delivered)).or_default() += 1;
        }
    }
    (seen, of_two)
}

#[tokio::test(flavor = "multi_thread")]
async fn rebalance_delivers_nothing_twice() {
    // A member that joins in mid-run gets its share of partitions, and no record comes twice,
    // because those in flight settle before their partitions go; the same when it leaves again.
    let cluster = Cluster::start(6).await;
    cluster.produce(0..200, |n| n.to_string()).await;
    // On a machine that is busy with other tests no member is to be taken for dead.
    let patient = json!({ "session_timeout_ms": 10_000 });
    let mut one = cluster.join(patient.clone());
    let held = one.take(40).await;
    let mut two = cluster.join(patient);
    // The first holds its records while the group is about to take partitions from it.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut seen: BTreeMap<u64, u32> = BTreeMap::new();
    held.into_iter().for_each(|got| *seen.entry(got.settle(Verdict::Delivered)).or_default() += 1);
    let (rest, _) = share(&mut one, &mut two, 160).await;
    rest.into_iter().for_each(|(n, times)| *seen.entry(n).or_default() += times);
    // Until the second has partitions, new records go to the first alone.
    let mut of_two = 0;
    for round in 0..40 {
        let numbers = 200 + round * 60..260 + round * 60;
        cluster.produce(numbers, |n| n.to_string()).await;
        let (more, second) = share(&mut one, &mut two, 60).await;
        more.into_iter().for_each(|(n, times)| *seen.entry(n).or_default() += times);
        of_two += second;
        if of_two > 40 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(of_two > 40, "the second member had no share");
    let total = i64::try_from(seen.len()).unwrap();
    two.leave().await.unwrap();
    let next = u32::try_from(total).unwrap();
    cluster.produce(next..next + 60, |n| n.to_string()).await;
    for got in one.take(60).await {
        *seen.entry(got.settle(Verdict::Delivered)).or_default() += 1;
    }
    cluster.until_committed(total + 60).await;
    let twice: Vec<_> = seen.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
    assert!(seen.keys().copied().eq(0..u64::from(next) + 60));
    one.leave().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn late_verdict_commits_nothing_of_a_revoked_partition() {
    // Records that do not settle within the limit are read again by the next owner; the verdicts
    // that come later move nothing, and nothing is lost.
    let cluster = Cluster::start(4).await;
    cluster.produce(0..40, |n| n.to_string()).await;
    let mut one = cluster.join(json!({ "drain_timeout_ms": 300 }));
    let held: Vec<Got> = one.take(40).await;
    let mut two = cluster.join(json!({ "drain_timeout_ms": 300 }));
    let first = two.next().await.expect("a record of a partition that moved");
    let mut again = vec![first];
    while let Some(got) = two.soon(Duration::from_secs(1)).await {
        again.push(got);
    }
    let moved: std::collections::BTreeSet<i64> = again.iter().map(|got| got.partition).collect();
    assert!((1..4).contains(&moved.len()), "{moved:?}");
    let kept = held.iter().filter(|got| !moved.contains(&got.partition)).count();
    assert_eq!(again.len(), 40 - kept, "all records of the partitions that moved");
    let before = cluster.committed();
    held.into_iter().for_each(|got| got.deliver());
    tokio::time::sleep(Duration::from_secs(1)).await;
    let after = cluster.committed();
    for partition in &moved {
        let number = i32::try_from(*partition).unwrap();
        assert_eq!(before.get(&number), after.get(&number), "partition {partition} is not ours");
    }
    let kept = i64::try_from(kept).unwrap();
    assert_eq!(cluster.committed_sum(), kept);
    again.into_iter().for_each(|got| got.deliver());
    cluster.until_committed(40).await;
    one.leave().await.unwrap();
    two.leave().await.unwrap();
}
