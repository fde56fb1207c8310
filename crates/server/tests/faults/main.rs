//! Faults, one to a test, each with its promise as its name: the real server from outside, a real seeder behind a line that does what it
//! is told, and somebody who watches a film meanwhile.
//!
//! Every test writes a row: the fault, what the viewer was told, how long after its end the film went on, and what was lost. With
//! `FAULTS_TABLE` naming a folder the rows are kept there; `bench/faults.py` makes a table of them. What a film, a torrent or a link may
//! do to the server by being wrong from the beginning is tried in `trouble.rs` and `hostile.rs`.
#![cfg(target_os = "linux")]

#[path = "../support/films.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod films;
#[path = "../support/server.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod server;
#[path = "../support/swarm.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod swarm;

mod cable;
mod line;
mod stage;
mod viewer;

mod clients;
mod clock;
mod disk;
mod network;
mod process;
mod restart;
