//! Replays the fuzzer's corpora: what it found once stays found, on every machine that runs the ordinary tests.
//!
//! Each file is also replayed cut off at many places, as half-written files are what a torrent is made of.

#[path = "corpus/bodies.rs"]
mod bodies;

use std::path::Path;

/// Number of places at which each file is cut off.
const CUTS: usize = 64;

#[track_caller]
fn replay(target: &str, body: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let mut files: Vec<_> = folder.read_dir().expect("every target has a corpus").map(|entry| entry.expect("readable").path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    for file in files {
        let data = std::fs::read(&file).expect("readable");
        let step = data.len().div_ceil(CUTS).max(1);
        for len in (0..data.len()).step_by(step).chain([data.len()]) {
            let whole = std::panic::catch_unwind(|| body(&data[..len]));
            assert!(whole.is_ok(), "{} fails when cut to {len} of {} bytes", file.display(), data.len());
        }
    }
}

#[test]
fn magnet() {
    replay("magnet", bodies::magnet);
}

#[test]
fn range() {
    replay("range", bodies::range);
}

#[test]
fn codec() {
    replay("codec", bodies::codec);
}

#[test]
fn mp4() {
    replay("mp4", bodies::mp4);
}

#[test]
fn matroska() {
    replay("matroska", bodies::matroska);
}

#[test]
fn matroska_blocks() {
    replay("matroska_blocks", bodies::matroska_blocks);
}

#[test]
fn fmp4_read() {
    replay("fmp4_read", bodies::fmp4_read);
}

#[test]
fn subtitles() {
    replay("subtitles", bodies::subtitles);
}
