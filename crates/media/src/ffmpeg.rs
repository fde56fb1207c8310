//! What ffmpeg and ffprobe are asked for: values in, argument lists out.
//!
//! ffmpeg is a source of packets: it decodes, filters, encodes, and writes fragmented MP4 on a pipe that [`crate::fmp4::read`] takes
//! apart. Its time stamps are those of the file (`-copyts`), so that whoever reads them can put every packet on the film's time line;
//! where it cuts is told by an explicit list of key frame times. This file starts nothing and reads nothing.
//!
//! Three clocks meet here, all in microseconds. *Film time* is what the player sees. *File time* is film time + [`Input::zero_us`], and so
//! are the times of the pipe, unless that is negative: then they are film times.
//! `-ss` counts from the start that libavformat found, [`Input::origin_us`], in file time.

use crate::codec::Colour;
use crate::container::Track;
pub use crate::cut::AAC_FRAME;
pub use crate::encoder::{Encoder, X264_REORDER};
use crate::fmp4::entry::video_range;
use crate::ladder::Size;
use crate::playlist::hls::VideoRange;

/// Key frames that one run of ffmpeg may be told to make: keeps the argument list below 10 KB.
pub const MAX_BOUNDARIES: usize = 600;

/// Frames of AAC that are encoded ahead of the first one wanted, so that its overlap and its rate control are those of a long run.
pub const AAC_LEAD_FRAMES: i64 = 4;

/// Sampling rate of all encoded sound, in hertz.
pub const AUDIO_RATE: i64 = 48_000;

/// Demuxers that may open a film. Playlists, SDP, image sequences and everything else that names further addresses is not among them.
pub const DEMUXERS: &str = "matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,avi,mpegts,mpeg,mpegvideo,asf,flv,ogg,rm,nut,wtv,mxf,ivf,\
     mp3,flac,wav,w64,aiff,aac,ac3,eac3,dts,ape,wv,tta";

/// Most bytes that ffmpeg may take at once. A picture of 8K with 16 bits per sample takes 200 MB; a file that asks for more lies.
pub const MAX_ALLOC: &str = "536870912";

/// Where ffmpeg reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// Address of the film, `http` on loopback.
    pub url: String,
    /// Position among all streams of the file: ffmpeg's `0:N`.
    pub stream: usize,
    /// File time of film time zero, in microseconds: 0 for MP4 and Matroska, the container's start time for others.
    pub zero_us: i64,
    /// The start time that libavformat finds (the least of all streams), in microseconds of file time: `-ss` is relative to it.
    pub origin_us: i64,
    /// How far ahead of the first picture or sound wanted to seek, in microseconds; what lies between is decoded and dropped.
    pub lead_us: i64,
    /// The container's tables tell everything: look at as little of the file as possible before the seek.
    pub indexed: bool,
    /// The address gives the file's head and then what follows the place that is wanted (or all of it): read on, and seek nowhere.
    pub spliced: bool,
}

impl Input {
    /// Time of the pipe at film time zero, in microseconds. Times before zero cannot be told there, so a film that begins before zero is
    /// shifted to it.
    pub fn clock_us(&self) -> i64 {
        self.zero_us.max(0)
    }
}

/// What is drawn into the pictures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Burn {
    /// Images of the film.
    Images(Images),
    /// Text, by libass.
    Script(Script),
}

/// A subtitle track of images that is drawn into the pictures. ffmpeg takes it from the same reading of the film, so that neither waits
/// for the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Images {
    /// Position among all streams of the file.
    pub stream: usize,
    /// The plane that the images are placed in, where it is known. Without it ffmpeg takes what it finds at the film's beginning, else
    /// the size of the pictures.
    pub plane: Option<Size>,
    /// The plane has square pixels: where its shape is not that of the picture, because bars were cut off, it is fitted in above the
    /// picture's lower edge, whole and undistorted. Otherwise it covers the picture, as on a DVD.
    pub square: bool,
}

/// A SubStation script that is drawn into the pictures. libass reads it once, before the first picture, so that it has to hold all that
/// is shown while the run lasts, by file time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// Its file.
    pub file: String,
    /// A folder of fonts beside those of the system.
    pub fonts: Option<String>,
    /// The size of the pictures that it was made for, in the film's own pixels. Without it, that of what comes out.
    pub original: Option<Size>,
}

impl Script {
    /// The filter that draws it.
    fn filter(&self) -> String {
        let mut filter = format!("ass=filename={}", escaped(&self.file));
        if let Some(Size { width, height }) = self.original {
            filter.push_str(&format!(":original_size={width}x{height}"));
        }
        if let Some(fonts) = &self.fonts {
            filter.push_str(&format!(":fontsdir={}", escaped(fonts)));
        }
        filter
    }
}

/// The value of a filter's option: escaped for the option list first, and that for the list of filters (ffmpeg-filters, "Notes on
/// filtergraph escaping").
fn escaped(value: &str) -> String {
    let escape = |text: &str, special: &[char]| {
        text.chars().flat_map(|letter| special.contains(&letter).then_some('\\').into_iter().chain([letter])).collect::<String>()
    };
    escape(&escape(value, &['\\', '\'', ':']), &['\\', '\'', '[', ']', ',', ';'])
}

/// The arguments that ask ffmpeg whether it has libass.
pub fn has_ass_args() -> Vec<String> {
    ["-hide_banner", "-h", "filter=ass"].map(str::to_owned).to_vec()
}

/// Whether its answer says so.
pub fn has_ass(answer: &str) -> bool {
    answer.trim_start().starts_with("Filter ass")
}

/// How far ahead of its first picture a run with burnt-in images begins to read, in microseconds: what was shown before and still is
/// would be missed else.
pub const BURN_LEAD_US: i64 = 5_000_000;

/// How the light of an HDR picture is coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hdr {
    /// Perceptual quantizer (ITU-R BT.2100, table 4; SMPTE ST 2084).
    Pq,
    /// Hybrid log-gamma (ITU-R BT.2100, table 5).
    Hlg,
}

/// How a film's light is coded; `None` where it has nothing that has to be mapped. What is not told is taken for [`Hdr::Pq`].
pub fn hdr(track: &Track) -> Option<Hdr> {
    let light = if video_range(track) == VideoRange::Hlg { Hdr::Hlg } else { Hdr::Pq };
    track.video.as_ref().is_some_and(|picture| picture.hdr).then_some(light)
}

/// How the tones of an HDR picture become those of BT.709.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ToneMap {
    /// What they are.
    pub from: Hdr,
    /// This ffmpeg has the filter `zscale` (and `tonemap`), which counts in floating point and knows for which light a film was made.
    /// Without it tables do, which take 1,000 cd/m² for the lightest.
    pub zscale: bool,
}

/// One run that encodes pictures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VideoJob {
    /// Where from.
    pub input: Input,
    /// Film times at which a key frame is wanted, in microseconds, ascending; pictures before the first are dropped. At most
    /// [`MAX_BOUNDARIES`] are used.
    pub boundaries_us: Vec<i64>,
    /// Film time after which nothing is wanted, in microseconds; `None` runs to the end of the film.
    pub end_us: Option<i64>,
    /// Length of a frame in microseconds, for the room left around boundaries.
    pub frame_us: i64,
    /// The picture as the viewer sees it: rotation and pixel aspect applied, both sides even.
    pub size: Size,
    /// Whether the decoded picture differs from `size` (in size or in the shape of its pixels).
    pub scale: bool,
    /// Fields are woven into the pictures.
    pub interlaced: bool,
    /// PQ or HLG: how the tones are mapped to BT.709.
    pub hdr: Option<ToneMap>,
    /// Of pictures that follow each other faster than a small picture is worth: see [`ladder::Thinned`](crate::ladder::Thinned).
    pub apart_us: Option<i64>,
    /// What is drawn into the pictures.
    pub burn: Option<Burn>,
    /// Ticks per second of the packets' times.
    pub timescale: u32,
    /// How pictures are coded.
    pub encoder: Encoder,
    /// Threads of decoder and encoder each; 0 lets ffmpeg choose.
    pub threads: u16,
}

/// One run that encodes sound to AAC-LC, 48 kHz, on the grid of 1024 samples that begins at film time zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AudioJob {
    /// Where from.
    pub input: Input,
    /// Number of the first frame of the grid that is wanted.
    pub first_frame: i64,
    /// Number of the frame after the last one wanted; `None` runs to the end of the film.
    pub end_frame: Option<i64>,
    /// Channels of the output: 1 or 2.
    pub channels: u8,
    /// Bits per second.
    pub bitrate: u32,
}

/// One sheet of stills: a few single pictures in, each shown for as many seconds as it has places, one JPEG out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SheetJob {
    /// Address of the pictures, `http` on loopback: MP4.
    pub url: String,
    /// Of one still, upright.
    pub size: Size,
    /// Stills side by side.
    pub columns: u32,
    /// Stills one below the other.
    pub rows: u32,
    /// Clockwise, in degrees, by which the pictures have to be turned.
    pub rotation: u16,
    /// PQ or HLG: how the tones are mapped to BT.709.
    pub hdr: Option<ToneMap>,
    /// Places, counted row by row, of which there is no picture.
    pub dark: Vec<u32>,
}

/// One look at a file whose container has no index of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeJob {
    /// Address of the film, `http` on loopback.
    pub url: String,
}

impl VideoJob {
    /// Film time from which the file has to be read, in microseconds: a little ahead of the first boundary.
    pub fn begin_us(&self) -> i64 {
        let first = self.boundaries_us.first().copied().unwrap_or(0);
        first.saturating_sub(self.frame_us.saturating_mul(2).max(200_000))
    }

    /// How much earlier than a boundary its key frame may lie, in microseconds: what rounding of time stamps can do, and never so much
    /// that the frame before could be meant.
    pub fn slack_us(&self) -> i64 {
        slack_us(self.frame_us)
    }

    /// The arguments after the program's name. Pictures come out as fragmented MP4 on standard output.
    pub fn args(&self) -> Vec<String> {
        let begin = self.begin_us();
        let images = if let Some(Burn::Images(images)) = &self.burn { Some(images) } else { None };
        let mut args = Args::opening(&self.input, begin, self.threads, images.and_then(|images| images.plane));
        match images {
            None => args.pair("-map", format!("0:{}", self.input.stream)),
            Some(images) => {
                args.pair("-filter_complex", self.burning(images, begin));
                args.pair("-map", "[burnt]".to_owned());
            }
        }
        args.all(["-copyts", "-avoid_negative_ts", "disabled", "-fps_mode", "passthrough"]);
        args.pair("-enc_time_base", format!("1:{}", self.timescale));
        let plain = format!("{},format={}", self.filters(begin), self.encoder.pixels());
        match &self.burn {
            None => args.pair("-vf", format!("{plain}{}", self.encoder.upload())),
            // Over the picture as it comes out: its letters are sharp, and no tone map touches them.
            Some(Burn::Script(script)) => args.pair("-vf", format!("{plain},{}{}", script.filter(), self.encoder.upload())),
            Some(Burn::Images(_)) => {}
        }
        self.encoder.args(&mut args);
        let boundaries = self.boundaries_us.iter().take(MAX_BOUNDARIES);
        let forced: Vec<String> = boundaries.map(|at| Self::forced_at(self.file_time(at.saturating_sub(self.slack_us())))).collect();
        args.pair("-force_key_frames", forced.join(","));
        if self.threads > 0 {
            args.pair("-threads", self.threads.to_string());
        }
        if let Some(end) = self.end_us {
            args.pair("-to", seconds(self.file_time(end)));
        }
        args.pair("-video_track_timescale", self.timescale.to_string());
        args.pipe()
    }

    /// The same for one black picture of this size by the very same encoder: what the init segment of all runs follows from, without a
    /// byte of the film. `colour` is what the film's pictures are marked with.
    pub fn header_args(&self, colour: Option<Colour>) -> Vec<String> {
        let Size { width, height } = self.size;
        let mut args = Args::made_up(format!("color=c=black:s={width}x{height}:r=25:d=0.2"));
        args.all(["-fps_mode", "passthrough"]);
        args.pair("-enc_time_base", format!("1:{}", self.timescale));
        let marked = match colour {
            // What comes out of the tone map is marked as BT.709.
            _ if self.hdr.is_some() => ",setparams=color_primaries=1:color_trc=1:colorspace=1".to_owned(),
            Some(Colour { primaries, transfer, matrix, .. }) => {
                format!(",setparams=color_primaries={primaries}:color_trc={transfer}:colorspace={matrix}")
            }
            None => String::new(),
        };
        args.pair("-vf", format!("setsar=1,format={}{marked}{}", self.encoder.pixels(), self.encoder.upload()));
        self.encoder.args(&mut args);
        args.all(["-frames:v", "1"]);
        args.pair("-video_track_timescale", self.timescale.to_string());
        args.pipe()
    }

    /// A time as `-force_key_frames` takes it.
    pub(crate) fn forced_at(file_us: i64) -> String {
        seconds(file_us.max(0))
    }

    fn file_time(&self, film_us: i64) -> i64 {
        film_us.saturating_add(self.input.clock_us())
    }

    /// Pictures as without it, and then the images over them. They are scaled to the size of what comes out, so that a small picture costs
    /// less and a tone map does not touch them. Pictures before `begin` are dropped last: an image that came with one of them is lost with it
    /// otherwise.
    fn burning(&self, burn: &Images, begin: i64) -> String {
        let Size { width, height } = self.size;
        let (shape, place) = if burn.square { (":force_original_aspect_ratio=decrease", "x=(W-w)/2:y=H-h:") } else { ("", "") };
        let trim = if begin > 0 { format!("trim=start={},", seconds(self.file_time(begin))) } else { String::new() };
        format!(
            "[0:{}]{},format=yuv420p[picture];[0:{}]scale=w={width}:h={height}{shape}[text];\
             [picture][text]overlay={place}eof_action=pass,{trim}setsar=1,format={}{}[burnt]",
            self.input.stream,
            self.filters(0),
            burn.stream,
            self.encoder.pixels(),
            self.encoder.upload(),
        )
    }

    /// Frames before `begin` go first, so that a long way from the seek costs decoding only. De-interlacing looks at all that are left. The
    /// format of the pixels is said last, by whoever takes them.
    fn filters(&self, begin: i64) -> String {
        let mut chain = Vec::new();
        if begin > 0 {
            chain.push(format!("trim=start={}", seconds(self.file_time(begin))));
        }
        if self.interlaced {
            chain.push("bwdif=mode=send_frame:deint=interlaced".to_owned());
        }
        // Before anything that costs more the larger and the more the pictures are.
        chain.extend(self.apart_us.map(|apart| self.thinning(apart)));
        if let Some(tones) = self.hdr {
            chain.extend(tones.filters(self.size));
        } else if self.scale {
            let Size { width, height } = self.size;
            chain.push(format!("scale=w={width}:h={height}"));
        }
        chain.push("setsar=1".to_owned());
        chain.join(",")
    }
}

impl VideoJob {
    /// Lets a picture pass that is the first at or behind a boundary, or stands far enough from the last one that passed: whatever run it
    /// comes from, the same pictures of a segment pass, and its key frame is among them. Variable 0 counts the boundaries so far.
    fn thinning(&self, apart_us: i64) -> String {
        let place = |at: &i64| format!("gte(t,{})", seconds(self.file_time(at.saturating_sub(self.slack_us()))));
        let boundaries: Vec<String> = self.boundaries_us.iter().take(MAX_BOUNDARIES).map(place).collect();
        let passed = if boundaries.is_empty() { "0".to_owned() } else { boundaries.join("+") };
        let far = format!("isnan(prev_selected_t)+gte(t-prev_selected_t,{})", seconds(apart_us));
        format!("select='st(1,ld(0));st(0,{passed});gt(ld(0),ld(1))+{far}'")
    }
}

impl ToneMap {
    /// Size and tones in one step, since a tone map of the small picture costs half of one of the large picture.
    fn filters(self, size: Size) -> Vec<String> {
        let Size { width, height } = size;
        if self.zscale {
            return vec![
                format!("zscale=w={width}:h={height}:t=linear:npl=100,format=gbrpf32le,zscale=p=bt709"),
                "tonemap=tonemap=hable:desat=0,zscale=t=bt709:m=bt709:r=tv".to_owned(),
            ];
        }
        // Light in parts of 1,000 cd/m², by the inverse functions of BT.2100; HLG with the gamma of a screen of that light.
        let light = match self.from {
            Hdr::Pq => "st(0,pow(val/maxval,1/78.84375));10*pow(max(ld(0)-0.8359375,0)/(18.8515625-18.6875*ld(0)),1/0.1593017578125)",
            Hdr::Hlg => "st(0,val/maxval);pow(if(lte(ld(0),0.5),ld(0)*ld(0)/3,(exp((ld(0)-0.55991073)/0.17883277)+0.28466892)/12),1.2)",
        };
        // The curve of John Hable for ten times the white of BT.709, then what a screen of BT.1886 undoes.
        let tones = "st(0,10*val/maxval);st(1,((ld(0)*(0.15*ld(0)+0.05)+0.004)/(ld(0)*(0.15*ld(0)+0.5)+0.06)-0.0666667)/0.706217);\
             pow(max(ld(1),0),1/2.4)";
        let table = |of: &str| format!("lutrgb=r='{0}':g='{0}':b='{0}'", format!("st(2,{of});maxval*clip(ld(2),0,1)").replace(' ', ""));
        vec![
            format!("scale=w={width}:h={height}:in_color_matrix=bt2020,format=gbrp16le"),
            table(light),
            // Primaries (ITU-R BT.2087).
            "colorchannelmixer=rr=1.6605:rg=-0.5876:rb=-0.0728:gr=-0.1246:gg=1.1329:gb=-0.0083:br=-0.0182:bg=-0.1006:bb=1.1187".to_owned(),
            table(tones),
            "scale=out_color_matrix=bt709:out_range=tv,format=yuv420p".to_owned(),
            "setparams=color_primaries=bt709:color_trc=bt709:colorspace=bt709:range=tv".to_owned(),
        ]
    }
}

/// The arguments to find out how fast an encoder is: `pictures` of a size, made up and thrown away, and ffmpeg's own account of the time.
pub fn pace_args(encoder: &Encoder, size: Size, rate: u32, pictures: u32) -> Vec<String> {
    let mut args = Args(Vec::new());
    args.all(["-hide_banner", "-loglevel", "info", "-nostats", "-nostdin", "-benchmark", "-f", "lavfi"]);
    args.pair("-i", format!("testsrc2=s={}x{}:r={rate}", size.width, size.height));
    args.pair("-frames:v", pictures.to_string());
    args.pair("-vf", format!("format={}{}", encoder.pixels(), encoder.upload()));
    encoder.args(&mut args);
    args.all(["-f", "null", "-"]);
    args.0
}

impl AudioJob {
    /// What must be subtracted from the packets' times (in samples of 48 kHz) to get times on the film's grid.
    pub fn zero_samples(&self) -> i64 {
        let samples = i128::from(self.input.clock_us()) * i128::from(AUDIO_RATE);
        i64::try_from((samples + 500_000).div_euclid(1_000_000)).unwrap_or(0)
    }

    /// The arguments after the program's name. Frames come out as fragmented MP4 on standard output.
    pub fn args(&self) -> Vec<String> {
        let first = self.first_frame.saturating_sub(AAC_LEAD_FRAMES).max(0).saturating_mul(AAC_FRAME);
        let mut args = Args::opening(&self.input, samples_to_us(first), 0, None);
        args.pair("-map", format!("0:{}", self.input.stream));
        args.all(["-copyts", "-avoid_negative_ts", "disabled"]);
        args.pair("-af", self.filters(first));
        self.encoder_args(&mut args);
        if let Some(end) = self.end_frame {
            let end = samples_to_us(end.saturating_mul(AAC_FRAME));
            args.pair("-to", seconds(end.saturating_add(self.input.clock_us())));
        }
        args.pipe()
    }

    /// The same for a moment of silence: what the init segment of all runs follows from.
    pub fn header_args(&self) -> Vec<String> {
        let layout = if self.channels == 1 { "mono" } else { "stereo" };
        let mut args = Args::made_up(format!("anullsrc=r={AUDIO_RATE}:cl={layout}:d=0.1"));
        self.encoder_args(&mut args);
        args.pipe()
    }

    fn encoder_args(&self, args: &mut Args) {
        args.all(["-c:a", "aac", "-profile:a", "aac_low", "-ar", "48000"]);
        args.pair("-ac", self.channels.to_string());
        args.pair("-b:a", self.bitrate.to_string());
    }

    /// The last filter puts the first sample exactly on the grid, filling or dropping as needed, and closes gaps. It stands behind a
    /// conversion to 48 kHz, because `first_pts` is wrong where it changes the rate itself.
    ///
    /// Where many channels are folded into two, each side would be 2.4 times full scale (5.1) or 3.1 times (7.1) when all channels are
    /// at it: such films clip. Dividing by that makes speech too quiet to be understood. They never are all at once, and 1.5 is enough.
    fn filters(&self, first: i64) -> String {
        let layout = if self.channels == 1 { "mono" } else { "stereo" };
        let first_pts = first.saturating_add(self.zero_samples());
        format!(
            "aresample=48000:rematrix_maxval=1.5,aformat=sample_fmts=fltp:channel_layouts={layout},\
             aresample=48000:async=1:min_hard_comp=0.05:first_pts={first_pts}"
        )
    }
}

impl SheetJob {
    /// The arguments after the program's name. One JPEG comes out on standard output.
    pub fn args(&self) -> Vec<String> {
        let mut args = Args(Vec::new());
        args.all(["-hide_banner", "-loglevel", "error", "-nostdin", "-max_alloc", MAX_ALLOC]);
        args.all(["-protocol_whitelist", "http,tcp", "-format_whitelist", "mov,mp4,m4a,3gp,3g2,mj2"]);
        args.all(["-probesize", "2000000", "-analyzeduration", "1000000", "-fpsprobesize", "0", "-threads", "1"]);
        args.pair("-i", self.url.clone());
        args.all(["-map", "0:v:0"]);
        args.pair("-vf", self.filters());
        args.all(["-frames:v", "1", "-threads", "1", "-c:v", "mjpeg", "-q:v", "4", "-f", "image2pipe", "pipe:1"]);
        args.0
    }

    /// A picture that could not be decoded has the one before it in its place, so that all others keep theirs. JPEG has the matrix of
    /// BT.601 and the full range.
    fn filters(&self) -> String {
        let Size { width, height } = self.size;
        let mut chain = Vec::new();
        match self.rotation {
            90 => chain.push("transpose=clock".to_owned()),
            180 => chain.push("hflip,vflip".to_owned()),
            270 => chain.push("transpose=cclock".to_owned()),
            _ => {}
        }
        if let Some(tones) = self.hdr {
            chain.extend(tones.filters(self.size));
            chain.push("format=yuv420p".to_owned());
        }
        chain.push(format!("scale=w={width}:h={height}:out_color_matrix=bt601:out_range=full"));
        chain.push("setsar=1,format=yuvj420p,fps=1:start_time=0".to_owned());
        let places = self.columns.saturating_mul(self.rows);
        chain.push(format!("tpad=stop_mode=clone:stop={places}"));
        if !self.dark.is_empty() {
            let dark: Vec<String> = self.dark.iter().map(|place| format!("eq(n,{place})")).collect();
            chain.push(format!("drawbox=w=iw:h=ih:color=0x0a0b0d:t=fill:enable='{}'", dark.join("+")));
        }
        chain.push(format!("tile={}x{}", self.columns, self.rows));
        chain.join(",")
    }
}

impl ProbeJob {
    /// The arguments after ffprobe's name. Streams and format come out as JSON on standard output.
    pub fn args(&self) -> Vec<String> {
        let mut args = Args(Vec::new());
        args.all(["-hide_banner", "-loglevel", "error", "-max_alloc", MAX_ALLOC]);
        args.all(["-protocol_whitelist", "http,tcp", "-format_whitelist", DEMUXERS]);
        args.all(["-print_format", "json=compact=1", "-show_format", "-show_streams"]);
        args.pair("-i", self.url.clone());
        args.0
    }
}

/// See [`VideoJob::slack_us`]: a quarter of a frame, at most 1.5 ms.
pub fn slack_us(frame_us: i64) -> i64 {
    (frame_us / 4).clamp(0, 1_500)
}

pub(crate) struct Args(Vec<String>);

impl Args {
    /// Everything up to and with `-i`; `begin` is the film time from which something is wanted, `plane` the one of the film's images of text.
    fn opening(input: &Input, begin: i64, threads: u16, plane: Option<Size>) -> Self {
        let mut args = Self(Vec::new());
        args.all(["-hide_banner", "-loglevel", "error", "-nostdin", "-max_alloc", MAX_ALLOC]);
        args.all(["-protocol_whitelist", "http,tcp", "-format_whitelist", DEMUXERS]);
        if input.indexed || input.spliced {
            args.all(["-probesize", "2000000", "-analyzeduration", "1000000", "-fpsprobesize", "0"]);
        }
        if threads > 0 {
            args.pair("-threads", threads.to_string());
        }
        let file_time = begin.saturating_add(input.zero_us);
        let seek = file_time.saturating_sub(input.origin_us).saturating_sub(input.lead_us);
        if input.spliced {
            args.all(["-seekable", "0"]);
        } else if seek > 0 {
            args.pair("-ss", seconds(seek));
        }
        if input.zero_us < 0 {
            args.pair("-itsoffset", seconds(input.zero_us.saturating_neg()));
        }
        if let Some(Size { width, height }) = plane {
            args.pair("-canvas_size", format!("{width}x{height}"));
        }
        args.pair("-i", input.url.clone());
        args
    }

    /// Everything up to and with `-i` of a source that ffmpeg makes up itself.
    pub(crate) fn made_up(source: String) -> Self {
        let mut args = Self(Vec::new());
        args.all(["-hide_banner", "-loglevel", "error", "-nostdin", "-f", "lavfi"]);
        args.pair("-i", source);
        args
    }

    pub(crate) fn pair(&mut self, name: &str, value: String) {
        self.0.push(name.to_owned());
        self.0.push(value);
    }

    pub(crate) fn all<const N: usize>(&mut self, words: [&str; N]) {
        self.0.extend(words.map(str::to_owned));
    }

    /// The end of every list: short fragments on the pipe, with times of their own, and nothing of the file's decoration.
    pub(crate) fn pipe(mut self) -> Vec<String> {
        self.all(["-map_metadata", "-1", "-map_chapters", "-1", "-f", "mp4"]);
        self.all(["-movflags", "+delay_moov+default_base_moof+frag_discont", "-frag_duration", "200000", "pipe:1"]);
        self.0
    }
}

/// Microseconds as seconds with six decimals: no exponent, no locale, nothing lost.
fn seconds(us: i64) -> String {
    let sign = if us < 0 { "-" } else { "" };
    let us = us.unsigned_abs();
    format!("{sign}{}.{:06}", us / 1_000_000, us % 1_000_000)
}

/// Samples of 48 kHz in microseconds, rounded down.
fn samples_to_us(samples: i64) -> i64 {
    let us = i128::from(samples) * 1_000_000;
    i64::try_from(us.div_euclid(i128::from(AUDIO_RATE))).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PQ: ToneMap = ToneMap { from: Hdr::Pq, zscale: true };

    fn input() -> Input {
        Input { url: "http://127.0.0.1:9/x".into(), stream: 0, zero_us: 0, origin_us: 0, lead_us: 0, indexed: true, spliced: false }
    }

    fn video() -> VideoJob {
        VideoJob {
            input: input(),
            boundaries_us: vec![6_006_000, 8_008_000],
            end_us: Some(9_000_000),
            frame_us: 41_708,
            size: Size { width: 1280, height: 720 },
            scale: true,
            interlaced: false,
            hdr: None,
            apart_us: None,
            burn: None,
            timescale: 24_000,
            encoder: Encoder::X264 { preset: "superfast", crf: 23, maxrate: 3_500_000, bufsize: 3_500_000, level: 31, set: 0 },
            threads: 2,
        }
    }

    fn check(args: &[String], expected: &str) {
        let expected: Vec<&str> = expected.split_whitespace().collect();
        assert_eq!(args, expected);
    }

    #[test]
    fn images_of_text_are_drawn_into_what_comes_out() {
        let burn = |plane, square| Some(Burn::Images(Images { stream: 3, plane, square }));
        let blu_ray = Some(Size { width: 1920, height: 1080 });
        for (burn, canvas, filters) in [
            (
                burn(blu_ray, true),
                Some("1920x1080"),
                "[0:0]scale=w=1280:h=720,setsar=1,format=yuv420p[picture];\
                 [0:3]scale=w=1280:h=720:force_original_aspect_ratio=decrease[text];\
                 [picture][text]overlay=x=(W-w)/2:y=H-h:eof_action=pass,trim=start=5.806000,setsar=1,format=yuv420p[burnt]",
            ),
            (
                burn(None, false),
                None,
                "[0:0]scale=w=1280:h=720,setsar=1,format=yuv420p[picture];\
                 [0:3]scale=w=1280:h=720[text];[picture][text]overlay=eof_action=pass,trim=start=5.806000,setsar=1,format=yuv420p[burnt]",
            ),
        ] {
            let args = VideoJob { burn, ..video() }.args();
            let after = |name: &str| args.iter().position(|arg| arg == name).and_then(|at| args.get(at + 1)).map(String::as_str);
            assert_eq!((after("-canvas_size"), after("-filter_complex"), after("-map")), (canvas, Some(filters), Some("[burnt]")));
            assert_eq!(after("-vf"), None);
            let place = |name: &str| args.iter().position(|arg| arg == name);
            assert!(place("-canvas_size") < place("-i"), "it is said of the input");
        }
    }

    #[test]
    fn a_script_is_drawn_into_what_comes_out() {
        let script = |file: &str, fonts: Option<&str>, original| {
            Some(Burn::Script(Script { file: file.into(), fonts: fonts.map(str::to_owned), original }))
        };
        let original = Some(Size { width: 1920, height: 1080 });
        for (burn, filters) in [
            (script("/c/drawn-1/0.ass", None, None), "ass=filename=/c/drawn-1/0.ass"),
            (
                script("/c/a b/0.ass", Some("/c/a b/fonts"), original),
                "ass=filename=/c/a b/0.ass:original_size=1920x1080:fontsdir=/c/a b/fonts",
            ),
            (script("/it's/C:\\x,[y];z=1/é", None, None), "ass=filename=/it\\\\\\'s/C\\\\:\\\\\\\\x\\,\\[y\\]\\;z=1/é"),
        ] {
            let args = VideoJob { burn, ..video() }.args();
            let after = |name: &str| args.iter().position(|arg| arg == name).and_then(|at| args.get(at + 1)).map(String::as_str);
            let all = format!("trim=start=5.806000,scale=w=1280:h=720,setsar=1,format=yuv420p,{filters}");
            assert_eq!((after("-vf"), after("-filter_complex"), after("-map")), (Some(all.as_str()), None, Some("0:0")));
        }
        assert!(has_ass("Filter ass\n  Render ASS subtitles onto input video using the libass library.\n"));
        assert!(!has_ass("") && !has_ass("Unknown filter 'ass'.\n"));
    }

    #[test]
    fn a_run_in_the_middle_of_an_mp4() {
        check(
            &video().args(),
            "-hide_banner -loglevel error -nostdin -max_alloc 536870912 -protocol_whitelist http,tcp
             -format_whitelist matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,avi,mpegts,mpeg,mpegvideo,asf,flv,ogg,rm,nut,wtv,mxf,ivf,mp3,flac,wav,w64,aiff,aac,ac3,eac3,dts,ape,wv,tta
             -probesize 2000000 -analyzeduration 1000000 -fpsprobesize 0 -threads 2 -ss 5.806000 -i http://127.0.0.1:9/x
             -map 0:0 -copyts -avoid_negative_ts disabled -fps_mode passthrough -enc_time_base 1:24000
             -vf trim=start=5.806000,scale=w=1280:h=720,setsar=1,format=yuv420p
             -c:v libx264 -preset superfast -crf 23 -maxrate 3500000 -bufsize 3500000 -profile:v high -pix_fmt yuv420p -level:v 3.1
             -g 100000 -keyint_min 1 -sc_threshold 0 -bf 3 -forced-idr 1 -x264-params b-pyramid=normal:open-gop=0
             -force_key_frames 6.004500,8.006500 -threads 2 -to 9.000000 -video_track_timescale 24000
             -map_metadata -1 -map_chapters -1 -f mp4
             -movflags +delay_moov+default_base_moof+frag_discont -frag_duration 200000 pipe:1",
        );
    }

    #[test]
    fn a_run_from_the_start_of_an_interlaced_hdr_broadcast() {
        let mut job = video();
        job.input = Input {
            stream: 3,
            zero_us: 1_460_200,
            origin_us: 1_460_200,
            lead_us: 3_000_000,
            indexed: false,
            url: "http://127.0.0.1:9/x".into(),
            spliced: false,
        };
        job.boundaries_us = vec![0, 2_000_000];
        job.end_us = None;
        (job.interlaced, job.hdr, job.timescale, job.threads) = (true, Some(PQ), 90_000, 0);
        check(
            &job.args(),
            "-hide_banner -loglevel error -nostdin -max_alloc 536870912 -protocol_whitelist http,tcp
             -format_whitelist matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,avi,mpegts,mpeg,mpegvideo,asf,flv,ogg,rm,nut,wtv,mxf,ivf,mp3,flac,wav,w64,aiff,aac,ac3,eac3,dts,ape,wv,tta
             -i http://127.0.0.1:9/x
             -map 0:3 -copyts -avoid_negative_ts disabled -fps_mode passthrough -enc_time_base 1:90000
             -vf bwdif=mode=send_frame:deint=interlaced,zscale=w=1280:h=720:t=linear:npl=100,format=gbrpf32le,zscale=p=bt709,tonemap=tonemap=hable:desat=0,zscale=t=bt709:m=bt709:r=tv,setsar=1,format=yuv420p
             -c:v libx264 -preset superfast -crf 23 -maxrate 3500000 -bufsize 3500000 -profile:v high -pix_fmt yuv420p -level:v 3.1
             -g 100000 -keyint_min 1 -sc_threshold 0 -bf 3 -forced-idr 1 -x264-params b-pyramid=normal:open-gop=0
             -force_key_frames 1.458700,3.458700 -video_track_timescale 90000
             -map_metadata -1 -map_chapters -1 -f mp4
             -movflags +delay_moov+default_base_moof+frag_discont -frag_duration 200000 pipe:1",
        );
    }

    #[test]
    fn a_film_that_begins_before_zero_is_shifted_to_it() {
        let mut job = video();
        job.input = Input { zero_us: -700_000, origin_us: -700_000, ..input() };
        job.boundaries_us.insert(0, 0);
        let args = job.args().join(" ");
        for part in [" -itsoffset 0.700000 -i ", " -force_key_frames 0.000000,6.004500,8.006500 ", " -to 9.000000 "] {
            assert!(args.contains(part), "{part} in {args}");
        }
        assert!(!args.contains(" -ss "), "{args}");
        job.boundaries_us.remove(0);
        let args = job.args().join(" ");
        // The seek counts from the film's beginning, the rest as the pipe does.
        assert!(args.contains(" -ss 5.806000 ") && args.contains("trim=start=5.806000,"), "{args}");
        let sound = AudioJob { input: job.input, first_frame: 281, end_frame: None, channels: 2, bitrate: 1 };
        assert_eq!(sound.zero_samples(), 0);
    }

    #[test]
    fn a_small_picture_of_a_fast_film_has_every_second_one() {
        let job = VideoJob { apart_us: Some(25_000), interlaced: true, ..video() };
        assert_eq!(
            job.filters(job.begin_us()),
            "trim=start=5.806000,bwdif=mode=send_frame:deint=interlaced,\
             select='st(1,ld(0));st(0,gte(t,6.004500)+gte(t,8.006500));gt(ld(0),ld(1))+isnan(prev_selected_t)+gte(t-prev_selected_t,0.025000)',\
             scale=w=1280:h=720,setsar=1"
        );
        // In file time, as the key frames.
        let late = VideoJob { input: Input { zero_us: 10_000_000, ..input() }, boundaries_us: vec![0], ..job };
        assert!(late.filters(0).contains("st(0,gte(t,9.998500));"), "{}", late.filters(0));
        assert!(VideoJob { boundaries_us: Vec::new(), ..late }.filters(0).contains("st(0,0);"));
    }

    #[test]
    fn tones_without_zscale() {
        let chain = |from| ToneMap { from, zscale: false }.filters(Size { width: 640, height: 360 }).join(",");
        for from in [Hdr::Pq, Hdr::Hlg] {
            let filters: Vec<String> = chain(from).split(',').map(|part| part.split('=').next().unwrap_or_default().to_owned()).collect();
            let named: Vec<&str> =
                filters.iter().map(String::as_str).filter(|name| ["scale", "lutrgb", "colorchannelmixer"].contains(name)).collect();
            assert_eq!(named, ["scale", "lutrgb", "colorchannelmixer", "lutrgb", "scale"]);
        }
        assert_ne!(chain(Hdr::Pq), chain(Hdr::Hlg));
        // Nothing that stands elsewhere in the list.
        let job = VideoJob { hdr: Some(ToneMap { from: Hdr::Pq, zscale: false }), ..video() };
        assert_eq!(job.filters(0), format!("{},setsar=1", ToneMap { from: Hdr::Pq, zscale: false }.filters(job.size).join(",")));
    }

    #[test]
    fn a_seek_is_relative_to_the_start_that_libavformat_found() {
        let mut job = video();
        job.input = Input { zero_us: 1_460_200, origin_us: 1_460_200, lead_us: 3_000_000, ..input() };
        let args = job.args().join(" ");
        assert!(args.contains("-ss 2.806000 "), "{args}");
        assert!(args.contains("trim=start=7.266200,"), "{args}");
        assert!(args.contains("-to 10.460200 "), "{args}");
    }

    #[test]
    fn sound_starts_four_frames_early_on_the_grid() {
        let mut job =
            AudioJob { input: Input { stream: 1, ..input() }, first_frame: 281, end_frame: Some(375), channels: 2, bitrate: 160_000 };
        check(
            &job.args(),
            "-hide_banner -loglevel error -nostdin -max_alloc 536870912 -protocol_whitelist http,tcp
             -format_whitelist matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,avi,mpegts,mpeg,mpegvideo,asf,flv,ogg,rm,nut,wtv,mxf,ivf,mp3,flac,wav,w64,aiff,aac,ac3,eac3,dts,ape,wv,tta
             -probesize 2000000 -analyzeduration 1000000 -fpsprobesize 0 -ss 5.909333 -i http://127.0.0.1:9/x
             -map 0:1 -copyts -avoid_negative_ts disabled
             -af aresample=48000:rematrix_maxval=1.5,aformat=sample_fmts=fltp:channel_layouts=stereo,aresample=48000:async=1:min_hard_comp=0.05:first_pts=283648
             -c:a aac -profile:a aac_low -ar 48000 -ac 2 -b:a 160000 -to 8.000000 -map_metadata -1 -map_chapters -1 -f mp4
             -movflags +delay_moov+default_base_moof+frag_discont -frag_duration 200000 pipe:1",
        );
        (job.first_frame, job.end_frame, job.input.zero_us, job.input.origin_us) = (2, None, 1_460_200, 1_460_200);
        assert_eq!(job.zero_samples(), 70_090);
        let args = job.args().join(" ");
        assert!(args.contains("first_pts=70090 ") && !args.contains("-ss") && !args.contains("-to"), "{args}");
    }

    #[test]
    fn a_sheet_of_stills() {
        let mut job = SheetJob {
            url: "http://127.0.0.1:9/x".into(),
            size: Size { width: 320, height: 180 },
            columns: 5,
            rows: 5,
            rotation: 0,
            hdr: None,
            dark: vec![0, 24],
        };
        check(
            &job.args(),
            "-hide_banner -loglevel error -nostdin -max_alloc 536870912 -protocol_whitelist http,tcp -format_whitelist mov,mp4,m4a,3gp,3g2,mj2
             -probesize 2000000 -analyzeduration 1000000 -fpsprobesize 0 -threads 1 -i http://127.0.0.1:9/x -map 0:v:0
             -vf scale=w=320:h=180:out_color_matrix=bt601:out_range=full,setsar=1,format=yuvj420p,fps=1:start_time=0,tpad=stop_mode=clone:stop=25,drawbox=w=iw:h=ih:color=0x0a0b0d:t=fill:enable='eq(n,0)+eq(n,24)',tile=5x5
             -frames:v 1 -threads 1 -c:v mjpeg -q:v 4 -f image2pipe pipe:1",
        );
        job.dark.clear();
        (job.rotation, job.hdr) = (90, Some(PQ));
        let filters = job.filters();
        assert!(filters.starts_with("transpose=clock,zscale=w=320:h=180:t=linear") && !filters.contains("drawbox"), "{filters}");
    }

    #[test]
    fn a_probe_opens_only_films() {
        check(
            &ProbeJob { url: "http://127.0.0.1:9/x".into() }.args(),
            "-hide_banner -loglevel error -max_alloc 536870912 -protocol_whitelist http,tcp
             -format_whitelist matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,avi,mpegts,mpeg,mpegvideo,asf,flv,ogg,rm,nut,wtv,mxf,ivf,mp3,flac,wav,w64,aiff,aac,ac3,eac3,dts,ape,wv,tta
             -print_format json=compact=1 -show_format -show_streams -i http://127.0.0.1:9/x",
        );
    }

    #[test]
    fn a_header_needs_no_film() {
        let colour = Colour { primaries: 9, transfer: 14, matrix: 9, full_range: false };
        check(
            &video().header_args(Some(colour)),
            "-hide_banner -loglevel error -nostdin -f lavfi -i color=c=black:s=1280x720:r=25:d=0.2 -fps_mode passthrough
             -enc_time_base 1:24000 -vf setsar=1,format=yuv420p,setparams=color_primaries=9:color_trc=14:colorspace=9
             -c:v libx264 -preset superfast -crf 23 -maxrate 3500000 -bufsize 3500000 -profile:v high -pix_fmt yuv420p -level:v 3.1
             -g 100000 -keyint_min 1 -sc_threshold 0 -bf 3 -forced-idr 1 -x264-params b-pyramid=normal:open-gop=0
             -frames:v 1 -video_track_timescale 24000 -map_metadata -1 -map_chapters -1 -f mp4
             -movflags +delay_moov+default_base_moof+frag_discont -frag_duration 200000 pipe:1",
        );
        let sound = AudioJob { input: input(), first_frame: 0, end_frame: None, channels: 1, bitrate: 96_000 };
        check(
            &sound.header_args(),
            "-hide_banner -loglevel error -nostdin -f lavfi -i anullsrc=r=48000:cl=mono:d=0.1 -c:a aac -profile:a aac_low -ar 48000
             -ac 1 -b:a 96000 -map_metadata -1 -map_chapters -1 -f mp4
             -movflags +delay_moov+default_base_moof+frag_discont -frag_duration 200000 pipe:1",
        );
    }

    #[test]
    fn the_list_of_boundaries_is_bounded() {
        let mut job = video();
        job.boundaries_us = (0..10_000).map(|n| n * 2_000_000).collect();
        let args = job.args();
        let forced = args.iter().skip_while(|arg| *arg != "-force_key_frames").nth(1).expect("a list");
        assert_eq!(forced.split(',').count(), MAX_BOUNDARIES);
    }

    #[test]
    fn microseconds_are_printed_whole() {
        let table = [(0, "0.000000"), (1, "0.000001"), (-1_500_000, "-1.500000"), (86_400_000_001, "86400.000001")];
        for (us, expected) in table {
            assert_eq!(seconds(us), expected);
        }
    }

    proptest! {
        #[test]
        fn any_numbers_make_a_list(first in any::<i64>(), zero in any::<i64>(), origin in any::<i64>(), lead in any::<i64>(), frame in any::<i64>()) {
            let mut job = video();
            job.input = Input { zero_us: zero, origin_us: origin, lead_us: lead, ..input() };
            job.boundaries_us = vec![first];
            job.frame_us = frame;
            prop_assert!(job.args().ends_with(&["pipe:1".to_owned()]));
            let audio = AudioJob { input: job.input, first_frame: first, end_frame: Some(first), channels: 2, bitrate: 1 };
            prop_assert!(audio.args().ends_with(&["pipe:1".to_owned()]));
        }
    }
}
