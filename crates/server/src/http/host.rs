//! To which names the server answers, and to pages of which origins.
//!
//! The `Host` check is the guard against DNS rebinding: a page that makes its own name point at this machine still
//! sends that name. The origin check keeps foreign pages from using a browser's reach. Both are pure; who they are
//! asked about is decided in the door.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Uri, Version};

use super::listener::Entrance;
use super::problem::{Code, Problem};

/// Origins of our own apps: the desktop window and Capacitor's.
const APP_ORIGINS: [&str; 5] =
    ["tauri://localhost", "http://tauri.localhost", "https://localhost", "http://localhost", "capacitor://localhost"];

/// A host as it stands in an address: a name in lower case, or an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostName {
    /// An IP address; IPv4 addresses in IPv6 clothes are IPv4.
    Address(IpAddr),
    /// A name, in lower case, without the final dot.
    Name(String),
}

impl HostName {
    /// Whether this is what `text` says: an address, a name, or `*.` and what any one label may stand before (RFC 6125 section 6.4.3).
    pub fn is(&self, text: &str) -> bool {
        match self {
            Self::Address(address) => text.parse::<IpAddr>().is_ok_and(|text| text.to_canonical() == *address),
            Self::Name(name) => match text.strip_prefix("*.") {
                Some(above) => name.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest.eq_ignore_ascii_case(above)),
                None => name.eq_ignore_ascii_case(text.strip_suffix('.').unwrap_or(text)),
            },
        }
    }
}

impl fmt::Display for HostName {
    /// As it stands in an address: IPv6 in brackets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Self::Address(IpAddr::V4(address)) => address.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// Says of a host whether it is ours, as of now.
type Known = Arc<dyn Fn(&HostName) -> bool + Send + Sync>;

/// The names of this server. Cheap to clone.
#[derive(Clone, Default)]
pub struct Hosts {
    names: Vec<String>,
    origins: Vec<String>,
    /// What changes while the server runs: addresses, its own name, the names of its certificate.
    more: Vec<Known>,
}

impl fmt::Debug for Hosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hosts").field("names", &self.names).field("origins", &self.origins).finish_non_exhaustive()
    }
}

impl Hosts {
    /// `localhost`, the machine's own name with `.local`, and what was configured. Addresses need no list: the one
    /// through which the client came in is ours.
    pub fn new(machine: Option<&str>, configured: &[String], cors_origins: &[String]) -> Self {
        let machine = machine.and_then(|name| name.split('.').next()).filter(|name| !name.is_empty());
        let own = machine.map(|name| format!("{}.local", name.to_ascii_lowercase()));
        let names = std::iter::once("localhost".to_owned()).chain(own);
        let names = names.chain(configured.iter().map(|name| name.to_ascii_lowercase())).collect();
        let origins = APP_ORIGINS.iter().map(|origin| (*origin).to_owned()).chain(cors_origins.iter().cloned()).collect();
        Self { names, origins, more: Vec::new() }
    }

    /// The same, and what `is_ours` knows: it is asked of each host that is no name of the list and not the address by
    /// which the client came in.
    #[must_use]
    pub fn also(mut self, is_ours: impl Fn(&HostName) -> bool + Send + Sync + 'static) -> Self {
        self.more.push(Arc::new(is_ours));
        self
    }

    fn has(&self, host: &HostName, local: IpAddr) -> bool {
        let came_by = matches!(host, HostName::Address(address) if address.is_loopback() || *address == local.to_canonical());
        came_by || self.names.iter().any(|name| host.is(name)) || self.more.iter().any(|is_ours| is_ours(host))
    }

    /// Checks the host of a request: exactly one, and ours. `local` is the address through which the client came in.
    /// Answers the authority (`host[:port]`) by which the client knows this server.
    ///
    /// # Errors
    /// `wrong_host` 421.
    pub fn check(&self, version: Version, uri: &Uri, headers: &HeaderMap, local: IpAddr) -> Result<String, Problem> {
        let wrong = |why: &str| Problem::new(Code::WrongHost, why);
        let mut shown = headers.get_all(header::HOST).iter();
        let header = shown.next().map(|value| value.to_str().unwrap_or_default());
        if shown.next().is_some() {
            return Err(wrong("There is more than one Host header."));
        }
        if header.is_none() && version < Version::HTTP_2 {
            return Err(wrong("There is no Host header."));
        }
        // HTTP/2 has :authority, which stands in the URI, as does the absolute form of HTTP/1.
        let all: Vec<&str> = uri.authority().map(|authority| authority.as_str()).into_iter().chain(header).collect();
        let Some(first) = all.first() else { return Err(wrong("The request names no host.")) };
        let hosts: Option<Vec<_>> = all.iter().map(|text| split(text)).collect();
        let hosts = hosts.filter(|hosts| hosts.iter().all(|(host, _)| self.has(host, local)));
        let Some(hosts) = hosts else { return Err(wrong("This server does not answer to the host name of the request.")) };
        if hosts.iter().any(|host| Some(host) != hosts.first()) {
            return Err(wrong("The request names two hosts."));
        }
        Ok((*first).to_ascii_lowercase())
    }

    /// Whether a page of this origin may use the API. `authority` is by what the client knows this server, `ports` are
    /// the ports that are ours.
    pub fn may_use_api(&self, origin: &str, authority: &str, ports: &[u16], local: IpAddr) -> bool {
        let origin = origin.to_ascii_lowercase();
        if self.origins.contains(&origin) {
            return true;
        }
        let Some((scheme, rest)) = origin.split_once("://") else { return false };
        let default = match scheme {
            "http" => 80,
            "https" => 443,
            _ => return false,
        };
        let Some((host, port)) = split(rest) else { return false };
        let port = port.unwrap_or(default);
        let same = split(authority).is_some_and(|(own, own_port)| own == host && own_port.unwrap_or(default) == port);
        same || (self.has(&host, local) && ports.contains(&port))
    }
}

/// Splits `host[:port]` (RFC 3986 section 3.2, without user information).
pub fn split(authority: &str) -> Option<(HostName, Option<u16>)> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (address, rest) = rest.split_once(']')?;
            let address = address.parse::<std::net::Ipv6Addr>().ok()?;
            (HostName::Address(IpAddr::V6(address).to_canonical()), rest)
        }
        None => {
            let end = authority.find(':').unwrap_or(authority.len());
            let (host, rest) = authority.split_at(end);
            (named(host)?, rest)
        }
    };
    match port.strip_prefix(':') {
        None if port.is_empty() => Some((host, None)),
        None => None,
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => Some((host, Some(digits.parse().ok()?))),
        Some(_) => None,
    }
}

fn named(host: &str) -> Option<HostName> {
    if let Ok(address) = host.parse::<std::net::Ipv4Addr>() {
        return Some(HostName::Address(address.into()));
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    let plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
    plain.then(|| HostName::Name(name.to_ascii_lowercase()))
}

/// What part of the server a path belongs to, as far as the door is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Area {
    /// `/m/<ticket>/…`: the ticket is the key; any page may read.
    Media,
    /// Whether the server lives: for everyone, even on plain HTTP in the LAN.
    Health,
    /// The API document: for everyone.
    Document,
    /// `/api/pair`: how a device gets a token, so it has none yet; for our own pages.
    Pairing,
    /// Everything else of the API: with a token, for our own pages.
    Api,
    /// What a phone needs before it can use HTTPS: the bootstrap page and the certificate. For everyone in the LAN.
    Bootstrap,
    /// The pages of the web interface and what is unknown.
    Pages,
}

impl Area {
    /// The area of a path (without a `/t/<token>` prefix).
    pub fn of(path: &str) -> Self {
        match path {
            "/api/health" | "/healthz" | "/readyz" => Self::Health,
            "/api/openapi.json" => Self::Document,
            "/api/pair" => Self::Pairing,
            "/api" | "/metrics" => Self::Api,
            "/p" | "/ca.crt" | "/ca.pem" | "/ca.mobileconfig" => Self::Bootstrap,
            _ if path.starts_with("/api/") => Self::Api,
            _ if path.starts_with("/m/") => Self::Media,
            _ => Self::Pages,
        }
    }

    /// Whether it is made of pages and what belongs to them.
    pub fn is_pages(self) -> bool {
        matches!(self, Self::Bootstrap | Self::Pages)
    }

    fn is_for_all_origins(self) -> bool {
        matches!(self, Self::Media | Self::Health | Self::Document)
    }
}

/// What becomes of a request at an entrance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// It goes on.
    In,
    /// It is led to another path here.
    To(&'static str),
    /// It is led to the same path over HTTPS.
    ToHttps,
    /// It is refused: this is to be had over HTTPS only.
    OnlyHttps,
}

impl Way {
    /// What an entrance lets in.
    pub fn of(entrance: Entrance, area: Area, path: &str) -> Self {
        match (entrance, area) {
            (Entrance::Loopback | Entrance::Tls, _) => Self::In,
            (Entrance::PlainOnTls, _) => Self::ToHttps,
            (Entrance::Lan, Area::Health | Area::Bootstrap) => Self::In,
            (Entrance::Lan, Area::Pages) if path == "/" => Self::To("/p"),
            (Entrance::Lan, Area::Pages) => Self::ToHttps,
            // Not led on: what came with the request, a token perhaps, has been read by everyone already.
            (Entrance::Lan, Area::Media | Area::Document | Area::Pairing | Area::Api) => Self::OnlyHttps,
        }
    }
}

/// `https://host:port` for a client that knows this server by an authority that was [checked](Hosts::check).
pub fn https_base(authority: &str, port: u16) -> String {
    let host = split(authority).map_or_else(|| "localhost".to_owned(), |(host, _)| host.to_string());
    format!("https://{host}:{port}")
}

/// What the door found out about the page behind a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Page {
    /// Not a page, or one of the same origin in a request that names none.
    Unnamed,
    /// Any origin may read this.
    Any,
    /// This origin may use the API.
    Allowed(HeaderValue),
}

/// Checks where a request comes from.
///
/// # Errors
/// `forbidden` for a foreign origin anywhere but in media, health and the API document.
pub fn check_page(
    hosts: &Hosts,
    area: Area,
    method: &Method,
    headers: &HeaderMap,
    authority: &str,
    ports: &[u16],
    local: IpAddr,
) -> Result<Page, Problem> {
    if area.is_for_all_origins() {
        return Ok(Page::Any);
    }
    let foreign = || Problem::new(Code::Forbidden, "Pages of other origins may not use this server.");
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let origin = origins.next();
    if origins.next().is_some() {
        return Err(foreign());
    }
    let Some(origin) = origin else {
        return if is_included(headers) || (is_from_elsewhere(headers) && !method.is_safe()) { Err(foreign()) } else { Ok(Page::Unnamed) };
    };
    let text = origin.to_str().unwrap_or_default();
    if hosts.may_use_api(text, authority, ports, local) { Ok(Page::Allowed(origin.clone())) } else { Err(foreign()) }
}

fn fetch_metadata<'a>(headers: &'a HeaderMap, name: &'static str) -> Option<&'a [u8]> {
    headers.get(name).map(HeaderValue::as_bytes)
}

/// Whether a browser says that a page of another origin made it ask (Fetch Metadata). Another port of this machine is another origin too.
fn is_from_elsewhere(headers: &HeaderMap) -> bool {
    matches!(fetch_metadata(headers, "sec-fetch-site"), Some(b"cross-site" | b"same-site"))
}

/// Whether such a page wants to include what it asks for. Following a link is fine: it ends in a window of its own.
fn is_included(headers: &HeaderMap) -> bool {
    let link = fetch_metadata(headers, "sec-fetch-mode") == Some(b"navigate")
        && matches!(fetch_metadata(headers, "sec-fetch-dest"), None | Some(b"document"));
    is_from_elsewhere(headers) && !link
}

/// Writes what a browser has to know before it lets the page read the answer (the Fetch standard, section 3.2).
pub fn grant(page: &Page, headers: &mut HeaderMap) {
    const EXPOSED: HeaderValue = HeaderValue::from_static(
        "Accept-Ranges, Content-Length, Content-Range, ETag, Location, Retry-After, Subtitle-Complete, X-Trace-Id",
    );
    match page {
        Page::Unnamed => {}
        Page::Any => {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
            // Pages that isolate themselves (COEP) may play our media too.
            headers.insert(HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("cross-origin"));
        }
        Page::Allowed(origin) => {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        }
    }
    if !matches!(page, Page::Any) {
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
    }
}

/// Writes the answer to a preflight, beside [`grant`].
pub fn grant_preflight(area: Area, asked: &HeaderMap, headers: &mut HeaderMap) {
    let methods = match area {
        Area::Media => "GET, HEAD, OPTIONS",
        Area::Health | Area::Document | Area::Pairing | Area::Api | Area::Bootstrap | Area::Pages => {
            "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
        }
    };
    headers.insert(header::ALLOW, HeaderValue::from_static(methods));
    if !asked.contains_key(header::ORIGIN) {
        return;
    }
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(methods));
    let allowed = "Authorization, Content-Type, If-Range, If-None-Match, Last-Event-ID, Range";
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(allowed));
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    // A page from the internet may ask for something in the LAN only where both say so.
    if asked.contains_key("access-control-request-private-network") {
        let name = HeaderName::from_static("access-control-allow-private-network");
        headers.insert(name, HeaderValue::from_static("true"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{prop_assert_eq, proptest};

    const LAN: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 168, 1, 7));

    fn hosts() -> Hosts {
        Hosts::new(Some("Attic.example.org"), &["Films.example".to_owned()], &["https://app.example".to_owned()])
    }

    fn check_as(version: Version, uri: &str, shown: &[&str]) -> Result<String, u16> {
        let headers = shown.iter().map(|host| (header::HOST, HeaderValue::from_str(host).expect("header"))).collect();
        hosts().check(version, &uri.parse().expect("uri"), &headers, LAN).map_err(|problem| problem.status.as_u16())
    }

    fn check(uri: &str, shown: &[&str]) -> Result<String, u16> {
        check_as(Version::HTTP_11, uri, shown)
    }

    #[test]
    fn own_names_and_addresses_are_ours() {
        for host in [
            "localhost",
            "LOCALHOST:3001",
            "127.0.0.1:3001",
            "127.8.9.1",
            "[::1]:3001",
            "192.168.1.7:3443",
            "attic.local",
            "Attic.local.:3001",
            "films.example",
            "[::ffff:192.168.1.7]",
        ] {
            assert_eq!(check("/x", &[host]), Ok(host.to_ascii_lowercase()), "{host}");
        }
    }

    #[test]
    fn all_others_are_not() {
        for host in [
            "evil.example",
            "192.168.1.8",
            "localhost.evil.example",
            "attic",
            "attic.example.org",
            "",
            ":3001",
            "localhost:",
            "localhost:x",
            "localhost:99999",
            "user@localhost",
            "localhost/",
            "[::1",
            "[::1]x",
            "[127.0.0.1]",
            "2130706433",
            "127.1",
            "localhost localhost",
            "0.0.0.0",
            "local host",
        ] {
            // An empty port is allowed by RFC 3986 but sent by nobody.
            assert_eq!(check("/x", &[host]), Err(421), "{host:?}");
        }
    }

    #[test]
    fn exactly_one_host_counts_and_every_form_is_checked() {
        assert_eq!(check("/x", &[]), Err(421));
        assert_eq!(check("/x", &["localhost", "localhost"]), Err(421));
        assert_eq!(check("http://localhost:1/x", &["localhost:1"]), Ok("localhost:1".to_owned()));
        assert_eq!(check("http://localhost:1/x", &["LOCALHOST:1"]), Ok("localhost:1".to_owned()));
        assert_eq!(check("http://localhost:1/x", &[]), Err(421));
        assert_eq!(check("http://localhost:1/x", &["localhost:2"]), Err(421), "two hosts, though both are ours");
        assert_eq!(check("http://localhost/x", &["attic.local"]), Err(421));
        assert_eq!(check("http://evil.example/x", &["localhost"]), Err(421));
        assert_eq!(check("http://localhost/x", &["evil.example"]), Err(421));
        assert_eq!(check("http://user@localhost/x", &["localhost"]), Err(421));
    }

    #[test]
    fn in_http2_the_authority_names_the_host() {
        let check = |uri: &str, shown: &[&str]| check_as(Version::HTTP_2, uri, shown);
        assert_eq!(check("https://attic.local:3443/x", &[]), Ok("attic.local:3443".to_owned()));
        assert_eq!(check("https://attic.local:3443/x", &["attic.local:3443"]), Ok("attic.local:3443".to_owned()));
        assert_eq!(check("/x", &["attic.local:3443"]), Ok("attic.local:3443".to_owned()));
        for (uri, shown) in [
            ("https://evil.example/x", &[][..]),
            ("/x", &[]),
            ("https://attic.local/x", &["evil.example"]),
            ("https://attic.local/x", &["localhost"]),
            ("https://attic.local/x", &["attic.local", "attic.local"]),
        ] {
            assert_eq!(check(uri, shown), Err(421), "{uri} {shown:?}");
        }
    }

    #[test]
    fn what_is_ours_may_change() {
        let now = Arc::new(std::sync::Mutex::new(vec!["10.0.0.7".to_owned(), "*.house.example".to_owned()]));
        let known = now.clone();
        let hosts = hosts().also(move |host| known.lock().expect("free").iter().any(|text| host.is(text)));
        let has = |text: &str| hosts.has(&split(text).expect("a host").0, LAN);
        assert_eq!(["10.0.0.7", "a.house.example", "A.House.Example."].map(has), [true; 3]);
        assert_eq!(["10.0.0.8", "house.example", "a.b.house.example", "evil.example"].map(has), [false; 4]);
        now.lock().expect("free").clear();
        assert!(!has("10.0.0.7") && has("attic.local"));
    }

    #[test]
    fn what_an_entrance_lets_in() {
        let lan = |path: &str| Way::of(Entrance::Lan, Area::of(path), path);
        for path in ["/p", "/ca.crt", "/ca.pem", "/ca.mobileconfig", "/api/health", "/healthz", "/readyz"] {
            assert_eq!(lan(path), Way::In, "{path}");
        }
        for path in ["/api", "/api/", "/api/pair", "/api/streams", "/api/openapi.json", "/metrics", "/m/x/master.m3u8", "/api/health/"] {
            assert_eq!(lan(path), Way::OnlyHttps, "{path}");
        }
        for path in ["/pair", "/p/", "/ca.key", "/index.html", "//evil.example", "/M/x", "/API/streams", ""] {
            assert_eq!(lan(path), Way::ToHttps, "{path}");
        }
        assert_eq!(lan("/"), Way::To("/p"));
        for path in ["/", "/p", "/api/streams", "/m/x/y", "/api/health"] {
            let at = |entrance| Way::of(entrance, Area::of(path), path);
            assert_eq!([at(Entrance::Loopback), at(Entrance::Tls)], [Way::In, Way::In], "{path}");
            assert_eq!(at(Entrance::PlainOnTls), Way::ToHttps, "{path}");
        }
    }

    #[test]
    fn https_is_at_our_port() {
        for (authority, expected) in [
            ("attic.local:3001", "https://attic.local:3443"),
            ("192.168.1.7", "https://192.168.1.7:3443"),
            ("[fd00::1]:3001", "https://[fd00::1]:3443"),
            ("attic.local.:1", "https://attic.local:3443"),
        ] {
            assert_eq!(https_base(authority, 3443), expected);
        }
    }

    #[test]
    fn origins() {
        let ours = [
            "https://localhost",
            "http://localhost",
            "tauri://localhost",
            "http://tauri.localhost",
            "capacitor://localhost",
            "https://app.example",
            "http://192.168.1.7:3001",
            "https://192.168.1.7:3443",
            "http://attic.local:3001",
        ];
        let foreign = [
            "null",
            "https://evil.example",
            "http://localhost:8080",
            "http://192.168.1.7:8080",
            "http://192.168.1.8:3001",
            "https://app.example:444",
            "http://app.example",
            "ftp://localhost:3001",
            "",
            "file://",
            "http://localhost:3001@evil.example",
        ];
        let may = |origin: &str| hosts().may_use_api(origin, "192.168.1.7:3001", &[3001, 3443], LAN);
        assert_eq!(ours.map(may), [true; 9]);
        assert_eq!(foreign.map(may), [false; 11]);
        assert!(hosts().may_use_api("http://localhost:9999", "localhost:9999", &[3001], LAN), "a forwarded port is the same origin");
    }

    #[test]
    fn pages() {
        let ask = |path: &str, method: &Method, list: &[(&str, &str)]| {
            let headers =
                list.iter().map(|(name, value)| (name.parse::<HeaderName>().expect("name"), HeaderValue::from_str(value).expect("value")));
            check_page(&hosts(), Area::of(path), method, &headers.collect(), "localhost:3001", &[3001], LAN).is_ok()
        };
        let foreign = ("origin", "https://evil.example");
        let (cross, navigate) = (("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"));
        for path in ["/m/x/master.m3u8", "/api/health", "/healthz", "/readyz", "/api/openapi.json"] {
            assert!(ask(path, &Method::GET, &[foreign]), "{path}");
        }
        for path in ["/api/streams", "/", "/api", "/metrics", "/api/healthy", "/M/x"] {
            assert!(!ask(path, &Method::GET, &[foreign]), "{path}");
            assert!(!ask(path, &Method::GET, &[cross]), "{path}");
            assert!(!ask(path, &Method::GET, &[("sec-fetch-site", "same-site")]), "{path}");
            assert!(!ask(path, &Method::GET, &[cross, navigate, ("sec-fetch-dest", "iframe")]), "{path}");
            assert!(ask(path, &Method::GET, &[cross, navigate, ("sec-fetch-dest", "document")]), "{path}");
            assert!(ask(path, &Method::GET, &[("sec-fetch-site", "none"), navigate]), "{path}");
            assert!(ask(path, &Method::GET, &[cross, navigate]), "{path}");
            assert!(!ask(path, &Method::POST, &[cross, navigate]), "{path}");
            assert!(ask(path, &Method::POST, &[("origin", "http://localhost:3001"), ("sec-fetch-site", "same-origin")]), "{path}");
            assert!(ask(path, &Method::POST, &[]), "{path}");
        }
    }

    proptest! {
        #[test]
        fn no_host_makes_it_panic(text in "\\PC{0,60}") {
            let _ = split(&text);
            let _ = hosts().may_use_api(&text, &text, &[1], LAN);
        }

        #[test]
        fn addresses_are_read_back(address in proptest::prelude::any::<IpAddr>(), port in proptest::prelude::any::<u16>()) {
            let text = std::net::SocketAddr::new(address, port).to_string();
            prop_assert_eq!(split(&text), Some((HostName::Address(address.to_canonical()), Some(port))));
        }
    }
}
