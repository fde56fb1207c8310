//! Renditions whose samples are passed on: what a player is told of them, and how their segments are found.

use std::sync::Arc;

use balcony_media::codec::{self, DescribedPicture};
use balcony_media::container::{Codec, Picture, Sample, Track};
use balcony_media::cut::{self, CopyCuts, Cuts};
use balcony_media::fmp4::write::{self, Entry, InitTrack, Raster};
use balcony_media::ladder::{self, Size};
use balcony_media::segment::{self, Timing};

use super::{Make, ROUNDING, Rendition, USUAL_RATE, table};
use crate::film::Film;
use crate::produce::Workshop;
use crate::produce::copy::{Inline, priming};

/// Pictures that may be decoded ahead where the parameter sets do not tell: the most that common encoders use.
const USUAL_REORDER: u8 = 4;

pub(super) fn video(film: &Film, track: &Track, copy: &CopyCuts, identity: &str, workshop: &Arc<Workshop>) -> Rendition {
    let picture = track.video.clone().unwrap_or_default();
    let rate = picture.frame_rate.filter(|rate| *rate > 0.0);
    let samples = table(&film.index, track.stream);
    let first = cut::copied_video_samples(copy, samples);
    let (shift, depth) = if samples.is_empty() {
        let depth = picture.reorder.unwrap_or(USUAL_REORDER);
        let frame = f64::from(track.timescale) / rate.unwrap_or(USUAL_RATE);
        ((f64::from(depth) * frame).ceil() as u64 + if depth > 0 { ROUNDING } else { 0 }, depth)
    } else {
        segment::reorder_of_table(samples, &first)
    };
    let timing = Timing { timescale: track.timescale, video: true, shift };
    let init = write::init(&InitTrack {
        entry: picture_entry(track, &picture),
        timescale: track.timescale,
        language: track.language.clone(),
        duration: None,
        media_time: shift,
    });
    let bytes = |n: u32| match first.get(n as usize).zip(first.get(n as usize + 1)) {
        Some((from, to)) if !samples.is_empty() => bytes_of(samples.get(*from..*to)),
        _ => copy.byte(n + 1).saturating_sub(copy.byte(n).max(film.index.first_byte)),
    };
    let (peak, average) = rates(&copy.cuts, bytes);
    let make = if samples.is_empty() {
        Make::Inline { init, inline: inline(film, track, copy, timing, depth, workshop) }
    } else {
        Make::Table { init, index: film.index.clone(), stream: track.stream, first, timing, depth }
    };
    Rendition {
        identity: identity.to_owned(),
        cuts: copy.cuts.clone(),
        codecs: described(track).map(|described| described.codecs).unwrap_or_default(),
        resolution: Some(Size { width: ladder::square_width(&picture), height: picture.height }),
        frame_rate: rate,
        channels: 0,
        peak,
        average,
        copy: Some(copy.clone()),
        make,
    }
}

/// What the parameter sets of a picture that can be copied tell.
fn described(track: &Track) -> Option<DescribedPicture> {
    match track.codec {
        Codec::Hevc => codec::hevc::describe(&track.config),
        _ => codec::h264::describe(&track.config),
    }
}

fn picture_entry(track: &Track, picture: &Picture) -> Entry {
    let raster = Raster {
        width: picture.width,
        height: picture.height,
        pixel_aspect: picture.pixel_aspect,
        colour: described(track).and_then(|described| described.colour),
    };
    let config = track.config.clone();
    if track.codec == Codec::Hevc { Entry::Hevc { config, raster } } else { Entry::Avc { config, raster } }
}

pub(super) fn audio(film: &Film, track: &Track, copy: &CopyCuts, identity: &str, workshop: &Arc<Workshop>) -> Rendition {
    let sound = track.audio.clone().unwrap_or_default();
    let timing = Timing { timescale: track.timescale, video: false, shift: priming(track) };
    let described = codec::aac::describe(&track.config);
    let init = write::init(&InitTrack {
        entry: Entry::Aac { config: track.config.clone(), channels: sound.channels, sample_rate: sound.sample_rate },
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
        let usual = track.bitrate.unwrap_or(u64::from(sound.channels.max(2)) * 96_000);
        let make = Make::Inline { init, inline: inline(film, track, copy, timing, 0, workshop) };
        (cuts, make, (usual * 5 / 4, usual))
    } else {
        let by_sample = cut::copied_table_cuts(copy, track);
        let first = by_sample.first;
        let bytes = |n: u32| bytes_of(first.get(n as usize).zip(first.get(n as usize + 1)).and_then(|(from, to)| samples.get(*from..*to)));
        let rates = rates(&by_sample.cuts, bytes);
        let make = Make::Table { init, index: film.index.clone(), stream: track.stream, first, timing, depth: 0 };
        (by_sample.cuts, make, rates)
    };
    Rendition {
        identity: identity.to_owned(),
        cuts,
        codecs: described.map_or_else(|| "mp4a.40.2".to_owned(), |described| described.codecs),
        resolution: None,
        frame_rate: None,
        channels: sound.channels,
        peak: rates.0,
        average: rates.1,
        copy: Some(copy.clone()),
        make,
    }
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

fn bytes_of(samples: Option<&[Sample]>) -> u64 {
    samples.unwrap_or_default().iter().map(|sample| u64::from(sample.size)).sum()
}

/// Largest and average rate in bits per second, headers included.
fn rates(cuts: &Cuts, bytes: impl Fn(u32) -> u64) -> (u64, u64) {
    let (mut peak, mut all) = (0f64, 0u64);
    for n in 0..cuts.count() {
        let bytes = bytes(n);
        all += bytes;
        peak = peak.max(bytes as f64 * 8.0 / cuts.seconds(n).max(0.1));
    }
    let seconds = (cuts.end(cuts.count().saturating_sub(1)) - cuts.start(0)) as f64 / f64::from(cuts.timescale);
    ((peak * 1.02) as u64 + 1000, (all as f64 * 8.0 / seconds.max(0.1)) as u64 + 500)
}
