use super::*;

fn check(cases: &[(&str, &str)]) {
    for (text, expected) in cases {
        let once = normalize(&StringArray::from(vec![*text]));
        assert_eq!(once.value(0), *expected, "{text:?}");
        let twice = normalize(&once);
        assert_eq!(twice.value(0), *expected, "{text:?}, twice");
    }
}

#[test]
fn white_runs_become_one_blank_or_one_line_feed() {
    check(&[
        ("", ""),
        (" \t\r\n ", ""),
        ("  a \t b\u{a0}\u{3000}c  ", "a b c"),
        ("a\r\n\r\n b", "a\nb"),
        ("a \u{2028} b", "a\nb"),
        ("one\ntwo", "one\ntwo"),
        ("a\u{2800}\u{3164}b", "a b"),
    ]);
}

#[test]
fn references_are_decoded_to_the_end() {
    check(&[
        ("a &amp; b", "a & b"),
        ("&amp;amp;lt;b&amp;gt;", "<b>"),
        ("&lt;3 &#128512; &#x1F600; &eacute;", "<3 😀 😀 é"),
        ("&&#108;t;", "<"),
        ("&am\u{200b}p;lt\u{37e}", "<"),
        ("a&nbsp;&nbsp;b&#10;c", "a b\nc"),
        ("e&#769;", "é"),
        ("AT&T; R&D & B&B &nosuch; &copy &", "AT&T; R&D & B&B &nosuch; &copy &"),
        ("&notit; &#0; &#xD800;", "&notit; \u{fffd} \u{fffd}"),
        ("x &#32; y", "x y"),
        ("&#8203;&ZeroWidthSpace;", ""),
    ]);
}

#[test]
fn invisible_characters_go() {
    check(&[
        ("pay\u{200b}pal\u{feff}", "paypal"),
        ("abc\u{202e}txt.exe\u{202c}", "abctxt.exe"),
        ("a\0b\u{7}c\u{1b}[31m", "abc[31m"),
        ("hy\u{ad}phen \u{2066}x\u{2069}", "hyphen x"),
        ("4\u{fe0f}1\u{200d}1\u{200c}1", "4111"),
        ("a\u{e0041}\u{e0101}\u{fe01}", "a"),
    ]);
}

#[test]
fn emoji_and_scripts_keep_their_joiners_and_selectors() {
    for kept in [
        "👩‍👩‍👧‍👦 and 🏳️‍🌈",
        "1\u{fe0f}\u{20e3} #\u{fe0f}\u{20e3}",
        "❤️‍🔥 ☎︎",
        "🏴\u{e0067}\u{e0062}\u{e0065}\u{e006e}\u{e0067}\u{e007f}",
        "می\u{200c}خواهم",
        "क्\u{200d}ष",
        "葛\u{e0100}",
        "🇪🇸 👍🏽",
    ] {
        check(&[(kept, kept)]);
    }
    check(&[
        ("👍\u{200d}", "👍"),
        ("a\u{200d}👍", "a👍"),
        ("👩\u{200d} 👩", "👩 👩"),
        ("\u{200d}👩", "👩"),
    ]);
}

#[test]
fn composed_form_is_chosen_and_compatibility_forms_stay() {
    check(&[
        ("cafe\u{301}", "café"),
        ("e\u{200b}\u{301}", "é"),
        ("\u{212b}\u{212a}", "ÅK"),
        ("각", "각"),
        ("ﬁ ① Ａ", "ﬁ ① Ａ"),
        ("q\u{307}\u{323}", "q\u{323}\u{307}"),
    ]);
}

#[test]
fn links_mentions_and_tags_stay() {
    let text = "@ana_b see https://example.com/a?b=1&c=2#d #tag $ABC";
    check(&[(text, text)]);
}

#[test]
fn a_column_without_work_shares_its_buffers() {
    let texts = StringArray::from(vec![Some("all is well"), None, Some("")]);
    let normal = normalize(&texts);
    assert_eq!(normal, texts);
    assert_eq!(normal.value_data().as_ptr(), texts.value_data().as_ptr());
    let mixed = normalize(&StringArray::from(vec![Some("a"), None, Some(" b "), Some("c"), None]));
    assert_eq!(
        mixed,
        StringArray::from(vec![Some("a"), None, Some("b"), Some("c"), None])
    );
    let sliced = normalize(&StringArray::from(vec!["x", "y", " z "]).slice(1, 2));
    assert_eq!(sliced, StringArray::from(vec!["y", "z"]));
}

/// Pieces that meet at random: whatever comes out must be a fixed point.
#[test]
fn normalizing_twice_changes_nothing_more() {
    const PIECES: &[&str] = &[
        "&",
        "amp;",
        "lt",
        ";",
        "&#",
        "x",
        "59;",
        "&semi;",
        "&#894;",
        "\u{37e}",
        " ",
        "\n",
        "\t",
        "a",
        "e",
        "1",
        "#",
        "\u{301}",
        "\u{323}",
        "\u{338}",
        "<",
        "\u{200b}",
        "\u{200c}",
        "\u{200d}",
        "\u{fe0f}",
        "\u{20e3}",
        "👩",
        "❤",
        "\u{1f3fd}",
        "\u{e0067}",
        "\u{e007f}",
        "\u{1f3f4}",
        "क",
        "्",
        "ि",
        "\u{93c}",
        "م",
        "\u{64b}",
        "각",
        "ᄀ",
        "ᅡ",
        "ᆨ",
        "葛",
        "\u{e0100}",
        "\u{212a}",
        "\u{1fef}",
        "\u{202e}",
        "\0",
        "\u{85}",
        "&nbsp;",
        "&zwj;",
        "&zwnj;",
        "𝟘",
    ];
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed as usize
    };
    let texts: Vec<String> = (0..60_000)
        .map(|_| (0..1 + next() % 12).map(|_| PIECES[next() % PIECES.len()]).collect())
        .collect();
    let once = normalize(&StringArray::from(texts.clone()));
    let twice = normalize(&once);
    for (row, text) in texts.iter().enumerate() {
        assert_eq!(once.value(row), twice.value(row), "{text:?}");
    }
}

#[test]
fn naughty_strings_are_fixed_points_too() {
    let Ok(folder) = std::env::var("TAMIZ_DATA") else {
        println!("skipped: TAMIZ_DATA is not set");
        return;
    };
    let file = std::fs::read(format!("{folder}/feeds/malformed/blns.json")).unwrap();
    let strings: Vec<String> = serde_json::from_slice(&file).unwrap();
    assert!(strings.len() > 400);
    let once = normalize(&StringArray::from(strings));
    assert_eq!(once, normalize(&once));
}

#[test]
fn a_deep_nest_of_references_costs_linear_time() {
    let text = format!("&{}lt;", "amp;".repeat(200_000));
    check(&[(&text, "<")]);
}
