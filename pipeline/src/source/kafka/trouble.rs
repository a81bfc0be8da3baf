//! Why a broker does not want us, read from librdkafka's words, and what to do about it.

use rdkafka::error::RDKafkaErrorCode;

use super::guard::Party;
use super::security::Mechanism;

/// Something that trying again does not mend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trouble {
    /// `host:port`, where librdkafka names it.
    pub(super) broker: Option<String>,
    pub(super) kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// User, password or token is wrong.
    Login,
    /// The mechanism is not offered; these are.
    Mechanism(String),
    /// The listener knows no login.
    NoLogin,
    /// The broker hangs up on one who does not log in.
    LoginWanted,
    /// The broker's certificate is not trusted.
    Certificate,
    /// The broker wants a certificate of ours, or another one.
    OwnCertificate,
    /// TLS was spoken to a port without it.
    PlainPort,
    /// A port with TLS was spoken to without it.
    TlsPort,
    /// No agreement on how to encrypt; OpenSSL's words.
    Handshake(String),
    /// No token is to be had.
    Token(String),
}

impl Trouble {
    /// What librdkafka says, where it is of this sort; the words are those of librdkafka 2.12 and OpenSSL 3.
    pub(super) fn read(code: Option<RDKafkaErrorCode>, reason: &str) -> Option<Trouble> {
        let kind = match code? {
            RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed => login(reason),
            RDKafkaErrorCode::SSL => tls(reason),
            _ if reason.contains("PLAINTEXT broker listener?") => Kind::PlainPort,
            _ if is_alert(reason) => Kind::OwnCertificate,
            _ => return None,
        };
        Some(Trouble {
            broker: broker(reason),
            kind,
        })
    }

    /// What a hang-up in librdkafka's log means, where it tells something.
    pub(super) fn of_hang_up(message: &str, mechanism: Mechanism) -> Option<Trouble> {
        let (words, (_, state)) = (message, message.rsplit_once(" in state ")?);
        if !words.contains("Disconnected") {
            return None;
        }
        let (tls, state) = (words.contains("ssl://"), state.split([',', ')']).next()?);
        let kind = match state {
            // The first question to a broker is about versions. A TLS listener closes on what is no handshake.
            "APIVERSION_QUERY" if !tls => Kind::TlsPort,
            // The next question is refused by one who wants a login first.
            "UP" if mechanism == Mechanism::None => Kind::LoginWanted,
            _ => return None,
        };
        Some(Trouble {
            broker: broker(message),
            kind,
        })
    }

    /// One sentence: what is wrong at which broker, and what to do.
    pub(super) fn explain(&self, party: &Party) -> String {
        let at = self.broker.as_deref().unwrap_or(&party.brokers);
        let name = party.mechanism.name().unwrap_or("no mechanism");
        match &self.kind {
            Kind::Login if party.mechanism == Mechanism::Oauthbearer => format!(
                "the broker at {at} refuses the token: check that it is made for this cluster (issuer, audience, scope) and \
                 that clocks agree"
            ),
            Kind::Login => format!(
                "the broker at {at} refuses the login of `{}` by {name}: check `source.kafka.sasl.username` and the password",
                party.username
            ),
            Kind::Mechanism(offered) => {
                format!("the broker at {at} does not offer {name} but {offered}: mend `source.kafka.sasl.mechanism`")
            }
            Kind::NoLogin => format!(
                "the broker at {at} knows no login on this port: name a SASL listener in `source.kafka.brokers`, or empty \
                 `source.kafka.sasl.mechanism`"
            ),
            Kind::LoginWanted => format!(
                "the broker at {at} hangs up after the connection is made: if it wants a login, set \
                 `source.kafka.sasl.mechanism`; if it speaks TLS, set `source.kafka.tls.enabled = true`"
            ),
            Kind::Certificate => match &party.probe {
                Some(probe) => probe.explain(at),
                None => {
                    format!("the certificate of the broker at {at} is not trusted: check `source.kafka.tls.ca_file`")
                }
            },
            Kind::OwnCertificate if party.own_certificate => format!(
                "the broker at {at} refuses our certificate: check that an authority it trusts has signed \
                 `source.kafka.tls.certificate_file` and that it is not expired"
            ),
            Kind::OwnCertificate => format!(
                "the broker at {at} asks for a certificate of ours: name one in `source.kafka.tls.certificate_file` and its \
                 key in `key_file`, or name another listener in `source.kafka.brokers`"
            ),
            Kind::PlainPort => format!(
                "{at} hangs up when TLS begins, as a listener without TLS does: name the TLS listener in \
                 `source.kafka.brokers`, or set `source.kafka.tls.enabled = false`"
            ),
            Kind::TlsPort => format!(
                "{at} hangs up on a connection without TLS, as a TLS listener does: set `source.kafka.tls.enabled = true`, or \
                 name another listener in `source.kafka.brokers`"
            ),
            Kind::Handshake(words) => format!(
                "no TLS connection to {at} ({words}): check that this is a TLS listener and which versions and ciphers it allows"
            ),
            Kind::Token(words) => words.clone(),
        }
    }
}

fn login(reason: &str) -> Kind {
    if let Some((_, words)) = reason.split_once("Failed to acquire SASL OAUTHBEARER token: ") {
        return Kind::Token(words.to_owned());
    }
    if let Some((_, offered)) = reason.split_once("broker's supported mechanisms: ") {
        let offered = offered.split(" (after").next().unwrap_or_default().trim();
        return match offered {
            "" => Kind::NoLogin,
            some => Kind::Mechanism(some.replace(',', ", ")),
        };
    }
    Kind::Login
}

fn tls(reason: &str) -> Kind {
    if reason.contains("certificate verify failed") || reason.contains("verify broker certificate") {
        return Kind::Certificate;
    }
    if is_alert(reason) {
        return Kind::OwnCertificate;
    }
    if reason.contains("wrong version number") || reason.contains("PLAINTEXT broker listener?") {
        return Kind::PlainPort;
    }
    let words = reason.split("routines::").nth(1).unwrap_or("the handshake failed");
    Kind::Handshake(
        words
            .split(" (after")
            .next()
            .unwrap_or(words)
            .trim_matches([':', ' '])
            .to_owned(),
    )
}

/// TLS 1.3 tells only after the handshake that the client's certificate is missing or not liked.
fn is_alert(reason: &str) -> bool {
    let alerts = [
        "certificate required",
        "bad certificate",
        "unknown ca",
        "certificate unknown",
        "certificate expired",
    ];
    reason.contains("alert") && alerts.iter().any(|alert| reason.contains(alert))
}

/// The `host:port` in `sasl_ssl://host:port/bootstrap: …`, with or without what comes before.
fn broker(reason: &str) -> Option<String> {
    let reason = match reason.strip_prefix("[thrd:") {
        Some(log) => log.split_once("]: ")?.1,
        None => reason,
    };
    let (name, _) = reason
        .split_once('/')
        .map(|(scheme, rest)| match rest.strip_prefix('/') {
            Some(rest) => rest.split_once('/').unwrap_or((rest, "")),
            None => (scheme, rest),
        })?;
    let address = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
    (name.contains(':') && name.chars().all(address)).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(code: RDKafkaErrorCode, reason: &str, broker: Option<&str>, kind: Option<Kind>) {
        let read = Trouble::read(Some(code), reason);
        let wanted = kind.map(|kind| Trouble {
            broker: broker.map(str::to_owned),
            kind,
        });
        assert_eq!(read, wanted, "{reason}");
    }

    /// Words of librdkafka 2.12.1 with OpenSSL 3.0, as they were seen.
    #[test]
    fn librdkafkas_words_are_understood() {
        use RDKafkaErrorCode::{Authentication, BrokerTransportFailure, SSL};
        let at = "sasl_ssl://127.0.0.1:9093/bootstrap: ";
        let host = Some("127.0.0.1:9093");
        let told = |words: &str| format!("{at}{words}");
        check(
            Authentication,
            &told("SASL authentication error: Authentication failed during authentication due to invalid credentials"),
            host,
            Some(Kind::Login),
        );
        check(
            Authentication,
            &told(
                "SASL PLAIN mechanism handshake failed: Broker: Unsupported SASL mechanism: broker's supported mechanisms: SCRAM-SHA-512,X (after 2ms in state AUTH_HANDSHAKE)",
            ),
            host,
            Some(Kind::Mechanism("SCRAM-SHA-512, X".into())),
        );
        check(
            SSL,
            &told(
                "SSL handshake failed: error:0A000086:SSL routines::certificate verify failed: broker certificate could not be verified (after 1ms in state SSL_HANDSHAKE)",
            ),
            host,
            Some(Kind::Certificate),
        );
        check(
            BrokerTransportFailure,
            &told(
                "SSL handshake failed: Disconnected: connection closed by peer: connecting to a PLAINTEXT broker listener? (after 1ms in state SSL_HANDSHAKE)",
            ),
            host,
            Some(Kind::PlainPort),
        );
        check(
            Authentication,
            "Failed to acquire SASL OAUTHBEARER token: no token in `x`",
            None,
            Some(Kind::Token("no token in `x`".into())),
        );
        check(
            BrokerTransportFailure,
            "127.0.0.1:1/bootstrap: Connect to ipv4#127.0.0.1:1 failed: Connection refused",
            None,
            None,
        );
    }

    #[test]
    fn hang_ups_are_understood_by_the_moment_at_which_they_come() {
        let thread = |name: &str| format!("[thrd:{name}/bootstrap]: {name}/bootstrap: Disconnected: closed by peer ");
        let open =
            thread("broker.example:9092") + "(after 1ms in state APIVERSION_QUERY, 1 identical error(s) suppressed)";
        let found = Trouble::of_hang_up(&open, Mechanism::None).unwrap();
        assert_eq!(
            (found.broker.as_deref(), found.kind),
            (Some("broker.example:9092"), Kind::TlsPort)
        );
        let up = thread("ssl://[::1]:9092") + "(after 0ms in state UP)";
        let found = Trouble::of_hang_up(&up, Mechanism::None).unwrap();
        assert_eq!(
            (found.broker.as_deref(), found.kind),
            (Some("[::1]:9092"), Kind::LoginWanted)
        );
        assert_eq!(Trouble::of_hang_up(&up, Mechanism::Plain), None);
        let refused =
            "[thrd:h:1/bootstrap]: h:1/bootstrap: Connect to ipv4#1.2.3.4:1 failed (after 0ms in state CONNECT)";
        assert_eq!(Trouble::of_hang_up(refused, Mechanism::None), None);
    }
}
