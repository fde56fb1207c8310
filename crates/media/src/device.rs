//! What a client can play, as it says itself.

use serde::{Deserialize, Serialize};

use crate::container::Codec;

/// The `capabilities` of a start request. What is left out is assumed to be the least that every player can: 8-bit H.264 and AAC.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Capabilities {
    /// Video codecs by their short names (`h264`, `hevc`, `av1`, `vp9`).
    pub video: Vec<String>,
    /// Audio codecs by their short names (`aac`, `ac3`, `eac3`, `opus`, `flac`, `mp3`, `alac`).
    pub audio: Vec<String>,
    /// Largest picture height in pixels that makes sense for the client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_height: Option<u32>,
    /// The client shows HDR pictures.
    pub hdr: bool,
}

impl Default for Capabilities {
    fn default() -> Self {
        Self { video: vec!["h264".into()], audio: vec!["aac".into()], max_height: None, hdr: false }
    }
}

impl Capabilities {
    /// Whether the client plays this video codec at all.
    pub fn plays_video(&self, codec: &Codec) -> bool {
        says(&self.video, codec)
    }

    /// Whether the client plays this audio codec at all.
    pub fn plays_audio(&self, codec: &Codec) -> bool {
        says(&self.audio, codec)
    }
}

/// Clients write `H.264`, `h265` or `e-ac-3` as well.
fn says(list: &[String], codec: &Codec) -> bool {
    list.iter().any(|said| {
        let plain: String = said.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
        let plain = match plain.as_str() {
            "avc" | "avc1" => "h264",
            "h265" | "hvc1" | "hev1" => "hevc",
            "av01" => "av1",
            "vp09" => "vp9",
            "ec3" | "ddp" => "eac3",
            "dolbydigital" => "ac3",
            "mp4a" => "aac",
            "mpeg3" | "mpeglayer3" | "mp4a6b" | "mp4a4034" => "mp3",
            other => other,
        };
        plain == codec.name()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_codecs() {
        let client = Capabilities { video: vec!["H.265".into()], audio: vec!["E-AC-3".into()], ..Capabilities::default() };
        assert!(client.plays_video(&Codec::Hevc));
        assert!(!client.plays_video(&Codec::H264));
        assert!(client.plays_audio(&Codec::Eac3));
        assert!(!client.plays_audio(&Codec::Ac3));
        let client = Capabilities {
            video: vec!["av01".into(), "vp09".into()],
            audio: vec!["fLaC".into(), "Opus".into(), "mp4a.6B".into()],
            ..client
        };
        assert!([Codec::Av1, Codec::Vp9].iter().all(|codec| client.plays_video(codec)));
        assert!([Codec::Flac, Codec::Opus, Codec::Mp3].iter().all(|codec| client.plays_audio(codec)));
        assert!(!client.plays_audio(&Codec::Alac));
    }
}
