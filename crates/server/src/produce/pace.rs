//! How fast this machine encodes pictures: tried once, in the background and behind everybody else, and kept until the machine or its
//! ffmpeg is another one. Until then it is guessed.
//!
//! What is measured is the processor's time, not the clock's, so that a machine that was busy meanwhile is not taken for a slow one.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use balcony_media::codec::h264;
use balcony_media::encoder::{Encoder, Trial};
use balcony_media::ffmpeg::pace_args;
use balcony_media::ladder::{self, Pace, Size};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;

use super::Workshop;
use super::encode::Tools;
use crate::cage::{Limits, Reach};
use crate::lock::lock;
use crate::spawner::{Child, Spawner};
use crate::trust::{PersonId, write_private};

/// The sizes that are tried, one after the other as long as the machine keeps up.
const SIZES: [Size; 3] = [Size { width: 1920, height: 1080 }, Size { width: 2560, height: 1440 }, Size { width: 3840, height: 2160 }];
/// Pictures within a second, and how many are encoded for a trial.
const RATE: u32 = 25;
const PICTURES: u32 = 50;
/// Silicon is faster, and takes longer to begin.
const PICTURES_IN_SILICON: u32 = 200;
/// How long one trial may take: a machine that needs longer does not keep up.
const TRIAL: Duration = Duration::from_secs(60);
/// A trial that had to make room for somebody is made again after this time.
const LATER: Duration = Duration::from_secs(60);
/// What threads lose by waiting for one another.
const TOGETHER: f64 = 0.85;

/// How fast this machine is, as far as that is known.
pub struct Paced {
    file: PathBuf,
    machine: String,
    threads: usize,
    known: Mutex<Pace>,
    /// It was measured, or is being measured.
    claimed: AtomicBool,
}

/// What is written down.
#[derive(Debug, Serialize, Deserialize)]
struct Measured {
    machine: String,
    pace: Pace,
}

impl Paced {
    /// What was measured with this ffmpeg on this machine, or a guess.
    pub fn open(file: PathBuf, ffmpeg: &Path) -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let machine = machine(ffmpeg, threads);
        let kept = std::fs::read(&file).ok().and_then(|bytes| serde_json::from_slice::<Measured>(&bytes).ok());
        let kept = kept.filter(|measured| measured.machine == machine).map(|measured| measured.pace);
        let claimed = AtomicBool::new(kept.is_some());
        Self { file, machine, threads, known: Mutex::new(kept.unwrap_or_else(|| Pace::guess(threads))), claimed }
    }

    /// How fast it is.
    pub fn now(&self) -> Pace {
        lock(&self.known).clone()
    }

    /// Whether it has to be measured; `true` once.
    pub fn claim(&self) -> bool {
        !self.claimed.swap(true, Ordering::AcqRel)
    }
}

/// Measures the machine when no encoder is needed by anybody, and writes down what it finds.
pub async fn measure(workshop: Arc<Workshop>) {
    let mut found = Pace::default();
    let mut sizes = SIZES.into_iter().peekable();
    while let Some(size) = sizes.peek().copied() {
        let lease = workshop.encoders.for_first_segment(PersonId::owner(), |_| {});
        lease.granted().await;
        // Whoever needs an encoder gets this one at once.
        lease.rests(true);
        let speed = tokio::select! {
            speed = speed(&workshop.tools, size, workshop.pace.threads) => speed,
            () = lease.taken() => {
                drop(lease);
                tokio::time::sleep(LATER).await;
                continue;
            }
        };
        sizes.next();
        match speed {
            Ok(speed) => found.0.push((size.width, size.height, (speed * 10.0).round() / 10.0)),
            Err(error) => {
                tracing::warn!(%error, "how fast this machine encodes could not be measured");
                return;
            }
        }
        if !found.keeps_up(size, f64::from(RATE)) {
            break;
        }
    }
    tracing::info!(pace = ?found.0, "this machine encodes so many pictures of a size within a second");
    let measured = Measured { machine: workshop.pace.machine.clone(), pace: found.clone() };
    *lock(&workshop.pace.known) = found;
    let (file, bytes) = (workshop.pace.file.clone(), serde_json::to_vec(&measured).unwrap_or_default());
    let written = tokio::task::spawn_blocking(move || write_private(&file, &bytes)).await;
    if let Ok(Err(error)) = written {
        tracing::warn!(%error, "how fast this machine encodes could not be written down");
    }
}

/// Pictures of this size that can be encoded within a second.
async fn speed(tools: &Tools, size: Size, threads: usize) -> std::io::Result<f64> {
    let bits = ladder::rung_bitrate(size, f64::from(RATE));
    let level = h264::level_for(size.width, size.height, f64::from(RATE));
    let args = pace_args(&Encoder::of_rung(&bits, level, None), size, RATE, PICTURES);
    let said = account(tools.spawner.spawn(Limits::ENCODE, &Reach::nothing(), &tools.ffmpeg, &args).await?).await?;
    let busy = seconds(&said, &["utime=", "stime="]).ok_or_else(untold)?;
    Ok(f64::from(PICTURES) / busy.max(0.001) * (1.0 + (threads as f64 - 1.0) * TOGETHER))
}

/// Pictures of a trial's size that its encoder in silicon makes within a second. It is the clock that counts here: the processor has
/// hardly anything to do.
pub async fn speed_in_silicon(spawner: &Spawner, ffmpeg: &Path, trial: &Trial) -> std::io::Result<f64> {
    let args = pace_args(&trial.encoder, trial.size, RATE, PICTURES_IN_SILICON);
    let reach = Reach::nothing().with_graphics();
    let said = account(spawner.spawn(Limits::GRAPHICS, &reach, ffmpeg, &args).await?).await?;
    let took = seconds(&said, &["rtime="]).ok_or_else(untold)?;
    Ok((f64::from(PICTURES_IN_SILICON) / took.max(0.001) * 10.0).round() / 10.0)
}

fn untold() -> std::io::Error {
    std::io::Error::other("ffmpeg told no time")
}

/// What ffmpeg says of a run that went well.
async fn account(mut child: Child) -> std::io::Result<String> {
    let trial = async {
        if let Some(mut pipe) = child.take_stdout() {
            // Nothing comes; it ends with the child.
            pipe.read_to_end(&mut Vec::new()).await?;
        }
        child.wait().await
    };
    let ended = tokio::time::timeout(TRIAL, trial).await.map_err(|_| std::io::ErrorKind::TimedOut)??;
    if ended.status.success() { Ok(ended.stderr) } else { Err(std::io::Error::other("ffmpeg failed")) }
}

/// Seconds of these kinds in ffmpeg's own account: `bench: utime=1.234s stime=0.056s rtime=0.700s`.
fn seconds(said: &str, kinds: &[&str]) -> Option<f64> {
    let line = said.lines().rfind(|line| line.contains("utime=") && line.contains("stime="))?;
    let number = |name: &&str| {
        let rest = line.split_once(name)?.1;
        rest.split_once('s')?.0.parse::<f64>().ok().filter(|seconds| seconds.is_finite() && *seconds >= 0.0)
    };
    kinds.iter().map(number).sum()
}

/// What a measurement depends on.
fn machine(ffmpeg: &Path, threads: usize) -> String {
    let file = std::fs::metadata(ffmpeg).ok();
    let changed = file.as_ref().and_then(|file| file.modified().ok()?.duration_since(SystemTime::UNIX_EPOCH).ok());
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("").trim_start_matches([' ', '\t', ':']);
    let (len, changed) = (file.map_or(0, |file| file.len()), changed.map_or(0, |time| time.as_secs()));
    format!("{threads} × {model}, ffmpeg {len} {changed}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_account_of_ffmpeg() {
        let said = "Stream mapping:\nbench: utime=1.250s stime=0.050s rtime=0.700s\nbench: maxrss=123456kB\n";
        let busy = |said| seconds(said, &["utime=", "stime="]);
        assert_eq!((busy(said), seconds(said, &["rtime="])), (Some(1.3), Some(0.7)));
        assert_eq!(["", "bench: utime=xs stime=1s", "utime=1.0"].map(busy), [None, None, None]);
    }

    #[test]
    fn what_was_measured_elsewhere_does_not_count() {
        let folder = tempfile::tempdir().expect("a folder");
        let (file, ffmpeg) = (folder.path().join("pace.json"), folder.path().join("ffmpeg"));
        std::fs::write(&ffmpeg, b"one").expect("written");
        let first = Paced::open(file.clone(), &ffmpeg);
        assert!(first.claim() && !first.claim());
        let pace = Pace(vec![(1920, 1080, 12.0)]);
        let measured = Measured { machine: first.machine, pace: pace.clone() };
        std::fs::write(&file, serde_json::to_vec(&measured).expect("JSON")).expect("written");
        let again = Paced::open(file.clone(), &ffmpeg);
        assert_eq!((again.now(), again.claim()), (pace, false));
        std::fs::write(&ffmpeg, b"another").expect("written");
        assert!(Paced::open(file, &ffmpeg).claim(), "another ffmpeg may be faster");
    }
}
