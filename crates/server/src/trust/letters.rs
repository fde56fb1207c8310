//! Letters of names and of what is quoted, as people are shown them: none that hides, none that turns the text around it, and no heaps of
//! marks that run over the lines above. What a letter is stands in the Unicode Character Database.

use icu_properties::props::{DefaultIgnorableCodePoint, GeneralCategory, GeneralCategoryGroup};
use icu_properties::{CodePointMapData, CodePointSetData};

/// How many marks may follow each other. Vietnamese and Hebrew have two or three on a letter.
const MOST_MARKS: usize = 4;

/// Whether nothing is seen of a letter, or it does something to those around it: fillers, marks of direction (Unicode Standard Annex 9
/// section 2), tags, signs of annotation. Not those that belong inside words and pictures, see [`is_joining`].
pub fn is_hidden(c: char) -> bool {
    let ignorable = CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(c) && !is_joining(c);
    // Interlinear annotations, and what stands for an object that is not there.
    ignorable || matches!(c, '\u{fff9}'..='\u{fffc}')
}

/// Joiners and variation selectors: they belong inside names (Persian, Japanese, emoji); alone they show nothing.
pub fn is_joining(c: char) -> bool {
    matches!(c, '\u{200c}' | '\u{200d}' | '\u{180b}'..='\u{180d}' | '\u{180f}' | '\u{fe00}'..='\u{fe0f}' | '\u{e0100}'..='\u{e01ef}')
}

/// Whether a letter takes room and shows nothing in it. The empty pattern of Braille counts as a sign, and is none to the eye.
pub fn is_blank(c: char) -> bool {
    c.is_whitespace() || c == '\u{2800}'
}

/// What is left of a text without hidden letters and heaps of marks. Blanks and control characters stay.
pub fn clear(text: &str) -> String {
    let mut marks = 0;
    let stays = |c: &char| {
        marks = if is_mark(*c) || is_joining(*c) { marks + 1 } else { 0 };
        marks <= MOST_MARKS
    };
    text.chars().filter(|c| !is_hidden(*c)).filter(stays).collect()
}

/// Combining marks: those that take no room, those that do, and those that enclose.
fn is_mark(c: char) -> bool {
    GeneralCategoryGroup::Mark.contains(CodePointMapData::<GeneralCategory>::new().get(c))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

    use super::*;

    #[test]
    fn what_hides_and_what_belongs_inside() {
        let hidden = "\u{3164}\u{115f}\u{1160}\u{ffa0}\u{2062}\u{2064}\u{fff9}\u{fffb}\u{e0001}\u{e0041}\u{ad}\u{34f}\u{17b4}\u{180e}\u{200b}\u{202e}\u{2066}\u{61c}\u{feff}\u{1d173}";
        for c in hidden.chars() {
            assert!(is_hidden(c), "{c:?}");
        }
        for c in "aä厨ש\u{5b8}\u{301}\u{200c}\u{200d}\u{fe0f}\u{e0100}👩🏽\u{600} \t\u{fffd}".chars() {
            assert!(!is_hidden(c), "{c:?}");
        }
        assert!(is_blank('\u{2800}') && is_blank('\u{3000}') && !is_blank('\u{2801}'));
    }

    #[test]
    fn marks_do_not_pile_up() {
        let heap = |marks: usize| format!("a{}b", "\u{301}".repeat(marks));
        assert_eq!((clear(&heap(4)), clear(&heap(5)), clear(&heap(50))), (heap(4), heap(4), heap(4)));
        assert_eq!(clear(&format!("a{}", "\u{301}\u{200d}\u{3164}".repeat(9))), "a\u{301}\u{200d}\u{301}\u{200d}");
        for whole in ["Nguyễn Thị Ệ\u{323}\u{302}", "שָׁלוֹם", "नमस्ते", "👩🏽‍❤️‍💋‍👨🏽", "葛\u{e0100}城", "می‌خواهم"]
        {
            assert_eq!(clear(whole), whole);
        }
    }

    proptest! {
        #[test]
        fn what_is_clear_stays(text in ".{0,80}|[\u{300}-\u{303}\u{3164}a\u{200d}]{0,80}") {
            let once = clear(&text);
            prop_assert!(!once.chars().any(is_hidden));
            prop_assert_eq!(clear(&once), once);
        }
    }
}
