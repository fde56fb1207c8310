//! The API document that lies beside the clients is the one of this server.

use std::path::Path;

#[test]
fn the_committed_api_document_is_that_of_this_server() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../clients/openapi.json");
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    let own = balcony_server::http::document().to_pretty_json().expect("the API document is plain JSON");
    let differs = committed.trim_end().lines().zip(own.lines()).position(|(committed, own)| committed != own);
    assert!(
        committed.trim_end() == own,
        "clients/openapi.json is not what this server answers (first at line {}). Renew it, and then the clients' types:\n\
         cargo run -p balcony-server -- openapi > clients/openapi.json",
        differs.map_or_else(|| committed.lines().count().min(own.lines().count()) + 1, |line| line + 1)
    );
}
