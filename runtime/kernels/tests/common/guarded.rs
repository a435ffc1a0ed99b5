//! Memory that ends where the process must not read or write: a kernel that goes one byte too far
//! ends it.

/// Bytes up to the end of their memory, behind which lies a page that nobody may touch, as another
/// lies before that memory; on systems other than Unix, bytes with nothing around them in particular.
/// They begin at a multiple of 64 if their number is one, and at the page before them if it is one of
/// 65 536.
pub struct Guarded {
    memory: Memory,
    count: usize,
}

impl Guarded {
    /// So many bytes, 0 each.
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
        // SAFETY: new memory, of which both ends are made inaccessible before anyone sees it.
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
        // SAFETY: so many bytes were mapped, and nobody else has them.
        unsafe { core::slice::from_raw_parts_mut(self.start, self.count) }
    }
}

#[cfg(unix)]
impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: it was mapped like that, and nobody borrows it.
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
