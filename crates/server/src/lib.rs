//! The Balcony server: torrents in, HLS out, for the phones of one house.
//!
//! The way of one magnet leads from `http` (the door) through the life of a stream and the torrent to the
//! segments that a player asks for; [`app`] wires the parts and stops them in order.

mod amount;
pub mod app;
pub mod awake;
pub mod budget;
pub mod cage;
pub mod config;
pub mod data_dir;
pub mod discovery;
pub mod doctor;
pub mod download;
pub mod film;
pub mod heap;
pub mod history;
pub mod http;
pub mod lan;
mod lock;
pub mod logging;
pub mod loopback;
pub mod manifest;
pub mod metrics;
pub mod mock;
pub mod notify;
pub mod pair;
pub mod presence;
pub mod produce;
pub mod programs;
pub mod qr;
pub mod reset_ca;
pub mod sample;
pub mod segments;
pub mod settings;
pub mod source;
pub mod spawner;
pub mod start;
pub mod store;
pub mod stream;
pub mod subtitles;
pub mod swarm;
pub mod tasks;
pub mod torrent;
pub mod trust;
