//! Translates a program to what wgpu hands to the compilers of Vulkan, DX12, Metal and browsers.
//!
//! wgpu does not expose its translations. Here the same translator, naga, is called with the same options, so
//! that a program can be inspected, attached to a bug report, and tested with compilers of devices that are
//! not at hand.

use super::Program;
use crate::error::Error;
use naga::{
    AddressSpace, ResourceBinding, ShaderStage, StorageAccess,
    back::{hlsl, msl, pipeline_constants::process_overrides, spv},
    proc::{BoundsCheckPolicies, BoundsCheckPolicy},
    valid::{Capabilities, ModuleInfo, ValidationFlags, Validator},
};
use std::{borrow::Cow, collections::BTreeMap, str::FromStr};

/// The compilers that programs are translated for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compiler {
    /// SPIR-V 1.3, for Vulkan 1.1 and later.
    Vulkan,
    /// HLSL: for shader model 5.1, which FXC and DXC read; for 6.0, which only DXC reads, if the program uses
    /// subgroups.
    Dx12,
    /// The Metal shading language, version 2.4 (macOS 12).
    Metal,
    /// WGSL, for a browser's WebGPU.
    Web,
}

impl Compiler {
    pub const ALL: [Self; 4] = [Self::Vulkan, Self::Dx12, Self::Metal, Self::Web];

    /// The name, as for `--target` and in wgpu's backends.
    pub fn name(self) -> &'static str {
        match self {
            Self::Vulkan => "vulkan",
            Self::Dx12 => "dx12",
            Self::Metal => "metal",
            Self::Web => "web",
        }
    }

    /// The extension of files for this compiler, without a dot.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Vulkan => "spv",
            Self::Dx12 => "hlsl",
            Self::Metal => "metal",
            Self::Web => "wgsl",
        }
    }
}

impl FromStr for Compiler {
    type Err = Error;
    fn from_str(name: &str) -> Result<Self, Error> {
        let names = || Self::ALL.map(Self::name).join(", ");
        let found = Self::ALL.into_iter().find(|compiler| compiler.name() == name);
        found.ok_or_else(|| Error::request(format!("there is no target {name}: there are {}", names())))
    }
}

/// The name of every program's entry point.
const ENTRY: &str = "main";

/// Indices are not checked and, by the options below, workgroup memory is not zeroed, as in pipelines without
/// `--checked`.
const UNCHECKED: BoundsCheckPolicies = BoundsCheckPolicies {
    index: BoundsCheckPolicy::Unchecked,
    buffer: BoundsCheckPolicy::Unchecked,
    image_load: BoundsCheckPolicy::Unchecked,
    binding_array: BoundsCheckPolicy::Unchecked,
};

impl Program {
    /// The program in a compiler's input language, with its overrides set.
    ///
    /// # Errors
    /// The translator's message, if the WGSL is invalid or cannot be expressed in that language.
    pub fn translated(&self, to: Compiler) -> Result<Vec<u8>, String> {
        let text = self.wgsl();
        let module = naga::front::wgsl::parse_str(&text).map_err(|e| e.emit_to_string(&text))?;
        let info = validate(&module, &text)?;
        if to == Compiler::Web {
            return Ok(self.for_browsers(&text).into_bytes());
        }
        let constants = self.constants.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        let entry = Some((ShaderStage::Compute, ENTRY));
        let (module, info) =
            process_overrides(&module, &info, entry, &constants).map_err(|e| e.to_string())?;
        match to {
            Compiler::Vulkan => spirv(&module, &info),
            Compiler::Dx12 => {
                let model =
                    if self.uses_subgroups() { hlsl::ShaderModel::V6_0 } else { hlsl::ShaderModel::V5_1 };
                hlsl(&module, &info, model)
            }
            Compiler::Metal => msl(&module, &info),
            Compiler::Web => unreachable!("a browser reads it as it is"),
        }
    }

    /// The WGSL text, with its prelude and with the values of the overrides filled in.
    fn for_browsers(&self, text: &str) -> String {
        let mut to = self.browser_prelude().to_owned();
        for line in text.lines() {
            to += &self.with_value(line);
            to += "\n";
        }
        to
    }

    /// A line of WGSL. If it declares an override that the program sets, the declaration gets the value.
    fn with_value<'a>(&self, line: &'a str) -> Cow<'a, str> {
        let declared = || {
            let (declaration, rest) = line.strip_prefix("override ")?.split_once(';')?;
            let (name, kind) =
                declaration.split_once('=').map_or(declaration, |(before, _)| before).split_once(':')?;
            let (name, kind) = (name.trim(), kind.trim());
            let (_, value) = self.constants.iter().find(|(known, _)| *known == name)?;
            let value = match kind {
                "bool" => format!("{}", *value != 0.0),
                "u32" => format!("{value}u"),
                _ => format!("{value:?}"),
            };
            Some(format!("override {name}: {kind} = {value};{rest}"))
        };
        declared().map_or(Cow::Borrowed(line), Cow::Owned)
    }
}

/// Validates a module, allowing the extensions that programs may use. `text` is its source, for error
/// messages.
fn validate(module: &naga::Module, text: &str) -> Result<ModuleInfo, String> {
    // unpack2x16float is part of WGSL, but naga requires a capability for it.
    let allowed = Capabilities::SHADER_FLOAT16_IN_FLOAT32 | Capabilities::SUBGROUP;
    Validator::new(ValidationFlags::all(), allowed)
        .subgroup_stages(naga::valid::ShaderStages::COMPUTE)
        .subgroup_operations(naga::valid::SubgroupOperationSet::all())
        .validate(module)
        .map_err(|e| e.emit_to_string(text))
}

/// The storage buffers that a module binds, in order, and whether the module writes each.
fn bindings(module: &naga::Module) -> BTreeMap<ResourceBinding, bool> {
    let bound = |(_, variable): (_, &naga::GlobalVariable)| match variable.space {
        AddressSpace::Storage { access } => Some((variable.binding?, access.contains(StorageAccess::STORE))),
        _ => None,
    };
    module.global_variables.iter().filter_map(bound).collect()
}

/// Whether a buffer is bound at a dynamic offset. The step is (group 0), because steps are in a ring buffer.
fn is_dynamic(binding: ResourceBinding) -> bool {
    binding.group == 0
}

fn spirv(module: &naga::Module, info: &ModuleInfo) -> Result<Vec<u8>, String> {
    let options = spv::Options {
        lang_version: (1, 3),
        flags: spv::WriterFlags::LABEL_VARYINGS,
        bounds_check_policies: UNCHECKED,
        zero_initialize_workgroup_memory: spv::ZeroInitializeWorkgroupMemoryMode::None,
        force_loop_bounding: false,
        emit_int_div_checks: false,
        ..Default::default()
    };
    let pipeline = spv::PipelineOptions { shader_stage: ShaderStage::Compute, entry_point: ENTRY.into() };
    let words = spv::write_vec(module, info, &options, Some(&pipeline)).map_err(|e| e.to_string())?;
    Ok(words.iter().flat_map(|word| word.to_le_bytes()).collect())
}

fn hlsl(
    module: &naga::Module,
    info: &ModuleInfo,
    shader_model: hlsl::ShaderModel,
) -> Result<Vec<u8>, String> {
    // Registers are numbered across all groups, separately for buffers that are read only and for those that
    // are written.
    let mut next = [0, 0];
    let mut binding_map = hlsl::BindingMap::default();
    for (binding, writes) in bindings(module) {
        let register = &mut next[usize::from(writes)];
        let dynamic_storage_buffer_offsets_index = is_dynamic(binding).then_some(0);
        let target = hlsl::BindTarget {
            register: *register,
            dynamic_storage_buffer_offsets_index,
            ..Default::default()
        };
        binding_map.insert(binding, target);
        *register += 1;
    }
    let offsets = hlsl::OffsetsBindTarget { space: 0, register: 0, size: 1 };
    let options = hlsl::Options {
        shader_model,
        binding_map,
        fake_missing_bindings: false,
        dynamic_storage_buffer_offsets_targets: [(0, offsets)].into(),
        special_constants_binding: Some(hlsl::BindTarget { register: 1, ..Default::default() }),
        zero_initialize_workgroup_memory: false,
        restrict_indexing: false,
        force_loop_bounding: false,
        ..Default::default()
    };
    let pipeline = hlsl::PipelineOptions { entry_point: Some((ShaderStage::Compute, ENTRY.into())) };
    let mut text = String::new();
    hlsl::Writer::new(&mut text, &options, &pipeline).write(module, info, None).map_err(|e| e.to_string())?;
    Ok(text.into_bytes())
}

fn msl(module: &naga::Module, info: &ModuleInfo) -> Result<Vec<u8>, String> {
    let mut resources = msl::BindingMap::default();
    let slots = 0u8..;
    for (slot, (binding, mutable)) in slots.zip(bindings(module)) {
        resources.insert(binding, msl::BindTarget { buffer: Some(slot), mutable, ..Default::default() });
    }
    // The slot after them holds the lengths of the buffers.
    let sizes_buffer = Some(resources.len() as u8);
    let entry = msl::EntryPointResources { resources, sizes_buffer, ..Default::default() };
    let options = msl::Options {
        lang_version: (2, 4),
        per_entry_point_map: [(ENTRY.to_owned(), entry)].into(),
        bounds_check_policies: UNCHECKED,
        zero_initialize_workgroup_memory: false,
        force_loop_bounding: false,
        emit_int_div_checks: false,
        fake_missing_bindings: false,
        ..Default::default()
    };
    let pipeline = msl::PipelineOptions {
        entry_point: Some((ShaderStage::Compute, ENTRY.into())),
        ..Default::default()
    };
    let (text, _) = msl::write_string(module, info, &options, &pipeline).map_err(|e| e.to_string())?;
    Ok(text.into_bytes())
}
