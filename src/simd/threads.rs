//! Threads that cost little to call: they wait for work spinning, and sleep only when none has come for a while.
//!
//! A decoded token is some two hundred passes of a few microseconds each; to wake a sleeping thread takes longer
//! than that, which is what pools for coarser work do.

use std::{
    cell::UnsafeCell,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
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

/// What is to be done for each of 0..pieces. The lifetime is the caller's, who waits until all are done.
#[derive(Clone, Copy)]
struct Job {
    work: *const (dyn Fn(usize) + Sync),
    pieces: usize,
}

struct Shared {
    /// Written by the caller while no worker is at work, read by workers once `jobs` has grown.
    job: UnsafeCell<Option<Job>>,
    /// Jobs so far.
    jobs: AtomicUsize,
    /// The piece to be taken next.
    next: AtomicUsize,
    /// Workers that have not seen the last of the job.
    at_work: AtomicUsize,
    asleep: AtomicUsize,
    panicked: AtomicBool,
    ended: AtomicBool,
}

// SAFETY: `job` is written only while `at_work` is zero, before `jobs` is released, and read only between the
// acquisition of `jobs` and the release of `at_work`; what it points at is Sync.
unsafe impl Sync for Shared {}
unsafe impl Send for Shared {}

impl Shared {
    /// Takes pieces until there are none.
    fn work(&self, job: Job) {
        // SAFETY: the caller of `for_each` keeps the closure until `at_work` is zero.
        let work = unsafe { &*job.work };
        loop {
            let piece = self.next.fetch_add(1, Ordering::Relaxed);
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
            while self.jobs.load(Ordering::Acquire) == seen {
                spins += 1;
                if spins.is_multiple_of(128) && waiting_since.elapsed() > PATIENCE {
                    // Announced before the last look, and the caller looks after it has announced: one sees the other.
                    self.asleep.fetch_add(1, Ordering::SeqCst);
                    while self.jobs.load(Ordering::SeqCst) == seen {
                        thread::park();
                    }
                    self.asleep.fetch_sub(1, Ordering::SeqCst);
                }
                std::hint::spin_loop();
            }
            seen += 1;
            if self.ended.load(Ordering::Acquire) {
                return;
            }
            // SAFETY: see `Shared`.
            let job = unsafe { *self.job.get() }.expect("a job before `jobs` grows");
            if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.work(job))).is_err() {
                self.panicked.store(true, Ordering::Relaxed);
            }
            self.at_work.fetch_sub(1, Ordering::Release);
        }
    }

    fn start(&self, sleepers: impl Iterator<Item = Thread>) {
        self.jobs.fetch_add(1, Ordering::SeqCst);
        if self.asleep.load(Ordering::SeqCst) > 0 {
            sleepers.for_each(|thread| thread.unpark());
        }
    }
}

impl Threads {
    pub fn new(count: usize) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            job: UnsafeCell::new(None),
            jobs: AtomicUsize::new(0),
            next: AtomicUsize::new(0),
            at_work: AtomicUsize::new(0),
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
        // SAFETY: only the lifetime is another; no worker holds the job when this returns, for it waits for all of
        // them, and also where the caller's own share panics.
        let work: &'static (dyn Fn(usize) + Sync) = unsafe { std::mem::transmute(work) };
        let job = Job { work, pieces };
        // SAFETY: no worker is at work, and none looks before `jobs` grows; `&mut self`: there is no other caller.
        unsafe { *shared.job.get() = Some(job) };
        shared.next.store(0, Ordering::Relaxed);
        shared.at_work.store(self.workers.len(), Ordering::Relaxed);
        shared.start(self.workers.iter().map(|worker| worker.thread().clone()));
        let own = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| shared.work(job)));
        let mut spins = 0u32;
        while shared.at_work.load(Ordering::Acquire) > 0 {
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
        self.shared.start(self.workers.iter().map(|worker| worker.thread().clone()));
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
