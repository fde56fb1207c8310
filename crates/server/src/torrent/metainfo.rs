//! What a torrent says about itself, distrusted: the checks before anything is written, and the choice of the film.
//!
//! Pure: bytes in, a verdict out. Formats: BEP 3 (metainfo), BEP 47 (padding files).

use balcony_media::magnet::{InfoHash, Magnet};
use bytes::{BufMut, Bytes, BytesMut};
use librqbit::{ByteBuf, TorrentMetaV1, TorrentMetaV1Info};

/// Most files of a torrent that is accepted.
const MAX_FILES: usize = 20_000;
/// Most pieces of a torrent that is accepted: 64 Mi pieces would be 1.3 GB of hashes alone.
const MAX_PIECES: u64 = 4 << 20;
/// Lengths of a piece, in bytes, that are accepted. All are powers of two.
const PIECE_LENGTHS: std::ops::RangeInclusive<u32> = 16 << 10..=64 << 20;
/// Most bytes of one torrent: what no disk of a house holds is a lie (and sums stay far from overflow).
const MAX_TOTAL: u64 = 1 << 50;

/// Most trackers of a metainfo file that are looked at.
const MAX_ANNOUNCED: usize = 500;

/// Name endings of files that are films.
const FILM_ENDINGS: &[&str] = &[
    "mp4", "m4v", "mov", "qt", "mkv", "mk3d", "webm", "avi", "divx", "ts", "m2ts", "mts", "m2t", "mpg", "mpeg", "mpe", "m2v", "vob", "wmv",
    "asf", "flv", "f4v", "ogv", "ogm", "3gp", "3g2", "rm", "rmvb", "mxf", "dv",
];

/// Name endings of files that are music: chosen where there is no film.
const SOUND_ENDINGS: &[&str] = &[
    "mp3", "m4a", "m4b", "flac", "ogg", "oga", "opus", "wav", "wma", "mka", "aac", "ac3", "eac3", "dts", "ape", "wv", "tta", "aif", "aiff",
];

/// One file of a torrent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// Its number in the torrent, from 0.
    pub index: usize,
    /// Path within the torrent, folders divided by `/`, without control characters. For people only: nothing is written there.
    pub path: String,
    /// Bytes.
    pub length: u64,
    /// Whether its name says that it is a film or music.
    pub playable: bool,
}

impl FileEntry {
    /// The path's last part.
    pub fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }
}

/// Which file to play: the wanted one if it can be played, else the largest film, else the first piece of music by name.
///
/// A sample (so called in its path, and less than a tenth of the largest film) is never chosen, not even when it is the wanted one:
/// clients send 0 by habit. `None` when there is nothing that can be played.
pub fn choose_film(files: &[FileEntry], wanted: Option<usize>) -> Option<usize> {
    let playable = || files.iter().filter(|file| file.playable && file.length > 0);
    let films = || playable().filter(|file| is_film(&file.path));
    let largest = films().max_by_key(|file| (file.length, std::cmp::Reverse(file.index)));
    let least = largest.map_or(0, |film| film.length / 10);
    let is_sample = |file: &FileEntry| file.path.to_ascii_lowercase().contains("sample") && file.length < least;
    let named = playable().find(|file| Some(file.index) == wanted && !is_sample(file));
    let chosen = named.or(largest).or_else(|| playable().min_by(|a, b| a.path.cmp(&b.path)))?;
    Some(chosen.index)
}

/// A torrent's metadata after all checks.
#[derive(Debug, Clone)]
pub(super) struct Metainfo {
    pub(super) bytes: Bytes,
    pub(super) name: Option<String>,
    pub(super) piece_len: u32,
    pub(super) total: u64,
    /// SHA-1 of each piece, 20 bytes each (BEP 3, `pieces`).
    pub(super) hashes: Bytes,
    pub(super) files: Vec<FileEntry>,
    /// Which files are padding (BEP 47): zeros that are neither written nor shown.
    pub(super) padding: Vec<bool>,
    /// Peers come from trackers only (BEP 27).
    pub(super) private: bool,
}

impl Metainfo {
    /// The number of pieces.
    pub(super) fn pieces(&self) -> u32 {
        u32::try_from(self.total.div_ceil(u64::from(self.piece_len))).unwrap_or(u32::MAX)
    }

    /// Reads and checks a metainfo file. The error is a sentence that says what is wrong with the torrent.
    ///
    /// The parser behind it is not ours: call it where a panic ends a task and not the program.
    pub(super) fn examine(bytes: &Bytes, expected: InfoHash) -> Result<Self, String> {
        let parsed = librqbit::torrent_from_bytes(bytes).map_err(|error| format!("The torrent's metadata cannot be read: {error}."))?;
        if parsed.info_hash.0 != expected.0 {
            return Err("The metadata belongs to another torrent.".into());
        }
        Self::checked(parsed, bytes.clone())
    }

    fn checked(parsed: TorrentMetaV1<ByteBuf<'_>>, bytes: Bytes) -> Result<Self, String> {
        let info = parsed.info.data;
        let (piece_len, total) = check_sizes(&info)?;
        let hashes = part_of(&bytes, info.pieces.as_ref());
        let info = info.validate().map_err(|error| format!("The torrent's files are not acceptable: {error}."))?;
        let mut files = Vec::new();
        let mut padding = Vec::new();
        for (index, details) in info.iter_file_details().enumerate() {
            let attributes = details.attrs();
            if attributes.symlink || details.symlink_path.is_some() {
                return Err("The torrent contains links instead of files.".into());
            }
            let path = shown_path(details.filename.to_vec())?;
            let playable = !attributes.padding && (is_film(&path) || is_sound(&path));
            files.push(FileEntry { index, path, length: details.len, playable });
            padding.push(attributes.padding);
        }
        let name = info.name().map(|name| without_controls(&name));
        Ok(Self { bytes, name, piece_len, total, hashes, files, padding, private: info.info().private })
    }
}

/// The same bytes without a copy where they lie in `whole`; for a large torrent they are most of it.
fn part_of(whole: &Bytes, part: &[u8]) -> Bytes {
    let (all, some) = (whole.as_ptr_range(), part.as_ptr_range());
    if all.start <= some.start && some.end <= all.end { whole.slice_ref(part) } else { Bytes::copy_from_slice(part) }
}

/// A metainfo file that somebody brought.
#[derive(Debug)]
pub(super) struct Offered {
    /// What leads others to the same torrent.
    pub(super) magnet: Magnet,
    /// Rewritten: nothing stands in it but the info dictionary, so that no tracker and no web seed is asked past our checks.
    pub(super) metainfo: Metainfo,
}

/// Why such a file is refused. A sentence for people.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// It is no metainfo file, or a damaged one, or one of version 2 only (BEP 52).
    Unreadable(String),
    /// It can be read, and is a trap or nonsense.
    Unsafe(String),
}

impl Offered {
    /// Reads and checks a metainfo file of a torrent that nobody has named yet. As for [`Metainfo::examine`]: the parser is not ours.
    pub(super) fn examine(bytes: &[u8]) -> Result<Self, Refused> {
        let unreadable = |_| Refused::Unreadable("This is not a torrent file that can be read.".to_owned());
        let parsed = librqbit::torrent_from_bytes(bytes).map_err(unreadable)?;
        let info_hash = InfoHash(parsed.info_hash.0);
        let info = parsed.info.raw_bytes.as_ref();
        let mut rewritten = BytesMut::with_capacity(info.len() + 8);
        rewritten.put_slice(b"d4:info");
        rewritten.put_slice(info);
        rewritten.put_slice(b"e");
        let trackers: Vec<String> =
            parsed.iter_announce().take(MAX_ANNOUNCED).map(|tracker| String::from_utf8_lossy(tracker.as_ref()).into_owned()).collect();
        let metainfo = Metainfo::checked(parsed, rewritten.freeze()).map_err(Refused::Unsafe)?;
        let magnet = Magnet::described(info_hash, metainfo.name.as_deref(), trackers.iter().map(String::as_str));
        Ok(Self { magnet, metainfo })
    }
}

/// Piece length, file count, sums and the number of hashes, on the raw fields: the parser's own arithmetic trusts them.
fn check_sizes(info: &TorrentMetaV1Info<ByteBuf<'_>>) -> Result<(u32, u64), String> {
    let piece_len = info.piece_length;
    if !piece_len.is_power_of_two() || !PIECE_LENGTHS.contains(&piece_len) {
        return Err(format!("The torrent's piece length is {piece_len} bytes: it must be a power of two from 16 KiB to 64 MiB."));
    }
    let lengths: Vec<u64> = match (&info.length, &info.files) {
        (Some(length), None) => vec![*length],
        (None, Some(files)) => files.iter().map(|file| file.length).collect(),
        _ => return Err("The torrent says neither clearly that it is one file nor that it is many.".into()),
    };
    if lengths.len() > MAX_FILES {
        return Err(format!("The torrent has {} files: more than {MAX_FILES} are not accepted.", lengths.len()));
    }
    let total = lengths.iter().try_fold(0_u64, |sum, length| sum.checked_add(*length)).filter(|total| (1..=MAX_TOTAL).contains(total));
    let total = total.ok_or("The torrent claims a size that cannot be.")?;
    let pieces = total.div_ceil(u64::from(piece_len));
    let hashes = info.pieces.as_ref().len() as u64;
    // rqbit gives a torrent that ends with a whole piece one hash too many, that of nothing. It harms nobody.
    let one_too_many = total.is_multiple_of(u64::from(piece_len)) && hashes == (pieces + 1) * 20;
    if pieces > MAX_PIECES || (hashes != pieces * 20 && !one_too_many) {
        return Err("The torrent's size does not fit the number of its pieces.".into());
    }
    Ok((piece_len, total))
}

fn shown_path(parts: Vec<String>) -> Result<String, String> {
    let strange = |part: &String| part.is_empty() || part == "." || part == ".." || part.contains(['/', '\\', '\0']);
    if parts.is_empty() || parts.iter().any(strange) {
        return Err("The torrent's file names try to leave their folder.".into());
    }
    Ok(without_controls(&parts.join("/")))
}

fn without_controls(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

fn is_film(path: &str) -> bool {
    ends_with(path, FILM_ENDINGS)
}

fn is_sound(path: &str) -> bool {
    ends_with(path, SOUND_ENDINGS)
}

fn ends_with(path: &str, endings: &[&str]) -> bool {
    let ending = path.rsplit('/').next().and_then(|name| name.rsplit_once('.')).map(|(_, ending)| ending.to_ascii_lowercase());
    ending.is_some_and(|ending| endings.contains(&ending.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(list: &[(&str, u64)]) -> Vec<FileEntry> {
        list.iter()
            .enumerate()
            .map(|(index, (path, length))| FileEntry {
                index,
                path: (*path).into(),
                length: *length,
                playable: is_film(path) || is_sound(path),
            })
            .collect()
    }

    #[test]
    fn the_film_is_chosen() {
        let pack = [("readme.txt", 10), ("Sample/film-sample.mkv", 50), ("film.mkv", 1000), ("extra.mp4", 400), ("cover.jpg", 5000)];
        type Case<'a> = (&'a str, &'a [(&'a str, u64)], Option<usize>, Option<usize>);
        let cases: &[Case<'_>] = &[
            ("the largest film, not the largest file", &pack, None, Some(2)),
            ("a wanted film", &pack, Some(3), Some(3)),
            ("a wanted text file", &pack, Some(0), Some(2)),
            ("a wanted picture", &pack, Some(4), Some(2)),
            ("a wanted sample", &pack, Some(1), Some(2)),
            ("out of range", &pack, Some(99), Some(2)),
            ("no film at all", &[("a.txt", 1), ("b.iso", 2)], None, None),
            ("nothing", &[], Some(0), None),
            ("only a sample", &[("sample.mkv", 7)], None, Some(0)),
            ("a film about samples", &[("sample of life.mkv", 700), ("other.mkv", 800)], Some(0), Some(0)),
            ("of equals the first", &[("a.mkv", 5), ("b.mkv", 5)], None, Some(0)),
            ("upper case", &[("a.txt", 5), ("B.MKV", 5)], None, Some(1)),
            ("an empty film", &[("a.mkv", 0), ("b.txt", 5)], Some(0), None),
            ("an album, from its first piece on", &[("b/02.flac", 9), ("b/01.flac", 5), ("b/cover.jpg", 7)], None, Some(1)),
            ("a wanted piece of music", &[("01.mp3", 9), ("02.mp3", 5)], Some(1), Some(1)),
            ("a film and its music", &[("music.flac", 900), ("film.avi", 700)], None, Some(1)),
            ("the wanted music of a film", &[("music.flac", 900), ("film.avi", 700)], Some(0), Some(0)),
            ("a dot in the folder only", &[("season.mkv/notes", 5)], None, None),
        ];
        for (what, list, wanted, expected) in cases {
            assert_eq!(choose_film(&files(list), *wanted), *expected, "{what}");
        }
    }

    #[test]
    fn shown_paths_have_no_tricks() {
        let parts = |list: &[&str]| list.iter().map(|part| (*part).to_owned()).collect::<Vec<_>>();
        assert_eq!(shown_path(parts(&["a", "b.mkv"])).as_deref(), Ok("a/b.mkv"));
        assert_eq!(shown_path(parts(&["a\u{1b}[31m.mkv"])).as_deref(), Ok("a[31m.mkv"));
        for tricks in [&[][..], &[".."], &["a", ".."], &["a/b"], &["a\\b"], &[""], &["."], &["a\0"]] {
            assert!(shown_path(parts(tricks)).is_err(), "{tricks:?}");
        }
    }
}
