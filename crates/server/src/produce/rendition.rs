//! A rendition: one track of a film in one form, as a row of segments that can be asked for in any order.

use std::sync::Arc;
use std::time::Instant;

use balcony_media::codec::{self, DescribedPicture};
use balcony_media::container::{Codec, Index, Picture, Sample, Samples, Track};
use balcony_media::cut::{self, CopyCuts, Cuts};
use balcony_media::ffmpeg::Encoder;
use balcony_media::fmp4::write::{self, Entry, InitTrack, Raster};
use balcony_media::ladder::{self, Size};
use balcony_media::plan::{AudioPlan, VideoPlan};
use balcony_media::segment::{self, Timing};
use bytes::Bytes;

use super::Workshop;
use super::copy::{Inline, priming};
use super::encode::{Coding, Target};
use super::encoders::Lease;
use super::worker::{EncodeWorker, grid};
use crate::film::Film;
use crate::segments::{Part, Segment, SegmentError};

/// Bits per second of encoded sound.
pub const AAC_BITRATE: u32 = 160_000;
/// Channels of encoded sound.
pub const AAC_CHANNELS: u8 = 2;
/// Samples of a frame of encoded sound.
const AAC_FRAME: u32 = 1024;
/// Pictures per second where a film does not tell.
const USUAL_RATE: f64 = 25.0;
/// Pictures that may be decoded ahead where the parameter sets do not tell: the most that common encoders use.
const USUAL_REORDER: u8 = 4;
/// Matroska's times are whole milliseconds: two neighbours may be off by one each. In ticks of 1/90000 s.
const ROUNDING: u64 = 180;

/// One track of a film in one form.
pub struct Rendition {
    /// Its identity within the film.
    pub identity: String,
    /// Its segments' boundaries.
    pub cuts: Cuts,
    /// RFC 6381.
    pub codecs: String,
    /// Pixels as shown, of a picture.
    pub resolution: Option<Size>,
    /// Pictures per second.
    pub frame_rate: Option<f64>,
    /// Channels, of sound.
    pub channels: u16,
    /// Bits per second that no segment exceeds.
    pub peak: u64,
    /// Bits per second over the whole film.
    pub average: u64,
    /// For which file offset of the film a segment of a copy begins; `None` for conversions.
    copy: Option<CopyCuts>,
    make: Make,
}

enum Make {
    /// Every sample is known: a segment is described when it is asked for.
    Table { init: Bytes, index: Arc<Index>, stream: usize, first: Vec<usize>, timing: Timing, depth: u8 },
    /// Samples are found while reading.
    Inline { init: Bytes, inline: Arc<Inline> },
    /// ffmpeg makes it.
    Encode(Arc<EncodeWorker>),
}

impl Rendition {
    /// The film's picture.
    pub fn video(film: &Film, track: &Track, plan: &VideoPlan, identity: &str, workshop: &Arc<Workshop>) -> Self {
        match (plan, &film.copy) {
            (VideoPlan::Copy, Ok(copy)) => copied_video(film, track, copy, identity, workshop),
            (VideoPlan::Copy, Err(_)) => {
                let size = ladder::fit(&track.video.clone().unwrap_or_default(), ladder::Quality::Auto, None);
                encoded_video(film, track, size, identity, workshop)
            }
            (VideoPlan::Encode(size), _) => encoded_video(film, track, *size, identity, workshop),
        }
    }

    /// One of the film's sound tracks.
    pub fn audio(film: &Film, track: &Track, plan: &AudioPlan, identity: &str, workshop: &Arc<Workshop>) -> Self {
        match (plan.copy, &film.copy) {
            (true, Ok(copy)) => copied_audio(film, track, copy, identity, workshop),
            _ => encoded_audio(film, track, identity, workshop),
        }
    }

    /// Whether ffmpeg makes it.
    pub fn is_encoded(&self) -> bool {
        matches!(self.make, Make::Encode(_))
    }

    /// The init segment. A conversion has it as soon as its encoder has begun, which is done if nobody did before.
    pub async fn init(&self) -> Result<Bytes, SegmentError> {
        match &self.make {
            Make::Table { init, .. } | Make::Inline { init, .. } => Ok(init.clone()),
            Make::Encode(worker) => worker.init().await,
        }
    }

    /// Segment `n`, whole or growing; `None` past the last one.
    pub async fn segment(&self, n: u32) -> Result<Option<Segment>, SegmentError> {
        if n >= self.cuts.count() {
            return Ok(None);
        }
        match &self.make {
            Make::Table { index, stream, first, timing, depth, .. } => {
                let samples = table(index, *stream);
                let bounds = first.get(n as usize).zip(first.get(n as usize + 1));
                let samples = bounds.and_then(|(from, to)| samples.get(*from..*to)).unwrap_or_default();
                let parts = segment::of_table(samples, *timing, n, *depth, self.cuts.end(n));
                Ok(Some(Segment::whole(parts.into_iter().map(Part::from).collect())))
            }
            Make::Inline { inline, .. } => Ok(Some(inline.segment(n))),
            Make::Encode(worker) => worker.segment(n).await.map(Some),
        }
    }

    /// Whether an encoder is needed for the first segment: none makes it, and none has made it.
    pub fn needs_encoder(&self) -> bool {
        if let Make::Encode(worker) = &self.make { worker.needs_encoder() } else { false }
    }

    /// Waits until no encoder is needed for the first segment any more.
    pub async fn first_comes(&self) {
        if let Make::Encode(worker) = &self.make {
            worker.first_comes().await;
        }
    }

    /// The first segment, for the start of a stream that has got `encoder` for it.
    pub async fn first_segment(&self, encoder: Option<Lease>) -> Result<Option<Segment>, SegmentError> {
        match &self.make {
            Make::Encode(worker) => worker.first_segment(encoder).await.map(Some),
            _ => self.segment(0).await,
        }
    }

    /// Waits until the first segment, which has begun as `segment`, is whole.
    pub async fn whole_first(&self, segment: Segment) -> Result<(), SegmentError> {
        match &self.make {
            Make::Encode(worker) => worker.whole_first(segment).await,
            _ => segment.done().await,
        }
    }

    /// Since when somebody waits for an encoder for it.
    pub fn waits_for_encoder(&self) -> Option<Instant> {
        if let Make::Encode(worker) = &self.make { worker.waits_for_encoder() } else { None }
    }

    /// File offset of the film at which segment `n` of a copy begins.
    pub fn byte(&self, n: u32) -> Option<u64> {
        self.copy.as_ref().map(|copy| copy.read_from(n))
    }

    /// Ends everything that runs for it.
    pub fn stop(&self) {
        if let Make::Encode(worker) = &self.make {
            worker.stop();
        }
    }
}

fn table(index: &Index, stream: usize) -> &[Sample] {
    match index.tracks.iter().find(|track| track.stream == stream).map(|track| &track.samples) {
        Some(Samples::Table(samples)) => samples,
        _ => &[],
    }
}

fn copied_video(film: &Film, track: &Track, copy: &CopyCuts, identity: &str, workshop: &Arc<Workshop>) -> Rendition {
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

fn copied_audio(film: &Film, track: &Track, copy: &CopyCuts, identity: &str, workshop: &Arc<Workshop>) -> Rendition {
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

fn encoded_video(film: &Film, track: &Track, size: Size, identity: &str, workshop: &Arc<Workshop>) -> Rendition {
    let picture = track.video.clone().unwrap_or_default();
    let rate = picture.frame_rate.filter(|rate| *rate > 0.0 && *rate <= 240.0);
    let mut frames: Vec<i64> = table(&film.index, track.stream).iter().map(|sample| sample.pts).collect();
    frames.sort_unstable();
    let timescale = if film.has_tables() { track.timescale } else { 90_000 };
    let cuts = cut::encoded_video_cuts(film.copy.as_ref().ok().map(|copy| &copy.cuts), timescale, film.duration, &frames);
    let bits = ladder::rung_bitrate(size, rate.unwrap_or(USUAL_RATE));
    let level = codec::h264::level_for(size.width, size.height, rate.unwrap_or(USUAL_RATE));
    let frame = (f64::from(cuts.timescale) / rate.unwrap_or(USUAL_RATE)).round().max(1.0) as u32;
    let encoder = Encoder::X264 { preset: "superfast", crf: 23, maxrate: bits.maxrate, bufsize: bits.bufsize, level };
    let upright = ladder::fit(&picture, ladder::Quality::Source, None);
    let scale = size != upright || picture.pixel_aspect.0 != picture.pixel_aspect.1 || picture.width % 2 + picture.height % 2 > 0;
    let shift = held_back(&frames, encoder.reorder(), frame);
    let coding = Coding::Pictures { size, scale, interlaced: picture.interlaced, hdr: picture.hdr, encoder, shift, threads: 0 };
    let target = Target { stream: track.stream, language: track.language.clone(), grid: grid(&cuts, frame), coding };
    let worker = EncodeWorker::new(film, target, identity, workshop);
    Rendition {
        identity: identity.to_owned(),
        cuts,
        codecs: codec::h264::codecs_high(level),
        resolution: Some(size),
        frame_rate: rate,
        channels: 0,
        peak: bits.peak,
        average: bits.average,
        copy: None,
        make: Make::Encode(worker),
    }
}

/// How long `reorder` pictures in a row last at most, in ticks. `frames` are the times of all pictures in order, if they are known; else
/// they stand `frame` apart, as far as times in milliseconds can tell.
fn held_back(frames: &[i64], reorder: u32, frame: u32) -> u64 {
    let stretches = frames.iter().zip(frames.iter().skip(reorder as usize));
    let longest = stretches.map(|(first, last)| first.abs_diff(*last)).max();
    longest.unwrap_or(u64::from(reorder) * u64::from(frame) + ROUNDING)
}

fn encoded_audio(film: &Film, track: &Track, identity: &str, workshop: &Arc<Workshop>) -> Rendition {
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
    let worker = EncodeWorker::new(film, target, identity, workshop);
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
