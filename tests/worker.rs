//! An engine on a thread of its own: many threads send requests, and each gets its own results.

use crate::{models::engine, support::On};
use std::time::{Duration, Instant};
use wgpt::{
    engine::{Engine, EngineOptions, FinishReason, Goal, Happened, SavedPrompt, Sleep, Worker},
    error::Kind,
    model::Model,
    sampling::Sampling,
    weights::Format,
};

fn built_in(sequences: u32) -> Engine {
    let (model, _) = Model::built_in().expect("the built-in model");
    let options = EngineOptions { sequences: Some(sequences), ..EngineOptions::default() };
    engine(&model, On::Cpu, options).expect("the CPU")
}

fn generate(seed: u64, max_tokens: usize) -> Goal {
    let sampling = Sampling { temperature: 1.0, seed, ..Sampling::GREEDY };
    Goal::generate(sampling, max_tokens)
}

fn prompt(seed: u64) -> Vec<u32> {
    let length = 4 + seed as u32 * 17 % 90;
    (0..length).map(|i| 3 + (i * 7 + seed as u32) % 500).collect()
}

/// Twenty threads at once, with a cache for three of their texts. Some drop their requests early.
#[test]
fn each_thread_gets_what_it_would_get_alone() {
    let (model, _) = Model::built_in().expect("the built-in model");
    let options = EngineOptions {
        sequences: Some(12),
        context: Some(128),
        cache: Some(3 * 128),
        ..EngineOptions::default()
    };
    let worker = Worker::start(engine(&model, On::Cpu, options).expect("the CPU"), None).expect("a thread");
    std::thread::scope(|scope| {
        for seed in 0..20 {
            let worker = &worker;
            scope.spawn(move || {
                let mut running = worker.run(prompt(seed), generate(seed, 25));
                if seed % 5 == 4 {
                    assert!(running.next().expect("a beginning").is_ok());
                    return;
                }
                let happened: Vec<_> = running.map(|outcome| outcome.expect("no failure")).collect();
                assert_eq!(happened.last(), Some(&Happened::Finished(FinishReason::Length)));
                let ids: Vec<u32> = happened.into_iter().filter_map(token).collect();
                let mut alone = built_in(1);
                let alone = alone.generate(
                    &prompt(seed),
                    Sampling { temperature: 1.0, seed, ..Sampling::GREEDY },
                    25,
                );
                let alone: Vec<u32> = alone.expect("a prompt").map(|id| id.expect("a token")).collect();
                assert_eq!(ids[..alone.len()], alone, "seed {seed}");
            });
        }
    });
}

fn token(happened: Happened) -> Option<u32> {
    if let Happened::Token(id) = happened { Some(id) } else { None }
}

/// An invalid request fails by itself and does not affect the others.
#[test]
fn a_wrong_request_fails_alone() {
    let worker = Worker::start(built_in(2), None).expect("a thread");
    let right = worker.run(vec![1, 403], generate(1, 10));
    for tokens in [vec![], vec![999_999], vec![1; 600]] {
        let outcomes: Vec<_> = worker.run(tokens, generate(1, 10)).collect();
        let [Err(error)] = &outcomes[..] else { panic!("{outcomes:?}") };
        assert_eq!(error.kind(), Kind::Request);
    }
    assert!(worker.with(|engine| engine.encode_image(&[0.0; 12])).is_err_and(|e| e.kind() == Kind::Request));
    assert_eq!(right.filter_map(|outcome| token(outcome.expect("no failure"))).count(), 10);
    // A request continues after the worker that took it is dropped.
    let last = worker.run(vec![1, 403], generate(1, 10));
    drop(worker);
    assert_eq!(last.filter_map(|outcome| token(outcome.expect("no failure"))).count(), 10);
}

/// A prompt that one engine has read is found in the cache of another, which gives the same bits; and after
/// it was forgotten it is read again.
#[test]
fn a_saved_prompt_is_not_read_again() {
    let (model, _) = Model::built_in().expect("the built-in model");
    let options = EngineOptions { context: Some(256), cache: Some(320), ..EngineOptions::default() };
    let tokens: Vec<u32> = (0..150).map(|i| 3 + (i * 11) % 500).collect();
    for on in [On::Cpu, On::Gpu] {
        let Some(mut first) = engine(&model, on, options) else { continue };
        let run = |engine: &mut Engine| {
            let goal = Goal::Generate {
                sampling: Sampling::GREEDY,
                max_tokens: 5,
                ends: Vec::new(),
                logprobs: Some(2),
                keep: None,
            };
            engine.add(&tokens, goal).expect("a prompt");
            let (mut found, mut came) = (0, Vec::new());
            while !engine.is_idle() {
                for event in engine.step().expect("a step") {
                    match event.happened {
                        Happened::Read { cached, .. } => found = cached,
                        Happened::Token(_) | Happened::Logprobs(_) => came.push(event.happened),
                        _ => (),
                    }
                }
            }
            (found, came)
        };
        assert!(first.save_prompt(&tokens).expect("nothing to save").tokens().is_empty());
        let (found, came) = run(&mut first);
        assert_eq!(found, 0);
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("prompt");
        let saved = first.save_prompt(&tokens).expect("a prompt");
        assert_eq!(saved.tokens(), &tokens[..128]);
        saved.write(&file).expect("a file");
        let saved = SavedPrompt::read(&file).expect("the file");
        let mut second = engine(&model, on, options).expect("it opened before");
        assert_eq!(second.restore_prompt(&saved).expect("the same model"), 128);
        assert_eq!(run(&mut second), (128, came.clone()), "{on:?}");
        assert_eq!(second.forget_prompt(&tokens), 128);
        assert_eq!(run(&mut second), (0, came), "{on:?}");
        // Another format of the weights gives other bits.
        let (mut other, _) = Model::built_in().expect("the built-in model");
        other.quantize(Format::Q8_0);
        let mut other = engine(&other, on, options).expect("it opened before");
        let refused = other.restore_prompt(&saved).expect_err("another model");
        assert_eq!(refused.kind(), Kind::Request);
    }
}

/// The engine is put away while nobody asks, and a request after that gets what it got before.
#[test]
fn an_idle_engine_is_put_away_and_loaded_again() {
    let load = Box::new(|| Ok(built_in(2)));
    let sleep = Sleep { after: Duration::from_millis(50), load };
    let worker = Worker::start(built_in(2), Some(sleep)).expect("a thread");
    let text = || worker.run(prompt(3), generate(3, 9)).map(|o| o.expect("no failure")).collect();
    let before: Vec<Happened> = text();
    assert!(!worker.is_asleep());
    let start = Instant::now();
    while !worker.is_asleep() {
        assert!(start.elapsed() < Duration::from_secs(20), "it falls asleep");
        std::thread::sleep(Duration::from_millis(5));
    }
    let after: Vec<Happened> = text();
    assert_eq!(after, before);
    let steps = worker.with(|engine| Ok(engine.usage().done.steps)).expect("an engine");
    assert!(steps > 0 && !worker.is_asleep());
    // A model that cannot be loaded any more is an error of the request.
    let load = Box::new(|| Err(wgpt::error::Error::model("the file is gone")));
    let sleep = Sleep { after: Duration::ZERO, load };
    let worker = Worker::start(built_in(2), Some(sleep)).expect("a thread");
    while !worker.is_asleep() {
        std::thread::sleep(Duration::from_millis(5));
    }
    let outcome = worker.run(prompt(3), generate(3, 9)).next().expect("an outcome");
    assert_eq!(outcome.expect_err("no model").kind(), Kind::Model);
}
