//! Renditions whose samples are passed on: what a player is told of them, and how their segments are found.

use std::sync::Arc;

use balcony_media::container::{Codec, Sample, Track};
use balcony_media::cut::{self, CopyCuts, Cuts};
use balcony_media::fmp4::entry;
use balcony_media::fmp4::write::{self, InitTrack};
use balcony_media::ladder::{self, Size};
use balcony_media::segment::{self, Reordering, Timing};

use super::{Make, ROUNDING, Rendition, USUAL_RATE, table};
use crate::film::Film;
use crate::produce::Workshop;
use crate::produce::copy::{Inline, priming};

/// Pictures that may be decoded ahead where the parameter sets do not tell: the most that common encoders use.
const USUAL_REORDER: u8 = 4;
/// Pictures before an open key frame in order of time, where the container does not tell: as many as common encoders put between two others.
const MOST_LEADING: u8 = 8;

/// Bytes of a row that has all four fields (`trun`, ISO 14496-12, 8.8.8); sound has fewer, but more rows for its bytes.
const ROW: u64 = 16;

/// The film's own pictures; `None` where they cannot be packaged.
pub(super) fn video(film: &Film, track: &Track, copy: &CopyCuts, identity: &str, workshop: &Arc<Workshop>) -> Option<Rendition> {
    let (entry, described) = entry::picture(track)?;
    let picture = track.video.clone().unwrap_or_default();
    let rate = picture.frame_rate.filter(|rate| *rate > 0.0);
    let samples = table(&film.index, track.stream);
    let first = cut::copied_video_samples(copy, samples);
    let Reordering { shift, lead, depth } = if samples.is_empty() {
        let depth = described.picture.reorder.or(picture.reorder).unwrap_or(USUAL_REORDER);
        let frame = f64::from(track.timescale) / rate.unwrap_or(USUAL_RATE);
        let rounding = if depth > 0 { ROUNDING } else { 0 };
        // Of the codecs that are cut at open groups, and where the container does not tell whether they are.
        let lead = if track.codec == Codec::Hevc && depth > 0 { (f64::from(MOST_LEADING) * frame).ceil() as u64 + rounding } else { 0 };
        Reordering { shift: (f64::from(depth) * frame).ceil() as u64 + rounding + lead, lead, depth }
    } else {
        segment::reorder_of_table(samples, &first)
    };
    let timing = Timing { timescale: track.timescale, video: true, shift, lead, rolls: false };
    let init =
        write::init(&InitTrack { entry, timescale: track.timescale, language: track.language.clone(), duration: None, media_time: shift });
    let bytes = |n: u32| match first.get(n as usize).zip(first.get(n as usize + 1)) {
        Some((from, to)) if !samples.is_empty() => bytes_of(samples.get(*from..*to)),
        _ => copy.byte(n + 1).saturating_sub(copy.byte(n).max(film.index.first_byte)),
    };
    let (peak, average) = rates(&copy.cuts, bytes);
    // Where only the bytes of everything together are known, the sound's share of them is told with the sound.
    let average = if samples.is_empty() { average - usual_sound(film).min(average / 2) } else { average };
    let make = if samples.is_empty() {
        Make::Inline { init, inline: inline(film, track, copy, timing, depth, workshop) }
    } else {
        Make::Table { init, index: film.index.clone(), stream: track.stream, first, timing, depth }
    };
    Some(Rendition {
        identity: identity.to_owned(),
        cuts: copy.cuts.clone(),
        codecs: described.codecs,
        resolution: Some(Size { width: ladder::square_width(&picture), height: picture.height }),
        frame_rate: rate,
        channels: 0,
        peak,
        average,
        copy: Some(copy.clone()),
        make,
    })
}

/// One of the film's own sounds; `None` where it cannot be packaged.
pub(super) fn audio(film: &Film, track: &Track, copy: &CopyCuts, identity: &str, workshop: &Arc<Workshop>) -> Option<Rendition> {
    let (entry, described) = entry::sound(track)?;
    let sound = track.audio.clone().unwrap_or_default();
    let timing = Timing { timescale: track.timescale, video: false, shift: priming(track), lead: 0, rolls: entry.rolls() };
    let init = write::init(&InitTrack {
        entry,
        timescale: track.timescale,
        language: track.language.clone(),
        duration: None,
        media_time: timing.shift,
    });
    let samples = table(&film.index, track.stream);
    let (cuts, make, rates) = if samples.is_empty() {
        let at = |boundary| cut::rescale(boundary, copy.cuts.timescale, track.timescale);
        let mut starts: Vec<i64> = copy.cuts.boundaries().map(at).collect();
        let end = starts.pop().unwrap_or(1);
        if let Some(first) = starts.first_mut() {
            *first = (*first).min(track.first_pts.unwrap_or(0));
        }
        let cuts = Cuts::new(track.timescale, starts, end);
        let make = Make::Inline { init, inline: inline(film, track, copy, timing, 0, workshop) };
        (cuts, make, usual_rates(track, described.bitrate, sound.channels))
    } else {
        let by_sample = cut::copied_table_cuts(copy, track);
        let first = by_sample.first;
        let bytes = |n: u32| bytes_of(first.get(n as usize).zip(first.get(n as usize + 1)).and_then(|(from, to)| samples.get(*from..*to)));
        let rates = rates(&by_sample.cuts, bytes);
        let make = Make::Table { init, index: film.index.clone(), stream: track.stream, first, timing, depth: 0 };
        (by_sample.cuts, make, rates)
    };
    Some(Rendition {
        identity: identity.to_owned(),
        cuts,
        codecs: described.codecs,
        resolution: None,
        frame_rate: None,
        channels: if described.sound.channels > 0 { described.sound.channels } else { sound.channels },
        peak: rates.0,
        average: rates.1,
        copy: Some(copy.clone()),
        make,
    })
}

/// What all sounds of a film take together on the average, in bits per second, where their samples are not known.
fn usual_sound(film: &Film) -> u64 {
    let of = |track: &Track| {
        let told = entry::sound(track).and_then(|(_, described)| described.bitrate);
        usual_rates(track, told, track.audio.as_ref().map_or(0, |sound| sound.channels)).1
    };
    film.index.audio().map(of).sum()
}

/// Largest and average rate of sound whose samples are not known, in bits per second. `most` is what its configuration allows.
fn usual_rates(track: &Track, most: Option<u64>, channels: u16) -> (u64, u64) {
    let average = match (track.bitrate, most, &track.codec) {
        (Some(told), ..) => told,
        // Lossless coding saves about four tenths of most films' sound.
        (None, Some(most), Codec::Flac | Codec::Alac) => most * 6 / 10,
        (None, ..) => u64::from(channels.max(2)) * 96_000,
    };
    let peak = most.map_or(average * 5 / 4, |most| most.max(average) * 21 / 20); // with the headers of chunks
    (peak, average.min(peak))
}

fn inline(film: &Film, track: &Track, copy: &CopyCuts, timing: Timing, depth: u8, workshop: &Workshop) -> Arc<Inline> {
    let frame_len = track.audio.as_ref().and_then(|sound| sound.frame_len);
    Arc::new(Inline {
        source: film.source.clone(),
        index: film.index.clone(),
        fragments: film.fragments.clone(),
        copy: copy.clone(),
        track: track.id,
        timing,
        depth,
        frame_len,
        tasks: workshop.tools.tasks.clone(),
        kept: std::sync::Mutex::default(),
    })
}

/// What a segment of these samples takes, with the boxes around them.
fn bytes_of(samples: Option<&[Sample]>) -> u64 {
    samples.unwrap_or_default().iter().map(|sample| u64::from(sample.size) + ROW).sum()
}

/// Largest and average rate in bits per second, headers included.
fn rates(cuts: &Cuts, bytes: impl Fn(u32) -> u64) -> (u64, u64) {
    let (mut peak, mut all) = (0f64, 0u64);
    for n in 0..cuts.count() {
        let bytes = bytes(n);
        all += bytes;
        peak = peak.max(bytes as f64 * 8.0 / cuts.seconds(n).max(0.1));
    }
    let seconds: f64 = (0..cuts.count()).map(|n| cuts.seconds(n)).sum();
    ((peak * 1.02) as u64 + 1000, (all as f64 * 8.0 / seconds.max(0.1)) as u64 + 500)
}
