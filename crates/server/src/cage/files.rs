//! Which files a program needs in order to run: itself, its loader, its libraries, and a few facts about the machine.
//!
//! The program is the user's own choice and trusted to that extent; what is read here of its file is read with bounds all the same.
//! Nothing is decided by what the program says.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// Folders of libraries, on every kind of Linux.
const LIBRARIES: [&str; 7] = ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/local/lib64", "/run/opengl-driver"];

/// Facts about the machine, and fonts for subtitles that are drawn into the picture.
const FACTS: [&str; 19] = [
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/ld-musl-x86_64.path",
    "/etc/ld-musl-aarch64.path",
    "/etc/alternatives",
    "/etc/fonts",
    "/usr/share/fonts",
    "/usr/local/share/fonts",
    "/usr/share/fontconfig",
    "/var/cache/fontconfig",
    "/proc/self",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/filesystems",
    "/sys/devices/system/cpu",
    "/sys/devices/system/node",
    "/dev/urandom",
];

/// What the drivers of graphics cards read of the machine.
const GRAPHICS: [&str; 14] = [
    "/dev/dri",
    "/etc/drirc",
    "/proc/devices",
    "/proc/driver/nvidia",
    "/proc/modules",
    "/proc/sys/vm",
    "/proc/version",
    "/sys/class/drm",
    "/sys/dev/char",
    "/sys/devices",
    "/sys/module",
    "/usr/share/drirc.d",
    "/usr/share/libdrm",
    "/usr/share/nvidia",
];

/// How the files of their devices begin. Those by which a screen is drawn to (`card0`) are not among them.
const GRAPHICS_DEVICES: [(&str, &str); 3] = [("/dev/dri", "renderD"), ("/dev", "nvidia"), ("/dev", "dxg")];

/// Package stores whose packages lie each in a folder of its own and need each other. Nothing in them is private.
const STORES: [&str; 3] = ["/nix/store", "/gnu/store", "/home/linuxbrew/.linuxbrew"];

/// Most bytes of a program's file that are looked at.
const HEAD: u64 = 4096;

/// What the program may do with which files; what does not exist is left out by whoever opens it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Needs {
    /// Files and folders to read.
    pub(super) read: Vec<PathBuf>,
    /// Files and folders to read and to execute.
    pub(super) execute: Vec<PathBuf>,
    /// Devices that say and keep nothing.
    pub(super) devices: Vec<PathBuf>,
    /// Devices that are told what to do.
    pub(super) graphics: Vec<PathBuf>,
}

/// The program's file, looked for as a shell does.
///
/// # Errors
/// Where there is none.
pub(super) fn find(program: &OsStr) -> io::Result<PathBuf> {
    if program.as_bytes().contains(&b'/') {
        return Ok(program.into());
    }
    let path = env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    let found = env::split_paths(&path).map(|folder| folder.join(program)).find(|file| is_program(file));
    found.ok_or_else(|| io::Error::from_raw_os_error(nix::libc::ENOENT))
}

fn is_program(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// What the program in `file` needs.
pub(super) fn of(file: &Path) -> Needs {
    let mut needs = Needs {
        read: LIBRARIES.iter().chain(&FACTS).map(PathBuf::from).collect(),
        devices: ["/dev/null", "/dev/zero"].map(PathBuf::from).to_vec(),
        ..Needs::default()
    };
    let real = file.canonicalize().unwrap_or_else(|_| file.to_owned());
    needs.read.extend(beside(&real));
    needs.read.extend(named_folders());
    let head = head_of(&real);
    if let Some(interpreter) = script(&head) {
        // A wrapper: its interpreter runs it, and it must be able to become the true program. What it becomes stays in this cage.
        needs.execute.extend(LIBRARIES.map(PathBuf::from));
        needs.execute.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()).filter(|folder| folder.is_absolute()));
        needs.execute.extend(loader(&head_of(&interpreter)));
        needs.execute.push(interpreter);
    }
    needs.execute.extend(loader(&head));
    needs.execute.push(real);
    needs
}

impl Needs {
    /// The same, and the graphics cards.
    pub(super) fn with_graphics(mut self) -> Self {
        self.read.extend(GRAPHICS.map(PathBuf::from));
        for (folder, beginning) in GRAPHICS_DEVICES {
            let files = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
            let is_one = |file: &PathBuf| file.file_name().is_some_and(|name| name.to_string_lossy().starts_with(beginning));
            self.graphics.extend(files.filter(is_one).take(64));
        }
        self
    }
}

/// Libraries that came with the program: in the `lib` beside its `bin`, in its store, or right beside it.
fn beside(program: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = STORES.iter().filter(|store| program.starts_with(store)).map(PathBuf::from).collect();
    let Some(folder) = program.parent() else { return found };
    if folder.file_name() == Some(OsStr::new("bin")) {
        let libraries = folder.parent().into_iter().flat_map(|prefix| ["lib", "lib64"].map(|name| prefix.join(name)));
        found.extend(libraries);
    } else {
        // Not the folder itself, which may be somebody's home.
        found.push(folder.join("lib"));
        let files = std::fs::read_dir(folder).into_iter().flatten().flatten().take(1000).map(|entry| entry.path());
        found.extend(files.filter(|file| file.file_name().is_some_and(|name| name.to_string_lossy().contains(".so"))));
    }
    found
}

/// Folders of libraries that the user or the machine's own configuration names.
fn named_folders() -> Vec<PathBuf> {
    let variables = ["LD_LIBRARY_PATH", "LIBVA_DRIVERS_PATH"].into_iter().filter_map(env::var_os);
    let mut folders: Vec<PathBuf> = variables.flat_map(|value| env::split_paths(&value).collect::<Vec<_>>()).collect();
    for file in std::fs::read_dir("/etc/ld.so.conf.d").into_iter().flatten().flatten().take(100) {
        let text = std::fs::read_to_string(file.path()).unwrap_or_default();
        folders.extend(text.lines().map(|line| PathBuf::from(line.trim())));
    }
    folders.retain(|folder| folder.is_absolute() && folder.parent().is_some());
    folders
}

fn head_of(file: &Path) -> Vec<u8> {
    let mut head = Vec::new();
    if let Ok(file) = std::fs::File::open(file) {
        let _ = file.take(HEAD).read_to_end(&mut head);
    }
    head
}

/// The interpreter that a script names in its first line; for `env NAME` the program of that name.
fn script(head: &[u8]) -> Option<PathBuf> {
    let line = head.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let mut words = line.split(|byte| byte.is_ascii_whitespace()).filter(|word| !word.is_empty());
    let interpreter = PathBuf::from(OsStr::from_bytes(words.next()?));
    if interpreter.file_name() == Some(OsStr::new("env")) {
        return find(OsStr::from_bytes(words.next()?)).ok()?.canonicalize().ok();
    }
    interpreter.canonicalize().ok()
}

/// The loader that an ELF program names (`PT_INTERP`; System V ABI, chapter 5), 64 bits, little endian. A static program has none.
fn loader(head: &[u8]) -> Option<PathBuf> {
    if head.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let number = |at: usize, len: usize| -> Option<usize> {
        let bytes = head.get(at..at.checked_add(len)?)?;
        usize::try_from(bytes.iter().rev().fold(0_u64, |number, byte| number << 8 | u64::from(*byte))).ok()
    };
    let (table, entry, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    for n in 0..count {
        let at = table.checked_add(n.checked_mul(entry)?)?;
        if number(at, 4)? == 3 {
            let (from, len) = (number(at.checked_add(8)?, 8)?, number(at.checked_add(32)?, 8)?);
            let name = head.get(from..from.checked_add(len)?)?.split(|byte| *byte == 0).next()?;
            return PathBuf::from(OsString::from_vec(name.to_vec())).canonicalize().ok();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_program_is_found_as_a_shell_finds_it() {
        assert_eq!(find(OsStr::new("./here/ffmpeg")).expect("as it is"), Path::new("./here/ffmpeg"));
        assert!(find(OsStr::new("sh")).expect("found").is_absolute());
        assert_eq!(find(OsStr::new("no such program")).expect_err("not there").kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_program_may_execute_itself_and_its_loader() {
        let needs = of(Path::new("/bin/sh"));
        let shell = Path::new("/bin/sh").canonicalize().expect("a shell");
        assert_eq!(needs.execute.last(), Some(&shell));
        assert!(needs.execute.len() == 2 && needs.execute[0].to_string_lossy().contains("ld-"), "{:?}", needs.execute);
        assert!(needs.read.iter().all(|path| path.is_absolute() && !path.starts_with("/home") && path.parent().is_some()));
    }

    #[test]
    fn a_script_may_become_another_program() {
        let folder = tempfile::tempdir().expect("a folder");
        let wrapper = folder.path().join("ffmpeg");
        for line in ["#!/bin/sh", "#! /bin/sh -e", "#!/usr/bin/env sh"] {
            std::fs::write(&wrapper, format!("{line}\nexec ffmpeg \"$@\"\n")).expect("written");
            let needs = of(&wrapper);
            assert!(needs.execute.contains(&Path::new("/bin/sh").canonicalize().expect("a shell")), "{line}");
            assert!(needs.execute.contains(&"/usr/bin".into()) && needs.execute.contains(&wrapper.canonicalize().expect("it")), "{line}");
        }
        assert!(!of(&wrapper).read.contains(&folder.path().to_owned()), "the folder of a program may be a home");
    }

    #[test]
    fn libraries_that_came_with_a_program_are_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let prefix = folder.path().canonicalize().expect("a folder");
        std::fs::create_dir(prefix.join("bin")).expect("made");
        for name in ["bin/ffmpeg", "ffmpeg", "libavcodec.so.61", "diary.txt"] {
            std::fs::write(prefix.join(name), "").expect("written");
        }
        assert!(of(&prefix.join("bin/ffmpeg")).read.contains(&prefix.join("lib")));
        let read = of(&prefix.join("ffmpeg")).read;
        assert!(read.contains(&prefix.join("libavcodec.so.61")) && !read.contains(&prefix.join("diary.txt")));
        assert_eq!(beside(Path::new("/nix/store/abc-ffmpeg/bin/ffmpeg"))[0], Path::new("/nix/store"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_some_program(head in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = (loader(&head), script(&head), loader(&[&b"\x7fELF\x02\x01"[..], &head].concat()), script(&[b"#!", &head[..]].concat()));
        }
    }
}
