//! Everything that somebody who helps may want to see, in one archive: what was found, the settings, the metrics, the database's size, the
//! last lines of the log. Nothing secret and nothing private in it: no token, no film, no name of a person or a device, no address from
//! outside, no name of the user.
//!
//! What goes in has no secrets to begin with; all the same every text passes the same filter, because libraries write logs too. A gzipped
//! tar archive (POSIX.1-1988 ustar, RFC 1952): every system opens that.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::Timestamp;

use super::report::without_house;
use crate::config::listed::Kind;
use crate::logging;
use crate::settings::{Overview, Source};

/// The most bytes of each log file: its end.
const LOG_TAIL: u64 = 1 << 20;
/// The folder in the archive.
const FOLDER: &str = "balcony-bundle";

/// Texts by the names of their files.
#[derive(Debug, Default)]
pub struct Bundle {
    files: Vec<(String, String)>,
}

impl Bundle {
    /// Nothing is in it.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a text, without what is nobody's business.
    pub fn add(&mut self, name: impl Into<String>, text: &str) {
        self.files.push((name.into(), filtered(text)));
    }

    /// Adds the ends of all log files of this data folder. Blocks.
    pub fn add_logs(&mut self, data_dir: &Path) {
        let entries = std::fs::read_dir(data_dir.join("logs")).into_iter().flatten().flatten();
        let mut names: Vec<_> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.retain(|name| name.starts_with("balcony.log"));
        names.sort();
        for name in names {
            match end_of(&data_dir.join("logs").join(&name)) {
                Ok(text) => self.add(format!("logs/{name}"), &text),
                Err(error) => self.add(format!("logs/{name}"), &format!("It cannot be read: {}.\n", error.kind())),
            }
        }
    }

    /// The archive. `now` is when everything in it was made.
    ///
    /// # Errors
    /// None but a defect: it is written into memory.
    pub fn archive(&self, now: Timestamp) -> io::Result<Vec<u8>> {
        let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
        for (name, text) in &self.files {
            let mut header = tar::Header::new_ustar();
            header.set_size(text.len() as u64);
            header.set_mode(0o600);
            header.set_mtime(u64::try_from(now.as_second()).unwrap_or(0));
            archive.append_data(&mut header, format!("{FOLDER}/{name}"), text.as_bytes())?;
        }
        archive.into_inner()?.finish()
    }
}

/// What the settings are and where they come from. Only values that can tell nothing about a household: numbers and switches.
pub fn settings(overview: &Overview) -> String {
    let mut text = String::new();
    for entry in &overview.entries {
        let source = match entry.source {
            Source::Default => "default",
            Source::File => "file",
            Source::Environment => "environment",
            Source::Flag => "flag",
        };
        let value = match entry.setting.kind {
            Kind::Number | Kind::Size | Kind::Time | Kind::Switch => entry.value.to_string(),
            Kind::Text | Kind::List | Kind::Folder | Kind::File => "(not told)".to_owned(),
        };
        let later = if entry.running.is_some() { ", after the next start" } else { "" };
        // Writing to a text cannot fail.
        let _ = writeln!(text, "{} = {value} ({source}{later})", entry.setting.key);
    }
    for mistake in &overview.mistakes {
        let _ = writeln!(text, "mistake: {mistake}");
    }
    text
}

/// The sizes of the files of the database, and the rows of its tables.
pub fn tables(data_dir: &Path, rows: &[(String, u64)]) -> String {
    let mut text = String::new();
    let entries = std::fs::read_dir(data_dir).into_iter().flatten().flatten();
    let mut files: Vec<_> = entries
        .filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.metadata().ok()?.len())))
        .filter(|(name, _)| name.starts_with("balcony.sqlite"))
        .collect();
    files.sort();
    for (name, bytes) in files {
        let _ = writeln!(text, "file {name}: {bytes} bytes");
    }
    for (name, count) in rows {
        let _ = writeln!(text, "table {name}: {count} rows");
    }
    text
}

/// The last lines of a file, whole ones.
fn end_of(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let skipped = file.metadata()?.len().saturating_sub(LOG_TAIL);
    file.seek(SeekFrom::Start(skipped))?;
    let mut bytes = Vec::new();
    file.take(LOG_TAIL).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let from = if skipped > 0 { text.find('\n').map_or(0, |at| at + 1) } else { 0 };
    Ok(text.get(from..).unwrap_or_default().to_owned())
}

/// The text without secrets, films and what tells whose house it is.
fn filtered(text: &str) -> String {
    let lines = text.lines().map(|line| {
        let line = logging::scrub(line);
        let line = without_house(&line, std::env::home_dir().as_deref());
        without_hashes(&line)
    });
    lines.fold(String::with_capacity(text.len()), |all, line| all + &line + "\n")
}

/// Long words of hexadecimal or base32 digits are names of films (info hashes), fingerprints or worse.
fn without_hashes(line: &str) -> String {
    let is_of_word = |c: char| c.is_ascii_alphanumeric();
    let (mut shown, mut rest) = (String::with_capacity(line.len()), line);
    while !rest.is_empty() {
        let end = rest.find(|c| !is_of_word(c)).unwrap_or(rest.len());
        let (word, behind) = rest.split_at(end);
        let is_long = word.len() >= 32;
        shown.push_str(if is_long { "(hash)" } else { word });
        let next = behind.find(is_of_word).unwrap_or(behind.len());
        let (between, after) = behind.split_at(next);
        shown.push_str(between);
        rest = after;
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names and texts of all files, read as any other program would.
    fn unpacked(archive: &[u8]) -> Vec<(String, String)> {
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(archive));
        let entries = archive.entries().expect("an archive");
        entries
            .map(|entry| {
                let mut entry = entry.expect("an entry");
                let name = entry.path().expect("a name").display().to_string();
                let mut text = String::new();
                entry.read_to_string(&mut text).expect("text");
                (name, text)
            })
            .collect()
    }

    #[test]
    fn what_goes_in_comes_out_without_secrets() {
        let hash = "c0ffee".repeat(7)[..40].to_owned();
        let mut bundle = Bundle::new();
        bundle.add("a.txt", "well\n");
        bundle.add(
            "b.txt",
            &format!(
                "torrent={hash} from 203.0.113.9:6881 and 192.168.1.3\nadding magnet:?xt=urn:btih:{hash}&dn=Film\nAuthorization: Bearer {}\n",
                "A".repeat(43)
            ),
        );
        let files = unpacked(&bundle.archive(Timestamp::UNIX_EPOCH).expect("written"));
        assert_eq!(files[0], ("balcony-bundle/a.txt".to_owned(), "well\n".to_owned()));
        assert_eq!(files[1].1, "torrent=(hash) from (a public address):6881 and 192.168.1.3\nadding magnet:?…\nAuthorization: Bearer …\n");
    }

    #[test]
    fn only_the_end_of_a_long_log_goes_in_and_only_whole_lines() {
        let folder = tempfile::tempdir().expect("folder");
        std::fs::create_dir(folder.path().join("logs")).expect("made");
        let long: String = (0..60_000).map(|n| format!("line {n:06} of a long log\n")).collect();
        for (name, text) in [("balcony.log", "the newest\n"), ("balcony.log.1", &long), ("planted.txt", "not ours\n")] {
            std::fs::write(folder.path().join("logs").join(name), text).expect("written");
        }
        let mut bundle = Bundle::new();
        bundle.add_logs(folder.path());
        let names: Vec<_> = bundle.files.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["logs/balcony.log", "logs/balcony.log.1"]);
        assert_eq!(bundle.files[0].1, "the newest\n");
        let end = &bundle.files[1].1;
        assert!(end.len() as u64 <= LOG_TAIL && end.len() as u64 > LOG_TAIL - 100, "{}", end.len());
        assert!(end.starts_with("line 0") && end.ends_with("line 059999 of a long log\n"));
    }

    #[test]
    fn words_that_are_no_hashes_stay() {
        for line in ["stream{id=k3v9aaaaaaaaaaaa}: well", "trace=\"0123456789abcdef\"", "balcony_server::stream", "Fünf ☃"] {
            assert_eq!(without_hashes(line), line);
        }
        assert_eq!(without_hashes(&format!("{}-0-v360", "ab".repeat(20))), "(hash)-0-v360");
        assert_eq!(without_hashes(&"A".repeat(32)), "(hash)");
    }
}
