//! Models that exceed a device's limits.

use crate::support::{Llama, On};
use wgpt::{
    backend::wait,
    buffers::{Buffers, Per, Sizes},
    engine::{Engine, EngineOptions},
    error::Kind,
    kernels::matmul,
    model::Model,
    plan::{Plan, Plans, Ports},
    sampling::Sampling,
    simd::Math,
    step::{Row, Step},
    weights::{Format, Matrix, Order, StoredRows, Tensor},
    workload::Phase,
};

fn load(model: &Model, device: wgpt::backend::Device) -> Engine {
    Engine::load(model, device, EngineOptions::default(), &|_, _| ()).expect("a model made ready")
}

/// The embedding has 164 MB, but a binding at most 128 MiB.
#[test]
fn a_matrix_larger_than_a_binding_is_split() {
    let folder = tempfile::tempdir().expect("a folder");
    Llama { layers: 1, hidden: 1024, inner: 8, vocab: 40_000 }.write(folder.path());
    let model = Model::open_weights(folder.path()).expect("a model");
    let Some(device) = On::WebGpu.open() else { return };
    let mut engine = load(&model, device);
    // The first token is in the second part of the embedding. With weights of zero all tokens are equally
    // likely, so the first is picked.
    let generation = engine.generate(&[39_999, 1], Sampling::GREEDY, 2).expect("tokens");
    assert_eq!(generation.map(|id| id.expect("an id")).collect::<Vec<_>>(), [0, 0]);
    let uniform = engine.logprobs(&[39_999, 7], 1).expect("a score")[0];
    assert!((uniform + f64::from(40_000).ln()).abs() < 1e-4, "{uniform}");
}

/// A grid wider than a device's limit is folded. Without folding, the device reports a validation error,
/// which becomes an error rather than a panic.
#[test]
fn wide_grids_fold_and_a_validation_error_is_an_error() {
    let folder = tempfile::tempdir().expect("a folder");
    Llama { layers: 1, hidden: 8, inner: 8, vocab: 300_000 }.write(folder.path());
    let model = Model::open_weights(folder.path()).expect("a model");
    let Some(device) = On::WebGpu.open() else { return };
    let mut engine = load(&model, device);
    let generation = engine.generate(&[299_999], Sampling::GREEDY, 2).expect("tokens");
    assert_eq!(generation.map(|id| id.expect("an id")).collect::<Vec<_>>(), [0, 0]);

    let mut unlimited = On::WebGpu.open().expect("it opened before");
    unlimited.restrict(|can| can.max_groups = u32::MAX);
    let mut engine = load(&model, unlimited);
    let generation = engine.generate(&[299_999], Sampling::GREEDY, 2).expect("tokens");
    let error = generation.map(|id| id.map(|_| ())).find_map(Result::err).expect("a validation error");
    assert_eq!(error.kind(), Kind::Run);
    assert!(
        error.remedy() == Some(wgpt::error::Remedy::UseCpu) && !error.to_string().contains('\n'),
        "{error}"
    );
}

/// Cooperative matrices take factors in f16. What is beyond its range must not become infinite.
#[test]
fn values_beyond_f16_stay_finite_on_cooperative_matrices() {
    let Some(device) = On::Gpu.open() else { return };
    let device = device.with_math(Math::Fast);
    let Some(matrices) = device.capabilities().matrices else {
        eprintln!("skipped: {} has no cooperative matrices", device.info().name);
        return;
    };
    let (rows, columns) = (3, 64);
    for (_, matrices) in matrices.tiles() {
        let mut device = device.clone();
        device.restrict(|can| can.matrices = Some(matrices));
        let (mut buffers, mut prefill) = (Buffers::default(), Plan::new(Phase::Prefill));
        let tensor = Tensor::random("w", Format::F32, 70, columns as usize, 1);
        let stored = StoredRows::new(tensor, Format::F32, false, Order::AsStored);
        let layout = device.capabilities().layout;
        let w = Matrix::declare(&mut buffers, "w", vec![stored], &layout, None);
        let (x, y) = (buffers.activation("x", Per::Row, columns), buffers.activation("y", Per::Row, 70));
        prefill.push(matmul(x, &w).to(y));
        let sizes = Sizes {
            rows: [rows, 1],
            outputs: 1,
            sequences: 1,
            guesses: 0,
            adapters: 0,
            context: 1,
            blocks: 1,
        };
        let plans = Plans { buffers, sizes, plans: vec![prefill], ports: Ports::default() };
        let mut backend = device.prepare(plans, &|_| ()).expect("a device made ready");
        let row = |position| Row { token: 0, position, sequence: 0 };
        let step = Step { rows: (0..rows).map(row).collect(), tables: vec![vec![0]], ..Step::default() };
        let signs = [1e9f32, -1e9, 1.0];
        let values: Vec<f32> = (0..rows * columns).map(|i| signs[i as usize % 3]).collect();
        backend.write(x, &values).expect("room");
        backend.submit_passes(Phase::Prefill, 0..1, &step).expect("a product");
        let products = wait(backend.read(y, rows as usize)).expect("values");
        assert!(products.iter().all(|product| product.is_finite() && product.abs() > 1.0), "{products:?}");
    }
}
