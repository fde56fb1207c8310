//! The server inside, asked as every client asks it: over HTTP on loopback, with the token of this run.

use std::time::Duration;

use balcony_server::app::Listening;
use reqwest::{Client, Method, RequestBuilder, Response};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// How long an answer may take. The report of the doctor tries things out.
const ANSWERS_WITHIN: Duration = Duration::from_secs(30);
/// The server sends a comment every 15 s: a line that is silent for so long is dead.
const SILENCE: Duration = Duration::from_secs(40);

/// Where the server is and what opens it. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    client: Client,
    /// `host:port`.
    at: String,
    token: String,
}

/// Why the server did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// It says why.
    #[error("{detail}")]
    Said {
        /// The stable word for it.
        code: String,
        /// A sentence.
        detail: String,
    },
    /// It did not answer, or not as itself.
    #[error(transparent)]
    Silent(#[from] reqwest::Error),
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Problem {
    code: String,
    detail: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Begun {
    stream_id: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Linked {
    magnet_link: String,
}

impl Server {
    /// The server that listens there.
    ///
    /// # Errors
    /// When there is no client for it.
    pub(crate) fn at(listening: &Listening) -> reqwest::Result<Self> {
        // Never through a proxy: the token is for this machine.
        let client = Client::builder().no_proxy().connect_timeout(Duration::from_secs(5)).read_timeout(SILENCE).build()?;
        Ok(Self { client, at: listening.http.to_string(), token: listening.owner.reveal().to_owned() })
    }

    /// What a page must know to reach it: `host:port`, and a token.
    pub(crate) fn reached(&self) -> (&str, &str) {
        (&self.at, &self.token)
    }

    /// Everything that happens, as server-sent events.
    pub(crate) async fn events(&self) -> Result<Response, Refusal> {
        checked(self.ask(Method::GET, "/api/events").send().await?).await
    }

    /// Starts a stream of a magnet link; answers its id.
    pub(crate) async fn start(&self, magnet: &str) -> Result<String, Refusal> {
        let begun: Begun = self.told(self.ask(Method::POST, "/api/stream/start").json(&json!({ "magnetLink": magnet }))).await?;
        Ok(begun.stream_id)
    }

    /// Makes a magnet link of a torrent file.
    pub(crate) async fn magnet_of(&self, torrent: Vec<u8>) -> Result<String, Refusal> {
        let request = self.ask(Method::POST, "/api/torrents/magnet").header("content-type", "application/x-bittorrent").body(torrent);
        let linked: Linked = self.told(request).await?;
        Ok(linked.magnet_link)
    }

    /// Stops a stream.
    pub(crate) async fn stop(&self, stream: &str) -> Result<(), Refusal> {
        self.told::<Value>(self.ask(Method::DELETE, &format!("/api/stream/{stream}"))).await.map(drop)
    }

    /// Pauses all that is fetched and sent, or goes on with it.
    pub(crate) async fn pause(&self, paused: bool) -> Result<(), Refusal> {
        self.told::<Value>(self.ask(Method::PUT, "/api/pause").json(&json!({ "paused": paused }))).await.map(drop)
    }

    /// Locks a device out.
    pub(crate) async fn revoke(&self, device: &str) -> Result<(), Refusal> {
        let request = self.ask(Method::DELETE, &format!("/api/devices/{device}")).timeout(ANSWERS_WITHIN);
        checked(request.send().await?).await.map(drop)
    }

    /// What the doctor found, as a text for who helps.
    pub(crate) async fn report(&self) -> Result<String, Refusal> {
        let request = self.ask(Method::GET, "/api/doctor/report").timeout(ANSWERS_WITHIN);
        Ok(checked(request.send().await?).await?.text().await?)
    }

    fn ask(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("http://{}{path}", self.at)).bearer_auth(&self.token)
    }

    async fn told<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, Refusal> {
        Ok(checked(request.timeout(ANSWERS_WITHIN).send().await?).await?.json().await?)
    }
}

async fn checked(answer: Response) -> Result<Response, Refusal> {
    if answer.status().is_success() {
        return Ok(answer);
    }
    let problem: Problem = answer.json().await?;
    Err(Refusal::Said { code: problem.code, detail: problem.detail })
}
