//! The one door between Python and the engine: releases the GIL, catches panics, answers Ctrl-C, maps errors.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use burnish_engine::{Error, Interrupt, Result};
use pyo3::exceptions::{PyKeyError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;

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

/// Runs work of the engine without the GIL.
#[expect(clippy::disallowed_methods, reason = "this is the one door")]
pub fn enter<T: Send>(py: Python<'_>, work: impl FnOnce(&Interrupt<'_>) -> Result<T> + Send) -> PyResult<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(remember_panics);
    let signal: Mutex<Option<PyErr>> = Mutex::new(None);
    let outcome = py.detach(|| {
        let stop = || match Python::attach(|py| py.check_signals()) {
            Ok(()) => false,
            Err(error) => {
                *lock(&signal) = Some(error);
                true
            }
        };
        catch_unwind(AssertUnwindSafe(|| work(&Interrupt::new(&stop))))
    });
    match outcome {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(lock(&signal).take().unwrap_or_else(|| exception(error))),
        Err(payload) => Err(PyRuntimeError::new_err(panic_message(payload.as_ref()))),
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
        Error::Io(kind, text) => std::io::Error::new(kind, text).into(),
        Error::Interrupted => pyo3::exceptions::PyKeyboardInterrupt::new_err(()),
    }
}
