//! From the configuration to what a client of Kafka needs: librdkafka's options with the secrets in them, and tokens.
//!
//! Architecture Invariant: secrets come from the environment or from files and go to librdkafka and the token endpoint
//! only. No error quotes one.

use std::sync::Arc;

use openssl::pkey::{PKey, Private};
use openssl::x509::X509;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaConfRes;

use super::config::KafkaConfig;
use super::guard::{Guard, Party};
use super::security::{CLIENT_SECRET_VARIABLE, KEY_PASSWORD_VARIABLE, Mechanism, PASSWORD_VARIABLE};
use super::tokens::Tokens;
use crate::config::{ConfigError, Problem, secret};
use crate::source::SourceError;

/// How to reach the cluster. Every client of ours is made from one.
#[derive(Clone)]
pub struct Access {
    client: ClientConfig,
    party: Arc<Party>,
    tokens: Option<Arc<Tokens>>,
}

impl Access {
    /// librdkafka's options; secrets are among them.
    pub fn config(&self) -> &ClientConfig {
        &self.client
    }

    /// The same, with further options of one kind of client.
    pub fn config_mut(&mut self) -> &mut ClientConfig {
        &mut self.client
    }

    /// What a client's context needs to tell trouble and to fetch tokens.
    pub fn guard(&self) -> Guard {
        Guard::new(Arc::clone(&self.party), self.tokens.clone())
    }

    /// Makes a client. It connects by itself; [`Guard::ask`] tells whether it could.
    ///
    /// # Errors
    /// librdkafka refuses options that contradict each other, or a file.
    pub fn open<C, T>(&self, context: C) -> Result<T, SourceError>
    where
        C: rdkafka::ClientContext,
        T: FromClientConfigAndContext<C>,
    {
        self.client
            .create_with_context(context)
            .map_err(|error| problem("source.kafka", refusal(&error)).into())
    }
}

fn problem(key: &str, message: String) -> ConfigError {
    ConfigError(vec![Problem {
        key: key.into(),
        message,
    }])
}

/// librdkafka's words for what it refuses. Values are left out where it does not know the option: anything may stand there.
fn refusal(error: &KafkaError) -> String {
    match error {
        KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, _, name, _) => {
            format!(
                "librdkafka knows no option `{name}`: mend the name (its CONFIGURATION.md lists all), or take it out"
            )
        }
        KafkaError::ClientConfig(_, words, ..) | KafkaError::ClientCreation(words) => {
            format!("librdkafka refuses this: {words}")
        }
        other => format!("librdkafka refuses this: {other}"),
    }
}

/// What is wrong with one of the options that are passed through.
pub(super) fn option_problem(name: &str, value: &str) -> Option<String> {
    let mut alone = ClientConfig::new();
    alone.set(name, value);
    alone.create_native_config().err().map(|error| refusal(&error))
}

/// Whether librdkafka was built with a feature.
fn built_with(feature: &str) -> bool {
    let features = ClientConfig::new()
        .create_native_config()
        .and_then(|config| config.get("builtin.features"));
    features.is_ok_and(|all| all.split(',').any(|one| one.trim() == feature))
}

impl KafkaConfig {
    /// All that a producer, a consumer or a check needs to reach the cluster. Reads secrets and certificates.
    ///
    /// # Errors
    /// Every problem of the sections about security, a secret that is missing, a file that cannot be used.
    pub fn client(&self) -> Result<Access, ConfigError> {
        let mut problems = self.security_problems();
        let mut client = self.plain_client();
        let mut found = |key: &str, result: Result<(), String>| {
            if let Err(message) = result {
                problems.push(Problem {
                    key: format!("source.kafka.{key}"),
                    message,
                });
            }
        };
        found("tls", self.encrypt(&mut client));
        let mut tokens = None;
        match self.log_in(&mut client) {
            Ok(some) => tokens = some.map(Arc::new),
            Err(message) => found("sasl", Err(message)),
        }
        if !problems.is_empty() {
            return Err(ConfigError(problems));
        }
        let party = Arc::new(Party::new(self, &client));
        Ok(Access { client, party, tokens })
    }

    /// The protocol, certificates and keys.
    fn encrypt(&self, client: &mut ClientConfig) -> Result<(), String> {
        let protocol = match (self.tls.enabled, self.sasl.mechanism) {
            (false, Mechanism::None) => "plaintext",
            (true, Mechanism::None) => "ssl",
            (false, _) => "sasl_plaintext",
            (true, _) => "sasl_ssl",
        };
        client.set("security.protocol", protocol);
        if !self.tls.enabled {
            return Ok(());
        }
        if !built_with("ssl") {
            return Err("this tamiz was built without TLS: build it where OpenSSL's headers are (libssl-dev)".into());
        }
        if !self.tls.ca_file.is_empty() {
            certificates(&self.tls.ca_file, "ca_file")?;
            client.set("ssl.ca.location", &self.tls.ca_file);
        }
        if self.tls.certificate_file.is_empty() || self.tls.key_file.is_empty() {
            return Ok(());
        }
        let password = secret(KEY_PASSWORD_VARIABLE, &self.tls.key_password_file)?;
        let chain = certificates(&self.tls.certificate_file, "certificate_file")?;
        let key = key(&self.tls.key_file, password.as_deref())?;
        let belongs = |own: &X509| own.public_key().is_ok_and(|public| public.public_eq(&key));
        if !chain.first().is_some_and(belongs) {
            return Err(format!(
                "the key in `{}` is not that of the first certificate in `{}`: name files that go together",
                self.tls.key_file, self.tls.certificate_file
            ));
        }
        client.set("ssl.certificate.location", &self.tls.certificate_file);
        client.set("ssl.key.location", &self.tls.key_file);
        if let Some(password) = password {
            client.set("ssl.key.password", password);
        }
        Ok(())
    }

    /// Mechanism, user and password, or where tokens come from.
    fn log_in(&self, client: &mut ClientConfig) -> Result<Option<Tokens>, String> {
        let sasl = &self.sasl;
        let Some(name) = sasl.mechanism.name() else {
            return Ok(None);
        };
        let feature = match sasl.mechanism {
            Mechanism::Plain => "sasl_plain",
            Mechanism::Oauthbearer => "sasl_oauthbearer",
            _ => "sasl_scram",
        };
        if !built_with(feature) {
            return Err(format!(
                "this tamiz was built without {name}: build it where OpenSSL's headers are (libssl-dev)"
            ));
        }
        client.set("sasl.mechanism", name);
        if sasl.mechanism == Mechanism::Oauthbearer {
            if sasl.token_endpoint.is_empty() {
                return Ok(Some(Tokens::from_file(&sasl.token_file)));
            }
            let secret = secret(CLIENT_SECRET_VARIABLE, &sasl.client_secret_file)?.ok_or_else(|| {
                format!(
                    "the secret of `client_id` is missing: set {CLIENT_SECRET_VARIABLE}, or name a `client_secret_file`"
                )
            })?;
            return Tokens::from_endpoint(sasl, secret).map(Some);
        }
        let password = secret(PASSWORD_VARIABLE, &sasl.password_file)?.ok_or_else(|| {
            format!(
                "the password of `{}` is missing: set {PASSWORD_VARIABLE}, or name a `password_file`",
                sasl.username
            )
        })?;
        client
            .set("sasl.username", &sasl.username)
            .set("sasl.password", password);
        Ok(None)
    }
}

fn read(path: &str, option: &str) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("cannot read `{option}` `{path}`: {error}"))
}

fn certificates(path: &str, option: &str) -> Result<Vec<X509>, String> {
    let found = X509::stack_from_pem(&read(path, option)?).unwrap_or_default();
    if found.is_empty() {
        return Err(format!(
            "`{option}` `{path}` holds no certificate in PEM: convert it with openssl"
        ));
    }
    Ok(found)
}

fn key(path: &str, password: Option<&str>) -> Result<PKey<Private>, String> {
    let pem = read(path, "key_file")?;
    // The password is always given, be it an empty one: without it OpenSSL would ask for it on the terminal.
    PKey::private_key_from_pem_passphrase(&pem, password.unwrap_or_default().as_bytes()).map_err(|_| {
        let cure = match password {
            Some(_) => "check that it is a key in PEM and that its password is right",
            None => "check that it is a key in PEM, and give its password if it has one",
        };
        format!("cannot open `key_file` `{path}`: {cure} ({KEY_PASSWORD_VARIABLE} or `key_password_file`)")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn librdkafka_was_built_with_all_that_the_configuration_offers() {
        for feature in [
            "ssl",
            "sasl_plain",
            "sasl_scram",
            "sasl_oauthbearer",
            "zstd",
            "lz4",
            "gzip",
            "snappy",
        ] {
            assert!(built_with(feature), "{feature}");
        }
        assert!(!built_with("sasl_telepathy"));
    }

    #[test]
    fn an_option_that_librdkafka_does_not_know_is_told_without_its_value() {
        assert_eq!(option_problem("fetch.min.bytes", "65536"), None);
        let unknown = option_problem("sasl.pasword", "hunter2").unwrap();
        assert!(
            unknown.contains("`sasl.pasword`") && !unknown.contains("hunter2"),
            "{unknown}"
        );
        let wrong = option_problem("fetch.min.bytes", "many").unwrap();
        assert!(wrong.contains("fetch.min.bytes"), "{wrong}");
    }
}
