//! `config.toml` with some values changed: everything else, the comments above all, stays as a person wrote it.
//!
//! Pure: text in, text out. Values are not checked here.

use toml_edit::{Array, DocumentMut, RawString, Table, TomlError, Value};

/// What becomes of a key: a new value, or `None` to take it out.
pub type Change<'a> = (&'a str, Option<Value>);

/// The text with these keys changed.
///
/// # Errors
/// When the text is no TOML.
pub fn edited<'a>(text: &str, changes: impl IntoIterator<Item = Change<'a>>) -> Result<String, TomlError> {
    let bare = text.strip_prefix(BYTE_ORDER_MARK);
    let mut document: DocumentMut = bare.unwrap_or(text).parse()?;
    for (key, value) in changes {
        match value {
            Some(value) => set(&mut document, key, value),
            None => take_out(&mut document, key),
        }
    }
    let mut written = document.to_string();
    if ends_lines_with_cr_lf(text) {
        written = written.replace('\n', "\r\n");
    }
    Ok(if bare.is_some() { format!("{BYTE_ORDER_MARK}{written}") } else { written })
}

const BYTE_ORDER_MARK: char = '\u{feff}';

/// The TOML library gives lines back that end with LF alone.
fn ends_lines_with_cr_lf(text: &str) -> bool {
    text.contains('\n') && text.matches('\n').count() == text.matches("\r\n").count()
}

fn set(document: &mut DocumentMut, key: &str, mut value: Value) {
    match document.get_mut(key).and_then(|item| item.as_value_mut()) {
        Some(Value::Array(old)) if value.is_array() => {
            let wanted = value.as_array().map(words).unwrap_or_default();
            change_list(old, &wanted);
        }
        Some(old) => {
            // What stands behind it in the line belongs to the key.
            *value.decor_mut() = old.decor().clone();
            *old = value;
        }
        None => {
            // What stands at the end of the file stays before what is added.
            let before = document.trailing().as_str().unwrap_or_default().to_owned();
            document.insert(key, toml_edit::Item::Value(value));
            if let Some(mut key) = document.key_mut(key) {
                let line_end = if before.is_empty() || before.ends_with('\n') { "" } else { "\n" };
                key.leaf_decor_mut().set_prefix(format!("{before}{line_end}"));
            }
            document.set_trailing("");
        }
    }
}

fn words(array: &Array) -> Vec<String> {
    array.iter().filter_map(|value| value.as_str().map(str::to_owned)).collect()
}

/// Changes as few entries as possible, so that the comments of the others stay.
fn change_list(list: &mut Array, wanted: &[String]) {
    list.retain(|value| value.as_str().is_some_and(|word| wanted.iter().any(|wanted| wanted == word)));
    for (place, word) in wanted.iter().enumerate() {
        if list.get(place).and_then(Value::as_str) == Some(word) {
            continue;
        }
        let later = (place..list.len()).find(|at| list.get(*at).and_then(Value::as_str) == Some(word));
        match later {
            Some(at) => {
                let moved = list.remove(at);
                list.insert_formatted(place, moved);
            }
            None => {
                list.insert(place, word.as_str());
                let line_start = place.checked_sub(1).and_then(|before| list.get(before)).and_then(line_start);
                if let (Some(line_start), Some(new)) = (line_start, list.get_mut(place)) {
                    new.decor_mut().set_prefix(line_start);
                }
            }
        }
    }
    while list.len() > wanted.len() {
        list.remove(list.len() - 1);
    }
}

/// How an entry begins that has a line of its own: the end of the line before it, and how far it is indented.
fn line_start(entry: &Value) -> Option<String> {
    let (_, indent) = entry.decor().prefix()?.as_str()?.rsplit_once('\n')?;
    Some(format!("\n{indent}"))
}

/// Takes a key out; the comments above it were written by a person and stay.
fn take_out(document: &mut DocumentMut, key: &str) {
    let place = document.iter().position(|(name, _)| name == key);
    let Some((key, _)) = document.remove_entry(key) else { return };
    let above = key.leaf_decor().prefix().and_then(RawString::as_str).unwrap_or_default().to_owned();
    if !above.contains('#') {
        return;
    }
    let next = place.and_then(|place| document.iter().nth(place).map(|(name, _)| name.to_owned()));
    match next {
        Some(next) => put_before(document, &next, &above),
        None => {
            let rest = document.trailing().as_str().unwrap_or_default().to_owned();
            document.set_trailing(above + &rest);
        }
    }
}

fn put_before(table: &mut Table, key: &str, above: &str) {
    if let Some(mut key) = table.key_mut(key) {
        let own = key.leaf_decor().prefix().and_then(RawString::as_str).unwrap_or_default().to_owned();
        key.leaf_decor_mut().set_prefix(format!("{above}{own}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{Just, Strategy, any, prop_assert_eq, prop_oneof, proptest};

    const FILE: &str = "\
# Written by Anna.
name = 'Den'   # not the cellar

# The router forwards this one.
\"https-port\"=3443
peer = [
    \"192.168.1.5:6881\", # the attic
    # the cellar, when it is on
    \"192.168.1.6:6881\",
]
no-dht    = true

# mock = true
";

    fn changed(text: &str, changes: Vec<Change<'_>>) -> String {
        edited(text, changes).expect("TOML")
    }

    fn list(words: &[&str]) -> Option<Value> {
        Some(words.iter().copied().collect::<Array>().into())
    }

    #[test]
    fn nothing_changed_is_the_same_text() {
        for text in ["", "\n", "# only this", FILE, &FILE.replace('\n', "\r\n"), &format!("\u{feff}{FILE}")] {
            assert_eq!(changed(text, vec![]), text);
        }
    }

    #[test]
    fn comments_order_and_formatting_stay() {
        let text = changed(
            FILE,
            vec![
                ("name", Some("Studio".into())),
                ("https-port", Some(443.into())),
                ("peer", list(&["192.168.1.6:6881", "192.168.1.7:6881"])),
                ("no-dht", None),
                ("expire-after", Some("12h".into())),
            ],
        );
        insta::assert_snapshot!(text);
    }

    #[test]
    fn comments_above_what_is_taken_out_stay() {
        let text = changed(FILE, vec![("name", None), ("https-port", None), ("peer", None), ("no-dht", None)]);
        insta::assert_snapshot!(text);
        assert_eq!(changed("# last\na = 1\n# end", vec![("a", None)]), "# last\n# end");
    }

    #[test]
    fn what_is_added_stands_at_the_end() {
        let name = || vec![("name", Some(Value::from("x")))];
        let table = [
            ("", "name = \"x\"\n"),
            ("# hello", "# hello\nname = \"x\"\n"),
            ("# hello\n\n", "# hello\n\nname = \"x\"\n"),
            ("a = 1", "a = 1\nname = \"x\"\n"),
            ("a = 1\r\n", "a = 1\r\nname = \"x\"\r\n"),
        ];
        for (text, expected) in table {
            assert_eq!(changed(text, name()), expected, "{text:?}");
        }
    }

    #[test]
    fn lists_become_what_is_wanted() {
        let table: [(&str, &[&str], &str); 6] = [
            ("peer = [\"a\", \"b\"]\n", &["b", "a"], "peer = [ \"b\",\"a\"]\n"),
            ("peer = [\"a\"]\n", &[], "peer = []\n"),
            ("peer = \"a\" # one\n", &["a", "b"], "peer = [\"a\", \"b\"] # one\n"),
            ("peer = [1, \"a\"]\n", &["a"], "peer = [ \"a\"]\n"),
            ("peer = [\"a\", \"a\"]\n", &["a"], "peer = [\"a\"]\n"),
            ("peer = [\n  \"a\",\n]\n", &["a", "b"], "peer = [\n  \"a\",\n  \"b\",\n]\n"),
        ];
        for (text, wanted, expected) in table {
            assert_eq!(changed(text, vec![("peer", list(wanted))]), expected);
        }
    }

    #[test]
    fn what_is_no_toml_is_not_touched() {
        assert!(edited("name = ", [("name", Some("x".into()))]).is_err());
    }

    fn a_list() -> impl Strategy<Value = Vec<String>> {
        proptest::collection::vec("[abc]{1,2}", 0..6)
    }

    fn a_value() -> impl Strategy<Value = Option<String>> {
        prop_oneof![Just(None), "\\PC{0,12}".prop_map(Some)]
    }

    proptest! {
        #[test]
        fn the_file_says_afterwards_what_was_asked(old in a_list(), new in a_list(), name in a_value(), lines in any::<bool>(), cr in any::<bool>()) {
            let open = if lines { "\n  # note\n  " } else { "" };
            let entries: Vec<String> = old.iter().map(|word| format!("\"{word}\"")).collect();
            let mut text = format!("# top\nname = 'n' # why\npeer = [{open}{}]\n# end\n", entries.join(", "));
            if cr {
                text = text.replace('\n', "\r\n");
            }
            let wanted = list(&new.iter().map(String::as_str).collect::<Vec<_>>());
            let written = changed(&text, vec![("peer", wanted), ("name", name.clone().map(Value::from))]);
            let document: DocumentMut = written.parse().expect("TOML");
            prop_assert_eq!(words(document["peer"].as_array().expect("a list")), new);
            prop_assert_eq!(document.get("name").and_then(|item| item.as_str()), name.as_deref());
            for comment in ["# top", "# end"] {
                prop_assert_eq!(written.matches(comment).count(), 1);
            }
        }
    }
}
