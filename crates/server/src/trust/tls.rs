//! What TLS handshakes are answered with: a certificate of our own authority, or the user's, exchanged while the server runs.
//!
//! Connections that are open keep what they began with; only handshakes after the exchange see the new one. Listening and accepting
//! are not done here.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::ca::{Authority, CaError, DAY, Fingerprint, day, moment};
use super::chain::{Chain, Flaw, Watch};
use super::names::{Names, Subject, subject};

/// From when on the end of the user's own certificate is announced in the log.
const LATE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Where the certificate comes from.
#[expect(clippy::large_enum_variant, reason = "there is one of it")]
#[derive(Debug)]
pub enum Certificates {
    /// From our own authority.
    Own(Authority),
    /// From the user, in PEM.
    Files {
        /// The chain, leaf first.
        cert: PathBuf,
        /// The key of the leaf.
        key: PathBuf,
    },
}

/// How long certificates of our own authority live, and how patiently changes are followed.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// How long a certificate is valid. Phones of Apple refuse more than 398 days from public authorities and 825 from others.
    pub life: Duration,
    /// At which age it is replaced.
    pub renew_after: Duration,
    /// How long a change may go on before it is followed: addresses come and go in bursts, and files are written one by one.
    pub settle: Duration,
    /// How often clock and files are looked at in any case. Timers stand still while a computer sleeps, clocks jump, and some file
    /// systems tell of no change.
    pub look: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self { life: 90 * DAY, renew_after: 60 * DAY, settle: Duration::from_millis(500), look: Duration::from_secs(5 * 60) }
    }
}

/// Why there is nothing to answer handshakes with.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Our own authority could make no certificate.
    #[error(transparent)]
    Own(#[from] CaError),
    /// The user's own certificate is wrong.
    #[error("the certificate {} with the key {} cannot be used: {flaw}", cert.display(), key.display())]
    Files {
        /// The chain's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What is wrong.
        flaw: Flaw,
    },
    /// TLS itself could not be set up.
    #[error("TLS cannot be set up: {0}")]
    Config(#[from] rustls::Error),
}

/// What TLS handshakes are answered with.
#[derive(Debug)]
pub struct Tls {
    source: Certificates,
    policy: Policy,
    serving: Arc<Serving>,
    config: Arc<ServerConfig>,
}

/// The certificate of now.
struct Serving(ArcSwap<Served>);

/// One certificate and what is known about it.
///
/// One from our own authority is never written to disk but made anew at each start: that takes a millisecond, a key that was in no file is
/// in no backup either, and there is nothing that could be damaged or out of date. Phones do not notice, because they trust the authority.
#[derive(Debug)]
struct Served {
    certified: Arc<CertifiedKey>,
    subject: Subject,
    fingerprint: Fingerprint,
    made: SystemTime,
    until: SystemTime,
}

impl fmt::Debug for Serving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Serving").field(&self.0.load().subject).finish()
    }
}

impl ResolvesServerCert for Serving {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // Whatever name is asked for: by address none is sent at all, and a client judges for itself whether the certificate fits.
        Some(self.0.load().certified.clone())
    }
}

/// The user's own certificate, if it can be used now.
fn users(cert: &Path, key: &Path, now: SystemTime) -> Result<Chain, TlsError> {
    let chain = Chain::read(cert, key).and_then(|chain| chain.valid_at(now));
    chain.map_err(|flaw| TlsError::Files { cert: cert.to_owned(), key: key.to_owned(), flaw })
}

impl Tls {
    /// Gets the first certificate ready.
    ///
    /// # Errors
    /// When the user's own certificate cannot be used, with a sentence that says why.
    pub fn open(what: Certificates, names: Names) -> Result<Arc<Self>, TlsError> {
        Self::open_with(what, names, Policy::default())
    }

    /// Whether [`Tls::open`] could use the user's own certificate as it is now.
    ///
    /// # Errors
    /// The same as there.
    pub fn check(cert: &Path, key: &Path) -> Result<(), TlsError> {
        users(cert, key, SystemTime::now()).map(drop)
    }

    /// The same with other lifetimes.
    ///
    /// # Errors
    /// As [`Tls::open`].
    pub fn open_with(what: Certificates, names: Names, policy: Policy) -> Result<Arc<Self>, TlsError> {
        let now = SystemTime::now();
        let served = match &what {
            Certificates::Own(authority) => Served::issue(authority, subject(&names, authority.constraints()), policy.life, now)?,
            Certificates::Files { cert, key } => Served::from(users(cert, key, now)?, now),
        };
        let serving = Arc::new(Serving(ArcSwap::from_pointee(served)));
        let config = Arc::new(config(serving.clone())?);
        Ok(Arc::new(Self { source: what, policy, serving, config }))
    }

    /// TLS 1.2 and 1.3 with HTTP/2 and HTTP/1.1; the same one for as long as the server runs.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        self.config.clone()
    }

    /// Our own authority; `None` with the user's own certificate.
    pub fn authority(&self) -> Option<&Authority> {
        match &self.source {
            Certificates::Own(authority) => Some(authority),
            Certificates::Files { .. } => None,
        }
    }

    /// Of our own authority; with the user's own certificate, of the last one of its chain.
    pub fn fingerprint(&self) -> Fingerprint {
        self.serving.0.load().fingerprint
    }

    /// The end of the certificate of now.
    pub fn until(&self) -> SystemTime {
        self.serving.0.load().until
    }

    /// Names and addresses that the certificate of now is good for; IPv6 addresses without brackets, no wildcards.
    pub fn hosts(&self) -> Vec<String> {
        self.serving.0.load().subject.hosts()
    }

    /// From when and until when the certificate of now is valid.
    pub fn validity(&self) -> Option<(SystemTime, SystemTime)> {
        let served = self.serving.0.load();
        let (_, leaf) = x509_parser::parse_x509_certificate(served.certified.cert.first()?).ok()?;
        let validity = leaf.validity();
        Some((moment(validity.not_before.timestamp()), moment(validity.not_after.timestamp())))
    }

    /// Whether the certificate of now names this address.
    pub fn covers(&self, ip: IpAddr) -> bool {
        self.serving.0.load().subject.covers(ip)
    }

    /// Keeps the certificate fresh until `stop`: renews our own when it ages or `names` change, and takes over the user's own when its
    /// files change.
    pub async fn keep_fresh(self: Arc<Self>, names: watch::Receiver<Names>, stop: CancellationToken) {
        let work = async {
            match &self.source {
                Certificates::Own(authority) => self.follow_names(authority, names).await,
                Certificates::Files { cert, key } => self.follow_files(cert, key).await,
            }
        };
        stop.run_until_cancelled(work).await;
    }

    async fn follow_names(&self, authority: &Authority, mut names: watch::Receiver<Names>) {
        let mut told = true;
        loop {
            let wanted = subject(&names.borrow_and_update(), authority.constraints());
            self.renew(authority, wanted, SystemTime::now());
            let left = left(self.serving.0.load().made, SystemTime::now(), self.policy.renew_after);
            tokio::select! {
                changed = names.changed(), if told => {
                    // Nobody is left to tell of changes: age remains.
                    told = changed.is_ok();
                    sleep(self.policy.settle).await;
                }
                // Not at once even when it is due: making it may have failed.
                () = sleep(left.clamp(self.policy.settle, self.policy.look)) => {}
            }
        }
    }

    /// Makes a new certificate where the one of now is too old or good for other names.
    fn renew(&self, authority: &Authority, wanted: Subject, now: SystemTime) {
        let served = self.serving.0.load();
        if served.subject == wanted && !left(served.made, now, self.policy.renew_after).is_zero() {
            return;
        }
        match Served::issue(authority, wanted, self.policy.life, now) {
            Ok(fresh) => {
                info!(hosts = fresh.subject.hosts().join(" "), until = day(fresh.until), "A new certificate is in use.");
                self.serving.0.store(Arc::new(fresh));
            }
            Err(error) => error!("The certificate could not be renewed, the one before stays in use: {error}."),
        }
    }

    async fn follow_files(&self, cert: &Path, key: &Path) {
        let (mut flaw_told, mut end_told) = (None, None);
        loop {
            let (watch, read) = look(cert, key).await;
            let now = SystemTime::now();
            tell(&mut flaw_told, self.take_over(cert, read, now));
            tell(&mut end_told, ending(self.serving.0.load().until, now).map(|end| format!("{end} Put a new one at {}.", cert.display())));
            tokio::select! {
                () = watch.changed() => sleep(self.policy.settle).await,
                () = sleep(self.policy.look) => {}
            }
        }
    }

    /// Exchanges the certificate for what was read where that is another one; what has to be said about it, where it is wrong.
    fn take_over(&self, cert: &Path, read: Result<Chain, Flaw>, now: SystemTime) -> Option<String> {
        let served = self.serving.0.load();
        let fresh = match read {
            Ok(chain) if chain.is(&served.certified) => return None,
            read => read.and_then(|chain| chain.valid_at(now)),
        };
        match fresh {
            Ok(chain) => {
                info!(
                    hosts = chain.subject.hosts().join(" "),
                    until = day(chain.until),
                    "The new certificate {} is in use.",
                    cert.display()
                );
                self.serving.0.store(Arc::new(Served::from(chain, now)));
                None
            }
            Err(flaw) => Some(format!("The new certificate {} cannot be used: {flaw}. The one before stays in use.", cert.display())),
        }
    }
}

impl Served {
    fn issue(authority: &Authority, subject: Subject, life: Duration, now: SystemTime) -> Result<Self, CaError> {
        let issued = authority.issue(&subject, life, now)?;
        Ok(Self { certified: issued.certified, subject, fingerprint: authority.fingerprint(), made: now, until: issued.until })
    }

    fn from(chain: Chain, now: SystemTime) -> Self {
        if chain.subject.names.is_empty() && chain.subject.addresses.is_empty() {
            warn!("The certificate has no host in its subject alternative names but wildcards, if any; name yours with --host-name.");
        }
        Self { certified: chain.certified, subject: chain.subject, fingerprint: chain.fingerprint, made: now, until: chain.until }
    }
}

fn config(serving: Arc<Serving>) -> Result<ServerConfig, rustls::Error> {
    let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider())).with_safe_default_protocol_versions()?;
    let mut config = builder.with_no_client_auth().with_cert_resolver(serving);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // Players open a connection per segment: a ticket spares each of them half a handshake, and us a table of sessions.
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    Ok(config)
}

/// How long a certificate still has until it is to be replaced. None at all when the clock stands before its making: it was made while
/// the clock was wrong, and phones may find it too young.
fn left(made: SystemTime, now: SystemTime, renew_after: Duration) -> Duration {
    now.duration_since(made).map_or(Duration::ZERO, |age| renew_after.saturating_sub(age))
}

/// Watches the files and reads them, in this order, so that no change falls between the two.
async fn look(cert: &Path, key: &Path) -> (Watch, Result<Chain, Flaw>) {
    let files = [cert.to_owned(), key.to_owned()];
    let work = tokio::task::spawn_blocking(move || (Watch::over(&[&files[0], &files[1]]), Chain::read(&files[0], &files[1])));
    work.await.expect("reading two files does not panic")
}

/// What is to be said about the end of a certificate in use.
fn ending(until: SystemTime, now: SystemTime) -> Option<String> {
    let day = day(until);
    if now >= until {
        return Some(format!("The certificate in use expired on {day}: browsers and phones refuse it."));
    }
    (now + LATE >= until).then(|| format!("The certificate in use expires on {day}."))
}

/// Logs a sentence, but not the same one again.
fn tell(told: &mut Option<String>, sentence: Option<String>) {
    if let Some(sentence) = sentence.as_ref().filter(|sentence| told.as_ref() != Some(*sentence)) {
        warn!("{sentence}");
    }
    *told = sentence;
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::{CertificateDer, ServerName};
    use rustls::{ClientConfig, ProtocolVersion, RootCertStore, SupportedProtocolVersion};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

    use super::*;

    const QUICK: Policy = Policy {
        life: Duration::from_secs(60),
        renew_after: Duration::from_millis(500),
        settle: Duration::from_millis(20),
        look: Duration::from_secs(60),
    };

    type Both = (client::TlsStream<DuplexStream>, server::TlsStream<DuplexStream>);

    fn authority(constrained: bool) -> (tempfile::TempDir, Authority) {
        let folder = tempfile::tempdir().expect("folder");
        let authority = Authority::load_or_create(folder.path(), "test", constrained).expect("made");
        (folder, authority)
    }

    fn names(labels: &[&str], addresses: &[&str]) -> Names {
        Names {
            labels: labels.iter().map(|label| (*label).to_owned()).collect(),
            addresses: addresses.iter().map(|ip| ip.parse().expect("an address")).collect(),
        }
    }

    fn own(constrained: bool, names: Names, policy: Policy) -> Arc<Tls> {
        let (_folder, authority) = authority(constrained);
        Tls::open_with(Certificates::Own(authority), names, policy).expect("opened")
    }

    fn trusting(ca: Option<&[u8]>, versions: &[&'static SupportedProtocolVersion], alpn: &[&[u8]]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(ca.map(|der| CertificateDer::from(der.to_vec())));
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)
            .expect("versions");
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        Arc::new(config)
    }

    async fn shake(server: Arc<ServerConfig>, client: Arc<ClientConfig>, host: &str) -> std::io::Result<Both> {
        let (near, far) = duplex(64 << 10);
        let host = ServerName::try_from(host.to_owned()).expect("a host");
        let accepted = tokio::spawn(TlsAcceptor::from(server).accept(far));
        let connected = TlsConnector::from(client).connect(host, near).await?;
        Ok((connected, accepted.await.expect("no panic")?))
    }

    async fn greet(tls: &Tls, host: &str) -> std::io::Result<Both> {
        let ca = tls.authority().expect("our own").der();
        shake(tls.server_config(), trusting(Some(ca), rustls::ALL_VERSIONS, &[]), host).await
    }

    fn leaf(both: &Both) -> CertificateDer<'static> {
        both.0.get_ref().1.peer_certificates().expect("sent")[0].clone().into_owned()
    }

    async fn echo(both: &mut Both) {
        let mut heard = [0; 5];
        both.0.write_all(b"hello").await.expect("sent");
        both.1.read_exact(&mut heard).await.expect("heard");
        both.1.write_all(&heard).await.expect("sent back");
        both.0.read_exact(&mut heard).await.expect("heard back");
        assert_eq!(&heard, b"hello");
    }

    #[tokio::test]
    async fn who_trusts_the_authority_is_let_in_and_nobody_else() {
        let tls = own(true, names(&["anna"], &["192.168.1.7", "fd00::7", "8.8.8.8"]), Policy::default());
        for host in ["localhost", "anna.local", "127.0.0.1", "::1", "192.168.1.7", "fd00::7"] {
            echo(&mut greet(&tls, host).await.unwrap_or_else(|error| panic!("{host}: {error}"))).await;
        }
        for host in ["berta.local", "local", "192.168.1.8", "8.8.8.8", "example.org"] {
            let error = greet(&tls, host).await.expect_err(host).to_string();
            assert!(error.contains("not valid for name"), "{host}: {error}");
        }
        assert!(tls.covers("192.168.1.7".parse().expect("ip")) && !tls.covers("8.8.8.8".parse().expect("ip")));
        assert_eq!(tls.hosts(), ["anna.local", "localhost", "127.0.0.1", "192.168.1.7", "::1", "fd00::7"]);
        let (_folder, other) = authority(true);
        for roots in [None, Some(other.der())] {
            let stranger = trusting(roots, rustls::ALL_VERSIONS, &[]);
            let error = shake(tls.server_config(), stranger, "localhost").await.expect_err("unknown").to_string();
            assert!(error.contains("UnknownIssuer"), "{error}");
        }
    }

    #[tokio::test]
    async fn both_versions_and_both_protocols_are_spoken() {
        let tls = own(true, Names::default(), Policy::default());
        let ca = tls.authority().expect("our own").der();
        for (versions, version) in
            [(&rustls::version::TLS12, ProtocolVersion::TLSv1_2), (&rustls::version::TLS13, ProtocolVersion::TLSv1_3)]
        {
            for (offered, chosen) in [
                (&[b"h2".as_slice(), b"http/1.1"] as &[&[u8]], Some(b"h2".as_slice())),
                (&[b"http/1.1", b"h2"], Some(b"h2")),
                (&[b"http/1.1"], Some(b"http/1.1")),
                (&[], None),
            ] {
                let mut both = shake(tls.server_config(), trusting(Some(ca), &[versions], offered), "localhost").await.expect("let in");
                assert_eq!((both.0.get_ref().1.protocol_version(), both.0.get_ref().1.alpn_protocol()), (Some(version), chosen));
                echo(&mut both).await;
            }
        }
    }

    #[tokio::test]
    async fn a_second_connection_is_resumed() {
        let tls = own(true, Names::default(), Policy::default());
        let client = trusting(Some(tls.authority().expect("our own").der()), rustls::ALL_VERSIONS, &[]);
        for kind in [rustls::HandshakeKind::Full, rustls::HandshakeKind::Resumed] {
            let mut both = shake(tls.server_config(), client.clone(), "localhost").await.expect("let in");
            echo(&mut both).await;
            assert_eq!(both.1.get_ref().1.handshake_kind(), Some(kind));
        }
    }

    /// What a thief of the authority's key can do: sign for whatever he likes.
    async fn stolen(constrained: bool, host: &str) -> std::io::Result<Both> {
        let (_folder, authority) = authority(constrained);
        let foreign = Subject { names: vec!["example.org".into()], addresses: vec!["8.8.8.8".parse().expect("an address")] };
        let served = Served::issue(&authority, foreign, DAY, SystemTime::now()).expect("issued");
        let server = config(Arc::new(Serving(ArcSwap::from_pointee(served)))).expect("config");
        shake(Arc::new(server), trusting(Some(authority.der()), rustls::ALL_VERSIONS, &[]), host).await
    }

    #[tokio::test]
    async fn foreign_names_are_refused_because_of_the_constraints() {
        for host in ["example.org", "8.8.8.8"] {
            let error = stolen(true, host).await.expect_err(host).to_string();
            assert!(error.contains("NameConstraintViolation"), "{error}");
            stolen(false, host).await.expect("without constraints it would be accepted");
        }
    }

    #[tokio::test]
    async fn an_old_certificate_is_renewed_while_connections_stay_open() {
        let tls = own(true, Names::default(), QUICK);
        let (_sender, receiver) = watch::channel(Names::default());
        let stop = CancellationToken::new();
        let mut open = greet(&tls, "localhost").await.expect("let in");
        let first = leaf(&open);
        let keeping = tokio::spawn(tls.clone().keep_fresh(receiver, stop.clone()));
        let begun = std::time::Instant::now();
        while leaf(&greet(&tls, "localhost").await.expect("let in")) == first {
            assert!(begun.elapsed() < Duration::from_secs(20), "never renewed");
            sleep(Duration::from_millis(20)).await;
        }
        echo(&mut open).await;
        assert_eq!(leaf(&open), first);
        stop.cancel();
        keeping.await.expect("ended");
    }

    #[tokio::test]
    async fn new_names_make_a_new_certificate_and_the_same_ones_do_not() {
        let policy = Policy { renew_after: DAY, ..QUICK };
        let tls = own(true, Names::default(), policy);
        let (sender, receiver) = watch::channel(Names::default());
        let stop = CancellationToken::new();
        let keeping = tokio::spawn(tls.clone().keep_fresh(receiver, stop.clone()));
        let first = leaf(&greet(&tls, "localhost").await.expect("let in"));
        let until = async |host: &str| {
            let begun = std::time::Instant::now();
            loop {
                match greet(&tls, host).await {
                    Ok(both) => return leaf(&both),
                    Err(error) => assert!(begun.elapsed() < Duration::from_secs(20), "{host}: {error}"),
                }
                sleep(Duration::from_millis(10)).await;
            }
        };
        sender.send(names(&["anna"], &["10.0.0.5", "10.0.0.6"])).expect("heard");
        let second = until("10.0.0.5").await;
        assert_ne!(first, second);
        sender.send(names(&["ANNA"], &["10.0.0.6", "8.8.8.8", "10.0.0.5"])).expect("heard");
        sleep(10 * policy.settle).await;
        assert_eq!(leaf(&greet(&tls, "anna.local").await.expect("let in")), second);
        sender.send(names(&["berta"], &[])).expect("heard");
        until("berta.local").await;
        greet(&tls, "10.0.0.5").await.expect_err("gone");
        // Age is followed even when nobody can tell of names any more.
        drop(sender);
        sleep(5 * policy.settle).await;
        assert!(!keeping.is_finished());
        stop.cancel();
        keeping.await.expect("ended");
    }

    #[test]
    fn age_counts_by_the_clock_on_the_wall() {
        let made = SystemTime::now();
        for (later, expected) in [(0, 60), (1, 59), (59, 1), (60, 0), (61, 0), (3000, 0)] {
            assert_eq!(left(made, made + later * DAY, 60 * DAY), expected * DAY, "{later}");
        }
        assert_eq!(left(made, made - Duration::from_secs(1), 60 * DAY), Duration::ZERO, "made under a wrong clock");
    }

    #[test]
    fn renewal_follows_age_names_and_clock() {
        let tls = own(true, names(&["anna"], &[]), Policy::default());
        let authority = tls.authority().expect("our own");
        let serial = || tls.serving.0.load().certified.cert[0].clone();
        let renewed = |labels: &[&str], now: SystemTime| {
            let before = serial();
            tls.renew(authority, subject(&names(labels, &[]), authority.constraints()), now);
            before != serial()
        };
        let now = SystemTime::now();
        assert!(!renewed(&["anna"], now));
        assert!(!renewed(&["anna"], now + 59 * DAY));
        assert!(renewed(&["anna"], now + 61 * DAY));
        assert!(renewed(&["anna"], now + 59 * DAY), "the clock went back");
        assert!(!renewed(&["anna"], now + 59 * DAY));
        assert!(renewed(&["berta"], now + 59 * DAY));
    }

    #[test]
    fn the_end_is_announced() {
        let until = moment(1_775_001_600);
        assert_eq!(ending(until, until - 8 * DAY), None);
        assert_eq!(ending(until, until - 6 * DAY).as_deref(), Some("The certificate in use expires on 2026-04-01."));
        assert_eq!(ending(until, until).as_deref(), Some("The certificate in use expired on 2026-04-01: browsers and phones refuse it."));
    }

    fn moment(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn users_files_are_exchanged_only_for_good_ones() {
        let folder = tempfile::tempdir().expect("folder");
        let path = |name: &str| folder.path().join(name);
        let put = |host: &str, from: i32, until: i32| {
            let key = rcgen::KeyPair::generate().expect("a key");
            let mut params = rcgen::CertificateParams::new([host.to_owned()]).expect("a host");
            (params.not_before, params.not_after) = (rcgen::date_time_ymd(from, 1, 1), rcgen::date_time_ymd(until, 1, 1));
            std::fs::write(path("cert"), params.self_signed(&key).expect("signed").pem()).expect("written");
            std::fs::write(path("key"), key.serialize_pem()).expect("written");
        };
        let what = || Certificates::Files { cert: path("cert"), key: path("key") };
        let error = |what| Tls::open(what, Names::default()).expect_err("refused").to_string();
        assert!(error(what()).contains("cannot be read"));
        put("a.example", 2000, 2001);
        assert!(error(what()).contains("it expired on 2001-01-01"), "{}", error(what()));
        put("a.example", 2200, 2201);
        assert!(error(what()).contains("not valid before 2200-01-01"), "{}", error(what()));
        put("a.example", 2020, 2100);
        let tls = Tls::open(what(), Names::default()).expect("opened");
        assert!(tls.authority().is_none());
        assert_eq!(tls.fingerprint().short().len(), 22);
        let (cert, now) = (path("cert"), SystemTime::now());
        let take = || tls.take_over(&cert, Chain::read(&cert, &path("key")), now);
        assert_eq!((take(), tls.hosts()), (None, vec!["a.example".to_owned()]));
        put("b.example", 2000, 2001);
        let said = take().expect("said");
        assert!(said.contains("it expired on 2001-01-01. The one before stays in use"), "{said}");
        assert_eq!(tls.hosts(), ["a.example"]);
        put("c.example", 2020, 2100);
        assert_eq!((take(), tls.hosts()), (None, vec!["c.example".to_owned()]));
        std::fs::remove_file(path("cert")).expect("gone");
        assert!(take().expect("said").contains("cannot be read"));
        assert_eq!(tls.hosts(), ["c.example"]);
    }

    #[test]
    fn the_same_sentence_is_said_once() {
        let mut told = None;
        tell(&mut told, Some("a".into()));
        assert_eq!(told.as_deref(), Some("a"));
        tell(&mut told, None);
        assert_eq!(told, None);
    }
}
