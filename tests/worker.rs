//! An engine on a thread of its own: many threads send requests, and each gets its own results.

use crate::{models::engine, support::On};
use wgpt::{
    engine::{Engine, EngineOptions, FinishReason, Goal, Happened, Worker},
    error::Kind,
    model::Model,
    sampling::Sampling,
};

fn built_in(sequences: u32) -> Engine {
    let (model, _) = Model::built_in().expect("the built-in model");
    let options = EngineOptions { sequences: Some(sequences), ..EngineOptions::default() };
    engine(&model, On::Cpu, options).expect("the CPU")
}

fn generate(seed: u64, max_tokens: usize) -> Goal {
    let sampling = Sampling { temperature: 1.0, seed, ..Sampling::GREEDY };
    Goal::Generate { sampling, max_tokens, ends: Vec::new(), logprobs: None }
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
    let worker = Worker::start(engine(&model, On::Cpu, options).expect("the CPU")).expect("a thread");
    std::thread::scope(|scope| {
        for seed in 0..20 {
            let worker = &worker;
            scope.spawn(move || {
                let mut running = worker.run(prompt(seed), Vec::new(), generate(seed, 25));
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
    let worker = Worker::start(built_in(2)).expect("a thread");
    let right = worker.run(vec![1, 403], Vec::new(), generate(1, 10));
    for tokens in [vec![], vec![999_999], vec![1; 600]] {
        let outcomes: Vec<_> = worker.run(tokens, Vec::new(), generate(1, 10)).collect();
        let [Err(error)] = &outcomes[..] else { panic!("{outcomes:?}") };
        assert_eq!(error.kind(), Kind::Request);
    }
    assert!(worker.encode_image(vec![0.0; 12]).is_err_and(|e| e.kind() == Kind::Request));
    assert_eq!(right.filter_map(|outcome| token(outcome.expect("no failure"))).count(), 10);
    // A request continues after the worker that took it is dropped.
    let last = worker.run(vec![1, 403], Vec::new(), generate(1, 10));
    drop(worker);
    assert_eq!(last.filter_map(|outcome| token(outcome.expect("no failure"))).count(), 10);
}
