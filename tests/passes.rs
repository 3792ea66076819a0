//! Every pass of every plan, one by one: the CPU's fast form and each GPU program against the plain definition,
//! naming the first pass that differs.

use crate::support::{Fixture, On};
use wgpt::{
    backend::{Backend, CpuBackend, Device},
    capabilities::Capabilities,
    engine::plans,
    plan::{Content, Plans, Rows, Shape, Sizes, Use},
    step::{Row, Step},
    weights::Layout,
};

pub const SIZES: Sizes = Sizes { rows: [128, 8], outputs: 128, sequences: 1, context: 43, blocks: 2 };

/// A prompt of 13 tokens, then one token, then three in one step; some rows are outputs. Blocks in no order.
fn steps(tokens: &[u32]) -> Vec<(Shape, Step)> {
    let step = |positions: std::ops::Range<u32>, outputs: Vec<u32>| Step {
        rows: positions.map(|p| Row { token: tokens[p as usize], position: p, sequence: 0 }).collect(),
        outputs,
        tables: vec![vec![1, 0]],
    };
    vec![
        (Shape::Prefill, step(0..13, vec![3, 12])),
        (Shape::Decode, step(13..14, vec![0])),
        (Shape::Decode, step(14..17, vec![0, 2])),
    ]
}

/// The activations and caches that a pass writes.
fn written(plans: &Plans, shape: Shape, pass: usize, step: &Step) -> Vec<(Rows, usize)> {
    let load = step.load();
    let rows = |u: &Use| match (u, plans.buffers.content(u.buffer())) {
        (Use::Write(buffer), Content::Activation { per, stride }) => {
            Some((Rows { buffer: *buffer, width: *stride, per: *per }, per.count(&load) as usize))
        }
        (Use::Write(buffer), Content::Cache { stride }) => {
            let slots = plans.buffers.bytes(*buffer, &plans.sizes) / 4 / u64::from(*stride);
            let width = *stride * slots as u32;
            Some((Rows { buffer: *buffer, width, per: wgpt::plan::Per::Row }, 1))
        }
        _ => None,
    };
    plans.of(shape).passes[pass].kernel.uses().iter().filter_map(rows).collect()
}

/// Runs a model pass by pass on `device` and by the plain definitions, both over plans made for the device.
pub fn check(fixture: &Fixture, on: On, mut device: Device, change: impl Fn(&mut Capabilities)) {
    device.restrict(&change);
    let can = device.capabilities();
    let make = || plans(&fixture.model, &can, SIZES).unwrap_or_else(|e| panic!("{}: {e}", fixture.name));
    let mut definition = CpuBackend::prepare(make(), 1, &|_| ()).expect("memory").plain();
    let mut tested = device.prepare(make(), &|_| ()).expect("a device made ready");
    for (shape, step) in steps(&fixture.tokens) {
        for pass in 0..definition.plans().of(shape).passes.len() {
            definition.run_passes(shape, pass..pass + 1, &step).expect("the CPU");
            tested.run_passes(shape, pass..pass + 1, &step).expect("the device");
            let plans = definition.plans();
            let kernel = &plans.of(shape).passes[pass].kernel;
            let what = format!(
                "{} on {on:?}, {shape:?} pass {pass}: {} ({})",
                fixture.name,
                kernel.name(),
                kernel.note()
            );
            for (rows, count) in written(plans, shape, pass, &step) {
                let expected = definition.read(rows, count).expect("the CPU's memory");
                let got = tested.read(rows, count).expect("the device's memory");
                let scale = expected.iter().fold(1.0f32, |top, v| top.max(v.abs()));
                for (i, (got, expected)) in got.iter().zip(&expected).enumerate() {
                    let off = (got - expected).abs() / scale;
                    assert!(off < 2e-5, "{what}: value {i} is {got}, not {expected}");
                }
            }
            let ids = definition.plans().ids;
            assert_eq!(tested.ids(ids).expect("ids"), definition.ids(ids).expect("ids"), "{what}");
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
/// Joined, padded and split as for a GPU.
#[test]
fn fast_cpu_forms_equal_the_definitions_in_a_gpus_layout() {
    check_all(On::Cpu, |can| {
        *can = Capabilities { layout: Layout::gpu(700), most_binding: 20_000, ..Capabilities::webgpu() }
    });
}
#[test]
fn gpu_programs_equal_the_definitions() {
    check_all(On::Gpu, |_| ());
}
/// Matrices and caches split over bindings, grids folded: as on a device that allows little.
#[test]
fn gpu_programs_equal_the_definitions_where_bindings_and_grids_are_small() {
    check_all(On::Gpu, |can| {
        can.layout = Layout::gpu(700);
        can.most_binding = 20_000;
        can.most_groups = 3;
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
