//! What happens to findings, and how they are told.

use super::*;

#[test]
fn the_policy_decides_by_kind() {
    let text = "@ana a@example.com +442079460958";
    let policy: PiiPolicy =
        serde_json::from_str(r#"{"default": "mask", "kinds": {"mention": "hash", "email": "drop", "phone": "keep"}}"#)
            .unwrap();
    let scrubber = Scrubber::new(policy.clone(), Some(key())).unwrap();
    let code = key().pseudonym("ana");
    assert_eq!(scrub(&scrubber, text), format!("@u_{code} +442079460958"));
    assert_eq!(
        Scrubber::new(policy, None).unwrap_err(),
        PiiError::NoKey { kind: Kind::Mention }
    );
    assert!(serde_json::from_str::<PiiPolicy>(r#"{"kinds": {"name": "mask"}}"#).is_err());
    assert!(serde_json::from_str::<PiiPolicy>(r#"{"emails": "mask"}"#).is_err());
    assert_eq!(scrub(&super::scrubber(Mode::Keep), text), text);
}

#[test]
fn pseudonyms_join_ways_of_writing() {
    let scrubber = scrubber(Mode::Hash);
    let hashed = |text: &str| scrub(&scrubber, text);
    assert_eq!(hashed("+1 415 555 0100"), hashed("(415) 555-0100"));
    assert_eq!(hashed("A@Example.com"), hashed("a@example.com"));
    assert_ne!(hashed("a@example.com"), hashed("b@example.com"));
    let email = hashed("a@example.com");
    assert!(
        email.starts_with("[EMAIL:") && email.len() == "[EMAIL:0123456789ab]".len(),
        "{email}"
    );
    assert_eq!(hashed(&email), email);
}

#[test]
fn what_is_dropped_leaves_one_blank() {
    let scrubber = scrubber(Mode::Drop);
    for (text, expected) in [
        ("write a@example.com now", "write now"),
        ("a@example.com", ""),
        ("a@example.com now", "now"),
        ("write a@example.com", "write"),
        ("(a@example.com)", "( )"),
        ("+1 415 @ana 555 0100", ""),
    ] {
        assert_eq!(scrub(&scrubber, text), expected, "{text:?}");
    }
}

#[test]
fn findings_are_counted_by_row_and_kind() {
    let texts = StringArray::from(vec![
        None,
        Some("@a @b c@example.com"),
        Some("nothing"),
        None,
        Some("@a"),
        None,
    ]);
    let found = scrubber(Mode::Mask).scrub(&texts).found;
    let rows: Vec<Option<Vec<(String, i32)>>> = found
        .iter()
        .map(|row| {
            let row = row?;
            let row = row.as_struct();
            let kinds = row.column_by_name("kind").unwrap().as_string::<i32>().iter();
            let counts = row.column_by_name("count").unwrap().as_primitive::<Int32Type>().iter();
            Some(
                kinds
                    .zip(counts)
                    .map(|(kind, count)| (kind.unwrap().to_owned(), count.unwrap()))
                    .collect(),
            )
        })
        .collect();
    let counted = |kind: &str, count| (kind.to_owned(), count);
    let second = vec![counted("email", 1), counted("mention", 2)];
    assert_eq!(
        rows,
        [
            None,
            Some(second),
            Some(vec![]),
            None,
            Some(vec![counted("mention", 1)]),
            None
        ]
    );
}

#[test]
fn entities_are_in_characters() {
    let text = "ñandú 😀 @ana, ４１１１ １１１１ １１１１ １１１１ é";
    let characters: Vec<char> = text.chars().collect();
    let found: Vec<(String, String)> = spans(text)
        .into_iter()
        .map(|(kind, start, end)| (kind, characters[start..end].iter().collect()))
        .collect();
    let expected = [("mention", "@ana"), ("card", "４１１１ １１１１ １１１１ １１１１")];
    assert_eq!(found, expected.map(|(kind, text)| (kind.to_owned(), text.to_owned())));
    assert!(entities(&StringArray::from(vec![None::<&str>])).is_null(0));
}

#[test]
fn a_column_without_findings_shares_its_buffers() {
    let texts = StringArray::from(vec![Some("all is well"), None, Some("12 of 30")]);
    let scrubbed = scrubber(Mode::Mask).scrub(&texts);
    assert_eq!(scrubbed.texts.value_data().as_ptr(), texts.value_data().as_ptr());
    assert_eq!(
        (
            scrubbed.found.len(),
            scrubbed.found.is_null(1),
            scrubbed.found.value_length(2)
        ),
        (3, true, 0)
    );
}
