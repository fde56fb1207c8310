//! The Cues (RFC 9559, section 5.1.5): where the film can be entered.

use super::super::{Index, KeyFrame, Kind, Samples};
use super::ebml::{children, uint};
use super::ticks;

/// Fills the key frames of every video track of `index`, and the texts of every subtitle track. `data` is the file offset from which positions count.
///
/// Points that lie outside of the Clusters are dropped, and so are those whose Cluster lies before that of an earlier picture.
pub(super) fn read(body: &[u8], data: u64, index: &mut Index) {
    for (_, point) in children(body).filter(|(id, _)| *id == 0xBB) {
        let Some(time) = children(point).find(|(id, _)| *id == 0xB3).map(|(_, body)| uint(body)) else { continue };
        for (_, place) in children(point).filter(|(id, _)| *id == 0xB7) {
            add(time, place, data, index);
        }
    }
    for track in &mut index.tracks {
        track.key_frames.sort_by_key(|key| (key.pts, key.offset, key.block));
        track.key_frames.dedup_by_key(|key| key.pts);
        let mut reached = 0;
        track.key_frames.retain(|key| {
            let onward = key.offset >= reached;
            reached = reached.max(key.offset);
            onward
        });
    }
}

/// One CueTrackPositions.
fn add(time: u64, place: &[u8], data: u64, index: &mut Index) {
    let (mut number, mut cluster, mut block) = (0, None, None);
    for (id, body) in children(place) {
        match id {
            0xF7 => number = uint(body),
            0xF1 => cluster = data.checked_add(uint(body)),
            0xF0 => block = Some(uint(body)),
            _ => {}
        }
    }
    let clusters = index.first_byte..index.end_byte;
    let track = index.tracks.iter_mut().find(|track| track.id == number && matches!(track.kind, Kind::Video | Kind::Subtitle));
    let (Some(track), Some(offset)) = (track, cluster.filter(|offset| clusters.contains(offset))) else { return };
    let Samples::Blocks(rules) = &track.samples else { return };
    let nanoseconds = i128::from(time) * i128::from(rules.scale) - rules.shift();
    track.key_frames.push(KeyFrame { pts: ticks(nanoseconds, track.timescale), offset, block, closed: true });
}
