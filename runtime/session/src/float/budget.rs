//! The memory and time that loading and preparing a model may take.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::limits::{Control, Exceeded, Resource};

/// The limits of preparing a model. Clones belong to the same model.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    /// Ends the preparation early.
    pub control: Control,
    /// The maximum number of bytes of each value, and of all constants together.
    pub memory: u64,
    /// The number of bytes of the model's own constants, lists of window elements, and packed
    /// matrices.
    kept: Arc<AtomicU64>,
}

impl Budget {
    /// Creates a budget of `memory` bytes. `control` may end the preparation.
    pub fn new(control: Control, memory: u64) -> Budget {
        Budget { control, memory, kept: Arc::default() }
    }

    /// Creates a budget of `memory` bytes without a time limit.
    #[cfg(any(test, feature = "export"))]
    pub fn of_memory(memory: u64) -> Budget {
        Budget::new(Control::default(), memory)
    }

    /// Adds bytes that are held in addition to the constants and values of the tract model.
    pub fn take_kept(&self, bytes: u64) -> Result<(), Exceeded> {
        let all = self.kept.load(Ordering::Relaxed).saturating_add(bytes);
        self.kept.store(all, Ordering::Relaxed);
        self.check_memory(0).map(drop)
    }

    /// Checks that this many bytes fit, besides those of [`Budget::take_kept`]. Returns the sum.
    pub fn check_memory(&self, needed: u64) -> Result<u64, Exceeded> {
        let needed = needed.saturating_add(self.kept.load(Ordering::Relaxed));
        let (resource, limit) = (Resource::Memory, self.memory);
        if needed <= limit { Ok(needed) } else { Err(Exceeded { resource, needed, limit }) }
    }
}

/// The part of a budget that a loader has used.
#[derive(Debug, Default)]
pub(super) struct Used {
    bytes: Cell<u64>,
    operations: Cell<u64>,
    discarded: Cell<u64>,
}

/// The number of bytes of constants that tract may compute and discard in each pass.
const MOST_DISCARDED: u64 = 1 << 28;

/// The maximum number of operations of nodes that compute constants, apart from those that take few
/// operations for each element. tract computes constants while it optimizes, where no limit of time
/// applies.
const MOST_CONSTANT_OPERATIONS: u64 = 1 << 28;

impl Used {
    /// Adds the bytes of what is kept until the model is freed.
    pub fn take_memory(&self, bytes: u64, budget: &Budget) -> Result<(), Exceeded> {
        self.bytes.set(self.bytes.get().saturating_add(bytes));
        self.check_memory(0, budget)
    }

    /// Checks that this many bytes fit for a moment, besides those of [`Used::take_memory`].
    pub fn check_memory(&self, bytes: u64, budget: &Budget) -> Result<(), Exceeded> {
        budget.check_memory(self.bytes.get().saturating_add(bytes)).map(drop)
    }

    /// Adds the bytes of a constant that tract computes and discards in every pass. Returns whether
    /// they are too many, so that it must be computed when the model runs.
    pub fn discard(&self, bytes: u64) -> bool {
        self.discarded.set(self.discarded.get().saturating_add(bytes));
        self.discarded.get() > MOST_DISCARDED
    }

    /// Adds the operations of a node that computes a constant.
    pub fn take_operations(&self, operations: u64) -> Result<(), &'static str> {
        self.operations.set(self.operations.get().saturating_add(operations));
        match self.operations.get() <= MOST_CONSTANT_OPERATIONS {
            true => Ok(()),
            false => Err("it computes a constant in too many operations; convert the model again"),
        }
    }
}
