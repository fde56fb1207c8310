//! The manifest of DASH as text (ISO/IEC 23009-1, called the MPD): values go in, XML comes out.
//!
//! One period over the whole film, each adaptation set with one time line (`SegmentTimeline`) and numbered segments. Times are those that
//! the segments have after their edit lists, so there is no offset to tell. Titles and languages come out of foreign files: here they are
//! made fit to stand in XML.

use std::fmt::Write;

use super::hls::language;
use super::images::Images;
use crate::cut::Cuts;

/// Longest title in characters.
const LONGEST_TITLE: usize = 120;

/// A manifest: a film as choices of picture, sound and text.
#[derive(Debug, Clone, PartialEq)]
pub struct Mpd {
    /// Everything that can be chosen.
    pub sets: Vec<Set>,
    /// Stills for the time line, where there are some, and the name of their folder.
    pub images: Option<(String, Images)>,
    /// Length of the film in seconds.
    pub duration: f64,
}

/// What a set holds (`contentType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the standard's own words
pub enum Content {
    Video,
    Audio,
    Text,
}

/// What it is for, in the scheme `urn:mpeg:dash:role:2011`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Shown or played unless somebody chooses another.
    Main,
    /// Can stand in for it.
    Alternate,
    /// Subtitles.
    Subtitle,
    /// Subtitles that are shown even where none are wanted.
    ForcedSubtitle,
}

impl Role {
    const fn name(self) -> &'static str {
        match self {
            Self::Main => "main",
            Self::Alternate => "alternate",
            Self::Subtitle => "subtitle",
            Self::ForcedSubtitle => "forced-subtitle",
        }
    }
}

/// Representations between which a player changes by itself (`AdaptationSet`): all have the same segments' boundaries.
#[derive(Debug, Clone, PartialEq)]
pub struct Set {
    /// What it holds.
    pub content: Content,
    /// What it is for.
    pub role: Role,
    /// ISO 639-2 or BCP 47, as in the file; empty and `und` are "not told".
    pub language: String,
    /// For people; may be empty.
    pub title: String,
    /// Boundaries of the segments.
    pub cuts: Cuts,
    /// Position of another set that shows the same pictures, to which a player may change as well.
    pub changes_to: Option<usize>,
    /// The choices, at least one.
    pub representations: Vec<Representation>,
}

/// One form of what a set holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Representation {
    /// Name of its folder, relative to the manifest: it holds `init.mp4` and the segments `0.m4s`, `1.m4s` …
    pub name: String,
    /// RFC 6381.
    pub codecs: String,
    /// Upper bound of bits per second.
    pub bandwidth: u64,
    /// Pixels across and down, of a picture.
    pub resolution: Option<(u32, u32)>,
    /// Pictures per second.
    pub frame_rate: Option<f64>,
    /// Channels, of sound; 0 where they are not known.
    pub channels: u16,
}

/// The text of a manifest.
pub fn mpd(mpd: &Mpd) -> String {
    let longest = mpd.sets.iter().map(|set| set.cuts.longest()).fold(1.0, f64::max);
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    put(
        &mut out,
        format_args!(
            "<MPD xmlns=\"urn:mpeg:dash:schema:mpd:2011\" \
             profiles=\"urn:mpeg:dash:profile:isoff-live:2011,urn:mpeg:dash:profile:cmaf:2019\" type=\"static\" \
             mediaPresentationDuration=\"{}\" maxSegmentDuration=\"{}\" minBufferTime=\"{}\">\n",
            seconds(mpd.duration),
            seconds(longest),
            seconds(longest.min(4.0)),
        ),
    );
    put(&mut out, format_args!(" <Period id=\"0\" start=\"PT0S\">\n"));
    for (at, set) in mpd.sets.iter().enumerate() {
        adaptation_set(&mut out, at, set);
    }
    if let Some((name, images)) = &mpd.images {
        image_set(&mut out, mpd.sets.len(), name, images);
    }
    out.push_str(" </Period>\n</MPD>\n");
    out
}

/// Sheets of stills (DASH-IF IOP 4.3, 6.2.6): a player that does not know the property has to pass over them.
fn image_set(out: &mut String, at: usize, name: &str, images: &Images) {
    let (width, height) = images.sheet_size();
    put(
        out,
        format_args!(
            "  <AdaptationSet id=\"{at}\" contentType=\"image\" mimeType=\"image/jpeg\">\n   \
             <SegmentTemplate timescale=\"1\" duration=\"{}\" media=\"$RepresentationID$/$Number$.jpg\" startNumber=\"0\"/>\n   \
             <Representation id=\"{}\" bandwidth=\"{}\" width=\"{width}\" height=\"{height}\">\n    \
             <EssentialProperty schemeIdUri=\"http://dashif.org/guidelines/thumbnail_tile\" value=\"{}x{}\"/>\n   \
             </Representation>\n  </AdaptationSet>\n",
            images.sheet_seconds(),
            text(name),
            images.bandwidth(),
            images.columns,
            images.rows,
        ),
    );
}

fn adaptation_set(out: &mut String, at: usize, set: &Set) {
    let (content, mime) = match set.content {
        Content::Video => ("video", "video/mp4"),
        Content::Audio => ("audio", "audio/mp4"),
        Content::Text => ("text", "application/mp4"),
    };
    put(out, format_args!("  <AdaptationSet id=\"{at}\" contentType=\"{content}\" mimeType=\"{mime}\""));
    if let Some(language) = language(&set.language) {
        put(out, format_args!(" lang=\"{language}\""));
    }
    // Each segment begins with a random access point (SAP type 1), and all representations have them at the same times.
    out.push_str(" segmentAlignment=\"true\" startWithSAP=\"1\"");
    if set.role == Role::Main {
        out.push_str(" selectionPriority=\"2\"");
    }
    out.push_str(">\n");
    if let Some(other) = set.changes_to {
        put(
            out,
            format_args!("   <SupplementalProperty schemeIdUri=\"urn:mpeg:dash:adaptation-set-switching:2016\" value=\"{other}\"/>\n"),
        );
    }
    put(out, format_args!("   <Role schemeIdUri=\"urn:mpeg:dash:role:2011\" value=\"{}\"/>\n", set.role.name()));
    let title = text(&set.title);
    if !title.is_empty() {
        put(out, format_args!("   <Label>{title}</Label>\n"));
    }
    template(out, &set.cuts);
    for one in &set.representations {
        representation(out, one);
    }
    out.push_str("  </AdaptationSet>\n");
}

fn template(out: &mut String, cuts: &Cuts) {
    put(
        out,
        format_args!(
            "   <SegmentTemplate timescale=\"{}\" initialization=\"$RepresentationID$/init.mp4\" \
             media=\"$RepresentationID$/$Number$.m4s\" startNumber=\"0\">\n    <SegmentTimeline>\n",
            cuts.timescale
        ),
    );
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for lasts in (0..cuts.count()).map(|n| cuts.shown(n)) {
        match runs.last_mut() {
            Some((before, count)) if *before == lasts => *count += 1,
            _ => runs.push((lasts, 1)),
        }
    }
    let first = u64::try_from(cuts.start(0)).unwrap_or(0);
    for (at, (lasts, count)) in runs.into_iter().enumerate() {
        out.push_str("     <S");
        if at == 0 {
            put(out, format_args!(" t=\"{first}\""));
        }
        put(out, format_args!(" d=\"{lasts}\""));
        if count > 1 {
            put(out, format_args!(" r=\"{}\"", count - 1));
        }
        out.push_str("/>\n");
    }
    out.push_str("    </SegmentTimeline>\n   </SegmentTemplate>\n");
}

fn representation(out: &mut String, one: &Representation) {
    put(out, format_args!("   <Representation id=\"{}\" bandwidth=\"{}\"", text(&one.name), one.bandwidth.max(1)));
    if !one.codecs.is_empty() {
        put(out, format_args!(" codecs=\"{}\"", text(&one.codecs)));
    }
    if let Some((width, height)) = one.resolution {
        put(out, format_args!(" width=\"{width}\" height=\"{height}\""));
    }
    if let Some(rate) = one.frame_rate.and_then(ratio) {
        put(out, format_args!(" frameRate=\"{rate}\""));
    }
    match channel_configuration(one.channels) {
        Some(value) => put(
            out,
            format_args!(
                ">\n    <AudioChannelConfiguration schemeIdUri=\"urn:mpeg:mpegB:cicp:ChannelConfiguration\" \
                 value=\"{value}\"/>\n   </Representation>\n"
            ),
        ),
        None => out.push_str("/>\n"),
    }
}

/// The usual loudspeaker layout with so many channels (ISO/IEC 23091-3, `ChannelConfiguration`).
const fn channel_configuration(channels: u16) -> Option<u8> {
    match channels {
        1..=6 => Some(channels as u8),
        7 => Some(11),
        8 => Some(12),
        _ => None,
    }
}

/// A rate as DASH writes it: a whole number, or the ratio that it comes from.
fn ratio(rate: f64) -> Option<String> {
    if !(rate.is_finite() && rate > 0.0 && rate < 1000.0) {
        return None;
    }
    let near = |value: f64| (value - value.round()).abs() < 0.01;
    if (rate - rate.round()).abs() < 0.000_5 {
        return Some(format!("{}", rate.round()));
    }
    if near(rate * 1.001) {
        return Some(format!("{}/1001", (rate * 1.001).round() * 1000.0));
    }
    Some(format!("{}/1000", (rate * 1000.0).round()))
}

/// An `xs:duration`.
fn seconds(seconds: f64) -> String {
    let millis = if seconds.is_finite() { (seconds.clamp(0.0, 1e9) * 1000.0).ceil() as u64 } else { 0 };
    format!("PT{}.{:03}S", millis / 1000, millis % 1000)
}

/// Text that can stand in an element and between quotation marks: no mark-up, no controls, not endless.
fn text(told: &str) -> String {
    let mut out = String::new();
    for letter in told.trim().chars().take(LONGEST_TITLE) {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // XML 1.0 knows no such characters (2.2).
            other if other.is_control() || matches!(other, '\u{fffe}' | '\u{ffff}') => out.push(' '),
            other => out.push(other),
        }
    }
    out
}

fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    let _ = out.write_fmt(text); // writing to a String cannot fail
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn picture(name: &str, width: u32, height: u32, bandwidth: u64) -> Representation {
        Representation {
            name: name.into(),
            codecs: "avc1.640028".into(),
            bandwidth,
            resolution: Some((width, height)),
            frame_rate: Some(24_000.0 / 1001.0),
            channels: 0,
        }
    }

    fn film() -> Mpd {
        let set = Set {
            content: Content::Video,
            role: Role::Main,
            language: "und".into(),
            title: String::new(),
            cuts: Cuts::new(24_000, [0, 100_100, 200_200], 220_220),
            changes_to: Some(1),
            representations: vec![picture("v0", 1920, 1080, 8_000_000)],
        };
        let ladder = Set {
            role: Role::Alternate,
            cuts: Cuts::new(24_000, [0, 50_050, 100_100, 150_150, 200_200], 220_220),
            changes_to: Some(0),
            representations: vec![picture("v1", 1280, 720, 6_400_000), picture("v2", 640, 360, 2_000_000)],
            ..set.clone()
        };
        let sound = Set {
            content: Content::Audio,
            role: Role::Main,
            language: "ger".into(),
            title: "Ton <\"1\"> & mehr".into(),
            cuts: Cuts::new(48_000, [-1024, 96_256], 440_320),
            changes_to: None,
            representations: vec![Representation {
                name: "a1".into(),
                codecs: "mp4a.40.2".into(),
                bandwidth: 200_000,
                resolution: None,
                frame_rate: None,
                channels: 6,
            }],
        };
        Mpd { sets: vec![set, ladder, sound], images: None, duration: 9.175_833 }
    }

    #[test]
    fn stills_are_a_set_of_their_own() {
        let picture = crate::container::Picture { width: 1920, height: 1080, ..Default::default() };
        let images = Images::of(&picture, 7200.0).expect("stills");
        let read = dash_mpd_core::parse(&mpd(&Mpd { images: Some(("i1".into(), images)), ..film() })).expect("a manifest");
        let set = &read.periods[0].adaptations[3];
        assert_eq!((set.contentType.as_deref(), set.mimeType.as_deref()), (Some("image"), Some("image/jpeg")));
        let template = set.SegmentTemplate.as_ref().expect("a template");
        assert_eq!((template.duration, template.startNumber, template.timescale), (Some(250.0), Some(0), Some(1)));
        let one = &set.representations[0];
        assert_eq!((one.width, one.height), (Some(1600), Some(900)));
        assert_eq!(one.essential_property[0].value.as_deref(), Some("5x5"));
    }

    #[test]
    fn a_manifest() {
        insta::assert_snapshot!(mpd(&film()), @r#"
        <?xml version="1.0" encoding="UTF-8"?>
        <MPD xmlns="urn:mpeg:dash:schema:mpd:2011" profiles="urn:mpeg:dash:profile:isoff-live:2011,urn:mpeg:dash:profile:cmaf:2019" type="static" mediaPresentationDuration="PT9.176S" maxSegmentDuration="PT7.168S" minBufferTime="PT4.000S">
         <Period id="0" start="PT0S">
          <AdaptationSet id="0" contentType="video" mimeType="video/mp4" segmentAlignment="true" startWithSAP="1" selectionPriority="2">
           <SupplementalProperty schemeIdUri="urn:mpeg:dash:adaptation-set-switching:2016" value="1"/>
           <Role schemeIdUri="urn:mpeg:dash:role:2011" value="main"/>
           <SegmentTemplate timescale="24000" initialization="$RepresentationID$/init.mp4" media="$RepresentationID$/$Number$.m4s" startNumber="0">
            <SegmentTimeline>
             <S t="0" d="100100" r="1"/>
             <S d="20020"/>
            </SegmentTimeline>
           </SegmentTemplate>
           <Representation id="v0" bandwidth="8000000" codecs="avc1.640028" width="1920" height="1080" frameRate="24000/1001"/>
          </AdaptationSet>
          <AdaptationSet id="1" contentType="video" mimeType="video/mp4" segmentAlignment="true" startWithSAP="1">
           <SupplementalProperty schemeIdUri="urn:mpeg:dash:adaptation-set-switching:2016" value="0"/>
           <Role schemeIdUri="urn:mpeg:dash:role:2011" value="alternate"/>
           <SegmentTemplate timescale="24000" initialization="$RepresentationID$/init.mp4" media="$RepresentationID$/$Number$.m4s" startNumber="0">
            <SegmentTimeline>
             <S t="0" d="50050" r="3"/>
             <S d="20020"/>
            </SegmentTimeline>
           </SegmentTemplate>
           <Representation id="v1" bandwidth="6400000" codecs="avc1.640028" width="1280" height="720" frameRate="24000/1001"/>
           <Representation id="v2" bandwidth="2000000" codecs="avc1.640028" width="640" height="360" frameRate="24000/1001"/>
          </AdaptationSet>
          <AdaptationSet id="2" contentType="audio" mimeType="audio/mp4" lang="de" segmentAlignment="true" startWithSAP="1" selectionPriority="2">
           <Role schemeIdUri="urn:mpeg:dash:role:2011" value="main"/>
           <Label>Ton &lt;&quot;1&quot;&gt; &amp; mehr</Label>
           <SegmentTemplate timescale="48000" initialization="$RepresentationID$/init.mp4" media="$RepresentationID$/$Number$.m4s" startNumber="0">
            <SegmentTimeline>
             <S t="0" d="96256"/>
             <S d="344064"/>
            </SegmentTimeline>
           </SegmentTemplate>
           <Representation id="a1" bandwidth="200000" codecs="mp4a.40.2">
            <AudioChannelConfiguration schemeIdUri="urn:mpeg:mpegB:cicp:ChannelConfiguration" value="6"/>
           </Representation>
          </AdaptationSet>
         </Period>
        </MPD>
        "#);
    }

    #[test]
    fn a_reader_of_another_make_understands_it() {
        let read = dash_mpd_core::parse(&mpd(&film())).expect("a manifest");
        let sets = &read.periods[0].adaptations;
        assert_eq!(sets.len(), 3);
        assert_eq!(sets[2].lang.as_deref(), Some("de"));
        assert_eq!(sets[2].Label[0].content, "Ton <\"1\"> & mehr");
        let lines: Vec<_> = sets
            .iter()
            .map(|set| &set.SegmentTemplate.as_ref().expect("a template").SegmentTimeline.as_ref().expect("a time line").segments)
            .collect();
        assert_eq!(lines[0].iter().map(|s| (s.d, s.r.unwrap_or(0))).collect::<Vec<_>>(), [(100_100, 1), (20_020, 0)]);
        assert_eq!(sets[1].representations.iter().filter_map(|one| one.bandwidth).collect::<Vec<_>>(), [6_400_000, 2_000_000]);
    }

    #[test]
    fn rates() {
        let cases = [(25.0, "25"), (23.976, "24000/1001"), (29.97, "30000/1001"), (59.94, "60000/1001"), (12.5, "12500/1000")];
        for (rate, told) in cases {
            assert_eq!(ratio(rate).as_deref(), Some(told));
        }
        assert_eq!([ratio(f64::NAN), ratio(0.0), ratio(1e9)], [None, None, None]);
    }

    proptest! {
        #[test]
        fn hostile_titles(title in "(?s).{0,60}", language in "(?s).{0,9}", starts in proptest::collection::vec(-9_i64..90_000, 0..9)) {
            let mut film = film();
            for set in &mut film.sets {
                (set.title, set.language) = (title.clone(), language.clone());
                set.cuts = Cuts::new(1000, starts.clone(), 100_000);
            }
            let read = dash_mpd_core::parse(&mpd(&film)).expect("a manifest");
            let line = read.periods[0].adaptations[0].SegmentTemplate.as_ref().and_then(|one| one.SegmentTimeline.as_ref()).expect("a time line");
            let count: i64 = line.segments.iter().map(|s| s.r.unwrap_or(0) + 1).sum();
            prop_assert_eq!(count, i64::from(film.sets[0].cuts.count()));
        }
    }
}
