//! Every error that leaves the building: `application/problem+json` (RFC 9457), and the extractors whose refusals are problems too.
//!
//! [`layer`] catches what is not one yet (unknown route, wrong method, a panic) and turns it into one. No detail
//! carries a secret, an internal path, or more than 80 characters of what the client sent.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, MatchedPath, Request};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, StatusCode};
use http_body::Body as _;
use http_body_util::BodyExt;
use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use crate::metrics::METRICS;
use crate::trust::letters;

/// The longest JSON body, in bytes.
pub const JSON_LIMIT: usize = 64 << 10;
/// How much of a body that is too large is read away, so that the client gets to read the answer.
const DRAIN_LIMIT: usize = 8 << 20;
/// The longest pause within a body, and the longest time for a whole small one.
const BODY_PAUSE: Duration = Duration::from_secs(15);
const BODY_TIME: Duration = Duration::from_secs(60);
/// The most characters of the client's input in an answer.
const QUOTE: usize = 80;

/// Tells every client which request the log is to be asked for.
const TRACE_HEADER: HeaderName = HeaderName::from_static("x-trace-id");

const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// Makes the codes with their status and title in one table.
macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $status:literal, $title:literal;)*) => {
        /// What went wrong, in a word that never changes.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code { $($(#[$doc])* $name,)* }

        impl Code {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The word as it stands in answers.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The HTTP status that goes with it.
            pub fn status(self) -> StatusCode {
                let number: u16 = match self { $(Self::$name => $status,)* };
                StatusCode::from_u16(number).expect("the table holds valid statuses")
            }

            /// A short sentence for people.
            pub fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }
        }
    };
}

codes! {
    /// The request cannot be understood.
    BadRequest = "bad_request", 400, "The request cannot be understood";
    /// The magnet is no magnet.
    BadMagnet = "bad_magnet", 400, "This is not a usable magnet link";
    /// No token, or none that is known.
    Unauthenticated = "unauthenticated", 401, "A token is needed";
    /// The token does not reach this far.
    Forbidden = "forbidden", 403, "This is not allowed";
    /// Nothing is here.
    NotFound = "not_found", 404, "There is nothing here";
    /// The address knows other methods.
    MethodNotAllowed = "method_not_allowed", 405, "This method does not work here";
    /// Something else stands against it.
    Conflict = "conflict", 409, "This conflicts with something else";
    /// The disk is full.
    NoSpace = "no_space", 409, "There is not enough space";
    /// The pairing offer is over.
    OfferExpired = "offer_expired", 410, "This offer is over";
    /// The body is too large.
    TooLarge = "too_large", 413, "The request is too large";
    /// The body is of another kind.
    UnsupportedMediaType = "unsupported_media_type", 415, "This kind of content is not understood";
    /// The range lies outside.
    RangeNotSatisfiable = "range_not_satisfiable", 416, "This range lies outside the file";
    /// The host name is not ours.
    WrongHost = "wrong_host", 421, "This server does not answer to that name";
    /// Understood, but a value makes no sense.
    Invalid = "invalid", 422, "A value is not valid";
    /// The torrent wants what no torrent should.
    UnsafeTorrent = "unsafe_torrent", 422, "This torrent is not safe";
    /// The torrent holds nothing that can be played.
    NotPlayable = "not_playable", 422, "There is nothing to play";
    /// Nobody has the torrent.
    NoPeers = "no_peers", 422, "Nobody has this torrent";
    /// Too many requests in a short time.
    TooManyRequests = "too_many_requests", 429, "Too many requests";
    /// The queue of streams is full.
    QueueFull = "queue_full", 429, "Too many streams are waiting";
    /// A defect or a failure of this machine.
    Internal = "internal", 500, "Something went wrong on the server";
    /// A segment that could not be had in time.
    SegmentLate = "segment_late", 503, "This part of the film is not here yet";
    /// Only in a stream's `error`: the torrent broke.
    TorrentFailed = "torrent_failed", 422, "The torrent failed";
    /// Only in a stream's `error`: the conversion broke.
    ConversionFailed = "conversion_failed", 422, "The film could not be converted";
}

impl Code {
    /// The code for an answer of the framework, of which only the status is known.
    fn of_status(status: StatusCode) -> Self {
        match status.as_u16() {
            401 => Self::Unauthenticated,
            403 => Self::Forbidden,
            404 => Self::NotFound,
            405 => Self::MethodNotAllowed,
            409 => Self::Conflict,
            410 => Self::OfferExpired,
            413 | 414 | 431 => Self::TooLarge,
            415 => Self::UnsupportedMediaType,
            416 => Self::RangeNotSatisfiable,
            421 => Self::WrongHost,
            422 => Self::Invalid,
            429 => Self::TooManyRequests,
            400..500 => Self::BadRequest,
            _ => Self::Internal,
        }
    }
}

impl Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// An error on its way to a client.
#[derive(Debug, Clone)]
pub struct Problem {
    /// The stable word.
    pub code: Code,
    /// The status; that of the code unless HTTP has a more exact one.
    pub status: StatusCode,
    /// A sentence for people that says what is wrong with this very request.
    pub detail: String,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    /// A problem with a sentence for people.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, status: code.status(), detail: detail.into(), headers: Vec::new() }
    }

    /// What does not exist, or does not exist for this caller.
    pub fn not_found() -> Self {
        Self::new(Code::NotFound, "There is nothing at this address.")
    }

    /// A failure of this machine: the reason is logged, the client only learns that there was one.
    pub fn internal(reason: impl fmt::Display) -> Self {
        tracing::error!(%reason, "a request failed");
        Self::new(Code::Internal, "The server's log says more; the trace id finds the place.")
    }

    /// Says when to come again, in seconds, rounded up (RFC 9110 section 10.2.3).
    pub fn retry_after(self, wait: Duration) -> Self {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        self.header(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)))
    }

    /// Adds a header to the answer.
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Uses a more exact status than the code's own (408, …).
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// Ends the connection after the answer.
    fn closing(self) -> Self {
        self.header(header::CONNECTION, HeaderValue::from_static("close"))
    }

    /// The document of this problem.
    pub fn body(&self) -> ProblemBody {
        let trace = TRACE.try_with(|trace| trace.0.clone()).unwrap_or_else(|_| TraceId::random().0);
        ProblemBody {
            r#type: format!("/problems/{}", self.code.as_str()),
            title: self.code.title().to_owned(),
            status: self.status.as_u16(),
            detail: self.detail.clone(),
            code: self.code.as_str().to_owned(),
            error: self.code.title().to_owned(),
            message: self.detail.clone(),
            trace_id: trace,
        }
    }

    pub(super) fn json(&self) -> Vec<u8> {
        serde_json::to_vec(&self.body()).expect("a problem is plain text and numbers")
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.json()));
        *response.status_mut() = self.status;
        for (name, value) in self.headers {
            response.headers_mut().append(name, value);
        }
        response.headers_mut().insert(header::CONTENT_TYPE, PROBLEM_JSON);
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

/// The JSON of a problem (RFC 9457 section 3). `error` and `message` repeat `title` and `detail` for simple clients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Problem)]
pub struct ProblemBody {
    /// `/problems/` and the code.
    pub r#type: String,
    /// A short sentence, the same for every problem of this code.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What is wrong with this request.
    pub detail: String,
    /// The stable code.
    pub code: String,
    /// The title again.
    pub error: String,
    /// The detail again.
    pub message: String,
    /// Finds the request in the server's log.
    pub trace_id: String,
}

/// What a client sent, short enough and without control characters and hidden letters, for the detail of a problem.
pub fn quote(input: &str) -> String {
    // Somebody's whole body may stand here: no more of it is looked at than could be shown.
    let head: String = input.chars().take(4 * QUOTE).collect();
    let mut short: String = letters::clear(&head).chars().filter(|c| !c.is_control()).take(QUOTE - 1).collect();
    if input.chars().nth(QUOTE - 1).is_some() {
        short.push('…');
    }
    short
}

tokio::task_local! {
    static TRACE: TraceId;
}

/// Finds one request in the log.
#[derive(Debug, Clone)]
struct TraceId(String);

impl TraceId {
    fn random() -> Self {
        Self(data_encoding::HEXLOWER.encode(&crate::trust::random::<8>()))
    }
}

/// The route pattern that a request met, left in the response for log and metrics.
#[derive(Debug, Clone)]
pub struct Route(pub MatchedPath);

/// Innermost layer: notes which route pattern was met.
pub async fn note_route(route: Option<MatchedPath>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    if let Some(route) = route {
        response.extensions_mut().insert(Route(route));
    }
    response
}

/// Outermost layer: gives the request a trace id (in the log, in problems, in a header of the answer), catches panics, turns every error
/// into a problem, and logs and counts the request by its route pattern, never by its address.
pub async fn layer(request: Request, next: Next) -> Response {
    let trace = TraceId::random();
    let method = request.method().clone();
    // On by default: whatever is logged on the way says which request it was for. Routes that know a stream write it in.
    let span = tracing::info_span!("request", trace = %trace.0, stream = tracing::field::Empty);
    let started = Instant::now();
    let answered = TRACE.scope(trace.clone(), async {
        let answer = AssertUnwindSafe(next.run(request)).catch_unwind().await;
        // The panic itself was logged by the hook, with its place.
        answer.map_or_else(|_| Problem::internal("panic in a handler").into_response(), only_problems)
    });
    let mut response = tracing::Instrument::instrument(answered, span).await;
    log(&method, &response, &trace, started.elapsed());
    METRICS.answered(response.extensions().get::<Route>().map(|route| route.0.as_str()), response.status().as_u16());
    if let Ok(trace) = HeaderValue::from_str(&trace.0) {
        response.headers_mut().insert(TRACE_HEADER, trace);
    }
    response
}

fn log(method: &Method, response: &Response, trace: &TraceId, time: Duration) {
    let route = response.extensions().get::<Route>().map_or("-", |route| route.0.as_str());
    let (status, ms, trace) = (response.status().as_u16(), time.as_millis(), &trace.0);
    if response.status().is_server_error() && status != 503 {
        tracing::warn!(%method, route, status, ms, trace, "request");
    } else {
        tracing::debug!(%method, route, status, ms, trace, "request");
    }
}

/// An error answer that is no problem becomes one; the headers that say more than the body are kept.
fn only_problems(response: Response) -> Response {
    let status = response.status();
    let is_error = status.is_client_error() || status.is_server_error();
    if !is_error || response.headers().get(header::CONTENT_TYPE) == Some(&PROBLEM_JSON) {
        return response;
    }
    let (parts, _) = response.into_parts();
    let mut problem = Problem::new(Code::of_status(status), detail_of(status)).with_status(status);
    for (name, value) in &parts.headers {
        let of_the_body = name.as_str().starts_with("content-") && name != header::CONTENT_RANGE;
        if !of_the_body && name != header::TRANSFER_ENCODING {
            problem.headers.push((name.clone(), value.clone()));
        }
    }
    let mut response = problem.into_response();
    *response.extensions_mut() = parts.extensions;
    response
}

pub(super) fn detail_of(status: StatusCode) -> &'static str {
    match status.as_u16() {
        404 => "There is nothing at this address.",
        405 => "The header Allow names the methods that work at this address.",
        408 => "The request took too long to arrive.",
        413 => "The request is larger than this address takes.",
        414 => "The address is too long.",
        431 => "The headers are larger than 16 KiB.",
        status if status < 500 => "The request does not follow the rules of HTTP or of this address.",
        _ => "The server's log says more; the trace id finds the place.",
    }
}

/// A problem for a request that was refused before any route saw it.
pub(super) fn of_status(status: StatusCode) -> Problem {
    let problem = Problem::new(Code::of_status(status), detail_of(status));
    // One status for whatever is too large: clients tell it by the code, and the code has that one.
    if problem.code == Code::TooLarge { problem } else { problem.with_status(status) }
}

/// Reads a body of at most `limit` bytes. A larger one is read away up to 8 MiB or twice the limit, so that the client sees the answer.
///
/// # Errors
/// `too_large` 413; `bad_request` 408 when it comes too slowly, 400 when it breaks off.
pub async fn read_body(body: Body, limit: usize) -> Result<Bytes, Problem> {
    let late = |_| of_status(StatusCode::REQUEST_TIMEOUT).closing();
    tokio::time::timeout(BODY_TIME, read_paced(body, limit, BODY_PAUSE)).await.map_err(late)?
}

async fn read_paced(mut body: Body, limit: usize, pause: Duration) -> Result<Bytes, Problem> {
    let too_large = || Problem::new(Code::TooLarge, format!("The body may have at most {limit} bytes."));
    let late = |_| of_status(StatusCode::REQUEST_TIMEOUT).closing();
    let drained = DRAIN_LIMIT.max(limit.saturating_mul(2));
    if body.size_hint().lower() > drained as u64 {
        return Err(too_large().closing());
    }
    let mut kept = BytesMut::new();
    let mut seen = 0_usize;
    while let Some(frame) = tokio::time::timeout(pause, body.frame()).await.map_err(late)? {
        let frame = frame.map_err(|_| Problem::new(Code::BadRequest, "The body broke off.").closing())?;
        let Ok(data) = frame.into_data() else { continue };
        seen = seen.saturating_add(data.len());
        if seen > drained {
            return Err(too_large().closing());
        }
        if seen <= limit {
            kept.extend_from_slice(&data);
        }
    }
    if seen > limit { Err(too_large()) } else { Ok(kept.freeze()) }
}

/// A JSON body of at most 64 KiB. Broken JSON is `bad_request`, JSON of the wrong shape `invalid`, another content
/// type `unsupported_media_type`.
#[derive(Debug, Clone)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let is_json = is_json(request.headers());
        // Read first: an answer to a client that is still sending may be lost.
        let bytes = read_body(request.into_body(), JSON_LIMIT).await?;
        if !is_json {
            return Err(Problem::new(Code::UnsupportedMediaType, "The content type has to be application/json."));
        }
        from_json(&bytes).map(Self)
    }
}

/// [`Json`] that may be left out: an empty body is the default.
#[derive(Debug, Clone)]
pub struct Optional<T>(pub T);

impl<T: DeserializeOwned + Default, S: Send + Sync> FromRequest<S> for Optional<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let bytes = read_body(body, JSON_LIMIT).await?;
        if bytes.is_empty() {
            return Ok(Self(T::default()));
        }
        Json::from_request(Request::from_parts(parts, Body::from(bytes)), state).await.map(|Json(value)| Self(value))
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"))
}

fn from_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let misshapen = |why: &str| Problem::new(Code::Invalid, format!("The JSON has another shape than expected: {}", quote(why)));
    let error: serde_json::Error = match serde_json::from_slice(bytes) {
        // Structs could be read from lists of their values too.
        Ok(_) if bytes.trim_ascii_start().first() != Some(&b'{') => return Err(misshapen("it is no object")),
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    // Where both are wrong, a wrong shape is met first if it stands before the place at which the text is broken.
    let broken = match serde_json::from_slice::<IgnoredAny>(bytes) {
        Ok(_) => return Err(misshapen(&error.to_string())),
        Err(broken) => broken,
    };
    let (line, column) = (broken.line(), broken.column());
    Err(Problem::new(Code::BadRequest, format!("The JSON is broken at line {line}, column {column}.")))
}

/// Parameters of the path. What does not parse names nothing: `not_found`.
#[derive(Debug, Clone)]
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = axum::extract::Path::from_request_parts(parts, state).await;
        path.map(|path| Self(path.0)).map_err(|_: PathRejection| Problem::not_found())
    }
}

/// Parameters behind the question mark. What does not parse is `bad_request`.
#[derive(Debug, Clone)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let query = axum::extract::Query::from_request_parts(parts, state).await;
        query.map(|query| Self(query.0)).map_err(|error: QueryRejection| {
            Problem::new(Code::BadRequest, format!("The query is not valid: {}", quote(&error.body_text())))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codes_have_the_contracts_statuses() {
        let table: Vec<String> = Code::ALL.iter().map(|code| format!("{} {}", code.as_str(), code.status().as_u16())).collect();
        insta::assert_snapshot!(table.join("\n"), @r"
        bad_request 400
        bad_magnet 400
        unauthenticated 401
        forbidden 403
        not_found 404
        method_not_allowed 405
        conflict 409
        no_space 409
        offer_expired 410
        too_large 413
        unsupported_media_type 415
        range_not_satisfiable 416
        wrong_host 421
        invalid 422
        unsafe_torrent 422
        not_playable 422
        no_peers 422
        too_many_requests 429
        queue_full 429
        internal 500
        segment_late 503
        torrent_failed 422
        conversion_failed 422
        ");
    }

    #[test]
    fn every_code_has_its_page() {
        let pages = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/problems");
        let index = std::fs::read_to_string(pages.join("README.md")).expect("an index");
        for code in Code::ALL {
            let page = std::fs::read_to_string(pages.join(format!("{}.md", code.as_str()))).expect("a page");
            assert!(page.starts_with(&format!("# `{}`: {}\n", code.as_str(), code.title())), "{}", code.as_str());
            assert!(index.contains(&format!("[{0}]({0}.md)", code.as_str())), "{}", code.as_str());
        }
        assert_eq!(std::fs::read_dir(&pages).expect("a folder").count(), Code::ALL.len() + 1, "a page of no code");
    }

    #[test]
    fn a_problem_has_the_contracts_document() {
        let mut body = Problem::new(Code::BadMagnet, "It has no info hash.").body();
        assert_eq!(body.trace_id.len(), 16);
        body.trace_id = "0123".to_owned();
        insta::assert_json_snapshot!(body, @r#"
        {
          "type": "/problems/bad_magnet",
          "title": "This is not a usable magnet link",
          "status": 400,
          "detail": "It has no info hash.",
          "code": "bad_magnet",
          "error": "This is not a usable magnet link",
          "message": "It has no info hash.",
          "traceId": "0123"
        }
        "#);
    }

    #[test]
    fn retry_after_is_whole_seconds_and_never_zero() {
        for (wait, expected) in [(0, "1"), (1, "1"), (1500, "2"), (2000, "2")] {
            let response = Problem::new(Code::SegmentLate, "x").retry_after(Duration::from_millis(wait)).into_response();
            assert_eq!(response.headers()[header::RETRY_AFTER], expected);
        }
    }

    #[test]
    fn quotes_are_short_and_clean() {
        assert_eq!(quote("a\nb\u{7}c"), "abc");
        assert_eq!(quote(&"ä".repeat(80)).chars().count(), 80);
        assert_eq!(quote(&"ä".repeat(200)).chars().count(), 80);
        assert_eq!(quote(&"ä".repeat(79)), "ä".repeat(79));
    }

    #[test]
    fn framework_answers_become_problems_and_keep_their_headers() {
        for status in (400..600).filter_map(|number| StatusCode::from_u16(number).ok()) {
            let plain = Response::builder()
                .status(status)
                .header(header::ALLOW, "GET,HEAD")
                .header(header::CONTENT_TYPE, "text/plain")
                .header(header::CONTENT_LENGTH, 3)
                .body(Body::from("why"))
                .expect("response");
            let answer = only_problems(plain);
            assert_eq!((answer.status(), &answer.headers()[header::CONTENT_TYPE]), (status, &PROBLEM_JSON));
            assert_eq!(answer.headers()[header::ALLOW], "GET,HEAD");
            assert!(answer.headers().get(header::CONTENT_LENGTH).is_none());
        }
        let fine = only_problems("fine".into_response());
        assert_eq!(fine.headers()[header::CONTENT_TYPE], "text/plain; charset=utf-8");
    }

    #[tokio::test]
    async fn bodies_are_bounded() {
        let table = [(10, 10, None), (11, 10, Some(false)), (DRAIN_LIMIT, 10, Some(false)), (DRAIN_LIMIT + 1, 10, Some(true))];
        for (size, limit, refused) in table {
            // Without a length, so that it has to be counted.
            let chunks = futures_util::stream::iter(
                vec![0_u8; size].chunks(65_536).map(Bytes::copy_from_slice).map(Ok::<_, std::io::Error>).collect::<Vec<_>>(),
            );
            let answer = read_body(Body::from_stream(chunks), limit).await;
            let closing = answer.as_ref().err().map(|problem| problem.headers.iter().any(|(name, _)| name == header::CONNECTION));
            assert_eq!(closing, refused, "{size}");
            assert_eq!(answer.ok().map(|bytes| bytes.len()), refused.is_none().then_some(size));
        }
    }

    #[tokio::test]
    async fn a_body_that_does_not_come_is_given_up() {
        let silent = Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>());
        let problem = read_paced(silent, 10, Duration::from_millis(20)).await.expect_err("given up");
        assert_eq!((problem.status, problem.code), (StatusCode::REQUEST_TIMEOUT, Code::BadRequest));
        let broken = Body::from_stream(futures_util::stream::iter([Ok(Bytes::new()), Err(std::io::Error::other("gone"))]));
        assert_eq!(read_body(broken, 10).await.expect_err("broken").status, StatusCode::BAD_REQUEST);
    }

    #[test]
    fn broken_and_misshapen_json_are_told_apart() {
        let table = [
            ("{", Code::BadRequest),
            ("", Code::BadRequest),
            ("{\"a\":1} x", Code::BadRequest),
            ("{\"a\":\"x\",", Code::BadRequest),
            ("{\"a\":\"x\"}", Code::Invalid),
            ("[]", Code::Invalid),
        ];
        for (text, code) in table {
            let answer = from_json::<std::collections::BTreeMap<String, u32>>(text.as_bytes());
            assert_eq!(answer.expect_err("refused").code, code, "{text}");
        }
        let listed = from_json::<(u32,)>(b" [1]").expect_err("refused");
        assert_eq!(listed.code, Code::Invalid, "a list is no object");
        let long = format!("{{\"a\":\"{}\"}}", "x".repeat(1000));
        let problem = from_json::<std::collections::BTreeMap<String, u32>>(long.as_bytes()).expect_err("refused");
        assert!(problem.detail.matches('x').count() <= QUOTE, "{}", problem.detail);
    }
}
