//! Limits on the memory and work of an evaluation.
//!
//! The limits belong to the evaluating thread, so that operators need not pass them on: they call
//! [`spend`] in loops whose length a few bytes of a model can state, and
//! [`elements`](crate::shape::elements) asks [`largest`] before anything is allocated, and spends
//! the elements.

use std::cell::RefCell;
use std::rc::Rc;

use crate::error::Problem;
use crate::model::Attribute;
use crate::tensor::Tensor;
use crate::value::Value;

/// The maximum number of elements of a tensor without limits.
const MAX_ELEMENTS: usize = 1 << 31;
/// The number of operations between two calls of [`Limits::stop`].
const STEP: u64 = 1 << 20;
/// The maximum depth of sequences and optional values within each other.
const MAX_NESTING: usize = 16;
/// The number of bytes that a value takes in addition to its elements.
const VALUE_BYTES: u64 = 128;

/// What an evaluation may use.
#[derive(Clone)]
pub struct Limits {
    /// The maximum number of bytes of the values that are alive at once. A single tensor may have
    /// at most one element for every eight bytes.
    pub memory_bytes: u64,
    /// The maximum number of element operations.
    pub operations: u64,
    /// Returns whether the evaluation must stop. It is called between nodes and during long ones.
    pub stop: Rc<dyn Fn() -> bool>,
}

struct Meter {
    limits: Limits,
    used_bytes: u64,
    spent: u64,
    since_check: u64,
}

thread_local! {
    static METER: RefCell<Option<Meter>> = const { RefCell::new(None) };
}

/// Removes the limits when an evaluation ends, also by a panic.
struct Installed(Option<Meter>);

impl Drop for Installed {
    fn drop(&mut self) {
        METER.with_borrow_mut(|meter| *meter = self.0.take());
    }
}

/// Runs an evaluation within limits.
pub(crate) fn within<T>(limits: &Limits, run: impl FnOnce() -> T) -> T {
    let meter = Meter { limits: limits.clone(), used_bytes: 0, spent: 0, since_check: 0 };
    let outer = METER.with_borrow_mut(|current| current.replace(meter));
    let _installed = Installed(outer);
    run()
}

/// Returns the maximum number of elements of a tensor.
pub(crate) fn largest() -> usize {
    METER.with_borrow(|meter| {
        let limit = meter.as_ref().map_or(u64::MAX, |meter| meter.limits.memory_bytes / 8);
        usize::try_from(limit).map_or(MAX_ELEMENTS, |limit| limit.min(MAX_ELEMENTS))
    })
}

/// Counts element operations.
pub(crate) fn spend(operations: u64) -> Result<(), Problem> {
    METER.with_borrow_mut(|meter| {
        let Some(meter) = meter else { return Ok(()) };
        meter.spent = meter.spent.saturating_add(operations);
        match meter.spent > meter.limits.operations {
            true => Err(Problem::TooMuchWork { limit: meter.limits.operations }),
            false => meter.pass(operations),
        }
    })
}

/// Notes that operations were done which are counted already, so that a stop is noticed.
pub(crate) fn pass(operations: u64) -> Result<(), Problem> {
    METER.with_borrow_mut(|meter| meter.as_mut().map_or(Ok(()), |meter| meter.pass(operations)))
}

impl Meter {
    fn pass(&mut self, operations: u64) -> Result<(), Problem> {
        self.since_check = self.since_check.saturating_add(operations);
        if self.since_check >= STEP {
            self.since_check = 0;
            if (self.limits.stop)() {
                return Err(Problem::Stopped);
            }
        }
        Ok(())
    }
}

/// Counts operations in a loop with short rounds: it spends them in larger amounts.
#[derive(Default)]
pub(crate) struct Tally(u64);

impl Tally {
    /// Counts element operations.
    pub(crate) fn spend(&mut self, operations: usize) -> Result<(), Problem> {
        const AMOUNT: u64 = 1 << 12;
        self.0 = self.0.saturating_add(operations as u64);
        if self.0 < AMOUNT { Ok(()) } else { spend(std::mem::take(&mut self.0)) }
    }
}

/// Asks whether the evaluation must stop, and counts the overhead of a node.
pub(crate) fn begin_node() -> Result<(), Problem> {
    const OVERHEAD: u64 = 1 << 14;
    spend(OVERHEAD)?;
    METER.with_borrow(|meter| match meter {
        Some(meter) if (meter.limits.stop)() => Err(Problem::Stopped),
        _ => Ok(()),
    })
}

/// Counts the operands of a node, which its operator reads.
pub(crate) fn read<'a>(
    operands: impl Iterator<Item = &'a Value>,
    attributes: impl Iterator<Item = &'a Attribute>,
) -> Result<(), Problem> {
    for value in operands {
        match value {
            Value::Tensor(tensor) => spend(tensor.len() as u64)?,
            value => spend(Size::of(value)?.parts)?,
        }
    }
    attributes.map(|attribute| attribute.len() as u64).try_for_each(spend)
}

/// Counts the bytes of a new value. Refuses one that is nested too deeply.
pub(crate) fn hold(value: &Value) -> Result<(), Problem> {
    let size = Size::of(value)?;
    METER.with_borrow_mut(|meter| {
        let Some(meter) = meter else { return Ok(()) };
        meter.used_bytes = meter.used_bytes.saturating_add(size.bytes);
        match meter.used_bytes <= meter.limits.memory_bytes {
            true => Ok(()),
            false => Err(Problem::TooMuchMemory { limit: meter.limits.memory_bytes }),
        }
    })
}

/// Subtracts the bytes of a value that is dropped.
pub(crate) fn release(value: &Value) {
    if METER.with_borrow(Option::is_none) {
        return;
    }
    // The size of a value that is held was computed without an error.
    let mut size = Size::default();
    let _ = size.add(value, 0);
    METER.with_borrow_mut(|meter| {
        if let Some(meter) = meter {
            meter.used_bytes = meter.used_bytes.saturating_sub(size.bytes);
        }
    });
}

/// Values that an operator keeps while it evaluates subgraphs.
#[derive(Default)]
pub(crate) struct Kept(u64);

impl Kept {
    /// Counts the bytes of a value until this is dropped.
    pub(crate) fn hold(&mut self, value: &Value) -> Result<(), Problem> {
        self.0 = self.0.saturating_add(Size::of(value)?.bytes);
        hold(value)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        METER.with_borrow_mut(|meter| {
            if let Some(meter) = meter {
                meter.used_bytes = meter.used_bytes.saturating_sub(self.0);
            }
        });
    }
}

/// Returns an error if strings take too much memory.
pub(crate) fn check_text(bytes: usize) -> Result<(), Problem> {
    let limit = largest().saturating_mul(8) as u64;
    spend(bytes as u64 / 8)?;
    if bytes as u64 <= limit { Ok(()) } else { Err(Problem::TooMuchMemory { limit }) }
}

/// The size of a value, and the number of its parts: values and strings.
#[derive(Default)]
struct Size {
    bytes: u64,
    parts: u64,
}

impl Size {
    fn of(value: &Value) -> Result<Self, Problem> {
        let mut size = Self::default();
        size.add(value, 0)?;
        spend(size.parts)?;
        Ok(size)
    }

    /// Adds a value that is nested in others. Values that share parts may have exponentially many,
    /// so it ends when there are more than memory allows.
    fn add(&mut self, value: &Value, depth: usize) -> Result<(), Problem> {
        if depth > MAX_NESTING {
            return Err(Problem::Invalid(format!(
                "sequences and optional values are nested more than {MAX_NESTING} deep"
            )));
        }
        self.parts += 1;
        self.bytes = self.bytes.saturating_add(VALUE_BYTES);
        if self.bytes / 8 > largest() as u64 + VALUE_BYTES {
            return Err(Problem::TooMuchMemory { limit: largest() as u64 * 8 });
        }
        match value {
            Value::Tensor(tensor) => self.add_tensor(tensor),
            Value::Sequence(values) => {
                values.iter().try_for_each(|value| self.add(value, depth + 1))?;
            }
            Value::Optional(value) => {
                value.iter().try_for_each(|value| self.add(value, depth + 1))?;
            }
            Value::Maps { keys, values } => {
                self.add_tensor(keys);
                self.add_tensor(values);
            }
        }
        Ok(())
    }

    fn add_tensor(&mut self, tensor: &Tensor) {
        let bytes = match tensor.element().bits() {
            Some(bits) => (tensor.len() as u64).saturating_mul(bits.max(8) as u64 / 8),
            None => {
                self.parts = self.parts.saturating_add(tensor.len() as u64);
                let strings = tensor.len() as u64 * size_of::<String>() as u64;
                strings.saturating_add(tensor.text_bytes() as u64)
            }
        };
        self.bytes = self.bytes.saturating_add(bytes);
    }
}
