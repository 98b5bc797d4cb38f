//! On which processor a thread runs, where a program may say so.

#[cfg(target_os = "linux")]
mod linux {
    use rustix::thread::{CpuSet, Pid, gettid, sched_getaffinity, sched_setaffinity};

    /// A thread of this process.
    #[derive(Clone, Copy, Debug)]
    pub struct Thread(Pid);

    impl Thread {
        /// The one that calls.
        pub fn current() -> Self {
            Self(gettid())
        }

        /// Holds it on the processor of that place among those it may use, if these are as many as threads: where there are more, others
        /// would be held on the same few.
        pub fn held(self, place: usize, threads: usize) -> Option<Held> {
            let allowed = sched_getaffinity(Some(self.0)).ok().filter(|allowed| allowed.count() as usize == threads)?;
            let processor = (0..CpuSet::MAX_CPU).filter(|&processor| allowed.is_set(processor)).nth(place)?;
            let mut own = CpuSet::new();
            own.set(processor);
            sched_setaffinity(Some(self.0), &own).ok()?;
            Some(Held { thread: self, allowed })
        }
    }

    /// A thread on a processor, which it may leave when this is dropped.
    #[derive(Debug)]
    pub struct Held {
        thread: Thread,
        allowed: CpuSet,
    }

    impl Drop for Held {
        fn drop(&mut self) {
            // A thread that has ended needs no processor.
            let _ = sched_setaffinity(Some(self.thread.0), &self.allowed);
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod others {
    /// A thread of this process.
    #[derive(Clone, Copy, Debug)]
    pub struct Thread;

    impl Thread {
        /// The one that calls.
        pub fn current() -> Self {
            Self
        }

        /// Other systems let nobody say, or need not be told.
        pub fn held(self, _: usize, _: usize) -> Option<Held> {
            None
        }
    }

    /// A thread on a processor: never.
    #[derive(Debug)]
    pub enum Held {}
}

#[cfg(target_os = "linux")]
pub use linux::{Held, Thread};
#[cfg(not(target_os = "linux"))]
pub use others::{Held, Thread};
