//! The headless server: `balcony-server`.

fn main() {}
