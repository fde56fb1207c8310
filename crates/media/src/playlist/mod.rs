//! Text that players read.

pub mod hls;
