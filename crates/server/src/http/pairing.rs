//! Pairing: the owner opens an offer, a phone takes it.
//!
//! What an offer is, and when it is over, is decided in [`crate::trust::pairing`]. Secrets, codes and tokens go through
//! here once and are neither kept nor logged.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Instant;

use axum::extract::{Extension, FromRequest, Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use jiff::{SignedDuration, Timestamp, Unit};
use serde::{Deserialize, Serialize};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::Admin;
use super::devices::checked_name;
use super::listener::Peer;
use super::problem::{Code, JSON_LIMIT, Json, Path, Problem, ProblemBody, read_body};
use crate::app::App;
use crate::qr;
use crate::trust::devices::{DeviceView, NewDevice};
use crate::trust::pairing::{Claim, Fate, Offer, Refusal, Shown, Standing, Terms};
use crate::trust::{DeviceId, OfferId, name_of};

/// The most characters of a platform's name.
const LONGEST_PLATFORM: usize = 40;
/// What a program that reads the picture aloud says of it.
const QR_TITLE: &str = "QR code that pairs a phone";

/// The routes of this file.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(open)).routes(routes!(look, end)).routes(routes!(pair))
}

/// What the device that comes in shall become.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OpenRequest {
    /// Whose device it will be: the id or name of a person, who is made where there is none. Without it, a new person
    /// with the device's name.
    #[serde(default)]
    person: Option<String>,
    /// Whether the device may do what the owner of this machine may; it is the owner's then. Only this machine's own token may ask for
    /// that: no device makes another its equal.
    #[serde(default)]
    admin: Option<bool>,
}

/// An offer that was opened. Its code and its url are shown this once.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OfferView {
    /// The offer.
    #[schema(value_type = String)]
    offer_id: OfferId,
    /// Eight letters to type.
    code: String,
    /// What the QR code says.
    url: String,
    /// The QR code: dark on white, with its quiet zone.
    qr_svg: String,
    /// RFC 3339.
    expires_at: String,
}

/// How an offer stands.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StandingView {
    /// The offer.
    #[schema(value_type = String)]
    offer_id: OfferId,
    /// What became of it.
    state: Fate,
    /// How many wrong tries it still bears.
    tries_left: u8,
    /// RFC 3339.
    expires_at: String,
    /// While it is open: where a phone reaches this server by now. Another one than in the url after a change of network.
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    /// The device that came in, while it is paired.
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<DeviceView>,
}

/// A device that wants to come in.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PairRequest {
    /// The offer that is meant; without it, the one that is open.
    #[serde(default)]
    offer_id: Option<String>,
    /// What stands in the QR code. This or `code`, not both.
    #[serde(default)]
    secret: Option<String>,
    /// The short code as somebody typed it: in any case, with blanks and hyphens.
    #[serde(default)]
    code: Option<String>,
    /// How the device shall be called: 1 to 60 characters.
    device_name: String,
    /// What it is: `iOS 18`, `Android 15`, `Chrome on Windows`; at most 40 characters.
    #[serde(default)]
    platform: Option<String>,
}

/// A device that came in. Its token is shown this once.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PairedView {
    /// For `Authorization: Bearer`.
    token: String,
    /// The device.
    device_id: String,
    /// Its name.
    device_name: String,
    /// Whose device it is.
    person: String,
    /// This server.
    server: ServerView,
}

/// Which server a device was paired with.
#[derive(Serialize, utoipa::ToSchema)]
pub struct ServerView {
    /// The server's id, the same for its whole life.
    id: String,
    /// Its name.
    name: String,
    /// First 16 bytes of SHA-256 of the certificate authority's public key, base64url.
    fingerprint: String,
    /// The program's version.
    version: &'static str,
}

/// Opens an offer for one device. It takes the place of the one that is open.
#[utoipa::path(post, path = "/api/pairings", tag = "pairing", request_body = OpenRequest,
    responses((status = 201, body = OfferView),
        (status = 403, body = ProblemBody, content_type = "application/problem+json",
            description = "Not the owner's scope; or a device asks for another with the owner's rights")))]
async fn open(State(app): State<App>, Admin(caller): Admin, request: Request) -> Result<Response, Problem> {
    let terms = terms(&wishes(request).await?, caller.device)?;
    let offer = app.pairings.open(Instant::now(), terms);
    tracing::info!(offer = %offer.id, "a pairing offer was opened");
    let url = text_of_qr(reached_at(&app), &offer, &app.tls.fingerprint().short());
    let qr_svg = qr::svg(&url, QR_TITLE).ok_or_else(|| Problem::internal("an address too long for a QR code"))?;
    let location = HeaderValue::from_str(&format!("/api/pairings/{}", offer.id)).map_err(Problem::internal)?;
    let standing = app.pairings.standing(Instant::now(), &offer.id, |id| may_open(&app, id));
    let view = OfferView {
        offer_id: offer.id,
        code: offer.code.reveal().to_owned(),
        url,
        qr_svg,
        expires_at: standing.map(|standing| time_of(standing.ends)).unwrap_or_default(),
    };
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(view)).into_response())
}

/// How an offer stands, and which device came in by it.
#[utoipa::path(get, path = "/api/pairings/{offerId}", tag = "pairing", params(("offerId" = String, Path)),
    responses((status = 200, body = StandingView)))]
async fn look(State(app): State<App>, Admin(caller): Admin, Path(id): Path<String>) -> Result<Json<StandingView>, Problem> {
    let id = OfferId::parse(&id).ok_or_else(no_such_offer)?;
    let standing = app.pairings.standing(Instant::now(), &id, |id| may_open(&app, id)).ok_or_else(no_such_offer)?;
    let address = (standing.fate == Fate::Open).then(|| reached_at(&app).to_string());
    let Standing { fate, tries_left, ends, device } = standing;
    let device = device.and_then(|device| app.devices.get(&device, &caller));
    Ok(Json(StandingView { offer_id: id, state: fate, tries_left, expires_at: time_of(ends), address, device }))
}

/// Takes an offer back. One that is over stays what it is.
#[utoipa::path(delete, path = "/api/pairings/{offerId}", tag = "pairing", params(("offerId" = String, Path)),
    responses((status = 204)))]
async fn end(State(app): State<App>, _: Admin, Path(id): Path<String>) -> Result<StatusCode, Problem> {
    let known = OfferId::parse(&id).is_some_and(|id| app.pairings.end(Instant::now(), &id));
    if known { Ok(StatusCode::NO_CONTENT) } else { Err(no_such_offer()) }
}

/// Lets a device in by the secret of the QR code or by the short code. Needs no token, and gives one. How often one address may try
/// is counted at the door.
#[utoipa::path(post, path = "/api/pair", tag = "pairing", security(()), request_body = PairRequest,
    responses(
        (status = 201, body = PairedView),
        (status = 403, description = "It is not the secret or the code; the detail says how many tries are left", body = ProblemBody, content_type = "application/problem+json"),
        (status = 410, description = "The offer is used, expired, ended or replaced, or never was", body = ProblemBody, content_type = "application/problem+json"),
    ))]
async fn pair(
    State(app): State<App>,
    Extension(peer): Extension<Peer>,
    Json(request): Json<PairRequest>,
) -> Result<(StatusCode, Json<PairedView>), Problem> {
    let from = peer.remote.ip();
    let (id, shown) = attempt(&request)?;
    let (name, platform) = (checked_name("The name of a device", &request.device_name)?, platform(request.platform.as_deref())?);
    let claim = app.pairings.redeem(Instant::now(), id.as_ref(), &shown, |id| may_open(&app, id));
    let claim = claim.map_err(|refusal| refused(refusal, from))?;
    let device = NewDevice { name, platform, person: claim.terms.person.clone(), admin: claim.terms.admin, from };
    let paired = let_in(&app, &claim, device, from).await?;
    Ok((StatusCode::CREATED, Json(paired)))
}

async fn let_in(app: &App, claim: &Claim, device: NewDevice, from: IpAddr) -> Result<PairedView, Problem> {
    let made = app.devices.pair(device).await;
    // Revoked while the new device was written down: nobody has its token yet, so it never was in.
    let orphan = made.as_ref().ok().filter(|_| !may_open(app, &claim.terms.opener)).map(|(device, _)| device.id.clone());
    if let Some(orphan) = orphan {
        app.pairings.settle(&claim.offer, None);
        app.devices.revoke(&orphan).await.map_err(Problem::internal)?;
        return Err(refused(Refusal::Over, from));
    }
    app.pairings.settle(&claim.offer, made.as_ref().ok().map(|(device, _)| device.id.clone()));
    let (device, token) = made.map_err(Problem::internal)?;
    tracing::info!(offer = %claim.offer, device = %device.id, admin = claim.terms.admin, "a device was paired");
    Ok(PairedView {
        token: token.reveal().to_owned(),
        device_id: device.id.to_string(),
        device_name: device.name,
        person: device.person,
        server: ServerView {
            id: app.health.server_id.to_string(),
            name: app.health.name().to_string(),
            fingerprint: app.tls.fingerprint().short(),
            version: env!("CARGO_PKG_VERSION"),
        },
    })
}

/// Whether a device may open offers, and so whether those that it opened still count.
fn may_open(app: &App, device: &DeviceId) -> bool {
    app.devices.holder(device).is_some_and(|holder| holder.admin)
}

/// No body at all wishes for nothing, whatever kind it is said to be.
async fn wishes(request: Request) -> Result<OpenRequest, Problem> {
    let (parts, body) = request.into_parts();
    let bytes = read_body(body, JSON_LIMIT).await?;
    if bytes.is_empty() {
        return Ok(OpenRequest::default());
    }
    Ok(Json::from_request(Request::from_parts(parts, bytes.into()), &()).await?.0)
}

fn terms(request: &OpenRequest, opener: DeviceId) -> Result<Terms, Problem> {
    let admin = request.admin.unwrap_or(false);
    if admin && opener != DeviceId::owner() {
        let sentence = "A device with the owner's rights is let in at this server's own computer only: `balcony-server pair --admin`.";
        return Err(Problem::new(Code::Forbidden, sentence));
    }
    let person = request.person.as_deref().map(|name| checked_name("The name of a person", name)).transpose()?;
    if admin && person.is_some() {
        return Err(Problem::new(Code::Invalid, "A device with the owner's rights is the owner's: leave out the person."));
    }
    Ok(Terms { person, admin, opener })
}

fn attempt(request: &PairRequest) -> Result<(Option<OfferId>, Shown), Problem> {
    let given = |text: &Option<String>| text.as_deref().map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned);
    let shown = match (given(&request.secret), given(&request.code)) {
        (Some(secret), None) => Shown::secret(&secret),
        (None, Some(code)) => Shown::code(&code),
        (None, None) => return Err(Problem::new(Code::Invalid, "A secret or a code is needed.")),
        (Some(_), Some(_)) => return Err(Problem::new(Code::Invalid, "A secret or a code is needed, not both.")),
    };
    // What cannot be an id was never an offer's.
    let over = |_: &str| refusal(Refusal::Over);
    let id = given(&request.offer_id).map(|text| OfferId::parse(&text).ok_or_else(|| over(&text))).transpose()?;
    Ok((id, shown))
}

fn platform(text: Option<&str>) -> Result<String, Problem> {
    let text = text.map(str::trim).filter(|text| !text.is_empty());
    let Some(text) = text else { return Ok(String::new()) };
    let fits = name_of(text).filter(|name| name.chars().count() <= LONGEST_PLATFORM);
    fits.ok_or_else(|| Problem::new(Code::Invalid, format!("A platform has at most {LONGEST_PLATFORM} characters that can be seen.")))
}

fn refused(why: Refusal, from: IpAddr) -> Problem {
    tracing::warn!(%from, %why, "a device was not let in");
    refusal(why)
}

fn refusal(why: Refusal) -> Problem {
    match why {
        Refusal::Over => Problem::new(Code::OfferExpired, "This code has ended. The computer shows a new one."),
        Refusal::Wrong { tries_left } => {
            let left = match tries_left {
                0 => "It has ended now; the computer shows a new one.".to_owned(),
                1 => "1 try left.".to_owned(),
                many => format!("{many} tries left."),
            };
            Problem::new(Code::Forbidden, format!("That is not the code on the computer. {left}"))
        }
    }
}

fn no_such_offer() -> Problem {
    Problem::new(Code::NotFound, "There is no such offer.")
}

fn reached_at(app: &App) -> SocketAddr {
    SocketAddr::new(reached_by(app.config.bind, app.addresses.borrow().best()), app.ports.http)
}

/// By which address a phone is to come: the one that the server was told to listen on, else the best one of the house. Loopback
/// leads a phone to itself, and so stands only where there is nothing else.
fn reached_by(bind: Option<IpAddr>, best: Option<IpAddr>) -> IpAddr {
    let told = bind.filter(|ip| !ip.is_loopback() && !ip.is_unspecified());
    told.or(best).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

/// What the QR code says. All that is secret stands behind the `#`, which no browser sends.
fn text_of_qr(address: SocketAddr, offer: &Offer, fingerprint: &str) -> String {
    format!("http://{address}/p#v1.{}.{}.{fingerprint}", offer.id, offer.secret.reveal())
}

/// A moment of the steady clock as the people's clock will show it, to the second.
fn time_of(moment: Instant) -> String {
    let now = Instant::now();
    let ahead = |time| SignedDuration::try_from(time).unwrap_or(SignedDuration::ZERO);
    let distance = match moment.checked_duration_since(now) {
        Some(left) => ahead(left),
        None => -ahead(now.saturating_duration_since(moment)),
    };
    let then = Timestamp::now().checked_add(distance).and_then(|then| then.round(Unit::Second));
    then.unwrap_or_else(|_| Timestamp::now()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::pairing::Offers;
    use std::time::Duration;

    fn request(json: serde_json::Value) -> PairRequest {
        serde_json::from_value(json).expect("a request")
    }

    #[test]
    fn never_loopback_while_there_is_another() {
        let ip = |text: &str| Some(text.parse::<IpAddr>().expect("address"));
        for (bind, best, expected) in [
            (None, ip("192.168.1.7"), "192.168.1.7"),
            (ip("0.0.0.0"), ip("192.168.1.7"), "192.168.1.7"),
            (ip("127.0.0.1"), ip("192.168.1.7"), "192.168.1.7"),
            (ip("::1"), ip("fd00::7"), "fd00::7"),
            (ip("10.0.0.9"), ip("192.168.1.7"), "10.0.0.9"),
            (ip("127.0.0.1"), None, "127.0.0.1"),
            (None, None, "127.0.0.1"),
        ] {
            assert_eq!(reached_by(bind, best).to_string(), expected, "{bind:?} {best:?}");
        }
    }

    #[test]
    fn the_text_of_the_code() {
        let offer = Offers::default().open(Instant::now(), Terms { person: None, admin: false, opener: DeviceId::owner() });
        let text = |address: &str| text_of_qr(address.parse().expect("address"), &offer, "AAAAAAAAAAAAAAAAAAAAAA");
        let fragment = format!("#v1.{}.{}.AAAAAAAAAAAAAAAAAAAAAA", offer.id, offer.secret.reveal());
        assert_eq!(text("192.168.1.7:3001"), format!("http://192.168.1.7:3001/p{fragment}"));
        assert_eq!(text("[fd00::7]:80"), format!("http://[fd00::7]:80/p{fragment}"));
    }

    #[test]
    fn exactly_one_of_secret_and_code() {
        for (body, right) in [
            (serde_json::json!({"deviceName": "x", "code": "ABCDEFGH"}), true),
            (serde_json::json!({"deviceName": "x", "secret": "s", "code": null}), true),
            (serde_json::json!({"deviceName": "x", "secret": "s", "code": " "}), true),
            (serde_json::json!({"deviceName": "x", "secret": "s", "code": "c"}), false),
            (serde_json::json!({"deviceName": "x", "secret": "", "code": ""}), false),
            (serde_json::json!({"deviceName": "x"}), false),
        ] {
            let answer = attempt(&request(body.clone()));
            assert_eq!(answer.map_err(|problem| problem.code).err(), (!right).then_some(Code::Invalid), "{body}");
        }
        let odd = attempt(&request(serde_json::json!({"deviceName": "x", "code": "c", "offerId": "../x"})));
        assert_eq!(odd.expect_err("refused").code, Code::OfferExpired);
    }

    #[test]
    fn what_a_device_and_its_owner_may_be_called() {
        let long = |n: usize| "x".repeat(n);
        assert_eq!(checked_name("The name of a device", " Pixel 8 ").map_err(|problem| problem.code), Ok("Pixel 8".to_owned()));
        for bad in ["", " ", "\u{202e}", &long(61)] {
            assert_eq!(checked_name("The name of a device", bad).map_err(|problem| problem.code), Err(Code::Invalid), "{bad:?}");
        }
        for (given, kept) in [(None, Some("")), (Some(""), Some("")), (Some(" iOS\u{7} 18 "), Some("iOS 18")), (Some(&*long(41)), None)] {
            assert_eq!(platform(given).ok().as_deref(), kept, "{given:?}");
        }
        let opener = DeviceId::owner;
        let wish = |person: Option<&str>, admin| terms(&OpenRequest { person: person.map(str::to_owned), admin }, opener());
        assert_eq!(wish(Some(" Anna "), None).ok(), Some(Terms { person: Some("Anna".into()), admin: false, opener: opener() }));
        assert_eq!(wish(None, Some(true)).ok(), Some(Terms { person: None, admin: true, opener: opener() }));
        assert!(wish(Some("Anna"), Some(true)).is_err() && wish(Some(" "), None).is_err());
    }

    #[test]
    fn no_device_makes_another_its_equal() {
        for (admin, refused) in [(None, None), (Some(false), None), (Some(true), Some(Code::Forbidden))] {
            let answer = terms(&OpenRequest { person: None, admin }, DeviceId::random());
            assert_eq!(answer.map_err(|problem| problem.code).err(), refused, "{admin:?}");
        }
    }

    #[test]
    fn tries_are_counted_in_words() {
        let said = |tries_left| refusal(Refusal::Wrong { tries_left }).detail;
        assert_eq!(said(3), "That is not the code on the computer. 3 tries left.");
        assert_eq!(said(1), "That is not the code on the computer. 1 try left.");
        assert_eq!(said(0), "That is not the code on the computer. It has ended now; the computer shows a new one.");
    }

    #[test]
    fn the_end_is_told_by_the_peoples_clock() {
        let told = |moment| time_of(moment).parse::<Timestamp>().expect("RFC 3339");
        let now = Instant::now();
        for ahead in [-3_i64, 0, 120] {
            let moment =
                if ahead < 0 { now.checked_sub(Duration::from_secs(3)) } else { now.checked_add(Duration::from_secs(ahead as u64)) };
            let distance = told(moment.expect("a moment")).duration_since(Timestamp::now()).as_secs();
            assert!((distance - ahead).abs() <= 1, "{ahead} {distance}");
        }
    }
}
