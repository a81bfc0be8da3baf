//! Places where a test can have the process die or an operation fail. Without the feature `failpoints` they are nothing.
//!
//! `FAILPOINTS="staged=2*off->return"` lets the process pass `staged` twice and kills it, as by SIGKILL, at the third time.

/// The process ends here when a test wants it to.
#[inline]
pub(crate) fn crash_at(step: &'static str) {
    #[cfg(feature = "failpoints")]
    fail::fail_point!(step, |_| die());
    let _ = step;
}

/// Whether an operation is to fail here.
#[inline]
pub(crate) fn fails_at(step: &'static str) -> bool {
    #[cfg(feature = "failpoints")]
    fail::fail_point!(step, |_| true);
    let _ = step;
    false
}

/// The steps that [`crash_at`] knows, in the order of a commit.
pub const STEPS: [&str; 7] = [
    "before_staging",
    "mid_staging",
    "staged",
    "before_commit",
    "after_commit",
    "before_checkpoint",
    "after_checkpoint",
];

/// Reads what the environment wants to fail.
pub fn listen() {
    #[cfg(feature = "failpoints")]
    std::mem::forget(fail::FailScenario::setup()); // it would forget at its end
}

#[cfg(feature = "failpoints")]
fn die() {
    // No destructor runs and nothing is flushed: raise cannot fail with a signal that exists.
    unsafe { libc::raise(libc::SIGKILL) };
}
