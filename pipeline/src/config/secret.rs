//! Secrets: from the environment, else from a file; never from the configuration itself.

/// The secret in an environment variable, else in a file; `None` where neither is given. One line end at its end is not
/// part of it.
///
/// # Errors
/// The file cannot be read, or what was found is empty. Never tells the secret.
pub fn secret(variable: &str, file: &str) -> Result<Option<String>, String> {
    let (place, found) = match std::env::var(variable) {
        Ok(found) => (variable.to_owned(), found),
        Err(std::env::VarError::NotUnicode(_)) => return Err(format!("{variable} is not UTF-8")),
        Err(_) if file.is_empty() => return Ok(None),
        Err(_) => {
            let bytes = std::fs::read(file).map_err(|error| format!("cannot read `{file}`: {error}"))?;
            let text = String::from_utf8(bytes).map_err(|_| format!("`{file}` is not UTF-8"))?;
            (format!("`{file}`"), text)
        }
    };
    let line = found.strip_suffix('\n').unwrap_or(&found);
    let line = line.strip_suffix('\r').unwrap_or(line);
    match line {
        "" => Err(format!("{place} is empty: write the secret there, or leave it out")),
        secret => Ok(Some(secret.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::secret;

    #[test]
    fn a_secret_in_a_file_loses_one_line_end_and_nothing_else() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().display().to_string();
        for (text, wanted) in [("s", "s"), ("s\n", "s"), (" s \r\n", " s "), ("s\n\n", "s\n")] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(
                secret("TAMIZ_NO_SUCH_VARIABLE", &path).unwrap().as_deref(),
                Some(wanted)
            );
        }
        std::fs::write(&path, "\n").unwrap();
        assert!(
            secret("TAMIZ_NO_SUCH_VARIABLE", &path)
                .unwrap_err()
                .contains("is empty")
        );
        assert_eq!(secret("TAMIZ_NO_SUCH_VARIABLE", "").unwrap(), None);
        assert!(
            secret("TAMIZ_NO_SUCH_VARIABLE", "/nowhere/x")
                .unwrap_err()
                .contains("/nowhere/x")
        );
    }
}
