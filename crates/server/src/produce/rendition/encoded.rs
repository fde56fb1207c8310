//! Renditions that ffmpeg makes: their sizes, rates and grids.

use std::sync::Arc;

use balcony_media::codec::{self, Colour};
use balcony_media::container::{Codec, Track};
use balcony_media::cut::{self, Cuts};
use balcony_media::encoder::Encoder;
use balcony_media::ffmpeg;
use balcony_media::ladder::{self, Size};

use super::{Make, ROUNDING, Rendition, USUAL_RATE, table};
use crate::film::Film;
use crate::produce::Workshop;
use crate::produce::encode::{Coding, Target};
use crate::produce::worker::{EncodeWorker, grid};
use crate::subtitles::Drawing;

/// Bits per second of encoded sound.
const AAC_BITRATE: u32 = 160_000;
/// Channels of encoded sound.
const AAC_CHANNELS: u8 = 2;
/// Samples of a frame of encoded sound.
const AAC_FRAME: u32 = 1024;

pub(super) fn video(film: &Film, track: &Track, size: Size, burn: Option<Drawing>, identity: &str, workshop: &Arc<Workshop>) -> Rendition {
    let picture = track.video.clone().unwrap_or_default();
    let rate = picture.frame_rate.filter(|rate| *rate > 0.0 && *rate <= 240.0);
    let mut frames: Vec<i64> = table(&film.index, track.stream).iter().map(|sample| sample.pts).collect();
    frames.sort_unstable();
    let timescale = if film.has_tables() { track.timescale } else { 90_000 };
    let cuts = cut::encoded_video_cuts(film.copy.as_ref().ok().map(|copy| &copy.cuts), timescale, film.duration, &frames);
    // All rungs are cut alike; what a small one leaves out lies between its cuts.
    let thinned = ladder::thinned(&picture, size);
    if let Some(thinned) = &thinned {
        frames = thinned.kept(&frames, &cuts);
    }
    let rate = rate.map(|rate| rate / f64::from(thinned.map_or(1, |thinned| thinned.every)));
    let bits = ladder::rung_bitrate(size, rate.unwrap_or(USUAL_RATE));
    let level = codec::h264::level_for(size.width, size.height, rate.unwrap_or(USUAL_RATE));
    let frame = (f64::from(cuts.timescale) / rate.unwrap_or(USUAL_RATE)).round().max(1.0) as u32;
    // Fixed for as long as the film is open: one init segment holds for all of it.
    let encoder = Encoder::of_rung(&bits, level, workshop.tools.choice.for_size(size));
    let upright = ladder::fit(&picture, ladder::Quality::Source, None);
    let scale = size != upright || picture.pixel_aspect.0 != picture.pixel_aspect.1 || picture.width % 2 + picture.height % 2 > 0;
    let shift = held_back(&frames, encoder.reorder(), frame);
    let apart_us = thinned.map(|thinned| thinned.apart_us);
    let (interlaced, hdr) = (picture.interlaced, ffmpeg::hdr(track));
    let coding = Coding::Pictures { size, scale, interlaced, hdr, apart_us, burn, encoder, shift, threads: 0 };
    let target = Target { stream: track.stream, language: track.language.clone(), grid: grid(&cuts, frame), coding };
    let worker = EncodeWorker::new(film, target, marked(track), identity, workshop);
    // The last one may be of any length, and a peak counts over half a target duration at least (RFC 8216, 4.1).
    let shortest = (0..cuts.count().saturating_sub(1)).map(|n| cuts.seconds(n)).fold(2.0, f64::min);
    Rendition {
        identity: identity.to_owned(),
        cuts,
        codecs: codec::h264::codecs_high(level),
        resolution: Some(size),
        frame_rate: rate,
        channels: 0,
        peak: bits.peak_of_segments(shortest),
        average: bits.average,
        copy: None,
        make: Make::Encode(worker),
    }
}

/// What the film's pictures are marked with, where their parameter sets tell.
fn marked(track: &Track) -> Option<Colour> {
    match track.codec {
        Codec::H264 => codec::h264::describe(&track.config)?.colour,
        Codec::Hevc => codec::hevc::describe(&track.config)?.colour,
        _ => None,
    }
}

/// How long `reorder` pictures in a row last at most, in ticks. `frames` are the times of all pictures in order, if they are known; else
/// they stand `frame` apart, as far as times in milliseconds can tell.
fn held_back(frames: &[i64], reorder: u32, frame: u32) -> u64 {
    let stretches = frames.iter().zip(frames.iter().skip(reorder as usize));
    let longest = stretches.map(|(first, last)| first.abs_diff(*last)).max();
    longest.unwrap_or(u64::from(reorder) * u64::from(frame) + ROUNDING)
}

pub(super) fn audio(film: &Film, track: &Track, identity: &str, workshop: &Arc<Workshop>) -> Rendition {
    let video = film.index.video().map(|video| {
        let timescale = if film.has_tables() { video.timescale } else { 90_000 };
        cut::encoded_video_cuts(film.copy.as_ref().ok().map(|copy| &copy.cuts), timescale, film.duration, &[])
    });
    let video = video.unwrap_or_else(|| Cuts::grid(cut::AAC_RATE, 2.0, film.duration));
    // A film's length is that of its picture; its sound may go on.
    let sound_end = table(&film.index, track.stream).last().map(|sample| sample.pts.saturating_add(i64::from(sample.duration)));
    let sound_end = sound_end.map_or(0, |end| cut::rescale(end, track.timescale, video.timescale));
    let cuts = cut::encoded_audio_cuts(&video.lengthened(sound_end));
    let coding = Coding::Sound { channels: AAC_CHANNELS, bitrate: AAC_BITRATE };
    let target = Target { stream: track.stream, language: track.language.clone(), grid: grid(&cuts, AAC_FRAME), coding };
    let worker = EncodeWorker::new(film, target, None, identity, workshop);
    Rendition {
        identity: identity.to_owned(),
        cuts,
        codecs: "mp4a.40.2".to_owned(),
        resolution: None,
        frame_rate: None,
        channels: u16::from(AAC_CHANNELS),
        peak: u64::from(AAC_BITRATE) * 5 / 4,
        average: u64::from(AAC_BITRATE),
        copy: None,
        make: Make::Encode(worker),
    }
}
