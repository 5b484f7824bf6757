//! Order within a connection, and places for those who use them.

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_requests_of_one_connection_stay_whole_and_ordered() {
    // Guarantees that requests sent side by side over one connection come out one after the other,
    // however long each takes to be read: the first is by far the largest and compressed.
    let mut bench = Bench::start(json!({})).await;
    let client = connect(bench.port).await;
    let mut pushes = Vec::new();
    let mut wanted = Vec::new();
    for n in 0..12_usize {
        let events = if n == 0 { 600 } else { 10 };
        let pad = if n == 0 { "x".repeat(20_000) } else { String::new() };
        let of_this = (0..events).map(|k| json!({ "request": n, "n": k, "pad": pad }));
        let events: Vec<_> =
            of_this.enumerate().map(|(k, json)| log(&json, (n * 1000 + k) as u128)).collect();
        wanted.extend((0..events.len()).map(|k| (n, k)));
        let mut client = client.clone();
        if n == 0 {
            client = client.send_compressed(tonic::codec::CompressionEncoding::Gzip);
        }
        pushes.push(async move { client.push_events(request(events)).await });
    }
    // Asked for the first time one after the other, they open their streams in this order.
    let answers = futures::future::join_all(pushes);
    let (answers, records) = tokio::join!(answers, bench.settle(wanted.len(), Verdict::Delivered));
    let found: Vec<(usize, usize)> = records
        .iter()
        .map(|record| {
            let json: Json = serde_json::from_slice(&record.body).unwrap();
            let number = |key: &str| usize::try_from(json[key].as_u64().unwrap()).unwrap();
            (number("request"), number("n"))
        })
        .collect();
    let order: Vec<usize> = found.chunk_by(|a, b| a.0 == b.0).map(|chunk| chunk[0].0).collect();
    assert!(found == wanted, "requests came out in another order than they arrived: {order:?}");
    for answer in answers {
        answer.unwrap();
    }
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_connections_do_not_block_others() {
    // Guarantees that connections which say nothing, or only greet, or are idle after a request,
    // lose their places to one that has events, within some seconds.
    let mut bench = Bench::start(json!({ "max_connections": 3 })).await;
    let mut idle = connect(bench.port).await;
    let one = |n| request(vec![log(&json!({ "n": 1 }), n)]);
    let (answer, _) = tokio::join!(idle.push_events(one(1)), bench.settle(1, Verdict::Delivered));
    answer.unwrap();
    let silent = TcpStream::connect(("127.0.0.1", bench.port)).await.unwrap();
    let mut greeting = TcpStream::connect(("127.0.0.1", bench.port)).await.unwrap();
    greeting.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let begin = tokio::time::Instant::now();
    // The first gets the place of one that never spoke, as does the second; the third that of the
    // one that has been idle since its request.
    let mut clients = Vec::new();
    for n in 2..5_u128 {
        let mut client = connect(bench.port).await;
        let served = async {
            let (answer, _) =
                tokio::join!(client.push_events(one(n)), bench.settle(1, Verdict::Delivered));
            answer.unwrap();
        };
        tokio::time::timeout(Duration::from_secs(40), served).await.expect("it is served");
        clients.push(client);
    }
    println!("three clients were served within {:?}", begin.elapsed());
    drop((silent, greeting, idle, clients));
    bench.end().await;
}
