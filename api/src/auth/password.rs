//! Passwords: argon2id, on threads that may block, a few at a time.

use super::Role;
use argon2::{
    Argon2,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
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
        Argon2::default()
            .hash_password(password.as_bytes())
            .map(|hash| hash.to_string())
            .map_err(|e| e.to_string())
    })
    .await?
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
        Ok(Argon2::default()
            .verify_password(password.as_bytes(), &stored)
            .is_ok())
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
