//! The server's own certificate authority: what the phones of the house are asked to trust, once.
//!
//! It is made at the first start and lives for ten years in two files of the data folder, `ca.pem` and `ca.key`. By name constraints
//! (RFC 5280 §4.2.1.10) and by its extended key usage it binds its own hands: whoever steals its key can pose as a host of some home
//! network, but neither as a bank nor as somebody who writes mail.
//! A damaged file is an error and never a reason for a new authority: every phone would have to trust that one anew.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use data_encoding::{BASE64, BASE64URL_NOPAD, HEXUPPER};
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DistinguishedName, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, NameConstraints, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber,
};
use rustls::crypto::aws_lc_rs;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use tracing::warn;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

use super::names::{Constraints, Network, PERMITTED_NAMES, PERMITTED_NETWORKS, Subject};
use super::{close_to_others, name_of, random, write_private};

pub(super) const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// How long an authority lives.
const LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
/// How far the beginning of a certificate lies in the past, for phones whose clocks are slow.
const AUTHORITY_BACKDATED: Duration = DAY;
const LEAF_BACKDATED: Duration = Duration::from_secs(60 * 60);
/// From when on the end of the authority is announced in the log.
const LATE: Duration = Duration::from_secs(90 * 24 * 60 * 60);
/// 2026-01-01. A clock before it is wrong (there was no Balcony yet): small computers wake in 1970 until they have heard the time.
const NO_EARLIER: Duration = Duration::from_secs(1_767_225_600);
/// The longest common name, in characters (RFC 5280 appendix A.1, `ub-common-name`).
const LONGEST_COMMON_NAME: usize = 64;
/// What giving up the authority means, for sentences that have to say so.
const HOW_TO_RESET: &str =
    "put it back from a backup, or give it up with `balcony-server reset-ca`, after which every phone has to trust the new one";

/// Why there is no certificate authority.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// A file cannot be read or written.
    #[error("{} cannot be {}: {error}", path.display(), if *write { "written" } else { "read" })]
    File {
        /// The file.
        path: PathBuf,
        /// Whether it was to be written.
        write: bool,
        /// What the system says.
        error: io::Error,
    },
    /// One of the two files is gone.
    #[error("{} is missing, while its counterpart is there; {HOW_TO_RESET}", path.display())]
    Missing {
        /// The file that is not there.
        path: PathBuf,
    },
    /// A file holds something else.
    #[error("{} is damaged ({why}); {HOW_TO_RESET}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The key is another's.
    #[error("{} is not the key of the certificate beside it; {HOW_TO_RESET}", path.display())]
    WrongKey {
        /// The file of the key.
        path: PathBuf,
    },
    /// No certificate could be made.
    #[error("no certificate could be made: {0}")]
    Made(#[from] rcgen::Error),
    /// What was made cannot be served.
    #[error("the new certificate cannot be used: {0}")]
    Unusable(#[from] rustls::Error),
}

/// SHA-256 of a public key (its SubjectPublicKeyInfo in DER), by which people and phones tell authorities apart.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Of the SubjectPublicKeyInfo in DER.
    pub fn of(spki: &[u8]) -> Self {
        Self(Sha256::digest(spki).into())
    }

    /// The first 16 bytes in base64url without padding: 22 letters, the `fp` of QR codes, health and mDNS.
    pub fn short(&self) -> String {
        BASE64URL_NOPAD.encode(self.first())
    }

    /// The same 16 bytes to be compared by eye: eight groups of four upper-case hex digits.
    pub fn for_people(&self) -> String {
        self.first().chunks(2).map(|pair| HEXUPPER.encode(pair)).collect::<Vec<_>>().join(" ")
    }

    fn first(&self) -> &[u8] {
        &self.0[..16]
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({})", self.short())
    }
}

/// A certificate authority of our own.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    der: CertificateDer<'static>,
    pem: String,
    common_name: String,
    fingerprint: Fingerprint,
    constraints: Option<Constraints>,
    until: SystemTime,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("common_name", &self.common_name).field("fingerprint", &self.fingerprint).finish_non_exhaustive()
    }
}

impl Authority {
    /// The authority of this data folder, made at the first start. `name` is what it is called then, and `constrained` whether it binds
    /// itself to the addresses and names of a house; one that is there already is kept as it is.
    ///
    /// # Errors
    /// When its files cannot be read or written, are damaged, or only one of them is there.
    pub fn load_or_create(data_dir: &Path, name: &str, constrained: bool) -> Result<Self, CaError> {
        let (pem_file, key_file) = files(data_dir);
        match (read(&pem_file)?, read(&key_file)?) {
            (None, None) => Self::create(&pem_file, &key_file, name, constrained),
            (Some(_), None) => Err(CaError::Missing { path: key_file }),
            (None, Some(_)) => Err(CaError::Missing { path: pem_file }),
            (Some(pem), Some(key)) => {
                let authority = Self::load(&pem_file, &pem, &key_file, &key)?;
                authority.tell(constrained, SystemTime::now());
                Ok(authority)
            }
        }
    }

    /// Whether a data folder has an authority, or what is left of one.
    pub fn is_in(data_dir: &Path) -> bool {
        let (pem_file, key_file) = files(data_dir);
        pem_file.exists() || key_file.exists()
    }

    /// Deletes the authority of a data folder; the next start makes a new one, which every phone has to trust anew.
    ///
    /// # Errors
    /// When a file is there and cannot be deleted.
    pub fn reset(data_dir: &Path) -> io::Result<()> {
        let (pem_file, key_file) = files(data_dir);
        for file in [pem_file, key_file] {
            match std::fs::remove_file(file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Its certificate in PEM: that alone, even where more stands in the file.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Its certificate in DER.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// What it is called in a phone's list of certificates.
    pub fn common_name(&self) -> &str {
        &self.common_name
    }

    /// By which it is told from others.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Its end.
    pub fn until(&self) -> SystemTime {
        self.until
    }

    /// Whether a certificate for this address would be accepted below it.
    pub fn permits(&self, ip: IpAddr) -> bool {
        self.constraints.as_ref().is_none_or(|constraints| constraints.permit(ip))
    }

    /// What it binds itself to; `None` where it does not.
    pub(super) fn constraints(&self) -> Option<&Constraints> {
        self.constraints.as_ref()
    }

    /// Makes a key and a certificate for it, good for `subject` for `life` from now on, but no longer than the authority itself.
    pub(super) fn issue(&self, subject: &Subject, life: Duration, now: SystemTime) -> Result<Issued, CaError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let begin = plausible(now);
        let until = (begin + life).min(self.until);
        let mut params = CertificateParams::default();
        params.serial_number = Some(serial());
        params.not_before = date((begin - LEAF_BACKDATED).min(until));
        params.not_after = date(until);
        // Not a host name: those stand in the SAN only, where no reader checks the subject against the constraints.
        params.distinguished_name = distinguished("Balcony");
        params.subject_alt_names = sans(subject)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let leaf = params.signed_by(&key, &self.issuer)?;
        let private = aws_lc_rs::sign::any_supported_type(&PrivateKeyDer::Pkcs8(key.serialize_der().into()))?;
        let chain = vec![leaf.into(), self.der.clone()];
        Ok(Issued { certified: Arc::new(CertifiedKey::new(chain, private)), until })
    }

    fn create(pem_file: &Path, key_file: &Path, name: &str, constrained: bool) -> Result<Self, CaError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let now = plausible(SystemTime::now());
        let certificate = authority_params(name, constrained, &key, now).self_signed(&key)?;
        let (pem, private) = (armoured(certificate.der()), key.serialize_pem());
        write(key_file, private.as_bytes())?;
        // A key without its certificate would stand in the way of the next start.
        write(pem_file, pem.as_bytes()).inspect_err(|_| drop(std::fs::remove_file(key_file)))?;
        // Read back what was written: from the first start on, the files are what counts.
        Self::load(pem_file, &pem, key_file, &private)
    }

    fn load(pem_file: &Path, pem: &str, key_file: &Path, key: &str) -> Result<Self, CaError> {
        let damaged = |path: &Path, why: String| CaError::Damaged { path: path.to_owned(), why };
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| damaged(pem_file, error.to_string()))?;
        let (_, certificate) = x509_parser::parse_x509_certificate(&der).map_err(|error| damaged(pem_file, error.to_string()))?;
        if !certificate.is_ca() {
            return Err(damaged(pem_file, "its certificate is not that of an authority".into()));
        }
        // The error of a key is not passed on: nobody has promised that it never quotes the key.
        let key = KeyPair::from_pem(key).map_err(|_| damaged(key_file, "it holds no private key that can be read".into()))?;
        let spki = certificate.public_key().raw;
        if key.subject_public_key_info() != spki {
            return Err(CaError::WrongKey { path: key_file.to_owned() });
        }
        let constraints = constraints_of(&certificate).map_err(|why| damaged(pem_file, why))?;
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(|error| damaged(pem_file, error.to_string()))?;
        Ok(Self {
            issuer,
            pem: armoured(&der),
            common_name: common_name_of(&certificate),
            fingerprint: Fingerprint::of(spki),
            constraints,
            until: moment(certificate.validity().not_after.timestamp()),
            der: der.clone(),
        })
    }

    /// Says in the log what its owner should know about an authority that was there already.
    fn tell(&self, constrained: bool, now: SystemTime) {
        if constrained != self.constraints.is_some() {
            let is = if constrained { "without" } else { "with" };
            warn!(
                "The certificate authority that is here was made {is} name constraints and stays as it is, because phones trust it; \
                 `balcony-server reset-ca` would make the one that is asked for, and every phone would have to trust that anew."
            );
        }
        if self.until < now + LATE {
            warn!(
                "The certificate authority ends on {}; after that no phone accepts the server. `balcony-server reset-ca` makes a new one, \
                 which every phone has to trust anew.",
                day(self.until)
            );
        }
    }
}

/// A new certificate with its key and chain.
#[derive(Debug)]
pub(super) struct Issued {
    pub(super) certified: Arc<CertifiedKey>,
    pub(super) until: SystemTime,
}

fn files(data_dir: &Path) -> (PathBuf, PathBuf) {
    (data_dir.join("ca.pem"), data_dir.join("ca.key"))
}

fn read(path: &Path) -> Result<Option<String>, CaError> {
    let failed = |error| CaError::File { path: path.to_owned(), write: false, error };
    match std::fs::read(path) {
        // What is no UTF-8 is no PEM either, and is told as such later.
        Ok(bytes) => close_to_others(path).map(|()| Some(String::from_utf8_lossy(&bytes).into_owned())).map_err(failed),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), CaError> {
    write_private(path, bytes).map_err(|error| CaError::File { path: path.to_owned(), write: true, error })
}

fn authority_params(name: &str, constrained: bool, key: &KeyPair, now: SystemTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.serial_number = Some(serial());
    params.not_before = date(now - AUTHORITY_BACKDATED);
    params.not_after = date(now + LIFE);
    params.distinguished_name = distinguished(&common_name(name, now, Fingerprint::of(&key.subject_public_key_info())));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    // Not in RFC 5280, but what readers hold an authority to: no certificate for mail or for programs is good below it.
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.name_constraints = constrained.then(|| NameConstraints {
        permitted_subtrees: PERMITTED_NAMES
            .iter()
            .map(|name| GeneralSubtree::DnsName((*name).to_owned()))
            .chain(PERMITTED_NETWORKS.iter().map(|(ip, prefix)| GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(*ip, *prefix))))
            .collect(),
        excluded_subtrees: Vec::new(),
    });
    params
}

/// Android shows the organisation in large letters and the common name below, iOS the common name only.
fn distinguished(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "Balcony");
    name.push(DnType::CommonName, common_name);
    name
}

/// What the authority is called. The day and the beginning of the fingerprint tell it from one that a phone still knows from before.
fn common_name(name: &str, now: SystemTime, fingerprint: Fingerprint) -> String {
    let group = fingerprint.for_people().chars().take(4).collect::<String>();
    let rest = format!(" (Balcony, {} {group})", day(now));
    let start: String = name.trim_start().chars().take(LONGEST_COMMON_NAME - rest.len()).collect();
    name_of(&start).unwrap_or_else(|| "Server".to_owned()) + &rest
}

fn common_name_of(certificate: &X509Certificate<'_>) -> String {
    certificate.subject().iter_common_name().next().and_then(|name| name.as_str().ok()).unwrap_or("Balcony").to_owned()
}

/// The constraints as they stand in the certificate, which may be older than this program's idea of them.
fn constraints_of(certificate: &X509Certificate<'_>) -> Result<Option<Constraints>, String> {
    let Some(extension) = certificate.name_constraints().map_err(|error| format!("its name constraints: {error}"))? else {
        return Ok(None);
    };
    let mut found = Constraints::default();
    for subtree in extension.value.permitted_subtrees.iter().flatten() {
        match &subtree.base {
            GeneralName::DNSName(name) => found.names.push(name.to_ascii_lowercase()),
            GeneralName::IPAddress(bytes) => {
                found.networks.push(Network::read(bytes).ok_or("its name constraints hold no network where one should be")?);
            }
            _ => {}
        }
    }
    Ok(Some(found))
}

fn sans(subject: &Subject) -> Result<Vec<SanType>, rcgen::Error> {
    let names = subject.names.iter().map(|name| Ok(SanType::DnsName(name.as_str().try_into()?)));
    names.chain(subject.addresses.iter().map(|ip| Ok(SanType::IpAddress(*ip)))).collect()
}

/// 144 random bits: nobody meets or guesses one (RFC 5280 §4.1.2.2 allows 160).
fn serial() -> SerialNumber {
    SerialNumber::from_slice(&random::<18>())
}

/// PEM (RFC 7468) of a certificate.
fn armoured(der: &[u8]) -> String {
    let base64 = BASE64.encode(der);
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in base64.as_bytes().chunks(64) {
        text.extend(line.iter().map(|letter| char::from(*letter)));
        text.push('\n');
    }
    text + "-----END CERTIFICATE-----\n"
}

fn plausible(now: SystemTime) -> SystemTime {
    now.max(UNIX_EPOCH + NO_EARLIER)
}

fn date(at: SystemTime) -> OffsetDateTime {
    OffsetDateTime::from(at)
}

/// The moment of so many seconds since 1970.
pub(super) fn moment(seconds: i64) -> SystemTime {
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let moment = if seconds < 0 { UNIX_EPOCH.checked_sub(distance) } else { UNIX_EPOCH.checked_add(distance) };
    moment.unwrap_or(UNIX_EPOCH)
}

/// The day in UTC, as in 2026-11-23.
pub(super) fn day(at: SystemTime) -> String {
    jiff::Timestamp::try_from(at).map_or_else(|_| "an unknown day".to_owned(), |at| at.strftime("%Y-%m-%d").to_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::proptest;
    use proptest::prop_assert;
    use x509_parser::extensions::ParsedExtension;

    use super::*;
    use crate::trust::names::{Names, subject};

    fn authority(constrained: bool) -> (tempfile::TempDir, Authority) {
        let folder = tempfile::tempdir().expect("folder");
        let authority = Authority::load_or_create(folder.path(), "Anna’s Studio", constrained).expect("made");
        (folder, authority)
    }

    fn error_of(folder: &Path) -> String {
        Authority::load_or_create(folder, "other", true).expect_err("refused").to_string()
    }

    #[test]
    fn an_authority_is_made_once() {
        let (folder, first) = authority(true);
        let second = Authority::load_or_create(folder.path(), "another name", true).expect("read");
        assert_eq!((first.pem(), first.der(), first.fingerprint()), (second.pem(), second.der(), second.fingerprint()));
        assert_eq!(first.common_name(), second.common_name());
        assert!(first.common_name().starts_with("Anna’s Studio (Balcony, 20"), "{}", first.common_name());
        Authority::reset(folder.path()).expect("given up");
        Authority::reset(folder.path()).expect("nothing left to give up");
        let third = Authority::load_or_create(folder.path(), "Anna’s Studio", true).expect("made");
        assert_ne!((third.fingerprint(), third.common_name()), (first.fingerprint(), first.common_name()));
    }

    #[cfg(unix)]
    #[test]
    fn its_files_are_closed_to_others() {
        use std::os::unix::fs::PermissionsExt;
        let (folder, _) = authority(true);
        let mode = |name: &str| std::fs::metadata(folder.path().join(name)).expect("there").permissions().mode() & 0o777;
        assert_eq!([mode("ca.pem"), mode("ca.key")], [0o600; 2]);
        std::fs::set_permissions(folder.path().join("ca.key"), std::fs::Permissions::from_mode(0o644)).expect("opened");
        Authority::load_or_create(folder.path(), "", true).expect("read");
        assert_eq!(mode("ca.key"), 0o600);
    }

    #[test]
    fn the_certificate_says_what_it_may() {
        let (_folder, authority) = authority(true);
        let (_, read) = x509_parser::parse_x509_certificate(authority.der()).expect("read");
        let basic = read.basic_constraints().expect("one").expect("there");
        assert!(basic.critical && basic.value.ca && basic.value.path_len_constraint == Some(0));
        let usage = read.key_usage().expect("one").expect("there");
        assert!(usage.critical && usage.value.flags == (1 << 5 | 1 << 6), "{:b}", usage.value.flags);
        let extended = read.extended_key_usage().expect("one").expect("there");
        assert!(extended.value.server_auth && !extended.value.any && !extended.value.email_protection && !extended.value.code_signing);
        let constraints = read.name_constraints().expect("one").expect("there");
        assert!(constraints.critical && constraints.value.excluded_subtrees.is_none());
        assert_eq!(constraints.value.permitted_subtrees.as_ref().map(Vec::len), Some(11));
        let years = (read.validity().not_after.timestamp() - read.validity().not_before.timestamp()) / (365 * 24 * 3600);
        assert_eq!(years, 10);
        assert!(read.validity().is_valid());
        for (ip, permitted) in [("192.168.0.9", true), ("100.64.1.1", true), ("8.8.8.8", false), ("fd00::1", true), ("2001:db8::1", false)]
        {
            assert_eq!(authority.permits(ip.parse().expect("an address")), permitted, "{ip}");
        }
    }

    #[test]
    fn without_constraints_all_is_permitted() {
        let (folder, free) = authority(false);
        let (_, read) = x509_parser::parse_x509_certificate(free.der()).expect("read");
        assert!(read.name_constraints().expect("one or none").is_none());
        assert!(free.permits("8.8.8.8".parse().expect("an address")));
        // The switch does not change what phones trust already.
        let again = Authority::load_or_create(folder.path(), "", true).expect("read");
        assert!(again.constraints().is_none() && again.der() == free.der());
    }

    #[test]
    fn a_leaf_is_one_that_phones_accept() {
        let (_folder, authority) = authority(true);
        let names = Names { labels: vec!["anna".into()], addresses: vec!["192.168.1.7".parse().expect("an address")] };
        let now = SystemTime::now();
        let issued = authority.issue(&subject(&names, authority.constraints()), 90 * DAY, now).expect("issued");
        let [leaf, last] = issued.certified.cert.as_slice() else { panic!("leaf and authority") };
        assert_eq!(last.as_ref(), authority.der());
        issued.certified.keys_match().expect("the key fits");
        let (_, ca) = x509_parser::parse_x509_certificate(authority.der()).expect("read");
        let (_, leaf) = x509_parser::parse_x509_certificate(leaf).expect("read");
        assert_eq!(leaf.issuer().as_raw(), ca.subject().as_raw());
        let days = (leaf.validity().not_after.timestamp() - leaf.validity().not_before.timestamp()) / (24 * 3600);
        assert_eq!(days, 90);
        let began = now.duration_since(moment(leaf.validity().not_before.timestamp())).expect("before now");
        assert!((3600..3602).contains(&began.as_secs()), "{began:?}");
        assert!(
            leaf.raw_serial().len() >= 17 && leaf.raw_serial().len() <= 20 && leaf.raw_serial()[0] < 0x80,
            "{}",
            leaf.raw_serial_as_string()
        );
        assert!(!leaf.is_ca() && leaf.key_usage().expect("one").expect("there").value.flags == 1);
        let usage = leaf.extended_key_usage().expect("one").expect("there").value;
        assert!(usage.server_auth && !usage.any && !usage.client_auth && !usage.code_signing);
        let identifier = |read: &X509Certificate<'_>, own: bool| {
            read.iter_extensions().find_map(|extension| match extension.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(key) if own => Some(key.0.to_vec()),
                ParsedExtension::AuthorityKeyIdentifier(authority) if !own => authority.key_identifier.as_ref().map(|key| key.0.to_vec()),
                _ => None,
            })
        };
        assert!(identifier(&ca, true).is_some() && identifier(&leaf, false) == identifier(&ca, true) && identifier(&leaf, true).is_some());
        let sans = leaf.subject_alternative_name().expect("one").expect("there").value.general_names.len();
        assert_eq!(sans, 2 + 3);
    }

    #[test]
    fn a_leaf_ends_no_later_than_its_authority_and_begins_no_earlier_than_balcony() {
        let (_folder, authority) = authority(true);
        let wanted = subject(&Names::default(), authority.constraints());
        let late = authority.issue(&wanted, 90 * DAY, authority.until - DAY).expect("issued");
        assert_eq!(late.until, authority.until);
        let over = authority.issue(&wanted, 90 * DAY, authority.until + DAY).expect("issued");
        assert_eq!(over.until, authority.until);
        let early = authority.issue(&wanted, 90 * DAY, UNIX_EPOCH).expect("issued");
        assert_eq!(day(early.until), "2026-04-01");
    }

    #[test]
    fn damage_is_said_and_never_repaired_by_a_new_authority() {
        let (folder, _) = authority(true);
        let (pem, key) = files(folder.path());
        let (good_pem, good_key) = (std::fs::read(&pem).expect("read"), std::fs::read(&key).expect("read"));
        let (_other, other) = authority(true);
        let leaf = other.issue(&subject(&Names::default(), None), DAY, SystemTime::now()).expect("issued");
        let half = &good_pem[..good_pem.len() / 2];
        for (file, bytes, said) in [
            (&pem, b"rubbish".as_slice(), "ca.pem is damaged"),
            (&pem, b"", "ca.pem is damaged"),
            (&pem, half, "ca.pem is damaged"),
            (&pem, b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "ca.pem is damaged"),
            (&pem, &[0xff, 0xfe, 0], "ca.pem is damaged"),
            (&pem, armoured(&leaf.certified.cert[0]).as_bytes(), "not that of an authority"),
            (&pem, other.pem().as_bytes(), "ca.key is not the key"),
            (&key, b"rubbish", "ca.key is damaged"),
            (&key, b"", "ca.key is damaged"),
        ] {
            std::fs::write(&pem, &good_pem).expect("written");
            std::fs::write(&key, &good_key).expect("written");
            Authority::load_or_create(folder.path(), "", true).expect("still good");
            std::fs::write(file, bytes).expect("written");
            let error = error_of(folder.path());
            assert!(error.contains(said) && error.contains("reset-ca"), "{said}: {error}");
            assert_eq!(std::fs::read(file).expect("read"), bytes, "left as it was");
        }
        std::fs::write(&key, &good_key).expect("written");
        std::fs::remove_file(&pem).expect("gone");
        assert!(error_of(folder.path()).contains("ca.pem is missing"));
        std::fs::write(&pem, &good_pem).expect("written");
        std::fs::remove_file(&key).expect("gone");
        assert!(error_of(folder.path()).contains("ca.key is missing"));
    }

    #[test]
    fn only_the_certificate_is_given_away() {
        let (folder, authority) = authority(true);
        let (pem, key) = files(folder.path());
        let private = std::fs::read_to_string(&key).expect("read");
        // Somebody keeps both in one file.
        std::fs::write(&pem, format!("{private}{}", authority.pem())).expect("written");
        let again = Authority::load_or_create(folder.path(), "", true).expect("read");
        assert_eq!(again.pem(), authority.pem());
        assert!(!again.pem().contains("PRIVATE") && !format!("{again:?}").contains("PRIVATE"));
    }

    #[test]
    fn a_fingerprint_reads_the_same_for_phones_and_people() {
        let fingerprint = Fingerprint::of(b"abc");
        assert_eq!(fingerprint.short(), "ungWv48Bz-pBQUDeXa4iIw");
        assert_eq!(fingerprint.for_people(), "BA78 16BF 8F01 CFEA 4141 40DE 5DAE 2223");
    }

    proptest! {
        #[test]
        fn a_common_name_fits_and_shows_all_of_itself(name in "\\PC{0,80}|.{0,80}") {
            let text = common_name(&name, SystemTime::now(), Fingerprint::of(b"abc"));
            prop_assert!(text.chars().count() <= LONGEST_COMMON_NAME, "{text}");
            prop_assert!(text.ends_with(" BA78)") && !text.starts_with(' ') && name_of(&text[..text.len() - 27]).is_some(), "{text}");
        }

        #[test]
        fn every_moment_has_a_day(seconds in proptest::num::i64::ANY) {
            prop_assert!(!day(moment(seconds)).is_empty());
        }
    }
}
