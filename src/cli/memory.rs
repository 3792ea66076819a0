//! What happens when there is no memory left: a sentence and the exit code for it, rather than the abort that
//! Rust ends a program with.

use crate::error::Kind;
use std::{
    alloc::{GlobalAlloc, Layout, System},
    io::Write,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

/// The system's allocator. Where it has no memory left, the program ends.
pub struct SystemOrExit;

// SAFETY: all memory is the system allocator's.
unsafe impl GlobalAlloc for SystemOrExit {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        or_exit(unsafe { System.alloc(layout) }, layout.size())
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        or_exit(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }
    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        or_exit(unsafe { System.realloc(memory, layout, size) }, size)
    }
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        unsafe { System.dealloc(memory, layout) }
    }
}

#[inline]
fn or_exit(memory: *mut u8, bytes: usize) -> *mut u8 {
    if memory.is_null() {
        exit(bytes);
    }
    memory
}

#[cold]
fn exit(bytes: usize) {
    thread_local!(static HERE: u8 = const { 0 });
    static ENDING: AtomicUsize = AtomicUsize::new(0);
    let here = HERE.with(|place| std::ptr::from_ref(place).addr());
    match ENDING.compare_exchange(0, here, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => (),
        // What ends the program asks for memory too: it gets none.
        Err(thread) if thread == here => return,
        // Another thread ends the program.
        Err(_) => loop {
            std::thread::sleep(Duration::from_secs(1));
        },
    }
    // Nothing here allocates: the text is written into an array.
    let mut text = [0; 200];
    let mut rest = &mut text[..];
    let written = writeln!(
        rest,
        "error: there is not enough memory: {bytes} bytes could not be allocated; use a smaller model or a \
         shorter context (--ctx), or allow the program more memory"
    );
    let left = rest.len();
    if written.is_ok() {
        // Nothing can be done if that fails.
        let _ = std::io::stderr().write_all(&text[..text.len() - left]);
    }
    std::process::exit(Kind::Memory.exit_code().into());
}
