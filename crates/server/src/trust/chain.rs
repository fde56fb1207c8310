//! The user's own certificate: a chain and its key from PEM files, looked at closely before anything is served with them, and a
//! watch over the files.
//!
//! Where the files come from (certbot, a company's CA, a Kubernetes secret) is not known here. Nothing is ever written.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};
use rustls::crypto::aws_lc_rs;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::Notify;
use tracing::debug;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

use super::ca::{Fingerprint, day, moment};
use super::names::Subject;

/// More than any chain or key needs; a wrong path must not fill the memory.
const LARGEST_FILE: u64 = 1 << 20;

/// What is wrong with a certificate or its key.
#[derive(Debug, thiserror::Error)]
pub enum Flaw {
    /// A file cannot be read.
    #[error("the {0} cannot be read: {1}")]
    Unreadable(&'static str, io::Error),
    /// A file is larger than any such file.
    #[error("the {0} is larger than 1 MiB")]
    TooLarge(&'static str),
    /// There is no certificate in PEM.
    #[error("there is no certificate in PEM form in it")]
    NoCertificate,
    /// A certificate cannot be read.
    #[error("certificate {0} of the chain is damaged")]
    Damaged(usize),
    /// There is no key in PEM.
    #[error("there is no private key in PEM form (PKCS#8, SEC1 or PKCS#1) in the key's file")]
    NoKey,
    /// The key is locked with a passphrase.
    #[error("the key is encrypted; take the passphrase off it, for instance with `openssl pkey`")]
    Encrypted,
    /// The key is of a kind or size that TLS has no use for.
    #[error("the key cannot be used: {0}")]
    UnusableKey(rustls::Error),
    /// The key belongs to no certificate of the chain.
    #[error("the key does not belong to this certificate")]
    WrongKey,
    /// The key belongs to another certificate of the chain than the first.
    #[error("the key belongs to certificate {0} of the chain; put that one first")]
    WrongOrder(usize),
    /// It is over.
    #[error("it expired on {0}")]
    Expired(String),
    /// It has not begun.
    #[error("it is not valid before {0} (or this computer's clock is wrong)")]
    TooEarly(String),
}

/// A chain that fits its key.
#[derive(Debug)]
pub(super) struct Chain {
    pub(super) certified: Arc<CertifiedKey>,
    /// The subject alternative names of the first certificate.
    pub(super) subject: Subject,
    /// Of the last certificate.
    pub(super) fingerprint: Fingerprint,
    pub(super) from: SystemTime,
    pub(super) until: SystemTime,
}

impl Chain {
    /// Reads the two files, which may be one and the same.
    pub(super) fn read(cert: &Path, key: &Path) -> Result<Self, Flaw> {
        Self::parse(&content(cert, "certificate")?, &content(key, "key")?)
    }

    /// Takes a chain, leaf first, and its key. Says nothing about time.
    fn parse(cert: &[u8], key: &[u8]) -> Result<Self, Flaw> {
        let chain = CertificateDer::pem_slice_iter(cert).collect::<Result<Vec<_>, _>>().map_err(|_| Flaw::NoCertificate)?;
        let read = |(at, der)| x509_parser::parse_x509_certificate(der).map(|(_, read)| read).map_err(|_| Flaw::Damaged(at + 1));
        let certificates = chain.iter().map(|der| der.as_ref()).enumerate().map(read).collect::<Result<Vec<_>, _>>()?;
        let (Some(leaf), Some(last)) = (certificates.first(), certificates.last()) else { return Err(Flaw::NoCertificate) };
        let private = aws_lc_rs::sign::any_supported_type(&private_key(key)?).map_err(Flaw::UnusableKey)?;
        let public = private.public_key().ok_or(Flaw::WrongKey)?;
        match certificates.iter().position(|certificate| certificate.public_key().raw == public.as_ref()) {
            Some(0) => {}
            Some(at) => return Err(Flaw::WrongOrder(at + 1)),
            None => return Err(Flaw::WrongKey),
        }
        let (subject, fingerprint) = (subject_of(leaf), Fingerprint::of(last.public_key().raw));
        let (from, until) = (moment(leaf.validity().not_before.timestamp()), moment(leaf.validity().not_after.timestamp()));
        Ok(Self { certified: Arc::new(CertifiedKey::new(chain, private)), subject, fingerprint, from, until })
    }

    /// Whether the leaf is valid now. The others of the chain are not asked: some are sent on purpose after their end, for old phones.
    pub(super) fn valid_at(self, now: SystemTime) -> Result<Self, Flaw> {
        if now >= self.until {
            return Err(Flaw::Expired(day(self.until)));
        }
        if now < self.from {
            return Err(Flaw::TooEarly(day(self.from)));
        }
        Ok(self)
    }

    /// Whether it is the same chain, and so the same key.
    pub(super) fn is(&self, other: &CertifiedKey) -> bool {
        self.certified.cert == other.cert
    }
}

fn content(path: &Path, what: &'static str) -> Result<Vec<u8>, Flaw> {
    let unreadable = |error| Flaw::Unreadable(what, error);
    let file = File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(LARGEST_FILE + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > LARGEST_FILE { Err(Flaw::TooLarge(what)) } else { Ok(bytes) }
}

fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, Flaw> {
    // Of both forms of encrypted keys (PKCS#8, and the older one with a Proc-Type line) this word is a part.
    let encrypted = pem.windows(9).any(|window| window == b"ENCRYPTED");
    // The reader's own words are not passed on: they may quote what stands in the file.
    PrivateKeyDer::from_pem_slice(pem).map_err(|_| if encrypted { Flaw::Encrypted } else { Flaw::NoKey })
}

/// What the certificate is good for. Wildcards are left out: they name no host, but a rule.
fn subject_of(leaf: &X509Certificate<'_>) -> Subject {
    let names = leaf.subject_alternative_name().ok().flatten().map(|extension| &extension.value.general_names);
    let (mut hosts, mut addresses) = (BTreeSet::new(), BTreeSet::new());
    for name in names.into_iter().flatten() {
        match name {
            GeneralName::DNSName(name) if !name.contains('*') => drop(hosts.insert(name.to_ascii_lowercase())),
            GeneralName::IPAddress(bytes) => addresses.extend(address(bytes)),
            _ => {}
        }
    }
    Subject { names: hosts.into_iter().collect(), addresses: addresses.into_iter().collect() }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    four.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok().map(|ip| ip.to_canonical())
}

/// A watch over the folders of some files. Folders, because whoever renews a certificate seldom writes into the old file: certbot bends
/// a symbolic link, Kubernetes one further up, editors rename.
#[derive(Debug)]
pub(super) struct Watch {
    changed: Arc<Notify>,
    /// Watches until it is dropped; `None` where the system has no watch left, and only the slow look remains.
    _watcher: Option<RecommendedWatcher>,
}

impl Watch {
    pub(super) fn over(files: &[&Path]) -> Self {
        let changed = Arc::new(Notify::new());
        let watcher =
            watcher(&folders(files), changed.clone()).inspect_err(|error| debug!("no watch over the certificate's files: {error}"));
        Self { changed, _watcher: watcher.ok() }
    }

    /// Ends when something changed in the folders since the watch began.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }
}

fn watcher(folders: &BTreeSet<PathBuf>, changed: Arc<Notify>) -> notify::Result<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        // Our own reading is an event too, and no change.
        if event.is_ok_and(|event| !event.kind.is_access()) {
            changed.notify_one();
        }
    })?;
    for folder in folders {
        watcher.watch(folder, RecursiveMode::NonRecursive)?;
    }
    Ok(watcher)
}

/// Where the files stand, and where what they point to stands.
fn folders(files: &[&Path]) -> BTreeSet<PathBuf> {
    let targets = files.iter().filter_map(|file| file.canonicalize().ok());
    let all = files.iter().filter_map(|file| std::path::absolute(file).ok()).chain(targets);
    all.filter_map(|file| file.parent().map(Path::to_path_buf)).filter(|folder| folder.is_dir()).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::{any, proptest};
    use proptest::{collection, sample};
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    fn pair(hosts: &[&str]) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(hosts.iter().map(|host| (*host).to_owned()).collect::<Vec<_>>()).expect("hosts");
        (params.not_before, params.not_after) = (date_time_ymd(2026, 1, 1), date_time_ymd(2026, 4, 1));
        (params.self_signed(&key).expect("signed").pem(), key.serialize_pem())
    }

    fn parse(cert: &str, key: &str) -> Result<Chain, String> {
        Chain::parse(cert.as_bytes(), key.as_bytes()).map_err(|flaw| flaw.to_string())
    }

    #[test]
    fn a_good_pair_tells_what_it_is_good_for() {
        let (cert, key) = pair(&["Living.Example.org", "*.example.org", "192.168.1.5", "fd00::5", "::ffff:10.0.0.1"]);
        let chain = parse(&cert, &key).expect("good");
        assert_eq!(chain.subject.hosts(), ["living.example.org", "10.0.0.1", "192.168.1.5", "fd00::5"]);
        assert_eq!((day(chain.from), day(chain.until)), ("2026-01-01".into(), "2026-04-01".into()));
        // Text between the parts, a key in the same file, another order: all usual.
        parse(&format!("Subject: x\n{key}\nbag\n{cert}"), &format!("{cert}{key}")).expect("good");
    }

    #[test]
    fn what_is_wrong_is_said() {
        let ((cert, key), (other, other_key)) = (pair(&["a.example"]), pair(&["b.example"]));
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let locked = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
        let old_locked =
            "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n-----END EC PRIVATE KEY-----\n";
        let rubbish = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        for (cert, key, said) in [
            ("", key.as_str(), "no certificate in PEM"),
            (&key, &key, "no certificate in PEM"),
            (&cert[..100], &key, "no certificate in PEM"),
            (broken, &key, "certificate 1 of the chain is damaged"),
            (&format!("{cert}{broken}"), &key, "certificate 2 of the chain is damaged"),
            (&cert, "", "no private key"),
            (&cert, &cert, "no private key"),
            (&cert, locked, "the key is encrypted"),
            (&cert, old_locked, "the key is encrypted"),
            (&cert, rubbish, "the key cannot be used"),
            (&cert, &other_key, "does not belong to this certificate"),
            (&format!("{cert}{other}"), &other_key, "certificate 2 of the chain; put that one first"),
        ] {
            let error = parse(cert, key).expect_err(said);
            assert!(error.contains(said), "{said}: {error}");
        }
    }

    #[test]
    fn time_is_judged_to_the_second() {
        let (cert, key) = pair(&["a.example"]);
        let at = |seconds_from: i64| {
            parse(&cert, &key).expect("good").valid_at(moment(1_767_225_600 + seconds_from)).map_err(|flaw| flaw.to_string())
        };
        at(0).expect("valid from its first second");
        assert!(at(-1).expect_err("too early").contains("not valid before 2026-01-01"));
        let life = 90 * 24 * 3600;
        at(life - 1).expect("valid to its last second");
        assert!(at(life).expect_err("over").contains("expired on 2026-04-01"));
    }

    #[test]
    fn files_that_cannot_be_are_said() {
        let folder = tempfile::tempdir().expect("folder");
        let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
        let said = || Chain::read(&cert, &key).expect_err("refused").to_string();
        assert!(said().contains("the certificate cannot be read"));
        std::fs::write(&cert, vec![b' '; 1 << 20]).expect("written");
        assert!(said().contains("the key cannot be read"));
        std::fs::write(&cert, vec![b' '; (1 << 20) + 1]).expect("written");
        assert!(said().contains("larger than 1 MiB"));
    }

    async fn is_told(watch: &Watch) -> bool {
        tokio::time::timeout(Duration::from_secs(20), watch.changed()).await.is_ok()
    }

    #[tokio::test]
    async fn every_way_of_renewing_is_noticed_and_reading_is_not() {
        use std::fs::{self, write};
        let folder = tempfile::tempdir().expect("folder");
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("first")).expect("made");
        fs::create_dir(path("second")).expect("made");
        for file in ["first/cert", "second/cert", "key"] {
            write(path(file), "old").expect("written");
        }
        let link = |target: &str, name: &str| {
            std::os::unix::fs::symlink(target, path("aside")).expect("linked");
            fs::rename(path("aside"), path(name)).expect("put in place");
        };
        // As Kubernetes lays it out.
        link("first", "data");
        link("data/cert", "cert");
        let watch = || Watch::over(&[&path("cert"), &path("key")]);
        let quiet = watch();
        fs::read(path("cert")).expect("read");
        assert!(tokio::time::timeout(Duration::from_millis(200), quiet.changed()).await.is_err(), "reading is no change");
        for (how, act) in [
            ("written in place", &(|| write(path("key"), "new").expect("written")) as &dyn Fn()),
            ("written behind two links", &|| write(path("first/cert"), "new").expect("written")),
            ("renamed", &|| fs::rename(path("second/cert"), path("key")).expect("renamed")),
            ("a link further up bent", &|| link("second", "data")),
            ("the link itself bent", &|| link("first/cert", "cert")),
            ("deleted", &|| fs::remove_file(path("key")).expect("deleted")),
        ] {
            let watch = watch();
            act();
            assert!(is_told(&watch).await, "{how}");
        }
    }

    #[test]
    fn a_watch_over_nothing_is_no_failure() {
        let watch = Watch::over(&[Path::new("/nonexistent/cert"), Path::new("")]);
        assert!(watch._watcher.is_some());
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_chain_or_a_flaw(bytes in collection::vec(any::<u8>(), 0..400), at in any::<sample::Index>(), flip in 1_u8..) {
            let (cert, key) = pair(&["a.example", "10.0.0.1"]);
            Chain::parse(&bytes, key.as_bytes()).expect_err("no chain");
            Chain::parse(cert.as_bytes(), &bytes).expect_err("no key");
            // A certificate with one byte changed may still be one, for its signature is for others to check.
            let mut der = CertificateDer::from_pem_slice(cert.as_bytes()).expect("one").to_vec();
            let at = at.index(der.len());
            der[at] ^= flip;
            let armoured = format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", data_encoding::BASE64.encode(&der));
            drop(Chain::parse(armoured.as_bytes(), key.as_bytes()));
        }
    }
}
