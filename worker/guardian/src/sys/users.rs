//! The user database.

use std::ffi::CStr;
use std::io;

pub(crate) struct UserRecord {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
}

/// Looks a user up by name, with all the groups it is in.
pub(crate) fn user_by_name(name: &CStr) -> io::Result<Option<UserRecord>> {
    let mut buffer = vec![0u8; 4096];
    let (uid, gid) = loop {
        // SAFETY: passwd is plain data; name and buffer outlive the call, and only uid and gid, which are no pointers
        // into the buffer, are kept.
        let (error, found) = unsafe {
            let mut record: libc::passwd = std::mem::zeroed();
            let mut found = std::ptr::null_mut();
            let space = buffer.as_mut_ptr().cast();
            let error =
                libc::getpwnam_r(name.as_ptr(), &mut record, space, buffer.len(), &mut found);
            (
                error,
                (!found.is_null()).then_some((record.pw_uid, record.pw_gid)),
            )
        };
        match (error, found) {
            (0, Some(ids)) => break ids,
            (0 | libc::ENOENT, None) => return Ok(None),
            (libc::ERANGE, _) if buffer.len() < 1 << 20 => buffer.resize(buffer.len() * 2, 0),
            (error, _) => return Err(io::Error::from_raw_os_error(error)),
        }
    };
    let mut groups = vec![0 as libc::gid_t; 64];
    loop {
        let mut count = groups.len() as libc::c_int;
        // SAFETY: the list has room for `count` entries, to which the call sets what it found.
        let fits =
            unsafe { libc::getgrouplist(name.as_ptr(), gid, groups.as_mut_ptr(), &mut count) } >= 0;
        let grown = groups.len() * 2;
        groups.resize((count.max(0) as usize).max(if fits { 0 } else { grown }), 0);
        if fits {
            return Ok(Some(UserRecord { uid, gid, groups }));
        }
    }
}
