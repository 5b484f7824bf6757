#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| usercom_sink::fuzz::run("decoders", data));
