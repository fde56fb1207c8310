//! Tells systemd that the server listens, and that it ends (sd_notify(3)): a datagram to the socket that `NOTIFY_SOCKET` names. Where nobody
//! started the server as such a service, nothing is told to anybody.

/// The server listens.
pub const READY: &str = "READY=1";
/// The server ends.
pub const STOPPING: &str = "STOPPING=1";

/// Tells it, if somebody wants to know. Whether it was heard changes nothing.
pub fn tell(what: &str) {
    #[cfg(target_os = "linux")]
    if let Some(socket) = std::env::var_os("NOTIFY_SOCKET")
        && let Err(error) = linux::tell(&socket, what)
    {
        tracing::debug!(%error, what, "systemd was not told");
    }
    #[cfg(not(target_os = "linux"))]
    let _ = what;
}

#[cfg(target_os = "linux")]
mod linux {
    use std::ffi::OsStr;
    use std::io;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};

    /// A path, or a name in the abstract space behind an `@`.
    pub(super) fn tell(socket: &OsStr, what: &str) -> io::Result<()> {
        let address = match socket.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            _ => SocketAddr::from_pathname(socket)?,
        };
        let from = UnixDatagram::unbound()?;
        // A reader that hangs must not keep the server.
        from.set_nonblocking(true)?;
        from.send_to_addr(what.as_bytes(), &address).map(drop)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn both_kinds_of_names_are_reached() {
            let folder = tempfile::tempdir().expect("folder");
            let path = folder.path().join("socket");
            let by_path = UnixDatagram::bind(&path).expect("bound");
            let name = format!("balcony-test-{}", std::process::id());
            let by_name = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).expect("a name")).expect("bound");
            for (socket, told) in [(path.as_os_str().to_owned(), &by_path), (format!("@{name}").into(), &by_name)] {
                tell(&socket, "READY=1").expect("told");
                let mut heard = [0; 32];
                let len = told.recv(&mut heard).expect("heard");
                assert_eq!(&heard[..len], b"READY=1");
            }
            assert!(tell(OsStr::new("/nowhere/socket"), "READY=1").is_err());
        }
    }
}
