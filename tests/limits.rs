//! Models that are larger than a device's limits.

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

/// An embedding of 164 MB, on a device with bindings of 128 MiB.
#[test]
fn a_matrix_larger_than_a_binding_is_split() {
    let folder = tempfile::tempdir().expect("a folder");
    Llama { layers: 1, hidden: 1024, inner: 8, vocab: 40_000 }.write(folder.path());
    let model = Model::open_weights(folder.path()).expect("a model");
    let Some(device) = On::WebGpu.open() else { return };
    let mut engine = load(&model, device);
    // A token of the second part. Weights of zero find all tokens alike: the first of them is picked.
    let generation = engine.generate(&[39_999, 1], Sampling::GREEDY, 2).expect("tokens");
    assert_eq!(generation.map(|id| id.expect("an id")).collect::<Vec<_>>(), [0, 0]);
    let uniform = engine.logprobs(&[39_999, 7], 1).expect("a score")[0];
    assert!((uniform + f64::from(40_000).ln()).abs() < 1e-4, "{uniform}");
}

/// More workgroups than a side of a grid may have are folded; and where they are not, the device says so, and that
/// is an error, not a panic.
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
    unlimited.restrict(|can| can.most_groups = u32::MAX);
    let mut engine = load(&model, unlimited);
    let generation = engine.generate(&[299_999], Sampling::GREEDY, 2).expect("tokens");
    let error = generation.map(|id| id.map(|_| ())).find_map(Result::err).expect("a validation error");
    assert_eq!(error.kind(), Kind::Run);
    assert!(error.to_string().contains("--device cpu") && !error.to_string().contains('\n'), "{error}");
}
