use std::collections::BTreeMap;

use super::calibration::{LENGTHS, RIGHT};
use super::*;

fn languages(texts: &[Option<&str>]) -> (Vec<Option<String>>, Vec<Option<f32>>) {
    let found = detect(&StringArray::from(texts.to_vec()));
    (
        found.lang.iter().map(|lang| lang.map(str::to_owned)).collect(),
        found.confidence.iter().collect(),
    )
}

fn check(cases: &[(&str, &str)]) {
    for (text, expected) in cases {
        let (lang, confidence) = languages(&[Some(text)]);
        assert_eq!(lang[0].as_deref(), Some(*expected), "{text:?}");
        let confidence = confidence[0].unwrap();
        assert!((0.0..=1.0).contains(&confidence), "{text:?}: {confidence}");
        assert_eq!(confidence == 0.0, *expected == UNDETERMINED, "{text:?}: {confidence}");
    }
}

#[test]
fn prose_is_recognized_in_many_languages() {
    check(&[
        ("The train was late again and nobody told us why", "en"),
        ("El tren llegó tarde otra vez y nadie nos dijo por qué", "es"),
        ("O comboio chegou atrasado e ninguém nos disse porquê, não é?", "pt"),
        (
            "Le train était encore en retard et personne ne nous a dit pourquoi",
            "fr",
        ),
        ("Il treno era di nuovo in ritardo e nessuno ci ha detto il perché", "it"),
        (
            "Der Zug hatte schon wieder Verspätung und niemand sagte uns warum",
            "de",
        ),
        ("De trein was weer te laat en niemand heeft ons verteld waarom", "nl"),
        ("Tåget var försenat igen och ingen berättade för oss varför", "sv"),
        ("Tren yine gecikti ve kimse bize neden olduğunu söylemedi", "tr"),
        ("Pociąg znowu się spóźnił i nikt nam nie powiedział dlaczego", "pl"),
        ("Vlak měl zase zpoždění a nikdo nám neřekl proč", "cs"),
        ("Поезд снова опоздал, и никто не сказал нам почему, вот это было", "ru"),
        ("Потяг знову запізнився, і ніхто не сказав нам чому", "uk"),
        ("وصل القطار متأخرا مرة أخرى ولم يخبرنا أحد بالسبب", "ar"),
        ("قطار دوباره دیر کرد و هیچ کس به ما نگفت چرا", "fa"),
        ("ٹرین پھر لیٹ ہو گئی اور کسی نے ہمیں نہیں بتایا", "ur"),
        ("ट्रेन फिर से लेट हो गई और किसी ने हमें नहीं बताया", "hi"),
        ("電車がまた遅れた", "ja"),
        ("火车又晚点了，没有人告诉我们为什么", "zh"),
        ("기차가 또 늦었어요", "ko"),
        ("Το τρένο άργησε πάλι", "el"),
        ("הרכבת שוב איחרה ואף אחד לא אמר לנו למה", "he"),
        ("รถไฟมาสายอีกแล้ว", "th"),
    ]);
}

#[test]
fn texts_without_letters_are_undetermined() {
    check(&[
        ("", "und"),
        ("12:30 - 14:00 😀", "und"),
        ("@ana_b #tag https://example.com $ABC", "und"),
    ]);
}

#[test]
fn links_mentions_and_tags_do_not_count() {
    let text = "@the_and_of https://example.com/this/is/the/way #thisistheway Ich weiß nicht, was das soll";
    check(&[(text, "de")]);
    assert_eq!(prose("@a b #c d https://e.example f $GGG"), " b  d  f ");
    assert!(matches!(prose("nothing here"), Cow::Borrowed(_)));
}

#[test]
fn only_the_beginning_of_a_long_text_is_read() {
    let text = format!(
        "{}{}",
        "das ist nicht der Fall ".repeat(100),
        "and this is the other one ".repeat(1000)
    );
    check(&[(&text, "de")]);
    let emoji = "😀".repeat(5000);
    check(&[(&emoji, "und")]);
}

#[test]
fn null_rows_stay_null() {
    let (lang, confidence) = languages(&[None, Some("good morning to all of you")]);
    assert_eq!(lang, [None, Some("en".to_owned())]);
    assert!(confidence[0].is_none() && confidence[1].is_some());
}

#[test]
fn every_language_of_the_crates_has_a_code() {
    for lang in whatlang::Lang::all() {
        assert_eq!(whatlang_code(*lang).len(), 2, "{lang:?}");
    }
    assert_eq!(whatlang_code(whatlang::Lang::Cym), "cy");
    for lang in whichlang::LANGUAGES {
        assert_eq!(whichlang_code(lang).len(), 2, "{lang:?}");
    }
}

#[derive(serde::Deserialize)]
struct Labelled {
    text: String,
    label: String,
    lang: Option<String>,
    kind: Option<String>,
}

impl Labelled {
    fn truth(&self) -> &str {
        match self.lang.as_deref().unwrap_or(&self.label) {
            "nn" => "nb",
            "arabic" => "ar",
            "english" => "en",
            "french" => "fr",
            "german" => "de",
            "hindi" => "hi",
            "italian" => "it",
            "portuguese" => "pt",
            "spanish" => "es",
            code => code,
        }
    }
}

fn labelled(folder: &str, path: &str) -> Vec<Labelled> {
    let file = std::fs::File::open(format!("{folder}/{path}")).unwrap();
    let text = std::io::read_to_string(zstd::Decoder::new(file).unwrap()).unwrap();
    let rows = text.lines().map(|line| serde_json::from_str::<Labelled>(line).unwrap());
    rows.filter(|row| row.kind.as_deref() != Some("single-words")).collect()
}

type Cells = [[[f64; 2]; LENGTHS.len() + 1]; RIGHT.len()];

/// Adds a set to the cells (texts, right answers), in all with weight one; returns the share of right answers.
fn count(rows: &[Labelled], cells: &mut Cells) -> f64 {
    let mut by_language: BTreeMap<&str, [f64; 2]> = BTreeMap::new();
    for row in rows {
        let Some(guess) = identify(&prose(&row.text)) else {
            continue;
        };
        let right = f64::from(u8::from(guess.lang == row.truth()));
        let cell = &mut cells[guess.evidence as usize][calibration::length(guess.letters)];
        *cell = [cell[0] + 1.0 / rows.len() as f64, cell[1] + right / rows.len() as f64];
        let language = by_language.entry(row.truth()).or_default();
        *language = [language[0] + 1.0, language[1] + right];
    }
    let sum = by_language
        .values()
        .fold([0.0, 0.0], |sum, n| [sum[0] + n[0], sum[1] + n[1]]);
    let share = |n: [f64; 2]| n[1] / n[0];
    for lang in ["ar", "de", "en", "es", "fr", "it", "pt", "hi", "pl", "ru", "uk"] {
        print!("{lang} {:.3} ", by_language.get(lang).map_or(f64::NAN, |n| share(*n)));
    }
    println!("all {:.3}", share(sum));
    share(sum)
}

#[test]
fn confidence_is_the_measured_share_of_right_answers() {
    let Ok(folder) = std::env::var("TAMIZ_DATA") else {
        println!("skipped: TAMIZ_DATA is not set");
        return;
    };
    let mut cells = Cells::default();
    let tweets = labelled(&folder, "umsab_sentiment/train.jsonl.zst");
    assert!(
        count(&tweets, &mut cells) > 0.8,
        "an eighth of them is Hindi in Latin letters"
    );
    assert!(count(&labelled(&folder, "langid_lingua/val.jsonl.zst"), &mut cells) > 0.5);
    for (evidence, cells) in cells.iter().enumerate() {
        let shares: Vec<String> = cells.iter().map(|[n, right]| format!("{:.2}", right / n)).collect();
        println!(
            "    [{}], // weights {:?}",
            shares.join(", "),
            cells.map(|[n, _]| (n * 14_674.0) as u32)
        );
        for (length, [n, right]) in cells.iter().enumerate().filter(|(_, [n, _])| *n > 0.005) {
            let (measured, stated) = (right / n, f64::from(RIGHT[evidence][length]));
            assert!(
                (measured - stated).abs() < 0.03,
                "{evidence}, {length}: {measured:.3}, not {stated:.3}"
            );
        }
    }
}
