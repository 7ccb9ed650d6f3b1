//! Secrets at rest and in messages: AES-256-GCM under a key derived from `GRISTMILL_SECRET_KEY`.

use aes_gcm::{
    Aes256Gcm, Nonce,
    aead::{Aead, KeyInit},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use sha2::{Digest, Sha256};
use std::fmt;

const NONCE: usize = 12;

/// The deployment's secret. Every part of a deployment has the same.
#[derive(Clone)]
pub struct SecretKey {
    master: [u8; 32],
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(…)")
    }
}

/// A secret that cannot be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    #[error("the secret is no sealed text")]
    Malformed,
    #[error(
        "the secret cannot be opened: GRISTMILL_SECRET_KEY is not the one that it was sealed with"
    )]
    WrongKey,
}

/// `GRISTMILL_SECRET_KEY` is too short to be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "GRISTMILL_SECRET_KEY is too short: use at least 32 characters, for example of `openssl rand -hex 32`"
)]
pub struct WeakKey;

impl SecretKey {
    /// From the text of `GRISTMILL_SECRET_KEY`.
    pub fn from_text(text: &str) -> Result<Self, WeakKey> {
        let text = text.trim();
        if text.len() < 32 {
            return Err(WeakKey);
        }
        Ok(Self {
            master: Sha256::digest(text.as_bytes()).into(),
        })
    }

    /// A key for one purpose, so that what is made for one never works for another.
    fn derive(&self, purpose: &[&[u8]]) -> [u8; 32] {
        // HMAC-SHA-256 with a key of one hash's length, RFC 2104.
        let pad = |byte: u8| {
            let mut block = [byte; 64];
            block.iter_mut().zip(self.master).for_each(|(b, k)| *b ^= k);
            block
        };
        let mut inner = Sha256::new();
        inner.update(pad(0x36));
        for part in purpose {
            inner.update((part.len() as u64).to_be_bytes());
            inner.update(part);
        }
        let mut outer = Sha256::new();
        outer.update(pad(0x5c));
        outer.update(inner.finalize());
        outer.finalize().into()
    }

    /// Ciphertext in base64: a random nonce, then the sealed text.
    pub fn seal(&self, text: &[u8]) -> String {
        let nonce: [u8; NONCE] = rand::random();
        let sealed = self
            .cipher()
            .encrypt(&Nonce::from(nonce), text)
            .unwrap_or_default();
        STANDARD.encode([nonce.as_slice(), &sealed].concat())
    }

    pub fn open(&self, sealed: &str) -> Result<Vec<u8>, SealError> {
        let bytes = STANDARD.decode(sealed).map_err(|_| SealError::Malformed)?;
        let (nonce, text) = bytes
            .split_first_chunk::<NONCE>()
            .ok_or(SealError::Malformed)?;
        self.cipher()
            .decrypt(&Nonce::from(*nonce), text)
            .map_err(|_| SealError::WrongKey)
    }

    fn cipher(&self) -> Aes256Gcm {
        Aes256Gcm::new(&self.derive(&[b"secrets"]).into())
    }

    /// The bearer token that reads one run's XComs.
    pub fn run_token(&self, run: i64) -> String {
        format!(
            "gmrun_{run}_{}",
            hex::encode(self.derive(&[b"run-xcoms", &run.to_be_bytes()]))
        )
    }

    /// The run that a token of [`SecretKey::run_token`] is for.
    pub fn verify_run_token(&self, token: &str) -> Option<i64> {
        let run = token
            .strip_prefix("gmrun_")?
            .split('_')
            .next()?
            .parse()
            .ok()?;
        constant_time_eq(self.run_token(run).as_bytes(), token.as_bytes()).then_some(run)
    }

    /// The key that signs session tokens.
    pub fn session_key(&self) -> [u8; 32] {
        self.derive(&[b"sessions"])
    }
}

fn constant_time_eq(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |diff, (x, y)| diff | (x ^ y)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seed: &str) -> SecretKey {
        SecretKey::from_text(&seed.repeat(32)).unwrap()
    }

    #[test]
    fn opens_what_it_sealed_and_nothing_else() {
        let sealed = key("a").seal(b"hush");
        assert_eq!(key("a").open(&sealed).unwrap(), b"hush");
        assert_ne!(
            sealed,
            key("a").seal(b"hush"),
            "a nonce is never used twice"
        );
        assert_eq!(key("b").open(&sealed), Err(SealError::WrongKey));
        assert_eq!(key("a").open("???"), Err(SealError::Malformed));
        assert!(SecretKey::from_text("short").is_err());
    }

    #[test]
    fn a_run_token_is_for_its_run_only() {
        let token = key("a").run_token(7);
        assert_eq!(key("a").verify_run_token(&token), Some(7));
        assert_eq!(key("b").verify_run_token(&token), None);
        assert_eq!(
            key("a").verify_run_token(&token.replace("_7_", "_8_")),
            None
        );
        assert_eq!(key("a").verify_run_token("gmrun_x"), None);
    }
}
