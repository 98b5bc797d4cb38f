//! The threads that share the engine's work, made at first use, and again in a forked child: threads do not survive a fork.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use burnish_engine::look_out;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::door::lock;
use crate::processors::{Held, Thread};

/// The process that first computed.
static FIRST: OnceLock<u32> = OnceLock::new();

/// The threads of the process that made them.
static POOL: Mutex<Option<(u32, Arc<ThreadPool>)>> = Mutex::new(None);

/// The same by their places, as soon as they have started.
static STARTED: Mutex<Vec<(usize, Thread)>> = Mutex::new(Vec::new());

/// How much long work is under way.
static LONG: Mutex<usize> = Mutex::new(0);

/// Long work of the engine that is under way.
#[derive(Debug)]
pub struct Work {
    held: Vec<Held>,
    alone: bool,
}

impl Work {
    /// Says that work begins. If the threads share it, and no other is under way, each is held on a processor of its own.
    ///
    /// A virtual machine's Linux wakes a thread behind the one that wakes it, on the same processor, when the others have slept
    /// for 0.2 ms, and the two share it until it looks again: 10 to 20 ms of every fit. On devices with threads of their own nobody is
    /// held, for these are born where their parents are.
    pub fn begin(threads: usize, shared: bool) -> Self {
        let mut long = lock(&LONG);
        *long += 1;
        let alone = shared && *long == 1;
        let started = lock(&STARTED);
        let held = started.iter().filter_map(|&(place, thread)| thread.held(place, threads));
        Self { held: if alone { held.collect() } else { Vec::new() }, alone }
    }

    /// Whether the threads have nothing else to do.
    pub fn is_alone(&self) -> bool {
        self.alone
    }

    /// Lets threads go where they like; they stay where they are while they work.
    pub fn release(&mut self) {
        self.held.clear();
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.release();
        *lock(&LONG) -= 1;
    }
}

/// Threads that look out for pieces of this one's work, until this is dropped.
#[derive(Debug)]
pub struct Lookouts(Arc<AtomicBool>);

impl Lookouts {
    /// All threads of the pool but this one.
    pub fn post() -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let (here, seen) = (rayon::current_thread_index(), Arc::clone(&over));
        rayon::spawn_broadcast(move |place| {
            if Some(place.index()) != here {
                look_out(&seen);
            }
        });
        Self(over)
    }
}

impl Drop for Lookouts {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// The threads of this process.
pub fn pool() -> Arc<ThreadPool> {
    let process = std::process::id();
    let mut pool = lock(&POOL);
    if let Some((owner, threads)) = &*pool
        && *owner == process
    {
        return Arc::clone(threads);
    }
    lock(&STARTED).clear();
    let threads = Arc::new(
        ThreadPoolBuilder::new()
            .thread_name(|index| format!("burnish {index}"))
            .start_handler(|index| lock(&STARTED).push((index, Thread::current())))
            .build()
            .expect("the system gives threads"),
    );
    // A parent's pool is forgotten, not dropped: its threads are not there to be told.
    std::mem::forget(pool.replace((process, Arc::clone(&threads))));
    threads
}

/// Whether this process was forked from one that had computed, whose other threads are gone.
pub fn forked() -> bool {
    let process = std::process::id();
    *FIRST.get_or_init(|| process) != process
}
