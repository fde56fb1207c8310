//! WebVTT (W3C WebVTT: The Web Video Text Tracks Format): files, and the samples that Matroska and MP4 hold of it.

use super::markup::{Token, tag, tokens};
use super::{Cue, MOST_CUES, Markup, Said, time};

/// All cues of a file, in file order. Notes, styles and regions are passed over.
pub fn parse(text: &str) -> Vec<Cue> {
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut cues = Vec::new();
    let mut rows = text.lines();
    while let Some(row) = rows.next() {
        let Some((start, end, settings)) = time::row(row) else { continue };
        let payload: Vec<_> = rows.by_ref().take_while(|row| !row.is_empty()).collect();
        cues.extend(Cue::new(start, end, said(&payload.join("\n"), settings)));
        if cues.len() >= MOST_CUES {
            break;
        }
    }
    cues
}

/// One cue's payload and settings (sections 4.2.2 and 4.3).
pub fn said(payload: &str, settings: &str) -> Said {
    let mut markup = Markup::new();
    for token in tokens(payload, false) {
        match token {
            Token::Text(text) => markup.text(text),
            Token::Entity(text) => markup.text(text),
            Token::Open(name) => tag(&mut markup, name, true),
            Token::Close(name) => tag(&mut markup, name, false),
            Token::Stamp | Token::Braces(_) => {}
        }
    }
    markup.settings = sound_settings(settings);
    markup.finish()
}

/// Those settings that mean something without the file's regions, each with nothing in it that does not belong into one.
fn sound_settings(settings: &str) -> String {
    let sound = |setting: &&str| {
        let Some((name, value)) = setting.split_once(':') else { return false };
        matches!(name, "line" | "position" | "align" | "size" | "vertical")
            && (1..=32).contains(&value.len())
            && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'%' | b',' | b'-'))
    };
    settings.split_whitespace().filter(sound).take(5).collect::<Vec<_>>().join(" ")
}

/// The payload of a Matroska block (`S_TEXT/WEBVTT`): the cue's text; identifier and settings stand beside it in a BlockAddition, which is
/// not read.
pub fn block(payload: &[u8]) -> Said {
    said(&String::from_utf8_lossy(payload), "")
}

/// The cues of a `wvtt` sample (ISO 14496-30, section 7.5): `vttc` boxes with `sttg` and `payl`.
pub fn sample(sample: &[u8]) -> Vec<Said> {
    let mut all = Vec::new();
    for (_, body) in boxes(sample).filter(|(kind, _)| kind == b"vttc") {
        let part = |wanted: &[u8; 4]| boxes(body).find(|(kind, _)| kind == wanted).map(|(_, body)| String::from_utf8_lossy(body));
        let said = said(&part(b"payl").unwrap_or_default(), &part(b"sttg").unwrap_or_default());
        all.push(said);
        if all.len() >= 64 {
            break;
        }
    }
    all
}

/// Boxes one after the other; what does not fit ends it.
fn boxes(mut rest: &[u8]) -> impl Iterator<Item = ([u8; 4], &[u8])> {
    std::iter::from_fn(move || {
        let size = u32::from_be_bytes(*rest.first_chunk::<4>()?) as usize;
        let kind = *rest.get(4..)?.first_chunk::<4>()?;
        let body = rest.get(8..size)?;
        rest = rest.get(size..)?;
        Some((kind, body))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file() {
        let text = "WEBVTT - title\n\nSTYLE\n::cue { color: red }\n\nNOTE a --> b\n\nfirst\n00:01.000 --> 00:02.000 align:left position:10% evil:\"x\" line:<b>\n<v Bob>Hi <c.red>there</c> &lt;b&gt; <00:01.500>now</v>\n\n00:00:03.000 --> 00:00:04.000\n<i>two\nrows\n\n00:05.000 --> 00:06.000\n\n";
        let cues: Vec<_> = parse(text).into_iter().map(|cue| (cue.start, cue.end, cue.text, cue.settings)).collect();
        assert_eq!(
            cues,
            [
                (1000, 2000, "Hi there &lt;b&gt; now".to_owned(), "align:left position:10%".to_owned()),
                (3000, 4000, "<i>two\nrows</i>".to_owned(), String::new()),
            ]
        );
    }

    #[test]
    fn a_sample_of_mp4() {
        let sample = [&b"\0\0\0\x23vttc\0\0\0\x0esttgline:0\0\0\0\x0dpayl<i>a."[..], b"\0\0\0\x08vtte"].concat();
        assert_eq!(super::sample(&sample), [Said { text: "<i>a.</i>".to_owned(), settings: "line:0".to_owned() }]);
        assert_eq!(super::sample(b"\0\0\0\x08vtte"), []);
        assert_eq!(super::sample(b"\0\0\0\0vttc"), []);
    }
}
