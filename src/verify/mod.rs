//! Checks that a device computes correctly: every kernel, variant and storage format, compared with its plain
//! definition.
//!
//! A plan is only a list of passes, so the check makes one that holds each of them once. It runs pass by pass
//! on the device and by the definitions, and what each pass writes is compared.

mod agreement;
mod compare;
mod matrices;
mod plans;
mod steps;

pub use agreement::{Agreement, agreement};
pub use compare::compare;
pub use matrices::matrices_are_right;
pub use plans::plans;

use crate::{
    backend::{Backend, CpuBackend, Device},
    buffers::{BLOCK, Sizes},
    capabilities::Matrices,
    error::Result,
    model::Model,
    simd::Math,
    weights::Format,
    workload::Phase,
};
use compare::worse;
use serde::Serialize;
use steps::steps;

/// The result for one variant of a kernel.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    pub kernel: &'static str,
    pub variant: String,
    /// The largest difference, divided by the largest absolute value or by 1, whichever is larger.
    pub max_error: f64,
    pub tolerance: f64,
    pub ok: bool,
}

/// For sums in another order than the definition's. Nothing else may differ.
const TOLERANCE: f64 = 5e-5;
/// For products of factors in f16. Rounding a factor changes it by 2^-11 of itself at most, so a product
/// changes by 2^-10 of itself, 1e-3. The changes of a sum's products mostly cancel out, and the largest value
/// of many is some times larger than a typical one, so that a right sum is off by a fraction of this.
const MATRIX_TOLERANCE: f64 = 2e-3;
/// The KL divergence in nats that rounding activations to eight bits may cause.
const FAST_TOLERANCE: f64 = 0.01;
/// The KL divergence that rounding weights and activations to f16 may cause.
const F16_TOLERANCE: f64 = 1e-4;

const WIDTH: u32 = 512;
const WIDE: u32 = 2304;
const VOCAB: u32 = 391;
/// Longer than two splits of the context in attention.
const CONTEXT: u32 = 544;
const SIZES: Sizes = Sizes {
    rows: [128, 8],
    outputs: 8,
    sequences: 2,
    guesses: 0,
    adapters: 2,
    context: CONTEXT,
    blocks: 2 * CONTEXT.div_ceil(BLOCK),
};

/// Checks a device. If it has subgroups, the programs for devices without them are checked, too, and if it
/// has fast math, that is, too. `open` opens the device.
pub fn verify(open: impl Fn() -> Result<Device>) -> Result<Vec<Check>> {
    let device = open()?;
    let (has_subgroups, has_fast_math) = (device.capabilities().subgroups, device.has_fast_math());
    let mut checks = verify_opened(device)?;
    if has_subgroups {
        let mut device = open()?;
        device.restrict(|can| can.subgroups = false);
        let more = verify_opened(device)?;
        checks.extend(more.into_iter().map(|c| Check { variant: c.variant + ", no subgroups", ..c }));
    }
    if has_fast_math {
        let device = open()?.with_math(Math::Fast);
        let on_matrices = device.capabilities().matrices.is_some();
        if on_matrices {
            checks.extend(products_on_matrices(device)?);
        }
        checks.push(fast_math(&open, if on_matrices { Phase::Prefill } else { Phase::Decode })?);
    }
    Ok(checks)
}

/// Checks products on cooperative matrices, in small tiles and in large ones.
fn products_on_matrices(mut device: Device) -> Result<Vec<Check>> {
    let mut checks = Vec::new();
    let tiles = device.capabilities().matrices.map_or(Vec::new(), Matrices::tiles);
    for (name, matrices) in tiles {
        device.restrict(|can| can.matrices = Some(matrices));
        let all = verify_opened(device.clone())?;
        let products = all.into_iter().filter(|check| check.tolerance == MATRIX_TOLERANCE);
        checks.extend(products.map(|c| Check { variant: format!("{}, {name} of matrices", c.variant), ..c }));
    }
    Ok(checks)
}

/// Compares the predictions of the built-in model in q8_0, computed with `--math fast` and in f32.
fn fast_math(open: &impl Fn() -> Result<Device>, phase: Phase) -> Result<Check> {
    let (mut model, tokenizer) = Model::built_in()?;
    model.quantize(Format::Q8_0);
    let tokens = tokenizer.encode("Once upon a time there was a little girl who had a red ball.", true)?;
    let devices = [open()?.with_math(Math::F32), open()?.with_math(Math::Fast)];
    let Agreement { kl, top } = agreement(&model, &tokens, phase, devices)?;
    // Decode rounds activations to eight bits, prefill rounds to f16.
    let (name, tolerance) =
        if phase == Phase::Decode { ("decode", FAST_TOLERANCE) } else { ("prefill", F16_TOLERANCE) };
    let variant =
        format!("{name}, q8_0, mean KL of fast math ({:.0} % of the top tokens equal)", 100.0 * top);
    Ok(Check { kernel: "model", variant, max_error: kl, tolerance, ok: kl <= tolerance })
}

/// Checks every kernel and variant with a device's present capabilities.
fn verify_opened(device: Device) -> Result<Vec<Check>> {
    let can = device.capabilities();
    let mut definition = CpuBackend::prepare(plans(&can), 1, Math::F32, &|_| ())?.plain();
    let mut tested = device.prepare(plans(&can), &|_| ())?;
    let mut checks: Vec<Check> = Vec::new();
    for (phase, step) in steps() {
        for pass in 0..definition.plans().of(phase).passes.len() {
            let check = compare(&mut definition, &mut *tested, &can, (phase, pass), &step)?;
            match checks.iter_mut().find(|c| (c.kernel, &c.variant) == (check.kernel, &check.variant)) {
                Some(known) => {
                    known.max_error = worse(known.max_error, check.max_error);
                    known.ok &= check.ok;
                }
                None => checks.push(check),
            }
        }
    }
    Ok(checks)
}
