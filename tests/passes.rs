//! Compares every pass of every plan, one by one, with its plain definition: the fast CPU form and each GPU
//! program. Names the first pass that differs.

use crate::support::{Fixture, On};
use wgpt::{
    backend::{Backend, CpuBackend, Device},
    buffers::Sizes,
    capabilities::{Capabilities, Layout, Matrices},
    engine::plans,
    plan::Plans,
    simd::Math,
    step::{Row, Step},
    verify::{Check, compare},
    workload::Phase,
};

pub const SIZES: Sizes =
    Sizes { rows: [128, 8], outputs: 128, sequences: 1, guesses: 0, adapters: 0, context: 43, blocks: 2 };

/// A prompt of 13 tokens, then one token, then three tokens in one step. Some rows are outputs. The cache
/// blocks are not in order.
fn steps(tokens: &[u32]) -> Vec<(Phase, Step)> {
    let step = |positions: std::ops::Range<u32>, outputs: Vec<u32>| Step {
        rows: positions.map(|p| Row { token: tokens[p as usize], position: p, sequence: 0 }).collect(),
        targets: outputs.iter().map(|output| tokens[*output as usize]).collect(),
        outputs,
        tables: vec![vec![1, 0]],
        ..Step::default()
    };
    vec![
        (Phase::Prefill, step(0..13, vec![3, 12])),
        (Phase::Decode, step(13..14, vec![0])),
        (Phase::Decode, step(14..17, vec![0, 2])),
    ]
}

/// Runs a model on `device` and by the plain definitions, and compares them pass by pass. Both use plans made
/// for the device.
pub fn check(fixture: &Fixture, on: On, mut device: Device, change: impl Fn(&mut Capabilities)) {
    device.restrict(&change);
    let make = |can: &Capabilities| plans(&fixture.model, can, SIZES).expect("plans");
    check_plans(&fixture.name, on, device, make, &steps(&fixture.tokens), |_| ());
}

/// Runs steps on `device` and by the plain definitions, and compares them pass by pass. `begin` fills the
/// buffers that the host writes.
pub fn check_plans(
    name: &str,
    on: On,
    device: Device,
    make: impl Fn(&Capabilities) -> Plans,
    steps: &[(Phase, Step)],
    begin: impl Fn(&mut dyn Backend),
) {
    let can = device.capabilities();
    let mut definition = CpuBackend::prepare(make(&can), 1, Math::F32, &|_| ()).expect("memory").plain();
    let mut tested = device.prepare(make(&can), &|_| ()).expect("a device made ready");
    begin(&mut definition);
    begin(&mut *tested);
    for (phase, step) in steps {
        let phase = *phase;
        for pass in 0..definition.plans().of(phase).passes.len() {
            let Check { kernel, variant, max_error, tolerance, .. } =
                compare(&mut definition, &mut *tested, &can, (phase, pass), step).expect("both run");
            // The rows of these models are short, so less is allowed than for rows of any length. This form
            // of the comparison also fails for NaN.
            assert!(
                max_error < 0.4 * tolerance,
                "{name} on {on:?}, pass {pass}: {kernel} ({variant}) is off by {max_error}"
            );
        }
    }
}

fn check_all(on: On, change: impl Fn(&mut Capabilities)) {
    for fixture in Fixture::all() {
        let Some(device) = on.open() else { return };
        check(&fixture, on, device, &change);
    }
}

#[test]
fn fast_cpu_forms_equal_the_definitions() {
    check_all(On::Cpu, |_| ());
}
/// With matrices fused, padded and split as for a GPU.
#[test]
fn fast_cpu_forms_equal_the_definitions_in_a_gpus_layout() {
    check_all(On::Cpu, |can| {
        let layout = Layout { planes: false, ..Layout::gpu(700) };
        *can = Capabilities { layout, max_binding: 20_000, ..Capabilities::webgpu() }
    });
}
#[test]
fn gpu_programs_equal_the_definitions() {
    check_all(On::Gpu, |_| ());
}
/// With matrices and caches split over several bindings, and grids folded, as on a device with low limits.
#[test]
fn gpu_programs_equal_the_definitions_where_bindings_and_grids_are_small() {
    check_all(On::Gpu, |can| {
        can.layout = Layout::gpu(700);
        can.max_binding = 20_000;
        can.max_groups = 3;
        can.split = 8;
        can.lines = 4;
    });
}
#[test]
fn gpu_programs_equal_the_definitions_without_subgroups() {
    check_all(On::WebGpu, |_| ());
}
#[test]
fn gpu_programs_equal_the_definitions_with_checks() {
    check_all(On::Checked, |_| ());
}

/// With products of many rows on cooperative matrices, in small tiles and in large ones.
#[test]
fn gpu_programs_equal_the_definitions_on_cooperative_matrices() {
    let Some(device) = On::Gpu.open() else { return };
    let device = device.with_math(Math::Fast);
    let Some(matrices) = device.capabilities().matrices else {
        eprintln!("skipped: {} has no cooperative matrices", device.info().name);
        return;
    };
    // Mesa's software device lists those of 8 by 8, and multiplies those of 16 by 16, too.
    let is_software = device.info().name.contains("llvmpipe");
    let larger = Matrices { size: 16, large_from: 0, ..matrices };
    let tiles = matrices.tiles().into_iter().chain(if is_software { larger.tiles() } else { Vec::new() });
    for (name, matrices) in tiles {
        eprintln!("{name} of matrices of {0} by {0}", matrices.size);
        for fixture in Fixture::all() {
            check(&fixture, On::Gpu, device.clone(), |can| can.matrices = Some(matrices));
        }
    }
}
