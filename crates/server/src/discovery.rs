//! The server's announcement in the house: multicast DNS (RFC 6762) and DNS-SD (RFC 6763), service type `_balcony._tcp`.
//!
//! It tells everybody on the network what [`Announcement`] holds and the addresses of the house; no token, no ticket, no name of a person.
//! The packets are `mdns-sd`'s. This file decides what is said and on which interfaces, finds other names where somebody has ours, and
//! sees to it that the announcement is withdrawn. It looks for nobody.

use std::collections::HashSet;
use std::future::pending;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use mdns_sd::{DaemonEvent, DnsNameChange, IfKind, IfPredicate, RRType, Receiver, ServiceDaemon, ServiceInfo};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::lan::{self, Addresses};

/// The service type.
const SERVICE: &str = "_balcony._tcp.local.";

/// Bytes of a string in a TXT record, `key=value` (RFC 6763, section 6.1).
const TXT: usize = 255;

/// Bytes of an instance name before its number: a label of DNS has at most 63, and ` (999)` must fit.
const INSTANCE: usize = 57;

/// What is announced is said again so long afterwards: at least a second (RFC 6762, sections 6 and 8.3), and long enough for the probes of
/// an address that came later to be over, which the library then does not announce by itself.
const AGAIN: Duration = Duration::from_millis(1500);

/// How often it is said again.
const REPEATS: u32 = 2;

/// How long after the library has noticed an address the announcement follows: they come several at once.
const SETTLE: Duration = Duration::from_millis(300);

/// How long each of the two steps of the goodbye may take.
const GOODBYE: Duration = Duration::from_millis(500);

/// The library says goodbye a second time after 120 ms, for those who missed the first; then it may be ended.
const SECOND_GOODBYE: Duration = Duration::from_millis(150);

/// What the house is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// The server's id.
    pub id: String,
    /// Its name, as people read it.
    pub name: String,
    /// Its label below `.local`, of [`lan::host_label`]. Where somebody else has it, the second one of [`lan::labels`] is taken.
    pub label: String,
    /// Its version.
    pub version: String,
    /// Port of HTTPS.
    pub https: u16,
    /// Port of plain HTTP.
    pub http: u16,
    /// Short fingerprint of its certificate authority.
    pub fingerprint: String,
    /// The only address that it listens on, if it is so: nothing else is announced then.
    pub bind: Option<IpAddr>,
}

impl Announcement {
    /// The strings of the TXT record, in their order. A value that is too long is cut at the end of a letter.
    fn txt(&self) -> [(&'static str, String); 9] {
        let strings = [
            ("txtvers", "1".to_owned()),
            ("id", self.id.clone()),
            ("name", self.name.clone()),
            ("ver", self.version.clone()),
            ("api", "1".to_owned()),
            ("path", "/".to_owned()),
            ("https", self.https.to_string()),
            ("http", self.http.to_string()),
            ("fp", self.fingerprint.clone()),
        ];
        strings.map(|(key, value)| (key, cut(&value, TXT - key.len() - 1).to_owned()))
    }

    /// The addresses that are announced. Link-local IPv6 only where there is nothing else: it is of no use without the name of the
    /// asker's own interface, and some phones take the first address that they see.
    fn addresses(&self, known: &Addresses) -> Vec<IpAddr> {
        let lan = known.bound_to(self.bind).lan();
        let needs_scope = |ip: &IpAddr| matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
        let plain: Vec<_> = lan.iter().copied().filter(|ip| !needs_scope(ip)).collect();
        if plain.is_empty() { lan } else { plain }
    }
}

/// The longest beginning of `text` that has at most `bytes` bytes.
fn cut(text: &str, bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes)).unwrap_or(text)
}

/// Which of its names the server goes by, as far as others in the house left them to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Choice {
    /// The instance's number: `Studio`, `Studio (2)`, …
    number: u32,
    second_label: bool,
}

impl Choice {
    const FIRST: Self = Self { number: 1, second_label: false };

    /// The instance name. Dots and backslashes would have to be escaped, which not everybody does: the TXT record has the exact name.
    fn instance(self, name: &str) -> String {
        let plain = name.replace(['.', '\\'], " ").replace(char::is_control, " ");
        let plain = plain.split_whitespace().collect::<Vec<_>>().join(" ");
        let base = cut(&plain, INSTANCE).trim_end();
        match (base, self.number) {
            ("", 1) => "Balcony".to_owned(),
            ("", number) => format!("Balcony ({number})"),
            (base, 1) => base.to_owned(),
            (base, number) => format!("{base} ({number})"),
        }
    }

    fn host(self, what: &Announcement) -> String {
        let [first, second] = lan::labels(&what.label, &what.id);
        format!("{}.local.", if self.second_label { second } else { first })
    }

    /// What is left after somebody turned out to have one of the names of `said`; `None` where it is none of them (any more).
    ///
    /// The library would go on under a name of its own making; that one is in no certificate, and it forgets it in some answers.
    fn after(self, said: &Said, change: &DnsNameChange) -> Option<Self> {
        let is = |name: &str| change.original.eq_ignore_ascii_case(name);
        match change.rr_type {
            RRType::A | RRType::AAAA if is(&said.host) && !self.second_label => Some(Self { second_label: true, ..self }),
            RRType::SRV | RRType::TXT if is(&said.fullname) => Some(Self { number: self.number.saturating_add(1), ..self }),
            _ => None,
        }
    }
}

/// What was last said.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Said {
    what: Announcement,
    addresses: Vec<IpAddr>,
    choice: Choice,
    fullname: String,
    host: String,
}

impl Said {
    fn new(what: Announcement, addresses: Vec<IpAddr>, choice: Choice) -> Self {
        // The library writes names lower case where it compares them; ASCII as DNS does.
        let fullname = format!("{}.{SERVICE}", choice.instance(&what.name));
        let host = choice.host(&what);
        Self { what, addresses, choice, fullname, host }
    }

    /// Whether its names were said already, on a network that this machine is still in.
    fn is_known_from(&self, old: &Self) -> bool {
        (&self.fullname, &self.host) == (&old.fullname, &old.host) && self.addresses.iter().any(|ip| old.addresses.contains(ip))
    }

    fn service(&self) -> Result<ServiceInfo, mdns_sd::Error> {
        let instance = self.choice.instance(&self.what.name);
        ServiceInfo::new(SERVICE, &instance, &self.host, &self.addresses[..], self.what.https, &self.what.txt()[..])
    }
}

/// Announces `what` at the addresses of the house until `stop`, anew whenever either is told anew, and withdraws it then.
///
/// Where multicast cannot be used, that is logged once and tried again when something changes: the server is found by its QR code too.
pub async fn announce(mut what: watch::Receiver<Announcement>, mut addresses: watch::Receiver<Arc<Addresses>>, stop: CancellationToken) {
    let mut voice = Voice::default();
    loop {
        let (now, known) = (what.borrow_and_update().clone(), addresses.borrow_and_update().clone());
        voice.say(now, &known).await;
        while !stop.is_cancelled() {
            tokio::select! {
                () = stop.cancelled() => {}
                () = changed(&mut what) => break,
                () = changed(&mut addresses) => break,
                next = voice.next() => voice.act(next).await,
            }
        }
        if stop.is_cancelled() {
            return voice.end().await;
        }
    }
}

async fn changed<T>(of: &mut watch::Receiver<T>) {
    if of.changed().await.is_err() {
        pending().await
    }
}

/// The responder, and what it says.
#[derive(Default)]
struct Voice {
    responder: Option<Responder>,
    said: Option<Said>,
    /// Whether its names need not be asked for: they were ours already.
    names_are_ours: bool,
    /// When it is said again, and how many times more.
    again: Option<Instant>,
    repeats: u32,
    complained: bool,
}

/// The library's thread with its sockets.
///
/// There is a new one for all that is new. An old one remembers names that were taken, and it does not notice that the kernel forgets the
/// membership of the multicast group with the last address of an interface, also where that address is back at once.
struct Responder {
    daemon: ServiceDaemon,
    events: Receiver<DaemonEvent>,
}

impl Responder {
    /// Speaks on the interfaces of `addresses`.
    fn open(addresses: &[IpAddr]) -> Result<Self, Silence> {
        multicast_is_possible(addresses).map_err(Silence::Socket)?;
        let daemon = ServiceDaemon::new()?;
        let allowed: HashSet<_> = addresses.iter().copied().collect();
        // It begins with all interfaces, loopback and bridges too, but sends nothing before there is something to say.
        daemon.disable_interface(IfKind::Predicate(IfPredicate::new(move |interface| !allowed.contains(&interface.ip()))))?;
        let events = daemon.monitor()?;
        Ok(Self { daemon, events })
    }

    /// Ends it; it says goodbye for what it said.
    async fn close(self) -> Result<(), mdns_sd::Error> {
        self.daemon.shutdown()?.recv_async().await.ok();
        Ok(())
    }
}

/// Why nothing is announced.
#[derive(Debug, thiserror::Error)]
enum Silence {
    #[error("UDP port 5353 cannot be used for multicast: {0}")]
    Socket(io::Error),
    #[error(transparent)]
    Library(#[from] mdns_sd::Error),
}

impl Voice {
    async fn say(&mut self, what: Announcement, known: &Addresses) {
        let addresses = what.addresses(known);
        let is_same_name = |said: &&Said| (&said.what.name, &said.what.label) == (&what.name, &what.label);
        let choice = self.said.as_ref().filter(is_same_name).map_or(Choice::FIRST, |said| said.choice);
        self.change_to(Said::new(what, addresses, choice)).await;
    }

    async fn change_to(&mut self, new: Said) {
        self.hang_up().await;
        // Names that we had until now on the same network are still ours. Said at once, they do not vanish from anybody's list: what was
        // taken back lives on for a second (RFC 6762, section 10.1).
        self.names_are_ours = self.said.as_ref().is_some_and(|old| new.is_known_from(old));
        self.repeats = REPEATS;
        self.said = Some(new);
        self.speak();
    }

    /// Says it (again).
    fn speak(&mut self) {
        self.again = None;
        let Some(said) = self.said.as_ref().filter(|said| !said.addresses.is_empty()) else { return };
        match Self::try_to(&mut self.responder, said, !self.names_are_ours) {
            Ok(()) => self.complained = false,
            Err(why) => {
                self.responder = None;
                if !self.complained {
                    tracing::warn!(%why, "phones cannot find this server by themselves, only by its QR code or address");
                }
                self.complained = true;
            }
        }
    }

    fn try_to(responder: &mut Option<Responder>, said: &Said, probe: bool) -> Result<(), Silence> {
        let responder = match responder {
            Some(responder) => responder,
            none => none.insert(Responder::open(&said.addresses)?),
        };
        tracing::debug!(instance = said.fullname, host = said.host, addresses = ?said.addresses, "announced in the house");
        let mut service = said.service()?;
        service.set_requires_probe(probe);
        Ok(responder.daemon.register(service)?)
    }

    async fn act(&mut self, next: Next) {
        match next {
            Next::Again => self.speak(),
            Next::Told(event) => self.hear(event).await,
            Next::Ended => {
                tracing::warn!("the announcement in the house ended by itself; it is made again when something changes");
                self.responder = None;
            }
        }
    }

    /// Waits for one thing to do. May be dropped: nothing is lost.
    async fn next(&self) -> Next {
        let again = async {
            match self.again {
                Some(at) => sleep_until(at).await,
                None => pending().await,
            }
        };
        let told = async {
            match &self.responder {
                Some(responder) => responder.events.recv_async().await,
                None => pending().await,
            }
        };
        tokio::select! {
            () = again => Next::Again,
            event = told => event.map_or(Next::Ended, Next::Told),
        }
    }

    async fn hear(&mut self, event: DaemonEvent) {
        match event {
            DaemonEvent::NameChange(change) => self.give_way(&change).await,
            DaemonEvent::Announce(..) if self.repeats > 0 && self.again.is_none() => {
                self.repeats -= 1;
                self.again = Some(Instant::now() + AGAIN);
            }
            // An interface came or went in the library's view: what was said meanwhile may have been said into the void.
            DaemonEvent::IpAdd(_) | DaemonEvent::IpDel(_) => self.again = Some(Instant::now() + SETTLE),
            DaemonEvent::Error(error) => tracing::warn!(%error, "the announcement in the house"),
            _ => {}
        }
    }

    async fn give_way(&mut self, change: &DnsNameChange) {
        let Some(said) = &self.said else { return };
        let Some(choice) = said.choice.after(said, change) else { return };
        let new = Said::new(said.what.clone(), said.addresses.clone(), choice);
        tracing::info!(taken = change.original, instance = new.fullname, host = new.host, "somebody in the house has this name already");
        self.change_to(new).await;
    }

    /// Ends the responder, if there is one.
    async fn hang_up(&mut self) {
        if let Some(responder) = self.responder.take() {
            in_time(responder.close()).await;
        }
    }

    /// Takes back what was said, and waits until the house has been told.
    async fn end(mut self) {
        if let (Some(said), Some(responder)) = (&self.said, &self.responder) {
            in_time(async {
                responder.daemon.unregister(&said.fullname)?.recv_async().await.ok();
                sleep(SECOND_GOODBYE).await;
                Ok(())
            })
            .await;
        }
        self.hang_up().await;
    }
}

/// What there is to do.
enum Next {
    /// Say it again.
    Again,
    /// See what the library tells.
    Told(DaemonEvent),
    /// The library's thread has ended by itself.
    Ended,
}

async fn in_time(goodbye: impl Future<Output = Result<(), mdns_sd::Error>>) {
    match timeout(GOODBYE, goodbye).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "the announcement could not be withdrawn"),
        Err(_) => tracing::warn!("the announcement could not be withdrawn in time"),
    }
}

/// Whether the port and the groups of multicast DNS can be had on one of `addresses`.
///
/// The library opens its sockets on a thread of its own and says nothing when that fails.
pub fn multicast_is_possible(addresses: &[IpAddr]) -> io::Result<()> {
    let mut reason = io::Error::other("there is no address");
    for ip in addresses {
        match try_multicast(*ip) {
            Ok(()) => return Ok(()),
            Err(error) => reason = error,
        }
    }
    Err(reason)
}

fn try_multicast(ip: IpAddr) -> io::Result<()> {
    let (domain, any): (_, IpAddr) = match ip {
        IpAddr::V4(_) => (Domain::IPV4, Ipv4Addr::UNSPECIFIED.into()),
        IpAddr::V6(_) => (Domain::IPV6, Ipv6Addr::UNSPECIFIED.into()),
    };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    #[cfg(unix)]
    socket.set_reuse_port(true)?;
    if ip.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&SocketAddr::from((any, mdns_sd::MDNS_PORT)).into())?;
    match ip {
        IpAddr::V4(ip) => socket.join_multicast_v4(&Ipv4Addr::new(224, 0, 0, 251), &ip),
        // The system chooses the interface: it is only asked whether it can be done at all.
        IpAddr::V6(_) => socket.join_multicast_v6(&Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb), 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lan::Found;
    use proptest::prelude::*;

    fn studio() -> Announcement {
        Announcement {
            id: "aBcDeFgHiJ".to_owned(),
            name: "Anna's Studio".to_owned(),
            label: "annas-studio".to_owned(),
            version: "0.1.0".to_owned(),
            https: 3443,
            http: 3000,
            fingerprint: "q83vEjRWeJASNFZ4kBI0Vg".to_owned(),
            bind: None,
        }
    }

    fn addresses(all: &[(&str, &str)]) -> Addresses {
        let found = |(interface, ip): &(&str, &str)| Found {
            interface: (*interface).to_owned(),
            ip: ip.parse().expect("an address"),
            point_to_point: false,
            passing: false,
            default_route: None,
        };
        all.iter().map(found).collect()
    }

    fn taken(original: &str, rr_type: RRType) -> DnsNameChange {
        DnsNameChange { original: original.to_owned(), new_name: "somebody".to_owned(), rr_type, intf_name: "eth0".to_owned() }
    }

    #[test]
    fn the_txt_record_says_what_was_agreed_in_that_order() {
        let said: Vec<_> = studio().txt().iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(
            said.join(" "),
            "txtvers=1 id=aBcDeFgHiJ name=Anna's Studio ver=0.1.0 api=1 path=/ https=3443 http=3000 fp=q83vEjRWeJASNFZ4kBI0Vg"
        );
    }

    #[test]
    fn the_service_is_what_the_library_accepts() {
        let said = Said::new(studio(), vec![IpAddr::from([192, 168, 1, 2])], Choice::FIRST);
        let service = said.service().expect("a service");
        assert_eq!(service.get_fullname(), said.fullname);
        assert_eq!(service.get_fullname(), "Anna's Studio._balcony._tcp.local.");
        assert_eq!((service.get_hostname(), service.get_port()), ("annas-studio.local.", 3443));
        assert_eq!(service.get_addresses().len(), 1);
    }

    #[test]
    fn what_cannot_be_reached_is_not_announced() {
        let house = [("docker0", "172.17.0.1"), ("wg0", "10.8.0.2"), ("eth0", "fe80::1"), ("eth0", "192.168.1.2"), ("eth0", "fd00::2")];
        let house = addresses(&house);
        let ips = |what: &Announcement, known: &Addresses| what.addresses(known).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(ips(&studio(), &house), ["192.168.1.2", "fd00::2"]);
        assert_eq!(ips(&studio(), &addresses(&[("eth0", "fe80::1"), ("tun0", "10.8.0.2")])), ["fe80::1"]);
        let bound = |ip: [u8; 4]| Announcement { bind: Some(ip.into()), ..studio() };
        assert_eq!(ips(&bound([192, 168, 1, 2]), &house), ["192.168.1.2"]);
        assert_eq!(ips(&bound([0, 0, 0, 0]), &house), ["192.168.1.2", "fd00::2"]);
        assert!(ips(&bound([127, 0, 0, 1]), &house).is_empty());
    }

    #[test]
    fn whose_name_is_taken_takes_another() {
        let said = |choice| Said::new(studio(), Vec::new(), choice);
        let first = said(Choice::FIRST);
        let numbered = Choice { number: 2, second_label: false };
        let other_host = Choice { number: 1, second_label: true };
        let instance = "anna's studio._balcony._tcp.local.";
        let table = [
            (Choice::FIRST, taken(instance, RRType::SRV), Some(numbered)),
            (Choice::FIRST, taken(instance, RRType::TXT), Some(numbered)),
            (Choice::FIRST, taken("annas-studio.local.", RRType::A), Some(other_host)),
            (Choice::FIRST, taken("annas-studio.local.", RRType::AAAA), Some(other_host)),
            (Choice::FIRST, taken("another.local.", RRType::A), None),
            // The same told once more, of another interface.
            (numbered, taken(instance, RRType::SRV), None),
            (other_host, taken("annas-studio.local.", RRType::A), None),
            (numbered, taken("Anna's Studio (2)._balcony._tcp.local.", RRType::SRV), Some(Choice { number: 3, second_label: false })),
            (other_host, taken("annas-studio-abcdef.local.", RRType::A), None),
        ];
        for (choice, change, next) in table {
            assert_eq!(choice.after(&said(choice), &change), next, "{choice:?} {change:?}");
        }
        assert_eq!(said(other_host).host, "annas-studio-abcdef.local.");
        assert_eq!(said(numbered).fullname, "Anna's Studio (2)._balcony._tcp.local.");
        assert_eq!(first.host, "annas-studio.local.");
    }

    #[test]
    fn an_instance_name_needs_no_escaping() {
        let table = [("St. Anna\\Hall", "St Anna Hall"), ("a\tb\u{0}c", "a b c"), ("...", "Balcony"), ("", "Balcony"), ("客厅", "客厅")];
        for (name, instance) in table {
            assert_eq!(Choice::FIRST.instance(name), instance);
        }
    }

    #[tokio::test]
    async fn nothing_is_announced_without_an_address_and_the_task_ends_when_told() {
        let (_what, what) = watch::channel(studio());
        let (_addresses, addresses) = watch::channel(Arc::new(addresses(&[("lo", "127.0.0.1")])));
        let stop = CancellationToken::new();
        let task = tokio::spawn(announce(what, addresses, stop.clone()));
        tokio::task::yield_now().await;
        stop.cancel();
        timeout(Duration::from_secs(10), task).await.expect("in time").expect("it ends");
    }

    proptest! {
        #[test]
        fn whatever_the_name_the_library_takes_it(name in any::<String>(), long in "\\PC{0,400}", number in 1..999_u32, second_label in any::<bool>()) {
            for name in [name, long] {
                let label = lan::host_label(&name);
                let what = Announcement { label, name, ..studio() };
                prop_assert!(what.txt().iter().all(|(key, value)| key.len() + 1 + value.len() <= TXT));
                let choice = Choice { number, second_label };
                let instance = choice.instance(&what.name);
                prop_assert!((1..=63).contains(&instance.len()), "{}", instance);
                prop_assert!(!instance.contains(['.', '\\']) && !instance.contains(char::is_control));
                let said = Said::new(what, vec![IpAddr::from([10, 0, 0, 1])], choice);
                let service = said.service().expect("a service");
                prop_assert_eq!(service.get_fullname(), &said.fullname);
                prop_assert_eq!(service.get_hostname(), &said.host);
            }
        }
    }
}
