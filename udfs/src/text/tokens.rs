//! What in a post is not prose: links, @mentions, #tags, $cashtags. Works on bytes; every end lies between characters.

/// A piece of a post that stands for something else than its letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Token {
    Link,
    Mention,
    Tag,
    Cashtag,
}

/// The token that starts at `at`, with its end. `at` must not lie inside a word; see [`starts_word`].
pub(crate) fn token(bytes: &[u8], at: usize) -> Option<(Token, usize)> {
    let rest = &bytes[at..];
    let (token, length) = match rest[0] {
        b'h' | b'H' | b'w' | b'W' if starts_link(rest) => {
            (Token::Link, rest.iter().take_while(|b| in_link(**b)).count())
        }
        b'@' => (
            Token::Mention,
            1 + rest[1..].iter().take_while(|b| is_word(**b)).count(),
        ),
        b'#' => (
            Token::Tag,
            1 + rest[1..].iter().take_while(|b| is_word(**b) || **b >= 0x80).count(),
        ),
        b'$' => (
            Token::Cashtag,
            1 + rest[1..].iter().take_while(|b| b.is_ascii_alphabetic()).count(),
        ),
        _ => return None,
    };
    (length > 1).then_some((token, at + length))
}

/// Whether a word could start at `at`: the byte before is no letter, digit or underscore of ASCII.
pub(crate) fn starts_word(bytes: &[u8], at: usize) -> bool {
    at == 0 || !is_word(bytes[at - 1])
}

/// Letters, digits and the underscore of ASCII.
pub(crate) fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn starts_link(rest: &[u8]) -> bool {
    let starts = |prefix: &[u8]| rest.len() > prefix.len() && rest[..prefix.len()].eq_ignore_ascii_case(prefix);
    starts(b"http://") || starts(b"https://") || starts(b"www.")
}

/// Links end at white space, quotes, angle brackets, and where another script goes on without a blank.
fn in_link(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'"' | b'<' | b'>')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_end_where_prose_goes_on() {
        let check = |text: &str, expected: Option<(Token, &str)>| {
            let got = token(text.as_bytes(), 0).map(|(token, end)| (token, &text[..end]));
            assert_eq!(got, expected, "{text:?}");
        };
        check(
            "https://example.com/a?b#c, and",
            Some((Token::Link, "https://example.com/a?b#c,")),
        );
        check("HTTP://x", Some((Token::Link, "HTTP://x")));
        check("www.example.com日本", Some((Token::Link, "www.example.com")));
        check("@ana_b: hi", Some((Token::Mention, "@ana_b")));
        check("#año2 x", Some((Token::Tag, "#año2")));
        check("$ABC.", Some((Token::Cashtag, "$ABC")));
        for text in ["@ home", "#", "$5", "http", "www.", "hello"] {
            check(text, None);
        }
    }
}
