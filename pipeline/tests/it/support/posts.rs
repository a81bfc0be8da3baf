//! Posts to send: real ones from the public data sets where they are, else made-up ones.

use std::collections::{BTreeSet, HashSet};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use serde_json::Value;

use super::{data, skipped};

/// What no file of a table may hold. Addresses at it are planted in texts.
pub(crate) const PLANTED: &str = "planted.tamiz.example";
/// The end of the made-up three days: 2026-01-02T03:04:05Z.
const END: i64 = 1_767_323_045;

/// Payloads to send, as `input.preset` reads them.
pub(crate) struct Feed {
    pub(crate) preset: &'static str,
    pub(crate) payloads: Vec<Vec<u8>>,
    /// Per payload its id; `None` where the payload is broken.
    pub(crate) ids: Vec<Option<String>>,
}

impl Feed {
    pub(crate) fn bytes(&self) -> usize {
        self.payloads.iter().map(Vec::len).sum()
    }

    pub(crate) fn broken(&self) -> usize {
        self.ids.iter().filter(|id| id.is_none()).count()
    }
}

/// So many payloads with different ids, in the order of their event times. Some carry a planted address, also some of the
/// broken ones.
pub(crate) fn feed(count: usize) -> Feed {
    let real = data().map(|data| data.join("feeds/twitter_v1_stocknet.jsonl.zst"));
    match real.filter(|path| path.exists()) {
        Some(path) => x_v1(&path, count),
        None => {
            skipped("TAMIZ_DATA names no folder with real posts: made-up ones are sent");
            made_up(count)
        }
    }
}

/// Made-up posts in our own wire format; the first `count` of one endless stream.
pub(crate) fn made_up(count: usize) -> Feed {
    let posts = tamiz::jobs::posts::Posts::new(11, END).take(count).enumerate();
    let payloads: Vec<Vec<u8>> = posts.map(|(number, post)| planted(post, number)).collect();
    let id = |payload: &Vec<u8>| {
        let post: Value = serde_json::from_slice(payload).ok()?;
        post["text"]
            .is_string()
            .then(|| post["id"].as_str().unwrap().to_owned())
    };
    let ids = payloads.iter().map(id).collect();
    Feed {
        preset: "tamiz",
        payloads,
        ids,
    }
}

/// Records of API v1.1 as they came; an id that comes again gets an ending, and the feed starts over when it is through.
fn x_v1(path: &Path, count: usize) -> Feed {
    let mut decoder = zstd::Decoder::new(File::open(path).unwrap()).unwrap();
    decoder.window_log_max(31).unwrap();
    let lines: Vec<String> = BufReader::new(decoder)
        .lines()
        .take(count)
        .map(Result::unwrap)
        .collect();
    let mut rows: Vec<&String> = lines.iter().cycle().take(count).collect();
    rows.sort_by_cached_key(|line| tamiz_schemas::time::parse(quoted(line, "created_at")).unwrap());
    let mut seen = HashSet::new();
    let mut feed = Feed {
        preset: "x_v1",
        payloads: Vec::new(),
        ids: Vec::new(),
    };
    for (number, line) in rows.into_iter().enumerate() {
        let old = quoted(line, "id_str");
        let id = if seen.insert(old) {
            old.to_owned()
        } else {
            format!("{old}-{number}")
        };
        let field = |id: &str| format!("\"id_str\":\"{id}\"");
        let payload = line.replacen(&field(old), &field(&id), 1).into_bytes();
        let mut payload = planted(payload, number);
        let broken = number % 500 == 250;
        if broken {
            payload.truncate(payload.len() / 2);
        }
        feed.payloads.push(payload);
        feed.ids.push((!broken).then_some(id));
    }
    feed
}

/// The first value of a field, as it is written.
fn quoted<'l>(line: &'l str, field: &str) -> &'l str {
    let (_, rest) = line.split_once(&format!("\"{field}\":\"")).unwrap();
    rest.split_once('"').unwrap().0
}

/// Every 50th payload says an address at the beginning of its text.
fn planted(payload: Vec<u8>, number: usize) -> Vec<u8> {
    if !number.is_multiple_of(50) {
        return payload;
    }
    let text = String::from_utf8(payload).unwrap();
    let begun = format!("\"text\":\"write to reader{number}@{PLANTED} ");
    text.replacen("\"text\":\"", &begun, 1).into_bytes()
}

/// How many payloads carry a planted address.
pub(crate) fn addresses(feed: &Feed) -> usize {
    let planted = feed.payloads.iter().zip(&feed.ids).filter(|(_, id)| id.is_some());
    planted
        .filter(|(payload, _)| String::from_utf8_lossy(payload).contains(PLANTED))
        .count()
}

/// The ids that a table should hold.
pub(crate) fn ids(feed: &Feed) -> BTreeSet<&str> {
    feed.ids.iter().flatten().map(String::as_str).collect()
}
