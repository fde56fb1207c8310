//! See the body of the same name: what is called, and what must hold.
#![no_main]

#[path = "../../crates/media/tests/corpus/bodies.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::subtitles(data));
