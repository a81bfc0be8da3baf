//! Classes of characters that the kernels share.

/// What normalization does with a character on its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// Kept.
    Keep,
    /// One blank, together with its white neighbours.
    Blank,
    /// One line feed, together with its white neighbours.
    Break,
    /// Taken out: controls, zero-width characters, bidirectional controls, non-characters.
    Remove,
    /// U+200C and U+200D: kept where they shape what is read.
    Joiner,
    /// Chooses the form of the character before it; kept after those that have several.
    Selector,
}

/// See [`Class`].
pub(crate) fn class(c: char) -> Class {
    match c {
        '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{85}' | '\u{2028}' | '\u{2029}' => Class::Break,
        // The Hangul fillers and the empty braille cell look blank and are not called so by Unicode.
        ' ' | '\t' | '\u{a0}' | '\u{1680}' | '\u{2000}'..='\u{200a}' | '\u{202f}' | '\u{205f}' | '\u{3000}' => {
            Class::Blank
        }
        '\u{2800}' | '\u{3164}' | '\u{ffa0}' => Class::Blank,
        '\u{200c}' | '\u{200d}' => Class::Joiner,
        '\u{fe00}'..='\u{fe0f}' | '\u{e0020}'..='\u{e007f}' | '\u{e0100}'..='\u{e01ef}' => Class::Selector,
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' => Class::Remove,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}' => Class::Remove,
        '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' => Class::Remove,
        '\u{fff0}'..='\u{fffc}' | '\u{fffe}' | '\u{ffff}' | '\u{fdd0}'..='\u{fdef}' => Class::Remove,
        '\u{e0000}'..='\u{e001f}' | '\u{e0080}'..='\u{e00ff}' | '\u{e01f0}'..='\u{e0fff}' => Class::Remove,
        _ => Class::Keep,
    }
}

/// Characters that normalization never touches, wherever they stand: kept, in NFC whatever follows, and of combining
/// class 0. Ranges rather than a full table: what they leave out takes the slower way and comes to the same end.
pub(crate) fn is_plain(c: char) -> bool {
    matches!(c,
        '\u{a1}'..='\u{ac}' | '\u{ae}'..='\u{2ff}'
        | '\u{388}'..='\u{3ff}' | '\u{400}'..='\u{482}' | '\u{48a}'..='\u{52f}'
        | '\u{5d0}'..='\u{5ea}' | '\u{621}'..='\u{64a}' | '\u{660}'..='\u{66f}' | '\u{671}'..='\u{6d3}'
        | '\u{904}'..='\u{939}' | '\u{93f}'..='\u{94c}' | '\u{e01}'..='\u{e37}'
        | '\u{2010}'..='\u{2027}' | '\u{2030}'..='\u{205e}' | '\u{20a0}'..='\u{20cf}'
        | '\u{2190}'..='\u{2328}' | '\u{232b}'..='\u{27ff}' | '\u{2900}'..='\u{2adb}'
        | '\u{3001}'..='\u{3029}' | '\u{3041}'..='\u{3096}' | '\u{30a1}'..='\u{30ff}'
        | '\u{4e00}'..='\u{9fff}' | '\u{ac00}'..='\u{d7a3}' | '\u{ff01}'..='\u{ff9f}'
        | '\u{1f300}'..='\u{1faff}')
}

/// Characters that may be drawn as emoji, skin tones and regional letters included. Wider than Unicode's list.
pub(crate) fn is_emoji(c: char) -> bool {
    matches!(c,
        '©' | '®' | '\u{203c}' | '\u{2049}' | '\u{2122}' | '\u{2139}' | '\u{2190}'..='\u{21ff}'
        | '\u{2300}'..='\u{23ff}' | '\u{2460}'..='\u{24ff}' | '\u{25a0}'..='\u{27bf}' | '\u{2900}'..='\u{297f}'
        | '\u{2b00}'..='\u{2bff}' | '\u{3030}' | '\u{303d}' | '\u{3297}' | '\u{3299}' | '\u{1f000}'..='\u{1faff}')
}

/// Whether a selector has a meaning after this character.
pub(crate) fn selects(base: char, selector: char) -> bool {
    match selector {
        '\u{fe0e}' | '\u{fe0f}' => is_emoji(base),
        // Tags spell the region of a flag: black flag, tags, end tag.
        '\u{e0020}'..='\u{e007f}' => base == '\u{1f3f4}' || matches!(base, '\u{e0020}'..='\u{e007e}'),
        '\u{e0100}'..='\u{e01ef}' => is_han(base),
        _ => {
            is_han(base) || matches!(base, '\u{1000}'..='\u{109f}' | '\u{2200}'..='\u{22ff}' | '\u{a840}'..='\u{a877}')
        }
    }
}

/// Whether a joiner between these two shapes what is read: inside an emoji, or in scripts that need it.
pub(crate) fn joins(before: char, joiner: char, after: char) -> bool {
    if needs_joiners(before) && needs_joiners(after) {
        return true;
    }
    let ends_emoji = is_emoji(before) || before == '\u{fe0f}';
    joiner == '\u{200d}' && ends_emoji && is_emoji(after)
}

/// Arabic to Thaana, the scripts of India and Sri Lanka, Tibetan and Burmese, Khmer, Mongolian, Arabic supplements.
fn needs_joiners(c: char) -> bool {
    matches!(c, '\u{620}'..='\u{7bf}' | '\u{8a0}'..='\u{dff}' | '\u{f00}'..='\u{109f}' | '\u{1780}'..='\u{18af}'
        | '\u{fb50}'..='\u{fdcf}' | '\u{fdf0}'..='\u{fdff}' | '\u{fe70}'..='\u{fefc}')
}

/// Han ideographs.
pub(crate) fn is_han(c: char) -> bool {
    matches!(c, '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}')
}

#[cfg(test)]
mod tests {
    use unicode_normalization::char::canonical_combining_class;
    use unicode_normalization::{IsNormalized, is_nfc_quick};

    use super::*;

    #[test]
    fn plain_characters_are_kept_and_in_nfc_in_any_company() {
        for c in (0..=0x10ffff).filter_map(char::from_u32).filter(|c| is_plain(*c)) {
            assert_eq!(class(c), Class::Keep, "{c:?}");
            assert_eq!(canonical_combining_class(c), 0, "{c:?}");
            assert!(is_nfc_quick(std::iter::once(c)) == IsNormalized::Yes, "{c:?}");
        }
    }

    #[test]
    fn every_white_character_of_unicode_is_white_here() {
        for c in (0..=0x10ffff).filter_map(char::from_u32).filter(|c| c.is_whitespace()) {
            assert!(matches!(class(c), Class::Blank | Class::Break), "{c:?}");
        }
        for c in (0..=0x10ffff)
            .filter_map(char::from_u32)
            .filter(|c| c.is_control() && !c.is_whitespace())
        {
            assert_eq!(class(c), Class::Remove, "{c:?}");
        }
    }
}
