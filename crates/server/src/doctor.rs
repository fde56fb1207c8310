//! What is well on this machine, what is not, and what to do about it: for people, one plain sentence each.
//!
//! [`look`] observes and decides nothing; [`judge`] decides and observes nothing, so that each finding has its table of tests; [`words`]
//! says it. The server examines itself when its owner asks ([`Examinations`]), and `balcony-server doctor` works beside it or alone
//! ([`command`]). Nothing is repaired here.

pub mod bundle;
mod command;
mod examinations;
pub mod facts;
mod judge;
mod look;
mod ports;
mod report;
mod words;

pub(crate) use judge::{CODECS, is_too_old};

pub use command::run;
pub use examinations::Examinations;
use judge::judge;
pub use look::{Inside, Place, Standing, shortcomings};
pub use report::{Household, report};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Check {
    /// Whether a server runs on the data folder.
    Server,
    /// The program ffmpeg, and what it was built with.
    Ffmpeg,
    /// The program ffprobe.
    Ffprobe,
    /// Whether films can be converted.
    Encoders,
    /// The walls around ffmpeg.
    Cage,
    /// Where the server listens.
    Ports,
    /// The folders, and the space on their disks.
    Disk,
    /// The database.
    Database,
    /// The certificate, and its authority.
    Certificate,
    /// How phones find the server.
    Discovery,
    /// How peers are found.
    Torrents,
    /// The clock.
    Clock,
}

impl Check {
    /// As it stands in answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Ffmpeg => "ffmpeg",
            Self::Ffprobe => "ffprobe",
            Self::Encoders => "encoders",
            Self::Cage => "cage",
            Self::Ports => "ports",
            Self::Disk => "disk",
            Self::Database => "database",
            Self::Certificate => "certificate",
            Self::Discovery => "discovery",
            Self::Torrents => "torrents",
            Self::Clock => "clock",
        }
    }
}

/// How a thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Good,
    /// Worth knowing; the server works.
    Note,
    /// Something does not work until somebody does something about it.
    Broken,
}

impl Level {
    /// As it stands in answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Note => "note",
            Self::Broken => "broken",
        }
    }
}

/// One thing that was found out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// What was looked at.
    pub check: Check,
    /// How it is.
    pub level: Level,
    /// One sentence for people: what is so, and what to do.
    pub message: String,
    /// Stable name of the sentence.
    pub message_key: String,
    /// What stands in the sentence. Names that end in `Bytes` are sizes.
    pub message_params: Map<String, Value>,
}

impl Finding {
    fn new(check: Check, level: Level, key: &'static str, params: Value) -> Self {
        let params = if let Value::Object(params) = params { params } else { Map::new() };
        Self { check, level, message: words::say(key, &params), message_key: key.to_owned(), message_params: params }
    }
}

/// All that an examination found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = Doctor)]
pub struct Diagnosis {
    /// Whether nothing is broken.
    pub ok: bool,
    /// Version of the program.
    pub version: String,
    /// What was found out, check by check.
    pub findings: Vec<Finding>,
}

impl Diagnosis {
    /// Of these findings.
    pub fn of(mut findings: Vec<Finding>) -> Self {
        findings.sort_by_key(|finding| finding.check);
        let ok = findings.iter().all(|finding| finding.level != Level::Broken);
        Self { ok, version: env!("CARGO_PKG_VERSION").to_owned(), findings }
    }
}

/// Looks at everything and says what it means.
pub async fn examine(place: &Place, standing: &Standing) -> Vec<Finding> {
    let facts = look::look(place, standing).await;
    judge(&facts, Timestamp::now(), &place.config.data_dir.display().to_string(), look::ANSWER.as_secs())
}
