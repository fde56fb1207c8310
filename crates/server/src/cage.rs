//! The cage: what a child process may not do, set by the child itself before it becomes ffmpeg.
//!
//! `balcony-server cage … -- program args…` is a hidden command of our own binary. It ties its life to its parent, gives up privileges,
//! lowers its priority and its limits, closes the walls that this kernel has, and then becomes the program (`exec`): the process number
//! stays the same. This way the server needs no code between `fork` and `exec`.
//!
//! Two walls, both of Linux: Landlock (which files, which ports) and seccomp (which system calls). Kernels differ in what they have of
//! them. What is missing is told once, by a trial that the server makes at its start ([`Report`]), not by every child.

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rlimit::Resource;

#[cfg(target_os = "linux")]
mod calls;
#[cfg(target_os = "linux")]
mod files;
#[cfg(target_os = "linux")]
mod walls;
#[cfg(not(target_os = "linux"))]
#[path = "cage/no_walls.rs"]
mod walls;

/// Exit code when the cage could not be closed or the program could not be started.
pub const EXIT_UNCAGED: i32 = 125;

/// The word that asks for a trial instead of a program.
const TRIAL: &str = "trial";

/// The word that opens the way to the graphics cards.
const GRAPHICS: &str = "graphics";

/// The word before a folder that is only read.
const READS: &str = "reads";

/// What the caged program may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Added to the niceness, 0 to 19.
    pub nice: i32,
    /// Bytes of address space.
    pub address_space: u64,
    /// Seconds of processor time; `None` for no limit.
    pub cpu_seconds: Option<u64>,
    /// Open files.
    pub files: u64,
    /// Bytes of a file that it writes.
    pub file_size: u64,
}

impl Limits {
    /// For a run that encodes: 4K with x264's threads takes about 3 GiB of address space, most of it never touched.
    pub const ENCODE: Self = Self { nice: 10, address_space: 12 << 30, cpu_seconds: None, files: 128, file_size: 0 };

    /// For a look at a file: it reads a few megabytes and ends.
    pub const PROBE: Self = Self { nice: 5, address_space: 4 << 30, cpu_seconds: Some(30), files: 64, file_size: 0 };

    /// For a sheet of stills: a few single pictures, and nothing that anybody waits for.
    pub const STILLS: Self = Self { nice: 19, address_space: 4 << 30, cpu_seconds: Some(20), files: 64, file_size: 0 };

    /// For a run on an encoder in silicon: the drivers of graphics cards reserve more addresses than any machine has memory.
    pub const GRAPHICS: Self = Self { address_space: 1 << 46, files: 256, ..Self::ENCODE };

    /// For making the sample film, which is about 20 MB.
    pub const SAMPLE: Self = Self { cpu_seconds: Some(600), file_size: 1 << 30, ..Self::ENCODE };
}

/// What the caged program reaches beyond itself and its libraries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reach {
    port: Option<u16>,
    folder: Option<PathBuf>,
    graphics: bool,
    reads: Option<PathBuf>,
}

impl Reach {
    /// Nothing: no port, no folder.
    pub const fn nothing() -> Self {
        Self { port: None, folder: None, graphics: false, reads: None }
    }

    /// It may connect to this TCP port. Kernels know ports, not addresses.
    pub const fn port(port: u16) -> Self {
        Self { port: Some(port), folder: None, graphics: false, reads: None }
    }

    /// It may read and write in this folder, and make files there.
    pub const fn folder(folder: PathBuf) -> Self {
        Self { port: None, folder: Some(folder), graphics: false, reads: None }
    }

    /// The same, and the graphics cards: their devices, and what their drivers read of the machine.
    pub fn with_graphics(self) -> Self {
        Self { graphics: true, ..self }
    }

    /// It may also read what is in this folder.
    #[must_use]
    pub fn and_reads(self, folder: Option<PathBuf>) -> Self {
        Self { reads: folder, ..self }
    }
}

/// The arguments of the hidden command, for a child of process `parent` that becomes `program`.
pub fn command_line(parent: u32, limits: Limits, reach: &Reach, program: OsString, args: Vec<OsString>) -> Vec<OsString> {
    let cpu = limits.cpu_seconds.unwrap_or(0);
    let nice = u64::try_from(limits.nice).unwrap_or(0);
    let port = u64::from(reach.port.unwrap_or(0));
    let mut words: Vec<OsString> = vec!["cage".into()];
    for number in [u64::from(parent), nice, limits.address_space, cpu, limits.files, limits.file_size, port] {
        words.push(number.to_string().into());
    }
    if reach.graphics {
        words.push(GRAPHICS.into());
    }
    words.extend(reach.folder.iter().map(OsString::from));
    words.extend(reach.reads.iter().flat_map(|folder| [READS.into(), folder.into()]));
    words.extend(["--".into(), program]);
    words.extend(args);
    words
}

/// The arguments of the hidden command for a trial ([`Report`]), for a child of process `parent`.
pub fn trial_command_line(parent: u32) -> Vec<OsString> {
    vec!["cage".into(), TRIAL.into(), parent.to_string().into()]
}

/// What of the cage holds on this machine: tried from inside, not taken from the kernel's word.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// No files but those of the program and its libraries can be read, and none written.
    pub files: bool,
    /// TCP connections lead to the port that was allowed and to no other.
    pub network: bool,
    /// No processes can be started, and no other kinds of sockets made.
    pub calls: bool,
    /// Version of the kernel's Landlock, 0 for none.
    pub landlock: u8,
}

impl Report {
    /// Reads what a trial wrote; `None` where it is something else.
    pub fn read(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let mut number = |name: &str| words.next()?.strip_prefix(name)?.strip_prefix('=')?.parse::<u8>().ok();
        let (files, network, calls, landlock) = (number("files")?, number("network")?, number("calls")?, number("landlock")?);
        Some(Self { files: files == 1, network: network == 1, calls: calls == 1, landlock })
    }

    /// Whether nothing is missing.
    pub const fn is_whole(&self) -> bool {
        self.files && self.network && self.calls
    }

    /// One sentence for each thing that is missing.
    pub fn missing(&self) -> Vec<&'static str> {
        let all = [
            (
                self.files,
                "This kernel cannot keep ffmpeg from reading this user's files (Landlock, Linux 5.13, is missing or switched off).",
            ),
            (self.network, "This kernel cannot keep ffmpeg from connecting to other machines (Landlock 4, Linux 6.7, is missing)."),
            (self.calls, "This kernel cannot forbid system calls to ffmpeg (seccomp is missing)."),
        ];
        all.into_iter().filter(|(holds, _)| !holds).map(|(_, sentence)| sentence).collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |holds| if holds { "yes" } else { "NO" };
        let (files, network, calls) = (word(self.files), word(self.network), word(self.calls));
        write!(f, "files {files}, network {network} (Landlock {}), system calls {calls}", self.landlock)
    }
}

/// What the hidden command was asked for.
#[derive(Debug, PartialEq, Eq)]
struct Order {
    parent: u32,
    limits: Limits,
    reach: Reach,
    program: OsString,
    args: Vec<OsString>,
}

/// The hidden command. `args` are the words after `cage`, as [`command_line`] writes them. Becomes the program, or ends with
/// [`EXIT_UNCAGED`] after a sentence on standard error.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ! {
    let mut args = args.into_iter().peekable();
    let error = if args.next_if(|word| word == TRIAL).is_some() {
        attempt_trial(args.next())
    } else {
        match parse(args) {
            Some(order) => become_program(&order),
            None => strangers(),
        }
    };
    tell(&format!("cage: {error}"));
    std::process::exit(EXIT_UNCAGED)
}

fn strangers() -> io::Error {
    io::Error::other("it is started by the server only")
}

fn parse(args: impl IntoIterator<Item = OsString>) -> Option<Order> {
    let mut args = args.into_iter();
    let mut number = || args.next()?.to_str()?.parse::<u64>().ok();
    let (parent, nice, address_space, cpu, files, file_size, port) =
        (number()?, number()?, number()?, number()?, number()?, number()?, number()?);
    let cpu_seconds = (cpu > 0).then_some(cpu);
    let limits = Limits { nice: i32::try_from(nice).ok()?, address_space, cpu_seconds, files, file_size };
    let port = u16::try_from(port).ok()?;
    let mut word = args.next()?;
    let graphics = word == GRAPHICS;
    if graphics {
        word = args.next()?;
    }
    let (mut folder, mut reads) = (None, None);
    if word != "--" && word != READS {
        folder = Some(absolute(word)?);
        word = args.next()?;
    }
    if word == READS {
        reads = Some(absolute(args.next()?)?);
        word = args.next()?;
    }
    let reach = Reach { port: (port > 0).then_some(port), folder, graphics, reads };
    (word == "--").then_some(())?;
    Some(Order { parent: u32::try_from(parent).ok()?, limits, reach, program: args.next()?, args: args.collect() })
}

fn absolute(word: OsString) -> Option<PathBuf> {
    Some(PathBuf::from(word)).filter(|folder| folder.is_absolute())
}

/// Never returns but with the reason why the program does not run.
fn become_program(order: &Order) -> io::Error {
    let program = match walls::find(&order.program) {
        Ok(program) => program,
        Err(error) => return error,
    };
    match enter(order, &program) {
        Ok(()) => Command::new(&program).args(&order.args).exec(),
        Err(error) => error,
    }
}

/// Goes into the cage of a child that reaches nothing, tries to get out, and writes down what it found.
fn attempt_trial(parent: Option<OsString>) -> io::Error {
    let Some(parent) = parent.and_then(|parent| parent.to_str()?.parse().ok()) else { return strangers() };
    let Ok(own) = std::env::current_exe() else { return strangers() };
    let order = Order { parent, limits: Limits::PROBE, reach: Reach::nothing(), program: own.clone().into_os_string(), args: Vec::new() };
    if let Err(error) = enter(&order, &own) {
        return error;
    }
    let Report { files, network, calls, landlock } = walls::trial(&own);
    let line = format!("files={} network={} calls={} landlock={landlock}", u8::from(files), u8::from(network), u8::from(calls));
    if writeln!(io::stdout(), "{line}").is_ok() { std::process::exit(0) } else { strangers() }
}

/// Closes the cage around this process. What is vital for the promise that no child survives the server is an error; the rest is told.
fn enter(order: &Order, program: &Path) -> io::Result<()> {
    die_with_parent(order.parent)?;
    // The server starts the child in a group of its own already; this holds when somebody else starts the command.
    attempt("a process group of its own", rustix::process::setpgid(None, None).map_err(Into::into));
    no_new_privileges()?;
    attempt("a lower priority", rustix::process::nice(order.limits.nice).map(drop).map_err(Into::into));
    attempt("no core dumps", limit(Resource::CORE, 0));
    attempt("no files written", limit(Resource::FSIZE, order.limits.file_size));
    attempt("the number of open files", limit(Resource::NOFILE, order.limits.files));
    if let Some(seconds) = order.limits.cpu_seconds {
        attempt("a limit of processor time", limit(Resource::CPU, seconds));
    }
    #[cfg(not(target_os = "macos"))] // macOS has the name, and refuses every value
    attempt("a limit of memory", limit(Resource::AS, order.limits.address_space));
    walls::close(program, &order.reach)
}

/// Asks the kernel for SIGKILL when the parent ends; if it ended before the question, there is nobody to live for.
#[cfg(target_os = "linux")]
fn die_with_parent(parent: u32) -> io::Result<()> {
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
    if std::os::unix::process::parent_id() == parent { Ok(()) } else { Err(io::Error::other("the server is gone")) }
}

#[cfg(not(target_os = "linux"))]
fn die_with_parent(_parent: u32) -> io::Result<()> {
    tell("cage: this system cannot end a child together with the server");
    Ok(())
}

#[cfg(target_os = "linux")]
fn no_new_privileges() -> io::Result<()> {
    Ok(nix::sys::prctl::set_no_new_privs()?)
}

#[cfg(not(target_os = "linux"))]
fn no_new_privileges() -> io::Result<()> {
    tell("cage: this system cannot forbid new privileges");
    Ok(())
}

/// Lowers both limits; a hard limit that is lower already stays.
fn limit(resource: Resource, value: u64) -> io::Result<()> {
    let (_, hard) = resource.get()?;
    let value = value.min(hard);
    resource.set(value, value)
}

fn attempt(what: &str, done: io::Result<()>) {
    if let Err(error) = done {
        tell(&format!("cage: not to be had here: {what} ({error})"));
    }
}

/// Standard error of a caged program is read by the server, which keeps its end for the log.
fn tell(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_survives_the_command_line() {
        for limits in [Limits::ENCODE, Limits::PROBE, Limits::SAMPLE, Limits::GRAPHICS] {
            let reads = || Some("/tmp/another".into());
            let plain = [
                Reach::nothing(),
                Reach::port(40_000),
                Reach::folder("/tmp/a folder".into()),
                Reach::port(40_000).and_reads(reads()),
                Reach::folder("/tmp/a folder".into()).and_reads(reads()),
            ];
            for reach in plain.clone().into_iter().chain(plain.map(Reach::with_graphics)) {
                let words = command_line(42, limits, &reach, "/bin/ffmpeg".into(), vec!["-i".into(), "--".into()]);
                assert_eq!(words.first().expect("a command"), "cage");
                let order = parse(words.into_iter().skip(1)).expect("an order");
                let args = vec!["-i".into(), "--".into()];
                assert_eq!(order, Order { parent: 42, limits, reach, program: "/bin/ffmpeg".into(), args });
            }
        }
    }

    #[test]
    fn anything_else_is_no_order() {
        for words in [
            "",
            "1 2 3 4 5 6 7",
            "1 2 3 4 5 6 7 --",
            "1 2 3 4 5 6 -- x",
            "1 2 3 4 5 6 7 relative -- y",
            "1 2 3 4 5 6 7 graphics y",
            "1 2 3 4 5 6 7 /a graphics -- y",
            "1 2 3 4 5 6 7 /a /b -- y",
            "1 2 3 4 5 6 7 reads -- y",
            "1 2 3 4 5 6 7 reads relative -- y",
            "1 2 3 4 5 6 7 reads /a /b -- y",
            "1 2 3 4 5 6 65536 -- y",
            "99999999999 2 3 4 5 6 7 -- x",
        ] {
            assert_eq!(parse(words.split_whitespace().map(OsString::from)), None, "{words}");
        }
    }

    #[test]
    fn a_report_is_read_and_told() {
        let whole = Report::read("files=1 network=1 calls=1 landlock=7\n").expect("a report");
        assert_eq!(whole, Report { files: true, network: true, calls: true, landlock: 7 });
        assert_eq!((whole.to_string().as_str(), whole.missing()), ("files yes, network yes (Landlock 7), system calls yes", vec![]));
        let old = Report::read("files=1 network=0 calls=1 landlock=2").expect("a report");
        assert_eq!(old.to_string(), "files yes, network NO (Landlock 2), system calls yes");
        assert!(!old.is_whole() && old.missing().len() == 1 && old.missing()[0].contains("6.7"));
        for line in
            ["", "files=1", "files=1 network=1 calls=1", "files=x network=1 calls=1 landlock=1", "network=1 files=1 calls=1 landlock=1"]
        {
            assert_eq!(Report::read(line), None, "{line}");
        }
    }
}
