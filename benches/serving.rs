//! Measures many sequences at once: `cargo bench --bench serving`.
//!
//! It measures one sequence and eight that decode, the first token of a short prompt that arrives beside a
//! long one, and the first token of a prompt whose first thousand tokens are in the cache. WGPT_BENCH_DEVICE,
//! WGPT_BENCH_SHAPES and WGPT_BENCH_FORMATS choose the device, shapes and formats.

use std::{
    env,
    str::FromStr,
    time::{Duration, Instant},
};
use wgpt::{
    backend::{Device, DeviceChoice, GpuOptions},
    engine::{Engine, EngineOptions, Goal, Happened, SequenceId},
    sampling::Sampling,
    shapes,
    simd::Math,
    weights::Format,
};

fn setting(name: &str, default: &str) -> String {
    env::var(name).unwrap_or(default.to_owned())
}

fn load(shape: &str, format: Format) -> Engine {
    let choice = DeviceChoice::from(&*setting("WGPT_BENCH_DEVICE", "cpu"));
    let device = Device::open(&choice, false, None, GpuOptions::default()).unwrap_or_else(|e| panic!("{e}"));
    let device = device.with_math(Math::Fast);
    let model = shapes::model(shape, format, false).unwrap_or_else(|e| panic!("{e}"));
    let options = EngineOptions { context: Some(4608), sequences: Some(8), ..EngineOptions::default() };
    Engine::load(&model, device, options, &|_, _| ()).unwrap_or_else(|e| panic!("{e}"))
}

fn add(engine: &mut Engine, first: u32, tokens: u32, max_tokens: usize) -> SequenceId {
    let prompt: Vec<u32> = (0..tokens).map(|i| (first + i * 7) % 10_000).collect();
    let goal = Goal::generate(Sampling::GREEDY, max_tokens);
    engine.add(&prompt, goal).expect("a prompt that fits")
}

/// Runs steps up to a sequence's first token. Returns the time, and the number of chunks of prompts that were
/// read.
fn first_token(engine: &mut Engine, id: SequenceId) -> (Duration, usize) {
    let (start, mut chunks) = (Instant::now(), 0);
    loop {
        let events = engine.step().expect("the device");
        chunks += usize::from(events.iter().any(|e| matches!(e.happened, Happened::Read { .. })));
        if events.iter().any(|e| e.sequence == id && matches!(e.happened, Happened::Token(_))) {
            return (start.elapsed(), chunks);
        }
    }
}

fn drain(engine: &mut Engine) {
    while !engine.is_idle() {
        engine.step().expect("the device");
    }
}

/// Tokens per second of a number of sequences together, each after a prompt of 32 tokens.
fn decode(engine: &mut Engine, sequences: u32) -> f64 {
    for first in 0..sequences {
        add(engine, first * 1000, 32, 65);
    }
    let (mut tokens, mut start) = (0, Instant::now());
    while !engine.is_idle() {
        let events = engine.step().expect("the device");
        tokens += events.iter().filter(|e| matches!(e.happened, Happened::Token(_))).count();
        if events.iter().any(|e| matches!(e.happened, Happened::Read { .. })) {
            // The time of the prompts is not counted.
            (tokens, start) = (0, Instant::now());
        }
    }
    tokens as f64 / start.elapsed().as_secs_f64()
}

fn measure(shape: &str, format: Format) {
    let name = format!("{shape} {}", format.name());
    let mut engine = load(shape, format);
    decode(&mut engine, 8);
    let (mut one, mut eight) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        one.push(decode(&mut engine, 1));
        eight.push(decode(&mut engine, 8));
    }
    let mean = |of: &[f64]| of.iter().sum::<f64>() / of.len() as f64;
    let (one, eight) = (mean(&one), mean(&eight));
    println!("{name}: one sequence {one:.1} tokens/s, eight {eight:.1}: {:.2} times", eight / one);

    let long = add(&mut engine, 1, 4000, 1);
    while !engine.step().expect("the device").iter().any(|e| e.sequence == long) {}
    let short = add(&mut engine, 5000, 50, 1);
    let (time, chunks) = first_token(&mut engine, short);
    println!("{name}: 50 tokens beside 4000: the first token after {time:.2?} and {chunks} chunks");
    drain(&mut engine);

    let new = add(&mut engine, 3, 1020, 1);
    let (alone, _) = first_token(&mut engine, new);
    let again = add(&mut engine, 3, 1025, 1);
    let (shared, _) = first_token(&mut engine, again);
    let ratio = alone.as_secs_f64() / shared.as_secs_f64();
    println!(
        "{name}: the first token after 1020 tokens {alone:.2?}, with 992 in the cache {shared:.2?}: \
         {ratio:.1} times sooner"
    );
}

fn main() {
    for shape in setting("WGPT_BENCH_SHAPES", "smollm2-135m").split(',') {
        for format in setting("WGPT_BENCH_FORMATS", "f16,q8_0,q4_k").split(',') {
            measure(shape, Format::from_str(format).unwrap_or_else(|e| panic!("WGPT_BENCH_FORMATS: {e}")));
        }
    }
}
