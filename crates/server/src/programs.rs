//! Asks ffmpeg and ffprobe what they are, and ffmpeg whether it converts: in the cage, as films are converted. Which ffmpeg is used, where
//! none is named, is decided in [`best`].

pub mod best;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::join4;
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, timeout};

use crate::cage::{Limits, Reach};
use crate::doctor::facts::{Parts, Program, ProgramState};
use crate::spawner::Spawner;

/// How long a program may take to say what it is.
pub(crate) const ANSWER: Duration = Duration::from_secs(5);
/// How often it is started to see how long that takes: the first time it may have to come from the disk.
const STARTS: usize = 3;
/// How long a trial to convert a fifth of a second may take.
const TRIAL: Duration = Duration::from_secs(10);
/// Bytes of an answer that are read.
const LONGEST: u64 = 4 << 20;
/// Letters of a reason that are shown.
const LONGEST_REASON: usize = 160;

/// Why a program gave no answer.
enum Failed {
    Late,
    Because(String),
}

impl Failed {
    fn reason(self, wait: Duration) -> String {
        match self {
            Self::Late => format!("it took longer than {} s", wait.as_secs()),
            Self::Because(reason) => reason,
        }
    }
}

/// Asks a program for its version.
pub(crate) async fn program(spawner: &Spawner, asked: &Path) -> Program {
    let state = match file_of(asked) {
        None => ProgramState::Missing,
        Some(path) => match run(spawner, &path, &["-version"], Limits::PROBE, ANSWER).await {
            Ok(text) => ProgramState::Runs { path, version: version(&text) },
            Err(Failed::Late) => ProgramState::Hangs,
            Err(Failed::Because(reason)) => ProgramState::Unusable(reason),
        },
    };
    Program { asked: asked.to_owned(), state }
}

/// Asks an ffmpeg what it was built with.
pub(crate) async fn parts(spawner: &Spawner, ffmpeg: &Path) -> Result<Parts, String> {
    let ask = async |what: &'static str| {
        let text = run(spawner, ffmpeg, &["-hide_banner", what], Limits::PROBE, ANSWER).await;
        text.map(|text| names(&text)).map_err(|failed| failed.reason(ANSWER))
    };
    let (demuxers, decoders, encoders, filters) = join4(ask("-demuxers"), ask("-decoders"), ask("-encoders"), ask("-filters")).await;
    Ok(Parts { demuxers: demuxers?, decoders: decoders?, encoders: encoders?, filters: filters? })
}

/// How long a program takes to start, at best. `None` where it does not.
pub(crate) async fn start_time(spawner: &Spawner, program: &Path) -> Option<Duration> {
    let mut best = None;
    for _ in 0..STARTS {
        let began = Instant::now();
        run(spawner, program, &["-version"], Limits::PROBE, ANSWER).await.ok()?;
        let took = began.elapsed();
        best = Some(best.map_or(took, |before: Duration| before.min(took)));
    }
    best
}

/// Lets an ffmpeg convert a fifth of a second on the processor: `None` where it does, else the reason.
pub(crate) async fn processor(spawner: &Spawner, ffmpeg: &Path) -> Option<String> {
    let made_up = "-hide_banner -loglevel error -nostdin -f lavfi -i color=s=256x144:r=25:d=0.2 -f lavfi -i sine=d=0.2";
    let coded = "-c:v libx264 -preset superfast -pix_fmt yuv420p -c:a aac -f null -";
    let args: Vec<&str> = made_up.split(' ').chain(coded.split(' ')).collect();
    run(spawner, ffmpeg, &args, Limits::ENCODE, TRIAL).await.err().map(|failed| failed.reason(TRIAL))
}

async fn run(spawner: &Spawner, program: &Path, args: &[&str], limits: Limits, wait: Duration) -> Result<String, Failed> {
    let because = |error: std::io::Error| Failed::Because(error.kind().to_string());
    let work = async {
        let mut child = spawner.spawn(limits, &Reach::nothing(), program, args).await.map_err(because)?;
        let mut said = Vec::new();
        if let Some(pipe) = child.take_stdout() {
            pipe.take(LONGEST).read_to_end(&mut said).await.map_err(because)?;
        }
        let ended = child.wait().await.map_err(because)?;
        if ended.status.success() {
            return Ok(String::from_utf8_lossy(&said).into_owned());
        }
        Err(Failed::Because(last_words(&ended.stderr).unwrap_or_else(|| ended.status.to_string())))
    };
    // A child that is given up is killed.
    timeout(wait, work).await.unwrap_or(Err(Failed::Late))
}

/// The last line that was said, as far as it can be shown.
fn last_words(stderr: &str) -> Option<String> {
    let line = stderr.lines().rev().map(str::trim).find(|line| !line.is_empty())?;
    let line: String = line.chars().filter(|c| !c.is_control()).take(LONGEST_REASON).collect();
    Some(line.trim_end_matches('.').to_owned())
}

/// The file of a program: named by its path, or looked up in PATH.
pub(crate) fn file_of(program: &Path) -> Option<PathBuf> {
    if program.components().count() > 1 || program.is_absolute() {
        return program.is_file().then(|| program.to_owned());
    }
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// The third word: `ffmpeg version 5.1.9-0+deb12u1 Copyright …`.
fn version(text: &str) -> String {
    let mut words = text.lines().next().unwrap_or_default().split_whitespace();
    let version = words.by_ref().find(|word| *word == "version").and_then(|_| words.next());
    version.unwrap_or_default().chars().filter(|c| !c.is_control()).take(60).collect()
}

/// The names in one of ffmpeg's lists: a word of flags, a word of names, and what they stand for. Of a container that has several names
/// each counts.
fn names(list: &str) -> BTreeSet<String> {
    let is_flags = |word: &str| word.chars().all(|c| c.is_ascii_uppercase() || matches!(c, '.' | '|' | 'd'));
    let of_line = |line: &str| {
        let mut words = line.split_whitespace();
        let flags = words.next().filter(|word| is_flags(word))?;
        // Newer ones mark devices with a `d` that may stand apart.
        let names = words.find(|word| *word != "d").filter(|word| *word != "=" && !flags.is_empty())?;
        Some(names.split(',').map(str::to_owned).collect::<Vec<_>>())
    };
    list.lines().filter_map(of_line).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found() {
        let table = [
            ("ffmpeg version 5.1.9-0+deb12u1 Copyright (c) 2000-2026 the FFmpeg developers\nbuilt with gcc", "5.1.9-0+deb12u1"),
            ("ffprobe version n7.0 Copyright", "n7.0"),
            ("ffmpeg version N-109468-gd39b34123d", "N-109468-gd39b34123d"),
            ("ffmpeg version", ""),
            ("something else\nffmpeg version 1", ""),
            ("", ""),
        ];
        for (text, expected) in table {
            assert_eq!(version(text), expected, "{text}");
        }
    }

    #[test]
    fn lists_of_every_kind_are_read() {
        let table = [
            (
                "File formats:\n D. = Demuxing supported\n .E = Muxing supported\n --\n D  matroska,webm   Matroska / WebM\n D  aa  Audible AA",
                "aa matroska webm",
            ),
            (
                "Formats:\n D.. = Demuxing supported\n .E. = Muxing supported\n ..d = Is a device\n ---\n D   mov,mp4  QuickTime\n D d lavfi  Input",
                "lavfi mov mp4",
            ),
            (
                "Encoders:\n V..... = Video\n .F.... = Frame-level multithreading\n ------\n V....D libx264  libx264 H.264 (codec h264)\n A..... aac  AAC",
                "aac libx264",
            ),
            (
                "Filters:\n  T.. = Timeline support\n  | = Source or sink filter\n ... abench   A->A   Benchmark.\n TSC zscale  V->V  Apply.\n ..C trim",
                "abench trim zscale",
            ),
            ("", ""),
            ("no list at all", ""),
        ];
        for (list, expected) in table {
            assert_eq!(names(list).into_iter().collect::<Vec<_>>().join(" "), expected, "{list}");
        }
    }

    #[test]
    fn the_last_words_can_be_shown() {
        let long = "x".repeat(500);
        let table = [
            ("", None),
            ("\n \n", None),
            ("first\nUnknown encoder 'x'.\n\n", Some("Unknown encoder 'x'")),
            ("\u{1b}[31mred\u{1b}[0m", Some("[31mred[0m")),
            (&long, Some(&long[..LONGEST_REASON])),
        ];
        for (text, expected) in table {
            assert_eq!(last_words(text).as_deref(), expected, "{text}");
        }
    }
}
