//! `burnish._burnish`: the engine for Python. Classes, errors and arrays; everything that computes goes through [`door`].

#![recursion_limit = "256"]

mod arrays;
mod device;
mod door;
mod files;
mod functions;
mod processors;
mod program;
mod session;
mod tensor;
mod threads;
mod types;

use pyo3::prelude::*;

/// Fresh gradients each step mean page faults with the system's allocator (the MLP step took twice as long).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The engine of burnish.
#[pymodule]
mod _burnish {
    #[pymodule_export]
    use super::files::{Rotation, Staged, read_arrays, write_arrays};
    #[pymodule_export]
    use super::functions::{
        add_finite, add_weighted, check_finite, check_labels, check_precision, devices, operations, optimizers,
        permutation,
    };
    #[pymodule_export]
    use super::program::Program;
    #[pymodule_export]
    use super::session::{Records, Session};
    #[pymodule_export]
    use super::tensor::Tensor;
}
