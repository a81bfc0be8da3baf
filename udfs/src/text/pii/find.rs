//! One pass over a text that stops only where personal data could be: at `@`, digits, colons and brackets.

use super::fold::{Folded, fold, needs_fold};
use super::number::{Number, card, may_start, ssn};
use super::{Kind, account, handle, network, phone};
use crate::text::tokens::is_word;

/// A finding, in bytes of the text it was found in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) kind: Kind,
    pub(super) start: usize,
    pub(super) end: usize,
}

/// Finds personal data. The findings are in order and do not overlap; the buffers are used again for the next text.
#[derive(Default)]
pub(super) struct Finder {
    found: Vec<Found>,
    folded: Option<Folded>,
}

impl Finder {
    /// What is found in `text`.
    pub(super) fn find(&mut self, text: &str) -> &[Found] {
        self.found.clear();
        self.folded = needs_fold(text).then(|| fold(text));
        match &self.folded {
            None => scan(text, &mut self.found),
            Some(folded) => {
                scan(&folded.text, &mut self.found);
                for found in &mut self.found {
                    (found.start, found.end) = folded.original(text, found.start, found.end);
                }
            }
        }
        resolve(&mut self.found);
        &self.found
    }
}

/// Of findings that overlap the longer stands, of equal ones the kind that comes first.
fn resolve(found: &mut Vec<Found>) {
    if found.len() < 2 {
        return;
    }
    found.sort_unstable_by_key(|found| (found.start, std::cmp::Reverse(found.end), found.kind));
    found.dedup_by(|next, kept| {
        if next.start >= kept.end {
            return false;
        }
        if next.end - next.start > kept.end - kept.start {
            *kept = *next;
        }
        true
    });
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Trigger {
    None,
    Digit,
    At,
    Colon,
    Bracket,
}

const TRIGGERS: [Trigger; 256] = {
    let mut triggers = [Trigger::None; 256];
    let mut digit = b'0';
    while digit <= b'9' {
        triggers[digit as usize] = Trigger::Digit;
        digit += 1;
    }
    triggers[b'@' as usize] = Trigger::At;
    triggers[b':' as usize] = Trigger::Colon;
    triggers[b'[' as usize] = Trigger::Bracket;
    triggers
};

fn scan(text: &str, found: &mut Vec<Found>) {
    let bytes = text.as_bytes();
    let mut scan = Scan {
        text,
        found,
        url_end: 0,
        floor: 0,
    };
    let mut at = 0;
    while at < bytes.len() {
        at = match TRIGGERS[usize::from(bytes[at])] {
            Trigger::None => at + 1,
            Trigger::Digit => scan.run(at),
            Trigger::At => scan.at_sign(at),
            Trigger::Colon => scan.colon(at),
            Trigger::Bracket => own_token(&bytes[at..]).map_or(at + 1, |length| at + length),
        };
    }
}

/// One pass; every method looks at the place it is given and returns where to go on.
struct Scan<'a> {
    text: &'a str,
    found: &'a mut Vec<Found>,
    /// End of the URL that is being passed: figures inside it are no numbers of people.
    url_end: usize,
    /// End of the last run of letters and digits: no run reaches back behind it.
    floor: usize,
}

impl Scan<'_> {
    fn hit(&mut self, kind: Kind, start: usize, end: usize) {
        self.found.push(Found { kind, start, end });
    }

    fn run(&mut self, at: usize) -> usize {
        let bytes = self.text.as_bytes();
        let back = bytes[self.floor..at]
            .iter()
            .rev()
            .take_while(|byte| byte.is_ascii_alphanumeric())
            .count();
        let start = at - back;
        let end = at
            + bytes[at..]
                .iter()
                .take_while(|byte| byte.is_ascii_alphanumeric())
                .count();
        self.floor = end;
        if end - start >= 14 && account::is_wallet(&self.text[start..end]) {
            self.hit(Kind::Wallet, start, end);
            return end;
        }
        let bounded = start == 0 || !is_word(bytes[start - 1]);
        if back == 2
            && bounded
            && let Some(iban_end) = account::iban(bytes, start)
        {
            self.hit(Kind::Iban, start, iban_end);
            return iban_end;
        }
        if back == 0 { self.number(at, end) } else { end }
    }

    /// A run that starts with a digit.
    fn number(&mut self, start: usize, run_end: usize) -> usize {
        let bytes = self.text.as_bytes();
        if run_end - start <= 3
            && bytes.get(run_end) == Some(&b'.')
            && let Some(end) = network::ipv4(self.text, start)
        {
            self.hit(Kind::Ipv4, start, end);
            return end;
        }
        if start < self.url_end {
            return run_end;
        }
        let bracket = start > 0 && bytes[start - 1] == b'(';
        let first = start - usize::from(bracket);
        let plus = first > 0 && bytes[first - 1] == b'+';
        if !may_start(bytes, first - usize::from(plus)) {
            return run_end;
        }
        let number = Number::read(bytes, start);
        if number.len() == 0 {
            return run_end;
        }
        let hit = card(&number)
            .map(|end| (Kind::Card, start, end))
            .or_else(|| ssn(&number).map(|end| (Kind::Ssn, start, end)));
        let hit = hit.or_else(|| phone::phone(self.text, &number).map(|(start, end)| (Kind::Phone, start, end)));
        let Some((kind, start, end)) = hit else { return run_end };
        self.hit(kind, start, end);
        end
    }

    fn at_sign(&mut self, at: usize) -> usize {
        if let Some((start, end)) = handle::email(self.text, at) {
            self.hit(Kind::Email, start, end);
            return end;
        }
        if let Some((start, end)) = handle::mention(self.text, at) {
            self.hit(Kind::Mention, start, end);
            return end;
        }
        at + 1 + own_mention(&self.text.as_bytes()[at + 1..])
    }

    fn colon(&mut self, at: usize) -> usize {
        if let Some(url) = network::url(self.text, at) {
            if let Some((start, end)) = url.credentials {
                self.hit(Kind::UrlCredentials, start, end);
            }
            if url.end > self.url_end {
                let from = self.url_end.max(url.host);
                let found = &mut *self.found;
                network::secrets(self.text, from, url.end, |start, end| {
                    found.push(Found {
                        kind: Kind::UrlCredentials,
                        start,
                        end,
                    });
                });
                self.url_end = url.end;
            }
            return url.host;
        }
        match network::ipv6(self.text, at) {
            Some((start, end)) => {
                self.hit(Kind::Ipv6, start, end);
                end
            }
            None => at + 1,
        }
    }
}

/// Length of a mask or pseudonym at the beginning of `rest`.
fn own_token(rest: &[u8]) -> Option<usize> {
    let kind = Kind::ALL.iter().map(|kind| kind.mask().as_bytes()).find(|mask| {
        let open = mask.len() - 1;
        mask[0] == b'[' && rest.len() > open && rest[..open] == mask[..open]
    })?;
    let open = kind.len() - 1;
    let code = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    match rest[open] {
        b']' => Some(open + 1),
        b':' if rest.get(open + 13) == Some(&b']') && rest[open + 1..open + 13].iter().all(code) => Some(open + 14),
        _ => None,
    }
}

/// Length of the name of a mask or pseudonym of a mention at the beginning of `rest`, behind its `@`.
fn own_mention(rest: &[u8]) -> usize {
    let length = rest.iter().take_while(|byte| is_word(**byte)).count();
    if rest.starts_with(b"user") && length == 4 || rest.starts_with(b"u_") && length == 14 {
        length
    } else {
        0
    }
}
