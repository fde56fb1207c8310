//! Films for tests, made by ffmpeg and mkvmerge when a test first asks for one, and kept under the target folder by their recipe.
//!
//! All are short and small, have a moving picture with a counter, and a click in the middle of each second of their sound.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

/// H.264 with B pictures and closed GOPs of very different lengths; a copy is cut at 0, 4.3, 9.7, 14.2 s (and 19.9).
pub(crate) const X264: &str = "-c:v libx264 -preset veryfast -crf 26 -pix_fmt yuv420p -bf 3 -g 999 -sc_threshold 0 \
     -force_key_frames 0,1.1,4.3,5.0,9.7,14.2,15,19.9";
pub(crate) const X265: &str = "-c:v libx265 -preset ultrafast -pix_fmt yuv420p -tag:v hvc1 -forced-idr 1 -force_key_frames 0,1.1,4.3,5.0,9.7,14.2 \
     -x265-params log-level=none:bframes=3:keyint=999:min-keyint=1:scenecut=0:open-gop=0";
pub(crate) const AAC: &str = "-c:a aac -b:a 96k";

/// Arguments for a picture of `seconds`.
pub(crate) fn picture(size: &str, seconds: f64) -> String {
    format!("-f lavfi -i testsrc2=s={size}:r=24000/1001:d={seconds}")
}

/// Arguments for a sound of `seconds`: a low hum, and a click in the middle of each second.
pub(crate) fn sound(seconds: f64) -> String {
    format!("-f lavfi -i aevalsrc=0.02*sin(220*2*PI*t)+0.9*between(mod(t\\,1)\\,0.5\\,0.502):s=48000:d={seconds}")
}

/// Picture and sound of the usual size.
pub(crate) fn both(seconds: f64) -> String {
    format!("{} {}", picture("640x360", seconds), sound(seconds))
}

/// What stays the same over all films.
const ALWAYS: &str = "-hide_banner -loglevel error -nostdin -y";

/// A film made by one run of ffmpeg.
pub(crate) fn by_ffmpeg(name: &str, arguments: &str) -> PathBuf {
    make(name, arguments, |out| run("ffmpeg", &format!("{ALWAYS} {arguments}"), out))
}

/// A film put together anew by mkvmerge from the tracks of another one.
pub(crate) fn by_mkvmerge(name: &str, options: &str, from: &Path) -> PathBuf {
    let recipe = format!("mkvmerge {options} {}", from.display());
    make(name, &recipe, |out| {
        let done = Command::new("mkvmerge").args(["-q", "-o"]).arg(out).args(options.split_whitespace()).arg(from).status();
        assert!(done.expect("mkvmerge (Debian: mkvtoolnix)").success(), "{recipe}");
    })
}

/// The usual film, `seconds` long, in an MP4 with its tables in front.
pub(crate) fn usual(seconds: f64) -> PathBuf {
    by_ffmpeg("usual.mp4", &format!("{} {X264} {AAC} -movflags +faststart", both(seconds)))
}

fn run(program: &str, arguments: &str, out: &Path) {
    let done = Command::new(program).args(arguments.split_whitespace()).arg(out).output().expect("ffmpeg");
    assert!(done.status.success(), "{program} {arguments}\n{}", String::from_utf8_lossy(&done.stderr));
}

/// Makes a film once: tests that run at the same time wait for the first one that wants it.
pub(crate) fn make(name: &str, recipe: &str, how: impl FnOnce(&Path)) -> PathBuf {
    let mut hasher = DefaultHasher::new();
    (name, recipe).hash(&mut hasher);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("films").join(format!("{:016x}", hasher.finish()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let lock = std::fs::File::create(folder.join("lock")).expect("a lock");
    lock.lock().expect("locked");
    let film = folder.join(name);
    if !film.exists() {
        // The name's ending tells the muxer.
        let aside = folder.join(format!("unfinished-{name}"));
        how(&aside);
        std::fs::rename(&aside, &film).expect("in place");
    }
    film
}
