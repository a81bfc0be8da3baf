//! The `[source.kafka.tls]` and `[source.kafka.sasl]` sections: whether connections are encrypted, and who we are.
//!
//! Architecture Invariant: no secret stands in the configuration, and a connection that is to be secured is never made
//! in the clear.

use serde::{Deserialize, Serialize};

use super::config::KafkaConfig;
use crate::config::Problem;

/// Environment variable with the password of PLAIN and SCRAM.
pub const PASSWORD_VARIABLE: &str = "TAMIZ_KAFKA_PASSWORD";
/// Environment variable with the secret that tokens are fetched with.
pub const CLIENT_SECRET_VARIABLE: &str = "TAMIZ_KAFKA_CLIENT_SECRET";
/// Environment variable with the password of the client's key.
pub const KEY_PASSWORD_VARIABLE: &str = "TAMIZ_KAFKA_KEY_PASSWORD";

/// The `[source.kafka.tls]` section.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// Encrypt, and check the broker's certificate and name.
    pub enabled: bool,
    /// Trusted authorities, PEM; empty for the system's.
    pub ca_file: String,
    /// The client's certificate and what leads to its authority, PEM.
    pub certificate_file: String,
    /// Its key, PEM.
    pub key_file: String,
    /// File with the key's password.
    pub key_password_file: String,
}

/// How to log in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mechanism {
    /// Not at all.
    #[default]
    #[serde(rename = "")]
    None,
    /// User and password, sent as they are.
    Plain,
    /// User and password, proved without sending them.
    #[serde(rename = "scram_sha_256")]
    ScramSha256,
    /// As SCRAM-SHA-256, with the longer hash.
    #[serde(rename = "scram_sha_512")]
    ScramSha512,
    /// A token that is fetched anew before it expires.
    Oauthbearer,
}

impl Mechanism {
    /// Kafka's name.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Mechanism::None => None,
            Mechanism::Plain => Some("PLAIN"),
            Mechanism::ScramSha256 => Some("SCRAM-SHA-256"),
            Mechanism::ScramSha512 => Some("SCRAM-SHA-512"),
            Mechanism::Oauthbearer => Some("OAUTHBEARER"),
        }
    }

    /// Whether a password goes with it.
    pub fn has_password(self) -> bool {
        matches!(self, Mechanism::Plain | Mechanism::ScramSha256 | Mechanism::ScramSha512)
    }

    /// Whether one who listens gets what lets him in.
    fn shows_secret(self) -> bool {
        matches!(self, Mechanism::Plain | Mechanism::Oauthbearer)
    }
}

/// The `[source.kafka.sasl]` section.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SaslConfig {
    /// How to log in.
    pub mechanism: Mechanism,
    /// The user of PLAIN and SCRAM.
    pub username: String,
    /// File with the password.
    pub password_file: String,
    /// Allows mechanisms without TLS that show the secret to all who listen.
    pub allow_without_tls: bool,
    /// Where tokens are fetched (OAuth 2, client credentials).
    pub token_endpoint: String,
    /// Who fetches tokens.
    pub client_id: String,
    /// File with the secret of `client_id`.
    pub client_secret_file: String,
    /// What tokens are asked for.
    pub scope: String,
    /// Authorities trusted for the token endpoint beside the system's, PEM.
    pub token_ca_file: String,
    /// File that always holds a valid token.
    pub token_file: String,
}

/// Options that have a place of their own in the configuration.
const ELSEWHERE: [(&str, &str); 8] = [
    ("bootstrap.servers", "source.kafka.brokers"),
    ("metadata.broker.list", "source.kafka.brokers"),
    ("group.id", "source.kafka.group"),
    ("group.protocol", "source.kafka.group_protocol"),
    (
        "security.protocol",
        "source.kafka.tls.enabled` and `source.kafka.sasl.mechanism",
    ),
    ("sasl.mechanism", "source.kafka.sasl.mechanism"),
    ("sasl.mechanisms", "source.kafka.sasl.mechanism"),
    ("sasl.username", "source.kafka.sasl.username"),
];

/// What an option that is a secret is to be replaced by; `None` for other options.
fn cure_of_secret(name: &str) -> Option<String> {
    let by = |variable: &str, key: &str| format!("set {variable}, or name a file with it in `source.kafka.{key}`");
    match name {
        "sasl.password" => Some(by(PASSWORD_VARIABLE, "sasl.password_file")),
        "ssl.key.password" => Some(by(KEY_PASSWORD_VARIABLE, "tls.key_password_file")),
        "sasl.oauthbearer.client.secret" | "sasl.oauthbearer.client.credentials.client.secret" => {
            Some(by(CLIENT_SECRET_VARIABLE, "sasl.client_secret_file"))
        }
        "ssl.key.pem" => Some("name a file with the key in `source.kafka.tls.key_file`".into()),
        "ssl.keystore.password" | "ssl.truststore.password" => Some(
            "use PEM files instead of a keystore: `source.kafka.tls.certificate_file`, `key_file` and `ca_file`".into(),
        ),
        name if [
            "password",
            "passwd",
            "secret",
            "passphrase",
            "key.pem",
            "oauthbearer.config",
        ]
        .iter()
        .any(|word| name.contains(word)) =>
        {
            Some("take the option out".into())
        }
        _ => None,
    }
}

impl KafkaConfig {
    /// What contradicts itself in the sections about security and in `options`; opens no file.
    pub fn security_problems(&self) -> Vec<Problem> {
        let mut found = Vec::new();
        let mut wrong = |key: &str, message: String| {
            found.push(Problem {
                key: format!("source.kafka.{key}"),
                message,
            })
        };
        for name in self.options.keys() {
            if let Some(cure) = cure_of_secret(name) {
                wrong(
                    &format!("options.{name}"),
                    format!("secrets do not belong in a configuration file: {cure}"),
                );
            } else if let Some((_, place)) = ELSEWHERE.iter().find(|(option, _)| option == name) {
                wrong(
                    &format!("options.{name}"),
                    format!("this is set by `{place}`: take the option out"),
                );
            }
        }
        self.tls_problems(&mut wrong);
        self.sasl_problems(&mut wrong);
        found
    }

    fn tls_problems(&self, wrong: &mut impl FnMut(&str, String)) {
        let tls = &self.tls;
        let files = [
            ("ca_file", &tls.ca_file),
            ("certificate_file", &tls.certificate_file),
            ("key_file", &tls.key_file),
            ("key_password_file", &tls.key_password_file),
        ];
        if !tls.enabled {
            for (name, _) in files.into_iter().filter(|(_, file)| !file.is_empty()) {
                wrong(
                    &format!("tls.{name}"),
                    "TLS is off: set `source.kafka.tls.enabled = true`, or take the file out".into(),
                );
            }
        } else if tls.certificate_file.is_empty() != tls.key_file.is_empty() {
            wrong(
                "tls.certificate_file",
                "a certificate and its key go together: name both `certificate_file` and `key_file`".into(),
            );
        }
    }

    fn sasl_problems(&self, wrong: &mut impl FnMut(&str, String)) {
        let sasl = &self.sasl;
        let Some(name) = sasl.mechanism.name() else {
            if !sasl.username.is_empty() || !sasl.token_endpoint.is_empty() || !sasl.token_file.is_empty() {
                wrong(
                    "sasl.mechanism",
                    "nobody logs in without a mechanism: name one, as scram_sha_512, or empty the section".into(),
                );
            }
            return;
        };
        if sasl.mechanism.has_password() && sasl.username.is_empty() {
            wrong("sasl.username", format!("{name} needs a user: name one"));
        }
        if sasl.mechanism.shows_secret() && !self.tls.enabled && !sasl.allow_without_tls {
            wrong(
                "sasl.mechanism",
                format!(
                    "{name} without TLS shows the secret to all who listen: set `source.kafka.tls.enabled = true` (or, \
                     where nobody can listen, `source.kafka.sasl.allow_without_tls = true`)"
                ),
            );
        }
        if sasl.mechanism == Mechanism::Oauthbearer {
            self.token_problems(wrong);
        }
    }

    fn token_problems(&self, wrong: &mut impl FnMut(&str, String)) {
        let sasl = &self.sasl;
        match (sasl.token_endpoint.is_empty(), sasl.token_file.is_empty()) {
            (true, true) | (false, false) => {
                return wrong(
                    "sasl.token_endpoint",
                    "name where tokens come from: either `token_endpoint` or `token_file`".into(),
                );
            }
            (true, false) => return,
            (false, true) => {}
        }
        if sasl.client_id.is_empty() {
            wrong(
                "sasl.client_id",
                "the token endpoint wants to know who asks: name the client".into(),
            );
        }
        if let Err(message) = crate::http::check_address(&sasl.token_endpoint, !sasl.allow_without_tls) {
            wrong("sasl.token_endpoint", message);
        }
    }
}
