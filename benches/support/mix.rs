//! The records the benches measure with: the sample next to the crate, else records like it.
//!
//! Not the measuring. Invariant: the same records in every run on a machine.

use std::fmt::Write as _;
use std::path::Path;

/// A thousand records in Segment's shape, one a line, and where they come from.
pub(crate) fn records() -> (&'static str, String) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/mix-1000.ndjson");
    match std::fs::read_to_string(&file) {
        Ok(text) => ("mix-1000.ndjson", text),
        Err(_) => ("generated records (the sample mix-1000.ndjson is absent)", generated()),
    }
}

/// A thousand events of about 1.2 KB, always the same.
fn generated() -> String {
    let mut out = String::new();
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    for n in 0..1000 {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        let rest = match n % 20 {
            0..3 => format!(
                r#""type":"identify","traits":{{"email":"u{seed}@example.com","first_name":"Ada","plan":"pro","logins":{},"address":{{"city":"Łódź","country":"PL"}},"tags":["a","b"]}}"#,
                seed % 500
            ),
            3..9 => r#""type":"page","name":"Home","category":"shop","properties":{"path":"/","url":"https://shop.example.com/","title":"Example Shop"}"#.to_owned(),
            9..19 => format!(
                r#""type":"track","event":"Product Viewed","properties":{{"sku":"sku-{}","price":{}.5,"currency":"EUR","quantity":1}}"#,
                seed % 2000,
                seed % 300
            ),
            _ => r#""type":"group","groupId":"acct-1","traits":{"name":"Acme","employees":12}"#.to_owned(),
        };
        writeln!(
            out,
            r#"{{"messageId":"msg-{n}-{seed:x}","channel":"web","anonymousId":"anon-{seed:x}","context":{{"library":{{"name":"analytics.js","version":"2.11.1"}},"userAgent":"Mozilla/5.0 (iPhone; CPU iPhone OS 17_6_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.6 Mobile/15E148 Safari/604.1","os":{{"name":"iOS","version":"17.6.1"}},"device":{{"type":"ios","manufacturer":"Apple","model":"iPhone15,2","id":"{seed:x}"}},"locale":"fr-FR","screen":{{"width":393,"height":852,"density":3}},"ip":"203.0.113.103","timezone":"Europe/Paris","page":{{"path":"/account","referrer":"","search":"","title":"Example Shop","url":"https://shop.example.com/account"}},"campaign":{{}},"network":{{"carrier":"T-Mobile","cellular":true,"wifi":false}}}},"originalTimestamp":"2026-08-20T08:00:00.687Z","timestamp":"2026-08-20T08:00:00.687Z","sentAt":"2026-08-20T08:00:00.942Z","integrations":{{"All":true}},"userId":"user-{}",{rest}}}"#,
            seed % 100
        )
        .expect("writing to a string cannot fail");
    }
    out
}
