//! The headless server: no window, nothing but the library.

use std::process::ExitCode;

use balcony_server::start::{self, Begun};

fn main() -> ExitCode {
    match start::begin(std::env::args_os().skip(1)) {
        Begun::Ended(code) => code,
        Begun::Serve(resolved) => start::serve(*resolved),
    }
}
