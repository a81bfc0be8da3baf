//! Explanations for eyes: coloured words in a terminal, and a page of HTML. What a text says can neither steer the terminal nor
//! become part of the page.

use std::fmt::Write as _;

use crate::explain::{Explanation, TokenWeight};
use crate::plot::{escape, is_steering};

/// How a token is spelled to be read: word pieces without their marks, with the blank that stands before a word.
fn spelled(token: &TokenWeight) -> (bool, String) {
    let text = &token.token;
    let (blank, text) = if let Some(inside) = text.strip_prefix("##") {
        (false, inside)
    } else if let Some(word) = text.strip_prefix(['\u{2581}', '\u{0120}']) {
        (true, word)
    } else {
        (true, text.as_str())
    };
    let harmless = |c: char| if is_steering(c) { '\u{fffd}' } else { c };
    (blank, text.chars().map(harmless).collect())
}

/// The largest weight, to scale colours by; marks of the model's own do not count.
fn largest(explanation: &Explanation) -> f32 {
    let weights = explanation.tokens.iter().filter(|token| !token.marker);
    weights
        .map(|token| token.weight.abs())
        .fold(f32::MIN_POSITIVE, f32::max)
}

/// One text for a terminal: words on green that speak for the label and on red that speak against it, then the figures of the
/// heaviest. Without `colour` the words stand in brackets of plus and minus.
pub fn terminal(explanation: &Explanation, colour: bool) -> String {
    let mut out = format!(
        "{}: {} ({:.3}); log-odds {:+.2}, {:+.2} with every word hidden{}\n",
        explanation.head,
        explanation.label,
        explanation.probability,
        explanation.log_odds,
        explanation.log_odds_hidden,
        if explanation.truncated {
            "; the text was cut"
        } else {
            ""
        }
    );
    let largest = largest(explanation);
    for token in &explanation.tokens {
        let (blank, text) = spelled(token);
        let share = token.weight / largest;
        out.push_str(if blank { " " } else { "" });
        out.push_str(&match (colour, token.marker) {
            (true, true) => format!("\x1b[2m{text}\x1b[0m"),
            (true, false) => match (share.abs() >= 0.15, share > 0.0) {
                (false, _) => text,
                (true, true) => format!("\x1b[30;48;5;{}m{text}\x1b[0m", [157, 120, 40][level(share)]),
                (true, false) => format!("\x1b[30;48;5;{}m{text}\x1b[0m", [224, 217, 203][level(share)]),
            },
            (false, _) => match (token.marker || share.abs() < 0.15, share > 0.0) {
                (true, _) => text,
                (false, true) => format!("[+{text}]"),
                (false, false) => format!("[-{text}]"),
            },
        });
    }
    out.push('\n');
    let mut heaviest: Vec<&TokenWeight> = explanation.tokens.iter().filter(|token| !token.marker).collect();
    heaviest.sort_by(|a, b| b.weight.abs().total_cmp(&a.weight.abs()));
    for token in heaviest.iter().take(8) {
        let rollout = token
            .rollout
            .map_or(String::new(), |share| format!("   attention {:>5.1} %", share * 100.0));
        // Writing to a string cannot fail.
        let _ = writeln!(out, "  {:>+7.3}  {:<20}{rollout}", token.weight, spelled(token).1);
    }
    out
}

fn level(share: f32) -> usize {
    match share.abs() {
        s if s > 0.66 => 2,
        s if s > 0.33 => 1,
        _ => 0,
    }
}

/// Texts as one page that needs nothing from elsewhere.
pub fn html(model: &str, explanations: &[Explanation]) -> String {
    let mut body = String::new();
    for explanation in explanations {
        let _ = writeln!(
            body,
            "<section><h2>{}: {} <small>{:.1} %</small></h2>",
            escape(&explanation.head),
            escape(&explanation.label),
            explanation.probability * 100.0
        );
        let largest = largest(explanation);
        words(&mut body, "weights", explanation, |token| {
            let share = (token.weight / largest).clamp(-1.0, 1.0);
            let colour = if share > 0.0 { "40,160,80" } else { "210,60,50" };
            let title = format!("{:+.3} log-odds", token.weight);
            (format!("rgba({colour},{:.2})", share.abs()), title)
        });
        let most = explanation.tokens.iter().filter(|token| !token.marker);
        let most = most.filter_map(|token| token.rollout).fold(f32::MIN_POSITIVE, f32::max);
        if explanation.tokens.iter().any(|token| token.rollout.is_some()) {
            words(&mut body, "attention rollout", explanation, |token| {
                let share = token.rollout.unwrap_or(0.0);
                let colour = format!("rgba(60,100,200,{:.2})", (share / most).clamp(0.0, 1.0));
                (colour, format!("{:.1} % of the attention", share * 100.0))
            });
        }
        let _ = writeln!(
            body,
            "<p class=\"note\">The weights sum to {:+.2}: from {:+.2} with every word hidden to {:+.2} log-odds.{}</p></section>",
            explanation.tokens.iter().map(|token| token.weight).sum::<f32>(),
            explanation.log_odds_hidden,
            explanation.log_odds,
            if explanation.truncated {
                " The text was longer than the model reads."
            } else {
                ""
            }
        );
    }
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>What the label rests on</title>\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <style>body{{font:16px/1.7 sans-serif;max-width:52em;margin:2em auto;padding:0 1em}}\
         .t{{padding:.1em .15em;border-radius:.2em}}.m{{color:#999}}.note,small,figcaption{{color:#666;font-size:.85em}}\
         figure{{margin:.6em 0}}</style></head>\n<body><h1>What the label rests on</h1>\n\
         <p class=\"note\">Model {}. Green speaks for the label, red against it. Attention says where the model looked, \
         not why it decided.</p>\n{body}</body></html>\n",
        escape(model)
    )
}

/// One line of words, each with a colour and a title.
fn words(body: &mut String, caption: &str, explanation: &Explanation, look: impl Fn(&TokenWeight) -> (String, String)) {
    let _ = write!(body, "<figure><figcaption>{caption}</figcaption><div dir=\"auto\">");
    for token in &explanation.tokens {
        let (blank, text) = spelled(token);
        let blank = if blank { " " } else { "" };
        let text = escape(&text);
        let _ = if token.marker {
            write!(body, "{blank}<span class=\"m\">{text}</span>")
        } else {
            let (colour, title) = look(token);
            write!(
                body,
                "{blank}<span class=\"t\" style=\"background:{colour}\" title=\"{title}\">{text}</span>"
            )
        };
    }
    body.push_str("</div></figure>\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::Method;

    fn hostile() -> Explanation {
        let token = |token: &str, weight| TokenWeight {
            token: token.to_owned(),
            marker: false,
            weight,
            rollout: Some(0.25),
        };
        Explanation {
            head: "sentiment".into(),
            label: "negative".into(),
            probability: 0.9,
            method: Method::default(),
            log_odds: 2.0,
            log_odds_hidden: 0.0,
            tokens: vec![
                token("<script>", 1.0),
                token("##\u{1b}[2J", -1.0),
                token("\u{202e}\"onload=", 0.5),
                token("a\nb", 0.01),
            ],
            truncated: true,
        }
    }

    #[test]
    fn a_text_can_not_become_markup_or_steer_the_terminal() {
        let page = html("m@1", &[hostile()]);
        assert!(!page.contains("<script>") && page.contains("&lt;script&gt;"));
        assert!(!page.contains('\u{1b}') && !page.contains('\u{202e}') && page.contains("&quot;onload="));
        let plain = terminal(&hostile(), false);
        assert!(!plain.contains('\u{1b}') && !plain.contains('\u{202e}') && !plain.contains("a\nb"));
        assert!(plain.contains("[+<script>][-"), "{plain}");
        let coloured = terminal(&hostile(), true);
        assert!(coloured.contains("\x1b[30;48;5;40m<script>\x1b[0m") && !coloured.contains("\x1b[2J"));
    }
}
