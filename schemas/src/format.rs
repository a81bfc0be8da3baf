//! How payloads are written, and where their schemas are.

use serde::{Deserialize, Serialize};

/// How payloads are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PayloadFormat {
    /// Text that says itself what it holds.
    #[default]
    Json,
    /// Avro's binary form.
    Avro,
    /// Protobuf's wire format.
    Protobuf,
}

impl PayloadFormat {
    /// The name that people use.
    pub fn name(self) -> &'static str {
        match self {
            PayloadFormat::Json => "JSON",
            PayloadFormat::Avro => "Avro",
            PayloadFormat::Protobuf => "Protobuf",
        }
    }
}

/// The `[input.registry]` section: a Confluent-compatible schema registry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RegistryConfig {
    /// Its address; empty for none.
    pub url: String,
    /// The user to log in as; empty for nobody.
    pub username: String,
    /// File with the password.
    pub password_file: String,
    /// Authorities trusted for it beside the system's, PEM.
    pub ca_file: String,
    /// Allows a login over plain HTTP.
    pub allow_without_tls: bool,
}
