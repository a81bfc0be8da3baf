//! Readers of Avro and Protobuf against bytes that other people's writers made, and against bytes that nobody should.

mod avro;
mod protobuf;

use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{ExtractError, Extractor, Fields, Found, Record, Scalar};
use crate::mapping::{DeleteMapping, Mapping, Place, Preset};

/// A mapping that reads `text` from a pointer and the rest as our own format has it.
fn text_at(pointer: &str) -> Arc<Extractor> {
    let text = Place::At(pointer.into());
    Arc::new(Extractor::new(&Mapping {
        text,
        ..Preset::Tamiz.mapping()
    }))
}

fn tamiz() -> Arc<Extractor> {
    Arc::new(Extractor::new(&Preset::Tamiz.mapping()))
}

/// A mapping with deletes that hold this at a pointer, and name their post at `/id`.
fn deletes(pointer: &str, value: &str) -> Arc<Extractor> {
    let deletes = Some(DeleteMapping {
        when: [(pointer.to_owned(), value.to_owned())].into(),
        id: Place::At("/id".into()),
        author: Some(Place::At("/author".into())),
    });
    Arc::new(Extractor::new(&Mapping {
        deletes,
        ..Preset::Tamiz.mapping()
    }))
}

fn post(record: Result<Record<'_>, ExtractError>) -> Fields<'_> {
    match record.unwrap() {
        Record::Post(fields) => fields,
        Record::Delete(delete) => panic!("{delete:?}"),
    }
}

/// Source, name and author of a delete; `None` where it is a post.
fn taken_back(record: Result<Record, ExtractError>) -> Option<[Option<String>; 3]> {
    let text = |found: Found| scalar(&found).and_then(Scalar::text).map(|text| text.into_owned());
    match record.unwrap() {
        Record::Post(_) => None,
        Record::Delete(delete) => Some([delete.source, delete.id, delete.author].map(text)),
    }
}

fn scalar<'f>(found: &'f Found<'f>) -> Option<&'f Scalar<'f>> {
    match found {
        Found::Missing => None,
        Found::Scalar(scalar) => Some(scalar),
    }
}

/// The text as text; `None` where it is missing.
fn text(fields: &Fields) -> Option<String> {
    scalar(&fields.text).map(|scalar| scalar.text().map_or("(compound)".into(), |text| text.into_owned()))
}

/// Reads what becomes of a payload that is cut short, changed or made up: never a panic, and words without the payload's.
fn torture(payload: &[u8], read: impl Fn(&[u8]) -> Result<(), ExtractError>) {
    let mut random = StdRng::seed_from_u64(7);
    let check = |bytes: &[u8]| {
        if let Err(error) = read(bytes) {
            let words = error.to_string();
            assert!(!words.contains("secret words") && words.len() < 200, "{words}");
        }
    };
    for end in 0..payload.len() {
        check(&payload[..end]);
    }
    for _ in 0..20_000 {
        let mut bytes = payload.to_vec();
        for _ in 0..random.random_range(1..4) {
            let at = random.random_range(0..bytes.len());
            bytes[at] = random.random();
        }
        check(&bytes);
    }
    for _ in 0..5_000 {
        let bytes: Vec<u8> = (0..random.random_range(0..64)).map(|_| random.random()).collect();
        check(&bytes);
    }
}
