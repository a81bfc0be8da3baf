//! Learning word pieces from texts: byte-pair merges, counted on words, the same result on every run.
//!
//! The crate `tokenizers` trains such vocabularies too, but breaks ties in the order of a randomly seeded hash map, so that a
//! training run could not be repeated. Reading and applying vocabularies is left to it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, HashSet};

/// Pieces inside a word start with this, as in BERT.
pub(crate) const INSIDE: &str = "##";

/// Rarer characters than this many are left out; words that hold one become unknown.
const MAX_CHARACTERS: usize = 1000;

/// Two pieces seen together less often than this are not joined.
const MIN_COUNT: u64 = 2;

type Pair = (u32, u32);

/// At most `size` pieces for words with their counts: all common characters, then what stands together most often.
pub(crate) fn learn(words: &BTreeMap<String, u64>, size: usize) -> Vec<String> {
    let mut merger = Merger::new(words);
    while merger.pieces.len() < size {
        let Some(pair) = merger.next() else { break };
        merger.merge(pair);
    }
    merger.pieces
}

/// A word as a row of pieces, and how often it occurs.
struct Word {
    pieces: Vec<u32>,
    count: u64,
}

struct Merger {
    pieces: Vec<String>,
    ids: HashMap<String, u32>,
    words: Vec<Word>,
    counts: HashMap<Pair, u64>,
    places: HashMap<Pair, HashSet<u32>>, // words that hold a pair, or held it once
    queue: BinaryHeap<(u64, Reverse<Pair>)>, // may hold outdated counts, which are put right when they come up
}

impl Merger {
    fn new(words: &BTreeMap<String, u64>) -> Self {
        let alphabet = alphabet(words);
        let known = |word: &&String| word.chars().all(|c| alphabet.contains(&c));
        let kept: Vec<(&String, u64)> = words
            .iter()
            .map(|(word, count)| (word, *count))
            .filter(|(word, _)| known(word))
            .collect();
        let mut symbols: Vec<String> = kept
            .iter()
            .flat_map(|(word, _)| symbols(word))
            .collect::<HashSet<_>>()
            .into_iter()
            .collect();
        symbols.sort();
        let mut merger = Merger {
            pieces: Vec::new(),
            ids: HashMap::new(),
            words: Vec::new(),
            counts: HashMap::new(),
            places: HashMap::new(),
            queue: BinaryHeap::new(),
        };
        for symbol in symbols {
            merger.id(symbol);
        }
        for (word, count) in kept {
            let pieces = self::symbols(word).map(|symbol| merger.ids[&symbol]).collect();
            merger.words.push(Word { pieces, count });
        }
        for word in 0..merger.words.len() {
            merger.count(word as u32, |count, by| count + by);
        }
        merger.queue = merger
            .counts
            .iter()
            .map(|(&pair, &count)| (count, Reverse(pair)))
            .collect();
        merger
    }

    fn id(&mut self, piece: String) -> u32 {
        if let Some(&id) = self.ids.get(&piece) {
            return id;
        }
        let id = self.pieces.len() as u32;
        self.pieces.push(piece.clone());
        self.ids.insert(piece, id);
        id
    }

    /// The pair that stands together most often; of equals, the one whose pieces are older.
    fn next(&mut self) -> Option<Pair> {
        while let Some((count, Reverse(pair))) = self.queue.pop() {
            let now = self.counts.get(&pair).copied().unwrap_or(0);
            if now < MIN_COUNT {
                continue;
            }
            if now == count {
                return Some(pair);
            }
            self.queue.push((now, Reverse(pair)));
        }
        None
    }

    fn merge(&mut self, pair: Pair) {
        let (left, right) = (&self.pieces[pair.0 as usize], &self.pieces[pair.1 as usize]);
        let joined = format!("{left}{}", right.strip_prefix(INSIDE).unwrap_or(right));
        let joined = self.id(joined);
        let mut changed = HashSet::new();
        for word in self.places.remove(&pair).unwrap_or_default() {
            self.count(word, |count, by| count - by);
            join(&mut self.words[word as usize].pieces, pair, joined);
            self.count(word, |count, by| count + by);
            changed.extend(pairs(&self.words[word as usize].pieces).filter(|&(a, b)| a == joined || b == joined));
        }
        self.queue
            .extend(changed.into_iter().map(|pair| (self.counts[&pair], Reverse(pair))));
    }

    /// Adds the pairs of a word to the counts, or takes them off.
    fn count(&mut self, word: u32, change: impl Fn(u64, u64) -> u64) {
        let Word { pieces, count } = &self.words[word as usize];
        for pair in pairs(pieces) {
            let total = self.counts.entry(pair).or_default();
            *total = change(*total, *count);
            self.places.entry(pair).or_default().insert(word);
        }
    }
}

fn pairs(pieces: &[u32]) -> impl Iterator<Item = Pair> {
    pieces.windows(2).map(|pair| (pair[0], pair[1]))
}

/// Replaces every `pair` by `joined`, from the left.
fn join(pieces: &mut Vec<u32>, pair: Pair, joined: u32) {
    let (mut read, mut write) = (0, 0);
    while read < pieces.len() {
        let here = read + 1 < pieces.len() && (pieces[read], pieces[read + 1]) == pair;
        pieces[write] = if here { joined } else { pieces[read] };
        read += if here { 2 } else { 1 };
        write += 1;
    }
    pieces.truncate(write);
}

/// The commonest characters.
fn alphabet(words: &BTreeMap<String, u64>) -> HashSet<char> {
    let mut counts: BTreeMap<char, u64> = BTreeMap::new();
    for (word, count) in words {
        word.chars().for_each(|c| *counts.entry(c).or_default() += count);
    }
    let mut ordered: Vec<(Reverse<u64>, char)> = counts.into_iter().map(|(c, count)| (Reverse(count), c)).collect();
    ordered.sort_unstable();
    ordered.into_iter().take(MAX_CHARACTERS).map(|(_, c)| c).collect()
}

/// The characters of a word as pieces.
fn symbols(word: &str) -> impl Iterator<Item = String> {
    word.chars().enumerate().map(|(place, c)| {
        if place == 0 {
            c.to_string()
        } else {
            format!("{INSIDE}{c}")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(counts: &[(&str, u64)]) -> BTreeMap<String, u64> {
        counts.iter().map(|&(word, count)| (word.to_owned(), count)).collect()
    }

    #[test]
    fn what_stands_together_most_often_is_joined_first() {
        let words = words(&[("low", 5), ("lower", 2), ("newest", 6), ("widest", 3)]);
        let characters = learn(&words, 0);
        assert_eq!(
            characters,
            ["##d", "##e", "##i", "##o", "##r", "##s", "##t", "##w", "l", "n", "w"]
        );
        // es and st stand together nine times each; es has the older first piece, and est then has nine too;
        // lo and ow follow with seven.
        assert_eq!(learn(&words, 14)[11..], ["##es", "##est", "##ow"]);
    }

    #[test]
    fn frequent_words_become_one_piece_and_rare_pairs_are_left_alone() {
        let pieces = learn(&words(&[("team", 50), ("match", 40), ("zyx", 1)]), 1000);
        assert!(
            pieces.contains(&"team".to_owned()) && pieces.contains(&"match".to_owned()),
            "{pieces:?}"
        );
        assert!(!pieces.iter().any(|piece| piece.starts_with("zy")), "{pieces:?}");
    }

    #[test]
    fn repeated_letters_are_counted_as_they_are_joined() {
        let pieces = learn(&words(&[("aaaa", 4), ("aaa", 3)]), 100);
        assert_eq!(pieces, ["##a", "a", "##aa", "aaa", "aaaa"]);
    }

    #[test]
    fn the_same_words_give_the_same_pieces() {
        let counts: BTreeMap<String, u64> = (0..3000_u64)
            .map(|i| (format!("w{}x{}", i % 97, i * 7919 % 1009), 1 + i % 5))
            .collect();
        let first = learn(&counts, 700);
        assert_eq!(first.len(), 700);
        for _ in 0..3 {
            assert_eq!(learn(&counts, 700), first);
        }
    }
}
