//! The log: to stderr and to a file of bounded size, with every secret taken out of every line.
//!
//! Code does not log addresses, tokens or magnets in the first place; [`scrub`] is the second wall, because libraries
//! log too. The file is `<data-dir>/logs/balcony.log`, with `.1` to `.4` behind it, 4 MiB each.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tracing_appender::non_blocking::WorkerGuard;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt};

/// What is logged unless somebody says otherwise.
const DEFAULT: &str = "info,librqbit=warn,librqbit_dht=error,librqbit_core=warn,librqbit_tracker_comms=error";
/// The size at which a file is full, in bytes.
const FILE_SIZE: u64 = 4 << 20;
/// How many full files are kept.
const KEPT: u32 = 4;

/// Writes out what is left when it is dropped. Keep it until the very end.
#[derive(Debug)]
#[must_use]
pub struct Logging(#[allow(dead_code)] WorkerGuard);

/// Starts logging. Where something in this process logs already (tests, the desktop program's second start), that one stays.
///
/// # Errors
/// When the file cannot be opened.
pub fn start(data_dir: &Path, filter: Option<&str>) -> io::Result<Logging> {
    let file = RotatedFile::open(&data_dir.join("logs"), FILE_SIZE, KEPT)?;
    // Lines are dropped rather than waited for: a full disk must not stop the server.
    let (file, guard) = tracing_appender::non_blocking(file);
    let filter = EnvFilter::try_new(filter.unwrap_or(DEFAULT)).unwrap_or_else(|_| EnvFilter::new(DEFAULT));
    let to_file = fmt::layer().with_ansi(false).with_writer(move || Scrubbed(file.clone()));
    let to_stderr = fmt::layer().with_ansi(false).with_writer(|| Scrubbed(io::stderr()));
    // An error means that there is a subscriber already.
    let _ = tracing_subscriber::registry().with(filter).with(to_file).with(to_stderr).try_init();
    let _ = std::panic::take_hook();
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, text = panic.payload_as_str().unwrap_or_default(), "panic");
    }));
    Ok(Logging(guard))
}

/// A writer of whole lines that takes the secrets out of them.
struct Scrubbed<W>(W);

impl<W: Write> Write for Scrubbed<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.write_all(scrub(&String::from_utf8_lossy(line)).as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// What announces a secret; it reaches to the next character that cannot be part of one.
const ANNOUNCED: [&str; 6] = ["/t/", "/m/", "magnet:?", "Bearer ", "bearer ", "://"];

/// Replaces tokens and tickets in paths, bearer tokens, magnets, and all of an address but its host by `…`: libraries log trackers,
/// whose path or query often is the password of a member.
pub fn scrub(line: &str) -> Cow<'_, str> {
    let mut clean = String::new();
    let mut rest = line;
    while let Some((start, length)) = next_secret(rest) {
        clean.push_str(&rest[..start]);
        clean.push('…');
        rest = &rest[start + length..];
    }
    if clean.is_empty() { Cow::Borrowed(line) } else { Cow::Owned(clean + rest) }
}

/// Where the next secret begins, and its length; both in bytes, never 0.
fn next_secret(text: &str) -> Option<(usize, usize)> {
    let mut from = 0;
    loop {
        let rest = text.get(from..)?;
        let (at, mark) = ANNOUNCED.iter().filter_map(|mark| Some((rest.find(mark)?, *mark))).min_by_key(|(at, _)| *at)?;
        let start = from + at + mark.len();
        let behind = text.get(start..)?;
        let whole = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>' | ')');
        let (skipped, length) = match mark {
            "://" => in_address(&behind[..behind.find(whole).unwrap_or(behind.len())]),
            "magnet:?" => (0, behind.find(whole).unwrap_or(behind.len())),
            _ => (0, behind.find(|c| whole(c) || c == '/').unwrap_or(behind.len())),
        };
        // Short words behind `/t/` and `/m/` are folders or route patterns, not secrets.
        let pattern = !matches!(mark, "://" | "magnet:?") && (behind.starts_with('{') || length < 16);
        if length > 0 && !pattern {
            return Some((start + skipped, length));
        }
        from = start + skipped;
    }
}

/// What of an address (without its scheme) is secret: everything behind its host, or all of it where somebody's name stands before that.
fn in_address(address: &str) -> (usize, usize) {
    let host = address.find(['/', '?', '#']).unwrap_or(address.len());
    let skipped = if address[..host].contains('@') { 0 } else { address.len().min(host + 1) };
    (skipped, address.len() - skipped)
}

/// A file that makes room when it is full: `balcony.log` becomes `balcony.log.1`, and so on up to `kept`.
struct RotatedFile {
    path: PathBuf,
    file: File,
    size: u64,
    limit: u64,
    kept: u32,
}

impl RotatedFile {
    fn open(folder: &Path, limit: u64, kept: u32) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let path = folder.join("balcony.log");
        let file = append(&path)?;
        let size = file.metadata()?.len();
        Ok(Self { path, file, size, limit, kept })
    }

    fn rotate(&mut self) -> io::Result<()> {
        for n in (1..self.kept).rev() {
            // Missing at first.
            let _ = std::fs::rename(self.numbered(n), self.numbered(n + 1));
        }
        // Somebody may have cleaned up: what is written to a file that is gone fills the disk unseen.
        if let Some(folder) = self.path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        match std::fs::rename(&self.path, self.numbered(1)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.file = append(&self.path)?;
        self.size = 0;
        Ok(())
    }

    fn numbered(&self, n: u32) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{n}"));
        name.into()
    }
}

impl Write for RotatedFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.size > 0 && self.size.saturating_add(line.len() as u64) > self.limit {
            self.rotate()?;
        }
        let written = self.file.write(line)?;
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn append(path: &Path) -> io::Result<File> {
    let file = File::options().create(true).append(true).open(path)?;
    crate::trust::close_to_others(path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::{DeviceId, StreamId, Ticket, TicketKeys, Token};
    use proptest::prelude::{any, prop_assert, proptest};

    #[test]
    fn secrets_are_taken_out() {
        let token = Token::random();
        let folder = tempfile::tempdir().expect("folder");
        let keys = TicketKeys::load(folder.path(), jiff::Timestamp::now()).expect("keys");
        let ticket = Ticket::issue(&keys.newest(), &DeviceId::owner(), &StreamId::random());
        let (token, ticket) = (token.reveal(), ticket.as_str());
        let table = [
            (format!("GET /t/{token}/api/streams 200"), "GET /t/…/api/streams 200".to_owned()),
            (format!("uri=http://h/m/{ticket}/master.m3u8\n"), "uri=http://h/…\n".to_owned()),
            (format!("path=/m/{ticket}/master.m3u8"), "path=/m/…/master.m3u8".to_owned()),
            (
                "trackers=[http://t.example:80/announce?passkey=k, udp://[::1]:6969/k, https://a:b@t/, http://t?k] http://h/ x://"
                    .to_owned(),
                "trackers=[http://t.example:80/… udp://[::1]:6969/… https://… http://t?… http://h/ x://".to_owned(),
            ),
            (
                "error for url (http://127.0.0.1:9/secret/film): refused".to_owned(),
                "error for url (http://127.0.0.1:9/…): refused".to_owned(),
            ),
            ("http=127.0.0.1:3001 at http://127.0.0.1:3001".to_owned(), "http=127.0.0.1:3001 at http://127.0.0.1:3001".to_owned()),
            (format!("{{\"authorization\": \"Bearer {token}\"}}"), "{\"authorization\": \"Bearer …\"}".to_owned()),
            ("adding magnet:?xt=urn:btih:abc&tr=http://t/a failed".to_owned(), "adding magnet:?… failed".to_owned()),
            (format!("/t/{token}/x /m/{ticket}"), "/t/…/x /m/…".to_owned()),
            ("route=/m/{ticket}/{file} /t/ /m/x".to_owned(), "route=/m/{ticket}/{file} /t/ /m/x".to_owned()),
            ("nothing here".to_owned(), "nothing here".to_owned()),
        ];
        for (line, expected) in table {
            assert_eq!(scrub(&line), expected);
        }
    }

    #[test]
    fn the_log_never_outgrows_its_bounds() {
        let folder = tempfile::tempdir().expect("folder");
        let mut log = RotatedFile::open(folder.path(), 100, 2).expect("opened");
        for n in 0..50 {
            log.write_all(format!("line {n:02} of the log\n").as_bytes()).expect("written");
        }
        drop(log);
        let mut names: Vec<_> = std::fs::read_dir(folder.path()).expect("folder").map(|entry| entry.expect("entry")).collect();
        names.sort_by_key(std::fs::DirEntry::file_name);
        let sizes: Vec<u64> = names.iter().map(|entry| entry.metadata().expect("there").len()).collect();
        assert_eq!(names.len(), 3);
        assert!(sizes.iter().all(|size| *size <= 100), "{sizes:?}");
        let newest = std::fs::read_to_string(folder.path().join("balcony.log")).expect("read");
        assert!(newest.ends_with("line 49 of the log\n"), "{newest}");
        // A new start goes on with the file as it is.
        let again = RotatedFile::open(folder.path(), 100, 2).expect("opened");
        assert_eq!(again.size, newest.len() as u64);
    }

    #[test]
    fn a_log_that_was_deleted_or_a_full_disk_ends_nothing() {
        let folder = tempfile::tempdir().expect("folder");
        let logs = folder.path().join("logs");
        let mut log = RotatedFile::open(&logs, 100, 2).expect("opened");
        log.write_all(&[b'x'; 90]).expect("written");
        std::fs::remove_dir_all(&logs).expect("cleaned up");
        log.write_all(b"the next line\n").expect("written");
        assert_eq!(std::fs::read_to_string(logs.join("balcony.log")).expect("read"), "the next line\n");
        #[cfg(target_os = "linux")]
        {
            let mut log = RotatedFile { file: File::options().write(true).open("/dev/full").expect("there"), size: 0, ..log };
            for _ in 0..3 {
                assert_eq!(log.write(b"a line\n").expect_err("full").kind(), io::ErrorKind::StorageFull);
            }
            assert_eq!(log.size, 0, "what was not written does not count");
        }
    }

    proptest! {
        #[test]
        fn no_token_survives_any_surroundings(before in "\\PC{0,20}", after in "[/ \"\n].{0,20}", secret in any::<[u8; 32]>()) {
            let token = data_encoding::BASE64URL_NOPAD.encode(&secret);
            for mark in ["/t/", "/m/", "Bearer ", "http://h/", "udp://h?"] {
                let line = format!("{before}{mark}{token}{after}");
                prop_assert!(!scrub(&line).contains(&token), "{line}");
            }
        }
    }
}
