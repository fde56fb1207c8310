//! Who may be talked to, and who is known to have a torrent.
//!
//! Every address that a tracker, the DHT or a magnet gives goes through one [`Admission`]; private ones are refused, so that a
//! stranger's link cannot make this machine knock at its neighbours' doors. librqbit gets its peers from here only (and from PEX,
//! where its block list, written by [`Admission::block_list`], does the same).

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use balcony_media::magnet::{InfoHash, Reach, is_public, tracker_reach};
use futures_util::stream::SelectAll;
use futures_util::{Stream, StreamExt};
use librqbit::dht::{Dht, Id20};
use librqbit_tracker_comms::{TrackerComms, UdpTrackerClient};
use tokio::sync::watch;
use url::Url;

/// Most peers that are kept of one torrent.
const MAX_KNOWN: usize = 2000;
/// While nobody is known, trackers are asked again after so long, each beside the asking before: one that fails is left alone by librqbit
/// for ten to twenty seconds, and somebody waits.
const ASK_AGAIN: [Duration; 3] = [Duration::from_secs(2), Duration::from_secs(4), Duration::from_secs(8)];

/// Ranges that are not the public Internet, for the block list: first and last address. `is_public` judges one by one what goes
/// through our own hands; this coarser list is for librqbit.
const PRIVATE_RANGES: &[(&str, &str)] = &[
    ("0.0.0.0", "0.255.255.255"),
    ("10.0.0.0", "10.255.255.255"),
    ("100.64.0.0", "100.127.255.255"),
    ("127.0.0.0", "127.255.255.255"),
    ("169.254.0.0", "169.254.255.255"),
    ("172.16.0.0", "172.31.255.255"),
    ("192.0.0.0", "192.0.0.255"),
    ("192.168.0.0", "192.168.255.255"),
    ("198.18.0.0", "198.19.255.255"),
    ("224.0.0.0", "255.255.255.254"),
    ("::", "1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
    ("2002::", "2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
    ("4000::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe"),
];

/// Which addresses torrents may talk to.
pub(super) struct Admission {
    allow_private: bool,
    /// The user's own: `--peer`, and the server's own seeders.
    named: Mutex<BTreeSet<SocketAddr>>,
}

impl Admission {
    pub(super) fn new(allow_private: bool, named: impl IntoIterator<Item = SocketAddr>) -> Self {
        Self { allow_private, named: Mutex::new(named.into_iter().collect()) }
    }

    /// Lets torrents talk to this address, whatever it is.
    pub(super) fn name(&self, address: SocketAddr) {
        self.named.lock().unwrap_or_else(PoisonError::into_inner).insert(address);
    }

    pub(super) fn admits(&self, address: &SocketAddr) -> bool {
        let named = || self.named.lock().unwrap_or_else(PoisonError::into_inner).contains(address);
        address.port() != 0 && (self.allow_private || is_public(address.ip()) || named())
    }

    /// The trackers of a magnet that may be asked, each bound to the address that was looked up where that is possible.
    pub(super) async fn trackers(&self, trackers: &[String]) -> Vec<Url> {
        let judged = trackers.iter().map(|tracker| self.tracker(tracker));
        futures_util::future::join_all(judged).await.into_iter().flatten().collect()
    }

    async fn tracker(&self, tracker: &str) -> Option<Url> {
        let mut url = Url::parse(tracker).ok()?;
        match tracker_reach(tracker)? {
            Reach::PublicLiteral(_) => Some(url),
            Reach::PrivateLiteral => self.allow_private.then_some(url),
            Reach::Name { host, port } => {
                let found: Vec<SocketAddr> = tokio::net::lookup_host((host, port)).await.ok()?.collect();
                let fine = !found.is_empty() && (self.allow_private || found.iter().all(|address| is_public(address.ip())));
                if fine && url.scheme() == "udp" {
                    // Bound to what was judged: the name could mean something else at the next look.
                    let address = found.iter().find(|address| address.is_ipv4()).or(found.first())?;
                    url.set_ip_host(address.ip()).ok()?;
                }
                fine.then_some(url)
            }
        }
    }

    /// The private ranges without the named addresses (and one more), in the P2P text format that librqbit reads. Empty when all are allowed.
    pub(super) fn block_list(&self, also: IpAddr) -> String {
        if self.allow_private {
            return String::new();
        }
        let mut named: Vec<IpAddr> = self.named.lock().unwrap_or_else(PoisonError::into_inner).iter().map(SocketAddr::ip).collect();
        named.push(also);
        let mut lines = String::from("# addresses that are not on the Internet\n");
        for (first, last) in PRIVATE_RANGES {
            let (Ok(first), Ok(last)) = (first.parse::<IpAddr>(), last.parse::<IpAddr>()) else { continue };
            for (from, to) in without(bits(first), bits(last), &named, first.is_ipv4()) {
                lines.push_str(&format!("private:{}-{}\n", address(from, first.is_ipv4()), address(to, first.is_ipv4())));
            }
        }
        lines
    }
}

fn bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

fn address(bits: u128, is_ipv4: bool) -> IpAddr {
    if is_ipv4 { IpAddr::V4(u32::try_from(bits).unwrap_or(u32::MAX).into()) } else { IpAddr::V6(Ipv6Addr::from_bits(bits)) }
}

/// The range cut at each named address of its family.
fn without(first: u128, last: u128, named: &[IpAddr], is_ipv4: bool) -> Vec<(u128, u128)> {
    let mut holes: Vec<u128> = named.iter().filter(|ip| ip.is_ipv4() == is_ipv4).map(|ip| bits(*ip)).collect();
    holes.sort_unstable();
    let mut parts = Vec::new();
    let mut from = first;
    for hole in holes.into_iter().filter(|hole| (first..=last).contains(hole)) {
        if hole > from {
            parts.push((from, hole - 1));
        }
        from = hole + 1;
    }
    if from <= last {
        parts.push((from, last));
    }
    parts
}

/// The peers that are known to have a torrent (or said to), in the order in which they became known.
pub(super) struct PeerBook {
    admission: Arc<Admission>,
    known: Mutex<Vec<SocketAddr>>,
    count: watch::Sender<usize>,
}

impl PeerBook {
    pub(super) fn new(admission: Arc<Admission>) -> Arc<Self> {
        Arc::new(Self { admission, known: Mutex::new(Vec::new()), count: watch::Sender::new(0) })
    }

    /// Adds those that may be talked to and are new.
    pub(super) fn add(&self, addresses: impl IntoIterator<Item = SocketAddr>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        for address in addresses {
            if known.len() < MAX_KNOWN && self.admission.admits(&address) && !known.contains(&address) {
                known.push(address);
            }
        }
        let count = known.len();
        drop(known);
        self.count.send_if_modified(|held| std::mem::replace(held, count) != count);
    }

    pub(super) fn all(&self) -> Vec<SocketAddr> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many are known; changes when more come.
    pub(super) fn count(&self) -> watch::Receiver<usize> {
        self.count.subscribe()
    }
}

/// What finding peers needs, shared by all torrents.
pub(super) struct Finder {
    pub(super) dht: Option<Dht>,
    pub(super) http: reqwest::Client,
    pub(super) udp: UdpTrackerClient,
    pub(super) own_id: Id20,
    /// The port that is announced; trackers do not work with none.
    pub(super) port: u16,
    pub(super) trackers: bool,
}

impl Finder {
    /// Writes into the book what trackers and DHT tell, for as long as it is polled.
    pub(super) async fn find(&self, info_hash: InfoHash, trackers: &[String], private: bool, book: &PeerBook) {
        let hash = Id20::new(info_hash.0);
        let trackers = if self.trackers { book.admission.trackers(trackers).await } else { Vec::new() };
        let ask = || {
            TrackerComms::start(
                hash,
                self.own_id,
                trackers.iter().cloned().collect(),
                Box::new(()),
                None,
                self.port,
                self.http.clone(),
                self.udp.clone(),
            )
        };
        let heard = self.dht.as_ref().filter(|_| !private).map(|dht| dht.get_peers(hash, None));
        let heard = async {
            let mut heard = futures_util::stream::iter(heard).flatten();
            while let Some(address) = heard.next().await {
                book.add([address]);
            }
        };
        futures_util::future::join(heard, ask_again_while_nobody_is_known(ask, ASK_AGAIN, book)).await;
    }
}

/// Writes into the book what trackers tell, for as long as it is polled.
async fn ask_again_while_nobody_is_known<S: Stream<Item = SocketAddr> + Unpin>(
    ask: impl Fn() -> Option<S>,
    gaps: [Duration; 3],
    book: &PeerBook,
) {
    let mut newest = SelectAll::from_iter(ask());
    let mut older = SelectAll::new();
    for gap in gaps {
        let until = tokio::time::Instant::now() + gap;
        let mut told = futures_util::stream::select(&mut newest, &mut older);
        while let Ok(Some(address)) = tokio::time::timeout_at(until, told.next()).await {
            book.add([address]);
        }
        if *book.count().borrow() > 0 {
            break;
        }
        tokio::time::sleep_until(until).await;
        older.extend(std::mem::replace(&mut newest, SelectAll::from_iter(ask())));
    }
    // One goes on: each would ask for ever at its tracker's pace.
    drop(older);
    while let Some(address) = newest.next().await {
        book.add([address]);
    }
}

/// Looks names up for the HTTP client that asks trackers, and tells it public addresses only.
pub(super) struct PublicNames(pub(super) Arc<Admission>);

impl reqwest::dns::Resolve for PublicNames {
    fn resolve(&self, name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        let allow_private = self.0.allow_private;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let kept: Vec<SocketAddr> = found.filter(|address| allow_private || is_public(address.ip())).collect();
            Ok(Box::new(kept.into_iter()) as reqwest::dns::Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn private_peers_are_admitted_by_name_only() {
        let admission = Admission::new(false, [peer("192.168.1.5:6881")]);
        for (address, admitted) in [
            ("192.168.1.5:6881", true),
            ("192.168.1.5:6882", false),
            ("192.168.1.6:6881", false),
            ("127.0.0.1:80", false),
            ("169.254.169.254:80", false),
            ("[::1]:80", false),
            ("[::ffff:127.0.0.1]:80", false),
            ("8.8.8.8:6881", true),
            ("8.8.8.8:0", false),
        ] {
            assert_eq!(admission.admits(&peer(address)), admitted, "{address}");
        }
        admission.name(peer("127.0.0.1:80"));
        assert!(admission.admits(&peer("127.0.0.1:80")));
        assert!(Admission::new(true, []).admits(&peer("10.0.0.1:1")));
    }

    #[test]
    fn the_block_list_leaves_named_addresses_out() {
        let list = Admission::new(false, [peer("10.0.0.0:1"), peer("[::1]:3")]).block_list(peer("127.0.0.1:2").ip());
        for line in [
            "private:10.0.0.1-10.255.255.255",
            "private:127.0.0.0-127.0.0.0",
            "private:127.0.0.2-127.255.255.255",
            "private:::-::",
            "private:::2-1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        ] {
            assert!(list.lines().any(|found| found == line), "{line} is not in\n{list}");
        }
        assert_eq!(Admission::new(true, []).block_list(peer("127.0.0.1:2").ip()), "");
    }

    #[tokio::test]
    async fn trackers_are_asked_again_while_nobody_is_known_and_then_left_alone() {
        // So many askings are in vain; how many there were in the end.
        let table = [(0, 1), (1, 2), (2, 3), (3, 4), (9, 4)].map(|(vain, expected)| async move {
            let (book, asked) = (PeerBook::new(Arc::new(Admission::new(true, []))), std::cell::Cell::new(0));
            let going_on = std::rc::Rc::new(());
            let ask = || {
                let (number, held) = (asked.replace(asked.get() + 1), going_on.clone());
                let answer = (number >= vain).then(|| peer("10.0.0.1:1"));
                let for_ever = futures_util::stream::pending().inspect(move |_: &SocketAddr| {
                    let _held = &held;
                });
                Some(Box::pin(futures_util::stream::iter(answer).chain(for_ever)))
            };
            let asking = ask_again_while_nobody_is_known(ask, [50, 100, 200].map(Duration::from_millis), &book);
            let looking = async {
                tokio::time::sleep(Duration::from_secs(1)).await;
                assert_eq!(std::rc::Rc::strong_count(&going_on), 2, "one asking goes on");
            };
            tokio::select! {
                () = asking => panic!("it goes on"),
                () = looking => {}
            }
            assert_eq!((asked.get(), book.all().len()), (expected, usize::from(vain < 9)), "{vain}");
        });
        futures_util::future::join_all(table).await;
    }

    #[test]
    fn the_book_keeps_order_and_bounds() {
        let book = PeerBook::new(Arc::new(Admission::new(true, [])));
        book.add((0..3000_u32).map(|n| SocketAddr::from(([10, 0, (n / 250) as u8, (n % 250) as u8], 1))));
        book.add([peer("10.0.0.1:1")]);
        assert_eq!(book.all().len(), MAX_KNOWN);
        assert_eq!(*book.count().borrow(), MAX_KNOWN);
    }

    #[tokio::test]
    async fn trackers_at_private_addresses_are_left_out() {
        let trackers: Vec<String> =
            ["http://127.0.0.1:6969/announce", "udp://8.8.8.8:6969", "udp://localhost:1"].map(str::to_owned).to_vec();
        let kept = Admission::new(false, []).trackers(&trackers).await;
        assert_eq!(kept.iter().map(Url::as_str).collect::<Vec<_>>(), ["udp://8.8.8.8:6969"]);
        assert_eq!(Admission::new(true, []).trackers(&trackers).await.len(), 3);
    }
}
