//! Limits of a session, and how an inference is stopped.

use std::fmt;
use std::sync::Arc;
#[cfg(feature = "float")]
use std::sync::atomic::AtomicU64;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Upper bounds on what loading and running a bundle may use.
///
/// A bundle of a few hundred bytes can ask for an arena of a gigabyte or for hours of arithmetic. A
/// session compares the needs of the model with these limits before it allocates or computes, and
/// rejects the model with an error that names the limit. The defaults suit models that fit a phone.
/// Raise them for larger models, and lower them for bundles of unknown origin.
///
/// ```
/// use std::time::Duration;
///
/// let limits = hardtack::Limits::default()
///     .with_memory_bytes(64 << 20)
///     .with_operations(1_000_000_000)
///     .with_run_time(Duration::from_secs(1));
/// assert_eq!(limits.memory_bytes, 64 << 20);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// The maximum number of bytes that a session may hold: copies of weights, constants, arenas
    /// and the values that are alive at the same time, outputs among them. Default: 4 GiB, or 1 GiB
    /// where addresses have 32 bits.
    ///
    /// Bytes that are used directly from the bundle do not count, nor do the caller's inputs.
    pub memory_bytes: u64,
    /// The maximum number of element operations of one inference on one sample, such as the
    /// multiply-accumulates of a convolution or the comparisons of a pooling window. Each node that
    /// runs in float counts another 16 384 operations, as do each iteration of a loop and each node
    /// in it.
    /// Default: 2⁴¹ (2.2 · 10¹²).
    pub operations: u64,
    /// The maximum time of one call that runs the model, and of loading a float model; `None`, the
    /// default, means no maximum.
    ///
    /// The time is checked between operations, so an inference may exceed it by the duration of its
    /// slowest operation.
    pub run_time: Option<Duration>,
}

impl Limits {
    /// No limits. Use only for bundles from trusted sources.
    pub const NONE: Limits =
        Limits { memory_bytes: u64::MAX, operations: u64::MAX, run_time: None };

    /// Returns these limits with another [`Limits::memory_bytes`].
    pub const fn with_memory_bytes(self, memory_bytes: u64) -> Limits {
        Limits { memory_bytes, ..self }
    }

    /// Returns these limits with another [`Limits::operations`].
    pub const fn with_operations(self, operations: u64) -> Limits {
        Limits { operations, ..self }
    }

    /// Returns these limits with another [`Limits::run_time`].
    pub const fn with_run_time(self, run_time: Duration) -> Limits {
        Limits { run_time: Some(run_time), ..self }
    }

    pub(crate) fn check_memory(&self, needed: u64) -> Result<(), Exceeded> {
        let (resource, limit) = (Resource::Memory, self.memory_bytes);
        if needed <= limit { Ok(()) } else { Err(Exceeded { resource, needed, limit }) }
    }

    pub(crate) fn check_operations(&self, needed: u64) -> Result<(), Exceeded> {
        let (resource, limit) = (Resource::Operations, self.operations);
        if needed <= limit { Ok(()) } else { Err(Exceeded { resource, needed, limit }) }
    }
}

impl Limits {
    /// Subtracts the operations of one inference from those that are left.
    pub(crate) fn spend(&self, left: u64, operations: u64) -> Result<u64, Exceeded> {
        left.checked_sub(operations).ok_or(Exceeded {
            resource: Resource::Operations,
            needed: self.operations.saturating_add(1),
            limit: self.operations,
        })
    }
}

impl Default for Limits {
    fn default() -> Limits {
        let memory_bytes = if usize::BITS < 64 { 1 << 30 } else { 4 << 30 };
        Limits { memory_bytes, operations: 1 << 41, run_time: None }
    }
}

/// The error of a model that exceeds a limit.
///
/// # Examples
///
/// ```
/// use hardtack::{Bundle, Error, Limits, SessionOptions, Resource, Session};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/frozen/programs");
/// # std::env::set_current_dir(folder)?;
/// let bundle = Bundle::open("kws_dscnn.tack")?;
/// let limits = Limits::default().with_operations(1_000_000);
/// let options = SessionOptions { limits, ..SessionOptions::default() };
/// let error = Session::with_options(&bundle, options).err();
/// let Some(Error::Exceeded(exceeded)) = error else { panic!("{error:?}") };
/// assert_eq!(exceeded.resource, Resource::Operations);
/// println!("the model needs {} operations", exceeded.needed);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exceeded {
    /// The limited resource.
    pub resource: Resource,
    /// The amount that the model needs: bytes or operations. A lower bound if some needs are
    /// unknown.
    pub needed: u64,
    /// The limit, in the same unit.
    pub limit: u64,
}

/// A resource that [`Limits`] bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Resource {
    /// Memory in bytes; see [`Limits::memory_bytes`].
    Memory,
    /// Element operations; see [`Limits::operations`].
    Operations,
}

impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Exceeded { resource, needed, limit } = self;
        match resource {
            Resource::Memory => write!(
                f,
                "the model needs at least {needed} bytes of memory, beyond the limit of {limit}; \
                 raise the memory limit if you trust it"
            ),
            Resource::Operations => write!(
                f,
                "one inference takes at least {needed} operations, beyond the limit of {limit}; \
                 raise the operations limit if you trust the model"
            ),
        }
    }
}

impl std::error::Error for Exceeded {}

/// The reason why an inference was stopped early.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// use hardtack::{Bundle, Error, Limits, SessionOptions, Session, Stopped, Tensor};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/frozen/programs");
/// # std::env::set_current_dir(folder)?;
/// let bundle = Bundle::open("kws_dscnn.tack")?;
/// let limits = Limits::default().with_run_time(Duration::from_nanos(1));
/// let options = SessionOptions { limits, ..SessionOptions::default() };
/// let mut session = Session::with_options(&bundle, options)?;
/// let features = Tensor::new(&[1, 49, 10, 1], vec![0.5f32; 490]).unwrap();
/// let error = session.run(&[("mfcc", &features)]).unwrap_err();
/// assert!(matches!(error, Error::Stopped(Stopped::OutOfTime { .. })));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Stopped {
    /// [`Canceller::cancel`] was called.
    #[error("the inference was canceled")]
    Cancelled,
    /// Loading the model, or the inference, took longer than [`Limits::run_time`].
    #[error("loading or running the model took longer than its limit of {} ms", limit.as_millis())]
    OutOfTime {
        /// The limit.
        limit: Duration,
    },
}

/// Stops the inferences of a session from another thread. Clones control the same session.
///
/// After [`Canceller::cancel`], the inference in progress ends with [`Stopped::Cancelled`] before
/// its next operation. Every later inference also ends so until [`Canceller::reset`] is called.
///
/// # Examples
///
/// ```
/// use hardtack::{Bundle, Error, Session, Stopped, Tensor};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/frozen/programs");
/// # std::env::set_current_dir(folder)?;
/// let mut session = Session::new(&Bundle::open("kws_dscnn.tack")?)?;
/// let canceller = session.canceller();
/// std::thread::spawn(move || canceller.cancel()).join().unwrap();
///
/// let features = Tensor::new(&[1, 49, 10, 1], vec![0.5f32; 490]).unwrap();
/// let error = session.run(&[("mfcc", &features)]).unwrap_err();
/// assert!(matches!(error, Error::Stopped(Stopped::Cancelled)));
///
/// session.canceller().reset();
/// session.run(&[("mfcc", &features)])?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Canceller(Arc<AtomicBool>);

impl Canceller {
    /// Stops the inference in progress and every later one.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Allows the session to run again.
    pub fn reset(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// Returns whether inferences are canceled.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The conditions that stop one inference: a canceller, a deadline and a memory limit for values
/// whose size is known only during the inference. Clones belong to the same inference.
#[derive(Clone, Debug, Default)]
pub(crate) struct Control {
    canceller: Canceller,
    deadline: Option<(Instant, Duration)>,
    #[cfg(feature = "float")]
    memory: Option<Memory>,
    /// The maximum number of operations of one evaluation of ONNX operators; `None` for no limit.
    #[cfg(feature = "float")]
    operations: Option<u64>,
}

/// The number of bytes that an inference may still use.
#[cfg(feature = "float")]
#[derive(Clone, Debug)]
struct Memory {
    left: Arc<AtomicU64>,
    limit: u64,
}

impl Control {
    /// Starts the control of an inference that begins now.
    pub(crate) fn start(canceller: &Canceller, limits: &Limits) -> Control {
        let deadline =
            limits.run_time.and_then(|limit| Some((Instant::now().checked_add(limit)?, limit)));
        Control {
            canceller: canceller.clone(),
            deadline,
            #[cfg(feature = "float")]
            memory: None,
            #[cfg(feature = "float")]
            operations: Some(limits.operations),
        }
    }

    /// Returns the maximum number of operations of one evaluation of ONNX operators.
    #[cfg(feature = "float")]
    pub(crate) fn operations(&self) -> u64 {
        self.operations.unwrap_or(u64::MAX)
    }

    /// Adds a limit, in bytes, on the memory of an inference: the `planned` bytes, and values whose
    /// size is known only during the inference.
    #[cfg(feature = "float")]
    pub(crate) fn with_memory(self, planned: u64, limit: u64) -> Control {
        let left = Arc::new(AtomicU64::new(limit.saturating_sub(planned)));
        Control { memory: Some(Memory { left, limit }), ..self }
    }

    /// Subtracts the bytes of a value from the memory that is left.
    #[cfg(feature = "float")]
    pub(crate) fn take_memory(&self, bytes: u64) -> Result<(), Exceeded> {
        let checked = self.check_room(bytes);
        if let Some(Memory { left, .. }) = &self.memory {
            left.store(left.load(Ordering::Relaxed).saturating_sub(bytes), Ordering::Relaxed);
        }
        checked
    }

    /// Checks that this many bytes of memory are left.
    #[cfg(feature = "float")]
    pub(crate) fn check_room(&self, bytes: u64) -> Result<(), Exceeded> {
        let Some(Memory { left, limit }) = &self.memory else { return Ok(()) };
        let left = left.load(Ordering::Relaxed);
        if bytes <= left {
            return Ok(());
        }
        let needed = (limit - left).saturating_add(bytes);
        Err(Exceeded { resource: Resource::Memory, needed, limit: *limit })
    }

    /// Returns the number of bytes that the inference may still use.
    #[cfg(feature = "float")]
    pub(crate) fn memory_left(&self) -> u64 {
        self.memory.as_ref().map_or(u64::MAX, |memory| memory.left.load(Ordering::Relaxed))
    }

    /// Sets the remaining memory back to the result of an earlier [`Control::memory_left`].
    #[cfg(feature = "float")]
    pub(crate) fn give_back_memory(&self, left: u64) {
        if let Some(memory) = &self.memory {
            memory.left.store(left, Ordering::Relaxed);
        }
    }

    /// Returns an error if the inference must stop.
    pub(crate) fn check(&self) -> Result<(), Stopped> {
        if self.canceller.is_cancelled() {
            return Err(Stopped::Cancelled);
        }
        match self.deadline {
            Some((deadline, limit)) if Instant::now() >= deadline => {
                Err(Stopped::OutOfTime { limit })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_canceled_session_stays_canceled_until_reset() {
        let canceller = Canceller::default();
        let control = Control::start(&canceller.clone(), &Limits::default());
        assert_eq!(control.check(), Ok(()));
        canceller.cancel();
        assert_eq!(control.check(), Err(Stopped::Cancelled));
        assert_eq!(Control::start(&canceller, &Limits::default()).check(), Err(Stopped::Cancelled));
        canceller.reset();
        assert_eq!(control.check(), Ok(()));
    }

    #[test]
    fn a_deadline_that_has_passed_stops_the_inference() {
        let limit = Duration::from_nanos(1);
        let control =
            Control::start(&Canceller::default(), &Limits::default().with_run_time(limit));
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(control.check(), Err(Stopped::OutOfTime { limit }));
        let longest = Limits::default().with_run_time(Duration::MAX);
        assert_eq!(Control::start(&Canceller::default(), &longest).check(), Ok(()));
    }

    #[cfg(feature = "float")]
    #[test]
    fn values_share_the_memory_limit_of_an_inference() {
        let control = Control::default().with_memory(0, 100);
        assert_eq!(control.clone().take_memory(60), Ok(()));
        let left = control.memory_left();
        assert_eq!(left, 40);
        let exceeded = control.take_memory(50).unwrap_err();
        assert_eq!((exceeded.needed, exceeded.limit), (110, 100));
        control.give_back_memory(left);
        assert_eq!(control.take_memory(40), Ok(()));
        let exceeded = Control::default().with_memory(60, 100).take_memory(50).unwrap_err();
        assert_eq!((exceeded.needed, exceeded.limit), (110, 100));
        assert_eq!(Control::default().take_memory(u64::MAX), Ok(()));
    }

    #[test]
    fn errors_name_the_limit() {
        let limits = Limits::default().with_memory_bytes(100).with_operations(7);
        let text = limits.check_memory(101).unwrap_err().to_string();
        assert!(text.contains("101 bytes") && text.contains("limit of 100"), "{text}");
        let text = limits.check_operations(8).unwrap_err().to_string();
        assert!(text.contains("8 operations") && text.contains("limit of 7"), "{text}");
        assert_eq!(limits.check_memory(100).and(limits.check_operations(7)), Ok(()));
    }
}
