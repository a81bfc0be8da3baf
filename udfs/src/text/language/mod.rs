//! Which language a post is written in, and how far to trust that.
//!
//! Links, @mentions, #tags and $cashtags are left out, and no more than the first 600 bytes of the rest are read.
//! The script names the language of most scripts. Latin goes through `whichlang` (16 languages, about 1.5 µs for 100
//! letters) unless function words settle it; where they contradict its answer, or are missing in a long text, or there
//! are letters foreign to it, `whatlang` (70 languages, some forty times slower) is asked as well. Cyrillic, Arabic, Devanagari and Hebrew have letters that tell their languages apart, and `whatlang`
//! where they do not.
//!
//! The confidence is a measured frequency, not the model's own number: the share of right answers among texts with
//! the same kind of evidence and about the same length; see [`calibration`].

mod calibration;
mod script;
mod words;

use std::borrow::Cow;

use arrow::array::{Array, Float32Array, Float32Builder, StringArray, StringBuilder};

use self::calibration::Evidence;
use self::script::{Script, main_script};
use super::tokens::{starts_word, token};

/// The code for texts without letters: undetermined.
pub const UNDETERMINED: &str = "und";

/// Bytes of a text that are looked at.
const READ: usize = 600;

/// Below this many letters `whatlang` is worse than nothing on Latin text.
const FEW_LETTERS: usize = 20;

/// From here on prose has function words: a text without any is not in the language that it was taken for.
const MANY_LETTERS: usize = 40;

/// The same for English, whose headlines do without them.
const MANY_ENGLISH_LETTERS: usize = 70;

/// Languages of a column of texts.
#[derive(Debug, Clone)]
pub struct Languages {
    /// ISO 639-1 code, or [`UNDETERMINED`] where there are no letters.
    pub lang: StringArray,
    /// Measured share of right answers for such evidence, 0 to 1; 0 for [`UNDETERMINED`].
    pub confidence: Float32Array,
}

/// Detects the language of every text of a column.
///
/// ```
/// # use arrow::array::StringArray;
/// let texts = StringArray::from(vec!["What a lovely day it is in this town", "12:30"]);
/// let languages = tamiz_udfs::text::language::detect(&texts);
/// assert_eq!(languages.lang.value(0), "en");
/// assert_eq!(languages.lang.value(1), "und");
/// ```
pub fn detect(texts: &StringArray) -> Languages {
    let mut lang = StringBuilder::with_capacity(texts.len(), texts.len() * 2);
    let mut confidence = Float32Builder::with_capacity(texts.len());
    for text in texts {
        let Some(text) = text else {
            lang.append_null();
            confidence.append_null();
            continue;
        };
        match identify(&prose(text)) {
            Some(guess) => {
                lang.append_value(guess.lang);
                confidence.append_value(calibration::confidence(guess.evidence, guess.letters));
            }
            None => {
                lang.append_value(UNDETERMINED);
                confidence.append_value(0.0);
            }
        }
    }
    Languages {
        lang: lang.finish(),
        confidence: confidence.finish(),
    }
}

struct Guess {
    lang: &'static str,
    evidence: Evidence,
    letters: usize,
}

/// The text without its tokens, cut to what is read.
fn prose(text: &str) -> Cow<'_, str> {
    let text = &text[..text.floor_char_boundary(READ * 2)];
    let bytes = text.as_bytes();
    let mut kept: Option<String> = None;
    let (mut at, mut from) = (0, 0);
    while at < bytes.len() {
        let marks = matches!(bytes[at], b'@' | b'#' | b'$' | b'h' | b'H' | b'w' | b'W') && starts_word(bytes, at);
        let Some((_, end)) = marks.then(|| token(bytes, at)).flatten() else {
            at += 1;
            continue;
        };
        kept.get_or_insert_default().push_str(&text[from..at]);
        (at, from) = (end, end);
    }
    let read = |text: &str| text.floor_char_boundary(READ);
    match kept {
        None => Cow::Borrowed(&text[..read(text)]),
        Some(mut kept) => {
            kept.push_str(&text[from..]);
            kept.truncate(read(&kept));
            Cow::Owned(kept)
        }
    }
}

fn identify(text: &str) -> Option<Guess> {
    let (script, letters) = main_script(text)?;
    let (lang, evidence) = match script {
        Script::Latin => latin(text, letters),
        Script::Cyrillic => cyrillic(text),
        Script::Arabic => arabic(text),
        Script::Devanagari | Script::Hebrew => whatlang_only(text),
        single => (single.language().unwrap_or(UNDETERMINED), Evidence::Script),
    };
    Some(Guess {
        lang,
        evidence,
        letters,
    })
}

fn latin(text: &str, letters: usize) -> (&'static str, Evidence) {
    let votes = words::votes(text);
    let (winner, most, second) = votes.winner();
    if most >= 3 && most >= 2 * second && words::foreign_letters(text, winner) == 0 {
        return (whichlang_code(winner), Evidence::Votes);
    }
    let guess = whichlang::detect_language(text);
    let lang = whichlang_code(guess);
    let (own, foreign) = (votes.of(guess), words::foreign_letters(text, guess));
    if own >= 2 + foreign && own == most {
        return (lang, Evidence::Words);
    }
    let many = if guess == whichlang::Lang::Eng {
        MANY_ENGLISH_LETTERS
    } else {
        MANY_LETTERS
    };
    let no_prose = letters >= many && own == 0;
    if letters < FEW_LETTERS || (foreign == 0 && own == most && !no_prose) {
        return (
            lang,
            if own > 0 && own == most {
                Evidence::Word
            } else {
                Evidence::Letters
            },
        );
    }
    match whatlang::detect(text) {
        Some(other) if whatlang_code(other.lang()) == lang => (lang, Evidence::Both),
        Some(other) if other.confidence() >= 0.5 || foreign > 0 => (whatlang_code(other.lang()), Evidence::Trigrams),
        _ => (lang, Evidence::Disputed),
    }
}

/// Letters that one of the Cyrillic languages has and its neighbours have not.
fn cyrillic(text: &str) -> (&'static str, Evidence) {
    let (mut russian, mut ukrainian, mut belarusian, mut other) = (false, false, false, false);
    for c in text.chars() {
        match c {
            'ы' | 'э' | 'Ы' | 'Э' | 'ё' => russian = true,
            'і' | 'ї' | 'є' | 'ґ' | 'І' | 'Ї' | 'Є' | 'Ґ' => ukrainian = true,
            'ў' | 'Ў' => belarusian = true,
            '\u{452}'..='\u{45c}' | '\u{45f}'..='\u{481}' | '\u{48a}'..='\u{52f}' => other = true,
            _ => {}
        }
    }
    other &= !ukrainian;
    match (russian, ukrainian, belarusian, other) {
        (_, _, true, _) => ("be", Evidence::Alphabet),
        (true, false, _, false) => ("ru", Evidence::Alphabet),
        (false, true, _, _) => ("uk", Evidence::Alphabet),
        (true, true, ..) => ("be", Evidence::Alphabet),
        _ => whatlang_only(text),
    }
}

/// Letters of Urdu, then of Persian, that Arabic has not.
fn arabic(text: &str) -> (&'static str, Evidence) {
    let has = |letters: &[char]| text.contains(letters);
    if has(&['ٹ', 'ڈ', 'ڑ', 'ں', 'ے', 'ہ', 'ھ']) {
        ("ur", Evidence::Alphabet)
    } else if has(&['پ', 'چ', 'ژ', 'گ', 'ی', 'ک']) {
        ("fa", Evidence::Alphabet)
    } else {
        ("ar", Evidence::Alphabet)
    }
}

fn whatlang_only(text: &str) -> (&'static str, Evidence) {
    match whatlang::detect(text) {
        Some(info) if info.is_reliable() => (whatlang_code(info.lang()), Evidence::Reliable),
        Some(info) => (whatlang_code(info.lang()), Evidence::Trigrams),
        None => (UNDETERMINED, Evidence::Disputed),
    }
}

fn whichlang_code(lang: whichlang::Lang) -> &'static str {
    use whichlang::Lang::*;
    match lang {
        Ara => "ar",
        Cmn => "zh",
        Deu => "de",
        Eng => "en",
        Fra => "fr",
        Hin => "hi",
        Ita => "it",
        Jpn => "ja",
        Kor => "ko",
        Nld => "nl",
        Por => "pt",
        Rus => "ru",
        Spa => "es",
        Swe => "sv",
        Tur => "tr",
        Vie => "vi",
    }
}

/// ISO 639-1 for the ISO 639-3 codes of `whatlang`, which are its own names in most but these cases.
fn whatlang_code(lang: whatlang::Lang) -> &'static str {
    const CODES: &str = "epo eo eng en rus ru cmn zh spa es por pt ita it ben bn fra fr deu de ukr uk kat ka ara ar \
        hin hi jpn ja heb he yid yi pol pl amh am jav jv kor ko nob nb dan da swe sv fin fi tur tr nld nl hun hu \
        ces cs ell el bul bg bel be mar mr kan kn ron ro slv sl hrv hr srp sr mkd mk lit lt lav lv est et tam ta \
        vie vi urd ur tha th guj gu uzb uz pan pa aze az ind id tel te pes fa mal ml ori or mya my nep ne sin si \
        khm km tuk tk aka ak zul zu sna sn afr af lat la slk sk cat ca tgl tl hye hy cym cy";
    let mut codes = CODES.split_ascii_whitespace();
    while let Some(three) = codes.next() {
        let two = codes.next().unwrap_or(UNDETERMINED);
        if three == lang.code() {
            return two;
        }
    }
    UNDETERMINED
}

#[cfg(test)]
mod tests;
