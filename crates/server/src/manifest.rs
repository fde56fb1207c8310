//! What a film is offered as: its renditions written into playlists. What they look like as text is decided in [`balcony_media::playlist`].

use balcony_media::cut::Cuts;
use balcony_media::playlist::hls::{self, Growth, Master, Media, Variant};

use crate::film::Presentation;
use crate::produce::rendition::Rendition;

/// The master playlist.
pub fn master(presentation: &Presentation) -> Master {
    const GROUP: &str = "sound";
    let default = presentation.default_audio();
    let loudest = presentation.audio.iter().map(|sound| (sound.peak, sound.average)).max().unwrap_or((0, 0));
    let audio = presentation.audio.iter().enumerate().map(|(at, rendition)| {
        let track = presentation.plan.audio.get(at).and_then(|plan| presentation.film.track(plan.stream));
        let language = track.map_or_else(|| "und".to_owned(), |track| track.language.clone());
        let title = track.map(|track| track.title.clone()).filter(|title| !title.is_empty());
        hls::Rendition {
            group: GROUP.into(),
            name: title.unwrap_or_else(|| format!("Sound {} ({language})", at + 1)),
            language,
            default: at == default,
            channels: rendition.channels,
            uri: format!("a{}/index.m3u8", at + 1),
        }
    });
    let sound_codecs = presentation.audio.iter().map(|sound| sound.codecs.clone());
    let variant = match presentation.video() {
        Some(video) => {
            let mut codecs = vec![video.codecs.clone()];
            codecs.extend(sound_codecs);
            Variant {
                uri: "v0/index.m3u8".into(),
                bandwidth: video.peak + loudest.0,
                average_bandwidth: Some(video.average + loudest.1),
                codecs: unique(codecs),
                resolution: video.resolution.map(|size| (size.width, size.height)),
                frame_rate: video.frame_rate,
                video_range: None,
                audio_group: (!presentation.audio.is_empty()).then(|| GROUP.to_owned()),
            }
        }
        None => Variant {
            uri: format!("a{}/index.m3u8", default + 1),
            bandwidth: loudest.0,
            average_bandwidth: Some(loudest.1),
            codecs: unique(sound_codecs.collect()),
            resolution: None,
            frame_rate: None,
            video_range: None,
            audio_group: None,
        },
    };
    let audio = if presentation.video().is_some() { audio.collect() } else { Vec::new() };
    Master { variants: vec![variant], audio, text: presentation.text.renditions() }
}

fn unique(mut codecs: Vec<String>) -> Vec<String> {
    let mut seen = std::collections::HashSet::new();
    codecs.retain(|codec| seen.insert(codec.clone()));
    codecs
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
    let segments = (0..cuts.count()).map(|n| (format!("{n}.{ending}"), u64::try_from(cuts.end(n) - cuts.start(n)).unwrap_or(0)));
    hls::media(&playlist, segments)
}
