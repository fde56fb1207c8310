//! What ffmpeg sees and hears in a file: every picture small and grey with its time, where the picture flashes, where the sound beeps.

use std::path::Path;

/// Sides of the small pictures.
const ACROSS: usize = 16;
const DOWN: usize = 9;
/// Samples per second of the sound that is looked at.
const RATE: usize = 48_000;
/// A stretch of sound whose loudness is compared, in samples: 20 ms.
const STRETCH: usize = RATE / 50;

/// One decoded picture.
#[derive(Debug, Clone)]
pub(crate) struct Picture {
    /// Seconds.
    pub(crate) at: f64,
    pub(crate) small: Vec<u8>,
}

impl Picture {
    pub(crate) fn light(&self) -> f64 {
        self.small.iter().map(|pixel| f64::from(*pixel)).sum::<f64>() / self.small.len() as f64
    }

    /// Mean difference of two pictures, 0 to 255.
    pub(crate) fn differs(&self, other: &Self) -> f64 {
        let all: u32 = self.small.iter().zip(&other.small).map(|(a, b)| u32::from(a.abs_diff(*b))).sum();
        f64::from(all) / self.small.len() as f64
    }
}

/// Everything that could be decoded of a picture, in the order of output, and what the decoder complained of.
pub(crate) struct Pictures {
    pub(crate) all: Vec<Picture>,
    pub(crate) complaints: Vec<String>,
}

/// Decodes the picture `stream` (`0:v:0`); times count from `zero` seconds of the file's own.
pub(crate) async fn pictures(film: &Path, stream: &str, zero: f64) -> Pictures {
    let filters = format!("scale={ACROSS}:{DOWN}:flags=area,format=gray,showinfo=checksum=0");
    let before = ["-hide_banner", "-loglevel", "level+info", "-nostdin", "-copyts", "-i"];
    let after = ["-map", stream, "-vf", &filters, "-fps_mode", "passthrough", "-f", "rawvideo", "-"];
    let done = tokio::process::Command::new("ffmpeg").args(before).arg(film).args(after).output().await.expect("ffmpeg");
    let said = String::from_utf8_lossy(&done.stderr);
    let times = said.lines().filter(|line| line.contains("showinfo")).filter_map(|line| {
        let time = line.split_once("pts_time:")?.1.split_whitespace().next()?;
        time.parse::<f64>().ok()
    });
    let small = done.stdout.chunks_exact(ACROSS * DOWN).map(<[u8]>::to_vec);
    let all = times.zip(small).map(|(at, small)| Picture { at: at - zero, small }).collect();
    Pictures { all, complaints: complaints(&said) }
}

fn complaints(said: &str) -> Vec<String> {
    said.lines().filter(|line| line.contains("[error]") || line.contains("[fatal]")).map(str::to_owned).collect()
}

/// Times at which the picture turns white.
pub(crate) fn flashes(pictures: &[Picture]) -> Vec<f64> {
    let mut lights: Vec<f64> = pictures.iter().map(Picture::light).collect();
    let each = lights.clone();
    lights.sort_by(f64::total_cmp);
    let (Some(usual), Some(most)) = (lights.get(lights.len() / 2), lights.last()) else { return Vec::new() };
    let border = (usual + most) / 2.0;
    let mut found: Vec<f64> = Vec::new();
    let mut order: Vec<(f64, f64)> = pictures.iter().map(|picture| picture.at).zip(each).collect();
    order.sort_by(|a, b| a.0.total_cmp(&b.0));
    for (at, light) in order {
        if light > border && most - usual > 20.0 && found.last().is_none_or(|last| at - last > 1.0) {
            found.push(at);
        }
    }
    found
}

/// The first channel of a sound, from time zero on: what is missing is silent, so that a sample's place is its time.
pub(crate) struct Sound {
    pub(crate) samples: Vec<f32>,
    pub(crate) complaints: Vec<String>,
}

/// Decodes the sound `stream` (`0:a:0`); times count from `zero` seconds of the file's own.
pub(crate) async fn sound(film: &Path, stream: &str, zero: f64) -> Sound {
    let filters = format!("asetpts=PTS-({zero})/TB,aresample={RATE}:async=1:min_hard_comp=0.001:first_pts=0,pan=mono|c0=c0");
    let before = ["-hide_banner", "-loglevel", "level+info", "-nostdin", "-copyts", "-i"];
    let after = ["-map", stream, "-af", &filters, "-f", "f32le", "-"];
    let done = tokio::process::Command::new("ffmpeg").args(before).arg(film).args(after).output().await.expect("ffmpeg");
    let samples = done.stdout.chunks_exact(4).map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]])).collect();
    Sound { samples, complaints: complaints(&String::from_utf8_lossy(&done.stderr)) }
}

impl Sound {
    pub(crate) fn seconds(&self) -> f64 {
        self.samples.len() as f64 / RATE as f64
    }

    /// Times at which beeps begin.
    pub(crate) fn beeps(&self) -> Vec<f64> {
        let loudest = self.samples.iter().fold(0.0f32, |most, sample| most.max(sample.abs()));
        let mut found: Vec<f64> = Vec::new();
        if loudest < 0.05 {
            return found;
        }
        for (at, sample) in self.samples.iter().enumerate() {
            let seconds = at as f64 / RATE as f64;
            if sample.abs() > loudest / 2.0 && found.last().is_none_or(|last| seconds - last > 1.0) {
                found.push(seconds);
            }
        }
        found
    }

    /// How loud each 20 ms are.
    pub(crate) fn loudness(&self) -> Vec<f32> {
        let loud = |stretch: &[f32]| (stretch.iter().map(|sample| sample * sample).sum::<f32>() / stretch.len() as f32).sqrt();
        self.samples.chunks_exact(STRETCH).map(loud).collect()
    }
}

/// Seconds of the stretches, twice 20 ms or longer, in which `theirs` is heard and `ours` is not.
pub(crate) fn holes(ours: &Sound, theirs: &Sound) -> Vec<f64> {
    let (ours, theirs) = (ours.loudness(), theirs.loudness());
    let silent = |n: usize| theirs[n] > 0.003 && ours.get(n).is_none_or(|loud| *loud < theirs[n] / 6.0);
    (0..theirs.len().saturating_sub(2)).filter(|n| silent(*n) && silent(n + 1)).map(|n| n as f64 * STRETCH as f64 / RATE as f64).collect()
}
