//! The registry's HTTP interface: a schema by its number, and the schemas that it refers to.

use std::collections::BTreeSet;

use reqwest::StatusCode;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tamiz_schemas::format::RegistryConfig;

use crate::config::secret;
use crate::http;

/// Environment variable with the password of the registry's user.
pub const PASSWORD_VARIABLE: &str = "TAMIZ_REGISTRY_PASSWORD";

/// A schema and its references are never longer, each.
const MAX_BYTES: usize = 1 << 20;
/// Schemas that one schema refers to, directly or not.
const MAX_REFERENCES: usize = 200;

/// Asks the registry.
#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    base: String,
    login: Option<(String, String)>,
}

/// A schema as it is registered.
#[derive(Debug)]
pub(super) struct Registered {
    /// `AVRO`, `PROTOBUF` or `JSON`.
    pub(super) kind: String,
    pub(super) text: String,
    /// Name and text of each schema that it refers to, those first that others need.
    pub(super) references: Vec<(String, String)>,
}

/// Why there is no schema.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The registry is away, or busy: it will be asked again.
    Away(String),
    /// It does not let us in.
    Refused(String),
    /// The schema is there and cannot be used.
    Unusable(String),
}

impl Trouble {
    pub(super) fn into_words(self) -> String {
        match self {
            Trouble::Away(words) | Trouble::Refused(words) | Trouble::Unusable(words) => words,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    schema: String,
    /// Not told for Avro.
    schema_type: Option<String>,
    #[serde(default)]
    references: Vec<Reference>,
}

#[derive(Deserialize)]
struct Reference {
    name: String,
    subject: String,
    version: u32,
}

#[derive(Deserialize)]
struct Refusal {
    #[serde(rename = "error_code")]
    _code: u32,
}

impl Client {
    pub(super) fn new(config: &RegistryConfig) -> Result<Self, String> {
        let login = if config.username.is_empty() {
            None
        } else {
            let password = secret(PASSWORD_VARIABLE, &config.password_file)?.ok_or_else(|| {
                format!(
                    "the password of `{}` is missing: set {PASSWORD_VARIABLE}, or name a `password_file`",
                    config.username
                )
            })?;
            Some((config.username.clone(), password))
        };
        Ok(Client {
            http: http::client(&config.ca_file)?,
            base: config.url.trim_end_matches('/').to_owned(),
            login,
        })
    }

    pub(super) fn address(&self) -> &str {
        &self.base
    }

    /// Whether a registry is there and lets us in.
    pub(super) async fn greet(&self) -> Result<(), Trouble> {
        match self.get::<Vec<String>>("/schemas/types").await? {
            Some(_) => Ok(()),
            None => Err(Trouble::Refused(format!(
                "the schema registry at {} does not let us in: check what `input.registry.username` may read",
                self.base
            ))),
        }
    }

    /// The schema of a number; `None` where there is none.
    pub(super) async fn schema(&self, number: u32) -> Result<Option<Registered>, Trouble> {
        // Registries count in 31 bits, payloads claim what they like: beyond that there is nothing to ask for.
        if i32::try_from(number).is_err() {
            return Ok(None);
        }
        let Some(answer) = self.get::<Answer>(&format!("/schemas/ids/{number}")).await? else {
            return Ok(None);
        };
        let references = self.references(answer.references).await?;
        Ok(Some(Registered {
            kind: answer.schema_type.unwrap_or_else(|| "AVRO".into()),
            text: answer.schema,
            references,
        }))
    }

    /// All that is referred to, the innermost first.
    async fn references(&self, wanted: Vec<Reference>) -> Result<Vec<(String, String)>, Trouble> {
        let mut found = Vec::new();
        let mut seen = BTreeSet::new();
        let mut open = wanted;
        while let Some(reference) = open.pop() {
            if !seen.insert((reference.subject.clone(), reference.version)) {
                continue;
            }
            if seen.len() > MAX_REFERENCES {
                return Err(Trouble::Unusable(format!(
                    "it refers to more than {MAX_REFERENCES} schemas"
                )));
            }
            let subject: String = url::form_urlencoded::byte_serialize(reference.subject.as_bytes()).collect();
            // In a path a blank is no plus.
            let path = format!(
                "/subjects/{}/versions/{}",
                subject.replace('+', "%20"),
                reference.version
            );
            let Some(answer) = self.get::<Answer>(&path).await? else {
                return Err(Trouble::Unusable("a schema that it refers to is not registered".into()));
            };
            found.push((reference.name, answer.schema));
            open.extend(answer.references);
        }
        found.reverse();
        Ok(found)
    }

    /// An answer; `None` where the registry has none of that name, or none for us.
    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, Trouble> {
        let at = &self.base;
        let mut request = self.http.get(format!("{at}{path}"));
        request = request.header("accept", "application/vnd.schemaregistry.v1+json, application/json");
        if let Some((user, password)) = &self.login {
            request = request.basic_auth(user, Some(password));
        }
        let away = |words: String| Trouble::Away(format!("no schema from {at}: {words}"));
        let response = request.send().await.map_err(http::broken).map_err(away)?;
        let known = knows(response.status(), at)?;
        let body = http::body(response, MAX_BYTES).await;
        let body = body.map_err(|words| match words {
            words if words.contains("longer than") => Trouble::Unusable(words),
            words => away(words),
        })?;
        // What is no registry at all will not become one by asking again.
        let stranger = |_| {
            Trouble::Refused(format!(
                "what answers at {at} is no schema registry: check `input.registry.url`"
            ))
        };
        if known {
            return serde_json::from_slice(&body).map(Some).map_err(stranger);
        }
        // A registry says by its own code that it has none; a web server that knows no such page does not.
        serde_json::from_slice::<Refusal>(&body).map(|_| None).map_err(stranger)
    }
}

/// Whether a registry that answers so has what was asked for.
///
/// # Errors
/// It will not answer, now or ever.
fn knows(status: StatusCode, at: &str) -> Result<bool, Trouble> {
    match status {
        StatusCode::OK => Ok(true),
        // Some registries call a number bad that they do not have.
        StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND | StatusCode::FORBIDDEN | StatusCode::UNPROCESSABLE_ENTITY => {
            Ok(false)
        }
        StatusCode::UNAUTHORIZED => Err(Trouble::Refused(format!(
            "the schema registry at {at} refuses the login ({status}): check `input.registry.username` and the password"
        ))),
        status if status.is_redirection() => Err(Trouble::Refused(format!(
            "the schema registry at {at} sends us elsewhere ({status}): write the right address into \
             `input.registry.url`"
        ))),
        // It will say the same however often it is asked.
        status if status.is_client_error() && !is_passing(status) => Err(Trouble::Refused(format!(
            "the schema registry at {at} refuses what it is asked ({status}): check `input.registry.url` and what stands \
             before it"
        ))),
        status => Err(Trouble::Away(format!("no schema from {at}: it answers {status}"))),
    }
}

/// Request timeout, too early, too many requests: of the moment.
fn is_passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 425 | 429)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_passes_is_asked_for_again() {
        for (status, expected) in [
            (200, "known"),
            (400, "unknown"),
            (403, "unknown"),
            (404, "unknown"),
            (422, "unknown"),
            (301, "refused"),
            (401, "refused"),
            (405, "refused"),
            (406, "refused"),
            (410, "refused"),
            (408, "away"),
            (425, "away"),
            (429, "away"),
            (500, "away"),
            (503, "away"),
        ] {
            let told = match knows(StatusCode::from_u16(status).unwrap(), "here") {
                Ok(true) => "known",
                Ok(false) => "unknown",
                Err(Trouble::Refused(_)) => "refused",
                Err(Trouble::Away(_)) => "away",
                Err(Trouble::Unusable(_)) => "unusable",
            };
            assert_eq!(told, expected, "{status}");
        }
    }

    #[tokio::test]
    async fn a_number_that_no_registry_can_have_is_unknown_without_a_question() {
        // Nobody listens there.
        let client = Client::new(&RegistryConfig {
            url: "http://127.0.0.1:1".into(),
            ..RegistryConfig::default()
        })
        .unwrap();
        for number in [u32::MAX, 1 << 31] {
            assert!(matches!(client.schema(number).await, Ok(None)), "{number}");
        }
    }
}
