//! Bytes, numbers and decisions of Balcony. Pure: no tokio, no file system, no process, no clock.
//!
//! In the order of a magnet's way: [`magnet`] is checked, [`container`] tells what the film file holds, [`cut`] divides it into
//! segments, [`plan`] decides what is copied and what is converted, [`fmp4`] packages, [`playlist`] tells the player.

#![forbid(unsafe_code)]

pub mod codec;
pub mod container;
pub mod cut;
pub mod device;
pub mod encoder;
pub mod fetched;
pub mod ffmpeg;
pub mod fmp4;
pub mod ladder;
pub mod magnet;
pub mod plan;
pub mod playlist;
pub mod range;
pub mod segment;
pub mod subtitle;
