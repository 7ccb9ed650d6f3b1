//! Passwords: argon2id, on threads that may block, a few at a time.

use super::Role;
use argon2::{
    Algorithm, Argon2, Block, Params, Version,
    password_hash::{
        self,
        phc::{Output, ParamsString, PasswordHash, Salt},
    },
};
use gristmill_store::{Store, StoreError, UserRow};
use tokio::sync::Semaphore;

/// Each hash takes 19 MiB and tens of milliseconds: more at a time only starve the rest.
static HASHING: Semaphore = Semaphore::const_new(2);

/// The first user could not be made.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the password cannot be hashed: {0}")]
    Hash(String),
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    let _turn = HASHING.acquire().await.map_err(|e| e.to_string())?;
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| e.to_string())
}

/// The PHC string of a password.
async fn hash(password: String) -> Result<String, String> {
    blocking(move || {
        let salt: [u8; Salt::RECOMMENDED_LENGTH] = rand::random();
        hashed(password.as_bytes(), &salt).map_err(|e| e.to_string())
    })
    .await?
}

fn hashed(password: &[u8], salt: &[u8]) -> password_hash::Result<String> {
    let (algorithm, version, params) = (Algorithm::Argon2id, Version::V0x13, Params::DEFAULT);
    let hash = digest(algorithm, version, params.clone(), password, salt)?;
    let parts = PasswordHash {
        algorithm: algorithm.ident(),
        version: Some(version.into()),
        params: ParamsString::try_from(&params)?,
        salt: Some(Salt::new(salt)?),
        hash: Some(hash),
    };
    Ok(parts.to_string())
}

/// With the parameters that the stored hash was made with. `Output`s are compared in constant time.
fn fits(password: &[u8], stored: &PasswordHash) -> password_hash::Result<bool> {
    let (Some(salt), Some(hash)) = (&stored.salt, &stored.hash) else {
        return Ok(false);
    };
    let algorithm = Algorithm::try_from(stored.algorithm.as_str())?;
    let version = match stored.version {
        Some(version) => Version::try_from(version)?,
        None => Version::default(),
    };
    let params = Params::try_from(stored)?;
    Ok(digest(algorithm, version, params, password, salt)? == *hash)
}

fn digest(
    algorithm: Algorithm,
    version: Version,
    params: Params,
    password: &[u8],
    salt: &[u8],
) -> password_hash::Result<Output> {
    /// glibc maps allocations of more than this by themselves, and unmaps them when they are freed. Smaller ones it keeps
    /// with the thread that made them: 19 MiB for each thread that ever checked a password.
    const ALWAYS_UNMAPPED: usize = 32 << 20;
    let mut memory = Vec::with_capacity(ALWAYS_UNMAPPED / Block::SIZE + 1);
    memory.resize(params.block_count(), Block::new());
    let mut out = [0; Output::MAX_LENGTH];
    let out = &mut out[..params.output_len().unwrap_or(Params::DEFAULT_OUTPUT_LEN)];
    Argon2::new(algorithm, version, params).hash_password_into_with_memory(
        password,
        salt,
        out,
        &mut memory[..],
    )?;
    Ok(Output::new(out)?)
}

/// Whether the password is the user's. For a user who does not exist it takes as long.
pub(crate) async fn check(user: Option<&UserRow>, password: String) -> Result<bool, String> {
    let Some(user) = user else {
        hash(password).await?;
        return Ok(false);
    };
    let stored = user.password_hash.clone();
    blocking(move || {
        let stored = PasswordHash::new(&stored)
            .map_err(|e| format!("a stored password hash is unreadable: {e}"))?;
        Ok(fits(password.as_bytes(), &stored).unwrap_or(false))
    })
    .await?
}

/// Makes the user `admin`, if there are no users at all: with this password, or with a generated one, which is answered.
/// Safe from many processes at once: one of them makes it.
pub async fn ensure_admin(
    store: &dyn Store,
    password: Option<String>,
) -> Result<Option<String>, AdminError> {
    if !store.users().await?.is_empty() {
        return Ok(None);
    }
    let (password, generated) = match password {
        Some(password) => (password, None),
        None => {
            let password = hex::encode(rand::random::<[u8; 12]>());
            (password.clone(), Some(password))
        }
    };
    let user = UserRow {
        username: "admin".to_owned(),
        password_hash: hash(password).await.map_err(AdminError::Hash)?,
        role: Role::Admin.as_str().to_owned(),
    };
    let made = store.put_user(&user, false).await?;
    Ok(generated.filter(|_| made))
}

#[cfg(test)]
mod tests {
    use super::{fits, hashed};
    use argon2::{
        Argon2,
        password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
    };

    #[test]
    fn hashes_are_those_of_the_library() {
        let ours = hashed(b"secret", b"sixteen bytes --").unwrap();
        let theirs = Argon2::default()
            .hash_password_with_salt(b"secret", b"sixteen bytes --")
            .unwrap();
        assert_eq!(ours, theirs.to_string());
        let parsed = PasswordHash::new(&ours).unwrap();
        Argon2::default()
            .verify_password(b"secret", &parsed)
            .unwrap();
        assert!(fits(b"secret", &theirs).unwrap());
        assert!(!fits(b"Secret", &theirs).unwrap());
    }

    #[test]
    fn stored_parameters_count() {
        let cheap = "$argon2id$v=19$m=64,t=1,p=1$c2l4dGVlbiBieXRlcyAtLQ$";
        let params = argon2::Params::new(64, 1, 1, None).unwrap();
        let theirs = Argon2::from(params)
            .hash_password_with_salt(b"secret", b"sixteen bytes --")
            .unwrap();
        assert!(theirs.to_string().starts_with(cheap), "{theirs}");
        assert!(fits(b"secret", &theirs).unwrap());
    }
}
