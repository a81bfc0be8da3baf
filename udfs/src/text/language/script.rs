//! Which script a post is written in: enough to name the language of most scripts.

/// Scripts that several languages share come first; the others name their language.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(super) enum Script {
    Latin,
    Cyrillic,
    Arabic,
    Devanagari,
    Hebrew,
    Han,
    Kana,
    Hangul,
    Greek,
    Armenian,
    Georgian,
    Bengali,
    Gurmukhi,
    Gujarati,
    Oriya,
    Tamil,
    Telugu,
    Kannada,
    Malayalam,
    Sinhala,
    Thai,
    Lao,
    Tibetan,
    Burmese,
    Khmer,
    Ethiopic,
    Thaana,
}

/// Number of scripts.
const SCRIPTS: usize = Script::Thaana as usize + 1;

impl Script {
    /// The language of a script that belongs to one alone, or nearly so.
    pub(super) fn language(self) -> Option<&'static str> {
        Some(match self {
            Script::Latin | Script::Cyrillic | Script::Arabic | Script::Devanagari | Script::Hebrew => return None,
            Script::Han => "zh",
            Script::Kana => "ja",
            Script::Hangul => "ko",
            Script::Greek => "el",
            Script::Armenian => "hy",
            Script::Georgian => "ka",
            Script::Bengali => "bn",
            Script::Gurmukhi => "pa",
            Script::Gujarati => "gu",
            Script::Oriya => "or",
            Script::Tamil => "ta",
            Script::Telugu => "te",
            Script::Kannada => "kn",
            Script::Malayalam => "ml",
            Script::Sinhala => "si",
            Script::Thai => "th",
            Script::Lao => "lo",
            Script::Tibetan => "bo",
            Script::Burmese => "my",
            Script::Khmer => "km",
            Script::Ethiopic => "am",
            Script::Thaana => "dv",
        })
    }
}

/// The script that most of a text is written in, and how many of its letters are. `None` where there are no letters.
pub(super) fn main_script(text: &str) -> Option<(Script, usize)> {
    let latin = text.bytes().filter(u8::is_ascii_alphabetic).count();
    if text.is_ascii() {
        return (latin > 0).then_some((Script::Latin, latin));
    }
    let mut counts = [0usize; SCRIPTS];
    counts[Script::Latin as usize] = latin;
    for c in text.chars().filter(|c| !c.is_ascii()) {
        if let Some(script) = script(c) {
            counts[script as usize] += weight(script);
        }
    }
    // Japanese mixes kana into Han characters; a few of them decide.
    let (han, kana) = (counts[Script::Han as usize], counts[Script::Kana as usize]);
    if kana * 20 > han {
        counts[Script::Kana as usize] += han;
        counts[Script::Han as usize] = 0;
    }
    let (place, &count) = counts
        .iter()
        .enumerate()
        .max_by_key(|(place, count)| (**count, usize::MAX - place))?;
    (count > 0).then(|| (ALL[place], count))
}

/// One character of these scripts says about as much as two or three letters.
fn weight(script: Script) -> usize {
    if matches!(script, Script::Han | Script::Kana | Script::Hangul) {
        2
    } else {
        1
    }
}

const ALL: [Script; SCRIPTS] = {
    use Script::*;
    [
        Latin, Cyrillic, Arabic, Devanagari, Hebrew, Han, Kana, Hangul, Greek, Armenian, Georgian, Bengali, Gurmukhi,
        Gujarati, Oriya, Tamil, Telugu, Kannada, Malayalam, Sinhala, Thai, Lao, Tibetan, Burmese, Khmer, Ethiopic,
        Thaana,
    ]
};

fn script(c: char) -> Option<Script> {
    use Script::*;
    Some(match c {
        '\u{d7}' | '\u{f7}' => return None,
        'ª'
        | 'º'
        | '\u{c0}'..='\u{24f}'
        | '\u{1e00}'..='\u{1eff}'
        | '\u{ff21}'..='\u{ff3a}'
        | '\u{ff41}'..='\u{ff5a}' => Latin,
        '\u{370}'..='\u{3ff}' | '\u{1f00}'..='\u{1fff}' => Greek,
        '\u{400}'..='\u{52f}' => Cyrillic,
        '\u{531}'..='\u{587}' => Armenian,
        '\u{5d0}'..='\u{5f2}' => Hebrew,
        '\u{620}'..='\u{64a}' | '\u{66e}'..='\u{6d5}' | '\u{6fa}'..='\u{6ff}' | '\u{750}'..='\u{77f}' => Arabic,
        '\u{fb50}'..='\u{fdff}' | '\u{fe70}'..='\u{fefc}' => Arabic,
        '\u{780}'..='\u{7b1}' => Thaana,
        '\u{900}'..='\u{963}' | '\u{971}'..='\u{97f}' => Devanagari,
        '\u{980}'..='\u{9e3}' | '\u{9f0}' | '\u{9f1}' => Bengali,
        '\u{a01}'..='\u{a5e}' | '\u{a70}'..='\u{a75}' => Gurmukhi,
        '\u{a81}'..='\u{ae3}' => Gujarati,
        '\u{b01}'..='\u{b63}' => Oriya,
        '\u{b82}'..='\u{bcd}' => Tamil,
        '\u{c00}'..='\u{c63}' => Telugu,
        '\u{c80}'..='\u{ce3}' => Kannada,
        '\u{d00}'..='\u{d63}' => Malayalam,
        '\u{d81}'..='\u{df3}' => Sinhala,
        '\u{e01}'..='\u{e4e}' => Thai,
        '\u{e81}'..='\u{ecd}' => Lao,
        '\u{f40}'..='\u{fbc}' => Tibetan,
        '\u{1000}'..='\u{103f}' => Burmese,
        '\u{10a0}'..='\u{10ff}' => Georgian,
        '\u{1200}'..='\u{137f}' => Ethiopic,
        '\u{1780}'..='\u{17d3}' => Khmer,
        '\u{3041}'..='\u{30ff}' | '\u{ff66}'..='\u{ff9f}' => Kana,
        '\u{ac00}'..='\u{d7a3}' | '\u{1100}'..='\u{11ff}' => Hangul,
        c if crate::text::characters::is_han(c) => Han,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_letters_decide() {
        let check = |text: &str, expected: Option<Script>| {
            assert_eq!(main_script(text).map(|(script, _)| script), expected, "{text:?}");
        };
        check("plain words", Some(Script::Latin));
        check("iPhone 很好用吗", Some(Script::Han));
        check("今日は天気", Some(Script::Kana));
        check("안녕 ok", Some(Script::Hangul));
        check("Καλημέρα", Some(Script::Greek));
        check("привет ok", Some(Script::Cyrillic));
        check("12 + 3 = 15 😀", None);
        check("", None);
    }

    #[test]
    fn the_list_of_scripts_is_in_order() {
        for (place, script) in ALL.into_iter().enumerate() {
            assert_eq!(place, script as usize);
        }
    }
}
