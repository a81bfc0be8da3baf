//! A real Kafka with TLS and logins, made by `scripts/kafka start --secure`; and servers with wrong certificates.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use openssl::asn1::Asn1Time;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::sign::Signer;
use openssl::ssl::{SslAcceptor, SslMethod};
use openssl::x509::extension::SubjectAlternativeName;
use openssl::x509::{X509, X509NameBuilder};

use super::broker::{Broker, Topic};
use super::{root, skipped};

/// The cluster that the tests share.
pub(crate) struct Secure {
    variables: BTreeMap<String, String>,
    /// Cleans up when this process ends, however it ends: it reads a pipe that breaks then.
    _guardian: Child,
}

impl Secure {
    /// The cluster; or a word that the test is skipped, because the servers are other people's.
    pub(crate) fn find() -> Option<&'static Secure> {
        static CLUSTER: OnceLock<Secure> = OnceLock::new();
        let set = |name: &str| std::env::var(name).is_ok_and(|value| !value.is_empty());
        if set("TAMIZ_KAFKA") && !set("TAMIZ_KAFKA_OWN") {
            skipped("TAMIZ_KAFKA names a Kafka of yours, and a secure one is not started beside it");
            return None;
        }
        Some(CLUSTER.get_or_init(Secure::start))
    }

    fn start() -> Secure {
        let folder = tempfile::TempDir::with_prefix("tamiz-secure-").unwrap().keep();
        let script = root().join("scripts/kafka");
        let guardian = Command::new("sh")
            .args(["-c", "cat >/dev/null; \"$0\" clean --dir \"$1\"; rm -rf \"$1\""])
            .args([&script, &folder])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let made = Command::new(&script)
            .args(["start", "--secure", "--port", "auto", "--dir"])
            .arg(&folder)
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let text = std::fs::read_to_string(folder.join("secure.env")).unwrap();
        let lines = text.lines().filter_map(|line| line.split_once('='));
        Secure {
            variables: lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            _guardian: guardian,
        }
    }

    /// A value of `secure.env`.
    pub(crate) fn get(&self, name: &str) -> &str {
        &self.variables[name]
    }

    /// The listener with SASL over TLS.
    pub(crate) fn brokers(&self) -> &str {
        self.get("TAMIZ_SOURCE_KAFKA_BROKERS")
    }

    pub(crate) fn password(&self) -> &str {
        self.get("TAMIZ_KAFKA_PASSWORD")
    }

    /// A new topic, made through the open listener.
    pub(crate) fn topic(&self, partitions: i32) -> Topic {
        let open = Broker {
            servers: self.get("SECURE_OPEN").to_owned(),
        };
        open.topic(partitions, &[])
    }

    /// A `[source.kafka.tls]` section that trusts the cluster.
    pub(crate) fn tls(&self) -> String {
        format!(
            "[source.kafka.tls]\nenabled = true\nca_file = \"{}\"\n",
            self.get("TAMIZ_SOURCE_KAFKA_TLS_CA_FILE")
        )
    }

    /// A token that the broker believes for so long.
    pub(crate) fn token(&self, seconds: i64) -> String {
        let key = std::fs::read(self.get("SECURE_TOKEN_KEY")).unwrap();
        let key = PKey::private_key_from_pem(&key).unwrap();
        let now = chrono::Utc::now().timestamp();
        let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let head = part(serde_json::json!({"alg": "RS256", "kid": "tamiz"}));
        let claims = part(serde_json::json!({
            "sub": "tamiz", "iat": now, "exp": now + seconds,
            "iss": self.get("SECURE_TOKEN_ISSUER"), "aud": self.get("SECURE_TOKEN_AUDIENCE"),
        }));
        let text = format!("{head}.{claims}");
        let mut signer = Signer::new(MessageDigest::sha256(), &key).unwrap();
        let signature = signer.sign_oneshot_to_vec(text.as_bytes()).unwrap();
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// The address of a TLS server with a certificate for `name` that ends so many days from now; the cluster's
    /// authority has signed it, or nobody that anyone knows.
    pub(crate) fn server(&self, name: &str, days: i64, known: bool) -> String {
        let read = |variable: &str| std::fs::read(self.get(variable)).unwrap();
        let authority = X509::from_pem(&read("TAMIZ_SOURCE_KAFKA_TLS_CA_FILE")).unwrap();
        let authority_key = PKey::private_key_from_pem(&read("SECURE_AUTHORITY_KEY")).unwrap();
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
        let key = PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap();
        let signer = if known { &authority_key } else { &key };
        let certificate = certificate(name, days, &key, (&authority, signer));
        let mut acceptor = SslAcceptor::mozilla_intermediate(SslMethod::tls_server()).unwrap();
        acceptor.set_private_key(&key).unwrap();
        acceptor.set_certificate(&certificate).unwrap();
        let acceptor = acceptor.build();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        // It goes with the process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // The client hangs up: that is what the test is about.
                let _ = acceptor.accept(stream);
            }
        });
        address
    }
}

fn certificate(name: &str, days: i64, key: &PKey<Private>, (issuer, signer): (&X509, &PKey<Private>)) -> X509 {
    let now = chrono::Utc::now().timestamp();
    let mut subject = X509NameBuilder::new().unwrap();
    subject.append_entry_by_text("CN", name).unwrap();
    let mut builder = X509::builder().unwrap();
    builder.set_version(2).unwrap();
    builder.set_subject_name(&subject.build()).unwrap();
    builder.set_issuer_name(issuer.subject_name()).unwrap();
    builder.set_pubkey(key).unwrap();
    let at = |days: i64| Asn1Time::from_unix(now + days * 86_400).unwrap();
    builder.set_not_before(&at(-10)).unwrap();
    builder.set_not_after(&at(days)).unwrap();
    let mut names = SubjectAlternativeName::new();
    match name.parse::<std::net::IpAddr>() {
        Ok(_) => names.ip(name),
        Err(_) => names.dns(name),
    };
    let names = names.build(&builder.x509v3_context(None, None)).unwrap();
    builder.append_extension(names).unwrap();
    builder.sign(signer, MessageDigest::sha256()).unwrap();
    builder.build()
}
