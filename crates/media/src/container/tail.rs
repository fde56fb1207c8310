//! How long a film is whose container does not tell: its last time stamps, found in its last bytes.
//!
//! Recordings and live captures have no duration. Their last Cluster or movie fragment is looked for by its name, and read to the end.

use bytes::Bytes;

use super::{Container, Index, Sparse, Stop, matroska, mp4};

/// Clusters or fragments that are tried from the end: names can stand in pictures by chance.
const TRIES: usize = 16;
/// Frames looked at in each.
const MOST_FRAMES: usize = 100_000;

/// Seconds at which the last frame of a film ends, as far as the bytes from `offset` to the end of the file tell.
pub fn last_time(index: &Index, fragments: Option<&mp4::Context>, offset: u64, tail: Bytes) -> Option<f64> {
    let (name, before): (&[u8], usize) = match index.container {
        Container::Matroska => (b"\x1f\x43\xb6\x75", 0),
        // A box begins with its size; its name follows.
        Container::FragmentedMp4 => (b"moof", 4),
        Container::Mp4 | Container::Other => return None,
    };
    let mut known = Sparse::new(offset.checked_add(tail.len() as u64)?);
    known.insert(offset, tail.clone());
    let found = tail.windows(name.len()).enumerate().rev().filter(|(_, bytes)| *bytes == name).filter_map(|(at, _)| at.checked_sub(before));
    found.take(TRIES).find_map(|at| ends(index, fragments, offset + at as u64, &known))
}

/// The latest end of a frame from a Cluster or fragment on.
fn ends(index: &Index, fragments: Option<&mp4::Context>, from: u64, known: &Sparse) -> Option<f64> {
    let mut next: Box<dyn FnMut() -> Result<Option<super::Frame>, Stop> + '_> = match index.container {
        Container::FragmentedMp4 => {
            let mut fragments = mp4::Fragments::at(from, fragments?.clone());
            Box::new(move || fragments.next(known))
        }
        _ => {
            let mut blocks = matroska::Blocks::at(from, index);
            Box::new(move || blocks.next(known))
        }
    };
    let mut latest: Option<f64> = None;
    // A last frame that is cut off ends the film as well.
    for _ in 0..MOST_FRAMES {
        let Ok(Some(frame)) = next() else { break };
        let Some(track) = index.track(frame.track) else { continue };
        let end = frame.pts.saturating_add(frame.duration.map_or(0, i64::from)) as f64 / f64::from(track.timescale.max(1));
        latest = Some(latest.map_or(end, |latest| latest.max(end)));
    }
    latest.filter(|seconds| seconds.is_finite() && *seconds > 0.0)
}
