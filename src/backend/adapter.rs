//! Lists the devices, scores them, and picks the one the user means.

use super::native;
use crate::{
    error::{Error, Kind, Result, Setting},
    simd::Simd,
};

/// The device that the user asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The best real GPU, or the CPU where there is none.
    Auto,
    Cpu,
    /// The best real GPU.
    Gpu,
    /// A device by its index in [`adapters`].
    Index(usize),
    /// A device by a part of its name, in lower case.
    Name(String),
    /// A device that an API (`vulkan`, `metal`, `dx12` or `gl`) reaches: the best real GPU, or the best one
    /// with a part of a name. On Windows the same GPU is reached through two or three APIs.
    Through {
        api: &'static str,
        name: Option<String>,
    },
}

/// The APIs through which wgpu reaches GPUs, as [`AdapterSummary::backend`] and `--device` name them.
const APIS: [&str; 4] = ["vulkan", "metal", "dx12", "gl"];

impl From<&str> for DeviceChoice {
    fn from(text: &str) -> Self {
        let (before, name) = text.split_once(':').map_or((text, None), |(api, name)| (api, Some(name)));
        if let Some(api) = APIS.into_iter().find(|api| api.eq_ignore_ascii_case(before)) {
            return Self::Through { api, name: name.map(str::to_lowercase) };
        }
        match (text, text.parse()) {
            ("auto", _) => Self::Auto,
            ("cpu", _) => Self::Cpu,
            ("gpu", _) => Self::Gpu,
            (_, Ok(index)) => Self::Index(index),
            _ => Self::Name(text.to_lowercase()),
        }
    }
}

/// A device, as `wgpt devices` shows it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct AdapterSummary {
    pub index: usize,
    pub name: String,
    pub backend: &'static str,
    /// discrete, integrated, virtual, other, software or cpu.
    pub r#type: &'static str,
    pub driver: String,
    pub features: Vec<&'static str>,
    pub limits: serde_json::Value,
    /// Higher is better. Zero means that the device is not usable, or only when it is named.
    pub score: u32,
    pub chosen: bool,
}

fn instance(backends: wgpu::Backends) -> wgpu::Instance {
    wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends,
        // There are no indirect dispatches, so validating them would only cost time.
        flags: wgpu::InstanceFlags::empty(),
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    })
}

pub(super) fn backend_name(backend: wgpu::Backend) -> &'static str {
    match backend {
        wgpu::Backend::Vulkan => "vulkan",
        wgpu::Backend::Metal => "metal",
        wgpu::Backend::Dx12 => "dx12",
        wgpu::Backend::Gl => "gl",
        _ => "other",
    }
}

/// Whether an adapter has what every kernel needs: WebGPU's default limits and compute shaders.
pub(super) fn is_usable(adapter: &wgpu::Adapter) -> bool {
    wgpu::Limits::defaults().check_limits(&adapter.limits())
        && adapter.get_downlevel_capabilities().flags.contains(wgpu::DownlevelFlags::COMPUTE_SHADERS)
}

/// Scores an adapter: discrete GPUs first, then integrated and virtual ones; software devices and unusable
/// ones get zero. Among equals Vulkan and Metal come before DX12, and GL last.
fn score(adapter: &wgpu::Adapter) -> u32 {
    let info = adapter.get_info();
    let kind = match info.device_type {
        wgpu::DeviceType::DiscreteGpu => 400,
        wgpu::DeviceType::IntegratedGpu => 300,
        wgpu::DeviceType::VirtualGpu => 200,
        wgpu::DeviceType::Other => 100,
        wgpu::DeviceType::Cpu => 0,
    };
    let through = match info.backend {
        wgpu::Backend::Gl => 0,
        wgpu::Backend::Dx12 => 10,
        _ => 20,
    };
    if kind > 0 && is_usable(adapter) { kind + through } else { 0 }
}

pub(super) fn driver(info: &wgpu::AdapterInfo) -> String {
    format!("{} {}", info.driver, info.driver_info).trim().to_owned()
}

fn summary(index: usize, adapter: &wgpu::Adapter) -> AdapterSummary {
    let info = adapter.get_info();
    let (limits, has) = (adapter.limits(), adapter.features());
    let features = [
        ("subgroup", wgpu::Features::SUBGROUP),
        ("shader-f16", wgpu::Features::SHADER_F16),
        ("timestamp-query", wgpu::Features::TIMESTAMP_QUERY),
        ("pipeline-cache", wgpu::Features::PIPELINE_CACHE),
        ("cooperative-matrix", wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX),
    ];
    AdapterSummary {
        index,
        backend: backend_name(info.backend),
        r#type: match info.device_type {
            wgpu::DeviceType::DiscreteGpu => "discrete",
            wgpu::DeviceType::IntegratedGpu => "integrated",
            wgpu::DeviceType::VirtualGpu => "virtual",
            wgpu::DeviceType::Other => "other",
            wgpu::DeviceType::Cpu => "software",
        },
        driver: driver(&info),
        name: info.name,
        features: features.iter().filter(|(_, f)| has.contains(*f)).map(|(name, _)| *name).collect(),
        limits: serde_json::json!({
            "max_buffer_size": limits.max_buffer_size,
            "max_storage_buffer_binding_size": limits.max_storage_buffer_binding_size,
            "max_storage_buffers_per_shader_stage": limits.max_storage_buffers_per_shader_stage,
            "max_compute_workgroup_storage_size": limits.max_compute_workgroup_storage_size,
            "max_compute_invocations_per_workgroup": limits.max_compute_invocations_per_workgroup,
            "max_compute_workgroups_per_dimension": limits.max_compute_workgroups_per_dimension,
            "min_subgroup_size": info.subgroup_min_size,
            "max_subgroup_size": info.subgroup_max_size,
        }),
        score: score(adapter),
        chosen: false,
    }
}

/// The CPU, which is the last entry of every list.
fn processor(index: usize) -> AdapterSummary {
    AdapterSummary {
        index,
        name: cpu_name(default_threads()),
        backend: "cpu",
        r#type: "cpu",
        driver: String::new(),
        features: Vec::new(),
        limits: serde_json::json!({}),
        score: 1,
        chosen: false,
    }
}

pub(super) fn cpu_name(threads: usize) -> String {
    let simd = Simd::detect().name();
    let plural = if threads == 1 { "" } else { "s" };
    format!("CPU ({}, {simd}, {threads} thread{plural})", std::env::consts::ARCH)
}

/// The number of physical cores that the process may use.
pub fn default_threads() -> usize {
    let allowed = std::thread::available_parallelism().map_or(1, usize::from);
    num_cpus::get_physical().clamp(1, allowed)
}

/// Whether there may be a GPU that GL reaches. On Linux a GPU has a device file; without one there is no
/// reason to start GL, whose libraries may look for a display and complain on stderr.
fn may_have_gl() -> bool {
    let files = ["/dev/dri", "/dev/nvidiactl", "/dev/dxg", "/dev/kgsl-3d0", "/dev/mali0"];
    !cfg!(target_os = "linux") || files.iter().any(|file| std::path::Path::new(file).exists())
}

/// All adapters of Vulkan, Metal and DX12. GL's are added if none of these is a real GPU and there may be one
/// for GL, or if `choice` asks for GL.
pub(super) fn enumerate(choice: &DeviceChoice) -> Vec<wgpu::Adapter> {
    let through = |backends| native::adapters_of(&instance(backends), backends);
    let mut found = through(wgpu::Backends::VULKAN | wgpu::Backends::METAL | wgpu::Backends::DX12);
    let wants_gl = matches!(choice, DeviceChoice::Through { api: "gl", .. });
    if wants_gl || (may_have_gl() && found.iter().all(|adapter| score(adapter) == 0)) {
        found.extend(through(wgpu::Backends::GL));
    }
    found
}

pub(super) fn list(found: &[wgpu::Adapter]) -> Vec<AdapterSummary> {
    let mut all: Vec<_> = found.iter().enumerate().map(|(index, a)| summary(index, a)).collect();
    all.push(processor(found.len()));
    all
}

/// All devices, the CPU last. The one that `choice` picks is marked.
///
/// # Errors
/// Of the kind Device where no device matches `choice`.
pub fn adapters(choice: &DeviceChoice) -> Result<Vec<AdapterSummary>> {
    let mut all = list(&enumerate(choice));
    let (picked, _) = pick(choice, &all, false)?;
    all[picked].chosen = true;
    Ok(all)
}

fn is_named(adapter: &AdapterSummary, part: &str) -> bool {
    !part.is_empty() && adapter.name.to_lowercase().contains(part)
}

fn first_word(name: &str) -> String {
    name.split_whitespace().next().unwrap_or(name).to_lowercase()
}

/// The index of the device that `choice` means, and the reason.
pub(super) fn pick(
    choice: &DeviceChoice,
    all: &[AdapterSummary],
    require_gpu: bool,
) -> Result<(usize, String)> {
    let cpu = all.len() - 1;
    let (gpus, best) = (&all[..cpu], |of: &mut dyn Iterator<Item = &AdapterSummary>| {
        of.max_by_key(|a| (a.score, a.backend != "gl", std::cmp::Reverse(a.index))).map(|a| a.index)
    });
    let listed = || {
        let names = all.iter().map(|a| format!("{} {} ({})", a.index, a.name, a.backend));
        names.collect::<Vec<_>>().join(", ")
    };
    let none = || {
        let tried = "neither Vulkan nor Metal nor DX12 nor GL reaches a GPU that can be used";
        match gpus.first() {
            None => format!("{tried}; check that the GPU's driver is installed"),
            Some(a) if a.r#type == "software" => {
                format!("{tried}; {} is a software device, used only when named", a.name)
            }
            Some(a) => format!("{tried}; {} lacks compute shaders or WebGPU's default limits", a.name),
        }
    };
    let real = best(&mut gpus.iter().filter(|a| a.score > 0));
    let picked = match choice {
        DeviceChoice::Cpu => (cpu, "asked for".to_owned()),
        DeviceChoice::Auto => match real {
            Some(index) => (index, "the best GPU".to_owned()),
            None => (cpu, none()),
        },
        DeviceChoice::Gpu => match real {
            Some(index) => (index, "the best GPU".to_owned()),
            None => return Err(Error::device(format!("there is no GPU: {}", none()))),
        },
        DeviceChoice::Through { api, name } => {
            let of_api = || gpus.iter().filter(|a| a.backend == *api);
            let found = match name {
                None => best(&mut of_api().filter(|a| a.score > 0)),
                Some(name) => best(&mut of_api().filter(|a| is_named(a, name))),
            };
            let named = |name: &String| format!(" named {name:?}");
            let named = name.as_ref().map_or_else(String::new, named);
            match found {
                Some(index) => (index, format!("the best through {api}{named}")),
                None => {
                    let software = of_api().find(|a| a.r#type == "software" && name.is_none());
                    let hint = software.map_or_else(String::new, |a| {
                        format!(
                            " ({} is a software device, used only when named, as in {api}:{})",
                            a.name,
                            first_word(&a.name)
                        )
                    });
                    return Err(Error::device(format!(
                        "{api} reaches no GPU{named}{hint}; there are: {}",
                        listed()
                    )));
                }
            }
        }
        DeviceChoice::Index(index) if *index < all.len() => (*index, "asked for by number".to_owned()),
        DeviceChoice::Index(index) => {
            return Err(Error::device(format!("there is no device {index}; there are: {}", listed())));
        }
        DeviceChoice::Name(name) => match best(&mut all.iter().filter(|a| is_named(a, name))) {
            Some(index) => (index, "asked for by name".to_owned()),
            None => {
                return Err(Error::device(format!("no device is named {name:?}; there are: {}", listed())));
            }
        },
    };
    if require_gpu && picked.0 == cpu {
        let what = format!("is set, but it would run on the CPU: {}", picked.1);
        return Err(Error::setting(Setting::RequireGpu, what).of_kind(Kind::Device));
    }
    Ok(picked)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(
        index: usize,
        name: &str,
        backend: &'static str,
        r#type: &'static str,
        score: u32,
    ) -> AdapterSummary {
        AdapterSummary { name: name.to_owned(), backend, r#type, score, ..processor(index) }
    }

    #[test]
    fn a_software_device_is_used_only_when_named() {
        let all = [device(0, "llvmpipe (LLVM 15)", "vulkan", "software", 0), processor(1)];
        let picked = |text: &str| pick(&text.into(), &all, false).map(|(index, _)| index).ok();
        assert_eq!(picked("auto"), Some(1));
        assert_eq!(picked("gpu"), None);
        assert_eq!(picked("LLVMpipe"), Some(0));
        assert_eq!(picked("0"), Some(0));
        assert_eq!(picked("cpu"), Some(1));
        assert_eq!(picked("2"), None);
        assert_eq!(picked("radeon"), None);
        assert!(pick(&DeviceChoice::Auto, &all, true).is_err());
    }

    #[test]
    fn an_api_is_asked_for_alone_or_before_a_name() {
        let all = [
            device(0, "GeForce RTX 4090", "vulkan", "discrete", 420),
            device(1, "UHD Graphics", "vulkan", "integrated", 320),
            device(2, "GeForce RTX 4090", "dx12", "discrete", 410),
            device(3, "UHD Graphics", "dx12", "integrated", 310),
            device(4, "llvmpipe", "gl", "software", 0),
            processor(5),
        ];
        let picked =
            |text: &str| pick(&text.into(), &all, false).map(|(index, _)| index).map_err(|e| e.to_string());
        assert_eq!(picked("rtx 4090"), Ok(0));
        assert_eq!(picked("dx12"), Ok(2));
        assert_eq!(picked("vulkan"), Ok(0));
        assert_eq!(picked("DX12:uhd"), Ok(3));
        assert_eq!(picked("vulkan:UHD"), Ok(1));
        assert_eq!(picked("dx12:4090"), Ok(2), "what stands behind a colon is a name");
        assert_eq!(picked("gl:llvmpipe"), Ok(4));
        for (text, words) in [
            ("metal", &["metal reaches no GPU"][..]),
            ("dx12:radeon", &["dx12", "radeon", "RTX 4090"]),
            ("dx12:", &["dx12", "no GPU"]),
            ("gl", &["gl reaches no GPU", "gl:llvmpipe"]),
        ] {
            let error = picked(text).expect_err("not there");
            assert!(words.iter().all(|word| error.contains(word)), "{text}: {error}");
        }
    }

    #[test]
    fn the_best_gpu_is_chosen_and_gl_last() {
        let all = [
            device(0, "Radeon", "gl", "discrete", 400),
            device(1, "Radeon", "vulkan", "discrete", 420),
            device(2, "Iris", "vulkan", "integrated", 320),
            processor(3),
        ];
        let picked = |text: &str| pick(&text.into(), &all, true).map(|(index, _)| index).ok();
        assert_eq!(picked("auto"), Some(1));
        assert_eq!(picked("radeon"), Some(1));
        assert_eq!(picked("iris"), Some(2));
        assert_eq!(picked("cpu"), None);
    }
}
