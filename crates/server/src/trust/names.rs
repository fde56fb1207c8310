//! What a certificate of ours may be good for: names, addresses, and the bounds that the authority sets itself.
//!
//! Pure: nothing here reads a clock, a file or a network interface.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Names that an authority of ours permits, each with all names below it.
///
/// Without a leading dot. RFC 5280 §4.2.1.10 knows only this form for host names; some readers (rustls, OpenSSL, Chromium) also take
/// `.local`, but Java before version 22, and so what apps on Android use, finds no name at all below it.
pub const PERMITTED_NAMES: [&str; 2] = ["local", "localhost"];

/// Networks that an authority of ours permits: private (RFC 1918, RFC 4193), link-local, shared (RFC 6598) and loopback addresses.
pub const PERMITTED_NETWORKS: [(IpAddr, u8); 9] = [
    (IpAddr::V4(Ipv4Addr::new(10, 0, 0, 0)), 8),
    (IpAddr::V4(Ipv4Addr::new(172, 16, 0, 0)), 12),
    (IpAddr::V4(Ipv4Addr::new(192, 168, 0, 0)), 16),
    (IpAddr::V4(Ipv4Addr::new(169, 254, 0, 0)), 16),
    (IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8),
    (IpAddr::V4(Ipv4Addr::new(100, 64, 0, 0)), 10),
    (IpAddr::V6(Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0)), 7),
    (IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0)), 10),
    (IpAddr::V6(Ipv6Addr::LOCALHOST), 128),
];

/// Addresses beyond the loopback ones that a certificate names at most: each costs bytes in every handshake.
const MOST_ADDRESSES: usize = 100;

/// What this machine is called and where it is reached, as far as the rest of the server knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// Host labels (RFC 1123), each of which stands for `<label>.local`.
    pub labels: Vec<String>,
    /// Addresses, the best one first; loopback need not be among them.
    pub addresses: Vec<IpAddr>,
}

/// What one certificate is good for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subject {
    /// Host names in lower case, sorted.
    pub names: Vec<String>,
    /// Addresses, sorted.
    pub addresses: Vec<IpAddr>,
}

impl Subject {
    /// All of it as text, names first, as it stands in an address of a browser; IPv6 addresses without brackets.
    pub fn hosts(&self) -> Vec<String> {
        self.names.iter().cloned().chain(self.addresses.iter().map(IpAddr::to_string)).collect()
    }

    /// Whether this address is among them. An IPv4 address that came in the clothes of IPv6 counts as what it is.
    pub fn covers(&self, ip: IpAddr) -> bool {
        self.addresses.contains(&ip.to_canonical())
    }
}

/// What the name constraints of an authority permit (RFC 5280 §4.2.1.10).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Constraints {
    /// Names; each with all below it. Empty: names are not constrained.
    pub names: Vec<String>,
    /// Networks. Empty: addresses are not constrained.
    pub networks: Vec<Network>,
}

impl Constraints {
    /// Whether a certificate below such an authority may name this address.
    pub fn permit(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.networks.is_empty() || self.networks.iter().any(|network| network.holds(ip))
    }

    /// Whether a certificate below such an authority may name this host.
    pub fn permit_name(&self, name: &str) -> bool {
        let below = |of: &str| match of.strip_prefix('.') {
            Some(bare) => name.strip_suffix(bare).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
            None => name.strip_suffix(of).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')),
        };
        self.names.is_empty() || self.names.iter().any(|of| below(of))
    }
}

/// A network as it stands in a name constraint: an address and a mask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// IPv4: address, mask.
    V4(u32, u32),
    /// IPv6: address, mask.
    V6(u128, u128),
}

impl Network {
    /// Reads the bytes of a constraint: the address, then a mask of the same length. `None` for any other length.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        if let Ok(bytes) = <[u8; 8]>::try_from(bytes) {
            let both = u64::from_be_bytes(bytes);
            return Some(Self::V4((both >> 32) as u32, both as u32));
        }
        let (address, mask) = bytes.split_at_checked(16)?;
        Some(Self::V6(u128::from_be_bytes(address.try_into().ok()?), u128::from_be_bytes(mask.try_into().ok()?)))
    }

    /// Whether the address lies in it.
    pub fn holds(self, ip: IpAddr) -> bool {
        match (self, ip) {
            (Self::V4(address, mask), IpAddr::V4(ip)) => (ip.to_bits() ^ address) & mask == 0,
            (Self::V6(address, mask), IpAddr::V6(ip)) => (ip.to_bits() ^ address) & mask == 0,
            _ => false,
        }
    }
}

/// What a new certificate is to be good for: loopback and `localhost` always, and of `names` whatever is permitted.
///
/// The same names in another order give the same subject, so that a mere shuffle makes no new certificate.
pub fn subject(names: &Names, constraints: Option<&Constraints>) -> Subject {
    let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    let permitted = |ip: &IpAddr| constraints.is_none_or(|constraints| constraints.permit(*ip));
    let others = names.addresses.iter().map(IpAddr::to_canonical).filter(|ip| names_one_host(*ip) && permitted(ip));
    let mut seen = BTreeSet::from(loopback);
    // The best come first, so it is the worst that are cut off.
    let new: Vec<IpAddr> = others.filter(|ip| seen.insert(*ip)).take(MOST_ADDRESSES).collect();
    let addresses: BTreeSet<IpAddr> = loopback.into_iter().chain(new).collect();
    let local = names.labels.iter().filter(|label| is_label(label)).map(|label| format!("{}.local", label.to_ascii_lowercase()));
    let local = local.filter(|name| constraints.is_none_or(|constraints| constraints.permit_name(name)));
    let names: BTreeSet<String> = local.chain(["localhost".to_owned()]).collect();
    Subject { names: names.into_iter().collect(), addresses: addresses.into_iter().collect() }
}

fn names_one_host(ip: IpAddr) -> bool {
    !ip.is_unspecified() && !ip.is_multicast() && ip != IpAddr::V4(Ipv4Addr::BROADCAST)
}

/// A label of a host name (RFC 1123 §2.1).
fn is_label(text: &str) -> bool {
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= 63 && edge(bytes.first()) && edge(bytes.last()) && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};
    use proptest::{collection, prop_assert, prop_assert_eq};

    use super::*;

    fn ours() -> Constraints {
        let network = |(address, prefix): (IpAddr, u8)| match address {
            IpAddr::V4(ip) => Network::V4(ip.to_bits(), u32::MAX << (32 - u32::from(prefix))),
            IpAddr::V6(ip) => Network::V6(ip.to_bits(), u128::MAX << (128 - u32::from(prefix))),
        };
        Constraints { names: PERMITTED_NAMES.map(str::to_owned).to_vec(), networks: PERMITTED_NETWORKS.into_iter().map(network).collect() }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn only_addresses_of_a_house_are_permitted() {
        for (text, permitted) in [
            ("9.255.255.255", false),
            ("10.0.0.0", true),
            ("10.255.255.255", true),
            ("11.0.0.0", false),
            ("172.15.255.255", false),
            ("172.16.0.1", true),
            ("172.31.255.255", true),
            ("172.32.0.0", false),
            ("192.167.255.255", false),
            ("192.168.178.20", true),
            ("192.169.0.0", false),
            ("169.254.1.1", true),
            ("169.255.0.0", false),
            ("127.0.0.1", true),
            ("127.0.0.2", true),
            ("128.0.0.0", false),
            ("100.63.255.255", false),
            ("100.64.0.0", true),
            ("100.127.255.255", true),
            ("100.128.0.0", false),
            ("8.8.8.8", false),
            ("0.0.0.0", false),
            ("::1", true),
            ("::2", false),
            ("fbff::1", false),
            ("fc00::1", true),
            ("fdff:ffff::1", true),
            ("fe00::1", false),
            ("fe80::1", true),
            ("febf:ffff::1", true),
            ("fec0::1", false),
            ("2001:db8::1", false),
            ("::ffff:192.168.0.1", true),
            ("::ffff:8.8.8.8", false),
        ] {
            assert_eq!(ours().permit(ip(text)), permitted, "{text}");
        }
        assert!(Constraints::default().permit(ip("8.8.8.8")));
    }

    #[test]
    fn only_names_of_a_house_are_permitted() {
        for (name, permitted) in [
            ("anna.local", true),
            ("a.b.local", true),
            ("local", true),
            ("localhost", true),
            ("x.localhost", true),
            ("notlocal", false),
            ("x.notlocal", false),
            ("local.example.org", false),
            ("example.org", false),
            ("", false),
        ] {
            assert_eq!(ours().permit_name(name), permitted, "{name}");
        }
        let dotted = Constraints { names: vec![".local".into()], networks: Vec::new() };
        assert_eq!(["a.local", "local", ".local", "alocal"].map(|name| dotted.permit_name(name)), [true, false, false, false]);
        assert!(Constraints::default().permit_name("example.org"));
    }

    #[test]
    fn constraints_of_any_length_are_read_or_refused() {
        assert_eq!(Network::read(&[10, 0, 0, 0, 255, 0, 0, 0]), Some(Network::V4(10 << 24, 255 << 24)));
        let mut six = [0; 32];
        (six[0], six[16]) = (0xfc, 0xfe);
        assert!(Network::read(&six).expect("read").holds(ip("fd00::1")));
        for length in (0..70).filter(|length| ![8, 32].contains(length)) {
            assert_eq!(Network::read(&vec![1; length]), None, "{length}");
        }
    }

    #[test]
    fn a_subject_holds_what_is_permitted_and_loopback_always() {
        let names = Names {
            labels: ["Anna-Studio", "", "-a", "a-", "a.b", "ä", "x y", &"l".repeat(63), &"l".repeat(64), "anna-studio"]
                .map(str::to_owned)
                .into(),
            addresses: [
                "8.8.8.8",
                "192.168.1.7",
                "::ffff:10.0.0.9",
                "127.0.0.1",
                "2001:db8::1",
                "fd00::7",
                "0.0.0.0",
                "224.0.0.1",
                "192.168.1.7",
            ]
            .map(ip)
            .into(),
        };
        let expected = format!("anna-studio.local {}.local localhost 10.0.0.9 127.0.0.1 192.168.1.7 ::1 fd00::7", "l".repeat(63));
        assert_eq!(subject(&names, Some(&ours())).hosts().join(" "), expected);
        let free = subject(&names, None);
        assert!(free.covers(ip("8.8.8.8")) && free.covers(ip("::ffff:8.8.8.8")) && free.covers(ip("2001:db8::1")));
        assert!(!free.covers(ip("0.0.0.0")) && !free.covers(ip("224.0.0.1")) && !free.covers(ip("8.8.4.4")));
        assert_eq!(subject(&Names::default(), Some(&ours())).hosts(), ["localhost", "127.0.0.1", "::1"]);
    }

    #[test]
    fn too_many_addresses_lose_the_worst() {
        let addresses: Vec<IpAddr> = (0..200).rev().map(|last| IpAddr::V4(Ipv4Addr::new(10, 0, 0, last))).collect();
        let subject = subject(&Names { labels: Vec::new(), addresses }, Some(&ours()));
        assert_eq!(subject.addresses.len(), 2 + MOST_ADDRESSES);
        assert!(subject.covers(ip("10.0.0.199")) && subject.covers(ip("10.0.0.100")) && !subject.covers(ip("10.0.0.99")));
    }

    proptest! {
        #[test]
        fn every_subject_keeps_the_constraints(labels in collection::vec(".{0,70}", 0..6), addresses in collection::vec(any::<IpAddr>(), 0..20)) {
            let (ours, names) = (ours(), Names { labels, addresses });
            let made = subject(&names, Some(&ours));
            prop_assert!(made.addresses.iter().all(|ip| ours.permit(*ip)), "{made:?}");
            prop_assert!(made.names.iter().all(|name| ours.permit_name(name) && name.is_ascii()), "{made:?}");
            let shuffled = Names { labels: names.labels.iter().rev().cloned().collect(), addresses: names.addresses.iter().rev().copied().collect() };
            prop_assert_eq!(subject(&shuffled, Some(&ours)), made);
        }

        #[test]
        fn a_network_is_read_from_anything(bytes in collection::vec(any::<u8>(), 0..70), ip in any::<IpAddr>()) {
            if let Some(network) = Network::read(&bytes) {
                network.holds(ip);
            }
        }
    }
}
