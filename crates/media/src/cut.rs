//! cut.
