//! The sample film: made by ffmpeg on first use, seeded by the server itself, so that everything can be tried with nothing of one's own.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use balcony_media::magnet::Magnet;
use tokio::process::Command;

use crate::torrent::{Seed, Torrents};

/// Name of the film's file.
pub const NAME: &str = "Balcony sample.mp4";
/// Length in seconds.
pub const SECONDS: u32 = 60;
/// Making it takes a few seconds; a machine that needs longer than this has another problem.
const LONGEST: Duration = Duration::from_secs(300);

/// The sample film, seeded for as long as this lives.
pub struct Sample {
    seed: Seed,
}

impl Sample {
    /// Makes the film where it is not there yet, and seeds it on loopback.
    pub async fn open(ffmpeg: &Path, data_dir: &Path, torrents: &Torrents) -> anyhow::Result<Self> {
        let film = make(ffmpeg, &data_dir.join("sample")).await?;
        let seed = Seed::file(&film).await.context("the sample film cannot be seeded")?;
        torrents.admit(seed.address());
        Ok(Self { seed })
    }

    /// Where to get it.
    pub fn magnet(&self) -> &Magnet {
        self.seed.magnet()
    }

    /// The magnet as text, with the address of its seeder.
    pub fn link(&self) -> String {
        format!("{}&x.pe={}", self.magnet().to_link(), self.seed.address())
    }
}

async fn make(ffmpeg: &Path, folder: &Path) -> anyhow::Result<PathBuf> {
    let film = folder.join(NAME);
    if film.exists() {
        return Ok(film);
    }
    tokio::fs::create_dir_all(folder).await.context("the folder of the sample film cannot be made")?;
    let subtitles = folder.join("sample.srt");
    tokio::fs::write(&subtitles, cues()).await.context("the sample's subtitles cannot be written")?;
    // Made aside and renamed: a film that is half there is not there.
    let aside = folder.join("making.mp4");
    let mut command = Command::new(ffmpeg);
    command.args(arguments(&subtitles, &aside)).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let made = tokio::time::timeout(LONGEST, command.output()).await.context("ffmpeg takes too long to make the sample film")?;
    let made = made.with_context(|| format!("{} cannot be started; install ffmpeg or name it with --ffmpeg", ffmpeg.display()))?;
    if !made.status.success() {
        let last = String::from_utf8_lossy(&made.stderr).lines().last().unwrap_or_default().to_owned();
        bail!("ffmpeg cannot make the sample film: {last}");
    }
    tokio::fs::rename(&aside, &film).await.context("the sample film cannot be put in place")?;
    Ok(film)
}

/// A moving picture with a running time code, two tones as two languages, and a subtitle.
fn arguments(subtitles: &Path, to: &Path) -> Vec<std::ffi::OsString> {
    let picture = format!("testsrc2=size=1280x720:rate=24:duration={SECONDS}");
    let tone = |hertz: u32| format!("sine=frequency={hertz}:beep_factor=4:sample_rate=48000:duration={SECONDS}");
    let mut all: Vec<std::ffi::OsString> = Vec::new();
    let mut add = |words: &[&str]| all.extend(words.iter().map(std::ffi::OsString::from));
    add(&["-hide_banner", "-loglevel", "error", "-nostdin", "-y"]);
    add(&["-f", "lavfi", "-i", &picture, "-f", "lavfi", "-i", &tone(440), "-f", "lavfi", "-i", &tone(330)]);
    add(&["-f", "srt", "-i"]);
    all.push(subtitles.into());
    let mut add = |words: &[&str]| all.extend(words.iter().map(std::ffi::OsString::from));
    add(&["-map", "0:v", "-map", "1:a", "-map", "2:a", "-map", "3:s"]);
    add(&["-c:v", "libx264", "-preset", "veryfast", "-crf", "23", "-pix_fmt", "yuv420p", "-g", "96", "-bf", "2"]);
    add(&["-c:a", "aac", "-b:a", "96k", "-ac", "2", "-c:s", "mov_text"]);
    add(&["-metadata:s:a:0", "language=eng", "-metadata:s:a:0", "title=High tone"]);
    add(&["-metadata:s:a:1", "language=deu", "-metadata:s:a:1", "title=Low tone"]);
    add(&["-metadata:s:s:0", "language=eng", "-movflags", "+faststart", "-f", "mp4"]);
    all.push(to.into());
    all
}

/// One cue every four seconds.
fn cues() -> String {
    let cue = |n: u32| format!("{}\n00:00:{:02},000 --> 00:00:{:02},000\nThis is second {}\n\n", n + 1, n * 4 + 1, n * 4 + 3, n * 4 + 1);
    (0..SECONDS / 4).map(cue).collect()
}
