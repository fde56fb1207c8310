//! HTTP ranges (RFC 9110, section 14): what part of a file a request asks for.
//!
//! One range of bytes is served as a part. What a server may ignore is ignored here (other units, broken syntax, several ranges):
//! then the whole file is right, and a player copes with that. Sending is the caller's.

/// The answer to a `Range` header for a representation of known length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ranges {
    /// Everything, status 200.
    Whole,
    /// The bytes `start..=end`, status 206. Always `start <= end < len`.
    One {
        /// Offset of the first byte.
        start: u64,
        /// Offset of the last byte, inclusive.
        end: u64,
    },
    /// Nothing that exists, status 416.
    Unsatisfiable,
}

impl Ranges {
    /// HTTP status of the answer.
    pub const fn status(self) -> u16 {
        match self {
            Self::Whole => 200,
            Self::One { .. } => 206,
            Self::Unsatisfiable => 416,
        }
    }

    /// Offset and number of the bytes to send of a file of `len` bytes; `None` for a 416.
    pub const fn span(self, len: u64) -> Option<(u64, u64)> {
        match self {
            Self::Whole => Some((0, len)),
            Self::One { start, end } => Some((start, end.saturating_sub(start).saturating_add(1))),
            Self::Unsatisfiable => None,
        }
    }

    /// Value of the `Content-Range` header (section 14.4) for a file of `len` bytes; `None` where there must be none.
    pub fn content_range(self, len: u64) -> Option<String> {
        match self {
            Self::Whole => None,
            Self::One { start, end } => Some(format!("bytes {start}-{end}/{len}")),
            Self::Unsatisfiable => Some(format!("bytes */{len}")),
        }
    }
}

/// Reads a `Range` header for a representation of `len` bytes.
///
/// To be asked for GET only, and only if [`if_range_holds`]. Empty list elements are passed over (section 5.6.1.2), numbers of any
/// length are understood, a last byte beyond the end means the end.
pub fn parse(header: Option<&str>, len: u64) -> Ranges {
    header.and_then(only_spec).and_then(|spec| one(spec, len)).unwrap_or(Ranges::Whole)
}

/// The one range-spec of a header in bytes, or `None` where the header is to be ignored.
fn only_spec(header: &str) -> Option<&str> {
    let (unit, set) = header.split_once('=')?;
    if !unit.trim_matches(BLANK).eq_ignore_ascii_case("bytes") {
        return None;
    }
    let mut specs = set.split(',').map(|spec| spec.trim_matches(BLANK)).filter(|spec| !spec.is_empty());
    let spec = specs.next()?;
    specs.next().is_none().then_some(spec)
}

const BLANK: [char; 2] = [' ', '\t'];

/// `None` when the syntax is broken.
fn one(spec: &str, len: u64) -> Option<Ranges> {
    let (first, last) = spec.split_once('-')?;
    if first.is_empty() {
        return number(last).map(|count| suffix(count, len));
    }
    let first = number(first)?;
    let last = if last.is_empty() { u64::MAX } else { number(last)? };
    if last < first {
        return None;
    }
    if first >= len {
        return Some(Ranges::Unsatisfiable);
    }
    Some(Ranges::One { start: first, end: last.min(len - 1) })
}

/// The last `count` bytes. Of an empty file any number of last bytes is the whole of it, which no `Content-Range` can say: 200.
fn suffix(count: u64, len: u64) -> Ranges {
    match (count, len) {
        (0, _) => Ranges::Unsatisfiable,
        (_, 0) => Ranges::Whole,
        _ => Ranges::One { start: len.saturating_sub(count), end: len - 1 },
    }
}

/// Decimal digits only; what is too large for any file is as good as the largest number.
fn number(digits: &str) -> Option<u64> {
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    Some(digits.parse().unwrap_or(u64::MAX))
}

/// Whether `Range` counts, given the request's `If-Range` (section 13.1.5) and what the representation is now.
///
/// An entity tag must match strongly (a weak one never does), a date must be the very text of our `Last-Modified`: a date in another
/// form gets the whole file, which is always right. Without `If-Range` the range counts.
pub fn if_range_holds(if_range: Option<&str>, etag: Option<&str>, last_modified: Option<&str>) -> bool {
    let Some(wanted) = if_range.map(|value| value.trim_matches(BLANK)) else { return true };
    if wanted.starts_with('"') {
        return is_strong_tag(wanted) && etag == Some(wanted);
    }
    !wanted.is_empty() && !wanted.starts_with("W/") && last_modified == Some(wanted)
}

/// One quoted opaque tag (section 8.8.3).
fn is_strong_tag(value: &str) -> bool {
    value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).is_some_and(|opaque| !opaque.contains('"'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(header: &str, len: u64, expect: &str) {
        let ranges = parse(Some(header), len);
        let told = match ranges.content_range(len) {
            Some(value) => format!("{} {value}", ranges.status()),
            None => ranges.status().to_string(),
        };
        assert_eq!(told, expect, "{header:?} of {len}");
    }

    #[test]
    fn serves_one_range() {
        check("bytes=0-0", 100, "206 bytes 0-0/100");
        check("bytes=0-", 100, "206 bytes 0-99/100");
        check("bytes=10-19", 100, "206 bytes 10-19/100");
        check("bytes=99-99", 100, "206 bytes 99-99/100");
        check("bytes=90-1000", 100, "206 bytes 90-99/100");
        check("bytes=-1", 100, "206 bytes 99-99/100");
        check("bytes=-100", 100, "206 bytes 0-99/100");
        check("bytes=-101", 100, "206 bytes 0-99/100");
        check("bytes=000010-000019", 100, "206 bytes 10-19/100");
        check("BYTES=1-2", 100, "206 bytes 1-2/100");
        check(" bytes = 1-2 ", 100, "206 bytes 1-2/100");
        check("bytes=, \t,1-2,,", 100, "206 bytes 1-2/100");
        check("bytes=0-18446744073709551615", u64::MAX, "206 bytes 0-18446744073709551614/18446744073709551615");
    }

    #[test]
    fn digits_that_overflow_are_large_numbers() {
        let digits = "9".repeat(40);
        check(&format!("bytes=5-{digits}"), 100, "206 bytes 5-99/100");
        check(&format!("bytes=-{digits}"), 100, "206 bytes 0-99/100");
        check(&format!("bytes={digits}-"), 100, "416 bytes */100");
        check("bytes=18446744073709551615-", u64::MAX, "416 bytes */18446744073709551615");
    }

    #[test]
    fn refuses_what_does_not_exist() {
        check("bytes=100-", 100, "416 bytes */100");
        check("bytes=100-200", 100, "416 bytes */100");
        check("bytes=-0", 100, "416 bytes */100");
        check("bytes=0-", 0, "416 bytes */0");
        check("bytes=0-0", 0, "416 bytes */0");
        check("bytes=-0", 0, "416 bytes */0");
        check("bytes=-5", 0, "200");
    }

    #[test]
    fn ignores_what_it_may() {
        for header in [
            "",
            "bytes",
            "bytes=",
            "bytes=,",
            "bytes=-",
            "bytes=--1",
            "bytes=5-4",
            "bytes=1",
            "bytes=a-b",
            "bytes=1-b",
            "bytes=+1-2",
            "bytes=0x1-2",
            "bytes=1 - 2",
            "bytes=1-2-3",
            "bytes=１-２",
            "items=0-1",
            "bytes:0-1",
            "=0-1",
            "bytes=0-1,5-6",
            "bytes=0-1,-1",
            "bytes=0-1,banana",
            "bytes=200-,300-",
        ] {
            check(header, 100, "200");
        }
        assert_eq!(parse(None, 100), Ranges::Whole);
    }

    #[test]
    fn span_is_what_is_sent() {
        assert_eq!(Ranges::Whole.span(7), Some((0, 7)));
        assert_eq!(Ranges::One { start: 2, end: 4 }.span(7), Some((2, 3)));
        assert_eq!(Ranges::Unsatisfiable.span(7), None);
    }

    #[test]
    fn if_range_compares_strongly() {
        let (tag, date) = (Some("\"a\""), Some("Sat, 29 Oct 1994 19:43:31 GMT"));
        for (value, holds) in [
            ("\"a\"", true),
            (" \"a\"\t", true),
            ("Sat, 29 Oct 1994 19:43:31 GMT", true),
            ("\"b\"", false),
            ("W/\"a\"", false),
            ("a", false),
            ("\"", false),
            ("\"a\", \"b\"", false),
            ("Sat, 29 Oct 1994 19:43:32 GMT", false),
            ("Saturday, 29-Oct-94 19:43:31 GMT", false),
            ("*", false),
            ("", false),
        ] {
            assert_eq!(if_range_holds(Some(value), tag, date), holds, "{value:?}");
        }
        assert!(if_range_holds(None, tag, date));
        assert!(!if_range_holds(Some("\"a\""), None, None));
        assert!(!if_range_holds(Some("W/\"a\""), Some("W/\"a\""), None), "a weak tag matches nothing, itself included");
        assert!(!if_range_holds(Some("W/\"a\""), None, Some("W/\"a\"")));
    }

    fn any_header() -> impl Strategy<Value = String> {
        prop_oneof![any::<String>(), "bytes=[0-9]{0,22}-[0-9]{0,22}", "[bB]ytes ?= ?([0-9]{0,3}-[0-9]{0,3}[, ]{0,3}){0,3}",]
    }

    proptest! {
        #[test]
        fn a_range_lies_within_the_file(header in any_header(), len in prop_oneof![0..200_u64, any::<u64>()]) {
            let ranges = parse(Some(&header), len);
            if let Ranges::One { start, end } = ranges {
                prop_assert!(start <= end && end < len);
            }
            if let Some((offset, count)) = ranges.span(len) {
                prop_assert!(offset.checked_add(count).is_some_and(|end| end <= len));
            }
        }

        #[test]
        fn every_satisfiable_pair_is_served_as_asked(start in 0..1000_u64, more in 0..1000_u64, rest in 1..1000_u64) {
            let end = start + more;
            prop_assert_eq!(parse(Some(&format!("bytes={start}-{end}")), end + rest), Ranges::One { start, end });
        }
    }
}
