//! Whether a port can be opened, and who has it where it cannot.

use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::Path;

use super::facts::{Port, PortState};
use crate::http::bind;
use crate::trust::letters::clear;

/// Opens a port for a moment, on the addresses on which the server would. Within a tokio runtime.
pub(super) fn attempt(bind: Option<IpAddr>, number: u16, flag: &'static str) -> Port {
    let opened = match flag {
        "http-port" => bind::bind(bind, number, 0),
        _ => bind::bind(bind, 0, number),
    };
    let state = match opened {
        Ok(_) => PortState::Free,
        Err(error) => match (error.downcast_ref::<std::io::Error>().map(std::io::Error::kind), bind) {
            (Some(ErrorKind::AddrInUse), _) => PortState::Taken(holder(number)),
            (Some(ErrorKind::PermissionDenied), _) => PortState::Forbidden,
            (Some(ErrorKind::AddrNotAvailable), Some(address)) => PortState::NoAddress(address),
            (kind, _) => PortState::Unusable(kind.map_or_else(|| error.to_string(), |kind| kind.to_string())),
        },
    };
    Port { number, flag, state }
}

/// Name and number of the process that listens there. Linux shows only one's own to who is not root.
fn holder(port: u16) -> Option<(String, u32)> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|file| std::fs::read_to_string(file).unwrap_or_default());
    let sockets: Vec<_> = tables.iter().flat_map(|table| listening(table, port)).map(|inode| format!("socket:[{inode}]")).collect();
    let processes = std::fs::read_dir("/proc").ok()?.flatten();
    let mut numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let pid = numbers.find(|pid| has_one_of(*pid, &sockets))?;
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Some((clear(name.trim()).chars().filter(|c| !c.is_control()).collect(), pid))
}

fn has_one_of(pid: u32, sockets: &[String]) -> bool {
    let open = std::fs::read_dir(Path::new("/proc").join(pid.to_string()).join("fd")).into_iter().flatten().flatten();
    let mut targets = open.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    targets.any(|target| target.to_str().is_some_and(|target| sockets.iter().any(|socket| socket == target)))
}

/// The sockets that listen on a port, by the table of the kernel (proc_pid_net(5)).
fn listening(table: &str, port: u16) -> impl Iterator<Item = u64> {
    let of_line = move |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        let (_, local) = words.next()?.rsplit_once(':')?;
        let is_it = u16::from_str_radix(local, 16) == Ok(port) && words.nth(1)? == "0A";
        let inode = words.nth(5)?.parse().ok()?;
        is_it.then_some(inode)
    };
    table.lines().filter_map(of_line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_the_kernel_is_read() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:0BB9 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4711 1 0000000000000000 100 0 0 10 0\n\
            1: 0100007F:0BB9 0100007F:D431 01 00000000:00000000 00:00000000 00000000  1000        0 4712 1 0000000000000000 20 4 30 10 -1\n\
            2: 00000000:0D73 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 99 1 0000000000000000 100 0 0 10 0\n\
            3: broken\n\
            0: 00000000000000000000000001000000:0BB9 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 4713 1 0 100 0 0 10 0";
        for (port, sockets) in [(3001, vec![4711, 4713]), (3443, vec![99]), (80, vec![])] {
            assert_eq!(listening(table, port).collect::<Vec<_>>(), sockets, "{port}");
        }
    }

    #[tokio::test]
    async fn a_port_that_is_taken_is_told_from_one_that_is_free() {
        let here = Some(IpAddr::from([127, 0, 0, 1]));
        let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let number = taken.local_addr().expect("its address").port();
        let attempted = attempt(here, number, "https-port");
        let PortState::Taken(holder) = attempted.state else { panic!("{attempted:?}") };
        let expected = cfg!(target_os = "linux").then(std::process::id);
        assert_eq!(holder.map(|(_, pid)| pid), expected);
        drop(taken);
        for flag in ["http-port", "https-port"] {
            assert_eq!(attempt(here, number, flag), Port { number, flag, state: PortState::Free });
            let nowhere = IpAddr::from([192, 0, 2, 1]);
            assert_eq!(attempt(Some(nowhere), 0, flag).state, PortState::NoAddress(nowhere));
        }
    }
}
