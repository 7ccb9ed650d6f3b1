//! The metadata store: one method is one transaction.
//!
//! [`Store`] is what the scheduler, the API and the CLI use. A backend (`store-postgres`, `store-sqlite`) implements the
//! primitive statements of [`Backend`] and [`Tx`], where all SQL lives, and the queries of [`Reads`]; the transactions
//! themselves are written once, in [`transactions`], for every backend.

mod error;
mod limits;
mod reads;
mod records;
mod tx;

pub use error::{StoreError, StoreResult};
pub use limits::{LimitKey, LimitRow};
pub use reads::Reads;
pub use records::*;
pub use tx::{Backend, Tx};
