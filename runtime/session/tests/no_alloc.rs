//! A fully integer model does not allocate after its first inference.

mod models;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use hardtack::{Bundle, Session, SessionOptions, View, ViewMut};

/// The system allocator with a count of the calls on each thread.
struct Counting;

thread_local! {
    static CALLS: Cell<usize> = const { Cell::new(0) };
}

fn count() {
    CALLS.with(|calls| calls.set(calls.get() + 1));
}

// SAFETY: every method passes its arguments to the system allocator unchanged and returns its
// result, so the contract of `GlobalAlloc` holds for this type as it holds for `System`. Counting
// accesses a thread-local without a destructor, which does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller ensures that `layout` has a non-zero size, as `alloc` requires.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count();
        // SAFETY: `block` was allocated by `System` through this allocator, and the caller ensures
        // that `layout` is the layout it was allocated with.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: `block` was allocated by `System` with `layout`, and the caller ensures that
        // `size` is not 0 and does not overflow `isize` when rounded up to the alignment of
        // `layout`.
        unsafe { System.realloc(block, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Returns the number of allocator calls that `run` makes on this thread.
fn calls(run: impl FnOnce()) -> usize {
    let before = CALLS.with(Cell::get);
    run();
    CALLS.with(Cell::get) - before
}

#[test]
fn the_allocator_is_counted() {
    assert!(calls(|| drop(Box::new(std::hint::black_box(1)))) >= 2);
}

#[test]
fn inferences_after_the_first_do_not_allocate() {
    let bundle = Bundle::from_bytes(models::relu().finish().unwrap()).unwrap();
    let mut session = Session::new(&bundle).unwrap();
    assert!(session.is_integer());
    let x = [-1.0f32, 0.0, 1.0, 2.0, 3.0, -4.0, 5.0, 0.6];
    let mut y = [9.0f32; 8];
    let mut run = || {
        session.run_into(&[("x", View::F32(&x))], &mut [("y", ViewMut::F32(&mut y))]).unwrap();
    };
    run();
    assert_eq!(calls(|| (0..10).for_each(|_| run())), 0);
    assert_eq!(y, [0.0, 0.0, 1.0, 2.0, 3.0, 0.0, 5.0, 0.5]);
}

#[test]
fn kept_states_and_unnamed_outputs_do_not_allocate() {
    let bundle = Bundle::from_bytes(models::counter().finish().unwrap()).unwrap();
    let options = SessionOptions { keep_state: true, ..SessionOptions::default() };
    let mut session = Session::with_options(&bundle, options).unwrap();
    let mut y = [0i8; 4];
    let mut run = || {
        session
            .run_into(&[("x", View::I8(&[1, 2, 3, -4]))], &mut [("y", ViewMut::I8(&mut y))])
            .unwrap();
    };
    run();
    assert_eq!(calls(|| (0..9).for_each(|_| run())), 0);
    assert_eq!(y, [10, 20, 30, -40]);
}
