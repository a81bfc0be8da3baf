//! The built binary as a user drives it: against a real Kafka and an S3 server where there are ones, killed in the middle
//! of its work, fed with rubbish, and called wrongly.
//!
//! `scripts/test` starts the servers and names them in TAMIZ_KAFKA and TAMIZ_S3. TAMIZ_DATA names the folder of the public
//! data sets; without it made-up posts take their place. What is skipped says so.

#![allow(clippy::unwrap_used)]

mod bad_input;
mod bad_model;
mod bad_use;
mod care;
mod deletes;
mod doors;
mod ends;
mod faults;
mod files;
mod formats;
mod full_disk;
mod kill;
mod late;
#[cfg(feature = "failpoints")]
mod model_failure;
mod observe;
mod replay;
mod s3;
mod secure;
mod signals;
mod support;
