//! NVIDIA GPUs through CUDA and NVRTC, asked so that nothing panics.

use std::sync::Mutex;

use burn_dispatch::DispatchDevice;
use burn_dispatch::devices::CudaDevice;
use cubecl::config::cache::CacheConfig;
use cubecl::config::{CubeClRuntimeConfig, RuntimeConfig};
use cudarc::driver::{DriverError, result, sys};
use cudarc::nvrtc::sys as nvrtc;

use super::{DeviceInfo, caught, info, try_out};

/// The number of GPUs and the CUDA version of the driver (13000 for 13.0).
fn driver() -> Result<(usize, i32), String> {
    // SAFETY: only tries to load the library.
    if !unsafe { sys::is_culib_present() } {
        return Err("no NVIDIA driver: libcuda.so.1 cannot be loaded".into());
    }
    caught(|| {
        result::init()?;
        let mut version = 0;
        // SAFETY: writes one integer.
        unsafe { sys::cuDriverGetVersion(&mut version) }.result()?;
        Ok((result::device::get_count()? as usize, version))
    })?
    .map_err(|error: DriverError| format!("the NVIDIA driver answers {error}"))
}

/// The version of NVRTC, or what is missing to compile kernels with it.
fn compiler() -> Result<i32, String> {
    const HOW: &str = "; install burnish[cuda] or the CUDA toolkit";
    // SAFETY: only tries to load the library.
    if !unsafe { nvrtc::is_culib_present() } {
        return Err(format!("libnvrtc.so.13 or .12 cannot be loaded{HOW}"));
    }
    let (mut major, mut minor) = (0, 0);
    // SAFETY: writes two integers.
    caught(|| unsafe { nvrtc::nvrtcVersion(&mut major, &mut minor) })?;
    let include = cubecl::cuda::install::cuda_path()
        .ok_or_else(|| format!("no CUDA headers: CUDA_PATH is not set{HOW}"))?
        .join("include");
    // The last one lies elsewhere from CUDA 13 on; CubeCL looks into both.
    for header in ["cuda_fp16.h", "cuda_bf16.h", "mma.h", "crt/mma.h", "nv/target"] {
        if ![include.join(header), include.join("cccl").join(header)].iter().any(|path| path.is_file()) {
            return Err(format!("no {header} in {}{HOW}", include.display()));
        }
    }
    Ok(major * 1000 + minor * 10)
}

pub(super) fn available() -> Vec<DeviceInfo> {
    let Ok((count, version)) = driver() else {
        return Vec::new();
    };
    if compiler().is_err() {
        return Vec::new();
    }
    let (major, minor) = (version / 1000, version % 1000 / 10);
    let name = |index| result::device::get_name(result::device::get(index as i32)?);
    (0..count)
        .map(|index| {
            let name = name(index).unwrap_or_else(|_| "NVIDIA GPU".into());
            info(format!("cuda:{index}"), format!("{name}, CUDA {major}.{minor}"))
        })
        .collect()
}

/// Bytes of memory that are free; 0 if the driver does not say.
pub(super) fn free(index: usize) -> usize {
    let found = || {
        let device = result::device::get(index as i32)?;
        let before = result::ctx::get_current()?.unwrap_or(std::ptr::null_mut());
        // SAFETY: the device's context is held until it is no longer this thread's, which then has the one of before.
        unsafe {
            let context = result::primary_ctx::retain(device)?;
            let free = result::ctx::set_current(context).and_then(|()| result::mem_get_info());
            result::ctx::set_current(before)?;
            result::primary_ctx::release(device)?;
            free
        }
    };
    caught(|| found().map_or(0, |(free, _): (usize, usize)| free)).unwrap_or(0)
}

/// Has CubeCL keep its kernels, and which of them it found fastest, in the user's cache: a process compiles for half a minute,
/// and what is chosen by time alone is not the same each time, nor are the last bits of a sum.
fn remember() {
    let mut config = CubeClRuntimeConfig::from_current_dir().override_from_env();
    config.compilation.cache = true;
    if matches!(config.environment.path, CacheConfig::Target) {
        config.environment.path = CacheConfig::Global;
    }
    // What the program set before stays.
    CubeClRuntimeConfig::try_set(config);
}

/// Devices that are up.
static OPEN: Mutex<Vec<usize>> = Mutex::new(Vec::new());

pub(super) fn open(index: usize) -> Result<DispatchDevice, String> {
    let mut up = OPEN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let device: DispatchDevice = CudaDevice::new(index).into();
    if up.contains(&index) {
        return Ok(device);
    }
    let (count, version) = driver()?;
    if index >= count {
        return Err(format!("there is no cuda:{index}; this machine has {count} NVIDIA GPU(s)"));
    }
    let compiler = compiler()?;
    if compiler > version {
        let text = |version: i32| format!("{}.{}", version / 1000, version % 1000 / 10);
        return Err(format!(
            "NVRTC {} is newer than the driver's CUDA {}, which would refuse its code; update the driver, or install an NVRTC \
             (nvidia-cuda-nvrtc) of at most that version",
            text(compiler),
            text(version),
        ));
    }
    remember();
    try_out(&device)?;
    up.push(index);
    Ok(device)
}
