//! What an `@` belongs to: an e-mail address or a mention.

use crate::text::tokens::is_word;

/// Longest local part and longest domain of RFC 5321.
const LOCAL: usize = 64;
const DOMAIN: usize = 255;

/// Ends of file names and versions that look like domains (`icon@2x.png`).
const NO_DOMAINS: [&str; 10] = ["png", "jpg", "jpeg", "gif", "webp", "svg", "js", "css", "html", "pdf"];

/// Top-level domains that make `@name.tld` a handle; behind others stands the next sentence.
const HANDLE_DOMAINS: [&str; 24] = [
    "app", "br", "ca", "co", "com", "de", "dev", "es", "eu", "fr", "info", "io", "it", "jp", "me", "net", "nl",
    "online", "org", "social", "tv", "uk", "us", "xyz",
];

/// The e-mail address whose `@` stands at `at`.
pub(super) fn email(text: &str, at: usize) -> Option<(usize, usize)> {
    let start = local_start(text, at);
    if start == at || text[start..at].eq_ignore_ascii_case("git") {
        return None;
    }
    let preceded = text[..start].bytes().next_back();
    if matches!(preceded, Some(b'@')) {
        return None;
    }
    domain_end(text, at + 1).map(|end| (start, end))
}

fn local_start(text: &str, at: usize) -> usize {
    let mut start = at;
    let floor = at.saturating_sub(LOCAL);
    while let Some(c) = text[..start].chars().next_back() {
        let fits = c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '%' | '+' | '-' | '\'') || is_letter(c);
        if !fits || start - c.len_utf8() < floor {
            break;
        }
        start -= c.len_utf8();
    }
    let local = &text[start..at];
    let trimmed = local.trim_start_matches(['.', '-', '\'', '%', '+']);
    if trimmed.ends_with('.') { at } else { at - trimmed.len() }
}

/// Letters of Latin, Greek and Cyrillic beyond ASCII. Scripts that set no blanks would drag in the words before.
fn is_letter(c: char) -> bool {
    matches!(c, '\u{c0}'..='\u{52f}') && c.is_alphabetic()
}

/// End of the domain that starts at `start`: labels of letters, digits and hyphens, the last one of letters.
fn domain_end(text: &str, start: usize) -> Option<usize> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-' || is_letter(c);
    let rest = &text[start..];
    let mut domain = &rest[..rest.find(|c| !fits(c)).unwrap_or(rest.len())];
    if domain.len() > DOMAIN {
        domain = &domain[..domain.floor_char_boundary(DOMAIN)];
    }
    domain = &domain[..domain.find("..").unwrap_or(domain.len())];
    loop {
        domain = domain.trim_end_matches(['.', '-']);
        let (host, top) = domain.rsplit_once('.')?;
        let label =
            |label: &str| !label.is_empty() && label.len() <= 63 && !label.starts_with('-') && !label.ends_with('-');
        if !host.split('.').all(label) {
            return None;
        }
        let word = top.chars().count() >= 2 && top.chars().all(char::is_alphabetic);
        if (word || top.starts_with("xn--")) && !NO_DOMAINS.contains(&top) {
            return Some(start + domain.len());
        }
        domain = host;
    }
}

/// The mention whose `@` stands at `at`: a handle, with the server or domain that belongs to it.
pub(super) fn mention(text: &str, at: usize) -> Option<(usize, usize)> {
    let bytes = text.as_bytes();
    if at > 0 && (is_word(bytes[at - 1]) || matches!(bytes[at - 1], b'.' | b'-') && at > 1 && is_word(bytes[at - 2])) {
        return None;
    }
    let start = at + 1;
    let name = &text[start..start + bytes[start..].iter().take_while(|byte| is_word(**byte)).count()];
    if name.is_empty() || name.len() > LOCAL || is_amount(name) || is_own(name) {
        return None;
    }
    let mut end = start + name.len();
    if bytes.get(end) == Some(&b'@') {
        end = domain_end(text, end + 1).unwrap_or(end);
    } else if matches!(bytes.get(end), Some(b'.' | b'-')) {
        end = handle_domain(text, start).unwrap_or(end);
    }
    Some((at, end))
}

/// `5pm`, `300k`, `1st`: times and prices come after an `@` too.
fn is_amount(name: &str) -> bool {
    let unit = name.trim_start_matches(|c: char| c.is_ascii_digit());
    let units = ["", "am", "pm", "h", "k", "m", "b", "x", "st", "nd", "rd", "th"];
    unit.len() < name.len() && units.iter().any(|known| unit.eq_ignore_ascii_case(known))
}

/// What masks and pseudonyms of mentions look like.
fn is_own(name: &str) -> bool {
    let code = |code: &str| code.len() == 12 && code.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    name == "user" || name.strip_prefix("u_").is_some_and(code)
}

/// End of a handle that is a domain, as in `@ana.bsky.social`.
fn handle_domain(text: &str, start: usize) -> Option<usize> {
    let end = domain_end(text, start)?;
    let handle = &text[start..end];
    let top = handle.rsplit('.').next()?;
    let deep = handle.matches('.').count() >= 2;
    let lower = handle
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-'));
    (lower && (deep || HANDLE_DOMAINS.contains(&top))).then_some(end)
}
