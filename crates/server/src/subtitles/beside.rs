//! Files of subtitles beside a film in its torrent: found by their names, fetched when somebody asks for one, read once.

use std::sync::Arc;

use balcony_media::subtitle::{self, Cue, Format, LARGEST_FILE, charset, name};
use tokio::sync::OnceCell;

use super::TextError;
use crate::swarm::Torrent;
use crate::torrent::FileEntry;

/// The files that belong to `film`, in the torrent's order; without a format those that hold images (VobSub).
pub(super) fn find<'a>(files: &'a [FileEntry], film: &FileEntry) -> Vec<(&'a FileEntry, Option<Format>)> {
    let only = files.iter().filter(|file| file.playable && file.length > 0 && file.length >= film.length / 10).count() <= 1;
    let those = files.iter().filter(|file| name::belongs(&file.path, &film.path, only));
    let with_format = those.filter_map(|file| {
        let format = Format::of_name(&file.path)?;
        let is_image = format == Format::Sub && has_index(files, &file.path);
        let fits = is_image || (1..=LARGEST_FILE as u64).contains(&file.length);
        fits.then_some((file, (!is_image).then_some(format)))
    });
    with_format.collect()
}

/// VobSub is two files: `.idx` tells where the images are in `.sub`.
fn has_index(files: &[FileEntry], path: &str) -> bool {
    let stem = |path: &str| path.rsplit_once('.').map(|(stem, ending)| (stem.to_lowercase(), ending.to_lowercase()));
    let Some((wanted, _)) = stem(path) else { return false };
    files.iter().any(|file| stem(&file.path).is_some_and(|(stem, ending)| ending == "idx" && stem == wanted))
}

/// One file.
pub(super) struct Beside {
    torrent: Torrent,
    index: usize,
    language: String,
    /// Pictures per second of the film, for formats that count them.
    rate: Option<f64>,
    cues: OnceCell<Arc<[Cue]>>,
}

impl Beside {
    pub(super) fn new(torrent: Torrent, index: usize, language: String, rate: Option<f64>) -> Self {
        Self { torrent, index, language, rate, cues: OnceCell::new() }
    }

    /// Its cues; the file is fetched if that was not done yet. It goes on being fetched if the caller goes away, and whoever asks next
    /// waits for the rest only.
    pub(super) async fn cues(&self) -> Result<Arc<[Cue]>, TextError> {
        self.cues.get_or_try_init(|| self.read()).await.cloned()
    }

    async fn read(&self) -> Result<Arc<[Cue]>, TextError> {
        let text = text(&self.torrent, self.index, &self.language).await?;
        let rate = self.rate;
        let read = move || subtitle::parse(&text, rate).map(|(_, cues)| cues).unwrap_or_default();
        Ok(tokio::task::spawn_blocking(read).await.unwrap_or_default().into())
    }
}

/// The text of a file beside a film; fetched, if that was not done yet.
pub(super) async fn text(torrent: &Torrent, index: usize, language: &str) -> Result<String, TextError> {
    let source = torrent.film(index).await?;
    let len = usize::try_from(source.len()).unwrap_or(usize::MAX).min(LARGEST_FILE);
    let bytes = source.read_at(0, len).await?;
    // It is read once: from here on nothing of the torrent is needed for it.
    torrent.release(index);
    let language = language.to_owned();
    Ok(tokio::task::spawn_blocking(move || charset::decode(&bytes, Some(&language))).await.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_found_and_images_told_from_text() {
        let file = |index, path: &str, length, playable| FileEntry { index, path: path.to_owned(), length, playable };
        let files = [
            file(0, "F/Film.mkv", 1000, true),
            file(1, "F/Film.en.srt", 10, false),
            file(2, "F/Film.sub", 10, false),
            file(3, "F/Film.IDX", 10, false),
            file(4, "F/Subs/2_German.sub", 10, false),
            file(5, "F/sample.mkv", 10, true),
            file(6, "F/Film.de.srt", 9 << 20, false),
            file(7, "F/Film.fr.srt", 0, false),
        ];
        let found: Vec<_> = find(&files, &files[0]).into_iter().map(|(file, format)| (file.index, format)).collect();
        assert_eq!(found, [(1, Some(Format::Srt)), (2, None), (4, Some(Format::Sub))]);
    }
}
