//! Addresses of machines, and secrets in URLs.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::number::context;

/// Words after which four numbers with dots are a version.
const VERSIONS: [&str; 7] = ["version", "ver", "ver.", "v.", "release", "build", "firmware"];

/// End of the IPv4 address that starts at `start`, where no letter or digit stands before.
pub(super) fn ipv4(text: &str, start: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    if start > 0 && matches!(bytes[start - 1], b'.' | b'-' | b'_' | b',') {
        return None;
    }
    let length = bytes[start..]
        .iter()
        .take(16)
        .take_while(|byte| byte.is_ascii_digit() || **byte == b'.')
        .count();
    let run = text[start..start + length].trim_end_matches('.');
    let address: Ipv4Addr = run.parse().ok()?;
    let end = start + run.len();
    let goes_on = bytes
        .get(end)
        .is_some_and(|next| next.is_ascii_alphanumeric() || *next == b'_');
    let public = !(address.is_loopback() || address.is_unspecified() || address.is_broadcast());
    let before = context(text, start);
    let word = before.trim_end().rsplit([' ', '\n', ':']).next().unwrap_or_default();
    (public && !goes_on && !VERSIONS.contains(&word)).then_some(end)
}

/// The IPv6 address around the colon at `at`.
pub(super) fn ipv6(text: &str, at: usize) -> Option<(usize, usize)> {
    let bytes = text.as_bytes();
    let inside = |byte: &u8| byte.is_ascii_hexdigit() || *byte == b':';
    if !bytes.get(at + 1).is_some_and(inside) {
        return None;
    }
    let start = at
        - bytes[..at]
            .iter()
            .rev()
            .take(40)
            .take_while(|byte| inside(byte))
            .count();
    let length = bytes[start..]
        .iter()
        .take(48)
        .take_while(|byte| inside(byte) || **byte == b'.')
        .count();
    let mut run = text[start..start + length].trim_end_matches('.');
    if run.ends_with(':') && !run.ends_with("::") {
        run = &run[..run.len() - 1];
    }
    let address: Ipv6Addr = run.parse().ok()?;
    let end = start + run.len();
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let after = bytes.get(end).copied().is_some_and(word);
    let before = start > 0 && word(bytes[start - 1]);
    let bounded = !after && !before;
    // Names in program code (`ace::fab`) parse as addresses too.
    let groups = run.split(':').filter(|group| !group.is_empty()).count();
    let evident =
        run.bytes().any(|byte| byte.is_ascii_digit()) && (groups >= 3 || run.contains('.') || run.find(':') == Some(4));
    let public = !(address.is_loopback() || address.is_unspecified());
    (bounded && evident && public).then_some((start, end))
}

/// Bytes of a URL in which a host is sought, and a parameter's value.
const AUTHORITY: usize = 512;

/// Where the parts of a URL lie whose `://` stands at `at`.
pub(super) struct Url {
    /// User name and password, without the `@` behind.
    pub(super) credentials: Option<(usize, usize)>,
    /// Where the host begins.
    pub(super) host: usize,
    /// Where the URL ends.
    pub(super) end: usize,
}

/// Parses the URL whose `://` stands at `at`.
pub(super) fn url(text: &str, at: usize) -> Option<Url> {
    let bytes = text.as_bytes();
    let scheme = at > 0 && bytes[at - 1].is_ascii_alphanumeric();
    if !scheme || !bytes[at..].starts_with(b"://") {
        return None;
    }
    let start = at + 3;
    let ends = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b'"' | b'<' | b'>');
    let length = |stop: &dyn Fn(&u8) -> bool| bytes[start..].iter().take_while(|byte| !stop(byte)).count();
    let end = start + length(&ends);
    let authority = length(&|byte| ends(byte) || matches!(byte, b'/' | b'?' | b'#')).min(AUTHORITY);
    let user = memchr::memrchr(b'@', &bytes[start..start + authority]);
    let credentials = user
        .filter(|length| *length > 0)
        .map(|length| (start, start + length))
        .filter(|(start, end)| {
            let user = &text[*start..*end];
            // A user name of this kind names no one; what begins with a bracket has been replaced before.
            user != "git" && !user.starts_with('[')
        });
    Some(Url {
        credentials,
        host: user.map_or(start, |length| start + length + 1),
        end,
    })
}

/// Parameters whose values are secrets, in lower case, without `-` and `_`.
const SECRETS: [&str; 24] = [
    "accesskey",
    "accesstoken",
    "apikey",
    "apitoken",
    "auth",
    "authtoken",
    "clientsecret",
    "idtoken",
    "jwt",
    "passwd",
    "password",
    "privatekey",
    "pwd",
    "refreshtoken",
    "secret",
    "sessionid",
    "sessiontoken",
    "sig",
    "signature",
    "sid",
    "token",
    "xamzcredential",
    "xamzsecuritytoken",
    "xamzsignature",
];

/// Shortest value of a parameter that is taken for a secret.
const SHORTEST_SECRET: usize = 6;

/// Calls `found` with the span of every secret among the parameters of the URL part `start..end`.
pub(super) fn secrets(text: &str, start: usize, end: usize, mut found: impl FnMut(usize, usize)) {
    let bytes = text.as_bytes();
    for sign in memchr::memchr_iter(b'=', &bytes[start..end]).map(|at| start + at) {
        let name = bytes[start..sign]
            .iter()
            .rev()
            .take(24)
            .take_while(|byte| is_name(byte))
            .count();
        let separated = sign - name > start && matches!(bytes[sign - name - 1], b'?' | b'&' | b'#' | b';');
        let value = bytes[sign + 1..end]
            .iter()
            .take_while(|byte| !matches!(byte, b'&' | b'#' | b';'))
            .count();
        if separated && value >= SHORTEST_SECRET && bytes[sign + 1] != b'[' && is_secret(&text[sign - name..sign]) {
            found(sign + 1, sign + 1 + value);
        }
    }
}

fn is_name(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

fn is_secret(name: &str) -> bool {
    let plain: String = name
        .chars()
        .filter(|c| !matches!(c, '-' | '_'))
        .map(|c| c.to_ascii_lowercase())
        .collect();
    SECRETS.contains(&plain.as_str())
}
