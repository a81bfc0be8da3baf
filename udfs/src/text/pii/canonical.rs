//! One spelling per value, so that its pseudonyms join.

use std::borrow::Cow;
use std::net::Ipv6Addr;

use super::Kind;
use super::account::is_bech32;
use super::fold::{fold, needs_fold};

/// The form that a pseudonym is made of.
///
/// Phone numbers become `+` and digits where the country is known (`+`, `00`, ten digits as in North America), and
/// digits alone elsewhere; an extension does not count.
pub(super) fn canonical(kind: Kind, value: &str) -> Cow<'_, str> {
    let value = if needs_fold(value) {
        Cow::Owned(fold(value).text)
    } else {
        Cow::Borrowed(value)
    };
    let text = value.trim();
    match kind {
        Kind::Email => text.to_lowercase().into(),
        Kind::Mention => text.trim_start_matches('@').to_lowercase().into(),
        Kind::Phone => phone(text).into(),
        Kind::Card | Kind::Ssn => digits(text).into(),
        Kind::Iban => text
            .chars()
            .filter(char::is_ascii_alphanumeric)
            .collect::<String>()
            .to_uppercase()
            .into(),
        Kind::Ipv6 => text
            .parse::<Ipv6Addr>()
            .map_or_else(|_| text.to_lowercase(), |address| address.to_string())
            .into(),
        // Base58 distinguishes case; the others that are found do not.
        Kind::Wallet if is_bech32(text) || text.starts_with("0x") => text.to_lowercase().into(),
        Kind::Wallet => value,
        Kind::Ipv4 | Kind::UrlCredentials => value,
    }
}

fn digits(text: &str) -> String {
    text.chars().filter(char::is_ascii_digit).collect()
}

fn phone(text: &str) -> String {
    let number = &text[..text.find(['x', 'X', 'e', 'E']).unwrap_or(text.len())];
    if number.trim_start_matches('(').starts_with('+') {
        return format!("+{}", digits(&number.replace("(0)", "")));
    }
    let digits = digits(number);
    match digits.as_bytes() {
        [b'0', b'0', ..] => format!("+{}", &digits[2..]),
        [b'1', b'2'..=b'9', ..] if digits.len() == 11 => format!("+{digits}"),
        [b'2'..=b'9', ..] if digits.len() == 10 => format!("+1{digits}"),
        _ => digits,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_to_write_a_value_have_one_form() {
        let check = |kind: Kind, values: &[&str], expected: &str| {
            for value in values {
                assert_eq!(canonical(kind, value), expected, "{value:?}");
            }
        };
        check(
            Kind::Email,
            &["Ana.B@Example.COM", "ana.b@example.com"],
            "ana.b@example.com",
        );
        check(Kind::Mention, &["@Ana_B", "ana_b", "＠ana_b"], "ana_b");
        check(
            Kind::Phone,
            &[
                "+1 (415) 555-0100",
                "415-555-0100",
                "001 415 555 0100",
                "1.415.555.0100 x12",
                "４１５ 555 0100",
            ],
            "+14155550100",
        );
        check(Kind::Phone, &["+44 (0)20 7946 0958", "+442079460958"], "+442079460958");
        check(Kind::Phone, &["020 7946 0958"], "02079460958");
        check(
            Kind::Card,
            &["4111-1111-1111-1111", "4111 1111 1111 1111"],
            "4111111111111111",
        );
        check(
            Kind::Iban,
            &["gb82 west 1234 5698 7654 32", "GB82WEST12345698765432"],
            "GB82WEST12345698765432",
        );
        check(Kind::Ipv6, &["2001:DB8:0:0::1", "2001:db8::1"], "2001:db8::1");
        check(
            Kind::Wallet,
            &["1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2"],
            "1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2",
        );
        check(
            Kind::Wallet,
            &["BC1QW508D6QEJXTDG4Y5R3ZARVARY0C5XW7KV8F3T4"],
            "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4",
        );
    }
}
