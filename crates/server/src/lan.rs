//! At which of its addresses a phone of the house reaches this machine, and by which names.
//!
//! [`classify`] decides by the name of an interface and the address on it; [`Addresses`] puts what it let pass into an order of usefulness;
//! [`follow`] keeps that order up to date. Nothing here listens, sends, or decides who may come in.

use std::collections::{HashMap, HashSet};
use std::future::pending;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use if_watch::IfEvent;
use if_watch::tokio::IfWatcher;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Addresses come and go in bursts (an interface gets three when a cable is plugged in); the burst is over when it was quiet for so long.
const QUIET: Duration = Duration::from_secs(1);

/// The longest burst that is waited for.
const BURST: Duration = Duration::from_secs(5);

/// How often the addresses are looked at where the system tells of changes. It does not tell of all: neither of another default route
/// nor of a cable that was pulled out of an interface that keeps its address.
const LOOK_WATCHED: Duration = Duration::from_secs(60);

/// How often they are looked at where the system tells nothing.
const LOOK_ALONE: Duration = Duration::from_secs(10);

/// The longest [`host_label`]. A label of DNS may have 63 bytes; the rest is room for what [`labels`] appends.
const LABEL: usize = 48;

/// What an address is good for. The order is that of preference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Private IPv4 (RFC 1918) on an interface of the house.
    Private,
    /// Any other IPv4 on such an interface.
    Ipv4,
    /// A unique local or global IPv6 address that stays.
    Ipv6,
    /// An IPv6 address that is replaced within hours (RFC 8981), or that the system gives up just now.
    Passing,
    /// 169.254/16 and fe80::/10: reachable from the same cable only, and IPv6 only by who knows the interface.
    LinkLocal,
    /// On a tunnel to somewhere else.
    Vpn,
    /// On a bridge or cable between this machine and what runs inside it.
    Container,
}

impl Kind {
    /// Whether a phone in the house may reach such an address.
    fn is_of_the_house(self) -> bool {
        self < Self::Vpn
    }

    /// Whether it is worth being written into a certificate.
    fn stays(self) -> bool {
        self != Self::Passing
    }
}

/// One address as the system gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Name of its interface: `eth0`, `en0`, `Wi-Fi`.
    pub interface: String,
    /// The address.
    pub ip: IpAddr,
    /// Whether the interface leads to one other machine only.
    pub point_to_point: bool,
    /// Whether the address will be replaced (RFC 8981) or is being given up.
    pub passing: bool,
    /// Metric of the default route of its family through its interface. The smallest wins.
    pub default_route: Option<u32>,
}

/// An address that is of use.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Address {
    kind: Kind,
    ip: IpAddr,
}

/// The addresses of this machine, best for a phone first; loopback is never among them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Addresses(Vec<Address>);

impl Addresses {
    /// The one address that a phone is told.
    pub fn best(&self) -> Option<IpAddr> {
        self.0.first().map(|address| address.ip)
    }

    /// The addresses at which the house may reach this machine: those of tunnels and containers only where there is nothing else, and
    /// those that are replaced within hours only then too (each would cost a new certificate).
    pub fn lan(&self) -> Vec<IpAddr> {
        let kept = |keep: fn(Kind) -> bool| -> Vec<IpAddr> {
            self.0.iter().filter(|address| keep(address.kind)).map(|address| address.ip).collect()
        };
        let steps: [fn(Kind) -> bool; 2] = [|kind| kind.is_of_the_house() && kind.stays(), Kind::is_of_the_house];
        steps.into_iter().map(kept).find(|some| !some.is_empty()).unwrap_or_else(|| self.all())
    }

    /// Those that a certificate names: all that stay, also of tunnels and containers, and at least those of the house. The best first.
    pub fn lasting(&self) -> Vec<IpAddr> {
        let lan = self.lan();
        self.0.iter().filter(|address| address.kind.stays() || lan.contains(&address.ip)).map(|address| address.ip).collect()
    }

    /// All of them.
    pub fn all(&self) -> Vec<IpAddr> {
        self.0.iter().map(|address| address.ip).collect()
    }

    /// Whether `ip` is one of them.
    pub fn has(&self, ip: IpAddr) -> bool {
        self.0.iter().any(|address| address.ip == ip)
    }

    /// What is left of them for a server that listens on `bind` alone; all where it is `None` or unspecified.
    pub fn bound_to(&self, bind: Option<IpAddr>) -> Self {
        match bind.filter(|ip| !ip.is_unspecified()) {
            None => self.clone(),
            Some(ip) => Self(self.0.iter().filter(|address| address.ip == ip).cloned().collect()),
        }
    }
}

impl FromIterator<Found> for Addresses {
    fn from_iter<T: IntoIterator<Item = Found>>(all: T) -> Self {
        let mut ranked: Vec<_> = all.into_iter().filter_map(|found| Some((rank(&found)?, found.ip))).collect();
        ranked.sort_unstable();
        let mut seen = HashSet::new();
        ranked.retain(|(_, ip)| seen.insert(*ip));
        Self(ranked.into_iter().map(|((kind, ..), ip)| Address { kind, ip }).collect())
    }
}

/// Kind; then whether the default route leads through the interface, and how gladly; then unique local before global addresses (the
/// provider of the house does not change them).
fn rank(found: &Found) -> Option<(Kind, u64, bool)> {
    let kind = match classify(&found.interface, found.point_to_point, found.ip)? {
        Kind::Ipv6 if found.passing => Kind::Passing,
        kind => kind,
    };
    let is_global = matches!(found.ip, IpAddr::V6(ip) if !ip.is_unique_local());
    Some((kind, found.default_route.map_or(u64::MAX, u64::from), is_global))
}

/// What `ip` on the interface called `name` is good for; `None` for what is no address for others: loopback, unspecified, multicast.
pub fn classify(name: &str, point_to_point: bool, ip: IpAddr) -> Option<Kind> {
    if ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() {
        return None;
    }
    Some(match ip {
        _ if is_container(name) => Kind::Container,
        _ if point_to_point || is_vpn(name) => Kind::Vpn,
        IpAddr::V4(ip) if ip.is_link_local() => Kind::LinkLocal,
        IpAddr::V4(ip) if ip.is_private() => Kind::Private,
        IpAddr::V4(_) => Kind::Ipv4,
        IpAddr::V6(ip) if ip.is_unicast_link_local() => Kind::LinkLocal,
        IpAddr::V6(_) => Kind::Ipv6,
    })
}

/// Interfaces of tunnels. The name of the kernel's driver or of the program that makes them, on Windows the name that is shown.
fn is_vpn(name: &str) -> bool {
    const BEGINNINGS: [&str; 22] = [
        "tun",
        "tap",
        "wg",
        "tailscale",
        "zt",
        "zerotier",
        "utun",
        "ipsec",
        "ppp",
        "nordlynx",
        "nordvpn",
        "proton",
        "mullvad",
        "wireguard",
        "openvpn",
        "hamachi",
        "gpd",
        "cscotun",
        "warp",
        "cloudflarewarp",
        "sit",
        "teredo",
    ];
    starts_with_one_of(name, &BEGINNINGS)
}

/// Interfaces between this machine and containers or virtual machines in it, and those that Apple's devices keep to themselves.
///
/// `br0`, `br-lan` and `vEthernet (…)` may be the very interface of the house: only those are meant that Docker and Windows name.
fn is_container(name: &str) -> bool {
    const BEGINNINGS: [&str; 27] = [
        "docker",
        "virbr",
        "vnet",
        "vmnet",
        "vboxnet",
        "virtualbox",
        "vmware network adapter",
        "vethernet (wsl",
        "vethernet (default switch",
        "vethernet (nat",
        "vethernet (docker",
        "cni",
        "cali",
        "flannel",
        "cilium",
        "podman",
        "nerdctl",
        "lxc",
        "lxdbr",
        "incusbr",
        "kube-",
        "waydroid",
        "vmenet",
        "bridge10",
        "awdl",
        "llw",
        "anpi",
    ];
    let lower = name.to_ascii_lowercase();
    let is_pair = lower.starts_with("veth") && !lower.starts_with("vethernet");
    let is_bridge = lower.starts_with("br-") && lower != "br-lan";
    is_pair || is_bridge || starts_with_one_of(name, &BEGINNINGS)
}

fn starts_with_one_of(name: &str, beginnings: &[&str]) -> bool {
    let name = name.to_ascii_lowercase();
    beginnings.iter().any(|beginning| name.starts_with(beginning))
}

/// The addresses of now. Empty where the system cannot say.
pub fn now() -> Addresses {
    let interfaces = if_addrs::get_if_addrs().unwrap_or_else(|error| {
        tracing::warn!(%error, "the addresses of this machine cannot be read");
        Vec::new()
    });
    let facts = Facts::read();
    let up = interfaces.into_iter().filter(if_addrs::Interface::is_oper_up);
    up.filter_map(|interface| {
        let ip = interface.ip();
        let flags = facts.flags(ip);
        (flags & ADDRESS_DUPLICATE == 0).then(|| Found {
            default_route: facts.default_route(&interface.name, ip),
            ip,
            point_to_point: interface.is_p2p,
            passing: flags & (ADDRESS_TEMPORARY | ADDRESS_DEPRECATED) != 0,
            interface: interface.name,
        })
    })
    .collect()
}

/// Flags of an address in `/proc/net/if_inet6` (`IFA_F_*` of `linux/if_addr.h`).
const ADDRESS_TEMPORARY: u32 = 0x01;
const ADDRESS_DUPLICATE: u32 = 0x08;
const ADDRESS_DEPRECATED: u32 = 0x20;

/// What is known of the routes and addresses besides their names.
///
/// On Linux the tables of the kernel are read, because they name the interface of the house also while a tunnel has taken all traffic.
/// Elsewhere the system is asked from which address it would talk to the Internet: right unless there is such a tunnel.
#[derive(Debug, Default)]
struct Facts {
    /// Metric of the default route by family (IPv6?) and interface.
    by_interface: HashMap<(bool, String), u32>,
    /// Addresses from which the Internet would be spoken to.
    by_address: HashSet<IpAddr>,
    flags: HashMap<Ipv6Addr, u32>,
}

impl Facts {
    fn read() -> Self {
        let table = |path| std::fs::read_to_string(path).ok();
        let (Some(ipv4), true) = (table("/proc/net/route"), cfg!(target_os = "linux")) else {
            return Self { by_address: addresses_towards_the_internet(), ..Self::default() };
        };
        let ipv6 = table("/proc/net/ipv6_route").unwrap_or_default();
        let routes = default_routes_ipv4(&ipv4).map(|(name, metric)| ((false, name), metric));
        let routes = routes.chain(default_routes_ipv6(&ipv6).map(|(name, metric)| ((true, name), metric)));
        let mut by_interface = HashMap::new();
        for (interface, metric) in routes {
            let least = by_interface.entry(interface).or_insert(metric);
            *least = metric.min(*least);
        }
        let flags = ipv6_flags(&table("/proc/net/if_inet6").unwrap_or_default()).collect();
        Self { by_interface, by_address: HashSet::new(), flags }
    }

    fn default_route(&self, interface: &str, ip: IpAddr) -> Option<u32> {
        let by_interface = self.by_interface.get(&(ip.is_ipv6(), interface.to_owned())).copied();
        by_interface.or_else(|| self.by_address.contains(&ip).then_some(0))
    }

    fn flags(&self, ip: IpAddr) -> u32 {
        let IpAddr::V6(ip) = ip else { return 0 };
        self.flags.get(&ip).copied().unwrap_or(0)
    }
}

/// A datagram socket that is connected says from where it would send. Nothing is sent.
fn addresses_towards_the_internet() -> HashSet<IpAddr> {
    // Two root servers of DNS: addresses that stay.
    let there: [(IpAddr, IpAddr); 2] = [
        (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::new(198, 41, 0, 4).into()),
        (Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::new(0x2001, 0x503, 0xba3e, 0, 0, 0, 2, 0x30).into()),
    ];
    let asked = there.into_iter().filter_map(|(from, to)| {
        let socket = std::net::UdpSocket::bind((from, 0)).ok()?;
        socket.connect((to, 53)).ok()?;
        Some(socket.local_addr().ok()?.ip())
    });
    asked.collect()
}

/// `RTF_UP` and `RTF_REJECT` of `linux/route.h`.
const ROUTE_UP: u32 = 0x1;
const ROUTE_REJECT: u32 = 0x200;

fn is_usable_route(flags: u32) -> bool {
    flags & ROUTE_UP != 0 && flags & ROUTE_REJECT == 0
}

/// Interfaces with a default route, and its metric, in the text of `/proc/net/route` (`man 5 proc`).
fn default_routes_ipv4(table: &str) -> impl Iterator<Item = (String, u32)> {
    table.lines().filter_map(|line| {
        let mut columns = line.split_whitespace();
        let interface = columns.next()?;
        let destination = hexadecimal(columns.next()?)?;
        let flags = hexadecimal(columns.nth(1)?)?;
        let metric = columns.nth(2)?.parse().ok()?;
        let mask = hexadecimal(columns.next()?)?;
        (destination == 0 && mask == 0 && is_usable_route(flags)).then(|| (interface.to_owned(), metric))
    })
}

/// The same in the text of `/proc/net/ipv6_route`.
fn default_routes_ipv6(table: &str) -> impl Iterator<Item = (String, u32)> {
    table.lines().filter_map(|line| {
        let columns: Vec<_> = line.split_whitespace().collect();
        let [destination, length, _, _, _, metric, _, _, flags, interface] = columns.as_slice() else { return None };
        let is_default = u128::from_str_radix(destination, 16).ok()? == 0 && hexadecimal(length)? == 0;
        (is_default && is_usable_route(hexadecimal(flags)?)).then_some(((*interface).to_owned(), hexadecimal(metric)?))
    })
}

/// The flags of each address in the text of `/proc/net/if_inet6`.
fn ipv6_flags(table: &str) -> impl Iterator<Item = (Ipv6Addr, u32)> {
    table.lines().filter_map(|line| {
        let columns: Vec<_> = line.split_whitespace().collect();
        let [address, _, _, _, flags, _] = columns.as_slice() else { return None };
        Some((Ipv6Addr::from_bits(u128::from_str_radix(address, 16).ok()?), hexadecimal(flags)?))
    })
}

fn hexadecimal(digits: &str) -> Option<u32> {
    u32::from_str_radix(digits, 16).ok()
}

/// Puts the addresses of now into `sender`, and the new ones whenever they change, until `stop`.
///
/// The same ones are told once more when one of them was gone in between: what the system had attached to it (the membership of a
/// multicast group) is gone too.
pub async fn follow(stop: CancellationToken, sender: watch::Sender<Arc<Addresses>>) {
    let mut changes = Changes::watch();
    let mut gone = HashSet::new();
    loop {
        publish(&sender, &gone).await;
        tokio::select! {
            () = stop.cancelled() => return,
            lost = changes.next() => gone = lost,
        }
    }
}

async fn publish(sender: &watch::Sender<Arc<Addresses>>, gone: &HashSet<IpAddr>) {
    // Blocking, although short: the kernel answers from memory.
    let Ok(addresses) = tokio::task::spawn_blocking(now).await else { return };
    sender.send_if_modified(|known| {
        let is_back = addresses.0.iter().any(|address| gone.contains(&address.ip));
        let is_new = **known != addresses;
        if is_new {
            tracing::info!(addresses = ?addresses.all(), "the addresses of this machine");
            *known = Arc::new(addresses);
        }
        is_new || is_back
    });
}

/// Tells when the addresses may have changed.
struct Changes {
    watcher: Option<IfWatcher>,
}

impl Changes {
    fn watch() -> Self {
        let watcher = IfWatcher::new().inspect_err(|error| tracing::info!(%error, "changes of addresses are noticed by looking"));
        Self { watcher: watcher.ok() }
    }

    /// Waits for the end of a burst of changes, or for the time to look. Returns the addresses that were lost in the burst, which may be
    /// back at its end.
    async fn next(&mut self) -> HashSet<IpAddr> {
        let look = if self.watcher.is_some() { LOOK_WATCHED } else { LOOK_ALONE };
        let mut lost = HashSet::new();
        let Ok(first) = timeout(look, self.told()).await else { return lost };
        lost.extend(first);
        let burst = async {
            while let Ok(more) = timeout(QUIET, self.told()).await {
                lost.extend(more);
            }
        };
        timeout(BURST, burst).await.ok();
        lost
    }

    /// Waits for the next thing that the system tells, for ever where it tells nothing. Returns the address that was lost, if it was that.
    async fn told(&mut self) -> Option<IpAddr> {
        let Some(watcher) = &mut self.watcher else { return pending().await };
        match watcher.next().await {
            Some(Ok(IfEvent::Up(_))) => None,
            Some(Ok(IfEvent::Down(network))) => Some(network.addr()),
            Some(Err(_)) | None => {
                tracing::info!("the system tells no more of changed addresses; they are noticed by looking");
                self.watcher = None;
                None
            }
        }
    }
}

/// A label of DNS (RFC 1123, section 2.1) from a name that people read: `Anna's Studio` is `annas-studio`. Never empty: a name of which
/// no letter is left is `balcony`.
pub fn host_label(name: &str) -> String {
    let mut label = String::new();
    for letter in name.to_lowercase().chars() {
        match letter {
            'a'..='z' | '0'..='9' => label.push(letter),
            // Not heard, so not written.
            '\'' | '’' | 'ʼ' | '´' | '`' | '\u{300}'..='\u{36f}' => {}
            _ => match without_accent(letter) {
                Some(plain) => label.push_str(plain),
                None if label.is_empty() || label.ends_with('-') => {}
                None => label.push('-'),
            },
        }
    }
    label.truncate(LABEL);
    let label = label.trim_end_matches('-');
    if label.is_empty() { "balcony".to_owned() } else { label.to_owned() }
}

/// What is left of a Latin letter on a keyboard without accents. Lower case only.
fn without_accent(letter: char) -> Option<&'static str> {
    Some(match letter {
        'à'..='å' | 'ā' | 'ă' | 'ą' => "a",
        'æ' => "ae",
        'ç' | 'ć' | 'č' | 'ĉ' | 'ċ' => "c",
        'ď' | 'đ' | 'ð' => "d",
        'è'..='ë' | 'ē' | 'ĕ' | 'ė' | 'ę' | 'ě' => "e",
        'ĝ' | 'ğ' | 'ġ' | 'ģ' => "g",
        'ì'..='ï' | 'ĩ' | 'ī' | 'į' | 'ı' => "i",
        'ķ' => "k",
        'ĺ' | 'ļ' | 'ľ' | 'ł' => "l",
        'ñ' | 'ń' | 'ņ' | 'ň' => "n",
        'ò'..='ö' | 'ø' | 'ō' | 'ŏ' | 'ő' => "o",
        'œ' => "oe",
        'ŕ' | 'ř' => "r",
        'ś' | 'ŝ' | 'ş' | 'š' | 'ș' => "s",
        'ß' => "ss",
        'ţ' | 'ť' | 'ț' => "t",
        'þ' => "th",
        'ù'..='ü' | 'ũ' | 'ū' | 'ŭ' | 'ů' | 'ű' | 'ų' => "u",
        'ý' | 'ÿ' => "y",
        'ź' | 'ż' | 'ž' => "z",
        _ => return None,
    })
}

/// The labels below `.local` that lead to one server: its own, and the one that it takes where somebody else in the house has that
/// already (often this machine's own system). Both belong into its certificate.
///
/// `id` makes the second one unique: the server's id, of which the first letters and digits are taken.
pub fn labels(label: &str, id: &str) -> [String; 2] {
    let id: String = id.chars().filter(char::is_ascii_alphanumeric).take(6).collect();
    [label.to_owned(), host_label(&format!("{} {id}", label.get(..LABEL - 7).unwrap_or(label)))]
}

/// The machine's own name, without its domain.
pub fn machine_name() -> Option<String> {
    let name = nix::unistd::gethostname().ok()?.into_string().ok()?;
    let name = name.split('.').next()?.to_owned();
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn found(interface: &str, address: &str) -> Found {
        Found { interface: interface.to_owned(), ip: ip(address), point_to_point: false, passing: false, default_route: None }
    }

    fn routed(interface: &str, address: &str, metric: u32) -> Found {
        Found { default_route: Some(metric), ..found(interface, address) }
    }

    #[test]
    fn an_interface_and_an_address_say_what_it_is_good_for() {
        let table = [
            ("lo", "127.0.0.1", None),
            ("lo", "127.0.0.2", None),
            ("lo", "::1", None),
            ("eth0", "127.0.1.1", None),
            ("eth0", "0.0.0.0", None),
            ("eth0", "::", None),
            ("eth0", "224.0.0.251", None),
            ("eth0", "192.168.1.20", Some(Kind::Private)),
            ("eth0", "10.0.0.4", Some(Kind::Private)),
            ("eth0", "172.16.0.1", Some(Kind::Private)),
            ("eth0", "172.31.255.254", Some(Kind::Private)),
            ("eth0", "172.32.0.1", Some(Kind::Ipv4)),
            ("eth0", "192.0.2.2", Some(Kind::Ipv4)),
            ("eth0", "100.64.3.4", Some(Kind::Ipv4)),
            ("eth0", "fd00::2", Some(Kind::Ipv6)),
            ("eth0", "2a02:8108::5", Some(Kind::Ipv6)),
            ("eth0", "169.254.7.9", Some(Kind::LinkLocal)),
            ("eth0", "fe80::fc:ff:fe00:1", Some(Kind::LinkLocal)),
            // What a container sees is its house; what the machine around it sees is not.
            ("eth0", "172.17.0.2", Some(Kind::Private)),
            ("docker0", "172.17.0.1", Some(Kind::Container)),
            ("docker_gwbridge", "172.18.0.1", Some(Kind::Container)),
            ("br-5f4dcc3b5aa7", "172.19.0.1", Some(Kind::Container)),
            ("br-lan", "192.168.1.1", Some(Kind::Private)),
            ("br0", "192.168.1.1", Some(Kind::Private)),
            ("bridge0", "192.168.1.1", Some(Kind::Private)),
            ("bridge100", "192.168.64.1", Some(Kind::Container)),
            ("veth12ab34c", "fe80::1", Some(Kind::Container)),
            ("virbr0", "192.168.122.1", Some(Kind::Container)),
            ("vmnet8", "192.168.79.1", Some(Kind::Container)),
            ("vboxnet0", "192.168.56.1", Some(Kind::Container)),
            ("VirtualBox Host-Only Network", "192.168.56.1", Some(Kind::Container)),
            ("VMware Network Adapter VMnet1", "192.168.80.1", Some(Kind::Container)),
            ("vEthernet (WSL (Hyper-V firewall))", "172.20.0.1", Some(Kind::Container)),
            ("vEthernet (Default Switch)", "172.21.0.1", Some(Kind::Container)),
            ("vEthernet (House)", "192.168.1.7", Some(Kind::Private)),
            ("cni0", "10.42.0.1", Some(Kind::Container)),
            ("podman0", "10.88.0.1", Some(Kind::Container)),
            ("lxcbr0", "10.0.3.1", Some(Kind::Container)),
            ("lxdbr0", "fd42::1", Some(Kind::Container)),
            ("awdl0", "fe80::2", Some(Kind::Container)),
            ("tun0", "10.8.0.2", Some(Kind::Vpn)),
            ("tap0", "10.9.0.2", Some(Kind::Vpn)),
            ("wg0", "10.10.0.2", Some(Kind::Vpn)),
            ("wg0", "fe80::9", Some(Kind::Vpn)),
            ("tailscale0", "100.101.102.103", Some(Kind::Vpn)),
            ("Tailscale", "fd7a:115c:a1e0::1", Some(Kind::Vpn)),
            ("zt7nnkzwob", "192.168.191.5", Some(Kind::Vpn)),
            ("utun4", "100.64.0.7", Some(Kind::Vpn)),
            ("ppp0", "10.64.64.64", Some(Kind::Vpn)),
            // Wi-Fi under its names.
            ("wlan0", "192.168.1.21", Some(Kind::Private)),
            ("wlp3s0", "192.168.1.21", Some(Kind::Private)),
            ("Wi-Fi", "192.168.1.21", Some(Kind::Private)),
            ("en0", "192.168.1.21", Some(Kind::Private)),
        ];
        for (name, address, kind) in table {
            assert_eq!(classify(name, false, ip(address)), kind, "{name} {address}");
        }
        assert_eq!(classify("eth9", true, ip("10.1.1.1")), Some(Kind::Vpn), "a line between two is no house");
    }

    #[test]
    fn the_best_address_is_the_one_that_a_phone_reaches() {
        let table: [(&str, &[Found], &str); 10] = [
            (
                "all of them",
                &[found("docker0", "172.17.0.1"), routed("tun0", "10.8.0.2", 0), routed("eth0", "192.168.1.2", 100)],
                "192.168.1.2",
            ),
            ("the default route", &[found("eth0", "10.0.0.1"), routed("wlan0", "192.168.1.2", 600)], "192.168.1.2"),
            ("the cheaper default route", &[routed("wlan0", "10.0.0.1", 600), routed("eth0", "192.168.1.2", 100)], "192.168.1.2"),
            ("not RFC 1918", &[routed("eth0", "192.0.2.2", 0), routed("eth0", "fd00::2", 1024), found("eth0", "fe80::1")], "192.0.2.2"),
            ("unique local before global", &[found("eth0", "2a02::1"), found("eth0", "fd00::1")], "fd00::1"),
            ("stable before passing", &[Found { passing: true, ..found("eth0", "fd00::1") }, found("eth0", "2a02::1")], "2a02::1"),
            ("a cable without a router", &[found("eth0", "169.254.3.4"), found("virbr0", "192.168.122.1")], "169.254.3.4"),
            ("passing before link-local", &[Found { passing: true, ..found("eth0", "2a02::1") }, found("eth0", "fe80::1")], "2a02::1"),
            ("only a tunnel", &[found("wg0", "10.10.0.2"), found("docker0", "172.17.0.1")], "10.10.0.2"),
            ("only containers", &[found("docker0", "172.17.0.1"), found("lo", "127.0.0.1")], "172.17.0.1"),
        ];
        for (case, all, best) in table {
            assert_eq!(Addresses::from_iter(all.to_vec()).best(), Some(ip(best)), "{case}");
        }
        assert_eq!(Addresses::from_iter([found("lo", "127.0.0.1")]).best(), None);
    }

    #[test]
    fn tunnels_containers_and_passing_addresses_count_only_where_there_is_nothing_else() {
        let passing = Found { passing: true, ..found("eth0", "2a02::9") };
        let all =
            Addresses::from_iter([found("tun0", "10.8.0.2"), passing.clone(), found("eth0", "192.168.1.2"), found("eth0", "fe80::1")]);
        assert_eq!(all.lan(), [ip("192.168.1.2"), ip("fe80::1")]);
        assert_eq!(all.all().len(), 4);
        assert!(all.has(ip("10.8.0.2")) && all.has(ip("2a02::9")) && !all.has(ip("127.0.0.1")));
        assert_eq!(Addresses::from_iter([found("tun0", "10.8.0.2"), passing]).lan(), [ip("2a02::9")]);
        assert_eq!(Addresses::from_iter([found("tun0", "10.8.0.2")]).lan(), [ip("10.8.0.2")]);
        assert_eq!(all.lasting(), all.all().into_iter().filter(|of_all| *of_all != ip("2a02::9")).collect::<Vec<_>>());
    }

    #[test]
    fn a_bound_server_has_the_address_that_it_is_bound_to() {
        let all = Addresses::from_iter([found("eth0", "192.168.1.2"), found("eth1", "10.0.0.2")]);
        assert_eq!(all.bound_to(None), all);
        assert_eq!(all.bound_to(Some(ip("0.0.0.0"))), all);
        assert_eq!(all.bound_to(Some(ip("10.0.0.2"))).all(), [ip("10.0.0.2")]);
        assert_eq!(all.bound_to(Some(ip("127.0.0.1"))).best(), None);
    }

    #[test]
    fn the_kernels_tables_are_read() {
        let ipv4 = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
            eth0\t00000000\t010200C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
            eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
            wlan0\t00000000\t0101A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0\n\
            tun0\t00000000\t00000000\t0001\t0\t0\t0\t00000080\t0\t0\t0\n\
            gone0\t00000000\t00000000\t0200\t0\t0\t0\t00000000\t0\t0\t0\n";
        let routes: Vec<_> = default_routes_ipv4(ipv4).collect();
        assert_eq!(routes, [("eth0".to_owned(), 100), ("wlan0".to_owned(), 600)], "half of the Internet is no default route");

        let ipv6 = "\
            fd000000000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0\n\
            00000000000000000000000000000000 00 00000000000000000000000000000000 00 fd000000000000000000000000000001 00000400 00000003 00000000 00000003     eth0\n\
            00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo\n";
        assert_eq!(default_routes_ipv6(ipv6).collect::<Vec<_>>(), [("eth0".to_owned(), 0x400)]);

        let flags = "fd000000000000000000000000000002 04 40 00 80     eth0\nfd00000000000000d5d3ab1100000002 04 40 00 01     eth0\n";
        let flags: HashMap<_, _> = ipv6_flags(flags).collect();
        assert_eq!(flags[&"fd00::2".parse::<Ipv6Addr>().expect("it")] & ADDRESS_TEMPORARY, 0);
        assert_eq!(flags[&"fd00::d5d3:ab11:0:2".parse::<Ipv6Addr>().expect("it")], ADDRESS_TEMPORARY);
    }

    #[test]
    fn a_name_becomes_a_label() {
        let table = [
            ("Anna's Studio", "annas-studio"),
            ("Anna’s  MacBook-Pro (2)", "annas-macbook-pro-2"),
            ("Büro Łódź", "buro-lodz"),
            ("Straße", "strasse"),
            ("ÉCOLE", "ecole"),
            ("e\u{301}cole", "ecole"),
            ("客厅", "balcony"),
            ("客厅 2", "2"),
            ("", "balcony"),
            ("---", "balcony"),
            ("_x_", "x"),
            ("living.room.example", "living-room-example"),
        ];
        for (name, label) in table {
            assert_eq!(host_label(name), label, "{name}");
        }
    }

    #[test]
    fn the_second_label_is_the_servers_alone() {
        assert_eq!(labels("annas-studio", "aB_c-9xYz0"), ["annas-studio", "annas-studio-abc9xy"].map(str::to_owned));
        let long = host_label(&"long ".repeat(40));
        let [first, second] = labels(&long, "abcdefgh");
        assert_eq!(first, long);
        assert!(second.ends_with("-abcdef") && second.len() <= LABEL, "{second}");
    }

    #[test]
    fn this_machine_has_addresses_without_loopback() {
        for address in now().all() {
            assert!(!address.is_loopback(), "{address}");
        }
    }

    #[tokio::test]
    async fn the_addresses_are_known_at_once_and_the_task_ends_when_told() {
        let (sender, mut receiver) = watch::channel(Arc::new(Addresses::from_iter([found("eth0", "198.51.100.77")])));
        let stop = CancellationToken::new();
        let task = tokio::spawn(follow(stop.clone(), sender));
        timeout(Duration::from_secs(10), receiver.changed()).await.expect("in time").expect("alive");
        assert!(!receiver.borrow_and_update().has(ip("198.51.100.77")));
        stop.cancel();
        timeout(Duration::from_secs(10), task).await.expect("in time").expect("it ends");
    }

    fn any_found() -> impl Strategy<Value = Found> {
        let names = ["lo", "eth0", "wlan0", "docker0", "br-0123456789ab", "wg0", "tailscale0", "utun3", "virbr0", "en7"];
        let address = prop_oneof![
            any::<[u8; 4]>().prop_map(IpAddr::from),
            any::<[u8; 16]>().prop_map(IpAddr::from),
            any::<u8>().prop_map(|last| IpAddr::from([192, 168, 1, last])),
            any::<u8>().prop_map(|last| IpAddr::from([127, 0, 0, last])),
        ];
        let route = proptest::option::of(any::<u32>());
        (proptest::sample::select(names.to_vec()), address, any::<bool>(), any::<bool>(), route).prop_map(
            |(name, ip, point_to_point, passing, default_route)| Found {
                interface: name.to_owned(),
                ip,
                point_to_point,
                passing,
                default_route,
            },
        )
    }

    proptest! {
        #[test]
        fn the_best_is_of_the_house_where_there_is_a_house(all in proptest::collection::vec(any_found(), 0..12)) {
            let kinds = |wanted: IpAddr| all.iter().filter(move |found| found.ip == wanted)
                .filter_map(|found| classify(&found.interface, found.point_to_point, found.ip));
            let of_the_house = |ip| kinds(ip).any(Kind::is_of_the_house);
            let addresses = Addresses::from_iter(all.clone());
            if let Some(best) = addresses.best() {
                prop_assert!(!best.is_loopback());
                prop_assert!(of_the_house(best) || !all.iter().any(|found| of_the_house(found.ip)));
            } else {
                prop_assert!(all.iter().all(|found| kinds(found.ip).next().is_none()));
            }
            prop_assert!(addresses.lan().iter().all(|ip| addresses.has(*ip)));
            prop_assert_eq!(addresses.lan().is_empty(), addresses.best().is_none());
        }

        #[test]
        fn the_order_in_which_they_are_found_says_nothing(
            (all, shuffled) in proptest::collection::vec(any_found(), 0..12).prop_flat_map(|all| (Just(all.clone()), Just(all).prop_shuffle())),
        ) {
            prop_assert_eq!(Addresses::from_iter(all), Addresses::from_iter(shuffled));
        }

        #[test]
        fn any_name_gives_a_label(name in any::<String>(), id in any::<String>()) {
            for label in labels(&host_label(&name), &id) {
                prop_assert!((1..=LABEL).contains(&label.len()));
                prop_assert!(label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'));
                prop_assert!(!label.starts_with('-') && !label.ends_with('-'));
            }
        }

        #[test]
        fn any_text_is_read_as_a_table(text in any::<String>(), hexadecimal in "([0-9a-f]{1,33}[ \t\n]){0,40}") {
            for text in [text, hexadecimal] {
                let read = default_routes_ipv4(&text).count() + default_routes_ipv6(&text).count() + ipv6_flags(&text).count();
                prop_assert!(read <= 3 * text.lines().count());
            }
        }
    }
}
