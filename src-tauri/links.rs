//! What a start of the program brings with it: magnet links, torrent files, whether a window is wanted. The first start and those that
//! hand their arguments over to it are read alike.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use balcony_server::config::typed;

/// Starts without a window: for the entry that the session starts by itself.
pub(crate) const HIDDEN: &str = "--hidden";

/// A film that somebody wants to be added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Link {
    /// A magnet link, unchecked: the server does that.
    Magnet(String),
    /// A torrent file.
    File(PathBuf),
}

/// The arguments of one start, taken apart.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Launch {
    /// No window is wanted.
    pub(crate) hidden: bool,
    /// The films to be added.
    pub(crate) links: Vec<Link>,
    /// What the server's own settings are read from.
    pub(crate) rest: Vec<OsString>,
}

impl Launch {
    /// Takes arguments apart, without the program's own name. Relative paths are below `folder`.
    pub(crate) fn read(arguments: impl IntoIterator<Item = OsString>, folder: &Path) -> Self {
        let mut launch = Self::default();
        let mut is_value = false;
        for argument in arguments {
            // The child that becomes ffmpeg: its arguments are nobody's but its own.
            let is_child = launch.rest.first().is_some_and(|first| first == "cage");
            match link(&argument, folder).filter(|_| !is_child && !is_value) {
                Some(link) => launch.links.push(link),
                None if !is_child && argument == HIDDEN => launch.hidden = true,
                None => {
                    is_value = takes_value(&argument);
                    launch.rest.push(argument);
                    continue;
                }
            }
            is_value = false;
        }
        launch
    }
}

/// Whether the next argument may be this one's value. A switch has its value behind a `=`, so what follows it stands for itself.
fn takes_value(argument: &OsStr) -> bool {
    let name = argument.to_str().and_then(|text| text.strip_prefix("--"));
    name.is_some_and(|name| !name.contains('=') && !typed::is_switch(name))
}

fn link(argument: &OsStr, folder: &Path) -> Option<Link> {
    let text = argument.to_string_lossy();
    if starts_with(&text, "magnet:") {
        return Some(Link::Magnet(text.into_owned()));
    }
    if !Path::new(argument).extension()?.eq_ignore_ascii_case("torrent") || text.starts_with('-') {
        return None;
    }
    // A desktop entry's `%u` hands files over as addresses.
    let path = match starts_with(&text, "file:") {
        true => tauri::Url::parse(&text).ok()?.to_file_path().ok()?,
        false => folder.join(argument),
    };
    Some(Link::File(path))
}

fn starts_with(text: &str, scheme: &str) -> bool {
    text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme))
}

/// The first magnet link or bare info hash (40 of hex, 32 of base32) in a text that somebody copied.
pub(crate) fn magnet_in(text: &str) -> Option<String> {
    let is_hash = |word: &str| match word.len() {
        40 => word.bytes().all(|b| b.is_ascii_hexdigit()),
        32 => word.bytes().all(|b| b.is_ascii_alphabetic() || (b'2'..=b'7').contains(&b)),
        _ => false,
    };
    let words = text.split(|c: char| c.is_whitespace() || "<>\"'".contains(c));
    words.into_iter().find(|word| starts_with(word, "magnet:") || is_hash(word)).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &[&str]) -> Launch {
        Launch::read(arguments.iter().map(OsString::from), Path::new("/home/anna"))
    }

    #[test]
    fn links_are_told_from_settings() {
        let launch = read(&["--hidden", "magnet:?xt=urn:btih:x", "--http-port", "0", "film.torrent", "file:///tmp/a%20b.torrent", "serve"]);
        assert!(launch.hidden);
        let expected = [
            Link::Magnet("magnet:?xt=urn:btih:x".into()),
            Link::File("/home/anna/film.torrent".into()),
            Link::File("/tmp/a b.torrent".into()),
        ];
        assert_eq!(launch.links, expected);
        assert_eq!(launch.rest, ["--http-port", "0", "serve"]);
    }

    #[test]
    fn a_switch_does_not_swallow_the_link_behind_it() {
        let launch = read(&["--no-trackers", "magnet:x", "--hidden", "--no-dht", "a.torrent", "--sample=true", "b.torrent"]);
        let expected =
            [Link::Magnet("magnet:x".into()), Link::File("/home/anna/a.torrent".into()), Link::File("/home/anna/b.torrent".into())];
        assert_eq!(launch.links, expected);
        assert_eq!(launch.rest, ["--no-trackers", "--no-dht", "--sample=true"]);
    }

    #[test]
    fn what_is_anothers_stays() {
        assert_eq!(read(&["cage", "--hidden", "magnet:x", "x.torrent"]).rest, ["cage", "--hidden", "magnet:x", "x.torrent"]);
        assert_eq!(read(&["--data-dir", "my.torrent", "--x.torrent", "http://x/y.torrent.html"]).links, []);
        assert_eq!(read(&["--unheard-of", "magnet:x"]).links, []);
        assert_eq!(read(&["--data-dir=/x", "/y/z.TORRENT"]).links, [Link::File("/y/z.TORRENT".into())]);
        assert_eq!(read(&[]), Launch::default());
    }

    #[test]
    fn a_magnet_is_found_in_what_was_copied() {
        let hash = "dd8255ecdc7ca55fb0bbf81323d87062db1f6d1c";
        let table = [
            ("magnet:?xt=urn:btih:x&dn=y", Some("magnet:?xt=urn:btih:x&dn=y")),
            ("  see <MAGNET:?xt=1>\n", Some("MAGNET:?xt=1")),
            (hash, Some(hash)),
            ("https://example.org/magnet", None),
            ("", None),
        ];
        for (text, found) in table {
            assert_eq!(magnet_in(text).as_deref(), found, "{text:?}");
        }
    }
}
