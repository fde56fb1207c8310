//! Stills for the time line: their playlist, the same as WebVTT, and the sheets. How a sheet is made is decided elsewhere.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use balcony_media::playlist::images;
use http::header::{self, HeaderValue};

use super::media::{FOREVER, HLS, NOT_KEPT, segment_number};
use super::problem::{Code, Problem};
use crate::film::Presentation;
use crate::produce::Workshop;

const JPEG: HeaderValue = HeaderValue::from_static("image/jpeg");
const VTT: HeaderValue = HeaderValue::from_static("text/vtt; charset=utf-8");
/// When a sheet of which nothing could be shown may be asked for again: more of the film has come by then.
const AGAIN: Duration = Duration::from_secs(10);

/// What players fetch of a film's stills.
///
/// A sheet of which nothing is here is an error and not a dark picture: pages keep a picture that once came for as long as they are open,
/// but ask again for one that failed.
pub(super) async fn of_film(presentation: &Presentation, workshop: &Workshop, name: &str) -> Result<Response, Problem> {
    let previews = presentation.film.previews.as_ref().filter(|_| presentation.video().is_some()).ok_or_else(Problem::not_found)?;
    match name {
        "index.m3u8" => Ok(text(HLS, images::playlist(&previews.images))),
        "index.vtt" => Ok(text(VTT, images::vtt(&previews.images))),
        _ => {
            let number = name.strip_suffix(".jpg").and_then(segment_number).ok_or_else(Problem::not_found)?;
            if number >= previews.images.sheets() {
                return Err(Problem::not_found());
            }
            let sheet = previews.sheet(&presentation.film, workshop, number).await.ok_or_else(late)?;
            let keep = if sheet.is_whole { FOREVER } else { NOT_KEPT };
            Ok(([(header::CONTENT_TYPE, JPEG), (header::CACHE_CONTROL, keep)], sheet.jpeg).into_response())
        }
    }
}

fn text(kind: HeaderValue, text: String) -> Response {
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, NOT_KEPT)], text).into_response()
}

fn late() -> Problem {
    Problem::new(Code::SegmentLate, "Nothing of this part of the film is here yet to be shown; ask again in a while.").retry_after(AGAIN)
}
