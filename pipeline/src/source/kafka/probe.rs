//! Why a broker's certificate is refused: one TLS handshake of our own, with the same authorities.
//!
//! librdkafka says only "certificate verify failed" for an unknown authority, another name and an expired certificate;
//! OpenSSL knows which it was. Nothing is sent or accepted over this connection.

use std::net::{IpAddr, TcpStream, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use openssl::ssl::{Ssl, SslContext, SslMethod, SslVerifyMode};
use openssl::x509::{X509, X509Ref, X509VerifyResult};
use rdkafka::config::ClientConfig;

const TIMEOUT: Duration = Duration::from_secs(5);

// OpenSSL's numbers, see x509_vfy.h.
const NOT_YET_VALID: i32 = 9;
const EXPIRED: i32 = 10;
const OTHER_HOST: i32 = 62;
const OTHER_ADDRESS: i32 = 64;

/// How to shake hands with a broker.
pub(super) struct Probe {
    ca: Option<String>,
    check_name: bool,
}

/// What OpenSSL held against a certificate.
struct Objection {
    result: X509VerifyResult,
    certificate: Option<X509>,
}

impl Probe {
    /// As a client with these options shakes hands.
    pub(super) fn new(client: &ClientConfig) -> Self {
        Probe {
            ca: client.get("ssl.ca.location").map(str::to_owned),
            check_name: client.get("ssl.endpoint.identification.algorithm") != Some("none"),
        }
    }

    /// One sentence about the certificate of the broker at `host:port`.
    pub(super) fn explain(&self, at: &str) -> String {
        let objection = self.handshake(at);
        let certificate = |objection: &Objection| objection.certificate.clone();
        match objection
            .as_ref()
            .map(|objection| (objection.result.as_raw(), certificate(objection)))
        {
            Some((EXPIRED, Some(certificate))) => format!(
                "the certificate of the broker at {at} expired on {}: renew it on the broker (or set this machine's clock \
                 right)",
                certificate.not_after()
            ),
            Some((NOT_YET_VALID, Some(certificate))) => format!(
                "the certificate of the broker at {at} is valid from {} on: set this machine's clock right",
                certificate.not_before()
            ),
            Some((OTHER_HOST | OTHER_ADDRESS, Some(certificate))) => format!(
                "the certificate of the broker at {at} is for {}: write a name from it into `source.kafka.brokers`, or give \
                 the broker a certificate for its name",
                names(&certificate)
            ),
            _ => {
                let words = objection.map(|objection| format!(" ({})", objection.result.error_string()));
                let place = match &self.ca {
                    Some(file) => format!("`{file}` must hold the authority that signed it"),
                    None => "name the authority that signed it in `source.kafka.tls.ca_file`".into(),
                };
                format!(
                    "the certificate of the broker at {at} is not trusted{}: {place}",
                    words.unwrap_or_default()
                )
            }
        }
    }

    /// The first objection of a handshake; `None` where there is none, or no connection.
    fn handshake(&self, at: &str) -> Option<Objection> {
        let (host, _) = at.rsplit_once(':')?;
        let host = host.trim_matches(['[', ']']);
        let address = at.to_socket_addrs().ok()?.next()?;
        let stream = TcpStream::connect_timeout(&address, TIMEOUT).ok()?;
        stream.set_read_timeout(Some(TIMEOUT)).ok()?;
        stream.set_write_timeout(Some(TIMEOUT)).ok()?;
        let first: Arc<Mutex<Option<Objection>>> = Arc::default();
        let mut context = SslContext::builder(SslMethod::tls_client()).ok()?;
        match &self.ca {
            Some(file) => context.set_ca_file(file).ok()?,
            None => context.set_default_verify_paths().ok()?,
        }
        let told = Arc::clone(&first);
        context.set_verify_callback(SslVerifyMode::PEER, move |fine, chain| {
            if !fine {
                let objection = Objection {
                    result: chain.error(),
                    certificate: chain.current_cert().map(X509Ref::to_owned),
                };
                told.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .get_or_insert(objection);
            }
            fine
        });
        let mut tls = Ssl::new(&context.build()).ok()?;
        match host.parse::<IpAddr>() {
            Ok(ip) if self.check_name => tls.param_mut().set_ip(ip).ok()?,
            Ok(_) => {}
            Err(_) => {
                tls.set_hostname(host).ok()?;
                if self.check_name {
                    tls.param_mut().set_host(host).ok()?;
                }
            }
        }
        // Its outcome is what the callback has noted.
        let _ = tls.connect(stream);
        first.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The names that a certificate is for. They come from the network: only what a name is made of is kept.
fn names(certificate: &X509Ref) -> String {
    let mut names = Vec::new();
    for name in certificate.subject_alt_names().into_iter().flatten().take(5) {
        if let Some(dns) = name.dnsname() {
            let clean = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '*');
            names.push(format!("`{}`", dns.chars().filter(clean).take(100).collect::<String>()));
        } else if let Some(ip) = name.ipaddress() {
            let ip = <[u8; 4]>::try_from(ip)
                .map(IpAddr::from)
                .or_else(|_| <[u8; 16]>::try_from(ip).map(IpAddr::from));
            names.extend(ip.map(|ip| format!("`{ip}`")));
        }
    }
    match names.as_slice() {
        [] => "no host at all".into(),
        some => some.join(", "),
    }
}
