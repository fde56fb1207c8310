//! Attachments (RFC 9559, section 5.1.6): files that a film carries, fonts above all. Only where they lie is found out, and what they
//! are said to be; their bytes are not asked for.

use super::super::{Sparse, Stop};
use super::ebml::{Element, element, peek_within, text};
use super::{ATTACHMENTS, Contents, HEAD, if_sound, open_segment};

/// Most files that are listed.
const MOST_FILES: usize = 256;
/// Most elements that are passed.
const MOST_ELEMENTS: usize = 4096;
/// Longest name that is read, in bytes.
const LONGEST_NAME: u64 = 1024;

const ATTACHED_FILE: u32 = 0x61A7;
const FILE_NAME: u32 = 0x466E;
const FILE_MEDIA_TYPE: u32 = 0x4660;
const FILE_DATA: u32 = 0x465C;

/// A file that a film carries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attached {
    /// FileName: what somebody called it. Not to be used as a path.
    pub name: String,
    /// FileMediaType.
    pub kind: String,
    /// File offset of its bytes.
    pub offset: u64,
    /// How many.
    pub len: u64,
}

impl Attached {
    /// Whether it is said to be a font: by its media type (RFC 8081, and the older ones that muxers write), else by its name.
    pub fn is_font(&self) -> bool {
        let (kind, name) = (self.kind.to_ascii_lowercase(), self.name.to_ascii_lowercase());
        ["font", "truetype", "opentype"].iter().any(|word| kind.contains(word))
            || [".ttf", ".otf", ".ttc", ".otc"].iter().any(|ending| name.ends_with(ending))
    }
}

/// The files that a film carries, in file order; none where it has no such element, or a broken one.
///
/// Reads the first 64 KiB, what a SeekHead says, and some 64 bytes at each element of the list.
pub fn attachments(bytes: &Sparse) -> Result<Vec<Attached>, Stop> {
    bytes.get(0, peek_within(bytes, 0, HEAD))?;
    let segment = open_segment(bytes)?;
    let Some(list) = Contents::walk(bytes, &segment)?.locate(bytes, ATTACHMENTS)? else { return Ok(Vec::new()) };
    let end = list.end().unwrap_or(segment.end).min(segment.end);
    let (mut all, mut at, mut left) = (Vec::new(), list.body, MOST_ELEMENTS);
    while at < end && left > 0 && all.len() < MOST_FILES {
        left -= 1;
        let Some(found) = if_sound(element(bytes, at))? else { break };
        // One of unknown size would be all that follows.
        let Some(next) = found.end().filter(|next| *next <= end) else { break };
        if found.id == ATTACHED_FILE {
            all.extend(file(bytes, &found, next, &mut left)?);
        }
        at = next;
    }
    Ok(all)
}

fn file(bytes: &Sparse, place: &Element, end: u64, left: &mut usize) -> Result<Option<Attached>, Stop> {
    let (mut file, mut at) = (Attached::default(), place.body);
    while at < end && *left > 0 {
        *left -= 1;
        let Some(found) = if_sound(element(bytes, at))? else { break };
        let Some(size) = found.size.filter(|_| found.end().is_some_and(|next| next <= end)) else { break };
        match found.id {
            FILE_NAME => file.name = name(bytes, &found, size)?,
            FILE_MEDIA_TYPE => file.kind = name(bytes, &found, size)?,
            FILE_DATA => (file.offset, file.len) = (found.body, size),
            _ => {}
        }
        at = found.body.saturating_add(size);
    }
    Ok((file.len > 0).then_some(file))
}

fn name(bytes: &Sparse, place: &Element, size: u64) -> Result<String, Stop> {
    let len = peek_within(bytes, place.body, usize::try_from(size.min(LONGEST_NAME)).unwrap_or(0));
    Ok(text(&bytes.get(place.body, len)?))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    fn node(id: &[u8], body: &[u8]) -> Vec<u8> {
        let size = (body.len() as u64 | 1 << 56).to_be_bytes();
        [id, &size, body].concat()
    }

    fn attached(name: &str, kind: &str, data: &[u8]) -> Vec<u8> {
        let parts =
            [node(b"\x46\x6e", name.as_bytes()), node(b"\x46\x60", kind.as_bytes()), node(b"\x46\x5c", data), node(b"\x46\xae", &[1])];
        node(b"\x61\xa7", &parts.concat())
    }

    fn film(parts: &[Vec<u8>]) -> Vec<u8> {
        [node(b"\x1a\x45\xdf\xa3", &node(b"\x42\x82", b"matroska")), node(b"\x18\x53\x80\x67", &parts.concat())].concat()
    }

    /// Reads with a window that is fed what is asked for; answers also how many bytes those were behind the head.
    fn read(film: &[u8]) -> (Result<Vec<Attached>, Stop>, u64) {
        let (mut known, mut asked) = (Sparse::new(film.len() as u64), 0);
        for _ in 0..20_000 {
            match attachments(&known) {
                Err(Stop::Need { offset, len }) => {
                    let range = offset as usize..(offset + len) as usize;
                    known.insert(offset, Bytes::copy_from_slice(&film[range]));
                    asked += if offset > 0 { len } else { 0 };
                }
                answer => return (answer, asked),
            }
        }
        panic!("it never ends");
    }

    #[test]
    fn fonts_in_front_of_the_pictures_and_behind_them() {
        let list =
            node(b"\x19\x41\xa4\x69", &[attached("a.ttf", "font/ttf", &[7; 300_000]), attached("../../b", "image/png", &[8; 9])].concat());
        let cluster = node(b"\x1f\x43\xb6\x75", &[0xec, 0x80]);
        let check = |film: &[u8]| {
            let (found, asked) = read(film);
            let found = found.expect("a list");
            let told: Vec<_> = found.iter().map(|file| (file.name.as_str(), file.kind.as_str(), file.len, file.is_font())).collect();
            assert_eq!(told, [("a.ttf", "font/ttf", 300_000, true), ("../../b", "image/png", 9, false)]);
            for (file, byte) in found.iter().zip([7, 8]) {
                let place = file.offset as usize..(file.offset + file.len) as usize;
                assert!(film[place].iter().all(|at| *at == byte));
            }
            assert!(asked < 4096, "{asked} bytes");
        };
        check(&film(&[list.clone(), cluster.clone()]));
        // Behind them: a SeekHead tells.
        let head = |position: u64| {
            node(
                b"\x11\x4d\x9b\x74",
                &node(b"\x4d\xbb", &[node(b"\x53\xab", b"\x19\x41\xa4\x69"), node(b"\x53\xac", &position.to_be_bytes())].concat()),
            )
        };
        let before = [head(0), cluster.clone()].concat().len() as u64;
        check(&film(&[head(before), cluster.clone(), list]));
        assert_eq!(read(&film(&[cluster])).0, Ok(Vec::new()));
    }

    #[test]
    fn fonts_are_known_by_kind_or_name() {
        for (name, kind, is) in [
            ("a", "application/x-truetype-font", true),
            ("a", "application/vnd.ms-opentype", true),
            ("A.TTF", "application/octet-stream", true),
            ("cover.jpg", "image/jpeg", false),
            ("", "", false),
        ] {
            assert_eq!(Attached { name: name.into(), kind: kind.into(), offset: 0, len: 1 }.is_font(), is, "{name} {kind}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_some_list(cut in any::<prop::sample::Index>(), noise in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8)) {
            let mut bytes = film(&[node(b"\x19\x41\xa4\x69", &[attached("a.ttf", "font/ttf", &[7; 40]), attached("b", "x", &[8; 9])].concat())]);
            for (at, byte) in noise {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes.truncate(cut.index(bytes.len()) + 1);
            if let Ok(files) = read(&bytes).0 {
                for file in files {
                    prop_assert!(file.offset + file.len <= bytes.len() as u64);
                }
            }
        }
    }
}
