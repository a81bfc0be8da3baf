//! Bank accounts and wallets: long runs of letters and digits that prove themselves by a checksum.

use sha2::{Digest, Sha256};

/// Length of an IBAN by country, in the order of the alphabet (SWIFT's registry, release 99).
const IBAN_LENGTHS: &str = "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 \
    DK18 DO28 EE20 EG29 ES24 FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 IE22 IL23 IQ23 IS26 \
    IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 \
    OM23 PK24 PL28 PS29 PT25 QA29 RO24 RS22 RU33 SA24 SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 \
    UA29 VA22 VG24 XK20 YE30";

/// End of the IBAN that starts at `start`, in one piece or in groups of four.
pub(super) fn iban(bytes: &[u8], start: usize) -> Option<usize> {
    let head = bytes.get(start..start + 4)?;
    let shaped = head[..2].iter().all(u8::is_ascii_alphabetic) && head[2..].iter().all(u8::is_ascii_digit);
    let length = if shaped { iban_length(head)? } else { return None };
    let (mut at, mut taken, mut remainder) = (start, 0, 0u32);
    let mut first = [0u8; 4];
    while taken < length {
        let byte = *bytes.get(at)?;
        if byte.is_ascii_alphanumeric() {
            if taken < 4 {
                first[taken] = byte;
            } else {
                remainder = mod_97(remainder, byte);
            }
            taken += 1;
        } else if !(matches!(byte, b' ' | b'-') && taken % 4 == 0 && bytes[at - 1].is_ascii_alphanumeric()) {
            return None;
        }
        at += 1;
    }
    let remainder = first.iter().fold(remainder, |remainder, byte| mod_97(remainder, *byte));
    let ends = bytes.get(at).is_none_or(|next| !next.is_ascii_alphanumeric());
    (ends && remainder == 1).then_some(at)
}

fn iban_length(head: &[u8]) -> Option<usize> {
    let country = [head[0].to_ascii_uppercase(), head[1].to_ascii_uppercase()];
    let entry = IBAN_LENGTHS
        .split_ascii_whitespace()
        .find(|entry| entry.as_bytes()[..2] == country)?;
    entry[2..].parse().ok()
}

/// One more character of a number modulo 97; letters count as 10 to 35.
fn mod_97(remainder: u32, byte: u8) -> u32 {
    match byte {
        b'0'..=b'9' => (remainder * 10 + u32::from(byte - b'0')) % 97,
        letter => (remainder * 100 + u32::from(letter.to_ascii_uppercase() - b'A') + 10) % 97,
    }
}

/// Whether a whole run of letters and digits is the address of a wallet.
pub(super) fn is_wallet(run: &str) -> bool {
    match run.len() {
        42 if run.starts_with("0x") => run.bytes().skip(2).all(|byte| byte.is_ascii_hexdigit()),
        26..=35 if is_base58_address(run) => true,
        14..=90 => is_bech32(run),
        _ => false,
    }
}

const BASE58: &[u8; 58] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";

/// Base58Check of a version byte and a hash of 20 bytes, whatever the version: Bitcoin, Litecoin, Dogecoin, Tron, ….
fn is_base58_address(run: &str) -> bool {
    let mut bytes = [0u8; 25];
    for c in run.bytes() {
        let Some(mut carry) = BASE58.iter().position(|digit| *digit == c) else {
            return false;
        };
        for byte in bytes.iter_mut().rev() {
            carry += usize::from(*byte) * 58;
            *byte = (carry & 0xff) as u8;
            carry >>= 8;
        }
        if carry != 0 {
            return false;
        }
    }
    // Leading ones stand for leading zero bytes, one for one: other spellings of the same bytes are no addresses.
    let ones = run.bytes().take_while(|c| *c == b'1').count();
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    ones == zeros && Sha256::digest(Sha256::digest(&bytes[..21]))[..4] == bytes[21..]
}

const BECH32: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";

/// Bech32 (BIP 173) or Bech32m (BIP 350) of Bitcoin, its test network, or Litecoin.
pub(super) fn is_bech32(run: &str) -> bool {
    let Some((name, data)) = run.split_once('1') else {
        return false;
    };
    let known = ["bc", "tb", "ltc"].iter().any(|known| name.eq_ignore_ascii_case(known));
    let mixed = run.bytes().any(|c| c.is_ascii_lowercase()) && run.bytes().any(|c| c.is_ascii_uppercase());
    if !known || mixed {
        return false;
    }
    let name = name.bytes().map(|c| c.to_ascii_lowercase());
    let expanded = name.clone().map(|c| c >> 5).chain([0]).chain(name.map(|c| c & 31));
    let mut check = expanded.fold(1, polymod);
    for c in data.bytes() {
        let Some(value) = BECH32.iter().position(|known| *known == c.to_ascii_lowercase()) else {
            return false;
        };
        check = polymod(check, value as u8);
    }
    check == 1 || check == 0x2bc8_30a3
}

/// The checksum of BIP 173.
fn polymod(check: u32, value: u8) -> u32 {
    const GENERATOR: [u32; 5] = [0x3b6a_57b2, 0x2650_8e6d, 0x1ea1_19fa, 0x3d42_33dd, 0x2a14_62b3];
    let top = check >> 25;
    let shifted = (check & 0x01ff_ffff) << 5 ^ u32::from(value);
    GENERATOR.iter().enumerate().fold(
        shifted,
        |check, (bit, term)| if top >> bit & 1 == 1 { check ^ term } else { check },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ibans_need_country_length_and_check_digits() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(iban(text.as_bytes(), 0).map(|end| &text[..end]), expected, "{text:?}");
        };
        check("GB82WEST12345698765432", Some("GB82WEST12345698765432"));
        check(
            "GB82 WEST 1234 5698 7654 32, please",
            Some("GB82 WEST 1234 5698 7654 32"),
        );
        check("de89-3704-0044-0532-0130-00", Some("de89-3704-0044-0532-0130-00"));
        check("NO93 8601 1117 947", Some("NO93 8601 1117 947"));
        check("GB83WEST12345698765432", None);
        check("GB82WEST123456987654321", None);
        check("GB82WEST1234569876543", None);
        check("ZZ82WEST12345698765432", None);
        check("GB82 WEST  1234 5698 7654 32", None);
    }

    #[test]
    fn wallets_need_their_checksum() {
        let check = |run: &str, expected: bool| assert_eq!(is_wallet(run), expected, "{run:?}");
        // Examples of BIP 173, BIP 350 and of the projects' own documentation.
        check("1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2", true);
        check("1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa", true);
        check("3J98t1WpEZ73CNmQviecrnyiWrnqRhWNLy", true);
        check("1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN3", false);
        check("BC1QW508D6QEJXTDG4Y5R3ZARVARY0C5XW7KV8F3T4", true);
        check("bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0", true);
        check("bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t5", false);
        check("Bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", false);
        check("0x52908400098527886E0F7030069857D2E4169EE7", true);
        check("0x52908400098527886E0F7030069857D2E4169EE", false);
        check("0123456789abcdef0123456789abcdef", false);
    }
}
