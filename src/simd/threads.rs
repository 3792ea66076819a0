//! A thread pool with little overhead per call: threads spin while they wait for work, and sleep only if none
//! comes for a while.
//!
//! Decoding a token takes some two hundred passes of a few microseconds each. Waking a sleeping thread, as
//! pools for coarser work do, takes longer than one pass.

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

/// How long a thread spins before it sleeps: longer than the time between two tokens.
const PATIENCE: Duration = Duration::from_micros(300);

/// The thread pool. The calling thread works too.
pub struct Threads {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

/// `work` is to be called for each of 0..pieces. It points to the caller's closure; the caller waits until no
/// worker uses it any more.
#[derive(Clone, Copy)]
struct Job {
    work: *const (dyn Fn(usize) + Sync),
    pieces: usize,
}

struct Shared {
    /// Written by the caller while the gate is shut and no worker is inside it; read by workers inside it.
    job: UnsafeCell<Option<Job>>,
    gate: Alone<Gate>,
    /// The next piece to take.
    next: Alone<AtomicUsize>,
    /// The number of sleeping workers.
    asleep: AtomicUsize,
    panicked: AtomicBool,
    ended: AtomicBool,
}

/// Gives a value that threads poll a cache line of its own.
#[repr(align(128))]
struct Alone<T>(T);

// SAFETY: `job` is written only while the gate is shut and no worker is inside, and read only inside; what it
// points to is Sync.
unsafe impl Sync for Shared {}
unsafe impl Send for Shared {}

/// Admits workers to a job until the caller shuts it, and counts those inside. The caller waits for these,
/// but not for workers that come too late, which may take milliseconds if the system runs something else on
/// their processor.
///
/// A single word: the number of the job in the upper 32 bits, then a bit that is set while the gate is open,
/// then the number of workers inside.
struct Gate(AtomicU64);

const NUMBER: u32 = 32;
const OPEN: u64 = 1 << (NUMBER - 1);

impl Gate {
    /// The number of the latest job.
    fn number(&self) -> u64 {
        self.0.load(Ordering::SeqCst) >> NUMBER
    }
    /// Increments the job's number, and opens the gate if `open`.
    fn announce(&self, open: bool) {
        let next = (self.0.load(Ordering::Relaxed) >> NUMBER).wrapping_add(1) << NUMBER;
        self.0.store(next | if open { OPEN } else { 0 }, Ordering::SeqCst);
    }
    fn shut(&self) {
        self.0.fetch_and(!OPEN, Ordering::Relaxed);
    }
    /// Whether no worker is inside. If so, everything that workers wrote inside is visible.
    fn is_empty(&self) -> bool {
        self.0.load(Ordering::Acquire) as u32 & !(OPEN as u32) == 0
    }
    /// Enters if the gate is open; returns whether it is.
    fn enter(&self) -> bool {
        let one_more = |state| (state & OPEN != 0).then_some(state + 1);
        self.0.fetch_update(Ordering::AcqRel, Ordering::Relaxed, one_more).is_ok()
    }
    fn leave(&self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
}

impl Shared {
    /// Takes and runs pieces until none is left.
    fn work(&self, job: Job) {
        // SAFETY: `for_each` returns, and the closure may go, only when no worker uses it any more.
        let work = unsafe { &*job.work };
        loop {
            let piece = self.next.0.fetch_add(1, Ordering::Relaxed);
            if piece >= job.pieces {
                return;
            }
            work(piece);
        }
    }

    /// The loop of a worker thread.
    fn worker(&self) {
        let mut seen = 0;
        loop {
            let waiting_since = Instant::now();
            let mut spins = 0u32;
            while self.gate.0.number() == seen {
                spins += 1;
                if spins.is_multiple_of(128) && waiting_since.elapsed() > PATIENCE {
                    // The worker increments `asleep` before its last look at the number, and the caller looks
                    // at `asleep` after it has changed the number: at least one of them sees the other's
                    // change.
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
                // This may be a later job than `seen`. Then the worker enters it once more and finds no
                // pieces.
                // SAFETY: see `Shared`.
                let job = unsafe { *self.job.get() }.expect("a job before the gate opens");
                if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.work(job))).is_err() {
                    self.panicked.store(true, Ordering::Relaxed);
                }
                self.gate.0.leave();
            }
        }
    }

    /// Announces a job (see [`Gate::announce`]) and wakes sleeping workers.
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
        // SAFETY: only the lifetime changes. No worker holds the job when this function returns: it shuts the
        // gate and waits for the workers inside, even if the caller's own share of the work panics.
        let work: &'static (dyn Fn(usize) + Sync) = unsafe { std::mem::transmute(work) };
        let job = Job { work, pieces };
        // SAFETY: the gate is shut and no worker is inside; there is no other caller, because of `&mut self`.
        unsafe { *shared.job.get() = Some(job) };
        shared.next.0.store(0, Ordering::Relaxed);
        shared.announce(true, self.workers.iter().map(|worker| worker.thread().clone()));
        let own = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| shared.work(job)));
        shared.gate.0.shut();
        let mut spins = 0u32;
        while !shared.gate.0.is_empty() {
            spins += 1;
            // With fewer processors than threads, a worker may be waiting for this thread's processor.
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
            // `for_each` has already reported a worker's panic.
            let _ = worker.join();
        }
    }
}

/// Rows of f32 that several threads write at the same time, in disjoint parts.
#[derive(Clone, Copy)]
pub struct Shared2d<'a> {
    values: *mut f32,
    len: usize,
    stride: usize,
    of: std::marker::PhantomData<&'a mut [f32]>,
}

// SAFETY: the callers of `part` guarantee that parts in use are disjoint.
unsafe impl Sync for Shared2d<'_> {}
unsafe impl Send for Shared2d<'_> {}

impl<'a> Shared2d<'a> {
    /// Rows that are `stride` values apart.
    pub fn new(values: &'a mut [f32], stride: usize) -> Self {
        Self { values: values.as_mut_ptr(), len: values.len(), stride, of: std::marker::PhantomData }
    }

    /// Columns of a row, to be written.
    ///
    /// # Safety
    /// There may be no other reference to any of these values.
    #[allow(clippy::mut_from_ref)] // the purpose of this type
    pub unsafe fn part(&self, row: usize, columns: Range<usize>) -> &mut [f32] {
        assert!(columns.end <= self.stride && row * self.stride + columns.end <= self.len, "within a row");
        // SAFETY: within the values, as just asserted; not shared, as the caller guarantees.
        unsafe {
            std::slice::from_raw_parts_mut(
                self.values.add(row * self.stride + columns.start),
                columns.end - columns.start,
            )
        }
    }
}
