//! Threads that cost little to call: they wait for work spinning, and sleep only when none has come for a while.
//!
//! A decoded token is some two hundred passes of a few microseconds each; to wake a sleeping thread takes longer
//! than that, which is what pools for coarser work do.

use std::{
    cell::UnsafeCell,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle, Thread},
    time::{Duration, Instant},
};

/// How long a thread spins for more work before it sleeps: longer than what lies between two tokens.
const PATIENCE: Duration = Duration::from_micros(300);

/// A number of threads, the caller's own among them.
pub struct Threads {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

/// What is to be done for each of 0..pieces. The lifetime is the caller's, who waits until nobody is at it.
#[derive(Clone, Copy)]
struct Job {
    work: *const (dyn Fn(usize) + Sync),
    pieces: usize,
}

struct Shared {
    /// Written by the caller while the gate is shut and no worker within, read by workers within.
    job: UnsafeCell<Option<Job>>,
    gate: Alone<Gate>,
    /// The piece to be taken next.
    next: Alone<AtomicUsize>,
    asleep: AtomicUsize,
    panicked: AtomicBool,
    ended: AtomicBool,
}

/// What threads look at over and over, in a cache line of its own.
#[repr(align(128))]
struct Alone<T>(T);

// SAFETY: `job` is written only while the gate is shut and nobody within, and read only within; what it points at is
// Sync.
unsafe impl Sync for Shared {}
unsafe impl Send for Shared {}

/// Lets workers at a job until there is nothing left to take, and tells whether any is still at it. One that comes too
/// late, for the system may give its processor to others for milliseconds, is not waited for.
///
/// One word: the job's number, whether the gate is open, and how many are within.
struct Gate(AtomicU64);

const NUMBER: u32 = 32;
const OPEN: u64 = 1 << (NUMBER - 1);

impl Gate {
    /// The number of the latest job.
    fn number(&self) -> u64 {
        self.0.load(Ordering::SeqCst) >> NUMBER
    }
    /// Announces another job, which workers may enter, or only its number.
    fn announce(&self, open: bool) {
        let next = (self.0.load(Ordering::Relaxed) >> NUMBER).wrapping_add(1) << NUMBER;
        self.0.store(next | if open { OPEN } else { 0 }, Ordering::SeqCst);
    }
    fn shut(&self) {
        self.0.fetch_and(!OPEN, Ordering::Relaxed);
    }
    /// Whether nobody is within; what was done there is seen then.
    fn is_empty(&self) -> bool {
        self.0.load(Ordering::Acquire) as u32 & !(OPEN as u32) == 0
    }
    /// Within, unless the gate is shut.
    fn enter(&self) -> bool {
        let one_more = |state| (state & OPEN != 0).then_some(state + 1);
        self.0.fetch_update(Ordering::AcqRel, Ordering::Relaxed, one_more).is_ok()
    }
    fn leave(&self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
}

impl Shared {
    /// Takes pieces until there are none.
    fn work(&self, job: Job) {
        // SAFETY: the caller of `for_each` keeps the closure until nobody is at it.
        let work = unsafe { &*job.work };
        loop {
            let piece = self.next.0.fetch_add(1, Ordering::Relaxed);
            if piece >= job.pieces {
                return;
            }
            work(piece);
        }
    }

    fn worker(&self) {
        let mut seen = 0;
        loop {
            let waiting_since = Instant::now();
            let mut spins = 0u32;
            while self.gate.0.number() == seen {
                spins += 1;
                if spins.is_multiple_of(128) && waiting_since.elapsed() > PATIENCE {
                    // Announced before the last look, and the caller looks after it has announced: one sees the other.
                    self.asleep.fetch_add(1, Ordering::SeqCst);
                    while self.gate.0.number() == seen {
                        thread::park();
                    }
                    self.asleep.fetch_sub(1, Ordering::SeqCst);
                }
                std::hint::spin_loop();
            }
            seen = self.gate.0.number();
            if self.ended.load(Ordering::Acquire) {
                return;
            }
            if self.gate.0.enter() {
                // A later job than `seen` may be the one entered: then it is looked at once more, in vain.
                // SAFETY: see `Shared`.
                let job = unsafe { *self.job.get() }.expect("a job before the gate opens");
                if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.work(job))).is_err() {
                    self.panicked.store(true, Ordering::Relaxed);
                }
                self.gate.0.leave();
            }
        }
    }

    fn announce(&self, open: bool, sleepers: impl Iterator<Item = Thread>) {
        self.gate.0.announce(open);
        if self.asleep.load(Ordering::SeqCst) > 0 {
            sleepers.for_each(|thread| thread.unpark());
        }
    }
}

impl Threads {
    pub fn new(count: usize) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            job: UnsafeCell::new(None),
            gate: Alone(Gate(AtomicU64::new(0))),
            next: Alone(AtomicUsize::new(0)),
            asleep: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        });
        let mut threads = Self { shared, workers: Vec::new() };
        for number in 1..count {
            let shared = threads.shared.clone();
            let worker =
                thread::Builder::new().name(format!("wgpt-{number}")).spawn(move || shared.worker())?;
            threads.workers.push(worker);
        }
        Ok(threads)
    }

    pub fn count(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `work` once for each of 0..pieces, on all threads, and returns when all are done.
    pub fn for_each(&mut self, pieces: usize, work: &(dyn Fn(usize) + Sync)) {
        if self.workers.is_empty() || pieces <= 1 {
            return (0..pieces).for_each(work);
        }
        let shared = &*self.shared;
        // SAFETY: only the lifetime is another; no worker holds the job when this returns, for it shuts the gate and waits
        // for those within, and also where the caller's own share panics.
        let work: &'static (dyn Fn(usize) + Sync) = unsafe { std::mem::transmute(work) };
        let job = Job { work, pieces };
        // SAFETY: the gate is shut and nobody within; `&mut self`: there is no other caller.
        unsafe { *shared.job.get() = Some(job) };
        shared.next.0.store(0, Ordering::Relaxed);
        shared.announce(true, self.workers.iter().map(|worker| worker.thread().clone()));
        let own = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| shared.work(job)));
        shared.gate.0.shut();
        let mut spins = 0u32;
        while !shared.gate.0.is_empty() {
            spins += 1;
            // Where there are fewer processors than threads, a worker may wait for this one's.
            if spins.is_multiple_of(1 << 12) { thread::yield_now() } else { std::hint::spin_loop() }
        }
        if let Err(panic) = own {
            std::panic::resume_unwind(panic);
        }
        assert!(!shared.panicked.load(Ordering::Relaxed), "a thread of the CPU backend panicked");
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Release);
        self.shared.announce(false, self.workers.iter().map(|worker| worker.thread().clone()));
        for worker in self.workers.drain(..) {
            // A worker's panic has been told by `for_each`.
            let _ = worker.join();
        }
    }
}

/// Rows that threads write at once, each its own columns.
#[derive(Clone, Copy)]
pub struct Shared2d<'a> {
    values: *mut f32,
    len: usize,
    stride: usize,
    of: std::marker::PhantomData<&'a mut [f32]>,
}

// SAFETY: what is written through it is disjoint, by the word of `part`'s callers.
unsafe impl Sync for Shared2d<'_> {}
unsafe impl Send for Shared2d<'_> {}

impl<'a> Shared2d<'a> {
    /// Rows so many values apart.
    pub fn new(values: &'a mut [f32], stride: usize) -> Self {
        Self { values: values.as_mut_ptr(), len: values.len(), stride, of: std::marker::PhantomData }
    }

    /// Some columns of a row.
    ///
    /// # Safety
    /// No other reference to any of them may be held.
    #[allow(clippy::mut_from_ref)] // what it is for
    pub unsafe fn part(&self, row: usize, columns: Range<usize>) -> &mut [f32] {
        assert!(columns.end <= self.stride && row * self.stride + columns.end <= self.len, "within a row");
        // SAFETY: within the values, as just seen; not shared, by the caller's word.
        unsafe {
            std::slice::from_raw_parts_mut(
                self.values.add(row * self.stride + columns.start),
                columns.end - columns.start,
            )
        }
    }
}
