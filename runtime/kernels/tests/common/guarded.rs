//! Memory with guard pages: an access one byte past the end aborts the process.

/// A buffer that ends directly before a guard page. Another guard page precedes its memory, and is
/// adjacent to the buffer if the size is a multiple of 65536. The buffer is aligned to 64 if its
/// size is a multiple of 64. There are no guard pages on systems other than Unix.
pub struct Guarded {
    memory: Memory,
    count: usize,
}

impl Guarded {
    /// Allocates `count` zero bytes.
    pub fn new(count: usize) -> Self {
        Self { memory: Memory::new(count), count }
    }

    pub fn bytes(&mut self) -> &mut [u8] {
        let all = self.memory.bytes();
        let start = all.len() - self.count;
        &mut all[start..]
    }
}

#[cfg(unix)]
struct Memory {
    start: *mut u8,
    count: usize,
}

#[cfg(unix)]
impl Memory {
    const GUARD: usize = 1 << 16;

    fn new(count: usize) -> Self {
        let count = count.next_multiple_of(Self::GUARD);
        let (all, none) = (libc::PROT_READ | libc::PROT_WRITE, libc::PROT_NONE);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANON;
        let whole = count + 2 * Self::GUARD;
        // SAFETY: a new mapping of `whole` bytes. The guards are its first and last `GUARD` bytes,
        // and no reference to them exists.
        unsafe {
            let start = libc::mmap(core::ptr::null_mut(), whole, all, flags, -1, 0);
            assert_ne!(start, libc::MAP_FAILED);
            let start = start.cast::<u8>().add(Self::GUARD);
            for guard in [start.sub(Self::GUARD), start.add(count)] {
                assert_eq!(libc::mprotect(guard.cast(), Self::GUARD, none), 0);
            }
            Self { start, count }
        }
    }

    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: `count` readable and writable bytes are mapped at `start`, and `self` is borrowed
        // mutably.
        unsafe { core::slice::from_raw_parts_mut(self.start, self.count) }
    }
}

#[cfg(unix)]
impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: unmaps exactly the range that `new` mapped. No borrow is left, because `self` is
        // dropped.
        unsafe {
            libc::munmap(self.start.sub(Self::GUARD).cast(), self.count + 2 * Self::GUARD);
        }
    }
}

#[cfg(not(unix))]
struct Memory(Vec<[u8; 64]>);

#[cfg(not(unix))]
impl Memory {
    fn new(count: usize) -> Self {
        Self(vec![[0; 64]; count.div_ceil(64) + 1])
    }

    fn bytes(&mut self) -> &mut [u8] {
        let all = self.0.as_flattened_mut();
        let skip = all.as_ptr().align_offset(64);
        let count = (all.len() - skip) / 64 * 64;
        &mut all[skip..skip + count]
    }
}
