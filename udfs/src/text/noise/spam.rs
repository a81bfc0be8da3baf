//! A score for how much a post looks like spam, from what can be seen without a model.
//!
//! Each sign that is present adds its weight `w`; together they give `1 − Π(1 − w)`, so that signs add up and the
//! score stays below 1. It orders posts; it is no probability.
//!
//! | sign | weight |
//! |---|---|
//! | one link / more | 0.15 / 0.30 |
//! | three #tags or $cashtags / six or more | 0.15 / 0.35 |
//! | 60 % capitals in 12 letters or more | 0.20 |
//! | repetition, by the default [`NoiseRules`] | 0.25 |
//! | an amount of money | 0.15 |
//! | three `!` or more | 0.10 |
//! | one phrase of bait / two / three or more | 0.30 / 0.50 / 0.65 |

use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use arrow::array::{Float32Array, StringArray};

use super::NoiseRules;
use super::shape::{Shape, Surveyor};
use crate::text::tokens::is_word;

/// Phrases of baits for money, clicks and followers, each sought as whole words.
const BAIT: [&str; 58] = [
    "100x",
    "1000x",
    "act now",
    "airdrop",
    "alert group",
    "apply now",
    "bonus",
    "buy now",
    "call now",
    "cash",
    "cheap",
    "check out",
    "check this out",
    "claim",
    "click",
    "coupon",
    "discord",
    "discount",
    "dm me",
    "double your",
    "earn",
    "follow back",
    "follow me",
    "follow us",
    "followers",
    "for sale",
    "free",
    "get paid",
    "gift card",
    "giveaway",
    "guaranteed",
    "join us",
    "limited time",
    "link in bio",
    "make money",
    "moon",
    "my channel",
    "offer",
    "order now",
    "prize",
    "profit",
    "promo",
    "reply stop",
    "retweet",
    "selected to",
    "sign up",
    "subscribe",
    "telegram",
    "txt",
    "text stop",
    "urgent",
    "visit",
    "voucher",
    "whatsapp",
    "win",
    "winner",
    "won",
    "work from home",
];

static BAIT_FINDER: LazyLock<AhoCorasick> = LazyLock::new(|| {
    AhoCorasick::builder()
        .ascii_case_insensitive(true)
        .match_kind(MatchKind::LeftmostLongest)
        .kind(Some(AhoCorasickKind::DFA))
        .build(BAIT)
        .expect("the phrases are few and short")
});

/// Spam score of every text of a column, 0 to 1; see the table above the code for what counts.
///
/// ```
/// # use arrow::array::StringArray;
/// let texts = StringArray::from(vec!["see you at the station", "FREE crypto giveaway!!! click https://example.com"]);
/// let scores = tamiz_udfs::text::noise::spam_score(&texts);
/// assert!(scores.value(0) < 0.1 && scores.value(1) > 0.6);
/// ```
pub fn spam_score(texts: &StringArray) -> Float32Array {
    let rules = NoiseRules::default();
    let mut surveyor = Surveyor::default();
    texts
        .iter()
        .map(|text| text.map(|text| score(&surveyor.survey(text), bait(text), &rules)))
        .collect()
}

fn score(shape: &Shape, bait: usize, rules: &NoiseRules) -> f32 {
    let caps = shape.letters >= 12 && shape.capitals * 10 >= shape.letters * 6;
    let weights = [
        [0.0, 0.15, 0.30][shape.links.min(2) as usize],
        [0.0, 0.15, 0.35][(shape.tags / 3).min(2) as usize],
        if caps { 0.20 } else { 0.0 },
        if rules.repeats(shape) { 0.25 } else { 0.0 },
        if shape.money > 0 { 0.15 } else { 0.0 },
        if shape.exclamations >= 3 { 0.10 } else { 0.0 },
        [0.0, 0.30, 0.50, 0.65][bait.min(3)],
    ];
    1.0 - weights.iter().map(|weight| 1.0 - weight).product::<f32>()
}

fn bait(text: &str) -> usize {
    let bytes = text.as_bytes();
    let whole = |start: usize, end: usize| {
        (start == 0 || !is_word(bytes[start - 1])) && bytes.get(end).is_none_or(|next| !is_word(*next))
    };
    BAIT_FINDER
        .find_iter(text)
        .filter(|found| whole(found.start(), found.end()))
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score_of(text: &str) -> f32 {
        spam_score(&StringArray::from(vec![text])).value(0)
    }

    #[test]
    fn signs_add_up_and_stay_below_one() {
        let check = |text: &str, expected: f32| {
            assert!((score_of(text) - expected).abs() < 1e-6, "{text:?}: {}", score_of(text));
        };
        check("", 0.0);
        check("freedom and winning are words", 0.0);
        check("look https://example.com", 0.15);
        check("you won", 0.30);
        check("You WON a prize", 0.50);
        check("a https://example.com b https://example.org", 0.30);
        check("won $50", 1.0 - 0.7 * 0.85);
        check("#a #b #c", 0.15);
        let worst =
            "WIN FREE CASH PRIZE NOW!!! $500 #A #B #C #D #E #F https://a.example https://b.example WIN WIN WIN WIN";
        assert!(score_of(worst) > 0.9 && score_of(worst) < 1.0);
    }

    #[derive(serde::Deserialize)]
    struct Labelled {
        text: String,
        label: String,
    }

    /// The chance that a spam post scores above a good one (area under the ROC curve), ties half.
    fn area(folder: &str, set: &str) -> f64 {
        let text = std::fs::read_to_string(format!("{folder}/{set}/val.jsonl")).unwrap();
        let rows: Vec<Labelled> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let scores = |spam: bool| -> Vec<f32> {
            rows.iter()
                .filter(|row| (row.label == "spam") == spam)
                .map(|row| score_of(&row.text))
                .collect()
        };
        let (spam, ham) = (scores(true), scores(false));
        let won = |s: f32| {
            ham.iter()
                .map(|h| {
                    if s > *h {
                        1.0
                    } else if s == *h {
                        0.5
                    } else {
                        0.0
                    }
                })
                .sum::<f64>()
        };
        spam.iter().map(|s| won(*s)).sum::<f64>() / (spam.len() * ham.len()) as f64
    }

    #[test]
    fn spam_scores_above_other_posts() {
        let Ok(folder) = std::env::var("TAMIZ_DATA") else {
            println!("skipped: TAMIZ_DATA is not set");
            return;
        };
        for (set, least) in [("sms_spam", 0.8), ("youtube_spam", 0.8), ("twitter_spam", 0.5)] {
            let area = area(&folder, set);
            println!("{set}: area under the curve {area:.3}");
            assert!(area > least, "{set}: {area:.3}");
        }
    }
}
