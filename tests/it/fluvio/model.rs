//! The reader against a naive model: records are produced, taken and settled in any order, while
//! connections break, the cluster goes down, and the reader is killed and stopped.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use tokio::time::sleep;
use usercom_sink::ack::Verdict;
use usercom_sink::config::source::{FluvioOffset, FluvioStart, FluvioStartWord, FluvioStrategy};

use super::cluster::Fake;
use super::support::{How, Notes, Reader, Taken};

const PARTITIONS: u32 = 2;

#[derive(Debug, Clone)]
enum Step {
    Produce(u32, usize),
    Take(usize),
    Settle(usize, Verdict),
    Wait(u64),
    Cut,
    Down,
    Up,
    FailKeep,
    Stale(i64),
    Hole,
    Crash,
    Stop,
}

fn step() -> impl Strategy<Value = Step> {
    let verdict = prop_oneof![
        10 => Just(Verdict::Delivered),
        2 => Just(Verdict::Rejected),
        1 => Just(Verdict::Errored),
    ];
    prop_oneof![
        4 => (0..PARTITIONS, 1_usize..8).prop_map(|(p, n)| Step::Produce(p, n)),
        6 => (1_usize..8).prop_map(Step::Take),
        8 => (any::<usize>(), verdict).prop_map(|(n, v)| Step::Settle(n, v)),
        3 => (1_u64..3000).prop_map(Step::Wait),
        1 => Just(Step::Cut),
        1 => Just(Step::Down),
        2 => Just(Step::Up),
        1 => Just(Step::FailKeep),
        1 => (0_i64..5).prop_map(Step::Stale),
        1 => Just(Step::Hole),
        1 => Just(Step::Crash),
        1 => Just(Step::Stop),
    ]
}

/// How large everything is.
#[derive(Debug, Clone)]
struct Size {
    limit: usize,
    room: usize,
    batch: usize,
    compressed: bool,
    max_bytes: u32,
}

fn size() -> impl Strategy<Value = Size> {
    let sizes = (1_usize..12, 1_usize..12, 1_usize..9, any::<bool>(), 1_u32..400);
    sizes.prop_map(|(limit, room, batch, compressed, max_bytes)| Size {
        limit,
        room,
        batch,
        compressed,
        max_bytes,
    })
}

fn how(size: &Size, start: FluvioStartWord) -> How {
    let mut how = How { room: size.room, ..How::default() };
    how.settings.max_in_flight = size.limit;
    how.settings.max_bytes = Some(size.max_bytes);
    let start = FluvioStart::Word(start);
    how.settings.offset = FluvioOffset { start, strategy: FluvioStrategy::Auto };
    how
}

/// One run of the steps. Ends with everything delivered.
async fn play(steps: Vec<Step>, size: Size, start: FluvioStartWord) -> Fake {
    let (fake, notes) = (Fake::topic(PARTITIONS as usize), Arc::<Notes>::default());
    fake.state().batch = size.batch;
    fake.state().compressed = size.compressed;
    // Some records are there before anybody reads.
    for partition in 0..PARTITIONS {
        for _ in 0..3 {
            fake.produce(partition, "{}");
        }
        if start == FluvioStartWord::End {
            fake.state().begins.insert(partition, 3);
        }
    }
    let mut reader = Reader::start(&fake, &notes, how(&size, start));
    // The first beginning is found in peace, as the model knows it.
    sleep(Duration::from_secs(1)).await;
    let mut held: Vec<Taken> = Vec::new();
    for step in steps {
        match step {
            Step::Produce(partition, count) => {
                for _ in 0..count {
                    fake.produce(partition, "{}");
                }
            }
            Step::Take(count) => {
                for _ in 0..count {
                    match reader.take_within(Duration::from_millis(10)).await {
                        Some(taken) => held.push(taken),
                        None => break,
                    }
                }
            }
            Step::Settle(n, verdict) if !held.is_empty() => {
                let taken = held.swap_remove(n % held.len());
                reader.settle(taken, verdict);
            }
            Step::Settle(..) => {}
            Step::Wait(millis) => sleep(Duration::from_millis(millis)).await,
            Step::Cut => fake.cut(),
            Step::Down => {
                fake.state().down = true;
                fake.cut();
            }
            Step::Up => fake.state().down = false,
            Step::FailKeep => fake.state().failing_keeps += 1,
            Step::Stale(stale) => fake.state().stale = stale,
            Step::Hole => fake.state().holes += 1,
            Step::Crash => {
                reader.crash().await;
                held.clear();
                reader = Reader::start(&fake, &notes, how(&size, start));
            }
            Step::Stop => {
                for taken in held.drain(..) {
                    reader.settle(taken, Verdict::Delivered);
                }
                reader.stop().await.expect("a stop is no failure");
                reader = Reader::start(&fake, &notes, how(&size, start));
            }
        }
    }
    fake.state().down = false;
    for taken in held {
        reader.settle(taken, Verdict::Delivered);
    }
    reader.deliver_all(Duration::from_secs(90)).await;
    reader.stop().await.expect("a stop is no failure");
    fake
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]
    #[test]
    fn model_loses_nothing_and_commits_no_offset_early(
        steps in proptest::collection::vec(step(), 0..60),
        size in size(),
        at_end in any::<bool>(),
    ) {
        // Whatever happens, every record is settled in the end, its offset is committed, and at no
        // moment was an offset kept before all up to it were settled.
        let start = if at_end { FluvioStartWord::End } else { FluvioStartWord::Beginning };
        let fake = in_virtual_time(play(steps, size, start));
        prop_assert_eq!(&fake.state().wrong, &[]);
        prop_assert!(fake.is_finished(), "kept {:?}", fake.state().kept);
    }
}

fn in_virtual_time<T>(played: impl Future<Output = T>) -> T {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.unwrap().block_on(played)
}
