//! One error type for the engine, told in the caller's words.

use std::fmt;

/// What went wrong, by the kind of exception that it becomes in Python.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// A value, shape or name that cannot be (`ValueError`).
    Value(String),
    /// A dtype or kind that cannot be (`TypeError`).
    Type(String),
    /// A path or name that is not there (`KeyError`).
    Missing(String),
    /// A device that is absent or failed (`RuntimeError`).
    Device(String),
    /// Memory that is not to be had (`MemoryError`).
    Memory(String),
    /// A file that cannot be read or written (`OSError`).
    Io(std::io::ErrorKind, String),
    /// The caller asked to stop (`KeyboardInterrupt`).
    Interrupted,
}

/// The engine's result.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An [`Error::Value`] from anything that reads as text.
    pub fn value(message: impl Into<String>) -> Self {
        Self::Value(message.into())
    }

    /// Ends a computation that found its data wrong, where nothing can be returned: panics with the error, which whoever catches
    /// panics finds again.
    pub fn raise(self) -> ! {
        std::panic::panic_any(self)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(text)
            | Self::Type(text)
            | Self::Missing(text)
            | Self::Device(text)
            | Self::Memory(text)
            | Self::Io(_, text) => formatter.write_str(text),
            Self::Interrupted => formatter.write_str("interrupted"),
        }
    }
}

impl std::error::Error for Error {}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error.kind(), error.to_string())
    }
}
