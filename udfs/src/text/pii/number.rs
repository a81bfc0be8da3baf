//! Digits in groups, and the numbers that are told by their form: cards and social security numbers.

/// Most digits and groups that are read; more than any of the numbers sought has.
const DIGITS: usize = 24;
const GROUPS: usize = 10;

/// Digits from one place on, with the separators between their groups.
pub(super) struct Number<'a> {
    bytes: &'a [u8],
    digits: [u8; DIGITS],
    /// Start and end of every group, and how many digits there are up to its end.
    groups: [(usize, usize, usize); GROUPS],
    len: usize,
}

impl<'a> Number<'a> {
    /// Reads groups of digits from `start`, a digit, on. Between groups stand one to three of ` -./()`.
    pub(super) fn read(bytes: &'a [u8], start: usize) -> Number<'a> {
        let mut number = Number {
            bytes,
            digits: [0; DIGITS],
            groups: [(0, 0, 0); GROUPS],
            len: 0,
        };
        let (mut at, mut total) = (start, 0);
        while number.len < GROUPS {
            let length = bytes[at..]
                .iter()
                .take(DIGITS + 1)
                .take_while(|byte| byte.is_ascii_digit())
                .count();
            let end = at + length;
            if length == 0 || total + length > DIGITS || bytes.get(end).is_some_and(|next| is_joined(*next)) {
                break;
            }
            number.digits[total..total + length].copy_from_slice(&bytes[at..end]);
            total += length;
            number.groups[number.len] = (at, end, total);
            number.len += 1;
            let gap = bytes[end..]
                .iter()
                .take(3)
                .take_while(|byte| matches!(byte, b' ' | b'-' | b'.' | b'/' | b'(' | b')'));
            at = end + gap.count();
            if at == end || !bytes.get(at).is_some_and(u8::is_ascii_digit) {
                break;
            }
        }
        number
    }

    /// Number of groups.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Where the first group starts.
    pub(super) fn start(&self) -> usize {
        self.groups[0].0
    }

    /// Where the first `count` groups end.
    pub(super) fn end(&self, count: usize) -> usize {
        self.groups[count - 1].1
    }

    /// Digits of the first `count` groups.
    pub(super) fn digits(&self, count: usize) -> &[u8] {
        &self.digits[..self.groups[count - 1].2]
    }

    /// Length of a group.
    pub(super) fn length(&self, group: usize) -> usize {
        self.groups[group].1 - self.groups[group].0
    }

    /// Last digit of a group.
    pub(super) fn last(&self, group: usize) -> u8 {
        self.bytes[self.groups[group].1 - 1] - b'0'
    }

    /// What stands before a group, from the group before it on.
    pub(super) fn gap(&self, group: usize) -> &'a [u8] {
        &self.bytes[self.groups[group - 1].1..self.groups[group].0]
    }

    /// Whether one and the same single separator out of `allowed` stands between the first `count` groups.
    pub(super) fn is_even(&self, count: usize, allowed: &[u8]) -> bool {
        let even = |group| self.gap(group).len() == 1 && self.gap(group) == self.gap(1);
        count < 2 || (allowed.contains(&self.gap(1)[0]) && (1..count).all(even))
    }

    /// Whether a number may end after `count` groups: the rest, if any, stands apart.
    pub(super) fn may_end(&self, count: usize) -> bool {
        let joined = |next: &u8| matches!(next, b'-' | b'.' | b'/' | b',');
        let next = &self.bytes[self.end(count)..];
        !(next.first().is_some_and(joined) && next.get(1).is_some_and(u8::is_ascii_digit))
    }
}

/// A letter right after a group makes it part of a word; the sign of an extension does not.
fn is_joined(next: u8) -> bool {
    next.is_ascii_alphabetic() && !matches!(next, b'x' | b'X') || next == b'_'
}

/// Whether a number may start at `start`: not inside a longer number, a price, a tag or an identifier.
pub(super) fn may_start(bytes: &[u8], start: usize) -> bool {
    let Some(&before) = start.checked_sub(1).and_then(|at| bytes.get(at)) else {
        return true;
    };
    let further = start
        .checked_sub(2)
        .and_then(|at| bytes.get(at))
        .copied()
        .unwrap_or(b' ');
    match before {
        b'$' | b'#' | b'_' | b'=' | b'%' | b'&' => false,
        // Euro, pound and yen signs end in these bytes.
        0x80.. => !bytes[..start].ends_with("€".as_bytes()) && !bytes[..start].ends_with("£".as_bytes()),
        b'.' | b',' | b'-' | b'/' | b'+' | b'\'' => !further.is_ascii_alphanumeric(),
        _ => !before.is_ascii_alphanumeric(),
    }
}

/// Lower-case text in front of `start`, no further than the last mask.
pub(super) fn context(text: &str, start: usize) -> String {
    let before = &text[text.floor_char_boundary(start.saturating_sub(32))..start];
    before[before.rfind(']').map_or(0, |at| at + 1)..].to_lowercase()
}

/// End of the payment card number that `number` starts with.
pub(super) fn card(number: &Number<'_>) -> Option<usize> {
    (1..=number.len()).rev().find_map(|count| {
        let digits = number.digits(count);
        let grouped = number.is_even(count, b" -")
            && (0..count.saturating_sub(1)).all(|group| (3..=6).contains(&number.length(group)));
        let valid = (12..=19).contains(&digits.len()) && grouped && is_issued(digits) && luhn(digits);
        (valid && number.may_end(count)).then(|| number.end(count))
    })
}

/// Whether an issuer gives out numbers with this beginning and length (ISO/IEC 7812 ranges as the networks publish them).
fn is_issued(digits: &[u8]) -> bool {
    let head = |count: usize| {
        digits[..count]
            .iter()
            .fold(0, |head, digit| head * 10 + u32::from(digit - b'0'))
    };
    let length = digits.len();
    match head(4) {
        4000..=4999 => matches!(length, 13 | 16 | 19),
        5100..=5599 | 2221..=2720 => length == 16,
        3400..=3499 | 3700..=3799 => length == 15,
        3000..=3059 | 3095 | 3600..=3699 | 3800..=3999 => (14..=19).contains(&length),
        3528..=3589 => (16..=19).contains(&length),
        2131 | 1800 => length == 15,
        6011 | 6221..=6229 | 6440..=6599 | 6200..=6299 => (16..=19).contains(&length),
        5018 | 5020 | 5038 | 5893 | 6304 | 6759 | 6761..=6763 => true,
        _ => false,
    }
}

/// The check digit of payment cards.
fn luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, digit)| {
            let digit = u32::from(digit - b'0');
            if place % 2 == 0 {
                digit
            } else {
                digit * 2 / 10 + digit * 2 % 10
            }
        })
        .sum();
    sum.is_multiple_of(10)
}

/// End of the US social security number that `number` starts with: 3, 2 and 4 digits in ranges that are given out.
pub(super) fn ssn(number: &Number<'_>) -> Option<usize> {
    let shaped = number.len() >= 3 && [3, 2, 4] == [number.length(0), number.length(1), number.length(2)];
    if !shaped || !number.is_even(3, b"- ") || !number.may_end(3) {
        return None;
    }
    let digits = number.digits(3);
    let refused = &digits[..3] == b"000" || &digits[..3] == b"666" || digits[0] == b'9';
    let empty = &digits[3..5] == b"00" || &digits[5..] == b"0000";
    (!refused && !empty).then(|| number.end(3))
}
