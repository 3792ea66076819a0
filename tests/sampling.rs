//! Sampling on the device: every sampler draws with the probabilities that its definition gives, every
//! setting draws the same tokens as on the CPU, and a generation is not affected by the work of an abandoned
//! one before it.

use crate::{
    models::engine,
    support::{Fixture, On, path},
};
use serde_json::Value;
use wgpt::{
    backend::wait,
    buffers::Sizes,
    engine::{Engine, EngineOptions, plans},
    model::Model,
    plan::Mark,
    sampling::{Dry, Mirostat, Penalties, Pick, Sampling, Xtc},
    step::{Row, Step},
    workload::Phase,
};

const PROMPT: [u32; 4] = [1, 403, 407, 261];

fn draw(engine: &mut Engine, sampling: &Sampling) -> Vec<u32> {
    let generation = engine.generate(&PROMPT, sampling.clone(), 60).expect("a prompt that fits");
    generation.map(|id| id.expect("a token")).collect()
}

#[test]
fn every_setting_draws_the_same_tokens_on_all_devices() {
    let (model, _) = Model::built_in().expect("the built-in model");
    let mut cpu = engine(&model, On::Cpu, EngineOptions::default()).expect("the CPU");
    let plain = Sampling { temperature: 1.0, seed: 3, ..Sampling::GREEDY };
    let settings = [
        Sampling::GREEDY,
        plain.clone(),
        Sampling { temperature: 1.7, seed: u64::MAX, ..plain.clone() },
        Sampling { temperature: 0.05, ..plain.clone() },
        Sampling { top_k: 1, ..plain.clone() },
        Sampling { top_k: 7, ..plain.clone() },
        Sampling { top_k: 5000, ..plain.clone() },
        Sampling { top_p: 0.5, ..plain.clone() },
        Sampling { top_p: 1e-6, ..plain.clone() },
        Sampling { min_p: 0.1, ..plain.clone() },
        Sampling { min_p: 1.0, ..plain.clone() },
        Sampling { temperature: 0.8, top_k: 40, top_p: 0.95, min_p: 0.02, seed: 11, ..plain.clone() },
        Sampling { typical_p: 0.4, ..plain.clone() },
        Sampling { typical_p: 0.9, top_p: 0.95, ..plain.clone() },
        Sampling { xtc: Xtc { probability: 0.5, threshold: 0.05 }, ..plain.clone() },
        Sampling { xtc: Xtc { probability: 1.0, threshold: 0.1 }, min_p: 0.02, ..plain.clone() },
        Sampling { mirostat: Some(Mirostat { target: 2.0, rate: 0.3 }), ..plain.clone() },
        Sampling { dry: Dry { multiplier: 0.8, ..Dry::NONE }, ..Sampling::GREEDY },
        Sampling { biases: vec![(261, 2.0), (403, f32::NEG_INFINITY)], ..plain.clone() },
        Sampling { banned_first: vec![378], ..Sampling::GREEDY },
        Sampling {
            banned_sequences: vec![vec![378, 432], vec![261], vec![378, 432, 383]],
            ..Sampling::GREEDY
        },
        Sampling {
            penalties: Penalties { repetition: 1.4, frequency: 0.3, presence: 0.5, last: 0 },
            ..plain.clone()
        },
        Sampling { penalties: Penalties { repetition: 1.1, last: 5, ..Penalties::NONE }, ..Sampling::GREEDY },
    ];
    let expected: Vec<_> = settings.iter().map(|sampling| draw(&mut cpu, sampling)).collect();
    assert_ne!(expected[1], expected[2]);
    assert_eq!(expected[0], expected[4], "the best of one");
    for on in [On::Gpu, On::Checked, On::WebGpu] {
        let Some(mut engine) = engine(&model, on, EngineOptions::default()) else { return };
        for (sampling, expected) in settings.iter().zip(&expected) {
            assert_eq!(draw(&mut engine, sampling), *expected, "{sampling:?} on {on:?}");
        }
    }
}

/// A case of tests/fixtures/samplers.py: its settings, and mirostat's limit of a token's surprise, in bits.
fn case(case: &Value) -> (Sampling, f32) {
    let number = |name: &str, absent: f64| case[name].as_f64().unwrap_or(absent) as f32;
    let mirostat = case["mirostat_most"].as_f64().map(|_| Mirostat { target: 1.0, rate: 1.0 });
    let biases = case["biases"].as_object().into_iter().flatten();
    let sampling = Sampling {
        temperature: number("temperature", 1.0),
        top_k: number("top_k", 0.0) as u32,
        top_p: number("top_p", 1.0),
        min_p: number("min_p", 0.0),
        typical_p: number("typical_p", 1.0),
        xtc: Xtc {
            probability: f32::from(case["xtc_threshold"].is_number()),
            threshold: number("xtc_threshold", 0.0),
        },
        mirostat,
        seed: 0,
        penalties: Penalties {
            repetition: number("repetition", 1.0),
            frequency: number("frequency", 0.0),
            presence: number("presence", 0.0),
            last: 0,
        },
        dry: Dry {
            multiplier: number("dry_multiplier", 0.0),
            base: number("dry_base", 1.75),
            allowed: number("dry_allowed", 2.0) as u32,
            last: 0,
            breakers: serde_json::from_value(case["dry_breakers"].clone()).unwrap_or_default(),
        },
        biases: biases
            .map(|(id, bias)| (id.parse().expect("an id"), bias.as_f64().expect("a bias") as f32))
            .collect(),
        ..Sampling::GREEDY
    };
    (sampling, number("mirostat_most", 0.0))
}

/// The bound that chi-squared exceeds in one of 10000 cases (Wilson and Hilferty 1931).
fn chi_squared_bound(degrees: f64) -> f64 {
    let part = 2.0 / (9.0 * degrees);
    degrees * (1.0 - part + 3.719 * part.sqrt()).powi(3)
}

/// Compares how often each token is drawn with the probabilities in tests/fixtures/samplers.json. Eight
/// sequences are drawn in each step, with seeds that change from step to step.
#[test]
fn every_sampler_draws_as_it_is_defined() {
    const SEQUENCES: u32 = 8;
    let text = std::fs::read(path("fixtures/samplers.json")).expect("a file");
    let file: Value = serde_json::from_slice(&text).expect("JSON");
    let (cases, seen) = (file["cases"].as_array().expect("cases"), &file["ids"]);
    let seen: Vec<u32> = serde_json::from_value(seen.clone()).expect("ids");
    assert_eq!(cases.len(), 26);
    let fixture = Fixture::open(file["model"].as_str().expect("a name"));
    let length = fixture.tokens.len() as u32;
    for on in [On::Cpu, On::Gpu, On::WebGpu] {
        let Some(device) = on.open() else { continue };
        let sizes = Sizes {
            rows: [SEQUENCES * length, 8],
            outputs: 8,
            sequences: SEQUENCES,
            guesses: 0,
            adapters: 0,
            context: 43,
            blocks: 16,
        };
        let plans = plans(&fixture.model, &device.capabilities(), sizes).expect("plans");
        let mut backend = device.prepare(plans, &|_| ()).expect("a device made ready");
        let row =
            |sequence, position: u32| Row { token: fixture.tokens[position as usize], position, sequence };
        let mut step = Step {
            rows: (0..SEQUENCES).flat_map(|s| (0..length).map(move |p| row(s, p))).collect(),
            outputs: (1..=SEQUENCES).map(|s| s * length - 1).collect(),
            tables: (0..SEQUENCES).map(|s| vec![2 * s, 2 * s + 1]).collect(),
            ..Step::default()
        };
        backend.submit(Phase::Prefill, &step).expect("a prompt");
        // Draws run from the head on, since biases and penalties change the logits in place.
        let plan = backend.plans().of(Phase::Prefill);
        let passes = plan.marked(Mark::Head).expect("a head")..plan.passes.len();
        for of in cases {
            let (sampling, surprise) = case(of);
            let expected: Vec<f64> = serde_json::from_value(of["probabilities"].clone()).expect("numbers");
            let draws = 150 * SEQUENCES;
            let mut counts = vec![0.0; expected.len()];
            for first in (0..draws).step_by(SEQUENCES as usize) {
                let pick = |sequence| Pick {
                    draw: Sampling { seed: u64::from(first + sequence) << 20, ..sampling.clone() }
                        .draw(surprise),
                    penalties: sampling.penalties,
                    adjusted: sampling.adjusted(&seen, false),
                };
                step.picks = (0..SEQUENCES).map(pick).collect();
                backend.submit_passes(Phase::Prefill, passes.clone(), &step).expect("a draw");
                for picked in wait(backend.read_ids()).expect("ids") {
                    counts[picked.id as usize] += 1.0;
                    if sampling.mirostat.is_some() {
                        let probability = expected[picked.id as usize];
                        assert!(
                            (f64::from(picked.probability) - probability).abs() < 1e-4,
                            "{of} on {on:?}: {picked:?}"
                        );
                    }
                }
            }
            let (mut chi, mut rare) = (0.0, (0.0, 0.0));
            let mut degrees = -1.0;
            let mut add = |count: f64, wanted: f64| {
                chi += (count - wanted) * (count - wanted) / wanted;
                degrees += 1.0;
            };
            for (count, probability) in counts.iter().zip(&expected) {
                let wanted = probability * f64::from(draws);
                assert!(wanted > 0.0 || *count == 0.0, "{of} on {on:?}: drawn what should have been dropped");
                match wanted > 5.0 {
                    true => add(*count, wanted),
                    false => rare = (rare.0 + count, rare.1 + wanted),
                }
            }
            if rare.1 > 1.0 {
                add(rare.0, rare.1);
            }
            assert!(
                degrees == 0.0 || chi < chi_squared_bound(degrees),
                "{of} on {on:?}: chi-squared {chi} of {degrees}"
            );
        }
    }
}

#[test]
fn what_an_abandoned_generation_had_under_way_is_forgotten() {
    let (model, _) = Model::built_in().expect("the built-in model");
    for on in On::ALL {
        let Some(mut engine) = engine(&model, on, EngineOptions::default()) else { return };
        let whole = draw(&mut engine, &Sampling::GREEDY);
        for taken in [0, 1, 2, 5] {
            let generation = engine.generate(&PROMPT, Sampling::GREEDY, 60).expect("a prompt that fits");
            let some: Vec<u32> = generation.take(taken).map(|id| id.expect("a token")).collect();
            assert_eq!(some, whole[..taken]);
            assert_eq!(draw(&mut engine, &Sampling::GREEDY), whole, "after {taken} tokens on {on:?}");
        }
    }
}

/// Greedy decoding with a repetition penalty, compared with transformers (tests/fixtures/penalties.py).
#[test]
fn a_repetition_penalty_is_as_transformers_has_it() {
    let text = std::fs::read(path("fixtures/penalties.json")).expect("a file");
    let cases: Vec<Value> = serde_json::from_slice(&text).expect("JSON");
    assert_eq!(cases.len(), 12);
    let ids = |value: &Value| -> Vec<u32> { serde_json::from_value(value.clone()).expect("ids") };
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

/// The built-in model with the first `bytes` bytes of a tensor set to 0xff, which makes its values NaN.
fn damaged(tensor: &str, bytes: usize) -> Model {
    let folder = tempfile::tempdir().expect("a folder");
    let from = path("../src/demo");
    for name in ["config.json", "tokenizer.json"] {
        std::fs::copy(from.join(name), folder.path().join(name)).expect("a copy");
    }
    let mut file = std::fs::read(from.join("model.safetensors")).expect("a file");
    let header = 8 + u64::from_le_bytes(file[..8].try_into().expect("eight bytes")) as usize;
    let tensors: Value = serde_json::from_slice(&file[8..header]).expect("a header");
    let at = header + tensors[tensor]["data_offsets"][0].as_u64().expect("an offset") as usize;
    file[at..at + bytes].fill(0xff);
    std::fs::write(folder.path().join("model.safetensors"), file).expect("a file");
    // The folder may be deleted: the file stays mapped.
    Model::open_weights(folder.path()).expect("a model")
}

/// A NaN logit is never drawn, and an error is returned where all logits are NaN. This also holds on devices
/// whose compilers assume that there is no NaN.
#[test]
fn what_is_no_number_is_not_drawn() {
    let (none, one) = (damaged("model.norm.weight", 256), damaged("model.embed_tokens.weight", 256));
    let plain = Sampling { temperature: 1.0, seed: 3, ..Sampling::GREEDY };
    let flat = Sampling { temperature: 50.0, ..plain.clone() };
    let settings = [
        Sampling::GREEDY,
        plain.clone(),
        flat.clone(),
        Sampling { top_k: 7, ..plain.clone() },
        Sampling { top_p: 0.5, ..plain.clone() },
        Sampling { top_p: 0.999, top_k: 400, ..flat.clone() },
        Sampling { typical_p: 0.9, ..flat },
        Sampling { min_p: 0.1, ..plain },
    ];
    for on in On::ALL {
        for sampling in &settings {
            let Some(mut engine) = engine(&none, on, EngineOptions::default()) else { return };
            let mut generation = engine.generate(&PROMPT, sampling.clone(), 5).expect("a prompt that fits");
            let error = generation.find_map(Result::err).expect("an error");
            assert!(error.to_string().contains("not numbers"), "{sampling:?} on {on:?}: {error}");
        }
        let mut engine = engine(&one, on, EngineOptions::default()).expect("it opened before");
        for sampling in &settings {
            let drawn = draw(&mut engine, sampling);
            assert!(!drawn.is_empty() && !drawn.contains(&0), "{sampling:?} on {on:?}: {drawn:?}");
        }
    }
}
