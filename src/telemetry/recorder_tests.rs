use tokio::time::advance;

use super::super::Metrics;
use super::super::activity::SinkPhase;
use super::super::status::State;
use super::*;

fn pipeline(metrics: &Metrics) -> Components {
    let components = Components::default();
    let source = SourceEntry {
        kind: "kafka".to_owned(),
        metrics: metrics.source("app", "kafka"),
        position: None,
        reading: true,
    };
    let sink = SinkEntry { inputs: vec!["app".to_owned()], metrics: metrics.sink("crm") };
    sink.metrics.activity().phase(SinkPhase::Delivering);
    components.update(|all| {
        all.phase = PipelinePhase::Running;
        all.sources.insert("app".to_owned(), source);
        all.sinks.insert("crm".to_owned(), sink);
    });
    components
}

async fn seconds(recorder: &StatusRecorder, n: u64, mut each: impl FnMut()) {
    for _ in 0..n {
        advance(Duration::from_secs(1)).await;
        each();
        recorder.sample();
    }
}

#[tokio::test(start_paused = true)]
async fn steady_work_gives_its_rates_and_the_end_of_the_backlog() {
    // Guarantees rates, the sum of what waits and what is unread, and the estimate of its end.
    let metrics = Metrics::default();
    let recorder = StatusRecorder::new(pipeline(&metrics), Duration::from_secs(60));
    let (sink, source) = (metrics.sink("crm"), metrics.source("app", "kafka"));
    let mut behind = 10_000;
    recorder.sample();
    seconds(&recorder, 30, || {
        behind -= 100;
        source.lag().set("t", 0, behind);
        source.sent(0, 100);
        sink.received(100);
        sink.activity().settled(100);
        sink.request("POST", "events/");
    })
    .await;
    let status = recorder.status();
    let crm = &status.sinks[0];
    assert!((crm.records_in_per_sec - 100.0).abs() < 1.0, "{crm:?}");
    assert!((crm.records_out_per_sec - 100.0).abs() < 1.0, "{crm:?}");
    assert!((crm.requests[0].per_sec - 1.0).abs() < 0.1, "{crm:?}");
    assert_eq!((crm.backlog.records, crm.backlog.estimated), (7_000, false));
    assert_eq!(status.sources[0].lag.records_behind, Some(7_000));
    let history = recorder.history();
    assert_eq!(history["crm"].len(), 6);
    // The first sample saw no lag yet, so the pace is taken after it has left the window.
    seconds(&recorder, 35, || {
        behind -= 100;
        source.lag().set("t", 0, behind);
    })
    .await;
    let backlog = recorder.status().sinks[0].backlog.clone();
    assert_eq!(backlog.records, 3_500);
    assert!((backlog.shrinks_per_sec - 100.0).abs() < 1.0, "{backlog:?}");
    assert!((backlog.ends_in_secs.unwrap() - 35.0).abs() < 1.0, "{backlog:?}");
}

#[tokio::test(start_paused = true)]
async fn states_say_the_worst_first_and_in_words() {
    // Guarantees the order of states: halted, storage, paused, outage, running.
    let metrics = Metrics::default();
    let recorder = StatusRecorder::new(pipeline(&metrics), Duration::ZERO);
    let sink = metrics.sink("crm");
    let activity = sink.activity();
    let shown = || {
        let status = recorder.status();
        (status.state, status.sinks[0].reason.clone(), status.not_ready.join("; "))
    };
    assert_eq!(shown(), (State::Running, "nothing waits".to_owned(), String::new()));
    activity.unanswered("connect");
    // An outage of less than two seconds is not shown, but nothing could be delivered for 0 s.
    let (state, _, not_ready) = shown();
    assert_eq!(state, State::Running);
    assert!(not_ready.contains("no connection"), "{not_ready}");
    activity.paused(Duration::from_secs(600));
    assert_eq!(shown().0, State::Paused);
    assert!(shown().1.starts_with("paused until 20"), "{}", shown().1);
    activity.storage(Some("no room left for `x`".to_owned()));
    assert_eq!(shown().0, State::StorageFailed);
    assert!(shown().2.contains("no room left"), "{}", shown().2);
    activity.answered(401, Duration::ZERO);
    activity.halted(true);
    sink.halted(true);
    assert_eq!(shown().0, State::Halted);
    assert!(shown().1.contains("status 401") && shown().2.contains("sink `crm`"));
    sink.halted(false);
    activity.halted(false);
    activity.storage(None);
    activity.paused(Duration::ZERO);
    assert_eq!(shown(), (State::Running, "nothing waits".to_owned(), String::new()));
}
