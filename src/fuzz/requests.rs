//! Bodies of requests to the sources `http` and `vector`.

use bytes::Bytes;

use super::is_json;

pub(super) fn http_body(data: &[u8]) {
    let body = Bytes::copy_from_slice(data);
    for record in crate::source::http::records_of_body(&body) {
        assert!(is_json(&record), "not JSON: {}", record.escape_ascii());
    }
}

#[cfg(feature = "vector")]
pub(super) fn grpc_body(data: &[u8]) {
    let body = Bytes::copy_from_slice(data);
    for record in crate::source::vector::records_of_call(&body) {
        if record.decode_error.is_none() {
            assert!(is_json(&record.body), "not JSON: {}", record.body.escape_ascii());
        }
        assert!(record.meta.as_deref().is_none_or(is_json), "metadata is not JSON");
    }
}
