//! Ending a run from another thread.

use hardtack::Canceller;

use crate::handle::{Handle, borrow, free, give};
use crate::pointer::Target;
use crate::session::HardtackSession;
use crate::status::{HardtackStatus, guarded, value_or};

/// Stops the runs of a session from another thread. May be used by several threads at once.
pub struct HardtackCanceller(Canceller);

impl Handle for HardtackCanceller {
    const TAG: u64 = u64::from_le_bytes(*b"HTcancel");
    const NAME: &'static str = "a canceller";
}

/// Makes what stops the runs of a session. It stays valid after the session was freed.
///
/// @param session   the session
/// @param canceller gets the canceller
///
/// # Safety
/// `session` is NULL or a session that nobody uses during the call; `canceller` is NULL or can be
/// written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hardtack_session_canceller(
    session: *const HardtackSession,
    canceller: *mut *mut HardtackCanceller,
) -> HardtackStatus {
    guarded(|| {
        // SAFETY: `session` is NULL or a session that nobody changes during the call.
        let session = unsafe { borrow(session, "session")? };
        // SAFETY: `canceller` is NULL or can be written.
        let mut to = unsafe { Target::new(canceller, 1, "canceller")? };
        to.write([give(HardtackCanceller(session.session.canceller()))]);
        Ok(())
    })
}

/// Ends the run in progress with `HARDTACK_STATUS_STOPPED`, and every later one until
/// `hardtack_canceller_reset`. A run ends between two operations.
///
/// # Safety
/// `canceller` is NULL or a canceller.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hardtack_canceller_cancel(
    canceller: *const HardtackCanceller,
) -> HardtackStatus {
    guarded(|| {
        // SAFETY: `canceller` is NULL or a canceller, which nobody changes.
        unsafe { borrow(canceller, "canceller")? }.0.cancel();
        Ok(())
    })
}

/// Lets the session run again.
///
/// # Safety
/// `canceller` is NULL or a canceller.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hardtack_canceller_reset(
    canceller: *const HardtackCanceller,
) -> HardtackStatus {
    guarded(|| {
        // SAFETY: `canceller` is NULL or a canceller, which nobody changes.
        unsafe { borrow(canceller, "canceller")? }.0.reset();
        Ok(())
    })
}

/// Frees a canceller. Does nothing for NULL.
///
/// # Safety
/// `canceller` is NULL or a canceller, and is not used any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hardtack_canceller_free(canceller: *mut HardtackCanceller) {
    value_or((), || {
        // SAFETY: `canceller` is NULL or a canceller, which nobody uses any more.
        unsafe { free(canceller, "canceller") }
    });
}
