//! The page that leads a phone to trust, and the certificate in the forms in which phones take it. The other pages are the web
//! interface's ([`interface`](super::interface)).
//!
//! The page is one answer: its style and script stand in it, and its policy names them by their hashes, so that nothing else runs
//! and nothing else is fetched. What differs between two answers (names, addresses, the fingerprint) stands in text and attributes.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::LazyLock;

use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use axum::{Extension, Router};
use data_encoding::BASE64;
use http::{HeaderMap, HeaderValue, header};
use sha2::{Digest, Sha256};

use super::Authority;
use super::host::{self, HostName};
use super::problem::Problem;
use crate::app::App;
use crate::lan::{host_label, machine_name};
use crate::trust::{Authority as CertificateAuthority, Fingerprint};

const STYLE: &str = concat!(
    include_str!("../../../../ui/src/styles/tokens.css"),
    include_str!("../../pages/components.css"),
    include_str!("../../pages/phone.css")
);
const MARK: &str = include_str!("../../pages/mark.svg");
const ARROW: &str = include_str!("../../pages/download.svg");

const TRUST_SCRIPT: &str = include_str!("../../pages/trust.js");
/// The page in its languages, the first for all who speak none of them.
static TRUST: LazyLock<[(&str, Page); 2]> = LazyLock::new(|| {
    [("en", include_str!("../../pages/trust.en.txt")), ("de", include_str!("../../pages/trust.de.txt"))].map(|(language, catalogue)| {
        (language, Page::new(include_str!("../../pages/trust.html"), TRUST_SCRIPT, &Catalogue::read(catalogue)))
    })
});
/// The small sign of the tab. As data, so that no request asks for it.
static ICON: LazyLock<String> = LazyLock::new(|| format!("data:image/svg+xml;base64,{}", BASE64.encode(MARK.trim().as_bytes())));

/// The routes of this file. Not in the API document: they are for people.
pub fn routes() -> Router<App> {
    Router::new()
        .route("/p", get(trust))
        .route("/ca.crt", get(certificate_der))
        .route("/ca.pem", get(certificate_pem))
        .route("/ca.mobileconfig", get(certificate_profile))
}

/// How a phone comes to trust this server. With a certificate that somebody else vouches for there is nothing to do: a redirect, behind
/// which browsers put the fragment again (RFC 9110 §10.2.2).
async fn trust(State(app): State<App>, Extension(came_by): Extension<Authority>, headers: HeaderMap) -> Response {
    // By the server's own name it is announced to the house; by the machine's, the system does that.
    let ours = [Some(app.health.name().to_string()), machine_name()];
    let ours: Vec<String> = ours.into_iter().flatten().map(|name| format!("{}.local", host_label(&name))).collect();
    let https = https_origin(&came_by.0, &app.tls.hosts(), &ours, app.ports.https);
    let Some(authority) = app.tls.authority() else {
        return Redirect::temporary(&format!("{https}/pair")).into_response();
    };
    let agent = headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
    let facts = Facts {
        name: &app.health.name(),
        https: &https,
        fingerprint: authority.fingerprint(),
        authority: authority.common_name(),
        stays_in_the_house: !authority.permits(IpAddr::from([8, 8, 8, 8])),
        kind: Kind::of(agent),
    };
    let languages = headers.get(header::ACCEPT_LANGUAGE).and_then(|languages| languages.to_str().ok()).unwrap_or_default();
    trust_page(&facts, languages)
}

async fn certificate_der(State(app): State<App>) -> Result<Response, Problem> {
    let authority = own_authority(&app)?;
    // By this name Android's settings show it.
    let named = format!("attachment; filename=\"{}.crt\"", file_name(&app.health.name()));
    Ok(([(header::CONTENT_TYPE, "application/x-x509-ca-cert"), (header::CONTENT_DISPOSITION, named.as_str())], authority.der().to_vec())
        .into_response())
}

async fn certificate_pem(State(app): State<App>) -> Result<Response, Problem> {
    let authority = own_authority(&app)?;
    let named = format!("attachment; filename=\"{}.pem\"", file_name(&app.health.name()));
    let headers = [(header::CONTENT_TYPE, "application/x-pem-file"), (header::CONTENT_DISPOSITION, named.as_str())];
    Ok((headers, authority.pem().to_owned()).into_response())
}

/// Without a file name: as an attachment, iOS would put it into the files instead of the settings.
async fn certificate_profile(State(app): State<App>) -> Result<Response, Problem> {
    let authority = own_authority(&app)?;
    let profile = profile(&app.health.name(), authority.common_name(), &authority.fingerprint().short(), authority.der());
    Ok(([(header::CONTENT_TYPE, "application/x-apple-aspen-config")], profile).into_response())
}

fn own_authority(app: &App) -> Result<&CertificateAuthority, Problem> {
    app.tls.authority().ok_or_else(Problem::not_found)
}

fn file_name(server: &str) -> String {
    format!("balcony-{}", host_label(server))
}

// ---- pages -------------------------------------------------------------------------------------------------------

/// The words of a page in one language: lines of `key = text`, the text with its markup.
struct Catalogue(Vec<(&'static str, &'static str)>);

impl Catalogue {
    fn read(text: &'static str) -> Self {
        Self(text.lines().filter_map(|line| line.split_once(" = ")).collect())
    }

    fn word(&self, key: &str) -> &'static str {
        self.0.iter().find(|(name, _)| *name == key).map(|(_, word)| *word).unwrap_or_default()
    }

    /// What the script says, as JSON.
    fn of_script(&self) -> String {
        let words = self.0.iter().filter_map(|(key, word)| Some((key.strip_prefix("script.")?.to_owned(), serde_json::json!(word))));
        serde_json::Value::Object(words.collect()).to_string()
    }
}

/// A page in one language, and the part of its policy that is always the same.
struct Page {
    html: String,
    script: &'static str,
    /// The script's words.
    words: String,
    /// What is said besides where the certificate binds itself to the addresses of a house.
    reach: &'static str,
    policy: String,
}

impl Page {
    fn new(html: &str, script: &'static str, catalogue: &Catalogue) -> Self {
        let hash = |text: &str| BASE64.encode(&Sha256::digest(text));
        let policy = format!(
            "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            hash(script),
            hash(STYLE)
        );
        // What belongs to no language is filled when somebody asks.
        let html = fill(html, |key| match key.strip_prefix("t.") {
            Some(key) => catalogue.word(key).into(),
            None => format!("{{{{{key}}}}}").into(),
        });
        Self { html, script, words: catalogue.of_script(), reach: catalogue.word("reach"), policy }
    }

    /// The page with these words in it, and a policy with these further directives (CSP Level 3).
    fn answer(&self, directives: &str, words: &[(&str, &str)]) -> Response {
        let policy = format!("{}; {directives}", self.policy);
        // All parts come from names and addresses that went through a header or a label already.
        let Ok(policy) = HeaderValue::from_str(&policy) else {
            return Problem::internal(format!("a policy that is no header: {policy}")).into_response();
        };
        let headers =
            [(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")), (header::CONTENT_SECURITY_POLICY, policy)];
        (headers, self.filled(words)).into_response()
    }

    fn filled(&self, words: &[(&str, &str)]) -> String {
        fill(&self.html, |key| match key {
            "words" => escaped(&self.words).into(),
            "style" => STYLE.into(),
            "script" => self.script.into(),
            "mark" => MARK.trim().into(),
            "arrow" => ARROW.trim().into(),
            "icon" => ICON.as_str().into(),
            _ => words.iter().find(|(name, _)| *name == key).map(|(_, word)| escaped(word).into()).unwrap_or_default(),
        })
    }
}

/// Puts values in place of `{{key}}`. One pass, so that a value is never read as a template.
fn fill<'a>(template: &'a str, value: impl Fn(&str) -> Cow<'a, str>) -> String {
    let mut parts = template.split("{{");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (key, rest) = part.split_once("}}").unwrap_or(("", part));
        text.push_str(&value(key));
        text.push_str(rest);
    }
    text
}

/// Text for HTML and XML, for elements and for attributes in quotes.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            // XML 1.0 has no way to write the others (§2.2).
            letter if letter.is_control() && !matches!(letter, '\t' | '\n') => {}
            letter => safe.push(letter),
        }
    }
    safe
}

// ---- the page of trust -------------------------------------------------------------------------------------------

/// What stands on the page of trust.
struct Facts<'a> {
    /// The server's name.
    name: &'a str,
    /// `https://host:port` that the certificate is good for.
    https: &'a str,
    fingerprint: Fingerprint,
    /// What the certificate is called in the phone's settings.
    authority: &'a str,
    /// Whether the certificate binds itself to the addresses of a house.
    stays_in_the_house: bool,
    kind: Kind,
}

/// Whose steps are shown first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ios,
    Android,
    Computer,
}

impl Kind {
    fn of(agent: &str) -> Self {
        match () {
            () if ["iPhone", "iPad", "iPod"].iter().any(|word| agent.contains(word)) => Self::Ios,
            () if agent.contains("Android") => Self::Android,
            () => Self::Computer,
        }
    }
}

/// The first of the languages that a browser asks for (RFC 9110 section 12.5.4) in which the page is there. Browsers name the one that is
/// liked best first.
fn in_language(asked: &str) -> &'static Page {
    let tags = asked.split(',').map(|range| range.split([';', '-']).next().unwrap_or_default().trim());
    let found = tags.filter_map(|tag| TRUST.iter().find(|(language, _)| tag.eq_ignore_ascii_case(language))).next();
    &found.unwrap_or(&TRUST[0]).1
}

fn trust_page(facts: &Facts<'_>, languages: &str) -> Response {
    let page = in_language(languages);
    let reach = if facts.stays_in_the_house { format!(" {}", page.reach) } else { String::new() };
    let checked = |kind| if facts.kind == kind { " checked" } else { "" };
    let (short, groups, file) = (facts.fingerprint.short(), facts.fingerprint.for_people(), file_name(facts.name));
    let words = [
        ("name", facts.name),
        ("https", facts.https),
        ("fingerprint", &short),
        ("groups", &groups),
        ("ca", facts.authority),
        ("file", &file),
        ("reach", &reach),
        ("ios", checked(Kind::Ios)),
        ("android", checked(Kind::Android)),
        ("computer", checked(Kind::Computer)),
    ];
    let mut response = page.answer(&format!("connect-src 'self' {}", source(facts.https)), &words);
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept-language"));
    response
}

/// An origin as a source of a policy. The grammar has no IPv6 address (CSP Level 3 §2.3.1): then any host on this port.
fn source(origin: &str) -> Cow<'_, str> {
    match origin.rsplit_once("]:") {
        Some((_, port)) => format!("https://*:{port}").into(),
        None => origin.into(),
    }
}

/// Where HTTPS is reached without a warning by somebody who came by this authority (`host[:port]`): by the same host if the certificate
/// covers it, else by the best name that it covers; `ours` are those that are announced, the best first.
fn https_origin(came_by: &str, covered: &[String], ours: &[String], port: u16) -> String {
    let host = host::split(came_by).map(|(host, _)| host);
    let host = host.filter(|host| covered.iter().any(|name| host.is(name))).or_else(|| best_name(covered, ours));
    let host = host.unwrap_or_else(|| HostName::Name("localhost".to_owned()));
    format!("https://{host}:{port}")
}

/// The name by which others reach this server: one that is announced, then another of the house. A certificate names others too, such as
/// the one that the server would take if its own were taken.
fn best_name(covered: &[String], ours: &[String]) -> Option<HostName> {
    let announced = ours.iter().find(|own| covered.iter().any(|name| name.eq_ignore_ascii_case(own)));
    let others = || covered.iter().filter(|name| !name.contains('*') && *name != "localhost");
    let is_address = |name: &&String| name.parse::<IpAddr>().is_ok();
    let address = |name: &String| name.parse().ok().filter(|address: &IpAddr| !address.is_loopback());
    let name = announced.or_else(|| others().find(|name| name.ends_with(".local"))).or_else(|| others().find(|name| !is_address(name)));
    name.map(|name| HostName::Name(name.to_ascii_lowercase())).or_else(|| others().find_map(address).map(HostName::Address))
}

// ---- the profile for iOS -----------------------------------------------------------------------------------------

/// A configuration profile with one root certificate (Apple's Configuration Profile Reference, `com.apple.security.root`). The same
/// certificate gives the same profile, so that installing it again replaces it.
fn profile(server: &str, authority: &str, fingerprint: &str, der: &[u8]) -> String {
    let words = [
        ("server", server.to_owned()),
        ("authority", authority.to_owned()),
        ("file", file_name(server)),
        // A payload's name in Apple's own form: letters, digits, dots and hyphens.
        ("id", data_encoding::HEXLOWER.encode(&Sha256::digest(fingerprint)[..8])),
        ("profile_uuid", uuid("profile", fingerprint)),
        ("certificate_uuid", uuid("certificate", fingerprint)),
        ("der", BASE64.encode(der)),
    ];
    let word = |key: &str| words.iter().find(|(name, _)| *name == key).map(|(_, word)| escaped(word).into()).unwrap_or_default();
    fill(include_str!("../../pages/profile.plist"), word)
}

/// A UUID that follows from what it is for (RFC 9562 §5.8, version 8).
fn uuid(purpose: &str, fingerprint: &str) -> String {
    let hash = Sha256::digest(format!("balcony {purpose} {fingerprint}"));
    let mut bytes = [0_u8; 16];
    bytes.copy_from_slice(&hash[..16]);
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = data_encoding::HEXUPPER.encode(&bytes);
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[cfg(test)]
mod tests {
    use super::*;

    const IPHONE: &str = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 Mobile/15E148 Safari/604.1";
    const PIXEL: &str =
        "Mozilla/5.0 (Linux; Android 15; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Mobile Safari/537.36";

    fn facts(name: &str) -> Facts<'_> {
        Facts {
            name,
            https: "https://192.168.1.20:3443",
            fingerprint: Fingerprint::of(b"a key"),
            authority: "Studio (Balcony)",
            stays_in_the_house: true,
            kind: Kind::of(IPHONE),
        }
    }

    async fn text(response: Response) -> (HeaderMap, String) {
        let headers = response.headers().clone();
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.expect("a body");
        (headers, String::from_utf8(bytes.to_vec()).expect("text"))
    }

    fn between<'a>(text: &'a str, from: &str, to: &str) -> &'a str {
        text.split_once(from).and_then(|(_, rest)| rest.split_once(to)).map(|(inner, _)| inner).expect("both marks")
    }

    #[tokio::test]
    async fn the_policy_admits_exactly_the_style_and_the_script_that_stand_in_the_page() {
        for (page, response) in ["en", "de"].map(|language| (language, trust_page(&facts("Studio"), language))) {
            let (headers, html) = text(response).await;
            let policy = headers[header::CONTENT_SECURITY_POLICY].to_str().expect("text");
            for (tag, directive) in [("script", "script-src"), ("style", "style-src")] {
                let inner = between(&html, &format!("<{tag}>"), &format!("</{tag}>"));
                let hash = BASE64.encode(&Sha256::digest(inner));
                assert!(policy.contains(&format!("{directive} 'sha256-{hash}';")), "{page}: {tag}");
                assert_eq!(html.matches(&format!("<{tag}")).count(), 1, "{page} has one {tag}");
            }
            assert!(!html.contains(" style=") && !html.contains(" onclick="), "{page} has nothing that its policy forbids");
            assert!(!html.contains("{{"), "{page} is filled");
            assert!(!policy.contains("unsafe"), "{policy}");
        }
    }

    #[tokio::test]
    async fn the_page_of_trust_is_small_and_needs_nothing_else() {
        let (headers, html) = text(trust_page(&facts("Studio"), "")).await;
        assert!(html.len() < 40_000, "{} bytes", html.len());
        for outside in ["src=", "@import", "url(http", "//"] {
            let markup = html.replace("https://192.168.1.20:3443", "").replace(between(&html, "<script>", "</script>"), "");
            let markup = markup.replace("http://www.w3.org/2000/svg", "");
            assert!(!markup.contains(outside), "{outside}");
        }
        assert!(
            headers[header::CONTENT_SECURITY_POLICY].to_str().expect("text").ends_with("; connect-src 'self' https://192.168.1.20:3443")
        );
        assert!(html.contains(&Fingerprint::of(b"a key").for_people()));
        assert!(html.contains("id=\"k-ios\" checked") && !html.contains("id=\"k-android\" checked"));
    }

    #[tokio::test]
    async fn names_are_text_wherever_they_stand() {
        let (_, html) = text(trust_page(&facts("<script>\"'&{{script}}"), "")).await;
        assert_eq!(html.matches("<script>").count(), 1);
        assert!(html.contains("&lt;script&gt;&quot;&#39;&amp;{{script}}"));
    }

    #[tokio::test]
    async fn the_page_speaks_the_language_of_the_phone() {
        for (asked, language) in [
            ("", "en"),
            ("de", "de"),
            ("de-AT,de;q=0.9,en;q=0.8", "de"),
            ("fr-FR, DE;q=0.5", "de"),
            ("en-GB,de;q=0.9", "en"),
            ("fr", "en"),
            ("*", "en"),
        ] {
            let (headers, html) = text(trust_page(&facts("Studio"), asked)).await;
            assert!(html.contains(&format!("<html lang=\"{language}\"")), "{asked}");
            assert_eq!(headers[header::VARY], "accept-language");
        }
    }

    #[test]
    fn the_page_has_all_its_words_in_all_its_languages() {
        let catalogues = [include_str!("../../pages/trust.en.txt"), include_str!("../../pages/trust.de.txt")].map(Catalogue::read);
        let keys = |catalogue: &Catalogue| catalogue.0.iter().map(|(key, _)| *key).collect::<Vec<_>>();
        assert_eq!(keys(&catalogues[0]), keys(&catalogues[1]));
        assert!(catalogues.iter().all(|catalogue| catalogue.0.iter().all(|(_, word)| !word.trim().is_empty())));
        let in_page = include_str!("../../pages/trust.html").split("{{t.").skip(1).filter_map(|rest| rest.split_once("}}"));
        let in_script = TRUST_SCRIPT.split("words.").skip(1).map(|rest| rest.split(|c: char| !c.is_ascii_lowercase() && c != '_').next());
        let used = in_page
            .map(|(key, _)| key.to_owned())
            .chain(in_script.flatten().map(|key| format!("script.{key}")))
            .chain(["reach".to_owned()]);
        let used: std::collections::BTreeSet<_> = used.collect();
        assert_eq!(used, keys(&catalogues[0]).into_iter().map(str::to_owned).collect());
    }

    #[test]
    fn the_kind_of_phone_is_told_by_its_browser() {
        for (agent, kind) in [
            (IPHONE, Kind::Ios),
            (PIXEL, Kind::Android),
            ("Mozilla/5.0 (Android 15; Mobile; rv:140.0) Gecko/140.0 Firefox/140.0", Kind::Android),
            ("Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36", Kind::Computer),
            ("", Kind::Computer),
        ] {
            assert_eq!(Kind::of(agent), kind, "{agent}");
        }
    }

    #[test]
    fn https_is_reached_by_a_host_that_the_certificate_covers() {
        let own: Vec<String> = ["localhost", "127.0.0.1", "::1", "192.168.1.20", "fd00::20", "studio.local"].map(str::to_owned).into();
        let bought: Vec<String> = ["*.example.org", "films.example.org"].map(str::to_owned).into();
        let numbered: Vec<String> = ["127.0.0.1", "10.0.0.5"].map(str::to_owned).into();
        for (came_by, covered, goes_to) in [
            ("192.168.1.20:3001", &own, "https://192.168.1.20:3443"),
            ("[fd00::20]:3001", &own, "https://[fd00::20]:3443"),
            ("[::ffff:192.168.1.20]:3001", &own, "https://192.168.1.20:3443"),
            ("studio.local:3001", &own, "https://studio.local:3443"),
            ("Studio.Local.:3001", &own, "https://studio.local:3443"),
            ("192.168.1.99:3001", &own, "https://studio.local:3443"),
            ("100.64.0.7", &own, "https://studio.local:3443"),
            ("127.0.0.1:3001", &own, "https://127.0.0.1:3443"),
            ("not a host", &own, "https://studio.local:3443"),
            ("tv.example.org", &bought, "https://tv.example.org:3443"),
            ("a.b.example.org", &bought, "https://films.example.org:3443"),
            ("192.168.1.20:3001", &bought, "https://films.example.org:3443"),
            ("192.168.1.20:3001", &numbered, "https://10.0.0.5:3443"),
            ("192.168.1.20:3001", &Vec::new(), "https://localhost:3443"),
        ] {
            assert_eq!(https_origin(came_by, covered, &["studio.local".to_owned()], 3443), goes_to, "{came_by} with {covered:?}");
        }
    }

    #[test]
    fn by_name_https_is_reached_by_the_one_that_is_announced() {
        let names = |names: &[&str]| -> Vec<String> { names.iter().map(|name| (*name).to_owned()).collect() };
        // As they stand in a certificate: sorted, with the name for the case that the first one is taken.
        let covered = names(&["box.local", "den-6akegi.local", "den.local", "localhost", "127.0.0.1", "172.17.0.1"]);
        for (ours, goes_to) in [
            (names(&["den.local", "box.local"]), "den.local"),
            (names(&["gone.local", "box.local"]), "box.local"),
            (names(&["DEN.local"]), "den.local"),
            (names(&["gone.local"]), "box.local"),
            (names(&[]), "box.local"),
        ] {
            assert_eq!(https_origin("192.0.2.2:3001", &covered, &ours, 3443), format!("https://{goes_to}:3443"), "{ours:?}");
        }
    }

    #[test]
    fn a_policy_can_name_every_origin() {
        assert_eq!(source("https://192.168.1.20:3443"), "https://192.168.1.20:3443");
        assert_eq!(source("https://studio.local:3443"), "https://studio.local:3443");
        assert_eq!(source("https://[fd00::20]:3443"), "https://*:3443");
    }

    #[test]
    fn the_profile_is_the_same_for_the_same_certificate() {
        let first = profile("Anna's <Studio>", "Anna's <Studio> (Balcony)", "AAAA", b"certificate");
        assert_eq!(first, profile("Anna's <Studio>", "Anna's <Studio> (Balcony)", "AAAA", b"certificate"));
        assert_ne!(uuid("profile", "AAAA"), uuid("certificate", "AAAA"));
        assert_ne!(uuid("profile", "AAAA"), uuid("profile", "AAAB"));
        assert!(first.contains("Anna&#39;s &lt;Studio&gt;") && first.contains(&BASE64.encode(b"certificate")) && !first.contains("{{"));
        let id = uuid("profile", "AAAA");
        let form: String = id.chars().map(|letter| if letter == '-' { '-' } else { 'x' }).collect();
        assert_eq!(form, "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx");
        assert_eq!(id.as_bytes()[14], b'8');
    }
}
