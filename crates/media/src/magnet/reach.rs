//! Who can be reached: which addresses belong to the public Internet, and what a tracker's URL points at.
//!
//! A link must not make this machine talk to the router, to a neighbour or to a cloud's metadata service. Names cannot be judged
//! here, as this package resolves nothing: the caller looks a name up and asks [`is_public`] about every address that it gets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

/// Longest tracker URL that is kept, in bytes.
const MAX_TRACKER_LEN: usize = 1024;

/// What stands as host in a tracker's URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// An address of the public Internet.
    PublicLiteral(IpAddr),
    /// An address, or the name of this machine itself, that no stranger's link should make us talk to.
    PrivateLiteral,
    /// A name: resolve it, and ask [`is_public`] about each address.
    Name {
        /// Host name in its ASCII form.
        host: String,
        /// Port to connect to, never 0.
        port: u16,
    },
}

/// Where a tracker's URL leads, or `None` when it is not one that may be used at all (see [`normalised_tracker`]).
pub fn tracker_reach(tracker: &str) -> Option<Reach> {
    let (url, host) = read_tracker(tracker)?;
    Some(match host {
        Host::Ipv4(v4) => literal(IpAddr::V4(v4)),
        Host::Ipv6(v6) => literal(IpAddr::V6(v6)),
        Host::Domain(name) if names_this_machine(&name) => Reach::PrivateLiteral,
        Host::Domain(host) => Reach::Name { host, port: url.port_or_known_default()? },
    })
}

/// A tracker's URL in the one form in which it is used, or `None` when it must not be.
///
/// Kept are `http`, `https` and `udp` with a valid host, no user name or password and no port 0 (`udp` must name its port, BEP 15).
/// Numbers that stand for IPv4 addresses (`0x7f.1`) become dotted quads, so that nobody reads them differently later on.
pub fn normalised_tracker(text: &str) -> Option<String> {
    read_tracker(text).map(|(url, _)| url.into())
}

fn read_tracker(text: &str) -> Option<(Url, Host)> {
    if text.len() > MAX_TRACKER_LEN {
        return None;
    }
    let mut url = Url::parse(text).ok()?;
    // The URL standard leaves the host of a scheme that it does not know as it is; parsed again, both kinds are judged alike.
    let host = Host::parse(url.host_str()?).ok()?;
    url.set_fragment(None);
    match url.scheme() {
        "http" | "https" => {}
        "udp" => {
            url.port()?;
            url.set_host(Some(&host.to_string())).ok()?;
        }
        _ => return None,
    }
    let nobody = url.username().is_empty() && url.password().is_none();
    let sane_host = !matches!(&host, Host::Domain(name) if name.is_empty() || name.len() > 253);
    let fits = url.as_str().len() <= MAX_TRACKER_LEN;
    (nobody && sane_host && fits && url.port() != Some(0)).then_some((url, host))
}

fn literal(ip: IpAddr) -> Reach {
    if is_public(ip) { Reach::PublicLiteral(ip.to_canonical()) } else { Reach::PrivateLiteral }
}

/// RFC 6761, 6.3: these names mean the machine itself, whatever a resolver says.
fn names_this_machine(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

/// Whether an address belongs to the public Internet: globally reachable unicast after the IANA special-purpose registries (RFC 6890).
///
/// An IPv6 address that carries an IPv4 address (mapped, NAT64, 6to4) is judged by that one; what cannot be judged is not public.
pub fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let special = match ip.octets() {
        [0 | 10 | 127, ..] | [224..=255, ..] => true, // this network, private, loopback; multicast, reserved, broadcast
        [100, second, ..] => second & 0xc0 == 64,     // shared behind carriers' NAT, RFC 6598
        [169, 254, ..] => true,                       // link-local, clouds' metadata services
        [172, second, ..] => second & 0xf0 == 16,     // private
        [192, 168, ..] => true,                       // private
        [192, 0, 0 | 2, _] => true,                   // protocol assignments, documentation
        [192, 88, 99, _] => true,                     // 6to4 relays, deprecated by RFC 7526
        [198, second, ..] if second & 0xfe == 18 => true, // benchmarks, RFC 2544
        [198, 51, 100, _] | [203, 0, 113, _] => true, // documentation
        _ => false,
    };
    !special
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    let [a, b, c, d, e, f, g, h] = ip.segments();
    match [a, b, c, d, e, f] {
        [0, 0, 0, 0, 0, 0xffff] | [0x64, 0xff9b, 0, 0, 0, 0] => is_public_v4(embedded(g, h)), // mapped; NAT64, RFC 6052
        [0x2002, ..] => is_public_v4(embedded(b, c)),                                         // 6to4, RFC 3056
        [0x2001, ..] if b < 0x200 || b == 0xdb8 => false, // protocol assignments with Teredo; documentation
        [0x3fff, ..] if b < 0x1000 => false,              // documentation, RFC 9637
        _ => a & 0xe000 == 0x2000,                        // only 2000::/3 is global unicast
    }
}

fn embedded(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low))
}
