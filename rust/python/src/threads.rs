//! The threads that share the engine's work, made at first use, and again in a forked child: threads do not survive a fork.

use std::sync::{Arc, Mutex, OnceLock};

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::door::lock;

/// The process that first computed.
static FIRST: OnceLock<u32> = OnceLock::new();

/// The threads of the process that made them.
static POOL: Mutex<Option<(u32, Arc<ThreadPool>)>> = Mutex::new(None);

/// The threads of this process.
pub fn pool() -> Arc<ThreadPool> {
    let process = std::process::id();
    let mut pool = lock(&POOL);
    if let Some((owner, threads)) = &*pool
        && *owner == process
    {
        return Arc::clone(threads);
    }
    let threads = Arc::new(
        ThreadPoolBuilder::new()
            .thread_name(|index| format!("burnish {index}"))
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
