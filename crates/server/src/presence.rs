//! What the house meets of this server: its addresses, its names, its certificate and its announcement, kept true together while
//! networks come and go and the name changes. What each of them is, its own file knows; here they only hear of each other.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use tokio::sync::watch;

use crate::config::Resolved;
use crate::discovery::{self, Announcement};
use crate::http::bind::Ports;
use crate::http::host::{HostName, Hosts};
use crate::lan::{self, Addresses, host_label, machine_name};
use crate::settings::{Live, Settings};
use crate::tasks::Tasks;
use crate::trust::Authority;
use crate::trust::names::Names;
use crate::trust::tls::{Certificates, Tls};

/// The server as the house meets it.
pub struct Presence {
    /// Where it is reached, best for a phone first.
    pub addresses: watch::Receiver<Arc<Addresses>>,
    /// What handshakes are answered with.
    pub tls: Arc<Tls>,
    found: watch::Sender<Arc<Addresses>>,
    live: watch::Receiver<Live>,
    server_id: String,
    bind: Option<IpAddr>,
}

impl Presence {
    /// Looks at the machine and gets the certificate ready. Nothing is followed or announced yet.
    ///
    /// # Errors
    /// When there is no certificate to be had: a sentence with its reasons.
    pub fn open(config: &Resolved, data_dir: &Path, settings: &Settings, server_id: &str) -> anyhow::Result<Self> {
        let live = settings.live();
        let (found, addresses) = watch::channel(Arc::new(lan::now()));
        let names = names(&live.borrow(), &addresses.borrow(), server_id, config.bind);
        let tls = Tls::open(certificates(config, data_dir)?, names)?;
        Ok(Self { addresses, tls, found, live, server_id: server_id.to_owned(), bind: config.bind })
    }

    /// The hosts by which clients may know this server: those of the list that does not change, its addresses, its own name, and what
    /// its certificate says.
    pub fn hosts(&self, config: &Resolved) -> Hosts {
        let (addresses, tls, live) = (self.addresses.clone(), self.tls.clone(), self.live.clone());
        let hosts = Hosts::new(machine_name().as_deref(), &config.host_names, &config.cors_origins);
        let id = self.server_id.clone();
        hosts.also(move |host| match host {
            HostName::Address(address) => addresses.borrow().has(*address) || tls.covers(*address),
            HostName::Name(name) => {
                let own = lan::labels(&host_label(&live.borrow().name), &id);
                own.iter().any(|label| name.strip_suffix(".local") == Some(label)) || tls.hosts().iter().any(|known| host.is(known))
            }
        })
    }

    /// Follows addresses and name from now on: the certificate stays right, and with `announced` the house is told.
    pub fn keep(self, ports: Ports, announced: bool, tasks: &Tasks) {
        let Self { addresses, tls, found, live, server_id, bind } = self;
        let fingerprint = tls.fingerprint().short();
        let say = move |live: &Live, id: &str| Announcement {
            id: id.to_owned(),
            name: live.name.clone(),
            label: host_label(&live.name),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            https: ports.https,
            http: ports.http,
            fingerprint: fingerprint.clone(),
            bind,
        };
        let now = names(&live.borrow(), &addresses.borrow(), &server_id, bind);
        let (tell_names, hear_names) = watch::channel(now);
        let (tell, hear) = watch::channel(say(&live.borrow(), &server_id));
        tasks.spawn_ending("addresses", |stop| lan::follow(stop, found));
        tasks.spawn_ending("certificate", |stop| tls.keep_fresh(hear_names, stop));
        if announced {
            let addresses = addresses.clone();
            tasks.spawn_ending("discovery", |stop| discovery::announce(hear, addresses, stop));
        }
        let (mut live, mut addresses) = (live, addresses);
        tasks.spawn("names", async move {
            loop {
                let changed = tokio::select! {
                    changed = live.changed() => changed,
                    changed = addresses.changed() => changed,
                };
                if changed.is_err() {
                    return;
                }
                let now = live.borrow_and_update().clone();
                tell_names.send_replace(names(&now, &addresses.borrow_and_update(), &server_id, bind));
                tell.send_if_modified(|told| {
                    let new = say(&now, &server_id);
                    let modified = *told != new;
                    *told = new;
                    modified
                });
            }
        });
    }
}

/// What a certificate of our own is for.
fn names(live: &Live, addresses: &Addresses, server_id: &str, bind: Option<IpAddr>) -> Names {
    let mut labels = lan::labels(&host_label(&live.name), server_id).to_vec();
    // The machine's own name leads here as well.
    labels.extend(machine_name().map(|name| host_label(&name)));
    // All of this machine, whichever of them the server listens on: that costs nothing, and who leads one of them here is right.
    let mut addresses = addresses.lasting();
    // Where the server was told to listen it is reached, whatever kind of address that is.
    let told = bind.filter(|ip| !ip.is_unspecified() && !addresses.contains(ip));
    addresses.extend(told);
    Names { labels, addresses }
}

fn certificates(config: &Resolved, data_dir: &Path) -> anyhow::Result<Certificates> {
    if let Some((cert, key)) = config.tls.clone() {
        return Ok(Certificates::Files { cert, key });
    }
    let authority = Authority::load_or_create(data_dir, &config.name, !config.ca_unconstrained);
    Ok(Certificates::Own(authority.context("the certificate authority cannot be used")?))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::lan::Found;
    use crate::trust::names::{Constraints, Network, PERMITTED_NETWORKS, subject};

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_certificate_names_every_address_that_stays_and_is_permitted() {
        let found = |interface: &str, address: &str, passing| Found {
            interface: interface.to_owned(),
            ip: ip(address),
            point_to_point: false,
            passing,
            default_route: None,
        };
        let machine = Addresses::from_iter([
            found("eth0", "192.168.1.20", false),
            found("eth0", "192.0.2.2", false),
            found("eth0", "fd00::20", false),
            found("eth0", "fd00::9999", true),
            found("docker0", "172.17.0.1", false),
            found("tailscale0", "100.101.102.103", false),
        ]);
        let minute = Duration::from_secs(60);
        let live =
            Live { name: "Den".into(), expire_after: minute, stall_timeout: minute, cache_max_bytes: 0, encoder: Default::default() };
        let network = |(ip, prefix): &(IpAddr, u8)| match ip {
            IpAddr::V4(ip) => Network::V4(ip.to_bits(), u32::MAX << (32 - prefix)),
            IpAddr::V6(ip) => Network::V6(ip.to_bits(), u128::MAX << (128 - prefix)),
        };
        let constraints = Constraints { names: Vec::new(), networks: PERMITTED_NETWORKS.iter().map(network).collect() };
        let every = ["100.101.102.103", "127.0.0.1", "172.17.0.1", "192.168.1.20", "::1", "fd00::20"];
        for (bind, more) in [(None, None), (Some("127.0.0.1"), None), (Some("192.168.1.20"), None), (Some("10.9.9.9"), Some("10.9.9.9"))] {
            let names = names(&live, &machine, "6akegi", bind.map(ip));
            let mut expected: Vec<IpAddr> = every.into_iter().chain(more).map(ip).collect();
            expected.sort();
            assert_eq!(subject(&names, Some(&constraints)).addresses, expected, "{bind:?}");
            assert_eq!(names.labels[..2], ["den", "den-6akegi"]);
        }
    }
}
