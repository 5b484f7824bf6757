#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| usercom_sink::fuzz::run("grpc_body", data));
