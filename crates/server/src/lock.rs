//! Locks that a panic elsewhere does not poison. For values that are whole at every moment: each change of them is one step.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Waits for the lock; never fails, and is never held across an await.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
