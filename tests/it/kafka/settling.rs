//! One member: what it reads, what it commits, and when.

use std::time::Duration;

use serde_json::json;
use usercom_sink::ack::Verdict;
use usercom_sink::source::ReadMode;

use super::cluster::Cluster;

#[tokio::test(flavor = "multi_thread")]
async fn once_run_reads_what_is_there_and_ends() {
    // `--once` yields every record that is there, in the order of its key, commits all of them and
    // ends by itself; another run finds nothing more. Key, headers and place are in the meta.
    let cluster = Cluster::start(6).await;
    cluster.produce(0..300, |n| format!("u{}", n % 17)).await;
    let mut member = cluster.member(json!({}), ReadMode::Once);
    let mut last = std::collections::BTreeMap::new();
    let mut ids = std::collections::BTreeSet::new();
    while let Some(got) = member.next().await {
        let meta: serde_json::Value =
            serde_json::from_slice(got.record.meta.as_ref().unwrap()).unwrap();
        assert_eq!(meta["topic"], cluster.topic.as_str());
        assert_eq!(meta["headers"], json!({ "kind": "test", "raw": "0xff01" }));
        assert!(meta["timestamp"].as_i64().unwrap() > 1_700_000_000_000, "{meta}");
        assert_eq!(got.key, format!("u{}", got.n % 17));
        assert!(got.record.origin.is_none(), "positions of a topic may fall back");
        ids.insert(got.record.transport_id.clone().unwrap());
        let before = last.insert(got.key.clone(), got.n);
        assert!(before.is_none_or(|before| before < got.n), "out of order");
        got.settle(Verdict::Delivered);
    }
    member.ended().await.unwrap();
    assert_eq!((ids.len(), cluster.committed_sum()), (300, 300));
    let mut again = cluster.member(json!({}), ReadMode::Once);
    assert!(again.next().await.is_none());
    again.ended().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_wait_for_the_first_unsettled_record() {
    // Verdicts come in any order: nothing is committed past the first record without one. At the
    // stop the source waits for it, and commits it before it ends.
    let cluster = Cluster::start(1).await;
    cluster.produce(0..10, |_| "u".into()).await;
    let mut member = cluster.join(json!({}));
    let mut third = None;
    for got in member.take(10).await.into_iter().rev() {
        if got.offset == 3 {
            third = Some(got);
        } else if got.offset % 2 == 0 {
            got.settle(Verdict::Rejected);
        } else {
            got.settle(Verdict::Delivered);
        }
    }
    cluster.until_committed(3).await;
    member.stop();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(cluster.committed_sum(), 3, "the third has no verdict yet");
    third.unwrap().settle(Verdict::Delivered);
    assert!(member.next().await.is_none());
    member.ended().await.unwrap();
    assert_eq!(cluster.committed_sum(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn errored_record_is_sent_again() {
    // A record that was not settled comes again, with all after it, and no commit passes it.
    let cluster = Cluster::start(1).await;
    cluster.produce(0..8, |_| "u".into()).await;
    let mut member = cluster.join(json!({}));
    for got in member.take(5).await {
        match got.n {
            2 => drop(got),
            _ => got.deliver(),
        }
    }
    let mut seen = Vec::new();
    while seen.last() != Some(&7) || seen.iter().filter(|n| **n == 2).count() == 0 {
        let got = member.next().await.unwrap();
        seen.push(got.n);
        got.settle(Verdict::Delivered);
    }
    let again = seen.iter().position(|n| *n == 2).expect("the errored one");
    assert_eq!(seen[again..], [2, 3, 4, 5, 6, 7], "{seen:?}");
    cluster.until_committed(8).await;
    member.leave().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn message_without_payload_is_a_fault() {
    // Tombstones, empty messages and what does not parse are dead letters that say where they
    // stood; they are settled like others.
    let cluster = Cluster::start(1).await;
    cluster.produce_tombstone("u1").await;
    let bodies = ["", " ", "{", "{\"n\":1}"].map(|body| ("u1".to_owned(), body.to_owned()));
    cluster.produce_bodies(bodies.into_iter()).await;
    let mut member = cluster.member(json!({}), ReadMode::Once);
    let mut faults = Vec::new();
    while let Some(got) = member.next().await {
        faults.push(got.record.decode_error.as_deref().map(str::to_owned));
        got.settle(Verdict::Rejected);
    }
    member.ended().await.unwrap();
    let topic = &cluster.topic;
    assert_eq!(faults.len(), 5);
    for (offset, what) in [(0, "tombstone"), (1, "empty"), (2, "no record"), (3, "")] {
        let fault = faults[offset].as_ref().expect(what);
        assert!(fault.contains(what), "{fault}");
        assert!(fault.starts_with(&format!("{topic}/0:{offset}: ")), "{fault}");
    }
    assert_eq!(faults[4], None);
    assert_eq!(cluster.committed_sum(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn full_sink_slows_the_source_and_keeps_the_group() {
    // While the sink takes nothing for longer than the group waits between two polls, the member
    // stays in the group, and afterwards every record comes once.
    let cluster = Cluster::start(2).await;
    cluster.produce(0..200, |n| n.to_string()).await;
    let options = json!({
        "max_in_flight": 20,
        "drain_timeout_ms": 1000,
        "librdkafka_options": { "max.poll.interval.ms": "6000" },
    });
    let mut member = cluster.join(options);
    let first = member.next().await.unwrap();
    tokio::time::sleep(Duration::from_secs(8)).await;
    let mut seen = vec![first.n];
    let mut held = vec![first];
    while seen.len() < 200 {
        let Some(got) = member.soon(Duration::from_millis(500)).await else {
            assert!(held.len() <= 20, "{} in flight", held.len());
            if held.is_empty() {
                held.push(member.next().await.unwrap());
                seen.push(held[0].n);
            }
            held.drain(..).for_each(|got| got.deliver());
            continue;
        };
        seen.push(got.n);
        held.push(got);
    }
    held.drain(..).for_each(|got| got.deliver());
    seen.sort_unstable();
    assert!(seen.iter().copied().eq(0..200), "{seen:?}");
    cluster.until_committed(200).await;
    member.leave().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn lag_gauge_shows_the_lag() {
    // The metric says how many records of a partition are not settled.
    let cluster = Cluster::start(1).await;
    cluster.produce(0..10, |_| "u".into()).await;
    let mut member = cluster.join(json!({}));
    let metrics = member.metrics.clone();
    let mut open = Vec::new();
    for got in member.take(10).await {
        match got.n {
            0..6 => got.deliver(),
            _ => open.push(got),
        }
    }
    let until = |wanted: &'static str| {
        let (metrics, topic) = (metrics.clone(), cluster.topic.clone());
        async move {
            for _ in 0..200 {
                let text = metrics.render();
                let line = text
                    .lines()
                    .find(|line| line.starts_with("source_lag_events{") && line.contains(&topic));
                if line.is_some_and(|line| line.ends_with(wanted)) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            panic!("no lag of{wanted}: {}", metrics.render());
        }
    };
    until(" 4").await;
    open.drain(..).for_each(|got| got.deliver());
    until(" 0").await;
    member.leave().await.unwrap();
}
