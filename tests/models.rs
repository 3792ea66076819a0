//! Whole models compared with transformers: every family and option of the fixtures, on every kind of device.

use crate::support::{Fixture, On, path, shared};
use wgpt::{
    engine::{Engine, EngineOptions},
    model::Model,
    sampling::Sampling,
};

pub fn engine(model: &Model, on: On, options: EngineOptions) -> Option<Engine> {
    Some(
        Engine::load(model, on.open()?, options, &|_, _| ())
            .unwrap_or_else(|e| panic!("{}: {e}", model.name)),
    )
}

pub fn greedy(engine: &mut Engine, prompt: &[u32], count: usize) -> Vec<u32> {
    let generation = engine.generate(prompt, Sampling::GREEDY, count).expect("a prompt that fits");
    generation.map(|id| id.expect("a token")).collect()
}

fn check_fixtures(on: On) {
    for fixture in Fixture::all() {
        let Some(mut engine) =
            engine(&fixture.model, on, EngineOptions { scores: true, ..Default::default() })
        else {
            return;
        };
        let logprobs = engine.logprobs(&fixture.tokens, 1).expect("tokens that fit");
        for (position, (got, expected)) in logprobs.iter().zip(fixture.logprobs()).enumerate() {
            let off = (got - expected).abs();
            assert!(off < 1e-4, "{} on {on:?}, token {position}: {got} for {expected}", fixture.name);
        }
        assert_eq!(logprobs.len(), fixture.tokens.len() - 1);
        let continued = greedy(&mut engine, &fixture.tokens, fixture.greedy.len());
        assert_eq!(continued, fixture.greedy, "{} on {on:?}", fixture.name);
    }
}

#[test]
fn on_the_cpu_fixtures_are_as_transformers_has_them() {
    check_fixtures(On::Cpu);
}
#[test]
fn on_the_gpu_fixtures_are_as_transformers_has_them() {
    check_fixtures(On::Gpu);
}
#[test]
fn with_checks_fixtures_are_as_transformers_has_them() {
    check_fixtures(On::Checked);
}
#[test]
fn at_webgpus_default_limits_fixtures_are_as_transformers_has_them() {
    check_fixtures(On::WebGpu);
}

/// The trained models give the same story on all devices, over many cache blocks and several prefill chunks.
#[test]
fn the_trained_models_tell_the_same_story_on_all_devices() {
    let folders =
        ["models/stories-gpt1", "models/stories-gpt2", "models/stories-gpt-neo", "models/stories260K"];
    for model in folders.iter().filter_map(|name| Some(Model::open(&shared(name)?).expect("a model"))) {
        let (model, tokenizer) = model;
        let prompt = tokenizer.encode("Once upon a time", true).expect("tokens");
        let length = 200.min(model.architecture.max_positions as usize - prompt.len());
        let mut stories = Vec::new();
        for on in On::ALL {
            let Some(mut engine) = engine(&model, on, EngineOptions::default()) else { continue };
            stories.push((on, greedy(&mut engine, &prompt, length)));
        }
        for (on, story) in &stories {
            assert_eq!(story, &stories[0].1, "{} on {on:?}", model.name);
        }
        let text = tokenizer.decode(&stories[0].1, true);
        assert!(text.contains("She") || text.contains("she"), "a story: {text}");
    }
}

/// Decoding with the cache gives the same tokens as computing the whole text anew for each token.
#[test]
fn a_cached_text_equals_one_recomputed_for_each_token() {
    for (model, _) in [Model::built_in().expect("the built-in model")] {
        for on in [On::Cpu, On::Gpu] {
            let Some(mut engine) = engine(&model, on, EngineOptions::default()) else { continue };
            let mut text = vec![1, 403, 407, 261, 378];
            let cached = greedy(&mut engine, &text, 170);
            assert!(text.len() + cached.len() > 128 + 32, "beyond a prefill chunk and several blocks");
            let step = if on == On::Cpu { 1 } else { 13 };
            for (i, id) in cached.iter().enumerate() {
                if i % step == 0 {
                    assert_eq!(greedy(&mut engine, &text, 1), [*id], "token {i} on {on:?}");
                }
                text.push(*id);
            }
        }
    }
}

/// A checkpoint may store a head although config.json ties it to the embedding. If the two differ, the stored
/// head is used, as in transformers.
#[test]
fn a_head_of_its_own_is_not_tied() {
    for name in ["gpt2-untied", "gpt1-untied", "llama"] {
        let untied = Fixture::open(name);
        let folder = tempfile::tempdir().expect("a folder");
        let (from, to) = (path("fixtures/models").join(name), folder.path());
        std::fs::copy(from.join("model.safetensors"), to.join("model.safetensors")).expect("a copy");
        let text = std::fs::read(from.join("config.json")).expect("config.json");
        let mut config: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
        config["tie_word_embeddings"] = true.into();
        std::fs::write(to.join("config.json"), config.to_string()).expect("a file");
        let model = Model::open_weights(to).expect("a model");
        let mut engine = engine(&model, On::Cpu, EngineOptions::default()).expect("the CPU");
        assert_eq!(greedy(&mut engine, &untied.tokens, untied.greedy.len()), untied.greedy, "{name}");
    }
}
