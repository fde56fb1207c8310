//! In which charset a file of subtitles is written: nobody says, so it is guessed.

use chardetng::EncodingDetector;
use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE};

/// The text of a file. A byte order mark decides; then two-byte letters and UTF-8, which hardly any other text is by chance; then what is
/// likely, for which a language (ISO 639, from the file's name) helps. What cannot be read becomes U+FFFD.
pub fn decode(bytes: &[u8], language: Option<&str>) -> String {
    let encoding = match Encoding::for_bom(bytes) {
        Some((encoding, _)) => encoding,
        None => two_byte_letters(bytes).unwrap_or_else(|| guess(bytes, language)),
    };
    encoding.decode(bytes).0.into_owned()
}

/// UTF-16 without a mark: in texts with line ends, digits and spaces every other byte is often zero.
fn two_byte_letters(bytes: &[u8]) -> Option<&'static Encoding> {
    let head = bytes.get(..bytes.len().min(4096))?;
    let zeros = |from: usize| head.iter().skip(from).step_by(2).filter(|byte| **byte == 0).count();
    let (even, odd) = (zeros(0), zeros(1));
    let many = head.len() / 10;
    match (even > many, odd > many) {
        (true, false) if even > odd * 4 => Some(UTF_16BE),
        (false, true) if odd > even * 4 => Some(UTF_16LE),
        _ => None,
    }
}

fn guess(bytes: &[u8], language: Option<&str>) -> &'static Encoding {
    if std::str::from_utf8(bytes).is_ok() {
        return UTF_8;
    }
    let mut detector = EncodingDetector::new();
    detector.feed(bytes, true);
    detector.guess(language.and_then(country), false)
}

/// The top-level domain under which a language is at home, which is what the detector wants to hear.
fn country(language: &str) -> Option<&'static [u8]> {
    const HOMES: [(&str, &[u8]); 30] = [
        ("ar", b"eg"),
        ("bg", b"bg"),
        ("bs", b"ba"),
        ("cs", b"cz"),
        ("da", b"dk"),
        ("de", b"de"),
        ("el", b"gr"),
        ("es", b"es"),
        ("et", b"ee"),
        ("fi", b"fi"),
        ("fr", b"fr"),
        ("he", b"il"),
        ("hr", b"hr"),
        ("hu", b"hu"),
        ("it", b"it"),
        ("ja", b"jp"),
        ("ko", b"kr"),
        ("lt", b"lt"),
        ("lv", b"lv"),
        ("pl", b"pl"),
        ("pt", b"pt"),
        ("ro", b"ro"),
        ("ru", b"ru"),
        ("sk", b"sk"),
        ("sl", b"si"),
        ("sr", b"rs"),
        ("th", b"th"),
        ("tr", b"tr"),
        ("uk", b"ua"),
        ("zh", b"cn"),
    ];
    let language = language.split('-').next().unwrap_or_default();
    HOMES.iter().find(|(name, _)| *name == language).map(|(_, home)| *home)
}

#[cfg(test)]
mod tests {
    use encoding_rs::{SHIFT_JIS, WINDOWS_1250, WINDOWS_1251, WINDOWS_1252};

    use super::*;

    #[test]
    fn charsets_are_told_apart() {
        let table: [(&'static Encoding, &str, Option<&str>); 5] = [
            (WINDOWS_1250, "Příliš žluťoučký kůň úpěl ďábelské ódy. Nevím, co řekl, ale už jsem tady byl.", None),
            (WINDOWS_1250, "Zażółć gęślą jaźń. Nie wiem, co się stało, ale już tu byłem.", Some("pl")),
            (WINDOWS_1251, "Съешь же ещё этих мягких французских булок, да выпей чаю.", None),
            (WINDOWS_1252, "Où est-il passé ? Ça ne va pas être facile, à l'évidence, même pour vous.", None),
            (SHIFT_JIS, "いろはにほへと ちりぬるを。私はここにいます。", Some("ja")),
        ];
        for (encoding, text, language) in table {
            let (bytes, _, lossy) = encoding.encode(text);
            assert!(!lossy);
            assert_eq!(decode(&bytes, language), text, "{}", encoding.name());
        }
    }

    #[test]
    fn unicode_in_all_its_forms() {
        let text = "1\r\n00:00:01,000 --> 00:00:02,000\r\nŽluť 語\r\n";
        let little: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let big: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
        for bytes in [
            text.as_bytes().to_vec(),
            [&b"\xef\xbb\xbf"[..], text.as_bytes()].concat(),
            [&b"\xff\xfe"[..], &little].concat(),
            [&b"\xfe\xff"[..], &big].concat(),
            little,
            big,
        ] {
            assert_eq!(decode(&bytes, None), text);
        }
    }
}
