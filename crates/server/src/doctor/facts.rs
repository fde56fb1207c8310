//! What was observed, as values. Nothing here says whether it is good.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;

use super::Check;
use crate::cage::Report;
use crate::produce::trial;
use crate::programs::best;
use crate::store::Soundness;

/// All of it; what was not looked at is missing.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Who runs on the data folder.
    pub server: Option<Server>,
    /// The program ffmpeg.
    pub ffmpeg: Option<Program>,
    /// The program ffprobe.
    pub ffprobe: Option<Program>,
    /// What ffmpeg was built with, or why that is not known.
    pub parts: Option<Result<Parts, String>>,
    /// How long ffmpeg takes to start.
    pub starts_in: Option<Duration>,
    /// The ffmpegs that it was chosen from, where there was a choice.
    pub choice: best::Choice,
    /// What became of the trials to convert.
    pub trials: Option<Trials>,
    /// The walls around ffmpeg, or why they could not be tried.
    pub cage: Option<Result<Report, String>>,
    /// The ports.
    pub ports: Option<Ports>,
    /// The folders.
    pub folders: Vec<Folder>,
    /// Space on the disks.
    pub space: Option<Space>,
    /// The database.
    pub database: Option<Database>,
    /// The certificate.
    pub certificate: Option<Certificate>,
    /// How phones find the server.
    pub discovery: Option<Discovery>,
    /// How peers are found.
    pub torrents: Option<Torrents>,
    /// The clock.
    pub clock: Option<Clock>,
    /// What did not answer in time.
    pub late: BTreeSet<Check>,
}

/// Who runs on the data folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// Nobody.
    Nobody,
    /// A server that answers.
    Runs {
        /// Its process.
        pid: u32,
    },
    /// A process that should be one and does not answer.
    Silent {
        /// The process.
        pid: u32,
    },
}

/// A program that the server needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// As it was asked for: a path, or a name that is looked up.
    pub asked: PathBuf,
    /// What became of asking it for its version.
    pub state: ProgramState,
}

/// What became of asking a program for its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProgramState {
    /// There is no such program.
    Missing,
    /// It did not run, or ended with an error.
    Unusable(String),
    /// It did not answer in time.
    Hangs,
    /// It answered.
    Runs {
        /// Where it is.
        path: PathBuf,
        /// Its version in its own words; empty where it told none.
        version: String,
    },
}

/// Names of what an ffmpeg was built with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parts {
    /// Containers that it opens.
    pub demuxers: BTreeSet<String>,
    /// What it decodes with.
    pub decoders: BTreeSet<String>,
    /// What it encodes with.
    pub encoders: BTreeSet<String>,
    /// Its filters.
    pub filters: BTreeSet<String>,
}

/// What became of the trials to convert, made in the cage, as films are converted.
#[derive(Debug, Clone, PartialEq)]
pub struct Trials {
    /// By the processor: `None` where it worked, else the reason.
    pub processor: Option<String>,
    /// By encoders in silicon.
    pub silicon: trial::Told,
}

/// The ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ports {
    /// The server that runs listens on them.
    Ours {
        /// Plain HTTP.
        http: u16,
        /// HTTPS.
        https: u16,
    },
    /// They were opened for a moment.
    Tried(Vec<Port>),
}

/// A port that was opened for a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Its number; 0 is any.
    pub number: u16,
    /// The flag that says so.
    pub flag: &'static str,
    /// What became of it.
    pub state: PortState,
}

/// What became of opening a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortState {
    /// It is free.
    Free,
    /// Another process has it: its name and number, where they can be seen.
    Taken(Option<(String, u32)>),
    /// This user may not open it.
    Forbidden,
    /// This machine does not have the address.
    NoAddress(IpAddr),
    /// Anything else.
    Unusable(String),
}

/// A folder of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder {
    /// `data` or `cache`.
    pub which: &'static str,
    /// Where it is.
    pub path: PathBuf,
    /// How it is.
    pub state: FolderState,
}

/// How a folder is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FolderState {
    /// It can be written, and others cannot look into it.
    Fine,
    /// It is not there, and can be made.
    Absent,
    /// Others can look into it.
    Open,
    /// It cannot be made, or not be written, for this reason.
    Unusable(String),
    /// Its disk does not answer.
    Silent,
}

/// Space on the disks, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Free on the disk of the cache folder.
    pub free: u64,
    /// Free on the disk of the data folder.
    pub free_for_data: u64,
    /// What the cache folder takes.
    pub used: u64,
    /// Free space that is never touched.
    pub reserve: u64,
    /// What films may take, as it was asked for.
    pub asked: u64,
    /// What films may take in truth.
    pub budget: u64,
}

/// The database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Database {
    /// Its file.
    pub path: PathBuf,
    /// How it is.
    pub state: Soundness,
    /// The last one that was broken and set aside, and when.
    pub aside: Option<(Timestamp, PathBuf)>,
}

/// The certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Certificate {
    /// There is none yet.
    ToBeMade,
    /// An authority of our own is there; the server that starts makes a certificate.
    Authority {
        /// Its end.
        until: Timestamp,
    },
    /// It cannot be used, for this reason.
    Unusable(String),
    /// It is in use, or would be.
    Served {
        /// The end of our own authority; `None` with the user's own certificate.
        authority_until: Option<Timestamp>,
        /// Its end.
        until: Timestamp,
        /// Addresses of this machine that it should name and does not.
        lacking: Vec<IpAddr>,
    },
}

/// How phones find the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discovery {
    /// It is not announced.
    pub switched_off: bool,
    /// It listens to this machine only.
    pub alone: bool,
    /// The address that a phone is told.
    pub address: Option<IpAddr>,
    /// Why nothing can be announced, where that is so.
    pub obstacle: Option<String>,
}

/// How peers are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Torrents {
    /// Nobody is asked for anything.
    pub mock: bool,
    /// The DHT is asked.
    pub dht: bool,
    /// Trackers are asked.
    pub trackers: bool,
    /// Torrents may talk to private addresses.
    pub private: bool,
    /// How many nodes of the DHT are known, and for how long it was tried.
    pub nodes: Option<(usize, Duration)>,
}

/// The clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// What it says.
    pub now: Timestamp,
    /// The newest time in the database.
    pub newest: Option<Timestamp>,
}
