//! Short answers over HTTP from servers that hold tokens and schemas.
//!
//! Architecture Invariant: no answer is read beyond a bound, no credential follows a redirect or goes out in the clear
//! unless the user has said so, and no address is told with a password in it.

use std::error::Error;
use std::time::Duration;

use url::{Host, Url};

/// How long a server may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a whole exchange may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A client for servers of one kind; `ca_file` names authorities trusted beside the system's.
///
/// # Errors
/// The file cannot be read or holds no certificate.
pub(crate) fn client(ca_file: &str) -> Result<reqwest::Client, String> {
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("tamiz/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(TIMEOUT)
        .redirect(reqwest::redirect::Policy::none());
    if !ca_file.is_empty() {
        let pem = std::fs::read(ca_file).map_err(|error| format!("cannot read `{ca_file}`: {error}"))?;
        let certificates = reqwest::Certificate::from_pem_bundle(&pem).unwrap_or_default();
        if certificates.is_empty() {
            return Err(format!("`{ca_file}` holds no certificate in PEM"));
        }
        builder = builder.tls_certs_merge(certificates);
    }
    builder
        .build()
        .map_err(|error| format!("no HTTP client can be made: {}", innermost(&error)))
}

/// Whether an address can be asked. `secret`: what is sent must not be overheard, so that `https` is needed, or this machine.
///
/// # Errors
/// In words that follow on the option's name.
pub(crate) fn check_address(address: &str, secret: bool) -> Result<(), String> {
    // The address itself is not told: it may hold a password.
    let url = Url::parse(address).map_err(|error| format!("this is no address ({error}): write https://host/path"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("a user or password does not belong in an address: take it out".into());
    }
    let here = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    };
    match url.scheme() {
        "https" => Ok(()),
        "http" if here || !secret => Ok(()),
        "http" => Err("over http all who listen see the secret: use https".into()),
        other => Err(format!("`{other}` is not spoken: use https")),
    }
}

/// The body of an answer, unless it is longer than `most` bytes.
///
/// # Errors
/// In words, without the address.
pub(crate) async fn body(mut response: reqwest::Response, most: usize) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(broken)? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > most {
            return Err(format!("the answer is longer than {most} bytes"));
        }
    }
    Ok(bytes)
}

/// What went wrong on the way, without the address.
pub(crate) fn broken(error: reqwest::Error) -> String {
    if error.is_timeout() {
        return format!("no answer within {} s", TIMEOUT.as_secs());
    }
    let error = error.without_url();
    let what = if error.is_connect() {
        "no connection"
    } else {
        "the connection broke"
    };
    format!("{what} ({})", innermost(&error))
}

/// The cause of the causes, which names the trouble.
fn innermost(error: &reqwest::Error) -> String {
    let mut reason: &dyn Error = error;
    while let Some(source) = reason.source() {
        reason = source;
    }
    reason.to_string()
}

#[cfg(test)]
mod tests {
    use super::check_address;

    #[test]
    fn a_secret_goes_out_over_https_or_stays_on_this_machine() {
        for fine in [
            "https://host/token",
            "http://localhost:8080/token",
            "http://127.0.0.1/t",
            "http://[::1]:1/t",
        ] {
            check_address(fine, true).unwrap();
        }
        check_address("http://host/token", false).unwrap();
        for (wrong, word) in [
            ("http://host/token", "use https"),
            ("http://localhost.example/token", "use https"),
            ("https://user:hidden@host/", "take it out"),
            ("ftp://host/", "ftp"),
            ("host/token", "no address"),
        ] {
            let message = check_address(wrong, true).unwrap_err();
            assert!(
                message.contains(word) && !message.contains("hidden"),
                "{wrong}: {message}"
            );
        }
    }
}
