//! What every client of Kafka has in common: it hears why brokers cannot be reached, says so in one sentence, and
//! fetches tokens when librdkafka wants one.
//!
//! librdkafka tries for ever and tells its trouble through a callback that is only called while someone polls. So a
//! question to the broker is asked in short turns, with polling between them ([`Guard::ask`]); that is also when the
//! first token is fetched, without which no connection is made at all.

use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::client::OAuthToken;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::BROKER_TIMEOUT;
use super::config::KafkaConfig;
use super::probe::Probe;
use super::security::Mechanism;
use super::tokens::Tokens;
use super::trouble::{Kind, Trouble};
use crate::source::SourceError;

/// How long a turn of asking takes.
const TURN: Duration = Duration::from_millis(200);
/// How long events are served between turns.
const SERVE: Duration = Duration::from_millis(20);
/// How long another broker, or another address of the same one, may still answer after one has refused us.
const OTHERS_ANSWER: Duration = Duration::from_secs(3);
/// The same where only one is named.
const ONE_ANSWERS: Duration = Duration::from_millis(500);

/// Who talks to whom, for sentences about it.
pub(super) struct Party {
    pub(super) brokers: String,
    pub(super) mechanism: Mechanism,
    pub(super) username: String,
    pub(super) own_certificate: bool,
    pub(super) probe: Option<Probe>,
}

impl Party {
    pub(super) fn new(config: &KafkaConfig, client: &ClientConfig) -> Self {
        Party {
            brokers: config.brokers.clone(),
            mechanism: config.sasl.mechanism,
            username: config.sasl.username.clone(),
            own_certificate: !config.tls.certificate_file.is_empty(),
            probe: config.tls.enabled.then(|| Probe::new(client)),
        }
    }
}

/// The context of a client, or a part of it.
pub struct Guard {
    party: Arc<Party>,
    tokens: Option<Arc<Tokens>>,
    noted: Mutex<Noted>,
}

#[derive(Default)]
struct Noted {
    answered: bool,
    /// Something that trying again does not mend, and when it was first heard.
    refused: Option<(Trouble, Instant)>,
    /// The last trouble of any kind.
    last: Option<String>,
}

impl Noted {
    /// The last trouble counts, from when the first was heard.
    fn refuse(&mut self, trouble: Option<Trouble>) {
        if let Some(trouble) = trouble {
            let since = self.refused.take().map_or_else(Instant::now, |(_, since)| since);
            self.refused = Some((trouble, since));
        }
    }
}

impl Guard {
    pub(super) fn new(party: Arc<Party>, tokens: Option<Arc<Tokens>>) -> Self {
        Guard {
            party,
            tokens,
            noted: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Noted> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hears an error of the client: notes it until a broker has answered, logs it from then on.
    pub fn hear(&self, error: &KafkaError, reason: &str) {
        let code = error.rdkafka_error_code();
        if matches!(error, KafkaError::PartitionEOF(_)) || code == Some(RDKafkaErrorCode::PartitionEOF) {
            return; // the end of a partition is news for the source, not for an operator
        }
        let trouble = Trouble::read(code, reason);
        let token = trouble
            .as_ref()
            .is_some_and(|trouble| matches!(trouble.kind, Kind::Token(_)));
        let mut noted = self.lock();
        if !noted.answered {
            tracing::debug!(%error, reason, "kafka client");
        } else if !token {
            // Trouble with tokens was logged where they are fetched.
            tracing::warn!(%error, reason, "kafka client");
        }
        if code != Some(RDKafkaErrorCode::AllBrokersDown) {
            noted.last = Some(reason.to_owned());
        }
        noted.refuse(trouble);
    }

    /// Hears what librdkafka logs: hang-ups it only logs. The rest goes to our log, but for errors, which are heard apart.
    pub fn hear_log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        use RDKafkaLogLevel::{Debug, Info, Notice, Warning};
        let mut noted = self.lock();
        match level {
            Warning if noted.answered => tracing::warn!("librdkafka: {facility} {message}"),
            Notice | Info if noted.answered => tracing::info!("librdkafka: {facility} {message}"),
            Warning | Notice | Info | Debug => tracing::debug!("librdkafka: {facility} {message}"),
            _ => tracing::trace!("librdkafka: {facility} {message}"),
        }
        if facility == "FAIL" && !noted.answered {
            noted.last = Some(message.to_owned());
            noted.refuse(Trouble::of_hang_up(message, self.party.mechanism));
        }
    }

    /// A token for librdkafka.
    ///
    /// # Errors
    /// In one sentence; librdkafka asks again in ten seconds, and keeps the old token meanwhile.
    pub fn token(&self) -> Result<OAuthToken, Box<dyn Error>> {
        let Some(tokens) = &self.tokens else {
            return Err("no place is named that tokens come from".into());
        };
        tokens.token().map_err(|message| {
            if self.lock().answered {
                tracing::warn!(
                    error = message,
                    "no new token for Kafka: the old one stays in use, trying again in 10 s"
                );
            }
            message.into()
        })
    }

    /// Asks the broker something until it answers. `serve` polls the client.
    ///
    /// # Errors
    /// A sentence that says what to mend, within seconds where brokers refuse us, else when time is up.
    pub fn ask<T>(
        &self,
        serve: impl Fn(Duration),
        question: impl Fn(Duration) -> Result<T, KafkaError>,
    ) -> Result<T, SourceError> {
        let until = Instant::now() + BROKER_TIMEOUT;
        loop {
            serve(SERVE);
            let error = match question(TURN) {
                Ok(answer) => {
                    let mut noted = self.lock();
                    noted.answered = true;
                    noted.refused = None;
                    return Ok(answer);
                }
                Err(error) => error,
            };
            serve(SERVE);
            if let Some(refused) = self.refused() {
                return Err(refused);
            }
            if Instant::now() > until {
                let cause = self.lock().last.clone().unwrap_or_else(|| error.to_string());
                let what = format!(
                    "no broker answers at {}: check `source.kafka.brokers` and that Kafka runs",
                    self.party.brokers
                );
                return Err(SourceError::Kafka { what, cause });
            }
        }
    }

    /// Why brokers refuse us, once no other one is waited for.
    fn refused(&self) -> Option<SourceError> {
        let grace = if self.party.brokers.contains(',') {
            OTHERS_ANSWER
        } else {
            ONE_ANSWERS
        };
        let noted = self.lock();
        let (trouble, since) = noted.refused.clone()?;
        drop(noted);
        (since.elapsed() >= grace).then(|| SourceError::Refused(trouble.explain(&self.party)))
    }

    /// Why a login failed in the middle of a run; `None` where a new token will mend it.
    pub(super) fn login_failed(&self) -> Option<SourceError> {
        if self.party.mechanism == Mechanism::Oauthbearer {
            return None;
        }
        let trouble = self.lock().refused.clone().map(|(trouble, _)| trouble);
        let trouble = trouble.unwrap_or(Trouble {
            broker: None,
            kind: Kind::Login,
        });
        Some(SourceError::Refused(trouble.explain(&self.party)))
    }
}

impl ClientContext for Guard {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.hear_log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.hear(&error, reason);
    }

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        self.token()
    }
}

impl ConsumerContext for Guard {}
