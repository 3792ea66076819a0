//! A model's programs as the compilers of Vulkan, DX12, Metal and browsers get them: for reports of bugs, and for tests that
//! put them through the compilers of devices that nobody has at hand.

use crate::{
    capabilities::Capabilities,
    engine::{EngineOptions, plans, sizes, tower_plan},
    error::{Error, Result},
    model::Model,
    plan::Plans,
    shader::{Compiler, Program},
};
use std::collections::HashSet;

/// The forms that devices may need, a word for each.
fn variants(can: &Capabilities) -> [(&'static str, Capabilities); 2] {
    let with = |subgroups| Capabilities { subgroups, ..can.clone() };
    [("plain", with(false)), ("subgroups", with(true))]
}

/// A program as a compiler gets it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Written {
    /// Of its file: number, name, variant and what it is written in, such as `012-matmul_vector.subgroups.hlsl`.
    pub name: String,
    pub text: Vec<u8>,
}

/// Every program of a model on a device that can do so much, in every variant that its devices may need. A program
/// that no variant changes is there once.
///
/// # Errors
/// Of the kind Model where the model is damaged; of the kind Run where the compiler has no words for a program.
pub fn of_model(model: &Model, compiler: Compiler, can: &Capabilities) -> Result<Vec<Written>> {
    written(compiler, can, |can| {
        let sizes = sizes(model, can, EngineOptions::default())?;
        let tower = tower_plan(model, can)?.map(|tower| tower.plans);
        Ok(std::iter::once(plans(model, can, sizes)?).chain(tower).collect())
    })
}

/// The same of whatever plans `make` makes for a device that can do so much.
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
