//! Function words that make or confirm a guess: in prose of 100 letters, several of its language are hard to avoid.
//!
//! Where one language has several and twice as many as any other, that settles it, at a quarter of the n-gram model's
//! cost. Elsewhere they say whether the choice of that model, which knows sixteen languages and always names one of
//! them, can be right.

use std::sync::LazyLock;

use whichlang::Lang;

/// Frequent words by language, those of other languages that the model does not know left out where they clash most.
const WORDS: [(Lang, &str); 10] = [
    (
        Lang::Eng,
        "the and to of in is it you that for on are with this my be at have not was your from we they will can what \
         about out just all so do if get has he she his her how when up who our more been new than but me i an as its \
         by or no im dont ll ve don after \
         over into says see now day good time today back people make why us some via would could their there then \
         here off down only first last going want know think really still should too his which per amp year week",
    ),
    (
        Lang::Spa,
        "el la los las y que en por con para una pero más muy está es lo del se su al como mi te yo no ya si hay esta \
         todo también porque cuando son este eso ser tu qué soy sin sobre \
         hoy hasta desde donde nos gracias mejor nada solo sólo vida día bien hace vez tan mis son sus cómo quien",
    ),
    (
        Lang::Por,
        "o os não uma em com mais muito é você eu do da para por que se no na mas meu minha está isso dos das ao tem \
         foi são já ele ela tá pra vou ser um te nao vc hoje gente só \
         nem quem quero dia sem ver quando mesmo vai vida agora aqui estou tudo pela pelo seu sua isto num",
    ),
    (
        Lang::Fra,
        "le les et est une pas pour je dans il que des sur qui avec ce vous au du mais plus nous ne tout mon \
         se elle on un en sont cette ça ma tu me leur aux été même si \
         fait comme suis j l c d qu n bien sa ses quand ils tous faire être merci rien avoir ai est ton son par où",
    ),
    (
        Lang::Ita,
        "il che di e è non per una sono con della del mi ma gli si come più anche io lo alla nel questo ho dei ha un \
         le da i al ci ti cosa se delle perché quando \
         tutto ma chi l d c un solo oggi bene sei fa poi dopo sempre senza ora dal essere tutti nella ne mia mio così",
    ),
    (
        Lang::Deu,
        "der die das und ist nicht ich ein eine zu den mit auf für es sie auch von im dem wir wie sich noch aber hat \
         so man du als wenn was bei wird aus nach sind nur mir einen kann ja oder war schon einer des über mich mehr \
         mal doch bin hab habe jetzt keine kein wer heute dann diese immer wenn uns euch vom zur zum hier gut",
    ),
    (
        Lang::Nld,
        "de het een en van ik niet dat op te je is zijn met voor maar ook dit aan naar nog wat heb als er bij we mijn \
         deze door uit om heeft wel hij ze worden kan geen over hebben",
    ),
    (
        Lang::Swe,
        "och att det är en jag inte som på av för med har till ett den om så men du vi var kan från ska när här nu de \
         sig mig blir eller man vad mycket detta också",
    ),
    (
        Lang::Tur,
        "bir ve bu için çok ne da de ben sen o var yok ama gibi daha mi mı en her değil kadar olan sonra ki diye şey \
         ile bana beni olarak iyi bi hiç nasıl",
    ),
    (
        Lang::Vie,
        "và là của không có cho một người được này tôi với anh em trong các thì đã ở mà nhưng cũng ra nó rất khi đi \
         lại như vào sẽ làm gì",
    ),
];

const SLOTS: usize = 2048;

/// Open addressing by the word's bytes, at most eight; the value has one bit per row of [`WORDS`].
static TABLE: LazyLock<Box<[(u64, u16); SLOTS]>> = LazyLock::new(|| {
    let mut table = Box::new([(0u64, 0u16); SLOTS]);
    for (row, (_, words)) in WORDS.iter().enumerate() {
        for word in words.split_whitespace() {
            let key = word.bytes().fold(0, |key, byte| key << 8 | u64::from(byte));
            let mut slot = slot(key);
            while table[slot].0 != 0 && table[slot].0 != key {
                slot = (slot + 1) % SLOTS;
            }
            table[slot].0 = key;
            table[slot].1 |= 1 << row;
        }
    }
    table
});

fn slot(key: u64) -> usize {
    (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 53) as usize
}

fn languages(key: u64) -> u16 {
    let mut slot = slot(key);
    loop {
        match TABLE[slot] {
            (found, languages) if found == key => return languages,
            (0, _) => return 0,
            _ => slot = (slot + 1) % SLOTS,
        }
    }
}

/// Function words of a text, counted by language.
pub(super) struct Votes([u32; WORDS.len()]);

impl Votes {
    /// The language with most votes, and by how many it leads the next.
    pub(super) fn winner(&self) -> (Lang, u32, u32) {
        let (mut best, mut second) = (0, 0);
        for row in 1..WORDS.len() {
            if self.0[row] > self.0[best] {
                second = self.0[best];
                best = row;
            } else {
                second = second.max(self.0[row]);
            }
        }
        (WORDS[best].0, self.0[best], second)
    }

    /// Votes for one language.
    pub(super) fn of(&self, lang: Lang) -> u32 {
        WORDS
            .iter()
            .position(|(known, _)| *known == lang)
            .map_or(0, |row| self.0[row])
    }
}

/// Counts the function words of `text`.
pub(super) fn votes(text: &str) -> Votes {
    let mut votes = [0u32; WORDS.len()];
    let mut count = |key: u64, length: usize| {
        if (1..=8).contains(&length) {
            let mut bits = languages(key);
            while bits != 0 {
                votes[bits.trailing_zeros() as usize] += 1;
                bits &= bits - 1;
            }
        }
    };
    let bytes = text.as_bytes();
    let (mut key, mut length, mut at) = (0u64, 0usize, 0);
    while at < bytes.len() {
        // Of the characters beyond ASCII these are the signs, not letters of Latin script.
        let (letter, width) = match bytes[at] {
            b'a'..=b'z' | b'A'..=b'Z' | 0xc3..0xe2 => (true, 1),
            0x80..0xc0 => (true, 1),
            0xc2 => (false, 2),
            0xe2 | 0xe3 => (false, 3),
            0xf0.. => (false, 4),
            byte => (byte >= 0x80, 1),
        };
        if letter {
            key = key << 8 | u64::from(bytes[at].to_ascii_lowercase());
            length += 1;
        } else {
            count(key, length);
            (key, length) = (0, 0);
        }
        at += width;
    }
    count(key, length);
    Votes(votes)
}

/// How many letters of `text` the spelling of `lang` does not use. ASCII letters belong to every language.
pub(super) fn foreign_letters(text: &str, lang: Lang) -> u32 {
    if text.is_ascii() {
        return 0;
    }
    let own = match lang {
        Lang::Eng => "éèêëïöüáñçàâô",
        Lang::Spa => "áéíóúñüªº",
        Lang::Por => "ãõáéíóúâêôçàüªº",
        Lang::Fra => "éèêëàâçùûüîïôœæÿ",
        Lang::Ita => "àèéìíîòóùú",
        Lang::Deu => "äöüßé",
        Lang::Nld => "ëéèïöüáóê",
        Lang::Swe => "åäöé",
        Lang::Tur => "çğıöşüâîûi\u{307}",
        Lang::Vie => "ăâđêôơưàáãèéìíòóõùúýĩũ",
        _ => "",
    };
    let latin = |c: &char| matches!(c, '\u{c0}'..='\u{24f}' | '\u{1e00}'..='\u{1eff}') && c.is_alphabetic();
    let vietnamese = |c: char| lang == Lang::Vie && matches!(c, '\u{1ea0}'..='\u{1ef9}');
    let foreign = |c: char| !vietnamese(c) && !c.to_lowercase().all(|c| own.contains(c));
    text.chars().filter(latin).filter(|c| foreign(*c)).count() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_vote_for_their_language() {
        let check = |text: &str, expected: (Lang, u32, u32)| assert_eq!(votes(text).winner(), expected, "{text:?}");
        check("This is the end, my friend", (Lang::Eng, 4, 1));
        check("Ich bin NICHT der Koch", (Lang::Deu, 4, 0));
        check("não é você", (Lang::Por, 3, 0));
        assert_eq!(votes("és un dia per a tothom").of(Lang::Deu), 0);
        assert_eq!(votes("").winner().1, 0);
    }

    #[test]
    fn foreign_letters_are_those_of_other_spellings() {
        let check = |text: &str, lang: Lang, expected: u32| {
            assert_eq!(foreign_letters(text, lang), expected, "{text:?}");
        };
        check("Zażółć gęślą jaźń", Lang::Deu, 9);
        check("El niño está aquí, ÁÑ", Lang::Spa, 0);
        check("Tiếng Việt không", Lang::Vie, 0);
        check("İstanbul'da şimdi", Lang::Tur, 0);
        check("plain", Lang::Eng, 0);
    }

    #[test]
    fn every_word_fits_its_key() {
        for (_, words) in WORDS {
            for word in words.split_whitespace() {
                assert!(word.len() <= 8, "{word}");
            }
        }
    }
}
