//! The headless server: no window, nothing but the library.

use std::process::ExitCode;

use balcony_server::start::{self, Begun};

/// Gives back what films leave behind that are no longer watched; the system's own keeps it for good, in pieces.
#[global_allocator]
static MEMORY: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match start::begin(std::env::args_os().skip(1)) {
        Begun::Ended(code) => code,
        Begun::Serve(resolved) => start::serve(*resolved),
    }
}
