//! Properties of all texts, and a labelled collection.

use super::*;

/// Pieces that meet at random, in every mode: what was scrubbed has nothing more to scrub, and is UTF-8 throughout.
#[test]
fn scrub_is_idempotent() {
    const PIECES: &[&str] = &[
        "@",
        "ana",
        "example.com",
        ".",
        "-",
        "+",
        "(",
        ")",
        "/",
        ":",
        "//",
        "http",
        "[",
        "]",
        "415",
        "555",
        "0100",
        "1",
        "0",
        "4111",
        "1111",
        " ",
        " ",
        " ",
        "a@b.co",
        "@bob",
        "2001:db8::1:2",
        "::",
        "203.0.113.9",
        "123-45-6789",
        "é",
        "日",
        "😀",
        "\u{200b}",
        "４",
        "–",
        "[PHONE]",
        "@user",
        "call",
        "x12",
        "GB82WEST12345698765432",
        "?token=",
        "abcdef",
        "ftp://a:b@c",
        "1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2",
        "0044",
        "020 7946 0958",
        "\n",
        "_",
        "v",
        "'",
    ];
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed as usize
    };
    let texts: Vec<String> = (0..40_000)
        .map(|_| (0..1 + next() % 10).map(|_| PIECES[next() % PIECES.len()]).collect())
        .collect();
    let texts = StringArray::from(texts);
    for mode in [Mode::Mask, Mode::Hash, Mode::Drop, Mode::Keep] {
        let scrubber = scrubber(mode);
        let once = scrubber.scrub(&texts).texts;
        let twice = scrubber.scrub(&once).texts;
        for row in 0..texts.len() {
            assert_eq!(once.value(row), twice.value(row), "{mode:?}: {:?}", texts.value(row));
        }
    }
}

#[test]
fn long_hostile_texts_cost_linear_time() {
    for piece in [
        "http://", "@", "1", "1 ", "a@", ":", "[", "x@y.", "0044 ", "=&token=", "a.", "::1", "é@",
    ] {
        let text = piece.repeat(300_000 / piece.len());
        scrub(&scrubber(Mode::Mask), &text);
        let url = format!("http://{text}");
        scrub(&scrubber(Mode::Drop), &url);
    }
}

#[derive(serde::Deserialize)]
struct Labelled {
    text: String,
    spans: Vec<Span>,
}

#[derive(serde::Deserialize)]
struct Span {
    start: usize,
    end: usize,
    r#type: String,
}

/// Counts by kind: labelled spans, those of them that are found (overlapping), findings, those without a label.
#[test]
fn labelled_sentences_are_scrubbed_well() {
    let Ok(folder) = std::env::var("TAMIZ_DATA") else {
        println!("skipped: TAMIZ_DATA is not set");
        return;
    };
    let file = std::fs::File::open(format!("{folder}/pii_presidio/val.jsonl.zst")).unwrap();
    let text = std::io::read_to_string(zstd::Decoder::new(file).unwrap()).unwrap();
    let rows: Vec<Labelled> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kinds = [
        ("EMAIL_ADDRESS", "email", 0.95, 0.95),
        ("CREDIT_CARD", "card", 0.90, 0.95),
        ("IBAN_CODE", "iban", 0.95, 0.95),
        ("US_SSN", "ssn", 0.95, 0.95),
        ("IP_ADDRESS", "ipv4", 0.95, 0.5),
        ("PHONE_NUMBER", "phone", 0.7, 0.9),
    ];
    for (label, kind, least_recall, least_precision) in kinds {
        let (mut labelled, mut hit, mut found, mut right) = (0.0, 0.0, 0.0, 0.0);
        for row in &rows {
            let ours: Vec<_> = spans(&row.text).into_iter().filter(|found| found.0 == kind).collect();
            let theirs: Vec<&Span> = row.spans.iter().filter(|span| span.r#type == label).collect();
            let meet = |span: &Span, found: &(String, usize, usize)| span.start < found.2 && found.1 < span.end;
            labelled += theirs.len() as f64;
            hit += theirs
                .iter()
                .filter(|span| ours.iter().any(|found| meet(span, found)))
                .count() as f64;
            found += ours.len() as f64;
            right += ours
                .iter()
                .filter(|found| theirs.iter().any(|span| meet(span, found)))
                .count() as f64;
        }
        let (recall, precision) = (hit / labelled, right / found);
        println!("{kind}: {labelled} labelled, recall {recall:.3}, precision {precision:.3}");
        assert!(
            recall >= least_recall && precision >= least_precision,
            "{kind}: {recall:.3}, {precision:.3}"
        );
    }
}
