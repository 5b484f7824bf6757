//! The headers of a Kafka message as JSON for `%headers`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::source::broker_message::utf8_or_hex;

/// A header's name and value, as received.
pub(super) type Header = (String, Option<Vec<u8>>);

/// Names and values as text. Of a repeated header the last value is used.
pub(super) fn header_values(headers: &[Header]) -> BTreeMap<&str, Option<Cow<'_, str>>> {
    headers.iter().map(|(name, value)| (&**name, value.as_deref().map(utf8_or_hex))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn repeated_binary_and_empty_headers_have_defined_values() {
        // Of equal headers the last wins; bytes are hexadecimal; a header without a value is null.
        let headers = [
            ("trace".to_owned(), Some(b"a".to_vec())),
            ("raw".to_owned(), Some(vec![0xff, 0x00])),
            ("none".to_owned(), None),
            ("trace".to_owned(), Some(b"b\"".to_vec())),
        ];
        let values = serde_json::to_value(header_values(&headers)).unwrap();
        assert_eq!(values, json!({ "trace": "b\"", "raw": "0xff00", "none": null }));
    }
}
