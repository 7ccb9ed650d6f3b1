//! Settings that are secrets: from a flag's environment variable, or from the file that `…_FILE` names.

use std::path::Path;

/// The value of `name`, else the content of the file that `name_FILE` names.
pub(crate) fn from_env(name: &str) -> Result<Option<String>, String> {
    if let Ok(value) = std::env::var(name)
        && !value.is_empty()
    {
        return Ok(Some(value));
    }
    let file = format!("{name}_FILE");
    match std::env::var(&file) {
        Ok(path) if !path.is_empty() => {
            let text = std::fs::read_to_string(&path)
                .map_err(|error| format!("{file}={path}: {error}"))?;
            Ok(Some(text.trim().to_owned()))
        }
        _ => Ok(None),
    }
}

/// The same, or an error that says how to set it.
pub(crate) fn required(name: &str, example: &str) -> Result<String, String> {
    from_env(name)?.ok_or_else(|| {
        format!("{name} is not set; set it (or {name}_FILE), for example to {example}")
    })
}

/// The content of a file, which is made with a random secret behind `prefix` when it is not there. Readable by its owner
/// only.
pub(crate) fn keep(path: &Path, prefix: &str) -> Result<String, String> {
    use std::{
        fs::OpenOptions,
        io::{ErrorKind, Write},
        os::unix::fs::OpenOptionsExt,
    };
    let describe = |error: std::io::Error| format!("{}: {error}", path.display());
    let secret = format!("{prefix}{}", random_hex());
    match OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
    {
        Ok(mut file) => {
            file.write_all(secret.as_bytes())
                .and_then(|()| file.sync_all())
                .map_err(describe)?;
            Ok(secret)
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => std::fs::read_to_string(path)
            .map(|text| text.trim().to_owned())
            .map_err(describe),
        Err(error) => Err(describe(error)),
    }
}

/// 32 random bytes in hex.
pub(crate) fn random_hex() -> String {
    use std::fmt::Write;
    let bytes: [u8; 32] = rand::random();
    bytes
        .iter()
        .fold(String::with_capacity(64), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}
