//! The data folder: ours alone while we run, and `run.json` in it tells where we are to be found.

use std::fs::{File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::trust::write_private;

/// Why the data folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another server runs on it.
    #[error("another server already runs on the data folder {} ({})", path.display(), pid.map_or("its pid is unknown".to_owned(), |pid| format!("pid {pid}")))]
    InUse {
        /// The folder.
        path: PathBuf,
        /// The other server.
        pid: Option<u32>,
    },
    /// It cannot be made, closed to others or written.
    #[error("the data folder {} cannot be used: {error}", path.display())]
    Unusable {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
}

/// The data folder, held for as long as this lives.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    /// Locked; the system lets go of it however we end.
    _lock: File,
    announced: bool,
}

/// The content of `run.json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    /// Our process.
    pub pid: u32,
    /// Address of plain HTTP.
    pub http: SocketAddr,
    /// Address of HTTPS.
    pub https: SocketAddr,
    /// Where the admin's token stands.
    pub admin_token_file: PathBuf,
}

impl DataDir {
    /// Makes the folder (mode 0700) and takes it for this process alone.
    ///
    /// # Errors
    /// With the pid of the server that has it.
    pub fn take(path: &Path) -> Result<Self, DataDirError> {
        let unusable = |error: io::Error| DataDirError::Unusable { path: path.to_owned(), error };
        make_private(path).map_err(unusable)?;
        // What is written into run.json has to be right from everywhere.
        let path = path.canonicalize().map_err(unusable)?;
        let mut lock = open_lock(&path.join("lock")).map_err(unusable)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(DataDirError::InUse { pid: read_pid(&mut lock), path }),
            Err(TryLockError::Error(error)) => return Err(unusable(error)),
        }
        write_pid(&mut lock).map_err(unusable)?;
        Ok(Self { path, _lock: lock, announced: false })
    }

    /// The folder, as an absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Puts `run.json` in place, all at once.
    pub fn announce(&mut self, run: &Run) -> io::Result<()> {
        write_private(&self.path.join("run.json"), &serde_json::to_vec(run)?)?;
        self.announced = true;
        Ok(())
    }
}

impl Drop for DataDir {
    fn drop(&mut self) {
        if self.announced {
            // Somebody may have deleted it already.
            let _ = std::fs::remove_file(self.path.join("run.json"));
        }
    }
}

/// Makes a folder that only this user can look into (mode 0700), with its parents.
pub fn make_private(path: &Path) -> io::Result<()> {
    std::fs::create_dir_all(path)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        if std::fs::metadata(path)?.permissions().mode() & 0o777 != 0o700 {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))?;
        }
    }
    Ok(())
}

fn open_lock(path: &Path) -> io::Result<File> {
    let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
    crate::trust::close_to_others(path)?;
    Ok(file)
}

fn write_pid(lock: &mut File) -> io::Result<()> {
    lock.set_len(0)?;
    lock.rewind()?;
    writeln!(lock, "{}", std::process::id())
}

fn read_pid(lock: &mut File) -> Option<u32> {
    let mut text = String::new();
    lock.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_one_is_told_the_pid_of_the_first() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("deep/data");
        let first = DataDir::take(&path).expect("taken");
        let error = DataDir::take(&path).expect_err("refused");
        assert!(matches!(error, DataDirError::InUse { pid: Some(pid), .. } if pid == std::process::id()), "{error}");
        assert!(error.to_string().contains(&format!("pid {}", std::process::id())), "{error}");
        drop(first);
        DataDir::take(&path).expect("free again");
    }

    #[test]
    fn run_json_comes_and_goes() {
        let folder = tempfile::tempdir().expect("folder");
        let mut data = DataDir::take(folder.path()).expect("taken");
        let (http, https) = ("127.0.0.1:3001".parse().expect("address"), "0.0.0.0:3443".parse().expect("address"));
        data.announce(&Run { pid: 7, http, https, admin_token_file: "/d/admin-token".into() }).expect("written");
        let text = std::fs::read_to_string(folder.path().join("run.json")).expect("there");
        assert_eq!(text, r#"{"pid":7,"http":"127.0.0.1:3001","https":"0.0.0.0:3443","adminTokenFile":"/d/admin-token"}"#);
        drop(data);
        assert!(!folder.path().join("run.json").exists());
    }

    #[cfg(unix)]
    #[test]
    fn the_folder_is_closed_to_others() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("data");
        std::fs::create_dir(&path).expect("made");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("opened");
        let _data = DataDir::take(&path).expect("taken");
        assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_file_in_the_way_is_said() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("file");
        std::fs::write(&path, "").expect("made");
        let error = DataDir::take(&path).expect_err("refused").to_string();
        assert!(error.contains("cannot be used"), "{error}");
    }
}
