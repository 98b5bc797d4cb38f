//! Where tensors live: the only folder that knows which backends were compiled in.

// Burn deprecates NdArray; here it stays as the second opinion that tests compare with.
#![allow(deprecated)]

#[cfg(feature = "cuda")]
mod cuda;
#[cfg(feature = "wgpu")]
mod wgpu;

use std::sync::LazyLock;

use burn_backend::{BoolDType, BoolStore, StreamId, TensorData};
use burn_dispatch::DispatchDevice;
use burn_dispatch::devices::{FlexDevice, NdArrayDevice};

use crate::{DType, Error, Result};

/// A device that this machine really has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device(DispatchDevice);

/// Does work whose tensors other calls may have made on other threads.
///
/// CubeCL's devices run each thread's operations in a queue of its own, and a tensor that goes from one to another may be
/// read before it is written; here all share one.
pub fn in_order<T>(work: impl FnOnce() -> T) -> T {
    static STREAM: LazyLock<StreamId> = LazyLock::new(StreamId::allocate);
    STREAM.executes(work)
}

/// A device's name and what it is, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// What to pass as `device`.
    pub name: String,
    /// The backend and the hardware.
    pub description: String,
}

fn info(name: impl Into<String>, description: impl Into<String>) -> DeviceInfo {
    DeviceInfo { name: name.into(), description: description.into() }
}

/// What arrays may take of a device's memory besides what a fit needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    /// Bytes of all together.
    pub bytes: usize,
    /// Bytes of one.
    pub largest: usize,
}

/// Bytes that arrays may take where nobody knows how much is free.
const UNKNOWN_ROOM: usize = 1 << 30;

impl Device {
    /// The default: Burn's Flex backend on the CPU.
    pub fn cpu() -> Self {
        Self(DispatchDevice::Flex(FlexDevice))
    }

    /// Burn's NdArray backend on the CPU, a second opinion.
    pub fn ndarray() -> Self {
        Self(DispatchDevice::NdArray(NdArrayDevice::Cpu))
    }

    /// The device of a name: `"cpu"`, `"ndarray"`, `"wgpu[:i]"` or `"cuda[:i]"`, brought up and tried out.
    pub fn open(name: &str) -> Result<Self> {
        let unknown =
            || Error::value(format!("device must be 'cpu', 'ndarray', 'wgpu[:i]' or 'cuda[:i]', got {name:?}"));
        let (kind, index) = match name.split_once(':') {
            None => (name, 0),
            Some((kind @ ("wgpu" | "cuda"), index)) => (kind, index.parse().map_err(|_| unknown())?),
            Some(_) => return Err(unknown()),
        };
        match kind {
            "cpu" => Ok(Self::cpu()),
            "ndarray" => Ok(Self::ndarray()),
            "wgpu" => open_wgpu(index),
            "cuda" => open_cuda(index),
            _ => Err(unknown()),
        }
    }

    /// Every device that can be opened here, the default first. Asks drivers, opens nothing.
    pub fn available() -> Vec<DeviceInfo> {
        #[allow(unused_mut)]
        let mut devices = vec![info("cpu", "CPU, Burn Flex"), info("ndarray", "CPU, Burn NdArray")];
        #[cfg(feature = "cuda")]
        devices.extend(cuda::available());
        #[cfg(feature = "wgpu")]
        devices.extend(wgpu::available());
        devices
    }

    /// The device's name, as [`Device::open`] takes it.
    pub fn name(&self) -> String {
        match &self.0 {
            DispatchDevice::Flex(_) => "cpu".into(),
            DispatchDevice::NdArray(_) => "ndarray".into(),
            #[cfg(any(feature = "wgpu", feature = "cuda"))]
            DispatchDevice::Cube(device) => cube_name(device),
        }
    }

    /// Waits until what was asked of the device is done.
    pub(crate) fn wait(&self) -> Result<()> {
        <burn_dispatch::Dispatch as burn_backend::Backend>::sync(&self.0)
            .map_err(|error| Error::Device(error.to_string()))
    }

    /// What arrays may take of its memory; `None` on the `cpu` device, where they are anyway.
    ///
    /// On `cuda` a quarter of what is free (until an array is whole there, it takes as much again), elsewhere 1 GiB, and of
    /// `wgpu` one buffer for each.
    pub(crate) fn room(&self) -> Option<Room> {
        let bytes = match &self.0 {
            DispatchDevice::Flex(_) => return None,
            DispatchDevice::NdArray(_) => [UNKNOWN_ROOM; 2],
            #[cfg(any(feature = "wgpu", feature = "cuda"))]
            DispatchDevice::Cube(device) => cube_room(device),
        };
        let room = Room { bytes: bytes[0], largest: bytes[1] };
        #[cfg(test)]
        let room = crate::testing::room(room);
        Some(room)
    }

    /// Has the device begin with what was asked of it, without waiting.
    pub(crate) fn begin(&self) {
        // What cannot be done will fail where it is read.
        let _ = <burn_dispatch::Dispatch as burn_backend::Backend>::flush(&self.0);
    }

    /// Whether fused CPU kernels may read the storage.
    pub fn is_cpu(&self) -> bool {
        matches!(self.0, DispatchDevice::Flex(_))
    }

    /// Whether what indices scatter to one place may be added in an order that changes from run to run: by atomics, which
    /// CUDA has, and Vulkan on some GPUs.
    pub(crate) fn adds_in_any_order(&self) -> bool {
        !matches!(self.0, DispatchDevice::Flex(_) | DispatchDevice::NdArray(_))
    }

    /// Whether it stores a floating-point type and computes in it (on the `cpu` device 16 bits are storage, but for some products).
    pub fn supports(&self, dtype: DType) -> bool {
        match &self.0 {
            DispatchDevice::Flex(_) => true,
            DispatchDevice::NdArray(_) => !dtype.is_half(),
            #[cfg(any(feature = "wgpu", feature = "cuda"))]
            DispatchDevice::Cube(device) if dtype == DType::F64 => cube_name(device).starts_with("cuda"),
            #[cfg(any(feature = "wgpu", feature = "cuda"))]
            DispatchDevice::Cube(_) => {
                <burn_dispatch::Dispatch as burn_backend::Backend>::supports_dtype(&self.0, dtype.float().into())
            }
        }
    }

    pub(crate) fn of(device: DispatchDevice) -> Self {
        Self(device)
    }

    pub(crate) fn burn(&self) -> &DispatchDevice {
        &self.0
    }

    /// How this backend stores truth values.
    pub(crate) fn bool_storage(&self) -> BoolDType {
        match &self.0 {
            DispatchDevice::Flex(_) | DispatchDevice::NdArray(_) => BoolDType::Native,
            #[cfg(any(feature = "wgpu", feature = "cuda"))]
            DispatchDevice::Cube(_) => burn_backend::DeviceOps::defaults(&self.0).bool_dtype,
        }
    }

    /// Truth values as this backend stores them.
    pub(crate) fn with_bool_storage(&self, data: TensorData) -> TensorData {
        let store = match self.bool_storage() {
            BoolDType::U32 => BoolStore::U32,
            BoolDType::U8 => BoolStore::U8,
            BoolDType::Native => BoolStore::Native,
        };
        data.convert_dtype(burn_backend::DType::Bool(store))
    }
}

#[cfg(feature = "wgpu")]
fn open_wgpu(index: usize) -> Result<Device> {
    wgpu::open(index).map(Device).map_err(Error::Device)
}

#[cfg(not(feature = "wgpu"))]
fn open_wgpu(_: usize) -> Result<Device> {
    Err(absent("wgpu"))
}

#[cfg(feature = "cuda")]
fn open_cuda(index: usize) -> Result<Device> {
    cuda::open(index).map(Device).map_err(Error::Device)
}

#[cfg(not(feature = "cuda"))]
fn open_cuda(_: usize) -> Result<Device> {
    Err(absent("cuda"))
}

#[cfg(not(all(feature = "wgpu", feature = "cuda")))]
fn absent(feature: &str) -> Error {
    let names: Vec<String> = Device::available().into_iter().map(|device| device.name).collect();
    Error::Device(format!(
        "this build of burnish has no {feature} (Cargo feature `{feature}`); this machine has: {}",
        names.join(", ")
    ))
}

#[cfg(any(feature = "wgpu", feature = "cuda"))]
fn cube_name(device: &burn_dispatch::devices::CubeDevice) -> String {
    use burn_dispatch::devices::CubeDevice;
    match device {
        #[cfg(feature = "cuda")]
        CubeDevice::Cuda(device) => format!("cuda:{}", device.index),
        #[cfg(feature = "wgpu")]
        CubeDevice::Wgpu(device) => wgpu::name(device),
        other => format!("{other:?}"),
    }
}

/// Bytes that all arrays and that one may take.
#[cfg(any(feature = "wgpu", feature = "cuda"))]
fn cube_room(device: &burn_dispatch::devices::CubeDevice) -> [usize; 2] {
    use burn_dispatch::devices::CubeDevice;
    match device {
        #[cfg(feature = "cuda")]
        CubeDevice::Cuda(device) => [cuda::free(device.index) / 4; 2],
        #[cfg(feature = "wgpu")]
        CubeDevice::Wgpu(device) => [UNKNOWN_ROOM, wgpu::largest_buffer(device)],
        _ => [0; 2],
    }
}

/// Runs one small kernel and looks at its answer.
///
/// A panic while a server starts comes back to the caller. A panic while a kernel is compiled does not: CubeCL logs it on
/// the device's thread, skips the kernel, and a read then returns whatever lay in the buffer. Only the numbers tell.
#[cfg(any(feature = "wgpu", feature = "cuda"))]
fn try_out(device: &DispatchDevice) -> std::result::Result<(), String> {
    use burn_backend::ops::FloatTensorOps;
    use burn_backend::{Scalar, read_sync};
    use burn_dispatch::Dispatch;

    let run = || {
        let data = TensorData::from([1.0f32, 2.0, 3.0]);
        let tensor = Dispatch::float_from_data(data, device);
        let tensor = Dispatch::float_mul_scalar(tensor, Scalar::Float(3.0));
        let tensor = Dispatch::float_add_scalar(tensor, Scalar::Float(0.5));
        read_sync(Dispatch::float_into_data(tensor))
    };
    match caught(run)?.map_err(|error| error.to_string())?.try_to_vec::<f32>() {
        Ok(values) if values == [3.5, 6.5, 9.5] => Ok(()),
        other => Err(format!("a trial kernel gave {other:?} for [3.5, 6.5, 9.5]")),
    }
}

/// Burn and CubeCL panic where a device cannot be brought up; here that is an error.
#[cfg(any(feature = "wgpu", feature = "cuda"))]
fn caught<T>(run: impl FnOnce() -> T) -> std::result::Result<T, String> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).map_err(|payload| {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
        text.unwrap_or("the device panicked").to_owned()
    })
}
