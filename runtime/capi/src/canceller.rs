//! Canceling an inference from another thread.

use hardtack::Canceller;

use crate::handle::{Handle, borrow, free, give};
use crate::pointer::Target;
use crate::session::HardtackSession;
use crate::status::{HardtackStatus, guarded, value_or};

/// Cancels the inferences of a session. Several threads may use it at the same time.
pub struct HardtackCanceller(Canceller);

impl Handle for HardtackCanceller {
    const TAG: u64 = u64::from_le_bytes(*b"HTcancel");
    const NAME: &'static str = "a canceller";
}

/// Creates a canceller for a session. It remains valid after the session is freed.
///
/// @param session   the session
/// @param canceller receives the canceller
///
/// # Safety
/// `session` is NULL or a session that no other thread uses during the call; `canceller` is NULL or
/// valid for writes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hardtack_session_canceller(
    session: *const HardtackSession,
    canceller: *mut *mut HardtackCanceller,
) -> HardtackStatus {
    guarded(|| {
        // SAFETY: `session` is NULL or a session that does not change during the call.
        let session = unsafe { borrow(session, "session")? };
        // SAFETY: `canceller` is NULL or valid for writes.
        let mut to = unsafe { Target::new(canceller, 1, "canceller")? };
        to.write([give(HardtackCanceller(session.session.canceller()))]);
        Ok(())
    })
}

/// Stops the inference in progress with `HARDTACK_STATUS_STOPPED`, and every later one until
/// `hardtack_canceller_reset`. An inference stops between two operations.
///
/// # Safety
/// `canceller` is NULL or a canceller.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hardtack_canceller_cancel(
    canceller: *const HardtackCanceller,
) -> HardtackStatus {
    guarded(|| {
        // SAFETY: `canceller` is NULL or a canceller, to which only shared references exist.
        unsafe { borrow(canceller, "canceller")? }.0.cancel();
        Ok(())
    })
}

/// Allows inferences of the session again.
///
/// # Safety
/// `canceller` is NULL or a canceller.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hardtack_canceller_reset(
    canceller: *const HardtackCanceller,
) -> HardtackStatus {
    guarded(|| {
        // SAFETY: `canceller` is NULL or a canceller, to which only shared references exist.
        unsafe { borrow(canceller, "canceller")? }.0.reset();
        Ok(())
    })
}

/// Frees a canceller. Does nothing for NULL.
///
/// # Safety
/// `canceller` is NULL or a canceller, and is not used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hardtack_canceller_free(canceller: *mut HardtackCanceller) {
    value_or((), || {
        // SAFETY: `canceller` is NULL or a canceller, which is not used during or after the call.
        unsafe { free(canceller, "canceller") }
    });
}
