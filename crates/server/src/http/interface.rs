//! The web interface: the files that the build of `ui/` left, embedded, and sent as they are or as they were compressed then.
//!
//! Files below `assets/` have their hash in their name and are kept for ever; the others are asked for again each time and answered
//! with 304 when they are the same. Every page is the same `index.html`: what it shows it decides in the browser.

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use rust_embed::{Embed, EmbeddedFile};

use super::problem::{Code, Problem};
use crate::app::App;

/// What the pages may load and do: what is ours, and no style or script that stands in a page. Video.js moves its work into workers
/// that it makes of its own text.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; \
    font-src 'self'; connect-src 'self'; manifest-src 'self'; worker-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const INDEX: &str = "index.html";
/// The addresses of people, which are all the same page.
const PAGES: &[&str] = &["/", "/pair", "/index.html"];
/// How the build compressed, the better first: the name in HTTP (RFC 9110 §8.4.1, RFC 7932) and at the end of the file's.
const ENCODINGS: &[(&str, &str)] = &[("br", "br"), ("gzip", "gz")];

const NOT_BUILT: &str =
    "This program was built without its pages. Run scripts/setup and scripts/pages, then build it again. Its API is whole.";

#[derive(Embed)]
#[folder = "../../ui/dist"]
#[allow_missing = true]
struct Files;

/// The routes of this file: one for each file, so that everything else stays unknown. Not in the API document: they are for people.
pub fn routes() -> Router<App> {
    let names = Files::iter().filter(|name| name != INDEX && !ENCODINGS.iter().any(|(_, end)| name.ends_with(&format!(".{end}"))));
    let files = names.fold(Router::new(), |routes, name| {
        let path = format!("/{name}");
        routes.route(&path, get(move |headers: HeaderMap| std::future::ready(file(&name, &headers))))
    });
    PAGES.iter().fold(files, |routes, path| routes.route(path, get(|headers: HeaderMap| std::future::ready(file(INDEX, &headers)))))
}

fn file(name: &str, asked: &HeaderMap) -> Response {
    let Some((found, encoding)) = best(name, asked) else {
        return Problem::new(Code::NotFound, NOT_BUILT).into_response();
    };
    let tag = tag(&found, encoding);
    let lasting = if name.starts_with("assets/") { "public, max-age=31536000, immutable" } else { "no-cache" };
    let mut headers = HeaderMap::new();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(lasting));
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::ETAG, tag.clone());
    if is_known(asked, &tag) {
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type(name)));
    if let Some(encoding) = encoding {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding));
    }
    (headers, found.data).into_response()
}

/// The file in the best form that the client takes, and that form's name.
fn best(name: &str, asked: &HeaderMap) -> Option<(EmbeddedFile, Option<&'static str>)> {
    let accepted = asked.get(header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let compressed = ENCODINGS.iter().filter(|(encoding, _)| accepts(accepted, encoding));
    let compressed = compressed.filter_map(|(encoding, end)| Some((Files::get(&format!("{name}.{end}"))?, Some(*encoding))));
    compressed.into_iter().next().or_else(|| Some((Files::get(name)?, None)))
}

/// Whether a client takes an encoding (RFC 9110 §12.5.3). What it does not name it need not get.
fn accepts(accepted: &str, encoding: &str) -> bool {
    accepted.split(',').any(|one| {
        let mut parts = one.split(';').map(str::trim);
        let named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case(encoding));
        named && !parts.any(|weight| matches!(weight, "q=0" | "q=0." | "q=0.0" | "q=0.00" | "q=0.000"))
    })
}

/// A name for exactly these bytes.
fn tag(file: &EmbeddedFile, encoding: Option<&str>) -> HeaderValue {
    let hash = data_encoding::HEXLOWER.encode(&file.metadata.sha256_hash()[..16]);
    let tag = format!("\"{hash}{}\"", encoding.map(|encoding| format!("-{encoding}")).unwrap_or_default());
    HeaderValue::from_str(&tag).expect("hex digits and letters")
}

/// Whether the client has these bytes already (RFC 9110 §13.1.2: compared weakly).
fn is_known(asked: &HeaderMap, tag: &HeaderValue) -> bool {
    let known = asked.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    known
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|one| one == "*" || one.trim_start_matches("W/").as_bytes() == tag.as_bytes())
}

fn media_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, end)| end) {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("webmanifest") => "application/manifest+json",
        Some("json" | "map") => "application/json",
        Some("woff2") => "font/woff2",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encoding_is_taken_only_where_it_is_named() {
        for (accepted, brotli, gzip) in [
            ("", false, false),
            ("gzip, deflate, br, zstd", true, true),
            ("GZIP;q=0.5", false, true),
            ("br;q=0, gzip", false, true),
            ("br; q=0.1", true, false),
            ("brotli, x-gzip", false, false),
            ("*", false, false),
        ] {
            assert_eq!((accepts(accepted, "br"), accepts(accepted, "gzip")), (brotli, gzip), "{accepted}");
        }
    }

    #[test]
    fn bytes_that_are_known_are_told_by_their_tag() {
        let tag = HeaderValue::from_static("\"ab-br\"");
        for (known, is) in
            [("\"ab-br\"", true), ("W/\"ab-br\"", true), ("\"x\", \"ab-br\"", true), ("*", true), ("\"ab\"", false), ("", false)]
        {
            let mut asked = HeaderMap::new();
            asked.insert(header::IF_NONE_MATCH, HeaderValue::from_static(known));
            assert_eq!(is_known(&asked, &tag), is, "{known}");
        }
    }

    #[test]
    fn nothing_that_was_built_is_sent_as_bytes_of_any_kind() {
        let unknown: Vec<_> = Files::iter().filter(|name| !name.ends_with(".br") && !name.ends_with(".gz")).collect();
        let unknown: Vec<_> = unknown.iter().filter(|name| media_type(name) == "application/octet-stream").collect();
        assert!(unknown.is_empty(), "{unknown:?}");
    }
}
