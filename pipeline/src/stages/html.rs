//! Text out of an HTML fragment, as Mastodon and news feeds deliver it.
//!
//! Tags go, paragraphs and line breaks become line ends, the insides of `script` and `style` go. Entities stay: the
//! normalize stage resolves them once, for every source alike. A `<` that opens no tag is kept: "a < b" is text.

/// The text of an HTML fragment.
pub fn strip(html: &str) -> String {
    let mut out = String::with_capacity(html.len());
    let mut rest = html;
    while let Some(at) = rest.find('<') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        match tag_end(rest) {
            Some(end) => {
                let tag = &rest[1..end];
                rest = &rest[end + 1..];
                let name = name(tag);
                if breaks(&name) && !out.is_empty() {
                    out.push('\n');
                }
                if name == "script" || name == "style" {
                    rest = after_close(rest, &name);
                }
            }
            None => {
                out.push('<');
                rest = &rest[1..];
            }
        }
    }
    out.push_str(rest);
    out.truncate(out.trim_end().len());
    out
}

/// Index of the `>` that ends the tag which `text` starts with; `None` where it starts with no tag.
fn tag_end(text: &str) -> Option<usize> {
    let second = *text.as_bytes().get(1)?;
    if !(second.is_ascii_alphabetic() || second == b'/' || second == b'!') {
        return None;
    }
    if let Some(comment) = text.strip_prefix("<!--") {
        return comment.find("-->").map(|at| at + "<!--".len() + "--".len());
    }
    let mut quote = None;
    for (at, byte) in text.bytes().enumerate() {
        match (quote, byte) {
            (None, b'>') => return Some(at),
            (None, b'"' | b'\'') => quote = Some(byte),
            (Some(open), close) if open == close => quote = None,
            _ => {}
        }
    }
    None
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

fn after_close<'t>(text: &'t str, name: &str) -> &'t str {
    let close = format!("</{name}");
    let lower = text.to_ascii_lowercase();
    match lower
        .find(&close)
        .and_then(|at| text[at..].find('>').map(|end| at + end + 1))
    {
        Some(at) => &text[at..],
        None => "",
    }
}

#[cfg(test)]
mod tests {
    use super::strip;

    #[test]
    fn tags_go_and_text_stays() {
        for (html, text) in [
            ("<p>Trains <b>on time</b>.<br>Amazing!</p>", "Trains on time.\nAmazing!"),
            ("<p>one</p><p>two</p>", "one\n\ntwo"),
            ("a < b and b > c", "a < b and b > c"),
            ("I <3 you &amp; me", "I <3 you &amp; me"),
            ("<a href=\"x>y\" title='>'>@<span>ada</span></a>", "@ada"),
            ("before<script>alert('<p>')</script>after", "beforeafter"),
            ("<!-- no > yes -->seen", "seen"),
            ("<unclosed attr=\"", "<unclosed attr=\""),
            ("", ""),
        ] {
            assert_eq!(strip(html), text, "{html}");
        }
    }
}
