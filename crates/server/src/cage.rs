//! The cage: what a child process may not do, set by the child itself before it becomes ffmpeg.
//!
//! `balcony-server cage … -- program args…` is a hidden command of our own binary. It ties its life to its parent, gives up privileges,
//! lowers its priority and its limits, and then becomes the program (`exec`): the process number stays the same. This way the server
//! needs no code between `fork` and `exec`. What this machine cannot do is told on standard error and in `balcony-server doctor`,
//! never passed over. Rules on files and system calls (Landlock, seccomp) belong into [`enter`], after the limits.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rlimit::Resource;

/// Exit code when the cage could not be closed or the program could not be started.
pub const EXIT_UNCAGED: i32 = 125;

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
}

impl Limits {
    /// For a run that encodes: 4K with x264's threads takes about 3 GiB of address space, most of it never touched.
    pub const ENCODE: Self = Self { nice: 10, address_space: 12 << 30, cpu_seconds: None, files: 128 };

    /// For a look at a file: it reads a few megabytes and ends.
    pub const PROBE: Self = Self { nice: 5, address_space: 4 << 30, cpu_seconds: Some(30), files: 64 };

    /// The arguments of the hidden command, for a child of process `parent` that becomes `program`.
    pub fn command_line(&self, parent: u32, program: OsString, args: Vec<OsString>) -> Vec<OsString> {
        let cpu = self.cpu_seconds.unwrap_or(0);
        let mut words: Vec<OsString> = vec!["cage".into()];
        for number in [u64::from(parent), u64::try_from(self.nice).unwrap_or(0), self.address_space, cpu, self.files] {
            words.push(number.to_string().into());
        }
        words.extend(["--".into(), program]);
        words.extend(args);
        words
    }
}

/// What the hidden command was asked for.
#[derive(Debug, PartialEq, Eq)]
struct Order {
    parent: u32,
    limits: Limits,
    program: OsString,
    args: Vec<OsString>,
}

/// The hidden command. `args` are the words after `cage`, as [`Limits::command_line`] writes them. Becomes the program, or ends with
/// [`EXIT_UNCAGED`] after a sentence on standard error.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ! {
    let error = match parse(args) {
        Some(order) => match enter(&order) {
            Ok(()) => Command::new(&order.program).args(&order.args).exec(),
            Err(error) => error,
        },
        None => io::Error::other("it is started by the server only"),
    };
    tell(&format!("cage: {error}"));
    std::process::exit(EXIT_UNCAGED)
}

fn parse(args: impl IntoIterator<Item = OsString>) -> Option<Order> {
    let mut args = args.into_iter();
    let mut number = || args.next()?.to_str()?.parse::<u64>().ok();
    let (parent, nice, address_space, cpu, files) = (number()?, number()?, number()?, number()?, number()?);
    if args.next()? != "--" {
        return None;
    }
    let limits = Limits { nice: i32::try_from(nice).ok()?, address_space, cpu_seconds: (cpu > 0).then_some(cpu), files };
    Some(Order { parent: u32::try_from(parent).ok()?, limits, program: args.next()?, args: args.collect() })
}

/// Closes the cage around this process. What is vital for the promise that no child survives the server is an error; the rest is told.
fn enter(order: &Order) -> io::Result<()> {
    die_with_parent(order.parent)?;
    // The server starts the child in a group of its own already; this holds when somebody else starts the command.
    attempt("a process group of its own", rustix::process::setpgid(None, None).map_err(Into::into));
    no_new_privileges()?;
    attempt("a lower priority", rustix::process::nice(order.limits.nice).map(drop).map_err(Into::into));
    attempt("no core dumps", limit(Resource::CORE, 0));
    attempt("no files written", limit(Resource::FSIZE, 0));
    attempt("the number of open files", limit(Resource::NOFILE, order.limits.files));
    if let Some(seconds) = order.limits.cpu_seconds {
        attempt("a limit of processor time", limit(Resource::CPU, seconds));
    }
    #[cfg(not(target_os = "macos"))] // macOS has the name, and refuses every value
    attempt("a limit of memory", limit(Resource::AS, order.limits.address_space));
    Ok(())
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
        for limits in [Limits::ENCODE, Limits::PROBE] {
            let words = limits.command_line(42, "/bin/ffmpeg".into(), vec!["-i".into(), "--".into()]);
            assert_eq!(words.first().expect("a command"), "cage");
            let order = parse(words.into_iter().skip(1)).expect("an order");
            assert_eq!(order, Order { parent: 42, limits, program: "/bin/ffmpeg".into(), args: vec!["-i".into(), "--".into()] });
        }
    }

    #[test]
    fn anything_else_is_no_order() {
        for words in ["", "1 2 3 4 5", "1 2 3 4 5 --", "1 2 3 4 -- x", "1 2 3 4 x -- y", "99999999999 2 3 4 5 -- x"] {
            assert_eq!(parse(words.split_whitespace().map(OsString::from)), None, "{words}");
        }
    }
}
