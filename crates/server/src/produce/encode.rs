//! Encoded segments: one run per rendition and cursor, from a segment on.
//!
//! A run starts ffmpeg in the cage on a lease of the film, reads its pipe no faster than the segments are taken, and hands on chunks as
//! they are ready. It watches for a child that hangs, dies or talks rubbish, and starts it again from the segment where that happened;
//! where an encoder in silicon did, x264 takes over there, at the same bounds and times, and with parameter sets in front of each key
//! frame: whichever init segment a player has, it decodes on.
//! Long films are made in several goes, because the list of key frame times is bounded; a go that landed behind its first cut (formats
//! without an index) is repeated from further ahead. What the packets become is decided in [`super::assemble`].

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use balcony_media::codec::{Colour, h264};
use balcony_media::container::Codec;
use balcony_media::container::marks::{Marks, Search};
use balcony_media::cut::rescale;
use balcony_media::encoder::{Encoder, Silicon, suits};
use balcony_media::ffmpeg::{self, AudioJob, Hdr, Input, ToneMap, VideoJob};
use balcony_media::fmp4::Packet;
use balcony_media::fmp4::read::{Event, PipeTrack, Reader};
use balcony_media::fmp4::write::{Entry, InitTrack, Raster, init};
use balcony_media::ladder::Size;
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::assemble::{Assembler, Grid, Made, Misplaced, Sample};
use super::filters::Filters;
use super::trial::Choice;
use crate::cage::{Limits, Reach};
use crate::loopback::{Lease, Loopback, Splice};
use crate::metrics::{METRICS, Making, Production};
use crate::source::{Source, SourceError};
use crate::spawner::{Child, Spawner};
use crate::subtitles::{DrawError, Drawing, Drawn, Stretch};
use crate::tasks::{End, Tasks};

/// Chunks that may wait to be taken: about four seconds of film.
const READ_AHEAD: usize = 8;

/// Bytes of one read of the pipe.
const READ: usize = 64 * 1024;

/// Bytes of a film's beginning that tell how places in it are found.
const HEAD: u64 = 64 * 1024;

/// How often a child that failed is started again before the run gives up; counted anew when a segment was finished.
const RESTARTS: u32 = 2;
/// A film that ends by so many segments earlier than was told ends in time.
const EARLY: u32 = 2;

/// How far ahead of its first cut a go starts to decode, one after the other when it lands too late, in microseconds. Formats with an
/// index land where they are told.
const LEADS: [i64; 4] = [0, 3_000_000, 15_000_000, 60_000_000];

/// How long the making of a header may take.
const HEADER_WAIT: Duration = Duration::from_secs(10);

/// More bytes than a header and one picture take.
const HEADER_MOST: u64 = 16 << 20;

/// How long a child that closed its pipe may take to end.
const END_WAIT: Duration = Duration::from_secs(5);

/// Everything that a run needs from the house. Cheap to clone.
#[derive(Clone)]
pub struct Tools {
    /// Starts children.
    pub spawner: Spawner,
    /// Gives them the film.
    pub loopback: Loopback,
    /// The ffmpeg program.
    pub ffmpeg: PathBuf,
    /// The ffprobe program.
    pub ffprobe: PathBuf,
    /// What that ffmpeg can do.
    pub filters: Filters,
    /// Owns the tasks of all runs.
    pub tasks: Tasks,
    /// When a child counts as hung.
    pub patience: Patience,
    /// Which encoder makes pictures.
    pub choice: Arc<Choice>,
}

/// When a child counts as hung. Time that it spends waiting for bytes of the film never counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Neither a byte read nor a byte written.
    pub still: Duration,
    /// Bytes read, but none written.
    pub fruitless: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { still: Duration::from_secs(12), fruitless: Duration::from_secs(60) }
    }
}

/// The film, as ffmpeg has to be told of it.
#[derive(Debug, Clone)]
pub struct FilmInput {
    /// Its bytes.
    pub source: Source,
    /// File time of film time zero, in microseconds: 0 for MP4 and Matroska, the container's start time for others.
    pub zero_us: i64,
    /// The start time that libavformat finds, in microseconds: the least of all tracks' first times.
    pub origin_us: i64,
    /// The container has tables that lead to any key frame.
    pub indexed: bool,
    /// How places are found where there are no tables, as far as that is known. Of other films their first bytes tell.
    pub marks: Option<Marks>,
}

/// A rendition that ffmpeg encodes.
#[derive(Debug, Clone)]
pub struct Target {
    /// Position among all streams of the file.
    pub stream: usize,
    /// BCP 47 or ISO 639-2, for the init segment.
    pub language: String,
    /// Where segments begin. Pictures: ticks of the source's timescale (MP4) or 90000. Sound: 48 kHz, all cuts multiples of 1024.
    pub grid: Grid,
    /// How it is coded.
    pub coding: Coding,
}

impl Target {
    /// The encoder in silicon that makes it, if one does.
    pub fn silicon(&self) -> Option<&Silicon> {
        match &self.coding {
            Coding::Pictures { encoder, .. } => encoder.silicon(),
            Coding::Sound { .. } => None,
        }
    }

    /// The same by the x264 that stands in; `None` where x264 makes it already.
    fn stood_in(&self) -> Option<Self> {
        let mut target = self.clone();
        let Coding::Pictures { encoder, .. } = &mut target.coding else { return None };
        *encoder = encoder.stand_in()?;
        Some(target)
    }

    /// What the child may use and reach.
    fn cage(&self, reach: Reach) -> (Limits, Reach) {
        if self.silicon().is_some() { (Limits::GRAPHICS, reach.with_graphics()) } else { (Limits::ENCODE, reach) }
    }

    /// Whether a header on the pipe is what was asked for: of pictures that more than one encoder makes, and answers what a sample's NAL
    /// units and its parameter sets look like.
    fn sets(&self, track: &PipeTrack) -> Result<(u8, Bytes), RunError> {
        let Coding::Pictures { encoder, size, .. } = &self.coding else { return Ok((4, Bytes::new())) };
        let nal_length = suits(encoder, *size, &track.config).map_err(|flaw| RunError::Rubbish(flaw.to_string()))?;
        let sets = h264::in_band(&track.config).ok_or_else(|| RunError::Rubbish("no parameter sets".into()))?;
        Ok((nal_length, sets))
    }

    fn init(&self, track: &PipeTrack) -> Result<Bytes, RunError> {
        let Self { grid, language, .. } = self;
        let config = track.config.clone();
        let entry = match (&self.coding, &track.codec) {
            (Coding::Pictures { .. }, Codec::H264) => {
                let told = h264::describe(&config).ok_or_else(|| RunError::Rubbish("no parameter sets".into()))?;
                Entry::Avc { config, raster: Raster::from(&told) }
            }
            (Coding::Sound { .. }, Codec::Aac) => Entry::Aac { config, channels: track.channels, sample_rate: track.sample_rate },
            _ => return Err(RunError::Rubbish("another codec than was asked for".into())),
        };
        let duration = u64::try_from(grid.cut(grid.segments())).ok().filter(|ticks| *ticks > 0);
        Ok(init(&InitTrack { entry, timescale: grid.timescale, language: language.clone(), duration, media_time: self.shift() }))
    }

    /// How far ahead of its first segment a run usually begins to read, in microseconds.
    pub fn lead_us(&self) -> i64 {
        self.drawing().map_or(0, Drawing::lead_us)
    }

    /// What is drawn into its pictures.
    fn drawing(&self) -> Option<&Drawing> {
        if let Coding::Pictures { burn, .. } = &self.coding { burn.as_ref() } else { None }
    }

    /// Ticks by which composition offsets are shifted: the same for all runs of the rendition.
    fn shift(&self) -> u64 {
        match &self.coding {
            Coding::Pictures { shift, .. } => *shift,
            Coding::Sound { .. } => 0,
        }
    }

    fn header_args(&self, colour: Option<Colour>) -> Vec<String> {
        let input = Input { url: String::new(), stream: 0, zero_us: 0, origin_us: 0, lead_us: 0, indexed: true, spliced: false };
        let Grid { timescale, frame, .. } = self.grid;
        match &self.coding {
            Coding::Pictures { size, scale, interlaced, hdr, apart_us, burn: _, encoder, threads, shift: _ } => VideoJob {
                input,
                boundaries_us: Vec::new(),
                end_us: None,
                frame_us: micros(i64::from(frame), timescale),
                size: *size,
                scale: *scale,
                interlaced: *interlaced,
                hdr: hdr.map(|from| ToneMap { from, zscale: true }),
                apart_us: *apart_us,
                // It changes nothing of what the init segment tells.
                burn: None,
                timescale,
                encoder: encoder.clone(),
                threads: *threads,
            }
            .header_args(colour),
            Coding::Sound { channels, bitrate } => {
                AudioJob { input, first_frame: 0, end_frame: None, channels: *channels, bitrate: *bitrate }.header_args()
            }
        }
    }
}

/// The init segment of all runs of a target, from one black picture or a moment of silence by the very same encoder: it takes no byte of
/// the film and no run of its own. `colour` is what the film's pictures are marked with, as far as that is known. Where another encoder
/// may have to stand in, the parameter sets of both are in it.
///
/// # Errors
/// When ffmpeg does not make it in time.
pub async fn header(tools: &Tools, target: &Target, colour: Option<Colour>) -> Result<Bytes, RunError> {
    let one = async |target: &Target, wait: Duration| {
        tokio::time::timeout(wait, header_alone(tools, target, colour)).await.unwrap_or(Err(RunError::Hung))
    };
    let Some(stood_in) = target.stood_in() else { return target.init(&one(target, HEADER_WAIT).await?) };
    let own = async {
        if target.silicon().is_some_and(|silicon| tools.choice.is_distrusted(silicon)) {
            return Err(RunError::Hung);
        }
        let track = one(target, HEADER_WAIT / 2).await?;
        target.sets(&track).map(|_| track)
    };
    let track = match tokio::join!(own, one(&stood_in, HEADER_WAIT)) {
        (Ok(own), Ok(other)) => {
            let config = h264::together(&own.config, &other.config);
            PipeTrack { config: config.unwrap_or_else(|| own.config.clone()), ..own }
        }
        // Whichever makes the film has its sets in the samples too.
        (Ok(track), Err(_)) | (Err(_), Ok(track)) => track,
        (Err(error), Err(_)) => return Err(error),
    };
    target.init(&track)
}

async fn header_alone(tools: &Tools, target: &Target, colour: Option<Colour>) -> Result<PipeTrack, RunError> {
    let args = target.header_args(colour);
    let (limits, reach) = target.cage(Reach::nothing());
    let mut child = tools.spawner.spawn(limits, &reach, &tools.ffmpeg, &args).await?;
    let mut pipe = child.take_stdout().ok_or_else(|| io::Error::other("no pipe"))?.take(HEADER_MOST);
    let mut reader = Reader::new();
    let mut buffer = BytesMut::with_capacity(READ);
    loop {
        buffer.reserve(READ);
        if pipe.read_buf(&mut buffer).await? == 0 {
            return Err(RunError::Rubbish("no header".into()));
        }
        reader.push(buffer.split().freeze());
        while let Some(event) = reader.next().map_err(|error| RunError::Rubbish(error.to_string()))? {
            if let Event::Header(tracks) = event {
                return tracks.into_iter().next().ok_or_else(|| RunError::Rubbish("no track".into()));
            }
        }
    }
}

/// How a rendition is coded.
#[derive(Debug, Clone)]
pub enum Coding {
    /// H.264.
    Pictures {
        /// Size in square pixels, upright.
        size: Size,
        /// Whether the decoded picture differs from that.
        scale: bool,
        /// De-interlace.
        interlaced: bool,
        /// Map HDR to SDR.
        hdr: Option<Hdr>,
        /// Of a film with many pictures per second, how far apart those stand that are kept, in microseconds.
        apart_us: Option<i64>,
        /// Subtitles that are drawn into it.
        burn: Option<Drawing>,
        /// The encoder.
        encoder: Encoder,
        /// Ticks that no picture is decoded later than it is shown: as long as the pictures last that the encoder may hold back.
        shift: u64,
        /// Threads of decoder and encoder each; 0 lets ffmpeg choose.
        threads: u16,
    },
    /// AAC-LC at 48 kHz.
    Sound {
        /// 1 or 2.
        channels: u8,
        /// Bits per second.
        bitrate: u32,
    },
}

/// Why a run ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The child neither read nor wrote for too long, again and again.
    #[error("ffmpeg hangs")]
    Hung,
    /// The child ended with an error, again and again.
    #[error("ffmpeg ended with {status}: {stderr}")]
    Died {
        /// Exit code or signal.
        status: String,
        /// The last that it said, at most 4 KB.
        stderr: String,
    },
    /// The child said that the film is over, long before it should be.
    #[error("ffmpeg ended before the film does")]
    Early,
    /// What the child wrote cannot be used, again and again.
    #[error("ffmpeg wrote rubbish: {0}")]
    Rubbish(String),
    /// The film cannot be read. Not ffmpeg's fault, and not tried again here.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// No child could be started.
    #[error("ffmpeg could not be started: {0}")]
    Start(#[from] io::Error),
}

impl RunError {
    /// Whether another child may do better.
    const fn is_the_childs(&self) -> bool {
        matches!(self, Self::Hung | Self::Died { .. } | Self::Early | Self::Rubbish(_))
    }

    /// The same without what only the log should hold: what ffmpeg said, and where it lies.
    pub fn in_short(&self) -> String {
        match self {
            Self::Died { status, .. } => format!("ffmpeg ended with {status}"),
            Self::Start(error) => format!("ffmpeg could not be started: {}", error.kind()),
            other => other.to_string(),
        }
    }
}

impl From<DrawError> for RunError {
    fn from(error: DrawError) -> Self {
        match error {
            DrawError::Source(error) => Self::Source(error),
            DrawError::Disk(error) => Self::Start(error),
        }
    }
}

impl From<Misplaced> for RunError {
    fn from(error: Misplaced) -> Self {
        Self::Rubbish(error.to_string())
    }
}

/// A production that is running. Dropping it kills its child at once.
pub struct EncodeRun {
    made: mpsc::Receiver<Result<Made, RunError>>,
    task: JoinHandle<End>,
}

impl EncodeRun {
    /// Starts to make the segments of `target` from number `from` on, to the end of the film.
    pub fn start(tools: &Tools, film: FilmInput, target: Target, from: u32) -> Self {
        let (sender, made) = mpsc::channel(READ_AHEAD);
        let counted =
            METRICS.production(if matches!(target.coding, Coding::Sound { .. }) { Making::ConvertAudio } else { Making::Convert });
        let mixed = target.silicon().is_some();
        let (tools_of_run, next) = (tools.clone(), from);
        let mut run = Run {
            tools: tools_of_run,
            film,
            target,
            mixed,
            suspect: None,
            came: false,
            next,
            turn: 0,
            init: None,
            zscale: true,
            lead: 0,
            ended: None,
            sender,
            counted,
        };
        let task = tools.tasks.spawn("encode", async move {
            let end = run.all().await.map(|()| Made::End);
            // Nobody may be listening any more.
            let _ = run.sender.send(end).await;
        });
        Self { made, task }
    }

    /// What is ready next, waiting for it; `None` behind [`Made::End`] or an error. Not asking is what slows the run down: it stands
    /// still once a few seconds are ready. Cancelling loses nothing.
    pub async fn next(&mut self) -> Option<Result<Made, RunError>> {
        self.made.recv().await
    }
}

impl Drop for EncodeRun {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Nobody wants what is made.
struct Unwanted;

/// How one go ended well.
enum Went {
    /// All its segments are made.
    Through,
    /// The film ended within it.
    FilmOver,
    /// It landed behind its first cut.
    Late,
    /// Nobody wants what is made.
    Unwanted,
}

impl From<Unwanted> for Went {
    fn from(_: Unwanted) -> Self {
        Self::Unwanted
    }
}

struct Run {
    tools: Tools,
    film: FilmInput,
    /// What is made now, by the encoder that makes it now.
    target: Target,
    /// More than one encoder may make the rendition.
    mixed: bool,
    /// The encoder that failed where x264 has yet to show that it does not, and how.
    suspect: Option<(Silicon, String)>,
    /// Pictures have come from the child.
    came: bool,
    /// The next segment to be made.
    next: u32,
    /// How many goes ended well before this one.
    turn: u32,
    init: Option<Bytes>,
    /// The child has the filter `zscale`.
    zscale: bool,
    /// Which of [`LEADS`].
    lead: usize,
    /// The segment in which a child said that the film is over, when that was not believed.
    ended: Option<u32>,
    sender: mpsc::Sender<Result<Made, RunError>>,
    counted: Production<'static>,
}

impl Run {
    async fn all(&mut self) -> Result<(), RunError> {
        let segments = self.target.grid.segments();
        let mut failures = 0;
        if !self.film.indexed {
            self.film.marks = marks_of(&self.film.source).await?;
        }
        if matches!(self.target.coding, Coding::Pictures { hdr: Some(_), .. }) {
            self.zscale = self.tools.filters.has_zscale(&self.tools.spawner, &self.tools.ffmpeg).await;
        }
        self.lead = usize::from(!self.is_led());
        if self.target.silicon().is_some_and(|silicon| self.tools.choice.is_distrusted(silicon)) {
            self.stand_in();
        }
        while self.next < segments {
            let from = self.next;
            let mut drawn = self.drawn(from).await?;
            if failures >= RESTARTS && drawn.is_text() {
                tracing::warn!(segment = from, "the text for this stretch of the picture is left out: ffmpeg fails with it");
                drawn = drawn.without_text();
            }
            let mut go = self.assembler(from, drawn.until);
            match self.go(&mut go, from, &drawn).await {
                Ok(Went::Unwanted) => return Ok(()),
                Ok(Went::Late) => self.lead += 1,
                Ok(Went::Through) => {
                    (self.next, failures) = (go.segment(), 0);
                    self.turn = self.turn.saturating_add(1);
                }
                Ok(Went::FilmOver) => return self.rest_is_empty(go.segment(), segments).await,
                Err(error) => {
                    if self.hand_on_all(&mut go).await.is_err() {
                        return Ok(());
                    }
                    self.next = go.segment();
                    failures = if self.next > from { 1 } else { failures + 1 };
                    if !error.is_the_childs() || failures > RESTARTS {
                        return Err(error);
                    }
                    tracing::warn!(%error, segment = self.next, failures, "ffmpeg is started again");
                    if self.target.silicon().is_some() {
                        self.stand_in();
                        failures = 0;
                    }
                    if go.within_segment() && self.hand_on(Made::Again { segment: self.next }).await.is_err() {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    /// From now on x264 makes it.
    fn stand_in(&mut self) {
        if let Some(target) = self.target.stood_in() {
            self.target = target;
        }
    }

    /// What a go from segment `from` on has to draw, and how far it goes.
    async fn drawn(&self, from: u32) -> Result<Drawn, RunError> {
        let grid = &self.target.grid;
        let goal = goal(from, grid.segments());
        let Some(drawing) = self.target.drawing() else { return Ok(Drawn::nothing(goal)) };
        let stretch = Stretch { cuts: &grid.cuts, timescale: grid.timescale, from, goal, turn: self.turn, zero_us: self.film.zero_us };
        Ok(drawing.of_run(stretch).await?)
    }

    fn assembler(&self, from: u32, until: u32) -> Assembler {
        let goal = goal(from, until);
        let grid = self.target.grid.clone();
        match &self.target.coding {
            Coding::Pictures { encoder, .. } => {
                let slack = ticks(ffmpeg::slack_us(self.frame_us()), grid.timescale);
                let assembler = Assembler::pictures(grid, from, goal, slack, encoder.reorder(), self.target.shift());
                if encoder.silicon().is_some() { assembler.wary() } else { assembler }
            }
            Coding::Sound { .. } => Assembler::sound(grid, from, goal),
        }
    }

    /// One child, from segment `from` as far as `go` wants.
    async fn go(&mut self, go: &mut Assembler, from: u32, drawn: &Drawn) -> Result<Went, RunError> {
        let Some(running) = self.target.silicon().map(|silicon| self.tools.choice.begun(silicon)) else {
            return self.go_alone(go, from, drawn).await;
        };
        self.came = false;
        let went = self.go_alone(go, from, drawn).await;
        // Some take only so many films at once: the one too many goes to the processor, and nothing is wrong with them.
        let crowded = running.is_shared() && !self.came;
        if let (Err(error), false, Some(silicon)) = (&went, crowded, self.target.silicon()) {
            self.suspect = Some((silicon.clone(), error.in_short()));
        }
        went
    }

    async fn go_alone(&mut self, go: &mut Assembler, from: u32, drawn: &Drawn) -> Result<Went, RunError> {
        let splice = self.splice(from, drawn).await?;
        let lease = self.tools.loopback.lease_spliced(self.film.source.clone(), splice)?;
        let args = self.args(&lease, from, splice.is_some(), drawn);
        let (limits, reach) = self.target.cage(Reach::port(lease.port()).and_reads(drawn.folder.clone()));
        let mut child = self.tools.spawner.spawn(limits, &reach, &self.tools.ffmpeg, &args).await?;
        child.id().into_iter().for_each(|pid| lease.give_to(pid));
        let mut pipe = child.take_stdout().ok_or_else(|| io::Error::other("no pipe"))?;
        let mut reader = Reader::new();
        let mut track = None;
        let mut buffer = BytesMut::with_capacity(READ);
        let patience = self.patience();
        while !go.done() {
            let asked = Instant::now();
            let bytes = watched(&mut pipe, &mut buffer, &lease, patience).await?;
            self.counted.worked(asked.elapsed());
            if bytes.is_empty() {
                return self.at_end(&mut child, &lease, go, from).await;
            }
            reader.push(bytes);
            while let Some(event) = reader.next().map_err(|error| RunError::Rubbish(error.to_string()))? {
                match event {
                    Event::Header(tracks) => {
                        let Some(told) = tracks.into_iter().next() else {
                            return Err(RunError::Rubbish("no track".into()));
                        };
                        if self.began(&told).await?.is_err() {
                            return Ok(Went::Unwanted);
                        }
                        let sets = if self.mixed { Some(self.target.sets(&told)?) } else { None };
                        track = Some((told, sets));
                    }
                    Event::Packet(packet) => {
                        let Some((track, sets)) = track.as_ref().filter(|(track, _)| track.id == packet.track) else { continue };
                        self.came = true;
                        let pts = self.film_time(track, packet.pts);
                        // What comes in the same read behind the last picture that was asked for is late for nothing.
                        if !go.begun() && !go.done() && self.is_late(pts, from) {
                            return Ok(Went::Late);
                        }
                        go.push(Sample { pts, key: packet.key, data: told_again(packet, sets.as_ref())? })?;
                    }
                }
            }
            if self.hand_on_all(go).await.is_err() {
                return Ok(Went::Unwanted);
            }
        }
        Ok(Went::Through)
    }

    /// The pipe is closed: was that the end of the film?
    async fn at_end(&mut self, child: &mut Child, lease: &Lease, go: &mut Assembler, from: u32) -> Result<Went, RunError> {
        let Ok(ended) = tokio::time::timeout(END_WAIT, child.wait()).await else {
            return Err(RunError::Hung);
        };
        let ended = ended?;
        if let Some(error) = lease.error() {
            return Err(error.into());
        }
        if !ended.status.success() {
            // The film's address is nobody's business.
            let stderr = ended.stderr.replace(&lease.url(), "the film");
            return Err(RunError::Died { status: ended.status.to_string(), stderr });
        }
        if !go.begun() && self.may_seek_earlier(from) {
            return Ok(Went::Late);
        }
        // A film may be shorter than it says, so what ends twice at the same place has ended. Once is not believed.
        let at = go.segment();
        if at.saturating_add(EARLY) < self.target.grid.segments() && self.ended != Some(at) {
            self.ended = Some(at);
            return Err(RunError::Early);
        }
        // Behind a film's end nothing is right; at its beginning it is not.
        if from == 0 && self.init.is_none() {
            return Err(RunError::Rubbish("nothing at all".into()));
        }
        if self.ended == Some(at) {
            // Whoever said so first was right.
            self.suspect = None;
        }
        go.finish();
        let handed = self.hand_on_all(go).await;
        Ok(handed.map_or_else(Went::from, |()| Went::FilmOver))
    }

    /// The container's tables lead to any place.
    fn is_led(&self) -> bool {
        self.film.indexed && self.film.marks.is_none()
    }

    /// Where to enter a film for segment `from` that has no tables but tells the time everywhere.
    async fn splice(&self, from: u32, drawn: &Drawn) -> Result<Option<Splice>, RunError> {
        let Some(marks) = &self.film.marks else { return Ok(None) };
        let grid = &self.target.grid;
        let lead = self.lead_us(drawn).saturating_add(200_000);
        let at = |ticks| micros(ticks, grid.timescale).saturating_add(self.film.zero_us);
        let target = at(grid.cut(from)).saturating_sub(lead);
        if from == 0 || target <= self.film.zero_us {
            // All of it, but read from front to back: of a film in fragments ffmpeg would look up every one before the first picture.
            return Ok(Some(Splice { head: marks.head(), from: marks.head() }));
        }
        let source = &self.film.source;
        let mut search = Search::new(marks.head()..source.len(), self.film.zero_us, at(grid.cut(grid.segments())), target);
        while let Some(window) = search.window() {
            let len = usize::try_from(window.end - window.start).unwrap_or(0);
            let bytes = source.read_at(window.start, len).await?;
            search.looked(&window, marks.first(source.len(), window.start, &bytes));
        }
        Ok(search.mark().map(|mark| Splice { head: marks.head(), from: mark.offset }))
    }

    /// How far ahead of its first cut a go begins to read.
    fn lead_us(&self, drawn: &Drawn) -> i64 {
        LEADS.get(self.lead).copied().unwrap_or(0).max(drawn.lead_us)
    }

    fn args(&self, lease: &Lease, from: u32, spliced: bool, drawn: &Drawn) -> Vec<String> {
        let grid = &self.target.grid;
        let input = Input {
            url: lease.url(),
            stream: self.target.stream,
            zero_us: self.film.zero_us,
            origin_us: self.film.origin_us,
            lead_us: self.lead_us(drawn),
            indexed: self.film.indexed,
            spliced,
        };
        let until = drawn.until;
        match &self.target.coding {
            Coding::Pictures { size, scale, interlaced, hdr, apart_us, burn: _, encoder, threads, shift: _ } => VideoJob {
                input,
                boundaries_us: (from..=until).map(|n| micros(grid.cut(n), grid.timescale)).collect(),
                // Enough to see the key frame that ends the last segment, and to show what a film is longer than was told.
                end_us: Some(micros(grid.cut(until), grid.timescale).saturating_add(1_500_000)),
                frame_us: self.frame_us(),
                size: *size,
                scale: *scale,
                interlaced: *interlaced,
                hdr: hdr.map(|from| ToneMap { from, zscale: self.zscale }),
                apart_us: *apart_us,
                burn: drawn.burn.clone(),
                timescale: grid.timescale,
                encoder: encoder.clone(),
                threads: *threads,
            }
            .args(),
            Coding::Sound { channels, bitrate } => self.sound(input, grid.cut(from), grid.cut(until), *channels, *bitrate).args(),
        }
    }

    fn sound(&self, input: Input, from: i64, until: i64, channels: u8, bitrate: u32) -> AudioJob {
        // Two frames more than are wanted: the encoder's last ones may be padded.
        let end_frame = Some(until.div_euclid(ffmpeg::AAC_FRAME).saturating_add(2));
        AudioJob { input, first_frame: from.div_euclid(ffmpeg::AAC_FRAME), end_frame, channels, bitrate }
    }

    /// A header on the pipe: the init segment follows from it, and must be the one that was handed on before.
    async fn began(&mut self, track: &PipeTrack) -> Result<Result<(), Unwanted>, RunError> {
        let init = self.target.init(track)?;
        match &self.init {
            Some(before) if *before == init || self.mixed => Ok(Ok(())),
            Some(_) => Err(RunError::Rubbish("the encoder is set up differently than before".into())),
            None => {
                self.init = Some(init.clone());
                Ok(self.hand_on(Made::Init(init)).await)
            }
        }
    }

    /// A driver that says nothing is given up sooner: there is somebody to stand in.
    fn patience(&self) -> Patience {
        let Patience { still, fruitless } = self.tools.patience;
        if self.target.silicon().is_some() { Patience { still: still / 2, fruitless: fruitless / 2 } } else { self.tools.patience }
    }

    fn frame_us(&self) -> i64 {
        micros(i64::from(self.target.grid.frame), self.target.grid.timescale)
    }

    /// A time of the pipe on the film's time line: the pipe's own edit list and the container's zero taken away.
    fn film_time(&self, track: &PipeTrack, pts: i64) -> i64 {
        let grid = &self.target.grid;
        let shown = pts.saturating_sub(track.media_time);
        let scaled = rescale(shown, track.timescale, grid.timescale);
        scaled.saturating_sub(ticks(self.film.zero_us.max(0), grid.timescale))
    }

    /// The first picture that came out lies behind the first cut, and an earlier seek could find the ones before it.
    fn is_late(&self, pts: i64, from: u32) -> bool {
        let grid = &self.target.grid;
        let late = pts > grid.cut(from).saturating_add(2 * i64::from(grid.frame));
        late && self.may_seek_earlier(from)
    }

    fn may_seek_earlier(&self, from: u32) -> bool {
        let most = if self.is_led() { 2 } else { LEADS.len() - 1 };
        let sought = micros(self.target.grid.cut(from), self.target.grid.timescale) > 0;
        sought && self.lead < most && matches!(self.target.coding, Coding::Pictures { .. })
    }

    async fn rest_is_empty(&mut self, from: u32, segments: u32) -> Result<(), RunError> {
        let mut rest = self.assembler(from, segments);
        let mut next = from;
        while next < segments {
            rest.finish();
            if self.hand_on_all(&mut rest).await.is_err() {
                return Ok(());
            }
            next = rest.segment();
            rest = self.assembler(next, segments);
        }
        Ok(())
    }

    async fn hand_on_all(&mut self, go: &mut Assembler) -> Result<(), Unwanted> {
        while let Some(made) = go.take() {
            if let Made::SegmentDone { segment } = made {
                let Grid { timescale, .. } = self.target.grid;
                let ticks = self.target.grid.cut(segment + 1) - self.target.grid.cut(segment);
                self.counted.made(ticks as f64 / f64::from(timescale));
                if let (None, Some((silicon, why))) = (self.target.silicon(), &self.suspect) {
                    // It was not the film.
                    self.tools.choice.distrust(silicon, why);
                    self.suspect = None;
                }
            }
            self.hand_on(made).await?;
        }
        Ok(())
    }

    async fn hand_on(&self, made: Made) -> Result<(), Unwanted> {
        self.sender.send(Ok(made)).await.map_err(|_| Unwanted)
    }
}

/// The bytes of a packet; of a key frame with the parameter sets, where those of the init segment may be another encoder's. One that is no
/// place to begin at is not believed.
fn told_again(packet: Packet, sets: Option<&(u8, Bytes)>) -> Result<Bytes, RunError> {
    let Some((nal_length, sets)) = sets.filter(|_| packet.key) else { return Ok(packet.data) };
    if !h264::is_idr(&packet.data, *nal_length) {
        return Err(RunError::Rubbish("a key frame at which nothing can begin".into()));
    }
    Ok(h264::with_sets(packet.data, *nal_length, sets))
}

/// Where a go from segment `from` on ends, at the latest: the list of key frame times is bounded.
fn goal(from: u32, until: u32) -> u32 {
    from.saturating_add(ffmpeg::MAX_BOUNDARIES as u32 - 1).min(until)
}

/// How a film tells the time that only its first bytes tell of.
async fn marks_of(source: &Source) -> Result<Option<Marks>, SourceError> {
    let len = usize::try_from(source.len().min(HEAD)).unwrap_or(0);
    Ok(Marks::of_head(&source.read_at(0, len).await?))
}

/// The next bytes of the pipe, none at its end. A child that is waiting for the film is given all the time it needs.
async fn watched(pipe: &mut (impl AsyncRead + Unpin), buffer: &mut BytesMut, lease: &Lease, patience: Patience) -> Result<Bytes, RunError> {
    buffer.reserve(READ);
    tokio::select! {
        biased;
        read = pipe.read_buf(buffer) => read.map(|_| buffer.split().freeze()).map_err(RunError::Start),
        () = until_hung(lease, patience) => Err(RunError::Hung),
    }
}

/// Ends when a child counts as hung that says nothing from now on.
pub(super) async fn until_hung(lease: &Lease, patience: Patience) {
    let mut waited = Instant::now();
    let mut alarm = waited + patience.still.min(patience.fruitless);
    loop {
        tokio::time::sleep_until(alarm.into()).await;
        let now = Instant::now();
        if lease.waiting_since().is_some() {
            waited = now;
        }
        let due = (waited.max(lease.flowed_at()) + patience.still).min(waited + patience.fruitless);
        if due <= now {
            return;
        }
        alarm = due;
    }
}

/// Ticks in microseconds, rounded down.
fn micros(ticks: i64, timescale: u32) -> i64 {
    let us = i128::from(ticks) * 1_000_000;
    i64::try_from(us.div_euclid(i128::from(timescale.max(1)))).unwrap_or(i64::MAX)
}

/// Microseconds in ticks, rounded to the nearest.
fn ticks(us: i64, timescale: u32) -> i64 {
    rescale(us, 1_000_000, timescale)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use tokio::io::AsyncWriteExt;

    use super::*;

    const PATIENCE: Patience = Patience { still: Duration::from_millis(100), fruitless: Duration::from_secs(1) };

    async fn lease() -> (tempfile::NamedTempFile, Tasks, Lease) {
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        file.write_all(b"film").expect("written");
        let tasks = Tasks::new();
        let loopback = Loopback::start(&tasks).await.expect("listening");
        let lease = loopback.lease(Source::local(file.path()).expect("opened")).expect("leased");
        lease.give_to(std::process::id());
        (file, tasks, lease)
    }

    #[tokio::test]
    async fn a_child_that_waits_for_the_film_does_not_hang() {
        let (_file, _tasks, lease) = lease().await;
        let (mut pipe, mut child) = tokio::io::duplex(64);
        // However slow this machine is, it is stillness that ends this child.
        let patience = Patience { fruitless: Duration::from_secs(600), ..PATIENCE };
        let (mut buffer, waiting) = (BytesMut::new(), lease.hold());
        let read = watched(&mut pipe, &mut buffer, &lease, patience);
        assert!(tokio::time::timeout(Duration::from_millis(500), read).await.is_err(), "it is still waited for");
        drop(waiting);
        let began = Instant::now();
        assert!(matches!(watched(&mut pipe, &mut buffer, &lease, patience).await, Err(RunError::Hung)));
        assert!(began.elapsed() >= patience.still);
        child.write_all(b"moof").await.expect("written");
        assert_eq!(watched(&mut pipe, &mut buffer, &lease, patience).await.expect("bytes"), "moof");
        drop(child);
        assert!(watched(&mut pipe, &mut buffer, &lease, patience).await.expect("the end").is_empty());
    }

    #[tokio::test]
    async fn a_child_that_only_reads_hangs_in_the_end() {
        let (_file, _tasks, lease) = lease().await;
        let (mut pipe, _child) = tokio::io::duplex(64);
        let reading = async {
            loop {
                reqwest::get(lease.url()).await.expect("an answer").bytes().await.expect("bytes");
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
        };
        let (began, mut buffer) = (Instant::now(), BytesMut::new());
        // However slow this machine is, it is not stillness that ends this child.
        let patience = Patience { still: Duration::from_secs(600), ..PATIENCE };
        tokio::select! {
            read = watched(&mut pipe, &mut buffer, &lease, patience) => assert!(matches!(read, Err(RunError::Hung))),
            () = reading => {}
        }
        assert!(began.elapsed() >= patience.fruitless);
    }

    #[test]
    fn times_are_scaled_both_ways() {
        for (time, timescale, us) in [(144_144, 24_000, 6_006_000), (1, 90_000, 11), (-90_000, 90_000, -1_000_000), (i64::MAX, 1, i64::MAX)]
        {
            assert_eq!(micros(time, timescale), us);
        }
        assert_eq!((ticks(1_460_200, 90_000), rescale(3, 24_000, 90_000), rescale(i64::MAX, 1, u32::MAX)), (131_418, 11, i64::MAX));
    }
}
