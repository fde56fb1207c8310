//! Systems without Landlock and seccomp: no walls. The server's report says so.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use super::{Reach, Report};

/// The program as it was named; `exec` looks for it.
///
/// # Errors
/// Never.
pub(super) fn find(program: &OsStr) -> io::Result<PathBuf> {
    Ok(program.into())
}

/// Closes nothing.
///
/// # Errors
/// Never.
pub(super) fn close(_program: &Path, _reach: &Reach) -> io::Result<()> {
    Ok(())
}

/// Nothing holds.
pub(super) fn trial(_own: &Path) -> Report {
    Report::default()
}
