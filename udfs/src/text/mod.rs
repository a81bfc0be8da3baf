//! Text kernels: whole Arrow columns in and out, each post on its own except for [`duplicates`].
//!
//! The stream's stages and the SQL functions call these, so that a post gets the same answer through every door.
//! A kernel does no I/O, keeps no global state, leaves NULL rows NULL, and works on text of any content: there is no
//! error that a post could cause. Kernels copy as little as they can: where no row changes, the column that comes out
//! shares its buffers with the one that went in.
//!
//! They are made to run in this order: [`normalize`], [`language`], [`noise`], [`duplicates`], [`pii`]. What hides
//! inside a post (zero-width characters in a card number, entities in an address) is thereby gone before it is sought.

pub mod duplicates;
pub mod hash;
pub mod language;
pub mod noise;
pub mod normalize;
pub mod pii;

mod characters;
mod columns;
mod tokens;
