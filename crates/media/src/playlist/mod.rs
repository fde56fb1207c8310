//! Text that players read.

pub mod dash;
pub mod hls;
pub mod images;
