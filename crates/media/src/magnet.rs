//! magnet.
