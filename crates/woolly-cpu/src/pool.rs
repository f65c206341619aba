//! Persistent threads that run one task together and wait for one another.
//!
//! A fork-join costs a few hundred nanoseconds while the threads are awake: they spin for [`SPIN`] after each task, then
//! sleep until the next. It deliberately has no queue and no futures: kernels are short and alike, and one fork-join an
//! operation is all they need. Tasks whose work is claimed piece by piece do not wait for threads that never came: on a
//! machine with other work to do, a thread that has no processor takes no part instead of holding up the rest.

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::fmt;
use std::io;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

use crate::topology;

/// How long an idle thread spins before it sleeps: longer than the gaps between the operations of a step, short enough
/// not to be seen on a power meter.
pub const SPIN: Duration = Duration::from_micros(30);

type Task<'a> = dyn Fn(usize) + Sync + 'a;

/// A team of threads, of which the caller is one.
pub struct ThreadPool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    sharing: Sharing,
}

/// How the work of one operation is spread over threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sharing {
    /// Whether a thread that is done takes over work of others. Without it each has an equal part of every operation, and
    /// the slowest holds up the rest.
    pub stealing: bool,
    /// Rows of a weight in a unit of work, at least, while few tokens are computed, as in decoding; fewer only where a
    /// thread's whole part has fewer. Prompts are cut by the tiles of their kernels.
    pub unit_rows: usize,
    /// Most units of an operation that are one thread's to begin with: with fewer, units are larger.
    pub queue: usize,
}

impl Default for Sharing {
    /// Threads help each other; units of 64 rows or more, at most 256 of them a thread.
    fn default() -> Self {
        Self { stealing: true, unit_rows: 64, queue: 256 }
    }
}

/// The items of one operation, to be claimed in ranges: see [`ThreadPool::deal`].
pub(crate) struct Deal {
    next: Line<AtomicUsize>,
    items: usize,
    unit: usize,
    /// Number of fixed parts; none where whoever is free takes what is next.
    parts: Option<usize>,
}

impl Deal {
    /// Returns the ranges that fall to a thread, one after the other; they overlap with nobody else's.
    pub(crate) fn of(&self, thread: usize) -> impl Iterator<Item = Range<usize>> {
        let end = |part: usize, parts: usize| self.items * part / parts;
        let mut own = self.parts.map(|parts| end(thread, parts)..end(thread + 1, parts));
        std::iter::from_fn(move || {
            let (start, limit) = match &mut own {
                None => (self.next.0.fetch_add(self.unit, Ordering::Relaxed), self.items),
                Some(own) => {
                    let next = own.end.min(own.start + self.unit);
                    (std::mem::replace(&mut own.start, next), own.end)
                }
            };
            (start < limit).then(|| start..limit.min(start + self.unit))
        })
    }
}

/// A value alone on its cache line (a pair of them: processors prefetch neighbours).
#[repr(align(128))]
struct Line<T>(T);

struct Shared {
    /// The state of the current task in one word, see [`State`].
    state: Line<AtomicU64>,
    /// The current task; written by the caller while no worker runs, read by workers that have entered it.
    task: UnsafeCell<Option<*const Task<'static>>>,
    /// Whether each worker sleeps and needs a wake-up.
    sleeping: Vec<Line<AtomicBool>>,
    /// Whether the caller sleeps until the last worker finishes.
    caller_sleeps: AtomicBool,
    caller: Mutex<Option<Thread>>,
    stop: AtomicBool,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    /// Held during a task: callers of other threads take turns.
    turn: Mutex<()>,
}

/// Number of the current task, who may enter it, and how many workers are inside.
///
/// In one word, so that a worker enters the task it has seen or none.
#[derive(Clone, Copy, PartialEq, Eq)]
struct State(u64);

impl State {
    /// Workers may enter, and count themselves when they do.
    const OPEN: u64 = 1 << 31;
    /// Every worker has been counted already, and must enter.
    const EVERYONE: u64 = 1 << 30;

    /// The state at the start of the next task.
    fn next(self, entry: u64) -> Self {
        Self(u64::from(self.number().wrapping_add(1)) << 32 | entry)
    }

    /// A change is the signal to start.
    fn number(self) -> u32 {
        (self.0 >> 32) as u32
    }

    fn workers(self) -> u64 {
        self.0 & (Self::EVERYONE - 1)
    }
}

// SAFETY: `task` is the only field without its own synchronisation. It is written under `turn` while no worker is inside
// and none can enter, and read by workers inside; entering and leaving are SeqCst changes of `state`.
unsafe impl Sync for Shared {}
// SAFETY: the pointer in `task` refers to a `Sync` closure that outlives the task (see `ThreadPool::run`).
unsafe impl Send for Shared {}

thread_local! {
    /// The pool whose task this thread is running, to recognise nested use.
    static INSIDE: Cell<*const Shared> = const { Cell::new(ptr::null()) };
}

impl ThreadPool {
    /// Starts `threads - 1` threads (at least none); with `pin`, each is bound to its own processor of the affinity mask.
    ///
    /// The calling thread takes part as number 0 and is never pinned: it belongs to the caller.
    ///
    /// # Errors
    /// When the system refuses a thread; those already started are joined.
    pub fn new(threads: usize, pin: bool) -> io::Result<Self> {
        let processors = if pin { topology::allowed_processors() } else { Vec::new() };
        let places: Vec<_> = processors.into_iter().map(|processor| vec![processor]).collect();
        Self::bound(threads, &places, Sharing::default())
    }

    /// Starts `threads - 1` threads (at least none), the i-th of which runs on the processors `places[i % places.len()]`
    /// only; on any where there are no places. Thread 0, the caller, is never bound. Work is spread as `sharing` says.
    ///
    /// # Errors
    /// As [`ThreadPool::new`].
    pub fn bound(threads: usize, places: &[Vec<usize>], sharing: Sharing) -> io::Result<Self> {
        let workers = threads.saturating_sub(1);
        let mut pool = Self { shared: Arc::new(Shared::new(workers)), workers: Vec::with_capacity(workers), sharing };
        for index in 1..=workers {
            let shared = Arc::clone(&pool.shared);
            let place = places.get(index % places.len().max(1)).cloned();
            let body = move || {
                if let Some(place) = place {
                    topology::bind_current_thread(&place);
                }
                shared.work(index);
            };
            pool.workers.push(thread::Builder::new().name(format!("woolly-{index}")).spawn(body)?);
        }
        Ok(pool)
    }

    /// Returns the number of threads, including the caller.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `task(i)` once for each thread `i` in `0..threads()`, the caller being 0, and returns when all are done.
    ///
    /// Called from inside a task of the same pool, it runs all indices one after another on the calling thread; tasks
    /// therefore must not wait for one another. Calls from several threads take turns.
    ///
    /// # Panics
    /// With the payload of the first panic of `task`, after all threads have finished; the pool stays usable.
    pub fn run(&self, task: &Task<'_>) {
        if self.nested() {
            return (0..self.threads()).for_each(task);
        }
        self.fork(task, State::EVERYONE | self.workers.len() as u64);
    }

    /// Calls `task(0)` on the calling thread and `task(i)` on those threads that come before it has returned, each `i` at
    /// most once at a time, and returns when all that have come are done.
    ///
    /// For tasks that claim their work piece by piece until there is none: whoever comes takes part, nobody is waited for
    /// who has not begun. Nested and concurrent calls are as with [`ThreadPool::run`].
    ///
    /// # Panics
    /// As [`ThreadPool::run`].
    pub fn share(&self, task: &Task<'_>) {
        if self.nested() {
            return task(0);
        }
        self.fork(task, State::OPEN);
    }

    /// Whether there is nobody else to run a task: no worker, or this thread is one in the middle of a task.
    fn nested(&self) -> bool {
        self.workers.is_empty() || ptr::eq(INSIDE.get(), &*self.shared)
    }

    fn fork(&self, task: &Task<'_>, entry: u64) {
        let shared = &*self.shared;
        let turn = lock(&shared.turn);
        // SAFETY: only the lifetime changes. The pointer is used by workers that have entered until they leave, and this
        // function does not return (nor unwind: the caller's own part is caught) before all have left and none can enter.
        let erased = unsafe { std::mem::transmute::<*const Task<'_>, *const Task<'static>>(task) };
        shared.start(erased, entry, &self.workers);
        shared.call(0, erased);
        shared.wait();
        let panic = lock(&shared.panic).take();
        drop(turn);
        if let Some(payload) = panic {
            resume_unwind(payload);
        }
    }

    /// Returns how work is spread.
    pub fn sharing(&self) -> Sharing {
        self.sharing
    }

    /// Calls `task(i)` on the threads that take part in work that each claims for itself: on whoever comes, as
    /// [`ThreadPool::share`], or on everyone where nobody takes over the work of others.
    ///
    /// # Panics
    /// As [`ThreadPool::run`].
    pub(crate) fn work(&self, task: &Task<'_>) {
        if self.sharing.stealing { self.share(task) } else { self.run(task) }
    }

    /// Deals out `items` items in units of `unit`, or of more where a thread would have too many.
    pub(crate) fn deal(&self, items: usize, unit: usize) -> Deal {
        let most = self.threads().saturating_mul(self.sharing.queue.max(1));
        let parts = (!self.sharing.stealing).then_some(self.threads());
        Deal { next: Line(AtomicUsize::new(0)), items, unit: unit.max(items.div_ceil(most)).max(1), parts }
    }

    /// Calls `task` with consecutive ranges of about `chunk` items that cover `0..n_items`, on whichever thread is free.
    ///
    /// # Panics
    /// As [`ThreadPool::run`].
    pub fn chunks(&self, n_items: usize, chunk: usize, task: &(dyn Fn(Range<usize>) + Sync)) {
        if n_items <= chunk.max(1) {
            if n_items > 0 {
                task(0..n_items);
            }
            return;
        }
        let deal = self.deal(n_items, chunk);
        self.work(&|thread| deal.of(thread).for_each(task));
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.announce(0, &self.workers);
        for worker in self.workers.drain(..) {
            // A worker cannot panic outside a task, and panics of tasks have been reported to their caller.
            let _ = worker.join();
        }
    }
}

impl fmt::Debug for ThreadPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThreadPool").field("threads", &self.threads()).finish_non_exhaustive()
    }
}

impl Shared {
    fn new(workers: usize) -> Self {
        Self {
            state: Line(AtomicU64::new(0)),
            task: UnsafeCell::new(None),
            sleeping: (0..workers).map(|_| Line(AtomicBool::new(false))).collect(),
            caller_sleeps: AtomicBool::new(false),
            caller: Mutex::new(None),
            stop: AtomicBool::new(false),
            panic: Mutex::new(None),
            turn: Mutex::new(()),
        }
    }

    fn state(&self) -> State {
        State(self.state.0.load(Ordering::SeqCst))
    }

    fn start(&self, task: *const Task<'static>, entry: u64, workers: &[JoinHandle<()>]) {
        // SAFETY: `turn` is held, the task before is closed and its workers have left: nobody reads the cell.
        unsafe { *self.task.get() = Some(task) };
        self.announce(entry, workers);
    }

    /// Makes the next task visible and wakes whoever sleeps.
    ///
    /// A worker raises its flag before it looks at the state for the last time, and here the state changes before the
    /// flags are read: in the one total order of these accesses, one of the two sees the other.
    fn announce(&self, entry: u64, workers: &[JoinHandle<()>]) {
        // No worker changes a closed state, so that nothing is lost between the two accesses.
        self.state.0.store(self.state().next(entry).0, Ordering::SeqCst);
        for (worker, sleeping) in workers.iter().zip(&self.sleeping) {
            if sleeping.0.swap(false, Ordering::SeqCst) {
                worker.thread().unpark();
            }
        }
    }

    fn work(&self, index: usize) {
        let mut seen = 0;
        loop {
            self.await_other_than(seen, index);
            let entered = self.enter(&mut seen);
            if self.stop.load(Ordering::SeqCst) {
                return;
            }
            if !entered {
                continue;
            }
            // SAFETY: this worker is inside the task: `start` wrote the cell before, and leaves it alone until it has left.
            if let Some(task) = unsafe { *self.task.get() } {
                self.call(index, task);
            }
            let before = State(self.state.0.fetch_sub(1, Ordering::SeqCst));
            if before.workers() == 1 && self.caller_sleeps.load(Ordering::SeqCst) {
                // Left in place: a worker that comes late to this line may wake the next task's caller, who then sleeps
                // again and must still be found by the worker that is last.
                lock(&self.caller).as_ref().inspect(|caller| caller.unpark());
            }
        }
    }

    /// Enters the current task unless it is closed; `seen` becomes its number.
    fn enter(&self, seen: &mut u32) -> bool {
        let mut state = self.state();
        loop {
            *seen = state.number();
            if state.0 & State::EVERYONE != 0 {
                return true;
            }
            if state.0 & State::OPEN == 0 {
                return false;
            }
            match self.state.0.compare_exchange_weak(state.0, state.0 + 1, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return true,
                Err(now) => state = State(now),
            }
        }
    }

    fn await_other_than(&self, seen: u32, index: usize) {
        let changed = || self.state().number() != seen;
        let sleeping = &self.sleeping[index - 1].0;
        if !spin(changed) {
            // Raised again before every look: a caller that was interrupted inside `announce` may lower the flag long after
            // this worker has finished that task.
            loop {
                sleeping.store(true, Ordering::SeqCst);
                if changed() {
                    break;
                }
                thread::park();
            }
            sleeping.store(false, Ordering::SeqCst);
        }
    }

    fn call(&self, index: usize, task: *const Task<'static>) {
        let outer = INSIDE.replace(self);
        // SAFETY: the closure behind the pointer outlives the task: `run` waits for every thread.
        let result = catch_unwind(AssertUnwindSafe(|| unsafe { (*task)(index) }));
        INSIDE.set(outer);
        if let Err(payload) = result {
            lock(&self.panic).get_or_insert(payload);
        }
    }

    /// Closes the task and waits until all workers have left it.
    fn wait(&self) {
        self.state.0.fetch_and(!State::OPEN, Ordering::SeqCst);
        let done = || self.state().workers() == 0;
        if spin(done) {
            return;
        }
        *lock(&self.caller) = Some(thread::current());
        self.caller_sleeps.store(true, Ordering::SeqCst);
        while !done() {
            thread::park();
        }
        self.caller_sleeps.store(false, Ordering::SeqCst);
    }
}

/// Spins until `ready`, for at most [`SPIN`]; returns whether it was.
fn spin(ready: impl Fn() -> bool) -> bool {
    let start = Instant::now();
    loop {
        for _ in 0..32 {
            if ready() {
                return true;
            }
            std::hint::spin_loop();
        }
        if start.elapsed() > SPIN {
            return ready();
        }
    }
}

/// Locks whether or not a holder panicked: the guarded values are replaced whole, never left half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUNS: usize = if cfg!(miri) { 50 } else { 10_000 };

    fn pools() -> impl Iterator<Item = ThreadPool> {
        [1, 2, 3, 5].into_iter().map(|threads| ThreadPool::new(threads, threads == 2 && !cfg!(miri)).unwrap())
    }

    #[test]
    fn every_thread_runs_each_task_once() {
        for pool in pools() {
            // More threads than processors wait for the scheduler's time slices in every run.
            let runs = if pool.threads() <= 2 { RUNS } else { RUNS / 50 };
            let counts: Vec<_> = (0..pool.threads()).map(|_| AtomicUsize::new(0)).collect();
            for _ in 0..runs {
                pool.run(&|i| {
                    counts[i].fetch_add(1, Ordering::Relaxed);
                });
            }
            assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == runs), "{counts:?}");
        }
    }

    #[test]
    fn sleeping_threads_wake_up() {
        let pool = ThreadPool::new(3, false).unwrap();
        let count = AtomicUsize::new(0);
        for _ in 0..5 {
            thread::sleep(SPIN * 30);
            pool.run(&|_| {
                count.fetch_add(1, Ordering::Relaxed);
            });
        }
        assert_eq!(count.into_inner(), 15);
    }

    #[test]
    fn the_caller_sleeps_through_long_tasks_of_others() {
        let pool = ThreadPool::new(2, false).unwrap();
        let slow = AtomicUsize::new(0);
        for _ in 0..3 {
            pool.run(&|i| {
                if i == 1 {
                    thread::sleep(SPIN * 30);
                    slow.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        assert_eq!(slow.into_inner(), 3);
    }

    #[test]
    fn chunks_cover_every_item_once() {
        for pool in pools() {
            for (items, chunk) in [(0, 4), (1, 4), (4, 4), (5, 4), (1000, 7), (1000, 0), (3, usize::MAX)] {
                let hits: Vec<_> = (0..items).map(|_| AtomicUsize::new(0)).collect();
                pool.chunks(items, chunk, &|range| {
                    let most = chunk.max(1).max(items.div_ceil(pool.threads() * 256));
                    assert!(!range.is_empty() && range.len() <= most);
                    range.for_each(|i| {
                        hits[i].fetch_add(1, Ordering::Relaxed);
                    });
                });
                assert!(hits.iter().all(|h| h.load(Ordering::Relaxed) == 1), "{items} items by {chunk}");
            }
        }
    }

    #[test]
    fn without_stealing_each_thread_has_its_part_and_no_other() {
        for threads in [1, 2, 3] {
            let pool = ThreadPool::bound(threads, &[], Sharing { stealing: false, ..Sharing::default() }).unwrap();
            for items in [0, 1, 2, 7, 100] {
                let owner: Vec<_> = (0..items).map(|_| AtomicUsize::new(usize::MAX)).collect();
                let deal = pool.deal(items, 3);
                pool.work(&|thread| {
                    deal.of(thread).flatten().for_each(|i| {
                        assert_eq!(owner[i].swap(thread, Ordering::Relaxed), usize::MAX, "item {i} twice");
                    });
                });
                let expected = |i: usize| (0..threads).find(|&t| i < items * (t + 1) / threads);
                for (i, owner) in owner.iter().enumerate() {
                    assert_eq!(Some(owner.load(Ordering::Relaxed)), expected(i), "{items} items, {threads} threads");
                }
            }
        }
    }

    #[test]
    fn a_thread_has_no_more_units_than_its_queue_holds() {
        for (queue, stealing) in [(1, true), (3, true), (1, false), (256, true), (0, true)] {
            let pool = ThreadPool::bound(2, &[], Sharing { queue, stealing, ..Sharing::default() }).unwrap();
            for (items, unit) in [(1000, 1), (7, 1), (1000, 400)] {
                let deal = pool.deal(items, unit);
                let units: Vec<_> = (0..2).flat_map(|thread| deal.of(thread)).collect();
                assert_eq!(units.iter().map(Range::len).sum::<usize>(), items);
                assert!(units.len() <= 2 * queue.max(1), "{queue}: {units:?}");
                let least = unit.max(items.div_ceil(2 * queue.max(1)));
                assert!(units[..units.len() - 1].iter().all(|u| u.len() >= least.min(items / 2)), "{queue}: {units:?}");
            }
        }
    }

    #[test]
    fn a_thread_that_does_not_come_is_not_waited_for() {
        // A worker without a thread: it never comes by itself, and the caller would wait for ever.
        let shared = Shared::new(1);
        let calls = AtomicUsize::new(0);
        let count = |_: usize| {
            calls.fetch_add(1, Ordering::Relaxed);
        };
        let task: &Task<'_> = &count;
        // SAFETY: only the lifetime changes; the closure outlives every use below.
        let task = unsafe { std::mem::transmute::<*const Task<'_>, *const Task<'static>>(task) };
        let mut seen = 0;
        for round in 1..=3 {
            shared.start(task, State::OPEN, &[]);
            if round == 2 {
                assert!(shared.enter(&mut seen), "an open task takes whoever comes");
                assert_eq!(shared.state().workers(), 1);
                shared.state.0.fetch_sub(1, Ordering::SeqCst);
            }
            shared.call(0, task);
            shared.wait();
            assert!(!shared.enter(&mut seen), "whoever is late does not enter what is closed");
            assert_eq!((seen, calls.load(Ordering::Relaxed)), (round, round as usize));
        }
    }

    #[test]
    fn shared_work_is_done_by_whoever_comes() {
        for pool in pools() {
            let left = AtomicUsize::new(0);
            for _ in 0..RUNS / 50 {
                left.store(20, Ordering::SeqCst);
                let inside: Vec<_> = (0..pool.threads()).map(|_| AtomicUsize::new(0)).collect();
                pool.share(&|i| {
                    assert_eq!(inside[i].fetch_add(1, Ordering::SeqCst), 0, "an index is in use once at a time");
                    while left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok() {}
                    inside[i].fetch_sub(1, Ordering::SeqCst);
                });
                assert_eq!(left.load(Ordering::SeqCst), 0);
                assert!(inside.iter().all(|i| i.load(Ordering::SeqCst) == 0), "all that came have left");
            }
        }
    }

    #[test]
    fn nested_use_runs_on_the_calling_thread() {
        for pool in pools() {
            let n = pool.threads();
            let count = AtomicUsize::new(0);
            pool.run(&|_| {
                let here = thread::current().id();
                pool.run(&|_| {
                    assert_eq!(thread::current().id(), here);
                    count.fetch_add(1, Ordering::Relaxed);
                });
            });
            assert_eq!(count.into_inner(), n * n);
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_survives() {
        for pool in pools() {
            for culprit in 0..pool.threads() {
                let finished = AtomicUsize::new(0);
                let result = catch_unwind(AssertUnwindSafe(|| {
                    pool.run(&|i| {
                        if i == culprit {
                            resume_unwind(Box::new("injected"));
                        }
                        finished.fetch_add(1, Ordering::Relaxed);
                    });
                }));
                assert_eq!(result.unwrap_err().downcast_ref(), Some(&"injected"));
                if pool.threads() > 1 {
                    assert_eq!(finished.into_inner(), pool.threads() - 1, "the others finish first");
                }
                pool.run(&|_| {});
            }
        }
    }

    #[test]
    fn callers_of_several_threads_take_turns() {
        let pool = ThreadPool::new(2, false).unwrap();
        let count = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..RUNS / 50 {
                        pool.run(&|_| {
                            count.fetch_add(1, Ordering::Relaxed);
                        });
                    }
                });
            }
        });
        assert_eq!(count.into_inner(), 3 * 2 * (RUNS / 50));
    }

    #[test]
    fn dropping_joins_idle_and_sleeping_threads() {
        drop(ThreadPool::new(4, false).unwrap());
        let pool = ThreadPool::new(4, false).unwrap();
        pool.run(&|_| {});
        thread::sleep(SPIN * 30);
        let shared = Arc::downgrade(&pool.shared);
        drop(pool);
        assert!(shared.upgrade().is_none(), "every worker has let go of the shared state");
    }
}
