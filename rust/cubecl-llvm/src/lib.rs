//! A stand-in for `cubecl-llvm` without LLVM in it.
//!
//! `cubecl-cuda` always links both of its kernel compilers: CUDA C++ handed to NVRTC at run
//! time, and LLVM by way of `cubecl-llvm`, whose build script downloads LLVM. Builds of this
//! project fetch nothing but crates. The engine's `cuda` feature turns on `cubecl/cuda-cpp`, which
//! makes NVRTC the compiler of every kernel, so the other one is never asked; this crate only holds
//! the names that `cubecl-cuda` 0.11.3 spells out. Should a build leave `cuda-cpp` out, each kernel
//! fails with an error that says so.
//!
//! On an upgrade of Burn: change the two versions in `Cargo.toml`, run
//! `cargo check -p burnish-engine --features cuda`, and add what `cubecl-cuda` has come to name.

use std::{convert::Infallible, ffi::c_char, fmt};

use cubecl_core::{
    CompilationError, Compiler, environment::backtrace::BackTrace, ir::attributes::BufferIOAttr, ir::nvidia::SmArch,
    prelude::KernelDefinition,
};

use nvptx::ptx_version::PtxVersion;

/// What `cubecl-llvm` can compile for; of its targets `cubecl-cuda` names this one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LlvmTarget {
    #[default]
    Nvptx,
}

/// The compiler that is not here: [`Compiler::compile`] always returns an error.
#[derive(Clone, Debug, Default)]
pub struct PlironCompiler {
    pub target: LlvmTarget,
}

/// Accepted and ignored.
#[derive(Clone, Debug, Default)]
pub struct PlironOptions {
    /// The AMD architecture, which CUDA leaves at `None`.
    pub arch: Option<Infallible>,
    pub sm_arch: Option<SmArch>,
    pub ptx_version: Option<PtxVersion>,
    pub grid_constants: bool,
}

/// A compiled PTX module. None is ever made.
#[derive(Clone, Debug)]
pub struct NvptxModule {
    pub ptx: Vec<c_char>,
    pub entrypoint: String,
    pub ir: String,
    pub shared_memory_size: usize,
    pub io: Vec<BufferIOAttr>,
}

/// What a compilation yields. Non-exhaustive because `cubecl-cuda` matches with a `_` arm.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum PlironArtifact {
    NvptxCode(NvptxModule),
}

impl fmt::Display for PlironArtifact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NvptxCode(module) => f.write_str(&module.ir),
        }
    }
}

impl Compiler for PlironCompiler {
    type Representation = PlironArtifact;
    type CompilationOptions = PlironOptions;

    fn compile(
        &mut self,
        kernel: KernelDefinition,
        _options: &PlironOptions,
    ) -> Result<PlironArtifact, CompilationError> {
        Err(CompilationError::Generic {
            reason: format!(
                "kernel '{}': this build has no LLVM; enable the feature `cuda-cpp` of `cubecl`, \
                 which compiles with NVRTC",
                kernel.settings.kernel_name
            ),
            backtrace: BackTrace::capture(),
        })
    }

    fn extension(&self) -> &'static str {
        "ll"
    }

    fn lang_tag(&self) -> &'static str {
        "llvm"
    }
}

pub mod nvptx {
    pub mod ptx_version {
        use std::{convert::Infallible, fmt};

        /// The PTX version that LLVM would emit. There is none to choose.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub struct PtxVersion(Infallible);

        impl PtxVersion {
            /// `None`, which upstream means "leave it to LLVM"; NVRTC does not read it.
            pub fn for_driver(_driver: i32) -> Option<Self> {
                None
            }
        }

        impl fmt::Display for PtxVersion {
            fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.0 {}
            }
        }
    }
}

pub mod shared {
    pub mod lowered_features {
        use cubecl_core::ir::DeviceProperties;

        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum GpuTarget {
            Nvptx,
        }

        /// Upstream narrows what a device offers to what LLVM can lower. Called only when LLVM
        /// is the compiler, and then nothing compiles.
        pub fn restrict_features(_properties: &mut DeviceProperties, _target: GpuTarget) {}
    }
}
