//! What the program was told, from what was typed to what it needs.
//!
//! [`typed`] reads flags, environment and `config.toml` into plain words; [`resolved`] checks all of
//! them at once, as a pure function. Nothing here opens a file, asks the clock or starts anything.

pub mod edited;
pub mod listed;
pub mod resolved;
pub mod typed;

pub use resolved::{Command, Machine, Mistakes, Resolved, Told, cache_budget, config_dir, resolve};
pub use typed::{Typed, Words, from_environment, from_file, from_flags};
