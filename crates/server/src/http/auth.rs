//! Who is asking. The door finds the token (header or path prefix) before routing; handlers take [`Caller`] from it.
//!
//! It fails closed: the door lets nothing of the API through without a caller, whether the handler asks for one or not.

use std::net::IpAddr;

use axum::extract::FromRequestParts;
use http::header::{self, HeaderMap, HeaderValue};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{StatusCode, Uri};
use tokio_util::sync::CancellationToken;

use super::problem::{Code, Problem};
use crate::trust::{Devices, Token};

/// The device that asks, and whose it is. Extracted by handlers; answered with 401 where there is none.
pub use crate::trust::Holder as Caller;

/// In the extensions of an answer: cancelled when whoever it is for may no longer have it. The answer's body breaks off then.
#[derive(Debug, Clone)]
pub struct Gone(pub CancellationToken);

impl Caller {
    /// Refuses everyone but the owner of the machine.
    ///
    /// # Errors
    /// `forbidden`.
    pub fn require_admin(&self) -> Result<(), Problem> {
        if self.admin { Ok(()) } else { Err(Problem::new(Code::Forbidden, "Only the owner of this server may do that.")) }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts.extensions.get::<Self>().cloned().ok_or_else(unauthenticated)
    }
}

/// The owner of the machine. Extracted by handlers that are for nobody else: everyone else is refused before anything of what they sent is
/// looked at.
#[derive(Debug, Clone)]
pub struct Admin(pub Caller);

impl<S: Send + Sync> FromRequestParts<S> for Admin {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let caller = Caller::from_request_parts(parts, state).await?;
        caller.require_admin()?;
        Ok(Self(caller))
    }
}

/// The answer to everyone who is not known. It does not tell a wrong token from none.
pub fn unauthenticated() -> Problem {
    Problem::new(Code::Unauthenticated, "This address needs a token that this server knows.")
        .with_status(StatusCode::UNAUTHORIZED)
        .header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
}

/// Finds the caller by the `Authorization` header, or by the token of the path prefix.
pub fn identify(devices: &Devices, headers: &HeaderMap, prefix: Option<Token>, from: IpAddr) -> Option<Caller> {
    let token = match bearer(headers) {
        Shown::Token(token) => token,
        Shown::Nothing => prefix?,
        Shown::Rubbish => return None,
    };
    devices.who(&token, from)
}

enum Shown {
    Nothing,
    Rubbish,
    Token(Token),
}

/// `Authorization: Bearer …` (RFC 6750 section 2.1); the scheme in any case.
fn bearer(headers: &HeaderMap) -> Shown {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return if headers.contains_key(header::AUTHORIZATION) { Shown::Rubbish } else { Shown::Nothing };
    };
    let token = value.to_str().ok().and_then(|text| text.split_once(' '));
    let token = token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    token.and_then(|(_, token)| Token::parse(token.trim())).map_or(Shown::Rubbish, Shown::Token)
}

/// A path that began with `/t/<token>`.
#[derive(Debug)]
pub enum Prefix {
    /// It did not.
    None,
    /// It did; the token, and the address without it.
    Token(Token, Uri),
    /// It did, but no token stands there, or nothing of the API behind it.
    Broken,
}

/// Takes the token out of a path: `/t/<token>/api/…` is `/api/…`.
pub fn take_prefix(uri: &Uri) -> Prefix {
    let Some(rest) = uri.path().strip_prefix("/t/") else { return Prefix::None };
    let Some((token, path)) = rest.split_once('/') else { return Prefix::Broken };
    let in_api = path == "metrics" || path.starts_with("api/");
    let (Some(token), true) = (Token::parse(token), in_api) else { return Prefix::Broken };
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let Ok(path) = format!("/{path}{query}").parse::<PathAndQuery>() else { return Prefix::Broken };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(path);
    Uri::from_parts(parts).map_or(Prefix::Broken, |uri| Prefix::Token(token, uri))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::Store;

    fn with(values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (header::AUTHORIZATION, HeaderValue::from_str(value).expect("value"))).collect()
    }

    #[tokio::test]
    async fn the_token_may_stand_in_the_header_or_in_the_path() {
        let (token, other) = (Token::random(), Token::random());
        let folder = tempfile::tempdir().expect("folder");
        let store = Arc::new(Store::open(&folder.path().join("db")).expect("opened"));
        let devices = Devices::open(store, &token).await.expect("opened");
        let (good, bad) = (format!("Bearer {}", token.reveal()), format!("Bearer {}", other.reveal()));
        let table: [(&[&str], Option<&Token>, bool); 9] = [
            (&[], None, false),
            (&[&good], None, true),
            (&[&good.replace("Bearer", "bEARER")], None, true),
            (&[&bad], None, false),
            (&[&good, &good], None, false),
            (&[&good.replace("Bearer", "Basic")], None, false),
            (&[], Some(&token), true),
            (&[], Some(&other), false),
            // Two tokens that differ: the header counts.
            (&[&bad], Some(&token), false),
        ];
        for (headers, prefix, expected) in table {
            assert_eq!(identify(&devices, &with(headers), prefix.cloned(), IpAddr::from([127, 0, 0, 1])).is_some(), expected);
        }
    }

    #[test]
    fn prefixes() {
        let token = Token::random();
        let uri = |text: String| text.parse::<Uri>().expect("uri");
        let taken = take_prefix(&uri(format!("http://h:1/t/{}/api/streams?a=%2F", token.reveal())));
        let Prefix::Token(found, rest) = taken else { panic!("{taken:?}") };
        assert_eq!((found.reveal(), rest.to_string().as_str()), (token.reveal(), "http://h:1/api/streams?a=%2F"));
        for broken in [
            "/t/",
            "/t/x",
            "/t/x/api/streams",
            &format!("/t/{}", token.reveal()),
            &format!("/t/{}/m/x", token.reveal()),
            &format!("/t/{}//api/x", token.reveal()),
        ] {
            assert!(matches!(take_prefix(&uri(broken.to_owned())), Prefix::Broken), "{broken}");
        }
        for none in ["/", "/t", "/api/t/x", "/tt/x/api"] {
            assert!(matches!(take_prefix(&uri(none.to_owned())), Prefix::None), "{none}");
        }
    }
}
