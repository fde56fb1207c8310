//! Subtitles: the list, the text of each as one file, as segments for players, and files that somebody sends.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use balcony_media::cut;
use balcony_media::fmp4::wvtt;
use balcony_media::playlist::hls;
use balcony_media::subtitle::{self, Cue, Format, LARGEST_FILE, charset, name, write};
use bytes::Bytes;
use http::StatusCode;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::Caller;
use super::base::Base;
use super::problem::{Code, Json, Path, Problem, ProblemBody, Query, read_body};
use super::streams::find;
use crate::app::App;
use crate::film::Presentation;
use crate::manifest;
use crate::segments::DEADLINE;
use crate::stream::view::SubtitleView;
use crate::stream::{Stream, Streams};
use crate::subtitles::{MOST_SENT, Sent, TextError, Track};

const TEXT: HeaderValue = HeaderValue::from_static("text/vtt; charset=utf-8");
const IN_FRAGMENTS: HeaderValue = HeaderValue::from_static("application/mp4");
const HLS: HeaderValue = HeaderValue::from_static("application/vnd.apple.mpegurl");
/// Text grows with the film, and a playlist with what somebody sends.
const NOT_KEPT: HeaderValue = HeaderValue::from_static("no-cache");
const COMPLETE: HeaderName = HeaderName::from_static("subtitle-complete");

/// The routes of this file.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(text)).routes(routes!(add))
}

/// The subtitles of a film.
#[derive(Serialize, utoipa::ToSchema)]
pub struct SubtitleList {
    /// By language: the address of the first text in it, as WebVTT. Needs no header.
    subtitles: BTreeMap<String, String>,
    /// All of them.
    tracks: Vec<SubtitleTrack>,
}

/// One of them.
#[derive(Serialize, utoipa::ToSchema)]
pub struct SubtitleTrack {
    #[serde(flatten)]
    view: SubtitleView,
    /// Of its text as WebVTT. Needs no header. Images have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
}

impl SubtitleTrack {
    fn of(view: SubtitleView, is_text: bool, media: &str) -> Self {
        let url = is_text.then(|| format!("{media}/{}.vtt", view.id));
        Self { view, url }
    }
}

/// Lists the subtitles of a film.
#[utoipa::path(get, path = "/api/stream/{streamId}/subtitles", tag = "streams", params(("streamId" = String, Path)),
    responses((status = 200, body = SubtitleList)))]
async fn list(
    State(streams): State<Arc<Streams>>,
    base: Base,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<SubtitleList>, Problem> {
    let stream = find(&streams, &caller, &id)?;
    let media = stream.media(base.as_str(), &caller);
    let tracks: Vec<SubtitleTrack> = match stream.presentation_now() {
        Some(presentation) => {
            let tracks = presentation.text.list();
            tracks.iter().map(|track| SubtitleTrack::of(track.view.clone(), track.is_text(), &media)).collect()
        }
        // A stream of an earlier run whose film nobody has opened yet.
        None => {
            let views = stream.subtitles();
            views
                .into_iter()
                .map(|view| (view.kind == "text", view))
                .map(|(is_text, view)| SubtitleTrack::of(view, is_text, &media))
                .collect()
        }
    };
    if tracks.is_empty() {
        return Err(none());
    }
    let mut subtitles = BTreeMap::new();
    for track in &tracks {
        if let Some(url) = &track.url {
            let language = hls::language(&track.view.language).map_or_else(|| track.view.language.clone(), Cow::into_owned);
            subtitles.entry(language).or_insert_with(|| url.clone());
        }
    }
    Ok(Json(SubtitleList { subtitles, tracks }))
}

fn none() -> Problem {
    Problem::new(Code::NotFound, "There are no such subtitles.")
}

/// The text of one of them.
#[utoipa::path(get, path = "/api/stream/{streamId}/subtitles/{track}", tag = "streams",
    params(("streamId" = String, Path), ("track" = String, Path, description = "An id, or a language: the first text in it")),
    responses((status = 200, content_type = "text/vtt", body = String,
        headers(("Subtitle-Complete" = bool, description = "Whether these are all cues of the film, or those that are known so far")))))]
async fn text(State(streams): State<Arc<Streams>>, caller: Caller, Path((id, named)): Path<(String, String)>) -> Result<Response, Problem> {
    let stream = find(&streams, &caller, &id)?;
    stream.touch(&caller.device);
    // A film that was open before is opened for it; what is in one that nobody has seen yet is not waited for.
    if stream.presentation_now().is_none() && stream.subtitles().is_empty() {
        return Err(none());
    }
    let presentation = stream.presentation().await.ok_or_else(none)?;
    let track = presentation.text.text(&named).ok_or_else(none)?;
    document(&presentation, &track).await
}

/// The whole text, as far as it is known.
pub(super) async fn document(presentation: &Presentation, track: &Track) -> Result<Response, Problem> {
    let known = tokio::time::timeout(DEADLINE, presentation.text.known(track)).await;
    // A file beside the film that does not come is one of which nothing is known yet.
    let (cues, complete) = known.unwrap_or_else(|_| Ok((Vec::new(), false))).map_err(problem)?;
    let complete = HeaderValue::from_static(if complete { "true" } else { "false" });
    let headers = [(header::CONTENT_TYPE, TEXT), (header::CACHE_CONTROL, NOT_KEPT), (COMPLETE, complete)];
    Ok((headers, [(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("Subtitle-Complete"))], write::document(&cues))
        .into_response())
}

fn problem(error: TextError) -> Problem {
    tracing::debug!(%error, "subtitles are late");
    late()
}

fn late() -> Problem {
    Problem::new(Code::SegmentLate, "This part of the subtitles is not here yet; ask again in a moment.")
        .retry_after(std::time::Duration::from_secs(1))
}

/// What players fetch of a text rendition: its playlist and its segments.
pub(super) async fn of_track(presentation: &Presentation, track: &Track, name: &str, deadline: Instant) -> Result<Response, Problem> {
    let text = &presentation.text;
    if name == "index.m3u8" {
        return Ok(([(header::CONTENT_TYPE, HLS), (header::CACHE_CONTROL, NOT_KEPT)], manifest::text(presentation)).into_response());
    }
    if name == "init.mp4" {
        let headers = [(header::CONTENT_TYPE, IN_FRAGMENTS), (header::CACHE_CONTROL, NOT_KEPT)];
        return Ok((headers, wvtt::init(&track.view.language)).into_response());
    }
    let (number, in_fragments) = match name.strip_suffix(".m4s") {
        Some(number) => (Some(number), true),
        None => (name.strip_suffix(".vtt"), false),
    };
    let number = number.and_then(super::media::segment_number).filter(|number| *number < text.cuts.count());
    let number = number.ok_or_else(Problem::not_found)?;
    let cues: Vec<Cue> = tokio::time::timeout_at(deadline, text.segment(track, number)).await.map_err(|_| late())?.map_err(problem)?;
    if in_fragments {
        let at = |ticks: i64| cut::rescale(ticks, text.cuts.timescale, wvtt::TIMESCALE);
        let segment = wvtt::segment(number, at(text.cuts.start(number)), at(text.cuts.end(number)), &cues);
        return Ok(([(header::CONTENT_TYPE, IN_FRAGMENTS), (header::CACHE_CONTROL, NOT_KEPT)], segment).into_response());
    }
    Ok(([(header::CONTENT_TYPE, TEXT), (header::CACHE_CONTROL, NOT_KEPT)], write::segment(&cues)).into_response())
}

/// What is told of a file that somebody sends.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct About {
    /// The file's name, of which its language is guessed. `Content-Disposition` may say it instead.
    name: Option<String>,
    /// BCP 47.
    language: Option<String>,
    /// For people.
    title: Option<String>,
}

/// A file of subtitles, as it is.
pub struct SubtitleFile;

impl utoipa::PartialSchema for SubtitleFile {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, Type};
        let text = "SubRip, SubStation Alpha, WebVTT, MicroDVD or SubViewer, of at most 8 MiB, in any charset.";
        let binary = SchemaFormat::KnownFormat(KnownFormat::Binary);
        ObjectBuilder::new().schema_type(Type::String).format(Some(binary)).description(Some(text)).into()
    }
}

impl utoipa::ToSchema for SubtitleFile {}

/// Adds subtitles of one's own: the file as it is, or as the first file of a form. They are kept with the stream.
#[utoipa::path(post, path = "/api/stream/{streamId}/subtitles", tag = "streams", params(("streamId" = String, Path), About),
    request_body(content = SubtitleFile, content_type = "application/octet-stream"), responses(
    (status = 201, body = SubtitleTrack),
    (status = 409, body = ProblemBody, content_type = "application/problem+json", description = "The film is not open yet, or there are 20 files already"),
    (status = 413, body = ProblemBody, content_type = "application/problem+json", description = "The file is larger than 8 MiB, or the address or the headers are too large"),
    (status = 422, body = ProblemBody, content_type = "application/problem+json", description = "There are no subtitles in it")
))]
async fn add(
    State(streams): State<Arc<Streams>>,
    base: Base,
    caller: Caller,
    Path(id): Path<String>,
    Query(about): Query<About>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    // A form's own rows come on top.
    let body = read_body(body, LARGEST_FILE + (64 << 10)).await?;
    // What is another person's is not there, whatever is sent to it.
    let stream = find(&streams, &caller, &id)?;
    let (file_name, bytes) = file_of(&parts.headers, body);
    if bytes.len() > LARGEST_FILE {
        return Err(Problem::new(Code::TooLarge, "The file may have at most 8 MiB."));
    }
    let file_name = about.name.clone().or(file_name).unwrap_or_default();
    let (text, format) = tokio::task::spawn_blocking({
        let (name, language) = (file_name.clone(), about.language.clone());
        move || read(&bytes, &name, language.as_deref())
    })
    .await
    .map_err(Problem::internal)?
    .ok_or_else(|| Problem::new(Code::Invalid, "There are no subtitles in this file."))?;
    stream.touch(&caller.device);
    let not_open = || Problem::new(Code::Conflict, "The film is not open yet; send the file again once it plays.");
    let presentation = stream.presentation().await.ok_or_else(not_open)?;
    stream.kept().await;
    let sent = sent(&presentation, &stream, &file_name, about, &text, format);
    let store = &streams.ground().store;
    let added = presentation.text.add(sent, store, stream.id.as_str()).await.map_err(Problem::internal)?;
    let view = added.ok_or_else(|| Problem::new(Code::Conflict, format!("A stream takes at most {MOST_SENT} files.")))?;
    stream.has_subtitles(presentation.text.views());
    let track = SubtitleTrack::of(view, true, &stream.media(base.as_str(), &caller));
    Ok((StatusCode::CREATED, Json(track)).into_response())
}

/// The text of a file, if there are subtitles in it.
fn read(bytes: &[u8], file_name: &str, language: Option<&str>) -> Option<(String, Format)> {
    let guessed = name::told(file_name, "").language;
    let text = charset::decode(bytes, language.or(Some(&guessed)));
    let (format, _) = subtitle::parse(&text, None)?;
    Some((text, format))
}

fn sent(presentation: &Presentation, stream: &Stream, file_name: &str, about: About, text: &str, format: Format) -> Sent {
    let film = &presentation.film;
    let rate = film.index.video().and_then(|track| track.video.as_ref()?.frame_rate);
    let cues = subtitle::parse(text, rate).map(|(_, cues)| cues).unwrap_or_default();
    let file_name = file_name.rsplit(['/', '\\']).next().unwrap_or_default();
    let told = name::told(file_name, stream.title().as_deref().unwrap_or_default());
    let is_tag =
        |language: &String| (2..=35).contains(&language.len()) && language.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    Sent {
        format,
        language: about.language.filter(is_tag).unwrap_or(told.language),
        title: plain(&about.title.unwrap_or_else(|| file_name.to_owned())),
        forced: told.forced,
        cues,
        script: (format == Format::Ass).then(|| text.to_owned()),
    }
}

/// Words for people: one line, not endless.
fn plain(words: &str) -> String {
    words.chars().filter(|letter| !letter.is_control()).take(120).collect::<String>().trim().to_owned()
}

/// The file in a body and its name: of a form (RFC 7578) the first part that has a name, else the body itself.
fn file_of(headers: &HeaderMap, body: Bytes) -> (Option<String>, Bytes) {
    let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let named = text(&header::CONTENT_DISPOSITION).and_then(disposition_name);
    let kind = text(&header::CONTENT_TYPE).unwrap_or_default();
    let boundary = kind.to_ascii_lowercase().starts_with("multipart/form-data").then(|| parameter(kind, "boundary")).flatten();
    match boundary.and_then(|boundary| part_of(&body, &boundary)) {
        Some((name, part)) => (name.or(named), part),
        None => (named, body),
    }
}

/// `name="value"` or `name=value` behind a semicolon.
fn parameter(header: &str, wanted: &str) -> Option<String> {
    header.split(';').skip(1).find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim().eq_ignore_ascii_case(wanted).then(|| value.trim().trim_matches('"').to_owned())
    })
}

/// RFC 6266: `filename*=UTF-8''…` before `filename=`.
fn disposition_name(header: &str) -> Option<String> {
    let extended = parameter(header, "filename*").and_then(|value| {
        let encoded = value.splitn(3, '\'').nth(2)?.replace('+', "%2B");
        Some(url::form_urlencoded::parse(format!("n={encoded}").as_bytes()).next()?.1.into_owned())
    });
    extended.or_else(|| parameter(header, "filename"))
}

/// The first part of a form that is a file, else the first one.
fn part_of(body: &Bytes, boundary: &str) -> Option<(Option<String>, Bytes)> {
    const MOST_PARTS: usize = 16;
    let delimiter = format!("--{boundary}");
    let ending = format!("\r\n--{boundary}");
    let mut at = search(body, delimiter.as_bytes())? + delimiter.len();
    let mut first = None;
    for _ in 0..MOST_PARTS {
        let rest = body.get(at..)?;
        let head_len = search(rest, b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(rest.get(..head_len)?).into_owned();
        let start = at + head_len + 4;
        let Some(len) = body.get(start..).and_then(|rest| search(rest, ending.as_bytes())) else { break };
        let disposition = head.lines().find(|row| row.to_ascii_lowercase().starts_with("content-disposition:"));
        let name = disposition.and_then(disposition_name);
        let part = body.slice(start..start + len);
        if name.is_some() {
            return Some((name, part));
        }
        first.get_or_insert((None, part));
        at = start + len + ending.len();
    }
    first
}

fn search(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len().max(1)).position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_found_in_what_was_sent() {
        let headers = |kind: &'static str, disposition: Option<&'static str>| {
            let mut headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(kind))]);
            headers.extend(disposition.map(|text| (header::CONTENT_DISPOSITION, HeaderValue::from_static(text))));
            headers
        };
        let form = "--x\r\nContent-Disposition: form-data; name=\"title\"\r\n\r\nA\r\n--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.en.srt\"\r\nContent-Type: text/plain\r\n\r\n1\r\n--y\r\n--x--\r\n";
        let table = [
            (headers("text/plain", None), "abc", None, "abc"),
            (headers("text/plain", Some("attachment; filename=\"b.srt\"")), "abc", Some("b.srt"), "abc"),
            (headers("text/plain", Some("attachment; filename=b; filename*=UTF-8''%C5%BE+.srt")), "abc", Some("ž+.srt"), "abc"),
            (headers("multipart/form-data; boundary=x", None), form, Some("a.en.srt"), "1\r\n--y"),
            (headers("multipart/form-data; boundary=z", None), "no form", None, "no form"),
        ];
        for (headers, body, name, file) in table {
            let found = file_of(&headers, Bytes::copy_from_slice(body.as_bytes()));
            assert_eq!(found, (name.map(str::to_owned), Bytes::copy_from_slice(file.as_bytes())));
        }
    }
}
