//! The pages that the program was built with, as browsers get them. Where it was built without, what it says instead.

#[path = "support/server.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod server;

use std::collections::BTreeSet;
use std::path::Path;

use reqwest::Method;
use reqwest::header::{ACCEPT_ENCODING, IF_NONE_MATCH};
use server::{Answer, TestServer};

async fn ask(server: &TestServer, method: Method, path: &str, asked: &[(reqwest::header::HeaderName, &str)]) -> Answer {
    let request = server.client().request(method, server.here(path));
    server::answer(asked.iter().fold(request, |request, (name, value)| request.header(name, *value))).await
}

async fn get(server: &TestServer, path: &str) -> Answer {
    ask(server, Method::GET, path, &[]).await
}

/// The names that stand in a page in quotes after `src=` and `href=`.
fn named(html: &str) -> BTreeSet<String> {
    let after = |key: &'static str| html.split(key).skip(1).filter_map(|rest| rest.split('"').next());
    let found = after("src=\"").chain(after("href=\""));
    found.map(|name| format!("/{}", name.trim_start_matches("./").trim_start_matches('/'))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_address_of_a_page_is_the_one_page_and_all_that_it_names_is_there() {
    let server = TestServer::open().await;
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ui/dist/index.html").exists();
    let page = get(&server, "/").await;
    if !built {
        assert_eq!((page.status, page.json()["code"].as_str()), (404, Some("not_found")), "{}", page.text());
        assert!(page.json()["detail"].as_str().is_some_and(|detail| detail.contains("built without its pages")), "{}", page.text());
        return;
    }
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    for path in ["/pair", "/index.html", "/?text=magnet%3A%3Fxt", "/pair?from=here"] {
        assert_eq!(get(&server, path).await.body, page.body, "{path}");
    }
    let html = page.text();
    assert!(!html.contains("<style") && !html.contains(" style=") && !html.contains("<script>"), "nothing that its policy forbids: {html}");
    let names = named(&html);
    assert!(names.iter().any(|name| name.starts_with("/assets/") && name.ends_with(".js")), "{names:?}");
    for name in names {
        let file = get(&server, &name).await;
        assert_eq!(file.status, 200, "{name}");
        let kept = if name.starts_with("/assets/") { "public, max-age=31536000, immutable" } else { "no-cache" };
        assert_eq!(file.header("cache-control"), Some(kept), "{name}");
        assert_ne!(file.header("content-type"), Some("application/octet-stream"), "{name}");
        assert_eq!(file.header("x-content-type-options"), Some("nosniff"), "{name}");

        let tag = file.header("etag").unwrap_or_else(|| panic!("{name} has no tag")).to_owned();
        let again = ask(&server, Method::GET, &name, &[(IF_NONE_MATCH, &tag)]).await;
        assert_eq!((again.status, again.body.len(), again.header("etag")), (304, 0, Some(tag.as_str())), "{name}");
        let head = ask(&server, Method::HEAD, &name, &[]).await;
        assert_eq!(
            (head.status, head.body.len(), head.header("content-length")),
            (200, 0, Some(file.body.len().to_string().as_str())),
            "{name}"
        );
        assert_eq!(ask(&server, Method::POST, &name, &[]).await.status, 405, "{name}");
        if name.ends_with(".js") || name.ends_with(".css") {
            let small = ask(&server, Method::GET, &name, &[(ACCEPT_ENCODING, "gzip, br")]).await;
            assert_eq!(small.header("content-encoding"), Some("br"), "{name}");
            assert!(
                small.body.len() * 2 < file.body.len() || file.body.len() < 2000,
                "{name}: {} of {}",
                small.body.len(),
                file.body.len()
            );
            assert_ne!(small.header("etag"), Some(tag.as_str()), "each form has a tag of its own");
        }
    }
    for path in ["/sw.js", "/manifest.webmanifest"] {
        let file = get(&server, path).await;
        assert_eq!((file.status, file.header("cache-control")), (200, Some("no-cache")), "{path}");
    }
    for path in ["/assets/", "/assets/none.js", "/index.htm", "/index.html.br", "/INDEX.HTML"] {
        assert_eq!(get(&server, path).await.status, 404, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_may_do_what_its_player_needs_and_no_more() {
    let server = TestServer::open().await;
    let page = get(&server, "/").await;
    let policy = page.header("content-security-policy").unwrap_or_else(|| panic!("{page:?}"));
    for part in [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "media-src 'self' blob:",
        "worker-src 'self' blob:",
    ] {
        assert!(policy.split(';').any(|directive| directive.trim() == part), "{part} in {policy}");
    }
    assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
    let permissions = page.header("permissions-policy").unwrap_or_default();
    for own in ["fullscreen", "picture-in-picture", "screen-wake-lock", "autoplay", "clipboard-read"] {
        assert!(permissions.contains(&format!("{own}=(self)")), "{own} in {permissions}");
    }
    for nobodys in ["camera", "geolocation", "microphone"] {
        assert!(permissions.contains(&format!("{nobodys}=()")), "{nobodys} in {permissions}");
    }
}
