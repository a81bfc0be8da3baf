//! The key that turns values into pseudonyms.

use std::fmt;

use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::canonical::canonical;
use super::{Kind, PiiError};
use crate::text::hash::hex;

/// Makes pseudonyms that are the same for the same value under the same key, and tell nothing without it.
///
/// Only the state of the keyed hash is kept, never the key itself; nothing of it is ever printed.
#[derive(Clone)]
pub struct PseudonymKey(Hmac<Sha256>);

impl PseudonymKey {
    /// Fewest bytes of a key.
    pub const MIN_BYTES: usize = 16;

    /// From secret bytes, best 32 random ones.
    ///
    /// # Errors
    /// With fewer than [`MIN_BYTES`](Self::MIN_BYTES).
    pub fn new(secret: &[u8]) -> Result<PseudonymKey, PiiError> {
        let short = PiiError::ShortKey { bytes: secret.len() };
        if secret.len() < Self::MIN_BYTES {
            return Err(short);
        }
        Hmac::new_from_slice(secret).map(PseudonymKey).map_err(|_| short)
    }

    /// The pseudonym of an account: 12 hexadecimal digits. An `@` in front and the case of letters do not count, so
    /// that authors and [`Kind::Mention`]s of the same account have the same one.
    ///
    /// ```
    /// # use tamiz_udfs::text::pii::PseudonymKey;
    /// let key = PseudonymKey::new(b"only for this example")?;
    /// assert_eq!(key.pseudonym("Ana_B"), key.pseudonym("@ana_b"));
    /// # Ok::<(), tamiz_udfs::text::pii::PiiError>(())
    /// ```
    pub fn pseudonym(&self, value: &str) -> String {
        self.pseudonym_of(Kind::Mention, value)
    }

    /// The pseudonym of a value of any kind: 12 hexadecimal digits over its canonical form.
    pub fn pseudonym_of(&self, kind: Kind, value: &str) -> String {
        let mut mac = self.0.clone();
        mac.update(canonical(kind, value).as_bytes());
        let code = mac.finalize().into_bytes();
        hex(&code[..6], &mut [0; 12]).to_owned()
    }
}

impl fmt::Debug for PseudonymKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PseudonymKey(secret)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pseudonyms_are_hmac_sha256_over_the_canonical_form() {
        let key = PseudonymKey::new(&[0x0b; 20]).unwrap();
        // RFC 4231, test case 1, whose data is `Hi There`: here the canonical form is `hi there`.
        assert_eq!(key.pseudonym("Hi There"), key.pseudonym("@hi there"));
        assert_eq!(key.pseudonym_of(Kind::UrlCredentials, "Hi There"), "b0344c61d8db");
    }

    #[test]
    fn the_key_decides_and_is_never_shown() {
        let (one, two) = (
            PseudonymKey::new(&[1; 32]).unwrap(),
            PseudonymKey::new(&[2; 32]).unwrap(),
        );
        assert_ne!(one.pseudonym("ana"), two.pseudonym("ana"));
        assert_eq!(format!("{one:?}"), "PseudonymKey(secret)");
        assert_eq!(
            PseudonymKey::new(b"short").unwrap_err(),
            PiiError::ShortKey { bytes: 5 }
        );
    }
}
