//! The functions as a program would use them: registered on a session, called by SQL.

#![allow(clippy::unwrap_used)]

mod bad_calls;
mod inputs;
mod plans;
mod results;
mod scores;
mod support;
