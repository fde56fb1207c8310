//! What each fuzz target does with its bytes, and what must hold for any bytes whatever.
//!
//! The fuzzer and the ordinary test that replays its corpora include this same file, so that what was found once stays found.

#![allow(dead_code, reason = "a fuzz target uses one function of them")]

use balcony_media::codec::{aac, h264, hevc};
use balcony_media::magnet::{self, Magnet};
use balcony_media::range::{self, Ranges};

/// Any text: what can be read has a normal form that says the same.
pub(crate) fn magnet(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let Ok(magnet) = Magnet::parse(&text) else { return };
    assert!(magnet.trackers.len() <= magnet::MAX_TRACKERS);
    assert!(magnet.peers.len() <= magnet::MAX_PEERS);
    assert!(magnet.select.len() <= magnet::MAX_SELECTED && magnet.select.is_sorted());
    assert!(magnet.name.as_deref().is_none_or(|name| !name.is_empty() && !name.contains(char::is_control)));
    for tracker in &magnet.trackers {
        assert!(magnet::tracker_reach(tracker).is_some(), "{tracker:?} leads nowhere");
    }
    let link = magnet.to_link();
    assert!(link.len() <= magnet::MAX_LINK_LEN, "{} bytes", link.len());
    let again = Magnet::parse(&link).expect("the normal form is a magnet");
    assert_eq!((again.info_hash, &again.name, &again.trackers), (magnet.info_hash, &magnet.name, &magnet.trackers));
}

/// Eight bytes of file length, then the header: a range lies within the file.
pub(crate) fn range(data: &[u8]) {
    let Some((len, header)) = data.split_first_chunk::<8>() else { return };
    let len = u64::from_be_bytes(*len);
    let header = String::from_utf8_lossy(header);
    let ranges = range::parse(Some(&header), len);
    if let Ranges::One { start, end } = ranges {
        assert!(start <= end && end < len);
    }
    if let Some((offset, count)) = ranges.span(len) {
        assert!(offset.checked_add(count).is_some_and(|end| end <= len));
    }
    assert_eq!(ranges.content_range(len).is_some(), ranges.status() != 200);
    range::if_range_holds(Some(&header), Some("\"a\""), Some("Sat, 29 Oct 1994 19:43:31 GMT"));
}

/// One byte that tells the codec, then its configuration record.
pub(crate) fn codec(data: &[u8]) {
    let Some((which, config)) = data.split_first() else { return };
    let picture = match which {
        b'4' => h264::describe(config),
        b'5' => {
            hevc::has_in_band_parameters_only(config);
            let completed = hevc::complete(config);
            assert!(completed.len() <= config.len() + 16, "completing adds a few bytes at most");
            hevc::describe(config)
        }
        _ => {
            let sound = aac::describe(config);
            assert!(sound.is_none_or(|sound| sound.codecs.starts_with("mp4a.40.")));
            return;
        }
    };
    if let Some(described) = picture {
        assert!((1..=4).contains(&described.nal_length));
        assert!(described.codecs.is_ascii() && described.codecs.len() < 64);
        described.codecs_in_band();
    }
}
