//! Fingerprints of texts: equal texts have equal ones, on every machine and in every version.

use arrow::array::{Array, StringArray, StringBuilder};
use xxhash_rust::xxh3::xxh3_128;

const HEX: &[u8; 16] = b"0123456789abcdef";

/// XXH3-128 of every text's UTF-8 bytes, as 32 hexadecimal digits.
///
/// It tells equal texts, it hides nothing: a short text can be found again by trying. Use
/// [`PseudonymKey`](crate::text::pii::PseudonymKey) for what must stay secret.
///
/// ```
/// # use arrow::array::StringArray;
/// let hashes = tamiz_udfs::text::hash::text_hash(&StringArray::from(vec!["good morning"]));
/// assert_eq!(hashes.value(0).len(), 32);
/// ```
pub fn text_hash(texts: &StringArray) -> StringArray {
    let mut out = StringBuilder::with_capacity(texts.len(), texts.len() * 32);
    let mut digits = [0u8; 32];
    for row in 0..texts.len() {
        if texts.is_null(row) {
            out.append_null();
            continue;
        }
        let hash = xxh3_128(texts.value(row).as_bytes()).to_be_bytes();
        out.append_value(hex(&hash, &mut digits));
    }
    out.finish()
}

/// Writes `bytes` as hexadecimal digits into `digits`, which must hold two per byte.
pub(crate) fn hex<'a>(bytes: &[u8], digits: &'a mut [u8]) -> &'a str {
    for (pair, byte) in digits.chunks_exact_mut(2).zip(bytes) {
        pair[0] = HEX[usize::from(byte >> 4)];
        pair[1] = HEX[usize::from(byte & 15)];
    }
    std::str::from_utf8(digits).expect("hexadecimal digits are ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_is_the_published_xxh3_128() {
        let hashes = text_hash(&StringArray::from(vec![Some(""), None, Some("a"), Some("a")]));
        assert_eq!(hashes.value(0), "99aa06d3014798d86001c324468d497f");
        assert!(hashes.is_null(1));
        assert_eq!(hashes.value(2), "a96faf705af16834e6c632b61e964e1f");
        assert_eq!(hashes.value(2), hashes.value(3));
    }
}
