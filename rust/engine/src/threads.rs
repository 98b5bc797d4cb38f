//! How threads share work: who waits for another stays awake for a while, since to wake a thread can take as long as a product of
//! a small network, whose steps have many moments with nothing to share.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The longest moment with nothing to do that is not worth a sleep.
const PATIENCE: Duration = Duration::from_micros(500);

/// Does both, the second on another thread if one is free.
pub fn join(first: impl FnOnce() + Send, second: impl FnOnce() + Send) {
    let done = AtomicBool::new(false);
    let first = || {
        first();
        look_out(&done);
    };
    let second = || {
        second();
        done.store(true, Ordering::Release);
    };
    rayon::join(first, second);
}

/// On a thread that shares work: does what others hand out, until all is over or nothing has come for a while.
pub fn look_out(over: &AtomicBool) {
    let mut worked = Instant::now();
    while !over.load(Ordering::Acquire) && worked.elapsed() < PATIENCE {
        match rayon::yield_now() {
            Some(rayon::Yield::Executed) => worked = Instant::now(),
            // Whoever else wants the processor comes first.
            _ => std::thread::yield_now(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Mutex;

    use super::*;
    use crate::testing::on_threads;

    fn halves(numbers: &mut [u64]) {
        if let [number] = numbers {
            *number += 1;
            return;
        }
        let (first, rest) = numbers.split_at_mut(numbers.len() / 2);
        join(|| halves(first), || halves(rest));
    }

    #[test]
    fn each_part_is_done_once_by_any_number_of_threads() {
        let results = on_threads(|| {
            let mut numbers: Vec<u64> = (0..1000).collect();
            (0..20).for_each(|_| halves(&mut numbers));
            numbers
        });
        let expected: Vec<u64> = (20..1020).collect();
        assert!(results.iter().all(|found| *found == expected));
    }

    #[test]
    fn a_panic_of_either_part_reaches_the_caller() {
        let fails = || panic!("part");
        for outcome in [
            catch_unwind(AssertUnwindSafe(|| join(fails, || ()))),
            catch_unwind(AssertUnwindSafe(|| join(|| (), fails))),
        ] {
            assert_eq!(outcome.unwrap_err().downcast_ref(), Some(&"part"));
        }
    }

    #[test]
    fn who_looks_out_works_until_all_is_over_or_nothing_comes() {
        let began = Instant::now();
        look_out(&AtomicBool::new(true));
        look_out(&AtomicBool::new(false));
        assert!(began.elapsed() >= PATIENCE);
        let done = Mutex::new(Vec::new());
        let alone = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        alone.in_place_scope(|scope| {
            scope.spawn(|scope| {
                let over = AtomicBool::new(false);
                scope.spawn(|_| done.lock().unwrap().push("handed out"));
                look_out(&over);
                done.lock().unwrap().push("looked out");
            });
        });
        assert_eq!(*done.lock().unwrap(), ["handed out", "looked out"]);
    }
}
