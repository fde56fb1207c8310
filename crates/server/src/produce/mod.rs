//! Making segments just in time.

pub mod assemble;
pub mod encode;
pub mod probe;
