//! The user that a task runs as.

use crate::sys;
use std::ffi::CString;
use std::io;

/// Numeric identity of a task. The guardian must be root to start a task with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups, exact.
    pub groups: Vec<u32>,
}

/// Why a name could not be turned into a [`User`].
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    #[error("there is no user {0:?} on this host; create it or name another in `user`")]
    Unknown(String),
    #[error("user {name:?} cannot be looked up: {source}")]
    Lookup { name: String, source: io::Error },
}

impl User {
    /// Looks the user up in the database of this host, with all groups it is in.
    pub fn lookup(name: &str) -> Result<User, UserError> {
        let unknown = || UserError::Unknown(name.to_owned());
        let c_name = CString::new(name).map_err(|_| unknown())?;
        match sys::user_by_name(&c_name) {
            Ok(Some(found)) => Ok(User {
                uid: found.uid,
                gid: found.gid,
                groups: found.groups,
            }),
            Ok(None) => Err(unknown()),
            Err(source) => Err(UserError::Lookup {
                name: name.to_owned(),
                source,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_found_and_nonsense_is_not() {
        let root = User::lookup("root").expect("every host has root");
        assert_eq!((root.uid, root.gid), (0, 0));
        assert!(root.groups.contains(&0));
        assert!(matches!(
            User::lookup("no such user"),
            Err(UserError::Unknown(_))
        ));
        assert!(matches!(User::lookup("a\0b"), Err(UserError::Unknown(_))));
    }
}
