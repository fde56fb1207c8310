//! Opens the sockets that the server listens on: on which addresses, and with one port for all that speak the same.
//!
//! Who may do what on which of them is not decided here (see [`super::listener::Entrance`]).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::Context;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

/// How many connections may wait to be accepted.
const BACKLOG: i32 = 1024;
/// How often another free port is tried, where the port that one address offers is taken on the next.
const TRIES: usize = 16;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// All sockets of the server, open. Dropping them closes them.
#[derive(Debug)]
pub struct Doors {
    /// Plain HTTP; all on one port.
    pub http: Vec<TcpListener>,
    /// HTTPS; all on one port.
    pub https: Vec<TcpListener>,
    /// Where plain HTTP is the full API: `127.0.0.1` and its port.
    pub http_address: SocketAddr,
    /// Where HTTPS is: the address that was asked for, or the unspecified one for all, and its port.
    pub https_address: SocketAddr,
}

/// The ports that are ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// Plain HTTP.
    pub http: u16,
    /// HTTPS.
    pub https: u16,
}

impl Doors {
    /// The ports of the sockets.
    pub fn ports(&self) -> Ports {
        Ports { http: self.http_address.port(), https: self.https_address.port() }
    }
}

/// Opens all sockets. Without `address` they are open on all addresses of this machine; with one, HTTPS is there, and
/// plain HTTP there and on loopback. Port 0 is any free one. Has to be called within a tokio runtime.
///
/// # Errors
/// When a port cannot be opened: one sentence with the address, the port and the system's reason.
pub fn bind(address: Option<IpAddr>, http_port: u16, https_port: u16) -> anyhow::Result<Doors> {
    let plan = Plan::of(address);
    let (http, http_port) = open(&plan.http, http_port)?;
    let (https, https_port) = open(&plan.https, https_port)?;
    let shown = plan.https.first().map_or(LOOPBACK, |place| place.address);
    Ok(Doors { http, https, http_address: SocketAddr::new(LOOPBACK, http_port), https_address: SocketAddr::new(shown, https_port) })
}

/// An address to listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    address: IpAddr,
    /// Without it the server does not start. IPv6 may be switched off on a machine that asked for nothing in particular.
    needed: bool,
}

#[derive(Debug, PartialEq, Eq)]
struct Plan {
    http: Vec<Place>,
    https: Vec<Place>,
}

impl Plan {
    fn of(asked: Option<IpAddr>) -> Self {
        let place = |address: IpAddr| Place { address, needed: true };
        let everywhere = vec![place(Ipv4Addr::UNSPECIFIED.into()), Place { address: Ipv6Addr::UNSPECIFIED.into(), needed: false }];
        match asked.map(|address| address.to_canonical()) {
            None => Self { http: everywhere.clone(), https: everywhere },
            // Loopback is among them, and cannot be opened a second time.
            Some(all) if all == IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Self { http: vec![place(all)], https: vec![place(all)] },
            Some(LOOPBACK) => Self { http: vec![place(LOOPBACK)], https: vec![place(LOOPBACK)] },
            Some(one) => Self { http: vec![place(LOOPBACK), place(one)], https: vec![place(one)] },
        }
    }
}

/// Opens all places on one port; with port 0 the first chooses, and the others take the same.
fn open(places: &[Place], port: u16) -> anyhow::Result<(Vec<TcpListener>, u16)> {
    for try_again in (0..TRIES).rev() {
        match open_once(places, port) {
            Ok(open) => return Ok(open),
            Err((_, error)) if port == 0 && try_again > 0 && error.kind() == io::ErrorKind::AddrInUse => {}
            Err((at, error)) => {
                return Err(error).with_context(|| format!("port {} of {} cannot be opened", at.port(), at.ip()));
            }
        }
    }
    unreachable!("the last try answers");
}

fn open_once(places: &[Place], port: u16) -> Result<(Vec<TcpListener>, u16), (SocketAddr, io::Error)> {
    let (mut listeners, mut port) = (Vec::new(), port);
    for place in places {
        let at = SocketAddr::new(place.address, port);
        match listen(at) {
            Ok(listener) => {
                port = listener.local_addr().map_err(|error| (at, error))?.port();
                listeners.push(listener);
            }
            Err(error) if place.needed => return Err((at, error)),
            Err(error) => tracing::info!(%at, %error, "not listening there"),
        }
    }
    Ok((listeners, port))
}

fn listen(at: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, Some(Protocol::TCP))?;
    if at.is_ipv6() {
        // IPv4 has sockets of its own: an IPv4 address in IPv6 clothes would be one more thing to compare.
        socket.set_only_v6(true)?;
    }
    // After a restart the port of before is free at once. On Windows this would let others take it from us.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&at.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(asked: Option<&str>) -> (Vec<String>, Vec<String>) {
        let plan = Plan::of(asked.map(|text| text.parse().expect("an address")));
        let shown =
            |places: &[Place]| places.iter().map(|place| format!("{}{}", place.address, if place.needed { "" } else { "?" })).collect();
        (shown(&plan.http), shown(&plan.https))
    }

    #[test]
    fn where_to_listen() {
        let table: [(Option<&str>, &[&str], &[&str]); 7] = [
            (None, &["0.0.0.0", "::?"], &["0.0.0.0", "::?"]),
            (Some("0.0.0.0"), &["0.0.0.0"], &["0.0.0.0"]),
            (Some("::"), &["127.0.0.1", "::"], &["::"]),
            (Some("127.0.0.1"), &["127.0.0.1"], &["127.0.0.1"]),
            (Some("::ffff:127.0.0.1"), &["127.0.0.1"], &["127.0.0.1"]),
            (Some("127.0.0.2"), &["127.0.0.1", "127.0.0.2"], &["127.0.0.2"]),
            (Some("192.168.1.7"), &["127.0.0.1", "192.168.1.7"], &["192.168.1.7"]),
        ];
        for (asked, http, https) in table {
            let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
            assert_eq!(plan(asked), (owned(http), owned(https)), "{asked:?}");
        }
    }

    #[tokio::test]
    async fn all_sockets_of_a_kind_have_one_port() {
        let address = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
        let doors = bind(Some(address), 0, 0).expect("open");
        let addresses = |list: &[TcpListener]| list.iter().map(|one| one.local_addr().expect("its address")).collect::<Vec<_>>();
        let (http, https) = (doors.http_address, doors.https_address);
        assert_eq!(addresses(&doors.http), [http, SocketAddr::new(address, http.port())]);
        assert_eq!(addresses(&doors.https), [https]);
        assert!(http.ip() == LOOPBACK && https.ip() == address && http.port() != https.port());
    }

    #[tokio::test]
    async fn a_taken_port_is_said_in_a_sentence() {
        let first = bind(Some(LOOPBACK), 0, 0).expect("open");
        let port = first.http_address.port();
        let error = format!("{:#}", bind(Some(LOOPBACK), port, 0).expect_err("taken"));
        assert!(error.starts_with(&format!("port {port} of 127.0.0.1 cannot be opened: ")), "{error}");
        drop(first);
        bind(Some(LOOPBACK), port, 0).expect("free at once");
    }
}
