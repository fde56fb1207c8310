//! The length of films whose containers do not tell it.

use std::path::Path;
use std::process::Command;

use balcony_media::container::{Index, Sparse, Stop, matroska, mp4, tail};
use bytes::Bytes;

fn film(folder: &Path, name: &str, how: &[&str]) -> Bytes {
    let path = folder.join(name);
    let made = Command::new("ffmpeg")
        .args(["-v", "error", "-y", "-f", "lavfi", "-i", "testsrc2=s=160x90:r=25:d=7", "-f", "lavfi", "-i", "sine=d=7"])
        .args(how)
        .arg(&path)
        .status()
        .expect("ffmpeg is installed");
    assert!(made.success());
    std::fs::read(path).expect("just made").into()
}

fn index(parse: fn(&Sparse) -> Result<Index, Stop>, film: &Bytes) -> Index {
    let mut known = Sparse::new(film.len() as u64);
    known.insert(0, film.clone());
    parse(&known).expect("a film")
}

#[test]
fn a_live_capture_ends_where_its_last_block_ends() {
    let folder = tempfile::tempdir().expect("a folder");
    let film = film(folder.path(), "live.mkv", &["-c:v", "libx264", "-c:a", "aac", "-f", "matroska", "-live", "1"]);
    let index = index(matroska::index, &film);
    assert_eq!(index.duration, None);
    for kept in [film.len(), film.len() / 4] {
        let from = film.len() - kept;
        let end = tail::last_time(&index, None, from as u64, film.slice(from..)).expect("the end is in the tail");
        assert!((6.9..7.1).contains(&end), "{end}");
    }
    assert_eq!(tail::last_time(&index, None, film.len() as u64 - 10, film.slice(film.len() - 10..)), None);
}

#[test]
fn a_fragmented_film_ends_where_its_last_fragment_ends() {
    let folder = tempfile::tempdir().expect("a folder");
    let film = film(folder.path(), "f.mp4", &["-c:v", "libx264", "-c:a", "aac", "-g", "25", "-movflags", "+frag_keyframe+empty_moov"]);
    let index = index(mp4::index, &film);
    let mut known = Sparse::new(film.len() as u64);
    known.insert(0, film.clone());
    let context = mp4::Context::read(&known).expect("a fragmented film");
    let from = film.len() / 2;
    let end = tail::last_time(&index, Some(&context), from as u64, film.slice(from..)).expect("the end is in the tail");
    assert!((6.9..7.1).contains(&end), "{end}");
}
