//! All tests of the data engine, in one target: each one that links DataFusion is large.

mod commit;
mod cuts;
mod equality;
mod errors;
mod example;
mod limits;
mod s3;
mod support;
