//! GPUs through Vulkan, Metal, Direct3D 12 or OpenGL, asked so that nothing panics.

use std::sync::Mutex;

use burn_dispatch::devices::wgpu::{AutoGraphicsApi, RuntimeOptions, try_init_setup};
use burn_dispatch::devices::{CubeDevice, RuntimeId, WgpuDevice, WgpuDeviceKind};
use burn_dispatch::{Dispatch, DispatchDevice};

use super::{DeviceInfo, caught, info, try_out};

/// Every adapter once, the fastest kind first: `wgpu:i` is the i-th of these.
/// Without a Vulkan or OpenGL loader, or without a driver, there is none.
fn adapters() -> Result<Vec<WgpuDevice>, String> {
    let found = caught(|| Dispatch::enumerate_cube(RuntimeId::Wgpu))?;
    let mut adapters: Vec<WgpuDevice> = Vec::new();
    for device in found {
        // Two software rasterizers have the same name, which is the first one's.
        if let DispatchDevice::Cube(CubeDevice::Wgpu(device)) = device
            && !adapters.contains(&device)
        {
            adapters.push(device);
        }
    }
    adapters.sort_by_key(|device| match device.kind {
        WgpuDeviceKind::DiscreteGpu(_) => 0,
        WgpuDeviceKind::IntegratedGpu(_) => 1,
        WgpuDeviceKind::VirtualGpu(_) => 2,
        WgpuDeviceKind::Other(_) => 3,
        _ => 4,
    });
    Ok(adapters)
}

pub(super) fn available() -> Vec<DeviceInfo> {
    let describe = |device: &WgpuDevice| match device.kind {
        WgpuDeviceKind::DiscreteGpu(_) => "discrete GPU, wgpu",
        WgpuDeviceKind::IntegratedGpu(_) => "integrated GPU, wgpu",
        WgpuDeviceKind::VirtualGpu(_) => "virtual GPU, wgpu",
        WgpuDeviceKind::Cpu => "CPU posing as a GPU (software rasterizer), wgpu",
        _ => "GPU, wgpu",
    };
    let adapters = adapters().unwrap_or_default();
    let named = adapters.iter().enumerate();
    named.map(|(index, device)| info(format!("wgpu:{index}"), describe(device))).collect()
}

/// A device that is set up.
struct Opened {
    device: WgpuDevice,
    /// How its trial went.
    trial: Result<(), String>,
    /// The bytes of the largest buffer that a kernel reads.
    largest_buffer: usize,
}

/// Devices that are set up. A device cannot be set up twice; a failed set-up leaves nothing behind and may be tried again.
static OPEN: Mutex<Vec<Opened>> = Mutex::new(Vec::new());

pub(super) fn open(index: usize) -> Result<DispatchDevice, String> {
    let mut up = OPEN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let adapters = adapters()?;
    let Some(device) = adapters.get(index) else {
        return Err(match adapters.len() {
            0 => "no wgpu adapter: no Vulkan (libvulkan.so.1 and a driver's ICD file), \
                  Direct3D 12, Metal or OpenGL ES driver answered"
                .to_owned(),
            count => format!("there is no wgpu:{index}; this machine has {count} adapter(s)"),
        });
    };
    let opened: DispatchDevice = device.clone().into();
    if let Some(known) = up.iter().find(|known| known.device == *device) {
        return known.trial.clone().map(|()| opened);
    }
    let options = RuntimeOptions::try_default().map_err(|error| error.to_string())?;
    let setup = caught(|| try_init_setup::<AutoGraphicsApi>(device, options))?.map_err(|error| error.to_string())?;
    let limits = setup.device.limits();
    let largest_buffer = limits.max_buffer_size.min(limits.max_storage_buffer_binding_size) as usize;
    let trial = try_out(&opened);
    up.push(Opened { device: device.clone(), trial: trial.clone(), largest_buffer });
    trial.map(|()| opened)
}

/// The bytes of the largest buffer that kernels of an open device read.
pub(super) fn largest_buffer(device: &WgpuDevice) -> usize {
    let up = OPEN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    up.iter().find(|known| known.device == *device).map_or(0, |known| known.largest_buffer)
}

/// The name of an adapter, by its place in the list.
pub(super) fn name(device: &WgpuDevice) -> String {
    let place = adapters().unwrap_or_default().iter().position(|known| known == device);
    place.map_or_else(|| format!("{device:?}"), |index| format!("wgpu:{index}"))
}
