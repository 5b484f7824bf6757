//! Reads a posted body in every way that the source knows, for [`crate::fuzz`].

use bytes::Bytes;
use futures::FutureExt;
use jiff::Timestamp;

use super::records::{self, BodyRecord};
use super::segment::{ReceiveInfo, SegmentRequest};
use crate::config::source::{Codec, Decoding};
use crate::source::decode::Decoder;
use crate::source::inflate::{ContentCoding, inflate};
use crate::source::memory::{MemoryBudget, MemoryReservation};

/// The largest body, in bytes.
const MAX_BODY_BYTES: usize = 1 << 20;

/// The good records of a body, which must be JSON.
///
/// # Panics
/// If a reader claims what no reader may: that is the finding.
pub(crate) fn records_of_body(body: &Bytes) -> Vec<Bytes> {
    let budget = MemoryBudget::new(64 << 20);
    let mut reservation = budget.try_reserve().expect("nothing else draws on this budget");
    let decoder = Decoder::new(&Decoding::default()).expect("the default decoding is sound");
    let received = ReceiveInfo { at: Timestamp::UNIX_EPOCH, ip: Some("203.0.113.7".into()) };
    let mut found = Vec::new();
    for body in layers(body, &mut reservation) {
        let mut take = |items: Vec<BodyRecord>| {
            assert!(items.len() <= records::MAX_RECORDS);
            let good = items.into_iter().filter(|item| item.fault.is_none());
            found.extend(good.map(|item| {
                assert!(item.number >= 1, "records are counted from 1");
                item.body
            }));
        };
        if let Ok(items) = records::items(Some(Codec::Json), &decoder, &body) {
            take(items);
        }
        if !records::begins_as_json(&body)
            && let Ok(items) = records::form(&body, &mut reservation)
        {
            take(items);
        }
        if let Ok(request) = SegmentRequest::read(&body) {
            let _ = request.write_key();
            take(request.call("track", &received));
        }
        if let Ok(request) = SegmentRequest::read(&body)
            && let Ok(items) = request.batch(&received, MAX_BODY_BYTES)
        {
            take(items);
        }
    }
    found
}

/// The body as it is, and as what each compression makes of it.
fn layers(body: &Bytes, reservation: &mut MemoryReservation) -> Vec<Bytes> {
    let codings = [ContentCoding::Gzip, ContentCoding::Deflate, ContentCoding::Zstd];
    let inflated = codings.into_iter().filter_map(|coding| {
        let read = inflate(coding, &body[..], MAX_BODY_BYTES, reservation).now_or_never();
        let inflated = read.expect("a slice is always ready").ok()?;
        assert!(inflated.len() <= MAX_BODY_BYTES, "more was inflated than is allowed");
        Some(inflated)
    });
    std::iter::once(body.clone()).chain(inflated).collect()
}
