//! What a film is offered as: its renditions written into playlists. What they look like as text is decided in [`balcony_media::playlist`].

use std::collections::HashSet;
use std::sync::Arc;

use balcony_media::cut::{self, Cuts};
use balcony_media::fmp4::entry::video_range;
use balcony_media::fmp4::wvtt;
use balcony_media::playlist::dash::{Content, Mpd, Representation, Role, Set};
use balcony_media::playlist::hls::{self, Growth, Master, Media, Stills, Variant, VideoRange};
use balcony_media::playlist::images::Images;

use crate::film::Presentation;
use crate::produce::rendition::{AAC, Rendition};
use crate::subtitles::Track;

/// Bits per second that no text has: two lines each second with all their boxes.
const TEXT_RATE: u64 = 8_000;

/// Name of the folder of stills.
pub const STILLS: &str = "i1";

/// Sounds of one codec: a player changes between them without setting anything up anew.
struct Group<'a> {
    name: &'static str,
    members: Vec<Sound<'a>>,
}

/// One track of sound in one form.
struct Sound<'a> {
    /// In URLs.
    name: String,
    /// Position among the film's sounds.
    track: usize,
    made: &'a Arc<Rendition>,
}

impl Group<'_> {
    /// The largest peak and the largest average of its members, in bits per second.
    fn loudest(&self) -> (u64, u64) {
        let all = || self.members.iter().map(|sound| sound.made);
        (all().map(|made| made.peak).max().unwrap_or(0), all().map(|made| made.average).max().unwrap_or(0))
    }
}

/// The film's sounds by codec: that of the sound that plays when nobody chooses first. The group of AAC has a form of every track where
/// the film has one at all; another has the tracks that are of its codec.
fn groups(presentation: &Presentation) -> Vec<Group<'_>> {
    let default = presentation.default_audio();
    let mut names: Vec<&'static str> = presentation.audio.get(default).map(|made| made.group()).into_iter().collect();
    for made in presentation.audio.iter().chain(presentation.in_aac.iter().flatten()) {
        if !names.contains(&made.group()) {
            names.push(made.group());
        }
    }
    let group = |name: &'static str| {
        let of_track = presentation.audio.iter().enumerate().filter_map(|(track, main)| {
            let in_aac = presentation.in_aac.get(track).and_then(Option::as_ref).filter(|_| name == AAC);
            let (form, made) = if main.group() == name { ('a', main) } else { ('b', in_aac?) };
            Some(Sound { name: format!("{form}{}", track + 1), track, made })
        });
        Group { name, members: of_track.collect() }
    };
    names.into_iter().map(group).collect()
}

/// Language and title of a track of sound, for people.
fn told(presentation: &Presentation, track: usize) -> (String, String) {
    let of = presentation.plan.audio.get(track).and_then(|plan| presentation.film.track(plan.stream));
    let language = of.map_or_else(|| "und".to_owned(), |of| of.language.clone());
    let title = of.map(|of| of.title.clone()).filter(|title| !title.is_empty());
    let title = title.unwrap_or_else(|| format!("Sound {} ({language})", track + 1));
    (language, title)
}

/// The master playlist: each picture with each group of sounds.
pub fn master(presentation: &Presentation) -> Master {
    let groups = groups(presentation);
    if presentation.video().is_none() {
        return Master {
            variants: sound_alone(presentation).into_iter().collect(),
            audio: Vec::new(),
            text: presentation.text.renditions(),
            images: None,
        };
    }
    let mut variants = Vec::new();
    for group in groups.iter().map(Some).chain(groups.is_empty().then_some(None)) {
        let numbered = presentation.pictures.iter().enumerate();
        variants.extend(numbered.map(|(at, picture)| variant(at, picture, range(presentation, picture), group)));
    }
    let audio = groups.iter().flat_map(|group| renditions(presentation, group)).collect();
    Master { variants, audio, text: presentation.text.renditions(), images: images(presentation).map(stills) }
}

/// The stills of what is shown.
fn images(presentation: &Presentation) -> Option<&Images> {
    presentation.video()?;
    presentation.film.previews.as_ref().map(|previews| &previews.images)
}

fn stills(images: &Images) -> Stills {
    let resolution = (images.size.width, images.size.height);
    Stills { uri: format!("{STILLS}/index.m3u8"), bandwidth: images.bandwidth(), resolution }
}

/// How bright a picture is: as the film where it is copied; conversions are mapped to what every screen shows.
fn range(presentation: &Presentation, picture: &Rendition) -> VideoRange {
    let track = presentation.film.index.video().filter(|_| !picture.is_encoded());
    track.map_or(VideoRange::Sdr, video_range)
}

fn variant(at: usize, picture: &Rendition, range: VideoRange, group: Option<&Group<'_>>) -> Variant {
    let (peak, average) = group.map_or((0, 0), Group::loudest);
    let sounds = group.into_iter().flat_map(|group| group.members.iter().map(|sound| sound.made.codecs.clone()));
    Variant {
        uri: format!("v{at}/index.m3u8"),
        bandwidth: picture.peak + peak,
        average_bandwidth: Some(picture.average + average),
        codecs: unique(std::iter::once(picture.codecs.clone()).chain(sounds)),
        resolution: picture.resolution.map(|size| (size.width, size.height)),
        frame_rate: picture.frame_rate,
        // Told where it is no matter of course.
        video_range: Some(range).filter(|range| *range != VideoRange::Sdr),
        audio_group: group.map(|group| group.name.to_owned()),
    }
}

/// A film without pictures: the sound that plays when nobody chooses.
fn sound_alone(presentation: &Presentation) -> Option<Variant> {
    let default = presentation.default_audio();
    let sound = presentation.audio.get(default)?;
    Some(Variant {
        uri: format!("a{}/index.m3u8", default + 1),
        bandwidth: sound.peak,
        average_bandwidth: Some(sound.average),
        codecs: vec![sound.codecs.clone()],
        resolution: None,
        frame_rate: None,
        video_range: None,
        audio_group: None,
    })
}

fn renditions<'a>(presentation: &'a Presentation, group: &'a Group<'a>) -> impl Iterator<Item = hls::Rendition> + 'a {
    let default = presentation.default_audio();
    let default = group.members.iter().find(|sound| sound.track == default).or(group.members.first()).map(|sound| sound.track);
    group.members.iter().map(move |sound| {
        let (language, title) = told(presentation, sound.track);
        hls::Rendition {
            group: group.name.to_owned(),
            name: title,
            language,
            default: Some(sound.track) == default,
            channels: sound.made.channels,
            uri: format!("{}/index.m3u8", sound.name),
        }
    })
}

/// The manifest of DASH: the copy in a set of its own, since its segments are others than those of the ladder; each form of each sound
/// in another.
pub fn mpd(presentation: &Presentation) -> Mpd {
    let mut sets = Vec::new();
    let named = |at: usize, picture: &Arc<Rendition>| represented(format!("v{at}"), picture);
    let (copied, ladder): (Vec<_>, Vec<_>) = presentation.pictures.iter().enumerate().partition(|(_, picture)| !picture.is_encoded());
    let both = !copied.is_empty() && !ladder.is_empty();
    for (other, of) in [(1, copied), (0, ladder)] {
        let Some((_, first)) = of.first() else { continue };
        sets.push(Set {
            content: Content::Video,
            role: if sets.is_empty() { Role::Main } else { Role::Alternate },
            language: String::new(),
            title: String::new(),
            cuts: first.cuts.clone(),
            changes_to: both.then_some(other),
            representations: of.iter().map(|(at, picture)| named(*at, picture)).collect(),
        });
    }
    let default = presentation.default_audio();
    let groups = groups(presentation);
    for (main, sound) in groups.iter().enumerate().flat_map(|(at, group)| group.members.iter().map(move |sound| (at == 0, sound))) {
        let (language, title) = told(presentation, sound.track);
        sets.push(Set {
            content: Content::Audio,
            role: if main && sound.track == default { Role::Main } else { Role::Alternate },
            language,
            title,
            cuts: sound.made.cuts.clone(),
            changes_to: None,
            representations: vec![represented(sound.name.clone(), sound.made)],
        });
    }
    sets.extend(presentation.text.list().iter().filter(|track| track.is_text()).map(|track| written_out(presentation, track)));
    let ends = presentation.all().map(|(_, made)| made.cuts.start_seconds(made.cuts.count()));
    Mpd {
        duration: ends.fold(presentation.film.duration, f64::max),
        sets,
        images: images(presentation).map(|images| (STILLS.to_owned(), *images)),
    }
}

/// Subtitles as a set of their own, over segments of ISO 14496-30.
fn written_out(presentation: &Presentation, track: &Track) -> Set {
    Set {
        content: Content::Text,
        role: if track.view.forced { Role::ForcedSubtitle } else { Role::Subtitle },
        language: track.view.language.clone(),
        title: track.view.title.clone(),
        cuts: in_milliseconds(&presentation.text.cuts),
        changes_to: None,
        representations: vec![Representation {
            name: track.view.id.clone(),
            codecs: wvtt::CODECS.to_owned(),
            bandwidth: TEXT_RATE,
            resolution: None,
            frame_rate: None,
            channels: 0,
        }],
    }
}

/// The same boundaries on the clock that segments of text have.
fn in_milliseconds(cuts: &Cuts) -> Cuts {
    let at = |ticks: i64| cut::rescale(ticks, cuts.timescale, wvtt::TIMESCALE);
    let mut starts: Vec<i64> = cuts.boundaries().map(at).collect();
    let end = starts.pop().unwrap_or(1);
    Cuts::new(wvtt::TIMESCALE, starts, end)
}

fn represented(name: String, made: &Rendition) -> Representation {
    Representation {
        name,
        codecs: made.codecs.clone(),
        bandwidth: made.peak,
        resolution: made.resolution.map(|size| (size.width, size.height)),
        frame_rate: made.frame_rate,
        channels: made.channels,
    }
}

fn unique(codecs: impl Iterator<Item = String>) -> Vec<String> {
    let mut seen = HashSet::new();
    codecs.filter(|codec| seen.insert(codec.clone())).collect()
}

/// The playlist of one rendition.
pub fn media(presentation: &Presentation, rendition: &Rendition) -> String {
    written(presentation, &rendition.cuts, "init.mp4", "m4s")
}

/// The playlist of any text rendition: all are cut alike.
pub fn text(presentation: &Presentation) -> String {
    written(presentation, &presentation.text.cuts, "", "vtt")
}

fn written(presentation: &Presentation, cuts: &Cuts, map_uri: &str, ending: &str) -> String {
    // One target duration over all playlists of a master (RFC 8216, 6.2.4).
    let longest = presentation.all().map(|(_, rendition)| rendition.cuts.longest()).fold(0.0, f64::max);
    let playlist = Media {
        target_duration: (longest.round() as u64).max(1),
        map_uri: map_uri.to_owned(),
        timescale: cuts.timescale,
        growth: Growth::Complete,
    };
    let segments = (0..cuts.count()).map(|n| (format!("{n}.{ending}"), cuts.shown(n)));
    hls::media(&playlist, segments)
}
