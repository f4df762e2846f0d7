#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dedupe::fuzzing::checkpoint(bytes));
