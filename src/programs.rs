//! A model's shader programs as wgpu hands them to the compilers of Vulkan, DX12, Metal and browsers: for bug
//! reports, and for tests that run compilers of devices that are not at hand.

use crate::{
    capabilities::Capabilities,
    engine::{EngineOptions, plans, sizes, vision_plans},
    error::{Error, Result},
    model::Model,
    plan::Plans,
    shader::{Compiler, Program},
};
use std::collections::HashSet;

/// The variants of programs that devices may need, with a name for each.
fn variants(can: &Capabilities) -> [(&'static str, Capabilities); 2] {
    let with = |subgroups| Capabilities { subgroups, ..can.clone() };
    [("plain", with(false)), ("subgroups", with(true))]
}

/// A program in a compiler's input language.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Written {
    /// The file name: number, name, variant and language, such as `012-matmul_vector.subgroups.hlsl`.
    pub name: String,
    pub text: Vec<u8>,
}

/// Every program of a model on a device with these capabilities, with and without subgroups. A program that
/// is the same in both variants is listed once.
///
/// # Errors
/// Of the kind Model if the model is damaged; of the kind Run if a program cannot be translated for the
/// compiler.
pub fn of_model(model: &Model, compiler: Compiler, can: &Capabilities) -> Result<Vec<Written>> {
    written(compiler, can, |can| {
        let sizes = sizes(model, can, EngineOptions::default())?;
        let tower = vision_plans(model, can)?;
        Ok(std::iter::once(plans(model, can, sizes)?).chain(tower).collect())
    })
}

/// Like [`of_model`], for the plans that `make` returns for given capabilities.
pub fn written(
    compiler: Compiler,
    can: &Capabilities,
    make: impl Fn(&Capabilities) -> Result<Vec<Plans>>,
) -> Result<Vec<Written>> {
    let (mut all, mut known) = (Vec::new(), HashSet::new());
    for (variant, can) in variants(can) {
        let programs = make(&can)?.into_iter().flat_map(|plans| plans.programs(&can));
        for (number, program) in programs.enumerate() {
            if !known.insert(program.key()) {
                continue;
            }
            let Program { name, .. } = program;
            let text = program
                .translated(compiler)
                .map_err(|e| Error::run(format!("{name} cannot be written for {}: {e}", compiler.name())))?;
            all.push(Written {
                name: format!("{number:03}-{name}.{variant}.{}", compiler.extension()),
                text,
            });
        }
    }
    Ok(all)
}
