//! Checks programs without a GPU: every program of every plan is parsed and validated, and its bindings,
//! accesses and overrides are compared with what the kernel declares.

use crate::{
    images,
    support::{Fixture, On},
};
use naga::{
    back::pipeline_constants::process_overrides,
    valid::{Capabilities as Allowed, ValidationFlags, Validator},
};
use wgpt::{
    buffers::{BLOCK, Sizes, Use},
    capabilities::{Capabilities, LARGE_TILES, Layout, Matrices},
    engine::{plans, vision_plans},
    kernel::{Dispatch, Target},
    plan::Plans,
    sampling::{Dry, Mirostat, Penalties, Sampling},
    verify,
    workload::Phase,
};

const SIZES: Sizes =
    Sizes { rows: [128, 8], outputs: 8, sequences: 2, guesses: 0, adapters: 0, context: 43, blocks: 4 };

fn check(what: &str, dispatch: &Dispatch, plans: &Plans, can: &Capabilities) {
    let text = dispatch.program.wgsl();
    let module =
        naga::front::wgsl::parse_str(&text).unwrap_or_else(|e| panic!("{what}: {}", e.emit_to_string(&text)));
    // Reading f16 values from u32 is standard WGSL, although naga has a capability for it.
    let mut allowed = Allowed::SHADER_FLOAT16_IN_FLOAT32;
    allowed.set(Allowed::SUBGROUP, can.subgroups);
    allowed.set(Allowed::COOPERATIVE_MATRIX | Allowed::SHADER_FLOAT16, can.matrices.is_some());
    let mut validator = Validator::new(ValidationFlags::all(), allowed);
    let validator = validator.subgroup_stages(naga::valid::ShaderStages::COMPUTE);
    let validator = validator.subgroup_operations(naga::valid::SubgroupOperationSet::all());
    validator.validate(&module).unwrap_or_else(|e| panic!("{what}: {}", e.emit_to_string(&text)));

    // Bindings: one for each operand, in order, writable exactly where the kernel declares a write.
    let mut bound: Vec<(u32, u32, bool)> = Vec::new();
    for (_, variable) in module.global_variables.iter() {
        if let Some(binding) = &variable.binding {
            let naga::AddressSpace::Storage { access } = variable.space else {
                panic!("{what}: storage buffers only")
            };
            bound.push((binding.group, binding.binding, access.contains(naga::StorageAccess::STORE)));
        }
    }
    bound.sort_unstable();
    let uses = dispatch.uses.iter().zip(0..).map(|(u, i)| (1, i, matches!(u, Use::Write(_))));
    let expected: Vec<_> = std::iter::once((0, 0, false)).chain(uses).collect();
    assert_eq!(bound, expected, "{what}: (group, binding, writes)");
    assert!(bound.len() <= 8, "{what}: more storage buffers than WebGPU promises");

    holds_everywhere(what, dispatch, can, &module, validator);

    // A buffer that is written must not be bound twice: that would be two usages in one dispatch.
    for (i, u) in dispatch.uses.iter().enumerate() {
        let clash = dispatch.uses[..i]
            .iter()
            .any(|v| v.buffer() == u.buffer() && (matches!(u, Use::Write(_)) || matches!(v, Use::Write(_))));
        assert!(!clash, "{what}: binding {i} is in use already");
    }
    // Each buffer fits into a binding.
    for u in &dispatch.uses {
        let bytes = plans.buffers.bytes(u.buffer(), &plans.sizes);
        assert!(bytes <= can.max_binding, "{what}: {} has {bytes} bytes", plans.buffers.label(u.buffer()));
    }

    // Overrides: each one has a value, and each value has an override.
    let constants = &dispatch.program.constants;
    for (_, o) in module.overrides.iter() {
        let name = o.name.as_deref().expect("overrides have names");
        assert!(o.init.is_some() || constants.iter().any(|(n, _)| *n == name), "{what}: {name} has no value");
    }
    for (name, _) in constants {
        let known = module.overrides.iter().any(|(_, o)| o.name.as_deref() == Some(name));
        assert!(known, "{what}: no override {name}");
    }
    assert!(
        text.contains(&format!("const BLOCK = {BLOCK}u;")),
        "{what}: the cache's blocks, as step.rs has them"
    );
}

/// Requirements beyond WebGPU's validation and its eight buffers, checked with overrides set: no 64-bit types
/// and no atomics (Metal has no 64-bit atomics); at most 16 KiB of workgroup memory and 256 threads, which
/// every API has; and no dependence on the width of a subgroup.
fn holds_everywhere(
    what: &str,
    dispatch: &Dispatch,
    can: &Capabilities,
    module: &naga::Module,
    validator: &mut Validator,
) {
    let info = validator.validate(module).expect("it is valid");
    let constants =
        dispatch.program.constants.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
    let entry = Some((naga::ShaderStage::Compute, "main"));
    let (module, _) = process_overrides(module, &info, entry, &constants).expect("values of overrides");
    let threads: u32 = module.entry_points[0].workgroup_size.iter().product();
    assert!((1..=256).contains(&threads), "{what}: {threads} threads");
    let in_workgroup = |variable: &&naga::GlobalVariable| variable.space == naga::AddressSpace::WorkGroup;
    let variables = module.global_variables.iter().map(|(_, variable)| variable).filter(in_workgroup);
    let bytes: u32 = variables.map(|variable| module.types[variable.ty].inner.size(module.to_ctx())).sum();
    // Large tiles of matrices are for devices that have more.
    let most = if can.matrices.is_some_and(|m| m.large_from < u32::MAX) { LARGE_TILES } else { 16 << 10 };
    assert!(bytes <= most, "{what}: {bytes} bytes of workgroup memory");
    no_component_of_a_shared_vector_is_stored(what, &module);
    for (_, kind) in module.types.iter() {
        let is_wide = kind.inner.scalar().is_some_and(|scalar| scalar.width > 4);
        let is_atomic = matches!(kind.inner, naga::TypeInner::Atomic(_));
        assert!(!is_wide && !is_atomic, "{what}: {:?}", kind.inner);
    }
    for argument in &module.entry_points[0].function.arguments {
        let size = naga::Binding::BuiltIn(naga::BuiltIn::SubgroupSize);
        assert_ne!(argument.binding, Some(size), "{what} asks how wide a subgroup is");
    }
}

/// A store to one component of a vector may write the whole vector (WGSL's memory model, and Metal's). If
/// threads share the vector, that is a race, which most drivers do not show.
fn no_component_of_a_shared_vector_is_stored(what: &str, module: &naga::Module) {
    use naga::{Expression, Statement, TypeInner};
    let functions =
        module.functions.iter().map(|(_, f)| f).chain(module.entry_points.iter().map(|e| &e.function));
    for function in functions {
        let is_component = |pointer| {
            let base = match function.expressions[pointer] {
                Expression::Access { base, .. } | Expression::AccessIndex { base, .. } => base,
                _ => return false,
            };
            // Finds the variable, and the type that the pointer selects a component of.
            let (mut at, mut depth) = (base, 0);
            let variable = loop {
                match function.expressions[at] {
                    Expression::Access { base, .. } | Expression::AccessIndex { base, .. } => at = base,
                    Expression::GlobalVariable(variable) => break variable,
                    _ => return false,
                }
                depth += 1;
            };
            let variable = &module.global_variables[variable];
            let mut inner = &module.types[variable.ty].inner;
            for _ in 0..depth {
                let TypeInner::Array { base, .. } = inner else { return false };
                inner = &module.types[*base].inner;
            }
            variable.space == naga::AddressSpace::WorkGroup && matches!(inner, TypeInner::Vector { .. })
        };
        let mut blocks = vec![&function.body];
        while let Some(block) = blocks.pop() {
            for statement in block.iter() {
                match statement {
                    Statement::Store { pointer, .. } => {
                        assert!(
                            !is_component(*pointer),
                            "{what} stores a component of a vector in workgroup memory"
                        );
                    }
                    Statement::Block(inner) => blocks.push(inner),
                    Statement::If { accept, reject, .. } => blocks.extend([accept, reject]),
                    Statement::Loop { body, continuing, .. } => blocks.extend([body, continuing]),
                    Statement::Switch { cases, .. } => blocks.extend(cases.iter().map(|case| &case.body)),
                    _ => (),
                }
            }
        }
    }
}

/// Metal's compiler assumes that there are no infinities and no NaN, so a step must contain only finite
/// numbers.
#[test]
fn a_step_says_finite_numbers() {
    let extreme = Sampling {
        temperature: 1e-30,
        min_p: f32::MIN_POSITIVE,
        top_p: f32::MIN_POSITIVE,
        biases: vec![(1, f32::NEG_INFINITY), (2, f32::INFINITY), (3, f32::MAX), (3, f32::MAX)],
        banned_first: vec![1],
        banned_sequences: vec![vec![7, 1], vec![3]],
        penalties: Penalties { repetition: 1e30, frequency: 1e30, presence: -1e30, last: 0 },
        dry: Dry { multiplier: 1e30, base: 1e30, ..Dry::NONE },
        mirostat: Some(Mirostat { target: 1e30, rate: 1.0 }),
        ..Sampling::GREEDY
    };
    let seen = [7; 80];
    let mut drawn = vec![extreme.draw(0.0), extreme.draw(1e30)];
    drawn.extend([Sampling::GREEDY.draw(0.0), Sampling { mirostat: None, ..extreme.clone() }.draw(0.0)]);
    for draw in drawn {
        let numbers = [draw.temperature, draw.top_p, draw.min_p_margin, draw.typical_p, draw.mirostat_min_p];
        assert!(numbers.iter().all(|number| number.is_finite()), "{draw:?}");
    }
    let adjusted = extreme.adjusted(&seen, true);
    assert_eq!(adjusted.len(), 4);
    assert!(adjusted.iter().all(|to| to.bias.is_finite() && to.dry.is_finite()), "{adjusted:?}");
}

#[test]
fn every_program_keeps_its_kernels_word() {
    let webgpu = Capabilities::webgpu();
    let small = Capabilities {
        layout: Layout::gpu(700),
        max_binding: 41_000,
        max_groups: 3,
        split: 8,
        ..webgpu.clone()
    };
    let with = |matrices| Capabilities { matrices: Some(matrices), subgroups: true, ..webgpu.clone() };
    let on_matrices = matrices().map(with);
    for can in [webgpu.clone(), Capabilities { subgroups: true, ..webgpu.clone() }].iter().chain(&on_matrices)
    {
        check_all("verify", &verify::plans(can), can);
    }
    let models = Fixture::all().into_iter().map(|fixture| fixture.model).chain(images::models());
    for model in models {
        for can in [webgpu.clone(), Capabilities { subgroups: true, ..webgpu.clone() }, small.clone()] {
            check_all(&model.name, &plans(&model, &can, SIZES).expect("plans"), &can);
            if let Some(tower) = vision_plans(&model, &can).expect("a plan") {
                check_all(&format!("{}'s tower", model.name), &tower, &can);
            }
        }
    }
}

/// Cooperative matrices as devices have them.
fn matrices() -> [Matrices; 5] {
    let of = |size, max_subgroup, large_from| Matrices { size, max_subgroup, large_from };
    [of(8, 32, u32::MAX), of(16, 32, u32::MAX), of(16, 32, 0), of(16, 64, u32::MAX), of(16, 64, 0)]
}

fn check_all(name: &str, plans: &Plans, can: &Capabilities) {
    for plan in &plans.plans {
        let phase = plan.phase;
        for (number, pass) in plan.passes.iter().enumerate() {
            for dispatch in pass.kernel.dispatches(&Target { can, phase }) {
                let what = format!("{name} {phase:?} pass {number}, {}", dispatch.program.name);
                check(&what, &dispatch, plans, can);
            }
        }
    }
}

/// Layers share programs: more layers do not mean more pipelines.
#[test]
fn layers_share_their_programs() {
    let fixture = Fixture::open("gpt2-inverse-layer");
    let can = Capabilities::webgpu();
    let plans = plans(&fixture.model, &can, SIZES).expect("plans");
    let of_layer = |layer: u32| -> Vec<String> {
        let passes = plans.of(Phase::Decode).passes.iter().filter(|pass| pass.layer == Some(layer));
        let target = Target { can: &can, phase: Phase::Decode };
        let dispatches = passes.flat_map(|pass| pass.kernel.dispatches(&target));
        dispatches.map(|d| format!("{:?} {}", d.program.constants, d.program.wgsl())).collect()
    };
    assert_eq!(of_layer(0), of_layer(1));
    assert_eq!(of_layer(0), of_layer(2));
}

/// A grid that is wider than the limit of a dimension is folded, and still covers all groups.
#[test]
fn grids_fold_within_the_limit() {
    use wgpt::{
        buffers::Per,
        kernel::{Grid, Only, Splits},
        workload::Workload,
    };
    let load = Workload { rows: 70, outputs: 3, context: 70, ..Workload::default() };
    let grid = |groups, per, rows, splits| Grid { rows, splits, ..Grid::per(per, groups) };
    for (groups, most) in [(1, 65535), (65535, 65535), (65536, 65535), (200_000, 65535), (7, 3), (9, 3)] {
        let [x, y, z] =
            grid(groups, Per::Row, 32, Splits::Whole).workgroups(&load, most).expect("workgroups");
        assert!(
            x <= most && y <= most && x * y >= groups && z == 3,
            "{groups} groups, {most} a side: {x} {y} {z}"
        );
    }
    let workgroups = |splits| grid(5, Per::Output, 1, splits).workgroups(&load, 65535);
    assert_eq!(grid(5, Per::Target, 1, Splits::Whole).workgroups(&load, 65535), None);
    assert_eq!(workgroups(Splits::Whole), Some([5, 1, 3]));
    assert_eq!(workgroups(Splits::Each(32)), Some([15, 1, 3]));
    assert_eq!(workgroups(Splits::Beyond(69)), Some([5, 1, 3]));
    assert_eq!(workgroups(Splits::Beyond(70)), None);
    let only = |only, per| Grid { only, ..Grid::per(per, 5) }.workgroups(&load, 65535).is_some();
    assert_eq!([only(Only::One, Per::Output), only(Only::Several, Per::Output)], [false, true]);
    let load = Workload { outputs: 1, ..load };
    let only = |only, per| Grid { only, ..Grid::per(per, 5) }.workgroups(&load, 65535).is_some();
    assert_eq!([only(Only::One, Per::Output), only(Only::Several, Per::Output)], [true, false]);
}

#[test]
fn every_device_says_what_it_can_do() {
    let Some(device) = On::WebGpu.open() else { return };
    let (can, least) = (device.capabilities(), Capabilities::webgpu());
    assert_eq!(can, least, "a device opened with WebGPU's default limits");
}
