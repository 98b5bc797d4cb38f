//! The one door between Python and the engine: releases the GIL, catches panics, answers Ctrl-C, maps errors.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, Once, PoisonError, mpsc};
use std::time::Duration;

use burnish_engine::{Error, Interrupt, Result, in_order};
use pyo3::exceptions::{PyKeyError, PyMemoryError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;

use crate::threads::{Lookouts, Work, forked, pool};

/// The last panic's message and place, for the exception that it becomes.
static LAST_PANIC: Mutex<Option<String>> = Mutex::new(None);

/// Locks, whatever happened to the last holder: what the door guards is whole between two operations.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps panics off standard error: they are told as exceptions.
fn remember_panics() {
    std::panic::set_hook(Box::new(|panic| {
        *lock(&LAST_PANIC) = Some(panic.to_string().replace('\n', " "));
    }));
}

type Outcome<T> = std::thread::Result<Result<T>>;

/// Runs short work of the engine on this thread without the GIL.
#[expect(clippy::disallowed_methods, reason = "this is the one door")]
pub fn enter<T: Send>(py: Python<'_>, work: impl FnOnce() -> Result<T> + Send) -> PyResult<T> {
    let outcome = py.detach(|| caught(|| if forked() { pool().install(work) } else { work() }));
    finish(outcome, None)
}

/// Runs long work of the engine without the GIL among the threads that share it, so that handing them pieces is cheap;
/// this thread meanwhile listens to Ctrl-C (Python tells signals to the main thread alone). `shared` says that they do the work,
/// and not a device.
#[expect(clippy::disallowed_methods, reason = "this is the one door")]
pub fn enter_long<S: Send, T: Send>(
    py: Python<'_>,
    guarded: &Mutex<S>,
    shared: bool,
    work: impl FnOnce(&mut S, &Interrupt) -> Result<T> + Send,
) -> PyResult<T> {
    let interrupt = Interrupt::default();
    let mut signal = None;
    let outcome = py.detach(|| {
        let (sender, receiver) = mpsc::channel();
        // Locked here and not in the pool, where a waiting thread may pick up other work that wants the same lock.
        let mut guard = lock(guarded);
        let guarded = &mut *guard;
        let pool = pool();
        let mut under_way = Work::begin(pool.current_num_threads(), shared);
        let alone = under_way.is_alone();
        pool.in_place_scope(|scope| {
            let interrupt = &interrupt;
            scope.spawn(move |_| {
                let _lookouts = alone.then(Lookouts::post);
                // The receiver waits in this very scope.
                let _ = sender.send(caught(|| work(guarded, interrupt)));
            });
            loop {
                let answer = receiver.recv_timeout(LISTEN);
                under_way.release();
                match answer {
                    Ok(outcome) => return outcome,
                    Err(_) if signal.is_some() => {}
                    Err(_) => {
                        signal = Python::attach(|py| py.check_signals()).err();
                        if signal.is_some() {
                            interrupt.raise();
                        }
                    }
                }
            }
        })
    });
    // One that came since the last look would otherwise be raised outside, where what was done is lost.
    finish(outcome, signal.or_else(|| py.check_signals().err()))
}

/// Time between two looks for a signal.
const LISTEN: Duration = Duration::from_millis(50);

fn caught<T>(work: impl FnOnce() -> Result<T>) -> Outcome<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(remember_panics);
    catch_unwind(AssertUnwindSafe(|| in_order(work)))
}

fn finish<T>(outcome: Outcome<T>, signal: Option<PyErr>) -> PyResult<T> {
    match outcome {
        // A signal that came too late to stop anything still counts.
        Ok(Ok(value)) => signal.map_or(Ok(value), Err),
        Ok(Err(error)) => Err(signal.unwrap_or_else(|| exception(error))),
        Err(payload) => Err(match payload.downcast::<Error>() {
            Ok(error) => exception(*error),
            Err(payload) => PyRuntimeError::new_err(panic_message(payload.as_ref())),
        }),
    }
}

fn panic_message(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("the engine failed");
    match lock(&LAST_PANIC).take() {
        Some(place) => format!("{text} ({place})"),
        None => text.to_owned(),
    }
}

/// The exception of an error.
pub fn exception(error: Error) -> PyErr {
    match error {
        Error::Value(text) => PyValueError::new_err(text),
        Error::Type(text) => PyTypeError::new_err(text),
        Error::Missing(text) => PyKeyError::new_err(text),
        Error::Device(text) => PyRuntimeError::new_err(text),
        Error::Memory(text) => PyMemoryError::new_err(text),
        Error::Io(kind, text) => std::io::Error::new(kind, text).into(),
        Error::Interrupted => pyo3::exceptions::PyKeyboardInterrupt::new_err(()),
    }
}
