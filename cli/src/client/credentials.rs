//! Where the token comes from.
//!
//! A token that lies about on this machine (a password of the standalone's environment, its token file) is sent to this
//! machine only: a mistyped address must not receive it.

use std::fs;
use std::path::{Path, PathBuf};

use secrecy::SecretString;
use url::{Host, Url};

use super::ClientError;

/// Below the user's configuration folder.
const CONFIG_FILE: &str = "gristmill/token";
/// Below the working directory: what `gristmill standalone` writes into its default home.
const STANDALONE_FILE: &str = ".gristmill/client-token";

/// Where to look, in this order; what is empty counts as absent.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sources {
    /// `--token`, `GRISTMILL_TOKEN`.
    pub(crate) token: Option<String>,
    /// `--token-file`, `GRISTMILL_TOKEN_FILE`: must be readable when given.
    pub(crate) token_file: Option<PathBuf>,
    /// `GRISTMILL_ADMIN_PASSWORD`, on loopback only.
    pub(crate) admin_password: Option<String>,
    /// `GRISTMILL_ADMIN_PASSWORD_FILE`, on loopback only.
    pub(crate) admin_password_file: Option<PathBuf>,
    /// The user's configuration folder.
    pub(crate) config_dir: Option<PathBuf>,
    /// The working directory, for a standalone's token, on loopback only.
    pub(crate) working_dir: Option<PathBuf>,
}

/// What was found.
#[derive(Debug, Clone)]
pub(crate) enum Credentials {
    Token(SecretString),
    /// The admin's password: to be exchanged for a token.
    AdminPassword(SecretString),
    Nothing,
}

impl Sources {
    /// The given token or file, and what the environment has.
    pub(crate) fn from_env(token: Option<String>, token_file: Option<PathBuf>) -> Self {
        let variable = |name| std::env::var(name).ok().filter(|text| !text.is_empty());
        Self {
            token: token.filter(|text| !text.is_empty()),
            token_file: token_file.filter(|path| !path.as_os_str().is_empty()),
            admin_password: variable("GRISTMILL_ADMIN_PASSWORD"),
            admin_password_file: variable("GRISTMILL_ADMIN_PASSWORD_FILE").map(PathBuf::from),
            config_dir: variable("XDG_CONFIG_HOME")
                .map(PathBuf::from)
                .or_else(|| variable("HOME").map(|home| Path::new(&home).join(".config"))),
            working_dir: std::env::current_dir().ok(),
        }
    }

    /// The first that is there, for an API at this address.
    pub(crate) fn find(&self, api: &Url) -> Result<Credentials, ClientError> {
        if let Some(token) = &self.token {
            return Ok(Credentials::Token(token.trim().to_owned().into()));
        }
        if let Some(path) = &self.token_file {
            return Ok(Credentials::Token(read(path)?));
        }
        let local = is_loopback(api);
        if local && let Some(password) = &self.admin_password {
            return Ok(Credentials::AdminPassword(password.clone().into()));
        }
        if local && let Some(path) = &self.admin_password_file {
            return Ok(Credentials::AdminPassword(read(path)?));
        }
        let config = self.config_dir.as_ref().map(|dir| dir.join(CONFIG_FILE));
        let standalone = self
            .working_dir
            .as_ref()
            .filter(|_| local)
            .map(|dir| dir.join(STANDALONE_FILE));
        for path in [config, standalone].into_iter().flatten() {
            if path.is_file() {
                return Ok(Credentials::Token(read(&path)?));
            }
        }
        Ok(Credentials::Nothing)
    }
}

/// Whether the address is this machine.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

fn read(path: &Path) -> Result<SecretString, ClientError> {
    let text = fs::read_to_string(path).map_err(|error| {
        ClientError::Settings(format!(
            "cannot read the secret in {}: {error}",
            path.display()
        ))
    })?;
    let text = text.trim();
    if text.is_empty() {
        return Err(ClientError::Settings(format!(
            "{} should hold a secret, and is empty",
            path.display()
        )));
    }
    Ok(text.to_owned().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use secrecy::ExposeSecret;

    fn found(sources: &Sources, url: &str) -> String {
        match sources.find(&Url::parse(url).unwrap()).unwrap() {
            Credentials::Token(token) => format!("token {}", token.expose_secret()),
            Credentials::AdminPassword(password) => {
                format!("password {}", password.expose_secret())
            }
            Credentials::Nothing => "nothing".to_owned(),
        }
    }

    #[test]
    fn the_first_source_wins_and_local_secrets_stay_here() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            path
        };
        let mut sources = Sources {
            token: Some("flag".into()),
            token_file: Some(put("t", "file\n")),
            admin_password: Some("word".into()),
            admin_password_file: Some(put("p", "word2\n")),
            config_dir: Some(dir.path().to_owned()),
            working_dir: Some(dir.path().to_owned()),
        };
        put("gristmill/token", "config\n");
        put(".gristmill/client-token", "standalone\n");
        let (here, there) = ("http://127.0.0.1:8080", "http://example.org");
        assert_eq!(found(&sources, there), "token flag");
        sources.token = None;
        assert_eq!(found(&sources, there), "token file");
        sources.token_file = None;
        assert_eq!(found(&sources, here), "password word");
        assert_eq!(found(&sources, there), "token config");
        sources.admin_password = None;
        assert_eq!(found(&sources, here), "password word2");
        sources.admin_password_file = None;
        assert_eq!(found(&sources, here), "token config");
        sources.config_dir = None;
        assert_eq!(found(&sources, here), "token standalone");
        assert_eq!(found(&sources, there), "nothing");
    }

    #[test]
    fn a_named_file_must_be_there() {
        let sources = Sources {
            token_file: Some("/nowhere/token".into()),
            ..Sources::default()
        };
        let error = sources.find(&Url::parse("http://localhost").unwrap());
        assert!(error.unwrap_err().to_string().contains("/nowhere/token"));
    }

    #[rstest]
    #[case("http://localhost:1", true)]
    #[case("http://127.3.0.1", true)]
    #[case("http://[::1]:8080", true)]
    #[case("http://localhost.example.org", false)]
    #[case("http://10.0.0.1", false)]
    fn loopback_is_known(#[case] url: &str, #[case] expected: bool) {
        assert_eq!(is_loopback(&Url::parse(url).unwrap()), expected);
    }
}
