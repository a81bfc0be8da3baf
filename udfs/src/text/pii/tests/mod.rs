use arrow::array::{Array, AsArray, StringArray};
use arrow::datatypes::Int32Type;

use super::*;

mod kinds;
mod policy;
mod whole;

fn key() -> PseudonymKey {
    PseudonymKey::new(b"a key for these tests alone").unwrap()
}

fn scrubber(mode: Mode) -> Scrubber {
    Scrubber::new(PiiPolicy::uniform(mode), Some(key())).unwrap()
}

fn scrub(scrubber: &Scrubber, text: &str) -> String {
    scrubber.scrub(&StringArray::from(vec![text])).texts.value(0).to_owned()
}

/// Masks every text, and masks the outcome again.
fn check(cases: &[(&str, &str)]) {
    let scrubber = scrubber(Mode::Mask);
    for (text, expected) in cases {
        assert_eq!(scrub(&scrubber, text), *expected, "{text:?}");
        assert_eq!(scrub(&scrubber, expected), *expected, "{text:?}, twice");
    }
}

fn check_clean(texts: &[&str]) {
    check(&texts.iter().map(|text| (*text, *text)).collect::<Vec<_>>());
}

fn spans(text: &str) -> Vec<(String, usize, usize)> {
    let found = entities(&StringArray::from(vec![text])).value(0);
    let found = found.as_struct();
    let offsets = |name| {
        found
            .column_by_name(name)
            .unwrap()
            .as_primitive::<Int32Type>()
            .values()
            .to_vec()
    };
    let (starts, ends) = (offsets("start"), offsets("end"));
    let kinds = found.column_by_name("kind").unwrap().as_string::<i32>();
    (0..found.len())
        .map(|row| (kinds.value(row).to_owned(), starts[row] as usize, ends[row] as usize))
        .collect()
}
