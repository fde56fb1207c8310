//! The scheme, host and port by which a client came in: what absolute URLs in answers begin with.
//!
//! What a reverse proxy says about the client (`X-Forwarded-Proto` and the like) is not believed: anyone can say it.

use axum::extract::FromRequestParts;
use http::request::Parts;

use super::Authority;
use super::listener::{Entrance, Peer};
use super::problem::{Code, Problem};

/// `http://127.0.0.1:3001`, without a slash at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base(String);

impl Base {
    /// The base for a client that came in there and knows this server by this authority.
    pub fn of(entrance: Entrance, authority: &str) -> Self {
        let scheme = match entrance {
            Entrance::Tls | Entrance::PlainOnTls => "https",
            Entrance::Loopback | Entrance::Lan => "http",
        };
        Self(format!("{scheme}://{authority}"))
    }

    /// As it stands before a path.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Base {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let entrance = parts.extensions.get::<Peer>().map_or(Entrance::Loopback, |peer| peer.entrance);
        let authority = parts.extensions.get::<Authority>();
        let base = authority.map(|authority| Self::of(entrance, &authority.0));
        base.ok_or_else(|| Problem::new(Code::BadRequest, "The request names no host."))
    }
}
