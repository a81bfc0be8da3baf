//! Made-up posts in our wire format, for the demo, the tests and the benchmarks.
//!
//! Everything here is invented. Authors follow a skewed distribution, hours follow a daily rhythm; some posts repeat,
//! some carry (invented) personal data, a few are no posts at all, so that every stage has something to do.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;

/// What is said about what, by topic: subjects.
const SUBJECTS: [(&str, [&str; 6]); 6] = [
    (
        "sports",
        [
            "the derby",
            "our keeper",
            "the new striker",
            "that penalty",
            "the relay team",
            "the away game",
        ],
    ),
    (
        "tech",
        [
            "the new phone",
            "this update",
            "the laptop battery",
            "the chat app",
            "the open model",
            "the satellite launch",
        ],
    ),
    (
        "business",
        [
            "$ACME",
            "the quarterly report",
            "the merger",
            "oil futures",
            "the rate decision",
            "$GLOBEX",
        ],
    ),
    (
        "film",
        [
            "the finale",
            "her new album",
            "that film",
            "the festival",
            "the trailer",
            "the season opener",
        ],
    ),
    (
        "daily",
        [
            "this coffee",
            "the morning train",
            "my neighbour's dog",
            "the weather",
            "our garden",
            "monday",
        ],
    ),
    (
        "world",
        [
            "the summit",
            "the election",
            "the peace talks",
            "the flood relief",
            "the border vote",
            "the new treaty",
        ],
    ),
];

const POSITIVE: [&str; 10] = [
    "{} is absolutely brilliant, best thing I have seen all year!",
    "So happy about {} today, what a wonderful surprise",
    "I love {}, exceeded every expectation",
    "Great news about {}, congratulations to everyone involved",
    "{} made my day, thank you!! 😍",
    "Really impressed by {}, well done",
    "Huge win for {}, record numbers and a strong outlook",
    "Can't stop smiling because of {} 🎉",
    "{} beat all forecasts, fantastic result",
    "Finally {} works beautifully. Recommended!",
];

const NEGATIVE: [&str; 10] = [
    "{} is a disaster, I want my money back",
    "So disappointed by {}, what a waste of time",
    "I hate how {} turned out, terrible from start to finish",
    "{} failed again. Unbelievable. Never trusting them again",
    "Worst experience ever with {} 😡",
    "Really sad news about {}, my heart goes out to everyone",
    "{} plunged after the warning, heavy losses everywhere",
    "Why is {} always late and broken? So annoying",
    "Nobody asked for {}, it is just awful",
    "{} missed every target and the outlook is grim",
];

const NEUTRAL: [&str; 10] = [
    "{} starts at 8 pm tonight",
    "Anyone following {}? Details in the thread",
    "Report: {} unchanged since last week",
    "Here is what we know about {} so far",
    "{} will be discussed on Thursday",
    "Reading about {} on the way to work",
    "Photos of {} from this morning",
    "The second part of {} is scheduled for next month",
    "Reminder: {} takes place in the main hall",
    "Officials commented on {} at noon",
];

const TAILS: [&str; 12] = [
    "",
    "",
    "",
    "",
    " https://example.org/a/{n}",
    " #tag{n}",
    " cc @made_up_{n}",
    " &amp; more to come",
    " (write to reader{n}@example.org)",
    " call +1 415 555 01{n}",
    " my server is at 192.0.2.{n}",
    " — IBAN DE89 3704 0044 0532 0130 00",
];

const NOISE: [&str; 6] = [
    "https://example.org/only-a-link",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "ok",
    "   ",
    "win win win win win win win win",
    "lol",
];

const ELSEWHERE: [&str; 5] = [
    "Der Zug kommt heute schon wieder viel zu spät, das ist wirklich ärgerlich",
    "Quelle belle journée pour se promener au bord de la mer avec les enfants",
    "No puedo creer que el partido haya terminado así, qué emoción tan grande",
    "今日はとても良い天気ですね、散歩に行きましょう",
    "Сегодня в городе открылся новый большой парк",
];

const SOURCES: [&str; 3] = ["forum", "microblog", "newswire"];

/// A stream of made-up payloads; the same seed gives the same posts.
pub struct Posts {
    random: StdRng,
    number: u64,
    start_seconds: i64,
    last: String,
}

impl Posts {
    /// Posts of the three days before `end_seconds` (epoch).
    pub fn new(seed: u64, end_seconds: i64) -> Self {
        let random = StdRng::seed_from_u64(seed);
        Posts {
            random,
            number: 0,
            start_seconds: end_seconds - 3 * 86_400,
            last: "first post".into(),
        }
    }

    fn pick<'t>(&mut self, from: &[&'t str]) -> &'t str {
        from[self.random.random_range(0..from.len())]
    }

    fn text(&mut self) -> String {
        let (_, subjects) = SUBJECTS[self.random.random_range(0..SUBJECTS.len())];
        let subject = self.pick(&subjects);
        let form = match self.random.random_range(0..10) {
            0..4 => self.pick(&POSITIVE),
            4..7 => self.pick(&NEGATIVE),
            _ => self.pick(&NEUTRAL),
        };
        let number = self.random.random_range(10..99).to_string();
        let tail = self.pick(&TAILS).replace("{n}", &number);
        form.replace("{}", subject) + &tail
    }

    /// Seconds into the three days: mornings and evenings are busy.
    fn moment(&mut self) -> i64 {
        loop {
            let seconds = self.random.random_range(0..3 * 86_400_i64);
            let hour = (seconds % 86_400) / 3_600;
            let busy = if (7..10).contains(&hour) || (17..23).contains(&hour) {
                10
            } else {
                4
            };
            if self.random.random_range(0..10) < busy {
                return self.start_seconds + seconds;
            }
        }
    }
}

impl Iterator for Posts {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        self.number += 1;
        let text = match self.random.random_range(0..1_000) {
            0..3 => return Some(format!("{{\"id\":\"broken-{}\",\"text\":", self.number).into_bytes()),
            3..5 => {
                return Some(
                    json!({"id": format!("d-{}", self.number), "source": "forum"})
                        .to_string()
                        .into_bytes(),
                );
            }
            5..35 => self.pick(&NOISE).to_string(),
            35..75 => self.last.clone(),
            75..125 => self.pick(&ELSEWHERE).to_string(),
            _ => self.text(),
        };
        self.last.clone_from(&text);
        // The square of a uniform number: few authors write much.
        let author = (self.random.random::<f64>().powi(2) * 500.0) as u32;
        let source = self.pick(&SOURCES);
        let at = chrono::DateTime::from_timestamp(self.moment(), 0).map(|at| at.to_rfc3339());
        let post = json!({
            "id": format!("d-{}", self.number),
            "source": source,
            "created_at": at,
            "author": format!("made_up_{author}"),
            "text": text,
        });
        Some(post.to_string().into_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::Posts;

    #[test]
    fn a_seed_fixes_the_posts() {
        let make = || Posts::new(7, 1_767_323_045).take(5_000).collect::<Vec<_>>();
        assert_eq!(make(), make());
        assert!(
            make()
                .iter()
                .any(|post| serde_json::from_slice::<serde_json::Value>(post).is_err())
        );
    }
}
