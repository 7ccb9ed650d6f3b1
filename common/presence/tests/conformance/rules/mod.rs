pub(crate) mod availability;
pub(crate) mod claims;
pub(crate) mod leases;
pub(crate) mod logs;
pub(crate) mod xcoms;
