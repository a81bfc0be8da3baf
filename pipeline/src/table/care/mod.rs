//! Care of a table that stands: small files packed into large ones, what nobody needs cleared away, the log looked back
//! on, damage found and mended, rows erased.
//!
//! | verb | file |
//! |---|---|
//! | pack small files | [`mod@compact`] |
//! | delete files that no version needs | [`mod@vacuum`] |
//! | take old days out | [`mod@expire`] |
//! | change rows where they lie, or take them out | [`mod@edit`] |
//! | take rows out, for good | [`mod@erase`] |
//! | find and mend damage | [`mod@doctor`] |
//! | tell what was committed | [`mod@history`] |
//!
//! deltalake's own operations are not used: their files carry statistics of every column, and those tell what people
//! wrote. Nor is its check of conflicts, which lets two packings of the same file pass and would double its rows: see
//! `commit.rs`.
//!
//! Architecture Invariant: a file leaves the table only in a commit that is made against a version in which it was
//! there. What the log named once is moved beside or kept until vacuum, never deleted with the commit; erasing is the one
//! exception, since that is its purpose.

mod aside;
mod commit;
mod compact;
mod doctor;
mod edit;
mod erase;
mod expire;
mod history;
mod leftovers;
mod log;
mod rewrite;
mod search;
mod table;
mod vacuum;

pub use compact::{CompactOptions, Compacted, PackedPartition, compact};
pub use doctor::{DoctorOptions, Finding, Lost, ReadAgain, Report, doctor};
pub use edit::{Edit, Edited, Facts, edit};
pub use erase::{Erased, Select, erase};
pub use expire::{Expired, expire};
pub use history::{Entry, Moved, history};
pub use table::columns;
pub use vacuum::{VacuumOptions, Vacuumed, vacuum};
