//! Text preparation: mentions become `@user` and links become `http`, as in the posts that the model was trained on.
//!
//! It works on what the model reads only; what is stored of a post is not its business. It changes nothing on a second run.

use std::borrow::Cow;

use crate::config::Prepare;

/// Applies the checkpoint's preparation to one text; borrows where there is nothing to change.
pub(crate) fn prepare(text: &str, how: Prepare) -> Cow<'_, str> {
    match how {
        Prepare::None => Cow::Borrowed(text),
        Prepare::Social => social(text),
    }
}

/// What stands at a place of interest in a text.
enum Found {
    Mention {
        end: usize,
    },
    Link {
        end: usize,
    },
    /// `\u2019`, as some archives hold their characters.
    Escape {
        end: usize,
        character: char,
    },
    /// `&amp;`, as Twitter's API holds it.
    Entity {
        end: usize,
        character: &'static str,
    },
}

fn social(text: &str) -> Cow<'_, str> {
    let bytes = text.as_bytes();
    let mut out: Option<String> = None;
    let mut copied = 0;
    let mut at = 0;
    while at < bytes.len() {
        let Some(found) = find(text, at) else {
            at += 1;
            continue;
        };
        let out = out.get_or_insert_with(|| String::with_capacity(text.len()));
        out.push_str(&text[copied..at]);
        let end = match found {
            Found::Mention { end } => {
                out.push_str("@user");
                end
            }
            Found::Link { end } => {
                out.push_str("http");
                end
            }
            Found::Escape { end, character } => {
                out.push(character);
                end
            }
            Found::Entity { end, character } => {
                out.push_str(character);
                end
            }
        };
        (copied, at) = (end, end);
    }
    match out {
        None => Cow::Borrowed(text),
        Some(mut out) => {
            out.push_str(&text[copied..]);
            Cow::Owned(out)
        }
    }
}

/// What starts at byte `at`; only ASCII bytes start something, so `at` is then a character boundary.
fn find(text: &str, at: usize) -> Option<Found> {
    let bytes = text.as_bytes();
    let starts_word = at == 0 || !(is_word(bytes[at - 1]) || bytes[at - 1] >= 0x80);
    match bytes[at] {
        b'@' if starts_word && !(at > 0 && bytes[at - 1] == b'{') => {
            mention(bytes, at).map(|end| Found::Mention { end })
        }
        b'h' | b'H' | b'w' | b'W' if starts_word => link(bytes, at).map(|end| Found::Link { end }),
        b'{' if text[at..].starts_with("{{URL}}") => Some(Found::Link { end: at + 7 }),
        b'\\' if bytes.get(at + 1) == Some(&b'u') => {
            let digits = text.get(at + 2..at + 6)?;
            let character = char::from_u32(u32::from_str_radix(digits, 16).ok()?)?;
            Some(Found::Escape { end: at + 6, character })
        }
        b'&' => [
            ("&amp;", "&"),
            ("&lt;", "<"),
            ("&gt;", ">"),
            ("&quot;", "\""),
            ("&#39;", "'"),
        ]
        .iter()
        .find(|(entity, _)| text[at..].starts_with(entity))
        .map(|(entity, character)| Found::Entity {
            end: at + entity.len(),
            character,
        }),
        _ => None,
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// `@name`, `@name@host.tld`, `@name.host.tld`; `None` for a lone `@` and for `@user`, which is what it would become.
fn mention(bytes: &[u8], at: usize) -> Option<usize> {
    let word = |from: usize| from + bytes[from..].iter().take_while(|&&byte| is_word(byte)).count();
    let mut end = word(at + 1);
    if end == at + 1 {
        return None;
    }
    while end + 1 < bytes.len() && matches!(bytes[end], b'.' | b'@') && bytes[end + 1].is_ascii_lowercase() {
        end = word(end + 1);
    }
    (&bytes[at..end] != b"@user").then_some(end)
}

/// `http://…`, `https://…`, `www.…`, up to the next white space.
fn link(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = &bytes[at..];
    let starts =
        |prefix: &str| rest.len() > prefix.len() && rest[..prefix.len()].eq_ignore_ascii_case(prefix.as_bytes());
    if !(starts("http://") || starts("https://") || starts("www.")) {
        return None;
    }
    Some(at + rest.iter().take_while(|byte| !byte.is_ascii_whitespace()).count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mentions_and_links_become_what_the_model_knows() {
        for (text, prepared) in [
            ("hi @Ada_L and @u_1a2b!", "hi @user and @user!"),
            ("@ada.bsky.social says", "@user says"),
            ("@ada@host.example says. Yes", "@user says. Yes"),
            ("thanks @ada.", "thanks @user."),
            ("see https://t.example/a?b=c now", "see http now"),
            ("see HTTP://x.example", "see http"),
            ("www.x.example", "http"),
            ("news {{URL}}", "news http"),
            ("mail a@b.example stays", "mail a@b.example stays"),
            ("{@Ada L@} wins", "{@Ada L@} wins"),
            ("it\\u2019s &lt;3 &amp; more", "it’s <3 & more"),
            ("5 @ 3, @@ and http", "5 @ 3, @@ and http"),
            ("bad \\u12 \\ud800 \\u", "bad \\u12 \\ud800 \\u"),
            ("naïve café 日本 @π", "naïve café 日本 @π"),
            ("", ""),
        ] {
            assert_eq!(social(text), prepared, "{text}");
        }
    }

    #[test]
    fn preparing_twice_changes_nothing_more() {
        for text in ["@ada https://x.example \\u2019", "@user http", "a &gt; b"] {
            let once = social(text).into_owned();
            assert_eq!(social(&once), once, "{text}");
        }
    }

    #[test]
    fn texts_without_marks_are_borrowed() {
        assert!(matches!(social("plain words @user http"), Cow::Borrowed(_)));
    }
}
