//! A rendition: one track of a film in one form, as a row of segments that can be asked for in any order.

mod copied;
mod encoded;

use std::sync::Arc;
use std::time::Instant;

use balcony_media::container::{Index, Sample, Samples, Track};
use balcony_media::cut::{CopyCuts, Cuts};
use balcony_media::ladder::Size;
use balcony_media::plan::AudioPlan;
use balcony_media::segment::{self, Timing};
use bytes::Bytes;

use super::Workshop;
use super::copy::Inline;
use super::encoders::Lease;
use super::worker::{EncodeWorker, Reader};
use crate::film::Film;
use crate::segments::{Part, Segment, SegmentError};
use crate::subtitles::Drawing;

/// Pictures per second where a film does not tell.
const USUAL_RATE: f64 = 25.0;
/// Matroska's times are whole milliseconds: two neighbours may be off by one each. In ticks of 1/90000 s.
const ROUNDING: u64 = 180;

/// The [`Rendition::group`] of AAC in all its kinds.
pub const AAC: &str = "aac";

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
    /// The film's picture as it is, where it can be passed on.
    pub fn copied_video(film: &Film, track: &Track, copy: &CopyCuts, identity: &str, workshop: &Arc<Workshop>) -> Option<Self> {
        copied::video(film, track, copy, identity, workshop)
    }

    /// The film's picture in another size, or with something drawn into it.
    pub fn encoded_video(film: &Film, track: &Track, size: Size, burn: Option<Drawing>, identity: &str, workshop: &Arc<Workshop>) -> Self {
        encoded::video(film, track, size, burn, identity, workshop)
    }

    /// One of the film's sound tracks.
    pub fn audio(film: &Film, track: &Track, plan: &AudioPlan, identity: &str, workshop: &Arc<Workshop>) -> Self {
        let copy = film.copy.as_ref().ok().filter(|_| plan.copy);
        let copied = copy.and_then(|copy| copied::audio(film, track, copy, identity, workshop));
        copied.unwrap_or_else(|| encoded::audio(film, track, identity, workshop))
    }

    /// The name of its codec, by which sounds that can stand for one another are grouped.
    pub fn group(&self) -> &'static str {
        let codec = self.codecs.to_ascii_lowercase();
        match codec.as_str() {
            "mp4a.40.34" | "mp4a.6b" | "mp4a.69" | "mp3" => "mp3",
            "ac-3" => "ac3",
            "ec-3" => "eac3",
            "opus" => "opus",
            "flac" => "flac",
            "alac" => "alac",
            _ => AAC,
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

    /// Segment `n` for this reader, whole or growing; `None` past the last one.
    pub async fn segment(&self, n: u32, reader: &Reader) -> Result<Option<Segment>, SegmentError> {
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
            Make::Encode(worker) => worker.segment(n, reader).await.map(Some),
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
    pub async fn first_segment(&self, reader: &Reader, encoder: Option<Lease>) -> Result<Option<Segment>, SegmentError> {
        match &self.make {
            Make::Encode(worker) => worker.first_segment(reader, encoder).await.map(Some),
            _ => self.segment(0, reader).await,
        }
    }

    /// Waits until the first segment, which has begun as `segment`, is whole.
    pub async fn whole_first(&self, reader: &Reader, segment: Segment) -> Result<(), SegmentError> {
        match &self.make {
            Make::Encode(worker) => worker.whole_first(reader, segment).await,
            _ => segment.done().await,
        }
    }

    /// Seconds of film that are converted within a second, while that is less than is watched.
    pub fn too_slow(&self) -> Option<f64> {
        if let Make::Encode(worker) = &self.make { worker.too_slow() } else { None }
    }

    /// This reader has turned to another rendition of the film: what is made for nobody else ends.
    pub fn leave(&self, reader: &Reader) {
        if let Make::Encode(worker) = &self.make {
            worker.leave(reader);
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
