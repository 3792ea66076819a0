//! A model's programs as the compilers of Vulkan, DX12, Metal and browsers get them: for reports of bugs, and for tests that
//! put them through the compilers of devices that nobody has at hand.

use crate::{
    capabilities::Capabilities,
    engine::{EngineOptions, plans, sizes, tower_plan},
    error::{Error, Result},
    model::Model,
    plan::Plans,
    shader::{Language, Program},
};
use std::{collections::HashSet, str::FromStr};

/// Whose compilers programs are written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    Vulkan,
    Dx12,
    Metal,
    /// A browser's WebGPU.
    Web,
}

impl Target {
    pub const ALL: [Self; 4] = [Self::Vulkan, Self::Dx12, Self::Metal, Self::Web];

    /// As `--target` and wgpu's backends call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Vulkan => "vulkan",
            Self::Dx12 => "dx12",
            Self::Metal => "metal",
            Self::Web => "web",
        }
    }

    /// What files of it end in.
    fn extension(self) -> &'static str {
        match self {
            Self::Vulkan => "spv",
            Self::Dx12 => "hlsl",
            Self::Metal => "metal",
            Self::Web => "wgsl",
        }
    }

    /// The forms that its devices may need: a word for each, what its compiler reads, and what such a device can do.
    fn variants(self, can: &Capabilities) -> Vec<(&'static str, Language, Capabilities)> {
        let plain = Capabilities { subgroups: false, ..can.clone() };
        let subgroups = Capabilities { subgroups: true, ..can.clone() };
        let both = |language| vec![("plain", language, plain.clone()), ("subgroups", language, subgroups)];
        match self {
            Self::Vulkan => both(Language::SpirV),
            Self::Metal => both(Language::Msl),
            Self::Web => both(Language::Wgsl),
            Self::Dx12 => {
                let mut all = both(Language::Hlsl);
                all.push(("fxc", Language::OldHlsl, plain));
                all
            }
        }
    }
}

impl FromStr for Target {
    type Err = Error;
    fn from_str(name: &str) -> Result<Self> {
        let names = || Self::ALL.map(Self::name).join(", ");
        let found = Self::ALL.into_iter().find(|target| target.name() == name);
        found.ok_or_else(|| Error::request(format!("there is no target {name}: there are {}", names())))
    }
}

/// A program as a compiler gets it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Written {
    /// Of its file: number, name, variant and what it is written in, such as `012-matmul_vector.subgroups.hlsl`.
    pub name: String,
    pub text: Vec<u8>,
}

/// Every program of a model on a device that can do so much, in every variant that devices of the target may need. A program
/// that no variant changes is there once.
///
/// # Errors
/// Of the kind Model where the model is damaged; of the kind Run where the target has no words for a program.
pub fn of_model(model: &Model, target: Target, can: &Capabilities) -> Result<Vec<Written>> {
    written(target, can, |can| {
        let sizes = sizes(model, can, EngineOptions::default())?;
        let tower = tower_plan(model, can)?.map(|tower| tower.plans);
        Ok(std::iter::once(plans(model, can, sizes)?).chain(tower).collect())
    })
}

/// The same of whatever plans `make` makes for a device that can do so much.
pub fn written(
    target: Target,
    can: &Capabilities,
    make: impl Fn(&Capabilities) -> Result<Vec<Plans>>,
) -> Result<Vec<Written>> {
    let (mut all, mut known) = (Vec::new(), HashSet::new());
    for (variant, language, can) in target.variants(can) {
        let programs = make(&can)?.into_iter().flat_map(|plans| plans.programs(&can));
        for (number, program) in programs.enumerate() {
            if !known.insert((language, program.key())) {
                continue;
            }
            let Program { name, .. } = program;
            let text = program
                .translated(language)
                .map_err(|e| Error::run(format!("{name} cannot be written for {}: {e}", target.name())))?;
            all.push(Written { name: format!("{number:03}-{name}.{variant}.{}", target.extension()), text });
        }
    }
    Ok(all)
}
