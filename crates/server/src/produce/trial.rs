//! Which encoder makes pictures on this machine: found by trying, in the background and behind everybody else, and kept until the machine,
//! its drivers or its ffmpeg are others. Until a trial is over it is x264, and so it is where none in silicon works.
//!
//! One that fails in the middle of a film is distrusted until the server starts again; who makes the film goes on with x264 meanwhile
//! ([`super::encode`]). What has to be asked of an encoder and shown by it stands in [`balcony_media::encoder`].

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use balcony_media::encoder::{Devices, Silicon, Trial, Wanted};
use balcony_media::fmp4::read::{Event, Reader};
use balcony_media::ladder::{Pace, Size};
use bytes::BytesMut;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Workshop, pace};
use crate::cage::{Limits, Reach};
use crate::lock::lock;
use crate::settings::Live;
use crate::spawner::Spawner;
use crate::trust::{PersonId, write_private};

/// Sizes that are tried, as long as they work.
const SIZES: [Size; 2] = [Size { width: 1920, height: 1080 }, Size { width: 3840, height: 2160 }];
/// No picture with a smaller side than this is given to silicon: some of it takes none, and the processor makes them in passing.
const SMALLEST_SIDE: u32 = 160;
/// How long one trial may take. Its picture is made up by the processor, in ten bits.
const TRIAL: Duration = Duration::from_secs(30);
/// A trial that had to make room for somebody is made again after this time.
const LATER: Duration = Duration::from_secs(60);
/// Bytes of one read, and of a whole trial.
const READ: usize = 64 * 1024;
const MOST: u64 = 64 << 20;
/// Letters of a reason that are kept.
const LONGEST_REASON: usize = 160;

/// What became of trying one encoder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tried {
    /// Which.
    pub silicon: Silicon,
    /// Width and height of the largest picture that it makes, where it works.
    pub largest: Option<(u32, u32)>,
    /// Pictures of a width and height, and how many of them it makes within a second.
    pub pace: Vec<(u32, u32, f64)>,
    /// Why it makes none, or no larger ones.
    pub flaw: Option<String>,
}

/// What is known of this machine's encoders, for people.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Told {
    /// What is asked for.
    pub wanted: Wanted,
    /// What was tried of that.
    pub tried: Vec<Tried>,
    /// What failed in the middle of a film, and how.
    pub distrusted: Vec<(Silicon, String)>,
    /// Something of it is still to be tried.
    pub trying: bool,
}

impl Told {
    /// The one that films are converted with; `None` for the processor.
    pub fn used(&self) -> Option<&Tried> {
        let used = self.tried.iter().find(|tried| tried.largest.is_some())?;
        (!self.trying && !self.distrusted.iter().any(|(silicon, _)| *silicon == used.silicon)).then_some(used)
    }
}

/// Where it is heard what is wanted.
enum Wish {
    Settings(watch::Receiver<Live>),
    Fixed(Wanted),
}

/// The choice of an encoder.
pub struct Choice {
    /// Where it is written down; `None`: nowhere.
    file: Option<PathBuf>,
    machine: String,
    devices: Devices,
    wish: Wish,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    tried: Vec<Tried>,
    distrusted: Vec<(Silicon, String)>,
    /// Of each run that goes on now, what it runs on.
    running: Vec<Silicon>,
}

/// What is written down.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    machine: String,
    tried: Vec<Tried>,
}

impl Choice {
    /// What was found with this ffmpeg on this machine before.
    pub fn open(file: PathBuf, ffmpeg: &Path, live: watch::Receiver<Live>) -> Arc<Self> {
        let (devices, machine) = (devices(), machine(ffmpeg));
        let known = Mutex::new(Known { tried: kept(&file, &machine), ..Known::default() });
        Arc::new(Self { file: Some(file), machine, devices, wish: Wish::Settings(live), known })
    }

    /// Of a machine that is told, and not looked at; nothing of it is written down.
    pub fn of(wanted: Wanted, devices: Devices) -> Arc<Self> {
        Arc::new(Self { file: None, machine: String::new(), devices, wish: Wish::Fixed(wanted), known: Mutex::default() })
    }

    /// What is asked for.
    pub fn wanted(&self) -> Wanted {
        match &self.wish {
            Wish::Settings(live) => live.borrow().encoder,
            Wish::Fixed(wanted) => *wanted,
        }
    }

    /// The one for pictures of this size; `None` for the processor.
    pub fn for_size(&self, size: Size) -> Option<Silicon> {
        let told = self.told();
        let used = told.used()?;
        let (width, height) = used.largest?;
        let (long, short) = (size.width.max(size.height), size.width.min(size.height));
        (long <= width && short <= height && short >= SMALLEST_SIDE).then(|| used.silicon.clone())
    }

    /// How fast the one that is used is.
    pub fn pace(&self) -> Option<Pace> {
        let told = self.told();
        let pace = told.used()?.pace.clone();
        (!pace.is_empty()).then_some(Pace(pace))
    }

    /// What is known, for people.
    pub fn told(&self) -> Told {
        let wanted = self.wanted();
        let known = lock(&self.known);
        let mut told = Told { wanted, distrusted: known.distrusted.clone(), ..Told::default() };
        for silicon in self.devices.candidates(wanted) {
            let Some(tried) = known.tried.iter().find(|tried| tried.silicon == silicon) else {
                told.trying = true;
                break;
            };
            told.tried.push(tried.clone());
            if tried.largest.is_some() {
                break;
            }
        }
        told
    }

    /// What has to be tried next.
    fn untried(&self) -> Option<Silicon> {
        let candidates = self.devices.candidates(self.wanted());
        let known = lock(&self.known);
        for silicon in candidates {
            match known.tried.iter().find(|tried| tried.silicon == silicon) {
                None => return Some(silicon),
                Some(tried) if tried.largest.is_some() => return None,
                Some(_) => {}
            }
        }
        None
    }

    /// It has failed in the middle of a film, where x264 has not. It is tried anew after the next start.
    pub fn distrust(&self, silicon: &Silicon, why: &str) {
        let mut known = lock(&self.known);
        if known.distrusted.iter().all(|(before, _)| before != silicon) {
            tracing::warn!(
                encoder = silicon.family().name(),
                why,
                "this encoder failed: films are converted by the processor until the server starts again"
            );
            known.distrusted.push((silicon.clone(), why.to_owned()));
            self.write_down(&known);
        }
    }

    /// Whether it has failed since the server started.
    pub fn is_distrusted(&self, silicon: &Silicon) -> bool {
        lock(&self.known).distrusted.iter().any(|(before, _)| before == silicon)
    }

    /// A run on it begins, and lasts as long as the answer.
    pub fn begun(self: &Arc<Self>, silicon: &Silicon) -> Running {
        lock(&self.known).running.push(silicon.clone());
        Running { choice: self.clone(), silicon: silicon.clone() }
    }

    fn learn(&self, tried: Tried) {
        let mut known = lock(&self.known);
        known.tried.retain(|before| before.silicon != tried.silicon);
        known.tried.push(tried);
        self.write_down(&known);
    }

    /// A few hundred bytes. What is distrusted is left out: the next start tries it again.
    fn write_down(&self, known: &Known) {
        let Some(file) = &self.file else { return };
        let trusted = |tried: &&Tried| known.distrusted.iter().all(|(silicon, _)| *silicon != tried.silicon);
        let kept = Kept { machine: self.machine.clone(), tried: known.tried.iter().filter(trusted).cloned().collect() };
        let written = serde_json::to_vec(&kept).map_err(std::io::Error::from).and_then(|bytes| write_private(file, &bytes));
        if let Err(error) = written {
            tracing::warn!(%error, "which encoder works could not be written down");
        }
    }
}

/// What was written down on this very machine.
fn kept(file: &Path, machine: &str) -> Vec<Tried> {
    let kept = std::fs::read(file).ok().and_then(|bytes| serde_json::from_slice::<Kept>(&bytes).ok());
    kept.filter(|kept| kept.machine == machine).map(|kept| kept.tried).unwrap_or_default()
}

/// A run goes on.
pub struct Running {
    choice: Arc<Choice>,
    silicon: Silicon,
}

impl Running {
    /// Whether others run on the same encoder: some take only so many at once.
    pub fn is_shared(&self) -> bool {
        lock(&self.choice.known).running.iter().filter(|other| **other == self.silicon).count() > 1
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut known = lock(&self.choice.known);
        if let Some(at) = known.running.iter().position(|other| *other == self.silicon) {
            known.running.swap_remove(at);
        }
    }
}

/// Tries what is wanted whenever that changes, when no encoder is needed by anybody.
pub async fn keep(workshop: Arc<Workshop>, stopping: CancellationToken) {
    let choice = workshop.tools.choice.clone();
    let work = async {
        loop {
            while let Some(silicon) = choice.untried() {
                match behind_everybody(&workshop, &silicon).await {
                    Some(tried) => choice.learn(tried),
                    None => tokio::time::sleep(LATER).await,
                }
            }
            let Wish::Settings(live) = &choice.wish else { return };
            let (mut live, before) = (live.clone(), choice.wanted());
            if live.wait_for(|live| live.encoder != before).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = work => {}
        () = stopping.cancelled() => {}
    }
}

/// `None` where somebody needed the place.
async fn behind_everybody(workshop: &Arc<Workshop>, silicon: &Silicon) -> Option<Tried> {
    let lease = workshop.encoders.for_first_segment(PersonId::owner(), |_| {});
    lease.granted().await;
    // Whoever needs an encoder gets this one at once.
    lease.rests(true);
    let tried = tokio::select! {
        tried = attempt(&workshop.tools.spawner, &workshop.tools.ffmpeg, silicon, &SIZES) => tried,
        () = lease.taken() => return None,
    };
    match (&tried.largest, &tried.flaw) {
        (Some((width, height)), _) => {
            tracing::info!(encoder = silicon.family().name(), width, height, pace = ?tried.pace, "this encoder works")
        }
        (None, flaw) => tracing::info!(encoder = silicon.family().name(), why = flaw.as_deref(), "this encoder does not work"),
    }
    Some(tried)
}

/// What works of what is wanted, as far as a trial in one size tells.
pub async fn attempt_all(spawner: &Spawner, ffmpeg: &Path, wanted: Wanted) -> Told {
    let mut told = Told { wanted, ..Told::default() };
    for silicon in devices().candidates(wanted) {
        told.tried.push(attempt(spawner, ffmpeg, &silicon, SIZES.get(..1).unwrap_or_default()).await);
        if told.used().is_some() {
            break;
        }
    }
    told
}

/// Tries an encoder in these sizes.
async fn attempt(spawner: &Spawner, ffmpeg: &Path, silicon: &Silicon, sizes: &[Size]) -> Tried {
    let mut tried = Tried { silicon: silicon.clone(), largest: None, pace: Vec::new(), flaw: None };
    for size in sizes.iter().copied() {
        let trial = Trial::of(silicon.clone(), size);
        let Ok(made) = tokio::time::timeout(TRIAL, run(spawner, ffmpeg, &trial)).await else {
            tried.flaw = Some(format!("it took longer than {} s", TRIAL.as_secs()));
            break;
        };
        if let Err(flaw) = made {
            tried.flaw = Some(flaw.chars().filter(|c| !c.is_control()).take(LONGEST_REASON).collect());
            break;
        }
        tried.largest = Some((size.width, size.height));
        if let Ok(speed) = pace::speed_in_silicon(spawner, ffmpeg, &trial).await {
            tried.pace.push((size.width, size.height, speed));
        }
    }
    tried
}

/// One trial: what it shows must be as it was asked for.
async fn run(spawner: &Spawner, ffmpeg: &Path, trial: &Trial) -> Result<(), String> {
    let told = |error: std::io::Error| error.kind().to_string();
    let reach = Reach::nothing().with_graphics();
    let mut child = spawner.spawn(Limits::GRAPHICS, &reach, ffmpeg, &trial.args()).await.map_err(told)?;
    let mut pipe = child.take_stdout().ok_or("it has no pipe")?.take(MOST);
    let (mut reader, mut buffer) = (Reader::new(), BytesMut::with_capacity(READ));
    let (mut track, mut packets) = (None, Vec::new());
    loop {
        buffer.reserve(READ);
        if pipe.read_buf(&mut buffer).await.map_err(told)? == 0 {
            break;
        }
        reader.push(buffer.split().freeze());
        while let Some(event) = reader.next().map_err(|error| error.to_string())? {
            match event {
                Event::Header(tracks) => track = tracks.into_iter().next(),
                Event::Packet(packet) => packets.push(packet),
            }
        }
    }
    let ended = child.wait().await.map_err(told)?;
    if !ended.status.success() {
        let last = ended.stderr.lines().rev().map(str::trim).find(|line| !line.is_empty());
        return Err(last.map_or_else(|| ended.status.to_string(), |line| line.trim_end_matches('.').to_owned()));
    }
    let track = track.ok_or("it made nothing")?;
    trial.judge(&track, &packets).map_err(|flaw| flaw.to_string())
}

/// What of this machine could encode.
pub fn devices() -> Devices {
    let there = |path: &str| Path::new(path).exists();
    let mut nodes: Vec<String> = std::fs::read_dir("/dev/dri")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.path().into_os_string().into_string().ok())
        .filter(|path| path.starts_with("/dev/dri/renderD"))
        .take(8)
        .collect();
    nodes.sort_unstable();
    let nvidia = ["/dev/nvidiactl", "/dev/dxg", "/dev/nvhost-ctrl"].into_iter().any(there);
    Devices { apple: cfg!(target_os = "macos"), nvidia, nodes }
}

/// What trials depend on: the program, the cards, their drivers.
fn machine(ffmpeg: &Path) -> String {
    let stamp = |path: &Path| {
        let file = std::fs::metadata(path).ok()?;
        let changed = file.modified().ok()?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        Some(format!("{} {} {}", path.display(), file.len(), changed.as_secs()))
    };
    let text = |path: &Path| std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    let program = crate::programs::file_of(ffmpeg).unwrap_or_else(|| ffmpeg.to_owned());
    let mut parts = vec![stamp(&program), text(Path::new("/proc/sys/kernel/osrelease")), text(Path::new("/proc/driver/nvidia/version"))];
    for node in devices().nodes {
        let device = Path::new("/sys/class/drm").join(Path::new(&node).file_name().unwrap_or_default()).join("device");
        parts.extend([Some(node), text(&device.join("vendor")), text(&device.join("device"))]);
    }
    let drivers = ["/usr/lib/dri", "/usr/lib64/dri", "/usr/lib/x86_64-linux-gnu/dri", "/usr/lib/aarch64-linux-gnu/dri"];
    parts.extend(drivers.map(|folder| stamp(Path::new(folder))));
    parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use balcony_media::encoder::Family;

    use super::*;

    fn tried(silicon: &Silicon, largest: Option<(u32, u32)>) -> Tried {
        Tried { silicon: silicon.clone(), largest, pace: vec![(1920, 1080, 300.0)], flaw: None }
    }

    const HD: Size = Size { width: 1920, height: 1080 };

    #[test]
    fn the_first_that_works_is_used_and_none_before_it_is_tried() {
        let devices = Devices { nvidia: true, nodes: vec!["/dev/dri/renderD128".into()], apple: false };
        let choice = Choice::of(Wanted::Auto, devices.clone());
        let candidates = devices.candidates(Wanted::Auto);
        assert_eq!((choice.for_size(HD), choice.told().trying, choice.untried()), (None, true, Some(candidates[0].clone())));
        // What comes later may be known already, from another wish.
        choice.learn(tried(&candidates[1], Some((1920, 1080))));
        assert_eq!((choice.for_size(HD), choice.untried()), (None, Some(candidates[0].clone())));
        choice.learn(tried(&candidates[0], None));
        assert_eq!((choice.for_size(HD), choice.untried()), (Some(candidates[1].clone()), None));
        for (width, height, fits) in [(1280, 720, true), (1080, 1920, true), (3840, 2160, false), (1920, 1200, false), (640, 90, false)] {
            assert_eq!(choice.for_size(Size { width, height }).is_some(), fits, "{width}x{height}");
        }
        choice.distrust(&candidates[1], "it fell over");
        assert_eq!((choice.for_size(HD), choice.untried()), (None, None), "the processor makes the rest, not the next one in line");
        assert_eq!(choice.told().distrusted, [(candidates[1].clone(), "it fell over".to_owned())]);
    }

    #[test]
    fn the_processor_needs_no_trial() {
        let devices = Devices { nvidia: true, ..Devices::default() };
        for wanted in [Wanted::X264, Wanted::Off] {
            let choice = Choice::of(wanted, devices.clone());
            assert_eq!((choice.for_size(HD), choice.untried(), choice.told().trying), (None, None, false));
        }
        assert_eq!(Choice::of(Wanted::Auto, Devices::default()).untried(), None, "nothing is there to be tried");
        assert!(Choice::of(Wanted::One(Family::Vaapi), Devices::default()).untried().is_some(), "what is asked for by name is tried");
    }

    #[test]
    fn runs_that_share_an_encoder_know_it() {
        let choice = Choice::of(Wanted::Auto, Devices::default());
        let first = choice.begun(&Silicon::Nvenc);
        let other = choice.begun(&Silicon::Amf);
        assert!(!first.is_shared() && !other.is_shared());
        let second = choice.begun(&Silicon::Nvenc);
        assert!(first.is_shared() && second.is_shared());
        drop(first);
        assert!(!second.is_shared());
    }

    #[test]
    fn what_was_found_is_kept_for_this_machine_and_what_failed_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let (file, ffmpeg) = (folder.path().join("encoder.json"), folder.path().join("ffmpeg"));
        std::fs::write(&ffmpeg, b"one").expect("written");
        let choice = Choice { file: Some(file.clone()), machine: machine(&ffmpeg), ..fixed() };
        let kept = || kept(&file, &machine(&ffmpeg)).into_iter().map(|tried| tried.silicon).collect::<Vec<_>>();
        choice.learn(tried(&Silicon::Nvenc, Some((1920, 1080))));
        choice.learn(tried(&Silicon::Amf, None));
        assert_eq!(kept(), [Silicon::Nvenc, Silicon::Amf]);
        choice.distrust(&Silicon::Nvenc, "it died");
        assert_eq!(kept(), [Silicon::Amf]);
        std::fs::write(&ffmpeg, b"another").expect("written");
        assert_eq!(kept(), [], "another ffmpeg may do better");
    }

    fn fixed() -> Choice {
        Choice { file: None, machine: String::new(), devices: Devices::default(), wish: Wish::Fixed(Wanted::Auto), known: Mutex::default() }
    }
}
