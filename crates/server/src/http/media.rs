//! What players fetch: playlists, init segments, segments, the original file. The ticket in the path is the only credential.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{RawPathParams, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use balcony_media::playlist::{dash, hls};
use balcony_media::range;
use bytes::Bytes;
use futures_util::stream;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, StatusCode};
use tokio::time::Instant;

use super::auth::Gone;
use super::base::Base;
use super::download;
use super::events;
use super::line::Line;
use super::listener::Peer;
use super::previews;
use super::problem::{Code, Path, Problem};
use super::rate::{self, Limits};
use super::subtitles;
use crate::app::App;
use crate::film::Presentation;
use crate::manifest;
use crate::metrics::{METRICS, Making};
use crate::produce::worker::Reader;
use crate::segments::{DEADLINE, Segment, SegmentError, SegmentReader};
use crate::source::Cursor;
use crate::stream::{Streams, Viewing};

/// A body that gets nothing for this long is given up; the player asks again.
const STALL: Duration = Duration::from_secs(60);
/// Bytes of the original file in one piece of a body.
const READ: usize = 256 * 1024;

pub(super) const HLS: HeaderValue = HeaderValue::from_static("application/vnd.apple.mpegurl");
const DASH: HeaderValue = HeaderValue::from_static("application/dash+xml");
const VIDEO: HeaderValue = HeaderValue::from_static("video/mp4");
const AUDIO: HeaderValue = HeaderValue::from_static("audio/mp4");
/// Segments never change; playlists may when the server learns more.
pub(super) const FOREVER: HeaderValue = HeaderValue::from_static("private, max-age=31536000, immutable");
pub(super) const NOT_KEPT: HeaderValue = HeaderValue::from_static("no-cache");

/// The routes under `/m/<ticket>/`.
pub fn routes(streams: &Arc<Streams>, limits: &Arc<Limits>) -> Router<App> {
    Router::new()
        .route("/m/{ticket}/master.m3u8", get(master))
        .route("/m/{ticket}/manifest.mpd", get(mpd))
        .route("/m/{ticket}/events", get(stream_events))
        .route("/m/{ticket}/play.m3u", get(play))
        .route("/m/{ticket}/file/{name}", get(file))
        .route("/m/{ticket}/download/{name}", get(download::file))
        .route("/m/{ticket}/{text}", get(whole_text))
        .route("/m/{ticket}/{rendition}/{name}", get(of_rendition))
        .route_layer(middleware::from_fn_with_state((streams.clone(), limits.clone()), open))
}

/// Opens the stream of the ticket for the route behind it, and marks the answer: it breaks off when the ticket is no good any more.
/// A device may take so many answers at once and no more.
async fn open(
    State((streams, limits)): State<(Arc<Streams>, Arc<Limits>)>,
    path: Result<RawPathParams, RawPathParamsRejection>,
    mut request: Request,
    next: Next,
) -> Response {
    // A path that is no text names nothing.
    let Ok(path) = path else { return Problem::not_found().into_response() };
    let ticket = path.iter().find_map(|(name, value)| (name == "ticket").then_some(value)).unwrap_or_default();
    let Some(viewing) = streams.by_ticket(ticket).filter(|viewing| !viewing.stream.state().is_over()) else {
        return nothing(&limits, request.extensions().get()).into_response();
    };
    tracing::Span::current().record("stream", viewing.stream.id.as_str());
    if let Some(line) = request.extensions().get::<Line>() {
        line.known();
    }
    let seat = match limits.play(&viewing.holder.device, viewing.holder.admin) {
        Ok(seat) => seat,
        Err(problem) => return problem.into_response(),
    };
    let gone = Gone(viewing.holder.moved.clone());
    request.extensions_mut().insert(viewing);
    let mut response = next.run(request).await;
    response.extensions_mut().insert(gone);
    response.extensions_mut().insert(seat);
    response
}

/// The answer to a ticket that opens nothing: who tries many is slowed down. Good tickets are never counted.
fn nothing(limits: &Limits, peer: Option<&Peer>) -> Problem {
    let counted = peer.map_or(Ok(()), |peer| limits.stranger(peer.remote.ip()));
    match counted {
        Ok(()) => Problem::new(Code::NotFound, "This address leads to nothing (any more)."),
        Err(wait) => rate::too_many("Too many addresses that lead to nothing.", wait),
    }
}

async fn presentation(viewing: &Viewing) -> Result<Arc<Presentation>, Problem> {
    viewing.touch();
    viewing.stream.presentation().await.ok_or_else(late)
}

fn late() -> Problem {
    Problem::new(Code::SegmentLate, "This part of the film is not here yet; ask again in a moment.").retry_after(Duration::from_secs(1))
}

fn problem(error: SegmentError) -> Problem {
    tracing::debug!(%error, "a segment is late");
    late()
}

async fn stream_events(State(streams): State<Arc<Streams>>, base: Base, Extension(viewing): Extension<Viewing>) -> Response {
    events::one(&streams, viewing, base)
}

async fn master(Extension(viewing): Extension<Viewing>) -> Result<Response, Problem> {
    let presentation = presentation(&viewing).await?;
    Ok(([(header::CONTENT_TYPE, HLS), (header::CACHE_CONTROL, NOT_KEPT)], hls::master(&manifest::master(&presentation))).into_response())
}

async fn mpd(Extension(viewing): Extension<Viewing>) -> Result<Response, Problem> {
    let presentation = presentation(&viewing).await?;
    Ok(([(header::CONTENT_TYPE, DASH), (header::CACHE_CONTROL, NOT_KEPT)], dash::mpd(&manifest::mpd(&presentation))).into_response())
}

async fn of_rendition(
    State(streams): State<Arc<Streams>>,
    Extension(viewing): Extension<Viewing>,
    method: Method,
    headers: HeaderMap,
    Path((_, rendition, name)): Path<(String, String, String)>,
) -> Result<Response, Problem> {
    let deadline = Instant::now() + DEADLINE;
    let presentation = presentation(&viewing).await?;
    if rendition == manifest::STILLS {
        return previews::of_film(&presentation, &streams.ground().workshop, &name).await;
    }
    if let Some(text) = presentation.text.by_id(&rendition) {
        return subtitles::of_track(&presentation, &text, &name, deadline).await;
    }
    let made = presentation.named(&rendition).ok_or_else(Problem::not_found)?;
    let kind = if made.resolution.is_some() { VIDEO } else { AUDIO };
    if name == "index.m3u8" {
        let text = manifest::media(&presentation, made);
        return Ok(([(header::CONTENT_TYPE, HLS), (header::CACHE_CONTROL, NOT_KEPT)], text).into_response());
    }
    if name == "init.mp4" {
        let init = tokio::time::timeout_at(deadline, made.init()).await.map_err(|_| late())?.map_err(problem)?;
        return Ok(([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, FOREVER)], init).into_response());
    }
    let number = name.strip_suffix(".m4s").and_then(segment_number).ok_or_else(Problem::not_found)?;
    if let (Some(byte), true) = (made.byte(number), made.resolution.is_some() || presentation.video().is_none()) {
        viewing.stream.play_at(&presentation, number, byte).await;
    }
    let reader = Reader::Viewer(viewing.stream.id.clone(), viewing.holder.device.clone());
    if let Some(at) = presentation.picture_at(made) {
        viewing.stream.looks_at(&presentation, at, &reader);
    }
    let answer = async {
        let segment = tokio::time::timeout_at(deadline, made.segment(number, &reader)).await.map_err(|_| late())?.map_err(problem)?;
        let segment = segment.ok_or_else(Problem::not_found)?;
        send(&presentation, segment, kind, &method, &headers, deadline).await
    };
    let making = made.is_encoded().then_some(if made.resolution.is_some() { Making::Convert } else { Making::ConvertAudio });
    making.into_iter().for_each(|making| viewing.stream.awaits(making));
    let answer = answer.await;
    making.into_iter().for_each(|making| viewing.stream.came(making, answer.is_ok()));
    if answer.as_ref().err().is_none_or(|problem| problem.code != Code::NotFound) {
        METRICS.segment_waited((Instant::now() + DEADLINE).duration_since(deadline));
    }
    answer
}

/// Subtitles as one file.
async fn whole_text(Extension(viewing): Extension<Viewing>, Path((_, name)): Path<(String, String)>) -> Result<Response, Problem> {
    let id = name.strip_suffix(".vtt").ok_or_else(Problem::not_found)?;
    let presentation = presentation(&viewing).await?;
    let text = presentation.text.by_id(id).ok_or_else(Problem::not_found)?;
    subtitles::document(&presentation, &text).await
}

/// A segment's number as playlists write it: each has one address.
pub(super) fn segment_number(text: &str) -> Option<u32> {
    let leads = text.starts_with(['+', '0']) && text != "0";
    text.parse().ok().filter(|_| !leads)
}

/// Sends a segment, as it grows if need be. Its first bytes have to be there by the deadline.
async fn send(
    presentation: &Presentation,
    segment: Segment,
    kind: HeaderValue,
    method: &Method,
    asked: &HeaderMap,
    deadline: Instant,
) -> Result<Response, Problem> {
    let mut reader = SegmentReader::new(segment.clone(), presentation.film.source.clone());
    let (status, headers, left) = match segment.bytes() {
        Some(len) => {
            let Part { status, headers, from, count } = Part::of(asked, len, None, kind, FOREVER)?;
            reader.skip(from);
            (status, headers, Some(count))
        }
        None => (StatusCode::OK, HeaderMap::from_iter([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, FOREVER)]), None),
    };
    if method == Method::HEAD {
        return Ok((status, headers).into_response());
    }
    let first = tokio::time::timeout_at(deadline, first_media(&mut reader, left)).await.map_err(|_| late())?.map_err(problem)?;
    let sent = first.iter().map(|bytes| bytes.len() as u64).sum::<u64>();
    let state = (reader, left.map(|left| left.saturating_sub(sent)));
    let rest = stream::unfold(Some(state), |state| async move {
        let (mut reader, left) = state?;
        let next = tokio::time::timeout(STALL, within(&mut reader, left)).await;
        match next {
            Ok(Ok(None)) => None,
            Ok(Ok(Some(bytes))) => {
                let left = left.map(|left| left.saturating_sub(bytes.len() as u64));
                Some((Ok(bytes), Some((reader, left))))
            }
            Ok(Err(error)) => Some((Err(std::io::Error::other(error)), None)),
            Err(_) => Some((Err(std::io::ErrorKind::TimedOut.into()), None)),
        }
    });
    let all = futures_util::StreamExt::chain(stream::iter(first.into_iter().map(Ok)), rest);
    Ok((status, headers, Body::from_stream(all)).into_response())
}

/// The first parts up to the first media: a header alone is no answer yet.
async fn first_media(reader: &mut SegmentReader, left: Option<u64>) -> Result<Vec<Bytes>, SegmentError> {
    let mut parts = Vec::new();
    let mut left = left;
    for _ in 0..2 {
        let Some(bytes) = within(reader, left).await? else {
            break;
        };
        left = left.map(|left| left.saturating_sub(bytes.len() as u64));
        parts.push(bytes);
    }
    Ok(parts)
}

async fn within(reader: &mut SegmentReader, left: Option<u64>) -> Result<Option<Bytes>, SegmentError> {
    if left == Some(0) {
        return Ok(None);
    }
    let mut bytes = reader.next().await?;
    if let (Some(bytes), Some(left)) = (&mut bytes, left) {
        bytes.truncate(usize::try_from(left).unwrap_or(usize::MAX));
    }
    Ok(bytes)
}

pub(super) fn text<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// The head of the answer to a request of a file, or of a range of it (RFC 9110, section 14), and where its bytes begin and how many they
/// are.
pub(super) struct Part {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) from: u64,
    pub(super) count: u64,
}

impl Part {
    /// What of a file of `len` bytes is `asked` for. One without a tag never changes.
    pub(super) fn of(asked: &HeaderMap, len: u64, etag: Option<&str>, kind: HeaderValue, kept: HeaderValue) -> Result<Self, Problem> {
        let holds = etag.is_none() || range::if_range_holds(text(asked, &header::IF_RANGE), etag, None);
        let ranges = range::parse(text(asked, &header::RANGE).filter(|_| holds), len);
        let content_range = ranges.content_range(len).and_then(|text| HeaderValue::from_str(&text).ok());
        let Some((from, count)) = ranges.span(len) else {
            let problem = Problem::new(Code::RangeNotSatisfiable, format!("The file has {len} bytes."));
            return Err(match content_range {
                Some(value) => problem.header(header::CONTENT_RANGE, value),
                None => problem,
            });
        };
        let status = StatusCode::from_u16(ranges.status()).unwrap_or(StatusCode::OK);
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, kind);
        headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        headers.insert(header::CACHE_CONTROL, kept);
        headers.insert(header::CONTENT_LENGTH, count.into());
        content_range.and_then(|value| headers.insert(header::CONTENT_RANGE, value));
        etag.and_then(|etag| HeaderValue::from_str(etag).ok()).and_then(|value| headers.insert(header::ETAG, value));
        Ok(Self { status, headers, from, count })
    }
}

/// A list with one entry, for desktop players.
async fn play(base: Base, Extension(viewing): Extension<Viewing>) -> Result<Response, Problem> {
    let view = viewing.stream.view(base.as_str(), &viewing.holder);
    let (Some(url), Some(title)) = (view.direct_url, view.title) else {
        return Err(late());
    };
    let title: String = title.chars().filter(|c| !c.is_control()).collect();
    let seconds = view.duration.map_or(-1, |seconds| seconds as i64);
    let kind = HeaderValue::from_static("audio/x-mpegurl");
    Ok(([(header::CONTENT_TYPE, kind)], format!("#EXTM3U\n#EXTINF:{seconds},{title}\n{url}\n")).into_response())
}

/// The original bytes, as they come.
async fn file(
    Extension(viewing): Extension<Viewing>,
    method: Method,
    asked: HeaderMap,
    Path((_, name)): Path<(String, String)>,
) -> Result<Response, Problem> {
    viewing.touch();
    let source = viewing.stream.source().await.ok_or_else(late)?;
    let len = source.len();
    let etag = format!("\"{}-{len}\"", viewing.stream.magnet.info_hash);
    let Part { status, headers, from, count } =
        Part::of(&asked, len, Some(&etag), HeaderValue::from_static(content_type(&name)), NOT_KEPT)?;
    if method == Method::HEAD {
        return Ok((status, headers).into_response());
    }
    let state = (source.cursor(from), count, viewing);
    let body = stream::unfold(Some(state), |state| async move {
        let (mut cursor, left, viewing) = state?;
        if left == 0 {
            return None;
        }
        viewing.touch();
        match read(&mut cursor, left).await {
            Ok(bytes) if bytes.is_empty() => None,
            Ok(bytes) => {
                let left = left.saturating_sub(bytes.len() as u64);
                Some((Ok(bytes), Some((cursor, left, viewing))))
            }
            Err(error) => Some((Err(error), None)),
        }
    });
    Ok((status, headers, Body::from_stream(body)).into_response())
}

async fn read(cursor: &mut Cursor, left: u64) -> std::io::Result<Bytes> {
    let max = READ.min(usize::try_from(left).unwrap_or(usize::MAX));
    let read = tokio::time::timeout(STALL, cursor.read(max)).await;
    read.map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))?.map_err(std::io::Error::other)
}

fn content_type(name: &str) -> &'static str {
    let ending = name.rsplit('.').next().unwrap_or_default().to_ascii_lowercase();
    match ending.as_str() {
        "mp4" | "m4v" => "video/mp4",
        "mov" => "video/quicktime",
        "mkv" => "video/x-matroska",
        "webm" => "video/webm",
        "avi" => "video/x-msvideo",
        "ts" | "m2ts" | "mts" => "video/mp2t",
        "wmv" => "video/x-ms-wmv",
        "flv" => "video/x-flv",
        "mpg" | "mpeg" => "video/mpeg",
        "mp3" => "audio/mpeg",
        "m4a" | "m4b" => "audio/mp4",
        "flac" => "audio/flac",
        "ogg" | "oga" | "opus" => "audio/ogg",
        "wav" => "audio/wav",
        "aac" => "audio/aac",
        "mka" => "audio/x-matroska",
        _ => "application/octet-stream",
    }
}
