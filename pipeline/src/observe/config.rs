//! The `[metrics]` and `[traces]` sections.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use url::Url;

/// `[metrics]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetricsConfig {
    /// Where /metrics, /healthz and /readyz are served; empty: nowhere.
    pub listen: String,
}

/// `[traces]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TracesConfig {
    /// Where spans are sent; empty: nowhere.
    pub otlp_endpoint: String,
}

impl MetricsConfig {
    /// The address; `None` where nothing is served.
    ///
    /// # Errors
    /// What is written is no address and port.
    pub fn address(&self) -> Result<Option<SocketAddr>, String> {
        if self.listen.is_empty() {
            return Ok(None);
        }
        // Names are not resolved: an address that means one interface today and another tomorrow is no place for this.
        self.listen.parse().map(Some).map_err(|_| {
            format!(
                "`{}` is no address: write an IP address and a port, as 127.0.0.1:9464, 0.0.0.0:9464 or [::]:9464; \
                 empty: nothing is served",
                self.listen
            )
        })
    }
}

impl TracesConfig {
    /// The address of the collector's traces; `None` where none are sent.
    ///
    /// # Errors
    /// What is written is no URL of HTTP, or holds a password.
    pub fn endpoint(&self) -> Result<Option<Url>, String> {
        if self.otlp_endpoint.is_empty() {
            return Ok(None);
        }
        let wrong = |what: &str| format!("{what}: write the collector's address, as http://127.0.0.1:4318");
        // The address itself is not repeated: it may hold a password.
        let mut url = Url::parse(&self.otlp_endpoint).map_err(|error| wrong(&format!("no URL ({error})")))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
            return Err(wrong("spans are sent over http or https only"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(
                "secrets do not belong in a configuration file: take user and password out, and put a header of the \
                 collector's into OTEL_EXPORTER_OTLP_HEADERS"
                    .into(),
            );
        }
        if url.path() == "/" {
            url.set_path("/v1/traces");
        }
        Ok(Some(url))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listen(text: &str) -> Result<Option<SocketAddr>, String> {
        MetricsConfig { listen: text.into() }.address()
    }

    fn endpoint(text: &str) -> Result<Option<String>, String> {
        let config = TracesConfig {
            otlp_endpoint: text.into(),
        };
        Ok(config.endpoint()?.map(String::from))
    }

    #[test]
    fn an_address_is_numbers_and_a_port() {
        assert_eq!(listen(""), Ok(None));
        for good in ["127.0.0.1:9464", "0.0.0.0:0", "[::1]:9464"] {
            assert_eq!(listen(good).unwrap().unwrap().to_string(), good);
        }
        for bad in [
            "9464",
            ":9464",
            "localhost:9464",
            "127.0.0.1",
            "127.0.0.1:99999",
            "http://127.0.0.1:9464",
        ] {
            assert!(listen(bad).unwrap_err().contains("127.0.0.1:9464"), "{bad}");
        }
    }

    #[test]
    fn spans_go_to_the_usual_path_unless_told_otherwise() {
        assert_eq!(endpoint(""), Ok(None));
        for (written, meant) in [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
            ("https://collector.example/", "https://collector.example/v1/traces"),
            ("http://collector:4318/otlp/traces", "http://collector:4318/otlp/traces"),
        ] {
            assert_eq!(endpoint(written).unwrap().unwrap(), meant);
        }
        for bad in ["collector", "grpc://collector:4317", "file:///tmp/x", "http://"] {
            assert!(endpoint(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_password_in_the_address_is_refused_and_not_repeated() {
        let told = endpoint("https://me:hunter2@collector.example").unwrap_err();
        assert!(
            told.contains("OTEL_EXPORTER_OTLP_HEADERS") && !told.contains("hunter2"),
            "{told}"
        );
    }
}
