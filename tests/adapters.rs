//! Low-rank adapters compared with PEFT, on every kind of device.

use crate::{
    models::{engine, greedy},
    passes,
    support::{On, logprobs, path},
};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::json;
use std::{fs, path::PathBuf};
use tempfile::TempDir;
use wgpt::{
    buffers::Sizes,
    engine::{Engine, EngineOptions, Goal, Happened, OwnedPrompt, Prompt, plans},
    model::Model,
    sampling::Sampling,
    step::{Row, Step},
    workload::Phase,
};

const NAMES: [&str; 5] = ["gpt1", "gpt2", "llama-grouped", "qwen3", "smollm3"];

fn folder(name: &str) -> PathBuf {
    path("fixtures/adapters").join(name)
}

/// The model with both its adapters.
pub fn adapted(name: &str) -> Model {
    let mut model = Model::open_weights(&path("fixtures/models").join(name)).expect("a model");
    model.adapt(&folder(name).join("first"), 1.0).expect("its adapter");
    model.adapt(&folder(name).join("second"), 0.0).expect("its adapter");
    model
}

/// What PEFT makes of an adapter.
struct Expected {
    tokens: Vec<u32>,
    greedy: Vec<u32>,
    vocab: usize,
    file: Vec<u8>,
}

impl Expected {
    fn open(name: &str, model: &Model) -> Self {
        let file = fs::read(folder(name).join("expected.safetensors")).expect("expected.safetensors");
        let tensors = SafeTensors::deserialize(&file).expect("safetensors");
        let ids = |name| bytemuck::pod_collect_to_vec(tensors.tensor(name).expect(name).data());
        let (tokens, greedy) = (ids("tokens"), ids("greedy"));
        Self { tokens, greedy, vocab: model.architecture.vocab_size as usize, file }
    }

    /// The log-probability of each token after the first.
    fn logprobs(&self, logits: &str) -> Vec<f64> {
        let tensors = SafeTensors::deserialize(&self.file).expect("safetensors");
        let values: Vec<f32> = bytemuck::pod_collect_to_vec(tensors.tensor(logits).expect(logits).data());
        logprobs(values.chunks(self.vocab), &self.tokens)
    }
}

fn is_near(engine: &mut Engine, expected: &Expected, adapters: &[f32], logits: &str, what: &str) {
    let prompt = Prompt { adapters: Some(adapters), ..(&expected.tokens).into() };
    let got = engine.logprobs(prompt, 1).expect("tokens that fit");
    for (position, (got, expected)) in got.iter().zip(expected.logprobs(logits)).enumerate() {
        let off = (got - expected).abs();
        assert!(off < 2e-4, "{what}, {logits}, token {position}: {got} for {expected}");
    }
}

/// Whole, in part, two at once, and none: as PEFT has it, or the model alone.
#[test]
fn adapters_are_as_peft_has_them() {
    for (name, on) in NAMES.iter().flat_map(|name| On::ALL.map(|on| (*name, on))) {
        let model = adapted(name);
        let expected = Expected::open(name, &model);
        let options = EngineOptions { scores: true, ..EngineOptions::default() };
        let Some(mut engine) = engine(&model, on, options) else { continue };
        let what = format!("{name} on {on:?}");
        for (scales, logits) in [([1.0, 0.0], "logits"), ([0.4, 0.0], "scaled"), ([0.5, 1.0], "both")] {
            is_near(&mut engine, &expected, &scales, logits, &what);
        }
        assert_eq!(greedy(&mut engine, &expected.tokens, expected.greedy.len()), expected.greedy, "{what}");
    }
}

/// GGUF's adapters, with GGUF's names and order of rows, are the same ones.
#[test]
fn ggufs_adapters_are_as_peft_has_them() {
    for (name, on) in ["qwen3", "smollm3"].iter().flat_map(|name| [On::Cpu, On::Gpu].map(|on| (*name, on))) {
        let file = format!("{name}.gguf");
        let mut model = Model::open_weights(&path("fixtures/gguf").join(&file)).expect("a model");
        model.adapt(&folder(&file), 1.0).expect("its adapter");
        let expected = Expected::open(name, &model);
        let options = EngineOptions { scores: true, ..EngineOptions::default() };
        let Some(mut engine) = engine(&model, on, options) else { continue };
        is_near(&mut engine, &expected, &[1.0], "logits", name);
        is_near(&mut engine, &expected, &[0.4], "scaled", name);
    }
}

/// Each pass against its definition, for sequences with other scales in one step.
#[test]
fn passes_of_adapters_equal_their_definitions() {
    for (name, on) in NAMES.iter().flat_map(|name| [On::Cpu, On::Gpu].map(|on| (*name, on))) {
        let (model, Some(device)) = (adapted(name), on.open()) else { continue };
        let sizes = Sizes { sequences: 2, adapters: 2, ..passes::SIZES };
        let rows = |positions: std::ops::Range<u32>| {
            let row = |sequence| move |position| Row { token: 3 + position, position, sequence };
            positions.clone().map(row(0)).chain(positions.map(row(1))).collect()
        };
        let step = |positions: std::ops::Range<u32>| Step {
            rows: rows(positions),
            outputs: vec![0, 1],
            targets: vec![4, 5],
            tables: vec![vec![0], vec![1]],
            adapters: vec![vec![1.0, 0.25], vec![0.5, -1.0]],
            ..Step::default()
        };
        let steps =
            [(Phase::Prefill, step(0..9)), (Phase::Decode, step(9..10)), (Phase::Decode, step(10..13))];
        let make = |can: &_| plans(&model, can, sizes).expect("plans");
        passes::check_plans(name, on, device, make, &steps, |_| ());
    }
}

/// Sequences with other scales run together, and find no prompt of each other's in the cache.
#[test]
fn each_sequence_has_its_own_scales() {
    for on in [On::Cpu, On::Gpu] {
        let mut model = adapted("llama-grouped");
        model.eos.clear();
        let options = EngineOptions { sequences: Some(4), ..EngineOptions::default() };
        let Some(mut engine) = engine(&model, on, options) else { continue };
        let tokens: Vec<u32> = (0..40).map(|i| 3 + i * 7 % 50).collect();
        let all = [[1.0, 0.0], [0.0, 0.0], [0.5, 1.0], [1.0, 0.0]];
        let mut alone = |scales: &[f32]| -> Vec<u32> {
            let prompt = OwnedPrompt { adapters: Some(scales.to_vec()), ..tokens.clone().into() };
            let generation = engine.generate(&prompt, Sampling::GREEDY, 20).expect("a prompt");
            generation.map(|id| id.expect("a token")).collect()
        };
        let each: Vec<_> = all.iter().map(|scales| alone(scales)).collect();
        assert!(each[0] != each[1] && each[0] != each[2] && each[1] != each[2], "{on:?}: {each:?}");
        // The prompt's first block is in the cache by now, once for each choice of scales.
        for (scales, before) in all.iter().zip(&each) {
            assert_eq!(&alone(scales), before, "{on:?}");
        }
        let mut together = vec![Vec::new(); all.len()];
        let ids = all.each_ref().map(|scales| {
            let prompt = Prompt { adapters: Some(scales), ..(&tokens).into() };
            engine.add(prompt, Goal::generate(Sampling::GREEDY, 20)).expect("a prompt")
        });
        while !engine.is_idle() {
            for event in engine.step().expect("a step") {
                let of = ids.iter().position(|id| *id == event.sequence).expect("one of them");
                if let Happened::Token(token) = event.happened {
                    together[of].push(token);
                }
            }
        }
        assert_eq!(together, each, "{on:?}");
        // Of which nothing applies, they change nothing.
        model.adapters.clear();
        let mut plain = crate::models::engine(&model, on, options).expect("it opened before");
        assert_eq!(greedy(&mut plain, &tokens, 20), each[1], "{on:?}");
    }
}

/// What is no adapter, or one of another model, is refused with words.
#[test]
fn adapters_that_do_not_fit_are_refused() {
    let mut model = Model::open_weights(&path("fixtures/models/gpt2")).expect("a model");
    for (path, word) in [
        (folder("llama-grouped/first"), "for another model"),
        (folder("gpt1"), "adapter_config.json"),
        (folder("qwen3.gguf"), "names of its tensors"),
        (path("fixtures/gguf/qwen3.gguf"), "general.type"),
        (folder("nothing"), "neither"),
    ] {
        let refused = model.adapt(&path, 1.0).expect_err("not an adapter of this model").to_string();
        assert!(refused.contains(word), "{refused}");
    }
    // What changes more than two factors say.
    let folder_of_gpt2 = folder("gpt2/first");
    for (field, value) in [
        ("use_dora", json!(true)),
        ("bias", json!("all")),
        ("init_lora_weights", json!("pissa_niter_4")),
        ("peft_type", json!("IA3")),
        ("alpha_pattern", json!({".*c_attn": 3})),
    ] {
        let changed = tempfile::tempdir().expect("a folder");
        let name = "adapter_model.safetensors";
        fs::copy(folder_of_gpt2.join(name), changed.path().join(name)).expect("a copy");
        let text = fs::read(folder_of_gpt2.join("adapter_config.json")).expect("a config");
        let mut config: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
        config[field] = value;
        fs::write(changed.path().join("adapter_config.json"), config.to_string()).expect("a file");
        let refused = model.adapt(changed.path(), 1.0).expect_err("not plain").to_string();
        assert!(refused.contains(field), "{refused}");
    }
}

/// A folder with an adapter of the built-in model, which changes what it writes.
pub fn of_the_built_in_model() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let (model, _) = Model::built_in().expect("the built-in model");
    let mut state = 1u32;
    let mut random = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    let width = model.architecture.hidden_size as usize;
    let mut tensors = Vec::new();
    for (layer, module) in (0..model.architecture.layers.len()).flat_map(|l| [(l, "q_proj"), (l, "o_proj")]) {
        for (factor, shape) in [("A", [2, width]), ("B", [width, 2])] {
            let name =
                format!("base_model.model.model.layers.{layer}.self_attn.{module}.lora_{factor}.weight");
            let values: Vec<f32> = (0..shape[0] * shape[1]).map(|_| random()).collect();
            tensors.push((name, shape.to_vec(), values));
        }
    }
    let views = tensors.iter().map(|(name, shape, values)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytemuck::cast_slice(values));
        (name, view.expect("a shape"))
    });
    let file = folder.path().join("adapter_model.safetensors");
    safetensors::serialize_to_file(views, None, &file).expect("a file");
    let config = r#"{"peft_type": "LORA", "r": 2, "lora_alpha": 2}"#;
    fs::write(folder.path().join("adapter_config.json"), config).expect("a file");
    folder
}
