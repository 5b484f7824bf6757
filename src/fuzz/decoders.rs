//! Every codec on any bytes, as lines of a stream and as a message.

use std::sync::LazyLock;

use bytes::Bytes;
use serde_json::json;

use super::is_json;
use crate::config::source::Decoding;
use crate::source::decode::{Decoded, Decoder};

/// One of each codec, and combinations of them.
static DECODERS: LazyLock<Vec<Decoder>> = LazyLock::new(|| {
    let settings = [
        json!({ "codec": "json" }),
        json!({ "codec": "text" }),
        json!({ "codec": "csv" }),
        json!({ "codec": "csv", "columns": ["a", "b"], "delimiter": ";" }),
        json!({ "codec": "logfmt" }),
        json!({ "codec": "regex", "pattern": "^(?P<kind>\\w+) (?P<rest>.*)$" }),
        json!({ "codec": "syslog" }),
        json!({ "codec": "cri" }),
        json!({ "codec": "docker" }),
        json!({ "codec": "json", "charset": "utf-16" }),
        json!({ "codec": "text", "charset": "latin1" }),
        json!([{ "codec": "cri" }, { "codec": "json" }]),
        json!([{ "codec": "syslog" }, { "codec": "logfmt", "into": ".fields" }]),
    ];
    let decoder = |settings| {
        let decoding =
            serde_json::from_value::<Decoding>(settings).expect("the settings are valid");
        Decoder::new(&decoding).expect("the settings do not contradict each other")
    };
    settings.into_iter().map(decoder).collect()
});

/// The first byte selects the codec, the rest is what it reads.
pub(super) fn decoders(data: &[u8]) {
    let Some((selected, text)) = data.split_first() else { return };
    let text = Bytes::copy_from_slice(text);
    let decoder = &DECODERS[usize::from(*selected) % DECODERS.len()];
    let lines = decoder.lines(&text);
    check(&lines, text.len());
    assert!(lines.is_sorted_by_key(|decoded| (decoded.end, decoded.part)), "positions only grow");
    check(&decoder.message(&text), text.len());
}

fn check(decoded: &[Decoded], length: usize) {
    for decoded in decoded {
        assert!(decoded.start <= decoded.end && decoded.end <= length as u64, "{decoded:?}");
        assert!(decoded.fault.is_some() || is_json(&decoded.body), "{decoded:?}");
        assert!(decoded.meta.as_deref().is_none_or(is_json), "{decoded:?}");
    }
}
