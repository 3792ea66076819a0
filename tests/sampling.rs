//! Drawing on the device: every setting gives the tokens that the CPU gives, and a new generation is not touched by
//! what an abandoned one had under way.

use crate::{
    models::engine,
    support::{Fixture, On, path},
};
use wgpt::{
    engine::{Engine, EngineOptions},
    model::Model,
    sampling::{Penalties, Sampling},
};

const PROMPT: [u32; 4] = [1, 403, 407, 261];

fn draw(engine: &mut Engine, sampling: Sampling) -> Vec<u32> {
    let generation = engine.generate(&PROMPT, sampling, 60).expect("a prompt that fits");
    generation.map(|id| id.expect("a token")).collect()
}

#[test]
fn every_setting_draws_the_same_tokens_on_all_devices() {
    let (model, _) = Model::built_in().expect("the built-in model");
    let mut cpu = engine(&model, On::Cpu, EngineOptions::default()).expect("the CPU");
    let plain = Sampling { temperature: 1.0, seed: 3, ..Sampling::GREEDY };
    let settings = [
        Sampling::GREEDY,
        plain,
        Sampling { temperature: 1.7, seed: u64::MAX, ..plain },
        Sampling { temperature: 0.05, ..plain },
        Sampling { top_k: 1, ..plain },
        Sampling { top_k: 7, ..plain },
        Sampling { top_k: 5000, ..plain },
        Sampling { top_p: 0.5, ..plain },
        Sampling { top_p: 1e-6, ..plain },
        Sampling { min_p: 0.1, ..plain },
        Sampling { min_p: 1.0, ..plain },
        Sampling { temperature: 0.8, top_k: 40, top_p: 0.95, min_p: 0.02, seed: 11, ..plain },
        Sampling {
            penalties: Penalties { repetition: 1.4, frequency: 0.3, presence: 0.5, last: 0 },
            ..plain
        },
        Sampling { penalties: Penalties { repetition: 1.1, last: 5, ..Penalties::NONE }, ..Sampling::GREEDY },
    ];
    let expected = settings.map(|sampling| draw(&mut cpu, sampling));
    assert_ne!(expected[1], expected[2]);
    assert_eq!(expected[0], expected[4], "the best of one");
    for on in [On::Gpu, On::Checked, On::WebGpu] {
        let Some(mut engine) = engine(&model, on, EngineOptions::default()) else { return };
        for (sampling, expected) in settings.iter().zip(&expected) {
            assert_eq!(draw(&mut engine, *sampling), *expected, "{sampling:?} on {on:?}");
        }
    }
}

#[test]
fn what_an_abandoned_generation_had_under_way_is_forgotten() {
    let (model, _) = Model::built_in().expect("the built-in model");
    for on in On::ALL {
        let Some(mut engine) = engine(&model, on, EngineOptions::default()) else { return };
        let whole = draw(&mut engine, Sampling::GREEDY);
        for taken in [0, 1, 2, 5] {
            let generation = engine.generate(&PROMPT, Sampling::GREEDY, 60).expect("a prompt that fits");
            let some: Vec<u32> = generation.take(taken).map(|id| id.expect("a token")).collect();
            assert_eq!(some, whole[..taken]);
            assert_eq!(draw(&mut engine, Sampling::GREEDY), whole, "after {taken} tokens on {on:?}");
        }
    }
}

/// Greedy with a repetition penalty, as transformers has it (tests/fixtures/penalties.py).
#[test]
fn a_repetition_penalty_is_as_transformers_has_it() {
    let text = std::fs::read(path("fixtures/penalties.json")).expect("a file");
    let cases: Vec<serde_json::Value> = serde_json::from_slice(&text).expect("JSON");
    assert_eq!(cases.len(), 12);
    let ids = |value: &serde_json::Value| -> Vec<u32> { serde_json::from_value(value.clone()).expect("ids") };
    let mut continuations = std::collections::BTreeSet::new();
    for case in &cases {
        let fixture = Fixture::open(case["model"].as_str().expect("a name"));
        let repetition = case["penalty"].as_f64().expect("a number") as f32;
        let penalties = Penalties { repetition, ..Penalties::NONE };
        for on in On::ALL {
            let Some(mut engine) = engine(&fixture.model, on, EngineOptions::default()) else { continue };
            let sampling = Sampling { penalties, ..Sampling::GREEDY };
            let generation =
                engine.generate(&ids(&case["prompt"]), sampling, 20).expect("a prompt that fits");
            let got: Vec<u32> = generation.map(|id| id.expect("a token")).collect();
            let expected = &ids(&case["greedy"])[..got.len()];
            assert!(got.len() == 20 || fixture.model.eos.contains(got.last().expect("a token")));
            assert_eq!(got, expected, "{} with {repetition} on {on:?}", fixture.name);
        }
        continuations.insert(ids(&case["greedy"]));
    }
    assert!(continuations.len() > 6, "penalties change what follows");
}
