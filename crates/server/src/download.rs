//! A film to keep: the pictures, the sound and the subtitles of a stream as one MP4 file, made of the very segments that players get.
//!
//! The file lies in two parts, its head (all tables) and its media: so that the tables stand in front when it is sent, and nothing has to be
//! written twice. The head is put in place last, in one step: with it the file is whole, and it stays over a restart as long as its stream
//! does. A file without a head is what a crash left, and goes at the next start. What is in an MP4 is decided in
//! [`balcony_media::fmp4::whole`].

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use balcony_media::fmp4::whole::{Whole, lines};
use bytes::{Bytes, BytesMut};
use tokio_util::task::AbortOnDropHandle;

use crate::budget::{Budget, Shortage};
use crate::film::Presentation;
use crate::lock::lock;
use crate::produce::rendition::Rendition;
use crate::produce::worker::Reader;
use crate::segments::{Segment, SegmentError, SegmentReader};
use crate::source::Source;
use crate::stream::Stream;
use crate::stream::actor::segment_failure;
use crate::stream::state::{Failure, FailureCode};
use crate::stream::view::{DownloadView, ErrorView};
use crate::subtitles::Track;
use crate::swarm::Swarm;
use crate::tasks::{End, Tasks};

/// A segment that fails is asked for again after so long, and so often.
const AGAIN: (Duration, usize) = (Duration::from_secs(2), 30);
/// So long room is waited for that somebody is about to give up.
const ROOM_WITHIN: Duration = Duration::from_secs(60);
/// Bytes that are written in one go.
const WRITE: usize = 1 << 20;
/// What a file takes besides its media, of each minute: tables of some bytes per sample.
const TABLES_PER_MINUTE: u64 = 64 << 10;

/// What of a film is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chosen {
    /// Names of sound renditions; all where nothing is said.
    pub audio: Option<Vec<String>>,
    /// Names of text tracks; all where nothing is said.
    pub subtitles: Option<Vec<String>>,
}

/// All files to keep.
pub struct Downloads {
    folder: PathBuf,
    budget: Arc<Budget>,
    tasks: Tasks,
    all: Mutex<HashMap<String, Download>>,
}

enum Download {
    /// It is being made by this task.
    Making(#[allow(dead_code, reason = "ends with it")] AbortOnDropHandle<End>),
    Whole,
}

/// A whole file, to read from.
#[derive(Debug)]
pub struct Kept {
    head: Bytes,
    media: File,
    media_len: u64,
}

impl Kept {
    /// Bytes of the whole file.
    pub fn len(&self) -> u64 {
        self.head.len() as u64 + self.media_len
    }

    /// Whether there is nothing in it: never.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// At most `most` bytes from `at` on; none at the end. Blocks for as long as the disk takes.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn read(&self, at: u64, most: usize) -> io::Result<Bytes> {
        if let Some(rest) = usize::try_from(at).ok().and_then(|at| self.head.get(at..)).filter(|rest| !rest.is_empty()) {
            let from = self.head.len() - rest.len();
            return Ok(self.head.slice(from..from + rest.len().min(most)));
        }
        let at = at - self.head.len() as u64;
        let take = usize::try_from(self.media_len.saturating_sub(at)).unwrap_or(usize::MAX).min(most);
        let mut buffer = BytesMut::zeroed(take);
        std::os::unix::fs::FileExt::read_exact_at(&self.media, &mut buffer, at)?;
        Ok(buffer.freeze())
    }
}

/// Why a file cannot be made.
#[derive(Debug, thiserror::Error)]
enum MakeError {
    #[error(transparent)]
    Segment(#[from] SegmentError),
    #[error("a segment is not what it should be: {0}")]
    Rubbish(String),
    #[error("there is no room for it: it needs {} bytes and {} of {} are free", .0.needed, .0.free, .0.limit)]
    NoRoom(Shortage),
    #[error(transparent)]
    Disk(#[from] io::Error),
    #[error("the film went away")]
    Gone,
}

impl From<MakeError> for Failure {
    fn from(error: MakeError) -> Self {
        match error {
            MakeError::Segment(error) => segment_failure(&error),
            MakeError::NoRoom(_) => {
                let error = error.to_string();
                Self::new(
                    FailureCode::NoSpace,
                    format!("The film cannot be kept: {error}. Make room or stop another stream, then ask again."),
                )
            }
            MakeError::Disk(error) if error.kind() == io::ErrorKind::StorageFull => {
                Self::new(FailureCode::NoSpace, "The disk is full. Make room or stop another stream, then ask again.")
            }
            MakeError::Disk(error) => {
                Self::new(FailureCode::ConversionFailed, format!("The file could not be written: {}. Ask again.", error.kind()))
            }
            MakeError::Rubbish(_) | MakeError::Gone => {
                Self::new(FailureCode::ConversionFailed, "The film could not be put together. Ask again, or choose another quality.")
            }
        }
    }
}

impl Downloads {
    /// The files of an earlier run that are whole; what else lies in the folder goes.
    ///
    /// # Errors
    /// When the folder cannot be used.
    pub fn open(folder: &Path, budget: Arc<Budget>, tasks: Tasks) -> io::Result<Arc<Self>> {
        fs::create_dir_all(folder)?;
        let mut all = HashMap::new();
        for entry in fs::read_dir(folder)?.flatten() {
            let path = entry.path();
            let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default().to_owned();
            let whole = path.with_extension("head").is_file() && path.with_extension("media").is_file();
            if whole {
                budget.kept_whole(&name, on_disk(folder, &name));
                all.insert(name, Download::Whole);
            } else if path.is_file() {
                fs::remove_file(&path)?;
            }
        }
        Ok(Arc::new(Self { folder: folder.to_owned(), budget, tasks, all: Mutex::new(all) }))
    }

    /// Removes the files of streams that are not among these.
    pub fn sweep(&self, streams: &HashSet<String>) {
        let gone: Vec<String> = lock(&self.all).keys().filter(|name| !streams.contains(*name)).cloned().collect();
        gone.iter().for_each(|name| self.forget(name));
    }

    /// Whether the file of a stream is whole.
    pub fn is_whole(&self, stream: &str) -> bool {
        matches!(lock(&self.all).get(stream), Some(Download::Whole))
    }

    /// The file of a stream, once it is whole. Blocks for as long as the disk takes.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn read(&self, stream: &str) -> io::Result<Option<Kept>> {
        if !self.is_whole(stream) {
            return Ok(None);
        }
        let head = Bytes::from(fs::read(self.path(stream, "head"))?);
        let media = File::open(self.path(stream, "media"))?;
        let media_len = media.metadata()?.len();
        Ok(Some(Kept { head, media, media_len }))
    }

    /// Begins to make the file of a stream; `false` where it is being made, or is there.
    pub fn begin(self: &Arc<Self>, stream: &Arc<Stream>, chosen: Chosen, swarm: Arc<Swarm>) -> bool {
        let mut all = lock(&self.all);
        if all.contains_key(stream.id.as_str()) {
            return false;
        }
        stream.downloads(Some(DownloadView { progress: 0.0, url: None, error: None }));
        let (downloads, making) = (self.clone(), stream.clone());
        let task = self.tasks.spawn("download", async move { downloads.run(&making, &chosen, &swarm).await });
        all.insert(stream.id.to_string(), Download::Making(AbortOnDropHandle::new(task)));
        true
    }

    /// Ends the making of a stream's file and removes what is there of it.
    pub fn forget(&self, stream: &str) {
        let known = lock(&self.all).remove(stream);
        if known.is_some() {
            drop(known);
            self.remove(stream);
        }
    }

    fn remove(&self, stream: &str) {
        for part in ["head", "media", "half"] {
            match fs::remove_file(self.path(stream, part)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => tracing::warn!(%error, "a file to keep could not be removed"),
                _ => {}
            }
        }
        self.budget.kept_left(stream);
    }

    fn path(&self, stream: &str, part: &str) -> PathBuf {
        self.folder.join(stream).with_extension(part)
    }

    async fn run(self: Arc<Self>, stream: &Arc<Stream>, chosen: &Chosen, swarm: &Swarm) {
        let name = stream.id.as_str();
        let made = self.make(stream, chosen, swarm).await;
        let mut all = lock(&self.all);
        // Whoever forgets it meanwhile removes what is there, or finds this.
        if !all.contains_key(name) {
            return;
        }
        match made {
            Ok(()) => {
                self.budget.kept_whole(name, on_disk(&self.folder, name));
                all.insert(name.to_owned(), Download::Whole);
                stream.downloads(Some(whole(stream)));
            }
            Err(error) => {
                tracing::warn!(%error, "a film could not be put together");
                all.remove(name);
                self.remove(name);
                let failure = Failure::from(error);
                stream.downloads(Some(DownloadView { progress: 0.0, url: None, error: Some(ErrorView::from(&failure)) }));
            }
        }
    }

    async fn make(&self, stream: &Arc<Stream>, chosen: &Chosen, swarm: &Swarm) -> Result<(), MakeError> {
        let presentation = film(stream).await?;
        let renditions = renditions(&presentation, chosen);
        self.reserve(stream.id.as_str(), &presentation, &renditions, swarm).await?;
        let (mut whole, reader) = (Whole::new(), Reader::Keeper(stream.id.clone()));
        for rendition in &renditions {
            let init = again(|| rendition.init()).await?;
            whole.add(&init).map_err(|damage| MakeError::Rubbish(damage.to_string()))?;
        }
        let mut media = Media { file: Arc::new(File::create(self.path(stream.id.as_str(), "media"))?), pending: Vec::new() };
        let rows = in_order(&renditions);
        for (done, (at, number)) in rows.iter().enumerate() {
            let Some(rendition) = renditions.get(*at) else { continue };
            let parts = again(|| segment(rendition, *number, &reader, &presentation.film.source)).await?;
            for bytes in parts {
                let pieces = whole.push(*at, bytes).map_err(|error| MakeError::Rubbish(error.to_string()))?;
                media.pending.extend(pieces);
                media.write(self, stream.id.as_str(), WRITE).await?;
            }
            let progress = ((done + 1) as f64 * 1000.0 / rows.len() as f64).floor() / 10.0;
            stream.downloads(Some(DownloadView { progress: progress.min(99.9), url: None, error: None }));
        }
        for track in texts(&presentation, chosen) {
            // Everything that the film holds was read just now; a file beside it that cannot be had is no reason to have no film.
            match presentation.text.known(&track).await {
                Ok((cues, _)) => media.pending.extend(whole.add_text(&track.view.language, &track.view.title, &lines(&cues))),
                Err(error) => tracing::warn!(%error, track = track.view.id, "subtitles are missing in a film to keep"),
            }
        }
        media.write(self, stream.id.as_str(), 0).await?;
        self.put_in_place(stream.id.as_str(), media, whole).await
    }

    /// Room for all of it, before a byte is written.
    async fn reserve(
        &self,
        name: &str,
        presentation: &Presentation,
        renditions: &[Arc<Rendition>],
        swarm: &Swarm,
    ) -> Result<(), MakeError> {
        let bits: u64 = renditions.iter().map(|rendition| rendition.average).sum();
        let seconds = presentation.film.duration;
        let bytes = (bits as f64 / 8.0 * seconds) as u64 + (seconds / 60.0).ceil() as u64 * TABLES_PER_MINUTE;
        let (budget, name) = (self.budget.clone(), name.to_owned());
        let admitted = tokio::task::spawn_blocking(move || budget.admit_kept(&name, bytes)).await;
        if admitted.map_err(|_| MakeError::Gone)?.map_err(MakeError::NoRoom)? {
            swarm.level().await;
        }
        Ok(())
    }

    /// The head last, and in one step: with it the file is whole.
    async fn put_in_place(&self, name: &str, media: Media, whole: Whole) -> Result<(), MakeError> {
        let (half, head) = (self.path(name, "half"), self.path(name, "head"));
        let written = tokio::task::spawn_blocking(move || -> io::Result<()> {
            media.file.sync_all()?;
            let mut file = File::create(&half)?;
            file.write_all(&whole.head())?;
            file.sync_all()?;
            fs::rename(&half, &head)
        });
        written.await.map_err(|_| MakeError::Gone)?.map_err(MakeError::Disk)
    }

    /// Waits until so many bytes may be written.
    async fn spend(&self, bytes: u64) -> io::Result<()> {
        let mut made_room = self.budget.made_room();
        let patience = tokio::time::Instant::now() + ROOM_WITHIN;
        loop {
            made_room.mark_unchanged();
            let Err(full) = self.budget.spend(bytes) else { return Ok(()) };
            if tokio::time::timeout_at(patience, made_room.changed()).await.is_err() {
                return Err(full);
            }
        }
    }
}

/// The media of a file that is being written.
struct Media {
    file: Arc<File>,
    pending: Vec<Bytes>,
}

impl Media {
    /// Writes what is pending, if it is at least so much.
    async fn write(&mut self, downloads: &Downloads, name: &str, least: usize) -> Result<(), MakeError> {
        let bytes: usize = self.pending.iter().map(Bytes::len).sum();
        if bytes < least || bytes == 0 {
            return Ok(());
        }
        downloads.spend(bytes as u64).await?;
        let (file, pending) = (self.file.clone(), std::mem::take(&mut self.pending));
        let written = tokio::task::spawn_blocking(move || pending.iter().try_for_each(|bytes| (&*file).write_all(bytes)));
        written.await.map_err(|_| MakeError::Gone)??;
        downloads.budget.kept_grew(name, bytes as u64);
        Ok(())
    }
}

/// What is told of a file that is whole.
pub fn whole(stream: &Stream) -> DownloadView {
    DownloadView { progress: 100.0, url: Some(format!("/download/{}", file_name(stream))), error: None }
}

/// The film's name with the ending of what it is now.
fn file_name(stream: &Stream) -> String {
    let title = stream.title().unwrap_or_else(|| "film".to_owned());
    let stem = Path::new(&title).file_stem().and_then(|stem| stem.to_str()).unwrap_or("film").to_owned();
    crate::stream::actor::url_name(&format!("{stem}.mp4"))
}

fn on_disk(folder: &Path, name: &str) -> u64 {
    let blocks =
        |part| fs::metadata(folder.join(name).with_extension(part)).map_or(0, |found| std::os::unix::fs::MetadataExt::blocks(&found) * 512);
    blocks("head") + blocks("media")
}

/// What is played, however long its film takes to open.
async fn film(stream: &Stream) -> Result<Arc<Presentation>, MakeError> {
    loop {
        if stream.state().is_over() {
            return Err(MakeError::Gone);
        }
        if let Some(presentation) = stream.presentation().await {
            return Ok(presentation);
        }
    }
}

fn renditions(presentation: &Presentation, chosen: &Chosen) -> Vec<Arc<Rendition>> {
    let asked = |name: &String| chosen.audio.as_ref().is_none_or(|audio| audio.contains(name));
    let default = presentation.default_audio();
    let named = presentation.audio.iter().enumerate().map(|(at, rendition)| (at, format!("a{}", at + 1), rendition));
    let mut sound: Vec<_> = named.filter(|(_, name, _)| asked(name)).collect();
    // The first one is the one that plays.
    sound.sort_by_key(|(at, _, _)| *at != default);
    let sound = sound.into_iter().map(|(_, _, rendition)| rendition.clone());
    presentation.video().cloned().into_iter().chain(sound).collect()
}

fn texts(presentation: &Presentation, chosen: &Chosen) -> Vec<Arc<Track>> {
    let asked = |track: &Arc<Track>| chosen.subtitles.as_ref().is_none_or(|texts| texts.contains(&track.view.id));
    presentation.text.list().into_iter().filter(|track| track.is_text()).filter(asked).collect()
}

/// All segments in the order of time: which rendition's, and which number.
fn in_order(renditions: &[Arc<Rendition>]) -> Vec<(usize, u32)> {
    let of = |(at, rendition): (usize, &Arc<Rendition>)| {
        let cuts = rendition.cuts.clone();
        (0..cuts.count()).map(move |n| (cuts.start_seconds(n), at, n)).collect::<Vec<_>>()
    };
    let mut all: Vec<(f64, usize, u32)> = renditions.iter().enumerate().flat_map(of).collect();
    all.sort_by(|one, other| one.0.total_cmp(&other.0).then(one.1.cmp(&other.1)));
    all.into_iter().map(|(_, at, n)| (at, n)).collect()
}

/// A whole segment, in the pieces in which it comes.
async fn segment(rendition: &Rendition, number: u32, reader: &Reader, film: &Source) -> Result<Vec<Bytes>, SegmentError> {
    let segment: Option<Segment> = rendition.segment(number, reader).await?;
    let Some(segment) = segment else { return Ok(Vec::new()) };
    let mut reader = SegmentReader::new(segment, film.clone());
    let mut parts = Vec::new();
    while let Some(bytes) = reader.next().await? {
        parts.push(bytes);
    }
    Ok(parts)
}

/// Asks until it is given, as a player does, but not for ever.
async fn again<T, F: Future<Output = Result<T, SegmentError>>>(ask: impl Fn() -> F) -> Result<T, SegmentError> {
    let mut tries = 0;
    loop {
        match ask().await {
            Err(error @ (SegmentError::Late | SegmentError::Anew | SegmentError::Failed(_) | SegmentError::Cache(_)))
                if tries < AGAIN.1 =>
            {
                tracing::debug!(%error, "a segment of a film to keep is asked for again");
                tries += 1;
                tokio::time::sleep(AGAIN.0).await;
            }
            answer => return answer,
        }
    }
}
