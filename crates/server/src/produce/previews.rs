//! Sheets of stills for the time line, made of the film's own key frames that are here already.
//!
//! Nothing is ever fetched for a still, and nobody who watches waits for one: a sheet is made by one ffmpeg of the lowest priority, one
//! sheet at a time in the whole server, and none while somebody waits for something that is being encoded. A sheet that has holes is made
//! again when more of the film is here; a whole one is kept as long as its film is played. What is where on a sheet is decided in
//! [`balcony_media::playlist::images`].

use std::collections::HashMap;
use std::io;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use balcony_media::container::{Codec, Frame, Index, KeyFrame, Samples, Sparse, Stop, Track, matroska, mp4};
use balcony_media::cut;
use balcony_media::ffmpeg::{self, SheetJob, ToneMap};
use balcony_media::fmp4::write::{InitTrack, chunk, init};
use balcony_media::fmp4::{Row, entry};
use balcony_media::playlist::images::{self, Images};
use bytes::Bytes;
use tokio::io::AsyncReadExt;
use tokio_util::sync::CancellationToken;

use super::Workshop;
use super::encode::Tools;
use crate::cage::{Limits, Reach};
use crate::film::Film;
use crate::lock::lock;
use crate::source::Source;

/// How long one request may take, waiting for other sheets included.
const DEADLINE: Duration = Duration::from_secs(8);
/// A sheet with holes is looked at again at most so often.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// Bytes of sheets that are kept of one film.
const KEPT: usize = 8 << 20;
/// More bytes than a sheet takes.
const LARGEST_SHEET: u64 = 8 << 20;
/// Bytes of key frames on one sheet; and of one of them.
const LARGEST: (usize, u32) = (96 << 20, 24 << 20);
/// Bytes looked at in one go, where they are here.
const WINDOW: u64 = 64 * 1024;
/// Looks into the file for one key frame, and frames that may stand before it.
const MOST: (usize, usize) = (64, 4096);
/// Ticks for each place on a sheet, in the clip that ffmpeg gets.
const PLACE: u32 = 1000;

/// A film's stills.
pub struct Previews {
    /// Which there are.
    pub images: Images,
    keys: Vec<KeyFrame>,
    /// Presentation times of the keys, ascending, in ticks.
    times: Vec<i64>,
    timescale: u32,
    /// Bytes of a key frame by its place in the file, of a film whose samples stand in a table.
    sizes: HashMap<u64, u32>,
    kept: Mutex<HashMap<u32, Kept>>,
    stop: CancellationToken,
}

/// A sheet as it can be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sheet {
    /// The picture.
    pub jpeg: Bytes,
    /// All its stills are those that they should be: it will never be another.
    pub is_whole: bool,
}

/// What is known of a sheet.
struct Kept {
    sheet: Option<Sheet>,
    /// What was here for it.
    shown: Vec<Option<usize>>,
    looked: Instant,
    used: Instant,
}

/// A key frame that was looked for.
#[derive(Debug, Clone)]
enum Found {
    Here(Bytes),
    /// Not all of it is here.
    NotYet,
    /// It cannot be shown by itself.
    Never,
}

/// The key frames for a sheet.
struct Gathered {
    /// For each still which key frame it shows.
    shown: Vec<Option<usize>>,
    frames: HashMap<usize, Bytes>,
    is_whole: bool,
}

/// Why a sheet was not made.
#[derive(Debug, thiserror::Error)]
enum SheetError {
    #[error("ffmpeg could not be run: {0}")]
    Start(#[from] io::Error),
    #[error("ffmpeg ended with {status}: {stderr}")]
    Died { status: String, stderr: String },
}

impl Previews {
    /// Stills of a film whose container tells where key frames are, and whose pictures can be handed to a decoder one by one.
    pub fn of(index: &Index, duration: f64) -> Option<Self> {
        let track = index.video().filter(|track| !track.complex_edits)?;
        entry::picture(track)?;
        let mut keys = track.key_frames.clone();
        keys.sort_by_key(|key| key.pts);
        let images = Images::of(track.video.as_ref()?, duration).filter(|_| !keys.is_empty())?;
        let sizes = match &track.samples {
            Samples::Table(samples) => samples.iter().filter(|sample| sample.key).map(|sample| (sample.offset, sample.size)).collect(),
            Samples::Blocks(_) | Samples::Inline => HashMap::new(),
        };
        let times = keys.iter().map(|key| key.pts).collect();
        Some(Self { images, keys, times, timescale: track.timescale, sizes, kept: Mutex::default(), stop: CancellationToken::new() })
    }

    /// Sheet `n`, as good as it can be now; `None` where nothing of it is here, or there is no time for it.
    pub async fn sheet(&self, film: &Film, workshop: &Workshop, n: u32) -> Option<Sheet> {
        if let Some(known) = self.known(n) {
            return known;
        }
        tokio::select! {
            () = self.stop.cancelled() => None,
            made = tokio::time::timeout(DEADLINE, self.look(film, workshop, n)) => made.unwrap_or_else(|_| {
                tracing::debug!(sheet = n, "stills took too long");
                let before = self.as_it_was(n);
                self.keep(n, before.clone(), Vec::new());
                before
            }),
        }
    }

    /// Nobody wants stills of this film any more.
    pub fn stop(&self) {
        self.stop.cancel();
        lock(&self.kept).clear();
    }

    /// What needs no other look at the film now.
    fn known(&self, n: u32) -> Option<Option<Sheet>> {
        let mut kept = lock(&self.kept);
        let known = kept.get_mut(&n)?;
        known.used = Instant::now();
        let is_whole = known.sheet.as_ref().is_some_and(|sheet| sheet.is_whole);
        (is_whole || known.looked.elapsed() < LOOK_AGAIN).then(|| known.sheet.clone())
    }

    fn as_it_was(&self, n: u32) -> Option<Sheet> {
        lock(&self.kept).get(&n)?.sheet.clone()
    }

    async fn look(&self, film: &Film, workshop: &Workshop, n: u32) -> Option<Sheet> {
        // It is never closed.
        let _one = workshop.sheets.acquire().await.ok()?;
        if let Some(known) = self.known(n) {
            return known;
        }
        if workshop.encoders.is_awaited() {
            return self.as_it_was(n);
        }
        let mut gathered = self.gather(film, n).await;
        let unchanged = lock(&self.kept).get(&n).is_some_and(|kept| kept.shown == gathered.shown);
        let sheet = if unchanged || gathered.frames.is_empty() {
            self.as_it_was(n).map(|sheet| Sheet { is_whole: gathered.is_whole, ..sheet })
        } else {
            match self.make(film, &workshop.tools, &gathered).await {
                Ok(jpeg) => Some(Sheet { jpeg, is_whole: gathered.is_whole }),
                Err(error) => {
                    tracing::warn!(sheet = n, %error, "a sheet of stills was not made");
                    gathered.shown.clear();
                    self.as_it_was(n)
                }
            }
        };
        self.keep(n, sheet.clone(), gathered.shown);
        sheet
    }

    fn keep(&self, n: u32, sheet: Option<Sheet>, shown: Vec<Option<usize>>) {
        let now = Instant::now();
        let mut kept = lock(&self.kept);
        if self.stop.is_cancelled() {
            return;
        }
        kept.insert(n, Kept { sheet, shown, looked: now, used: now });
        let len = |kept: &Kept| kept.sheet.as_ref().map_or(0, |sheet| sheet.jpeg.len());
        while kept.len() > 1 && kept.values().map(len).sum::<usize>() > KEPT {
            let oldest = kept.iter().filter(|(_, kept)| len(kept) > 0).min_by_key(|(_, kept)| kept.used).map(|(n, _)| *n);
            let Some(oldest) = oldest else { break };
            kept.remove(&oldest);
        }
    }

    /// Reads the key frames of a sheet that are here: for each still the one nearest to its time, or, as long as that is missing, another
    /// that is not far.
    async fn gather(&self, film: &Film, n: u32) -> Gathered {
        let mut gathered = Gathered { shown: Vec::new(), frames: HashMap::new(), is_whole: true };
        let mut looked: HashMap<usize, Found> = HashMap::new();
        let mut room = LARGEST.0;
        for still in self.images.on(n) {
            let at = cut::rescale((self.images.time(still) * 1e6) as i64, 1_000_000, self.timescale);
            let reach = u64::from(self.images.each) * u64::from(self.timescale);
            let mut shown = None;
            for key in images::nearest(&self.times, at, reach) {
                let found = match looked.get(&key) {
                    Some(found) => found.clone(),
                    None => self.find(film, key, room).await,
                };
                let before = looked.insert(key, found.clone());
                match found {
                    Found::Here(bytes) => {
                        room = room.saturating_sub(if before.is_none() { bytes.len() } else { 0 });
                        gathered.frames.insert(key, bytes);
                        shown = Some(key);
                        break;
                    }
                    Found::NotYet => gathered.is_whole = false,
                    Found::Never => {}
                }
            }
            gathered.shown.push(shown);
        }
        gathered
    }

    /// One key frame, if all of it is here and it does not take more than `room`.
    async fn find(&self, film: &Film, key: usize, room: usize) -> Found {
        let (Some(key), Some(track)) = (self.keys.get(key), film.index.video()) else { return Found::Never };
        let frame = match &track.samples {
            Samples::Table(_) => self.sizes.get(&key.offset).map_or(Err(Found::Never), |len| Ok(frame_of(track, key, *len))),
            Samples::Blocks(_) | Samples::Inline => locate(film, track, key).await,
        };
        let frame = match frame {
            Ok(frame) => frame,
            Err(found) => return found,
        };
        let len = usize::try_from(frame.len).unwrap_or(usize::MAX);
        if frame.len > LARGEST.1 || len > room {
            return Found::Never;
        }
        let Some(bytes) = film.source.read_here(frame.offset, len).await else { return Found::NotYet };
        alone(track, &[&frame.prefix[..], &bytes[..]].concat()).map_or(Found::Never, Found::Here)
    }

    async fn make(&self, film: &Film, tools: &Tools, gathered: &Gathered) -> Result<Bytes, SheetError> {
        let nothing = || io::Error::other("the film has no pictures");
        let track = film.index.video().ok_or_else(nothing)?;
        let picture = track.video.clone().unwrap_or_default();
        let clip = clip(track, gathered).ok_or_else(nothing)?;
        let lease = tools.loopback.lease(Source::memory(clip))?;
        let places = self.images.per_sheet();
        let shown = |place: u32| gathered.shown.get(place as usize).is_some_and(Option::is_some);
        let hdr = match ffmpeg::hdr(track) {
            Some(from) => Some(ToneMap { from, zscale: tools.filters.has_zscale(&tools.spawner, &tools.ffmpeg).await }),
            None => None,
        };
        let job = SheetJob {
            url: lease.url(),
            size: self.images.size,
            columns: self.images.columns,
            rows: self.images.rows,
            rotation: picture.rotation,
            hdr,
            dark: (0..places).filter(|place| !shown(*place)).collect(),
        };
        let mut child = tools.spawner.spawn(Limits::STILLS, &Reach::port(lease.port()), &tools.ffmpeg, &job.args()).await?;
        child.id().into_iter().for_each(|pid| lease.give_to(pid));
        let pipe = child.take_stdout().ok_or_else(|| io::Error::other("no pipe"))?;
        let mut jpeg = Vec::new();
        pipe.take(LARGEST_SHEET).read_to_end(&mut jpeg).await?;
        let ended = child.wait().await?;
        // A picture that cannot be decoded is complained about, and is no reason to show none.
        if jpeg.starts_with(b"\xff\xd8") && jpeg.ends_with(b"\xff\xd9") {
            return Ok(Bytes::from(jpeg));
        }
        Err(SheetError::Died { status: ended.status.to_string(), stderr: ended.stderr.replace(&lease.url(), "the stills") })
    }
}

fn frame_of(track: &Track, key: &KeyFrame, len: u32) -> Frame {
    let (pts, offset) = (key.pts, key.offset);
    Frame { track: track.id, pts, duration: None, key: true, prefix: Bytes::new(), element: offset, offset, len }
}

/// How key frames are met where no table lists them.
enum Walk {
    Matroska(Box<matroska::Blocks>),
    Fragments(Box<mp4::Fragments>),
}

/// Where a key frame of a film without a table is, as far as what is here tells.
async fn locate(film: &Film, track: &Track, key: &KeyFrame) -> Result<Frame, Found> {
    let mut walk = match &film.fragments {
        Some(context) => Walk::Fragments(Box::new(mp4::Fragments::at(key.offset, context.clone()))),
        None => Walk::Matroska(Box::new(matroska::Blocks::between(&film.index, Some(key), None).only(&[track.id]))),
    };
    let mut known = Sparse::new(film.source.len());
    let (mut looks, mut frames) = (0, 0);
    loop {
        let next = match &mut walk {
            Walk::Matroska(blocks) => blocks.next(&known),
            Walk::Fragments(fragments) => fragments.next(&known),
        };
        match next {
            // The index may tell times less exactly than the frame itself.
            Ok(Some(frame)) if frame.track == track.id && frame.key && frame.pts >= key.pts.saturating_sub(i64::from(track.timescale)) => {
                return Ok(frame);
            }
            Ok(Some(_)) if frames < MOST.1 => frames += 1,
            Ok(_) | Err(Stop::Bad(_)) => return Err(Found::Never),
            Err(Stop::Need { offset, len }) => {
                looks += 1;
                if looks > MOST.0 || len > u64::from(LARGEST.1) {
                    return Err(Found::Never);
                }
                let ready = film.source.available_from(offset, WINDOW.max(len)).max(len);
                let ready = usize::try_from(ready).map_err(|_| Found::Never)?;
                known.insert(offset, film.source.read_here(offset, ready).await.ok_or(Found::NotYet)?);
            }
        }
    }
}

/// A coded picture so that a decoder shows it for itself, whatever it was given before. H.264: only one at which all decoders begin anew
/// (IDR); at others the order of pictures goes on that are missing here. HEVC: a clean random access is told as a broken link, which has
/// the same slices and begins anew (ITU-T H.265, 8.1.3; splicing does so).
fn alone(track: &Track, coded: &[u8]) -> Option<Bytes> {
    const IDR: u8 = 5;
    const CLEAN_RANDOM_ACCESS: u8 = 21;
    const BROKEN_LINK: u8 = 18;
    match track.codec {
        Codec::H264 => {
            let heads = heads(coded, usize::from(track.config.get(4)? & 3) + 1);
            let begins = heads.into_iter().any(|at| coded.get(at).is_some_and(|head| head & 0x1f == IDR));
            begins.then(|| Bytes::copy_from_slice(coded))
        }
        Codec::Hevc => {
            let mut out = coded.to_vec();
            for at in heads(coded, usize::from(track.config.get(21)? & 3) + 1) {
                if let Some(head) = out.get_mut(at).filter(|head| **head >> 1 & 0x3f == CLEAN_RANDOM_ACCESS) {
                    *head = *head & 0x81 | BROKEN_LINK << 1;
                }
            }
            Some(Bytes::from(out))
        }
        _ => Some(Bytes::copy_from_slice(coded)),
    }
}

/// Where NAL units begin behind lengths of `width` bytes, as far as they are whole.
fn heads(coded: &[u8], width: usize) -> Vec<usize> {
    let mut all = Vec::new();
    let mut at = 0_usize;
    while let Some(len) = coded.get(at..at.saturating_add(width)) {
        let len = len.iter().fold(0_usize, |len, byte| len << 8 | usize::from(*byte));
        let (head, end) = (at + width, (at + width).saturating_add(len));
        if end > coded.len() {
            break;
        }
        if len > 0 {
            all.push(head);
        }
        at = end;
    }
    all
}

/// The key frames as one clip in MP4, each from its place on to the next one's. The first begins at the beginning: what stands before it
/// is painted over.
fn clip(track: &Track, gathered: &Gathered) -> Option<Bytes> {
    let (entry, _) = entry::picture(track)?;
    let mut pictures: Vec<(u32, &Bytes)> = Vec::new();
    let mut before = None;
    for (place, key) in (0_u32..).zip(&gathered.shown) {
        let Some(key) = key else { continue };
        if before.replace(*key) != Some(*key) {
            pictures.push((if pictures.is_empty() { 0 } else { place }, gathered.frames.get(key)?));
        }
    }
    // Whether the last picture of a clip counts is not the same in all versions of ffmpeg: it stands there twice.
    let behind = u32::try_from(gathered.shown.len()).ok()?;
    pictures.extend(pictures.last().map(|(_, bytes)| (behind, *bytes)));
    let ends = pictures.iter().skip(1).map(|(place, _)| *place).chain([behind.saturating_add(1)]);
    let rows: Option<Vec<Row>> = pictures
        .iter()
        .zip(ends)
        .map(|((place, bytes), end)| {
            let duration = end.saturating_sub(*place).max(1).saturating_mul(PLACE);
            Some(Row { size: u32::try_from(bytes.len()).ok()?, duration, composition: 0, key: true })
        })
        .collect();
    let mut out = init(&InitTrack { entry, timescale: PLACE, language: "und".into(), duration: None, media_time: 0 }).to_vec();
    out.extend(chunk(1, 0, &rows?, false));
    pictures.iter().for_each(|(_, bytes)| out.extend_from_slice(bytes));
    Some(Bytes::from(out))
}

#[cfg(test)]
mod tests {
    use balcony_media::container::{Kind, Picture};
    use balcony_media::fmp4::read::{Event, Reader};

    use super::*;

    fn track(codec: Codec) -> Track {
        let config = match codec {
            Codec::H264 => Bytes::from_static(b"\x01\x64\0\x1e\xff\xe1\0\x1a\x67\x64\0\x1e\xac\xd9\x40\xa0\x2f\xf9\x70\x11\0\0\x03\0\x01\0\0\x03\0\x32\x0f\x16\x2d\x96\x01\0\x06\x68\xeb\xe3\xcb\x22\xc0"),
            _ => Bytes::from(vec![0xff; 23]),
        };
        Track {
            id: 1,
            stream: 0,
            kind: Kind::Video,
            codec,
            config,
            timescale: 1000,
            language: "und".into(),
            title: String::new(),
            default: true,
            forced: false,
            bitrate: None,
            video: Some(Picture { width: 640, height: 360, pixel_aspect: (1, 1), ..Picture::default() }),
            audio: None,
            samples: Samples::Table(Vec::new()),
            key_frames: Vec::new(),
            first_pts: Some(0),
            complex_edits: false,
        }
    }

    #[test]
    fn pictures_that_stand_alone() {
        let avc = track(Codec::H264);
        let table: [(&[u8], bool); 5] = [
            (b"\0\0\0\x02\x06\x05\0\0\0\x02\x65\x88", true),
            (b"\0\0\0\x02\x06\x05\0\0\0\x02\x61\x88", false),
            (b"\0\0\0\x09\x65\x88", false),
            (b"\0\0", false),
            (b"", false),
        ];
        for (coded, shows) in table {
            assert_eq!(alone(&avc, coded).is_some(), shows, "{coded:?}");
        }
        let hevc = alone(&track(Codec::Hevc), b"\0\0\0\x02\x26\x01\0\0\0\x02\x2a\x01\0\0\0\x02\x2a").expect("always");
        assert_eq!(&hevc[..], b"\0\0\0\x02\x26\x01\0\0\0\x02\x24\x01\0\0\0\x02\x2a");
        assert_eq!(alone(&track(Codec::Vp9), b"xyz").as_deref(), Some(&b"xyz"[..]));
    }

    #[test]
    fn a_clip_has_each_picture_once_and_at_its_place() {
        let frames = HashMap::from([(3, Bytes::from_static(b"three")), (7, Bytes::from_static(b"seven")), (8, Bytes::from_static(b"8"))]);
        let shown = vec![None, Some(3), Some(3), None, Some(7), Some(8), None];
        let clip = clip(&track(Codec::H264), &Gathered { shown, frames, is_whole: false }).expect("a clip");
        let mut reader = Reader::new();
        reader.push(clip);
        let mut found = Vec::new();
        while let Some(event) = reader.next().expect("boxes") {
            if let Event::Packet(packet) = event {
                found.push((packet.pts, packet.duration, packet.key, packet.data));
            }
        }
        let packet = |pts, duration, data: &'static [u8]| (pts, duration, true, Bytes::from_static(data));
        assert_eq!(found, [packet(0, 4000, b"three"), packet(4000, 1000, b"seven"), packet(5000, 2000, b"8"), packet(7000, 1000, b"8")]);
    }
}
