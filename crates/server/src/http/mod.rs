//! The door: everything that comes in over HTTP passes here, in this order.
//!
//! 1. [`problem::layer`]: trace id, panics, every error a problem, one log line by route pattern
//! 2. sizes of address and headers
//! 3. `Host` is ours ([`host`])
//! 4. the entrance lets it in ([`host::Way`]): plain HTTP in the LAN leads to HTTPS
//! 5. the page behind the request may ([`host`]); `OPTIONS` is answered
//! 6. the token, from header or path prefix ([`auth`]), and how often it may ask ([`rate`])
//! 7. the routes, one file per noun
//! 8. on the way out: what browsers have to know, and the tie to the caller's life ([`cut`])
//!
//! The routes are listed in [`routes`], a line per file; each annotates itself for the API document.

pub mod auth;
pub mod base;
pub mod bind;
pub mod certificate;
pub mod cut;
pub mod devices;
pub mod doctor;
pub mod document;
pub mod download;
pub mod events;
pub mod health;
pub mod history;
pub mod host;
pub mod interface;
pub mod line;
pub mod listener;
pub mod media;
pub mod metrics;
pub mod notice;
pub mod overview;
pub mod pages;
pub mod pairing;
pub mod people;
pub mod places;
mod previews;
pub mod problem;
pub mod rate;
pub mod sample;
pub mod settings;
pub mod streams;
pub mod subtitles;
pub mod torrents;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use tokio_util::sync::CancellationToken;
use utoipa_axum::router::OpenApiRouter;

use crate::app::App;
use crate::trust::Devices;
use auth::{Caller, Prefix};
use bind::Ports;
use host::{Area, Hosts, Page, Way};
use line::Line;
use listener::{Entrance, Peer};
use problem::{Code, Problem};
use rate::Limits;

/// The most bytes of headers, and of an address.
const HEADER_LIMIT: usize = 16 << 10;
const ADDRESS_LIMIT: usize = 8 << 10;

/// What a page may load and do, unless it brings a policy of its own: nothing that is not ours.
const PAGES_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; \
    font-src 'self'; connect-src 'self'; manifest-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What a page may use of a phone: what a player needs, and what is pasted.
const PAGES_PERMISSIONS: &str = "autoplay=(self), clipboard-read=(self), clipboard-write=(self), fullscreen=(self), picture-in-picture=(self), \
    screen-wake-lock=(self), camera=(), geolocation=(), microphone=(), payment=(), usb=()";

/// All routes of the API; each brings its part of the API document.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(description())
        .merge(health::routes())
        .merge(streams::routes())
        .merge(subtitles::routes())
        .merge(events::routes())
        .merge(torrents::routes())
        .merge(sample::routes())
        .merge(pairing::routes())
        .merge(settings::routes())
        .merge(devices::routes())
        .merge(people::routes())
        .merge(history::routes())
        .merge(download::routes())
        .merge(notice::routes())
        .merge(overview::routes())
        .merge(certificate::routes())
        .merge(doctor::routes())
        .merge(metrics::routes())
}

/// The API document (OpenAPI 3.1).
pub fn document() -> utoipa::openapi::OpenApi {
    document::complete(routes().into_openapi())
}

fn description() -> utoipa::openapi::OpenApi {
    use utoipa::OpenApi;

    #[derive(OpenApi)]
    #[openapi(
        info(title = "Balcony", description = "Streams torrents to the phones of your own house."),
        components(schemas(problem::ProblemBody))
    )]
    struct Description;

    Description::openapi()
}

/// What the door needs to know to decide.
#[derive(Clone)]
pub struct Door {
    /// The names that are ours, and the origins that may use the API.
    pub hosts: Hosts,
    /// Those whose tokens open.
    pub devices: Arc<Devices>,
    /// The ports that are ours.
    pub ports: Ports,
    /// How often and how much at once.
    pub limits: Arc<Limits>,
}

/// The authority (`host[:port]`) by which the client knows this server: what its absolute URLs begin with.
/// In the extensions of every request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority(pub String);

/// The whole server as one router: the routes behind the door.
pub fn open(door: Door, app: App) -> Router {
    let (routes, document) = routes().split_for_parts();
    let document: bytes::Bytes = document::complete(document).to_json().expect("the API document is plain JSON").into();
    let text = ([(header::CONTENT_TYPE, "application/json")], document);
    let routes = routes
        .merge(media::routes(&app.streams, &door.limits))
        .merge(pages::routes())
        .merge(interface::routes())
        .route("/api/openapi.json", get(move || std::future::ready(text.clone())))
        .fallback(|| std::future::ready(Problem::not_found()))
        .layer(middleware::from_fn(problem::note_route))
        .with_state(app);
    // The door stands around the routes and not on them, because it takes the token out of the path before routing.
    Router::new()
        .fallback_service(routes)
        .layer(middleware::from_fn_with_state(Arc::new(door), pass))
        .layer(middleware::from_fn(problem::layer))
}

async fn pass(State(door): State<Arc<Door>>, request: Request, next: Next) -> Response {
    let line = request.extensions().get::<Line>().cloned();
    let (area, page, entry) = match admit(&door, request) {
        Ok(admitted) => admitted,
        Err((area, problem)) => (area, Page::Unnamed, Entry::Answered(problem.into_response())),
    };
    let mut response = match entry {
        Entry::Answered(response) => response,
        Entry::Admitted(request, caller) => cut::tie(next.run(*request).await, caller, line.as_ref()),
    };
    // Refusals too: a page has to be able to read why.
    host::grant(&page, response.headers_mut());
    dress(area, response.headers_mut());
    response
}

/// What happens with a request whose host and page are right.
enum Entry {
    /// To the routes; with the token that is cancelled when the caller is revoked.
    Admitted(Box<Request>, Option<CancellationToken>),
    Answered(Response),
}

fn admit(door: &Door, mut request: Request) -> Result<(Area, Page, Entry), (Area, Problem)> {
    let peer = peer(&request);
    let prefix = auth::take_prefix(request.uri());
    let area = match &prefix {
        Prefix::None => Area::of(request.uri().path()),
        // Pairing is what it is by any address; the rest is of the API because of the token.
        Prefix::Token(_, uri) if Area::of(uri.path()) == Area::Pairing => Area::Pairing,
        Prefix::Token(..) | Prefix::Broken => Area::Api,
    };
    let refused = |problem| (area, problem);
    check_size(&request).map_err(refused)?;
    let (version, local) = (request.version(), peer.local.ip());
    let authority = door.hosts.check(version, request.uri(), request.headers(), local).map_err(refused)?;
    if let Some(response) = led(door, area, &request, peer.entrance, &authority).map_err(refused)? {
        return Ok((area, Page::Unnamed, Entry::Answered(response)));
    }
    let (method, headers, ports) = (request.method(), request.headers(), [door.ports.http, door.ports.https]);
    let page = host::check_page(&door.hosts, area, method, headers, &authority, &ports, local).map_err(refused)?;
    if method == Method::OPTIONS {
        return Ok((area, page, Entry::Answered(preflight(area, headers))));
    }
    let caller = identify(door, prefix, &mut request, peer.remote.ip());
    if let Err(problem) = limit(door, area, &request, caller.as_ref(), peer.remote.ip()) {
        return Ok((area, page, Entry::Answered(problem.into_response())));
    }
    let gone = caller.as_ref().map(|caller| caller.gone.clone());
    if let Some(caller) = caller {
        if let Some(line) = request.extensions().get::<Line>() {
            line.known();
        }
        request.extensions_mut().insert::<Caller>(caller);
    }
    request.extensions_mut().insert(Authority(authority));
    Ok((area, page, Entry::Admitted(Box::new(request), gone)))
}

/// The connection of a request; without one it is taken for one of the LAN, which may do least.
fn peer(request: &Request) -> Peer {
    let nowhere = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
    let unknown = Peer { remote: nowhere, local: nowhere, entrance: Entrance::Lan };
    request.extensions().get::<Peer>().copied().unwrap_or(unknown)
}

/// The answer to a request that this entrance does not let in; `None` for those that it does.
fn led(door: &Door, area: Area, request: &Request, entrance: Entrance, authority: &str) -> Result<Option<Response>, Problem> {
    let https = || host::https_base(authority, door.ports.https);
    match Way::of(entrance, area, request.uri().path()) {
        Way::In => Ok(None),
        Way::To(path) => Ok(Some(redirect(StatusCode::TEMPORARY_REDIRECT, path))),
        Way::ToHttps => {
            // `*` stands for the server as a whole (RFC 9110 section 7.1).
            let path = request.uri().path_and_query().map(|path| path.as_str()).filter(|path| path.starts_with('/')).unwrap_or("/");
            Ok(Some(redirect(StatusCode::PERMANENT_REDIRECT, &format!("{}{path}", https()))))
        }
        Way::OnlyHttps => {
            let detail = format!("This is to be had over HTTPS only, at {}.", https());
            Err(Problem::new(Code::Forbidden, detail))
        }
    }
}

fn redirect(status: StatusCode, location: &str) -> Response {
    let Ok(location) = HeaderValue::from_str(location) else { return problem::of_status(StatusCode::BAD_REQUEST).into_response() };
    // Not kept: addresses and ports of a house change.
    (status, [(header::LOCATION, location), (header::CACHE_CONTROL, HeaderValue::from_static("no-store"))]).into_response()
}

/// Who asks, by header or by the path prefix, which is taken out of the path.
fn identify(door: &Door, prefix: Prefix, request: &mut Request, from: IpAddr) -> Option<Caller> {
    let token = match prefix {
        Prefix::Broken => return None,
        Prefix::None => None,
        Prefix::Token(token, uri) => {
            *request.uri_mut() = uri;
            Some(token)
        }
    };
    auth::identify(&door.devices, request.headers(), token, from)
}

/// Refuses who has no token where one is needed, and who asks too often. Decided before anything of the body is read.
fn limit(door: &Door, area: Area, request: &Request, caller: Option<&Caller>, from: IpAddr) -> Result<(), Problem> {
    let (limits, posted) = (&door.limits, request.method() == Method::POST);
    let slower = |wait| rate::too_many("Too many requests in a short time.", wait);
    if area == Area::Media || area.is_pages() {
        return Ok(());
    }
    match caller {
        Some(caller) => limits.call(&caller.device, caller.admin).map_err(slower)?,
        None => limits.stranger(from).map_err(|wait| rate::too_many("Too many requests without a token.", wait))?,
    }
    match (area, caller) {
        (Area::Pairing, _) if posted => limits.pairing(from).map_err(|wait| rate::too_many("Too many attempts to pair.", wait)),
        (Area::Api, None) => Err(auth::unauthenticated()),
        _ => Ok(()),
    }
}

/// What every answer of an area says to browsers, unless its route says something else.
fn dress(area: Area, headers: &mut HeaderMap) {
    let mut say = |name: HeaderName, value: &'static str| {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    };
    say(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    if area == Area::Media {
        return;
    }
    say(header::CACHE_CONTROL, "no-store");
    say(HeaderName::from_static("cross-origin-resource-policy"), "same-origin");
    if area.is_pages() {
        say(header::CONTENT_SECURITY_POLICY, PAGES_POLICY);
        say(header::REFERRER_POLICY, "no-referrer");
        say(header::X_FRAME_OPTIONS, "DENY");
        say(HeaderName::from_static("cross-origin-opener-policy"), "same-origin");
        say(HeaderName::from_static("permissions-policy"), PAGES_PERMISSIONS);
    }
}

fn check_size(request: &Request) -> Result<(), Problem> {
    let headers: usize = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    let address = request.uri().path_and_query().map_or(0, |path| path.as_str().len());
    match (address > ADDRESS_LIMIT, headers > HEADER_LIMIT) {
        (true, _) => Err(problem::of_status(StatusCode::URI_TOO_LONG)),
        (_, true) => Err(problem::of_status(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE)),
        (false, false) => Ok(()),
    }
}

fn preflight(area: Area, asked: &HeaderMap) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    host::grant_preflight(area, asked, response.headers_mut());
    response
}
