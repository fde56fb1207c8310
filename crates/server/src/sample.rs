//! The sample film: made by ffmpeg on first use, seeded by the server itself, so that everything can be tried with nothing of one's own.
//! The mock plays such a film under every name.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use balcony_media::ffmpeg::MAX_ALLOC;
use balcony_media::magnet::Magnet;

use crate::cage::{EXIT_UNCAGED, Limits, Reach};
use crate::mock::Mock;
use crate::spawner::Spawner;
use crate::swarm::Swarm;
use crate::torrent::Seed;

/// Where it lies, in the data folder.
const FOLDER: &str = "sample";
/// Name of the film's file.
pub const NAME: &str = "Balcony sample.mp4";
/// Length in seconds.
pub const SECONDS: u32 = 60;
/// How its picture is coded.
const SMALL: &[&str] = &["-preset", "veryfast", "-crf", "23", "-bf", "2"];

/// Where the mock's films lie.
const MOCK_FOLDER: &str = "mock";
/// The same film, coded in half of the time: the mock does not listen before it is there.
const MOCK_NAME: &str = "film.mp4";
const QUICK: &[&str] = &["-preset", "ultrafast", "-crf", "30"];
/// The beginning of it.
const SHORT_NAME: &str = "short film.mp4";
/// The length of that in seconds.
const SHORT_SECONDS: u32 = 24;

/// Making it takes a few seconds; a machine that needs longer than this has another problem.
const LONGEST: Duration = Duration::from_secs(300);

/// The sample film, to be had for as long as this lives.
pub struct Sample {
    magnet: Magnet,
    /// Who gives it; the mock needs nobody.
    seed: Option<Seed>,
}

impl Sample {
    /// Makes the film where it is not there yet, and seeds it on loopback.
    pub async fn open(spawner: &Spawner, ffmpeg: &Path, data_dir: &Path, swarm: &Swarm) -> anyhow::Result<Self> {
        let Swarm::Peers(torrents) = swarm else { return Ok(Self { magnet: Mock::sample(), seed: None }) };
        let film = make(spawner, ffmpeg, &data_dir.join(FOLDER), NAME, SMALL).await?;
        let seed = Seed::file(&film).await.context("the sample film cannot be seeded")?;
        torrents.admit(seed.address());
        Ok(Self { magnet: seed.magnet().clone(), seed: Some(seed) })
    }

    /// Where to get it.
    pub fn magnet(&self) -> &Magnet {
        &self.magnet
    }

    /// The magnet as text, with the address of its seeder.
    pub fn link(&self) -> String {
        let link = self.magnet.to_link();
        self.seed.as_ref().map_or_else(|| link.clone(), |seed| format!("{link}&x.pe={}", seed.address()))
    }
}

/// The mock's films, a longer and a shorter one, made where they are not there yet.
///
/// # Errors
/// When ffmpeg cannot make them.
pub async fn make_for_mock(spawner: &Spawner, ffmpeg: &Path, data_dir: &Path) -> anyhow::Result<(PathBuf, PathBuf)> {
    let folder = data_dir.join(MOCK_FOLDER);
    let film = make(spawner, ffmpeg, &folder, MOCK_NAME, QUICK).await?;
    let short = folder.join(SHORT_NAME);
    if !short.exists() {
        run(spawner, ffmpeg, &folder, &short, |aside| shortened(&film, aside)).await?;
    }
    Ok((film, short))
}

async fn make(spawner: &Spawner, ffmpeg: &Path, folder: &Path, name: &str, coded: &[&str]) -> anyhow::Result<PathBuf> {
    let film = folder.join(name);
    if film.exists() {
        return Ok(film);
    }
    tokio::fs::create_dir_all(folder).await.context("the folder of the sample film cannot be made")?;
    let subtitles = folder.join("sample.srt");
    tokio::fs::write(&subtitles, cues()).await.context("the sample's subtitles cannot be written")?;
    run(spawner, ffmpeg, folder, &film, |aside| arguments(&subtitles, aside, coded)).await?;
    Ok(film)
}

/// Lets ffmpeg make `film` in `folder`.
async fn run(
    spawner: &Spawner,
    ffmpeg: &Path,
    folder: &Path,
    film: &Path,
    arguments: impl FnOnce(&Path) -> Vec<OsString>,
) -> anyhow::Result<()> {
    // Made aside and renamed: a film that is half there is not there. Nothing of a stranger is read here, but it is ffmpeg all the same:
    // it runs in the cage, with this one folder to write to and no network, and ends with the server.
    let folder = folder.canonicalize().context("the folder of the sample film is gone")?;
    let aside = folder.join("making.mp4");
    let arguments = arguments(&aside);
    let mut child = spawner.spawn(Limits::SAMPLE, &Reach::folder(folder), ffmpeg, &arguments).await.context("no child can be started")?;
    let made = tokio::time::timeout(LONGEST, child.wait()).await.context("ffmpeg takes too long to make the sample film")??;
    if made.status.code() == Some(EXIT_UNCAGED) {
        bail!("{} cannot be started; install ffmpeg or name it with --ffmpeg ({})", ffmpeg.display(), made.stderr);
    }
    if !made.status.success() {
        bail!("ffmpeg cannot make the sample film: {}", made.stderr.lines().last().unwrap_or_default());
    }
    tokio::fs::rename(&aside, film).await.context("the sample film cannot be put in place")
}

/// A moving picture with a running time code, two tones as two languages, and a subtitle.
fn arguments(subtitles: &Path, to: &Path, coded: &[&str]) -> Vec<OsString> {
    let picture = format!("testsrc2=size=1280x720:rate=24:duration={SECONDS}");
    let tone = |hertz: u32| format!("sine=frequency={hertz}:beep_factor=4:sample_rate=48000:duration={SECONDS}");
    let mut all: Vec<OsString> = Vec::new();
    let mut add = |words: &[&str]| all.extend(words.iter().map(OsString::from));
    add(&["-hide_banner", "-loglevel", "error", "-nostdin", "-y", "-max_alloc", MAX_ALLOC]);
    add(&["-f", "lavfi", "-i", &picture, "-f", "lavfi", "-i", &tone(440), "-f", "lavfi", "-i", &tone(330)]);
    add(&["-protocol_whitelist", "file", "-format_whitelist", "srt", "-f", "srt", "-i"]);
    all.push(subtitles.into());
    let mut add = |words: &[&str]| all.extend(words.iter().map(OsString::from));
    add(&["-map", "0:v", "-map", "1:a", "-map", "2:a", "-map", "3:s"]);
    add(&["-c:v", "libx264", "-pix_fmt", "yuv420p", "-g", "96"]);
    add(coded);
    add(&["-c:a", "aac", "-b:a", "96k", "-ac", "2", "-c:s", "mov_text"]);
    add(&["-metadata:s:a:0", "language=eng", "-metadata:s:a:0", "title=High tone"]);
    add(&["-metadata:s:a:1", "language=deu", "-metadata:s:a:1", "title=Low tone"]);
    add(&["-metadata:s:s:0", "language=eng", "-movflags", "+faststart", "-f", "mp4"]);
    all.push(to.into());
    all
}

/// The beginning of a film as it is.
fn shortened(film: &Path, to: &Path) -> Vec<OsString> {
    let seconds = SHORT_SECONDS.to_string();
    let words = ["-hide_banner", "-loglevel", "error", "-nostdin", "-y", "-max_alloc", MAX_ALLOC, "-protocol_whitelist", "file", "-i"];
    let mut all: Vec<OsString> = words.iter().map(OsString::from).collect();
    all.push(film.into());
    let words = ["-map", "0", "-c", "copy", "-t", &seconds, "-movflags", "+faststart", "-f", "mp4"];
    all.extend(words.iter().map(OsString::from));
    all.push(to.into());
    all
}

/// One cue every four seconds.
fn cues() -> String {
    let cue = |n: u32| format!("{}\n00:00:{:02},000 --> 00:00:{:02},000\nThis is second {}\n\n", n + 1, n * 4 + 1, n * 4 + 3, n * 4 + 1);
    (0..SECONDS / 4).map(cue).collect()
}
