//! Text out of an HTML fragment, as Mastodon and news feeds deliver it.
//!
//! Tags go, paragraphs and line breaks become line ends, the insides of `script` and `style` go. Entities stay: the
//! normalize stage resolves them once, for every source alike. A `<` that opens no tag is kept: "a < b" is text.
//!
//! Architecture Invariant: the work is bounded by the fragment's length times a small number, whatever its author wrote.

/// The text of an HTML fragment.
pub fn strip(html: &str) -> String {
    stripped(html).0
}

/// The text, and how many bytes were looked at for where tags end.
fn stripped(html: &str) -> (String, usize) {
    let mut out = String::with_capacity(html.len());
    let (mut rest, mut looked) = (html, 0);
    while let Some(at) = rest.find('<') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        match tag_bytes(rest) {
            Ok(bytes) => {
                let (tag, after) = rest.split_at(bytes);
                let name = name(&tag[1..]);
                if breaks(&name) && !out.is_empty() {
                    out.push('\n');
                }
                let hides = matches!(name.as_str(), "script" | "style") && !tag.starts_with("</");
                rest = if hides { after_close(after, &name) } else { after };
                looked += bytes + after.len() - rest.len();
            }
            Err(seen) => {
                looked += seen;
                out.push('<');
                rest = &rest[1..];
            }
        }
    }
    out.push_str(rest);
    out.truncate(out.trim_end().len());
    (out, looked)
}

/// Length of the tag which `text` starts with; where it starts with none, as the error how many bytes it took to see that.
///
/// A tag ends before the next `<` outside of quotes, so looks that are in vain do not add up: they are of three kinds, by
/// what the quotes on the way make of them, and two of the same kind never share a byte.
fn tag_bytes(text: &str) -> Result<usize, usize> {
    let second = text.as_bytes().get(1).copied();
    if !second.is_some_and(|second| second.is_ascii_alphabetic() || matches!(second, b'/' | b'!')) {
        return Err(1);
    }
    if text.starts_with("<!--") {
        // `<!-->` is a whole comment. One that never ends reaches to the end, as browsers have it.
        let end = text[2..].find("-->");
        return Ok(end.map_or(text.len(), |at| 2 + at + "-->".len()));
    }
    let mut quote = None;
    for (at, byte) in text.bytes().enumerate() {
        match (quote, byte) {
            (None, b'>') => return Ok(at + 1),
            (None, b'<') if at > 0 => return Err(at + 1),
            (None, b'"' | b'\'') => quote = Some(byte),
            (Some(open), close) if open == close => quote = None,
            _ => {}
        }
    }
    Err(text.len())
}

fn name(tag: &str) -> String {
    tag.trim_start_matches('/')
        .chars()
        .take_while(char::is_ascii_alphanumeric)
        .collect::<String>()
        .to_ascii_lowercase()
}

fn breaks(name: &str) -> bool {
    matches!(
        name,
        "p" | "br" | "div" | "li" | "blockquote" | "tr" | "h1" | "h2" | "h3" | "h4" | "h5" | "h6"
    )
}

/// What follows on the tag that closes `name`; nothing where none does.
fn after_close<'t>(text: &'t str, name: &str) -> &'t str {
    let closes = |at: &usize| {
        let word = text.as_bytes()[*at..].strip_prefix(b"</");
        let word = word.and_then(|rest| rest.get(..name.len()));
        word.is_some_and(|word| word.eq_ignore_ascii_case(name.as_bytes()))
    };
    let close = text.match_indices('<').map(|(at, _)| at).find(closes);
    let end = close.and_then(|at| Some(at + text[at..].find('>')? + 1));
    end.map_or("", |end| &text[end..])
}

#[cfg(test)]
mod tests {
    use super::{strip, stripped};

    #[test]
    fn tags_go_and_text_stays() {
        for (html, text) in [
            ("<p>Trains <b>on time</b>.<br>Amazing!</p>", "Trains on time.\nAmazing!"),
            ("<p>one</p><p>two</p>", "one\n\ntwo"),
            ("a < b and b > c", "a < b and b > c"),
            ("I <3 you &amp; me", "I <3 you &amp; me"),
            ("<a href=\"x>y\" title='>'>@<span>ada</span></a>", "@ada"),
            ("<a title='a < b'>c</a>", "c"),
            ("before<script>alert('<p>')</script>after", "beforeafter"),
            ("before<Script>1 < 2</p></SCRIPT >after", "beforeafter"),
            ("before<style>never closed</styl", "before"),
            ("never</script> opened", "never opened"),
            ("<!-- no > yes -->seen", "seen"),
            ("seen<!--><!--->too<!-- never closed", "seentoo"),
            ("<unclosed attr=\"", "<unclosed attr=\""),
            ("x<y <b>bold</b>", "x<y bold"),
            ("ñ<é<", "ñ<é<"),
            ("<", "<"),
            ("", ""),
        ] {
            assert_eq!(strip(html), text, "{html}");
        }
    }

    #[test]
    fn hostile_fragments_cost_no_more_than_a_few_looks_at_each_byte() {
        for unit in [
            "<a",
            "<a ",
            "</",
            "<!--",
            "<!",
            "<a \"",
            "<a \"'",
            "<a '\"'",
            "<a \"\"'",
            "<a href='<b \"<i ",
            "<script></script>",
            "<SCRIPT></Script",
            "<script>",
            "<style><",
        ] {
            let html = unit.repeat((1 << 20) / unit.len());
            let (text, looked) = stripped(&html);
            assert!(looked <= 5 * html.len(), "{unit}: {looked} of {}", html.len());
            assert!(text.len() <= html.len(), "{unit}");
        }
    }

    #[test]
    fn quotes_that_change_all_the_time_do_not_make_looks_add_up() {
        // A sequence without a period, so that no two beginnings see the same.
        let mut state = 1_u32;
        let mut html = String::new();
        while html.len() < 1 << 20 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            html.push_str(["<a\"", "<a'", "<a", "\"", "'"][(state >> 24) as usize % 5]);
        }
        let (_, looked) = stripped(&html);
        assert!(looked <= 5 * html.len(), "{looked} of {}", html.len());
    }
}
