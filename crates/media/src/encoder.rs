//! Encoders of H.264: x264, and those that machines have in silicon. For each its arguments; for a machine, which to try, best first; and
//! what a trial has to show before one is believed.
//!
//! All of them make the same promises, because one may take over from another in the middle of a rendition: High profile in 8 bits, key
//! frames (IDR) at the forced times and nowhere else within a segment, a level and a rate that are not exceeded. The ones in silicon make
//! no B pictures: how deep they would reorder depends on the driver. Nothing is started here.

use serde::{Deserialize, Serialize};

use crate::codec::{Chroma, h264};
use crate::cut::rescale;
use crate::ffmpeg::{Args, VideoJob, slack_us};
use crate::fmp4::Packet;
use crate::fmp4::read::PipeTrack;
use crate::ladder::{self, Size};

/// Pictures that x264 may hold back in these recipes (three B-frames in a pyramid): the shift that composition offsets need, in frames.
pub const X264_REORDER: u32 = 2;

/// Pictures between key frames that nobody asked for, of an encoder in silicon: more than any segment of a ladder has, and within what all
/// of them can count.
const SILICON_GOP: &str = "600";

/// How pictures are coded.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Encoder {
    /// libx264, High profile, 8 bits, closed groups of pictures.
    X264 {
        /// One of x264's presets, `superfast` for a live ladder.
        preset: &'static str,
        /// Constant rate factor, 0 to 51.
        crf: u8,
        /// Upper bound of the rate, in bits per second.
        maxrate: u64,
        /// Size of the decoder's model buffer in bits.
        bufsize: u64,
        /// `level_idc` (ITU-T H.264, A.3): 41 is level 4.1.
        level: u8,
        /// Number of its parameter sets, 0 to 31: [`STAND_IN`] where it stands in for another encoder, so that the sets of both can stand
        /// in one configuration.
        set: u8,
    },
    /// One in silicon.
    Silicon {
        /// Which.
        silicon: Silicon,
        /// Bits per second over a whole film.
        average: u64,
        /// Upper bound of the rate, in bits per second.
        maxrate: u64,
        /// Size of the decoder's model buffer in bits.
        bufsize: u64,
        /// `level_idc` (ITU-T H.264, A.3).
        level: u8,
    },
}

/// The number of the parameter sets of an x264 that stands in for an encoder in silicon; theirs is 0.
pub const STAND_IN: u8 = 1;

/// The makers' encoders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)] // each by its own name
pub enum Family {
    VideoToolbox,
    Nvenc,
    Qsv,
    Vaapi,
    Amf,
}

impl Family {
    /// All of them, the best first.
    pub const ALL: [Self; 5] = [Self::VideoToolbox, Self::Nvenc, Self::Qsv, Self::Vaapi, Self::Amf];

    /// As in the settings.
    pub const fn name(self) -> &'static str {
        match self {
            Self::VideoToolbox => "videotoolbox",
            Self::Nvenc => "nvenc",
            Self::Qsv => "qsv",
            Self::Vaapi => "vaapi",
            Self::Amf => "amf",
        }
    }

    /// ffmpeg's name of it.
    pub const fn codec(self) -> &'static str {
        match self {
            Self::VideoToolbox => "h264_videotoolbox",
            Self::Nvenc => "h264_nvenc",
            Self::Qsv => "h264_qsv",
            Self::Vaapi => "h264_vaapi",
            Self::Amf => "h264_amf",
        }
    }
}

/// What is wanted of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Wanted {
    /// The best that works.
    #[default]
    Auto,
    /// The processor.
    X264,
    /// This one if it works, else the processor.
    One(Family),
    /// No picture is converted.
    Off,
}

impl Wanted {
    /// All words, as the settings list them.
    pub const WORDS: [&'static str; 8] = ["auto", "x264", "videotoolbox", "nvenc", "qsv", "vaapi", "amf", "off"];

    /// What a word of the settings stands for.
    pub fn named(word: &str) -> Option<Self> {
        match word {
            "auto" => Some(Self::Auto),
            "x264" => Some(Self::X264),
            "off" => Some(Self::Off),
            word => Family::ALL.into_iter().find(|family| family.name() == word).map(Self::One),
        }
    }

    /// Its word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::X264 => "x264",
            Self::One(family) => family.name(),
            Self::Off => "off",
        }
    }
}

/// One encoder in silicon, and how it is reached.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Silicon {
    /// Apple's.
    VideoToolbox,
    /// Nvidia's, the first card that can.
    Nvenc,
    /// Intel's, by way of its own library.
    Qsv {
        /// The render node.
        device: String,
    },
    /// Whatever the render node's driver has.
    Vaapi {
        /// The render node.
        device: String,
        /// The small unit that some newer Intel chips have instead of the large one.
        low_power: bool,
    },
    /// AMD's, by way of its own library.
    Amf,
}

/// The render node of a machine that names none.
const FIRST_NODE: &str = "/dev/dri/renderD128";

/// What a machine has that could encode, as far as that can be seen without trying.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Devices {
    /// It is an Apple.
    pub apple: bool,
    /// The driver of Nvidia is there.
    pub nvidia: bool,
    /// Render nodes, the first one first.
    pub nodes: Vec<String>,
}

impl Devices {
    /// What to try for this wish, one after the other until one works. What is asked for by name is tried even where nothing can be seen of
    /// it: why it does not work is told then.
    pub fn candidates(&self, wanted: Wanted) -> Vec<Silicon> {
        let first_node = [FIRST_NODE.to_owned()];
        match wanted {
            Wanted::X264 | Wanted::Off => Vec::new(),
            Wanted::Auto => Family::ALL.into_iter().filter(|family| self.may_have(*family)).flat_map(|one| of(one, &self.nodes)).collect(),
            Wanted::One(family) => of(family, if self.nodes.is_empty() { &first_node } else { &self.nodes }),
        }
    }

    fn may_have(&self, family: Family) -> bool {
        match family {
            Family::VideoToolbox => self.apple,
            Family::Nvenc => self.nvidia,
            Family::Qsv | Family::Vaapi | Family::Amf => !self.nodes.is_empty(),
        }
    }
}

fn of(family: Family, nodes: &[String]) -> Vec<Silicon> {
    let vaapi = |device: &String| [false, true].map(|low_power| Silicon::Vaapi { device: device.clone(), low_power });
    match family {
        Family::VideoToolbox => vec![Silicon::VideoToolbox],
        Family::Nvenc => vec![Silicon::Nvenc],
        Family::Qsv => nodes.iter().map(|device| Silicon::Qsv { device: device.clone() }).collect(),
        Family::Vaapi => nodes.iter().flat_map(vaapi).collect(),
        Family::Amf => vec![Silicon::Amf],
    }
}

impl Silicon {
    /// Whose it is.
    pub const fn family(&self) -> Family {
        match self {
            Self::VideoToolbox => Family::VideoToolbox,
            Self::Nvenc => Family::Nvenc,
            Self::Qsv { .. } => Family::Qsv,
            Self::Vaapi { .. } => Family::Vaapi,
            Self::Amf => Family::Amf,
        }
    }
}

impl Encoder {
    /// Pictures that may precede one in decoding order and follow it in output order. Of all the same: x264 may stand in for any.
    pub const fn reorder(&self) -> u32 {
        match self {
            Self::X264 { .. } | Self::Silicon { .. } => X264_REORDER,
        }
    }

    /// `level_idc` that it does not exceed.
    pub const fn level(&self) -> u8 {
        match self {
            Self::X264 { level, .. } | Self::Silicon { level, .. } => *level,
        }
    }

    /// The one in silicon, if it is one.
    pub const fn silicon(&self) -> Option<&Silicon> {
        match self {
            Self::X264 { .. } => None,
            Self::Silicon { silicon, .. } => Some(silicon),
        }
    }

    /// The x264 that takes over where this one fails, at the same bounds.
    pub fn stand_in(&self) -> Option<Self> {
        match *self {
            Self::X264 { .. } => None,
            Self::Silicon { maxrate, bufsize, level, .. } => {
                Some(Self::X264 { preset: PRESET, crf: CRF, maxrate, bufsize, level, set: STAND_IN })
            }
        }
    }

    /// For a rung of a ladder: these bits, this level; in silicon where there is any.
    pub fn of_rung(bits: &ladder::Rate, level: u8, silicon: Option<Silicon>) -> Self {
        let ladder::Rate { maxrate, bufsize, average, .. } = *bits;
        match silicon {
            None => Self::X264 { preset: PRESET, crf: CRF, maxrate, bufsize, level, set: 0 },
            Some(silicon) => Self::Silicon { silicon, average, maxrate, bufsize, level },
        }
    }

    /// What it takes pictures as, for the filter `format`.
    pub(crate) const fn pixels(&self) -> &'static str {
        match self {
            Self::Silicon { silicon: Silicon::Qsv { .. } | Silicon::Vaapi { .. } | Silicon::Amf, .. } => "nv12",
            Self::X264 { .. } | Self::Silicon { .. } => "yuv420p",
        }
    }

    /// What follows all other filters.
    pub(crate) const fn upload(&self) -> &'static str {
        match self {
            Self::Silicon { silicon: Silicon::Vaapi { .. }, .. } => ",hwupload",
            Self::X264 { .. } | Self::Silicon { .. } => "",
        }
    }

    pub(crate) fn args(&self, args: &mut Args) {
        match self {
            Self::X264 { preset, crf, maxrate, bufsize, level, set } => {
                args.all(["-c:v", "libx264", "-preset", preset]);
                args.pair("-crf", crf.to_string());
                args.pair("-maxrate", maxrate.to_string());
                args.pair("-bufsize", bufsize.to_string());
                args.all(["-profile:v", "high", "-pix_fmt", "yuv420p"]);
                args.pair("-level:v", dotted(*level));
                args.all(["-g", "100000", "-keyint_min", "1", "-sc_threshold", "0", "-bf", "3", "-forced-idr", "1"]);
                let number = if *set == 0 { String::new() } else { format!(":sps-id={set}") };
                args.pair("-x264-params", format!("b-pyramid=normal:open-gop=0{number}"));
            }
            Self::Silicon { silicon, average, maxrate, bufsize, level } => {
                silicon.device(args);
                args.pair("-c:v", silicon.family().codec().to_owned());
                silicon.quality(args, *average);
                args.pair("-maxrate", maxrate.to_string());
                args.pair("-bufsize", bufsize.to_string());
                args.all(["-profile:v", "high"]);
                // Of Quick Sync the number itself is taken, of the others a name.
                let level = if matches!(silicon, Silicon::Qsv { .. }) { level.to_string() } else { dotted(*level) };
                args.pair("-level:v", level);
                args.all(["-g", SILICON_GOP, "-bf", "0"]);
                silicon.key_frames(args);
            }
        }
    }
}

/// For a live ladder on the processor.
const PRESET: &str = "superfast";
/// Of that.
const CRF: u8 = 23;

fn dotted(level: u8) -> String {
    format!("{}.{}", level / 10, level % 10)
}

impl Silicon {
    /// Options of the whole run: which device.
    fn device(&self, args: &mut Args) {
        match self {
            Self::Vaapi { device, .. } => args.pair("-vaapi_device", device.clone()),
            Self::Qsv { device } => {
                args.pair("-init_hw_device", format!("vaapi=va:{device}"));
                args.all(["-init_hw_device", "qsv=qs@va"]);
            }
            Self::VideoToolbox | Self::Nvenc | Self::Amf => {}
        }
    }

    /// How well, within the bounds of the rate. Where a quality can be held under a cap that is asked for, elsewhere a mean rate.
    fn quality(&self, args: &mut Args, average: u64) {
        match self {
            Self::Nvenc => {
                args.all(["-preset", "p4", "-tune", "hq", "-rc", "vbr", "-cq", "25", "-b:v", "0"]);
                return;
            }
            Self::VideoToolbox => args.all(["-allow_sw", "0", "-realtime", "0"]),
            Self::Qsv { .. } => args.all(["-preset", "veryfast", "-look_ahead", "0"]),
            Self::Vaapi { low_power, .. } => args.all(["-low_power", if *low_power { "1" } else { "0" }, "-rc_mode", "VBR"]),
            Self::Amf => args.all(["-usage", "transcoding", "-quality", "balanced", "-rc", "vbr_peak"]),
        }
        args.pair("-b:v", average.to_string());
    }

    /// Key frames only where they are forced, and there such that nothing refers across them.
    fn key_frames(&self, args: &mut Args) {
        match self {
            Self::Nvenc => args.all(["-forced-idr", "1", "-no-scenecut", "1", "-rc-lookahead", "0"]),
            Self::Qsv { .. } => args.all(["-forced_idr", "1", "-idr_interval", "0", "-adaptive_i", "0"]),
            Self::Vaapi { .. } => args.all(["-idr_interval", "0"]),
            Self::Amf => args.all(["-forced_idr", "1"]),
            Self::VideoToolbox => {}
        }
    }
}

/// A short run of an encoder with the very arguments of a film, on a picture that is made up: hard to code, ten bits deep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trial {
    /// Which.
    pub encoder: Encoder,
    /// Of which size.
    pub size: Size,
}

/// Pictures of a [`Trial`].
pub const TRIAL_PICTURES: usize = 40;
/// Of them within a second.
pub const TRIAL_RATE: u32 = 25;
/// Numbers of those that have to be key frames: at no regular distance.
const TRIAL_KEYS: [usize; 4] = [0, 7, 19, 32];
/// Ticks within a second, and of one picture.
const TRIAL_TIMESCALE: u32 = 90_000;
const TRIAL_FRAME: i64 = 3_600;

/// What a trial showed that must not be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // each says what it is
pub enum Flaw {
    #[error("its parameter sets cannot be read")]
    NoParameters,
    #[error("it makes {0} instead of what was asked for")]
    AnotherStream(String),
    #[error("it made {0} pictures of {TRIAL_PICTURES}")]
    Pictures(usize),
    #[error("its times are not those of its pictures")]
    Times,
    #[error("its pictures are too much out of order")]
    Order,
    #[error("its key frames are not where they were asked for")]
    KeyFrames,
    #[error("it does not keep to the rate")]
    Rate,
}

impl Trial {
    /// For what a ladder would make of this size.
    pub fn of(silicon: Silicon, size: Size) -> Self {
        let (bits, level) = of_size(size);
        Self { encoder: Encoder::of_rung(&bits, level, Some(silicon)), size }
    }

    /// The arguments after the program's name. Pictures come out as fragmented MP4 on standard output.
    pub fn args(&self) -> Vec<String> {
        let Size { width, height } = self.size;
        let mut args = Args::made_up(format!("testsrc2=s={width}x{height}:r={TRIAL_RATE},noise=alls=40:allf=t,format=yuv420p10le"));
        args.all(["-fps_mode", "passthrough"]);
        args.pair("-enc_time_base", format!("1:{TRIAL_TIMESCALE}"));
        // As `VideoJob` has it.
        args.pair("-vf", format!("scale=w={width}:h={height},setsar=1,format={}{}", self.encoder.pixels(), self.encoder.upload()));
        self.encoder.args(&mut args);
        let at = |picture: &usize| {
            let us = i64::try_from(*picture).unwrap_or(0) * 1_000_000 / i64::from(TRIAL_RATE);
            VideoJob::forced_at(us.saturating_sub(slack_us(1_000_000 / i64::from(TRIAL_RATE))))
        };
        args.pair("-force_key_frames", TRIAL_KEYS.iter().map(at).collect::<Vec<_>>().join(","));
        args.pair("-frames:v", TRIAL_PICTURES.to_string());
        args.pair("-video_track_timescale", TRIAL_TIMESCALE.to_string());
        args.pipe()
    }

    /// Whether what came out is what was asked for.
    ///
    /// # Errors
    /// The first thing that is not.
    pub fn judge(&self, track: &PipeTrack, packets: &[Packet]) -> Result<(), Flaw> {
        let nal_length = suits(&self.encoder, self.size, &track.config)?;
        if packets.len() != TRIAL_PICTURES {
            return Err(Flaw::Pictures(packets.len()));
        }
        let shown = |packet: &Packet| rescale(packet.pts.saturating_sub(track.media_time), track.timescale, TRIAL_TIMESCALE);
        let mut times: Vec<i64> = packets.iter().map(shown).collect();
        let ahead = |at: usize| times.iter().take(at).filter(|before| **before > times.get(at).copied().unwrap_or(i64::MAX)).count();
        if (0..times.len()).any(|at| ahead(at) > self.encoder.reorder() as usize) {
            return Err(Flaw::Order);
        }
        let is_key = |packet: &Packet| h264::is_idr(&packet.data, nal_length);
        let keys = packets.iter().filter(|packet| is_key(packet)).map(shown).map(|time| time / TRIAL_FRAME);
        let wanted = TRIAL_KEYS.iter().map(|picture| i64::try_from(*picture).unwrap_or(0));
        if !keys.eq(wanted) || packets.iter().any(|packet| packet.key != is_key(packet)) {
            return Err(Flaw::KeyFrames);
        }
        times.sort_unstable();
        if times.iter().zip(0..).any(|(time, number)| *time != number * TRIAL_FRAME) {
            return Err(Flaw::Times);
        }
        let (bits, _) = of_size(self.size);
        let seconds = TRIAL_PICTURES as f64 / f64::from(TRIAL_RATE);
        let made = packets.iter().map(|packet| packet.data.len() as f64 * 8.0).sum::<f64>();
        // How well a rate is kept shows over minutes; one that is not kept at all shows at once, with a picture of noise.
        if made > 2.0 * (bits.maxrate as f64 * seconds + bits.bufsize as f64) { Err(Flaw::Rate) } else { Ok(()) }
    }
}

fn of_size(size: Size) -> (ladder::Rate, u8) {
    let rate = f64::from(TRIAL_RATE);
    (ladder::rung_bitrate(size, rate), h264::level_for(size.width, size.height, rate))
}

/// Whether a run's configuration is what this encoder was asked for, so that what playlists say of it is true. Answers how many bytes the
/// lengths in front of NAL units have.
///
/// # Errors
/// What is not.
pub fn suits(encoder: &Encoder, size: Size, config: &[u8]) -> Result<u8, Flaw> {
    let told = h264::describe(config).ok_or(Flaw::NoParameters)?;
    let picture = &told.picture;
    let eight_bits = picture.bit_depth == Some(8) && told.chroma == Chroma::Quarter;
    let as_asked = told.profile == 100 && told.level <= encoder.level() && eight_bits && !picture.interlaced;
    if !as_asked || (picture.width, picture.height) != (size.width, size.height) {
        let depth = picture.bit_depth.unwrap_or(0);
        return Err(Flaw::AnotherStream(format!("{} of {}×{} in {depth} bits", told.codecs, picture.width, picture.height)));
    }
    Ok(told.nal_length)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::container::{Codec, Kind};
    use crate::ffmpeg::Input;

    const HD: Size = Size { width: 1280, height: 720 };

    fn node() -> String {
        "/dev/dri/renderD128".to_owned()
    }

    fn job(silicon: Silicon) -> VideoJob {
        let bits = ladder::Rate { maxrate: 4_000_000, bufsize: 4_000_000, peak: 6_400_000, average: 2_400_000 };
        let input =
            Input { url: "http://127.0.0.1:9/x".into(), stream: 0, zero_us: 0, origin_us: 0, lead_us: 0, indexed: true, spliced: false };
        VideoJob {
            input,
            boundaries_us: vec![0, 2_002_000],
            end_us: Some(3_500_000),
            frame_us: 41_708,
            size: HD,
            scale: true,
            interlaced: false,
            hdr: None,
            apart_us: None,
            burn: None,
            timescale: 24_000,
            encoder: Encoder::of_rung(&bits, 31, Some(silicon)),
            threads: 0,
        }
    }

    /// What an encoder is told between the clock and the key frames, and the key frames.
    fn told(silicon: Silicon) -> String {
        let args = job(silicon).args().join(" ");
        let from = args.find("-vf ").unwrap();
        args[from..args.find(" -to ").unwrap()].to_owned()
    }

    #[test]
    fn each_is_told_the_same_in_its_own_words() {
        let all = [
            Silicon::VideoToolbox,
            Silicon::Nvenc,
            Silicon::Qsv { device: node() },
            Silicon::Vaapi { device: node(), low_power: false },
            Silicon::Vaapi { device: "/dev/dri/renderD129".into(), low_power: true },
            Silicon::Amf,
        ];
        insta::assert_snapshot!(all.map(told).join("\n"), @r"
        -vf scale=w=1280:h=720,setsar=1,format=yuv420p -c:v h264_videotoolbox -allow_sw 0 -realtime 0 -b:v 2400000 -maxrate 4000000 -bufsize 4000000 -profile:v high -level:v 3.1 -g 600 -bf 0 -force_key_frames 0.000000,2.000500
        -vf scale=w=1280:h=720,setsar=1,format=yuv420p -c:v h264_nvenc -preset p4 -tune hq -rc vbr -cq 25 -b:v 0 -maxrate 4000000 -bufsize 4000000 -profile:v high -level:v 3.1 -g 600 -bf 0 -forced-idr 1 -no-scenecut 1 -rc-lookahead 0 -force_key_frames 0.000000,2.000500
        -vf scale=w=1280:h=720,setsar=1,format=nv12 -init_hw_device vaapi=va:/dev/dri/renderD128 -init_hw_device qsv=qs@va -c:v h264_qsv -preset veryfast -look_ahead 0 -b:v 2400000 -maxrate 4000000 -bufsize 4000000 -profile:v high -level:v 31 -g 600 -bf 0 -forced_idr 1 -idr_interval 0 -adaptive_i 0 -force_key_frames 0.000000,2.000500
        -vf scale=w=1280:h=720,setsar=1,format=nv12,hwupload -vaapi_device /dev/dri/renderD128 -c:v h264_vaapi -low_power 0 -rc_mode VBR -b:v 2400000 -maxrate 4000000 -bufsize 4000000 -profile:v high -level:v 3.1 -g 600 -bf 0 -idr_interval 0 -force_key_frames 0.000000,2.000500
        -vf scale=w=1280:h=720,setsar=1,format=nv12,hwupload -vaapi_device /dev/dri/renderD129 -c:v h264_vaapi -low_power 1 -rc_mode VBR -b:v 2400000 -maxrate 4000000 -bufsize 4000000 -profile:v high -level:v 3.1 -g 600 -bf 0 -idr_interval 0 -force_key_frames 0.000000,2.000500
        -vf scale=w=1280:h=720,setsar=1,format=nv12 -c:v h264_amf -usage transcoding -quality balanced -rc vbr_peak -b:v 2400000 -maxrate 4000000 -bufsize 4000000 -profile:v high -level:v 3.1 -g 600 -bf 0 -forced_idr 1 -force_key_frames 0.000000,2.000500
        ");
    }

    #[test]
    fn images_of_text_are_drawn_before_the_picture_goes_to_the_card() {
        let mut job = job(Silicon::Vaapi { device: node(), low_power: false });
        job.burn = Some(crate::ffmpeg::Burn::Images(crate::ffmpeg::Images { stream: 3, plane: None, square: false }));
        let args = job.args().join(" ");
        assert!(args.contains("setsar=1,format=yuv420p[picture]") && args.contains("setsar=1,format=nv12,hwupload[burnt]"), "{args}");
    }

    #[test]
    fn who_stands_in_keeps_the_bounds_and_has_another_number() {
        let own = job(Silicon::Nvenc).encoder;
        let stand_in = own.stand_in().unwrap();
        let args = VideoJob { encoder: stand_in.clone(), ..job(Silicon::Nvenc) }.args().join(" ");
        for word in [
            "-c:v libx264",
            "-maxrate 4000000",
            "-bufsize 4000000",
            "-level:v 3.1",
            "open-gop=0:sps-id=1",
            "-force_key_frames 0.000000,2.000500",
        ] {
            assert!(args.contains(word), "{word}: {args}");
        }
        assert_eq!((stand_in.reorder(), stand_in.stand_in()), (own.reorder(), None));
    }

    #[test]
    fn the_best_is_tried_first() {
        let devices = Devices { apple: false, nvidia: true, nodes: vec![node(), "/dev/dri/renderD129".into()] };
        let names = |devices: &Devices, wanted| {
            let all = devices.candidates(wanted).into_iter().map(|silicon| match silicon {
                Silicon::Qsv { device } => format!("qsv {}", &device[16..]),
                Silicon::Vaapi { device, low_power } => format!("vaapi {}{}", &device[16..], if low_power { " low" } else { "" }),
                other => other.family().name().to_owned(),
            });
            all.collect::<Vec<_>>().join(", ")
        };
        let none = Devices::default();
        let table = [
            (&devices, Wanted::Auto, "nvenc, qsv 128, qsv 129, vaapi 128, vaapi 128 low, vaapi 129, vaapi 129 low, amf"),
            (&devices, Wanted::X264, ""),
            (&devices, Wanted::Off, ""),
            (&devices, Wanted::One(Family::Amf), "amf"),
            (&none, Wanted::Auto, ""),
            (&none, Wanted::One(Family::Vaapi), "vaapi 128, vaapi 128 low"),
            (&Devices { apple: true, ..Devices::default() }, Wanted::Auto, "videotoolbox"),
        ];
        for (devices, wanted, expected) in table {
            assert_eq!(names(devices, wanted), expected, "{wanted:?}");
        }
        for word in Wanted::WORDS {
            assert_eq!(Wanted::named(word).unwrap().name(), word);
        }
        assert_eq!(Wanted::named("h264_nvenc"), None);
    }

    /// `avcC` of x264, High 3.1, 1280×720.
    fn config() -> Bytes {
        let hex = "0164001fffe1001a6764001facd9405005bb011000000300100000030320f183196001000468ef8fcbfdf8f800";
        data_encoding::HEXLOWER.decode(hex.as_bytes()).unwrap().into()
    }

    fn track() -> PipeTrack {
        PipeTrack {
            id: 1,
            timescale: 90_000,
            kind: Kind::Video,
            codec: Codec::H264,
            config: config(),
            width: 1280,
            height: 720,
            channels: 0,
            sample_rate: 0,
            media_time: 7_200,
        }
    }

    fn packets() -> Vec<Packet> {
        let packet = |number: usize| {
            let key = TRIAL_KEYS.contains(&number);
            let data = Bytes::from_static(if key { &[0, 0, 0, 1, 0x65] } else { &[0, 0, 0, 1, 0x41] });
            let time = number as i64 * TRIAL_FRAME;
            Packet { track: 1, pts: time + 7_200, dts: time, duration: 3_600, key, data }
        };
        (0..TRIAL_PICTURES).map(packet).collect()
    }

    #[test]
    fn only_what_was_asked_for_is_believed() {
        let trial = Trial::of(Silicon::Nvenc, HD);
        let judged = |change: &dyn Fn(&mut PipeTrack, &mut Vec<Packet>)| {
            let (mut track, mut packets) = (track(), packets());
            change(&mut track, &mut packets);
            trial.judge(&track, &packets)
        };
        let idr = Bytes::from_static(&[0, 0, 0, 1, 0x65]);
        assert_eq!(judged(&|_, _| {}), Ok(()));
        assert_eq!(judged(&|track, _| track.config = Bytes::new()), Err(Flaw::NoParameters));
        assert_eq!(judged(&|_, packets| drop(packets.pop())), Err(Flaw::Pictures(39)));
        assert_eq!(judged(&|_, packets| packets[8].pts += 1), Err(Flaw::Times));
        assert_eq!(judged(&|track, _| track.media_time = 0), Err(Flaw::KeyFrames), "all of it is late");
        assert_eq!(judged(&|_, packets| packets[5].data = idr.clone()), Err(Flaw::KeyFrames), "one too many");
        assert_eq!(judged(&|_, packets| packets[19].data = packets[18].data.clone()), Err(Flaw::KeyFrames), "a flag is not enough");
        assert_eq!(judged(&|_, packets| packets[19].key = false), Err(Flaw::KeyFrames), "nor is a picture");
        assert_eq!(judged(&|_, packets| packets.swap(20, 21)), Ok(()), "B pictures may be");
        assert_eq!(
            judged(&|_, packets| {
                let last = packets.remove(39);
                packets.insert(33, last);
            }),
            Ok(())
        );
        assert_eq!(judged(&|_, packets| packets[33..37].reverse()), Err(Flaw::Order));
        let heavy = Bytes::from([&[0, 30, 0x84, 0x80, 0x41][..], &vec![0; 2_000_000 - 1]].concat());
        assert_eq!(judged(&|_, packets| packets[30].data = heavy.clone()), Ok(()), "one picture of 16 Mbit");
        assert_eq!(
            judged(&|_, packets| {
                packets[30].data = heavy.clone();
                packets[31].data = heavy.clone();
            }),
            Err(Flaw::Rate)
        );
    }

    #[test]
    fn what_playlists_say_must_be_true() {
        let encoder = Trial::of(Silicon::Nvenc, HD).encoder;
        assert_eq!(suits(&encoder, HD, &config()), Ok(4));
        let other = |at: usize, value: u8| {
            let mut config = config().to_vec();
            config[at] = value;
            suits(&encoder, HD, &config)
        };
        // Profile and level stand in the parameter set at bytes 9 and 11 of this configuration.
        for (at, value) in [(9, 110), (11, 40)] {
            assert!(matches!(other(at, value), Err(Flaw::AnotherStream(_))), "{at}");
        }
        let larger = suits(&encoder, Size { width: 1920, height: 1080 }, &config());
        assert_eq!(larger, Err(Flaw::AnotherStream("avc1.64001F of 1280×720 in 8 bits".to_owned())));
    }
}
