//! What contradicts itself in the `[input]` section about formats and schemas.

use tamiz_schemas::format::PayloadFormat;
use tamiz_schemas::mapping::InputConfig;

use super::Problem;
use crate::http::check_address;

/// Every problem; opens no file.
pub(super) fn problems(input: &InputConfig) -> Vec<Problem> {
    let mut found = Vec::new();
    let mut wrong = |key: &str, message: &str| {
        found.push(Problem {
            key: format!("input.{key}"),
            message: message.into(),
        })
    };
    let (by_registry, by_file) = (!input.registry.url.is_empty(), !input.schema_file.is_empty());
    let name = input.format.name();
    match (input.format, by_registry, by_file) {
        (PayloadFormat::Json, false, false) => {}
        (PayloadFormat::Json, ..) => wrong(
            "format",
            "JSON needs no schema: set `format` to avro or protobuf, or take the registry and the `schema_file` out",
        ),
        (_, true, true) => wrong(
            "schema_file",
            "schemas come from the registry or from this file: name one of them",
        ),
        (_, false, false) => wrong(
            "format",
            &format!("{name} needs its schema: name `input.registry.url` or `input.schema_file`"),
        ),
        _ => {}
    }
    match (input.format, by_file, input.message.is_empty()) {
        (PayloadFormat::Protobuf, true, true) => wrong("message", "name the message of `schema_file`, as feed.v1.Post"),
        (PayloadFormat::Protobuf, true, false) | (_, _, true) => {}
        _ => wrong("message", "only a Protobuf `schema_file` needs a message: take it out"),
    }
    if by_registry && let Err(message) = check_address(&input.registry.url, secret(input)) {
        wrong("registry.url", &message);
    }
    found
}

/// Whether a password goes to the registry that must not be overheard.
fn secret(input: &InputConfig) -> bool {
    !input.registry.username.is_empty() && !input.registry.allow_without_tls
}
