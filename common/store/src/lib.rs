//! The metadata store: one method is one transaction.
//!
//! [`Store`] is what the scheduler, the API and the CLI use. A backend (`store-postgres`, `store-sqlite`) implements the
//! primitive statements of [`Backend`] and [`Tx`], where all SQL lives, and the queries of [`Reads`]; the transactions
//! themselves are written once, in `transactions`, for every backend.

mod annotations;
mod calls;
#[cfg(feature = "conformance")]
pub mod conformance;
mod data;
mod error;
mod plans;
mod reads;
mod records;
mod shared_limits;
mod store;
mod transactions;
mod tx;
mod waits;

pub use annotations::{Annotations, AuditField, AuditFilter};
pub use calls::{
    CallFilter, CallReads, CallRow, CallState, CallTx, Claim, Delivery, GIVE_UP_AFTER,
    MissedDeadline,
};
pub use data::{CachedResult, DataReads, DataTx};
pub use error::{StoreError, StoreResult};
pub use gristmill_common::limit::{LimitKey, LimitRow, QueueRate, RateLimit};
pub use plans::PlanCache;
pub use reads::Reads;
pub use records::*;
pub use shared_limits::{KeyHolder, Pushing, SharedLimitTx};
pub use store::{
    Amend, Amended, Applied, Change, DispatchContext, EndedRun, Published, Store, Triggered,
};
pub use tx::{Backend, Tx};
pub use waits::{
    ApprovalFilter, ApprovalRow, AwaitedEnd, DueWait, EarlierRun, OtherRun, WaitReads, WaitTx,
};
