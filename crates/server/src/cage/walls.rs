//! The walls of Linux, closed and tried: no capabilities, Landlock, seccomp.
//!
//! Landlock knows ports but not addresses: the port of the film's source may be connected to on any machine. It knows neither UDP nor
//! protocols that only look like TCP, and lets a program look at names, owners and times of all files, and change rights: [`super::calls`]
//! forbids what can be told by a call's number and flags, so that the two together hold. Sockets of other families are forbidden
//! altogether; whether a driver for hardware encoders needs one has to be tried where there is one.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, LandlockStatus, NetPort, RestrictionStatus, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetError, RulesetStatus, Scope, path_beneath_rules,
};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};

use super::calls::Asked;
use super::files::{self, Needs};
use super::{Reach, Report, calls};

/// The version of Landlock whose every right was tried with ffmpeg. Older kernels give what they have of it; what younger ones add
/// (UDP, sockets in the file system) the list of system calls covers.
const TRIED: ABI = ABI::V7;

/// The program's file, looked for as a shell does.
///
/// # Errors
/// Where there is none.
pub(super) fn find(program: &OsStr) -> io::Result<PathBuf> {
    files::find(program)
}

/// Closes around this process what this kernel has. What it does not have is no error here: the trial tells.
///
/// # Errors
/// When a wall that the kernel has cannot be closed: then the program must not run.
pub(super) fn close(program: &Path, reach: &Reach) -> io::Result<()> {
    let mut needs = files::of(program);
    if reach.graphics {
        needs = needs.with_graphics();
    }
    // A server that runs as root, as in a container, gives none of that on. With no new privileges, `exec` brings nothing back.
    let none = CapabilitySets { effective: CapabilitySet::empty(), permitted: CapabilitySet::empty(), inheritable: CapabilitySet::empty() };
    set_capabilities(None, none)?;
    let watched = restrict(&needs, reach).map_err(io::Error::other)?.ruleset != RulesetStatus::NotEnforced;
    forbid(Asked { writes: reach.folder.is_some(), unwatched: !watched, graphics: reach.graphics })
}

fn restrict(needs: &Needs, reach: &Reach) -> Result<RestrictionStatus, RulesetError> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let ruleset = Ruleset::default().handle_access(AccessFs::from_all(TRIED))?.handle_access(AccessNet::from_all(TRIED))?;
    let mut ruleset = ruleset.scope(Scope::from_all(TRIED))?.create()?;
    ruleset = ruleset.add_rules(path_beneath_rules(needs.read.iter().chain(&reach.reads), read))?;
    ruleset = ruleset.add_rules(path_beneath_rules(&needs.execute, read | AccessFs::Execute))?;
    ruleset = ruleset.add_rules(path_beneath_rules(&needs.devices, AccessFs::ReadFile | AccessFs::WriteFile))?;
    let told = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev;
    ruleset = ruleset.add_rules(path_beneath_rules(&needs.graphics, told))?;
    ruleset = ruleset.add_rules(path_beneath_rules(&reach.folder, everything_but_execution()))?;
    let ports = reach.port.iter().map(|port| Ok::<_, RulesetError>(NetPort::new(*port, AccessNet::ConnectTcp)));
    ruleset.add_rules(ports)?.restrict_self()
}

fn everything_but_execution() -> BitFlags<AccessFs> {
    AccessFs::from_all(TRIED) & !AccessFs::Execute
}

/// Filters hold for this thread and whatever comes of it; there is no other thread in the hidden command.
fn forbid(asked: Asked) -> io::Result<()> {
    let Ok(filters) = calls::filters(std::process::id(), asked) else { return Ok(()) };
    for filter in filters {
        match seccompiler::apply_filter(&filter) {
            Ok(()) => {}
            // Kernels without filters say so in one of these two ways.
            Err(seccompiler::Error::Seccomp(error)) if matches!(error.raw_os_error(), Some(nix::libc::ENOSYS | nix::libc::EINVAL)) => break,
            Err(error) => return Err(io::Error::other(error)),
        }
    }
    Ok(())
}

/// Tries to get out of the cage around this very process. `own` is the program's file.
pub(super) fn trial(own: &Path) -> Report {
    let files = fs::read_dir("/").is_err() && File::options().write(true).open("/dev/full").is_err();
    // Nobody has to listen there: a connection that is allowed is refused by the other end, one that is not by the kernel.
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 9));
    let connected = TcpStream::connect_timeout(&address, Duration::from_secs(1));
    let network = connected.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied);
    let calls = Command::new(own).spawn().is_err() && UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).is_err();
    Report { files, network, calls, landlock: version() }
}

fn version() -> u8 {
    // Asking for nothing but the scopes changes nothing for a process that is caged already.
    let status = Ruleset::default().scope(Scope::from_all(TRIED)).and_then(Ruleset::create).and_then(|ruleset| ruleset.restrict_self());
    match status.map(|status| status.landlock) {
        Ok(LandlockStatus::Available { effective_abi, kernel_abi }) => {
            kernel_abi.and_then(|version| u8::try_from(version).ok()).unwrap_or(effective_abi as u8)
        }
        _ => 0,
    }
}
