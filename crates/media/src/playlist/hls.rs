//! HLS playlists as text (RFC 8216 and its successor draft, called 8216bis here): values go in, text comes out.
//!
//! What is offered, and how fast it may be, is decided elsewhere. Titles and languages come out of foreign files: here they are made
//! fit to stand in an attribute, so that no title can forge a tag.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt::{Display, Formatter, Write};

/// Fits fMP4 segments, and what players of today understand.
const HEAD: &str = "#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-INDEPENDENT-SEGMENTS\n";

/// Longest name in characters.
const LONGEST_NAME: usize = 120;

/// A master playlist (RFC 8216, 4.3.4).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Master {
    /// Pictures, the one to begin with first.
    pub variants: Vec<Variant>,
    /// Sound, of all groups.
    pub audio: Vec<Rendition>,
    /// Subtitles. All belong to every variant.
    pub text: Vec<Text>,
    /// Stills for the time line, where there are some.
    pub images: Option<Stills>,
}

/// Stills for the time line (`EXT-X-IMAGE-STREAM-INF`, Roku's extension; players that do not know it pass over it).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stills {
    /// Of its media playlist, relative to the master.
    pub uri: String,
    /// Upper bound of bits per second.
    pub bandwidth: u64,
    /// Pixels of one still, across and down.
    pub resolution: (u32, u32),
}

/// Subtitles to choose (`EXT-X-MEDIA` of type `SUBTITLES`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Text {
    /// For people. May be empty or appear twice: what is written is neither.
    pub name: String,
    /// ISO 639-2 or BCP 47, as in the file; empty and `und` are "not told".
    pub language: String,
    /// What everybody has to read who hears the film in its language.
    pub forced: bool,
    /// Of its media playlist, relative to the master.
    pub uri: String,
}

/// The one group of subtitles.
const TEXTS: &str = "text";

/// One way to see the film (`EXT-X-STREAM-INF`).
#[derive(Debug, Clone, PartialEq)]
pub struct Variant {
    /// Of its media playlist, relative to the master.
    pub uri: String,
    /// Upper bound of bits per second, with sound.
    pub bandwidth: u64,
    /// Mean of bits per second, with sound, where it is known.
    pub average_bandwidth: Option<u64>,
    /// RFC 6381, of picture and sound. Not written where one of them is not known: an incomplete list is worse than none.
    pub codecs: Vec<String>,
    /// Pixels across and down.
    pub resolution: Option<(u32, u32)>,
    /// Pictures per second.
    pub frame_rate: Option<f64>,
    /// How bright it is (8216bis), where it is told.
    pub video_range: Option<VideoRange>,
    /// [`Rendition::group`] of the sound that belongs to it.
    pub audio_group: Option<String>,
}

/// `VIDEO-RANGE` (8216bis): the transfer characteristics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VideoRange {
    /// Anything that is not one of the others.
    Sdr,
    /// Hybrid log-gamma (H.273 transfer 18).
    Hlg,
    /// Perceptual quantizer (H.273 transfer 16).
    Pq,
}

/// One choice within a group (`EXT-X-MEDIA`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rendition {
    /// Of renditions that can stand for one another: same codec.
    pub group: String,
    /// For people. May be empty or appear twice: what is written is neither.
    pub name: String,
    /// ISO 639-2 or BCP 47, as in the file; empty and `und` are "not told".
    pub language: String,
    /// Played unless somebody chooses another. At most one of a group is written as such, the first.
    pub default: bool,
    /// Number of channels, 0 where it is not known.
    pub channels: u16,
    /// Of its media playlist, relative to the master.
    pub uri: String,
}

/// What all segments of a media playlist share (RFC 8216, 4.3.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Media {
    /// Seconds; the same in all playlists of a master: the largest [`target_duration`] of them.
    pub target_duration: u64,
    /// Of the init segment, relative to the playlist; empty where the segments need none (WebVTT).
    pub map_uri: String,
    /// Ticks per second of the segments' durations, at least 1.
    pub timescale: u32,
    /// Whether it can change.
    pub growth: Growth,
}

/// Whether a media playlist can change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Growth {
    /// It is complete and always was (`VOD`).
    Complete,
    /// Segments will be added at the end (`EVENT`).
    Growing,
    /// Segments were added, and no more will be (`EVENT` with an end: a playlist's type may not change).
    Grown,
}

/// The text of a master playlist.
pub fn master(playlist: &Master) -> String {
    let mut out = String::from(HEAD);
    renditions(&mut out, "AUDIO", &playlist.audio);
    texts(&mut out, &playlist.text);
    for variant in &playlist.variants {
        stream(&mut out, variant, !playlist.text.is_empty());
    }
    if let Some(Stills { uri, bandwidth, resolution: (width, height) }) = &playlist.images {
        put(
            &mut out,
            format_args!(
                "#EXT-X-IMAGE-STREAM-INF:BANDWIDTH={},RESOLUTION={width}x{height},CODECS=\"jpeg\",URI=\"{}\"\n",
                bandwidth.max(&1),
                Uri(uri)
            ),
        );
    }
    out
}

/// The text of a media playlist. Each segment is its URI (relative to the playlist) and its duration in ticks.
///
/// Durations are written in microseconds so that any sum of them is the exact time of a boundary to half a microsecond: each boundary is
/// rounded, never each duration.
pub fn media<U: AsRef<str>>(playlist: &Media, segments: impl IntoIterator<Item = (U, u64)>) -> String {
    let segments = segments.into_iter();
    let mut out = String::with_capacity(256 + segments.size_hint().0.min(100_000) * 40);
    out.push_str(HEAD);
    let kind = if playlist.growth == Growth::Complete { "VOD" } else { "EVENT" };
    put(&mut out, format_args!("#EXT-X-TARGETDURATION:{}\n#EXT-X-MEDIA-SEQUENCE:0\n", playlist.target_duration.max(1)));
    put(&mut out, format_args!("#EXT-X-PLAYLIST-TYPE:{kind}\n"));
    if !playlist.map_uri.is_empty() {
        put(&mut out, format_args!("#EXT-X-MAP:URI=\"{}\"\n", Uri(&playlist.map_uri)));
    }
    let (mut ticks, mut before) = (0_u64, 0_u128);
    for (uri, duration) in segments {
        ticks = ticks.saturating_add(duration);
        let boundary = microseconds(ticks, playlist.timescale);
        let lasts = boundary - before;
        before = boundary;
        put(&mut out, format_args!("#EXTINF:{}.{:06},\n{}\n", lasts / MICROSECONDS, lasts % MICROSECONDS, Uri(uri.as_ref())));
    }
    if playlist.growth != Growth::Growing {
        out.push_str("#EXT-X-ENDLIST\n");
    }
    out
}

/// `EXT-X-TARGETDURATION` in whole seconds for segments of these durations in ticks: none is longer. At least 1.
pub fn target_duration(durations: impl IntoIterator<Item = u64>, timescale: u32) -> u64 {
    durations.into_iter().max().unwrap_or(0).div_ceil(u64::from(timescale.max(1))).max(1)
}

const MICROSECONDS: u128 = 1_000_000;

/// Ticks in microseconds, rounded to the nearest.
fn microseconds(ticks: u64, timescale: u32) -> u128 {
    let scale = u128::from(timescale.max(1));
    (u128::from(ticks) * MICROSECONDS + scale / 2) / scale
}

/// `EXT-X-MEDIA` of all renditions of a type.
fn renditions(out: &mut String, kind: &str, renditions: &[Rendition]) {
    let mut taken = HashSet::new();
    let mut groups_with_default = HashSet::new();
    for rendition in renditions {
        let group = quotable(&rendition.group);
        let language = language(&rendition.language);
        let name = unique_name(&mut taken, &group, &rendition.name, language.as_deref());
        put(out, format_args!("#EXT-X-MEDIA:TYPE={kind},GROUP-ID=\"{group}\",NAME=\"{name}\""));
        if let Some(language) = language {
            put(out, format_args!(",LANGUAGE=\"{language}\""));
        }
        let default = rendition.default && groups_with_default.insert(group.clone());
        put(out, format_args!(",DEFAULT={},AUTOSELECT=YES", if default { "YES" } else { "NO" }));
        if rendition.channels > 0 {
            put(out, format_args!(",CHANNELS=\"{}\"", rendition.channels));
        }
        put(out, format_args!(",URI=\"{}\"\n", Uri(&rendition.uri)));
    }
}

/// `EXT-X-MEDIA` of all subtitles (4.3.4.1). None is the default: players would show what nobody asked for.
fn texts(out: &mut String, texts: &[Text]) {
    let mut taken = HashSet::new();
    for text in texts {
        let language = language(&text.language);
        let name = unique_name(&mut taken, TEXTS, &text.name, language.as_deref());
        put(out, format_args!("#EXT-X-MEDIA:TYPE=SUBTITLES,GROUP-ID=\"{TEXTS}\",NAME=\"{name}\""));
        if let Some(language) = language {
            put(out, format_args!(",LANGUAGE=\"{language}\""));
        }
        let forced = if text.forced { "YES" } else { "NO" };
        put(out, format_args!(",DEFAULT=NO,AUTOSELECT=YES,FORCED={forced},URI=\"{}\"\n", Uri(&text.uri)));
    }
}

/// A name that no other rendition of the group has (4.3.4.1.1 demands that), with a number behind it where it must.
fn unique_name(taken: &mut HashSet<(String, String)>, group: &str, name: &str, language: Option<&str>) -> String {
    let told = quotable(name);
    let base = if told.is_empty() { language.unwrap_or("Track") } else { &told };
    let mut name = base.to_owned();
    let mut number = 1;
    while !taken.insert((group.to_owned(), name.clone())) {
        number += 1;
        name = format!("{base} {number}");
    }
    name
}

/// `EXT-X-STREAM-INF` and its URI.
fn stream(out: &mut String, variant: &Variant, has_text: bool) {
    put(out, format_args!("#EXT-X-STREAM-INF:BANDWIDTH={}", variant.bandwidth.max(1)));
    if let Some(average) = variant.average_bandwidth {
        put(out, format_args!(",AVERAGE-BANDWIDTH={}", average.clamp(1, variant.bandwidth.max(1))));
    }
    let codecs: Vec<_> = variant.codecs.iter().map(|codec| quotable(codec)).collect();
    if !codecs.is_empty() && codecs.iter().all(|codec| !codec.is_empty()) {
        put(out, format_args!(",CODECS=\"{}\"", codecs.join(",")));
    }
    if let Some((width, height)) = variant.resolution {
        put(out, format_args!(",RESOLUTION={width}x{height}"));
    }
    if let Some(rate) = variant.frame_rate.filter(|rate| rate.is_finite() && *rate > 0.0) {
        put(out, format_args!(",FRAME-RATE={rate:.3}"));
    }
    if let Some(range) = variant.video_range {
        let range = match range {
            VideoRange::Sdr => "SDR",
            VideoRange::Hlg => "HLG",
            VideoRange::Pq => "PQ",
        };
        put(out, format_args!(",VIDEO-RANGE={range}"));
    }
    if let Some(group) = &variant.audio_group {
        put(out, format_args!(",AUDIO=\"{}\"", quotable(group)));
    }
    if has_text {
        put(out, format_args!(",SUBTITLES=\"{TEXTS}\""));
    }
    put(out, format_args!("\n{}\n", Uri(&variant.uri)));
}

fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    let _ = out.write_fmt(text); // writing to a String cannot fail
}

/// Text that can stand between quotation marks (4.2): no line ends, no quotation marks; nor other controls, nor what turns the
/// direction of text; white space is single; not endless.
fn quotable(text: &str) -> String {
    let turns = |letter: char| matches!(letter, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
    let plain: String = text
        .chars()
        .take(LONGEST_NAME * 8)
        .map(|letter| match letter {
            '"' => '\'',
            other if other.is_control() || turns(other) => ' ',
            other => other,
        })
        .collect();
    let words: Vec<_> = plain.split_whitespace().collect();
    words.join(" ").chars().take(LONGEST_NAME).collect::<String>().trim_end().to_owned()
}

/// A URI on a line or between quotation marks: what cannot stand there is percent-encoded (RFC 3986, 2.1).
struct Uri<'a>(&'a str);

impl Display for Uri<'_> {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> std::fmt::Result {
        for byte in self.0.bytes() {
            if byte.is_ascii_graphic() && !matches!(byte, b'"' | b'#' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}') {
                formatter.write_char(char::from(byte))?;
            } else {
                write!(formatter, "%{byte:02X}")?;
            }
        }
        Ok(())
    }
}

/// A language as BCP 47 wants it: the two letters of ISO 639-1 where there are some. `None` where it is not told or is no tag.
pub fn language(told: &str) -> Option<Cow<'_, str>> {
    let is_tag = (2..=35).contains(&told.len()) && told.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if !is_tag || matches!(told, "und" | "mis" | "zxx") {
        return None;
    }
    let short = TWO_LETTERS.iter().find(|(long, _)| *long == told).map(|(_, short)| Cow::Borrowed(*short));
    Some(short.unwrap_or(Cow::Borrowed(told)))
}

/// ISO 639-2 (bibliographic and terminological) to ISO 639-1, for the languages that films are often in.
const TWO_LETTERS: [(&str, &str); 75] = [
    ("afr", "af"),
    ("alb", "sq"),
    ("ara", "ar"),
    ("arm", "hy"),
    ("aze", "az"),
    ("baq", "eu"),
    ("bel", "be"),
    ("ben", "bn"),
    ("bos", "bs"),
    ("bul", "bg"),
    ("cat", "ca"),
    ("ces", "cs"),
    ("chi", "zh"),
    ("cze", "cs"),
    ("dan", "da"),
    ("deu", "de"),
    ("dut", "nl"),
    ("ell", "el"),
    ("eng", "en"),
    ("est", "et"),
    ("eus", "eu"),
    ("fas", "fa"),
    ("fin", "fi"),
    ("fra", "fr"),
    ("fre", "fr"),
    ("geo", "ka"),
    ("ger", "de"),
    ("gle", "ga"),
    ("glg", "gl"),
    ("gre", "el"),
    ("heb", "he"),
    ("hin", "hi"),
    ("hrv", "hr"),
    ("hun", "hu"),
    ("ice", "is"),
    ("ind", "id"),
    ("isl", "is"),
    ("ita", "it"),
    ("jpn", "ja"),
    ("kan", "kn"),
    ("kat", "ka"),
    ("kaz", "kk"),
    ("kor", "ko"),
    ("lat", "la"),
    ("lav", "lv"),
    ("lit", "lt"),
    ("mac", "mk"),
    ("mal", "ml"),
    ("mar", "mr"),
    ("may", "ms"),
    ("mkd", "mk"),
    ("msa", "ms"),
    ("nld", "nl"),
    ("nno", "nn"),
    ("nob", "nb"),
    ("nor", "no"),
    ("per", "fa"),
    ("pol", "pl"),
    ("por", "pt"),
    ("ron", "ro"),
    ("rum", "ro"),
    ("rus", "ru"),
    ("slk", "sk"),
    ("slo", "sk"),
    ("slv", "sl"),
    ("spa", "es"),
    ("srp", "sr"),
    ("swe", "sv"),
    ("tam", "ta"),
    ("tel", "te"),
    ("tha", "th"),
    ("tur", "tr"),
    ("ukr", "uk"),
    ("vie", "vi"),
    ("zho", "zh"),
];

#[cfg(test)]
mod tests {
    use m3u8_rs::{MasterPlaylist, MediaPlaylistType, parse_master_playlist_res, parse_media_playlist_res};
    use proptest::prelude::*;

    use super::*;

    fn sound(name: &str, language: &str, default: bool, uri: &str) -> Rendition {
        Rendition { group: "aac".into(), name: name.into(), language: language.into(), default, channels: 2, uri: uri.into() }
    }

    fn film() -> Master {
        let copy = Variant {
            uri: "v0/playlist.m3u8".into(),
            bandwidth: 8_000_000,
            average_bandwidth: Some(5_500_000),
            codecs: vec!["avc1.640028".into(), "mp4a.40.2".into()],
            resolution: Some((1920, 1080)),
            frame_rate: Some(24_000.0 / 1001.0),
            video_range: Some(VideoRange::Sdr),
            audio_group: Some("aac".into()),
        };
        let rung = Variant {
            uri: "v1/playlist.m3u8".into(),
            average_bandwidth: None,
            codecs: vec![],
            frame_rate: None,
            video_range: None,
            resolution: Some((1280, 720)),
            bandwidth: 2_500_000,
            ..copy.clone()
        };
        Master {
            images: None,
            text: Vec::new(),
            variants: vec![copy, rung],
            audio: vec![
                sound("", "eng", true, "a0/playlist.m3u8"),
                sound("", "en", true, "a1/playlist.m3u8"),
                sound("", "und", false, "a2.m3u8"),
            ],
        }
    }

    const VOD: fn(u32) -> Media = |timescale| Media { target_duration: 6, map_uri: "init.mp4".into(), timescale, growth: Growth::Complete };

    fn parsed(text: &str) -> MasterPlaylist {
        parse_master_playlist_res(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_master() {
        let text = master(&film());
        insta::assert_snapshot!(text, @r#"
        #EXTM3U
        #EXT-X-VERSION:7
        #EXT-X-INDEPENDENT-SEGMENTS
        #EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="aac",NAME="en",LANGUAGE="en",DEFAULT=YES,AUTOSELECT=YES,CHANNELS="2",URI="a0/playlist.m3u8"
        #EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="aac",NAME="en 2",LANGUAGE="en",DEFAULT=NO,AUTOSELECT=YES,CHANNELS="2",URI="a1/playlist.m3u8"
        #EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="aac",NAME="Track",DEFAULT=NO,AUTOSELECT=YES,CHANNELS="2",URI="a2.m3u8"
        #EXT-X-STREAM-INF:BANDWIDTH=8000000,AVERAGE-BANDWIDTH=5500000,CODECS="avc1.640028,mp4a.40.2",RESOLUTION=1920x1080,FRAME-RATE=23.976,VIDEO-RANGE=SDR,AUDIO="aac"
        v0/playlist.m3u8
        #EXT-X-STREAM-INF:BANDWIDTH=2500000,RESOLUTION=1280x720,AUDIO="aac"
        v1/playlist.m3u8
        "#);
        let read = parsed(&text);
        assert!(read.independent_segments && read.version == Some(7));
        assert_eq!(read.variants.len(), 2);
        assert_eq!(read.variants[0].codecs.as_deref(), Some("avc1.640028,mp4a.40.2"));
        assert_eq!(read.alternatives.iter().filter(|media| media.default).count(), 1);
    }

    #[test]
    fn stills_are_told_behind_the_pictures() {
        let stills = Stills { uri: "i1/index.m3u8".into(), bandwidth: 20_000, resolution: (320, 180) };
        let text = master(&Master { images: Some(stills), ..film() });
        let line = "#EXT-X-IMAGE-STREAM-INF:BANDWIDTH=20000,RESOLUTION=320x180,CODECS=\"jpeg\",URI=\"i1/index.m3u8\"\n";
        assert_eq!(text, master(&film()) + line);
        assert_eq!(parsed(&text).variants, parsed(&master(&film())).variants);
    }

    #[test]
    fn a_film_on_demand() {
        let text = media(&VOD(24_000), [("0.m4s", 100_100_u64), ("1.m4s", 100_100), ("2.m4s", 48_048)]);
        insta::assert_snapshot!(text, @r#"
        #EXTM3U
        #EXT-X-VERSION:7
        #EXT-X-INDEPENDENT-SEGMENTS
        #EXT-X-TARGETDURATION:6
        #EXT-X-MEDIA-SEQUENCE:0
        #EXT-X-PLAYLIST-TYPE:VOD
        #EXT-X-MAP:URI="init.mp4"
        #EXTINF:4.170833,
        0.m4s
        #EXTINF:4.170834,
        1.m4s
        #EXTINF:2.002000,
        2.m4s
        #EXT-X-ENDLIST
        "#);
        let read = parse_media_playlist_res(text.as_bytes()).unwrap();
        assert!(read.end_list && read.playlist_type == Some(MediaPlaylistType::Vod));
        assert_eq!(read.segments.iter().map(|segment| segment.uri.as_str()).collect::<Vec<_>>(), ["0.m4s", "1.m4s", "2.m4s"]);
        assert_eq!(read.segments[0].map.as_ref().unwrap().uri, "init.mp4");
    }

    #[test]
    fn a_film_that_grows() {
        let text = |growth| media(&Media { growth, ..VOD(1000) }, [("0.m4s", 2000_u64)]);
        let read = |growth| parse_media_playlist_res(text(growth).as_bytes()).unwrap();
        let (growing, grown) = (read(Growth::Growing), read(Growth::Grown));
        assert_eq!((growing.playlist_type.clone(), growing.end_list), (Some(MediaPlaylistType::Event), false));
        assert_eq!((grown.playlist_type.clone(), grown.end_list), (Some(MediaPlaylistType::Event), true));
        assert!(text(Growth::Growing).ends_with("0.m4s\n"));
    }

    #[test]
    fn target_durations() {
        assert_eq!(target_duration([90_000, 540_000], 90_000), 6);
        assert_eq!(target_duration([540_001], 90_000), 7);
        assert_eq!(target_duration([], 90_000), 1);
        assert_eq!(target_duration([u64::MAX], 0), u64::MAX);
    }

    #[test]
    fn languages() {
        assert_eq!(language("ger").as_deref(), Some("de"));
        assert_eq!(language("pt-BR").as_deref(), Some("pt-BR"));
        assert_eq!(language("haw").as_deref(), Some("haw"));
        assert_eq!([language("und"), language(""), language("e\"n"), language("d\n")], [None, None, None, None]);
        assert!(TWO_LETTERS.is_sorted());
    }

    #[test]
    fn uris_keep_to_their_line() {
        let text = media(&VOD(1), [("#EXT-X-ENDLIST\n../ü?t=a&b=c\"", 1_u64)]);
        assert!(text.contains("\n%23EXT-X-ENDLIST%0A../%C3%BC?t=a&b=c%22\n#EXT-X-ENDLIST\n"));
    }

    /// `EXTINF` in microseconds, as written.
    fn written(text: &str) -> Vec<u128> {
        let durations = text.lines().filter_map(|line| line.strip_prefix("#EXTINF:"));
        durations.map(|duration| duration.trim_end_matches(',').replace('.', "").parse().unwrap()).collect()
    }

    proptest! {
        #[test]
        fn sums_are_exact(durations in proptest::collection::vec(0_u64..400_000, 1..400), timescale in 1_u32..200_000) {
            let text = media(&VOD(timescale), durations.iter().map(|duration| ("s", *duration)));
            let (mut ticks, mut sum) = (0_u64, 0_u128);
            for (duration, micros) in durations.iter().zip(written(&text)) {
                ticks += duration;
                sum += micros;
                let error = (sum * u128::from(timescale)).abs_diff(u128::from(ticks) * MICROSECONDS);
                prop_assert!(error * 2 <= u128::from(timescale), "off by more than half a microsecond");
            }
        }

        #[test]
        fn hostile_titles(titles in proptest::collection::vec("(?s).{0,40}|[\"\r\n#,= ]{0,9}|a", 1..9), group in "g(?s).{0,9}", uri in "(?s).{1,20}") {
            let mut film = film();
            film.audio = titles.iter().map(|title| Rendition { group: group.clone(), ..sound(title, title, true, &uri) }).collect();
            for variant in &mut film.variants {
                variant.audio_group = Some(group.clone());
                variant.codecs.push(group.clone());
            }
            let text = master(&film);
            prop_assert_eq!(text.lines().count(), 3 + titles.len() + 4);
            prop_assert_eq!(text.matches('\r').count(), 0);
            let read = parsed(&text);
            prop_assert_eq!(read.alternatives.len(), titles.len());
            let names: HashSet<_> = read.alternatives.iter().map(|media| media.name.as_str()).collect();
            prop_assert_eq!(names.len(), titles.len());
            prop_assert!(names.iter().all(|name| !name.is_empty()));
            for media in &read.alternatives {
                prop_assert_eq!(Some(&media.group_id), read.variants[0].audio.as_ref());
            }
        }

        #[test]
        fn any_durations(durations in proptest::collection::vec(any::<u64>(), 0..9), timescale: u32) {
            let text = media(&VOD(timescale), durations.iter().map(|duration| ("s", *duration)));
            prop_assert_eq!(written(&text).len(), durations.len());
        }
    }
}
