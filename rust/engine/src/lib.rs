//! The engine of burnish: tensors on any device, programs, gradients, optimizers and the training loop.
//!
//! The modules follow the way of the data: a [`Program`] is described, checked and evaluated by operations ([`ops`]) on
//! [`Tensor`]s, differentiated ([`gradient`]), and trained by a [`Session`].

#![recursion_limit = "256"]

mod cpu;
mod device;
mod error;
pub mod gradient;
mod interrupt;
mod memory;
mod number;
pub mod ops;
pub mod optimizer;
pub mod program;
pub mod random;
pub mod storage;
pub mod tensor;
#[cfg(test)]
mod testing;
mod threads;
pub mod trainer;
#[cfg(test)]
mod tree;

pub use device::{Device, DeviceInfo, in_order};
pub use error::{Error, Result};
pub use interrupt::Interrupt;
pub use number::Number;
pub use program::{Precision, Program};
pub use tensor::{DType, Tensor};
pub use threads::look_out;
pub use trainer::Session;
