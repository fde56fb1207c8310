//! Whose is the other end of a connection on this machine?
//!
//! Linux tells: the kernel knows the number (inode) of the socket at the other end, and a process shows the numbers of those that it
//! holds. Other systems are not asked. Formats: `linux/inet_diag.h`, `linux/netlink.h`, proc(5).

use std::net::SocketAddrV4;

/// What is known of the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// The process that was asked about holds it.
    This,
    /// It does not, or the connection is gone.
    Another,
    /// This system does not say.
    Unknown,
}

/// Whether process `pid` holds the end `far` of the connection between `far` and `near`. Costs some tens of microseconds.
#[cfg(target_os = "linux")]
pub(super) fn of(far: SocketAddrV4, near: SocketAddrV4, pid: u32) -> Owner {
    match linux::inode(far, near) {
        Some(Some(inode)) => linux::holds(pid, inode),
        Some(None) => Owner::Another,
        None => Owner::Unknown,
    }
}

/// Nothing is known here.
#[cfg(not(target_os = "linux"))]
pub(super) fn of(_far: SocketAddrV4, _near: SocketAddrV4, _pid: u32) -> Owner {
    Owner::Unknown
}

#[cfg(target_os = "linux")]
mod linux {
    use std::fs;
    use std::io::ErrorKind;
    use std::net::SocketAddrV4;
    use std::os::fd::AsRawFd;

    use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket};

    use super::Owner;

    /// `NLMSG_ERROR` and `SOCK_DIAG_BY_FAMILY`.
    const ERROR: u16 = 2;
    const BY_FAMILY: u16 = 20;
    /// Bytes of a request: `nlmsghdr` and `inet_diag_req_v2`.
    const REQUEST: u32 = 16 + 56;

    pub(super) fn holds(pid: u32, inode: u32) -> Owner {
        let name = format!("socket:[{inode}]");
        match fs::read_dir(format!("/proc/{pid}/fd")) {
            Ok(mut open) => {
                let held =
                    open.any(|entry| entry.and_then(|entry| fs::read_link(entry.path())).is_ok_and(|link| link.as_os_str() == &*name));
                if held { Owner::This } else { Owner::Another }
            }
            Err(error) if error.kind() == ErrorKind::PermissionDenied => Owner::Unknown,
            Err(_) => Owner::Another,
        }
    }

    /// The number of the socket at `far`: `Some(None)` where there is none, `None` where nobody can be asked.
    pub(super) fn inode(far: SocketAddrV4, near: SocketAddrV4) -> Option<Option<u32>> {
        asked(far, near).or_else(|| in_table(&fs::read_to_string("/proc/net/tcp").ok()?, far, near))
    }

    /// Asks the kernel for this one connection.
    pub(super) fn asked(far: SocketAddrV4, near: SocketAddrV4) -> Option<Option<u32>> {
        let kernel = socket(AddressFamily::Netlink, SockType::Datagram, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkSockDiag).ok()?;
        sendto(kernel.as_raw_fd(), &request(far, near), &NetlinkAddr::new(0, 0), MsgFlags::empty()).ok()?;
        let mut answer = [0; 512];
        // The kernel answers within the call that asks.
        let len = recv(kernel.as_raw_fd(), &mut answer, MsgFlags::MSG_DONTWAIT).ok()?;
        read(answer.get(..len)?)
    }

    fn request(far: SocketAddrV4, near: SocketAddrV4) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(REQUEST as usize);
        let (request, any) = (1_u16, u32::MAX);
        bytes.extend(REQUEST.to_ne_bytes());
        bytes.extend([BY_FAMILY.to_ne_bytes(), request.to_ne_bytes()].concat());
        bytes.extend([0; 8]); // no sequence, no port of ours
        bytes.extend([AddressFamily::Inet as u8, nix::libc::IPPROTO_TCP as u8, 0, 0]);
        bytes.extend(any.to_ne_bytes()); // in any state
        bytes.extend([far.port().to_be_bytes(), near.port().to_be_bytes()].concat());
        for ip in [far.ip(), near.ip()] {
            bytes.extend(ip.octets());
            bytes.extend([0; 12]);
        }
        bytes.extend([0; 4]); // on any interface
        bytes.extend([any.to_ne_bytes(), any.to_ne_bytes()].concat()); // no cookie
        bytes
    }

    fn read(answer: &[u8]) -> Option<Option<u32>> {
        let number = |at: usize| Some(u32::from_ne_bytes(answer.get(at..at.checked_add(4)?)?.try_into().ok()?));
        match u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?) {
            // Behind `nlmsghdr`: family, state and so on (4), the addresses (48), three numbers, the user, the inode.
            BY_FAMILY => Some(Some(number(16 + 4 + 48 + 16)?)),
            ERROR if number(16)?.cast_signed() == -nix::libc::ENOENT => Some(None),
            _ => None,
        }
    }

    /// The same from the table of all connections, for kernels that cannot be asked for one.
    pub(super) fn in_table(table: &str, far: SocketAddrV4, near: SocketAddrV4) -> Option<Option<u32>> {
        let written = |end: SocketAddrV4| format!("{:08X}:{:04X}", u32::from_ne_bytes(end.ip().octets()), end.port());
        let (far, near) = (written(far), written(near));
        let row = |line: &str| {
            let mut columns = line.split_whitespace().skip(1);
            (columns.next()? == far && columns.next()? == near).then(|| columns.nth(6)?.parse().ok()).flatten()
        };
        Some(table.lines().find_map(row))
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::net::{SocketAddr, TcpListener, TcpStream};

    use super::*;

    fn v4(address: SocketAddr) -> SocketAddrV4 {
        match address {
            SocketAddr::V4(address) => address,
            SocketAddr::V6(_) => panic!("IPv4"),
        }
    }

    #[test]
    fn a_connection_belongs_to_whoever_holds_its_other_end() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listening");
        let stream = TcpStream::connect(listener.local_addr().expect("an address")).expect("connected");
        let (far, near) = (v4(stream.local_addr().expect("an address")), v4(stream.peer_addr().expect("an address")));
        assert_eq!(of(far, near, std::process::id()), Owner::This);
        assert_eq!(of(far, near, 1), Owner::Another, "the first process of all has no such socket");
        assert_eq!(of(far, near, u32::MAX), Owner::Another, "nobody");
        let nowhere = SocketAddrV4::new(*far.ip(), far.port() ^ 1);
        assert_eq!(of(nowhere, near, std::process::id()), Owner::Another);
        let table = std::fs::read_to_string("/proc/net/tcp").expect("the table");
        assert!(matches!(linux::asked(far, near), Some(Some(1..))), "the kernel can be asked here");
        assert_eq!(linux::in_table(&table, far, near), linux::asked(far, near), "both ways lead to the same");
        assert_eq!(linux::in_table(&table, nowhere, near), Some(None));
        drop(stream);
        assert_eq!(of(far, near, std::process::id()), Owner::Another, "it is closed");
    }
}
