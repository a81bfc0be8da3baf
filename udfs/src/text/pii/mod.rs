//! Personal data in texts: found by its form, and masked, replaced by a keyed pseudonym, or taken out.
//!
//! | kind | what is found | mask |
//! |---|---|---|
//! | `email` | addresses with a domain of two labels or more | `[EMAIL]` |
//! | `phone` | international numbers (`+`, `00`), North American ones, national ones with a leading 0 in groups or an area code in brackets; any other only after a word such as *call* or *tel* | `[PHONE]` |
//! | `ipv4`, `ipv6` | addresses but for unspecified and loopback ones; not after *version* | `[IPV4]`, `[IPV6]` |
//! | `card` | payment cards: issuer's prefix, length and Luhn check digit | `[CARD]` |
//! | `iban` | by country and length, with mod-97 check digits | `[IBAN]` |
//! | `ssn` | US social security numbers in their three groups, in the ranges that are given out | `[SSN]` |
//! | `wallet` | Base58Check and Bech32 addresses (Bitcoin and its kin) with their checksums; Ethereum | `[WALLET]` |
//! | `url_credentials` | user and password before a URL's host; values of parameters such as `token` | `[URL_CREDENTIALS]` |
//! | `mention` | @handles, with their server where one is named | `@user` |
//!
//! Names, postal addresses and what is spelled out (*ana at example dot com*) are not found.
//!
//! Digits and signs in their full-width and other Unicode forms count as the ASCII ones, and zero-width characters
//! between them as nothing. Where findings overlap, the longer one stands. Scrubbing twice changes nothing more: what
//! a mask or a pseudonym looks like is never found again. Text without `@`, digits, colons and brackets is only
//! looked at once, byte by byte.
//!
//! Pseudonyms are the first 12 hexadecimal digits of HMAC-SHA256 over the canonical form of a finding (lower case,
//! digits without separators, …), so that the same number written twice in two ways gets the same one, and nobody
//! without the key can try all numbers: `[PHONE:1a2b3c4d5e6f]`, and for mentions `@u_1a2b3c4d5e6f`.

mod account;
mod canonical;
mod find;
mod fold;
mod handle;
mod key;
mod network;
mod number;
mod phone;
mod scrub;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use self::key::PseudonymKey;
pub use self::scrub::{Scrubbed, Scrubber, entities};

/// A kind of personal data. Of two findings of one length at one place, the kind that is named first here stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// User and password in a URL, or a secret in its parameters.
    UrlCredentials,
    /// E-mail address.
    Email,
    /// Address of a cryptocurrency wallet.
    Wallet,
    /// International bank account number.
    Iban,
    /// Payment card number.
    Card,
    /// United States social security number.
    Ssn,
    /// IPv6 address.
    Ipv6,
    /// IPv4 address.
    Ipv4,
    /// Telephone number.
    Phone,
    /// @handle of an account.
    Mention,
}

impl Kind {
    /// Every kind, in order.
    pub const ALL: [Kind; 10] = [
        Kind::UrlCredentials,
        Kind::Email,
        Kind::Wallet,
        Kind::Iban,
        Kind::Card,
        Kind::Ssn,
        Kind::Ipv6,
        Kind::Ipv4,
        Kind::Phone,
        Kind::Mention,
    ];

    /// The name in configurations and columns.
    pub fn name(self) -> &'static str {
        match self {
            Kind::UrlCredentials => "url_credentials",
            Kind::Email => "email",
            Kind::Wallet => "wallet",
            Kind::Iban => "iban",
            Kind::Card => "card",
            Kind::Ssn => "ssn",
            Kind::Ipv6 => "ipv6",
            Kind::Ipv4 => "ipv4",
            Kind::Phone => "phone",
            Kind::Mention => "mention",
        }
    }

    /// What stands in its place in mode [`Mode::Mask`].
    pub fn mask(self) -> &'static str {
        match self {
            Kind::UrlCredentials => "[URL_CREDENTIALS]",
            Kind::Email => "[EMAIL]",
            Kind::Wallet => "[WALLET]",
            Kind::Iban => "[IBAN]",
            Kind::Card => "[CARD]",
            Kind::Ssn => "[SSN]",
            Kind::Ipv6 => "[IPV6]",
            Kind::Ipv4 => "[IPV4]",
            Kind::Phone => "[PHONE]",
            Kind::Mention => "@user",
        }
    }
}

/// What happens to a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Its kind's mask stands in its place.
    #[default]
    Mask,
    /// A keyed pseudonym stands in its place.
    Hash,
    /// It is taken out.
    Drop,
    /// It stays, and is counted.
    Keep,
}

/// What happens to each kind.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PiiPolicy {
    /// For the kinds that are not named in `kinds`.
    pub default: Mode,
    /// Exceptions by kind.
    pub kinds: BTreeMap<Kind, Mode>,
}

impl PiiPolicy {
    /// The same mode for every kind.
    pub fn uniform(mode: Mode) -> PiiPolicy {
        PiiPolicy {
            default: mode,
            kinds: BTreeMap::new(),
        }
    }

    /// What happens to findings of a kind.
    pub fn mode(&self, kind: Kind) -> Mode {
        self.kinds.get(&kind).copied().unwrap_or(self.default)
    }
}

/// Why a scrubber or a key cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PiiError {
    /// A policy hashes and there is no key.
    #[error(
        "mode `hash` for {} needs the key of the pseudonyms: give one, or choose `mask`, `drop` or `keep`",
        kind.name()
    )]
    NoKey {
        /// The first kind that is hashed.
        kind: Kind,
    },
    /// A key that can be guessed protects nothing.
    #[error(
        "the key of the pseudonyms has {bytes} bytes: give {} or more random ones",
        PseudonymKey::MIN_BYTES
    )]
    ShortKey {
        /// Its length.
        bytes: usize,
    },
}

#[cfg(test)]
mod tests;
