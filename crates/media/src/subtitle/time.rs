//! Time stamps as people type them.

/// `1:02:03,400`, `02:03.4`, `0:00:01.25` in milliseconds. A fraction may have any number of digits.
pub(super) fn stamp(text: &str) -> Option<i64> {
    let (whole, fraction) = text.trim().split_once([',', '.']).unwrap_or((text.trim(), ""));
    let mut parts = whole.split(':').map(number);
    let (a, b, c) = (parts.next()??, parts.next()??, parts.next());
    if parts.next().is_some() {
        return None;
    }
    let seconds = match c {
        Some(seconds) => a * 3600 + b * 60 + seconds?,
        None => a * 60 + b,
    };
    Some(seconds * 1000 + milliseconds(fraction)?)
}

/// At most six digits, so that nothing overflows.
fn number(text: &str) -> Option<i64> {
    let text = text.trim();
    (!text.is_empty() && text.len() <= 6 && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}

fn milliseconds(fraction: &str) -> Option<i64> {
    let fraction = fraction.trim();
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits = fraction.bytes().chain([b'0'; 3]).take(3);
    Some(digits.fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0')))
}

/// The two ends of a row with an arrow, and what follows them.
pub(super) fn row(row: &str) -> Option<(i64, i64, &str)> {
    let (from, rest) = row.split_once("-->")?;
    let rest = rest.trim_start();
    let (to, settings) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    Some((stamp(from)?, stamp(to)?, settings.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps() {
        let table = [
            ("00:00:01,000", Some(1000)),
            ("1:02:03.4", Some(3_723_400)),
            ("02:03.45", Some(123_450)),
            (" 00:00:01,5 ", Some(1500)),
            ("00:00:01", Some(1000)),
            ("00:00:01.123456", Some(1123)),
            ("01", None),
            ("1:2:3:4", None),
            ("00:00:-1,0", None),
            ("9999999:00:00,0", None),
            ("00:00:01,x", None),
        ];
        for (text, expected) in table {
            assert_eq!(stamp(text), expected, "{text:?}");
        }
    }
}
