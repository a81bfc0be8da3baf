//! Tokens of OAUTHBEARER: fetched with a client's secret, or read from a file that something else renews.
//!
//! librdkafka asks for a new one when four fifths of the old one's life are over, and again ten seconds after a failure;
//! the old one stays in use meanwhile.
//!
//! Architecture Invariant: neither a token nor a secret is ever logged or told in an error.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rdkafka::client::OAuthToken;
use serde::Deserialize;
use serde_json::Value;
use url::form_urlencoded::{Serializer, byte_serialize};

use super::security::SaslConfig;
use crate::http;

/// An answer of a token endpoint, and a token file, are never longer.
const MAX_BYTES: usize = 256 << 10;
/// How long a token is trusted that does not say when it expires.
const UNTOLD_LIFE_SECONDS: f64 = 300.0;
/// Clients that start at about the same time share a token, up to this part of its life.
const SHARED_LIFE: f64 = 0.6;

/// Whose a token is that does not say so itself; Kafka takes the name from the token.
const OWN_NAME: &str = "tamiz";

/// Where tokens come from.
pub(super) struct Tokens {
    place: Place,
    /// The last one, and until when others may have it too.
    last: Mutex<Option<(Token, i64)>>,
}

enum Place {
    Endpoint {
        address: String,
        client_id: String,
        secret: String,
        scope: String,
        ca_file: String,
    },
    File(PathBuf),
}

#[derive(Clone)]
struct Token {
    value: String,
    principal: String,
    expires_millis: i64,
}

#[derive(Deserialize)]
struct Answer {
    access_token: String,
    expires_in: Option<Value>,
}

impl Tokens {
    pub(super) fn from_file(path: &str) -> Self {
        Tokens {
            place: Place::File(path.into()),
            last: Mutex::default(),
        }
    }

    pub(super) fn from_endpoint(sasl: &SaslConfig, secret: String) -> Result<Self, String> {
        // A wrong file is told now, not at the first token.
        http::client(&sasl.token_ca_file).map_err(|message| format!("`token_ca_file`: {message}"))?;
        Ok(Tokens {
            place: Place::Endpoint {
                address: sasl.token_endpoint.clone(),
                client_id: sasl.client_id.clone(),
                secret,
                scope: sasl.scope.clone(),
                ca_file: sasl.token_ca_file.clone(),
            },
            last: Mutex::default(),
        })
    }

    /// A token that lives for a while. Blocks.
    pub(super) fn token(&self) -> Result<OAuthToken, String> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let now = chrono::Utc::now().timestamp_millis();
        if let Some((token, _)) = last.as_ref().filter(|(_, shared_until)| now < *shared_until) {
            return Ok(token.for_librdkafka());
        }
        let token = match &self.place {
            Place::Endpoint { .. } => blocking(self.fetch())?,
            Place::File(_) => self.read()?,
        };
        let life = token.expires_millis - now;
        if life <= 0 {
            return Err(format!(
                "{} is expired already: have it renewed, or set the clock right",
                self.what()
            ));
        }
        tracing::debug!(seconds = life / 1000, "a new token for Kafka");
        // A file is read anew each time: who renews it decides.
        let shared_until = match self.place {
            Place::Endpoint { .. } => now + (life as f64 * SHARED_LIFE) as i64,
            Place::File(_) => now,
        };
        let fresh = token.for_librdkafka();
        *last = Some((token, shared_until));
        Ok(fresh)
    }

    fn what(&self) -> String {
        match &self.place {
            Place::Endpoint { address, .. } => format!("the token of `{address}`"),
            Place::File(path) => format!("the token in `{}`", path.display()),
        }
    }

    fn read(&self) -> Result<Token, String> {
        let Place::File(path) = &self.place else {
            return Err("there is no token file".into());
        };
        let bytes = std::fs::read(path).map_err(|error| format!("cannot read `{}`: {error}", path.display()))?;
        let text = String::from_utf8(bytes).unwrap_or_default();
        let value = text.trim();
        if value.is_empty() || text.len() > MAX_BYTES {
            return Err(format!("`{}` holds no token", path.display()));
        }
        Ok(Token::new(value.into(), OWN_NAME, None))
    }

    /// What is asked of the endpoint.
    fn request(&self) -> Result<reqwest::RequestBuilder, String> {
        let Place::Endpoint {
            address,
            client_id,
            secret,
            scope,
            ca_file,
        } = &self.place
        else {
            return Err("there is no token endpoint".into());
        };
        let mut form = Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials");
        if !scope.is_empty() {
            form.append_pair("scope", scope);
        }
        // RFC 6749, 2.3.1: both are form-encoded before they are put together.
        let encoded = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
        let pair = STANDARD.encode(format!("{}:{}", encoded(client_id), encoded(secret)));
        Ok(http::client(ca_file)?
            .post(address)
            .header("authorization", format!("Basic {pair}"))
            .header("content-type", "application/x-www-form-urlencoded")
            .header("accept", "application/json")
            .body(form.finish()))
    }

    async fn fetch(&self) -> Result<Token, String> {
        let told = |message: String| format!("no {}: {message}", self.what().trim_start_matches("the "));
        let request = self.request().map_err(told)?;
        let response = request.send().await.map_err(http::broken).map_err(told)?;
        let status = response.status();
        let body = http::body(response, MAX_BYTES).await.map_err(told)?;
        if !status.is_success() {
            return Err(told(refusal(status, &body)));
        }
        let answer: Answer = serde_json::from_slice(&body)
            .map_err(|_| told("the answer is not that of a token endpoint: check `token_endpoint`".into()))?;
        let seconds = answer.expires_in.as_ref().and_then(number);
        let principal = match &self.place {
            Place::Endpoint { client_id, .. } => client_id,
            Place::File(_) => OWN_NAME,
        };
        Ok(Token::new(answer.access_token, principal, seconds))
    }
}

/// What a token endpoint says when it gives none; of its answer only the error code, which the standard fixes.
fn refusal(status: reqwest::StatusCode, body: &[u8]) -> String {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    let code = answer["error"]
        .as_str()
        .filter(|code| code.len() < 40 && code.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
    let code = code.map(|code| format!(", {code}")).unwrap_or_default();
    match status.as_u16() {
        400 | 401 | 403 => format!("it refuses the client ({status}{code}): check `client_id`, its secret and `scope`"),
        404 | 405 => format!("it answers {status}: check `token_endpoint`"),
        _ => format!("it answers {status}{code}"),
    }
}

fn number(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str()?.parse().ok())
}

impl Token {
    /// A token that says itself when it expires and whose it is, or else as told.
    fn new(value: String, principal: &str, seconds: Option<f64>) -> Self {
        let claims = claims(&value);
        let now = chrono::Utc::now().timestamp_millis() as f64;
        let told = now + seconds.unwrap_or(UNTOLD_LIFE_SECONDS) * 1000.0;
        let own = number(&claims["exp"]).map(|seconds| seconds * 1000.0);
        Token {
            expires_millis: own.unwrap_or(told) as i64,
            principal: claims["sub"].as_str().unwrap_or(principal).replace('\0', ""),
            value,
        }
    }

    fn for_librdkafka(&self) -> OAuthToken {
        OAuthToken {
            token: self.value.clone(),
            principal_name: self.principal.clone(),
            lifetime_ms: self.expires_millis,
        }
    }
}

/// The claims of a JSON web token; null where it is none.
fn claims(token: &str) -> Value {
    let middle = token.split('.').nth(1).unwrap_or_default();
    let bytes = URL_SAFE_NO_PAD.decode(middle.trim_end_matches('=')).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

/// Waits on a thread of its own, so that this may be called from a callback, inside a runtime or outside.
fn blocking<T: Send>(future: impl Future<Output = Result<T, String>> + Send) -> Result<T, String> {
    let run = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| format!("no runtime can be made ({error})"))?
            .block_on(future)
    };
    std::thread::scope(|scope| scope.spawn(run).join()).unwrap_or_else(|_| Err("the token's thread died".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jwt(claims: &str) -> String {
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        format!("{}.{}.signature", part("{\"alg\":\"none\"}"), part(claims))
    }

    #[test]
    fn a_token_tells_its_own_end_and_owner() {
        let token = Token::new(jwt("{\"sub\":\"who\",\"exp\":4102444800}"), "other", Some(5.0));
        assert_eq!(
            (token.principal.as_str(), token.expires_millis),
            ("who", 4_102_444_800_000)
        );
        for opaque in ["opaque", "a.b.c", "a.!!.c", ""] {
            let token = Token::new(opaque.into(), "other", Some(5.0));
            let life = token.expires_millis - chrono::Utc::now().timestamp_millis();
            assert_eq!(token.principal, "other");
            assert!((3_000..=5_000).contains(&life), "{opaque}: {life}");
        }
    }

    #[test]
    fn a_token_file_is_read_anew_and_an_expired_token_is_refused_without_being_told() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let tokens = Tokens::from_file(&file.path().display().to_string());
        assert!(tokens.token().is_err());
        for exp in ["4102444800", "4102444801"] {
            let token = jwt(&format!("{{\"exp\":{exp}}}"));
            std::fs::write(file.path(), format!("{token}\n")).unwrap();
            assert_eq!(tokens.token().unwrap().token, token);
        }
        let old = jwt("{\"exp\":1}");
        std::fs::write(file.path(), &old).unwrap();
        let error = tokens.token().map(|_| ()).unwrap_err();
        assert!(error.contains("expired") && !error.contains(&old), "{error}");
    }

    #[test]
    fn of_a_refusal_only_the_standards_code_is_told() {
        let status = reqwest::StatusCode::UNAUTHORIZED;
        let told = refusal(
            status,
            b"{\"error\":\"invalid_client\",\"error_description\":\"secret s3cr3t\"}",
        );
        assert!(told.contains("invalid_client") && !told.contains("s3cr3t"), "{told}");
        assert!(!refusal(status, b"{\"error\":\"Secret s3cr3t\"}").contains("s3cr3t"));
    }
}
