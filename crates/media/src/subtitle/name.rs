//! What the name of a file of subtitles tells: to which film it belongs, in which language it is, whether it is forced or for the deaf.

use super::Format;

/// What a name tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// BCP 47, `und` where it is not told.
    pub language: String,
    /// Only what is foreign in the film.
    pub forced: bool,
    /// Sounds are described too.
    pub deaf: bool,
    /// What else stands in the name, for people; empty where there is nothing.
    pub title: String,
}

/// Whether a file beside a film (both paths from the torrent's root, divided by `/`) is that film's: a known ending; in the same folder, or
/// in one below it for subtitles; and called like the film, unless it is the `only` film of the torrent.
pub fn belongs(path: &str, film: &str, only: bool) -> bool {
    if Format::of_name(path).is_none() {
        return false;
    }
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    let (home, film_name) = film.rsplit_once('/').unwrap_or(("", film));
    let film_stem = stem(film_name).to_lowercase();
    let Some(below) = within(folder, home) else { return false };
    let mut folders = below.split('/').filter(|folder| !folder.is_empty());
    let named = stem(name).to_lowercase().starts_with(&film_stem);
    let (is_for_subtitles, is_of_film) = match (folders.next(), folders.next(), folders.next()) {
        (None, ..) => (true, named),
        (Some(first), None, _) => (is_subtitle_folder(first), named),
        // Subs/Film.S01E02/2_English.srt
        (Some(first), Some(second), None) => (is_subtitle_folder(first), named || second.to_lowercase() == film_stem),
        _ => (false, false),
    };
    is_for_subtitles && (is_of_film || only)
}

/// What of a folder's path lies below `home`.
fn within<'a>(folder: &'a str, home: &str) -> Option<&'a str> {
    if home.is_empty() {
        return Some(folder);
    }
    let below = folder.strip_prefix(home)?;
    (below.is_empty() || below.starts_with('/')).then_some(below)
}

fn is_subtitle_folder(name: &str) -> bool {
    matches!(name.to_ascii_lowercase().as_str(), "subs" | "sub" | "subtitles" | "subtitle" | "vobsubs" | "srt" | "captions")
        || language(name, true).is_some()
}

fn stem(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(stem, _)| stem)
}

/// What a file's name tells (without its folder); `film` is that of the film it belongs to.
pub fn told(name: &str, film: &str) -> Told {
    let (stem_of_file, film_stem) = (stem(name), stem(film));
    let ours = stem_of_file.get(..film_stem.len()).is_some_and(|start| start.eq_ignore_ascii_case(film_stem));
    let rest = if ours { stem_of_file.get(film_stem.len()..).unwrap_or_default() } else { stem_of_file };
    let words: Vec<&str> = rest.split(|letter: char| !letter.is_alphanumeric() && letter != '-').filter(|word| !word.is_empty()).collect();
    let forced = words.iter().any(|word| word.eq_ignore_ascii_case("forced"));
    let deaf = words.iter().any(|word| ["sdh", "cc", "hi"].iter().any(|flag| word.eq_ignore_ascii_case(flag)));
    let is_flag =
        |word: &str| ["forced", "sdh", "cc", "hi", "full", "default", "foreign"].iter().any(|flag| word.eq_ignore_ascii_case(flag));
    let others: Vec<&str> = words.iter().copied().filter(|word| !is_flag(word)).collect();
    // A short code is one only where it stands last, or where nothing but it can stand: "no" and "it" are words as well.
    let by_name = others.iter().rev().find_map(|word| language(word, false));
    let by_code =
        if ours { others.iter().rev().find_map(|word| language(word, true)) } else { others.last().and_then(|word| language(word, true)) };
    let by_flag = || words.iter().find(|word| word.eq_ignore_ascii_case("hi")).filter(|_| ours).map(|_| "hi".to_owned());
    let language = by_name.or(by_code).or_else(by_flag);
    let deaf = deaf && language.as_deref() != Some("hi");
    let is_language = |word: &&str| language.is_some() && self::language(word, true).is_some();
    let title: Vec<&str> =
        others.into_iter().filter(|word| ours && !is_language(word) && word.bytes().any(|byte| !byte.is_ascii_digit())).collect();
    Told { language: language.unwrap_or_else(|| "und".to_owned()), forced, deaf, title: title.join(" ") }
}

/// The language that a word names, as BCP 47. `codes`: whether `en` and `eng` count, or only names like `English`.
fn language(word: &str, codes: bool) -> Option<String> {
    let lower = word.to_lowercase();
    let whole = |name: &str| {
        LANGUAGES
            .iter()
            .find(|(code, others)| (codes && *code == name) || others.iter().any(|other| *other == name && (codes || other.len() > 3)))
    };
    if let Some((code, _)) = whole(&lower) {
        return Some((*code).to_owned());
    }
    // pt-BR, zh-Hans
    let (code, region) = lower.split_once('-')?;
    let known = codes.then(|| LANGUAGES.iter().find(|(short, _)| *short == code))??.0;
    let region = match region.len() {
        2 => region.to_ascii_uppercase(),
        4 => region.get(..1)?.to_ascii_uppercase() + region.get(1..)?,
        3 if region.bytes().all(|byte| byte.is_ascii_digit()) => region.to_owned(),
        _ => return None,
    };
    region.bytes().all(|byte| byte.is_ascii_alphanumeric()).then(|| format!("{known}-{region}"))
}

/// ISO 639-1, then ISO 639-2 and the names that people write.
const LANGUAGES: [(&str, &[&str]); 62] = [
    ("af", &["afr", "afrikaans"]),
    ("ar", &["ara", "arabic"]),
    ("be", &["bel", "belarusian"]),
    ("bg", &["bul", "bulgarian"]),
    ("bn", &["ben", "bengali"]),
    ("bs", &["bos", "bosnian"]),
    ("ca", &["cat", "catalan"]),
    ("cs", &["cze", "ces", "czech", "čeština"]),
    ("cy", &["wel", "cym", "welsh"]),
    ("da", &["dan", "danish", "dansk"]),
    ("de", &["ger", "deu", "german", "deutsch"]),
    ("el", &["gre", "ell", "greek"]),
    ("en", &["eng", "english"]),
    ("es", &["spa", "spanish", "español", "espanol", "castellano"]),
    ("et", &["est", "estonian"]),
    ("eu", &["baq", "eus", "basque"]),
    ("fa", &["per", "fas", "persian", "farsi"]),
    ("fi", &["fin", "finnish", "suomi"]),
    ("fr", &["fre", "fra", "french", "français", "francais"]),
    ("ga", &["gle", "irish"]),
    ("gl", &["glg", "galician"]),
    ("he", &["heb", "hebrew"]),
    ("hi", &["hin", "hindi"]),
    ("hr", &["hrv", "croatian", "hrvatski"]),
    ("hu", &["hun", "hungarian", "magyar"]),
    ("hy", &["arm", "hye", "armenian"]),
    ("id", &["ind", "indonesian"]),
    ("is", &["ice", "isl", "icelandic"]),
    ("it", &["ita", "italian", "italiano"]),
    ("ja", &["jpn", "jap", "japanese", "日本語"]),
    ("ka", &["geo", "kat", "georgian"]),
    ("kk", &["kaz", "kazakh"]),
    ("ko", &["kor", "korean", "한국어"]),
    ("lt", &["lit", "lithuanian"]),
    ("lv", &["lav", "latvian"]),
    ("mk", &["mac", "mkd", "macedonian"]),
    ("ml", &["mal", "malayalam"]),
    ("ms", &["may", "msa", "malay"]),
    ("nb", &["nob"]),
    ("nl", &["dut", "nld", "dutch", "nederlands", "flemish"]),
    ("no", &["nor", "norwegian", "norsk"]),
    ("pl", &["pol", "polish", "polski"]),
    ("pt", &["por", "portuguese", "português", "portugues"]),
    ("pt-BR", &["pob", "ptbr", "brazilian"]),
    ("ro", &["rum", "ron", "romanian"]),
    ("ru", &["rus", "russian", "русский"]),
    ("sk", &["slo", "slk", "slovak"]),
    ("sl", &["slv", "slovenian", "slovene"]),
    ("sq", &["alb", "sqi", "albanian"]),
    ("sr", &["srp", "serbian", "srpski"]),
    ("sv", &["swe", "swedish", "svenska"]),
    ("sw", &["swa", "swahili"]),
    ("ta", &["tam", "tamil"]),
    ("te", &["tel", "telugu"]),
    ("th", &["tha", "thai"]),
    ("tl", &["tgl", "fil", "tagalog", "filipino"]),
    ("tr", &["tur", "turkish", "türkçe", "turkce"]),
    ("uk", &["ukr", "ukrainian"]),
    ("ur", &["urd", "urdu"]),
    ("vi", &["vie", "vietnamese"]),
    ("zh", &["chi", "zho", "chs", "cht", "chinese", "mandarin", "cantonese", "中文"]),
    ("zu", &["zul", "zulu"]),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_languages() {
        let table = [
            ("Film.2020.srt", "und", false, false, ""),
            ("Film.2020.en.srt", "en", false, false, ""),
            ("Film.2020.eng.forced.srt", "en", true, false, ""),
            ("film.2020.German.ass", "de", false, false, ""),
            ("Film.2020.pt-BR.srt", "pt-BR", false, false, ""),
            ("Film.2020.en.hi.srt", "en", false, true, ""),
            ("Film.2020.hi.srt", "hi", false, false, ""),
            ("Film.2020.en.Commentary.srt", "en", false, false, "Commentary"),
            ("2_English.srt", "en", false, false, ""),
            ("English [SDH].srt", "en", false, true, ""),
            ("it is no film.fr.srt", "fr", false, false, ""),
            ("Subtitles.srt", "und", false, false, ""),
            ("Čeština.srt", "cs", false, false, ""),
        ];
        for (name, language, forced, deaf, title) in table {
            let expected = Told { language: language.to_owned(), forced, deaf, title: title.to_owned() };
            assert_eq!(told(name, "Film.2020.mkv"), expected, "{name}");
        }
    }

    #[test]
    fn which_files_belong_to_a_film() {
        let film = "Show/Show.S01E02.mkv";
        let table = [
            ("Show/Show.S01E02.srt", false, true),
            ("Show/Show.S01E02.en.srt", false, true),
            ("Show/Show.S01E03.srt", false, false),
            ("Show/Subs/Show.S01E02.de.srt", false, true),
            ("Show/Subs/Show.S01E02/2_English.srt", false, true),
            ("Show/Subs/Show.S01E03/2_English.srt", false, false),
            ("Show/Subs/2_English.srt", false, false),
            ("Show/Subs/2_English.srt", true, true),
            ("Show/English/a.srt", true, true),
            ("Show/Extras/a.srt", true, false),
            ("Other/Show.S01E02.srt", true, false),
            ("Show/Show.S01E02.txt", true, false),
        ];
        for (path, only, expected) in table {
            assert_eq!(belongs(path, film, only), expected, "{path}");
        }
        assert!(belongs("Film.srt", "Film.mkv", false));
        assert!(belongs("Subs/x.srt", "Film.mkv", true));
    }
}
