//! Models that exceed a device's limits.

use crate::support::{Llama, On};
use wgpt::{
    engine::{Engine, EngineOptions},
    error::Kind,
    model::Model,
    sampling::Sampling,
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
