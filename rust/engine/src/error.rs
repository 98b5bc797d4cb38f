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
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(text) | Self::Type(text) | Self::Missing(text) | Self::Device(text) | Self::Io(_, text) => {
                formatter.write_str(text)
            }
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
