//! The door: everything that comes in over HTTP passes here, in this order.
//!
//! 1. [`problem::layer`]: trace id, panics, every error a problem, one log line by route pattern
//! 2. sizes of address and headers
//! 3. `Host` is ours ([`host`])
//! 4. the page behind the request may ([`host`]); `OPTIONS` is answered
//! 5. the token, from header or path prefix ([`auth`]); without one, how often ([`rate`])
//! 6. the routes, one file per noun
//!
//! The routes are listed in [`routes`], a line per file; each annotates itself for the API document.

pub mod auth;
pub mod base;
pub mod bind;
pub mod devices;
pub mod document;
pub mod events;
pub mod health;
pub mod host;
pub mod listener;
pub mod media;
pub mod people;
pub mod problem;
pub mod rate;
pub mod sample;
pub mod settings;
pub mod streams;
pub mod torrents;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{HeaderMap, Method, StatusCode, header};
use utoipa_axum::router::OpenApiRouter;

use crate::app::App;
use crate::trust::Devices;
use auth::{Caller, Prefix};
use host::{Area, Hosts};
use listener::Peer;
use problem::{Code, Problem};
use rate::Buckets;

/// The most bytes of headers, and of an address.
const HEADER_LIMIT: usize = 16 << 10;
const ADDRESS_LIMIT: usize = 8 << 10;

/// All routes of the API; each brings its part of the API document.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(description())
        .merge(health::routes())
        .merge(streams::routes())
        .merge(events::routes())
        .merge(torrents::routes())
        .merge(sample::routes())
        .merge(settings::routes())
        .merge(devices::routes())
        .merge(people::routes())
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
#[derive(Debug)]
pub struct Door {
    /// The names that are ours, and the origins that may use the API.
    pub hosts: Hosts,
    /// Those whose tokens open.
    pub devices: Arc<Devices>,
    /// The ports that are ours.
    pub ports: Vec<u16>,
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
        .merge(media::routes(&app.streams))
        .route("/api/openapi.json", get(move || std::future::ready(text.clone())))
        .fallback(|| std::future::ready(Problem::not_found()))
        .layer(middleware::from_fn(problem::note_route))
        .with_state(app);
    // The door stands around the routes and not on them, because it takes the token out of the path before routing.
    Router::new()
        .fallback_service(routes)
        .layer(middleware::from_fn_with_state(Arc::new((door, Buckets::default())), pass))
        .layer(middleware::from_fn(problem::layer))
}

async fn pass(State(state): State<Arc<(Door, Buckets)>>, request: Request, next: Next) -> Response {
    let (door, buckets) = &*state;
    match admit(door, buckets, request) {
        Err(problem) => problem.into_response(),
        Ok((area, page, entry)) => {
            let mut response = match entry {
                Entry::Refused(problem) => problem.into_response(),
                Entry::Preflight(asked) => preflight(area, &asked),
                Entry::Admitted(request) => next.run(*request).await,
            };
            // Refusals too: a page has to be able to read why.
            host::grant(&page, response.headers_mut());
            response
        }
    }
}

/// What happens with a request whose host and page are right.
enum Entry {
    Admitted(Box<Request>),
    Preflight(HeaderMap),
    Refused(Problem),
}

fn admit(door: &Door, buckets: &Buckets, mut request: Request) -> Result<(Area, host::Page, Entry), Problem> {
    check_size(&request)?;
    let local = request.extensions().get::<Peer>().map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |peer| peer.local.ip());
    let authority = door.hosts.check(request.uri(), request.headers(), local)?;
    let prefix = auth::take_prefix(request.uri());
    let area = match &prefix {
        Prefix::None => Area::of(request.uri().path()),
        Prefix::Token(..) | Prefix::Broken => Area::Api,
    };
    let (method, headers) = (request.method(), request.headers());
    let page = host::check_page(&door.hosts, area, method, headers, &authority, &door.ports, local)?;
    if method == Method::OPTIONS {
        return Ok((area, page, Entry::Preflight(headers.clone())));
    }
    let broken = matches!(prefix, Prefix::Broken);
    let token = match prefix {
        Prefix::None | Prefix::Broken => None,
        Prefix::Token(token, uri) => {
            *request.uri_mut() = uri;
            Some(token)
        }
    };
    let remote = request.extensions().get::<Peer>().map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |peer| peer.remote.ip());
    let caller = if broken { None } else { auth::identify(&door.devices, request.headers(), token, remote) };
    match caller {
        Some(caller) => {
            request.extensions_mut().insert::<Caller>(caller);
        }
        None => {
            if let Err(problem) = stranger(buckets, area, &request) {
                return Ok((area, page, Entry::Refused(problem)));
            }
        }
    }
    request.extensions_mut().insert(Authority(authority));
    Ok((area, page, Entry::Admitted(Box::new(request))))
}

/// How far someone gets who has shown no token.
fn stranger(buckets: &Buckets, area: Area, request: &Request) -> Result<(), Problem> {
    let counted = matches!(area, Area::Api | Area::Open);
    if let (true, Some(peer)) = (counted, request.extensions().get::<Peer>()) {
        let too_many = |wait| Problem::new(Code::TooManyRequests, "Too many requests without a token.").retry_after(wait);
        buckets.take(peer.remote.ip(), Instant::now()).map_err(too_many)?;
    }
    if area == Area::Api { Err(auth::unauthenticated()) } else { Ok(()) }
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
