//! The scheme, host and port by which a client came in: what absolute URLs in answers begin with.

use axum::extract::FromRequestParts;
use http::request::Parts;

use super::Authority;
use super::problem::{Code, Problem};

/// `http://127.0.0.1:3001`, without a slash at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base(String);

impl Base {
    /// The base for a client that knows this server by this authority.
    pub fn of(authority: &str) -> Self {
        Self(format!("http://{authority}"))
    }

    /// As it stands before a path.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Base {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let authority = parts.extensions.get::<Authority>();
        authority.map(|authority| Self::of(&authority.0)).ok_or_else(|| Problem::new(Code::BadRequest, "The request names no host."))
    }
}
