//! Somebody who watches: asks for segments as players do, and knows whether what came is right.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use balcony_media::fmp4::Packet;
use balcony_media::fmp4::read::{Event, Reader};
use bytes::Bytes;
use memchr::memmem;
use serde_json::Value;

use super::server::TestServer;

/// No wait in these tests measures anything by itself, it only must not be endless.
pub(crate) const LONG: Duration = Duration::from_secs(90);

/// A rendition that somebody watches.
#[derive(Debug, Clone)]
struct Track {
    folder: String,
    init: Bytes,
    /// Seconds of each segment.
    lasts: Vec<f64>,
    /// Its samples are those of the film's file.
    copied: bool,
}

/// Somebody who watches a film.
#[derive(Debug, Clone)]
pub(crate) struct Viewer {
    pub(crate) id: String,
    client: reqwest::Client,
    film: Arc<[u8]>,
    tracks: Vec<Track>,
}

/// How it was to get a segment of picture and sound.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Got {
    /// How often the answer was that it is late.
    pub(crate) late: usize,
    /// How often an answer broke off in the middle.
    pub(crate) broken: usize,
    pub(crate) took: Duration,
}

impl Viewer {
    /// Takes a seat in front of a stream that is ready. `film` is the file that is seeded.
    pub(crate) async fn of(server: &TestServer, ready: &Value, film: &Path) -> Self {
        assert_eq!(ready["status"], "ready", "{ready:#}");
        let master = ready["streamUrl"].as_str().expect("a URL");
        let film = std::fs::read(film).expect("the film").into();
        let mut tracks = Vec::new();
        for name in ["v0", "a1"] {
            let folder = master.replace("master.m3u8", name);
            let playlist = String::from_utf8(server.fetch(&format!("{folder}/index.m3u8")).await.to_vec()).expect("text");
            let lasts = playlist.lines().filter_map(|line| line.strip_prefix("#EXTINF:")?.trim_end_matches(',').parse().ok()).collect();
            let init = server.fetch(&format!("{folder}/init.mp4")).await;
            tracks.push(Track { folder, init, lasts, copied: ready["mode"] == "copy" });
        }
        // A client of its own: what goes wrong with its connections is its own trouble.
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30)).build().expect("a client");
        Self { id: ready["streamId"].as_str().expect("an id").to_owned(), client, film, tracks }
    }

    /// The number of its last segment.
    pub(crate) fn last(&self) -> usize {
        self.tracks.iter().map(|track| track.lasts.len()).min().expect("tracks") - 1
    }

    /// The path of a segment of its picture.
    pub(crate) fn picture(&self, n: usize) -> String {
        format!("{}/{n}.m4s", self.tracks[0].folder)
    }

    /// Asks for picture and sound until it has them, as players do, and finds them right.
    pub(crate) async fn gets(&self, server: &TestServer, n: usize) -> Got {
        let begun = Instant::now();
        let mut got = Got::default();
        for (at, track) in self.tracks.iter().enumerate() {
            let url = server.here(&format!("{}/{n}.m4s", track.folder));
            let bytes = loop {
                assert!(begun.elapsed() < LONG, "segment {n} of track {at} never comes: {got:?}\n{}", server.said());
                match self.client.get(&url).send().await {
                    Ok(answer) if answer.status() == 200 => match answer.bytes().await {
                        Ok(bytes) => break bytes,
                        Err(_) => got.broken += 1,
                    },
                    Ok(answer) if answer.status() == 503 => {
                        let after = answer.headers()["retry-after"].to_str().expect("text").parse().expect("seconds");
                        got.late += 1;
                        tokio::time::sleep(Duration::from_secs(after)).await;
                    }
                    Ok(answer) => {
                        let told = server.status(&self.id).await;
                        panic!("{} for segment {n}: {}\n{told:#}", answer.status(), answer.text().await.unwrap_or_default());
                    }
                    // No answer at all: players ask again.
                    Err(_) => {
                        got.broken += 1;
                        tokio::time::sleep(Duration::from_millis(200)).await;
                    }
                }
            };
            if let Err(wrong) = track.judge(&bytes, n, &self.film) {
                panic!("segment {n} of track {at} is wrong: {wrong}\n{}", server.said());
            }
        }
        got.took = begun.elapsed();
        got
    }

    /// Gets all segments of a range.
    pub(crate) async fn plays(&self, server: &TestServer, numbers: impl IntoIterator<Item = usize>) -> Got {
        let mut all = Got::default();
        for n in numbers {
            let got = self.gets(server, n).await;
            all = Got { late: all.late + got.late, broken: all.broken + got.broken, took: all.took + got.took };
        }
        all
    }
}

impl Track {
    /// Whether these bytes are this segment of the film, whole.
    fn judge(&self, bytes: &Bytes, n: usize, film: &[u8]) -> Result<(), String> {
        let (timescale, packets) = self.packets(bytes)?;
        let first = packets.first().ok_or("nothing is in it")?;
        // Of each frame and each block of sound one: none is missing.
        let seconds = packets.iter().map(|packet| f64::from(packet.duration)).sum::<f64>() / timescale;
        let told = self.lasts.get(n).copied().unwrap_or_default();
        let usual = f64::from(first.duration) / timescale;
        if (seconds - told).abs() > 2.0 * usual {
            return Err(format!("{seconds} s instead of {told} s"));
        }
        let begins: f64 = self.lasts.iter().take(n).sum();
        let at = first.pts as f64 / timescale;
        // Sound is cut on a grid of its own, and may begin with the film or a little before it.
        if (at - begins).abs() > 0.2 {
            return Err(format!("it begins at {at} s instead of {begins} s"));
        }
        if !first.key {
            return Err("it does not begin with a key frame".into());
        }
        if self.copied {
            return of_the_film(&packets, film);
        }
        Ok(())
    }

    fn packets(&self, bytes: &Bytes) -> Result<(f64, Vec<Packet>), String> {
        let mut reader = Reader::new();
        reader.push(self.init.clone());
        reader.push(bytes.clone());
        let (mut packets, mut timescale) = (Vec::new(), 1.0);
        while let Some(event) = reader.next().map_err(|error| error.to_string())? {
            match event {
                Event::Header(tracks) => timescale = f64::from(tracks.first().ok_or("no track")?.timescale),
                Event::Packet(packet) => packets.push(packet),
                #[allow(unreachable_patterns, reason = "whatever else it tells")]
                _ => {}
            }
        }
        reader.finish().map_err(|error| error.to_string())?;
        Ok((timescale, packets))
    }
}

/// Whether all samples stand in the film's file, one behind the other.
fn of_the_film(packets: &[Packet], film: &[u8]) -> Result<(), String> {
    let mut from = 0;
    for (number, packet) in packets.iter().enumerate() {
        let found = memmem::find(&film[from..], &packet.data).ok_or_else(|| format!("sample {number} is not the film's"))?;
        from += found + packet.data.len();
    }
    Ok(())
}
