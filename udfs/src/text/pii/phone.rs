//! Telephone numbers, told from other numbers by what they bring as evidence.

use super::number::{Number, context};

/// Country calling codes of one and two digits; those of three digits begin with any other pair (ITU-T E.164).
const SHORT_CODES: &str = "1 7 20 27 30 31 32 33 34 36 39 40 41 43 44 45 46 47 48 49 51 52 53 54 55 56 57 58 60 61 62 \
    63 64 65 66 81 82 84 86 90 91 92 93 94 95 98";
const LONG_CODES: &str = "21 22 23 24 25 26 29 35 37 38 42 50 59 67 68 69 80 85 87 88 96 97 99";

/// Words in front of a number that say that it is a phone's.
const WORDS: [&str; 22] = [
    "phone",
    "tel",
    "tel.",
    "call",
    "cell",
    "mobile",
    "mob",
    "whatsapp",
    "fax",
    "sms",
    "dial",
    "hotline",
    "telephone",
    "telefon",
    "telefono",
    "teléfono",
    "téléphone",
    "móvil",
    "handy",
    "☎",
    "📞",
    "📱",
];

/// Words that say so of numbers in groups.
const HINTS: [&str; 5] = ["answering", "contact", "desk", "reach", "ring"];

/// The phone number that `number` starts with, with its sign, bracket and extension.
pub(super) fn phone(text: &str, number: &Number<'_>) -> Option<(usize, usize)> {
    let bytes = text.as_bytes();
    let lead = lead(bytes, number.start());
    (1..=number.len()).rev().find_map(|count| {
        let digits = number.digits(count).len();
        let plausible = (7..=17).contains(&digits) && number.may_end(count) && !is_date(number, count);
        let known = plausible && !is_round(number.digits(count)) && evidence(text, number, count, &lead);
        let start = if known {
            start(&lead, number, count)
        } else {
            return None;
        };
        Some((start, extension(bytes, number.end(count))))
    })
}

/// What stands right in front of the digits.
struct Lead {
    plus: bool,
    /// An opening bracket, before or behind the plus.
    bracket: bool,
    start: usize,
}

fn lead(bytes: &[u8], start: usize) -> Lead {
    let mut lead = Lead {
        plus: false,
        bracket: false,
        start,
    };
    while lead.start > 0 {
        match bytes[lead.start - 1] {
            b'+' if !lead.plus => lead.plus = true,
            b'(' if !lead.bracket => lead.bracket = true,
            _ => break,
        }
        lead.start -= 1;
    }
    lead
}

/// A bracket belongs to the number if it closes inside.
fn start(lead: &Lead, number: &Number<'_>, count: usize) -> usize {
    let closes = (1..count).any(|group| number.gap(group).contains(&b')'));
    if lead.bracket && !closes {
        number.start() - usize::from(lead.plus)
    } else {
        lead.start
    }
}

fn evidence(text: &str, number: &Number<'_>, count: usize, lead: &Lead) -> bool {
    let digits = number.digits(count);
    let length = digits.len();
    if lead.plus {
        return length <= 15 && length >= if count == 1 { 9 } else { 8 } && is_international(digits);
    }
    if digits.starts_with(b"00") {
        return (10..=17).contains(&length) && (count > 1 || length >= 12) && is_international(&digits[2..]);
    }
    let bracket = lead.bracket && count > 1 && number.gap(1).contains(&b')');
    let apart = !follows_number(text.as_bytes(), lead.start);
    let north_american = is_north_american(number, count);
    let national =
        is_national(number, count) || bracket && (8..=12).contains(&length) && count <= 4 && number.length(0) <= 5;
    (north_american || national) && (apart || bracket) || length <= 13 && named(text, lead.start, number, count)
}

/// Country code and length fit together.
fn is_international(digits: &[u8]) -> bool {
    let known = |codes: &str, length: usize| {
        codes
            .split_ascii_whitespace()
            .any(|code| code.len() == length && digits.starts_with(code.as_bytes()))
    };
    match digits[0] {
        b'1' => digits.len() == 11 && digits[1] >= b'2',
        b'7' => digits.len() == 11,
        _ => known(SHORT_CODES, 2) || known(LONG_CODES, 2),
    }
}

/// Area code, exchange, number: three, three and four digits, the first two not beginning with 0 or 1.
fn is_north_american(number: &Number<'_>, count: usize) -> bool {
    let digits = number.digits(count);
    let digits = match digits.len() {
        10 => digits,
        11 if digits[0] == b'1' && number.length(0) == 1 => &digits[1..],
        _ => return false,
    };
    let first = usize::from(number.length(0) == 1);
    let shaped = count == first + 3 && number.length(first) == 3 && number.length(first + 1) == 3;
    let spaced = (1..count).all(|group| {
        matches!(
            number.gap(group),
            b"-" | b"." | b" " | b") " | b")" | b" (" | b")-" | b"-("
        )
    });
    shaped && spaced && digits[0] >= b'2' && digits[3] >= b'2'
}

/// A leading 0 for long distance and an area code, in groups.
fn is_national(number: &Number<'_>, count: usize) -> bool {
    let digits = number.digits(count);
    let trunk = digits[0] == b'0' && (2..=6).contains(&number.length(0));
    let slash = count > 1 && number.gap(1) == b"/";
    let even = (if slash { 2 } else { 1 }..count).all(|group| {
        let gap = number.gap(group);
        matches!(gap, b" " | b"-" | b"." | b") " | b")" | b" / " | b" - ")
    });
    trunk && even && count > 1 && (9..=12).contains(&digits.len())
}

/// Whether a number stands right before: then this one is part of a list of figures.
fn follows_number(bytes: &[u8], start: usize) -> bool {
    bytes[..start]
        .iter()
        .rev()
        .find(|byte| **byte != b' ')
        .is_some_and(u8::is_ascii_digit)
}

/// A word for a phone stands before the number, at most two others between them.
fn named(text: &str, start: usize, number: &Number<'_>, count: usize) -> bool {
    if (0..count).any(|group| number.length(group) < 2) || is_years(number, count) {
        return false;
    }
    let before = context(text, start);
    let mut words = before
        .split(|c: char| c.is_whitespace() || matches!(c, ':' | ',' | '(' | '/'))
        .filter(|w| !w.is_empty())
        .rev();
    let Some(word) = words
        .by_ref()
        .take(3)
        .find(|word| WORDS.contains(word) || HINTS.contains(word))
    else {
        return false;
    };
    match word {
        // In talk of options a call stands before prices, which end in 0 or 5.
        "call" => !(0..count).all(|group| number.length(group) <= 4 && number.last(group).is_multiple_of(5)),
        word => count > 1 || !HINTS.contains(&word),
    }
}

fn is_years(number: &Number<'_>, count: usize) -> bool {
    let year = |group| {
        number.length(group) == 4 && matches!(&number.digits(group + 1)[group * 4..group * 4 + 2], b"19" | b"20")
    };
    (0..count).all(|group| number.length(group) == 4) && (0..count).all(year)
}

/// Day, month and year in some order, at the beginning.
fn is_date(number: &Number<'_>, count: usize) -> bool {
    if count < 3 || !number.is_even(3, b"-./ ") || number.gap(1) == b" " {
        return false;
    }
    let digits = number.digits(3);
    let value = |from: usize, length: usize| {
        digits[from..from + length]
            .iter()
            .fold(0, |value, digit| value * 10 + u32::from(digit - b'0'))
    };
    let (first, second, third) = (number.length(0), number.length(1), number.length(2));
    if first == 4 && second <= 2 && third <= 2 {
        return (1900..2100).contains(&value(0, 4));
    }
    let small = first <= 2 && second <= 2 && (third == 4 || third == 2 && count == 3);
    small
        && value(0, first) <= 31
        && value(first, second) <= 31
        && (third == 2 || (1900..2100).contains(&value(first + second, 4)))
}

/// Amounts end in noughts, fillers are of one digit.
fn is_round(digits: &[u8]) -> bool {
    digits.ends_with(b"000000") || digits.iter().all(|digit| *digit == digits[0])
}

/// End of an extension behind the number, or `end`.
fn extension(bytes: &[u8], end: usize) -> usize {
    let rest = &bytes[end..];
    let blank = usize::from(rest.first() == Some(&b' '));
    let signs: [&[u8]; 4] = [b"ext. ", b"ext.", b"ext ", b"x"];
    let matches =
        |sign: &&&[u8]| rest.len() >= blank + sign.len() && rest[blank..blank + sign.len()].eq_ignore_ascii_case(sign);
    let Some(sign) = signs.iter().find(matches) else {
        return end;
    };
    let from = end + blank + sign.len();
    let digits = bytes[from..]
        .iter()
        .take(6)
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    let ends = !bytes.get(from + digits).is_some_and(u8::is_ascii_alphanumeric);
    if (1..=5).contains(&digits) && ends {
        from + digits
    } else {
        end
    }
}
