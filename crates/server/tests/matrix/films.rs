//! The films of the matrix: how each is made, and what may be asked of it. All flash and beep at the first second and every five after it.

use std::path::{Path, PathBuf};

use super::recipes::{by_ffmpeg, by_mkvmerge, make};

/// How long the films are, in seconds.
pub(crate) const LENGTH: f64 = 24.0;

/// A row of the matrix.
pub(crate) struct Film {
    pub(crate) name: &'static str,
    /// Played in every run of the tests, not only in a whole one.
    pub(crate) core: bool,
    pub(crate) make: fn(&str) -> PathBuf,
    pub(crate) traits: Traits,
}

/// What differs from a plain film.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Traits {
    /// Seconds between which the file holds rubbish: nothing is asked of what lies there.
    pub(crate) broken: Option<(f64, f64)>,
    /// Colours are changed by intent: pictures are not compared.
    pub(crate) colours: bool,
    /// Pictures may be left out or doubled (fields, telecine): only flashes and lengths are compared.
    pub(crate) fields: bool,
    /// Turned clockwise when shown: width and height as shown.
    pub(crate) shown: Option<(u32, u32)>,
    /// Where time zero is, in seconds of the file's own, if neither 0 nor what ffprobe tells.
    pub(crate) zero: Option<f64>,
    /// The source's own decode is not what a viewer should get: seconds of flashes that are expected.
    pub(crate) flashes: Option<&'static [f64]>,
    /// The client plays nothing that the film holds: all of it is converted.
    pub(crate) converted: bool,
    /// Why nothing is tried here.
    pub(crate) skip: Option<&'static str>,
    /// Why it does not play as it should, where that is known. A film that plays after all must lose this reason.
    pub(crate) known: Option<&'static str>,
}

pub(crate) const PLAIN: Traits = Traits {
    broken: None,
    colours: false,
    fields: false,
    shown: None,
    zero: None,
    flashes: None,
    converted: false,
    skip: None,
    known: None,
};

/// A moving picture that is white for a moment.
fn picture(size: &str, rate: &str, seconds: f64) -> String {
    format!("-f lavfi -i testsrc2=s={size}:r={rate}:d={seconds},drawbox=c=white:t=fill:w=iw:h=ih:enable=lt(mod(t+4\\,5)\\,0.11)")
}

/// A low hum and a beep while the picture is white, on as many channels as the layout has.
fn beep(layout: &str, seconds: f64) -> String {
    let one = "0.4*sin(2*PI*1000*t)*lt(mod(t+4\\,5)\\,0.11)+0.03*sin(2*PI*220*t)";
    let channels = match layout {
        "mono" => 1,
        "stereo" => 2,
        "5.1" => 6,
        "7.1" => 8,
        other => panic!("{other}"),
    };
    format!("-f lavfi -i aevalsrc={}:s=48000:c={layout}:d={seconds}", vec![one; channels].join("|"))
}

fn both() -> String {
    format!("{} {}", picture("320x180", "25", LENGTH), beep("stereo", LENGTH))
}

const H264: &str = "-c:v libx264 -preset veryfast -crf 28 -pix_fmt yuv420p -bf 3 -g 100 -sc_threshold 0";
const X265: &str = "-c:v libx265 -preset ultrafast -crf 30 -tag:v hvc1";
const AAC: &str = "-c:a aac -b:a 96k";

fn usual(name: &str, how: &str) -> PathBuf {
    by_ffmpeg(name, &format!("{} {H264} {AAC} {how}", both()))
}

/// Another picture with the usual codecs.
fn pictured(name: &str, size: &str, rate: &str, how: &str) -> PathBuf {
    by_ffmpeg(name, &format!("{} {} {H264} {AAC} {how}", picture(size, rate, LENGTH), beep("stereo", LENGTH)))
}

fn coded(name: &str, how: &str) -> PathBuf {
    by_ffmpeg(name, &format!("{} {how}", both()))
}

/// A film made from the bytes of another one.
fn changed(name: &str, from: &Path, recipe: &str, change: impl FnOnce(Vec<u8>) -> Vec<u8>) -> PathBuf {
    make(name, &format!("{recipe} {}", from.display()), |out| {
        std::fs::write(out, change(std::fs::read(from).expect("the film"))).expect("written");
    })
}

/// 64 KiB of rubbish (or a tenth of a smaller film) in the middle.
fn broken(mut film: Vec<u8>) -> Vec<u8> {
    let len = film.len();
    let rubbish = (64 << 10).min(len / 10);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for byte in &mut film[len / 2..len / 2 + rubbish] {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *byte = state as u8;
    }
    film
}

fn without_idx1(mut film: Vec<u8>) -> Vec<u8> {
    let at = film.windows(4).rposition(|four| four == b"idx1").expect("an index");
    film.truncate(at);
    film
}

fn first(part: f64) -> impl FnOnce(Vec<u8>) -> Vec<u8> {
    move |mut film| {
        film.truncate((film.len() as f64 * part) as usize);
        film
    }
}

const fn film(name: &'static str, core: bool, make: fn(&str) -> PathBuf) -> Film {
    Film { name, core, make, traits: PLAIN }
}

const fn with(name: &'static str, core: bool, make: fn(&str) -> PathBuf, traits: Traits) -> Film {
    Film { name, core, make, traits }
}

const TURNED: Traits = Traits { shown: Some((180, 320)), ..PLAIN };
const UPSIDE_DOWN: Traits = Traits { shown: Some((320, 180)), ..PLAIN };
const FIELDS: Traits = Traits { fields: true, ..PLAIN };
const COLOURS: Traits = Traits { colours: true, ..PLAIN };
const CUT_OFF: Traits = Traits { broken: Some((11.5, 99.0)), ..PLAIN };
const BROKEN: Traits = Traits { broken: Some((9.0, 16.0)), ..PLAIN };

const fn known(name: &'static str, make: fn(&str) -> PathBuf, why: &'static str) -> Film {
    Film { name, core: false, make, traits: Traits { known: Some(why), ..PLAIN } }
}

const fn skipped(name: &'static str, why: &'static str) -> Film {
    Film { name, core: false, make: |_| PathBuf::new(), traits: Traits { skip: Some(why), ..PLAIN } }
}

/// Everything that films are stored in.
pub(crate) fn containers() -> Vec<Film> {
    vec![
        film("faststart.mp4", true, |name| usual(name, "-movflags +faststart")),
        film("moov-behind.mp4", false, |name| usual(name, "")),
        film("sidx.mp4", false, |name| usual(name, "-movflags +dash+global_sidx+frag_keyframe+empty_moov+default_base_moof")),
        film("fragments.mp4", true, |name| usual(name, "-movflags +frag_keyframe+empty_moov+default_base_moof+skip_trailer")),
        film("pcm.mov", false, |name| coded(name, &format!("{H264} -c:a pcm_s16le"))),
        film("cues.mkv", false, |name| usual(name, "")),
        film("mkvmerge.mkv", false, |name| by_mkvmerge(name, "", &usual("faststart.mp4", "-movflags +faststart"))),
        film("no-cues.mkv", true, |name| usual(name, "-seekable 0")),
        film("live.webm", false, |name| {
            coded(name, "-c:v libvpx -deadline realtime -cpu-used 8 -b:v 300k -g 60 -c:a libvorbis -seekable 0")
        }),
        film("vp9-opus.webm", true, |name| {
            coded(name, "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -b:v 300k -g 60 -c:a libopus -b:a 64k")
        }),
        film("vp8-vorbis.webm", false, |name| coded(name, "-c:v libvpx -deadline realtime -cpu-used 8 -b:v 300k -g 60 -c:a libvorbis")),
        film("av1-opus.mkv", false, |name| coded(name, "-c:v libsvtav1 -preset 12 -crf 40 -g 60 -c:a libopus -b:a 64k")),
        film("av1-opus.mp4", false, |name| coded(name, "-c:v libsvtav1 -preset 12 -crf 40 -g 60 -c:a libopus -b:a 64k")),
        film("xvid-mp3.avi", true, |name| coded(name, "-c:v libxvid -q:v 6 -g 100 -c:a libmp3lame")),
        film("h264-ac3.avi", false, |name| coded(name, &format!("{H264} -c:a ac3"))),
        known(
            "no-idx1.avi",
            |name| changed(name, &coded("xvid-mp3.avi", "-c:v libxvid -q:v 6 -g 100 -c:a libmp3lame"), "without idx1", without_idx1),
            "its length is estimated from its rate, and a third of a second is missing at the end",
        ),
        film("mpeg2-mp2.ts", true, |name| coded(name, "-c:v mpeg2video -q:v 6 -g 15 -bf 2 -c:a mp2 -output_ts_offset 4242")),
        film("h264-aac.ts", true, |name| usual(name, "")),
        film("h264-ac3.m2ts", false, |name| coded(name, &format!("{H264} -c:a ac3 -mpegts_m2ts_mode 1"))),
        film("mpeg2-ac3.mpg", true, |name| coded(name, "-c:v mpeg2video -q:v 6 -g 15 -bf 2 -c:a ac3 -f vob")),
        film("mpeg1-mp2.mpg", false, |name| coded(name, "-c:v mpeg1video -q:v 6 -g 15 -bf 2 -c:a mp2 -f mpeg")),
        film("h264-aac.flv", true, |name| usual(name, "")),
        film("flv1-mp3.flv", false, |name| coded(name, "-c:v flv -q:v 6 -g 100 -c:a libmp3lame -ar 44100")),
        film("wmv2-wmav2.wmv", true, |name| coded(name, "-c:v wmv2 -q:v 6 -g 100 -c:a wmav2")),
        film("theora-vorbis.ogv", false, |name| coded(name, "-c:v libtheora -q:v 6 -g 64 -c:a libvorbis")),
        film("h263-amr.3gp", false, |name| coded(name, "-s 352x288 -c:v h263 -q:v 6 -c:a aac")),
        film("mjpeg-pcm.avi", false, |name| coded(name, "-c:v mjpeg -q:v 6 -pix_fmt yuvj420p -c:a pcm_s16le")),
        film("mpeg4.mp4", false, |name| coded(name, "-c:v mpeg4 -q:v 6 -g 100 -bf 2 -c:a aac")),
        skipped("vc1.wmv", "ffmpeg has no encoder for VC-1"),
        skipped("film.ogm", "neither ffmpeg nor mkvmerge writes OGM"),
    ]
}

/// Everything that pictures are like.
pub(crate) fn pictures() -> Vec<Film> {
    const PQ: &str = "-pix_fmt yuv420p10le -color_primaries bt2020 -color_trc smpte2084 -colorspace bt2020nc";
    const HLG: &str = "-pix_fmt yuv420p10le -color_primaries bt2020 -color_trc arib-std-b67 -colorspace bt2020nc";
    vec![
        with("hdr10.mkv", true, |name| coded(name, &format!("{X265} {PQ} -x265-params log-level=none {AAC}")), COLOURS),
        with("hlg.mp4", false, |name| coded(name, &format!("{X265} {HLG} -x265-params log-level=none {AAC}")), COLOURS),
        with(
            "hlg.ts",
            false,
            |name| coded(name, &format!("-c:v libx265 -preset ultrafast -crf 30 {HLG} -x265-params log-level=none {AAC}")),
            COLOURS,
        ),
        film("ten-bit.mkv", true, |name| usual(name, "-pix_fmt yuv420p10le")),
        film("422.mp4", false, |name| usual(name, "-pix_fmt yuv422p")),
        film("444.mkv", false, |name| usual(name, "-pix_fmt yuv444p")),
        film("prores.mov", false, |name| coded(name, "-c:v prores_ks -profile:v 0 -c:a pcm_s24le")),
        with("tff.mkv", true, |name| pictured(name, "320x180", "50", "-vf interlace=scan=tff -flags +ildct+ilme"), FIELDS),
        with("bff.ts", false, |name| pictured(name, "320x180", "50", "-vf interlace=scan=bff -flags +ildct+ilme -x264opts bff=1"), FIELDS),
        with(
            "tff.mpg",
            false,
            |name| {
                let picture = picture("320x180", "50", LENGTH);
                by_ffmpeg(
                    name,
                    &format!(
                        "{picture} {} -vf interlace=scan=tff -c:v mpeg2video -flags +ildct+ilme -q:v 6 -c:a mp2 -f vob",
                        beep("stereo", LENGTH)
                    ),
                )
            },
            FIELDS,
        ),
        with(
            "telecine.mpg",
            false,
            |name| {
                let picture = picture("320x180", "24000/1001", LENGTH);
                by_ffmpeg(
                    name,
                    &format!(
                        "{picture} {} -vf telecine=pattern=23 -c:v mpeg2video -flags +ildct+ilme -q:v 6 -c:a mp2 -f vob",
                        beep("stereo", LENGTH)
                    ),
                )
            },
            FIELDS,
        ),
        with("rotated-90.mp4", true, |name| turned(name, 90), TURNED),
        with("rotated-180.mp4", false, |name| turned(name, 180), UPSIDE_DOWN),
        with("rotated-270.mp4", false, |name| turned(name, 270), TURNED),
        film("odd-sized.mkv", true, |name| pictured(name, "853x479", "25", "-pix_fmt yuv444p")),
        film("wide-pixels.mpg", false, |name| coded(name, "-c:v mpeg2video -q:v 6 -aspect 16:9 -s 352x288 -c:a mp2 -f vob")),
        film("wide-pixels.mkv", false, |name| usual(name, "-s 352x288 -aspect 16:9")),
        film("vfr.mkv", true, |name| usual(name, "-vf select=not(eq(mod(n\\,7)\\,3)+between(n\\,160\\,190)) -fps_mode vfr")),
        film("vfr.mp4", false, |name| usual(name, "-vf select=not(eq(mod(n\\,7)\\,3)+between(n\\,160\\,190)) -fps_mode vfr")),
        film("23.976.mkv", true, |name| pictured(name, "320x180", "24000/1001", "")),
        film("29.97.ts", false, |name| pictured(name, "320x180", "30000/1001", "")),
        film("50.mp4", false, |name| pictured(name, "320x180", "50", "")),
        film("59.94.mkv", false, |name| pictured(name, "320x180", "60000/1001", "")),
        film("60.ts", false, |name| pictured(name, "320x180", "60", "")),
        film("gop-20s.mkv", false, |name| usual(name, "-g 500 -keyint_min 500")),
        film("one-gop.mp4", false, |name| usual(name, "-g 9999 -keyint_min 9999")),
        film("irregular.mp4", false, |name| usual(name, "-g 9999 -force_key_frames 0,0.4,1.3,6.9,7.2,14.8,15,19")),
        film("open-gop.mp4", false, |name| usual(name, "-x264-params open-gop=1:keyint=60:min-keyint=60")),
        film("open-gop.ts", true, |name| usual(name, "-x264-params open-gop=1:keyint=60:min-keyint=60")),
        film("hevc-open-gop.mkv", false, |name| {
            coded(name, &format!("{X265} -pix_fmt yuv420p -x265-params log-level=none:open-gop=1:keyint=60:min-keyint=60:bframes=3 {AAC}"))
        }),
        film("begins-with-b.ts", false, |name| {
            let whole = usual("open-gop.ts", "-x264-params open-gop=1:keyint=60:min-keyint=60");
            let cut = |film: Vec<u8>| film[film.len() / 10 / 188 * 188..].to_vec();
            changed(name, &whole, "from a tenth on", cut)
        }),
        film("negative.mp4", false, |name| usual(name, "-output_ts_offset -0.7 -avoid_negative_ts disabled")),
        with(
            "negative.mkv",
            false,
            |name| usual(name, "-output_ts_offset -0.7 -avoid_negative_ts disabled"),
            Traits {
                zero: Some(-0.7),
                known: Some("18 of its pictures, from 0.7 s on, stand elsewhere than ffmpeg says; why is not known"),
                ..PLAIN
            },
        ),
        with(
            "negative-converted.mkv",
            false,
            |name| usual(name, "-output_ts_offset -0.7 -avoid_negative_ts disabled"),
            Traits {
                zero: Some(-0.7),
                converted: true,
                known: Some("converted, its first four seconds of sound are missing, and 18 pictures stand elsewhere; why is not known"),
                ..PLAIN
            },
        ),
        film("late.mkv", false, |name| usual(name, "-output_ts_offset 1000")),
        film("late.mp4", true, |name| usual(name, "-output_ts_offset 3.3")),
        film("late-sound.mp4", false, |name| {
            let late = format!("{} -itsoffset 2.3 {} {H264} {AAC}", picture("320x180", "25", LENGTH), beep("stereo", LENGTH - 2.3));
            by_ffmpeg(name, &late)
        }),
        film("trimmed.mp4", false, |name| {
            let whole = usual("faststart.mp4", "-movflags +faststart");
            by_ffmpeg(name, &format!("-ss 5.7 -i {} -c copy", whole.display()))
        }),
        film("two-pictures.mkv", false, |name| {
            let other = "-f lavfi -i color=c=blue:s=160x90:r=25:d=24";
            by_ffmpeg(name, &format!("{} {other} -map 0 -map 1 -map 2 {H264} {AAC}", both()))
        }),
    ]
}

fn turned(name: &str, degrees: u16) -> PathBuf {
    let upright = usual("faststart.mp4", "-movflags +faststart");
    by_ffmpeg(name, &format!("-i {} -c copy -metadata:s:v rotate={degrees}", upright.display()))
}

/// Files that somebody or something damaged.
pub(crate) fn damaged() -> Vec<Film> {
    const FINE: &str = "-crf 8";
    vec![
        with("broken.mkv", true, |name| changed(name, &usual("fine.mkv", FINE), "broken", broken), BROKEN),
        with("broken.mp4", true, |name| changed(name, &usual("fine.mp4", "-crf 8 -movflags +faststart"), "broken", broken), BROKEN),
        with("broken.ts", true, |name| changed(name, &usual("fine.ts", FINE), "broken", broken), BROKEN),
        with(
            "broken.avi",
            false,
            |name| changed(name, &coded("fine.avi", "-c:v libxvid -q:v 2 -g 100 -c:a libmp3lame"), "broken", broken),
            BROKEN,
        ),
        with(
            "broken-fragments.mp4",
            false,
            |name| {
                let whole = usual("fine-fragments.mp4", "-crf 8 -movflags +frag_keyframe+empty_moov+default_base_moof+skip_trailer");
                changed(name, &whole, "broken", broken)
            },
            BROKEN,
        ),
        with("broken.flv", false, |name| changed(name, &usual("fine.flv", FINE), "broken", broken), BROKEN),
        with("broken.wmv", false, |name| changed(name, &coded("fine.wmv", "-c:v wmv2 -q:v 2 -g 100 -c:a wmav2"), "broken", broken), BROKEN),
        with("half.mkv", true, |name| changed(name, &usual("cues.mkv", ""), "half", first(0.5)), CUT_OFF),
        with("half.mp4", false, |name| changed(name, &usual("faststart.mp4", "-movflags +faststart"), "half", first(0.5)), CUT_OFF),
        with("half.ts", false, |name| changed(name, &usual("h264-aac.ts", ""), "half", first(0.5)), CUT_OFF),
        with(
            "half.avi",
            false,
            |name| changed(name, &coded("xvid-mp3.avi", "-c:v libxvid -q:v 6 -g 100 -c:a libmp3lame"), "half", first(0.5)),
            CUT_OFF,
        ),
        with("half.flv", false, |name| changed(name, &usual("h264-aac.flv", ""), "half", first(0.5)), CUT_OFF),
        with(
            "two-in-one.ts",
            false,
            |name| changed(name, &usual("h264-aac.ts", ""), "twice", |film| film.repeat(2)),
            Traits {
                known: Some("time begins anew within the file: the second half cannot be told from the first"),
                flashes: Some(&[1.0, 6.0, 11.0, 16.0, 21.0, 25.0, 30.0, 35.0, 40.0, 45.0]),
                ..PLAIN
            },
        ),
    ]
}

/// Everything that sound is like.
pub(crate) fn sounds() -> Vec<Film> {
    vec![
        film("silent.mp4", true, |name| by_ffmpeg(name, &format!("{} {H264}", picture("320x180", "25", LENGTH)))),
        film("silent.ts", false, |name| by_ffmpeg(name, &format!("{} {H264}", picture("320x180", "25", LENGTH)))),
        film("music.mp3", true, |name| by_ffmpeg(name, &format!("{} -c:a libmp3lame", beep("stereo", LENGTH)))),
        film("music.flac", false, |name| by_ffmpeg(name, &format!("{} -c:a flac", beep("stereo", LENGTH)))),
        film("music.m4a", true, |name| by_ffmpeg(name, &format!("{} {AAC}", beep("stereo", LENGTH)))),
        film("alac.m4a", false, |name| by_ffmpeg(name, &format!("{} -c:a alac", beep("stereo", LENGTH)))),
        film("music.ogg", false, |name| by_ffmpeg(name, &format!("{} -c:a libvorbis", beep("stereo", LENGTH)))),
        film("music.opus", false, |name| by_ffmpeg(name, &format!("{} -c:a libopus", beep("stereo", LENGTH)))),
        film("music.wav", false, |name| by_ffmpeg(name, &format!("{} -c:a pcm_s16le", beep("stereo", LENGTH)))),
        film("music.wma", false, |name| by_ffmpeg(name, &format!("{} -c:a wmav2", beep("stereo", LENGTH)))),
        film("music.mka", false, |name| by_ffmpeg(name, &format!("{} -c:a libopus", beep("stereo", LENGTH)))),
        known(
            "music.aac",
            |name| by_ffmpeg(name, &format!("{} {AAC}", beep("stereo", LENGTH))),
            "bare ADTS tells no length: it is estimated from the rate of its first frames",
        ),
        film("cover.mp3", true, |name| covered(name, "-c:a libmp3lame -c:v mjpeg -id3v2_version 3")),
        film("cover.m4a", false, |name| covered(name, &format!("{AAC} -c:v mjpeg"))),
        film("cover.flac", false, |name| covered(name, "-c:a flac -c:v mjpeg")),
        film("cover.mp4", false, |name| {
            let cover = "-f lavfi -i color=c=blue:s=160x90:d=0.04";
            by_ffmpeg(
                name,
                &format!("{} {cover} -map 2 -map 0 -map 1 {H264} -c:v:0 mjpeg -bf:v:0 0 -disposition:v:0 attached_pic {AAC}", both()),
            )
        }),
        film("cover.mkv", false, |name| {
            let cover = by_ffmpeg("cover.jpg", "-f lavfi -i color=c=blue:s=160x90:d=0.04 -frames:v 1");
            by_mkvmerge(name, &format!("--attachment-mime-type image/jpeg --attach-file {}", cover.display()), &usual("cues.mkv", ""))
        }),
        film("surround.mkv", true, |name| surround(name, "ac3")),
        film("tracks.mkv", true, |name| {
            tracks(name, &["aac", "dca", "truehd", "eac3", "ac3", "flac", "libopus", "libvorbis", "pcm_s16le", "mp2"])
        }),
        film("tracks.mp4", false, |name| tracks(name, &["ac3", "aac", "eac3", "alac", "flac", "libopus", "libmp3lame", "dca"])),
        film("tracks.mov", false, |name| tracks(name, &["pcm_s24le", "pcm_s16be", "alac"])),
        film("tracks.ts", false, |name| tracks(name, &["mp2", "aac", "ac3", "eac3", "dca", "libopus"])),
        film("mono-22k.mkv", false, |name| {
            by_ffmpeg(name, &format!("{} {} {H264} -c:a libmp3lame -ar 22050", picture("320x180", "25", LENGTH), beep("mono", LENGTH)))
        }),
        film("7.1.mkv", false, |name| {
            by_ffmpeg(name, &format!("{} {} {H264} -c:a pcm_s16le", picture("320x180", "25", LENGTH), beep("7.1", LENGTH)))
        }),
        film("gap.mkv", true, |name| {
            let gap = "-af aselect=not(between(t\\,7\\,9.5))";
            by_ffmpeg(name, &format!("{} {H264} {gap} -c:a ac3", both()))
        }),
    ]
}

fn covered(name: &str, how: &str) -> PathBuf {
    let cover = "-f lavfi -i color=c=blue:s=160x160:r=1:d=1";
    by_ffmpeg(name, &format!("{} {cover} -map 0 -map 1 -disposition:v:0 attached_pic {how}", beep("stereo", LENGTH)))
}

fn surround(name: &str, codec: &str) -> PathBuf {
    by_ffmpeg(name, &format!("{} {} {H264} -c:a {codec}", picture("320x180", "25", LENGTH), beep("5.1", LENGTH)))
}

fn tracks(name: &str, codecs: &[&str]) -> PathBuf {
    let maps: String = codecs.iter().map(|_| "-map 1 ").collect();
    let coded: String = codecs.iter().enumerate().map(|(at, codec)| format!("-c:a:{at} {codec} ")).collect();
    by_ffmpeg(name, &format!("{} -map 0 {maps} {H264} {coded} -strict -2", both()))
}

/// Long films, by how they are stored: to seek far in them. Twenty minutes each, of the same half minute over and over.
pub(crate) fn long() -> Vec<Film> {
    vec![
        film("long.ts", false, |name| looped(name, "")),
        film("long.mpg", false, |name| {
            let short = coded("mpeg2-ac3.mpg", "-c:v mpeg2video -q:v 6 -g 15 -bf 2 -c:a ac3 -f vob");
            by_ffmpeg(name, &format!("-stream_loop 49 -i {} -c copy -f vob", short.display()))
        }),
        film("long.flv", true, |name| looped(name, "")),
        film("long-fragments.mp4", true, |name| looped(name, "-movflags +frag_keyframe+empty_moov+default_base_moof+skip_trailer")),
        film("long-no-cues.mkv", true, |name| looped(name, "-seekable 0")),
        film("long.wmv", false, |name| {
            let short = coded("wmv2-wmav2.wmv", "-c:v wmv2 -q:v 6 -g 100 -c:a wmav2");
            by_ffmpeg(name, &format!("-stream_loop 49 -i {} -c copy", short.display()))
        }),
        film("long.avi", false, |name| {
            let short = coded("xvid-mp3.avi", "-c:v libxvid -q:v 6 -g 100 -c:a libmp3lame");
            by_ffmpeg(name, &format!("-stream_loop 49 -i {} -c copy", short.display()))
        }),
    ]
}

fn looped(name: &str, how: &str) -> PathBuf {
    let short = usual("fine.mp4", "-crf 8 -movflags +faststart");
    by_ffmpeg(name, &format!("-stream_loop 49 -i {} -c copy {how}", short.display()))
}
