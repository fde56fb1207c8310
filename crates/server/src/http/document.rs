//! Completes the API document with what every route has in common: the token, and the refusals of the door and of the body's reader.
//!
//! A route only describes what is its own. Which of the common answers it can give follows from its path and its body.

use http::StatusCode;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::response::ResponseBuilder;
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ContentBuilder, OpenApi, Ref, RefOr, Response};

use super::host::Area;

/// The name of the security scheme.
const TOKEN: &str = "token";

/// Who can get an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    /// Every route.
    Everywhere,
    /// Routes that need a token.
    Guarded,
    /// Routes that name something in their path.
    Named,
    /// Routes that take a body.
    WithBody,
}

/// Status, name in the document, by whom, and when.
const COMMON: &[(u16, &str, From, &str)] = &[
    (400, "BadRequest", From::Everywhere, "The request cannot be understood: a broken query, or a body that is no JSON"),
    (401, "Unauthenticated", From::Guarded, "There is no token, or none that this server knows"),
    (403, "Forbidden", From::Guarded, "The token does not reach that far, or a page of a foreign origin asks"),
    (404, "NotFound", From::Named, "It does not exist, or not for this caller"),
    (408, "RequestTimeout", From::WithBody, "The body came too slowly"),
    (413, "TooLarge", From::Everywhere, "The address is longer than 8 KiB, or the headers are larger than 16 KiB, or the body than 64 KiB"),
    (415, "UnsupportedMediaType", From::WithBody, "The body is not of type application/json"),
    (421, "WrongHost", From::Everywhere, "The host name of the request is not one of this server"),
    (422, "Invalid", From::WithBody, "The body is JSON, but not of the right shape, or a value makes no sense"),
    (429, "TooManyRequests", From::Everywhere, "Too many requests in a short time; Retry-After says when to come again"),
    (500, "Internal", From::Everywhere, "A defect or a failure of the server; its log says more"),
];

/// Adds what every route has in common.
pub(super) fn complete(mut document: OpenApi) -> OpenApi {
    let components = document.components.get_or_insert_default();
    for (status, name, _, when) in COMMON {
        components.responses.insert((*name).to_owned(), refusal(*status, when).into());
    }
    let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(
        "The token that a device got when it was paired. A client that can only be given an address puts it in front of the path \
         instead: `/t/<token>/api/…`.",
    ));
    components.security_schemes.insert(TOKEN.to_owned(), SecurityScheme::Http(scheme.build()).into());
    for (path, item) in &mut document.paths.paths {
        for (method, operation) in operations(item) {
            operation.operation_id = Some(operation_id(method, path));
            complete_operation(path, operation);
        }
    }
    document
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = (&'static str, &mut Operation)> {
    let PathItem { get, put, post, delete, patch, head, .. } = item;
    let all = [("get", get), ("put", put), ("post", post), ("delete", delete), ("patch", patch), ("head", head)];
    all.into_iter().filter_map(|(method, operation)| Some((method, operation.as_mut()?)))
}

/// A name that no other operation has (OpenAPI 3.1 section 4.8.10): `GET /api/stream/{streamId}/events` is `getStreamStreamIdEvents`.
fn operation_id(method: &str, path: &str) -> String {
    let words = path.split(|letter: char| !letter.is_ascii_alphanumeric()).filter(|word| !word.is_empty() && *word != "api");
    let capital =
        |word: &str| word.get(..1).map(str::to_ascii_uppercase).into_iter().chain(word.get(1..).map(str::to_owned)).collect::<String>();
    std::iter::once(method.to_owned()).chain(words.map(capital)).collect()
}

fn complete_operation(path: &str, operation: &mut Operation) {
    let guarded = Area::of(path) == Area::Api;
    if guarded {
        operation.security = Some(vec![SecurityRequirement::new::<_, [&str; 0], &str>(TOKEN, [])]);
    }
    let with_body = operation.request_body.is_some();
    for (status, name, from, _) in COMMON {
        let can = match from {
            From::Everywhere => true,
            From::Guarded => guarded,
            From::Named => path.contains('{'),
            From::WithBody => with_body,
        };
        if can {
            // What the route says itself is more exact.
            let answers = &mut operation.responses.responses;
            answers.entry(status.to_string()).or_insert_with(|| RefOr::Ref(Ref::from_response_name(*name)));
        }
    }
}

fn refusal(status: u16, when: &str) -> Response {
    let problem = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    let response = ResponseBuilder::new().description(when).content("application/problem+json", problem);
    let header =
        |text: &str, kind: Type| HeaderBuilder::new().description(Some(text)).schema(Some(ObjectBuilder::new().schema_type(kind))).build();
    match StatusCode::from_u16(status) {
        Ok(StatusCode::TOO_MANY_REQUESTS) => response.header("Retry-After", header("Seconds until the next try", Type::Integer)),
        Ok(StatusCode::UNAUTHORIZED) => response.header("WWW-Authenticate", header("Bearer", Type::String)),
        _ => response,
    }
    .build()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::problem::Code;
    use super::*;

    fn document() -> Value {
        serde_json::from_str(&super::super::document().to_json().expect("JSON")).expect("JSON")
    }

    fn statuses(document: &Value, path: &str, method: &str) -> Vec<String> {
        let answers = document["paths"][path][method]["responses"].as_object().expect("the operation");
        let mut all: Vec<String> = answers.keys().cloned().collect();
        all.sort();
        all
    }

    #[test]
    fn each_route_names_what_it_can_answer() {
        let document = document();
        let table: [(&str, &str, &[&str]); 4] = [
            ("/healthz", "get", &["200", "400", "413", "421", "429", "500"]),
            ("/api/streams", "get", &["200", "400", "401", "403", "413", "421", "429", "500"]),
            ("/api/stream/status/{streamId}", "get", &["200", "400", "401", "403", "404", "413", "421", "429", "500"]),
            ("/api/settings", "patch", &["200", "400", "401", "403", "408", "409", "413", "415", "421", "422", "429", "500"]),
        ];
        for (path, method, expected) in table {
            assert_eq!(statuses(&document, path, method), expected, "{path}");
        }
    }

    #[test]
    fn a_token_is_asked_for_where_the_door_asks_for_one() {
        let document = document();
        assert_eq!(document["paths"]["/api/streams"]["get"]["security"], json!([{ "token": [] }]));
        assert_eq!(document["paths"]["/api/health"]["get"]["security"], Value::Null);
        assert_eq!(document["components"]["securitySchemes"]["token"]["scheme"], "bearer");
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let document = document();
        let text = document.to_string();
        let references: Vec<&str> = text.split("\"$ref\":\"#").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        assert!(references.len() > 50, "{}", references.len());
        for reference in references {
            assert!(document.pointer(reference).is_some(), "{reference}");
        }
    }

    #[test]
    fn no_two_operations_have_one_name() {
        let document = document();
        let paths = document["paths"].as_object().expect("paths").values();
        let names: Vec<_> =
            paths.flat_map(|item| item.as_object().expect("operations").values()).map(|one| one["operationId"].as_str()).collect();
        let different: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(different.len(), names.len(), "{names:?}");
        assert!(names.contains(&Some("getStreamStreamIdEvents")) && names.contains(&Some("postStreamStart")), "{names:?}");
    }

    #[test]
    fn what_the_route_says_itself_stays() {
        let document = document();
        let conflict = &document["paths"]["/api/settings"]["patch"]["responses"]["422"]["description"];
        assert_eq!(conflict, "Values that make no sense: all of them are named");
    }

    #[test]
    fn every_common_status_is_one_of_a_problem() {
        for (status, name, ..) in COMMON {
            let known = Code::ALL.iter().any(|code| code.status().as_u16() == *status) || *status == 408;
            assert!(known, "{name}");
        }
    }
}
